"""Write lines for arrays of which ranges stand in another order, or between ranges of other arrays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .equal_parts import taken_apart
from .facts import Target
from .names import SPARE, composed
from .parts import Origin, Part, origins, summed
from .related import Axes, relate
from .rows import Row

MAX_RANGES = 8  # ranges that are written as a sum
FEW_RANGES = 3  # that no numbers of heads or groups make


class Range(NamedTuple):
    """A range of the target's axis, and where it comes from.

    Args:
      source: the array. axes: how its axes relate to the target's.
      own: the axis of the source. start, length: the positions on it.
    """

    source: str
    axes: Axes
    own: int
    start: int
    length: int


def segmented(of: Target) -> Row | None:
    """Write `a: (v+g) i, b: z i <-> target: i (g+v+z)`, whose sums are of ranges of one axis."""
    numbers, names = of.numbers, of.names
    for axis, backwards in itertools.product(range(numbers.ndim), (True, False)):
        ranges = _ranges(of.sources, np.moveaxis(numbers, axis, 0), axis, backwards)
        if ranges is None or len(ranges) <= len(of.parts) or {r.source for r in ranges} != set(of.parts):
            continue
        if len(of.parts) == 1 and len(ranges) > numbers.shape[axis] // 2:  # an order of its own
            continue
        before = dict(names.lengths)
        if row := _written(of, ranges, axis):
            return row
        names.lengths = before  # what no line uses is free
    return None


def _ranges(sources: Elements, rows: Array, axis: int, backwards: bool) -> list[Range] | None:
    """Return the ranges of an axis that are one of a source each; None if these do not fit together.

    Args:
      rows: the target's elements, with this axis in front.
      backwards: whether a range may be a whole source that runs backwards; else its rows are ranges of their own.
    """
    flat = rows.reshape(len(rows), -1)
    owner = np.searchsorted(sources.starts, flat, "right") - 1
    if (owner != owner[:, :1]).any():
        return None
    strides = [_strides(shape) for shape in sources.shapes.values()]
    edges = _edges(flat, owner[:, 0], [[*some, *(-n for n in some)] if backwards else some for some in strides])
    if len(edges) >= MAX_RANGES:
        return None
    found = list[Range]()
    for part in np.split(np.arange(len(rows)), edges):
        name = sources.names[owner[part[0], 0]]
        local = np.moveaxis(rows[part], 0, axis) - sources.first(name)
        axes = relate(local, sources.shapes[name])
        windows = [] if axes is None else [(k, window[0]) for k, window in enumerate(axes.windows) if window]
        if axes is None or len(windows) > 1 or len(axes.target[axis]) > 1:
            return None
        if windows:
            own, start = windows[0]
        else:
            atoms = axes.target[axis]
            own, start = next((k for k, of in enumerate(axes.source) if of == atoms), 0), 0
        if axes.source[own] != axes.target[axis]:
            return None
        found.append(Range(name, axes, own, start, len(part)))
    return found


def _edges(flat: Array, owner: Array, strides: Sequence[Sequence[int]]) -> list[int]:
    """Return where rows begin that do not go on along an axis of their source, or that are of another source.

    Args:
      flat: the elements of each row. owner: the source of each row, an index of `strides`.
    """
    step = flat[1:] - flat[:-1]
    along = np.zeros(len(step), bool)  # none of a single row
    along[:] = [one in strides[of] for one, of in zip(step[:, 0].tolist(), owner[1:].tolist(), strict=True)]
    goes_on = (step == step[:, :1]).all(1) & (owner[1:] == owner[:-1]) & along
    return (np.flatnonzero(~goes_on) + 1).tolist()


def _strides(shape: Sequence[int]) -> list[int]:
    """Return how many elements one step along each axis passes."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _written(of: Target, ranges: Sequence[Range], axis: int) -> Row | None:
    first = max(ranges, key=lambda some: some.length).axes
    of.names.assign(first, 0, of.side)
    for other in (some.axes for some in ranges if some.axes is not first):
        pairs = [pair for d, pair in enumerate(zip(first.target, other.target, strict=True)) if d != axis]
        if any(len(ones) != len(others) for ones, others in pairs):
            return None
        for here, there in (pair for axes in pairs for pair in zip(*axes, strict=True)):
            there.name, there.stated = here.name, here.stated
    texts = [composed(atoms) for atoms in first.target]
    letters = [letter for letter in SPARE if letter not in " ".join(texts)][: len(ranges)]
    in_order = sorted(ranges, key=lambda some: some.start) if len(of.parts) == 1 else ranges
    called = dict(zip(map(id, in_order), letters, strict=True))
    fixed, arrays = _are_fixed(of, ranges, axis), []
    for name in of.parts:
        own = sorted((some for some in ranges if some.source == name), key=lambda some: some.start)
        letters = [called[id(some)] + f"={some.length}" * fixed for some in own]
        text = _source(own, of.sources.shapes[name], letters)
        if text is None:
            return None
        arrays.append((escaped(name), text))
    texts[axis] = summed([called[id(some)] for some in ranges])
    parts = [
        Part(called[id(some)], some.length, origin)
        for some, origin in zip(ranges, [] if fixed else _origins(of, ranges, axis), strict=not fixed)
    ]
    return Row(tuple(arrays), ((escaped(of.name), " ".join(texts)),), parts=tuple(parts))


def _origins(of: Target, ranges: Sequence[Range], axis: int) -> Sequence[Origin]:
    """Return what each range of the target is made of."""
    places = np.repeat(np.arange(len(ranges)), [some.length for some in ranges])
    return origins(of.names, 1 - of.side, of.name, axis, places) or [Origin()] * len(ranges)


def _are_fixed(of: Target, ranges: Sequence[Range], axis: int) -> bool:
    """Tell whether ranges may follow from numbers of heads or groups: many of one array that no code takes apart.

    Another model of the family has other numbers, and so other ranges: the line states these lengths.
    """
    if len(of.parts) > 1 or len(ranges) <= FEW_RANGES or not of.names.programs:
        return False
    sides = (
        (of.side, ranges[0].source, ranges[0].own, sorted(ranges, key=lambda some: some.start)),
        (1 - of.side, of.name, axis, ranges),
    )
    edges = ([0, *itertools.accumulate(some.length for some in own)] for *_, own in sides)
    return not any(
        taken_apart(of.names.programs[side], name, own, at)
        for (side, name, own, _), at in zip(sides, edges, strict=True)
    )


def _source(ranges: Sequence[Range], shape: Sequence[int], letters: Sequence[str]) -> str | None:
    """Return the axes of a source, one of which is a sum of its ranges; None if these are not all of it."""
    axis, at = ranges[0].own, 0
    texts = {tuple(composed(a, signs=True) for k, a in enumerate(some.axes.source) if k != axis) for some in ranges}
    for some in ranges:
        if some.own != axis or some.start != at:
            return None
        at += some.length
    if at != shape[axis] or len(texts) > 1:
        return None
    text = [*texts.pop()]
    sign = "-" * any(atom.backwards for atom in ranges[0].axes.source[axis])  # then it is a single range
    return " ".join([*text[:axis], sign + summed(letters), *text[axis:]])
