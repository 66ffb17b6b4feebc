"""Find axes of which no run shows the order, as one of length 1 stands at another place on the other side.

Code that flattens (c h w) on the left and (h w c) on the right reads the same elements in the same order while h and w
are 1. So do (s h d) and (h s d) with one head, and (c p q) and (p q c) with one channel; so do halves of two channels,
and every other one of them. The shapes around each reshape show where the axis is; another layout shows it by what it
does with a longer one.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import mul
from typing import NamedTuple

import numpy as np

from parity.derive.fold.sources import first_met
from parity.derive.limits import LARGE_MODEL, LARGE_PIECE
from parity.derive.match.symbols import Elements
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, along, elements, tried
from specs.notation.paths import escaped, normal

from .unit_axes import (
    CUTS,
    JOINS,
    TILES,
    axis_of,
    doubled,
    drops_axis,
    indexes_all,
    is_added,
    is_batch,
    is_reduced,
    is_reshape,
    joins_one,
    moves_alone,
    order_of_units,
    picks_each,
    picks_one,
    spread,
)

Place = frozenset[object]  # what an axis of length 1 stands beside; the same place shares one of them
PICKED: Place = frozenset(["picked"])  # by its index: where code joins what it picks, no run shows
INDEXED: Place = frozenset(["indexed"])  # by an array of indices, of which no run shows what it is in other models


class Unit(NamedTuple):
    """An axis of length 1 in a reshape that joins it with others, or splits it from them.

    Args:
      step: how many elements one step of it would pass.
      below, above: the same of the piece inside of it, and of that around the piece outside of it.
      joined: whether the operand has it, and not the result.
    """

    step: int
    below: int
    above: int
    joined: bool


class Seen(NamedTuple):
    """Where an axis of length 1 stands.

    Args:
      first: whether no layout between it and the parameter shows one: later ones join again what the first one split.
    """

    place: Place
    first: bool


def unseen_orders(programs: Sequence[Program], mapped: Array, lefts: Elements, rights: Elements) -> list[str]:
    """List the right parameters that join an axis with one of length 1 which stands elsewhere on the left.

    Of blocks that differ in their numbers alone the first one is looked at.

    Args:
      mapped: the left element of each right one.
    """
    if len(rights) > LARGE_MODEL:
        return []
    seen, kinds = dict[str, list[tuple[set[float], list[Seen]]]](), dict[str, bool]()
    for name in rights.names:
        if (kind := normal(escaped(name))) not in kinds:
            numbers = np.asarray(rights.part(mapped, name))
            kinds[kind] = any(_parted(*pair) for pair in _places_of_both(programs, name, numbers, lefts, seen))
    return [name for name in rights.names if kinds[normal(escaped(name))]]


def _places_of_both(
    programs: Sequence[Program], name: str, numbers: Array, lefts: Elements,
    seen: dict[str, list[tuple[set[float], list[Seen]]]],
) -> Iterator[tuple[list[Seen], list[Seen]]]:  # fmt: skip
    """Yield the places of axes of length 1 on both sides, for each axis of a right parameter that has any.

    Args:
      numbers: the left element of each of its own. seen: the places of left parameters, which this adds to.
    """
    for own, places in _of_axes(programs[1], name, numbers):
        others = list[Seen]()
        for left in lefts.owners(numbers) if places else ():
            if left not in seen:
                seen[left] = list(_of_axes(programs[0], left, lefts.numbers(left)))
            others += [place for its, some in seen[left] if len(its & own) > 1 for place in some]
        yield others, places


def _parted(lefts: Sequence[Seen], rights: Sequence[Seen]) -> bool:
    """Tell whether each side has a place that is none of the other's, among all or among the first ones.

    Where one side alone picks by an index, any place of the other one may be another than it picks in larger models.
    """
    picks = [{PICKED, INDEXED}.intersection(one.place for one in side) for side in (lefts, rights)]
    if picks[0] != picks[1] and lefts and rights:
        return True
    firsts = [[one for one in side if one.first] for side in (lefts, rights)]
    return any(
        all(any(all(one.place.isdisjoint(other.place) for other in others) for one in own) for own, others in pairs)
        for pairs in (((lefts, rights), (rights, lefts)), (firsts, firsts[::-1]))
    )


def _of_axes(program: Program, name: str, numbers: Array) -> Iterator[tuple[set[float], list[Seen]]]:
    """Yield (the elements along it, the places of axes of length 1 beside it) of each axis of a parameter."""
    if program.shapes.get(program.tape.parameters.get(name, -1)) != numbers.shape:  # this form of the tape has another
        return
    for axis, length in enumerate(numbers.shape):
        met = first_met(program, name, axis) if length > 1 else None
        if met is not None:
            own = np.moveaxis(numbers, axis, 0).reshape(length, -1)[:, 0].astype(float)
            labels = np.append(0.0, own)[met.places.astype(int)]
            yield set(own), [*_before(program, met.value, labels), *_behind(program, met.value, labels)]


def _behind(program: Program, value: int, labels: Array, first: bool = True) -> Iterator[Seen]:
    """Yield places in layouts that split a value, past functions of it, sums and products with parameters.

    Args:
      first: see Seen.
    """
    for at, slot in program.readers(value):
        node, places = program.tape.nodes[at], list[Place]()
        if moves_alone(program, node, value):
            passed = program.laid_out(node, {value: labels})
            if indexes_all(program, node, value, labels):
                yield Seen(INDEXED, False)
            split = _places(program, node, labels, False) if is_reshape(node) else _cuts(program, node, labels)
            places = [place for place in (*split, *_repeats(program, node, labels)) if place]
            yield from (Seen(place, first) for place in places)
        elif node.kind in ("add", "mul") and not program.active.intersection(node.inputs) - {value}:
            passed = program.labelled(node, slot, labels)
        elif node.kind == "other" and program.shapes[node.output] == labels.shape:
            passed = labels
        else:
            yield from (Seen(place, first) for place in _groups(program, node, labels))
            continue
        if passed is not None:
            yield from _behind(program, node.output, passed, first and not places)


def _before(program: Program, value: int, labels: Array) -> Iterator[Seen]:
    """Yield places in the layouts that join what a value is made of, past functions of each element."""
    first = True
    while (node := program.maker(value)) is not None:
        made = [number for number in node.inputs if number in program.active]
        if node.kind == "layout":
            joined = _places(program, node, labels, True) if is_reshape(node) else _joins(program, node, labels)
            places = [place for place in joined if place]
            yield from (Seen(place, first) for place in places)
            first = first and not places
        if len(made) != 1 or node.kind == "product":
            yield from (Seen(place, first) for place in _groups(program, node, labels))
            return
        (value,) = made
        if moves_alone(program, node, value):
            moved = program.laid_out(node, {value: elements(program.shapes[value])})
            if moved is None:
                return
            before = np.zeros(program.shapes[value])
            before.flat[moved[moved > 0].astype(int) - 1] = labels[moved > 0]
            labels = before
            if picks_one(program, node):
                yield Seen(PICKED, False)
            if indexes_all(program, node, value, labels):
                yield Seen(INDEXED, False)
        elif program.shapes[value] != labels.shape:
            return


def _places(program: Program, node: Node, labels: Array, joined: bool) -> Iterator[Place]:
    """Yield where axes of length 1 stand that a reshape joins with others, or splits from them; see Unit."""
    before, after = program.shapes[node.inputs[0]], program.shapes[node.output]
    flat = labels.ravel()
    for unit in _units(before, after) if flat.size <= LARGE_PIECE else ():
        always = is_reduced(program, node.inputs[0]) if joined else _is_spread(program, node, unit)
        if unit.joined is joined and not always and not is_batch(program, node.output):
            yield (place := frozenset([*_outside(flat, unit), *_inside(flat, unit)]))
            order = order_of_units(program, node.inputs[0], unit.step) if joined else ()
            if len(order) > 1:  # (c h w) and (c w h)
                yield frozenset((order, *pair) for pair in place)


def _cuts(program: Program, node: Node, labels: Array) -> Iterator[Place]:
    """Yield where axes of length 1 stand that a layout cuts from longer ones, as ranges or by strides.

    An axis that all readers drop is an index of the code, and has this length in any model. A cut into one part is one
    outside of all.
    """
    before, after = labels.shape, program.shapes[node.output]
    if node.name in CUTS and before == after:
        yield _beside(np.moveaxis(labels, axis_of(node), -1), True)
        return
    readers = program.reading(node.output)
    dropped = bool(readers) and all(drops_axis(program, other) for other in readers)
    if dropped or len(before) != len(after) or labels.size > LARGE_PIECE:
        return
    for axis in (axis for axis, n in enumerate(before) if n > after[axis] == 1):
        numbers = along(np.arange(2.0 * before[axis]), axis, len(before))
        taken = tried(node.run, np.broadcast_to(numbers, doubled(before, axis)))
        if taken is not None and taken.size:
            yield _beside(np.moveaxis(labels, axis, -1), bool((np.diff(np.unique(taken)) > 1).any()))


def _repeats(program: Program, node: Node, labels: Array) -> Iterator[Place]:
    """Yield where axes of length 1 stand that repeat an axis once, as a head of keys has one of queries."""
    if node.name in TILES and labels.shape == program.shapes[node.output]:
        yield from (_beside(np.moveaxis(labels, axis, -1), True) for axis, n in enumerate(labels.shape) if n > 1)
    elif is_reshape(node) and is_added(program, node.inputs[0]):
        units = _units(labels.shape, program.shapes[node.output])
        yield from (frozenset(_outside(labels.ravel(), unit)) for unit in units if unit.joined)


def _groups(program: Program, node: Node, labels: Array) -> Iterator[Place]:
    """Yield where an axis of length 1 stands that a product reads once for several of a batch: one head of keys.

    Args:
      labels: of the other operand of the product of two activations, or of its result.
    """
    if node.kind != "product" or node.window or not program.active.issuperset(node.inputs) or labels.size > LARGE_PIECE:
        return
    for number in node.inputs:
        for count, place in spread(program, number):
            if labels.ndim != 3 or len(labels) % count:
                continue
            heads = np.moveaxis(labels.reshape(-1, count, *labels.shape[1:]), 1, -1)
            if beside := _beside(heads, place == "outside"):
                yield beside if place else PICKED


def _joins(program: Program, node: Node, labels: Array) -> Iterator[Place]:
    """Yield where a layout puts axes of length 1 of its operands beside longer ones, as a concatenation does.

    Args:
      labels: of the result's elements.
    """
    shapes = [program.shapes[number] for number in node.inputs]
    if joins_one(node):
        value, _ = program.before_layouts(node.inputs[0])
        if program.shapes[value][1:].count(1) > shapes[0][1:].count(1) + 1:
            yield frozenset([object()])  # no run shows the order of two axes
        if node.name != "stack":
            yield _beside(np.moveaxis(labels, axis_of(node), -1), True)
        return
    if node.name in JOINS and picks_each(program, node):
        yield frozenset([object()])  # as of rows and columns, in a map of one row
        return
    large = max(map(math.prod, (*shapes, labels.shape))) > LARGE_PIECE
    if large or len({len(shape) for shape in shapes}) > 1 or not program.indices.keys().isdisjoint(node.inputs):
        return
    for axis in (axis for axis in range(len(shapes[0])) if all(shape[axis] == 1 for shape in shapes)):
        seconds = (np.broadcast_to(along(np.arange(2.0), axis, len(shape)), doubled(shape, axis)) for shape in shapes)
        joined = tried(node.run, *seconds)
        if joined is None or any(is_reduced(program, number) or is_added(program, number) for number in node.inputs):
            continue
        for at, n in enumerate(labels.shape):
            if n > 1 and joined.shape == doubled(labels.shape, at):
                order = np.moveaxis(joined, at, -1).reshape(-1, 2 * n)[0].tolist()
                if order in (inner := [0.0, 1.0] * n, sorted(inner)):
                    yield _beside(np.moveaxis(labels, at, -1), order != inner)


def _beside(labels: Array, outside: bool) -> Place:
    """Return where an axis of length 1 stands: outside of the last axis of labels, or inside of it."""
    count = labels.shape[-1]
    if outside:
        return frozenset(_inside(labels.ravel(), Unit(count, 1, count, False)))
    pairs = itertools.pairwise(np.moveaxis(labels, -1, 0))
    return frozenset(pair for one, other in pairs for pair in _pairs(one, other))


def _units(before: Sequence[int], after: Sequence[int]) -> Iterator[Unit]:
    """Yield the axes of length 1 that one of two shapes has between pieces where the other one has none."""
    if before[:1] == after[:1] == (1,):  # one example
        before, after = before[1:], after[1:]
    steps = [[*itertools.accumulate(reversed(shape), mul, initial=1)] for shape in (before, after)]
    edges = sorted({*itertools.chain(*steps)})
    if any(large % small for small, large in itertools.pairwise(edges)):
        return
    ones = [
        Counter(step for step, n in zip(some, reversed(shape), strict=False) if n == 1)
        for some, shape in zip(steps, (before, after), strict=True)
    ]
    for below, step, above in zip([1, *edges], edges, [*edges[1:], edges[-1]], strict=False):
        if (step in ones[0]) is not (step in ones[1]):
            yield Unit(step, below, above, step in ones[0])


def _outside(labels: Array, unit: Unit) -> Iterator[tuple[object, ...]]:
    """Yield the first step of the piece outside of an axis of length 1: two labels."""
    if unit.above > unit.step:
        pieces = labels.reshape(-1, unit.above // unit.step, unit.step)
        yield from ((*pair,) for pair in _pairs(pieces[:, 0], pieces[:, 1]))


def _inside(labels: Array, unit: Unit) -> Iterator[tuple[object, ...]]:
    """Yield the first step of the piece inside of an axis of length 1, with its last one, and with all that is inside.

    The piece may have pieces of its own: its step may be that of each.
    """
    if unit.step == unit.below:
        return
    count = unit.step // unit.below
    for row in np.unique(labels.reshape(-1, unit.step), axis=0):
        pieces, block = row.reshape(count, unit.below), frozenset(row.tolist())
        for step in (step for step in range(1, count) if count % step == 0):
            for pair in _pairs(pieces[0], pieces[step]):
                yield (block, *pair)
                yield (float(pieces[-1, 0]), *pair)


def _pairs(one: Array, other: Array) -> set[tuple[float, ...]]:
    """Return pairs of labels that differ."""
    differ = (one != other) & (one > 0) & (other > 0)
    return {*map(tuple, np.stack([one[differ], other[differ]], 1).tolist())}


def _is_spread(program: Program, node: Node, unit: Unit) -> bool:
    """Tell whether what reads a result spreads its axis of length 1, which has this length in any model."""
    shape = program.shapes[node.output]
    steps = itertools.accumulate(reversed(shape), mul, initial=1)
    axes = [axis for axis, step in zip(reversed(range(len(shape))), steps, strict=False) if step == unit.step]
    shapes = [program.shapes[other.output] for other in program.reading(node.output)]
    larger = [other for other in shapes if len(other) == len(shape) and math.prod(other) > math.prod(shape)]
    return any(shape[axis] == 1 < other[axis] for other in larger for axis in axes)
