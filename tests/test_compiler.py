"""The part of Python that LLVM compiles for the CPU renderer: the same functions, run by Python."""

import itertools
import math

import pytest

pytest.importorskip("llvmlite", reason="the renderer for CPUs needs llvmlite, which is not installed")

from pseudomotion.render.cpu import machine
from pseudomotion.render.cpu.compiler import CompileError, Double, Int, compiled, inlined

STEPS = (1, 10, 100)


def loaded(function, tmp_path, monkeypatch):
    monkeypatch.setenv("PSEUDOMOTION_CACHE", str(tmp_path))
    return machine.load([function], [])[0]


def numbers(a, b) -> Int:
    total = 0
    for k in range(a, b, 3):
        if k % 2 == 0 and k != 4:
            continue
        total += k * 7 if k < 8 or k == 11 else -k
        if total > 300:
            break
    k = 0
    while not k >= b:
        k += 1 + (k >> 1)
        total = total ^ (k << 2) & ~1
    for step in STEPS:
        total = total + step * (a < b <= 9)
    return max(total, a, -b) - min(a, b)


@pytest.mark.parametrize("name", ["numbers"])
def test_integers_are_those_of_python(name, tmp_path, monkeypatch):
    function = globals()[name]
    made = loaded(compiled(function), tmp_path, monkeypatch)
    for a, b in itertools.product(range(-6, 20), range(-3, 40, 3)):
        assert made(a, b) == function(a, b), (a, b)


def _halves(a: Double, b) -> (Double, Double):
    return a / 2, a * b


halves = inlined(_halves)


@compiled
def fractions(a, b) -> Int:
    half, product = halves(a, b)  # an integer becomes a fraction
    quotient = 7 / (b * b + 1)
    chosen = half if a > b else product + 0.5 if a == b else -1.0
    return Int((quotient + chosen) * 1000)


def test_fractions_and_tuples(tmp_path, monkeypatch):
    made = loaded(fractions, tmp_path, monkeypatch)
    for a, b in itertools.product(range(-5, 6), repeat=2):
        chosen = a / 2 if a > b else a * b + 0.5 if a == b else -1.0
        assert made(a, b) == math.trunc((7 / (b * b + 1) + chosen) * 1000)


@compiled
def loses_a_fraction(a) -> Int:
    b = 1
    for _ in range(2):
        b = a / b
    return b


@compiled
def takes_a_list(a) -> Int:
    return sum([a, a])


@compiled
def returns_a_fraction(a) -> Int:
    return 0.5 * a


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (loses_a_fraction, "loses_a_fraction, line 5 of it: double must be converted explicitly to be i64"),
        (takes_a_list, "takes_a_list, line 3 of it: List cannot be compiled"),
        (returns_a_fraction, "returns_a_fraction, line 3 of it: double must be converted"),
    ],
)
def test_what_cannot_be_compiled_is_named(function, message, tmp_path, monkeypatch):
    with pytest.raises(CompileError, match=message):
        loaded(function, tmp_path, monkeypatch)
