"""Compare two checkpoints by a Table: of its two sides, or of the one that it reads."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace

from convert import folding
from convert.arrays import payload
from convert.arrays.counters import COUNTER
from convert.arrays.steps import ConstantFilling, Steps, sources_of
from convert.errors import OpenLengths
from convert.files import open_checkpoint
from convert.records import record
from convert.table import by_table
from convert.table.file import given_lengths, load
from convert.table.laying_out import read_like
from convert.table.lengths import check_record
from convert.table.misfit import StateAlone, strange
from convert.table.plan import TablePlan

from .array_differences import COUNTERS, Differences, Tolerance, differences, uncounted_norms
from .arrays import Arrays, as_it_is, beside, copied, of_both

DROPPED = "what the Table drops"
DIVIDED = "how sums are divided among their terms"
Weights = tuple[str | None, str | None]
Compared = tuple[Differences, list[str]]


def across(
    a: str,
    b: str,
    table: str,
    tolerance: Tolerance,
    sizes: Mapping[str, int],
    backwards: bool = False,
    weights: Weights = (None, None),
) -> Compared:
    """Return what keeps B from being what a Table makes of A, and notes on what is left out of the comparison.

    Two files of the side that the Table reads are compared by what it makes of each.

    Args:
      weights: which part of A and of B to take; None takes the whole file.
    Raises: ConvertError where either file does not fit the Table.
    """
    with contextlib.ExitStack() as stack:

        def planned(path: str, turned: bool, part: str | None, like: str | None, like_part: str | None) -> TablePlan:
            """Plan the conversion of a file. Args: like: a file of the other side. part, like_part: their parts."""
            plan = by_table.plan(path, table, turned, like, sizes, weights=part, like_weights=like_part, complete=False)
            return stack.enter_context(plan)

        of_a, of_b = weights
        try:
            if _is_of_read_side(b, table, backwards, of_b):
                one, two = (planned(path, backwards, part, None, None) for path, part in ((a, of_a), (b, of_b)))
                return _of_one_side(one, two, tolerance)
            left = planned(a, backwards, of_a, b, of_b)
            turned = planned(b, not backwards, of_b, a, of_a) if left.layout.zeroed else None
        except StateAlone as error:
            raise error.compared() from None
        except OpenLengths as error:
            raise error.by_lengths() from None
        payload.check_steps(left)
        stored = stack.enter_context(open_checkpoint(b))
        check_record(b, of_file := record.read(stored), left.table, left.layout.sizes)
        right = as_it_is(stored, of_b, left.table.reverse())
        given = [] if of_file.damage or of_file.change else given_lengths(of_file.content)
        return _of_both_sides(left, turned, replace(right, notes=(*right.notes, *given)), tolerance)


def _of_both_sides(left: TablePlan, turned: TablePlan | None, right: Arrays, tolerance: Tolerance) -> Compared:
    """Compare what a Table makes of A with B.

    Args:
      turned: the conversion of B, if B has terms of which A has the sums.
    """
    a, b = left.reader.path, right.reader.path
    notes = [*_notes(left, b), *(f"{b}: {note}" for note in beside(right))]
    terms = frozenset(turned.layout.sums if turned else ())
    arrays = differences(left, right, tolerance, skip=terms.union(left.layout.unread).__contains__)
    if turned:
        arrays = arrays.joined(_sums(turned, left, tolerance), len(terms))
    if left.layout.dropped or left.layout.cut or left.layout.unread:
        arrays = arrays._replace(but=(DROPPED,))
    arrays, uncounted = _without_counters(arrays, left)
    return arrays._replace(of=" of B"), [*notes, *uncounted_norms(a, uncounted), *arrays.notes()]


def _is_of_read_side(path: str, table: str, backwards: bool, weights: str | None) -> bool:
    """Tell whether the names of a file are those of the side that the Table reads, and not of the other one."""
    lines = load(table).reverse() if backwards else load(table)
    names = read_like(lines, path, weights).shapes or ()
    return strange(lines, names) < strange(lines.reverse(), names)


def _of_one_side(left: TablePlan, right: TablePlan, tolerance: Tolerance) -> Compared:
    """Compare what a Table makes of two files of the side that it reads."""
    arrays = differences(left, right, tolerance)
    but = ([DROPPED] if left.layout.dropped or left.layout.cut else []) + ([DIVIDED] if left.layout.sums else [])
    notes = of_both(left.reader.path, left.notes(), right.reader.path, right.notes())
    arrays = arrays._replace(but=tuple(but), of=" that the Table makes of each file", layout="what the Table makes")
    return arrays, [*notes, *arrays.notes()]


def _sums(turned: TablePlan, left: TablePlan, tolerance: Tolerance) -> Differences:
    """Compare the arrays of A that are sums of B's with what the Table makes of these; all others are left out.

    Args:
      turned, left: the conversions of B and of A.
    """
    terms = set(turned.layout.sums)
    steps = tuple(step for step in turned.steps if not terms.isdisjoint(sources_of(step[1])))
    checks = tuple(check for check in turned.checks if check.name in terms)
    sources = {tensor.name: left.sources[tensor.name] for tensor, _ in steps}
    own = Arrays(left.reader, sources, copied(sources), [])
    return differences(own, replace(turned, steps=steps, checks=checks), tolerance)


def _notes(left: TablePlan, path: str) -> list[str]:
    """Return what a user should know of how A is read. Args: path: of B."""
    layout = left.layout
    planned = replace(left, layout=layout._replace(zeroed=()))  # B's terms need not be zeros: their sums are compared
    own = [note if note.startswith(left.table.name) else f"{left.reader.path}: {note}" for note in planned.notes()]
    unread = f"{path}: not compared, as the table drops them: {folding.listed(layout.unread)}"
    sums = f"{path}: added, as the table says, and their sums are compared: {folding.listed(layout.zeroed)}"
    return [*own, *([unread] if layout.unread else []), *([sums] if layout.zeroed else [])]


def _without_counters(arrays: Differences, left: Steps) -> tuple[Differences, list[str]]:
    """Leave out differences of batch counters that A does not store and the Table states; return their names too."""
    constants = {tensor.name for tensor, filling in left.steps if isinstance(filling, ConstantFilling)}
    names = [one["tensor"] for one in arrays.entries if one["kind"] == "value" and one["tensor"] in constants]
    names = [name for name in names if re.split(r"[./]", name)[-1] == COUNTER]
    if not names:
        return arrays, []
    entries = [one for one in arrays.entries if one["tensor"] not in names]
    but = (*arrays.but, COUNTERS)
    return arrays._replace(entries=entries, compared=arrays.compared - len(names), but=but), names
