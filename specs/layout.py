"""Translate a Table plus names and shapes into moves, and prove that they cover every element once.

The left side is read, the right side written. Names are matched with paths (matching.py), lengths of axes are solved
from shapes (sizes.py), every array is divided among the lines, and the division is checked to be complete on both
sides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .axes import Part, full, total
from .lines import Cell, Line, Lines, TableError
from .matching import Found, Matcher, Ranges, fill
from .moves import Fill, Move
from .signature import Signature
from .sizes import Env, SizeError, Solver

Shape = tuple[int, ...]
Parts = list[Move | Fill]


class Misfit(TableError):
    """Arrays that do not fit a table.

    Args:
      missing: names that lines need and the arrays at hand lack; unexpected: names that no line speaks of.
      misfits: (name, what is wrong with it).
    """

    def __init__(self, message: str, missing: list[str], unexpected: list[str], misfits: list[tuple[str, str]]):
        self.missing, self.unexpected, self.misfits = missing, unexpected, misfits
        lines = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
        super().__init__(message, lines + [f"{name} {problem}" for name, problem in misfits])


class Sum(NamedTuple):
    """A right array that is the sum of several left ones: what each of them puts into it."""

    terms: list[Parts]


class Entry(NamedTuple):
    """A right array and what fills it.

    Args:
      dtype: that which a constant states, if any.
      like: the left array whose dtype zeros take, if any.
    """

    name: str
    shape: Shape
    filling: Parts | Sum
    dtype: str = ""
    like: str = ""

    @property
    def sources(self) -> list[str]:
        lists = self.filling.terms if isinstance(self.filling, Sum) else [self.filling]
        return list(dict.fromkeys(part.source for parts in lists for part in parts if isinstance(part, Move)))


class Equal(NamedTuple):
    """A promise about the left side's values: what `parts` put into `shape` is equal to `others`, or to a constant."""

    line: Line
    name: str
    shape: Shape
    parts: list[Move]
    other: str
    others: list[Move]
    value: float = 0.0


@dataclass(frozen=True)
class Layout:
    """A translation of arrays that are known by name and shape.

    Args:
      entries: every right array, in the order of the table.
      checks: what has to be true of the left side's values.
      dropped: left arrays without a place on the right.
      sums: left arrays that only count as a sum; zeroed: right arrays that get zeros as the other terms of one.
      constants: right arrays that hold one value.
      absent: names of tied arrays that the left side leaves out.
      unread: arrays of the file to be like that the table drops.
      sizes: lengths of axes by line number.
    """

    entries: tuple[Entry, ...]
    checks: tuple[Equal, ...]
    dropped: tuple[str, ...]
    sums: tuple[str, ...]
    zeroed: tuple[str, ...]
    constants: tuple[str, ...]
    absent: tuple[str, ...]
    sizes: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, Shape]:
        return {entry.name: entry.shape for entry in self.entries}


class Place(NamedTuple):
    """One atom of an array as a cell sees it: which variable runs along it, over which range, in which order."""

    size: int  # of the atom
    variable: str  # "" where the cell has one index only
    start: int
    length: int
    backwards: bool = False
    order: tuple[int, ...] | None = None

    def position(self, index: int) -> int:
        index = self.length - 1 - index if self.backwards else index
        return self.start + (self.order[index] if self.order else index)

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.start + self.length


Box = tuple[Shape, tuple[tuple[int, int], ...]]  # atoms, and the range of each


def lay_out(
    table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
) -> Layout:
    """Lay out a Table; arguments and errors as in Table.layout."""
    return _Work(table, shapes, like, sizes).run()


class _Work:
    """The making of one Layout."""

    def __init__(
        self, table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
    ):
        self.table, self.shapes, self.like = table, shapes, like
        self.solver = Solver(table, shapes, like, sizes)
        self.misfits: list[tuple[str, str]] = []
        self.parts: dict[str, tuple[Line, Parts]] = {}
        self.targets: dict[str, tuple[Line, Shape]] = {}
        self.dtypes: dict[str, str] = {}
        self.sums: dict[str, list[Parts]] = {}
        self.used: dict[str, list[tuple[Line, Box | None]]] = {}  # of left arrays; None: a whole one
        self.made: dict[str, list[tuple[Line, Box | None]]] = {}  # of right arrays
        self.lengths: dict[tuple[str, int], int] = {}  # of right arrays, by name and dimension
        self.dtypes_of: dict[str, str] = {}
        self.strict = True
        self.unread: tuple[str, ...] = ()
        self.checks: list[Equal] = []
        self.zeroed: dict[str, None] = {}
        self.constants: dict[str, None] = {}

    def run(self) -> Layout:
        table = self.table
        found = Matcher(table, self.shapes).match()
        if found.problems or found.missing or found.unexpected:
            raise Misfit(f"{table.name}: does not fit", found.missing, found.unexpected, found.problems)
        envs = [self.solver.env(line, key, arrays) for line in table.lines for key, arrays in found.groups(line)]
        if self.like is not None:
            theirs = Matcher(table.reverse(), self.like).match()
            for env in envs:
                for array, named in zip(env.line.right.arrays, theirs.of(env.line, env.key), strict=False):
                    self.solver.count(env, array, named)
        self.solver.solve(envs)
        self._raise_misfits()
        self._check_open([env for env in envs if env.line.kind != "drop"])
        ranges, names = self._right_names(envs)
        made = [env for line in table.lines if line.kind == "constant" for env in self._constants(line, ranges)]
        self.solver.solve(envs + made)
        self._raise_misfits()
        self._check_open(made)
        if unused := self.solver.unused():
            raise SizeError(f"{table.name}: the shapes at hand say otherwise: {', '.join(unused)} is not as given")
        self._check_ranges(ranges, names)
        self._measure(envs + made)
        self._raise_misfits()
        for env in envs:
            getattr(self, f"_{env.line.kind}")(env)
        for env in made:
            self._make_constant(env)
        self._check_divided()
        if self.strict:
            self._check_like()
        self._raise_misfits()
        return self._layout(found, envs + made)

    def _layout(self, found: Found, envs: list[Env]) -> Layout:
        def filling(name: str) -> Parts | Sum:
            return Sum(self.sums[name]) if name in self.sums else self.parts[name][1]

        at = {line.number: k for k, line in enumerate(self.table.lines)}
        order = sorted(self.targets, key=lambda name: at[self.targets[name][0].number])
        entries = [
            Entry(n, self.targets[n][1], filling(n), self.dtypes.get(n, ""), self.dtypes_of.get(n, "")) for n in order
        ]
        sizes: dict[int, dict[str, int]] = {}
        for env in envs:
            sizes.setdefault(env.line.number, {}).update(env.sizes)
        dropped = [name for env in envs if env.line.kind == "drop" for names in env.arrays for name in names.values()]
        sums = [name for terms in self.sums.values() for parts in terms for name in Entry("", (), parts).sources]
        return Layout(
            tuple(entries), tuple(self.checks), tuple(dropped), tuple(dict.fromkeys(sums)), tuple(self.zeroed),
            tuple(self.constants), tuple(found.absent), sizes, self.unread,
        )  # fmt: skip

    def _raise_misfits(self) -> None:
        misfits = list(dict.fromkeys([*self.solver.misfits, *self.misfits]))
        if misfits:
            raise Misfit(f"{self.table.name}: does not fit", [], [], misfits)

    def _check_open(self, envs: list[Env]) -> None:
        problems: dict[str, None] = {}
        for env in envs:
            for array in (*env.line.left.arrays, *env.line.right.arrays):
                for dim in array.axes or ():
                    names = [p.name for f in dim.factors for p in f if p.name and p.name not in env.sizes]
                    if names:
                        problems[f"line {env.line.number}: {' and '.join(names)} in {dim} of {array.label}"] = None
        if problems:
            first = next(iter(problems)).split(": ", 1)[1].split(" ", 1)[0]
            raise SizeError(
                f"{self.table.name}: lengths of axes that the names and shapes at hand leave open: give a file of the "
                f"other side (--like FILE) or lengths (--set {first}=...)", list(problems)[:40],
            )  # fmt: skip

    def _right_names(self, envs: list[Env]) -> tuple[Ranges, list[tuple[Line, Signature, str]]]:
        """What the right side's arrays are called, and how far their numbers count."""
        ranges, names = Ranges(), []
        for env in envs:
            if env.line.kind not in ("move", "sum"):
                continue
            for array in map(env.line.resolved, env.line.right.arrays):
                for index in env.indices(array):
                    names.append((env.line, array, ranges.add(env.line, array, index)))
        return ranges, names

    def _check_ranges(self, ranges: Ranges, names: list[tuple[Line, Signature, str]]) -> None:
        """Report right arrays that the block count of other lines requires and that no line makes."""
        lines: dict[int, tuple[Line, set[str]]] = {}
        for line, _, name in names:
            lines.setdefault(line.number, (line, set()))[1].add(name)
        for line, made in lines.values():
            for array in map(line.resolved, line.right.arrays):
                for _, name in ranges.expected(line, array):
                    if name not in made:
                        problem = f"would be missing: other lines count on (line {line.number}: {array.label})"
                        self.misfits.append((name, problem))

    def _constants(self, line: Line, ranges: Ranges) -> Iterator[Env]:
        """The right arrays of one value, as many as the numbers in other lines' names count."""
        arrays = [line.resolved(array) for array in line.right.arrays]
        keys: dict[tuple[tuple[str, int], ...], None] = {}
        for array in arrays:
            found = list(ranges.expected(line, array))
            if not found:
                self.misfits.append((array.label, f"counts what no other line counts (line {line.number})"))
            keys.update((tuple(sorted(index.items())), None) for index, _ in found)
        yield from (self.solver.env(line, key, []) for key in keys)

    # What each kind of line contributes.

    def _move(self, env: Env) -> None:
        """Fill every right alternative from the first left one that is there; others there have to be equal to it."""
        line = env.line
        first: dict[str, list[Move]] = {}
        there = [k for k, arrays in enumerate(line.left.alternatives) if all(map(env.named, arrays))]
        for k in there:
            for r, pairs in enumerate(line.pairs[k]):
                if k == there[0]:
                    made = self._moves(env, pairs, use=r == 0)
                    for name, parts in made.items():
                        self._fill(line, name, parts)
                    first = made if r == 0 else first
                elif r == 0:
                    for name, parts in self._moves(env, pairs, make=False).items():
                        pair = (first[name][0].source, parts[0].source)
                        self.checks.append(Equal(line, pair[0], self.targets[name][1], first[name], pair[1], parts))

    def _sum(self, env: Env) -> None:
        """With the arrow, terms are added; against it, the first term gets all and the others get zeros."""
        line = env.line
        if line.left.join == "+":
            for k, row in enumerate(line.pairs):
                for name, parts in self._moves(env, row[0], make=k == 0).items():
                    self.sums.setdefault(name, []).append(list(parts))
            return
        for k, pairs in enumerate(line.pairs[0]):
            for name, parts in self._moves(env, pairs, use=k == 0).items():
                zeros = [Fill(part.target_atoms, part.place, 0) for part in parts]
                self._fill(line, name, zeros if k else parts)
                if k:
                    self.zeroed[name] = None
                    self.dtypes_of[name] = parts[0].source

    def _drop(self, env: Env) -> None:
        for named in env.arrays:
            for name in named.values():
                self.used.setdefault(name, []).append((env.line, None))

    def _constant(self, env: Env) -> None:
        """Left arrays of one value: nothing on the right holds them, so they are checked to hold it."""
        constant = env.line.left.constant
        if constant is None:
            return
        for array, named in zip(env.line.left.arrays, env.arrays, strict=True):
            for name in named.values():
                for cell in env.line.cells(array):
                    places = self._places(env, cell, self.shapes[name], name)
                    free = tuple(place.length for place in places if place.variable)
                    select = tuple(slice(*p.span) if p.variable else p.start for p in places)
                    atoms = tuple(place.size for place in places)
                    whole = tuple(slice(None) for _ in free)
                    move = Move(name, atoms, select, tuple(range(len(free))), free, whole)
                    self.checks.append(Equal(env.line, name, free, [move], "", [], constant.value))
                    self.used.setdefault(name, []).append((env.line, (atoms, tuple(p.span for p in places))))

    def _make_constant(self, env: Env) -> None:
        """Right arrays of one value."""
        constant = env.line.right.constant
        assert constant is not None
        for array in map(env.line.resolved, env.line.right.arrays):
            for index in env.indices(array):
                name = fill(env.line, array, index)
                if (shape := self._shape(env, array, name)) is None:
                    continue
                for cell in env.line.cells(array):
                    places = self._places(env, cell, shape, name)
                    atoms = tuple(place.size for place in places)
                    where = tuple(_whole(p) if p.variable else p.start for p in places)
                    self._fill(env.line, name, [Fill(atoms, where, constant.value)])
                    self.made.setdefault(name, []).append((env.line, (atoms, tuple(p.span for p in places))))
                    self.constants[name] = None
                    self.dtypes[name] = constant.dtype

    def _fill(self, line: Line, name: str, parts: Sequence[Move | Fill]) -> None:
        self.parts.setdefault(name, (line, []))[1].extend(parts)

    # Geometry.

    def _moves(
        self, env: Env, pairs: Sequence[tuple[Cell, Cell]], use: bool = True, make: bool = True
    ) -> dict[str, list[Move]]:
        """The moves of cells that correspond, by right name.

        Args:
          use, make: count what the left arrays give, what the right ones get; False where it was counted before.
        """
        found: dict[str, list[Move]] = {}
        for left, right in pairs:
            array = env.line.resolved(right.array)
            for left_key, source in env.named(left.array).items():
                given = {**dict(env.key), **dict(left_key)}
                from_places = self._places(env, left, self.shapes[source], source)
                for index in self._both(env, array, given):
                    name = fill(env.line, array, index)
                    if (shape := self._shape(env, array, name)) is None:
                        continue
                    to_places = self._places(env, right, shape, name)
                    move = _between(source, from_places, to_places, {**given, **index})
                    found.setdefault(name, []).append(move)
                    if use:
                        self.used.setdefault(source, []).append((env.line, _box(from_places, index)))
                    if make:
                        self.made.setdefault(name, []).append((env.line, _box(to_places, given)))
        return found

    def _both(self, env: Env, array: Signature, given: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """The indices of right arrays that a left array at the given ones has elements for."""
        for index in env.indices(array):
            if all(given.get(variable, number) == number for variable, number in index.items()):
                yield index

    def _shape(self, env: Env, array: Signature, name: str) -> Shape | None:
        """The shape of a right array, which all its lines state alike; None, and a misfit, where they do not."""
        lengths = [self.lengths.get((name, d)) for d in range(len(array.axes or ()))]
        if None in lengths:
            at = lengths.index(None)
            self.misfits.append(
                (name, f"has windows only along axis {at}, and nothing says how long it is: --like FILE")
            )
            return None
        shape = tuple(length for length in lengths if length is not None)
        line, before = self.targets.setdefault(name, (env.line, shape))
        if before != shape:
            self.misfits.append(
                (name, f"gets {len(before)} axes in line {line.number}, {len(shape)} in {env.line.number}")
            )
            return None
        return shape

    def _measure(self, envs: list[Env]) -> None:
        """Lengths of the right arrays' dimensions, of all lines together: a window alone does not tell."""
        for env in envs:
            for array in map(env.line.resolved, env.line.right.arrays):
                for index in env.indices(array) if array.axes is not None else ():
                    name = fill(env.line, array, index)
                    for d, dim in enumerate(array.axes or ()):
                        length = full(dim, env.sizes)
                        if length is None and self.like and name in self.like:
                            length = self.like[name][d]
                        if length is not None and self.lengths.setdefault((name, d), length) != length:
                            problem = f"is {self.lengths[name, d]} long along axis {d} in one line, {length} in another"
                            self.misfits.append((name, problem))

    def _places(self, env: Env, cell: Cell, shape: Shape, name: str) -> list[Place]:
        """What a cell takes of each atom of its array."""
        found = []
        for d, dim in enumerate(cell.array.axes or ()):
            base = 0
            if dim.window is not None:
                base = slice(*dim.window).indices(shape[d])[0]
                if not dim.factors:
                    found.append(Place(shape[d], "", base, 1))
            for f, factor in enumerate(dim.factors):
                chosen = cell.choice[d][f]
                start = base + total(factor[:chosen], env.sizes)
                size = shape[d] if dim.window is not None else total(factor, env.sizes)
                found.append(self._place(env, factor[chosen], size, start, name))
        return found

    def _place(self, env: Env, part: Part, size: int, start: int, name: str) -> Place:
        length = env.sizes[part.name] if part.name else 1
        order = self.table.orders[part.order] if part.order else None
        if order is not None and len(order) != length:
            problem = f"has {length} {part.name}, and [@{part.order}] orders {len(order)} (line {env.line.number})"
            self.misfits.append((name, problem))
            order = None
        return Place(size, part.name, start, length, part.backwards, order)

    # Proofs.

    def _check_divided(self) -> None:
        """Every element of every left array is used once, every element of every right array made once."""
        for arrays, shapes, verb in (
            (self.used, self.shapes, "used"),
            (self.made, {name: shape for name, (_, shape) in self.targets.items()}, "filled"),
        ):
            for name, boxes in arrays.items():
                if problem := _divided(boxes, math.prod(shapes[name])):
                    self.misfits.append((name, problem.replace("used", verb)))
        for name in self.sums:
            if name in self.parts:
                self.misfits.append((name, f"is a sum, and is filled by line {self.parts[name][0].number} as well"))

    def _check_like(self) -> None:
        if self.like is None:
            return
        for name, (line, shape) in self.targets.items():
            if name not in self.like:
                self.misfits.append((name, f"is made by line {line.number}, and is not in the file to be like"))
            elif self.like[name] != shape:
                self.misfits.append(
                    (name, f"has shape {list(self.like[name])} in the file to be like, {list(shape)} here")
                )
        dropped = Matcher(replace(self.table.reverse(), lines=tuple(
            line for line in self.table.reverse().lines if line.kind == "drop")), self.like).match()  # fmt: skip
        ours = {
            name
            for groups in dropped.arrays.values()
            for arrays in groups.values()
            for n in arrays
            for name in n.values()
        }
        self.unread = tuple(sorted(ours))
        for name in self.like:
            if name not in self.targets and name not in ours:
                self.misfits.append((name, "is in the file to be like, and no line makes it"))


def _whole(place: Place) -> slice:
    return slice(None) if place.span == (0, place.size) else slice(*place.span)


def _box(places: Iterable[Place], fixed: Mapping[str, int]) -> Box:
    """The range of each atom that places take, one index where a variable is fixed."""
    spans, atoms = [], []
    for place in places:
        atoms.append(place.size)
        if place.variable in fixed:
            at = place.position(fixed[place.variable])
            spans.append((at, at + 1))
        else:
            spans.append(place.span)
    return tuple(atoms), tuple(spans)


def _between(source: str, left: list[Place], right: list[Place], fixed: Mapping[str, int]) -> Move:
    """The Move from one cell to another, each variable that is not fixed running along both.

    The target's ranges run forward; whatever is backwards or reordered on either side is selected so from the source.
    """
    ends = {place.variable: place for place in right if place.variable}
    select: list[int | slice | tuple[int, ...]] = []
    free: list[str] = []
    for place in left:
        if not place.variable:
            select.append(place.start)
        elif place.variable in fixed:
            select.append(place.position(fixed[place.variable]))
        else:
            free.append(place.variable)
            select.append(_selection(place, ends[place.variable]))
    into: list[int | slice] = []
    order: list[int] = []
    for place in right:
        if not place.variable:
            into.append(place.start)
        elif place.variable in fixed:
            into.append(place.position(fixed[place.variable]))
        else:
            into.append(_whole(place))
            order.append(free.index(place.variable))
    atoms = tuple(place.size for place in left)
    return Move(source, atoms, tuple(select), tuple(order), tuple(place.size for place in right), tuple(into))


def _selection(left: Place, right: Place) -> slice | tuple[int, ...]:
    """Which elements of the left's range come to the right's, in the right's order."""
    if left.order is None and right.order is None:
        start, stop = left.span
        if left.backwards == right.backwards:
            return _whole(left)
        return slice(stop - 1, start - 1 if start else None, -1)
    at = [0] * right.length
    for index in range(right.length):
        at[right.position(index) - right.start] = left.position(index)
    return tuple(at)


def _divided(boxes: list[tuple[Line, Box | None]], size: int) -> str:
    """Return why the boxes do not cover an array of this size exactly once; "" if they do."""
    lines = " and ".join(dict.fromkeys(f"line {line.number}" for line, _ in boxes))
    whole = [box for _, box in boxes if box is None]
    if whole and len(boxes) > 1:
        return f"is used twice, by {lines}"
    if whole:
        return ""
    parts = [box for _, box in boxes if box is not None]
    if len({atoms for atoms, _ in parts}) > 1:
        return f"is divided by {lines} in ways that do not match: write its axes alike"
    if size and _overlap([spans for _, spans in parts], 0):
        return f"is used twice in places, by {lines}"
    used = sum(math.prod(stop - start for start, stop in spans) for _, spans in parts)
    return "" if used == size else f"is used only in part, by {lines}: {size - used} of {size} elements are left over"


def _overlap(boxes: list[tuple[tuple[int, int], ...]], axis: int) -> bool:
    """Whether any two of these boxes, equal along all axes before this one, share an element."""
    if len(boxes) < 2:
        return False
    if axis == len(boxes[0]):
        return True
    groups: dict[tuple[int, int], list[tuple[tuple[int, int], ...]]] = {}
    for box in boxes:
        groups.setdefault(box[axis], []).append(box)
    spans = sorted(groups)
    if any(later[0] < former[1] for former, later in itertools.pairwise(spans)):  # ranges that differ and meet
        return any(
            all(a[0] < b[1] and b[0] < a[1] for a, b in zip(one, other, strict=True))
            for one, other in itertools.combinations(boxes, 2)
        )
    return any(_overlap(group, axis + 1) for group in groups.values())


def prove(
    table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
) -> Layout:
    """Prove a Table from names and shapes; arguments and errors as in Table.prove."""
    there = lay_out(table, shapes, like, sizes)
    left = {name: shape for name, shape in shapes.items() if name not in there.dropped}
    work = _Work(table.reverse(), there.shapes, left, sizes)
    work.strict = False  # a tied name that the left side leaves out comes back
    back = {name: shape for name, shape in work.run().shapes.items() if name not in there.absent}
    if back != left:
        wrong = sorted(name for name in {**back, **left} if back.get(name) != left.get(name))
        raise TableError(f"{table.name}: does not lead back to the same arrays", wrong)
    return there
