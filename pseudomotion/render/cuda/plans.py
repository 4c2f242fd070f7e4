"""A plan packed for the kernels: one table, and which launches read which of its rows.

All of it is computed on the host from the plan and the sizes alone, in float64, so it can be made by other processes that have no GPU.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from pseudomotion import color as color_maps
from pseudomotion import geometry, outline
from pseudomotion.plan import MotionPlan
from pseudomotion.render.cuda import table as layout
from pseudomotion.render.output import Output

FARTHEST = 1e15  # coefficients of homographies are kept below, so that no coordinate is infinite or not a number
COLUMNS = 32  # row lengths are 8 words more than a multiple of this: few lengths, so few kernels, and never a power of 2


class Launch(NamedTuple):
    """Clips that are rendered by the same launches."""

    first: int  # the first row of the table's clip rows
    count: int
    stepped: bool  # True: rendered frame by frame, because some clip or partner reads its previous frame


class Sizes(NamedTuple):
    """Where the words of a packed image lie."""

    levels: tuple[tuple[int, int, int], ...]  # per level: rows, columns, and the line of ``pitch`` words at which it begins
    pitch: int  # words from row to row
    lines: int  # rows of words per image


class Packed(NamedTuple):
    """A plan for the kernels."""

    table: Float32[Tensor, " n"]  # laid out as in ``table``, on the CPU
    clip_rows: int
    launches: tuple[Launch, ...]
    bytes: bool  # images are packed to bytes, not to 16-bit fields
    images: Sizes
    textures: Sizes | None


def pitch(width: int) -> int:
    """Words from row to row of a packed image with ``width`` columns and a border."""
    return -(-(width + 3 - 8) // COLUMNS) * COLUMNS + 8


def pack(plan: MotionPlan, output: Output, most: int, *, bytes: bool) -> Packed:
    """Pack a plan.

    Args:
        plan: on the CPU.
        output: format of the clips. Clips from position ``output.count`` on are rendered only where they are mixed into others.
        most: largest number of clips whose working frames are held at a time.
        bytes: whether images are of 8 bits.

    """
    detail = np.concatenate([plan.detail[:, None].numpy(), plan.layer_detail.numpy() * (plan.layers.opacity.numpy() > 0)], 1)
    levels = int(np.ceil(detail.max(initial=0)))
    bytes = bytes and levels == 0
    images, textures = _sizes(plan.image_size, levels), None
    if plan.texture_size is not None:
        textures = _sizes(plan.texture_size, levels, images.pitch)
        images = _sizes(plan.image_size, levels, textures.pitch)
    chunks = list(_chunks(plan, output.count, most))
    launches, first = [], 0
    for clips, _, _, stepped in chunks:
        launches.append(Launch(first, len(clips), stepped))
        first += len(clips)
    b, surfaces, t = detail.shape
    begin = layout.HEADER.value + layout.CLIP.value * first
    table = np.zeros(begin + layout.FRAME.value * detail.size, np.float32)
    _fill_header(table[: layout.HEADER.value], output)
    _fill_clips(table[layout.HEADER.value : begin].reshape(first, layout.CLIP.value), plan, chunks)
    _fill_frames(table[begin:].reshape(b, surfaces, t, layout.FRAME.value), plan, detail, images, textures)
    return Packed(torch.from_numpy(table), first, tuple(launches), bytes, images, textures)


def _sizes(size: tuple[int, int], levels: int, at_least: int = 0) -> Sizes:
    """Levels lie below each other, each with its border, in rows of the same length."""
    parts, line = [], 0
    for level in range(levels + 1):
        h, w = (-(-side // 2**level) for side in size)
        parts.append((h, w, line))
        line += h + 3
    return Sizes(tuple(parts), max(pitch(size[1]), at_least), line)


Chunk = tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], np.ndarray, bool]
"""Clips; their partners' positions, in the batch or, where stepped, among the clips; which are written out; whether they are stepped."""


def _chunks(plan: MotionPlan, count: int, most: int) -> Iterator[Chunk]:
    """Split the wanted clips into chunks: first all that read images only, then the others, at most ``most`` clips per chunk.

    The partner of a mixed clip must be in the same chunk. Clips are ordered along chains of partners, so few are rendered twice.
    """
    partners = np.arange(len(plan))
    if plan.blend is not None:
        partners = np.where(plan.blend.weight.numpy() > 0, plan.blend.partner.numpy(), partners)
    stepped = plan.back.reads_previous.numpy() & (plan.num_frames > 1)
    stepped = stepped | stepped[partners]
    at_once = (~stepped[:count]).nonzero()[0]
    if len(at_once):
        yield at_once, partners[at_once], np.ones(len(at_once), dtype=bool), False
    left = stepped[:count].nonzero()[0]
    if (partners[left] == left).all():
        for first in range(0, len(left), most):
            some = left[first : first + most]
            yield some, np.arange(len(some)), np.ones(len(some), dtype=bool), True
        return
    partner = partners.tolist()
    group: dict[int, bool] = {}  # clips, and whether they are wanted
    for clip in _along(partner, left.tolist()):
        theirs = partner[clip]
        if group and len(group) + (clip not in group) + (theirs not in group and theirs != clip) > most:
            yield _stepped(group, partner)
            group = {}
        group[clip] = True
        group.setdefault(theirs, False)
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
    return np.array(list(group)), np.array(partners), np.array(list(group.values())), True


def _fill_header(header: Float32[np.ndarray, " 16"], output: Output) -> None:
    """Fill in how S becomes an output value: normalization, or the factor of 8-bit output."""
    scale, shift = output.scale_and_shift().astype(np.float64).reshape(2, 4)
    scale = scale * (256 / 255)
    shift = shift + (1.5 * 2**23 if output.dtype == torch.uint8 else 0)  # ``pixels.store`` says why
    header[layout.SCALE.value : layout.SCALE.value + 4] = scale
    header[layout.SHIFT.value : layout.SHIFT.value + 4] = shift - scale
    header[layout.SHIFT_BYTES.value : layout.SHIFT_BYTES.value + 4] = shift - 128 * scale
    header[layout.MAGIC_BYTES.value] = 128.0
    header.view(np.int32)[layout.MAGIC.value] = 0x3F000000


def _fill_clips(rows: Float32[np.ndarray, "n 12"], plan: MotionPlan, chunks: Sequence[Chunk]) -> None:
    """Fill the clip rows of the table."""
    if not chunks:
        return
    clips, partners, wanted = (np.concatenate([chunk[part] for chunk in chunks]) for part in range(3))
    bits = rows.view(np.int32)
    bits[:, layout.INDEX.value] = clips
    bits[:, layout.PARTNER.value] = partners
    if plan.blend is not None:
        rows[:, layout.WEIGHT.value] = plan.blend.weight.numpy()[clips]
        rows[:, layout.PARTNER_BOX.value : layout.FLAGS.value] = plan.blend.box.numpy()[clips]
        bits[:, layout.PARTNER_FRAMES.value : layout.PARTNER_FRAMES.value + 2] = plan.blend.frames.numpy()[clips]
    bits[:, layout.FLAGS.value] = plan.back.reads_previous.numpy()[clips] * layout.RECURSIVE.value + wanted * layout.WANTED.value


def _fill_frames(
    rows: Float32[np.ndarray, "B S T 40"], plan: MotionPlan, detail: Float64[np.ndarray, "B S T"], images: Sizes, textures: Sizes | None
) -> None:
    """Fill the frame rows of the table: the back of every clip, then its layers."""
    back, layers, bits = plan.back, plan.layers, rows.view(np.int32)
    recursive = back.reads_previous.numpy()
    homography = np.concatenate([back.motion.homography.numpy()[:, None], layers.motion.homography.numpy()], 1)
    color = np.concatenate([back.motion.color.numpy()[:, None], layers.motion.color.numpy()], 1)
    shown = np.concatenate([back.image.numpy()[:, None], layers.texture.numpy()], 1)  # (B, S)
    with np.errstate(all="ignore"):  # a homography that shows nothing may be any matrix
        matrix = _to_read(homography, plan.frame_size)  # (B, S, T, 3, 3), float64
    level = np.floor(detail).astype(np.int64)
    # Which image, at which place, of which size. Textures lie behind the images.
    for surface, sizes in ((slice(0, 1), images), (slice(1, None), images if textures is None else textures)):
        heights, widths, lines = np.array([*sizes.levels, sizes.levels[-1]]).T
        start = shown[:, surface, None] * sizes.lines + (0 if sizes is images else images.lines * len(plan))
        for copy in range(2):
            of = level[:, surface] + copy
            bits[:, surface, :, layout.PLACE.value + copy] = (start + lines[of]) * (sizes.pitch // layout.UNIT.value)
            rows[:, surface, :, layout.WIDTH.value + copy] = widths[of]
            rows[:, surface, :, layout.HEIGHT.value + copy] = heights[of]
    rows[recursive, 0, 1:, layout.WIDTH.value] = plan.frame_size[1]
    rows[recursive, 0, 1:, layout.HEIGHT.value] = plan.frame_size[0]
    rows[..., layout.SHARE.value] = detail - level
    projective = (matrix[..., 2, :2] != 0).any(-1)
    aligned = ~projective & (matrix[..., 0, 1] == 0) & (matrix[..., 1, 0] == 0)
    colored = (color != color_maps.IDENTITY).any((-1, -2))
    bits[..., layout.KIND.value] = projective * layout.PROJECTIVE.value + colored * layout.COLORED.value + aligned * layout.ALIGNED.value
    reduce = 0.5 ** level[..., None]
    shift = 0.5 * reduce + 0.5  # pixel x of the image is pixel (x + 0.5) * reduce - 0.5 of the reduced copy, which lies one further on
    rows[..., layout.MATRIX.value : layout.MATRIX.value + 3] = matrix[..., 0, :] * reduce + matrix[..., 2, :] * shift
    rows[..., layout.MATRIX.value + 3 : layout.MATRIX.value + 6] = matrix[..., 1, :] * reduce + matrix[..., 2, :] * shift
    rows[..., layout.MATRIX.value + 6 : layout.MATRIX.value + 9] = matrix[..., 2, :]
    rows[..., layout.COLOR.value : layout.COLOR.value + 12] = _color_of_s(color).reshape(*color.shape[:3], 12)
    rows[:, 0, :, layout.OPACITY.value] = 1
    if not plan.num_layers:
        return
    rows[:, 1:, :, layout.OPACITY.value] = layers.opacity.numpy()
    reduce, shift = reduce[:, 1:], shift[:, 1:]
    feather = layers.outline.numpy()[:, :, None, outline.FEATHER, None]  # (B, L, 1, 1)
    box = layers.box.numpy()[:, :, None].astype(np.float64)  # (B, L, 1, 4)
    rows[:, 1:, :, layout.BOX.value : layout.BOX.value + 4] = box * reduce + shift
    rows[:, 1:, :, layout.SHARPNESS.value] = (1 / (feather * reduce))[..., 0]
    bounds = _bounds(homography[:, 1:], matrix[:, 1:], box, feather / 2, plan.frame_size)
    bits[:, 1:, :, layout.BOUNDS.value : layout.BOUNDS.value + 4] = bounds * (layers.opacity.numpy() > 0)[..., None]


def _to_read(homography: Float32[np.ndarray, "B S T 3 3"], frame_size: tuple[int, int]) -> Float64[np.ndarray, "B S T 3 3"]:
    """Homographies from frame pixel to pixel of what is read, with denominators of 1 at the frame's center."""
    matrix = geometry.inverse(homography.astype(np.float64))
    y, x = ((side - 1) / 2 for side in frame_size)
    center = matrix[..., 2, 0] * x + matrix[..., 2, 1] * y + matrix[..., 2, 2]
    matrix /= center[..., None, None]
    return np.nan_to_num(matrix, nan=FARTHEST, posinf=FARTHEST, neginf=-FARTHEST).clip(-FARTHEST, FARTHEST)


def _color_of_s(color: Float32[np.ndarray, "*b 3 4"]) -> Float64[np.ndarray, "*b 3 4"]:
    """Color maps of values in [0, 1] as maps of S = 1 + v * 255 / 256."""
    maps = color.astype(np.float64)
    maps[..., 3] = 1 - maps[..., :3].sum(-1) + maps[..., 3] * (255 / 256)
    return maps


def _bounds(
    homography: Float32[np.ndarray, "B L T 3 3"],
    matrix: Float64[np.ndarray, "B L T 3 3"],
    box: Float64[np.ndarray, "B L 1 4"],
    soft: Float32[np.ndarray, "B L 1 1"],
    frame_size: tuple[int, int],
) -> Int64[np.ndarray, "B L T 4"]:
    """Left, top, right and bottom of where layers may be seen: the whole frame where the layer, or the frame, reaches past the horizon."""
    h, w = frame_size
    x0, y0, x1, y1 = np.moveaxis(box + soft * (-1, -1, 1, 1), -1, 0)
    corners = np.stack([np.stack([x, y, np.ones_like(x)], -1) for y in (y0, y1) for x in (x0, x1)], -2)  # (B, L, 1, 4, 3)
    with np.errstate(all="ignore"):
        at = geometry.matmul(corners, homography.astype(np.float64).swapaxes(-1, -2))  # (B, L, T, 4, 3)
        places = at[..., :2] / at[..., 2:]
        seen = geometry.denominators(matrix[..., 2, :], frame_size)
        near = (seen > geometry.HORIZON).all(-1) & ((at[..., 2] > 0).all(-1) | (at[..., 2] < 0).all(-1)) & np.isfinite(places).all((-1, -2))
        first = np.floor(places.min(-2)) - 1
        last = np.ceil(places.max(-2)) + 2
    first = np.where(near[..., None], first, 0).clip(0, (w, h))
    last = np.where(near[..., None], last, (w, h)).clip(0, (w, h))
    return np.concatenate([first, last], -1).astype(np.int64)
