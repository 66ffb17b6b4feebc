"""Define TablePlan: all that a conversion by a Table will do, and what a user should know of it. by_table builds it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from convert import folding
from convert.arrays.counters import COUNTER, carried
from convert.arrays.payload import unequal_elements
from convert.arrays.steps import ConstantFilling, Promise, Step, sources_of, supplied, supplied_in_part
from convert.files.base import PADDLE_BFLOAT16, Reader, Tensor
from convert.reading.counting import no_parameters
from convert.reading.nesting import by_container, within
from convert.records import record
from specs.applied.arrays import lost
from specs.applied.layout import Layout, Sum
from specs.applied.moves import Move
from specs.notation.claims import UNPROVEN, claim, unproven
from specs.numbers import exact
from specs.solving.stating import stated
from specs.table import Table

from .like import NOTHING, Copies

TIED = (
    "tied in the source, and an array each in the target, as the table has a line for each (A = B in one line ties "
    "them; a .pt stores equal ones once)"
)
TIED_LIKE = "tied in the file of --like, and filled from arrays that are not compared: a model that ties them keeps one"
COUNTED = (
    "dropped, as the table says; a record stores these batch counters, from which a way back with --like restores them"
)


def _taken(filling: Any) -> tuple[object, ...]:
    """Return which elements of the source fill an array of the target; () where none do."""
    moves = [part for part in filling if isinstance(part, Move)] if isinstance(filling, list) else []
    return tuple((move.source, move.source_atoms, repr(move.select)) for move in moves)


@dataclass(frozen=True)
class TablePlan:
    """Everything a conversion by a Table will do. A context manager that closes the source.

    Args:
      table: as it is read here, from left to right. backwards: whether the file has it the other way round.
      sources: the arrays of the source by name. prefix: where in the source they lie, "" for its root.
      aside: arrays of the source outside of `prefix`.
      copies: what no line fills; its steps are the last ones.
      remarks: on the Table, how the source is read, and its record.
    """

    reader: Reader
    table: Table
    backwards: bool
    layout: Layout
    steps: tuple[Step, ...]
    sources: dict[str, Tensor]
    checks: tuple[Promise, ...]
    prefix: str
    aside: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    earlier: frozenset[str] = frozenset()  # arrays of the file that an earlier conversion supplied
    partly: frozenset[str] = frozenset()  # those of them of which it read some elements
    accounted: frozenset[str] = frozenset()  # arrays and entries of the file that something beside this plan converts
    copies: Copies = NOTHING
    ties: tuple[tuple[str, str], ...] = ()  # pairs of names that are one array in the file that the target is like
    given: Mapping[str, int] = field(default_factory=dict)  # lengths of axes that no shape shows, from the user
    beside: tuple[str, ...] = ()  # other files that this is planned from: the Table's, and that of --like
    passed_on: Mapping[str, int] = field(default_factory=dict)  # batch counters of its record that no array holds
    altered: Mapping[str, Any] = field(default_factory=dict)  # what the record says of the source; see altered.facts

    @property
    def parameters(self) -> int:
        """Count the target's parameters, tied ones once, as far as names and dtypes of either side tell them."""
        sizes: dict[object, int] = {}  # by the elements that are taken of the source
        theirs = no_parameters({tensor.name: tensor for tensor, _ in self.steps})
        own = no_parameters(self.sources)
        for tensor, filling in self.steps:
            if tensor.name not in theirs and own.isdisjoint(sources_of(filling)):
                sizes[_taken(filling) or tensor.name] = tensor.size
        return sum(sizes.values())

    def notes(self) -> list[str]:
        """Return what the user should know and need not act on."""
        dropped = {self.sources[name].name for name in self.layout.dropped}
        known = [name for name in self.reader.tensors if name not in dropped]
        facts = (
            ("dropped, as the table says", [name for name in self.layout.dropped if name not in self._counts[0]]),
            (COUNTED, self._counts[0]),
            ("dropped in part, as the table says", self._cut()),
            ("tied and not in the file", self.layout.absent),
            (f"added into one array{self._rounding()}, which cannot be separated again", self.layout.sums),
            ("zeros, as a sum's other term", self.layout.zeroed),
            ("zeros in the part that the table drops", self.layout.blank),
            *self._constants(),
            (
                "constants of the table, which only this side stores, and compared before anything is written",
                [check.name for check in self.checks if not check.other],
            ),
            *self._other_dtypes(),
            (record.EARLIER, [name for name in known if name in self.earlier - self.partly]),
            (record.PARTLY, [name for name in known if name in self.partly]),
        )
        lines = [f"{what}: {', '.join(folding.fold(names))}" for what, names in facts if names]
        lines += [f"{what}: {', '.join(ties)}" for what, ties in self._ties() if ties]
        lines += folding.bfloat16(bits := self._bits(), len(self.sources) - len(bits))
        if self.reader.format == "pdparams" and (eights := [n for n, t in self.sources.items() if t.dtype == "int8"]):
            lines.append(f"int8, as which paddle stores float8_e4m3fn, too: read as integers: {folding.listed(eights)}")
        lines += [*self._lost, *self._counts[1]]
        return [*self.remarks, *self.around(), *lines, *self.copies.notes(), *self.skipped()]

    def _cut(self) -> list[str]:
        """Name the arrays that the table drops in part, and how much of each: "pos (1,017 of 1,024 rows)"."""
        return [f"{name} ({how})" for how, names in folding.by_reason(self.layout.cut).items()
                for name in folding.fold(names)]  # fmt: skip

    def _rounding(self) -> str:
        """Say to which dtypes sums are rounded; nothing of float64, to which they are not."""
        dtypes = dict.fromkeys(tensor.dtype for tensor, filling in self.steps if isinstance(filling, Sum))
        rounded = " and ".join(dtype for dtype in dtypes if dtype != "float64")
        return f" and rounded to {rounded}" if rounded else ""

    def around(self) -> list[str]:
        """Name the arrays around the part of the file that is read."""
        names = by_container(self.aside)
        return (
            [f"took the arrays under {self.prefix!r} and set aside {', '.join(folding.fold(names))}"] if names else []
        )

    def skipped(self) -> list[str]:
        """Name what the file contains beside arrays."""
        named = within(self.reader.skipped.values, self.aside) | self.accounted
        skipped = folding.skipped(self.reader.skipped.without(named), self.prefix.rstrip("/"))
        return [f"set aside {line}" for line in skipped]

    def _constants(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each value of the table's constants, and the target's arrays that hold it."""
        names: dict[float, list[str]] = {}
        constants = set(self.layout.constants)
        for tensor, filling in self.steps:
            if isinstance(filling, ConstantFilling) and tensor.name in constants:
                names.setdefault(filling.value, []).append(tensor.name)
        yield from ((f"constants of the table, = {exact(value)}", some) for value, some in names.items())

    def _other_dtypes(self) -> Iterator[tuple[str, list[str]]]:
        """Yield what the table states of constants of this side, and those that have another dtype of that kind."""
        stated = {check.name: check.dtype for check in self.layout.checks if check.dtype}
        for dtype in dict.fromkeys(stated.values()):
            names = [name for name, one in stated.items() if one == dtype != self.sources[name].dtype]
            yield f"of another dtype than {dtype}, which the table states", names

    def _ties(self) -> Iterator[tuple[str, list[str]]]:
        """Yield which arrays are tied in the table, on either side, and which in the source alone."""
        equal = folding.equations(dict.fromkeys((check.name, check.other) for check in self.checks if check.other))
        yield "tied, as the table says, and compared before anything is written", equal
        targets: dict[object, list[str]] = {}
        for tensor, filling in self.steps:
            if taken := _taken(filling):
                targets.setdefault(taken, []).append(tensor.name)
        yield (
            "tied, as the table says, and written from one array",
            folding.equations(t for t in targets.values() if t[1:]),
        )
        yield TIED, folding.equations(self._tied())
        origins = {tensor.name: _taken(filling) for tensor, filling in self.steps}
        yield TIED_LIKE, folding.equations([pair for pair in self.ties if len({*map(origins.get, pair)}) > 1])

    def _tied(self) -> list[tuple[str, str]]:
        """List pairs of names of one array of the source (tied weights) that become several arrays of the target."""
        moved = {name for _, filling in self.steps for name in sources_of(filling)}
        return self.reader.ties({name: tensor for name, tensor in self.sources.items() if name in moved})

    def _bits(self) -> list[str]:
        """Return arrays whose dtype in the file is uint16, and bfloat16 here."""
        stored = {t.name for t in self.reader.tensors.values() if t.dtype == PADDLE_BFLOAT16}
        return [t.name for t in self.sources.values() if t.name in stored and t.dtype != PADDLE_BFLOAT16]

    @cached_property
    def _counts(self) -> tuple[dict[str, int], list[str]]:
        """Return the batch counters that the table drops, by name, for the record; and remarks on doubtful ones."""
        dropped = [name for name in self.layout.dropped if name.endswith(COUNTER) and self.sources[name].size == 1]
        return carried(self.reader, {name: self.sources[name] for name in dropped}) if dropped else ({}, [])

    @cached_property
    def _lost(self) -> list[str]:
        """Say which constants of the table are not those of the arrays that it drops, for which it states them."""
        stated = (check for check in self.layout.unchecked if check.name not in self._counts[0])
        return lost((check, *unequal_elements(self, check)) for check in stated)

    @property
    def supplied(self) -> tuple[str, ...]:
        """List target tensors with values that the file does not state: the record of the target marks them."""
        steps = (step for step in self.steps if step[0].name not in self.copies.restored)
        return supplied(steps, self.sources, self.earlier | self.reader.filled)

    def _in_part(self) -> tuple[str, ...]:
        """List those of `supplied` that also have values of the file."""
        return supplied_in_part(self.steps, self.sources, self.earlier, self.partly)

    @property
    def tree(self) -> None:
        """Have no tree: weights are nested by their names alone."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return the facts of the record that are known before any payload is read."""
        sources = {name: tensor.shape for name, tensor in self.sources.items()}
        lines = stated(self.table, sources, self.layout.shapes, self.layout.sizes)  # reads back without --set
        original = lines.reverse() if self.backwards else lines
        return {
            "table": {
                "file": os.path.basename(self.table.name),
                "from": self.table.sides[0],
                "to": self.table.sides[1],
                "reversed": self.backwards,
                "text": str(original),
                **({"given": dict(self.given)} if self.given else {}),
                **(
                    {"orders": {name: list(order) for name, order in original.orders.items()}}
                    if original.orders
                    else {}
                ),
                **({"proven": False, "difference": claim(self.table, UNPROVEN)} if unproven(self.table) else {}),
            },
            "notes": self.notes(),
            **({"supplied": list(self.supplied)} if self.supplied else {}),
            **({record.IN_PART: list(partly)} if (partly := self._in_part()) else {}),
            **self.copies.facts,
            **({"carried": counts} if (counts := {**self.passed_on, **self._counts[0]}) else {}),
            "parameters": self.parameters,
            "source": {
                "file": os.path.basename(os.path.abspath(self.reader.path)),
                "sha256": None,  # hashed while the plan is executed
                "format": self.reader.format,
            },
            **self.altered,
            "tool": record.TOOL_VERSION,
        }

    def write(self, out: str | os.PathLike[str], force: bool = False, **options: Any) -> dict[str, Any]:
        """Write the target and return the record that travels with it; see `execute` for the options."""
        from convert.execute import write

        return write(self, out, force, **options)

    def close(self) -> None:
        self.reader.close()
        self.copies.close()

    def __enter__(self) -> TablePlan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
