"""Equate axes: an array that two lines write says what the axes of the one are in terms of the other."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from .axes import Dim, Factor, Part
from .lines import Line
from .paths import Hole
from .signature import Signature


class Value(NamedTuple):
    """What stands for an axis: factors, and the window of a whole dimension that they are."""

    factors: tuple[Factor, ...]
    window: tuple[int | None, int | None] | None = None


Values = dict[str, Value]


def names_of(line: Line) -> set[str]:
    arrays = (*line.left.arrays, *line.right.arrays)
    return {hole.name for a in arrays for hole in a.holes} | {part.name for a in arrays for part in a.parts()}


def fresh_name(name: str, taken: set[str]) -> str:
    """Take a name like this one that is free, and return it."""
    fresh = next(word for k in itertools.count(1) if (word := f"{name}{k}") not in taken)
    taken.add(fresh)
    return fresh


def equated(line: Line, array: Signature, other: Line, theirs: Signature) -> Values:
    """Equate the axes of two lines through an array that both write; names of the second end in '.

    Raises: ValueError where no axes express it.
    """
    values: Values = {}
    for ours, his in zip(array.holes, theirs.holes, strict=True):
        values[his.name] = Value(((Part(ours.name),),))
    if array.axes is not None and theirs.axes is not None:
        if len(array.axes) != len(theirs.axes):
            raise ValueError(f"has {len(array.axes)} axes here and {len(theirs.axes)} there")
        for one, two in zip(array.axes, theirs.axes, strict=True):
            _equate(one, two, values)
    taken = names_of(line)
    mine = {name.rstrip("'") for name in names_of(other) if name not in values}
    for name in sorted(mine):  # axes of the second line that stay
        values[f"{name}'"] = Value(((Part(name if name not in taken else fresh_name(name, taken)),),))
    for name, value in list(values.items()):  # what the first line's axes are, in final names
        values[name] = Value(tuple(tuple(_final(part, values) for part in f) for f in value.factors), value.window)
    return values


def _final(part: Part, values: Values) -> Part:
    if not part.name.endswith("'"):
        return part
    ((same,),) = values[part.name].factors
    return part._replace(name=same.name)


def _equate(one: Dim, two: Dim, values: Values) -> None:
    window, other = one.window, two.window
    if window == other:
        window = other = None
    if window is not None and _plain(two.factors) and other is None:
        values[two.factors[0][0].name] = Value(one.factors, window)
    elif other is not None and _plain(one.factors) and window is None:
        values[one.factors[0][0].name] = Value(two.factors, other)
    elif window is not None or other is not None:
        raise ValueError(f"the windows of {one} and {two} do not match")
    else:
        _equate_factors(one.factors, two.factors, values, f"{one} and {two}")


def _equate_factors(one: tuple[Factor, ...], two: tuple[Factor, ...], values: Values, what: str) -> None:
    if len(one) == len(two) == 1 and len(one[0]) == len(two[0]) == 1:
        return _equate_parts(one[0][0], two[0][0], values)
    while one and two and _alike(one[0], two[0], values):
        one, two = one[1:], two[1:]
    while one and two and _alike(one[-1], two[-1], values):
        one, two = one[:-1], two[:-1]
    if _plain(two) and one:
        values[two[0][0].name] = Value(one)
    elif _plain(one) and two:
        values[one[0][0].name] = Value(two)
    elif one or two:
        raise ValueError(f"{what} divide one axis in two ways: give equal axes one name in both tables")
    return None


def _plain(factors: tuple[Factor, ...]) -> bool:
    """Tell whether this is one axis and nothing else."""
    first = factors[0][0] if len(factors) == 1 and len(factors[0]) == 1 else Part("")
    return bool(first.name) and not any(first.turn) and not first.window


def _alike(one: Factor, two: Factor, values: Values) -> bool:
    """Tell whether two factors have the same names; if so, equate them."""
    if [part.name for part in one] != [part.name.rstrip("'") for part in two]:
        return False
    if one[0].window != two[0].window:
        raise ValueError(f"the windows of {one[0]} and {Dim((two,))} do not match")
    if len(one) > 1 and [p.turn for p in one] != [p.turn for p in two]:
        return False
    for ours, his in zip(one, two, strict=True):
        if ours.name:
            alike = Value(((Part(ours.name, length=ours.length or his.length),),))
            _equate_parts(ours, his, values) if len(one) == 1 else values.update({his.name: alike})
    return True


def _equate_parts(one: Part, two: Part, values: Values) -> None:
    assert one.name and two.name, "an axis of length 1 has no factors"
    if one.turn == two.turn:
        values[two.name] = Value(((Part(one.name, length=one.length or two.length),),))
    elif not any(two.turn):
        values[two.name] = Value(((one,),))
    elif not any(one.turn):
        values[one.name] = Value(((two,),))
    else:
        raise ValueError(f"the orders of {one} and {two} do not combine")


def substituted(array: Signature, values: Values) -> Signature:
    """Return an array with other axes in place of its own. Raises: ValueError where the notation has no form for it."""
    path = tuple(_hole(piece, values) if isinstance(piece, Hole) else piece for piece in array.path)
    return Signature(path, None if array.axes is None else tuple(_dim(dim, values) for dim in array.axes))


def _hole(hole: Hole, values: Values) -> Hole:
    if hole.name not in values:
        return hole
    value = values[hole.name]
    if not _plain(value.factors) or value.window:
        raise ValueError(f"the number {{{hole.name}}} becomes {' '.join('+'.join(map(str, f)) for f in value.factors)}")
    return hole._replace(name=value.factors[0][0].name)


def _dim(dim: Dim, values: Values) -> Dim:
    if _plain(dim.factors) and (value := values.get(dim.factors[0][0].name)) and value.window:
        if dim.window:
            raise ValueError(f"a window of the window {dim}")
        return Dim(value.factors, value.window)
    return dim._replace(factors=tuple(factor for old in dim.factors for factor in _factor(old, values)))


def _factor(factor: Factor, values: Values) -> tuple[Factor, ...]:
    if len(factor) == 1:
        (part,) = factor
        if part.name not in values:
            return (factor,)
        value = values[part.name]
        if value.window:
            raise ValueError(f"a window of {part.name}, which does not stand alone")
        single = len(value.factors) == 1 and len(value.factors[0]) == 1
        if single:
            return ((_through(part, value.factors[0][0]),),)
        if any(part.turn) or part.window:
            raise ValueError(f"{part} is composed of several axes in the other table")
        return value.factors
    parts: list[Part] = []
    for part in factor:
        value = values.get(part.name, Value(((part,),)))
        if len(value.factors) != 1 or value.window or (len(value.factors[0]) > 1 and any(part.turn)):
            raise ValueError(f"{part.name}, a part of a sum, is composed of several axes in the other table")
        several = len(value.factors[0]) > 1
        parts += value.factors[0] if several or part.name not in values else [_through(part, value.factors[0][0])]
    return (tuple(parts),)


def _through(outer: Part, inner: Part) -> Part:
    """Tell where an axis that is itself at another's position stands."""
    length = inner.length or outer.length
    if outer.window and inner.window:
        raise ValueError(f"a window of the window {inner}")
    if not any(outer.turn):
        return inner._replace(length=length, window=outer.window or inner.window)
    if not any(inner.turn):
        return outer._replace(name=inner.name, length=length)
    if not inner.order:
        return outer._replace(name=inner.name, backwards=outer.backwards != inner.backwards)
    raise ValueError(f"the orders of {outer} and {inner} do not combine")
