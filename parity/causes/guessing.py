"""Name the cause of a divergence: only what, recomputed, gives the outputs that were recorded."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

import specs
from parity.given.own import OWN
from parity.results.elements import double, relative_error, worst
from parity.results.guesses import Guess
from parity.results.naming import called_elsewhere
from parity.results.tolerance import TRAINED_FLOOR, WEIGHTS_RTOL
from parity.running.recording import Recording
from ports.runners.records import Tap
from specs.kinds import STATISTICS, image_axes
from specs.notation.paths import pattern
from specs.numbers import limit, measured, short
from specs.words import in_a_row

from .hypotheses import ACTIVATIONS, HYPOTHESES, orders

# How close a recomputation must come to what was recorded: far above the rounding of one layer, far below the
# difference between any two hypotheses that matters (erf and tanh GELU are 1e-4 apart, epsilons 1e-6 and more).
CLOSE = {"float64": 1e-11, "float32": 3e-6, "float16": 3e-3, "bfloat16": 2e-2}
ROLLED = 1 << 24  # numbers of all orders of one axis together, above which none is tried
OUT_OF_PLACE = 1e-2  # what another order moves numbers by at least, of the largest: rounding stays decades below
AS_WELL = 1.5  # hypotheses whose errors lie within this factor explain a recording equally well
BEFORE = 4  # taps to look back for what an activation was applied to
PARTS = 4  # equal parts into which a gate may split an activation's output

Explanation = tuple[tuple[str, ...], float] | None


def guess(name: str, check: str, a: Recording, b: Recording) -> Guess:
    """Say what `b` does differently from `a` at an array that diverges, with the evidence; "" where nothing fits."""
    cause = _guess(name, check, a, b)
    return cause if isinstance(cause, Guess) else Guess(cause)


def _guess(name: str, check: str, a: Recording, b: Recording) -> str:
    if check not in ("layers", "single-step"):
        return _ratio(name, a, b)
    base = name.split(" <- ")[0].split(":")[0]
    sides = [side for side in (_side(base, a), _side(base, b)) if side]
    if len(sides) < 2:
        return ""
    (left, before_left), (right, before_right) = sides
    close = CLOSE[a.dtype]
    if relative_error(left.inputs[0], right.inputs[0]) > 10 * close:  # what may have gathered on the way here
        return _activation(left, right, before_left, before_right, a, b) or _order(
            left.inputs[0], right.inputs[0], "its input", close
        )
    return (
        _layer(left, right, a, b)
        or _order(left.outputs[0], right.outputs[0], "its output", close)
        or _left_out(left, right, a, b)
        or _residual(left, right, a, b)
        or _ratio(name, a, b)
    )


def place(name: str, check: str, a: Recording, b: Recording) -> str:
    """Say between which taps the cause of a divergence lies, where the input of the first that differs does already.

    Nothing is recomputed: this is no guess of the cause.
    """
    base = name.split(" <- ")[0].split(":")[0]
    sides = [side for side in (_side(base, a), _side(base, b)) if side]
    if check not in ("layers", "single-step") or len(sides) < 2:
        return ""
    (left, before), (right, _) = sides
    if relative_error(left.inputs[0], right.inputs[0]) <= 10 * CLOSE[a.dtype]:
        return ""
    compared = [tap.name for tap in before if _is_compared(tap.name, a, b)]
    after = f"after {compared[0]}" if compared else "before the first module that is compared"
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


def unequal_weights(name: str, a: Recording, b: Recording, known: bool = False) -> str:
    """List the arrays of a layer that differ between two models, the worst first; "" if none does.

    It counts the elements that differ by more than rounding apart, as weights of two trainings differ in most elements.

    Args:
      known: whether a cause is known, beside which weights that differ by rounding alone are none.
    """
    path = name.partition("#")[0].partition(" <- ")[0]
    if not _have_like_arrays(path, a, b):
        return ""
    own = {key: double(left) for key, left in a.weights.items() if _owner(key, a) == path}
    most = max((_largest(x) for key, x in own.items() if key.rpartition(".")[2] not in STATISTICS), default=0.0)
    lines: list[tuple[float, str]] = []
    differ_beyond = 0
    for key, x in own.items():
        y = double(b.weights[key]) if key in b.weights else None
        if y is None or x.shape != y.shape:
            continue
        error, beyond, text = _unequal(x, y, most)
        if text:
            lines.append((-error, f"{_called(key, a, b)}: {text}"))
            differ_beyond += beyond
    if known and not differ_beyond:
        return ""
    return "; ".join(line for _, line in sorted(lines, key=lambda one: one[0]))


def _have_like_arrays(path: str, a: Recording, b: Recording) -> bool:
    """Tell whether arrays of one name mean the same in both models' layers: in ports of one architecture, in layers of
    one known kind, and in others of one framework. Of models that a Table pairs, the weights are compared before.
    """
    if a.architecture == b.architecture != OWN:
        return True
    kind = a.kinds.get(path, "")
    return not (a.tabled or b.tabled) and kind == b.kinds.get(path, "") and (bool(kind) or a.framework == b.framework)


def _owner(key: str, r: Recording) -> str:
    """Return the layer that computes with an array: the nearest one above it that was called."""
    path = key.rpartition(".")[0]
    while path and path not in r.arrays:
        path = path.rpartition(".")[0]
    return path or key.rpartition(".")[0]


def _called(key: str, a: Recording, b: Recording) -> str:
    """Name an array as both models do, or with what each of them calls it: "fc.kernel (weight in torch)"."""
    if a.architecture == b.architecture != OWN:
        own = called_elsewhere(key, a.architecture, dict.fromkeys(r.framework for r in (a, b)))
    else:
        layer, _, leaf = key.rpartition(".")
        leaves = {r.label: r.spelled.get(key, leaf) for r in (a, b)}
        if len({*leaves.values()}) == 1:
            return f"{layer}.{leaves[a.label]}"
        own = in_a_row(f"{its} in {label}" for label, its in leaves.items() if its != leaf)
    return f"{key} ({own})" if own else key


def _unequal(x: np.ndarray, y: np.ndarray, most: float) -> tuple[float, int, str]:
    """Count the elements in which two arrays differ, and those that differ by more than rounding; "" if none does.

    Args:
      most: the largest element of the layer's parameters, whose rounding all of them share: training moves a bias whose
        gradient is zero in exact arithmetic by rounding alone (see TRAINED_FLOOR).
    Returns: (largest difference relative to the scale, elements beyond rounding, text).
    """
    differ = (x != y) & ~(np.isnan(x) & np.isnan(y))
    if not (number := int(np.count_nonzero(differ))):
        return 0.0, 0, ""
    scale = largest if (largest := _largest(x)) >= TRAINED_FLOOR * most else most
    text = f"{number:,} of {x.size:,} elements {'differs' if number == 1 else 'differ'}"
    if math.isfinite(error := worst(x, y, scale).error):
        text += f", by up to {short(error)} of the largest{' of the layer' * (scale != largest)}"
    with np.errstate(invalid="ignore"):
        beyond = int(np.count_nonzero(differ & ~(np.abs(x - y) <= WEIGHTS_RTOL * scale)))
    some = f"{beyond:,}" if beyond else "none"
    return error, beyond, f"{text}, {some} of them by more than {limit(WEIGHTS_RTOL)}" if beyond < number else text


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x[np.isfinite(x)]).max(initial=0.0))


def _side(name: str, r: Recording) -> tuple[Tap, list[Tap]] | None:
    """Return (the tap, those before it, latest first)."""
    for k, tap in enumerate(r.taps):
        if tap.name == name and tap.inputs and tap.outputs:
            return tap, r.taps[:k][::-1]
    return None


def _layer(left: Tap, right: Tap, a: Recording, b: Recording) -> str:
    """Recompute each side's output from its own input, as a layer of the kind that either model has there."""
    path = left.name.partition("#")[0]
    known = [_kind_and_weights(path, r) for r in (a, b)]
    for kind, weights in known[:1] if _same_layer(*known) else known:
        if kind in HYPOTHESES and weights:
            sides = [_recomputed(kind, tap, weights, a.dtype) for tap in (left, right)]
            if sentence := _explain(sides, a, b):
                return sentence
    return ""


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
    left, right = _unlike(left, right)
    return Guess.of({a.label: " or ".join(left), b.label: " or ".join(right)}, max(error, other), after)


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
        for name, function in ACTIVATIONS.items():
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


def _order(left: np.ndarray, right: np.ndarray, what: str, close: float) -> str:
    """Name the order in which one side has the other's numbers; numbers that stand almost in place show none."""
    if left.shape != right.shape or relative_error(left, right) < OUT_OF_PLACE:
        return ""
    if relative_error(np.sort(left, None), np.sort(right, None)) > close:
        return ""
    same = f"{what} holds the same {left.size} values"
    if which := _best(orders(double(left)), right, close):
        return f"flatten order: {same} {which[0][0]}"
    if which := _best(_rolled(double(left)), right, close):
        return f"order of a concatenation: {same}, {which[0][0]}"
    return f"another order, as of a flatten or a concatenation: {same}"


def _rolled(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield an array with the first part of an axis last, as behind a concatenation of two in another order."""
    for axis, length in enumerate(x.shape):
        for first in range(1, length) if x.size * length <= ROLLED else ():
            yield f"the first {first} of {length} along axis {axis} last", np.roll(x, -first, axis)


def _left_out(left: Tap, right: Tap, a: Recording, b: Recording) -> str:
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
            return f"{r.label} leaves out {name} ({how}, its output is that of {whole.label}, to {short(error)})"
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


def _residual(left: Tap, right: Tap, a: Recording, b: Recording) -> str:
    """Name the side whose output is the other's with the input added: it may be right, or add the input twice."""
    x = left.inputs[0]
    if not x.shape == left.outputs[0].shape == right.outputs[0].shape:
        return ""
    gap = double(left.outputs[0]) - double(right.outputs[0])
    for sign, more, less in ((1, a, b), (-1, b, a)):
        if relative_error(double(x), sign * gap) <= CLOSE[a.dtype] * 10:
            return (
                f"a residual that {more.label} adds once more than {less.label} "
                "(the outputs differ by exactly the input)"
            )
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
