"""Fold the rows of numbered blocks: rows that differ in numbers alone become one with {i}, or {i} and {j}."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from specs.notation.paths import Hole, normal

from .rows import DIM, Row

# Numbers of blocks: a number alone (layers.0, block_0), one behind the name of what has parts (layer1.conv.weight),
# several in one name (stage0_block1, layer1_0), one behind a word for blocks (b0_conv, layer0_norm), one in an array's
# own name (weight_ih_l0). The 1 of fc1.weight is none.
ALONE = re.compile(r"(?<![A-Za-z0-9{}])\d+(?![A-Za-z0-9])")
OF_PARTS = re.compile(r"(?<=[A-Za-z])\d+(?=[./][A-Za-z_0-9{}]+[./])")
SEVERAL = re.compile(r"(?:(?<=[./])|^)(?:[A-Za-z]+\d+_)+[A-Za-z]*\d+(?=[./])")
OF_BLOCK = re.compile(r"(?:(?<=[./])|^)(?:block|blk|layer|stage|level|cell|[bhl])\d+(?=_[A-Za-z])")
OF_ARRAY = re.compile(r"(?<=[A-Za-z])\d+(?=(?:_[A-Za-z_{}]+)?$)")
DIGITS = re.compile(r"\d+")

COUNTING = re.compile(r"\{(?P<step>\d+\*)?(?P<name>[ijk])(?:\+(?P<first>\d+))?\}")  # a hole that counts blocks
LISTING = re.compile(r"\{[ijk]=")  # a hole that lists them
LISTS = "ijk"  # names of the numbers of blocks, from the outermost list to the innermost

CLOSED = 0  # depth of rows that count one number, and state its range

Numbered = tuple[tuple[int, ...], Row]


def folded(
    rows: Sequence[Row], apart: Collection[str] = (), flat: Collection[str] = (), closed: Collection[str] = ()
) -> list[Row]:
    """Fold the rows whose numbers alone differ: blocks, blocks in stages, each stage with as many as it has.

    Args:
      apart: paths without their numbers, whose rows stay as they are.
      flat: those of which only the innermost number is folded.
      closed: those of which only one number is folded, and its range stated, since another list follows in the same
        path: {i=0..2} and {i+1} beside {i=0..2} and {i+4}.
    """
    groups: dict[Any, list[Numbered]] = {}
    for row in rows:
        if _among(row, apart):
            groups[id(row), "apart"] = [((), row)]
            continue
        places = tuple(int(n[0]) for path, _ in (*row.left, *row.right) for n in numbers(_bare(path)))
        groups.setdefault(_template(row), []).append((places, row))
    ordered = [sorted(group, key=lambda item: item[0]) for group in groups.values()]
    found = [
        _group(group, CLOSED if _among(group[0][1], closed) else 1 if _among(group[0][1], flat) else len(LISTS))
        for group in ordered
    ]
    lone = {_kind(group) for group in ordered if len(group) == 1}
    found = [
        _apart(group) if len(rows) == 1 and _in_steps(rows[0]) and _kind(group) in lone else rows
        for rows, group in zip(found, ordered, strict=True)
    ]
    lists = {key for group in found for row in group for key, _ in _lists(row, holes=True)}
    return [
        _in_list(row, lists) if len(group) == 1 and not _among(row, {*apart, *flat, *closed}) else row
        for group in found for row in group
    ]  # fmt: skip


def _in_steps(row: Row) -> bool:
    """Tell whether a row counts each second block, or fewer: {2*i}."""
    return any(match["step"] for path, _ in row.left for match in COUNTING.finditer(path))


def _kind(group: Sequence[Numbered]) -> Any:
    """Return the left arrays of rows without the numbers of blocks, and how many axes each has."""
    return tuple((normal(path), len(DIM.findall(axes or ""))) for path, axes in group[0][1].left)


def numbers(path: str) -> list[re.Match[str]]:
    """Return where a path has the numbers of blocks."""
    names = itertools.chain(*(kind.finditer(path) for kind in (SEVERAL, OF_BLOCK)))
    inside = (DIGITS.finditer(path, *name.span()) for name in names)
    every = itertools.chain(*(kind.finditer(path) for kind in (ALONE, OF_PARTS, OF_ARRAY)), *inside)
    return [match for _, match in sorted({match.start(): match for match in every}.items())]


def _among(row: Row, paths: Collection[str]) -> bool:
    return any(normal(path) in paths for path, _ in (*row.left, *row.right))


def _bare(path: str) -> str:
    """Return the path without its holes, whose numbers do not count."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def _template(row: Row) -> Any:
    def blank(side: Any) -> Any:
        return tuple((_replaced(path, lambda _: "#"), axes) for path, axes in side)

    return blank(row.left), blank(row.right), row.joins, row.arrow, row.constant, row.parts


def _replaced(path: str, by: Callable[[Any], str]) -> str:
    """Return the path with each number outside of holes replaced."""
    pieces = re.split(r"(\{[^}]*\})", path)
    text, out = "".join(piece if k % 2 == 0 else "{}" for k, piece in enumerate(pieces)), ""
    at, holes = 0, iter(pieces[1::2])
    for match in numbers(text):
        out += text[at : match.start()] + by(match)
        at = match.end()
    return re.sub(r"\{\}", lambda _: next(holes), out + text[at:]) if len(pieces) > 1 else out + text[at:]


def _group(group: Sequence[Numbered], depth: int) -> list[Row]:
    """Return one row for all where possible; else those of the first value of the outermost number, and of the rest.

    Args:
      depth: how many numbers of a row may count; CLOSED counts one.
    """
    if len(group) < 2 or not group[0][0]:
        return [row for _, row in group]
    if row := _listing(group) if depth == CLOSED else _counted(group, depth):
        return [row]
    varying = [p for p, column in enumerate(zip(*(places for places, _ in group), strict=True)) if len({*column}) > 1]
    parts = _parts(group, varying[0])
    if len(parts) == len(group):
        return _apart(group)
    if depth <= 1 or not _even(parts, varying[0]):
        return [row for part in parts for row in _group(part, depth)]
    rows = [*_group(parts[0], depth), *_group([item for part in parts[1:] for item in part], depth)]
    across = (_across(_parts(group, p), depth) for p in varying[1:] if _on_both_sides(group, p))
    return min([rows, *filter(None, across)], key=lambda found: (sum(map(_lists_numbers, found)), len(found)))


def _lists_numbers(row: Row) -> bool:
    return any(LISTING.search(path) for path, _ in row.left)


def _on_both_sides(group: Sequence[Numbered], at: int) -> bool:
    """Tell whether the number at a place of the left paths stands in the right ones too, as it is."""
    count = sum(len(numbers(_bare(path))) for path, _ in group[0][1].left)
    return at < count and any(
        all(places[at] == places[p] for places, _ in group) for p in range(count, len(group[0][0]))
    )


def _parts(group: Sequence[Numbered], at: int) -> list[list[Numbered]]:
    """Divide rows by the number at a place."""
    return [[item for item in group if item[0][at] == value] for value in dict.fromkeys(item[0][at] for item in group)]


def _across(parts: Sequence[Sequence[Numbered]], depth: int) -> list[Row]:
    """Return a row for each number of an inner list, such as a Sequential in each block; [] where blocks lack some.

    Three or more behind the first may be one row, as where each second layer has parameters.
    """
    rest = _counted([item for part in parts[1:] for item in part], depth) if len(parts) > 3 else None
    rows = [_counted(parts[0], depth), rest] if rest else [_counted(part, depth) for part in parts]
    found = [row for row in rows if row]
    return found if len(found) == len(rows) else []


def _apart(group: Sequence[Numbered]) -> list[Row]:
    """Return rows that list their numbers: nothing shows which further blocks would have."""
    for count in range(len(group), 1, -1):
        if row := _listing(group[:count]):
            return [row, *_apart(group[count:])]
    return [group[0][1], *_apart(group[1:])] if group else []


def _listing(group: Sequence[Numbered]) -> Row | None:
    """Return one row that lists the numbers of its blocks, {i=0|1|3}; None if two numbers of one path count apart."""
    columns = {p: column for p, column in enumerate(zip(*(of for of, _ in group), strict=True)) if len({*column}) > 1}
    if any(len({*column}) < len(group) for column in columns.values()) or _in_one_path(group[0][1], columns):
        return None
    holes: dict[int, str] = {}
    # {i} and {i+1} count from what the first hole lists: beside another list they would be ambiguous
    counting = all(np.array_equal(column, np.arange(len(group)) + column[0]) for column in columns.values())
    counting = counting and next(iter(columns.values()))[0] == 0
    for p, column in columns.items():
        hole = Hole(LISTS[0], shift=column[0]) if holes and counting else Hole(LISTS[0], values=(*map(str, column),))
        holes[p] = str(hole)
    return _filled(group[0][1], holes)


def _counted(group: Sequence[Numbered], depth: int) -> Row | None:
    """Return one row for all if their numbers count blocks, or lists of blocks; None if they do not.

    Numbers that grow together are one. In each list the blocks have to count from the same number by the same step,
    but lists may have different lengths: stages of 1, 3 and 2 blocks become {i}.{j}.
    """
    values = np.array([counted for counted, _ in group])
    alike: dict[tuple[int, ...], dict[int, tuple[int, int]]] = {}  # a block's places -> {position: its scale and shift}
    for p in range(values.shape[1]):
        first = int(values[:, p].min())
        if step := int(np.gcd.reduce(values[:, p] - first)):
            places = tuple(int(n) for n in (values[:, p] - first) // step)
            alike.setdefault(places, {})[p] = (step, first)
    if len(alike) > depth or any(_is_size(group, p) for column in alike.values() for p in column):
        return None
    for order in itertools.permutations(alike):
        if _complete(list(zip(*order, strict=True))):
            named = zip(LISTS, order, strict=False)
            holes = {p: str(Hole(name, *of)) for name, places in named for p, of in alike[places].items()}
            return _filled(group[0][1], holes)
    return None


def _is_size(group: Sequence[Numbered], at: int) -> bool:
    """Tell whether a number may be a size, such as those of b4 and b8: one in a word, of two values with a gap."""
    values = {places[at] for places, _ in group}
    row = group[0][1]
    found = [match for path, _ in (*row.left, *row.right) for match in numbers(_bare(path))][at]
    return len(values) == 2 and max(values) - min(values) > 1 and found.string[: found.start()][-1:].isalpha()


def _even(parts: Sequence[Sequence[Numbered]], at: int) -> bool:
    """Tell whether the numbers that differ from part to part grow evenly with the one at a place."""
    rows = np.array([part[0][0] for part in parts])
    whole = [p for p in range(rows.shape[1]) if all(len({places[p] for places, _ in part}) == 1 for part in parts)]
    steps = np.diff(rows[:, whole], axis=0) * (rows[1, at] - rows[0, at])
    return bool((steps == np.diff(rows[:, [at]], axis=0) * (rows[1, whole] - rows[0, whole])).all())


def _in_one_path(row: Row, columns: Mapping[int, tuple[int, ...]]) -> bool:
    """Tell whether one path has two of these numbers that differ: a stated range holds for one of them alone.

    Args:
      columns: the values of each number, by its place among all numbers of the row.
    """
    first = 0
    for path, _ in (*row.left, *row.right):
        last = first + len(numbers(_bare(path)))
        if len({of for p, of in columns.items() if first <= p < last}) > 1:
            return True
        first = last
    return False


def _complete(places: Sequence[tuple[int, ...]]) -> bool:
    """Tell whether every list in a tree of lists counts 0, 1, 2 ... without a gap."""
    lists: dict[tuple[int, ...], set[int]] = {}
    for place in places:
        for depth, number in enumerate(place):
            lists.setdefault(place[:depth], set()).add(number)
    return len({*places}) == len(places) and all(max(found) == len(found) - 1 for found in lists.values())


def _in_list(row: Row, lists: Collection[Any]) -> Row:
    """Return the row of a list with one block as that of a list, if other rows show that it is one.

    decoder.layers.0.norm.weight becomes decoder.layers.{i}.norm.weight if encoder.layers.{i}.norm.weight is there.
    """
    for key, matches in _lists(row):
        if key not in lists:
            continue
        used = {hole for path, _ in (*row.left, *row.right) for hole in re.findall(r"\{[^}=]*?([ijk])\b", path)}
        name = next((name for name in LISTS if name not in used), None)
        if name is None:
            continue
        arrays = [
            (path[: match.start()] + str(Hole(name, 1, int(match[0]))) + path[match.end() :], axes)
            for (path, axes), match in zip((*row.left, *row.right), matches, strict=True)
        ]
        return replace(row, left=tuple(arrays[: len(row.left)]), right=tuple(arrays[len(row.left) :]))
    return row


def _lists(row: Row, holes: bool = False) -> Iterator[tuple[Any, tuple[re.Match[str], ...]]]:
    """Yield how lists are called that a row may stand in, and where the block's number is in each path.

    Args:
      holes: whether the row has holes in the place of numbers.
    """
    arrays = (*row.left, *row.right)
    for matches in itertools.product(*([*COUNTING.finditer(path)] if holes else numbers(path) for path, _ in arrays)):
        if holes and len({match["name"] for match in matches}) > 1:
            continue
        names = []
        for (path, axes), match in zip(arrays, matches, strict=True):
            first = int(match["first"] or 0) if holes else int(match[0])
            before = re.search(r"(?:[^./]+[./]|[^./]*)$", path[: match.start()])
            names.append((before[0] if before else "", first, path[match.end() :], axes))
        yield (len(row.left), tuple(names), row.joins, row.arrow), matches


def _filled(row: Row, holes: dict[int, str]) -> Row:
    count = sum(len(numbers(_bare(path))) for path, _ in (*row.left, *row.right))
    position = iter(range(count))

    def fill(match: Any) -> str:
        return holes.get(next(position), match[0])

    left = tuple((_replaced(path, fill), axes) for path, axes in row.left)
    right = tuple((_replaced(path, fill), axes) for path, axes in row.right)
    return replace(row, left=left, right=right)
