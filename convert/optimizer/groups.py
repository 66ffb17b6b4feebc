"""Keep torch's groups of parameters, whose hyperparameters differ; other libraries have one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convert import folding
from convert.arrays.steps import sources_of
from convert.documents import document
from convert.errors import ConvertError, UsageError
from convert.plans.plan import Plan
from convert.reading.families import CLASSES, HYPERPARAMETERS, KINDS

from .settling import unstated
from .state import State

if TYPE_CHECKING:
    from convert.table.plan import TablePlan

SWITCHES = ("fused", "foreach", "capturable", "differentiable")  # how torch computes steps
OPTIONS = {  # what torch's own optimizers have in their groups, by family; schedulers add initial_lr
    "adam": ("amsgrad", "betas", "decoupled_weight_decay", "eps", "step"),  # apex counts steps here
    "sgd": ("dampening", "momentum", "nesterov"),
}
ALWAYS = {"adam": "amsgrad", "sgd": "dampening"}  # those of them that torch's own always have
ALIKE = {"adam": "RAdam those of Adam", "sgd": "LARS those of SGD"}  # others that keep the same arrays
EVERY = ("params", "param_names", "lr", "initial_lr", "weight_decay", "maximize", *SWITCHES)  # of both families
SCHEDULERS = ("swa_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")  # what other schedulers add


def other_options(
    path: str, family: str, groups: Sequence[Mapping[str, Any]], stated: Mapping[str, Any]
) -> tuple[list[str], bool]:
    """Report options that torch's own optimizers lack, and that all groups have alike: they are set aside.

    Another optimizer may keep the same arrays, as LARS those of SGD, and numbers among these options be its own, or
    options of torch's own be missing.
    Returns: notes, and whether that is so: then the kind is the user's word alone.
    Raises: UsageError where it is so, unless the user states the kind.
    """
    others = {
        key: value
        for key, value in groups[0].items()
        if key not in (*OPTIONS[family], *EVERY)
        and value is not None
        and all(group.get(key) == value for group in groups)
    }
    numbers = [key for key, value in others.items() if key not in SCHEDULERS and not isinstance(value, str)]
    lacking = ALWAYS[family] not in groups[0]
    if (numbers or lacking) and "kind" not in stated:
        kinds = [kind for kind, its in KINDS.items() if its == family]
        classes = " or ".join(CLASSES[kind].torch for kind in kinds)
        remedy = " or ".join(f"kind={kind}" for kind in kinds)
        unlike = [f"have {folding.listed(numbers)}, which {classes} does not have"] if numbers else []
        unlike += [f"have no {ALWAYS[family]}, which {classes} has"] if lacking else []
        what = f"its param_groups {', and '.join(unlike)}"
        why = f"another optimizer may keep the same arrays, as {ALIKE[family]}"
        raise UsageError(f"{path}: {what}: {why}: if it is none, state --hyper {remedy}")
    what = "set aside, of the optimizer's groups of parameters"
    return [f"{what}: {folding.listed(list(others))}"] if others else [], bool(numbers) or lacking


def check(path: str, state: State, library: str) -> list[str]:
    """Check that a target holds groups of parameters; return a note on names of groups, which it has no place for.

    Raises: UsageError for what the user may state, else ConvertError with a way on.
    """
    if library == "torch":
        return []
    trained = [group.values for group in state.groups if group.parameters]
    unlike = [key for key in unstated(state) if any(each.get(key) != trained[0].get(key) for each in trained)]
    labels = [key for key in unlike if all(isinstance(each.get(key, ""), str) for each in trained)]
    if others := [key for key in unlike if key not in labels]:
        problem = f"{path}: its {len(state.groups)} groups of parameters differ in {', '.join(others)}"
        shown = f"{document('training')} shows how its users exempt parameters"
        error = UsageError if any(name in HYPERPARAMETERS for name in unstated(state)) else ConvertError
        raise error(f"{problem}: {library} keeps one of each: {alike(state)}; {shown}")
    what = "set aside, of the optimizer's groups of parameters, which are alike but for these"
    return [f"{what}: {', '.join(labels)}"] if labels else []


def alike(state: State) -> str:
    """Say how a user makes groups of parameters alike."""
    stated = " ".join(f"--hyper {name}=..." for name in unstated(state) if name in HYPERPARAMETERS)
    return f"{stated} states one for all" if stated else "make the optimizer's groups alike"


def regrouped(
    plan: Plan | TablePlan, state: State, trained: Sequence[str]
) -> list[tuple[list[str], Mapping[str, Any]]]:
    """Return the target's weights by the groups of their sources. Raises: ConvertError where one has sources of two."""
    number_of = {name: number for number, group in enumerate(state.groups) for name in group.parameters}
    members: list[list[str]] = [[] for _ in state.groups]
    sources = {tensor.name: sources_of(filling) for tensor, filling in plan.steps}
    for weight in trained:
        numbers = {number_of[name] for name in sources[weight] if name in number_of}
        if len(numbers) != 1:
            where = f"joins parameters of {len(numbers)} groups" if numbers else "has no source that is in a group"
            raise ConvertError(f"{plan.reader.path}: {weight} {where}: {alike(state)}")
        members[numbers.pop()].append(weight)
    return [(names, group.values) for names, group in zip(members, state.groups, strict=True)]
