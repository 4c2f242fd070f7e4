"""The launched kernels: ``halve`` builds pyramid levels, ``paint_clips`` samples images, ``step_clips`` samples previous frames.

Arguments that the kernels share:
    images: (N, C, height, width).
    pyramid: (N, pyramid_size), the reduced copies of every image.
    table: laid out as in ``table``; ``first`` is the launch's first clip row, and ``frames`` points to the first frame row.
    out: the clips, with strides ``clip_stride``, ``frame_stride`` and ``channel_stride``.
    num_frames, h, w: size of the clips. height, width: size of the images.
    C: channels of the images. LAYERS: 1 + number of layers. PADDING: padding mode. BLOCK: pixels per program.
    REDUCES: some frame reads a reduced copy. COLORED: some color map is not the identity. MIXES: some clip is mixed. ROUND: 8-bit output.
"""

# mypy: ignore-errors
# Triton functions only look like Python: they have no types to check, and jaxtyping's import hook must not wrap them.

import triton
import triton.language as tl

from pseudomotion.render.cuda.pixels import (
    lerp,
    load_int32,
    paint,
    paint_back,
    paint_layers,
    partner_share,
    partner_weight,
    pixels,
    project,
    recolor,
    sample,
    store,
)
from pseudomotion.render.cuda.table import CLIP, FLAGS, FRAME, HEADER, INDEX, PARTNER, RECURSIVE, WANTED


@triton.jit
def halve(
    source,
    target,
    source_size,
    source_start,
    target_size,
    target_start,
    height,
    width,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Average planes (height, width) over 2x2 blocks; blocks at an odd edge are cut off. One program makes a tile of one plane.

    ``source_size`` is the stride between images and ``source_start`` the offset of an image's first plane; likewise for the target.
    """
    h, w = (height + 1) // 2, (width + 1) // 2
    tiles = (h * w + BLOCK - 1) // BLOCK
    plane = tl.program_id(0) // tiles
    image = (plane // C).to(tl.int64)
    channel = (plane % C).to(tl.int64)
    position, mask, _, _ = pixels(tl.program_id(0) % tiles, h, w, BLOCK)
    left, top = position % w * 2, position // w * 2
    # At an odd edge the last row or column counts twice, which gives the average of the pixels that exist.
    right, bottom = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1) * width
    top *= width
    place = source + image * source_size + source_start + channel * height * width
    total = tl.load(place + (top + left)).to(tl.float32) + tl.load(place + (top + right)).to(tl.float32)
    total += tl.load(place + (bottom + left)).to(tl.float32) + tl.load(place + (bottom + right)).to(tl.float32)
    value = total * 0.25
    if source.dtype.element_ty == tl.uint8:
        value = tl.div_rn(value, 255.0)
    tl.store(target + image * target_size + target_start + channel * h * w + position, value, mask=mask)


@triton.jit(do_not_specialize=["first"])
def paint_clips(
    images,
    pyramid,
    table,
    frames,
    first,
    out,
    clip_stride,
    frame_stride,
    channel_stride,
    num_frames,
    h,
    w,
    height,
    width,
    pyramid_size,
    C: tl.constexpr,
    LAYERS: tl.constexpr,
    REDUCES: tl.constexpr,
    COLORED: tl.constexpr,
    MIXES: tl.constexpr,
    PADDING: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All frames of clips that, like their partners, read images only. One program paints one tile of one frame."""
    program = tl.program_id(0)
    tiles = (h * w + BLOCK - 1) // BLOCK
    frame = (program // tiles) % num_frames
    row = table + HEADER + (first + program // tiles // num_frames) * CLIP
    position, mask, x, y = pixels(program % tiles, h, w, BLOCK)
    clip = load_int32(row + INDEX)
    red, green, blue, alpha = paint(
        images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
    )
    weight = partner_weight(row, frame)
    if MIXES and weight > 0:
        partner = load_int32(row + PARTNER)
        their_red, their_green, their_blue, their_alpha = paint(
            images, pyramid, frames, partner, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
        )
        share = partner_share(row, weight, x, y)
        red, green, blue, alpha = (
            lerp(red, their_red, share),
            lerp(green, their_green, share),
            lerp(blue, their_blue, share),
            lerp(alpha, their_alpha, share),
        )
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride
    store(place + position, channel_stride, table, red, green, blue, alpha, mask, C, ROUND)


@triton.jit
def _load(pixel, plane, C: tl.constexpr):
    """All channels of a pixel; the channels lie ``plane`` apart."""
    red = tl.load(pixel)
    green, blue, alpha = red, red, red
    if C > 1:
        green = tl.load(pixel + plane)
        blue = tl.load(pixel + plane + plane)
        if C == 4:
            alpha = tl.load(pixel + plane + plane + plane)
    return red, green, blue, alpha


@triton.jit(do_not_specialize=["first", "slots", "frame"])
def step_clips(
    images,
    pyramid,
    table,
    frames,
    first,
    slots,
    frame,
    working,
    out,
    clip_stride,
    frame_stride,
    channel_stride,
    num_frames,
    h,
    w,
    height,
    width,
    pyramid_size,
    C: tl.constexpr,
    LAYERS: tl.constexpr,
    REDUCES: tl.constexpr,
    COLORED: tl.constexpr,
    MIXES: tl.constexpr,
    PADDING: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Frame ``frame`` of the clips of a chunk. Working frames (2, slots, C, h, w) are double-buffered: one half is the previous frame.

    Working frames hold the back alone: layers are painted over it when a frame is written out, and are never fed back. Without mixing a
    frame is written out at once. With mixing it needs its partner's frame too, so the next launch writes it, and T + 1 launches make T
    frames.
    """
    tiles = (h * w + BLOCK - 1) // BLOCK
    slot = tl.program_id(0) // tiles
    row = table + HEADER + (first + slot) * CLIP
    position, mask, x, y = pixels(tl.program_id(0) % tiles, h, w, BLOCK)
    clip, flags = load_int32(row + INDEX), load_int32(row + FLAGS)
    plane = h * w
    half = slots.to(tl.int64) * plane * C
    before = working + ((frame + 1) % 2) * half
    own = before + slot.to(tl.int64) * plane * C
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride + position
    # Nested: Triton 3.2 and 3.3 cannot compile three conditions chained with `and`.
    if MIXES and frame > 0:  # noqa: SIM102
        if (flags & WANTED) != 0:
            red, green, blue, alpha = _load(own + position, plane, C)
            red, green, blue, alpha = paint_layers(
                red,
                green,
                blue,
                alpha,
                images,
                pyramid,
                frames,
                clip,
                frame - 1,
                num_frames,
                x,
                y,
                height,
                width,
                pyramid_size,
                C,
                LAYERS,
                REDUCES,
                COLORED,
                PADDING,
            )
            weight = partner_weight(row, frame - 1)
            if weight > 0:
                their_slot = load_int32(row + PARTNER)
                partner = load_int32(table + HEADER + (first + their_slot) * CLIP + INDEX)
                their_red, their_green, their_blue, their_alpha = _load(before + their_slot.to(tl.int64) * plane * C + position, plane, C)
                their_red, their_green, their_blue, their_alpha = paint_layers(
                    their_red,
                    their_green,
                    their_blue,
                    their_alpha,
                    images,
                    pyramid,
                    frames,
                    partner,
                    frame - 1,
                    num_frames,
                    x,
                    y,
                    height,
                    width,
                    pyramid_size,
                    C,
                    LAYERS,
                    REDUCES,
                    COLORED,
                    PADDING,
                )
                share = partner_share(row, weight, x, y)
                red, green, blue, alpha = (
                    lerp(red, their_red, share),
                    lerp(green, their_green, share),
                    lerp(blue, their_blue, share),
                    lerp(alpha, their_alpha, share),
                )
            store(place - frame_stride, channel_stride, table, red, green, blue, alpha, mask, C, ROUND)
    if frame < num_frames:
        if frame > 0 and (flags & RECURSIVE) != 0:
            step = frames + (clip * LAYERS * num_frames + frame) * FRAME
            u, v = project(step, x, y)
            red, green, blue, alpha = sample(own, u, v, h, w, C, PADDING)
            if COLORED:
                red, green, blue = recolor(step, red, green, blue)
        else:
            red, green, blue, alpha = paint_back(
                images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
            )
        after = working + (frame % 2) * half + slot.to(tl.int64) * plane * C + position
        tl.store(after, red, mask=mask)
        if C > 1:
            tl.store(after + plane, green, mask=mask)
            tl.store(after + plane + plane, blue, mask=mask)
            if C == 4:
                tl.store(after + plane + plane + plane, alpha, mask=mask)
        if not MIXES:
            red, green, blue, alpha = paint_layers(
                red,
                green,
                blue,
                alpha,
                images,
                pyramid,
                frames,
                clip,
                frame,
                num_frames,
                x,
                y,
                height,
                width,
                pyramid_size,
                C,
                LAYERS,
                REDUCES,
                COLORED,
                PADDING,
            )
            store(place, channel_stride, table, red, green, blue, alpha, mask, C, ROUND)
