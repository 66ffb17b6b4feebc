"""Find the file that holds the state of an optimizer: the weights' own, the one beside it, or the one given."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from convert.errors import ConvertError, FormatError, command_or_call
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor, Wrapped
from convert.files.pickled.tree import NO_TENSORS
from convert.files.skipped import NAMELESS
from convert.folding import summarised
from convert.plans.plan import Plan
from convert.plans.refusal import NotReplicated
from convert.reading import masters, optimizers
from convert.reading.families import FRAMEWORK
from convert.reading.masters import left_beside, optimizer_file, optimizer_place
from convert.reading.nesting import training
from convert.reading.recognise import USUAL, dialects
from convert.reading.replicas import FirstReplica

from . import copies
from .shared import ALONE, PLAIN_SGD

if TYPE_CHECKING:
    from convert.table.plan import TablePlan

SHOWN = 3  # names of the arrays of an optimizer that is not converted
COUNTS = ("count", "step")  # which the state of plain SGD has where its rate follows a schedule
BESIDE = "optimizer file/"  # prefix of the names of arrays that lie in a file of their own


class Held(NamedTuple):
    """A file with the state of an optimizer.

    Args:
      path: of the optimizer's own file; None where the weights' file contains the state.
      state_names: names of all arrays of the weights' file that belong to the state.
      averages: copies of the weights in the weights' file.
      remarks: what the user should know of replicas.
    """

    reader: Reader
    path: str | None
    location: optimizers.Found
    state_names: frozenset[str]
    averages: Sequence[copies.Copy]
    remarks: tuple[str, ...]

    def with_weights(self, reader: Reader) -> Reader:
        """Return the weights' file, with this one's arrays if it is another."""
        return WithState(reader, self.reader) if self.path else self.reader

    @property
    def prefix(self) -> str:
        """Return what stands before the state's names in the joined file."""
        return BESIDE if self.path else ""


class WithState(Wrapped):
    """Two checkpoints as one: the second one's arrays have BESIDE before their names; it is the one to be closed."""

    def __init__(self, first: Reader, second: Reader):
        others = {BESIDE + name: tensor._replace(name=BESIDE + name) for name, tensor in second.tensors.items()}
        super().__init__(first, {**first.tensors, **others})
        self.opened = {**first.opened, **second.opened}
        self.second, self.filled = second, first.filled | {BESIDE + name for name in second.filled}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray | memoryview:
        if name.startswith(BESIDE):
            return self.second.read(name.removeprefix(BESIDE), start, stop)
        return super().read(name, start, stop)

    def whole(self, name: str) -> memoryview | None:
        if name.startswith(BESIDE):
            return self.second.whole(name.removeprefix(BESIDE))
        return super().whole(name)

    def pieces(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        if name.startswith(BESIDE):
            return self.second.pieces(name.removeprefix(BESIDE))
        return super().pieces(name)

    def close(self) -> None:
        self.second.close()


def held(
    plan: Plan | TablePlan,
    file: str | None,
    unreplicate: bool,
    trained: Mapping[str, Tensor],
    stack: contextlib.ExitStack,
) -> Held:
    """Find the state of the optimizer of a model.

    Args:
      file: that the user gives. unreplicate: take one of the replicas of arrays.
      stack: closes the optimizer's own file.
    Raises: ConvertError where there is no state, or several; UsageError where there are no replicas to choose from.
    """
    path = file or _beside(plan.reader)
    reader = stack.enter_context(_opened(path)) if path else plan.reader
    location = optimizers.find(reader)
    if location is None:
        raise ConvertError(_without_state(plan.reader, path, reader))
    _check_library(plan, reader, location)
    if location.library == "torch":
        masters.check(reader, plan.sources.values())
    elif location.library == "paddle":
        masters.check_unified(reader, plan.sources.values())
    state_names = frozenset[str]() if path else optimizers.state_names(reader, location)
    averages = copies.of_plan(plan, plan.reader, state_names)
    remarks = [f"{path}: {note}" for note in reader.remarks] if path else []
    remarks += left_beside(plan.reader, optimizer=False)
    one_of_many = False
    if replicas := optimizers.replicated(reader, location, trained):
        reader, one_of_many = _first_replica(reader, replicas, unreplicate), True
        remarks.append(reader.remarks[-1])
    if unreplicate and not path and (replicas := copies.replicated(averages, reader, trained.values())):
        reader, one_of_many = FirstReplica(reader, replicas, " of the average of the weights"), True
        remarks.append(reader.remarks[-1])
        averages = copies.of_plan(plan, reader, state_names)
    if unreplicate and not isinstance(plan.reader, FirstReplica) and not one_of_many:
        raise NotReplicated(reader.path)
    return Held(reader, path, location, state_names, averages, tuple(remarks))


def _check_library(plan: Plan | TablePlan, reader: Reader, location: optimizers.Found) -> None:
    """Check that a state is of the framework of the weights. Raises: ConvertError where another lays arrays out.

    The shapes of square arrays do not show it. A Table says nothing of frameworks, but the format may.
    """
    own, state = _framework(plan), FRAMEWORK[location.library]
    if reader is not plan.reader and own not in (None, state):
        problem = f"{reader.path} holds {state}'s state, {plan.reader.path} is {own}'s"
        remedy = "their layouts differ: give the file that the training saved beside the weights"
        raise ConvertError(f"{problem}: {remedy}")


def _framework(plan: Plan | TablePlan) -> str | None:
    """Return the framework of a plan's weights; None where nothing shows it."""
    if isinstance(plan, Plan):
        return dialects(plan.architecture)[plan.src].framework
    return USUAL.get(plan.reader.format) if plan.reader.format not in ("npz", "safetensors") else None


def _opened(path: str) -> Reader:
    """Open an optimizer's own file. Raises: ConvertError also for one without a state, as of plain SGD."""
    try:
        return open_checkpoint(path)
    except FormatError as error:
        if error.problem == NO_TENSORS:
            raise ConvertError(f"{path}: {NO_TENSORS}: {PLAIN_SGD}") from None
        raise


def _first_replica(holder: Reader, replicas: Sequence[Tensor], unreplicate: bool) -> Reader:
    """Take one replica of a state. Raises: ConvertError where that was not asked for, or the replicas differ."""
    if unreplicate:
        return FirstReplica(holder, replicas, " of the optimizer's state")
    number = replicas[0].shape[0]
    problem = f"every array of its optimizer's state has a leading axis of {number}, as pmap adds for {number} devices"
    call = command_or_call("a conversion with --unreplicate", "Request(..., unreplicate=True)")
    remedy = f"{call} takes one of them if all are equal; or save one, e.g. flax.jax_utils.unreplicate(state)"
    raise ConvertError(f"{holder.path}: {problem}, and the weights have none: {remedy}")


def _beside(reader: Reader) -> str | None:
    """Return the .pdopt beside a .pdparams that has no state of an optimizer itself; None if there is none."""
    beside = optimizer_file(reader)
    return beside if beside and optimizers.find(reader) is None else None


def _others_arrays(holder: Reader, whole: bool) -> list[str]:
    """Name the arrays that an optimizer keeps which is not converted, as optax.adafactor.

    Args:
      whole: whether the file is that of an optimizer, so that all its arrays are.
    """
    tops = ((name, training(name).rstrip("/").rpartition("/")[2]) for name in holder.tensors)
    return [name for name, top in tops if whole or (top.startswith("opt") and top != name.rpartition("/")[2])]


def _without_state(reader: Reader, path: str | None, holder: Reader) -> str:
    """Say that there is no state of an optimizer that is converted, and where it may be.

    Args:
      holder: the file that was searched.
    """
    skipped = holder.skipped
    if nameless := skipped.names.get(NAMELESS):
        names = summarised(nameless)
        what = f"a pickle does not store the names of the fields of {names}, by which an optimizer's state is found"
        return f"{path or reader.path}: {what}: save it by flax.serialization.to_bytes(state), as .msgpack"
    schedulers = [name.rpartition("LR_Scheduler/")[0] for name in skipped.values if "LR_Scheduler/" in name]
    empty = [name for name in skipped.empty if name.rpartition("/")[2].startswith("opt")]
    if entries := [*empty, *(name.rstrip("/") for name in schedulers)]:
        what = "has a learning-rate scheduler alone" if schedulers else "is empty"
        return f"{path or reader.path}: the entry {entries[0]!r}, of its optimizer, {what}: {PLAIN_SGD}"
    if others := _others_arrays(holder, whole=path is not None):
        if all(name.rpartition("/")[2] in COUNTS for name in others):
            return f"{holder.path}: its optimizer keeps {summarised(others)} alone: {PLAIN_SGD}"
        what = f"its optimizer is none of SGD with momentum, Adam and AdamW: it keeps {summarised(others, SHOWN)}"
        return f"{holder.path}: {what}: {ALONE}"
    lacks = f"{path or reader.path}: has no state of an optimizer (SGD with momentum, Adam or AdamW)"
    if path:
        return lacks
    if beside := optimizer_place(reader):
        lacks = f"no {os.path.basename(beside)} beside {reader.path}, and no state of an optimizer in it"
    likely = _likely_beside(reader)
    return (
        f"{lacks}: give the state's file by --optimizer {likely or 'FILE'}{', as its name suggests' if likely else ''}"
    )


def _likely_beside(reader: Reader) -> str:
    """Return the file or folder beside the weights whose name is that of an optimizer; "" unless there is one alone."""
    folder = os.path.dirname(os.path.abspath(reader.path)) if reader.on_disk else ""
    listed = os.listdir(folder) if os.path.isdir(folder) else []  # a URL has none
    names = [name for name in listed if name.lower().startswith("opt")]
    return os.path.join(os.path.dirname(reader.path), names[0]) if len(names) == 1 else ""
