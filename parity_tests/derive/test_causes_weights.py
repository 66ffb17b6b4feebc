"""Causes in how models use parameters: functions of them, and parameters that one model uses at several places."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm

import parity

from .pairs import images
from .test_kinds_matching import Net, linear


def dense(layer: torch.nn.Module | None = None, bias: Any = lambda b: b) -> Net:
    first = layer or linear(5, 8)
    if layer is None:
        return Net(lambda m, x: m.out(torch.tanh(x @ m.first.weight.T + bias(m.first.bias))), first=first,
                   out=linear(8, 3))  # fmt: skip
    return Net(lambda m, x: m.out(torch.tanh(m.first(x))), first=first, out=linear(8, 3))


def twice(second: bool) -> Net:
    def forward(m: Any, x: Any) -> Any:
        x = torch.tanh(m.layers[0](torch.tanh(m.first(x))))
        return m.out(torch.tanh(m.layers[-1](x)))

    layers = torch.nn.ModuleList([linear(8, 8) for _ in range(1 + second)])
    return Net(forward, first=linear(5, 8), layers=layers, out=linear(8, 3))


def head(tied: bool) -> Net:
    def forward(m: Any, x: Any) -> Any:
        x = torch.tanh(m.embed(x)).cumsum(1)
        return x @ m.embed.weight.T if tied else m.head(x)

    layers = {} if tied else {"head": linear(8, 11, bias=False)}
    return Net(forward, embed=torch.nn.Embedding(11, 8), **layers)


SPECTRAL = "first.parametrizations.weight.original by a number that it computes, as spectral normalization does"
torch.manual_seed(0)  # one cause needs a bias with a negative element
FUNCTIONS = {
    "a bias on the left": (dense(bias=torch.abs), dense(), "the left applies abs to first.bias, the right does not"),
    "a bias on the right": (dense(), dense(bias=torch.abs), "the right applies abs to first.bias, the left does not"),
    "spectral normalization on the left": (
        dense(spectral_norm(torch.nn.Linear(5, 8))), dense(),
        f"the left divides or multiplies {SPECTRAL}, the right does not"),
    "spectral normalization on the right": (
        dense(), dense(spectral_norm(torch.nn.Linear(5, 8))),
        f"the right divides or multiplies {SPECTRAL}, the left does not"),
}  # fmt: skip


@pytest.mark.parametrize(("left", "right", "cause"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_of_a_parameter_is_named(left: Net, right: Net, cause: str):
    found = parity.derive(left, right, (images(6, 5),))
    (place,) = found.divergences
    assert not found.missing and found.confirmed
    assert (place.kind, place.what) == ("function of a parameter", cause)


def test_two_layers_and_one_that_is_used_twice_are_one_cause():
    found = parity.derive(twice(True), twice(False), (images(6, 5),))
    (place,) = found.divergences
    own, other = "layers.1.weight and layers.1.bias", "layers.0.weight and layers.0.bias"
    assert place.what == f"the left has {own} of its own, the right uses {other} there too"
    assert found.confirmed and found.explained == "two shared parameters"


@pytest.mark.parametrize("shared", [False, True])
def test_blocks_of_which_one_side_runs_one_alone_are_one_cause(shared: bool):
    """Blocks that nothing reads are paired with none that the other side runs."""

    def model(run: Any) -> Net:
        def forward(m: Any, x: Any) -> Any:
            for block in run(m.blocks):
                x = block(x).tanh()
            return m.head(x)

        blocks = [torch.nn.Sequential(linear(), torch.nn.LayerNorm(6)) for _ in "abc"]
        return Net(forward, blocks=torch.nn.ModuleList(blocks), head=linear(6, 3))

    left, right = model(lambda blocks: blocks), model(lambda blocks: [blocks[-1]] * 3)
    if shared:
        right.blocks = torch.nn.ModuleList([right.blocks[0]] * 3)
    found = parity.derive(left, right, (images(5, 6),))
    (place,) = found.divergences
    assert place.what.startswith("the left has blocks.{1..2}.{0..1}.weight and") and "right uses" in place.what
    assert found.confirmed and not found.missing and not found.depths and "blocks.{i=" not in found.table.print()
    found.table.layout(*({name: array.shape for name, array in side.state_dict().items()} for side in (left, right)))
    text = found.table.print()  # the left side has a line of that name for its own block 0
    assert shared or all(f"drop <- blocks.{k}.0.weight" in text for k in (0, 1)), text
    assert shared or "# only on the right, where nothing reads it: blocks.{0..1}.{0..1}.bias" in text.splitlines(), text
    assert found.arrays[1] - found.written == len(re.findall(r"(?m)^drop <- \S+$", text)) == (0 if shared else 4)


def test_a_layer_of_its_own_is_named_beside_one_that_nothing_reads():
    def model(last: str, **layers: Any) -> Net:
        return Net(lambda m, x: getattr(m, last)(m.a(x).tanh()).sin(), a=linear(4, 4), unread=linear(4, 4), **layers)

    found = parity.derive(model("b", b=linear(4, 4)), model("a"), (images(3, 4),))
    assert "the left has b.weight and b.bias of its own" in found.divergences[0].what, str(found)


def test_a_head_of_its_own_and_one_that_is_the_embedding_are_told_apart():
    tokens = torch.arange(36).reshape(4, 9).numpy() % 11
    found = parity.derive(head(False), head(True), (tokens,))
    (place,) = found.divergences
    assert place.what == "the left has head.weight of its own, the right uses embed.weight there too"
    assert found.confirmed


def test_tokens_that_read_some_rows_are_why_a_tied_table_is_not_told():
    tokens = torch.arange(36).reshape(4, 9).numpy() % 7
    found = parity.derive(head(False), head(True), (tokens,))
    rows = "7 of its 11 rows are those of embed.weight, the others those of head.weight"
    assert found.reasons["embed.weight"] == f"{rows}, as if the right model used one table where the left one has two"
    assert found.following.startswith("give tokens that read all rows of these tables")


def convolutional(groups: int) -> Net:
    layers: dict[str, torch.nn.Module] = {"norm": torch.nn.GroupNorm(groups, 8)} if groups else {}
    return Net(lambda m, x: m.out((m.norm(m.first(x)) if groups else m.first(x)).relu()),
               first=torch.nn.Conv2d(3, 8, 3, padding=1), out=torch.nn.Conv2d(8, 4, 1), **layers)  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True])
def test_a_group_norm_that_one_side_lacks_is_one_cause(swapped: bool):
    sides = (convolutional(4), convolutional(0))[:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(2, 3, 7, 7),))
    has, lacks = ("right", "left") if swapped else ("left", "right")
    what = f"the {has} normalizes, the {lacks} does not, with norm"
    if swapped:  # its parameters have no partner
        assert set(found.reasons) == {"norm.weight", "norm.bias"} and set(found.reasons.values()) == {what}
    else:
        assert [place.what for place in found.divergences] == [what] and found.confirmed


def recurrent() -> tuple[Net, Net]:
    """A GRU of torch, and a cell as JAX has it, with one bias for each gate and none that the reset gate multiplies."""

    def own(m: Any, x: Any) -> Any:
        h, outputs = torch.zeros(len(x), 4), []
        for t in range(x.shape[1]):
            (r, z, n), (hr, hz, hn) = m.ih(x[:, t]).chunk(3, -1), m.hh(h).chunk(3, -1)
            r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
            h = (1 - z) * (n + r * hn).tanh() + z * h
            outputs.append(h)
        return m.out(torch.stack(outputs, 1))

    left = Net(lambda m, x: m.out(m.gru(x)[0]), gru=torch.nn.GRU(3, 4, batch_first=True), out=linear(4, 2))
    return left, Net(own, ih=linear(3, 12), hh=linear(4, 12, False), out=linear(4, 2))


def test_a_part_of_a_bias_that_one_side_lacks_is_named():
    found = parity.derive(*recurrent(), (images(2, 2, 3),))
    (place,) = found.divergences
    assert place.what == "the left adds 4 of 12 elements of gru.bias_hh_l0, the right does not" and found.confirmed


def test_an_activation_of_one_term_alone_is_no_cause_where_the_next_use_parts(monkeypatch: pytest.MonkeyPatch):
    """What a bias is added to agrees once tanh is applied before that sum, whatever differs."""
    monkeypatch.setattr("parity.derive.explain.explanation.without_elements", lambda *_: iter(()))
    found = parity.derive(*recurrent(), (images(2, 5, 3),))
    assert found.divergences and not any("tanh" in place.what for place in found.divergences), found.divergences
