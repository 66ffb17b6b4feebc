"""List and store the outputs of one run, and compare those of two models."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convert.errors import UsageError
from parity.derive.limits import EQUAL_OUTPUTS, HUGE
from specs.numbers import measured, short
from specs.words import with_article

from .call import flatten
from .reason import Reason
from .tape import Array

MOST_AXES = 5  # of outputs of which orders of axes are tried
COARSE = Reason(
    "whole numbers, which nearly equal models share",
    "let both models return the values from which these numbers are chosen; then derive again",
)
ZEROS = Reason(
    "all zero, which shows nothing",
    "let both models return outputs that depend on their weights; then derive again",
)
INFINITE = "infinite in"
NOWHERE = Reason(
    "infinite everywhere, which shows nothing",
    "let both models return outputs with finite values, as those before a mask; then derive again",
)
SAME = "let both models return the same outputs: parity.Call(..., output=...) picks those that are compared"
ONE_SHAPE = "let both models return outputs of one shape; then derive again"


def differ_by(error: float) -> str:
    """Say by how much outputs differ."""
    return f"differ by {short(error)} of their largest element"


class Outputs(NamedTuple):
    """The outputs of one run.

    Args:
      written: as the model computes them. exact: those whose gradients were taken, with casts to lower precision made
        void where the framework can do that.
    """

    written: list[Array]
    exact: list[Array]


class Named(NamedTuple):
    """The paths of outputs in a model's result, in order, and of those that are None."""

    arrays: Sequence[str] = ()
    none: Sequence[str] = ()

    @classmethod
    def of(cls, leaves: Sequence[tuple[str, Any]]) -> Named:
        """Take what `listed` returned."""
        return cls([path for path, leaf in leaves if leaf is not None], [path for path, leaf in leaves if leaf is None])


def listed(result: Any, is_array: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    """Return (path, array) of all in a model's result, also those of NumPy, and its numbers as such: what is compared.

    Those of a mapping come by its keys: JAX sorts these under jit, and people write them in any order.

    Args:
      is_array: tells an array of the model's framework.
    Raises: UsageError for what is none of these, None, and no container of them.
    """
    return list(_listed(result, is_array))


def _listed(result: Any, is_array: Callable[[Any], bool], above: str = "") -> Iterator[tuple[str, Any]]:
    for path, leaf in flatten(by_keys(result), above):
        if is_array(leaf) or leaf is None:
            yield path, leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            for field in dataclasses.fields(leaf):
                yield from _listed(getattr(leaf, field.name), is_array, f"{path}/{field.name}".lstrip("/"))
        elif isinstance(leaf, bool | int | float | complex | np.ndarray | np.generic) and _numeric(leaf):
            yield path, np.array(leaf)
        else:
            raise UsageError(
                f"returns {with_article(type(leaf).__name__)}, which cannot be compared: let it return arrays, "
                "numbers, and sequences, mappings or dataclasses of them, or pick these by parity.Call(..., output=...)"
            )


def by_keys(tree: Any) -> Any:
    """Sort the mappings in nested lists, tuples and mappings by their keys, as text."""
    if isinstance(tree, Mapping):
        return {key: by_keys(tree[key]) for key in sorted(tree, key=str)}
    return [by_keys(item) for item in tree] if isinstance(tree, (list, tuple)) else tree


def axes_of(a: Sequence[Array], b: Sequence[Array]) -> dict[int, tuple[int, ...]]:
    """Return the order of axes in which each output of b has the shape of a's, for those that have it in no other way.

    Of several orders, the one that keeps most axes side by side, as where channels come last. Empty where outputs
    differ in more than that.
    """
    axes = dict[int, tuple[int, ...]]()
    for k, (x, y) in enumerate(zip(map(np.shape, a), map(np.shape, b), strict=True) if len(a) == len(b) else ()):
        if x != y:
            orders = itertools.permutations(range(len(y))) if sorted(x) == sorted(y) and len(y) <= MOST_AXES else ()
            fitting = [order for order in orders if tuple(y[axis] for axis in order) == x]
            if not fitting:
                return {}
            axes[k] = min(fitting, key=lambda order: (order[0] != 0, (np.diff(order) != 1).sum()))
    return axes


def clash(a: Named, b: Named) -> str:
    """Return which output is an array in one result and None in the other; "" if none is."""
    sides = (("right", "left", a, b), ("left", "right", b, a))
    text = "; ".join(
        f"{path} is None on the {side} and an array on the {other}"
        for side, other, one, two in sides
        for path in one.arrays
        if path in two.none
    )
    return Reason(text, SAME) if text else ""


def paired(a: Named, b: Named) -> list[int]:
    """Return which output of b goes with each one of a: that of the same path; the others in their order."""
    places = {path: k for k, path in enumerate(b.arrays)}
    same = {path: places[path] for path in a.arrays if path in places}
    if len(set(a.arrays)) < len(a.arrays) or len(places) < len(b.arrays):  # a key has the separator of paths
        same = {}
    rest = iter(sorted(set(range(len(b.arrays))) - set(same.values())))
    return [same[path] if path in same else next(rest) for path in a.arrays]


def arranging(
    output: Callable[[Any], Any], order: Sequence[int], axes: Mapping[int, tuple[int, ...]]
) -> Callable[[Any], Any]:
    """Return a function that picks the same outputs in another order, with the axes of some turned."""

    def arranged(result: Any) -> list[Any]:
        arrays = listed(output(result), lambda leaf: hasattr(leaf, "shape") and hasattr(leaf, "dtype"))
        leaves = [leaf for _, leaf in arrays if leaf is not None]
        return [_in_order(leaves[at], axes[k]) if k in axes else leaves[at] for k, at in enumerate(order)]

    return arranged


def _in_order(array: Any, order: tuple[int, ...]) -> Any:
    return array.permute(order) if hasattr(array, "permute") else array.transpose(order)


def _numeric(leaf: Any) -> bool:
    return np.asarray(leaf).dtype.kind in "biufc"


def difference(a: Sequence[Array], b: Sequence[Array]) -> float:
    """Return the largest difference of an element of any dtype, relative to the largest of its output; see size_of.

    Infinite values, as masked logits have, are equal to those of the same sign. The difference is infinite where
    outputs cannot be compared.
    """
    if incomparable(a, b):
        return float("inf")
    return max((_apart(_wide(x), _wide(y)) for x, y in zip(a, b, strict=True)), default=0.0)


def parted(a: Sequence[Array], b: Sequence[Array]) -> float:
    """Return `difference`, but 1 where outputs are infinite in other places: an edit may make them equal there."""
    return 1.0 if incomparable(a, b).startswith(INFINITE) else difference(a, b)


def _apart(x: Array, y: Array) -> float:
    """Compare what a mask hides, -1e9 say, apart from other elements: relative to it, all others would be equal."""
    finite = np.isfinite(x)  # infinities are equal here: see incomparable
    x, y = x[finite], y[finite]
    masked = np.maximum(np.abs(x), np.abs(y)) >= HUGE
    errors = [0.0]
    for part in (masked, ~masked):
        errors.append(float(np.abs(x[part] - y[part]).max(initial=0)) / size_of(x[part], y[part]))
    return max(errors)


def size_of(x: Array, y: Array) -> float:
    """Return the largest absolute value of x, or of y where x is zero; 1 where both are."""
    return float(np.abs(x).max(initial=0) or np.abs(y).max(initial=0) or 1)


def largest(a: Sequence[Array]) -> float:
    """Return the largest absolute value of all outputs that no mask hides."""
    sizes = [np.abs(_wide(x)) for x in a]
    return max((float(size[size < HUGE].max(initial=0)) for size in sizes), default=0.0)


def equal(a: Sequence[Array], b: Sequence[Array]) -> bool:
    """Tell whether outputs are equal up to rounding."""
    return difference(a, b) <= EQUAL_OUTPUTS


def incomparable(a: Sequence[Array], b: Sequence[Array]) -> str:
    """Return why two lists of outputs cannot be compared; "" if they can."""
    if len(a) != len(b):
        return Reason(f"{len(a)} on the left, {len(b)} on the right", SAME)
    for x, y in zip(a, b, strict=True):
        if np.shape(x) != np.shape(y):
            return Reason(f"shape {list(np.shape(x))} on the left, {list(np.shape(y))} on the right", ONE_SHAPE)
        if not all(np.isfinite(side).all() for side in (x, y)) and (text := _infinite(_wide(x), _wide(y))):
            return text
    return ""


def _infinite(x: Array, y: Array) -> str:
    """Return how two outputs of one shape differ in what is not finite, or that nothing is finite; "" if neither."""
    for array, side in ((x, "left"), (y, "right")):
        if np.isnan(array).any():
            return f"those on the {side} have NaN, which is equal to nothing"
    infinite = [~np.isfinite(array) for array in (x, y)]
    apart = np.argwhere((infinite[0] | infinite[1]) & (x != y))
    if len(apart):
        numbers = [f"{int(places.sum()):,} of {places.size:,} places" for places in infinite]
        first = tuple(map(int, apart[0]))
        values = f"{list(first)} with {measured(x[first])} and {measured(y[first])}"
        return f"{INFINITE} {numbers[0]} on the left, {numbers[1]} on the right; the first that differs is {values}"
    return NOWHERE if infinite[0].all() else ""


def coarse(a: Sequence[Array]) -> str:
    """Return why equal outputs prove nothing: models that are nearly equal choose the same classes and tokens too."""
    if not any(np.any(x) for x in a):
        return ZEROS
    real = any(np.asarray(x).dtype.kind in "fc" and (np.asarray(x) != np.round(x)).any() for x in a)
    return "" if real else COARSE


def _wide(array: Array) -> Array:
    return np.asarray(array, complex if np.asarray(array).dtype.kind == "c" else float)
