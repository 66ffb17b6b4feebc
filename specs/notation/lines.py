"""Define the records that a Table consists of: its lines, their sides and cells. table.py uses them."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

from .axes import Part
from .folding import capped, fold
from .folding import misfits as folded
from .paths import Hole
from .signature import Signature

VERSION = 1
MAX_TEXT = 8 << 20  # bytes of a table
MAX_LINE = 100_000  # characters
MAX_CELLS = 1_000  # combinations of summands in one array
MAX_ORDER = 10_000_000  # numbers in a file of an order
MAX_ORDER_TEXT = 100 << 20  # bytes of one


class TableError(ValueError):
    """A table that cannot be read, or does not fit the arrays at hand. `problems` are all of them, a line each."""

    def __init__(self, message: str, problems: Iterable[str] = ()):
        self.message, self.problems = message, list(problems)
        super().__init__(message)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {problem}" for problem in self.problems)])


class Misfit(TableError):
    """Arrays that do not fit a table.

    Args:
      missing: names that lines need and the arrays at hand lack; unexpected: names that no line speaks of.
      misfits: (name, what is wrong with it).
    """

    def __init__(self, message: str, missing: list[str], unexpected: list[str], misfits: list[tuple[str, str]]):
        self.missing, self.unexpected, self.misfits = missing, unexpected, misfits
        lines = capped([f"missing {name}" for name in fold(missing)], "missing")
        lines += capped([f"unexpected {name}" for name in fold(unexpected)], "unexpected")
        super().__init__(message, lines + folded(misfits))


class Constant(NamedTuple):
    """The value of all elements of an array, and its dtype ("": that of the other arrays)."""

    value: float
    dtype: str = ""

    def __str__(self) -> str:
        return f"{self.value!r} {self.dtype}".rstrip()


class Side(NamedTuple):
    """The arrays of one side of a line.

    Args:
      join: how they relate: "," each has its part, "=" all are equal (ties), "+" only their sum counts.
      constant: the value of arrays that the other side does not have.
    """

    arrays: tuple[Signature, ...] = ()
    join: str = ","
    constant: Constant | None = None

    @property
    def alternatives(self) -> tuple[tuple[Signature, ...], ...]:
        """Return sets of arrays, each of which is the other side: all together, or each tied array or summand."""
        return (self.arrays,) if self.join == "," else tuple((array,) for array in self.arrays)

    def __str__(self) -> str:
        text = {",": ", ", "=": " = ", "+": " + "}[self.join].join(map(str, self.arrays))
        return text if self.constant is None else f"{text} = {self.constant}"


Choice = tuple[tuple[int, ...], ...]  # which part of each factor of each dimension


class Cell(NamedTuple):
    """A part of an array: one summand of every sum in its axes."""

    array: Signature
    choice: Choice

    def parts(self) -> Iterator[tuple[int, int, Part]]:
        """Yield (dimension, factor, part) of each factor."""
        for d, dim in enumerate(self.array.axes or ()):
            for f, factor in enumerate(dim.factors):
                yield d, f, factor[self.choice[d][f]]


Pairs = list[tuple[Cell, Cell]]


@dataclass(frozen=True)
class Line:
    """One line: arrays of the left side and the same elements on the right.

    Args:
      arrow: "<->"; "->" or "<-" where one side's arrays are dropped, or only their sum counts. With arrays of one side
        alone it ties names, without axes: other lines say what becomes of the first.
      number: the line in the file, counted from 1.
      above, comment: comment lines before it, and the one at its end.
    """

    left: Side
    right: Side
    arrow: str = "<->"
    number: int = field(default=0, compare=False)
    above: tuple[str, ...] = field(default=(), compare=False)
    comment: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """Return "move", "constant", "drop", "sum" or "tie"."""
        if self.left.constant or self.right.constant:
            return "constant"
        if not (self.left.arrays and self.right.arrays):
            return "tie" if self.arrow == "<->" and "=" in (self.left.join, self.right.join) else "drop"
        return "move" if self.arrow == "<->" else "sum"

    @property
    def fills(self) -> bool:
        """Tell whether it makes right arrays of no left ones: constants, zeros for a part of an array, and copies."""
        windows = self.kind == "drop" and any(array.windowed for array in self.right.arrays)
        return bool(self.right.arrays) and (self.kind in ("constant", "tie") or windows)

    def reverse(self) -> "Line":
        arrow = {"<->": "<->", "->": "<-", "<-": "->"}[self.arrow]
        return replace(self, left=self.right, right=self.left, arrow=arrow)

    @cached_property
    def double(self) -> frozenset[str]:
        """Return the names that an array uses both as a hole and as an axis: these are separate variables."""
        return frozenset(
            hole.name for a in self.arrays for hole in a.holes if hole.name in {part.name for part in a.parts()}
        )

    @cached_property
    def arrays(self) -> tuple[Signature, ...]:
        return (*self.left.arrays, *self.right.arrays)

    @cached_property
    def axes(self) -> frozenset[str]:
        """Return the names of all axes."""
        return frozenset(part.name for array in self.arrays for part in array.parts())

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Return lengths of axes that the line itself states: those written down, and those of lists in paths."""
        listed = {self.variable(hole): len(hole.values) for a in self.arrays for hole in a.holes if hole.values}
        written = {part.name: part.length for a in self.arrays for part in a.parts() if part.length}
        return {**{name: length for name, length in listed.items() if name in self.axes}, **written}

    def variable(self, hole: Hole) -> str:
        """Return the variable of a hole: `{name}` if an axis has this name too, else `name`."""
        return f"{{{hole.name}}}" if hole.name in self.double else hole.name

    @cached_property
    def listed(self) -> dict[str, tuple[str, ...]]:
        """Return the words that a hole of the line lists, by variable; for bare holes of the same name as well."""
        ways: dict[str, set[tuple[str, ...]]] = {}
        for array in self.arrays:
            for hole in array.holes:
                if hole.values is not None:
                    ways.setdefault(self.variable(hole), set()).add(hole.values)
        return {name: next(iter(values)) for name, values in ways.items() if len(values) == 1} | {
            name: () for name, values in ways.items() if len(values) > 1
        }

    def length(self, variable: str) -> int | None:
        """Return how many values a listed hole has; None for one that counts."""
        for array in self.arrays:
            for hole in array.holes:
                if hole.values is not None and self.variable(hole) == variable:
                    return len(hole.values)
        return None

    def resolved(self, array: Signature) -> Signature:
        """Return one of the line's arrays, each bare hole replaced by the list that another hole of its name gives."""
        return self._resolved[id(array)]

    @cached_property
    def _resolved(self) -> dict[int, Signature]:
        def listed(piece: str | Hole) -> str | Hole:
            if not isinstance(piece, Hole) or piece.values is not None or (piece.scale, piece.shift) != (1, 0):
                return piece
            return Hole(piece.name, values=self.listed.get(self.variable(piece)))

        return {
            id(array): array._replace(path=tuple(map(listed, array.path))) if array.holes else array
            for array in self.arrays
        }

    def cells(self, array: Signature) -> list[Cell]:
        if not array.parts_of_sums():
            return [Cell(array, tuple([(0,) * len(dim.factors) for dim in array.axes or ()]))]
        choices = [[range(len(factor)) for factor in dim.factors] for dim in array.axes or ()]
        if math.prod(len(options) for dim in choices for options in dim) > MAX_CELLS:
            raise ValueError(f"{array} has over {MAX_CELLS:,} combinations of summands")
        per_dim = (list(itertools.product(*dim)) for dim in choices)
        return [Cell(array, choice) for choice in itertools.product(*per_dim)]

    def variables(self, cell: Cell) -> frozenset[str]:
        """Return what tells the elements of a cell apart: numbers in the name, and axes."""
        axes = {part.name for _, _, part in cell.parts() if part.name}
        return frozenset(axes | {self.variable(hole) for hole in cell.array.holes})

    @cached_property
    def pairs(self) -> list[list[Pairs]]:
        """Return cells that correspond, for every alternative of the left side and every one of the right.

        Two cells correspond where they have the same variables; several with the same ones in the order written.
        Raises: ValueError where an array has no partner.
        """
        return [[self._matched(a, b) for b in self.right.alternatives] for a in self.left.alternatives]

    def _matched(self, left: tuple[Signature, ...], right: tuple[Signature, ...]) -> Pairs:
        waiting: dict[frozenset[str], list[Cell]] = {}
        for array in right:
            for cell in self.cells(array):
                waiting.setdefault(self.variables(cell), []).append(cell)
        pairs = []
        for array in left:
            for cell in self.cells(array):
                if waiting.get(key := self.variables(cell)):
                    pairs.append((cell, waiting[key].pop(0)))
        taken = [{id(pair[side].array) for pair in pairs} for side in (0, 1)]
        for arrays, used, others in ((left, taken[0], right), (right, taken[1], left)):
            for array in arrays:
                if id(array) not in used:
                    raise ValueError(self._unmatched(array, others))
        return pairs

    def _unmatched(self, array: Signature, others: tuple[Signature, ...]) -> str:
        ours = set().union(*map(self.variables, self.cells(array)))
        theirs = set().union(*(self.variables(cell) for other in others for cell in self.cells(other)))
        alone = sorted(ours - theirs)
        missing = sorted(theirs - ours) if len(others) == 1 else []
        what = "; ".join(
            f"{' '.join(names)} {'is' if len(names) == 1 else 'are'} {where}"
            for names, where in ((alone, "on its side only"), (missing, "on the other side only"))
            if names
        )
        return f"{array.label}: the two sides name different axes: {what or 'no combination of summands is on both'}"

    def __str__(self) -> str:
        sides = (str(self.left), str(self.right))
        if self.kind == "drop" or (self.kind == "constant" and self.arrow != "<->"):
            sides = (sides[0] or "drop", sides[1] or "drop")
        text = f"{sides[0]} {self.arrow} {sides[1]}".strip()
        return f"{text}  # {self.comment}" if self.comment else text


@dataclass(frozen=True)
class Lines:
    """What a Table says: lines between two sides, readable in both directions.

    Args:
      sides: what the sides are called.
      orders: the permutations that lines name, by file name.
      name: the file it was read from, for messages.
      below: comment lines after the last line.
    """

    lines: tuple[Line, ...]
    sides: tuple[str, str] = ("left", "right")
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    name: str = field(default="table", compare=False)
    below: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Number lines by their place in the text, below the version, where they come from no file."""
        numbers = [line.number for line in self.lines]
        if any(later <= former for former, later in itertools.pairwise([0, *numbers])):
            places = itertools.accumulate((len(line.above) + 1 for line in self.lines), initial=1)
            lines = tuple(replace(line, number=k) for line, k in zip(self.lines, [*places][1:], strict=True))
            object.__setattr__(self, "lines", lines)

    def __str__(self) -> str:
        named = "" if self.sides == ("left", "right") else f": {self.sides[0]} <-> {self.sides[1]}"
        lines = [f"table {VERSION}{named}"]
        for line in self.lines:
            lines += [*line.above, str(line)]
        return "\n".join([*lines, *self.below]) + "\n"

    def reverse(self) -> Self:
        """Return the same lines read from right to left."""
        return replace(self, lines=tuple(line.reverse() for line in self.lines), sides=self.sides[::-1])

    def shared(self, variable: str) -> bool:
        """Tell whether an axis has one length in the whole table: names that begin with a capital letter do."""
        return variable[:1].isupper()

    def where(self, line: Line) -> str:
        return f"{self.name}:{line.number}"
