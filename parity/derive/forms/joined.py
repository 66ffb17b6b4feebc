"""Split products that read values joined of several: [x, y] w = x w1 + y w2.

Additive attention is an example: one model joins a decoder's state to all positions, another adds two products.
"""

from __future__ import annotations

import numpy as np

from parity.derive.limits import LARGE_USE
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape

MOST = 4  # values of which the columns of one product are joined


def separated(program: Program) -> Tape:
    """Return the tape with a product for each value that is joined; the same one where none are."""

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        x, w = node.inputs[0], node.inputs[-1]
        if node.kind != "product" or node.window or x not in program.active or w in program.active:
            return [node]
        parts = _parts(program, x)
        return _separate(node, parts, new) if 1 < len(parts) <= MOST else [node]

    return program.tape.rewritten(instead)


def _parts(program: Program, value: int) -> list[Array]:
    """Return the columns of what a product reads, for each value that they come from."""
    if np.prod(program.shapes[value]) > LARGE_USE:
        return []
    known, starts = dict[int, Array](), [1]
    labels = _labels(program, value, known, starts)
    if len(starts) < 3 or starts[-1] > LARGE_USE:
        return []
    owners = np.searchsorted(starts, labels.reshape(-1, labels.shape[-1]), "right")  # 0 for zeros of padding
    same = (owners == owners.max(0)) | (owners == 0)
    alike: dict[bytes, list[int]] = {}
    for k, column in enumerate(owners.T):
        alike.setdefault((column.max() if same[:, k].all() else column).tobytes(), []).append(k)
    return [np.array(columns) for columns in alike.values()]


def _labels(program: Program, value: int, known: dict[int, Array], starts: list[int]) -> Array:
    """Return numbers for a value's elements, which tell of which values layouts join it.

    Args:
      known: the numbers of those that were seen. starts: the first number of each joined value, and the next free one.
    """
    if value not in known:
        node, found = program.maker(value), None
        if node is not None and node.kind == "layout":
            operands = [n for n in node.inputs if n not in program.indices]
            found = program.laid_out(node, {n: _labels(program, n, known, starts) for n in operands})
        if found is None:
            count = int(np.prod(program.shapes[value]))
            found = starts[-1] + np.arange(count).reshape(program.shapes[value])
            starts.append(starts[-1] + count)
        known[value] = found
    return known[value]


def _separate(node: Node, parts: list[Array], new: Replacement) -> list[Node]:
    """Return a product for each part of the columns, and their sum."""
    results, (x, w) = list[int](), node.inputs
    for part in parts:
        some = new.layout(x, lambda a, part=part: a[..., part])  # type: ignore[misc]
        rows = new.layout(w, lambda a, part=part: a[:, part])  # type: ignore[misc]
        results.append(new.record("product", (some, rows), node.run))
    new.sum(results)
    return new.nodes
