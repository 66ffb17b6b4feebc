"""Count steps by powers of betas as paddle stores them: multiplied once a step, and rounded each time.

Source: paddle/phi/kernels/cpu/adam_kernel.cc, where beta1_pow_out is beta1 times beta1_pow in the dtype of the moments.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

MOST = 1 << 21  # powers of one beta that are computed, 16 MiB: those of 0.9999 last 880,000 steps in float32
EXACT = ("float32", "float64")  # what paddle stores powers in; others are taken for rounded ones of the first
NEAR = 0.1  # steps: how far a power may be from a whole number of them
PLACES = 5  # decimals of a beta that people choose; a power determines many more


@cache
def powers(beta: float, dtype: str) -> Any:
    """Return the powers of a beta (between 0 and 1) after 0, 1, ... steps, as far as these are told apart by them."""
    count = math.ceil(math.log(float(np.finfo(dtype).tiny)) / math.log(beta))
    return np.multiply.accumulate(np.full(min(count, MOST), beta, dtype))


@cache
def power(beta: float, steps: int, dtype: str) -> float:
    """Return the power of a beta that paddle stores after some steps; after very many, without rounding each time."""
    if steps >= MOST:
        return float(np.array(beta ** (steps + 1), dtype))
    return float(np.multiply.accumulate(np.full(steps + 1, beta, dtype))[-1])


def smallest(dtype: str) -> float:
    """Return the power up to which steps are not counted, as a dtype rounds smaller ones coarsely."""
    return float(np.finfo(dtype if dtype in EXACT else EXACT[0]).tiny)


def steps_of(value: float, beta: float, dtype: str) -> float | None:
    """Return the number of steps after which a power is stored, which is whole if it is one of this beta; else None.

    A power may also be one that was computed at once, as other programs write it.
    """
    dtype = dtype if dtype in EXACT else EXACT[0]
    if not (smallest(dtype) < value < 1 and 0 < beta < 1):
        return None
    estimates = [math.log(value) / math.log(beta) - 1]
    every = powers(beta, dtype)
    at = min(int(np.searchsorted(-every, -value)), len(every) - 1)
    estimates += [k + math.log(value / float(every[k])) / math.log(beta) for k in {max(at - 1, 0), at}]
    return min(estimates, key=lambda steps: abs(steps - round(steps)))


def fits(value: float, beta: float, steps: int, dtype: str) -> bool:
    """Tell whether a power is that of a beta after some steps, to the last bit of its dtype.

    A power is multiplied in its dtype each step, or computed at once, also from a beta of float32.
    """
    dtype = dtype if dtype in EXACT else EXACT[0]
    rounded = float(np.array(beta, dtype))
    every = (power(beta, steps, dtype), beta ** (steps + 1), rounded ** (steps + 1))
    return any(abs(value - one) <= float(np.finfo(dtype).eps) * one for one in every)


def beta_of(value: float, steps: int, dtype: str) -> float | None:
    """Return the shortest beta, of at most PLACES decimals, that has a power after some steps; None without one."""
    near = value ** (1 / (steps + 1))
    each = (round(near, places) for places in range(1, PLACES + 1))
    return next((beta for beta in each if 0 < beta < 1 and fits(value, beta, steps, dtype)), None)


def agrees(stored: tuple[float, str], beta: float, steps: int) -> bool:
    """Tell whether a power may be that of a beta after some steps; one that is too small may be of any later one."""
    value, dtype = stored
    if (counted := steps_of(value, beta, dtype)) is not None:
        return abs(counted - steps) < NEAR
    return not 0 <= value < 1 or beta ** (steps + 1) < 2 * smallest(dtype)
