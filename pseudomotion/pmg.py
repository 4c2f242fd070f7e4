"""``PMG``, the pseudo-motion generator: images in, clips out."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.mix import Mix, warn_alone
from pseudomotion.motion import Layers, Motion, concatenate, map_fields, to_tensors
from pseudomotion.plan import PADDING_MODES, Back, MotionPlan, compose
from pseudomotion.render import DATA_FORMATS, RENDERERS, explain, render
from pseudomotion.transforms import ALL_TRANSFORMS, Transform
from pseudomotion.transforms.base import View
from pseudomotion.untraced import untraced

RESAMPLINGS = ("recursive", "composed")
MOST_FRAMES = 4096


class PMG(nn.Module):
    """Pseudo-motion generator: makes a video clip of every image of a batch.

    For each clip one transform and its parameters are drawn and applied again and again (paper, section 3.2). A clip depends on the seed,
    its id and its image alone, whatever the batch, worker, rank or device; with "cutmix" or ``mix``, on its partner's image too. Partners
    come from the batch, so a clip then depends on which ids are in it, unless ``partner_images`` are given.

    Args:
        transforms: what to draw from: names of ``TRANSFORMS`` and ``EXTRA_TRANSFORMS``, ``Transform`` objects, or a mapping of either to
            weights. The default is the paper's best set (Table 3).
        num_frames: T, at least 1.
        size: of the frames: an int, ``(h, w)``, or None for that of the images.
        resampling: "recursive": a transform defined on the previous frame reads it, as in the paper's equation 1, and blurs a little at
            every step. "composed": one resampling from the source image per frame, sharp (not from the paper).
        padding_mode: what shows where a frame has no image: "zeros" (black), "border" or "reflection" (not from the paper).
        crop: ``(min_scale, max_scale)`` draws a random window as the first view, its area as a share of the largest window's. None: the
            largest centered window of the frame's aspect ratio.
        mix: ``Mixup()`` or ``VideoMix()`` to mix every clip with a partner's, as in the paper's best recipe (Table 4); None for not.
        mean: per channel, on values in [0, 1]; subtracted from the clips.
        std: per channel; the clips are divided by it. Given together with ``mean``.
        dtype: of the clips: torch.uint8 or a float type. None: that of the images, or float32 for uint8 images that are normalized.
        data_format: "BCTHW" or "BTCHW".
        seed: any integer of 64 bits; None is 0.
        renderer: "reference" (anywhere, differentiable), "fused" (compiled kernels: by Triton for CUDA images, by numba for those on the
            CPU, or an error) or "auto": fused for images that need no gradient, else the reference. On CUDA devices the first clip of
            every transform is compared with the reference's; where they differ there is a warning, and the reference renders.
            ``explain`` says which one runs.
        validate: also check the values of float images on a GPU, which waits for it. On the CPU they are always checked.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> pmg = PMG(num_frames=4, size=32)
        >>> images = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
        >>> pmg(images).shape
        torch.Size([2, 3, 4, 32, 32])
        >>> ids = torch.tensor([10, 11])
        >>> torch.equal(pmg(images, ids=ids)[1:], pmg(images[1:], ids=ids[1:]))
        True

    """

    def __init__(
        self,
        transforms: checks.Transforms = ("zoom", "affine"),
        num_frames: int = 16,
        size: int | tuple[int, int] | None = 224,
        *,
        resampling: str = "recursive",
        padding_mode: str = "zeros",
        crop: tuple[float, float] | None = None,
        mix: Mix | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        data_format: str = "BCTHW",
        seed: int | None = None,
        renderer: str = "auto",
        validate: bool = False,
    ) -> None:
        super().__init__()
        self.transforms, self.weights = checks.transforms_and_weights(transforms)
        self.num_frames = checks.positive_int("num_frames", num_frames, MOST_FRAMES)
        self.size = checks.frame_size(size)
        self.resampling = checks.one_of("resampling", resampling, RESAMPLINGS)
        self.padding_mode = checks.one_of("padding_mode", padding_mode, PADDING_MODES)
        self.crop = checks.crop(crop)
        if mix is not None and not isinstance(mix, Mix):
            raise TypeError(f"mix must be Mixup(...), VideoMix(...) or None, got {mix!r}")
        self.mix = mix
        self.mean, self.std = checks.normalization(mean, std)
        self.dtype = checks.output_dtype(dtype, normalized=mean is not None)
        self.data_format = checks.one_of("data_format", data_format, DATA_FORMATS)
        self.seed = checks.seed(seed)
        self.renderer = checks.one_of("renderer", renderer, RENDERERS)
        self.validate = validate

    def extra_repr(self) -> str:
        """The arguments that were given, or their defaults."""
        weighted = ", ".join(f"{t}: {w:g}" for t, w in zip(self.transforms, self.weights, strict=True))
        rest = (
            "num_frames",
            "size",
            "resampling",
            "padding_mode",
            "crop",
            "mix",
            "mean",
            "std",
            "dtype",
            "data_format",
            "seed",
            "renderer",
        )
        return f"{{{weighted}}}, " + ", ".join(f"{name}={getattr(self, name)!r}" for name in rest)

    @untraced
    def forward(self, images: Tensor, *, ids: Tensor | None = None, partner_images: Tensor | None = None) -> Tensor:
        """Clips of a batch of images.

        Args:
            images: ``(B, C, H, W)``, uint8 or float in [0, 1], C = 1, 3 or 4.
            ids: int64 ``(B,)`` on the CPU; the same id and seed move an image the same way again. None: drawn from torch's default
                generator, so ``torch.manual_seed`` governs.
            partner_images: as ``images``; clip i is mixed with a clip of ``partner_images[i]``, and shows it in "cutmix". It then
                depends on nothing else in the batch, at twice the cost: the partners' clips are made too. None: partners come from the
                batch.

        Returns:
            ``(B, C, T, h, w)``, or ``(B, T, C, h, w)`` under ``data_format="BTCHW"``, on the device of the images.

        Raises:
            TypeError, ValueError: for images or ids outside these.
            RuntimeError: for CUDA images in a forked worker process.

        """
        checks.images(images)
        plan = self.plan(images.shape, ids=ids, partner_images=partner_images is not None)
        return self.render(images, plan, partner_images=partner_images)

    @untraced
    def plan(self, shape: Sequence[int], *, ids: Tensor | None = None, partner_images: bool = False) -> MotionPlan:
        """What ``forward`` would do to images of a shape: every decision, on the CPU, without a pixel.

        Args:
            shape: ``(B, C, H, W)`` of the images.
            ids: as for ``forward``.
            partner_images: whether there will be any. The plan is then for 2 B clips: those of the images, then those of their partners.

        """
        batch, channels, source_h, source_w = checks.shape(shape)
        if channels != 3 and (colored := [t.name for t in self.transforms if t.needs_rgb]):
            raise ValueError(f"images must have 3 channels (RGB) for {', '.join(colored)}, got {channels}")
        if self.mix is not None and batch == 1 and not partner_images:
            warn_alone("images")
        draws = Draws(self.seed, checks.ids(ids, batch))
        partner = None
        if partner_images:
            draws = Draws(self.seed, torch.cat([draws.ids, draws.partner_ids("partner images")]))
            partner = torch.arange(2 * batch, device="cpu").roll(batch)
        return self._plan((source_h, source_w), draws, partner)

    def _plan(self, image_size: tuple[int, int], draws: Draws, partner: Tensor | None) -> MotionPlan:
        """The plan of the clips that draw; their partners are drawn too where they are not given."""
        frame_size = self.size or image_size
        texture = draws.partner("source") if partner is None else partner
        view = View.first(image_size, frame_size, self.num_frames, self.crop, draws, texture.numpy())
        chosen = draws.choice("transform", self.weights).numpy()
        motion, layers = _plan_motion(self.transforms, chosen, draws, view)
        reads_previous = np.array([transform.reads_previous for transform in self.transforms])[chosen]
        blend = None
        if self.mix is not None:
            mixed = draws.partner("mix") if partner is None else partner
            blend = self.mix.make_plan(self.mix.make_params(draws), mixed, self.num_frames, frame_size)
        known = list(ALL_TRANSFORMS.values())
        index = np.array([known.index(type(t)) if type(t) in known else -1 for t in self.transforms])[chosen]
        return MotionPlan(
            back=_make_back(motion, reads_previous, composed=self.resampling == "composed"),
            layers=layers,
            blend=blend,
            padding_mode=self.padding_mode,
            transform=torch.from_numpy(index),
            image_size=image_size,
            texture_size=None,
            frame_size=frame_size,
        )

    def render(self, images: Tensor, plan: MotionPlan, *, partner_images: Tensor | None = None) -> Tensor:
        """Clips of a plan: deterministic replay.

        Args:
            images: as for ``forward``; as many, and as large, as the plan is for.
            plan: from ``plan``, or changed by you.
            partner_images: as for ``forward``, where the plan is for these.

        """
        checks.images(images)
        batch = len(images)
        if partner_images is not None:
            checks.alike("partner_images", partner_images, "images", images)
            images = torch.cat([images, partner_images])
        if images.is_floating_point() and not torch.compiler.is_compiling() and (self.validate or images.device.type == "cpu"):
            images = checks.values(images)
        return render(
            images,
            plan,
            count=batch,
            mean=self.mean,
            std=self.std,
            dtype=self.dtype,
            data_format=self.data_format,
            renderer=self.renderer,
        )

    def explain(self) -> str:
        """For people: which renderer would run on which device, and why."""
        return explain(self.renderer, self.dtype)


@np.errstate(all="ignore")  # motions beyond all bounds, of ranges that allow them, are no reason to warn
def _plan_motion(transforms: Sequence[Transform], chosen: Int64[np.ndarray, " b"], draws: Draws, view: View) -> tuple[Motion, Layers]:
    """How every clip moves by the transform chosen for it, and the layers over its back; as many for every clip."""
    depth = max(transform.num_layers for transform in transforms)
    motions, layers, clips = [], [], []
    for number, transform in enumerate(transforms):
        those = (chosen == number).nonzero()[0]
        their_view = view.select(those)
        motion = transform.make_plan(transform.make_params(draws.select(those)), their_view)
        own = [] if motion.layers is None else [motion.layers]
        motions.append(dataclasses.replace(motion, layers=None))
        layers.append(concatenate([*own, their_view.absent_layers(depth - transform.num_layers)], axis=1))
        clips.append(those)
    in_order = np.argsort(np.concatenate(clips))

    def sort(array: np.ndarray) -> np.ndarray:
        return array[in_order]

    return to_tensors(map_fields(concatenate(motions, axis=0), sort)), to_tensors(map_fields(concatenate(layers, axis=0), sort))


def _make_back(motion: Motion, reads_previous: Bool[np.ndarray, " b"], *, composed: bool) -> Back:
    """The back of every clip, of its own image; composed: no frame reads the one before it."""
    if composed:
        homography, color = compose(motion.homography.numpy(), motion.color.numpy(), reads_previous)
        motion = dataclasses.replace(motion, homography=torch.from_numpy(homography), color=torch.from_numpy(color))
        reads_previous = np.zeros_like(reads_previous)
    return Back(torch.arange(len(reads_previous), device="cpu"), motion, torch.from_numpy(reads_previous))
