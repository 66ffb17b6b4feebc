"""Store the outputs of one run, and compare those of two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .tape import Array

OUTPUT = 1e-9  # relative error of outputs that rounding of float64 explains: a thousand operations in a row


class Outputs(NamedTuple):
    """The outputs of one run.

    Args:
      written: as the model computes them. exact: those whose gradients were taken, with casts to lower precision made
        void where the framework can do that.
    """

    written: list[Array]
    exact: list[Array]


def difference(a: Sequence[Array], b: Sequence[Array]) -> float:
    """Return the largest difference of an element, relative to the largest element of its output, of any dtype.

    It is infinite where outputs have other shapes or numbers, or a value that is not finite.
    """
    if incomparable(a, b):
        return float("inf")
    pairs = [(_wide(x), _wide(y)) for x, y in zip(a, b, strict=True)]
    return max(
        (float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-300)) for x, y in pairs), default=0.0
    )


def largest(a: Sequence[Array]) -> float:
    """Return the largest absolute value of all outputs."""
    return max((float(np.abs(_wide(x)).max(initial=0)) for x in a), default=0.0)


def equal(a: Sequence[Array], b: Sequence[Array]) -> bool:
    """Tell whether outputs are equal up to rounding."""
    return difference(a, b) <= OUTPUT


def incomparable(a: Sequence[Array], b: Sequence[Array]) -> str:
    """Return why two lists of outputs cannot be compared; "" if they can."""
    if len(a) != len(b):
        return f"{len(a)} on the left, {len(b)} on the right"
    for x, y in zip(a, b, strict=True):
        if np.shape(x) != np.shape(y):
            return f"shape {np.shape(x)} on the left, {np.shape(y)} on the right"
        for array, side in ((x, "left"), (y, "right")):
            if not np.isfinite(array).all():
                return f"those on the {side} are not all finite"
    return ""


def coarse(a: Sequence[Array]) -> str:
    """Return why equal outputs prove nothing: models that are nearly equal choose the same classes and tokens too."""
    real = any(np.asarray(x).dtype.kind in "fc" for x in a)
    return "" if real else "whole numbers, which nearly equal models share"


def _wide(array: Array) -> Array:
    return np.asarray(array, complex if np.asarray(array).dtype.kind == "c" else float)
