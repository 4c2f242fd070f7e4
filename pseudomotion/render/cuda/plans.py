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
from pseudomotion.motion import Motion
from pseudomotion.plan import MotionPlan
from pseudomotion.render.cuda import table as layout
from pseudomotion.render.output import Output

FARTHEST = 1e15  # coefficients of homographies are kept below, so that no coordinate is infinite or not a number
COLUMNS = 32  # row lengths are 8 words more than a multiple of this: few lengths, so few kernels, and never a power of 2


class Launch(NamedTuple):
    """Clips that are rendered by the same launches."""

    first: int  # the first row of the table's clip rows
    clips: int
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
    frames = _frames(plan, detail, images, textures)
    bends = list(_bends(plan, frames))
    outlines = _outlines(plan, frames, frames.size + sum(bend.size for bend in bends))
    parts = [_header(output), *([_clips(plan, chunks)] if chunks else []), frames, *bends, outlines]
    table = np.concatenate([part.reshape(-1) for part in parts])
    return Packed(torch.from_numpy(table), first, tuple(launches), bytes, images, textures)


def _sizes(size: tuple[int, int], levels: int, at_least: int = 0) -> Sizes:
    """Sizes for an image and ``levels`` reduced copies, which lie below each other, each with its border, at one pitch."""
    parts, line = [], 0
    for level in range(levels + 1):
        h, w = (-(-side // 2**level) for side in size)
        parts.append((h, w, line))
        line += h + 3
    return Sizes(tuple(parts), max(pitch(size[1]), at_least), line)


Chunk = tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"], np.ndarray, bool]
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


def _header(output: Output) -> Float32[np.ndarray, " 16"]:
    """The header: scale and shift from S to output values, for normalization or 8-bit output, and the exponents of unpacked words."""
    header = np.zeros(layout.HEADER.value, np.float32)
    scale, shift = output.scale_and_shift().astype(np.float64).reshape(2, 4)
    scale = scale * (256 / 255)
    shift = shift + (1.5 * 2**23 if output.dtype == torch.uint8 else 0)  # ``pixels.store`` says why
    header[layout.SCALE.value : layout.SCALE.value + 4] = scale
    header[layout.SHIFT.value : layout.SHIFT.value + 4] = shift - scale
    header[layout.SHIFT_BYTES.value : layout.SHIFT_BYTES.value + 4] = shift - 128 * scale
    header[layout.EXPONENT_BYTES.value] = 128.0
    header.view(np.int32)[layout.EXPONENT.value] = 0x3F000000
    return header


def _clips(plan: MotionPlan, chunks: Sequence[Chunk]) -> Float32[np.ndarray, "n 12"]:
    """The clip rows."""
    clips, partners, wanted = (np.concatenate([chunk[part] for chunk in chunks]) for part in range(3))
    rows = np.zeros((len(clips), layout.CLIP.value), np.float32)
    bits = rows.view(np.int32)
    bits[:, layout.INDEX.value] = clips
    bits[:, layout.PARTNER.value] = partners
    if plan.blend is not None:
        rows[:, layout.WEIGHT.value] = plan.blend.weight.numpy()[clips]
        rows[:, layout.PARTNER_BOX.value : layout.FLAGS.value] = plan.blend.box.numpy()[clips]
        bits[:, layout.PARTNER_FRAMES.value : layout.PARTNER_FRAMES.value + 2] = plan.blend.frames.numpy()[clips]
    bits[:, layout.FLAGS.value] = plan.back.reads_previous.numpy()[clips] * layout.RECURSIVE.value + wanted * layout.WANTED.value
    return rows


def _frames(
    plan: MotionPlan, detail: Float64[np.ndarray, "B S T"], images: Sizes, textures: Sizes | None
) -> Float32[np.ndarray, "B S T 40"]:
    """The frame rows: the back of every clip, then its layers. ``_bends`` and ``_outlines`` fill in the offsets of their rows."""
    back, layers = plan.back, plan.layers
    rows = np.zeros((*detail.shape, layout.FRAME.value), np.float32)
    bits = rows.view(np.int32)
    recursive = back.reads_previous.numpy()
    homography = np.concatenate([back.motion.homography.numpy()[:, None], layers.motion.homography.numpy()], 1)
    color = np.concatenate([back.motion.color.numpy()[:, None], layers.motion.color.numpy()], 1)
    shown = np.concatenate([back.image.numpy()[:, None], layers.texture.numpy()], 1)  # (B, S)
    with np.errstate(all="ignore"):  # a homography that shows nothing may be any matrix
        matrix = _to_read(homography, plan.frame_size)
    rows[..., layout.MATRIX.value : layout.MATRIX.value + 9] = matrix.reshape(*matrix.shape[:3], 9)
    projective = (matrix[..., 2, :2] != 0).any(-1)
    aligned = ~projective & (matrix[..., 0, 1] == 0) & (matrix[..., 1, 0] == 0)
    colored = (color != color_maps.IDENTITY).any((-1, -2))
    bits[..., layout.KIND.value] = projective * layout.PROJECTIVE.value + colored * layout.COLORED.value + aligned * layout.ALIGNED.value
    level = np.floor(detail).astype(np.int64)
    for surface, sizes in ((slice(0, 1), images), (slice(1, None), images if textures is None else textures)):
        heights, widths, lines = np.array([*sizes.levels, sizes.levels[-1]]).T
        start = shown[:, surface, None] * sizes.lines + (0 if sizes is images else images.lines * len(plan))  # textures lie behind images
        for copy in range(2):
            of = level[:, surface] + copy
            bits[:, surface, :, layout.PLACE.value + copy] = (start + lines[of]) * (sizes.pitch // layout.UNIT.value)
            rows[:, surface, :, layout.WIDTH.value + copy] = widths[of]
            rows[:, surface, :, layout.HEIGHT.value + copy] = heights[of]
    rows[recursive, 0, 1:, layout.WIDTH.value] = plan.frame_size[1]
    rows[recursive, 0, 1:, layout.HEIGHT.value] = plan.frame_size[0]
    rows[..., layout.SHARE.value] = detail - level
    rows[..., layout.REDUCE.value] = 0.5**level
    rows[..., layout.COLOR.value : layout.COLOR.value + 12] = _color_of_s(color).reshape(*color.shape[:3], 12)
    rows[:, 0, :, layout.OPACITY.value] = 1
    if plan.num_layers:
        opacity = layers.opacity.numpy()
        rows[:, 1:, :, layout.OPACITY.value] = opacity
        bounds = _bounds(plan, homography[:, 1:], matrix[:, 1:])
        bits[:, 1:, :, layout.BOUNDS.value : layout.BOUNDS.value + 4] = bounds * (opacity > 0)[..., None]
    return rows


def _bends(plan: MotionPlan, frames: Float32[np.ndarray, "B S T 40"]) -> Iterator[Float32[np.ndarray, "B n T k"]]:
    """The rows of the bends: of the backs, then of the layers. They follow the frame rows, which get their offsets and kinds."""
    begin, bits = frames.size, frames.view(np.int32)
    b, _, t, _ = frames.shape
    image, frame = (np.array([-0.5, -0.5, w - 0.5, h - 0.5]) for h, w in (plan.image_size, plan.frame_size))
    reads_frame = plan.back.reads_previous.numpy()[:, None] & (np.arange(t) > 0)
    box = np.where(reads_frame[..., None], frame, image)[:, None]  # (B, 1, T, 4)
    layer_box = np.broadcast_to(plan.layers.box.numpy()[:, :, None].astype(np.float64), (b, plan.num_layers, t, 4))
    for surface, motion, boxes in ((slice(0, 1), plan.back.motion, box), (slice(1, None), plan.layers.motion, layer_box)):
        bend = _bend_of(motion)
        bend = bend[:, None] if bend.ndim == 5 else bend  # (B, n, T, 2, G, G)
        grid = bend.shape[-1]
        if not bend.size:
            continue
        cell = (boxes[..., 2:] - boxes[..., :2]) / grid
        rows = np.empty((*bend.shape[:3], layout.POINTS.value + 2 * grid * grid), np.float32)
        rows[..., layout.FIRST_POINT.value : layout.FIRST_POINT.value + 2] = boxes[..., :2] + cell / 2 + 1
        rows[..., layout.PER_CELL.value : layout.PER_CELL.value + 2] = 1 / cell
        points = (bend * cell[..., None, None]).reshape(*bend.shape[:4], -1)  # (B, n, T, 2, G * G)
        rows[..., layout.POINTS.value :] = points.swapaxes(-1, -2).reshape(*bend.shape[:3], -1)
        bent = bend.any((-1, -2, -3))
        kind = bits[:, surface, :, layout.KIND.value]
        bits[:, surface, :, layout.KIND.value] = np.where(bent, (kind & ~layout.ALIGNED.value) | layout.BENT.value, kind)
        bits[:, surface, :, layout.BEND.value] = begin + np.arange(bent.size).reshape(bent.shape) * rows.shape[-1]
        bits[:, surface, :, layout.GRID.value] = grid
        begin += rows.size
        yield rows


def _outlines(plan: MotionPlan, frames: Float32[np.ndarray, "B S T 40"], begin: int) -> Float32[np.ndarray, "B L 32"]:
    """The rows of the layers' outlines. They lie at offset ``begin`` in the table, and the frame rows get their offsets."""
    outlines, box = plan.layers.outline.double(), plan.layers.box.double()
    rows = np.zeros((*box.shape[:2], layout.SHAPED_LAYER.value), np.float32)
    rows[..., layout.CENTER.value : layout.CENTER.value + 2] = (box[..., :2] + box[..., 2:]) / 2 + 1
    rows[..., layout.HALF_SIDES.value : layout.HALF_SIDES.value + 2] = (box[..., 2:] - box[..., :2]) / 2
    rows[..., layout.SHARPNESS.value] = 1 / outlines[..., outline.FEATHER]
    shape = outlines[..., outline.SHAPE].numpy()
    rows.view(np.int32)[..., layout.SHAPE.value] = shape
    params = rows[..., layout.PARAMS.value :]
    if outlines.shape[-1] > outline.PARAMS:
        numbers = outlines[..., outline.PARAMS :].numpy()
        params[..., : numbers.shape[-1]] = numbers
        planes = outline.half_planes(outlines, box).flatten(-2).numpy()
        params[..., : planes.shape[-1]] = np.where((shape == outline.POLYGON)[..., None], planes, params[..., : planes.shape[-1]])
    places = begin + np.arange(rows[..., 0].size).reshape(rows.shape[:2]) * rows.shape[-1]
    frames.view(np.int32)[:, 1:, :, layout.OUTLINE.value] = places[..., None]
    return rows


def _bend_of(motion: Motion) -> Float32[np.ndarray, "*b 2 G G"]:
    """The bend of a plan's motion. It is never None: a rigid motion has a bend without control points."""
    assert motion.bend is not None
    return motion.bend.numpy()


def _to_read(homography: Float32[np.ndarray, "B S T 3 3"], frame_size: tuple[int, int]) -> Float64[np.ndarray, "B S T 3 3"]:
    """Homographies from frame pixels to coordinates of packed images, scaled so that denominators are 1 at the frame's center."""
    matrix = geometry.inverse(homography.astype(np.float64))
    y, x = ((side - 1) / 2 for side in frame_size)
    center = matrix[..., 2, 0] * x + matrix[..., 2, 1] * y + matrix[..., 2, 2]
    matrix /= center[..., None, None]
    matrix[..., :2, :] += matrix[..., 2:, :]
    return np.nan_to_num(matrix, nan=FARTHEST, posinf=FARTHEST, neginf=-FARTHEST).clip(-FARTHEST, FARTHEST)


def _color_of_s(color: Float32[np.ndarray, "*b 3 4"]) -> Float64[np.ndarray, "*b 3 4"]:
    """Color maps of values in [0, 1] as maps of S = 1 + v * 255 / 256."""
    maps = color.astype(np.float64)
    maps[..., 3] = 1 - maps[..., :3].sum(-1) + maps[..., 3] * (255 / 256)
    return maps


def _bounds(
    plan: MotionPlan, homography: Float32[np.ndarray, "B L T 3 3"], matrix: Float64[np.ndarray, "B L T 3 3"]
) -> Int64[np.ndarray, "B L T 4"]:
    """Left, top, right and bottom of the part of the frame that a layer may cover: all of it where the homography has a horizon there."""
    h, w = plan.frame_size
    box = outline.bounds(plan.layers.outline.double(), plan.layers.box.double()).numpy()[:, :, None]  # (B, L, 1, 4)
    bend = _bend_of(plan.layers.motion)
    if bend.shape[-1]:
        sides = plan.layers.box.numpy().astype(np.float64)
        cell = (sides[..., 2:] - sides[..., :2]) / bend.shape[-1]
        reach = np.abs(bend).max((-1, -2)) * cell[:, :, None]  # (B, L, T, 2), as ``spline.reach``
        box = box + np.concatenate([-reach, reach], -1)
    x0, y0, x1, y1 = np.moveaxis(box, -1, 0)
    corners = np.stack([np.stack([x, y, np.ones_like(x)], -1) for y in (y0, y1) for x in (x0, x1)], -2)  # (B, L, 1 or T, 4, 3)
    with np.errstate(all="ignore"):
        at = geometry.matmul(corners, homography.astype(np.float64).swapaxes(-1, -2))  # (B, L, T, 4, 3)
        places = at[..., :2] / at[..., 2:]
        seen = geometry.denominators(matrix[..., 2, :], plan.frame_size)
        near = (seen > geometry.HORIZON).all(-1) & ((at[..., 2] > 0).all(-1) | (at[..., 2] < 0).all(-1)) & np.isfinite(places).all((-1, -2))
        first = np.floor(places.min(-2)) - 1
        last = np.ceil(places.max(-2)) + 2
    first = np.where(near[..., None], first, 0).clip(0, (w, h))
    last = np.where(near[..., None], last, (w, h)).clip(0, (w, h))
    return np.concatenate([first, last], -1).astype(np.int64)
