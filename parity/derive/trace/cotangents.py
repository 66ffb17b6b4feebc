"""Weight the outputs of a model: their sum is one number, by whose gradients two models are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .tape import Array

Take = Callable[[str, Array], None]  # gets the name of a parameter and its gradient
# Standard deviation of the weights: code that clips gradients, at 1 to 100 say, clips some of these. Larger ones would
# overflow in models that compute partly in float16
SPREAD = 256


def cotangents(outputs: Sequence[Any], is_finite: Callable[[Any], Any]) -> list[Array]:
    """Return random weights for outputs, the same ones for all models whose outputs have these shapes.

    Infinite elements, as masked logits have, get zero: no parameter changes them, however the mask is applied.

    Args:
      is_finite: tells it of each element of an output.
    """
    rng = np.random.default_rng(3000)
    return [SPREAD * rng.standard_normal(tuple(out.shape)) * is_finite(out) for out in outputs]
