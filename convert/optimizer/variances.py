"""Report running variances that a training updates otherwise in the target's framework than in the source's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from convert.documents import document
from convert.plans import Plan
from specs.kinds import FRAMEWORKS, KINDS, LIBRARIES, UNBIASED, VARIANCE
from specs.words import count

from .families import FRAMEWORK

if TYPE_CHECKING:
    from convert.table_plan import TablePlan


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
    what = f"{unbiased[0]} updates running variances with n / (n - 1) times what {other} does, n = batch x positions"
    effect = f"weights train alike, outputs in evaluation mode do not ({document('training')}, BatchNorm)"
    return [f"{count(len(own), 'BatchNorm')}: {what}: {effect}"]
