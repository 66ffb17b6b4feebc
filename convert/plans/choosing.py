"""Choose how to read a file: plan each candidate reading, and keep why each of the others is rejected."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from convert import folding
from convert.config.configure import Configuration, configure
from convert.config.inference import example, without_array
from convert.config.settings import Settings
from convert.config.variants import alike, restrictions
from convert.errors import ConvertError, OpenFields, PlanError, Unconfigured, UsageError, command_or_call
from convert.files.base import Reader
from convert.reading.own_names import of_paddle
from convert.reading.readings import Reading
from convert.reading.recognise import Group, dialects
from convert.records.record import Record
from specs.dialects import HUB, extras
from specs.spec import Spec

from .by_dialect import translate
from .plan import Plan


class Request(NamedTuple):
    """What every reading of a file is planned with.

    Args:
      settings: what the user states of the model.
      dst: dialect of the target. dtype: of its floating-point tensors; None keeps the source's.
    """

    reader: Reader
    record: Record
    settings: Settings
    dst: str
    dtype: str | None


class Rejected(NamedTuple):
    """A reading that does not fit, and why."""

    reading: Reading
    error: ConvertError


class Choice(NamedTuple):
    """What trying the readings of a file comes to.

    Args:
      plan: of the one reading that fits; None where none does, or several do.
      rejected: why each of the others that were tried does not fit, the nearest first where none fits.
      problem: why there is no plan, where no reading explains it.
    """

    plan: Plan | None
    rejected: list[Rejected]
    problem: ConvertError | None = None


def choose(request: Request, groups: Iterable[Group]) -> Choice:
    """Plan each reading, group by group, up to the first group in which any fits."""
    rejected: list[Rejected] = []
    for group in groups:
        if isinstance(group, ConvertError):
            return Choice(None, rejected, group)
        trials = [attempt(request, reading) for reading in group]
        rejected += [trial for trial in trials if isinstance(trial, Rejected)]
        fitting = [trial for trial in trials if isinstance(trial, Plan)]
        if len(fitting) > 1 and of_paddle(request.reader):  # a layer's names say more than shapes
            fitting = [one for one in fitting if dialects(one.architecture)[one.src].framework == "paddle"] or fitting
        if len(fitting) > 1:
            return Choice(None, rejected, _alike(fitting))
        if fitting:
            return Choice(fitting[0], rejected)
    return Choice(None, _nearest_first(request, rejected))


def _nearest_first(request: Request, rejected: list[Rejected]) -> list[Rejected]:
    """Put the reading first of which the fewest arrays have other shapes, as dialects may name arrays alike.

    A reading from which no configuration follows comes last. That of the dialect in the file's record stays the first,
    and so does one that does not fit for a reason other than its arrays.
    """
    misfits = [one for one in rejected if isinstance(one.error, PlanError)]
    if not misfits or misfits[0] is not rejected[0] or "dialect" in request.record.hints:
        return rejected
    best = min(misfits, key=_distance)
    return [best, *(one for one in rejected if one is not best)]


def _distance(rejected: Rejected) -> tuple[bool, int, int]:
    error = rejected.error
    unfit = len(error.unfit) if isinstance(error, PlanError) else 0
    return isinstance(error, Unconfigured), unfit, len(error.problems)


def _alike(fitting: list[Plan]) -> UsageError:
    names = ", ".join(sorted({plan.src for plan in fitting}))
    src = fitting[0].src
    recorded = "; inspect and diff read what that writes, whose record says it"
    which = command_or_call(f"{src}2torch{recorded}", f"src={src!r}")
    problem = f"reads alike as {names}: say which it is, as in {which}"
    return UsageError(f"{fitting[0].reader.path}: {problem}")


def attempt(request: Request, reading: Reading) -> Plan | Rejected:
    """Plan one reading, or say why it does not fit."""
    try:
        return _plan(request, reading)
    except OpenFields as error:
        return Rejected(reading, _whatever_is_open(request, reading, error) or error)
    except ConvertError as error:
        absent = folding.no_arrays(without_array(reading, request.reader.skipped), lambda _: "None")
        error.problems[:0] = folding.capped(list(absent.values()), "no arrays")
        return Rejected(reading, error)


def _whatever_is_open(request: Request, reading: Reading, error: OpenFields) -> PlanError | None:
    """Return the error of arrays that do not fit, whatever the open fields are; None if all fit, or depend on them."""
    values = {name: value for name, value in example(reading).items() if name in error.fields}
    stated = request.settings._replace(values={**request.settings.values, **values})
    try:
        configuration = _configured(request._replace(settings=stated), reading)
    except ConvertError:  # no network has these values beside the file's
        return None
    try:
        translate(request.reader, reading, configuration, request.dst, {}, request.dtype)
    except PlanError as misfit:
        depends = any(_changes_shapes(reading.spec, configuration.config, name) for name in values)
        return misfit if misfit.unfit and not depends else None
    return None


def _changes_shapes(spec: Spec, config: Any, name: str) -> bool:
    """Tell whether arrays depend on a whole number of a Config."""
    value = getattr(config, name)
    with contextlib.suppress(ValueError):
        return type(value) is int and not alike(spec, config, replace(config, **{name: value + 1}))
    return False


def _tied_extras(reader: Reader, reading: Reading, config: Any) -> list[str]:
    """Describe the arrays that a dialect lists as unused and that are other arrays of this file: its code ties them."""
    unused = {one.name for one in extras(dialects(reading.architecture)[reading.dialect], config)}
    if unused.isdisjoint(reading.tensors):
        return []
    remedy = f"tie both in a line of dialect {reading.dialect}, and leave it out of extras"
    return [
        f"{one} is tied to {other}: {remedy}"
        for pair in reader.ties(reading.tensors)
        for one, other in (pair, pair[::-1])
        if one in unused and other not in unused
    ]


def _plan(request: Request, reading: Reading) -> Plan:
    """Configure and lay out one reading. Raises: ConvertError where it does not fit."""
    reader, dst = request.reader, request.dst
    path, architecture = reader.path, reading.architecture
    if dst != HUB and dst not in dialects(architecture):
        having = ", ".join(dialects(architecture))
        raise UsageError(f"{path}: {architecture} has no dialect {dst!r}: one of {having}")
    configuration = _configured(request, reading)
    unfit = restrictions(architecture, configuration.config, dst) if dst != HUB else {}
    if unfit:
        has = {n: configuration.shown.get(n) if own is None else own for n, (_, own) in unfit.items()}
        problems = [f"{n} is {theirs} in {dst}'s code, and {has[n]} in this model" for n, (theirs, _) in unfit.items()]
        raise PlanError(f"{path}: {dst}'s own code cannot hold this model: choose another dialect", problems)
    own = configuration.record
    translation = translate(reader, reading, configuration, dst, own.carried, request.dtype)
    if problems := _tied_extras(reader, reading, configuration.config):
        raise PlanError(f"{path}: what the page of {architecture} lists as unused is used", problems)
    return Plan(reader, own, reading, configuration, dst, translation)


def _configured(request: Request, reading: Reading) -> Configuration:
    """Determine the Config of one reading. Raises: ConvertError where its arrays do not fit one."""
    reader, none = request.reader, without_array(reading, request.reader.skipped)
    return configure(reader.path, reading, request.record, request.settings, reader.modules, none)
