"""Judge the masks of dropout: how many units each call keeps, against its own rate."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from specs.numerals import exact

from .elements import Worst
from .recording import Recording
from .result import Divergence, Result
from .tolerance import MASKS, SCORES


def judge_masks(unjudged: Result, a: Recording, b: Recording) -> Result:
    """Judge the standard scores of how many units were kept, against each call's own rate; calls must match in order.

    Scores count the units whose inputs are not zero, which need not be the same ones, nor as many, on both sides.
    """
    left, right = a.masks or [], b.masks or []
    if not left or [(m[0], m[1]) for m in left] != [(m[0], m[1]) for m in right]:
        calls = {r.label: [(m[0], int(m[1])) for m in r.masks or []] for r in (a, b)}
        cause = f"calls of dropout (rate, units) differ: {calls}"
        return replace(unjudged, error=math.inf, tolerance=SCORES, passed=False, cause=cause, basis=MASKS)
    curve = []
    for k, (rate, *_), *sides in zip(itertools.count(), left, left, right):
        scores = [_score(*side) for side in sides]
        curve.append((f"dropout {k} (rate {exact(rate)})", max(scores), SCORES))
    error = max(score for _, score, _ in curve)
    off = [
        (name, Worst(score, cause=f"standard score {score:.1f}")) for name, score, limit in curve if not score <= limit
    ]
    first = Divergence.at(*off[0], SCORES, basis=MASKS) if off else None
    return replace(unjudged, error=error, tolerance=SCORES, passed=not off, first_divergence=first, curve=tuple(curve),
                   basis=MASKS)  # fmt: skip


def _score(rate: float, units: float, seen: float, kept: float, off: float) -> float:
    spread = math.sqrt(seen * rate * (1 - rate)) or 1.0
    return abs(kept - seen * (1 - rate)) / spread if off < 1e-2 else math.inf
