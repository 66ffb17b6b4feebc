"""Continue the map of elements where no value was seen: rows that no token reads, parameters that nothing uses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.trace.names import Similarity, split
from parity.derive.trace.tape import Array

from .siblings import as_counterpart, as_sibling
from .symbols import Elements

ALIKE = 0.5  # similarity of names from which a parameter that nothing reads is mapped by its name


def complete(
    found: Array, lefts: Elements, rights: Elements, whole: bool = True, unread: Sequence[Collection[str]] = ((), ())
) -> tuple[Array, list[str]]:
    """Return (map, right parameters of which all or some elements were inferred).

    Rows continue the pattern of those that were read. A parameter of which nothing was seen stands as its siblings in
    other blocks do. Else it goes to the one left parameter of its size and of a similar name that is free, if there is
    just one; its axes are ordered as those of the parameter that has the most similar name.

    Args:
      whole: whether the match came to its end. If it did not, parameters without a partner may be read behind the place
        where it stopped. They are mapped by name only if that completes the map.
      unread: parameters of each side that nothing reads: such a right one is none that the left model reads.
    """
    if (found[1:] > 0).all():
        return found, []
    found, inferred = found.copy(), []
    for name in rights.names:
        part = rights.part(found, name)
        if not part.size or (part > 0).all() or ((part < 0).any() and not (part > 0).any()):
            continue
        if not part.any():
            filled = as_counterpart(name, found, lefts, rights) if whole else None
        else:
            filled = _continued(part, lefts)
            if filled is None and whole:
                filled = _in_place(part, lefts)
            if filled is None and whole:
                filled = as_sibling(name, found, lefts, rights)
            if filled is None and whole and (part >= 0).all():
                filled = _continued(part, lefts, shorter=True)
            if filled is None and whole:
                _zero_between(part, rights.numbers(name), found, lefts)
        if filled is None or (name in unread[1] and _has_one_that_is_read(filled, found, lefts, unread[0])):
            continue
        new = filled[(part == 0) & (filled > 0)]
        if np.isin(new, found, invert=True).all() or _copied(name, filled, found, rights):
            part[...] = filled
            inferred.append(name)
    filled, more = _by_name(found.copy(), lefts, rights, inferred.copy(), whole, unread)
    lone = without_counterpart(filled, lefts, rights, unread)
    return (filled, more) if whole or is_whole(filled, rights, lone) else (found, inferred)


def without_counterpart(
    found: Array, lefts: Elements, rights: Elements, unread: Sequence[Collection[str]]
) -> list[str]:
    """List right parameters that nothing reads, and that no left one may be.

    Such a left one is of their size, and nothing reads it; or another part of it has a partner, and the rest has none.

    Args:
      unread: parameters of each side that nothing reads.
    """
    if not unread[1]:
        return []
    owned = np.zeros(len(lefts), bool)
    owned[np.maximum(found, 0)] = True
    rest = {name: int((~lefts.part(owned, name)).sum()) for name in lefts.names}
    sizes = {rest[name] for name in unread[0]}
    most = max((count for name, count in rest.items() if count < math.prod(lefts.shapes[name])), default=0)
    unknown = [name for name in unread[1] if not rights.part(found, name).any()]
    counts = {name: math.prod(rights.shapes[name]) for name in unknown}
    return [name for name, count in counts.items() if count not in sizes and count > most]


def _has_one_that_is_read(filled: Array, found: Array, lefts: Elements, unread: Collection[str]) -> bool:
    """Tell whether elements are of a left parameter that is read, and of which none has a partner."""
    owners = (owner for owner in lefts.owners(filled) if owner not in unread)
    return any(not np.isin(lefts.numbers(owner), found).any() for owner in owners)


def is_whole(found: Array, rights: Elements, lone: Collection[str]) -> bool:
    """Tell whether all elements have a partner, but for those of lone parameters."""
    return all(rights.part(found, name).all() for name in rights.names if name not in lone)


def _zero_between(part: Array, numbers: Array, found: Array, lefts: Elements) -> None:
    """Fill with zeros what no use reads of a vector, if its other parts are whole left vectors of one length.

    Some models set the bias of their keys to zero in each call, where others have none. No vector of that length may be
    free on the left, which the rest could be.
    """
    owners = lefts.owners(part)
    length = min((lefts.shapes[name][0] for name in owners if len(lefts.shapes[name]) == 1), default=0)
    if part.ndim > 1 or not length or part.size % length:
        return
    blocks, every = part.reshape(-1, length), [lefts.numbers(name) for name in owners]
    if not all(not block.any() or any(np.array_equal(block, whole) for whole in every) for block in blocks):
        return
    if {name for name in lefts.names if lefts.shapes[name] == (length,)} <= set(lefts.owners(found)):
        part[part == 0] = -numbers[part == 0]


def _copied(name: str, filled: Array, found: Array, rights: Elements) -> bool:
    """Tell whether the elements belong to other parameters only where these are copies of this one."""
    for other in rights.names:
        part = rights.part(found, other)
        shared = other != name and np.isin(part, filled).any()
        if shared and np.array_equal(np.sort(part, None), np.sort(filled, None)):  # in another order of axes, as a head
            continue
        if shared and (part.shape != filled.shape or ((part != 0) & (part != filled)).any()):
            return False
    return True


def _continued(part: Array, lefts: Elements, shorter: bool = False) -> Array | None:
    """Fill in the unknown slices of one axis by continuing the steps between the known ones; None where that fails.

    Args:
      shorter: whether some may stay 0, since the left side's table is shorter or begins at another place.
    """
    for axis in range(part.ndim):
        rows = np.moveaxis(part, axis, 0)
        flat = rows.reshape(len(rows), -1)
        known = np.flatnonzero((flat > 0).all(1))
        if not len(known) or (flat > 0).any(1).sum() != len(known):
            continue
        owner = lefts.owners(flat[known])
        if len(owner) != 1:
            stacked = _stacked(flat, known, owner, lefts)
            if stacked is not None:
                return np.moveaxis(stacked.reshape(rows.shape), 0, axis)
            continue
        step = _step(flat, known, lefts.shapes[owner[0]], len(rows))
        if step is None:
            continue
        every = flat[known[0]] + (np.arange(len(rows)) - known[0])[:, None] * step
        whole = lefts.numbers(owner[0])
        inside = ((every >= whole.min()) & (every <= whole.max())).all(1)
        if (every[known] == flat[known]).all() and (inside.all() or (shorter and step > 0 and len(known) > 1)):
            return np.moveaxis(np.where(inside[:, None], every, 0).reshape(rows.shape), 0, axis)
    return None


def _in_place(part: Array, lefts: Elements) -> Array | None:
    """Return a whole left parameter in the one order of its axes in which the known elements stand in their places.

    A triangular matrix is an example, of which nothing reads the other half.
    """
    owners = lefts.owners(part)
    if len(owners) != 1 or len(lefts.shapes[owners[0]]) != part.ndim:
        return None
    numbers, known = lefts.numbers(owners[0]), part > 0
    orders = (numbers.transpose(axes) for axes in itertools.permutations(range(part.ndim)))
    fitting = [own for own in orders if own.shape == part.shape and np.array_equal(own[known], part[known])]
    return fitting[0] if len(fitting) == 1 else None


def _stacked(flat: Array, known: Array, owners: Sequence[str], lefts: Elements) -> Array | None:
    """Return the slices of several tables one after the other, each of which starts where its known slices say."""
    every = np.zeros_like(flat)
    for name in owners:
        table = lefts.numbers(name).astype(np.int64)
        table = table.reshape(len(table) if table.ndim else 1, -1)
        own = known[(flat[known, 0] >= table[0, 0]) & (flat[known, 0] <= table[-1, -1])]
        if table.shape[1] != flat.shape[1] or not len(own):
            return None
        row, place = divmod(flat[own] - table[0, 0], table.shape[1])
        start = int(own[0] - row[0, 0])
        inside = 0 <= start <= len(flat) - len(table) and not every[start : start + len(table)].any()
        if not inside or (place != place[0]).any() or (row != (own - start)[:, None]).any():
            return None
        every[start : start + len(table)] = table[:, place[0]]
    return every if every.all() else None


def _step(flat: Array, known: Array, shape: tuple[int, ...], count: int) -> int | None:
    """Return by how much element numbers grow from one slice to the next; None if unevenly."""
    if len(known) > 1:
        gap, rest = divmod(int(flat[known[1], 0] - flat[known[0], 0]), int(known[1] - known[0]))
        return None if rest else gap
    return int(np.prod(shape[1:], dtype=int)) if shape and shape[0] == count else None


class Pattern(NamedTuple):
    """How a parameter became another: the left leaf's name, and the order of its axes on the right.

    Axes of length 1 do not count: the kernel of a 1x1 convolution may become that of a dense layer.
    """

    leaf: str
    order: tuple[int, ...]


def _by_name(
    found: Array, lefts: Elements, rights: Elements, inferred: list[str], whole: bool, unread: Sequence[Collection[str]]
) -> tuple[Array, list[str]]:
    """Map each parameter of which nothing was seen to the free left one of its module, or of the most similar name.

    Its axes are ordered as those of its siblings; without any, as they are, or in the one order that its lengths allow.
    """
    alike = Similarity()
    unseen = [name for name in rights.names if not rights.part(found, name).any()]
    if not unseen:
        return found, inferred
    patterns = {name: pattern for name in rights.names if (pattern := _pattern(name, found, lefts, rights))}
    used = set(lefts.owners(found))
    modules = _modules(patterns, found, lefts, rights)
    for name in unseen:
        free = [o for o in lefts.names if o not in used and (o in unread[0] or name not in unread[1])]
        for pattern in (*(_siblings(name, patterns, rights, alike) if whole else ()), None):
            orders = {
                other: order
                for other in free
                if (pattern is None or split(other)[1] == pattern.leaf)
                and (order := _order(lefts.shapes[other], rights.shapes[name], pattern)) is not None
            }
            if orders:
                break
        same = [other for other in orders if pattern and modules.get(split(name)[0]) == split(other)[0]]
        likeness = {
            other: alike(*((other, name) if pattern is None else (split(other)[0], split(name)[0])))
            for other in same or orders
        }
        near = {other: value for other, value in likeness.items() if same or value > ALIKE}
        chosen = [other for other, value in near.items() if value == max(near.values())]
        rivals = [other for other in unseen if rights.shapes[other] == rights.shapes[name]]
        alone = len(near) == 1 and len(rivals) == 1
        if whole and len(chosen) == 1:  # the two are the most similar ones to each other
            alone |= all(alike(chosen[0], name) > alike(chosen[0], other) for other in rivals if other != name)
        if len(chosen) == 1 and (pattern is not None or alone):
            numbers = lefts.numbers(chosen[0]).squeeze().transpose(orders[chosen[0]])
            rights.part(found, name)[...] = numbers.reshape(rights.shapes[name])
            used.add(chosen[0])
            inferred.append(name)
    return found, inferred


def _order(left: tuple[int, ...], right: tuple[int, ...], pattern: Pattern | None) -> tuple[int, ...] | None:
    """Return the order of axes longer than 1 that a pattern, or else two shapes alone, tell; None if they tell none."""
    lengths, shape = _longer(left), _longer(right)
    orders = [pattern.order] if pattern else [tuple(range(len(shape)))] if left == right else []
    if not pattern and len(set(shape)) == len(shape):  # one order at most
        orders = list(itertools.permutations(range(len(shape))))
    fitting = (order for order in orders if len(order) == len(lengths) == len(shape))
    return next((order for order in fitting if tuple(lengths[d] for d in order) == shape), None)


def _modules(patterns: Iterable[str], found: Array, lefts: Elements, rights: Elements) -> dict[str, str]:
    """Return {path of a module on the right: that on the left of all of its parameters that have a partner}."""
    partners: dict[str, set[str]] = {}
    for name in patterns:
        (owner,) = lefts.owners(rights.part(found, name))
        partners.setdefault(split(name)[0], set()).add(split(owner)[0])
    return {path: next(iter(others)) for path, others in partners.items() if len(others) == 1}


def _pattern(name: str, found: Array, lefts: Elements, rights: Elements) -> Pattern | None:
    """Return how a right parameter comes from one left parameter by an order of axes; None if otherwise."""
    part = rights.part(found, name)
    if not part.size or (part <= 0).any() or len(owners := lefts.owners(part)) != 1:
        return None
    whole, part = lefts.numbers(owners[0]).squeeze(), part.squeeze()
    if whole.size != part.size or whole.ndim != part.ndim:
        return None
    for order in itertools.permutations(range(whole.ndim)):
        if np.array_equal(whole.transpose(order), part):
            return Pattern(split(owners[0])[1], order)
    return None


def _longer(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths that are more than 1."""
    return tuple(length for length in shape if length > 1)


def _siblings(name: str, patterns: Mapping[str, Pattern], rights: Elements, alike: Similarity) -> list[Pattern]:
    """Return the patterns of right parameters of the same leaf and rank, those of the most similar names first."""
    leaf, rank = split(name)[1], len(rights.shapes[name])
    siblings = [other for other in patterns if split(other)[1] == leaf and len(rights.shapes[other]) == rank]
    return list(dict.fromkeys(patterns[other] for other in sorted(siblings, key=lambda other: -alike(name, other))))
