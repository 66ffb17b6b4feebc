"""Build the table of both module trees side by side: uses of parameters with their partners, and those without."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from specs.numerals import short

from ..markup import Markup, name, tag
from .derivation import Derivation
from .limits import PARTED_USES
from .match.choices import Step
from .trace.sites import OWN, module_of, place
from .unmatched import Unmatched

KINDS = {"product": "matrix or kernel", "add": "term", "mul": "factor", "place": "read as it is"}

PARTED = """ A module is red where something below it differs. After a small difference both sides go on with the left
model's values, so that later rows are red by causes of their own; after a large one they may follow from it. The
difference is a mean over the columns of values; where a card above has one, it is the card's, their largest."""


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


def trees(found: Derivation) -> Markup:
    """Build the table of both module trees side by side, with each use of a parameter."""
    heads = [tag("th", text, scope="col") for text in ("left", "right", "use")]
    heads.append(tag("th", "difference", scope="col", class_="number"))
    rows = [row for module in tree(_measured(found), found.unmatched).below.values() for row in _rows(module)]
    rows += [_lone(use, 0) for use in found.unmatched if use.side == "right"]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="modules trees")
    about = (
        "Left: a module of the left model. Right: the module that corresponds to it. Below them: each parameter, and "
        "the difference of the values that it is used with; a module shows the largest below it."
    )
    if found.agreeing < len(found.compared):
        about += PARTED
    if found.unmatched:
        about += " What has no partner stands beside a dash, that of the right model at the end."
    head = tag("summary", tag("b", "Modules"), " ", tag("span", found.matched, class_="soft"))
    body = tag("div", tag("p", about, class_="soft"), tag("div", table, class_="scroll"))
    return tag("details", head, body, open=None if found.proven else "")


def _measured(found: Derivation) -> list[Step]:
    """Return the uses; where they differ in a place that has a card, with the number of the card."""
    cards = {(card.left, card.right): card.size for card in found.divergences}

    def measured(use: Step) -> Step:
        where = place(use.left_site, use.left), place(use.right_site, use.right)
        return use._replace(gap=cards[where]) if use.gap > PARTED_USES and where in cards else use

    return [measured(use) for use in found.compared]


def tree(uses: Sequence[Step], unmatched: Sequence[Unmatched] = ()) -> Module:
    """Arrange uses by the left model's modules, in the order of execution."""
    top = Module()

    def module_at(site: str, names: str) -> Module:
        module = top
        for part in module_of(site, names) or (OWN,):
            module = module.below.setdefault(part, Module((*module.path, part)))
        return module

    for use in uses:
        module_at(use.left_site, use.left).uses.append(use)
    for lone in unmatched:
        if lone.side == "left":
            module_at(lone.site, lone.names).alone.append(lone)
    return top


def _rows(module: Module) -> Iterator[Markup]:
    depth = len(module.path) - 1
    partners = [module_of(use.right_site, use.right) for use in module.within()]
    gap = max((use.gap for use in module.within()), default=None)
    cells = [
        tag("td", tag("b", module.path[-1]), style=f"--depth: {depth}"),
        tag("td", tag("b", name("/".join(_common(partners)) or OWN) if partners else "-")),
        tag("td"),
        tag("td", short(gap), class_="number"),
    ]
    yield tag("tr", *cells, class_="module lone" if gap is None else _grade(gap, "module"))
    for use in module.uses:
        cells = [
            tag("td", tag("code", _leaves(use.left)), title=use.left, style=f"--depth: {depth + 1}"),
            tag("td", tag("code", name(use.right.replace(" ", ", ")))),
            tag("td", KINDS[use.kind], class_="soft"),
            tag("td", short(use.gap), class_="number"),
        ]
        yield tag("tr", *cells, class_=_grade(use.gap))
    for lone in module.alone:
        yield _lone(lone, depth + 1)
    for below in module.below.values():
        yield from _rows(below)


def _lone(use: Unmatched, depth: int) -> Markup:
    """Build the row of a use without a partner: "-" stands on the other side."""
    left = tag("code", _leaves(use.names)) if use.side == "left" else "-"
    right = tag("code", name(use.names.replace(" ", ", "))) if use.side == "right" else "-"
    cells = [
        tag("td", left, title=use.names, style=f"--depth: {depth}"),
        tag("td", right),
        tag("td", KINDS.get(use.kind, "not read"), class_="soft"),
        tag("td", "-", class_="number"),
    ]
    return tag("tr", *cells, class_="lone")


def _grade(gap: float, kind: str = "") -> str | None:
    return f"{kind} differs".strip() if gap > PARTED_USES else kind or None


def _leaves(names: str) -> str:
    return ", ".join(re.split(r"[./]", name)[-1] for name in names.split(" "))


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names with which all paths begin."""
    first, last = min(paths), max(paths)
    length = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]
