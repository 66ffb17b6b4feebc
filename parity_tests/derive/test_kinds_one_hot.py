"""Tables that one side multiplies by rows of zeros with a single one, and that the other side indexes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.forms.one_hot import looked_up
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Node, Tape

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

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
