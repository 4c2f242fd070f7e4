"""``PMG``, the pseudo-motion generator: a batch of images in, a batch of clips out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.mix import Mix, warn_alone
from pseudomotion.motion import Fields, Layers, Motion, alike, concatenate, concatenate_layers, map_fields, to_tensors
from pseudomotion.objects import PRESETS, Objects
from pseudomotion.plan import MOST_SUBFRAMES, PADDING_MODES, Back, MotionPlan
from pseudomotion.render import DATA_FORMATS, RENDERERS, Prepared, explain, prepare, render
from pseudomotion.transforms import ALL_TRANSFORMS, Transform
from pseudomotion.transforms.base import View
from pseudomotion.transforms.by_name import Transforms, transforms_and_weights
from pseudomotion.untraced import untraced

RESAMPLINGS = ("recursive", "composed")


class PMG(nn.Module):
    """Pseudo-motion generator: turns every image of a batch into a video clip.

    For each clip, one transform and its parameters are drawn and applied repeatedly (paper, section 3.2). A clip depends only on the seed,
    its id and its image, not on the batch, worker, rank or device. With "cutmix" or ``mix`` it also depends on its partner's image.
    Partners come from the batch, so such a clip depends on which ids are in the batch, unless ``partner_images`` are given.

    Args:
        transforms: what to draw from: names in ``TRANSFORMS`` and ``EXTRA_TRANSFORMS``, ``Transform`` objects, or a mapping of either to
            weights. The default is the paper's best set (Table 3).
        num_frames: T, from 1 to 4096.
        size: size of the frames: an int, ``(h, w)``, or None for the size of the images.
        resampling: "recursive": transforms defined on the previous frame read it, as in the paper's equation 1, so frames become slightly
            more blurred at every step. "composed": every frame is resampled once from the image, and stays sharp (not from the paper).
        padding_mode: what shows beyond the edge of the image: "zeros" (black), "border" or "reflection" (not from the paper).
        crop: ``(min_scale, max_scale)``: the first view is a random window whose area is drawn as a fraction of the largest window's.
            None: the first view is the largest centered window with the frame's aspect ratio.
        mix: ``Mixup()`` or ``VideoMix()`` to mix every clip with a partner clip, as in the paper's best recipe (Table 4). None: no mixing.
        objects: ``Objects(...)``, or "mixed", "yu2024", "smile2025" or "cutouts" for a preset: things that move on their own over every
            clip (not from the paper). None: none.
        exposure: motion blur (not from the paper): every frame is averaged over this share of the frame interval, from 0 (none) to 1,
            centered on the frame's instant. ``pseudomotion.render.exposure`` says how things move between frames.
        subframes: number of instants, from 1 to 64, that are averaged where ``exposure`` is above 0. The cost grows with it.
        mean: per-channel mean of values in [0, 1], subtracted from the clips. Must be given together with ``std``.
        std: per-channel standard deviation, by which the clips are then divided.
        dtype: dtype of the clips: torch.uint8 or a float dtype. None: that of the images, but float32 for uint8 images that are normalized.
        data_format: order of the clips' axes, "BCTHW" or "BTCHW".
        seed: 64-bit integer; None means 0.
        renderer: "reference" (any device, differentiable), "fused" (kernels compiled by Triton for CUDA devices and by LLVM for CPUs; an
            error elsewhere) or "auto". "auto" uses the fused renderer for images that need no gradient, else the reference. On a CUDA
            device it first compares the fused renderer's first clip of every transform with the reference's; if they differ, it warns
            and uses the reference. ``explain`` says which one runs.
        validate: also check that float images on a GPU lie in [0, 1], which synchronizes with the GPU. On the CPU they are always checked.

    Raises:
        TypeError, ValueError: for invalid arguments.

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
        transforms: Transforms = ("zoom", "affine"),
        num_frames: int = 16,
        size: int | tuple[int, int] | None = 224,
        *,
        resampling: str = "recursive",
        padding_mode: str = "zeros",
        crop: tuple[float, float] | None = None,
        mix: Mix | None = None,
        objects: Objects | str | None = None,
        exposure: float = 0.0,
        subframes: int = 4,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        data_format: str = "BCTHW",
        seed: int | None = None,
        renderer: str = "auto",
        validate: bool = False,
    ) -> None:
        super().__init__()
        self.transforms, self.weights = transforms_and_weights(transforms)
        self.num_frames = checks.positive_int("num_frames", num_frames, checks.MOST_FRAMES)
        self.size = checks.frame_size(size)
        self.resampling = checks.one_of("resampling", resampling, RESAMPLINGS)
        self.padding_mode = checks.one_of("padding_mode", padding_mode, PADDING_MODES)
        self.crop = checks.crop(crop)
        if mix is not None and not isinstance(mix, Mix):
            raise TypeError(f"mix must be Mixup(...), VideoMix(...) or None, got {mix!r}")
        self.mix = mix
        if isinstance(objects, str):
            objects = PRESETS[checks.one_of("objects", objects, tuple(PRESETS))]()
        if objects is not None and not isinstance(objects, Objects):
            raise TypeError(f"objects must be Objects(...), the name of a preset or None, got {objects!r}")
        self.objects = objects
        self.exposure = checks.probability(exposure, "exposure")
        self.subframes = checks.positive_int("subframes", subframes, MOST_SUBFRAMES)
        self.mean, self.std = checks.normalization(mean, std)
        self.dtype = checks.output_dtype(dtype, normalized=mean is not None)
        self.data_format = checks.one_of("data_format", data_format, DATA_FORMATS)
        self.seed = checks.seed(seed)
        self.renderer = checks.one_of("renderer", renderer, RENDERERS)
        self.validate = validate

    def extra_repr(self) -> str:
        """The constructor's arguments, for ``repr``."""
        weighted = ", ".join(f"{t}: {w:g}" for t, w in zip(self.transforms, self.weights, strict=True))
        names = "num_frames size resampling padding_mode crop mix objects exposure subframes mean std dtype data_format seed renderer"
        return f"{{{weighted}}}, " + ", ".join(f"{name}={getattr(self, name)!r}" for name in names.split())

    @untraced
    def forward(
        self, images: Tensor, *, ids: Tensor | None = None, partner_images: Tensor | None = None, textures: Tensor | None = None
    ) -> Tensor:
        """Make a clip of every image.

        Args:
            images: ``(B, C, H, W)``, uint8 or float in [0, 1], C = 1, 3 or 4.
            ids: int64 ``(B,)``, clip ids. The same id and seed always give the same motion. None: drawn from torch's default CPU
                generator, which ``torch.manual_seed`` seeds.
            partner_images: like ``images``. Clip i is mixed with a clip of ``partner_images[i]``, and "cutmix" shows a box of it, so clip
                i depends on nothing else in the batch. This renders the partners' clips too, at twice the cost. None: partners come from
                the batch.
            textures: ``(M, C, H', W')``, with the channels and dtype of ``images``: what objects show, so that clips depend on nothing else
                in the batch. RGBA over RGB images: cut-outs, transparent where alpha is 0. None: objects show other images of the batch,
                or the clip's partner image.

        Returns:
            Clips ``(B, C, T, h, w)``, or ``(B, T, C, h, w)`` with ``data_format="BTCHW"``, on the device of the images.

        Raises:
            TypeError, ValueError: for invalid images or ids.
            RuntimeError: for CUDA images in a forked worker process.

        """
        checks.images(images)
        if textures is not None:
            checks.images(textures)
        shape = None if textures is None else textures.shape
        plan = self.plan(images.shape, ids=ids, partner_images=partner_images is not None, textures=shape)
        return self.render(images, plan, partner_images=partner_images, textures=textures)

    @untraced
    def plan(
        self, shape: Sequence[int], *, ids: Tensor | None = None, partner_images: bool = False, textures: Sequence[int] | None = None
    ) -> MotionPlan:
        """Decide what ``forward`` would do to images of this shape, on the CPU, without rendering.

        Args:
            shape: ``(B, C, H, W)`` of the images.
            ids: as for ``forward``.
            partner_images: whether partner images will be passed to ``render``. The plan then holds 2 B clips: those of the images,
                followed by those of the partner images.
            textures: shape ``(M, C, H', W')`` of the textures that will be passed to ``render``, if any.

        Returns:
            The plan, on the CPU.

        Raises:
            TypeError, ValueError: for an invalid shape or ids, for images without RGB channels where a transform needs them, for textures
                without objects or, for cut-outs, without alpha, and for textures beside "cutmix", which shows images of the batch.

        """
        batch, channels, image_h, image_w = checks.shape(shape)
        colored = [t.name for t in self.transforms if t.needs_rgb] + list(self.objects.needs_rgb if self.objects else ())
        if channels != 3 and colored:
            raise ValueError(f"images must have 3 channels (RGB) for {', '.join(colored)}, got {channels}")
        if textures is not None:
            self._check_textures(textures, channels)
        if self.objects is not None and self.objects.needs_alpha and (channels, None if textures is None else textures[1]) != (3, 4):
            raise ValueError("textures must be RGBA, over RGB images, for cut-outs, such as pseudomotion.images.load_textures(alpha=True)")
        if self.mix is not None and batch == 1 and not partner_images:
            warn_alone("images")
        draws = Draws(self.seed, checks.ids(ids, batch))
        partner = None
        if partner_images:
            draws = Draws(self.seed, torch.cat([draws.ids, draws.partner_ids("partner images")]))
            partner = torch.arange(2 * batch, device="cpu").roll(batch)
        return self._plan((image_h, image_w), draws, partner, textures)

    def _check_textures(self, textures: Sequence[int], channels: int) -> None:
        number, own_channels, *_ = checks.shape(textures)
        if self.objects is None:
            raise ValueError("textures are what objects show; make the generator with objects=Objects(...)")
        if number < 1 or (own_channels != channels and (own_channels, channels) != (4, 3)):
            rgba = " (or 4, the last of which is alpha)" if channels == 3 else ""
            raise ValueError(
                f"textures must be at least one image of {channels} channels{rgba}, as the images have, got shape {tuple(textures)}"
            )
        if layered := [t.name for t in self.transforms if t.num_layers]:
            raise ValueError(f"textures cannot be given beside {', '.join(layered)}, which shows images of the batch in its own layers")

    def _plan(self, image_size: tuple[int, int], draws: Draws, partner: Tensor | None, textures: Sequence[int] | None) -> MotionPlan:
        """The plan of all clips in ``draws``. Partners are drawn from the batch where ``partner`` is None."""
        frame_size = self.size or image_size
        texture = draws.partner("source") if partner is None and any(t.num_layers for t in self.transforms) else partner
        shown_by_layers = None if texture is None else texture.numpy()
        view = View.first(image_size, frame_size, self.num_frames, self.crop, draws, shown_by_layers)
        chosen = draws.choice("transform", self.weights).numpy()
        motion, layers = _plan_motion(self.transforms, chosen, draws, view)
        texture_size = None if textures is None else (int(textures[2]), int(textures[3]))
        if self.objects is not None:
            shown = partner if textures is None else int(textures[0])
            layers = concatenate_layers(
                [layers, self.objects.make_layers(draws, texture_size or image_size, frame_size, self.num_frames, shown)]
            )
        reads_previous = torch.from_numpy(np.array([transform.reads_previous for transform in self.transforms])[chosen])
        back = Back(torch.arange(len(chosen), device="cpu"), motion, reads_previous)
        blend = None
        if self.mix is not None:
            mixed = draws.partner("mix") if partner is None else partner
            blend = self.mix.make_plan(self.mix.make_params(draws), mixed, self.num_frames, frame_size)
        known = list(ALL_TRANSFORMS.values())
        index = np.array([known.index(type(t)) if type(t) in known else -1 for t in self.transforms])[chosen]
        return MotionPlan(
            back=back.composed() if self.resampling == "composed" else back,
            layers=to_tensors(layers),
            blend=blend,
            padding_mode=self.padding_mode,
            transform=torch.from_numpy(index),
            image_size=image_size,
            texture_size=texture_size,
            frame_size=frame_size,
            exposure=self.exposure,
            subframes=self.subframes,
        )

    @untraced
    def prepare(self, shape: Sequence[int], *, images_dtype: torch.dtype = torch.uint8, **options: Any) -> Prepared:
        """``plan``, packed for the CUDA kernels too. Loader workers can do this, without a GPU, so that ``render`` only launches kernels.

        Args:
            shape: ``(B, C, H, W)`` of the images.
            images_dtype: dtype of the images.
            options: as for ``plan``.

        Returns:
            What ``render`` takes instead of a plan. It can be sent to other processes, and ``DataLoader(pin_memory=True)`` pins it.

        Raises:
            TypeError, ValueError: as ``plan``.

        """
        plan = self.plan(shape, **options)
        return prepare(plan, int(shape[1]), images_dtype=images_dtype, count=int(shape[0]), **self._format())

    def _format(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "dtype": self.dtype, "data_format": self.data_format}

    def render(
        self, images: Tensor, plan: MotionPlan | Prepared, *, partner_images: Tensor | None = None, textures: Tensor | None = None
    ) -> Tensor:
        """Render the clips of a plan. Deterministic.

        Args:
            images: as for ``forward``, with the number and size that the plan was made for.
            plan: from ``plan``, possibly modified, or from ``prepare``.
            partner_images: as for ``forward``, if the plan was made with ``partner_images=True``.
            textures: as for ``forward``, if the plan was made with ``textures``.

        Returns:
            As ``forward``.

        Raises:
            TypeError, ValueError: for invalid images, or images that do not match the plan.

        """
        checks.images(images)
        batch = len(images)
        if partner_images is not None:
            checks.alike("partner_images", partner_images, "images", images)
            images = torch.cat([images, partner_images])
        if images.is_floating_point() and not torch.compiler.is_compiling() and (self.validate or images.device.type == "cpu"):
            images = checks.values(images)
            textures = None if textures is None else checks.values(textures)
        return render(images, plan, textures=textures, count=batch, renderer=self.renderer, **self._format())

    def explain(self) -> str:
        """Say which renderer would run on which device, and why."""
        return explain(self.renderer, self.dtype)


@np.errstate(all="ignore")  # extreme ranges can overflow; that is the user's choice, not worth a warning
def _plan_motion(transforms: Sequence[Transform], chosen: Int64[np.ndarray, " b"], draws: Draws, view: View) -> tuple[Motion, Layers]:
    """Motion and layers of every clip, by the transform chosen for it. Absent layers pad all clips to the same number of layers."""
    depth = max(transform.num_layers for transform in transforms)
    motions, clips, layers, layered = [], [], [], []
    for number, transform in enumerate(transforms):
        those = (chosen == number).nonzero()[0]
        their_view = view.select(those)
        motion = transform.make_plan(transform.make_params(draws.select(those)), their_view)
        motions.append(dataclasses.replace(motion, layers=None))
        clips.append(those)
        if motion.layers is not None:
            layers.append(concatenate_layers([motion.layers, their_view.absent_layers(depth - transform.num_layers)]))
            layered.append(those)
    without = np.array([transform.num_layers == 0 for transform in transforms])[chosen].nonzero()[0]
    layers.append(view.select(without).absent_layers(depth))
    return to_tensors(_in_order(alike(motions), clips)), _in_order(layers, [*layered, without])


def _in_order(parts: Sequence[Fields], clips: Sequence[Int64[np.ndarray, " n"]]) -> Fields:
    """One motion, or layers, of all clips in the order of the batch; ``clips`` are the positions of those in each part."""
    order = np.argsort(np.concatenate(clips))
    return map_fields(concatenate(parts, axis=0), lambda array: array[order])
