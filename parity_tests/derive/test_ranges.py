"""Rows that one model has and the other lacks, and square matrices that one uses transposed: what a derivation says."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import parity
from convert.errors import ConvertError
from convert.table.by_table import plan
from parity.derive.findings.converting import converting
from parity.derive.findings.derivation import Derivation
from parity.derive.findings.remarks import remarks
from parity.derive.report import page
from specs.table import Table, TableError

from ..conftest import needs
from . import test_kinds_matching as parts
from .pairs import images

TOKENS = np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])


class Model(torch.nn.Module):
    """Tokens and learned positions before a norm."""

    def __init__(self, positions: int, words: int = 5):
        super().__init__()
        self.words, self.pos = torch.nn.Embedding(words, 4), torch.nn.Parameter(torch.randn(positions, 4))
        self.norm = torch.nn.LayerNorm(4)

    def forward(self, tokens: Any) -> Any:
        return self.norm(self.words(tokens) + self.pos[: tokens.shape[1]])


def arrays(positions: int, words: int = 5) -> dict[str, Any]:
    return {name: array.detach().numpy() for name, array in Model(positions, words).state_dict().items()}


@pytest.fixture(scope="module")
def dropped() -> Derivation:
    """Of 7 positions on the left, the right model has 5."""
    return parity.derive(Model(7), Model(5), (TOKENS,))


@pytest.fixture(scope="module")
def filled() -> Derivation:
    """Of 8 tokens on the right, the left model has 5."""
    return parity.derive(Model(5), Model(5, 8), (TOKENS,))


def test_rows_that_a_proven_table_drops_are_counted_in_verdict_table_page_and_json(dropped: Derivation):
    first = "proven, but for 2 of 7 rows of pos, which are dropped: outputs are equal"
    said = (
        "dropped, outside any proof, as the right model has no place for it: pos: x[5:] i (2 of 7 rows): where a range"
    )
    assert dropped.proven and str(dropped).startswith(first), str(dropped)
    assert f"\n{said}" in str(dropped) and f"\n# {said}" in dropped.table.print()
    assert dropped.to_dict()["dropped_ranges"] == ["pos: x[5:] i (2 of 7 rows)"]
    assert dropped.to_dict()["filled_ranges"] == dropped.to_dict()["filled"] == []
    shown = unescape(re.sub("<[^>]*>", "", page(dropped, {})))
    assert "but for 2 of 7 rows of pos, which are dropped" in shown and "(2 of 7 rows)" in shown
    (there, _), (back, _) = converting(dropped.table, "my.table")
    assert there.endswith("left model, refused where pos has other than 7 rows") and "refused" not in back


def test_a_derived_table_drops_no_other_number_of_rows_unasked(dropped: Derivation, tmp_path: Path):
    from safetensors.numpy import save_file

    path, table = str(tmp_path / "long.safetensors"), tmp_path / "my.table"
    dropped.table.save(table)
    save_file(arrays(1024), path)
    save_file(arrays(5), like := str(tmp_path / "like.safetensors"))
    said = r"drops another part .* than in the models that it was derived from: give .*--like FILE.*--set x="
    with pytest.raises(ConvertError, match=said) as raised:
        plan(path, str(table))
    counts = "drops 1,019 of 1,024, in those models 2 of 7: x=1019 confirms it, and another number than 5 in the lines"
    assert counts in raised.value.problems[0]
    for options in ({"sizes": {"x": 1019}}, {"like": like}):
        with plan(path, str(table), **options) as planned:
            assert "dropped in part, as the table says: pos (1,019 of 1,024 rows)" in planned.notes()
    edited = Table.parse(dropped.table.print().replace("o[:5]", "o[:1022]").replace("\npos: x[5:]", "\npos: x[1022:]"))
    for own in (edited, Table.parse("\n".join(text for text in str(dropped.table).splitlines() if text[0] != "#"))):
        with plan(path, own) as planned:  # the user's word
            assert any("dropped in part" in note for note in planned.notes())
    with plan(str(tmp_path / "like.safetensors"), str(table), backwards=True, sizes={"x": 9}) as planned:
        assert planned.layout.shapes["pos"] == (14, 4)


def test_apply_drops_no_other_number_of_rows_unasked(dropped: Derivation):
    assert dropped.table.apply(arrays(7))["pos"].shape == (5, 4)
    with pytest.raises(TableError, match=r"drops another part .*give .*like=ARRAYS.* \(x=\.\.\.\)"):
        dropped.table.apply(arrays(9))
    assert dropped.table.apply(arrays(9), x=4)["pos"].shape == (5, 4)


def test_rows_that_a_proven_table_fills_are_counted_and_follow_nothing(filled: Derivation):
    first = "proven, but for 3 of 8 rows of words.weight, which are filled with 0: outputs are equal"
    ranges = "words.weight: x[5:] i (3 of 8 rows)"
    assert filled.proven and str(filled).startswith(first), str(filled)
    said = f"filled with 0, outside any proof, as the left model has nothing there: {ranges}: --reverse refuses a"
    assert f"\n{said}" in str(filled) and f"\n# {said}" in filled.table.print()
    assert "only some rows" not in str(filled) and "no such bias" not in str(filled)
    known = filled.to_dict()
    assert (known["filled"], known["filled_ranges"], known["inferred"]) == (["words.weight"], [ranges], [])
    (there, _), (back, _) = converting(filled.table, "my.table")
    assert back.endswith("right model, refused where words.weight has other values than 0 in x[5:]")
    assert "refused" not in there


def test_rows_that_no_token_reads_follow_the_others_but_for_those_that_are_filled():
    found = parity.derive(Model(5, 6), Model(5, 8), (TOKENS,))
    said = "and the others follow them: words.weight (without those that are filled with 0)"
    assert found.proven and said in str(found) and "(2 of 8 rows)" in str(found), str(found)


def test_a_composed_table_keeps_what_is_said_of_ranges(dropped: Derivation):
    names = {"words.weight": "v d", "pos": "p d", "norm.weight": "c", "norm.bias": "c"}
    other = Table.parse(
        "\n".join(["table 1", *(f"{name}: {axes} <-> new.{name}: {axes}" for name, axes in names.items())])
    )
    composed = dropped.table.compose(other)
    assert composed.apply(arrays(7))["new.pos"].shape == (5, 4)
    with pytest.raises(TableError, match="drops another part"):
        composed.apply(arrays(9))


class Net(torch.nn.Module):
    """Layers around a square matrix, which is used as it lies or transposed; the last layer may be square too."""

    def __init__(self, turned: bool, out: int = 5) -> None:
        super().__init__()
        self.first, self.q, self.up = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, out)
        self.turned = turned

    def forward(self, x: Any) -> Any:
        x = torch.tanh(self.first(x))
        return self.up(torch.tanh(x @ self.q.weight + self.q.bias if self.turned else self.q(x)))


@pytest.mark.parametrize("out", [5, 6])
@pytest.mark.parametrize(("left", "right"), [(False, True), (True, False), (True, True), (False, False)])
def test_a_square_matrix_that_one_side_uses_transposed_is_named(left: bool, right: bool, out: int):
    found = parity.derive(Net(left, out), Net(right, out), (images(4, 6),))
    assert found.proven and found.transposed == ["q.weight"] * (left != right)
    remark = "axes in an unusual order: q.weight: the matrices are square, so that weights in the usual order would fit"
    assert (remark in str(found)) == (f"# {remark}" in found.table.print()) == (left != right)


@pytest.mark.parametrize("turned", [False, True])
def test_between_frameworks_that_store_the_axes_otherwise_the_exchange_is_usual(turned: bool):
    needs("flax")
    import jax
    import jax.numpy as jnp

    def forward(params: Any, x: Any) -> Any:
        for w, b in params:
            x = jnp.tanh(x @ w + b)
        return x

    class Tanh(Net):
        def forward(self, x: Any) -> Any:
            return torch.tanh(super().forward(x))

    params = [(jax.random.normal(jax.random.key(k), (6, 6)), jnp.zeros(6)) for k in range(3)]
    found = parity.derive(Tanh(turned, 6), (forward, params), (images(4, 6),))
    assert found.proven and found.transposed == ["1/0"] * turned, found


def test_a_matrix_in_an_unusual_order_is_named_ahead_of_all_other_remarks():
    """Ahead of what a proof does not cover, as the bias of a key."""
    found = parity.derive(Net(False, 5), Net(True, 5), (images(4, 6),))
    first, *others = remarks(replace(found, unobservable=["q.bias"]))
    assert first.text.startswith("axes in an unusual order: q.weight")
    assert any(one.text.startswith("unobservable") for one in others)


@pytest.mark.parametrize("given", [False, True])
def test_rows_that_a_line_shifts_are_named_and_that_given_positions_are_why(given: bool):
    def net(rows: int, first: int) -> parts.Net:
        def run(m: Any, ids: Any, *positions: Any) -> Any:
            places = positions[0] if positions else torch.arange(ids.shape[1])
            return m.head((m.words(ids) + m.pos(places + first)).tanh().cumsum(1))

        embeddings = {"words": torch.nn.Embedding(11, 6), "pos": torch.nn.Embedding(rows, 6)}
        return parts.Net(run, **embeddings, head=parts.linear())

    ids = parts.tokens(3, 5)
    left = (ids, np.arange(5)[None]) if given else (ids,)
    found = parity.derive(net(8, 0), net(10, 2), left, (ids,))
    text = "rows shifted: pos.weight: o i <-> pos.weight: o[2:] i"
    assert found.proven and f"{text}{': an input states positions' * given}" in str(found), str(found)
    assert f"# {text}" in found.table.print() and ("others, outputs may differ" in str(found)) == given
