"""Draw the random images that models are compared on."""

from __future__ import annotations

import math

import numpy as np

from convert.errors import UsageError

MAX_IMAGES = 1 << 28  # bytes of a batch in float64: what a network makes of it takes many times that


def draw(batch: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Draw standard normal images (n, c, h, w), float64.

    Raises: UsageError where they are too many or too large: a stranger's file may ask for any size.
    """
    if 8 * batch * math.prod(shape) > MAX_IMAGES:
        size = " x ".join(map(str, (batch, *shape)))
        raise UsageError(f"images of {size} numbers take over {MAX_IMAGES >> 20} MB: fewer or smaller ones are enough")
    return np.random.default_rng(seed).standard_normal((batch, *shape))
