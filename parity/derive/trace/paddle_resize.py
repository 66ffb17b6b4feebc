"""Resize as paddle does, in float64: its kernels round the places that are read to float32, whatever the dtype.

Only the nearest resize reads the same places in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ports.resize import cubic, linear, sampled

from .tape import Array


class Resize(NamedTuple):
    """What an interpolation is asked for.

    Args:
      axes, sizes: axes that are resized, and their new lengths.
      ratios: places of the input from one of the output to the next.
      cubic: the cubic kernel, in place of the linear one.
      centred: places are centres of pixels, in place of their first corners.
    """

    axes: Sequence[int]
    sizes: Sequence[int]
    ratios: Sequence[float]
    cubic: bool
    centred: bool

    @classmethod
    def of(cls, shape: Sequence[int], args: Sequence[Any]) -> Resize:
        """Return what an operation of paddle is asked for. Args: shape: of the input. args: of the operation."""
        layout, sizes, scales, method, align, mode = args[4], args[5:8], args[8], *args[9:12]
        axes = range(1, len(shape) - 1) if layout[-1] == "C" else range(2, len(shape))
        own = sizes[-len(axes) :]
        scales = [*scales] if scales else [0.0] * len(axes)
        lengths = [
            size if size > 0 else int(shape[axis] * scale) for axis, size, scale in zip(axes, own, scales, strict=True)
        ]
        ratios = [
            ((n - 1) / (m - 1) if m > 1 else 0.0) if align else (1 / scale if scale > 0 else n / m)
            for n, m, scale in zip((shape[axis] for axis in axes), lengths, scales, strict=True)
        ]
        is_cubic = "cubic" in method
        return cls(axes, lengths, ratios, is_cubic, not align and (is_cubic or mode == 0))

    @property
    def is_exact(self) -> bool:
        """Tell whether float32 holds the ratios, so that paddle's own kernel reads the same places."""
        return all(float(np.float32(ratio)) == ratio for ratio in self.ratios)

    def apply(self, x: Array) -> Array:
        """Return an array resized along each axis by a product with a matrix."""
        for axis, size, ratio in zip(self.axes, self.sizes, self.ratios, strict=True):
            matrix = self._matrix(x.shape[axis], size, ratio)
            x = np.moveaxis(np.tensordot(x, matrix, (axis, 1)), -1, axis)
        return x

    def _matrix(self, before: int, after: int, ratio: float) -> Array:
        """Return what each place after reads of each one before."""
        at = (np.arange(after) + 0.5) * ratio - 0.5 if self.centred else np.arange(after) * ratio
        return sampled(at, before, cubic, 2) if self.cubic else sampled(np.maximum(at, 0), before, linear, 1)
