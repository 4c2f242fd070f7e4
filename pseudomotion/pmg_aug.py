"""``PMGAug``: replaces some real clips by pseudo-motion clips, for pre-training on videos."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.pmg import PMG
from pseudomotion.render.output import to_unit
from pseudomotion.source import ImageSource
from pseudomotion.untraced import untraced

FRAMES = "frames"


@dataclass(frozen=True, eq=False)
class PMGAugInfo:
    """Where the clips come from.

    Args:
        pseudo: whether the clip was replaced.
        source: index in ``PMGAug.images`` of what it was made from; -1 for real clips.
        frame: index of the frame it was made from; -1 for real clips and clips made from an image of a source.
        image: id of the image in its source; -1 for real clips and clips made from a frame.

    """

    pseudo: Bool[Tensor, " B"]
    source: Int64[Tensor, " B"]
    frame: Int64[Tensor, " B"]
    image: Int64[Tensor, " B"]


class PMGAug(nn.Module):
    """Replaces each real clip, with a probability, by a pseudo-motion clip made from one of its frames or from another image.

    Paper, section 4.4, Tables 8 and 9; the probability is not from the paper. Real clips must have the format of ``pmg``'s: the same number
    of frames, the same ``data_format``, and, if ``pmg`` has ``mean`` and ``std``, normalized by these. Frames are denormalized before they
    become images of ``pmg``: ``(frame * std + mean).clamp(0, 1)``. All numbers are drawn per id, so a clip does not depend on its batch.
    Works on CUDA batches in the main process, and on the CPU anywhere, including DataLoader workers.

    Args:
        pmg: makes the clips; its ``size`` and ``dtype`` are those of the real clips or None. Its seed is used here too.
        p: probability per clip, in [0, 1].
        images: what clips are made from: None for frames of the real clips, an image source, or a mapping of sources to weights, in which
            ``"frames"`` stands for the frames: ``{"frames": 1, ImageFolder("pass", 224): 1}``.

    Raises:
        TypeError, ValueError: for arguments of another type or out of range.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, PMGAug
        >>> aug = PMGAug(PMG(num_frames=4, size=16), p=0.5)
        >>> clips, info = aug(torch.rand(8, 3, 4, 16, 16), ids=torch.arange(8))
        >>> int(info.pseudo.sum())
        3

    """

    def __init__(self, pmg: PMG, p: float = 0.5, *, images: ImageSource | Mapping[ImageSource | str, float] | None = None) -> None:
        super().__init__()
        if not isinstance(pmg, PMG):
            raise TypeError(f"pmg must be a PMG, got {type(pmg).__name__}")
        self.pmg = pmg
        self.p = checks.probability(p)
        self.images, self.weights = _sources(images)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f"p={self.p!r}, images={len(self.images)} kinds, weights={self.weights!r}"

    @untraced
    def forward(self, clips: Tensor, *, ids: Tensor | None = None, textures: Tensor | None = None) -> tuple[Tensor, PMGAugInfo]:
        """Replace some of the clips.

        Args:
            clips: real clips, uint8 in [0, 255] or float, ``(B, C, T, h, w)`` or ``(B, T, C, h, w)`` as ``pmg.data_format`` says; with 3
                channels if images come from a source. Not changed.
            ids: int64 ``(B,)`` on the CPU; None: drawn from torch's default generator.
            textures: as for ``PMG``: what objects show.

        Returns:
            Clips of the same shape, dtype and device (``clips`` itself if none is replaced), and where they come from.

        Raises:
            TypeError, ValueError: for clips of another format than ``pmg``'s.
            RuntimeError: for CUDA clips in a forked worker process.

        """
        checks.clips(clips)
        self._check_format(clips)
        real = clips.transpose(1, 2) if self.pmg.data_format == "BTCHW" else clips
        draws = Draws(self.pmg.seed, checks.ids(ids, len(clips)))
        info = self._choose(draws, num_frames=real.shape[2])
        chosen = info.pseudo.nonzero()[:, 0]
        if not len(chosen):
            return clips, info
        images = self._images(real, info, chosen)
        pseudo = self.pmg(images, ids=draws.ids[chosen], textures=textures)
        if len(chosen) == len(clips):
            return pseudo, info
        return clips.index_copy(0, chosen.to(clips.device), pseudo), info

    def _check_format(self, clips: Tensor) -> None:
        pmg = self.pmg
        frames, channels = (clips.shape[2], clips.shape[1]) if pmg.data_format == "BCTHW" else (clips.shape[1], clips.shape[2])
        size = (clips.shape[3], clips.shape[4])
        if channels not in checks.CHANNELS:
            raise ValueError(f"clips must have 1, 3 or 4 channels in {pmg.data_format}, got shape {tuple(clips.shape)}")
        if frames != pmg.num_frames or (pmg.size or size) != size:
            expected = f"{pmg.num_frames} frames" + (f" of {pmg.size[0]} x {pmg.size[1]}" if pmg.size else "")
            raise ValueError(f"clips must have {expected}, as pmg makes them in {pmg.data_format}, got shape {tuple(clips.shape)}")
        if (pmg.dtype or clips.dtype) != clips.dtype:
            raise ValueError(f"clips must be {pmg.dtype}, as pmg makes them, got {clips.dtype}")
        if pmg.mean is not None and clips.dtype == torch.uint8:
            raise ValueError("clips must be normalized floats if pmg has mean and std, got torch.uint8")

    def _choose(self, draws: Draws, *, num_frames: int) -> PMGAugInfo:
        """Draw which clips are replaced, and what each is made from."""
        chance, frame, image = draws.uniform("pmg_aug", 3)
        pseudo = chance < self.p
        source = torch.where(pseudo, draws.choice("pmg_aug source", self.weights), -1)
        number = torch.full_like(source, -1)
        for position, entry in enumerate(self.images):
            if not isinstance(entry, str):
                number = torch.where(source == position, (image * len(entry)).long(), number)
        of_clip = torch.tensor([isinstance(entry, str) for entry in self.images], device="cpu")[source] & pseudo
        return PMGAugInfo(pseudo, source, torch.where(of_clip, (frame * num_frames).long(), -1), number)

    def _images(self, real: Tensor, info: PMGAugInfo, chosen: Tensor) -> Tensor:
        """The images from which the clips ``chosen`` are made, in that order."""
        device = real.device
        taken = real[chosen.to(device), :, info.frame[chosen].clamp(min=0).to(device)]
        if self.pmg.mean is not None and self.pmg.std is not None:
            mean, std = (torch.tensor(v, dtype=taken.dtype, device="cpu").to(device)[:, None, None] for v in (self.pmg.mean, self.pmg.std))
            taken = (taken * std + mean).clamp(0, 1)
        for position, entry in enumerate(self.images):
            places = (info.source[chosen] == position).nonzero()[:, 0]
            if isinstance(entry, str) or not len(places):
                continue
            images = entry.get(info.image[chosen[places]])
            if images.shape[1:] != taken.shape[1:]:
                expected, came = tuple(taken.shape[1:]), tuple(images.shape[1:])
                raise ValueError(f"images must give images of {expected}, the shape of the clips' frames, got {came}")
            images = images.to(device)
            images = images if taken.dtype == torch.uint8 else to_unit(images).to(taken.dtype)
            taken = taken.index_copy(0, places.to(device), images)
        return taken


def _sources(images: ImageSource | Mapping[ImageSource | str, float] | None) -> tuple[tuple[ImageSource | str, ...], tuple[float, ...]]:
    """What clips are made from, and the weights, normalized to a sum of 1."""
    weighted = images if isinstance(images, Mapping) else {FRAMES if images is None else images: 1.0}
    for entry in weighted:
        if entry != FRAMES and not isinstance(entry, ImageSource):
            raise TypeError(f'images must be None, an image source, or a mapping of sources and "frames" to weights, got {entry!r}')
    return tuple(weighted), checks.weights("images", weighted)
