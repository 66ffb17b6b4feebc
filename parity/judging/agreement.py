"""Decide whether two recordings of float64 runs agree, array by array, and feature by feature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.results import tolerance as limits
from parity.results.elements import (
    IN_FIRST,
    Worst,
    are_integers,
    by_feature,
    double,
    feature_axis,
    movement,
    without_shared,
    worst,
)
from parity.running.recording import Recording
from specs.numbers import measured

TIE = 1e-12  # relative difference of two quotients of the same numbers


@dataclass(frozen=True)
class Verdict:
    """One array: its worst element, the tolerance and its reason, and whether rounding leaves anything to judge.

    copies: whether the float64 copies of both models are compared, in a dtype below float64.
    """

    worst: Worst
    limit: float
    reason: str
    judged: bool = True
    copies: bool = False

    @property
    def ratio(self) -> float:
        """Divide error by tolerance: above 1 the array differs."""
        return self.worst.error / self.limit if self.limit else math.inf

    @property
    def off(self) -> bool:
        return not self.worst.error <= self.limit


def agree(
    check: str, name: str, a: Recording, b: Recording, scale: float | None, allowed: Mapping[str, np.ndarray]
) -> Verdict:
    """Compare one array as a whole and, where it has features, each of them by its own scale.

    Args:
      scale: what errors of the whole array are relative to; None: its largest element.
      allowed: absolute difference of each feature that rounding explains in these very runs, (features,) or (1,), by
        the reason for it.
    """
    left, right = without_shared(a.arrays[name], b.arrays[name])
    exact = are_integers(left, right)
    base = limits.INTEGERS if exact else limits.FLOAT64[check.replace("single-step", "layers")]
    whole = worst(left, right, scale).between(a.label, b.label)
    size = scale or float(np.max(np.abs(double(left)), initial=0.0)) or 1.0
    fixed = limits.WHOLE if exact else limits.FIXED[check.replace("single-step", "layers")]
    widened = [(float(values.max(initial=0.0)) / size, reason) for reason, values in allowed.items()]
    limit, reason = max((base, fixed), *widened, key=lambda pair: pair[0])
    verdict = Verdict(whole, limit, reason, limit <= limits.DROWNED)
    axis = feature_axis(check, name, left)
    if axis is None or whole.cause or exact:
        return verdict
    own, gap = by_feature(np.abs(left), axis), by_feature(np.abs(left - right), axis)
    parts = {fixed: base * own, **allowed, limits.FEATURE: np.full(1, limits.FEATURE_FLOOR * size)}
    bounds = np.stack([np.broadcast_to(values, own.shape) for values in parts.values()])
    bound = bounds.max(0)
    judged = bool((bound <= limits.DROWNED * own).any())
    k = int(np.argmax(gap / bound))
    # where limits are of one size, the worst feature has the share of the whole array: its own scale is stated
    if verdict.judged and gap[k] / bound[k] <= verdict.ratio * (1 + TIE) and not 0 < own[k] < size:
        return verdict
    unit = float(own[k]) or size
    part = worst(np.take(left, k, axis), np.take(right, k, axis), unit)
    index = list(part.index or ())
    index.insert(axis, k)
    part_of = f"value of {'step' if check == 'train' else 'feature'} {k} alone" if own[k] else "element"
    what = f"relative to {measured(unit)}, the largest {part_of} {IN_FIRST}"
    reason = list(parts)[int(np.argmax(bounds[:, k]))]
    limit = base if reason == fixed and own[k] else float(bound[k]) / unit  # base * own / own loses digits
    return Verdict(replace(part, index=tuple(index), remark=what), limit, reason, judged)


def spread(name: str, recordings: Sequence[Recording]) -> np.ndarray:
    """Return the least that any framework's array moves when weights are jittered, by feature; 0 if not measured."""
    return _least([r.spread[name] for r in recordings if name in r.spread])


def rounding(check: str, name: str, recordings: Sequence[Recording]) -> np.ndarray:
    """Return the least that any framework's array is off its float64 twin, feature by feature."""
    measured = []
    for r in recordings:
        if r.truth and name in r.arrays and r.arrays[name].shape == r.truth.arrays[name].shape:
            gap = movement(r.arrays[name], r.truth.arrays[name])
            measured.append(by_feature(gap, feature_axis(check, name, gap)))
    return _least(measured)


def _least(measured: Sequence[np.ndarray]) -> np.ndarray:
    """Return the least of each feature; 0 where nothing was measured, or arrays of other shapes."""
    if not measured or len({array.shape for array in measured}) > 1:
        return np.zeros(1)
    return np.asarray(np.min(measured, axis=0))


def float32_parts(check: str, name: str, a: Recording, everyone: Sequence[Recording]) -> np.ndarray:
    """Return what float64 twins may differ by, feature by feature, where one of them computes parts in float32.

    An array that such a part returns has no noise against its own twin: a roundoff of each feature is the least, but
    for integers, which it does not change.
    """
    assert a.truth is not None
    single = limits.ROUNDOFF["float32"]
    array = np.abs(double(a.truth.arrays[name]))
    noise = rounding(check, name, everyone) * (single / limits.ROUNDOFF[a.dtype])
    least = single * by_feature(np.nan_to_num(array, nan=0.0, posinf=0.0), feature_axis(check, name, array))
    least = least * (not are_integers(a.truth.arrays[name], a.arrays[name]))
    return np.asarray(limits.TWIN_FACTOR * np.maximum(noise, least))


def typical(names: Mapping[str, str], sizes: Mapping[str, float], recordings: Sequence[Recording]) -> dict[str, float]:
    """Return the median of `spread` relative to each array's size, by group.

    Args:
      names: group of each array.
      sizes: what each array's errors are relative to.
    """
    groups: dict[str, list[float]] = {}
    for name, group in names.items():
        groups.setdefault(group, []).append(float(spread(name, recordings).max()) / (sizes[name] or 1.0))
    return {group: sorted(values)[len(values) // 2] for group, values in groups.items()}
