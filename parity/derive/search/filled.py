"""Put one number in all places that masks hide: a softmax hides them with -100 added as with minus infinity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity.derive.edits.swaps import Unary, unary
from parity.derive.edits.texts import Mask
from parity.derive.limits import HIDING
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Replacement, Tape


def fill_alike(programs: tuple[Program, Program]) -> tuple[Tape, Tape]:
    """Return both tapes with minus infinity in all places that masks hide; the same ones where masks are alike."""
    masks = [list(_masks(program)) for program in programs]
    kinds = [{(one.node.kind, mask.number) for one, mask in own} for own in masks]
    if not all(kinds) or kinds[0] == kinds[1]:
        return programs[0].tape, programs[1].tape
    left, right = (_filled(program.tape, own) for program, own in zip(programs, masks, strict=True))
    return left, right


def _masks(program: Program) -> Iterator[tuple[Unary, Mask]]:
    """Yield the operations that hide places, each with what it adds or puts there."""
    for one in unary(program):
        mask = one.mask(program.shapes[one.entry])
        if mask and mask.number <= HIDING:
            yield one, mask


def _filled(tape: Tape, masks: list[tuple[Unary, Mask]]) -> Tape:
    """Return a tape that chooses minus infinity in the place of what these masks add or put."""
    every, hidden = {one.node.output: (one.entry, mask.hidden) for one, mask in masks}, dict[int, Array]()

    def instead(_: int, node: Node, new: Replacement) -> list[Node]:
        if node.output not in every:
            return [node]
        entry, places = every[node.output]
        hidden[at := new.number()] = places
        return [node._replace(kind="other", inputs=(entry, at), run=_hide)]

    new = tape.rewritten(instead)
    return replace(new, constants={**new.constants, **hidden})


def _hide(x: Array, hidden: Array) -> Array:
    return np.where(hidden, -np.inf, x)
