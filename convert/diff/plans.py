"""Plan the two files of a comparison: what one leaves open is the user's to state, or is taken from the other."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import islice, product
from types import MappingProxyType
from typing import Any, NamedTuple

from convert.config.conventions import same
from convert.config.settings import Settings
from convert.errors import ConvertError, OpenFields
from convert.plans import planning
from convert.plans.plan import Plan
from convert.records.record import likely
from specs.config import as_dict, tuples
from specs.dialects import HUB

# What an assumed value is taken from, unless it is a file.
RECORD, DEFAULT, LIKELY = "its record", "the default", "the official variant of these sizes"
NOBODY = "nobody"
MOST_TRIED = 16  # combinations of values of open fields


class TwoArchitectures(Exception):
    """Files of two architectures, of which one is not planned. Its arguments are the two."""


class Input(NamedTuple):
    """A file and the part of it to take; None finds the part."""

    path: str
    part: str | None


class Alone(NamedTuple):
    """What is known of one file without the other.

    Args:
      plan: without anything stated; None where that leaves open a field that nobody may assume.
      opened: fields that it leaves open, or that its record marks as assumed.
      stated: the plan with what the user states of those.
      still_open: those of `opened` that the user does not state.
      architecture: of the file.
      shown: fields that its arrays show, where there is no plan.
    """

    plan: Plan | None
    opened: tuple[str, ...]
    stated: Plan | None
    still_open: tuple[str, ...]
    architecture: str
    shown: Mapping[str, Any] = MappingProxyType({})


def plan_both(
    stack: contextlib.ExitStack, a: Input, b: Input, settings: Settings, assume: bool
) -> tuple[Plan, Plan, list[dict[str, Any]]]:
    """Plan both files; return the plans, and what is assumed of either.

    Raises: TwoArchitectures where files of two architectures leave fields open, whose values change nothing in that.
    """
    bare = [_as_it_is(stack, file) for file in (a, b)]
    if bare[0].architecture != bare[1].architecture and not all(alone.plan for alone in bare):
        raise TwoArchitectures(*(alone.architecture for alone in bare))
    one, two = (_with_stated(stack, file, alone, settings) for file, alone in zip((a, b), bare, strict=True))
    left, of_left = _plan_beside(stack, a, one, b, two, settings, assume)
    right, of_right = _plan_beside(stack, b, two, a, one, settings, assume)
    assumed = [*of_left, *of_right]
    if left.reading.which == right.reading.which:  # one code reads both files: it has one default for both
        both = set(one.opened).intersection(two.opened)
        assumed = [each for each in assumed if each["field"] not in both or each["from"] not in (DEFAULT, LIKELY)]
    return left, right, assumed


def _plan_beside(
    stack: contextlib.ExitStack, own: Input, known: Alone, other: Input, beside: Alone, settings: Settings, assume: bool
) -> tuple[Plan, list[dict[str, Any]]]:
    """Plan one file; return the plan and what is assumed of the file.

    What it leaves open is the user's to state, or else taken from the other file, if that knows it.

    Args:
      known: what is known of this file without the other. beside: of the other without this one.
    """
    theirs = {}
    if beside.plan:
        theirs = {name: v for name, v in as_dict(beside.plan.config).items() if name not in beside.opened}
    borrowed = {name: theirs[name] for name in known.still_open if name in theirs and name not in settings.assumed}
    plan, tried = known.stated, frozenset[str]()
    if plan is None or borrowed:
        origins = dict.fromkeys(borrowed, other.path)
        values = {**_of_open(settings, known), **borrowed}
        plan, tried = _tried(stack, own, settings._replace(values=values, others=origins), assume, beside.plan)
    sources = {name: _source(name, known, settings, other.path if name in borrowed else "") for name in known.opened}
    sources |= dict.fromkeys(tried, other.path if beside.plan else NOBODY)
    names = _material(plan, known.opened)
    return plan, [_assumption(plan, own.path, name, known, sources[name]) for name in names]


def _tried(
    stack: contextlib.ExitStack, file: Input, settings: Settings, assume: bool, other: Plan | None
) -> tuple[Plan, frozenset[str]]:
    """Plan a file and, where fields are still open, try values of them: arrays can be compared all the same.

    Returns: the plan and the names of the fields whose values were tried.
    Args:
      other: the plan of the other file, whose values come first.
    Raises: OpenFields where a field has neither a list of values nor a default, or none of these fits.
    """
    try:
        return stack.enter_context(_plan(file, settings, assume)), frozenset()
    except OpenFields as error:
        theirs = as_dict(other.config) if other else {}
        own = {name: [theirs[name]] if name in theirs else error.choices.get(name, ()) for name in error.fields}
        for values in islice(product(*own.values()), MOST_TRIED):
            trial = settings._replace(values={**settings.values, **dict(zip(own, values, strict=True))})
            with contextlib.suppress(ConvertError):
                return stack.enter_context(_plan(file, trial, assume)), frozenset(own)
        raise


def _with_stated(stack: contextlib.ExitStack, file: Input, known: Alone, settings: Settings) -> Alone:
    """Add what follows from what the user states of a file to what is known of it as it is."""
    values = _of_open(settings, known)
    if not values:
        return known
    rest = _as_it_is(stack, file, settings._replace(values=values))
    return known._replace(stated=rest.plan, still_open=tuple(name for name in known.opened if name in rest.opened))


def _of_open(settings: Settings, known: Alone) -> dict[str, Any]:
    """Return what the user states of a file: the fields that it does not state, and all that is not in our terms.

    These are the fields that it leaves open, and those that its dialect's own code fixes: the file itself is silent.
    A size that contradicts its arrays is not stated of it: it may be that of the other file.
    """
    if known.plan is None:
        shown, stated = known.shown, {k: tuples(v) for k, v in settings.values.items()}
        return {k: v for k, v in stated.items() if k not in shown or type(v) is not type(shown[k]) or v == shown[k]}
    silent = {*known.opened, *by_dialect(known.plan)}
    return {k: v for k, v in settings.values.items() if k in silent or not k.islower()}


def by_dialect(plan: Plan) -> set[str]:
    """Return the fields of which only the dialect's own code says something."""
    return {name for name, origin in plan.origins.items() if origin == "dialect"}


def _source(name: str, known: Alone, settings: Settings, other: str) -> str:
    """Name what an assumed field is taken from."""
    if other:
        return other
    if name in settings.assumed:
        return f"{settings.origin(name)}, whose record assumes it"
    if name not in known.still_open:
        return settings.origin(name)
    if known.plan and name in known.plan.configuration.marked:
        return RECORD
    return LIKELY if known.plan and likely(known.plan.suggested.get(name, "")) else DEFAULT


def _material(plan: Plan, names: tuple[str, ...]) -> list[str]:
    """Return those of these fields that change what this network computes."""
    immaterial = plan.reading.spec.immaterial(plan.config)
    return [name for name in names if name not in immaterial]


def _assumption(plan: Plan, path: str, name: str, known: Alone, source: str) -> dict[str, Any]:
    value, own = as_dict(plan.config)[name], known.plan
    recorded = as_dict(own.config)[name] if own and name in own.configuration.marked else value
    other = {} if same(recorded, value) else {"recorded": recorded}
    stated = {} if name in known.still_open else {"stated": True}
    return {"field": name, "value": value, "file": path, "from": source, **other, **stated}


def _as_it_is(stack: contextlib.ExitStack, file: Input, settings: Settings | None = None) -> Alone:
    """Plan one file without the other, with these settings alone."""
    try:
        plan = stack.enter_context(_plan(file, settings))
    except OpenFields as error:
        return Alone(None, tuple(error.fields), None, tuple(error.fields), error.architecture, error.shown)
    return Alone(plan, plan.assumed, plan, plan.assumed, plan.architecture)


def _plan(file: Input, settings: Settings | None = None, assume: bool = False) -> Plan:
    return planning.plan(file.path, dst=HUB, settings=settings, weights=file.part, assume=assume)
