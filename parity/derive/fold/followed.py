"""State the lengths of lists that another number follows: encoder.0 and encoder.1 are blocks, encoder.2 is none.

In models with more blocks, what follows has another number, which no line can compute; its name would be a block's.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from specs.notation.lines import Line
from specs.notation.paths import Hole, escaped, normal
from specs.notation.signature import Signature
from specs.solving.matching import Matcher
from specs.solving.ranges import Index
from specs.words import in_a_row

from .rows import DerivedTable

DIGITS = re.compile(r"(?<!\d)\d+(?![A-Za-z\d])")


class Counted(NamedTuple):
    """A number that a line counts. Args: variable: of its hole. label: the path as written up to the hole."""

    line: Line
    variable: str
    label: str


@dataclass
class Numbers:
    """The numbers behind one beginning of a name.

    Args:
      counted: by line and variable.
      fixed: those that lines have in their text, by the path as written up to there.
    """

    counted: dict[Counted, set[int]] = field(default_factory=lambda: defaultdict(set))
    fixed: dict[str, int] = field(default_factory=dict)

    def following(self) -> Iterator[Followed]:
        """Yield the fixed numbers beyond all that are counted, and the lists beyond one whose range a line states."""
        last = max(itertools.chain(*self.counted.values()), default=None)
        beyond = [label for label, number in self.fixed.items() if last is not None and number > last]
        yield from (Followed(counted, label) for label in beyond for counted in self.counted)
        for one, other in itertools.permutations(self.counted, 2):
            if one.line.length(one.variable) and max(self.counted[one]) < min(self.counted[other]):
                yield Followed(one, other.label, other)


class Followed(NamedTuple):
    """A list whose blocks a line counts, and the path of a number that follows it. Args: by: of a list that does."""

    counted: Counted
    path: str
    by: Counted | None = None


def followed(table: DerivedTable) -> list[Followed]:
    """Return each line's lists that a number follows, on either side."""
    return [
        one
        for side, names in ((table, table.known), (table.reverse(), table.like))
        for numbers in _numbers(side, names).values()
        for one in numbers.following()
    ]


def behind_lists(table: DerivedTable) -> list[str]:
    """Say which numbers follow a list, and so hold for lists of this length alone."""
    lists: dict[str, dict[str, None]] = {}
    for one in followed(table):
        lists.setdefault(one.path, {})[one.counted.label] = None
    return [f"{path} follows the list {in_a_row(of)}" for path, of in lists.items()]


def _numbers(table: DerivedTable, names: Mapping[str, object]) -> dict[str, Numbers]:
    """Return the numbers in the left side's names by the beginnings of these."""
    numbers: dict[str, Numbers] = defaultdict(Numbers)
    for line, array, index, _ in _matches(table, names):
        seen, name, label = set[str](), "", ""
        for piece in line.resolved(array).path:
            if isinstance(piece, str):
                for match in DIGITS.finditer(piece):
                    upto = label + escaped(piece[: match.end()])
                    numbers[name + piece[: match.start()]].fixed[upto] = int(match[0])
                name, label = name + piece, label + escaped(piece)
                continue
            variable = line.variable(piece)
            text, upto = piece.fill(index[variable]), label + str(piece)
            if text.isdigit() and variable in seen:  # it counts nothing of its own: {i}.{i+2}
                numbers[name].fixed[upto] = int(text)
            elif text.isdigit():
                numbers[name].counted[Counted(line, variable, upto)].add(int(text))
            seen.add(variable)
            name, label = name + text, upto
    return numbers


def _matches(table: DerivedTable, names: Mapping[str, object]) -> Iterator[tuple[Line, Signature, Index, str]]:
    """Yield (line, array, the index of each of its variables, name) of each of the left side's arrays."""
    found = Matcher(table, names).match()
    for line in table.lines:
        for key, arrays in found.groups(line):
            for array, named in zip(line.left.arrays, arrays, strict=True):
                for own, name in named.items():
                    yield line, array, {**dict(key), **dict(own)}, name


def stated(table: DerivedTable, kept: Collection[str] = ()) -> tuple[DerivedTable, set[str]]:
    """Return the table with the ranges of all lists that a number follows, {j=0..1} for {j}.

    Args:
      kept: lines that stay as they are.
    Returns: also the names, without their numbers, of lists that one line cannot state: of several lengths, or
      counted by two numbers of one name, as in stages.{i+7}.{i}.
    """
    wanted: dict[int, set[str]] = defaultdict(set)
    for line, variable, _ in (list_ for one in followed(table) for list_ in (one.counted, one.by) if list_):
        if line.length(variable) is None:
            wanted[line.number].add(variable)
    if not wanted:
        return table, set()
    indices: dict[tuple[int, str], list[Index]] = defaultdict(list)
    counted = dict[int, set[str]]()
    names: dict[int, set[str]] = defaultdict(set)
    for side, arrays in ((table, table.known), (table.reverse(), table.like)):
        for line, _, index, name in [match for match in _matches(side, arrays) if match[0].number in wanted]:
            names[line.number].add(normal(escaped(name)))
            for variable in wanted[line.number] & index.keys():
                if side is table or variable not in counted[line.number]:  # what no left path has counts on the right
                    indices[line.number, variable].append(index)
        counted = {line.number: {v for n, v in indices if n == line.number} for line in table.lines}
    lines, uneven = [], set[str]()
    for line in table.lines:
        for variable in sorted(wanted.get(line.number, ())) if str(line) not in kept else ():
            count = _length(indices[line.number, variable], variable)
            if count and not _twice(line, variable):
                line = _listed(line, variable, count)
            else:
                uneven |= names[line.number]
        lines.append(line)
    return replace(table, lines=tuple(lines)), uneven


def _length(indices: list[Index], variable: str) -> int:
    """Return how far a number counts, if it counts as far whatever the line's other numbers are; else 0."""
    lists: dict[tuple[tuple[str, int], ...], set[int]] = defaultdict(set)
    for index in indices:
        lists[tuple(sorted((name, n) for name, n in index.items() if name != variable))].add(index[variable])
    counts = {len(found) for found in lists.values()}
    return counts.pop() if len(counts) == 1 else 0


def _twice(line: Line, variable: str) -> bool:
    """Tell whether a variable counts two numbers of one name, differently."""
    arrays = (*line.left.arrays, *line.right.arrays)
    return any(len({str(hole) for hole in one.holes if line.variable(hole) == variable}) > 1 for one in arrays)


def _listed(line: Line, variable: str, count: int) -> Line:
    """Return a line that lists the numbers of one variable on both sides."""

    def piece(one: str | Hole) -> str | Hole:
        if not isinstance(one, Hole) or line.variable(one) != variable:
            return one
        return Hole(one.name, values=tuple(one.fill(k) for k in range(count)))

    def array(one: Signature) -> Signature:
        return one._replace(path=tuple(map(piece, one.path)))

    left, right = (side._replace(arrays=tuple(map(array, side.arrays))) for side in (line.left, line.right))
    return replace(line, left=left, right=right)
