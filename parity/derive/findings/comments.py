"""Write what supports a derived Table, and what it leaves out, as comments above its first line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from convert.folding import fold as folded_names
from convert.folding import listed
from parity.derive.fold.blocks import folded
from parity.derive.fold.buffers import VALUED, Partner
from parity.derive.fold.rows import DerivedTable, constant, missing_lines
from parity.derive.limits import EQUAL_GRADIENTS, EQUAL_OUTPUTS
from parity.derive.trace.outputs import differ_by
from parity.derive.trace.reason import LINE, OneSided, remedy
from parity.derive.trace.sides import Side
from specs.notation.axes import Dim
from specs.notation.claims import LENGTHS, MISSING, PROVEN, REASON, UNFINISHED, UNPROVEN
from specs.numbers import short
from specs.words import count, in_a_row

from .evidence import Evidence
from .orders import AGAIN, is_fixed
from .remarks import exceptions, remarks

MOST_LINES = 3  # that a remedy quotes
ADD = "add the lines that are missing, and remove this comment"


def untranslated(left: Side, right: Side, partners: Mapping[str, Partner]) -> list[str]:
    """Return a comment for each array that keeps its model's own values: masks and tables, which no line translates.

    Single integers are left out: they are counters, which nothing reads.

    Args:
      partners: the arrays of integers that have a line.
    """
    taken = {partner.name for partner in partners.values()}, set(partners)
    notes = list[str]()
    for kinds in ("f", VALUED):
        names = [
            [
                name
                for name, array in side.others.items()
                if array.dtype.kind in kinds and name not in done and (array.size > 1 or kinds == "f")
            ]
            for side, done in zip((left, right), taken, strict=True)
        ]
        why = (
            "as masks and tables are, and not translated" if all(names) else "since the other side has no array for it"
        )
        notes += [f"kept at the model's own values, {why}: {name}" for each in names for name in folded_names(each)]
    for own, which in ((left, "left"), (right, "right")):
        notes += [f"kept at the {which} model's own state, as no array: {name}" for name in folded_names(own.extra)]
    return notes


def agreeing(error: float) -> str:
    return f"agree to {short(error)}" if error else "are equal"


def agreeing_gradients(gradient: float, lower: bool = False) -> str:
    """Say how far gradients of a proof agree, and that they are those of lower precision where rounding shows.

    Args:
      gradient: their difference. lower: whether a model is known to compute in lower precision.
    """
    lower = lower or gradient > EQUAL_GRADIENTS
    return f"gradients {agreeing(gradient)}{', as the models compute, partly in lower precision' * lower}"


def commented(evidence: Evidence, why: str, notes: Sequence[str]) -> DerivedTable:
    """Return the Table of a derivation with what supports it above its first line; `notes` come last.

    Args:
      why: nothing is proven, in one line; "" where the verdict says it.
    """
    table = evidence.table
    if not table.lines:
        return table
    comments = [_verdict(evidence), *([f"{REASON} {why}"] if why else [])]
    if evidence.missing:
        what = f"{count(len(evidence.missing), 'array')} of the right model without a line"
        advice = [text or ADD for text in remedies(evidence.reasons)]
        comments.insert(0, f"{UNFINISHED} {what}: {'; or '.join(advice)}")
        comments += [f"{MISSING} {line}" for line in missing_lines(evidence.reasons)]
    if lengths := _lengths(table):
        comments.append(f"{LENGTHS} {lengths}")
    if numbers := _stated_lengths(table):
        comments.append(f"# {' and '.join(numbers)}: stated, as the models' code has this number, whatever the width")
    if fixed := _fixed_lengths(table):
        comments.append(f"# for these lengths alone: {in_a_row(fixed)}: {AGAIN}")
    noted = (remark.text for remark in remarks(evidence) if remark.noted)
    comments += [f"# {note}" for note in (*exceptions(evidence), *noted, *notes)]
    first = replace(table.lines[0], above=tuple(comments), number=0)  # so that lines are numbered as in the file
    return replace(table, lines=(first, *table.lines[1:]))


def remedies(reasons: Mapping[str, str]) -> list[str]:
    """List what to do about right parameters without a partner, "" of those of which nothing is known.

    Where a constant has the same effect as leaving each out, the remedy has the lines that set these.
    """
    alone = {name: why for name, why in reasons.items() if isinstance(why, OneSided)}
    known = [(name, why.rank, why.neutral) for name, why in alone.items() if why.rank is not None and why.neutral]
    lines = constants(known)
    exact = in_a_row(lines) if len(known) == len(alone) and len(lines) <= MOST_LINES else LINE
    return list(dict.fromkeys(remedy(why).replace(LINE, exact) for why in reasons.values()))


def constants(some: Iterable[tuple[str, int, str]]) -> list[str]:
    """Quote the lines that set right parameters, each with its number of axes, to one value each."""
    return [f"`{row}`" for row in folded([constant(*each) for each in some])]


def _lengths(table: DerivedTable) -> str:
    """List the lengths that a conversion asks for, with the lines they are of: letters have others on other lines."""
    lines, groups = (table.whole or table).open_lines(), dict[str, list[str]]()
    for name, length in table.sizes.items():
        if name in lines:
            groups.setdefault(listed(lines[name]), []).append(f"{name}={length}")
    return " ".join(f"{' '.join(some)} ({where})" for where, some in groups.items())


def _stated_lengths(table: DerivedTable) -> list[str]:
    """List the numbers of parts that lines state, as s=2, and a=1+b=1+e=1 for parts in another order."""
    factors = [factor for dim in _dims(table) if not is_fixed(dim) for factor in dim.factors]
    stated = [[str(p) for p in factor if p.length and not (p.backwards or p.window)] for factor in factors]
    return sorted({"+".join(texts) for texts in stated if texts and not set(texts) <= set(table.by_chance)})


def _fixed_lengths(table: DerivedTable) -> list[str]:
    """List the sums whose lengths are those of these models alone."""
    return list(dict.fromkeys(str(dim) for dim in _dims(table) if is_fixed(dim)))


def _dims(table: DerivedTable) -> Iterator[Dim]:
    """Yield each dimension of each array in the lines."""
    yield from (dim for line in table.lines for array in line.arrays for dim in array.axes or ())


def _verdict(evidence: Evidence) -> str:
    """Say by how much the models agree, or differ."""
    if evidence.proven:
        how = f", no gradients ({evidence.remark})"
        if evidence.gradient is not None:
            how = f", {agreeing_gradients(evidence.gradient, bool(evidence.lower))}"
        return f"{PROVEN} outputs {agreeing(evidence.exact)} in float64{how}, on two other draws"
    equal = evidence.error <= EQUAL_OUTPUTS
    how = agreeing(evidence.error) if equal else differ_by(evidence.error)
    how = f"are {evidence.incomparable}" if evidence.incomparable else how
    if evidence.gradient is not None and evidence.gradient > evidence.limit:
        how += f"{', but' if equal else ', and'} gradients differ by {short(evidence.gradient)} of their largest"
    if evidence.unshown:
        how += f", but not shown, as both models read it and no proof exchanges it: {', '.join(evidence.unshown)}"
    if not np.isfinite(evidence.error):
        how = f"cannot be compared{f' ({evidence.incomparable})' * bool(evidence.incomparable)}"
    return f"{UNPROVEN} outputs {how}"
