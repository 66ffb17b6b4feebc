"""Draw weights for models: of a spread that keeps values apart from layer to layer, of the signs that the model has."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from parity.derive.limits import LARGE_DRAW, STORED_DRAWS

from .sides import Side
from .tape import Array


def draw(side: Side, seed: int, into: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Return random values for every parameter: of one sign where the model has them so (scales, variances).

    Args:
      into: arrays that get the values; else new ones.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, array in side.parameters.items():
        drawn[name] = np.empty(array.shape) if into is None else into[name]
        _draw(rng, array, side.output_axis, drawn[name])
    return drawn


def positive(like: Array) -> bool:
    """Tell whether a parameter of these values is drawn positive: a scale, or several stacked over layers."""
    return bool(like.ndim < 3 and like.size and (like > 0).all())


def of_one_value(array: Array) -> bool:
    """Tell whether an array has one value, so that no element is told from another one."""
    return bool(array.size and (array == array.flat[0]).all())


def _draw(rng: np.random.Generator, like: Array, output_axis: int, out: Array, normal: bool = True) -> None:
    if positive(like):
        out[...] = rng.uniform(0.5, 1.5, like.shape)
        return
    if normal or like.size < LARGE_DRAW:
        rng.standard_normal(out=out, dtype=out.dtype)
    else:  # of the same variance
        rng.random(out=out, dtype=out.dtype)
        out -= 0.5
        out *= math.sqrt(12)
    if like.ndim >= 2:
        out /= math.sqrt(min(max(1, like.size // like.shape[output_axis]), 4096))  # numpy's would widen each float32
    else:
        out *= 0.3


def _dtype(like: Array) -> np.dtype[Any]:
    return np.dtype(np.float64 if like.size < LARGE_DRAW else np.float32)


class Drawn(Mapping[str, Array]):
    """Random values for every parameter, of the same spread as those of draw(), drawn when read: bounds memory.

    Those of large ones are of float32: models get them as float64.

    Args:
      factor: by which matrices and kernels are smaller.
    """

    def __init__(self, side: Side, seed: int, factor: float = 1.0):
        self._of, self._seed, self._factor = side, seed, factor
        self._places = {name: k for k, name in enumerate(side.parameters)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Array:
        like = self._of.parameters[name]
        out = np.empty(like.shape, _dtype(like))
        rng = np.random.default_rng((self._seed, self._places[name]))
        _draw(rng, like, self._of.output_axis, out, normal=False)
        if out.ndim >= 2 and self._factor != 1:
            out *= self._factor
        return out


def drawn(side: Side, seed: int, factor: float = 1.0) -> Mapping[str, Array]:
    """Return the values of Drawn: those of a large model are drawn anew whenever they are read, others once.

    The latter are read-only, so that no run changes those of the next one.
    """
    values = Drawn(side, seed, factor)
    if sum(array.size * _dtype(array).itemsize for array in side.parameters.values()) >= STORED_DRAWS:
        return values
    stored = dict(values)
    for array in stored.values():
        array.flags.writeable = False
    return stored


class Altered(Mapping[str, Array]):
    """Values of which those of some names are changed when they are read.

    Args:
      change: returns the other values for (name, usual ones).
    """

    def __init__(self, usual: Mapping[str, Array], names: Collection[str], change: Callable[[str, Array], Array]):
        self._usual, self._names, self._change = usual, frozenset(names), change

    def __len__(self) -> int:
        return len(self._usual)

    def __iter__(self) -> Iterator[str]:
        return iter(self._usual)

    def __getitem__(self, name: str) -> Array:
        usual = self._usual[name]
        return self._change(name, usual) if name in self._names else usual
