"""Return a model's outputs in another order, or with other axes first: of one shape, nothing else tells them apart."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from parity.derive.limits import PARTED_USES
from parity.derive.trace.outputs import MOST_AXES, difference
from parity.derive.trace.tape import Array, Node, Tape
from specs.words import in_a_row

from .edit import Edit, Scope

MOST = 16  # outputs of a model that are compared with each other


class Place(NamedTuple):
    """Where an output of the left model is on the right: the number of that output, and the order of its axes."""

    at: int
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Rearranged(Edit):
    """Return other outputs of the right side, or the same with their axes in another order."""

    places: Sequence[Place]
    outputs: Sequence[int]

    @property
    def changed(self) -> Collection[int]:
        return self.outputs

    def tape(self, tape: Tape) -> Tape:
        nodes, outputs = list(tape.nodes), list[int]()
        for k, (at, axes) in enumerate(self.places):
            outputs.append(tape.size + k)
            nodes.append(Node("layout", (tape.outputs[at],), tape.size + k, partial(np.transpose, axes=axes), ""))
        return replace(tape, nodes=nodes, outputs=outputs, size=tape.size + len(outputs))


def rearranged(scope: Scope) -> Iterator[Rearranged]:
    """Yield the edit by which each output of the right side is that of the left one, if there is one."""
    left, right = scope.programs
    if not len(left.outputs) == len(right.outputs) <= MOST:
        return
    places = [_place(output, k, right.outputs) for k, output in enumerate(left.outputs)]
    known = [place for place in places if place]
    if len(known) < len(places) or len({place.at for place in known}) < len(known):
        return
    texts = [_text(k, place, len(known) > 1) for k, place in enumerate(known)]
    outputs = [right.tape.outputs[place.at] for place, text in zip(known, texts, strict=True) if text]
    if outputs:
        yield Rearranged(1, "order of outputs", in_a_row([text for text in texts if text]), known, outputs)


def _place(output: Array, k: int, others: Sequence[Array]) -> Place | None:
    """Return where an output is among others, at its own place and in the order of its axes if it is there."""
    for at in sorted(range(len(others)), key=lambda at: at != k):
        other, axes = np.asarray(others[at]), range(np.ndim(others[at]))
        for order in itertools.permutations(axes) if len(axes) <= MOST_AXES else (tuple(axes),):
            turned = other.transpose(order)
            if turned.shape == np.shape(output) and difference([output], [turned]) <= PARTED_USES:
                return Place(at, order)
    return None


def _text(k: int, place: Place, several: bool) -> str:
    """Say where an output of the left model is; "" where it stands at its place."""
    turned = list(place.axes) != sorted(place.axes)
    axes = f"with its axes in the order {place.axes}" if turned else ""
    if place.at != k:
        return f"output {k + 1} of the left model is output {place.at + 1} of the right one {axes}".rstrip()
    which = f"output {k + 1}" if several else "the output"
    return f"{which} of the left model is that of the right one {axes}" if turned else ""
