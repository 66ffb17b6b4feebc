"""Tell in how many heads attention computes what a layer reads, where both sides have other numbers."""

from __future__ import annotations

from collections.abc import Sequence

from parity.derive.edits.edit import two_sided
from parity.derive.edits.texts import Words
from parity.derive.match.symbols import Use
from parity.derive.trace.axis_roles import head_count
from specs.words import count

from .pairs import Pair, Run

HEADS = "number of heads"  # the kind of this cause


def unlike_heads(left: Run, right: Run, pairs: Sequence[Pair], at: int) -> tuple[Words | None, int]:
    """Return ("2 heads on the left, 4 on the right", how many layers differ so); (None, 0) where they do not.

    Args:
      pairs: uses of both sides. at: the first at which they part.
    """
    counts = _heads(left, pairs[at].left), _heads(right, pairs[at].right)
    if not all(counts) or counts[0] == counts[1]:
        return None, 0
    alike = sum((_heads(left, pair.left), _heads(right, pair.right)) == counts for pair in pairs[at:])
    one, other = counts
    return Words(two_sided(count(one, "head"), str(other)), both=(str(one), str(other))), alike


def _heads(run: Run, use: Use | None) -> int:
    """Count the heads whose results a product reads in one row; 0 where they are none of attention."""
    if use is None or use.kind != "product":
        return 0
    return head_count(run.program, run.program.tape.nodes[use.node])
