"""Complete a parameter of which nothing reads a part, or any element, as its siblings in other blocks are composed."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from parity.derive.trace.sites import numberless
from parity.derive.trace.tape import Array

from .symbols import Elements

NUMBER = re.compile(r"\d+")


def as_sibling(name: str, found: Array, lefts: Elements, rights: Elements) -> Array | None:
    """Complete the left elements of a right parameter as its sibling's in another block; None if no sibling agrees.

    All elements of the sibling are known, and those that are known here stand in the same places there. An example is
    the last block of a model whose second result nobody reads: a part of its kernel is dead.
    """
    part = rights.part(found, name)
    for other in rights.names:
        whole = rights.part(found, other)
        if other == name or whole.shape != part.shape or numberless(other) != numberless(name) or (whole <= 0).any():
            continue
        owners = lefts.owners(whole)
        for known in lefts.owners(part):
            like = [owner for owner in owners if numberless(owner) == numberless(known)]
            moved = _moved(whole, owners, _changes(like[0], known), lefts) if len(like) == 1 else None
            if moved is not None and np.array_equal(np.where(part > 0, moved, part), part):
                return moved
    return None


def as_part(name: str, found: Array, lefts: Elements, rights: Elements) -> Array | None:
    """Complete a right parameter of which nothing was seen and that is one of several in a left one; else None.

    It stands there as its sibling does in another block, if another part of that left one does so. An example is the
    first block of a decoder that begins with zeros: no output depends on its kernel of values, fused or not.
    """
    part = rights.part(found, name)
    for other in rights.names:
        whole = rights.part(found, other)
        if other == name or whole.shape != part.shape or numberless(other) != numberless(name) or (whole <= 0).any():
            continue
        changes = _changes(other, name)
        moved = _moved(whole, lefts.owners(whole), changes, lefts)
        if moved is not None and _stands_beside(moved, changes, found, lefts, rights):
            return moved
    return None


def _stands_beside(moved: Array, changes: Mapping[str, str], found: Array, lefts: Elements, rights: Elements) -> bool:
    """Tell whether another part of the left parameter of some elements comes from its sibling by the same changes."""
    owners, back = set(lefts.owners(moved)), {new: old for old, new in changes.items()}
    for beside in rights.names:
        twin = _renumbered(beside, back)
        known = rights.part(found, beside)
        if twin == beside or twin not in rights.shapes or owners.isdisjoint(lefts.owners(np.maximum(known, 0))):
            continue
        there = rights.part(found, twin)
        expected = _moved(there, lefts.owners(there), changes, lefts) if (there > 0).all() else None
        if expected is not None and np.array_equal(expected, known):
            return True
    return False


def _renumbered(name: str, changes: Mapping[str, str]) -> str:
    return NUMBER.sub(lambda match: changes.get(match[0], match[0]), name)


def _changes(one: str, other: str) -> dict[str, str]:
    """Return what becomes of the numbers in which two names differ."""
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return {a: b for a, b in pairs if a != b}


def _moved(whole: Array, owners: list[str], changes: Mapping[str, str], lefts: Elements) -> Array | None:
    """Return the elements with those of each owner replaced by those of its counterpart in another block."""
    there = {owner: _renumbered(owner, changes) for owner in owners}
    if any(lefts.shapes.get(other) != lefts.shapes[owner] for owner, other in there.items()):
        return None
    return lefts.renumbered(whole, {owner: lefts.first(other) for owner, other in there.items()})
