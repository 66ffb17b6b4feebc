"""Represent parameters as symbols: which of their elements stand where, and what they are computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from parity.derive.limits import LARGE_MODEL, LARGE_PIECE
from parity.derive.trace.tape import Array

from .stepped import Stepped, stepped, steps

MANY = 1 << 16  # numbers from which on marking each element is faster than looking up its owner


class Elements:
    """The elements of all parameters of one side, numbered from 1 in the order of `arrays`.

    Number 0 is no parameter's.

    Args:
      known: whether the elements have the arrays' values; else the arrays tell their shapes alone.
    """

    def __init__(self, arrays: Mapping[str, Array], known: bool):
        self.names = list(arrays)
        self.shapes = {name: np.shape(array) for name, array in arrays.items()}
        self.starts = np.cumsum([1, *(np.size(array) for array in arrays.values())])
        self._arrays = arrays if known else {}

    def __len__(self) -> int:
        """Return how many elements there are, with the first one, which is none."""
        return int(self.starts[-1])

    @cached_property
    def values(self) -> Array:
        """Return the value of each element in one array, which exists only where somebody asks for it."""
        return np.concatenate([np.zeros(1), *(np.ravel(array) for array in self._arrays.values())])

    def value(self, name: str) -> Array:
        """Return the values of a parameter's elements."""
        return self._arrays[name]

    def first(self, name: str) -> int:
        """Return the number of a parameter's first element."""
        return int(self.starts[self.names.index(name)])

    def numbers(self, name: str) -> Array:
        """Return the numbers of a parameter's elements: of many, as integers of half the size."""
        k = self.names.index(name)
        dtype = float if self.starts[k + 1] - self.starts[k] < MANY else np.int32
        return np.arange(self.starts[k], self.starts[k + 1], dtype=dtype).reshape(self.shapes[name])

    def part(self, array: Array, name: str) -> Array:
        """Return what an array with an entry for each element has for those of one parameter: a view, or Stepped."""
        if isinstance(array, Packed):
            return array.parts[name]
        k = self.names.index(name)
        return array[self.starts[k] : self.starts[k + 1]].reshape(self.shapes[name])

    def without(self, mapped: Array, names: Iterable[str]) -> Array:
        """Return a map of these elements in which those of some parameters have no partner."""
        mapped = np.array(mapped)
        for name in names:
            self.part(mapped, name)[...] = 0
        return mapped

    def renumbered(self, numbers: Array, starts: Mapping[str, int]) -> Array:
        """Return numbers of elements of some parameters, or 0, with those of each counted from another one on."""
        if len(starts) == 1:  # one copy bounds memory
            ((name, start),) = starts.items()
            moved = numbers + (start - self.first(name))
            if numbers.size and numbers.min() <= 0:
                moved[numbers <= 0] = 0
            return moved
        found = np.zeros(numbers.shape, np.int64)
        for name, start in starts.items():
            first = self.first(name)
            inside = (numbers >= first) & (numbers < first + int(np.prod(self.shapes[name], dtype=int)))
            found[inside] = numbers[inside] - first + start
        return found

    def owners(self, numbers: Array) -> list[str]:
        """Return the parameters that elements belong to, in order."""
        if not numbers.size or (top := int(numbers.max())) <= 0:
            return []
        starts = self.starts[:-1]
        if (low := int(numbers.min())) > 0:
            first, last = np.searchsorted(starts, [low, top], "right") - 1
            if first == last:
                return [self.names[first]]
        numbers = np.ravel(numbers)
        if numbers.size < MANY:
            owners = np.searchsorted(starts, numbers[numbers > 0], "right") - 1
            return [self.names[k] for k in np.flatnonzero(np.bincount(owners))]
        marked = np.zeros(len(self) + 1, bool)
        for at in range(0, numbers.size, LARGE_PIECE):
            marked[np.maximum(numbers[at : at + LARGE_PIECE], 0).astype(np.int64, copy=False)] = True
        return [name for name, a, b in zip(self.names, starts, self.starts[1:], strict=True) if marked[a:b].any()]


class Filled(Elements):
    """Elements whose values are not copied from arrays but filled in: one flat array, and views of it.

    Those of a large model are of float32, which bounds memory: operations get them as float64, or do with them.
    """

    def __init__(self, arrays: Mapping[str, Array]):
        super().__init__(arrays, known=False)

    @cached_property
    def values(self) -> Array:
        return np.zeros(len(self), np.float64 if len(self) < LARGE_MODEL else np.float32)

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        return {name: self.part(self.values, name) for name in self.names}

    def value(self, name: str) -> Array:
        return self.arrays[name]

    def release(self) -> None:
        """Drop the values: they are zeros until they are filled in again."""
        self.__dict__.pop("values", None)
        self.__dict__.pop("arrays", None)


class Packed:
    """An array with a number for each element of a side, which stores those of each parameter by steps."""

    def __init__(self, numbers: Array, elements: Elements):
        parts = {name: stepped(elements.part(numbers, name)) for name in elements.names}
        self.parts = {name: np.array(part) if isinstance(part, np.ndarray) else part for name, part in parts.items()}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        every = np.concatenate([np.zeros(1, np.int32), *(np.ravel(np.asarray(part)) for part in self.parts.values())])
        return every.astype(dtype or np.int32, copy=False)


class Partnered(Elements):
    """Elements of the right side, which have the values of the left ones that they are mapped to; else NaN.

    Args:
      map, plus: see Match.
      spare: the values of those that have no partner, where they need one.
    """

    def __init__(self, arrays: Mapping[str, Array], lefts: Elements):
        super().__init__(arrays, known=False)
        self.lefts = lefts
        self.map, self.plus = (np.zeros(len(self), np.int32) for _ in range(2))
        self.spare = dict[str, Array]()

    def value(self, name: str) -> Array:
        numbers, plus = self.part(self.map, name), self.part(self.plus, name)
        if (moved := strided(self.lefts.values, numbers)) is not None and not plus.any():
            return moved
        values = np.empty(numbers.shape, self.lefts.values.dtype)
        flat, numbers = values.reshape(-1), numbers.reshape(-1)
        spare = self.spare.get(name)
        for at in range(0, len(flat), LARGE_PIECE):
            some = numbers[at : at + LARGE_PIECE]
            other = np.nan if spare is None else spare[at : at + LARGE_PIECE]
            flat[at : at + LARGE_PIECE] = np.where(some == 0, other, self.lefts.values[np.maximum(some, 0)])
        return values.astype(np.float64, copy=False) + self.lefts.values[plus] if plus.any() else values

    def lend(self, numbers: Array, values: Array) -> None:
        """Give values to elements that have no partner."""
        numbers, values = np.ravel(numbers).astype(np.int64), np.ravel(values)
        for name in self.owners(numbers):
            first, size = self.first(name), int(np.prod(self.shapes[name], dtype=int))
            own = (numbers >= first) & (numbers < first + size)
            self.spare.setdefault(name, np.full(size, np.nan))[numbers[own] - first] = values[own]


def strided(values: Array, numbers: Array | Stepped, origin: int = 0) -> Array | None:
    """Return values[numbers - origin] as a view; None for few numbers, and where no steps of axes give them."""
    if numbers.size < MANY:
        return None
    first, lines = int(numbers[(0,) * numbers.ndim]), steps(numbers)
    if first <= 0 or lines is None or any((line != line[:2][-1] * np.arange(len(line))).any() for line in lines):
        return None
    strides = [int(line[:2][-1]) * values.itemsize for line in lines]
    return np.lib.stride_tricks.as_strided(values[first - origin :], numbers.shape, strides)


def placed(values: Array, numbers: Array | Stepped) -> Array | None:
    """Return values[numbers] as a view, which is faster to read and to write; None where a number may stand twice."""
    return strided(values, numbers) if isinstance(numbers, Stepped) and numbers.single else None


@dataclass(frozen=True)
class Symbol:
    """A function of parameters alone that no activation has met.

    Args:
      ids: the numbers of the elements that it depends on, place by place; None where no such relation exists.
      value: computes it.
      plain: whether its values are those elements.
      parts: symbols whose product ("mul") or sum ("add") it is.
      leaves: the symbols from which it is computed.
      whole: of rows that tokens read: all of them, before other operations took some.
    """

    ids: Array | None
    value: Callable[[], Array]
    plain: bool = True
    join: str = ""
    parts: tuple[Symbol, ...] = ()
    leaves: tuple[Symbol, ...] = ()
    whole: Symbol | None = None

    @property
    def numbers(self) -> Array:
        """Return `ids` of a symbol that has them, as each part of a Pending does."""
        assert self.ids is not None
        return self.ids

    def moved(self, run: Callable[[Array], Array]) -> Symbol:
        """Return the symbol after an operation that moves elements."""
        value = self.value
        return replace(self, ids=None if self.ids is None else moved(run, self.ids), value=lambda: run(value()))

    def split(self, join: str) -> tuple[Symbol, ...]:
        return self.parts if self.join == join else (self,)

    def roots(self) -> tuple[Symbol, ...]:
        return self.leaves or (self,)


def moved(run: Callable[..., Array], *numbers: Array) -> Array:
    """Run a layout operation on element numbers: as floats where it takes no integers."""
    if all(array.dtype.kind == "f" for array in numbers):
        return run(*numbers)
    try:
        return run(*numbers)
    except Exception:  # a framework's function that has no kernel for integers
        return run(*(array.astype(float) if array.dtype == np.int32 else array for array in numbers))


class Part(NamedTuple):
    """A parameter in a product or sum.

    Args:
      at: the index of its operation.
      beside: the size of the values that it was multiplied with or added to there; tells terms of one sum apart.
    """

    at: int
    symbol: Symbol
    beside: float


@dataclass(frozen=True)
class Pending:
    """A product or sum of activations and parameters that nothing but more factors or terms has read yet.

    Frameworks multiply and add in different orders: all factors meet the product of all activations.

    Args:
      kind: "mul" or "add".
      x: the product or sum of the activations.
      parts: the parameters.
      bare: see Use.
    """

    kind: str
    x: Array
    parts: tuple[Part, ...]
    bare: Array | None = None


class Use(NamedTuple):
    """A place where a parameter meets an activation.

    Args:
      kind: "product", "add", "mul", or "place" where its value is needed as it is.
      node: its operation's index on the tape; -1 for an output.
      x: the values that it meets; None for "place".
      symbol: the parameter. In a product, x[b, rows, k] and ids[b, k, o].
      flipped: whether the operation is w @ x, so that the columns of its result are its second axis.
      group: the sum or product whose term or factor it is, as (operation, number), and how many others follow.
      beside: see Part.
      bare: of a term, the numbers of the elements that it is added to, as a position to a class token; else zeros.
        None where it is added to none.
    """

    kind: str
    node: int
    x: Array
    symbol: Symbol
    flipped: bool = False
    group: tuple[int, int, int] = (0, 0, 0)
    beside: float = 0.0
    bare: Array | None = None

    @property
    def ids(self) -> Array:
        return self.symbol.ids
