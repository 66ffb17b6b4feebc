"""Summarise results for people: the verdict in a sentence, counts, and what differs first in each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from specs.numerals import limit
from specs.words import count, in_a_row

from . import findings
from .own import OWN
from .result import Result

UNDECIDED = ("failed", "not run", "not judged")
WORST_ERROR = "worst error: the error that is nearest to its limit, or furthest beyond it"
DTYPE = "\0"  # stands for the dtype in a reason that several dtypes share


def model(result: Result, own: str = "own model") -> str:
    """Name a result's model: ARCHITECTURE:VARIANT, or ARCHITECTURE alone of no known variant.

    Args:
      own: what the user's models are called.
    """
    if result.variant == "own":
        return own if result.architecture == "own" else result.architecture
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
        (first, *_) = findings.find(results)
        at = f", first at {first.result.first_divergence}" if first.result.first_divergence is not None else ""
        share = f" in {counts['differs']:,} of {count(compared, 'comparison')}" if compared > 1 else ""
        return f"{_culprit(results)}{share}{at}{'' if alone else f' ({subject(first.result)})'}."
    if counts["failed"]:
        agree = f"; {compared:,} {'agrees' if compared == 1 else 'agree'}" if compared else ""
        return f"Not proven: {count(counts['failed'], 'comparison')} failed to run{agree}.{skipped}"
    if compared and (unproven := unjudged(results)):
        agree = f"{count(compared, 'comparison')} {'agrees' if compared == 1 else 'agree'}"
        return f"Nothing is proven of {in_a_row(unproven)}; of others, {agree}.{skipped}"
    if not compared:
        return f"Nothing {'is proven' if counts['not judged'] else 'was compared'}.{skipped}"
    number = "both comparisons" if compared == 2 else f"{'all ' * (compared > 1)}{count(compared, 'comparison')}"
    models = len({model(r) for r in results if r.passed})
    each = f" on each of {models:,} models," if models > 1 else ""
    near = f", {near}" if (near := closeness(results)) else ""
    return f"{_sides(results)} agree{each} in {number}{near}.{skipped}"


def passed(results: Sequence[Result]) -> bool:
    """Tell whether something was compared of each model, but for what could not run, and nothing of it differs."""
    return any(r.passed for r in results) and not any(r.passed is False for r in results) and not unjudged(results)


def unjudged(results: Iterable[Result]) -> list[str]:
    """Name the models of which something could not be judged, as NaN, and nothing was."""
    grades_of: dict[str, set[str]] = {}
    for r in results:
        grades_of.setdefault(model(r), set()).add(r.grade)
    return [name for name, found in grades_of.items() if "not judged" in found <= {"not judged", "not run"}]


def closeness(results: Iterable[Result]) -> str:
    """Count the checks in which some pair is close to its limit: "1 check close to its limit"; "" for none."""
    number = len(near(results))
    return f"{count(number, 'check')} close to {'its limit' if number == 1 else 'their limits'}" if number else ""


def near(results: Iterable[Result]) -> list[list[Result]]:
    """Group the results that agree close to their limits by model, check, dtype and device."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for r in results:
        if r.grade == "close":
            groups.setdefault(findings.key(r), []).append(r)
    return list(groups.values())


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
    """Count what was compared: "252 compared in 6,310 arrays, 252 agree; worst error: float64 1.9e-14 (limit 1e-10)".

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
    judged = [r for r in results if r.grade in ("agrees", "close", "differs")]
    arrays = sum(len(r.curve) for r in judged)  # outputs of layers, gradients or parameters
    if arrays and not places:  # a page shows each of them
        parts[0] += f" in {count(arrays, 'array')}"
    worst: dict[str, Result] = {}  # by dtype
    for r in judged:
        if r.dtype not in worst or r.ratio > worst[r.dtype].ratio:
            worst[r.dtype] = r
    several = len({model(r) for r in results}) > 1
    errors = [
        f"{dtype} {r.shown} ({'; '.join([f'limit {limit(r.tolerance)}', *[_place(r, several)] * places])})"
        if r.tolerance
        else f"{dtype} {r.shown}{f' ({_place(r, several)})' * places}"
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
    array = findings.worst_array(r)
    return f"{f'{model(r)}, ' * several}{r.pair}, {r.check}{f' at `{array}`' if array else ''}"


def _ordered(dtypes: Iterable[str]) -> list[str]:
    """Put float64, which decides, in front of the other dtypes."""
    return sorted(dtypes, key=lambda dtype: dtype != "float64")


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
    sides = in_a_row(dict.fromkeys(side for side, _ in group if not why.startswith(side.partition("@")[0])))
    why = why.replace(DTYPE, in_a_row(dict.fromkeys(r.dtype for r in results if any(r is other for _, other in group))))
    return f"{sides}{': ' * bool(sides)}{why} ({_concerned(group, results)})"


def _which(group: Sequence[Result], results: Iterable[Result]) -> str:
    """Name comparisons by their pairs, and by model and check where these are not all that there are."""
    pairs, models = dict.fromkeys(r.pair for r in group), dict.fromkeys(map(model, group))
    parts = [_some(list(pairs))]
    parts += [_some(list(models))] if len(models) < len({model(r) for r in results}) else []
    asked = {(r.check, r.dtype) for r in results}
    parts += [findings.checks(group)] if len({(r.check, r.dtype) for r in group}) < len(asked) else []
    return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    """List up to four names, or three and how many others; a name that has a comma is quoted."""
    names = [f"'{name}'" if "," in name else name for name in names]
    return in_a_row(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def notes(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return (remark on results that ran, the comparisons that it concerns: "2 comparisons: a-b"), each remark once.

    A remark that several models share names them together: "a and b: ...".
    """
    groups: dict[str, list[tuple[str, Result]]] = {}  # by the text without the model in front
    for r in results:
        if r.cause and r.passed is not None and not r.missing:
            for note in r.remarks or (r.cause,):
                label, _, text = note.partition(": ")
                own = bool(text) and label in r.sides
                groups.setdefault(text if own else note, []).append((label if own else "", r))
    return [(_of_sides(text, group), _concerned(group, results)) for text, group in groups.items()]


def _of_sides(text: str, group: Sequence[tuple[str, Result]]) -> str:
    """Put the models of a remark in front of it: none where it is of both models in each comparison."""
    if not any(label for label, _ in group):
        return text
    sides = dict.fromkeys(side for label, r in group for side in ([label] if label else r.sides))
    return f"{in_a_row(sides)}: {text}"


def _concerned(group: Sequence[tuple[str, Result]], results: Iterable[Result]) -> str:
    """Count and name the comparisons of a remark."""
    concerned = [r for r in results if any(r is other for _, other in group)]
    return f"{count(len(concerned), 'comparison')}: {_which(concerned, results)}"
