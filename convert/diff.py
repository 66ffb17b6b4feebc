"""Compare two checkpoints as models, in the hub's layout, whatever their dialects and formats."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Any, NamedTuple

from specs.config import as_dict, tuples
from specs.dialects import HUB
from specs.numerals import exact
from specs.words import in_a_row

from . import folding, planning
from .array_differences import differences, entry
from .aside import PART
from .configure import check_names
from .conventions import differing, same
from .errors import ConvertError, OpenFields, UsageError
from .inference import unshown
from .pixels import SCALING, conflict
from .plans import Plan
from .record import likely
from .settings import Settings, Stated
from .variants import alike

SAME = "the same model"
BESIDE, COUNTERS = "what is set aside", "batch counters, which one file does not store"


@dataclass(frozen=True)
class Comparison:
    """What a comparison of two files found.

    Args:
      differences: what keeps the two from being the same model, see `array_differences.entry`.
      assumed: values of fields that change the outputs and that a file does not state: {"field", "value", "file",
        "from"}, "recorded" where its record assumes another value, and "stated" where the user states this one. "from"
        is the other file, "its record" where that marks it as assumed, "the default", "--set" or "--config FILE";
        "nobody" where neither file states it: the value is one with which the arrays fit.
      what: the verdict on two files without differences.
      rtol: values that differ by no more than this share were passed over.
      but: what was not compared, in words of the verdict.
      arrays: how many arrays were compared.
    """

    differences: list[dict[str, Any]]
    assumed: list[dict[str, Any]] = field(default_factory=list)
    what: str = SAME
    rtol: float = 0.0
    but: tuple[str, ...] = ()
    arrays: int = 0

    @property
    def conditions(self) -> list[str]:
        """Fields that nobody states of both files: whether they agree is not known."""
        return list(dict.fromkeys(entry["field"] for entry in self.assumed if "stated" not in entry))

    @property
    def same(self) -> bool | None:
        """None where the arrays are the same, and more is not known."""
        return False if self.differences else None if self.conditions else True

    @property
    def verdict(self) -> str:
        if self.differences:
            return "different"
        names = self.conditions
        agree = f"{in_a_row(names)} agree{'s' if len(names) == 1 else ''}"
        passed_over = f", except {' and '.join(self.but)}" if self.but else ""
        passed_over += f", within a relative difference of {exact(self.rtol)}" if self.rtol else ""
        return f"the same arrays{passed_over}; equal only if {agree}" if names else f"{self.what}{passed_over}"


# What an assumed value is taken from, unless it is a file.
RECORD, DEFAULT, LIKELY = "its record", "the default", "the official variant of these sizes"
NOBODY = "nobody"
MOST_TRIED = 16  # combinations of values of open fields
SOURCES = {"record": "its record says", "shapes": "its arrays show", "dialect": "its dialect computes",
           "variant": "the official variant of these shapes has"}  # fmt: skip
LAX = ("default", "shapes")  # origins of fields that may be stated in another way, as tokens are by an image


def compare(
    a: str,
    b: str,
    rtol: float = 0.0,
    settings: Stated = None,
    assume: bool = False,
    weights: tuple[str | None, str | None] = (None, None),
    notes: list[str] | None = None,
) -> Comparison:
    """Compare two files in the hub's layout.

    Args:
      settings: Config fields, for a file that leaves any open; else the other file's are taken, and named as assumed.
      assume: accept the default of what both files leave open; else the verdict depends on it.
      weights: which part of A and of B to take; None finds it.
      notes: extended by what part of each file was taken, what was set aside, and doubts about its record.
    Raises: UsageError for settings that the architecture does not have, or that contradict what both files state.
    """
    stated = Settings.of(settings)
    with contextlib.ExitStack() as stack:
        left, right, assumed = _sides(stack, (a, weights[0]), (b, weights[1]), stated, assume)
        if notes is not None:
            for side in (left, right):
                own = (*side.part(), *side.left_out(), *side.configuration.remarks, *side.earlier())
                notes += [f"{side.reader.path}: {note}" for note in own]
        check_names([(a, left.reading), (b, right.reading)], stated)
        if left.architecture != right.architecture:
            kinds = f"{left.architecture} and {right.architecture}"
            return Comparison([entry("", "architecture", None, kinds)], [])
        if notes is not None and conflict(left.preprocessing, right.preprocessing, left.config.channels):
            one, other = (side.preprocessing.only(SCALING) for side in (left, right))
            notes.append(f"the two are fed with pixels on different scales: {a} {one}; {b} {other}")
        _check_stated(left, right, stated, {entry["field"] for entry in assumed})
        apart = _counters_apart(left, right)
        if notes is not None:
            why = "batch counters that it does not store, and that are not compared"
            notes += [f"{path}: {why} ({len(names):,}): {folding.summarised(names)}" for path, names in apart]
        skip = {*left.uncounted, *right.uncounted}
        arrays = differences(left, right, rtol, skip=skip.__contains__)
        if notes is not None:
            notes += arrays.notes()
        entries = [*_configs(left, right), *arrays.entries]
        beside = any(entry.reason == PART for side in (left, right) for entry in side.aside)
        but = (*[BESIDE] * beside, *[COUNTERS] * bool(apart))
        return Comparison(entries, assumed, rtol=rtol, but=but, arrays=arrays.compared)


Side = tuple[str, str | None]  # a file and the part of it to take


class Known(NamedTuple):
    """What is known of one file without the other.

    Args:
      plan: without anything stated; None where that leaves open a field that nobody may assume.
      opened: fields that it leaves open, or that its record marks as assumed.
      stated: the plan with what the user states of those.
      left: those of `opened` that the user does not state.
    """

    plan: Plan | None
    opened: tuple[str, ...]
    stated: Plan | None
    left: tuple[str, ...]


def _sides(
    stack: contextlib.ExitStack, a: Side, b: Side, settings: Settings, assume: bool
) -> tuple[Plan, Plan, list[dict[str, Any]]]:
    """Plan both files; return the plans, and what is assumed of either.

    What a file leaves open is the user's to state, or else taken from the other file, if that knows it.
    """
    known = [_known(stack, side, settings) for side in (a, b)]
    plans: list[Plan] = []
    assumed: list[dict[str, Any]] = []
    for side, own, other_path, other in ((a, known[0], b[0], known[1]), (b, known[1], a[0], known[0])):
        theirs = {k: v for k, v in as_dict(other.plan.config).items() if k not in other.opened} if other.plan else {}
        borrowed = {name: theirs[name] for name in own.left if name in theirs and name not in settings.assumed}
        plan, tried = own.stated, frozenset[str]()
        if plan is None or borrowed:
            origins = dict.fromkeys(borrowed, other_path)
            values = {**_of_open(settings, own), **borrowed}
            plan, tried = _tried(stack, side, settings._replace(values=values, others=origins), assume, other.plan)
        plans.append(plan)
        sources = {name: _source(name, own, settings, other_path if name in borrowed else "") for name in own.opened}
        sources |= dict.fromkeys(tried, other_path if other.plan else NOBODY)
        assumed += [_assumption(plan, side[0], name, own, sources[name]) for name in _material(plan, own.opened)]
    if plans[0].reading.which == plans[1].reading.which:  # one code reads both files
        silent = {name for name in known[0].opened if name in known[1].opened}
        assumed = [entry for entry in assumed if entry["field"] not in silent or entry["from"] not in (DEFAULT, LIKELY)]
    return plans[0], plans[1], assumed


def _tried(
    stack: contextlib.ExitStack, side: Side, settings: Settings, assume: bool, other: Plan | None
) -> tuple[Plan, frozenset[str]]:
    """Plan a file and, where fields are still open, try values of them: arrays can be compared all the same.

    Returns: the plan and the names of the fields whose values were tried.
    Args:
      other: the plan of the other file, whose values come first.
    Raises: OpenFields where a field has neither a list of values nor a default, or none of these fits.
    """
    try:
        return stack.enter_context(_plan(side, settings, assume)), frozenset()
    except OpenFields as error:
        theirs = as_dict(other.config) if other else {}
        own = {name: [theirs[name]] if name in theirs else error.choices.get(name, ()) for name in error.fields}
        for values in islice(product(*own.values()), MOST_TRIED):
            trial = settings._replace(values={**settings.values, **dict(zip(own, values, strict=True))})
            with contextlib.suppress(ConvertError):
                return stack.enter_context(_plan(side, trial, assume)), frozenset(own)
        raise


def _known(stack: contextlib.ExitStack, side: Side, settings: Settings) -> Known:
    """Plan one file without the other, as it is and with what the user states of it."""
    plan, opened = _as_it_is(stack, side, None)
    known = Known(plan, opened, plan, opened)
    values = _of_open(settings, known)
    if not opened or not values:
        return known
    stated, left = _as_it_is(stack, side, settings._replace(values=values))
    return known._replace(stated=stated, left=tuple(name for name in opened if name in left))


def _of_open(settings: Settings, known: Known) -> dict[str, Any]:
    """Return what the user states of a file: the fields that it leaves open, and all that is not in our terms."""
    all_of_it = known.plan is None
    return {k: v for k, v in settings.values.items() if all_of_it or k in known.opened or not k.islower()}


def _source(name: str, known: Known, settings: Settings, other: str) -> str:
    """Name what an assumed field is taken from."""
    if other:
        return other
    if name in settings.assumed:
        return f"{settings.origin(name)}, whose record assumes it"
    if name not in known.left:
        return settings.origin(name)
    if known.plan and name in known.plan.configuration.marked:
        return RECORD
    return LIKELY if known.plan and likely(known.plan.unread.get(name, "")) else DEFAULT


def _material(plan: Plan, names: tuple[str, ...]) -> list[str]:
    """Return those of these fields that change what this network computes."""
    immaterial = plan.reading.spec.immaterial(plan.config)
    return [name for name in names if name not in immaterial]


def _assumption(plan: Plan, path: str, name: str, known: Known, source: str) -> dict[str, Any]:
    value, own = as_dict(plan.config)[name], known.plan
    recorded = as_dict(own.config)[name] if own and name in own.configuration.marked else value
    other = {} if same(recorded, value) else {"recorded": recorded}
    stated = {} if name in known.left else {"stated": True}
    return {"field": name, "value": value, "file": path, "from": source, **other, **stated}


def _as_it_is(
    stack: contextlib.ExitStack, side: Side, settings: Settings | None
) -> tuple[Plan | None, tuple[str, ...]]:
    """Plan one file without the other. Return the plan, None if it leaves open a field that nobody may assume, and
    every field that is open or that a record marks as assumed."""
    try:
        plan = stack.enter_context(_plan(side, settings))
    except OpenFields as error:
        return None, tuple(error.fields)
    return plan, plan.assumed


def _plan(side: Side, settings: Settings | None = None, assume: bool = False) -> Plan:
    return planning.plan(side[0], dst=HUB, settings=settings, weights=side[1], assume=assume)


def _check_stated(left: Plan, right: Plan, settings: Settings, opened: set[str]) -> None:
    """Raises: UsageError for a setting that neither file leaves open and that is not what both say."""
    for side in (left, right):
        own = as_dict(side.config)
        stated = {name: value for name, value in settings.values.items() if name in own and name not in opened}
        others = [name for name, value in stated.items() if not same(own[name], value)]
        if all(side.origins.get(name, "default") in LAX for name in others) and _alike(side, stated):
            continue  # as a size that is stated in another way
        for name in others:
            source = SOURCES.get(side.origins.get(name, "default"), "its Config has by default")
            what = f"{name}={exact(stated[name])} {settings.how(name)}, and {source} {name}={exact(own[name])}"
            raise UsageError(f"{side.reader.path}: {what}")


def _alike(side: Plan, stated: Mapping[str, Any]) -> bool:
    """Tell whether a file's Config makes the same arrays with these values."""
    with contextlib.suppress(ValueError, TypeError):
        config = replace(side.config, **{name: tuples(value) for name, value in stated.items()})
        return alike(side.reading.spec, side.config, config)
    return False


def _configs(left: Plan, right: Plan) -> list[dict[str, Any]]:
    """Compare the Config fields that change the outputs and that shapes do not show."""
    fields = differing(left.reading.spec, left.config, as_dict(right.config), unshown(left.reading))
    return [
        entry(name, "config", None, f"{exact(ours)} and {exact(theirs)}") for name, (theirs, ours) in fields.items()
    ]


def _counters_apart(left: Plan, right: Plan) -> list[tuple[str, list[str]]]:
    """List each file with the batch counters that the other one alone stores."""
    sides = ((left, set(right.uncounted)), (right, set(left.uncounted)))
    lacking = [(side.reader.path, [n for n in side.uncounted if n not in others]) for side, others in sides]
    return [(path, names) for path, names in lacking if names]
