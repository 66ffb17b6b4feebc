"""Write the commands that convert checkpoints by a saved Table, and say what each asks for and refuses."""

from __future__ import annotations

import shlex

from convert.errors import called
from convert.folding import listed
from parity.derive.fold.rows import DerivedTable
from specs.words import count, in_a_row

from .ranges import dropped_ranges, filled_ranges


def converting(table: DerivedTable, out: str) -> list[tuple[str, str]]:
    """Return (what it does, the command) of each direction in which a saved Table converts checkpoints.

    Each asks for the lengths that no shape of its own source shows: of arrays that the source lacks, by a file of the
    target, since the real model may have others there than the small one.
    """
    command = f"{called('convert')} {shlex.join(['--table', out])} CKPT -o OUT"
    sides = {"left": ("", table), "right": (" --reverse", table.reverse())}
    return [
        (f"to convert a checkpoint of the {side} model{_needed(row, other)}", command + "".join([way, *_lengths(row)]))
        for (side, (way, row)), other in zip(sides.items(), reversed(sides), strict=True)
    ]


def _needed(table: DerivedTable, side: str) -> str:
    """Say what NEW is in the command, or name an array that has each axis whose length it asks for, and that length."""
    if names := table.of_right_alone():
        return f", where NEW is a file of a new {side} model, for the size of {listed(names)}{_refused(table)}"
    here = {name: f" ({table.sizes[name]} here)" if name in table.sizes else "" for name in table.lengths()}
    axes = [f"{name}{size} is an axis of {table.array_with(name)}" for name, size in here.items()]
    return f", where {in_a_row(axes)}{_refused(table)}" if axes else _refused(table)


def _refused(table: DerivedTable) -> str:
    """Say which checkpoints a conversion refuses for ranges that one model lacks: longer ones, and other values."""
    lengths = {
        f"{each.array.label} has other than {count(each.of, each.noun)}" for each in dropped_ranges(table) if each.fixed
    }
    values = [f"{each.array.label} has other values than 0 in {each.dim}" for each in filled_ranges(table.reverse())]
    return f", refused where {' or where '.join([*lengths, *values])}" if lengths or values else ""


def _lengths(table: DerivedTable) -> list[str]:
    return [" --like NEW"] if table.of_right_alone() else [f" --set {name}=..." for name in table.lengths()]
