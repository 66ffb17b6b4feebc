"""Name a plan's target as the state of an nnx module, for `nnx.update` after orbax's StandardCheckpointer."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from convert.errors import UsageError, option
from convert.reading.recognise import dialects
from specs.kinds import COLLECTIONS, FRAMEWORKS

from .plan import Plan

LEAF = "value"  # what an nnx.Variable calls its array
LISTED, LEVELS = re.compile(r"_(\d+)(?=/|$)"), r"/\1"


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
    collection, _, rest = name.partition("/")
    inner = rest if collection in COLLECTIONS else name
    return f"{LISTED.sub(LEVELS, inner) if lists else inner}/{LEAF}"
