"""Let experts read every row and mask what they return, where a model gathers rows for each and scatters the results.

Other models compute all experts on all rows, and weight the results: then both sides meet the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape, identity

GATHERS, ADDS, PUTS = ("index", "index_select"), ("index_add",), ("index_put",)  # names of operations


class Rows(NamedTuple):
    """A value that has some rows of a larger array: at which places, and along which axis."""

    at: int
    axis: int


class Unlike(Exception):
    """An operation that joins rows, or that is not known to keep them apart."""


def routed(program: Program) -> Tape:
    """Return the tape with what is computed of gathered rows as computed of all; the same one where there is none."""
    counts = _scattered(program)
    if not counts:
        return program.tape
    rows: dict[int, Rows] = {}

    def instead(at: int, node: Node, new: Replacement) -> list[Node]:
        index = node.inputs[1] if len(node.inputs) > 1 else -1
        if node.name in GATHERS and index in counts and node.inputs[0] not in rows:
            return _gathered(program, node, counts[index], rows, new)
        if node.name in (*ADDS, *PUTS) and index in counts and node.inputs[-1] in rows:
            if rows[node.inputs[-1]].axis:
                raise Unlike
            return _masked(node, new)
        if any(value in rows for value in node.inputs):
            return _of_all(program, node, rows, new)
        return [node]

    try:
        return program.tape.rewritten(instead)
    except Unlike:
        return program.tape


def scatters(tape: Tape) -> bool:
    """Tell whether an operation puts or adds results at places of an array."""
    return any(node.name in (*ADDS, *PUTS) for node in tape.nodes)


def passed_over(program: Program) -> int:
    """Count the rows that experts lack, of two for each, and what no value reads of them."""
    counts = [len(index) for _, index, _ in _scatters(program)]
    return sum(max(2 - count, 0) for count in counts) + len(program.tape.unread() if counts else [])


def _scattered(program: Program) -> dict[int, int]:
    """Return {indices: number of rows} of results that are put or added at different first places of an array."""
    return {number: rows for number, index, rows in _scatters(program) if len(set(index.tolist())) == len(index) > 0}


def _scatters(program: Program) -> Iterator[tuple[int, Array, int]]:
    """Yield (number of the indices, indices, number of rows) of what puts or adds results at first places of arrays."""
    for node in program.tape.nodes:
        if node.call and node.name in (*ADDS, *PUTS) and len(node.inputs) == 3:
            index = program.indices.get(node.inputs[1])
            first = node.call.settings.get("dim", 0) == 0 and program.shapes[node.inputs[0]]
            if index is not None and index.ndim == 1 and first:
                yield node.inputs[1], index, first[0]


def _gathered(program: Program, node: Node, count: int, rows: dict[int, Rows], new: Replacement) -> list[Node]:
    """Return all rows in place of some; of a gather by several indices zeros in place of the others."""
    source, shape = program.shapes[node.inputs[0]], program.shapes[node.output]
    index = program.indices[node.inputs[1]]
    axes = [axis for axis, (n, k) in enumerate(zip(source, shape, strict=False)) if (n, k) == (count, len(index))]
    if len(node.inputs) == 2 and len(source) == len(shape) and len(axes) == 1:
        rows[node.output] = Rows(node.inputs[1], axes[0])
        return [Node("layout", node.inputs[:1], node.output, identity, node.site)]
    if shape[:1] != (len(index),):
        raise Unlike
    rows[node.output] = Rows(node.inputs[1], 0)

    def spread(values: Array, at: Array) -> Array:
        every = np.zeros((count, *values.shape[1:]), values.dtype)
        every[at] = values
        return every

    new.record("other", (new.again(node, node.inputs), node.inputs[1]), spread)
    return new.nodes


def _masked(node: Node, new: Replacement) -> list[Node]:
    """Return what adds or puts the results of all rows, those of other rows masked."""
    before, index, values = node.inputs

    def masked(at: Array, new: Array) -> Array:
        every = np.zeros_like(new)
        every[at] = new[at]
        return every

    def put(old: Array, at: Array, new: Array) -> Array:
        every = np.array(old)
        every[at] = new[at]
        return every

    if node.call and node.name in ADDS and node.call.settings.get("alpha", 1) == 1:
        new.sum([before, new.record("other", (index, values), masked)])
        return new.nodes
    if node.call and node.name in PUTS and not node.call.settings.get("accumulate", False):
        new.record("other", (before, index, values), put)
        return new.nodes
    raise Unlike


def _of_all(program: Program, node: Node, rows: dict[int, Rows], new: Replacement) -> list[Node]:
    """Return an operation on all rows in place of some; Unlike where it does not keep rows apart."""
    known = [rows[value] for value in node.inputs if value in rows]
    index = known[0].at
    few, shape = len(program.indices[index]), program.shapes[node.output]
    if any(operand.at != index for operand in known):
        raise Unlike
    moves = node.kind == "layout" and len(node.inputs) == 1
    if moves and few == 1 and 1 in shape:  # the first of several axes; what follows refuses a wrong one
        axis = shape.index(1)
    else:
        axis = _axis_of_rows(program, node, rows, few if moves else max(few, 2))
    rows[node.output] = Rows(index, axis)
    if moves:
        return [node._replace(run=_in_parts(node.run, known[0].axis, axis, few))]
    if node.kind != "product" or few > 1 or axis > 0:
        return [node]
    # rows are the second axis of what a product reads
    new.layout(new.again(node, (new.layout(node.inputs[0], _turned), node.inputs[1])), _turned)
    return new.nodes


def _axis_of_rows(program: Program, node: Node, rows: dict[int, Rows], few: int) -> int:
    """Return the axis of an operation's result that has its rows; Unlike where it mixes them."""
    operands = [(rows.get(value), program.shapes.get(value, ())) for value in node.inputs]
    arrays = [_numbered(operand, shape, few) for operand, shape in operands]
    changed = [_numbered(operand, shape, few, 1.0) for operand, shape in operands]
    try:
        apart = np.asarray(node.run(*changed)) != np.asarray(node.run(*arrays))
    except Exception as error:
        raise Unlike from error
    others = [k for k, n in enumerate(apart.shape) if n == few and not apart.take(range(1, few), k).any()]
    if len(others) != 1 or (few > 1 and not apart.take(0, others[0]).any()):
        raise Unlike
    return others[0]


def _numbered(rows: Rows | None, shape: tuple[int, ...], few: int, more: float = 0.0) -> Array:
    """Return an array for an operand, with other values in its first row if it has rows: as many as are given."""
    shape = shape if rows is None else (*shape[: rows.axis], few, *shape[rows.axis + 1 :])
    array = np.random.default_rng(0).standard_normal(shape)
    if rows is not None:
        np.moveaxis(array, rows.axis, 0)[0] += more
    return array


def _in_parts(run: Callable[..., Array], axis: int, result: int, few: int) -> Callable[[Array], Array]:
    """Return a layout of few rows as one of any number: it may state how many there are."""

    def every(values: Array) -> Array:
        count = values.shape[axis]
        places = np.arange(-(-count // few) * few) % count
        parts = [run(values.take(some, axis)) for some in places.reshape(-1, few)]
        return np.concatenate(parts, result).take(range(count), result)

    return every


def _turned(value: Array) -> Array:
    return value.swapaxes(0, 1)
