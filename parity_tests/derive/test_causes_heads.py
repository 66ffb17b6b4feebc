"""Causes in attention that concern some heads or values alone, and functions that are no known activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.edits.texts import difference
from specs.table import Table

from .pairs import images
from .test_kinds_matching import Net, linear
from .test_kinds_rotary import rotated

WIDTH, HEADS, LENGTH = 16, 4, 7
Function = Callable[[torch.Tensor], torch.Tensor]


def attention(turned: str = "", slopes: Any = None, of_keys: bool = False, biased: str = "v") -> Net:
    """An attention with a residual.

    Args:
      turned: which of q, k and v rotary positions turn.
      slopes: of the distances that are added to the scores of each head, or of the positions of keys.
      biased: which of q, k and v have a bias.
    """

    def forward(m: Any, x: Any) -> Any:
        parts = (getattr(m, name)(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for name in "qkv")
        q, k, v = (rotated(y, False) if name in turned else y for name, y in zip("qkv", parts, strict=True))
        scores, at = q @ k.mT / 2, torch.arange(x.shape[1]).double()
        if slopes is not None:
            scores = scores + torch.tensor(slopes)[:, None, None] * (at if of_keys else -(at - at[:, None]).abs())
        return x + m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    return Net(forward, **{name: torch.nn.Linear(WIDTH, WIDTH, bias=name in biased) for name in ("q", "k", "v", "out")})


def layers(act: Function) -> Net:
    def forward(m: Any, x: Any) -> Any:
        return m.head(act(m.down(act(m.up(x)))))

    return Net(forward, up=linear(WIDTH, 12), down=linear(12, WIDTH), head=linear(WIDTH, 5))


def powers(base: float, sign: float = 1.0) -> list[float]:
    return [sign * base**-k for k in range(1, HEADS + 1)]


def odd(x: torch.Tensor) -> torch.Tensor:
    return x * (0.5 + 0.5 * x.sin())


def fast(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + x.abs())


@pytest.mark.parametrize(
    ("left", "right", "what"),
    [
        (
            attention(slopes=powers(4)), attention(slopes=powers(2)),
            "slopes of positions: -0.25 to -3.91e-3 on the left, -0.5 to -0.0625 on the right",
        ),
        (
            attention(slopes=powers(4), of_keys=True), attention(slopes=powers(4, -1.0), of_keys=True),
            "slopes of positions: 0.25 to 3.91e-3 on the left, -0.25 to -3.91e-3 on the right",
        ),
        (layers(odd), layers(torch.nn.functional.silu), "x * (sin(x) / 2 + 0.5) on the left, SiLU on the right"),
        (layers(torch.nn.functional.silu), layers(fast), "SiLU on the left, x / (abs(x) + 1) on the right"),
    ],
)  # fmt: skip
def test_what_differs_is_one_cause(left: Any, right: Any, what: str):
    found = parity.derive(left, right, (images(2, LENGTH, WIDTH),))
    (place,) = found.divergences
    assert place.what == what and place.whole and place.times == 1 + ("SiLU" in what), found.divergences
    assert not found.missing and not found.inferred, str(found)


@pytest.mark.parametrize(("left", "right", "what"), [
    ("qk", "qkv", "the right {} to the output of v, the left does not"),
    ("qkv", "qk", "the left {} to the output of v, the right does not"),
    ("qk", "q", "the left {} to the output of k, the right does not"),
])  # fmt: skip
def test_rotations_of_one_of_queries_keys_and_values_are_named(left: str, right: str, what: str):
    """The search for a Table takes seconds here: this one is given."""
    lines = "{s=q|k|v|out}.weight: o i <-> {s}.weight: o i\nv.bias: c <-> v.bias: c"
    inputs = (images(2, LENGTH, WIDTH),)
    found = parity.derive(attention(left), attention(right), inputs, table=Table.parse(f"table 1\n{lines}\n"))
    (place,) = found.divergences
    assert place.what == what.format("applies sines and cosines of positions of base 100") and place.whole


def test_biases_of_keys_on_which_no_output_depends_are_no_cause():
    found = parity.derive(attention(biased="kv"), attention(biased=""), (images(2, LENGTH, WIDTH),))
    (place,) = found.divergences
    assert place.what == "the left adds v.bias, the right does not" and place.whole, str(found)
    assert found.explained == "one missing parameter" and "dropped: k.bias, v.bias on the left" in str(found)


def test_tables_are_told_by_slopes_only_if_each_head_has_the_same_distances():
    distances = -np.arange(5.0)[:, None] + np.arange(5.0)
    left, right = (np.multiply.outer(powers(base), distances) for base in (4, 2))
    hidden = np.where(distances > 0, -np.inf, 0.0)
    assert difference(left + hidden, right + hidden).startswith("slopes of positions: -0.25 to")
    right[1, 4, 0] += 1
    assert "slopes" not in difference(left, right)
    angles = np.outer([0.5, 0.25, 0.125], [1.0, 2.0, 4.0])
    assert "slopes" not in difference(angles, angles[::-1])
