"""Hold one line of a Table at one value of the numbers that it counts, with the lengths of its axes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from specs.applied.layout import Bound
from specs.notation.lines import Line, TableError
from specs.notation.paths import Hole
from specs.notation.signature import Signature

from .ranges import Index, Key, Ranges

MAX_NAMES = 100_000  # arrays that one line makes of one: no file holds more


@dataclass(eq=False)
class Env:
    """One line at one value of the numbers that both its sides count; a key of dicts by identity.

    Args:
      key: those numbers.
      arrays: for each left array {stacked indices: name}; empty for a constant of the right side.
      sizes: lengths of axes, as far as they are known; a Solver adds to them.
    """

    line: Line
    key: Key
    arrays: list[dict[Key, str]]
    sizes: dict[str, int]

    def named(self, array: Signature) -> dict[Key, str]:
        """Return the names of one left array of the line."""
        at = next(k for k, other in enumerate(self.line.left.arrays) if other is array)
        return self.arrays[at]

    def indices(self, array: Signature, given: Mapping[str, int] = MappingProxyType({})) -> list[Index]:
        """Return the indices of each array that a path of the right side stands for, at those that are given."""
        indices: list[Index] = [dict(self.key)]
        for variable in dict.fromkeys(map(self.line.variable, array.holes)):
            if variable in given:
                indices = [{**index, variable: given[variable]} for index in indices]
            elif variable not in indices[0]:
                if len(indices) * self.sizes[variable] > MAX_NAMES:
                    raise TableError(
                        f"line {self.line.number}: {array.label} would stand for over {MAX_NAMES:,} arrays"
                    )
                if not self.sizes[variable]:
                    return []
                indices = [{**index, variable: k} for index in indices for k in range(self.sizes[variable])]
        return indices

    def bound(self) -> Bound:
        """Return what the checks of lengths of heads read."""
        array, counts = self.line.resolved(self.line.arrays[0]), dict(self.key)
        holes = ((k, piece) for k, piece in enumerate(array.path) if isinstance(piece, Hole))
        numbers = [k + 1 for k, hole in holes if self.line.variable(hole) in counts and hole.fill(0).isdigit()]
        block = array._replace(path=array.path[: max(numbers, default=0)])
        return Bound(self.line, self.first(array), self.first(block), self.sizes)

    def first(self, array: Signature) -> str:
        """Return the name of the first of them, whatever the lengths of axes."""
        index = {**dict.fromkeys(map(self.line.variable, array.holes), 0), **dict(self.key)}
        return Ranges().add(self.line, array, index)
