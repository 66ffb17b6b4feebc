"""Compose Tables: A<->B with B<->C gives A<->C, from the text alone.

The lines of both meet in arrays of B. There each dimension is written twice, which says what the axes of one line are
in terms of the other: a whole axis is the other's factors, its window, its reversal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from .axes import Axes, Part
from .equating import Value, Values, equated, fresh_name, names_of, substituted
from .line_checks import check_line
from .lines import Line, Lines, Side, TableError
from .paths import Hole, joined
from .signature import Signature


def compose(one: Lines, two: Lines) -> Lines:
    """Compose two Tables; arguments and errors as in Table.compose."""
    name = f"{one.name} * {two.name}"
    if one.name == two.name:  # as of texts: messages say which of the two they speak of
        one, two = replace(one, name=f"the first {one.name}"), replace(two, name=f"the second {two.name}")
    for order in sorted(one.orders.keys() & two.orders.keys()):
        if one.orders[order] != two.orders[order]:
            raise TableError(f"[@{order}] has other numbers in {two.name} than in {one.name}: rename one of the two")
    backwards = any(line.left.join != "," for line in two.lines) and all(line.right.join == "," for line in one.lines)
    work = _Work(two.reverse(), one.reverse()) if backwards else _Work(one, two)  # the first may join arrays of B
    lines = work.lines()
    if work.problems:
        message = f"{one.name} and {two.name} cannot be composed: mend these lines, or apply both tables in turn"
        raise TableError(message, work.problems[:40])
    plain = [replace(line, number=0, above=(), comment="") for line in lines]
    plain = [line.reverse() for line in plain] if backwards else plain
    return Lines(tuple(dict.fromkeys(plain)), (one.sides[0], two.sides[1]), {**one.orders, **two.orders}, name)


def _spelt_out(one: Lines, two: Lines) -> tuple[list[Line], list[Line]]:
    """Return the lines of both, with lists of values written out where the other table writes one path otherwise."""
    first, second = [_separated(line) for line in one.lines], [_separated(line) for line in two.lines]
    theirs = {_shape(a) for line in second for a in map(line.resolved, line.left.arrays)}
    first = [each for line in first for each in _expanded(line, line.right, theirs)]
    ours = {_shape(a) for line in first for a in map(line.resolved, line.right.arrays)}
    second = [each for line in second for each in _expanded(line, line.left, ours)]
    left = {_shape(a) for line in second for a in map(line.resolved, line.left.arrays)}
    return [each for line in first for each in _expanded(line, line.right, left)], second


def _shape(array: Signature) -> tuple[object, ...]:
    """Return a path without the names of its holes."""
    return tuple(p._replace(name="") if isinstance(p, Hole) else p for p in array.path)


def _expanded(line: Line, side: Side, others: set[tuple[object, ...]]) -> Iterator[Line]:
    """Yield the line, or one for each listed value where the paths of `side` are not among the other table's."""
    lists = {hole.name: hole.values for a in map(line.resolved, side.arrays) for hole in a.holes if hole.values}
    axes = {part.name for array in (*line.left.arrays, *line.right.arrays) for part in array.parts()}
    if all(_shape(line.resolved(array)) in others for array in side.arrays) or not lists or lists.keys() & axes:
        yield line
        return
    for chosen in itertools.product(*(range(len(values)) for values in lists.values())):
        at = dict(zip(lists, chosen, strict=True))

        def fixed(array: Signature, at: Mapping[str, int] = at) -> Signature:
            pieces = (
                p.fill(at[p.name]) if isinstance(p, Hole) and p.name in at else p for p in line.resolved(array).path
            )
            return array._replace(path=joined(pieces))

        yield _mapped(line, fixed)


def _mapped(line: Line, change: Callable[[Signature], Signature]) -> Line:
    """Return the line with each of its arrays changed."""
    left, right = (side._replace(arrays=tuple(map(change, side.arrays))) for side in (line.left, line.right))
    return replace(line, left=left, right=right)


def _separated(line: Line) -> Line:
    """Return the line with a name of its own for each number that shares one with an axis."""
    taken = names_of(line)
    fresh = {name: fresh_name(name, taken) for name in sorted(line.double)}

    def renamed(array: Signature) -> Signature:
        path = (
            p._replace(name=fresh.get(p.name, p.name)) if isinstance(p, Hole) else p for p in line.resolved(array).path
        )
        return array._replace(path=tuple(path))

    return _mapped(line, renamed)


class _Work:
    """Two Tables, and what was composed of their lines so far."""

    def __init__(self, one: Lines, two: Lines):
        self.one, self.two = one, two
        self.first, self.second = _spelt_out(one, two)
        self.places: dict[tuple[object, ...], list[tuple[int, int]]] = {}  # by path, of the second table's left side
        for k, line in enumerate(self.second):
            for position, array in enumerate(line.left.arrays):
                self.places.setdefault(_shape(array), []).append((k, position))
        self.met: set[tuple[int, int]] = set()  # (line of the second table, array of its left side)
        self.problems: list[str] = []

    def lines(self) -> list[Line]:
        """Return the composed lines; `problems` says which could not be."""
        lines = list[Line]()
        for line in self.first:
            composed = [each for each in self.through(line) if each.arrays]
            for each in composed:
                try:
                    check_line(each)
                except ValueError as error:
                    what = f"what it becomes is no line of a table: {error}"
                    self.problems.append(f"{self.one.where(line)}: {what}")
            lines += composed
        return lines + self.rest()

    def through(self, line: Line) -> list[Line]:
        """Return what becomes of a line of the first table."""
        if not line.right.arrays:
            return [line]
        if line.kind == "tie":
            return self._tied(line)
        groups: list[list[Line]] = []
        for array in line.right.arrays:
            lines, problems = self._meetings(line, array)
            self.problems += [f"{self.one.where(line)}: {array}: {why}" for why in problems]
            groups.append(lines)
        if line.right.join == "," or not all(groups):
            return [each for lines in groups for each in lines]
        return self._joined(line, groups)

    def _tied(self, line: Line) -> list[Line]:
        """Return no line for arrays of B that both tables tie; others are a problem."""
        every = self.places.get(_shape(line.right.arrays[0]), [])
        tie = next((k for k, _ in every if self.second[k].kind == "tie"), None)
        ties = self.second[tie].left.arrays if tie is not None else ()
        self.met.update((tie, position) for position in range(len(ties)) if tie is not None)
        if list(map(_shape, ties)) != list(map(_shape, line.right.arrays)):
            self.problems.append(f"{self.one.where(line)}: {line}: {self.two.name} does not tie the same")
        return []

    def _joined(self, line: Line, groups: list[list[Line]]) -> list[Line]:
        """Return the lines of tied arrays, or of the terms of a sum, in one line."""
        real = [[each for each in lines if each.left.arrays and each.right.arrays] for lines in groups]
        if line.right.join == "=" and sum(map(len, real)) == 1:  # the others are dropped on the way
            return next(lines for lines in real if lines)
        ends = [each for lines in real for each in lines]
        whole = all(len(lines) == 1 for lines in real) and all(len(each.right.arrays) == 1 for each in ends)
        if not whole or len({each.left for each in ends}) > 1 or any(each.kind == "sum" for each in ends):
            what = f"what its {line.right.join} joins is apart in {self.two.name}"
            self.problems.append(f"{self.one.where(line)}: {what}")
            return []
        arrays = dict.fromkeys(each.right.arrays[0] for each in ends)
        join = line.right.join if len(arrays) > 1 else ","
        return [Line(ends[0].left, Side(tuple(arrays), join), line.arrow if join == "+" else "<->")]

    def _meetings(self, line: Line, array: Signature) -> tuple[list[Line], list[str]]:
        """Return the lines from A to C through one array of B, and what is wrong with those that there should be.

        A line without arrays stands for an array of B that both tables drop, or give a value.
        """
        lines, problems = list[Line](), list[str]()
        places = self.places.get(_shape(array), [])
        self.met.update(places)
        for k, position in places:
            other = self.second[k]
            if other.kind == "tie":
                continue
            try:
                made = _meet(line, array, other, other.left.arrays[position])
            except ValueError as error:
                problems.append(f"{error} ({self.two.where(other)})")
                continue
            lines += [made] if made else []
        if lines or problems:
            return lines, problems
        value = line.right.constant
        for other in (self.second[k] for k, _ in places):
            if value and other.left.constant and value.value != other.left.constant.value:
                return [], [f"is {value} here and {other.left.constant} there ({self.two.where(other)})"]
        tied = line.right.join == "=" and any(self.second[k].kind == "tie" for k, _ in places)
        if places and (tied or line.kind in ("constant", "drop")):
            return [Line(Side(), Side())], []
        of = "its elements" if places else "it"
        return [], [f"no line of {self.two.name} speaks of {of}: add one"]

    def rest(self) -> list[Line]:
        """Return lines of the second table that do not begin in B; those that no line reaches are problems."""
        for k, line in enumerate(self.second):
            for position, array in enumerate(line.left.arrays):
                if (k, position) not in self.met:
                    what = f"no line of {self.one.name} speaks of it: add one"
                    self.problems.append(f"{self.two.where(line)}: {array}: {what}")
        return [line for line in self.second if not line.left.arrays]


def through(source: Side, hub: Axes, other: Axes, target: Side) -> Line:
    """Return the line from one array to another that are both an array with these axes; either may be tied arrays.

    Raises: ValueError.
    """
    one, two = Signature(("hub",), hub), Signature(("hub",), other)
    made = _meet(Line(source, Side((one,))), one, Line(Side((two,)), target), two)
    if made is None:
        raise ValueError(f"{source} and {target} have no elements in common")
    return made


def _meet(line: Line, array: Signature, other: Line, theirs: Signature) -> Line | None:
    """Return the line from A to C through one array of B. None where the two speak of different elements of it."""
    other, theirs = _primed(other, theirs)
    try:
        values = equated(line, array, other, theirs)
        left = line.left._replace(arrays=tuple(substituted(a, values) for a in line.left.arrays))
        right = other.right._replace(arrays=tuple(substituted(a, values) for a in other.right.arrays))
    except ValueError as error:
        raise ValueError(str(error).replace("'", "")) from None  # without the marks that _primed sets
    if line.kind == "drop" or other.kind == "drop":
        if line.kind != "drop" and line.kind != "constant":
            return Line(left, Side(), "->")
        return Line(Side(), right, "<-") if other.kind not in ("drop", "constant") else None
    if other.kind == "constant" or line.kind == "constant":
        if line.kind == other.kind:
            return None
        if other.kind == "constant":
            return Line(left._replace(join=",", constant=other.left.constant), Side(), other.arrow)
        return Line(Side(), right._replace(join=",", constant=line.right.constant), line.arrow)
    if line.kind == "sum" and other.kind == "sum":
        raise ValueError("a sum of a sum has no line")
    if other.left.join != ",":
        raise ValueError(f"what {other.left.join} joins there comes apart here: only one of the tables may join arrays")
    arrow = (
        line.arrow if line.kind == "sum" and line.left.join == "+" else other.arrow if other.kind == "sum" else "<->"
    )
    made = _stating(Line(left, right, arrow), _stated(line, other, values))
    return _shared(made) if left.join == right.join == "," else made


def _stated(line: Line, other: Line, values: Values) -> Iterator[tuple[str, int]]:
    """Yield (axis of the composed line, its length) for each length that one of two lines states, as {s=q|k|v} does."""
    for name, length in (*line.lengths.items(), *other.lengths.items()):
        value = values.get(name, Value(((Part(name),),)))
        parts = [part for factor in value.factors for part in factor]
        if len(parts) == 1 and not value.window and not parts[0].window:
            yield parts[0].name, length


def _stating(line: Line, stated: Iterable[tuple[str, int]]) -> Line:
    """Return the line with lengths of axes that it does not state itself. Raises: ValueError where two differ."""
    lengths = dict[str, int]()
    for name, length in stated:
        if (known := line.lengths.get(name, lengths.setdefault(name, length))) != length:
            raise ValueError(f"{name} is {known} in one of the tables and {length} in the other")
    lengths = {name: length for name, length in lengths.items() if name not in line.lengths}

    def written(array: Signature) -> Signature:
        if array.axes is None:
            return array
        dims = (
            dim._replace(
                factors=tuple(
                    tuple(part._replace(length=lengths.pop(part.name, part.length)) for part in factor)
                    for factor in dim.factors
                )
            )
            for dim in array.axes
        )
        return array._replace(axes=tuple(dims))

    return _mapped(line, written) if lengths else line


def _shared(line: Line) -> Line | None:
    """Return the line with only those arrays that have elements in common; None if there are none."""
    keys = [
        {line.variables(cell) for array in side.arrays for cell in line.cells(array)}
        for side in (line.left, line.right)
    ]
    both = keys[0] & keys[1]
    left, right = (
        tuple(array for array in side.arrays if any(line.variables(cell) in both for cell in line.cells(array)))
        for side in (line.left, line.right)
    )
    return Line(Side(left), Side(right), line.arrow) if left and right else None


def _primed(line: Line, array: Signature) -> tuple[Line, Signature]:
    """Return a line and an array of it under names that no other line has: name becomes name'."""

    def primed(array: Signature) -> Signature:
        path = tuple(p._replace(name=f"{p.name}'") if isinstance(p, Hole) else p for p in array.path)
        if array.axes is None:
            return Signature(path, None)
        dims = (
            dim._replace(factors=tuple(tuple(p._replace(name=p.name and f"{p.name}'") for p in f) for f in dim.factors))
            for dim in array.axes
        )
        return Signature(path, tuple(dims))

    return _mapped(line, primed), primed(array)
