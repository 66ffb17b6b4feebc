"""Compare the gradients of both sides parameter by parameter: no side's are in memory all at once."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from parity.derive.limits import EQUAL_GRADIENTS, LARGE_MODEL, LARGE_PIECE
from parity.derive.match.stepped import Stepped, stepped
from parity.derive.match.symbols import Elements, strided
from parity.derive.trace.names import split
from parity.derive.trace.outer import Outer
from parity.derive.trace.tape import Array

from .idle_elements import zeros_of

UNSEEN = 1e-12  # gradients below this part of the largest are rounding: nothing observable depends on the parameter
# Difference within a module, see PART, that rounding to float32 may cause; elements in another order differ by 1. The
# gradient of a bias of keys is zero but for rounding: with a softmax in float32 a few 1e-6 of the largest of its module
NEAR = 3e-2
NOISE = 1e-6  # gradients below this part of the largest of their module may be rounding, where they differ
PART = 1e-3  # of the largest gradient; below it, differences are relative to that


class Spool:
    """Arrays of float64 by name, in a file if they are large; products of matrices stay such."""

    def __init__(self, elements: int):
        self._file = tempfile.TemporaryFile() if elements >= LARGE_MODEL else None  # noqa: SIM115
        self._arrays: dict[str, Array | Outer] = {}
        self._places: dict[str, tuple[int, int]] = {}  # where an array begins in the file, and its elements
        self._end = 0

    def __contains__(self, name: str) -> bool:
        return name in self._arrays or name in self._places

    def put(self, name: str, array: Array | Outer) -> None:
        if isinstance(array, Outer):
            self._arrays[name] = array
            return
        array = np.ravel(array).astype(np.float64, copy=False)
        if self._file is None:
            self._arrays[name] = array
            return
        self._places[name] = self._end, array.size
        array.tofile(self._file)
        self._end += array.nbytes

    def part(self, name: str, at: int, count: int) -> Array:
        """Return some of the elements of an array, from one on."""
        if name in self._arrays:
            array = self._arrays[name]
            return array.part(at, count) if isinstance(array, Outer) else array[at : at + count]
        place, size = self._places[name]
        assert self._file is not None
        self._file.seek(place + 8 * at)
        return np.fromfile(self._file, np.float64, min(count, size - at))


class Gradients:
    """The gradients of the right side, and how far those of the left one are from them.

    Args:
      maps: the left element of each right one, and a second one that is added to it; see Match.
      sizes: the largest left gradient of each parameter; apart: its largest difference from the sum of the gradients of
        the elements that it became. Gradients that are not finite are in neither.
      zeros: which elements of left parameters have no gradient, where some have one; not of large models.
      infinite: the parameters of each side whose gradient is not finite.
    """

    def __init__(self, maps: Sequence[Array], lefts: Elements, rights: Elements):
        self.maps, self.lefts, self.rights = maps, lefts, rights
        self.sizes: dict[str, float] = {}
        self.zeros: dict[str, Array] = {}
        self.apart: dict[str, float] = {}
        self.infinite: tuple[set[str], set[str]] = set(), set()
        self._right = Spool(len(rights))
        self._right_sizes: dict[str, float] = {}
        self._part_of: dict[str, str] = {}  # right parameter -> the larger left one of which it is a part
        self._idle: set[str] = set()  # left parameters whose gradients are rounding
        self._became: dict[str, list[str]] = {name: [] for name in lefts.names}
        for name in rights.names:
            owners = list(dict.fromkeys(owner for found in maps for owner in lefts.owners(rights.part(found, name))))
            for owner in owners:
                self._became[owner].append(name)
            if len(owners) == 1 and math.prod(rights.shapes[name]) < math.prod(lefts.shapes[owners[0]]):
                self._part_of[name] = owners[0]

    @property
    def used(self) -> set[str]:
        """Return the left parameters that have elements on the right."""
        return {name for name, others in self._became.items() if others}

    @property
    def largest(self) -> float:
        return max(self.sizes.values(), default=0.0)

    @cached_property
    def _modules(self) -> dict[str, float]:
        """Return {path of a module: the largest gradient of its own parameters}."""
        largest: dict[str, float] = {}
        for name, size in self.sizes.items():
            path = split(name)[0]
            largest[path] = max(size, largest.get(path, 0.0))
        return largest

    def _within(self, name: str) -> float:
        """Return the difference relative to the gradients of a parameter, or to a part of the largest of its module."""
        scale = max(self.sizes[name], PART * self._modules[split(name)[0]])
        return self.apart[name] / scale if scale else 0.0

    def shows(self, name: str) -> bool:
        """Tell whether outputs depend on a left parameter: its gradient is more than rounding of others.

        Far from the outputs gradients may be small, as those of all parameters there; both sides agree on them then.
        """
        if name not in self.sizes:
            return True
        if name in self._idle:
            return False
        size = self.sizes[name]
        near = size > UNSEEN * self._modules[split(name)[0]] and self._within(name) <= NEAR
        return size > UNSEEN * self.largest or near

    @property
    def idle_parts(self) -> dict[str, str]:
        """Return {right parameter on which no output seems to depend: the left one of which it is a part}."""
        largest = max(self._right_sizes.values(), default=0.0)
        return {
            name: owner for name, owner in self._part_of.items()
            if name in self._right_sizes and self._right_sizes[name] <= UNSEEN * largest and self.shows(owner)
        }  # fmt: skip

    @property
    def error(self) -> float:
        """Return the largest difference, relative to the gradients of its parameter or to a part of the largest one.

        Gradients far below the largest one also have to agree within their module, up to rounding.
        """
        return max([math.inf if self.alone else 0.0, *self._errors.values()])

    def beyond(self, limit: float) -> list[str]:
        """List the left parameters whose gradients differ by more than a limit."""
        return [name for name, error in self._errors.items() if error > limit]

    @property
    def noise(self) -> list[str]:
        """List the left parameters whose gradients differ, and are small in both models.

        They may be rounding of either, as those of a bias that a difference removes: of `pool(x) - x`, say.
        """
        sizes = {name: max(self.sizes[name], self.apart[name]) for name in self.beyond(EQUAL_GRADIENTS)}
        return [name for name, size in sizes.items() if size <= NOISE * self._modules[split(name)[0]]]

    def leave_out(self, names: Sequence[str]) -> None:
        """Take the gradients of these parameters, on which no output depends, for zero."""
        self._idle.update(names)
        self._errors = {name: error for name, error in self._errors.items() if name not in names}

    @cached_property
    def _errors(self) -> dict[str, float]:
        errors = dict[str, float]()
        for name, size in self.sizes.items():
            if max(size, self.apart[name]) > UNSEEN * self.largest:  # the left side's may be cut
                near, far = self._within(name), self.apart[name] / max(size, self.apart[name], PART * self.largest)
                errors[name] = near if near > NEAR else far
        return errors

    @property
    def alone(self) -> list[str]:
        """List the left parameters of which one side alone has gradients that are not finite, as NaN."""
        lefts, rights = self.infinite
        return [name for name, others in self._became.items() if (name in lefts) != (not rights.isdisjoint(others))]

    @property
    def unclear(self) -> list[str]:
        """List the left parameters whose gradients are not finite on either side, and cannot be compared."""
        both = self.infinite[0].difference(self.alone)
        return [name for name in self._became if name in both]

    def keep(self, name: str, gradient: Array | Outer) -> None:
        """Store a gradient of the right side."""
        if not _is_finite(gradient):
            self.infinite[1].add(name)
        elif not isinstance(gradient, Outer):
            self._right_sizes[name] = _largest(np.asarray(gradient))
        self._right.put(name, gradient)

    def compare(self, name: str, gradient: Array | Outer) -> None:
        """Compare a gradient of the left side, once all of the right one are stored."""
        if not _is_finite(gradient):
            self.infinite[0].add(name)
            return
        if len(self.lefts) <= LARGE_MODEL and (zeros := zeros_of(gradient)) is not None:
            self.zeros[name] = zeros
        if isinstance(gradient, Outer) and (apart := self._in_parts(name, gradient)) is not None:
            self.sizes[name], self.apart[name] = max(map(_largest, gradient.parts(LARGE_PIECE))), apart
            return
        gradient = np.ravel(np.asarray(gradient))
        self.sizes[name] = _largest(gradient)
        moved = self._moved(name, gradient)
        self.apart[name] = self._summed(name, gradient) if moved is None else moved

    def _twin(self, name: str, size: int) -> str | None:
        """Return the one right parameter that a left one became, of as many elements; None if there are others."""
        others = self._became[name]
        if len(self.maps) > 1 or len(others) != 1 or others[0] not in self._right:
            return None
        return others[0] if np.prod(self.rights.shapes[others[0]], dtype=int) == size else None

    def _numbers(self, name: str, other: str) -> Stepped | None:
        """Return the left elements of a right parameter, if they are all those of one left parameter, by steps."""
        numbers = stepped(self.rights.part(self.maps[0], other))
        whole = isinstance(numbers, Stepped) and numbers.whole and numbers.min() == self.lefts.first(name)
        return numbers if whole else None

    def _in_parts(self, name: str, gradient: Outer) -> float | None:
        """Return how far a product of matrices is from the gradient of one right parameter; None if it is not such."""
        other = self._twin(name, gradient.size)
        numbers = None if other is None else self._numbers(name, other)
        if other is None or numbers is None:
            return None
        turned = gradient.taken(numbers.first - self.lefts.first(name), numbers.lines)
        if turned is None:
            return None
        parts = enumerate(turned.parts(LARGE_PIECE))
        return max(_largest(some - self._right.part(other, k * LARGE_PIECE, LARGE_PIECE)) for k, some in parts)

    def _moved(self, name: str, gradient: Array) -> float | None:
        """Compare a left gradient with that of the right parameter of its elements; None if that has only some."""
        other = self._twin(name, gradient.size)
        if other is None:
            return None
        if (numbers := self._numbers(name, other)) is not None:
            turned = strided(gradient, numbers, numbers.min())
            if turned is not None:
                return self._apart(turned, other)
        seen, apart = np.zeros(gradient.size, bool), 0.0
        for elements, there in self._parts(name, other):
            if elements.min() < 0 or elements.max() >= gradient.size:
                return None
            seen[elements] = True
            apart = max(apart, _largest(gradient[elements] - there))
        return apart if seen.all() else None

    def _apart(self, gradient: Array, other: str) -> float:
        """Return how far a left gradient with the axes of a right parameter is from the gradient of that one."""
        while gradient.ndim > 1 and len(gradient) == 1:
            gradient = gradient[0]
        row, apart = gradient[0].size, 0.0
        step = max(1, LARGE_PIECE // row)
        for at in range(0, len(gradient), step):
            some = gradient[at : at + step]
            there = self._right.part(other, at * row, some.size)
            apart = max(apart, _largest(some - there.reshape(some.shape)))
        return apart

    def _summed(self, name: str, gradient: Array) -> float:
        apart = -gradient.astype(np.float64)
        whole, used = np.ones(gradient.size, bool), np.zeros(gradient.size, bool)
        for other in self._became[name]:
            for elements, there in self._parts(name, other):
                own = (elements >= 0) & (elements < gradient.size)
                used[elements[own]] = True
                if other in self._right:
                    np.add.at(apart, elements[own], there[own])
                else:
                    whole[elements[own]] = False
        return _largest(apart[used & whole])

    def _parts(self, name: str, other: str) -> Iterator[tuple[Array, Array]]:
        """Yield (place in the left parameter, gradient) of elements of a right one; the place is outside for others."""
        size, first = int(np.prod(self.rights.shapes[other], dtype=int)), self.lefts.first(name)
        for found in self.maps:
            numbers = np.asarray(self.rights.part(found, other)).ravel()
            for at in range(0, size, LARGE_PIECE):
                elements = numbers[at : at + LARGE_PIECE].astype(np.int64) - first
                there = self._right.part(other, at, LARGE_PIECE) if other in self._right else elements
                yield elements, there


def _is_finite(gradient: Array | Outer) -> bool:
    """Tell it without an array of as many truth values."""
    parts = (gradient.rows, gradient.columns) if isinstance(gradient, Outer) else (np.asarray(gradient),)
    return all(math.isfinite(part.sum()) for part in parts)


def _largest(array: Array) -> float:
    """Return the largest absolute value, without an array of all of them."""
    return float(max(array.max(initial=0), -array.min(initial=0)))
