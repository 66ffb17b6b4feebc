"""Draw weights for outputs: the gradients of their weighted sum are compared. Tell whether a model has gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .frames import message
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


class NoGradients(Exception):
    """Raised where the code of a model, or of its framework, fails to compute gradients."""


class GradientSink:
    """Pass gradients on to `take`, whose own errors are none of the model's."""

    def __init__(self, take: Take):
        self.take, self.failed = take, False

    def __call__(self, name: str, gradient: Array) -> None:
        try:
            self.take(name, gradient)
        except Exception:
            self.failed = True
            raise

    @contextlib.contextmanager
    def from_model(self) -> Iterator[None]:
        """Run a model, or its framework. Raises: NoGradients for their errors."""
        try:
            yield
        except Exception as problem:  # an operation that has none in evaluation mode, as paddle's recurrent ones
            if self.failed:
                raise
            raise NoGradients(message(problem)) from problem
