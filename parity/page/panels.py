"""Draw every plot of a page, with the errors of each pair beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from parity.results import naming
from parity.results.elements import OTHER_SHAPE
from parity.results.result import Result
from parity.summaries import findings, notes, summary
from parity.summaries.findings import key
from parity.summaries.summary import extreme
from specs.numbers import limit
from specs.words import begun, count

from .limit_notes import LimitNotes
from .markup import MARKS, Markup, graded, join, name, prose, tag
from .matrix import Model, named_pairs
from .pair_table import Column
from .plot import BREAK, bands, chart, margin, own_limits
from .plot_lines import CROSS, DIAMOND, RING, SHAPES, Plot, swatch
from .plot_scale import Scale, beyond_numbers, worst_points
from .value_table import array_name, value_table

NOTHING = Markup()
NAMED = 3  # pairs that a title names; of more, their number
PRINTED = "On paper, boxes of models that agree and long lists of what was run stay closed: open those that you want."
COMPUTED = (
    "In single-step, NAME is what a layer makes of the reference's input. NAME <- 0 is what its own model computed for "
    "its first input, before the reference's replaced it."
)
CAUSE = 80  # characters of a cause that stands in a row of a pair; a longer one stands in the remarks alone
CROSSES = {"NaN": "NaN: a side has it in this array", OTHER_SHAPE: "the shapes of both sides differ"}
SHARED = "pairs whose errors coincide share a line"


def panels(models: Sequence[Model], limits: LimitNotes) -> Markup:
    """Build every plot and table of pairs, folded by model."""
    parts, every, kinds = list[Markup](), list[Plot](), set[str | None]()
    pairs = list(dict.fromkeys(r.pair for model in models for r in model))  # each has one colour on the page
    first = next((model for model in models if any(r.passed is False for r in model)), None)
    for model in models:
        counts = summary.grades(model)
        wrong = counts["differs"] + counts["failed"]
        grade = "differs" if wrong else "close" if counts["close"] else ""
        named = named_pairs([model])
        title = model.title or (", ".join(named) if len(named) <= NAMED else count(len(named), "pair"))
        mark = [tag("b", MARKS[grade], class_=f"mark {grade}"), " "] if grade else []
        told = _outcome(list(model), mark) if len(models) > 1 else []
        head = tag("summary", tag("h3", name(title)), *told)
        checks = dict.fromkeys(check for check, _, _ in model.cells)
        plots = {column: Plot.of(drawn, pairs) for column, cell in model.cells.items() if (drawn := _drawn(cell))}
        every += plots.values()
        body = tag("div", *(_check(model, check, limits, plots) for check in checks))
        is_open = model is first or len(models) == 1
        kind = "agreeing" if {*counts} == {"agrees"} and not is_open else None
        kinds.add(kind)
        parts.append(tag("details", head, body, class_=kind, open="" if is_open else None))
    results = [r for model in models for r in model]
    about = [naming.whose(results), naming.of_gradients(results)]
    if any(" <- " in tap for r in results for tap, _, _ in r.curve):
        about.append(COMPUTED)
    if len(models) > 1:
        about.append(f"Each box states the {summary.extreme(results)}.")
    text = " ".join(filter(None, about))
    said = tag("p", text, class_="soft") if text else NOTHING
    closed = [tag("p", PRINTED, class_="soft printed")] * ("agreeing" in kinds)
    return tag("section", tag("h2", "Error of every array"), said, *closed, _plot_legend(every), *parts)


def _outcome(results: Sequence[Result], mark: Sequence[str]) -> list[str]:
    """Count the comparisons of a model by outcome; state the error of each dtype, the largest share of its limit.

    Args:
      mark: what stands in front.
    """
    errors = summary.extremes(results, named=False)
    counted = tag("span", *mark, prose(summary.totals(results)), class_="soft")
    return [" ", counted, *([" ", tag("span", prose(errors), class_="soft")] if errors else [])]


def _check(model: Model, check: str, limits: LimitNotes, plots: Mapping[Column, Plot]) -> Markup:
    """Build the plots of one check with their tables.

    Args:
      plots: of the model, by check, dtype and device.
    """
    cells = {column: results for column, results in model.cells.items() if column[0] == check}
    plain = len({device for _, _, device in cells}) == 1
    places = {column: column[1] if plain else f"{column[1]} on {column[2]}" for column in cells}
    if cells.keys().isdisjoint(plots):
        rows = [(model.anchor(column), places[column], results) for column, results in cells.items()]
        return tag("section", _without_plots(check, rows, limits), class_="check")
    left = max(margin(plot.results) for plot in plots.values())
    drawn = [
        _panel(model.anchor(c), check, places[c], results, limits, plots.get(c), left) for c, results in cells.items()
    ]
    kind = "panels rows" if len(drawn) % 2 else "panels"
    return tag("section", tag("div", *drawn, class_=kind), class_="check")


def _drawn(results: Iterable[Result]) -> list[Result]:
    """List the results that have a line in a plot: one array needs none."""
    return [r for r in results if len(r.curve) > 1]


def _without_plots(check: str, by_dtype: Sequence[tuple[str, str, Sequence[Result]]], limits: LimitNotes) -> Markup:
    """Build one table of a check that compares one array, as forward does: rows for the pairs of each dtype.

    Args:
      by_dtype: (the address, the dtype, the results) of each dtype.
    """
    rows = list[Markup]()
    for address, dtype, results in by_dtype:
        for k, r in enumerate(results):
            first = tag("td", class_="dtype") if k else tag("th", dtype, scope="row", class_="dtype", id=address)
            rows.append(_pair(r, Markup(), limits, first))
    about = summary.extreme(r for _, _, results in by_dtype for r in results)
    table = _table(f"{begun(about)}: {check}, by dtype and pair", rows, tag("th", "dtype", scope="col"))
    arrays = {findings.worst_array(r) for _, _, results in by_dtype for r in results if r.curve}
    alone = [tag("span", f" {array}", class_="soft") for array in arrays if len(arrays) == 1]
    kind = "of-one" if alone else None  # the title names the array, and no row does
    return tag("figure", tag("figcaption", tag("h4", check, *alone)), table, class_=kind)


def _panel(
    address: str, check: str, dtype: str, results: Sequence[Result], limits: LimitNotes, plot: Plot | None, left: float
) -> Markup:
    """Build the plot of one check and dtype, and below it a row for each pair, which is its legend too.

    Args:
      plot: None where no result has a line. left: the margin of the plot.
    """
    drawn = [tag("div", chart(plot, left), class_="plot")] if plot else []
    styles = zip(plot.styles, plot.lines, strict=True) if plot else ()
    numbers = {id(r): n for n, line in styles for r in line}
    rows = [_pair(r, swatch(numbers[id(r)], r) if id(r) in numbers else Markup(), limits) for r in results]
    table = _table(f"{begun(summary.extreme(results))}: {check} in {dtype}, by pair", rows)
    title = tag("h4", check, tag("span", f" {dtype}", class_="soft"))
    values = value_table(plot, f"Error of every array: {check} in {dtype}", limits) if plot else NOTHING
    return tag("figure", tag("figcaption", title), *drawn, tag("div", table, values), id=address)


def _table(about: str, rows: Sequence[Markup], first: Markup = NOTHING) -> Markup:
    """Build a table of pairs.

    Args:
      about: its caption. first: the head of a column in front of the pairs.
    """
    columns = {"pair": None, "error": "number", "limit": "number", "array": None}
    heads = [tag("th", text, scope="col", class_=kind) for text, kind in columns.items()]
    head = tag("thead", tag("tr", first, *heads))
    kind = "pairs by-dtype" if first else "pairs"
    return tag("table", tag("caption", about, class_="unseen"), head, tag("tbody", *rows), class_=kind)


def _pair(r: Result, line: Markup, limits: LimitNotes, first: Markup = NOTHING) -> Markup:
    """Build the row of a pair.

    Args:
      line: its line in the plot. first: a cell in front of it.
    """
    head = join(first, tag("th", line, prose(r.pair), scope="row"))
    if r.grade in notes.UNDECIDED:
        kind = "failed" if r.grade == "failed" else "none"
        why = prose(r.cause) if len(r.cause) <= CAUSE else join(prose("see "), tag("a", "Remarks", href="#remarks"))
        return tag("tr", head, tag("td", prose(f"{r.grade}: "), why, colspan=3, class_=kind))
    kind = r.grade if r.grade != "agrees" else ""
    worst = tag("td", array_name(findings.worst_array(r), [r]))
    error = tag("td", graded(r.grade, r.shown), class_=f"number {kind}".strip())
    bound = tag("td", *([limit(r.tolerance), limits.mark(r)] if r.is_number else ["-"]), class_="number")
    return tag("tr", head, error, bound, worst)


def _plot_legend(plots: Sequence[Plot]) -> Markup:
    """Explain what plots have beside their lines."""
    drawn = [r for plot in plots for r in plot.results]
    meanings = [CROSSES[word] for word in beyond_numbers(drawn) if word in CROSSES]
    scales = [(Scale.of(plot.results), plot) for plot in plots]
    own = any(own_limits(scale, plot) for scale, plot in scales)
    lowest = ", the lowest of several" * _several(drawn) + "; in the colour of a line: its own" * own
    keys = (
        ("limit", "M-12 0H12", f"the limit{lowest}", any(scale.seen() for scale, _ in scales)),
        ("noise", "M-12 -5H12V5H-12z", "each framework's own rounding: its error against its float64 run",
         any(bands(scale, plot.results) for scale, plot in scales)),
        ("ring", RING, "what differs first", any(r.first_divergence in [tap for tap, _, _ in r.curve] for r in drawn)),
        ("worst", DIAMOND, f"the {extreme(drawn)}, of each pair", any(map(worst_points, drawn))),
        ("copy", SHAPES[0], "hollow: the float64 copies of both models are compared, as these differ already",
         any(not r.word(tap) for r in drawn for tap in r.copies)),
        ("break", BREAK, "a break of the axis: beyond it, what its scale does not show",
         any(scale.zero or scale.above for scale, _ in scales)),
        ("cross", CROSS, " or ".join(meanings), bool(meanings)),
    )  # fmt: skip
    shown = [tag("span", _key(kind, shape), prose(text)) for kind, shape, text, is_drawn in keys if is_drawn]
    shown += [tag("span", SHARED)] if any(len(line) > 1 for plot in plots for line in plot.lines) else []
    return tag("p", *shown, class_="legend soft") if shown else Markup()


def _several(results: Iterable[Result]) -> bool:
    """Tell whether an array has several limits in one plot, of which the lowest is drawn."""
    limits: dict[tuple[str, ...], set[str]] = {}
    for r in results:
        for label, _, bound in r.curve:
            limits.setdefault((*key(r), label), set()).add(limit(bound))
    return any(len(bounds) > 1 for bounds in limits.values())


def _key(kind: str, shape: str) -> Markup:
    picture = tag("path", d=shape, class_=kind)
    return tag("svg", picture, class_=f"sample {kind}-key", viewBox="-13 -13 26 26", aria_hidden="true")
