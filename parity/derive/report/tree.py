"""Arrange uses of parameters by the left model's modules, join modules that are alike, and name rows for links."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from parity.derive.findings.derivation import Derivation
from parity.derive.limits import PARTED_USES
from parity.derive.match.choices import Step
from parity.derive.missing.unmatched import Unmatched
from parity.derive.trace.sites import OWN, module_of
from parity.page.markup import Markup, join, leading
from specs.notation.paths import normal

ALIKE = 3  # modules in a row from which they share a row
STOPPED = "stopped"  # the address of the row at which matching stopped


@dataclass
class Module:
    """A module of the left model, with those below it.

    Args:
      path: its names from the top.
      uses: the uses of parameters in the module itself. alone: those that have no partner.
      after: uses of the right model alone, outside of this module and behind it; of the whole model, at the end.
      partner: the path of the right model's module; None of a container whose parts have partners in several modules.
    """

    path: tuple[str, ...] = ()
    uses: list[Step] = field(default_factory=list)
    alone: list[Unmatched] = field(default_factory=list)
    after: list[Unmatched] = field(default_factory=list)
    below: dict[str, Module] = field(default_factory=dict)
    partner: tuple[str, ...] | None = None

    def within(self) -> Iterator[Step]:
        """Yield its uses and those of the modules below it."""
        yield from self.uses
        for module in self.below.values():
            yield from module.within()

    def has(self, name: str) -> bool:
        """Tell whether it or a module below it uses a parameter of the right model."""
        return any(name in use.right for use in self.within())


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
        else:
            _behind(top, lone).append(lone)
    paths = (_right_path(use) for use in uses)
    _set_partners(top, Counter(path[:k] for path in paths for k in range(len(path) + 1)))
    return top


def _set_partners(module: Module, counts: Mapping[tuple[str, ...], int]) -> None:
    """Set the partner of each module: one without uses of its own has that of which all uses are in it.

    Args:
      counts: of the uses in each module of the right model.
    """
    right, some = right_of(module), [*module.within()]
    if some and (module.uses or counts[right] == len(some)):
        module.partner = right
    for inner in module.below.values():
        _set_partners(inner, counts)


def _behind(top: Module, lone: Unmatched) -> list[Unmatched]:
    """Return the list of what stands where a use of the right model alone runs: behind the use before it.

    It stands in the innermost module around that use of which the right model's one has it inside, or at the top.
    """
    if not lone.after:
        return top.after if lone.after is None else top.alone
    path, least, chain = module_of(lone.site, lone.names), len(right_of(top)), [top]
    while inner := next((m for m in chain[-1].below.values() if m.has(lone.after)), None):
        chain.append(inner)
    rights = [right_of(module) for module in chain]
    inside = [k for k, right in enumerate(rights) if len(right) > least and path[: len(right)] == right]
    around = max(inside, default=0)
    if len(chain) == 1:
        return top.after
    return chain[around].alone if around == len(chain) - 1 else chain[around + 1].after


def right_of(module: Module) -> tuple[str, ...]:
    """Return the path of the innermost module of the right model around all uses in a left module."""
    paths = [_right_path(use) for use in module.within()]
    first, last = min(paths, default=()), max(paths, default=())
    return tuple(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _right_path(use: Step) -> tuple[str, ...]:
    return module_of("" if use.kind == "place" else use.right_site, use.right)


def relative(site: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of parameters as they follow on the path of the module that uses them: "out_proj.weight".

    Those of other modules are whole: "embed.weight" in the module `head`.
    """
    path = module_of(site, names)
    return tuple(_follows(path, name) for name in names)


def _follows(path: tuple[str, ...], name: str) -> str:
    """Return what follows on a path in a name; in JAX a path begins with a class, and a name with a collection."""
    parts = re.split(r"([./])", name)
    for collection, rest in itertools.product((0, 1), (path, path[1:])):
        if rest and tuple(parts[2 * collection :: 2][: len(rest)]) == rest:
            return "".join(parts[2 * (collection + len(rest)) :])
    return name


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
    alone = [(use.kind, alike_names(use.names)) for use in (*module.alone, *module.after)]
    return normal(module.path[-1]), uses, alone, [_shape(below) for below in module.below.values()]


def alike_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(normal, names))


def anchors(derivation: Derivation) -> dict[tuple[str, str], str]:
    """Return the address of the row of each place where the models part, by (left, right)."""
    used = {use.modules for use in derivation.compared}
    places = dict.fromkeys((card.left, card.right) for card in derivation.divergences)
    return {spot: f"place-{k}" for k, spot in enumerate(spot for spot in places if spot in used)}


def parting_uses(derivation: Derivation) -> dict[str, Step]:
    """Return the use whose row has an address: the first of its place that differs, or the first where none does."""
    rows: dict[str, Step] = {}
    for place, address in anchors(derivation).items():
        uses = [use for use in derivation.compared if use.modules == place]
        rows[address] = next((use for use in uses if use.gap > PARTED_USES), uses[0])
    return rows


def stopping(derivation: Derivation) -> list[Unmatched]:
    """Return the uses on the right of the parameters at which matching stopped."""
    names = {*derivation.stop.names} if derivation.stop else set[str]()
    return [use for use in derivation.unmatched if use.side == "right" and names & {*use.names}]


def alone_anchors(derivation: Derivation) -> dict[str, str]:
    """Return the address of the row of each reason why right parameters have no partner, by the name used first."""
    used = dict.fromkeys(name for use in derivation.unmatched if use.side == "right" for name in use.names)
    firsts = (next((name for name in used if name in names), None) for names, _ in derivation.alone)
    return {name: f"alone-{k}" for k, name in enumerate(firsts) if name is not None}


def link(address: str | None, of: str = "its row") -> Markup:
    """Link to a row of the table of modules."""
    return join(" ", leading(f"#{address}", of)) if address else Markup()
