"""Say what a derivation found: the verdict, where the models part, what to do next."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from convert.errors import command_or_call, option
from convert.folding import fold as folded_names
from convert.table.like import dropped
from parity.derive.edits.affine import MISSING
from parity.derive.explain.divergence import LATE, Divergence
from parity.derive.explain.heads import HEADS
from parity.derive.limits import EQUAL_GRADIENTS, EQUAL_OUTPUTS, PARTED_USES
from parity.derive.match.advice import Stop
from parity.derive.missing.unmatched import Unmatched
from parity.derive.trace.outputs import COARSE, differ_by
from parity.derive.trace.reason import OneSided, remedy
from parity.derive.trace.sites import OWN
from specs.notation.paths import normal
from specs.numbers import limit, short
from specs.table import Table
from specs.words import count, in_a_row, in_words

from .comments import agreeing, agreeing_gradients, constants, remedies
from .evidence import Evidence
from .next_steps import (
    CHOSEN,
    COMPLEX,
    CORRECT,
    CUT,
    FACTOR,
    LINES,
    MEANT,
    NEXT,
    OWN_ORDER,
    PLAIN_WEIGHTS,
    PRODUCT,
    REAL_PARTS,
)
from .remarks import exceptions, remarks

ALWAYS = {
    "selection": "which positions are taken",
    "choice": "how many values are chosen",
    HEADS: "the number of heads",
}  # kinds that are not counted
EQUAL_ONLY = "equal only"  # begins a reason that models whose outputs agree are not proven
REMOVED = "compared with what differs removed"
WITHOUT = "where the models part, and {} with what differs removed"
MOST_NAMED = 3  # differences after the first one that one line names
CONTINUED = "as the right model goes on with the left one's values behind a place where they part"
PARTING = "where the models part, behind which the right one goes on with the left one's values"


class Line(NamedTuple):
    """A line that is printed.

    Args:
      kind: its colour, a key of terminal.CODES; "" for none.
    """

    text: str
    kind: str = ""


class Derivation(Evidence):
    """A Table and what supports it. `str` of it is what the command prints: the verdict, and what is not proven."""

    def __str__(self) -> str:
        return "\n".join(line.text for line in self.summary)

    def __repr__(self) -> str:
        filled = f"{self.written} of {count(self.arrays[1], 'array')}"
        return f"<Derivation: {self.verdict}, {count(len(self.table.lines), 'line')}, {filled}>"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON, with the earliest place where the models part as `first`."""
        return {**super().to_dict(), "first": self.first}

    @property
    def outputs(self) -> str:
        """Say how far the outputs are apart."""
        if not np.isfinite(self.error):
            why = f"{'as ' * self.incomparable.endswith(' missing')}{self.incomparable}"
            return f"outputs not comparable{f', {why}' if why else ''}"
        apart = differ_by(self.error)
        if self.incomparable:
            also = f"{apart}, and " * (self.error > EQUAL_OUTPUTS and self.incomparable.startswith(EQUAL_ONLY))
            return f"outputs {also}are {self.incomparable}"
        if (
            not self.proven
            and self.gradient is not None
            and self.gradient > EQUAL_GRADIENTS
            and self.error <= EQUAL_OUTPUTS
        ):
            agree = f"outputs {agreeing(self.error)}, but gradients"
            return f"{agree} {self._apart}"
        if self.rounded:
            dtypes = in_a_row(self.lower) if self.lower else "lower precision"
            return f"outputs {agreeing(self.exact)}; as written, the models compute partly in {dtypes}, and {apart}"
        return f"outputs {apart}" if self.error else "outputs are equal"

    @property
    def _apart(self) -> str:
        """Say how gradients differ."""
        if self.gradient is None or math.isinf(self.gradient):
            return f"differ: {self.remark}"
        where = f", for {in_a_row(folded_names(self.other_gradients))}" if self.other_gradients else ""
        return f"differ by {short(self.gradient)} of their largest{where}"

    @property
    def explained(self) -> str:
        """Name what a complete derivation's models differ in, "one epsilon", if recomputing confirms every cause.

        Causes that are not recomputed, such as the window of a convolution, may hide others: "at least".
        """
        kinds = [place.kind for place in self.divergences]
        if self.proven or self.missing or self.check_given or not all(kinds):
            return ""
        counts = {kind: sum(place.times for place in self.divergences if place.kind == kind) for kind in kinds}
        texts = [_counted(kind, number) for kind, number in counts.items()]
        return ("" if self.confirmed else "at least ") + in_a_row(texts) if texts else ""

    @property
    def following(self) -> str:
        """Say what to do next; "" where everything is proven or explained."""
        built_unlike = (
            (self.depths, "build both models with the same number of blocks; then derive again"),
            (self.sizes, "build both models of one size, and derive again"),
            (self.strides, "give the convolutions of both models the same strides, and derive again"),
            (self.heads, "give the attention of both models the same numbers of heads, and derive again"),
            (self.misordered, f"{command_or_call(*OWN_ORDER)}; then derive again"),
            (self.weight_norms, PLAIN_WEIGHTS),
            (self.complex_arrays, REAL_PARTS),
        )
        if step := next((advice for what, advice in built_unlike if what), ""):
            return step
        if self.reads_numbers and not self.proven:
            what = "compute with arrays alone, without .item() and branches, in 32 bits or more"
            return f"let both models {what}; then derive again"
        if self.check_given:
            return CORRECT
        if self.missing and (self.stopped or any(place.kind != MISSING for place in self.divergences)):
            several = sum(line.kind == "head" for line in self.places) > 1
            alone = "there" if self.divergences else "before the place where the matching stopped"
            where = "at the place that runs first" if several else alone
            return f"{self._without_factor}{NEXT.format(where)}"
        advice = remedies(self.reasons)
        if len(advice) == 1 and advice[0]:
            return advice[0]
        if self.missing:
            return f"both models compute the same: {LINES}" if self.error <= EQUAL_OUTPUTS else LINES
        if self.unshown:
            return "give both models values there that tell their order, or check the lines of these arrays yourself"
        mended = remedy(self.incomparable)
        if mended and not (self.explained and self.incomparable == COARSE):  # what differs comes first
            return mended
        if self.explained:
            number = sum(place.times for place in self.divergences)  # as the verdict counts
            every = "both" if number == 2 else f"all {in_words(number)}"
            what = "make both models equal there" if number == 1 else f"remove {every} differences"
            again = f"{what} and derive again"
            return f"{again}; {MEANT}" if self.confirmed else again
        if self.other_gradients and self.error <= EQUAL_OUTPUTS and not self.proven:
            return CUT
        return self._to_compare

    @property
    def _to_compare(self) -> str:
        """Say what to compare where values part without a cause; "" where they do not."""
        place = next((place for place in self.divergences if place.advice), None)
        if self.proven or place is None:
            return ""
        if self.chosen and place.of_outputs and len(self.divergences) == 1:  # all uses agree
            return CHOSEN.format(in_a_row(folded_names(self.chosen)))
        where = "their outputs" if place.of_outputs else f"{place.left} <-> {place.right}"
        what = "the sums behind the products of" if place.behind else "what both models compute before"
        agree = ", which agree" * place.behind
        known = "make both models equal where a cause is named, and " * any(at.cause for at in self.divergences)
        return f"{known}compare {what} {where}{agree}: {place.advice}; then derive again"

    @property
    def _without_factor(self) -> str:
        """Say how to derive without the factor at which the matching stopped; "" of another use."""
        if self.stopped is None or self.stopped.factor is None or self.divergences:
            return ""
        kinds = {normal(name) for name in self.stopped.names}
        lines = constants((name, self.stopped.factor, "1") for name in self.missing if normal(name) in kinds)
        return FACTOR.format(in_a_row(lines))

    @property
    def matched(self) -> str:
        """Say how many uses of parameters have partners and agree: "10 of 36 uses matched, all 10 agree"."""
        matched, agree = len(self.compared), self.agreeing
        others = sum(use.side == "right" and bool(use.kind or self.left_out(use)) for use in self.unmatched)
        verb = "agrees" if agree == 1 else "agree"
        if not others:
            return f"{agree:,} of {count(matched, 'use')} of parameters {verb}"
        if not matched:
            return f"0 of {count(others, 'use')} of parameters matched"
        which = f"{'all ' * (agree > 1)}{agree:,}" if agree == matched else f"{agree:,} of these"
        return f"{matched:,} of {count(matched + others, 'use')} of parameters matched, {which} {verb}"

    def left_out(self, use: Unmatched) -> str:
        """Return the kind of a use that was not matched because its model has it alone; "" for other uses."""
        reasons = (self.reasons.get(name) for name in use.names if not use.kind)
        return next((why.use for why in reasons if isinstance(why, OneSided)), "")

    @property
    def matched_to(self) -> str:
        """Say the same with the difference up to which uses agree, where any was compared, and why others do not."""
        why = f"; {self.why_others_agree}" if self.why_others_agree else ""
        return self.matched + f" to {limit(PARTED_USES)}{why}" * bool(self.uses)

    @property
    def why_others_agree(self) -> str:
        """Say why all but the uses at which the models part agree; "" where it is otherwise.

        What differs was removed, as a factor that all values have, or the right model went on with the left one's
        values.
        """
        if not (self.removed or self.continued):
            return ""
        others = len(self.compared) - self.agreeing
        if not others:
            return REMOVED if self.removed else CONTINUED
        which, agree = ("the other one is", "agrees") if others == 1 else (f"the other {others:,} are", "agree")
        return f"{which} {WITHOUT.format(agree) if self.removed else PARTING}"

    @property
    def continued(self) -> bool:
        """Tell whether uses agree by construction, also those behind a place where the models part."""
        inside = any(not at.of_outputs for at in self.divergences)
        return inside and not self.proven and self._agree_without_places

    @property
    def removed(self) -> bool:
        """Tell whether uses agree since they were compared with what differs removed: a cause that is known."""
        inside = any(at.what and (at.left != OWN or at.right != OWN) for at in self.divergences)
        return inside and self._agree_without_places

    @property
    def _agree_without_places(self) -> bool:
        """Tell whether all uses agree, but for the places where the models part."""
        return all(use.by_place or use.gap <= PARTED_USES for use in self.compared)

    @property
    def unlike(self) -> list[tuple[str, str]]:
        """List (what, how) the models are built of other parts or sizes, which no line can translate."""
        every = [("depths differ", self.depths), ("sizes differ", self.sizes), ("strides differ", self.strides)]
        every += [("heads differ", self.heads)]
        every += [("inputs seem to be in another order", self.misordered)]
        every += [(f"weight normalization: {self.weight_norms}", PRODUCT)] if self.weight_norms else []
        every += [(f"stored as complex numbers: {self.complex_arrays}", COMPLEX)] if self.complex_arrays else []
        return [(what, how) for what, how in every if how]

    @property
    def not_shown(self) -> list[tuple[str, str]]:
        """List ("not shown", which arrays) if both models read arrays that no proof exchanges."""
        why = "both models read arrays that keep their own values, which no proof exchanges"
        return [("not shown", f"{why}: {', '.join(folded_names(self.unshown))}")] if self.unshown else []

    @property
    def places(self) -> list[Line]:
        """Say where the models part, in the order of execution: the last use is the one at which matching stopped."""
        lines = [line for place in self.divergences for line in self._parting(place)]
        return [*lines, *(self._stop(at) if (at := self.stopped) else [])]

    @staticmethod
    def _parting(place: Divergence) -> list[Line]:
        """Say where the models part, by how much and why, and at which other places."""
        where = "outputs part" if place.of_outputs else f"parts at {place.left} <-> {place.right}"
        value = f"of {'their' if place.of_outputs else 'the'} largest value"
        size = f" by {short(place.size)} {value}" if math.isfinite(place.size) else ", where values cannot be compared"
        where += size + f" ({LATE})" * place.late
        head = Line(f"{where}: {place.cause}" if place.cause else where, "head")
        return [head, *([Line(place.everywhere)] if place.everywhere else [])]

    def _stop(self, at: Stop) -> list[Line]:
        """Say where the matching stopped; of a complete Table, which lines are found otherwise."""
        if not self.missing:  # what to compare is said after `next:`
            return [Line(f"lines from {at.where} on follow names, not values: {at.why}", "head")]
        apart = in_a_row(folded_names(self.doubtful))
        earlier = f"; what differs may also be ahead of {apart}, whose partners meet other values" * bool(apart)
        return [Line(f"stopped at {at.where}: {at.why}", "head")] + (
            [Line(f"compare before it: {at.before}{earlier}")] if at.before else []
        )

    @property
    def stopped(self) -> Stop | None:
        """Return the first use without a partner, unless both models have other sizes or numbers of blocks."""
        return None if self.depths or self.sizes else self.stop

    @property
    def first(self) -> str:
        """Name the earliest place where the models part; "" if there is none."""
        return self.places[0].text if self.places else ""

    @property
    def why(self) -> str:
        """Say in one line why nothing is proven: other sizes, say, or the earliest place where the models part."""
        if self.proven:
            return ""
        part = (
            f"the models {self.first}".replace(" parts ", " part ", 1) if self.first.startswith("parts") else self.first
        )
        said = (f"{what}: {how}" for what, how in (*self.unlike, *self.not_shown))
        with_it = f"; with it {part}" if part else ""
        part = f"a given line may be wrong ({self.check_given}){with_it}" if self.check_given else part
        return next(said, "") or part + self._further

    @property
    def _further(self) -> str:
        """Name the differences after the first: "; and at fc <-> dense by 0.92: mean, max"; of many, the largest."""
        others = self.divergences[1:]
        if len(others) <= MOST_NAMED:
            return "".join(f"; and {_named(place)}" for place in others)
        worst = max(others, key=lambda place: place.size)  # not comparable is infinite
        return f"; and {_named(worst, f', the largest of {len(others)} more differences')}"

    @property
    def judgement(self) -> list[Line]:
        """Say whether the Table is proven, what is not, the verdict first, and what to do next."""
        return [*self._unproven, *self._next]

    @property
    def _next(self) -> list[Line]:
        return [Line(f"next: {self.following}", "head")] if self.following else []

    @property
    def _unproven(self) -> list[Line]:
        verdict = self.verdict if self.verdict != "complete" else "complete, but not proven"
        verdict += self.covered
        verdict += f", as the models differ in {self.explained}" if self.explained else ""
        uses = f"; {self.matched_to}" if (self.uses or self.unmatched) and not self.reads_numbers else ""
        alike = None if self.rounded or not self.proven else self.gradient
        gradients = "" if alike is None else f", {agreeing_gradients(alike)}"
        kind = "good" if self.proven else "bad"  # as the page has it
        lines = [Line(f"{verdict}: {self.outputs}{gradients}{uses}", kind)]
        lines += [Line(f"{what}: {how}", "head") for what, how in self.unlike]
        if self.depths:  # which explains what is missing, and where values part without a cause
            return [*lines, *(line for place in self.divergences if place.cause for line in self._parting(place))]
        lines += [Line(self.check_given, "head")] if self.check_given else []
        lines += [*self.places, *(Line(f"missing: {line}") for line in self.lacking)]
        if self.missing and self.search_limit and not self.sizes:
            lines.append(Line(f"not found within a limit: {self.search_limit}"))
        lines += [Line(f"{what}: {how}") for what, how in self.not_shown]
        if self.left_over and not self.nothing_matched:
            lines.append(Line(f"left without a partner: {', '.join(folded_names(self.left_over))}"))
        return lines

    @property
    def summary(self) -> list[Line]:
        """Say all that is known beside the Table."""
        first = [Line(text, "head") for text in exceptions(self)]
        verdict, *others = self._unproven
        said = (Line(remark.text) for remark in remarks(self))
        return [
            verdict,
            *first,
            *others,
            *dropped_lines(self.table, self.dropped_read),
            *said,
            Line(self.took),
            *self._next,
        ]

    @property
    def took(self) -> str:
        """Say how much CPU time it took."""
        before = f", after {self.built:.1f} s for building both models" if self.built else ""
        return f"{self.seconds:.1f} s of CPU{before}"


def _named(place: Divergence, among: str = "") -> str:
    """Say where models part, by how much, and why: "at fc <-> dense by 0.92: mean, max"."""
    where = "outputs" if place.of_outputs else f"at {place.left} <-> {place.right}"
    by = f" by {short(place.size)}" if math.isfinite(place.size) else ""
    return f"{where}{by}{among}{f': {place.cause}' * bool(place.cause)}"


def _counted(kind: str, number: int) -> str:
    """Say how often the models differ in something: "one epsilon", "four norms in another place"."""
    if kind in ALWAYS:
        return ALWAYS[kind]
    noun, *rest = kind.split(" in ")
    plural = noun + ("es" if noun.endswith("x") else "s") if number > 1 else noun
    return " in ".join([f"{in_words(number)} {plural}", *rest])


def dropped_by_side(table: Table) -> dict[str, tuple[str, ...]]:
    """Return the arrays that only one side has, by "left" and "right"."""
    return {"left": dropped(table.reverse()), "right": dropped(table)}


def dropped_lines(table: Table, computing: Sequence[Collection[str]]) -> list[Line]:
    """Name the arrays of one side alone, in one line. Args: computing: of each side, those with which it computes."""
    named = list[str]()
    for (side, labels), known in zip(dropped_by_side(table).items(), computing, strict=True):
        read = [label for label in labels if label in known]
        others = ", ".join(label for label in labels if label not in read)
        named += [f"{', '.join(read)} on the {side}, with which that model computes"] if read else []
        named += [f"{others} on the {side}"] if others else []
    remedy = f"{option('like', 'FILE')}, a file of a new model of that side, supplies them to a conversion"
    return [Line(f"dropped: {'; '.join(named)}: {remedy}")] if named else []
