"""Let one side compute an operation as the other one does: a pooling, a resize, an activation with other settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .edits import Edit, and_so
from .program import Program
from .tape import Array, Node, Tape

VALUES = np.linspace(-8, 8, 65)  # at which functions of single values are compared
MOST = 16  # operations of a side that are tried, the last first
ORDERS = {3: ((0, 2, 1),), 4: ((0, 3, 1, 2), (0, 2, 3, 1)), 5: ((0, 4, 1, 2, 3), (0, 2, 3, 4, 1))}  # channels move


@dataclass(frozen=True)
class Swap(Edit):
    """Compute values of the right side by an operation of the left one.

    Args:
      outputs: those values. run: the operation, of what the right one reads.
    """

    outputs: frozenset[int]
    run: Callable[[Array], Array]

    def tape(self, tape: Tape) -> Tape:
        nodes = [node._replace(run=self._instead(node)) if node.output in self.outputs else node for node in tape.nodes]
        return replace(tape, nodes=nodes, parts={})

    def _instead(self, node: Node) -> Callable[[Array], Array]:
        """Return what computes its value as the operation that it replaces returns that: alone, or first of several."""

        def run(x: Array) -> Array:
            old, new = node.run(x), self.run(x)
            return (new, *old[1:]) if isinstance(old, tuple) else new

        return run


def swaps(left: Program, right: Program, spans: Sequence[tuple[int, int]]) -> Iterator[Swap]:
    """Yield for each operation in the right side's span those of the left side's span that read arrays of its shape.

    Args:
      spans: of each side, the first operation and the end.
    """
    left_nodes, right_nodes = (list(_unary(program, *span)) for program, span in zip((left, right), spans, strict=True))
    every = list(_unary(right, 0, len(right.tape.nodes)))
    for node in right_nodes[::-1][:MOST]:
        alike = frozenset(one.output for one in every if _same(one, node))
        more = and_so(len(alike) - 1)
        for other in left_nodes[::-1][:MOST]:
            what = (
                f"{_named(other)} on the left and {_named(node)} on the right compute other values from the same input"
            )
            for order in _orders(left.shapes[other.inputs[0]], right.shapes[node.inputs[0]]):
                wider = (Swap(1, "operation", what + more, alike, other.run, times=len(alike)),) if more else ()
                yield Swap(1, "operation", what, frozenset([node.output]), _turned(other, order), wider=wider)


def _unary(program: Program, first: int, end: int) -> Iterator[Node]:
    """Yield operations of one activation alone; the numbers that others read are changed one by one instead."""
    for node in program.tape.nodes[first:end]:
        if node.kind == "other" and len(node.inputs) == 1 and node.inputs[0] in program.active:
            yield node


def _same(one: Node, other: Node) -> bool:
    """Tell whether operations are one function of single values."""
    try:
        values, others = (np.asarray(node.run(VALUES)) for node in (one, other))
    except Exception:  # an operation that does not take a list of numbers, as a pooling
        return False
    return values.shape == VALUES.shape and np.array_equal(values, others, equal_nan=True)


def _orders(left: tuple[int, ...], right: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the orders of a right array's axes that make it one of the left side's shape."""
    for order in (tuple(range(len(right))), *ORDERS.get(len(right), ())):
        if tuple(right[d] for d in order) == left:
            yield order


def _turned(node: Node, order: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return an operation of the left side as one of arrays whose axes have the right side's order."""
    back = np.argsort(order)

    def run(x: Array) -> Array:
        value = node.run(np.transpose(x, order))
        value = value[0] if isinstance(value, tuple) else value
        return np.transpose(value, back) if value.ndim == len(order) else value

    return run


def _named(node: Node) -> str:
    return node.site or "the model's own function"
