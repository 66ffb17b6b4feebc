"""Write lines for arrays of which one axis is in an order of its own, listed in a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from parity.derive.limits import LARGE_PIECE
from parity.derive.trace.tape import Array, along
from specs.notation.paths import escaped

from .facts import Target
from .names import Names, composed
from .related import Axes, relate
from .rows import DIM, Row


def listed(of: Target) -> Row | None:
    """Write `a: o[@order.txt] c <-> target: o c`, in any order."""
    for axes, own, places in _in_order(of.shape, of.places):
        of.names.assign(axes, 0, of.side)
        left, right = [composed(atoms, signs=True) for atoms in axes.source], [composed(atoms) for atoms in axes.target]
        left[own] += f"[@{of.names.order([int(n) for n in places])}]"
        return Row(((escaped(of.parts[0]), " ".join(left)),), ((escaped(of.name), " ".join(right)),))
    return None


def listed_parts(of: Target, write: Callable[[Target], Row | None]) -> Row | None:
    """Write `a: a[@order.txt] i, b: b i <-> target: (a+b) i`, where some parts of an axis are in orders of their own.

    Args:
      write: writes the line of sources that are in order.
    """
    for axis, length in enumerate(of.numbers.shape):
        owner = np.searchsorted(of.sources.starts, np.moveaxis(of.numbers, axis, 0).reshape(length, -1), "right")
        edges = np.flatnonzero(np.diff(owner[:, 0])) + 1
        if (owner != owner[:, :1]).any() or len(edges) != len(of.parts) - 1:
            continue
        parts, orders = list[Array](), dict[str, tuple[int, Array]]()
        for part in np.split(of.numbers, edges, axis):
            (name,) = of.sources.owners(part)
            numbers, shape = part - of.sources.first(name), of.sources.shapes[name]
            found = None if relate(numbers, shape) else next(_in_order(shape, numbers), None)
            if found is not None:
                orders[escaped(name)] = found[1:]
            parts.append(part if found is None else np.take(part, np.argsort(found[2]), axis))
        row = write(of._replace(numbers=np.concatenate(parts, axis)))
        return row and _with_orders(row, orders, of.names)
    return None


def _with_orders(row: Row, orders: Mapping[str, tuple[int, Array]], names: Names) -> Row | None:
    """Write orders into a line: {path: (axis of the source, its positions)}; None where an axis has several pieces."""
    sources = {path: DIM.findall(axes or "") for path, axes in row.left}
    for path, (own, places) in orders.items():
        if not sources[path][own].isalnum():
            return None
        sources[path][own] += f"[@{names.order(places.tolist())}]"
    return replace(row, left=tuple((path, " ".join(axes)) for path, axes in sources.items()))


def _in_order(shape: tuple[int, ...], numbers: Array) -> Iterator[tuple[Axes, int, Array]]:
    """Yield (axes, an axis of the source, its positions) where only the order along one axis differs."""
    for axis, own, places in orders(numbers, shape):
        axes = relate(np.take(numbers, np.argsort(places), axis), shape)
        whole = axes is not None and len(axes.target[axis]) == len(axes.source[own]) == 1
        if axes and whole and not any(axes.windows) and axes.source[own][0] is axes.target[axis][0]:
            yield axes, own, places


def orders(numbers: Array, shape: tuple[int, ...]) -> Iterator[tuple[int, int, Array]]:
    """Yield (axis, an axis of the source, its positions in order) where one is the other in some order.

    Args:
      numbers: for each element of the target, the place in the flat source, from 0. shape: of the source.
    """
    for axis, own, places in likely_orders(numbers, shape):
        if is_in_order(numbers, shape, axis, own, places):
            yield axis, own, places


def likely_orders(numbers: Array, shape: tuple[int, ...]) -> Iterator[tuple[int, int, Array]]:
    """Yield what `orders` may yield, judged by one row of the elements alone."""
    for axis in range(numbers.ndim if numbers.size else 0):
        row = numbers[tuple(slice(None) if k == axis else 0 for k in range(numbers.ndim))]
        for own, length in enumerate(shape):
            if length == len(row) and length > 1:
                places = row // math.prod(shape[own + 1 :]) % length
                if len(set(places.tolist())) == length:
                    yield axis, own, places


def is_in_order(numbers: Array, shape: tuple[int, ...], axis: int, own: int, places: Array) -> bool:
    """Tell whether all elements along an axis have these positions on an axis of the source."""
    inner, rows = math.prod(shape[own + 1 :]), max(1, LARGE_PIECE * len(numbers) // numbers.size)
    expected = along(places, axis, numbers.ndim)
    return all(
        (numbers[k : k + rows] // inner % shape[own] == (expected[k : k + rows] if axis == 0 else expected)).all()
        for k in range(0, len(numbers), rows)  # so that large arrays are not copied whole
    )
