"""Write what supports a derived Table, and what it leaves out, as comments above its first line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from convert.folding import fold as folded_names
from specs.claims import LENGTHS, MISSING, PROVEN, UNFINISHED, UNPROVEN
from specs.numerals import limit, short
from specs.words import count

from .fold.buffers import VALUED, Partner
from .fold.followed import behind_lists
from .fold.rows import DerivedTable, missing_lines
from .fold.this_depth import REFUSED, this_depth
from .prove.prove import Proof
from .trace.sides import Side

INFERRED = "inferred, as these inputs do not read all of it (rows of a table that no token reads, say)"
DOUBTFUL = "a partner was taken though values differ there, check the line"


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
    for of, which in ((left, "left"), (right, "right")):
        notes += [f"kept at the {which} model's own state, as no array: {name}" for name in folded_names(of.extra)]
    return notes


def agreeing(error: float) -> str:
    return f"agree to {limit(error)}" if error else "are equal"


def commented(
    table: DerivedTable,
    proof: Proof,
    proven: bool,
    inferred: Sequence[str],
    doubtful: Sequence[str],
    reasons: Mapping[str, str],
    notes: Sequence[str],
) -> DerivedTable:
    """Return the table with what supports it above its first line; `notes` come last.

    Args:
      inferred: parameters of which no value shows all. doubtful: those that were taken where values differ.
    """
    if not table.lines:
        return table
    if proven:
        gradients = (
            f", no gradients ({proof.remark})" if proof.gradient is None else f", gradients {agreeing(proof.gradient)}"
        )
        words = f"{PROVEN} outputs {agreeing(proof.exact)}{gradients}, in float64 on two other draws"
    else:
        how = f"differ by {short(proof.error)}" if not proof.incomparable else f"are {proof.incomparable}"
        if proof.gradient is not None and proof.gradient > proof.limit:
            how += f", and gradients by {short(proof.gradient)}"
        words = f"{UNPROVEN} outputs {how if np.isfinite(proof.error) else 'cannot be compared'}"
    comments = [words]
    if reasons:
        what = count(len(reasons), "parameter")
        comments = [f"{UNFINISHED} {what} of the right model without a line: add lines, and remove this comment", words]
        comments += [f"{MISSING} {line}" for line in missing_lines(reasons)]
    if table.sizes:
        sizes = " ".join(f"{name}={length}" for name, length in table.sizes.items())
        if unchecked := table.unchecked():
            comments.append(
                f"# no shape of either side shows the lengths of {', '.join(unchecked)}: give the right ones"
            )
        comments.append(f"{LENGTHS} {sizes}")
    parts = {str(p) for line in table.lines for a in line.arrays for p in a.parts() if p.length and not p.backwards}
    if parts:
        comments.append(f"# lines with {' or '.join(sorted(parts))} fit no other length: files of others are refused")
    if blocks := folded_names(this_depth(table)):
        comments.append(f"# for this depth alone: {', '.join(blocks)}: {REFUSED}")
    comments += [f"# fixed to lists of this length: {text}" for text in behind_lists(table)]
    comments += [f"# {INFERRED}: {name}" for name in folded_names(inferred)]
    comments += [f"# {DOUBTFUL}: {name}" for name in folded_names(doubtful)]
    if proof.unobservable:
        which = ", ".join(folded_names(proof.unobservable))
        comments.append(f"# unobservable, outside the proof, as no output depends on it with these inputs: {which}")
    if proof.untold:
        which = ", ".join(folded_names(proof.untold))
        comments.append(f"# not told in time whether outputs depend on it, as its gradient is zero: {which}")
    comments += [f"# {note}" for note in (*(f"kept in the proof: {text}" for text in proof.kept), *notes)]
    first = replace(table.lines[0], above=tuple(comments), number=0)  # so that lines are numbered as in the file
    return replace(table, lines=(first, *table.lines[1:]))
