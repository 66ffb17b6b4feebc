"""Give uses at which models part the size of their place, where they were compared without that difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from parity.derive.explain.divergence import Divergence
from parity.derive.limits import PARTED_USES
from parity.derive.match.choices import Step
from parity.derive.trace.sites import is_inside, place


def marked(steps: Sequence[Step], places: Sequence[Divergence]) -> list[Step]:
    """Return the uses of parameters, each at which the models part with a difference.

    The matching compares uses with what differs removed, as a factor that all values have, or goes on with the left
    model's values on the right: such a use agrees by construction.
    """
    out = list(steps)
    for card in places:
        for numbers in uses_at(out, card) if math.isfinite(card.size) else ():
            if out[numbers[0]].gap <= PARTED_USES:
                for k in numbers:
                    out[k] = out[k]._replace(gap=max(out[k].gap, card.size), by_place=True)
    return out


def uses_at(steps: Sequence[Step], card: Divergence) -> Iterator[list[int]]:
    """Yield the number of the use that parts the models at each place of a card; without a cause, also those behind it.

    These are in its module, and read what differs.
    """
    if not card.use:
        return
    sites = [(place(step.left_site, step.left), place(step.right_site, step.right)) for step in steps]
    kind, names = card.use
    here = [k for k, (_, right) in enumerate(sites) if right == card.right]
    alike = (k for k in here if steps[k].right == names)
    same = sorted(alike, key=lambda k: (steps[k].gap != card.size, steps[k].kind != kind))  # stable
    if same:
        yield same[:1] if card.cause else [k for k in here if k >= same[0]]
    side = ("left", "right").index(card.changed) if card.changed else 0
    first, own = card.places[0] if card.places else "", (card.left, card.right)[side]
    for path in card.places[1:]:
        there = path + own[len(first) :] if is_inside(own, first) else path
        inside = (k for k, site in enumerate(sites) if is_inside(site[side], there))
        first_there = sorted(inside, key=lambda k: steps[k].kind != kind)[:1]  # stable: of this kind, or of any
        yield from ([k] for k in first_there)
