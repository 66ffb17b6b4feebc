"""Find what the columns of a product's result are for, by following them to the first arithmetic.

Columns that go different ways (query, key and value of one fused projection; gates of one recurrent kernel) are
different groups. In a group, columns are ordered by where they come to lie in the operation that reads them, so that
heads in front or behind, split or flattened, are told apart without a guess from shapes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from parity.derive.limits import LARGE_USE
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, along, elements, tried

from .met_columns import MAX_STEPS, Beside, Met, behind, beside, met, summed_over, summed_with
from .operations import SINGLE, function, mixing

PROBE = np.array([[-1.5, -0.5, 0.5, 2.0]])  # where functions of one array are compared
SIDE = r"product \d"
FUNCTION = "other"  # begins the role of what a function reads, before its values
FIRST = 3  # kinds of readers that make a role, or that a column has past functions of single values
UNREAD = "unread"  # the role of columns that nothing reads
MAX_ORDERS = 6  # orders of the coordinates of columns that are tried


@dataclass(frozen=True)
class Group:
    """Columns that are read by the same operations.

    Args:
      role: the kinds of the first of those, and which operand they are.
      columns: in the order of their places there.
      places: the coordinates of each, as ranks; axes along which all are alike are left out.
      biased: whether anything but zero is added to them before.
      beside: None where they are multiplied with or added to no other activation.
      over: what they are summed over with, as queries with keys; None where there is no such product.
      behind: roles of what mixes them past functions of single values, each with the rank of each column there.
    """

    role: str
    columns: Array
    places: Array
    biased: bool = False
    beside: Beside | None = None
    over: Beside | None = None
    behind: Mapping[str, Array] = field(default_factory=dict)

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
        """Count the different coordinates along each axis."""
        return tuple(int(axis.max()) + 1 for axis in self.places.T) if len(self.columns) else ()


class Depth(NamedTuple):
    """How far the columns of a product are followed, to group them by what they are for.

    Args:
      gates: whether through one sum with another activation, as in recurrent networks.
      beyond: whether through functions of single values, too: columns may come apart behind one that all have.
      summed: whether they are also grouped by the products that make what they are summed over with, as where keys are
        joined of two parts, and the columns of queries that meet one of these are a matrix of its own elsewhere.
    """

    gates: bool = False
    beyond: bool = False
    summed: bool = False


class Reader(NamedTuple):
    """An operation that reads columns.

    Args:
      role: what distinguishes it. labels: the number of the column, from 1, of each of its operand's elements.
      axis: along which it mixes values; None if it does not, or along several.
    """

    role: str
    labels: Array
    axis: int | None = None


def same_group_sizes(a: Sequence[Group], b: Sequence[Group]) -> bool:
    """Tell whether columns fall into groups of the same sizes: then neither product seems a part of the other."""
    return sorted(len(group.columns) for group in a) == sorted(len(group.columns) for group in b)


def alike(a: Group, b: Group) -> bool:
    """Tell whether two groups have as many columns, which are for the same, or read by functions of single values."""
    return len(a.columns) == len(b.columns) and difference(a.role, b.role) < 3


def unmet(a: Sequence[Group], b: Sequence[Group]) -> int:
    """Count the groups of one product that have none of their role in another; 0 for groups of other sizes."""
    rest = [group.role for group in b] if same_group_sizes(a, b) else []
    found = 0
    for group in a if rest else ():
        same = [role for role in rest if difference(group.role, role) < 2]
        found += not same
        rest = [role for k, role in enumerate(rest) if not same or k != rest.index(same[0])]
    return found


def difference(a: str, b: str) -> int:
    """Rank how far two roles differ.

    Returns: 0 for equal ones, 1 for other sides of products, which einsums exchange, 2 for two functions of single
      values, as other activations are, 3 otherwise.
    """
    if a == b:
        return 0
    if re.sub(SIDE, "product", a) == re.sub(SIDE, "product", b):
        return 1
    return 2 if FUNCTION in a and FUNCTION in b else 3


def as_behind(group: Group, other: Group) -> Array | None:
    """Return the left columns in the order of where the right ones are mixed past functions of single values."""
    common = next((role for role in group.behind if role in other.behind), None)
    return None if common is None else np.argsort(other.behind[common])[group.behind[common]]


def groups(program: Program, at: int, flipped: bool, depth: Depth) -> list[Group]:
    """Group the columns of the product at this place of the tape; columns of several batches stay together."""
    node = program.tape.nodes[at]
    labels, others, ends = program.once(_behind, at, flipped)
    count = labels.shape[1 if node.window or flipped else 2]
    biased = np.zeros(count + 1, bool)
    readers = _follow(program, node.output, labels, not depth.gates, depth.beyond, biased)
    paths: dict[int, tuple[int, ...]] = dict.fromkeys(range(count), ())
    for k, reader in enumerate(readers):
        seen = np.bincount(np.ravel(reader.labels).astype(np.int64), minlength=count + 1)
        for column in np.flatnonzero(seen[1:]):
            paths[int(column)] += (k,)
    makers = summed_with(program, others[1]) if depth.summed else {}
    kinds_of = [(paths[column], makers.get(column + 1, frozenset())) for column in range(count)]
    found = []
    for path, sources in dict.fromkeys(kinds_of):
        columns = np.array([column for column in range(count) if kinds_of[column] == (path, sources)])
        if not path:
            found.append(Group(UNREAD, columns, np.arange(len(columns))[:, None]))
            continue
        ranks, places = _places(readers[path[0]], columns)
        order = np.lexsort(ranks.T[::-1]) if ranks.size else np.arange(len(columns))
        kinds = list(dict.fromkeys(readers[k].role for k in path))
        role = " ".join([kind for kind in kinds if kind != "add"][:FIRST] or kinds)  # an initial state adds nothing
        columns = columns[order]
        of, over = (beside(program, some, columns) for some in others)
        plus = bool(biased[columns + 1].any())
        found.append(Group(role, columns, places[order], plus, of, over, _ranked(ends, columns)))
    return found


def _behind(program: Program, at: int, flipped: bool) -> tuple[Array, tuple[list[Met], list[Met]], list[Reader]]:
    """Return (numbers of a product's columns, from 1; what these meet, and are summed over with; what mixes them)."""
    node = program.tape.nodes[at]
    shape = program.shapes[node.output]
    axis = 1 if node.window or flipped else 2
    labels = np.broadcast_to(along(elements([shape[axis]]), axis, len(shape)), shape)
    if math.prod(shape) > LARGE_USE:
        return labels, ([], []), []
    start = (program, node.output, labels)
    return labels, (met(*start), summed_over(*start)), _ends(*start)


def _follow(program: Program, start: int, labels: Array, summed: bool, beyond: bool, biased: Array) -> list[Reader]:
    """Return each operation that reads the labelled value, through layout, biases and scales.

    One sum with another activation is followed as well, unless `summed`: gates of recurrent networks come apart behind
    it. So are functions of single values, and one product of two of them, if `beyond`.

    Args:
      biased: by label; set where anything but zero is added to a column.
    """
    tape, found, steps = program.tape, [], 0
    waiting = [(start, labels, summed)]
    while waiting and steps < MAX_STEPS:
        value, labels, summed = waiting.pop(0)
        steps += 1
        if value in tape.outputs:
            found.append(Reader("output", labels))
        for at, slot in program.readers(value):
            node = tape.nodes[at]
            if program.routes(node):  # with other parameters it reads other columns
                found.append(Reader(f"routed {_middle(labels)}", labels))
                continue
            if program.by_channel(node, slot):
                waiting.append((node.output, program.labelled(node, slot, labels), summed))
                continue
            if node.kind == "layout" and not (isinstance(labels, np.ndarray) and labels.size == 0):
                waiting.append((node.output, program.labelled(node, slot, labels), summed))
                continue
            wide = labels if node.kind == "layout" else program.labelled(node, slot, labels)
            if node.kind in ("add", "mul") and node.inputs[1 - slot] not in program.active:
                if node.kind == "add":
                    added = _present(program, node.inputs[1 - slot])
                    some = labels if added.all() else wide[np.broadcast_to(added, wide.shape) > 0]
                    biased[some.astype(np.int64)] = True
                waiting.append((node.output, wide, summed))
                continue
            if node.kind in ("add", "mul") and _is_one_for_all(program, node.inputs[1 - slot], wide):
                waiting.append((node.output, wide, summed))
                continue
            found.append(_reader(program, node, slot, labels))
            if node.kind == "add" and not summed:
                waiting.append((node.output, wide, True))
            elif beyond and (node.kind == "mul" or mixing(program, node, slot) == SINGLE):
                waiting.append((node.output, wide, summed))
    return found


def _is_one_for_all(program: Program, number: int, labels: Array) -> bool:
    """Tell whether an operand has the same values for all columns, but for parameters, as a norm's statistics have."""
    shape = program.shapes[number]
    lengths = (1,) * (labels.ndim - len(shape)) + shape
    varying = [axis for axis in range(labels.ndim) if np.diff(labels, axis=axis).any()]
    if number not in program.active or all(lengths[axis] == 1 for axis in varying):
        return True
    node = program.maker(number)
    if node is None or not (node.kind == "mul" or _broadcasts(program, node)):
        return False
    return all(_is_one_for_all(program, operand, labels) for operand in node.inputs)


def _broadcasts(program: Program, node: Node) -> bool:
    """Tell whether a layout only repeats its operand along axes of length 1."""
    if node.kind != "layout" or len(node.inputs) != 1:
        return False
    numbers, shape = elements(program.shapes[node.inputs[0]]), program.shapes[node.output]
    is_wider = numbers.ndim == len(shape) and all(n in (1, m) for n, m in zip(numbers.shape, shape, strict=True))
    return is_wider and np.array_equal(node.run(numbers), np.broadcast_to(numbers, shape))


def _middle(labels: Array) -> list[float]:
    """Return where the middle of the labelled places is along each axis that they do not fill, from 0 to 1."""
    places = ((along, n) for along, n in zip(np.nonzero(labels), np.shape(labels), strict=True) if n > 1)
    middles = (round(float(along.mean()) / (n - 1), 2) for along, n in places if along.size)
    return sorted(middle for middle in middles if middle != 0.5)


def _ends(program: Program, value: int, labels: Array) -> list[Reader]:
    """Return the first operation of each kind that mixes a column, past functions of single values.

    Products with parameters come last: columns may stand there in any order, if the parameters' rows do. What returns
    indices, as argmax, says nothing: code may count them from the other end.
    """

    def tells_less(end: tuple[Node | None, int, Array]) -> bool:
        node, slot, _ = end
        return node is not None and node.kind == "product" and node.inputs[1 - slot] not in program.active

    ends = (end for end in behind(program, value, labels) if end[0] is None or end[0].output not in program.indices)
    found, seen = list[Reader](), defaultdict[float, set[str]](set)
    for node, slot, here in sorted(ends, key=tells_less):
        reader = _reader(program, node, slot, here) if node else Reader("output", here)
        new = [column for column in np.unique(here).tolist() if column and len({*seen[column], reader.role}) <= FIRST]
        if any(reader.role not in seen[column] for column in new):  # steps of time have one role
            found.append(reader)
            for column in new:
                seen[column].add(reader.role)
    return found


def _ranked(ends: Sequence[Reader], columns: Array) -> dict[str, Array]:
    """Return for the role of each operation that all of these columns reach the rank of each of them there."""
    found = dict[str, Array]()
    for reader in ends:
        if np.isin(columns + 1, reader.labels).all():
            ranks, _ = _places(reader, columns)
            order = np.lexsort(ranks.T[::-1]) if ranks.size else np.arange(len(columns))
            found.setdefault(re.sub(SIDE, "product", reader.role), np.argsort(order))
    return found


def _present(program: Program, number: int) -> Array:
    """Return zeros where a value that no input reaches is the constant zero, as the bias of keys alone; else ones."""
    if number in program.tape.constants:
        return np.asarray(program.tape.constants[number] != 0, np.float64)
    node = program.maker(number)
    if node is None or node.kind != "layout":
        return np.ones(program.shapes[number])
    return node.run(*(program.indices.get(each, _present(program, each)) for each in node.inputs))


def _reader(program: Program, node: Node, slot: int, labels: Array) -> Reader:
    """Return what distinguishes operations in any framework: the operand's side, or a function's values."""
    if node.kind == "product" and not node.window:
        summed = 1 if slot else 2  # queries and keys are summed over there, values are not: in any order of operands
        kept = (labels.min(summed) == labels.max(summed)).all()
        return Reader(f"product {slot}" + " kept" * bool(kept), labels)
    run = function(program, node, slot)
    if run is None:
        return Reader(node.kind, labels)
    axis = mixing(program, node, slot)
    axis = None if axis == SINGLE else axis
    probe = PROBE if axis is None else along(PROBE, axis, labels.ndim)
    values = tried(lambda x: np.round(np.ravel(run(x)), 2), probe)  # truth values cannot be rounded
    return Reader(node.kind if values is None else f"{FUNCTION} {values.tolist()}", labels, axis)


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
    axes = [axis for axis in axes if axis.size > 1] if len(columns) > 1 else []
    if not axes:
        return np.zeros((len(columns), 0), np.int64)
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
