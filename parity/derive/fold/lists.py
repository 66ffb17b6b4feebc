"""Give lengths of separate lists of blocks letters of their own, as towers may have other numbers of heads.

A letter that is given has one length in all lines. What ties lines is that their arrays are of one list of blocks, or
of one module outside of lists: a vision tower and a text tower with as many heads in small models have h and h2.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import MutableMapping, Sequence
from typing import Any

from specs.notation.paths import normal

from .blocks import LISTS
from .grids import COUNTING
from .letters import SMALL, free, open_letters, opened_on
from .rows import NAME, Arrays, Row

LAST_COUNT = re.compile(rf".*\{{(?:\d+\*)?[{LISTS}{''.join(COUNTING)}]\b[^}}]*\}}")  # a path up to its last such number
Homes = tuple[tuple[str, bool], ...]  # see _homes


def with_letters_of_lists(rows: Sequence[Row], lengths: MutableMapping[str, int]) -> list[Row]:
    """Return the lines with other letters for lengths that shapes leave open, where nothing ties them to earlier lines.

    Args:
      rows: lines whose blocks are folded.
      lengths: those of all letters, to which those of the new ones are added.
    """
    taken, new = {*lengths, *itertools.chain(*map(_letters, rows))}, [dict[str, str]() for _ in rows]
    for letter in [name for name in lengths if SMALL.fullmatch(name)]:
        own = [at for at, row in enumerate(rows) if letter in _letters(row) and letter not in open_letters(row)]
        asked = [
            some for some in _tied(rows, own) if any(letter in names for at in some for names in opened_on(rows[at]))
        ]
        for some in asked[1:]:
            name = free(letter, taken)
            taken.add(name)
            lengths[name] = lengths[letter]
            for at in some:
                new[at][letter] = name
    return [row.renamed(names) if names else row for row, names in zip(rows, new, strict=True)]


def _tied(rows: Sequence[Row], numbers: Sequence[int]) -> list[list[int]]:
    """Group lines, by their numbers, that are tied by where their arrays are."""
    alike = dict[Any, list[int]]()  # of blocks that did not fold
    for at in numbers:
        sides = rows[at].left, rows[at].right
        alike.setdefault(tuple(tuple((normal(path), axes) for path, axes in side) for side in sides), []).append(at)
    by_home = dict[tuple[Homes, Homes], list[int]]()
    for some in alike.values():
        by_home.setdefault((_homes(rows[some[0]].left), _homes(rows[some[0]].right)), []).extend(some)
    groups = list[list[tuple[Homes, Homes]]]()
    for home in by_home:
        with_it = [some for some in groups if any(_are_tied(home, other) for other in some)]
        groups = [*(some for some in groups if some not in with_it), [home, *itertools.chain(*with_it)]]
    return sorted(sorted(itertools.chain(*(by_home[home] for home in some))) for some in groups)


def _letters(row: Row) -> set[str]:
    return {name for _, axes in (*row.left, *row.right) for name in NAME.findall(axes or "")}


def _homes(arrays: Arrays) -> Homes:
    """Return for each array (the block that it is in, whether lines count it); without one the module of its module."""
    homes = list[tuple[str, bool]]()
    for path, _ in arrays:
        module = re.sub(r"[^./]*$", "", path)
        counted = LAST_COUNT.match(module)
        above = counted[0] if counted else re.sub(r"[^./]*[./]$", "", module)
        homes.append((re.sub(r"\{[^}]*\}", "#", above), bool(counted)))
    return tuple(dict.fromkeys(homes))


def _are_tied(one: tuple[Homes, Homes], other: tuple[Homes, Homes]) -> bool:
    """Tell whether two lines have arrays in one block on both sides, or in modules of which one is in the other."""
    pairs = (itertools.product(*sides) for sides in zip(one, other, strict=True))
    return all(any(_is_in(a, b) or _is_in(b, a) for a, b in side) for side in pairs)


def _is_in(inner: tuple[str, bool], outer: tuple[str, bool]) -> bool:
    """Tell whether a module is in another one, and in no list of blocks of its own there."""
    return inner == outer or (inner[0].startswith(outer[0]) and not inner[1])
