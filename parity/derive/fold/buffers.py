"""Write lines for arrays that are no parameters, as counters: nothing reads their values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..match.complete import split
from ..match.symbols import Elements
from ..trace.sides import Side
from .rows import Row, constant, dropped, same


def lines_of(a: Side, b: Side, partners: Mapping[str, str]) -> list[Row]:
    """Return lines for arrays that are no parameters.

    Those that nothing reads, as counters, belong together where the parameters of their modules do. An integer that
    only the right side has is what a new model has there; what training leaves is dropped in reverse.

    Args:
      partners: see partners_of.
    """
    rows = [dropped(name, 0) for name in a.others if name not in partners.values()]
    for name, array in b.others.items():
        if name in partners:
            rows.append(same(partners[name], name, array.ndim))
        elif _uniform(array):
            arrow = "<->" if array.ndim else "<-"
            rows.append(constant(name, array.ndim, f"{array.flat[0]} {array.dtype}", arrow))
        else:
            rows.append(dropped(name, 1))
    return rows


def partners_of(a: Side, b: Side, mapped: Any, lefts: Elements, rights: Elements) -> dict[str, str]:
    """Return integer arrays of the right side -> those of the left in the module whose parameters became its own."""
    homes: dict[str, set[str]] = {}
    for name in rights.names:
        owners = lefts.owners(rights.part(mapped, name))
        homes.setdefault(split(name)[0], set()).update(split(owner)[0] for owner in owners)
    partners: dict[str, str] = {}
    for name, array in b.others.items():
        home = homes.get(split(name)[0], set())
        inside = [other for other, one in a.others.items() if split(other)[0] in home and _alike(one, array)]
        inside = [other for other in inside if split(other)[1] == split(name)[1]] or inside
        if len(home) == len(inside) == 1 and inside[0] not in partners.values():
            partners[name] = inside[0]
    return partners


def _alike(one: Any, other: Any) -> bool:
    """Tell whether arrays are integers of one kind, shape and value: two new models have the same there."""
    return bool(one.dtype == other.dtype and one.dtype.kind in "iu" and np.array_equal(one, other))


def _uniform(array: Any) -> bool:
    return bool(array.dtype.kind in "iu" and array.size and (array == array.flat[0]).all())


def shapes_of(a: Side, b: Side, kept: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {name: np.shape(array) for name, array in a.others.items()},
        {name: np.shape(array) for name, array in b.others.items() if _uniform(array) or name in kept},
    )
