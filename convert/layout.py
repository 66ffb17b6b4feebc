"""Lay out a target from names and shapes: each of its tensors with what it is filled from, or all that does not fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from specs import config as configs
from specs.kinds import FRAMEWORKS
from specs.layer import Parameter, parameters
from specs.notation import View, moves

from . import report
from .configure import Configuration
from .errors import PlanError, option
from .files.base import PADDLE_BFLOAT16, Tensor, meant
from .kinds import extra, hub_axes, place
from .parts import Reading
from .recognise import dialects
from .steps import UNUSED, Constant, Step

HUB = "hub"  # the spec's own names and layout, as a target: what `diff` compares in


@dataclass(frozen=True)
class Layout:
    """Everything that happens to a file's arrays.

    Args:
      steps: every target tensor and what fills it.
      sources: the file's tensors by the names that steps use.
      carried: arrays that only the source's framework keeps: our name -> name among the sources.
      passed_on: counters of the source's record that neither source nor target stores.
      counters: names among the sources of every batch counter.
    """

    steps: tuple[Step, ...]
    sources: Mapping[str, Tensor]
    carried: Mapping[str, str]
    passed_on: tuple[str, ...]
    counters: tuple[str, ...] = ()


def lay_out(
    path: str, reading: Reading, configuration: Configuration, dst: str, counters: Mapping[str, int], dtype: str | None
) -> Layout:
    """Lay out the target `dst` of a file.

    Args:
      path: of the file, for messages.
      counters: batch counters that the file's record carries.
      dtype: of the target's floating-point tensors; None keeps the source's.
    Raises: PlanError that lists every tensor that is missing, unexpected or does not fit.
    """
    config, tables = configuration.config, dialects(reading.architecture)
    problems, unfit = Problems(reading), set[str]()
    steps: list[Step] = []
    carried: dict[str, str] = {}
    passed_on: list[str] = []
    for parameter in parameters(list(reading.spec.layers(config))):
        source, target = _source(parameter, reading, config), _target(parameter, reading.architecture, dst, config)
        counter = counters.get(parameter.name)
        if source is not None and not problems.check(source, counts=parameter.leaf == "count"):
            unfit.add(parameter.name)
        elif source is not None and target is not None:
            for name, shape, parts in moves(source, target):
                first = reading.tensors[parts[0].source]
                steps.append((Tensor(name, shape, _dtype(first, parameter, dtype)), parts))
        elif source is not None:
            carried[parameter.name] = source.names[()]
        elif target is not None:
            steps.append((Tensor(target.names[()], (), "int64"), _counter(counter)))
        elif counter is not None:
            passed_on.append(parameter.name)
    own = tables[reading.dialect]
    problems.used.update(name for layer in own.extras for name, _ in extra(layer, own))
    if lines := [*problems.lines(), *(_assumed(reading, configuration, unfit) if problems.misfits else [])]:
        raise PlanError(f"{path}: does not hold the {reading.dialect} arrays of this {reading.architecture}", lines)
    if dst != HUB:
        for layer in tables[dst].extras:
            steps += [_extra(reading, dst, *one, dtype, steps[0][0].dtype) for one in extra(layer, tables[dst])]
    counts = _counts(reading, config)
    sources = {
        name: tensor if name in counts else tensor._replace(dtype=_stored(tensor))
        for name, tensor in reading.tensors.items()
    }
    return Layout(tuple(steps), sources, carried, tuple(passed_on), tuple(sorted(counts)))


def _counts(reading: Reading, config: Any) -> set[str]:
    """Return the names of the file's batch counters."""
    every = parameters(list(reading.spec.layers(config)))
    places = [_source(parameter, reading, config) for parameter in every if parameter.leaf == "count"]
    return {name for source in places if source is not None for name in source.names.values()}


def _source(parameter: Parameter, reading: Reading, config: Any) -> View | None:
    """Return how the file stores an array; None where it need not."""
    dialect = reading.dialect
    source = place(parameter, dialects(reading.architecture)[dialect], config, dialect in FRAMEWORKS)
    if source is not None and parameter.leaf == "count" and source.names[()] not in reading.tensors:
        return None  # as of plain dicts and torch before 0.4.1, which torch's own strict load takes
    return source


def _target(parameter: Parameter, architecture: str, dst: str, config: Any) -> View | None:
    """Return how the target stores an array; None where its framework keeps no such thing."""
    if dst == HUB:
        axes = hub_axes(parameter)
        return View(axes, {(): parameter.name}, (), axes, parameter.layer.sizes)
    return place(parameter, dialects(architecture)[dst], config, dst in FRAMEWORKS)


def _counter(value: int | None) -> Constant:
    """Return the counter of a record, 0 where that has none."""
    return Constant(value or 0)


def _extra(reading: Reading, dst: str, name: str, shape: tuple[int, ...], dtype: str | None, usual: str) -> Step:
    """Return the step for an array that the network never uses: a copy of the source's, or zeros if it has none."""
    own = reading.tensors.get(name) if reading.dialect == dst else None
    if own is None or own.shape != shape:
        return Tensor(name, shape, usual), UNUSED
    axes = tuple((f"a{k}",) for k in range(len(shape)))
    view = View(axes, {(): name}, (), axes, {axis: size for (axis,), size in zip(axes, shape, strict=True)})
    ((_, _, parts),) = moves(view, view)
    return Tensor(name, shape, _dtype(own, None, dtype)), parts


def _assumed(reading: Reading, configuration: Configuration, unfit: set[str]) -> Iterator[str]:
    """Yield "assumed: channels=3" for each default on which shapes that do not fit depend."""

    def shapes(config: Any) -> dict[str, tuple[int, ...]]:
        return {p.name: p.shape for p in parameters(list(reading.spec.layers(config))) if p.name in unfit}

    config, expected = configuration.config, shapes(configuration.config)
    for name, value in configs.as_dict(config).items():
        if type(value) is int and configuration.origins.get(name, "default") == "default":
            with contextlib.suppress(ValueError):
                if shapes(replace(config, **{name: value + 1})) != expected:
                    yield f"assumed: {name}={value}: {option('set', f'{name}=...')} if it is another"


def _stored(tensor: Tensor) -> str:
    """Return the dtype of weights."""
    return meant(tensor.dtype)


def _dtype(own: Tensor, parameter: Parameter | None, wanted: str | None) -> str:
    """Return a target's dtype; batch counters keep their own."""
    if parameter and parameter.leaf == "count":
        return own.dtype
    return _stored(own) if wanted is None else wanted


class Problems:
    """Collects everything that does not fit between a layout and a file."""

    def __init__(self, reading: Reading):
        self.reading, self.used = reading, set[str]()
        bits = (PADDLE_BFLOAT16,) if dialects(reading.architecture)[reading.dialect].framework == "paddle" else ()
        self.weights = ("float", "bfloat", *bits)  # how the dtypes of weights begin
        self.missing: list[str] = []
        self.misfits: list[tuple[str, str]] = []

    def check(self, source: View, counts: bool) -> bool:
        """Check that the file has the tensors of one array in its shape; only counts may be integers."""
        self.used.update(source.names.values())
        needed = {name: self.reading.tensors.get(name) for name in source.names.values()}
        present = [tensor for tensor in needed.values() if tensor is not None]
        problems = len(self.missing) + len(self.misfits)
        self.missing += [name for name, tensor in needed.items() if tensor is None]
        shape, dtype = source.shape, present[0].dtype if present else ""
        for name, tensor in needed.items():
            if tensor is None:
                continue
            if tensor.shape != shape:
                self.misfits.append((name, f"has shape {list(tensor.shape)}, expected {list(shape)}"))
            elif not counts and not tensor.dtype.startswith(self.weights):
                self.misfits.append((name, f"has dtype {tensor.dtype}: weights are floating-point"))
            elif tensor.dtype != dtype:
                self.misfits.append((name, f"has dtype {tensor.dtype}, and {dtype} is what it is joined with"))
        return len(self.missing) + len(self.misfits) == problems

    def lines(self) -> list[str]:
        """Return a line for each kind of problem."""
        unused = [name for name in self.reading.tensors if name not in self.used]
        return [*report.missing(self.missing, unused), *report.misfits(self.misfits), *report.unexpected(unused)]
