"""Layout of the kernels' arguments: rows of numbers, which ``pack`` computes from a plan.

Words of a row are float32 or, where it says so, int32. The constants are positions in a row.
"""

from typing import Any

from pseudomotion.plan import PADDING_MODES

FARTHEST = 1e15  # coefficients of homographies are clamped to this, so that no coordinate is infinite or NaN
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
CELLS = 32  # 4: lattice coordinates of a bend are CELLS[axis] * pixel + CELLS[2 + axis]; they begin 3 cells before the first control point
BEND, GRID = 36, 37  # int32: where its control points begin, and how many they are along either axis
REACHED = 38  # pixels that it moves anything up or down at most
STEEP = 39  # 2: reciprocals of what x and y of what is read change by from pixel to pixel of a row, and at most 1e30
FRAME = 41
AFFINE, COLORED, COPY, BENT = 1, 2, 4, 8  # COPY: every pixel is one pixel of what is read

# One row for every layer of a clip, and before them one for its back, which is not used.
BOX = 0  # 4
SHARPNESS = 4  # reciprocal of the width of the soft edge
SHAPE = 5  # int32
LIMITS = 6  # 4: edges of the box beyond which nothing of it is seen, before it is bent
CENTER, PER = 10, 12  # 2 each, x and y: of the box, its center and the reciprocals of its half-sides
PARAMS = 14  # 24: of a polygon 8 lines, each its inward normal and offset from the center; of others, their parameters
SURFACE = 38

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

# One number of 64 bits for everything that all clips have in common. First of the clips: addresses, sizes, strides in bytes. PREVIOUS is
# the address of a source row for the frame before, LEVELS how many levels of a pyramid are read at most.
IMAGES, TEXTURES, OUT, FINISH, PREVIOUS, CLIPS, FRAMES, SURFACES, CONTROLS, SOURCE_ROWS, WEIGHTS = range(11)
BATCH, NUM_FRAMES, NUM_LAYERS, CHANNELS, W, H, IMAGE_W, IMAGE_H, TEXTURE_W, TEXTURE_H, LEVELS, SEPARATE = range(11, 23)
ITEM, KIND, PADDING, CLIP_STRIDE, FRAME_STRIDE, CHANNEL_STRIDE = range(23, 29)
BUFFERS, FRAME_BYTES, CHAIN_BYTES, ROW_BYTES, PIECES, PIECE_ROWS = range(29, 35)
# Then addresses of the plan's tensors; GRID and OUTLINE_NUMBERS are sizes.
BACK_IMAGE, BACK_READS_PREVIOUS, BACK_HOMOGRAPHY, BACK_COLOR, BACK_BEND, BACK_GRID, BACK_DETAIL = range(35, 42)
LAYER_TEXTURE, LAYER_BOX, LAYER_OUTLINE, OUTLINE_NUMBERS, LAYER_OPACITY = range(42, 47)
LAYER_HOMOGRAPHY, LAYER_COLOR, LAYER_BEND, LAYER_GRID, LAYER_DETAIL = range(47, 52)
BLEND_PARTNER, BLEND_WEIGHT, BLEND_BOX, BLEND_FRAMES = range(52, 56)  # 0: nothing is mixed
PLACES, SCRATCH = 56, 57  # where the weights of every level begin; memory for ``REACH`` numbers of every level
SUBFRAMES = 58  # so many of the ``NUM_FRAMES`` frames are averaged into one
ALPHA = 59  # textures have a fourth channel, by which layers are cut out; images have three
STREAMED = 60  # whether clips are written past the cache: every row then fills cache lines
CALL = 61
REACH = 5  # doubles for every level of a pyramid: least x and y, greatest x and y that is read of it; whether any is
UINT8, FLOAT16, BFLOAT16, FLOAT32 = range(4)  # values of KIND


def pitch(width: Any) -> Any:
    """Pixels from row to row of a working frame: rows are written four pixels at a time, and lie one pixel before and two behind.

    Rows a power of two apart would fall on the same few places of a cache.
    """
    rounded = (width + 3) // 4 * 4 + 4
    return rounded + 4 * (rounded % 32 == 0)


def controls(grid: Any) -> Any:
    """Numbers that the control points of one bend take: two planes, padded by 3 zeros on every side, and 16 so that vectors can be read."""
    return 2 * (grid + 6) * (grid + 6) + 16
