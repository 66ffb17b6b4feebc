"""Resize by products with matrices, the same in every framework."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

A = -0.75  # of the cubic kernel: torch's and OpenCV's; `jax.image.resize` and Pillow use -0.5


@cache
def bicubic_matrix(out: int, size: int) -> np.ndarray:
    """Return what each of `out` samples takes from each of `size`: float64, (out, size), rows that sum to 1.

    Half-pixel centres, samples beyond the border read the border, no antialiasing: torch's
    F.interpolate(mode="bicubic", align_corners=False). An image becomes rows @ image @ columns.T.
    Source: R. Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    matrix = sampled((np.arange(out) + 0.5) * (size / out) - 0.5, size, cubic, 2)
    matrix.flags.writeable = False
    return matrix


def sampled(places: np.ndarray, size: int, kernel: Callable[[np.ndarray], np.ndarray], reach: int) -> np.ndarray:
    """Return what samples at some places take from each of `size`: float64, (places, size).

    Samples beyond the border read the border.

    Args:
      kernel: the weight of a distance, which is zero from `reach` on.
    """
    below = np.floor(places).astype(int)
    matrix = np.zeros((len(places), size))
    for tap in range(1 - reach, reach + 1):
        source = np.clip(below + tap, 0, size - 1)
        np.add.at(matrix, (np.arange(len(places)), source), kernel(places - below - tap))
    return matrix


def cubic(x: np.ndarray) -> np.ndarray:
    """Evaluate the cubic kernel of torch, which is zero from a distance of 2."""
    return keys(x, A)


def linear(x: np.ndarray) -> np.ndarray:
    """Evaluate the linear kernel, which is zero from a distance of 1."""
    return np.maximum(1 - np.abs(x), 0)


def keys(x: np.ndarray, a: float) -> np.ndarray:
    """Evaluate Keys' cubic kernel, which is zero from a distance of 2."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
