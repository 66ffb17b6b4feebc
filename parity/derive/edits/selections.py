"""Say which elements a stretch of operations takes: one position, a part, copies of each; or a mean over positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.tape import Array, elements, tried
from specs.words import count

REDUCTIONS: Mapping[str, Callable[..., Array]] = {"mean": np.mean, "maximum": np.max, "sum": np.sum}


def selected(program: Program, stretch: Stretch) -> Array | None:
    """Return for each element of the result the place of the one that it is; None where another number results.

    A stretch is no selection if all elements are passed on, once each, or if it computes anything.
    """
    if any(node.kind != "layout" for node in stretch.nodes):
        return None
    shape = program.shapes[stretch.entry]
    size = math.prod(shape)
    if math.prod(program.shapes[stretch.result]) == size:
        return None
    taken = tried(program.function(stretch), elements(shape))
    if taken is None:
        return None
    places = taken.astype(np.int64) - 1
    return places if (places >= 0).all() and (places < size).all() else None


def position(places: Array, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return (a position, of how many) if a selection takes all of it, in any order; None for others."""
    every, taken = np.arange(math.prod(shape)).reshape(shape), np.sort(places, axis=None)
    for axis, length in enumerate(shape):
        for at in range(length) if length > 1 else ():
            if np.array_equal(taken, np.sort(every.take(at, axis), axis=None)):
                return at, length
    return None


def described(places: Array, shape: tuple[int, ...]) -> str:
    """Name a selection from an array of a shape: "position 0 of 10", "a nearest resize, 2 x 2"."""
    every = np.arange(math.prod(shape)).reshape(shape)
    if one := position(places, shape):
        return f"position {one[0]} of {one[1]}"
    if places.size > every.size and places.ndim == every.ndim:
        for order in itertools.permutations(range(places.ndim)) if places.ndim < 6 else ():
            turned = places.transpose(order)
            if any(n % m for n, m in zip(turned.shape, shape, strict=True)):
                continue
            times = [n // m for n, m in zip(turned.shape, shape, strict=True)]
            repeated = every
            for axis, number in enumerate(times):
                repeated = np.repeat(repeated, number, axis)
            if np.array_equal(turned, repeated):
                grid = " x ".join(str(number) for number in times if number > 1)
                return f"each value repeated {grid} times (nearest)"
    return f"{places.size:,} of {every.size:,} values" if places.size < every.size else "repeated values"


def reduced(program: Program, stretch: Stretch) -> str:
    """Say over how many positions a stretch computes a mean, a maximum or a sum; "" if it computes something else."""
    x = np.random.default_rng(0).standard_normal(program.shapes[stretch.entry])
    y = tried(program.function(stretch), x.copy())
    if y is None:
        return ""
    y = y.ravel()
    axes = [axis for axis, length in enumerate(x.shape) if length > 1]
    for some in [*((axis,) for axis in axes), *(itertools.pairwise(axes) if len(axes) > 2 else ())]:
        length = math.prod(x.shape[axis] for axis in some)
        if y.size * length != x.size:
            continue
        for first in (0, 1) if len(some) == 1 else (0,):  # a class token may be left out
            part = x.take(range(first, x.shape[some[0]]), some[0]) if first else x
            for name, function in REDUCTIONS.items():
                if np.allclose(np.ravel(function(part, axis=some)), y, ROUNDED_FUNCTIONS, ROUNDED_FUNCTIONS):
                    return f"the {name} over {f'the last {length - 1} of ' * first}{count(length, 'position')}"
    return ""
