"""List the parameters of both sides that have no partner."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from convert.folding import fold as folded_names
from parity.derive.findings.derivation import Derivation
from parity.derive.fold.rows import of_it
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sites import OWN
from parity.page.cards import facts
from parity.page.markup import Markup, join, prose, tag
from specs.words import count

from .addresses import alone_anchors, link


def without_partner(derivation: Derivation) -> Markup:
    """List the parameters of both sides that have no partner, by module, unless its reason names them.

    Those whose lack is the cause of a place where the models part stand in its card.
    """
    if derivation.nothing_matched:
        left, right = derivation.arrays
        alone = f"{'All ' * (right > 1)}{count(right, 'array')} of the right model"
        alone += f" and {'all ' * (left > 1)}{left:,} of the left one"
        return tag("article", tag("h3", "Parameters without a partner"), tag("p", prose(f"{alone}.")), class_="card")
    rows = alone_anchors(derivation)
    run = {name: k for k, use in reversed([*enumerate(derivation.unmatched)]) for name in use.names}
    listed = list[tuple[str, str]]()
    others = [group for group in derivation.alone if not derivation.is_cause(group[1])]
    for names, why in sorted(others, key=lambda group: min(run.get(name, len(run)) for name in group[0])):
        address = next((rows[name] for name in names if name in rows), None)
        row = link(address, "the first row" if names[1:] else "its row")
        named = isinstance(why, OneSided) and all(re.search(rf"(?<!\S){re.escape(name)}\b", why) for name in names)
        listed.append(("reason", join(prose(why if named else of_it(why, folded_names(names))), row)))
        listed += [] if named else _by_module(sorted(names, key=lambda name: run.get(name, len(run))))
    parts = [
        *_listed("Right", [name for names, _ in others for name in names], listed),
        *_listed("Left", derivation.left_over, _by_module(derivation.left_over)),
    ]
    return tag("article", *parts, class_="card") if parts else Markup()


def _listed(side: str, names: Sequence[str], rows: Sequence[tuple[str, str]]) -> list[Markup]:
    """Build the heading of one side and its list; nothing of a side on which each parameter has a partner."""
    parameters = "parameter" if len(names) == 1 else "parameters"
    return [tag("h3", f"{side} {parameters} without a partner"), facts(rows)] if names else []


def _by_module(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return ("in MODULE", "bias, scale") for each module, with the numbers of blocks folded."""
    modules: dict[str, list[str]] = {}
    for full in folded_names(names):
        *module, leaf = re.split(r"[./](?=[^./]*$)", full)
        modules.setdefault("".join(module) or OWN, []).append(leaf)
    return [(f"in {module}", ", ".join(leaves)) for module, leaves in modules.items()]
