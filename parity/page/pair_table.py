"""Build the table of one model's errors: a row for each check and dtype, a column for each pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from parity import summary
from parity.result import Result
from parity.row_limit import own_limit, row_limit
from specs.numerals import limit
from specs.words import begun, count

from .limit_notes import LimitNotes
from .markup import Markup, graded, prose, tag

Column = tuple[str, str, str]  # check, dtype, device

BESIDE = 92  # characters of the heads of pairs that fit side by side on a page of full width
NUMBER = 10  # characters of an error, the least width of its column


def pair_table(cells: Mapping[Column, Sequence[Result]], address: Callable[[str], str], limits: LimitNotes) -> Markup:
    """Build the table.

    Args:
      cells: results by check, dtype and device.
      address: returns the place on the page of a check's plots.
      limits: what explains them.
    """
    pairs = list(dict.fromkeys(r.pair for results in cells.values() for r in results))
    if sum(max(len(pair), NUMBER) for pair in pairs) > BESIDE:
        return _rows_of_pairs(cells, address, limits)
    devices = {device for _, _, device in cells}
    checks = list(dict.fromkeys(check for check, _, _ in cells))
    heads = [tag("th", prose(text), scope="col") for text in ("check", "limit", *pairs)]
    rows = []
    for column in sorted(cells, key=lambda column: checks.index(column[0])):
        check, dtype, device = column
        results = {r.pair: r for r in cells[column]}
        usual = row_limit(results)
        where = tag("span", f" {dtype}" + f" {device}" * (len(devices) > 1), class_="soft")
        marks = limits.mark(*(r for r in results.values() if limit(r.tolerance) == usual))
        cell = [_cell(results.get(pair), pair, usual, address(check), limits) for pair in pairs]
        rows.append(
            tag(
                "tr",
                tag("th", check, where, scope="row"),
                tag("td", usual, marks, data_label="limit"),
                *cell,
            )
        )
    return tag("table", _caption(), tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="matrix by-pair")


def _caption() -> Markup:
    return tag("caption", begun(summary.LARGEST), class_="unseen")


def _rows_of_pairs(
    cells: Mapping[Column, Sequence[Result]], address: Callable[[str], str], limits: LimitNotes
) -> Markup:
    """Build the table with a row for each pair, as columns of all of them are wider than the page."""
    devices = {device for _, _, device in cells}
    checks = list(dict.fromkeys(check for check, _, _ in cells))
    heads = [tag("th", text, scope="col") for text in ("check", "pair", "error", "limit")]
    rows = []
    for column in sorted(cells, key=lambda column: checks.index(column[0])):
        check, dtype, device = column
        where = tag("span", f" {dtype}" + f" {device}" * (len(devices) > 1), class_="soft")
        for k, r in enumerate(cells[column]):
            first = (
                [] if k else [tag("th", check, where, scope="rowgroup", rowspan=len(cells[column]), class_="of-rows")]
            )
            usual = limit(r.tolerance) if r.is_number else ""
            error = _cell(r, r.pair, usual, address(check), limits)
            bound = [usual, limits.mark(r)] if usual else ["-"]
            cell = [tag("td", prose(r.pair), class_="pair"), error, tag("td", *bound, data_label="limit")]
            rows.append(tag("tr", *first, *cell))
    top = tag("thead", tag("tr", *heads))
    return tag("table", _caption(), top, tag("tbody", *rows), class_="matrix by-pair in-rows")


def _cell(r: Result | None, pair: str, usual: str, address: str, limits: LimitNotes) -> Markup:
    """Build a cell: an error as a link to its plot, with its limit where that is not the usual one of the row."""
    if r is None:
        return tag("td", "not asked", data_label=pair, class_="none")
    undecided = r.grade in summary.UNDECIDED
    text = r.grade if undecided else graded(r.grade, r.shown)
    own = "" if undecided else own_limit(r, usual)
    kind = {"close": "close", "differs": "differs", "failed": "failed", "agrees": None}.get(r.grade, "none")
    bound = [" ", tag("span", f"(limit {own}", limits.mark(r), ")", class_="own-limit whole")] * bool(own)
    parts = [tag("a", prose(text), href=f"#{address}"), *bound]
    lost = f"{count(len(r.unjudged), 'array')} not judged"
    parts += [tag("span", prose(lost), class_="who")] * bool(r.unjudged)
    return tag("td", *parts, data_label=pair, class_=kind, title=r.cause or None)
