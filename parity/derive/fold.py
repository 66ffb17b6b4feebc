"""Write a map of elements as the lines of a Table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from specs.signature import Hole, escaped
from specs.table import Table, TableError

from .axes import Atom, Axes, relate
from .tape import Array
from .walk import Elements

SPARE = "hdgersuvmnpqxyz"  # names for pieces of axes
NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Row:
    """A line before it is folded: the arrays of both sides as (path as written, axes)."""

    left: tuple[tuple[str, str], ...]
    right: tuple[tuple[str, str], ...]
    joins: tuple[str, str] = (", ", ", ")
    tail: str = ""

    def reverse(self) -> Row:
        return replace(self, left=self.right, right=self.left, joins=self.joins[::-1])

    def __str__(self) -> str:
        sides = [
            join.join(f"{path}: {axes}".strip() for path, axes in side)
            for side, join in zip((self.left, self.right), self.joins, strict=True)
        ]
        return " <-> ".join(sides)


@dataclass(frozen=True)
class DerivedTable(Table):
    """A Table that knows the shapes it was derived from: for them no sizes need be given."""

    known: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)
    like: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)

    def layout(self, shapes: Any, like: Any = None, sizes: Any = None) -> Any:
        if like is None and not sizes and all(shapes.get(name) == shape for name, shape in self.known.items()):
            like = self.like
        return super().layout(shapes, like, sizes)


def fold(
    lefts: Elements, rights: Elements, found: Array, sides: tuple[str, str], extra: Sequence[str], others: Any
) -> tuple[DerivedTable, list[str]]:
    """(table, right parameters that no line describes).

    Args:
      found: the left element of each right one, 0 where there is none.
      extra: lines for arrays that are no parameters.
      others: (left, right) shapes of those arrays.
    """
    rows, missing = [], []
    for left_names, right_names in _components(lefts, rights, found):
        row = _row(lefts, rights, found, left_names, right_names, sides) if left_names else None
        if row is None:
            missing += right_names
        else:
            rows.append(row)
    used = set(lefts.owners(found))
    drops = [f"{escaped(name)} -> drop" for name in lefts.names if name not in used]
    shapes = {name: rights.shapes[name] for name in rights.names if name not in missing}
    for attempt in (_folded(rows), rows):
        text = "\n".join([f"table 1: {sides[0]} <-> {sides[1]}", *map(str, attempt), *drops, *extra]) + "\n"
        table = Table.parse(text)
        derived = DerivedTable(
            table.lines, table.sides, known={**lefts.shapes, **others[0]}, like={**shapes, **others[1]}
        )
        if _says(derived, lefts, rights, found, shapes, others[0]):
            return derived, missing
    raise AssertionError("the lines do not say what was found: this is a fault of fold")


def _says(table: Table, lefts: Elements, rights: Elements, found: Array, shapes: Any, others: Any) -> bool:
    """Whether the table moves element numbers as the map does."""
    arrays = {name: lefts.numbers(name) for name in lefts.names}
    arrays |= {name: np.zeros(shape) for name, shape in others.items()}
    try:
        moved = table.apply(arrays)
    except TableError:
        if os.environ.get("DERIVE_DEBUG"):
            raise
        return False
    return all(np.array_equal(moved[name], found[rights.numbers(name).astype(np.int64)]) for name in shapes)


def _components(lefts: Elements, rights: Elements, found: Array) -> Iterator[tuple[list[str], list[str]]]:
    """Parameters of both sides that share elements, in the right side's order."""
    owners = {name: lefts.owners(found[rights.numbers(name).astype(np.int64)]) for name in rights.names}
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
        whole = all((found[rights.numbers(name).astype(np.int64)] > 0).all() for name in right_names)
        yield (left_names if whole else []), right_names


def _row(
    lefts: Elements, rights: Elements, found: Array, left_names: list[str], right_names: list[str], sides: Any
) -> Row | None:
    if len(right_names) == 1:
        name = right_names[0]
        numbers = found[rights.numbers(name).astype(np.int64)]
        return _many_to_one(lefts, left_names, name, numbers, sides[0])
    if len(left_names) == 1:
        copies = [found[rights.numbers(name).astype(np.int64)] for name in right_names]
        if all(sorted(copy.ravel()) == sorted(copies[0].ravel()) for copy in copies):
            return _tied(lefts, left_names, right_names, copies, sides[0])
        back = np.zeros(len(lefts.values), np.int64)
        back[found[found > 0]] = np.flatnonzero(found)
        numbers = back[lefts.numbers(left_names[0]).astype(np.int64)]
        row = _many_to_one(rights, right_names, left_names[0], numbers, sides[1])
        return row and row.reverse()
    return None


def _tied(lefts: Elements, left_names: list[str], right_names: list[str], copies: list[Array], side: str) -> Row | None:
    rows = [
        _many_to_one(lefts, left_names, name, copy, side) for name, copy in zip(right_names, copies, strict=True)
    ]
    if any(row is None or row.left != rows[0].left for row in rows if rows[0]):  # type: ignore[union-attr]
        return None
    return Row(rows[0].left, tuple(row.right[0] for row in rows if row), (", ", " = "))  # type: ignore[union-attr]


def _many_to_one(sources: Elements, names: list[str], target: str, numbers: Array, side: str) -> Row | None:
    """A line for one array that is made of one or several others. `numbers` are those of the sources' elements."""
    if (numbers == 0).any():
        return None
    names = sorted(names, key=lambda name: int(np.flatnonzero(np.isin(numbers, sources.numbers(name)))[0]))
    shapes = {sources.shapes[name] for name in names}
    if len(names) == 1:
        start = int(sources.numbers(names[0]).reshape(-1)[0])
        axes = relate(numbers - start, sources.shapes[names[0]])
        return axes and _written([escaped(names[0])], target, axes, side, None)
    if len(shapes) == 1:
        shape = next(iter(shapes))
        size = int(np.prod(shape, dtype=int))
        stacked = np.full(numbers.shape, -1)
        for k, name in enumerate(names):
            first = int(sources.numbers(name).reshape(-1)[0])
            inside = (numbers >= first) & (numbers < first + size)
            stacked[inside] = numbers[inside] - first + k * size
        axes = relate(stacked, (len(names), *shape))
        hole = _hole(names)
        if axes and hole and not any(axes.windows) and len(axes.source[0]) == 1:
            return _written([hole], target, axes, side, axes.source[0][0])
    return _joined(sources, names, target, numbers, side)


def _hole(names: list[str]) -> str | None:
    """Names that differ in one place, as a path with a hole there."""
    prefix = os.path.commonprefix(names)
    suffix = os.path.commonprefix([name[len(prefix) :][::-1] for name in names])[::-1]
    prefix = re.sub(r"[A-Za-z0-9]+$", "", prefix)
    suffix = re.sub(r"^[A-Za-z0-9]+", "", suffix)
    words = tuple(name[len(prefix) : len(name) - len(suffix)] for name in names)
    if not all(words) or len(set(words)) < len(words):
        return None
    hole = Hole("l") if words == tuple(map(str, range(len(words)))) else Hole("s", values=words)
    return f"{escaped(prefix)}{hole}{escaped(suffix)}"


def _names(axes: Axes, side: str, stacked: Atom | None, hole: str) -> None:
    """Name the pieces: o and i of a matrix, h and w of an image, and spare letters for compositions."""
    skip = 1 if stacked else 0
    rank = len(axes.source) - skip
    plain = {0: "", 1: "c", 2: "oi", 3: "oiw", 4: "oihw", 5: "oithw"}.get(rank, SPARE)
    if side not in ("torch",) and rank >= 2 and rank < 6:
        plain = {"paddle": "io" if rank == 2 else plain}.get(side, plain[2:] + "io")
    if stacked:
        stacked.name = "l" if "{l}" in hole else "s"
    taken = {stacked.name} if stacked else set()
    simple = {plain[k] for k in range(rank) if len(axes.source[k + skip]) == 1}
    spare = (letter for letter in SPARE if letter not in simple | taken)
    for k, atoms in enumerate(axes.source[skip:]):
        for atom in atoms:
            atom.name = plain[k] if len(atoms) == 1 else next(spare)


def _written(paths: list[str], target: str, axes: Axes, side: str, stacked: Atom | None) -> Row:
    _names(axes, side, stacked, paths[0])
    source = [
        _composed(atoms, signs=True) + (f"[{window[0]}:{window[1]}]" if window else "")
        for atoms, window in zip(axes.source, axes.windows, strict=True)
    ][1 if stacked else 0 :]
    return Row(
        tuple((path, " ".join(source)) for path in paths),
        ((escaped(target), " ".join(_composed(atoms) for atoms in axes.target)),),
    )


def _composed(atoms: list[Atom], signs: bool = False) -> str:
    texts = ["-" * (atom.backwards and signs) + atom.name for atom in atoms]
    return texts[0] if len(texts) == 1 else f"({' '.join(texts)})" if texts else "1"


def _joined(sources: Elements, names: list[str], target: str, numbers: Array, side: str) -> Row | None:
    """Arrays that follow each other along one axis of the target: `a: o i, b: p i <-> target: (o+p) i`."""
    for axis in range(numbers.ndim):
        owner = np.searchsorted(sources.starts, np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1), "right")
        if not (owner == owner[:, :1]).all() or np.count_nonzero(np.diff(owner[:, 0])) != len(names) - 1:
            continue
        edges = np.flatnonzero(np.diff(owner[:, 0])) + 1
        left, right = [], None
        for k, (name, part) in enumerate(zip(names, np.split(numbers, edges, axis), strict=True)):
            start = int(sources.numbers(name).reshape(-1)[0])
            axes = relate(part - start, sources.shapes[name])
            if axes is None or any(axes.windows) or len(axes.target[axis]) != 1:
                return None
            _names(axes, side, None, "")
            axes.target[axis][0].name = "abcdefgjk"[k]
            left.append((escaped(name), " ".join(_composed(atoms, signs=True) for atoms in axes.source)))
            texts = [_composed(atoms) for atoms in axes.target]
            if right is None:
                right = [[text] for text in texts]
            elif any(text != old[0] for d, (text, old) in enumerate(zip(texts, right, strict=True)) if d != axis):
                return None
            else:
                right[axis].append(texts[axis])
        if right:
            text = " ".join(t[0] if d != axis else f"({'+'.join(t)})" for d, t in enumerate(right))
            return Row(tuple(left), ((escaped(target), text),))
    return None


# Folding of numbered blocks


def _folded(rows: list[Row]) -> list[Row]:
    """Rows that differ in numbers alone as one with {i}, where the numbers count from 0 without a gap."""
    groups: dict[Any, list[tuple[tuple[int, ...], Row]]] = {}
    for row in rows:
        numbers = tuple(int(n) for path, _ in (*row.left, *row.right) for n in NUMBER.findall(_bare(path)))
        groups.setdefault(_template(row), []).append((numbers, row))
    return [row for group in groups.values() for row in _folded_group(group)]


def _bare(path: str) -> str:
    """The path without its holes, whose numbers do not count."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def _template(row: Row) -> Any:
    def blank(side: Any) -> Any:
        return tuple((_replaced(path, lambda _: "#"), axes) for path, axes in side)

    return blank(row.left), blank(row.right), row.joins, row.tail


def _replaced(path: str, by: Any) -> str:
    """The path with each number outside of holes replaced."""
    pieces = re.split(r"(\{[^}]*\})", path)
    return "".join(piece if k % 2 else NUMBER.sub(by, piece) for k, piece in enumerate(pieces))


def _folded_group(group: list[tuple[tuple[int, ...], Row]]) -> list[Row]:
    group = sorted(group, key=lambda item: item[0])
    values = np.array([numbers for numbers, _ in group])
    if len(group) < 2 or not values.size:
        return [row for _, row in group]
    varying = [p for p in range(values.shape[1]) if len(set(values[:, p])) > 1]
    count = np.arange(len(group))
    steps = {p: values[1, p] - values[0, p] for p in varying}
    if any(step < 1 or (values[:, p] != values[0, p] + step * count).any() for p, step in steps.items()):
        return [row for _, row in group]
    holes = {p: str(Hole("i", int(step), int(values[0, p]))) for p, step in steps.items()}
    position = iter(range(values.shape[1]))

    def fill(match: Any) -> str:
        return holes.get(next(position), match[0])

    row = group[0][1]
    left = tuple((_replaced(path, fill), axes) for path, axes in row.left)
    right = tuple((_replaced(path, fill), axes) for path, axes in row.right)
    return [replace(row, left=left, right=right)]
