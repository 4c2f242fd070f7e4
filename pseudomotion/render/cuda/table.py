"""How the table that tells kernels what to do is laid out, in words of 4 bytes; whole numbers are stored as the bits of an int32."""

# mypy: ignore-errors

import triton.language as tl

# One row of the table for each frame of a layer, in words of 4 bytes; whole numbers are stored as the bits of an int32.
FRAME = tl.constexpr(32)
BACK = tl.constexpr(0)  # 9: homography from frame pixel to pixel of what is read, its denominator 1 at the frame's center
COLOR = tl.constexpr(9)  # 12
OPACITY = tl.constexpr(21)
BOX = tl.constexpr(22)  # 4
IMAGE = tl.constexpr(26)  # int32
REDUCED = tl.constexpr(27)  # int32: how many source pixels along each axis make one of the copy that is read; 1 is the image itself
NEXT = tl.constexpr(28)  # share of the copy reduced twice as much
FEATHER = tl.constexpr(31)  # width of the edge of a layer, in pixels of its texture
START = tl.constexpr(29)  # 2 x int32: where the two copies lie within an image's pyramid

# One row for each clip that a launch renders, of a size that leaves what follows it aligned to 16 bytes.
CLIP = tl.constexpr(12)
INDEX = tl.constexpr(0)  # int32
PARTNER = tl.constexpr(1)  # int32: the partner's clip, or its slot in the working frames
WEIGHT = tl.constexpr(2)
PARTNER_BOX = tl.constexpr(3)  # 4
FLAGS = tl.constexpr(7)  # int32
PARTNER_FRAMES = tl.constexpr(8)  # 2 x int32: from the first up to, not including, the second
RECURSIVE = tl.constexpr(1)  # frames after the first read the one before
WANTED = tl.constexpr(2)  # not there for its partner alone

# At the table's start: scale and shift of the four channels, for normalization or 8-bit output.
SHIFT = tl.constexpr(4)
HEADER = tl.constexpr(8)
