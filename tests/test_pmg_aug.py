"""PMGAug: which clips it replaces, by what, and that it leaves the others alone; alone, on a real video, and in a DataLoader."""

import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader

from pseudomotion import PMG, Mixup, PMGAug, checks
from pseudomotion.images import ImageBank

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IDS = torch.arange(12)


class Plain:
    """A source of one-colored images: image k is k everywhere."""

    def __init__(self, n, size=(16, 18), start=0):
        self.images = (torch.arange(n) + start).to(torch.uint8)[:, None, None, None].expand(n, 3, *size)

    def __len__(self):
        return len(self.images)

    def get(self, ids):
        return self.images[ids % len(self)]


@pytest.mark.parametrize("data_format", ["BCTHW", "BTCHW"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_replaced_clips_are_pmgs_of_the_drawn_frames_and_the_rest_is_untouched(dtype, data_format):
    clips = (torch.rand(12, 3, 4, 16, 18) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    real = clips if data_format == "BCTHW" else clips.transpose(1, 2).contiguous()
    before = real.clone()
    pmg = PMG(num_frames=4, size=None, data_format=data_format, seed=4)
    for p in (0.0, 0.4, 1.0):
        out, info = PMGAug(pmg, p)(real, ids=IDS)
        frames = torch.stack([clips[i, :, k] for i, k in enumerate(info.frame)])
        pseudo = pmg(frames, ids=IDS)
        for i in range(12):
            assert torch.equal(out[i], pseudo[i] if info.pseudo[i] else before[i])
        assert (out.shape, out.dtype) == (real.shape, dtype)
        assert int(info.pseudo.sum()) in {0.0: [0], 0.4: range(2, 9), 1.0: [12]}[p]
        assert torch.equal(info.frame >= 0, info.pseudo)
    assert torch.equal(real, before)
    assert len(set(info.frame.tolist())) == 4


def test_normalized_clips_are_brought_back_for_pmg_and_stay_normalized():
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    images = torch.rand(12, 3, 4, 16, 18)
    clips = (images - mean[:, None]) / std[:, None]
    pmg = PMG(num_frames=4, size=None, mean=MEAN, std=STD)
    out, info = PMGAug(pmg, 1.0)(clips, ids=IDS)
    frames = torch.stack([clips[i, :, k] for i, k in enumerate(info.frame)])
    assert torch.equal(out, pmg((frames * std + mean).clamp(0, 1), ids=IDS))
    exact = torch.stack([images[i, :, k] for i, k in enumerate(info.frame)])
    torch.testing.assert_close(out, pmg(exact, ids=IDS), atol=1e-5, rtol=0)


def test_a_clip_is_the_same_in_every_batch():
    clips = torch.rand(12, 3, 4, 16, 18)
    aug = PMGAug(PMG(num_frames=4, size=(16, 18)), 0.5, images={"frames": 1, Plain(10): 1})
    whole, info = aug(clips, ids=IDS)
    order = torch.tensor([7, 2, 11, 0])
    part, part_info = aug(clips[order], ids=IDS[order])
    assert torch.equal(part, whole[order])
    for name in ("pseudo", "source", "frame", "image"):
        assert torch.equal(getattr(part_info, name), getattr(info, name)[order])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_of_several_sources_come_in_proportion(dtype):
    n = 600
    clips = torch.full((n, 3, 2, 16, 18), 255).to(dtype) / (1 if dtype == torch.uint8 else 255)
    low, high = Plain(50), Plain(50, start=100)
    aug = PMGAug(PMG(("identity",), 2, None), 0.75, images={"frames": 1, low: 2, high: 3})
    out, info = aug(clips.to(dtype), ids=torch.arange(n))
    value = (out[:, 0, 0, 0, 0].double() * (1 if dtype == torch.uint8 else 255)).round().long()
    expected = torch.where(info.source == 1, info.image, torch.where(info.source == 2, info.image + 100, 255))
    assert torch.equal(value, expected)
    counts = (info.source + 1).bincount() / n
    torch.testing.assert_close(counts, torch.tensor([0.25, 0.125, 0.25, 0.375]), atol=0.06, rtol=0)
    assert torch.equal(info.frame >= 0, info.source == 0)
    assert len(info.image[info.source == 1].unique()) > 40


def test_a_bank_serves_as_images():
    bank = ImageBank(Plain(7))
    out, info = PMGAug(PMG(("identity",), 2, None), 1.0, images=bank)(torch.zeros(5, 3, 2, 16, 18, dtype=torch.uint8))
    assert torch.equal(out[:, 0, 0, 0, 0].long(), info.image)


def test_pmg_may_mix():
    clips = torch.rand(12, 3, 4, 16, 18)
    pmg = PMG(num_frames=4, size=None, mix=Mixup())
    out, info = PMGAug(pmg, 0.5)(clips, ids=IDS)
    chosen = info.pseudo.nonzero()[:, 0]
    assert torch.equal(out[chosen], pmg(clips[chosen, :, info.frame[chosen]], ids=IDS[chosen]))


def test_on_a_video(stained_glass, tmp_path):
    from pseudomotion.video import read_clip, write_video

    frames = PMG(("sliding_window",), 80, 96)(stained_glass[None], ids=torch.tensor([0]))[0]
    write_video(tmp_path / "video.mp4", list(frames.permute(1, 2, 3, 0).numpy()), fps=20)
    clips = torch.stack([read_clip(tmp_path / "video.mp4", 16, 2, start, size=64) for start in (0.1, 0.4, 0.7, 0.9)])
    out, info = PMGAug(PMG(("affine",), size=64), 0.5)(clips, ids=torch.arange(4) + 4)
    assert 0 < int(info.pseudo.sum()) < 4
    for i in range(4):
        if info.pseudo[i]:
            assert not torch.equal(out[i], clips[i])
            difference = (out[i, :, 0].float() - clips[i, :, info.frame[i]].float()).abs().mean()
            assert difference < 1  # the first frame is the image itself
        else:
            assert torch.equal(out[i], clips[i])


class RealClips(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, k):
        return (torch.rand(3, 4, 16, 18, generator=torch.Generator().manual_seed(k)) * 255).to(torch.uint8), k


class Augmented:
    """As a collate function, so that PMGAug runs in the worker."""

    def __init__(self, aug):
        self.aug = aug

    def __call__(self, samples):
        clips, ids = zip(*samples, strict=True)
        return self.aug(torch.stack(clips), ids=torch.tensor(ids))[0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 4 workers on 2 cores
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_in_workers_it_gives_the_same_clips(num_workers):
    collate = Augmented(PMGAug(PMG(num_frames=4, size=None), 0.5))
    alone = torch.cat(list(DataLoader(RealClips(), batch_size=3, collate_fn=collate)))
    torch.rand(5)  # another state of the default generator must not matter
    assert torch.equal(alone, torch.cat(list(DataLoader(RealClips(), batch_size=2, collate_fn=collate, num_workers=num_workers))))


def test_cuda_in_a_forked_worker_is_explained(monkeypatch):
    """Without a GPU: a process that says it was forked, and a device that says it is CUDA."""
    monkeypatch.setattr(multiprocessing, "current_process", lambda: object.__new__(multiprocessing.context.ForkProcess))
    with pytest.raises(RuntimeError, match="clips are on a CUDA device in a forked worker process"):
        checks.not_forked(torch.device("cuda"), "clips")
    monkeypatch.setattr(checks, "not_forked", lambda device, what: pytest.fail(f"{what} checked") if what == "clips" else None)
    with pytest.raises(pytest.fail.Exception, match="clips checked"):
        PMGAug(PMG(num_frames=4))(torch.rand(1, 3, 4, 8, 8))


@pytest.mark.parametrize(
    ("pmg", "clips", "message"),
    [
        (PMG(num_frames=8), torch.rand(1, 3, 4, 224, 224), "clips must have 8 frames of 224 x 224"),
        (PMG(num_frames=4), torch.rand(1, 3, 4, 8, 8), "clips must have 4 frames of 224 x 224"),
        (PMG(num_frames=4, size=None, data_format="BTCHW"), torch.rand(1, 4, 5, 8, 8), "clips must have 1, 3 or 4 channels"),
        (PMG(num_frames=4, size=None, dtype=torch.float16), torch.rand(1, 3, 4, 8, 8), "clips must be torch.float16"),
        (PMG(num_frames=4, size=None, mean=MEAN, std=STD), torch.zeros(1, 3, 4, 8, 8, dtype=torch.uint8), "must be normalized floats"),
        (PMG(num_frames=4, size=None), torch.rand(3, 4, 8, 8), "clips must have shape"),
        (PMG(num_frames=4, size=None), torch.rand(1, 3, 4, 8, 8) * 3 - 1, r"float images must lie in \[0, 1\]"),
    ],
)
def test_errors_name_what_is_wrong(pmg, clips, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PMGAug(pmg, 1.0)(clips)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pmg": torch.nn.Identity()}, "pmg must be a PMG"),
        ({"p": 1.1}, "p must be from 0 to 1"),
        ({"images": "folder"}, "images must be None, an image source"),
        ({"images": {"frames": 0}}, "images must have weights of at least 0, not all 0"),
        ({"images": {"frames": -1}}, "images must have weights of at least 0"),
    ],
)
def test_errors_of_the_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PMGAug(**{"pmg": PMG()} | arguments)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="images must give images of"):
        PMGAug(PMG(num_frames=2, size=None), 1.0, images=Plain(3, (8, 8)))(torch.rand(2, 3, 2, 16, 18))
