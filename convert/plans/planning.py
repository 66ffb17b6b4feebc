"""Plan a conversion: complete, from names and shapes alone, before any payload is read.

    plan = convert.plan("weights.npz", src="google", dst="torch")
    convert.write(plan, "out.safetensors")

The steps, each a function of values: candidates (recognise) -> choose, which configures and translates each reading and
keeps why the others are rejected -> Plan, for `execute`. What proves a plan complete: `by_dialect.Problems` checks
the names and shapes of the file, and `specs.covering.filling` that each element goes to one place. Whether a value
that nobody states may be assumed is decided here, by `_accept_assumptions`.
"""

import os
from dataclasses import replace
from typing import NamedTuple

from convert.arrays.dtypes import check_target
from convert.config.settings import Settings, Stated
from convert.errors import OpenFields
from convert.files import open_checkpoint
from convert.files.base import Reader
from convert.reading.recognise import candidates, known_dialect
from convert.reading.spelling import respelled
from convert.records import checked
from convert.records.record import Record, likely
from convert.records.record import read as read_record
from specs.dialects import HUB
from specs.numbers import exact

from .choosing import Request, choose
from .plan import Plan


class Asked(NamedTuple):
    """What a plan is asked for; for the fields see `plan`."""

    src: str | None = None
    dst: str = HUB
    settings: Stated = None
    dtype: str | None = None
    weights: str | None = None
    assume: bool = False
    unreplicate: bool = False
    architecture: str | None = None


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
    architecture: str | None = None,
) -> Plan:
    """Plan a conversion.

    Args:
      path: source checkpoint, any format.
      src: its dialect; None recognises it.
      dst: target dialect.
      settings: Config fields set by the user, above everything the file says.
      dtype: dtype of the target's floating-point tensors; None keeps the source's.
      weights: which part of a training checkpoint to take, e.g. "state_dict_ema"; "/" is the root of the file.
      assume: accept the default of each setting that changes the outputs and that nobody states; `Plan.assumed` and the
        record name them.
      sampled: compare the file with its record by a sample of the values, which a note reports, and not by all.
      unreplicate: take the first of the replicas that pmap leaves, after checking that all are equal.
      step: which step of a training run's folder; None takes the newest.
      architecture: whose checkpoint it is; None recognises it.
    Raises: PlanError that lists every missing, unexpected and mis-shaped tensor; OpenFields for Config fields that
    change the outputs and that neither the file, nor its record, nor `settings` states.
    """
    check_target(dtype)
    for name in (src, dst if dst != HUB else None):
        if name is not None:
            known_dialect(name)
    reader = open_checkpoint(path, step)
    try:
        record = checked.read(reader, sampled)
        asked = Asked(src, dst, settings, dtype, weights, assume, unreplicate, architecture)
        return plan_read(reader, asked, record)
    except BaseException:
        reader.close()
        raise


def plan_read(reader: Reader, asked: Asked, record: Record | None = None) -> Plan:
    """Plan a file that is open, as `plan` does; it stays open where this raises.

    Args:
      record: of the file; None reads it, and compares it with a sample of the file's values.
    """
    own = record or read_record(reader)
    request = Request(respelled(reader), own, Settings.of(asked.settings), asked.dst, asked.dtype)
    if asked.unreplicate:
        from .refusal import first_replica

        request = request._replace(reader=first_replica(request, asked.src, asked.weights))
    hints = request.record.hints
    choice = choose(request, candidates(request.reader, asked.src, hints, asked.weights, asked.architecture))
    if choice.plan is None:
        from .refusal import refusal

        raise refusal(request, choice, asked.src, asked.weights)
    return _accept_assumptions(choice.plan, asked.assume)


def _accept_assumptions(plan: Plan, assume: bool) -> Plan:
    """Accept defaults of fields that change the outputs and that nobody states; without `assume`, raise OpenFields."""
    if assume:
        return replace(plan, accepted=plan.configuration.must_state)
    if error := left_open(plan):
        raise error
    return plan


def left_open(plan: Plan) -> OpenFields | None:
    """Return the error for the fields that nobody states and that change a plan's outputs; None without any."""
    names = plan.configuration.must_state
    if not names:
        return None
    from convert.config.open_fields import open_error  # which most files do not need

    suggested = plan.configuration.suggested
    defaults = {name: f"{exact(getattr(plan.config, name))}{likely(suggested.get(name, ''))}" for name in names}
    shown, remarks = plan.configuration.shown, plan.configuration.remarks
    return open_error(plan.reader.path, plan.architecture, plan.reading.spec, names, defaults, shown, remarks)
