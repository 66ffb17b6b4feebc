"""Match the places that two files name otherwise: of the weights, and of an average of them, whose counts it compares.

A conversion writes the weights as `model` and an average as `model_ema`, wherever the source had them: `ema/` of one
file is `model_ema/module.` of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from convert.arrays.counters import read
from convert.config.conventions import same
from convert.plans.plan import Plan
from convert.reading.named_copies import COUNTS, copies
from convert.reading.nesting import AVERAGES, LIVE, copied_place, training, unwrapped

from .plain_values import PlainValues

UNCOUNTED = "how often it was averaged, which one file does not store"  # in the verdict


def counted(left: Plan, right: Plan) -> tuple[PlainValues, tuple[str, ...]]:
    """Compare how often two averages were averaged, where both plans take one: at 0, the next copies the weights.

    Returns: also what was not compared, in words of the verdict.
    """
    places = [copied_place(plan.reading.place, AVERAGES) for plan in (left, right)]
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


def matched(
    ours: Collection[str], theirs: Collection[str], whole: bool
) -> tuple[dict[str, str], dict[str, str], set[str]]:
    """Match the averages of two files, if each has exactly one, of the same weights, and the weights of whole files.

    Args:
      ours: names of all arrays of A. theirs: of B. whole: whether these are all of both files.
    Returns: {name in B: name in A} of the weights and of the averages, {} where both have the same places; and the name
      of a count of averaging that one of the two files lacks.
    """
    weights = _weights(ours, theirs) if whole else {}
    a, b = _average(ours), {weights.get(weight, weight): name for weight, name in _average(theirs).items()}
    averages = {b[weight]: a[weight] for weight in a if weight in b}
    if (a.keys() ^ b.keys()) - {""} or not _differ(averages):
        return weights, {}, set()
    alone = {side[""] for side, other in ((a, b), (b, a)) if "" in side and "" not in other}
    return weights, averages, alone


def _weights(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Return {name in B: name in A} of the weights, where both files have most of them, in places of other names."""
    a, b = _inside(ours), _inside(theirs)
    names = {name: a.get(inner, name) for inner, name in b.items()}
    mostly = 2 * len(a.keys() & b.keys()) > max(len(a), len(b))
    return names if mostly and len(set(names.values())) == len(names) and _differ(names) else {}


def _differ(names: Mapping[str, str]) -> bool:
    return any(old != new for old, new in names.items())


def _inside(names: Collection[str]) -> dict[str, str]:
    """Return {name of a weight in the usual place in which all of a file lie, without wrappers: its name}."""
    weights = [name for name in names if not training(name) and not copied_place(name)]
    places = (f"{place}/" if place else "" for place in LIVE)
    place = max((place for place in places if all(name.startswith(place) for name in weights)), key=len)
    inside = {unwrapped(name.removeprefix(place)): name for name in weights}
    return inside if len(inside) == len(weights) else {}


def _average(names: Collection[str]) -> Mapping[str, str]:
    """Return {weight: name of its average, "": name of the count} of the one average in a file; {} of none or more."""
    inside = dict.fromkeys(name for name in names if copied_place(name, AVERAGES))
    weights = [name for name in names if name not in inside and not training(name)]
    places = [pairs for pairs in copies(inside, weights, AVERAGES).values() if any(pairs.values())]
    if len(places) != 1:
        return {}
    average = {weight: name for name, weight in places[0].items()}
    is_count = average.get("", "count").replace(".", "/").rpartition("/")[2] in COUNTS
    return average if is_count and len(average) == len(places[0]) else {}
