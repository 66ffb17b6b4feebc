"""Causes in where a norm stands, and in the order of what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity

from .pairs import images
from .test_kinds_matching import Net, linear


def attention(norms: bool) -> Net:
    """Two layers of attention, whose queries and keys are normalized or not."""

    def run(m: Any, x: Any) -> Any:
        for layer in m.layers:
            q, k, v = (layer[name](x).unflatten(-1, (2, 4)).transpose(1, 2) for name in ("q", "k", "v"))
            if norms:
                q, k = layer["qn"](q), layer["kn"](k)
            weights = (q @ k.mT / 2).softmax(-1)
            x = x + layer["out"]((weights @ v).transpose(1, 2).flatten(2))
        return m.head(x)

    def layer() -> torch.nn.ModuleDict:
        extra = {name: torch.nn.LayerNorm(4, bias=False) for name in ("qn", "kn") if norms}
        return torch.nn.ModuleDict({name: linear(8, 8, False) for name in ("q", "k", "v", "out")} | extra)

    return Net(run, layers=torch.nn.ModuleList([layer(), layer()]), head=linear(8, 3))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_norms_of_queries_and_keys_that_the_left_side_alone_has_are_left_out_together(seed: int):
    """With one of them alone left out, a key might be taken for a query."""
    torch.manual_seed(seed)
    found = parity.derive(attention(True), attention(False), (images(2, 6, 8),))
    (place,) = found.divergences
    what = "the left normalizes, the right does not, with layers.{0..1}.qn and layers.{0..1}.kn"
    assert place.what == what and place.times == 4 and found.confirmed and not found.missing
    lines = [str(line) for line in found.table.lines]
    assert any("layers.{i}.k.weight: o i <-> layers.{i}.k.weight: o i" in line for line in lines), lines


def test_norms_of_queries_and_keys_that_the_right_side_alone_has_are_missing_together():
    found = parity.derive(attention(False), attention(True), (images(2, 6, 8),))
    what = "the right normalizes, the left does not, with layers.{0..1}.qn and layers.{0..1}.kn"
    assert set(found.reasons.values()) == {what} and len(found.reasons) == 4, found.reasons


def pooled(before: bool, take: Callable[[Any], Any], norm: Any) -> Net:
    return Net(lambda m, x: m.head(take(m.norm(m.fc(x))) if before else m.norm(take(m.fc(x)))), fc=linear(), norm=norm,
               head=linear(6, 3))  # fmt: skip


@pytest.mark.parametrize(("take", "text"), [
    (lambda x: x.mean(1), "the mean over 5 positions"),
    (lambda x: x.mean(1, keepdim=True), "the mean over 5 positions"),
    (lambda x: x.sum(1) / 5, "the mean over 5 positions"),  # as JAX writes it
    (lambda x: x.amax(1), "the maximum over 5 positions"),
], ids=["mean", "kept axes", "written out", "maximum"])  # fmt: skip
@pytest.mark.parametrize("swapped", [False, True])
def test_a_norm_before_or_behind_a_reduction_is_named(take: Any, text: str, swapped: bool):
    sides = [pooled(before, take, torch.nn.LayerNorm(6)) for before in (True, False)][:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(3, 5, 6),))
    (place,) = found.divergences
    which = ("right", "left") if swapped else ("left", "right")
    assert place.what == f"the {which[0]} normalizes before {text}, the {which[1]} after it, with norm"
    assert found.confirmed and not found.missing


def convolutional(first: bool) -> Net:
    """Two convolutions with batch norms, of which ReLU is the last or the first."""

    def run(m: Any, x: Any) -> Any:
        for k in range(2):
            y, norm = m.convolutions[k](x), m.norms[k]
            x = norm(y.relu()) if first else norm(y).relu()
        return m.head(x.mean((2, 3)))

    lists = {
        "convolutions": [torch.nn.Conv2d(n, 4, 3) for n in (3, 4)],
        "norms": [torch.nn.BatchNorm2d(4) for _ in "ab"],
    }
    return Net(run, head=linear(4, 3), **{name: torch.nn.ModuleList(of) for name, of in lists.items()})


@pytest.mark.parametrize("swapped", [False, True])
def test_an_activation_before_or_behind_a_norm_is_named(swapped: bool):
    sides = [convolutional(first) for first in (False, True)][:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(2, 3, 9, 9),))
    (place,) = found.divergences
    which = ("left", "right") if swapped else ("right", "left")
    assert place.what == f"the {which[0]} applies ReLU before norms.{{0..1}}, the {which[1]} after it"
    assert place.times == 2 and found.confirmed and not found.missing


def scaled(shifted_first: bool) -> Net:
    """Three norms, which multiply by their scale before or after they add their shift."""

    class Norm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = (torch.nn.Parameter(torch.randn(6)) for _ in "ab")

        def forward(self, x: Any) -> Any:
            y = f.layer_norm(x, (6,))
            return self.scale * (y + self.shift) if shifted_first else self.scale * y + self.shift

    def run(m: Any, x: Any) -> Any:
        for norm, layer in zip(m.norms, m.layers, strict=True):
            x = x + layer(norm(x)).tanh()
        return m.head(x)

    lists = {"norms": [Norm() for _ in range(3)], "layers": [linear() for _ in range(3)]}
    return Net(run, head=linear(6, 3), **{name: torch.nn.ModuleList(of) for name, of in lists.items()})


@pytest.mark.parametrize("swapped", [False, True])
def test_a_shift_that_is_added_before_the_scale_is_named_and_the_table_is_complete(swapped: bool):
    left, right = [scaled(first) for first in (False, True)][:: -1 if swapped else 1]
    found = parity.derive(left, right, (images(4, 6),))
    (place,) = found.divergences
    scale, shift = (f"norms.{{0..2}}.{name}" for name in ("scale", "shift"))
    what = f"the left multiplies by {scale} before it adds {shift}, the right after that"
    other = f"the left adds {shift} before it multiplies by {scale}, the right after that"
    assert place.what == (other if swapped else what) and found.explained == "three products in another place"
    assert found.confirmed and not found.missing
    state = {name: value.numpy() for name, value in left.state_dict().items()}
    assert all(np.array_equal(array, state[name]) for name, array in found.table.apply(state).items())


@pytest.mark.parametrize("swapped", [False, True])
def test_a_norm_behind_a_term_that_is_one_for_all_positions_is_named(swapped: bool):
    """A U-Net adds time steps before its norm: moving both norms behind the branch would make both sides alike too."""

    def net(behind: bool) -> Net:
        def forward(m: Any, x: Any, times: Any) -> Any:
            y, step = m.fc(x), m.step(torch.tanh(times))[:, None]
            y = m.norm(y + step) if behind else m.norm(y) + step
            return m.head(x + m.out(f.silu(y)))

        return Net(forward, fc=linear(), step=linear(4, 6), norm=torch.nn.LayerNorm(6), out=linear(), head=linear(6, 5))

    times = np.random.default_rng(4).standard_normal((2, 4))
    found = parity.derive(net(swapped), net(not swapped), (images(2, 5, 6), times))
    (place,) = found.divergences
    sides = ("right", "left") if swapped else ("left", "right")
    assert place.what == f"the {sides[0]} normalizes before the sum, the {sides[1]} after it, with norm"
    assert found.confirmed and not found.missing


def test_tables_of_the_powers_of_other_numbers_are_named():
    def net(base: float) -> Net:
        def forward(m: Any, x: Any, times: Any) -> Any:
            angles = times[:, None] * base ** (-torch.arange(4, dtype=torch.float64) / 4)
            return m.head(x + m.step(torch.cat([angles.sin(), angles.cos()], -1)))

        return Net(forward, step=linear(8, 6), head=linear(6, 5))

    found = parity.derive(net(1e4), net(1e3), (images(2, 6), np.array([3.0, 17.0])))
    (place,) = found.divergences
    assert found.confirmed and place.what == "a table of 4 has the powers of 0.1 on the left, 0.1778 on the right"


@pytest.mark.parametrize("swapped", [False, True])
def test_a_norm_before_or_behind_a_scale_of_each_example_is_named(swapped: bool):
    def net(before: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            y, scale = m.fc(x), x.abs().mean((1, 2), keepdim=True)  # computed from the input alone
            return m.head(m.norm(y) * scale if before else m.norm(y * scale))

        return Net(run, fc=linear(8, 8), norm=torch.nn.LayerNorm(8), head=linear(8, 3))

    found = parity.derive(*map(net, (not swapped, swapped)), (images(2, 6, 8),))
    (place,) = found.divergences
    first, other = ("right", "left") if swapped else ("left", "right")
    does = f"the {first} normalizes before it multiplies by a scale, the {other} after that"
    assert place.what == f"{does}, with norm" and found.confirmed


@pytest.mark.parametrize(("layer", "rms"), [(1e-5, 1e-6), (1e-5, 1e-4), (1e-7, 1e-6)])
def test_epsilons_of_two_norms_that_take_numbers_of_each_other_are_both_named(layer: float, rms: float):
    def net(layer: float, rms: float) -> Net:
        norms = {"norm": torch.nn.LayerNorm(6, layer), "rms": torch.nn.RMSNorm(6, rms)}
        return Net(lambda m, x: m.rms(m.fc(m.norm(m.stem(x)))), stem=linear(), fc=linear(), **norms)

    found = parity.derive(net(1e-6, 1e-5), net(layer, rms), (images(4, 6),))
    assert [tuple(map(float, place.both)) for place in found.divergences] == [(1e-6, layer), (1e-5, rms)]
    assert found.confirmed and found.explained == "two epsilons"


MEANS = {
    "lerp": torch.lerp,
    "a step": lambda x, m, b: x + b * (m - x),
    "both weights": lambda x, m, b: b * m + (1 - b) * x,
}


@pytest.mark.parametrize("name", MEANS)
def test_means_in_another_form_are_no_cause_beside_an_epsilon(name: str):
    """The first mean is of zeros, which are no activation."""

    class Step(torch.nn.Module):
        def __init__(self, eps: float) -> None:
            super().__init__()
            self.norm, self.fc = torch.nn.LayerNorm(6, eps=eps), torch.nn.Linear(6, 6)
            self.memory = torch.nn.Parameter(torch.randn(6))

    def net(eps: float, mean: Callable[..., Any]) -> Net:
        def run(net: Any, x: Any) -> Any:
            m = torch.zeros_like(x)
            for step in net.steps:
                x = x + step.fc(step.norm(x))
                m = mean(x, m, step.memory.sigmoid())
                x = x + 0.3 * m
            return net.out(x)

        return Net(run, steps=torch.nn.ModuleList(Step(eps) for _ in "ab"), out=linear(6, 3))

    sides = net(1e-3, MEANS["both weights"]), net(1e-6, MEANS[name])
    found = parity.derive(*sides, (images(3, 4, 6),))
    assert found.explained == "two epsilons" and found.confirmed and not found.missing


def test_a_factor_that_is_computed_from_the_inputs_is_no_norm():
    def model(factor: Any) -> Net:
        def run(m: Any, ids: Any) -> Any:
            return m.head((m.words(ids).sum(1) * factor(ids)).tanh())

        return Net(run, words=torch.nn.Embedding(11, 6), head=linear(6, 4))

    ids = np.array([[1, 4, 7, 1], [3, 9, 10, 2], [5, 6, 0, 8]])
    twice = model(lambda ids: torch.where(ids[:, :1] == ids[:, -1:], 2.0, 1.0))
    found = parity.derive(model(lambda ids: 1.0), twice, (ids,))
    assert not found.proven and "normalizes" not in str(found), str(found)
    assert "the right applies values of 3 x 1 computed from the inputs, the left does not" in str(found), str(found)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_factor_behind_a_norm_stands_where_it_is_read(swapped: bool):
    """The norms agree, and what the head reads differs by the factor: a quarter instead of all."""

    def net(scaled: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = m.norm(m.stem(x).tanh())
            return m.head(y * 0.25 if scaled else y)

        return Net(run, stem=linear(6, 8), norm=torch.nn.RMSNorm(8), head=linear(8, 5))

    found = parity.derive(net(swapped), net(not swapped), (images(4, 6),))
    (place,) = found.divergences
    assert (place.left, place.right) == ("head", "head") and "a factor of 0.25" in place.what and found.confirmed
    assert place.size == pytest.approx(3.0 if swapped else 0.75)  # of the largest value on the left
