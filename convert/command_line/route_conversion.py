"""Convert one file by a route. Part of the command line: it may import any floor."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convert.config.pixels import sized
from convert.config.settings import Settings, stated_settings
from convert.errors import OpenFields, OpenLengths
from convert.plans import planning
from convert.plans.plan import Plan
from convert.plans.refusal import NotReplicated
from convert.reading.aside import as_json
from convert.reading.recognise import dialects
from convert.targets import target_name
from specs import config as configs
from specs.kinds import SUFFIX

from .one_file import OneFile
from .optimizer_request import request
from .outcome import Notes, print_plan, print_proof
from .routes import route

if TYPE_CHECKING:
    from convert.optimizer.plan import OptimizerPlan


def by_route(arguments: Namespace, notes: Notes) -> ByRoute:
    """Return the conversion of one file by a route. Raises: UsageError for what is no route."""
    settings = stated_settings(arguments)
    notes.shared |= dict.fromkeys(settings.notes, False)
    return ByRoute(arguments, notes, request(arguments, settings), *route(arguments.command), settings)


@dataclass(frozen=True)
class ByRoute(OneFile[Plan]):
    """Converts files by a route.

    Args:
      src, dst: dialects. settings: what the user states of the model.
    """

    src: str
    dst: str
    settings: Settings

    def plan(self, file: str) -> Plan:
        return self._plan(file, self.settings)

    def respelt(self, plan: Plan) -> Plan:
        arguments = self.arguments
        if arguments.image:
            self.notes.add(f"--image {arguments.image} is recorded: every array stays as it is")
        if arguments.layout:
            from convert.plans.nnx import as_nnx

            plan = as_nnx(plan)
        if arguments.like and not self.optimizer:
            from convert.optimizer.like import with_names

            plan, notes = with_names(plan, arguments.like)
            for note in notes:
                self.notes.add(note)
        return plan

    def plan_anyhow(self, file: str, error: OpenFields | OpenLengths) -> Plan | None:
        assert isinstance(error, OpenFields)
        some = {name: values[0] for name, values in error.choices.items()}
        return None if some.keys() < error.fields.keys() else self._plan(file, self.settings.above(some))

    def _plan(self, file: str, settings: Settings) -> Plan:
        arguments = self.arguments
        given = (file, self.src, self.dst, settings, arguments.dtype, arguments.weights, arguments.assume)
        try:
            return planning.plan(*given, not arguments.verify, arguments.unreplicate)
        except NotReplicated:
            if self.optimizer is None:
                raise
            return planning.plan(*given, not arguments.verify)  # the state of the optimizer may be replicated alone

    def target(self, file: str, plan: Plan, earlier: Mapping[str, str]) -> str:
        dialect = dialects(plan.architecture)[plan.dst]
        usual = dialect.suffix or SUFFIX[dialect.framework]
        if self.optimizer:
            from convert.reading.families import USUAL

            usual = USUAL[dialect.framework]
        return target_name(file, usual, self.arguments.out, earlier)

    def describe(self, plan: Plan, whole: Plan | OptimizerPlan) -> dict[str, Any]:
        left = whole if isinstance(whole, Plan) else whole.weights  # which knows what goes along with the optimizer
        aside = as_json(left.aside) if isinstance(left, Plan) else []
        return {
            "architecture": plan.architecture, "variant": plan.variant, "src": self.src, "dst": self.dst,
            "config": configs.as_dict(plan.config), "tensors": len(plan.steps), "parameters": plan.parameters,
            "part": plan.reading.prefix or "/", "aside": aside, "skipped": left.skipped(),
            "assumed": list(plan.assumed), "notes": whole.notes(),
            "preprocessing": sized(plan.preprocessing, plan.config, plan.suggested).as_json(),
        }  # fmt: skip

    def show(self, plan: Plan, result: Mapping[str, Any]) -> None:
        (print_proof if self.arguments.quiet else print_plan)(plan, result)  # a proof was asked for
