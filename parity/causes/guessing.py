"""Name the cause of a divergence: only what, recomputed, gives the outputs that were recorded."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

import specs
from parity.given.own import OWN
from parity.results.elements import double, relative_error
from parity.results.guesses import Guess
from parity.running.recording import Recording
from ports.runners.inputs import OUTPUT
from ports.runners.records import Tap
from specs.kinds import image_axes
from specs.notation.paths import pattern
from specs.numbers import measured, short

from .hypotheses import ACTIVATIONS, HYPOTHESES, orders, softmax

# How close a recomputation must come to what was recorded: far above the rounding of one layer, far below the
# difference between any two hypotheses that matters (erf and tanh GELU are 1e-4 apart, epsilons 1e-6 and more).
CLOSE = {"float64": 1e-11, "float32": 3e-6, "float16": 3e-3, "bfloat16": 2e-2}
ROLLED = 1 << 24  # numbers of all orders of one axis together, above which none is tried
OUT_OF_PLACE = 1e-2  # what another order moves numbers by at least, of the largest: rounding stays decades below
AS_WELL = 1.5  # hypotheses whose errors lie within this factor explain a recording equally well
BEFORE = 4  # taps to look back for what an activation was applied to
PARTS = 4  # equal parts into which a gate may split an activation's output

ZERO_BIAS = "a bias of zeros"

Explanation = tuple[tuple[str, ...], float] | None


def guess(name: str, check: str, a: Recording, b: Recording) -> Guess:
    """Say what `b` does differently from `a` at an array that diverges, with the evidence; "" where nothing fits."""
    cause = _guess(name, check, a, b)
    return cause if isinstance(cause, Guess) else Guess(cause)


def _guess(name: str, check: str, a: Recording, b: Recording) -> Guess | str:
    if check not in ("layers", "single-step"):
        return _ratio(name, a, b)
    if _is_returned(name) and (cause := _on_the_way("it", _returned(name, a), _returned(name, b), a, b)):
        return cause
    sides = [side for side in (_side(name, a), _side(name, b)) if side]
    if len(sides) < 2:
        return ""
    one, other = sides
    left, right = one[0], other[0]
    if relative_error(left.inputs[0], right.inputs[0]) > 10 * CLOSE[a.dtype]:  # what may have gathered on the way here
        return _on_the_way("its input", one, other, a, b)
    return (
        _layer(left, right, a, b)
        or _order(left.outputs[0], right.outputs[0], "its output", a, b)
        or _left_out(left, right, a, b)
        or _residual(left, right, a, b)
        or _ratio(name, a, b)
    )


def _on_the_way(
    what: str, one: tuple[Tap, list[Tap]], other: tuple[Tap, list[Tap]], a: Recording, b: Recording
) -> Guess | str:
    """Recompute what a layer gets from what the layers before it return.

    Args:
      one, other: of each model the tap of the layer, and those before it, latest first.
    """
    (left, before_left), (right, before_right) = one, other
    return (
        _activation(left, right, before_left, before_right, a, b)
        or _summand(left, right, before_left, a, b)
        or _order(left.inputs[0], right.inputs[0], what, a, b)
    )


def place(name: str, check: str, a: Recording, b: Recording) -> str:
    """Say between which taps the cause of a divergence lies, where the input of the first that differs does already.

    Nothing is recomputed: this is no guess of the cause.
    """
    find = _returned if _is_returned(name) else _side
    sides = [side for side in (find(name, r) for r in (a, b) if name in r.arrays) if side]
    if check not in ("layers", "single-step") or len(sides) < 2:
        return ""
    (left, before), (right, _) = sides
    if relative_error(left.inputs[0], right.inputs[0]) <= 10 * CLOSE[a.dtype]:
        return ""
    compared = [tap.name for tap in before if _is_compared(tap.name, a, b)]
    after = f"after {compared[0]}" if compared else "before the first module that is compared"
    if _is_returned(name):
        return f"{after}, in what the models return" if compared else ""
    return f"{after} and ahead of {left.name}, whose input differs already"


def _is_compared(name: str, a: Recording, b: Recording) -> bool:
    """Tell whether both models have an output of a tap, in one shape."""
    return name in a.arrays and name in b.arrays and a.arrays[name].shape == b.arrays[name].shape


def unlisted_maps(names: Sequence[str], a: Recording, b: Recording) -> str:
    """Name the modules whose images are the same in another layout, as the page does not list them; "" for none.

    Args:
      names: the arrays that differ, between two models whose outputs agree.
    """
    if not a.architecture == b.architecture != OWN or (a.framework == "flax") == (b.framework == "flax"):
        return ""
    flax, other = (a, b) if a.framework == "flax" else (b, a)
    spec = specs.get(a.architecture)
    axes = image_axes("", {layer.kind for config in spec.tiny.values() for layer in spec.layers(config)})
    turned = [name for name in names if np.ndim(flax.arrays[name]) == np.ndim(other.arrays[name]) == axes]
    turned = [name for name in turned if _equal_images(flax.arrays[name], other.arrays[name], CLOSE[a.dtype])]
    paths = dict.fromkeys(pattern(re.split(" <- |[:#]", name)[0]) for name in turned)
    if not paths:
        return ""
    layouts = f"the same images with channels last in {flax.label} and second in {other.label}"
    return f"{layouts}: feature_maps of the page lacks {', '.join(map(repr, paths))}"


def _equal_images(last: np.ndarray, first: np.ndarray, close: float) -> bool:
    """Tell whether arrays with channels last and channels first are the same images."""
    return relative_error(np.moveaxis(last, -1, 1), first) <= close


def _is_returned(name: str) -> bool:
    """Tell whether an array is one that the model returns, which no layer of its own computes."""
    return name.partition(":")[0] == OUTPUT


def _side(name: str, r: Recording) -> tuple[Tap, list[Tap]] | None:
    """Return (the tap of an array, those before it, latest first)."""
    base = name.split(" <- ")[0].split(":")[0]
    for k, tap in enumerate(r.taps):
        if tap.name == base and tap.inputs and tap.outputs:
            return tap, r.taps[:k][::-1]
    return None


def _returned(name: str, r: Recording) -> tuple[Tap, list[Tap]]:
    """Return (a tap that takes what the model returns, the layers before it, latest first)."""
    return Tap(name, (r.arrays[name],), ()), [tap for tap in r.taps if not _is_returned(tap.name)][::-1]


def _layer(left: Tap, right: Tap, a: Recording, b: Recording) -> str:
    """Recompute each side's output from its own input, as a layer of the kind that either model has there."""
    path = left.name.partition("#")[0]
    known = [_kind_and_weights(path, r) for r in (a, b)]
    for kind, weights in known[:1] if _same_layer(*known) else known:
        if kind in HYPOTHESES and weights:
            sides = [_recomputed(kind, tap, weights, a.dtype) for tap in (left, right)]
            sides = [_with_own_bias(side, own) for side, (_, own) in zip(sides, known, strict=True)]
            if sentence := _explain(sides, a, b):
                return sentence
    return ""


def _with_own_bias(side: Explanation, weights: Mapping[str, np.ndarray]) -> Explanation:
    """Say of a side that computes as without the other one's bias, but has a bias of its own, that it is all zeros."""
    if side is None or "bias" not in weights or weights["bias"].any():
        return side
    return tuple(name.replace("no bias", ZERO_BIAS) for name in side[0]), side[1]


def _kind_and_weights(path: str, r: Recording) -> tuple[str, dict[str, np.ndarray]]:
    """Return the kind of the layer that a model has at a path, "" if it is none of these, and its weights."""
    own = {name: weight for name, weight in r.weights.items() if name.rpartition(".")[0] == path}
    return r.kinds.get(path, ""), {name[len(path) + 1 :]: double(weight) for name, weight in own.items()}


def _same_layer(one: tuple[str, Mapping[str, np.ndarray]], other: tuple[str, Mapping[str, np.ndarray]]) -> bool:
    """Tell whether two layers are of one kind and have equal weights, so that both explain the same."""
    (kind, weights), (other_kind, others) = one, other
    alike = kind == other_kind and weights.keys() == others.keys()
    return alike and all(np.array_equal(weight, others[name], equal_nan=True) for name, weight in weights.items())


def _recomputed(kind: str, tap: Tap, weights: Mapping[str, np.ndarray], dtype: str) -> Explanation:
    """Return what explains the output of a call, as a layer of a kind with these weights."""
    tried = HYPOTHESES[kind](double(tap.inputs[0]), weights, tap.outputs[0])
    finer = "float32(" if dtype != "float64" else None  # no lower dtype tells an epsilon from its rounding
    tried = (pair for pair in tried if finer is None or finer not in pair[0])
    return _best(tried, tap.outputs[0], CLOSE[dtype])


def _best(tried: Iterable[tuple[str, np.ndarray]], target: np.ndarray, close: float) -> Explanation:
    """Return (names, error) of the hypotheses that come closest to what was recorded, if they come close.

    Of those with the very same error, which compute the same here, the first stands for all.
    """
    errors: dict[float, str] = {}
    with np.errstate(all="ignore"):  # a variance of 0 with an epsilon of 0, an exponential that overflows
        for name, out in tried:
            if out.shape == target.shape:
                errors.setdefault(relative_error(target, out), name)
    least = min(errors, default=np.inf)
    if not least <= close:  # as NaN is not
        return None
    return tuple(name for error, name in errors.items() if error <= AS_WELL * least), least


def _explain(sides: list[Explanation], a: Recording, b: Recording, after: str = "") -> str:
    """Return a sentence, if both sides are explained, and by nothing that explains both.

    Args:
      after: the layer whose output the sides compute with.
    """
    explained = [side for side in sides if side]
    if len(explained) < 2 or set(explained[0][0]) & set(explained[1][0]):
        return ""
    (left, error), (right, other) = explained
    left, right = _unlike(*_plain(left, right))
    return Guess.of({a.label: " or ".join(left), b.label: " or ".join(right)}, max(error, other), after)


def _plain(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Call a padding that all names of both sides have by the first of its names."""
    paddings = {text for name in (*left, *right) for text in re.findall("[^,]*padding[^,]*", name)}
    if len(paddings) != 1:
        return left, right
    (padding,) = paddings
    plain = padding.partition(" or ")[0]
    one, other = (tuple(name.replace(padding, plain) for name in side) for side in (left, right))
    return one, other


def _unlike(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Leave out what stands before or behind " and " in all names of both sides alike: it is no difference."""
    names = (*left, *right)
    if any(" and " not in name for name in names):
        return left, right
    for alike, other in ((2, 0), (0, 2)):
        if len({name.partition(" and ")[alike] for name in names}) == 1:
            one, two = (tuple(name.partition(" and ")[other] for name in side) for side in (left, right))
            return one, two
    return left, right


def _activation(
    left: Tap, right: Tap, before_left: list[Tap], before_right: list[Tap], a: Recording, b: Recording
) -> str:
    """Recompute the tap's input as an activation of an earlier tap's output, or as a part of one."""
    for earlier, other in zip(before_left[:BEFORE], before_right[:BEFORE], strict=False):
        if not earlier.outputs or earlier.name != other.name:
            continue
        sides = [
            _best(_activated(was.outputs[0], tap.inputs[0].shape), tap.inputs[0], CLOSE[a.dtype])
            for was, tap in ((earlier, left), (other, right))
        ]
        if sentence := _explain(sides, a, b, earlier.name):
            return sentence
    return ""


def _activated(x: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    for part in _parts(x, shape):
        for name, function in {**ACTIVATIONS, "softmax over the last axis": softmax}.items():
            yield name, function(double(part))


def _parts(x: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield an array in a shape that it may have been given: its axes in another order, or one of its equal parts.

    A gate, for one, splits channels: the layer that follows reads the half of them.
    """
    if x.shape == shape:
        yield x
        return
    turned = [x] if x.ndim < 2 else [x, x.swapaxes(-1, -2), np.moveaxis(x, 1, -1)][: x.ndim]
    for view in turned:
        if view.size == math.prod(shape):
            yield view.reshape(shape)
        elif view.ndim == len(shape):
            apart = [axis for axis in range(view.ndim) if view.shape[axis] != shape[axis]]
            count, rest = divmod(view.shape[apart[0]], max(shape[apart[0]], 1))
            if len(apart) == 1 and not rest and 1 < count <= PARTS:
                yield from np.split(view, count, apart[0])


def _order(left: np.ndarray, right: np.ndarray, what: str, a: Recording, b: Recording) -> str:
    """Name the order in which `b` has the numbers of `a`; numbers that stand almost in place show none."""
    close = CLOSE[a.dtype]
    if left.shape != right.shape or relative_error(left, right) < OUT_OF_PLACE:
        return ""
    if relative_error(np.sort(left, None), np.sort(right, None)) > close:
        return ""
    same = f"{what} holds the same {left.size} values"
    if which := _best(orders(double(left)), right, close):
        return f"another order: {same}, in {b.label} those of {a.label} {which[0][0]}"
    if which := _best(_rolled(double(left)), right, close):
        return f"order of a concatenation: {same}, in {b.label} those of {a.label} with {which[0][0]}"
    return f"another order, as of a flatten or a concatenation: {same}"


def _rolled(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield an array with the first part of an axis last, as behind a concatenation of two in another order."""
    for axis, length in enumerate(x.shape):
        for first in range(1, length) if x.size * length <= ROLLED else ():
            yield f"the first {first} of {length} along axis {axis} last", np.roll(x, -first, axis)


def _left_out(left: Tap, right: Tap, a: Recording, b: Recording) -> Guess | str:
    """Name an array of the module itself, such as a LayerScale, that one side does not apply and the other one does."""
    path = left.name.partition("#")[0]
    arrays = {name: double(w) for name, w in a.weights.items() if a.kinds.get(name) == "array"}
    sides = ((left, right, a, b), (right, left, b, a))
    for name, (tap, other, r, whole) in itertools.product(arrays, sides):
        out, target = double(tap.outputs[0]), double(other.outputs[0])
        if name.rpartition(".")[0] != path or out.shape != target.shape:
            continue
        x = double(tap.inputs[0]) if tap.inputs[0].shape == out.shape else None
        if best := _best(_applied(out, x, arrays[name]), target, CLOSE[a.dtype]):
            (how, *_), error = best
            evidence = f"{how}, its output is that of {whole.label}, to {short(error)}"
            return Guess.known(f"{r.label} leaves out {name}", evidence)
    return ""


def _applied(out: np.ndarray, x: np.ndarray | None, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield an output with an array applied to it, also ahead of a residual; a vector goes along channels."""
    views = [array, *([array.reshape(-1, *[1] * (out.ndim - 2))] if array.ndim == 1 < out.ndim - 1 else [])]
    for view in views:
        if view.ndim <= out.ndim and all(n in (1, m) for n, m in zip(view.shape[::-1], out.shape[::-1], strict=False)):
            yield "multiplied by it", out * view
            yield "with it added", out + view
            if x is not None:
                yield "multiplied by it ahead of the residual", x + (out - x) * view


def _residual(left: Tap, right: Tap, a: Recording, b: Recording) -> Guess | str:
    """Name the side whose output is the other's with the input added: it may be right, or add the input twice."""
    return _added(left.inputs[0], left.outputs[0], right.outputs[0], "the outputs differ by exactly the input", a, b)


def _summand(left: Tap, right: Tap, before: list[Tap], a: Recording, b: Recording) -> Guess | str:
    """Name the side whose layer reads what the other one's does with an array added that earlier layers have.

    An array that one side reads alone is none: the other one may read it times 2.
    """
    read = [tap.inputs[0] for tap in (left, right)]
    for tap in before[:BEFORE]:
        arrays = [(f"the output of module {tap.name}", x) for x in tap.outputs]
        arrays += [(f"the input of module {tap.name}", x) for x in tap.inputs]
        for name, x in arrays:
            if any(relative_error(x, one) <= CLOSE[a.dtype] for one in read):
                continue
            gets = "they return" if _is_returned(left.name) else f"{left.name} gets"
            evidence = f"what {gets} differs by exactly {name}"
            if found := _added(x, left.inputs[0], right.inputs[0], evidence, a, b):
                return found
    return ""


def _added(
    x: np.ndarray, left: np.ndarray, right: np.ndarray, evidence: str, a: Recording, b: Recording
) -> Guess | str:
    if not x.shape == left.shape == right.shape or not np.any(x):
        return ""
    gap = double(left) - double(right)
    for sign, more, less in ((1, a, b), (-1, b, a)):
        if relative_error(double(x), sign * gap) <= CLOSE[a.dtype] * 10:
            return Guess.known(f"a residual that {more.label} adds once more than {less.label}", evidence)
    return ""


def _ratio(name: str, a: Recording, b: Recording) -> str:
    """Return the factor between two arrays; a single number always has one, which shows nothing."""
    left, right = double(a.arrays[name]), double(b.arrays[name])
    if left.shape != right.shape or not left.size or not np.isfinite(right).all():
        return ""
    index = np.unravel_index(np.argmax(np.abs(left)), left.shape)
    factor = float(right[index] / left[index]) if left[index] else 0.0
    is_factor = np.count_nonzero(left) > 1 and factor and abs(factor - 1) >= 1e-2
    if not is_factor or relative_error(left * factor, right) > 1e3 * CLOSE[a.dtype]:
        return "" if right.any() or not left.any() else f"all values of {b.label} are zero"
    return f"every value of {b.label} is {measured(factor, 6)} times that of {a.label}"
