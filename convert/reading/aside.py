"""Name what a file holds beside the model that is read from it, so that nothing is left out in silence."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from convert.errors import command_or_call, option
from convert.files.base import Tensor
from convert.folding import counted
from specs.words import count

from .named_copies import likely_places
from .nesting import (
    LEAST,
    LONGEST,
    PROFILED,
    copied_place,
    cuts,
    label,
    statistics_of,
    training,
    training_state,
    unwrapped,
)
from .own_names import REASON as OWN_NAMES
from .own_names import is_own
from .readings import Reading, copies_without_collection, is_known, normal
from .recognise import spellings

COPY = "a model with the same names: {} takes it"
BARE = "a copy of arrays of this model, without those of its other collections"
STATISTICS = "running statistics of {}"
STATE = "training state"
COUNTS = "counts of a profiler"
PART = "named like a part of this model"
UNUSED = "in this dialect's files, and no weight of the model"
STEPS = "a count of steps of an optimizer"
OTHER = "no part of this model"
LINES = 8  # that a note lists
EACH = 3  # entries with one reason that a note lists; `inspect` lists all


class Aside(NamedTuple):
    """Arrays of a file that are set aside.

    Args:
      name: of one array, with numbers folded of several like it, or the container of all of them.
      arrays: how many.
      elements: of all of them together.
      detail: dtype and shape, where all have the same.
      reason: why they are set aside.
    """

    name: str
    arrays: int
    elements: int
    detail: str
    reason: str

    def __str__(self) -> str:
        arrays, elements = (count(n, what) for n, what in ((self.arrays, "array"), (self.elements, "element")))
        size = f"{arrays} of {elements}" if self.arrays > 1 or not self.detail else ""
        return f"{self.name} {' '.join(filter(None, (self.detail, size)))} ({self.reason})"


def set_aside(tensors: Mapping[str, Tensor], used: Iterable[str], reading: Reading) -> list[Aside]:
    """Return every array of a file that is not in `used`, folded."""
    names = set(used)
    left = [name for name in tensors if name not in names]
    copies = _copies(left, _spelled(reading), max(LEAST, len(names) / 2)) if left else []
    bare = tuple(copies_without_collection(names, left))
    tops = {name[: name.index("/") + 1] for name in left if "/" in name}
    collections = {name[len(reading.place) :].partition("/")[0] for name in reading.known}
    statistics = {place: of for of in (*copies, *bare) if (place := statistics_of(of))}
    groups: dict[tuple[str, str, str], list[Tensor]] = {}
    for name in left:
        tensor = tensors[name]
        container, reason = _explain(name, reading, copies)
        if reason == OTHER and _counts_steps(tensor):
            reason = STEPS
        elif reason == OTHER and is_own(name):
            reason = OWN_NAMES
        if not container and name.startswith(bare):
            container = name[: name.index("/") + 1]
            is_whole = len(collections) == 1 or statistics_of(container) in tops
            reason = _copy_reason(container) if is_whole else BARE
        if place := next(filter(name.startswith, statistics), ""):
            container, reason = place, STATISTICS.format(statistics[place])
        key = (container, "", reason) if container else (normal(name), _detail(tensor), reason)
        groups.setdefault(key, []).append(tensor)
    return [entry for (name, detail, reason), group in groups.items() for entry in _fold(name, detail, reason, group)]


def by_name(tensors: Mapping[str, Tensor]) -> list[Aside]:
    """Name what a file of an unknown architecture contains beside a model: training state, and copies of weights.

    In a file of nothing else, as that of an optimizer, it is what the file has.
    """
    groups: dict[tuple[str, str], list[Tensor]] = {}
    aside = training_and_copies(tensors)
    for name, (container, reason) in aside.items() if len(aside) < len(tensors) else ():
        groups.setdefault((container, reason), []).append(tensors[name])
    return [
        entry
        for (name, reason), group in groups.items()
        for entry in _fold(name, "" if name[-1] in "/." else _detail(group[0]), reason, group)
    ]


def training_and_copies(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return {name: (its container, why it is no array of a model)} for a file of an unknown architecture."""
    state = {name: (container, STATE) for name, container in training_state(names).items()}
    copies = {place: (place, _copy_reason(place)) for place in likely_places(names)}
    return state | {name: copies[place] for name in names if (place := copied_place(name)) in copies}


def _copy_reason(place: str) -> str:
    import shlex  # that few files need

    return COPY.format(option("weights", command_or_call(shlex.quote(label(place)), label(place))))


def _spelled(reading: Reading) -> Collection[str]:
    """Return the forms of the model's names in its dialect: those of an nnx module only where it is one itself."""
    forms = spellings(*reading.which)
    usual = {form for form, own in forms.items() if form == own}
    own = (name[len(reading.place) :] for name in reading.known)
    return usual if all(is_known(name, usual) for name in own) else forms


def _copies(names: Iterable[str], spelled: Collection[str], enough: float) -> list[str]:
    """Find the places under which many of these names are names of the model, inner ones first.

    A place that is another one and wrappers, as ema/module. beside ema/, is the same copy.
    """
    hits: Counter[str] = Counter()
    for name in names:
        if not training(name):
            hits.update(_places(name, spelled))
    places = sorted((place for place, count in hits.items() if count >= enough), key=len, reverse=True)
    return [p for p in places if not any(_only_wraps(p, other) for other in places)]


def _only_wraps(inner: str, place: str) -> bool:
    """Tell whether a place is another one, the root aside, and wrappers."""
    return bool(place) and place != inner and inner.startswith(place) and not unwrapped(inner[len(place) :])


def _places(name: str, spelled: Collection[str]) -> set[str]:
    """Return the places under which a name is one that a dialect knows."""
    if len(name) > LONGEST:
        return set()
    return {name[:cut] for cut in cuts(name) if is_known(name[cut:], spelled)}


def _fold(name: str, detail: str, reason: str, group: list[Tensor]) -> Iterator[Aside]:
    """Yield one entry for a container, and for each name into which the names of like arrays fold."""
    if detail:
        lines = counted(tensor.name for tensor in group)
        yield from (Aside(line, arrays, arrays * group[0].size, detail, reason) for line, arrays in lines.items())
    else:
        yield Aside(name, len(group), sum(t.size for t in group), detail, reason)


def _detail(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _explain(name: str, reading: Reading, copies: list[str]) -> tuple[str, str]:
    """Return (the container that is named in its place or "", the reason)."""
    spelled = spellings(*reading.which)
    for place in copies:
        if place and place != reading.place and name.startswith(place):
            return place, _copy_reason(place)
    if inside(name, reading.prefix) and is_known(name[len(reading.prefix) :].lstrip("/"), spelled):
        return "", UNUSED
    if name.endswith(PROFILED):
        return "", COUNTS
    if container := training(name):
        return container if container[-1] == "/" else "", STATE
    return "", PART if _places(name, spelled) else OTHER


def _counts_steps(tensor: Tensor) -> bool:
    """Tell whether an array is optax's count of the steps of a schedule, which has a place of its own in a chain."""
    return tensor.name.rpartition("/")[2] == "count" and tensor.size == 1 and "int" in tensor.dtype


def inside(name: str, part: str) -> bool:
    """Tell whether an array lies in a part of a file, as `label` writes it; "" is the root."""
    return not part or name.startswith(part if part.endswith(".") else f"{part}/")


def summary(entries: list[Aside]) -> str:
    """Return one line for a note: many entries with one reason are counted behind the first names."""
    groups: dict[str, list[Aside]] = {}
    for entry in entries:
        groups.setdefault(entry.reason, []).append(entry)
    texts = [
        text for group in groups.values() for text in (map(str, group) if len(group) <= EACH else [_joined(group)])
    ]
    return "; ".join(texts[:LINES]) + (f"; and {len(texts) - LINES} more" if texts[LINES:] else "")


def _joined(group: Sequence[Aside]) -> str:
    """Describe entries with one reason in one text."""
    arrays, elements = (sum(each) for each in zip(*((one.arrays, one.elements) for one in group), strict=True))
    shown, size = group[:EACH], f"{count(arrays, 'array')} of {count(elements, 'element')}"
    more = f"and {arrays - sum(one.arrays for one in shown):,} more, which inspect lists"
    return f"{', '.join(one.name for one in shown)} {more} ({size}; {group[0].reason})"


def as_json(entries: list[Aside]) -> list[dict[str, Any]]:
    return [entry._asdict() for entry in entries]
