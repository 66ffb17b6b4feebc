"""Describe the steps of a plan: for programs one by one, for people with alike ones folded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from convert.arrays.steps import Computed, ConstantFilling, Copied, Filling, Steps, Sum, sources_of
from convert.folding import SHOWN, fold, summarised
from convert.terminal import table
from specs.applied.moves import Move

_LEVELS = re.compile(r"(?:\{[^}]*\}|[^./{])+|[./]")  # of a folded name, and what separates them


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
    if isinstance(filling, Computed):
        return "computed from the configuration"
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


def _form(name: str) -> str:
    """Return a name with # for its first number, and for each that is a level: norm1 and norm2 of a block differ."""
    first, number, rest = re.fullmatch(r"(\D*)(\d*)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return first + "#" * bool(number) + re.sub(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])", "#", rest)


def _in_one(names: list[str]) -> str:
    """Return names that differ in one level, numbers aside, as one: layers.{0..4}.{q,k,v}.weight; "" for others."""
    levels = [_LEVELS.findall(name) for name in fold(names)]
    if len(levels) < 2 or len(set(map(len, levels))) > 1:
        return ""
    columns = [list(dict.fromkeys(column)) for column in zip(*levels, strict=True)]
    if sum(len(column) > 1 for column in columns) != 1 or max(map(len, columns)) > SHOWN:
        return ""
    return "".join(column[0] if len(column) == 1 else "{" + ",".join(column) + "}" for column in columns)


def folded(plan: Steps) -> list[str]:
    """Return a table with a row for each group of tensors that are named and filled alike, numbers of blocks aside."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for step in described(plan):
        names = (_form(name) for name in (step["target"], *step["sources"]))
        groups.setdefault((str(step["shape"]), step["how"], *names), []).append(step)
    rows = []
    for (shape, how, *_), steps in groups.items():
        sources = [name for step in steps for name in step["sources"]]
        targets = summarised(step["target"] for step in steps)
        rows.append((targets, shape, how, f"<- {_in_one(sources) or summarised(sources)}" if sources else ""))
    return table(("target", "shape", "how", "<- source"), rows, stacked=True)
