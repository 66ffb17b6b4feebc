"""Plan a conversion with the state of the optimizer: the plan of the weights, and its moves applied to the moments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from convert.arrays.steps import Filling, Promise, Step, is_supplied, sources_of, supplied_in_part
from convert.errors import UsageError
from convert.files.base import Reader, Tensor
from convert.plans.plan import Plan
from convert.reading.families import FRAMEWORK, KINDS, LIBRARY, MOMENTS, suffix_of
from convert.reading.recognise import dialects
from convert.records.record import IN_PART
from convert.records.record import read as read_record
from specs.numbers import exact

from . import (
    averages,
    groups,
    holding,
    like,
    moving,
    parameters,
    plain_numbers,
    reading,
    ties,
    to_optax,
    variances,
    writing,
)
from .account import Moves
from .builder import Written
from .from_paddle import USUAL_BETAS
from .settling import RECORD, WHOSE_RECORD, contradicted, settled, spelt
from .state import BETAS, KIND, ORDER, UNLISTED, State, given, lost_groups, recorded, recorded_scheduler

if TYPE_CHECKING:
    from convert.table.plan import TablePlan


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Args:
      file: the optimizer's own file; None where the checkpoint contains it.
      like: a state_dict of the target model, by its framework: has torch's order, or paddle's own names.
      stated: hyperparameters. dtype: of the target's floating-point tensors; None keeps the source's.
      unreplicate: take the first of the replicas that pmap leaves, after checking that all are equal.
      config: the file of --config, and what its record says of an optimizer.
    """

    file: str | None
    like: str | None
    stated: Mapping[str, Any]
    dtype: str | None
    unreplicate: bool = False
    config: tuple[str, Mapping[str, Any]] = ("", {})


@dataclass(frozen=True)
class OptimizerPlan:
    """The plan of a model's weights, and of its optimizer's state in the same file.

    Args:
      remarks: what to check or to do, the most important first. along: what goes along, and what is set aside.
      counts: how many of the steps are weights, averages, moments and numbers; see Written.
      out: the target, whose format and library this is laid out for.
    """

    weights: Plan | TablePlan
    reader: Reader
    steps: tuple[Step, ...]
    sources: Mapping[str, Tensor]
    tree: Any
    about: Mapping[str, Any]
    remarks: tuple[str, ...]
    along: tuple[str, ...]
    supplied: tuple[str, ...]
    counts: Mapping[str, int]
    promises: tuple[Promise, ...] = ()  # what has to hold of the moments and averages
    out: str = ""
    beside: tuple[str, ...] = ()  # other files that this is planned from: the optimizer's, and that of --like

    @property
    def checks(self) -> Sequence[Promise]:
        return [*self.weights.checks, *self.promises]

    @property
    def parameters(self) -> int:
        return self.weights.parameters

    @property
    def labels(self) -> dict[str, str]:
        """Return what a moment of the target is, as its user knows it: the source's array and its parameter."""
        own = {name: self.sources[name].name.removeprefix(holding.BESIDE) for _, name in self._moments()}
        return {target: f"{own[name]} (of {name.partition(': ')[2]})" for target, name in self._moments()}

    @property
    def squares(self) -> set[str]:
        """Return the target's second moments, which are means of squares."""
        return {target for target, name in self._moments() if name.startswith("second: ")}

    def _moments(self) -> Iterator[tuple[str, str]]:
        """Yield each array of the target that is a moment, and the source that it takes."""
        every = ((tensor.name, name) for tensor, filling in self.steps for name in sources_of(filling))
        return ((target, name) for target, name in every if name.partition(": ")[0] in MOMENTS)

    def notes(self) -> list[str]:
        return [*self.remarks, *self.weights.notes(), *self.along]

    def facts(self) -> dict[str, Any]:
        facts = {name: value for name, value in self.weights.facts().items() if name not in ("supplied", IN_PART)}
        supplied = {"supplied": list(self.supplied)} if self.supplied else {}
        partly = [name for name in supplied_in_part(self.steps, self.sources, (), ()) if name in self.supplied]
        supplied |= {IN_PART: partly} if partly else {}
        return {**facts, **supplied, "optimizer": dict(self.about)}

    def write(self, force: bool = False, **options: Any) -> dict[str, Any]:
        """Write the target and return the record that travels with it; see `execute` for the options."""
        from convert.execute import write

        return write(self, self.out, force, **options)


def library_of(out: str) -> str:
    """Return the library whose state a target holds. Raises: UsageError for formats that hold arrays alone."""
    suffix = suffix_of(out)
    if suffix not in LIBRARY:
        raise UsageError(f"{out}: --with-optimizer: a state of an optimizer goes into one of {' '.join(LIBRARY)}")
    return LIBRARY[suffix]


@contextlib.contextmanager
def with_optimizer(
    plan: Plan | TablePlan,
    out: str | os.PathLike[str],
    hyper: Mapping[str, Any] | None = None,
    like: str | None = None,
    optimizer: str | None = None,
    dtype: str | None = None,
    unreplicate: bool = False,
) -> Iterator[OptimizerPlan]:
    """Add the state of the optimizer to a plan of the weights, for a target `out`, as --with-optimizer does.

    Args:
      hyper: what the file does not say of the optimizer, as {"kind": "adamw", "lr": 1e-3}.
      like: a new model of the target, saved by its framework. optimizer: file of the state, if the checkpoint lacks it.
      dtype, unreplicate: of the moments, see `convert.plan`.
    """
    stated = given([f"{name}={value}" for name, value in (hyper or {}).items()])
    with contextlib.ExitStack() as stack:
        yield plan_state(plan, os.fspath(out), Request(optimizer, like, stated, dtype, unreplicate), stack)


def plan_state(plan: Plan | TablePlan, out: str, request: Request, stack: contextlib.ExitStack) -> OptimizerPlan:
    """Add the state of the optimizer to a plan of the weights.

    Args:
      stack: closes the optimizer's own file.
    Raises: ConvertError for what no other library can hold; UsageError for what the user has to state.
    """
    library, suffix = library_of(out), suffix_of(out)
    numbered = suffix != ".dcp"
    _check_target(plan, library, out)
    trained = parameters.trained_arrays(plan)
    held = holding.held(plan, request.file, request.unreplicate, trained, stack)
    state, from_record = _asked_state(plan, held, trained, request, suffix, numbered)
    moving.check_real(held.reader.path, state, library)
    if library == "optax":
        to_optax.check_steps(held.reader.path, state)
    trained = {name: tensor for name, tensor in trained.items() if name not in state.buffers}
    model, sources = moving.model(plan, trained, state, request.dtype, request.like, library, held.prefix, numbered)
    record = plan.record if isinstance(plan, Plan) else read_record(plan.reader)
    average, averaged, behind = averages.chosen(
        held.averages, plan, trained, request.dtype, request.stated, record.optimizer
    )
    sources |= averaged
    of_groups = groups.check(held.reader.path, state, library) if state.groups else []
    parted = groups.regrouped(plan, state, model.trained) if state.groups and library == "torch" else model.groups
    model = replace(model, groups=parted, averages=average, is_supplied=_supplied(plan, held, sources))
    written = writing.write(library, state, model, suffix)
    if not written.averages:
        _check_no_count(plan, request, behind)
    along = average if written.averages else None
    own = read_record(held.reader) if held.path else record
    written, numbers = plain_numbers.added(written, plan, held, own, request.config[1])
    frozen = tuple(moving.unlisted(plan, model, state))
    moves = Moves(held, state, out, library, tuple(model.without), frozen, along, written, numbers, own.optimizer)
    others = [*variances.remarks(plan, state.library, library), *moving.remarks(plan, model, state, library)]
    others += moving.cast(state, averaged.values() if along else (), request.dtype)
    others += [*of_groups, *behind, *(along.notes if along else ())]
    weights = replace(plan, accounted=moves.accounted())
    if isinstance(weights, Plan):
        weights = replace(weights, target_part=_part(model.weights, written))
    return OptimizerPlan(
        weights, held.with_weights(plan.reader), written.steps, sources,
        written.tree, {**moves.about(), **averages.about(held.averages, average, written.averages)},
        (*state.notes, *written.notes, *moves.to_do(), *others, *model.notes, *from_record), tuple(moves.remarks()),
        written.supplied, written.counts, (*model.ties, *(along.checks if along else ())), out,
        (*plan.beside, *filter(None, (request.like, held.path))),
    )  # fmt: skip


def _asked_state(
    plan: Plan | TablePlan, held: holding.Held, trained: Mapping[str, Tensor], request: Request, suffix: str,
    numbered: bool,
) -> tuple[State, list[str]]:  # fmt: skip
    """Return the state with all that the user states, and notes on it.

    Args:
      numbered: whether the target may number parameters, in an order that the user may have to give.
    Raises: UsageError that names at once all that the user has to give.
    """
    library = LIBRARY[suffix]
    try:
        state, notes = _state(plan, held, trained, request, suffix)
    except UsageError as error:
        missing = like.order_wanted(plan, request.like, library if numbered else "")
        raise UsageError(error.message, [*error.problems, *([f"beside that: {missing}"] if missing else [])]) from None
    return parameters.with_ties(plan, state, library), notes


def _check_no_count(plan: Plan | TablePlan, request: Request, behind: Sequence[str]) -> None:
    """Check that no count is stated of an average that does not go along. Raises: UsageError.

    Args:
      behind: why averages stay behind.
    """
    if "averaged" in request.stated:
        given = f"--hyper averaged={request.stated['averaged']}"
        raise UsageError("; ".join([f"{plan.reader.path}: {given}: no average of the weights goes along", *behind]))


def _part(weights: Sequence[Step], written: Written) -> str | None:
    """Return in which part of a target its weights lie; None of a target without weights, as a .pdopt."""
    if not written.counts.get("weights"):
        return None
    own = weights[0][0].name
    names = (step[0].name for step in written.steps)  # weights stand before moments of the same names
    first = next((name for name in names if name == own or name.endswith(f"/{own}")), own)
    return first.removesuffix(own).rstrip("/")


def _state(
    plan: Plan | TablePlan, held: holding.Held, trained: Mapping[str, Tensor], request: Request, suffix: str
) -> tuple[State, list[str]]:
    """Read the state, and add what its record says and what the user states; return it with notes."""
    names = plan.reader.parameter_names
    own = {name: names[tensor.name] for name, tensor in trained.items() if tensor.name in names}
    hyper = {name: value for name, value in request.stated.items() if name != "averaged"}
    dropped = () if isinstance(plan, Plan) else plan.layout.dropped
    record = plan.record if isinstance(plan, Plan) and not held.path else read_record(held.reader)
    optimizer = record.optimizer if record.optimizer.get("to") == held.location.library else {}
    betas = {name: value for name, value in recorded(optimizer).items() if name in USUAL_BETAS}
    in_order, order = parameters.in_order(plan, trained)
    repeated = ties.repeated([*trained], ties.tied_names(plan))

    uncounted = optimizer.get("step", 0) is None  # a step of 0 in its file was written where nobody counted

    def read(known: Mapping[str, Any]) -> State:
        stated = {**betas, **known, **hyper}
        step = stated.pop("step", None) if uncounted else None
        state = reading.read(held.reader, held.location, in_order, own, stated, order, dropped, repeated)
        return replace(state, step=step) if uncounted else state

    state, counted = _counted(read, optimizer, hyper)
    state, notes = _with_record(state, optimizer, hyper)
    notes += counted
    if state.library != "paddle":
        state = replace(state, scheduler=recorded_scheduler(optimizer))
    unlisted = optimizer.get(UNLISTED)
    before = set(unlisted) if isinstance(unlisted, list) and all(isinstance(one, str) for one in unlisted) else set()
    frozen = (name for name, tensor in trained.items() if before & {name, tensor.name})  # also in a part of its file
    state = replace(state, frozen=frozenset(frozen))
    state, others = _with_config(state, *request.config, hyper)
    notes += others
    file, of_config = request.config
    remedy = f"--config {file} says nothing of an optimizer: {WHOSE_RECORD}" if file and not of_config else RECORD
    if not file and record.earlier_optimizer.get("to") == held.location.library:
        remedy = f"--config {record.file(held.reader.path)} takes all but lr from the record of its earlier steps"
    return settled(held.reader.path, state, hyper, suffix, remedy), notes


def _counted(
    read: Callable[[Mapping[str, Any]], State], optimizer: Mapping[str, Any], stated: Mapping[str, Any]
) -> tuple[State, list[str]]:
    """Return a state with the steps that its record counts, where the file does not show them, and a note on these.

    Args:
      read: reads the state with the number of steps, or without.
      optimizer: what the record of the file says of it. stated: what the user states.
    """
    step = optimizer.get("step")
    is_known = type(step) is int and step >= 0 and "steps" not in optimizer and "step" not in stated
    known = {"step": step} if is_known else {}
    try:
        state = read({})
        if state.step is not None or not known:
            return state, []
    except UsageError:
        if not known:
            raise
    return read(known), [f"from the record: step={step}"]


def _supplied(
    plan: Plan | TablePlan, held: holding.Held, sources: Mapping[str, Tensor]
) -> Callable[[str, Filling], bool]:
    """Return what tells whether an array of the target has values that no source states."""
    earlier = (plan.record.supplied if isinstance(plan, Plan) else plan.earlier) | plan.reader.filled
    others = read_record(held.reader).supplied | held.reader.filled if held.path else frozenset()
    earlier |= {holding.BESIDE + name for name in others}
    known = plan.translation.recorded if isinstance(plan, Plan) else ()
    return lambda name, filling: name not in known and is_supplied(filling, sources, earlier)


def _with_record(state: State, optimizer: Mapping[str, Any], stated: Mapping[str, Any]) -> tuple[State, list[str]]:
    """Add to a state what only the record of its file says: kind, hyperparameters, and what was assumed of it.

    Args:
      optimizer: what that record says of it. stated: what the user states, which goes above a record.
    Returns: the state, and notes, also on what the user states otherwise than the record.
    """
    values = recorded(optimizer)
    if KINDS.get(values.get("kind", ""), state.family) != state.family:
        return state, []
    added = _unstated(values, state, stated)
    notes = (
        [f"from the record: {', '.join(f'{name}={exact(value)}' for name, value in added.items())}"] if added else []
    )
    marking = (ORDER, KIND) if stated.keys() & {"step", *USUAL_BETAS} else (ORDER, KIND, BETAS)
    state, marks = _marked(state, optimizer, marking)
    notes += marks
    changed = contradicted({name: value for name, value in values.items() if name not in state.hyper}, stated)
    notes += [f"{name}={exact(stated[name])} as you state; its record has {spelt(v)}" for name, v in changed.items()]
    lost = lost_groups(optimizer)
    if lost:
        unlike = ", ".join(f"{name}={spelt(each)}" for name, each in lost.items())
        notes.append(f"its record: torch's groups of parameters had {unlike}; this file has one value for all")
    return replace(state, hyper={**added, **state.hyper}, changed={**lost, **changed}), notes


def _with_config(
    state: State, file: str, optimizer: Mapping[str, Any], stated: Mapping[str, Any]
) -> tuple[State, list[str]]:
    """Add kind and hyperparameters that the record of --config states; its learning rate is that of its own step."""
    values = recorded(optimizer)
    added = _unstated(values, state, stated)
    added.pop("lr", None)
    kind = state.hyper.get("kind", stated.get("kind", values.get("kind")))
    if not added or kind != values.get("kind") or KINDS.get(kind or "", "") != state.family:
        return state, []
    note = f"from --config {file}: {', '.join(f'{name}={exact(value)}' for name, value in added.items())}"
    state, marks = _marked(state, optimizer, (KIND, BETAS) if added.keys() & USUAL_BETAS.keys() else (KIND,))
    return replace(state, hyper={**added, **state.hyper}), [note, *marks]


def _unstated(values: Mapping[str, Any], state: State, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record adds to a state and to what the user states: also the kind if both state the same one."""
    others = {name for name, value in stated.items() if name != "kind" or value != values.get("kind")}
    return {name: value for name, value in values.items() if name not in state.hyper and name not in others}


def _marked(state: State, optimizer: Mapping[str, Any], names: Sequence[str]) -> tuple[State, list[str]]:
    """Return a state marked as assumed where a record is, with notes; a kind that the record knows is not assumed.

    Args:
      names: of what the record may mark.
    """
    listed = optimizer.get("assumed")
    marked = [name for name in names if isinstance(listed, list) and name in listed]
    known = {KIND} - {*marked} if "kind" in recorded(optimizer) else set()
    new = [name for name in marked if name not in state.assumed]
    notes = [
        f"kind={recorded(optimizer).get('kind')}, stated by --hyper at an earlier conversion: no state shows it"
        if name == KIND
        else f"assumed when the record was written, not known: {name} in the optimizer's state"
        for name in new
    ]
    return replace(state, assumed=(*(name for name in state.assumed if name not in known), *new)), notes


def _check_target(plan: Plan | TablePlan, library: str, out: str) -> None:
    if isinstance(plan, Plan):
        framework = dialects(plan.architecture)[plan.dst].framework
        if framework != FRAMEWORK[library]:
            fit = " ".join(suffix for suffix, its in LIBRARY.items() if FRAMEWORK[its] == framework)
            what = f"{out}: the state of an optimizer of {FRAMEWORK[library]}'s goes into such a file"
            raise UsageError(f"{what}, and {plan.dst} is of {framework}: use one of {fit}")
