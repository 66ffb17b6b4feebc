"""Compare the strides of both models' convolutions: where these differ, others read the values that one expects."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from parity.derive.trace.program import Program


def unlike_strides(left: Program, right: Program) -> str:
    """Say of which convolutions the strides differ, of models with kernels of the same shapes; "" if of none.

    One side may have a dense layer where the other has a convolution of one tap: these count where both have as many.
    """
    sides = [_strides(program) for program in (left, right)]
    numbers = [{taps: of.total() for taps, of in side.items()} for side in sides]
    common = [taps for taps in numbers[0] if numbers[1].get(taps) == numbers[0][taps]]
    if any(math.prod(taps) > 1 for taps in {*numbers[0], *numbers[1]}.difference(common)):
        return ""
    texts = []
    for taps in common:
        of = sides[0][taps]
        for stride in dict.fromkeys([*of, *sides[1][taps]]) if of != sides[1][taps] else ():
            if stride != (1,) * len(taps) and (other := sides[1][taps][stride]) != of[stride]:
                what = f"convolutions with taps {_shown(taps)} and stride {_shown(stride)}"
                texts.append(f"the left model has {of[stride]} {what}, the right one {other}")
    return "; ".join(texts)


def _strides(program: Program) -> dict[tuple[int, ...], Counter[tuple[int, ...]]]:
    """Count the strides of a model's convolutions by their taps."""
    found = defaultdict[tuple[int, ...], Counter[tuple[int, ...]]](Counter)
    for node in program.tape.nodes:
        if node.window:
            found[program.shapes[node.inputs[1]][2:]][node.window.stride] += 1
    return found


def _shown(lengths: tuple[int, ...]) -> str:
    return " x ".join(map(str, lengths))


def same_shapes(left: Program, right: Program) -> bool:
    """Tell whether both models have as many parameters of each shape, whatever the order of axes."""
    counts = [
        Counter(tuple(sorted(n for n in program.shapes[number] if n > 1)) for number in program.tape.parameters.values()
                if number in program.shapes)
        for program in (left, right)
    ]  # fmt: skip
    return counts[0] == counts[1]
