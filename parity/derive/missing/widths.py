"""Compare the sizes of parameters that read the same values: two models of other widths have no translation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.limits import PARTED_USES
from parity.derive.match import columns
from parity.derive.match.choices import every
from parity.derive.match.symbols import Elements, Use
from parity.derive.match.uses import distinct_of
from parity.derive.prove.pairs import Mapped, Run, of_product, pairs
from parity.derive.trace.tape import Array
from specs.words import in_a_row

RESIZED = 1.25  # by how many times a model of another width has more elements; fused parameters have as many
NAMED = 2  # pairs of parameters that are named as examples


class Resized(NamedTuple):
    """Parameters whose shapes differ in one length.

    Args:
      lengths: on the left and on the right.
      part: whether the right one has a part of the left one's elements.
      joined: whether it may have those of other left parameters besides, so that both models are of one size.
    """

    left: str
    right: str
    lengths: tuple[int, int]
    part: bool = True
    joined: bool = False

    @property
    def why(self) -> str:
        """Say why the right one has no line."""
        if self.joined:
            return f"it has as many elements as {self.left} and others of that shape together, which were not matched"
        return f"it has {self.lengths[1]} where {self.left} has {self.lengths[0]}"


def resized(
    left: Run, right: Run, mapped: Mapped, partners: Mapping[str, str], unfit: Collection[str]
) -> list[Resized]:
    """Return what reads the same values on both sides and has another size.

    These are right parameters with a part of a left one, of which the left model reads all, and a matrix without a
    partner that reads what one on the left reads, or of which the same rows are read, unless a free left array that is
    read has its size; then all whose sizes differ by the same two lengths.

    Args:
      partners: right parameters that consist of elements of one left one, which no other has; and that one.
      unfit: right parameters that no line describes.
    """
    shapes, sized = (left.elements.shapes, right.elements.shapes), dict[tuple[str, str], Resized]()

    def add(left_name: str, right_name: str, wanted: Collection[tuple[int, int]] = (), of_rows: bool = False) -> None:
        lengths = _lengths(shapes[0][left_name], shapes[1][right_name])
        if lengths and (not wanted or lengths in wanted):
            joined = not of_rows and _joined(left_name, math.prod(shapes[1][right_name]), left, mapped)
            sized[left_name, right_name] = Resized(left_name, right_name, lengths, right_name in partners, joined)

    for one, other in _reading(left, right, mapped):
        left_names, right_names = left.elements.owners(one.ids), right.elements.owners(other.ids)
        if len(left_names) == len(right_names) == 1:
            add(left_names[0], right_names[0], of_rows=other.kind == "place")  # all that reads these rows was counted
    for name in unfit:
        if name in partners:
            add(partners[name], name)
    if wanted := {pair.lengths for pair in sized.values()}:
        for name, owner in partners.items():
            add(owner, name, wanted)
    return list(sized.values())


def _joined(name: str, size: int, left: Run, mapped: Mapped) -> bool:
    """Tell whether a left parameter and those of its shape without a partner have this size together."""
    owned, shapes = mapped.owned(left.elements), left.elements.shapes
    alike = [other for other, shape in shapes.items() if shape == shapes[name] and other != name]
    free = [other for other in alike if not left.elements.part(owned, other).any()]
    return bool(free) and (1 + len(free)) * math.prod(shapes[name]) == size


def _reading(left: Run, right: Run, mapped: Mapped) -> list[tuple[Use, Use]]:
    """Return uses that meet the same values, the left one with elements that no right one has."""
    owned = mapped.owned(left.elements)
    met = [
        (pair.left, pair.right)
        for pair in pairs(left, right, mapped)
        if pair.left
        and pair.right
        and pair.gap <= PARTED_USES
        and _counts(pair.left) == _counts(pair.right)
        and not every(owned, pair.left.ids)
    ]
    if use := _first(right, mapped):
        lefts, rights = (_alike(use, right, side) for side in (left, right))
        # what reads other values on the right was taken for want of a better partner
        numbers = np.zeros_like(mapped.numbers)
        for ids in (distinct_of(seen.ids) for seen in rights):
            numbers[ids] = mapped.numbers[ids]
        taken = mapped._replace(numbers=numbers).owned(left.elements)
        lefts = [seen for seen in lefts if not every(taken, seen.ids)]
        rights = [seen for seen in rights if not every(mapped.numbers != 0, seen.ids)]
        # of one size, one side has in several what the other has in one; and a free left array may be the partner
        if _size(left, lefts) != _size(right, rights) and not _fitting(use, left, right, owned):
            met += [(seen, use) for seen in lefts[:1]]
    return met


def _counts(use: Use) -> tuple[str, int]:
    """Return the kind of a use, and of a product how many values each row of it reads: a part of them is no size."""
    return use.kind, math.prod(use.ids.shape[:2]) if use.kind == "product" else 0


def _alike(use: Use, right: Run, side: Run) -> list[Use]:
    """Return the products of a side that read the same values as one on the right, or what reads the same rows."""
    if use.kind == "place":
        rows = _rows(use, right)
        return [seen for seen in side.uses if seen.kind == "place" and rows and _rows(seen, side) == rows]
    wanted = of_product(use, right)
    some = (seen for seen in side.uses if _counts(seen) == _counts(use))
    every = ((seen, of_product(seen, side)) for seen in some)
    return [seen for seen, own in every if len(wanted) == len(own) and columns.distance(wanted, own) <= PARTED_USES]


def _rows(use: Use, side: Run) -> dict[int, int]:
    """Return how often a use reads each row of a table, as of an embedding; {} where it reads no rows of one table."""
    names, numbers = side.elements.owners(use.ids), np.asarray(use.ids, np.int64).ravel()
    shape = side.elements.shapes[names[0]] if len(names) == 1 else ()
    if len(shape) != 2 or numbers.min() <= 0:
        return {}
    rows, counts = np.unique((numbers - side.elements.first(names[0])) // shape[1], return_counts=True)
    return dict(zip(rows.tolist(), (counts / shape[1]).tolist(), strict=True))


def _fitting(use: Use, left: Run, right: Run, owned: Array) -> bool:
    """Tell whether a left parameter without a partner, which something reads, has the lengths of one of a right use."""
    read = {name for seen in left.uses for name in left.elements.owners(seen.ids)}
    free = [name for name in left.elements.names if name in read and not left.elements.part(owned, name).any()]
    lengths = [_counted(left.elements.shapes[name]) for name in free]
    return any(_counted(right.elements.shapes[name]) in lengths for name in right.elements.owners(use.ids))


def _size(side: Run, uses: Iterable[Use]) -> int:
    """Count the elements of the parameters of some uses."""
    names = {name for use in uses for name in side.elements.owners(use.ids)}
    return sum(math.prod(side.elements.shapes[name]) for name in names)


def _first(right: Run, mapped: Mapped) -> Use | None:
    """Return the first use of elements without a partner, if it is a product, or reads them as they are."""
    known = mapped.numbers != 0
    rest = (use for use in right.uses if not every(known, use.ids))
    use = next(rest, None)
    return use if use is not None and use.kind in ("product", "place") else None


def _lengths(left: Sequence[int], right: Sequence[int]) -> tuple[int, int] | None:
    """Return the one length in which two shapes differ, whatever the order of their axes, and axes of length 1."""
    one, other = _counted(left), _counted(right)
    left_only, right_only = list((one - other).elements()), list((other - one).elements())
    return (left_only[0], right_only[0]) if len(left_only) == len(right_only) == 1 else None


def _counted(shape: Sequence[int]) -> Counter[int]:
    """Return how often a shape has each length, without axes of length 1."""
    return Counter(n for n in shape if n > 1)


def usual(lefts: Elements, rights: Elements) -> str:
    """Say that most vectors of both models have other lengths, which no vector of the other one has; "" if not."""
    counts = [Counter(shape[0] for shape in side.shapes.values() if len(shape) == 1) for side in (lefts, rights)]
    if not all(counts):
        return ""
    (left_length, _), (right_length, _) = (count.most_common(1)[0] for count in counts)
    if (
        left_length in counts[1]
        or right_length in counts[0]
        or abs(math.log(len(lefts) / len(rights))) < math.log(RESIZED)
    ):
        return ""
    return f"most vectors of the left model have length {left_length}, most of the right one {right_length}"


def sentence(pairs: Iterable[Resized], lefts: Elements, rights: Elements) -> str:
    """Say which lengths differ, with parameters that show it."""
    groups: dict[tuple[int, int], list[Resized]] = {}
    for pair in (pair for pair in pairs if not pair.joined):
        groups.setdefault(pair.lengths, []).append(pair)
    texts = []
    for (left_length, right_length), some in groups.items():
        shown = [
            f"{pair.left} {list(lefts.shapes[pair.left])} and {pair.right} {list(rights.shapes[pair.right])}"
            for pair in some[:NAMED]
        ]
        texts.append(f"the left model has {left_length} where the right one has {right_length}, in {in_a_row(shown)}")
    return "; ".join(texts)
