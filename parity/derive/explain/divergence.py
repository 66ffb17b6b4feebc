"""Define a place where two models part, with the cause that recomputing confirms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from convert.folding import listed
from parity.derive.edits.edit import Fault, and_so
from parity.derive.trace.sites import OUTPUT, OWN
from specs.numbers import short
from specs.words import count

LATE = "no cause was found, and not all was tried, as it takes many runs of the model"


class Divergence(NamedTuple):
    """A place where the sides' values part.

    Args:
      left, right: paths of the modules.
      size: the relative difference of what is seen there.
      what: how the sides differ; "" where no cause was confirmed. fault: the same without modules, if it names some.
      both: the left and the right value, if that is all that `what` says; () otherwise.
      advice: without a cause, what to compare of what both models compute before it.
      kind: what a cause is of: "epsilon", "activation", "convolution window"; "" without a cause.
      whole: whether both models were run on with that cause removed.
      times: how many of that kind were removed at once, as one in each block.
      use: the kind and the right parameters of the first use that meets other values; () of outputs.
      behind: without a cause, whether a product of the module agrees, so that values part in the sum behind it.
      late: what may be computed for finding a cause was used up before all was tried.
      changed, places: the side, "left" or "right", of which the cause was removed, and each place where it was, in the
        order of execution. named: how many of these `what` names; more: how many others it stands for.
      rest: the difference that remains with the cause removed; NaN where that is not known.
      partial: whether the next cause explains this remaining difference.
    """

    left: str
    right: str
    size: float
    what: str = ""
    advice: str = ""
    kind: str = ""
    whole: bool = False
    times: int = 1
    late: bool = False
    changed: str = ""
    places: tuple[str, ...] = ()
    rest: float = math.nan
    fault: str = ""
    both: tuple[str, ...] = ()
    named: int = 1
    more: int = 0
    partial: bool = False
    behind: bool = False
    use: tuple[str, tuple[str, ...]] | tuple[()] = ()

    @property
    def of_outputs(self) -> bool:
        """Tell whether it is no place inside the models: no use of a parameter, nor a module."""
        return self.left == self.right and (self.left == OUTPUT or (self.left == OWN and not self.use))

    @property
    def cause(self) -> str:
        """Say how the sides differ, at how many places, and what came of recomputing without that."""
        return f"{self.what}{and_so(self.more)}{self._recomputed}"

    @property
    def everywhere(self) -> str:
        """Name all places of a cause that names some of them, folded; "" of one that names each."""
        return f"places on the {self.changed}: {self.all_places}" if self.more and self.places else ""

    @property
    def all_places(self) -> str:
        """List all places, folded, and count their uses where one is used several times."""
        uses = f" (together {count(len(self.places), 'use')})" if len(set(self.places)) < len(self.places) else ""
        return f"{listed(self.places)}{uses}"

    @property
    def _recomputed(self) -> str:
        if math.isnan(self.rest):
            return ""
        if self.partial:
            return f" (recomputed so, they differ by {short(self.rest)}, for the next cause)"
        agree = f"agree to {short(self.rest)}" if self.rest else "are equal"
        return f" (recomputed so, they {agree})"

    def is_like(self, other: Divergence) -> bool:
        """Tell whether recomputing shows the same cause at another place, as a fault in code that is used often."""
        known = not (math.isnan(self.rest + other.rest) or self.partial or other.partial)
        return known and self.same == other.same

    @property
    def same(self) -> Fault:
        """Return what is the same wherever this cause is."""
        return self.kind, self.changed, self.fault or self.what

    def joined(self, other: Divergence) -> Divergence:
        """Return this place with the same cause at another place."""
        return self._replace(
            more=self.more + other.named + other.more,
            whole=self.whole and other.whole,
            times=self.times + other.times,
            places=(*self.places, *other.places),
            rest=max(self.rest, other.rest),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what users see as plain values, for JSON."""
        shown = ("left", "right", "size", "cause", "advice", "late", "changed")
        return {**{name: getattr(self, name) for name in shown}, "values": list(self.both), "places": list(self.places)}


def confirmed(places: Sequence[Divergence]) -> bool:
    """Tell whether the models are equal with the causes of all places removed, which shows that a Table is right."""
    return bool(places) and all(place.whole for place in places)
