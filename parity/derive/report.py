"""Write what was derived as one page: the verdict, where the models part, both module trees side by side, the Table."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from convert.folding import fold as folded_names
from parity.page.cards import facts, models, provenance
from parity.page.caveats import section
from parity.page.document import fill
from parity.page.markup import Markup, command, graded, join, leading, name, prose, tag
from specs.numerals import limit, short
from specs.words import begun, count

from .derivation import Derivation, converting, dropped_by_side, dropped_lines
from .limits import EQUAL_GRADIENTS, EQUAL_OUTPUTS, PARTED_USES, ROUNDED_GRADIENTS
from .match.choices import Step
from .match.complete import split
from .module_trees import STOPPED, alone_anchors, anchors, stopping, trees
from .prove.divergence import Divergence
from .remarks import remarks, stated
from .trace.sites import OWN, numberless
from .trace.sites import place as site

OUTPUTS = """Both models run in float64 on weights and inputs that the search did not use, the right one's weights
translated by the Table. The error is the largest difference of an element over the largest element of its output."""
USES = """Wherever a parameter is used, in a product or a sum, the values that meet it in both models are compared up to
their layout, on the weights of the search. The difference is relative to the largest of them."""
LEGEND = "A line names an array on either side and its axes, by letters that both sides share"
NOTATION = {  # what may occur in a line, and its meaning
    r"\([a-z][a-z0-9 ]*\)": "axes composed into one",
    r"\{[a-z]\}": "the numbers of blocks",
    r"\{[a-z]=[^{}]*\}": "names in the place of an axis",
}
VERDICTS = {"proven": "Proven", "complete": "Complete, but not proven", "incomplete": "Incomplete"}
UNPROVEN = "It is not shown that the Table is right."
CONFIRMED = "equal with the differences removed"
SIZES = "The Table also converts deeper and wider models, but they were not tested."
CAVEATS = (
    "Both models ran in evaluation mode, on the sizes and inputs of this run.",
    "Branches that other inputs would take are not covered, nor is what training mode alone computes, nor state that "
    "builds up between calls.",
    "An operation that changes no value on random weights and inputs, such as exp(log(t)) of a positive t, does not "
    "show.",
)
GRADIENTS = """A proof compares the gradient of every parameter, through the Table, where both models have gradients."""


def page(
    found: Derivation, about: Mapping[str, str], out: str | None = None, sides: tuple[str, str] | None = None
) -> str:
    """Build the page: no network, no script.

    Args:
      about: what was run, by label. out: the file of the Table. sides: what both models are called.
    """
    lines = count(len(found.table.lines), "line")
    number = found.arrays[1]
    filled = f" and fills {number - len(found.missing):,} of {count(number, 'parameter')} of the right model"
    totals = f"The Table has {lines}{filled if number else ''}."  # "How far they agree" has the errors
    names = sides or ("the left model", "the right model")
    return fill(
        kicker="Triptych derivation",
        title=join(f"{VERDICTS[found.verdict]}: {' <-> '.join(names)}"),
        state="good" if found.proven else "apart" if found.explained else "bad",
        verdict=prose(f"{_verdict(found, *names)}."),
        totals=prose(totals),
        provenance=join(models(about, ("left", "right")), provenance(about)),
        divergences=join(_cards(found), _measures(found)),
        results=join(_table(found, out), section(_caveats(found))),
        modules=trees(found),
        remarks=_remarks(found),
    )


def _verdict(found: Derivation, left: str, right: str) -> str:
    if found.proven:
        how = " by outputs alone, without gradients" if found.gradient is None else ""
        return f"{VERDICTS['proven']}{how}: the Table translates {left} into {right}"
    if found.missing:
        number = len(found.missing)
        lacking = f"{count(number, 'parameter')} of {right} {'has' if number == 1 else 'have'} no partner in {left}"
        return f"{VERDICTS['incomplete']}: {lacking}"
    if found.explained:
        return f"{VERDICTS['complete']}: {left} and {right} differ in {found.explained}"
    return f"{VERDICTS['complete']}: {found.outputs.replace('outputs', f'outputs of {left} and {right}', 1)}"


def _caveats(found: Derivation) -> list[str]:
    ran, *others = CAVEATS
    convertible = found.table.lines and not found.missing
    shown = found.proven or _holds(found)
    return [*([] if shown else [UNPROVEN]), f"{ran} {SIZES}" if convertible else ran, *others]


def _holds(found: Derivation) -> bool:
    """Tell whether the Table makes both models equal once all causes are removed."""
    return found.confirmed and not found.missing


class Measure(NamedTuple):
    """A measure of difference.

    Args:
      value: a number or words. bound: what it may be; None where it is no number. off: whether it exceeds that.
      note: what else is to be said of it. about: its definition.
    """

    label: str
    value: str
    bound: float | None = None
    off: bool = False
    note: str = ""
    about: str = ""

    @property
    def markup(self) -> Markup:
        """Build the label and the value: "✗ 9.6e-3 as written (limit 1e-9); equal with the differences removed"."""
        value = tag("b", graded("differs", self.value) if self.off else self.value)
        value = tag("span", value, class_="mark differs") if self.off else value
        written = " as written" * (self.note == CONFIRMED)
        bound = f"{written} (limit {limit(self.bound)})" if self.bound is not None else ""
        note = f"{bound}; {self.note}" if self.note else bound
        about = tag("p", prose(self.about), class_="soft") if self.about else Markup()
        return join(tag("dt", self.label), tag("dd", value, prose(note), about))


def _measures(found: Derivation) -> Markup:
    """State both measures of difference, each with its limit and its definition, and of outputs why they have none."""
    rows = [*_outputs(found), *_gradients(found)]
    uses = found.matched.replace(" uses of parameters", "", 1)
    off = found.agreeing < len(found.compared)
    note = "compared with the differences removed" if found.removed else ""
    rows.append(Measure("uses of parameters", uses, PARTED_USES, off and not found.proven, note, USES))
    measures = tag("dl", *(row.markup for row in rows))
    return tag("section", tag("h2", "How far they agree"), measures, class_="measures")


def _outputs(found: Derivation) -> list[Measure]:
    label = "error of the outputs"
    if found.rounded:
        lower = "this is rounding: the models compute partly in lower precision"
        return [Measure(f"{label}, in float64", short(found.exact), EQUAL_OUTPUTS, about=OUTPUTS),
                Measure("as the models compute", short(found.error), note=lower)]  # fmt: skip
    if not math.isfinite(found.error):
        return [Measure(label, found.outputs.removeprefix("outputs "))]
    off = found.error > EQUAL_OUTPUTS
    note = CONFIRMED if off and _holds(found) else ""
    return [Measure(label, short(found.error), EQUAL_OUTPUTS, off, note, OUTPUTS)]


def _gradients(found: Derivation) -> list[Measure]:
    label = "error of the gradients"
    if found.gradient is None:
        return [Measure(label, "not compared", note=found.remark, about=GRADIENTS)] if found.remark else []
    off, bound, notes = found.gradient > EQUAL_GRADIENTS, EQUAL_GRADIENTS, [found.remark] * bool(found.remark)
    if off and found.proven:
        off, bound = False, ROUNDED_GRADIENTS
        notes.insert(0, "this is rounding, as they are partly computed in lower precision")
    return [Measure(label, short(found.gradient), bound, off, "; ".join(notes), GRADIENTS)]


def _cards(found: Derivation) -> Markup:
    """Build a card for each place where the models part, and one for what is missing."""
    cards = [_stated(what, how) for what, how in found.unlike]
    addresses = anchors(found)
    for place in found.divergences:
        whole = place.left == place.right and place.left in (OWN, "output")
        title = "Outputs of both models" if whole else begun(place.kind or "values part")
        head = tag("h3", title, _link(addresses.get((place.left, place.right))))
        modules = [] if whole else [("parts at", place.left, place.right)]
        size = f"{short(place.size)} times the largest value" if math.isfinite(place.size) else "not comparable"
        most = EQUAL_OUTPUTS if whole else PARTED_USES
        both, cause = _values(place)
        rows = [("differ by", size), ("limit", limit(most)), ("cause", cause)]
        if len(place.places) > 1:
            rows.append((f"places on the {place.changed}", ", ".join(folded_names(place.places))))
        rows += _only(found, place) if not place.cause else []
        key = "" if both else "cause" if place.cause else "differ by"
        sides = _sides_table([*both, *modules, ("last that agrees", *_before(found, place))], len(both))
        cards.append(tag("article", head, sides, facts(rows, key), class_=_card(found, place.size <= most)))
    if at := found.stopped:
        look = facts([("compare before it", at.before)]) if at.before else Markup()
        cards.append(
            tag(
                "article",
                tag("h3", "Stopped at ", name(at.where), _link(STOPPED if stopping(found) else None)),
                _sentence(at.why),
                look,
                class_="card",
            )
        )
    cards += [_stated(what, how) for what, how in found.not_shown]
    parts = [tag("div", *cards, class_="cards")] if cards else []
    parts += [_missing(found)] if found.missing else []
    parts += [tag("p", tag("b", "Next: "), prose(f"{found.following}."), class_="next")] if found.following else []
    if not parts:
        return Markup()
    return tag("section", tag("h2", "Where the models part"), *parts)


def _only(found: Derivation, place: Divergence) -> list[tuple[str, str]]:
    """List the parameters that the module of one side alone has, at a place without a cause."""
    rows = []
    dropped_by = dropped_by_side(found.table)
    for side, path in (("left", place.left), ("right", place.right)):
        alone = [name for name in dropped_by[side] if _is_of(re.sub(r"\{[a-z]\}", "#", name), path)]
        names = (name for use in found.unmatched if use.side == side and site(use.site, use.names) == path
                 for name in use.names)  # fmt: skip
        if leaves := dict.fromkeys(split(name)[1] for name in (*alone, *names)):
            rows.append((f"only the {side} has", ", ".join(leaves)))
    return rows


def _is_of(name: str, path: str) -> bool:
    """Tell whether an array is of a module: "params/layer_#/norm/bias" of "Net/layer_0/norm"; # stands for numbers."""
    module, own = re.split(r"[./]", numberless(name))[:-1], re.split(r"[./]", numberless(path))
    return module == own or (module[:1] == ["params"] and module[1:] == own[1:])


def _stated(what: str, how: str) -> Markup:
    return tag("article", tag("h3", begun(what)), _sentence(how), class_="card")


def _card(found: Derivation, is_within: bool) -> str:
    """Return the class of a card: red is what exceeds its limit, amber if the outputs are proven to be equal."""
    return "card within" if is_within else "card near" if found.proven else "card"


def _values(place: Divergence) -> tuple[list[tuple[str, str, str]], str]:
    """Return (what, its value on the left, on the right), if a cause is of one value, and what else it says."""
    if not place.both:
        return [], place.cause or "none was confirmed"
    left, right = place.both
    return [(place.kind, left, right)], f"{place.kind}{place.cause.removeprefix(place.what)}"


def _sides_table(rows: Iterable[tuple[str, str, str]], keys: int) -> Markup:
    """Build a table with a column for each side; the values of the first rows, as many as keys, stand out.

    The other rows have names of modules.
    """
    heads = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in ("", "left", "right"))))
    lines = []
    for k, (label, *values) in enumerate(rows):
        kind = "key" if k < keys else None
        cells = [tag("td", prose(value) if kind else name(value), class_=kind) for value in values]
        lines.append(tag("tr", tag("th", prose(label), scope="row"), *cells))
    return tag("table", tag("caption", "Both sides", class_="unseen"), heads, tag("tbody", *lines), class_="both")


def _before(found: Derivation, place: Divergence) -> tuple[str, str]:
    """Name the last use before a place at which both models meet the same values, on either side."""
    sites = [(*_sites_of(use), use.gap) for use in found.uses]
    before = itertools.takewhile(lambda use: use[1] != place.right, sites)
    agreeing = [(left, right) for left, right, gap in before if gap <= PARTED_USES]
    return agreeing[-1] if agreeing else ("none", "none")


def _sites_of(use: Step) -> tuple[str, str]:
    """Return where both sides use a parameter; rows of a table, which are read as they are, stand at its own module."""
    if use.kind == "place":
        return site("", use.left), site("", use.right)
    return site(use.left_site, use.left), site(use.right_site, use.right)


def _link(address: str | None) -> Markup:
    """Link to a row of the table of modules."""
    return join(" ", leading(f"#{address}", "row")) if address else Markup()


def _sentence(text: str) -> Markup:
    return tag("p", prose(f"{begun(text)}."), class_="key")


def _missing(found: Derivation) -> Markup:
    """List the parameters of both sides that have no partner, by module; the reasons of the right ones once each."""
    if found.nothing_matched:
        left, right = found.arrays
        alone = f"{'All ' * (right > 1)}{count(right, 'parameter')} of the right model"
        alone += f" and {'all ' * (left > 1)}{left:,} of the left one"
        return tag("article", tag("h3", "Parameters without a partner"), tag("p", prose(f"{alone}.")), class_="card")
    lines, rows = [], alone_anchors(found)
    for names, why in found.alone:
        link = _link(next((rows[name] for name in names if name in rows), None))
        lines.append(join(tag("h3", f"Right parameters without a partner: {why}", link), facts(_by_module(names))))
    if found.left_over:
        lines.append(join(tag("h3", "Left parameters without a partner"), facts(_by_module(found.left_over))))
    return tag("article", *lines, class_="card")


def _by_module(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return (module, "bias, scale") for each module, with the numbers of blocks folded."""
    modules: dict[str, list[str]] = {}
    for full in folded_names(names):
        *module, leaf = re.split(r"[./](?=[^./]*$)", full)
        modules.setdefault("".join(module) or OWN, []).append(leaf)
    return [(module, ", ".join(leaves)) for module, leaves in modules.items()]


def _table(found: Derivation, out: str | None) -> Markup:
    text = found.table.print()
    lines = _grouped(text, {numberless(name) for name in (*found.doubtful, *found.chosen)})
    commands = converting(found.table, out or "FILE.table") if found.table.lines and not found.missing else []
    converts = [tag("p", prose(f"{begun(what)}: "), command(line), class_="soft next") for what, line in commands]
    legend = tag("p", prose(_legend(text)), class_="soft")
    return tag("section", tag("h2", "Table"), legend, tag("pre", *lines, class_="lines"), *converts)


def _grouped(table: str, doubted: Collection[str] = ()) -> list[Markup]:
    """Build the lines of a Table, comments apart in style, with a space in front of each block of the left model.

    Args:
      doubted: right parameters whose lines somebody should check, which are marked; with # for numbers.
    """
    lines, before = list[Markup](), ""
    for line in table.splitlines(keepends=True):
        is_comment = line.startswith(("#", "table "))
        block = "" if is_comment else _block(line)
        kinds = ["comment"] * is_comment + ["block"] * bool(lines and block != before)
        kinds += ["doubted"] * (not is_comment and not _right_names(line).isdisjoint(doubted))
        lines.append(tag("span", *_sides(line), class_=" ".join(kinds) or None))
        before = block
    return lines


def _right_names(line: str) -> set[str]:
    """Return the names of the right arrays of a line, with # for the numbers of blocks and all choices written out."""
    text = line.partition(" <-> ")[2].partition(":")[0].strip()
    parts = re.split(r"\{(?:[a-z]=)([^{}]*)\}", re.sub(r"\{[a-z]\}", "#", text))
    choices = (part.split("|") if k % 2 else [part] for k, part in enumerate(parts))
    return {numberless("".join(chosen)) for chosen in itertools.product(*choices)}


def _block(line: str) -> str:
    """Return the block of a line's first array: "blocks.{i}" of "blocks.{i}.norm.weight: c <-> ...", or its module."""
    array = line.partition(":")[0].strip()
    counted = re.match(r"[^{}]*\{[a-z]\}", array)
    return counted[0] if counted else re.split(r"[./]", array)[0]


def _legend(table: str) -> str:
    """Explain the notation that occurs in a Table, by its first example of each."""
    lines = "\n".join(line for line in table.splitlines()[1:] if not line.startswith("#"))
    found = [(example[0], meaning) for form, meaning in NOTATION.items() if (example := re.search(form, lines))]
    return "".join([LEGEND, *(f"{';' if not k else ','} {example} {meaning}" for k, (example, meaning) in
                              enumerate(found)), "."])  # fmt: skip


def _sides(line: str) -> list[Markup]:
    """Split a line before its arrow, where it is broken first; comments and lines with one side are whole."""
    left, arrow, right = line.partition(" <-> ")
    if not arrow or line.startswith("#"):
        return [prose(line)]
    return [tag("span", prose(left), class_="side"), join(" "), tag("span", prose(f"<-> {right}"), class_="side")]


def _remarks(found: Derivation) -> Markup:
    """List what is known beside the verdict, but for what the comments of the Table say above.

    What somebody should check stands here as well, as its lines are marked.
    """
    said = [remark.text for remark in remarks(found) if remark.to_check or not stated(found.table, remark.text)]
    rows = [begun(text) for text in [*(line.text for line in dropped_lines(found.table)), *said]]
    if not rows:
        return Markup()
    return tag("section", tag("h2", "Remarks"), tag("ul", *(tag("li", prose(row)) for row in rows)), id="remarks")
