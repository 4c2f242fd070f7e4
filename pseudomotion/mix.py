"""``Mixup`` and ``VideoMix``: mixing pairs of clips, inside ``PMG`` or on existing clips.

Weights are drawn per clip id and are constant over the frames, so that patches can still be tracked. By default a clip's partner is
another clip of the batch, chosen by the ids in the batch but not by their order. To make clips independent of their batch, pass the
partners: ``partner_images=`` of ``PMG``, ``partner_clips=`` here.
"""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws, Numbers, exp, log
from pseudomotion.plan import Blend
from pseudomotion.render.output import DATA_FORMATS, blend_clips
from pseudomotion.untraced import untraced

MODES = ("spatial", "temporal", "spatiotemporal")


@dataclass(frozen=True, eq=False)
class MixInfo:
    """What was mixed into each of b clips.

    Args:
        partner: ``(b,)``, position in the batch (or in ``partner_clips``) of the clip that was mixed in.
        partner_weight: ``(b,)``, the partner's share of the result, 0 for clips that were not mixed; for VideoMix, the exact fraction of
            voxels.
        blend: in which region and frames the partner shows.

    """

    partner: Int64[Tensor, " b"]
    partner_weight: Float32[Tensor, " b"]
    blend: Blend


class Mix(ABC):
    """Base class of ``Mixup`` and ``VideoMix``."""

    @abstractmethod
    def make_params(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw the parameters, each of shape ``(b,)``."""

    @abstractmethod
    def make_plan(self, params: dict[str, np.ndarray], partner: Int64[Tensor, " b"], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """Turn the parameters into weight, region and frames of each clip's ``partner``."""

    @untraced
    def __call__(
        self,
        clips: Tensor,
        *,
        ids: Tensor | None = None,
        seed: int | None = None,
        data_format: str = "BCTHW",
        partner_clips: Tensor | None = None,
    ) -> tuple[Tensor, MixInfo]:
        """Mix existing clips, such as clips of real videos.

        Args:
            clips: ``(B, C, T, h, w)`` or ``(B, T, C, h, w)``, uint8 or float, normalized or not.
            ids: int64 ``(B,)``, clip ids. None: drawn from torch's default CPU generator.
            seed: 64-bit integer; None means 0.
            data_format: order of the clips' axes, "BCTHW" or "BTCHW".
            partner_clips: like ``clips``; clip i is mixed with ``partner_clips[i]`` and depends on nothing else in the batch.
                None: partners come from the batch; no clip is its own partner unless it is the only one.

        Returns:
            Mixed clips, a new tensor of the same shape and dtype (``clips`` itself if none is mixed), and what was mixed.

        Raises:
            TypeError, ValueError: for invalid arguments.

        Warns:
            UserWarning: once per process, for a single clip without a partner, which stays unchanged.

        """
        checks.clips(clips)
        checks.one_of("data_format", data_format, DATA_FORMATS)
        if partner_clips is not None:
            checks.alike("partner_clips", partner_clips, "clips", clips)
        elif len(clips) == 1:
            warn_alone("clips")
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
        alpha: w is drawn from Beta(alpha, alpha): 1 is uniform, smaller values concentrate it near 0 and 1 (not from the paper).
        p: probability that a clip is mixed (not from the paper).

    Raises:
        TypeError, ValueError: for alpha not positive and finite, or p outside [0, 1].

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, Mixup
        >>> PMG(num_frames=4, size=16, mix=Mixup())(torch.rand(2, 3, 24, 24), ids=torch.arange(2)).shape
        torch.Size([2, 3, 4, 16, 16])
        >>> mixed, info = Mixup(alpha=0.8)(torch.rand(2, 3, 4, 16, 16), ids=torch.arange(2))  # clips that exist
        >>> info.partner
        tensor([1, 0])

    """

    alpha: float = 1.0
    p: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check(self.alpha, self.p)

    def make_params(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw whether each clip is mixed, and its partner's weight."""
        (chance,) = draws.numbers("mixup", 1)
        return {"mixed": chance < self.p, "share": draws.beta("mixup share", self.alpha)}

    def make_plan(self, params: dict[str, np.ndarray], partner: Int64[Tensor, " b"], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """Blend with the drawn weight in every frame and pixel."""
        return Blend(partner, _tensor(params["share"] * params["mixed"]), *_everywhere(len(partner), num_frames, frame_size))


@dataclass(frozen=True)
class VideoMix(Mix):
    """VideoMix: a box of the partner is pasted over the clip (Yun et al. 2020, arXiv 2012.03457; the paper's Table 4).

    The box covers a fraction of the clip drawn from Beta(alpha, alpha), around a center drawn uniformly from the clip, and is clipped at
    the clip's borders.

    Args:
        alpha: as for ``Mixup`` (not from the paper).
        p: probability that a clip is mixed (not from the paper).
        mode: "spatial": the same box in all frames. "temporal": whole frames. "spatiotemporal": a box in some of the frames.

    Raises:
        TypeError, ValueError: for alpha not positive and finite, p outside [0, 1], or another mode.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, VideoMix
        >>> PMG(num_frames=4, size=16, mix=VideoMix())(torch.rand(2, 3, 24, 24), ids=torch.arange(2)).shape
        torch.Size([2, 3, 4, 16, 16])
        >>> clips = torch.stack([torch.zeros(3, 4, 16, 16), torch.ones(3, 4, 16, 16)])
        >>> mixed, info = VideoMix(mode="spatial")(clips, ids=torch.arange(2))
        >>> bool(torch.isclose(mixed[0].mean(), info.partner_weight[0]))
        True

    """

    alpha: float = 1.0
    p: float = field(default=1.0, kw_only=True)
    mode: str = field(default="spatial", kw_only=True)

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check(self.alpha, self.p)
        checks.one_of("mode", self.mode, MODES)

    def make_params(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw whether each clip is mixed, its partner's share, and the center of the box."""
        chance, x, y, t = draws.numbers("videomix", 4)
        return {"mixed": chance < self.p, "share": draws.beta("videomix share", self.alpha), "x": x, "y": y, "t": t}

    def make_plan(self, params: dict[str, np.ndarray], partner: Int64[Tensor, " b"], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """Blend with weight 1 inside a box of whole pixels and frames. Clips whose box is empty are not mixed."""
        share = params["share"]
        if self.mode == "spatial":
            side = np.sqrt(share)
        elif self.mode == "temporal":
            side = share
        else:
            side = np.where(share > 0, exp((log(share.clip(min=1e-300)) / 3).clip(max=0)), share)
        whole_frames, every_frame = self.mode == "temporal", self.mode == "spatial"
        x0, x1 = (0 * share, 0 * share + frame_size[1]) if whole_frames else _interval(params["x"], side, frame_size[1])
        y0, y1 = (0 * share, 0 * share + frame_size[0]) if whole_frames else _interval(params["y"], side, frame_size[0])
        first, last = (0 * share, 0 * share + num_frames) if every_frame else _interval(params["t"], side, num_frames)
        mixed = params["mixed"] & (x1 > x0) & (y1 > y0) & (last > first)
        whole_box, all_frames = _everywhere(len(partner), num_frames, frame_size)
        box, frames = _tensor(np.stack([x0, y0, x1, y1], 1)) - 0.5, torch.from_numpy(np.stack([first, last], 1)).long()
        blended = torch.from_numpy(mixed)[:, None]
        return Blend(partner, _tensor(mixed), torch.where(blended, box, whole_box), torch.where(blended, frames, all_frames))


@cache
def warn_alone(what: str) -> None:
    """Warn, once per process, that a batch of one cannot be mixed."""
    warnings.warn(
        f"mix does nothing to a batch of one, which has no partner: pass larger batches or partner_{what}=, or mix in the training loop",
        stacklevel=1,
    )


def _check(alpha: float, p: float) -> None:
    if not 0 < checks.number("alpha", alpha) < math.inf:
        raise ValueError(f"alpha must be positive and finite, got {alpha!r}")
    checks.probability(p)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _interval(center: Numbers, side: Numbers, size: int) -> tuple[Numbers, Numbers]:
    """Start (inclusive) and end (exclusive) of an interval within ``size``, from its center and length as fractions of ``size``."""
    low, high = ((center + sign * side / 2) * size for sign in (-1, 1))
    return np.rint(low).clip(0, size), np.rint(high).clip(0, size)


def _everywhere(batch: int, num_frames: int, frame_size: tuple[int, int]) -> tuple[Float32[Tensor, "b 4"], Int64[Tensor, "b 2"]]:
    """The box and frame range that cover whole clips."""
    h, w = frame_size
    box, frames = np.tile([[-0.5, -0.5, w - 0.5, h - 0.5]], (batch, 1)), np.tile([[0, num_frames]], (batch, 1))
    return _tensor(box), torch.from_numpy(frames)


def _share(blend: Blend, num_frames: int, frame_size: tuple[int, int]) -> Float32[Tensor, " b"]:
    """The partner's share of every clip: its weight times the fraction of voxels inside the box and frames."""
    x0, y0, x1, y1 = blend.box.double().unbind(1)
    first, last = blend.frames.unbind(1)
    voxels = (x1 - x0) * (y1 - y0) * (last - first)
    return (blend.weight.double() * voxels / (num_frames * frame_size[0] * frame_size[1])).float()


def mix_targets(labels: Tensor, info: MixInfo, num_classes: int, *, partner_labels: Tensor | None = None) -> Float[Tensor, "b num_classes"]:
    """Soft targets of mixed clips, for fine-tuning: each of the two labels is weighted by its clip's share.

    Args:
        labels: int64 ``(B,)``, or class probabilities ``(B, num_classes)``, such as smoothed labels.
        info: returned by ``Mixup`` or ``VideoMix``.
        num_classes: at least 1.
        partner_labels: like ``labels``, for ``partner_clips`` if these were given.

    Returns:
        Class probabilities ``(B, num_classes)``, float32 for int64 labels, else in the dtype of the labels.

    Raises:
        TypeError, ValueError: for labels with another shape or dtype, or classes outside 0 to ``num_classes - 1``.

    Example:
        >>> import torch
        >>> from pseudomotion import Mixup
        >>> from pseudomotion.mix import mix_targets
        >>> mixed, info = Mixup()(torch.rand(2, 3, 4, 16, 16), ids=torch.arange(2))
        >>> targets = mix_targets(torch.tensor([0, 2]), info, num_classes=3)
        >>> targets.shape, targets.sum(1)
        (torch.Size([2, 3]), tensor([1., 1.]))

    """
    num_classes = checks.positive_int("num_classes", num_classes, 2**31)
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
