"""Resize bicubically by two matrix products, the same in every framework."""

from __future__ import annotations

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
    centres = (np.arange(out) + 0.5) * (size / out) - 0.5
    below = np.floor(centres).astype(int)
    matrix = np.zeros((out, size))
    for tap in range(-1, 3):
        source = np.clip(below + tap, 0, size - 1)
        np.add.at(matrix, (np.arange(out), source), keys(centres - below - tap, A))
    matrix.flags.writeable = False
    return matrix


def keys(x: np.ndarray, a: float) -> np.ndarray:
    """Evaluate Keys' cubic kernel, which is zero from a distance of 2."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
