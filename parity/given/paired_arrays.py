"""Translate gradients and weights by a Table, so that `parity.compare` compares them array by array."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convert.arrays.counters import COUNTER
from specs.applied.arrays import apply
from specs.applied.layout import Entry, Layout
from specs.applied.moves import Move, Select

from .quoting import some

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Names:
    """The names of one side's arrays: those of the Table, and those of the model's runner.

    Args:
      home: module in ports.runners. names: of all arrays, in the Table. ties: {name: name of the array it shares}.
    """

    home: str
    names: Sequence[str]
    ties: Mapping[str, str]

    def first(self, name: str) -> str:
        """Return the name under which the model has an array that may be tied."""
        return self.ties.get(name, name)

    def known(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return a runner's arrays under the Table's names, tied ones under each of theirs."""
        own = {name.partition("/")[2] if self.home == "nnx" else name: array for name, array in arrays.items()}
        keys = {name: self._key(self.first(name)) for name in self.names}
        return {name: own[key] for name, key in keys.items() if key in own}

    def _key(self, name: str) -> str:
        if self.home not in ("linen", "nnx"):
            return name
        from ports.runners.jax_trees import slashed  # the model has imported jax

        parts = name.split("/")
        return slashed(parts) if self.home == "linen" else slashed(["", *parts]).removeprefix("/")


@dataclass(frozen=True)
class ArrayPairs:
    """The arrays of a Table's right side that are the left side's in another layout and no more.

    Args:
      entries: the right arrays, with what fills them. shapes: of the left arrays.
    """

    left: Names
    right: Names
    entries: tuple[Entry, ...]
    shapes: Mapping[str, tuple[int, ...]]

    def of_left(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Translate the left model's arrays; a part of an array that takes no gradient is 0."""
        own, made = self.left.known(arrays), dict[str, np.ndarray]()
        for entry in self.entries:
            if any(name in own for name in entry.sources):
                parts = {name: own[name] if name in own else np.zeros(self.shapes[name]) for name in entry.sources}
                made[entry.name] = apply(_moves(entry), entry.shape, parts.__getitem__)
        return made

    def of_right(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return the right model's arrays."""
        own = self.right.known(arrays)
        return {entry.name: own[entry.name] for entry in self.entries if entry.name in own}

    def aside(self, side: int, arrays: Arrays) -> list[str]:
        """Name the arrays of a side (0 or 1) that are not judged; counters of batches count steps, and are none."""
        names = (self.left, self.right)[side]
        used = [*(source for entry in self.entries for source in entry.sources)] if side == 0 else []
        used += [entry.name for entry in self.entries] if side else []
        judged = {names.first(name) for name in used}
        known = [name for name in names.known(arrays) if not name.endswith(COUNTER)]
        return [name for name in known if name not in names.ties and name not in judged]


@dataclass(frozen=True)
class OneSide:
    """One model's part in ArrayPairs."""

    pairs: ArrayPairs
    side: int  # 0: the left one

    def named(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return this model's arrays in the layout and under the names of the Table's right side."""
        return self.pairs.of_right(arrays) if self.side else self.pairs.of_left(arrays)

    def notes(self, arrays: Arrays) -> list[str]:
        """Say which arrays are not judged."""
        names = self.pairs.aside(self.side, arrays)
        lines = "a sum, a constant, a drop, a tie of one side alone"
        why = f"not judged, as the Table's lines do not only lay them out anew ({lines})"
        return [f"{why}: {some(names)}"] if names else []


def pairs_of(layout: Layout, back: Layout, left: Names, right: Names, place: Mapping[str, int]) -> ArrayPairs:
    """Return the arrays of which the Table states a layout alone.

    Not among them: sums and what they are made of, constants and windows that get zeros, and arrays that are tied in
    one model alone, whose gradient there is the sum of several.

    Args:
      layout: left to right. back: right to left. place: of each right array, in the order in which the models run.
    """
    summed = {*layout.sums, *back.sums}
    equal = [{left.first(move.source) for move in (*check.parts, *check.others)} for check in layout.checks]
    untied = {name for names in equal if len(names) > 1 for name in names}
    entries = [e for e in layout.entries if right.first(e.name) == e.name and isinstance(e.filling, list)]
    entries = [e for e in entries if e.name not in summed and all(isinstance(part, Move) for part in e.filling)]
    read: dict[str, int] = {}  # how many elements of each left array are read, by all right ones together
    for move in (move for entry in entries for move in _moves(entry)):
        name = left.first(move.source)
        read[name] = read.get(name, 0) + math.prod(map(_length, move.select, move.source_atoms))
    sizes = {move.source: math.prod(move.source_atoms) for entry in entries for move in _moves(entry)}
    repeated = {name for name in sizes if read[left.first(name)] > sizes[name]}
    out = {*summed, *untied, *repeated}
    entries = [e for e in entries if not any(name in out or left.first(name) in out for name in e.sources)]
    shapes = {move.source: move.source_atoms for entry in entries for move in _moves(entry)}
    return ArrayPairs(left, right, tuple(sorted(entries, key=lambda e: place[e.name])), shapes)


def _moves(entry: Entry) -> list[Move]:
    return [part for part in entry.filling if isinstance(part, Move)]


def _length(select: Select, size: int) -> int:
    """Count the elements of an axis that a move reads."""
    if isinstance(select, slice):
        return len(range(*select.indices(size)))
    return len(select) if isinstance(select, tuple) else 1
