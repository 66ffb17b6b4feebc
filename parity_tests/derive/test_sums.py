"""Models that compose their sums and norms otherwise: what one side lacks, or has at another place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.edits.affine import without_parameters
from parity.derive.search.candidates import read
from parity.derive.trace.call import call_of
from parity.derive.trace.sides import side
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net as Plain
from parity_tests.derive.test_kinds_matching import linear, numbers


class Block(torch.nn.Module):
    """A block of two branches, each with a norm; `kind` says how they are composed."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.norm1, self.norm2 = torch.nn.LayerNorm(6), torch.nn.LayerNorm(6)
        self.mix, self.up, self.down = linear(), linear(6, 9), linear(9, 6)
        if kind == "scaled":
            self.scale = torch.nn.Parameter(torch.rand(6))
        if kind == "normalized":
            self.last = torch.nn.LayerNorm(6)

    def mlp(self, x: Any) -> Any:
        return self.down(self.up(x).tanh())

    def forward(self, x: Any) -> Any:
        first = self.mix(x if self.kind in ("after", "in the branch") else self.norm1(x)).sin()
        if self.kind == "without the first":
            return first + self.mlp(self.norm2(first))
        if self.kind == "the second after":
            x = x + first
            return self.norm2(x + self.mlp(x))
        if self.kind == "after":
            x = self.norm1(x + first)
            return self.norm2(x + self.mlp(x))
        if self.kind == "in the branch":
            x = x + self.norm1(first)
            return x + self.norm2(self.mlp(x))
        if self.kind == "what it returns":
            x = x + first
            return x + self.norm2(self.mlp(x))
        x = x + first
        second = self.mlp(self.norm2(x))
        if self.kind == "scaled":
            second = second * self.scale
        if self.kind == "normalized":
            second = self.last(second)
        return second if self.kind == "without the second" else x + second


class Net(torch.nn.Module):
    def __init__(self, *kinds: str):
        super().__init__()
        self.stem, self.head = linear(5, 6), linear(6, 3)
        self.blocks = torch.nn.ModuleList(map(Block, kinds))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Positions(torch.nn.Module):
    """Adds positions before its blocks, or reads a table behind them; another layer stops the matching there."""

    def __init__(self, early: bool):
        super().__init__()
        self.early = early
        self.stem, self.norm, self.mix = linear(5, 6), torch.nn.LayerNorm(6), linear()
        self.table = torch.nn.Parameter(torch.randn(4 if early else 5, 6))
        self.one, self.two = linear(), linear()

    def forward(self, x: Any) -> Any:
        x = self.norm(self.stem(x) + self.table if self.early else self.stem(x))
        x = self.mix(x).tanh()
        x = x.cos() if self.early else (x @ self.table.T).softmax(-1) @ self.table
        return self.two(self.one(x).sin())


X = images(3, 4, 5)
BEFORE = "the {} normalizes before the sum, the {} after it, with blocks.{{0..1}}.norm{{1..2}} (recomputed so, they"
CASES = {
    "every block lacks its first residual": (
        ["", ""], ["without the first"] * 2,
        "the left adds the input of blocks.{0..1}, the right does not", "two residuals",
    ),
    "one block on the left lacks its second residual": (
        ["without the second", ""], ["", ""],
        "the right adds the input of blocks.0.norm2, the left does not", "one residual",
    ),
    "norms after the sums": (["", ""], ["after"] * 2, BEFORE.format("left", "right"), "four norms in another place"),
    "one of two norms of each block after its sum": (
        ["", ""], ["the second after"] * 2,
        "the left normalizes before the sum, the right after it, with blocks.{0..1}.norm2 (",
        "two norms in another place",
    ),
    "norms of what the branches read and return": (
        ["", ""], ["what it returns"] * 2,
        "the left normalizes what a branch reads, the right what it returns, with blocks.{0..1}.norm2 (",
        "two norms in another place",
    ),
    "norms of the branches' results": (
        ["after"] * 2, ["in the branch"] * 2, BEFORE.format("right", "left"), "four norms in another place",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_sums_differ_in_is_named_and_the_table_is_complete(name: str):
    kinds, others, cause, explained = CASES[name]
    left, right = Net(*kinds), Net(*others)
    found = parity.derive(left, right, (X,), seconds=10)
    assert found.verdict == "complete", str(found)
    assert [place.cause.startswith(cause) for place in found.divergences] == [True], str(found)
    assert found.explained == explained and found.first.startswith("parts at blocks.0"), str(found)
    moved = found.table.apply(numbers(left, X))
    assert all(np.array_equal(moved[name], array) for name, array in numbers(left, X).items())


def test_norms_whose_names_have_no_numbers_are_one_cause():
    def net(after: bool) -> Plain:
        def run(m: Any, x: Any) -> Any:
            for norm, layer in ((m.before, m.mix), (m.behind, m.mlp)):
                x = norm(x + layer(x).tanh()) if after else x + layer(norm(x)).tanh()
            return m.head(x)

        norms = {name: torch.nn.LayerNorm(6) for name in ("before", "behind")}
        return Plain(run, mix=linear(), mlp=linear(), head=linear(6, 3), **norms)

    found = parity.derive(net(False), net(True), (images(3, 4, 6),), seconds=10)
    (place,) = found.divergences
    assert place.cause.startswith("the left normalizes before the sum, the right after it, with before, and so in ")
    assert found.confirmed and found.explained == "two norms in another place"


LACKING = {
    "scaled": ("the {} multiplies by blocks.{{0..1}}.scale, the {} does not", "two missing parameters"),
    "normalized": ("the {} normalizes, the {} does not, with blocks.{{0..1}}.last", "two missing norms"),
}


@pytest.mark.parametrize("kind", LACKING)
def test_what_the_right_side_lacks_is_named_and_the_table_is_complete(kind: str):
    left, right = Net(kind, kind), Net("", "")
    found = parity.derive(left, right, (X,), seconds=10)
    cause, explained = LACKING[kind]
    assert found.verdict == "complete" and found.explained == explained, str(found)
    assert [place.cause.startswith(cause.format("left", "right")) for place in found.divergences] == [True], str(found)
    given = numbers(left, X)
    moved = found.table.apply(given)
    assert all(np.array_equal(moved[name], given[name]) for name in right.state_dict())


@pytest.mark.parametrize("kind", LACKING)
def test_what_the_left_side_lacks_is_named_and_all_else_is_matched(kind: str):
    left, right = Net("", ""), Net(kind, kind)
    found = parity.derive(left, right, (X,), seconds=10)
    cause = LACKING[kind][0].format("right", "left")
    assert set(found.missing) == right.state_dict().keys() - left.state_dict().keys(), str(found)
    assert all(why.startswith(cause) for why in found.reasons.values()), str(found)
    assert [place.cause.startswith(cause) for place in found.divergences] == [True], str(found)


class Parallel(torch.nn.Module):
    """Two branches side by side, whose last biases act as their sum alone."""

    def __init__(self, biased: bool):
        super().__init__()
        self.query, self.out = (torch.nn.Linear(6, 6, bias=biased) for _ in range(2))
        self.norm, self.up, self.down = torch.nn.LayerNorm(6), linear(6, 9), linear(9, 6)

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        return x + self.out(self.query(y).tanh()) + self.down(self.up(y).relu())


def test_a_bias_that_is_a_term_of_another_one_is_not_named_as_lacking():
    left, right = (torch.nn.Sequential(Parallel(biased), Parallel(biased), linear(6, 3)) for biased in (True, False))
    found = parity.derive(left, right, (images(4, 6),), seconds=10)
    causes = [place.cause for place in found.divergences]
    assert found.explained == "two missing parameters" and len(causes) == 1, str(found)
    assert causes[0].startswith("the left adds {0..1}.query.bias, the right does not"), str(found)
    assert "0.out.bias: c + 0.down.bias: c -> 0.down.bias: c" in found.table.print().replace("{i=0|1}", "0")


def test_a_search_for_a_cause_that_ends_early_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("parity.derive.explain.explanation.CAUSE_WORK", 0)
    found = parity.derive(Net("scaled"), Net(""), (X,), seconds=10)
    assert found.divergences[0].late and not found.divergences[0].cause, str(found)
    assert "(no cause was found, and not all was tried, as it takes many runs of the model)" in str(found)


def test_a_term_of_one_side_is_named_where_matching_stops_later():
    found = parity.derive(Positions(True), Positions(False), (X,), seconds=10)
    assert found.verdict == "incomplete" and found.failure, str(found)
    assert found.divergences[0].cause.startswith("the left adds table, the right does not (recomputed"), str(found)


def test_parameters_are_left_out_of_a_part_of_a_model_alone():
    """What is read behind the place where a match stopped may have a partner: nothing says that it is missing."""
    program = read(side(Net("scaled", "scaled"), call_of((X,))), None).program
    names = [name for name in program.tape.parameters if "scale" in name]
    whole, half = (
        [edit.text for edit in without_parameters(program, names, 0, span)]
        for span in (None, (0, len(program.tape.nodes) // 2))
    )
    assert whole == ["the left multiplies by blocks.{0..1}.scale, the right does not"]
    assert half == ["the left multiplies by blocks.0.scale, the right does not"]


def encoder(positions: torch.Tensor, planted: str = "", fused: bool = False) -> Plain:
    """Return two blocks of attention whose queries and keys get positions, which are a parameter or a table.

    Args:
      planted: "q" or "k", which lack them in the second block; "v" or "x", the residual, which have them there.
    """
    parts = (
        {f"qkv{k}": linear(6, 18) for k in range(2)} if fused else {f"{c}{k}": linear() for c in "qkv" for k in "01"}
    )
    parts |= {f"out{k}": linear() for k in range(2)} | {f"norm{k}": torch.nn.LayerNorm(6) for k in range(2)}

    def run(m: Any, x: Any) -> Any:
        for k in "01":
            y = x + m.positions
            reads = {c: y if (c in "qk") != (k == "1" and c == planted) else x for c in "qkvx"}
            if fused:
                layer = getattr(m, f"qkv{k}")
                weights = zip(layer.weight.split(6), layer.bias.split(6), strict=True)
                q, k_, v = (torch.nn.functional.linear(reads[c], *own) for c, own in zip("qkv", weights, strict=True))
            else:
                q, k_, v = (getattr(m, f"{c}{k}")(reads[c]) for c in "qkv")
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k_, v)
            x = getattr(m, f"norm{k}")(reads["x"] + getattr(m, f"out{k}")(mixed))
        return m.head(x)

    return Plain(run, positions=positions, head=linear(6, 3), **parts)


@pytest.mark.parametrize(("planted", "trained", "text"), [
    ("k", True, "the left adds positions, the right does not"),
    ("v", False, "the right adds a table of 5 x 6 before v1, the left does not"),
    ("x", True, "the right adds positions before a sum, the left does not"),
])  # fmt: skip
def test_positions_that_one_side_adds_before_an_operation_are_named(planted: str, trained: bool, text: str):
    table = torch.sin(torch.arange(30.0).reshape(5, 6) ** 1.3)
    left, right = (torch.nn.Parameter(table.clone()) if trained else table for _ in range(2))
    found = parity.derive(encoder(left, fused=True), encoder(right, planted), (images(2, 5, 6),))
    (place,) = found.divergences
    assert place.cause.startswith(f"{text} (recomputed so") and not found.missing, found


@pytest.mark.parametrize("trained", [0, 1])
def test_a_table_in_place_of_trained_positions_is_named(trained: int):
    sides = [torch.sin(torch.arange(30.0).reshape(5, 6) ** 1.3) for _ in range(2)]
    sides[trained] = torch.nn.Parameter(torch.zeros(1, 5, 6))

    def model(positions: Any, fused: bool) -> Plain:
        layers = {
            f"{c}{k}": linear(6, 18 if c == "q" and fused else 6) for k in "01" for c in ("q" if fused else "qkv")
        }

        def run(m: Any, x: Any) -> Any:
            x = m.stem(x) + m.positions
            for k in "01":
                q, key, v = m.layers[f"q{k}"](x).chunk(3, -1) if fused else (m.layers[f"{c}{k}"](x) for c in "qkv")
                x = m.norm(x + torch.nn.functional.scaled_dot_product_attention(q, key, v))
            return m.head(x.mean(1))

        parts = dict(stem=linear(), norm=torch.nn.LayerNorm(6), head=linear(6, 3))
        return Plain(run, positions=positions, layers=torch.nn.ModuleDict(layers), **parts)

    found = parity.derive(model(sides[0], True), model(sides[1], False), (images(2, 5, 6),))
    names = ["positions", "a table of 5 x 6"][:: -1 if trained else 1]
    assert f"the left adds {names[0]}, the right {names[1]}" in str(found), str(found)
    assert found.missing == ["positions"] * trained and not found.left_over and not found.doubtful, str(found)


def related(relative: bool, types: bool) -> Plain:
    """Return attention with relative scores, or with positions that are added, with inputs of types and positions."""

    def run(m: Any, ids: Any, kinds: Any = None, places: Any = None) -> Any:
        at = torch.arange(ids.shape[1])
        x = m.words(ids) + m.kinds(torch.zeros_like(ids) if relative else kinds) if types else m.words(ids)
        x = m.norm(x if relative else x + m.positions(at if places is None else places))
        q = m.q(x)
        scores = q @ m.k(x).mT
        if relative:
            scores = scores + torch.einsum("bld,lrd->blr", q, m.distances(at[:, None] - at + 4))
        return m.head(m.last(x + m.o((scores / 2).softmax(-1) @ m.v(x))))

    tables = {"words": 20, **({"kinds": 2} if types else {}), **({"positions": 5} if types or not relative else {})}
    tables |= {"distances": 9} if relative else {}
    embeddings = {name: torch.nn.Embedding(rows, 6) for name, rows in tables.items()}
    return Plain(
        run,
        norm=torch.nn.LayerNorm(6),
        last=torch.nn.LayerNorm(6),
        **{n: linear() for n in "qkvo"},
        head=linear(6, 3),
        **embeddings,
    )


@pytest.mark.parametrize(("types", "inputs", "alone"), [
    (False, "tokens, kinds", ""), (True, "tokens, kinds", ""), (True, "tokens, kinds, places", ""),
    (True, "tokens", "tokens, kinds, places"),
])  # fmt: skip
def test_a_term_behind_a_parameter_of_the_other_side_is_named(types: bool, inputs: str, alone: str):
    """Args: alone: inputs of the right model, where these are others: it takes those that the left one lacks."""
    tokens = np.random.default_rng(0).integers(0, 20, (3, 5))
    arrays = dict(tokens=tokens, kinds=0 * tokens, places=0 * tokens + np.arange(5))
    given, right_inputs = (tuple(arrays[name] for name in names.split(", ") if name) for names in (inputs, alone))
    found = parity.derive(related(True, types), related(False, types), given, right_inputs=right_inputs or None)
    last = found.divergences[-1]
    if types:
        assert found.divergences[0].cause.startswith("the right adds positions.weight, the left does not")
    assert (last.left, last.right) == ("o", "o") and not found.chosen, str(found)
    assert last.cause.startswith(
        "the left adds a term of distances.weight, the right does not (recomputed so, they are equal)"
    )
    assert found.missing == ([] if types else ["positions.weight"]), str(found)
