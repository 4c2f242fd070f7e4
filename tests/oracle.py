"""Clips of a plan in plain numpy, float64, pixel by pixel of the definition: what the renderers are compared with.

Shares no code with the library. Reads the plan's fields as ``pseudomotion.plan`` documents them.
"""

import numpy as np


def fold(x, n, padding_mode):
    """Coordinates brought onto an axis of n pixels, for the padding modes that repeat the image."""
    if padding_mode == "border" or n == 1:
        return np.clip(x, 0, n - 1)
    period = 2 * (n - 1)
    x = np.abs(x) % period
    return np.where(x > n - 1, period - x, x)


def bilinear(image, x, y, padding_mode="zeros"):
    """Sample image (C, H, W) at (x, y), each (h, w): four taps, weighted."""
    _, height, width = image.shape
    if padding_mode != "zeros":
        x, y = fold(x, width, padding_mode), fold(y, height, padding_mode)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    out = np.zeros((image.shape[0], *x.shape))
    for dy in (0, 1):
        for dx in (0, 1):
            xi, yi = x0 + dx, y0 + dy
            weight = (1 - np.abs(x - xi)) * (1 - np.abs(y - yi))
            inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < height)
            out += np.where(inside, weight, 0) * image[:, yi.clip(0, height - 1), xi.clip(0, width - 1)]
    return out


def coordinates(homography, size):
    """Where each pixel of a frame comes from."""
    h, w = size
    v, u = np.mgrid[:h, :w].astype(float)
    back = np.linalg.inv(homography)
    x, y, z = np.einsum("ij,jhw->ihw", back, np.stack([u, v, np.ones_like(u)]))
    return x / z, y / z


def halved(image):
    """Average of blocks of 2x2 pixels, of fewer at an odd edge."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=np.nan)
    return np.nanmean([padded[:, y::2, x::2] for y in (0, 1) for x in (0, 1)], axis=0)


def source_scale(homography, size):
    """Source pixels per frame pixel at the frame's center, by finite differences."""
    back = np.linalg.inv(homography)

    def at(u, v):
        x, y, z = back @ (u, v, 1)
        return np.array([x / z, y / z])

    u, v, e = (size[1] - 1) / 2, (size[0] - 1) / 2, 1e-4
    across, down = (at(u + e, v) - at(u - e, v)) / (2 * e), (at(u, v + e) - at(u, v - e)) / (2 * e)
    return np.sqrt(abs(across[0] * down[1] - across[1] * down[0]))


def sample_source(image, homography, bend, box, size, padding_mode):
    """A frame of a source image: from the image itself up to 1.5 source pixels per frame pixel, else from its halved copies."""
    x, y = bent(bend, box, *coordinates(homography, size))
    scale, level = source_scale(homography, size), 0
    while scale > 1.5 + 1e-9 and scale / 2 >= 1 - 1e-9:  # past 2: fully on the next level
        image, scale, level = halved(image), scale / 2, level + 1
    shift = lambda c, k: (c + 0.5) / 2**k - 0.5  # noqa: E731
    frame = bilinear(image, shift(x, level), shift(y, level), padding_mode)
    if scale > 1.5:
        blend = (scale - 1.5) / 0.5
        coarse = bilinear(halved(image), shift(x, level + 1), shift(y, level + 1), padding_mode)
        frame = (1 - blend) * frame + blend * coarse
    return frame


def recolor(frame, color):
    if np.array_equal(color, np.eye(3, 4)):
        return frame
    return np.clip(np.einsum("rc,chw->rhw", color[:, :3], frame) + color[:, 3, None, None], 0, 1)


def gauge(shape, params, u, v):
    """0 at the center of an outline, 1 on it, linear on every ray; coordinates in halves of its box."""
    if shape == 2:
        m = 2 ** params[1]
        return (np.abs(u) ** m + np.abs(v) ** m) ** (1 / m)
    angle = np.arctan2(v, u)
    radius = params[1]
    for i, k in enumerate(range(2, 8)):
        radius = radius + params[2 + 2 * i] * np.cos(k * angle) + params[3 + 2 * i] * np.sin(k * angle)
    return np.hypot(u, v) / radius


def distance(outline, box, x, y):
    """Signed distance of points to an outline, positive inside, to first order at its edge: gradients by finite differences."""
    x0, y0, x1, y1 = box
    shape, params = int(outline[0]), outline[2:]
    found = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y))
    if shape == 1:
        corners = [(x0 + (1 + u) / 2 * (x1 - x0), y0 + (1 + v) / 2 * (y1 - y0)) for u, v in params.reshape(8, 2)]
        for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if (length := np.hypot(bx - ax, by - ay)) > 1e-9:
                found = np.minimum(found, ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length)
    elif shape:
        at = lambda x, y: gauge(shape, params, (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0))  # noqa: E731
        e = 1e-5
        steep = np.hypot(at(x + e, y) - at(x - e, y), at(x, y + e) - at(x, y - e)) / (2 * e)
        found = np.minimum(found, (1 - at(x, y)) / np.maximum(steep, 1e-9))
        if params[0] > 0:
            found = np.minimum(found, (at(x, y) - params[0]) / np.maximum(steep, 1e-9))
    return found


def coverage(outline, box, x, y):
    """How much of each pixel lies inside an outline whose edge is so many pixels soft."""
    x0, y0, x1, y1 = box
    feather = outline[1]
    if outline[0] == 0:
        return np.clip(np.minimum(x - x0, x1 - x) / feather + 0.5, 0, 1) * np.clip(np.minimum(y - y0, y1 - y) / feather + 0.5, 0, 1)
    return np.clip(distance(outline, box, x, y) / feather + 0.5, 0, 1)


def spline(s):
    """Weights of the four control points about lattice coordinate s, and the first one's index."""
    first = np.floor(s).astype(int) - 1
    f = s - np.floor(s)
    return first, [(1 - f) ** 3 / 6, (3 * f**3 - 6 * f**2 + 4) / 6, (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6, f**3 / 6]


def bent(bend, box, x, y):
    """Points (x, y) displaced by a bend (2, G, G) over a box."""
    n = bend.shape[-1]
    if n == 0:
        return x, y
    x0, y0, x1, y1 = box
    cell = np.array([(x1 - x0) / n, (y1 - y0) / n])
    (column, across), (row, down) = spline((x - x0) / cell[0] - 0.5), spline((y - y0) / cell[1] - 0.5)
    moved = np.zeros((2, *np.shape(x)))
    for b in range(4):
        for a in range(4):
            i, j = column + a, row + b
            there = (i >= 0) & (i < n) & (j >= 0) & (j < n)
            moved += np.where(there, down[b] * across[a] * bend[:, j.clip(0, n - 1), i.clip(0, n - 1)], 0)
    return x + cell[0] * moved[0], y + cell[1] * moved[1]


def fields(plan):
    """A plan as numpy arrays in float64: the names of ``state_dict``, and for each surface of a clip (the back, then its layers) stacks."""
    state = {name: tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy() for name, tensor in plan.state_dict().items()}
    b, t = state["back.motion.homography"].shape[:2]
    k = state["layers.outline"].shape[-1]
    h, w = state["image_size"]
    image = np.broadcast_to([-0.5, -0.5, w - 0.5, h - 0.5], (b, 1, 4))
    if plan.blend is None:
        state |= {"blend.partner": np.arange(b), "blend.weight": np.zeros(b)}
        frame_h, frame_w = state["frame_size"]
        whole = [-0.5, -0.5, frame_w - 0.5, frame_h - 0.5]
        state |= {"blend.box": np.broadcast_to(whole, (b, 4)), "blend.frames": np.broadcast_to([0, t], (b, 2))}
    return state | {
        "image": np.concatenate([state["back.image"][:, None], state["layers.texture"]], 1),
        "homography": np.concatenate([state["back.motion.homography"][:, None], state["layers.motion.homography"]], 1),
        "color": np.concatenate([state["back.motion.color"][:, None], state["layers.motion.color"]], 1),
        "box": np.concatenate([image, state["layers.box"]], 1),
        "outline": np.concatenate([np.tile([0.0, 1.0] + [0.0] * (k - 2), (b, 1, 1)), state["layers.outline"]], 1),
        "bend": [[state["back.motion.bend"][i], *state["layers.motion.bend"][i]] for i in range(b)],
        "opacity": np.concatenate([np.ones((b, 1, t)), state["layers.opacity"]], 1),
    }


def paint_backs(images, field, padding_mode):
    b, _, t = field["homography"].shape[:3]
    size = tuple(field["frame_size"])
    backs = np.zeros((b, images.shape[1], t, *size))
    for i in range(b):
        for k in range(t):
            homography, bend = field["homography"][i, 0, k], field["bend"][i][0][k]
            if field["back.reads_previous"][i] and k > 0:
                whole = (-0.5, -0.5, size[1] - 0.5, size[0] - 0.5)
                frame = bilinear(backs[i, :, k - 1], *bent(bend, whole, *coordinates(homography, size)), padding_mode)
            else:
                frame = sample_source(images[field["image"][i, 0]], homography, bend, field["box"][i, 0], size, padding_mode)
            backs[i, :, k] = recolor(frame, field["color"][i, 0, k])
    return backs


def over(below, texture, outline, box, moved, padding_mode):
    """A frame with a layer painted over it; moved: homography, color map, bend and opacity."""
    homography, color, bend, opacity = moved
    if opacity == 0:
        return below
    size, cut = below.shape[1:], (len(below), len(texture)) == (3, 4)  # the fourth channel is alpha
    if cut:
        texture = np.concatenate([texture[:3] * texture[3:], texture[3:]])
    frame = sample_source(texture, homography, bend, box, size, padding_mode)
    if cut:
        opacity = opacity * frame[3]
        frame = frame[:3] / np.maximum(frame[3], 1e-9)
    frame = recolor(frame, color)
    alpha = opacity * coverage(outline, box, *bent(bend, box, *coordinates(homography, size)))
    return (1 - alpha) * below + alpha * frame


def mix(clips, field):
    x0, y0, x1, y1 = field["blend.box"].T
    t, h, w = clips.shape[2:]
    v, u = np.mgrid[:h, :w]
    mixed = clips.copy()
    for i in range(len(clips)):
        inside = (u >= x0[i]) & (u < x1[i]) & (v >= y0[i]) & (v < y1[i])
        first, last = field["blend.frames"][i]
        during = (np.arange(t) >= first) & (np.arange(t) < last)
        weight = field["blend.weight"][i] * during[:, None, None] * inside
        mixed[i] = (1 - weight) * clips[i] + weight * clips[field["blend.partner"][i]]
    return mixed


def render(images, plan, textures=None):
    """Clips (B, C, T, h, w) of images (B, C, H, W) in [0, 1], without exposure."""
    images = np.asarray(images, dtype=float)
    textures = images if textures is None else np.asarray(textures, dtype=float)
    field = fields(plan)
    b, surfaces, t = field["homography"].shape[:3]
    clips = paint_backs(images, field, plan.padding_mode)
    for i in range(b):
        for k in range(t):
            for layer in range(1, surfaces):
                moved = [field[name][i][layer][k] for name in ("homography", "color", "bend", "opacity")]
                look = textures[field["image"][i, layer]], field["outline"][i, layer], field["box"][i, layer]
                clips[i, :, k] = over(clips[i, :, k], *look, moved, plan.padding_mode)
    return mix(clips, field)


def halfway(before, after, share, size):
    """Homography, color map, bend and opacity between those of two frames, or beyond them."""
    v, u = (size[0] - 1) / 2, (size[1] - 1) / 2
    reads = [np.linalg.inv(state[0]) for state in (before, after)]
    first, last = (read / (read @ (u, v, 1))[2] for read in reads)  # 1 at the center of the frame
    color, bend, opacity = ((1 - share) * before[k] + share * after[k] for k in (1, 2, 3))
    return np.linalg.inv((1 - share) * first + share * last), color, bend.clip(-0.48, 0.48), np.clip(opacity, 0, 1)


def exposed(images, plan, textures=None, subframes=None):
    """As ``render``, with exposure; ``subframes`` instead of the plan's number."""
    images = np.asarray(images, dtype=float)
    textures = images if textures is None else np.asarray(textures, dtype=float)
    field, padding_mode, number = fields(plan), plan.padding_mode, subframes or plan.subframes
    b, surfaces, t = field["homography"].shape[:3]
    size = tuple(field["frame_size"])
    sharp = paint_backs(images, field, padding_mode)
    clips = np.zeros_like(sharp)

    def state(i, layer, k):
        return [field[name][i][layer][k] for name in ("homography", "color", "bend", "opacity")]

    for i, k, part in np.ndindex(b, t, number):
        time = k - plan.exposure / 2 + plan.exposure * (part + 0.5) / number
        before = min(max(int(np.floor(time)), 0), t - 2)
        if field["back.reads_previous"][i]:
            read = max(k - 1, 0)
            step = state(i, 0, max(k, 1))
            still = [np.eye(3), np.eye(3, 4), 0 * step[2], 1.0]
            homography, color, bend, _ = halfway(still, step, time - read, size)
            whole = (-0.5, -0.5, size[1] - 0.5, size[0] - 0.5)
            frame = bilinear(sharp[i, :, read], *bent(bend, whole, *coordinates(homography, size)), padding_mode)
        else:
            homography, color, bend, _ = halfway(state(i, 0, before), state(i, 0, before + 1), time - before, size)
            frame = sample_source(images[field["image"][i, 0]], homography, bend, field["box"][i, 0], size, padding_mode)
        frame = recolor(frame, color)
        for layer in range(1, surfaces):
            moved = halfway(state(i, layer, before), state(i, layer, before + 1), time - before, size)
            look = textures[field["image"][i, layer]], field["outline"][i, layer], field["box"][i, layer]
            frame = over(frame, *look, moved, padding_mode)
        clips[i, :, k] += frame / number
    return mix(clips, field)
