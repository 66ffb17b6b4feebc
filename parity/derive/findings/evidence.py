"""Define what a derivation found, in four records: what was given, matched, judged, and what differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from convert.folding import by_reason, fold
from parity.derive.explain.divergence import Divergence, confirmed
from parity.derive.fold.fold import UNMATCHED
from parity.derive.fold.followed import behind_lists
from parity.derive.fold.rows import DerivedTable, of_it
from parity.derive.limits import EQUAL_OUTPUTS, PARTED_USES
from parity.derive.match.advice import Stop
from parity.derive.match.choices import Step
from parity.derive.missing.unmatched import Unmatched
from parity.derive.prove.prove import Proof
from parity.derive.trace.sites import place
from specs.notation.lines import Line
from specs.numbers import exact
from specs.words import count, in_a_row

from .exchanged import exchanged, reordered
from .lone import lone
from .transposed import unusual
from .uncounted_blocks import uncounted_blocks

SHOWN = (  # what JSON has as it is
    "proven", "gradient", "error", "exact", "other_gradients", "unobservable", "untold", "idle_parts", "inferred",
    "in_rows", "doubtful", "chosen", "freedom", "untried", "fixed", "this_depth", "behind_lists", "unchecked",
    "exchanged", "reordered", "transposed", "unshown", "kept", "correspondence", "filled", "unseen_orders", "assumed",
    "by_chance", "drawn", "reads_numbers", "branches", "remark", "missing", "reasons", "left_over", "failure",
    "incomparable", "depths", "sizes", "strides", "heads", "momentum", "dropout", "seconds", "tested", "absent",
    "over_one", "fills", "lower", "voided", "weight_norms", "constants", "given_open", "check_given", "misordered",
    "complex_arrays", "search_limit",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class Given:
    """What both models are, how the right one is called beside the left one, and what was given with them.

    Args:
      arrays, elements: the numbers of parameters and of their elements on the left and on the right.
      classes: of the modules of both sides, by their paths.
      correspondence: how inputs and outputs of the right model go with the left one's, where axes or names differ.
      input_order: of the axes of the left model's single input, in which the right one gets it; () as they are.
      output_order: of the axes of the right model's single output, in which the left one returns it; () as they are.
      drawn: left parameters of one value in the weights that were given, which got random ones.
      constants: right parameters that given lines set to one value, and on which outputs depend, with that value.
      given_open: lines that were given and left out, since the models' shapes do not show the lengths of their axes.
      branches: sides whose code takes numbers out of values in float, which the proof covers as far as these inputs go.
      voided: the sides whose code takes no float64 beside its casts to lower precision: these were void in every run.
      momentum: of the batch norms of both sides where these differ; "" where they do not. No proof tests it.
      dropout: rates of both sides, likewise.
    """

    arrays: tuple[int, int] = (0, 0)
    elements: tuple[int, int] = (0, 0)
    classes: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    correspondence: Sequence[str] = ()
    input_order: tuple[int, ...] = ()
    output_order: tuple[int, ...] = ()
    drawn: Sequence[str] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    given_open: Sequence[str] = ()
    branches: Sequence[str] = ()
    voided: Sequence[str] = ()
    momentum: str = ""
    dropout: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Matching:
    """The Table, and how its lines were found.

    Args:
      uses: each use of a parameter on the right with its partner, in the order of execution.
      reasons: right parameters that the table does not fill, each with the reason; missing: their names.
      stop: the use at which the matching stopped, None if it did not; failure: the same in words.
      unmatched: of both sides, what has no partner.
      inferred: right parameters of which all or some elements follow a pattern or a name, since nothing reads them; and
        those of `doubtful`. in_rows: those of which the inputs read some rows alone.
      doubtful: right parameters whose partners were taken where values differ, or that share one left parameter.
      chosen: right parameters that fit several left ones, of which no outputs confirm the one that was taken.
      filled: right parameters that lines set to zero, all or a part, as the left model has no such bias.
      unseen_orders: right parameters of which an axis may be flattened in another order in larger models.
      search_limit: which limit ended the search for partners; "" if all was tried.
    """

    table: DerivedTable
    uses: Sequence[Step]
    reasons: Mapping[str, str]
    stop: Stop | None
    unmatched: Sequence[Unmatched] = ()
    inferred: Sequence[str] = ()
    in_rows: Sequence[str] = ()
    doubtful: Sequence[str] = ()
    chosen: Sequence[str] = ()
    filled: Sequence[str] = ()
    unseen_orders: Sequence[str] = ()
    search_limit: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Judgement(Proof):
    """Whether the Table is proven, with the errors in the proof.

    Args:
      proven: outputs and gradients agree in float64 on weights and inputs that were not used to find the table.
      unshown: right arrays that both models read and that keep their own values, as integers do: no value shows how the
        left ones become them.
      reads_numbers: a model's code reads numbers, by `.item()` or to choose a branch: what was recorded of it holds
        those of one run, so that places where the models part are not known. The proof runs the models themselves.
      tested: shapes of the left model's inputs; where these are one example, also of two that the proof has run.
      absent: tokens that no input has, and with which the models differ; "" where there are none.
      over_one: how the models differ beyond one value, if no outputs can be compared there; "" elsewhere.
      fills: what masked places get on each side, where that differs, and with which scores outputs are equal.
      lower: the dtypes of lower precision in which the models compute, where their outputs differ by that alone.
      freedom: what may be permuted without effect: the table keeps the order as it is written. untried: what was not
        tried of that, "" if all was.
      notes: on numbers that one model alone stores, for the comments of the Table.
    """

    proven: bool
    unshown: Sequence[str] = ()
    reads_numbers: bool = False
    tested: Sequence[tuple[int, ...]] = ()
    absent: str = ""
    over_one: str = ""
    fills: str = ""
    lower: Sequence[str] = ()
    freedom: Sequence[str] = ()
    untried: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Differences:
    """Where models that are not proven equal part, and how they are built otherwise.

    Args:
      divergences: where the models part, in the order of execution on the right.
      depths: how the numbers of blocks of both models differ; "" where they do not. sizes: the same of lengths of axes.
      strides, heads: the same of strides of convolutions, and of heads of attention, where the matching stopped.
      weight_norms: lengths and directions of weights that one side alone has, by their names.
      complex_arrays: trained arrays of complex numbers, by their names.
      misordered: why the right model seems to take its inputs in another order; "" if it does not.
      check_given: which given lines may be why models part; "" where none was given, none is read
        between uses that agree and that place, or another cause is confirmed.
    """

    divergences: Sequence[Divergence] = ()
    depths: str = ""
    sizes: str = ""
    strides: str = ""
    heads: str = ""
    weight_norms: str = ""
    complex_arrays: str = ""
    misordered: str = ""
    check_given: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Evidence(Given, Matching, Judgement, Differences):
    """A Table and all that is known of it: the four records under one roof, and what follows from them.

    Args:
      seconds: the CPU time that it took, in all threads. built: before it, that of functions that built the models.
    """

    seconds: float = 0.0
    built: float = 0.0

    @classmethod
    def of(cls, given: Given, matching: Matching, judgement: Judgement, differences: Differences) -> Self:
        """Join the four records."""
        return cls(**vars(given), **vars(matching), **vars(judgement), **vars(differences))

    @property
    def unobservable_parts(self) -> list[str]:
        """List the right parameters of `idle_parts`, folded, and say of which left ones they are parts."""
        names, owners = (", ".join(fold(some)) for some in (self.idle_parts, dict.fromkeys(self.idle_parts.values())))
        return [f"{names} (part of {owners})"] if names else []

    @property
    def rounded(self) -> bool:
        """Tell whether the models are equal in float64 alone, as they compute partly in lower precision."""
        return self.proven and self.error > EQUAL_OUTPUTS

    @property
    def verdict(self) -> str:
        """Return "proven", "complete" (every parameter has a line, but the models differ) or "incomplete"."""
        return "proven" if self.proven else "incomplete" if self.missing else "complete"

    @property
    def covered(self) -> str:
        """Say behind "proven" what a proof covers: " by outputs alone, but for 2 arrays on which no output depends"."""
        if not self.proven:
            return ""
        idle = len(self.unobservable) + len(self.idle_parts)
        how = " in float64" * self.rounded + " by outputs alone" * (self.gradient is None)
        how += f" with {in_a_row(self.with_constants)}" if self.constants else ""
        return how + f", but for {count(idle, 'array')} on which no output depends" * bool(idle)

    @property
    def with_constants(self) -> list[str]:
        """List the right parameters that given lines set to one value: "layer_{0..1}/gate = 1"."""
        values = dict.fromkeys(self.constants.values())
        return [
            f"{', '.join(fold(name for name, own in self.constants.items() if own == value))} = {exact(value)}"
            for value in values
        ]

    @property
    def alone(self) -> list[tuple[list[str], str]]:
        """Group the right parameters without a partner by the reason, in words for one or for several."""
        groups = by_reason(self.reasons).items()
        return [(names, why.replace(" of it ", " of them ") if names[1:] else why) for why, names in groups]

    @property
    def lacking(self) -> list[str]:
        """List right parameters without a partner by the reason, unless a cause says it; one line for all of them."""
        if self.nothing_matched:
            number = self.arrays[1]
            why = {text.removeprefix(UNMATCHED) for text in self.reasons.values()}
            common = why.pop() if len(why) == 1 and all(text.startswith(": ") for text in why) else ""
            return [f"{'all ' * (number > 1)}{count(number, 'array')} of the right model: none has a partner{common}"]
        folded = [(fold(names), "" if self.is_cause(why) else of_it(why, fold(names))) for names, why in self.alone]
        return [f"{', '.join(names)}{f': {why}' * bool(why)}" for names, why in folded]

    def is_cause(self, why: str) -> bool:
        """Tell whether a reason that right parameters have no partner is the cause of a place where the models part."""
        return any(place.cause.startswith(why) for place in self.divergences)

    @property
    def nothing_matched(self) -> bool:
        """Tell whether no parameter of the right model has a partner: where uses agree, lines alone are missing."""
        return bool(self.missing) and len(self.missing) == self.arrays[1] and not self.agreeing

    @property
    def agreeing(self) -> int:
        """Count the uses of parameters at which both models meet the same values, up to rounding."""
        return sum(use.gap <= PARTED_USES for use in self.compared)

    @property
    def compared(self) -> list[Step]:
        """List the uses that tell whether the models agree.

        What a term of a sum was added to depends on the order of the terms, which frameworks choose: in a proven
        derivation such a difference is none of the models.
        """
        return [use for use in self.uses if not (self.proven and use.kind == "add" and use.gap > PARTED_USES)]

    @property
    def read_apart(self) -> list[str]:
        """Name the right parameters of a proven Table that meet other values than the left ones."""
        parted = (use for use in self.compared if self.proven and use.gap > PARTED_USES)
        return list(dict.fromkeys(name for use in parted for name in use.right))

    @property
    def confirmed(self) -> bool:
        """Tell whether the models are equal with all causes removed, which shows that the Table is right."""
        return confirmed(self.divergences)

    @property
    def holds_without_causes(self) -> bool:
        """Tell whether the Table makes both models equal once all causes are removed."""
        return self.confirmed and not self.missing

    @property
    def only_inferred(self) -> list[str]:
        """Return the parameters inferred as nothing reads all of them, without the doubtful ones and tables of rows."""
        return [] if self.divergences else self._inferred_otherwise

    @property
    def inferred_apart(self) -> list[str]:
        """Return the inferred parameters of models that part: code may read all of these, on values that differ."""
        return self._inferred_otherwise if self.divergences else []

    @property
    def _inferred_otherwise(self) -> list[str]:
        return [name for name in self.inferred if name not in {*self.doubtful, *self.in_rows}]

    @property
    def rows_of(self) -> list[str]:
        """Return the tables of which the inputs read some rows alone, without the doubtful ones."""
        return [name for name in self.in_rows if name not in self.doubtful]

    @property
    def reordered(self) -> list[str]:
        """List the right arrays whose axes are flattened in another order than the left one's."""
        return list(reordered(self.table))

    @property
    def transposed(self) -> list[str]:
        """List the lines of square matrices whose axes stand in an order that is unusual between both models."""
        kinds: dict[str, set[str]] = {}
        for use in self.uses:
            for name in use.right:
                kinds.setdefault(name, set()).add(use.kind)
        sure = kinds.keys() - set(self.doubtful)
        return unusual(self.table, [name for name in kinds if name in sure and kinds[name] == {"product"}])

    @property
    def fixed(self) -> list[str]:
        """List blocks that stand alone in their list, if it is one: lines are fixed to their number."""
        return lone(self.table, self.table.known, self.table.like)

    @property
    def this_depth(self) -> list[str]:
        """List blocks of which each has lines of its own, as no {i} counts them: the table fits this depth alone."""
        return uncounted_blocks(self.table)

    @property
    def behind_lists(self) -> list[str]:
        """List numbers that follow a list, which the table therefore counts no further."""
        return behind_lists(self.table)

    @property
    def unchecked(self) -> list[str]:
        """List the letters of lengths that no shape of either side shows, so that a conversion cannot check them."""
        return list(self.table.unchecked())

    @property
    def assumed(self) -> list[str]:
        """List the arrays that join parts for whose one length nothing but these models speaks."""
        return list(self.table.assumed)

    @property
    def by_chance(self) -> list[str]:
        """List the numbers of parts that lines state, as s=3, and that neither model's code shows."""
        return list(self.table.by_chance)

    @property
    def exchanged(self) -> list[str]:
        """List the right arrays whose parts stand in another order than the left one's."""
        return list(exchanged(self.table))

    @property
    def summed(self) -> list[str]:
        """List the arrays that are the sum of several on the other side."""
        sums = (line for line in self.table.lines if line.kind == "sum")
        sides = ((line.left, line.right) for line in sums)
        return [(right if left.join == "+" else left).arrays[0].label for left, right in sides]

    @property
    def copied(self) -> list[str]:
        """List the right arrays that one left array fills together, as "a = b", where the left model has it once."""
        return [" = ".join(array.label for array in line.right.arrays) for line in self.table.lines if copies(line)]

    @property
    def left_over(self) -> list[str]:
        """Return the left parameters, or parts of them, that have no partner where the Table is incomplete."""
        return list(dict.fromkeys(n for use in self.unmatched if use.side == "left" for n in use.names))

    @property
    def failure(self) -> str:
        return self.stop.text if self.stop else ""

    @property
    def missing(self) -> list[str]:
        return list(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "verdict": self.verdict,
            "table": self.table.print(),
            **{name: _plain(getattr(self, name)) for name in SHOWN},
            "divergences": [divergence.to_dict() for divergence in self.divergences],
            "build_seconds": self.built,
            "uses": [
                {
                    "kind": use.kind,
                    "left": list(use.left),
                    "right": list(use.right),
                    "left_module": place(use.left_site, use.left),
                    "right_module": place(use.right_site, use.right),
                    "difference": use.gap,
                }
                for use in self.uses
            ],
        }


def copies(line: Line) -> bool:
    """Tell whether a line fills several right arrays from one left array, which the left model has once."""
    return line.right.join == "=" and line.left.join != "="


def _plain(value: Any) -> Any:
    """Return a list for a tuple, a dict for a mapping, and None for a number that is not finite."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value if not isinstance(value, float) or math.isfinite(value) else None
