"""Masks that are given as inputs: of floats and of truth values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
X = images(2, 4, 6)
MASK = np.array([[1, 1, 0, 1], [1, 0, 1, 1]])
CAUSAL = np.tril(np.ones((4, 4), bool))
ADDITIVE = {str(low): np.where(CAUSAL, 0, low).astype(np.float32) for low in (-np.inf, -1e9, np.finfo("f").min)}


def net(function: Any) -> Net:
    """Return two layers with a function of (values, mask) between them."""
    return Net(lambda m, x, mask: m.b(function(m.a(x).tanh(), mask)), a=linear(), b=linear(6, 3))


def multiplied(x: Any, mask: Any) -> Any:
    return x * mask[..., None]


def chosen(x: Any, mask: Any) -> Any:
    return torch.where(mask[..., None] > 0, x, 0.0)


def attended(x: Any, mask: Any) -> Any:
    return (x @ x.mT + mask).softmax(-1) @ x


@pytest.mark.parametrize("kind", ["float32", "bool", "int64"])
def test_a_mask_of_any_kind_keeps_its_values(kind: str):
    found = parity.derive(net(multiplied), net(chosen), (X, MASK.astype(kind)))
    assert found.proven
    assert found.kept == [
        "the given values of input 2 on the left and the right, as its two values are taken for a mask"
    ]


@pytest.mark.parametrize("low", ADDITIVE)
def test_a_mask_that_is_added_keeps_its_values(low: str):
    found = parity.derive(net(attended), net(attended), (X, ADDITIVE[low]))
    assert found.proven and len(found.kept) == 1


def test_a_mask_that_is_added_goes_to_the_right_input_with_other_axes():
    def turned(x: Any, mask: Any) -> Any:
        return (x @ x.mT + mask.mT).softmax(-1) @ x

    mask = ADDITIVE["-inf"]
    assert parity.derive(net(attended), net(turned), (X, mask), (X, mask.T)).proven


def test_two_numbers_that_hide_nothing_are_drawn():
    found = parity.derive(net(multiplied), net(chosen), (X, np.where(MASK, 1.0, 2.0)))
    assert not found.proven and not found.kept
