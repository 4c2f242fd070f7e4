"""The fused renderer: Triton kernels that turn images into formatted clips without a full-size intermediate.

It is made for CUDA. With ``TRITON_INTERPRET=1`` it runs on the CPU, slowly, for tests. Float32 output is within 1e-4 of
``render.reference`` per resampling, 8-bit output within one level. It is not differentiable.

Everything that is constant per clip is computed here on the host in float64, packed into one table (``table``), and copied to the device
asynchronously. Nothing is read back.

Kernel launches per batch: one for all clips that read images in every frame, and T per chunk of clips that read their previous frame
(T + 1 with mixing). A chunk holds as many clips as have both their working frames in the device's L2 cache, so a batch of one chunk takes
at most T + 2 launches. Each pyramid level, needed where frames show more than 1.5 image pixels per pixel, takes one more.
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

L2_BYTES = 2**22  # assumed where the device reports no size; every GPU since 2018 has at least 4 MiB
BLOCK = 1024  # pixels per program


class Chunk(NamedTuple):
    """Clips that are rendered by the same launches."""

    clips: Int64[Tensor, " n"]
    partner: Int64[Tensor, " n"]  # position in the batch; in a stepped chunk, position in ``clips``
    wanted: Bool[Tensor, " n"]  # False: rendered only as a partner, and not written by this chunk
    stepped: bool  # True: rendered frame by frame, because some clip or partner reads its previous frame


def render(images: Shaped[Tensor, "N C H W"], plan: MotionPlan, output: Output, chunk: int | None = None) -> Shaped[Tensor, "B _ _ h w"]:
    """Render the clips of a plan in their output format.

    Args:
        images: ``(N, C, H, W)``, uint8, or float16, bfloat16 or float32 in [0, 1]; must not require gradients.
        plan: for these N images, on the CPU.
        output: format of the clips; its dtype is uint8, float16, bfloat16 or float32. Clips from position ``output.count`` on are rendered
            only where they are mixed into others.
        chunk: largest number of clips whose working frames are held at a time. None: as many as fit in the L2 cache.

    Returns:
        ``(count, C, T, h, w)`` or ``(count, T, C, h, w)``, on the device of the images.

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
        "LAYERS": 1 + plan.num_layers,  # the back counts as one
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
        table = _table(plan, chunks, torch.from_numpy(output.scale_and_shift()), detail, starts, pinned=images.is_cuda)
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
    """How many clips fit in the L2 cache with two float32 working frames of ``values`` numbers each; at least one."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else L2_BYTES
    return max(1, cache // (2 * 4 * values))


def _chunks(plan: MotionPlan, count: int, most: int) -> Iterator[Chunk]:
    """Split the wanted clips into chunks: first all that read images only, then the others, at most ``most`` clips per chunk.

    The partner of a mixed clip must be in the same chunk. Clips are ordered along chains of partners, so few are rendered twice.
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
    """Reorder clips so that each is followed by its partner, unless that is not among them or came earlier."""
    left = dict.fromkeys(clips)
    for clip in clips:
        while clip in left:
            del left[clip]
            yield clip
            clip = partner[clip]


def _stepped(group: dict[int, bool], partner: Sequence[int]) -> Chunk:
    slot = {clip: place for place, clip in enumerate(group)}
    partners = [slot.get(partner[clip], 0) for clip in group]  # 0 for unwanted clips, whose partner is never read
    clips, partner_slots, wanted = (torch.tensor(list(values), device="cpu") for values in (group, partners, group.values()))
    return Chunk(clips, partner_slots, wanted, stepped=True)


def _pyramid(images: Shaped[Tensor, "B C H W"], levels: int) -> tuple[Float32[Tensor, "B n"], list[int]]:
    """Pyramid levels 1 to ``levels`` of every image, concatenated; and the offset of each level, then their total size n."""
    b, c, height, width = images.shape
    sides = [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels + 1)]
    starts = [0, *accumulate(c * h * w for h, w in sides[1:])]
    pyramid = torch.empty(b, starts[-1], dtype=torch.float32, device=images.device)
    source, stride, start = images, c * height * width, 0
    for begin, size, (h, w) in zip(starts, sides, sides[1:], strict=False):
        tiles, block = _tiles(h, w)
        kernels.halve[(b * c * tiles,)](source, pyramid, stride, start, starts[-1], begin, *size, C=c, BLOCK=block)
        source, stride, start = pyramid, starts[-1], begin
    return pyramid, starts


def _tiles(h: int, w: int) -> tuple[int, int]:
    """Number of programs per frame, and pixels per program, a power of 2."""
    block = min(BLOCK, 1 << (h * w - 1).bit_length())
    return -(-h * w // block), block


def _table(
    plan: MotionPlan,
    chunks: Sequence[Chunk],
    epilogue: Float[Tensor, " 8"],
    detail: Float64[Tensor, "B S T"],
    starts: Sequence[int],
    *,
    pinned: bool,
) -> Float[Tensor, " n"]:
    """The kernels' table, laid out as in ``table``. Pinned memory lets the device copy it asynchronously."""
    rows, frames = sum(len(group.clips) for group in chunks), detail.numel()
    end = len(epilogue) + layout.CLIP.value * rows
    table = torch.empty(end + layout.FRAME.value * frames, dtype=torch.float32, device="cpu", pin_memory=pinned)
    table[: len(epilogue)] = epilogue
    _fill_clips(table[len(epilogue) : end].view(rows, -1), plan, chunks)
    _fill_frames(table[end:].view(*detail.shape, -1), plan, detail, starts)
    return table


def _fill_clips(rows: Float[Tensor, "n 12"], plan: MotionPlan, chunks: Sequence[Chunk]) -> None:
    """Fill the clip rows of the table."""
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
    """Fill the frame rows of the table: the back of every clip, then its layers."""
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
    # Level k of the pyramid begins at starts[k - 1]. Level 0, the images themselves, is not part of it.
    begin = torch.tensor([0, *starts, 0], dtype=torch.int32, device="cpu")
    bits[..., layout.START.value] = begin[level]
    bits[..., layout.START.value + 1] = begin[level + 1]


def _fill_motion(rows: Float[Tensor, "*b T 32"], motion: Motion, frame_size: tuple[int, int]) -> None:
    """Fill in the inverse homographies (frame pixel to pixel of what is read) and the color maps."""
    back = geometry.inverse(motion.homography.double())
    y, x = ((side - 1) / 2 for side in frame_size)
    center = back[..., 2, 0] * x + back[..., 2, 1] * y + back[..., 2, 2]
    rows[..., layout.BACK.value : layout.COLOR.value] = (back / center[..., None, None]).flatten(-2)  # (*b, T, 9)
    rows[..., layout.COLOR.value : layout.OPACITY.value] = motion.color.flatten(-2)  # (*b, T, 12)
