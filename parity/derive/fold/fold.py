"""Write a map of elements as the lines of a Table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from specs.lines import Line, Misfit
from specs.paths import escaped
from specs.table import Table, TableError

from ..match.hints import Hint
from ..match.symbols import Elements
from ..trace.tape import Array
from .axes import Axes, relate
from .blocks import blanked, folded
from .grids import grid
from .joined import joined
from .names import Names, composed
from .permuted import permuted
from .rows import DerivedTable, Row, constant, dropped, table_of
from .summed import sums

ROUNDS = 6  # times that rows which do not fit are taken apart
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Facts:
    """What the lines of a Table have to say.

    Args:
      found: the left element of each right one, 0 where there is none, -n where zero is added to right element n.
      plus: a left element that is added to the first one, or 0.
      sides: the frameworks.
      ties: on each side, names of arrays -> the parameter that they share.
      others: shapes of arrays that are no parameters, on each side.
      extra: lines for those.
      blank: right parameters that nothing reads and nothing on the left is like, and the one value that each has.
    """

    lefts: Elements
    rights: Elements
    found: Array
    plus: Array
    sides: tuple[str, str]
    ties: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    others: tuple[Shapes, Shapes] = ({}, {})
    extra: Sequence[Row] = field(default_factory=list)
    blank: Mapping[str, float] = field(default_factory=dict)

    def part(self, name: str) -> Array:
        """Return the left elements of one right parameter."""
        numbers = self.rights.part(self.found, name)
        return np.maximum(numbers, 0) if numbers.min(initial=0) < 0 else numbers

    def zeros(self) -> dict[str, str]:
        """Return right parameters -> others to which they add nothing but zeros."""
        zeros = {}
        for name in self.rights.names:
            numbers = -self.rights.part(self.found, name)
            owner = self.rights.owners(numbers)
            if len(owner) == 1 and np.array_equal(numbers, self.rights.numbers(owner[0])):
                zeros[name] = owner[0]
        return zeros

    @property
    def known(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all left arrays."""
        tied = {name: self.lefts.shapes[first] for name, first in self.ties[0].items()}
        return {**self.lefts.shapes, **tied, **self.others[0]}

    def like(self, missing: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all right arrays but the missing ones."""
        shapes = {name: self.rights.shapes[name] for name in self.rights.names if name not in missing}
        tied = {name: shapes[first] for name, first in self.ties[1].items() if first in shapes}
        return {**shapes, **tied, **self.others[1]}


Group = tuple[list[str], list[str], list[Row]]  # parameters of both sides, and their lines


def fold(facts: Facts, given: Hint | None = None) -> tuple[DerivedTable, dict[str, str]]:
    """Return (table, {right parameter that no line describes: why}).

    Args:
      given: lines that are taken as they are, with the arrays that they speak of.
    """
    names = Names(facts.sides)
    if given is not None:
        names.orders.update(given.table.orders)
    missing: dict[str, str] = {}
    groups: list[Group] = []
    zeros = facts.zeros()
    for left_names, right_names in _components(facts):
        if all(name in zeros or name in facts.blank or (given and name in given.right) for name in right_names):
            continue
        rows = _rows(facts, left_names, right_names, names) if left_names else None
        if rows is None:
            why = f"no line can say how {' and '.join(left_names)} become{'s' * (len(left_names) == 1)} it"
            missing.update(dict.fromkeys(right_names, why if left_names else "no evidence"))
        else:
            groups.append((left_names, right_names, rows))
    groups = [
        (left_names, right_names, [_with_ties(row, facts.ties) for row in rows])
        for left_names, right_names, rows in _sums(facts, groups, zeros, names)
    ]
    groups = _parts_of_sums(facts, groups, missing)
    places = {name: k for k, name in enumerate(facts.lefts.names)}
    groups.sort(key=lambda group: min(places[name] for name in group[0]))
    apart, flat = set[str](), set[str]()  # blocks of which some lack an array: first their lists stay apart, then all
    for _ in range(ROUNDS):
        attempt = partial(folded, apart=frozenset(apart), flat=frozenset(flat))
        table = _table(facts, groups, attempt, names, missing, given)
        if says(table, facts):
            return table, missing
        if (more := _unfit(table, facts)) <= apart:
            break
        apart |= more & flat
        flat |= more
    table = _table(facts, groups, list, names, missing, given)
    if says(table, facts):
        return table, missing
    for group in list(groups):  # a line that does not say what was found is left out
        alone = _table(facts, [group], list, names, missing)
        if not says(alone, facts, group[1]):
            groups.remove(group)
            missing.update(dict.fromkeys(group[1], f"{'; '.join(map(str, group[2]))} does not describe it"))
    return _table(facts, groups, list, names, missing, given), missing


def _table(
    facts: Facts,
    groups: Sequence[Group],
    attempt: Callable[[Sequence[Row]], list[Row]],
    names: Names,
    missing: Mapping[str, str],
    given: Hint | None = None,
) -> DerivedTable:
    """Return the Table of the groups' rows and of those for arrays that only one side has."""
    used = {name for left_names, _, _ in groups for name in left_names} | set(given.left if given else ())
    made = {name for _, right_names, _ in groups for name in right_names} | set(given.right if given else ())
    unused = [name for name in (*facts.lefts.names, *facts.ties[0]) if facts.ties[0].get(name, name) not in used]
    extra = [*(dropped(name, 0) for name in unused if name not in used)]
    extra += [
        row for row in facts.extra if not {path for path, _ in (*row.left, *row.right)} & {*map(escaped, used | made)}
    ]
    extra += [
        constant(name, len(facts.rights.shapes[name]), f"{value:g}")
        for name, value in facts.blank.items() if name not in made
    ]  # fmt: skip
    rows = [row for _, _, rows in groups for row in rows]
    absent = {name: "" for name in facts.rights.names if name not in {*made, *facts.blank}} | dict(missing)
    every: list[Row | Line] = [*(given.table.lines if given else ()), *attempt(rows), *attempt(extra)]
    summed = {path for row in rows if " + " in row.joins for path, _ in row.right}  # these lines name no ties
    like = facts.like(absent)
    like = {name: shape for name, shape in like.items() if escaped(facts.ties[1].get(name, "")) not in summed}
    return table_of(every, facts.sides, names.orders, facts.known, like, names.lengths)


def _arrays(facts: Facts) -> dict[str, Array]:
    """Return the left side's arrays with element numbers in place of values."""
    arrays = {name: np.zeros(shape) for name, shape in facts.others[0].items()}
    return arrays | {
        name: facts.lefts.numbers(facts.ties[0].get(name, name)) for name in (*facts.lefts.names, *facts.ties[0])
    }


def _unfit(table: Table, facts: Facts) -> set[str]:
    """Return the names, without their numbers, of arrays that do not fit the table."""
    try:
        table.apply(_arrays(facts))
    except Misfit as error:
        names = [*error.missing, *error.unexpected, *(name for name, _ in error.misfits)]
        return {blanked(escaped(name)) for name in names}
    except TableError:
        pass
    return set()


def says(table: Table, facts: Facts, only: Sequence[str] | None = None) -> bool:
    """Tell whether the table moves element numbers as the map does."""
    try:
        moved = table.apply(_arrays(facts))
    except TableError:
        return False

    def wanted(name: str) -> Array:
        return facts.part(name) + facts.rights.part(facts.plus, name) if facts.plus.any() else facts.part(name)

    return all(
        np.array_equal(array, wanted(name))
        for name, array in moved.items()
        if name in facts.rights.shapes and name not in facts.blank and (only is None or name in only)
    )


def _sums(facts: Facts, groups: Sequence[Group], zeros: Mapping[str, str], names: Names) -> list[Group]:
    """Return the groups with second terms of sums: left ones that are added, right ones that get zeros."""
    seconds: dict[str, tuple[list[str], Row]] = {}
    for left_names, right_names in _components(replace(facts, found=facts.plus)) if facts.plus.any() else ():
        rows = _rows(replace(facts, found=facts.plus), left_names, right_names, names) if left_names else None
        if rows and len(rows) == 1:
            seconds[right_names[0]] = (left_names, rows[0])
    added = []
    for left_names, right_names, rows in groups:
        row = rows[0]
        if right_names[0] in seconds and row.right == seconds[right_names[0]][1].right:
            more, second = seconds[right_names[0]]
            row, left_names = (
                replace(row, left=(*row.left, *second.left), joins=(" + ", row.joins[1])),
                [*left_names, *more],
            )
        for zero in (zero for zero, first in zeros.items() if first == right_names[0]):
            row = replace(row, right=(*row.right, (escaped(zero), row.right[0][1])), joins=(row.joins[0], " + "))
            right_names = [*right_names, zero]
        added.append((left_names, right_names, [row, *rows[1:]]))
    return added


def _parts_of_sums(facts: Facts, groups: list[Group], missing: dict[str, str]) -> list[Group]:
    """Return the groups with lines for vectors of which only parts are sums, in place of those that say less."""
    rights = facts.rights
    partial = [name for name in rights.names if _partly(facts, name, groups)]
    while partial:
        names, lefts, grown = [partial[0]], set[str](), True
        while grown:  # all that share a left vector with the first one
            more = lefts | {owner for name in names for owner in _terms(facts, name)}
            grown, lefts = more != lefts, more
            names = [name for name in rights.names if lefts.intersection(_terms(facts, name))]
        rows = sums(facts.found, facts.plus, facts.lefts, rights, names)
        if rows is not None:
            groups = [group for group in groups if not {*names}.intersection(group[1])]
            groups.append((sorted(lefts, key=facts.lefts.names.index), names, rows))
            for name in names:
                missing.pop(name, None)
        partial = [name for name in partial if name not in names]
    return groups


def _terms(facts: Facts, name: str) -> list[str]:
    """Return the left parameters of which a right one consists, also where zeros are added to a part of it."""
    found, plus = (facts.rights.part(numbers, name) for numbers in (facts.found, facts.plus))
    to = facts.found[-found[found < 0]] if (found < 0).any() else found
    return [
        *facts.lefts.owners(np.maximum(found, 0)),
        *facts.lefts.owners(plus),
        *facts.lefts.owners(np.maximum(to, 0)),
    ]


def _partly(facts: Facts, name: str, groups: Sequence[Group]) -> bool:
    """Tell whether a right parameter is a sum of which no line says so, or a part of it gets zeros."""
    found, plus = (facts.rights.part(numbers, name) for numbers in (facts.found, facts.plus))
    said = any(name in right_names and " + " in rows[0].joins for _, right_names, rows in groups)
    return bool((plus.any() and not said) or ((found < 0).any() and (found > 0).any()))


def _with_ties(row: Row, ties: tuple[Mapping[str, str], Mapping[str, str]]) -> Row:
    """Return the row with the names that share its array on a side that has one array."""
    if row.arrow != "<->" or row.constant or " + " in row.joins:
        return row
    for side in (0, 1):
        arrays = (row.left, row.right)[side]
        shared = [escaped(name) for name, first in ties[side].items() if escaped(first) == arrays[0][0]]
        if shared and (len(arrays) == 1 or row.joins[side] == " = "):
            more = (*arrays, *((name, arrays[0][1]) for name in shared))
            if side == 0:
                row = replace(row, left=more, joins=(" = ", row.joins[1]))
            else:
                row = replace(row, right=more, joins=(row.joins[0], " = "))
    return row


def _components(facts: Facts) -> Iterator[tuple[list[str], list[str]]]:
    """Group parameters of both sides that share elements, in the right side's order; a group may have no left ones."""
    lefts, rights = facts.lefts, facts.rights
    owners = {name: lefts.owners(facts.part(name)) for name in rights.names}
    readers: dict[str, list[str]] = {}
    for right, names in owners.items():
        for left in names:
            readers.setdefault(left, []).append(right)
    done = set[str]()
    for right in rights.names:
        if right in done:
            continue
        left_names, right_names, waiting = list[str](), list[str](), [right]
        while waiting:
            name = waiting.pop()
            if name in right_names:
                continue
            right_names.append(name)
            for left in owners[name]:
                if left not in left_names:
                    left_names.append(left)
                waiting += readers[left]
        done.update(right_names)
        right_names.sort(key=rights.names.index)
        yield left_names, right_names


def _rows(facts: Facts, left_names: list[str], right_names: list[str], names: Names) -> list[Row] | None:
    lefts, rights = facts.lefts, facts.rights
    if len(right_names) == 1:
        return many_to_one(lefts, left_names, right_names[0], facts.part(right_names[0]), names, 0)
    if any((facts.part(name) == 0).any() for name in right_names):
        return None
    if len(left_names) > 1:
        return _crossed(facts, left_names, right_names, names)
    copies = [facts.part(name) for name in right_names]
    if all(np.array_equal(np.unique(copy), np.unique(copies[0])) for copy in copies):
        return _tied(lefts, left_names, right_names, copies, names)
    back = np.zeros(len(lefts), np.int64)
    places = np.concatenate([rights.numbers(name).astype(np.int64).ravel() for name in right_names])
    back[facts.found[places]] = places
    numbers = lefts.part(back, left_names[0])
    rows = many_to_one(rights, right_names, left_names[0], numbers, names, 1)
    return rows and [row.reverse() for row in rows]


def _tied(
    lefts: Elements, left_names: list[str], right_names: list[str], copies: list[Array], names: Names
) -> list[Row] | None:
    every = [
        many_to_one(lefts, left_names, name, copy, names, 0) for name, copy in zip(right_names, copies, strict=True)
    ]
    whole = [rows[0] for rows in every if rows and len(rows) == 1 and every[0] and rows[0].left == every[0][0].left]
    if len(whole) < len(every):
        return None
    return [Row(whole[0].left, tuple(row.right[0] for row in whole), (", ", " = "))]


def many_to_one(
    sources: Elements, source_names: list[str], target: str, numbers: Array, names: Names, side: int
) -> list[Row] | None:
    """Write the line for one array that consists of one or several others, and lines for what is left over.

    Args:
      numbers: of the sources' elements, in the shape of the target; 0 where there is none.
      side: the side of the sources.
    """
    if (numbers == 0).any():
        return _part_of_target(sources, source_names, target, numbers, names, side)
    if len(source_names) > 1:
        source_names = sorted(source_names, key=lambda name: int(np.isin(numbers, sources.numbers(name)).argmax()))
    shapes = {sources.shapes[name] for name in source_names}
    cells = grid(source_names) if len(shapes) == 1 else None
    row = _stacked(sources, source_names, cells, target, numbers, names, side) if cells else None
    if row is None and len(source_names) > 1:
        one = joined(sources, source_names, target, numbers, names, side)
        row = [one] if one else None
    if row is None and len(source_names) == 1:
        name = source_names[0]
        local = numbers - sources.first(name)
        one = permuted(name, sources.shapes[name], target, local, names, side)
        row = [one] if one else None
    return row


def _stacked(
    sources: Elements,
    source_names: list[str],
    cells: tuple[str, dict[str, int], dict[str, int]],
    target: str,
    numbers: Array,
    names: Names,
    side: int,
) -> list[Row] | None:
    """Return sources of one shape whose names form a grid: their holes are axes of the target."""
    path, places, counts = cells
    shape = sources.shapes[source_names[0]]
    size = int(np.prod(shape, dtype=int))
    stacked = np.full(numbers.shape, -1) if len(source_names) > 1 else numbers - sources.first(source_names[0])
    for name in source_names if len(source_names) > 1 else ():
        first = sources.first(name)
        inside = (numbers >= first) & (numbers < first + size)
        stacked[inside] = numbers[inside] - first + places[name] * size
    axes = relate(stacked, (*counts.values(), *shape))
    if axes is None or any(axes.windows[: len(counts)]) or any(len(atoms) != 1 for atoms in axes.source[: len(counts)]):
        return None
    for name, (atom,) in zip(counts, axes.source[: len(counts)], strict=True):
        atom.name = name
    names.assign(axes, len(counts), side)
    texts = [composed(atoms, signs=True) for atoms in axes.source[len(counts) :]]
    windows = axes.windows[len(counts) :]
    source = [text + _window(*window, length) if window else text
              for text, window, length in zip(texts, windows, shape, strict=True)]  # fmt: skip
    row = Row(((path, " ".join(source)),), ((escaped(target), " ".join(map(composed, axes.target))),))
    return [row, *_left_over(path, texts, source, windows, shape, side)]


def _crossed(facts: Facts, left_names: list[str], right_names: list[str], names: Names) -> list[Row] | None:
    """Return arrays of one shape on each side whose names form a grid: the holes of one are axes of the other."""
    lefts, rights = facts.lefts, facts.rights
    right_names = sorted(right_names, key=lambda name: int(facts.part(name).flat[0]))
    shapes = [{side.shapes[name] for name in of} for side, of in ((lefts, left_names), (rights, right_names))]
    ours, theirs = grid(left_names), grid(right_names)
    if any(len(found) != 1 for found in shapes) or ours is None or theirs is None:
        return None
    (path, places, counts), (other, order, others) = ours, theirs
    (shape,), (target,) = shapes
    size = int(np.prod(shape, dtype=int))
    local = np.zeros(len(lefts), np.int64)
    for name in left_names:
        lefts.part(local, name).ravel()[...] = np.arange(size) + places[name] * size
    parts = sorted(right_names, key=order.__getitem__)
    numbers = np.stack([local[facts.part(name)] for name in parts]).reshape(*others.values(), *target)
    axes = relate(numbers, (*counts.values(), *shape))
    if axes is None or any(axes.windows):
        return None
    numbered, holes = axes.source[: len(counts)], axes.target[: len(others)]
    if any(len(atoms) != 1 for atoms in (*numbered, *holes)) or any(a[0] is b[0] for a in numbered for b in holes):
        return None
    for name, (atom,) in zip(counts, numbered, strict=True):
        atom.name = name
    for name, (atom,) in zip(others, holes, strict=True):
        atom.name = name if name not in counts else next(free for free in "sruvl" if free not in {*counts, *others})
        other = re.sub(rf"\{{{name}(?=[}}=+-])", f"{{{atom.name}", other)
    names.assign(Axes(axes.source, axes.target[len(others) :], axes.windows), len(counts), 0)
    left = " ".join(composed(atoms, signs=True) for atoms in axes.source[len(counts) :])
    return [Row(((path, left),), ((other, " ".join(map(composed, axes.target[len(others) :]))),))]


def _window(start: int, stop: int, length: int) -> str:
    return f"[{start or ''}:{stop if stop < length else ''}]"


def _left_over(
    path: str, texts: list[str], written: list[str], windows: Sequence[tuple[int, int] | None], shape: Sequence[int],
    side: int,
) -> Iterator[Row]:  # fmt: skip
    """Yield lines for the positions before and after a window: dropped on the left, zeros on the right."""
    for axis, window in enumerate(windows):
        if window is None:
            continue
        for start, stop in ((0, window[0]), (window[1], shape[axis])):
            if start < stop:
                text = [*written[:axis], f"x{_window(start, stop, shape[axis])}", *texts[axis + 1 :]]
                array = ((path, " ".join(text)),)
                yield Row(left=array, arrow="->") if side == 0 else Row(left=array, constant="0")


def _part_of_target(
    sources: Elements, source_names: list[str], target: str, numbers: Array, names: Names, side: int
) -> list[Row] | None:
    """Return a target of which only positions in one range have a source; the others are zeros, or dropped."""
    for axis in range(numbers.ndim):
        rows = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1) > 0
        inside = np.flatnonzero(rows.all(1))
        if not len(inside) or rows.any(1).sum() != len(inside) or inside[-1] - inside[0] + 1 != len(inside):
            continue
        start, stop = int(inside[0]), int(inside[-1]) + 1
        whole = many_to_one(sources, source_names, target, np.take(numbers, inside, axis), names, side)
        if not whole or len(whole) != 1 or "(" in (texts := str(whole[0].right[0][1]).split(" "))[axis]:
            return None
        written = [*texts]
        written[axis] += _window(start, stop, numbers.shape[axis])
        windows = [(start, stop) if d == axis else None for d in range(numbers.ndim)]
        row = replace(whole[0], right=((escaped(target), " ".join(written)),))
        rest = _left_over(escaped(target), texts, written, windows, numbers.shape, 1 - side)
        return [row, *(r.reverse() for r in rest)]
    return None
