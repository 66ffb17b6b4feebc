"""Convert by a Table: any model's checkpoint, without an architecture, planned from names and shapes alone.

plan = convert.table.by_table.plan("bert.safetensors", "bert.table")
plan.write("bert.msgpack")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from convert.arrays.dtypes import check_target
from convert.arrays.steps import Promise, Step, step
from convert.errors import ConvertError, OpenLengths, UsageError, option
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor
from convert.reading import exchanged, masters
from convert.reading.replicas import FirstReplica
from convert.reading.spelling import out_of_modules
from convert.records import altered, checked
from convert.records.record import Record
from specs.applied.layout import Entry, Equal, Layout
from specs.notation.claims import not_covered, unproven
from specs.notation.dtype_kinds import kind
from specs.solving.matching import Matcher
from specs.table import Table

from .file import check_complete, load, record_problems
from .laying_out import lay_out, read_like
from .lengths import check_derived_ranges, check_given, check_record, contradictions, supplied, unlike
from .like import copies
from .misfit import replicas
from .part import TablePart, matching, without_training
from .plan import TablePlan

Elsewhere = Callable[[Reader, Callable[[], frozenset[str]]], frozenset[str]]  # see `plan`


def plan(
    path: str,
    table: str | Table,
    backwards: bool = False,
    like: str | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    elsewhere: Elsewhere | None = None,
    like_weights: str | None = None,
    unreplicate: bool = False,
    complete: bool = True,
    sampled: bool = False,
) -> TablePlan:
    """Plan a conversion by a Table.

    Args:
      path: source checkpoint, any format. table: its file, or the Table.
      backwards: read the table from right to left.
      like: a checkpoint of the other side, whose names and shapes the target has to have.
      sizes: lengths of axes that shapes leave open.
      dtype: dtype of the target's floating-point tensors; None keeps the source's.
      weights: take only the arrays nested there.
      elsewhere: names the arrays and entries that something beside this plan converts, as the state of an optimizer.
        Called with what names the arrays that no line of the table speaks of.
      like_weights: the part of `like` that has those names; None takes all of it.
      unreplicate: take the first of the replicas that pmap leaves in every array, after checking that all are equal.
      complete: copy what the table drops on the target's side from `like`, or report that the target lacks it.
      sampled: compare the file with its record by a sample of the values, which a note reports, and not by all.
    Raises: ConvertError that lists everything that does not fit; UsageError for open axes.
    """
    check_target(dtype)
    given = load(table) if isinstance(table, str) else table
    check_complete(given)
    lines = given.reverse() if backwards else given
    stored = open_checkpoint(path)
    try:
        own, accounted = _source(stored, lines, weights, elsewhere, unreplicate)
        target = read_like(lines, like, like_weights)
        laid_out = partial(
            lay_out, lines, path, own.sources, like, like_shapes=target.shapes, like_weights=like_weights,
            backwards=backwards, prefix=own.prefix, described=stored.skipped.described,
        )  # fmt: skip
        planned = _plan_lines(own, lines, laid_out, sizes or {}, backwards, dtype, path, accounted)
        record = checked.read(stored, sampled)
        check_given(path, planned.layout.bound, sizes or {})
        if complete:
            if like is None:
                check_derived_ranges(path, planned, sizes or {})
            others = copies(lines, planned.layout, like, like_weights, record.carried)
            planned = replace(planned, steps=(*planned.steps, *others.steps), copies=others, ties=target.ties)
        planned = _with_record(planned, record, path)
        without = _open(laid_out) if sizes else None
        remarks = [
            f"{lines.name}: {doubt}" for doubt in (unproven(lines), *not_covered(lines, like is not None)) if doubt
        ]
        remarks += _remarks(planned, sizes or {}, without, own, record)
        remarks += exchanged.remarks(stored, own.sources.values())
        remarks += masters.remarks(stored, own.sources.values())
        beside = tuple(file for file in (table, like) if isinstance(file, str))
        return replace(planned, remarks=(*remarks, *(target.notes if complete else ())), beside=beside)
    except BaseException:
        stored.close()
        raise


def _plan_lines(
    own: TablePart, lines: Table, laid_out: Callable[[Mapping[str, int]], Layout], lengths: Mapping[str, int],
    backwards: bool, dtype: str | None, path: str, accounted: frozenset[str],
) -> TablePlan:  # fmt: skip
    """Plan what the lines of a Table say, without the record of the source and what no line fills."""
    layout = laid_out(lengths)
    steps = tuple(_step(entry, own.sources, dtype, path) for entry in layout.entries)
    checks = tuple(_promise(check, own.sources, path, lines) for check in layout.checks)
    read = own.taken | accounted
    aside = tuple(name for name in own.reader.tensors if not name.startswith(own.prefix) and name not in read)
    return TablePlan(
        own.reader, lines, backwards, layout, steps, own.sources, checks, own.prefix, aside,
        given=_needed(lengths, laid_out), accounted=accounted,
    )  # fmt: skip


def _with_record(planned: TablePlan, record: Record, path: str) -> TablePlan:
    """Add what the record of the source says. Raises: ConvertError where it contradicts the Table."""
    check_record(path, record, planned.table, planned.layout.sizes)
    facts: dict[str, Any] = {**altered.facts(os.path.basename(path), record.content, record.change)}
    if record.damage:
        return replace(planned, altered=facts)
    facts |= {"lossy": lossy} if (lossy := [] if record.change else record.lossy) else {}
    written = {tensor.name for tensor, _ in planned.steps}
    counts = {name: count for name, count in record.carried.items() if name not in written}
    return replace(planned, altered=facts, earlier=record.supplied, partly=record.supplied_in_part, passed_on=counts)


def _needed(lengths: Mapping[str, int], laid_out: Callable[[Mapping[str, int]], Layout]) -> Mapping[str, int]:
    """Return the lengths without which others leave axes open; all of them where any of them would do."""

    def fits(some: Mapping[str, int]) -> bool:
        try:
            return bool(laid_out(some))
        except ConvertError:
            return False

    needed = {name: lengths[name] for name in lengths if not fits({n: lengths[n] for n in lengths if n != name})}
    return needed or ({} if fits({}) else lengths)


def _open(laid_out: Callable[[Mapping[str, int]], Layout]) -> OpenLengths | None:
    """Return which lengths are open where the user gives none."""
    try:
        laid_out({})
    except OpenLengths as error:
        return error
    except ConvertError:  # lengths that are given settle more than those that are open
        pass
    return None


def _remarks(
    planned: TablePlan, lengths: Mapping[str, int], without: OpenLengths | None, own: TablePart, record: Record
) -> Iterator[str]:
    """Yield what a user should know of a plan.

    Args:
      lengths: that the user gives. without: what is open without these.
      own: what the Table is applied to. record: the record of the source.
    """
    lines, layout = planned.table, planned.layout
    yield from supplied(lines, planned.given, layout, without)
    yield from contradictions(lines, lengths, layout.sizes)
    yield from unlike(layout.constants, layout.shapes, planned.given)
    yield from own.reader.remarks
    yield from own.notes
    yield from record_problems(record)


def _source(
    stored: Reader, lines: Table, weights: str | None, elsewhere: Elsewhere | None, unreplicate: bool
) -> tuple[TablePart, frozenset[str]]:
    """Return what a Table is applied to, and what `elsewhere` names; arguments and errors as in `plan`."""
    own = matching(out_of_modules(stored), weights, lines)
    accounted = elsewhere(own.reader, lambda: _unused(lines, own)) if elsewhere else frozenset[str]()
    rest = without_training(own.without(accounted), lines)
    return (_first_replica(rest, lines, required=elsewhere is None) if unreplicate else rest), accounted


def _first_replica(own: TablePart, table: Table, required: bool) -> TablePart:
    """Take one of the replicas that pmap leaves, if all are equal.

    Args:
      required: whether arrays without replicas are an error; the state of an optimizer may be replicated alone.
    Raises: UsageError where the arrays fit as they are; ConvertError where the replicas differ.
    """
    if not replicas(table, own.sources):
        if required:
            asked = option("unreplicate")
            what = f"no axis of replicas is common to its arrays, without which they fit the table: leave out {asked}"
            raise UsageError(f"{own.reader.path}: {asked}: {what}")
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
