"""Synthetic images: the same id is the same image, and every generator follows its formula, computed here by plain numpy."""

import io
import math
import tarfile
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from pseudomotion.draws import Draws
from pseudomotion.images import ImageFolder, Shards, VideoFrames, builtin_picture
from pseudomotion.images.synthetic import SOURCES, DeadLeaves, FractalDB, Mixture, Noise, Shaders, VisualAtom, arithmetic, ifs, noise
from pseudomotion.images.synthetic.base import random_words, to_uint8, uniform
from pseudomotion.images.synthetic.fractaldb import last_point, stamp
from pseudomotion.images.synthetic.shaders import accept
from pseudomotion.images.synthetic.visual_atom import cover
from pseudomotion.preview import main
from pseudomotion.video import write_video

# Small, so that tests are quick. What is not here is tested with its default arguments.
SMALL = {
    "shaders": lambda **k: Shaders(size=40, programs=24, **k),
    "fractaldb": lambda **k: FractalDB(5, size=40, **k),
    "visual_atom": lambda **k: VisualAtom(20, size=40, rings=(1, 30), vertices=(50, 90), **k),
    "dead_leaves": lambda **k: DeadLeaves(200, size=40, **k),
    "noise": lambda **k: Noise(size=40, **k),
    "mixture": lambda **k: Mixture({"shaders": 1, "dead_leaves": 2, "noise": 1}, size=40, **k),
}
for name in SOURCES.keys() - SMALL.keys():
    SMALL[name] = partial(SOURCES[name], size=40)


@pytest.fixture(params=SMALL)
def source(request):
    return SMALL[request.param]()


@pytest.fixture
def unchecked():
    """Without the tests' own type checks, which would speak before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_same_id_same_image_in_any_batch(source):
    """Bitwise, for batches of 1, 4 and 16, and shuffled; and by a source that has made other images before."""
    ids = torch.arange(16) * 37 + 5
    images = source.get(ids)
    assert images.shape == (16, 3, 40, 40)
    assert images.dtype == torch.uint8
    for size in (1, 4):
        assert torch.equal(torch.cat([source.get(part) for part in ids.split(size)]), images)
    order = torch.randperm(16)
    assert torch.equal(source.get(ids[order]), images[order])
    assert len({image.numpy().tobytes() for image in images}) == 16


def test_a_new_source_makes_the_same_images_and_another_seed_others():
    for name, make in SMALL.items():
        ids = torch.tensor([70, 3])
        assert torch.equal(make().get(ids[:1])[0], make().get(ids)[0]), name
        if name != "fractaldb":  # its search is tested by itself
            assert not torch.equal(make(seed=4).get(ids), make(seed=5).get(ids)), name


@pytest.fixture(params=[*SMALL, "searched fractals", "colored fractals", "folder", "shards", "videos", "picture"])
def images_anew(request, tmp_path):
    """Make a source from the beginning, and images of it."""
    ids, path = torch.arange(6) * 37 + 5, tmp_path / "frames.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    for k in range(4):
        Image.fromarray(frames[k]).save(tmp_path / f"{k}.png")
    if request.param == "videos":
        write_video(path, frames, fps=10)
        (tmp_path / "list.csv").write_text("frames.mp4\n")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "0.png", "0.png")
        tar.add(tmp_path / "1.png", "1.png")
    return {
        **{name: lambda make=make: make().get(ids) for name, make in SMALL.items()},
        "shaders": lambda: Shaders(size=40, programs=3).get(ids[:3]),
        "searched fractals": lambda: FractalDB(1, size=40, seed=3).get(ids),
        "colored fractals": lambda: FractalDB(3, size=40, color=True).get(ids),
        "folder": lambda: ImageFolder(tmp_path, 20, balanced=True).get(ids),
        "shards": lambda: torch.stack([image * (id_ % 3 + 1) for image, id_ in Shards(tmp_path / "a.tar", 20)]),
        "videos": lambda: VideoFrames(tmp_path / "list.csv", 20).get(ids),
        "picture": lambda: builtin_picture(40, 50),
    }[request.param]


def test_default_dtype_and_device_change_nothing(images_anew):
    """Bitwise. Of a tensor on the device "meta" no image could be made."""
    expected = images_anew()
    try:
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            torch.set_default_dtype(dtype)
            assert torch.equal(images_anew(), expected), dtype
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("meta")
        assert torch.equal(images_anew(), expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_the_default_generators_state_is_left_alone(source):
    state = torch.random.get_rng_state()
    source.get(torch.tensor([3]))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_ids_no_images(source):
    assert source.get(torch.zeros(0, dtype=torch.int64)).shape == (0, 3, 40, 40)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.tensor([-1]), ValueError, "ids must be at least 0, got -1"),
        (torch.tensor([1], dtype=torch.int32), TypeError, "ids must be an int64 tensor, got torch.int32"),
        ([1, 2], TypeError, "ids must be an int64 tensor, got list"),
        (torch.tensor([[1]]), ValueError, r"ids must have shape \(B,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_ids(source, ids, error, message):
    with pytest.raises(error, match=message):
        source.get(ids)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Shaders(programs=0), ValueError, "programs must be from 1"),
        (lambda: Shaders(mix=2.5), TypeError, "mix must be an int"),
        (lambda: Shaders(size=0), ValueError, "size must be from 1"),
        (lambda: FractalDB(0), ValueError, "categories must be from 1"),
        (lambda: FractalDB(2, size=8), ValueError, "size must be from 16"),
        (lambda: FractalDB(2, patch="round"), ValueError, "patch must be one of 'patch', 'point', got 'round'"),
        (lambda: FractalDB(2, points=5), ValueError, "points must be from 1000"),
        (lambda: VisualAtom(rings=(0, 3)), ValueError, "rings must be a pair"),
        (lambda: VisualAtom(noise=1), TypeError, "noise must be a pair of numbers"),
        (lambda: DeadLeaves(6000), ValueError, "shapes must be from 1 to 5000"),
        (lambda: DeadLeaves(radius=(0.5, 0.1)), ValueError, "radius must be a pair"),
        (lambda: Noise(exponent=(1, 9)), ValueError, "exponent must be a pair"),
        (lambda: Mixture({}), TypeError, "weights must be a mapping of at least one source"),
        (lambda: Mixture({"clouds": 1}), ValueError, "unknown source 'clouds'; known are shaders"),
        (lambda: Mixture({"noise": 0}), ValueError, "weights must have weights of at least 0, not all 0"),
        (lambda: Mixture({3: 1.0}), TypeError, "weights must have names or image sources"),
        (lambda: Mixture({Noise(size=20): 1}, size=40).get(torch.tensor([1])), ValueError, "Noise must give uint8 images"),
        (lambda: FractalDB(2, size=40).get(torch.tensor([-1])), ValueError, "ids must be at least 0, got -1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_device_numbers_are_those_of_draws():
    ids = torch.tensor([3, -9, 2**50])
    words = random_words(8, ids, "any", 7, torch.device("cpu"))
    expected = torch.stack(Draws(8, ids).uniform("any", 7), 1)
    assert torch.equal((words.double() + 0.5) / 2**32, expected)
    torch.testing.assert_close(uniform(8, ids, "any", 7, torch.device("cpu")).double(), expected, atol=2**-24, rtol=0)


def test_arithmetic_is_what_it_stands_for():
    x = torch.linspace(-3, 3, 10_001)[None, None]
    y = torch.linspace(2, -1, 10_001)[None, None]
    torch.testing.assert_close(arithmetic.sine(x), torch.sin(2 * torch.pi * x), atol=1.2e-3, rtol=0)
    torch.testing.assert_close(arithmetic.angle(x, y), torch.atan2(y, x) / (2 * torch.pi), atol=4e-5, rtol=0)
    torch.testing.assert_close(noise.exp2(x * 10), torch.exp2(x * 10), atol=0, rtol=2e-4)


def test_worley_finds_the_nearest_sites():
    """Against all sites of a patch of cells, one by one."""
    x, y = torch.rand(1, 8, 8) * 4, torch.rand(1, 8, 8) * 4
    nearest, second, _ = arithmetic.worley(x, y, torch.zeros(1, 1, 1, dtype=torch.int32))
    iy, ix = (i.to(torch.int32) for i in torch.meshgrid(torch.arange(-3, 8), torch.arange(-3, 8), indexing="ij"))
    bits = arithmetic.hash_cells(ix[None], iy[None], torch.zeros(1, 1, 1, dtype=torch.int32))
    sites = torch.stack([arithmetic.first_half(bits)[0] + ix, arithmetic.second_half(bits)[0] + iy], -1).view(-1, 2)
    distances = torch.cdist(torch.stack([x, y], -1).view(-1, 2), sites).sort(1).values
    torch.testing.assert_close(nearest.flatten(), distances[:, 0], atol=1e-5, rtol=0)
    assert (second.flatten() - distances[:, 1]).abs().median() < 1e-5  # the second may lie two cells away


def test_shader_programs_are_distinct():
    """No two of 60 programs look alike: thumbnails, made comparable, correlate weakly."""
    source = Shaders(mix=1, size=32, programs=100_000)
    gray = source.get(torch.arange(60)).float().mean(1).flatten(1)
    correlation = torch.corrcoef(gray).fill_diagonal_(0)
    assert correlation.max() < 0.9
    assert correlation.abs().mean() < 0.2


def test_most_shader_programs_pass_their_own_rule():
    source = Shaders(mix=1, size=64, programs=100_000)
    assert accept(source.get(torch.arange(48))).float().mean(0).min() > 0.6


def test_accept_knows_good_from_bad():
    good = DeadLeaves(300, size=64).get(torch.arange(8))
    flat = torch.full_like(good, 120)
    white_noise = torch.randint(0, 256, good.shape, dtype=torch.uint8)
    gray = good[:, :1].expand(-1, 3, -1, -1)
    assert accept(flat).float().mean(0).tolist()[2:] == [0, 0, 0, 0]
    assert not accept(white_noise)[:, 0].any()
    assert not accept(gray)[:, 5].any()
    assert accept(good)[:, 2:].float().mean(0).min() > 0.5


def test_search_is_bounded_and_says_so():
    with pytest.raises(RuntimeError, match="found 0 of 1 categories in max_tries = 1 random systems"):
        FractalDB(1, seed=3, max_tries=1)
    with pytest.raises(RuntimeError, match="of 50 categories in max_tries = 300 random systems"):
        FractalDB(50, seed=3, max_tries=300)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_search_shows_its_progress_on_a_terminal(monkeypatch, terminal):
    shown = io.StringIO()
    shown.isatty = lambda: terminal
    monkeypatch.setattr(ifs, "tqdm", lambda **options: tqdm(**(options | {"file": shown, "delay": 0, "mininterval": 0, "miniters": 1})))
    ifs.search(6, 1, 2000)
    assert ("searching fractals: 100%" in shown.getvalue()) == terminal
    assert bool(shown.getvalue()) == terminal


def test_packaged_fractals_are_what_the_search_finds():
    found = ifs.search(2, 1, 2000)
    packaged = FractalDB(2).parameters
    assert torch.equal(found.maps, packaged.maps)
    assert torch.equal(found.variants, packaged.variants)


def numpy_chaos_game(system, points):
    """One orbit, step after step."""
    rng = np.random.default_rng(0)
    maps, steps = system.maps[0].double().numpy(), system.steps[0].double().numpy()
    which = np.searchsorted(steps, rng.random(points), side="right")
    orbit, (x, y) = np.empty((points, 2)), (0.0, 0.0)
    for k in range(points):
        a, b, c, d, e, f = maps[which[k]]
        x, y = a * x + b * y + e, c * x + d * y + f
        orbit[k] = x, y
    return orbit[100:]


@pytest.mark.parametrize("category", [0, 3, 11])
def test_parallel_chaos_game_has_the_measure_of_the_sequential_one(category):
    """Shares of points on a grid of 12 x 12 over the attractor: as near as two sequential games of as many points."""
    system = FractalDB(12).parameters.select(torch.tensor([category]))
    x, y = (v[0].double().numpy() for v in ifs.play(system, 40_000, torch.device("cpu")))
    orbit = numpy_chaos_game(system, 40_000)
    low, high = np.quantile(orbit, 0.01, axis=0), np.quantile(orbit, 0.99, axis=0)
    bounds = [(low[k], high[k]) for k in (0, 1)]
    parallel, sequential = (np.histogram2d(*p, bins=12, range=bounds)[0] / 40_000 for p in ((x, y), orbit.T))
    assert np.abs(parallel - sequential).sum() / 2 < 0.04
    uniform_ = np.full((12, 12), 1 / 144)
    assert np.abs(uniform_ - sequential).sum() / 2 > 0.1


def test_chaos_game_takes_maps_by_their_area():
    system = FractalDB(1).parameters
    a, b, c, d = system.maps[0, :, :4].double().unbind(-1)
    area = (a * d - b * c).abs()
    expected = (area.cumsum(0) / area.sum())[:-1]
    torch.testing.assert_close(system.steps[0].double(), expected, atol=1e-6, rtol=0)


def test_stamping_is_painting_points_one_after_another():
    """Against a loop that stamps every point's mask over the image, zeros included."""
    size, points = 20, 150
    column, row = (torch.randint(1, size - 1, (1, points), dtype=torch.int32) for _ in range(2))
    shown = stamp(last_point(column, row, size), torch.tensor([4]))[0] >= 0
    masks = {}
    for k in range(points):
        nine = torch.full((1, k + 1), 9, dtype=torch.int32)
        alone = stamp(last_point(nine, nine, 19), torch.tensor([4]))
        masks[k] = (alone[0, 8:11, 8:11] >= 0).numpy()
    canvas = np.zeros((size, size), dtype=bool)
    for k in range(points):
        x, y = int(column[0, k]), int(row[0, k])
        canvas[y - 1 : y + 2, x - 1 : x + 2] = masks[k]
    assert (shown.numpy() == canvas).all()
    assert all(mask.any() for mask in masks.values())


def test_fractal_instances():
    """25 perturbations, 10 patch draws, 4 flips; perturbation 0 leaves the system as it is, and 1 multiplies a by 0.2."""
    source = FractalDB(3, size=40)
    assert len(source) == 3000
    ids = torch.arange(4) * 3 + 1
    first, mirrored, upside_down, both = source.get(ids)
    assert source.category(ids).tolist() == [1, 1, 1, 1]
    assert torch.equal(mirrored, first.flip(-1))
    assert torch.equal(upside_down, first.flip(-2))
    assert torch.equal(both, first.flip(-1, -2))
    assert not torch.equal(source.get(ids + 12)[0], first)
    system = source.parameters.select(torch.tensor([0, 0, 0]))
    system.variants[:] = True
    changed = ifs.perturb(system, torch.tensor([0, 1, 24]))
    assert torch.equal(changed.maps[0], system.maps[0])
    torch.testing.assert_close(changed.maps[1, :, 0], system.maps[1, :, 0] * 0.2)
    torch.testing.assert_close(changed.maps[2, :, 5], system.maps[2, :, 5] * 1.8)
    assert torch.equal(changed.maps[2, :, :5], system.maps[2, :, :5])
    system.variants[:, 1:] = False
    assert torch.equal(ifs.perturb(system, torch.tensor([3, 1, 24])).maps, system.maps)


def test_fractals_are_gray_127_on_black_or_of_128_hues():
    gray = FractalDB(3, size=64).get(torch.arange(3))
    assert gray.unique().tolist() == [0, 127]
    colored = FractalDB(3, size=64, color=True, patch="point").get(torch.arange(3))
    assert 100 < len(colored.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)) <= 129
    share = (FractalDB(20, size=362, patch="point", points=100_000).get(torch.arange(20))[:, 0] > 0).float().mean((1, 2))
    assert share.min() > 0.2  # the rule, at a smaller size


def test_fractals_that_run_away_are_painted_all_the_same():
    maps = torch.zeros(1, 7, 6)
    maps[0, 0] = torch.tensor([1.0, 0.9, 0.8, 1.0, 1.0, 1.0])
    source = FractalDB(1, parameters=ifs.IFS(maps, torch.ones(1, 6), torch.ones(1, 25, dtype=torch.bool)), size=40)
    assert source.get(torch.tensor([0, 500])).shape == (2, 3, 40, 40)
    assert ifs.filled(source.parameters, 4000, torch.device("cpu")).tolist() == [0]


def test_fractal_parameters_are_saved_and_reloaded(tmp_path):
    source = FractalDB(4, size=40)
    path = tmp_path / "fractals.npz"
    source.save(path)
    again = FractalDB(4, size=40, parameters=path)
    assert torch.equal(again.get(torch.arange(8)), source.get(torch.arange(8)))
    with pytest.raises(ValueError, match="parameters must hold at least 5 categories, got 4"):
        FractalDB(5, parameters=path)
    with pytest.raises(FileNotFoundError):
        FractalDB(5, parameters=tmp_path / "none.npz")
    np.savez(tmp_path / "pickle.npz", maps=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "shape.npz", maps=np.zeros(3, np.float32), steps=np.zeros(3, np.float32), variants=np.zeros(3, np.uint8))
    for name in ("pickle", "text", "shape"):
        with pytest.raises(ValueError, match=f"{name}.npz"):
            FractalDB(1, parameters=tmp_path / f"{name}.npz")


def numpy_rings(atoms, k):
    """Rings 0 and 1 of atom ``k`` by the published formula; noise left out."""
    q = int(atoms.vertices[k])
    theta = 2 * np.pi * np.arange(q) / q
    (ox, oy), (cx, cy) = atoms.semi_axes[k].tolist(), atoms.center[k].tolist()
    x, y = ox * np.cos(theta) + cx, oy * np.sin(theta) + cy
    n1, n2, w = float(atoms.frequency_1[k]), float(atoms.frequency_2[k]), float(atoms.growth[k])
    d = -0.5 * np.sin(n1 * theta) - 0.5 * np.sin(n2 * theta)
    return np.stack([x, y]), np.stack([x - np.cos(theta) * (d - w), y - np.sin(theta) * (d - w)])


def test_visual_atom_follows_its_formula():
    source = VisualAtom(noise=(0, 0), seed=2)
    ids = torch.arange(12)
    atoms = source.atoms(ids)
    rings = [source.rings_of(ids, k).numpy() for k in (0, 1)]
    for k in range(12):
        q = int(atoms.vertices[k])
        for ring, expected in zip(rings, numpy_rings(atoms, k), strict=True):
            np.testing.assert_allclose(ring[k][:, :q], expected, atol=1e-3)
            np.testing.assert_allclose(ring[k][:, q], expected[:, 0], atol=1e-3)


def test_visual_atom_noise_pushes_outwards_by_its_strength():
    """The mean of the noise is 0, so a ring grows by the noise's strength; each axis and vertex on its own."""
    quiet, loud = (VisualAtom(noise=(n, n), growth=(0, 0)) for n in (0, 3))
    ids = torch.arange(20)
    direction = loud._shape(loud.atoms(ids))[1]
    moved = (loud.rings_of(ids, 1) - quiet.rings_of(ids, 1)) / torch.where(direction.abs() > 0.05, direction, torch.nan)
    assert moved.nanmean() == pytest.approx(3, abs=0.02)
    assert 0.3 < moved[~moved.isnan()].std() < 1.2
    assert np.corrcoef(moved[:, :, :200].nan_to_num(3).reshape(40, -1).numpy()).mean() < 0.1


def test_visual_atom_parameters_lie_in_their_ranges():
    source = VisualAtom(3000)
    atoms = source.atoms(torch.arange(3000))
    assert (atoms.vertices.min(), atoms.vertices.max()) == (200, 1000)
    assert (atoms.rings.min(), atoms.rings.max()) == (1, 200)
    assert (atoms.frequency_1.min(), atoms.frequency_1.max()) == (0, 20)
    assert ((atoms.frequency_1 - atoms.frequency_2) != 0).all()
    assert 10 <= atoms.semi_axes.min() <= atoms.semi_axes.max() <= 120
    assert 0 <= atoms.center.min() <= atoms.center.max() <= 512
    other = source.atoms(torch.arange(3000) + 3000)
    assert torch.equal(other.rings, atoms.rings)
    assert not torch.equal(other.center, atoms.center)


def test_lines_cover_the_pixels_near_them():
    """A square of known sides: coverage is 1 on it, falls to 0 within a pixel, and its sum is its length."""
    square = torch.tensor([[[100.0, 400, 400, 100, 100], [100.0, 100, 400, 400, 100]]])
    levels = cover(square, torch.tensor([150]), 512).view(512, 512)
    assert levels[100, 100:401].min() > 0.99
    assert levels[98, :].max() == 0
    assert levels.sum() == pytest.approx(1200, rel=0.01)
    reduced = cover(square, torch.tensor([150]), 256).view(256, 256)
    assert reduced.sum() == pytest.approx(1200 / 4, rel=0.05)


def test_dead_leaves_radii_follow_their_law():
    """Density r ** -3: the share above r is (r ** -2 - high ** -2) / (low ** -2 - high ** -2). Kolmogorov-Smirnov on 40,000 radii."""
    radii = DeadLeaves(1000).radii(torch.arange(40)).flatten().double().sort().values
    assert radii[0] >= 0.03
    assert radii[-1] <= 1
    above = (radii**-2 - 1) / (0.03**-2 - 1)
    assert (1 - above - torch.linspace(0, 1, len(radii))).abs().max() < 0.01


def test_dead_leaves_cover_the_image():
    source = DeadLeaves()
    colors = uniform(source.seed, torch.arange(4), "color", 3 * 1001, torch.device("cpu")).view(4, 3, -1)[:, :, -1]
    background = to_uint8((colors * 256).floor() / 255)[..., None, None]
    assert (source.get(torch.arange(4)) == background).all(1).float().mean() < 0.01


def test_one_dead_leaf_of_every_kind():
    """A single shape lies within its radius, and covers what a polygon of its kind can."""
    source = DeadLeaves(1, radius=(0.2, 0.2), size=96)
    shares = []
    for image in source.get(torch.arange(60)):
        values, counts = image.flatten(1).unique(dim=1, return_counts=True)
        assert values.shape[1] <= 2
        shares.append(float(counts.min()) / 96**2 if values.shape[1] == 2 else 0.0)
    assert max(shares) <= math.pi * 0.2**2 * 1.02
    assert max(shares) > math.pi * 0.2**2 * 0.98  # a whole circle


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_noise_has_its_spectrum(exponent):
    """The slope of the radial mean amplitude of whole transforms, before they are cut to levels."""
    images = Noise(exponent=(exponent, exponent), size=128).get(torch.arange(16)).double()
    images = images - images.mean((-1, -2), keepdim=True)
    power = torch.fft.fft2(images).abs().square().mean((0, 1))
    cycles = torch.fft.fftfreq(128, 1 / 128, dtype=torch.float64)
    ring = torch.hypot(cycles[:, None], cycles).round().long().flatten()
    mean = torch.zeros(92, dtype=torch.float64).index_add_(0, ring, power.flatten()) / ring.bincount(minlength=92)
    f = np.arange(3, 30)
    slope = np.polyfit(np.log(f), np.log(mean[f].numpy()) / 2, 1)[0]
    assert -slope == pytest.approx(exponent, abs=0.07)


def test_own_fourier_transform_is_the_library_s():
    real, imaginary = torch.randn(2, 2, 3, 32, 32).unbind(0)
    expected = torch.fft.ifft2(torch.complex(real, imaginary), norm="forward")
    for got, want in zip(noise.inverse_fft_2d(real, imaginary), (expected.real, expected.imag), strict=True):
        torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-4)


def test_mixture_follows_its_weights():
    black, white = (
        type("Plain", (), {"__len__": lambda _: 9, "get": get})()
        for get in (
            lambda _, ids: torch.zeros(len(ids), 3, 4, 4, dtype=torch.uint8),
            lambda _, ids: torch.full((len(ids), 3, 4, 4), 255, dtype=torch.uint8),
        )
    )
    images = Mixture({black: 3, white: 1}, size=4).get(torch.arange(4000))
    assert float(images.float().mean() / 255) == pytest.approx(0.25, abs=0.03)


def test_preview_of_synthetic_images(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["--source", "noise", "--samples", "2", "--frames", "2", "--size", "32", "--transforms", "zoom", str(out)]) == 0
    assert out.stat().st_size > 0
    photo = tmp_path / "photo.png"
    Image.new("RGB", (32, 32)).save(photo)
    assert main(["--source", "noise", str(photo), str(out)]) == 2
    assert f"--source makes the images, so there is nothing to do with {photo}" in capsys.readouterr().err


def test_finite_sources_count_round():
    """So that ids may go on counting from epoch to epoch, as with every source of the library."""
    source = FractalDB(2, size=40)
    assert torch.equal(source.get(torch.tensor([2000, 6003])), source.get(torch.tensor([0, 3])))
