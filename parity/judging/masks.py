"""Judge the masks of dropout: how many units each call keeps, against its own rate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from parity.results.elements import Worst
from parity.results.result import Divergence, Result
from parity.results.tolerance import MASKS, SCORES
from parity.running.recording import SEEDS, Recording
from specs.numbers import exact
from specs.words import count


def judge_masks(arrays: Result, a: Recording, b: Recording) -> Result:
    """Judge the standard scores of how many units were kept, against each call's own rate; calls must match in order.

    Scores count the units whose inputs are not zero, which need not be the same ones, nor as many, on both sides.

    Args:
      arrays: the result of the training without dropout. It stands, and gets the scores, where the masks are right.
    """
    left, right = a.masks or [], b.masks or []
    if not left and not right:  # `record` has noted it
        return arrays
    if [(m[0], m[1]) for m in left] != [(m[0], m[1]) for m in right]:
        calls = "; ".join(f"{_calls(r.masks or [])} in {r.label}" for r in (a, b))
        differ = Worst(math.inf, cause=f"calls of dropout differ: {calls}", word="other calls")
        return _failed(arrays, Divergence.at("dropout", differ, 0.0, guess=_guess(a, b)), error=math.inf)
    curve = []
    for k, (rate, *_), *sides in zip(itertools.count(), left, left, right):
        scores = [_score(rate, *kept) for _, _, *kept in sides]
        curve.append((f"dropout {k} (rate {exact(rate)})", max(scores), SCORES))
    reasons = (MASKS,) * len(curve)
    off = [(name, score) for name, score, limit in curve if not score <= limit]
    if not off:
        return replace(arrays, curve=arrays.curve + tuple(curve), reasons=arrays.reasons + reasons)
    name, score = off[0]
    worst = Worst(score, cause=_wrong(score))
    first = Divergence.at(name, worst, SCORES, basis=MASKS)
    error = max(score for _, score, _ in curve)
    about = {"error": error, "tolerance": SCORES, "curve": tuple(curve), "reasons": reasons, "basis": MASKS}
    return _failed(arrays, first, **about)


def _failed(arrays: Result, first: Divergence, **scores: Any) -> Result:
    """Return the result of dropout that differs: as a remark, where the training without it differs already."""
    if arrays.passed is not False:
        return replace(arrays, passed=False, first_divergence=first, **scores)
    cause = "; ".join(filter(None, (arrays.cause, first.sentence())))
    return replace(arrays, cause=cause, remarks=(*arrays.remarks, first.sentence()))


def _wrong(score: float) -> str:
    if score == math.inf:
        return "what it keeps is not its input / (1 - rate)"
    return f"how many units it keeps is {score:.1f} standard deviations off, above {SCORES:.0f}"


def _guess(a: Recording, b: Recording) -> str:
    """Say in what the calls of dropout differ: whether there are any, their number, rates, or arrays."""
    sides = {r.label: r.masks or [] for r in (a, b)}
    if not all(sides.values()):
        return f"dropout in {next(label for label, masks in sides.items() if masks)} alone"
    (one, left), (other, right) = sides.items()
    if [m[1] for m in left] == [m[1] for m in right]:
        rates = next((m[0], n[0]) for m, n in zip(left, right, strict=True) if m[0] != n[0])
        return f"dropout of rate {exact(rates[1])} in {other}, for rate {exact(rates[0])} in {one}"
    if len(left) != len(right):
        return f"{count(len(left), 'call')} of dropout in {one}, {count(len(right), 'call')} in {other}"
    k = next(k for k, (m, n) in enumerate(zip(left, right, strict=True)) if m[1] != n[1])
    sizes = [f"{count(int(calls[k][1]) // SEEDS, 'unit')} in {label}" for label, calls in sides.items()]
    return f"dropout of other arrays, as call {k + 1} on {' and '.join(sizes)}"


def _calls(masks: Sequence[Sequence[float]]) -> str:
    """List calls of dropout, each by its rate and the units of one run."""
    calls = [f"rate {exact(rate)} on {count(int(units) // SEEDS, 'unit')}" for rate, units, *_ in masks]
    listed = ", ".join([*calls[:4], f"{len(calls) - 4} more"] if len(calls) > 4 else calls)
    return listed or "none"


def _score(rate: float, seen: float, kept: float, off: float) -> float:
    spread = math.sqrt(seen * rate * (1 - rate)) or 1.0
    return abs(kept - seen * (1 - rate)) / spread if off < 1e-2 else math.inf
