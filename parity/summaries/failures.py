"""Say in a verdict which model failed to run and why, and what brings in NaN where nothing is proven."""

from __future__ import annotations

from collections.abc import Iterable

from parity.given.quoting import marked, quoted
from parity.results.result import Result
from specs.words import count

REASON = 80  # characters of a reason that stands in a verdict


def failure(results: Iterable[Result]) -> str:
    """Name the model that failed, and why if the reason is short; of several models, count the comparisons."""
    failed = [r for r in results if r.grade == "failed"]
    number = f"{count(len(failed), 'comparison')} failed to run"
    reasons = {(side, why.partition("; ")[0].partition(" (/")[0]) for r in failed for side, why in r.missing}
    if len({side for side, _ in reasons}) > 1:
        return number
    side, why = next(iter(reasons))
    named = side if quoted(side) == side else marked(side)
    return f"{number}, as {named} failed" + f": {why}" * (len(reasons) == 1 and len(why) <= REASON)


def holds(results: Iterable[Result]) -> str:
    """Say what brings in NaN where nothing could be judged for it, if it is one array: ": dense.bias holds NaN"."""
    causes = {r.holds for r in results if r.grade == "not judged"}
    return f": {causes.pop()}" if len(causes) == 1 and causes != {""} else ""
