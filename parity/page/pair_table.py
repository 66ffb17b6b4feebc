"""Build the table of the errors of models: a row for each check and dtype, a column for each pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from parity.results.result import Result
from parity.summaries import notes, summary
from parity.summaries.row_limit import own_limit, row_limit
from specs.numbers import limit
from specs.words import begun, count

from .limit_notes import LimitNotes
from .markup import Markup, graded, name, prose, tag

Column = tuple[str, str, str]  # check, dtype, device
# A model: its name, its results, and what returns the address of a column's plot, "" for none.
Named = tuple[str, Mapping[Column, Sequence[Result]], Callable[[Column], str]]

BESIDE = 92  # characters of the heads of pairs that fit side by side on a page of full width
NUMBER = 10  # characters of an error, the least width of its column


def column_of(r: Result) -> Column:
    return r.check, r.dtype, r.device


def pair_table(models: Sequence[Named], limits: LimitNotes) -> Markup:
    """Build the table of models of one architecture; of several, each has its name in front of its rows.

    Args:
      limits: what explains them.
    """
    pairs = list(dict.fromkeys(r.pair for _, cells, _ in models for results in cells.values() for r in results))
    heads = ["model"] * (len(models) > 1) + ["check"]
    about = summary.extreme(r for _, cells, _ in models for results in cells.values() for r in results)
    if sum(max(len(pair), NUMBER) for pair in pairs) > BESIDE:
        rows = _rows_of_pairs(models, limits)
        return _table(about, [*heads, "pair", "error", "limit"], rows, "matrix by-pair in-rows")
    return _table(about, [*heads, "limit", *pairs], _rows(models, pairs, limits), "matrix by-pair")


def _table(about: str, heads: Sequence[str], rows: Sequence[Markup], kind: str) -> Markup:
    title = tag("caption", begun(about), class_="unseen")
    head = tag("tr", *(tag("th", prose(text), scope="col") for text in heads))
    return tag("table", title, tag("thead", head), tag("tbody", *rows), class_=kind)


def _rows(models: Sequence[Named], pairs: Sequence[str], limits: LimitNotes) -> list[Markup]:
    """Build a row for each check and dtype of each model."""
    rows = []
    for called, cells, address in models:
        for k, column in enumerate(_ordered(cells)):
            results = {r.pair: r for r in cells[column]}
            usual = row_limit(results)
            marks = limits.mark(*(r for r in results.values() if limit(r.tolerance) == usual))
            cell = [_cell(results.get(pair), pair, usual, address(column), limits) for pair in pairs]
            title = tag("th", column[0], _where(column, models), scope="row")
            front = _front(called, len(cells)) if len(models) > 1 and not k else []
            rows.append(tag("tr", *front, title, tag("td", usual, marks, data_label="limit"), *cell))
    return rows


def _rows_of_pairs(models: Sequence[Named], limits: LimitNotes) -> list[Markup]:
    """Build a row for each pair, as columns of all of them are wider than the page."""
    rows = []
    for called, cells, address in models:
        front = _front(called, sum(map(len, cells.values()))) if len(models) > 1 else []
        for column in _ordered(cells):
            size = len(cells[column])
            front += [tag("th", column[0], _where(column, models), scope="rowgroup", rowspan=size, class_="of-rows")]
            for r in cells[column]:
                usual = limit(r.tolerance) if r.is_number else ""
                error = _cell(r, r.pair, usual, address(column), limits)
                bound = [usual, limits.mark(r)] if usual else ["-"]
                cell = [tag("td", prose(r.pair), class_="pair"), error, tag("td", *bound, data_label="limit")]
                rows.append(tag("tr", *front, *cell))
                front = []
    return rows


def _front(called: str, rows: int) -> list[Markup]:
    return [tag("th", name(called), scope="rowgroup", rowspan=rows, class_="of-rows model")]


def _ordered(cells: Mapping[Column, Sequence[Result]]) -> list[Column]:
    """Put the dtypes and devices of one check beside each other."""
    checks = list(dict.fromkeys(check for check, _, _ in cells))
    return sorted(cells, key=lambda column: checks.index(column[0]))


def _where(column: Column, models: Sequence[Named]) -> Markup:
    """State the dtype of a row, and its device where there are several."""
    devices = {device for _, cells, _ in models for _, _, device in cells}
    return tag("span", f" {column[1]}" + f" {column[2]}" * (len(devices) > 1), class_="soft")


def _cell(r: Result | None, pair: str, usual: str, address: str, limits: LimitNotes) -> Markup:
    """Build a cell: an error as a link to its plot, with its limit where that is not the usual one of the row."""
    if r is None:
        return tag("td", "not asked", data_label=pair, class_="none")
    undecided = r.grade in notes.UNDECIDED
    text = r.grade if undecided else graded(r.grade, r.shown)
    own = "" if undecided else own_limit(r, usual)
    kind = {"close": "close", "differs": "differs", "failed": "failed", "agrees": None}.get(r.grade, "none")
    bound = [" ", tag("span", f"(limit {own}", limits.mark(r), ")", class_="own-limit whole")] if own else []
    parts = [tag("a", prose(text), href=f"#{address}") if address else prose(text), *bound]
    lost = f"{count(len(r.unjudged), 'array')} not judged"
    parts += [tag("span", prose(lost), class_="who")] if r.unjudged else []
    return tag("td", *parts, data_label=pair, class_=kind, title=r.cause or None)
