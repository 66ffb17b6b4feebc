"""List which arrays of one layer differ between two models."""

from __future__ import annotations

import math

import numpy as np

from parity.given.own import OWN
from parity.results.elements import double, worst
from parity.results.naming import called_elsewhere
from parity.results.tolerance import TRAINED_FLOOR, WEIGHTS_RTOL
from parity.running.recording import Recording
from specs.kinds import STATISTICS
from specs.numbers import limit, short
from specs.words import in_a_row


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
    else:
        text += ", with NaN or infinities in one model alone"
    with np.errstate(invalid="ignore"):
        beyond = int(np.count_nonzero(differ & ~(np.abs(x - y) <= WEIGHTS_RTOL * scale)))
    some = f"{beyond:,}" if beyond else "none"
    return error, beyond, f"{text}, {some} of them by more than {limit(WEIGHTS_RTOL)}" if beyond < number else text


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
