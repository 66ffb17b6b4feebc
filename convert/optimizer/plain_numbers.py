"""Carry plain numbers of a training that lie beside its weights and its optimizer, as an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from convert.files.base import Reader
from convert.plans.plan import Plan
from convert.reading.optimizers import counts_beside, step_beside
from convert.records.record import Record
from specs.numbers import exact
from specs.words import first_few

from .builder import Written
from .holding import Held
from .shared import scalar

if TYPE_CHECKING:
    from convert.table.plan import TablePlan

KEY = "beside"  # in what a record says of an optimizer: the numbers for which its file has no place
MOST = 1000  # numbers that go along
NAMED = 20  # of them that a note names
RESTORED = "from which a conversion back restores them, unless the file is trained further"
WENT_ON, NO_RECORD = "as the training went on", "as the file has no record of its own"


class PlainNumbers(NamedTuple):
    """Numbers of a training.

    Args:
      values: by their own names. stored: the names of those that the file has, in the file.
      placed: whether the target has a place for them; else its record has them.
      aside: arrays of one number that is not finite, or whose names stand for something else in the target.
      outdated: those that a record has of earlier steps of the training alone. why: nothing restores them.
    """

    values: Mapping[str, float]
    stored: frozenset[str] = frozenset()
    placed: bool = False
    aside: Mapping[str, float] = MappingProxyType({})
    outdated: Mapping[str, float] = MappingProxyType({})
    why: str = WENT_ON

    def about(self) -> dict[str, Any]:
        """Return what the record says of them."""
        return {KEY: dict(self.values)} if self.values and not self.placed else {}

    def remarks(self) -> list[str]:
        """Say what becomes of them."""
        own = "as the target's own count has this name"
        aside = [f"set aside {name}={exact(value)}, {own if math.isfinite(value) else 'which is no number of a count'}"
                 for name, value in self.aside.items()]  # fmt: skip
        along = "go along" if self.stored else "go along, from the record"
        where = along if self.placed else f"{'go into' if self.stored else 'stay in'} the record alone, {RESTORED}"
        kept = [f"numbers beside the state {where}: {_listed(self.values)}"] if self.values else []
        lost = (
            [f"numbers beside the state are not restored, {self.why}: {_listed(self.outdated)}"]
            if self.outdated
            else []
        )
        return [*kept, *lost, *aside]


def added(
    written: Written, plan: Plan | TablePlan, held: Held, record: Record, config: Mapping[str, Any]
) -> tuple[Written, PlainNumbers]:
    """Add the numbers beside the state to a target, if it has a place for them: a dict of the weights and the state.

    Args:
      record: of the file. config: what the record of --config says of an optimizer.
    """
    counts = [] if held.path else counts_beside(held.reader, held.location)
    of_arrays = {name: _of_array(held.reader, name) for name in counts}
    numbers = {**_numbers(plan, held), **{name: value for name, value in of_arrays.items() if _is_number(value)}}
    values = {name.rpartition("/")[2]: value for name, value in numbers.items()} or _recorded(record.optimizer, held)
    placed = "model" in written.tree
    free = {name: value for name, value in values.items() if name not in written.tree}
    stored = frozenset(name for name in numbers if name.rpartition("/")[2] in free or name in counts)
    tree = {**written.tree, **free} if placed else written.tree
    aside = {name: of_arrays[name] for name in counts if name.rpartition("/")[2] not in free}
    earlier = _recorded(config, held) | _recorded(record.earlier_optimizer, held)
    outdated = {name: value for name, value in earlier.items() if name not in values and name not in written.tree}
    return replace(written, tree=tree), PlainNumbers(
        free, stored, placed, aside, outdated, WENT_ON if record.content else NO_RECORD
    )


def _numbers(plan: Plan | TablePlan, held: Held) -> dict[str, float]:
    """Return numbers in the container that has both the weights and the state, by their names in the file.

    Where the state is in a file of its own, it is the container of all weights, or of what contains them as "model".
    The step of a TrainState is optax's own count, which goes along with the state.
    """
    names = [tensor.name for tensor in plan.sources.values()] or [""]
    if held.path:
        each = zip(*(name.split("/")[:-1] for name in names), strict=False)
        levels = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, each)][:-1]
    else:
        pairs = zip(names[0].split("/"), held.location.top.split("/"), strict=False)
        levels = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    values = (plan.reader if held.path else held.reader).skipped.load()
    inside = {name: value for name, value in values.items() if name.split("/")[:-1] == levels}
    own = step_beside(held.location) if held.location.library == "optax" else ""
    numbers = {name: value for name, value in inside.items() if name != own and _is_number(value)}
    return numbers if len(numbers) <= MOST else {}


def _of_array(reader: Reader, name: str) -> float:
    """Read an array of one number."""
    tensor = reader.tensors[name]
    if tensor.dtype.startswith("float"):
        return scalar(reader, tensor)
    return int.from_bytes(bytes(reader.read(name)), "little", signed=tensor.dtype.startswith("int"))


def _recorded(record: Mapping[str, Any], held: Held) -> dict[str, float]:
    values = record.get(KEY, {}) if record.get("to") == held.location.library else {}
    listed = values.items() if isinstance(values, dict) and len(values) <= MOST else ()
    return {name: value for name, value in listed if _is_number(value)}


def _listed(values: Mapping[str, float]) -> str:
    return first_few([f"{name}={exact(value)}" for name, value in values.items()], NAMED)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**63
