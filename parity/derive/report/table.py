"""Show the lines of the Table, with the legend of their notation and the commands that convert by them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from dataclasses import replace

from parity.derive.findings.converting import converting
from parity.derive.findings.derivation import MEANT, Derivation
from parity.derive.findings.evidence import copies
from parity.derive.findings.remarks import FREE
from parity.page.markup import MARKS, WHOLE, Markup, command, prose, tag, whole
from specs.notation.lines import Line
from specs.notation.paths import Hole, normal, spelt
from specs.table import Table
from specs.words import begun

ARROW = " <-> "
MOST_ALIGNED = 44  # characters of a left side behind which arrows stand below each other
LEGEND = "A line names an array of either model and its axes, by letters that both sides share"
CHECK = "marks lines to check: Remarks say why."
NOTATION = {  # what may occur in a line, and its meaning
    r"\([a-z][a-z0-9 ]*\)": "stands for axes joined into one",
    r"\{[a-z]\}": "for the number of a block",
    r"\{[a-z]=[^{}]*\}": "for names in place of an axis",
}


def table(derivation: Derivation, out: str | None) -> Markup:
    """Build the section of the Table.

    Args:
      out: its file, which the commands name.
    """
    to_check = [*derivation.doubtful, *derivation.chosen, *derivation.inferred_apart]
    if not derivation.proven:
        to_check += [name for line in derivation.table.lines if copies(line) for name in _right_names(line)]
    lines = _lines(as_shown(derivation.table), set(map(normal, to_check)))
    is_usable = derivation.table.lines and not derivation.missing
    commands = converting(derivation.table, out or "FILE.table") if is_usable else []
    converts = [tag("p", prose(f"{begun(what)}: "), command(line), class_="soft next") for what, line in commands]
    if converts and not derivation.proven and MEANT not in derivation.following:  # which stands below the cards
        doubt = MEANT if derivation.confirmed else "the Table is not proven: check its lines before you convert by it"
        converts.insert(0, tag("p", tag("b", prose(f"{begun(doubt)}.")), class_="next"))
    marked = any("doubted" in line for line in lines)
    check = f" {MARKS['close']} {CHECK}" if marked else ""
    legend = tag("p", prose(f"{_legend(derivation.table)}{check}"), class_="soft")
    left = max((len(side) for side in _left_sides(derivation.table) if len(side) <= MOST_ALIGNED), default=0)
    listing = tag("pre", *lines, class_="lines", style=f"--left: {left + 2 * marked}ch")  # a mark is as long as 2
    return tag("section", tag("h2", "Table: which array becomes which"), legend, listing, *converts)


def as_shown(table: Table) -> Table:
    """Return a Table without the comments on what is free to permute, which are among the remarks."""
    if not table.lines:
        return table
    first, *others = table.lines
    above = tuple(comment for comment in first.above if not comment.startswith(f"# {FREE}"))
    return replace(table, lines=(replace(first, above=above), *others))


def _left_sides(table: Table) -> list[str]:
    """Return what stands before the arrow of each line that has two sides."""
    sides = (str(line).partition(ARROW) for line in table.lines)
    return [left for left, arrow, _ in sides if arrow]


def _lines(table: Table, doubted: Collection[str]) -> list[Markup]:
    """Build the lines of a Table, comments apart in style, with a space in front of each block of the left model.

    Args:
      doubted: right parameters whose lines somebody should check, which are marked; with # for numbers.
    """
    lines, before = list[Markup](), ""
    for text, line in _printed(table):
        block = _block(line) if line else ""
        kinds = ["comment"] * (line is None) + (["block"] if lines and block != before else [])
        kinds += ["doubted"] * (line is not None and not _right_names(line).isdisjoint(doubted))
        lines.append(tag("span", *_sides(text), class_=" ".join(kinds) or None))
        before = block
    return lines


def _printed(table: Table) -> list[tuple[str, Line | None]]:
    """Return each printed line with its end, beside the Line that it shows; None for a comment and for the title."""
    shown: list[Line | None] = [None]
    for line in table.lines:
        shown += [*(None for _ in line.above), line]
    shown += (None for _ in table.below)
    texts = table.print().removesuffix("\n").split("\n")
    return [(f"{text}\n", line) for text, line in zip(texts, shown, strict=True)]


def _right_names(line: Line) -> set[str]:
    """Return the names of the right arrays of a line, with # for numbers and all choices written out."""
    names = set[str]()
    for array in line.right.arrays:
        pieces = ([p] if isinstance(p, str) else p.values or ["#"] for p in line.resolved(array).path)
        names.update(normal("".join(chosen)) for chosen in itertools.product(*pieces))
    return names


def _block(line: Line) -> str:
    """Return the block of a line's first array, "blocks.{i}" of "blocks.{i}.norm.weight", or its outermost module."""
    path = line.arrays[0].path
    at, hole = next(((k, piece) for k, piece in enumerate(path) if isinstance(piece, Hole)), (0, None))
    if hole and hole == Hole(hole.name):  # which counts
        return spelt(path[: at + 1])
    return re.split(r"[./]", spelt(path))[0]


def _legend(table: Table) -> str:
    """Explain the notation that occurs in a Table, by its first example of each."""
    lines = "\n".join(map(str, table.lines))
    entries = [(example[0], meaning) for form, meaning in NOTATION.items() if (example := re.search(form, lines))]
    return "".join([LEGEND, *(f"{';' if not k else ','} {example} {meaning}" for k, (example, meaning) in
                              enumerate(entries)), "."])  # fmt: skip


def _sides(text: str) -> list[str]:
    """Split a printed line before its arrow, where it is broken first; comments and lines with one side are whole."""
    left, arrow, right = text.partition(ARROW)
    if not arrow or text.startswith("#"):
        return [prose(text)]
    return [tag("span", *_with_axes(left), class_="side"), " ", tag("span", *_with_axes(f"<-> {right}"), class_="side")]


def _with_axes(text: str) -> list[Markup]:
    """Build one side of a line, whose short lists of axes are not broken."""
    parts = re.split(r"(?<=: )(.*?)(?= [+=] |$)", text)
    return [whole(part) if k % 2 and len(part) <= WHOLE else prose(part) for k, part in enumerate(parts) if part]
