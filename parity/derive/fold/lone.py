"""Find lines that are fixed to one block, since the models have no second one that would show a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from specs.lines import Lines
from specs.paths import Hole
from specs.signature import Signature

from .blocks import numbers


def lone(table: Lines, lefts: Iterable[str], rights: Iterable[str]) -> list[str]:
    """Return the paths, up to their number, of blocks that stand alone on both sides: lists of one, it seems.

    Args:
      lefts, rights: the names of both sides' arrays.
    """
    left_names, right_names = list(lefts), list(rights)
    found: dict[str, None] = {}
    for line in table.lines:
        alone = [
            *([*_alone(array, left_names)] for array in line.left.arrays),
            *([*_alone(array, right_names)] for array in line.right.arrays),
        ]
        if line.kind == "move" and all(alone):
            found.update(dict.fromkeys(alone[0]))
    return list(found)


def _alone(array: Signature, names: list[str]) -> Iterator[str]:
    """Yield the beginnings of a path that end in a 0 or 1 which no other number replaces in any name."""
    text = "".join(str(piece) if isinstance(piece, Hole) else piece for piece in array.path)
    for match in numbers(text):
        if match[0] not in ("0", "1") or _in_hole(text, match.start()):
            continue
        before = re.sub(r"\\\{[^}]*\\\}", r"[^./]+", re.escape(text[: match.start()]))
        same = {other[1] for name in names if (other := re.match(rf"{before}(\d+)(?!\w)", name))}
        if same == {match[0]}:
            yield text[: match.end()]


def _in_hole(text: str, at: int) -> bool:
    return text.rfind("{", 0, at) > text.rfind("}", 0, at)
