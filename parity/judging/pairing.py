"""Pair the arrays of two recordings: which of them correspond, by name and shape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parity.causes.guessing import CLOSE
from parity.given.own import OWN
from parity.given.quoting import some
from parity.results.elements import double, relative_error, worst
from parity.results.tolerance import FLOAT64
from parity.running.recording import ACTIVATIONS, Recording
from specs.notation.folding import fold


@dataclass(frozen=True)
class Pairing:
    """Which arrays of two recordings correspond.

    Args:
      names: arrays that both have in one shape, and those that must agree whatever their shapes are.
      shapes: further arrays of activations that both have, in different shapes, of modules of one name.
      alone: what one side alone has, in words.
      odd: arrays that both have in different shapes, of which `shapes` are some; each optimizer's one once.
      why: what of these is compared.
      passed: arrays that differ though what runs next agrees, in words.
      unproven: whether gradients without a partner may be others on both sides.
    """

    names: list[str]
    shapes: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    why: str = ""
    passed: tuple[str, ...] = ()
    unproven: bool = False

    @property
    def unpaired(self) -> str:
        """List in a sentence what has no partner; "" for nothing."""
        return self.without()

    def without(self, first: str = "") -> str:
        """List what has no partner, but for the array whose other shape is what differs first."""
        odd = [name for name in self.odd if name != first]
        lists = ([f"{some(odd)}, whose shapes differ"] if odd else []) + [*self.alone]
        why = f"{self.why}, as the other model has no array of this name and shape"
        parts = [f"{why}: {'; '.join(lists)}"] if lists else []
        parts += [f"not compared, as what runs next agrees: {'; '.join(self.passed)}"] if self.passed else []
        return "; ".join(parts)


def required(check: str, name: str) -> bool:
    """Tell whether both sides must have an array, in one shape: losses, what the model returns, its inputs."""
    if check == "train":
        return name.endswith(": losses")
    whole = ("output",) if check in ACTIVATIONS else ("output", "loss", "images")
    return name.partition(":")[0] in whole


def correspond(check: str, a: Recording, b: Recording) -> Pairing:
    """Pair arrays by name and shape.

    Modules may be split differently (fused query, key and value): what has no partner is listed, and the outputs
    decide. Return no pairs if an output has no partner, if there is no output, or if two ports of one architecture have
    different taps, which are the same by contract.
    """
    both = [n for n in a.arrays if n in b.arrays]
    same = [n for n in both if required(check, n) or np.shape(a.arrays[n]) == np.shape(b.arrays[n])]
    strict = check in ACTIVATIONS and (
        a.architecture == b.architecture != OWN or not any(required(check, n) for n in same)
    )
    unpaired = [n for n in [*a.arrays, *b.arrays] if n not in both]
    if any(strict or required(check, n) for n in unpaired):
        return Pairing([])
    if strict:
        return Pairing(both)
    odd = [n for n in both if n not in same]
    # in single steps no module reads what the one before it returns
    turned, parted = _passed_on(a, b, same) if check == "layers" else ([], [])
    same = [n for n in same if n not in (*turned, *parted)]
    shapes = tuple(n for n in odd if not a.tabled or _unlike(a.arrays[n], b.arrays[n])) if check in ACTIVATIONS else ()
    alone = [
        f"in {r.label}: {some(fold(_without_run(check, names)))}"
        for r, other in ((a, b), (b, a))
        if (names := [n for n in r.arrays if n not in other.arrays])
    ]
    passed = [f"{some(turned)} with the same values in another order of axes"] if turned else []
    passed += [f"{some(parted)} with other values"] if parted else []
    paired = check == "gradients" and _same_values(a.truth or a, b.truth or b, same)
    why = "compared by their sorted values alone" if paired else "not compared"
    unproven = check == "gradients" and not paired
    return Pairing(same, shapes, tuple(alone), tuple(_without_run(check, odd)), why, tuple(passed), unproven)


def _unlike(left: np.ndarray, right: np.ndarray) -> bool:
    """Tell whether a pair of a Table's modules returns other shapes because it computes something else.

    The same values may stand along other axes or in another order of them, as those of tokens in a grid and in a row.
    """
    return np.ndim(left) == np.ndim(right) and np.size(left) != np.size(right)


def _passed_on(a: Recording, b: Recording, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arrays that differ though what runs next is equal in both models: in the order of axes, or in values.

    A norm before a permutation returns images, and one behind it tokens: their shapes may be equal by chance. A norm
    with an activation inside returns other values than one before an activation, and what reads them is the same.
    """
    turned, parted, following = list[str](), list[str](), ""
    for name in reversed(names):
        left, right = double(a.arrays[name]), double(b.arrays[name])
        if left.shape == right.shape and relative_error(left, right) <= CLOSE[a.dtype]:
            following = name
        elif left.shape != right.shape or not following or required("layers", name):
            following = ""
        elif _is_turned(left, right, CLOSE[a.dtype]):
            turned.append(name)
        elif _is_read(name, following, a, b):
            parted.append(name)
        else:
            following = ""
    return turned[::-1], parted[::-1]


def _is_turned(left: np.ndarray, right: np.ndarray, close: float) -> bool:
    """Tell whether two arrays differ in the order of their axes alone."""
    views = (left.transpose(0, *order) for order in itertools.permutations(range(1, left.ndim)) if left.ndim > 2)
    return any(relative_error(view, right) <= close for view in views if view.shape == right.shape)


def _is_read(name: str, following: str, a: Recording, b: Recording) -> bool:
    """Tell whether a module takes the same in both models, which is what another one returns in one of them.

    As it is, or as its means over all places, as a pooling returns them.
    """
    close, calls = CLOSE[a.dtype], [{tap.name: tap for tap in r.taps} for r in (a, b)]
    taken = [double(x) for call in calls if (tap := call.get(following.partition(":")[0])) for x in tap.inputs[:1]]
    if len(taken) < 2 or taken[0].shape != taken[1].shape or relative_error(*taken) > close:
        return False
    for out in (double(r.arrays[name]) for r in (a, b)):
        means = [out.mean(tuple(axes)) for axes in (range(2, out.ndim), range(1, out.ndim - 1)) if axes]
        flat = [x.ravel() for x in (out, *means) if x.size == taken[0].size]
        if any(relative_error(x, taken[0].ravel()) <= close for x in flat):
            return True
    return False


def _same_values(a: Recording, b: Recording, names: Sequence[str]) -> bool:
    """Tell whether the arrays beside these have the same values in some order, as a fused projection and its parts do.

    Zeros do not count, as a parameter that no output depends on has them.
    """
    rest = [[double(r.arrays[name]).ravel() for name in r.arrays if name not in names] for r in (a, b)]
    left, right = (np.concatenate([*arrays, np.zeros(0)]) for arrays in rest)
    size = max(left.size, right.size, 1)
    left, right = (np.sort(np.pad(values, (0, size - values.size))) for values in (left, right))
    return worst(left, right).error <= FLOAT64["gradients"]


def _without_run(check: str, names: Sequence[str]) -> list[str]:
    """Return names without the optimizer in front, each once."""
    return list(dict.fromkeys(n.partition(": ")[2] if check == "train" else n for n in names))
