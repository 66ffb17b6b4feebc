"""Judge recordings pair by pair: which array differs first, by how much, and whether the model or its dtype is why."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import specs
from ports.runners.inputs import OUTPUT
from specs.folding import fold
from specs.kinds import STATISTICS
from specs.paths import normal
from specs.words import in_a_row

from . import remarks
from .agreement import Verdict
from .elements import Worst, double, worst
from .masks import judge_masks
from .own import OWN
from .quoting import pair_of, possessive, some
from .recording import ACTIVATIONS, Recording
from .result import Divergence, Result
from .tolerance import FLOAT64
from .training_settings import unlike
from .verdicts import noise_of, verdicts_of

PAIR = "give modules common names, and leave out those that correspond to none (names=)"
POOLED = 1e-6  # relative: several poolings of paddle, of which each rounds its 1/n to float32 (6e-8)


@dataclass(frozen=True)
class Subject:
    """What is compared, as every result states it; `assumed` has the settings that nobody states: "gelu=erf"."""

    architecture: str
    variant: str
    check: str
    dtype: str
    device: str
    assumed: tuple[str, ...] = ()

    def unjudged(self, a: Recording, b: Recording) -> Result:
        """Return the result of a pair before it is judged: nothing but what is compared."""
        return Result(
            self.architecture, self.variant, self.check, self.dtype, self.device, pair_of(a.label, b.label),
            error=None, tolerance=None, passed=None, sides=(a.label, b.label),
            files=(a.file, b.file) if a.file and b.file else (), parts=(a.part, b.part), assumed=self.assumed,
            spelled={r.label: r.spelled for r in (a, b)},
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
    pairing = _correspond(s.check, a, b)
    if not pairing.names:
        return _incomparable(unjudged, a, b, everyone)
    return _compare(unjudged, s, a, b, [r for r in everyone if not r.cause], pairing)


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
        lists = [f"{some(odd)} of other shapes"] * bool(odd) + [*self.alone]
        return f"{self.why}, for want of an array of the same name and shape: {'; '.join(lists)}" if lists else ""


def _required(check: str, name: str) -> bool:
    """Tell whether both sides must have an array, in one shape: losses, what the model returns, its inputs."""
    if check == "train":
        return name.endswith(": losses")
    whole = ("output",) if check in ACTIVATIONS else ("output", "loss", "images")
    return name.partition(":")[0] in whole


def _correspond(check: str, a: Recording, b: Recording) -> Pairing:
    """Pair arrays by name and shape.

    Modules may be split differently (fused query, key and value): what has no partner is listed, and the outputs
    decide. Return no pairs if an output has no partner, if there is no output, or if two ports of one architecture have
    different taps, which are the same by contract.
    """
    both = [n for n in a.arrays if n in b.arrays]
    same = [n for n in both if _required(check, n) or np.shape(a.arrays[n]) == np.shape(b.arrays[n])]
    strict = check in ACTIVATIONS and (
        a.architecture == b.architecture != OWN or not any(_required(check, n) for n in same)
    )
    unpaired = [n for n in [*a.arrays, *b.arrays] if n not in both]
    if any(strict or _required(check, n) for n in unpaired):
        return Pairing([])
    if strict:
        return Pairing(both)
    odd = [n for n in both if n not in same]
    shapes = tuple(n for n in odd if not a.tabled or _unlike(a.arrays[n], b.arrays[n])) if check in ACTIVATIONS else ()
    alone = [
        f"{possessive(r.label)} {some(_without_run(check, names))}"
        for r, other in ((a, b), (b, a))
        if (names := [n for n in r.arrays if n not in other.arrays])
    ]
    paired = check == "gradients" and _same_values(a.truth or a, b.truth or b, same)
    why = "compared by their sorted values alone" if paired else "not compared"
    unproven = check == "gradients" and not paired
    return Pairing(same, shapes, tuple(alone), tuple(_without_run(check, odd)), why, unproven)


def _unlike(left: np.ndarray, right: np.ndarray) -> bool:
    """Tell whether a pair of a Table's modules returns other shapes because it computes something else.

    The same values may stand along other axes or in another order of them, as those of tokens in a grid and in a row.
    """
    return np.ndim(left) == np.ndim(right) and np.size(left) != np.size(right)


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


def _incomparable(unjudged: Result, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    """Return the result of a pair whose arrays do not correspond: the first that one side lacks, and the one before."""
    odd = {r.label: [n for n in r.arrays if n not in other.arrays] for r, other in ((a, b), (b, a))}
    first, before = _first_alone(a, b)
    if first and unjudged.check in ACTIVATIONS and a.architecture == b.architecture != OWN:
        lacking = [(other, odd[r.label]) for r, other in ((a, b), (b, a)) if odd[r.label]]
        said = [_uncalled(r, names, everyone) for r, names in sorted(lacking, key=lambda side: first not in side[1])]
        why = f": {_why_uncalled(first, a)}" if _has_layer(first, a) and not _is_again(first) else ""
        cause = "; ".join([said[0] + why, *said[1:]])
    else:
        cause = "; ".join(f"only {label} has {some(names)}" for label, names in odd.items() if names)
        cause = cause or "nothing to compare: no side has any array"
    previous = (before, worst(a.arrays[before], b.arrays[before]).error) if before else None
    nothing = Worst(math.inf, cause=cause, word="not called" if unjudged.check in ACTIVATIONS else "missing")
    divergence = Divergence.at(first, nothing, 0.0, previous) if first else None
    return replace(unjudged, error=math.inf, tolerance=None, passed=False, first_divergence=divergence, cause=cause)


def _first_alone(a: Recording, b: Recording) -> tuple[str | None, str | None]:
    """Return the first array that one side alone has, and the array before it that both have.

    Where each side has one: the earlier one; of two at one place a module's first call rather than a further one.
    """
    found = []
    for side, (r, other) in enumerate(((a, b), (b, a))):
        names = list(r.arrays)
        at = next((k for k, name in enumerate(names) if name not in other.arrays), None)
        if at is not None:
            found.append((at, _is_again(names[at]), side, names[at], names[at - 1] if at else None))
    return min(found)[3:] if found else (None, None)


def _is_again(name: str) -> bool:
    """Tell whether a tap is a further call of a module: "norm#1" is the second one."""
    return "#" in name


def _uncalled(r: Recording, names: Sequence[str], everyone: Sequence[Recording]) -> str:
    """Say which modules a port never calls, and which ports do: "torch never calls 'norm'; flax and paddle do"."""
    paths = list(dict.fromkeys(name.partition(" <- ")[0] for name in names))
    again = {path.partition("#")[0] for path in paths if _is_again(path) and path.partition("#")[0] not in paths}
    never = [path for path in paths if not _is_again(path)]
    said = [_called_less(r, sorted(again), everyone)] if again else []
    if not never:
        return said[0]
    callers = [other.label for other in everyone if never[0] in other.arrays]
    modules = some(fold(never))
    if _has_layer(never[0], r):
        never_calls = f"{r.label} never calls {modules}; {in_a_row(callers)} {'do' if callers[1:] else 'does'}"
        return "; ".join([never_calls, *said])
    others = [other.label for other in everyone if not other.cause and never[0] not in other.arrays]
    calls, do = "call" if callers[1:] else "calls", "do" if others[1:] else "does"
    where = f"{in_a_row(callers)} {calls} {modules}, where the page has no layer; {in_a_row(others)} {do} not"
    return "; ".join([where, *said])


def _called_less(r: Recording, paths: Sequence[str], everyone: Sequence[Recording]) -> str:
    """Say which modules a port calls less often than others: "flax calls 'norm' once, torch twice ('norm#1')"."""
    numbers = {other.label: _calls(other, paths[0]) for other in everyone if not other.cause}
    more = [label for label, number in numbers.items() if number > numbers[r.label]]
    times = _times(max(numbers[label] for label in more))
    again = f"{paths[0]}#{numbers[r.label]}"
    return (
        f"{r.label} calls {some(fold(paths))} {_times(numbers[r.label])}, {in_a_row(more)} {times} "
        f"({again!r} is call {numbers[r.label] + 1} of one module)"
    )


def _calls(r: Recording, path: str) -> int:
    """Count the calls of a module."""
    return sum(name == path or re.fullmatch(re.escape(path) + r"#\d+", name) is not None for name in r.arrays)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _has_layer(name: str, r: Recording) -> bool:
    """Tell whether the page has a layer at or below a tap; True where a recording does not know."""
    path = name.partition(" <- ")[0].partition("#")[0].partition(":")[0]
    return not r.kinds or any(f"{layer}.".startswith(f"{path}.") for layer in r.kinds)


def _why_uncalled(name: str, r: Recording) -> str:
    """Say why a port may have no output of a module that another one calls."""
    why = "its forward leaves it out, or computes with the layer's arrays itself"
    maps = specs.get(r.architecture).feature_maps if r.architecture in specs.names() else ()
    path = normal(name.partition("#")[0])
    if path in map(normal, maps):
        return f"{why}, or feature_maps, which lists it, names what some frameworks alone call, such as a list"
    return why


def _compare(
    unjudged: Result, s: Subject, a: Recording, b: Recording, everyone: Sequence[Recording], pairing: Pairing
) -> Result:
    shapes = {name: (np.shape(a.arrays[name]), np.shape(b.arrays[name])) for name in pairing.names}
    names = [name for name, (one, other) in shapes.items() if one != other or 0 not in one]
    void = remarks.void([name for name in shapes if name not in names])

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
        return without_verdict(remarks.random(s.check, a, b, bool(off)), void)
    if not judged:
        drowned = remarks.drowned(s.dtype, f"all {len(names)} arrays" if len(names) > 1 else "the one array")
        return without_verdict(drowned, void, nans)
    nearest = max(judged.values(), key=lambda verdict: verdict.ratio)
    empty = "" if off else nans or _proves_nothing(s.check, a, b, replace(pairing, names=names))
    first = _divergence(off, judged, pairing.shapes, s, a, b) if off else None
    shape = first if first is not None and first not in judged else None  # what differs first, in its shape
    unpaired = pairing.without(shape or "")
    beside = [void, *remarks.remarks(s.dtype, a, b, names, unpaired, judged, nans)]
    beside = [void, remarks.origins(a, b)] if empty and empty == nans else beside  # the reason alone
    curve, rounding = _curve(judged, noise, a, None if shape is None else str(shape), nearest.limit)
    return replace(
        unjudged,
        error=nearest.worst.error if shape is None else math.inf,
        tolerance=nearest.limit,
        basis=nearest.reason,
        passed=None if empty else not off,
        first_divergence=first,
        cause=remarks.join(empty, *beside),
        remarks=tuple(dict.fromkeys(filter(None, beside))),
        curve=tuple(curve),
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
    most: float,
) -> tuple[list[tuple[str, float, float]], dict[str, list[float]]]:
    """Return (array, error, limit) of each array that is judged, and the errors of rounding by label, in that order.

    Args:
      shape: the array that differs in its shape first, which stands where it runs. most: the limit that it gets.
    """
    curve = [(name, verdict.worst.error, verdict.limit) for name, verdict in judged.items()]
    rounding = {label: [errors[name] for name in judged] for label, errors in noise.items()}
    if shape is not None:
        at = next((k for k, name in enumerate(a.arrays) if name == shape), 0)
        place = sum(name in judged for name in [*a.arrays][:at])
        curve.insert(place, (shape, math.inf, most))
        for errors_of in rounding.values():
            errors_of.insert(place, math.nan)
    return curve, rounding


def _proves_nothing(check: str, a: Recording, b: Recording, pairing: Pairing) -> str:
    """Say why an agreement shows nothing of the models, "" if it does."""
    whole = [name for name in pairing.names if _required(check, name) and not name.startswith("images")]
    others = any(not _required(check, name) for name in pairing.names)
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
    from .causes import guess, place, unequal_weights, unlisted_maps

    order = [name for name in a.arrays if name in judged or name in shapes]
    name = next(name for name in order if name in off or name in shapes)
    if name in shapes:
        sides = worst(a.arrays[name], b.arrays[name]).between(a.label, b.label)
        looks = guess(name, s.check, a, b)
        lies = "" if looks else place(name, s.check, a, b)
        return Divergence.at(name, sides, 0.0, _before(name, order, judged), looks, lies)
    verdict = judged[name]
    agree = OUTPUT in judged and OUTPUT not in off
    cause = (agree and s.check in ACTIVATIONS and unlisted_maps(off, a, b)) or guess(name, s.check, a, b)
    lies = "" if cause else place(name, s.check, a, b)
    before, weights = _before(name, order, judged), unequal_weights(name, a, b)
    returned = _returned(s.check, name, a, b, verdict.limit)
    between = _between(name, before, a, b) if s.check in ACTIVATIONS else ()
    sick = (f"{r.holds} in {r.label}" for r in (a, b) if r.holds)
    holds = "; ".join(sick) if verdict.worst.cause else ""
    return Divergence.at(
        name, verdict.worst, verdict.limit, before, cause, lies, weights, verdict.reason, returned, between, holds,
        _momentum(off, a, b), _pooling(s, verdict.worst.error, a, b),
    )  # fmt: skip


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
    found = []
    for r, other in ((a, b), (b, a)):
        order = list(r.arrays)
        start = order.index(before[0]) + 1 if before else 0
        found.append((r.label, tuple(tap for tap in order[start : order.index(name)] if tap not in other.arrays)))
    return tuple((label, alone) for label, alone in found if alone)


def _returned(check: str, name: str, a: Recording, b: Recording, limit: float) -> bool:
    """Tell whether an array of training that differs is an output or a loss that no gradient has changed yet."""
    if check == "train" and name.endswith(": losses"):
        return worst(np.ravel(a.arrays[name])[:1], np.ravel(b.arrays[name])[:1]).error > limit
    return check == "gradients" and _required(check, name) and not name.startswith("images")


def _before(name: str, order: Sequence[str], judged: Mapping[str, Verdict]) -> tuple[str, float] | None:
    earlier = [other for other in order[: order.index(name)] if other in judged]
    return (earlier[-1], judged[earlier[-1]].worst.error) if earlier else None
