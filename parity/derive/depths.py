"""Compare how many blocks both models have, which explains why nothing else of them corresponds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from specs.words import in_a_row

DEPTHS = "the depths differ"  # why parameters have no line
LAYER = 2  # arrays that a layer has: a weight and a bias
NUMBER = re.compile(r"(?<=[./_])\d+(?=[./])")


def differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    """Say that two models have as many lists of blocks, of different lengths; "" where that is not clear.

    Args:
      left, right: arrays by name.
    """
    left_depths, right_depths = depths(left), depths(right)
    if len(left_depths) < len(right_depths):  # a list of one block, it may be
        left_depths = depths(left, single=True)
    elif len(right_depths) < len(left_depths):
        right_depths = depths(right, single=True)
    if (
        not left_depths
        or len(left_depths) != len(right_depths)
        or sorted(left_depths.values()) == sorted(right_depths.values())
    ):
        return ""
    remedy = "build both of one depth" if len(left_depths) == 1 else "build both with lists of the same lengths"
    return f"the left model has {_listed(left_depths, ' block')}, the right one {_listed(right_depths)}: {remedy}"


def _listed(lists: Mapping[str, int], noun: str = "") -> str:
    """Return "6 blocks in encoder and 4 in decoder"."""
    nouns = {place: noun and noun + "s" * (length != 1) for place, length in list(lists.items())[:1]}
    return in_a_row(f"{length}{nouns.get(place, '')} in {place}" for place, length in lists.items())


def depths(arrays: Mapping[str, Any], single: bool = False) -> dict[str, int]:
    """Return {place of a list of blocks: its length}: numbered in names, or stacked along the first axis.

    Args:
      single: whether one block of more arrays than a layer has is a list as well.
    """
    numbers: dict[str, dict[str, set[str]]] = {}
    inside: dict[str, list[tuple[int, ...]]] = {}
    for name, array in arrays.items():
        if at := NUMBER.search(name):
            blocks = numbers.setdefault(name[: at.start()].rstrip("./_"), {})
            blocks.setdefault(at[0], set()).add(name[at.end() :])
        else:
            for cut in (m.start() for m in re.finditer("/", name)):
                inside.setdefault(name[:cut], []).append(tuple(array.shape))
    found = {place: len(blocks) for place, blocks in numbers.items() if _alike(list(blocks.values()), single)}
    stacked = {place: shapes[0][0] for place, shapes in inside.items() if _stacked(shapes)}
    outer = {place: n for place, n in stacked.items() if not any(place.startswith(f"{one}/") for one in stacked)}
    return {**found, **outer}


def _alike(blocks: list[set[str]], single: bool) -> bool:
    """Tell whether at least two blocks have arrays of the same names, each several of them.

    Args:
      single: see depths.
    """
    if single and len(blocks) == 1:
        return len(blocks[0]) > LAYER
    return len(blocks) > 1 and all(block == blocks[0] and len(block) > 1 for block in blocks)


def _stacked(shapes: list[tuple[int, ...]]) -> bool:
    """Tell whether arrays of several layers are stacked: even biases have two axes, and all share the first."""
    ranks = {len(shape) for shape in shapes}
    return len(shapes) > 2 and min(ranks) == 2 and max(ranks) > 2 and len({shape[0] for shape in shapes}) == 1
