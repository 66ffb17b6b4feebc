"""Weight the outputs of a model: their sum is one number, by whose gradients two models are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .tape import Array

Take = Callable[[str, Array], None]  # gets the name of a parameter and its gradient


def cotangents(outputs: Sequence[Any], is_finite: Callable[[Any], Any]) -> list[Array]:
    """Return random weights for outputs, the same ones for all models whose outputs have these shapes.

    Infinite elements, as masked logits have, get zero: no parameter changes them, however the mask is applied.

    Args:
      is_finite: tells it of each element of an output.
    """
    rng = np.random.default_rng(3000)
    return [rng.standard_normal(tuple(out.shape)) * is_finite(out) for out in outputs]
