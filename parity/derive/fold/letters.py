"""Name parts of sums that no shape shows: by one letter where they are the same parts, else by letters of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

from .names import SPARE
from .parts import UNKNOWN
from .rows import Row

SUM = re.compile(r"\([^()]*\+[^()]*\)")
LETTER = re.compile(rf"\b[{SPARE}]\d*\b")
STATED = re.compile(rf"\b([{SPARE}]\d*)=")


def own_letters(rows: Sequence[Row], lengths: MutableMapping[str, int]) -> list[Row]:
    """Return the rows with other letters where a sum of other parts has them, on both sides, as in (a+b) <-> (b+a).

    Such lengths are given, and one letter has one length in all lines: parts that are alike in small models are not so
    in larger ones. Lines whose parts are of the same parameters keep common letters, as those of a norm and of the
    layer behind it; where these are not known, the lines of one module do.

    Args:
      lengths: those of all letters, to which those of the sums are added.
    """
    taken = {letter for row in rows for letter in _letters(_axes(row))}
    owners: dict[str, Any] = {}  # letter -> what the first row with it is about
    renamed: dict[Any, str] = {}  # what a row is about -> its own letter
    out = []
    for row in rows:
        module = re.split(r"[./](?=[^./]*$)", row.left[0][0])[0] if row.left else ""
        new, parts = {}, {part.letter: part for part in row.parts}
        own = not parts or any(part.origin.text in ("", UNKNOWN) for part in row.parts)
        for letter in open_letters(row):
            part = parts.get(letter)
            length, owner = part.length if part else lengths[letter], (own and module, row.parts, letter)
            first = lengths.get(letter, length) == length and owners.setdefault(letter, owner) == owner
            if not first:
                new[letter] = renamed.setdefault(owner, _free(letter, taken))
                taken.add(new[letter])
            lengths[new.get(letter, letter)] = length
        out.append(row.renamed(new) if new else row)
    return out


def _axes(row: Row) -> list[str]:
    return [axes or "" for _, axes in (*row.left, *row.right)]


def _letters(axes: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(letter for text in axes for letter in LETTER.findall(text))


def open_letters(row: Row) -> list[str]:
    """List the letters that both sides have inside sums (a+b) alone, and whose length no side states (a=3)."""
    sides = [[axes or "" for _, axes in arrays] for arrays in (row.left, row.right)]
    alone = set(_letters(SUM.sub("", text) for side in sides for text in side))
    summed = [_letters(sum_ for text in side for sum_ in SUM.findall(text)) for side in sides]
    stated = {letter for side in sides for text in side for letter in STATED.findall(text)}
    return [letter for letter in summed[0] if letter in summed[1] and letter not in alone | stated]


def _free(letter: str, taken: Iterable[str]) -> str:
    stem = letter.rstrip("0123456789")
    return next(name for k in range(2, 10_000) if (name := f"{stem}{k}") not in taken)
