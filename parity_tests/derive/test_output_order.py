"""Outputs of one shape that are given in another order, or with axes of one length exchanged."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear


def test_outputs_of_one_shape_in_another_order_are_a_difference_that_is_said():
    """No parameter tells which pooled values are meant, and equal lengths not which axis is which."""

    def pooled(exchanged: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = m.up(x).tanh()
            both = y.mean(1), y.amax(1)
            return both[::-1] if exchanged else both

        return Net(forward, up=linear(8, 8))

    found = parity.derive(pooled(False), pooled(True), (images(2, 6, 8),))
    assert not found.proven and found.confirmed and found.explained == "one order of outputs"
    assert found.divergences[0].cause.startswith(
        "output 1 of the left model is output 2 of the right one and output 2 of the left model is output 1 of the"
    )


def test_heads_of_one_shape_go_by_the_place_of_their_output():
    def heads(exchanged: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = m.up(x).tanh()
            both = m.first(y), m.second(y)
            return both[::-1] if exchanged else both

        return Net(forward, up=linear(8, 8), first=linear(8, 5), second=linear(8, 5))

    found = parity.derive(heads(False), heads(True), (images(2, 6, 8),))
    assert found.proven and "first.weight: o i <-> second.weight: o i" in found.table.print()


def test_axes_of_one_length_that_are_exchanged_are_a_difference_that_is_said():
    def turned(is_turned: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = m.head(m.up(x).tanh())
            return y.mT if is_turned else y

        return Net(forward, up=linear(8, 8), head=linear(8, 6))

    found = parity.derive(turned(False), turned(True), (images(2, 6, 8),))
    assert not found.proven and found.confirmed
    assert found.divergences[0].cause.startswith(
        "the output of the left model is that of the right one with its axes in the order (0, 2, 1) (recomputed so"
    )
    told = parity.derive(turned(False), turned(True), (images(2, 5, 8),))  # other lengths tell them apart
    assert told.proven and told.correspondence == (
        "the output of the right model is compared with its axes in the order (0, 2, 1)",
    )


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize(("count", "width"), [(3, 2), (4, 4)])
def test_rows_are_ordered_by_the_outputs_past_functions_of_single_values(activation: str, count: int, width: int):
    """JAX's softplus is several operations: no output may be said to have another order, and no function to differ."""
    jax = pytest.importorskip("jax")

    def left(m: Any, x: Any) -> Any:
        run = torch.tanh if activation == "tanh" else torch.nn.functional.softplus
        return run(m.f(x)).reshape(-1, count, width)

    def right(p: Any, x: Any) -> Any:
        run = jax.numpy.tanh if activation == "tanh" else jax.nn.softplus
        return run((x @ p["w"] + p["b"]).reshape(-1, width, count)).swapaxes(1, 2)

    sides = (
        Net(left, f=linear(5, count * width)),
        (right, {"w": np.ones((5, count * width)), "b": np.ones(count * width)}),
    )
    for pair in (sides, sides[::-1]):
        found = parity.derive(*pair, (images(6, 5),))
        assert found.proven, found


def test_outputs_order_what_a_layer_reads_too():
    """Its rows may stand in any order, in which the columns before it do."""

    def model(turned: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = torch.tanh(m.f(x))
            return m.g(y), y.reshape(-1, 2, 3).transpose(1, 2) if turned else y.reshape(-1, 3, 2)

        return Net(forward, f=linear(4, 6), g=linear(6, 3))

    for turned in (False, True):
        found = parity.derive(model(turned), model(not turned), images(5, 4))
        assert found.proven, found
        assert "g.weight: o (h d) <-> g.weight: o (d h)" in found.table.print()


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("reduce", [torch.sum, torch.amax])
@pytest.mark.parametrize("width", [3, 4])
def test_groups_over_which_a_value_is_reduced_may_stand_before_or_behind(width: int, reduce: Any, kernel: bool):
    """The groups are two, as the images are: an axis by its number is none that states how many there are."""

    def model(behind: bool) -> Net:
        def forward(m: Any, x: Any) -> Any:
            y = m.f(torch.tanh(m.stem(x))).relu()
            axis = 2 if behind else 1
            return m.out(torch.tanh(reduce(y.unflatten(1, (width, 3) if behind else (3, width)), axis)))

        layer = partial(torch.nn.Conv2d, kernel_size=1) if kernel else torch.nn.Linear
        return Net(forward, stem=layer(4, 5), f=layer(5, 3 * width), out=layer(width, 2)).double()

    for behind in (False, True):
        found = parity.derive(model(behind), model(not behind), images(*((2, 4, 4, 5) if kernel else (6, 4))))
        assert found.proven and re.search(r"f.weight: \((\w) (\w)\) i.* <-> f.weight: \(\2 \1\) i", found.table.print())
