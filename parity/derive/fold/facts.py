"""Define what the lines of a Table have to say, and which parameters of both sides belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array

from .names import Names
from .rows import Row

Shapes = Mapping[str, tuple[int, ...]]
Group = tuple[list[str], list[str], list[Row]]  # parameters of both sides, and their lines


@dataclass(frozen=True)
class Facts:
    """What the lines of a Table have to say.

    Args:
      found: the left element of each right one, 0 where there is none, -n where zero is added to right element n.
      plus: a left element that is added to the first one, or 0.
      sides: the frameworks.
      ties: on each side, names of arrays -> the parameter that they share.
      others: shapes of arrays that are no parameters, on each side.
      extra: lines for those.
      programs: runs of both models.
      blank: right parameters that have one value, since nothing reads them and nothing on the left is like them, or
        since they are biases of layers that have none on the left; and that value.
    """

    lefts: Elements
    rights: Elements
    found: Array
    plus: Array
    sides: tuple[str, str]
    ties: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    others: tuple[Shapes, Shapes] = ({}, {})
    extra: Sequence[Row] = field(default_factory=list)
    blank: Mapping[str, float] = field(default_factory=dict)
    programs: Sequence[Program] = ()

    def zeroed(self, name: str) -> bool:
        """Tell whether a right parameter has elements that are zero, as a bias that the left model lacks."""
        return bool(self.rights.part(self.found, name).min(initial=0) < 0)

    def part(self, name: str) -> Array:
        """Return the left elements of one right parameter."""
        numbers = self.rights.part(self.found, name)
        return np.maximum(numbers, 0) if self.zeroed(name) else numbers

    def back(self, right_names: Sequence[str]) -> Array:
        """Invert the map: return for each left element its right element among these parameters, or 0."""
        places = np.concatenate([self.rights.numbers(name).astype(np.int64).ravel() for name in right_names])
        back = np.zeros(len(self.lefts), np.int64)
        back[self.found[places].astype(np.int64)] = places
        return back

    def zeros(self) -> dict[str, str]:
        """Return right parameters -> others to which they add nothing but zeros."""
        zeros = {}
        for name in self.rights.names:
            numbers = self.rights.part(self.found, name)
            if numbers.min(initial=0) >= 0:
                continue
            numbers = -numbers
            owner = self.rights.owners(numbers)
            if len(owner) == 1 and np.array_equal(numbers, self.rights.numbers(owner[0])):
                zeros[name] = owner[0]
        return zeros

    @property
    def known(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all left arrays."""
        tied = {name: self.lefts.shapes[first] for name, first in self.ties[0].items()}
        return {**self.lefts.shapes, **tied, **self.others[0]}

    def like(self, missing: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all right arrays but the missing ones."""
        shapes = {name: self.rights.shapes[name] for name in self.rights.names if name not in missing}
        tied = {name: shapes[first] for name, first in self.ties[1].items() if first in shapes}
        return {**shapes, **tied, **self.others[1]}


class Target(NamedTuple):
    """An array that consists of one or several others.

    Args:
      sources: the parameters of their side. parts: the names of those of which it consists.
      name: of the array. numbers: of the sources' elements, in its shape; 0 where there is none.
      names: chooses those of axes. side: of the sources. whole: whether the sources are whole arrays, and no pieces.
    """

    sources: Elements
    parts: Sequence[str]
    name: str
    numbers: Array
    names: Names
    side: int
    whole: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the first source."""
        return self.sources.shapes[self.parts[0]]

    @property
    def places(self) -> Array:
        """Return for each element its place in the flat first source, from 0."""
        return self.numbers - self.sources.first(self.parts[0])


def components(facts: Facts) -> Iterator[tuple[list[str], list[str]]]:
    """Group parameters of both sides that share elements, in the right side's order; a group may have no left ones."""
    lefts, rights = facts.lefts, facts.rights
    owners = {name: lefts.owners(facts.part(name)) for name in rights.names}
    readers: dict[str, list[str]] = {}
    for right, names in owners.items():
        for left in names:
            readers.setdefault(left, []).append(right)
    done = set[str]()
    for right in rights.names:
        if right in done:
            continue
        left_names, right_names, waiting = list[str](), list[str](), [right]
        while waiting:
            name = waiting.pop()
            if name in right_names:
                continue
            right_names.append(name)
            for left in owners[name]:
                if left not in left_names:
                    left_names.append(left)
                waiting += readers[left]
        done.update(right_names)
        right_names.sort(key=rights.names.index)
        yield left_names, right_names
