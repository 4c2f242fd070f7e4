"""Plans packed for the CUDA kernels ahead of rendering, by processes that need no GPU, such as a loader's workers."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pseudomotion.plan import MotionPlan
from pseudomotion.render.output import Output

if TYPE_CHECKING:
    from pseudomotion.render.cuda.plans import Packed  # imports Triton, which not every machine has


@dataclass(frozen=True, eq=False)
class Prepared:
    """What ``PMG.prepare`` makes, and ``PMG.render`` takes instead of a plan.

    Args:
        plan: on the CPU.
        dtype: of the images that it is for.
        output: format of the clips.
        packed: the plan for the CUDA kernels; None where Triton is not installed. Other renderers read ``plan``.

    """

    plan: MotionPlan
    dtype: torch.dtype
    output: Output
    packed: "Packed | None"

    def pin_memory(self) -> "Prepared":
        """With the packed plan in pinned memory, which a GPU copies asynchronously. ``DataLoader(pin_memory=True)`` calls this."""
        if self.packed is None:
            return self
        return dataclasses.replace(self, packed=self.packed._replace(table=self.packed.table.pin_memory()))

    def check(self, dtype: torch.dtype, output: Output) -> None:
        """Raise ``ValueError`` where images or clips are others than the packed plan is for."""
        if dtype != self.dtype:
            raise ValueError(
                f"images must be {self.dtype}, as the plan was prepared for, got {dtype}; pass images_dtype={dtype} to prepare"
            )
        if output != self.output:
            raise ValueError(f"clips must have the format that the plan was prepared for, {self.output}, got {output}")
