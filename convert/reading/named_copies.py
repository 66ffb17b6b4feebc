"""Find copies of weights (averages, earlier ones) beside the weights, by the names of arrays alone.

A copy lies in a container with a word such as "ema" in its name, and in that arrays are named as the weights are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

from .nesting import COPIES, LEAST, LIVE, LONGEST, SEPARATOR, copied_place, cuts, has_word, training, unwrapped

COUNTS = {"n_averaged", "num_updates", "updates", "count"}  # beside a copy: how often it was averaged
SETTINGS = {"decay"}  # beside a copy, of latent diffusion's LitEma: how it is averaged
ALIKE = 32  # weights of one end that are looked at
NESTS = {level for place in LIVE for level in place.split("/")}  # levels that hold the weights, in a copy as elsewhere


def copies(
    names: Iterable[str], weights: Collection[str], words: Collection[str] = COPIES, known: str = ""
) -> dict[str, dict[str, str]]:
    """Find where copies of these weights may lie: {place with one of the words: {name in it: its weight or ""}}.

    Args:
      known: a place of a copy whose name has none of the words.
    """
    listed = list(names)
    places = _by_place(listed, words)
    if inside := [name for name in listed if known and name.startswith(known)]:
        places[known] = inside
    ends = _Ends(weights if places else ())
    return {place: dict.fromkeys(inside, "") | ends.pairs(place, inside)[1] for place, inside in places.items()}


def likely_places(names: Iterable[str]) -> set[str]:
    """Return the places of copies where nobody says what the weights are.

    Most names in such a place are those of other arrays, too. These names are many, or half of those outside of it. A
    few names without levels may be those of a layer.
    """
    every = [name for name in names if not training(name)]
    places = _by_place(every, COPIES)
    inside = {name for group in places.values() for name in group}
    others = [name for name in every if name not in inside]
    least = min(LEAST, len(others) / 2)
    places = {place: group for place, group in places.items() if len(group) >= least}
    ends = _Ends(others if places else ())

    def is_copy(place: str, group: list[str]) -> bool:
        before, pairs = ends.pairs(place, group)
        nested = any(SEPARATOR.search(unwrapped(weight), len(before)) for weight in pairs.values())
        return len(pairs) >= max(least, len(group) / 2) and (nested or len(pairs) >= LEAST)

    return {place for place, group in places.items() if is_copy(place, group)}


def _by_place(names: Iterable[str], words: Collection[str]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for name in names:
        if place := copied_place(name, words):
            places.setdefault(place, []).append(name)
    return places


class _Ends:
    """The ends of the weights' names, by which the names in a copy are recognised."""

    def __init__(self, weights: Iterable[str]):
        self._ends: dict[str, list[tuple[str, str]]] = {}  # an end without separators -> what precedes it, the weight
        for weight in weights:
            name = unwrapped(weight)
            for cut in cuts(name) if len(name) <= LONGEST else ():
                alike = self._ends.setdefault(SEPARATOR.sub("", name[cut:]), [])
                if len(alike) < ALIKE:  # bounds time: each is compared with each name of that end
                    alike.append((name[:cut], weight))

    def pairs(self, place: str, names: Iterable[str]) -> tuple[str, dict[str, str]]:
        """Return {name in a place: weight} for the largest number of arrays, and what precedes the weights' ends.

        One beginning is replaced by another one in all names: "ema/params/" by "params/".
        """
        by_pair: dict[tuple[str, str], dict[str, str]] = {}
        for name in names:
            rest = unwrapped(name[len(place) :])
            for cut in _nested(rest) if len(rest) <= LONGEST else ():
                for before, weight in self._ends.get(SEPARATOR.sub("", rest[cut:]), ()):
                    by_pair.setdefault((rest[:cut], before), {})[name] = weight
        (_, before), best = max(by_pair.items(), key=lambda one: len(one[1]), default=(("", ""), {}))
        return before, best


def _nested(rest: str) -> Iterator[int]:
    """Yield positions in a name below the place of a copy at which that of a weight may begin."""
    yield 0
    for before, start in pairwise(cuts(rest)):
        level = rest[before : start - 1]
        if level not in NESTS and not has_word(level):
            return
        yield start
