"""Let one side compute several operations in a row as the other one does: a pooling that a framework writes as many."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from parity.derive.limits import ROUNDED_FUNCTIONS
from parity.derive.trace.program import Program, Stretch
from parity.derive.trace.sites import shown
from parity.derive.trace.tape import Array, Node, Operation, tried
from specs.words import in_a_row

from .edit import Other, Scope, two_sided
from .resampling import pools, resize
from .selections import described, position, reduced, selected
from .swaps import orders, turned
from .texts import Place, Words, other_settings, other_values, unlike

DEPTH = 16  # operations on the way back from where the sides part
MOST = 64  # pairs of stretches that are tried, the shortest first
BRANCHES = 8  # that are joined in one value: steps in a row are more

Signature = tuple[str, ...]


def _signature(stretch: Stretch, taken: Array | None = None) -> Signature:
    """Return what a stretch computes, with all settings, whatever it moves on the way.

    Args:
      taken: the places that it takes, if that is all it does.
    """
    if taken is not None:
        return "takes", str(taken.ravel().tolist())
    return tuple(f"{node.kind} {node.call}" for node in stretch.nodes if node.kind != "layout")


def _sizes(program: Program, stretch: Stretch) -> list[int]:
    """Return of how many elements its results are: sums over other axes, as of other groups, have others."""
    return [math.prod(program.shapes[node.output]) for node in stretch.nodes if node.kind != "layout"]


def _calls(stretch: Stretch) -> list[Operation]:
    return [node.call for node in stretch.nodes if node.call and node.kind == "other"]


def _place(stretch: Stretch) -> Place:
    return Place(shown(stretch.nodes[-1].site), in_a_row(dict.fromkeys(call.title for call in _calls(stretch))))


def restretched(scope: Scope, uses: tuple[int, int]) -> Iterator[Other]:
    """Yield edits by which stretches of the right side compute what those of the left one do.

    Args:
      uses: on each side, the value that the first use meets where the sides part, or one of parameters beside it.
    """
    left, right = scope.programs
    own, others = (
        [
            (stretch, _signature(stretch, selected(program, stretch)))
            for start in (value, *_joined(program, value), *_summands(program, value))
            for stretch in _stretches(program, start)
        ]
        for program, value in zip((left, right), uses, strict=True)
    )
    pairs = [
        (a, b, signature)
        for a, of_left in own
        for b, signature in others
        if not (of_left[:1] == signature[:1] == ("takes",) and _take_one_position(scope.programs, (a, b)))
        and (of_left != signature or _sizes(left, a) != _sizes(right, b))
        and (len(a.nodes) + len(b.nodes) > 2 or any(stretch.nodes[0].kind == "layout" for stretch in (a, b)))
    ]
    pairs.sort(key=lambda pair: len(pair[0].nodes) + len(pair[1].nodes))
    turns = {
        (_computed(a), _computed(b), order[1:2]): (a, b, signature, order)
        for a, b, signature in pairs[::-1]  # of those that differ in layouts alone the shortest is the last
        for order in orders(left.shapes[a.entry], right.shapes[b.entry])
        if _fits(left.shapes[a.result], right.shapes[b.result], order)
    }
    every = _by_signature(right) if turns else {}
    for a, b, signature, order in itertools.islice(reversed(turns.values()), MOST):
        alike = {stretch.result: stretch.entry for stretch in every.get(signature, ())} | {b.result: b.entry}
        words, run = _difference(a, b, (left, right)), turned(left.function(a), order)
        kind = "selection" if signature[0] == "takes" or selected(left, a) is not None else "operation"
        edit = Other(1, kind, words.what, {b.result: b.entry}, run, fault=words.fault, both=words.both)
        yield edit.everywhere(alike)


def _take_one_position(programs: Sequence[Program], stretches: tuple[Stretch, Stretch]) -> bool:
    """Tell whether both sides take the same position, in other orders of its elements: lines write orders, no cause."""
    one, other = (
        None if (places := selected(program, stretch)) is None else position(places, program.shapes[stretch.entry])
        for program, stretch in zip(programs, stretches, strict=True)
    )
    return one is not None and one == other


def _computed(stretch: Stretch) -> tuple[int, int]:
    """Return the first and the last value that a stretch computes, whatever it moves before and after that."""
    values = [node.output for node in stretch.nodes if node.kind != "layout"] or [stretch.entry, stretch.result]
    return values[0], values[-1]


def _fits(left: tuple[int, ...], right: tuple[int, ...], order: tuple[int, ...]) -> bool:
    """Tell whether a left result has the shape of a right one, whose axes have an order if both have as many."""
    return left == (tuple(right[d] for d in order) if len(order) == len(right) == len(left) else right)


def _difference(left: Stretch, right: Stretch, programs: Sequence[Program]) -> Words:
    """Say how two stretches differ: in what they take, or in the settings of their calls where these are the same."""
    both = list(zip(programs, (left, right), strict=True))
    takes = [_takes(program, stretch) for program, stretch in both]
    if any(takes):  # a resize that a framework computes has a name of its own
        takes = [text or reduced(program, stretch) or ("" if _calls(stretch) else resize(program, stretch))
                 for text, (program, stretch) in zip(takes, both, strict=True)]  # fmt: skip
    else:
        takes = [resize(program, stretch) or reduced(program, stretch) for program, stretch in both]
    if any(takes) and takes[0] != takes[1]:
        does = [text or _place(stretch).name for text, stretch in zip(takes, (left, right), strict=True)]
        return Words(two_sided(*does), both=tuple(does))
    calls = _calls(left), _calls(right)
    padded = any(_enlarged(program, stretch) for program, stretch in both)  # beside which settings do not say it
    if not padded and [call.name for call in calls[0]] == [call.name for call in calls[1]]:
        settings = [some for a, b in zip(*calls, strict=True) if (some := unlike(a, b))]
        if len(settings) == 1:
            return other_settings(_place(right), settings[0])
        if settings:
            every = [other_settings(_place(right), some) for some in settings]
            return Words("; ".join(words.what for words in every), "; ".join(words.fault for words in every))
    runs = [program.function(stretch) for program, stretch in both]
    shapes = [program.shapes[stretch.entry] for program, stretch in both]
    if _moves(runs, shapes):
        return Words(f"the same values of {_place(left).name} in another order")
    return pools(runs[0], runs[1], shapes) or other_values(_place(left), _place(right))


def _moves(runs: Sequence[Callable[[Array], Array]], shapes: Sequence[tuple[int, ...]]) -> bool:
    """Tell whether two stretches compute the same function of single values, and leave the results in other places."""
    x = np.random.default_rng(0).standard_normal(shapes[0])
    if x.size != math.prod(shapes[1]):
        return False
    one, other = (tried(run, x.reshape(shape)) for run, shape in zip(runs, shapes, strict=True))
    if one is None or other is None or np.size(one) != np.size(other):
        return False
    return np.allclose(np.sort(one, axis=None), np.sort(other, axis=None), ROUNDED_FUNCTIONS, ROUNDED_FUNCTIONS)


def _enlarged(program: Program, stretch: Stretch) -> bool:
    """Tell whether a stretch lays out what it computes with in a larger array, as with zeros around it."""
    sizes = [math.prod(program.shapes[node.output]) for node in stretch.nodes if node.kind == "layout"]
    return max(sizes, default=0) > math.prod(program.shapes[stretch.entry])


def _takes(program: Program, stretch: Stretch) -> str:
    """Say which elements a stretch takes; "" where it computes."""
    places = selected(program, stretch)
    return "" if places is None else described(places, program.shapes[stretch.entry])


def _joined(program: Program, value: int) -> list[int]:
    """Return the activations that are joined in a value, as branches are in their channels; [] of too many."""
    at = program.makers.get(value, -1)
    if at < 0 or program.tape.nodes[at].kind != "layout":
        return []
    inputs = [number for number in program.tape.nodes[at].inputs if number in program.active]
    if len(inputs) == 1:
        return _joined(program, inputs[0])
    return inputs if len(inputs) <= BRANCHES else []


def _summands(program: Program, value: int) -> list[int]:
    """Return what is added to a value ahead of any other operation, as a coarser image in a pyramid, and no weights."""
    weights, terms = program.weights, list[int]()
    for node in program.tape.nodes:  # in the order in which they run
        if node.kind == "add" and value in node.inputs:
            terms += [number for number in node.inputs if number != value and number not in weights]
            value = node.output
    return [number for number in terms if number in program.makers]


def _stretches(program: Program, value: int) -> list[Stretch]:
    """List the stretches on the way back from a value: of activations alone, or of one parameter."""
    weights, is_active = program.weights, value in program.active
    chain = [(value, list[Node]()), *program.regions(value, DEPTH, None if is_active else weights)]
    stretches = []
    for k, (_, behind) in enumerate(chain):
        for entry, nodes in chain[k + 1 :]:
            some = nodes[: len(nodes) - len(behind)]
            if is_active and any(number in weights for node in some for number in node.inputs):
                break
            stretch = Stretch(entry, some)
            if some and (any(node.kind != "layout" for node in some) or selected(program, stretch) is not None):
                stretches.append(stretch)
    return stretches


def _by_signature(program: Program) -> dict[Signature, list[Stretch]]:
    """Return all stretches of a program by what they compute, of each value the shortest one of each kind."""
    groups: dict[Signature, dict[int, Stretch]] = defaultdict(dict)
    for node in program.tape.nodes:
        if node.kind == "layout" or node.output not in program.active:
            continue
        for stretch in program.regions(node.output, DEPTH):
            groups[_signature(stretch)].setdefault(stretch.result, stretch)
    return {signature: list(group.values()) for signature, group in groups.items()}
