"""Parameters that both sides divide differently: sums in parts, windows of tables, stacked tables, experts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from specs.table import Table, TableError

from .pairs import images
from .test_kinds_matching import Net, linear, numbers, tokens
from .test_kinds_products import weight


def test_a_vector_of_which_a_part_is_a_sum():
    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wi, self.wh, self.bias, self.bias_n = weight(12, 3), weight(12, 4), weight(12), weight(4)

        def forward(self, x: Any) -> Any:
            h = torch.zeros(len(x), 4)
            for t in range(x.shape[1]):
                i, hidden = (x[:, t] @ self.wi.T + self.bias).chunk(3, -1), (h @ self.wh.T).chunk(3, -1)
                r, z = ((a + b).sigmoid() for a, b in zip(i[:2], hidden[:2], strict=True))
                n = (i[2] + r * (hidden[2] + self.bias_n)).tanh()
                h = n + z * (h - n)
            return h

    left = Net(lambda m, x: m.gru(x)[0][:, -1], gru=torch.nn.GRU(3, 4, batch_first=True))
    found = parity.derive(left, Right(), (x := images(5, 6, 3),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    given = numbers(left, x)
    moved, (first, second) = found.table.apply(given), (given[f"gru.bias_{side}h_l0"] for side in "ih")
    assert np.array_equal(moved["bias"], first + second * (np.arange(12) < 8))
    assert np.array_equal(moved["bias_n"], second[8:])
    back = found.table.reverse().apply(moved)
    assert np.array_equal(back["gru.bias_ih_l0"] + back["gru.bias_hh_l0"], first + second)


def test_two_sums_and_a_plain_part_fill_one_vector():
    table = Table.parse(
        "table 1\na: x=2 + b: x=2 -> t: x=2[:2]\nc: y=3 + d: y=3 -> t: y=3[2:5]\ne: z=1 <-> t: z=1[5:]\n"
    )
    given = {name: np.arange(1.0, n + 1) for name, n in {"a": 2, "b": 2, "c": 3, "d": 3, "e": 1}.items()}
    moved = table.apply(given, {"t": np.empty(6)})
    assert moved["t"].tolist() == [2, 4, 2, 4, 6, 1]


def test_positions_that_begin_at_other_rows_of_both_tables():
    def run(first: int) -> Any:
        return lambda m, x: m.out((m.words(x) + m.places(torch.arange(first, first + x.shape[1]))).tanh())

    def parts(rows: int) -> dict[str, Any]:
        return {"words": torch.nn.Embedding(11, 6), "places": torch.nn.Embedding(rows, 6), "out": linear()}

    left, right = Net(run(2), **parts(12)), Net(run(1), **parts(13))
    found = parity.derive(left, right, (x := tokens(4, 7),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    assert found.inferred == ["places.weight"]
    given = numbers(left, x)
    moved = found.table.apply(given)["places.weight"]
    assert np.array_equal(moved[:11], given["places.weight"][1:]) and not moved[11:].any()


def test_tables_that_one_side_stacks_and_reads_at_once():
    def apart(m: Any, x: Any) -> Any:
        rows = torch.stack([m.dense(x / 10.0), *(table(x[:, k]) for k, table in enumerate(m.tables))], 1)
        return m.out((rows @ rows.mT).flatten(1))

    def stacked(m: Any, x: Any) -> Any:
        rows = torch.cat([m.dense(x / 10.0)[:, None], m.tables[torch.arange(3), x]], 1)
        return m.out((rows @ rows.mT).flatten(1))

    tables = torch.nn.ModuleList(torch.nn.Embedding(11, 6) for _ in range(3))
    left = Net(apart, dense=linear(3, 6), tables=tables, out=linear(16, 2))
    right = Net(stacked, dense=linear(3, 6), tables=weight(3, 11, 6), out=linear(16, 2))
    x = tokens(120, 3)
    for a, b in ((left, right), (right, left)):
        found = parity.derive(a, b, (x,))
        assert found.proven and not found.missing, (found.failure, found.reasons)


def test_a_gate_before_or_behind_the_last_product_of_each_expert():
    def run(before: bool) -> Any:
        def forward(m: Any, x: Any) -> Any:
            gates = m.router(x).softmax(-1)
            hidden = [expert(x).tanh() for expert in m.up]
            gated = [(gates[:, k : k + 1], m.down[k], hidden[k]) for k in range(3)]
            return sum(down(gate * h) if before else gate * down(h) for gate, down, h in gated)

        return forward

    def parts() -> dict[str, Any]:
        up, down = (torch.nn.ModuleList(linear(*sizes, False) for _ in range(3)) for sizes in ((4, 6), (6, 4)))
        return {"router": linear(4, 3, False), "up": up, "down": down}

    for sides in ((False, True), (True, False)):
        left, right = (Net(run(before), **parts()) for before in sides)
        found = parity.derive(left, right, (x := images(20, 4),))
        assert found.proven and not found.missing, (found.failure, found.reasons)
        moved, given = found.table.apply(numbers(left, x)), numbers(left, x)
        assert all(np.array_equal(moved[name], given[name]) for name in given)


def test_a_residual_that_is_added_in_place_to_some_of_the_channels():
    def joined(m: Any, x: Any) -> Any:
        y = m.a(x)
        return m.out(torch.cat([y[:, :4] + x, y[:, 4:]], 1).tanh())

    def in_place(m: Any, x: Any) -> Any:
        y = m.a(x)
        y[:, :4] += x
        return m.out(y.tanh())

    left, right = (Net(run, a=linear(4, 6), out=linear(6, 3)) for run in (joined, in_place))
    for a, b in ((left, right), (right, left)):
        found = parity.derive(a, b, (images(9, 4),))
        assert found.proven and not found.missing, (found.failure, found.reasons)


def tokens_and_patches(position: bool) -> Net:
    """Class and register tokens before patches; the class token has a position, which the registers never have."""

    def embed(m: Any, x: Any) -> Any:
        patches, (cls, registers) = m.patch(x), (token.expand(len(x), -1, -1) for token in (m.cls, m.registers))
        if position:
            cls, patches = (torch.cat([cls, patches], 1) + m.positions).split([1, patches.shape[1]], 1)
        else:
            patches = patches + m.positions
        x = torch.cat([cls, registers, patches], 1)
        return m.head((x + m.mix(m.norm(x)).softmax(1)).mean(1))

    shapes = {"cls": (1, 1, 6), "registers": (1, 2, 6), "positions": (1, 4 + position, 6)}
    tokens = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    return Net(embed, patch=linear(5, 6), norm=torch.nn.LayerNorm(6), mix=linear(), head=linear(6, 3), **tokens)


@pytest.mark.parametrize("position", [(True, False), (False, True), (True, True)])
def test_a_class_token_with_and_without_a_position(position: tuple[bool, bool]):
    left, right = (tokens_and_patches(own) for own in position)
    found = parity.derive(left, right, (images(3, 4, 5),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    given = {name: array.detach().numpy() for name, array in left.double().state_dict().items()}
    moved = found.table.apply(given)
    token = given["cls"] + (given["positions"][:, :1] if position[0] else 0)
    there = moved["cls"] + (moved["positions"][:, :1] if position[1] else 0)
    assert np.array_equal(there, token) and np.array_equal(moved["positions"][:, -4:], given["positions"][:, -4:])
    back = found.table.reverse().apply(moved)
    assert np.array_equal(back["cls"] + (back["positions"][:, :1] if position[0] else 0), token)


@pytest.mark.parametrize("looked_up", [True, False])
def test_a_bias_of_scores_that_is_looked_up_by_what_a_mask_counts(looked_up: bool):
    """A position that is computed from a mask is no value among which the bias stands: nothing is zero here."""

    def run(m: Any, x: Any, mask: Any) -> Any:
        at = mask.long().cumsum(1)
        bias = torch.nn.functional.embedding(at, m.bias) if looked_up else m.bias[at]
        both = bias[:, None, :, 0] + (1 - mask)[:, None] * -100
        for _ in range(2):
            x = (m.q(x) @ m.k(x).mT + both).softmax(-1) @ x
        return m.out(x)

    def make() -> Net:
        return Net(run, q=linear(), k=linear(), out=linear(6, 3), bias=torch.nn.Parameter(torch.randn(7, 1)))

    mask = (images(2, 5) > 0).astype(np.float64)
    left, right = make(), make()
    found = parity.derive(left, right, (images(2, 5, 6), mask))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    given = {name: array.detach().numpy() for name, array in left.state_dict().items()}
    assert np.array_equal(found.table.apply(given)["bias"][1:6], given["bias"][1:6])


def test_two_inputs_that_one_side_joins_before_a_product():
    left = Net(
        lambda m, x, y: m.out(m.join(torch.cat([m.a(x), m.b(y)], -1)).tanh()),
        a=linear(5, 6, False), b=linear(4, 6, False), join=linear(12, 6), out=linear(6, 3, False),
    )  # fmt: skip

    def right(p: Any, x: Any, y: Any) -> Any:
        return jnp.tanh(x @ p["a"] @ p["one"] + y @ p["b"] @ p["other"] + p["bias"]) @ p["out"]

    shapes = {"a": (5, 6), "b": (4, 6), "one": (6, 6), "other": (6, 6), "bias": (6,), "out": (6, 3)}
    right_side = right, {name: jnp.zeros(n) for name, n in shapes.items()}
    found = parity.derive(left, right_side, (images(7, 5), images(7, 4)))
    assert found.proven and not found.missing, (found.failure, found.reasons)


def test_an_order_of_axes_in_which_a_convolution_returns_nothing_is_none():
    """A text of 20 steps read as 2: JAX runs a kernel of 4 on it, and returns nothing."""
    left = Net(lambda m, x: m.out(m.first(x[:, None]).tanh().mT), first=torch.nn.Conv1d(1, 4, 4), out=linear(4, 3))

    def right(p: Any, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(x[..., None], p["k"], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
        return jnp.tanh(y) @ p["w"]  # no biases: what it computes differs, and each order is tried

    shapes = {"k": (4, 1, 4), "w": (4, 3)}
    found = parity.derive(left, (right, {name: jnp.zeros(n) for name, n in shapes.items()}), (images(2, 20),))
    assert not found.proven and not found.missing, found.failure


def test_integers_of_a_tree_reach_the_function_as_arrays_of_jax():
    left = Net(lambda m, x: m.out(m.words(m.map[x]).tanh()), words=torch.nn.Embedding(12, 6), out=linear(6, 3))
    left.register_buffer("map", torch.arange(12).flip(0))

    def right(p: Any, x: Any) -> Any:
        return jnp.tanh(p["words"][p["map"][x]]) @ p["w"] + p["b"]

    tree = {"map": jnp.arange(12)[::-1], "words": jnp.zeros((12, 6)), "w": jnp.zeros((6, 3)), "b": jnp.zeros(3)}
    found = parity.derive(left, (right, tree), (tokens(3, 20),))
    assert not found.missing and found.exact < 1e-12, found.failure  # rounding of float64


def test_a_head_that_is_tied_to_the_embedding_on_one_side_alone():
    parts = {"words": torch.nn.Embedding(11, 6), "fc": linear(), "head": linear(6, 11, False)}
    left = Net(lambda m, x: m.head(m.fc(m.words(x)).tanh()), **parts)
    left.head.weight = left.words.weight

    def right(p: Any, x: Any) -> Any:
        return jnp.tanh(p["words"][x] @ p["k"] + p["b"]) @ p["head"]

    shapes = {"words": (11, 6), "k": (6, 6), "b": (6,), "head": (6, 11)}
    found = parity.derive(left, (right, {name: jnp.zeros(n) for name, n in shapes.items()}), (tokens(2, 4),))
    assert found.proven and not found.missing, found.reasons
    moved = found.table.apply(numbers(left, tokens(2, 4)))
    assert np.array_equal(moved["head"], moved["words"].T)


@pytest.mark.parametrize("turned", [False, True])
def test_attention_to_one_step_proves_nothing(turned: bool):
    def attend(m: Any, x: Any) -> Any:
        q, k = (m.q(x), m.k(x)) if not turned else (m.k(x), m.q(x))
        return m.o((q @ k.mT).softmax(-1) @ m.v(x))

    left, right = (Net(attend, **{name: linear() for name in "qkvo"}) for _ in range(2))
    found = parity.derive(left, right, (images(4, 1, 6),))
    assert (
        not found.proven and "one step" in found.incomparable and found.following.startswith("give inputs of several")
    )
    assert parity.derive(left, right, (images(4, 3, 6),)).proven


def test_a_bias_that_the_left_model_lacks_is_said_to_be_filled():
    left, right = (Net(lambda m, x: m.b(m.a(x).tanh()), a=linear(), b=linear(6, 3, bias)) for bias in (False, True))
    found = parity.derive(left, right, (images(4, 6),))
    assert found.proven and found.filled == ["b.bias"]
    assert "filled with 0, all or a part, as the left model has no such bias: b.bias: a checkpoint of the" in str(found)
    assert found.to_dict()["filled"] == ["b.bias"]


def test_a_bias_without_partner_is_not_said_to_be_absent_where_left_parameters_have_none():
    left = Net(lambda m, x: m.c(m.a(x).tanh().relu()), a=linear(6, 6, False), c=linear(6, 3))
    right = Net(lambda m, x: m.c(torch.cat([y := m.a(x).tanh(), y.sin()], -1)), a=linear(), c=linear(12, 3))
    found = parity.derive(left, right, (images(4, 6),))
    assert found.missing == found.left_over == ["c.bias"] and found.filled == ["a.bias"]
    said = "filled with 0, all or a part, as none was found on the left: a.bias: left parameters have no partner"
    assert said in str(found) and "has no such bias" not in str(found) + found.table.print()


def test_a_bias_that_is_the_term_of_a_sum_converts_back_and_is_not_said_to_be_filled():
    left, right = (Net(lambda m, x: m.a(x) + m.b(x.tanh()), a=linear(), b=linear(bias=bias)) for bias in (False, True))
    found = parity.derive(left, right, (images(4, 6),))
    assert found.proven and found.summed == ["a.bias"]
    assert found.filled == [] and "filled" not in found.table.print()
    trained = {name: array.detach().numpy() for name, array in right.named_parameters()}
    back = found.table.reverse().apply(trained)
    np.testing.assert_array_equal(back["a.bias"], trained["a.bias"] + trained["b.bias"])


def test_a_part_of_a_bias_that_the_left_model_lacks_is_said_to_have_no_way_back():
    left = Net(lambda m, x: m.a(x).tanh() + m.b(x), a=linear(bias=False), b=linear())
    right = Net(lambda m, x: m.ab(x)[:, :6].tanh() + m.ab(x)[:, 6:], ab=linear(6, 12))
    found = parity.derive(left, right, (images(4, 6),))
    assert found.proven and found.filled == ["ab.bias"]
    (note,) = (note for note in found.table.lines[0].above if "filled with 0" in note)
    assert "converts with --reverse only while these values are 0" in note and note[2:] in str(found)


def test_arrays_that_the_table_drops_are_copied_from_a_mapping():
    left, right = (Net(lambda m, x: m.a(x), a=linear()) for _ in range(2))
    right.register_buffer("mask", torch.arange(3))
    found = parity.derive(left, right, (images(4, 6),))
    like = {name: array.numpy() for name, array in right.state_dict().items()}
    arrays = {name: array.numpy() for name, array in left.state_dict().items()}
    assert set(found.table.apply(arrays, like=like)) == {*like} and "mask" not in found.table.apply(arrays)
    with pytest.raises(TableError, match="a mapping of names to arrays, such as a state_dict, and no str"):
        found.table.apply(arrays, like="new.pt")


def test_models_of_unlike_depths_are_told_to_have_one():
    def blocks(count: int) -> Net:
        def run(m: Any, x: Any) -> Any:
            for block in m.blocks:
                x = x + block(x.tanh())
            return m.out(x)

        def block() -> Any:
            return torch.nn.Sequential(linear(), torch.nn.Tanh(), linear())

        return Net(run, blocks=torch.nn.ModuleList(block() for _ in range(count)), out=linear(6, 3))

    for counts in ((2, 3), (3, 1)):
        found = parity.derive(*map(blocks, counts), (images(4, 6),))
        assert not found.proven and not found.sizes
        assert found.following.startswith("build both models with the same number of blocks")


def test_integers_of_one_value_that_both_read_are_of_the_module_around_alike_ones():
    """Token types that no call gives are zeros of a buffer, in a module whose parameters are those of its parts."""

    def model(name: str, value: int = 0) -> Any:
        words, types = torch.nn.Embedding(11, 6), torch.nn.Embedding(2, 6)
        tables = Net(lambda m, x: m.words(x) + m.types(m.token_types[:, : x.shape[1]]), words=words, types=types)
        tables.register_buffer("token_types", torch.full((1, 9), value))
        return Net(lambda m, x: m.head(getattr(m, name)(x).tanh()), **{name: tables}, head=linear(6, 3))

    left, right = model("embeddings"), model("tables")
    found = parity.derive(left, right, (tokens(2, 5),))
    assert found.proven and not found.unshown, str(found)
    assert "embeddings.token_types: a b <-> tables.token_types: a b" in found.table.print(), found.table.print()
    assert not parity.derive(left, model("tables", 1), (tokens(2, 5),)).proven


def test_rows_that_are_read_after_others_of_one_table():
    """As by a decoder: at position 1 one example has a token that the encoder has read, the other one has not."""

    def placed(m: Any, ids: Any) -> Any:
        real = ids.ne(1).int()
        at = (torch.cumsum(real, 1) * real).long()  # from 1 for each example: what is added does not tell which one
        return 4 * m.table(ids) + m.places.index_select(0, at.view(-1)).view(*ids.shape, -1)

    class Coder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.up, self.down = torch.nn.Embedding(32, 16), linear(16, 16), linear(16, 16)
            self.norm, self.other = torch.nn.LayerNorm(16), torch.nn.LayerNorm(16)
            self.register_buffer("places", places, persistent=False)

        def forward(self, ids: Any, others: Any) -> Any:
            return self.up(self.norm(placed(self, ids))).mean(1, True) + self.down(self.other(placed(self, others)))

    places = torch.randn(9, 16)
    ids = np.array([[27, 21, 17, 10, 11, 3, 4], [2, 7, 26, 21, 29, 17, 20]])
    others = np.array([[31, 23, 20, 18, 18], [30, 10, 26, 22, 2]])
    found = parity.derive(Coder(), Coder(), (ids, others))
    assert found.proven, str(found)
