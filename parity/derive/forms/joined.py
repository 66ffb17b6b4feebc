"""Split products that read values joined of several: [x, y] w = x w1 + y w2, and factors of such values.

Additive attention is an example: one model joins a decoder's state to all positions, another adds two products. Columns
of one number become terms, the number times a row of the matrix: the time of a differential equation, or a one that
stands for a bias. So do graph attentions, which join each node to each other one: columns of one value, of other rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parity.derive.limits import LARGE_USE
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape

MOST = 4  # values of which the columns of one product are joined
Shape = tuple[int, ...]
COLUMNS = 2  # columns of one number: more are a state that begins with it


def separated(program: Program) -> Tape:
    """Return the tape with a product, or factors, for each value that is joined; the same one where none are."""

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        read = [number for number in node.inputs if number in program.active]
        is_product = node.kind == "product" and not node.window and read == [node.inputs[0]]
        is_scaled = node.kind == "mul" and len(read) == 1 and _is_by_parameters(program, node, read[0])
        parts = _parts(program, read[0]) if is_product or is_scaled else []
        if not 1 < len(parts) <= MOST:
            return [node]
        return _separate(node, parts, new) if is_product else _by_parts(node, parts, program.shapes[node.output], new)

    return program.tape.rewritten(instead)


def _is_by_parameters(program: Program, node: Node, value: int) -> bool:
    """Tell whether an operation multiplies each element of a value by what is computed of parameters."""
    shape, known = program.shapes[value], map(program.known, node.inputs)
    return shape == program.shapes[node.output] != () and all(number is None for number in known)


def _parts(program: Program, value: int) -> list[Array]:
    """Return the columns of what a product reads, for each value, or choice of its rows, that they come from."""
    if np.prod(program.shapes[value]) > LARGE_USE:
        return []
    known, starts = dict[int, Array](), [1]
    labels = _labels(program, value, known, starts)
    if starts[-1] > LARGE_USE:
        return []
    owners = np.searchsorted(starts, labels.reshape(-1, labels.shape[-1]), "right")  # 0 for zeros of padding
    if len(starts) < 3:  # one value: graphs join each node to each other one
        if starts[-1] > labels.size:
            return []
        base = next(n for n, own in known.items() if own.size == own.max(initial=0) == starts[-1] - 1)
        owners = (labels.reshape(owners.shape) - 1) // (program.shapes[base] or (1,))[-1] + 1
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


def _by_parts(node: Node, parts: list[Array], shape: Shape, new: Replacement) -> list[Node]:
    """Return the operation on each part of the columns, and what joins the results."""

    def some(value: int, part: Array) -> int:
        return new.layout(value, lambda a: np.broadcast_to(a, shape)[..., part])

    results, order = list[int](), np.argsort(np.concatenate(parts))
    for part in parts:
        results.append(new.record(node.kind, tuple(some(value, part) for value in node.inputs), node.run))
    new.record("layout", tuple(results), lambda *values: np.concatenate(values, -1)[..., order])
    return new.nodes


def with_terms(program: Program) -> Tape:
    """Return the tape with such columns as terms; the same one where there are none."""
    marks = dict[int, Array]()  # of what layouts join of constants and other values: NaN for these
    parameters = program.weights
    tape = replace(program.tape, constants=dict(program.tape.constants))

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        if node.kind == "layout" and (mark := _joined(program, node, marks)) is not None:
            marks[node.output] = mark
        elif node.kind == "product" and not node.window and node.inputs[1] in parameters:
            columns = _of_one_number(marks[node.inputs[0]]) if node.inputs[0] in marks else {}
            if columns:
                return _split(node, program.shapes[node.inputs[1]][1], columns, tape, new)
        return [node]

    rewritten = tape.rewritten(instead)
    return program.tape if rewritten is tape else rewritten


def without_neutral(program: Program) -> Tape:
    """Return the tape without products with ones, and sums with zeros, that are joined to other values.

    An example is a column of ones beside the features of a table, which makes the first row of a weight a token.
    """
    marks = dict[int, Array]()

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        if node.kind == "layout" and (mark := _joined(program, node, marks)) is not None:
            marks[node.output] = mark
        for slot, value in enumerate(node.inputs if node.kind in ("add", "mul") else ()):
            if value in marks and (found := _neutral(program, node, marks[value])):
                return _apart(node, slot, *found, program.shapes[node.output], new)
        return [node]

    return program.tape.rewritten(instead)


def _neutral(program: Program, node: Node, mark: Array) -> tuple[int, Array] | None:
    """Return the axis along which an operand is 1 of a product or 0 of a sum, and where; None if it is that nowhere."""
    shape = program.shapes[node.output]
    same = np.broadcast_to(mark == (node.kind == "mul"), shape)
    for axis in range(len(shape)):
        along = np.moveaxis(same, axis, 0).reshape(shape[axis], -1)
        if along.any() and not along.all() and (along == along[:, :1]).all():
            return axis, along[:, 0]
    return None


def _apart(node: Node, slot: int, axis: int, neutral: Array, shape: Shape, new: Replacement) -> list[Node]:
    """Return the operation without the places where one operand is neutral, which have the other operand's values."""
    order = np.argsort(np.argsort(neutral, kind="stable"))
    others, own_places = np.flatnonzero(~neutral), np.flatnonzero(neutral)

    def part(value: int, places: Array) -> int:
        return new.layout(value, lambda a: np.take(np.broadcast_to(a, shape), places, axis))

    rest = new.record(node.kind, tuple(part(value, others) for value in node.inputs), node.run)
    own = part(node.inputs[1 - slot], own_places)
    new.record("layout", (rest, own), lambda a, b: np.take(np.concatenate([a, b], axis), order, axis))
    return new.nodes


def _joined(program: Program, node: Node, marks: Mapping[int, Array]) -> Array | None:
    """Return the constants in a layout's result, NaN elsewhere; None where there are none."""
    constants = program.tape.constants
    known = [marks.get(n, constants.get(n)) for n in node.inputs]
    shapes = [program.shapes[n] for n in node.inputs]
    large = sum(int(np.prod(shape)) for shape in shapes) > LARGE_USE
    if large or all(value is None for value in known) or any(n in program.indices for n in node.inputs):
        return None
    mark = node.run(*(np.full(s, np.nan) if v is None else v for v, s in zip(known, shapes, strict=True)))
    return mark if np.isnan(mark).any() and not np.isnan(mark).all() else None


def _of_one_number(mark: Array) -> dict[int, float]:
    """Return the columns (b, rows, column) that are one number, but for zeros, as of an initial state, and for many."""
    first = mark[:1, :1]
    alike = ((mark == first) & (mark != 0)).all((0, 1))
    numbers = {int(k): float(first[0, 0, k]) for k in np.flatnonzero(alike)}
    return numbers if len(numbers) <= COLUMNS else {}


def _split(node: Node, rows: int, columns: Mapping[int, float], tape: Tape, new: Replacement) -> list[Node]:
    """Return the product without some columns, and a sum of it and of a term for each of these."""
    x, w = node.inputs
    rest = [k for k in range(rows) if k not in columns]
    values = [new.again(node, (new.layout(x, lambda v: v[:, :, rest]), new.layout(w, lambda v: v[:, rest])))]
    for k, scale in columns.items():
        row = new.layout(w, lambda v, k=k: v[:, k : k + 1])  # type: ignore[misc]
        factor = new.number()
        tape.constants[factor] = np.float64(scale)
        values.append(new.record("mul", (row, factor), np.multiply))
    new.sum(values)
    return new.nodes
