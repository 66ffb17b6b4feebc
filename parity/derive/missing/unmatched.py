"""List what has no partner: uses of parameters that the matching did not come to, and parameters that nothing reads."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from parity.derive.match.choices import every
from parity.derive.match.symbols import Elements, Filled, Use
from parity.derive.match.walk import Walk
from parity.derive.search.candidates import SEED, Candidate, Left
from parity.derive.trace.draws import draw
from parity.derive.trace.program import Program, Refused
from parity.derive.trace.tape import Array, Tape


class Unmatched(NamedTuple):
    """A use of a parameter without a partner.

    Args:
      side: "left" or "right".
      kind: of the use, see Step; "" for a parameter that nothing reads.
      names: the parameters.
      site: the path of the module that uses them.
      after: of the right side, the last parameter with a partner that is read before; "" for none, None if not known.
    """

    side: str
    kind: str
    names: tuple[str, ...]
    site: str
    after: str | None = None


def unmatched(left: Left, best: Candidate, full: Array, missing: Collection[str]) -> list[Unmatched]:
    """Walk both tapes with known weights, and list each use of elements that have no partner, as the right model runs.

    Args:
      full: the map with what was inferred. missing: right parameters that the Table does not fill.
    """
    match, a, b = best.found, left.elements, Filled(best.side.parameters)
    left.fill()
    draw(best.side, SEED, b.arrays)
    owned = np.zeros(len(a), bool)
    mapped, seen = np.array(full), np.asarray(match.map)
    for name in missing:
        b.part(mapped, name)[...] = b.part(seen, name)
    for numbers in (mapped, match.plus):
        owned[np.maximum(numbers, 0)] = True
    rows = [*_uses("left", best.programs[0], a, owned), *_uses("right", best.programs[1], b, mapped != 0)]
    listed = {(row.side, name) for row in rows for name in row.names}
    unread = [("left", name) for name in a.names if not a.part(owned, name).any()]
    unread += [("right", name) for name in missing]
    rows += [Unmatched(side, "", (name,), "") for side, name in unread if (side, name) not in listed]
    reads = _reads(best.tape)
    lefts, rights = ([row for row in rows if row.side == side] for side in ("left", "right"))
    order = {name: k for k, name in enumerate(reads)}
    rights.sort(key=lambda row: min((order[name] for name in row.names if name in order), default=len(order)))
    before, last = dict[str, str](), ""
    for name in reads:
        before[name] = last
        last = last if name in missing else name
    return [*lefts, *(_placed(row, reads, before) for row in rights)]


def _reads(tape: Tape) -> dict[str, str]:
    """Return the site of the operation that reads a parameter first, by the parameters in this order."""
    names = {number: name for name, number in tape.parameters.items()}
    reads = dict[str, str]()
    for node in tape.nodes:
        for number in node.inputs:
            if number in names:
                reads.setdefault(names[number], node.site)
    return reads


def _placed(row: Unmatched, reads: Mapping[str, str], before: Mapping[str, str]) -> Unmatched:
    """Return a row of the right side with its site, and what runs before it.

    Args:
      reads: see _reads. before: of each of these, the last parameter with a partner that is read before it.
    """
    name = next((name for name in row.names if name in reads), None)
    return row if name is None else row._replace(site=row.site or reads[name], after=before[name])


def _uses(side: str, program: Program, elements: Elements, known: Array) -> list[Unmatched]:
    """List the uses of elements that are not known; a second use of the same elements does not count."""
    rows, known = list[Unmatched](), known.copy()

    def meet(use: Use) -> None:
        if every(known, use.ids):
            return
        ids = np.ravel(use.ids).astype(np.int64)
        known[ids[ids > 0]] = True
        rows.append(Unmatched(side, use.kind, tuple(elements.owners(use.ids)), program.tape.nodes[use.node].site))

    with contextlib.suppress(Refused):  # these weights route no row to an expert, say: what is behind it is not listed
        Walk(program, elements, meet).run()
    return rows
