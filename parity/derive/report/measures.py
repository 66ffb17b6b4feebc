"""Say how far the models agree: the errors of outputs and gradients, and how many uses of parameters agree."""

from __future__ import annotations

import math
from typing import NamedTuple

from parity.derive.findings.derivation import CONTINUED, Derivation
from parity.derive.limits import EQUAL_GRADIENTS, EQUAL_OUTPUTS, PARTED_USES, ROUNDED_GRADIENTS
from parity.page.markup import Markup, graded, join, prose, tag
from specs.numbers import limit, short

OUTPUTS = """Both models run in float64 on weights and inputs that the search did not use, the right one's weights
translated by the Table. The error is the largest difference of an element over the largest element of its output."""
USES = """At each use of a parameter, in a product or a sum, the values that it is combined with are compared between
the models, whatever their layout, on the weights of the search. A difference is relative to the largest of them."""
GRADIENTS = """A proof compares the gradient of every parameter, through the Table, where both models have gradients."""
CONFIRMED = "equal once the differences above are removed"


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


def measures(derivation: Derivation) -> Markup:
    """State both measures of difference, each with its limit and its definition, and of outputs why they have none."""
    rows = [*_outputs(derivation), *_gradients(derivation)]
    off = len(derivation.compared) > derivation.agreeing and not derivation.proven
    uses = derivation.matched.replace(" uses of parameters", "", 1)
    note = "compared with the differences removed" if derivation.removed else ""
    note = CONTINUED.removeprefix(", ") if derivation.continued and not note else note
    rows.append(Measure("uses of parameters", uses, PARTED_USES, off, note, USES))
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
