"""RandAugment on clips: a few of fifteen image operations, drawn once for a clip and done alike to all of its frames.

Cubuk et al. 2019, arXiv 1909.13719, in the "increasing" form in which every operation grows with the magnitude, as VideoMAE fine-tunes with
(``rand-m7-n4-mstd0.5-inc1``). The operations are Pillow's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

from pseudomotion.draws import Draws

GREY = (128, 128, 128)


class Operation(NamedTuple):
    """What is done to an RGB frame: ``argument`` makes of a strength in [0, 1] and a sign, -1 or 1, what ``apply`` takes."""

    apply: Callable[[Image.Image, float], Image.Image]
    argument: Callable[[float, int], float] = lambda strength, sign: 0.0


def _moved(frame: Image.Image, x_of_y: float, x: float, y_of_x: float, y: float) -> Image.Image:
    """The frame read at ``(x + x_of_y * y, y + y_of_x * x)``; gray where that is outside."""
    return frame.transform(
        frame.size, Image.Transform.AFFINE, (1, x_of_y, x, y_of_x, 1, y), resample=Image.Resampling.BICUBIC, fillcolor=GREY
    )


def _solarize_add(frame: Image.Image, added: float) -> Image.Image:
    """The dark half of the levels, raised."""
    return frame.point([min(255, level + int(added)) if level < 128 else level for level in range(256)] * 3)


def _enhancing(enhance: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """A factor from 0.1 to 1.9: below 1 takes away, above 1 adds."""
    return Operation(lambda frame, factor: enhance(frame).enhance(factor), lambda strength, sign: max(0.1, 1 + sign * 0.9 * strength))


def _rotated(frame: Image.Image, degrees: float) -> Image.Image:
    return frame.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=GREY)  # anticlockwise


OPERATIONS = {
    "auto_contrast": Operation(lambda frame, _: ImageOps.autocontrast(frame)),
    "equalize": Operation(lambda frame, _: ImageOps.equalize(frame)),
    "invert": Operation(lambda frame, _: ImageOps.invert(frame)),
    "rotate": Operation(_rotated, lambda strength, sign: sign * 30 * strength),
    "posterize": Operation(lambda frame, bits: ImageOps.posterize(frame, int(bits)), lambda strength, sign: max(1, 4 - int(4 * strength))),
    "solarize": Operation(lambda frame, least: ImageOps.solarize(frame, int(least)), lambda strength, sign: 256 - int(256 * strength)),
    "solarize_add": Operation(_solarize_add, lambda strength, sign: int(110 * strength)),
    "color": _enhancing(ImageEnhance.Color),
    "contrast": _enhancing(ImageEnhance.Contrast),
    "brightness": _enhancing(ImageEnhance.Brightness),
    "sharpness": _enhancing(ImageEnhance.Sharpness),
    "shear_x": Operation(lambda frame, k: _moved(frame, k, 0, 0, 0), lambda strength, sign: sign * 0.3 * strength),
    "shear_y": Operation(lambda frame, k: _moved(frame, 0, 0, k, 0), lambda strength, sign: sign * 0.3 * strength),
    "translate_x": Operation(lambda frame, k: _moved(frame, 0, k * frame.width, 0, 0), lambda strength, sign: sign * 0.45 * strength),
    "translate_y": Operation(lambda frame, k: _moved(frame, 0, 0, 0, k * frame.height), lambda strength, sign: sign * 0.45 * strength),
}


@dataclass(frozen=True)
class RandAugment:
    """RandAugment, "increasing".

    Args:
        operations: how many are drawn, one after the other, the same one perhaps again.
        magnitude: mean strength, from 0 to 10.
        magnitude_std: standard deviation of the strength, drawn anew for every operation and cut to 0 to 10.
        p: probability of each drawn operation to be done.

    """

    operations: int = 4
    magnitude: float = 7.0
    magnitude_std: float = 0.5
    p: float = 0.5

    def make_plan(self, draws: Draws) -> list[tuple[str, float]]:
        """What to do to the clip whose only id is in ``draws``: operations and their arguments, in order."""
        names, plan = list(OPERATIONS), []
        numbers = [float(number) for number in draws.uniform("randaugment", 5 * self.operations)]
        for k in range(0, len(numbers), 5):
            done, which, sign, radius, turn = numbers[k : k + 5]
            if done >= self.p:
                continue
            normal = math.sqrt(-2 * math.log(radius)) * math.cos(2 * math.pi * turn)
            strength = min(max(self.magnitude + self.magnitude_std * normal, 0), 10) / 10
            name = names[int(which * len(names))]
            plan.append((name, OPERATIONS[name].argument(strength, 1 if sign < 0.5 else -1)))
        return plan


def apply_operations(frame: Image.Image, plan: Sequence[tuple[str, float]]) -> Image.Image:
    """An RGB frame after the operations of a plan."""
    for name, argument in plan:
        frame = OPERATIONS[name].apply(frame, argument)
    return frame
