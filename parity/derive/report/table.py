"""Show the lines of the Table, with the legend of their notation and the commands that convert by them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

from parity.derive.derivation import Derivation, converting
from parity.derive.trace.sites import numberless
from parity.page.markup import Markup, command, join, prose, tag
from specs.words import begun

LEGEND = "A line names an array on either side and its axes, by letters that both sides share"
NOTATION = {  # what may occur in a line, and its meaning
    r"\([a-z][a-z0-9 ]*\)": "axes composed into one",
    r"\{[a-z]\}": "the numbers of blocks",
    r"\{[a-z]=[^{}]*\}": "names in the place of an axis",
}


def table(found: Derivation, out: str | None) -> Markup:
    """Build the section of the Table.

    Args:
      out: its file, which the commands name.
    """
    text = found.table.print()
    lines = _grouped(text, {numberless(name) for name in (*found.doubtful, *found.chosen)})
    commands = converting(found.table, out or "FILE.table") if found.table.lines and not found.missing else []
    converts = [tag("p", prose(f"{begun(what)}: "), command(line), class_="soft next") for what, line in commands]
    legend = tag("p", prose(_legend(text)), class_="soft")
    return tag("section", tag("h2", "Table"), legend, tag("pre", *lines, class_="lines"), *converts)


def _grouped(table: str, doubted: Collection[str] = ()) -> list[Markup]:
    """Build the lines of a Table, comments apart in style, with a space in front of each block of the left model.

    Args:
      doubted: right parameters whose lines somebody should check, which are marked; with # for numbers.
    """
    lines, before = list[Markup](), ""
    for line in table.splitlines(keepends=True):
        is_comment = line.startswith(("#", "table "))
        block = "" if is_comment else _block(line)
        kinds = ["comment"] * is_comment + ["block"] * bool(lines and block != before)
        kinds += ["doubted"] * (not is_comment and not _right_names(line).isdisjoint(doubted))
        lines.append(tag("span", *_sides(line), class_=" ".join(kinds) or None))
        before = block
    return lines


def _right_names(line: str) -> set[str]:
    """Return the names of the right arrays of a line, with # for the numbers of blocks and all choices written out."""
    text = line.partition(" <-> ")[2].partition(":")[0].strip()
    parts = re.split(r"\{(?:[a-z]=)([^{}]*)\}", re.sub(r"\{[a-z]\}", "#", text))
    choices = (part.split("|") if k % 2 else [part] for k, part in enumerate(parts))
    return {numberless("".join(chosen)) for chosen in itertools.product(*choices)}


def _block(line: str) -> str:
    """Return the block of a line's first array: "blocks.{i}" of "blocks.{i}.norm.weight: c <-> ...", or its module."""
    array = line.partition(":")[0].strip()
    counted = re.match(r"[^{}]*\{[a-z]\}", array)
    return counted[0] if counted else re.split(r"[./]", array)[0]


def _legend(table: str) -> str:
    """Explain the notation that occurs in a Table, by its first example of each."""
    lines = "\n".join(line for line in table.splitlines()[1:] if not line.startswith("#"))
    found = [(example[0], meaning) for form, meaning in NOTATION.items() if (example := re.search(form, lines))]
    return "".join([LEGEND, *(f"{';' if not k else ','} {example} {meaning}" for k, (example, meaning) in
                              enumerate(found)), "."])  # fmt: skip


def _sides(line: str) -> list[Markup]:
    """Split a line before its arrow, where it is broken first; comments and lines with one side are whole."""
    left, arrow, right = line.partition(" <-> ")
    if not arrow or line.startswith("#"):
        return [prose(line)]
    return [tag("span", prose(left), class_="side"), join(" "), tag("span", prose(f"<-> {right}"), class_="side")]
