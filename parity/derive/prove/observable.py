"""Tell parameters that no output depends on from those whose gradient the code cuts, as of a frozen part of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ..trace.draws import Drawn
from ..trace.outputs import equal
from ..trace.sides import Side
from ..trace.tape import Array

SEEDS = 5000, 5001  # of usual values, and of others
MANY = 64  # parameters that are changed one by one


def without_effect(of: Side, names: Collection[str]) -> list[str]:
    """Return those of these parameters that no output depends on: zero gradients may be those of no_grad or detach."""
    if not names:
        return []
    inputs = of.call.arrays()
    usual = of.run(Changed(of, ()), inputs)

    def act(some: Collection[str]) -> bool:
        return not equal(usual, of.run(Changed(of, some), inputs))

    if not act(names):
        return list(names)
    return [name for name in names if not act([name])] if len(names) <= MANY else list(names)


class Changed(Mapping[str, Array]):
    """Random values for every parameter, other ones for some."""

    def __init__(self, of: Side, names: Collection[str]):
        self._usual, self._other = (Drawn(of, seed) for seed in SEEDS)
        self._names = frozenset(names)

    def __len__(self) -> int:
        return len(self._usual)

    def __iter__(self) -> Iterator[str]:
        return iter(self._usual)

    def __getitem__(self, name: str) -> Array:
        return self._other[name] if name in self._names else self._usual[name]
