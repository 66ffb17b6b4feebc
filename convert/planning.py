"""Plan a conversion: complete, from names and shapes alone, before any payload is read.

    plan = convert.plan("weights.npz", src="google", dst="torch")
    convert.write(plan, "out.safetensors")

The steps, each a function of values: candidates (recognise) -> choose, which configures and translates each reading and
keeps why the others are rejected -> Plan, for `execute`.
This file is not called plan.py: `convert.plan` is the function.
"""

from __future__ import annotations

import os
from dataclasses import replace

from specs.dialects import HUB
from specs.numerals import exact

from .choosing import Choice, Rejected, Request, attempt, choose
from .dtypes import FLOATS
from .errors import ConvertError, OpenFields, UsageError, command_or_call, option
from .files import open_checkpoint
from .files.base import Reader
from .files.inside import JOIN_ZERO
from .plans import Plan
from .readings import Reading
from .recognise import USUAL, candidates, known_dialect, unknown_page
from .record import Record, likely
from .record import read as read_record
from .replicas import FirstReplica, replicated, twice, without_replicas
from .settings import Settings, Stated
from .spelling import respelled

EMPTY = (
    "none of its arrays has an element, as in the files mp_rank_*_model_states.pt of DeepSpeed's ZeRO-3, which stores "
    f"weights in the files of the optimizer: {JOIN_ZERO}"
)


class NotReplicated(UsageError):
    """One replica is to be taken of arrays that have none."""


def plan(
    path: str | os.PathLike[str],
    src: str | None = None,
    dst: str = HUB,
    settings: Stated = None,
    dtype: str | None = None,
    weights: str | None = None,
    assume: bool = False,
    sampled: bool = False,
    unreplicate: bool = False,
    step: int | None = None,
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
      unreplicate: take the first of the replicas that pmap leaves, after checking that all are equal.
      step: which step of a training run's folder; None takes the newest.
    Raises: PlanError that lists every missing, unexpected and mis-shaped tensor; OpenFields for Config fields that
    change the outputs and that neither the file, nor its record, nor `settings` states.
    """
    if dtype is not None and dtype not in FLOATS:
        raise UsageError(f"no dtype {dtype!r}: one of {', '.join(FLOATS)}")
    for name in (src, dst if dst != HUB else None):
        if name is not None:
            known_dialect(name)
    reader = open_checkpoint(path, step)
    try:
        record = read_record(reader)
        if record.sample and not sampled:
            from .verification import with_every_value  # hashes, which few commands need

            record = with_every_value(reader, record)
        return plan_read(reader, src, dst, settings, dtype, weights, assume, record, unreplicate)
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
    unreplicate: bool = False,
) -> Plan:
    """Plan a file that is open, as `plan` does; it stays open where this raises.

    Args:
      record: of the file; None reads it, and compares it with a sample of the file's values.
    """
    request = Request(respelled(reader), record or read_record(reader), Settings.of(settings), dst, dtype)
    if unreplicate:
        request = request._replace(reader=_first_replica(request, src, weights))
    choice = choose(request, candidates(request.reader, src, request.record.hints, weights))
    if choice.plan is None:
        raise _refusal(request, choice, src, weights)
    return _decided(choice.plan, assume)


def _first_replica(request: Request, src: str | None, weights: str | None) -> Reader:
    """Return the file with one replica of each array.

    Raises: ConvertError where the replicas differ, where the arrays are of another dialect, and where they fit neither
    with the axis of replicas nor without; NotReplicated where they fit as they are.
    """
    reader, hints = request.reader, request.record.hints
    choice = choose(request, candidates(reader, src, hints, weights))
    if replicas := _replicas(request, choice):
        return FirstReplica(reader, replicas.tensors.values())
    unreplicate = option("unreplicate")
    if choice.plan or any(isinstance(rejected.error, OpenFields) for rejected in choice.rejected):
        raise NotReplicated(f"{reader.path}: {unreplicate}: its arrays fit as they are: leave it out")
    error = _refusal(request, choice, src, weights)
    if src is not None and (other := _replicas(request, choose(request, candidates(reader, None, hints, weights)))):
        which = command_or_call(_route(other.dialect, request.dst), f"src={other.dialect!r}")
        error.problems.append(f"every array fits as {other.dialect}, replicated: {which} with {unreplicate}")
    raise error


def _replicas(request: Request, choice: Choice, axes: int = 1) -> Reading | None:
    """Return the reading that fits once so many leading axes of all its arrays are removed."""
    for rejected in choice.rejected:
        single: Reading | None = rejected.reading
        for _ in range(axes):
            single = single and without_replicas(single)
        if single is not None and _fits(attempt(request, single)):
            return rejected.reading
    return None


def _decided(plan: Plan, assume: bool) -> Plan:
    """Return the plan if every field that changes its outputs is stated, or accepted. Raises: OpenFields."""
    if assume:
        return replace(plan, accepted=plan.configuration.unstated)
    if error := left_open(plan):
        raise error
    return plan


def left_open(plan: Plan) -> OpenFields | None:
    """Return the error for the fields that nobody states and that change a plan's outputs; None without any."""
    names = plan.configuration.unstated
    if not names:
        return None
    from .unstated import open_error  # which most files do not need

    unread = plan.configuration.unread
    defaults = {name: f"{exact(getattr(plan.config, name))}{likely(unread.get(name, ''))}" for name in names}
    shown, remarks = plan.configuration.shown, plan.configuration.remarks
    return open_error(plan.reader.path, plan.architecture, plan.reading.spec, names, defaults, shown, remarks)


def _refusal(request: Request, choice: Choice, src: str | None, weights: str | None) -> ConvertError:
    """Return the error for a file that no reading fits: that of the first one, with what else is known."""
    reader, hints = request.reader, request.record.hints
    error = choice.problem or choice.rejected[0].error
    if isinstance(error, OpenFields):
        return error
    remedies: list[str] = []
    if not isinstance(error, UsageError):
        if replicas := _replicas(request, choice):
            return replicated(reader.path, replicas)
        if replicas := _replicas(request, choice, axes=2):
            return twice(reader.path, replicas)
        from .files.sharded import remedy
        from .parametrized import parametrized

        tensors = choice.rejected[0].reading.tensors if choice.rejected else reader.tensors
        if tensors and not any(tensor.size for tensor in tensors.values()):
            return ConvertError(f"{reader.path}: {EMPTY}")
        if parts := parametrized((tensor.name for tensor in tensors.values()), USUAL.get(reader.format)):
            return ConvertError(f"{reader.path}: {parts}")
        remedies += filter(None, [remedy(reader.path)])
    if src is not None:
        other = choose(request, candidates(reader, None, hints, weights)).plan
        if other:
            which = command_or_call(_route(other.src, request.dst), f"src={other.src!r}")
            remedies.append(f"every array fits as {other.src}: {which}")
    if (page := unknown_page(hints)) and page not in error.message:
        remedies.insert(0, f"its record {page}")
    error.problems[:0] = remedies
    return error


def _route(src: str, dst: str) -> str:
    """Spell the route from another dialect to the same target."""
    return f"{src}2{'...' if dst in (HUB, src) else dst}"


def _fits(trial: Plan | Rejected) -> bool:
    """Tell whether the arrays fit; a Config field may be open."""
    return isinstance(trial, Plan) or isinstance(trial.error, UsageError)
