"""Rate the differences of uses: where the models part, and what only follows such a place."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from parity.derive.explain.divergence import Divergence
from parity.derive.findings.derivation import Derivation
from parity.derive.limits import PARTED_USES
from parity.derive.match.choices import Step
from parity.derive.trace.sites import is_inside

from .addresses import alone_anchors, anchors, stopping, where


class Rated:
    """How the differences of uses are rated: those of places where the models part, and those that follow.

    Args:
      found: what was derived, whose right model has `alone` at addresses, and `stop` where matching stopped.
    """

    def __init__(self, derivation: Derivation):
        self.found, self.alone, self.stop = derivation, alone_anchors(derivation), stopping(derivation)[:1]
        self.addresses = {key(use): address for address, use in _parting(derivation).items()}
        self.parting = "noted" if derivation.proven else "first"
        places = [where(use) for use in derivation.compared]
        parts = {*anchors(derivation), *_listed(derivation)}
        begin = next((k for k, place in enumerate(places) if place in parts), len(places))
        after = (where(use) for use in derivation.compared[begin:] if use.gap > PARTED_USES)
        self.follow = {*after} - parts
        self.idle = {*derivation.unobservable, *derivation.idle_parts} if derivation.proven else set[str]()

    def rate_row(self, uses: Iterable[Step]) -> str:
        """Return the same of a row of uses; "outside" where no output depends on their parameter."""
        every = [*uses]
        is_idle = all(self.idle.issuperset(use.left) or self.idle.issuperset(use.right) for use in every)
        return self.rate(every) or ("outside" if is_idle else "")

    def rate(self, uses: Iterable[Step]) -> str:
        """Return "first" (or "noted" in a proof) where one of these uses parts the models, "follows", or ""."""
        off = [where(use) for use in uses if use.gap > PARTED_USES]
        return "" if not off else "follows" if self.follow.issuperset(off) else self.parting


def _parting(derivation: Derivation) -> dict[str, Step]:
    """Return the use whose row has an address: the first of its place that differs, or the first where none does."""
    rows: dict[str, Step] = {}
    for place, address in anchors(derivation).items():
        uses = [use for use in derivation.compared if where(use) == place]
        rows[address] = next((use for use in uses if use.gap > PARTED_USES), uses[0])
    return rows


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
            inside = (place for place in map(where, off) if is_inside(place[side], path))
            own = (place for place in map(where, uses) if place[side] == path)
            yield from itertools.islice(itertools.chain(_likewise(uses, card, side, path), inside, own), 1)


def _likewise(uses: Sequence[Step], card: Divergence, side: int, path: str) -> Iterator[tuple[str, str]]:
    """Yield the differing uses that stand in the module `path` as the card's own use does in its first place."""
    here, first = (card.left, card.right)[side], card.places[0]
    if is_inside(here, first):
        there = path + here[len(first) :]
        yield from (place for use in uses if use.gap > PARTED_USES and (place := where(use))[side] == there)


def key(use: Step) -> tuple[str, ...]:
    """Return what tells a use from the others in the rows."""
    return use.kind, *use.right, *where(use)
