"""Convert by a Table: any model's checkpoint, without an architecture, planned from names and shapes alone.

plan = convert.by_table.plan("bert.safetensors", "bert.table")
plan.write("bert.msgpack")
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from specs.claims import UNPROVEN, claim, unproven
from specs.dtype_kinds import kind
from specs.layout import Entry, Equal, Layout
from specs.matching import Matcher
from specs.moves import Move
from specs.numerals import exact
from specs.stating import stated
from specs.table import Table

from . import altered, folding, masters, record
from .dtypes import FLOATS
from .errors import ConvertError, UsageError, option
from .files import open_checkpoint
from .files.base import PADDLE_BFLOAT16, Reader, Tensor
from .replicas import FirstReplica
from .spelling import out_of_modules
from .steps import ConstantFilling, Promise, Step, step, supplied, supplied_in_part
from .table_file import check_complete, doubts_on_record, load
from .table_fit import lay_out, replicas
from .table_lengths import contradictions
from .table_like import NOTHING, Copies, copies
from .table_part import TablePart, matching, without_training


@dataclass(frozen=True)
class TablePlan:
    """Everything a conversion by a Table will do. A context manager that closes the source.

    Args:
      table: as it is read here, from left to right. backwards: whether the file has it the other way round.
      sources: the arrays of the source by name. prefix: where in the source they lie, "" for its root.
      aside: arrays of the source outside of `prefix`.
      copies: what no line fills; its steps are the last ones.
      remarks: on the Table, how the source is read, and its record.
    """

    reader: Reader
    table: Table
    backwards: bool
    layout: Layout
    steps: tuple[Step, ...]
    sources: dict[str, Tensor]
    checks: tuple[Promise, ...]
    prefix: str
    aside: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    earlier: frozenset[str] = frozenset()  # arrays of the file that an earlier conversion supplied
    partly: frozenset[str] = frozenset()  # those of them of which it read some elements
    accounted: frozenset[str] = frozenset()  # arrays and entries of the file that something beside this plan converts
    copies: Copies = NOTHING
    altered: Mapping[str, Any] = field(default_factory=dict)  # what the record says of the source; see altered.facts

    @property
    def parameters(self) -> int:
        """Count the elements of the target, those of tied arrays once."""
        sizes: dict[object, int] = {}  # by the elements that are taken of the source
        for tensor, filling in self.steps:
            moves = [part for part in filling if isinstance(part, Move)] if isinstance(filling, list) else []
            taken = tuple((move.source, move.source_atoms, repr(move.select)) for move in moves)
            sizes[taken or tensor.name] = tensor.size
        return sum(sizes.values())

    def notes(self) -> list[str]:
        """Return what the user should know and need not act on."""
        dropped = {self.sources[name].name for name in self.layout.dropped}
        known = [name for name in self.reader.tensors if name not in dropped]
        facts = (
            (f"took the arrays under {self.prefix!r}; set aside", self.aside),
            ("dropped, as the table says", self.layout.dropped),
            ("dropped in part, as the table says", self.layout.cut),
            ("tied and not in the file", self.layout.absent),
            ("added into one array, which cannot be separated again", self.layout.sums),
            ("zeros, as a sum's other term", self.layout.zeroed),
            ("zeros in the part that the table drops", self.layout.blank),
            *self._constants(),
            (
                "constants of the table, which only this side stores: compared before anything is written",
                [check.name for check in self.checks if not check.other],
            ),
            *self._other_dtypes(),
            (record.EARLIER, [name for name in known if name in self.earlier - self.partly]),
            (record.PARTLY, [name for name in known if name in self.partly]),
        )
        lines = [f"{what}: {', '.join(folding.fold(names))}" for what, names in facts if names]
        lines += folding.bfloat16(bits := self._bits(), len(self.sources) - len(bits))
        skipped = folding.skipped(self.reader.skipped.without(self.accounted), self.prefix.rstrip("/"))
        return [*self.remarks, *lines, *self.copies.notes(), *(f"set aside, {line}" for line in skipped)]

    def _constants(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each value of the table's constants, and the target's arrays that hold it."""
        names: dict[float, list[str]] = {}
        constants = set(self.layout.constants)
        for tensor, filling in self.steps:
            if isinstance(filling, ConstantFilling) and tensor.name in constants:
                names.setdefault(filling.value, []).append(tensor.name)
        yield from ((f"constants of the table, = {exact(value)}", some) for value, some in names.items())

    def _other_dtypes(self) -> Iterator[tuple[str, list[str]]]:
        """Yield what the table states of constants of this side, and those that have another dtype of that kind."""
        stated = {check.name: check.dtype for check in self.layout.checks if check.dtype}
        for dtype in dict.fromkeys(stated.values()):
            names = [name for name, one in stated.items() if one == dtype != self.sources[name].dtype]
            yield f"of another dtype than {dtype}, which the table states", names

    def _bits(self) -> list[str]:
        """Return arrays whose dtype in the file is uint16, and bfloat16 here."""
        stored = {t.name for t in self.reader.tensors.values() if t.dtype == PADDLE_BFLOAT16}
        return [t.name for t in self.sources.values() if t.name in stored and t.dtype != PADDLE_BFLOAT16]

    @property
    def supplied(self) -> tuple[str, ...]:
        """List target tensors with values that the file does not state: the record of the target marks them."""
        return supplied(self.steps, self.sources, self.earlier | self.reader.filled)

    def _in_part(self) -> tuple[str, ...]:
        """List those of `supplied` that also have values of the file."""
        return supplied_in_part(self.steps, self.sources, self.earlier, self.partly)

    @property
    def tree(self) -> None:
        """Return None: weights are nested by their names alone."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return the facts of the record that are known before any payload is read."""
        sources = {name: tensor.shape for name, tensor in self.sources.items()}
        lines = stated(self.table, sources, self.layout.shapes, self.layout.sizes)  # reads back without --set
        original = lines.reverse() if self.backwards else lines
        return {
            "table": {
                "file": os.path.basename(self.table.name),
                "from": self.table.sides[0],
                "to": self.table.sides[1],
                "reversed": self.backwards,
                "text": str(original),
                **(
                    {"orders": {name: list(order) for name, order in original.orders.items()}}
                    if original.orders
                    else {}
                ),
                **({"proven": False, "difference": claim(self.table, UNPROVEN)} if unproven(self.table) else {}),
            },
            "notes": self.notes(),
            **({"supplied": list(self.supplied)} if self.supplied else {}),
            **({record.IN_PART: list(partly)} if (partly := self._in_part()) else {}),
            **self.copies.facts,
            "parameters": self.parameters,
            "source": {
                "file": os.path.basename(os.path.abspath(self.reader.path)),
                "sha256": None,  # hashed while the plan is executed
                "format": self.reader.format,
            },
            **self.altered,
            "tool": record.TOOL_VERSION,
        }

    def write(self, out: str | os.PathLike[str], force: bool = False, **options: Any) -> dict[str, Any]:
        """Write the target and return the record that travels with it; see `execute` for the options."""
        from .execute import write

        return write(self, out, force, **options)

    def close(self) -> None:
        self.reader.close()
        self.copies.close()

    def __enter__(self) -> TablePlan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lengths(texts: Iterable[str]) -> dict[str, int]:
    """Parse the lengths of axes: ["h=12"] -> {"h": 12}. Raises: UsageError."""
    given: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not re.fullmatch(r"\d{1,15}", number, re.ASCII):
            raise UsageError(f"--set {text}: with --table, write an axis and its length, as in h=12")
        if given.setdefault(name, int(number)) != int(number):
            raise UsageError(f"--set {name}: given twice, as {given[name]} and as {int(number)}")
    return given


def plan(
    path: str,
    table: str | Table,
    backwards: bool = False,
    like: str | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    apart: Callable[[Reader, Callable[[], frozenset[str]]], frozenset[str]] | None = None,
    like_weights: str | None = None,
    unreplicate: bool = False,
    complete: bool = True,
) -> TablePlan:
    """Plan a conversion by a Table.

    Args:
      path: source checkpoint, any format. table: its file, or the Table.
      backwards: read the table from right to left.
      like: a checkpoint of the other side, whose names and shapes the target has to have.
      sizes: lengths of axes that shapes leave open.
      dtype: dtype of the target's floating-point tensors; None keeps the source's.
      weights: take only the arrays nested there.
      apart: names the arrays and entries that something beside this plan converts: the state of an optimizer. Called
        with what names the arrays that no line of the table speaks of.
      like_weights: the part of `like` that has those names; None takes all of it.
      unreplicate: take the first of the replicas that pmap leaves in every array, after checking that all are equal.
      complete: copy what the table drops on the target's side from `like`, or report that the target lacks it.
    Raises: ConvertError that lists everything that does not fit; UsageError for open axes.
    """
    if dtype is not None and dtype not in FLOATS:
        raise UsageError(f"no dtype {dtype!r}: one of {', '.join(FLOATS)}")
    given = load(table) if isinstance(table, str) else table
    check_complete(given)
    lines = given.reverse() if backwards else given
    stored = open_checkpoint(path)
    reader = out_of_modules(stored)
    try:
        own = matching(reader, weights, lines)
        reader = own.reader
        accounted = apart(reader, lambda: _unused(lines, own)) if apart else frozenset[str]()
        own = without_training(own.without(accounted), lines)
        if unreplicate:
            own = _first_replica(own, lines, required=apart is None)
            reader = own.reader
        sources = own.sources
        layout = lay_out(lines, path, sources, like, sizes or {}, like_weights, backwards)
        steps = tuple(_step(entry, sources, dtype, path) for entry in layout.entries)
        checks = tuple(_promise(check, sources, path, lines) for check in layout.checks)
        others = copies(lines, layout, like, like_weights) if complete else NOTHING
        aside = tuple(n for n in reader.tensors if not n.startswith(own.prefix) and n not in own.taken | accounted)
        its = record.read(stored)
        contradicted = contradictions(lines, sizes or {}, layout.sizes)
        remarks = (*_doubts(lines), *contradicted, *reader.remarks, *own.notes, *doubts_on_record(its))
        remarks = (*remarks, *masters.remarks(stored, sources.values()))
        return TablePlan(
            reader, lines, backwards, layout, (*steps, *others.steps), sources, checks, own.prefix, aside,
            remarks=remarks, earlier=frozenset() if its.damage else its.supplied,
            partly=frozenset() if its.damage else its.supplied_in_part, accounted=accounted, copies=others,
            altered=altered.facts(os.path.basename(path), its.content, its.change),
        )  # fmt: skip
    except BaseException:
        reader.close()
        raise


def _doubts(lines: Table) -> list[str]:
    """Return what a Table says against itself."""
    return [f"{lines.name}: {doubt}"] if (doubt := unproven(lines)) else []


def _first_replica(own: TablePart, table: Table, required: bool) -> TablePart:
    """Take one of the replicas that pmap leaves, if all are equal.

    Args:
      required: whether arrays without replicas are an error; the state of an optimizer may be replicated alone.
    Raises: UsageError where the arrays fit as they are; ConvertError where the replicas differ.
    """
    if not replicas(table, own.sources):
        if required:
            what = "no axis of replicas is common to its arrays, without which they fit the table: leave it out"
            raise UsageError(f"{own.reader.path}: {option('unreplicate')}: {what}")
        return own
    wholes = [own.reader.tensors[tensor.name] for tensor in own.sources.values()]
    sources = {name: tensor._replace(shape=tensor.shape[1:]) for name, tensor in own.sources.items()}
    return own._replace(reader=FirstReplica(own.reader, wholes), sources=sources)


def _unused(table: Table, own: TablePart) -> frozenset[str]:
    """Return the file's arrays that no line of a table speaks of, or that lie outside of the part that is read."""
    used = own.sources.keys() - set(Matcher(table, own.sources).match().unexpected)
    return frozenset(own.reader.tensors.keys() - {own.sources[name].name for name in used})


def _step(entry: Entry, sources: Mapping[str, Tensor], dtype: str | None, path: str) -> Step:
    try:
        return step(entry, sources, dtype)
    except ValueError as error:
        raise ConvertError(f"{path}: {error}") from None


def _promise(check: Equal, sources: Mapping[str, Tensor], path: str, table: Table) -> Promise:
    dtypes = {sources[name].dtype for name in (check.name, check.other) if name}
    if len(dtypes) > 1:
        raise ConvertError(f"{path}: {check.name} and {check.other} are tied, and have dtypes {' and '.join(dtypes)}")
    where = f"{table.name}:{check.line.number}"
    own = dtypes.pop()
    if check.dtype and kind(own) != kind(check.dtype):
        raise ConvertError(f"{path}: {check.name} has dtype {own}, and {where} says that it is {check.dtype}")
    return Promise(check.name, check.parts, check.other, check.others, check.value, where)
