"""Order rows of a matrix that one step does not tell apart, by the first step that does.

Columns that are all zeros at a recurrent network's first step, as a context that is zeros there, show no order: the
written one is assumed. Later steps multiply the same matrix with other values.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from parity.derive.limits import EXACT
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array

from . import columns, uses
from .following import matrix
from .symbols import Elements, Use


class AlikeRows:
    """The rows of right matrices whose order is assumed, and how later products of the same matrix order them.

    What equal values show stays true where an attempt steps back.
    """

    def __init__(self, program: Program, rights: Elements):
        self._program, self._rights = program, rights
        self._alike = dict[tuple[int, ...], Array]()  # matrix -> which of its rows no product tells apart so far
        weights, self._last = program.weights, dict[str, int]()  # parameter -> the last product that reads it
        for at, node in enumerate(program.tape.nodes):
            if node.kind == "product" and node.output in program.active:
                self._last |= dict.fromkeys((name for number in node.inputs for name in weights.get(number, ())), at)

    def note(self, use: Use) -> None:
        """Note the rows that a product does not tell apart, if its parameters are read again later."""
        if any(self._last.get(name, -1) > use.node for name in self._rights.owners(use.ids)):
            self._alike[matrix(use)] = columns.alike(uses.statistics(use, self._program)[1])

    def order(self, use: Use, pool: Iterable[uses.Seen], map: Array) -> None:
        """Map the rows that were alike so far by the values that they meet now.

        Args:
          pool: left products. map: the left element of each right one; is changed.
        """
        alike = self._alike.get(matrix(use))
        if alike is None or not alike.any():
            return
        found = uses.statistics(use, self._program)[1]
        now = alike & columns.alike(found)
        if np.array_equal(now, alike):
            return
        right = _in_rows(use.ids)
        before = map[right].astype(np.int64)
        ordered, is_known = before.copy(), np.zeros(before.shape[1], bool)
        for seen, gap in uses.distances(found, pool).items():
            if gap <= EXACT and (rows := columns.matched(found, seen.statistics)) is not None:
                left, at = _same_columns(_in_rows(seen.use.ids)[rows], before)
                same = (np.sort(left, 0) == np.sort(before[:, at], 0)).all(0)
                same &= (left == before[:, at])[~alike].all(0)
                ordered[:, at[same]], is_known[at[same]] = left[:, same], True
        if is_known.all():
            map[right], self._alike[matrix(use)] = ordered, now


def _in_rows(ids: Array) -> Array:
    """Return the elements (row, column) of a product's matrices (b, k, o)."""
    return np.asarray(ids).reshape(-1, ids.shape[2]).astype(np.int64)


def _same_columns(left: Array, every: Array) -> tuple[Array, Array]:
    """Return (those columns of `left` that have elements of `every`, in its order; their indices in `every`)."""
    flat = left.ravel()
    order = np.argsort(flat, kind="stable")
    near = order[np.minimum(np.searchsorted(flat[order], every[0]), len(flat) - 1)]
    at = np.flatnonzero((flat[near] == every[0]) & (every[0] > 0))
    return left[:, near[at] % left.shape[1]], at
