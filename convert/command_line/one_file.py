"""Convert one file: what a route and a Table have in common. Part of the command line: it may import any floor."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from convert.errors import ConvertError, Exists, OpenFields, OpenLengths, UsageError
from convert.execute import execute
from convert.files import is_pdopt
from convert.files.hashing import Source
from convert.plans.plan import Plan
from convert.reading.families import LIBRARY, suffix_of
from convert.reading.masters import left_beside
from convert.reading.nesting import COPIES, copied_place, training
from convert.reading.rounded import unlike
from convert.records.altered import WARNING
from convert.targets import target_of

from .dry_run import described
from .outcome import Notes, lossy_values, odd_values

if TYPE_CHECKING:
    from convert.optimizer.plan import OptimizerPlan, Request
    from convert.table.plan import TablePlan

P = TypeVar("P", bound="Plan | TablePlan")


@dataclass(frozen=True)
class OneFile(ABC, Generic[P]):
    """Converts one file after another.

    Args:
      optimizer: what is asked of its state; None leaves the state out.
    """

    arguments: Namespace
    notes: Notes
    optimizer: Request | None

    # What the optimizer's state lacks is one of these, where its weights are planned with any values for open ones.
    lacks: ClassVar[type[ConvertError]] = ConvertError

    def __call__(self, file: str, sources: Sequence[str], earlier: Mapping[str, str]) -> dict[str, Any]:
        """Convert a file, and return what there is to print of it.

        Args:
          sources: all files that the command converts. earlier: {target made so far: its source}.
        """
        with contextlib.ExitStack() as stack:
            source = self._hashed(file, stack)
            plan = self._planned(file)
            stack.enter_context(plan)
            plan = self.respelt(plan)
            out = self.target(file, plan, earlier)
            whole, about = self._whole(plan, out, stack)
            result = {"source": file, "out": out, **self.describe(plan, whole), **about}
            self._check_target(whole, out, sources)
            notes = whole.notes()
            lines = [*notes, *self._state_aside(plan, out, notes)]
            for line in sorted(lines, key=lambda line: line.startswith(WARNING)):  # warnings come last
                self.notes.add(line)
            if self.arguments.dry_run:
                result["plan"] = list(described(whole))
            else:
                result |= self._write(plan, whole, out, source)
            if not self.arguments.json:
                self.show(plan, result)
        return result

    @abstractmethod
    def plan(self, file: str) -> P:
        """Plan the conversion of the weights. Raises: OpenFields or OpenLengths for what the user has to state."""

    @abstractmethod
    def plan_anyhow(self, file: str, error: OpenFields | OpenLengths) -> P | None:
        """Plan it with any values for what is open; None where none are known."""

    def respelt(self, plan: P) -> P:
        """Return the plan with the names of arrays that the user asks for."""
        return plan

    @abstractmethod
    def target(self, file: str, plan: P, earlier: Mapping[str, str]) -> str:
        """Return the path of the target."""

    @abstractmethod
    def describe(self, plan: P, whole: P | OptimizerPlan) -> dict[str, Any]:
        """Return what --json prints of a plan, with and without the state of the optimizer."""

    @abstractmethod
    def show(self, plan: P, result: Mapping[str, Any]) -> None:
        """Print a result for people."""

    def _hashed(self, file: str, stack: contextlib.ExitStack) -> Source | None:
        """Begin to hash a source, which goes on while it is planned; not if nothing will be written."""
        return None if self.arguments.dry_run else stack.enter_context(Source(file, self.arguments.verify))

    def _planned(self, file: str) -> P:
        try:
            return self.plan(file)
        except (OpenFields, OpenLengths) as error:
            error.problems += self._lacking_beside(file, error)
            raise

    def _lacking_beside(self, file: str, error: OpenFields | OpenLengths) -> list[str]:
        """Return what the optimizer's state lacks beside what is open of the weights, so that one answer serves both.

        It does not depend on the values that are open.
        """
        if self.optimizer is None:
            return []
        with contextlib.suppress(ConvertError), contextlib.ExitStack() as stack:  # the values may contradict others
            if (plan := self.plan_anyhow(file, error)) is None:
                return []
            stack.enter_context(plan)
            try:
                self._whole(plan, self.target(file, plan, {}), stack)
            except self.lacks as another:
                return [f"beside that, for the optimizer: {another.line()}"]
        return []

    def _whole(self, plan: P, out: str, stack: contextlib.ExitStack) -> tuple[P | OptimizerPlan, dict[str, Any]]:
        """Return the plan with the state of the optimizer where that is asked for, and what --json prints of that."""
        if self.optimizer is None:
            if is_pdopt(out):
                remedy = "add --with-optimizer, or give a .pdparams for the weights"
                raise UsageError(f"{out}: a .pdopt holds the state of an optimizer alone: {remedy}")
            for line in left_beside(plan.reader):
                self.notes.add(line)
            return plan, {}
        from convert.optimizer.plan import plan_state

        whole = plan_state(plan, out, self.optimizer, stack)
        return whole, {"optimizer": dict(whole.about), "tensors_by_kind": dict(whole.counts)}

    def _state_aside(self, plan: P, out: str, notes: list[str]) -> list[str]:
        """Say which option takes the state of an optimizer along, where it is set aside and no note says so.

        The target must have room for it, and the weights must be those that are trained, and no average of them.
        """
        said = any("--with-optimizer" in note for note in notes)
        if said or self.optimizer or suffix_of(out) not in LIBRARY or not any(map(training, plan.reader.tensors)):
            return []
        if any(copied_place(tensor.name, COPIES) for tensor in plan.sources.values()):
            return []
        from convert.reading import optimizers

        location = optimizers.find_any(plan.reader)
        state = optimizers.state_names(plan.reader, location) if location else frozenset[str]()
        is_absent = state.isdisjoint(plan.reader.tensors)
        return [] if is_absent else ["--with-optimizer takes the optimizer's state along"]

    def _check_target(self, whole: P | OptimizerPlan, out: str, sources: Sequence[str]) -> None:
        """Check that the target may be written. Raises: UsageError or Exists, before any note."""
        arguments = self.arguments
        for name in ("table", "like", "config", "optimizer", "spec"):
            values = getattr(arguments, name, None) or ()
            for path in filter(os.path.exists, (values,) if isinstance(values, str) else values):
                if os.path.exists(out) and os.path.samefile(path, out):
                    raise UsageError(f"{out}: is the file of --{name}: give another -o")
        try:
            target_of(whole, out, arguments.force, _byte_count(arguments.shard_size), sources)
        except Exists as error:
            if not arguments.dry_run:  # which writes nothing
                raise error if arguments.out else Exists(error.path, ", or give another -o") from None
            self.notes.add(str(error))

    def _write(self, plan: P, whole: P | OptimizerPlan, out: str, source: Source | None) -> dict[str, Any]:
        """Execute a plan; return what there is to print of that.

        Args:
          plan: of the weights. whole: the same, or with the state of the optimizer.
        """
        arguments, removed = self.arguments, list[str]()
        prove = functools.partial(_prove, plan) if arguments.prove and isinstance(plan, Plan) else None
        outcome = execute(
            whole, out, arguments.force, prove=prove, shard_size=_byte_count(arguments.shard_size),
            verify=arguments.verify, source=source, removed=removed.append, lossy=arguments.lossy,
        )  # fmt: skip
        result: dict[str, Any] = {}
        if removed:
            self.notes.add(f"removed {', '.join(removed)}")
            result["removed"] = removed
        if isinstance(plan, Plan):
            result["proof"] = outcome.proof
        result["not_finite"] = odd_values(outcome.record, lambda: getattr(whole, "labels", {}), self.notes)
        if lossy := lossy_values(outcome.record, self.notes):
            result["lossy"] = lossy
        for warning in unlike(plan.reader, plan.sources.values()):
            self.notes.add(warning)
        return {**result, "out": out if os.path.lexists(out) else f"{out}.index.json"}


def _prove(plan: Plan, written: str) -> dict[str, Any]:
    """Run source and target on the CPU: jax neither looks for a GPU nor logs that it finds none."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from parity.conversion_proof import prove  # runs models, which is the business of a floor above

    return prove(plan, written)


def _byte_count(text: str | None) -> int | None:
    """Parse a size: "5GB" -> 5_000_000_000."""
    if text is None:
        return None
    parts = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.upper())
    if not parts or not float(parts[1]):
        raise UsageError(f"--shard-size {text}: write a size as in 5GB or 500MiB")
    return int(float(parts[1]) * (1024 if parts[3] else 1000) ** " KMGT".index(parts[2] or " "))
