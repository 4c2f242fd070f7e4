"""What pre-training reads, and which ids it trains on."""

import dataclasses
import pickle
import shutil
import tarfile

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import save_cutout
from PIL import Image

from pseudomotion import PMG, Mixup, MotionPlan
from pseudomotion.images import ImageBank, ImageFolder
from pseudomotion.images.synthetic import Noise, VisualAtom
from pseudomotion.source import FileSource, read_batches
from pseudomotion.train.comparators import MoSIClips
from pseudomotion.train.engine.stream import Parts, Steps
from pseudomotion.train.pretrain import PretrainOptions, make_task
from pseudomotion.train.sources import CROP_SCALES, MultiScaleClips, Subset, WithPartners, WithPlans, multi_scale_crop, open_images
from pseudomotion.train.videomae.model import IMAGENET_MEAN, IMAGENET_STD, normalize
from pseudomotion.video import write_video

CPU = torch.device("cpu")


class Numbers:
    """A source whose items are their numbers."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def get(self, ids):
        return ids % self.n


@given(n=st.integers(1, 9), batch=st.integers(1, 12), steps=st.integers(1, 8), seed=st.integers(0, 3))
def test_steps_are_epochs_end_to_end(n, batch, steps, seed):
    """Cut anywhere, the row of all ids holds every item once per epoch, and counts on from epoch to epoch."""
    row = torch.cat([Steps(Numbers(n), batch, seed)[step] for step in range(steps)])
    assert len(row) == batch * steps
    for epoch in range(len(row) // n):
        assert sorted(row[epoch * n : (epoch + 1) * n].tolist()) == list(range(epoch * n, (epoch + 1) * n))


def test_order_differs_from_epoch_to_epoch_and_seed_to_seed():
    first, second, other = Steps(Numbers(50), 50, 0)[0], Steps(Numbers(50), 50, 0)[1] - 50, Steps(Numbers(50), 50, 1)[0]
    assert not torch.equal(first, torch.arange(50))
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_processes_and_parts_share_a_step_out(world_size, accumulate):
    steps = Steps(Numbers(10), 12, 0)
    parts = [Parts(steps, 3, 7, accumulate, rank, world_size) for rank in range(world_size)]
    for step in range(3, 7):
        positions = range((step - 3) * accumulate, (step - 2) * accumulate)
        together = torch.cat([own[k] for own in parts for k in positions])
        assert all(len(own[k]) == 12 // world_size // accumulate for own in parts for k in positions)
        assert sorted(together.tolist()) == sorted(steps[step].tolist())
    assert all(len(own) == 4 * accumulate for own in parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five classes of 1 to 5 images, each image of a shade of its own."""
    root = tmp_path_factory.mktemp("images")
    for label in range(5):
        (root / f"class{label}").mkdir()
        for k in range(label + 1):
            Image.new("RGB", (24, 24), (50 * label, 40 * k, 7)).save(root / f"class{label}" / f"{k}.png")
    return root


def test_a_subset_takes_from_all_classes_alike(folder):
    source = ImageFolder(folder, 8)
    subset = Subset(source, 9, seed=0)
    images = subset.get(torch.arange(9))
    labels = (images[:, 0, 0, 0] // 50).tolist()
    assert [labels.count(label) for label in range(5)] == [1, 2, 2, 2, 2]
    assert len({tuple(image[:, 0, 0].tolist()) for image in images}) == 9
    assert torch.equal(subset.get(torch.tensor([2 + 9])), images[2:3])


def test_a_subset_depends_on_its_seed_and_has_a_size_that_exists(folder):
    source = ImageFolder(folder, 8)
    chosen = {tuple(Subset(source, 7, seed).chosen.tolist()) for seed in range(5)}
    assert len(chosen) > 1
    with pytest.raises(ValueError, match="limit must be from 1 to the 15 images there are, got 16"):
        Subset(source, 16, 0)


class Numbered(FileSource):
    """Images that show their id, not only their index."""

    def __len__(self):
        return 5

    def read(self, index, id_):
        assert index == id_ % 5
        return torch.full((3, 2, 2), id_, dtype=torch.uint8)


def test_a_subset_keeps_the_epoch_of_an_id():
    """Where every id has an image of its own, the same few are shown instead."""
    subset = Subset(Numbered(), 2, 0)
    shown = subset.get(torch.arange(6))[:, 0, 0, 0]
    assert shown.tolist() == [int(index) + 5 * epoch for epoch in range(3) for index in subset.chosen]
    noise = Subset(Noise(size=8), 2, 0)
    assert torch.equal(noise.get(torch.arange(4)), noise.get(torch.arange(2)).repeat(2, 1, 1, 1))


def test_a_subset_takes_from_some_classes(tmp_path):
    for label, count in enumerate((5, 3, 4, 6)):
        (tmp_path / str(label)).mkdir()
        for k in range(count):
            Image.fromarray(np.full((8, 8, 3), 10 * label + k, np.uint8)).save(tmp_path / str(label) / f"{k}.png")
    source = ImageFolder(tmp_path, 8)

    def counts(limit, classes=None, seed=0):
        subset = Subset(source, limit, seed, classes=classes)
        shown = subset.get(torch.arange(len(subset)))[:, 0, 0, 0].tolist()  # ten times the class, and the number within it
        assert len(set(shown)) == len(shown)
        return np.bincount([value // 10 for value in shown], minlength=4).tolist()

    two, three = counts(6, 2), counts(9, 3)
    assert sorted(two) == [0, 0, 3, 3]
    assert sorted(three) == [0, 3, 3, 3]
    assert all(more for few, more in zip(two, three, strict=True) if few), "fewer classes are not among more"
    assert len({tuple(counts(6, 2, seed)) for seed in range(20)}) > 1
    assert counts(12) == [3, 3, 3, 3]
    assert counts(None, 4) == [5, 3, 4, 6]
    with pytest.raises(ValueError, match="classes must be from 1 to the 4 there are, got 5"):
        counts(4, 5)
    with pytest.raises(ValueError, match="classes must be None for images that have no classes, got 2"):
        Subset(Noise(size=8), 4, 0, classes=2)


def test_a_subset_of_made_up_categories_takes_from_all_alike():
    source = VisualAtom(categories=7, size=16)
    subset = Subset(source, 21, seed=0)
    assert (subset.chosen % 7).bincount().tolist() == [3] * 7
    assert not torch.equal(subset.chosen, torch.arange(21)), "the first ones are no random ones"


def test_partners_come_from_the_whole_source_and_depend_on_the_id_alone(folder):
    source = WithPartners(ImageFolder(folder, 8), seed=5)
    pairs = source.get(torch.arange(15))
    assert torch.equal(pairs[:, 0], source.source.get(torch.arange(15)))
    assert torch.equal(source.get(torch.tensor([11]))[0], pairs[11])
    assert sum(not torch.equal(own, partner) for own, partner in pairs) > 10


def test_partners_are_those_whose_motion_is_mixed_in(folder):
    """A clip mixed with its partner is the blend of two clips: its own, and that of the partner's id."""
    source = WithPartners(ImageFolder(folder, 16), seed=5)
    ids = torch.arange(6)
    plain, mixed = (PMG(num_frames=4, size=16, seed=5, mix=mix) for mix in (None, Mixup()))
    pairs = source.get(ids).float() / 255
    clips = mixed(pairs[:, 0], ids=ids, partner_images=pairs[:, 1])
    plan = mixed.plan((6, 3, 16, 16), ids=ids, partner_images=True)
    weight = plan.blend.weight[:6, None, None, None, None]
    assert (weight > 0.02).all()
    others = (clips - (1 - weight) * plain(pairs[:, 0], ids=ids)) / weight
    rest = (others.amax((3, 4)) - pairs[:, 1].amax((2, 3))[:, :, None]).abs()
    assert (rest < 1e-3).all()  # of one shade, so the partner's clip shows its shade in every frame


@pytest.mark.parametrize("partners", ["source", "batch"])
def test_plans_are_made_by_the_processes_that_read(partners, folder, monkeypatch):
    """The training process only renders, whether the plan came from a worker or from itself."""
    options = PretrainOptions(out="o", images=[str(folder)], model="micro", partners=partners, seed=5)
    task, ids = make_task(options, CPU), torch.tensor([3, 17, 8, 44])
    size, frames = task.model.config.image_size, task.model.config.num_frames
    pmg = PMG(options.transforms, frames, size, crop=tuple(options.crop), mix=Mixup(), seed=5, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    pairs = WithPartners(open_images(options, round(size * 8 / 7), CPU), 5).get(ids)
    expected = pmg(pairs[:, 0], ids=ids, partner_images=pairs[:, 1] if partners == "source" else None).transpose(1, 2)
    batches = [next(read_batches(task.source, [ids], workers))[0] for workers in (0, 1)]
    monkeypatch.setattr(PMG, "plan", None)
    for items in batches:
        assert torch.equal(task.inputs(items, ids, CPU).pixels, expected)


def test_plans_for_a_gpu_are_packed_for_its_kernels(folder):
    """In the processes that read, which need no GPU; and pinned, where the loader pins."""
    pytest.importorskip("triton", reason="the fused renderer needs Triton, which is not installed")
    pmg, ids = PMG(num_frames=4, size=16, mix=Mixup()), torch.arange(6)
    images = ImageFolder(folder, 16)
    planned = WithPlans(WithPartners(images, 0), pmg, torch.device("cuda")).get(ids)
    expected = pmg.prepare((6, 3, 16, 16), ids=ids, partner_images=True)
    assert torch.equal(planned.plan.packed.table, expected.packed.table)
    assert planned.plan.packed[1:] == expected.packed[1:]
    assert isinstance(WithPlans(images, pmg, CPU).get(ids).plan, MotionPlan)


def test_where_images_come_from(folder, tmp_path):
    assert len(opened([str(folder)])) == 15
    assert isinstance(open_images(PretrainOptions(out="o", source="noise"), 8, CPU), Noise)
    bank = opened([str(folder)], bank=True, limit=5)
    assert isinstance(bank, ImageBank)
    assert len(bank) == 5
    bank.save(tmp_path / "bank.safetensors")
    assert torch.equal(opened([str(tmp_path / "bank.safetensors")]).images, bank.images)
    for wrong in ({}, {"images": [str(folder)], "source": "noise"}):
        with pytest.raises(ValueError, match="exactly one of --images, --source, --videos"):
            open_images(PretrainOptions(out="o", **wrong), 8, CPU)


def test_images_of_several_kinds_in_a_row(folder, tmp_path):
    """A folder, a bank, shards, and a dataset on the disk: every image once an epoch, classes kept apart, ids with their epoch."""
    datasets = pytest.importorskip("datasets")
    shades = {"bank": 91, "shard": 92, "rows": 93}
    ImageBank(Flat(3, shades["bank"])).save(tmp_path / "bank.safetensors")
    for k in range(2):
        with tarfile.open(tmp_path / f"s-{k}.tar", "w") as tar:
            for name in (f"{k}a.png", f"{k}a.seg.png", f"{k}b.png", f"{k}.json"):
                Image.new("RGB", (9, 9), (shades["shard"], k, 0)).save(tmp_path / "one.png")
                tar.add(tmp_path / "one.png", name)
    Image.new("RGB", (9, 9), (shades["rows"],) * 3).save(tmp_path / "row.png")
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / "row.png")] * 2}).cast_column("image", datasets.Image())
    rows.save_to_disk(tmp_path / "rows")
    names = [folder, tmp_path / "bank.safetensors", tmp_path / "s-{0..1}.tar", tmp_path / "rows"]
    source = opened([str(name) for name in names])
    assert len(source) == 15 + 3 + 4 + 2
    shown = source.get(torch.arange(24))[:, 0, 0, 0].tolist()
    assert shown[15:] == [91] * 3 + [92] * 4 + [93] * 2
    assert torch.equal(source.get(torch.tensor([23 + 24, 0, 16]))[:, 0, 0, 0], torch.tensor([93, shown[0], 91]))
    assert pickle.loads(pickle.dumps(source)).get(torch.tensor([16]))[0, 0, 0, 0] == 91
    few = Subset(source, 6, 0)
    assert len({*few.get(torch.arange(6))[:, 0, 0, 0].tolist()} & {91, 92, 93}) >= 1, "a source is a class beside the folder's five"
    with pytest.raises(ValueError, match="images must have one size: a bank has 8 x 8, the others get 9 x 9; say --image-size 8"):
        opened([str(name) for name in names], size=9)


def test_shards_that_cannot_be_read_by_number_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(__file__, "x.png")
    with pytest.raises(ValueError, match=r"shards must be uncompressed to be read by index; write \"stream:\" before their name"):
        opened([str(tmp_path / "a.tar.gz")])
    with pytest.raises(FileNotFoundError):
        opened([str(tmp_path / "none-{0..1}.tar")])


class Flat:
    """Images of one shade."""

    def __init__(self, n, shade):
        self.n, self.shade = n, shade

    def __len__(self):
        return self.n

    def get(self, ids):
        return torch.full((len(ids), 3, 8, 8), self.shade, dtype=torch.uint8)


def opened(images, size=8, **options):
    return open_images(PretrainOptions(out="o", images=images, **options), size, CPU)


def test_normalized_clips_are_those_of_numpy():
    clips = torch.randint(0, 256, (2, 3, 4, 5, 6), dtype=torch.uint8)
    mean, std = (np.reshape(values, (3, 1, 1, 1)) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = (clips.double().numpy() / 255 - mean) / std
    np.testing.assert_allclose(normalize(clips).numpy(), expected.transpose(0, 2, 1, 3, 4), atol=1e-5)


def test_multi_scale_crops_are_windows_of_the_published_sides():
    """A ramp shows which window was cut: its least and largest value, and its slope."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 2, 160, 200).contiguous()
    seen = set()
    for scale in np.linspace(0.01, 0.99, 10):
        for place in np.linspace(0.01, 0.99, 13):
            frames = multi_scale_crop(ramp, (40, 40), float(scale), float(place))
            assert frames.shape == (3, 2, 40, 40)
            width = (int(frames[0, 0, 0, -5]) - int(frames[0, 0, 0, 4])) / 31 * 40
            seen.add(min(CROP_SCALES, key=lambda share: abs(share * 160 - width)))
            assert min(abs(share * 160 - width) for share in CROP_SCALES) < 4
    assert seen == set(CROP_SCALES)


def test_a_crop_is_opencvs():
    frame = torch.randint(0, 256, (3, 1, 60, 80), dtype=torch.uint8)
    frame = torch.from_numpy(cv2.GaussianBlur(frame[:, 0].permute(1, 2, 0).numpy(), (7, 7), 2)).permute(2, 0, 1)[:, None]
    cut = multi_scale_crop(frame, (30, 30), 0.01, 0.01)[:, 0]  # the whole short side, at the left top corner
    expected = cv2.resize(frame[:, 0, :, :60].permute(1, 2, 0).contiguous().numpy(), (30, 30), interpolation=cv2.INTER_AREA)
    assert np.abs(cut.permute(1, 2, 0).numpy().astype(int) - expected).mean() < 3


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    draw = np.random.default_rng(0)
    for k in range(3):
        still = cv2.GaussianBlur(draw.integers(0, 256, (48, 64, 3), dtype=np.uint8), (9, 9), 3)
        write_video(root / f"{k}.mp4", [np.roll(still, 2 * t, 1) for t in range(12)], fps=12)
    (root / "list.csv").write_text("".join(f"{root / f'{k}.mp4'} {k}\n" for k in range(3)))
    return root / "list.csv"


def test_real_clips_are_cropped_anew_for_every_id(videos):
    source = MultiScaleClips(str(videos), 4, 2, 32, seed=0)
    clips = source.get(torch.tensor([0, 3, 0, 1]))
    assert clips.shape == (4, 3, 4, 32, 32)
    assert torch.equal(clips[0], clips[2])
    assert not torch.equal(clips[0], clips[1])
    assert (clips[:, :, 1:].float() - clips[:, :, :-1].float()).abs().mean() > 2


def test_an_epoch_of_mosi_shows_every_image_once(folder):
    """With all speeds alike, and over nine epochs every image at every speed; a second run sees the same."""
    images = ImageFolder(folder, 40)
    source = MoSIClips(images, 4, 14, seed=0)
    n = len(images)
    assert len(source) == n == 15
    labels = torch.stack([source.get(torch.arange(n) + epoch * n)[1] for epoch in range(9)])
    assert all(row.bincount(minlength=9).min() >= n // 9 for row in labels)
    assert torch.equal(labels.sort(0).values, torch.arange(9)[:, None].expand(9, n))
    clips, found = source.get(torch.tensor([3, n - 1, n + 3, n]))  # across the end of an epoch
    assert found.tolist() == [labels[0, 3], labels[0, n - 1], labels[1, 3], labels[1, 0]]
    assert clips.shape == (4, 3, 4, 14, 14)
    assert torch.equal(source.get(torch.tensor([n + 3]))[0][0], clips[2])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_broken_images_are_named_where_mosi_reads_them(folder, tmp_path, num_workers):
    own = shutil.copytree(folder, tmp_path / "own")
    (own / "a.png").write_bytes(b"broken")
    clips = MoSIClips(ImageFolder(own, 16), num_frames=2, size=8, seed=0)
    with pytest.warns(UserWarning, match=r"skipped 1 broken files:\n.*a\.png"):
        list(read_batches(clips, [torch.arange(len(clips))], num_workers))


@pytest.mark.parametrize("clips", ["pmg", "videos", "pmg-aug", "perlin", "mosi"])
@pytest.mark.parametrize("mix", ["none", "mixup", "videomix"])
def test_every_kind_of_clips_gives_a_loss(folder, videos, clips, mix):
    given = {"videos": str(videos)} if clips in ("videos", "pmg-aug") else {} if clips == "perlin" else {"images": [str(folder)]}
    options = PretrainOptions(
        out="o", clips=clips, mix=mix, model="tiny", frame_size=16, num_frames=4, stride=1, aug_images=[str(folder), "noise"], **given
    )
    torch.manual_seed(0)
    task = make_task(options, torch.device("cpu"))
    ids = torch.arange(6)
    inputs = task.inputs(task.source.get(ids), ids, torch.device("cpu"))
    assert inputs[0].shape == (6, 4, 3, 16, 16)
    assert inputs[0].dtype == torch.float32
    loss = task.objective(*inputs)
    expected = (0.3, 2.0) if clips != "mosi" else (1.9, 2.6)  # a model that knows nothing: near 1, less for flat images; near log 9
    assert expected[0] < loss.item() < expected[1]
    loss.backward()
    assert all(weight.grad is not None for weight in task.model.parameters())


def test_clips_do_not_depend_on_the_batch_unless_partners_do(folder):
    for partners, alike in (("source", True), ("batch", False)):
        options = PretrainOptions(out="o", images=[str(folder)], partners=partners, model="tiny", frame_size=16, num_frames=4)
        task = make_task(options, torch.device("cpu"))
        ids = torch.arange(8)
        whole, part = (task.inputs(task.source.get(chosen), chosen, torch.device("cpu")).pixels for chosen in (ids, ids[5:]))
        assert torch.allclose(whole[5:], part, atol=1e-5) is alike


@pytest.mark.parametrize(
    "more", [{}, {"mix": "none"}, {"textures": ["noise"]}, {"partners": "batch", "mix": "none"}, {"objects": "cutouts"}]
)
def test_clips_with_objects_do_not_depend_on_the_batch(folder, tmp_path, more):
    """By default objects show images of the source, chosen by the seed, also where nothing is read but a clip's own image."""
    if "objects" in more:
        for k in range(9):
            save_cutout(tmp_path / "cutouts" / f"{k}.png", k)
        more = more | {"textures": [str(tmp_path / "cutouts")]}
    sizes = {"model": "tiny", "frame_size": 16, "num_frames": 4, "objects": "mixed"}
    options = PretrainOptions(out="o", images=[str(folder)], num_textures=6, **(sizes | more))
    task, ids = make_task(options, CPU), torch.arange(8)
    assert task.textures.shape[1] == (4 if options.objects == "cutouts" else 3)
    whole, part = (task.inputs(task.source.get(chosen), chosen, CPU).pixels for chosen in (ids, ids[5:]))
    torch.testing.assert_close(whole[5:], part, rtol=0, atol=1e-5)
    again = make_task(options, CPU)
    assert torch.equal(task.textures, again.textures)
    assert not torch.equal(task.textures, make_task(dataclasses.replace(options, seed=1), CPU).textures)
    if "textures" not in more:
        images = ImageFolder(folder, 18).get(torch.arange(15))
        assert all((images == texture).flatten(1).all(1).any() for texture in task.textures)
    bare = make_task(dataclasses.replace(options, objects=None, textures=None), CPU)
    shown = (whole != bare.inputs(bare.source.get(ids), ids, CPU).pixels).flatten(2).float().mean((1, 2))
    assert (shown > 0.005).all()


def test_textures_are_read_from_a_stream_and_for_pmg_aug_from_the_videos(folder, videos, tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for path in sorted(folder.glob("*/*.png")):
            tar.add(path, f"{path.parent.name}{path.name}")
    sizes = {"out": "o", "objects": "yu2024", "num_textures": 5, "model": "tiny", "frame_size": 16, "num_frames": 4}
    streamed = make_task(PretrainOptions(images=[f"stream:{tmp_path / 's.tar'}"], **sizes), CPU)
    assert streamed.textures.shape == (5, 3, 18, 18)
    options = PretrainOptions(clips="pmg-aug", videos=str(videos), stride=1, mix="none", **sizes)
    task, ids = make_task(options, CPU), torch.arange(12)
    assert len(task.textures) == 3  # a frame of every video
    whole, part = (task.inputs(task.source.get(chosen), chosen, CPU).pixels for chosen in (ids, ids[7:]))
    torch.testing.assert_close(whole[7:], part, rtol=0, atol=1e-5)


def test_real_clips_stay_whole_where_pseudo_motion_is_mixed(videos):
    """PMG Aug: what is replaced is mixed, what is not is as without it."""
    ids, pixels = torch.arange(24), {}
    for clips, mix in (("videos", "none"), ("pmg-aug", "none"), ("pmg-aug", "mixup")):
        options = PretrainOptions(out="o", clips=clips, mix=mix, videos=str(videos), model="tiny", frame_size=16, num_frames=4, stride=1)
        task = make_task(options, torch.device("cpu"))
        pixels[clips, mix] = task.inputs(task.source.get(ids), ids, torch.device("cpu")).pixels
    real = (pixels["pmg-aug", "none"] == pixels["videos", "none"]).flatten(1).all(1)
    mixed = (pixels["pmg-aug", "mixup"] != pixels["pmg-aug", "none"]).flatten(1).any(1)
    assert 5 < real.sum() < 19
    assert torch.equal(mixed, ~real)


def test_so_many_clips_of_perlin_noise():
    def source(limit):
        return make_task(
            PretrainOptions(out="o", clips="perlin", limit=limit, model="tiny", frame_size=16, num_frames=4), torch.device("cpu")
        ).source

    some, everything = source(600), source(None)
    assert (len(some), len(everything)) == (600, 576 * 50)
    assert torch.equal(some.get(torch.tensor([599, 600])), everything.get(torch.tensor([599, 0])))
    with pytest.raises(ValueError, match="limit must be from 1 to the 28800 clips there are, got 28801"):
        source(28_801)
