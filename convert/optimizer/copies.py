"""Find the copies of weights that a training averages (EMA, SWA).

Found by names alone, as named_copies does: timm's `state_dict_ema`, torchvision's `model_ema`, torch's AveragedModel
(`module.` before names, `n_averaged` beside them), `ema_params` of a TrainState, the LitEma of latent diffusion (names
without dots). optax.EmaState is another thing: its sums begin at 0 and are divided when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convert.arrays.counters import read as read_counter
from convert.errors import UsageError, option
from convert.files.base import Reader, Tensor
from convert.reading import exchanged
from convert.reading.named_copies import COUNTS, SETTINGS
from convert.reading.named_copies import copies as named_copies
from convert.reading.nesting import AVERAGES, PROFILED, copied_place, label, statistics_of
from convert.reading.replicas import leading

if TYPE_CHECKING:
    from convert.plans.plan import Plan
    from convert.table.plan import TablePlan


@dataclass(frozen=True)
class Copy:
    """A copy of weights in a file.

    Args:
      place: where it lies, as messages name it.
      arrays: the file's name of a weight -> its average.
      strangers: arrays in that place that are named as no weight is.
      count: how often it was averaged; None where the file does not say.
      from_zero: whether it is optax.EmaState's.
      used: names of the file's arrays and entries that belong to it.
    """

    place: str
    arrays: Mapping[str, Tensor]
    strangers: tuple[str, ...]
    count: int | None
    from_zero: bool
    used: frozenset[str]

    @property
    def part(self) -> str:
        """Return the place as --weights takes it: of linen's collections that of the parameters."""
        return label(self.place.partition(", ")[0])


def find(reader: Reader, state_names: Collection[str], weights: Collection[str]) -> list[Copy]:
    """Find the copies of weights in a file.

    Args:
      state_names: names of the optimizer's state.
      weights: names of the weights in the file.
    """
    arranged = exchanged.exchange_of(reader)
    trained = arranged and any(name.startswith(arranged.trained) for name in weights)
    known = arranged.average if arranged and trained else ""
    no_copies = {*state_names, *weights}
    names = [name for name in reader.tensors if name not in no_copies and not name.endswith(PROFILED)]
    parts: dict[str, list[Copy]] = {}
    for place, inside in named_copies(names, weights, AVERAGES, known).items():
        if part := _read(reader, place, inside, arranged.counter if arranged and place == known else ""):
            parts.setdefault(_family(place, part), []).append(part)
    return [_merged(group) for group in parts.values()]


def _read(reader: Reader, place: str, inside: Mapping[str, str], elsewhere: str = "") -> Copy | None:
    """Read the copy in one place; None where its arrays are named as no weights are, and have no mere numbers.

    Args:
      inside: names of arrays in it -> names of their weights, "" where they have none.
      elsewhere: a count of it in another place.
    """
    pairs = {name: weight for name, weight in inside.items() if weight}
    others = {name: name[len(place) :].rpartition("/")[2] for name in inside if name not in pairs}
    beside = [n for n, last in others.items() if last in COUNTS | SETTINGS and reader.tensors[n].size == 1]
    counts = [name for name in beside if others[name] in COUNTS]
    counts += [elsewhere] if elsewhere in reader.tensors else []
    strangers = {name: last for name, last in others.items() if name not in beside}
    if not pairs and not (strangers and all(map(str.isdigit, strangers.values()))):
        return None
    of_optax = reader.format in ("msgpack", "orbax") and f"{place}count" in counts
    plain = [name for name in reader.skipped.load() if name.startswith(place) and name[len(place) :] in COUNTS]
    numbers = [read_counter(reader, reader.tensors[name]).value for name in counts]
    numbers += [value for name in plain if type(value := reader.skipped.values[name]) is int]
    return Copy(
        place,
        {weight: reader.tensors[name] for name, weight in pairs.items()},
        strangers=tuple(strangers),
        count=numbers[0] if len(numbers) == 1 else None,
        from_zero=of_optax and all(name.startswith(f"{place}ema/") for name in (*pairs, *strangers)),
        used=frozenset({*pairs, *beside, *counts, *plain}),
    )


def _family(place: str, part: Copy) -> str:
    """Return what parts of one copy share: ema_params/ and ema_batch_stats/, which copy params/ and batch_stats/."""
    collections = {name.partition("/")[0] for name in part.arrays if "/" in name}
    (collection,) = collections if len(collections) == 1 else ("",)
    level = len(place.rstrip("/").rpartition("/")[0])  # a folder above may contain the word too
    return place[:level] + place[level:].replace(collection, "", 1) if collection else place


def _merged(parts: list[Copy]) -> Copy:
    if len(parts) == 1:
        return parts[0]
    counts = {part.count for part in parts}
    parts = sorted(parts, key=lambda part: not statistics_of(part.place))  # parameters first
    return Copy(
        ", ".join(label(part.place) for part in parts),
        {name: tensor for part in parts for name, tensor in part.arrays.items()},
        tuple(name for part in parts for name in part.strangers),
        counts.pop() if len(counts) == 1 else None,
        any(part.from_zero for part in parts),
        frozenset(name for part in parts for name in part.used),
    )


def copy_names(reader: Reader, state_names: Collection[str], unused: Callable[[], frozenset[str]]) -> frozenset[str]:
    """Name the arrays of a file that are copies of the weights that a Table has.

    Args:
      state_names: names of the optimizer's state.
      unused: names the arrays that no line of the Table speaks of; not called where nothing is named as a copy is.
    """
    names = reader.tensors.keys() - set(state_names)
    if not (any(copied_place(name, AVERAGES) for name in names) or exchanged.exchange_of(reader)):
        return frozenset()
    others = unused()
    averages = find(reader, state_names, names - others)
    return others.intersection(name for copy in averages for name in (*copy.used, *copy.strangers))


def replicated(copies: Iterable[Copy], reader: Reader, weights: Iterable[Tensor]) -> list[Tensor]:
    """Return the arrays of copies that pmap has stored once for each device, all of them; [] where it has not."""
    shapes = {tensor.name: tensor.shape for tensor in weights}
    copies = list(copies)
    names = [name for copy in copies for name in (*copy.used, *copy.strangers) if name in reader.tensors]
    arrays = [reader.tensors[name] for name in names]
    same = all(tensor.shape[1:] == shapes.get(name) for copy in copies for name, tensor in copy.arrays.items())
    return arrays if same and leading(arrays) else []


def of_plan(plan: Plan | TablePlan, reader: Reader, state_names: frozenset[str]) -> list[Copy]:
    """Find the copies of a plan's weights in its file, however that is read.

    Raises: UsageError where the plan takes such a copy for the weights.
    """
    exchanged.check_trained(reader, plan.sources.values())
    weights = {tensor.name for tensor in plan.sources.values()}
    if exchanged.exchange_of(reader) is None and any(copied_place(name, AVERAGES) for name in weights):
        elsewhere = {name for name in reader.tensors.keys() - state_names if not copied_place(name, AVERAGES)}
        for copy in find(reader, state_names, elsewhere):
            if weights <= {*copy.used, *copy.strangers}:
                given = option("weights", copy.part)
                what = f"{given} takes an average of the weights"
                remedy = f"leave out {given}, and the average goes along, or convert it alone, without --with-optimizer"
                raise UsageError(f"{reader.path}: {what}, and the optimizer's state is of the weights: {remedy}")
    return find(reader, state_names, weights)
