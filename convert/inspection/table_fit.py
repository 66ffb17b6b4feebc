"""Describe how a file reads through a Table: which line reads which arrays, and how long its axes are."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from convert.errors import OpenLengths, option, printable
from convert.folding import fold
from convert.reading.masters import left_beside
from convert.running import dumps
from convert.table.by_table import plan
from convert.table.file import load
from convert.table.lengths import lengths
from convert.table.plan import TablePlan
from convert.terminal import say, say_note, table
from specs.notation.lines import Line
from specs.solving.matching import Matcher
from specs.words import count, in_a_row

HEADS = ("line", "arrays", "shape", "lengths", "reads")


def inspect_by_table(path: str, arguments: Namespace) -> int:
    """Print how a file reads through the Table of --table.

    Raises: ConvertError where it does not fit; lengths that it leaves open are described.
    """
    given, sizes, open_ = load(arguments.table), lengths(arguments.set), None

    def planned(sizes: Mapping[str, int]) -> TablePlan:
        return plan(
            path, given, arguments.reverse, sizes=sizes, weights=arguments.weights, complete=False, sampled=True
        )

    try:
        fit = planned(sizes)
    except OpenLengths as error:
        open_ = error
        fit = planned({**sizes, **dict.fromkeys(error.remedy.enough, 1)})
    with fit:
        rows = list(_described(fit, open_))
        read = () if open_ else fit.remarks  # these would report the lengths that stand for those that are open
        notes = [*read, *fit.around(), *fit.skipped(), *left_beside(fit.reader)]
    unknown = _unknown(open_) if open_ else ""
    side = fit.table.sides[0]
    if arguments.json:
        print(dumps({"table": arguments.table, "side": side, "lines": rows, "open": unknown, "notes": notes}))
        return 0
    if not arguments.quiet:
        where = "right" if arguments.reverse else "left"
        say(printable(f"{path}: read as the {where} side of {arguments.table}, {side}"), kind="head")
        for line in table(HEADS, [_cells(row) for row in rows], (0, 1)):
            say(printable(line))
        number = len({name for row in rows for name in row["arrays"]})  # several lines may read parts of one
        say(f"{count(number, 'array')} read by {count(sum(bool(row['arrays']) for row in rows), 'line')}")
    if unknown:
        say(f"open: {unknown}", kind="doubt", words="open:")
    for note in notes:
        say_note(note)
    return 0


def _described(plan: TablePlan, open_: OpenLengths | None) -> Iterator[dict[str, Any]]:
    """Yield each line of a Table with the arrays that it reads, and the lengths of its axes.

    A length is None where it is open; lengths that differ from block to block are left out.
    """
    match = Matcher(plan.table, plan.sources).match()
    for line in plan.table.lines:
        groups = [[name for named in arrays for name in named.values()] for _, arrays in match.groups(line)]
        shapes = list(dict.fromkeys(tuple(plan.sources[name].shape for name in names) for names in groups))
        unknown = open_.axes.get(line.number, frozenset()) if open_ else frozenset[str]()
        known = plan.layout.sizes.get(line.number, {}) if len(shapes) < 2 else {}
        yield {
            "line": line.number,
            "text": str(line.reverse() if plan.backwards else line),
            "dropped": line.kind == "drop",
            "arrays": [name for names in groups for name in names],
            "shapes": [list(shape) for shape in dict.fromkeys(itertools.chain(*shapes))],
            "lengths": {name: None if name in unknown else known[name] for name in _axes(line) if name in known},
        }


def _axes(line: Line) -> list[str]:
    """Return the axes of a line in the order in which it names them."""
    return list(dict.fromkeys(part.name for array in line.arrays for part in array.parts() if part.name))


def _unknown(error: OpenLengths) -> str:
    """Name the lengths that are open, and the few that state all of them."""
    names = dict.fromkeys(name for axes in error.axes.values() for name in sorted(axes))
    where = f"line{'s' * (len(error.axes) > 1)} {in_a_row(sorted(error.axes))}"
    few = " ".join(option("set", f"{name}=...") for name in error.remedy.enough)
    follow = ", from which the others follow" if len(error.remedy.enough) < len(names) else ""
    shown = in_a_row(dict.fromkeys(error.shown.values()))
    others = f"their own shapes do not show them, and others of their modules show {shown}"
    why = f"as {others if shown else 'no shape shows them'}"
    return f"{in_a_row(names)} on {where}, {why}; {few} states what is needed{follow}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shapes = ", ".join(map(str, row["shapes"]))
    sizes = " ".join(f"{name}={'?' if size is None else size}" for name, size in row["lengths"].items())
    names = ", ".join(fold(row["arrays"]))
    reads = f"{names} (dropped)" if row["dropped"] and names else names or f"nothing, as it says {row['text']}"
    return str(row["line"]), str(len(row["arrays"])), shapes, sizes, reads
