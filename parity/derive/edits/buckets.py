"""Say how two tables differ that give a row to each relative position, as T5's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from parity.derive.trace.tape import Array


class Buckets(NamedTuple):
    """Rows by relative positions, as T5 has: from which distance on all have the last row, and how many rows there are.

    Args:
      later, earlier: the rows of later keys and of earlier ones, by the distance.
      number: of the rows, 0 where it does not show: half of them are for later keys, at the same distances.
    """

    later: Array
    earlier: Array
    number: int

    @classmethod
    def of(cls, table: Array) -> Buckets | None:
        """Return those of a table (queries, keys); None if its numbers do not depend on relative positions alone."""
        table = np.squeeze(table)
        if (
            table.dtype.kind != "i"
            or table.ndim != 2
            or min(table.shape) < 2
            or (table[1:, 1:] != table[:-1, :-1]).any()
        ):
            return None
        later, earlier = table[0], table[:, 0]
        n = min(table.shape)
        halves = np.unique(later[1:n] - earlier[1:n])
        known = len(halves) == 1 and halves[0] > earlier.max()
        return cls(later, earlier, 2 * int(halves[0]) if known else 0)

    @property
    def distances(self) -> tuple[int, int]:
        """Return from which distance on all later keys have the last row, and all earlier ones; 0 if all have it."""
        later, earlier = (int((side != side[-1]).sum()) for side in (self.later, self.earlier))
        return later, earlier

    def is_whole(self, other: Buckets) -> bool:
        """Tell whether the last rows of both directions are in the table, or are at least those of another one."""
        if self.number:
            return bool(self.earlier[-1] == self.number // 2 - 1)
        return all(self.distances) and self.later[-1] == other.later[-1] and self.earlier[-1] == other.earlier[-1]


def unlike_buckets(left: Array, right: Array) -> str:
    """Tell buckets of relative positions by their number and the farthest, where the table reaches it on both sides."""
    one, other = Buckets.of(left), Buckets.of(right)
    if one is None or other is None or one.later[0] != other.later[0]:
        return ""
    texts = list[str]()
    if one.number != other.number and one.number and other.number:
        texts.append(f"{one.number} buckets on the left, {other.number} on the right")
    whole = one.is_whole(other) and other.is_whole(one)
    pairs = [*zip(one.distances, other.distances, strict=True)]
    if not whole:
        pairs = [(int((a != b).argmax()),) * 2 for a, b in ((one.later, other.later), (one.earlier, other.earlier))]
    alike = len({pair for pair in pairs if any(pair)}) == 1  # in both directions, or in the only one with buckets
    for keys, pair in zip(("later keys", "earlier keys"), pairs, strict=True):
        of = "" if alike else f" of {keys}"
        if whole and pair[0] != pair[1]:
            texts.append(f"the farthest bucket{of} begins at distance {pair[0]} on the left, {pair[1]} on the right")
        elif not whole and pair[0]:
            texts.append(f"other buckets of distances{of}, from distance {pair[0]} on")
    return f"relative positions: {'; '.join(dict.fromkeys(texts))}" if texts else ""
