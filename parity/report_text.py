"""Write a report as text: the verdict first, a table for each architecture and dtype, the summary last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from convert.errors import printable
from convert.terminal import WIDTH, painted, shortened, wrapped
from specs.words import count

from . import findings, summary
from .quoting import unmarked
from .result import Result
from .row_limit import own_limit, row_limit

MODEL = 0.3  # share of the width that a model's name may have in a row; a longer one gets a line of its own
FINDINGS = 6  # divergences that are printed in full
NOTES = 8  # remarks that are printed
# Codes of ANSI terminals by a result's grade or the kind of a line.
CODES = {
    "good": "32;1",
    "differs": "31;1",
    "failed": "31;1",
    "close": "33",
    "not run": "33",
    "not judged": "33",
    "head": "1",
    "soft": "2",
}
ERROR = "error"  # the head of a column whose pair has a line of its own
MARKS = {"differs": " X", "close": " !"}
LEGEND = {
    "differs": "X: beyond its limit",
    "close": "!: close to its limit",
    "failed": "failed: a side failed to run",
    "not run": "-: not run, see below why",
    "not judged": "?: not judged, see below why",
}

Row = dict[str, Result]  # by pair


class Screen(NamedTuple):
    """How text is written: in colour or not, and in how many columns."""

    colour: bool
    width: int

    @property
    def longest(self) -> int:
        """Return how many characters of a model's name stand in a row."""
        return int(MODEL * self.width)

    def paint(self, text: str, kind: str) -> str:
        """Colour a text by its kind, a key of CODES."""
        return painted(text, CODES.get(kind, "")) if self.colour else text

    def wrap(self, text: str, kind: str = "", first: str = "", rest: str = "") -> str:
        """Wrap a text between words only: no number or name is broken."""
        return "\n".join(
            self.paint(line, kind) for line in wrapped(shortened(printable(text)), self.width, first, rest)
        )


def render(results: Sequence[Result], colour: bool = False, report: str = "", width: int = WIDTH) -> str:
    """Return all results as text of at most `width` columns; only names that are longer exceed it.

    Args:
      report: the HTML page that was written.
    """
    screen = Screen(colour, width)
    blocks = [screen.wrap(unmarked(summary.verdict(results)), "good" if summary.passed(results) else "differs")]
    blocks += [_table(group, screen) for group in _groups(results)]
    blocks += [legend] if (legend := _legend(results, screen)) else []
    blocks += _findings(results, screen, report)
    blocks += [block for block in (_causes(results, screen), _notes(results, screen)) if block]
    last = [line for line in (summary.closing(results), f"report: {report}" if report else "") if line]
    blocks += ["\n".join(screen.wrap(line, "head", "", "  ") for line in last)] * bool(last)
    return "\n\n".join(blocks)


def _groups(results: Iterable[Result]) -> list[list[Result]]:
    """Group the results by architecture, dtype and device; leave out groups in which none ran."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.architecture, r.dtype, r.device), []).append(r)
    return [group for group in groups.values() if _ran(group)]


def _table(group: Sequence[Result], screen: Screen) -> str:
    """Write a heading and a table of errors; pairs that do not fit side by side get tables of their own."""
    first = group[0]
    name = "own models" if first.architecture == "own" else first.architecture
    what = summary.extreme(group, "their limits")
    lines = [screen.wrap(f"{name}, {first.dtype} on {first.device}: errors {what}", "head", "", "  ")]
    rows = _rows(group)
    pairs = _ran(group)
    widths = {
        pair: max(len(pair), *(len(_words(row.get(pair), row_limit(row))) for _, _, row in rows)) for pair in pairs
    }
    layout = Layout(
        _model_width({variant for variant, _, _ in rows} - {"own"}, screen.longest),
        max(len("check"), *(len(check) for _, check, _ in rows)),
        max(len("limit"), *(len(row_limit(row)) for _, _, row in rows)),
    )
    for shown in _chunks(widths, screen.width - layout.width):
        lines += _lines(rows, {pair: widths[pair] for pair in shown}, layout, screen)
    return "\n".join(line.rstrip() for line in lines)


def _model_width(variants: Iterable[str], longest: int) -> int:
    """Return the width of the column of models; longer names have lines of their own."""
    return max((max(len(v) if len(v) <= longest else 0, len("model")) for v in variants), default=0)


def _ran(group: Iterable[Result]) -> list[str]:
    """Return the pairs that ran at all: each has a column."""
    return list(dict.fromkeys(r.pair for r in group if r.grade != "not run"))


@dataclass(frozen=True)
class Layout:
    """The widths of the columns that every table of a group begins with, in characters; 0 means no column."""

    model: int
    check: int
    limit: int

    @property
    def width(self) -> int:
        return len(self.row("", "", ""))

    def row(self, model: str, check: str, limit: str) -> str:
        head = f"  {model:{self.model}}" if self.model else ""
        return f"{head}  {check:{self.check}}  {limit:>{self.limit}}"


def _chunks(widths: Mapping[str, int], room: int) -> Iterator[list[str]]:
    """Split pairs into groups whose columns fit in `room`."""
    chunk: list[str] = []
    for pair in widths:
        if chunk and sum(widths[p] + 2 for p in [*chunk, pair]) > room:
            yield chunk
            chunk = []
        chunk.append(pair)
    yield chunk


def _rows(group: Iterable[Result]) -> list[tuple[str, str, Row]]:
    """Return (variant, check, results by pair) of each row; a second result for the same place starts another row."""
    rows: list[tuple[str, str, Row]] = []
    for r in group:
        row = next(
            (c for variant, check, c in rows if (variant, check) == (r.variant, r.check) and r.pair not in c), None
        )
        if row is None:
            rows.append((r.variant, r.check, row := {}))
        row[r.pair] = r
    return rows


def _lines(
    rows: Sequence[tuple[str, str, Row]], pairs: Mapping[str, int], layout: Layout, screen: Screen
) -> Iterator[str]:
    if len(pairs) == 1 and layout.width + 2 + max(pairs.values()) > screen.width:
        (pair,) = pairs
        yield screen.paint(f"  {pair}", "soft")
        pairs = {pair: max(len(ERROR), *(len(_words(row.get(pair), row_limit(row))) for _, _, row in rows))}
        columns = f"  {ERROR:>{pairs[pair]}}"
    else:
        columns = "".join(f"  {pair:>{width}}" for pair, width in pairs.items())
    yield screen.paint(layout.row("model", "check", "limit") + columns, "soft")
    before = ""
    for variant, check, row in rows:
        name = "" if variant in (before, "own") else variant
        before = variant
        if len(name) > screen.longest:
            yield f"  {name}"
            name = ""
        cells = "".join(_cell(row.get(pair), row_limit(row), width, screen) for pair, width in pairs.items())
        yield layout.row(name, check, row_limit(row)) + cells


def _words(result: Result | None, usual: str) -> str:
    """Write an error, its limit if that of its row does not do, and a mark; "" for what was not asked for."""
    if result is None:
        return ""
    grade = result.grade
    if grade in summary.UNDECIDED:
        return {"failed": "failed", "not run": "-", "not judged": "?"}[grade]
    own = own_limit(result, usual)
    return result.shown + f" of {own}" * bool(own) + MARKS.get(result.grade, "")


def _cell(result: Result | None, usual: str, width: int, screen: Screen) -> str:
    words = _words(result, usual)
    return "  " + " " * (width - len(words)) + screen.paint(words, result.grade if result else "")


def _legend(results: Sequence[Result], screen: Screen) -> str:
    shown = [r for group in _groups(results) for r in group if r.pair in _ran(group)]
    marks = [meaning for grade, meaning in LEGEND.items() if any(r.grade == grade for r in shown)]
    rows = [row for group in _groups(results) for _, _, row in _rows(group)]
    odd = any(own_limit(r, row_limit(row)) for row in rows for r in row.values() if r.tolerance)
    marks += ["a of b: the error is a, and b is its own limit"] if odd else []
    return screen.wrap("; ".join(marks), "soft") if marks else ""


def _findings(results: Sequence[Result], screen: Screen, report: str) -> Iterator[str]:
    divergences = findings.find(results)
    for finding in divergences[:FINDINGS]:
        subject = unmarked(summary.subject(finding.result))
        lines = [screen.wrap(f"{subject}: {', '.join(finding.pairs)}", "differs")]
        lines += [screen.wrap(value, "", f"  {label:12}  ", " " * 16) for label, value in findings.facts(finding)]
        yield "\n".join(lines)
    if len(divergences) > FINDINGS:
        where = report or "a page (--report FILE)"
        more = count(len(divergences) - FINDINGS, "more divergence")
        yield f"{more}, marked X above: see {where}."


def _causes(results: Sequence[Result], screen: Screen) -> str:
    return "\n".join(screen.wrap(why, grade, "", "  ") for grade, why in summary.causes(results))


def _notes(results: Sequence[Result], screen: Screen) -> str:
    remarks = summary.notes(results)
    lines = [screen.wrap(f"note: {note} ({which})", "soft", "", "  ") for note, which in remarks[:NOTES]]
    if len(remarks) > NOTES:
        lines.append(screen.paint(f"{count(len(remarks) - NOTES, 'more note')}: see --report or --json", "soft"))
    return "\n".join(lines)
