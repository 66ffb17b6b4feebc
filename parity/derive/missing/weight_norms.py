"""Find weight normalization of one side alone: two arrays, a length and a direction, where the other has a weight."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from convert.folding import fold as folded
from specs.words import in_a_row

# The length and the direction, as torch and paddle call them, before and since parametrizations, and as people do
PAIRS = (("weight_g", "weight_v"), ("original0", "original1"), ("g", "v"))


def one_sided(left: Collection[str], right: Collection[str]) -> str:
    """Say which arrays of one side are lengths and directions of weights, where the other side has none; "" if none."""
    pairs = [_pairs(names) for names in (left, right)]
    if bool(pairs[0]) == bool(pairs[1]):
        return ""
    side = "left" if pairs[0] else "right"
    return f"{in_a_row(folded(pairs[0] or pairs[1]))} on the {side} alone"


def _pairs(names: Iterable[str]) -> list[str]:
    every = set(names)
    found = []
    for length, direction in PAIRS:
        ends = [name for name in every if re.search(rf"(?:^|[./]){length}$", name)]
        places = [name.removesuffix(length) for name in ends if name.removesuffix(length) + direction in every]
        found += [name for place in sorted(places) for name in (place + length, place + direction)]
    return found
