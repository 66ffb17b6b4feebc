"""Fold the rows of numbered blocks: rows that differ in numbers alone become one with {i}."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from specs.paths import Hole

from .rows import Row

NUMBER = re.compile(r"(?<![A-Za-z0-9{}])\d+(?![A-Za-z0-9])|(?<=[A-Za-z])\d+(?=[./][A-Za-z_0-9{}]+[./])")

Numbered = tuple[tuple[int, ...], Row]


def folded(rows: Sequence[Row], apart: Collection[str] = ()) -> list[Row]:
    """Fold the rows whose numbers grow evenly from block to block, from the innermost number to the outermost.

    Args:
      apart: paths, blanked, whose rows stay as they are.
    """
    groups: dict[Any, list[Numbered]] = {}
    for row in rows:
        if any(blanked(path) in apart for path, _ in (*row.left, *row.right)):
            groups[id(row), "apart"] = [((), row)]
            continue
        numbers = tuple(int(n) for path, _ in (*row.left, *row.right) for n in NUMBER.findall(_bare(path)))
        groups.setdefault(_template(row), []).append((numbers, row))
    return [row for group in groups.values() for row in _group(sorted(group, key=lambda item: item[0]))]


def blanked(path: str) -> str:
    """Return a path with # in place of each number."""
    return re.sub(r"\d+", "#", path)


def _bare(path: str) -> str:
    """Return the path without its holes, whose numbers do not count."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def _template(row: Row) -> Any:
    def blank(side: Any) -> Any:
        return tuple((_replaced(path, lambda _: "#"), axes) for path, axes in side)

    return blank(row.left), blank(row.right), row.joins, row.arrow, row.constant


def _replaced(path: str, by: Callable[[Any], str]) -> str:
    """Return the path with each number outside of holes replaced."""
    pieces = re.split(r"(\{[^}]*\})", path)
    text, out = "".join(piece if k % 2 == 0 else "{}" for k, piece in enumerate(pieces)), ""
    at, holes = 0, iter(pieces[1::2])
    for match in NUMBER.finditer(text):
        out += text[at : match.start()] + by(match)
        at = match.end()
    return re.sub(r"\{\}", lambda _: next(holes), out + text[at:]) if len(pieces) > 1 else out + text[at:]


def _group(group: Sequence[Numbered]) -> list[Row]:
    """Return one row for all, or one for each value of the outermost number that varies."""
    if len(group) < 2 or not group[0][0]:
        return [row for _, row in group]
    if (row := _progression(group)) or (row := _nested(group)):
        return [row]
    values = np.array([numbers for numbers, _ in group])
    outer = next(p for p in range(values.shape[1]) if len(set(values[:, p])) > 1)
    parts = list(_parts(group, outer))
    if len(parts) == len(group):
        return _longest(group)
    return [row for part in parts for row in _group(part)]


def _parts(group: Sequence[Numbered], position: int) -> Iterator[list[Numbered]]:
    for value in dict.fromkeys(numbers[position] for numbers, _ in group):
        yield [item for item in group if item[0][position] == value]


def _longest(group: Sequence[Numbered]) -> list[Row]:
    """Fold the first rows as far as they grow evenly, then the rest."""
    for count in range(len(group) - 1, 2, -1):
        if row := _progression(group[:count]):
            return [row, *_group(group[count:])]
    return [group[0][1], *_group(group[1:])]


def _steps(group: Sequence[Numbered]) -> dict[int, tuple[int, int]] | None:
    """Return {position: (step, first)} of the numbers that grow evenly; None if any does not."""
    values = np.array([numbers for numbers, _ in group])
    steps = {}
    for p in range(values.shape[1]):
        if len(set(values[:, p])) > 1:
            step = int(values[1, p] - values[0, p])
            if step < 1 or (values[:, p] != values[0, p] + step * np.arange(len(group))).any():
                return None
            steps[p] = (step, int(values[0, p]))
    return steps


def _progression(group: Sequence[Numbered]) -> Row | None:
    steps = _steps(group) if len(group) > 1 else None
    return None if not steps else _filled(group[0][1], {p: str(Hole("i", *step)) for p, step in steps.items()})


def _nested(group: Sequence[Numbered]) -> Row | None:
    """Return blocks in stages, each stage with as many: {i} and {j}."""
    values = np.array([numbers for numbers, _ in group])
    outer = next(p for p in range(values.shape[1]) if len(set(values[:, p])) > 1)
    parts = list(_parts(group, outer))
    inner = [_steps(part) if len(part) > 1 else None for part in parts]
    if len(parts) < 2 or None in inner or any(found != inner[0] or not found for found in inner):
        return None
    if len({len(part) for part in parts}) > 1 or not (steps := _steps([part[0] for part in parts])):
        return None
    assert inner[0] is not None
    if set(steps) & set(inner[0]):
        return None
    holes = {p: str(Hole("i", *step)) for p, step in steps.items()}
    return _filled(group[0][1], holes | {p: str(Hole("j", *step)) for p, step in inner[0].items()})


def _filled(row: Row, holes: dict[int, str]) -> Row:
    count = sum(len(NUMBER.findall(_bare(path))) for path, _ in (*row.left, *row.right))
    position = iter(range(count))

    def fill(match: Any) -> str:
        return holes.get(next(position), match[0])

    left = tuple((_replaced(path, fill), axes) for path, axes in row.left)
    right = tuple((_replaced(path, fill), axes) for path, axes in row.right)
    return replace(row, left=left, right=right)
