"""Build the tables of a page: rows for the dtypes of each model, a column for each check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from parity import summary
from parity.elements import OTHER_SHAPE
from parity.own import OWN
from parity.result import Result
from parity.tolerance import CLOSE_CALL, CLOSE_CALL_FLOAT64
from specs.numerals import limit
from specs.words import count, counted

from .limit_notes import LimitNotes
from .markup import MARKS, Markup, graded, join, name, prose, tag
from .pair_table import Column, pair_table

# Grades, worst first: the grade of several pairs is the first of theirs.
WORST = "failed", "differs", "close", "agrees", "not judged", "not run"
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

    def anchor(self, check: str) -> str:
        return f"{self.key}-{check}"


def grouped(results: Iterable[Result], own: str) -> list[Model]:
    """Group results by model; a second result for the same place starts another model."""
    models: list[Model] = []
    for r in results:
        column = r.check, r.dtype, r.device
        named = (m for m in models if (m.architecture, m.variant) == (r.architecture, r.variant))
        model = next((m for m in named if all(r.pair != other.pair for other in m.cells.get(column, ()))), None)
        if model is None:
            models.append(model := Model(f"m{len(models)}", r.architecture, r.variant, own))
        model.cells.setdefault(column, []).append(r)
    return models


def matrices(models: Sequence[Model], limits: LimitNotes) -> Markup:
    """Build a table for each architecture: rows for the dtypes of each model, a column for each check."""
    groups: dict[str, list[Model]] = {}
    for model in models:
        groups.setdefault(model.architecture, []).append(model)
    texts = [_about(group, models) for group in groups.values()]
    parts = [
        _matrix(title, group, limits, "" if texts[k] in texts[:k] else texts[k])
        for k, (title, group) in enumerate(groups.items())
    ]
    return join(*parts, _legend(models))


def named_pairs(models: Iterable[Model]) -> list[str]:
    """List the pairs that ran."""
    return list(dict.fromkeys(r.pair for model in models for r in model if r.passed is not None))


def _about(group: Sequence[Model], models: Sequence[Model]) -> str:
    """Say what the numbers of the table of a group of the models are, and what they lead to."""
    pairs = named_pairs(models)
    if not named_pairs(group):
        return _unjudged([r for model in group for r in model])
    alone = _is_by_pair(group)
    whose = "" if alone else f" and pairs ({', '.join(pairs)})" if pairs[1:] else f" of {pairs[0]}"
    apart = " A model is compared across frameworks, not with the other models." * (len(models) > 1 and not alone)
    if not any(r.is_number for model in group for r in model):
        return f"Each cell leads to the errors of all arrays.{apart}"
    return f"Of all arrays{whose}, each number is the {summary.LARGEST}. It leads to the errors of all arrays.{apart}"


def _is_by_pair(models: Sequence[Model]) -> bool:
    """Tell whether each pair has a column: there is one model."""
    return len(models) == 1 and len(named_pairs(models)) > 1


def _matrix(architecture: str, models: Sequence[Model], limits: LimitNotes, about: str) -> Markup:
    """Build a section with the errors of one architecture; those of one model pair by pair, if there are several.

    Args:
      about: what says what the numbers are.
    """
    named = models[0].title if architecture == OWN or _is_by_pair(models) else architecture
    title = f"Errors of {named}" if named else "Errors of each comparison"
    if _is_by_pair(models):
        table = pair_table(models[0].cells, models[0].anchor, limits)
    else:
        table = _checks_table(models, limits)
    what = tag("p", prose(about), class_="soft") if about else Markup()
    return tag("section", tag("h2", prose(title)), what, tag("div", table, class_="scroll"))


def _unjudged(results: Sequence[Result]) -> str:
    """Say of results of which none could be judged how many ran, and where the reason stands."""
    ran = sum(r.grade == "not judged" for r in results)
    if not ran:
        return "Nothing was compared: each cell leads to its pairs, and to why they did not run."
    skipped = f" {counted(len(results) - ran, 'comparison')} did not run." if ran < len(results) else ""
    judged = "it could not" if ran == 1 else "none could"
    return f"{counted(ran, 'comparison')} ran, and {judged} be judged.{skipped} Remarks say why."


def _checks_table(models: Sequence[Model], limits: LimitNotes) -> Markup:
    """Build a table with rows for the dtypes of each model, and a column for each check."""
    columns = list(dict.fromkeys(column for model in models for column in model.cells))
    checks = list(dict.fromkeys(check for check, _, _ in columns))
    places = list(dict.fromkeys((dtype, device) for _, dtype, device in columns))
    plain = len({device for _, device in places}) == 1
    first = "model" if models[0].title else "pair"
    heads = [tag("th", text, scope="col") for text in (first, "dtype")]
    heads += [tag("th", check, _bounds(models, check, limits), scope="col", class_="check-head") for check in checks]
    shared = {check for check in checks if _is_shared(models, check)}
    rows = []
    for model in models:
        own = [place for place in places if any((check, *place) in model.cells for check in checks)]
        for k, (dtype, device) in enumerate(own):
            where = dtype if plain else f"{dtype} {device}"
            title = tag("th", name(_name(model)), scope="rowgroup", rowspan=len(own), class_="of-rows")
            cells = [_cell(model, (check, dtype, device), check, check in shared, limits) for check in checks]
            rows.append(tag("tr", *([] if k else [title]), tag("th", where, scope="row", class_="dtype"), *cells))
    title = tag("caption", "Errors by model, dtype and check", class_="unseen")
    kind = "matrix" if checks[1:] else "matrix one-check"
    return tag("table", title, tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_=kind)


def _bounds(models: Sequence[Model], check: str, limits: LimitNotes) -> Markup:
    """State the limit that all of a column have, with the letter of its reason; of several, each cell has its own."""
    if not _is_shared(models, check):
        return Markup()
    results = _judged(models, check)
    return tag("span", f"limit {limit(results[0].tolerance)}", limits.mark(*results), class_="bound")


def _judged(models: Iterable[Model], check: str) -> list[Result]:
    return [r for model in models for r in model if r.check == check and r.tolerance]


def _is_shared(models: Sequence[Model], check: str) -> bool:
    """Tell whether all results of a column have one limit for one reason, which its head states."""
    return len({(limit(r.tolerance), r.basis) for r in _judged(models, check)}) == 1


def _name(model: Model) -> str:
    if model.variant != "own":
        return model.variant
    return (model.title or ", ".join(named_pairs([model]))) if model.architecture == OWN else "own settings"


def _cell(model: Model, column: Column, label: str, shared: bool, limits: LimitNotes) -> Markup:
    """Build a cell: the error closest to its limit, as a link to the plot, its limit, and the pairs that differ.

    Args:
      shared: whether the head of the column states its limit.
    """
    results = model.cells.get(column, [])
    grade = min((r.grade for r in results), key=WORST.index, default="not run")
    attributes = {"data_label": label, "title": "\n".join(map(_tooltip, results)) or "not asked for"}
    kind = grade if grade in ("close", "differs", "failed") else "none" if grade in ("not run", "not judged") else None
    if not results:
        return tag("td", "not asked", class_=kind, **attributes)
    worst = max(results, key=lambda r: r.ratio)
    text = grade if grade in summary.UNDECIDED else graded(grade, worst.shown)
    parts: list[str] = [tag("a", prose(text), href=f"#{model.anchor(column[0])}")]
    if grade not in summary.UNDECIDED and worst.is_number:
        # the head of the column has a limit that all share, on wide screens
        bound = "of whole" if shared else "own-limit whole"
        parts += [" ", tag("span", f"(limit {limit(worst.tolerance)}", limits.mark(worst), ")", class_=bound)]
    return tag("td", *parts, _pairs(results, grade), class_=kind, **attributes)


def _pairs(results: Sequence[Result], grade: str) -> Markup:
    """List below a cell's error the pairs that differ, each with its number, and count what was not judged."""
    off = [r for r in results if r.grade == grade] if grade in ("close", "differs", "failed") and results[1:] else []
    lines = [join(tag("span", name(r.pair)), tag("span", "" if grade == "failed" else prose(r.shown))) for r in off]
    undecided = summary.grades(r for r in results if r.grade != grade and r.grade in summary.UNDECIDED)
    lost = [f"{count(number, 'pair')} {other}" for other, number in undecided.items()]
    arrays = len({name for r in results for name in r.unjudged})
    lost += [f"{count(arrays, 'array')} not judged"] * bool(arrays)
    lines += [tag("span", prose(text), class_="counted") for text in lost]
    return tag("span", *lines, class_="who") if lines else Markup()


def _tooltip(r: Result) -> str:
    if r.passed is None or r.missing:
        return f"{r.pair}: {r.grade}: {r.cause}"
    return f"{r.pair}: {r.shown}{f' (limit {limit(r.tolerance)})' * r.is_number}"


def _legend(models: Sequence[Model]) -> Markup:
    counts = summary.grades(r for model in models for r in model)
    several = len(models) > 1 and any(len(cell) > 1 for model in models for cell in model.cells.values())
    keys = [tag("span", "without a colour: agrees")] * bool(counts["agrees"] + counts["close"])
    undecided = [grade for grade in ("failed", "not run", "not judged") if counts[grade]]
    words_of = (part for grade in undecided for part in (", ", tag("b", grade, class_="word")))
    why = tag("span", *list(words_of)[1:], " see ", tag("a", "Remarks", href="#remarks"))
    off = [r for model in models for r in model if r.grade == "differs"]
    kinds = dict.fromkeys("beyond its limit" if r.is_number else WORDS.get(r.shown, r.shown) for r in off)
    for grade, words in (("close", CLOSE), ("differs", " or ".join(kinds) + ", and which pairs differ" * several)):
        keys += [tag("span", tag("b", MARKS[grade], class_=grade), words)] * bool(counts[grade])
    keys += [why] * bool(undecided)
    return (
        tag("p", *keys, class_="legend soft")
        if any(counts[grade] for grade in counts if grade != "agrees")
        else Markup()
    )
