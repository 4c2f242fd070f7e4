"""Mixup and VideoMix against plain numpy, the shares they report against counted voxels, and beta draws against an integrated density."""

import math

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudomotion import PMG, Mixup, VideoMix
from pseudomotion.draws import Draws, exp, log
from pseudomotion.mix import mix_targets, warn_alone

MIXES = [Mixup(), Mixup(0.2), VideoMix(), VideoMix(mode="temporal"), VideoMix(mode="spatiotemporal"), VideoMix(0.3, p=0.5)]
IDS = torch.arange(7)


def by_hand(clips, others, info):
    """Mixed clips computed in float64 numpy from the returned MixInfo."""
    clips, others = np.asarray(clips.double()), np.asarray(others.double())
    mixed = clips.copy()
    for i, (partner, weight, box, (first, last)) in enumerate(zip(*(tensor.tolist() for tensor in vars(info.blend).values()), strict=True)):
        x0, y0, x1, y1 = (int(edge + 0.5) for edge in box)
        part = (i, slice(None), slice(first, last), slice(y0, y1), slice(x0, x1))
        mixed[part] = (1 - weight) * clips[part] + weight * others[partner][part[1:]]
    return mixed


@pytest.mark.parametrize("mix", MIXES, ids=repr)
def test_finished_clips_are_mixed_as_by_hand(mix):
    clips = torch.randn(7, 3, 5, 12, 17, dtype=torch.float64)
    before = clips.clone()
    mixed, info = mix(clips, ids=IDS, seed=3)
    np.testing.assert_allclose(mixed, by_hand(clips, clips, info), atol=1e-12)
    assert not torch.equal(mixed, clips)
    assert torch.equal(clips, before)
    swapped, _ = mix(clips.transpose(1, 2), ids=IDS, seed=3, data_format="BTCHW")
    assert torch.equal(swapped.transpose(1, 2), mixed)


@pytest.mark.parametrize("mix", MIXES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_every_dtype_is_rounded_once(mix, dtype):
    clips = (torch.rand(7, 3, 4, 9, 8) * 255).to(dtype)
    mixed, info = mix(clips, ids=IDS)
    expected = torch.from_numpy(by_hand(clips, clips, info))
    expected = expected.round().to(dtype) if dtype == torch.uint8 else expected.to(dtype)
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed, expected, atol=1 if dtype == torch.uint8 else 0, rtol=0 if dtype == torch.uint8 else 2**-7)


@pytest.mark.parametrize("mix", MIXES, ids=repr)
def test_in_a_plan_they_are_the_oracles(mix, smooth):
    images = smooth(7, 3, 24, 30)
    pmg = PMG(("zoom", "affine"), 5, (18, 21), mix=mix)
    plan = pmg.plan(images.shape, ids=IDS)
    np.testing.assert_allclose(pmg.render(images, plan), oracle.render(images, plan), atol=1e-9)
    plain = PMG(("zoom", "affine"), 5, (18, 21))(images, ids=IDS)
    assert not torch.equal(pmg(images, ids=IDS), plain)
    mixed, info = mix(plain, ids=IDS)
    torch.testing.assert_close(pmg(images, ids=IDS), mixed, atol=1e-9, rtol=0)
    assert torch.equal(info.partner, plan.blend.partner)
    assert repr(mix) in repr(pmg)
    i = int(plan.blend.weight.argmax())
    assert f"mixed with clip {int(plan.blend.partner[i])}" in plan.describe(i)


@given(
    st.sampled_from(["spatial", "temporal", "spatiotemporal"]),
    st.floats(0.01, 50),
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32),
)
def test_videomix_reports_the_exact_share_of_voxels(mode, alpha, t, h, w, seed):
    """Black clips with white partners: the mean of a mixed clip is the partner's share."""
    black = torch.zeros(4, 1, t, h, w, dtype=torch.float64)
    mixed, info = VideoMix(alpha, mode=mode)(black, ids=torch.arange(4), seed=seed, partner_clips=black + 1)
    counted = mixed.sum((1, 2, 3, 4))
    assert set(mixed.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(info.partner_weight, (counted / (t * h * w)).float())


@pytest.mark.parametrize("mode", ["spatial", "temporal", "spatiotemporal"])
def test_videomix_takes_the_drawn_share_but_for_clipping(mode):
    """Uniform share s and center: an axis of side a keeps a (1 - a / 4) of its length on average; integrated over s by midpoints."""
    power = {"spatial": 1 / 2, "temporal": 1, "spatiotemporal": 1 / 3}[mode]
    axes = {"spatial": 2, "temporal": 1, "spatiotemporal": 3}[mode]
    s = (np.arange(100_000) + 0.5) / 100_000
    integral = float(np.mean((s**power * (1 - s**power / 4)) ** axes))
    blend = VideoMix(mode=mode).make_plan(
        VideoMix(mode=mode).make_params(Draws(0, torch.arange(20_000))), torch.arange(20_000), 64, (64, 64)
    )
    sides = [(blend.box[:, 2 + axis] - blend.box[:, axis]) / 64 for axis in range(2)] + [(blend.frames[:, 1] - blend.frames[:, 0]) / 64]
    assert abs(float((blend.weight * sides[0] * sides[1] * sides[2]).mean()) - integral) < 0.01


@pytest.mark.parametrize("mix", [Mixup(), VideoMix(), VideoMix(mode="spatiotemporal")], ids=repr)
def test_batch_sizes_and_order_do_not_change_the_numbers(mix):
    """Bitwise equal; vectorized and scalar tails of a kernel must round the same way."""
    ids = torch.arange(1000) * 7919 - 3

    def blend(ids):
        return vars(mix.make_plan(mix.make_params(Draws(5, ids)), ids, 16, (224, 224))).values()

    whole = blend(ids)
    for clips in (slice(17, 18), slice(3, 8), slice(0, 999)):
        assert all(torch.equal(a[clips], b) for a, b in zip(whole, blend(ids[clips]), strict=True))
    assert all(torch.equal(a, b.flip(0)) for a, b in zip(whole, blend(ids.flip(0)), strict=True))


def test_partners_from_outside_make_clips_independent_of_their_batch():
    images, others = (torch.randint(0, 256, (6, 3, 20, 22), dtype=torch.uint8) for _ in range(2))
    ids = torch.arange(6) + 40
    for mix in (None, Mixup(), VideoMix(mode="temporal")):
        pmg = PMG(("zoom", "cutmix", "affine"), 3, 16, mix=mix)
        whole = pmg(images, ids=ids, partner_images=others)
        assert whole.shape == (6, 3, 3, 16, 16)
        for i in range(6):
            assert torch.equal(pmg(images[i : i + 1], ids=ids[i : i + 1], partner_images=others[i : i + 1])[0], whole[i])
        assert not torch.equal(whole, pmg(images, ids=ids, partner_images=others.flip(0)))


def test_a_partner_from_outside_moves_by_an_id_of_its_own(smooth):
    """A mixed clip is the blend of two unmixed clips: the image's, and the partner image's under an id derived from the clip's."""
    images, others = smooth(4, 3, 20, 20), smooth(4, 3, 20, 20)
    ids = torch.arange(4)
    plain = PMG(("affine",), 4, 16)
    partner_ids = Draws(0, ids).partner_ids("partner images")
    assert not set(partner_ids.tolist()) & set(ids.tolist())
    expected, _ = Mixup()(plain(images, ids=ids), ids=ids, partner_clips=plain(others, ids=partner_ids))
    torch.testing.assert_close(PMG(("affine",), 4, 16, mix=Mixup())(images, ids=ids, partner_images=others), expected)


@pytest.mark.parametrize("mix", [Mixup(), VideoMix()], ids=repr)
def test_no_clip_is_its_own_partner_but_in_a_batch_of_one(mix):
    for batch in (2, 3, 5, 8):
        _, info = mix(torch.rand(batch, 3, 2, 4, 4))
        assert not (info.partner == torch.arange(batch)).any()
        assert sorted(info.partner.tolist()) == list(range(batch))
    clip = torch.rand(1, 3, 2, 4, 4)
    warn_alone.cache_clear()
    with pytest.warns(UserWarning, match="mix does nothing to a batch of one"):
        mixed, info = mix(clip)
    assert info.partner.tolist() == [0]
    torch.testing.assert_close(mixed, clip)


@pytest.mark.parametrize("kind", [Mixup, VideoMix])
def test_p_is_the_share_of_clips_that_are_mixed(kind):
    clips = torch.rand(4, 3, 2, 8, 8)
    untouched, info = kind(p=0)(clips)
    assert untouched is clips
    assert info.partner_weight.tolist() == [0] * 4
    clips = torch.rand(3000, 1, 1, 8, 8)
    mixed, info = kind(p=0.3)(clips, ids=torch.arange(3000))
    changed = (mixed != clips).flatten(1).any(1)
    assert torch.equal(changed, info.partner_weight > 0)
    assert abs(float((kind(p=0.3).make_params(Draws(0, torch.arange(3000)))["mixed"]).mean()) - 0.3) < 0.03


def test_targets_share_as_the_pixels_do():
    clips = torch.rand(5, 3, 4, 8, 8)
    labels = torch.tensor([0, 1, 2, 1, 0])
    for mix in (Mixup(), VideoMix(mode="temporal")):
        _, info = mix(clips, ids=torch.arange(5))
        expected = np.zeros((5, 3))
        for i in range(5):
            expected[i, labels[i]] += 1 - info.partner_weight[i]
            expected[i, labels[info.partner[i]]] += info.partner_weight[i]
        targets = mix_targets(labels, info, 3)
        np.testing.assert_allclose(targets, expected, atol=1e-6)
        soft = torch.nn.functional.one_hot(labels, 3).float() * 0.9 + 0.1 / 3
        np.testing.assert_allclose(mix_targets(soft, info, 3), expected * 0.9 + 0.1 / 3, atol=1e-6)
        from_outside = mix_targets(labels, info, 3, partner_labels=labels[info.partner])
        assert torch.equal(from_outside, targets)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 8.0, 200.0])
def test_beta_has_the_moments_and_the_distribution_of_beta(alpha):
    """Kolmogorov-Smirnov against the integrated density: below 1.95 / sqrt(n) with probability 0.999; the seed is fixed."""
    n = 40_000
    sample = Draws(1, torch.arange(n)).beta("any", alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(sample.mean() - 0.5) < 4 * math.sqrt(variance / n)
    assert abs(sample.var() / variance - 1) < 0.05
    # Folded at 1/2, for it is symmetric. x = sin(angle)**2 and angle ~ knots**steep take the pole of the density at 0 away.
    assert abs((sample < 0.5).mean() - 0.5) < 2 / math.sqrt(n)
    folded = np.sort(np.minimum(sample, 1 - sample))
    angle = math.pi / 4 * np.linspace(0, 1, 100_001) ** max(1, 1 / alpha)
    middle = (angle[1:] + angle[:-1]) / 2
    density = (np.sin(2 * middle)) ** (2 * alpha - 1) * np.diff(angle)
    cumulative = np.concatenate([[0], density.cumsum() / density.sum()])
    x = np.sin(angle) ** 2
    far = x > 1e-12  # nearer to 0 and 1 a float64 does not resolve 1 - x
    assert np.abs(np.searchsorted(folded, x[far]) / n - cumulative[far]).max() < 1.95 / math.sqrt(n)


def test_beta_stays_in_range_at_the_extremes():
    for alpha in (1e-6, 1e-3, 1e6, 1e12):
        sample = Draws(0, torch.arange(1000)).beta("any", alpha)
        assert np.isfinite(sample).all()
        assert ((sample >= 0) & (sample <= 1)).all()


@given(st.floats(1e-300, 1e300), st.floats(-690, 0))
def test_log_and_exp_are_the_library_functions(x, y):
    assert log(np.array([x]))[0] == pytest.approx(math.log(x), rel=1e-13, abs=1e-15)
    assert exp(np.array([y]))[0] == pytest.approx(math.exp(y), rel=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Mixup(0), "alpha must be positive"),
        (lambda: Mixup(math.inf), "alpha must be positive"),
        (lambda: Mixup("1"), "alpha must be a number, got '1'"),
        (lambda: VideoMix(p=None), "p must be a number, got None"),
        (lambda: VideoMix(p=1.5), "p must be from 0 to 1"),
        (lambda: VideoMix(mode="tube"), "mode must be one of 'spatial'"),
        (lambda: PMG(mix="mixup"), "mix must be Mixup"),
        (lambda: Mixup()(torch.rand(2, 3, 4, 4)), "clips must have shape"),
        (lambda: Mixup()(torch.zeros(2, 3, 1, 4, 4, dtype=torch.int32)), "clips must be uint8 or float"),
        (lambda: Mixup()(torch.rand(2, 3, 1, 4, 4), partner_clips=torch.rand(2, 3, 1, 4, 5)), "partner_clips must have the shape of clips"),
        (
            lambda: PMG(size=8)(torch.rand(2, 3, 4, 4), partner_images=torch.rand(1, 3, 4, 4)),
            "partner_images must have the shape",
        ),
        (lambda: mix_targets(torch.tensor([0, 3]), Mixup()(torch.rand(2, 3, 1, 4, 4))[1], 3), "labels must be from 0 to 2, got 0 to 3"),
        (lambda: mix_targets(torch.tensor([0]), Mixup()(torch.rand(2, 3, 1, 4, 4))[1], 3), "labels must be int64 of shape"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
