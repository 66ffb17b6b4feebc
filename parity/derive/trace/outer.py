"""Represent the gradient by a large matrix as the product of two small ones: of few rows, say of one image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tape import Array


@dataclass(frozen=True)
class Outer:
    """A matrix (k, o), rows.T @ columns, of which parts are computed when they are read.

    Args:
      rows: (n, k). columns: (n, o).
    """

    rows: Array
    columns: Array

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[1], self.columns.shape[1]

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return (self.rows.T @ self.columns).astype(dtype or np.float64, copy=False)

    def part(self, at: int, count: int) -> Array:
        """Return some of the elements in order, from one on."""
        width = self.shape[1]
        first, end = at // width, -(-(at + count) // width)
        some: Array = self.rows[:, first:end].T @ self.columns
        return some.ravel()[at - first * width :][:count]

    def parts(self, count: int) -> Iterator[Array]:
        """Yield all elements in order, some at a time."""
        for at in range(0, self.size, count):
            yield self.part(at, count)

    def taken(self, first: int, lines: tuple[Array, ...]) -> Outer | None:
        """Return the elements at first + lines[0][i] + lines[1][j], counted in order; None where these are no rows."""
        if len(lines) != 2:
            return None
        width = self.shape[1]
        start, offset = divmod(first, width)
        for own, other in (lines, lines[::-1]):
            across = offset + other
            if not (own % width).any() and across.min() >= 0 and across.max() < width:
                taken = self.rows[:, start + own // width], self.columns[:, across]
                return Outer(*(taken if own is lines[0] else taken[::-1]))
        return None


def outer(rows: Array, columns: Array) -> Outer | Array:
    """Return rows.T @ columns, as an Outer where that takes less memory."""
    product = Outer(rows, columns)
    return product if rows.size + columns.size < product.size else np.asarray(product)
