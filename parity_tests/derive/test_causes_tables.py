"""Tables of rows that one side alone adds, as types of tokens or a second table of positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import parity

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear, tokens


def net(*tables: str) -> Net:
    """A sum of embeddings, a norm, and layers behind it: positions, and further tables by their names."""
    sizes = {"types": 2, "pos": 8, "pos2": 8}

    def run(m: Any, ids: Any) -> Any:
        x, places = m.words(ids), torch.arange(ids.shape[1])
        for name in tables:
            x = x + getattr(m, name)((ids > 5).long() if name == "types" else places)
        x = m.norm(x)
        return m.head(x + m.fc(x).tanh().cumsum(1))

    parts = {name: torch.nn.Embedding(sizes[name], 6) for name in tables}
    return Net(
        run, words=torch.nn.Embedding(11, 6), norm=torch.nn.LayerNorm(6), fc=linear(), head=linear(6, 4), **parts
    )


def in_paddle() -> Any:
    """The same with positions and a second table of them, in paddle."""
    import paddle
    from paddle import nn

    class Model(nn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.pos, self.pos2 = (nn.Embedding(n, 6) for n in (11, 8, 8))
            self.norm, self.fc, self.head = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, ids: Any) -> Any:
            places = paddle.arange(ids.shape[1])
            x = self.norm(self.words(ids) + self.pos(places) + self.pos2(places))
            return self.head(x + paddle.tanh(self.fc(x)).cumsum(1))

    paddle.seed(0)
    model = Model()
    model.eval()
    return model


def check(left: Any, right: Any, alone: tuple[str, str]) -> None:
    """Derive, and check that the tables that each side has alone are named, and that all others have lines."""
    found = parity.derive(left, right, (tokens(3, 5),))
    assert [place.what for place in found.divergences] == [f"the left adds {alone[0]}.weight, the right does not"]
    assert found.confirmed and found.left_over == [f"{alone[0]}.weight"], str(found)
    assert found.reasons == {f"{alone[1]}.weight": f"the right adds {alone[1]}.weight, the left does not"}, str(found)
    assert "pos.weight: o i <-> pos.weight: o i" in map(str, found.table.lines), str(found.table)


@pytest.mark.parametrize("swapped", [False, True])
def test_tables_that_each_side_has_alone_are_both_named(swapped: bool):
    torch.manual_seed(0)
    sides, alone = (net("pos", "types"), net("pos", "pos2")), ("types", "pos2")
    order = -1 if swapped else 1
    check(*sides[::order], alone[::order])


def test_tables_that_each_side_has_alone_are_both_named_between_frameworks():
    needs("paddle")
    torch.manual_seed(0)
    check(net("pos", "types"), in_paddle(), ("types", "pos2"))


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_tables_alike_the_one_whose_name_both_sides_have_keeps_its_line(swapped: bool):
    torch.manual_seed(0)
    sides = (net("pos"), net("pos", "pos2"))[:: -1 if swapped else 1]
    found = parity.derive(*sides, (tokens(3, 5),))
    assert "pos.weight: o i <-> pos.weight: o i" in map(str, found.table.lines), str(found)
    assert found.missing == ([] if swapped else ["pos2.weight"]) and "adds pos2.weight" in str(found)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_term_of_a_table_that_other_terms_read_too_is_named_by_both_operands(swapped: bool):
    """Relative positions that meet queries and keys, as in BERT's relative_key_query, or queries alone."""
    torch.manual_seed(0)

    def attention(keys: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            places = torch.arange(x.shape[1])
            rows = m.distances(places[:, None] - places + 5)
            q, k = m.q(x), m.k(x)
            scores = q @ k.mT + torch.einsum("bld,lrd->blr", q, rows)
            scores = scores + torch.einsum("brd,lrd->blr", k, rows) if keys else scores
            return m.head(scores.softmax(-1) @ m.v(x))

        parts = {name: linear() for name in ("q", "k", "v", "head")}
        return Net(run, distances=torch.nn.Embedding(11, 6), **parts)

    sides = (attention(True), attention(False))[:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(3, 5, 6),))
    one, other = ("right", "left") if swapped else ("left", "right")
    (place,) = found.divergences
    assert place.what == f"the {one} adds a product of k and distances.weight, the {other} does not", str(found)
    assert found.confirmed and not found.missing
