"""Count NaNs, infinities and negative means of squares that a record's tensors contain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convert.folding import summarised


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


def negative(tensors: Mapping[str, Mapping[str, Any]], labels: Callable[[], Mapping[str, str]] = dict) -> str:
    """Return a note on second moments that have negative elements; "" if none has. Args: labels: see not_finite."""
    counts = {name: line["negative"] for name, line in tensors.items() if "negative" in line}
    if not counts:
        return ""
    called = labels()
    names = summarised(called.get(name, name) for name in counts)
    return f"negative numbers ({sum(counts.values()):,}) in {names}: copied as they are, but means of squares have none"
