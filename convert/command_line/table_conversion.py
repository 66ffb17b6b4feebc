"""Convert one file by a Table. Part of the command line: it may import any floor."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convert.documents import document
from convert.errors import OpenFields, OpenLengths, UsageError
from convert.files.base import Reader
from convert.table.by_table import plan
from convert.table.file import load
from convert.table.lengths import lengths
from convert.table.plan import TablePlan
from convert.targets import target_name
from specs.table import Table

from .one_file import OneFile
from .optimizer_request import request
from .outcome import Notes, print_table_plan
from .routes import is_route

if TYPE_CHECKING:
    from convert.optimizer.plan import OptimizerPlan


def by_table(arguments: Namespace, notes: Notes) -> ByTable:
    """Return the conversion of one file by a Table. Raises: ConvertError for a Table that cannot be read."""
    if arguments.prove:
        why = "it runs architectures that Triptych knows; parity.compare runs two models of yours on both files"
        raise UsageError(f"--prove is not for --table: {why}, see {document('own-model')}")
    if arguments.layout:
        why = "a Table's lines state the target's names"
        raise UsageError(f"--layout is not for --table: {why}; how nnx loads them: {document('own-model')}")
    if is_route(arguments.files[0]) and not os.path.lexists(arguments.files[0]):
        raise UsageError(f"{arguments.files[0]} is a route, and --table states the lines itself: leave one of them out")
    table, sizes = load(arguments.table), lengths(arguments.set)
    return ByTable(arguments, notes, request(arguments), table, sizes)


@dataclass(frozen=True)
class ByTable(OneFile[TablePlan]):
    """Converts files by a Table.

    Args:
      sizes: lengths of axes that the user states.
    """

    table: Table
    sizes: Mapping[str, int]

    lacks = UsageError  # any other error may be that of a length that only stands for the true one

    def plan(self, file: str) -> TablePlan:
        return self._plan(file, self.sizes)

    def plan_anyhow(self, file: str, error: OpenFields | OpenLengths) -> TablePlan:
        assert isinstance(error, OpenLengths)
        return self._plan(file, {**self.sizes, **dict.fromkeys(error.remedy.enough, 1)})

    def _plan(self, file: str, sizes: Mapping[str, int]) -> TablePlan:
        arguments = self.arguments
        return plan(
            file, self.table, arguments.reverse, arguments.like, sizes, arguments.dtype, arguments.weights,
            _no_weights if self.optimizer else None, unreplicate=arguments.unreplicate, sampled=not arguments.verify,
        )  # fmt: skip

    def target(self, file: str, plan: TablePlan, earlier: Mapping[str, str]) -> str:
        return target_name(file, ".safetensors", self.arguments.out, earlier)

    def describe(self, plan: TablePlan, whole: TablePlan | OptimizerPlan) -> dict[str, Any]:
        return {
            "table": self.arguments.table, "reversed": self.arguments.reverse, "tensors": len(plan.steps),
            "parameters": plan.parameters, "notes": whole.notes(),
        }  # fmt: skip

    def show(self, plan: TablePlan, result: Mapping[str, Any]) -> None:
        if not self.arguments.quiet:
            print_table_plan(plan, result)


def _no_weights(reader: Reader, unused: Callable[[], frozenset[str]]) -> frozenset[str]:
    """Name the arrays that are no weights: the optimizer's state, and copies of weights that no line speaks of."""
    from convert.optimizer import copies
    from convert.reading import optimizers

    location = optimizers.find(reader)
    state = optimizers.state_names(reader, location) if location else frozenset[str]()
    return state.union(optimizers.counts_beside(reader, location), copies.copy_names(reader, state, unused))
