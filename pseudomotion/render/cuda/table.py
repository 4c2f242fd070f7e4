"""Layout of the table that the kernels read, in 4-byte words: a header, then one row per clip, then one row per frame and surface.

A surface is the back of a clip or one of its layers. Words are float32; a word marked int32 holds the bits of an int32 instead.

Every row of a frame is complete in itself: it says where the words of the packed image lie, how large that image is, and by which matrix
it is read. The CPU renderer's table (``render.table``) describes something else, the part of an image that each clip keeps in the cache,
so the two share no rows.

Values are kept as ``S = 1 + v * 255 / 256`` for v in [0, 1] (``pixels`` says why), so scales, shifts and color maps are stored for S.
"""

# mypy: ignore-errors

import triton.language as tl

# Header. Up to four channels are written as ``scale * S + shift``, for normalization or 8-bit output.
SCALE = tl.constexpr(0)  # 4
SHIFT = tl.constexpr(4)  # 4
SHIFT_BYTES = tl.constexpr(8)  # 4: shift for values that are still 127 + S
EXPONENT_BYTES = tl.constexpr(12)  # int32: bits of 128.0, over which a byte is laid
EXPONENT = tl.constexpr(13)  # int32: 0x3F000000, over which a field is laid: its highest bit is the lowest of the exponent
HEADER = tl.constexpr(16)

# One row per clip that a launch renders.
INDEX = tl.constexpr(0)  # int32: the clip's position in the batch
PARTNER = tl.constexpr(1)  # int32: the partner's position in the batch, or its slot in the working frames
WEIGHT = tl.constexpr(2)
PARTNER_BOX = tl.constexpr(3)  # x0, y0, x1, y1 in frame pixels
FLAGS = tl.constexpr(7)  # int32: bits RECURSIVE and WANTED
PARTNER_FRAMES = tl.constexpr(8)  # 2 x int32: first frame (inclusive), last frame (exclusive)
CLIP = tl.constexpr(12)
RECURSIVE = tl.constexpr(1)  # bit: every frame after the first reads the previous frame
WANTED = tl.constexpr(2)  # bit: the clip is written out; unset for clips rendered only as partners

# One row per frame of the back or of a layer: (B, 1 + L, T, FRAME). Coordinates of what is read count from the first pixel of its border,
# so that pixel x of an image lies at x + 1. Offsets in words count from the first frame row.
MATRIX = tl.constexpr(0)  # 3x3 homography, frame pixel to coordinates; the denominator at the frame's center is 1
KIND = tl.constexpr(9)  # int32: bits PROJECTIVE, COLORED, ALIGNED, BENT
PLACE = tl.constexpr(10)  # 2 x int32: where the words of the image begin, and of the next reduced copy, in units of UNIT words
WIDTH = tl.constexpr(12)  # 2: columns of the image, and of the next reduced copy
HEIGHT = tl.constexpr(14)  # 2
SHARE = tl.constexpr(16)  # weight of the next reduced copy
REDUCE = tl.constexpr(17)  # pixels of the copy that is read per pixel of the image: 1, 1/2, 1/4, ...
COLOR = tl.constexpr(18)  # 3x4 color map of S
OPACITY = tl.constexpr(30)
BOUNDS = tl.constexpr(31)  # 4 x int32: columns and rows of the frame that a layer may cover: left, top, right, bottom (exclusive)
OUTLINE = tl.constexpr(35)  # int32: offset of a layer's outline
BEND = tl.constexpr(36)  # int32: offset of the bend
GRID = tl.constexpr(37)  # int32: G of the bend
FRAME = tl.constexpr(40)
PROJECTIVE = tl.constexpr(1)  # bit of KIND: the denominator is not 1 everywhere
COLORED = tl.constexpr(2)  # bit of KIND: the color map is not the identity
ALIGNED = tl.constexpr(4)  # bit of KIND: columns of the frame read columns, rows read rows
BENT = tl.constexpr(8)  # bit of KIND: the bend is not zero
UNIT = tl.constexpr(8)
BLACK = tl.constexpr(-0x7FFF7FFF7FFF8000)  # the int64 word 0x8000800080008000: four fields of S = 1

# One row per layer, in the coordinates of the frame rows and in pixels of the texture.
CENTER = tl.constexpr(0)  # x, y of the box
HALF_SIDES = tl.constexpr(2)  # of the box
SHARPNESS = tl.constexpr(4)  # reciprocal of the width of the soft edge
SHAPE = tl.constexpr(5)  # int32, as in ``pseudomotion.outline``
PARAMS = tl.constexpr(6)  # 24: half-planes of a polygon (n_x, n_y, d), 8 times; else the outline's own numbers
SHAPED_LAYER = tl.constexpr(32)

# A bend, one per frame row where bends have control points: then G x G control points (x, y) in pixels.
FIRST_POINT = tl.constexpr(0)  # x, y
PER_CELL = tl.constexpr(2)  # x, y: cells per pixel
POINTS = tl.constexpr(4)
