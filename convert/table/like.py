"""Fill arrays of the target that no line of a Table fills: copied from a file of a new target model.

These are what the Table drops on the target's side, as `drop <- position_ids` says: mostly buffers, which the code of
the target computes and which its state_dict has all the same. Batch counters come from the record of the source
instead, if an earlier conversion left them there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from convert import folding
from convert.arrays.steps import ConstantFilling, Copied, Filling, Step
from convert.errors import option
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor
from convert.reading.spelling import out_of_modules
from specs.applied.layout import Layout
from specs.table import Table

from .part import matching


@dataclass(frozen=True)
class Copies:
    """Arrays of the target that no line fills.

    Args:
      reader: the open file that they are copied from; None where nothing is copied.
      steps: what fills them.
      lacking: labels of those that are not written, as there is no such file. side: the library that reads the target.
      restored: names of batch counters whose values are taken from the record of the source.
    """

    reader: Reader | None = None
    steps: tuple[Step, ...] = ()
    lacking: tuple[str, ...] = ()
    side: str = ""
    restored: tuple[str, ...] = ()

    @cached_property
    def copied(self) -> list[str]:
        """Name the arrays that are copied from the file."""
        return [tensor.name for tensor, _ in self.steps if tensor.name not in self.restored]

    def notes(self) -> list[str]:
        """Report what is copied, and what the target lacks."""
        if self.reader is not None:
            whence = f"copied from {self.reader.path}, as the table drops them"
            facts = ((whence, self.copied), ("batch counters, restored from the record of the source", self.restored))
            return [f"{what}: {', '.join(folding.fold(names))}" for what, names in facts if names]
        if not self.lacking:
            return []
        remedy = f"{option('like', 'FILE')}, a file of a new model, supplies those that the model stores"
        loading = ", or load with strict=False" if self.side == "torch" else ""
        return [f"not written, as the table drops them: {', '.join(self.lacking)}: {remedy}{loading}"]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what the record says of the copies: their file, its hash and their names."""
        if self.reader is None or not self.copied:
            return {}
        from convert.files.hashing import sha256

        path = self.reader.path
        file = {"file": os.path.basename(os.path.abspath(path)), "sha256": sha256(path)}
        return {"copied": {**file, "tensors": self.copied}}

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()


NOTHING = Copies()


def copies(table: Table, layout: Layout, like: str | None, weights: str | None, carried: Mapping[str, int]) -> Copies:
    """Return what to copy from the file `like`, which stays open; without one, what the target lacks.

    Args:
      weights: the part of `like` that has the target's names; None takes all of it.
      carried: batch counters of the target that the record of the source has, by name.
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
        restored = tuple(name for name, tensor in sources.items() if name in carried and _stores_a_count(tensor))
        fillings: dict[str, Filling] = {name: Copied(part.reader, tensor.name) for name, tensor in sources.items()}
        fillings |= {name: ConstantFilling(carried[name]) for name in restored}
        steps = tuple((tensor._replace(name=name), fillings[name]) for name, tensor in sources.items())
        return Copies(part.reader, steps, restored=restored)
    except BaseException:
        stored.close()
        raise


def _stores_a_count(tensor: Tensor) -> bool:
    """Tell whether an array of a new model holds any count exactly, as torch's batch counters do."""
    return tensor.dtype == "int64" and not tensor.shape


def dropped(table: Table) -> tuple[str, ...]:
    """Return the labels of whole arrays that a Table drops on its right side."""
    lines = (line for line in table.lines if line.kind == "drop" and not line.fills)
    return tuple(array.label for line in lines for array in line.right.arrays)
