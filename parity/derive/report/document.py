"""Build the page of a derivation: the verdict, where the models part, the Table, and both module trees."""

from __future__ import annotations

from collections.abc import Mapping

from parity.derive.findings.derivation import Derivation, dropped_lines
from parity.derive.findings.remarks import exceptions, remarks, stated
from parity.page.cards import models, provenance
from parity.page.caveats import section
from parity.page.document import fill
from parity.page.markup import Markup, join, prose, tag
from specs.notation.paths import Hole
from specs.table import Table
from specs.words import begun, count

from .cards import cards
from .measures import measures
from .table import table
from .trees import trees

VERDICTS = {"proven": "Proven", "complete": "Complete, but not proven", "incomplete": "Incomplete"}
UNPROVEN = "It is not shown that the Table is right."
SIZES = "The Table also converts {} models, but they were not tested."
CAVEATS = (
    "Both models ran in evaluation mode, on the sizes and inputs of this run.",
    "Branches that other inputs would take are not covered, nor is what training mode alone computes, nor state that "
    "builds up between calls.",
    "An operation that changes no value on random weights and inputs, such as exp(log(t)) of a positive t, does not "
    "show.",
)


def page(
    derivation: Derivation, about: Mapping[str, str], out: str | None = None, sides: tuple[str, str] | None = None
) -> str:
    """Build the page: no network, no script.

    Args:
      about: what was run, by label. out: the file of the Table. sides: what both models are called.
    """
    totals = prose(f"The Table has {_contents(derivation)}.")  # "Measured differences" has the errors
    known = [join(" ", tag("b", prose(f"{begun(text)}."))) for text in exceptions(derivation)]
    names = sides or ("the left model", "the right model")
    return fill(
        kicker="Triptych derivation",
        title=join(f"{VERDICTS[derivation.verdict]}: {' <-> '.join(names)}"),
        state="good" if derivation.proven else "apart" if derivation.explained else "bad",
        verdict=prose(f"{_verdict(derivation, *names)}."),
        totals=join(totals, *known),
        provenance=join(models(about, ("left", "right")), provenance(about)),
        divergences=join(cards(derivation), measures(derivation)),
        results=table(derivation, out),
        remarks=_remarks(derivation),
        modules=trees(derivation),
        notes=section(_caveats(derivation)),
    )


def _contents(derivation: Derivation) -> str:
    """Count the lines of the Table, and the arrays of the right model that these fill and drop."""
    lines, number = count(len(derivation.table.lines), "line"), derivation.arrays[1]
    if not number:
        return lines
    dropped = len(derivation.dropped)
    filled = f"fills {derivation.written:,} of {count(number, 'array')} of the right model"
    return f"{lines}, {filled} and drops {dropped:,}" if dropped else f"{lines} and {filled}"


def _verdict(derivation: Derivation, left: str, right: str) -> str:
    if derivation.proven:
        return f"{VERDICTS['proven']}{derivation.covered}: the Table translates {left} into {right}"
    if derivation.missing:
        number = len(derivation.missing)
        lacking = f"{count(number, 'array')} of {right} {'is' if number == 1 else 'are'} not matched to {left}"
        where = derivation.stopped.where if derivation.stopped else ""
        return f"{VERDICTS['incomplete']}: {lacking}" + (f", as matching stopped at {where}" if where else "")
    if derivation.explained:
        return f"{VERDICTS['complete']}: {left} and {right} differ in {derivation.explained}"
    return f"{VERDICTS['complete']}: {derivation.outputs.replace('outputs', f'outputs of {left} and {right}', 1)}"


def _caveats(derivation: Derivation) -> list[str]:
    ran, *others = CAVEATS
    convertible = derivation.table.lines and not derivation.missing
    shown = derivation.proven or derivation.holds_without_causes
    sizes = SIZES.format("deeper and wider" if _counts_blocks(derivation.table) else "wider")
    return [*([] if shown else [UNPROVEN]), f"{ran} {sizes}" if convertible else ran, *others]


def _counts_blocks(table: Table) -> bool:
    """Tell whether a line has a {i} that counts, and no list of names."""
    paths = (line.resolved(array).path for line in table.lines for array in line.arrays)
    return any(isinstance(piece, Hole) and not piece.values for path in paths for piece in path)


def _remarks(derivation: Derivation) -> Markup:
    """List what is known beside the verdict, but for what the comments of the Table say above.

    What somebody should check stands here as well, as its lines are marked, and what no proof covers.
    """
    whole = derivation.table
    some = (each for each in remarks(derivation) if each.to_check or each.outside or not stated(whole, each.text))
    rows = [begun(text) for text in (*(line.text for line in dropped_lines(whole)), *(each.text for each in some))]
    if not rows:
        return Markup()
    return tag("section", tag("h2", "Remarks"), tag("ul", *(tag("li", prose(f"{row}.")) for row in rows)), id="remarks")
