"""Compare the arrays of two sides, block by block: memory is needed for what computing a side's array takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from . import payload
from .files.base import ITEMSIZE
from .steps import Step, Steps

if TYPE_CHECKING:
    import numpy as np

BLOCK = 1 << 16  # elements compared at once: what stays in a core's cache


def differences(
    left: Steps, right: Steps, rtol: float, skip: Callable[[str], bool] = lambda _: False
) -> list[dict[str, Any]]:
    """Return what differs between two sides' target arrays, those aside whose names `skip` takes."""
    ours, theirs = (
        {tensor.name: (tensor, filling) for tensor, filling in side.steps if not skip(tensor.name)}
        for side in (left, right)
    )
    entries = [entry(name, "missing") for name in ours if name not in theirs]
    entries += [entry(name, "unexpected") for name in theirs if name not in ours]
    for name in ours:
        if name in theirs:
            entries += _arrays(left, ours[name], right, theirs[name], rtol)
    return entries


def entry(tensor: str, kind: str, error: float | None = None, detail: str = "") -> dict[str, Any]:
    return {"tensor": tensor, "kind": kind, "error": error, "detail": detail}


def _arrays(left: Steps, ours: Step, right: Steps, theirs: Step, rtol: float) -> list[dict[str, Any]]:
    """Return how two arrays differ: in shape, or by the largest difference over the first one's largest element."""
    import numpy as np

    name, shape, other = ours[0].name, ours[0].shape, theirs[0].shape
    if shape != other:
        return [entry(name, "shape", None, f"{list(shape)} and {list(other)}")]
    if all(_equal(a, b) for a, b in _blocks(left, ours, right, theirs)):
        return []
    largest, scale, start = Largest(-1.0, 0, 0.0, 0.0), 0.0, 0
    for a, b in _blocks(left, ours, right, theirs):
        wide = "complex128" if "c" in a.dtype.kind + b.dtype.kind else "float64"
        a, b = a.astype(wide), b.astype(wide)
        with np.errstate(invalid="ignore"):
            gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        gap[np.isnan(gap)] = np.inf  # a number against NaN
        at = int(np.argmax(gap))
        if gap[at] > largest.gap:
            largest = Largest(float(gap[at]), start + at, a[at], b[at])
        scale = max(scale, float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))))
        start += a.size
    error = largest.gap / (scale or 1.0)
    if error <= rtol and rtol:
        return []
    index = [int(k) for k in np.unravel_index(largest.at, shape)]
    dtypes = "" if ours[0].dtype == theirs[0].dtype else f", {ours[0].dtype} and {theirs[0].dtype}"
    detail = f"at {index}: {largest.a:.9g} and {largest.b:.9g}{dtypes}"
    return [entry(name, "value", error if np.isfinite(error) else None, detail)]


class Largest(NamedTuple):
    """The largest difference of two arrays: where among their elements, and the two values."""

    gap: float
    at: int
    a: Any
    b: Any


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether values are equal, NaN to NaN."""
    import numpy as np

    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")


def _blocks(left: Steps, ours: Step, right: Steps, theirs: Step) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the same elements of two arrays, block by block."""
    return zip(_values(left, ours), _values(right, theirs), strict=True)


def _values(side: Steps, step: Step) -> Iterator[np.ndarray]:
    """Yield an array's values in blocks of BLOCK elements."""
    from .casting import decoded

    size, waiting = BLOCK * ITEMSIZE[step[0].dtype], bytearray()
    for piece in payload.chunks(side, step):
        waiting += piece
        while len(waiting) >= size:
            yield decoded(waiting[:size], step[0].dtype)
            del waiting[:size]
    if waiting:
        yield decoded(waiting, step[0].dtype)
