"""Compare two checkpoints array by array: by a Table, or by their names alone where they have one layout.

Nothing is known of a model here: equal arrays compute the same only in code that means the same by them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from specs.notation import Move

from . import by_table, payload, report
from .files import open_checkpoint
from .files.base import Reader, Tensor
from .planning import Planned, Promise, Step


@dataclass(frozen=True)
class Arrays:
    """A checkpoint as it is: each array under its own name."""

    reader: Reader
    sources: dict[str, Tensor]
    steps: list[Step]
    checks: list[Promise]

    def record(self) -> dict[str, Any]:
        return {}


def across(
    a: str, b: str, table: str, rtol: float, sizes: Mapping[str, int], backwards: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """What keeps B from being what a Table makes of A, and what the Table leaves out.

    Raises: ConvertError where either file does not fit the Table.
    """
    with contextlib.ExitStack() as stack:
        left = stack.enter_context(by_table.plan(a, table, backwards, b, sizes))
        payload.check(left)
        right = as_it_is(stack.enter_context(open_checkpoint(b)))
        return _differences(left, right, rtol), [*left.notes(), *_skipped(right.reader)]


def by_names(a: str, b: str, rtol: float) -> tuple[list[dict[str, Any]], list[str]] | None:
    """What keeps two files of one layout from holding the same arrays, and what in them is no array, so not compared.

    None where most names are not in both.
    """
    with open_checkpoint(a) as one, open_checkpoint(b) as two:
        both = one.tensors.keys() & two.tensors.keys()
        if 2 * len(both) <= max(len(one.tensors), len(two.tensors)):
            return None
        return _differences(as_it_is(one), as_it_is(two), rtol), [*_skipped(one), *_skipped(two)]


def _skipped(reader: Reader) -> list[str]:
    return [f"{reader.path}: set aside, {line}" for line in report.skipped(reader.skipped)]


def as_it_is(reader: Reader) -> Arrays:
    """A checkpoint's arrays as steps that copy them."""
    _, sources = by_table.part(reader, None)
    steps: list[Step] = []
    for name, tensor in sources.items():
        whole = (slice(None),) * len(tensor.shape)
        steps.append((tensor, [Move(name, tensor.shape, whole, tuple(range(len(whole))), tensor.shape, whole)]))
    return Arrays(reader, sources, steps, [])


def _differences(left: Any, right: Any, rtol: float) -> list[dict[str, Any]]:
    ours, theirs = ({tensor.name: (tensor, filling) for tensor, filling in side.steps} for side in (left, right))
    unread = left.layout.unread if isinstance(left, by_table.TablePlan) else ()
    found = [_entry(name, "missing") for name in ours if name not in theirs]
    found += [_entry(name, "unexpected") for name in theirs if name not in ours and name not in unread]
    for name in ours:
        if name in theirs:
            found += _arrays(left, ours[name], right, theirs[name], rtol)
    return found


def _entry(tensor: str, kind: str, error: float | None = None, detail: str = "") -> dict[str, Any]:
    return {"tensor": tensor, "kind": kind, "error": error, "detail": detail}


def _arrays(left: Planned, ours: Step, right: Planned, theirs: Step, rtol: float) -> list[dict[str, Any]]:
    """How two arrays differ: in shape, or by the largest difference relative to the first one's largest element."""
    import numpy as np

    name, shape, other = ours[0].name, ours[0].shape, theirs[0].shape
    if shape != other:
        return [_entry(name, "shape", None, f"{list(shape)} and {list(other)}")]
    a, b = _values(left, ours), _values(right, theirs)
    if np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc"):
        return []
    wide = "complex128" if "c" in a.dtype.kind + b.dtype.kind else "float64"
    a, b = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    gap[np.isnan(gap)] = np.inf  # a number against NaN
    at = int(np.argmax(gap))
    scale = float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) or 1.0
    error = float(gap[at]) / scale
    if error <= rtol and rtol:
        return []
    index = [int(k) for k in np.unravel_index(at, shape)]
    dtypes = "" if ours[0].dtype == theirs[0].dtype else f", {ours[0].dtype} and {theirs[0].dtype}"
    detail = f"at {index}: {a[at]:.9g} and {b[at]:.9g}{dtypes}"
    return [_entry(name, "value", error if np.isfinite(error) else None, detail)]


def _values(side: Planned, step: Step) -> Any:
    from .casting import decoded

    return decoded(b"".join(payload.chunks(side, step)), step[0].dtype)
