"""Find which averages of weights go together in two files that have them in places of other names.

A conversion writes an average as `model_ema`, wherever the source had it: `ema/` of one file is `model_ema/module.` of
the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from convert.optimizer.copies import WORDS
from convert.reading.named_copies import COUNTS, copies
from convert.reading.nesting import copied_place, training


def matched(ours: Collection[str], theirs: Collection[str]) -> tuple[dict[str, str], set[str]]:
    """Match the averages of two files, if each has exactly one, of the same weights, in a place of another name.

    Args:
      ours: names of all arrays of A. theirs: of B.
    Returns: {name in B: name in A}, and the name of a count of averaging that one of the two files lacks.
    """
    a, b = _average(ours), _average(theirs)
    names = {b[weight]: a[weight] for weight in a if weight in b}
    if (a.keys() ^ b.keys()) - {""} or all(old == new for old, new in names.items()):
        return {}, set()
    alone = {side[""] for side, other in ((a, b), (b, a)) if "" in side and "" not in other}
    return names, alone


def _average(names: Collection[str]) -> Mapping[str, str]:
    """Return {weight: name of its average, "": name of the count} of the one average in a file; {} of none or more."""
    inside = dict.fromkeys(name for name in names if copied_place(name, WORDS))
    weights = [name for name in names if name not in inside and not training(name)]
    places = [pairs for pairs in copies(inside, weights, WORDS).values() if any(pairs.values())]
    if len(places) != 1:
        return {}
    average = {weight: name for name, weight in places[0].items()}
    is_count = average.get("", "count").replace(".", "/").rpartition("/")[2] in COUNTS
    return average if is_count and len(average) == len(places[0]) else {}
