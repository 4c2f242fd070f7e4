"""The fused renderer: Triton kernels that go from images to formatted clips without a full-size intermediate.

Made for CUDA; with ``TRITON_INTERPRET=1`` it runs on the CPU, slowly, for tests. Within 1e-4 of ``render.reference`` per resampling in
float32, and within one level in 8 bits. Not differentiable.

Everything that depends on the clip alone is computed here in float64 on the host, packed into one table, and crosses to the device in one
asynchronous copy; nothing is read back. Launches a batch: one for all clips whose frames read source images; and for clips that read their
previous frame, T for each chunk of them (T + 1 where clips are mixed). A chunk is as many clips as have both their working frames in the
device's L2 cache, so a batch of one chunk takes at most T + 2. Where frames show more than 1.5 source pixels per pixel, one launch more
for each halving of the source.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from pseudomotion import geometry, outline
from pseudomotion.plan import Motion, MotionPlan
from pseudomotion.render.cuda import clips as kernels
from pseudomotion.render.cuda import table as layout
from pseudomotion.render.output import Output

L2_BYTES = 2**22  # where a device does not say: the 4 MiB that GPUs since 2018 have at least
BLOCK = 1024  # pixels a program paints


class Chunk(NamedTuple):
    """Clips that are rendered by the same launches."""

    clips: Int64[Tensor, " n"]
    partner: Int64[Tensor, " n"]  # clip of the batch, or position in ``clips`` where the chunk is stepped
    wanted: Bool[Tensor, " n"]  # False: rendered for its partner alone, and written by another chunk
    stepped: bool


def render(images: Shaped[Tensor, "N C H W"], plan: MotionPlan, output: Output, chunk: int | None = None) -> Shaped[Tensor, "B _ _ h w"]:
    """Clips of a plan, formatted.

    Args:
        images: uint8 or float16, bfloat16 or float32 in [0, 1], not requiring gradients.
        plan: for as many images of the same size, on the CPU.
        output: of the clips after those that are wanted, only what is mixed in is rendered. Its dtype: uint8, float16, bfloat16 or float32.
        chunk: most clips of which working frames are held at a time. None: as many as fit the L2 cache.

    """
    (_, c, height, width), t, (h, w) = images.shape, plan.num_frames, plan.frame_size
    count, frame_axis = output.count, output.data_format.index("T")
    shape = (count, c, t, h, w) if frame_axis == 2 else (count, t, c, h, w)
    clips = images.new_empty(shape, dtype=output.dtype)
    if not clips.numel():
        return clips
    images = images.contiguous()
    chunks = list(_chunks(plan, count, chunk or _clips_in_cache(images.device, c * h * w)))
    detail = torch.cat([plan.detail[:, None], plan.layer_detail * (plan.layers.opacity > 0)], 1)  # (B, 1 + L, T)
    strides = clips.stride(0), clips.stride(frame_axis), clips.stride(3 - frame_axis)
    tiles, block = _tiles(h, w)
    options = {
        "C": c,
        "LAYERS": 1 + plan.num_layers,  # the back and those over it
        "REDUCES": bool(detail.any()),
        "COLORED": any(p.colored for passes in (plan.passes, *plan.layer_passes) for p in passes),
        "MIXES": plan.mixes,
        "PADDING": plan.padding_mode,
        "ROUND": output.dtype == torch.uint8,
        "BLOCK": block,
    }
    slots = max((len(group.clips) for group in chunks if group.stepped), default=0)
    working = torch.empty(2 * slots, c, h, w, dtype=torch.float32, device=images.device)
    first = 0
    with torch.cuda.device(images.get_device()):
        pyramid, starts = _pyramid(images, int(detail.max().ceil()))
        table = _table(plan, chunks, _epilogue(output), detail, starts, pinned=images.is_cuda)
        table = table.to(images.device, non_blocking=True)
        frames = table[table.numel() - layout.FRAME.value * detail.numel() :]
        sizes = (t, h, w, height, width, starts[-1])
        for group in chunks:
            n = len(group.clips)
            if group.stepped:
                for frame in range(t + plan.mixes):
                    kernels.step_clips[(n * tiles,)](
                        images, pyramid, table, frames, first, slots, frame, working, clips, *strides, *sizes, **options
                    )
            else:
                kernels.paint_clips[(n * t * tiles,)](images, pyramid, table, frames, first, clips, *strides, *sizes, **options)
            first += n
    return clips


def _clips_in_cache(device: torch.device, values: int) -> int:
    """How many clips have two float32 working frames of so many values in the L2 cache; at least one."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else L2_BYTES
    return max(1, cache // (2 * 4 * values))


def _chunks(plan: MotionPlan, count: int, most: int) -> Iterator[Chunk]:
    """The wanted clips in groups: first all that can be painted from the sources, then the others, at most ``most`` at a time.

    A clip that is mixed needs its partner in its group. Partners follow each other, so that few clips are rendered in two groups.
    """
    themselves = torch.arange(len(plan), device="cpu")
    partners = themselves if plan.blend is None else torch.where(plan.blend.weight > 0, plan.blend.partner, themselves)
    stepped = plan.back.reads_previous & (plan.num_frames > 1)
    stepped = stepped | stepped[partners]
    at_once = (~stepped[:count]).nonzero()[:, 0]
    if len(at_once):
        yield Chunk(at_once, partners[at_once], torch.ones_like(at_once, dtype=torch.bool), stepped=False)
    partner = partners.tolist()
    group: dict[int, bool] = {}  # clips, and whether they are wanted
    for clip in _along(partner, stepped[:count].nonzero()[:, 0].tolist()):
        if group and len(group.keys() | {clip, partner[clip]}) > most:
            yield _stepped(group, partner)
            group = {}
        group[clip] = True
        group.setdefault(partner[clip], False)
    if group:
        yield _stepped(group, partner)


def _along(partner: Sequence[int], clips: Sequence[int]) -> Iterator[int]:
    """Clips, each followed by its partner where that is among them and has not been."""
    left = dict.fromkeys(clips)
    for clip in clips:
        while clip in left:
            del left[clip]
            yield clip
            clip = partner[clip]


def _stepped(group: dict[int, bool], partner: Sequence[int]) -> Chunk:
    slot = {clip: place for place, clip in enumerate(group)}
    partners = [slot.get(partner[clip], 0) for clip in group]  # that of a clip which is not wanted is not looked at
    clips, partner_slots, wanted = (torch.tensor(list(values), device="cpu") for values in (group, partners, group.values()))
    return Chunk(clips, partner_slots, wanted, stepped=True)


def _pyramid(images: Shaped[Tensor, "B C H W"], levels: int) -> tuple[Float32[Tensor, "B n"], list[int]]:
    """Reduced copies of every image one after the other, and where each begins; the last number is the size of all."""
    b, c, height, width = images.shape
    sides = [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels + 1)]
    starts = [0, *accumulate(c * h * w for h, w in sides[1:])]
    pyramid = torch.empty(b, starts[-1], dtype=torch.float32, device=images.device)
    source, apart, start = images, c * height * width, 0
    for begin, size, (h, w) in zip(starts, sides, sides[1:], strict=False):
        tiles, block = _tiles(h, w)
        kernels.halve[(b * c * tiles,)](source, pyramid, apart, start, starts[-1], begin, *size, C=c, BLOCK=block)
        source, apart, start = pyramid, starts[-1], begin
    return pyramid, starts


def _tiles(h: int, w: int) -> tuple[int, int]:
    """How many programs paint a frame, and how many pixels each; a power of 2."""
    block = min(BLOCK, 1 << (h * w - 1).bit_length())
    return -(-h * w // block), block


def _epilogue(output: Output) -> Float[Tensor, " 8"]:
    """Scale and shift that finish each of four channels."""
    scale = torch.full((4,), 255.0 if output.dtype == torch.uint8 else 1.0, dtype=torch.float32, device="cpu")
    shift = torch.zeros_like(scale)
    if output.mean is not None and output.std is not None:
        mean, std = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (output.mean, output.std))
        scale[: len(std)] = 1 / std
        shift[: len(std)] = -mean / std
    return torch.cat([scale, shift])


def _table(
    plan: MotionPlan,
    chunks: Sequence[Chunk],
    epilogue: Float[Tensor, " 8"],
    detail: Float64[Tensor, "B S T"],
    starts: Sequence[int],
    *,
    pinned: bool,
) -> Float[Tensor, " n"]:
    """All that the kernels need to know, laid out as in ``table``; pinned, so that a device can copy it by itself."""
    rows, frames = sum(len(group.clips) for group in chunks), detail.numel()
    end = len(epilogue) + layout.CLIP.value * rows
    table = torch.empty(end + layout.FRAME.value * frames, dtype=torch.float32, device="cpu", pin_memory=pinned)
    table[: len(epilogue)] = epilogue
    _fill_clips(table[len(epilogue) : end].view(rows, -1), plan, chunks)
    _fill_frames(table[end:].view(*detail.shape, -1), plan, detail, starts)
    return table


def _fill_clips(rows: Float[Tensor, "n 12"], plan: MotionPlan, chunks: Sequence[Chunk]) -> None:
    """Write the clips' part of the table."""
    clips = torch.cat([group.clips for group in chunks])
    bits = rows.view(torch.int32)
    bits[:, layout.INDEX.value] = clips.int()
    bits[:, layout.PARTNER.value] = torch.cat([group.partner for group in chunks]).int()
    rows[:, layout.WEIGHT.value : layout.PARTNER_FRAMES.value + 2] = 0
    if plan.blend is not None:
        rows[:, layout.WEIGHT.value] = plan.blend.weight[clips]
        rows[:, layout.PARTNER_BOX.value : layout.FLAGS.value] = plan.blend.box[clips]
        bits[:, layout.PARTNER_FRAMES.value : layout.PARTNER_FRAMES.value + 2] = plan.blend.frames[clips].int()
    wanted = torch.cat([group.wanted for group in chunks])
    bits[:, layout.FLAGS.value] = plan.back.reads_previous[clips].int() * layout.RECURSIVE.value + wanted.int() * layout.WANTED.value


def _fill_frames(rows: Float[Tensor, "B S T 32"], plan: MotionPlan, detail: Float64[Tensor, "B S T"], starts: Sequence[int]) -> None:
    """Write the frames' part of the table: the back of every clip, then its layers."""
    back, layers, bits = plan.back, plan.layers, rows.view(torch.int32)
    _fill_motion(rows[:, 0], back.motion, plan.frame_size)
    _fill_motion(rows[:, 1:], layers.motion, plan.frame_size)
    bits[:, 0, :, layout.IMAGE.value] = back.image[:, None].int()
    bits[:, 1:, :, layout.IMAGE.value] = layers.texture[:, :, None].int()
    rows[:, 0, :, layout.OPACITY.value] = 1
    rows[:, 1:, :, layout.OPACITY.value] = layers.opacity
    rows[:, 1:, :, layout.BOX.value : layout.IMAGE.value] = layers.box[:, :, None]
    rows[:, 1:, :, layout.FEATHER.value] = layers.outline[:, :, None, outline.FEATHER]
    level = detail.floor().long()
    bits[..., layout.REDUCED.value] = (2**level).int()
    rows[..., layout.NEXT.value] = detail - level
    # Level k of the pyramid begins at starts[k - 1]; the images themselves, level 0, lie elsewhere.
    begin = torch.tensor([0, *starts, 0], dtype=torch.int32, device="cpu")
    bits[..., layout.START.value] = begin[level]
    bits[..., layout.START.value + 1] = begin[level + 1]


def _fill_motion(rows: Float[Tensor, "*b T 32"], motion: Motion, frame_size: tuple[int, int]) -> None:
    """Write where frames read, and their color maps."""
    back = geometry.inverse(motion.homography.double())
    y, x = ((side - 1) / 2 for side in frame_size)
    center = back[..., 2, 0] * x + back[..., 2, 1] * y + back[..., 2, 2]
    rows[..., layout.BACK.value : layout.COLOR.value] = (back / center[..., None, None]).flatten(-2)
    rows[..., layout.COLOR.value : layout.OPACITY.value] = motion.color.flatten(-2)
