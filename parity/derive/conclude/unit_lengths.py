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

RESHAPES = frozenset(["view", "unsafe_view", "reshape", "reshape_alias", "view_shape", "flatten"])
TILES = frozenset(["tile", "repeat"])
REDUCTIONS = frozenset(["mean", "sum", "amax", "amin", "logsumexp", "reduce_sum", "reduce_max", "reduce_min"])
Place = frozenset[tuple[object, ...]]  # what an axis of length 1 stands beside; the same place shares one of them


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
    """Tell whether each side has a place that is none of the other's, among all or among the first ones."""
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
        if node.kind == "layout" and len(node.inputs) == 1:
            passed = tried(node.run, labels)
            split = _places(program, node, labels, False) if _is_reshape(node) else _cuts(program, node, labels)
            places = [place for place in (*split, *_repeats(program, node, labels)) if place]
            yield from (Seen(place, first) for place in places)
        elif node.kind in ("add", "mul") and not program.active.intersection(node.inputs) - {value}:
            passed = program.labelled(node, slot, labels)
        elif node.kind == "other" and program.shapes[node.output] == labels.shape:
            passed = labels
        else:
            continue
        if passed is not None:
            yield from _behind(program, node.output, passed, first and not places)


def _before(program: Program, value: int, labels: Array) -> Iterator[Seen]:
    """Yield places in the layouts that join what a value is made of, past functions of each element."""
    first = True
    while (node := program.maker(value)) is not None:
        made = [number for number in node.inputs if number in program.active]
        if node.kind == "layout":
            joined = _places(program, node, labels, True) if _is_reshape(node) else _joins(program, node, labels)
            places = [place for place in joined if place]
            yield from (Seen(place, first) for place in places)
            first = first and not places
        if len(made) != 1 or node.kind == "product":
            return
        (value,) = made
        if node.kind == "layout" and len(node.inputs) == 1:
            moved = tried(node.run, elements(program.shapes[value]))
            if moved is None:
                return
            before = np.zeros(program.shapes[value])
            before.flat[moved[moved > 0].astype(int) - 1] = labels[moved > 0]
            labels = before
        elif program.shapes[value] != labels.shape:
            return


def _is_reshape(node: Node) -> bool:
    """Tell whether the model's code asks for other lengths of axes: no squeeze, whose axes have one length always."""
    return node.kind == "layout" and node.name.strip("_") in RESHAPES


def _places(program: Program, node: Node, labels: Array, joined: bool) -> Iterator[Place]:
    """Yield where axes of length 1 stand that a reshape joins with others, or splits from them; see Unit."""
    before, after = program.shapes[node.inputs[0]], program.shapes[node.output]
    flat = labels.ravel()
    for unit in _units(before, after) if flat.size <= LARGE_PIECE else ():
        always = _is_reduced(program, node.inputs[0]) if joined else _is_spread(program, node, unit)
        if unit.joined is joined and not always and not _is_batch(program, node.output):
            yield (place := frozenset([*_outside(flat, unit), *_inside(flat, unit)]))
            order = _order(program, node.inputs[0], unit.step) if joined else ()
            if len(order) > 1:  # (c h w) and (c w h)
                yield frozenset((order, *pair) for pair in place)


def _order(program: Program, value: int, step: int) -> tuple[int, ...]:
    """Return which axes of a convolution's result those of length 1 with a step are; () where a value is not such.

    Functions of each element, and layouts that permute axes or join these, may stand between both.
    """
    axes = _ones(program.shapes[value], step)
    while (node := program.maker(value)) is not None and node.window is None:
        made = [number for number in node.inputs if number in program.active]
        if len(made) != 1 or node.kind == "product":
            return ()
        before, after = program.shapes[made[0]], program.shapes[value]
        if _is_reshape(node):
            axes = _ones(before, math.prod(after[axes[0] + 1 :])) if axes else []
        elif node.kind == "layout":
            moved = [tried(node.run, np.zeros(_doubled(before, axis))) for axis in range(len(before))]
            shapes = [None if new is None else new.shape for new in moved]
            axes = [shapes.index(new) for new in (_doubled(after, axis) for axis in axes) if new in shapes]
        elif len(before) != len(after):
            return ()
        (value,) = made
    return () if node is None else tuple(axes)


def _ones(shape: Sequence[int], step: int) -> list[int]:
    """Return the axes of length 1 of which one step would pass so many elements."""
    return [axis for axis, n in enumerate(shape) if n == 1 and math.prod(shape[axis + 1 :]) == step]


def _cuts(program: Program, node: Node, labels: Array) -> Iterator[Place]:
    """Yield where axes of length 1 stand that a layout cuts from longer ones, as ranges or by strides.

    An axis that all readers drop is an index of the code, and has this length in any model.
    """
    before, after = labels.shape, program.shapes[node.output]
    readers = program.reading(node.output)
    dropped = bool(readers) and all(_drops_axis(program, other) for other in readers)
    if dropped or len(before) != len(after) or labels.size > LARGE_PIECE:
        return
    for axis in (axis for axis, n in enumerate(before) if n > after[axis] == 1):
        numbers = along(np.arange(2.0 * before[axis]), axis, len(before))
        taken = tried(node.run, np.broadcast_to(numbers, _doubled(before, axis)))
        if taken is not None and taken.size:
            yield _beside(np.moveaxis(labels, axis, -1), bool((np.diff(np.unique(taken)) > 1).any()))


def _repeats(program: Program, node: Node, labels: Array) -> Iterator[Place]:
    """Yield where axes of length 1 stand that repeat an axis once, as a head of keys has one of queries."""
    if node.name in TILES and labels.shape == program.shapes[node.output]:
        yield from (_beside(np.moveaxis(labels, axis, -1), True) for axis, n in enumerate(labels.shape) if n > 1)
    elif _is_reshape(node) and _is_added(program, node.inputs[0]):
        units = _units(labels.shape, program.shapes[node.output])
        yield from (frozenset(_outside(labels.ravel(), unit)) for unit in units if unit.joined)


def _joins(program: Program, node: Node, labels: Array) -> Iterator[Place]:
    """Yield where a layout puts axes of length 1 of its operands beside longer ones, as a concatenation does.

    Args:
      labels: of the result's elements.
    """
    shapes = [program.shapes[number] for number in node.inputs]
    large = max(map(math.prod, (*shapes, labels.shape))) > LARGE_PIECE
    if large or len({len(shape) for shape in shapes}) > 1 or not program.indices.keys().isdisjoint(node.inputs):
        return
    for axis in (axis for axis in range(len(shapes[0])) if all(shape[axis] == 1 for shape in shapes)):
        seconds = (np.broadcast_to(along(np.arange(2.0), axis, len(shape)), _doubled(shape, axis)) for shape in shapes)
        joined = tried(node.run, *seconds)
        if joined is None or any(_is_reduced(program, number) or _is_added(program, number) for number in node.inputs):
            continue
        for at, n in enumerate(labels.shape):
            if n > 1 and joined.shape == _doubled(labels.shape, at):
                order = np.moveaxis(joined, at, -1).reshape(-1, 2 * n)[0].tolist()
                if order in (inner := [0.0, 1.0] * n, sorted(inner)):
                    yield _beside(np.moveaxis(labels, at, -1), order != inner)


def _doubled(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])


def _beside(labels: Array, outside: bool) -> Place:
    """Return where an axis of length 1 stands: outside of the last axis of labels, or inside of it."""
    count = labels.shape[-1]
    if outside:
        return frozenset(_inside(labels.ravel(), Unit(count, 1, count, False)))
    pairs = itertools.pairwise(np.moveaxis(labels, -1, 0))
    return frozenset(pair for one, other in pairs for pair in _pairs(one, other))


def _drops_axis(program: Program, node: Node) -> bool:
    """Tell whether an operation squeezes what it reads."""
    before, after = program.shapes[node.inputs[0]], program.shapes[node.output]
    return node.kind == "layout" and not _is_reshape(node) and len(after) < len(before)


def _is_added(program: Program, value: int) -> bool:
    """Tell whether layouts add axes of length 1 to make a value, as for a stack or a repeat."""
    for node in reversed(program.before_layouts(value)[1]):
        before, after = program.shapes[node.inputs[0]], program.shapes[node.output]
        if before != after:
            return len(before) < len(after)
    return False


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


def _is_batch(program: Program, value: int) -> bool:
    """Tell whether products of two activations alone read a value: its first axis joins all others of the batch."""
    readers = program.reading(value)
    return bool(readers) and all(node.kind == "product" and program.active.issuperset(node.inputs) for node in readers)


def _is_spread(program: Program, node: Node, unit: Unit) -> bool:
    """Tell whether what reads a result spreads its axis of length 1, which has this length in any model."""
    shape = program.shapes[node.output]
    steps = itertools.accumulate(reversed(shape), mul, initial=1)
    axes = [axis for axis, step in zip(reversed(range(len(shape))), steps, strict=False) if step == unit.step]
    shapes = [program.shapes[other.output] for other in program.reading(node.output)]
    larger = [other for other in shapes if len(other) == len(shape) and math.prod(other) > math.prod(shape)]
    return any(shape[axis] == 1 < other[axis] for other in larger for axis in axes)


def _is_reduced(program: Program, value: int) -> bool:
    """Tell whether a value's axes of length 1 are what a reduction leaves of axes, or an operation for it adds."""
    while (node := program.maker(value)) is not None:
        made = [number for number in node.inputs if number in program.active]
        if node.kind == "other" and node.name.strip("_") in REDUCTIONS:
            return any(len(program.shapes[number]) == len(program.shapes[value]) for number in made)
        if len(made) != 1 or node.kind == "product":
            return False
        before, after = program.shapes[made[0]], program.shapes[value]
        if node.kind == "layout":
            if after.count(1) > before.count(1) and not _is_reshape(node):
                maker = program.maker(made[0])  # of a product, the layout gives its operands' own axes back
                return maker is None or maker.kind != "product"
        elif before != after:
            return False
        value = made[0]
    return False
