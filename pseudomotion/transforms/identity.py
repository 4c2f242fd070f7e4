"""Identity: a still clip of the first view."""

from dataclasses import dataclass
from typing import ClassVar

from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Transform, View


@dataclass(frozen=True)
class Identity(Transform):
    """Every frame is the first view. The paper's baseline without motion (section 3.2, item 1)."""

    name: ClassVar[str] = "identity"

    def make_params(self, draws: Draws) -> Params:
        """Nothing is drawn."""
        return {}

    def make_plan(self, params: Params, view: View) -> Motion:
        """The same window in every frame."""
        return view.motion(view.still())
