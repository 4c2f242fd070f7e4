"""Layout of the table that the kernels read, in 4-byte words: a header, then one row per clip, then one row per frame and layer.

Words are float32. A word marked int32 holds the bits of an int32 instead.
"""

# mypy: ignore-errors

import triton.language as tl

# One row per frame of the back or of a layer: (B, 1 + L, T, FRAME). Numbers are offsets within a row.
FRAME = tl.constexpr(32)
BACK = tl.constexpr(0)  # 3x3 homography, frame pixel to pixel of what is read; the denominator at the frame's center is 1
COLOR = tl.constexpr(9)  # 3x4 color map
OPACITY = tl.constexpr(21)
BOX = tl.constexpr(22)  # x0, y0, x1, y1 in pixels of the texture
IMAGE = tl.constexpr(26)  # int32: index of the image or texture
REDUCED = tl.constexpr(27)  # int32: downsampling factor of the pyramid level that is read; 1 is the image itself
NEXT = tl.constexpr(28)  # weight of the next coarser pyramid level
START = tl.constexpr(29)  # 2 x int32: offsets of the two levels within an image's pyramid
FEATHER = tl.constexpr(31)  # width of a layer's soft edge, in pixels of its texture

# One row per clip that a launch renders. Its length is a multiple of 4 words, so the frame rows stay aligned to 16 bytes.
CLIP = tl.constexpr(12)
INDEX = tl.constexpr(0)  # int32: the clip's position in the batch
PARTNER = tl.constexpr(1)  # int32: the partner's position in the batch, or its slot in the working frames
WEIGHT = tl.constexpr(2)
PARTNER_BOX = tl.constexpr(3)  # x0, y0, x1, y1 in frame pixels
FLAGS = tl.constexpr(7)  # int32: bits RECURSIVE and WANTED
PARTNER_FRAMES = tl.constexpr(8)  # 2 x int32: first frame (inclusive), last frame (exclusive)
RECURSIVE = tl.constexpr(1)  # bit: every frame after the first reads the previous frame
WANTED = tl.constexpr(2)  # bit: the clip is written out; unset for clips rendered only as partners

# Header: scale, then shift, of up to four channels, for normalization or 8-bit output.
SHIFT = tl.constexpr(4)
HEADER = tl.constexpr(8)
