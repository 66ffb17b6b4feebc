"""Give a part of a sum the length of the array of which it is made: a: A i, b: B i and out: o (A+B) <-> out: o (B+A).

A name that begins with a capital letter has one length in the whole Table. So a conversion reads these lengths off the
file, and refuses one in which more or fewer arrays are joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import NamedTuple

from specs.notation.paths import escaped

from .facts import Facts, Group
from .letters import CAPITAL, PLAIN, open_letters
from .names import SPARE
from .parts import Origin, Part
from .rows import DIM, Row
from .sources import outputs_of


class Width(NamedTuple):
    """An axis that shows the length of a part. Args: row: which has it. letter: of the axis."""

    row: int
    letter: str


def with_shown_lengths(
    groups: Sequence[Group], facts: Facts, lengths: MutableMapping[str, int], given: Iterable[object]
) -> list[Group]:
    """Return the groups with one capital letter for each part of a sum and the axis that shows its length.

    Args:
      lengths: of all letters, to which those of the capital ones are added. given: other lines of the Table.
    """
    rows = [row for _, _, some in groups for row in some]
    found: dict[tuple[Origin, int], str] = {}
    used = {letter for line in (*given, *rows) for letter in CAPITAL.findall(str(line))}
    for at, row in enumerate(rows):
        new = dict[str, str]()
        parts = {part.letter: part for part in row.parts}
        for part in (parts[letter] for letter in open_letters(row) if letter in parts):
            width = _width(rows, part, facts)
            if width is None or width.row == at:
                continue
            known = width.letter if width.letter[0].isupper() else found.get((part.origin, part.length))
            capital = known or next(letter for letter in _capitals(part.letter) if letter not in {*used, *new.values()})
            if capital in new.values():
                continue
            found[part.origin, part.length] = new[part.letter] = capital
            used.add(capital)
            lengths[capital] = part.length
            rows[width.row] = rows[width.row].renamed({width.letter: capital})
        rows[at] = rows[at].renamed(new)
    every = iter(rows)
    return [(left, right, list(itertools.islice(every, len(some)))) for left, right, some in groups]


def _capitals(letter: str) -> Iterator[str]:
    """Yield the letter as a capital one, then others."""
    stem = letter[0].upper()
    yield from [stem, *map(str.upper, SPARE)]
    yield from (f"{stem}{k}" for k in itertools.count(2))


def _width(rows: Sequence[Row], part: Part, facts: Facts) -> Width | None:
    """Return the axis along which the array of a part's origin has its outputs, if that is a whole axis of a line."""
    origin = part.origin
    axis = outputs_of(facts.programs[origin.side], origin.name, part.length) if origin.name else None
    for at, row in enumerate(rows) if axis is not None else ():
        text = dict((row.left, row.right)[origin.side]).get(escaped(origin.name))
        if text and axis is not None and "[" not in str(row):
            letter = DIM.findall(text)[axis]
            parts = {own.letter for own in row.parts}
            return Width(at, letter) if PLAIN.fullmatch(letter) and letter not in parts else None
    return None
