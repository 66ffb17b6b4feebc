"""Weight the outputs of a model: their sum is one number, by whose gradients two models are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .tape import Array

Take = Callable[[str, Array], None]  # gets the name of a parameter and its gradient


def cotangents(outputs: Sequence[Array]) -> list[Array]:
    """Return random weights for outputs, the same ones for all models whose outputs have these shapes."""
    rng = np.random.default_rng(3000)
    return [rng.standard_normal(tuple(out.shape)) for out in outputs]
