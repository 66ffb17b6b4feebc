"""Say once, of all comparisons that it concerns, why results are undecided, and what to know about the others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parity.given.quoting import marked, unmarked
from parity.results.result import Result
from specs.words import count, in_a_row

from . import findings
from .summary import DTYPE, listed, model, near

UNDECIDED = ("failed", "not run", "not judged")

Group = list[tuple[str, Result]]  # results with one cause, each with the side that it is of


def close_calls(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return a note for each check below float64 that agrees close to its limit, and the comparisons: see `notes`."""
    calls = []
    for group in near(results):
        worst = max(group, key=lambda r: r.ratio)
        if worst.dtype == "float64":
            continue
        exact = findings.exact_error(group, results)
        sure = f"it agrees in float64 ({exact}), so this is rounding" if exact else "compare in float64 to be sure"
        what = f"{findings.worst_array(worst)} passes close to its limit in {worst.dtype}, at {worst.ratio:.0%} of it"
        which = "" if len(group) == len(results) else _concerned([("", r) for r in group], results)
        calls.append((f"{what}: {sure}", which))
    return calls


@dataclass(frozen=True)
class Cause:
    """Why results are undecided: "torch failed: its process died (2 comparisons: flax-torch and torch-paddle)".

    Args:
      sides: which share it: "torch"; "" where it is of no side, or begins with it.
      grade: of the results.
      reason: the cause. which: the comparisons that it concerns, with names marked.
    """

    sides: str
    grade: str
    reason: str
    which: str

    def __str__(self) -> str:
        return f"{self.sides} {self.grade}: {self.reason} ({unmarked(self.which)})".lstrip()


def causes(results: Sequence[Result]) -> list[Cause]:
    """List each cause why results are undecided, once."""
    groups: dict[tuple[str, str], list[tuple[str, Result]]] = {}
    for r in results:
        if r.grade in UNDECIDED:
            for side, why in r.missing or [("", r.cause)]:
                groups.setdefault((r.grade, why.replace(r.dtype, DTYPE)), []).append((side, r))
    ordered = sorted(_of_one_fault(groups).items(), key=lambda item: UNDECIDED.index(item[0][0]))
    return [_cause(grade, why, group, results) for (grade, why), group in ordered]


def _of_one_fault(groups: Mapping[tuple[str, str], Group]) -> dict[tuple[str, str], Group]:
    """Join the causes of several models of one architecture that are the same but for numbers: one fault makes them."""
    merged: dict[tuple[object, ...], tuple[tuple[str, str], Group]] = {}
    for (grade, why), group in groups.items():
        where = frozenset((side, r.architecture, r.check, r.dtype, r.device, r.pair) for side, r in group)
        alike = (grade, re.sub(r"{[\d.,]+}|\d+", "#", why), where)
        known = merged.setdefault(alike, ((grade, why), []))[1]
        known += group
    return dict(merged.values())


def _cause(grade: str, why: str, group: Sequence[tuple[str, Result]], results: Iterable[Result]) -> Cause:
    """State a reason with the sides and dtypes that share it, and the comparisons that it concerns."""
    others = list(dict.fromkeys(marked(r.variant) for side, r in group if not _states(r, side, why)))
    sides = in_a_row(dict.fromkeys(side for side, _ in group if not why.startswith(side.partition("@")[0])))
    why = why.replace(DTYPE, in_a_row(dict.fromkeys(r.dtype for r in results if any(r is other for _, other in group))))
    also = f"; in {listed(others)} with other numbers" if others else ""
    named, _, rest = why.partition(": ")
    if rest and any(named in r.sides for _, r in group):  # the reason itself begins with its side
        sides, why = named, rest
    return Cause(sides, grade, why, f"{_concerned(group, results)}{also}")


def _states(r: Result, side: str, why: str) -> bool:
    """Tell whether a result's own cause is this one, numbers included."""
    own = [reason for label, reason in r.missing or [("", r.cause)] if label == side]
    return any(reason.replace(r.dtype, DTYPE) == why for reason in own)


def _which(group: Sequence[Result], results: Iterable[Result]) -> str:
    """Name comparisons by their pairs, and by marked model and check where these are not all that there are."""
    pairs, models = dict.fromkeys(r.pair for r in group), dict.fromkeys(map(model, group))
    parts = [listed(list(pairs))]
    parts += [listed(list(map(marked, models)))] if len(models) < len({model(r) for r in results}) else []
    asked = {(r.check, r.dtype) for r in results}
    parts += [findings.checks(group)] if len({(r.check, r.dtype) for r in group}) < len(asked) else []
    return "; ".join(parts)


def notes(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return (remark on results that ran, the comparisons that it concerns: "2 comparisons: a-b"), each remark once.

    "" for the comparisons where one pair was compared, and the remark is on all results.

    A remark that several models share names them together: "a and b: ...".
    """
    groups: dict[str, list[tuple[str, Result]]] = {}  # by the text without the model in front
    for r in results:
        if r.cause and r.passed is not None and not r.missing and not _is_cause(r):
            for note in r.remarks or (r.cause,):
                label, _, text = note.partition(": ")
                own = bool(text) and label in r.sides
                groups.setdefault(text if own else note, []).append((label if own else "", r))
    alone = len({r.pair for r in results}) == 1
    every = {text for text, group in groups.items() if alone and len({id(r) for _, r in group}) == len(results)}
    return [
        (_of_sides(text, group), "" if text in every else _concerned(group, results)) for text, group in groups.items()
    ]


def _is_cause(r: Result) -> bool:
    """Tell whether a result's cause is that of its first divergence, which is stated with it."""
    return r.first_divergence is not None and r.cause == r.first_divergence.worst.cause


def _of_sides(text: str, group: Sequence[tuple[str, Result]]) -> str:
    """Put the models of a remark in front of it: none where it is of both models in each comparison."""
    if not any(label for label, _ in group):
        return text
    sides = dict.fromkeys(side for label, r in group for side in ([label] if label else r.sides))
    return f"{in_a_row(sides)}: {text}"


def _concerned(group: Sequence[tuple[str, Result]], results: Iterable[Result]) -> str:
    """Name the comparisons of a remark, and count several."""
    concerned = [r for r in results if any(r is other for _, other in group)]
    number = f"{count(len(concerned), 'comparison')}: " * (len(concerned) > 1)
    return f"{number}{_which(concerned, results)}"
