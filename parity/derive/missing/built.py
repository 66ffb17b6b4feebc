"""Compare how both models are built: the numbers of their blocks, the strides of convolutions, weight normalization.

Where depths differ, nothing else corresponds. Where strides do, other convolutions read the values that one expects.
Weight normalization has two arrays, a length and a direction, where the other side has a weight.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from convert.folding import fold as folded
from parity.derive.trace.program import Program
from specs.words import in_a_row

DEPTHS = "the depths differ"  # why parameters have no line
ALIKE = 2  # times that one block may have the elements of another: by biases, or layers that one hand left out
LAYER = 2  # arrays that a layer has: a weight and a bias
NUMBER = re.compile(r"(?<=[./_])\d+(?=[./])")
# The length and the direction, as torch and paddle call them, before and since parametrizations, and as people do
PAIRS = (("weight_g", "weight_v"), ("original0", "original1"), ("g", "v"))
Shapes = Mapping[str, tuple[int, ...]]  # of arrays by name


def differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    """Say that two models have as many lists of similar blocks, of different lengths; "" where that is not clear.

    Args:
      left, right: arrays by name.
    """
    left_depths, right_depths = _lists(left, right)
    if _equal_lengths(left_depths, right_depths) and _elements(left) != _elements(right):  # a stem may stand for a list
        left_depths, right_depths = _lists(left, right, layers=False)
    if not left_depths or len(left_depths) != len(right_depths) or _equal_lengths(left_depths, right_depths):
        return ""
    sides = ((left_depths, left, right_depths, right), (right_depths, right, left_depths, left))
    if any(_as_large(*side) != side[0] for side in sides):  # a stem, where the blocks themselves are unlike
        return ""
    blocks = [_elements(arrays, place) / length for lists, arrays, *_ in sides for place, length in lists.items()]
    if 2 * abs(_elements(left) - _elements(right)) < min(blocks):  # one model counts a stem among the blocks of a list
        return ""
    remedy = "build both of one depth" if len(left_depths) == 1 else "build both with lists of the same lengths"
    return f"the left model has {_listed(left_depths, ' block')}, the right one {_listed(right_depths)}: {remedy}"


def _lists(
    left: Mapping[str, Any], right: Mapping[str, Any], layers: bool = True
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the lists of blocks of both sides, and one of a single block where one side has fewer lists.

    Args:
      layers: see depths.
    """
    left_depths, right_depths = depths(left, layers=layers), depths(right, layers=layers)
    if layers and len(left_depths) != len(right_depths):  # as with a norm and a dense layer numbered in one head
        return _lists(left, right, layers=False)
    if len(left_depths) < len(right_depths):
        left_depths = _as_large(depths(left, True, layers), left, right_depths, right)
    elif len(right_depths) < len(left_depths):
        right_depths = _as_large(depths(right, True, layers), right, left_depths, left)
    return left_depths, right_depths


def _equal_lengths(left: Mapping[str, int], right: Mapping[str, int]) -> bool:
    """Tell whether two models have lists of the same lengths, whatever they are called."""
    return sorted(left.values()) == sorted(right.values())


def _as_large(
    lists: dict[str, int], arrays: Mapping[str, Any], others: Mapping[str, int], other: Mapping[str, Any]
) -> dict[str, int]:
    """Return lists without those whose blocks have by far fewer or more elements than each of the others' blocks.

    Such a one is another part of the model, as a stem of convolutions and their norms.
    """
    sizes = [_elements(other, place) / length for place, length in others.items()]
    return {
        place: length
        for place, length in lists.items()
        if any(size < ALIKE * _elements(arrays, place) / length < ALIKE**2 * size for size in sizes)
    }


def _elements(arrays: Mapping[str, Any], place: str = "") -> int:
    """Return how many elements the arrays have whose names begin with a place; all without one."""
    return sum(math.prod(array.shape) for name, array in arrays.items() if name.startswith(place))


def _listed(lists: Mapping[str, int], noun: str = "") -> str:
    """Return "6 blocks in encoder and 4 in decoder"."""
    nouns = {place: noun and noun + "s" * (length != 1) for place, length in list(lists.items())[:1]}
    return in_a_row(f"{length}{nouns.get(place, '')} in {place}" for place, length in lists.items())


def depths(arrays: Mapping[str, Any], single: bool = False, layers: bool = True) -> dict[str, int]:
    """Return {place of a list of blocks: its length}: numbered in names, or stacked along the first axis.

    Args:
      single: whether one block of more arrays than a layer has is a list as well.
      layers: whether single layers make a list of blocks too.
    """
    stacked = _stacks(arrays)
    free = [name for name in arrays if not _below(name, stacked)]  # layers of a stacked block are no list of blocks
    several = _several(free)
    numbers: dict[str, dict[str, set[str]]] = {}
    for name in free:
        places = list(NUMBER.finditer(name))
        for at in [*(at for at in places if _list(name, at) in several), *places][:1]:
            numbers.setdefault(_list(name, at), {}).setdefault(at[0], set()).add(name[at.end() :])
    lists = ((place, blocks) for place, blocks in numbers.items() if _is_list([*blocks.values()], single, layers))
    return {place: len(blocks) for place, blocks in lists} | stacked


def _list(name: str, number: re.Match[str]) -> str:
    """Return the place of the list in which a part of a name is a number."""
    return name[: number.start()].rstrip("./_")


def _several(names: Iterable[str]) -> set[str]:
    """Return the places of lists of at least two, so that the module in which a list stands may be numbered: Encoder_0.

    Inside such a module a list has blocks of several layers: Dense_0 and Dense_1 are the two layers of one block.
    """
    inside: dict[str, dict[str, int]] = {}
    first: dict[str, set[str]] = {}
    for name in names:
        for k, at in enumerate(NUMBER.finditer(name)):
            blocks = inside.setdefault(_list(name, at), {})
            blocks[at[0]] = blocks.get(at[0], 0) + 1
            if k == 0:
                first.setdefault(_list(name, at), set()).add(at[0])
    deep = {place for place, blocks in inside.items() if len(blocks) > 1 and min(blocks.values()) > LAYER}
    return deep | {place for place, blocks in first.items() if len(blocks) > 1}


def _stacks(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Return {place whose arrays stack those of several blocks: how many blocks}, of places in each other the outer."""
    inside: dict[str, list[tuple[int, ...]]] = {}
    for name, array in arrays.items():
        for cut in (m.start() for m in re.finditer("/", name)):
            inside.setdefault(name[:cut], []).append(tuple(array.shape))
    stacked = {place: shapes[0][0] for place, shapes in inside.items() if _stacked(shapes)}
    return {place: length for place, length in stacked.items() if not _below(place, stacked)}


def _below(name: str, places: Iterable[str]) -> bool:
    """Tell whether a name is inside one of several places."""
    return any(name.startswith(f"{place}/") for place in places)


def _is_list(blocks: list[set[str]], single: bool, layers: bool) -> bool:
    """Tell whether at least two blocks have arrays of the same names, each several of them.

    Args:
      single, layers: see depths.
    """
    if single and len(blocks) == 1:
        return len(blocks[0]) > LAYER
    least = 1 if layers else LAYER
    return len(blocks) > 1 and all(block == blocks[0] and len(block) > least for block in blocks)


def _stacked(shapes: list[tuple[int, ...]]) -> bool:
    """Tell whether arrays of several layers are stacked: even biases have two axes, and all share the first."""
    ranks = {len(shape) for shape in shapes}
    return len(shapes) > 2 and min(ranks) == 2 and max(ranks) > 2 and len({shape[0] for shape in shapes}) == 1


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
