"""Multiply the other operand of a bilinear product by its matrix: (x w) y = x (w y), as scores of attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, elements


class Bilinear(NamedTuple):
    """A product with a matrix whose columns another product sums over, with a second activation.

    Args:
      first, second: the places of both on the tape. slot: which operand of the second one the result of the first is.
      rows: the row of x for each (b, row) of that operand. columns: the column of w for each place that is summed over.
    """

    first: int
    second: int
    slot: int
    rows: Array
    columns: Array


def bilinears(program: Program) -> Iterator[Bilinear]:
    """Yield the bilinear products of a tape, in its order."""
    for at, node in enumerate(program.tape.nodes):
        if node.kind == "product" and not node.window and [n in program.active for n in node.inputs] == [True, False]:
            bilinear = _summed(program, at)
            if bilinear is not None:
                yield bilinear


def turned(program: Program, bilinear: Bilinear) -> Tape:
    """Return the tape with the matrix of a bilinear product at its other operand."""
    tape = program.tape
    second = tape.nodes[bilinear.second]
    (x, w), y = tape.nodes[bilinear.first].inputs, second.inputs[1 - bilinear.slot]
    flipped = bilinear.slot == 0  # y then has what is summed over as its second axis, else as its third one
    shape = program.shapes[y]
    batches, count = shape[0], shape[2 if flipped else 1]

    def rows_of_x(a: Array) -> Array:
        picked = a[0][bilinear.rows]
        return picked if flipped else picked.swapaxes(1, 2)

    def rows_of_y(a: Array) -> Array:
        return (a.swapaxes(1, 2) if flipped else a).reshape(1, batches * count, -1)

    def apart(a: Array) -> Array:
        a = a.reshape(batches, count, -1)
        return a.swapaxes(1, 2) if flipped else a

    def instead(at: int, node: Node, new: Replacement) -> list[Node]:
        if at != bilinear.second:
            return [node]
        matrix = new.layout(w, lambda a: a[:, :, bilinear.columns].swapaxes(1, 2))
        other = new.layout(new.again(tape.nodes[bilinear.first], (new.layout(y, rows_of_y), matrix)), apart)
        own = new.layout(x, rows_of_x)
        new.again(node, (own, other) if flipped else (other, own))
        return new.nodes

    return tape.rewritten(instead)


def _summed(program: Program, at: int) -> Bilinear | None:
    """Return the bilinear product that begins with a product; None where its result goes elsewhere, or is added to."""
    tape, node = program.tape, program.tape.nodes[at]
    shape = program.shapes[node.output]
    if shape[0] != 1 or 0 in shape:
        return None
    reading = program.past_layouts(node.output, elements(shape))
    if reading is None:
        return None
    (second, slot, numbers, _), then = reading, tape.nodes[reading.at]
    if then.kind != "product" or then.window or then.inputs[1 - slot] not in program.active:
        return None
    places = (numbers if slot == 0 else numbers.swapaxes(1, 2)).astype(np.int64) - 1  # (b, row, summed)
    rows, columns = np.divmod(places, shape[2])
    alike = (rows == rows[:, :, :1]).all() and (columns == columns[:1, :1]).all()
    whole = sorted(columns[0, 0].tolist()) == list(range(shape[2])) and (places >= 0).all()
    return Bilinear(at, second, slot, rows[:, :, 0], columns[0, 0]) if alike and whole else None
