"""Tell parameters that no output depends on from those whose gradient the code cuts, as of a frozen part of a model."""

from __future__ import annotations

from collections.abc import Collection

from ..trace.draws import Altered, Drawn
from ..trace.outputs import equal
from ..trace.sides import Side

SEEDS = 5000, 5001  # of usual values, and of others
MANY = 64  # parameters that are changed one by one


def without_effect(of: Side, names: Collection[str]) -> list[str]:
    """Return those of these parameters that no output depends on: zero gradients may be those of no_grad or detach."""
    if not names:
        return []
    inputs, (drawn, others) = of.call.arrays(), (Drawn(of, seed) for seed in SEEDS)
    usual = of.run(drawn, inputs)

    def act(some: Collection[str]) -> bool:
        return not equal(usual, of.run(Altered(drawn, some, lambda name, _: others[name]), inputs))

    if not act(names):
        return list(names)
    return [name for name in names if not act([name])] if len(names) <= MANY else list(names)
