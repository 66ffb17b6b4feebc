"""Plan a conversion: complete, from names and shapes alone, before any payload is read.

    plan = convert.plan("weights.npz", src="google", dst="torch")
    convert.write(plan, "out.safetensors")

The steps, each a function of values: candidates (recognise) -> configure -> lay_out -> choose -> Plan, for `execute`.
This file is not called plan.py: `convert.plan` is the function.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from .casting import FLOATS
from .configure import configure
from .errors import ConvertError, OpenFields, PlanError, UsageError, command_or_call
from .files import open_checkpoint
from .files.base import Reader
from .layout import HUB, lay_out
from .parts import Reading
from .plans import Plan
from .recognise import Group, candidates, dialects, known_dialect
from .record import Record
from .record import read as read_record
from .replicas import replicated, without_replicas
from .settings import Settings, Stated
from .unstated import open_error
from .variants import restrictions


def plan(
    path: str | os.PathLike[str],
    src: str | None = None,
    dst: str = HUB,
    settings: Stated = None,
    dtype: str | None = None,
    weights: str | None = None,
    assume: bool = False,
    sampled: bool = False,
) -> Plan:
    """Plan a conversion.

    Args:
      path: source checkpoint, any format.
      src: its dialect; None recognises it.
      dst: target dialect.
      settings: Config fields set by the user, above everything the file says.
      dtype: dtype of the target's floating-point tensors; None keeps the source's.
      weights: which part of a training checkpoint to take, e.g. "state_dict_ema"; "/" is the root of the file.
      assume: accept defaults for what changes the outputs and nobody states; `Plan.assumed` and the record name them.
      sampled: compare the file with its record by a sample of the values, which a note reports, and not by all.
    Raises: PlanError that lists every missing, unexpected and mis-shaped tensor; OpenFields for Config fields that
    change the outputs and that neither the file, nor its record, nor `settings` states.
    """
    if dtype is not None and dtype not in FLOATS:
        raise UsageError(f"no dtype {dtype!r}: one of {', '.join(FLOATS)}")
    for name in (src, dst if dst != HUB else None):
        if name is not None:
            known_dialect(name)
    reader = open_checkpoint(path)
    try:
        record = read_record(reader)
        if record.sample and not sampled:
            from .verification import with_every_value  # hashes, which few commands need

            record = with_every_value(reader, record)
        return plan_read(reader, src, dst, settings, dtype, weights, assume, record)
    except BaseException:
        reader.close()
        raise


def plan_read(
    reader: Reader,
    src: str | None = None,
    dst: str = HUB,
    settings: Stated = None,
    dtype: str | None = None,
    weights: str | None = None,
    assume: bool = False,
    record: Record | None = None,
) -> Plan:
    """Like `plan`, of a file that is open, and stays so where it raises.

    Args:
      record: of the file; None reads it, and compares it with a sample of the file's values.
    """
    request = Request(reader, record or read_record(reader), Settings.of(settings), dst, dtype)
    choice = choose(request, candidates(reader, src, request.record.hints, weights))
    if choice.plan is None:
        raise _refusal(request, choice, src, weights)
    return _decided(choice.plan, assume)


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
      rejected: why each of the others that were tried does not fit.
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
        if len(fitting) > 1:
            return Choice(None, rejected, _alike(fitting))
        if fitting:
            return Choice(fitting[0], rejected)
    return Choice(None, rejected)


def _alike(fitting: list[Plan]) -> UsageError:
    names = ", ".join(sorted({plan.src for plan in fitting}))
    which = command_or_call(f"{fitting[0].src}2torch", f"src={fitting[0].src!r}")
    problem = f"reads alike as {names}: say which it is, as in {which}"
    return UsageError(f"{fitting[0].reader.path}: {problem}")


def attempt(request: Request, reading: Reading) -> Plan | Rejected:
    """Plan one reading, or say why it does not fit."""
    try:
        return _plan(request, reading)
    except ConvertError as error:
        return Rejected(reading, error)


def _plan(request: Request, reading: Reading) -> Plan:
    """Configure and lay out one reading. Raises: ConvertError where it does not fit."""
    reader, record, settings, dst, dtype = request
    path, architecture = reader.path, reading.architecture
    if dst != HUB and dst not in dialects(architecture):
        having = ", ".join(dialects(architecture))
        raise UsageError(f"{path}: {architecture} has no dialect {dst!r}: one of {having}")
    configuration = configure(path, reading, record, settings)
    unfit = restrictions(architecture, configuration.config, dst) if dst != HUB else {}
    if unfit:
        problems = [f"{n} is {theirs} in {dst}'s code, and {own} in this model" for n, (theirs, own) in unfit.items()]
        raise PlanError(f"{path}: {dst}'s own code cannot hold this model: choose another dialect", problems)
    layout = lay_out(path, reading, configuration, dst, record.carried, dtype)
    return Plan(reader, record, reading, configuration, dst, layout)


def _decided(plan: Plan, assume: bool) -> Plan:
    """The plan, if every field that changes its outputs is stated, or its default accepted. Raises: OpenFields."""
    names = plan.configuration.unstated
    if names and not assume:
        defaults = {name: getattr(plan.config, name) for name in names}
        shown, remarks = plan.configuration.shown, plan.configuration.remarks
        raise open_error(plan.reader.path, plan.architecture, plan.reading.spec, names, defaults, shown, remarks)
    return replace(plan, accepted=names)


def _refusal(request: Request, choice: Choice, src: str | None, weights: str | None) -> ConvertError:
    """The error for a file that no reading fits: that of the first one, with what else is known."""
    reader, hints = request.reader, request.record.hints
    error = choice.problem or choice.rejected[0].error
    if isinstance(error, OpenFields):
        return error
    remedies: list[str] = []
    if not isinstance(error, UsageError):
        for rejected in choice.rejected:
            single = without_replicas(rejected.reading)
            if single is not None and _fits(attempt(request, single)):
                return replicated(reader.path, rejected.reading)
        from .files.sharded import remedy

        remedies += filter(None, [remedy(reader.path)])
    if src is not None:
        other = choose(request, candidates(reader, None, hints, weights)).plan
        if other:
            which = command_or_call(f"{other.src}2...", f"src={other.src!r}")
            remedies.append(f"every array fits as {other.src}: {which}")
    error.problems += remedies
    return error


def _fits(trial: Plan | Rejected) -> bool:
    """Whether the arrays fit; a Config field may be open."""
    return isinstance(trial, Plan) or isinstance(trial.error, UsageError)
