"""Build the table of both module trees side by side: uses of parameters with their partners, and those without."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from convert.folding import fold
from parity.derive.explain.divergence import Divergence
from parity.derive.findings.derivation import Derivation
from parity.derive.limits import PARTED_USES
from parity.derive.match.choices import Step
from parity.derive.missing.unmatched import Unmatched
from parity.derive.trace.sites import OWN, is_inside
from parity.page.markup import MARKS, Markup, join, name, prose, tag
from parity.page.module_table import key_list
from specs.numbers import limit, short
from specs.words import in_a_row

from .tree import STOPPED, Module, alike, alike_names, alone_anchors, anchors, parting_uses, relative, stopping, tree

NONE, ALONE = "none", "one side"  # words of cells: of a side without a partner, of a difference
KINDS = {  # of uses: the word in a row, and its meaning
    "product": ("matrix or kernel", "the values are multiplied with it as a matrix, or convolved with it"),
    "mul": ("factor", "the values are multiplied with it element by element"),
    "add": ("term", "the values are added to it"),
    "place": ("read as it is", "its elements are read without computing with them, as those of an embedding"),
    "other": ("operand", "another function reads it beside the values"),
}
WORDS = {"follows": "follows", "outside": "unobservable"}  # of states that have one
GRADES = {"first": "differs", "noted": "close"}  # of states that have a mark

SUMMARY = "Each parameter, where it is used, with its partner"
READ = f"""A difference is that of the values with which both models use a parameter, relative to the largest of these
values. Up to {limit(PARTED_USES)} they agree; 0 means equal in every digit. A bold row is a module: it has the largest
difference of the rows in it."""
PARTED = """A row has the mean of its features, a card the worst of them; a row at a place of a card whose difference
is more than ten times larger has that one. After a difference, the right model continues
with the left one's values where possible, so that later rows show new differences alone. Where that was not possible,
they are marked: follows."""
REMOVED = """Uses were compared with the differences removed, or with the left model's values: where the models part, a
row has the difference of its card."""
FOLDED = "{0..3}", "modules in a row that are alike and do not differ share a row"
KEYS = (
    (
        "first",
        MARKS["differs"],
        "the models differ here, as a card above says; the modules around it have the mark as well",
    ),
    ("noted", MARKS["close"], "the values differ here, but the outputs are proven to be equal"),
    ("follows", "follows", "differs too, but is computed after such a place, so its input may differ already"),
    ("outside", "unobservable", "outside the proof: with these inputs no output depends on this parameter"),
)
LONE = "lone", f"{NONE}, -", "no partner, so no difference; what only the right model has stands where it runs"
LACKING = "", NONE, "no partner on this side; what only the right model has stands where it runs"
ONE_SIDE = "first", f"{MARKS['differs']} {ALONE}", "only the right model computes with this parameter"


def trees(derivation: Derivation) -> Markup:
    """Build the table of both module trees side by side, with each use of a parameter."""
    measured = any(use.gap > PARTED_USES and not use.by_place for use in derivation.compared)
    heads = [tag("th", text, scope="col") for text in ("left", "right", "use")]
    heads.append(tag("th", "mean difference" if measured else "difference", scope="col", class_="number"))
    top, rated = tree(derivation.compared, derivation.unmatched), Rated(derivation)
    rows = [*_alone([[use] for use in top.alone], rated, 0)]
    rows += [row for modules in alike([m] for m in top.below.values()) for row in _rows(modules, rated)]
    folded = any("{" in row for row in rows)
    rows += _alone([[use] for use in top.after], rated, 0)
    table = tag(
        "table",
        tag("thead", tag("tr", *heads)),
        tag("tbody", *rows),
        class_="modules trees" if derivation.proven else "modules trees open",
        aria_label="modules of both models",
    )
    both = [row for row in rows if ALONE not in row]
    keys = [row for row in KEYS if any(re.search(rf'class="[^"]*\b{row[0]}\b', text) for text in both)]
    keys += [ONE_SIDE] if len(both) < len(rows) else []
    if any(f">{NONE}<" in row for row in rows):
        keys.append(LONE if any(re.search(r'<tr class="[^"]*lone', row) for row in rows) else LACKING)
    keys += [("", *FOLDED)] * folded
    keys += [("soft use", *words) for words in KINDS.values() if any(f">{words[0]}<" in row for row in rows)]
    parted = f" {PARTED}" * measured + f" {REMOVED}" * any(use.by_place for use in derivation.compared)
    legend = join(tag("p", prose(READ + parted), class_="soft"), key_list(keys))
    body = tag("div", legend, tag("div", table, class_="scroll"), *_without_row(derivation))
    details = tag("details", tag("summary", SUMMARY), body, open=None if derivation.proven else "")
    return tag("section", tag("h2", "Modules and parameters side by side"), details)


def _without_row(derivation: Derivation) -> list[Markup]:
    """Name the right parameters with a line of which no use was matched, in a paragraph; nothing if there are none."""
    used = {own for use in derivation.compared for own in use.right}
    used.update(own for one in derivation.unmatched for own in one.names)
    rest = fold(own for own in derivation.inferred if own not in used)
    return [tag("p", prose(f"Without a row, as no use of them was matched: {in_a_row(rest)}."))] if rest else []


def _rows(modules: list[Module], rated: Rated) -> Iterator[Markup]:
    """Yield the rows of a module, or of several that are alike, and of those below it."""
    depth = len(modules[0].path) - 1
    yield _heading(modules, rated, depth)
    for uses in zip(*(module.uses for module in modules), strict=True):
        yield _use(uses, rated, depth + 1)
    yield from _alone(zip(*(module.alone for module in modules), strict=True), rated, depth + 1)
    for inner in alike(map(list, zip(*(module.below.values() for module in modules), strict=True))):
        yield from _rows(inner, rated)
    yield from _alone(zip(*(module.after for module in modules), strict=True), rated, depth)


def _heading(modules: list[Module], rated: Rated, depth: int) -> Markup:
    """Build the row that names a module, or several that are alike, with the largest difference in them."""
    below = [use for module in modules for use in module.within()]
    paths = [path for use in below for path in use.right]
    mark = "/" if any("/" in path for path in paths) else "."  # between names, as the parameters below have it
    right = ", ".join(fold(mark.join(module.partner) or OWN for module in modules if module.partner is not None))
    state = rated.rate(below)
    gap = max((use.gap for use in below if rated.rate([use]) == state), default=None)
    cells = [
        _head(tag("b", name(", ".join(fold(module.path[-1] for module in modules))))),
        tag("td", tag("b", name(right)) if right else "" if below else NONE),
        tag("td"),
        _difference(gap, state),
    ]
    return _row(depth, *cells, class_=f"module {'lone' if gap is None else state}".strip())


def _use(uses: Sequence[Step], rated: Rated, depth: int) -> Markup:
    """Build the row of a use of a parameter, or of one in each of several modules that are alike."""
    lefts, state = [use.left for use in uses], rated.rate_row(uses)
    cells = [
        _head(tag("code", name(_folded(map(_relative, uses)))), _folded(lefts)),
        tag("td", tag("code", name(_folded(use.right for use in uses)))),
        tag("td", KINDS[uses[0].kind][0], class_="soft"),
        _difference(max(use.gap for use in uses), state),
    ]
    addresses = rated.addresses
    address = next((addresses.pop(own) for own in map(key, uses) if own in addresses), None)
    return _row(depth, *cells, class_=state or None, id=address)


def _difference(gap: float | None, state: str) -> Markup:
    """Build the cell of a difference with the mark of its state; "-" for none."""
    mark = [tag("b", MARKS[GRADES[state]], class_="mark"), " "] if state in GRADES else []
    word = [tag("span", WORDS[state], class_="state"), " "] if state in WORDS else []  # numbers end below each other
    return tag("td", *mark, *word, prose(short(gap)), class_=f"number {state}".strip())


def _row(depth: int, *cells: str, **attributes: object) -> Markup:
    """Build a row that is indented by its depth."""
    return tag("tr", *cells, **attributes, style=f"--depth: {depth}" if depth else None)


def _head(text: str, title: str | None = None) -> Markup:
    """Build the first cell of a row, which names it."""
    return tag("td", text, role="rowheader", title=title)


def _alone(groups: Iterable[Sequence[Unmatched]], rated: Rated, depth: int) -> Iterator[Markup]:
    """Yield the rows of what has no partner; uses that are alike but for numbers share one.

    Args:
      groups: of uses in modules that are alike.
    """
    derivation, alike = rated.found, dict[object, list[Unmatched]]()
    reasons = {array: k for k, (names, _) in enumerate(derivation.alone) for array in names}
    for uses in groups:
        use = uses[0]
        alike.setdefault((use.side, use.kind, alike_names(use.names), reasons.get(use.names[0])), []).extend(uses)
    for uses in alike.values():
        on_right = uses[0].side == "right"
        kind = next((own for use in uses if on_right and (own := derivation.left_out(use))), "")
        at = (address for use in uses for name in use.names if on_right and (address := rated.alone.get(name)))
        stop = STOPPED if any(use in uses for use in rated.stop) else None
        stated = [use._replace(kind=kind) for use in uses] if kind else uses
        yield _lone(stated, depth, stop, "first" if kind else "lone", next(at, None))


def _lone(uses: Sequence[Unmatched], depth: int, address: str | None, state: str, right_address: str | None) -> Markup:
    """Build the row of uses without a partner: "none" stands on the other side.

    Args:
      state: "first" where this use parts the models. right_address: of the cell of the right side.
    """
    names, use = [use.names for use in uses], uses[0]
    mark = [tag("b", MARKS[GRADES[state]], class_="mark"), " "] if state in GRADES else []
    left = tag("code", name(_folded(relative(use.site, use.names) for use in uses))) if use.side == "left" else NONE
    right = tag("code", name(_folded(names))) if use.side == "right" else NONE
    cells = [
        _head(left, _folded(names)),
        tag("td", right, id=right_address),
        tag("td", KINDS[use.kind][0] if use.kind in KINDS else "not read", class_="soft"),
        tag("td", *mark, ALONE if mark else "-", class_="number first" if mark else "number"),
    ]
    return _row(depth, *cells, class_=state, id=address)


def _relative(use: Step) -> tuple[str, ...]:
    return relative("" if use.kind == "place" else use.left_site, use.left)


def _folded(uses: Iterable[Sequence[str]]) -> str:
    """Fold the numbers in names of uses that are alike: ("0.q", "0.k"), ("1.q", "1.k") -> "{0..1}.q, {0..1}.k"."""
    columns = zip(*uses, strict=True)
    return ", ".join(text for column in columns for text in fold(column))


class Rated:
    """How the differences of uses are rated: those of places where the models part, and those that follow.

    Args:
      found: what was derived, whose right model has `alone` at addresses, and `stop` where matching stopped.
    """

    def __init__(self, derivation: Derivation):
        self.found, self.alone, self.stop = derivation, alone_anchors(derivation), stopping(derivation)[:1]
        self.addresses = {key(use): address for address, use in parting_uses(derivation).items()}
        self.parting = "noted" if derivation.proven else "first"
        places = [use.modules for use in derivation.compared]
        parts = {*anchors(derivation), *_listed(derivation)}
        begin = next((k for k, place in enumerate(places) if place in parts), len(places))
        after = (use.modules for use in derivation.compared[begin:] if use.gap > PARTED_USES)
        self.follow = {*after} - parts
        self.idle = {*derivation.unobservable, *derivation.idle_parts} if derivation.proven else set[str]()

    def rate_row(self, uses: Iterable[Step]) -> str:
        """Return the same of a row of uses; "outside" where no output depends on their parameter."""
        every = [*uses]
        is_idle = all(self.idle.issuperset(use.left) or self.idle.issuperset(use.right) for use in every)
        return self.rate(every) or ("outside" if is_idle else "")

    def rate(self, uses: Iterable[Step]) -> str:
        """Return "first" (or "noted" in a proof) where one of these uses parts the models, "follows", or ""."""
        off = [use.modules for use in uses if use.gap > PARTED_USES]
        return "" if not off else "follows" if self.follow.issuperset(off) else self.parting


def _listed(derivation: Derivation) -> Iterator[tuple[str, str]]:
    """Yield where each further place of a card parts the models: at the first use in it that no use before explains.

    A place may be a module whose own code applies an activation: the product after it is the use that differs. Where
    the use before differs already, only a use in the very module that the card names is such a place.
    """
    uses = derivation.compared
    off = [use for k, use in enumerate(uses) if use.gap > PARTED_USES and (not k or uses[k - 1].gap <= PARTED_USES)]
    for card in derivation.divergences:
        side = ("left", "right").index(card.changed) if card.changed else 0
        for path in card.places[1:]:
            inside = (place for place in (use.modules for use in off) if is_inside(place[side], path))
            own = (place for place in (use.modules for use in uses) if place[side] == path)
            yield from itertools.islice(itertools.chain(_likewise(uses, card, side, path), inside, own), 1)


def _likewise(uses: Sequence[Step], card: Divergence, side: int, path: str) -> Iterator[tuple[str, str]]:
    """Yield the differing uses that stand in the module `path` as the card's own use does in its first place."""
    here, first = (card.left, card.right)[side], card.places[0]
    if is_inside(here, first):
        there = path + here[len(first) :]
        yield from (place for use in uses if use.gap > PARTED_USES and (place := use.modules)[side] == there)


def key(use: Step) -> tuple[str, ...]:
    """Return what tells a use from the others in the rows."""
    return use.kind, *use.right, *use.modules
