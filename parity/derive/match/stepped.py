"""Store element numbers by their steps along each axis, since numbers take half as much memory as the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.derive.limits import LARGE_PIECE
from parity.derive.trace.tape import Array


@dataclass(frozen=True)
class Stepped:
    """Element numbers that are the first one plus steps along each axis; it reads like an array.

    Args:
      first: the number in the corner. lines: by how much numbers grow along each axis.
      whole: whether they are all the numbers from the smallest to the largest, each once.
    """

    first: int
    lines: tuple[Array, ...]
    whole: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.lines))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def ndim(self) -> int:
        return len(self.lines)

    @property
    def single(self) -> bool:
        """Tell whether each number stands there once: one step along an axis passes all that the finer ones reach."""
        reach = 0
        for line in sorted((np.abs(line) for line in self.lines if len(line) > 1), key=lambda line: int(line[1])):
            if (np.diff(line) <= reach).any():
                return False
            reach += int(line[-1])
        return True

    def __len__(self) -> int:
        return len(self.lines[0])

    def min(self) -> int:
        return self.first + sum(int(line.min()) for line in self.lines)

    def max(self) -> int:
        return self.first + sum(int(line.max()) for line in self.lines)

    def all(self) -> bool:
        """Tell whether none is 0, which is no element."""
        return self.min() > 0 or bool(np.asarray(self).all())

    def __getitem__(self, key: Any) -> Array:
        """Return some numbers: an index, a slice or an array of indices for each axis."""
        keys = (*(key if isinstance(key, tuple) else (key,)), *(slice(None),) * self.ndim)[: self.ndim]
        return _summed(self.first, [line[k] for line, k in zip(self.lines, keys, strict=True)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return _summed(self.first, self.lines).astype(dtype or np.int32, copy=False)

    def reshape(self, *shape: int) -> Any:
        if self.ndim == 3 and len(self) == 1 and shape == (-1, self.shape[2]):  # the matrix of a batch of one
            return Stepped(self.first + int(self.lines[0][0]), self.lines[1:], self.whole)
        return np.asarray(self).reshape(*shape)


def stepped(numbers: Array | Stepped) -> Stepped | Array:
    """Return element numbers stored by their steps; as integers of half the size where they have none."""
    if isinstance(numbers, Stepped):
        return numbers
    numbers = numbers.astype(np.int32, copy=False)
    lines = steps(numbers) if numbers.size else None
    if lines is None:
        return numbers
    lines = [np.array(line) for line in lines]  # without the array that they are a part of
    return Stepped(int(numbers[(0,) * numbers.ndim]), tuple(lines), _whole(lines))


def _whole(lines: list[Array]) -> bool:
    """Tell whether sums of a step along each axis are a range: each axis in equal steps, over all of the finer ones."""
    length = 1
    for line in sorted((line for line in lines if len(line) > 1), key=lambda line: abs(int(line[1]))):
        if abs(int(line[1])) != length or (line != line[1] * np.arange(len(line), dtype=np.int64)).any():
            return False
        length *= len(line)
    return True


def _summed(first: int, lines: Any) -> Array:
    total: Array = np.int32(first)
    for line in lines:
        total = total[..., None] + line if np.ndim(line) else total + line
    return total


def steps(numbers: Array | Stepped) -> Sequence[Array] | None:
    """Return by how much numbers grow along each axis; None where they are not the first one plus such steps."""
    if isinstance(numbers, Stepped):
        return numbers.lines
    first = numbers[(0,) * numbers.ndim]
    lines = [np.moveaxis(numbers, axis, 0)[(slice(None), *(0,) * (numbers.ndim - 1))] - first
             for axis in range(numbers.ndim)]  # fmt: skip
    if not lines:  # a scalar
        return lines
    return lines if _are(numbers, first, lines) else None


def _are(numbers: Array, first: Any, lines: Sequence[Array]) -> bool:
    """Tell whether numbers are sums of steps, of which some are computed at once."""
    size = numbers[0].size
    if size > LARGE_PIECE:
        return all(_are(row, first + step, lines[1:]) for row, step in zip(numbers, lines[0], strict=True))
    rest, count = _summed(first, lines[1:]), max(1, LARGE_PIECE // max(size, 1))
    steps = lines[0].reshape(-1, *(1,) * (numbers.ndim - 1))
    every = range(0, len(numbers), count)
    return all((numbers[at : at + count] == steps[at : at + count] + rest).all() for at in every)
