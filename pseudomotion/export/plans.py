"""Plans of clips: some of them alone, for frames of another size, and the files in which an export keeps them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from pseudomotion import checks
from pseudomotion.files import MADE_BY
from pseudomotion.motion import map_fields
from pseudomotion.plan import MotionPlan

__all__ = ["Planned", "load_plans", "resize_plan", "save_plans", "select_clips"]

PREFIX = "plan."


@dataclass(frozen=True, eq=False)
class Planned:
    """The plan of some clips, and which images it is for.

    Args:
        plan: of ``count`` clips, or of twice as many: the clips, followed by their partners.
        ids: int64 ``(len(plan),)``; ``source.get(ids)`` are the images to render.
        count: N, the number of clips without partners.

    """

    plan: MotionPlan
    ids: Int64[Tensor, " n"]
    count: int

    def select(self, clips: Int64[Tensor, " m"]) -> "Planned":
        """Some of the N clips, with their partners."""
        rows = clips if len(self.ids) == self.count else torch.cat([clips, clips + self.count])
        return Planned(select_clips(self.plan, rows), self.ids[rows], len(clips))


def select_clips(plan: MotionPlan, clips: Int64[Tensor, " n"]) -> MotionPlan:
    """The plan of some clips, in the order given.

    Images, textures of the batch and partners are numbered anew, among the chosen clips.

    Raises:
        ValueError: if a chosen clip shows the image of, or is mixed with, a clip that is not chosen.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.export import select_clips
        >>> plan = PMG(num_frames=4, size=32).plan((3, 3, 48, 48), ids=torch.arange(3))
        >>> select_clips(plan, torch.tensor([2, 0])).transform.tolist() == plan.transform[[2, 0]].tolist()
        True

    """
    place = torch.full((len(plan),), -1, dtype=torch.int64, device=plan.device)
    place[clips] = torch.arange(len(clips), device=plan.device)

    def part(tensor: Tensor) -> Tensor:
        return tensor[clips]

    back, layers, blend = map_fields(plan.back, part), map_fields(plan.layers, part), plan.blend
    image = place[back.image]
    missing = (image < 0).any()
    if plan.texture_size is None:
        texture = place[layers.texture]
        missing |= ((texture < 0) & (layers.opacity > 0).any(-1)).any()
        layers = dataclasses.replace(layers, texture=texture.clamp(min=0))
    if blend is not None:
        blend = map_fields(blend, part)
        partner = place[blend.partner]
        missing |= ((partner < 0) & (blend.weight > 0)).any()
        blend = dataclasses.replace(blend, partner=partner.clamp(min=0))
    if missing:
        raise ValueError("clips must be chosen together with the clips whose images they show; one of those was left out")
    back = dataclasses.replace(back, image=image)
    return dataclasses.replace(plan, back=back, layers=layers, blend=blend, transform=plan.transform[clips])


def resize_plan(plan: MotionPlan, size: int | tuple[int, int]) -> MotionPlan:
    """The same motion in frames of another size, which show the same part of the images.

    Args:
        plan: for images of any size.
        size: of the frames: an int or ``(h, w)``.

    Raises:
        TypeError, ValueError: for another size.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.export import resize_plan
        >>> plan = PMG(num_frames=4, size=32).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> resize_plan(plan, (64, 96)).frame_size
        (64, 96)

    """
    h, w = checks.item_size(size)
    if (h, w) == plan.frame_size:
        return plan
    scale_y, scale_x = h / plan.frame_size[0], w / plan.frame_size[1]
    scale = torch.tensor([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    scale = scale.to(plan.device)  # old frame pixel to new frame pixel, with pixel centers at integers
    motion, shown = plan.back.motion, plan.layers.motion
    homography: Float64[Tensor, "B T 3 3"] = scale @ motion.homography.double()
    after_first = torch.arange(plan.num_frames, device=plan.device) > 0
    read_frame = (plan.back.reads_previous[:, None] & after_first)[..., None, None]
    homography = torch.where(read_frame, homography @ torch.linalg.inv(scale), homography)
    back = dataclasses.replace(plan.back, motion=dataclasses.replace(motion, homography=homography.float()))
    placed = dataclasses.replace(shown, homography=(scale @ shown.homography.double()).float())
    blend = plan.blend
    if blend is not None:
        corners = (blend.box.double() + 0.5) * scale.new_tensor([scale_x, scale_y] * 2) - 0.5
        blend = dataclasses.replace(blend, box=corners.float())
    layers = dataclasses.replace(plan.layers, motion=placed)
    return dataclasses.replace(plan, back=back, layers=layers, blend=blend, frame_size=(h, w))


def save_plans(path: Path, planned: Planned) -> None:
    """Write a safetensors file: the plan's ``state_dict`` under "plan.", "ids" and "count"."""
    from safetensors.torch import save_file

    state = {PREFIX + name: tensor.contiguous() for name, tensor in planned.plan.to("cpu").state_dict().items()}
    more = {"ids": planned.ids, "count": torch.tensor(planned.count, device="cpu")}
    save_file(state | more, path, metadata={"kind": f"motion plans, {MADE_BY}"})


def load_plans(path: str | Path) -> Planned:
    """The plans of a shard of an export.

    To make clip ``i`` of it again: ``part = load_plans(path).select(torch.tensor([i]))``, then
    ``render(source.get(part.ids), part.plan, count=part.count)``.

    Raises:
        ImportError: if safetensors is not installed.
        OSError: if there is no such file.
        ValueError: if it holds no plans, or plans of a later version.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.export import Export, Settings, load_plans, prepare
        >>> from pseudomotion.images import ImageFolder
        >>> from pseudomotion.render import render
        >>> source = ImageFolder("photos", 48)
        >>> export = Export(source, PMG(num_frames=4, size=32), "planned", Settings(clips=5, format="png"))
        >>> prepare(export)
        >>> written = export.write(0)
        >>> clip = load_plans("planned/plans/00000.safetensors").select(torch.tensor([2]))
        >>> render(source.get(clip.ids), clip.plan, count=clip.count).shape
        torch.Size([1, 3, 4, 32, 32])

    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        ids, count = tensors.pop("ids"), int(tensors.pop("count"))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds no plans of an export: {error}") from error
    return Planned(MotionPlan.from_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}), ids, count)
