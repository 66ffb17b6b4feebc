"""Numbers that one side joins to what a matrix reads, and rows that it picks by zeros with a single one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.forms.joined import with_terms
from parity.derive.forms.one_hot import looked_up
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Node, Tape

from .pairs import images
from .test_kinds_matching import Net, linear
from .test_kinds_products import both_ways, weight

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

STEPS = 4  # of an equation whose time is 0 in the first one, which shows nothing of its row


def layer(width: int) -> Net:
    return Net(lambda m, x: m.b(torch.tanh(m.a(x))), a=linear(4, width), b=linear(width, 3))


def joined(order: int) -> Any:
    """Return a model that joins a time, given as an input (0), or a number of its own in each step (1)."""

    def given(m: Any, x: Any, t: Any) -> Any:
        return m.net(torch.cat([x, t[:, None]], -1))

    def stepped(m: Any, x: Any) -> Any:
        for k in range(STEPS):
            x = x + m.net(torch.cat([x, torch.full_like(x[:, :1], k / STEPS)], -1)) / STEPS
        return x

    return Net((given, stepped)[order], net=layer(6))


def added(order: int) -> Any:
    def net(p: Any, x: Any, t: Any) -> Any:
        return jax.numpy.tanh(x @ p["wx"] + t * p["wt"] + p["b"]) @ p["v"] + p["c"]

    def stepped(p: Any, x: Any) -> Any:
        return jax.lax.fori_loop(0, STEPS, lambda k, x: x + net(p, x, k / STEPS) / STEPS, x)

    shapes = {"wx": (3, 6), "wt": (6,), "b": (6,), "v": (6, 3), "c": (3,)}
    return (lambda p, x, t: net(p, x, t[:, None]), stepped)[order], {name: np.ones(n) for name, n in shapes.items()}


@pytest.mark.parametrize("order", [0, 1])
def test_the_row_of_a_time_is_a_vector_of_the_other_side(order: int):
    inputs = (images(5, 3), np.linspace(0.1, 0.9, 5))[: 2 - order]
    sides = joined(order), added(order)
    for one, other in (sides, sides[::-1]):
        found = parity.derive(one, other, inputs, inputs)
        assert found.proven, found
    own = {name: value.numpy() for name, value in sides[0].state_dict().items()}
    moved = parity.derive(*sides, inputs, inputs).table.apply(own)
    assert np.array_equal(moved["wx"], own["net.a.weight"].T[:-1])
    assert np.array_equal(moved["wt"], own["net.a.weight"][:, -1])


@pytest.mark.parametrize("last", [True, False])
def test_a_bias_is_the_row_that_meets_ones(last: bool):
    def with_one(p: Any, x: Any) -> Any:
        ones = jax.numpy.ones_like(x[:, :1])
        return jax.numpy.concatenate([x, ones] if last else [ones, x], -1)

    def right(p: Any, x: Any) -> Any:
        return with_one(p, jax.numpy.tanh(with_one(p, x) @ p["first"])) @ p["second"]

    sides = layer(4), (right, {"first": np.ones((5, 4)), "second": np.ones((5, 3))})
    for one, other in (sides, sides[::-1]):
        found = parity.derive(one, other, images(6, 4))
        assert found.proven, found
    wider = layer(9)
    own = {name: value.numpy() for name, value in wider.state_dict().items()}
    rows = own["b.weight"].T, own["b.bias"][None]
    moved = parity.derive(*sides, images(6, 4)).table.apply(own)
    assert np.array_equal(moved["second"], np.concatenate(rows if last else rows[::-1]))


def test_zeros_and_many_columns_stay_as_they_are():
    """States begin so: what is joined in later steps is no number."""
    for many, first, terms in ((1, 0.0, 0), (3, 1.0, 0), (1, 1.0, 1)):
        tape = Tape()
        x, w = tape.number(), tape.number()
        tape.inputs, tape.parameters = [x], {"w": w}
        state = tape.constant(np.full((1, 2, many), first))
        both = tape.record("layout", [x, state], lambda a, b: np.concatenate([a[None], b], -1))
        tape.outputs = [tape.product(both, tape.layout(w, lambda v: v[None]))]
        program = Program(tape, {"w": np.ones((3 + many, 4))}, [np.ones((2, 3))])
        new = with_terms(program)
        assert sum(node.kind == "mul" for node in new.nodes) == terms
        assert np.array_equal(Program(new, {"w": np.ones((3 + many, 4))}, [np.ones((2, 3))]).outputs, program.outputs)


def test_a_column_of_ones_beside_features_whose_row_of_weights_is_a_token():
    """As in FT-Transformer, which adds no bias to that token."""

    def joined(m: Any, x: Any) -> Any:
        x = torch.cat([torch.ones(len(x), 1), x], 1)
        return attended(m, m.weight * x[:, :, None] + torch.cat([torch.zeros(1, 6), m.bias]))

    def apart(m: Any, x: Any) -> Any:
        return attended(m, torch.cat([m.token.expand(len(x), 1, -1), x[:, :, None] * m.scale + m.shift], 1))

    def attended(m: Any, x: Any) -> Any:
        return m.out((m.query(x) @ x.mT).softmax(-1) @ x)[:, 0]

    left = Net(joined, weight=weight(5, 6), bias=weight(4, 6), query=linear(), out=linear(6, 2))
    right = Net(apart, token=weight(1, 6), scale=weight(4, 6), shift=weight(4, 6), query=linear(), out=linear(6, 2))
    assert "weight: (1+s) i <-> token: 1 i, scale: s i" in both_ways(left, right, 7, 4).table.print()


TOKENS = np.array([[1, 2, 3, 10], [4, 5, 0, 7]])
TREE = {"words": np.ones((11, 6)), "out": np.ones((6, 3))}


def dense(p: Any, h: Any) -> Any:
    return jax.numpy.tanh(h) @ p["out"]


CODE = {
    "product": lambda p, ids: dense(p, jax.nn.one_hot(ids, 11) @ p["words"]),
    "columns": lambda p, ids: dense(p, jax.numpy.einsum("vd,vbt->btd", p["words"], jax.nn.one_hot(ids, 11, axis=0))),
    "identity": lambda p, ids: dense(p, jax.numpy.eye(11)[ids] @ p["words"]),
}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = torch.nn.Embedding(11, 6), torch.nn.Linear(6, 3, bias=False)

    def forward(self, ids: Any) -> Any:
        return self.last(torch.tanh(self.table(ids)))


@pytest.mark.parametrize("code", CODE)
def test_a_product_with_one_hot_rows_goes_with_a_lookup(code: str):
    for left, right in ((Model(), (CODE[code], TREE)), ((CODE[code], TREE), Model())):
        found = parity.derive(left, right, (TOKENS,))
        assert found.proven and not found.missing, found
        table = found.table if isinstance(right, tuple) else found.table.reverse()
        words = np.arange(66.0).reshape(11, 6)
        moved = table.apply({"table.weight": words, "last.weight": np.ones((3, 6))})
        assert np.array_equal(moved["words"], words)


def product_of(ones: np.ndarray) -> Program:
    """Return a product of an input with a table of two rows."""
    node = Node("product", (0, 1), 2, np.matmul, "", None)
    return Program(
        Tape([node], {"table": 1}, [0], {}, [2], size=3), {"table": np.arange(1.0, 7).reshape(1, 2, 3)}, [ones]
    )


def test_a_lookup_gives_what_the_product_gives_also_of_rows_of_zeros():
    program = product_of(np.array([[[1.0, 0], [0, 1], [0, 1]]]))
    tape = looked_up(program)
    assert [node.kind for node in tape.nodes] == ["other", "layout"]
    for ones in (program.inputs[0], np.array([[[0.0, 1], [0, 0], [1, 0]]])):
        again = Program(tape, {"table": np.arange(1.0, 7).reshape(1, 2, 3)}, [ones])
        assert np.array_equal(again.outputs[0], product_of(ones).outputs[0])


@pytest.mark.parametrize("ones", [[[0.5, 0], [0, 1]], [[1, 1], [0, 1]], [[0, 0], [0, 1]], [[1, 0], [1, 0]]])
def test_other_rows_are_no_lookup(ones: Any):
    program = product_of(np.array([ones], float))
    assert looked_up(program) is program.tape
