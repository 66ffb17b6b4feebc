"""Parse the signature of an array, "path: axes"; see paths.py and axes.py for both."""

from typing import NamedTuple

from .axes import Axes, Part, parts
from .paths import Hole, Path, holes, spelt


class Signature(NamedTuple):
    """An array's path, literal text and holes in turn, and its dimensions; None where they do not matter (drops)."""

    path: Path
    axes: Axes | None

    @property
    def holes(self) -> list[Hole]:
        return holes(self.path)

    def parts(self) -> list[Part]:
        """Return every named axis."""
        return parts(self.axes or ())

    def parts_of_sums(self) -> list[Part]:
        """Return the summands among the axes."""
        factors = [factor for dim in self.axes or () for factor in dim.factors]
        return [part for factor in factors if len(factor) > 1 for part in factor]

    @property
    def windowed(self) -> bool:
        """Tell whether it stands for a part of the array only."""
        return any(dim.window or any(f[0].window for f in dim.factors) for dim in self.axes or ())

    @property
    def label(self) -> str:
        """Return the path alone, as it is written."""
        return spelt(self.path)

    def __str__(self) -> str:
        if self.axes is None:  # a label alone could be taken for another word of the line
            words = ("drop", "=", "+", "->", "<-", "<->")
            return f"\\u{ord(self.label[0]):04x}{self.label[1:]}" if self.label in words else self.label
        return " ".join([f"{self.label}:", *map(str, self.axes)])
