"""Tell in how many heads attention computes what a parameter reads, where both sides have other numbers."""

from __future__ import annotations

from collections.abc import Sequence

from parity.derive.match.symbols import Use
from parity.derive.trace.axis_roles import axis_roles

from .pairs import Pair, Run

HEADS = "number of heads"  # the kind of this cause


def unlike_heads(left: Run, right: Run, pairs: Sequence[Pair], at: int) -> tuple[str, int]:
    """Return ("2 heads on the left, 4 on the right", how many layers differ so); ("", 0) where they do not.

    Args:
      pairs: uses of both sides. at: the first at which they part.
    """
    counts = _heads(left, pairs[at].left), _heads(right, pairs[at].right)
    if not all(counts) or counts[0] == counts[1]:
        return "", 0
    alike = sum((_heads(left, pair.left), _heads(right, pair.right)) == counts for pair in pairs[at:])
    one, other = counts
    return f"{one} head{'s' * (one > 1)} on the left, {other} on the right", alike


def _heads(run: Run, use: Use | None) -> int:
    """Count the heads whose results a product reads in one row; 0 where they are none of attention."""
    if use is None or use.kind != "product":
        return 0
    counts = [0]
    for name in run.elements.owners(use.ids):
        for axis in range(len(run.elements.shapes[name])):
            roles = axis_roles(run.program, name, axis)
            counts.append(len(set(roles.heads)) if not roles.readers else 0)
    return max(counts)
