"""Write a report as text: the verdict first, a table for each architecture and dtype, the summary last."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from convert.errors import printable
from convert.terminal import WIDTH, marked, painted, shortened, wrapped
from parity.given.quoting import unmarked
from parity.results.result import Result
from specs.numbers import limit
from specs.words import count

from . import findings, notes, summary
from .row_limit import own_limit, row_limit

MODEL = 0.3  # share of the width that a model's name may have in a row; a longer one gets a line of its own
FINDINGS = 6  # divergences that are printed in full
NOTES = 8  # remarks that are printed
LABEL = 12  # characters of the label of a fact, unless a longer one occurs
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
VERDICT = re.compile(r"\b(?:agree|differs?|not proven|nothing (?:is proven|was compared))\b", re.IGNORECASE)
MARKS = {"differs": " X", "close": " !"}
COPIES = "*"  # behind the mark of an error between float64 copies
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

    def mark(self, text: str, words: str, kind: str) -> str:
        """Colour words of a text by their kind."""
        return marked(text, CODES[kind], words) if self.colour and words else text

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
    absences, results = summary.absences(results), summary.present(results)
    verdict = unmarked(summary.verdict(results))
    judgement = VERDICT.search(verdict)
    grade = "good" if summary.passed(results) else "differs"
    blocks = [screen.mark(screen.wrap(verdict), judgement[0] if judgement else "", grade)]
    tables = [_table(group, screen) for group in summary.tabled(results) if _ran(group)]
    legend = _legend(results, screen, has_own_limits=any(re.search(r"\d of \d", table) for table in tables))
    blocks += [*tables, *([legend] if legend else [])]
    blocks += _findings(results, screen, report)
    missing = "\n".join(screen.wrap(text, "", "", "  ") for text in absences)
    blocks += [block for block in (missing, _causes(results, screen), _notes(results, screen)) if block]
    last = [line for line in (summary.closing(results), f"report: {report}" if report else "") if line]
    blocks += ["\n".join(screen.wrap(line, "head", "", "  ") for line in last)] if last else []
    return "\n\n".join(blocks)


def _table(group: Sequence[Result], screen: Screen) -> str:
    """Write a heading and a table of errors; pairs that do not fit side by side get tables of their own."""
    first = group[0]
    name = "own models" if first.architecture == "own" else first.architecture
    which = f": {summary.extreme(group)}" * any(r.is_number for r in group)  # none where words stand for all errors
    lines = [screen.wrap(f"{name}, {first.dtype} on {first.device}{which}", "head", "", "  ")]
    rows = _rows(group)
    pairs = {pair: _Column.of([(row.get(pair), row_limit(row)) for _, _, row in rows], pair) for pair in _ran(group)}
    layouts = [Layout.of(rows, longest) for longest in (screen.width, screen.longest)]
    needed = sum(column.width + 2 for column in pairs.values())
    fitting = next((layout for layout in layouts if layout.width + needed <= screen.width), None)
    lines += _lines(rows, pairs, fitting, screen) if fitting else _below(rows, list(pairs), layouts[1], screen)
    return "\n".join(line.rstrip() for line in lines)


def _ran(group: Iterable[Result]) -> list[str]:
    """Return the pairs that ran at all: each has a column."""
    return list(dict.fromkeys(r.pair for r in group if r.grade != "not run"))


@dataclass(frozen=True)
class Layout:
    """The widths of the columns that every table of a group begins with, in characters; 0 means no column."""

    model: int
    check: int
    limit: int

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, Row]], longest: int) -> Layout:
        """Return the widths for rows; a model's name that is longer than `longest` has a line of its own."""
        names = {variant for variant, _, _ in rows} - {"own"}
        return cls(
            max((max(len(name) if len(name) <= longest else 0, len("model")) for name in names), default=0),
            max(len("check"), *(len(check) for _, check, _ in rows)),
            max(len("limit"), *(len(row_limit(row)) for _, _, row in rows)),
        )

    @property
    def width(self) -> int:
        return len(self.row("", "", ""))

    def row(self, model: str, check: str, limit: str | None) -> str:
        """Begin a row; without a limit where each pair has a row with its own."""
        head = f"  {model:{self.model}}" if self.model else ""
        return f"{head}  {check:{self.check}}" + (f"  {limit:>{self.limit}}" if limit is not None else "")


class _Column(NamedTuple):
    """The widths of a column of errors, and of the marks at its end: digits stand below each other."""

    width: int
    marks: int

    @classmethod
    def of(cls, cells: Iterable[tuple[Result | None, str]], head: str) -> _Column:
        """Return the widths for results, each with the limit of its row."""
        lengths = [(len(_words(r, usual)), len(_mark(r))) for r, usual in cells]
        words, marks = (max(column) for column in zip(*lengths, strict=True))
        return cls(max(len(head), words + marks), marks)

    def cell(self, result: Result | None, usual: str, screen: Screen) -> str:
        """Write a result with a gap in front, its mark at the end of the column."""
        words, mark = _words(result, usual), _mark(result)
        ahead, behind = " " * (self.width - self.marks - len(words)), " " * (self.marks - len(mark))
        return f"  {ahead}{screen.paint(words + mark, result.grade if result else '')}{behind}"


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


def _headed(rows: Sequence[tuple[str, str, Row]], layout: Layout) -> Iterator[tuple[list[str], str, str, Row]]:
    """Yield (the line of a model's name that is too long for its column, the name in the column, check, results).

    A name stands in the first row of its model alone.
    """
    before = ""
    for variant, check, row in rows:
        name = "" if variant in (before, "own") else variant
        before = variant
        fits = len(name) <= layout.model
        yield [] if fits else [f"  {name}"], name if fits else "", check, row


def _lines(
    rows: Sequence[tuple[str, str, Row]], pairs: Mapping[str, _Column], layout: Layout, screen: Screen
) -> Iterator[str]:
    """Write a row for each model and check, with a column for each pair."""
    columns = "".join(f"  {pair:>{column.width}}" for pair, column in pairs.items())
    yield screen.paint(layout.row("model", "check", "limit") + columns, "soft")
    for line, name, check, row in _headed(rows, layout):
        yield from line
        cells = "".join(column.cell(row.get(pair), row_limit(row), screen) for pair, column in pairs.items())
        yield layout.row(name, check, row_limit(row)) + cells


def _below(rows: Sequence[tuple[str, str, Row]], pairs: Sequence[str], layout: Layout, screen: Screen) -> Iterator[str]:
    """Write a row for each pair, where their columns do not fit beside each other; a longer name has its own line."""
    cells = [row[pair] for _, _, row in rows for pair in pairs if pair in row]
    error = _Column.of([(r, limit(r.tolerance)) for r in cells], "error")
    bound = max(len("limit"), *(len(limit(r.tolerance)) for r in cells))
    room = screen.width - len(layout.row("", "", None)) - error.width - bound - 6
    wide = max((len(pair) for pair in ("pair", *pairs) if len(pair) <= room), default=0)
    yield screen.paint(
        layout.row("model", "check", None) + f"  {'pair':{wide}}  {'error':>{error.width}}  limit", "soft"
    )
    for line, name, check, row in _headed(rows, layout):
        yield from line
        for pair in (pair for pair in pairs if pair in row):
            if len(pair) > wide:
                yield from [layout.row(name, check, None)] if check else []
                yield f"    {pair}"
                name = check = ""
            own = limit(row[pair].tolerance)
            begin = f"{layout.row(name, check, None)}  {pair if len(pair) <= wide else '':{wide}}"
            yield f"{begin}{error.cell(row[pair], own, screen)}  {own:>{bound}}"
            name = check = ""


def _words(result: Result | None, usual: str) -> str:
    """Write an error, and its limit if that of its row does not do; "" for what was not asked for."""
    if result is None:
        return ""
    if result.grade in notes.UNDECIDED:
        return {"failed": "failed", "not run": "-", "not judged": "?"}[result.grade]
    own = own_limit(result, usual)
    return result.shown + f" of {own}" * bool(own)


def _mark(result: Result | None) -> str:
    """Return what stands behind an error: its grade, and whether it is one between float64 copies."""
    if result is None or result.grade in notes.UNDECIDED:
        return ""
    return MARKS.get(result.grade, "") + COPIES * findings.is_of_copies(result)


def _legend(results: Sequence[Result], screen: Screen, has_own_limits: bool) -> str:
    shown = [r for group in summary.tabled(results) for r in group if r.pair in _ran(group)]
    marks = [meaning for grade, meaning in LEGEND.items() if any(r.grade == grade for r in shown)]
    marks += ["a of b: the error is a, and b is its own limit"] * has_own_limits
    copies = f"{COPIES}: between the float64 copies of both models, which differ already"
    marks += [copies] * any(map(findings.is_of_copies, shown))
    return screen.wrap("; ".join(marks), "soft") if marks else ""


def _findings(results: Sequence[Result], screen: Screen, report: str) -> Iterator[str]:
    divergences = findings.find(results)
    for finding in divergences[:FINDINGS]:
        subject = unmarked(summary.subject(finding.result))
        lines = [screen.wrap(f"{subject}: {', '.join(finding.pairs)}", "head")]
        facts = findings.facts(finding)
        wide = max(LABEL, *(len(label) for label, _ in facts))
        lines += [screen.wrap(value, "", f"  {label:{wide}}  ", " " * (wide + 4)) for label, value in facts]
        yield "\n".join(lines)
    if len(divergences) > FINDINGS:
        where = report or "a page (--report FILE)"
        more = count(len(divergences) - FINDINGS, "more divergence")
        yield f"{more}, marked X above: see {where}."


def _causes(results: Sequence[Result], screen: Screen) -> str:
    return "\n".join(
        screen.mark(screen.wrap(str(cause), "", "", "  "), cause.grade, cause.grade) for cause in notes.causes(results)
    )


def _notes(results: Sequence[Result], screen: Screen) -> str:
    remarks = [*notes.close_calls(results), *notes.notes(results)]
    lines = [
        screen.wrap(f"note: {note}{f' ({unmarked(which)})' * bool(which)}", "soft", "", "  ")
        for note, which in remarks[:NOTES]
    ]
    if len(remarks) > NOTES:
        lines.append(screen.paint(f"{count(len(remarks) - NOTES, 'more note')}: see --report or --json", "soft"))
    return "\n".join(lines)
