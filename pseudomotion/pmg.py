"""``PMG``, the pseudo-motion generator: images in, clips out."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pseudomotion import checks
from pseudomotion import color as color_maps
from pseudomotion.draws import Draws
from pseudomotion.mix import Mix, warn_alone, whole_clips
from pseudomotion.plan import MotionPlan, compose
from pseudomotion.render.choice import RENDERERS, explain, render
from pseudomotion.render.format import DATA_FORMATS
from pseudomotion.transforms import TRANSFORMS, Transform
from pseudomotion.transforms.base import View
from pseudomotion.untraced import untraced

PADDING_MODES = ("zeros", "border", "reflection")
RESAMPLINGS = ("recursive", "composed")
MOST_FRAMES = 4096


class PMG(nn.Module):
    """Pseudo-motion generator: makes a video clip of every image of a batch.

    For each clip one transform and its parameters are drawn and applied again and again (paper, section 3.2). A clip depends on the seed,
    its id and its image alone, whatever the batch, worker, rank or device; with "cutmix" or ``mix``, on its partner's image too. Partners
    come from the batch, so a clip then depends on which ids are in it, unless ``partner_images`` are given.

    Args:
        transforms: what to draw from: names of ``TRANSFORMS``, ``Transform`` objects, or a mapping of either to weights. The default is
            the paper's best set (Table 3).
        num_frames: T, at least 1.
        size: of the frames: an int, ``(h, w)``, or None for that of the images.
        resampling: "recursive": a transform defined on the previous frame reads it, as in the paper's equation 1, and blurs a little at
            every step. "composed": one resampling from the source image per frame, sharp (not from the paper).
        padding_mode: what shows where a frame has no image: "zeros" (black), "border" or "reflection" (not from the paper).
        crop: ``(min_scale, max_scale)`` draws a random window as the first view, its area as a share of the largest window's. None: the
            largest centred window of the frame's aspect ratio.
        mix: ``Mixup()`` or ``VideoMix()`` to mix every clip with a partner's, as in the paper's best recipe (Table 4); None for not.
        mean: per channel, on values in [0, 1]; subtracted from the clips.
        std: per channel; the clips are divided by it. Given together with ``mean``.
        dtype: of the clips: torch.uint8 or a float type. None: that of the images, or float32 for uint8 images that are normalised.
        data_format: "BCTHW" or "BTCHW".
        seed: any integer of 64 bits; None is 0.
        renderer: "reference" (anywhere, differentiable), "fused" (CUDA, or an error) or "auto": fused for CUDA images that need no
            gradient, where its first clip of every transform is the reference's; else there is a warning, and the reference renders.
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
        if partner_images:
            draws = Draws(self.seed, torch.cat([draws.ids, draws.partner_ids("partner images")]))
        frame_size = self.size or (source_h, source_w)
        view = View.first((source_h, source_w), frame_size, self.num_frames, self.crop, draws)
        partner = torch.arange(2 * batch, device="cpu").roll(batch) if partner_images else None
        return _make_plan(self.transforms, self.weights, self.mix, draws, view, partner, composed=self.resampling == "composed")

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
        _check_plan(plan, images)
        if images.is_floating_point() and not torch.compiler.is_compiling() and (self.validate or images.device.type == "cpu"):
            images = checks.values(images)
        dtype = self.dtype or (torch.float32 if self.mean is not None and images.dtype == torch.uint8 else images.dtype)
        mean, std = (checks.per_channel(name, value, images.shape[1]) for name, value in (("mean", self.mean), ("std", self.std)))
        return render(
            images,
            plan,
            batch,
            renderer=self.renderer,
            padding_mode=self.padding_mode,
            mean=mean,
            std=std,
            dtype=dtype,
            data_format=self.data_format,
        )

    def explain(self) -> str:
        """For people: which renderer would run on which device, and why."""
        return explain(self.renderer, self.dtype)


def _check_plan(plan: MotionPlan, images: Tensor) -> None:
    """Whether a plan is for these images."""
    if not isinstance(plan, MotionPlan):
        raise TypeError(f"plan must be a MotionPlan, got {type(plan).__name__}")
    batch, channels, *size = images.shape
    if len(plan) != batch or plan.source_size != tuple(size):
        (h, w), (plan_h, plan_w) = size, plan.source_size
        raise ValueError(f"plan is for {len(plan)} images of {plan_h} x {plan_w}, got {batch} of {h} x {w}")
    if channels != 3 and any(p.colored for p in plan.passes):
        raise ValueError(f"images must have 3 channels (RGB) for a plan with color maps, got {channels}")


@np.errstate(all="ignore")  # motions beyond all bounds, of ranges that allow them, are no reason to warn
def _make_plan(
    transforms: Sequence[Transform],
    weights: Sequence[float],
    mix: Mix | None,
    draws: Draws,
    view: View,
    partner: Tensor | None,
    *,
    composed: bool,
) -> MotionPlan:
    """Choose a transform for every clip, and put the motions of all of them into one plan. Without partners, draw them."""
    b, t = len(draws.ids), view.num_frames
    layers = max(transform.num_layers for transform in transforms)
    chosen = draws.choice("transform", weights).numpy()
    homography = np.broadcast_to(np.eye(3), (b, layers, t, 3, 3)).astype(np.float32)
    color = np.broadcast_to(color_maps.IDENTITY, (b, layers, t, 3, 4)).astype(np.float32)
    box = np.repeat(view.image_box().astype(np.float32)[:, None], layers, 1)
    opacity = np.zeros((b, layers, t), dtype=np.float32)
    reads_previous = np.zeros(b, dtype=bool)
    index = np.full(b, -1)
    known = list(TRANSFORMS.values())
    for number, transform in enumerate(transforms):
        clips = (chosen == number).nonzero()[0]
        motion = transform.make_plan(transform.make_params(draws.select(clips)), view.select(clips))
        depth = motion.homography.shape[1]
        homography[clips, :depth], color[clips, :depth], box[clips, :depth] = motion.homography, motion.color, motion.box
        opacity[clips, :depth] = 1
        reads_previous[clips] = transform.reads_previous
        index[clips] = known.index(type(transform)) if type(transform) in known else -1
    own = torch.arange(b, device="cpu")
    source = own[:, None]
    if layers > 1:
        other = draws.partner("source") if partner is None else partner
        source = torch.stack([own] + [other] * (layers - 1), 1)
    if mix is None:
        blend, partner = whole_clips(b, t, view.frame_size), own
    else:
        blend = mix.make_plan(mix.make_params(draws), t, view.frame_size)
        partner = draws.partner("mix") if partner is None else partner
    if composed:
        homography, color = compose(homography, color, reads_previous)
        reads_previous[:] = False
    return MotionPlan(
        source=source,
        homography=torch.from_numpy(homography),
        color=torch.from_numpy(color),
        box=torch.from_numpy(box),
        opacity=torch.from_numpy(opacity),
        reads_previous=torch.from_numpy(reads_previous),
        partner=partner,
        partner_weight=blend.weight,
        partner_box=blend.box,
        partner_frames=blend.frames,
        transform=torch.from_numpy(index),
        source_size=view.source_size,
        frame_size=view.frame_size,
    )
