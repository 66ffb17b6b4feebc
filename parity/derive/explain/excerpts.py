"""Run both sides from a few uses before they part, on the values that reach these: a fraction of a deep model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.derive.edits.edit import Edit
from parity.derive.prove.pairs import Mapped, Pair, Run, pairs, parting, run
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Tape

SAME = 1e-6  # relative difference of two sizes of one difference that rounding explains


class Excerpt(NamedTuple):
    """Both sides from certain operations on.

    Args:
      firsts: the operation of each side with which it begins, counted in the whole tape.
      ends: of each side, the result of the use that reads what parts, which does not count; None for the outputs.
      at: the pair of its uses at which the sides part.
    """

    sides: tuple[Run, Run]
    firsts: Sequence[int]
    ends: Sequence[int | None]
    at: int

    def edited(self, edit: Edit, whole: Run) -> Tape | None:
        """Return its tape of a side with an edit of the whole one; None where this changes or reads what is before it.

        Args:
          whole: that side.
        """
        first, end, part = self.firsts[edit.side], self.ends[edit.side], self.sides[edit.side]
        if any(at < first for at in edit.nodes(whole.tape)):
            return None
        tape = _cut(edit.tape(whole.tape), whole, first, end, part.tape.inputs)
        if tape is None:
            return None
        known = {*tape.inputs, *tape.constants, *tape.parameters.values(), *(node.output for node in tape.nodes)}
        return tape if all(known.issuperset(node.inputs) for node in tape.live().nodes) else None


def excerpt(sides: tuple[Run, Run], firsts: Sequence[int], mapped: Mapped, parted: Pair, last: Pair) -> Excerpt | None:
    """Return both sides from certain operations to where they part; None where this is all, or they part elsewhere.

    A side may have computed the use at which they part before those that agree, as one direction of a recurrence.

    Args:
      parted: the first pair of uses that parts.
      last: where both sides end: the same pair; behind a term of a sum, what reads that.
    """
    uses = last.left, last.right
    every = zip((parted.left, parted.right, *uses), (*firsts, *firsts), strict=True)
    if not all(firsts) or any(use and use.node < first for use, first in every):
        return None
    ends = [side.tape.nodes[use.node].output if use else None for side, use in zip(sides, uses, strict=True)]
    one, other = (_part(side, firsts[k], ends[k]) for k, side in enumerate(sides))
    own = list(pairs(one, other, mapped))
    at = parting(own, other)
    if at is None or abs(own[at].gap - parted.gap) > SAME * parted.gap:
        return None
    return Excerpt((one, other), firsts, ends, at)


def _part(side: Run, first: int, end: int | None) -> Run:
    """Run a side from an operation on; what it reads from before are its inputs."""
    whole = side.tape
    behind = {number for node in whole.nodes[first:] for number in node.inputs}.union(whole.outputs)
    made = {node.output for node in whole.nodes[first:]}
    inputs = sorted(behind & side.program.active - made)
    before = Program(replace(whole, nodes=whole.nodes[:first], outputs=inputs), side.weights, side.inputs)
    tape = _cut(whole, side, first, end, inputs)
    assert tape is not None
    return run(tape, side.weights, before.outputs, side.side)


def _cut(tape: Tape, side: Run, first: int, end: int | None, inputs: Sequence[int]) -> Tape | None:
    """Return a side's tape, edited or not, from an operation on; None where the end is not in it.

    Args:
      end: the value that ends it, and is not computed; None for the outputs.
    """
    before = {node.output for node in side.tape.nodes[:first]} & side.program.active
    part = tape if end is None else tape.until(end)
    if part is None:
        return None
    nodes = [node for node in part.nodes if node.output not in before]
    outputs = part.outputs
    if end is not None:
        result = np.zeros(side.program.shapes[end])
        nodes[-1], outputs = nodes[-1]._replace(run=lambda *_: result), [end]
    return replace(part, nodes=nodes, inputs=list(inputs), outputs=outputs)
