"""Plan a conversion with the state of the optimizer: the plan of the weights, and its moves applied to the moments."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from convert import folding
from convert.casting import FLOATS
from convert.errors import ConvertError, UsageError, command_or_call, option
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor, Wrapped
from convert.plans import Plan
from convert.recognise import dialects
from convert.record import read as read_record
from convert.replicas import FirstReplica
from convert.steps import Constant, Filling, Promise, Step, Sum, is_supplied, sources_of
from specs.dialects import place
from specs.kinds import FRAMEWORKS
from specs.layer import parameters
from specs.moves import Fill, Move

from . import averages, copies, finding, reading, writing
from .families import COLLECTION, FAMILIES, FRAMEWORK, HYPERPARAMETERS, KINDS, LIBRARY, MOMENTS
from .settling import settled, unstated
from .state import ORDER, State, recorded

if TYPE_CHECKING:
    from convert.by_table import TablePlan

STATIC_EMA = re.compile(r"\.ema_tmp_\d+$")  # in the names of paddle.static.ExponentialMovingAverage
FROM_ZERO = "they begin at 0, and have to be divided by 1 - decay^count: a place of weights would hold others"
BESIDE = "optimizer file/"  # prefix of the names of arrays that lie in a file of their own


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Args:
      file: the optimizer's own file; None where the checkpoint contains it.
      like: a state_dict of the target model, by its framework: has torch's order, or paddle's own names.
      stated: hyperparameters. dtype: of the target's floating-point tensors; None keeps the source's.
      unreplicate: take the first of the replicas that pmap leaves, after checking that all are equal.
    """

    file: str | None
    like: str | None
    stated: Mapping[str, Any]
    dtype: str | None
    unreplicate: bool = False


@dataclass(frozen=True)
class OptimizerPlan:
    """The plan of a model's weights, and of its optimizer's state in the same file."""

    weights: Plan | TablePlan
    reader: Reader
    steps: tuple[Step, ...]
    sources: Mapping[str, Tensor]
    tree: Any
    about: Mapping[str, Any]
    remarks: tuple[str, ...]
    supplied: tuple[str, ...]
    averaged: tuple[Promise, ...] = ()  # what has to hold of the averages

    @property
    def checks(self) -> Sequence[Promise]:
        return [*self.weights.checks, *self.averaged]

    @property
    def parameters(self) -> int:
        return self.weights.parameters

    @property
    def labels(self) -> dict[str, str]:
        """Return what a moment of the target is, as its user knows it: the source's array and its parameter."""
        labels = {}
        for tensor, filling in self.steps:
            for name in sources_of(filling):
                slot, _, parameter = name.partition(": ")
                if slot in MOMENTS:
                    labels[tensor.name] = f"{self.sources[name].name.removeprefix(BESIDE)} (of {parameter})"
        return labels

    def notes(self) -> list[str]:
        return [*self.weights.notes(), *self.remarks]

    def facts(self) -> dict[str, Any]:
        facts = {name: value for name, value in self.weights.facts().items() if name != "supplied"}
        supplied = {"supplied": list(self.supplied)} if self.supplied else {}
        return {**facts, **supplied, "optimizer": dict(self.about)}


class Joined(Wrapped):
    """Two checkpoints as one: the second one's arrays have BESIDE before their names; it is the one to be closed."""

    def __init__(self, first: Reader, second: Reader):
        others = {BESIDE + name: tensor._replace(name=BESIDE + name) for name, tensor in second.tensors.items()}
        super().__init__(first, {**first.tensors, **others})
        self.second = second

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray | memoryview:
        if name.startswith(BESIDE):
            return self.second.read(name.removeprefix(BESIDE), start, stop)
        return super().read(name, start, stop)

    def pieces(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        if name.startswith(BESIDE):
            return self.second.pieces(name.removeprefix(BESIDE))
        return super().pieces(name)

    def close(self) -> None:
        self.second.close()


def _suffix(out: str) -> str:
    return os.path.splitext(out.rstrip(os.sep))[1].lower()


def library_of(out: str) -> str:
    """Return the library whose state a target holds. Raises: UsageError for formats that hold arrays alone."""
    suffix = _suffix(out)
    if suffix not in LIBRARY:
        raise UsageError(f"{out}: --with-optimizer: a state of an optimizer goes into one of {' '.join(LIBRARY)}")
    return LIBRARY[suffix]


def with_optimizer(plan: Plan | TablePlan, out: str, request: Request, stack: contextlib.ExitStack) -> OptimizerPlan:
    """Add the state of the optimizer to a plan of the weights.

    Args:
      stack: closes the optimizer's own file.
    Raises: ConvertError for what no other library can hold; UsageError for what the user has to state.
    """
    library, reader = library_of(out), plan.reader
    _check_target(plan, library, out)
    path = request.file or _beside(reader)
    holder = stack.enter_context(open_checkpoint(path)) if path else reader
    found = finding.find(holder)
    if found is None:
        raise ConvertError(_without_state(reader, path))
    trained, remarks = _trained(plan), list[str]()
    apart = frozenset[str]() if path else finding.apart(holder, found)
    found_copies = copies.of(plan, reader, apart)
    if replicas := finding.replicated(holder, found, trained):
        holder = _first_replica(holder, replicas, request)
        remarks = [holder.remarks[-1]]
    if request.unreplicate and not path and (replicas := copies.replicated(found_copies, holder, trained.values())):
        holder = FirstReplica(holder, replicas, " of the average of the weights")
        remarks.append(holder.remarks[-1])
        found_copies = copies.of(plan, holder, apart)
    if request.unreplicate and not isinstance(reader, FirstReplica) and not remarks:
        raise UsageError(f"{holder.path}: {option('unreplicate')}: its arrays fit as they are: leave it out")
    own = {name: reader.parameter_names[t.name] for name, t in trained.items() if t.name in reader.parameter_names}
    hyper = {name: value for name, value in request.stated.items() if name != "averaged"}
    state = reading.read(holder, found, trained, own, hyper, keeps_order(reader))
    state, from_record = _with_record(state, plan, path, hyper)
    state = settled(holder.path, state, hyper)
    prefix, reader = (BESIDE, Joined(reader, holder)) if path else ("", holder)
    suffix = _suffix(out)
    model, sources, without = _model(plan, state, request, library, prefix, numbered=suffix != ".dcp")
    average, averaged, behind = averages.chosen(found_copies, plan, trained, request.dtype, request.stated)
    sources |= averaged
    earlier = _earlier(plan) | ({BESIDE + name for name in read_record(holder).supplied} if path else set())
    known = plan.translation.recorded if isinstance(plan, Plan) else ()
    model = replace(
        model,
        averages=average,
        is_supplied=lambda name, filling: name not in known and is_supplied(filling, sources, earlier),
    )
    if state.groups:
        _check_groups(holder.path, state, library)
        model = replace(model, groups=_groups(plan, state, model.trained))
    written = writing.write(library, state, model, suffix)
    about = {
        "kind": state.kind,
        "step": state.step,
        "hyperparameters": {name: value for name, value in state.hyper.items() if name != "kind"},
        **({"changed": dict(state.changed)} if state.changed else {}),
        "from": state.library,
        "to": library,
        "moments": sum(map(len, state.moments.values())),
        "without": without,
        **({"assumed": list(state.assumed)} if state.assumed else {}),
        **({"file": os.path.basename(path), "sha256": _sha256(path)} if path else {}),
        **averages.about(found_copies, average, written.averages),
    }
    counted = f" after {state.step:,} steps" if state.step is not None else ""
    remarks += [f"the optimizer's state goes along: {about['kind']}{counted}, from {state.library} to {library}"]
    remarks += [f"the optimizer's state is from {path}"] if path else []
    if state.scheduler and library != "paddle":
        remarks.append("set aside, paddle's learning-rate scheduler, but for its rate: LR_Scheduler")
    others = [name for name in holder.tensors if name not in state.used] if path else []
    if any(STATIC_EMA.search(name) for name in others):
        behind.append(f"sums of paddle.static's ExponentialMovingAverage stay behind, of {path}: {FROM_ZERO}")
    remarks += [f"set aside, of {path}: {', '.join(folding.fold(others))}"] if others else []
    remarks += [f"without a state in the source, so with zeros: {', '.join(without)}"] if without else []
    if average and written.averages:
        remarks.append(f"the average of the weights goes along: {average.place} -> {written.averages}")
    accounted = apart if path else state.used | apart
    accounted |= {name for copy in found_copies for name in copy.used if written.averages}
    checks = average.checks if average and written.averages else ()
    return OptimizerPlan(
        replace(plan, accounted=accounted), reader, written.steps, sources, written.tree, about,
        (*remarks, *behind, *state.notes, *from_record, *written.notes), written.supplied, checks,
    )  # fmt: skip


def _earlier(plan: Plan | TablePlan) -> frozenset[str]:
    """Return the file's arrays that an earlier conversion supplied."""
    return plan.record.supplied if isinstance(plan, Plan) else plan.earlier


def _with_record(
    state: State, plan: Plan | TablePlan, path: str | None, stated: Mapping[str, Any]
) -> tuple[State, list[str]]:
    """Add to a state what only the record of its file says: kind, hyperparameters, and what was assumed of it.

    Args:
      path: of the optimizer's own file, whose record is not that of the weights; None where the weights' file has both.
      stated: what the user states, which goes above a record.
    Returns: the state, and notes.
    """
    record = plan.record if isinstance(plan, Plan) else read_record(plan.reader)
    optimizer = {} if path else record.optimizer
    if optimizer.get("to") != state.library:
        return state, []
    values = recorded(optimizer)
    if KINDS.get(values.get("kind", ""), state.family) != state.family:
        return state, []
    added = {name: value for name, value in values.items() if name not in state.hyper and name not in stated}
    notes = [f"from the record: {', '.join(f'{name}={value}' for name, value in added.items())}"] if added else []
    if isinstance(listed := optimizer.get("assumed"), list) and ORDER in listed and ORDER not in state.assumed:
        notes.append(f"assumed when the record was written, not known: {ORDER} in the optimizer's state")
        state = replace(state, assumed=(*state.assumed, ORDER))
    return replace(state, hyper={**added, **state.hyper}), notes


def _first_replica(holder: Reader, replicas: Sequence[Tensor], request: Request) -> Reader:
    """Take one replica of a state. Raises: ConvertError where that was not asked for, or the replicas differ."""
    if request.unreplicate:
        return FirstReplica(holder, replicas, " of the optimizer's state")
    number = replicas[0].shape[0]
    problem = f"every array of its optimizer's state has a leading axis of {number}, as pmap adds for {number} devices"
    call = command_or_call("a conversion with --unreplicate", "Request(..., unreplicate=True)")
    remedy = f"{call} takes one of them if all are equal; or save one, e.g. flax.jax_utils.unreplicate(state)"
    raise ConvertError(f"{holder.path}: {problem}, and the weights have none: {remedy}")


def _check_target(plan: Plan | TablePlan, library: str, out: str) -> None:
    if isinstance(plan, Plan):
        framework = dialects(plan.architecture)[plan.dst].framework
        if framework != FRAMEWORK[library]:
            raise UsageError(f"{out}: {plan.dst} is of {framework}, whose optimizers are not stored in such a file")


def keeps_order(reader: Reader) -> bool:
    """Tell whether a file stores arrays in the order of model.parameters(): one that torch.save wrote does."""
    return reader.format == "torch" and not reader.path.endswith(".json")


def _beside(reader: Reader) -> str | None:
    """Return the .pdopt beside a .pdparams, in which paddle stores the optimizer; None if there is none."""
    beside = os.path.splitext(reader.path)[0] + ".pdopt"
    own = reader.format == "pdparams" and reader.on_disk and beside != reader.path
    return beside if own and os.path.isfile(beside) and finding.find(reader) is None else None


def _check_groups(path: str, state: State, library: str) -> None:
    """Check that a target holds groups of parameters. Raises: ConvertError with a way on."""
    unlike = unstated(state)
    problem = f"{path}: its {len(state.groups)} groups of parameters differ in {', '.join(unlike)}"
    if library != "torch":
        stated = " ".join(f"--hyper {name}=..." for name in unlike if name in HYPERPARAMETERS)
        remedy = f"{stated} states one for all; docs/training.md exempts parameters" if stated else "make them alike"
        raise ConvertError(f"{problem}: {library} keeps one of each: {remedy}")


def _groups(plan: Plan | TablePlan, state: State, trained: Sequence[str]) -> list[tuple[list[str], Mapping[str, Any]]]:
    """Return the target's weights by the groups of their sources. Raises: ConvertError where one has sources of two."""
    number_of = {name: number for number, group in enumerate(state.groups) for name in group.parameters}
    members: list[list[str]] = [[] for _ in state.groups]
    sources = {tensor.name: sources_of(filling) for tensor, filling in plan.steps}
    for weight in trained:
        numbers = {number_of[name] for name in sources[weight] if name in number_of}
        if len(numbers) != 1:
            raise ConvertError(
                f"{plan.reader.path}: {weight} is of {len(numbers)} groups of the optimizer's parameters"
            )
        members[numbers.pop()].append(weight)
    return [(names, group.values) for names, group in zip(members, state.groups, strict=True)]


def _without_state(reader: Reader, path: str | None) -> str:
    """Say that there is no state of an optimizer, and where it may be."""
    lacks = f"{path or reader.path}: has no state of an optimizer that is known: SGD with momentum, Adam or AdamW"
    if path:
        return lacks
    beside = os.path.splitext(reader.path)[0] + ".pdopt"
    if reader.format == "pdparams" and reader.on_disk and beside != reader.path:
        lacks = f"no {os.path.basename(beside)} beside {reader.path}, and no state of an optimizer in it"
    return f"{lacks}: give the state's file by --optimizer FILE"


def _sha256(path: str) -> str:
    from convert.files.hashing import sha256

    return sha256(path)


def _trained(plan: Plan | TablePlan) -> dict[str, Tensor]:
    """Return the arrays of the source that are trained, by the names that steps use, in the order of its file."""
    known = _known(plan) if isinstance(plan, Plan) else {}
    return {
        name: tensor
        for name, tensor in plan.sources.items()
        if known.get(name, not writing.is_buffer(name) and not COLLECTION.search(name))
    }


def _known(plan: Plan) -> dict[str, bool]:
    """Tell whether each array of the architecture is trained, by its name in the source."""
    dialect = dialects(plan.architecture)[plan.src]
    every = [(p, place(p, dialect, plan.config)) for p in parameters(list(plan.reading.spec.layers(plan.config)))]
    return {name: p.trained for p, stored in every if stored is not None for name in stored.names.values()}


def _model(
    plan: Plan | TablePlan, state: State, request: Request, library: str, prefix: str, numbered: bool
) -> tuple[writing.Model, dict[str, Tensor], list[str]]:
    """Return the target's weights with what fills their moments, all sources, and the weights without a state.

    Args:
      prefix: of the moments' names in the file. numbered: whether a torch target numbers parameters.
    """
    trained, path = _trained(plan), plan.reader.path
    sources = dict(plan.sources)
    for slot, arrays in state.moments.items():
        for name, tensor in arrays.items():
            sources[f"{slot}: {name}"] = tensor._replace(name=prefix + tensor.name)
    moments: dict[str, dict[str, Filling]] = {slot: {} for slot in FAMILIES[state.family]}
    dtypes: dict[tuple[str, str], str] = {}
    without: list[str] = []
    for tensor, filling in plan.steps:
        if not _is_trained(tensor, filling, trained, path, isinstance(plan, Plan)):
            continue
        for slot in moments:
            moved, dtype = _moved(tensor, filling, slot, state.moments[slot], sources, path)
            moments[slot][tensor.name] = moved
            dtypes[slot, tensor.name] = request.dtype if request.dtype and dtype in FLOATS else dtype
            if isinstance(moved, Constant) and tensor.name not in without:
                without.append(tensor.name)
    names = [tensor.name for tensor, _ in plan.steps]
    ordered, own = _like(plan, request.like, library if numbered else "", names)
    moments = {slot: {name: fills[name] for name in ordered if name in fills} for slot, fills in moments.items()}
    return writing.Model(path, _sorted(plan.steps, ordered), moments, dtypes, own), sources, without


def _sorted(steps: Sequence[Step], names: list[str]) -> list[Step]:
    by_name = {step[0].name: step for step in steps}
    return [by_name[name] for name in names]


def _is_trained(tensor: Tensor, filling: Filling, trained: Mapping[str, Tensor], path: str, by_dialect: bool) -> bool:
    """Tell whether a target tensor is a parameter; a float constant of a dialect is one that its network never uses.

    Raises: ConvertError where that is not known.
    """
    names = sources_of(filling)
    if names:
        kinds = {name in trained for name in names}
        if len(kinds) > 1:
            raise ConvertError(f"{path}: {tensor.name} joins arrays of which the optimizer trains some and others not")
        return kinds.pop()
    if tensor.dtype not in FLOATS or writing.is_buffer(tensor.name) or COLLECTION.search(tensor.name):
        return False
    if by_dialect:
        return True
    raise ConvertError(f"{path}: {tensor.name} is a constant of the table: whether it is trained is not known")


def _moved(
    tensor: Tensor, filling: Filling, slot: str, arrays: Mapping[str, Tensor], sources: Mapping[str, Tensor], path: str
) -> tuple[Filling, str]:
    """Return the moves of a weight applied to one of its moments, and the moment's dtype."""
    if isinstance(filling, Sum):
        raise ConvertError(f"{path}: {tensor.name} is the sum of parameters: it has no moments that follow from theirs")
    names = sources_of(filling)
    kept = {name for name in names if name in arrays}
    if isinstance(filling, Constant) or not kept:
        return Constant(0), tensor.dtype
    if kept != set(names):
        lacking = ", ".join(sorted(set(names) - kept))
        raise ConvertError(f"{path}: {tensor.name} joins parameters, and the optimizer has no state of {lacking}")
    found = {sources[f"{slot}: {name}"].dtype for name in names}
    if len(found) > 1:
        raise ConvertError(
            f"{path}: {tensor.name} joins moments of {' and '.join(sorted(found))}: make them alike first"
        )
    parts: list[Move | Fill] = [
        part._replace(source=f"{slot}: {part.source}") if isinstance(part, Move) else part._replace(value=0.0)
        for part in filling
    ]
    return parts, found.pop()


def _like(plan: Plan | TablePlan, like: str | None, library: str, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the target's names in its framework's order, and paddle's own names of them.

    Raises: UsageError where torch's order is not known; ConvertError where `like` is another model's file.
    """
    if like is not None:
        with open_checkpoint(like) as reader:
            if library == "torch" and not keeps_order(reader):
                what = f"a {reader.format} file does not keep the order in which torch counts parameters"
                raise UsageError(f'{like}: --like: {what}: give torch.save(model.state_dict(), "new.pt")')
            theirs, own = list(reader.tensors), dict(reader.parameter_names)
        if sorted(theirs) != sorted(names):
            other = sorted(set(theirs) ^ set(names))
            raise ConvertError(f"{like}: --like: holds other arrays than the target: {', '.join(other[:6])}")
        return theirs, own
    known = isinstance(plan, Plan) and plan.dst in FRAMEWORKS
    if library == "torch" and not known:
        raise UsageError(
            f"{plan.reader.path}: torch numbers parameters in the order of the model's code, which is not known here: "
            'save a new model by torch.save(model.state_dict(), "new.pt") and give it: --like new.pt'
        )
    return names, {}
