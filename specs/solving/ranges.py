"""Count the numbers in names of arrays: which names a line of a Table stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from specs.notation.lines import Line
from specs.notation.paths import Hole
from specs.notation.signature import Signature

Index = dict[str, int]  # a number for each variable of a path
Key = tuple[tuple[str, int], ...]  # the same, sorted


def key_of(index: Mapping[str, int], names: Iterable[str]) -> Key:
    return tuple((name, index[name]) for name in sorted(names) if name in index)


def fill(line: Line, array: Signature, index: Mapping[str, int]) -> str:
    """Return the array's name at these indices."""
    return "".join(p.fill(index[line.variable(p)]) if isinstance(p, Hole) else p for p in array.path)


class Ranges:
    """The block count at each prefix of a path: lines with the same prefix share it."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int, int], int] = {}

    def add(self, line: Line, array: Signature, index: Mapping[str, int]) -> str:
        """Return the array's name at these indices, which are counted from now on."""
        name = ""
        for piece in array.path:
            if isinstance(piece, Hole):
                variable = line.variable(piece)
                if line.length(variable) is None:
                    key = (name, piece.scale, piece.shift)
                    self.counts[key] = max(self.counts.get(key, 0), index[variable] + 1)
                name += piece.fill(index[variable])
            else:
                name += piece
        return name

    def expected(self, line: Line, array: Signature) -> Iterator[tuple[Index, str]]:
        """Yield every name that the path stands for, as far as numbers count."""
        yield from self._from(line, array.path, {}, "")

    def _from(self, line: Line, path: tuple[str | Hole, ...], index: Index, name: str) -> Iterator[tuple[Index, str]]:
        for k, piece in enumerate(path):
            if not isinstance(piece, Hole):
                name += piece
                continue
            variable = line.variable(piece)
            if variable in index:
                name += piece.fill(index[variable])
                continue
            count = line.length(variable)
            if count is None:
                count = self.counts.get((name, piece.scale, piece.shift), 0)
            for number in range(count):
                yield from self._from(line, path[k + 1 :], {**index, variable: number}, name + piece.fill(number))
            return
        yield index, name
