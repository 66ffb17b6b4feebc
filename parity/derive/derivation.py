"""Define what a derivation returns: the Table, what supports it, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specs.numerals import short

from ..summary import count
from .fold.rows import DerivedTable, missing_lines
from .match.choices import Step
from .prove.causes import Divergence
from .trace.places import place
from .unmatched import Unmatched

NEXT = (
    "make both models compute the same at that place and derive again, or write the missing lines yourself and pass "
    "them by --table FILE"
)
ROUNDING = 1e-8  # relative difference of what two uses meet that rounding does not explain


@dataclass(frozen=True)
class Derivation:
    """A Table and what supports it.

    Args:
      proven: outputs and gradients agree in float64 on weights and inputs that were not used to find the table.
      error: the relative error of the outputs there, as the models compute them; NaN where it says nothing, since
        the outputs depend on parameters that are missing.
      divergences: where the models part, the first one first.
      unobservable: left parameters on which no output depends: their place follows the pattern of their siblings.
      reasons: right parameters that the table does not fill, each with the reason; missing: their names.
      failure: why the matching stopped, "" if it did not.
      seconds: the CPU time that it took, in all threads.
      inferred: right parameters of which all or some elements follow a pattern or a name, since nothing reads them.
      freedom: what may be permuted without effect; the table keeps the order as it is written.
      uses: each use of a parameter on the right with its partner, in the order of execution.
      fixed: blocks that stand alone in their list, if it is one: lines are fixed to their number.
      incomparable: why the outputs cannot be compared, or say nothing; "" if they can.
      depths: how the numbers of blocks of both models differ; "" where they do not.
      unmatched: of both sides, what has no partner.
      gradient: the relative error of the gradients in the proof; None where they were not compared.
      arrays, elements: the numbers of parameters and of their elements on the left and on the right.
    """

    table: DerivedTable
    proven: bool
    error: float
    divergences: list[Divergence]
    unobservable: list[str]
    reasons: dict[str, str]
    failure: str
    seconds: float
    inferred: list[str]
    freedom: list[str]
    uses: list[Step]
    fixed: list[str]
    incomparable: str = ""
    depths: str = ""
    unmatched: Sequence[Unmatched] = ()
    gradient: float | None = None
    arrays: tuple[int, int] = (0, 0)
    elements: tuple[int, int] = (0, 0)

    @property
    def outputs(self) -> str:
        """Say how far the outputs are apart."""
        if not np.isfinite(self.error):
            return f"outputs not comparable{f', {self.incomparable}' if self.incomparable else ''}"
        if self.incomparable:
            return f"outputs are {self.incomparable}"
        return f"outputs differ by {short(self.error)} of their largest element" if self.error else "outputs are equal"

    @property
    def nothing_matched(self) -> bool:
        """Tell whether no parameter of the right model has a partner."""
        return bool(self.missing) and len(self.missing) == self.arrays[1]

    @property
    def lacking(self) -> list[str]:
        """List the right parameters without a partner, each with the reason; one line where none has a partner."""
        if self.nothing_matched:
            return [f"all {count(self.arrays[1], 'parameter')} of the right model: no parameter has a partner"]
        return missing_lines(self.reasons)

    @property
    def explained(self) -> str:
        """Name what a complete derivation's models differ in, "one epsilon", if recomputing confirms every cause.

        Causes that are not recomputed through the whole model, such as an activation, may hide others: "at least".
        """
        kinds = [place.kind for place in self.divergences]
        if self.proven or self.missing or not all(kinds):
            return ""
        counts = {kind: kinds.count(kind) for kind in kinds}
        texts = ["one " + kind if number == 1 else f"{number} {kind}s" for kind, number in counts.items()]
        whole = all(place.whole for place in self.divergences)
        return ("" if whole else "at least ") + " and ".join(texts) if texts else ""

    @property
    def following(self) -> str:
        """Say what to do next; "" where everything is proven or explained."""
        if self.missing:
            return NEXT
        if self.explained:
            return "make both models equal there and derive again; if the difference is meant, the Table holds as it is"
        if self.incomparable and np.isfinite(self.error):
            return "let both models return the values from which these numbers are chosen; then derive again"
        place = next((place for place in self.divergences if place.advice), None)
        if self.proven or place is None:
            return ""
        return (
            f"compare what both models compute before {place.left} <-> {place.right}: {place.advice}; then derive again"
        )

    @property
    def agreeing(self) -> int:
        """Count the uses of parameters at which both models meet the same values, up to rounding."""
        return sum(use.gap <= ROUNDING for use in self.uses)

    @property
    def left_over(self) -> list[str]:
        """Return the left parameters, or parts of them, that have no partner where the Table is incomplete."""
        return list(dict.fromkeys(n for use in self.unmatched if use.side == "left" for n in use.names.split(" ")))

    @property
    def matched(self) -> str:
        """Say how many uses of parameters have partners and agree: "10 of 36 uses matched, all 10 agree"."""
        matched, agree = len(self.uses), self.agreeing
        others = sum(use.side == "right" and bool(use.kind) for use in self.unmatched)
        if not others:
            return f"{agree:,} of {matched:,} uses of parameters agree"
        if not matched:
            return f"0 of {others:,} uses of parameters matched"
        which = f"all {agree:,}" if agree == matched else f"{agree:,} of these"
        return f"{matched:,} of {matched + others:,} uses of parameters matched, {which} agree"

    @property
    def missing(self) -> list[str]:
        return list(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain values, for JSON."""
        return {
            "table": self.table.print(),
            "proven": self.proven,
            "gradient": self.gradient,
            "error": self.error if np.isfinite(self.error) else None,
            "divergences": [divergence.to_dict() for divergence in self.divergences],
            "unobservable": self.unobservable,
            "inferred": self.inferred,
            "freedom": self.freedom,
            "fixed": self.fixed,
            "missing": self.missing,
            "reasons": self.reasons,
            "left_over": self.left_over,
            "failure": self.failure,
            "incomparable": self.incomparable,
            "depths": self.depths,
            "seconds": self.seconds,
            "uses": [
                {
                    "kind": use.kind,
                    "left": use.left.split(),
                    "right": use.right.split(),
                    "left_module": place(use.left_site, use.left),
                    "right_module": place(use.right_site, use.right),
                    "difference": use.gap,
                }
                for use in self.uses
            ],
        }
