"""Tell in how many heads attention computes what a layer reads, where both sides have other numbers.

At a place where models part, heads are those of queries. Of models that were not matched up to there, each attention is
compared with that of the same turn: its heads of queries, and those of keys and values, of which several may be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.derive.edits.edit import two_sided
from parity.derive.edits.texts import Words
from parity.derive.match.symbols import Use
from parity.derive.prove.pairs import Pair, Run
from parity.derive.trace.axis_roles import attention
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Tape
from specs.words import count

HEADS = "number of heads"  # the kind of this cause


def unlike_heads(left: Run, right: Run, pairs: Sequence[Pair], at: int) -> tuple[Words | None, list[str]]:
    """Return ("2 heads on the left, 4 on the right", the right modules that differ so); (None, []) where none does.

    Args:
      pairs: uses of both sides. at: the first at which they part.
    """
    counts = _heads(left, pairs[at].left), _heads(right, pairs[at].right)
    if not all(counts) or counts[0] == counts[1]:
        return None, []
    heads = ((pair, (_heads(left, pair.left), _heads(right, pair.right))) for pair in pairs[at:])
    alike = [right.site(pair.right) for pair, both in heads if both == counts]
    one, other = counts
    return Words(two_sided(count(one, "head"), str(other)), both=(str(one), str(other))), alike


def _heads(run: Run, use: Use | None) -> int:
    """Count the heads whose results a product reads in one row; 0 where they are none of attention."""
    if use is None or use.kind != "product":
        return 0
    attended = attention(run.program, run.program.tape.nodes[use.node])
    return attended.heads if attended else 0


def head_counts(tape: Tape, weights: Mapping[str, Array], inputs: Sequence[Array]) -> list[tuple[int, int]]:
    """Return (heads of queries, heads of keys and values) of each attention of a tape, in its order.

    Args:
      weights: random ones, so that values that are equal are those of one head.
    """
    program = Program(tape, weights, inputs)
    every = [attended for node in program.tape.nodes if (attended := attention(program, node)) and attended.heads > 1]
    values = Program(replace(program.tape, outputs=[attended.values for attended in every]), weights, inputs).outputs
    counts = list[tuple[int, int]]()
    for attended, value in zip(every, values, strict=True):
        own = value[[*attended.products]].reshape(len(attended.products), -1)
        counts.append((attended.heads, len(np.unique(own, axis=0))))
    return counts


def built_unlike(left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> str:
    """Say which numbers of heads of both models differ; "" where none does, or where they have other attentions."""
    if len(left) != len(right):
        return ""
    both = [*zip(left, right, strict=True)]
    for k, what in enumerate(("", " of keys and values")):  # of keys, where there are as many of queries
        for one, other in ((one[k], other[k]) for one, other in both):
            if one != other:
                return f"the left model has {count(one, 'head')}{what} where the right one has {other}"
    return ""
