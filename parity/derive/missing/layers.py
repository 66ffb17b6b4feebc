"""Compare the layers of both models: the strides of their convolutions, and weight normalization of one side alone.

Where strides differ, other convolutions read the values that one expects. Weight normalization has two arrays, a length
and a direction, where the other side has a weight.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from convert.folding import fold as folded
from parity.derive.trace.program import Program
from specs.words import in_a_row

# The length and the direction, as torch and paddle call them, before and since parametrizations, and as people do
PAIRS = (("weight_g", "weight_v"), ("original0", "original1"), ("g", "v"))

Shapes = Mapping[str, tuple[int, ...]]  # of arrays by name


def unlike_strides(left: Program, right: Program) -> str:
    """Say of which convolutions the strides differ, of models with kernels of the same shapes; "" if of none.

    One side may have a dense layer where the other has a convolution of one tap: these count where both have as many.
    """
    sides = [_strides(program) for program in (left, right)]
    numbers = [{taps: counts.total() for taps, counts in side.items()} for side in sides]
    common = [taps for taps in numbers[0] if numbers[1].get(taps) == numbers[0][taps]]
    if any(math.prod(taps) > 1 for taps in {*numbers[0], *numbers[1]}.difference(common)):
        return ""
    texts = []
    for taps in common:
        counts = sides[0][taps]
        for stride in dict.fromkeys([*counts, *sides[1][taps]]) if counts != sides[1][taps] else ():
            if stride != (1,) * len(taps) and (other := sides[1][taps][stride]) != counts[stride]:
                what = f"convolutions with taps {_shown(taps)} and stride {_shown(stride)}"
                texts.append(f"the left model has {counts[stride]} {what}, the right one {other}")
    return "; ".join(texts)


def _strides(program: Program) -> dict[tuple[int, ...], Counter[tuple[int, ...]]]:
    """Count the strides of a model's convolutions by their taps."""
    strides = defaultdict[tuple[int, ...], Counter[tuple[int, ...]]](Counter)
    for node in program.tape.nodes:
        if node.window:
            strides[program.shapes[node.inputs[1]][2:]][node.window.stride] += 1
    return strides


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


def one_sided_weight_norms(left: Shapes, right: Shapes) -> str:
    """Say which arrays of one side are lengths and directions of weights, where the other side has none; "" if none."""
    pairs = [_pairs(shapes) for shapes in (left, right)]
    if bool(pairs[0]) == bool(pairs[1]):
        return ""
    side = "left" if pairs[0] else "right"
    return f"{in_a_row(folded(pairs[0] or pairs[1]))} on the {side} alone"


def _pairs(shapes: Shapes) -> list[str]:
    """Return the names of lengths and of directions: a direction has many numbers for each length."""
    paired = []
    for length, direction in PAIRS:
        ends = [name for name in shapes if re.search(rf"(?:^|[./]){length}$", name)]
        for place in sorted(name.removesuffix(length) for name in ends):
            if math.prod(shapes[place + length]) < math.prod(shapes.get(place + direction, ())):
                paired += [place + length, place + direction]
    return paired
