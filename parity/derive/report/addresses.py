"""Name the rows of the module trees to which cards link."""

from __future__ import annotations

from parity.derive.findings.derivation import Derivation
from parity.derive.missing.unmatched import Unmatched
from parity.page.markup import Markup, join, leading

STOPPED = "stopped"  # the address of the row at which matching stopped


def anchors(derivation: Derivation) -> dict[tuple[str, str], str]:
    """Return the address of the row of each place where the models part, by (left, right)."""
    used = {use.modules for use in derivation.compared}
    places = dict.fromkeys((card.left, card.right) for card in derivation.divergences)
    return {spot: f"place-{k}" for k, spot in enumerate(spot for spot in places if spot in used)}


def stopping(derivation: Derivation) -> list[Unmatched]:
    """Return the uses on the right of the parameters at which matching stopped."""
    names = {*derivation.stop.names} if derivation.stop else set[str]()
    return [use for use in derivation.unmatched if use.side == "right" and names & {*use.names}]


def alone_anchors(derivation: Derivation) -> dict[str, str]:
    """Return the address of the row of each reason why right parameters have no partner, by the name used first."""
    used = dict.fromkeys(name for use in derivation.unmatched if use.side == "right" for name in use.names)
    firsts = (next((name for name in used if name in names), None) for names, _ in derivation.alone)
    return {name: f"alone-{k}" for k, name in enumerate(firsts) if name is not None}


def link(address: str | None, of: str = "its row") -> Markup:
    """Link to a row of the table of modules."""
    return join(" ", leading(f"#{address}", of)) if address else Markup()
