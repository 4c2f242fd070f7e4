"""Image sources on good files and broken ones; that ids, batches, workers and ranks make no difference."""

import errno
import io
import os
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import epoch, picture, same, save
from PIL import Image

from pseudomotion import PMG, Mixup
from pseudomotion.images import ImageBank, ImageFolder, VideoFrames, batches, load_image
from pseudomotion.source import FileSource
from pseudomotion.video import write_video


@pytest.fixture
def folder(tmp_path):
    """Twelve good images in classes of 2, 4 and 6."""
    for name, n in (("ant", 2), ("bee", 4), ("cat", 6)):
        for k in range(n):
            save(tmp_path / "images" / name / f"{k}.png", 10 * n + k)
    return tmp_path / "images"


def huge_header():
    """A PNG that says it is 60,000 x 60,000."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.fixture
def mess(tmp_path):
    """Every odd kind of file that is an image all the same, and every kind that is none. Returns the folder and the bad names."""
    root = tmp_path / "mess"
    save(root / "00_plain.jpg", 1)
    save(root / "01_grey.png", 2, "L")
    save(root / "02_palette.png", 3, "P")
    save(root / "03_cmyk.jpg", 4, "CMYK")
    save(root / "04_alpha.png", 5, "RGBA")
    save(root / "05_bits.png", 6, "1")
    Image.fromarray(picture(7)[..., 0].astype(np.uint16) * 257).save(root / "06_deep.png")
    Image.fromarray(picture(8)).save(root / "07_moving.gif", save_all=True, append_images=[Image.fromarray(picture(9))])
    Image.fromarray(picture(8)).save(root / "08_moving.webp", save_all=True, append_images=[Image.fromarray(picture(9))])
    save(root / "09_truly_a_png.png")
    (root / "09_truly_a_png.png").rename(root / "09_truly_a_png.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(root / "10_turned.jpg", 1, exif=turned)
    data = io.BytesIO()
    Image.fromarray(picture(3, (200, 300))).save(data, "jpeg")
    (root / "20_truncated.jpg").write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    (root / "21_empty.png").write_bytes(b"")
    (root / "22_text.jpg").write_text("no image at all")
    (root / "23_huge.png").write_bytes(huge_header())
    (root / "notes.txt").write_text("not even a name of an image")
    (root / ".hidden.png").write_bytes(b"")
    return root, ["20_truncated.jpg", "21_empty.png", "22_text.jpg", "23_huge.png"]


def test_files_come_in_order_and_are_resized_as_load_image_does(folder):
    source = ImageFolder(folder, (16, 12))
    assert len(source) == 12
    assert source.classes == ["ant", "bee", "cat"]
    assert source.labels.tolist() == [0] * 2 + [1] * 4 + [2] * 6
    images = source.get(torch.arange(24))
    assert (images.shape, images.dtype) == ((24, 3, 16, 12), torch.uint8)
    for i in range(24):
        assert torch.equal(images[i], load_image(source.paths[i % 12], (16, 12)))


def test_resizing_is_antialiased_and_cuts_the_middle(tmp_path):
    """Against OpenCV's mean over blocks; a chequerboard turns grey, whichever decoder shrinks it."""
    import cv2

    board = ((np.mgrid[:240, :400].sum(0) % 2) * 255).astype(np.uint8)
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8), (400, 240), interpolation=cv2.INTER_CUBIC)
    for name, pixels, options in (("board.png", board, {}), ("smooth.png", smooth, {}), ("smooth.jpg", smooth, {"quality": 98})):
        Image.fromarray(pixels).save(tmp_path / name, **options)
    grey = load_image(tmp_path / "board.png", (48, 48))
    assert (grey.float() - 127.5).abs().max() < 4
    expected = cv2.resize(smooth[:, 80:320], (48, 48), interpolation=cv2.INTER_AREA)
    for name in ("smooth.png", "smooth.jpg"):
        difference = np.abs(load_image(tmp_path / name, (48, 48)).permute(1, 2, 0).numpy().astype(int) - expected)
        assert difference.mean() < 3, name


def test_every_odd_image_is_read_and_every_bad_file_reported_once(mess):
    root, bad = mess
    source = ImageFolder(root, 16)
    with pytest.warns(UserWarning, match="skipped 4 broken files") as caught:
        images = epoch(source, 4)
    assert len(caught) == 1
    assert sorted(images) == list(range(len(source)))
    text = str(caught[0].message)
    for name in bad:
        assert text.count(name) == 1
        assert source.report().count(name) == 1
    assert {source.paths[i].name for i in source.skipped} == set(bad)
    for i, path in enumerate(source.paths):
        expected = load_image(path, (16, 16)) if i not in source.skipped else load_image(source.paths[0], (16, 16))
        assert torch.equal(images[i], expected), path
    assert same(epoch(source, 4), images)  # and says nothing the second time


def test_colors_survive(mess):
    """What a mode can hold comes back as it was; transparency is laid on white."""
    root, _ = mess
    source = ImageFolder(root, (20, 30))
    images = {path.name: source.get(torch.tensor([i]))[0].permute(1, 2, 0).numpy().astype(int) for i, path in enumerate(source.paths[:10])}
    assert np.abs(images["00_plain.jpg"] - picture(1)).mean() < 6
    assert np.abs(images["03_cmyk.jpg"] - picture(4)).mean() < 6
    assert np.array_equal(images["04_alpha.png"], picture(5))
    assert np.array_equal(images["06_deep.png"], picture(7)[..., :1].repeat(3, -1))
    assert np.abs(images["08_moving.webp"] - picture(8)).mean() < 10


def test_strict_raises_at_the_first(mess):
    root, bad = mess
    source = ImageFolder(root, 16, strict=True)
    with pytest.raises(ValueError, match=bad[0]):
        epoch(source, 4, shuffle=False)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 4 workers on 2 cores
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_workers_deliver_the_same_and_their_findings(mess, num_workers):
    root, bad = mess
    alone, shared = ImageFolder(root, 16), ImageFolder(root, 16)
    with pytest.warns(UserWarning, match="skipped 4"):
        expected = epoch(alone, 3, epoch=2)
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match="skipped 4") as caught:
        assert same(epoch(shared, 5, epoch=2, num_workers=num_workers), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert shared.skipped == alone.skipped
    assert all(str(caught[-1].message).count(name) == 1 for name in bad)


def test_clips_do_not_depend_on_batches_or_workers(folder):
    source, pmg = ImageFolder(folder, 24), PMG(num_frames=3, size=16)

    def clips(batch_size, num_workers):
        loader = batches(source, batch_size, epoch=1, num_workers=num_workers)
        return {int(i): clip for images, ids in loader for i, clip in zip(ids, pmg(images, ids=ids), strict=True)}

    expected = clips(12, 0)
    assert sorted(expected) == list(range(12, 24))
    for batch_size, num_workers in ((1, 0), (5, 1), (4, 2)):
        assert same(clips(batch_size, num_workers), expected)


def test_ranks_share_an_epoch_without_overlap_or_loss(folder):
    source = ImageFolder(folder, 16)
    whole = epoch(source, 4, epoch=3)
    for world_size in (2, 5, 13):
        parts = [epoch(source, 4, epoch=3, rank=rank, world_size=world_size, even=False) for rank in range(world_size)]
        assert sum(map(len, parts)) == 12
        assert same({i: item for part in parts for i, item in part.items()}, whole)


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 2), (2, 5), (3, 4), (4, 11)])
def test_every_rank_gets_as_many_batches(folder, batch_size, world_size):
    """So that no rank of a distributed training waits for another; what is left out changes with the epoch."""
    source, missed = ImageFolder(folder, 16), set()
    for number in range(40):
        ranks = [list(batches(Echo(12), batch_size, epoch=number, rank=r, world_size=world_size)) for r in range(world_size)]
        assert len({tuple(len(ids) for _, ids in rank) for rank in ranks}) == 1
        seen = torch.cat([ids for rank in ranks for _, ids in rank])
        assert len(seen.unique()) == len(seen) == 12 - 12 % world_size
        missed |= set(range(12)) - set((seen % 12).tolist())
    assert missed == (set(range(12)) if 12 % world_size else set())
    with pytest.raises(ValueError, match="at least one item for each of 13 ranks, got 12; or pass even=False"):
        next(batches(source, 4, rank=0, world_size=13))


class Echo:
    """A source that gives the ids back."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def get(self, ids):
        return ids


class Failing(FileSource):
    """Items that fail a few times with an error of some number before they can be read."""

    def __init__(self, error, times):
        super().__init__()
        self.error, self.left = error, times

    def __len__(self):
        return 2

    def read(self, index, id_):
        if index == 0 and self.left:
            self.left -= 1
            try:
                raise self.error
            except OSError as error:
                raise ValueError(f"cannot read item {index}: {error}") from error
        return torch.tensor([index])


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "EIO", "ESTALE", "ETIMEDOUT", "ENOMEM", "EINTR"])
def test_a_failure_that_passes_is_not_the_files_fault(name, monkeypatch):
    """Tried again; where it stays it is raised, and the file is read the next time."""
    monkeypatch.setattr("pseudomotion.source.RETRY_AFTER", (0, 0, 0))
    error, ids = OSError(getattr(errno, name), "for now"), torch.tensor([0, 1])
    source = Failing(error, 3)
    assert source.get(ids).tolist() == [[0], [1]]
    source = Failing(error, 4)
    with pytest.raises(ValueError, match=r"cannot read item 0.*for now"):
        source.get(ids)
    assert not source.skipped
    assert source.get(ids).tolist() == [[0], [1]]
    broken = Failing(OSError(errno.ENOENT, "gone"), 1)
    assert broken.get(ids).tolist() == [[1], [1]]
    assert list(broken.skipped) == [0]


def test_no_free_file_descriptor_is_not_the_files_fault(folder, monkeypatch):
    monkeypatch.setattr("pseudomotion.source.RETRY_AFTER", ())
    source, ids, held = ImageFolder(folder, 16), torch.arange(12), []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, limits[1]), limits[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            source.get(ids)
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not source.skipped
    assert torch.equal(source.get(ids), ImageFolder(folder, 16).get(ids))


WORKERS = """
import multiprocessing, os, signal, sys
import torch
from pseudomotion.images import ImageFolder, batches

def stop():  # as a terminal does, or SLURM; here before a worker runs any of our code
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__mp_main__":
    stop()

def main(folder, method, num_workers):
    multiprocessing.set_start_method(method)
    os.register_at_fork(after_in_child=stop)
    torch.set_num_threads(1)
    source, seen = ImageFolder(folder, 16), {}
    for images, ids in batches(source, 1, num_workers=num_workers):
        workers = multiprocessing.active_children()
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
        seen[int(ids)] = images[0]
    assert len(workers) == num_workers
    assert not multiprocessing.active_children()
    assert torch.equal(torch.stack([seen[i] for i in range(12)]), source.get(torch.arange(12)))
    if method == "fork":
        suspended = batches(source, 1, num_workers=2)
        next(suspended)
        print(*(worker.pid for worker in multiprocessing.active_children()))
        return suspended

if __name__ == "__main__":
    suspended = main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


@pytest.mark.parametrize(("method", "num_workers"), [("fork", 2), ("spawn", 1), ("forkserver", 2)])
def test_workers_leave_signals_to_the_main_process(folder, method, num_workers):
    """Under every start method. A process that ends before its batches do neither waits for its workers nor leaves one behind."""
    script = folder.parent / "program.py"
    script.write_text(WORKERS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, script, folder, method, str(num_workers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1000)
    assert (done.returncode, done.stderr) == (0, "")
    pids = done.stdout.split()
    assert len(pids) == (2 if method == "fork" else 0)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_end_with_a_main_process_that_was_killed(folder):
    script = folder.parent / "program.py"
    script.write_text(
        "import multiprocessing, sys, time\n"
        "from pseudomotion.images import ImageFolder, batches\n"
        "if __name__ == '__main__':\n"
        f"    reading = batches(ImageFolder({str(folder)!r}, 16), 1, num_workers=2)\n"
        "    next(reading)\n"
        "    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(100)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) as main:
        pids = list(map(int, main.stdout.readline().split()))
        main.kill()
    assert len(pids) == 2

    def alive(pid):
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and ") Z " not in status.read_text()

    for _ in range(6000):
        if not any(map(alive, pids)):
            return
        time.sleep(0.1)
    raise AssertionError("workers are still there")


def test_what_counts_as_an_image_or_a_class(folder):
    """Hidden folders and formats without a decoder do not; every link to a folder does, unless it leads back up."""
    save(folder / ".ipynb_checkpoints" / "0.png")
    save(folder / "cat" / ".ipynb_checkpoints" / "0.png")
    for name in ("features.h5", "clip.mpg", "figure.eps", "weather.grib", "drawing.wmf", "page.pdf"):
        (folder / "bee" / name).write_bytes(b"x")
    os.symlink(folder / "cat", folder / "dog")
    os.symlink(folder / "cat", folder / "bee" / "cats")
    os.symlink(folder, folder / "cat" / "back")
    source = ImageFolder(folder, 16)
    assert source.classes == ["ant", "bee", "cat", "dog"]
    assert source.labels.bincount().tolist() == [2, 4 + 6, 6, 6]


def rank_program(rank, folder, queue):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/../meeting", rank=rank, world_size=2)
    source, pmg = ImageFolder(folder, 24), PMG(num_frames=2, size=16)
    loader = batches(source, 2, epoch=1, rank=dist.get_rank(), world_size=dist.get_world_size())
    queue.put({int(i): clip.numpy() for images, ids in loader for i, clip in zip(ids, pmg(images, ids=ids), strict=True)})
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_make_the_same_clips_as_one(folder):
    context = torch.multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    processes = [context.Process(target=rank_program, args=(rank, str(folder), queue)) for rank in range(2)]
    for process in processes:
        process.start()
    parts = [queue.get() for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [len(part) for part in parts] == [6, 6]
    pmg = PMG(num_frames=2, size=16)
    for images, ids in batches(ImageFolder(folder, 24), 12, epoch=1):
        for i, clip in zip(ids.tolist(), pmg(images, ids=ids), strict=True):
            assert np.array_equal((parts[0] | parts[1])[i], clip)


def test_order_changes_with_epoch_and_seed_and_covers_everything(folder):
    source = ImageFolder(folder, 16)
    orders = [torch.cat([ids % 12 for _, ids in batches(source, 5, epoch=e, seed=s)]).tolist() for e, s in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2]
    assert [ids.tolist() for _, ids in batches(source, 8, shuffle=False, epoch=1)] == [list(range(12, 20)), list(range(20, 24))]


def test_balanced_draws_take_all_classes_alike(folder):
    source = ImageFolder(folder, 16, balanced=True)
    ids = torch.cat([ids for e in range(60) for _, ids in batches(ImageBank(source), 64, epoch=e)])
    assert len(ids.unique()) == len(ids) == 60 * 12
    share = source.labels[ids % 12].bincount() / len(ids)
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.06, rtol=0)
    within = (ids % 12)[source.labels[ids % 12] == 2].bincount()[6:] / (len(ids) / 3)
    torch.testing.assert_close(within, torch.full((6,), 1 / 6), atol=0.08, rtol=0)


def test_limit_per_class(folder):
    source = ImageFolder(folder, 16, limit=3)
    assert source.labels.bincount().tolist() == [2, 3, 3]
    assert [path.name for path in source.paths[2:5]] == ["0.png", "1.png", "2.png"]


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    os.symlink(folder, tmp_path / "linked" / "all")
    os.symlink(tmp_path / "linked", folder / "back")
    assert len(ImageFolder(tmp_path / "linked", 16)) == 12


def test_an_empty_source_is_an_error(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold image files, found none"):
        ImageFolder(tmp_path / "empty", 16)
    with pytest.raises(NotADirectoryError, match="root must be a folder"):
        ImageFolder(tmp_path / "nowhere", 16)
    for path in sorted(folder.rglob("*.png")):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="not one of 12 files can be read"):
        ImageFolder(folder, 16).get(torch.tensor([0]))


@pytest.mark.parametrize(
    ("ids", "error"), [(torch.tensor([0.5]), TypeError), (torch.tensor([-1]), ValueError), (torch.tensor(3), ValueError)]
)
def test_ids_are_checked(folder, ids, error):
    for source in (ImageFolder(folder, 16), ImageBank(ImageFolder(folder, 16))):
        with pytest.raises(error, match="ids must"):
            source.get(ids)


def test_a_mixed_fleet_feeds_one_loop(folder, mess, tmp_path):
    """A folder, a bank, a folder of broken files and the frames of videos, one after the other through one PMG."""
    for k in range(3):
        write_video(tmp_path / f"{k}.mp4", [picture(10 * k + t, (32, 40)) for t in range(6)], fps=10)
    (tmp_path / "list.csv").write_text("0.mp4\n1.mp4\nmissing.mp4\n2.mp4\n")
    good = ImageFolder(folder, 24)
    fleet = [(good, 0), (ImageBank(good), 0), (ImageFolder(mess[0], 24), 4), (VideoFrames(tmp_path / "list.csv", 24), 1)]
    pmg, seen = PMG(num_frames=2, size=16, mix=Mixup()), []
    for source, broken in fleet:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for images, ids in batches(source, 5, epoch=1):
                clips = pmg(images, ids=ids)
                assert clips.shape == (len(ids), 3, 2, 16, 16)
                seen += ids.tolist()
        assert len(caught) == bool(broken)
        assert len(source.skipped) == broken
    assert len(seen) == sum(len(source) for source, _ in fleet)
