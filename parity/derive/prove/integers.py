"""Find integers that are too large for JAX, which computes with 32 bits unless it is told otherwise: hashes, say."""

from __future__ import annotations

import sys

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.trace.reason import Reason

from .trial import Trial

FRAMEWORKS = {"linen", "nnx", "jax"}
LARGEST = 2**31 - 1  # of 32 bits
WIDE = "equal only with integers of 64 bits: JAX has 32, and those of the {} model pass them"
REMEDY = "set jax_enable_x64 before deriving, if the model runs with it; or keep integers below 2^31"


def wide_integers(trial: Trial) -> Reason | None:
    """Say that a model of JAX computes integers of more bits in the proof than it does elsewhere; None if not."""
    jax = sys.modules.get("jax")
    if jax is None or jax.config.jax_enable_x64:
        return None
    for name, side, program in zip(SIDES, trial.sides, trial.programs, strict=True):
        integers = (value for value in program.indices.values() if np.asarray(value).dtype.kind == "i")
        if side.framework in FRAMEWORKS and any(_passes(np.asarray(value)) for value in integers):
            return Reason(WIDE.format(name), REMEDY)
    return None


def _passes(value: np.ndarray) -> bool:
    """Tell whether some integers have more bits, but for the largest ones, which code asks for by their dtype."""
    large = value[(value > LARGEST) | (value < -LARGEST - 1)].astype(np.int64)
    limits = np.iinfo(np.int64)
    return bool(((large != limits.max) & (large != limits.min)).any())
