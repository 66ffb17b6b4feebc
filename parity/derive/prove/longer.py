"""Run both models on longer inputs, and on twice as many examples.

Where an axis has one value, a mean, a maximum and a sum of it are the same. Code may also read a length, as that of a
window, or have it as a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.match.operations import function
from parity.derive.trace.inputs import fresh
from parity.derive.trace.outputs import ONE_SHAPE, differ_by, difference, incomparable
from parity.derive.trace.program import Program
from parity.derive.trace.reason import Reason, remedy
from parity.derive.trace.tape import Array, Node, along, tried
from specs.words import in_a_row

from .freedom import affordable
from .trial import Trial, differing

SEED = 8000
PROBE = 3.0, 1.0, 5.0, 2.0  # in place of one value
ALIKE_WEIGHTS = "the weights are translated all the same; compare paddings, windows and positions"
REDUCTIONS = {2.75: "mean", 11.0: "sum", 5.0: "maximum", 1.0: "minimum", 30.0: "product"}  # by what it makes of these
MOST = 3  # lengths that are tried: those of channels are mostly refused
REMAINDERS = 4  # of a length by a stride that are tried: equal paddings leave one or two in common
SHARE = 2  # runs that a model allows for by its arithmetic, for one of both models on as many values
STRIDES = "stride", "strides", "window_strides", "kernel_size"  # of poolings: torch's stride is empty for the window's
OTHER = "another function"
SHAPE = "give inputs of this shape, or make both models equal; then derive again"
EXAMPLES = 7000  # seed
MIXED = Reason(
    "equal only for one example alone, as one model mixes those of a batch, or both do so in other ways",
    "give inputs of two examples or more; then derive again",
)
ANOTHER = "equal only for this number of examples: for {} in place of {}, {}"
SOME = "equal only for some inputs: for others, {}"
EQUAL = "make both models equal for such inputs; then derive again"
MORE = "make both models independent of how many examples they get; then derive again"


class Longer(NamedTuple):
    """What longer inputs show.

    Args:
      reason: why nothing is proven; "" if outputs agree, or if no longer inputs were tried.
      over_one: how the sides differ beyond one value, where no outputs can be compared there; "" elsewhere.
    """

    reason: str = ""
    over_one: str = ""


def longer_inputs(trial: Trial) -> Longer:
    """Compare outputs for inputs of twice a length, if it is 1, or if the sides reduce one value in other ways."""
    counts = [Counter(_reductions(program)) for program in trial.programs]
    alone = [list(counts[k] - counts[1 - k]) for k in (0, 1)]
    given = trial.given
    lengths = dict.fromkeys(n for array in given[0].values() for n in array.shape[1:] if n == 1 or any(alone))
    kinds = " and ".join(f"{in_a_row(names)} on the {side}" for side, names in zip(SIDES, alone, strict=True) if names)
    has_run, over_one = False, f"{kinds}, and a model refuses longer inputs" if all(alone) else ""
    for length in sorted(lengths):
        inputs = _lengthened(given, length)
        if not inputs:
            continue
        outputs = trial.outputs(inputs, SEED)
        shapes = in_a_row(f"{list(array.shape)}" for array in inputs[0].values())
        if why := incomparable(*outputs):
            if all(outputs) and remedy(why) == ONE_SHAPE:
                over_one = f"for inputs of shape {shapes}, outputs have {why}"
            continue
        has_run = has_run or bool(outputs[0])
        apart = difference(*outputs)
        if apart > trial.limit():
            text = f"equal only for inputs of these lengths: for shape {shapes} they {differ_by(apart)}"
            return Longer(Reason(text + f", and models reduce one value by {kinds}" * bool(kinds), SHAPE))
    return Longer(over_one="" if has_run else over_one)


def other_lengths(trial: Trial) -> str:
    """Say that outputs differ for inputs of twice a length, a few less, or of 1; "" if they agree, or none are taken.

    What is left over at the end of an odd length, as of pairs that are pooled, is one model's alone, maybe. Behind
    strides, the length of a map has to be odd or even.
    """
    given = trial.given
    cuts, runs = [0, *_cuts(trial.programs)], affordable(trial.programs[0]) // SHARE
    for length in sorted({n for array in given[0].values() for n in array.shape[1:] if n > 1})[:MOST]:
        whole = _lengthened(given, length)
        if not whole:
            continue
        single = [_single(side, length) for side in fresh(*given, SEED)]
        pairs = [*zip(whole, given, strict=True)]
        most = max(1, runs * _size(given[0]) // _size(whole[0]))
        shorter = [[_shortened(*sides, cut) for sides in pairs] for cut in cuts[:most] if cut <= length]
        for inputs in (*shorter, single):
            if said := trial.unlike(inputs, SEED, shapes=inputs is single):
                shapes = in_a_row(f"{list(array.shape)}" for array in inputs[0].values())
                return f"other lengths of axes, such as those of shape {shapes}: with these, {said}: {ALIKE_WEIGHTS}"
    return ""


def _size(inputs: Mapping[str, Array]) -> int:
    """Count the values of inputs: a model's arithmetic grows with them."""
    return sum(array.size for array in inputs.values())


def _cuts(programs: Sequence[Program]) -> list[int]:
    """Return by how many places to shorten inputs so that each map that has a stride next leaves other places over.

    Behind strides whose product is s, a map has one place less where the input has s less, whatever its padding.
    """
    cuts = {1}
    for program in programs:
        products = dict[int, int]()  # of the strides before a value
        for node in program.tape.nodes:
            before = max((products.get(number, 1) for number in node.inputs), default=1)
            stride = _stride(program, node)
            products[node.output] = before * stride
            cuts.update(before * places for places in range(1, min(stride, REMAINDERS)))
    return sorted(cuts)


def _stride(program: Program, node: Node) -> int:
    """Return the largest stride of a convolution, a pooling or a slice; 1 for other operations."""
    if node.window:
        return max(node.window.stride)
    settings = node.call.settings if node.call else {}
    strides: Any = next((settings[name] for name in STRIDES if settings.get(name)), [])
    strides = strides if isinstance(strides, (list, tuple)) else [strides]
    return max((1, *strides, *_steps(program, node)))


def _steps(program: Program, node: Node) -> Iterator[int]:
    """Yield the distance of what a slice takes, along each axis of which it takes a part."""
    before, after = (program.shapes[number] for number in (node.inputs[0], node.output))
    if node.kind != "layout" or len(node.inputs) > 1 or len(before) != len(after):
        return
    for axis in (axis for axis, n in enumerate(before) if 1 < after[axis] < n):
        taken = tried(node.run, np.broadcast_to(along(np.arange(before[axis]), axis, len(before)), before))
        if taken is not None:
            first, second, *_ = np.moveaxis(taken, axis, -1).reshape(-1, after[axis])[0]
            yield abs(int(second - first))


def _shortened(inputs: Mapping[str, Array], given: Mapping[str, Array], places: int) -> dict[str, Array]:
    """Return inputs without so many last places along each axis that is longer than as given."""

    def cut(name: str, array: Array) -> Array:
        pairs = zip(array.shape, given[name].shape, strict=True)
        return array[tuple(slice(n - places * (n > before)) for n, before in pairs)]

    return {name: cut(name, array) for name, array in inputs.items()}


def _single(inputs: Mapping[str, Array], length: int) -> dict[str, Array]:
    """Return inputs with the first place alone along axes of this length, beside the first ones."""

    def cut(array: Array) -> Array:
        return array[tuple(slice(1 if axis and n == length else n) for axis, n in enumerate(array.shape))]

    return {name: cut(array) for name, array in inputs.items()}


def _reductions(program: Program) -> Iterator[str]:
    """Yield how operations reduce axes of length 1, as "mean": with other inputs such an axis may be longer."""
    names = dict[str, str]()
    for node, slot, axis in _unit_axes(program):
        run = function(program, node, slot)
        if run is None:
            continue
        rank = len(program.shapes[node.inputs[slot]])
        key = f"{node.call or node.output} {rank} {axis}"
        if key not in names:
            names[key] = _reduction(run, rank, axis)
        if names[key]:
            yield "mean" if names[key] == "sum" and _divided(program, node) else names[key]


def _unit_axes(program: Program) -> Iterator[tuple[Node, int, int]]:
    """Yield (operation, which operand, axis) of each axis of length 1 of an operand that depends on the inputs."""
    for node in program.tape.nodes:
        for slot, number in enumerate(node.inputs):
            if number in program.active:
                yield from ((node, slot, axis) for axis, length in enumerate(program.shapes[number]) if length == 1)


def _reduction(run: Callable[[Array], Array], rank: int, axis: int) -> str:
    """Name what a function makes of several values along an axis; "" if these do not become one."""
    try:
        result = np.asarray(run(along(PROBE, axis, rank)), float)
    except Exception:  # a function that takes one value alone
        return ""
    return REDUCTIONS.get(round(float(result.item()), 9), OTHER) if result.size == 1 else ""


def _divided(program: Program, node: Node) -> bool:
    """Tell whether a sum is divided by the number of its terms, which is 1: a mean, as JAX writes it."""
    readers = program.reading(node.output)
    factors = [program.known(number) for reader in readers if reader.kind == "mul" for number in reader.inputs]
    return any(factor is not None and np.size(factor) == 1 and np.all(factor == 1) for factor in factors)


def _lengthened(given: tuple[Mapping[str, Array], Mapping[str, Array]], length: int) -> list[dict[str, Array]]:
    """Return inputs of both sides in which axes of this length, beside the first ones, have twice of it.

    None are returned if the sides do not have as many such axes. Draws stand in one order along each of these axes, so
    that it does not matter in which order a side has them. What keeps its values, as a mask, has each value twice.
    """
    counts = [sum(array.shape[1:].count(length) for array in side.values()) for side in given]
    if counts[0] != counts[1]:
        return []
    draws = [fresh(*given, SEED + k) for k in range(1 + max(array.ndim for array in given[0].values()))]

    def joined(side: int, name: str, axes: Sequence[int], first: int) -> Array:
        if not axes:
            return draws[first][side][name]
        if np.array_equal(draws[0][side][name], draws[1][side][name]):
            return np.repeat(joined(side, name, axes[1:], first), 2, axes[0])
        return np.concatenate([joined(side, name, axes[1:], first + k) for k in (0, 1)], axes[0])

    return [
        {
            name: joined(side, name, [axis for axis, n in enumerate(array.shape) if axis and n == length], 0)
            for name, array in given[side].items()
        }
        for side in (0, 1)
    ]


class Examples(NamedTuple):
    """What two examples show.

    Args:
      shapes: of the left inputs; none where the models were not run. reason: why nothing is proven; "" if they agree.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    reason: str = ""


def more_examples(trial: Trial) -> Examples:
    """Compare outputs for twice as many examples, if both models take them."""
    given = trial.given
    number = _examples(given)
    if not number:
        return Examples()
    draws = [fresh(*given, EXAMPLES + k) for k in range(2)]
    inputs = [{name: np.concatenate([draw[side][name] for draw in draws]) for name in given[side]} for side in (0, 1)]
    outputs = trial.outputs(inputs, EXAMPLES)
    shapes = [[np.shape(array) for array in arrays] for arrays in outputs]
    if not all(outputs) or shapes[0] != shapes[1] or any(shape[:1] != (2 * number,) for shape in shapes[0]):
        return Examples()  # axis 0 is no axis of examples there
    apart, each = trial.gap(*outputs, trial.limit()), [trial.apart(draw, EXAMPLES) for draw in draws]
    if any(each):
        return Examples(reason=Reason(SOME.format(differing(max(each))), EQUAL))
    if number == 1:
        return Examples(tuple(array.shape for array in inputs[0].values()), MIXED if apart else "")
    return Examples(reason=Reason(ANOTHER.format(2 * number, number, differing(apart)), MORE) if apart else "")


def one_example(trial: Trial) -> str:
    """Say that outputs differ for the first example alone; "" if they agree, or if it is the only one."""
    if _examples(trial.given) < 2:
        return ""
    first = [{name: array[:1] for name, array in inputs.items()} for inputs in fresh(*trial.given, SEED)]
    said = trial.unlike(first, SEED, shapes=True)
    return f"one example alone: with it, {said}" if said else ""


def _examples(given: Sequence[Mapping[str, Array]]) -> int:
    """Return how many examples both sides were given, the first length of all inputs; 0 where that is unclear."""
    arrays = [array for side in given for array in side.values()]
    numbers = {array.shape[:1] for array in arrays}
    if not all(given) or len(numbers) != 1 or numbers == {()} or (numbers == {(1,)} and not all(map(_one, arrays))):
        return 0
    return int(numbers.pop()[0])


def _one(array: Array) -> bool:
    """Tell whether the first axis alone has length 1, or is that of images or sounds of one channel."""
    return array.ndim > 1 and (array.shape[1] > 1 or array.ndim > 3)
