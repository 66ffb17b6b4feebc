"""Tell parameters that no output depends on from those whose gradient the code cuts, as of a frozen part of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from parity.derive.limits import EFFECT_SECONDS
from parity.derive.trace.draws import Altered, Drawn
from parity.derive.trace.outputs import equal
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array

SEEDS = 5000, 5001  # of usual values, and of others


class Effects(NamedTuple):
    """What is known of parameters whose gradient is zero.

    Args:
      without: those that no output depends on. untold: those of which time did not suffice to tell.
    """

    without: list[str]
    untold: list[str]


def effects(side: Side, names: Sequence[str]) -> Effects:
    """Tell which of these parameters no output depends on: zero gradients may be those of no_grad or detach.

    All are changed at once, then halves of those that have an effect together.
    """
    inputs, (drawn, others) = side.call.arrays(), (Drawn(side, seed) for seed in SEEDS)
    usual = side.run(drawn, inputs) if names else []
    stop, silent, waiting = time.process_time() + EFFECT_SECONDS, set[str](), [names] if names else []
    changes: Sequence[Callable[[str, Array], Array]] = (
        lambda name, _: others[name],
        lambda name, _: -9 * others[name],  # as where code asks for a sign, or a limit
    )
    while waiting and time.process_time() < stop:
        some = waiting.pop(0)
        if all(equal(usual, side.run(Altered(drawn, some, change), inputs)) for change in changes):
            silent.update(some)
        elif len(some) > 1:
            half = len(some) // 2
            waiting += [some[:half], some[half:]]
    untold = {name for some in waiting for name in some}
    return Effects([name for name in names if name in silent], [name for name in names if name in untold])
