"""Report running variances that a training updates otherwise in the target's framework than in the source's."""

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


NAMES = {framework: _names(framework) for framework in FRAMEWORKS}


def remarks(plan: Plan | TablePlan, source: str, target: str) -> list[str]:
    """Return a remark if the model has running variances and both libraries update them differently.

    Args:
      source, target: libraries of the optimizers, of `families.FRAMEWORK`.
    """
    sides = (FRAMEWORK[source], FRAMEWORK[target])
    unbiased = [side for side in sides if side in UNBIASED]
    own = [t.name for t, _ in plan.steps if re.split(r"[./]", t.name)[-1] in NAMES[sides[1]]]
    if not own or len(unbiased) != 1:
        return []
    (other,) = (side for side in sides if side not in UNBIASED)
    effect = f"weights train alike, outputs in evaluation mode do not ({document('training')}, BatchNorm)"
    return [f"{_updates(unbiased[0], other)}, in {count(len(own), 'BatchNorm')}: {effect}"]


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
