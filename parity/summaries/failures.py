"""Say in a verdict which model failed to run, and why."""

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
