"""Count NaNs and infinities that a record's tensors contain, and negative values of squares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convert.folding import summarised

from .altered import WARNING

NEGATIVE = "negative"  # in a tensor's line: how many of its values are


def negative(tensors: Mapping[str, Mapping[str, Any]], labels: Callable[[], Mapping[str, str]]) -> str:
    """Return a note on second moments that are negative, which a mean of squares never is; "" without one.

    Args:
      labels: as in `not_finite`.
    """
    counts = {name: line[NEGATIVE] for name, line in tensors.items() if NEGATIVE in line}
    if not counts:
        return ""
    called = labels()
    which = f"negative second moments ({sum(counts.values()):,}) in {summarised(called[name] for name in counts)}"
    return f"{WARNING}{which}: no Adam has these, and their root is NaN: the state is damaged; copied as they are"


def not_finite(
    tensors: Mapping[str, Mapping[str, Any]], labels: Callable[[], Mapping[str, str]] = dict
) -> tuple[dict[str, int], str]:
    """Count NaNs and infinities of a record's tensors that no cast produced: ({name: how many}, a note or "").

    Args:
      labels: computes what the note calls a tensor, where that is not its name.
    """
    counts = {
        name: line.get("not_finite", 0) - line.get("lossy", {}).get("infinities", 0) for name, line in tensors.items()
    }
    odd = {name: count for name, count in counts.items() if count}
    if not odd:
        return {}, ""
    called = labels()
    names = summarised(called.get(name, name) for name in odd)
    return odd, f"NaNs or infinities ({sum(odd.values()):,}) in {names}: copied as they are"
