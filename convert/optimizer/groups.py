"""Keep torch's groups of parameters, whose hyperparameters differ; other libraries have one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convert.arrays.steps import sources_of
from convert.documents import document
from convert.errors import ConvertError
from convert.plans.plan import Plan
from convert.reading.families import HYPERPARAMETERS

from .settling import unstated
from .state import State

if TYPE_CHECKING:
    from convert.table.plan import TablePlan


def check(path: str, state: State, library: str) -> None:
    """Check that a target holds groups of parameters. Raises: ConvertError with a way on."""
    unlike = unstated(state)
    problem = f"{path}: its {len(state.groups)} groups of parameters differ in {', '.join(unlike)}"
    if library != "torch":
        stated = " ".join(f"--hyper {name}=..." for name in unlike if name in HYPERPARAMETERS)
        shown = f"{document('training')} shows how its users exempt parameters"
        remedy = f"{stated} states one for all; {shown}" if stated else "make them alike"
        raise ConvertError(f"{problem}: {library} keeps one of each: {remedy}")


def of(plan: Plan | TablePlan, state: State, trained: Sequence[str]) -> list[tuple[list[str], Mapping[str, Any]]]:
    """Return the target's weights by the groups of their sources. Raises: ConvertError where one has sources of two."""
    number_of = {name: number for number, group in enumerate(state.groups) for name in group.parameters}
    members: list[list[str]] = [[] for _ in state.groups]
    sources = {tensor.name: sources_of(filling) for tensor, filling in plan.steps}
    for weight in trained:
        numbers = {number_of[name] for name in sources[weight] if name in number_of}
        if len(numbers) != 1:
            raise ConvertError(
                f"{plan.reader.path}: {weight} is of {len(numbers)} groups of the optimizer's parameters"
            )
        members[numbers.pop()].append(weight)
    return [(names, group.values) for names, group in zip(members, state.groups, strict=True)]
