"""Write lines for sums of parts of vectors, as of the biases of gates of which one side adds some alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .grids import grid
from .ranges import block, even, window
from .rows import Row

MAX_BLOCKS = 8  # of one size, as of gates, that a vector is divided into


class Part(NamedTuple):
    """Positions of a vector, from the first to before the last."""

    name: str
    first: int
    last: int


Piece = tuple[list[Part | None], list[Part | None]]  # of the right side and of the left one; None for no range


def sums(
    found: Array, plus: Array, lefts: Elements, rights: Elements, names: Sequence[str], back: str = ""
) -> list[Row] | None:
    """Return a line for each of these right vectors, or for each left one whose parts of the right ones are terms.

    Parts that are blocks of one size are written as such; else the lines state the lengths for which they hold.

    Args:
      found, plus: see Match.
      names: right vectors that share left ones through either map.
      back: the value of what they lack of the left ones, when the Table is read backwards; "" for none.
    """
    pieces: list[Piece]
    owners = lefts.owners(np.concatenate([rights.part(found, name).ravel() for name in names]))
    if any(len(of.shapes[name]) != 1 for of, some in ((rights, names), (lefts, owners)) for name in some):
        return _in_stacks(found, plus, lefts, rights, names, back)
    if all((rights.part(found, name) > 0).all() for name in names):
        terms = ((name, rights.part(found, name), rights.part(plus, name)) for name in names)
        pieces = [piece for term in terms for piece in _added(*term, lefts)]
    else:
        pieces = [*_zeros(found, lefts, rights, names)]
    sides = [
        ([part for part in right_parts if part], [part for part in left_parts if part])
        for right_parts, left_parts in pieces
    ]
    alone = [*_uncovered([part for right_parts, _ in sides for part in right_parts], rights)]
    if not sides or sides != pieces or not all(_zero(part, found, rights) for part in alone):
        return None
    if not alone and (row := _one_for_all(sides, lefts, rights)):
        return [row]
    left_blocks = _blocks([part for _, left_parts in sides for part in left_parts], lefts)
    right_blocks = _blocks([part for right_parts, _ in sides for part in right_parts], rights)
    rows = [
        Row(right=_written([part], rights, right_blocks), constant="0") for part in _one_by_one(alone, right_blocks)
    ]
    for right_parts, left_parts in sides:
        left_parts = sorted(left_parts, key=lambda part: lefts.names.index(part.name))  # in one order for all blocks
        joins = (" + " if len(left_parts) > 1 else ", ", " + " if len(right_parts) > 1 else ", ")
        rows.append(Row(_written(left_parts, lefts, left_blocks), _written(right_parts, rights, right_blocks), joins))
    rest = _one_by_one(_uncovered([part for _, left_parts in sides for part in left_parts], lefts), left_blocks)
    return [*rows, *(Row(left=_written([part], lefts, left_blocks), arrow="->", constant=back) for part in rest)]


def _in_stacks(
    found: Array, plus: Array, lefts: Elements, rights: Elements, names: Sequence[str], back: str
) -> list[Row] | None:
    """Return lines for vectors of which one side has stacks, a row for each block, if the lines of all are alike.

    That is `u.{l}.bias_ih: (1[2:] c) <-> stack: l c`.
    """
    numbers = np.concatenate([rights.part(found, name).ravel() for name in names])
    owners = lefts.owners(numbers)
    shapes = {lefts.shapes[name] for name in owners}, {rights.shapes[name] for name in names}
    side = int({len(shape) for shape in shapes[1]} != {1})
    counts = {shape[:1] for shape in shapes[side]}
    if {len(shape) for shape in shapes[side]} != {2} or {len(shape) for shape in shapes[1 - side]} != {1}:
        return None
    if len(counts) != 1 or (numbers == 0).any() or (side and numbers.min() < 0):  # zeros are added to vectors alone
        return None
    blocks = []
    for k in range(*counts.pop()):
        if side:
            blocks.append(sums(*_of_right_stacks(found, plus, lefts, rights, names, k), back))
        else:
            blocks.append(sums(*_of_left_stacks(found, plus, lefts, owners, rights, names, k), back))
    if any(rows is None or len(rows) != len(blocks[0] or ()) for rows in blocks):
        return None
    lines = [_over_blocks(rows, (rights, lefts)[side], side) for rows in zip(*filter(None, blocks), strict=True)]
    return [row for row in lines if row] if all(lines) else None


Block = tuple[Array, Array, Elements, Elements, Sequence[str]]  # what `sums` takes


def _of_right_stacks(
    found: Array, plus: Array, lefts: Elements, rights: Elements, names: Sequence[str], k: int
) -> Block:
    """Return the maps of block k of right stacks as vectors."""
    vectors = Elements({name: rights.part(found, name)[k] for name in names}, known=False)
    first, second = (np.concatenate([[0], *(rights.part(both, name)[k] for name in names)]) for both in (found, plus))
    return first, second, lefts, vectors, names


def _of_left_stacks(
    found: Array, plus: Array, lefts: Elements, owners: Sequence[str], rights: Elements, names: Sequence[str], k: int
) -> Block:
    """Return the maps of block k of left stacks as vectors, and those right vectors that are made of it."""
    vectors = Elements({name: lefts.numbers(name)[k] for name in owners}, known=False)
    number = np.zeros(len(lefts), np.int64)
    for name in owners:
        number[lefts.numbers(name)[k].astype(np.int64)] = vectors.numbers(name)
    first, second = (np.where(both > 0, number[np.maximum(both, 0)], both) for both in (found, plus))
    to = np.where(first < 0, first[np.maximum(-first, 0)], first)  # what zeros are added to
    return first, second, vectors, rights, [name for name in names if (rights.part(to, name) > 0).any()]


def _over_blocks(rows: Sequence[Row], of: Elements, side: int) -> Row | None:
    """Return one line for the same line of each block, where one side has stacks of all; None if lines differ.

    Args:
      of: the other side's arrays, one for each block. side: of the stacks.
    """
    rows = [row if side else row.reverse() for row in rows]
    first, names = rows[0], {escaped(name): name for name in of.names}
    texts = {(*(axes for _, axes in row.left), row.right, row.joins, row.arrow, row.constant) for row in rows}
    terms = [grid([names[row.left[k][0]] for row in rows]) for k in range(len(first.left))]
    holes = {tuple(cells[2]) if cells and [*cells[1].values()] == [*range(len(rows))] else () for cells in terms}
    if len(texts) > 1 or len(holes) != 1 or len(hole := holes.pop()) != 1:
        return None
    left = tuple((cells[0], axes) for cells, (_, axes) in zip(terms, first.left, strict=True) if cells)
    row = replace(first, left=left, right=tuple((path, f"{hole[0]} {axes}") for path, axes in first.right))
    return row if side else row.reverse()


def _one_for_all(
    sides: Sequence[tuple[Sequence[Part], Sequence[Part]]], lefts: Elements, rights: Elements
) -> Row | None:
    """Return one line if every right vector is a sum of the same left vectors, one block of each; else None.

    That is `bias_ih: (s c) + bias_hh: (s c) -> {s=hi|hf|hg|ho}/bias: c`.
    """
    found: dict[tuple[int, int], str] = {}  # positions of a block -> right vector
    sums = set[tuple[str, ...]]()
    for right_parts, left_parts in sides:
        name, *own = right_parts[0]
        ranges = {part[1:] for part in left_parts}
        if len(right_parts) != 1 or own != [0, rights.shapes[name][0]] or len(ranges) != 1:
            return None
        found[ranges.pop()] = name
        sums.add(tuple(sorted((part.name for part in left_parts), key=lefts.names.index)))
    terms, names = sums.pop(), [found[key] for key in sorted(found)]
    size, cells = lefts.shapes[terms[0]][0] // len(names), grid(names)
    every = [(at, at + size) for at in range(0, size * len(names), size)]
    whole = all(lefts.shapes[name] == (size * len(names),) for name in terms) and sorted(found) == every
    if sums or not whole or len(terms) < 2 or len(names) < 2 or cells is None or len(cells[2]) != 1:
        return None
    path, places, (hole,) = cells
    if [places[name] for name in names] != list(range(len(names))):
        return None
    return Row(tuple((escaped(name), f"({hole} c)") for name in terms), ((path, "c"),), (" + ", ", "))


def _added(name: str, first: Array, second: Array, lefts: Elements) -> Iterator[Piece]:
    """Yield the parts of a right vector that are sums, and those that are no sums."""
    for start, stop in itertools.pairwise(_edges(first, second)):
        yield [Part(name, start, stop)], _parts((first[start:stop], second[start:stop]), lefts)


def _edges(first: Array, second: Array) -> list[int]:
    """Return where ranges begin of which both terms are a range, or the second one is none, and the end.

    They are blocks of one size if these are few.
    """
    both = (second[1:] > 0) & (second[:-1] > 0)
    several = (np.diff(first) != 1) | (both & (np.diff(second) != 1)) | (np.diff(second > 0) != 0)
    edges = [0, *(np.flatnonzero(several) + 1).tolist(), len(first)]
    size = int(np.gcd.reduce(edges))
    if len(first) <= MAX_BLOCKS * size:
        return [*range(0, len(first) + 1, size)]
    return edges if len(edges) <= MAX_BLOCKS + 1 else [0, len(first)]


def _blocks(parts: Sequence[Part], of: Elements) -> dict[str, int]:
    """Return the size of the blocks of each vector of which all parts are one; 0 where they are not."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for name, first, last in parts:
        ranges.setdefault(name, []).append((first, last))
    return {name: even(some, of.shapes[name][0]) for name, some in ranges.items()}


def _one_by_one(parts: Iterable[Part], blocks: Mapping[str, int]) -> Iterator[Part]:
    """Yield the blocks of parts, each for itself; parts of vectors without blocks as they are."""
    for name, first, last in parts:
        size = blocks[name] or last - first
        yield from (Part(name, at, at + size) for at in range(first, last, size))


def _zeros(found: Array, lefts: Elements, rights: Elements, names: Sequence[str]) -> Iterator[Piece]:
    """Yield each left vector with the part of a right one that it becomes, and the part to which zeros are added."""
    every = np.concatenate([rights.numbers(name) for name in names]).astype(np.int64)
    for name in lefts.owners(np.maximum(found[every], 0)):
        numbers = lefts.numbers(name).astype(np.int64)
        order = {int(n): k for k, n in enumerate(numbers.ravel())}
        own = sorted((order[int(found[n])], int(n)) for n in every if int(found[n]) in order)
        zeros = {-int(found[n]): int(n) for n in every if found[n] < 0}
        places = np.array([n for _, n in own])
        others = np.array([zeros.get(int(n), 0) for n in places])
        if numbers.ndim != 1 or len(own) != len(numbers):
            yield [], [None]
            continue
        for first, last in itertools.pairwise(_edges(places, others)):  # with and without zeros
            yield _parts((places[first:last], others[first:last]), rights), [Part(name, first, last)]


def _zero(part: Part, found: Array, rights: Elements) -> bool:
    """Tell whether the elements of a part are zero themselves."""
    numbers = rights.numbers(part.name)[part.first : part.last].astype(np.int64)
    return bool((found[numbers] == -numbers).all())


def _parts(terms: Iterable[Array], of: Elements) -> list[Part | None]:
    """Return the positions of each term; None for those that are no range of one vector."""
    found: list[Part | None] = []
    for numbers in terms:
        if not numbers.any():
            continue
        owners = of.owners(numbers)
        straight = len(owners) == 1 and len(of.shapes[owners[0]]) == 1 and (np.diff(numbers) == 1).all()
        first = int(numbers[0]) - int(of.numbers(owners[0])[0]) if straight else 0
        found.append(Part(owners[0], first, first + len(numbers)) if straight and numbers[0] > 0 else None)
    return found


def _written(parts: Sequence[Part], of: Elements, blocks: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    texts = []
    for name, first, last in parts:
        length = of.shapes[name][0]
        if last - first == length:
            text = "c"
        elif blocks[name]:
            text = block("c", first, blocks[name], length)
        else:
            text = f"c={last - first}{window(first, last, length)}"
        texts.append((escaped(name), text))
    return tuple(texts)


def _uncovered(parts: Sequence[Part], of: Elements) -> Iterator[Part]:
    """Yield the ranges of the parts' vectors that no part covers."""
    for name in dict.fromkeys(part.name for part in parts):
        at = 0
        for _, first, last in sorted(part for part in parts if part.name == name):
            if first > at:
                yield Part(name, at, first)
            at = max(at, last)
        if at < of.shapes[name][0]:
            yield Part(name, at, of.shapes[name][0])
