"""Complete a parameter of which nothing reads a part, or any element, as its siblings in other blocks are composed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from parity.derive.trace.tape import Array
from specs.notation.paths import normal

from .symbols import Elements

NUMBER = re.compile(r"\d+")
FEW = 6  # siblings in other blocks that are asked: bounds the time that large kernels take
Changes = Mapping[int, tuple[str, str]]  # place among the numbers of a name -> (the number, the one in its stead)


def as_sibling(name: str, found: Array, lefts: Elements, rights: Elements) -> Array | None:
    """Complete the left elements of a right parameter as its sibling's in another block; None if no sibling agrees.

    All elements of the sibling are known, and those that are known here stand in the same places there. An example is
    the last block of a model whose second result nobody reads: a part of its kernel is dead. A parameter that stacks
    blocks itself is completed by those that other stacks beside it are of.
    """
    part = rights.part(found, name)
    for other in _known_siblings(name, found, rights):
        whole = rights.part(found, other)
        owners = lefts.owners(whole)
        for known in lefts.owners(part):
            like = [owner for owner in owners if normal(owner) == normal(known)]
            moved = _moved(whole, owners, _changes(like[0], known), lefts) if len(like) == 1 else None
            if moved is not None and np.array_equal(np.where(part > 0, moved, part), part):
                return moved
    return _as_rows(name, found, lefts, rights)


def as_counterpart(name: str, found: Array, lefts: Elements, rights: Elements) -> Array | None:
    """Return left elements that have no partner for a right parameter of which nothing was seen; None if none are its.

    They stand in their block of the left side as those of a sibling do in another one. Which block that is, other
    parameters of both blocks tell, or else the numbers in the names of siblings. Examples are a layer that the
    first block alone does not use, and the first block of a decoder that begins with zeros: no output depends on its
    kernel of values, fused or not. Where the left side stacks blocks, elements are those of a slice.
    """
    for other, changes in _blocks(name, found, lefts, rights):
        whole = rights.part(found, other)
        moved = _moved(whole, lefts.owners(whole), changes, lefts)
        if moved is not None and not np.isin(moved, found).any():
            return moved
    return _as_slice(name, found, lefts, rights)


def _as_rows(name: str, found: Array, lefts: Elements, rights: Elements) -> Array | None:
    """Complete slices of a right parameter that stacks those of left blocks; None if no other stack tells which.

    An example is `norm/scale: l c` of a scan of blocks of which the last one returns a normalized value that nobody
    reads: beside it, `kernel: l i o` stacks `layers.0.weight` and `layers.1.weight`.
    """
    part = rights.part(found, name)
    for axis in range(part.ndim):
        rows = np.moveaxis(part, axis, 0)
        flat = rows.reshape(len(rows), -1)
        known, unknown = np.flatnonzero((flat > 0).all(1)), np.flatnonzero((flat == 0).all(1))
        if not len(known) or not len(unknown) or len(known) + len(unknown) < len(rows):
            continue
        first, filled = int(known[0]), rows.copy()
        for at in unknown:
            for changes in _between_rows(axis, len(rows), (first, int(at)), found, lefts, rights):
                moved = _moved(rows[first], lefts.owners(rows[first]), changes, lefts)
                if moved is not None and not np.isin(moved, found).any():
                    filled[at] = moved
                    break
        if filled[unknown].any():
            return np.moveaxis(filled, 0, axis)
    return None


def _between_rows(
    axis: int, length: int, places: Sequence[int], found: Array, lefts: Elements, rights: Elements
) -> Iterator[Changes]:
    """Yield how numbers change on the left between two slices of right parameters that stack blocks on one axis."""
    for beside in rights.names:
        if rights.shapes[beside][axis : axis + 1] == (length,):
            there, here = (rights.part(found, beside).take(at, axis) for at in places)
            if changes := _changes_between(there, here, lefts):
                yield changes


class Slice(NamedTuple):
    """A whole slice of a left parameter, across one of its axes."""

    owner: str
    axis: int
    place: int


def _as_slice(name: str, found: Array, lefts: Elements, rights: Elements) -> Array | None:
    """Return a free slice of a left parameter that stacks blocks for a right one of which nothing was seen.

    It is as far from the slice of a sibling in another block as those of other parameters of both blocks are.
    """
    for other in _known_siblings(name, found, rights)[:FEW]:
        part = rights.part(found, other)
        for (one, two), own in itertools.product(_twins(other, name, rights), _slices(part, lefts)):
            olds, news = (_slices(rights.part(found, beside), lefts) for beside in (one, two))
            for old, new in itertools.product(olds, news):
                shapes = lefts.shapes[own.owner], lefts.shapes[new.owner]
                alike = old.owner == new.owner and old[1:] == own[1:] and new.axis == own.axis
                if alike and shapes[0][own.axis] == shapes[1][own.axis]:
                    moved = part + (new.place - own.place) * int(np.prod(shapes[0][own.axis + 1 :]))
                    if not np.isin(moved, found).any():
                        return moved
    return None


def _slices(part: Array, lefts: Elements) -> list[Slice]:
    """Return the slices of a left parameter, at most one across each axis, of which elements are a permutation."""
    if (part <= 0).any() or len(owners := lefts.owners(part)) != 1:
        return []
    numbers, shape = lefts.numbers(owners[0]), lefts.shapes[owners[0]]
    at = np.unravel_index(int(part.min()) - lefts.first(owners[0]), shape)
    axes = [axis for axis, length in enumerate(shape) if numbers.size == part.size * length and length > 1]
    ordered = np.sort(part, None)
    slices = (Slice(owners[0], axis, int(at[axis])) for axis in axes)
    return [one for one in slices if np.array_equal(numbers.take(one.place, one.axis).ravel(), ordered)]


def _known_siblings(name: str, found: Array, rights: Elements) -> list[str]:
    """Return the right parameters of the same shape and of names with other numbers of which all elements are known."""
    shape, plain = rights.shapes[name], normal(name)
    alike = (other for other in rights.names if rights.shapes[other] == shape and normal(other) == plain)
    return [other for other in alike if other != name and (rights.part(found, other) > 0).all()]


def _blocks(name: str, found: Array, lefts: Elements, rights: Elements) -> Iterator[tuple[str, Changes]]:
    """Yield (sibling, how numbers change on the left from its block to that of a right parameter)."""
    siblings = sorted(_known_siblings(name, found, rights), key=lambda other: len(_changes(other, name)))[:FEW]
    for other in siblings:
        for twin, beside in _twins(other, name, rights):
            if changes := _left_changes(twin, beside, found, lefts, rights):
                yield other, changes
    continued = list(_numbers_continued(name, siblings, found, lefts, rights))
    if len({(place, new) for _, changes in continued for place, (_, new) in changes.items()}) == 1:
        yield continued[0]


def _twins(one: str, other: str, rights: Elements) -> Iterator[tuple[str, str]]:
    """Yield right parameters whose names differ as those of two siblings do: one of each of their blocks."""
    back = {place: (new, old) for place, (old, new) in _changes(one, other).items()}
    for beside in rights.names:
        twin = _renumbered(beside, back)
        if twin != beside and twin in rights.shapes:
            yield twin, beside


def _left_changes(one: str, other: str, found: Array, lefts: Elements, rights: Elements) -> Changes | None:
    """Return how numbers change between the left parameters of two right ones; None if these are not alike."""
    return _changes_between(rights.part(found, one), rights.part(found, other), lefts)


def _changes_between(there: Array, here: Array, lefts: Elements) -> Changes | None:
    """Return how numbers change between the left parameters of elements; None if these are not alike."""
    olds, news = (lefts.owners(np.maximum(part, 0)) for part in (there, here))
    if (there <= 0).any() or len(olds) != 1 or len(news) != 1 or normal(olds[0]) != normal(news[0]):
        return None
    changes = _changes(olds[0], news[0])
    moved = _moved(there, olds, changes, lefts)
    return changes if moved is not None and np.array_equal(moved, here) else None


def _numbers_continued(
    name: str, siblings: list[str], found: Array, lefts: Elements, rights: Elements
) -> Iterator[tuple[str, Changes]]:
    """Yield (sibling, change on the left) where one number of left names grows evenly with one of the right names.

    Two siblings each say by how much. Of a lone sibling, it grows by as much as on the right.
    """
    for one in siblings:
        own, owner = _changes(one, name), lefts.owners(rights.part(found, one))[0]
        if len(own) != 1:
            continue
        ((place, (old, new)),) = own.items()
        steps = [(at, Fraction(1)) for at in range(len(_numbers(owner)))] if len(siblings) == 1 else []
        for other in siblings:
            between, left = _changes(one, other), _left_changes(one, other, found, lefts, rights) or {}
            if between.keys() == own.keys() and len(left) == 1:
                ((at, (first, second)),) = left.items()
                steps.append((at, Fraction(int(second) - int(first), int(between[place][1]) - int(old))))
        for at, step in steps:
            number = _numbers(owner)[at]
            changes = {at: (number, str(int(number) + (int(new) - int(old)) * step))}
            if _renumbered(owner, changes) in lefts.shapes:
                yield one, changes


@cache
def _numbers(name: str) -> tuple[str, ...]:
    return tuple(NUMBER.findall(name))


def _renumbered(name: str, changes: Changes) -> str:
    """Replace the numbers of a name if those to be replaced stand at their places; else return it as it is."""
    numbers = [*_numbers(name)]
    if not all(place < len(numbers) and numbers[place] == old for place, (old, _) in changes.items()):
        return name
    for place, (_, new) in changes.items():
        numbers[place] = new
    between = NUMBER.split(name)
    return "".join(itertools.chain(*zip(between, [*numbers, ""], strict=True)))


def _changes(one: str, other: str) -> Changes:
    """Return the numbers in which two names that are else alike differ."""
    pairs = zip(_numbers(one), _numbers(other), strict=True)
    return {place: pair for place, pair in enumerate(pairs) if pair[0] != pair[1]}


def _moved(whole: Array, owners: list[str], changes: Changes, lefts: Elements) -> Array | None:
    """Return the elements with those of each owner replaced by those of its counterpart in another block."""
    there = {owner: _renumbered(owner, changes) for owner in owners}
    if any(lefts.shapes.get(other) != lefts.shapes[owner] for owner, other in there.items()):
        return None
    return lefts.renumbered(whole, {owner: lefts.first(other) for owner, other in there.items()})
