"""Pick rows of a table before a product, where a model multiplies the whole table, and picks rows of the result."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, elements


class Multiplied(NamedTuple):
    """A table that is a product of parameters, and what is added to each of its rows.

    Args:
      product: x[1, rows, k] @ w[1, k, columns]. biases: values of one row.
    """

    product: Node
    biases: tuple[int, ...]


def picked_before(program: Program) -> Tape:
    """Return the tape with products of the rows that are picked; the same one where there are none."""

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        multiplied = _multiplied(program, node.inputs[0]) if _picks(program, node) else None
        if multiplied is None:
            return [node]
        shape, (product, biases) = program.shapes[node.inputs[0]], multiplied
        numbers = np.broadcast_to(np.arange(1.0, shape[0] + 1)[:, None], shape)

        def rows(x: Array, index: Array) -> Array:
            return x[:, node.run(numbers, index)[..., 0].ravel().astype(np.int64) - 1]

        value = new.again(product, (new.record("layout", (product.inputs[0], node.inputs[1]), rows), product.inputs[1]))
        for bias in biases:
            value = new.record("add", (value, bias), np.add)
        new.layout(value, lambda y: y.reshape(program.shapes[node.output]))
        return new.nodes

    return program.tape.rewritten(instead)


def _picks(program: Program, node: Node) -> bool:
    """Tell whether an operation picks whole rows of a table by numbers that depend on inputs."""
    if node.kind != "layout" or len(node.inputs) != 2:
        return False
    table, index = node.inputs
    shape = program.shapes[table]
    if index not in program.indices or index not in program.active or len(shape) != 2:
        return False
    columns = node.run(np.broadcast_to(np.arange(1.0, shape[1] + 1), shape), program.indices[index])
    return columns.shape[-1:] == shape[1:] and bool((columns == np.arange(1, shape[1] + 1)).all())


def _multiplied(program: Program, value: int) -> Multiplied | None:
    """Return the product that a table is, past sums with one row; None of other tables."""
    rows, width = program.shapes[value]
    weights, biases = {*program.weights}, list[int]()
    while (node := program.maker(value)) is not None:
        if node.kind == "product":
            is_plain = not node.window and program.shapes[node.output] == (1, rows, width)
            return Multiplied(node, tuple(biases[::-1])) if is_plain and weights.issuperset(node.inputs) else None
        if node.kind == "add":
            single = [n for n in node.inputs if n in weights and np.prod(program.shapes[n][:-1], dtype=int) == 1]
            if len(single) != 1:
                return None
            biases += single
            value = next(n for n in node.inputs if n not in single)
        elif node.kind == "layout" and len(node.inputs) == 1 and _keeps(program, node):
            value = node.inputs[0]
        else:
            return None
    return None


def _keeps(program: Program, node: Node) -> bool:
    """Tell whether a layout leaves all elements in their order."""
    numbers = elements(program.shapes[node.inputs[0]])
    return np.array_equal(np.ravel(node.run(numbers)), np.ravel(numbers))
