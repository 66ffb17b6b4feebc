"""Causes in the order of what a block computes: branches beside or behind one another, scales, gates and norms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive.edits.edit import repeats

from .pairs import images
from .test_causes_places import blocks
from .test_kinds_matching import Net, linear


def mlp(m: Any, x: Any) -> Any:
    return m["down"](torch.tanh(m["up"](x)))


def added_to_norm(m: Any, x: Any) -> Any:
    return m["norm"](x) + mlp(m, x)


def behind_norm(m: Any, x: Any) -> Any:
    y = m["norm"](x)
    return y + mlp(m, y)


def around_norm(m: Any, x: Any) -> Any:
    return x + mlp(m, m["norm"](x))


def around_norms(m: Any, x: Any) -> Any:
    return m["norm"](x) + mlp(m, m["norm"](x))


def highway(swapped: bool) -> Any:
    def run(m: Any, x: Any) -> Any:
        gate, h = torch.sigmoid(m["down"](x)), torch.relu(m["up"](x))
        return gate * x + (1 - gate) * h if swapped else gate * h + (1 - gate) * x

    return run


def normalized(before: bool, gated: bool) -> Any:
    """A branch with a norm without parameters before or behind a scale."""

    def run(m: Any, x: Any) -> Any:
        y, scale = m["up"](x), torch.sigmoid(m["gate"](x)) if gated else 3
        return x + m["down"](f.layer_norm(y, (8,)) * scale if before else f.layer_norm(y * scale, (8,)))

    return run


def taken(earlier: bool, normed: bool) -> Any:
    """Two branches, of which the second one is added to what it reads or to what the first one is added to."""

    def run(m: Any, x: Any) -> Any:
        h = x + torch.tanh(m["gate"](x))
        h = m["norm"](h) if normed else h
        return (x if earlier else h) + mlp(m, h)

    return run


def gated(inside: bool) -> Any:
    def run(m: Any, x: Any) -> Any:
        gate, y = torch.sigmoid(m["gate"](x)), mlp(m, x)
        return gate * (y + x) if inside else gate * y + x

    return run


def combined(operation: Any) -> Any:
    return lambda m, x: m["norm"](x + operation(torch.tanh(m["gate"](x)), mlp(m, x)))


MOVED = "the {0} normalizes before it multiplies by a scale, the {1} after that"
EARLIER = (
    "the {0} adds a branch to the value from which it is computed, the {1} to an earlier value of the residual stream, "
    "with blocks.{{0..1}}.down"
)
CASES = {
    "an earlier value of the residual stream": (taken(False, False), taken(True, False), EARLIER, "two residuals"),
    "an earlier value before a norm": (taken(True, True), taken(False, True), EARLIER, "two residuals"),
    "a branch and what it is added to": (
        added_to_norm, around_norm, "the left adds the output of a norm to a branch that reads its input, the right "
        "the input to one that reads the output, with blocks.{{0..1}}.norm", "two residuals"),
    "their order": (
        around_norm, added_to_norm, "the left adds the input of a norm to a branch that reads its output, the right "
        "the output to one that reads the input, with blocks.{{0..1}}.norm", "two residuals"),
    "a branch alone": (
        added_to_norm, behind_norm, "the left has a branch that reads the input of a norm, the right its output, with "
        "blocks.{{0..1}}.norm", "two residuals"),
    "what a branch that computes the norm again is added to": (
        around_norm, around_norms, "the {0} adds the output of a norm to the branch behind it, the {1} its input, with "
        "blocks.{{0..1}}.norm", "two residuals"),
    "the gate of a highway": (
        highway(False), highway(True), "the left multiplies by a gate where the right multiplies by one minus it",
        "two gates in another place"),
    "a norm before a number": (normalized(True, False), normalized(False, False), MOVED, "two norms in another place"),
    "a norm behind a gate": (normalized(False, True), normalized(True, True), MOVED, "two norms in another place"),
    "a residual inside a gate": (
        gated(True), gated(False), "the left adds the input of blocks.0.gate before it multiplies by a gate, the right "
        "after that", "two products in another place"),
    "a residual beside a gate": (
        gated(False), gated(True), "the left multiplies by a gate before it adds the input of blocks.0.gate, the right "
        "after that", "two products in another place"),
    "a gate that is added": (
        combined(torch.mul), combined(torch.add),
        "a product of two values on the left, a sum of two values on the right", "two operations"),
    "the larger of two values": (
        combined(torch.mul), combined(torch.maximum),
        "a product of two values on the left, a maximum of two values on the right", "two operations"),
}  # fmt: skip


@pytest.mark.parametrize(("left", "right", "words", "explained"), CASES.values(), ids=CASES)
def test_what_stands_in_another_order_within_blocks_is_one_cause(left: Any, right: Any, words: str, explained: str):
    found = parity.derive(*(blocks(run, "up", "down", "gate") for run in (left, right)), (images(4, 8),))
    (place,) = found.divergences
    assert place.what in (words.format("left", "right"), words.format("right", "left"))
    assert place.times == 2 and found.confirmed and found.explained == explained


def transformer(run: Any) -> Net:
    """Two blocks of one head each, with a norm before attention and one before the layers behind it."""

    def forward(m: Any, x: Any) -> Any:
        for block in m.blocks:
            x = run(block, x)
        return m.head(x)

    every = []
    for _ in "ab":
        layers = {name: linear(8, 8) for name in ("q", "k", "v", "out", "up", "down")}
        every.append(torch.nn.ModuleDict({**layers, **{name: torch.nn.LayerNorm(8) for name in ("one", "two")}}))
    return Net(forward, blocks=torch.nn.ModuleList(every), head=linear(8, 5))


def attention(m: Any, x: Any, before: bool) -> Any:
    """Add a distance to the scores (ALiBi) before or behind their scale."""
    places, scale = torch.arange(x.shape[1]), 1 / math.sqrt(x.shape[2])
    scores, distances = m["q"](x) @ m["k"](x).mT, -(places[:, None] - places).abs() * 0.5
    scores = (scores + distances) * scale if before else scores * scale + distances
    return m["out"](scores.softmax(-1) @ m["v"](x))


def behind(m: Any, x: Any, before: bool = False) -> Any:
    x = x + attention(m, m["one"](x), before)
    return x + mlp(m, m["two"](x))


def beside(m: Any, x: Any) -> Any:
    return x + attention(m, m["one"](x), False) + mlp(m, m["two"](x))


@pytest.mark.parametrize("swapped", [False, True])
def test_branches_that_run_beside_each_other_on_one_side_are_one_cause(swapped: bool):
    sides = [transformer(run) for run in (behind, beside)][:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(3, 6, 8),))
    (place,) = found.divergences
    names = ("right", "left") if swapped else ("left", "right")
    does = f"the {names[0]} has a branch behind the one before it, the {names[1]} beside it"
    assert place.what == f"{does}, with blocks.{{0..1}}.two" and place.times == 2
    assert found.confirmed and not found.missing


def test_branches_in_another_order_are_not_said_to_be_beside_each_other():
    def turned(m: Any, x: Any) -> Any:
        x = x + mlp(m, m["two"](x))
        return x + attention(m, m["one"](x), False)

    found = parity.derive(transformer(behind), transformer(turned), (images(3, 6, 8),))
    assert not any("beside it" in place.what for place in found.divergences), found


def test_a_branch_that_the_other_side_adds_elsewhere_is_not_said_to_be_missing():
    """Without that branch the layer behind it agrees; the other side's branch has no partner then, and differs."""

    def first(m: Any, x: Any) -> Any:
        h = (x := m.stem(x)) + m.b(x).tanh()
        return m.head(m.c(h).tanh() + h)

    def beside(m: Any, x: Any) -> Any:
        return m.head(m.c(x := m.stem(x)).tanh() + m.b(x).tanh())

    layers = {"stem": linear(4, 6), "b": linear(), "c": linear(), "head": linear(6, 3)}
    found = parity.derive(Net(first, **layers), Net(beside, **layers), (images(5, 4),))
    assert not found.proven and not found.confirmed and not any(place.cause for place in found.divergences), str(found)


@pytest.mark.parametrize("swapped", [False, True])
def test_distances_before_or_behind_the_scale_of_scores_are_one_cause(swapped: bool):
    runs = [behind, lambda m, x: behind(m, x, True)][:: -1 if swapped else 1]
    found = parity.derive(*map(transformer, runs), (images(3, 6, 8),))
    (place,) = found.divergences
    does = "adds a table before it multiplies by 0.354" if swapped else "multiplies by 0.354 before it adds a table"
    assert place.what == f"the left {does}, the right after that" and place.times == 2 and found.confirmed


def test_numbers_that_are_whole_parts_of_paths_count_blocks_before_others_do():
    """As of nanoGPT: ln_1 and ln_2 are two norms of one block."""
    sites = [f"h.{block}.ln_{norm}" for block in (0, 1) for norm in (1, 2)]
    assert repeats(sites[1], sites, str) == [sites[1:2], sites[1::2], sites]
