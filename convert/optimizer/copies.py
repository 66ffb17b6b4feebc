"""Find the copies of weights that a training averages (EMA, SWA).

Found by names alone: a container with a word such as "ema", in which arrays are named as the weights are: timm's
`state_dict_ema`, torchvision's `model_ema`, torch's AveragedModel (`module.` before names, `n_averaged` beside them),
`ema_params` of a TrainState. optax.EmaState is another thing: its sums begin at 0 and are divided when they are used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convert.aside import copied_place
from convert.counters import read as read_counter
from convert.errors import UsageError, option
from convert.files.base import Reader, Tensor
from convert.nesting import COPIES, LONGEST, PROFILED, label, unwrapped
from convert.replicas import leading

if TYPE_CHECKING:
    from convert.by_table import TablePlan
    from convert.plans import Plan

WORDS = COPIES - {"old", "previous", "prev", "backup"}  # of an average, and of no other copy
COUNTS = ("n_averaged", "num_updates", "updates", "count")  # how often it was averaged
TRIED = 8  # names of a copy that are looked for among those of weights: one of them may be no weight's
WRAPPING = 4  # levels below the container that may stand before the names of weights


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


def find(reader: Reader, apart: Collection[str], live: Collection[str] | None = None) -> list[Copy]:
    """Find the copies of weights in a file.

    Args:
      apart: names of the optimizer's state.
      live: names of the weights; None: whatever is no copy and no state may be weights.
    """
    inside: dict[str, list[Tensor]] = {}
    others: list[str] = []
    for name, tensor in reader.tensors.items():
        place = copied_place(name[:LONGEST], WORDS) if name not in apart else ""
        if name in (live or ()) or not place:
            others += [name] if live is None or name in live else []
        elif not name.endswith(PROFILED):
            inside.setdefault(place, []).append(tensor)
    if live is None:
        others = [name for name in others if name not in apart]
    weights = {unwrapped(name): name for name in others}
    parts: dict[str, list[Copy]] = {}
    for place, tensors in inside.items():
        if part := _copy(reader, place, tensors, weights):
            parts.setdefault(_family(place, part), []).append(part)
    return [_joined(group) for group in parts.values()]


def _copy(reader: Reader, place: str, tensors: Iterable[Tensor], weights: Mapping[str, str]) -> Copy | None:
    """Read the copy in one place; None where its arrays are named as no weights are, and have no mere numbers."""
    rests = {tensor.name.removeprefix(place): tensor for tensor in tensors}
    counts = {rest: t for rest, t in rests.items() if rest.rpartition("/")[2] in COUNTS and t.size == 1}
    rests = {unwrapped(rest): tensor for rest, tensor in rests.items() if rest not in counts}
    by_optax = reader.format in ("msgpack", "orbax") and "count" in counts and bool(rests)
    from_zero = by_optax and all(rest.startswith("ema/") for rest in rests)
    named, strangers = _named(rests, weights)
    strangers = strangers if named else [tensor.name for tensor in rests.values()]
    if not named and not (rests and all(rest.rpartition("/")[2].isdigit() for rest in rests)):
        return None
    plain = [name for name in reader.skipped.load() if name.startswith(place) and name.removeprefix(place) in COUNTS]
    numbers = [read_counter(reader, tensor).value for tensor in counts.values()]
    numbers += [value for name in plain if type(value := reader.skipped.values[name]) is int]
    count = numbers[0] if len(numbers) == 1 else None
    used = {tensor.name for tensor in (*named.values(), *counts.values())}
    return Copy(place, named, tuple(strangers), count, from_zero, frozenset({*used, *plain}))


def _named(rests: Mapping[str, Tensor], weights: Mapping[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return averages by the names of their weights, and the names that no weight has, for the best fit of both."""
    best: tuple[dict[str, Tensor], list[str]] = {}, []
    for _ in range(WRAPPING):
        for base in _bases(rests, weights):
            named = {weights[base + rest]: tensor for rest, tensor in rests.items() if base + rest in weights}
            if len(named) > len(best[0]):
                best = named, [tensor.name for rest, tensor in rests.items() if base + rest not in weights]
        heads = {rest.replace(".", "/").partition("/")[0] for rest in rests}
        if best[0] or len(heads) != 1:
            break
        skip = len(heads.pop()) + 1
        rests = {rest[skip:]: tensor for rest, tensor in rests.items()}
    return best


def _bases(rests: Mapping[str, Tensor], weights: Mapping[str, str]) -> Iterator[str]:
    """Yield what may stand before the names in a copy to give the names of weights."""
    longest = [rest for rest in sorted(rests, key=len, reverse=True)[:TRIED] if rest]
    bases = {name.removesuffix(rest) for rest in longest for name in weights if name.endswith(rest)}
    yield from (base for base in sorted(bases) if not base or base[-1] in "/.")


def _family(place: str, part: Copy) -> str:
    """Return what parts of one copy share: ema_params/ and ema_batch_stats/, which copy params/ and batch_stats/."""
    collections = {name.partition("/")[0] for name in part.arrays if "/" in name}
    (collection,) = collections if len(collections) == 1 else ("",)
    level = len(place.rstrip("/").rpartition("/")[0])  # a folder above may contain the word too
    return place[:level] + place[level:].replace(collection, "", 1) if collection else place


def _joined(parts: list[Copy]) -> Copy:
    if len(parts) == 1:
        return parts[0]
    counts = {part.count for part in parts}
    return Copy(
        ", ".join(part.place for part in parts),
        {name: tensor for part in parts for name, tensor in part.arrays.items()},
        tuple(name for part in parts for name in part.strangers),
        counts.pop() if len(counts) == 1 else None,
        any(part.from_zero for part in parts),
        frozenset(name for part in parts for name in part.used),
    )


def apart(reader: Reader, optimizer: Collection[str]) -> frozenset[str]:
    """Name the arrays of a file that are copies of weights; `optimizer` names those of the optimizer's state."""
    return frozenset(name for copy in find(reader, optimizer) for name in (*copy.used, *copy.strangers))


def replicated(copies: Iterable[Copy], reader: Reader, weights: Iterable[Tensor]) -> list[Tensor]:
    """Return the arrays of copies that pmap has stored once for each device, all of them; [] where it has not."""
    shapes = {tensor.name: tensor.shape for tensor in weights}
    copies = list(copies)
    names = [name for copy in copies for name in (*copy.used, *copy.strangers) if name in reader.tensors]
    arrays = [reader.tensors[name] for name in names]
    same = all(tensor.shape[1:] == shapes.get(name) for copy in copies for name, tensor in copy.arrays.items())
    return arrays if same and leading(arrays) else []


def of(plan: Plan | TablePlan, reader: Reader, apart: frozenset[str]) -> list[Copy]:
    """Find the copies of a plan's weights in its file, however that is read.

    Raises: UsageError where the plan takes such a copy for the weights.
    """
    names = {tensor.name for tensor in plan.sources.values()}
    if any(copied_place(name, WORDS) for name in names):
        for copy in find(reader, apart):
            if names <= {*copy.used, *copy.strangers}:
                what = f"{option('weights', label(copy.place))} takes an average of the weights"
                remedy = "leave it out, and the average goes along, or convert it alone, without --with-optimizer"
                raise UsageError(f"{reader.path}: {what}, and the optimizer's state is of the weights: {remedy}")
    return find(reader, apart, names)
