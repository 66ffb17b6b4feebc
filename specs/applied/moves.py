"""Define moves: which elements of a source tensor go where in a target tensor."""

from typing import NamedTuple

Shape = tuple[int, ...]
Select = int | slice | tuple[int, ...]  # one index, a range (backwards with step -1), or indices one by one


class Move(NamedTuple):
    """Elements of one source tensor into their place in one target tensor, as numpy does it:

    target.reshape(target_atoms)[place] = source.reshape(source_atoms)[select].transpose(order)

    Args:
      select: an entry for each source atom; a tuple lists indices, as numpy.take does.
      order: the atoms that `select` leaves (all but single indices), in the target's order.
      place: an entry for each target atom, an index or a forward range.
    """

    source: str
    source_atoms: tuple[int, ...]
    select: tuple[Select, ...]
    order: tuple[int, ...]
    target_atoms: tuple[int, ...]
    place: tuple[int | slice, ...]

    @property
    def is_whole(self) -> bool:
        """Tell whether one whole tensor becomes another one: a window, a reversal or listed indices name less."""
        sides = ((self.select, self.source_atoms), (self.place, self.target_atoms))
        return all(
            takes_all(entry, size) for entries, atoms in sides for entry, size in zip(entries, atoms, strict=True)
        )

    @property
    def copies(self) -> bool:
        """Tell whether source and target are the same bytes: a whole tensor, nothing permuted but axes of length 1."""
        if not self.is_whole:
            return False
        long = [axis for axis in self.order if self.source_atoms[axis] != 1]
        return long == sorted(long)


class Fill(NamedTuple):
    """A constant in a place of a target tensor: target.reshape(target_atoms)[place] = value."""

    target_atoms: tuple[int, ...]
    place: tuple[int | slice, ...]
    value: float


def takes_all(entry: Select, size: int) -> bool:
    """Tell whether an entry of `select` or `place` takes all places of an atom, in their order."""
    return isinstance(entry, slice) and entry.indices(size) == (0, size, 1)
