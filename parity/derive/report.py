"""Write what was derived as one page: the verdict, where the models part, both module trees side by side, the Table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..markup import Markup, join, name, prose, tag
from ..page import facts, fill
from ..summary import count, limit, short
from .derivation import ROUNDING, Derivation
from .fold.rows import missing_lines
from .match.choices import Step
from .prove.prove import OUTPUT
from .trace.places import OWN, module_of
from .unmatched import Unmatched

OUTPUTS = """Both models run in float64 on weights and inputs that the search did not use, the right one's weights
translated by the Table. The error is the largest difference of an element over the largest element of its output.
A proof compares the gradient of every parameter as well."""
USES = """Wherever a parameter is used, in a product or a sum, the values that meet it in both models are compared up to
their layout. The difference is relative to the largest of them, on the weights of the search. Where the models
part, it is measured again on those of the proof."""
KINDS = {"product": "matrix or kernel", "add": "term", "mul": "factor", "place": "read as it is"}


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


def page(found: Derivation, about: Mapping[str, str]) -> str:
    """Build the page: no network, no script.

    Args:
      about: what was run, by label.
    """
    lines = count(len(found.table.lines), "line")
    totals = f"{lines}, {found.matched}, {found.seconds:.1f} s of CPU."
    return fill(
        kicker="Triptych derivation",
        title=join(f"Derive: {_verdict(found)}"),
        state="good" if found.proven else "bad",
        verdict=prose(_verdict(found)),
        totals=prose(totals),
        provenance=tag("section", facts(about.items()), class_="provenance", aria_label="What was run"),
        divergences=join(_cards(found), _measures(found)),
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
    """State both measures of difference, each with its limit and its definition."""
    error = short(found.error) if math.isfinite(found.error) else found.outputs.removeprefix("outputs ")
    rows = [
        ("error of the outputs", error, f"at most {limit(OUTPUT)} counts as equal", OUTPUTS),
        ("uses that agree", found.matched, f"a difference of at most {limit(ROUNDING)} counts as agreeing", USES),
    ]
    facts = [
        join(tag("dt", label), tag("dd", tag("b", prose(value)), tag("span", prose(f"; {bound}"), class_="soft"),
             tag("p", prose(about), class_="soft")))
        for label, value, bound, about in rows
    ]  # fmt: skip
    return tag("section", tag("h2", "How far they agree"), tag("dl", *facts), class_="measures")


def _cards(found: Derivation) -> Markup:
    """Build a card for each place where the models part, and one for what is missing."""
    cards = []
    if found.failure:
        where, _, why = found.failure.partition(": ")
        head = tag("h3", "Stopped at ", name(where))
        cards.append(tag("article", head, tag("p", prose(why or found.failure), class_="key"), class_="card"))
    for place in found.divergences:
        head = tag("h3", f"{place.left} ↔ {place.right}")
        size = f"{short(place.size)} times the largest value" if math.isfinite(place.size) else "not comparable"
        rows = [("differ by", size), ("cause", place.cause or "none was confirmed")]
        cards.append(tag("article", head, facts(rows, "cause" if place.cause else "differ by"), class_="card"))
    parts = [tag("div", *cards, class_="cards")] if cards else []
    parts += [_missing(found)] if found.missing else []
    if not parts:
        return Markup()
    return tag("section", tag("h2", "Where the models part"), *parts)


def _missing(found: Derivation) -> Markup:
    """List the parameters of both sides that have no partner, by module; the reasons of the right ones once each."""
    lines = []
    for why in dict.fromkeys(found.reasons.values()):
        head = tag("h3", f"Right parameters without a partner: {why}")
        names = [names for names, reason in found.reasons.items() if reason == why]
        lines.append(join(head, facts(_by_module(names))))
    if found.left_over:
        lines.append(join(tag("h3", "Left parameters without a partner"), facts(_by_module(found.left_over))))
    return tag("article", *lines, class_="card")


def _by_module(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return (module, "bias, scale") for each module, with the numbers of blocks folded."""
    modules: dict[str, list[str]] = {}
    for full in missing_lines(dict.fromkeys(names, "")):
        *module, leaf = re.split(r"[./](?=[^./]*$)", full.removesuffix(": "))
        modules.setdefault("".join(module) or OWN, []).append(leaf)
    return [(module, ", ".join(leaves)) for module, leaves in modules.items()]


def _trees(found: Derivation) -> Markup:
    heads = [tag("th", text, scope="col") for text in ("left", "right", "use")]
    heads.append(tag("th", "difference", scope="col", class_="number"))
    rows = [row for module in tree(found.uses, found.unmatched).below.values() for row in _rows(module)]
    rows += [row for use in found.unmatched if use.side == "right" for row in [_lone(use, 0)]]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="modules trees")
    about = (
        "Each module of the left model stands beside the part of the right one that has its partners; below it, each "
        "use of a parameter, with the difference of the values that meet it; a module shows the largest below it."
    )
    if found.unmatched:
        about += " What has no partner stands beside a dash, that of the right model at the end."
    head = tag("summary", tag("b", "Modules"), " ", tag("span", found.matched, class_="soft"))
    body = tag("div", tag("p", about, class_="soft"), tag("div", table, class_="scroll"))
    return tag("details", head, body, open=None if found.proven else "")


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
    return f"{kind} differs".strip() if gap > ROUNDING else kind or None


def _leaves(names: str) -> str:
    return ", ".join(re.split(r"[./]", name)[-1] for name in names.split(" "))


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names with which all paths begin."""
    first, last = min(paths), max(paths)
    length = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _table(found: Derivation) -> Markup:
    lines = [tag("span", line) for line in found.table.print().splitlines(keepends=True)]
    return tag("section", tag("h2", "Table"), tag("pre", *lines, class_="lines"))


def _remarks(found: Derivation) -> Markup:
    rows = [f"No output depends on it, so its place follows its name or its siblings: {n}" for n in found.unobservable]
    rows += [f"Inferred, since no value shows all of it: {n}" for n in found.inferred]
    rows += [f"May be permuted without effect, the Table keeps the written order: {text}" for text in found.freedom]
    if not rows:
        return Markup()
    return tag("section", tag("h2", "Remarks"), tag("ul", *(tag("li", prose(row)) for row in rows)))
