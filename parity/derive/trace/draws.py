"""Draw weights for models: of a spread that keeps values apart from layer to layer, of the signs that the model has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from .sides import Side
from .tape import Array

LARGE = 1 << 20  # elements from which on a new draw is uniform, of float32: a fifth of the time, half of the memory


def draw(of: Side, seed: int, into: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Return random values for every parameter: of one sign where the model has them so (scales, variances).

    Args:
      into: arrays that get the values; else new ones.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, array in of.parameters.items():
        drawn[name] = np.empty(array.shape) if into is None else into[name]
        _draw(rng, array, of.output_axis, drawn[name])
    return drawn


def _draw(rng: np.random.Generator, like: Array, output_axis: int, out: Array, normal: bool = True) -> None:
    if like.ndim < 3 and like.size and (like > 0).all():  # of two axes: stacked over layers
        out[...] = rng.uniform(0.5, 1.5, like.shape)
        return
    if normal or like.size < LARGE:
        rng.standard_normal(out=out, dtype=out.dtype)
    else:  # of the same variance
        rng.random(out=out, dtype=out.dtype)
        out -= 0.5
        out *= math.sqrt(12)
    if like.ndim >= 2:
        out /= np.sqrt(min(max(1, like.size // like.shape[output_axis]), 4096))
    else:
        out *= 0.3


class Drawn(Mapping[str, Array]):
    """Random values for every parameter, of the same spread as those of draw(), drawn when read: bounds memory.

    Those of large ones are of float32: models get them as float64.

    Args:
      factor: by which matrices and kernels are smaller.
    """

    def __init__(self, of: Side, seed: int, factor: float = 1.0):
        self._of, self._seed, self._factor = of, seed, factor
        self._places = {name: k for k, name in enumerate(of.parameters)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Array:
        like = self._of.parameters[name]
        out = np.empty(like.shape, np.float64 if like.size < LARGE else np.float32)
        rng = np.random.default_rng((self._seed, self._places[name]))
        _draw(rng, like, self._of.output_axis, out, normal=False)
        if out.ndim >= 2 and self._factor != 1:
            out *= self._factor
        return out
