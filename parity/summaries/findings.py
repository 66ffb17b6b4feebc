"""Find what differs first in each model, and list the facts of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from convert.folding import listed
from parity.causes.next_steps import following
from parity.given.quoting import INPUT, place, quoted, unmarked
from parity.results.elements import aligned
from parity.results.guesses import Guess, joined
from parity.results.naming import own_name, with_own
from parity.results.result import Divergence, Result
from specs.numbers import limit, short
from specs.words import in_a_row

# Whose first divergence says most of the cause: an array inside the network does, a loss after ten steps does not.
TELLING = ("single-step", "layers", "forward", "gradients", "train")
ALSO_DIFFERS = "also differs"  # the label of the further checks of the same pairs
ALSO_IN = "also in"  # the label of the further models that part alike
RISE = 1000.0  # times the errors before it, above which an error may have a cause of its own
Facts = list[tuple[str, str]]  # (label, text)


@dataclass(frozen=True)
class Finding:
    """What differs first in one model.

    Args:
      result: the result that says most about the cause.
      pairs: the pairs that differ there alike.
      firsts: the result of each of these pairs in this check, whose first divergence it is.
      others: the model's further results that differ in these pairs.
      equal: the pairs that agree in the same check.
      exact: whether these pairs agree in float64 in this check, so that they differ below it alone.
      inferred: whether these pairs were compared in evaluation mode, and agree there.
      also: what differs first in further models of the architecture, in the same way.
    """

    result: Result
    firsts: tuple[Result, ...]
    others: tuple[Result, ...]
    equal: tuple[str, ...]
    exact: bool
    inferred: bool
    also: tuple[Finding, ...] = ()

    @property
    def pairs(self) -> tuple[str, ...]:
        return tuple(r.pair for r in self.firsts)

    @property
    def guess(self) -> Guess:
        """Return the cause that was recomputed, of all pairs together; what brings in NaN; "" for neither."""
        firsts = [r.first_divergence for r in self.firsts if r.first_divergence is not None]
        return joined(first.guess for first in firsts) or Guess(firsts[0].holds)

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what findings have in common that one fault of an architecture's code makes: all but numbers."""
        r, first = self.result, self.result.first_divergence
        if first is None:
            return (id(self),)
        words = [first.weights, self.guess.cause, first.place, first.worst.word, checks(self.others)]
        texts = (re.sub(r"\d[\d.e-]*", "#", text) for text in words)
        return r.architecture, r.check, r.dtype, r.device, str(first), self.pairs, self.equal, self.exact, *texts

    def states(self, other: Finding) -> tuple[str, str]:
        """Return the name of a further model that parts alike, and ": " with what is its own: its error, its cause."""
        first = other.result.first_divergence
        assert first is not None
        own = [f"error {short(first.error)}"] * (math.isfinite(first.error) and not first.worst.cause)
        theirs, ours = other.guess.cause, self.guess.cause
        own += [theirs] * (theirs != ours)
        return other.result.variant, f"{': ' * bool(own)}{', '.join(own)}"


def merge(lists: Iterable[Iterable[str]]) -> list[str]:
    """Merge lists of names into one: each name that is new comes after the one before it in its own list.

    Ahead of it are names of earlier lists that its own list lacks.
    """
    merged: list[str] = []
    for names in map(list, lists):
        at, own = 0, {*names}
        for name in names:
            if name not in merged:
                at = next((k for k in range(at, len(merged)) if merged[k] in own), len(merged))
                merged.insert(at, name)
            at = merged.index(name) + 1
    return merged


def find(results: Sequence[Result]) -> list[Finding]:
    """Find what differs first in each model: one finding for each array that is the first to differ in some pair.

    Those of one model stand in the order in which its arrays are computed: the first is the nearest to the cause.
    Models of one architecture that part alike share a finding.
    """
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for finding in _of_models(results):
        alike.setdefault(finding.kind, []).append(finding)
    return [replace(first, also=tuple(others)) for first, *others in alike.values()]


def _of_models(results: Sequence[Result]) -> list[Finding]:
    groups: dict[tuple[str, ...], list[Result]] = {}
    for r in results:
        if r.grade == "differs":
            groups.setdefault((r.architecture, r.variant, r.device, r.pair), []).append(r)
    merged: dict[tuple[str, ...], list[list[Result]]] = {}
    for key, group in groups.items():
        group.sort(key=lambda r: (TELLING.index(r.check), r.dtype != "float64"))
        first = group[0]
        merged.setdefault((*key[:3], first.check, first.dtype, str(first.first_divergence)), []).append(group)
    models = list(dict.fromkeys(key[:3] for key in merged))
    ordered = sorted(merged.items(), key=lambda item: (models.index(item[0][:3]), *_telling(item[1][0][0], results)))
    return [_finding(alike, results) for _, alike in ordered]


def _telling(result: Result, results: Iterable[Result]) -> tuple[int, bool, int]:
    """Return what orders the first divergences of one model: the check, the dtype, and the place in execution order."""
    curves = ([name for name, _, _ in r.curve] for r in results if key(r) == key(result))
    names, first = merge(curves), result.first_divergence
    before = first.previous[0] if first is not None and first.previous else None
    place = 2 * names.index(first) if first in names else 2 * names.index(before) + 1 if before in names else -1
    return TELLING.index(result.check), result.dtype != "float64", place


def _finding(alike: Sequence[Sequence[Result]], results: Sequence[Result]) -> Finding:
    first = alike[0][0]
    own = key(first)
    equal = dict.fromkeys(r.pair for r in results if r.passed and key(r) == own)
    others = {(r.check, r.dtype): r for group in alike for r in group[1:]}
    firsts = {group[0].pair: group[0] for group in alike}
    twin = key(replace(first, dtype="float64"))
    exact = {r.pair for r in results if r.passed and key(r) == twin} >= set(firsts)
    whole = [key(replace(first, check=check)) for check in ("forward", "layers")]
    inferred = {r.pair for r in results if r.passed and key(r) in whole} >= set(firsts)
    return Finding(first, tuple(firsts.values()), tuple(others.values()), tuple(equal), exact, inferred)


def exact_error(group: Sequence[Result], results: Iterable[Result]) -> str:
    """Write the largest error of the same pairs in float64, if all agree there and none is close; else ""."""
    twin, pairs = key(replace(group[0], dtype="float64")), {r.pair for r in group}
    agreeing = [r for r in results if key(r) == twin and r.pair in pairs and r.grade == "agrees"]
    return short(max(r.error or 0.0 for r in agreeing)) if {r.pair for r in agreeing} == pairs else ""


def key(r: Result) -> tuple[str, ...]:
    """Name what a result compares, but for its pair."""
    return r.architecture, r.variant, r.check, r.dtype, r.device


def facts(finding: Finding) -> Facts:
    """List the facts of a divergence, each with its label."""
    result, first = finding.result, finding.result.first_divergence
    if first is None:
        return [("cause", result.cause)]
    what = "layer" if result.check in ("layers", "single-step") else "array"
    name = f"{_named(first, result)} ({first})" if INPUT in first else with_own(first, result)
    causes = {"weights": first.weights, "looks like": finding.guess, "cause lies": first.place}
    rows = [("weights", f"differ already: {unmarked(str(result.weights))}")] if result.weights else []
    rows += [(what, name), *((label, text) for label, text in causes.items() if text), *_values(first, result)]
    if math.isfinite(first.error) and not first.worst.cause:
        basis = f", {first.basis}" if first.basis else ""
        rows += [("error", _here(finding)), ("limit", limit(first.tolerance) + basis), *_rounding(first, result)]
    rows += _worst(finding)
    rows += _rises(result)
    before = "none: it is the first"
    if first.previous:
        before = f"{_named(first.previous[0], result)}, error {short(first.previous[1])}"
        is_other = first in result.copies and first.previous[0] not in result.copies
        before += f", from the float64 copy of {quoted(result.sides[0])}" * is_other
    rows.append((f"{what} before", before))
    between = "; ".join(f"{listed(names)} (in {label}, no partner)" for label, names in first.between)
    rows += [("between", between)] if between else []
    further = {
        "agrees": ", ".join(finding.equal),
        ALSO_DIFFERS: checks(finding.others),
        ALSO_IN: "; ".join(f"{quoted(variant)}{text}" for variant, text in map(finding.states, finding.also)),
        "next": following(result, first, finding.exact, finding.inferred),
    }
    return [*rows, *((label, text) for label, text in further.items() if text)]


def _named(array: str, result: Result) -> str:
    """Name an array in words."""
    return unmarked(place(own_name(array, result), [name for name, _, _ in result.curve]))


def _here(finding: Finding) -> str:
    """State the error of the first array that differs, what it is the quotient of, and other errors of other pairs."""
    first = finding.result.first_divergence
    assert first is not None
    errors = {r.pair: short(r.first_divergence.error) for r in finding.firsts if r.first_divergence is not None}
    if len({*errors.values()}) == 1:
        return f"{short(first.error)}: {first.worst.quotient}"
    (pair, error), *others = errors.items()
    return "; ".join([f"{error} in {pair}: {first.worst.quotient}", *(f"{e} in {p}" for p, e in others)])


def _rounding(first: Divergence, result: Result) -> Facts:
    """State the rounding of each model in a lower dtype, where its error is judged by the least of these."""
    names = [name for name, *_ in result.curve]
    if first not in names or first in result.copies:
        return []
    at = names.index(first)
    each = in_a_row(f"{short(errors[at])} in {quoted(label)}" for label, errors in result.noise.items())
    return [("rounding", f"{each}: the difference of each model from its own float64 copy")] if each else []


def _worst(finding: Finding) -> Facts:
    """State each pair's error that is the largest share of its limit, which tables show, if a later array has it."""
    rows = [r for r in finding.firsts if r.error is not None and math.isfinite(r.error)]
    if all(short(r.error) == short(r.first_divergence.error) for r in rows if r.first_divergence is not None):
        return []
    places = {r.pair: (short(r.error), _named(worst_array(r), r)) for r in rows}
    alike = len({*places.values()}) == 1
    texts = dict.fromkeys(f"{error}{f' in {pair}' * (not alike)} at {at}" for pair, (error, at) in places.items())
    return [
        (
            "worst here",
            f"{'; '.join(texts)}: beyond {'its limit' if alike else 'their limits'} by the largest factor",
        )
    ]


def rise(r: Result) -> tuple[str, float, float] | None:
    """Return the first layer after the one that differs first whose error is far above all errors before it.

    Returns: (name, error, how many times the largest of those before it); None where no error rises so.
    """
    names = [name for name, *_ in r.curve]
    if r.check != "layers" or r.first_divergence not in names:
        return None
    start = names.index(str(r.first_divergence))
    most = r.curve[start][1]
    for name, error, bound in r.curve[start + 1 :]:
        if math.isfinite(error) and bound < error > RISE * most > 0:
            return name, error, error / most
        most = max(most, error)
    return None


def _rises(result: Result) -> Facts:
    """Say where an error may have a second cause, which the first one hides."""
    if (risen := rise(result)) is None:
        return []
    name, error, factor = risen
    at = f"{_named(name, result)}: {short(error)}, {short(factor)} times the largest error before it"
    return [("rises at", f"{at}, so that a second cause may lie there")]


def checks(results: Iterable[Result]) -> str:
    """List checks by dtype: "layers in float32; forward and train in float64 and float32"."""
    return "; ".join(f"{in_a_row(same)} in {in_a_row(names)}" for same, names in by_dtypes(results))


def by_dtypes(results: Iterable[Result]) -> list[tuple[list[str], tuple[str, ...]]]:
    """Return (checks, the dtypes that all of them ran in)."""
    dtypes: dict[str, dict[str, None]] = {}
    for r in results:
        dtypes.setdefault(r.check, {})[r.dtype] = None
    alike: dict[tuple[str, ...], list[str]] = {}
    for check, names in dtypes.items():
        alike.setdefault(tuple(names), []).append(check)
    return [(same, names) for names, same in alike.items()]


def _values(first: Divergence, result: Result) -> Facts:
    """State both values of the worst element."""
    worst = first.worst
    if worst.cause and worst.index is not None:
        return [("values", worst.cause)]
    if worst.cause:
        return [("cause", worst.cause)]
    left, right = aligned(worst.left, worst.right)
    names = list(map(quoted, worst.sides or result.sides or ("left", "right")))
    where = f"at {list(worst.index)}" if worst.index else ""
    return [("values", " ".join(filter(None, (f"{left} in {names[0]}, {right} in {names[1]}", where))))]


def is_of_copies(r: Result) -> bool:
    """Tell whether the error that a result states, in a lower dtype, is between the float64 copies of both models."""
    return worst_array(r) in r.copies


def worst_array(r: Result) -> str:
    """Name the array whose error has the largest share of its limit."""
    return max(r.curve, key=lambda point: point[1] / point[2] if point[2] else 0.0, default=("", 0.0, 0.0))[0]
