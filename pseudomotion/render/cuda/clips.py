"""The kernels that are launched: reduced copies of images, frames from images, and frames from the frames before them."""

# mypy: ignore-errors
# What Triton compiles only looks like Python: its functions have no types to check, and jaxtyping's hook must not wrap them.

import triton
import triton.language as tl

from pseudomotion.render.cuda.pixels import (
    between,
    paint,
    paint_back,
    paint_layers,
    partner_weight,
    pixels,
    project,
    recolor,
    sample,
    store,
    whole,
    within,
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
    """Average planes (height, width) over blocks of 2x2 pixels, of fewer at an odd edge; one program makes a tile of one plane.

    Images lie ``source_size`` apart, and their planes begin at ``source_start``; likewise those of the target.
    """
    h, w = (height + 1) // 2, (width + 1) // 2
    tiles = (h * w + BLOCK - 1) // BLOCK
    plane = tl.program_id(0) // tiles
    image = (plane // C).to(tl.int64)
    channel = (plane % C).to(tl.int64)
    position, mask, _, _ = pixels(tl.program_id(0) % tiles, h, w, BLOCK)
    left, top = position % w * 2, position // w * 2
    # At an odd edge the last row or column counts twice, and the average is that of what is there.
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
    """Every frame of clips whose frames, and whose partners' frames, read source images. A program paints one tile of one frame."""
    program = tl.program_id(0)
    tiles = (h * w + BLOCK - 1) // BLOCK
    frame = (program // tiles) % num_frames
    row = table + HEADER + (first + program // tiles // num_frames) * CLIP
    position, mask, x, y = pixels(program % tiles, h, w, BLOCK)
    clip = whole(row + INDEX)
    a, b, c, d = paint(
        images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
    )
    weight = partner_weight(row, frame)
    if MIXES and weight > 0:
        partner = whole(row + PARTNER)
        e, f, g, i = paint(
            images, pyramid, frames, partner, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
        )
        share = within(row, weight, x, y)
        a, b, c, d = between(a, e, share), between(b, f, share), between(c, g, share), between(d, i, share)
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride
    store(place + position, channel_stride, table, a, b, c, d, mask, C, ROUND)


@triton.jit
def _read(pixel, plane, C: tl.constexpr):
    a = tl.load(pixel)
    b, c, d = a, a, a
    if C > 1:
        b = tl.load(pixel + plane)
        c = tl.load(pixel + plane + plane)
        if C == 4:
            d = tl.load(pixel + plane + plane + plane)
    return a, b, c, d


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
    """Frame ``frame`` of the clips of a chunk, into working frames (2, slots, C, h, w) of which one half holds the frame before.

    Working frames hold the back alone: layers are painted over it on the way out, and never fed back. Unmixed clips are written out at
    once. Where clips are mixed, a frame waits for all its partners: the launch after it writes it, and one launch more than there are
    frames writes the last.
    """
    tiles = (h * w + BLOCK - 1) // BLOCK
    slot = tl.program_id(0) // tiles
    row = table + HEADER + (first + slot) * CLIP
    position, mask, x, y = pixels(tl.program_id(0) % tiles, h, w, BLOCK)
    clip, flags = whole(row + INDEX), whole(row + FLAGS)
    plane = h * w
    half = slots.to(tl.int64) * plane * C
    before = working + ((frame + 1) % 2) * half
    own = before + slot.to(tl.int64) * plane * C
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride + position
    if MIXES and frame > 0 and (flags & WANTED) != 0:
        a, b, c, d = _read(own + position, plane, C)
        a, b, c, d = paint_layers(
            a,
            b,
            c,
            d,
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
            their_slot = whole(row + PARTNER)
            partner = whole(table + HEADER + (first + their_slot) * CLIP + INDEX)
            e, f, g, i = _read(before + their_slot.to(tl.int64) * plane * C + position, plane, C)
            e, f, g, i = paint_layers(
                e,
                f,
                g,
                i,
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
            share = within(row, weight, x, y)
            a, b, c, d = between(a, e, share), between(b, f, share), between(c, g, share), between(d, i, share)
        store(place - frame_stride, channel_stride, table, a, b, c, d, mask, C, ROUND)
    if frame < num_frames:
        if frame > 0 and (flags & RECURSIVE) != 0:
            step = frames + (clip * LAYERS * num_frames + frame) * FRAME
            u, v = project(step, x, y)
            a, b, c, d = sample(own, u, v, h, w, C, PADDING)
            if COLORED:
                a, b, c = recolor(step, a, b, c)
        else:
            a, b, c, d = paint_back(
                images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
            )
        after = working + (frame % 2) * half + slot.to(tl.int64) * plane * C + position
        tl.store(after, a, mask=mask)
        if C > 1:
            tl.store(after + plane, b, mask=mask)
            tl.store(after + plane + plane, c, mask=mask)
            if C == 4:
                tl.store(after + plane + plane + plane, d, mask=mask)
        if not MIXES:
            a, b, c, d = paint_layers(
                a,
                b,
                c,
                d,
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
            store(place, channel_stride, table, a, b, c, d, mask, C, ROUND)
