"""Compare two arrays element by element: find the worst one, where it is, and its values."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.given.quoting import quoted
from specs.numbers import apart, measured, short

OTHER_SHAPE = "other shape"  # in place of an error
FILL = 1e6  # absolute value from which one number at several places is that of a mask, as -1e9 is: scores are smaller
FILL_SPREAD = 1e-3  # relative difference of the largest and the smallest of such numbers: scores may be added to them
FILL_ROUNDING = 2.0**-47  # 64 float64 roundoffs: relative difference of the same fill in two models
IN_FIRST = "in the first model"  # whose values are what errors are relative to


@dataclass(frozen=True)
class Worst:
    """The element of two arrays that differs most.

    Args:
      error: |left - right| over the scale; infinite where there is nothing to compare.
      index: where, None if no element can be named.
      left, right: the values there.
      cause: why the error is infinite.
      remark: what the error is relative to, and of which run it is.
      sides: labels of the runs that `left` and `right` are from, where these are not the models themselves.
      word: what a table shows in place of an infinite error, where there are no two arrays to compare: "not called".
      shapes: of both arrays, where they differ.
    """

    error: float
    index: tuple[int, ...] | None = None
    left: float = math.nan
    right: float = math.nan
    cause: str = ""
    remark: str = ""
    sides: tuple[str, ...] = ()
    word: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()

    def between(self, left: str, right: str) -> Worst:
        """Name the two sides in the cause, where that is a value that is not finite, or other shapes."""
        if self.shapes:
            return replace(
                self, cause=f"shapes differ: {list(self.shapes[0])} in {left}, {list(self.shapes[1])} in {right}"
            )
        if self.index is None or not self.cause:
            return self
        place, values = f" at {list(self.index)}" if self.index else "", [_word(value) for value in self.values]
        cause = f"{values[0]} in {left}, {values[1]} in {right}{place}"
        if values[0] == values[1]:
            cause = f"{values[0]} in {left} and in {right}{place}, so that nothing is proven of it"
        return replace(self, cause=cause)

    @property
    def values(self) -> tuple[float, float]:
        return self.left, self.right

    def text(self, sides: tuple[str, ...] = ()) -> str:
        """State everything in a line, with both values.

        Args:
          sides: labels of both models, where `self.sides` has no others; () if they are not known.
        """
        if self.cause:
            return self.cause
        labels = map(quoted, self.sides or sides)
        pairs = itertools.zip_longest(aligned(self.left, self.right), labels)
        values = " and ".join(f"{value} in {label}" if label else value for value, label in pairs)
        return f"{short(self.error)} at {list(self.index or ())}: {values} ({self.quotient})"

    @property
    def quotient(self) -> str:
        """Say what the error is: "a difference of 9e-6, relative to 1.78, the largest element in the first model"."""
        return ", ".join(filter(None, (f"a difference of {measured(abs(self.left - self.right))}", self.remark)))


def aligned(left: float, right: float) -> tuple[str, str]:
    """Round two values to the decimals that tell them apart, equally many of both: "-0.600", "-0.534"."""
    texts = apart(left, right)
    decimals = max(len(text.partition(".")[2]) for text in texts)
    if not decimals or "e" in "".join(texts) or not all(map(math.isfinite, (left, right))):
        return texts
    return f"{left:.{decimals}f}", f"{right:.{decimals}f}"


def worst(a: Any, b: Any, scale: float | None = None) -> Worst:
    """Return the element of `a` and `b` that differs most, relative to `scale`: by default the largest element of `a`.

    Other shapes, NaNs, infinities and empty arrays are infinitely wrong: never a pass by accident.
    """
    exact = _gap(a, b) if are_integers(a, b) else None
    a, b = (np.asarray(a), np.asarray(b)) if exact is not None else (double(a), double(b))
    if a.shape != b.shape:
        cause = f"shapes differ: {list(a.shape)} and {list(b.shape)}"
        return Worst(math.inf, cause=cause, word=OTHER_SHAPE, shapes=(a.shape, b.shape))
    if a.size == 0:
        return Worst(math.inf, cause="nothing to compare: the arrays are empty")
    sick = ~(np.isfinite(a) & np.isfinite(b))
    if sick.any():
        index = _at(sick, int(np.argmax(sick)))
        values = float(a[index]), float(b[index])
        cause = f"not finite at {list(index)}: {_word(values[0])} and {_word(values[1])}"
        return Worst(math.inf, index, *values, cause, word="NaN" if any(map(math.isnan, values)) else "")
    difference = np.abs(a - b) if exact is None else exact
    index = _at(difference, int(np.argmax(difference)))
    largest = float(np.max(np.abs(double(a)))) if scale is None else scale
    remark = f"relative to {measured(largest)}" + (f", the largest element {IN_FIRST}" if scale is None else "")
    error = float(difference[index]) / (largest or 1.0)
    return Worst(error, index, a[index].item(), b[index].item(), remark=remark if largest else "absolute")


def are_integers(a: Any, b: Any) -> bool:
    """Tell whether both arrays have integers: rounding does not change them, and no float has all large ones."""
    return all(np.asarray(array).dtype.kind in "iu" for array in (a, b))


def _gap(a: Any, b: Any) -> np.ndarray:
    """Return |a - b| of integers, at least 1 where they differ, though they may be one number in float64."""
    if np.shape(a) != np.shape(b):
        return np.zeros(0)
    return np.where(np.not_equal(a, b), np.maximum(np.abs(double(a) - double(b)), 1.0), 0.0)


def without_shared(a: Any, b: Any, rounding: float = FILL_ROUNDING) -> tuple[np.ndarray, np.ndarray]:
    """Return both in float64, with 0 wherever both have NaN, or what masks have: the same infinity or the same fill.

    Integers are returned as they are. Infinities and fills stay where they are all that is left, and so do arrays of
    other shapes. What agrees in its other elements is not thereby proven: see `shared_nans`.

    Args:
      rounding: relative difference up to which fills are the same; see `shared_fills`.
    """
    if are_integers(a, b):
        return np.asarray(a), np.asarray(b)
    a, b = double(a), double(b)
    if a.shape != b.shape:
        return a, b
    shared = shared_nans(a, b)
    for masked in (np.isinf(a) & (a == b), shared_fills(a, b, rounding)):
        if not (shared | masked).all():
            shared = shared | masked
    return (np.where(shared, 0.0, a), np.where(shared, 0.0, b)) if shared.any() else (a, b)


def shared_fills(a: Any, b: Any, rounding: float = FILL_ROUNDING) -> np.ndarray:
    """Return where both have the number with which a mask fills places, up to rounding: relative to it all is equal."""
    a, b = double(a), double(b)
    places = _filled(a) & _filled(b) if a.shape == b.shape else np.zeros(a.shape, bool)
    if places.any() and rounding < math.inf:
        with np.errstate(over="ignore"):  # of opposite signs
            places[places] = np.abs(a[places] - b[places]) <= rounding * np.abs(a[places])
    return places


def _filled(array: np.ndarray) -> np.ndarray:
    """Return where an array has one large number, or that number with smaller ones added."""
    places = np.isfinite(array) & (np.abs(array) >= FILL)
    values = array[places]
    if values.size and np.ptp(values / values[0]) > FILL_SPREAD:
        return np.zeros_like(places)
    return places


def shared_nans(a: Any, b: Any) -> np.ndarray:
    """Return where both have NaN; nowhere in arrays of other shapes."""
    a, b = double(a), double(b)
    return np.isnan(a) & np.isnan(b) if a.shape == b.shape else np.zeros(a.shape, bool)


def movement(a: Any, b: Any) -> np.ndarray:
    """Return |a - b| of two runs of one model in float64, 0 where that is no finite number, or both have a fill."""
    a, b = map(double, without_shared(a, b, math.inf))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nan_to_num(np.abs(a - b), nan=0.0, posinf=0.0))


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference over the largest element of `a`; infinite for NaNs, other shapes or no elements."""
    return worst(a, b).error


def by_feature(array: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the largest element of each slice along `axis`, or of the whole array where axis is None; (features,)."""
    if axis is None:
        return np.reshape(array.max(initial=0.0), 1)
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).max(1, initial=0.0)


def feature_axis(check: str, name: str, array: np.ndarray) -> int | None:
    """Return the axis whose slices are judged by their own scale: features of activations, steps of losses.

    Activations of four and more axes are (n, c, ...), all others (..., features). None: judged as a whole, as
    parameters and their gradients are.
    """
    if check == "train":
        return 0 if array.ndim and name.endswith(": losses") else None
    if array.ndim < 2 or (check == "gradients" and name != "output"):
        return None
    return 1 if array.ndim >= 4 else array.ndim - 1


def double(array: Any) -> np.ndarray:
    """Convert to float64; complex numbers get a last axis with their real and imaginary parts."""
    array = np.asarray(array)
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], -1)
    return np.asarray(array, np.float64)


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else measured(value) if math.isfinite(value) else f"{'-' * (value < 0)}infinity"


def _at(array: np.ndarray, flat: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, array.shape))
