"""The launched kernels: ``pack`` and ``halve`` prepare images, ``paint_clips`` samples them, ``step_clips`` samples previous frames.

Arguments that the kernels share:
    packed: words of the images and their reduced copies (``pixels`` describes words), rows PITCH words apart.
    table: laid out as in ``table``; ``first`` is the launch's first clip row, and ``frames`` points to the first frame row.
    out: the clips, with strides ``clip_stride``, ``frame_stride`` and ``channel_stride``.
    num_frames, h, w: size of the clips. surfaces: 1 + number of layers.
    bands: how many bands of ROWS rows a program paints, in a strip of COLS columns.
    C: channels. LAYERED: there are layers. CUT: their textures have a fourth channel, alpha, and colors multiplied by it. SHAPED: their
    outlines may be other than boxes. BENDS: there are bends. MIXES: clips are mixed. PADDING: padding mode. ASM: on NVIDIA's GPUs.
    VEC: neighboring columns that a thread paints. BYTES: values stay 127 + S, because nothing but bytes is painted.

What depends on the draws of a batch is a branch that all threads of a program take alike, so that batches do not need kernels of their
own: an integer argument is only a constant of the kernel where it follows from the sizes of images and frames.
"""

# mypy: ignore-errors
# Triton functions only look like Python: they have no types to check, and jaxtyping's import hook must not wrap them.

# fmt: off
# One argument per line would hide the code.

import triton
import triton.language as tl

from pseudomotion.render.cuda.pixels import (
    TRANSPARENT,
    apply_color,
    bilinear_taps,
    coverage,
    lerp_pixels,
    load_int32,
    load_surface,
    pack_fields,
    partner_share,
    partner_weight,
    project,
    rigid_taps,
    sample,
    sample_surface,
    store,
    unpack_fields,
)
from pseudomotion.render.cuda.table import (
    BLACK,
    BOUNDS,
    CLIP,
    EXPONENT,
    EXPONENT_BYTES,
    FLAGS,
    FRAME,
    HEADER,
    INDEX,
    OPACITY,
    OUTLINE,
    PARTNER,
    RECURSIVE,
    SCALE,
    SHIFT,
    SHIFT_BYTES,
    WANTED,
)


@triton.jit(do_not_specialize=["image_stride", "row_stride", "height", "width", "image_words"])
def pack(
    images, packed, image_stride, channel_stride, row_stride, column_stride, height, width, image_words,
    C: tl.constexpr, CUT: tl.constexpr, PITCH: tl.constexpr, LINES: tl.constexpr, BLOCK: tl.constexpr, ASM: tl.constexpr,
):
    """Pack images of any strides into words with a black border. One program packs LINES rows of one image, BLOCK columns at a time.

    CUT: colors are multiplied by the fourth channel, alpha.
    """
    tiles = (height + 3 + LINES - 1) // LINES
    line = tl.program_id(0) % tiles * LINES + tl.arange(0, LINES)[:, None]
    image = (tl.program_id(0) // tiles).to(tl.int64)
    source = images + image * image_stride + (line - 1).to(tl.int64) * row_stride
    target = packed + image * image_words + line * PITCH
    for begin in range(0, width + 3, BLOCK):
        column = begin + tl.arange(0, BLOCK)[None, :]
        inside = (line >= 1) & (line <= height) & (column >= 1) & (column <= width)
        at = source + (column - 1) * column_stride
        red = _load_channel(at, inside, packed)
        green, blue, alpha = red, red, red
        if C > 1:
            green = _load_channel(at + channel_stride, inside, packed)
            blue = _load_channel(at + channel_stride + channel_stride, inside, packed)
            alpha = blue
            if C == 4:
                alpha = _load_channel(at + channel_stride + channel_stride + channel_stride, inside, packed)
                if CUT:
                    red, green, blue = _times(red, alpha, packed), _times(green, alpha, packed), _times(blue, alpha, packed)
        if packed.dtype.element_ty == tl.int32:
            word = red | (green << 8) | (blue << 16) | (alpha << 24)
        else:
            word = pack_fields(red, green, blue, alpha, ASM)
        tl.store(target + column, word, mask=(line < height + 3) & (column < width + 3))


@triton.jit
def _load_channel(pointer, inside, packed):
    """A channel of an image, black outside: bytes where they stay bytes, else S."""
    value = tl.load(pointer, mask=inside, other=0)
    if packed.dtype.element_ty == tl.int32:
        value = value.to(tl.int32)
    elif pointer.dtype.element_ty == tl.uint8:
        value = 1.0 + value.to(tl.float32) * (1.0 / 256.0)
    else:
        value = 1.0 + tl.minimum(tl.maximum(value.to(tl.float32), 0.0), 1.0) * (255.0 / 256.0)
    return value


@triton.jit
def _times(color, alpha, packed):
    """A color times alpha, both as ``_load_channel`` gives them."""
    if packed.dtype.element_ty == tl.int32:  # noqa: SIM108  a constant: only one branch has types that fit
        value = (color * alpha + 127) // 255
    else:
        value = 1.0 + (color - 1.0) * ((alpha - 1.0) * (256.0 / 255.0))
    return value


@triton.jit(do_not_specialize=["source", "target", "height", "width", "image_words"])
def halve(
    packed, table, source, target, height, width, image_words,
    C: tl.constexpr, PITCH: tl.constexpr, LINES: tl.constexpr, BLOCK: tl.constexpr, ASM: tl.constexpr,
):
    """Average images of (height, width) over blocks of 2x2 pixels; blocks at an odd edge are cut off. Programs as in ``pack``.

    ``source`` and ``target`` are the offsets of both copies within an image's words.
    """
    exponent = load_int32(table + EXPONENT)
    h, w = (height + 1) // 2, (width + 1) // 2
    tiles = (h + 3 + LINES - 1) // LINES
    line = tl.program_id(0) % tiles * LINES + tl.arange(0, LINES)[:, None]
    start = packed + (tl.program_id(0) // tiles).to(tl.int64) * image_words
    for begin in range(0, w + 3, BLOCK):
        column = begin + tl.arange(0, BLOCK)[None, :]
        inside = (line >= 1) & (line <= h) & (column >= 1) & (column <= w)
        # Pixel x is word x + 1. At an odd edge the last row or column counts twice, which gives the average of the pixels that exist.
        left, top = column * 2 - 1, (line * 2 - 1) * PITCH
        right, bottom = tl.minimum(left + 1, width), tl.minimum(line * 2, height) * PITCH
        red, green, blue, alpha = unpack_fields(tl.load(start + source + (top + left), mask=inside, other=BLACK), exponent, C, ASM)
        for corner in tl.static_range(1, 4):
            at = (top if corner == 1 else bottom) + (left if corner == 2 else right)
            r, g, b, a = unpack_fields(tl.load(start + source + at, mask=inside, other=BLACK), exponent, C, ASM)
            red, green, blue, alpha = red + r, green + g, blue + b, alpha + a
        word = pack_fields(red * 0.25, green * 0.25, blue * 0.25, alpha * 0.25, ASM)
        tl.store(start + target + line * PITCH + column, word, mask=(line < h + 3) & (column < w + 3))


@triton.jit
def _paint_layers(
    red, green, blue, alpha, packed, frames, row, row_step, surfaces, left, top, x, y, exponent, exponent_bytes,
    C: tl.constexpr, CUT: tl.constexpr, PITCH: tl.constexpr, PADDING: tl.constexpr, SHAPED: tl.constexpr, BENDS: tl.constexpr,
    ASM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):
    """Paint layers, in order, over pixels of the back; ``row`` is the back's, and those of its layers follow ``row_step`` words apart.

    Layers whose bounds do not reach the tile at (left, top) are skipped.
    """
    for _ in range(1, surfaces):
        row += row_step
        from_left, from_top = load_int32(row + BOUNDS), load_int32(row + BOUNDS + 1)
        to_right, to_bottom = load_int32(row + BOUNDS + 2), load_int32(row + BOUNDS + 3)
        if (left < to_right) & (top < to_bottom) & (left + COLS > from_left) & (top + ROWS > from_top):
            m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, image, width, height = load_surface(packed, row)
            u, v = project(frames, row, m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, x, y, BENDS)
            their_red, their_green, their_blue, their_alpha = sample_surface(
                packed, row, kind, image, width, height, u, v, exponent, exponent_bytes, 4 if CUT else C, PITCH, PADDING, ASM
            )
            share = coverage(frames + load_int32(row + OUTLINE), u, v, SHAPED) * tl.load(row + OPACITY)
            if CUT:
                own = (their_alpha - 1.0) * (256.0 / 255.0)
                share *= own
                inverse = 1.0 / tl.maximum(own, TRANSPARENT)
                their_red, their_green = 1.0 + (their_red - 1.0) * inverse, 1.0 + (their_green - 1.0) * inverse
                their_blue = 1.0 + (their_blue - 1.0) * inverse
                their_red, their_green, their_blue = apply_color(row, kind, their_red, their_green, their_blue, 0.0)
            red, green, blue, alpha = lerp_pixels(red, green, blue, alpha, their_red, their_green, their_blue, their_alpha, share)
    return red, green, blue, alpha


@triton.jit(do_not_specialize=["first", "surfaces", "num_frames", "bands"])
def paint_clips(
    packed, table, frames, out, first, surfaces, clip_stride, frame_stride, channel_stride, num_frames, h, w, bands,
    C: tl.constexpr, LAYERED: tl.constexpr, CUT: tl.constexpr, SHAPED: tl.constexpr, BENDS: tl.constexpr, MIXES: tl.constexpr,
    PADDING: tl.constexpr, PITCH: tl.constexpr, BYTES: tl.constexpr, ASM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    VEC: tl.constexpr,
):
    """All frames of clips that, like their partners, read images only. A program paints some bands of a strip of one frame."""
    across = (w + COLS - 1) // COLS
    tiles = across * ((h + bands * ROWS - 1) // (bands * ROWS))
    tile = tl.program_id(0) % tiles
    frame = tl.program_id(0) // tiles % num_frames
    entry = table + HEADER + (tl.program_id(0) // tiles // num_frames + first) * CLIP
    clip, partner = load_int32(entry + INDEX), load_int32(entry + PARTNER)
    exponent, exponent_bytes = load_int32(table + EXPONENT), load_int32(table + EXPONENT_BYTES)
    row_step = num_frames * FRAME
    row = frames + (clip * surfaces * num_frames + frame) * FRAME
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride
    left = tile % across * COLS
    column = left + tl.arange(0, COLS)[None, :]
    x = column.to(tl.float32)
    weight = partner_weight(entry, frame)
    parts = 1
    if MIXES:
        parts = tl.where(weight > 0, 2, 1)
    m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, image, width, height = load_surface(packed, row)
    for band in range(bands):
        top = (tile // across * bands + band) * ROWS
        line = top + tl.arange(0, ROWS)[:, None]
        y = line.to(tl.float32)
        mask = (line < h) & (column < w)
        at = tl.max_contiguous(line * w + column, (1, VEC))
        if BYTES:
            offset, fx, fy = rigid_taps(m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, x, y, width, height, PITCH, PADDING)
            red, green, blue, alpha = sample(image + offset, fx, fy, exponent, exponent_bytes, C, PITCH, ASM)
            if C == 3:
                red, green, blue = apply_color(row, kind, red, green, blue, 127.0)
            store(place + at, channel_stride, table + SCALE, table + SHIFT_BYTES, red, green, blue, alpha, mask, C)
        else:
            red, green = tl.full((ROWS, COLS), 1.0, tl.float32), tl.full((ROWS, COLS), 1.0, tl.float32)
            blue, alpha = red, green
            for part in range(parts):  # the clip, then its partner
                if MIXES:
                    row = frames + (tl.where(part == 0, clip, partner) * surfaces * num_frames + frame) * FRAME
                    m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, image, width, height = load_surface(packed, row)
                u, v = project(frames, row, m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, x, y, BENDS)
                their_red, their_green, their_blue, their_alpha = sample_surface(
                    packed, row, kind, image, width, height, u, v, exponent, exponent_bytes, C, PITCH, PADDING, ASM
                )
                if LAYERED:
                    their_red, their_green, their_blue, their_alpha = _paint_layers(
                        their_red, their_green, their_blue, their_alpha, packed, frames, row, row_step, surfaces, left, top, x, y, exponent,
                        exponent_bytes, C, CUT, PITCH, PADDING, SHAPED, BENDS, ASM, ROWS, COLS,
                    )
                if MIXES:
                    share = tl.where(part == 0, 1.0, partner_share(entry, weight, x, y))
                    red, green, blue, alpha = lerp_pixels(red, green, blue, alpha, their_red, their_green, their_blue, their_alpha, share)
                else:
                    red, green, blue, alpha = their_red, their_green, their_blue, their_alpha
            store(place + at, channel_stride, table + SCALE, table + SHIFT, red, green, blue, alpha, mask, C)


@triton.jit(do_not_specialize=["first", "surfaces", "slots", "frame", "num_frames", "bands", "slot_words"])
def step_clips(
    packed, table, frames, out, first, surfaces, slots, frame, working, clip_stride, frame_stride, channel_stride, num_frames, h, w,
    bands, slot_words, C: tl.constexpr, LAYERED: tl.constexpr, CUT: tl.constexpr, SHAPED: tl.constexpr, BENDS: tl.constexpr,
    MIXES: tl.constexpr, PADDING: tl.constexpr, PITCH: tl.constexpr, WPITCH: tl.constexpr, ASM: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, VEC: tl.constexpr,
):
    """Frame ``frame`` of the clips of a chunk. Working frames (2, slots, slot_words) are double-buffered: one half is the previous frame.

    Working frames hold the back alone: layers are painted over it when a frame is written out, and are never fed back. Without mixing a
    frame is written out at once. With mixing it needs its partner's frame too, so the next launch writes it, and T + 1 launches make T
    frames. The border of working frames is black before the first launch, and no launch writes there.
    """
    across = (w + COLS - 1) // COLS
    tiles = across * ((h + bands * ROWS - 1) // (bands * ROWS))
    tile = tl.program_id(0) % tiles
    slot = tl.program_id(0) // tiles
    entry = table + HEADER + (first + slot) * CLIP
    clip, flags = load_int32(entry + INDEX), load_int32(entry + FLAGS)
    exponent, exponent_bytes = load_int32(table + EXPONENT), load_int32(table + EXPONENT_BYTES)
    row_step = num_frames * FRAME
    before = working + ((frame + 1) % 2 * slots).to(tl.int64) * slot_words
    own = before + slot.to(tl.int64) * slot_words
    after = working + (frame % 2 * slots + slot).to(tl.int64) * slot_words
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride
    left = tile % across * COLS
    column = left + tl.arange(0, COLS)[None, :]
    x = column.to(tl.float32)
    row = frames + (clip * surfaces * num_frames + tl.minimum(frame, num_frames - 1)) * FRAME
    m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, image, width, height = load_surface(packed, row)
    for band in range(bands):
        top = (tile // across * bands + band) * ROWS
        line = top + tl.arange(0, ROWS)[:, None]
        y = line.to(tl.float32)
        mask = (line < h) & (column < w)
        at = tl.max_contiguous(line * w + column, (1, VEC))
        stored = (line + 1) * WPITCH + (column + 1)
        if MIXES:  # noqa: SIM102  Triton's branches on constants and on values do not mix
            if (frame > 0) & ((flags & WANTED) != 0):
                weight, their_slot = partner_weight(entry, frame - 1), load_int32(entry + PARTNER)
                partner = load_int32(table + HEADER + (first + their_slot) * CLIP + INDEX)
                red, green = tl.full((ROWS, COLS), 1.0, tl.float32), tl.full((ROWS, COLS), 1.0, tl.float32)
                blue, alpha = red, green
                for part in range(tl.where(weight > 0, 2, 1)):  # the clip, then its partner
                    done = before + tl.where(part == 0, slot, their_slot).to(tl.int64) * slot_words
                    word = tl.load(done + stored, mask=mask, other=BLACK)
                    their_red, their_green, their_blue, their_alpha = unpack_fields(word, exponent, C, ASM)
                    if LAYERED:
                        back = frames + (tl.where(part == 0, clip, partner) * surfaces * num_frames + frame - 1) * FRAME
                        their_red, their_green, their_blue, their_alpha = _paint_layers(
                            their_red, their_green, their_blue, their_alpha, packed, frames, back, row_step, surfaces, left, top, x, y,
                            exponent, exponent_bytes, C, CUT, PITCH, PADDING, SHAPED, BENDS, ASM, ROWS, COLS,
                        )
                    share = tl.where(part == 0, 1.0, partner_share(entry, weight, x, y))
                    red, green, blue, alpha = lerp_pixels(red, green, blue, alpha, their_red, their_green, their_blue, their_alpha, share)
                store(place - frame_stride + at, channel_stride, table + SCALE, table + SHIFT, red, green, blue, alpha, mask, C)
        if frame < num_frames:
            u, v = project(frames, row, m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, x, y, BENDS)
            if (frame > 0) & ((flags & RECURSIVE) != 0):
                offset, fx, fy = bilinear_taps(u, v, width, height, WPITCH, PADDING)
                red, green, blue, alpha = sample(own + offset, fx, fy, exponent, exponent_bytes, C, WPITCH, ASM)
                if C == 3:
                    red, green, blue = apply_color(row, kind, red, green, blue, 0.0)
            else:
                red, green, blue, alpha = sample_surface(
                    packed, row, kind, image, width, height, u, v, exponent, exponent_bytes, C, PITCH, PADDING, ASM
                )
            tl.store(after + stored, pack_fields(red, green, blue, alpha, ASM), mask=mask)
            if not MIXES:
                if LAYERED:
                    red, green, blue, alpha = _paint_layers(
                        red, green, blue, alpha, packed, frames, row, row_step, surfaces, left, top, x, y, exponent, exponent_bytes,
                        C, CUT, PITCH, PADDING, SHAPED, BENDS, ASM, ROWS, COLS,
                    )
                store(place + at, channel_stride, table + SCALE, table + SHIFT, red, green, blue, alpha, mask, C)
