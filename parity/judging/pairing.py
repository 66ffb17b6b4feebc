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
      unproven: whether gradients without a partner may be others on both sides.
    """

    names: list[str]
    shapes: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    why: str = ""
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
        return f"{why}: {'; '.join(lists)}" if lists else ""


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
    turned = _turned(a, b, same) if check == "layers" else []  # where a module reads what the one before it returns
    same = [n for n in same if n not in turned]
    shapes = tuple(n for n in odd if not a.tabled or _unlike(a.arrays[n], b.arrays[n])) if check in ACTIVATIONS else ()
    alone = [
        f"in {r.label}: {some(fold(_without_run(check, names)))}"
        for r, other in ((a, b), (b, a))
        if (names := [n for n in r.arrays if n not in other.arrays])
    ]
    alone += [f"{some(turned)} with the same values in another order of axes"] if turned else []
    paired = check == "gradients" and _same_values(a.truth or a, b.truth or b, same)
    why = "compared by their sorted values alone" if paired else "not compared"
    unproven = check == "gradients" and not paired
    return Pairing(same, shapes, tuple(alone), tuple(_without_run(check, odd)), why, unproven)


def _unlike(left: np.ndarray, right: np.ndarray) -> bool:
    """Tell whether a pair of a Table's modules returns other shapes because it computes something else.

    The same values may stand along other axes or in another order of them, as those of tokens in a grid and in a row.
    """
    return np.ndim(left) == np.ndim(right) and np.size(left) != np.size(right)


def _turned(a: Recording, b: Recording, names: Sequence[str]) -> list[str]:
    """Return the arrays that differ in the order of their axes alone, if what runs next is equal in both models.

    A norm before a permutation returns images, and one behind it tokens: their shapes may be equal by chance.
    """
    turned, next_is_equal = list[str](), False
    for name in reversed(names):
        left, right = double(a.arrays[name]), double(b.arrays[name])
        if left.shape != right.shape:
            next_is_equal = False
        elif relative_error(left, right) <= CLOSE[a.dtype]:
            next_is_equal = True
        else:
            views = (left.transpose(0, *order) for order in itertools.permutations(range(1, left.ndim)))
            again = (view for view in views if view.shape == right.shape)
            is_inner = next_is_equal and left.ndim > 2 and not required("layers", name)
            next_is_equal = is_inner and any(relative_error(view, right) <= CLOSE[a.dtype] for view in again)
            turned += [name] * next_is_equal
    return turned[::-1]


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
