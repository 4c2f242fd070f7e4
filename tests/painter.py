"""Labels of a plan by brute force, in plain numpy, one point at a time: what the library's are compared with.

Shares no code with the library. A surface is (clip, layer): one of the clip itself, or of a partner pasted over it.
"""

import numpy as np
from oracle import bent, bilinear, distance, fields


class Painter:
    def __init__(self, plan, alpha=None):
        """``alpha`` (M, H, W): of the textures, which are cut out where it is below one half."""
        self.field, self.alpha = fields(plan), alpha
        self.h, self.w = self.field["frame_size"]
        self.layers, self.frames = self.field["homography"].shape[1:3]

    def homography(self, clip, layer, t):
        """Source to frame t: the steps multiplied up where a frame reads the one before."""
        steps = self.field["homography"][clip, layer]
        if layer or not self.field["back.reads_previous"][clip]:
            return steps[t]
        whole = steps[0]
        for k in range(1, t + 1):
            whole = steps[k] @ whole
        return whole

    @staticmethod
    def apply(h, point):
        """Points (x, y), numbers or arrays, under a homography."""
        x, y = np.asarray(point, dtype=float)
        u, v, w = np.einsum("ij,j...->i...", h, np.stack([x, y, np.ones_like(x)]))
        return np.stack([u / w, v / w])

    def bend(self, clip, layer, t, point):
        """A point of what frame t reads, displaced by the bend."""
        if not np.any(self.field["bend"][clip][layer][t]):
            return np.asarray(point, dtype=float)
        h, w = self.field["image_size"]
        if layer:
            box = self.field["box"][clip, layer]
        elif t and self.field["back.reads_previous"][clip]:
            box = (-0.5, -0.5, self.w - 0.5, self.h - 0.5)
        else:
            box = (-0.5, -0.5, w - 0.5, h - 0.5)
        return np.stack(bent(self.field["bend"][clip][layer][t], box, *np.asarray(point, dtype=float)))

    def unbend(self, clip, layer, t, point):
        """The point that the bend takes to this one: Newton's iteration with derivatives by differences."""
        at, e = np.array(point, dtype=float), 1e-6
        for _ in range(30):
            off = point - self.bend(clip, layer, t, at)
            if np.abs(off).max() < 1e-11:
                break
            across, down = (self.bend(clip, layer, t, at + d) - self.bend(clip, layer, t, at - d) for d in ((e, 0), (0, e)))
            at = at + np.linalg.solve(np.stack([across, down], 1) / (2 * e), off)
        return at

    def steps(self, clip, layer, t):
        """The frames whose maps lead from the image to frame t."""
        return range(t + 1) if layer == 0 and self.field["back.reads_previous"][clip] else [t]

    def to_image(self, clip, layer, t, point):
        for k in reversed(self.steps(clip, layer, t)):
            point = self.bend(clip, layer, k, self.apply(np.linalg.inv(self.field["homography"][clip, layer, k]), point))
        return point

    def to_frame(self, clip, layer, t, point):
        for k in self.steps(clip, layer, t):
            point = self.apply(self.field["homography"][clip, layer, k], self.unbend(clip, layer, k, point))
        return point

    def inside(self, point):
        return -0.5 <= point[0] < self.w - 0.5 and -0.5 <= point[1] < self.h - 0.5

    def shown(self, clip, t, point):
        """The surface painted last at a point."""
        first, last = self.field["blend.frames"][clip]
        if self.field["blend.weight"][clip] == 1 and first <= t < last:
            x0, y0, x1, y1 = self.field["blend.box"][clip]
            first, last = self.field["blend.frames"][clip]
            if x0 <= point[0] < x1 and y0 <= point[1] < y1 and first <= t < last:
                clip = self.field["blend.partner"][clip]
        for layer in reversed(range(1, self.layers)):
            if self.covers(clip, layer, t, point):
                return clip, layer
        return clip, 0

    def covers(self, clip, layer, t, point):
        """Whether a layer, there or not for what lies before it, covers a point."""
        if self.field["opacity"][clip, layer, t] < 0.5:
            return False
        place = self.to_image(clip, layer, t, point)
        if self.alpha is not None and self.opacity(clip, layer, place) < 0.5:
            return False
        return distance(self.field["outline"][clip, layer], self.field["box"][clip, layer], *place) >= 0

    def opacity(self, clip, layer, place):
        """Alpha at a point of a layer's texture."""
        return bilinear(self.alpha[self.field["image"][clip, layer], None], *np.reshape(place, (2, 1, 1)))[0, 0, 0]

    def follow(self, clip, origin, target, point):
        """Where a point goes, and whether it is visible there."""
        owner, layer = self.shown(clip, origin, point)

        def at(t):
            return self.to_frame(owner, layer, t, self.to_image(owner, layer, origin, point))

        place = at(target)
        way = range(min(origin, target), max(origin, target) + 1) if layer == 0 and self.field["back.reads_previous"][owner] else [target]
        visible = all(self.inside(at(t)) for t in way) and self.shown(clip, target, place) == (owner, layer)
        return place, visible

    def distance_to_edges(self, clip, t, point):
        """How far, in pixels of either side, a point is from any edge at which labels change: no test should ask for a verdict there."""
        x, y = point
        near = [x + 0.5, self.w - 0.5 - x, y + 0.5, self.h - 0.5 - y]
        for owner in {clip, self.field["blend.partner"][clip]}:
            for layer in range(1, self.layers):
                box, place = self.field["box"][owner, layer], self.to_image(owner, layer, t, point)
                near.append(distance(self.field["outline"][owner, layer], box, *place))
                if self.alpha is not None:
                    near.append(self.opacity(owner, layer, place) - 0.5)
        x0, y0, x1, y1 = self.field["blend.box"][clip]
        near += [x - x0, x1 - x, y - y0, y1 - y]
        return np.abs(near).min()
