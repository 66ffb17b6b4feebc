"""List the parameters of both sides that have no partner."""

from __future__ import annotations

import re
from collections.abc import Iterable

from convert.folding import fold as folded_names
from parity.derive.findings.derivation import Derivation
from parity.derive.trace.sites import OWN
from parity.page.cards import facts
from parity.page.markup import Markup, join, prose, tag
from specs.words import count

from .addresses import alone_anchors, link


def without_partner(found: Derivation) -> Markup:
    """List the parameters of both sides that have no partner, by module; the reasons of the right ones once each."""
    if found.nothing_matched:
        left, right = found.arrays
        alone = f"{'All ' * (right > 1)}{count(right, 'parameter')} of the right model"
        alone += f" and {'all ' * (left > 1)}{left:,} of the left one"
        return tag("article", tag("h3", "Parameters without a partner"), tag("p", prose(f"{alone}.")), class_="card")
    lines, rows = [], alone_anchors(found)
    run = {name: k for k, use in reversed([*enumerate(found.unmatched)]) for name in use.names}
    for names, why in found.alone:
        address = next((rows[name] for name in names if name in rows), None)
        row = link(address, "the first row" if names[1:] else "its row")
        listed = facts([("reason", why), *_by_module(sorted(names, key=lambda name: run.get(name, len(run))))])
        lines.append(join(tag("h3", "Right parameters without a partner", row), listed))
    if found.left_over:
        lines.append(join(tag("h3", "Left parameters without a partner"), facts(_by_module(found.left_over))))
    return tag("article", *lines, class_="card")


def _by_module(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return ("in MODULE", "bias, scale") for each module, with the numbers of blocks folded."""
    modules: dict[str, list[str]] = {}
    for full in folded_names(names):
        *module, leaf = re.split(r"[./](?=[^./]*$)", full)
        modules.setdefault("".join(module) or OWN, []).append(leaf)
    return [(f"in {module}", ", ".join(leaves)) for module, leaves in modules.items()]
