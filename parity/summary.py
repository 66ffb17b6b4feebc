"""Summarise results for people: the verdict in a sentence, counts, and what differs first in each model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from specs.numerals import limit, short
from specs.words import in_a_row

from .elements import aligned
from .naming import with_own
from .next_steps import following
from .own import OWN
from .result import Divergence, Result

# Whose first divergence says most of the cause: an array inside the network does, a loss after ten steps does not.
TELLING = ("single-step", "layers", "forward", "gradients", "train")
UNDECIDED = ("failed", "not run", "not judged")
WORST_ERROR = "worst error: the error that is nearest to its limit, or furthest beyond it"
DTYPE = "\0"  # stands for the dtype in a reason that several dtypes share
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
    """

    result: Result
    firsts: tuple[Result, ...]
    others: tuple[Result, ...]
    equal: tuple[str, ...]
    exact: bool
    inferred: bool

    @property
    def pairs(self) -> tuple[str, ...]:
        return tuple(r.pair for r in self.firsts)


def merge(lists: Iterable[Iterable[str]]) -> list[str]:
    """Merge lists of names into one: each name that is new comes after the one before it in its own list."""
    merged: list[str] = []
    for names in lists:
        at = 0
        for name in names:
            if name not in merged:
                merged.insert(at, name)
            at = merged.index(name) + 1
    return merged


def count(number: int, noun: str) -> str:
    """Write a number with its noun: "1 comparison", "2 comparisons"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def model(result: Result) -> str:
    """Name a result's model: ARCHITECTURE:VARIANT, ARCHITECTURE alone of no known variant, or a user's "own model"."""
    if result.variant == "own":
        return "own model" if result.architecture == "own" else result.architecture
    return f"{result.architecture}:{result.variant}"


def grades(results: Iterable[Result]) -> Counter[str]:
    """Count results by grade."""
    return Counter(r.grade for r in results)


def compared(results: Iterable[Result], own: str) -> str:
    """Name what was compared: a model, up to three of them, or their architectures; the file alone of a checkpoint.

    Args:
      own: what the user's models are called.
    """
    files = {model(r): r.variant if r.files and r.architecture != OWN else model(r) for r in results}
    models = [own if name == "own model" else text for name, text in files.items()]
    return in_a_row(models if len(models) < 4 else dict.fromkeys(name.partition(":")[0] for name in files))


def assumptions(results: Iterable[Result]) -> str:
    """List the settings that nobody states: "Assumed: gelu=erf, norm_eps=1e-6"; by model where these differ in them."""
    models: dict[tuple[str, ...], dict[str, None]] = {}
    for r in results:
        models.setdefault(r.assumed, {})[model(r)] = None
    texts = [
        ", ".join(settings) + f" in {_some(list(names))}" * (len(models) > 1)
        for settings, names in models.items()
        if settings
    ]
    return f"Assumed: {'; '.join(texts)}" if texts else ""


def verdict(results: Sequence[Result], alone: bool = False) -> str:
    """Say in one sentence whether the models agree, and in another one what is assumed of them.

    Args:
      alone: leave out in which comparison the first difference is, which a card says.
    """
    assumed = assumptions(results)
    return _judgement(results, alone) + (f" {assumed}." if assumed else "")


def _judgement(results: Sequence[Result], alone: bool) -> str:
    counts = grades(results)
    compared = counts["agrees"] + counts["close"] + counts["differs"]
    skipped = f" {count(counts['not run'], 'comparison')} did not run." if counts["not run"] else ""
    skipped += f" {count(counts['not judged'], 'comparison')} could not be judged." if counts["not judged"] else ""
    if counts["differs"]:
        (first, *_) = findings(results)
        at = f", first at {first.result.first_divergence}" if first.result.first_divergence is not None else ""
        share = f" in {counts['differs']:,} of {count(compared, 'comparison')}" if compared > 1 else ""
        return f"{_culprit(results)}{share}{at}{'' if alone else f' ({subject(first.result)})'}."
    if counts["failed"]:
        agree = f"; {compared:,} {'agrees' if compared == 1 else 'agree'}" if compared else ""
        return f"Not proven: {count(counts['failed'], 'comparison')} failed to run{agree}.{skipped}"
    if not compared:
        return f"Nothing {'is proven' if counts['not judged'] else 'was compared'}.{skipped}"
    number = "both comparisons" if compared == 2 else f"{'all ' * (compared > 1)}{count(compared, 'comparison')}"
    models = len({model(r) for r in results if r.passed})
    each = f" on each of {models:,} models," if models > 1 else ""
    near = f", {near}" if (near := closeness(results)) else ""
    return f"{_sides(results)} agree{each} in {number}{near}.{skipped}"


def closeness(results: Iterable[Result]) -> str:
    """Count the checks in which some pair is close to its limit: "1 check close to its limit"; "" for none."""
    number = len(near(results))
    return f"{count(number, 'check')} close to {'its limit' if number == 1 else 'their limits'}" if number else ""


def near(results: Iterable[Result]) -> list[list[Result]]:
    """Group the results that agree close to their limits by model, check, dtype and device."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for r in results:
        if r.grade == "close":
            groups.setdefault(_key(r), []).append(r)
    return list(groups.values())


def worst_array(r: Result) -> str:
    """Name the array whose error has the largest share of its limit."""
    return max(r.curve, key=lambda point: point[1] / point[2] if point[2] else 0.0, default=("", 0.0, 0.0))[0]


def _culprit(results: Iterable[Result]) -> str:
    """Name what differs: "torch differs from flax and paddle" where one model is on a side of every difference."""
    off = [r for r in results if r.grade == "differs"]
    common = set.intersection(*(set(r.sides) for r in off))
    others = list(dict.fromkeys(side for r in off for side in r.sides if side not in common))
    if len(common) == 1 and len(others) > 1:
        return f"{common.pop()} differs from {in_a_row(others)}"
    sides = list(dict.fromkeys(side for r in off for side in r.sides))
    return f"{in_a_row(sides)} differ" if len(sides) == 2 else "The models differ"


def _sides(results: Iterable[Result]) -> str:
    names = list(dict.fromkeys(side for r in results if r.passed for side in r.sides))
    return in_a_row(names) if 1 < len(names) < 7 else "All models"


def subject(result: Result) -> str:
    """Name what a result compares: model, check and dtype."""
    return f"{model(result)}, check {result.check} in {result.dtype}"


def totals(results: Sequence[Result], places: bool = False) -> str:
    """Count what was compared: "252 compared, 252 agree; worst error: float64 1.9e-14 (limit 1e-10)".

    Limits differ by dtype, check and array, so the worst error is the one with the largest share of its limit. Each
    dtype has its own, float64 first.

    Args:
      places: name the model, pair, check and array that has it, the array between backticks.
    """
    counts = grades(results)
    agree = counts["agrees"] + counts["close"]
    parts = [f"{agree + counts['differs']:,} compared", f"{agree:,} {'agrees' if agree == 1 else 'agree'}"]
    parts += [f"{counts['differs']:,} {'differs' if counts['differs'] == 1 else 'differ'}"] if counts["differs"] else []
    parts += [f"{counts['failed']:,} failed to run"] if counts["failed"] else []
    parts += [f"{counts[grade]:,} {grade}" for grade in ("not run", "not judged") if counts[grade]]
    worst: dict[str, Result] = {}  # by dtype
    for r in results:
        if r.grade in ("agrees", "close", "differs") and (r.dtype not in worst or r.ratio > worst[r.dtype].ratio):
            worst[r.dtype] = r
    several = len({model(r) for r in results}) > 1
    errors = [
        f"{dtype} {short(r.error)} (limit {limit(r.tolerance)}{f'; {_place(r, several)}' * places})"
        for dtype, r in ((dtype, worst[dtype]) for dtype in _ordered(worst))
    ]
    return ", ".join(parts) + (f"; worst error: {', '.join(errors)}" if errors else "")


def several_limits(results: Iterable[Result]) -> bool:
    """Tell whether arrays of one dtype have more than one limit, so that the worst error need not be the largest."""
    limits: dict[str, set[float | None]] = {}
    for r in results:
        if r.passed is not None:
            limits.setdefault(r.dtype, set()).update([r.tolerance, *(bound for _, _, bound in r.curve)])
    return any(len(bounds) > 1 for bounds in limits.values())


def _place(r: Result, several: bool) -> str:
    """Name where a result's worst error is; its model too, where there are several."""
    array = worst_array(r)
    return f"{f'{model(r)}, ' * several}{r.pair}, {r.check}{f' at `{array}`' if array else ''}"


def _ordered(dtypes: Iterable[str]) -> list[str]:
    """Put float64, which decides, in front of the other dtypes."""
    return sorted(dtypes, key=lambda dtype: dtype != "float64")


def findings(results: Sequence[Result]) -> list[Finding]:
    """Find what differs first in each model: one finding for each array that is the first to differ in some pair.

    Those of one model stand in the order in which its arrays are computed: the first is the nearest to the cause.
    """
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
    curves = ([name for name, _, _ in r.curve] for r in results if _key(r) == _key(result))
    names, first = merge(curves), result.first_divergence
    before = first.previous[0] if first is not None and first.previous else None
    place = 2 * names.index(first) if first in names else 2 * names.index(before) + 1 if before in names else -1
    return TELLING.index(result.check), result.dtype != "float64", place


def _finding(alike: Sequence[Sequence[Result]], results: Sequence[Result]) -> Finding:
    first = alike[0][0]
    key = _key(first)
    equal = dict.fromkeys(r.pair for r in results if r.passed and _key(r) == key)
    others = {(r.check, r.dtype): r for group in alike for r in group[1:]}
    firsts = {group[0].pair: group[0] for group in alike}
    twin = _key(replace(first, dtype="float64"))
    exact = {r.pair for r in results if r.passed and _key(r) == twin} >= set(firsts)
    whole = [_key(replace(first, check=check)) for check in ("forward", "layers")]
    inferred = {r.pair for r in results if r.passed and _key(r) in whole} >= set(firsts)
    return Finding(first, tuple(firsts.values()), tuple(others.values()), tuple(equal), exact, inferred)


def _key(r: Result) -> tuple[str, ...]:
    return r.architecture, r.variant, r.check, r.dtype, r.device


def facts(finding: Finding) -> Facts:
    """List the facts of a divergence, each with its label."""
    result, first = finding.result, finding.result.first_divergence
    if first is None:
        return [("cause", result.cause)]
    what = "layer" if result.check in ("layers", "single-step") else "array"
    path, _, place = first.partition(" <- ")
    name = f"{first} (input {place} of {path})" if place else with_own(first, result)
    rows = [(what, name), *_values(first, result)]
    if math.isfinite(first.error) and not first.worst.cause:
        basis = f", {first.basis}" if first.basis else ""
        rows += [("error", _here(finding)), ("limit", limit(first.tolerance) + basis)]
    rows += _worst(finding)
    before = f"{first.previous[0]}, error {short(first.previous[1])}" if first.previous else "none: it is the first"
    rows.append((f"{what} before", before))
    further = {
        "weights": first.weights,
        "looks like": first.guess,
        "cause lies": first.place,
        "agrees": ", ".join(finding.equal),
        "also differs": checks(finding.others),
        "next": following(result, first, finding.exact, finding.inferred),
    }
    return [*rows, *((label, text) for label, text in further.items() if text)]


def _here(finding: Finding) -> str:
    """State the error of the first array that differs, what it is the quotient of, and other errors of other pairs."""
    first = finding.result.first_divergence
    assert first is not None
    errors = {r.pair: short(r.first_divergence.error) for r in finding.firsts if r.first_divergence is not None}
    if len({*errors.values()}) == 1:
        return f"{short(first.error)}: {first.worst.quotient}"
    (pair, error), *others = errors.items()
    return "; ".join([f"{error} in {pair}: {first.worst.quotient}", *(f"{e} in {p}" for p, e in others)])


def _worst(finding: Finding) -> Facts:
    """State the worst error of each pair's whole comparison, which the tables show, where a later array has one."""
    rows = [r for r in finding.firsts if r.error is not None and math.isfinite(r.error)]
    if all(r.error == r.first_divergence.error for r in rows if r.first_divergence is not None):
        return []
    places = {r.pair: (short(r.error), worst_array(r)) for r in rows}
    alike = len({*places.values()}) == 1
    texts = dict.fromkeys(f"{error}{f' in {pair}' * (not alike)} at {at}" for pair, (error, at) in places.items())
    return [("worst error", f"{'; '.join(texts)}: the number that the tables show")]


def checks(results: Iterable[Result]) -> str:
    """List checks by dtype: "layers in float32; forward and train in float64 and float32"."""
    dtypes: dict[str, dict[str, None]] = {}
    for r in results:
        dtypes.setdefault(r.check, {})[r.dtype] = None
    alike: dict[tuple[str, ...], list[str]] = {}
    for check, names in dtypes.items():
        alike.setdefault(tuple(names), []).append(check)
    return "; ".join(f"{in_a_row(same)} in {in_a_row(names)}" for names, same in alike.items())


def _values(first: Divergence, result: Result) -> Facts:
    """State both values of the worst element."""
    worst = first.worst
    if worst.cause:
        return [("cause", worst.cause)]
    left, right = aligned(worst.left, worst.right)
    names = worst.sides or result.sides or ("left", "right")
    where = f"at {list(worst.index)}" if worst.index else ""
    return [("values", " ".join(filter(None, (f"{left} in {names[0]}, {right} in {names[1]}", where))))]


def causes(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return (grade, sentence) for each cause why results are undecided, with the comparisons that it concerns."""
    groups: dict[tuple[str, str], list[tuple[str, Result]]] = {}
    for r in results:
        if r.grade in UNDECIDED:
            for side, why in r.missing or [("", r.cause)]:
                groups.setdefault((r.grade, why.replace(r.dtype, DTYPE)), []).append((side, r))
    ordered = sorted(groups.items(), key=lambda item: UNDECIDED.index(item[0][0]))
    return [(grade, f"{grade}: {_reason(why, group, results)}") for (grade, why), group in ordered]


def _reason(why: str, group: Sequence[tuple[str, Result]], results: Iterable[Result]) -> str:
    """Write a reason with the sides and dtypes that share it, and the comparisons that it concerns."""
    concerned = [r for r in results if any(r is other for _, other in group)]
    sides = in_a_row(dict.fromkeys(side for side, _ in group if not why.startswith(side.partition("@")[0])))
    why = why.replace(DTYPE, in_a_row(dict.fromkeys(r.dtype for r in concerned)))
    which = f"{count(len(concerned), 'comparison')}: {_which(concerned, results)}"
    return f"{sides}{': ' * bool(sides)}{why} ({which})"


def _which(group: Sequence[Result], results: Iterable[Result]) -> str:
    """Name comparisons by their pairs, and by model and check where these are not all that there are."""
    pairs, models = dict.fromkeys(r.pair for r in group), dict.fromkeys(map(model, group))
    parts = [_some(list(pairs))]
    parts += [_some(list(models))] if len(models) < len({model(r) for r in results}) else []
    asked = {(r.check, r.dtype) for r in results}
    parts += [checks(group)] if len({(r.check, r.dtype) for r in group}) < len(asked) else []
    return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    """List up to four names, or three and how many others; a name that has a comma is quoted."""
    names = [f"'{name}'" if "," in name else name for name in names]
    return in_a_row(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def notes(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return (remark on results that ran, the comparisons that it concerns: "2 comparisons: a-b"), each remark once."""
    groups: dict[str, list[Result]] = {}
    for r in results:
        if r.cause and r.passed is not None and not r.missing:
            for note in r.remarks or (r.cause,):
                groups.setdefault(note, []).append(r)
    return [(note, f"{count(len(group), 'comparison')}: {_which(group, results)}") for note, group in groups.items()]
