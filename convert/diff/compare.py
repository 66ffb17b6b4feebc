"""Compare two checkpoints as models, in the hub's layout, whatever their dialects and formats."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from convert.config.configure import check_names
from convert.config.conventions import differing, no_effect, same, without_effect
from convert.config.inference import unshown
from convert.config.pixels import SCALING, same_scaling
from convert.config.settings import Settings, Stated
from convert.config.variants import alike
from convert.errors import UsageError, option
from convert.files.skipped import SETTINGS
from convert.plans.plan import Plan
from convert.reading import optimizers
from convert.reading.aside import PART, STATE
from convert.reading.nesting import ROOT
from convert.records.record import DIALECT, marked_by, suggested_by
from specs.config import as_dict, pair, tuples
from specs.numbers import exact
from specs.spec import ADAPTED
from specs.words import in_a_row

from .array_differences import COUNTERS, EXACT, Differences, Tolerance, differences, uncounted_norms
from .arrays import BESIDE, of_both
from .places import counted
from .plain_values import PlainValues
from .plans import Input, TwoArchitectures, by_dialect, plan_both

SAME, EVERYTHING = "the same model", "the same in all parts"
SOURCES = {"record": "its record says", "shapes": "its arrays show", "dialect": "its dialect computes",
           "modules": "its modules state", "variant": "the official variant of these shapes has"}  # fmt: skip
COMMON = "a common layout: (outputs, inputs, height, width) of convolutions, (inputs, outputs) of dense layers"
LAX = ("default", "shapes")  # origins of fields that may be stated in another way, as tokens are by an image


@dataclass(frozen=True)
class Comparison:
    """What a comparison of two files shows.

    Args:
      differences: what keeps the two from being the same model, see `array_differences.entry` and `_setting`.
      assumed: values of fields that change the outputs and that a file does not state: {"field", "value", "file",
        "from"}, "recorded" where its record assumes another value, and "stated" where the user states this one. "from"
        is the other file, "its record" where that marks it as assumed, "the default", "--set" or "--config FILE";
        "nobody" where neither file states it: the value is one with which the arrays fit.
      what: the verdict on two files without differences.
      tolerance: values that differ by no more than this were passed over.
      but: what was not compared, in words of the verdict.
      arrays: how many arrays were compared. of: of which file they are counted, where a Table parts or joins them.
      within: entries of arrays that differ by no more than `tolerance`.
      notes: what part of each file was taken, what was set aside, and doubts about its record.
      layout: in which both files are compared, in words. is_own: whether each file has its arrays in one layout, also
        where it is not this one.
      accepted: whether the user accepts that the conditions hold.
    """

    differences: list[dict[str, Any]]
    assumed: list[dict[str, Any]] = field(default_factory=list)
    what: str = SAME
    tolerance: Tolerance = EXACT
    but: tuple[str, ...] = ()
    arrays: int = 0
    within: Sequence[dict[str, Any]] = ()
    notes: tuple[str, ...] = ()
    layout: str = COMMON
    accepted: bool = False
    of: str = ""
    is_own: bool = False

    @property
    def conditions(self) -> list[str]:
        """List the fields on whose agreement the verdict depends: nobody states them of both files."""
        return list(dict.fromkeys(one["field"] for one in self.assumed if "stated" not in one))

    @property
    def holds(self) -> bool:
        """Tell whether the two are the same model, or what is not shown of that is accepted."""
        return bool(self.same) or (self.same is None and self.accepted)

    @property
    def same(self) -> bool | None:
        """Tell whether the two are the same model; None where their arrays are, and more is not known."""
        return False if self.differences else None if self.conditions else True

    @property
    def verdict(self) -> str:
        if self.differences:
            return "different"
        names = self.conditions
        agree = f"{in_a_row(names)} agree{'s' if len(names) == 1 else ''}"
        passed_over = f", except {' and '.join(self.but)}" if self.but else ""
        relative, absolute = self.tolerance
        limits = [f"a relative difference of {exact(relative)}"] if relative else []
        limits += [f"an absolute {'one' if limits else 'difference'} of {exact(absolute)}"] if absolute else []
        passed_over += f", within {' or '.join(limits)}" if limits else ""
        if names and self.accepted:
            return f"the same arrays{passed_over}; accepted: that {agree}"
        return f"the same arrays{passed_over}; equal only if {agree}" if names else f"{self.what}{passed_over}"


def compare(
    a: str,
    b: str,
    tolerance: Tolerance = EXACT,
    settings: Stated = None,
    assume: bool = False,
    weights: tuple[str | None, str | None] = (None, None),
    everything: Differences | None = None,
) -> Comparison:
    """Compare two files in the hub's layout.

    Args:
      settings: Config fields, for a file that leaves any open; else the other file's are taken, and named as assumed.
      assume: accept the default of what both files leave open; else the verdict depends on it.
      weights: which part of A and of B to take; None finds it.
      everything: how all that both files store differs by its names, where that is asked for: in place of the arrays of
        their models alone.
    Raises: UsageError for settings that the architecture does not have, or that contradict what both files state.
    """
    stated = Settings.of(settings)
    with contextlib.ExitStack() as stack:
        try:
            left, right, assumed = plan_both(stack, Input(a, weights[0]), Input(b, weights[1]), stated, assume)
        except TwoArchitectures as two:
            return Comparison([_architectures(*two.args)])
        counts, uncounted = counted(left, right)
        values = _plain_values(left, right).beside(counts)
        own = _doubts if everything else partial(_own_notes, values=values)
        notes = of_both(a, own(left), b, own(right))
        check_names([(a, left.reading), (b, right.reading)], stated)
        if left.architecture != right.architecture:
            return Comparison([_architectures(left.architecture, right.architecture)], notes=tuple(notes))
        notes += _scales((a, left), (b, right))
        _check_not_contradicted(left, right, stated, {one["field"] for one in assumed})
        if everything:
            comparison = replace(_with_settings(left, right, everything, tolerance, []), what=EVERYTHING)
        else:
            comparison = _compared(left, right, tolerance, values, counts.entries(), uncounted)
        if os.path.realpath(a) == os.path.realpath(b) and weights[0] == weights[1]:  # a file agrees with itself
            assumed = [one for one in assumed if "stated" in one]
        return replace(comparison, assumed=assumed, notes=(*notes, *comparison.notes), accepted=assume)


def of_arrays(
    arrays: Differences, notes: Sequence[str], tolerance: Tolerance, what: str = "the same arrays"
) -> Comparison:
    """Return the comparison of two files of which the arrays alone are known; see `Comparison`."""
    return Comparison(
        arrays.entries, arrays=arrays.compared, within=arrays.within, what=what, tolerance=tolerance, but=arrays.but,
        notes=tuple(notes), layout=arrays.layout, of=arrays.of,
    )  # fmt: skip


def _compared(
    left: Plan, right: Plan, tolerance: Tolerance, values: PlainValues, counts: Sequence[dict[str, Any]],
    uncounted: Sequence[str],
) -> Comparison:  # fmt: skip
    """Compare the arrays and Configs of two files of one architecture.

    Args:
      values: plain ones, as compared. counts: entries of those of them that are differences.
      uncounted: what averages leave out of the comparison, in words of the verdict.
    """
    counters = _unlike_counters(left, right)
    skip = {*left.uncounted, *right.uncounted}
    arrays = differences(left, right, tolerance, skip=skip.__contains__)
    notes = [note for path, names in counters for note in uncounted_norms(path, names)]
    notes += [*arrays.notes(), *values.notes(counts), *_optimizers(left, right)]
    beside = any(aside.reason == PART for plan in (left, right) for aside in plan.aside)
    but = (*([BESIDE] if beside else []), *([COUNTERS] if counters else []))
    comparison = _with_settings(left, right, arrays._replace(but=but), tolerance, notes)
    return replace(comparison, differences=[*counts, *comparison.differences], but=(*comparison.but, *uncounted))


def _with_settings(
    left: Plan, right: Plan, arrays: Differences, tolerance: Tolerance, notes: Sequence[str]
) -> Comparison:
    """Add how the Configs of two files of one architecture differ to how their arrays do, and to notes on those."""
    configs = _configs(left, right)
    settings = {one["setting"] for one in configs}
    sizes = [] if "image" in settings else _sizes(left, right)
    return Comparison(
        [*configs, *arrays.entries], tolerance=tolerance, but=arrays.but, arrays=arrays.compared, within=arrays.within,
        notes=(*notes, *_idle(left, right), *_silent(left, right, settings), *sizes),
        is_own=left.reading.which == right.reading.which,
    )  # fmt: skip


def _scales(*files: tuple[str, Plan]) -> Iterator[str]:
    """Say that the two models are fed with pixels on different scales, if one file states its own.

    Args:
      files: both paths with their plans.
    """
    known = [plan.preprocessing.only(SCALING) for _, plan in files]
    stated = [one for one in known if one.values.keys() >= SCALING]
    if len(stated) < 2 or all(one.assumed == SCALING for one in stated):
        return
    if not same_scaling(stated[0], stated[1], files[0][1].config.channels):
        fed = (f"{path} {one}" for (path, _), one in zip(files, stated, strict=True))
        yield f"the two are fed with pixels on different scales: {'; '.join(fed)}"


def _sizes(left: Plan, right: Plan) -> Iterator[str]:
    """Say that the two models are stated to take images of other sizes, and why A does not take those of B."""
    ours, theirs = (_image(plan) for plan in (left, right))
    if ours and theirs and ours != theirs:
        a, b = (f"{height}x{width}" for height, width in (ours, theirs))
        refused = ""
        try:
            left.reading.spec.check_images(left.config, *theirs)
        except ValueError as error:
            refused = f": A does not take those of B ({error})"
        yield f"the arrays do not show the size of images: image={a} in A, {b} in B{refused}"


def _image(plan: Plan) -> tuple[int, int] | None:
    """Return the size of images that a file, or the user, states; None where neither does."""
    known = plan.preprocessing
    if "image" in known.values and "image" not in known.assumed:
        return pair(known.values["image"])
    size = None if "image" in plan.suggested else getattr(plan.config, "image", None)
    return None if size is None else pair(size)


def _plain_values(left: Plan, right: Plan) -> PlainValues:
    """Compare the plain values of both files, as an epoch, without those of optimizers and of pickled modules."""
    readers = (left.reader, right.reader)
    tops = tuple(one.top for one in map(optimizers.find_any, readers) if one and one.top)
    modules = {name for reader in readers for name in reader.skipped.names.get(SETTINGS, [])}
    return PlainValues.of(*readers).only(lambda name: name not in modules and not name.startswith(tops))


def _own_notes(plan: Plan, values: PlainValues) -> list[str]:
    """Return what a user should know of one of the two files. Args: values: those that are compared.

    Plain values in a container of training state, as hyperparameters, are named by the container.
    """
    places = tuple(aside.name for aside in plan.aside if aside.reason == STATE and aside.name.endswith("/"))
    named = {name for name in plan.reader.skipped.values if name.startswith(places)}
    plan = replace(plan, accounted=plan.accounted | values.names | named)
    return [*plan.part(), *plan.left_out(), *_doubts(plan)]


def _doubts(plan: Plan) -> list[str]:
    """Return doubts about the settings of one of the two files."""
    return [*plan.configuration.remarks, *plan.unlike_its_code(), *plan.record.earlier(plan.reader.tensors)]


def _check_not_contradicted(left: Plan, right: Plan, settings: Settings, opened: set[str]) -> None:
    """Check that no setting contradicts the files: that it is open in one, or what both say. Raises: UsageError.

    One that the arrays of the other file show is meant for that one, as the classes of a model with another head.
    Of a configuration file, both may have other classes.
    """
    for plan, other in ((left, right), (right, left)):
        own, idle = as_dict(plan.config), plan.reading.spec.immaterial(plan.config) & settings.values.keys()
        ignored = {k for k in idle if _alike(plan, {k: settings.values[k]})}.union(ADAPTED)
        ignored = {k for k in ignored if settings.of_file(k)}
        stated = {k: value for k, value in settings.values.items() if k in own and k not in opened | ignored}
        theirs = as_dict(other.config) if other.architecture == plan.architecture else {}
        shown = theirs.keys() - set(unshown(other.reading))
        others = [name for name, value in stated.items() if not same(own[name], value)]
        others = [name for name in others if name not in shown or not same(theirs[name], stated[name])]
        if all(plan.origins.get(name, "default") in LAX for name in others) and _alike(plan, stated):
            continue  # as a size that is stated in another way
        for name in others:
            source = SOURCES.get(plan.origins.get(name, "default"), "its Config has by default")
            what = f"{name}={exact(stated[name])} {settings.how(name)}, and {source} {name}={exact(own[name])}"
            raise UsageError(f"{plan.reader.path}: {what}")


def _alike(plan: Plan, stated: Mapping[str, Any]) -> bool:
    """Tell whether a file's Config makes the same arrays with these values."""
    with contextlib.suppress(ValueError, TypeError):
        config = replace(plan.config, **{name: tuples(value) for name, value in stated.items()})
        return alike(plan.reading.spec, plan.config, config)
    return False


def _configs(left: Plan, right: Plan) -> list[dict[str, Any]]:
    """Compare the Config fields that change the outputs and that shapes do not show."""
    fields = differing(left.reading.spec, left.config, as_dict(right.config), unshown(left.reading))
    return [
        _setting(name, "config", ours, theirs, f"{_value(left, name, ours)} and {_value(right, name, theirs)}")
        for name, (theirs, ours) in fields.items()
    ]


def _architectures(a: str, b: str) -> dict[str, Any]:
    return _setting("architecture", "architecture", a, b, f"{a} and {b}")


def _setting(name: str, kind: str, a: Any, b: Any, detail: str) -> dict[str, Any]:
    """Describe a difference of no array: two architectures, or a Config field with the value of each file."""
    return {"setting": name, "kind": kind, "error": None, "detail": detail, "a": a, "b": b}


def _value(plan: Plan, name: str, value: Any) -> str:
    """Write a field's value, with what suggests it if neither the file nor the user states it."""
    origin = plan.suggested.get(name, "")
    return exact(value) + f" ({marked_by(origin)})" * bool(origin)


def _idle(left: Plan, right: Plan) -> Iterator[str]:
    """Name the fields that differ and change nothing in either model, so that the two are one function."""
    ours, theirs = as_dict(left.config), as_dict(right.config)
    both = without_effect(right.reading.spec, right.config)
    for name in without_effect(left.reading.spec, left.config):
        if name in both and not same(ours[name], theirs[name]):
            effect = no_effect(left.reading.spec, left.config, name)
            yield f"{name}={exact(ours[name])} in A, {exact(theirs[name])} in B: {effect}"


def _optimizers(left: Plan, right: Plan) -> Iterator[str]:
    """Say that the states of optimizers in both files are not compared, and how to compare them."""
    locations = [optimizers.find_any(plan.reader) for plan in (left, right)]
    parts = [one.top.rstrip("/") for one in locations if one and one.top]
    if len(parts) == 2 and len({one.library for one in locations if one}) == 1:
        options = " ".join(option("weights", part) for part in dict.fromkeys(parts))
        every = f"{option('weights', ROOT)} all parts of files that are laid out alike"
        yield f"the states and hyperparameters of the optimizers are not compared: {options} compares them, {every}"


def _silent(left: Plan, right: Plan, names: Collection[str]) -> Iterator[str]:
    """Say of fields that differ which file does not state its value, and how to state another."""
    for plan in (left, right):
        silent = [name for name in as_dict(plan.config) if name in names and name in by_dialect(plan)]
        if silent:
            values = ", ".join(f"{name}={exact(getattr(plan.config, name))}" for name in silent)
            what = f"the file does not say, assumed{suggested_by(DIALECT + plan.src)}: {values}"
            yield f"{plan.reader.path}: {what} (--set {silent[0]}=... states another value)"


def _unlike_counters(left: Plan, right: Plan) -> list[tuple[str, list[str]]]:
    """List each file with the batch counters that the other one alone stores."""
    pairs = ((left, set(right.uncounted)), (right, set(left.uncounted)))
    lacking = [(plan.reader.path, [n for n in plan.uncounted if n not in others]) for plan, others in pairs]
    return [(path, names) for path, names in lacking if names]
