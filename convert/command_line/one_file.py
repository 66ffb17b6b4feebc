"""Convert one file by a route or by a Table, as the command line asks. Part of it: it may import any floor."""

from __future__ import annotations

import contextlib
import functools
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from convert.config.pixels import sized
from convert.config.settings import Settings, stated
from convert.documents import document
from convert.errors import ConvertError, Exists, OpenFields, OpenLengths, UsageError
from convert.execute import execute
from convert.files.base import Reader
from convert.files.hashing import Source
from convert.files.inside import look
from convert.plans import planning
from convert.plans.plan import Plan
from convert.plans.refusal import NotReplicated
from convert.reading.aside import as_json
from convert.reading.recognise import dialects
from convert.records import record
from convert.targets import byte_count, target_name, target_of
from specs import config as configs
from specs.kinds import SUFFIX

from .dry_run import described
from .outcome import Notes, lossy_values, odd_values, print_plan, print_proof, print_table_plan
from .routes import is_route, route

if TYPE_CHECKING:
    from convert.optimizer.plan import OptimizerPlan, Request
    from convert.table.plan import TablePlan

Convert = Callable[[str, Mapping[str, str]], dict[str, Any]]  # (source, {target made so far: its source}) -> result


def by_route(arguments: Namespace, notes: Notes) -> Convert:
    """Return the conversion of one file by a route. Raises: UsageError for what is no route."""
    settings = stated(arguments)
    notes.shared |= dict.fromkeys(settings.notes, False)
    return _ByRoute(arguments, notes, *route(arguments.command), settings, _request(arguments, settings))


@dataclass(frozen=True)
class _ByRoute:
    """Converts one file by a route.

    Args:
      src, dst: dialects. settings: what the user states of the model. optimizer: what is asked of its state.
    """

    arguments: Namespace
    notes: Notes
    src: str
    dst: str
    settings: Settings
    optimizer: Request | None

    def __call__(self, file: str, earlier: Mapping[str, str]) -> dict[str, Any]:
        arguments = self.arguments
        with contextlib.ExitStack() as stack:
            source = _hashed(file, arguments, stack)
            try:
                plan = stack.enter_context(self._planned(file, self.settings))
            except OpenFields as error:
                error.problems += self._also_open(file, error)
                raise
            if arguments.image:
                self.notes.add(f"--image {arguments.image} is recorded: every array stays as it is")
            if arguments.layout:
                from convert.plans.nnx import as_nnx

                plan = as_nnx(plan)
            if arguments.like and not self.optimizer:
                from convert.optimizer.like import with_names

                plan = with_names(plan, arguments.like)
            out = self._target(file, plan, earlier)
            result: dict[str, Any] = {
                "source": file, "out": out, "architecture": plan.architecture, "variant": plan.variant,
                "src": self.src, "dst": self.dst, "config": configs.as_dict(plan.config), "tensors": len(plan.steps),
                "parameters": plan.parameters, "part": plan.reading.prefix or "/", "aside": as_json(plan.aside),
                "skipped": plan.skipped(), "assumed": list(plan.assumed), "notes": plan.notes(),
                "preprocessing": sized(plan.preprocessing, plan.config, plan.suggested).as_json(),
            }  # fmt: skip
            whole, about = _whole(plan, out, self.optimizer, stack)
            result |= {"notes": whole.notes(), **about}
            result |= _carry_out(plan, whole, out, arguments, source, self.notes)
            if not arguments.json:
                (print_proof if arguments.quiet else print_plan)(plan, result)  # a proof was asked for
        return result

    def _planned(self, file: str, settings: Settings) -> Plan:
        arguments = self.arguments
        given = (file, self.src, self.dst, settings, arguments.dtype, arguments.weights, arguments.assume)
        try:
            return planning.plan(*given, not arguments.verify, arguments.unreplicate)
        except NotReplicated:
            if self.optimizer is None:
                raise
            return planning.plan(*given, not arguments.verify)  # the state of the optimizer may be replicated alone

    def _target(self, file: str, plan: Plan, earlier: Mapping[str, str]) -> str:
        dialect = dialects(plan.architecture)[plan.dst]
        usual = dialect.suffix or SUFFIX[dialect.framework]
        if self.optimizer:
            from convert.reading.families import USUAL

            usual = USUAL[dialect.framework]
        return target_name(file, usual, self.arguments.out, earlier)

    def _also_open(self, file: str, error: OpenFields) -> list[str]:
        """Return what the optimizer's state leaves open beside fields of the Config, so that one answer serves both.

        It does not depend on the fields' values: the weights are planned with any of them.
        """
        some = {name: values[0] for name, values in error.choices.items()}
        if self.optimizer is None or some.keys() < error.fields.keys():
            return []
        try:
            with contextlib.ExitStack() as stack:
                plan = stack.enter_context(self._planned(file, self.settings.above(some)))
                _whole(plan, self._target(file, plan, {}), self.optimizer, stack)
        except ConvertError as another:
            return [f"beside that, for the optimizer: {another.line()}"]
        return []


def by_table_file(arguments: Namespace, notes: Notes) -> Convert:
    """Return the conversion of one file by a Table. Raises: ConvertError for a Table that cannot be read."""
    from convert.table import by_table
    from convert.table.file import load
    from convert.table.lengths import lengths

    if arguments.prove:
        why = "it runs architectures that Triptych knows; parity.compare runs two models of yours on both files"
        raise UsageError(f"--prove is not for --table: {why}, see {document('own-model')}")
    if arguments.layout:
        why = "a Table's lines state the target's names"
        raise UsageError(f"--layout is not for --table: {why}; how nnx loads them: {document('own-model')}")
    if is_route(arguments.files[0]) and not os.path.lexists(arguments.files[0]):
        raise UsageError(f"{arguments.files[0]} is a route, and --table states the lines itself: leave one of them out")
    table, sizes = load(arguments.table), lengths(arguments.set)
    optimizer = _request(arguments)

    def planned(file: str, sizes: Mapping[str, int]) -> TablePlan:
        return by_table.plan(
            file, table, arguments.reverse, arguments.like, sizes, arguments.dtype, arguments.weights,
            _no_weights if optimizer else None, unreplicate=arguments.unreplicate,
        )  # fmt: skip

    def one(file: str, earlier: Mapping[str, str]) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            source = _hashed(file, arguments, stack)
            try:
                plan = stack.enter_context(planned(file, sizes))
            except OpenLengths as error:
                any_lengths = functools.partial(planned, file, {**sizes, **dict.fromkeys(error.enough, 1)})
                out = target_name(file, ".safetensors", arguments.out, earlier)
                beside = _asked_beside(any_lengths, out, optimizer)
                raise UsageError(error.message, [*error.problems, *beside]) from None
            out = target_name(file, ".safetensors", arguments.out, earlier)
            result = {
                "source": file, "out": out, "table": arguments.table, "reversed": arguments.reverse,
                "tensors": len(plan.steps), "parameters": plan.parameters, "notes": plan.notes(),
            }  # fmt: skip
            whole, about = _whole(plan, out, optimizer, stack)
            result |= {"notes": whole.notes(), "tensors": len(whole.steps), **about}
            result |= _carry_out(plan, whole, out, arguments, source, notes)
            if not arguments.json and not arguments.quiet:
                print_table_plan(plan, result)
        return result

    return one


def _asked_beside(planned: Callable[[], TablePlan], out: str, optimizer: Request | None) -> list[str]:
    """Say what the optimizer's state leaves open beside lengths of axes, so that one answer serves both.

    It does not depend on the lengths.
    """
    with contextlib.suppress(ConvertError), contextlib.ExitStack() as stack:  # a record may have other lengths
        plan = stack.enter_context(planned())
        try:
            _whole(plan, out, optimizer, stack)
        except UsageError as error:
            return [f"beside that, for the optimizer: {error.line()}"]
    return []


def _no_weights(reader: Reader, unused: Callable[[], frozenset[str]]) -> frozenset[str]:
    """Name the arrays that are no weights: the optimizer's state, and copies of weights that no line speaks of."""
    from convert.optimizer import copies
    from convert.reading import optimizers

    state = optimizers.state_names(reader)
    return state | copies.copy_names(reader, state, unused)


def _hashed(file: str, arguments: Namespace, stack: contextlib.ExitStack) -> Source | None:
    """Begin to hash a source, which goes on while it is planned; not if nothing will be written."""
    return None if arguments.dry_run else stack.enter_context(Source(file, arguments.verify))


def _request(arguments: Namespace, settings: Settings | None = None) -> Request | None:
    """Tell what the user asks of the optimizer; None without --with-optimizer.

    Args:
      settings: of --config, whose record may state hyperparameters.
    """
    if not arguments.with_optimizer:
        given = [name for name in ("optimizer", "hyper") if getattr(arguments, name)]
        given += ["config"] if arguments.config and arguments.table is not None else []
        if given:
            raise UsageError(f"--{given[0]} is of the state of an optimizer: add --with-optimizer")
        return None
    from convert.optimizer.plan import Request
    from convert.optimizer.state import given as hyperparameters

    hyper = hyperparameters(arguments.hyper)
    request = Request(arguments.optimizer, arguments.like, hyper, arguments.dtype, arguments.unreplicate)
    if settings:
        return replace(request, config=(settings.file, settings.optimizer))
    return replace(request, config=_recorded_optimizer(arguments.config)) if arguments.config else request


def _recorded_optimizer(file: str) -> tuple[str, Mapping[str, Any]]:
    """Return what a checkpoint's record says of its optimizer. Raises: UsageError where it says nothing."""
    its = record.at(look(file).path)
    about = its.optimizer
    if its.change and its.place != record.INSIDE:
        raise UsageError(f"--config {file}: {its.changed}; to take its hyperparameters, --config {its.place}")
    if not about:
        what = "has no record of an optimizer's state, whose hyperparameters are all that a conversion by a Table takes"
        raise UsageError(f"--config {file}: {what}")
    return file, about


def _whole(
    plan: Plan | TablePlan, out: str, optimizer: Request | None, stack: contextlib.ExitStack
) -> tuple[Plan | TablePlan | OptimizerPlan, dict[str, Any]]:
    """Return the plan with the state of the optimizer where that is asked for, and what there is to print of it."""
    if optimizer is None:
        return plan, {}
    from convert.optimizer.plan import with_optimizer

    whole = with_optimizer(plan, out, optimizer, stack)
    return whole, {"optimizer": dict(whole.about)}


def _check_inputs(out: str, arguments: Namespace) -> None:
    """Check that a target is none of the command's other files. Raises: UsageError that names the option."""
    for name in ("table", "like", "config", "optimizer", "spec"):
        values = getattr(arguments, name, None) or ()
        for path in (values,) if isinstance(values, str) else values:
            if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
                raise UsageError(f"{out}: is the file of --{name}: give another -o")


def _carry_out(
    plan: Plan | TablePlan,
    whole: Plan | TablePlan | OptimizerPlan,
    out: str,
    arguments: Namespace,
    source: Source | None,
    notes: Notes,
) -> dict[str, Any]:
    """Execute a plan, or describe its steps on --dry-run; return what there is to print of it.

    Args:
      plan: of the weights. whole: the same, or with the state of the optimizer.
    """
    _check_inputs(out, arguments)
    try:
        target_of(whole, out, arguments.force, byte_count(arguments.shard_size))  # refused before any note
    except Exists as error:
        if not arguments.dry_run:  # which writes nothing
            raise error if arguments.out else Exists(error.path, ", or give another -o") from None
        notes.add(str(error))
    for note in whole.notes():
        notes.add(note)
    if arguments.dry_run:
        return {"plan": list(described(whole))}
    prove = functools.partial(_prove, plan) if arguments.prove and isinstance(plan, Plan) else None
    removed: list[str] = []
    outcome = execute(
        whole, out, arguments.force, prove=prove, shard_size=byte_count(arguments.shard_size), verify=arguments.verify,
        source=source, removed=removed.append, lossy=arguments.lossy,
    )  # fmt: skip
    if removed:
        notes.add(f"removed {', '.join(removed)}")
    result: dict[str, Any] = {"removed": removed} if removed else {}
    result |= {"proof": outcome.proof} if isinstance(plan, Plan) else {}
    result["not_finite"] = odd_values(outcome.record, lambda: getattr(whole, "labels", {}), notes)
    if lossy := lossy_values(outcome.record, notes):
        result["lossy"] = lossy
    return {**result, "out": out if os.path.lexists(out) else f"{out}.index.json"}


def _prove(plan: Plan, written: str) -> dict[str, Any]:
    """Run source and target on the CPU: jax neither looks for a GPU nor logs that it finds none."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from parity.conversion_proof import prove  # runs models, which is the business of a floor above

    return prove(plan, written)
