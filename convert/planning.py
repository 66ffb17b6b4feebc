"""A conversion, proven complete from names and shapes before any payload is read.

plan = convert.plan("weights.npz", src="google", dst="torch")
plan.write("out.safetensors")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from specs import config as configs
from specs.kinds import FRAMEWORKS
from specs.layer import Parameter, count, parameters
from specs.notation import Fill, Move, View, moves

from . import report
from .aside import Aside, set_aside, summary
from .configuration import Settings
from .configure import Configuration, configure, differing, restrictions, variant_of
from .errors import ConvertError, OpenFields, UsageError
from .files import open_checkpoint
from .files.base import Reader, Tensor
from .kinds import extra, hub_axes, place
from .manifest import read as read_record
from .parts import WRAPPERS
from .recognise import USUAL, Match, dialects, known_dialect, recognise
from .replicas import refuse_replicas
from .unstated import open_error, questionable

if TYPE_CHECKING:
    import numpy as np

HUB = "hub"  # the spec's own names and layout, as a target: what `diff` compares in
FLOATS = ("float64", "float32", "bfloat16", "float16")


class Constant(NamedTuple):
    """A target array that the source does not hold: all its elements have this value."""

    value: float


UNUSED = Constant(0)  # of arrays that a dialect's files hold and the network never uses


class Sum(NamedTuple):
    """A target array that is the sum of several: what each of them puts into it."""

    terms: list[list[Move | Fill]]


class Promise(NamedTuple):
    """Values of the source that have to be equal to others, or to a constant, before anything is written.

    Args:
      where: who says so.
    """

    name: str
    parts: list[Move]
    other: str
    others: list[Move]
    value: float
    where: str


Filling = list[Move | Fill] | list[Move] | Constant | Sum
Step = tuple[Tensor, Filling]  # a target tensor and what fills it


def sources_of(filling: Filling) -> list[str]:
    """Name the source tensors that a target tensor is filled from."""
    lists = filling.terms if isinstance(filling, Sum) else [filling] if isinstance(filling, list) else []
    return [part.source for parts in lists for part in parts if isinstance(part, Move)]


class Planned(Protocol):
    """What payloads are computed from: an open source, and what becomes of it."""

    @property
    def reader(self) -> Reader: ...

    @property
    def steps(self) -> list[Step]: ...

    @property
    def sources(self) -> dict[str, Tensor]: ...

    @property
    def checks(self) -> list[Promise]: ...

    def record(self) -> dict[str, Any]:
        """The record that travels with the target, but for what is known only once its tensors are written."""


@dataclass
class Plan:
    """Everything a conversion will do. Made by `plan`; a context manager that closes the source file."""

    reader: Reader
    match: Match
    dst: str
    steps: list[Step]
    sources: dict[str, Tensor]
    carried: dict[str, str]  # arrays that only the source's framework keeps: our name -> tensor in the file
    configuration: Configuration
    carried_before: Mapping[str, int] = field(default_factory=dict)
    extras: dict[str, tuple[int, ...]] = field(default_factory=dict)  # that the source's dialect may hold beside
    passed_on: list[str] = field(default_factory=list)  # of carried_before: what source and target both do not store
    lossy_before: tuple[Mapping[str, Any], ...] = ()  # what the source's record says that earlier conversions lost
    accepted: tuple[str, ...] = ()  # fields that nobody states and whose default the caller accepted
    recorded: bool = False  # whether the file has a record that names its dialect
    checks: list[Promise] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        return self.match.architecture

    @property
    def src(self) -> str:
        return self.match.dialect

    @cached_property
    def variant(self) -> str | None:
        return variant_of(self.architecture, self.config)

    @property
    def parameters(self) -> int:
        return count(list(self.match.spec.layers(self.config)))

    @property
    def config(self) -> Any:
        return self.configuration.config

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each Config field comes from: user, record, shapes, dialect, variant, assumed or default."""
        return {**self.configuration.origins, **dict.fromkeys(self.accepted, "assumed")}

    @property
    def assumed(self) -> tuple[str, ...]:
        """Config fields that change the outputs and are assumed, not known: now, or since a record was written."""
        names = {*self.configuration.assumed, *self.accepted}
        return tuple(name for name in configs.as_dict(self.config) if name in names)

    def notes(self) -> list[str]:
        """What the user should know and need not act on."""
        found = [*self.part(), *self.left_out(), *self.doubts()]
        found += [self._conflict(name, *values) for name, values in self.conflicts().items()]
        return [*found, *self._zeros(), *self.counts()[1]]

    def part(self) -> list[str]:
        """Report which part of the file was taken, and a layout that is not of the format's usual framework."""
        notes = [f"took the weights under {self.match.prefix!r}"] if self.match.prefix else []
        names = (tensor.name[len(self.match.prefix) :].lstrip("/") for tensor in self.match.tensors.values())
        if wrappers := sorted({wrapper for name in names for wrapper in WRAPPERS.findall(name)}):
            notes.append(f"read without the wrappers in its names: {' '.join(wrappers)}")
        framework = dialects(self.architecture)[self.src].framework
        usual = USUAL.get(self.reader.format, framework)
        if framework != usual and not self.recorded:
            what = f"this {self.reader.format} file's arrays fit {self.src}, a dialect of {framework}"
            notes.append(f"{what}: their shapes decide that, where names are alike")
        return notes

    def left_out(self) -> list[str]:
        """Report what of the file is set aside: arrays that no step uses, and entries that are no arrays."""
        arrays = [f"set aside: {summary(self.aside)}"] if self.aside else []
        return arrays + [f"set aside, {line}" for line in self.skipped()]

    @cached_property
    def aside(self) -> list[Aside]:
        """Arrays of the file that are in no step: what the conversion leaves out."""
        moved = (name for _, filling in self.steps for name in sources_of(filling))
        used = {self.sources[name].name for name in (*moved, *self.carried.values())}
        return set_aside(self.reader.tensors, used, self.match)

    def counts(self) -> tuple[dict[str, int], list[str]]:
        """Batch counters that the target does not store, for its record; and what is doubtful about any."""
        from .counters import carried

        found, remarks = carried(self.reader, {name: self.sources[held] for name, held in self.carried.items()})
        return {**{name: self.carried_before[name] for name in self.passed_on}, **found}, remarks

    def skipped(self) -> list[str]:
        """What in the file is no array, and so neither converted nor proven."""
        part = self.match.prefix
        return report.skipped(self.reader.skipped, part.rpartition("/")[0] if part.endswith(".") else part)

    def doubts(self) -> list[str]:
        """What is doubtful about the configuration: its record, contradictions, and what is assumed."""
        found = list(self.configuration.remarks)
        if names := questionable(self.match.spec, self.config, self.origins, "variant"):
            found.append(f"as in the official {self.variant}: {self._stated(names)}")
        marked = self.configuration.marked
        if names := [name for name in self.assumed if name not in marked]:
            found.append(f"the file does not say, assumed: {self._stated(names)}")
        if marked:
            found.append(f"assumed when the record was written, not known: {self._stated(marked)}")
        return found

    def _stated(self, names: Iterable[str]) -> str:
        return ", ".join(f"{name}={getattr(self.config, name)}" for name in names)

    def _conflict(self, name: str, theirs: Any, ours: Any) -> str:
        """A field that the target's own code computes otherwise than these weights mean, or are assumed to mean."""
        meant = f"these weights mean {name}={ours}: its outputs will differ"
        if name in self.assumed:
            meant = f"{name}={ours} is assumed of these weights: if it is right, its outputs will differ"
        elif self.origins.get(name) == "variant":
            meant = f"the official {self.variant} means {name}={ours}: its outputs will differ"
        return f"{self.dst}'s own code computes {name}={theirs}; {meant}"

    def _zeros(self) -> list[str]:
        """Report arrays of zeros that the target's files hold and the network never uses."""
        zeros = report.fold(tensor.name for tensor, filling in self.steps if filling is UNUSED)
        why = "zeros, as the network never uses it and the source lacks it"
        return [f"{why}: {', '.join(zeros)}"] if zeros else []

    def conflicts(self) -> dict[str, tuple[Any, Any]]:
        """{field: (what the target's own code computes, what these weights mean)} where the two differ."""
        if self.dst == HUB:
            return {}
        fixed = dialects(self.architecture)[self.dst].conventions
        return differing(self.match.spec, self.config, fixed, fixed)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, numpy array) of every target tensor, one at a time; bfloat16 and float8 widened to float32."""
        from .payload import arrays

        return arrays(self)

    def write(self, out: str | os.PathLike[str], force: bool = False, **options: Any) -> dict[str, Any]:
        """Write the target file atomically; returns the record that travels with it. For options see stream.write."""
        from .stream import write

        if self.dst == HUB:
            raise UsageError(f"{self.reader.path}: this plan has no target: make it with dst=..., as in dst='torch'")
        return write(self, os.fspath(out), force, **options)

    def record(self) -> dict[str, Any]:
        from .manifest import describe

        return describe(self)

    def close(self) -> None:
        self.reader.close()

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def plan(
    path: str | os.PathLike[str],
    src: str | None = None,
    dst: str = HUB,
    settings: Mapping[str, Any] | Settings | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    assume: bool = False,
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
    Raises: ConvertError that lists every missing, unexpected and mis-shaped tensor; OpenFields for Config fields that
    change the outputs and that neither the file, nor its record, nor `settings` states.
    """
    if dtype is not None and dtype not in FLOATS:
        raise UsageError(f"no dtype {dtype!r}: one of {', '.join(FLOATS)}")
    for name in (src, dst if dst != HUB else None):
        if name is not None:
            known_dialect(name)
    reader = open_checkpoint(path)
    try:
        return plan_read(reader, src, dst, settings, dtype, weights, assume)
    except BaseException:
        reader.close()
        raise


def plan_read(
    reader: Reader,
    src: str | None = None,
    dst: str = HUB,
    settings: Mapping[str, Any] | Settings | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    assume: bool = False,
) -> Plan:
    """Like `plan`, of a file that is open, and stays so where it raises."""
    record, stated = read_record(reader), Settings.of(settings)
    hints = record.hints

    def attempt(match: Match) -> Plan:
        if dst != HUB and dst not in dialects(match.architecture):
            having = ", ".join(dialects(match.architecture))
            raise UsageError(f"{reader.path}: {match.architecture} has no dialect {dst!r}: one of {having}")
        configuration = configure(reader.path, match, record, stated)
        if dst != HUB and (unfit := restrictions(match.architecture, configuration.config, dst)):
            problems = [
                f"{name} is {theirs} in {dst}'s code, and {own} in this model" for name, (theirs, own) in unfit.items()
            ]
            raise ConvertError(
                f"{reader.path}: {dst}'s own code cannot hold this model: choose another dialect", problems
            )
        lossy = () if record.change else tuple(record.lossy)
        made = Plan(
            reader, match, dst, [], {}, {}, configuration, hints.get("carried", {}), lossy_before=lossy,
            recorded="dialect" in hints,
        )  # fmt: skip
        _lay_out(made, dtype)
        return made

    try:
        return _decided(_that_fits(recognise(reader, src, hints, weights), attempt), assume)
    except OpenFields:
        raise
    except ConvertError as error:
        if not isinstance(error, UsageError):
            refuse_replicas(reader.path, recognise(reader, src, hints, weights), attempt)
            from .files.sharded import remedy

            if hint := remedy(reader.path):
                error.problems.append(hint)
        if src is not None:
            with contextlib.suppress(ConvertError):
                other = _that_fits(recognise(reader, None, hints, weights), attempt).src
                error.problems.append(f"every array fits as {other}: {other}2...")
        raise


def _decided(made: Plan, assume: bool) -> Plan:
    """The plan, if every field that changes its outputs is stated, or its default accepted. Raises: OpenFields."""
    names = made.configuration.unstated
    if names and not assume:
        defaults = {name: getattr(made.config, name) for name in names}
        held, remarks = made.configuration.held, made.configuration.remarks
        raise open_error(made.reader.path, made.architecture, made.match.spec, names, defaults, held, remarks)
    return replace(made, accepted=names)


def _that_fits(groups: Iterable[list[Match]], attempt: Callable[[Match], Plan]) -> Plan:
    """The plan of the one reading that fits, of the first group in which any does.

    Raises: ConvertError, that of the first reading, where none fits; UsageError where several do.
    """
    errors: list[ConvertError] = []
    for group in groups:
        fitting = []
        for match in group:
            try:
                fitting.append(attempt(match))
            except ConvertError as error:
                errors.append(error)
        if len(fitting) > 1:
            names = ", ".join(sorted({made.src for made in fitting}))
            problem = f"reads alike as {names}: say which it is, as in {fitting[0].src}2torch"
            raise UsageError(f"{fitting[0].reader.path}: {problem}")
        if fitting:
            return fitting[0]
    raise errors[0]


def _lay_out(made: Plan, dtype: str | None) -> None:
    """Fill in the steps. Raises: ConvertError that lists every tensor that does not fit."""
    tables, match = dialects(made.architecture), made.match
    problems, unfit = Problems(match), set[str]()
    for parameter in parameters(list(match.spec.layers(made.config))):
        source = place(parameter, tables[match.dialect], made.config, match.dialect in FRAMEWORKS)
        if source is not None and parameter.leaf == "count" and source.names[()] not in match.tensors:
            source = None  # as of plain dicts and torch before 0.4.1, which torch's own strict load takes
        target = _target(parameter, made)
        if source is not None and not problems.check(source, counts=parameter.leaf == "count"):
            unfit.add(parameter.name)
            continue
        if source is not None and target is not None:
            for name, shape, parts in moves(source, target):
                held = match.tensors[parts[0].source]
                made.steps.append((Tensor(name, shape, _dtype(held, parameter, dtype)), parts))
        elif source is not None:
            made.carried[parameter.name] = source.names[()]
        elif target is not None:
            value = made.carried_before.get(parameter.name, 0)
            counted = isinstance(value, int) and 0 <= value < 2**63
            made.steps.append((Tensor(target.names[()], (), "int64"), Constant(value if counted else 0)))
        elif isinstance(made.carried_before.get(parameter.name), int):
            made.passed_on.append(parameter.name)
    made.extras.update(pair for layer in tables[match.dialect].extras for pair in extra(layer, tables[match.dialect]))
    problems.used.update(made.extras)
    if found := [*problems.told(), *(_assumed(made, unfit) if problems.misfits else [])]:
        what = f"{made.reader.path}: does not hold the {match.dialect} arrays of this {made.architecture}"
        raise ConvertError(what, found)
    if made.dst != HUB:
        for layer in tables[made.dst].extras:
            for name, shape in extra(layer, tables[made.dst]):
                made.steps.append(_extra(made, name, shape, dtype))
    made.sources = {
        name: tensor._replace(dtype="bfloat16") if tensor.dtype == "uint16" else tensor  # as paddle stores it
        for name, tensor in match.tensors.items()
    }


def _extra(made: Plan, name: str, shape: tuple[int, ...], dtype: str | None) -> Step:
    """An array that the target's files hold and the network never uses: the source's own, if it holds one."""
    held = made.match.tensors.get(name) if made.src == made.dst else None
    if held is None or held.shape != shape:
        return Tensor(name, shape, made.steps[0][0].dtype), UNUSED
    axes = tuple((f"a{k}",) for k in range(len(shape)))
    view = View(axes, {(): name}, (), axes, {axis: size for (axis,), size in zip(axes, shape, strict=True)})
    ((_, _, parts),) = moves(view, view)
    return Tensor(name, shape, _dtype(held, None, dtype)), parts


def _assumed(made: Plan, unfit: set[str]) -> list[str]:
    """ "assumed: channels=3": what neither the file nor the user told, where shapes that do not fit depend on it."""

    def shapes(config: Any) -> dict[str, tuple[int, ...]]:
        return {p.name: p.shape for p in parameters(list(made.match.spec.layers(config))) if p.name in unfit}

    found, expected = [], shapes(made.config)
    for name, value in configs.as_dict(made.config).items():
        if type(value) is int and made.origins.get(name, "default") == "default":
            with contextlib.suppress(ValueError):
                if shapes(replace(made.config, **{name: value + 1})) != expected:
                    found.append(f"assumed: {name}={value}: --set {name}=... if it is another")
    return found


def _target(parameter: Parameter, made: Plan) -> View | None:
    if made.dst == HUB:
        axes = hub_axes(parameter)
        return View(axes, {(): parameter.name}, (), axes, parameter.layer.sizes)
    return place(parameter, dialects(made.architecture)[made.dst], made.config, made.dst in FRAMEWORKS)


def _dtype(held: Tensor, parameter: Parameter | None, wanted: str | None) -> str:
    """A target's dtype. Paddle stores bfloat16 as uint16 and does not say so; only counts are integers."""
    own = "bfloat16" if held.dtype == "uint16" else held.dtype
    return own if wanted is None or (parameter and parameter.leaf == "count") else wanted


class Problems:
    """Collects everything that does not fit between a plan and a file."""

    def __init__(self, match: Match):
        self.match, self.used = match, set[str]()
        bits = ("uint16",) if dialects(match.architecture)[match.dialect].framework == "paddle" else ()  # of bfloat16
        self.weights = ("float", "bfloat", *bits)  # how their dtypes begin
        self.missing: list[str] = []
        self.misfits: list[tuple[str, str]] = []

    def check(self, source: View, counts: bool) -> bool:
        """Whether the file holds what one array needs, in its shape; only counts may be integers."""
        self.used.update(source.names.values())
        held = {name: self.match.tensors.get(name) for name in source.names.values()}
        found = [tensor for tensor in held.values() if tensor is not None]
        problems = len(self.missing) + len(self.misfits)
        self.missing += [name for name, tensor in held.items() if tensor is None]
        shape, dtype = source.shape, found[0].dtype if found else ""
        for name, tensor in held.items():
            if tensor is None:
                continue
            if tensor.shape != shape:
                self.misfits.append((name, f"has shape {list(tensor.shape)}, expected {list(shape)}"))
            elif not counts and not tensor.dtype.startswith(self.weights):
                self.misfits.append((name, f"has dtype {tensor.dtype}: weights are floating-point"))
            elif tensor.dtype != dtype:
                self.misfits.append((name, f"has dtype {tensor.dtype}, and {dtype} is what it is joined with"))
        return len(self.missing) + len(self.misfits) == problems

    def told(self) -> list[str]:
        """A line for each kind of problem."""
        unused = [name for name in self.match.tensors if name not in self.used]
        return [*report.missing(self.missing, unused), *report.misfits(self.misfits), *report.unexpected(unused)]
