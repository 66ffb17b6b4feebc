"""Report running statistics that a training updates otherwise in the target's framework than in the source's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convert.documents import document
from convert.plans.plan import Plan
from convert.reading.families import FRAMEWORK
from specs.kinds import FRAMEWORKS, KINDS, LIBRARIES, UNBIASED, VARIANCE
from specs.words import count

if TYPE_CHECKING:
    from convert.table.plan import TablePlan


def _names(framework: str) -> set[str]:
    """Return what the libraries of a framework call a running variance."""
    kind, leaf = VARIANCE
    stored = (KINDS[kind].leaves[library][leaf] for library in LIBRARIES[framework])
    return {leaf.name for leaf in stored if leaf is not None}


ROUNDING = "paddle"  # rounds epsilon and momentum of norms to float32, see CONVENTIONS.md
NAMES = {framework: _names(framework) for framework in FRAMEWORKS}


def remarks(plan: Plan | TablePlan, source: str, target: str) -> list[str]:
    """Return what both libraries do differently with the running statistics of the model, if it has any.

    Args:
      source, target: libraries of the optimizers, of `families.FRAMEWORK`.
    """
    sides = (FRAMEWORK[source], FRAMEWORK[target])
    own = [t.dtype for t, _ in plan.steps if re.split(r"[./]", t.name)[-1] in NAMES[sides[1]]]
    if not own or sides[0] == sides[1]:
        return []
    norms, page, lines = count(len(own), "BatchNorm"), f"({document('training')}, BatchNorm)", []
    unbiased, others = [side for side in sides if side in UNBIASED], [side for side in sides if side not in UNBIASED]
    if unbiased and others:
        effect = f"weights train alike, outputs in evaluation mode do not {page}"
        lines.append(f"{_updates(unbiased[0], others[0])}, in {norms}: {effect}")
    if ROUNDING in sides and "float64" in own:
        apart = "running statistics part by about 1e-7 of themselves, unless float32 holds both"
        lines.append(f"{ROUNDING} rounds epsilon and momentum of norms to float32, in {norms}: {apart} {page}")
    return lines


def apart(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a remark where nothing but running variances differs in files of two such libraries.

    Args:
      entries: of two files, see `array_differences.entry`.
    """
    if any(entry["kind"] != "value" for entry in entries):
        return []
    sides = {_framework(entry[side]) for entry in entries for side in ("a", "b")}
    unbiased, others = sorted(sides & UNBIASED), sorted(sides - UNBIASED)
    if "" in sides or not unbiased or len(others) != 1:
        return []
    page = f"{document('training')}, BatchNorm"
    return [f"running variances alone differ, as training leaves them: {_updates(unbiased[0], others[0])} ({page})"]


def _framework(names: Sequence[str]) -> str:
    """Return the framework that calls a running variance so; "" of any other array."""
    leaves = {re.split(r"[./]", name)[-1] for name in names}
    return next((framework for framework, own in NAMES.items() if leaves and leaves <= own), "")


def _updates(unbiased: str, other: str) -> str:
    return f"{unbiased} updates running variances with n / (n - 1) times what {other} does, n = batch x positions"
