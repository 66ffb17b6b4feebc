"""Replace numbers that operations read (epsilons, scales, limits), and run a tape with others in their place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from parity.derive.trace.tape import Tape
from specs.numbers import apart, measured
from specs.words import in_a_row

from .edit import SIDES, Valued, repeats, two_sided, widened
from .texts import Words

NEUTRAL = {"add": (0.0,), "mul": (1.0,), "other": (math.inf, -math.inf)}  # numbers without effect
MOST_CHANNELS = 4096  # of a head, whose root scales attention
ROUNDED = 1e-6  # difference of a root in float32
SINGLE = 6  # places of one number that are tried one by one
# What a number is, by the kind of the operation that reads it, and how a text begins that names it.
KINDS = {"mul": "factor", "add": "term", "other": "number"}
EPSILON = "epsilon"
WORDS = {EPSILON: "epsilon", "factor": "a factor of", "term": "a term of", "number": "the number"}


@dataclass(frozen=True)
class Change(Valued):
    """Put other numbers in some places of one side; its kind is a key of WORDS.

    Args:
      values: by the tape's constants that are replaced.
    """

    values: Mapping[int, float]

    def tape(self, tape: Tape) -> Tape:
        new = {number: np.full(np.shape(tape.constants[number]), value) for number, value in self.values.items()}
        return replace(tape, constants={**tape.constants, **new})


def changes(left: Tape, right: Tape, read: Sequence[Collection[int]] = ()) -> Iterator[Change]:
    """Yield changes that may make the sides equal: a number that one side reads more often, for one of the other.

    Then comes one of all numbers that the sides do not share, as where a limit is divided by and multiplied with; last,
    epsilons that are as many on both sides, as where two norms have each the other one's.

    Args:
      read: the constants of each side that are read before they part, if that is known: of these, the last come first,
        and the left side takes numbers of the right one too, as that may make both equal in all places at once.
    """
    left_numbers, right_numbers = numbers(left), numbers(right)
    sites = _sites(left), _sites(right)
    surplus = [_surplus(left_numbers, right_numbers), _surplus(right_numbers, left_numbers)]
    for side in (1, 0):
        for (kind, value), places in surplus[side].items():
            others = [other for (k, other) in surplus[1 - side] if k == kind] if side or read else []
            for other in (*others, *NEUTRAL[kind]):
                every = len(places) - len((right_numbers if side == 0 else left_numbers).get((kind, value), ()))
                near = [place for place in reversed(places) if place in read[side]] if read else places
                what = _kind(kind, value, other, other in others)
                known = surplus[1 - side].get((kind, other), ()) if other in others else places
                change = partial(_change, side, what, (value, other, other in others))
                # where one number of a side would stand for two of the other one, each place is for itself
                for some in _choices(places, near, every == len(places) <= len(known)):
                    sets = repeats(some[0], places, sites[side].__getitem__) if len(some) == 1 else []
                    wider = (change(alike) for alike in sets[1:] if len(alike) < len(places))
                    yield replace(change(some), wider=tuple(wider))
    yield from _together(surplus)
    if read:
        yield from _exchanged(left_numbers, right_numbers, read[1], sites[1])


def _exchanged(
    lefts: Mapping[tuple[str, float], Sequence[int]],
    rights: Mapping[tuple[str, float], Sequence[int]],
    read: Collection[int],
    sites: Mapping[int, str],
) -> Iterator[Change]:
    """Yield changes of each right epsilon near where the sides part to each left one, alone and in all such modules."""
    epsilons = [value for kind, value in lefts if _kind(kind, value, value, True) == EPSILON]
    for (kind, value), places in rights.items():
        near = [place for place in reversed(places) if place in read][:SINGLE]
        for other, place in itertools.product(epsilons, near):
            if other != value and _kind(kind, value, other, True) == EPSILON:
                sets = repeats(place, places, sites.__getitem__)
                yield widened(_change(1, EPSILON, (value, other, True), some) for some in sets)


def _change(side: int, kind: str, numbers: tuple[float, float, bool], places: Sequence[int]) -> Change:
    """Return a change of some places.

    Args:
      numbers: the present one, the new one, and whether the other side has it.
    """
    value, other, known = numbers
    words, times = _words(kind, side, value, other, known), len(places)
    values = dict.fromkeys(places, other)
    return Change(side, kind, words.what, values, both=words.both, times=times, more=times - 1)


def factor(side: int, values: Mapping[int, float], both: tuple[float, float], scale: bool) -> Change:
    """Return the change of numbers at several places by which something has the factor that it has on the other side.

    Args:
      values: the new numbers by their constants. both: the factors of the left and the right side. scale: see _words.
    """
    words = _words("factor", 0, *both, known=True, scale=scale)
    times = len(values)
    return Change(side, "factor", words.what, values, both=words.both, times=times, more=times - 1)


def _sites(tape: Tape) -> dict[int, str]:
    """Return the module that reads each constant first."""
    return {number: node.site for node in reversed(tape.nodes) for number in node.inputs}


def _together(surplus: Sequence[Mapping[tuple[str, float], list[int]]]) -> Iterator[Change]:
    """Yield the change of all numbers, if several, that the right side alone has to those of the left one alone."""
    lefts, rights = (sorted(side, key=lambda key: key[0]) for side in surplus)  # a stable sort
    if len(rights) < 2 or [kind for kind, _ in lefts] != [kind for kind, _ in rights]:
        return
    values, texts = dict[int, float](), list[str]()
    for (kind, left), key in zip(lefts, rights, strict=True):
        values |= dict.fromkeys(surplus[1][key], left)
        texts.append(_words(_kind(kind, key[1], left, True), 1, key[1], left, True).what)
    times, named = len(values), len(texts)
    yield Change(1, "number", in_a_row(texts), values, times=times, named=named, more=times - named)


def _choices(places: list[int], near: list[int], every: bool) -> Iterator[tuple[int, ...]]:
    """Yield all places, or each of the nearest alone; first what the counts on both sides suggest."""
    single = [(place,) for place in near[:SINGLE]] if len(places) > 1 else []
    yield from (tuple(places), *single) if every else (*single, tuple(places))


def _kind(operation: str, value: float, other: float, known: bool) -> str:
    """Tell what a number is, by the kind of the operation that reads it and its size."""
    small = operation == "add" and 0 < value <= 1e-2 and (0 < other <= 1e-2 or not known)
    return EPSILON if small else KINDS[operation]


def _words(kind: str, side: int, value: float, other: float, known: bool, scale: bool = False) -> Words:
    """Name a number and its side; both numbers, the left one first, where the other side has one too.

    Args:
      scale: whether it scales attention by one over a root.
    """
    what, numbers = WORDS[kind], (value, other) if known else (value,)
    rooted = kind == "factor" and (scale or any(math.isqrt(n := _channels(of)) ** 2 != n for of in numbers))
    if not known:
        root = _root(value) if rooted else ""
        text = apart(value, 1.0, least=_digits(value))[0] if kind == "factor" else measured(value, _digits(value))
        number = f"{text}{root}"
        return Words(f"{what} {number} on the {SIDES[side]}, which the {SIDES[1 - side]} does not have")
    first, second = (value, other) if side == 0 else (other, value)
    left, right = apart(first, second, least=_digits(first, second))
    if rooted:
        left, right = left + _root(first), right + _root(second)
    return Words(f"{what} {two_sided(left, right)}", both=(left, right))


def _digits(*values: float) -> int:
    """Return how many digits numbers are written with: those of code in full, roots and quotients with three."""
    return 6 if all(math.isclose(float(measured(value, 6)), value, rel_tol=ROUNDED * 1e-3) for value in values) else 3


def _root(value: float) -> str:
    """Return " (1/sqrt(8))" for a number that is one over a root of channels."""
    return f" (1/sqrt({n}))" if (n := _channels(value)) else ""


def _channels(value: float) -> int:
    """Return the integer of whose root a number is the reciprocal; 0 if there is none."""
    n = round(value**-2) if MOST_CHANNELS**-0.5 <= value < 1 else 0
    return n if abs(value * math.sqrt(n) - 1) < ROUNDED else 0


def numbers(tape: Tape) -> dict[tuple[str, float], list[int]]:
    """Return the single numbers that operations read: {(kind of operation, value): constants}."""
    groups: dict[tuple[str, float], list[int]] = {}
    for node in tape.nodes:
        for number in node.inputs if node.kind in NEUTRAL else ():
            array = tape.constants.get(number)
            if array is None or not np.size(array) or getattr(array, "dtype", np.dtype("O")).kind != "f":
                continue
            value = float(np.ravel(array)[0])
            if (np.asarray(array) == value).all():
                places = groups.setdefault((node.kind, value), [])
                if number not in places:
                    places.append(number)
    return groups


def _surplus(
    own: Mapping[tuple[str, float], list[int]], other: Mapping[tuple[str, float], list[int]]
) -> dict[tuple[str, float], list[int]]:
    return {key: places for key, places in own.items() if len(places) > len(other.get(key, ()))}
