"""Describe the steps of a plan: for programs one by one, for people with alike ones folded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from convert.arrays.steps import ConstantFilling, Copied, Filling, Steps, Sum, sources_of
from convert.folding import summarised
from convert.reading.readings import normal
from convert.terminal import table
from specs.moves import Move


def described(plan: Steps) -> Iterator[dict[str, Any]]:
    """Yield a target tensor with its sources, and how they fill it."""
    for tensor, filling in plan.steps:
        sources = sources_of(filling)
        yield {
            "target": tensor.name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype,
            "sources": sources,
            "how": _how(filling),
        }


def _how(filling: Filling) -> str:
    if isinstance(filling, ConstantFilling):
        return f"constant {filling.value}"
    if isinstance(filling, Copied):
        return f"copied from {os.path.basename(filling.reader.path)}"
    if isinstance(filling, Sum):
        return f"sum of {len(filling.terms)}"
    moves = [part for part in filling if isinstance(part, Move)]
    move = moves[0]
    if move.copies:
        return "copy"
    part = any(isinstance(s, int) or (isinstance(s, slice) and s != slice(None)) for s in move.select)
    words = {
        f"{len(moves)} joined": len(moves) > 1,
        "constants": len(moves) < len(filling),
        "sliced": part,
        "reordered": any(isinstance(s, tuple) for s in move.select),
        f"axes {list(move.order)}": list(move.order) != sorted(move.order),
    }
    return ", ".join(word for word, is_so in words.items() if is_so) or "reshaped"


def folded(plan: Steps) -> list[str]:
    """Return a table with a row for each group of tensors that are named and filled alike, but for numbers."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for step in described(plan):
        groups.setdefault((normal(step["target"]), str(step["shape"]), step["how"]), []).append(step)
    rows = []
    for (_, shape, how), steps in groups.items():
        sources = [name for step in steps for name in step["sources"]]
        targets = summarised(step["target"] for step in steps)
        rows.append((targets, shape, how, f"<- {summarised(sources)}" if sources else ""))
    return table(("target", "shape", "how", "<- source"), rows, stacked=True)
