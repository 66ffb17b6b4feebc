"""Find what the columns of a product's result are for, by following them to the first arithmetic.

Columns that go different ways (query, key and value of one fused projection; gates of one recurrent kernel) are
different groups. In a group, columns are ordered by where they come to lie in the operation that reads them, so that
heads in front or behind, split or flattened, are told apart without a guess from shapes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..limits import LARGE_USE
from ..trace.program import Program
from ..trace.tape import Array, Node

PROBE = np.array([[-1.5, -0.5, 0.5, 2.0]])  # where functions of one array are compared
SIDE = r"product \d"
FIRST = 3  # kinds of readers that make a role
UNREAD = "unread"  # the role of columns that nothing reads
MAX_ORDERS = 6  # orders of the coordinates of columns that are tried
SINGLE = -1  # in place of an axis: a function of single values mixes none
MAX_STEPS = 200  # operations that are followed from one product


class Beside(NamedTuple):
    """What columns are multiplied with or added to.

    Args:
      value: its number. shape: of the result. places: in the flat result, the first of each column.
    """

    value: int
    shape: tuple[int, ...]
    places: Array


@dataclass(frozen=True)
class Group:
    """Columns that are read by the same operations.

    Args:
      role: the kinds of the first of those, and which operand they are.
      columns: in the order of their places there.
      places: the coordinates of each, as ranks; axes along which all are alike are left out.
      biased: whether anything but zero is added to them before.
      beside: None where they are multiplied with or added to no other activation.
    """

    role: str
    columns: Array
    places: Array
    biased: bool = False
    beside: Beside | None = None

    def of(self, ids: Array) -> Array:
        """Return the elements of these columns, without a copy where they are all of them."""
        whole = len(self.columns) == ids.shape[2] and (np.diff(self.columns) == 1).all()
        return ids if whole else ids[:, :, self.columns]

    def orders(self) -> Iterator[Group]:
        """Yield the group with its columns ordered by the same coordinates in another order."""
        for axes in list(itertools.permutations(range(self.places.shape[1])))[1:MAX_ORDERS]:
            order = np.lexsort(self.places[:, axes[::-1]].T)
            yield replace(self, columns=self.columns[order], places=self.places[order])

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of different coordinates along each axis."""
        return tuple(int(axis.max()) + 1 for axis in self.places.T) if len(self.columns) else ()


class Reader(NamedTuple):
    """An operation that reads columns.

    Args:
      role: what distinguishes it. labels: the number of the column, from 1, of each of its operand's elements.
      axis: along which it mixes values; None if it does not, or along several.
    """

    role: str
    labels: Array
    axis: int | None = None


def alike(a: Sequence[Group], b: Sequence[Group]) -> bool:
    """Tell whether columns fall into groups of the same sizes: neither product is a part of the other, it seems."""
    return sorted(len(group.columns) for group in a) == sorted(len(group.columns) for group in b)


def difference(a: str, b: str) -> int:
    """Rank how far two roles differ: 0 not at all, 1 in the sides of products, which einsums exchange, 2 otherwise."""
    return 0 if a == b else 1 if re.sub(SIDE, "product", a) == re.sub(SIDE, "product", b) else 2


def groups(program: Program, at: int, flipped: bool, gates: bool, beyond: bool = False) -> list[Group]:
    """Group the columns of the product at this place of the tape; columns of several batches stay together.

    Args:
      gates: whether columns are followed through one sum with another activation.
      beyond: whether also through activation functions: columns may come apart behind one that is applied to all.
    """
    node = program.tape.nodes[at]
    shape = program.shapes[node.output]
    axis = 1 if node.window or flipped else 2
    count = shape[axis]
    labels = np.arange(1.0, count + 1).reshape([-1 if d == axis else 1 for d in range(len(shape))])
    biased = np.zeros(count + 1, bool)
    met = _met(program, node.output, np.broadcast_to(labels, shape)) if math.prod(shape) <= LARGE_USE else None
    readers = _follow(program, node.output, np.broadcast_to(labels, shape), not gates, beyond, biased)
    paths: dict[int, tuple[int, ...]] = dict.fromkeys(range(count), ())
    for k, reader in enumerate(readers):
        seen = np.bincount(np.ravel(reader.labels).astype(np.int64), minlength=count + 1)
        for column in np.flatnonzero(seen[1:]):
            paths[int(column)] += (k,)
    found = []
    for path in dict.fromkeys(paths.values()):
        columns = np.array([column for column in range(count) if paths[column] == path])
        if not path:
            found.append(Group(UNREAD, columns, np.arange(len(columns))[:, None]))
            continue
        ranks, places = _places(readers[path[0]], columns)
        order = np.lexsort(ranks.T[::-1]) if ranks.size else np.arange(len(columns))
        kinds = list(dict.fromkeys(readers[k].role for k in path))
        role = " ".join([kind for kind in kinds if kind != "add"][:FIRST] or kinds)  # an initial state adds nothing
        found.append(Group(role, columns[order], places[order], bool(biased[columns + 1].any()),
                           met and _beside(program, met, columns[order])))  # fmt: skip
    return found


def _met(program: Program, value: int, labels: Array) -> tuple[int, Array] | None:
    """Return (other operand, labels) of the first product or sum with another activation, past functions of values."""
    waiting = [(value, labels)]
    for _ in range(MAX_STEPS):
        if not waiting:
            break
        value, labels = waiting.pop(0)
        for at, slot in program.consumers.get(value, []):
            node = program.tape.nodes[at]
            if node.kind == "layout":
                waiting.append((node.output, _moved(program, node, slot, labels)))
            elif node.kind in ("add", "mul") and node.inputs[1 - slot] not in program.active:
                waiting.append((node.output, np.broadcast_to(labels, program.shapes[node.output])))
            elif node.kind in ("add", "mul"):
                return node.inputs[1 - slot], labels
            elif (run := _function(program, node, slot)) and _mixed(program, node, slot, run) == SINGLE:
                waiting.append((node.output, labels))
    return None


def _beside(program: Program, met: tuple[int, Array], columns: Array) -> Beside | None:
    """Return where columns meet another activation; None where some do not."""
    number, labels = met
    shape = np.broadcast_shapes(labels.shape, program.shapes[number])
    found, first = np.unique(np.broadcast_to(labels, shape), return_index=True)
    at = np.searchsorted(found, columns + 1)
    if (at >= len(found)).any() or (found[at] != columns + 1).any():
        return None
    return Beside(number, shape, first[at])


def _follow(program: Program, start: int, labels: Array, summed: bool, beyond: bool, biased: Array) -> list[Reader]:
    """Return each operation that reads the labelled value, through layout, biases and scales.

    One sum with another activation is followed as well, unless `summed`: gates of recurrent networks come apart behind
    it. So are functions of single values, and one product of two of them, if `beyond`.

    Args:
      biased: by label; set where anything but zero is added to a column.
    """
    tape, found, steps = program.tape, [], 0
    waiting = [(start, labels, summed, not beyond)]  # the last: whether no more functions are followed
    while waiting and steps < MAX_STEPS:
        value, labels, summed, ended = waiting.pop(0)
        steps += 1
        if value in tape.outputs:
            found.append(Reader("output", labels))
        for at, slot in program.consumers.get(value, []):
            node = tape.nodes[at]
            if node.kind == "layout" and not (isinstance(labels, np.ndarray) and labels.size == 0):
                waiting.append((node.output, _moved(program, node, slot, labels), summed, ended))
                continue
            spread = program.shapes[node.output]
            if node.kind in ("add", "mul") and node.inputs[1 - slot] not in program.active:
                if node.kind == "add":
                    added = _present(program, node.inputs[1 - slot])
                    some = (
                        labels if added.all() else np.broadcast_to(labels, spread)[np.broadcast_to(added, spread) > 0]
                    )
                    biased[some.astype(np.int64)] = True
                waiting.append((node.output, np.broadcast_to(labels, spread), summed, ended))
                continue
            found.append(_reader(program, node, slot, labels))
            if node.kind == "add" and not summed:
                waiting.append((node.output, np.broadcast_to(labels, spread), True, ended))
            elif not ended and node.kind == "mul":
                waiting.append((node.output, np.broadcast_to(labels, spread), summed, True))
            elif not ended and program.mixing.get(node.output) == SINGLE:
                waiting.append((node.output, labels, summed, ended))
    return found


def _present(program: Program, number: int) -> Array:
    """Return zeros where a value that no input reaches is the constant zero, as the bias of keys alone; else ones."""
    if number in program.tape.constants:
        return np.asarray(program.tape.constants[number] != 0, np.float64)
    node = program.tape.nodes[program.makers[number]] if number in program.makers else None
    if node is None or node.kind != "layout":
        return np.ones(program.shapes[number])
    return node.run(*(program.indices.get(each, _present(program, each)) for each in node.inputs))


def _reader(program: Program, node: Node, slot: int, labels: Array) -> Reader:
    """Return what distinguishes operations in any framework: the operand's side, or a function's values."""
    if node.kind == "product" and not node.window:
        summed = 1 if slot else 2  # queries and keys are summed over there, values are not: in any order of operands
        kept = (labels.min(summed) == labels.max(summed)).all()
        return Reader(f"product {slot}" + " kept" * bool(kept), labels)
    run = _function(program, node, slot)
    if run is None:
        return Reader(node.kind, labels)
    axis = _mixed(program, node, slot, run)
    axis = None if axis == SINGLE else axis
    probe = PROBE if axis is None else PROBE.reshape([-1 if d == axis else 1 for d in range(labels.ndim)])
    try:
        values = np.round(np.ravel(run(probe)), 2)
    except Exception:  # a function that does not take such an array
        return Reader(node.kind, labels, axis)
    return Reader(f"other {values.tolist()}", labels, axis)


def _function(program: Program, node: Node, slot: int) -> Callable[[Array], Array] | None:
    """Return an operation as a function of one operand; None where others are no constants, or it has another form."""
    others = {k: program.tape.constants.get(number) for k, number in enumerate(node.inputs) if k != slot}
    if node.kind != "other" or any(value is None for value in others.values()):
        return None
    return lambda x: node.run(*(others.get(k, x) for k in range(len(node.inputs))))


def _mixed(program: Program, node: Node, slot: int, run: Callable[[Array], Array]) -> int | None:
    """Return what `mixed` does of the function of an operand, computed once."""
    if node.output not in program.mixing:
        program.mixing[node.output] = mixed(run, program.shapes[node.inputs[slot]])
    return program.mixing[node.output]


def mixed(run: Callable[[Array], Array], shape: tuple[int, ...]) -> int | None:
    """Return the axis along which a function of one array mixes values, as a softmax does; None if there is not one.

    SINGLE is returned for a function of each single value.
    """
    values = np.zeros(shape)
    try:
        before = run(values)
        values[(0,) * len(shape)] = 1
        changed = run(values) != before
    except Exception:  # a function that does not take such an array
        return None
    if changed.shape != shape or not shape:
        return None
    axes = [axis for axis, places in enumerate(np.nonzero(changed)) if places.any()]
    return axes[0] if len(axes) == 1 else None if axes else SINGLE


def _moved(program: Program, node: Node, slot: int, labels: Array) -> Array:
    operands = []
    for k, number in enumerate(node.inputs):
        if k == slot:
            operands.append(labels)
        else:
            operands.append(program.indices.get(number, np.zeros(program.shapes[number])))
    return node.run(*operands)


def _places(reader: Reader, columns: Array) -> tuple[Array, Array]:
    """Return (order of columns, coordinates of each): ranks of their mean places along the axes of what reads them.

    The axis over which a product sums, or along which a function mixes values, comes last: einsums exchange operands,
    and a softmax may be taken over any axis. Where there is none, columns are ordered by their places in the whole
    array; their coordinates tell more where they lie along three axes, as pixels that come out of channels do.
    """
    labels = reader.labels
    last = 1 if reader.role.startswith("product 1") else reader.axis
    each = np.ix_(*map(np.arange, labels.shape))
    axes = [axis for d, axis in enumerate(each) if d != last] + ([] if last is None else [each[last]])
    ranks = _ranks(labels, axes, columns)
    if reader.role.startswith("product") or reader.axis is not None:
        return ranks, ranks
    flat = _ranks(labels, [np.arange(labels.size).reshape(labels.shape)], columns)
    pixels = ranks.shape[1] > 2 and np.prod(ranks.max(0) + 1) == len(np.unique(ranks, axis=0)) == len(columns)
    return flat, ranks if pixels else flat


def _ranks(labels: Array, axes: Sequence[Array], columns: Array) -> Array:
    """Rank the mean place of each column along some axes; those along which all are alike are left out."""
    flat = labels.astype(np.int64).ravel()
    top = int(flat.max()) + 1
    count = np.maximum(np.bincount(flat, minlength=top), 1)
    ranks = []
    for axis in axes:
        mean = np.bincount(flat, np.broadcast_to(axis, labels.shape).ravel(), top) / count
        rank = np.unique(np.round(mean[columns + 1], 6), return_inverse=True)[1]
        if rank.any():
            ranks.append(rank)
    return np.stack(ranks, 1) if ranks else np.zeros((len(columns), 0), np.int64)
