"""Fill arrays of the target that no line of a Table fills: copied from a file of a new target model.

These are what the Table drops on the target's side, as `drop <- position_ids` says: mostly buffers, which the code of
the target computes and which its state_dict has all the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from convert import folding
from convert.arrays.steps import Copied, Step
from convert.errors import option
from convert.files import open_checkpoint
from convert.files.base import Reader
from convert.reading.spelling import out_of_modules
from specs.layout import Layout
from specs.table import Table

from .part import matching


@dataclass(frozen=True)
class Copies:
    """Arrays of the target that no line fills.

    Args:
      reader: the open file that they are copied from; None where nothing is copied.
      steps: what copies them.
      lacking: labels of those that are not written, as there is no such file. side: the library that reads the target.
    """

    reader: Reader | None = None
    steps: tuple[Step, ...] = ()
    lacking: tuple[str, ...] = ()
    side: str = ""

    def notes(self) -> list[str]:
        """Report what is copied, and what the target lacks."""
        if self.reader is not None:
            names = ", ".join(folding.fold(tensor.name for tensor, _ in self.steps))
            return [f"copied from {self.reader.path}, as the table drops them: {names}"]
        if not self.lacking:
            return []
        remedy = f"{option('like', 'FILE')}, a file of a new model, supplies those that the model stores"
        loading = ", or load with strict=False" if self.side == "torch" else ""
        return [f"not written, as the table drops them: {', '.join(self.lacking)}: {remedy}{loading}"]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what the record says of the copies: their file, its hash and their names."""
        if self.reader is None:
            return {}
        from convert.files.hashing import sha256

        path = self.reader.path
        names = [tensor.name for tensor, _ in self.steps]
        return {"copied": {"file": os.path.basename(os.path.abspath(path)), "sha256": sha256(path), "tensors": names}}

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()


NOTHING = Copies()


def copies(table: Table, layout: Layout, like: str | None, weights: str | None) -> Copies:
    """Return what to copy from the file `like`, which stays open; without one, what the target lacks.

    Args:
      weights: the part of `like` that has the target's names; None takes all of it.
    """
    if like is None:
        return Copies(lacking=dropped(table), side=table.sides[1])
    filled = {entry.name for entry in layout.entries}  # also in part: a line drops a part of a padded table, say
    unread = [name for name in layout.unread if name not in filled]
    if not unread:
        return NOTHING
    stored = open_checkpoint(like)
    try:
        part = matching(out_of_modules(stored), weights, table.reverse())
        sources = {name: part.sources[name] for name in unread}
        steps = tuple((t._replace(name=name), Copied(part.reader, t.name)) for name, t in sources.items())
        return Copies(part.reader, steps)
    except BaseException:
        stored.close()
        raise


def dropped(table: Table) -> tuple[str, ...]:
    """Return the labels of whole arrays that a Table drops on its right side."""
    lines = (line for line in table.lines if line.kind == "drop" and not line.fills)
    return tuple(array.label for line in lines for array in line.right.arrays)
