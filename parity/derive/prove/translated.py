"""Translate the left side's weights by a Table, each when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.applied.arrays import translate as arrays_of
from specs.table import Table


class TranslatedWeights(Mapping[str, Array]):
    """The right side's parameters, each translated when it is read; those that no line describes keep their values."""

    def __init__(self, table: Table, left: Side, right: Side, weights: Mapping[str, Array]):
        first = {**{name: name for name in weights}, **left.ties}
        self._weights, self._others, self._own = weights, left.others, right.parameters
        self._first = {name: owner for name, owner in first.items() if owner in weights}  # of ties: the one that counts
        shapes = {name: np.shape(left.parameters[owner]) for name, owner in self._first.items()}
        shapes |= {name: np.shape(array) for name, array in left.others.items()}
        self._layout = table.layout(shapes)
        self._entries = {entry.name: entry for entry in self._layout.entries}

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __getitem__(self, name: str) -> Array:
        if name not in self._entries:
            return self._own[name]
        entry = self._entries[name]
        arrays = {source: self._read(source) for source in (*entry.sources, entry.like) if source}
        if not isinstance(entry.filling, list):  # a sum, which float32 would round
            arrays = {source: array.astype(np.float64) for source, array in arrays.items()}
        return arrays_of(self._layout._replace(entries=(entry,), checks=()), arrays)[name]

    def _read(self, name: str) -> Array:
        return self._others[name] if name in self._others else self._weights[self._first[name]]
