"""Compare two averages of weights: which arrays go together where their places have other names, and their counts.

A conversion writes an average as `model_ema`, wherever the source had it: `ema/` of one file is `model_ema/module.` of
the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from convert.arrays.counters import read
from convert.config.conventions import same
from convert.optimizer.copies import WORDS
from convert.plans.plan import Plan
from convert.reading.named_copies import COUNTS, copies
from convert.reading.nesting import copied_place, training

from .plain_values import PlainValues

UNCOUNTED = "how often it was averaged, which one file does not store"  # in the verdict


def counted(left: Plan, right: Plan) -> tuple[PlainValues, tuple[str, ...]]:
    """Compare how often two averages were averaged, where both plans take one: at 0, the next copies the weights.

    Returns: also what was not compared, in words of the verdict.
    """
    places = [copied_place(plan.reading.place, WORDS) for plan in (left, right)]
    (a, b) = (_count(plan, place) for plan, place in zip((left, right), places, strict=True))
    if not all(places) or not (a and b):
        return PlainValues(frozenset(), {}, {}), (UNCOUNTED,) if all(places) and (a or b) else ()
    (name, ours), (other, theirs) = a, b
    alike = same(ours, theirs)
    differing = {} if alike else {name: (ours, theirs)}
    return PlainValues(frozenset({name, other}), differing, {name: ours} if alike else {}), ()


def _count(plan: Plan, place: str) -> tuple[str, object] | None:
    """Return the name and the value of the count in the place of an average; None where the file has none, or more."""
    names = [f"{place}{last}" for last in COUNTS] if place else []
    tensors, values = plan.reader.tensors, plan.reader.skipped.load()
    counts = {name: read(plan.reader, tensors[name]).value for name in names if name in tensors}
    every = {**counts, **{name: values[name] for name in names if name in values}}
    return next(iter(every.items())) if len(every) == 1 else None


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
