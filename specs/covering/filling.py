"""Fill the right side's arrays of a Table that is bound to names and lengths, and prove that nothing is left over."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from specs.applied.layout import Entry, Equal, Layout, Parts, Sum
from specs.applied.moves import Fill, Move, Shape
from specs.notation.axes import Part, extent, full, total
from specs.notation.lines import Cell, Constant, Line, Lines, Misfit
from specs.notation.signature import Signature
from specs.solving.env import Env
from specs.solving.ranges import Index, fill

from .coverage import gap, misstated
from .cut import amount
from .places import Box, Place, between, box, whole


class Filling:
    """What the lines of a Table put into each right array, and what they take of each left one."""

    def __init__(
        self, table: Lines, envs: Sequence[Env], shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None = None
    ):
        self.table, self.envs, self.shapes, self.like = table, envs, shapes, like or {}
        self.misfits: list[tuple[str, str]] = []
        self.parts: dict[str, tuple[Line, Parts]] = {}
        self.targets: dict[str, tuple[Line, Shape]] = {}
        self.stated: dict[str, list[tuple[str, int]]] = {}  # dtypes of constants ("": none) and their lines' numbers
        self.dtypes_of: dict[str, str] = {}
        self.sums: dict[str, list[Parts]] = {}
        self.used: dict[str, list[tuple[Line, Box | None]]] = {}  # of left arrays; None: a whole one
        self.made: dict[str, list[tuple[Line, Box | None]]] = {}  # of right arrays
        self.lengths: dict[tuple[str, int], int] = {}  # of right arrays, by name and dimension
        self.known: dict[tuple[object, ...], tuple[Move, Box, Box]] = {}
        self.checks: list[Equal] = []
        self.unchecked: list[Equal] = []
        self.dropped: list[str] = []
        self.zeroed: dict[str, None] = {}
        self.cut: dict[str, list[Box]] = {}
        self.blank: dict[str, None] = {}
        self.constants: dict[str, None] = {}
        self.tied: dict[str, tuple[Line, str]] = {}  # left arrays -> the line that ties them, and what to
        self.copies: dict[str, tuple[Line, str]] = {}  # the same of right ones

    def layout(self, absent: Iterable[str] = ()) -> Layout:
        """Lay out every line. Raises: Misfit."""
        self._measure()
        self._raise_misfits()
        for env in self.envs:
            getattr(self, f"_{env.line.kind}")(env)
        self._check_ties()
        self._copy()
        self._check_divided()
        moved = {n for n, (_, parts) in self.parts.items() if any(isinstance(part, Move) for part in parts)}
        self.misfits += misstated(self.stated, moved | self.sums.keys())
        self._raise_misfits()
        at = {line.number: k for k, line in enumerate(self.table.lines)}
        order = sorted(self.targets, key=lambda name: at[self.targets[name][0].number])
        sizes: dict[int, dict[str, int]] = {}
        for env in self.envs:
            sizes.setdefault(env.line.number, {}).update(env.sizes)
        sums = [
            part.source for terms in self.sums.values() for parts in terms for part in parts if isinstance(part, Move)
        ]
        return Layout(
            entries=tuple(map(self._entry, order)),
            checks=tuple(self.checks),
            unchecked=tuple(self.unchecked),
            dropped=tuple(self.dropped),
            sums=tuple(dict.fromkeys(sums)),
            zeroed=tuple(self.zeroed),
            constants=tuple(self.constants),
            absent=tuple(absent),
            sizes=sizes,
            cut={name: amount(boxes, self.shapes[name]) for name, boxes in self.cut.items()},
            blank=tuple(self.blank),
        )

    def _entry(self, name: str) -> Entry:
        filling = self._total(name) if name in self.sums else self.parts[name][1]
        return Entry(name, self.targets[name][1], filling, self._dtype(name), self.dtypes_of.get(name, ""))

    def _total(self, name: str) -> Sum:
        """Return the terms of a sum, each with zeros where it adds nothing; what other lines put there is one more."""
        beside = self.parts[name][1] if name in self.parts else []
        terms = [[*self.sums[name][0], *beside], *self.sums[name][1:]]
        every = [(part.target_atoms, part.place) for term in terms for part in term]
        places = [place for k, place in enumerate(every) if place not in every[:k]]

        def zeros(term: Parts) -> Parts:
            own = [(part.target_atoms, part.place) for part in term]
            return [Fill(*place, 0) for place in places if place not in own]

        return Sum([[*term, *zeros(term)] for term in terms])

    def _raise_misfits(self) -> None:
        if self.misfits:
            raise Misfit(f"{self.table.name}: does not fit", [], [], list(dict.fromkeys(self.misfits)))

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
        """Add the terms with the arrow; against it, give the first term all and the others zeros."""
        line = env.line
        if line.left.join == "+":
            for k, row in enumerate(line.pairs):
                for name, parts in self._moves(env, row[0], make=k == 0).items():
                    terms = self.sums.setdefault(name, [])
                    terms[k:] = [[*(terms[k] if k < len(terms) else ()), *parts], *terms[k + 1 :]]
            return
        for k, pairs in enumerate(line.pairs[0]):
            for name, parts in self._moves(env, pairs, use=k == 0).items():
                zeros = [Fill(part.target_atoms, part.place, 0) for part in parts]
                self._fill(line, name, zeros if k else parts)
                if k:
                    self.zeroed[name] = None
                    self.dtypes_of[name] = parts[0].source

    def _drop(self, env: Env) -> None:
        """Drop arrays of one side; where a window drops a part of a right array, fill it with zeros."""
        if env.line.right.arrays:
            return self._make_constant(env)
        for array, named in zip(env.line.left.arrays, env.arrays, strict=True):
            for name in named.values():
                if not array.windowed:
                    self.used.setdefault(name, []).append((env.line, None))
                    self.dropped.append(name)
                    continue
                for cell in env.line.cells(array):
                    places = self._places(env, cell, self.shapes[name], name)
                    box = (tuple(place.size for place in places), tuple(place.span for place in places))
                    self.used.setdefault(name, []).append((env.line, box))
                    self.cut.setdefault(name, []).append(box)

    def _tie(self, env: Env) -> None:
        """Check that left arrays are equal to the first one, of which other lines speak; note right ones to copy."""
        index = dict(env.key)
        if env.line.right.arrays:
            first, *others = (fill(env.line, array, index) for array in map(env.line.resolved, env.line.right.arrays))
            self.copies.update(dict.fromkeys(others, (env.line, first)))
            return
        first, *others = (next(iter(named.values()), "") for named in env.arrays)
        for name in filter(None, others):
            self.tied[name] = (env.line, first)
            self.used.setdefault(name, []).append((env.line, None))

    def _check_ties(self) -> None:
        """Check that left arrays which are tied are one, of which another line speaks."""
        for name, (line, first) in self.tied.items():
            if first not in self.used:
                self.misfits.append((name, f"is tied to {first or 'an array'}, of which no other line speaks"))
            elif (shape := self.shapes[name]) != self.shapes[first]:
                what = f"has shape {list(shape)}, and {first}, to which line {line.number} ties it,"
                self.misfits.append((name, f"{what} {list(self.shapes[first])}"))
            else:
                every = (slice(None),) * len(shape)
                one, other = (Move(n, shape, every, tuple(range(len(shape))), shape, every) for n in (first, name))
                self.checks.append(Equal(line, first, shape, [one], name, [other]))

    def _copy(self) -> None:
        """Fill right arrays as those that they are tied to."""
        every: tuple[dict[str, Any], ...] = (
            self.parts, self.sums, self.stated, self.dtypes_of, self.zeroed, self.constants, self.blank
        )  # fmt: skip
        for name, (line, first) in self.copies.items():
            if name in self.targets or first not in self.targets:
                what = "which no line fills" if first not in self.targets else "and is filled by another line too"
                self.misfits.append((name, f"is tied to {first} by line {line.number}, {what}"))
                continue
            self.targets[name] = (line, self.targets[first][1])
            for filled in every:
                if first in filled:
                    filled[name] = filled[first]

    def _constant(self, env: Env) -> None:
        """Check that left arrays, which nothing on the right stores, have the value of the line; or drop them."""
        constant = env.line.left.constant
        if constant is None:
            return self._make_constant(env)
        drops = env.line.arrow != "<->"
        for array, named in zip(env.line.left.arrays, env.arrays, strict=True):
            for name in named.values():
                for cell in env.line.cells(array):
                    places = self._places(env, cell, self.shapes[name], name)
                    free = tuple(place.length for place in places if place.variable)
                    select = tuple(slice(*p.span) if p.variable else p.start for p in places)
                    atoms = tuple(place.size for place in places)
                    move = Move(name, atoms, select, tuple(range(len(free))), free, (slice(None),) * len(free))
                    equal = Equal(env.line, name, free, [move], "", [], *constant)
                    if drops:
                        self.unchecked += [equal] * (not array.windowed)
                        continue
                    self.checks.append(equal)
                    self.used.setdefault(name, []).append((env.line, (atoms, tuple(p.span for p in places))))
        if drops:
            self._drop(env)

    def _make_constant(self, env: Env) -> None:
        """Fill right arrays with one value."""
        constant = env.line.right.constant or Constant(0)
        for array in map(env.line.resolved, env.line.right.arrays):
            for index in env.indices(array):
                name = fill(env.line, array, index)
                if (shape := self._shape(env, array, name)) is None:
                    continue
                for cell in env.line.cells(array):
                    places = self._places(env, cell, shape, name)
                    atoms = tuple(place.size for place in places)
                    where = tuple(whole(p) if p.variable else p.start for p in places)
                    self._fill(env.line, name, [Fill(atoms, where, constant.value)])
                    self.made.setdefault(name, []).append((env.line, (atoms, tuple(p.span for p in places))))
                    if env.line.kind == "drop":
                        self.blank[name] = None
                    else:
                        self.constants[name] = None
                        self.stated.setdefault(name, []).append((constant.dtype, env.line.number))

    def _fill(self, line: Line, name: str, parts: Sequence[Move | Fill]) -> None:
        self.parts.setdefault(name, (line, []))[1].extend(parts)

    def _moves(
        self, env: Env, pairs: Sequence[tuple[Cell, Cell]], use: bool = True, make: bool = True
    ) -> dict[str, list[Move]]:
        """Return the moves of cells that correspond, by right name.

        Args:
          use, make: count what the left arrays give, what the right ones get; False where it was counted before.
        """
        by_operand: dict[str, list[Move]] = {}
        for left, right in pairs:
            array = env.line.resolved(right.array)
            for left_key, source in env.named(left.array).items():
                given = {**dict(env.key), **dict(left_key)}
                for index in env.indices(array, given):
                    name = fill(env.line, array, index)
                    if (shape := self._shape(env, array, name)) is None:
                        continue
                    fixed = {v: n for v, n in (given | index).items() if v in env.line.axes}
                    move, taken, filled = self._between(
                        env, left, right, (source, name), (self.shapes[source], shape), fixed
                    )
                    by_operand.setdefault(name, []).append(move)
                    if use:
                        self.used.setdefault(source, []).append((env.line, taken))
                    if make:
                        self.made.setdefault(name, []).append((env.line, filled))
        return by_operand

    def _between(
        self, env: Env, left: Cell, right: Cell, names: tuple[str, str], shapes: tuple[Shape, Shape], fixed: Index
    ) -> tuple[Move, Box, Box]:
        """Return the move from one cell to another, and the ranges it takes and fills; blocks share all but names.

        Args:
          fixed: the index of each axis that stands in a name.
        """
        axes = left.array.axes, left.choice, right.array.axes, right.choice
        key = (*axes, shapes, tuple(fixed.items()), tuple(env.sizes.items()))
        if key not in self.known:
            starts, ends = (self._places(env, c, s, n) for c, s, n in zip((left, right), shapes, names, strict=True))
            self.known[key] = between(names[0], starts, ends, fixed), box(starts, fixed), box(ends, fixed)
        move, taken, filled = self.known[key]
        return move._replace(source=names[0]), taken, filled

    def _shape(self, env: Env, array: Signature, name: str) -> Shape | None:
        """Return the shape of a right array, which all its lines state alike; None, and a misfit, where they do not."""
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

    def _measure(self) -> None:
        """Collect the lengths of the right arrays' dimensions from all lines: a window alone does not tell them."""
        for env in self.envs:
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
        """Tell what a cell takes of each atom of its array."""
        places = []
        for d, dim in enumerate(cell.array.axes or ()):
            base = 0
            if dim.window is not None:
                base = slice(*dim.window).indices(shape[d])[0]
                if not dim.factors:
                    places.append(Place(shape[d], "", base, 1))
            extents = [extent(factor, env.sizes) for factor in dim.factors]
            known = math.prod(length for length in extents if length is not None)
            for f, factor in enumerate(dim.factors):
                chosen = cell.choice[d][f]
                size = shape[d] if dim.window is not None else extents[f]
                size = shape[d] // known if size is None else size  # of a window with fixed ends
                inside = slice(*(factor[0].window or (None, None))).indices(size)[0]
                start = base + inside + total(factor[:chosen], env.sizes)
                places.append(self._place(env, factor[chosen], size, start, name))
        return places

    def _place(self, env: Env, part: Part, size: int, start: int, name: str) -> Place:
        length = env.sizes[part.name] if part.name else 1
        order = self.table.orders[part.order] if part.order else None
        if order is not None and len(order) != length:
            problem = f"has {length} {part.name}, and [@{part.order}] orders {len(order)} (line {env.line.number})"
            self.misfits.append((name, problem))
            order = None
        return Place(size, part.name, start, length, part.backwards, order)

    def _dtype(self, name: str) -> str:
        """Return the dtype that a constant states for a right array; "" where none does."""
        return self.stated[name][0][0] if name in self.stated else ""

    def _check_divided(self) -> None:
        """Check that each element of each left array is used once, and each of each right array filled once."""
        for arrays, shapes, verb in (
            (self.used, self.shapes, "used"),
            (self.made, {name: shape for name, (_, shape) in self.targets.items()}, "filled"),
        ):
            for name, boxes in arrays.items():
                if problem := gap(boxes, math.prod(shapes[name])):
                    self.misfits.append((name, problem.replace("used", verb)))
