"""List and store the outputs of one run, and compare those of two models."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convert.errors import UsageError
from specs.words import with_article

from ..limits import EQUAL_OUTPUTS
from .call import flatten
from .tape import Array

MASK = 1e6  # absolute value from which an output of models with random weights stands for a place that a mask hides
COARSE = "whole numbers, which nearly equal models share"
TURNED = "the same values, with their axes in another order"


class Outputs(NamedTuple):
    """The outputs of one run.

    Args:
      written: as the model computes them. exact: those whose gradients were taken, with casts to lower precision made
        void where the framework can do that.
    """

    written: list[Array]
    exact: list[Array]


def listed(result: Any, is_array: Callable[[Any], bool]) -> Iterator[Any]:
    """Yield the arrays of a model's result, also those of NumPy, and its numbers as such: all that is compared.

    Those of a mapping come by its keys: JAX sorts these under jit, and people write them in any order.

    Args:
      is_array: tells an array of the model's framework.
    Raises: UsageError for what is none of these, and no container of them.
    """
    for _, leaf in flatten(by_keys(result)):
        if is_array(leaf):
            yield leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            yield from listed([getattr(leaf, field.name) for field in dataclasses.fields(leaf)], is_array)
        elif isinstance(leaf, bool | int | float | complex | np.ndarray | np.generic) and _numeric(leaf):
            yield np.array(leaf)
        elif leaf is not None:
            raise UsageError(
                f"returns {with_article(type(leaf).__name__)}, which cannot be compared: let it return arrays, "
                "numbers, and sequences, mappings or dataclasses of them, or pick these by parity.Call(..., output=...)"
            )


def by_keys(tree: Any) -> Any:
    """Sort the mappings in nested lists, tuples and mappings by their keys, as text."""
    if isinstance(tree, Mapping):
        return {key: by_keys(tree[key]) for key in sorted(tree, key=str)}
    return [by_keys(item) for item in tree] if isinstance(tree, (list, tuple)) else tree


def _numeric(leaf: Any) -> bool:
    return np.asarray(leaf).dtype.kind in "biufc"


def difference(a: Sequence[Array], b: Sequence[Array]) -> float:
    """Return the largest difference of an element, relative to the largest element of its output, of any dtype.

    It is infinite where outputs have other shapes or numbers, or a value that is not finite.
    """
    if incomparable(a, b):
        return float("inf")
    return max((_apart(_wide(x), _wide(y)) for x, y in zip(a, b, strict=True)), default=0.0)


def _apart(x: Array, y: Array) -> float:
    """Compare what a mask hides, -1e9 say, apart from other elements: relative to it, all others would be equal."""
    masked = np.maximum(np.abs(x), np.abs(y)) >= MASK
    errors = [0.0]
    for part in (masked, ~masked):
        size = np.abs(x[part]).max(initial=0)
        errors.append(float(np.abs(x[part] - y[part]).max(initial=0) / max(size, 1e-300)))
    return max(errors)


def largest(a: Sequence[Array]) -> float:
    """Return the largest absolute value of all outputs that no mask hides."""
    sizes = [np.abs(_wide(x)) for x in a]
    return max((float(size[size < MASK].max(initial=0)) for size in sizes), default=0.0)


def equal(a: Sequence[Array], b: Sequence[Array]) -> bool:
    """Tell whether outputs are equal up to rounding."""
    return difference(a, b) <= EQUAL_OUTPUTS


def incomparable(a: Sequence[Array], b: Sequence[Array]) -> str:
    """Return why two lists of outputs cannot be compared; "" if they can."""
    if len(a) != len(b):
        return f"{len(a)} on the left, {len(b)} on the right"
    for x, y in zip(a, b, strict=True):
        if np.shape(x) != np.shape(y):
            order = f": {TURNED}" if _turned(x, y) else ""
            return f"shape {np.shape(x)} on the left, {np.shape(y)} on the right{order}"
        for array, side in ((x, "left"), (y, "right")):
            if not np.isfinite(array).all():
                return f"those on the {side} are not all finite"
    return ""


def _turned(x: Array, y: Array) -> bool:
    """Tell whether one array equals another one, up to rounding, with its axes in another order."""
    x, y = _wide(x), _wide(y)
    for order in itertools.permutations(range(x.ndim)) if sorted(x.shape) == sorted(y.shape) and x.ndim <= 5 else ():
        turned = x.transpose(order)
        if turned.shape == y.shape and np.abs(turned - y).max(initial=0) <= EQUAL_OUTPUTS * np.abs(y).max(initial=0):
            return True
    return False


def coarse(a: Sequence[Array]) -> str:
    """Return why equal outputs prove nothing: models that are nearly equal choose the same classes and tokens too."""
    real = any(np.asarray(x).dtype.kind in "fc" and (np.asarray(x) != np.round(x)).any() for x in a)
    return "" if real else COARSE


def _wide(array: Array) -> Array:
    return np.asarray(array, complex if np.asarray(array).dtype.kind == "c" else float)
