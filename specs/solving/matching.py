"""Match names of arrays with a Table's paths: which array stands for which indices, and what is missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from specs.notation.lines import Line, Lines, TableError
from specs.notation.paths import Hole, Path, joined, match, normal
from specs.notation.signature import Signature

from .ranges import Index, Key, Ranges, fill, key_of

MAX_TEMPLATES = 200_000  # paths of a table with every listed value written out
JUMP = 1_000  # missing numbers that are listed one by one


class Template(NamedTuple):
    """A path with its listed holes filled, and variables as the names of the others."""

    line: Line
    position: int  # of the array among its side's
    listed: Index
    path: Path

    def match(self, name: str) -> Index | None:
        """Return the index of each variable in a name; None if the path does not fit it."""
        matched = match(self.path, name)
        if matched is None:
            return None
        index = {**self.listed, **matched[0]}
        lengths = ((index[variable], self.line.length(variable)) for variable in matched[0])
        listed = any(self.listed.get(variable, number) != number for variable, number in matched[0].items())
        return None if listed or any(length is not None and k >= length for k, length in lengths) else index


@dataclass
class Found:
    """What matching found.

    Args:
      arrays: by line number and loop indices, for each array of the line {stacked indices: name}.
      missing, unexpected: names without an array, arrays without a line. problems: (name, what is wrong).
      absent: tied names that are not there, of which another one is.
    """

    arrays: dict[int, dict[Key, list[dict[Key, str]]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def of(self, line: Line, key: Key) -> list[dict[Key, str]]:
        return self.arrays.get(line.number, {}).get(key, [])

    def groups(self, line: Line) -> Iterator[tuple[Key, list[dict[Key, str]]]]:
        yield from sorted(self.arrays.get(line.number, {}).items())


class Matcher:
    """Matches the names of the left side's arrays."""

    def __init__(self, table: Lines, names: Iterable[str]):
        self.table, self.names = table, dict.fromkeys(names)
        self.exact: dict[str, list[Template]] = {}  # by the name of their only array
        self.counted: dict[str, list[Template]] = {}  # by the normal form of their names
        count = 0
        for line in table.lines:
            for position, array in enumerate(map(line.resolved, line.left.arrays)):
                for template in _templates(line, position, array):
                    sample = "".join(piece if isinstance(piece, str) else "0" for piece in template.path)
                    if len(template.path) > 1 or isinstance(template.path[0], Hole):
                        self.counted.setdefault(normal(sample), []).append(template)
                    else:
                        self.exact.setdefault(sample, []).append(template)
                    if (count := count + 1) > MAX_TEMPLATES:
                        raise TableError(f"{table.name}: its lists of values stand for over {MAX_TEMPLATES:,} names")

    def match(self) -> Found:
        found, ranges = Found(), Ranges()
        matches: dict[int, list[tuple[int, Index, str]]] = {}
        for name in self.names:
            templates = [*self.exact.get(name, ()), *self.counted.get(normal(name), ())]
            hits = [(t, index) for t in templates if (index := t.match(name)) is not None]
            for template, index in hits:
                matches.setdefault(template.line.number, []).append((template.position, index, name))
                ranges.add(template.line, template.line.resolved(template.line.left.arrays[template.position]), index)
            if not hits:
                found.unexpected.append(name)
        self._check_counts(ranges, found)
        for line in self.table.lines:
            if line.left.arrays:
                self._complete(line, matches.get(line.number, []), ranges, found)
        return found

    def _check_counts(self, ranges: Ranges, found: Found) -> None:
        """Report block numbers far beyond the number of arrays: all blocks between would be missing, up to millions."""
        for (prefix, scale, shift), count in list(ranges.counts.items()):
            if count > 2 * len(self.names) + JUMP:
                last = scale * (count - 1) + shift
                found.problems.append((f"{prefix}{last}", "is numbered far beyond the number of arrays"))
                ranges.counts[prefix, scale, shift] = 0

    def _complete(self, line: Line, matches: list[tuple[int, Index, str]], ranges: Ranges, found: Found) -> None:
        """Group one line's arrays, and note which are missing."""
        axes = {part.name for a in (*line.left.arrays, *line.right.arrays) for part in a.parts()}
        groups = found.arrays.setdefault(line.number, {})
        for position, index, name in matches:
            loop = key_of(index, index.keys() - axes)
            group = groups.setdefault(loop, [{} for _ in line.left.arrays])
            group[position][key_of(index, index.keys() & axes)] = name
        if line.kind == "tie":
            later = list(map(line.resolved, line.left.arrays))[1:]
            for loop, (first, *others) in groups.items():
                absent = (array for array, named in zip(later, others, strict=True) if first and not named)
                found.absent += [fill(line, array, dict(loop)) for array in absent]
        if line.kind in ("drop", "tie"):
            return
        there: dict[Key, int] = {}
        wanted: dict[Key, list[str]] = {}
        for array in map(line.resolved, line.left.arrays):
            expected = list(ranges.expected(line, array))
            if not expected and not found.problems:
                found.missing.append(array.label)
            for index, name in expected:
                key = key_of(index, index) if line.left.join == "=" else ((name, 0),)
                there[key] = there.get(key, 0) + (name in self.names)
                if name not in self.names:
                    wanted.setdefault(key, []).append(name)
        for key, names in wanted.items():
            (found.absent if line.left.join == "=" and there[key] else found.missing).extend(names)


def _templates(line: Line, position: int, array: Signature) -> Iterator[Template]:
    """Yield a template for each combination of listed values."""
    lists = {line.variable(hole): hole.values for hole in array.holes if hole.values is not None}
    for chosen in itertools.product(*(range(len(values)) for values in lists.values())):
        listed = dict(zip(lists, chosen, strict=True))

        def piece(hole: Hole, listed: Index = listed) -> str | Hole:
            variable = line.variable(hole)
            return hole.fill(listed[variable]) if variable in listed else hole._replace(name=variable)

        pieces = (piece(p) if isinstance(p, Hole) else p for p in array.path)
        yield Template(line, position, listed, joined(pieces))
