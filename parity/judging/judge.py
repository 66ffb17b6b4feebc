"""Judge recordings pair by pair: which array differs first, by how much, and whether the model or its dtype is why."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.given.quoting import pair_of, possessive, some
from parity.results.elements import Worst, double, worst
from parity.results.result import Divergence, Result
from parity.running.recording import ACTIVATIONS, Recording
from parity.running.training_settings import unlike
from ports.runners.inputs import OUTPUT
from specs.kinds import STATISTICS

from . import remarks
from .agreement import Verdict
from .masks import judge_masks
from .pairing import Pairing, correspond, required
from .uncalled import incomparable
from .verdicts import noise_of, verdicts_of

PAIR = "give modules common names, and leave out those that correspond to none (names=)"
POOLED = 1e-6  # relative: several poolings of paddle, of which each rounds its 1/n to float32 (6e-8)


@dataclass(frozen=True)
class Subject:
    """What is compared, as every result states it.

    assumed: the settings that nobody states: "gelu=erf".  suggested: those that the code of the file's dialect states.
    """

    architecture: str
    variant: str
    check: str
    dtype: str
    device: str
    assumed: tuple[str, ...] = ()
    suggested: tuple[str, ...] = ()

    def unjudged(self, a: Recording, b: Recording) -> Result:
        """Return the result of a pair before it is judged: nothing but what is compared."""
        return Result(
            self.architecture, self.variant, self.check, self.dtype, self.device, pair_of(a.label, b.label),
            error=None, tolerance=None, passed=None, sides=(a.label, b.label),
            files=(a.file, b.file) if a.file and b.file else (), parts=(a.part, b.part), assumed=self.assumed,
            suggested=self.suggested, spelled={r.label: r.spelled for r in (a, b)},
        )  # fmt: skip


def judge(subject: Subject, recordings: Sequence[Recording]) -> list[Result]:
    """Return a result for every pair; the first of a pair is the reference."""
    recordings = [_with_zeros(recording, recordings) for recording in recordings]
    labels = [recording.label for recording in recordings]
    pairs = itertools.combinations(recordings, 2)
    return [replace(_judge_pair(subject, a, b, recordings), pair=pair_of(a.label, b.label, labels)) for a, b in pairs]


def _with_zeros(r: Recording, everyone: Sequence[Recording]) -> Recording:
    """Return a recording in which arrays that take no gradient have one of 0, where another model's same ones have one.

    An array that is frozen on one side alone is a difference: it stays as it is where the other one is trained.
    """
    shapes = {name: np.shape(array) for other in everyone for name, array in other.arrays.items()}
    names = [name for name, shape in r.untrained.items() if name not in r.arrays and shapes.get(name) == shape]
    if not names:
        return r
    note = f"{possessive(r.label)} {some(names)}: no gradient is taken (frozen, or no parameter), which counts as zero"
    zeros = {name: np.zeros(shapes[name]) for name in names}
    truth = r.truth and replace(r.truth, arrays={**r.truth.arrays, **zeros})
    return replace(r, arrays={**r.arrays, **zeros}, truth=truth, notes=[*r.notes, note])


def _judge_pair(s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    unjudged = s.unjudged(a, b)
    missing = [r for r in (a, b) if r.cause]
    if missing:
        failed = any(not r.unable for r in missing)
        cause = "; ".join(r.cause if r.cause.startswith(r.framework) else f"{r.label}: {r.cause}" for r in missing)
        why = tuple((r.label, r.cause) for r in missing)
        error, passed = (math.inf, False) if failed else (None, None)
        return replace(unjudged, error=error, passed=passed, cause=cause, missing=why)
    arrays = _judge_arrays(unjudged, s, a, b, everyone)
    if a.masks is None and b.masks is None:
        return arrays
    return judge_masks(arrays, a, b)


def _judge_arrays(unjudged: Result, s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    pairing = correspond(s.check, a, b)
    if not pairing.names:
        return incomparable(unjudged, a, b, everyone)
    result = _compare(unjudged, s, a, b, [r for r in everyone if not r.cause], pairing)
    return replace(result, holds=_holds(a, b)) if result.passed is None and result.nans else result


def _compare(
    unjudged: Result, s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording], pairing: Pairing
) -> Result:
    shapes = {name: (np.shape(a.arrays[name]), np.shape(b.arrays[name])) for name in pairing.names}
    names = [name for name, (one, other) in shapes.items() if one != other or 0 not in one]
    void = remarks.without_elements([name for name in shapes if name not in names])

    def without_verdict(*why: str) -> Result:
        return replace(unjudged, cause=remarks.join(*why, pairing.unpaired, *remarks.notes(a, b)))

    if not names:
        return without_verdict(void)
    noise = noise_of(s.check, a, everyone, names)
    verdicts = verdicts_of(s.check, a, b, everyone, names, noise)
    judged = {name: verdicts[name] for name in names if verdicts[name].judged}
    off = [name for name, verdict in judged.items() if verdict.off]
    nans = remarks.nans(a, b, names)
    if a.random or b.random:
        return without_verdict(remarks.random_outputs(s.check, a, b, bool(off)), void)
    if not judged:
        what = f"all {len(names)} arrays" if len(names) > 1 else "the one array"
        return without_verdict(remarks.drowned_by_rounding(s.dtype, what), void, nans)
    nearest = max(judged.values(), key=lambda verdict: verdict.ratio)
    empty = "" if off else nans or _proves_nothing(s.check, a, b, replace(pairing, names=names))
    first = _divergence(off, judged, pairing.shapes, s, a, b) if off else None
    shape = first if first is not None and first not in judged else None  # what differs first, in its shape
    notes = [void, *remarks.remarks(s.dtype, a, b, names, pairing.without(shape or ""), judged, nans)]
    notes = [void, remarks.origins(a, b)] if empty and empty == nans else notes  # the reason alone
    curve, reasons, rounding = _curve(judged, noise, a, None if shape is None else str(shape), nearest)
    return replace(
        unjudged,
        error=nearest.worst.error if shape is None else math.inf,
        tolerance=nearest.limit,
        basis=nearest.reason,
        passed=None if empty else not off,
        first_divergence=first,
        cause=remarks.join(empty, *notes),
        remarks=tuple(dict.fromkeys(filter(None, notes))),
        curve=tuple(curve),
        reasons=tuple(reasons),
        noise={label: tuple(errors_of) for label, errors_of in rounding.items()},
        copies=tuple(name for name, v in judged.items() if v.copies),
        unjudged=tuple(name for name in names if name not in judged),
        shapes=tuple(name for name, *_ in curve if np.shape(a.arrays[name]) != np.shape(b.arrays[name])),
        nans=tuple(name for name in judged if any(np.isnan(double(r.arrays[name])).any() for r in (a, b))),
    )


def _curve(
    judged: Mapping[str, Verdict],
    noise: Mapping[str, Mapping[str, float]],
    a: Recording,
    shape: str | None,
    nearest: Verdict,
) -> tuple[list[tuple[str, float, float]], list[str], dict[str, list[float]]]:
    """Return (array, error, limit) of each array that is judged, in that order the reasons of the limits, and the
    errors of rounding by label.

    Args:
      shape: the array that differs in its shape first, which stands where it runs. nearest: whose limit it gets.
    """
    curve = [(name, verdict.worst.error, verdict.limit) for name, verdict in judged.items()]
    reasons = [verdict.reason for verdict in judged.values()]
    rounding = {label: [errors[name] for name in judged] for label, errors in noise.items()}
    if shape is not None:
        at = next((k for k, name in enumerate(a.arrays) if name == shape), 0)
        place = sum(name in judged for name in [*a.arrays][:at])
        curve.insert(place, (shape, math.inf, nearest.limit))
        reasons.insert(place, nearest.reason)
        for errors_of in rounding.values():
            errors_of.insert(place, math.nan)
    return curve, reasons, rounding


def _proves_nothing(check: str, a: Recording, b: Recording, pairing: Pairing) -> str:
    """Say why an agreement shows nothing of the models, "" if it does."""
    whole = [name for name in pairing.names if required(check, name) and not name.startswith("images")]
    others = any(not required(check, name) for name in pairing.names)
    if check in ("layers", "single-step"):
        alone = pairing.unpaired and not others
        return "the outputs agree, and no layer was compared: give the layers common names (names=)" if alone else ""
    if pairing.unproven:
        return f"the gradients of parameters without a partner are not the same values: {PAIR}"
    if check == "train" and pairing.unpaired and not others and all(np.size(a.arrays[name]) < 2 for name in whole):
        return f"the losses before any step agree, and no trained array was compared: {PAIR}, or take more steps"
    if any(np.any(r.arrays[name]) for r in (a, b) for name in whole):
        return ""
    zero = f"{some(whole)} {'are' if whole[1:] else 'is'} zero in both, whatever their other layers compute"
    return f"{zero}: nothing is proven (are heads untrained?)"


def _divergence(
    off: Sequence[str], judged: Mapping[str, Verdict], shapes: Sequence[str], s: Subject, a: Recording, b: Recording
) -> Divergence:
    """Describe the first array that differs, in its values or in its shape."""
    from parity.causes.guessing import guess, place, unlisted_maps
    from parity.causes.unequal_layers import unequal_weights

    order = [name for name in a.arrays if name in judged or name in shapes]
    name = next(name for name in order if name in off or name in shapes)
    if name in shapes:
        sides = worst(_as_it_is(name, a), _as_it_is(name, b)).between(a.label, b.label)
        looks = guess(name, s.check, a, b)
        lies = "" if looks else place(name, s.check, a, b)
        return Divergence.at(name, sides, 0.0, _before(name, order, judged), looks, lies)
    verdict = judged[name]
    agree = OUTPUT in judged and OUTPUT not in off
    cause = (agree and s.check in ACTIVATIONS and unlisted_maps(off, a, b)) or guess(name, s.check, a, b)
    lies = "" if cause else place(name, s.check, a, b)
    before, weights = _before(name, order, judged), unequal_weights(name, a, b, known=bool(cause))
    returned = _returned(s.check, name, a, b, verdict.limit)
    between = _between(name, before, a, b) if s.check in ACTIVATIONS else ()
    holds, starts = (_holds(a, b, named=True), remarks.origins(a, b)) if verdict.worst.cause else ("", "")
    first = _indexed(name, verdict.worst, a, b)
    return Divergence.at(
        name, first, verdict.limit, before, cause, lies, weights, verdict.reason, returned, between, holds,
        _momentum(off, a, b), _pooling(s, verdict.worst.error, a, b), starts,
    )  # fmt: skip


def _holds(a: Recording, b: Recording, named: bool = False) -> str:
    """Say which parameter brings in NaN: "dense.bias holds NaN"; if `named`, or both are not alike, in which model."""
    if a.holds == b.holds and not named:
        return a.holds
    return "; ".join(f"{r.holds} in {r.label}" for r in (a, b) if r.holds)


def _as_it_is(name: str, r: Recording) -> np.ndarray:
    """Return an array with its axes in the order of the model itself."""
    return r.views[name].back(r.arrays[name]) if name in r.views else r.arrays[name]


def _indexed(name: str, worst: Worst, a: Recording, b: Recording) -> Worst:
    """Return the worst element with its index in the first model's own array."""
    if name not in a.views or not worst.index:
        return worst
    return replace(worst, index=a.views[name].place(worst.index)).between(a.label, b.label)


def _momentum(off: Sequence[str], a: Recording, b: Recording) -> str:
    """State the momentum of BatchNorm in two models where it differs, and running statistics alone differ."""
    alone = all(re.split("[./]", name)[-1] in STATISTICS for name in off)
    return unlike(a.momenta, b.momenta, (f"in {a.label}", f"in {b.label}")) if alone else ""


def _pooling(s: Subject, error: float, a: Recording, b: Recording) -> str:
    """Name the side of paddle where gradients in float64 differ by as little as its average pooling rounds."""
    paddle = [r.label for r in (a, b) if r.framework == "paddle"]
    is_small = s.check not in ACTIVATIONS and s.dtype == "float64" and error < POOLED
    return paddle[0] if is_small and len(paddle) == 1 else ""


def _between(
    name: str, before: tuple[str, float] | None, a: Recording, b: Recording
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """List what one side alone has between the array that differs first and the one before it, by its label."""
    alone_of = []
    for r, other in ((a, b), (b, a)):
        order = list(r.arrays)
        start = order.index(before[0]) + 1 if before else 0
        alone_of.append((r.label, tuple(tap for tap in order[start : order.index(name)] if tap not in other.arrays)))
    return tuple((label, alone) for label, alone in alone_of if alone)


def _returned(check: str, name: str, a: Recording, b: Recording, limit: float) -> bool:
    """Tell whether an array of training that differs is an output or a loss that no gradient has changed yet."""
    if check == "train" and name.endswith(": losses"):
        return worst(np.ravel(a.arrays[name])[:1], np.ravel(b.arrays[name])[:1]).error > limit
    return check == "gradients" and required(check, name) and not name.startswith("images")


def _before(name: str, order: Sequence[str], judged: Mapping[str, Verdict]) -> tuple[str, float] | None:
    earlier = [other for other in order[: order.index(name)] if other in judged]
    return (earlier[-1], judged[earlier[-1]].worst.error) if earlier else None
