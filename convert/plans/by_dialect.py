"""Convert between dialects of an architecture: the Table between the two for one Config, applied to a file."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from convert import folding
from convert.arrays.steps import Promise, Step, step
from convert.config.configure import Configuration
from convert.documents import document
from convert.errors import PlanError, option
from convert.files.base import PADDLE_BFLOAT16, Tensor, meant
from convert.reading.readings import Reading
from convert.reading.recognise import dialects
from specs import config as configs
from specs.dialects import UNUSED, Stored, bind, extras, place
from specs.env import Env
from specs.layer import parameters
from specs.layout import Equal, Layout
from specs.lines import Constant
from specs.numerals import exact
from specs.table import Table

MORE = (
    "all arrays of the model are there and fit: save the weights without what is unexpected, or if the network "
    "computes with it, convert by a Table ({})"
)


class Translation(NamedTuple):
    """Everything that happens to a file's arrays.

    Args:
      table: where each of them goes.
      bound: its lines with the file's names and the lengths of their axes.
      dtype: of the target's floating-point tensors; None keeps the source's.
      sources: the file's tensors by the names that steps use.
      moved: names among the sources of arrays that the target stores too.
      carried: arrays that only the source's framework keeps: our name -> name among the sources.
      passed_on: counters of the source's record that neither source nor target stores.
      recorded: target tensors that are counters of the source's record.
      counters: names among the sources of every batch counter.
      zeros: target tensors that the network never uses, and that the source lacks.
      absent: names of tied arrays that the source lacks, as it has another one that is equal.
    """

    table: Table
    bound: tuple[Env, ...]
    dtype: str | None
    sources: Mapping[str, Tensor]
    moved: tuple[str, ...]
    carried: Mapping[str, str]
    passed_on: tuple[str, ...]
    recorded: tuple[str, ...]
    counters: tuple[str, ...]
    zeros: tuple[str, ...]
    absent: tuple[str, ...]

    def layout(self) -> Layout:
        """Lay out every target tensor. Describing a file needs no layout, and so does not pay for it."""
        from specs.filling import Filling

        return Filling(self.table, self.bound, {name: tensor.shape for name, tensor in self.sources.items()}).layout()

    def steps(self, layout: Layout) -> tuple[Step, ...]:
        """Return every target tensor and what fills it."""
        counts = frozenset(self.counters)
        return tuple(
            step(e, self.sources, None if counts.intersection(e.sources) else self.dtype) for e in layout.entries
        )

    def promises(self, layout: Layout) -> tuple[Promise, ...]:
        """Return which arrays of the source have to be equal, as its dialect ties them."""

        def promise(check: Equal) -> Promise:
            where = f"its dialect {self.table.sides[0]}"
            return Promise(check.name, check.parts, check.other, check.others, check.value, where)

        return tuple(map(promise, layout.checks))


Pair = tuple[Stored | None, Stored | None, Constant]  # source, target, and what the target stores without a source


def translate(
    path: str, reading: Reading, configuration: Configuration, dst: str, counters: Mapping[str, int], dtype: str | None
) -> Translation:
    """Translate a file into the dialect `dst`.

    Args:
      path: of the file, for messages.
      counters: batch counters that the file's record carries.
      dtype: of the target's floating-point tensors; None keeps the source's.
    Raises: PlanError that lists every tensor that is missing, unexpected or does not fit.
    """
    config, tables = configuration.config, dialects(reading.architecture)
    own, other = tables[reading.dialect], tables.get(dst)  # None: our own names
    problems, unfit = Problems(reading), set[str]()
    pairs: list[Pair] = []
    counts, carried, passed_on, recorded = set[str](), dict[str, str](), list[str](), list[str]()
    absent: list[str] = []
    for parameter in parameters(list(reading.spec.layers(config))):
        source, target = place(parameter, own, config), place(parameter, other, config)
        counter, counting = counters.get(parameter.name), parameter.leaf == "count"
        if counting and source is not None and source.name not in reading.tensors:
            source = None  # as of plain dicts and torch before 0.4.1, which torch's own strict load takes
        if source is not None:
            source, fits, lacking = problems.check(source, counting)
            absent += lacking
            if not fits:
                unfit.add(parameter.name)
        if source is not None and counting:
            counts.add(source.name)
        if source is not None and target is None:
            carried[parameter.name] = source.name
        elif source is target is None and counter is not None:
            passed_on.append(parameter.name)
        elif source is None and target is not None and counter is not None:
            recorded.append(target.name)
        pairs.append((source, target, Constant(counter or 0, "int64")))
    unused = {one.name: one for one in extras(own, config)}
    for name, one in unused.items():
        if name in reading.tensors:
            problems.check(one, counts=True)
    if lines := [*problems.lines(), *(_assumed(reading, configuration, unfit) if problems.misfits else [])]:
        what = f"does not hold the {reading.dialect} arrays of this {reading.architecture}"
        only_more = not problems.missing and not problems.misfits
        lines += [MORE.format(document("own-model"))] if only_more else []
        raise PlanError(f"{path}: {what}", lines, problems.unfit(), only_more)
    spare = {name: one for name, one in unused.items() if name in reading.tensors}
    zeros = []
    for one in extras(other, config):
        fits = reading.dialect == dst and one.name in spare
        pairs.append((one if fits else None, one, UNUSED))
        zeros += [] if fits else [one.name]
    taken = {source.name for source, _, _ in pairs if source is not None}
    pairs += [(one, None, UNUSED) for name, one in spare.items() if name not in taken]
    bound = tuple(env for k, pair in enumerate(pairs, 1) if (env := bind(*pair, k)) is not None)
    table = Table(tuple(env.line for env in bound), (reading.dialect, dst), name=f"{reading.dialect}2{dst}")
    sources = {name: t if name in counts else t._replace(dtype=meant(t.dtype)) for name, t in reading.tensors.items()}
    used = [one for source, target, _ in pairs if source and target for one in source.alternatives]
    moved = [name for one in used for name in one.names.values()]
    return Translation(
        table, bound, dtype, sources, tuple(moved), carried, tuple(passed_on), tuple(recorded), tuple(sorted(counts)),
        tuple(zeros), tuple(absent),
    )  # fmt: skip


def _assumed(reading: Reading, configuration: Configuration, unfit: set[str]) -> Iterator[str]:
    """Yield "assumed: channels=3" for each default on which shapes that do not fit depend."""

    def shapes(config: Any) -> dict[str, tuple[int, ...]]:
        return {p.name: p.shape for p in parameters(list(reading.spec.layers(config))) if p.name in unfit}

    config, expected = configuration.config, shapes(configuration.config)
    for name, value in configs.as_dict(config).items():
        if type(value) is int and configuration.origins.get(name, "default") == "default":
            with contextlib.suppress(ValueError):
                if shapes(replace(config, **{name: value + 1})) != expected:
                    yield f"assumed: {name}={exact(value)}: {option('set', f'{name}=...')} if it is another"


class Problems:
    """Collects everything that does not fit between a layout and a file."""

    def __init__(self, reading: Reading):
        self.reading, self.used = reading, set[str]()
        bits = (PADDLE_BFLOAT16,) if dialects(reading.architecture)[reading.dialect].framework == "paddle" else ()
        self.weights = ("float", "bfloat", *bits)  # how the dtypes of weights begin
        self.missing: list[str] = []
        self.misfits: list[tuple[str, str]] = []

    def check(self, source: Stored, counts: bool) -> tuple[Stored, bool, list[str]]:
        """Check that the file has the tensors of one array in its shape; only counts may be integers.

        Returns: the array with those of its ties that the file has; whether they fit; the names of the others.
        """
        problems = len(self.missing) + len(self.misfits)
        there = [one for one in source.alternatives if not self.reading.tensors.keys().isdisjoint(one.names.values())]
        there = there or [*source.alternatives[:1]]
        for one in there:
            self._check(one, counts)
        self._check_ties(there)
        absent = [name for one in source.alternatives if one not in there for name in one.names.values()]
        source = there[0]._replace(ties=tuple(one.theirs for one in there[1:]))
        return source, len(self.missing) + len(self.misfits) == problems, absent

    def _check_ties(self, tied: list[Stored]) -> None:
        tensors = self.reading.tensors
        first, *others = ([name for name in one.names.values() if name in tensors] for one in tied)
        for name in itertools.chain.from_iterable(others):
            if first and tensors[name].dtype != tensors[first[0]].dtype:
                tie = f"and {first[0]}, with which it is tied, has {tensors[first[0]].dtype}"
                self.misfits.append((name, f"has dtype {tensors[name].dtype}, {tie}"))

    def _check(self, source: Stored, counts: bool) -> None:
        names = source.names.values()
        self.used.update(names)
        needed = {name: self.reading.tensors.get(name) for name in names}
        present = [tensor for tensor in needed.values() if tensor is not None]
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

    def unfit(self) -> list[str]:
        """Return names of arrays that do not fit."""
        return [name for name, _ in self.misfits]

    def lines(self) -> list[str]:
        """Return a line for each kind of problem."""
        unused = [name for name in self.reading.tensors if name not in self.used]
        misfits = [(name, problem + self._beside(name)) for name, problem in self.misfits]
        return [*folding.missing(self.missing, unused), *folding.misfits(misfits), *folding.unexpected(unused)]

    def _beside(self, name: str) -> str:
        """Name the weight beside a bias that does not fit: either may be wrong, and sizes are read off the weight."""
        module = name[: max(name.rfind("."), name.rfind("/")) + 1]
        odd = {other for other, _ in self.misfits}
        larger = [
            f"its {other.removeprefix(module)} has shape {list(tensor.shape)}"
            for other, tensor in self.reading.tensors.items()
            if module and other.startswith(module) and len(tensor.shape) > 1 and other not in odd
        ]
        vector = len(self.reading.tensors[name].shape) == 1
        return f", as {larger[0]}" if vector and len(larger) == 1 else ""
