"""One side has a table rounded to float32: the verdict must not depend on which side is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import parity
from convert.errors import UsageError
from parity.derive.conclude.partings import _rounded
from parity.derive.edits.tables import Core
from parity.derive.edits.texts import difference
from parity.derive.trace.precomputed import RoundedTable
from parity_tests.derive.pairs import images
from parity_tests.derive.test_causes_functions import Scores, attention
from parity_tests.derive.test_kinds_matching import Net, linear

ANGLES = np.arange(9)[:, None] * 1e4 ** -np.array([0.0, 0.5])


def table(values: np.ndarray, low: bool) -> torch.Tensor:
    """Return a table, rounded to float32 or not, that is no buffer of a module."""
    kinds = {"f": np.float32, "c": np.complex64}
    return torch.from_numpy(values.astype(kinds[values.dtype.kind]) if low else values)


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    one, other = x.chunk(2, -1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1)


def separate(low: bool) -> Scores:
    cos, sin = table(np.cos(ANGLES[:6]), low), table(np.sin(ANGLES[:6]), low)
    return lambda x: turned(x, cos, sin)


def joined(low: bool) -> Scores:
    both = table(np.concatenate([np.cos(ANGLES[:6]), np.sin(ANGLES[:6])], -1), low)

    def turn(x: torch.Tensor) -> torch.Tensor:
        one, other = (torch.cat([half, half], -1) * both.to(x.dtype) for half in x.chunk(2, -1))
        return torch.cat([one[..., :2] - other[..., 2:], other[..., :2] + one[..., 2:]], -1)

    return turn


def longer(low: bool) -> Scores:
    """Turn padded rows too: the table has rows that the other side lacks."""
    cos, sin = table(np.cos(ANGLES), low), table(np.sin(ANGLES), low)
    return lambda x: turned(torch.nn.functional.pad(x, (0, 0, 0, 3)), cos, sin)[..., :6, :]


def in_complex(low: bool) -> Scores:
    both = table(np.exp(1j * ANGLES[:6]), low)

    def turn(x: torch.Tensor) -> torch.Tensor:
        z = torch.complex(*x.chunk(2, -1)) * both.to(torch.complex128)
        return torch.cat([z.real, z.imag], -1)

    return turn


@pytest.mark.parametrize("low", [True, False], ids=["rounded", "exact"])
@pytest.mark.parametrize("other", [separate, joined, longer, in_complex])
def test_the_verdict_is_the_same_in_both_directions(other: Scores, low: bool):
    one, other_one = attention(turn=separate(not low)), attention(turn=other(low))
    for left, right in ((one, other_one), (other_one, one)):
        found = parity.derive(left, right, (images(2, 6, 8),))
        assert found.proven and found.rounded and found.exact <= 1e-15, str(found)
        side = "right" if (right is other_one) == low else "left"
        causes = [place.cause for place in found.divergences]
        lower = f"the {side} model computes partly in lower precision"
        sines = "sines and cosines of positions of base 1e4"
        assert causes == [f"the {side} computes {sines} in float32", lower]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_module_that_casts_first_is_named(side: str):
    class Turn(torch.nn.Module):
        def __init__(self, low: bool) -> None:
            super().__init__()
            self.dtype = torch.float32 if low else torch.float64

        def forward(self, x: Any) -> Any:
            return x * torch.arange(1, 9, dtype=self.dtype).log().to(x.dtype)

    def net(low: bool) -> torch.nn.Module:
        return torch.nn.Sequential(linear(8, 8), Turn(low), linear(8, 5))

    found = parity.derive(net(side == "left"), net(side == "right"), (images(2, 6, 8),))
    assert found.proven and found.rounded
    cause = f"the {side} model computes partly in lower precision, first in 1"
    assert [place.cause for place in found.divergences] == [cause]


def test_all_places_of_a_rounded_number_are_listed():
    def net(low: bool) -> Net:
        epsilon = float(np.float32(0.7)) if low else 0.7  # large, for rounding of it to show
        norms = {f"n{k}": torch.nn.LayerNorm(8, epsilon) for k in range(6)}

        def forward(m: Any, x: Any) -> Any:
            for k in range(6):
                x = x + getattr(m, f"fc{k}")(getattr(m, f"n{k}")(x)).tanh()
            return m.head(x)

        return Net(forward, **norms, **{f"fc{k}": linear(8, 8) for k in range(6)}, head=linear(8, 5))

    found = parity.derive(net(False), net(True), (images(2, 6, 8),))
    assert found.proven and found.rounded
    first = found.divergences[0]
    assert first.cause == "one number is rounded: 0.7 on the left, 0.6999999881 on the right, and so in 5 more places"
    assert first.places == tuple(f"n{k}" for k in range(6)) and first.to_dict()["places"] == list(first.places)


QUARTERS = np.pi / 2 * np.array([[1, 3], [3, 1], [1, 1], [5, 3], [3, 5], [1, 5]])


def quarter_turns(dtype: Any, cosine: float = 0.0) -> Scores:
    """Turn by odd multiples of pi / 2: cosines are zero up to rounding; `cosine` is added to them."""
    cos, sin = (torch.from_numpy(function(QUARTERS.astype(dtype))) for function in (np.cos, np.sin))
    return lambda x: turned(x, cos + cosine, sin)


@pytest.mark.parametrize("first", [True, False])
def test_tables_of_zeros_up_to_rounding_are_equal(first: bool):
    sides = [attention(turn=quarter_turns(dtype)) for dtype in (np.float32, np.float64)]
    found = parity.derive(*(sides if first else sides[::-1]), (images(2, 6, 8),))
    lower = f"the {'left' if first else 'right'} model computes partly in lower precision"
    assert found.proven and found.exact <= 1e-15 and found.divergences[-1].cause == lower, str(found)


def test_a_table_that_is_zero_on_one_side_alone_is_a_difference_and_no_multiple():
    sides = [attention(turn=quarter_turns(np.float64, cosine)) for cosine in (0.0, 3e-7)]
    found = parity.derive(*sides, (images(2, 6, 8),))
    assert not found.proven and found.exact > 1e-9 and "times as large" not in str(found), str(found)
    zeros = [at * QUARTERS for at in (6e-17, -4e-8)]
    assert not any("times as large" in difference(one, other) for one, other in (zeros, zeros[::-1]))


def test_small_values_of_tables_are_compared_with_the_largest():
    values = np.cos(np.pi / 4 * np.arange(12)).reshape(3, 4)
    one, off, less = (Core.of(values + by * (abs(values) < 1e-9)) for by in (0, 1e-16, 1e-9))
    assert one.is_like(off) and not one.is_like(less)


@pytest.mark.parametrize("other", [joined, longer, in_complex])
def test_tables_that_rounding_does_not_explain_are_a_difference_in_both_directions(other: Scores):
    one, far = attention(turn=separate(False)), attention(turn=lambda x: other(False)(x) * (1 + 1e-4))
    for left, right in ((one, far), (far, one)):
        found = parity.derive(left, right, (images(2, 6, 8),))
        assert not found.proven and found.exact > 1e-6


@pytest.mark.parametrize("begins", [0, 1])
def test_values_that_are_near_by_chance_are_not_rounded(begins: int):
    """Positions may begin at 1, as differences turn queries and keys; cos(0) and the number 1 are near cos(0.001)."""

    def model(first: int, plus_one: Any) -> Net:
        angles = np.arange(first, first + 6)[:, None] * 1e6 ** -np.array([0.0, 0.5])
        cos, sin = torch.from_numpy(np.cos(angles)), torch.from_numpy(np.sin(angles))

        def forward(m: Any, x: Any) -> Any:
            x = plus_one(m.stem(x).exp())
            scores = turned(m.query(x), cos, sin) @ turned(m.key(x), cos, sin).mT
            return m.head(scores.softmax(-1) @ x)

        names = {name: linear(4, 4) for name in ("stem", "query", "key", "head")}
        return Net(forward, **names)

    left, right = model(1, lambda x: torch.log(1.0 + x)), model(begins, torch.log1p)
    for one, other in ((left, right), (right, left)):
        found = parity.derive(one, other, (images(2, 6, 4),))
        assert found.proven and not found.divergences and all(use.gap < 1e-12 for use in found.uses), str(found)


def windowed(window: np.ndarray) -> Net:
    return Net(lambda m, x: m.b(m.a(x * torch.from_numpy(window).to(x.dtype)).tanh()), a=linear(64), b=linear(6, 3))


PHASES = 2 * np.pi * np.arange(64) / 64
HANN = [
    0.5 - 0.5 * np.cos(PHASES),
    np.float32(0.5) - np.float32(0.5) * np.cos(PHASES.astype(np.float32)),
    np.sin(np.arange(64, dtype=np.float32) * np.float32(np.pi / 64)) ** 2,
]  # as code writes them: values at both ends, which are the same, round differently


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 0), (1, 2), (2, 1)])
def test_windows_in_float32_are_equal_up_to_rounding(one: int, other: int):
    found = parity.derive(windowed(HANN[one]), windowed(HANN[other]), (images(3, 64),))
    assert found.proven and found.rounded and found.exact <= 1e-15, str(found)
    side = "both compute" if one and other else f"the {'left' if one else 'right'} computes"
    assert found.divergences[0].cause.startswith(f"{side} a table of 64 in float32"), str(found)


@pytest.mark.parametrize("other", [1 + 4e-7 * (np.arange(64) < 32), 1 + 6e-7 * (np.arange(64) == 31)])
def test_windows_that_rounding_does_not_explain_are_a_difference(other: np.ndarray):
    for window in HANN:
        assert not parity.derive(windowed(HANN[0]), windowed(window * other), (images(3, 64),)).proven


def in_float32(m: Net, x: Any) -> Any:
    """Multiply in float32, but by a matrix that no code casts: torch takes no float64 there."""
    return m.out(functional.linear(m.up(x).float(), m.mid.weight).to(x.dtype))


@pytest.mark.parametrize("first", [True, False])
def test_casts_are_left_out_where_code_takes_no_float64_beside_them(first: bool):
    def plain(m: Net, x: Any) -> Any:
        return m.out(m.mid(m.up(x)))

    sides = [Net(run, up=linear(6, 8), mid=linear(8, 8, False), out=linear(8, 3)) for run in (in_float32, plain)]
    found = parity.derive(*(sides if first else sides[::-1]), (images(2, 6),))
    assert found.proven and found.voided == ["left" if first else "right"], found
    assert f"code of the {found.voided[0]} model takes no float64 beside its casts to lower precision" in str(found)


def test_what_fails_without_casts_too_is_an_error():
    calls = []

    def failing(m: Net, x: Any) -> Any:
        calls.append(x)
        if len(calls) > 1:  # the first call is recorded
            raise RuntimeError("no second call")
        return m.up(x)

    with pytest.raises(UsageError, match="no second call"):
        parity.derive(Net(failing, up=linear(6, 8)), Net(lambda m, x: m.up(x), up=linear(6, 8)), (images(2, 6),))


def test_tables_of_one_cause_are_named_with_the_place_of_the_worst():
    tables = [RoundedTable(f"a.{k}", f"b.{k}", size, ANGLES, low=(True, False)) for k, size in enumerate((1e-8, 3e-7))]
    (place,) = _rounded(tables)
    assert (place.left, place.right, place.size, place.places) == ("a.1", "b.1", 3e-7, ("b.0", "b.1"))
