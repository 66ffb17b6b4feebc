"""Find lines that are fixed to one block, since the models have no second one that would show a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from parity.derive.fold.blocks import numbers
from specs.notation.lines import Lines
from specs.notation.paths import Hole
from specs.notation.signature import Signature

COUNTS = r"\{[^}=]*\}"  # a hole that counts


def lone(table: Lines, lefts: Iterable[str], rights: Iterable[str]) -> list[str]:
    """Return the beginnings of paths that hold for one block alone, where the other side has one block there as well.

    Left paths are returned; right ones where the left side stacks its one block along a first axis. A block is the only
    one of its list, if that is one (stages.0), or the only one with some arrays (stages.1.short). Of arrays that
    are dropped under one number of blocks which other lines count, the whole paths are returned: blocks.1.mask.

    Args:
      lefts, rights: the names of both sides' arrays.
    """
    left_names, right_names = list(lefts), list(rights)
    left_texts = [_text(array) for line in table.lines for array in line.left.arrays]
    right_texts = [_text(array) for line in table.lines for array in line.right.arrays]
    beginnings: dict[str, None] = {}
    for line in table.lines:
        if line.kind == "drop":
            beginnings.update(dict.fromkeys(_dropped_alone(line.left.arrays, left_texts)))
            beginnings.update(dict.fromkeys(_dropped_alone(line.right.arrays, right_texts)))
        left = [[*_alone(_text(array), left_names, left_texts)] for array in line.left.arrays]
        right = [[*_alone(_text(array), right_names, right_texts)] for array in line.right.arrays]
        if line.kind != "move":
            continue
        if all(left) and (all(right) or _stacked(line.right.arrays, line.left.arrays)):
            beginnings.update(dict.fromkeys(left[0]))
        elif all(right) and _stacked(line.left.arrays, line.right.arrays):
            beginnings.update(dict.fromkeys(right[0]))
    return list(beginnings)


def _dropped_alone(arrays: Iterable[Signature], texts: list[str]) -> Iterator[str]:
    """Yield the paths of dropped arrays that have a number where other lines of their side count blocks."""
    for text in (_text(array) for array in arrays if not array.windowed):
        if any(_counted(text[: match.start()], int(match[0]), texts) for match in numbers(text)):
            yield text


def _stacked(arrays: Sequence[Signature], others: Sequence[Signature]) -> bool:
    """Tell whether arrays begin with an axis of length 1, and others do not: layers.scale: 1 c <-> h.0.scale: c."""
    one, other = ([not array.axes[0].factors if array.axes else False for array in side] for side in (arrays, others))
    return all(one) and not any(other)


def _text(array: Signature) -> str:
    return "".join(str(piece) if isinstance(piece, Hole) else piece for piece in array.path)


def _alone(text: str, names: list[str], texts: list[str]) -> Iterator[str]:
    """Yield the shortest beginning of a path, for each of its numbers, in which no name has another number there.

    A beginning that ends in its number stands for a list of one block, whose number is 0 or 1. A longer one stands for
    a part that one block has and the others of its list lack: other lines count the blocks of that list, and the path
    counts nothing before it.
    """
    for match in numbers(text):
        start, end = match.span()
        if text.rfind("{", 0, start) > text.rfind("}", 0, start):  # in a hole
            continue
        if match[0] in ("0", "1") and _replacing(text, start, end, end, names) == {match[0]}:
            yield text[:end]
        elif not re.search(COUNTS, text[:start]) and _counted(text[:start], int(match[0]), texts):
            ends = (stop.start() for stop in re.finditer(r"[./]|$", text) if stop.start() > end)
            few = (stop for stop in ends if _replacing(text, start, end, stop, names) == {match[0]})
            yield from (text[:stop] for stop in [*few][:1])


def _replacing(text: str, start: int, end: int, stop: int, names: list[str]) -> set[str]:
    """Return the numbers that names have in the place from `start` to `end` of text[:stop]."""
    before, after = (re.sub(r"\\\{[^}]*\\\}", r"[^./]+", re.escape(part)) for part in (text[:start], text[end:stop]))
    pattern = re.compile(rf"{before}(\d+){after}(?![A-Za-z0-9])")
    return {match[1] for name in names if (match := pattern.match(name))}


def _counted(before: str, number: int, texts: list[str]) -> bool:
    """Tell whether another line counts in the place behind `before`, and this number is among those that it counts."""
    hole = re.compile(rf"{re.escape(before)}\{{(?:(\d+)\*)?\w+(?:\+(\d+))?\}}")
    counts = [(int(match[1] or 1), int(match[2] or 0)) for text in texts if (match := hole.match(text))]
    return any(number >= first and (number - first) % step == 0 for step, first in counts)
