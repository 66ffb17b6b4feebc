"""Models that differ by less than outputs show are not called equal: small branches, epsilons of large values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

Function = Callable[[Any], Any]
gelu = torch.nn.functional.gelu


def branch(scale: float, function: Function) -> Net:
    return Net(lambda m, x: m.out(x + scale * m.b(function(m.a(x)))), a=linear(), b=linear(), out=linear(6, 3))


def by_tanh(x: Any) -> Any:
    return gelu(x, approximate="tanh")


@pytest.mark.parametrize(
    ("left", "right", "cause"),
    [
        (
            branch(1e-7, gelu),
            branch(1e-7, by_tanh),
            "GELU by tanh on the right",
        ),
        (branch(1e-10, gelu), branch(1e-10, torch.relu), "ReLU on the right"),
        (branch(1e-10, gelu), branch(0.0, gelu), "gradients differ by 1.0 of their largest"),
    ],
)
def test_a_difference_in_a_small_branch_is_named_and_nothing_is_proven(left: Net, right: Net, cause: str):
    found = parity.derive(left, right, (images(4, 6),))
    assert not found.missing and not found.proven and found.error < 1e-8  # near what counts as equal
    assert cause in str(found), found


def normal(epsilon: float, scale: float) -> Net:
    norm = torch.nn.LayerNorm(6, eps=epsilon)
    return Net(lambda m, x: m.out(m.norm(scale * x)), norm=norm, out=linear(6, 3))


def test_an_epsilon_that_hardly_shows_beside_large_values_is_named():
    found = parity.derive(normal(1e-5, 400.0), normal(1e-6, 400.0), (images(4, 6),))
    assert not found.proven and found.incomparable.endswith("epsilon 1e-5 on the left, 1e-6 on the right"), found
    assert parity.derive(normal(1e-5, 400.0), normal(1e-5, 400.0), (images(4, 6),)).proven


def test_an_epsilon_that_is_the_other_one_in_float32_is_the_same():
    found = parity.derive(normal(1e-5, 1e-2), normal(9.99999974738e-6, 1e-2), (images(4, 6),))
    assert found.proven and found.error > 1e-13, found  # more than rounding of float64


def alike(first: float) -> Net:
    """Hidden units of which the first two are multiplied alike, and others are not."""
    scales = torch.tensor([first, first, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    return Net(lambda m, x: m.b(m.a(x).tanh() * scales.to(x.dtype)), a=linear(), b=linear(6, 3))


def test_units_of_which_some_may_be_exchanged_are_not_called_free():
    found = parity.derive(alike(1.0), alike(1.0), (images(4, 6),))
    assert found.proven and not found.freedom, found.freedom


def test_an_epsilon_of_normalized_outputs_is_named_however_small_its_effect():
    """No use of a parameter comes after it: outputs that are not proven equal part."""

    def unit(epsilon: float) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = m.b(m.a(x).tanh())
            length = y.square().sum(-1, keepdim=True).sqrt()
            return y / (length + epsilon if epsilon else length)

        return Net(run, a=linear(), b=linear())

    found = parity.derive(unit(0.0), unit(3e-9), (images(4, 6),))
    assert found.verdict == "complete" and 1e-9 < found.error < 1e-8
    assert "epsilon 3e-9 on the right, which the left does not have" in found.divergences[0].cause
