"""Choose the limit that a row of results states, and tell which results need their own beside their error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from specs.numerals import limit

from .result import Result


def row_limit(results: Mapping[str, Result]) -> float | None:
    """Return the smallest limit of a row's results if all are within it; else that of most of them; None for none.

    Args:
      results: of one model, check and dtype, by pair.
    """
    errors = [(r.tolerance, r.error) for r in results.values() if r.tolerance is not None]
    if not errors:
        return None
    least = min(tolerance for tolerance, _ in errors)
    if all(error is not None and error <= least for _, error in errors):
        return least
    return Counter(tolerance for tolerance, _ in errors).most_common(1)[0][0]


def limit_text(of: float | None) -> str:
    """Write a limit, "-" where there is none."""
    return "-" if of is None else limit(of)


def own_limit(result: Result, of_row: float | None) -> str:
    """Write a result's own limit if that of its row does not do for it, as it is too small or too large; else ""."""
    own, error = result.tolerance, result.error
    if own is not None and of_row is not None and error is not None and error <= of_row <= own:
        return ""
    return limit_text(own) if limit_text(own) != limit_text(of_row) else ""
