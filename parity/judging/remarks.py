"""Write what a reader should know beside a verdict: what was not judged, and how far the arrays tell anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from parity.given.quoting import possessive, some
from parity.results.elements import Worst, double, shared_fills, shared_nans
from parity.results.tolerance import WIDE
from parity.running.recording import ACTIVATIONS, Recording
from specs.numbers import limit, measured
from specs.words import count

from .agreement import Verdict


def remarks(
    dtype: str, a: Recording, b: Recording, names: Sequence[str], unpaired: str, judged: Mapping[str, Verdict],
    both_nan: str,
) -> list[str]:  # fmt: skip
    """List what a reader should know beside the verdict. Empty strings are ignored.

    Args:
      names: of the arrays that were compared. unpaired: says which have no partner. both_nan: see nans.
    """
    lost = [name for name in names if name not in judged]
    off = [name for name, verdict in judged.items() if verdict.off]
    sentences = [f"{drowned_by_rounding(dtype, some(lost))}: not judged"] if lost else []
    sentences += [unpaired, both_nan if off else ""]
    if both_nan or any(not np.isfinite(_values(judged[name].worst)).all() for name in off):
        sentences.append(origins(a, b))
    if not off:
        sentences.append(_amplified(dtype, judged))
    return [*sentences, _infinite(a, b, names), _filled(a, b, names), *notes(a, b)]


def _amplified(dtype: str, judged: Mapping[str, Verdict]) -> str:
    """Return a sentence where a float64 run was judged at a tolerance far above the usual, as rounding is amplified."""
    wide = [name for name, verdict in judged.items() if verdict.limit > WIDE]
    if dtype != "float64" or not wide:
        return ""
    largest = max(judged[name].limit for name in wide)
    return f"these runs amplify rounding: {some(wide)} judged at tolerances of up to {limit(largest)} alone"


def notes(a: Recording, b: Recording) -> list[str]:
    """Return the notes of both sides, each once, with the side that it is of unless it is of both or begins with it."""
    sides = {note: [r.label for r in (a, b) if note in r.notes] for note in [*a.notes, *b.notes]}
    return [
        note if len(labels) == 2 or note.startswith(f"{possessive(labels[0])} ") else f"{labels[0]}: {note}"
        for note, labels in sides.items()
    ]


def _values(element: Worst) -> tuple[float, ...]:
    """Return both values of an element that is not finite, none where something else is wrong."""
    return (element.left, element.right) if element.cause and element.index is not None else ()


def origins(a: Recording, b: Recording) -> str:
    """Say where values that are not finite arise in each model."""
    if a.origin == b.origin:
        return a.origin
    return join(*(f"in {r.label}, {r.origin}" for r in (a, b) if r.origin))


def _infinite(a: Recording, b: Recording, names: Sequence[str]) -> str:
    """List arrays that have infinities in both recordings: equal ones, or the array would differ."""
    equal = [n for n in names if all(r.arrays[n].dtype.kind == "f" and np.isinf(r.arrays[n]).any() for r in (a, b))]
    return f"{some(equal)} have infinities in both, which agree where all else does" if equal else ""


def _filled(a: Recording, b: Recording, names: Sequence[str]) -> str:
    """List arrays in which both recordings have the fill of a mask, which is no measure of the other elements."""
    fills = {name: shared_fills(a.arrays[name], b.arrays[name]) for name in names}
    some_of = [name for name, places in fills.items() if places.any() and not places.all()]
    if not some_of:
        return ""
    value = measured(float(double(a.arrays[some_of[0]])[fills[some_of[0]]][0]))
    return f"{some(some_of)} have {value} in both, as of a mask: errors are relative to the other elements"


def nans(a: Recording, b: Recording, names: Sequence[str]) -> str:
    """Count the places that have NaN in both recordings, where nothing can be compared; "" if there is none."""
    counts = {name: int(shared_nans(a.arrays[name], b.arrays[name]).sum()) for name in names}
    odd = [name for name, number in counts.items() if number]
    if not odd:
        return ""
    size = double(a.arrays[odd[0]]).size
    others = f", and in {count(len(odd) - 1, 'more array')}" if len(odd) > 1 else ""
    return f"both have NaN at {counts[odd[0]]:,} of {size:,} places of {odd[0]!r}{others}: nothing is proven there"


def without_elements(names: Sequence[str]) -> str:
    """List arrays without elements on both sides, as of a detector that finds nothing; "" for none."""
    return f"{some(names)} without elements in both: nothing to compare, not judged" if names else ""


def random_outputs(check: str, a: Recording, b: Recording, differ: bool) -> str:
    """Say whose outputs depend on random numbers."""
    names = " and ".join(r.label for r in (a, b) if r.random)
    mode = "in evaluation mode" if check in ACTIVATIONS else "in training, beside dropout"
    what = f"what {'differs' if differ else 'agrees'} may be chance"
    return f"the outputs of {names} depend on random numbers {mode}: {what}"


def join(*sentences: str) -> str:
    """Join sentences, each once."""
    return "; ".join(dict.fromkeys(filter(None, sentences)))


def drowned_by_rounding(dtype: str, what: str) -> str:
    """Say that rounding is as large as the values of these arrays."""
    if dtype == "float64":
        return f"these runs amplify rounding to the size of {what} (fewer steps or a larger batch amplify less)"
    return f"in {dtype}, rounding errors are as large as the values of {what} in every framework"
