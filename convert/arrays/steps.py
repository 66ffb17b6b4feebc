"""Define the steps of a plan: target tensors, each with what it is filled from. payload.py computes the bytes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from convert.files.base import Reader, Tensor
from specs.applied.layout import Entry, Sum
from specs.applied.moves import Fill, Move
from specs.notation.dtype_kinds import first_float

from .dtypes import FLOATS


class ConstantFilling(NamedTuple):
    """A target array that the source does not hold: all its elements have this value."""

    value: float


class Copied(NamedTuple):
    """A target array that is copied from another file than the source.

    Args:
      reader: of that file, open. name: of the array in it.
    """

    reader: Reader
    name: str


class Computed(NamedTuple):
    """A target array whose values the code of its dialect computes, as the page states them: a numpy array."""

    values: Any


class Promise(NamedTuple):
    """Values of the source that have to be equal to others, or to a constant, before anything is written.

    Args:
      where: who says so. remedy: where they differ, "" without one.
      computed: a numpy array that they are instead, but for the rounding of their dtype; None for none.
    """

    name: str
    parts: list[Move]
    other: str
    others: list[Move]
    value: float
    where: str
    remedy: str = ""
    computed: Any = None


Filling = list[Move | Fill] | list[Move] | ConstantFilling | Sum | Copied | Computed
Step = tuple[Tensor, Filling]  # a target tensor and what fills it


def sources_of(filling: Filling) -> list[str]:
    """Name the source tensors that a target tensor is filled from."""
    lists = filling.terms if isinstance(filling, Sum) else [filling] if isinstance(filling, list) else []
    return [part.source for parts in lists for part in parts if isinstance(part, Move)]


def supplied(steps: Iterable[Step], sources: Mapping[str, Tensor], earlier: Collection[str]) -> tuple[str, ...]:
    """Name the target tensors with values that no source states: constants, or copies of what does not either.

    Args:
      sources: by the names that steps use.
      earlier: arrays of the file that an earlier conversion supplied, or of which the file does not store all elements.
    """
    return tuple(tensor.name for tensor, filling in steps if is_supplied(filling, sources, earlier))


def is_supplied(filling: Filling, sources: Mapping[str, Tensor], earlier: Collection[str]) -> bool:
    """Tell whether a target tensor has values that no source states; see `supplied`."""
    constant = isinstance(filling, ConstantFilling | Copied) or has_constants(filling)
    return constant or any(sources[name].name in earlier for name in sources_of(filling))


def has_constants(filling: Filling) -> bool:
    """Tell whether a target tensor has constants beside values of a source."""
    return isinstance(filling, list) and any(isinstance(part, Fill) for part in filling)


def supplied_in_part(
    steps: Iterable[Step], sources: Mapping[str, Tensor], earlier: Collection[str], partly: Collection[str]
) -> tuple[str, ...]:
    """Name those supplied target tensors that also have values of a source.

    Args:
      earlier: arrays of the file that an earlier conversion supplied. partly: those of them of which it read elements.
    """
    mixed = []
    for tensor, filling in steps:
        names = [sources[name].name for name in sources_of(filling)]
        read = [name for name in names if name not in earlier or name in partly]
        if read and (has_constants(filling) or any(name in earlier for name in names)):
            mixed.append(tensor.name)
    return tuple(mixed)


def step(entry: Entry, sources: Mapping[str, Tensor], dtype: str | None) -> Step:
    """Return the step that makes an entry of a layout.

    Args:
      sources: by name. dtype: of floating-point targets; None keeps the sources'.
    Raises: ValueError where the dtypes of its sources do not agree, or no framework could hold it.
    """
    dtypes = {sources[name].dtype: name for name in entry.sources}
    if len(dtypes) > 1:
        (one, first), (other, second) = list(dtypes.items())[:2]
        problem = f"{first} is {one} and {second} is {other}, and {entry.name} joins them"
        raise ValueError(f"{problem}: convert them to one dtype first")
    like = entry.like or first_float({name: tensor.dtype for name, tensor in sources.items()} if not dtypes else {})
    own = next(iter(dtypes), None) or entry.dtype or (sources[like].dtype if like else "float32")
    final = dtype if dtype and own.startswith(("float", "bfloat")) and not entry.dtype else own
    tensor = Tensor(entry.name, entry.shape, final)
    if not tensor.addressable:
        raise ValueError(f"{entry.name} would have shape {list(entry.shape)}, too large for any framework")
    filling = entry.filling
    if isinstance(filling, Sum):
        if own not in FLOATS:
            raise ValueError(f"{entry.name} is a sum of {own} tensors: only floating-point ones are added")
        return tensor, filling
    if any(isinstance(part, Move) for part in filling):
        return tensor, filling
    values = {part.value for part in filling if isinstance(part, Fill)}
    if len(values) > 1:
        raise ValueError(f"{entry.name} consists of constants alone, of several values")
    return tensor, ConstantFilling(*values)


class Steps(Protocol):
    """What a target is computed from: an open source and the steps that fill the target's tensors.

    Attributes:
      sources: the source's tensors by the name that steps use.
      checks: what has to hold of the source's values.
    """

    @property
    def reader(self) -> Reader: ...

    @property
    def steps(self) -> Sequence[Step]: ...

    @property
    def sources(self) -> Mapping[str, Tensor]: ...

    @property
    def checks(self) -> Sequence[Promise]: ...


class Writable(Steps, Protocol):
    """A plan that can be written: steps, and the facts for the record that need no payload.

    Attributes:
      tree: how the target nests its tensors and plain values; None: by their names alone.
      beside: other files that it was planned from, as that of --like: the target replaces none of them.
    """

    @property
    def tree(self) -> Any: ...

    @property
    def beside(self) -> Sequence[str]: ...

    def facts(self) -> dict[str, Any]: ...


def tied(plan: Steps, steps: Iterable[Step]) -> dict[str, str]:
    """Return {target tensor: an earlier one that takes the very same elements of the source}: tied weights.

    Args:
      steps: of the plan, that are written into one file.
    """
    first: dict[tuple[Any, ...], str] = {}
    aliases = plan.reader.aliases
    stored = {name: aliases.get(tensor.name, tensor.name) for name, tensor in plan.sources.items()}
    same: dict[str, str] = {}
    for tensor, filling in steps:
        if not isinstance(filling, list) or not sources_of(filling):
            continue
        parts = [part._replace(source=stored[part.source]) if isinstance(part, Move) else part for part in filling]
        name = first.setdefault((tensor.shape, tensor.dtype, repr(parts)), tensor.name)
        if name != tensor.name:
            same[tensor.name] = name
    return same
