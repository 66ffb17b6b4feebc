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
SURE = 0.01  # the same, of a beta that nobody states


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


def steps_of(value: float, beta: float, dtype: str) -> float | None:
    """Return the number of steps after which a power is stored, which is whole if it is one of this beta; else None.

    A power may also be one that was computed at once, as other programs write it.
    """
    dtype = dtype if dtype in EXACT else EXACT[0]
    if not (float(np.finfo(dtype).tiny) < value < 1 and 0 < beta < 1):
        return None
    found = [math.log(value) / math.log(beta) - 1]
    every = powers(beta, dtype)
    at = min(int(np.searchsorted(-every, -value)), len(every) - 1)
    found += [k + math.log(value / float(every[k])) / math.log(beta) for k in {max(at - 1, 0), at}]
    return min(found, key=lambda steps: abs(steps - round(steps)))
