"""Build the table of what a plot draws, folded below it: the error of every array, and its limit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from parity.given.own import OWN
from parity.results.naming import own_name, with_own
from parity.results.result import Result
from parity.summaries.findings import merge
from specs.numbers import limit, short
from specs.words import in_a_row

from .limit_notes import LimitNotes
from .markup import MARKS, Markup, join, name, prose, tag
from .plot_lines import Plot

# By array: its error and its limit as they are written, the letter of the limit's reason, whether it is beyond.
Column = dict[str, tuple[str, str, Markup, bool]]


def value_table(plot: Plot, about: str, limits: LimitNotes) -> Markup:
    """Build the table: a row for each array, a column for each pair, and limits once where all pairs have the same.

    Pairs whose numbers are written alike share a column.

    Args:
      about: its caption. limits: what explains them.
    """
    columns, pairs = list[Column](), list[list[str]]()
    for result in plot.results:
        if (column := _column(result, limits)) not in columns:
            columns.append(column)
            pairs.append([])
        pairs[columns.index(column)].append(result.pair)
    names = merge(columns)
    shared = all(len({column[array][1:3] for column in columns if array in column}) == 1 for array in names)
    bound = [tag("th", "limit", scope="col", class_="number")]
    heads = [[tag("th", prose(in_a_row(pair)), scope="col", class_="number"), *bound * (not shared)] for pair in pairs]
    head = tag("tr", tag("th", "array", scope="col"), *chain(*heads), *bound * shared)
    rows = []
    for array in names:
        cells = [_cells(column, array) for column in columns]
        if shared:
            bounds = next(cell[1:] for cell, column in zip(cells, columns, strict=True) if array in column)
            cells = [*(cell[:1] for cell in cells), bounds]
        rows.append(tag("tr", tag("th", array_name(array, plot.results), scope="row"), *chain(*cells)))
    table = tag("table", tag("caption", about, class_="unseen"), tag("thead", head), tag("tbody", *rows))
    return tag("details", tag("summary", "Values"), tag("div", tag("div", table, class_="scroll")), class_="values")


def array_name(array: str, results: Sequence[Result]) -> Markup:
    """Name an array; one of the user's models with what each of them calls it, where these names differ."""
    known = own_name(array, *results)
    also = with_own(array, *results).removeprefix(known) if results[0].architecture == OWN else ""
    return join(tag("code", name(known)), *([tag("span", prose(also), class_="soft")] if also else []))


def _column(result: Result, limits: LimitNotes) -> Column:
    """Write the errors and limits of a pair; errors of float64 copies, which a plot draws hollow, say so."""
    column: Column = {}
    reasons = result.reasons or [""] * len(result.curve)
    for (array, error, bound), reason in zip(result.curve, reasons, strict=True):
        word = result.word(array)
        text = (word or short(error)) + " (copies)" * (array in result.copies)
        stated = ("-", Markup()) if word else (limit(bound), limits.letters(reason))
        column[array] = (text, *stated, error > bound)
    return column


def _cells(column: Column, array: str) -> list[Markup]:
    """Build the cells of an error and of its limit."""
    text, bound, letter, off = column.get(array, ("-", "-", Markup(), False))
    error = f"{MARKS['differs']} {text}" if off else text
    return [tag("td", error, class_="number differs" if off else "number"), tag("td", bound, letter, class_="number")]
