"""Write lines for arrays that are parts of one: unequal ones, and parts that repeat in groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specs.paths import escaped

from ..match.symbols import Elements
from ..trace.tape import Array
from .axes import Axes, relate
from .names import SPARE, Names, composed, initials
from .rows import Row


class Period(NamedTuple):
    """How the arrays alternate along an axis.

    Args:
      groups: how often they repeat.
      order: the arrays, as they come.
      lengths: of each one's part.
    """

    groups: int
    order: tuple[int, ...]
    lengths: tuple[int, ...]


class Whole(NamedTuple):
    """The array that consists of parts.

    Args:
      path: as it is written; stacked: names of its holes, along which arrays are stacked: the first axes.
      numbers: the sources' elements.
    """

    path: str
    stacked: tuple[str, ...]
    numbers: Array


def joined(
    sources: Elements,
    source_names: Sequence[str],
    target: str,
    numbers: Array,
    names: Names,
    side: int,
    stacked: tuple[str, ...] = (),
) -> Row | None:
    """Write `a: o i, b: p i <-> target: (o+p) i`, or with groups and pieces `(g r+1+1 d)`.

    Args:
      target: its path as it is written. stacked: see Whole.
      side: of the sources.
    """
    whole = Whole(target, stacked, numbers)
    for axis in range(len(stacked), numbers.ndim):
        owner = np.searchsorted(sources.starts, np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1), "right")
        if not (owner == owner[:, :1]).all():
            continue
        period = _period(owner[:, 0], len(source_names))
        if period is None:
            continue
        ordered = [sources.names[k - 1] for k in period.order]
        common = math.gcd(*period.lengths)
        pieces = [inner for inner in range(common, 0, -1) if common % inner == 0]
        for inner in dict.fromkeys((1, *pieces) if period.groups == 1 else pieces):
            before = dict(names.lengths)
            if row := _written(sources, ordered, whole, axis, period, inner, names, side):
                return row
            names.lengths = before  # what no line uses is free
    return None


def _period(owner: Array, count: int) -> Period | None:
    edges = np.flatnonzero(np.diff(owner)) + 1
    heads = owner[[0, *edges]]
    lengths = np.diff([0, *edges, len(owner)])
    groups, rest = divmod(len(heads), count)
    if rest or len(set(heads[:count])) < count or (heads.reshape(groups, count) != heads[:count]).any():
        return None
    if (lengths.reshape(groups, count) != lengths[:count]).any():
        return None
    return Period(groups, tuple(map(int, heads[:count])), tuple(map(int, lengths[:count])))


def _written(
    sources: Elements,
    source_names: Sequence[str],
    whole: Whole,
    axis: int,
    period: Period,
    inner: int,
    names: Names,
    side: int,
) -> Row | None:
    target, stacked, numbers = whole
    split = numbers.reshape(*numbers.shape[:axis], period.groups, -1, *numbers.shape[axis + 1 :])
    parts = np.split(split, np.cumsum(period.lengths)[:-1], axis + 1)
    related = []
    for name, part in zip(source_names, parts, strict=True):
        shape = (*part.shape[: axis + 1], -1, inner, *part.shape[axis + 2 :])
        axes = relate(part.reshape(shape) - int(sources.numbers(name).reshape(-1)[0]), sources.shapes[name])
        if axes is None or any(axes.windows) or any(len(axes.target[axis + k]) > 1 for k in range(3)):
            return None
        if any(len(axes.target[k]) != 1 for k in range(len(stacked))):
            return None
        related.append(axes)
    taken = {*stacked}
    for axes in related:
        for name, (atom,) in zip(stacked, axes.target, strict=False):
            atom.name = name
    for at, wanted in ((axis, "g"), (axis + 2, "d")):
        _alike(related, at, wanted, names, taken)
    counts = list(period.lengths) if inner == 1 else [length // inner for length in period.lengths]
    own = initials(source_names)
    usual = {letter for side in (0, 1) for letter in names.letters(side, numbers.ndim)}
    letters = (
        [*("rsuv" + SPARE)[: len(parts)]]
        if period.groups > 1
        else own
        if own and usual.isdisjoint(own)
        else [*SPARE[: len(parts)]]
    )
    for axes, letter in zip(related, letters, strict=True):
        if axes.target[axis + 1]:
            names.give(axes.target[axis + 1][0], letter, taken)
    within = {*range(len(stacked)), *range(axis, axis + 3)}
    arrays, texts = list[tuple[str, str | None]](), list[list[str]]()
    for name, axes in zip(source_names, related, strict=True):
        _rest(axes, axis, len(stacked), names, side)
        arrays.append((escaped(name), " ".join(composed(atoms, signs=True) for atoms in axes.source)))
        texts.append([composed(atoms) for d, atoms in enumerate(axes.target) if d not in within])
    if any(text != texts[0] for text in texts) or (inner > 1 and period.groups == 1 and max(counts) == 1):
        return None
    total = "+".join(composed(axes.target[axis + 1]) for axes in related)
    outer, width = (next((composed(a.target[d]) for a in related if a.target[d]), "") for d in (axis, axis + 2))
    texts[0].insert(axis - len(stacked), f"({' '.join(filter(None, (outer, total, width)))})")
    return Row(tuple(arrays), ((target if stacked else escaped(target), " ".join(texts[0])),))


def _alike(related: Sequence[Axes], at: int, wanted: str, names: Names, taken: set[str]) -> None:
    """Give an axis that all parts share one name."""
    shared = [axes.target[at][0] for axes in related if axes.target[at]]
    for k, atom in enumerate(shared):
        if k == 0:
            names.give(atom, wanted, taken)
        atom.name = shared[0].name


def _rest(axes: Axes, axis: int, stacked: int, names: Names, side: int) -> None:
    """Name the other axes as they are called where nothing is split.

    Args:
      stacked: how many of the target's axes are named already.
    """
    named = [atom.name for (atom,) in axes.target[:stacked]]
    whole = [*axes.target[stacked:axis], [*itertools.chain(*axes.target[axis : axis + 3])], *axes.target[axis + 3 :]]
    source = [atoms for atoms in axes.source if [atom.name for atom in atoms] not in [[name] for name in named]]
    names.assign(Axes(source, whole, axes.windows), 0, side)
