"""Compute the verdict on every array of two recordings, in float64 and below."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.results import tolerance as limits
from parity.results.elements import are_integers, double, shared_nans, without_shared, worst
from parity.running.recording import Recording
from ports.runners.records import Optimizer
from specs.kinds import STATISTICS

from . import agreement
from .agreement import Verdict


def verdicts_of(
    check: str, a: Recording, b: Recording, everyone: Sequence[Recording], names: Sequence[str],
    noise: Mapping[str, Mapping[str, float]],
) -> dict[str, Verdict]:  # fmt: skip
    """Return a verdict by name.

    Args:
      everyone: all recordings of the comparison, whose least noise is the measure.
      noise: what `noise_of` returns.
    """
    if a.truth is None or b.truth is None:
        return _agreements(check, a, b, everyone, names)
    twins = [r.truth for r in everyone if r.truth]
    exact = _agreements(
        check, a.truth, b.truth, twins, names, lambda name: agreement.float32_parts(check, name, a, everyone)
    )
    scales = _scales(check, a)
    limit = _limits(check, a, everyone, noise, names, scales)
    return {name: _below_float64(name, a, b, scales.get(name), limit[name], exact[name]) for name in names}


def noise_of(
    check: str, a: Recording, everyone: Sequence[Recording], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return each framework's own error against its float64 truth, by label and array; {} in float64."""
    scales = _scales(check, a)
    return {
        r.label: {name: _error(r.truth, r, name, scales.get(name)) for name in names}
        for r in everyone
        if r.truth and all(name in r.arrays and name in r.truth.arrays for name in names)
    }


def _error(truth: Recording, r: Recording, name: str, scale: float | None) -> float:
    return worst(*without_shared(truth.arrays[name], r.arrays[name], math.inf), scale).error


def _agreements(
    check: str, a: Recording, b: Recording, everyone: Sequence[Recording], names: Sequence[str],
    parts: Callable[[str], np.ndarray] | None = None,
) -> dict[str, Verdict]:  # fmt: skip
    """Judge each array of two float64 runs; parts(name) is what float32 parts of them may add to rounding."""
    scales = _scales(check, a)
    size = {name: scales.get(name) or largest(a.arrays[name]) for name in names}
    groups = {name: _group(check, name) for name in names}
    typical = agreement.typical(groups, size, everyone) if check in ("gradients", "train") else {}
    factor, verdicts = limits.SPREAD_FACTOR["float64"], {}
    for name in names:
        least = typical.get(groups[name], 0.0) * size[name] if not name.endswith(": losses") else 0.0
        allowed = {limits.amplified("float64"): factor * np.maximum(agreement.spread(name, everyone), least)}
        allowed |= {limits.TWINS: parts(name)} if parts else {}
        verdicts[name] = agreement.agree(check, name, a, b, scales.get(name), allowed)
    return verdicts


def _below_float64(
    name: str, a: Recording, b: Recording, scale: float | None, limit: limits.Limit, exact: Verdict
) -> Verdict:
    """Compare both sides with the reference's float64 copy, and the float64 copies with each other."""
    assert a.truth is not None
    if exact.off and exact.judged:
        about = f"{exact.worst.remark}, " if exact.worst.remark else ""
        remark = f"{about}between the float64 copies of both models"
        return replace(exact, worst=replace(exact.worst, remark=remark), copies=True)
    copy, nans = f"{a.label} in float64", shared_nans(a.arrays[name], b.arrays[name])
    known = (r.arrays[name] for r in (a.truth, a, b))
    truth, *sides = (np.where(nans, 0.0, double(array)) if nans.any() else array for array in known)
    errors = [
        replace(
            worst(*without_shared(truth, array, math.inf), scale).between(copy, r.label),  # the copies' fills agree
            sides=(copy, r.label),
        )
        for r, array in zip((a, b), sides, strict=True)
    ]
    return Verdict(max(errors, key=lambda error: error.error), *limit, limit.value <= limits.DROWNED)


def _limits(
    check: str, a: Recording, everyone: Sequence[Recording], noise: Mapping[str, Mapping[str, float]],
    names: Sequence[str], scales: Mapping[str, float],
) -> dict[str, limits.Limit]:  # fmt: skip
    """Return the tolerance of each array below float64."""
    assert a.truth is not None
    least = {name: min(errors[name] for errors in noise.values()) for name in names}
    groups: dict[str, list[float]] = {}
    for name, error in least.items():
        groups.setdefault(_group(check, name), []).append(error)
    typical = {group: limits.typical(errors, a.dtype, check) for group, errors in groups.items()}
    bounds = {}
    for name, own in least.items():
        size = scales.get(name) or largest(a.truth.arrays[name]) or 1.0
        moved = limits.SPREAD_FACTOR.get(a.dtype, 0.0) * float(agreement.spread(name, everyone).max()) / size
        measured = (
            limits.below_of_integers(own, a.dtype)
            if are_integers(a.arrays[name], a.truth.arrays[name])
            else limits.below(own, typical[_group(check, name)], a.dtype, check, _step(check, name) / size)
        )
        bounds[name] = limits.Limit(moved, limits.amplified(a.dtype)) if moved > measured.value else measured
    return bounds


def _step(check: str, name: str) -> float:
    """Return by how much a step of Adam moves an element of an array; 0 of what Adam does not train."""
    run, _, array = name.partition(": ") if check == "train" else ("", "", "")
    trained = array != "losses" and array.rpartition(".")[2] not in STATISTICS
    return Optimizer(name=run).rate if run.startswith("adam") and trained else 0.0


def _group(check: str, name: str) -> str:
    """Return what shares one level of noise: an optimizer's run, or a whole check."""
    return name.partition(":")[0] if check == "train" else ""


def _scales(check: str, a: Recording) -> Mapping[str, float]:
    """Return what each error is relative to, where that is not simply the reference's largest element."""
    source = (a.truth or a).arrays
    if check == "gradients":
        size = {name: largest(array) for name, array in source.items() if name not in ("loss", "output")}
        floor = limits.GRADIENT_FLOOR * max(size.values(), default=0.0)
        return {name: max(value, floor) for name, value in size.items()}
    if check == "train" and a.truth is None:  # in lower dtypes, noise itself is the measure
        size = {name: largest(array) for name, array in source.items() if not name.endswith(": losses")}
        floors = {run: limits.TRAINED_FLOOR * _largest_of(size, run) for run in {_group(check, name) for name in size}}
        return {name: max(value, floors[_group(check, name)]) for name, value in size.items()}
    return {}


def _largest_of(size: Mapping[str, float], run: str) -> float:
    """Return the largest parameter of an optimizer's run: a running variance may be of any size."""
    trained = {name: v for name, v in size.items() if name.rpartition(".")[2] not in STATISTICS}
    return max((v for name, v in trained.items() if _group("train", name) == run), default=0.0)


def largest(array: np.ndarray) -> float:
    """Return the largest finite element, but for what a mask fills in beside others; 0 where an element is NaN."""
    values = np.abs(double(without_shared(array, array)[0]))
    return 0.0 if np.isnan(double(array)).any() else float(values[np.isfinite(values)].max(initial=0.0))
