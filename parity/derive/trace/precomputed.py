"""Find tables that both sides compute (positions, masks, rates of rotation), one of them in lower precision.

A table depends on constants and on inputs of integers alone. Where one of a side's is, up to rounding to float32, one
of the other side's or a part of it, that one takes its place: the rest of the two models can then be compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.derive.limits import EQUAL_TABLES, HIDING, LARGE_TABLES, ROUNDED_TABLES

from .tape import Array, Node, Tape

MERGED = 2.0**-22  # relative difference of two numbers that float32 tells apart: two units of its last place
FIXED = 8  # different values that make a parameter a table which the other side computes


class Precomputed(NamedTuple):
    """A value of a tape that depends on constants and on inputs of integers alone, and the module that reads it."""

    number: int
    value: Array
    site: str


class RoundedTable(NamedTuple):
    """A table that the sides compute with different precision: the modules that read it, the relative difference.

    Args:
      value: the table, of the side that computes it with more precision where that shows.
      numbers: the table's value on the left and on the right, if it has one value; else None.
      low: whether float32 holds all of its values on the left, and on the right.
    """

    left: str
    right: str
    size: float
    value: Array
    numbers: tuple[float, float] | None = None
    low: tuple[bool, bool] = (False, False)

    @property
    def mirrored(self) -> RoundedTable:
        """Return the same with the sides exchanged."""
        numbers = self.numbers and self.numbers[::-1]
        return self._replace(left=self.right, right=self.left, numbers=numbers, low=self.low[::-1])

    @property
    def side(self) -> str:
        """Return the side that computes the table in float32, "left" or "right"; "" where that does not show."""
        return {(True, False): "left", (False, True): "right"}.get(self.low, "")


def aligned(
    left: Tape, right: Tape, left_inputs: Sequence[Array], right_inputs: Sequence[Array]
) -> tuple[Tape, Tape, list[RoundedTable]]:
    """Return both tapes with the same values in tables that are equal up to rounding, and these tables.

    The right side takes those of the left one, then the left one those of the right one: either may have joined several
    tables of the other one, or have more rows.
    """
    right, rounded = _with_values_of(left, right, left_inputs, right_inputs)
    left, others = _with_values_of(right, left, right_inputs, left_inputs)
    return left, right, [*rounded, *(table.mirrored for table in others)]


def _with_values_of(
    one: Tape, other: Tape, inputs: Sequence[Array], other_inputs: Sequence[Array]
) -> tuple[Tape, list[RoundedTable]]:
    """Return the second tape with the values of the first one in place of tables that are equal up to rounding."""
    known = _known(tables(one, inputs, "fc"))
    replaced: dict[int, Array] = {}
    rounded: dict[tuple[str, str], RoundedTable] = {}
    for table in tables(other, other_inputs, "fc"):
        if (near := _nearest(table, known)) is not None:
            value, size, site = near
            replaced[table.number] = value
            one_value = table.value.dtype.kind == "f" and np.ptp(table.value) == 0
            single = (float(value.flat[0]), float(table.value.flat[0])) if one_value else None
            low = _is_float32(value), _is_float32(table.value)
            exact = table.value if low[0] else value
            rounded.setdefault((site, table.site), RoundedTable(site, table.site, size, exact, single, low))
    return (with_tables(other, replaced) if replaced else other), list(rounded.values())


def _is_float32(value: Array) -> bool:
    """Tell whether float32 holds all values, those of complex numbers part by part."""
    return bool((value == value.astype(np.complex64 if value.dtype.kind == "c" else np.float32)).all())


def with_tables(tape: Tape, values: Mapping[int, Array]) -> Tape:
    """Return a tape with other values in place of those of some of its tables, or parameters, by number."""
    parameters = values.keys() & tape.parameters.values()
    renamed = {number: tape.size + k for k, number in enumerate(sorted(parameters))}
    values = {renamed.get(number, number): value for number, value in values.items()}
    nodes, active, constants = list[Node](), set(tape.inputs), {**tape.constants, **values}
    for node in tape.nodes:
        node = node._replace(inputs=tuple(renamed.get(number, number) for number in node.inputs))
        given = not active.isdisjoint(node.inputs)
        if given:
            active.add(node.output)
        if node.output not in values:
            nodes.append(node)
        elif given:  # what is computed from the table still depends on the inputs, as on the other side
            nodes.append(node._replace(kind="other", run=_always(constants.pop(node.output)), window=None))
    return replace(tape, nodes=nodes, constants=constants, size=tape.size + len(renamed))


def _always(value: Array) -> Callable[..., Array]:
    return lambda *_: value


def tables(tape: Tape, inputs: Sequence[Array], kinds: str = "f") -> list[Precomputed]:
    """List the tables of floats that meet other values, or are outputs.

    Args:
      kinds: of their dtypes; "fc" for complex numbers too.
    """
    tape = tape.live()
    values: dict[int, Array] = {**tape.constants}
    values |= {
        number: value
        for number, value in zip(tape.inputs, inputs, strict=True)
        if getattr(getattr(value, "dtype", None), "kind", "") in tuple("iub")
    }
    read: dict[int, str] = {}
    with np.errstate(all="ignore"):
        for node in tape.nodes:
            if all(number in values for number in node.inputs):
                values[node.output] = node.run(*(values[number] for number in node.inputs))
            else:
                for number in node.inputs:
                    read.setdefault(number, node.site)
    read |= {number: "" for number in tape.outputs if number not in read}
    every = [
        Precomputed(number, values[number], site) for number, site in read.items() if _floats(values.get(number), kinds)
    ]
    return every if sum(table.value.size for table in every) <= LARGE_TABLES else []


def _floats(value: Array, kinds: str = "f") -> bool:
    return isinstance(value, (np.ndarray, np.inexact)) and value.dtype.kind in kinds and value.size > 0


def _real(value: Array) -> Array:
    """Return the numbers of a table; of complex ones, as rotations may be, both parts in a row."""
    return np.ascontiguousarray(value, np.complex128).view(np.float64) if value.dtype.kind == "c" else value


class Known(NamedTuple):
    """A table of the other side: its numbers, and those that are finite, each once and sorted."""

    numbers: Array
    distinct: Array
    site: str

    def near(self, numbers: Array, scale: Array) -> tuple[Array, float]:
        """Return the values of this table in the places of another one, which rounding may lead to, and their distance.

        It is infinite where rounding does not. Of a table of the same shape, values of two places may become one, as
        those of a window do that is the same from both ends.

        Args:
          scale: to which distances are relative.
        """
        finite = np.isfinite(numbers)
        if np.squeeze(self.numbers).shape == np.squeeze(numbers).shape and numbers.size > 1:
            same = self.numbers.reshape(numbers.shape)
            if _are_zero(same[finite], numbers[finite]):
                scale = np.ones_like(scale)
            gap = _gap(same[finite], numbers[finite], scale)
            if gap <= MERGED and np.array_equal(same[~finite], numbers[~finite], equal_nan=True):
                return same[finite], gap
        near = nearest(self.distinct, numbers[finite])
        gap = _gap(near, numbers[finite], scale)
        likely = gap <= EQUAL_TABLES or (gap <= ROUNDED_TABLES and _rounds(numbers[finite], self.distinct))
        return near, gap if likely else np.inf


def _are_zero(*tables: Array) -> bool:
    """Tell whether two tables are zero up to rounding, as cosines of pi / 2 are: one to float64, both to float32."""
    low, high = sorted(np.abs(table).max(initial=0) for table in tables)
    return bool(low <= EQUAL_TABLES and high <= MERGED)


def _gap(values: Array, others: Array, scale: Array) -> float:
    return float((np.abs(values - others) / scale).max())


def _known(tables: Iterable[Precomputed]) -> list[Known]:
    """Return the tables that have finite values; of those of equal ones the first."""
    known: dict[bytes, Known] = {}
    for table in tables:
        numbers = _real(table.value)
        distinct = np.unique(numbers[np.isfinite(numbers)])
        if len(distinct):
            known.setdefault(distinct.tobytes(), Known(numbers, distinct, table.site))
    return list(known.values())


def _nearest(table: Precomputed, known: Sequence[Known]) -> tuple[Array, float, str] | None:
    """Return (values of a left table in the shape of this one, their distance, its site); None if equal or unlike."""
    numbers = _real(table.value)
    finite = np.isfinite(numbers)
    sizes = np.abs(numbers[finite])
    hidden = sizes >= -HIDING  # these are compared by their own size, or any other would be near
    scale = np.where(hidden, sizes, sizes[~hidden].max(initial=0))
    if not scale.any():
        return None
    scale = np.maximum(scale, 1e-300)
    distances = [(*one.near(numbers, scale), one.site) for one in known]
    near, gap, site = min(distances, key=lambda one: one[1], default=(sizes, np.inf, ""))
    if not EQUAL_TABLES < gap < np.inf:
        return None
    value = np.array(numbers)
    value[finite] = near
    return value if numbers is table.value else value.view(np.complex128).reshape(table.value.shape), gap, site


def _rounds(values: Array, other: Array) -> bool:
    """Tell whether rounding may lead from one table to another that is near: some of many values are near by chance.

    One number is no part of a table, and values that float32 tells apart do not become one value.

    Args:
      other: distinct values of the other table, sorted.
    """
    own = np.unique(values)
    merged = np.diff(nearest(other, own)) == 0
    apart = np.diff(own) > MERGED * np.abs(own[1:])
    return (len(own) > 1 or len(other) == 1) and not (merged & apart).any()


def nearest(known: Array, values: Array) -> Array:
    """Return the nearest of the known values, which are sorted, to each value."""
    after = np.clip(np.searchsorted(known, values), 1, max(len(known) - 1, 1))
    low, high = known[np.minimum(after - 1, len(known) - 1)], known[np.minimum(after, len(known) - 1)]
    return np.where(values - low <= high - values, low, high)


def fixed(parameters: Mapping[str, Array], other: Tape) -> list[str]:
    """List parameters that hold a table which the other side has as a constant, up to rounding to float32."""
    sets = (np.unique(value[np.isfinite(value)]) for value in other.constants.values() if _floats(value))
    constants = [values for values in sets if len(values) >= FIXED and (values != np.round(values)).any()]
    names = []
    for name, array in parameters.items():
        if not constants or array.size > LARGE_TABLES:
            continue
        likely = [constant for constant in constants if _within(constant, array)]
        distinct = np.unique(array) if likely else array
        for constant in likely:
            span = distinct[-1] - distinct[0]
            slack = ROUNDED_TABLES * np.abs(constant).max()
            sparse = len(distinct) * slack < 0.1 * span  # else any number is near to one of them
            if sparse and (np.abs(nearest(distinct, constant) - constant) <= slack).all():
                names.append(name)
                break
    return names


def _within(constant: Array, array: Array) -> bool:
    """Tell whether a constant, which is sorted, lies within the range of an array: sorting this takes longer."""
    slack = ROUNDED_TABLES * max(abs(constant[0]), abs(constant[-1]))
    return bool(array.min(initial=np.inf) <= constant[0] + slack and constant[-1] - slack <= array.max(initial=-np.inf))


def masks(parameters: Mapping[str, Array]) -> list[str]:
    """List matrices that hide or choose places: zeros and a number that stands for minus infinity, or zeros and ones.

    The identity is none: weights may begin as it.
    """
    names = []
    for name, array in parameters.items():
        if (
            array.ndim < 2
            or array.size > LARGE_TABLES
            or (array.flat[0] not in (0, 1) and array.flat[0] > HIDING)
            or len(distinct := np.unique(array)) != 2
        ):
            continue
        low, high = distinct
        identity = array.ndim == 2 and np.array_equal(array, np.eye(*array.shape))
        if (high == 0 and low <= HIDING) or (low == 0 and high == 1 and not identity):
            names.append(name)
    return names
