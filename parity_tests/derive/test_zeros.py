"""Rows of zeros, as padding of frames has: one model alone may hide them, or divide by their norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
BEFORE = "equal only for inputs without "
SAID = f"{BEFORE}rows of zeros in input 1: with one, outputs"


def net(function: Any) -> Net:
    return Net(lambda m, x: m.b(m.a(function(x)).tanh()), a=linear(), b=linear(6, 3))


def hidden(m: Any, x: Any) -> Any:
    return (m.b(m.a(x).tanh()) * (x != 0).any(-1, keepdim=True)).sum(1)


def summed(m: Any, x: Any) -> Any:
    return m.b(m.a(x).tanh()).sum(1)


@pytest.mark.parametrize("examples", [1, 3])
def test_rows_that_one_model_hides_are_said(examples: int):
    models = [Net(run, a=linear(), b=linear(6, 3)) for run in (hidden, summed)]
    for pair in (models, models[::-1]):
        found = parity.derive(*pair, (images(examples, 4, 6),))
        assert found.proven and f"{SAID} differ by" in str(found) and f"# {SAID} differ by" in str(found.table)
        assert found.to_dict()["absent"] == found.absent


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (lambda x: torch.nn.functional.normalize(x, dim=-1), lambda x: x / x.norm(dim=-1, keepdim=True), "right"),
        (lambda x: x / x.norm(dim=-1, keepdim=True), lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-30), "left"),
        (lambda x: x / x.norm(dim=-1, keepdim=True), lambda x: x * x.norm(dim=-1, keepdim=True) ** -1, ""),
        (torch.tanh, lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()), ""),
    ],
    ids=["normalize", "epsilon", "both", "neither"],
)
def test_norms_of_zero_by_which_one_model_alone_divides_are_said(left: Any, right: Any, said: str):
    found = parity.derive(net(left), net(right), (images(3, 6),))
    text = f"{SAID} of the {said} model alone are NaN".removeprefix(BEFORE)
    assert found.proven and found.absent == (text if said else "")


def test_zeros_go_to_the_right_input_with_other_axes():
    left = Net(hidden, a=linear(), b=linear(6, 3))
    right = Net(lambda m, x: hidden(m, x.mT), a=linear(), b=linear(6, 3))
    x = images(3, 4, 6)
    found = parity.derive(left, right, (x,), (np.swapaxes(x, 1, 2),))
    assert found.proven and not found.absent
