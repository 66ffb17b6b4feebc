"""Write sums: left parameters that are added, zeros that right ones add, and vectors of which parts are sums."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.derive.trace.tape import Array
from specs.notation.paths import escaped

from .facts import Facts, Group, components
from .names import Names
from .rows import Arrays, Row
from .shared import lines
from .summed import sums

Range = tuple[str, tuple[str, ...]]  # of an array: its path, and the windows of its axes


def with_terms(facts: Facts, groups: Sequence[Group], zeros: Mapping[str, str], names: Names) -> list[Group]:
    """Return the groups with second terms of sums: left ones that are added, right ones that get zeros.

    A term may be a range of an array, as the position of a class token, which has no line of its own then.
    """
    seconds = {right_names[0]: (left_names, row) for left_names, right_names, row in _lines(facts, facts.plus, names)}
    ranges = list[tuple[list[str], list[str], Row]]()
    if any(_in_part(facts, name) for name in facts.rights.names):
        to, zeroed = np.zeros_like(facts.found), np.flatnonzero(facts.found < 0)
        to[zeroed] = facts.found[-facts.found[zeroed]]
        ranges += _lines(facts, to, names)
    added, said = [], set[Range]()
    for left_names, right_names, rows in groups:
        row = rows[0]
        # a total is one whole array: parts_of_sums writes what is a sum part by part, as gates in another order
        if right_names[0] in seconds and row.right == seconds[right_names[0]][1].right and _is_whole(row.right):
            more, second = seconds[right_names[0]]
            row = replace(row, left=(*row.left, *second.left), joins=(" + ", row.joins[1]))
            left_names = [*left_names, *more]
            said.add(_range(second.left))
        for zero in (zero for zero, first in zeros.items() if first == right_names[0] and _is_whole(row.left)):
            row = replace(row, right=(*row.right, (escaped(zero), row.right[0][1])), joins=(row.joins[0], " + "))
            right_names = [*right_names, zero]
        for _, more, second in ranges:
            if row.left == second.left and more[0] not in right_names and _is_whole(row.left):
                row = replace(row, right=(*row.right, *second.right), joins=(row.joins[0], " + "))
                said.add(_range(second.right))
        added.append((left_names, right_names, [row, *rows[1:]]))
    return [(lefts, rights, [row for row in rows if not _left_over(row, said)]) for lefts, rights, rows in added]


def _lines(facts: Facts, found: Array, names: Names) -> Iterator[tuple[list[str], list[str], Row]]:
    """Yield (left names, right names, the one line that moves elements) of the groups of another map than `found`."""
    other = replace(facts, found=found)
    for left_names, right_names in components(other) if found.any() else ():
        rows = lines(other, left_names, right_names, names) if left_names else None
        if rows and all(row.constant or row.arrow != "<->" for row in rows[1:]):
            yield left_names, right_names, rows[0]


def _in_part(facts: Facts, name: str) -> bool:
    """Tell whether some elements of a right array of several axes get zeros, and others values."""
    numbers = facts.rights.part(facts.found, name)
    return numbers.ndim > 1 and bool((numbers < 0).any() and (numbers > 0).any())


def _range(arrays: Arrays) -> Range:
    """Return the path and the windows of one array."""
    ((path, axes),) = arrays
    return path, tuple(re.findall(r"\[[^]]*\]", axes or ""))


def _left_over(row: Row, said: Collection[Range]) -> bool:
    """Tell whether a line says what becomes of a range that a sum speaks of."""
    arrays = row.left if row.arrow == "->" else row.right if row.constant and not row.left else ()
    return len(arrays) == 1 and bool(_range(arrays)[1]) and _range(arrays) in said


def _is_whole(arrays: Arrays) -> bool:
    """Tell whether there is one array, or one path for several, and no axis is written as a sum of parts, as (a+b)."""
    return len(arrays) == 1 and "+" not in (arrays[0][1] or "")


def parts_of_vector(facts: Facts, left_names: list[str], right_names: list[str]) -> list[Row] | None:
    """Return lines for vectors that are ranges of one left vector, and for what they lack of it; None if they are not.

    That is the bias of fused projections of which the other side's keys have none: it is zero backwards.
    """
    numbers = [facts.rights.part(both, name) for both in (facts.found, facts.plus) for name in right_names]
    if len(left_names) > 1 or any((part <= 0).any() for part in numbers[: len(right_names)]):
        return None
    if any(part.any() for part in numbers[len(right_names) :]):
        return None
    return sums(facts.found, facts.plus, facts.lefts, facts.rights, right_names, back="0")


def parts_of_sums(
    facts: Facts, groups: list[Group], missing: dict[str, str], given: Collection[str] = ()
) -> list[Group]:
    """Return the groups with lines for vectors of which only parts are sums, in place of those that say less.

    Args:
      missing: see fold; what has lines is removed from it. given: right parameters that the user's lines fill.
    """
    rights = facts.rights
    others = [name for name in rights.names if name not in given]
    partial = [name for name in others if _partly(facts, name, groups) and _terms(facts, name)]
    while partial:
        names, lefts, grown = [partial[0]], set[str](), True
        while grown:  # all that share a left vector with the first one
            more = lefts | {owner for name in names for owner in _terms(facts, name)}
            grown, lefts = more != lefts, more
            names = [name for name in others if lefts.intersection(_terms(facts, name))]
        rows = sums(facts.found, facts.plus, facts.lefts, rights, names)
        if rows is not None:
            groups = [group for group in groups if not {*names}.intersection(group[1])]
            groups.append((sorted(lefts, key=facts.lefts.names.index), names, rows))
            for name in names:
                missing.pop(name, None)
        partial = [name for name in partial if name not in names]
    return groups


def _terms(facts: Facts, name: str) -> list[str]:
    """Return the left parameters of which a right one consists, also where zeros are added to a part of it."""
    found, plus = (facts.rights.part(numbers, name) for numbers in (facts.found, facts.plus))
    to = facts.found[-found[found < 0]] if (found < 0).any() else found
    return [
        *facts.lefts.owners(np.maximum(found, 0)),
        *facts.lefts.owners(plus),
        *facts.lefts.owners(np.maximum(to, 0)),
    ]


def _partly(facts: Facts, name: str, groups: Sequence[Group]) -> bool:
    """Tell whether a right parameter is a sum of which no line says so, or a part of it gets zeros."""
    found, plus = (facts.rights.part(numbers, name) for numbers in (facts.found, facts.plus))
    said = any(name in right_names and " + " in rows[0].joins for _, right_names, rows in groups)
    return not said and bool(plus.any() or ((found < 0).any() and name not in facts.blank))
