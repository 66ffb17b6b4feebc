"""Write the names of several arrays as one path with holes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from specs.notation.paths import Hole, escaped

COUNTING = ("l", "e")  # the hole that counts blocks, and that of what each block has several of, as experts
EXPERT = re.compile("expert", re.IGNORECASE)  # in the word before a number that counts these


def grid(
    names: Sequence[str], every: Collection[str] = (), counts: bool = True
) -> tuple[str, dict[str, int], dict[str, int]] | None:
    """Return names as one path with holes: (path, place of each name in the grid of the holes, lengths of the holes).

    Numbers count in {l}, a second one, or that of experts, in {e}; words are listed in {s=...} in the order of `names`.
    Numbers are listed, too, where others of `every` name follow, as those of the layers of a second scan.

    Args:
      counts: whether numbers count; else they are listed, as those of parts that code takes apart.
    """
    splits: list[list[list[str]]] = [[re.split(f"({marks})", name) for name in names] for marks in ("[./_]", "[./]")]
    for split in [*splits, [list(_around(name, names)) for name in names]]:
        if len({len(words) for words in split}) == 1 and (found := _cells(names, split, every, counts)):
            return found
    return None


def _cells(
    names: Sequence[str], split: Sequence[Sequence[str]], every: Collection[str], count: bool
) -> tuple[str, dict[str, int], dict[str, int]] | None:
    """Return what `grid` does for names that are split into words; None where a combination of words is no name."""
    spare, pieces, counts, cells = iter("sruv"), list(map(escaped, split[0])), dict[str, int](), dict.fromkeys(names, 0)
    for p, words in enumerate(list(dict.fromkeys(column)) for column in zip(*split, strict=True)):
        if len(words) == 1:
            continue
        if not all(words) or len(counts) == 4:
            return None
        numbers = sorted(map(int, words)) if all(re.fullmatch(r"0|[1-9]\d*", word) for word in words) else []
        even = bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        order = COUNTING[::-1] if EXPERT.search("".join(split[0][:p][-2:])) else COUNTING
        counting = next((name for name in order if name not in counts), "") if even and count else ""
        if counting:
            words = list(map(str, numbers))
        followed = counting and "".join([*split[0][:p], str(numbers[-1] + 1), *split[0][p + 1 :]]) in every
        hole = (
            Hole(counting, 1, numbers[0])
            if counting and not followed
            else Hole(counting or next(spare), values=tuple(words))
        )
        for name, part in zip(names, split, strict=True):
            cells[name] = cells[name] * len(words) + words.index(part[p])
        pieces[p], counts[hole.name] = str(hole), len(words)
    if len(names) != np.prod([*counts.values(), 1]) or sorted(cells.values()) != list(range(len(names))):
        return None
    return "".join(pieces), cells, counts


def _around(name: str, names: Sequence[str]) -> tuple[str, str, str]:
    """Tell what all names begin with, the rest of this one, and what all end with."""
    prefix = re.sub(r"[A-Za-z0-9]+$", "", _shared(names))
    suffix = re.sub(r"^[A-Za-z0-9]+", "", _shared([other[len(prefix) :][::-1] for other in names])[::-1])
    return prefix, name[len(prefix) : len(name) - len(suffix)], suffix


def _shared(texts: Sequence[str]) -> str:
    """Return the characters with which all texts begin."""
    count = next((k for k, c in enumerate(zip(*texts, strict=False)) if len(set(c)) > 1), min(map(len, texts)))
    return texts[0][:count]
