"""Find the partner of a product that meets other values, by the products whose results it reads.

Models that differ in an activation or in a mask meet other values behind it. What the use reads is made from the
results of the same products on both sides all the same.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ..trace.program import Program
from ..trace.tape import Array
from . import uses
from .symbols import Use

WRITTEN = 0.9  # the written order is meant where channels vary as much alike in it as each with its likest one
Partners = dict[int, list[tuple[uses.Seen, int]]]  # right product -> (left one, columns)


def sources(program: Program, at: int, products: Collection[int]) -> frozenset[int] | None:
    """Return the products whose results reach an operation's first operand; None where an input of the model does.

    Args:
      at: the operation. products: those at which the way back ends.
    """
    made = {node.output: k for k, node in enumerate(program.tape.nodes[:at])}
    found, done, waiting = set[int](), set[int](), [program.tape.nodes[at].inputs[0]]
    while waiting:
        number = waiting.pop()
        if number in done or number not in program.active:
            continue
        done.add(number)
        if number not in made:
            return None
        if made[number] in products:
            found.add(made[number])
        else:
            waiting += program.tape.nodes[made[number]].inputs
    return frozenset(found)


def followers(use: Use, program: Program, pool: Collection[uses.Seen], partners: Partners) -> dict[uses.Seen, Array]:
    """Return {left use: its row for each right one} of the uses that read the results of the same products' partners.

    Args:
      use: on the right; program: of the right side. pool: left uses.
    """
    own = sources(program, use.node, partners)
    if not own or any(len({seen.use.node for seen, _ in partners[at]}) > 1 for at in own):
        return {}
    wanted = frozenset(partners[at][0][0].use.node for at in own)
    every = {seen.use.node for seen in pool} | {seen.use.node for found in partners.values() for seen, _ in found}
    rows = {seen: likest(use.x, seen.use.x) for seen in pool if seen.use.x.shape == use.x.shape}
    return {
        seen: order
        for seen, order in rows.items()
        if order is not None and sources(seen.program, seen.use.node, every - {seen.use.node}) == wanted
    }


def likest(here: Array, there: Array) -> Array | None:
    """Return, for each channel of x[b, rows, k], the other side's that varies most alike; None where that is not clear.

    Channels that do not vary on a side, as behind a ReLU, are at their own places if the others are.
    """
    ours, theirs = (x.swapaxes(1, 2).reshape(-1, x.shape[1]) for x in (here, there))
    ours, theirs = (x - x.mean(1, keepdims=True) for x in (ours, theirs))
    ours, theirs = (x / np.maximum(np.sqrt((x * x).sum(1, keepdims=True)), 1e-300) for x in (ours, theirs))
    like, varying = ours @ theirs.T, ours.any(1) & theirs.any(1)
    rows = like.argmax(1)
    if varying.sum() > 1 and like.diagonal()[varying].sum() >= WRITTEN * like.max(1)[varying].sum():
        return np.arange(len(rows))
    return rows if varying.all() and len(set(rows.tolist())) == len(rows) else None
