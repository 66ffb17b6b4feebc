"""Say how two calls of an operation differ, and two tables of constants: masks, rotations, positions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.derive.limits import EQUAL_TABLES, HIDING
from parity.derive.trace.sites import OWN
from parity.derive.trace.tape import Array, Operation, tried
from specs.numbers import apart, exact, measured
from specs.words import count

from .buckets import unlike_buckets
from .edit import SIDES, two_sided

SHIFTS = 8  # rows by which positions may be off, and at most half of all: a few rows are alike by chance
SINES = "sines and cosines of positions"
CLOSE = 1e-6  # relative difference of angles that rounding of sines explains
POWER_DIGITS = 6  # of the ratio of two neighbours in a table of powers, which float32 has
LIKE = 1e-3  # the same of bases, which are a power of the ratio of angles


def placed(site: str, called: str) -> str:
    """Name operations by their module and by what the framework calls them."""
    return f"{site} ({called})" if site and called else site or called or OWN


class Place(NamedTuple):
    """Operations in one module.

    Args:
      site: the path of the module, "" for the model's own function. called: what the framework calls them.
    """

    site: str
    called: str

    @property
    def name(self) -> str:
        return placed(self.site, self.called)

    @property
    def bare(self) -> Place:
        """Return it without the module, if there is a name beside that."""
        return self._replace(site="" if self.called else self.site)

    @property
    def operation(self) -> str:
        """Name the operations alone: "max" for XLA's reduce_max."""
        return re.sub(r"\breduce_(?!window)", "", self.called)


MASK = "mask"  # the kind of edits of masks


class Words(NamedTuple):
    """How both sides differ; see Edit for its fields."""

    what: str
    fault: str = ""
    both: tuple[str, ...] = ()
    kind: str = "operation"


def other_values(left: Place, right: Place) -> Words:
    """Say that operations differ of which no more is known: "mean on the left, max on the right (in Net)"."""
    both = (left.operation, right.operation) if _names_differ(left, right) else ()
    return Words(_other_values(left, right), _other_values(left.bare, right.bare), both)


class Setting(NamedTuple):
    """A setting in which two calls of an operation differ."""

    name: str
    left: str
    right: str

    @property
    def text(self) -> str:
        return f"{self.name} {two_sided(self.left, self.right)}"


def other_settings(at: Place, settings: Sequence[Setting]) -> Words:
    """Say that calls of one operation differ in settings: "layers.0 (avg_pool2d): ceil_mode True on the left, ..."."""
    text = ", ".join(setting.text for setting in settings)
    left, right = (", ".join(f"{each.name} {getattr(each, side)}" for each in settings) for side in SIDES)
    return Words(f"{at.name}: {text}", f"{at.bare.name}: {text}", (left, right))


def over_axes(left: Place, right: Place, axes: Sequence[Sequence[int]]) -> Words:
    """Say over which axes operations compute: "fft over axes 1, 2 on the left, fft_r2c over axes 0, 1, 2 on the right".

    Args:
      axes: of the left and of the right one; axis 0 is the batch.
    """
    texts = [f"{at.operation or 'an operation'} over {'axes' if len(some) > 1 else 'axis'} {', '.join(map(str, some))}"
             for at, some in zip((left, right), axes, strict=True)]  # fmt: skip
    text = two_sided(*texts)
    return Words(f"{left.site}: {text}" if left.site else text, text, (texts[0], texts[1]))


def _names_differ(left: Place, right: Place) -> bool:
    """Tell whether operations have other names, which then say how they differ."""
    return bool(left.called and right.called) and left.operation != right.operation


def _other_values(left: Place, right: Place) -> str:
    if not _names_differ(left, right):
        return f"{left.name} on the left and {right.name} on the right compute other values from the same input"
    sides = zip((left, right), ("left", "right"), strict=True)
    return ", ".join(f"{at.operation} on the {side}{f' (in {at.site})' * bool(at.site)}" for at, side in sides)


def unlike(left: Operation, right: Operation) -> list[Setting]:
    """List the settings in which calls of one operation differ."""
    if left.name != right.name:
        return []
    names = dict.fromkeys([*left.settings, *right.settings])
    pairs = [(name, left.settings.get(name), right.settings.get(name)) for name in names]
    return [Setting(name, _text(a), _text(b)) for name, a, b in pairs if a != b]


def _text(value: Any) -> str:
    return measured(value, 6) if isinstance(value, float) else exact(value)


class Mask(NamedTuple):
    """What some places of an array get in place of their values: True in `hidden`, and the one number."""

    hidden: Array
    number: float

    @property
    def text(self) -> str:
        (hidden,) = without_copies(self.hidden)
        return f"a mask that hides {int(hidden.sum()):,} of {hidden.size:,} places"


def mask(run: Callable[[Array], Array], shape: tuple[int, ...]) -> Mask | None:
    """Return the mask that an operation applies to arrays of a shape; None for one that does something else."""
    x = np.random.default_rng(0).standard_normal(shape)
    one, other = tried(run, x), tried(run, 2 * x)
    if one is None or other is None or not one.shape == other.shape == shape:
        return None
    hidden = one != x
    numbers = np.unique(one[hidden])
    masks = len(numbers) == 1 and np.array_equal(hidden, other != 2 * x) and (other[hidden] == numbers).all()
    return Mask(hidden, float(numbers[0])) if masks else None


def dropout(run: Callable[[Array], Array], shape: tuple[int, ...]) -> str:
    """Say what a function zeroes if it multiplies all other values by one number, as dropout does; "" if not."""
    x = np.random.default_rng(0).uniform(1, 2, shape)
    factors = tried(lambda values: run(values) / values, x)
    if factors is None:
        return ""
    zeroed = np.count_nonzero(factors == 0)
    largest = factors.max(initial=0)
    if not zeroed or largest <= 1 or not np.isclose(factors[factors != 0], largest).all():
        return ""
    return f"a random mask that zeroes {zeroed:,} of {factors.size:,} values, as dropout does"


def between(left: Mask, right: Mask) -> Words:
    """Say how two masks differ: by what they hide, or by the number that they put there."""
    if not np.array_equal(left.hidden, right.hidden):
        return Words(f"a mask hides {_places(left.hidden, right.hidden)}", kind=MASK)
    numbers = apart(left.number, right.number)
    text = "masked places get"
    return Words(f"{text} {two_sided(*numbers)}", both=(f"{text} {numbers[0]}", f"{text} {numbers[1]}"), kind=MASK)


def _places(left: Array, right: Array) -> str:
    """Count the places that are true on each side, and name the first that differs."""
    one, other = map(np.squeeze, without_copies(left, right))
    first = ", ".join(map(str, np.argwhere(one != other)[0]))
    both = f"{int(one.sum()):,} of {one.size:,} places on the left, {int(other.sum()):,} on the right"
    return f"{both}; the first that differs is [{first}]"


def without_copies(*tables: Array) -> list[Array]:
    """Reduce to one place the axes along which all tables repeat themselves, as over images and heads."""
    some = list(tables)
    for axis in range(tables[0].ndim):
        first = [one.take([0], axis) for one in some]
        if all((one == of).all() for one, of in zip(some, first, strict=True)):
            some = first
    return some


def named(table: Array, of_inputs: bool = False) -> str:
    """Name one table by what it does. Args: of_inputs: whether it is computed from the inputs."""
    if hides(table):
        return Mask(table < 0, 0.0).text
    if (turns := _turns(table)) is not None:
        return f"{SINES} of base {measured(turns[0])}"
    return f"values of {_shape(table)} computed from the inputs" if of_inputs else f"a table of {_shape(table)}"


def difference(left: Array, right: Array) -> str:
    """Say how two tables of one shape differ."""
    for compare in COMPARED:
        if text := compare(left, right):
            return text
    places = np.argwhere(left != right)
    first = tuple(map(int, places[0]))
    values = apart(float(left[first]), float(right[first]))
    where = f"{len(places):,} of {left.size:,} values of a table of {_shape(left)}, first at {list(first)}"
    return f"{where}: {two_sided(*values)}"


def _shape(table: Array) -> str:
    return " x ".join(map(str, table.shape))


def hides(table: Array) -> bool:
    """Tell whether a table is a mask that is added: zeros, and numbers that hide a place."""
    return bool((table <= 0).all() and (table == 0).any() and (table[table < 0] <= HIDING).all() and (table < 0).any())


def _masks(left: Array, right: Array) -> str:
    """Tell masks that are added: zeros, and one number, which hides a place on one side at least."""
    masks = [Mask(side != 0, float(side.min())) for side in (left, right)]
    if not (hides(left) or hides(right)) or any(len(np.unique(side[side != 0])) != 1 for side in (left, right)):
        return ""
    return between(*masks).what


def _zeros_and_ones(left: Array, right: Array) -> str:
    """Tell tables of nothing but zeros and ones, as of masks that are factors, by their zeros."""
    if not (np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all()):
        return ""
    return f"a table of zeros and ones has zeros at {_places(left == 0, right == 0)}"


def _rotations(left: Array, right: Array) -> str:
    """Tell sines or cosines of positions times powers of a base, by the base, or by how fast they turn."""
    one, other = _turns(left), _turns(right)
    if one is None or other is None:
        return ""
    ratio = other[1] / one[1]
    larger = f", which are {measured(ratio)} times as large on the right" if abs(ratio - 1) > CLOSE else ""
    if abs(one[0] / other[0] - 1) > LIKE:
        bases = apart(one[0], other[0])
        return f"{SINES} of base {two_sided(*bases)}{larger}"
    return f"{SINES}{larger}" if larger else ""


def _turns(table: Array) -> tuple[float, float] | None:
    """Return (b, c) of a table of sines and cosines of c * row * b ** (-2 k / columns); None if it is no such table."""
    table = np.squeeze(table)
    if table.ndim != 2 or len(table) < 2 or table.dtype.kind != "f" or (np.abs(table) > 1).any():
        return None
    if not ((table[0] == 0) | (table[0] == 1)).all():
        return None
    every = np.sort(np.where(table[0] == 1, np.arccos(table[1]), np.arcsin(table[1])))[::-1]
    angles = every[np.append(True, every[1:] < every[:-1] * (1 - CLOSE))]
    if len(angles) < 2 or angles[-1] <= 0:
        return None
    ratios = angles[1:] / angles[:-1]
    # the cosine of a small angle has few digits of it
    return (float(ratios[0] ** -len(angles)), float(angles[0])) if np.allclose(ratios, ratios[0], 1e-3, 0) else None


def _columns(left: Array, right: Array) -> str:
    """Tell tables whose columns stand in another order; of sines and cosines, in which one."""
    left, right = np.squeeze(left), np.squeeze(right)
    if left.ndim != 2 or left.shape != right.shape or np.allclose(left, right, CLOSE, CLOSE):
        return ""
    one, other = (table[:, np.lexsort(table[::-1])] for table in (left, right))
    if not np.allclose(one, other, CLOSE, 0):
        return ""
    orders = [_order(table) for table in (left, right)]
    if all(orders) and orders[0] != orders[1]:
        return f"{SINES}: {two_sided(*orders)}"
    return f"a table of {_shape(left)} whose columns stand in another order on the right"


def _order(table: Array) -> str:
    """Say which columns of a table of sines and cosines have these; "" where the first row does not tell."""
    if _turns(table) is None:
        return ""
    cosines = (table[0] == 1).tolist()
    half = len(cosines) // 2
    names = {
        (False,) * half + (True,) * half: "sines first",
        (True,) * half + (False,) * half: "cosines first",
        (False, True) * half: "sine and cosine in turn",
        (True, False) * half: "cosine and sine in turn",
    }
    return names.get(tuple(cosines), "")


def _multiples(left: Array, right: Array) -> str:
    """Tell tables of which one is a multiple of the other."""
    at = np.unravel_index(np.abs(left).argmax(), left.shape)
    zero = any(np.abs(side).max() <= EQUAL_TABLES for side in (left, right))  # up to rounding
    ratio = 0.0 if zero else float(right[at] / left[at])
    if not ratio or not np.allclose(right, ratio * left, 1e-9, 0):
        return ""
    return f"a table that is {measured(ratio, 6)} times as large on the right"


def _slopes(left: Array, right: Array) -> str:
    """Tell tables of distances times a slope of each head (ALiBi) by their slopes, beside places that both hide."""
    left, right = np.squeeze(left), np.squeeze(right)
    if left.shape != right.shape or left.ndim not in (2, 3) or len(left) < 2:
        return ""
    shown = (left > HIDING) & (right > HIDING)
    one, other = (np.where(shown, side, 0.0).reshape(len(side), -1) for side in (left, right))
    if not np.array_equal(left[~shown], right[~shown]) or not one[0].any():
        return ""
    at = np.where(one[0] == 0, np.inf, np.abs(one[0])).argmin()  # where positions are one step apart
    slopes = [side[:, at] for side in (one, other)]
    pairs = zip((one, other), slopes, strict=True)
    if not all(np.allclose(side * slope[0], np.outer(slope, side[0]), CLOSE, 0) for side, slope in pairs):
        return ""
    if left.ndim == 2 and not np.allclose(one[0], slopes[0][0] * np.arange(one.shape[1]), CLOSE):  # of keys alone
        return ""
    texts = [" to ".join(map(measured, (slope[0], slope[-1]))) for slope in slopes]
    return f"slopes of positions: {two_sided(*texts)}"


def _powers(left: Array, right: Array) -> str:
    """Tell tables of the powers of one number, as frequencies of time steps are."""
    if left.size < 3:
        return ""
    with np.errstate(all="ignore"):
        ratios = [np.unique(np.round(side.ravel()[1:] / side.ravel()[:-1], POWER_DIGITS)) for side in (left, right)]
    if any(len(some) > 1 or not 0 < some[0] != 1 for some in ratios):
        return ""
    one, other = (float(some[0]) for some in ratios)
    return f"a table of {_shape(left)} has the powers of {two_sided(*apart(one, other))}"


def _later_rows(left: Array, right: Array) -> str:
    """Tell tables of which one begins with a later row of the other."""
    left, right = np.squeeze(left), np.squeeze(right)
    for k in range(1, min(SHIFTS, len(left) // 2) + 1):
        for one, other, where in ((left, right, "right"), (right, left, "left")):
            if np.allclose(one[k:], other[:-k], 1e-9, 1e-12):
                return f"a table of positions begins {count(k, 'row')} later on the {where}"
    return ""


COMPARED = (
    _masks, unlike_buckets, _zeros_and_ones, _rotations, _columns, _slopes, _multiples, _powers, _later_rows,
)  # fmt: skip
