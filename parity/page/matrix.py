"""Build the tables of a page: one for each architecture, with a row for each check and dtype of each model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from parity.given.own import OWN
from parity.results.elements import OTHER_SHAPE
from parity.results.result import Result
from parity.results.tolerance import CLOSE_CALL, CLOSE_CALL_FLOAT64
from parity.summaries import summary
from specs.words import counted

from .limit_notes import LimitNotes
from .markup import MARKS, Markup, join, prose, tag
from .pair_table import Column, column_of, pair_table

CLOSE = (
    f"agrees, close to its limit: above {CLOSE_CALL_FLOAT64:.0%} of it in float64, or {CLOSE_CALL:.0%} in other dtypes "
    "and where rounding is amplified"
)
WORDS = {"NaN": "NaN on one side", OTHER_SHAPE: "the shapes of both sides differ"}  # of a cell's word, what it means


class Model:
    """One model's results by check, dtype and device.

    Args:
      key: begins the addresses of its checks. own: what the user's models are called; "" where the head names them.
    """

    def __init__(self, key: str, architecture: str, variant: str, own: str):
        self.key, self.architecture, self.variant, self.own = key, architecture, variant, own
        self.cells: dict[Column, list[Result]] = {}

    def __iter__(self) -> Iterator[Result]:
        return (r for cell in self.cells.values() for r in cell)

    @property
    def title(self) -> str:
        """Name the model; "" for the user's models where the head of the page names them."""
        return summary.model(next(iter(self)), self.own)

    def anchor(self, column: Column) -> str:
        """Return the address of the plot, or of the rows, of a check in a dtype on a device."""
        return re.sub(r"[^\w-]+", "-", "-".join((self.key, *column)))


def have_one_array(models: Iterable[Model]) -> bool:
    """Tell whether forward alone was run, and one array agrees in each: then boxes have no more than the tables."""
    results = [r for model in models for r in model]
    plain = all(r.check == "forward" and len(r.curve) <= 1 and r.grade in ("agrees", "not run") for r in results)
    return plain and any(r.passed for r in results)


def grouped(results: Iterable[Result], own: str) -> list[Model]:
    """Group results by model; a second result for the same place starts another model."""
    models: list[Model] = []
    for r in results:
        column = column_of(r)
        named = (m for m in models if (m.architecture, m.variant) == (r.architecture, r.variant))
        model = next((m for m in named if all(r.pair != other.pair for other in m.cells.get(column, ()))), None)
        if model is None:
            models.append(model := Model(f"m{len(models)}", r.architecture, r.variant, own))
        model.cells.setdefault(column, []).append(r)
    return models


def matrices(models: Sequence[Model], limits: LimitNotes) -> Markup:
    """Build a table for each architecture, and explain all marks; none of one number, which its plot has."""
    results = [r for model in models for r in model]
    if len(results) == 1 and results[0].is_number and len(results[0].curve) > 1:
        return Markup()
    groups: dict[str, list[Model]] = {}
    for model in models:
        groups.setdefault(model.architecture, []).append(model)
    texts = [" ".join(filter(None, (_about(group, models), limits.about()))) for group in groups.values()]
    parts = []
    for k, (title, group) in enumerate(groups.items()):
        what = tag("p", prose(texts[k]), class_="soft") if texts[k] not in texts[:k] else Markup()
        about = what if k else join(what, _legend(models))
        parts.append(_matrix(title, group, limits, about, is_linked=not have_one_array(models)))
    return join(*parts)


def named_pairs(models: Iterable[Model]) -> list[str]:
    """List the pairs that ran."""
    return list(dict.fromkeys(r.pair for model in models for r in model if r.passed is not None))


def _about(group: Sequence[Model], models: Sequence[Model]) -> str:
    """Say what the numbers of the table of a group of the models are, and what they lead to."""
    if not named_pairs(group):
        return _unjudged([r for model in group for r in model])
    follow = "" if have_one_array(models) else " Follow it to the error of every array."
    apart = " A model is compared across frameworks, not with the other models." * (len(models) > 1)
    results = [r for model in group for r in model]
    if not any(r.is_number for r in results):
        return f"Each cell leads to the error of every array.{apart}"
    which = summary.extreme(r for model in models for r in model)
    return f"Each number is the {which}, of all arrays.{follow}{apart}"


def _matrix(architecture: str, models: Sequence[Model], limits: LimitNotes, about: str, is_linked: bool) -> Markup:
    """Build a section with the errors of one architecture.

    Args:
      about: what says what the numbers and their marks are. is_linked: whether each number leads to its plot.
    """
    named = models[0].title if architecture == OWN or len(models) == 1 else architecture
    title = f"Errors of {named}" if named else "Errors of each comparison"
    table = pair_table(
        [(_name(model), model.cells, model.anchor if is_linked else _nowhere) for model in models], limits
    )
    return tag("section", tag("h2", prose(title)), about, tag("div", table, class_="scroll"))


def _nowhere(column: Column) -> str:
    return ""


def _unjudged(results: Sequence[Result]) -> str:
    """Say of results of which none could be judged how many ran, and where the reason stands."""
    ran = sum(r.grade == "not judged" for r in results)
    if not ran:
        return "Nothing was compared: each cell leads to its pairs, and to why they did not run."
    skipped = f" {counted(len(results) - ran, 'comparison')} did not run." if ran < len(results) else ""
    judged = "it could not" if ran == 1 else "none could"
    return f"{counted(ran, 'comparison')} ran, and {judged} be judged.{skipped} Remarks say why."


def _name(model: Model) -> str:
    if model.variant != "own":
        return model.variant
    return (model.title or ", ".join(named_pairs([model]))) if model.architecture == OWN else "own settings"


def _legend(models: Sequence[Model]) -> Markup:
    counts = summary.grades(r for model in models for r in model)
    keys = [tag("span", "no colour: agrees")] if counts["agrees"] + counts["close"] else []
    undecided = [grade for grade in ("failed", "not run", "not judged") if counts[grade]]
    words_of = (part for grade in undecided for part in (", ", tag("b", grade, class_="word")))
    why = tag("span", *list(words_of)[1:], ": see ", tag("a", "Remarks", href="#remarks"))
    off = [r for model in models for r in model if r.grade == "differs"]
    kinds = dict.fromkeys("beyond its limit" if r.is_number else WORDS.get(r.shown, r.shown) for r in off)
    for grade, words in (("close", CLOSE), ("differs", " or ".join(kinds))):
        keys += [tag("span", tag("b", MARKS[grade], class_=grade), words)] if counts[grade] else []
    keys += [why] if undecided else []
    return (
        tag("p", *keys, class_="legend soft")
        if any(counts[grade] for grade in counts if grade != "agrees")
        else Markup()
    )
