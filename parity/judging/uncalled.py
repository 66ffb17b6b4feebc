"""Describe a pair whose arrays do not correspond: what one side alone has, and which modules it never calls."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import specs
from parity.given.own import OWN
from parity.given.quoting import some
from parity.results.elements import Worst, worst
from parity.results.result import Divergence, Result
from parity.running.recording import ACTIVATIONS, Recording
from specs.notation.folding import fold
from specs.notation.paths import normal
from specs.words import in_a_row


def incomparable(unjudged: Result, a: Recording, b: Recording, everyone: Sequence[Recording]) -> Result:
    """Return the result of a pair whose arrays do not correspond: the first that one side lacks, and the one before."""
    odd = {r.label: [n for n in r.arrays if n not in other.arrays] for r, other in ((a, b), (b, a))}
    first, before = _first_alone(a, b)
    word = "not called" if unjudged.check in ACTIVATIONS else "missing"
    if first and unjudged.check in ACTIVATIONS and a.architecture == b.architecture != OWN:
        lacking = [(other, odd[r.label]) for r, other in ((a, b), (b, a)) if odd[r.label]]
        said = [_uncalled(r, names, everyone) for r, names in sorted(lacking, key=lambda side: first not in side[1])]
        why = f": {_why_uncalled(first, a)}" if _has_layer(first, a) and not _is_again(first) else ""
        cause = "; ".join([said[0] + why, *said[1:]])
        word = "fewer calls" if _is_again(first) else word if _has_layer(first, a) else "extra call"
    else:
        cause = "; ".join(f"only {label} has {some(names)}" for label, names in odd.items() if names)
        cause = cause or "nothing to compare: no side has any array"
    previous = (before, worst(a.arrays[before], b.arrays[before]).error) if before else None
    nothing = Worst(math.inf, cause=cause, word=word)
    divergence = Divergence.at(first, nothing, 0.0, previous) if first else None
    return replace(unjudged, error=math.inf, tolerance=None, passed=False, first_divergence=divergence, cause=cause)


def _first_alone(a: Recording, b: Recording) -> tuple[str | None, str | None]:
    """Return the first array that one side alone has, and the array before it that both have.

    Where each side has one: the earlier one; of two at one place a module's first call rather than a further one.
    """
    firsts = []
    for side, (r, other) in enumerate(((a, b), (b, a))):
        names = list(r.arrays)
        at = next((k for k, name in enumerate(names) if name not in other.arrays), None)
        if at is not None:
            firsts.append((at, _is_again(names[at]), side, names[at], names[at - 1] if at else None))
    return min(firsts)[3:] if firsts else (None, None)


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
