"""Define Evidence: the four records of a derivation under one roof, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from convert.folding import by_reason, fold
from parity.derive.explain.divergence import confirmed
from parity.derive.fold.fold import UNMATCHED
from parity.derive.fold.followed import behind_lists
from parity.derive.fold.rows import of_it
from parity.derive.limits import EQUAL_OUTPUTS, PARTED_USES
from parity.derive.match.choices import Step
from specs.notation.lines import Line
from specs.numbers import exact
from specs.words import count, in_a_row

from .blocks import lone, uncounted_blocks
from .orders import exchanged, reordered, unusual
from .ranges import dropped_ranges, filled_ranges, names_of, together
from .records import Differences, Given, Judgement, Matching

SHOWN = (  # what JSON has as it is
    "proven", "gradient", "error", "exact", "other_gradients", "unobservable", "untold", "idle_parts", "inferred",
    "in_rows", "doubtful", "chosen", "freedom", "untried", "fixed", "this_depth", "behind_lists", "unchecked",
    "exchanged", "reordered", "transposed", "dropped_ranges", "filled_ranges", "unshown", "kept", "correspondence",
    "filled", "unseen_orders", "two_places", "assumed", "by_chance", "drawn", "reads_numbers", "branches", "remark",
    "missing", "reasons", "left_over", "failure", "incomparable", "depths", "sizes", "strides", "heads", "momentum",
    "dropout", "seconds", "tested", "absent", "over_one", "fills", "lower", "voided", "weight_norms", "constants",
    "as_given", "not_as_given", "settings", "given_open", "given_lengths", "check_given", "misordered",
    "complex_arrays", "search_limit", "trained_tables",
)  # fmt: skip


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
        but = [f"{count(idle, 'array')} on which no output depends"] if idle else []
        if self.trained_tables:
            what = "trained tables that are" if len(self.trained_tables) > 1 else "a trained table that is"
            but.append(f"{', '.join(fold(self.trained_tables))} ({what} dropped)")
        but += filter(None, (together(dropped_ranges(self.table), "dropped"),
                             together(filled_ranges(self.table), "filled with 0")))  # fmt: skip
        return how + f", but for {in_a_row(but)}" * bool(but)

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
        derivation such a difference is none of the models. A parameter that is read as it is meets no values: where
        several fit, its use tells nothing.
        """
        unsure = {*self.chosen}
        uses = [use for use in self.uses if use.kind != "place" or unsure.isdisjoint(use.right)]
        return [use for use in uses if not (self.proven and use.kind == "add" and use.gap > PARTED_USES)]

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
        names = [name for name in self.in_rows if name not in self.doubtful]
        filled = names_of(filled_ranges(self.table), names)
        return [f"{name} (without those that are filled with 0)" if name in filled else name for name in names]

    @property
    def dropped_ranges(self) -> list[str]:
        """List ranges of left arrays that lines drop, with their lengths: "pos: x[7:] i (2 of 9 rows)"."""
        return list(map(str, dropped_ranges(self.table)))

    @property
    def written(self) -> int:
        """Count the parameters of the right model that a conversion writes."""
        return self.arrays[1] - len(self.missing) - len(self.dropped)

    @property
    def filled_ranges(self) -> list[str]:
        """List ranges of right arrays that lines fill with a constant, likewise."""
        return list(map(str, filled_ranges(self.table)))

    @property
    def filled_biases(self) -> list[str]:
        """Return those of `filled` of which no ranges are listed; none where left parameters may belong there."""
        return [] if self.unplaced else self._filled_otherwise

    @property
    def filled_unsure(self) -> list[str]:
        """Return those of `filled` of which no ranges are listed, where left parameters have no partner."""
        return self._filled_otherwise if self.unplaced else []

    @property
    def _filled_otherwise(self) -> list[str]:
        ranges = names_of(filled_ranges(self.table), self.filled)
        return [name for name in self.filled if name not in ranges]

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
    def unplaced(self) -> list[str]:
        """Return the left parameters without a partner, also dropped ones that the left reads and no cause explains."""
        return [*self.left_over, *(() if self.confirmed else self.dropped_read[0])]

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
                    "left_module": use.modules[0],
                    "right_module": use.modules[1],
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
