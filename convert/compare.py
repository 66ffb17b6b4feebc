"""Are two checkpoints the same model? Compared in the hub's layout, whatever their dialects and formats."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specs.config import as_dict

from .configuration import Settings
from .configure import check_names, differing, unshown
from .errors import UsageError
from .formats.base import Tensor
from .payload import chunks
from .planning import HUB, Constant, Plan, plan


def differences(
    a: str,
    b: str,
    rtol: float = 0.0,
    settings: Mapping[str, Any] | Settings | None = None,
    assume: bool = False,
    weights: tuple[str | None, str | None] = (None, None),
    notes: list[str] | None = None,
) -> list[dict[str, Any]]:
    """What keeps two files from being the same model, in our terms: [{"tensor", "kind", "error", "detail"}].

    Kinds: architecture, config, missing (only in A), unexpected (only in B), shape, dtype (values that only one dtype
    can hold alike are compared as float64), value (error: largest difference relative to A's largest finite element;
    None where a number stands against NaN or an infinity).

    Args:
      settings: Config fields for a file that leaves any open; else the other file's are taken.
      assume: accept defaults where both files leave them open.
      weights: which part of A and of B to take; None finds it.
      notes: extended by what part of each file was taken and what was set aside.
    Raises: UsageError for settings that the architecture does not have.
    """
    stated = Settings.of(settings)
    with contextlib.ExitStack() as stack:
        left, right = _plans(stack, (a, weights[0]), (b, weights[1]), stated, assume)
        if notes is not None:
            notes += [f"{s.reader.path}: {note}" for s in (left, right) for note in (*s.part(), *s.left_out())]
        check_names([(a, left.match), (b, right.match)], stated)
        if left.architecture != right.architecture:
            return [_entry("", "architecture", None, f"{left.architecture} and {right.architecture}")]
        found = _configs(left, right)
        ours, theirs = ({t.name: (t, filling) for t, filling in side.steps} for side in (left, right))
        found += [_entry(name, "missing") for name in ours if name not in theirs and not _counts(name)]
        found += [_entry(name, "unexpected") for name in theirs if name not in ours and not _counts(name)]
        for name in ours:
            if name in theirs and not _counts(name):
                found += _tensors(left, ours[name], right, theirs[name], rtol)
        return found


Side = tuple[str, str | None]  # a file and the part of it to take


def _plans(stack: contextlib.ExitStack, a: Side, b: Side, settings: Settings, assume: bool) -> tuple[Plan, Plan]:
    """Both files' plans; what the names and shapes of one leave open is told, or taken from the other."""
    with contextlib.suppress(UsageError):
        left = stack.enter_context(_plan(a))
        return left, stack.enter_context(_completed(b, left, settings))
    with contextlib.suppress(UsageError):
        right = stack.enter_context(_plan(b))
        return stack.enter_context(_completed(a, right, settings)), right
    left = stack.enter_context(_plan(a, settings, assume))
    return left, stack.enter_context(_plan(b, settings, assume))


def _plan(side: Side, settings: Settings | None = None, assume: bool = False) -> Plan:
    return plan(side[0], dst=HUB, settings=settings, weights=side[1], assume=assume)


def _completed(side: Side, other: Plan, settings: Settings) -> Plan:
    try:
        return _plan(side)
    except UsageError:
        known = as_dict(other.config)
        values = {name: known[name] for name in unshown(other.match)} | dict(settings.values)
        return _plan(side, replace(settings, values=values))


def _counts(name: str) -> bool:
    """Batch counters exist in one framework only, and nothing is computed from them."""
    return name.endswith(".count")


def _entry(tensor: str, kind: str, error: float | None = None, detail: str = "") -> dict[str, Any]:
    return {"tensor": tensor, "kind": kind, "error": error, "detail": detail}


def _configs(left: Plan, right: Plan) -> list[dict[str, Any]]:
    """Config fields that change what is computed and that shapes do not show."""
    found = differing(left.match.spec, left.config, as_dict(right.config), unshown(left.match))
    return [_entry(name, "config", None, f"{ours} and {theirs}") for name, (theirs, ours) in found.items()]


def _tensors(left: Plan, ours: Any, right: Plan, theirs: Any, rtol: float) -> list[dict[str, Any]]:
    import numpy as np

    (tensor, _), (other, _) = ours, theirs
    if tensor.shape != other.shape:
        return [_entry(tensor.name, "shape", None, f"{list(tensor.shape)} and {list(other.shape)}")]
    a, b = (_wide(side, *step) for side, step in ((left, ours), (right, theirs)))
    if a.size == 0 or np.array_equal(a, b, equal_nan=True):
        return []
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    gap[np.isnan(gap)] = np.inf  # a number and none
    scale = float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) or 1.0
    at = tuple(int(k) for k in np.unravel_index(int(np.argmax(gap)), a.shape))
    error = float(gap[at]) / scale
    if error <= rtol:
        return []
    if not np.isfinite(error):
        return [_entry(tensor.name, "value", None, f"at {list(at)}: {a[at]:.9g} and {b[at]:.9g}")]
    dtypes = "" if tensor.dtype == other.dtype else f", {tensor.dtype} and {other.dtype}"
    return [_entry(tensor.name, "value", error, f"at {list(at)}: {a[at]:.9g} and {b[at]:.9g}{dtypes}")]


def _wide(side: Plan, tensor: Tensor, filling: Any) -> Any:
    import numpy as np

    assert not isinstance(filling, Constant)
    wide = Tensor(tensor.name, tensor.shape, "float64")
    return np.frombuffer(b"".join(chunks(side, (wide, filling))), wide.dtype).reshape(tensor.shape)
