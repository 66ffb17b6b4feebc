"""Arrange uses of parameters by the left model's modules, and join modules that are alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from parity.derive.limits import PARTED_USES
from parity.derive.match.choices import Step
from parity.derive.missing.unmatched import Unmatched
from parity.derive.trace.sites import OWN, module_of
from specs.notation.paths import normal

ALIKE = 3  # modules in a row from which they share a row


@dataclass
class Module:
    """A module of the left model, with those below it.

    Args:
      path: its names from the top.
      uses: the uses of parameters in the module itself. alone: those that have no partner.
    """

    path: tuple[str, ...] = ()
    uses: list[Step] = field(default_factory=list)
    alone: list[Unmatched] = field(default_factory=list)
    below: dict[str, Module] = field(default_factory=dict)

    def within(self) -> Iterator[Step]:
        """Yield its uses and those of the modules below it."""
        yield from self.uses
        for module in self.below.values():
            yield from module.within()


def tree(uses: Sequence[Step], unmatched: Sequence[Unmatched] = ()) -> Module:
    """Arrange uses by the left model's modules, in the order of execution."""
    top = Module()

    def module_at(site: str, names: Sequence[str]) -> Module:
        module = top
        for part in module_of(site, names) or (OWN,):
            module = module.below.setdefault(part, Module((*module.path, part)))
        return module

    for use in uses:  # what is read as it is, such as a table of an embedding, shows at a module that reads the result
        module_at("" if use.kind == "place" else use.left_site, use.left).uses.append(use)
    for lone in unmatched:
        if lone.side == "left":
            module_at(lone.site, lone.names).alone.append(lone)
    return top


def alike(siblings: Iterable[list[Module]]) -> Iterator[list[Module]]:
    """Join neighbours that are alike but for numbers, if nothing in them differs."""
    for _, group in itertools.groupby(siblings, key=lambda modules: _shape(modules[0])):
        several = list(group)
        yield from [list(itertools.chain(*several))] if len(several) >= ALIKE else several


def _shape(module: Module) -> object:
    """Return what alike modules have in common; of one in which something differs, what no other has."""
    if any(use.gap > PARTED_USES for use in module.within()):
        return id(module)
    uses = [(use.kind, alike_names(use.left), alike_names(use.right)) for use in module.uses]
    alone = [(use.kind, alike_names(use.names)) for use in module.alone]
    return normal(module.path[-1]), uses, alone, [_shape(below) for below in module.below.values()]


def alike_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(normal, names))
