"""The verdict on recordings: which array differs first, by how much, and whether the port or its dtype is to blame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from . import tolerance as limits
from .numbers import Worst, worst
from .record import Recording
from .report import Divergence, Result

STATISTICS = ("mean", "var", "running_mean", "running_var", "_mean", "_variance", "num_batches_tracked")
Row = Callable[..., Result]  # a Result of one pair, for what is left to say: error, tolerance, passed ...


@dataclass(frozen=True)
class Subject:
    """What is compared: goes into every row."""

    architecture: str
    variant: str
    check: str
    dtype: str
    device: str

    def row(self, pair: str) -> Row:
        return partial(Result, self.architecture, self.variant, self.check, self.dtype, self.device, pair)


def judge(subject: Subject, recordings: Sequence[Recording]) -> list[Result]:
    """A result for every pair; the first of a pair is the reference."""
    return [_pair(subject, a, b, recordings) for a, b in itertools.combinations(recordings, 2)]


def _pair(s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    row = s.row(f"{a.label}-{b.label}")
    missing = [r for r in (a, b) if r.cause]
    if missing:
        failed = any(not r.unable for r in missing)
        cause = "; ".join(f"{r.label}: {r.cause}" for r in missing)
        return row(math.inf if failed else None, None, False if failed else None, None, cause)
    arrays = _judge_arrays(row, s, a, b, everyone)
    if a.masks is None and b.masks is None:
        return arrays
    return _both(_judge_masks(row, a, b), arrays)


def _both(masks: Result, arrays: Result) -> Result:
    """One result of training with dropout: the masks by themselves, and the steps without drop rates."""
    if not masks.passed or arrays.passed is None:
        return replace(masks, cause=masks.cause or arrays.cause)
    return replace(arrays, curve=arrays.curve + masks.curve)


def _judge_arrays(row: Row, s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    if a.arrays.keys() != b.arrays.keys() or not a.arrays:
        return _incomparable(row, a, b)
    return _compare(row, s, a, b, [r for r in everyone if not r.cause])


def _incomparable(row: Row, a: Recording, b: Recording) -> Result:
    odd = {r.label: [n for n in r.arrays if n not in other.arrays] for r, other in ((a, b), (b, a))}
    cause = "; ".join(f"only {label} has {_some(names)}" for label, names in odd.items() if names)
    cause = cause or "nothing to compare: no side has any array"
    first = next((n for n in [*a.arrays, *b.arrays] if n in odd[a.label] or n in odd[b.label]), None)
    divergence = Divergence.at(first, Worst(math.inf, cause=cause), 0.0) if first else None
    return row(math.inf, 0.0, False, divergence, cause)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(repr, names[:4])) + more


def _compare(row: Row, s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    scales = _scales(s.check, a)
    noise = _noise(a, everyone, scales)
    limit = _limits(s.check, a, noise)
    drowned = [name for name in a.arrays if limit[name] > limits.DROWNED]
    if len(drowned) == len(a.arrays):
        cause = f"{s.dtype} drowns all {len(drowned)} arrays in the rounding of every framework"
        return row(None, None, None, cause=cause)
    found = {name: (_worst(name, a, b, scales), limit[name]) for name in a.arrays if name not in drowned}
    off = [name for name, (w, limit) in found.items() if not w.error <= limit]
    error, tolerance = max(((w.error, limit) for w, limit in found.values()), key=lambda pair: pair[0] / pair[1])
    return row(
        error,
        tolerance,
        not off,
        _divergence(off[0], found, s, a, b) if off else None,
        f"{s.dtype} drowns {_some(drowned)} in the rounding of every framework: not judged" if drowned else "",
        tuple((name, w.error, limit) for name, (w, limit) in found.items()),
        {label: tuple(errors[name] for name in found) for label, errors in noise.items()},
    )


def _worst(name: str, a: Recording, b: Recording, scales: Mapping[str, float]) -> Worst:
    """The worst element of one array. Below float64, both sides answer to the reference's truth."""
    scale = scales.get(name)
    if a.truth is None:
        return worst(a.arrays[name], b.arrays[name], scale)
    truth = a.truth.arrays[name]
    return max((worst(truth, r.arrays[name], scale) for r in (a, b)), key=lambda w: w.error)


def _noise(a: Recording, everyone: Sequence[Recording], scales: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Each framework's own error against its float64 truth, by label and array; empty in float64."""
    return {
        r.label: {name: worst(r.truth.arrays[name], r.arrays[name], scales.get(name)).error for name in a.arrays}
        for r in everyone
        if r.truth and r.arrays.keys() == r.truth.arrays.keys() == a.arrays.keys()
    }


def _limits(check: str, a: Recording, noise: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The tolerance of each array."""
    if a.truth is None:
        return dict.fromkeys(a.arrays, limits.FLOAT64[check.replace("single-step", "layers")])
    least = {name: min(errors[name] for errors in noise.values()) for name in a.arrays}
    groups: dict[str, list[float]] = {}
    for name, error in least.items():
        groups.setdefault(_group(check, name), []).append(error)
    typical = {group: limits.typical(errors, a.dtype, check) for group, errors in groups.items()}
    return {name: limits.below(own, typical[_group(check, name)], a.dtype, check) for name, own in least.items()}


def _group(check: str, name: str) -> str:
    """What shares one level of noise: an optimizer's run, or a whole check."""
    return name.partition(":")[0] if check == "train" else ""


def _scales(check: str, a: Recording) -> Mapping[str, float]:
    """What each error is relative to, where that is not simply the reference's largest element."""
    source = (a.truth or a).arrays
    if check == "gradients":
        size = {name: _largest(array) for name, array in source.items() if name not in ("loss", "output")}
        floor = limits.GRADIENT_FLOOR * max(size.values(), default=0.0)
        return {name: max(value, floor) for name, value in size.items()}
    if check == "train" and a.truth is None:  # in lower dtypes, noise itself is the measure
        size = {name: _largest(array) for name, array in source.items() if not name.endswith(": losses")}
        floors = {run: limits.TRAINED_FLOOR * _largest_of(size, run) for run in {_group(check, name) for name in size}}
        return {name: max(value, floors[_group(check, name)]) for name, value in size.items()}
    return {}


def _largest_of(size: Mapping[str, float], run: str) -> float:
    """The largest parameter of an optimizer's run: a running variance may be of any size."""
    return max((v for name, v in size.items() if _group("train", name) == run and not _is_statistic(name)), default=0.0)


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in STATISTICS


def _largest(array: np.ndarray) -> float:
    values = np.abs(np.asarray(array, np.float64))
    return float(values.max(initial=0.0)) if np.isfinite(values).all() else 0.0


def _divergence(
    name: str, found: Mapping[str, tuple[Worst, float]], s: Subject, a: Recording, b: Recording
) -> Divergence:
    from .guess import guess

    names = list(found)
    before = names[names.index(name) - 1] if names.index(name) else None
    previous = (before, found[before][0].error) if before else None
    return Divergence.at(name, *found[name], previous, guess(name, s.check, a, b))


def _judge_masks(row: Row, a: Recording, b: Recording) -> Result:
    """Standard scores of how many units were kept, against each call's own rate; calls must match one by one.

    Scores are of the units whose inputs tell, which need not be the same ones, nor as many, on both sides.
    """
    left, right = a.masks or [], b.masks or []
    if not left or [(m[0], m[1]) for m in left] != [(m[0], m[1]) for m in right]:
        told = {r.label: [(m[0], int(m[1])) for m in r.masks or []] for r in (a, b)}
        return row(math.inf, limits.SCORES, False, None, f"calls of dropout (rate, units) differ: {told}")
    curve = []
    for k, (rate, *_), *sides in zip(itertools.count(), left, left, right):
        scores = [_score(*side) for side in sides]
        curve.append((f"dropout {k} (rate {rate:g})", max(scores), limits.SCORES))
    error = max(score for _, score, _ in curve)
    off = [
        (name, Worst(score, cause=f"standard score {score:.1f}")) for name, score, limit in curve if not score <= limit
    ]
    first = Divergence.at(*off[0], limits.SCORES) if off else None
    return row(error, limits.SCORES, not off, first, "", tuple(curve))


def _score(rate: float, units: float, seen: float, kept: float, off: float) -> float:
    spread = math.sqrt(seen * rate * (1 - rate)) or 1.0
    return abs(kept - seen * (1 - rate)) / spread if off < 1e-2 else math.inf
