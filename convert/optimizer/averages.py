"""Move the average of the weights (EMA, SWA) as the weights are moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from convert import folding
from convert.arrays.counters import COUNTER, is_count
from convert.arrays.dtypes import FLOATS
from convert.arrays.steps import Copied, Filling, Promise, Step, Sum, sources_of
from convert.errors import ConvertError, option
from convert.files.base import Tensor, meant
from convert.reading.nesting import label
from convert.records.altered import WARNING
from specs.applied.moves import Fill, Move

from .copies import Copy
from .ties import tied_names

if TYPE_CHECKING:
    from convert.plans.plan import Plan
    from convert.table.plan import TablePlan

Part = TypeVar("Part", bound=Move | Fill)
COPIED = (
    f"{WARNING}--hyper averaged=0: at a count of 0, the next update of an AveragedModel copies the weights over this "
    "average: state how often it was averaged"
)
PREFIX = "average: "  # before the name of a weight: its average, among the sources of steps


@dataclass(frozen=True)
class Averages:
    """What becomes of a copy in the target.

    Args:
      place: of the copy in the source.
      steps: the target's weights, filled with the averages.
      shared: those of them that the copy lacks, filled with the model's own: running statistics and batch counters.
      uncounted: batch counters of the copy that the target does not store.
      notes: on its count, and on arrays that it stores once for several weights.
      checks: what has to hold of the averages as it has of the weights.
    """

    place: str
    steps: tuple[Step, ...]
    shared: frozenset[str]
    count: int | None
    from_zero: bool
    checks: tuple[Promise, ...] = field(default=())
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def fill(
    copy: Copy, weights: Plan | TablePlan, trained: Collection[str], dtype: str | None
) -> tuple[Averages, dict[str, Tensor]]:
    """Fill the target's weights with the averages, by the moves of the weights.

    Args:
      weights: their plan. trained: which of its sources are parameters.
      dtype: of the target's floating-point tensors; None keeps the averages'.
    Returns: what to write, and its sources.
    Raises: ConvertError with the reason why the copy cannot go along.
    """
    stored = {name: copy.arrays[tensor.name] for name, tensor in weights.sources.items() if tensor.name in copy.arrays}
    if not stored:
        raise ConvertError("its arrays have numbers, and no names of weights")
    tied = _tied(weights, stored)
    own = stored | {name: stored[other] for name, other in tied.items()}
    _check(copy, weights, trained, own)
    bits = weights.reader.format == "pdparams"
    averages = {PREFIX + n: t._replace(dtype=meant(t.dtype)) if bits else t for n, t in own.items()}
    steps, shared = _filled(weights.steps, averages, dtype)
    used = {name for _, filling in weights.steps for name in sources_of(filling)}
    also = tuple(_promise(check) for check in weights.checks if {check.name, check.other} - {""} <= stored.keys())
    left = tuple(tensor.name for name, tensor in own.items() if name.endswith(COUNTER) and name not in used)
    place = label(copy.place)
    ties = folding.equations((other, name) for name, other in tied.items())
    notes: tuple[str, ...] = (f"tied, and once in the average under {place}: {', '.join(ties)}",) if ties else ()
    if copied := [tensor.name for tensor, filling in weights.steps if isinstance(filling, Copied)]:
        what = "lacks what the table drops: the file of --like fills it in the average, too"
        notes += (f"{place} {what}: {', '.join(folding.fold(copied))}",)
    whole = Averages(place, tuple(steps), frozenset(shared), copy.count, copy.from_zero, also, left, notes)
    return whole, averages


def _check(copy: Copy, weights: Plan | TablePlan, trained: Collection[str], own: Mapping[str, Tensor]) -> None:
    """Check that a copy has an average of each parameter, in its shape, and no others. Raises: ConvertError.

    Args:
      own: the averages by the name of their weight.
    """
    if lacking := [name for name in trained if name not in own]:
        raise ConvertError(f"it lacks {folding.listed(lacking)}")
    if copy.strangers:
        raise ConvertError(f"it also contains {folding.listed(copy.strangers)}")
    for name, tensor in own.items():
        if tensor.shape != weights.sources[name].shape:
            shapes = f"{list(tensor.shape)}, and {name} has {list(weights.sources[name].shape)}"
            raise ConvertError(f"{tensor.name} has shape {shapes}")


def _filled(steps: Sequence[Step], averages: Mapping[str, Tensor], dtype: str | None) -> tuple[list[Step], set[str]]:
    """Return the steps of the weights, filled with averages, and the names of those for which there are none.

    Raises: ConvertError for a weight that would be joined from averages and others, or from several dtypes.
    """
    filled, shared = list[Step](), set[str]()
    for tensor, filling in steps:
        names = [PREFIX + name for name in sources_of(filling)]
        dtypes = {averages[name].dtype for name in names if name in averages}
        if (names and not dtypes) or (not names and tensor.name.endswith(COUNTER)):
            shared.add(tensor.name)
        elif not averages.keys() >= set(names):
            raise ConvertError(f"{tensor.name} joins arrays that it has with others that it lacks")
        elif len(dtypes) > 1:
            raise ConvertError(f"{tensor.name} joins averages of {' and '.join(sorted(dtypes))}")
        elif dtypes:
            kept = dtypes.pop()
            filled.append((tensor._replace(dtype=dtype if dtype and kept in FLOATS else kept), _renamed(filling)))
            continue
        filled.append((tensor, filling))
    return filled, shared


def _tied(weights: Plan | TablePlan, own: Collection[str]) -> dict[str, str]:
    """Return {weight that a copy lacks: the one that it is tied to}, of one shape, as named_parameters() names one."""
    pairs = {
        name: next(
            (one for one in names if one in own and weights.sources[one].shape == weights.sources[name].shape), ""
        )
        for name, names in tied_names(weights).items()
        if name not in own
    }
    return {name: other for name, other in pairs.items() if other}


def _renamed(filling: Filling) -> Filling:
    """Return the same moves of the averages."""
    if isinstance(filling, Sum):
        return Sum([[_moved(part) for part in parts] for parts in filling.terms])
    return [_moved(part) for part in filling] if isinstance(filling, list) else filling


def _moved(part: Part) -> Part:
    return part._replace(source=PREFIX + part.source) if isinstance(part, Move) else part


def _promise(check: Promise) -> Promise:
    """Return what has to hold of weights, of their averages."""
    other = check.other and PREFIX + check.other
    parts, others = (list(map(_moved, moves)) for moves in (check.parts, check.others))
    return check._replace(name=PREFIX + check.name, parts=parts, other=other, others=others)


def chosen(
    copies: Sequence[Copy],
    plan: Plan | TablePlan,
    trained: Mapping[str, Tensor],
    dtype: str | None,
    stated: Mapping[str, Any],
    record: Mapping[str, Any],
) -> tuple[Averages | None, dict[str, Tensor], list[str]]:
    """Return what goes along of the copies of the weights, its sources, and why others stay behind.

    Args:
      record: what the record of the weights' file says of an optimizer.
    """
    places = [label(copy.place) for copy in copies]
    if len(copies) > 1:
        why = f"averages of the weights stay behind, as no training state has room for several: {', '.join(places)}"
        named = next((copy.part for copy in copies if copy.arrays), "")  # a list of arrays has no names of weights
        how = f" ({option('weights', named)} converts one alone, without --with-optimizer)" * bool(named)
        return None, {}, [f"{why}{how}"]
    for copy in copies:
        try:
            filled, sources = fill(copy, plan, trained, dtype)
        except ConvertError as reason:
            return None, {}, [f"the average of the weights under {places[0]} stays behind: {reason}"]
        return _counted(filled, stated, record), sources, []
    return None, {}, []


def _counted(average: Averages, stated: Mapping[str, Any], record: Mapping[str, Any]) -> Averages:
    """Return an average with its count: as the user states it, as the file does, or as its record does."""
    known, source = average.count, "file"
    if known is None:
        known, source = _recorded(average.place, record), "record"
    if "averaged" not in stated:
        notes = [f"from the record: averaged={known}"] if source == "record" and known is not None else []
        return replace(average, count=known, notes=(*average.notes, *notes))
    count = stated["averaged"]
    notes = [f"averaged={count} as you state; the {source} has {known}"] if known not in (None, count) else []
    return replace(average, count=count, notes=(*average.notes, *notes, *([COPIED] if count == 0 else [])))


def _recorded(place: str, record: Mapping[str, Any]) -> int | None:
    """Return how often a copy was averaged by the record of its file; None where that does not say."""
    lines = record.get("averages")
    lines = [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    counts = [line.get("averaged") for line in lines if line.get("to") == place]
    return int(counts[0]) if len(counts) == 1 and is_count(counts[0]) else None


def about(copies: Sequence[Copy], average: Averages | None, to: str) -> dict[str, Any]:
    """Return what the record says of the copies of the weights."""
    if not copies:
        return {}
    lines = [{"from": label(copy.place), "to": to or None, "averaged": copy.count} for copy in copies]
    return {"averages": [{**line, "averaged": average.count} if average else line for line in lines]}
