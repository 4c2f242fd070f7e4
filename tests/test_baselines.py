"""The paper's comparators: MoSI's windows against slices, and Perlin noise against plain numpy."""

import jaxtyping
import numpy as np
import pytest
import torch

from pseudomotion.baselines import MoSI, PerlinVideo
from pseudomotion.baselines.mosi import SPEEDS
from pseudomotion.baselines.perlin_video import PRESETS, gradients
from pseudomotion.images.synthetic import DeadLeaves


class Photos:
    """Random images of 320 x 400, of which nothing is resized."""

    def __init__(self, h=320, w=400):
        self.images = torch.randint(0, 256, (3, 3, h, w), dtype=torch.uint8)

    def __len__(self):
        return 3

    def get(self, ids):
        return self.images[ids]


@pytest.fixture
def unchecked():
    """Without the tests' own type checks, which would speak before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_mosi_moves_as_published():
    """104 pixels at speed 1, 208 at speed 2, along one axis, at an even pace truncated to whole pixels, never outside the square."""
    mosi = MoSI(Photos())
    assert len(mosi) == 27
    ids = torch.arange(27)
    positions = mosi.positions(ids)
    travel = positions[:, -1] - positions[:, 0]
    expected = torch.tensor(SPEEDS)[ids % 9] * 104
    assert (travel - expected).abs().max() <= 1  # truncation of two real places
    assert ((expected == 0) <= (travel == 0)).all()
    assert positions.min() >= 0
    assert positions.max() <= 208
    pace = expected[:, None] * torch.arange(16)[:, None] / 15
    assert (positions - positions[:, :1] - pace).abs().max() <= 1
    assert positions[:, 0].double().std(0).min() > 20  # starts are spread


def test_mosi_shows_the_windows():
    """Every frame is the slice of the image that the positions say, moved by the place of the square."""
    photos = Photos()
    mosi = MoSI(photos, static_mask=False)
    ids = torch.arange(27)
    clips, labels = mosi.get(ids)
    assert clips.shape == (27, 3, 16, 112, 112)
    assert labels.tolist() == [k % 9 for k in range(27)]
    _, corner = mosi._squares(ids)
    assert corner[:, 1].max() == 0
    assert 0 <= corner[:, 0].min() < corner[:, 0].max() <= 80
    for k in (0, 13, 26):
        for t, (x, y) in enumerate((mosi.positions(ids)[k] + corner[k]).tolist()):
            assert torch.equal(clips[k, :, t], photos.images[k // 9, :, y : y + 112, x : x + 112])


def test_mosi_mask_keeps_motion_in_a_rectangle():
    """Outside the rectangle all frames are equal, and equal to one frame of the clip without mask; inside, to that clip."""
    photos = Photos()
    ids = torch.arange(18)
    masked, free = MoSI(photos).get(ids)[0], MoSI(photos, static_mask=False).get(ids)[0]
    for k in range(18):
        moves = (masked[k] != masked[k, :, :1]).any(0).any(0)
        if k % 9 == 8:
            assert not moves.any()
            continue
        rows, columns = moves.any(1).nonzero()[:, 0], moves.any(0).nonzero()[:, 0]
        for found in (rows, columns):
            assert 0.3 * 112 - 1 <= len(found) <= 0.5 * 112 + 1
            assert len(found) == found[-1] - found[0] + 1
        inside = torch.zeros(112, 112, dtype=torch.bool)
        inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert torch.equal(masked[k][..., inside], free[k][..., inside])
        still = masked[k, :, 0][:, ~inside]
        assert sum(torch.equal(still, free[k, :, t][:, ~inside]) for t in range(16)) == 1


def test_mosi_flip_corrupts_half_of_the_labels_and_is_off():
    photos = Photos()
    ids = torch.arange(27)
    plain, labels = MoSI(photos).get(ids)
    flipped, same_labels = MoSI(photos, flip=True).get(ids)
    assert torch.equal(labels, same_labels)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, plain, strict=True)]
    unchanged = [torch.equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    assert all(m != u for m, u in zip(mirrored, unchanged, strict=True))
    assert 5 < sum(mirrored) < 22


def test_mosi_resizes_to_a_short_side_of_320():
    mosi = MoSI(Photos(200, 150))
    squares, _ = mosi._squares(torch.arange(2))
    assert squares.shape == (2, 3, 427, 320)
    assert mosi.get(torch.tensor([4]))[0].shape == (1, 3, 16, 112, 112)


@pytest.mark.parametrize("source", [MoSI(DeadLeaves(60, size=64), size=24, image_size=64), PerlinVideo(size=32, num_frames=4)])
def test_same_id_same_clip_in_any_batch(source):
    ids = torch.tensor([40, 3, 577, 20, 8])
    clips, labels = source.get(ids)
    for k in range(5):
        clip, label = source.get(ids[k : k + 1])
        assert torch.equal(clip[0], clips[k])
        assert label[0] == labels[k]


def numpy_perlin(table, frequency, size, frames):
    """Gradient noise, point by point, from the lattice's unit vectors."""
    fade = lambda t: 6 * t**5 - 15 * t**4 + 10 * t**3  # noqa: E731
    out = np.empty((frames, size, size))
    for place in np.ndindex(out.shape):
        at = np.array([place[2] * frequency[0] / size, place[1] * frequency[1] / size, place[0] * frequency[2] / frames])
        cell = np.floor(at).astype(int)
        f = at - cell
        total = 0.0
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod([fade(f[k]) if corner[k] else 1 - fade(f[k]) for k in range(3)])
            x, y, t = cell + corner
            total += weight * (table[t, y, x] @ (f - corner))
        out[place] = total
    return out


def test_perlin_video_is_gradient_noise():
    frequency = (3, 5, 2)
    video = PerlinVideo([(1, 1, 1), frequency], size=24, num_frames=6, seed=5)
    ids = torch.tensor([1, 3])
    clips, labels = video.get(ids)
    assert labels.tolist() == [1, 1]
    assert torch.equal(clips[:, 0], clips[:, 2])
    from pseudomotion.draws import Draws

    (salt,) = Draws(5, ids).uniform("lattice", 1)
    table = gradients(frequency, (salt * 2**31).long())
    for k in range(2):
        expected = (numpy_perlin(table[k].double().numpy(), frequency, 24, 6) + 1) / 2 * 255
        assert np.abs(clips[k, 0].numpy() - expected).max() < 0.51
    assert not torch.equal(clips[0], clips[1])


def test_perlin_lattice_has_unit_vectors_in_all_directions():
    vectors = gradients((30, 30, 30), torch.tensor([5])).flatten(0, 3)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)), atol=2e-3, rtol=0)
    assert vectors.mean(0).abs().max() < 0.03
    assert vectors.square().mean(0).min() > 0.2


def test_perlin_presets():
    assert len(PerlinVideo()) == 28_800
    assert PerlinVideo().num_classes == 576
    assert len(PRESETS["vpn-256"]) == 256
    assert all(240 % f == 0 for entry in PRESETS["vpn-256"] for f in entry)
    assert PerlinVideo("vpn-256", size=240, num_frames=2).get(torch.tensor([255]))[0].shape == (1, 3, 2, 240, 240)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MoSI(torch.zeros(3)), TypeError, "images must be an image source"),
        (lambda: MoSI(Photos(), num_frames=1), ValueError, "num_frames must be from 2"),
        (lambda: MoSI(Photos(), size=320), ValueError, "image_size must be from 321"),
        (lambda: MoSI(Photos(), mask_ratio=(0.5, 1.5)), ValueError, "mask_ratio must be a pair"),
        (lambda: MoSI(Photos()).get(torch.tensor([-1])), ValueError, "ids must be at least 0, got -1"),
        (lambda: PerlinVideo("vpn"), ValueError, "frequencies must be one of 'vpn-24x24', 'vpn-256'"),
        (lambda: PerlinVideo([]), ValueError, "frequencies must have at least one tuple"),
        (lambda: PerlinVideo([(0, 1, 1)]), ValueError, "frequencies must be tuples"),
        (lambda: PerlinVideo(instances=0), ValueError, "instances must be from 1"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
