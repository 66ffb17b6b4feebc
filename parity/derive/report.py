"""Write what was derived as one page: the verdict, where the models part, both module trees side by side, the Table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..markup import Markup, join, prose, tag
from ..page import facts, fill
from ..summary import count, short
from .derivation import ROUNDING, Derivation
from .fold.rows import missing_lines
from .match.choices import Step
from .prove.prove import OUTPUT
from .trace.places import OWN, module_of

KINDS = {"product": "matrix or kernel", "add": "term", "mul": "factor", "place": "read as it is"}


@dataclass
class Module:
    """A module of the left model, with those below it.

    Args:
      path: its names from the top.
      uses: the uses of parameters in the module itself.
    """

    path: tuple[str, ...] = ()
    uses: list[Step] = field(default_factory=list)
    below: dict[str, Module] = field(default_factory=dict)

    def within(self) -> Iterator[Step]:
        """Yield its uses and those of the modules below it."""
        yield from self.uses
        for module in self.below.values():
            yield from module.within()


def page(found: Derivation, about: Mapping[str, str]) -> str:
    """Build the page: no network, no script.

    Args:
      about: what was run, by label.
    """
    lines = count(len(found.table.lines), "line")
    totals = f"{lines}, {count(len(found.uses), 'use')} of parameters matched, {found.seconds:.1f} s of CPU. "
    totals += f"{found.outputs.capitalize()}."
    return fill(
        kicker="Triptych derivation",
        title=join(f"Derive: {_verdict(found)}"),
        state="good" if found.proven else "bad",
        verdict=prose(_verdict(found)),
        totals=prose(totals),
        provenance=tag("section", facts(about.items()), class_="provenance", aria_label="What was run"),
        divergences=join(_measures(found), _cards(found)),
        results=_table(found),
        modules=_trees(found),
        remarks=_remarks(found),
    )


def _verdict(found: Derivation) -> str:
    if found.proven:
        return "Proven: the Table translates one model into the other"
    if found.missing:
        return f"Incomplete: {count(len(found.missing), 'parameter')} of the right model without a partner"
    return "Complete, but not proven: the models differ"


def _measures(found: Derivation) -> Markup:
    """Define both measures of difference, with what they are here."""
    error = short(found.error) if math.isfinite(found.error) else found.outputs
    rows = [
        (
            "error of the outputs",
            f"{error}: both models run in float64 on weights and inputs that the search did not use, the right one's "
            "weights translated by the Table; the largest difference of an element, over the largest element of its "
            f"output. Up to {OUTPUT:.0e} counts as equal; a proof also compares the gradient of every parameter.",
        ),
        (
            "agreement per use",
            f"{found.agreeing} of {count(len(found.uses), 'use')}: wherever a parameter is used (in a product, a sum), "
            "the values that meet it in both models are compared, up to their layout; the difference is relative to "
            f"the largest of them. Up to {ROUNDING:.0e} counts as agreeing: rounding explains it.",
        ),
    ]
    return tag("section", tag("h2", "How far they agree"), facts(rows), class_="measures")


def _cards(found: Derivation) -> Markup:
    """Build a card for each place where the models part, and one for what is missing."""
    cards = []
    for place in found.divergences:
        head = tag("h3", f"{place.left} ↔ {place.right}")
        size = short(place.size) if math.isfinite(place.size) else "not comparable"
        rows = [("differ by", size), ("cause", place.cause or "none was confirmed")]
        cards.append(tag("article", head, facts(rows, "cause" if place.cause else "differ by"), class_="card"))
    if found.missing:
        missing = [line.partition(": ")[::2] for line in missing_lines(found.reasons)]
        rows = [*missing, *([("stopped at", found.failure)] if found.failure else [])]
        cards.append(tag("article", tag("h3", "Without a partner"), facts(rows), class_="card"))
    if not cards:
        return Markup()
    return tag("section", tag("h2", "Where the models part"), tag("div", *cards, class_="cards"))


def _trees(found: Derivation) -> Markup:
    heads = [tag("th", text, scope="col") for text in ("left", "right", "use")]
    heads.append(tag("th", "difference", scope="col", class_="number"))
    rows = [row for module in tree(found.uses).below.values() for row in _rows(module)]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="modules trees")
    about = (
        "Each module of the left model stands beside the part of the right one that has its partners; below it, each "
        "use of a parameter. The difference is that of the values which the two uses meet, relative to their size."
    )
    agreeing = count(found.agreeing, "use")
    head = tag(
        "summary", tag("b", "Modules"), " ", tag("span", f"{agreeing} of {len(found.uses)} agree", class_="soft")
    )
    body = tag("div", tag("p", about, class_="soft"), tag("div", table, class_="scroll"))
    return tag("details", head, body, open=None if found.proven else "")


def tree(uses: Sequence[Step]) -> Module:
    """Arrange uses by the left model's modules, in the order of execution."""
    top = Module()
    for use in uses:
        module = top
        for name in module_of(use.left_site, use.left) or (OWN,):
            module = module.below.setdefault(name, Module((*module.path, name)))
        module.uses.append(use)
    return top


def _rows(module: Module) -> Iterator[Markup]:
    depth = len(module.path) - 1
    partners = [module_of(use.right_site, use.right) for use in module.within()]
    gap = max(use.gap for use in module.within())
    cells = [
        tag("td", tag("b", module.path[-1]), style=f"--depth: {depth}"),
        tag("td", tag("b", "/".join(_common(partners)) or OWN)),
        tag("td"),
        tag("td", short(gap), class_="number"),
    ]
    yield tag("tr", *cells, class_=_grade(gap, "module"))
    for use in module.uses:
        cells = [
            tag("td", tag("code", _leaves(use.left)), title=use.left, style=f"--depth: {depth + 1}"),
            tag("td", tag("code", use.right.replace(" ", ", "))),
            tag("td", KINDS[use.kind], class_="soft"),
            tag("td", short(use.gap), class_="number"),
        ]
        yield tag("tr", *cells, class_=_grade(use.gap))
    for below in module.below.values():
        yield from _rows(below)


def _grade(gap: float, kind: str = "") -> str | None:
    return f"{kind} differs".strip() if gap > ROUNDING else kind or None


def _leaves(names: str) -> str:
    return ", ".join(re.split(r"[./]", name)[-1] for name in names.split(" "))


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names with which all paths begin."""
    first, last = min(paths), max(paths)
    length = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _table(found: Derivation) -> Markup:
    return tag("section", tag("h2", "Table"), tag("pre", found.table.print(), class_="lines"))


def _remarks(found: Derivation) -> Markup:
    rows = [f"No output depends on it, so its place follows its name or its siblings: {n}" for n in found.unobservable]
    rows += [f"Inferred, since no value shows all of it: {name}" for name in found.inferred]
    rows += [f"May be permuted without effect, the Table keeps the written order: {text}" for text in found.freedom]
    if not rows:
        return Markup()
    return tag("section", tag("h2", "Remarks"), tag("ul", *(tag("li", prose(row)) for row in rows)))
