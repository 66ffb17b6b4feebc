"""Choose the limit that a row of results states, and tell which results need their own beside their error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from parity.results.result import Result
from specs.numbers import limit


def row_limit(results: Mapping[str, Result]) -> str:
    """Write the limit of most of a row's results, the smallest of several such; "-" for none, as NaN has none.

    Args:
      results: of one model, check and dtype, by pair.
    """
    limits = sorted(r.tolerance for r in results.values() if r.tolerance is not None and r.is_number)
    return Counter(map(limit, limits)).most_common(1)[0][0] if limits else "-"


def own_limit(result: Result, of_row: str) -> str:
    """Write a result's own limit if it is not the one that its row states; else ""."""
    own = limit(result.tolerance)
    return own if own not in ("-", of_row) else ""
