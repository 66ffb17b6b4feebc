"""The steps of a plan: target tensors, each with what it is filled from. Data alone; payload.py computes the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from specs.moves import Fill, Move

if TYPE_CHECKING:
    from .files.base import Reader, Tensor


class Constant(NamedTuple):
    """A target array that the source does not hold: all its elements have this value."""

    value: float


UNUSED = Constant(0)  # of arrays that a dialect's files hold and the network never uses


class Sum(NamedTuple):
    """A target array that is the sum of several: what each of them puts into it."""

    terms: list[list[Move | Fill]]


class Promise(NamedTuple):
    """Values of the source that have to be equal to others, or to a constant, before anything is written.

    Args:
      where: who says so.
    """

    name: str
    parts: list[Move]
    other: str
    others: list[Move]
    value: float
    where: str


Filling = list[Move | Fill] | list[Move] | Constant | Sum
Step = tuple["Tensor", Filling]  # a target tensor and what fills it


def sources_of(filling: Filling) -> list[str]:
    """Name the source tensors that a target tensor is filled from."""
    lists = filling.terms if isinstance(filling, Sum) else [filling] if isinstance(filling, list) else []
    return [part.source for parts in lists for part in parts if isinstance(part, Move)]


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
    """A plan that can be written: steps, and the facts for the record that need no payload."""

    def facts(self) -> dict[str, Any]: ...
