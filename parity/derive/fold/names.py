"""Name axes as the frameworks' users do, alike wherever the same composition occurs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from parity.derive.trace.axis_roles import Labels, axis_roles, follows, is_summed
from parity.derive.trace.program import Program
from specs.notation.paths import normal

from .part_roles import have_roles
from .related import Atom, Axes

LETTERS = {
    "torch": ("", "c", "oi", "oiw", "oihw", "oithw"),
    "paddle": ("", "c", "io", "oiw", "oihw", "oithw"),
    "": ("", "c", "io", "wio", "hwio", "thwio"),
}  # names for the axes of arrays as the frameworks order them, by rank; "" for JAX
SPARE = "abefgjkmnpqruvz"
FIRST = ("torch", "paddle")  # frameworks whose images have their channels first


class Names:
    """Chooses names; the pieces of compositions have one length for each name in the whole table.

    Heads and their width are alike in compositions of two pieces and, beside query, key and value or two of these, of
    three; others, such as heads of pairs, have names of their own: equal lengths of small models need not be equal in
    larger ones.

    Args:
      sides: the frameworks. programs: runs of both models, which tell what axes are used as; () if there are none.
    """

    def __init__(self, sides: tuple[str, str], programs: Sequence[Program] = ()):
        self.sides, self.programs = sides, programs
        self.fused = True  # whether three pieces may be queries, keys and values with their heads
        self.lengths: dict[str, int] = {}
        self._counts: dict[str, int] = {}  # name -> how many pieces its composition has, without three of a kind
        self.orders: dict[str, tuple[int, ...]] = {}
        self.counted = set[str]()  # numbers of parts that code reads apart, as s=3
        self.shares = set[str]()  # what parts of each head lines speak of: in another model they may be others
        self._assumed: dict[tuple[str, ...], bool] = {}  # arrays and parts, whatever the numbers of their blocks

    def assume(self, name: str, parts: Iterable[str], shown: Callable[[], bool]) -> None:
        """Note an array whose parts a line takes for equally long. Args: shown: tells whether a run shows it."""
        if (kind := (normal(name), *map(normal, parts))) not in self._assumed:
            self._assumed[kind] = not shown()

    def assumed(self, name: str) -> bool:
        """Tell whether a line takes parts of an array for equally long, which no run shows."""
        kind = normal(name)
        return any(assumed for (whole, *_), assumed in self._assumed.items() if whole == kind)

    def letters(self, side: int, rank: int) -> str:
        table = LETTERS.get(self.sides[side], LETTERS[""])
        return table[rank] if rank < len(table) else SPARE

    def order(self, numbers: Sequence[int]) -> str:
        """Return the name of the file that lists these numbers."""
        known = {order: name for name, order in self.orders.items()}
        name = known.get(tuple(numbers)) or f"order{len(self.orders) + 1 if self.orders else ''}.txt"
        self.orders[name] = tuple(numbers)
        return name

    def give(self, atom: Atom, wanted: str, taken: set[str], count: int = 0) -> None:
        """Name a piece of a composition as wanted, or so with a number if that name has another length.

        Args:
          count: how many pieces the composition has; 0 where that does not matter.
        """
        numbered = (f"{wanted}{k}" for k in range(2, 1000))
        for name in (wanted, *numbered):
            alike = self.lengths.get(name, atom.length) == atom.length and self._counts.get(name, count) == count
            if name not in taken and alike:
                break
        atom.name = name
        taken.add(name)
        self.lengths[name] = atom.length
        self._counts[name] = count

    def assign(self, axes: Axes, stacked: int, side: int, source: str = "") -> None:
        """Name all pieces by the side with fewer axes.

        Args:
          stacked: how many of the source's axes stand in its path and are named already.
          side: of the source. source: the name of its parameter, where its axes are whole.
        """
        own, other, of = axes.source[stacked:], axes.target, side
        if _rank(own) > _rank(other):
            own, other, of = other, own, 1 - side
        taken = {atom.name for atoms in (*axes.source, *axes.target) for atom in atoms if atom.name}
        own, other = _unstacked(own, other), _unstacked(other, own)
        letters = self.letters(of, len(own))
        if len(own) == 3 and not own[0]:  # one table of positions for every example
            letters = "apc"
        self._state_parts(axes, stacked, side, source, taken)
        self._name_roles(axes.source[stacked:], side, source, taken)
        own, other = _open(own), _open(other)
        is_table = len(own) > 1 and bool(source and self.programs) and is_summed(self.programs[side], source)
        for letter, atoms in zip(letters, own, strict=False):
            unnamed = [atom for atom in atoms if not atom.name]
            if len(atoms) > 1 and unnamed:
                # Keys and values, or queries too: a piece beside heads and their width is named in a path, or is three.
                fused = len(atoms) == 3 and (len(unnamed) == 2 or any(atom.length == 3 for atom in atoms))
                count = 2 if fused else len(atoms)
                # A table of positions has a grid, whose height shares no letter with heads.
                is_grid = is_table and len(unnamed) == len(atoms) < 4
                wanted_names = "zyx"[-len(unnamed) :] if is_grid else self._pieces(letter, unnamed, other, of)
                for atom, wanted in zip(unnamed, wanted_names, strict=True):
                    self.give(atom, wanted, taken, count)
        for letter, atoms in zip(letters, own, strict=False):
            if len(atoms) == 1 and not atoms[0].name:
                wanted = next(name for name in (letter, *SPARE) if name not in taken)
                if any(piece is atoms[0] for pieces in other if len(pieces) > 1 for piece in pieces):
                    self.give(atoms[0], wanted, taken)
                else:
                    atoms[0].name = wanted
                    taken.add(wanted)
        for atom in (atom for atoms in (*axes.source, *axes.target) for atom in atoms if not atom.name):
            self.give(atom, next(name for name in SPARE if name not in taken), taken)

    def _state_parts(self, axes: Axes, stacked: int, side: int, source: str, taken: set[str]) -> None:
        """Name the pieces that run backwards inside an axis of both sides: parts of one value in another order.

        The line states how many there are, (-p=2 c) <-> (p c), where the models' code has this number, whatever the
        width: it uses these parts in different ways. So many places are a size of the model, and (-p c) leaves it open.
        """
        composed = [[id(atom) for atoms in of if len(atoms) > 1 for atom in atoms] for of in (axes.source, axes.target)]
        for atom in (atom for atoms in axes.source for atom in atoms):
            if atom.backwards and not atom.name and all(id(atom) in own for own in composed):
                where = source, atom.axis - stacked, atom.length, atom.inner
                if not self.programs or (source and have_roles(self.programs[side], *where)):
                    atom.stated, atom.name = True, next(name for name in ("p", *SPARE) if name not in taken)
                    taken.add(atom.name)

    def _name_roles(self, own: Sequence[list[Atom]], side: int, source: str, taken: set[str]) -> None:
        """Name pieces by what the model uses them for: parts that its code takes apart, heads, and the size of a head.

        The line states the number of parts, (h s=3 d), as that of parts in another order. Several pieces may number the
        parts together, as four gates in another order are two by two.
        """
        for axis, atoms in enumerate(own if source and self.programs else ()):
            if len(atoms) < 2 or any(atom.stated for atom in atoms):
                continue
            roles = axis_roles(self.programs[side], source, axis)
            for parts in _adjacent(atoms):
                named = any(atom.name for atom in parts)
                if not named and follows(roles.readers, math.prod(atom.length for atom in parts), parts[-1].inner):
                    for atom in parts:
                        self.give(atom, "s", taken)
                        atom.stated = True
                        self.counted.add(f"{atom.name}={atom.length}")
            unnamed = [atom for atom in atoms if not atom.name]
            heads = [atom for atom in unnamed if follows(roles.heads, atom.length, atom.inner)]
            if len(heads) == 1 and len(unnamed) == 2:
                for atom in unnamed:
                    self.give(atom, "h" if atom is heads[0] else "d", taken, 2)
            if len(unnamed) == len(atoms) == 3 and self._are_in_groups(roles.heads, atoms):
                for atom, wanted in zip(atoms, self._pieces("o", atoms, (), side), strict=True):
                    self.give(atom, wanted, taken, 2)

    @staticmethod
    def _are_in_groups(heads: Labels, atoms: Sequence[Atom]) -> bool:
        """Tell whether the first two of three pieces are heads in groups, and the third one is the size of a head."""
        return follows(heads, atoms[0].length * atoms[1].length, atoms[2].length)

    def _pieces(self, letter: str, atoms: Sequence[Atom], other: Sequence[Sequence[Atom]], of: int) -> Sequence[str]:
        """Name the pieces of one axis: outputs are heads, inputs of a dense layer heads, patches or images."""
        count = len(atoms)
        rank, whole = len(other), all(len(pieces) <= 1 for pieces in other)
        if letter == "i" and whole and rank > 3:
            others = self.letters(1 - of, rank).replace("h", "y").replace("w", "x")  # h are heads, of other lengths
            return [others[next(k for k, p in enumerate(other) if p and p[0] is atom)] for atom in atoms]
        if letter == "i" and not whole and count in (2, 3):
            first = self.sides[of] in FIRST
            return {2: "cp" if first else "pc", 3: "cyx" if first else "yxc"}[count]
        if count == 2:
            return "hd"
        if count == 3 and self.fused:
            three = next((k for k, atom in enumerate(atoms) if atom.length == 3), 0)
            rest = iter("hd")
            return ["s" if k == three else next(rest) for k in range(3)]
        return SPARE[:count]


def _adjacent(atoms: Sequence[Atom]) -> list[Sequence[Atom]]:
    """Return each piece of an axis alone, then several that stand side by side, fewer first."""
    count = len(atoms)
    return [atoms[at : at + n] for n in range(1, count + 1) for at in range(count + 1 - n)]


def _rank(axes: Sequence[list[Atom]]) -> tuple[int, int]:
    """Count the axes, first those longer than 1: a convolution over 1 x 1 is a matrix."""
    return sum(map(bool, axes)), len(axes)


def _open(axes: Sequence[list[Atom]]) -> list[list[Atom]]:
    """Leave out the pieces whose lengths the line states."""
    return [[atom for atom in atoms if not atom.stated] for atoms in axes]


def _unstacked(own: Sequence[list[Atom]], other: Sequence[list[Atom]]) -> list[list[Atom]]:
    """Leave out axes that this side alone names, such as numbers of blocks: frameworks' letters are for the others."""
    shared = {atom.name for atoms in other for atom in atoms}
    return [atoms for atoms in own if len(atoms) != 1 or not atoms[0].name or atoms[0].name in shared]


def composed(atoms: Sequence[Atom], signs: bool = False) -> str:
    """Return the axes' text for one dimension. Args: signs: whether it says what runs backwards, and stated lengths."""
    texts = [
        "-" * (atom.backwards and signs) + atom.name + f"={atom.length}" * (atom.stated and signs) for atom in atoms
    ]
    return texts[0] if len(texts) == 1 else f"({' '.join(texts)})" if texts else "1"


def initials(names: Sequence[str]) -> list[str]:
    """Return a letter for each of several names, from the words in which they differ; [] if these are alike."""
    words = [re.split(r"[^A-Za-z]+", name) for name in names]
    for column in zip(*words, strict=False):
        if len(set(column)) == len(names) and all(column):
            letters = [word[0].lower() for word in column]
            if len(set(letters)) == len(names):
                return letters
    return []
