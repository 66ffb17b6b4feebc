"""Move factors to one side of products: gates of experts, and temperatures of similarities, stand at either place."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, elements, picked

LARGEST = 1 << 22  # elements of the products of all factors and all inputs, above which these are not formed


class Matrix(NamedTuple):
    """A product with a matrix that depends on no input, and what reads its result, past layouts and one bias.

    Args:
      at: the operation. axis: of its result, that has the rows of activations: 1, or 2 if the matrix is the first one.
      chain: the layouts. bias: the operation that adds it, or -1. term: the bias.
      term_at: its flat element for each column of the result, which has one row.
      reader: the operation behind them. slot: which of its operands this is. labels: the result's elements there.
    """

    at: int
    axis: int
    chain: tuple[int, ...]
    bias: int
    term: int
    term_at: Array
    reader: int
    slot: int
    labels: Array


class Mean(NamedTuple):
    """A product that sums over results of several experts, each times a factor: q (x w + b) = (q x) w + q b.

    Args:
      rows: the row of x for each (batch, k), which have the factor q[batch, m, k].
      columns: the column of w for each (k, column).
    """

    rows: Array
    columns: Array


def scaled_before(program: Program) -> Tape:
    """Return the tape with the factors of products at what they read; the same one where there are none."""
    tape = program.tape
    matrices = [matrix for at in range(len(tape.nodes)) if (matrix := _matrix(program, at)) is not None]
    gates = {matrix.reader: (matrix, pick) for matrix in matrices if (pick := _gate(program, matrix)) is not None}
    means = {matrix.reader: (matrix, mean) for matrix in matrices if (mean := _mean(program, matrix)) is not None}
    moved = {at for matrix, _ in (*gates.values(), *means.values()) for at in (matrix.at, matrix.bias, *matrix.chain)}

    def instead(at: int, node: Node, new: Replacement) -> list[Node]:
        if at in gates:
            return _scaled(tape, *gates[at], node, new)
        if at in means:
            return _joined(program, *means[at], node, new)
        return [] if at in moved else [node]

    return tape.rewritten(instead)


def _matrix(program: Program, at: int) -> Matrix | None:
    """Return a product with a matrix, and what alone reads it; None of other operations."""
    tape, node = program.tape, program.tape.nodes[at]
    active = [n in program.active for n in node.inputs]
    if node.kind != "product" or node.window or sum(active) != 1:
        return None
    shape, axis = program.shapes[node.output], 1 if active[0] else 2
    reading = program.past_layouts(node.output, elements(shape))
    bias, term, term_at, chain = -1, -1, np.zeros(0, int), reading.layouts if reading else ()
    if reading and tape.nodes[reading.at].kind == "add":
        bias, term = reading.at, tape.nodes[reading.at].inputs[1 - reading.slot]
        terms = _met(program, reading.labels, bias, term, shape, 3 - axis)
        if term in program.active or terms is None:
            return None
        term_at, reading = terms, program.past_layouts(tape.nodes[bias].output, reading.labels)
        chain += reading.layouts if reading else ()
    return reading and Matrix(at, axis, chain, bias, term, term_at, reading.at, reading.slot, reading.labels)


def _met(program: Program, labels: Array, at: int, other: int, shape: tuple[int, ...], axis: int) -> Array | None:
    """Return the flat element of an operand that each part of a product along an axis meets; None of several.

    Args:
      labels: of the product's elements, which are all of the result of the operation `at`. shape: of the product.
    """
    if (labels <= 0).any() or program.shapes[program.tape.nodes[at].output] != np.shape(labels):
        return None
    size, numbers = program.shapes[other], np.full(math.prod(shape), -1)
    met = np.broadcast_to(np.arange(math.prod(size)).reshape(size), np.shape(labels))
    numbers[labels.astype(np.int64) - 1] = met
    numbers = numbers.reshape(shape)
    first = numbers.take([0], 3 - axis)
    return first if (numbers >= 0).all() and (numbers == first).all() else None


def _gate(program: Program, matrix: Matrix) -> Array | None:
    """Return the flat element of the factor by which each row of a product is multiplied; None where there is none."""
    then = program.tape.nodes[matrix.reader]
    other = then.inputs[1 - matrix.slot] if then.kind == "mul" else -1
    if other not in program.active:
        return None
    shape = program.shapes[program.tape.nodes[matrix.at].output]
    return _met(program, matrix.labels, matrix.reader, other, shape, matrix.axis)


def _scaled(tape: Tape, matrix: Matrix, pick: Array, node: Node, new: Replacement) -> list[Node]:
    """Return a product of scaled rows, and of the factors and its bias, in place of a multiplication."""
    product = tape.nodes[matrix.at]
    factor = new.layout(node.inputs[1 - matrix.slot], picked(pick))
    scaled = new.record("mul", (product.inputs[matrix.axis - 1], factor), np.multiply)
    y = new.again(product, (scaled, product.inputs[1]) if matrix.axis == 1 else (product.inputs[0], scaled))
    if matrix.bias >= 0:
        row = new.layout(matrix.term, picked(matrix.term_at))
        y = new.sum([y, new.again(product, (factor, row) if matrix.axis == 1 else (row, factor))])
    for layout in (tape.nodes[at] for at in matrix.chain):
        y = new.again(layout, (y,))
    return new.nodes


def _mean(program: Program, matrix: Matrix) -> Mean | None:
    """Return where results of experts come from that a product sums over; None if they are no such.

    Values of attention are none: their columns are the same for each token.
    """
    then, made = program.tape.nodes[matrix.reader], program.tape.nodes[matrix.at]
    is_plain = then.kind == "product" and not then.window and program.active.issuperset(then.inputs)
    if not is_plain or (matrix.labels <= 0).any():
        return None
    at = np.unravel_index(matrix.labels.astype(np.int64) - 1, program.shapes[made.output])
    places = at[0], at[matrix.axis], at[3 - matrix.axis]
    batch, row, column = (each if matrix.slot else each.swapaxes(1, 2) for each in places)
    count, *_ = shape = program.shapes[made.output]
    rows, columns = batch * shape[matrix.axis] + row, batch * shape[3 - matrix.axis] + column
    alike = (rows == rows[..., :1]).all() and (columns == columns[:1]).all()
    apart = len(np.unique(columns[0])) == columns[0].size == count * shape[3 - matrix.axis]
    size = math.prod(program.shapes[then.output]) // columns.shape[2] * columns.shape[1]
    if not alike or not apart or size * program.shapes[made.inputs[matrix.axis - 1]][3 - matrix.axis] > LARGEST:
        return None
    return Mean(rows[..., 0], columns[0])


def _joined(program: Program, matrix: Matrix, mean: Mean, node: Node, new: Replacement) -> list[Node]:
    """Return one product of all factors times all inputs, in place of one with the results of a matrix."""
    made, shape = program.tape.nodes[matrix.at], program.shapes[node.output]

    def turned(a: Array, swaps: bool) -> Array:
        return a.swapaxes(1, 2) if swaps else a

    def every(x: Array) -> Array:
        x = turned(x, matrix.axis == 2)
        return x.reshape(-1, x.shape[2])[mean.rows][:, None]

    def side_by_side(w: Array) -> Array:
        w = turned(w, matrix.axis == 1)  # (batch, column, j)
        w = w.reshape(-1, w.shape[2])[mean.columns]
        return w.swapaxes(1, 2).reshape(1, -1, w.shape[1])

    x = new.layout(made.inputs[matrix.axis - 1], every)
    q = new.layout(node.inputs[1 - matrix.slot], lambda a: turned(a, not matrix.slot)[..., None])
    both = new.record("mul", (q, x), np.multiply)
    flat = new.layout(both, lambda a: a.reshape(1, -1, a.shape[2] * a.shape[3]))
    w = new.layout(made.inputs[2 - matrix.axis], side_by_side)
    y = new.record("product", (flat, w), made.run)
    if matrix.bias >= 0:
        row = new.layout(matrix.term, lambda b: np.reshape(b, -1)[matrix.term_at.ravel()[mean.columns]][None])
        factors = new.layout(q, lambda a: a.reshape(1, -1, a.shape[2]))
        y = new.sum([y, new.record("product", (factors, row), made.run)])
    out = shape if matrix.slot else (shape[0], shape[2], shape[1])
    new.layout(y, lambda a: turned(a.reshape(out), not matrix.slot))
    return new.nodes


class Scale(NamedTuple):
    """A factor that weights alone determine, and that a product does not sum over.

    Args:
      entry: the multiplication. value: what it multiplies. factor: the factor's value.
      behind: the last product that it may follow instead. pick: the factor's flat element for each of its results.
    """

    entry: int
    value: int
    factor: int
    behind: int
    pick: Array


def scaled_behind(program: Program) -> Tape:
    """Return the tape with such factors behind the products; the same one where there are none."""
    tape, weights = program.tape, program.weights
    scales = [scale for at in range(len(tape.nodes)) if (scale := _scale(program, at, weights)) is not None]
    renamed = dict[int, int]()  # the result of a multiplication that moves -> what it multiplied
    for scale in scales:
        renamed[tape.nodes[scale.entry].output] = renamed.get(scale.value, scale.value)

    def instead(at: int, node: Node, new: Replacement) -> list[Node]:
        if node.output in renamed:
            return []
        inputs = tuple(renamed.get(value, value) for value in node.inputs)
        behind = [scale for scale in scales if scale.behind == at]
        if not behind:
            return [node._replace(inputs=inputs)]
        y = new.again(node, inputs)
        for scale in behind:
            y = new.record("mul", (y, new.layout(scale.factor, picked(scale.pick))), np.multiply)
        return new.nodes

    return tape.rewritten(instead)


def _scale(program: Program, at: int, weights: Collection[int]) -> Scale | None:
    """Return the factor that this operation multiplies with, if it may stand behind a product instead."""
    node, tape = program.tape.nodes[at], program.tape
    if node.kind != "mul" or sum(number in weights for number in node.inputs) != 1:
        return None
    factor, x = sorted(node.inputs, key=lambda number: number not in weights)
    if x not in program.active or program.shapes[node.output] != program.shapes[x]:
        return None
    pick, value, scale = np.broadcast_to(elements(program.shapes[factor]), program.shapes[x]), node.output, None
    while (reading := program.past_layouts(value, pick)) is not None:
        then, pick = tape.nodes[reading.at], reading.labels
        if then.kind == "product" and not then.window:
            summed = 1 if reading.slot else 2
            most = pick.max(summed, keepdims=True)
            if not ((pick == most) | (pick == 0)).all():  # 0 stands where zeros are padded
                return scale
            pick = np.broadcast_to(most, program.shapes[then.output])
            every = np.maximum(pick, 1).astype(np.int64) - 1
            scale = Scale(at, x, factor, reading.at, every)
        elif then.kind == "mul":
            pick = program.labelled(then, reading.slot, pick)
        else:
            return scale
        value = then.output
    return scale
