"""Layers and norms that one side alone applies, or applies more often."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import parity

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear, numbers

Layer = torch.nn.Module
LETTERS = "abcdefgh"  # names without numbers, of which nothing says how they go together


def chain(widths: tuple[int, ...], residual: bool, numbered: bool = False) -> Net:
    """Convolutions with batch norms in a row, added to what they read where the widths are equal, and a head."""
    every = [
        torch.nn.Sequential(torch.nn.Conv2d(i, o, 3, padding=1), torch.nn.BatchNorm2d(o))
        for i, o in itertools.pairwise((3, *widths))
    ]
    names = map(str, range(len(every))) if numbered else LETTERS

    def run(m: Any, x: Any) -> Any:
        for block in m.blocks.values():
            y = block(x).relu()
            x = x + y if residual and x.shape == y.shape else y
        return m.head(x.mean((2, 3)))

    blocks = torch.nn.ModuleDict(dict(zip(names, every, strict=False)))
    return Net(run, blocks=blocks, head=linear(widths[-1], 5)).eval()


def in_paddle(widths: tuple[int, ...]) -> Any:
    """The same in paddle, without residuals."""
    import paddle
    from paddle import nn

    def block(i: int, o: int) -> Any:
        return nn.Sequential(nn.Conv2D(i, o, 3, padding=1), nn.BatchNorm2D(o), nn.ReLU())

    pairs = itertools.pairwise((3, *widths))
    parts = [(name, block(*pair)) for name, pair in zip(LETTERS, pairs, strict=False)]
    paddle.seed(0)
    model = nn.Sequential(
        *parts, ("pool", nn.AdaptiveAvgPool2D(1)), ("f", nn.Flatten()), ("g", nn.Linear(widths[-1], 5))
    )
    model.eval()
    return model


@pytest.mark.parametrize("residual", [False, True])
def test_a_layer_in_a_chain_that_the_left_alone_has_is_the_cause(residual: bool):
    """All later layers have the partners that are left."""
    torch.manual_seed(0)
    found = parity.derive(chain((4, 4, 4, 6, 6), residual), chain((4, 4, 6, 6), residual), (images(2, 3, 6, 6),))
    (place,) = found.divergences
    assert place.what == "the left applies a convolution and a norm, the right does not, with blocks.c.{0..1}", str(
        found
    )
    assert found.confirmed and not found.missing and found.explained == "one layer"
    moves = [str(line) for line in found.table.lines if line.kind == "move"]
    assert any("blocks.d.0.weight: o i h w <-> blocks.c.0.weight: o i h w" in line for line in moves), moves


def test_a_layer_in_a_chain_that_the_right_alone_has_is_missing_with_its_cause():
    needs("paddle")
    torch.manual_seed(0)
    found = parity.derive(chain((4, 4, 6), False), in_paddle((4, 4, 4, 6)), (images(2, 3, 6, 6),))
    why = "the right applies a convolution and a norm, the left does not, with c.{0..2}"
    assert set(found.reasons.values()) == {why} and not found.left_over, str(found)
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1._mean", "1._variance")
    assert set(found.missing) == {f"c.{name}" for name in names}


def test_a_residual_layer_that_the_right_alone_has_is_left_out_with_its_sum():
    """Without the branch alone, the sum is twice its value, which is nearly what the next layer reads on the left."""
    torch.manual_seed(0)
    found = parity.derive(chain((4, 4, 6), True), chain((4, 4, 4, 6), True), (images(2, 3, 6, 6),))
    why = "the right applies a convolution and a norm, the left does not, with blocks.c.{0..1}"
    assert set(found.reasons.values()) == {why} and not found.divergences and not found.chosen, str(found)


def test_the_layer_is_named_beside_other_depths():
    torch.manual_seed(0)
    left, right = (chain((4,) * depth, True, numbered=True) for depth in (4, 3))
    text = str(parity.derive(left, right, (images(2, 3, 6, 6),)))
    assert "depths differ: the left model has 4 blocks in blocks, the right one 3" in text
    assert ": the left applies a convolution and a norm, the right does not, with blocks.3.{0..1}" in text, text
    assert "order of parts" not in text, text  # a convolution and its norm are no two blocks


@pytest.mark.parametrize("times", [(2, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("layer", [False, True], ids=["norm", "layer"])
def test_what_one_side_applies_more_often_is_named(times: tuple[int, int], layer: bool):
    """Its parameters have partners, as both sides apply it at least once."""
    torch.manual_seed(0)

    def net(times: int) -> Net:
        def run(m: Any, x: Any) -> Any:
            x = m.stem(x)
            for _ in range(times):
                x = m.norm(x + m.fc(x).tanh() if layer else x)
            return m.head(x)

        parts = {"fc": linear(8, 8)} if layer else {}
        return Net(run, stem=linear(6, 8), norm=torch.nn.LayerNorm(8), head=linear(8, 5), **parts)

    found = parity.derive(*map(net, times), (images(3, 4, 6),))
    one, other = ("left", "right")[:: 1 if times[0] > times[1] else -1]
    (place,) = found.divergences
    does = "applies a dense layer and a norm" if layer else "normalizes"
    assert place.what == f"the {one} {does} more often than the {other}, with {'fc and ' * layer}norm", str(found)
    assert found.confirmed and not found.missing


@pytest.mark.parametrize("swapped", [False, True])
def test_a_gate_that_one_side_alone_has_is_named(swapped: bool):
    """Squeeze-and-excitation, whose parameters have no partner, or are not read there."""
    torch.manual_seed(0)

    def net(gated: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = m.stem(x).tanh()
            gate = m.excite(m.squeeze(y.mean(1, keepdim=True)).relu()).sigmoid()
            return m.head(m.down(y * gate if gated else y).tanh())

        parts = {"squeeze": linear(8, 3), "excite": linear(3, 8), "down": linear(8, 7), "head": linear(7, 5)}
        return Net(run, stem=linear(6, 8), **parts)

    found = parity.derive(net(not swapped), net(swapped), (images(3, 4, 6),))
    one, other = ("right", "left") if swapped else ("left", "right")
    assert f"the {one} multiplies by a gate, the {other} does not" in str(found), str(found)
    assert swapped or (found.confirmed and not found.missing)


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


class Row(Layer):
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
    nets = {side: Row(build(2), build(1)[first:]), other: Row(build(2), [])}
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
