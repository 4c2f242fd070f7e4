"""PMG: what users type, right and wrong."""

import math
import multiprocessing
import re
import warnings
from collections import UserList

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pseudomotion import PMG, TRANSFORMS, checks
from pseudomotion.mix import Mixup, VideoMix, warn_alone
from pseudomotion.render import proof
from pseudomotion.transforms import Affine, Transform, Zoom
from pseudomotion.transforms.base import Motion

IMAGES = torch.rand(3, 3, 12, 14, generator=torch.Generator().manual_seed(0))


@given(
    st.integers(0, 3),
    st.sampled_from([1, 3, 4]),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(1, 4),
    st.sampled_from([None, 7, (5, 9), (1, 1)]),
    st.sampled_from([torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.sampled_from([None, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.booleans(),
    st.sampled_from(["BCTHW", "BTCHW"]),
)
def test_shapes_and_dtypes(batch, channels, source, num_frames, size, images_dtype, dtype, normalized, data_format):
    names = ("zoom", "affine", "cutmix", "color_jitter") if channels == 3 else ("zoom", "affine", "cutmix")
    images = torch.rand(batch, channels, *source)
    images = (images * 255).to(images_dtype) if images_dtype == torch.uint8 else images.to(images_dtype)
    if normalized and dtype == torch.uint8:
        dtype = None
    normalization = {"mean": (0.5,) * channels, "std": (0.25,) * channels} if normalized else {}
    clips = PMG(names, num_frames, size, dtype=dtype, data_format=data_format, **normalization)(images)
    h, w = source if size is None else (size, size) if isinstance(size, int) else size
    expected = (batch, channels, num_frames, h, w) if data_format == "BCTHW" else (batch, num_frames, channels, h, w)
    assert clips.shape == expected
    assert clips.dtype == (dtype or (torch.float32 if normalized and images_dtype == torch.uint8 else images_dtype))
    assert clips.is_contiguous()


def test_normalization_and_layout_by_their_formulas():
    ids = torch.arange(3)
    plain = PMG(num_frames=4, size=8)(IMAGES, ids=ids)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalized = PMG(num_frames=4, size=8, mean=mean, std=std, data_format="BTCHW")(IMAGES, ids=ids)
    for c in range(3):
        torch.testing.assert_close(normalized[:, :, c], (plain[:, c] - mean[c]) / std[c])
    bytes_ = (IMAGES * 255).round().to(torch.uint8)
    torch.testing.assert_close(
        PMG(num_frames=4, size=8, dtype=torch.float32)(bytes_, ids=ids), PMG(num_frames=4, size=8)(bytes_.float() / 255, ids=ids)
    )


def test_torchs_seed_governs_where_there_are_no_ids():
    pmg = PMG(num_frames=3, size=8)
    torch.manual_seed(5)
    first, second = pmg(IMAGES), pmg(IMAGES)
    torch.manual_seed(5)
    assert torch.equal(pmg(IMAGES), first)
    assert not torch.equal(first, second)


def test_surroundings_do_not_matter():
    """Default device, default dtype and autocast are for the user's model."""
    pmg = PMG(tuple(TRANSFORMS), 4, 8, crop=(0.3, 1.0))
    ids = torch.arange(3)
    expected = pmg(IMAGES, ids=ids)
    with torch.device("meta"):
        assert torch.equal(pmg(IMAGES, ids=ids), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pmg(IMAGES, ids=ids), expected)
    bytes_ = (IMAGES * 255).to(torch.uint8)
    mixed = PMG(tuple(TRANSFORMS), 4, 8, mix=VideoMix(), resampling="composed", mean=(0.5,) * 3, std=(0.25,) * 3)
    state = mixed.plan(IMAGES.shape, ids=ids).state_dict()
    expected_mixed = mixed(bytes_, ids=ids)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            assert torch.equal(pmg(IMAGES, ids=ids), expected)
            assert torch.equal(mixed(bytes_, ids=ids), expected_mixed)
            assert all(map(torch.equal, mixed.plan(IMAGES.shape, ids=ids).state_dict().values(), state.values()))
        finally:
            torch.set_default_dtype(torch.float32)


def test_no_state_is_written():
    pmg = PMG()
    before = dict(vars(pmg))
    pmg(torch.rand(2, 3, 224, 224))
    assert vars(pmg) == before
    assert pmg.state_dict() == {}


def test_seed_none_is_zero_and_negative_seeds_count():
    ids = torch.arange(3)
    assert torch.equal(PMG(size=8)(IMAGES, ids=ids), PMG(size=8, seed=0)(IMAGES, ids=ids))
    assert not torch.equal(PMG(size=8, seed=-1)(IMAGES, ids=ids), PMG(size=8, seed=1)(IMAGES, ids=ids))


def test_every_clip_draws_its_own_transform_by_weight():
    plan = PMG({"zoom": 1, Affine(degrees=(1, 1)): 3}, 4, 8).plan((4000, 3, 12, 14), ids=torch.arange(4000))
    names = list(TRANSFORMS)
    assert set(plan.transform.tolist()) == {names.index("zoom"), names.index("affine")}
    assert 0.72 < (plan.transform == names.index("affine")).double().mean() < 0.78
    assert not torch.equal(*plan.back.motion.homography[:2])


def test_default_is_the_papers_best_set():
    assert [transform.name for transform in PMG().transforms] == ["zoom", "affine"]
    assert PMG().num_frames == 16
    assert PMG().size == (224, 224)
    assert PMG().resampling == "recursive"


def test_crop_draws_the_first_view():
    plan = PMG(("identity",), 1, 32, crop=(0.25, 0.25)).plan((200, 3, 64, 64), ids=torch.arange(200))
    torch.testing.assert_close(plan.back.motion.homography[:, 0, 0, 0], torch.full((200,), 1.0), atol=0.02, rtol=0)
    shift = plan.back.motion.homography[:, 0, :2, 2]
    assert (shift.amax(0) - shift.amin(0) > 28).all()


class Blink(Transform):
    """A ninth transform: the image on even frames only, moved by nothing."""

    name = "blink"

    def make_params(self, draws):
        return {}

    def make_plan(self, params, view):
        motion = view.motion(view.still())
        color = motion.color.copy()
        color[:, 1::2] = 0
        return Motion(motion.homography, color)


def test_a_users_own_transform_works_without_being_registered():
    from dataclasses import dataclass

    blink = dataclass(frozen=True)(Blink)()
    pmg = PMG((blink, "zoom"), 4, None)
    clips = pmg(IMAGES.expand(3, 3, 12, 14), ids=torch.arange(3))
    plan = pmg.plan(IMAGES.shape, ids=torch.arange(3))
    assert -1 in plan.transform
    i = int((plan.transform == -1).nonzero()[0])
    torch.testing.assert_close(clips[i, :, 0], IMAGES[i], atol=1e-5, rtol=0)
    assert not clips[i, :, 1].any()
    assert plan.describe(i).startswith(f"clip {i}: custom")


WRONG_ARGUMENTS = [
    ({"transforms": ("zoom", "spin")}, ValueError, "unknown transform 'spin'; known are identity, sliding_window, zoom"),
    ({"transforms": "zoom"}, TypeError, "transforms must be a sequence or a mapping to weights, got 'zoom'; write ('zoom',)"),
    ({"transforms": 3}, TypeError, "transforms must be a sequence or a mapping to weights, got int"),
    ({"transforms": ()}, ValueError, "transforms must have at least one entry"),
    ({"transforms": (Zoom,)}, TypeError, "transforms must hold names or Transform objects, got"),
    ({"transforms": {"zoom": -1.0}}, ValueError, "transforms must have weights of at least 0, not all 0, got [-1.0]"),
    ({"transforms": {"zoom": 0.0}}, ValueError, "transforms must have weights of at least 0, not all 0"),
    ({"num_frames": 0}, ValueError, "num_frames must be from 1 to 4096, got 0"),
    ({"num_frames": np.float32(2)}, TypeError, "num_frames must be an int, got"),
    ({"num_frames": np.True_}, TypeError, "num_frames must be an int, got"),
    ({"num_frames": 2.0}, TypeError, "num_frames must be an int, got 2.0"),
    ({"num_frames": True}, TypeError, "num_frames must be an int, got True"),
    ({"size": 0}, ValueError, "size must be from 1 to 32768, got 0"),
    ({"size": (4, 5, 6)}, ValueError, "size must be an int, a pair (h, w) or None, got (4, 5, 6)"),
    ({"size": "big"}, TypeError, "size must be an int, got 'big'"),
    ({"resampling": "both"}, ValueError, "resampling must be one of 'recursive', 'composed', got 'both'"),
    ({"padding_mode": "wrap"}, ValueError, "padding_mode must be one of 'zeros', 'border', 'reflection', got 'wrap'"),
    ({"data_format": "TCHW"}, ValueError, "data_format must be one of 'BCTHW', 'BTCHW', got 'TCHW'"),
    ({"renderer": "opengl"}, ValueError, "renderer must be one of 'auto', 'fused', 'reference', got 'opengl'"),
    ({"crop": (0, 1)}, ValueError, "crop must satisfy 0 < min_scale <= max_scale <= 1, got (0, 1)"),
    ({"crop": (0.9, 0.2)}, ValueError, "crop must satisfy 0 < min_scale <= max_scale <= 1"),
    ({"crop": 0.5}, TypeError, "crop must be a pair (min_scale, max_scale) or None, got 0.5"),
    ({"crop": ("0.1", 1)}, TypeError, "crop must be a pair (min_scale, max_scale) or None, got ('0.1', 1)"),
    ({"crop": "ab"}, TypeError, "crop must be a pair (min_scale, max_scale) or None, got 'ab'"),
    ({"seed": 1.5}, TypeError, "seed must be an int or None, got 1.5"),
    ({"seed": 2**64}, ValueError, "seed must fit in 64 bits"),
    ({"mean": (0.5,) * 3}, ValueError, "mean and std must be given together"),
    ({"mean": (0.5,) * 2, "std": (0.5,) * 2}, ValueError, "mean and std must have one value per channel (1, 3 or 4), got 2 and 2"),
    (
        {"mean": (0.5,) * 3, "std": (0.5, 0.5, 0)},
        ValueError,
        "mean must be from 0 to 1, and std greater than 0 and at most 1, got mean=(0.5",
    ),
    ({"mean": (124, 116, 104), "std": (58, 57, 57)}, ValueError, "so divide statistics of 8-bit values by 255"),
    ({"mean": (0, 0, 0), "std": (255, 255, 255)}, ValueError, "so divide statistics of 8-bit values by 255"),
    ({"mean": (math.nan,) * 3, "std": (0.5,) * 3}, ValueError, "mean must be from 0 to 1"),
    ({"mean": 0.5}, TypeError, "mean must be a sequence of numbers, one per channel, got 0.5; for RGB images write mean=(0.5, 0.5, 0.5)"),
    ({"mean": (0.5,) * 3, "std": 0.2}, TypeError, "got 0.2; for RGB images write std=(0.2, 0.2, 0.2)"),
    ({"mean": (0.5,) * 3, "std": ("a",) * 3}, TypeError, "std must be a sequence of numbers, one per channel, got ('a'"),
    ({"mean": (0.5,) * 3, "std": (0.5,) * 3, "dtype": torch.uint8}, ValueError, "dtype must be a float type if mean and std are given"),
    ({"dtype": torch.int32}, ValueError, "dtype must be one of torch.uint8, torch.float16"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG_ARGUMENTS, ids=lambda v: str(v)[:40])
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PMG(**arguments)


@pytest.mark.parametrize("integer", [np.int64, np.uint8, torch.tensor], ids=lambda i: i.__name__)
def test_every_integer_and_sequence_type_is_accepted(integer):
    """numpy's integers, and lists that are not lists, such as Hydra's."""
    expected = PMG(num_frames=3, size=(8, 9), crop=(0.5, 0.75), seed=7, mean=(0.5,) * 3, std=(0.25,) * 3)
    given_ = PMG(
        UserList(["zoom", "affine"]),
        integer(3),
        UserList([integer(8), integer(9)]),
        crop=UserList([np.float32(0.5), 0.75]),
        seed=integer(7),
        mean=np.full(3, 0.5),
        std=UserList([0.25] * 3),
    )
    assert repr(given_) == repr(expected)
    ids = torch.arange(3)
    assert torch.equal(given_(IMAGES, ids=ids), expected(IMAGES, ids=ids))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_errors_outside_the_unit_interval_are_clamped(dtype):
    """Such as those of an antialiased resize, which leaves 1 + 2.4e-7 in float32."""
    error = 2 * torch.finfo(torch.float32 if dtype == torch.float64 else dtype).eps
    images = IMAGES.to(dtype)
    images[0, :, 3:7], images[1, :, 3:7] = 1 + error, -error
    before = images.clone()
    assert images.max() > 1
    pmg = PMG(("identity",), 2, None)
    assert torch.equal(pmg(images), pmg(images.clamp(0, 1)))
    assert torch.equal(images, before)


nan = IMAGES.clone()
nan[1, 2, 3, 4] = torch.nan
WRONG_IMAGES = [
    (IMAGES.numpy(), TypeError, "images must be a torch.Tensor of shape (B, C, H, W), got ndarray; pass torch.from_numpy(images)"),
    (IMAGES.permute(0, 2, 3, 1).numpy(), TypeError, "got ndarray; pass torch.from_numpy(images).permute(0, 3, 1, 2)"),
    (IMAGES[0].permute(1, 2, 0).numpy(), TypeError, "got ndarray; pass torch.from_numpy(image).permute(2, 0, 1)[None]"),
    (IMAGES[0, 0].numpy(), TypeError, "got ndarray; pass torch.from_numpy(image)[None, None]"),
    (list(IMAGES), TypeError, "got list; pass torch.stack(images) if they are of one shape"),
    (
        [Image.new("RGB", (14, 12))],
        TypeError,
        'pass torch.stack([torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) for image in',
    ),
    (("a.jpg", "b.jpg"), TypeError, "got tuple; pass torch.stack([pseudomotion.images.load_image(path) for path in images])"),
    ([], TypeError, "images must be a torch.Tensor of shape (B, C, H, W), got list"),
    (Image.new("RGB", (14, 12)), TypeError, 'got Image; pass torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]'),
    ("photo.jpg", TypeError, "got str; pass pseudomotion.images.load_image(path)[None]"),
    (IMAGES[0], ValueError, "images must have shape (B, C, H, W), got 3 dimensions: (3, 12, 14); for a single image pass image[None]"),
    (IMAGES[0].permute(1, 2, 0), ValueError, "(12, 14, 3); for a single image pass image.permute(2, 0, 1)[None]"),
    (IMAGES[0, 0], ValueError, "got 2 dimensions: (12, 14); for a single image pass image[None, None]"),
    (IMAGES[:, :, None], ValueError, "got 5 dimensions: (3, 3, 1, 12, 14); clips cannot be images; PMGAug and Mixup take clips"),
    (IMAGES[:, :2], ValueError, "images must have 1, 3 or 4 channels in (B, C, H, W), got 2 in (3, 2, 12, 14)"),
    (
        IMAGES.to("meta"),
        ValueError,
        "images are on the meta device, which holds no pixels; make clips of images on the CPU or a CUDA device",
    ),
    (IMAGES.to_sparse(), ValueError, "images must be dense, got the layout torch.sparse_coo; pass images.to_dense()"),
    (IMAGES > 0.5, TypeError, "images must be uint8 or float, got torch.bool; pass images.float()"),
    (
        IMAGES.permute(0, 2, 3, 1),
        ValueError,
        "images must have 1, 3 or 4 channels in (B, C, H, W), got 12 in (3, 12, 14, 3); for channels last pass images.per",
    ),
    (IMAGES[:, :, :0], ValueError, "images must have sides from 1 to 32768 pixels, got 0 x 14"),
    (IMAGES.long(), TypeError, "got torch.int64; pass images.to(torch.uint8) if their values are from 0 to 255"),
    (IMAGES * 255, ValueError, "float images must lie in [0, 1], got values from"),
    (IMAGES - 0.5, ValueError, "float images must lie in [0, 1], got values from -0.49"),
    (IMAGES.clone().index_fill_(3, torch.tensor(2), 1.00005), ValueError, "to 1.00004995; divide by 255, clamp, or pass uint8"),
    (nan, ValueError, "float images must lie in [0, 1], got values from nan to nan"),
]


@pytest.mark.parametrize(("images", "error", "message"), WRONG_IMAGES, ids=[w[2][:50] for w in WRONG_IMAGES])
def test_wrong_images(images, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PMG(num_frames=2, size=8)(images)


def test_what_messages_say_to_pass_is_accepted():
    """Every remedy for what is no tensor is run as it is written."""
    pmg = PMG(num_frames=2, size=8)
    expected = pmg((IMAGES[:1] * 255).round().to(torch.uint8), ids=torch.arange(1))
    array = (IMAGES[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    for given_ in (
        array,
        array[None],
        Image.fromarray(array),
        [array],
        [Image.fromarray(array)],
        list(torch.from_numpy(array).permute(2, 0, 1)[None]),
    ):
        with pytest.raises(TypeError) as caught:
            pmg(given_)
        line = str(caught.value).partition("; pass ")[2].partition(" if they")[0]
        mended = eval(line, {"torch": torch, "np": np, "image": given_, "images": given_})
        assert torch.equal(pmg(mended, ids=torch.arange(1)), expected), line


def test_wrong_ids():
    pmg = PMG(num_frames=2, size=8)
    for ids, error, message in [
        (torch.arange(4), ValueError, "ids must have shape (3,), one for each image, got (4,)"),
        (torch.arange(3).float(), TypeError, "ids must be an int64 tensor, got torch.float32; pass ids.long()"),
        (torch.arange(3, dtype=torch.int32), TypeError, "ids must be an int64 tensor, got torch.int32"),
        ([0, 1, 2], TypeError, "ids must be an int64 tensor, got list; pass torch.tensor(ids)"),
        (7, TypeError, "ids must be an int64 tensor, got int; pass torch.tensor([ids])"),
        (torch.tensor(3), ValueError, "ids must have shape (3,), one for each image, got ()"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            pmg(IMAGES, ids=ids)


def test_colors_need_three_channels():
    for name in ("fade", "color_jitter"):
        with pytest.raises(ValueError, match=rf"images must have 3 channels \(RGB\) for {name}, got 1"):
            PMG((name, "zoom"), 2, 8)(IMAGES[:, :1])
    plan = PMG(("fade",), 2, 8).plan(IMAGES.shape)
    with pytest.raises(ValueError, match=r"images must have 3 channels \(RGB\) for a plan with color maps, got 1"):
        PMG(("fade",), 2, 8).render(IMAGES[:, :1], plan)
    with pytest.raises(ValueError, match="mean has 1 values, but images have 3 channels"):
        PMG(num_frames=2, size=8, mean=(0.5,), std=(0.5,))(IMAGES)


def test_wrong_plans():
    pmg = PMG(num_frames=2, size=8)
    with pytest.raises(ValueError, match="plan is for 2 images of 12 x 14, got 3 of 12 x 14"):
        pmg.render(IMAGES, pmg.plan((2, 3, 12, 14)))
    with pytest.raises(ValueError, match="plan is for 3 images of 14 x 12, got 3 of 12 x 14"):
        pmg.render(IMAGES, pmg.plan((3, 3, 14, 12)))
    with pytest.raises(TypeError, match="plan must be a MotionPlan, got dict"):
        pmg.render(IMAGES, {})
    with pytest.raises(ValueError, match=r"images must have shape \(B, C, H, W\), got 3 dimensions"):
        pmg.plan((3, 12, 14))
    with pytest.raises(TypeError, match=r"shape must be four numbers .*, such as images.shape, got a tensor of shape \(3, 3, 12, 14\)"):
        pmg.plan(IMAGES)


def _tell(queue):
    try:
        checks.not_forked(torch.device("cuda"))
        queue.put("fine")
    except RuntimeError as error:
        queue.put(str(error))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_cuda_in_a_forked_worker():
    """The check itself, which needs no GPU; in a spawned process, and in this one, CUDA is fine."""
    answers = {}
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=_tell, args=(queue,))
        process.start()
        answers[method] = queue.get(timeout=120)
        process.join()
    assert answers["spawn"] == "fine"
    assert answers["fork"].startswith("images are on a CUDA device in a forked worker process, where CUDA does not work.")
    checks.not_forked(torch.device("cuda"))


class Clips(torch.utils.data.Dataset):
    pmg = PMG(("zoom", "affine"), 3, 8)

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return self.pmg(IMAGES[i % 3][None], ids=torch.tensor([i]))[0]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_dataloaders_workers_make_the_same_clips():
    here, there = (torch.cat(list(torch.utils.data.DataLoader(Clips(), batch_size=2, num_workers=n))) for n in (0, 2))
    assert torch.equal(here, there)


class Numbered(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return IMAGES[i % 3], i


def with_plan(items):
    images = torch.stack([image for image, _ in items])
    return images, Clips.pmg.plan(images.shape, ids=torch.tensor([i for _, i in items]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_dataloaders_workers_make_the_plans(workers):
    loader = torch.utils.data.DataLoader(Numbered(), batch_size=3, collate_fn=with_plan, num_workers=workers)
    for first, (images, plan) in zip((0, 3), loader, strict=True):
        assert torch.equal(Clips.pmg.render(images, plan), Clips.pmg(images, ids=torch.arange(first, first + 3)))


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_another_default_device_changes_nothing(resampling):
    ids = torch.arange(3)
    pmg = PMG(tuple(TRANSFORMS), 3, 8, resampling=resampling, mix=Mixup())
    expected = pmg(IMAGES, ids=ids)
    with torch.device("meta"):
        plan = pmg.plan(IMAGES.shape, ids=ids)
        assert plan.describe(0) == pmg.plan(IMAGES.shape, ids=ids).describe(0)
        assert torch.equal(pmg.render(IMAGES, plan), expected)
        assert proof._excerpt(plan, [0, 2])[0].device.type == "cpu"


def test_a_single_image_is_not_mixed_and_says_so_once():
    warn_alone.cache_clear()
    pmg = PMG(("zoom",), 2, 8, mix=Mixup())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for i in range(3):
            assert torch.equal(pmg(IMAGES[:1], ids=torch.tensor([i])), PMG(("zoom",), 2, 8)(IMAGES[:1], ids=torch.tensor([i])))
    (warning,) = caught
    assert "mix does nothing to a batch of one" in str(warning.message)
    assert "partner_images=" in str(warning.message)
    assert not torch.equal(pmg(IMAGES[:1], partner_images=IMAGES[1:2]), pmg(IMAGES[1:2], partner_images=IMAGES[:1]))
    pmg(IMAGES[:0])


def test_repr_names_everything():
    text = repr(PMG(("zoom",), seed=3))
    assert "Zoom(ratio=(1.025, 1.05))" in text
    assert "seed=3" in text
