"""A plan packed into one table of numbers, for renderers that are compiled.

All that depends on the plan alone is computed here, in float64, by numpy: where frames read, which part of which level of an image pyramid
they need, where layers can be seen. Rows are made of words of 4 bytes, float32 or int32; the constants below say which word is what.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from pseudomotion import color as color_maps
from pseudomotion import geometry, outline
from pseudomotion.geometry import HORIZON
from pseudomotion.plan import PADDING_MODES, MotionPlan

FARTHEST = 1e15  # coefficients of homographies are kept below, so that no coordinate is infinite or not a number
ENDLESS = 1e30  # period of reflection for coordinates that never leave the image
ZEROS, BORDER, REFLECTION = range(len(PADDING_MODES))

# One row for every frame of the back and of every layer of a clip, in this order.
MATRIX = 0  # 9: homography from frame pixel to pixel of what is read, its denominator 1 at the frame's center
SHARE = 9  # of the second source that is read
READS = 10  # 2 x int32: rows of the sources that are read
FLAGS = 12  # int32
OPACITY = 13
ROWS = 14  # 2 x int32: rows of the frame, from the first up to the second, in which it may be seen
COLOR = 16  # 16: columns of the color map, each of 4
BOX = 32  # 4
SHARPNESS = 36  # reciprocal of the width of a layer's soft edge
FRAME = 40
AFFINE, COLORED, COPY = 1, 2, 4  # COPY: every pixel is one pixel of what is read

# One row for every clip.
SOURCES = 0  # 2 x int32: rows of its sources, from the first up to the second
RECURSIVE = 2  # int32: frames after the first read the one before
LAYERED = 3  # int32: some layer is seen in some frame
PARTNER = 4  # int32
WEIGHT = 5
FIRST, LAST = 6, 7  # int32: it is mixed in frames from the first up to the last, and never where LAST is 0
MIX_LEFT, MIX_TOP, MIX_RIGHT, MIX_BOTTOM = 8, 9, 10, 11  # int32: in these columns and rows, up to the right and bottom
CLIP = 12

# One row for every part of an image or texture, at one level of its pyramid, that some frame of a clip reads.
TEXTURED = 0  # int32: of the textures, not the images
INDEX = 1  # int32: which
LEVEL = 2  # int32
LEFT, TOP, WIDTH, HEIGHT = 3, 4, 5, 6  # int32: which part, in pixels of the level
PITCH = 7  # int32: pixels from row to row of its working frame
PLACE = 8  # int32: pixels before it in the clip's memory
PERIOD_U, PERIOD_V = 9, 10  # of reflection
WEIGHTS_X, WEIGHTS_Y = 11, 12  # int32: where the weights of the level begin
SOURCE = 13

# One number of 64 bits for everything that all clips have in common: addresses, sizes, strides in bytes.
IMAGES, TEXTURES, OUT, FINISH = range(4)
NUM_FRAMES, NUM_LAYERS, CHANNELS, W, H, IMAGE_W, IMAGE_H, TEXTURE_W, TEXTURE_H = range(4, 13)
ITEM, KIND, PADDING, CLIP_STRIDE, FRAME_STRIDE, CHANNEL_STRIDE = range(13, 19)
PITCHES, BUFFERS, FRAME_BYTES, CHAIN_BYTES, ROW_BYTES, PIECES, PIECE_ROWS = range(19, 26)
CALL = 26
UINT8, FLOAT16, BFLOAT16, FLOAT32 = range(4)  # values of KIND


class Table(NamedTuple):
    """What a compiled renderer is told about a plan."""

    clips: Int32[np.ndarray, "B 12"]
    frames: Float32[np.ndarray, "n 40"]  # n = B * (1 + L) * T
    sources: Int32[np.ndarray, "s 13"]
    weights: Float32[np.ndarray, " w"]
    most_pixels: int  # that the sources of one clip take, with their borders


def pitch(width: Any) -> Any:
    """Pixels from row to row of a working frame: rows are written four pixels at a time, and lie one pixel before and two behind.

    Rows a power of two apart would fall on the same few places of a cache.
    """
    rounded = (width + 3) // 4 * 4 + 4
    return rounded + 4 * (rounded % 32 == 0)


def pack(plan: MotionPlan) -> Table:
    """The table of a plan on the CPU."""
    b, num_layers, t = len(plan), plan.num_layers, plan.num_frames
    back, layers = plan.back, plan.layers
    # Back and layers are one array each: (B, 1 + L, T, ...).
    homography = np.concatenate([back.motion.homography[:, None].numpy(), layers.motion.homography.numpy()], 1).astype(np.float64)
    color = np.concatenate([back.motion.color[:, None].numpy(), layers.motion.color.numpy()], 1)
    opacity = np.concatenate([np.ones((b, 1, t)), layers.opacity.numpy()], 1)
    detail = np.concatenate([plan.detail[:, None].numpy(), plan.layer_detail.numpy()], 1)
    recursive = back.reads_previous.numpy()
    reads_image = opacity > 0
    reads_image[recursive, 0, 1:] = False
    with np.errstate(all="ignore"):  # a homography that shows nothing may be any matrix
        matrix = _to_read(homography, plan.frame_size)
        low, high = _bounds(matrix, plan.frame_size)
    soft = layers.outline[..., outline.FEATHER].numpy().astype(np.float64) / 2
    box = layers.box.numpy().astype(np.float64)
    if num_layers:
        low[:, 1:] = np.fmax(low[:, 1:], (box[..., :2] - soft[..., None])[:, :, None] - 1)
        high[:, 1:] = np.fmin(high[:, 1:], (box[..., 2:] + soft[..., None])[:, :, None] + 1)
    shown = np.concatenate([back.image[:, None].numpy(), layers.texture.numpy()], 1)
    sources, begin, ids, weights, most = _sources(plan, shown, reads_image, detail, low, high)

    frames = np.zeros((b, 1 + num_layers, t, FRAME), np.float32)
    bits = frames.view(np.int32)
    level = np.floor(detail).astype(np.int64)
    frames[..., MATRIX : MATRIX + 9] = matrix.reshape(*matrix.shape[:-2], 9)
    frames[..., SHARE] = detail - level
    for k in range(2):
        bits[..., READS + k] = np.take_along_axis(ids, np.minimum(level + k, ids.shape[-1] - 1), -1)
    frames[..., OPACITY] = opacity
    bits[..., FLAGS] = _flags(plan, matrix, color, detail, recursive)
    bits[..., ROWS], bits[..., ROWS + 1] = 0, plan.frame_size[0]
    frames[..., COLOR : COLOR + 16].reshape(*color.shape[:3], 4, 4)[..., :3] = color.swapaxes(-1, -2)
    if num_layers:
        with np.errstate(all="ignore"):
            bits[:, 1:, :, ROWS : ROWS + 2] = _layer_rows(homography[:, 1:], matrix[:, 1:], box, soft, plan.frame_size)
            frames[:, 1:, :, SHARPNESS] = 0.5 / soft[:, :, None]
        frames[:, 1:, :, BOX : BOX + 4] = box[:, :, None]
    return Table(_clips(plan, begin), frames.reshape(-1, FRAME), sources, weights, most)


def _to_read(homography: Float64[np.ndarray, "B N T 3 3"], frame_size: tuple[int, int]) -> Float32[np.ndarray, "B N T 3 3"]:
    """Homographies from frame pixel to pixel of what is read, with denominators of 1 at the frame's center."""
    matrix = geometry.inverse(homography)
    y, x = ((side - 1) / 2 for side in frame_size)
    center = matrix[..., 2, 0] * x + matrix[..., 2, 1] * y + matrix[..., 2, 2]
    matrix = matrix / center[..., None, None]
    return np.nan_to_num(matrix, nan=FARTHEST).clip(-FARTHEST, FARTHEST).astype(np.float32)


def _bounds(
    matrix: Float32[np.ndarray, "B N T 3 3"], frame_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "B N T 2"], Float64[np.ndarray, "B N T 2"]]:
    """Least and greatest (x, y) that frames read; infinite where they look past the horizon."""
    points = np.concatenate([geometry.frame_corners(frame_size), np.ones((4, 1))], 1)  # (4, 3)
    at = np.einsum("...ij,kj->...ki", matrix.astype(np.float64), points)  # (B, N, T, 4, 3)
    near = (at[..., 2] > HORIZON).all(-1)[..., None]
    places = at[..., :2] / at[..., 2:]
    return np.where(near, places.min(-2), -np.inf), np.where(near, places.max(-2), np.inf)


def _sources(
    plan: MotionPlan,
    shown: Int64[np.ndarray, "B N"],
    reads: np.ndarray,
    detail: Float64[np.ndarray, "B N T"],
    low: Float64[np.ndarray, "B N T 2"],
    high: Float64[np.ndarray, "B N T 2"],
) -> tuple[Int32[np.ndarray, "s 13"], Int64[np.ndarray, " n"], Int64[np.ndarray, "B N K"], Float32[np.ndarray, " w"], int]:
    """Rows of the sources; where those of every clip begin; which of them back and layers read at every level; weights; most pixels."""
    levels = int(np.ceil(detail.max(initial=0, where=reads))) + 1
    textured = np.zeros(shown.shape, dtype=bool)
    textured[:, 1:] = plan.texture_size is not None
    sizes = np.where(textured[..., None], plan.texture_size or plan.image_size, plan.image_size)[..., ::-1]  # (B, N, 2): width, height
    parts = []
    for level in range(levels):
        used = reads & (np.abs(detail - level) < 1)  # (B, N, T)
        size = -(-sizes // 2**level)
        first = low.min(2, initial=np.inf, where=used[..., None])  # (B, N, 2): of all frames that read this level
        last = high.max(2, initial=-np.inf, where=used[..., None])
        first, last = ((edge + 0.5) / 2**level - 0.5 for edge in (first, last))
        start = np.floor(first.clip(-4, size + 4)) - 1  # a pixel more on either side than is read, for coordinates are rounded
        end = np.floor(last.clip(-4, size + 4)) + 3
        outside = (start < 0) | (end > size)
        if plan.padding_mode == "reflection":
            start, end = np.where(outside, 0, start), np.where(outside, size, end)
        start = start.clip(0, size - 1)
        end = np.maximum(end.clip(0, size), start + 1)
        period = np.where(outside, np.maximum(1, 2 * (size - 1)), ENDLESS)
        parts.append((used.any(2), start, end, period))
    some, start, end, period = (np.stack(arrays, 2) for arrays in zip(*parts, strict=True))  # (B, N, K, ...)
    where = some.nonzero()  # in the order of clips
    clip, layer, of_level = where
    rows = np.zeros((len(clip), SOURCE), np.int32)
    rows[:, TEXTURED], rows[:, INDEX], rows[:, LEVEL] = textured[clip, layer], shown[clip, layer], of_level
    rows[:, LEFT : LEFT + 2] = start[where]
    rows[:, WIDTH : WIDTH + 2] = (end - start)[where]
    rows[:, PITCH] = pitch(rows[:, WIDTH])
    rows.view(np.float32)[:, PERIOD_U : PERIOD_U + 2] = period[where]
    pixels = rows[:, PITCH].astype(np.int64) * (rows[:, HEIGHT] + 3) + 4
    total = np.concatenate([[0], np.cumsum(pixels)])
    begin = np.searchsorted(clip, np.arange(len(shown) + 1))
    rows[:, PLACE] = total[:-1] - total[begin[clip]]
    weights, places = _weights(plan, levels)
    rows[:, WEIGHTS_X : WEIGHTS_X + 2] = places[rows[:, TEXTURED], of_level]
    ids = np.zeros(some.shape, np.int64)
    ids[where] = np.arange(len(clip))
    return rows, begin, ids, weights, int((total[begin[1:]] - total[begin[:-1]]).max(initial=0))


def _weights(plan: MotionPlan, levels: int) -> tuple[Float32[np.ndarray, " w"], Int64[np.ndarray, "2 K 2"]]:
    """What every row and column of an image weighs in the pixel of a level that it is averaged into, and where each list begins.

    A level is the average over 2x2 pixels of the level before; at an odd far edge, over those that are there.
    """
    places = np.zeros((2, levels, 2), np.int64)
    if levels == 1:
        return np.zeros(1, np.float32), places
    lists: list[np.ndarray] = []
    begin = 0
    for textured, size in enumerate((plan.image_size, plan.texture_size or (0, 0))):
        for axis, side in enumerate((size[1], size[0])):
            weight, block = np.ones(side, np.float32), np.arange(side)
            for level in range(1, levels):
                count = -(-side // 2 ** (level - 1))
                weight = weight * np.where((block == count - 1) & (count % 2 == 1), np.float32(1), np.float32(0.5))
                block = block // 2
                places[textured, level, axis] = begin
                lists.append(weight)
                begin += side
    return np.concatenate(lists), places


def _flags(
    plan: MotionPlan,
    matrix: Float32[np.ndarray, "B N T 3 3"],
    color: Float32[np.ndarray, "B N T 3 4"],
    detail: Float64[np.ndarray, "B N T"],
    recursive: np.ndarray,
) -> Int64[np.ndarray, "B N T"]:
    affine = (matrix[..., 2, :] == (0, 0, 1)).all(-1)
    colored = (color != color_maps.IDENTITY).any((-1, -2))
    shift = matrix[:, 0, :, :2, 2]  # (B, T, 2)
    size, room = np.array(plan.image_size[::-1]), np.array(plan.frame_size[::-1])
    most = np.broadcast_to(size - room, shift.shape).copy()
    most[recursive, 1:] = 0
    moved = (matrix[:, 0, :, :2, :2] == np.eye(2)).all((-1, -2)) & affine[:, 0] & (detail[:, 0] == 0)
    flags = affine * AFFINE + colored * COLORED
    flags[:, 0] += (moved & ((shift == np.round(shift)) & (shift >= 0) & (shift <= most)).all(-1)) * COPY
    return flags


def _layer_rows(
    homography: Float64[np.ndarray, "B L T 3 3"],
    matrix: Float32[np.ndarray, "B L T 3 3"],
    box: Float64[np.ndarray, "B L 4"],
    soft: Float64[np.ndarray, "B L"],
    frame_size: tuple[int, int],
) -> Int32[np.ndarray, "B L T 2"]:
    """Rows of the frame in which a layer may be seen: all of them where it, or the frame, reaches past the horizon."""
    h, w = frame_size
    x0, y0, x1, y1 = np.moveaxis(box + soft[..., None] * (-1, -1, 1, 1), -1, 0)
    corners = np.stack([np.stack([x, y, np.ones_like(x)], -1) for y in (y0, y1) for x in (x0, x1)], 2)  # (B, L, 4, 3)
    at = np.einsum("bltij,blkj->bltki", homography, corners)
    y = at[..., 1] / at[..., 2]  # (B, L, T, 4)
    seen = np.einsum("...ij,kj->...ki", matrix.astype(np.float64), np.concatenate([geometry.frame_corners((h, w)), np.ones((4, 1))], 1))
    near = (seen[..., 2] > HORIZON).all(-1) & ((at[..., 2] > 0).all(-1) | (at[..., 2] < 0).all(-1)) & np.isfinite(y).all(-1)
    first, last = np.floor(y.min(-1).clip(0, h)) - 1, np.ceil(y.max(-1).clip(-1, h)) + 2
    return np.stack([np.where(near, first, 0), np.where(near, last, h)], -1).clip(0, h).astype(np.int32)


def _clips(plan: MotionPlan, begin: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, "B 12"]:
    """Rows of the clips; sources of clip i begin at ``begin[i]``."""
    rows = np.zeros((len(plan), CLIP), np.int32)
    rows[:, SOURCES], rows[:, SOURCES + 1] = begin[:-1], begin[1:]
    rows[:, RECURSIVE] = plan.back.reads_previous.numpy()
    rows[:, LAYERED] = (plan.layers.opacity.numpy() > 0).any((1, 2))
    if plan.blend is None:
        return rows
    h, w = plan.frame_size
    partner, weight, box, frames = (getattr(plan.blend, name).numpy() for name in ("partner", "weight", "box", "frames"))
    rows[:, PARTNER] = partner
    rows.view(np.float32)[:, WEIGHT] = weight
    # The pixels whose centers lie in [x0, x1) and [y0, y1).
    rows[:, MIX_LEFT : MIX_BOTTOM + 1] = np.ceil(box).clip(0, (w, h, w, h))
    mixed = (weight > 0) & (partner != np.arange(len(plan)))
    rows[:, FIRST : LAST + 1] = frames.clip(0, plan.num_frames) * (mixed & (frames[:, 0] < frames[:, 1]))[:, None]
    return rows
