r"""Define a Table: the translation between two sides' arrays as text, which is parsed, printed, reversed and proven.

    table 1: torch <-> flax                              the version, and what the sides are called
    wte: v d          <-> params/embed: v d = params/head: d v     a tie: one array here, two equal ones there
    h.{i}.qkv.weight: (q+k+v) c <-> h_{i}/q: c q, h_{i}/k: c k, h_{i}/v: c v     joined here, apart there
    h.{i}.mask -> drop                                   a buffer that one side keeps and nobody needs
    <-> params/offset: d = 0                             an array of one value that only one side stores
    bias: o <- bias_ih: o + bias_hh: o                   a sum: right to left adds; back, the second gets zeros

Lines read in both directions. Comments begin with # at the start of a line or after white space.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from specs.notation.lines import Lines, Misfit, TableError
from specs.words import count

if TYPE_CHECKING:
    from specs.applied.layout import Layout

__all__ = ["Table", "TableError"]


class Table(Lines):
    """Lines between two sides with all that can be done with them; for the fields see Lines."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {' <-> '.join(self.sides)}, {count(len(self.lines), 'line')}>"

    @classmethod
    def of(cls, lines: Lines) -> Table:
        """Return a Table of these lines."""
        return cls(lines.lines, lines.sides, lines.orders, lines.name, lines.below)

    @classmethod
    def parse(cls, text: str, orders: Mapping[str, Iterable[int]] | None = None, name: str = "table") -> Table:
        """Read a table's text. Raises: TableError that lists every line that cannot be read."""
        from specs.notation.parsing import parse

        return cls.of(parse(text, {key: tuple(order) for key, order in (orders or {}).items()}, name))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        text: str | None = None,
        orders: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Table:
        """Read a table's file, and the files of orders beside it.

        Args:
          text: of the table, where the file holds more than that. orders: those that it names, if the file holds them.
        Raises: TableError.
        """
        from specs.notation.parsing import load

        return cls.of(load(os.fspath(path), text, orders))

    def print(self) -> str:
        """Return the text, which parses to the same Table."""
        return str(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the text, and the files of its orders beside it.

        Raises: TableError where one of those exists with other numbers.
        """
        from specs.notation.parsing import save

        save(self, os.fspath(path))

    def compose(self, other: Table) -> Table:
        """Return A<->C of this A<->B and B<->C. Raises: TableError where a line of the one meets none of the other."""
        from specs.notation.claims import carried
        from specs.notation.compose import compose

        composed = compose(self, other)
        return Table.of(replace(composed, lines=carried(composed, self, other)))

    def layout(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        like: Mapping[str, tuple[int, ...]] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> Layout:
        """Return which element of the left side's arrays goes where on the right, proven complete.

        Args:
          shapes: the left side's arrays.
          like: those of the right side, where they are known: they settle sizes, and must fit.
          sizes: lengths of axes by name, where neither side's shapes determine them.
        Raises: TableError listing everything that does not fit; SizeError where sizes stay open.
        """
        from specs.covering.proof import lay_out

        return lay_out(self, shapes, like, sizes or {})

    def prove(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        like: Mapping[str, tuple[int, ...]] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> Layout:
        """Prove from names and shapes alone that each element has one place, and returns to it from the other side.

        What is true only up to the table's ties, constants, drops and sums is listed in the result.
        Raises: TableError, SizeError.
        """
        from specs.covering.proof import prove

        return prove(self, shapes, like, sizes or {})

    def apply(self, arrays: Mapping[str, Any], like: Mapping[str, Any] | None = None, **sizes: int) -> dict[str, Any]:
        """Translate numpy arrays of the left side into those of the right.

        Args:
          arrays: by name, or in a nested tree, whose levels are joined by "/".
          like: arrays, or anything with a shape, of the right side; arrays that the Table drops there are copied.
          sizes: lengths of axes that stay open else.
        Returns: arrays, some of which are views of those given: what writes into one has to copy it first.
        Raises: TableError, also where tied arrays differ, one declared constant holds another value, lengths that are
          given contradict each other on heads, or terms of a sum are no floating-point arrays of one dtype.
        Warns where the Table says that it is incomplete, was not proven, or may order or cut axes otherwise, and of
        arrays that it drops though it states other values for them; and of an axis that given lengths divide otherwise
        than in the models of its derivation, though it is as long there.
        """
        from specs.applied.arrays import as_arrays, flat, translate, warn_of_dropped
        from specs.covering.cut import check_derived
        from specs.notation.claims import warn
        from specs.solving.heads import clashes
        from specs.solving.sizes import SizeError
        from specs.solving.stating import divided_otherwise
        from specs.solving.wrapped import wrapped

        warn(self, like is not None)
        if like is not None and not isinstance(like, Mapping):
            raise TableError(f"like: a mapping of names to arrays, such as a state_dict, and no {type(like).__name__}")
        arrays, like = as_arrays(flat(arrays)), None if like is None else flat(like)

        def shapes(of: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
            return {name: tuple(array.shape) for name, array in of.items()}

        try:
            layout = self.layout(shapes(arrays), None if like is None else shapes(like), sizes)
        except SizeError as error:
            raise error.of_call() from None
        except Misfit as error:
            if remedy := wrapped(self, arrays):
                raise TableError(error.message, [remedy]) from None
            raise
        for clash in clashes(layout.bound, sizes):
            raise TableError(clash)
        if axis := divided_otherwise(self, sizes, layout.sizes):
            models = "the models that it was derived from"
            text = f"{axis} was as long in {models}, but divided otherwise: check what was given"
            warnings.warn(f"{self.name}: {text}", stacklevel=2)
        if like is None:
            try:
                check_derived(self, layout.cut, shapes(arrays), sizes)
            except SizeError as error:
                raise error.of_call() from None
        made = translate(layout, arrays)
        warn_of_dropped(layout, arrays)
        rest = {name: array for name, array in (like or {}).items() if name not in made and hasattr(array, "dtype")}
        return {**made, **as_arrays(rest)}
