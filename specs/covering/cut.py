"""Count what a Table drops of arrays, and refuse arrays of other lengths where a derived one drops an open range."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from specs.applied.moves import Shape
from specs.notation.claims import derived_whole, last_range
from specs.notation.lines import Line, Lines
from specs.notation.paths import match
from specs.notation.signature import Signature
from specs.solving.sizes import Remedy, SizeError
from specs.words import count

from .places import Box

OTHERWISE = "drops another part of an array than in the models that it was derived from"


def amount(boxes: Sequence[Box], shape: Shape) -> str:
    """Count what boxes take of an array: "1,017 of 1,024 rows", or "16 of 72 elements" where they are no whole rows."""
    if all(atoms == shape and spans[1:] == tuple((0, n) for n in atoms[1:]) for atoms, spans in boxes):
        rows = sum(stop - start for _, ((start, stop), *_) in boxes)
        return f"{rows:,} of {count(shape[0], 'row')}"
    taken = sum(math.prod(stop - start for start, stop in spans) for _, spans in boxes)
    return f"{taken:,} of {count(math.prod(shape), 'element')}"


def check_derived(table: Lines, cut: Iterable[str], shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> None:
    """Check that arrays of which a derived Table drops an open range, as x[7:], are as long as in the models it is of.

    Of a longer array that line drops more: 7 is a number of these models. A line that the derivation did not write, or
    that was edited since, is taken at its word.

    Args:
      cut: names of the left arrays of which a part is dropped. shapes: of the left arrays.
      sizes: lengths that the user gives: that of the range confirms the line.
    Raises: SizeError.
    """
    whole, names, problems = derived_whole(table), dict[str, None](), list[str]()
    ranges = [each for each in _open_ranges(table) if str(each[1]) in whole]
    for name, (line, array, axis) in itertools.product(cut if ranges else (), ranges):
        if not match(array.path, name) or (length := shapes[name][axis]) == whole[str(array)]:
            continue
        dim, derived = (array.axes or ())[axis], whole[str(array)]
        letter, start = dim.factors[0][0].name, (dim.window or (0, 0))[0] or 0
        if sizes.get(letter) != length - start:
            names[letter] = None
            counts = f"{length - start:,} of {length:,}, in those models {derived - start:,} of {derived:,}"
            confirmed = (
                f"{letter}={length - start} confirms it, and another number than {start} in the lines changes it"
            )
            problems.append(f"{name}: {dim} on line {line.number} drops {counts}: {confirmed}")
    if problems:
        raise SizeError(f"{table.name}: {OTHERWISE}", problems, Remedy(tuple(names), or_like=True))


def _open_ranges(table: Lines) -> Iterator[tuple[Line, Signature, int]]:
    """Yield (line, array, axis) of each range without an end that lines drop."""
    for line in table.lines:
        for array in line.left.arrays if line.kind == "drop" else ():
            axis, dim = last_range(array) or (0, None)
            if dim and dim.window and dim.window[1] is None and dim.factors:
                yield line, array, axis
