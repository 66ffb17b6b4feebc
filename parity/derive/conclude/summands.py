"""Put terms of which only the sum counts where their names say, as the two biases of a recurrent cell.

Values cannot tell them apart: what each is added to depends on the order of the terms, which a framework may choose
otherwise for some of the gates, so that no line could say how one parameter becomes another.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from parity.derive.match.symbols import MANY, Elements
from parity.derive.prove.freedom import exchanged
from parity.derive.search.candidates import Left
from parity.derive.trace.names import Similarity, split
from parity.derive.trace.outputs import equal
from parity.derive.trace.tape import Array

FEW = 16  # parameters outside of any module that are compared with each other


class Terms(NamedTuple):
    """Two right parameters that have the elements of two left ones, both those of one place at each place.

    Args:
      names: of the right parameters. numbers: their left elements.
      near: where the first has elements of the left parameter that its name is nearer to.
    """

    names: tuple[str, str]
    numbers: tuple[Array, Array]
    near: Array


def straightened(left: Left, mapped: Array, plus: Array, rights: Elements, given: Collection[str]) -> Array:
    """Return the map with terms of sums exchanged, so that each right parameter has the elements of one left one.

    Args:
      mapped, plus: see Match.
      given: right parameters that the user's lines describe: they stay as they are.
    """
    crossed = [pair for pair in _terms(mapped, left.elements, rights) if not set(pair.names).intersection(given)]
    crossed = [pair for pair in crossed if not any(rights.part(plus, name).any() for name in pair.names)]
    if not crossed:
        return mapped
    mapped, before = mapped.copy(), left.side.run(left.elements.arrays, left.inputs)
    for names, numbers, near in crossed:
        for turned in (~near, near):
            if not turned.any():  # the nearer names are not those of a sum
                break
            pairs = [(numbers[0][turned], numbers[1][turned])]
            with exchanged(left.elements, pairs):
                same = equal(before, left.side.run(left.elements.arrays, left.inputs))
            if same:
                for name, own, other in zip(names, numbers, numbers[::-1], strict=True):
                    rights.part(mapped, name)[...] = np.where(turned, other, own)
                break
    left.side.release()
    return mapped


def _terms(mapped: Array, lefts: Elements, rights: Elements) -> Iterator[Terms]:
    """Yield parameters whose elements are mixed, or crossed within a module though their names are not."""
    similar = Similarity()
    groups: dict[object, list[tuple[str, list[str]]]] = {}
    for name in rights.names:
        part = rights.part(mapped, name)
        if 0 < part.size < MANY and (part > 0).all() and len(owners := lefts.owners(part)) <= 2:
            key = frozenset(owners) if len(owners) == 2 else split(name)[0]
            groups.setdefault(key, []).append((name, owners))
    # many parameters without a module have names that say nothing of what belongs together
    some = (group for key, group in groups.items() if key or len(group) <= FEW)
    for (one, own), (other, its) in itertools.chain.from_iterable(itertools.combinations(group, 2) for group in some):
        owners = list(dict.fromkeys([*own, *its]))
        shapes = {rights.shapes[one], rights.shapes[other], *(lefts.shapes[owner] for owner in owners)}
        if len(owners) != 2 or len(shapes) != 1:
            continue
        a, b = owners
        if similar(one, b) + similar(other, a) > similar(one, a) + similar(other, b):
            a, b = b, a
        numbers = np.asarray(rights.part(mapped, one)), np.asarray(rights.part(mapped, other))
        near = (numbers[0] >= lefts.first(a)) & (numbers[0] < lefts.first(a) + numbers[0].size)
        ahead = lefts.first(b) - lefts.first(a)
        if not near.all() and np.array_equal(numbers[1], numbers[0] + np.where(near, ahead, -ahead)):
            yield Terms((one, other), numbers, near)
