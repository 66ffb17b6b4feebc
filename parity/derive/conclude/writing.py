"""Write a match as a Table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from convert.folding import fold as folded_names
from parity.derive.findings.comments import untranslated
from parity.derive.fold.buffers import Partner, lines_of, partners_of, shapes_of
from parity.derive.fold.facts import Facts
from parity.derive.fold.fold import NO_LINE, PARTLY, UNMATCHED, fold
from parity.derive.fold.rows import DerivedTable, dropped
from parity.derive.limits import LARGE_MODEL
from parity.derive.match.complete import complete, is_whole, without_counterpart
from parity.derive.match.hints import Hint, check_lines
from parity.derive.match.symbols import Elements, Packed
from parity.derive.missing.unmatched import Unmatched
from parity.derive.search.candidates import Candidate, Left
from parity.derive.trace.caches import trim
from parity.derive.trace.call import label
from parity.derive.trace.draws import of_one_value
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.notation.lines import Line
from specs.notation.paths import escaped
from specs.solving.matching import Matcher
from specs.table import Table

from .rows import parted, read_in_rows, shifted
from .summands import straightened

UNUSED = "unused in the right model"


class Written(NamedTuple):
    """A match as a Table.

    Args:
      map, plus: the left element of each right one, and a second one that is added; see Match.
      rights: the right elements.
      reasons: right parameters that no line describes, each with the reason.
      inferred: right parameters of which all or some elements follow a pattern or a name. in_rows: those of them of
        which the inputs read some rows alone.
      notes: comments on what no line translates.
      filled: right parameters that lines set to zero, all or a part, as the left model has no such bias.
    """

    table: DerivedTable
    map: Any
    plus: Array
    rights: Elements
    reasons: dict[str, str]
    inferred: list[str]
    notes: list[str]
    filled: list[str]
    in_rows: Sequence[str] = ()

    @property
    def maps(self) -> list[Array]:
        """Return the left element of each right one, and, if some are added, the second one of each."""
        return [self.map, self.plus] if self.plus.any() else [self.map]

    def partners(self, lefts: Elements) -> dict[str, list[str]]:
        """Return the right parameters that each left one becomes, or is a term of."""
        maps, partners = self.maps, dict[str, list[str]]()
        for name in self.rights.names:
            owners = dict.fromkeys(owner for mapped in maps for owner in lefts.owners(self.rights.part(mapped, name)))
            for owner in owners:
                partners.setdefault(owner, []).append(name)
        return partners


def written(left: Left, best: Candidate, infer: bool = True) -> Written:
    """Complete the map of a match where no value was seen, and write it as lines.

    Args:
      infer: whether patterns and names place what no value shows; else it has no line.
    """
    match, a, b, lefts = best.found, left.side, best.side, left.elements
    rights = Elements(b.parameters, known=False)
    tapes = left.tape, best.exact
    known = not any(tape.reads_numbers for tape in tapes)  # else a parameter may be read as a number
    unread = [tape.unread() if known else [] for tape in tapes]
    mapped, inferred = complete(match.map, lefts, rights, not match.failure, unread)
    given = best.hint.right if best.hint else ()
    inferred = [name for name in inferred if name not in given and _placed(match.map, mapped, rights, name)]
    in_rows = read_in_rows(best.programs[1], match.map, rights, inferred)
    if not infer:
        mapped, inferred = rights.without(mapped, inferred), []
    mapped = straightened(left, mapped, match.plus, rights, given)
    if len(rights) > LARGE_MODEL:
        lefts.release()  # nothing reads their values from here on
    mapped, plus = _with_terms_in_order(mapped, match.plus)
    lone = without_counterpart(mapped, lefts, rights, unread)
    decided = match.outputs is not None or is_whole(mapped, rights, lone)
    blank, dead = _unread(best, lone if decided else [])
    partners = partners_of(a, b, mapped, lefts, rights)
    zeros = [name for name in rights.names if name not in given and (rights.part(mapped, name) < 0).any()]
    table, reasons = _folded(left, best, (mapped, plus), rights, partners, (blank, dead))
    filled = _constant(table, zeros) if zeros else []
    if len(rights) > LARGE_MODEL:
        match.map = mapped = Packed(mapped, rights)
        trim(now=True)
    only = [f"only on the right, where nothing reads it: {name}" for name in folded_names([*blank, *dead])]
    notes = [*untranslated(a, b, partners), *only]
    return Written(table, mapped, plus, rights, reasons, inferred, notes, filled, in_rows)


def _placed(found: Array, mapped: Array, rights: Elements, name: str) -> bool:
    """Tell whether completing a map has placed an element of a right parameter: rows beyond the left ones have none."""
    return bool(((rights.part(found, name) == 0) & (rights.part(mapped, name) != 0)).any())


def _with_terms_in_order(mapped: Array, plus: Array) -> tuple[Array, Array]:
    """Return both maps with the terms of each sum in the left model's order, so that those of all blocks are.

    Args:
      mapped, plus: see Match.
    """
    turned = (plus > 0) & (mapped > plus) if plus.any() else None
    if turned is None or not turned.any():
        return mapped, plus
    return np.where(turned, plus, mapped), np.where(turned, mapped, plus)


def _folded(
    left: Left, best: Candidate, maps: tuple[Array, Array], rights: Elements, partners: Mapping[str, Partner],
    unread: tuple[dict[str, float], list[str]],
) -> tuple[DerivedTable, dict[str, str]]:  # fmt: skip
    """Return (table, {right parameter that no line describes: why}).

    Args:
      maps: see Match. partners: see partners_of. unread: see _unread.
    """
    a, b, lefts, (blank, dead), (mapped, plus) = left.side, best.side, left.elements, unread, maps
    extra = [*lines_of(a, b, partners), *(dropped(name, 1) for name in dead)]
    made = {name for name in b.others if any(dict(row.right).get(escaped(name)) is not None for row in extra)}
    frameworks, others = (a.framework, b.framework), shapes_of(a, b, made)
    constants = best.hint.constants if best.hint else {}
    values = {**blank, **dict.fromkeys(_zeros(mapped, rights), 0.0), **constants}
    facts = Facts(lefts, rights, mapped, plus, frameworks, (a.ties, b.ties), others, extra, values, best.programs)
    table, reasons = fold(facts, best.hint)
    if best.hint:
        check_lines(best.hint, table, table.known, table.like)
    for name in [name for name, why in reasons.items() if why.startswith((PARTLY, NO_LINE))]:
        asked = name, best.found.map, lefts, rights
        reasons[name] = shifted(*asked) or parted(*asked) or reasons[name]
    if plain := of_one_number(a):
        why = f"{UNMATCHED}: {', '.join(plain)} has one value, which shows nothing: give random numbers"
        reasons = {name: why if text == UNMATCHED else text for name, text in reasons.items()}
    left_out = {**dict.fromkeys(best.exact.unread(), UNUSED), **best.left_out}
    reasons = {name: left_out.get(name, why) if why == UNMATCHED else why for name, why in reasons.items()}
    counted = {name: partner.name for name, partner in partners.items() if b.others[name].size == 1}
    counters = {name: a.others[name] for name in counted.values()}, {name: b.others[name] for name in counted}
    return replace(table, unread=counters), reasons


def of_one_number(side: Side) -> list[str]:
    """List the inputs of real numbers that have one value, as zeros that stand for an image: they show nothing."""
    arrays = side.call.arrays().items()
    return [label(path) for path, a in arrays if a.dtype.kind == "f" and a.size > 1 and of_one_value(a)]


def unseen(table: DerivedTable) -> list[Line]:
    """Return lines that drop parts of left arrays and put zeros there in reverse: biases of keys, which nothing shows.

    They stand beside lines that read the rest.
    """
    return [line for line in table.lines if line.arrow == "->" and line.left.constant]


def _constant(table: Table, names: Sequence[str]) -> list[str]:
    """Return those of these right arrays that lines set to a constant, all or a part: other zeros are terms of sums."""
    back = table.reverse()
    pairs = zip(back.lines, _named(back, names), strict=True)
    constant = set[str]().union(*(named for line, named in pairs if line.kind == "constant"))
    return [name for name in names if name in constant]


def _zeros(mapped: Array, rights: Elements) -> list[str]:
    """Return right parameters that are zero: biases of layers that have none on the left."""
    parts = {name: rights.part(mapped, name) for name in rights.names}
    negative = {name: part for name, part in parts.items() if part.size and part.flat[0] < 0}
    return [name for name, part in negative.items() if np.array_equal(part, -rights.numbers(name))]


def _unread(best: Candidate, lone: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Divide right parameters that correspond to nothing: (those of one value, the others)."""
    blank = {name: array for name in lone if of_one_value(array := best.side.parameters[name])}
    return {name: float(array.flat[0]) for name, array in blank.items()}, [name for name in lone if name not in blank]


def without_unknown(lines: Written, lefts: Elements, given: Hint | None, rows: Sequence[Unmatched]) -> DerivedTable:
    """Leave out lines that drop left arrays or set ranges to zero, but for those that the user gave.

    What has no partner yet may belong there. Ranges are left out if their model reads them in a use without a partner,
    as those of blocks that were not matched, or if right parameters without a line are made of their array.

    Args:
      rows: what has no partner.
    """
    table, own = lines.table, {str(line) for line in given.table.lines} if given else set[str]()
    made = {name for name, rights in lines.partners(lefts).items() if not lines.reasons.keys().isdisjoint(rights)}
    read = [made, set[str]()]
    for row in rows:
        read[row.side == "right"].update(row.names if row.kind else ())
    named = zip(_named(table, table.known), _named(table.reverse(), table.like), strict=True)
    unknown = [line for line, names in zip(table.lines, named, strict=True) if _unknown(line, names, read)]
    known = tuple(line for line in table.lines if line not in unknown or str(line) in own)
    return replace(table, lines=known, whole=table)


def _named(table: Table, names: Collection[str]) -> list[set[str]]:
    """Return the names of the left side that each line speaks of."""
    matching = Matcher(table, names).match()
    groups = ([named for _, arrays in matching.groups(line) for named in arrays] for line in table.lines)
    return [{*chain(*(named.values() for named in group))} for group in groups]


def _unknown(line: Line, names: Sequence[set[str]], read: Sequence[set[str]]) -> bool:
    """Tell whether a line drops a left array or sets a range of a right one, though something may belong there.

    Args:
      names: those of each side that it speaks of. read: those of whose ranges some may belong to what has no line.
    """
    if line.kind == "drop" and line.left.arrays:
        return not line.left.arrays[0].windowed or not names[0].isdisjoint(read[0])
    ranges = line.kind == "constant" and any(array.windowed for array in line.right.arrays)
    return ranges and not names[1].isdisjoint(read[1])
