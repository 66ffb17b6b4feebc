"""Layers that one side alone has: what is said of them, and what is matched all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import parity

from .pairs import images
from .test_kinds_matching import numbers

Layer = torch.nn.Module


def convolutions(depth: int) -> list[Layer]:
    """Return convolutions with a norm and a function behind each, all of one shape but for the first one."""
    first = [torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU()]
    more = [[torch.nn.Conv2d(6, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU()] for _ in range(depth)]
    return [*first, *(layer for layers in more for layer in layers)]


def dense(depth: int) -> list[Layer]:
    """Return dense layers with a norm and a function ahead of each."""
    more = [[torch.nn.LayerNorm(6), torch.nn.GELU(), torch.nn.Linear(6, 6)] for _ in range(depth)]
    return [torch.nn.Flatten(2), torch.nn.Linear(16, 6), *(layer for layers in more for layer in layers)]


class Residual(Layer):
    """A branch that is added to what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = torch.nn.LayerNorm(6), torch.nn.Linear(6, 9), torch.nn.Linear(9, 6)

    def forward(self, x: Any) -> Any:
        return x + self.down(self.up(self.norm(x)).tanh())


def branches(depth: int) -> list[Layer]:
    return [torch.nn.Flatten(2), torch.nn.Linear(16, 6), *(Residual() for _ in range(depth))]


class Net(Layer):
    """Layers in a row, and a classifier on their mean; one layer more under a name of its own."""

    def __init__(self, layers: Sequence[Layer], extra: Sequence[Layer]):
        super().__init__()
        self.layers, self.extra = torch.nn.Sequential(*layers), torch.nn.Sequential(*extra)
        self.head = torch.nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        x = self.extra(self.layers(x))
        return self.head(x.mean((2, 3) if x.ndim > 3 else 1))


KINDS = {
    "convolutions": (convolutions, 3, "a convolution and a norm"),
    "dense": (dense, 2, "a norm and a dense layer"),
    "branches": (branches, 2, "a norm and a dense layer"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_layer_that_one_side_alone_has_is_named_and_all_others_are_matched(kind: str, side: str):
    build, first, words = KINDS[kind]
    other = {"left": "right", "right": "left"}[side]
    nets = {side: Net(build(2), build(1)[first:]), other: Net(build(2), [])}
    left, right = nets["left"].eval(), nets["right"].eval()
    x = images(2, 3, 4, 4)
    found = parity.derive(left, right, (x,))
    text = f"the {side} applies {words}, the {other} does not, with extra."
    if side == "left":
        (parting,) = found.divergences
        assert parting.cause is not None and parting.cause.startswith(text)
        assert found.missing == []
    else:
        assert all(found.reasons[name].startswith(text) for name in found.missing)
        assert {name.split(".")[0] for name in found.missing} == {"extra"}
    elements = numbers(left, (x,))
    with pytest.warns(UserWarning):
        written = found.table.apply(elements)
    for name in numbers(right, (x,)):
        if not name.startswith("extra"):
            np.testing.assert_array_equal(written[name], elements[name])
