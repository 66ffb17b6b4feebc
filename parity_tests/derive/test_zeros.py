"""Rows of zeros, as padding of frames has: one model alone may hide them, or divide by their norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
BEFORE = "not equal for inputs with "
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
        (
            lambda x: torch.nn.functional.normalize(x, dim=-1),
            lambda x: x / x.norm(dim=-1, keepdim=True),
            "right model alone are NaN",
        ),
        (
            lambda x: x / x.norm(dim=-1, keepdim=True),
            lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-30),
            "left model alone are NaN",
        ),
        (lambda x: x / x.norm(dim=-1, keepdim=True), lambda x: x * x.norm(dim=-1, keepdim=True) ** -1, ""),
        (torch.tanh, lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()), ""),
    ],
    ids=["normalize", "epsilon", "both", "neither"],
)
def test_zeros_for_which_outputs_of_one_model_alone_are_not_finite_are_said(left: Any, right: Any, said: str):
    found = parity.derive(net(left), net(right), (images(3, 6),))
    text = f"{SAID} of the {said}".removeprefix(BEFORE)
    assert found.proven and found.absent == (text if said else "")


def test_zeros_that_make_outputs_of_one_model_alone_infinite_are_said():
    def model(least: float) -> Net:
        return Net(lambda m, x: m.a(x) + (x.abs().sum(-1, True) + least).log(), a=linear())

    found = parity.derive(model(0.0), model(1e-30), (images(3, 6),))
    assert found.proven and f"{SAID} of the left model alone are infinite" in str(found)
    assert not parity.derive(model(1e-30), model(1e-30), (images(3, 6),)).absent


def test_zeros_go_to_the_right_input_with_other_axes():
    left = Net(hidden, a=linear(), b=linear(6, 3))
    right = Net(lambda m, x: hidden(m, x.mT), a=linear(), b=linear(6, 3))
    x = images(3, 4, 6)
    found = parity.derive(left, right, (x,), (np.swapaxes(x, 1, 2),))
    assert found.proven and not found.absent


def experts(route: Any, hides: bool = False) -> Net:
    """Return two of four experts for each row; route makes gates of scores."""

    def run(m: Any, x: Any) -> Any:
        gates = route(m.router(x).softmax(-1))
        y = m.b(torch.einsum("ne,neh->nh", gates, m.own(x).unflatten(-1, (4, 6))).tanh())
        return y * (x != 0).any(-1, keepdim=True) if hides else y

    return Net(run, router=linear(6, 4, False), own=linear(6, 24), b=linear(6, 3))


def first_two(gates: Any) -> Any:
    values, places = gates.topk(2, -1)
    return torch.zeros_like(gates).scatter(-1, places, values)


def all_above(gates: Any) -> Any:
    return gates * (gates >= gates.sort(-1).values[..., -2:-1])


@pytest.mark.parametrize(
    ("right", "hides", "ties"), [(all_above, False, True), (all_above, True, False), (first_two, True, False)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_experts_that_tie_for_zeros_are_told_from_zeros_that_one_model_hides(
    right: Any, hides: bool, ties: bool, turned: bool
):
    pair = experts(first_two), experts(right, hides)
    found = parity.derive(*(pair[::-1] if turned else pair), (images(7, 6),))
    reason = ", where models choose among equal values" * ties
    assert found.proven and found.absent.startswith(f"rows of zeros in input 1{reason}: with one"), str(found)


def test_experts_that_tie_alike_are_no_difference():
    found = parity.derive(experts(first_two), experts(first_two), (images(7, 6),))
    assert found.proven and not found.absent


@pytest.mark.parametrize("examples", [1, 3])
def test_single_zeros_that_one_model_hides_a_row_for_are_said(examples: int):
    def whole(m: Any, x: Any) -> Any:
        return (m.b(m.a(x).tanh()) * (x != 0).all(-1, keepdim=True)).sum(1)

    models = [Net(run, a=linear(), b=linear(6, 3)) for run in (hidden, whole)]
    for pair in (models, models[::-1]):
        found = parity.derive(*pair, (images(examples, 4, 6),))
        assert found.proven and f"{BEFORE}single zeros in input 1: with these, outputs differ by" in str(found)
