"""Write a map of elements as the lines of a Table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from specs.paths import Hole, escaped
from specs.table import Table, TableError

from .axes import Atom, Axes, relate
from .tape import Array
from .walk import Elements

PIECES = "hdgerabfjkmnpqxyz"  # names for pieces of composed axes
LETTERS = {
    "torch": ("", "c", "oi", "oiw", "oihw", "oithw"),
    "paddle": ("", "c", "io", "oiw", "oihw", "oithw"),
    "": ("", "c", "io", "wio", "hwio", "thwio"),
}  # names for the axes of arrays as the frameworks order them, by rank; "" for JAX
NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Row:
    """A line before it is folded: the arrays of both sides as (path as written, axes)."""

    left: tuple[tuple[str, str], ...]
    right: tuple[tuple[str, str], ...]
    joins: tuple[str, str] = (", ", ", ")

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
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def layout(self, shapes: Any, like: Any = None, sizes: Any = None) -> Any:
        if like is None and not sizes and all(shapes.get(name) == shape for name, shape in self.known.items()):
            like, sizes = self.like, self.sizes
        return super().layout(shapes, like, sizes)


class Names:
    """Names for pieces of axes: compositions of the same lengths have the same ones, others have others."""

    def __init__(self, sides: tuple[str, str], ranks: set[int]):
        self.sides = sides
        self.lengths: dict[str, int] = {}
        self._known: dict[tuple[int, ...], list[str]] = {}
        self._spare = [letter for letter in PIECES if letter != "h" or not ranks & {4, 5}]

    def letters(self, side: int, rank: int) -> str:
        table = LETTERS.get(self.sides[side], LETTERS[""])
        return table[rank] if rank < len(table) else PIECES

    def pieces(self, atoms: Sequence[Atom]) -> list[str]:
        key = tuple(atom.length for atom in atoms)
        if key not in self._known:
            names = [self._spare.pop(0) if self._spare else f"a{len(self.lengths)}_{k}" for k in range(len(key))]
            self._known[key] = names
            self.lengths.update(zip(names, key, strict=True))
        return self._known[key]


def fold(
    lefts: Elements,
    rights: Elements,
    found: Array,
    sides: tuple[str, str],
    ties: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
    extra: Sequence[str] = (),
    others: tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]] = ({}, {}),
) -> tuple[DerivedTable, list[str]]:
    """(table, right parameters that no line describes).

    Args:
      found: the left element of each right one, 0 where there is none.
      ties: on each side, names of arrays -> the parameter that they share.
      extra: lines for arrays that are no parameters; others: the shapes of those, on each side.
    """
    names = Names(sides, {len(shape) for shape in (*lefts.shapes.values(), *rights.shapes.values())})
    rows: list[tuple[int, Row]] = []
    used: set[str] = set()
    missing: list[str] = []
    for left_names, right_names in _components(lefts, rights, found):
        row = _row(lefts, rights, found, left_names, right_names, names) if left_names else None
        if row is None:
            missing += right_names
        else:
            first = min(lefts.names.index(name) for name in left_names)
            rows.append((first, _with_ties(row, ties)))
            used.update(left_names)
    plain = [row for _, row in sorted(rows, key=lambda item: item[0])]
    unused = [name for name in (*lefts.names, *ties[0]) if ties[0].get(name, name) not in used]
    drops = [f"{escaped(name)} -> drop" for name in unused]
    shapes = {name: rights.shapes[name] for name in rights.names if name not in missing}
    shapes |= {name: shapes[first] for name, first in ties[1].items() if first in shapes}
    known = {**lefts.shapes, **{name: lefts.shapes[first] for name, first in ties[0].items()}, **others[0]}
    for attempt in (_folded(plain), plain):
        text = "\n".join([f"table 1: {sides[0]} <-> {sides[1]}", *map(str, attempt), *drops, *extra]) + "\n"
        table = Table.parse(text)
        arrays = (array for line in table.lines for array in (*line.left.arrays, *line.right.arrays))
        written = {part.name for array in arrays for part in array.parts()}
        sizes = {name: length for name, length in names.lengths.items() if name in written}
        derived = DerivedTable(table.lines, table.sides, known=known, like={**shapes, **others[1]}, sizes=sizes)
        if _says(derived, lefts, rights, found, known, ties[0]):
            return derived, missing
    raise AssertionError("the lines do not say what was found: this is a fault of fold\n" + text)


def _with_ties(row: Row, ties: tuple[Mapping[str, str], Mapping[str, str]]) -> Row:
    """The row with the names that share its array on a side that has one array."""
    for side in (0, 1):
        arrays = (row.left, row.right)[side]
        shared = [escaped(name) for name, first in ties[side].items() if escaped(first) == arrays[0][0]]
        if shared and (len(arrays) == 1 or row.joins[side] == " = "):
            more = (*arrays, *((name, arrays[0][1]) for name in shared))
            joins = (" = ", row.joins[1]) if side == 0 else (row.joins[0], " = ")
            row = replace(row, joins=joins, **{("left", "right")[side]: more})
    return row


def _says(
    table: Table, lefts: Elements, rights: Elements, found: Array, known: Mapping[str, Any], ties: Mapping[str, str]
) -> bool:
    """Whether the table moves element numbers as the map does."""
    arrays = {name: np.zeros(shape) for name, shape in known.items()}
    arrays |= {name: lefts.numbers(ties.get(name, name)) for name in (*lefts.names, *ties)}
    try:
        moved = table.apply(arrays)
    except TableError:
        return False
    return all(
        np.array_equal(array, found[rights.numbers(name).astype(np.int64)])
        for name, array in moved.items()
        if name in rights.shapes
    )


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
    lefts: Elements, rights: Elements, found: Array, left_names: list[str], right_names: list[str], names: Names
) -> Row | None:
    if len(right_names) == 1:
        name = right_names[0]
        return _many_to_one(lefts, left_names, name, found[rights.numbers(name).astype(np.int64)], names, 0)
    if len(left_names) > 1:
        return None
    copies = [found[rights.numbers(name).astype(np.int64)] for name in right_names]
    if all(np.array_equal(np.unique(copy), np.unique(copies[0])) for copy in copies):
        return _tied(lefts, left_names, right_names, copies, names)
    back = np.zeros(len(lefts.values), np.int64)
    back[found[found > 0]] = np.flatnonzero(found)
    numbers = back[lefts.numbers(left_names[0]).astype(np.int64)]
    row = _many_to_one(rights, right_names, left_names[0], numbers, names, 1)
    return row and row.reverse()


def _tied(
    lefts: Elements, left_names: list[str], right_names: list[str], copies: list[Array], names: Names
) -> Row | None:
    rows = [
        _many_to_one(lefts, left_names, name, copy, names, 0) for name, copy in zip(right_names, copies, strict=True)
    ]
    whole = [row for row in rows if row is not None and rows[0] is not None and row.left == rows[0].left]
    if len(whole) < len(rows):
        return None
    return Row(whole[0].left, tuple(row.right[0] for row in whole), (", ", " = "))


def _many_to_one(
    sources: Elements, source_names: list[str], target: str, numbers: Array, names: Names, side: int
) -> Row | None:
    """Write the line for one array that consists of one or several others.

    Args:
      numbers: of the sources' elements, in the shape of the target.
      side: the side of the sources.
    """
    if (numbers == 0).any():
        return None
    source_names = sorted(source_names, key=lambda name: int(np.isin(numbers, sources.numbers(name)).argmax()))
    shapes = {sources.shapes[name] for name in source_names}
    grid = _grid(source_names)
    if grid is None or len(shapes) > 1:
        return _joined(sources, source_names, target, numbers, names, side)
    path, cells, counts = grid
    shape = next(iter(shapes))
    size = int(np.prod(shape, dtype=int))
    stacked = np.full(numbers.shape, -1)
    for name in source_names:
        first = int(sources.numbers(name).reshape(-1)[0])
        inside = (numbers >= first) & (numbers < first + size)
        stacked[inside] = numbers[inside] - first + cells[name] * size
    axes = relate(stacked, (*counts.values(), *shape))
    if axes is None or any(axes.windows[: len(counts)]) or any(len(atoms) != 1 for atoms in axes.source[: len(counts)]):
        return _joined(sources, source_names, target, numbers, names, side) if counts else None
    for name, (atom,) in zip(counts, axes.source[: len(counts)], strict=True):
        atom.name = name
    _name(axes, len(counts), names, side)
    source = [
        _composed(atoms, signs=True) + (f"[{window[0]}:{window[1]}]" if window else "")
        for atoms, window in zip(axes.source[len(counts) :], axes.windows[len(counts) :], strict=True)
    ]
    return Row(((path, " ".join(source)),), ((escaped(target), " ".join(map(_composed, axes.target))),))


def _grid(names: Sequence[str]) -> tuple[str, dict[str, int], dict[str, int]] | None:
    """Names as one path with holes: (path, place of each name in the grid of the holes, lengths of the holes).

    Numbers count in {l}; words are listed in {s=...} in the order of `names`.
    """
    splits: list[list[list[str]]] = [[re.split(f"({marks})", name) for name in names] for marks in ("[./_]", "[./]")]
    for split in [*splits, [list(_around(name, names)) for name in names]]:
        if len({len(words) for words in split}) == 1 and (found := _cells(names, split)):
            return found
    return None


def _cells(names: Sequence[str], split: Sequence[Sequence[str]]) -> tuple[str, dict[str, int], dict[str, int]] | None:
    """The same for names that are split into words; None where not every combination of words is a name."""
    spare, pieces, counts, cells = iter("sruv"), list(map(escaped, split[0])), dict[str, int](), dict.fromkeys(names, 0)
    for p, words in enumerate(list(dict.fromkeys(column)) for column in zip(*split, strict=True)):
        if len(words) == 1:
            continue
        if not all(words) or len(counts) == 4:
            return None
        numbers = sorted(map(int, words)) if all(re.fullmatch(r"0|[1-9]\d*", word) for word in words) else []
        counting = bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers))) and "l" not in counts
        if counting:
            words = list(map(str, numbers))
        hole = Hole("l", 1, numbers[0]) if counting else Hole(next(spare), values=tuple(words))
        for name, part in zip(names, split, strict=True):
            cells[name] = cells[name] * len(words) + words.index(part[p])
        pieces[p], counts[hole.name] = str(hole), len(words)
    if len(names) != np.prod([*counts.values(), 1]) or sorted(cells.values()) != list(range(len(names))):
        return None
    return "".join(pieces), cells, counts


def _around(name: str, names: Sequence[str]) -> tuple[str, str, str]:
    """What all names begin with, the rest of this one, and what all end with."""
    prefix = re.sub(r"[A-Za-z0-9]+$", "", _shared(names))
    suffix = re.sub(r"^[A-Za-z0-9]+", "", _shared([other[len(prefix) :][::-1] for other in names])[::-1])
    return prefix, name[len(prefix) : len(name) - len(suffix)], suffix


def _shared(texts: Sequence[str]) -> str:
    """The characters with which all texts begin."""
    count = next((k for k, c in enumerate(zip(*texts, strict=False)) if len(set(c)) > 1), min(map(len, texts)))
    return texts[0][:count]


def _name(axes: Axes, stacked: int, names: Names, side: int) -> None:
    """Name the pieces by the side that composes them: plain axes by their place, compositions by their lengths."""
    own = axes.source[stacked:]
    reference, of = (own, side) if len(own) <= len(axes.target) else (axes.target, 1 - side)
    letters = names.letters(of, len(reference))
    for letter, atoms in zip(letters, reference, strict=False):
        unnamed = [atom for atom in atoms if not atom.name]
        if len(atoms) == 1 and unnamed:
            unnamed[0].name = letter
        elif unnamed:
            for atom, name in zip(unnamed, names.pieces(unnamed), strict=True):
                atom.name = name
    for atoms in axes.source:
        for atom in atoms:
            atom.name = atom.name or names.pieces([atom])[0]


def _composed(atoms: Sequence[Atom], signs: bool = False) -> str:
    texts = ["-" * (atom.backwards and signs) + atom.name for atom in atoms]
    return texts[0] if len(texts) == 1 else f"({' '.join(texts)})" if texts else "1"


def _joined(
    sources: Elements, source_names: list[str], target: str, numbers: Array, names: Names, side: int
) -> Row | None:
    """Arrays that follow each other along one axis of the target: `a: o i, b: p i <-> target: (o+p) i`."""
    for axis in range(numbers.ndim):
        owner = np.searchsorted(sources.starts, np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1), "right")
        if not (owner == owner[:, :1]).all() or np.count_nonzero(np.diff(owner[:, 0])) != len(source_names) - 1:
            continue
        edges = np.flatnonzero(np.diff(owner[:, 0])) + 1
        lengths = np.diff([0, *edges, numbers.shape[axis]])
        parts = names.pieces([Atom(int(length), axis, 1) for length in lengths])
        arrays, target_axes = list[tuple[str, str]](), list[list[str]]()
        for k, (name, part) in enumerate(zip(source_names, np.split(numbers, edges, axis), strict=True)):
            axes = relate(part - int(sources.numbers(name).reshape(-1)[0]), sources.shapes[name])
            if axes is None or any(axes.windows) or len(axes.target[axis]) != 1:
                return None
            axes.target[axis][0].name = parts[k]
            _name(axes, 0, names, side)
            arrays.append((escaped(name), " ".join(_composed(atoms, signs=True) for atoms in axes.source)))
            target_axes.append(list(map(_composed, axes.target)))
        rest = {tuple(text for d, text in enumerate(texts) if d != axis) for texts in target_axes}
        if len(rest) > 1:
            return None
        total = f"({'+'.join(texts[axis] for texts in target_axes)})"
        text = " ".join(total if d == axis else t for d, t in enumerate(target_axes[0]))
        return Row(tuple(arrays), ((escaped(target), text),))
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

    return blank(row.left), blank(row.right), row.joins


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
