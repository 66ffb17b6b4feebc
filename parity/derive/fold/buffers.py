"""Write lines for arrays that are no parameters: counters, which nothing reads, and tables of integers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.derive.match.symbols import Elements
from parity.derive.trace.draws import of_one_value
from parity.derive.trace.names import split
from parity.derive.trace.sides import Side

from .rows import Row, constant, dropped, same

VALUED = "iubc"  # of dtypes whose values a model has from the start: floats are weights


class Partner(NamedTuple):
    """A left array, and the order of its axes on the right."""

    name: str
    order: tuple[int, ...]


def lines_of(a: Side, b: Side, partners: Mapping[str, Partner]) -> list[Row]:
    """Return lines for arrays that are no parameters.

    Those that nothing reads, as counters, belong together where the parameters of their modules do. An integer that
    only the right side has is what a new model has there; what training leaves is dropped in reverse.

    Args:
      partners: see partners_of.
    """
    taken = {partner.name for partner in partners.values()}
    rows = [dropped(name, 0) for name in a.others if name not in taken]
    for name, array in b.others.items():
        if name in partners:
            rows.append(same(partners[name].name, name, partners[name].order))
        elif _uniform(array):
            arrow = "<->" if array.ndim else "<-"
            axes = {"axes": "1" * array.ndim} if array.size == 1 else {}
            rows.append(constant(name, array.ndim, f"{array.flat[0]} {array.dtype}", arrow, **axes))
        else:
            rows.append(dropped(name, 1))
    return rows


def partners_of(a: Side, b: Side, mapped: Any, lefts: Elements, rights: Elements) -> dict[str, Partner]:
    """Return arrays of integers of the right side -> those of the left.

    They stand in the module whose parameters became its own, or, by the same name, around modules of which that is
    true; or else both have the same values, as no other array has, in one order of axes.
    """
    homes: dict[str, set[str]] = {}
    around: dict[str, set[str]] = {}
    for name in rights.names:
        owners = lefts.owners(rights.part(mapped, name))
        homes.setdefault(split(name)[0], set()).update(split(owner)[0] for owner in owners)
        for module in _modules(name):
            around.setdefault(module, set()).update(*map(_modules, owners))
    partners: dict[str, Partner] = {}
    taken = set[str]()
    for name, array in b.others.items():
        home = homes.get(split(name)[0], set())
        near = {other: one for other, one in a.others.items() if split(other)[0] in home}
        named = {other: one for other, one in near.items() if split(other)[1] == split(name)[1]}
        inside = [other for other, one in named.items() if _counts(one, array) or _equal_integers(one, array)]
        inside = inside or [other for other, one in near.items() if _equal_integers(one, array)]
        if not home and array.ndim:  # no counter, which stands beside the parameters of its module
            places, own = around.get(split(name)[0], set()), split(name)[1]
            inside = [
                other for other, one in a.others.items() if split(other)[1] == own and _equal_integers(one, array)
            ]
            inside = [other for other in inside if split(other)[0] in places]
            home = {split(other)[0] for other in inside}
        if len(home) == len(inside) == 1 and inside[0] not in taken:
            partners[name] = Partner(inside[0], tuple(range(array.ndim)))
            taken.add(inside[0])
    free = [name for name, array in b.others.items() if name not in partners and not _uniform(array)]
    for name in free:
        found = [
            Partner(other, order)
            for other, one in a.others.items()
            if other not in taken and one.dtype == b.others[name].dtype and one.dtype.kind in VALUED
            for order in orders(one, b.others[name])
        ]
        rivals = [other for other in free if any(orders(b.others[name], b.others[other]))]
        if len(found) == len(rivals) == 1:
            partners[name] = found[0]
            taken.add(found[0].name)
    return partners


def _modules(name: str) -> list[str]:
    """Return the modules that a parameter is in, from its own outwards."""
    found = []
    while name:
        name = split(name)[0]
        found.append(name)
    return found


def orders(one: Any, other: Any) -> Iterator[tuple[int, ...]]:
    """Yield the orders of axes in which one array equals another one; where axes of length 1 stand does not count."""
    seen = set[tuple[int, ...]]()
    for order in itertools.permutations(range(one.ndim)) if sorted(one.shape) == sorted(other.shape) else ():
        longer = tuple(axis for axis in order if one.shape[axis] > 1)
        if longer not in seen and np.array_equal(one.transpose(order), other):
            seen.add(longer)
            yield order


def _equal_integers(one: Any, other: Any) -> bool:
    """Tell whether arrays are integers of one kind, shape and value: two new models have the same there."""
    return bool(one.dtype == other.dtype and one.dtype.kind in "iu" and np.array_equal(one, other))


def _counts(one: Any, other: Any) -> bool:
    """Tell whether arrays are single integers of one kind, of which a trained model has other values than a new one."""
    return bool(one.dtype == other.dtype and one.dtype.kind in "iu" and one.ndim == other.ndim == 0)


def _uniform(array: Any) -> bool:
    return bool(array.dtype.kind in "iu" and of_one_value(array))


def shapes_of(a: Side, b: Side, kept: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {name: np.shape(array) for name, array in a.others.items()},
        {name: np.shape(array) for name, array in b.others.items() if _uniform(array) or name in kept},
    )
