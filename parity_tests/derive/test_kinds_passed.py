"""Uses without a partner that are passed over: layers of one side alone, gates of other widths, biases before norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity

from .pairs import images
from .test_kinds_matching import Net, linear, numbers


def block(i: int, o: int, size: int = 3, groups: int = 1, bias: bool = False) -> torch.nn.Sequential:
    convolution = torch.nn.Conv2d(i, o, size, padding=size // 2, groups=groups, bias=bias)
    return torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(o))


def network(more: bool = False, width: int = 4, bias: bool = False) -> torch.nn.Module:
    """A small network with a gate of this width; `more` has a layer behind the stem, `bias` one before a norm."""

    def run(m: Any, x: Any) -> Any:
        x = torch.relu(m.stem(x))
        x = torch.relu(m.more(x)) if more else x
        x = m.pointwise(torch.relu(m.depthwise(x)))
        x = x * torch.sigmoid(m.expand(torch.relu(m.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.relu(m.last(torch.relu(m.out(x))))
        return m.head(x.mean((2, 3)))

    parts = {
        "stem": block(3, 8), "depthwise": block(8, 8, 3, 8), "pointwise": block(8, 12, 1),
        "squeeze": torch.nn.Conv2d(12, width, 1), "expand": torch.nn.Conv2d(width, 12, 1),
        "out": block(12, 10, 1, bias=bias), "last": block(10, 12), "head": linear(12, 5),
    }  # fmt: skip
    return Net(run, **parts, **({"more": block(8, 8, 1)} if more else {}))


ONLY = {
    "a layer on the right alone": ({}, {"more": True}, ("more",)),
    "a layer on the left alone": ({"more": True}, {}, ()),
    "a narrower gate": ({}, {"width": 3}, ("squeeze", "expand")),
}


@pytest.mark.parametrize("name", ONLY)
def test_all_but_what_differs_has_a_line_and_what_is_not_sure_is_marked(name: str):
    ours, theirs, without = ONLY[name]
    left, right, x = network(**ours), network(**theirs), images(2, 3, 16, 12)
    found = parity.derive(left, right, (x,))
    assert not found.proven and {part.split(".")[0] for part in found.missing} == {*without}
    assert bool(found.failure) == (name == "a narrower gate")  # a layer of one side is left out
    given = numbers(left, x)
    for k, line in enumerate(found.table.lines):
        if line.kind == "move":
            assert [str(array) for array in line.left.arrays] == [str(array) for array in line.right.arrays], k
    sure = {part for step in found.uses if step.gap <= 1e-9 for part in step.right} | {*found.inferred}
    assert {name for name in given if name.split(".")[-1] == "weight" and name.split(".")[0] not in without} - sure <= {
        "more.0.weight", "more.1.weight", "depthwise.0.weight"
    }  # fmt: skip


def test_other_models_are_not_matched_by_the_order_of_their_layers():
    left = Net(lambda m, x: m.c(m.b(m.a(x).tanh()).sin()), a=linear(), b=linear(), c=linear())
    right = Net(lambda m, x: m.c(f.softmax(m.b(torch.cumsum(x, 1)), -1)), b=linear(), c=linear())
    found = parity.derive(left, right, (images(9, 6),))
    marked = {*found.missing, *found.inferred}
    assert not found.proven and {"b.weight", "c.weight"} <= marked


def test_a_bias_before_a_norm_on_the_left_alone_is_added_to_no_mean():
    """The mean would be that of the left less the bias, which no line says: the bias is dropped, the models part."""
    left, right, x = network(bias=True), network(), images(2, 3, 16, 12)
    found = parity.derive(left, right, (x,))
    assert not found.missing and not found.proven
    moved = found.table.apply(given := numbers(left, x))
    assert np.array_equal(moved["out.1.running_mean"], given["out.1.running_mean"])
