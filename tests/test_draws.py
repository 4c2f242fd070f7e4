"""Draws: the generator against its authors' known answers, and the statistics of what is made from it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudomotion.draws import Draws, philox

# Random123, tests/kat_vectors: counter, key, answer.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    words = philox([torch.tensor([word]) for word in counter], key)
    assert tuple(int(word) for word in words) == answer


def test_uniform_is_the_generators_words_spread_over_the_unit_interval():
    """Words of counter (id, purpose, block) under the seed, in order; -1 is the id with all bits set."""
    import zlib

    ids = torch.tensor([5, -1, 2**40 + 3])
    numbers = torch.stack(Draws(2**33 + 9, ids).uniform("any", 6), 1)
    for row, clip in zip(numbers, ids.tolist(), strict=True):
        words = []
        for block in (0, 1):
            counter = (clip & 0xFFFFFFFF, (clip >> 32) & 0xFFFFFFFF, zlib.crc32(b"any"), block)
            words += [int(word) for word in philox([torch.tensor([c]) for c in counter], (9, 2))]
        assert row.tolist() == [(word + 0.5) / 2**32 for word in words[:6]]


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_uniform_is_uniform():
    """Chi-square with 63 degrees of freedom stays below 103.4 with probability 0.999; the seed is fixed."""
    for seed, purpose in [(0, "zoom"), (1, "zoom"), (0, "affine")]:
        for number in Draws(seed, torch.arange(20_000)).uniform(purpose, 5):
            assert number.min() > 0
            assert number.max() < 1
            assert chi_square((number * 64).long().bincount(minlength=64).double()) < 103.4


def test_purposes_positions_and_seeds_are_independent():
    """Chi-square of pairs on an 8 x 8 table, and the purposes give different numbers at all."""
    ids = torch.arange(20_000)
    first = Draws(0, ids).uniform("zoom", 2)
    others = [first[1], *Draws(0, ids).uniform("affine", 2), Draws(1, ids).uniform("zoom", 1)[0], Draws(0, ids + 1).uniform("zoom", 1)[0]]
    for other in others:
        assert chi_square(((first[0] * 8).long() * 8 + (other * 8).long()).bincount(minlength=64).double()) < 103.4


def test_more_numbers_leave_the_earlier_ones():
    draws = Draws(3, torch.arange(10))
    few, many = draws.uniform("affine", 3), draws.uniform("affine", 11)
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))
    assert len(many) == 11


def test_choice_follows_its_weights():
    draws = Draws(0, torch.arange(40_000))
    share = draws.choice("transform", [1, 0, 2, 5]).bincount(minlength=4) / 40_000
    assert share[1] == 0
    torch.testing.assert_close(share, torch.tensor([0.125, 0, 0.25, 0.625]), atol=0.01, rtol=0)
    assert draws.choice("transform", [0, 3]).unique().tolist() == [1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12, unique=True), st.randoms())
def test_partners_are_a_permutation_without_fixed_points_whatever_the_order(ids, random):
    batch = torch.tensor(ids)
    partner = Draws(0, batch).partner("source")
    assert sorted(partner.tolist()) == list(range(len(ids)))
    assert len(ids) == 1 or not (partner == torch.arange(len(ids))).any()
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = batch[order]
    assert dict(zip(ids, batch[partner].tolist(), strict=True)) == dict(
        zip(shuffled.tolist(), shuffled[Draws(0, shuffled).partner("source")].tolist(), strict=True)
    )


def test_the_default_device_does_not_matter():
    with torch.device("meta"):
        (number,) = Draws(0, torch.tensor([1, 2], device="cpu")).uniform("zoom", 1)
    assert number.device.type == "cpu"
