"""Convert between dialects of an architecture: the Table between the two for one Config, applied to a file."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import specs
from convert import folding
from convert.arrays.counters import COUNTER
from convert.arrays.steps import Computed, Promise, Step, step
from convert.config.configure import Configuration
from convert.config.inference import unmatched, without_array
from convert.dialect_lines import placing
from convert.documents import document
from convert.errors import PlanError, option
from convert.files.base import PADDLE_BFLOAT16, Reader, Tensor, meant
from convert.files.skipped import Skipped
from convert.reading.readings import Reading
from convert.reading.recognise import dialects
from convert.reading.recognise import lines as dialect_lines
from specs import config as configs
from specs.applied.layout import Equal, Layout
from specs.dialects import UNUSED, Stored, bind, computed, extras, place
from specs.layer import Parameter, parameters
from specs.notation.lines import Constant
from specs.numbers import exact
from specs.solving.env import Env
from specs.table import Table
from specs.words import in_a_row

MORE = (
    "all arrays of the model are there and fit: if what is unexpected is of it under another name, rename it; if not, "
    "save the weights without it, or if the network computes with it, convert by a Table ({})"
)
EARLIER = "a training that began in torch has its counts so far in its file there; only momentum=None uses them"
LACKS = (
    "dialect {} may lack a line for what is unexpected: if the network computes with it, add one to the page of {}; "
    "list what its code computes of the configuration in the dialect's `computed`, and what it never uses in `extras`"
)
INTEGERS = "has dtype {}, and extras are never used, so that zeros are written: state it in the dialect's `computed`"


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
      known: arrays among the sources that the source's code computes, with their values.
      computed: target tensors that the target's code computes, with their values.
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
    known: Mapping[str, Any]
    computed: Mapping[str, Any]

    def layout(self) -> Layout:
        """Lay out every target tensor. Describing a file needs no layout, and so does not pay for it."""
        from specs.covering.filling import Filling

        return Filling(self.table, self.bound, {name: tensor.shape for name, tensor in self.sources.items()}).layout()

    def steps(self, layout: Layout) -> tuple[Step, ...]:
        """Return every target tensor and what fills it."""
        counts = frozenset(self.counters)
        steps = [step(e, self.sources, None if counts.intersection(e.sources) else self.dtype) for e in layout.entries]
        computed = [(Tensor(n, v.shape, v.dtype.name), Computed(v)) for n, v in self.computed.items()]
        return (*steps, *computed)

    def promises(self, layout: Layout) -> tuple[Promise, ...]:
        """Return which arrays of the source have to be equal, as its dialect ties or computes them."""
        where = f"its dialect {self.table.sides[0]}"
        computed = [Promise(n, [], "", [], 0.0, where, computed=values) for n, values in self.known.items()]

        def promise(check: Equal) -> Promise:
            return Promise(check.name, check.parts, check.other, check.others, check.value, where)

        return (*map(promise, layout.checks), *computed)


Pair = tuple[Stored | None, Stored | None, Constant | None]  # source, target and constant of specs.dialects.bind


class Paired(NamedTuple):
    """One array of the model in the two dialects.

    Args:
      name: ours. source, target: where it is stored; None where it is not.
      is_counter: whether it counts batches. recorded: the count that the file's record carries.
      fits: whether the file's tensors do. absent: names of those that are tied to others, and that the file lacks.
    """

    name: str
    source: Stored | None
    target: Stored | None
    is_counter: bool
    recorded: int | None
    fits: bool
    absent: list[str]


def translate(
    reader: Reader,
    reading: Reading,
    configuration: Configuration,
    dst: str,
    counters: Mapping[str, int],
    dtype: str | None,
) -> Translation:
    """Translate a file into the dialect `dst`.

    Args:
      reader: of the file, for messages.
      counters: batch counters that the file's record carries.
      dtype: of the target's floating-point tensors; None keeps the source's.
    Raises: PlanError that lists every tensor that is missing, unexpected or does not fit.
    """
    config, tables = configuration.config, dialects(reading.architecture)
    own, other = tables[reading.dialect], tables.get(dst)  # None: our own names
    problems = Problems(reading, reader.skipped)
    arrays = [
        _paired(parameter, place(parameter, own, config), place(parameter, other, config), counters, problems)
        for parameter in parameters(list(reading.spec.layers(config)))
    ]
    spare = {one.name: one for one in extras(own, config) if one.name in reading.tensors}
    known = [(one, values) for one, values in computed(own, config) if one.name in reading.tensors]
    for one in spare.values():
        problems.check_extra(one)
    for one, _ in known:
        problems.check(one, counts=True)
    _check(reader.path, reading, configuration, problems, {one.name for one in arrays if not one.fits})
    pairs: list[Pair] = [(one.source, one.target, Constant(one.recorded or 0, "int64")) for one in arrays]
    unused = [(spare.get(one.name) if reading.dialect == dst else None, one) for one in extras(other, config)]
    pairs += [(source, target, UNUSED) for source, target in unused]
    taken = {source.name for source, _, _ in pairs if source is not None}
    pairs += [(one, None, UNUSED) for name, one in spare.items() if name not in taken]
    pairs += [(one, None, None) for one, _ in known]
    added = computed(other, config)
    counts = {one.source.name for one in arrays if one.source and one.is_counter}
    bound = tuple(env for k, pair in enumerate(pairs, 1) if (env := bind(*pair, k)) is not None)
    dropped = (env for k, (one, _) in enumerate(added, len(pairs) + 1) if (env := bind(None, one, None, k)) is not None)
    return Translation(
        Table(tuple(env.line for env in (*bound, *dropped)), (reading.dialect, dst), name=f"{reading.dialect}2{dst}"),
        bound,
        dtype,
        {name: t if name in counts else t._replace(dtype=meant(t.dtype)) for name, t in reading.tensors.items()},
        moved=tuple(_names(source for source, target, _ in pairs if source and target)),
        carried={one.name: one.source.name for one in arrays if one.source and not one.target},
        passed_on=tuple(one.name for one in arrays if not one.source and not one.target and one.recorded is not None),
        recorded=tuple(one.target.name for one in arrays if one.target and not one.source and one.recorded is not None),
        counters=tuple(sorted(counts)),
        zeros=tuple(target.name for source, target in unused if source is None),
        absent=tuple(name for one in arrays for name in one.absent),
        known={one.name: values for one, values in known},
        computed={one.name: values for one, values in added},
    )


def _paired(
    parameter: Parameter,
    source: Stored | None,
    target: Stored | None,
    counters: Mapping[str, int],
    problems: "Problems",
) -> Paired:
    """Check the tensors of an array of the model against a file, and take those of its ties that the file has."""
    is_counter, fits, absent = parameter.leaf == "count", True, list[str]()
    if is_counter and source is not None and source.name not in problems.reading.tensors:
        source = None  # as of plain dicts and torch before 0.4.1, which torch's own strict load takes
    if source is not None:
        source, fits, absent = problems.check(source, is_counter)
    return Paired(parameter.name, source, target, is_counter, counters.get(parameter.name), fits, absent)


def _check(path: str, reading: Reading, configuration: Configuration, problems: "Problems", unfit: set[str]) -> None:
    """Raise PlanError if anything does not fit.

    Args:
      unfit: our names of the arrays that do not.
    """
    problems.check_axes()
    lines = problems.lines()
    lines += _assumed(reading, configuration, unfit) if problems.misfits else []
    if lines or problems.missing:
        what = f"does not hold the {reading.dialect} arrays of this {reading.architecture}"
        only_more = not problems.missing and not problems.misfits and not without_array(reading, problems.skipped)
        if only_more and (lost := _lost_of_head(reading, configuration.config)):
            lines, only_more = [*folding.missing(lost, []), *lines], False
        if only_more:
            lines += [*_lacking(reading), *_headless(reading, configuration.config), MORE.format(document("own-model"))]
        raise PlanError(f"{path}: {what}", lines, problems.unfit(), only_more)


def _lacking(reading: Reading) -> Iterator[str]:
    """Say that a dialect may lack a line, if the user wrote its page: our own pages are tested on files of each."""
    if specs.folder(reading.architecture) is not None and reading.dialect in reading.spec.dialects:
        yield LACKS.format(reading.dialect, reading.architecture)


def _lost_of_head(reading: Reading, config: Any) -> list[str]:
    """Name the arrays that a head lacks of which a file has others, and is read without it."""
    if config.classes:
        return []
    missing, others = unmatched(reading, replace(config, classes=1))
    return missing if len(others) < len(unmatched(reading, config)[1]) else []


def _headless(reading: Reading, config: Any) -> Iterator[str]:
    """Name the arrays of a head, which what is unexpected may be, where a model is read without one."""
    if not config.classes:
        names, _ = unmatched(reading, replace(config, classes=1))
        yield f"read as classes=0, as no array has the name of one of the head: {in_a_row(folding.fold(names))}"


def _names(stored: Iterable[Stored]) -> Iterator[str]:
    """Yield the names of a file's tensors that arrays are stored in, ties too."""
    for one in stored:
        for alternative in one.alternatives:
            yield from alternative.names.values()


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

    def __init__(self, reading: Reading, skipped: Skipped):
        self.reading, self.skipped, self.used = reading, skipped, set[str]()
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

    def check_extra(self, extra: Stored) -> None:
        """Check an array that the network never uses: of integers, it would be an index or a mask that it does use."""
        self.check(extra, counts=True)
        dtype = self.reading.tensors[extra.name].dtype
        if not dtype.startswith(self.weights) and not extra.name.endswith(COUNTER):
            self.misfits.append((extra.name, INTEGERS.format(dtype)))

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

    def check_axes(self) -> None:
        """Report arrays that the model lacks for their number of axes alone, as a head of one axis where it has two.

        Arrays beside them, as the bias of that head, are of the model too: nothing shows that they do not fit.
        """
        known = dialect_lines(self.reading.architecture, self.reading.dialect)
        unused = {name: tensor for name, tensor in self.reading.tensors.items() if name not in self.used}
        axes = {name: {len(line.axes[1]) for line, _ in placing(known, name)} for name in unused}
        odd = [name for name, tensor in unused.items() if axes[name] and len(tensor.shape) not in axes[name]]
        for name in odd:
            expected = " or ".join(map(str, sorted(axes[name])))
            self.misfits.append((name, f"has shape {list(unused[name].shape)}, expected {expected} axes"))
        modules = {_module(name) for name in odd} - {""}
        self.used.update(odd, (name for name in unused if axes[name] and _module(name) in modules))

    def unfit(self) -> list[str]:
        """Return names of arrays that do not fit."""
        return [name for name, _ in self.misfits]

    def lines(self) -> list[str]:
        """Return a line for each kind of problem."""
        unused = [name for name in self.reading.tensors if name not in self.used]
        misfits = [(name, problem + self._beside(name)) for name, problem in self.misfits]
        none = without_array(self.reading, self.skipped)  # said of every error of this reading
        absent = [name for name in self.missing if name not in none]
        no_arrays = folding.no_arrays(absent, self._described)
        missing = folding.missing([name for name in absent if name not in no_arrays], unused)
        return [*folding.capped(list(no_arrays.values()), "no arrays"), *missing, *folding.misfits(misfits),
                *folding.unexpected(unused)]  # fmt: skip

    def _described(self, name: str) -> str:
        """Say what the file has under a name of the dialect, whose collection (params/) may be the place itself."""
        head, slash, _ = name.partition("/")
        starts = dict.fromkeys((self.reading.place, self.reading.place.removesuffix(head + slash)))
        return next(filter(None, (self.skipped.described(start + name) for start in starts)), "")

    def _beside(self, name: str) -> str:
        """Name the weight beside a bias that does not fit: either may be wrong, and sizes are read off the weight."""
        module = _module(name)
        odd = {other for other, _ in self.misfits}
        larger = [
            f"its {other.removeprefix(module)} has shape {list(tensor.shape)}"
            for other, tensor in self.reading.tensors.items()
            if module and other.startswith(module) and len(tensor.shape) > 1 and other not in odd
        ]
        vector = len(self.reading.tensors[name].shape) == 1
        return f", as {larger[0]}" if vector and len(larger) == 1 else ""


def _module(name: str) -> str:
    """Return the path of an array's module, with the stop behind it."""
    return name[: max(name.rfind("."), name.rfind("/")) + 1]
