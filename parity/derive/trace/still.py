"""Take as constants what only one side is given as inputs: positions and full masks, which the other side makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .tape import Array, Tape


def still(tape: Tape, inputs: Sequence[Array], others: Sequence[Array]) -> Tape:
    """Return the tape with constants for inputs that only this side is given, and that count or repeat a number.

    They keep their values in the proof as well. On the other side such values depend on no input, and what is read by
    them is a function of parameters alone; so it is on this side then.

    Args:
      inputs, others: the values of this side's and of the other side's inputs.
    """
    known = [np.sort(array, axis=None) for array in others]
    own = [k for k, array in enumerate(inputs) if even(array) and not _given(array, known)]
    if not own or len(own) == len(inputs):
        return tape
    numbers = {tape.inputs[k]: tape.size + at for at, k in enumerate(own)}
    return replace(
        tape,
        nodes=[node._replace(inputs=tuple(numbers.get(n, n) for n in node.inputs)) for node in tape.nodes],
        constants={**tape.constants, **{numbers[tape.inputs[k]]: np.asarray(inputs[k]) for k in own}},
        outputs=[numbers.get(number, number) for number in tape.outputs],
        size=tape.size + len(own),
    )


def even(array: Array) -> bool:
    """Tell whether the integers of each row are evenly spaced, as positions and full masks are, and tokens are not."""
    return array.dtype.kind in "iub" and array.ndim > 0 and not np.diff(array.astype(np.int64), 2).any()


def _given(array: Array, known: Sequence[Array]) -> bool:
    """Tell whether one of the other side's inputs, which are sorted, has the same values."""
    return any(np.array_equal(np.sort(array, axis=None), other) for other in known)
