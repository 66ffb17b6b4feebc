"""Name a plan's target as the state of an nnx module, for `nnx.update` after orbax's StandardCheckpointer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from convert.errors import UsageError, option
from convert.reading.recognise import dialects
from specs.kinds import FRAMEWORKS, nnx_name

from .plan import Plan

LEAF = "value"  # what an nnx.Variable calls its array


def as_nnx(plan: Plan) -> Plan:
    """Return the same plan with the names of an nnx.State: no collections, a level `value` under each array.

    A list of modules, which linen spells `blocks_0`, is a level of its own: `blocks/0`. Only ports write lists; in
    other people's dialects a number belongs to the name.
    Raises: UsageError where the target is not of flax.
    """
    if dialects(plan.architecture)[plan.dst].framework != "flax":
        raise UsageError(f"{option('layout', 'nnx')}: {plan.dst} is not a dialect of flax")
    return replace(plan, spelled=partial(_state_name, lists=plan.dst in FRAMEWORKS))


def _state_name(name: str, lists: bool) -> str:
    return f"{nnx_name(name, lists)}/{LEAF}"
