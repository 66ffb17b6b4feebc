"""Are two checkpoints the same model? Compared in the hub's layout, whatever their dialects and formats."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from specs.config import as_dict

from .configuration import Settings
from .configure import check_names, differing, unshown
from .errors import OpenFields, UsageError
from .files.base import Tensor
from .payload import chunks
from .planning import HUB, Constant, Plan, plan
from .unstated import same


@dataclass(frozen=True)
class Comparison:
    """What a comparison of two files found.

    Args:
      differences: what keeps the two from being the same model, in our terms: {"tensor", "kind", "error", "detail"}.
        Kinds: architecture, config, missing (only in A), unexpected (only in B), shape, dtype (values that only one
        dtype can hold alike are compared as float64), value (error: largest difference relative to A's largest finite
        element; None where a number stands against NaN or an infinity).
      assumed: values of fields that change the outputs and that a file does not state: {"field", "value", "file",
        "from"}, and "recorded" where its record assumes another value. "from" is the other file, "its record" where
        that marks it as assumed, "the default", or "--set" for what the user states.
      what: the verdict on two files without differences.
    """

    differences: list[dict[str, Any]]
    assumed: list[dict[str, Any]] = field(default_factory=list)
    what: str = "the same model"

    @property
    def conditions(self) -> list[str]:
        """Fields that nobody states of both files: whether they agree is not known."""
        return list(dict.fromkeys(entry["field"] for entry in self.assumed if entry["from"] != STATED))

    @property
    def same(self) -> bool | None:
        """None where the arrays are the same, and more is not known."""
        return False if self.differences else None if self.conditions else True

    @property
    def verdict(self) -> str:
        if self.differences:
            return "different"
        names = self.conditions
        listed = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
        agree = f"{listed} agree{'s' if len(names) == 1 else ''}"
        return f"the same arrays; equal only if {agree}" if names else self.what


STATED = "--set"


def compare(
    a: str,
    b: str,
    rtol: float = 0.0,
    settings: Mapping[str, Any] | Settings | None = None,
    assume: bool = False,
    weights: tuple[str | None, str | None] = (None, None),
    notes: list[str] | None = None,
) -> Comparison:
    """Compare two files in the hub's layout.

    Args:
      settings: Config fields, for a file that leaves any open; else the other file's are taken, and named as assumed.
      assume: accept defaults where both files leave them open.
      weights: which part of A and of B to take; None finds it.
      notes: extended by what part of each file was taken and what was set aside.
    Raises: UsageError for settings that the architecture does not have, or that contradict what both files state.
    """
    stated = Settings.of(settings)
    with contextlib.ExitStack() as stack:
        left, right, assumed = _sides(stack, (a, weights[0]), (b, weights[1]), stated, assume)
        if notes is not None:
            notes += [f"{s.reader.path}: {note}" for s in (left, right) for note in (*s.part(), *s.left_out())]
        check_names([(a, left.match), (b, right.match)], stated)
        if left.architecture != right.architecture:
            kinds = f"{left.architecture} and {right.architecture}"
            return Comparison([_entry("", "architecture", None, kinds)], [])
        _check_stated(left, right, stated, {entry["field"] for entry in assumed})
        found = _configs(left, right)
        ours, theirs = ({t.name: (t, filling) for t, filling in side.steps} for side in (left, right))
        found += [_entry(name, "missing") for name in ours if name not in theirs and not _counts(name)]
        found += [_entry(name, "unexpected") for name in theirs if name not in ours and not _counts(name)]
        for name in ours:
            if name in theirs and not _counts(name):
                found += _tensors(left, ours[name], right, theirs[name], rtol)
        return Comparison(found, assumed)


Side = tuple[str, str | None]  # a file and the part of it to take


def _sides(
    stack: contextlib.ExitStack, a: Side, b: Side, settings: Settings, assume: bool
) -> tuple[Plan, Plan, list[dict[str, Any]]]:
    """Both files' plans, and what is assumed of either: what a file leaves open is the user's to state, or else taken
    from the other file, if that knows it."""
    (left, open_left), (right, open_right) = (_as_it_is(stack, side) for side in (a, b))
    sides = [(a, left, open_left, b, right, open_right), (b, right, open_right, a, left, open_left)]
    plans: list[Plan] = []
    assumed: list[dict[str, Any]] = []
    for side, own, opened, (other_path, _), other, other_opened in sides:
        known = {k: v for k, v in as_dict(other.config).items() if k not in other_opened} if other else {}
        borrowed = {name: known[name] for name in opened if name in known}
        given = {k: v for k, v in settings.values.items() if k in opened or own is None or not k.islower()}
        made = own
        if made is None or (opened and (borrowed or given)):
            chosen = replace(settings, values={**borrowed, **given})
            made = stack.enter_context(_plan(side, chosen, assume))
        plans.append(made)
        marked = own.configuration.marked if own else ()
        sources = {name: "its record" if name in marked else "the default" for name in opened}
        sources |= dict.fromkeys(borrowed, other_path)
        sources |= dict.fromkeys(given.keys() - settings.assumed, STATED)
        recorded = {name: as_dict(own.config)[name] for name in marked} if own else {}
        assumed += [_assumption(made, side[0], name, sources[name], recorded) for name in _material(made, opened)]
    if plans[0].match.which == plans[1].match.which:  # what reads the one file reads the other, whatever neither states
        silent = {name for name in open_left if name in open_right}
        assumed = [entry for entry in assumed if entry["field"] not in silent or entry["from"] != "the default"]
    return plans[0], plans[1], assumed


def _material(made: Plan, names: tuple[str, ...]) -> list[str]:
    """Those of these fields that change what this network computes."""
    immaterial = made.match.spec.immaterial(made.config)
    return [name for name in names if name not in immaterial]


def _assumption(made: Plan, path: str, name: str, source: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    value = as_dict(made.config)[name]
    other = {"recorded": recorded[name]} if name in recorded and not same(recorded[name], value) else {}
    return {"field": name, "value": value, "file": path, "from": source, **other}


def _as_it_is(stack: contextlib.ExitStack, side: Side) -> tuple[Plan | None, tuple[str, ...]]:
    """The plan of a file alone, None where it leaves open what nobody may assume; and every field that it leaves open,
    or that its record marks as assumed."""
    try:
        made = stack.enter_context(_plan(side))
    except OpenFields as error:
        return None, error.fields
    return made, made.assumed


def _plan(side: Side, settings: Settings | None = None, assume: bool = False) -> Plan:
    return plan(side[0], dst=HUB, settings=settings, weights=side[1], assume=assume)


def _check_stated(left: Plan, right: Plan, settings: Settings, opened: set[str]) -> None:
    """Raises: UsageError for a setting that neither file leaves open and that is not what both say."""
    for side in (left, right):
        own = as_dict(side.config)
        for name, value in settings.values.items():
            if name in own and name not in opened and not same(own[name], value):
                what = f"{name}={value!r} was asked for, and the file says {name}={own[name]!r}"
                raise UsageError(f"{side.reader.path}: {what}")


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
    gap[np.isnan(gap)] = np.inf  # NaN on one side only
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
