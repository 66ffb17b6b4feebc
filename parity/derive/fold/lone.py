"""Find lines that are fixed to one block, since the models have no second one that would show a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from specs.lines import Lines
from specs.paths import Hole
from specs.signature import Signature

from .blocks import numbers

COUNTS = r"\{[^}=]*\}"  # a hole that counts


def lone(table: Lines, lefts: Iterable[str], rights: Iterable[str]) -> list[str]:
    """Return the beginnings of left paths that hold for one block alone, where those of the right side do so too.

    The block is the only one of its list, if that is one (stages.0), or the only one with some arrays (stages.1.short).

    Args:
      lefts, rights: the names of both sides' arrays.
    """
    left_names, right_names = list(lefts), list(rights)
    left_texts = [_text(array) for line in table.lines for array in line.left.arrays]
    right_texts = [_text(array) for line in table.lines for array in line.right.arrays]
    found: dict[str, None] = {}
    for line in table.lines:
        alone = [
            *([*_alone(_text(array), left_names, left_texts)] for array in line.left.arrays),
            *([*_alone(_text(array), right_names, right_texts)] for array in line.right.arrays),
        ]
        if line.kind == "move" and all(alone):
            found.update(dict.fromkeys(alone[0]))
    return list(found)


def _text(array: Signature) -> str:
    return "".join(str(piece) if isinstance(piece, Hole) else piece for piece in array.path)


def _alone(text: str, names: list[str], texts: list[str]) -> Iterator[str]:
    """Yield the shortest beginning of a path for each number that no other one replaces there in any name.

    A beginning that ends in its number is a list of one block if that is 0 or 1. One that goes on is the part of a
    block that others of its list lack: other lines count there, and no earlier number of the path counts.
    """
    for match in numbers(text):
        start, end = match.span()
        if _in_hole(text, start):
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


def _in_hole(text: str, at: int) -> bool:
    return text.rfind("{", 0, at) > text.rfind("}", 0, at)
