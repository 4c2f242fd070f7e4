"""``PseudoMotion``: a transform by torchvision's v2 protocol that turns the image of a sample into a video, and its labels with it.

Works without torchvision for plain tensors and PIL images.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pseudomotion import checks
from pseudomotion.labels import warp_labels
from pseudomotion.pmg import PMG

try:
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import Transform as Base
except (ImportError, RuntimeError):  # RuntimeError: a torchvision for another torch
    tv_tensors = None
    Base = nn.Module

__all__ = ["PseudoMotion"]


class PseudoMotion(Base):  # type: ignore[misc]
    """Turns one image into one clip, in a ``Dataset`` or among torchvision's v2 transforms.

    A sample is any nest of dicts, lists and tuples, as for torchvision. Its image becomes a video ``(T, C, h, w)``: an ``Image`` or a PIL
    image a ``Video``, a plain tensor a plain tensor. Along with it a ``Mask`` ``(N, H, W)`` becomes a ``Mask`` ``(T, N, h, w)``,
    ``KeyPoints`` ``(..., 2)`` become ``KeyPoints`` ``(T, ..., 2)``, and ``BoundingBoxes`` a list of T ``BoundingBoxes``, one per frame.
    Everything else passes through. torchvision puts pixel *edges* at integers, which is taken into account.

    Args:
        pmg: makes the clips. Each is made of one image alone: no ``mix``, ``objects`` or "cutmix".
        id_key: where a sample that is a dict has this key, its integer value is the clip's id.

    Raises:
        TypeError, ValueError: for a ``PMG`` whose clips need partners.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> transform = PseudoMotion(PMG(num_frames=4, size=32))
        >>> transform(torch.rand(3, 40, 60), id=5).shape
        torch.Size([4, 3, 32, 32])

    """

    def __init__(self, pmg: PMG, *, id_key: str = "id") -> None:
        super().__init__()
        if not isinstance(pmg, PMG):
            raise TypeError(f"pmg must be a PMG, got {type(pmg).__name__}")
        others = [name for name in ("mix", "objects") if getattr(pmg, name) is not None]
        if others := [*others, *(transform.name for transform in pmg.transforms if transform.num_layers)]:
            raise ValueError(
                f"pmg must make clips of one image each, without {', '.join(others)}; a batch can be mixed in the training loop"
            )
        self.pmg, self.id_key = pmg, id_key

    def forward(self, *inputs: Any, id: int | None = None) -> Any:
        """Transform a sample.

        Args:
            inputs: the sample: an image, or any nest that holds exactly one.
            id: of the clip: the same id gives the same motion. None: the sample's own, if it is a dict with ``id_key``; else drawn from
                torch's default generator, which differs from worker to worker and epoch to epoch.

        Raises:
            TypeError, ValueError: for a sample without an image or with several, and for other images than ``PMG`` takes.

        """
        sample = inputs if len(inputs) > 1 else inputs[0]
        if id is None and isinstance(sample, dict) and self.id_key in sample:
            id = checks.integer(f"sample[{self.id_key!r}]", sample[self.id_key])
        flat, structure = tree_flatten(sample)
        image = _find_image(flat)
        taken = [entry is image or isinstance(entry, _label_types()) for entry in flat]
        params = self.make_params([entry for entry, own in zip(flat, taken, strict=True) if own], id=id)
        out = [self.transform(entry, params) if own else entry for entry, own in zip(flat, taken, strict=True)]
        return tree_unflatten(out, structure)

    def make_params(self, flat_inputs: list[Any], *, id: int | None = None) -> dict[str, Any]:
        """Decide how the clip of an image moves.

        Args:
            flat_inputs: the image and its labels.
            id: as for ``forward``.

        Returns:
            The "plan" of one clip.

        """
        image = _to_tensor(_find_image(flat_inputs))
        ids = None if id is None else torch.tensor([checks.integer("id", id)], device="cpu")
        return {"plan": self.pmg.plan((1, *image.shape), ids=ids)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the plan to an image, or to a label of it."""
        plan = params["plan"]
        if tv_tensors is not None and isinstance(inpt, _label_types()):
            return _warped(inpt, plan)
        image = _to_tensor(inpt)
        clip = self.pmg.render(image.as_subclass(Tensor)[None], plan)[0]
        video = clip.transpose(0, 1).contiguous() if self.pmg.data_format == "BCTHW" else clip  # (T, C, h, w)
        return video if tv_tensors is None or type(inpt) is Tensor else tv_tensors.Video(video)

    def extra_repr(self) -> str:
        """The constructor's arguments, for ``repr``."""
        return f"id_key={self.id_key!r}"


def _label_types() -> tuple[type, ...]:
    if tv_tensors is None:
        return ()
    # KeyPoints came with torchvision 0.23
    return tuple(getattr(tv_tensors, name) for name in ("Mask", "BoundingBoxes", "KeyPoints") if hasattr(tv_tensors, name))


def _find_image(flat: list[Any]) -> Any:
    """The one image among a sample's entries: an ``Image`` or a PIL image; where there is none, the first plain tensor."""
    kinds: tuple[type, ...] = (Image.Image,) if tv_tensors is None else (Image.Image, tv_tensors.Image)
    images = [entry for entry in flat if isinstance(entry, kinds)]
    if len(images) > 1:
        raise ValueError(f"the sample must hold one image, got {len(images)}")
    plain = [entry for entry in flat if type(entry) is Tensor]
    if not images and not plain:
        raise TypeError(
            f"the sample must hold an image: a tensor (C, H, W) or a PIL image, got {', '.join(type(e).__name__ for e in flat)}"
        )
    return images[0] if images else plain[0]


def _to_tensor(image: Any) -> Tensor:
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    if image.ndim != 3:
        raise ValueError(f"the image must have shape (C, H, W), got {tuple(image.shape)}")
    tensor: Tensor = image
    return tensor


def _warped(label: Any, plan: Any) -> Any:
    """A label of the image along the clip."""
    values = label.as_subclass(Tensor)
    if isinstance(label, tv_tensors.Mask):
        masks = values.reshape(-1, *values.shape[-2:])  # (N, H, W)
        warped = torch.stack([warp_labels(plan, masks=mask[None]).masks[0] for mask in masks], 1)  # type: ignore[index]  # (T, N, h, w)
        return tv_tensors.Mask(warped.reshape(len(warped), *values.shape[:-2], *warped.shape[-2:]))
    if isinstance(label, tv_tensors.BoundingBoxes):
        return _warped_boxes(label, plan)
    points = values.reshape(-1, 2).double() - 0.5
    places = warp_labels(plan, points=points).points
    assert places is not None
    return tv_tensors.KeyPoints((places[0] + 0.5).reshape(plan.num_frames, *values.shape), canvas_size=plan.frame_size)


def _warped_boxes(boxes: Any, plan: Any) -> list[Any]:
    """The boxes in each of the T frames, in their own format, clipped to the frame."""
    from torchvision.transforms.v2.functional import convert_bounding_box_format as convert

    format_ = boxes.format
    if (corners_format := tv_tensors.BoundingBoxFormat.XYXY) != format_:
        boxes = convert(boxes, new_format=corners_format)
    edges = warp_labels(plan, boxes=boxes.as_subclass(Tensor).double() - 0.5).boxes
    assert edges is not None
    frames = [tv_tensors.BoundingBoxes(frame + 0.5, format=corners_format, canvas_size=plan.frame_size) for frame in edges[0]]
    return frames if format_ == corners_format else [convert(frame, new_format=format_) for frame in frames]
