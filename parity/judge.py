"""The verdict on recordings: which array differs first, by how much, and whether the port or its dtype is to blame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from specs.kinds import STATISTICS

from . import agreement
from . import tolerance as limits
from .agreement import Verdict
from .numbers import Worst, worst
from .record import Recording
from .result import Divergence, Result

Row = Callable[..., Result]  # a Result of one pair, for what is left to say: error, tolerance, passed ...


@dataclass(frozen=True)
class Subject:
    """What is compared: goes into every row."""

    architecture: str
    variant: str
    check: str
    dtype: str
    device: str

    def row(self, *sides: str) -> Row:
        about = (self.architecture, self.variant, self.check, self.dtype, self.device)
        return partial(Result, *about, "-".join(sides), sides=sides)


def judge(subject: Subject, recordings: Sequence[Recording]) -> list[Result]:
    """A result for every pair; the first of a pair is the reference."""
    return [_pair(subject, a, b, recordings) for a, b in itertools.combinations(recordings, 2)]


def _pair(s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    row = s.row(a.label, b.label)
    missing = [r for r in (a, b) if r.cause]
    if missing:
        failed = any(not r.unable for r in missing)
        cause = "; ".join(f"{r.label}: {r.cause}" for r in missing)
        why = tuple((r.label, r.cause) for r in missing)
        return row(math.inf if failed else None, None, False if failed else None, None, cause, missing=why)
    arrays = _judge_arrays(row, s, a, b, everyone)
    if a.masks is None and b.masks is None:
        return arrays
    return _both(_judge_masks(row, a, b), arrays)


def _both(masks: Result, arrays: Result) -> Result:
    """One result of training with dropout: the masks by themselves, and the steps without drop rates."""
    if not masks.passed:
        return replace(masks, cause=masks.cause or arrays.cause)
    return replace(arrays, curve=arrays.curve + masks.curve)


def _judge_arrays(row: Row, s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    names, apart = _corresponding(s.check, a, b)
    if not names:
        return _incomparable(row, a, b)
    return _compare(row, s, a, b, [r for r in everyone if not r.cause], names, apart)


def _corresponding(check: str, a: Recording, b: Recording) -> tuple[list[str], str]:
    """(names of the arrays to compare, what of each side has no partner, as a sentence).

    Parameters may be split differently (fused query, key and value): their gradients and trained values are compared
    where both sides have an array of one name and shape. Losses, outputs and taps must correspond: no names otherwise.
    """
    if check not in ("gradients", "train"):
        return (list(a.arrays) if a.arrays.keys() == b.arrays.keys() else []), ""

    def fixed(name: str) -> bool:
        return name in ("loss", "output", "images") or name.endswith(": losses")

    both = [n for n in a.arrays if n in b.arrays]
    names = [n for n in both if fixed(n) or np.shape(a.arrays[n]) == np.shape(b.arrays[n])]
    if any(fixed(n) and n not in names for n in [*a.arrays, *b.arrays]):
        return [], ""
    alone = {r.label: [n for n in r.arrays if n not in names] for r in (a, b)}
    told = [f"{label}'s {_some(plain)}" for label, n in alone.items() if (plain := _without_run(check, n))]
    return names, f"not compared, for want of an array of the same name and shape: {'; '.join(told)}" if told else ""


def _without_run(check: str, names: Sequence[str]) -> list[str]:
    """Names without the optimizer in front, each once."""
    return list(dict.fromkeys(n.partition(": ")[2] if check == "train" else n for n in names))


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


def _compare(
    row: Row, s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording], names: Sequence[str], apart: str
) -> Result:
    noise = _noise(s.check, a, everyone, names)
    verdicts = _verdicts(s.check, a, b, everyone, names, noise)
    drowned = [name for name in names if not verdicts[name].judged]
    if len(drowned) == len(names):
        return row(None, None, None, cause=_join(_drowned(s, f"all {len(drowned)} arrays"), apart))
    found = {name: verdicts[name] for name in names if verdicts[name].judged}
    off = [name for name, verdict in found.items() if verdict.off]
    if off and (a.random or b.random):
        return row(None, None, None, cause=_join(_random(s.check, a, b), apart))
    worst_of_all = max(found.values(), key=lambda verdict: verdict.ratio)
    told = [_drowned(s, _some(drowned)) + ": not judged" if drowned else "", apart]
    told += [] if off else [_close(s, found)]
    told += [note for r in (a, b) for note in r.notes]
    return row(
        worst_of_all.worst.error,
        worst_of_all.limit,
        not off,
        _divergence(off[0], {n: (v.worst, v.limit) for n, v in found.items()}, s, a, b) if off else None,
        _join(*told),
        tuple((name, v.worst.error, v.limit) for name, v in found.items()),
        {label: tuple(errors[name] for name in found) for label, errors in noise.items()},
    )


def _random(check: str, a: Recording, b: Recording) -> str:
    names = " and ".join(r.label for r in (a, b) if r.random)
    mode = "in training, beside dropout" if check in ("gradients", "train") else "in evaluation mode"
    return f"the outputs of {names} depend on random numbers {mode}: what differs may be chance"


def _join(*sentences: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, sentences)))


def _drowned(s: Subject, what: str) -> str:
    if s.dtype == "float64":
        return f"these runs amplify rounding to the size of {what} (fewer steps or a larger batch amplify less)"
    return f"{s.dtype} drowns {what} in the rounding of every framework"


def _close(s: Subject, found: Mapping[str, Verdict]) -> str:
    """A sentence where a pass below float64 is a near miss."""
    name = max(found, key=lambda name: found[name].ratio)
    ratio = found[name].ratio
    if s.dtype == "float64" or ratio <= limits.CLOSE_CALL:
        return ""
    return f"{name} passes close to its limit in {s.dtype}, at {ratio:.0%} of it: compare in float64 to be sure"


def _verdicts(
    check: str, a: Recording, b: Recording, everyone: Sequence[Recording], names: Sequence[str],
    noise: Mapping[str, Mapping[str, float]],
) -> dict[str, Verdict]:  # fmt: skip
    if a.truth is None or b.truth is None:
        return _agreements(check, a, b, everyone, names, lambda name: np.zeros(1))
    twins = [r.truth for r in everyone if r.truth]
    exact = _agreements(
        check, a.truth, b.truth, twins, names, lambda name: agreement.float32_parts(check, name, a, everyone)
    )
    scales = _scales(check, a)
    limit = _limits(check, a, everyone, noise, names, scales)
    return {name: _below_float64(name, a, b, scales.get(name), limit[name], exact[name]) for name in names}


def _agreements(
    check: str, a: Recording, b: Recording, everyone: Sequence[Recording], names: Sequence[str],
    extra: Callable[[str], np.ndarray],
) -> dict[str, Verdict]:  # fmt: skip
    """The verdict on each array of two float64 runs; extra(name) is what else than rounding is allowed."""
    scales = _scales(check, a)
    size = {name: scales.get(name) or _largest(a.arrays[name]) for name in names}
    groups = {name: _group(check, name) for name in names}
    typical = agreement.typical(groups, size, everyone) if check in ("gradients", "train") else {}
    factor, found = limits.SPREAD_FACTOR["float64"], {}
    for name in names:
        least = typical.get(groups[name], 0.0) * size[name] if not name.endswith(": losses") else 0.0
        allowed = np.maximum(factor * np.maximum(agreement.spread(name, everyone), least), extra(name))
        found[name] = agreement.agree(check, name, a, b, scales.get(name), allowed)
    return found


def _below_float64(name: str, a: Recording, b: Recording, scale: float | None, limit: float, exact: Verdict) -> Verdict:
    """Compare both sides with the reference's float64 copy, and the float64 copies with each other."""
    assert a.truth is not None
    if exact.off and exact.judged:
        about = f"{exact.worst.remark}, " if exact.worst.remark else ""
        return replace(exact, worst=replace(exact.worst, remark=f"{about}between the float64 copies of both models"))
    truth = a.truth.arrays[name]
    errors = [replace(worst(truth, r.arrays[name], scale), sides=(f"{a.label} in float64", r.label)) for r in (a, b)]
    error = max(errors, key=lambda w: w.error)
    return Verdict(error, limit, limit <= limits.DROWNED)


def _noise(
    check: str, a: Recording, everyone: Sequence[Recording], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Each framework's own error against its float64 truth, by label and array; empty in float64."""
    scales = _scales(check, a)
    return {
        r.label: {name: worst(r.truth.arrays[name], r.arrays[name], scales.get(name)).error for name in names}
        for r in everyone
        if r.truth and all(name in r.arrays and name in r.truth.arrays for name in names)
    }


def _limits(
    check: str, a: Recording, everyone: Sequence[Recording], noise: Mapping[str, Mapping[str, float]],
    names: Sequence[str], scales: Mapping[str, float],
) -> dict[str, float]:  # fmt: skip
    """The tolerance of each array below float64."""
    assert a.truth is not None
    least = {name: min(errors[name] for errors in noise.values()) for name in names}
    groups: dict[str, list[float]] = {}
    for name, error in least.items():
        groups.setdefault(_group(check, name), []).append(error)
    typical = {group: limits.typical(errors, a.dtype, check) for group, errors in groups.items()}
    found = {}
    for name, own in least.items():
        size = scales.get(name) or _largest(a.truth.arrays[name]) or 1.0
        moved = limits.SPREAD_FACTOR.get(a.dtype, 0.0) * float(agreement.spread(name, everyone).max()) / size
        found[name] = max(limits.below(own, typical[_group(check, name)], a.dtype, check), moved)
    return found


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
