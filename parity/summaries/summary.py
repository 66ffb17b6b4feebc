"""Summarise results for people: the verdict in a sentence, counts, and what differs first in each model."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence

from parity.given.own import OWN
from parity.given.quoting import marked, place, quoted
from parity.results.naming import own_name
from parity.results.result import ABSENT, NO_PORT, Result
from ports.runners.inputs import OUTPUT
from specs.numbers import limit, short
from specs.words import count, counted, in_a_row

from . import findings
from .failures import REASON, failure, holds

NEAREST, FURTHEST = "error nearest to its limit", "error furthest beyond its limit"  # which stands for all others
DTYPE = "\0"  # stands for the dtype in a reason that several dtypes share


def model(result: Result, own: str = "own models") -> str:
    """Name a result's model: ARCHITECTURE:VARIANT, or ARCHITECTURE alone of no known variant.

    Args:
      own: what the user's models are called.
    """
    if result.variant == OWN:
        return own if result.architecture == OWN else result.architecture
    return f"{result.architecture}:{result.variant}"


def grades(results: Iterable[Result]) -> Counter[str]:
    """Count results by grade."""
    return Counter(r.grade for r in results)


def compared(results: Iterable[Result], own: str) -> str:
    """Name what was compared, marked: a model, up to three of them, or their architectures; a checkpoint's file alone.

    Args:
      own: what the user's models are called.
    """
    results = list(results)
    of_files = {model(r) for r in results if _is_of_file(r)}  # what did not run has no file
    names = {model(r): r.variant if model(r) in of_files else model(r) for r in results}
    models = [own if name == "own models" else marked(text) for name, text in names.items()]
    return in_a_row(models if len(models) < 4 else dict.fromkeys(marked(name.partition(":")[0]) for name in names))


def _is_of_file(r: Result) -> bool:
    """Tell whether a variant is named after a checkpoint: "model.npz S/16"."""
    return r.architecture != OWN and any(os.path.basename(file.rstrip("/")) in r.variant for file in r.files)


def assumptions(results: Iterable[Result]) -> str:
    """List the settings that nobody states: "Assumed: gelu=erf, norm_eps=1e-6"; by marked models where these differ."""
    models: dict[tuple[str, ...], dict[str, None]] = {}
    for r in results:
        models.setdefault(r.assumed, {})[model(r)] = None
    texts = [
        ", ".join(settings) + f" in {listed([marked(name) for name in names])}" * (len(models) > 1)
        for settings, names in models.items()
        if settings
    ]
    return f"Assumed: {'; '.join(texts)}" if texts else ""


def verdict(results: Sequence[Result], alone: bool = False) -> str:
    """Say in one sentence whether the models agree, before it which weights differ, after it what is assumed.

    Of what differs first it states the cause, if that is known. Names are marked.

    Args:
      alone: leave out in which comparison the first difference is, which a card says.
    """
    assumed = assumptions(results)
    weights = next((f"The weights differ: {r.weights}. " for r in results if r.weights), "")
    return f"{weights}{_judgement(results, alone)}" + (f" {assumed}." if assumed else "")


def _judgement(results: Sequence[Result], alone: bool) -> str:
    counts = grades(results)
    compared = counts["agrees"] + counts["close"] + counts["differs"]
    skipped = _skipped(results)
    skipped += f" {counted(counts['not judged'], 'comparison')} could not be judged." if counts["not judged"] else ""
    if counts["differs"]:
        (first, *others_found) = findings.find(results)
        off, others = apart(results)
        also = f" {listed(others)} agree{'s' * (len(others) == 1)}." if others else ""
        array = first.result.first_divergence
        where = "" if alone else f" ({subject(first.result)})"
        failed = f" {counted(counts['failed'], 'comparison')} failed to run." if counts["failed"] else ""
        agreed = "The outputs agree. " if all(map(_outputs_agree, off)) else ""
        share = _share(off, of_all=not others)
        firsts = [first, *(f for f in others_found if findings.key(f.result) == findings.key(first.result))]
        at = (
            f", first at {'; at '.join(_first(one, named=len(firsts) > 1) for one in firsts)}"
            if array is not None
            else ""
        )
        return f"{agreed}{_culprit(off)}{share}{at}{where}.{also}{failed}{skipped}"
    if counts["failed"]:
        agree = f"; {compared:,} {'agrees' if compared == 1 else 'agree'}" if compared else ""
        return f"Not proven: {failure(results)}{agree}.{skipped}"
    if compared and (unproven := unjudged(results)):
        agree = f"{count(compared, 'comparison')} {'agrees' if compared == 1 else 'agree'}"
        return f"Nothing is proven of {in_a_row(unproven)}{holds(results)}; of others, {agree}.{skipped}"
    if not compared:
        return f"Nothing {f'is proven{holds(results)}' if counts['not judged'] else 'was compared'}.{skipped}"
    number = {1: "the only comparison", 2: "both comparisons"}.get(compared, f"all {compared:,} comparisons")
    models = len({model(r) for r in results if r.passed})
    each = f" on each of {models:,} models," if models > 1 else ""
    near = f", {near}" if (near := closeness(results)) else ""
    return f"{_sides(results)} agree{each} in {number}{near}{_of_losses(results)}.{skipped}"


def _of_losses(results: Sequence[Result]) -> str:
    """Say that no parameter was compared where no two of both models have one name; "" otherwise."""
    names = [[name for name, *_ in r.curve] for r in results if r.check == "train" and r.passed]
    alone = any(own and all(name.endswith(": losses") for name in own) for own in names)
    return ", but check train compared losses alone, and no parameter" * alone


def _skipped(results: Sequence[Result]) -> str:
    """Count the comparisons that did not run, with the reason if all share a short one, or else the dtypes of none."""
    skipped = [r for r in results if r.grade == "not run"]
    if not skipped:
        return ""
    reasons = dict.fromkeys(
        (why if why.startswith(side.partition("@")[0]) else f"{side}: {why}").replace(r.dtype, DTYPE)
        for r in skipped
        for side, why in r.missing
    )
    why = next(iter(reasons)).replace(DTYPE, in_a_row(dict.fromkeys(r.dtype for r in skipped)))
    nowhere = unrun(results)
    about = f": {why}" if len(reasons) == 1 and len(why) <= REASON else ""
    about = about or f"; none ran in {in_a_row(nowhere)}" * bool(nowhere)
    number = counted(len(skipped), "comparison")
    is_behind_a_number = number[0].isdigit() and len(skipped) < len(results)
    return f" {'Another ' * is_behind_a_number}{number} did not run{about}."


def unrun(results: Iterable[Result]) -> list[str]:
    """List the dtypes in which nothing could run, where something ran in others."""
    ran = {r.dtype for r in results if r.grade != "not run"}
    return list(dict.fromkeys(r.dtype for r in results if r.dtype not in ran)) if ran else []


def tabled(results: Sequence[Result]) -> list[list[Result]]:
    """Group results by architecture, dtype and device; leave out groups in which none ran, where others did."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.architecture, r.dtype, r.device), []).append(r)
    ran = [group for group in groups.values() if any(r.grade != "not run" for r in group)]
    return ran or list(groups.values())


def _outputs_agree(r: Result) -> bool:
    """Tell whether models return the same, whatever their layers do: not where each layer got its own inputs."""
    returned = [error <= bound for name, error, bound in r.curve if name.partition(":")[0] == OUTPUT]
    return r.passed is True or (r.check == "layers" and bool(returned) and all(returned))


def apart(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Return the results of models of which some differ, and the marked names of other models that agree."""
    off = {model(r) for r in results if r.grade == "differs"}
    others = dict.fromkeys(marked(model(r)) for r in results if model(r) not in off and r.passed)
    return [r for r in results if model(r) in off], list(others)


def _first(finding: findings.Finding, named: bool) -> str:
    """Name what differs first, with its cause; if `named`, with the pairs in which it is the first."""
    array = finding.result.first_divergence
    at = _at(array, finding.result) if array is not None else ""
    return f"{at}{_briefly(finding)}" + f" ({', '.join(finding.pairs)})" * named


def _briefly(finding: findings.Finding) -> str:
    """State the cause of what differs first, without its evidence: ": epsilon is 1e-5 in a, 1e-3 in b"; "" for none."""
    first = finding.result.first_divergence
    if first is None:
        return ""
    if first.holds:
        return f": {first.holds}"
    if first.of_weights:
        array, _, text = first.of_weights.partition("; ")[0].partition(": ")
        leaf = array.partition(" ")[0].rpartition(".")[2]
        return f": {text.partition(', ')[0].replace(' elements ', f' elements of its {leaf} ', 1)}"
    cause = finding.guess.cause.rpartition(", after ")
    text = cause[0] or cause[2] or finding.result.word(first)
    for label in finding.result.sides:  # marked as ahead of it
        text = text.replace(quoted(label), _label(label)) if quoted(label) != label else text
    return f": {text}" if text else ""


def _share(off: Sequence[Result], of_all: bool) -> str:
    """Say how many of several comparisons differ: "in 8 of 12 comparisons", "in all 42 comparisons that ran".

    Args:
      off: of the models of which some differ. of_all: whether there are no other models.
    """
    counts = grades(off)
    compared = counts["agrees"] + counts["close"] + counts["differs"]
    if compared < 2:
        return ""
    kind = " that were judged" if counts["not judged"] else " that ran" * bool(counts["not run"] + counts["failed"])
    models = len({model(r) for r in off})
    kind += f" on {'one model' if models == 1 else count(models, 'model')}" * (not of_all)
    if counts["differs"] < compared:
        return f" in {counts['differs']:,} of {compared:,} comparisons{kind}"
    return f" in {'both' if compared == 2 else f'all {compared:,}'} comparisons{kind}"


def passed(results: Sequence[Result]) -> bool:
    """Tell whether something was compared of each model, but for what could not run, and nothing of it differs."""
    return any(r.passed for r in results) and not any(r.passed is False for r in results) and not unjudged(results)


def unjudged(results: Iterable[Result]) -> list[str]:
    """Name the models of which something could not be judged, as NaN, and nothing was."""
    grades_of: dict[str, set[str]] = {}
    for r in results:
        grades_of.setdefault(model(r), set()).add(r.grade)
    return [name for name, own_grades in grades_of.items() if "not judged" in own_grades <= {"not judged", "not run"}]


def closeness(results: Iterable[Result]) -> str:
    """Count the checks in which some pair is close to its limit: "1 check close to its limit"; "" for none."""
    number = len(near(results))
    return f"{count(number, 'check')} close to {'its limit' if number == 1 else 'their limits'}" if number else ""


def absent(results: Sequence[Result]) -> list[Result]:
    """List the comparisons with a side that cannot run here at all, as a framework that is not installed.

    Returns: [] if no others are left.
    """
    lacking = [r for r in results if r.grade == "not run" and any(_is_absent(why) for _, why in r.missing)]
    return lacking if len(lacking) < len(results) else []


def present(results: Sequence[Result]) -> list[Result]:
    """List the comparisons of which `absences` does not speak, those of architectures that differ first."""
    lacking = {id(r) for r in absent(results)}
    off = {r.architecture for r in results if r.grade == "differs"}
    return sorted((r for r in results if id(r) not in lacking), key=lambda r: r.architecture not in off)


def _is_absent(why: str) -> bool:
    return any(words in why for words in ABSENT)


def absences(results: Sequence[Result]) -> list[str]:
    """Say of each side that cannot run here why, and what did not run for that: "paddle is not installed, so ..."."""
    reasons: dict[str, list[Result]] = {}
    for r in absent(results):
        for side, why in r.missing:
            if _is_absent(why):
                named = NO_PORT in why or why.startswith(side.partition("@")[0])
                reasons.setdefault(why if named else f"{side} {why}", []).append(r)
    sentences = []
    for reason, group in reasons.items():
        what, _, remedy = reason.partition(": ")
        pairs = in_a_row(dict.fromkeys(r.pair for r in group))
        number = "one comparison" if len(group) == 1 else count(len(group), "comparison")
        sentences.append(f"{what}, so {number} did not run ({pairs}){f': {remedy}' * bool(remedy)}")
    return sentences


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
        return f"{_label(common.pop())} differs from {in_a_row(map(_label, others))}"
    sides = list(dict.fromkeys(_label(side) for r in off for side in r.sides))
    return f"{in_a_row(sides)} differ" if len(sides) == 2 else "The models differ"


def _label(name: str) -> str:
    """Mark the label of a model that would run into its sentence."""
    return name if quoted(name) == name else marked(name)


def _sides(results: Iterable[Result]) -> str:
    names = list(dict.fromkeys(_label(side) for r in results if r.passed for side in r.sides))
    return in_a_row(names) if 1 < len(names) < 7 else "All models"


def subject(result: Result) -> str:
    """Name what a result compares: model, check and dtype; the model is marked."""
    name = model(result)
    return f"{name if name == 'own models' else marked(name)}, check {result.check} in {result.dtype}"


def totals(results: Sequence[Result]) -> str:
    """Count comparisons by outcome: "12 comparisons: 10 agree, 2 differ"; of one outcome, "12 comparisons agree"."""
    counts = grades(results)
    agree, differ = counts["agrees"] + counts["close"], counts["differs"]
    known = {
        "agrees" if agree == 1 else "agree": agree,
        "differs" if differ == 1 else "differ": differ,
        "failed to run": counts["failed"],
        **{grade: counts[grade] for grade in ("not run", "not judged")},
    }
    parts = [(number, words) for words, number in known.items() if number]
    if len(parts) == 1:
        return f"{count(parts[0][0], 'comparison')} {parts[0][1]}"
    return f"{count(len(results), 'comparison')}: {', '.join(f'{number:,} {words}' for number, words in parts)}"


def extreme(results: Iterable[Result]) -> str:
    """Say which of their errors results state: need not be the largest, as arrays have limits of their own."""
    off = {r.grade == "differs" for r in _judged(results) if r.is_number}
    both = f"{NEAREST}, or furthest beyond it"
    return both if len(off) > 1 else FURTHEST if True in off else NEAREST


def closing(results: Sequence[Result]) -> str:
    """Say what a verdict does not: "9 pairs of arrays; error nearest to its limit: 1e-14 in float64 (limit 1e-10)"."""
    pairs = sum(len(r.curve) for r in _judged(results))  # outputs of layers, gradients or parameters
    return "; ".join(filter(None, [f"{count(pairs, 'pair')} of arrays" * bool(pairs), extremes(results)]))


def _judged(results: Iterable[Result]) -> list[Result]:
    return [r for r in results if r.grade in ("agrees", "close", "differs")]


def extremes(results: Sequence[Result], places: bool = False, named: bool = True) -> str:
    """State the error of each dtype that is the largest share of its limit, those beyond it first, then float64:
    "error furthest beyond its limit: 6.6e-6 in float32 (limit 5.7e-6); error nearest to its limit: 2.1e-14 in float64
    (limit 1e-10)".

    It need not be the largest, as limits differ by dtype, check and array. Where there are no two numbers to compare,
    a word stands without a limit: "not called in float64".

    Args:
      places: name the model, pair, check and array that has it, both names marked.
      named: say in front which of all errors these are.
    """
    judged = _judged(results)
    worst: dict[str, Result] = {}  # by dtype
    for r in judged:
        if r.dtype not in worst or r.ratio > worst[r.dtype].ratio:
            worst[r.dtype] = r
    several = len({model(r) for r in results}) > 1
    words, errors = dict[tuple[str, str], list[str]](), dict[str, list[str]]()
    for dtype in sorted(worst, key=lambda dtype: (worst[dtype].grade != "differs", dtype != "float64")):
        r = worst[dtype]
        known = [f"limit {limit(r.tolerance)}"] * r.is_number + [_place(r, several)] * places
        about = f" ({'; '.join(known)})" if known else ""
        if r.is_number:
            errors.setdefault(extreme([r]), []).append(f"{r.shown} in {dtype}{about}")
        else:
            words.setdefault((r.shown, about), []).append(dtype)
    stated = [f"{which}: " * named + ", ".join(texts) for which, texts in errors.items()]
    return "; ".join([*(f"{word} in {in_a_row(dtypes)}{about}" for (word, about), dtypes in words.items()), *stated])


def first_error(results: Sequence[Result]) -> str:
    """State the error of what differs first, whose place the verdict names, if another array's stands for its pair:
    "error at `norm`: 9.2e-4 in float32 (limit 2.4e-7)".
    """
    r = next((finding.result for finding in findings.find(results)), None)
    first = None if r is None else r.first_divergence
    if r is None or first is None or not math.isfinite(first.error) or short(first.error) == r.shown:
        return ""
    return f"error at {_at(first, r)}: {short(first.error)} in {r.dtype} (limit {limit(first.tolerance)})"


def _place(r: Result, several: bool) -> str:
    """Name where the error is that a result states; its model too, where there are several."""
    array = findings.worst_array(r)
    at = f" at {_at(array, r)}" if array else ""
    return f"{f'{marked(model(r))}, ' * several}{r.pair}, {r.check}{at}"


def _at(array: str, r: Result) -> str:
    """Name an array of a result, marked."""
    return place(own_name(array, r), [name for name, *_ in r.curve])


def listed(names: Sequence[str]) -> str:
    return in_a_row(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"
