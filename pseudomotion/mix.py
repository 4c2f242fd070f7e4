"""Mixing clips in pairs: ``Mixup`` and ``VideoMix``, inside ``PMG`` or on clips that exist already.

Drawn per clip id, with one weight for all frames of a clip, so that its patches can still be followed. A partner is another clip of
the batch: which one depends on the ids in the batch, though not on their order. Where a clip must not depend on its batch, hand the
partners in: ``partner_images=`` of ``PMG``, ``partner_clips=`` here.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws, Numbers, exp, log
from pseudomotion.plan import Blend
from pseudomotion.render.output import DATA_FORMATS, blend_clips

MODES = ("spatial", "temporal", "spatiotemporal")


@dataclass(frozen=True, eq=False)
class MixInfo:
    """What was mixed.

    Args:
        partner: position in the batch (or in ``partner_clips``) of the clip that was mixed in.
        partner_weight: its share of the result, 0 for clips left alone; of VideoMix, the exact share of its voxels.
        blend: where and when it shows.

    """

    partner: Int64[Tensor, " b"]
    partner_weight: Float32[Tensor, " b"]
    blend: Blend


class Mix(ABC):
    """A way to mix pairs of clips."""

    @abstractmethod
    def make_params(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw the numbers of every clip."""

    @abstractmethod
    def make_plan(self, params: dict[str, np.ndarray], partner: Int64[Tensor, " b"], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """Decide from them how much of each clip's ``partner`` shows, where and when."""

    def __call__(
        self,
        clips: Tensor,
        *,
        ids: Tensor | None = None,
        seed: int | None = None,
        data_format: str = "BCTHW",
        partner_clips: Tensor | None = None,
    ) -> tuple[Tensor, MixInfo]:
        """Mix clips that exist already, such as those of real videos.

        Args:
            clips: of any dtype that ``PMG`` can make, normalized or not.
            ids: int64 ``(B,)`` on the CPU; None: drawn from torch's default generator.
            seed: any integer of 64 bits; None is 0.
            data_format: "BCTHW" or "BTCHW".
            partner_clips: as ``clips``; clip i is mixed with ``partner_clips[i]``, and so depends on nothing else in the batch.
                None: partners come from the batch; no clip is its own unless it is the only one.

        Returns:
            Mixed clips, a new tensor of the same shape and dtype (``clips`` itself where none is mixed), and what was done.

        Raises:
            TypeError, ValueError: for arguments outside these.

        """
        checks.clips(clips)
        checks.one_of("data_format", data_format, DATA_FORMATS)
        if partner_clips is not None:
            checks.alike("partner_clips", partner_clips, "clips", clips)
        draws = Draws(checks.seed(seed), checks.ids(ids, len(clips)))
        num_frames = clips.shape[2 if data_format == "BCTHW" else 1]
        h, w = clips.shape[-2:]
        partner = draws.partner("mix") if partner_clips is None else torch.arange(len(clips), device="cpu")
        blend = self.make_plan(self.make_params(draws), partner, num_frames, (h, w))
        info = MixInfo(partner, _share(blend, num_frames, (h, w)), blend)
        if not bool((blend.weight > 0).any()):
            return clips, info
        others = clips[partner.to(clips.device)] if partner_clips is None else partner_clips
        if data_format == "BTCHW":
            return blend_clips(clips.transpose(1, 2), others.transpose(1, 2), blend).transpose(1, 2).contiguous(), info
        return blend_clips(clips, others, blend), info


@dataclass(frozen=True)
class Mixup(Mix):
    """Mixup of whole clips: every frame of a clip becomes ``(1 - w) * own + w * partner`` (paper, section 3.2 and Table 4).

    Args:
        alpha: w is drawn from Beta(alpha, alpha): 1 is uniform, less is nearer to 0 or 1 (not from the paper).
        p: probability that a clip is mixed (not from the paper).

    Raises:
        ValueError: for alpha not positive and finite, or p outside [0, 1].

    """

    alpha: float = 1.0
    p: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check(self.alpha, self.p)

    def make_params(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw the numbers of every clip."""
        (chance,) = draws.numbers("mixup", 1)
        return {"mixed": chance < self.p, "share": draws.beta("mixup share", self.alpha)}

    def make_plan(self, params: dict[str, np.ndarray], partner: Int64[Tensor, " b"], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """The drawn weight, everywhere."""
        return Blend(partner, _tensor(params["share"] * params["mixed"]), *_everywhere(len(partner), num_frames, frame_size))


@dataclass(frozen=True)
class VideoMix(Mix):
    """VideoMix: a box of the partner is pasted over the clip (Yun et al. 2020, arXiv 2012.03457; the paper's Table 4).

    The box takes a share of the clip drawn from Beta(alpha, alpha), about a centre drawn from the whole clip; what sticks out is cut off.

    Args:
        alpha: as for ``Mixup`` (not from the paper).
        p: probability that a clip is mixed (not from the paper).
        mode: "spatial": the same box in all frames. "temporal": whole frames. "spatiotemporal": a box in some of the frames.

    Raises:
        ValueError: for alpha not positive and finite, p outside [0, 1], or another mode.

    """

    alpha: float = 1.0
    p: float = 1.0
    mode: str = "spatial"

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check(self.alpha, self.p)
        checks.one_of("mode", self.mode, MODES)

    def make_params(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw the numbers of every clip."""
        chance, x, y, t = draws.numbers("videomix", 4)
        return {"mixed": chance < self.p, "share": draws.beta("videomix share", self.alpha), "x": x, "y": y, "t": t}

    def make_plan(self, params: dict[str, np.ndarray], partner: Int64[Tensor, " b"], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """A box of whole pixels and frames; clips that get none of it are left alone."""
        share = params["share"]
        if self.mode == "spatial":
            side = np.sqrt(share)
        elif self.mode == "temporal":
            side = share
        else:
            side = np.where(share > 0, exp((log(share.clip(min=1e-300)) / 3).clip(max=0)), share)
        still, all_over = self.mode == "temporal", self.mode == "spatial"
        x0, x1 = (0 * share, 0 * share + frame_size[1]) if still else _interval(params["x"], side, frame_size[1])
        y0, y1 = (0 * share, 0 * share + frame_size[0]) if still else _interval(params["y"], side, frame_size[0])
        first, last = (0 * share, 0 * share + num_frames) if all_over else _interval(params["t"], side, num_frames)
        mixed = params["mixed"] & (x1 > x0) & (y1 > y0) & (last > first)
        whole_box, all_frames = _everywhere(len(partner), num_frames, frame_size)
        box, frames = _tensor(np.stack([x0, y0, x1, y1], 1)) - 0.5, torch.from_numpy(np.stack([first, last], 1)).long()
        blended = torch.from_numpy(mixed)[:, None]
        return Blend(partner, _tensor(mixed), torch.where(blended, box, whole_box), torch.where(blended, frames, all_frames))


def _check(alpha: float, p: float) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha must be positive and finite, got {alpha!r}")
    checks.probability(p)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _interval(center: Numbers, side: Numbers, size: int) -> tuple[Numbers, Numbers]:
    """Whole steps from and to, about a center and of a length given as shares of the size."""
    low, high = ((center + sign * side / 2) * size for sign in (-1, 1))
    return np.rint(low).clip(0, size), np.rint(high).clip(0, size)


def _everywhere(batch: int, num_frames: int, frame_size: tuple[int, int]) -> tuple[Float32[Tensor, "b 4"], Int64[Tensor, "b 2"]]:
    """The box and the frames that hold whole clips."""
    h, w = frame_size
    box, frames = np.tile([[-0.5, -0.5, w - 0.5, h - 0.5]], (batch, 1)), np.tile([[0, num_frames]], (batch, 1))
    return _tensor(box), torch.from_numpy(frames)


def _share(blend: Blend, num_frames: int, frame_size: tuple[int, int]) -> Float32[Tensor, " b"]:
    """The partner's share of every clip: its weight times the share of the voxels that the box and the frames hold."""
    x0, y0, x1, y1 = blend.box.double().unbind(1)
    first, last = blend.frames.unbind(1)
    voxels = (x1 - x0) * (y1 - y0) * (last - first)
    return (blend.weight.double() * voxels / (num_frames * frame_size[0] * frame_size[1])).float()


def mix_targets(labels: Tensor, info: MixInfo, num_classes: int, *, partner_labels: Tensor | None = None) -> Float[Tensor, "b num_classes"]:
    """Class probabilities of mixed clips, for fine-tuning: each label's share is that of its pixels.

    Args:
        labels: int64 ``(B,)``, or class probabilities ``(B, num_classes)``, such as smoothed labels.
        info: what ``Mixup`` or ``VideoMix`` returned.
        num_classes: at least 1.
        partner_labels: those of ``partner_clips``, where these were given.

    Raises:
        ValueError: for labels of another shape, or outside the classes.

    """
    checks.positive_int("num_classes", num_classes, 2**31)
    own = _probabilities("labels", labels, len(info.partner), num_classes)
    if partner_labels is None:
        other = own[info.partner.to(own.device)]
    else:
        other = _probabilities("partner_labels", partner_labels, len(info.partner), num_classes)
    return torch.lerp(own, other, info.partner_weight[:, None].to(own))


def _probabilities(name: str, labels: Tensor, batch: int, num_classes: int) -> Tensor:
    if tuple(labels.shape) == (batch, num_classes) and labels.is_floating_point():
        return labels
    if tuple(labels.shape) != (batch,) or labels.dtype != torch.int64:
        allowed = f"int64 of shape ({batch},) or float of shape ({batch}, {num_classes})"
        raise ValueError(f"{name} must be {allowed}, got {labels.dtype} of shape {tuple(labels.shape)}")
    low, high = labels.aminmax() if batch else (0, 0)
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name} must be from 0 to {num_classes - 1}, got {int(low)} to {int(high)}")
    return F.one_hot(labels, num_classes).float()
