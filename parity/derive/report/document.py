"""Build the page of a derivation: the verdict, where the models part, the Table, and both module trees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from parity.derive.findings.derivation import Derivation, dropped_lines
from parity.derive.findings.remarks import exceptions, remarks, stated
from parity.derive.limits import EQUAL_GRADIENTS, EQUAL_OUTPUTS, PARTED_USES, ROUNDED_GRADIENTS
from parity.page.cards import models, provenance
from parity.page.caveats import section
from parity.page.document import fill
from parity.page.markup import Markup, graded, join, prose, tag
from specs.notation.paths import Hole
from specs.numbers import limit, short
from specs.table import Table
from specs.words import begun, count

from .cards import cards
from .table import as_shown, table
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
OUTPUTS = """Both models run in float64 on weights and inputs that the search did not use, the right one's weights
translated by the Table. The error is the largest difference of an element over the largest element of its output."""
USES = """At each use of a parameter, in a product or a sum, the values that it is combined with are compared between
the models, whatever their layout, on the weights of the search. A difference is relative to the largest of them."""
GRADIENTS = """A proof compares the gradient of every parameter, through the Table, where both models have gradients."""
CONFIRMED = "equal once the differences above are removed"


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
        divergences=join(cards(derivation), _measures(derivation)),
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

    What somebody should check stands here as well, and what no proof covers.
    """
    whole = as_shown(derivation.table)
    some = (each for each in remarks(derivation) if each.to_check or each.outside or not stated(whole, each.text))
    rows = [
        begun(text)
        for text in (
            *(line.text for line in dropped_lines(derivation.table, derivation.dropped_read)),
            *(each.text for each in some),
        )
    ]
    if not rows:
        return Markup()
    return tag("section", tag("h2", "Remarks"), tag("ul", *(tag("li", prose(f"{row}.")) for row in rows)), id="remarks")


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
        """Build the label and the value: "✗ 9.6e-3 for the models as written (limit 1e-9); equal once ..."."""
        value = tag("b", graded("differs", self.value) if self.off else self.value)
        value = tag("span", value, class_="mark differs") if self.off else value
        written = " for the models as written" * (self.note == CONFIRMED)
        bound = f"{written} (limit {limit(self.bound)})" if self.bound is not None else ""
        mark = "," if self.note.startswith("as ") and not bound else ";"  # "not compared, as ..."
        note = f"{bound}{mark} {self.note}" if self.note else bound
        about = tag("p", prose(self.about), class_="soft") if self.about else Markup()
        return join(tag("dt", self.label), tag("dd", value, prose(note), about))


def _measures(derivation: Derivation) -> Markup:
    """State both measures of difference, each with its limit and its definition, and of outputs why they have none."""
    rows = [*_outputs(derivation), *_gradients(derivation)]
    off = len(derivation.compared) > derivation.agreeing and not derivation.proven
    uses = derivation.matched.replace(" uses of parameters", "", 1)
    rows.append(Measure("uses of parameters", uses, PARTED_USES, off, derivation.why_others_agree, USES))
    listed = tag("dl", *(row.markup for row in rows))
    return tag("section", tag("h2", "Measured differences"), listed, class_="measures")


def _outputs(derivation: Derivation) -> list[Measure]:
    label = "error of the outputs"
    if derivation.rounded:
        lower = "this is rounding: the models compute partly in lower precision"
        return [Measure(f"{label}, in float64", short(derivation.exact), EQUAL_OUTPUTS, about=OUTPUTS),
                Measure("as the models compute", short(derivation.error), note=lower)]  # fmt: skip
    if not math.isfinite(derivation.error):
        return [Measure(label, derivation.outputs.removeprefix("outputs "))]
    off = derivation.error > EQUAL_OUTPUTS
    note = CONFIRMED if off and derivation.holds_without_causes else ""
    return [Measure(label, short(derivation.error), EQUAL_OUTPUTS, off, note, OUTPUTS)]


def _gradients(derivation: Derivation) -> list[Measure]:
    label = "error of the gradients"
    if derivation.gradient is None:
        why = derivation.remark or ("as arrays are missing" if derivation.missing else "as outputs are not equal")
        return [Measure(label, "not compared", note=why, about=GRADIENTS)]
    off, bound = derivation.gradient > EQUAL_GRADIENTS, EQUAL_GRADIENTS
    notes = [derivation.remark] if derivation.remark else []
    if off and derivation.proven:
        off, bound = False, ROUNDED_GRADIENTS
        notes.insert(0, "this is rounding, as they are partly computed in lower precision")
    return [Measure(label, short(derivation.gradient), bound, off, "; ".join(notes), GRADIENTS)]
