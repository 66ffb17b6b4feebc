"""List tables whose rows the right side alone adds, such as types of tokens or a second one of positions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from parity.derive.edits.affine import added_tables
from parity.derive.match.choices import Step
from parity.derive.trace.program import Program
from parity.derive.trace.reason import OneSided

from .chosen import beside_owner


def one_sided_tables(
    steps: Sequence[Step], program: Program, missing: Collection[str], free: Collection[tuple[int, ...]]
) -> dict[str, OneSided]:
    """Return right tables that are read only to add their rows, and that the left side lacks, each with the reason.

    Such a table has no partner, or that of another table of the same sum: the one with the left parameter's name keeps
    it, or else the one that is read first.

    Args:
      program: the right side. missing: right parameters without a partner.
      free: the shapes of left parameters without a partner: one of these may be the partner of a table of its shape.
    """
    sums = dict[tuple[int, tuple[str, ...]], dict[tuple[str, ...], None]]()
    for step in steps:
        if step.kind == "place":
            sums.setdefault((_sum_of(program, step.node), step.left), {})[step.right] = None
    second = [name for (_, left), names in sums.items() for name in beside_owner(left, names)]
    shapes = {name: program.shapes[program.tape.parameters[name]] for name in added_tables(program)}
    alone = [name for name in (*second, *missing) if name in shapes and shapes[name] not in free]
    return {name: OneSided(f"the right adds {name}, the left does not", "add", len(shapes[name])) for name in alone}


def _sum_of(program: Program, at: int) -> int:
    """Return the value of the sum to which an operation's result is added, with all terms; itself if to none."""
    value = program.tape.nodes[at].output
    while (reader := program.only_reader(value)) and (node := program.tape.nodes[reader[0]]).kind in ("add", "layout"):
        value = node.output
    return value
