"""Tell whether parts of an axis have one length in every model, and not in these small ones alone.

They do where their indices meet one by one in a sum or product, as those of a gate and of what it scales, where they
are made of the same indices, as sines and cosines, and where the code cuts the axis into so many equal parts. Whole
axes of several parameters have one length where their indices meet so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.derive.limits import LARGE_ORIGINS
from parity.derive.trace.axis_roles import axis_roles, follows
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, along, elements

from .sources import Met, first_met, fitted, origins_of

Shape = tuple[int, ...]
PADS = frozenset({"constant_pad_nd", "pad", "pad3d"})  # by a number that may be 0 at one size alone
EVEN = frozenset({"split", "unsafe_split", "chunk", "unsafe_chunk", "split_with_num"})  # cut into equal parts


@dataclass(frozen=True)
class Joint:
    """An axis of an array along which arrays of the other side stand side by side, each a part of one length.

    Args:
      side: of the array. name, shape: its own. axis: the one. count: how many parts it has.
      parts: the shapes of the other arrays by their names. own: the axis of these that is one part; -1 if none is.
    """

    side: int
    name: str
    shape: Shape
    axis: int
    count: int
    parts: Mapping[str, Shape]
    own: int

    def is_shown(self, programs: Sequence[Program]) -> bool:
        """Tell whether a run of one side shows that the parts have one length in every model; True without runs."""
        if not programs:
            return True
        whole, others = programs[self.side], programs[1 - self.side]
        if _as_recorded(whole, {self.name: self.shape}) and equal_parts(whole, self.name, self.axis, self.count):
            return True
        if self.own < 0 or not _as_recorded(others, self.parts):
            return False
        steps = {name: (self.own, np.arange(1, shape[self.own] + 1)) for name, shape in self.parts.items()}
        return any(len(names) == len(steps) for names in axes_met(others, steps))


def _as_recorded(program: Program, shapes: Mapping[str, Shape]) -> bool:
    """Tell whether parameters have these shapes on a tape, whose forms may give them others."""
    found = (program.shapes.get(program.tape.parameters.get(name, -1)) for name in shapes)
    return all(one == shape for one, shape in zip(found, shapes.values(), strict=True))


def equal_parts(program: Program, name: str, axis: int, count: int) -> bool:
    """Tell whether the parts of an axis of a parameter have one length in every model; False where nothing shows it."""
    value = program.tape.parameters.get(name)
    met = first_met(program, name, axis)
    if value is None or met is None:
        return False
    if met.fixed:  # so many constants are in the code
        return True
    length = program.shapes[value][axis]
    if follows(axis_roles(program, name, axis).heads, count, length // count):  # another model has more heads
        return False
    labels = _numbered(program, [value], axis - len(program.shapes[value]))
    if _meet(program, labels, Met(value, labels[value]), count) or _cut(program, name, axis, count):
        return True
    if met.own or met.places.max() < length:
        return False
    return any(_meet(program, some, met, count) for some in _of_origins(program, met, length // count) if some)


def _of_origins(program: Program, met: Met, width: int) -> Iterator[dict[int, Array]]:
    """Yield numbers of the indices of the values of which another one is made: of all, then of one with such an axis.

    So frequencies, which may be constants, have numbers of their own where each time is multiplied with all of them.

    Args:
      width: of the axis.
    """
    made, constants = origins_of(program, met.value)
    rank = max((len(program.shapes[value]) for value in made), default=0)
    yield from (_numbered(program, made, axis) for axis in (*range(-1, -1 - rank, -1), None))
    for value in (*made, *constants):
        shape = program.shapes[value]
        yield from (_numbered(program, [value], axis - len(shape)) for axis, n in enumerate(shape) if n == width)


def axes_met(program: Program, axes: Mapping[str, tuple[int, Array]]) -> list[list[str]]:
    """Group parameters of which one axis each has as many steps, which meet one by one in sums and products.

    So have a kernel and its bias one axis, and a norm and what it scales: they are equally long in every model.

    Args:
      axes: of each parameter the axis, counted from 0, and the number of the step at each of its indices, from 1, or 0;
        all of as many steps.
    """
    labels, spans, last, length = dict[int, Array](), dict[str, slice](), 0, 0
    for name, (axis, steps) in axes.items():
        value = program.tape.parameters.get(name, -1)
        if value in labels or value not in program.shapes:  # nothing reads it
            continue
        shape, length = program.shapes[value], int(steps.max())
        numbers = np.where(steps > 0, steps + last, 0)
        labels[value] = np.broadcast_to(along(numbers, axis, len(shape)), shape)  # takes no memory
        spans[name] = slice(last + 1, last + 1 + length)
        last += length
    if len(labels) < 2:
        return []
    found = Indices(program, labels)
    for _ in found.passed():
        pass
    if found.size > LARGE_ORIGINS:  # what is known of the first blocks alone would write the others in another way
        return []
    groups = dict[tuple[int, ...], list[str]]()
    for name, span in spans.items():
        groups.setdefault(tuple(sorted(set(found.first[span].tolist()))), []).append(name)
    return [names for firsts, names in groups.items() if len(names) > 1 and len(firsts) == length]


def _numbered(program: Program, values: Sequence[int], axis: int | None) -> dict[int, Array]:
    """Number the indices of an axis of all values, or their elements where there is none, from 1."""
    found, last = dict[int, Array](), 0
    for value in values:
        shape = program.shapes[value]
        if axis is None:
            own = elements(shape)
        elif -axis > len(shape):
            continue
        else:
            own = np.broadcast_to(elements([shape[axis], *[1] * (-1 - axis)]), shape)
        found[value] = own + last
        last += int(own.max(initial=0))
    return found


def picked_parts(program: Program, name: str, axis: int, count: int, inner: int) -> set[int]:
    """Return which parts of an axis the code has as single ones in every model: it picks them by index or cuts evenly.

    A part that it takes as a range, y[:, :r], may be longer in another model; an index drops the axis.

    Args:
      count: how many parts there are. inner: how many indices of the axis one step from part to part passes.
    """
    found, picked = indices(program, name, axis), set[int]()
    for node in found.passed() if found else ():
        even = node.name in EVEN
        dropped = len(program.shapes[node.inputs[0]]) - len(program.shapes[node.output])
        if found and node.kind == "layout" and node.inputs[0] in found.labels and (even or dropped > 0):
            read, taken = (np.unique((found.labels[n] - 1) // inner % count) for n in (node.inputs[0], node.output))
            picked.update(map(int, taken if len(taken) == 1 < len(read) else ()))
    return picked


def taken_apart(program: Program, name: str, axis: int, edges: Sequence[int]) -> bool:
    """Tell whether the code takes each part of an axis of a parameter by itself. Args: edges: of the parts, all in."""
    found = indices(program, name, axis)
    if found is None:
        return False
    left = set(itertools.pairwise(edges))
    for node in found.passed():
        own = np.unique(found.labels[node.output]) if node.kind == "layout" else np.zeros(1)
        if own[0] and len(own) == own[-1] - own[0] + 1:
            left.discard((int(own[0]) - 1, int(own[-1])))
    return not left


def indices(program: Program, name: str, axis: int) -> Indices | None:
    """Return the indices of an axis of a parameter, counted from 0; None where the tape does not have it."""
    value = program.tape.parameters.get(name)
    return None if value is None else Indices(program, _numbered(program, [value], axis - len(program.shapes[value])))


def _cut(program: Program, name: str, axis: int, count: int) -> bool:
    """Tell whether the code cuts what an axis makes into so many equal parts, each of which is read by itself."""
    value = program.tape.parameters[name]
    width = program.shapes[value][axis] // count
    found, pieces = Indices(program, _numbered(program, [value], axis - len(program.shapes[value]))), set[float]()
    for node in found.passed():
        if node.kind != "layout":
            continue
        parts = (found.labels[node.output] - 1) // width
        if node.name in EVEN and (parts == parts.flat[0]).all():
            pieces.add(float(parts.flat[0]))
        elif _is_axis(parts, count):
            return follows(axis_roles(program, name, axis).readers, count, width)
    return pieces == set(range(count))


def _is_axis(parts: Array, count: int) -> bool:
    """Tell whether the numbers of parts are those of one axis."""
    axes = [axis for axis, length in enumerate(parts.shape) if length == count]
    return any((np.moveaxis(parts, axis, -1) == np.arange(count)).all() for axis in axes)


def _meet(program: Program, labels: dict[int, Array], met: Met, count: int) -> bool:
    """Tell whether the k-th indices of all parts are one, or meet in the course of the run.

    Args:
      labels: numbers of indices at the elements of the values of which the parts are made.
    """
    found = Indices(program, labels)
    for node in found.passed(met.value):
        if (found.changed or node.output == met.value) and found.alike(met, count):
            return True
    return False


class Indices:
    """The indices of axes that the elements of values belong to, and which of them meet.

    Args:
      labels: numbers of indices by value, 0 for elements of none.
    """

    def __init__(self, program: Program, labels: dict[int, Array]):
        self.program, self.labels = program, labels
        self.first = np.arange(1 + int(max(own.max(initial=0) for own in labels.values())))  # of those that meet
        self.size, self.changed = 0, False

    def passed(self, kept: int = -1) -> Iterator[Node]:
        """Yield the operations that pass labels on, or in which they meet. Args: kept: the value whose labels stay."""
        nodes = self.program.tape.nodes
        for at, node in enumerate(nodes):
            if node.output in self.labels or self.labels.keys().isdisjoint(node.inputs):
                continue
            self._pass_on(node)
            if node.output in self.labels or self.changed:
                yield node
            if self.size > LARGE_ORIGINS:
                return
            for number in {*node.inputs} - {kept}:
                if self.program.last[number] == at:
                    self.labels.pop(number, None)

    def _pass_on(self, node: Node) -> None:
        """Give the result of an operation the labels of its operands, which meet in it."""
        self.changed = False
        shape = self.program.shapes[node.output]
        own = [self.labels.get(number) for number in node.inputs]
        if node.name in PADS and shape == self.program.shapes[node.inputs[0]]:
            return  # padded, one part has the length of another one, which it has in no other model
        if node.kind == "layout":
            passed = self.program.laid_out(node, self.labels)
        elif node.kind in ("add", "mul"):
            passed = self._joined([np.broadcast_to(some, shape) for some in own if some is not None])
        elif node.kind == "product" and node.window is None:
            passed = self._multiplied(own[0], own[1], shape)
        elif node.kind == "product":
            passed = self._convolved(node, own[0], own[1], shape)
        else:
            value = next(number for number in node.inputs if number in self.labels)
            passed = fitted(self.program, node, value, self.labels[value])
        if passed is not None and passed.any():
            self.labels[node.output] = passed
            self.size += passed.size

    def alike(self, met: Met, count: int) -> bool:
        """Tell whether the k-th index of each part is, or meets, that of all others; no two of a part may be one."""
        if (own := self.labels.get(met.value)) is None:
            return False
        width = int(met.places.max()) // count
        index, label = np.unique(np.stack([met.places.ravel() - 1, own.ravel()]).astype(int), axis=1)
        if not label.all() or len(set(zip((index // width).tolist(), label.tolist(), strict=True))) < len(label):
            return False
        parts = [set[tuple[int, int]]() for _ in range(count)]
        for n, first in zip(index.tolist(), self.first[label].tolist(), strict=True):
            parts[n // width].add((n % width, first))
        return len({k for k, _ in set.intersection(*parts)}) == width

    def _multiplied(self, x: Array | None, w: Array | None, shape: tuple[int, ...]) -> Array | None:
        """Return labels of x[b, rows, k] @ w[b, k, o]; those along k meet."""
        if x is not None and w is not None and (x == x[:, :1]).all() and (w == w[:, :, :1]).all():
            self._meet(x[:, 0], w[:, :, 0])
        if w is not None and (w == w[:, :1]).all():
            return np.broadcast_to(w[:, :1], shape)
        if x is not None and (x == x[:, :, :1]).all():
            return np.broadcast_to(x[:, :, :1], shape)
        return None

    def _convolved(self, node: Node, x: Array | None, kernel: Array | None, shape: tuple[int, ...]) -> Array | None:
        """Return labels of a convolution's channels: those of the kernel, or of x where each is convolved by itself."""
        if kernel is not None and (kernel == (own := kernel[(slice(None), *[slice(1)] * (kernel.ndim - 1))])).all():
            return np.broadcast_to(np.swapaxes(own, 0, 1), shape)
        each = node.window is not None and node.window.groups == shape[1] == self.program.shapes[node.inputs[0]][1]
        return fitted(self.program, node, node.inputs[0], x) if each and x is not None else None

    def _joined(self, several: Sequence[Array]) -> Array:
        total = several[0]
        for other in several[1:]:
            self._meet(total, other)
            total = np.where(total > 0, total, other)
        return total

    def _meet(self, one: Array, other: Array) -> None:
        """Unite the labels that stand at the same places of both values, if they pair one to one.

        An outer sum pairs each label with all others, and says nothing.
        """
        both = (one > 0) & (other > 0)
        pairs = np.unique(np.stack([one[both], other[both]]).astype(int), axis=1)
        if not pairs.size or any(len(np.unique(side)) < len(side) for side in pairs):
            return
        while (unlike := self.first[pairs[0]] != self.first[pairs[1]]).any():
            firsts = np.sort(self.first[pairs[:, unlike]], axis=0)
            np.minimum.at(self.first, firsts[1], firsts[0])
            while (self.first[self.first] != self.first).any():
                self.first = self.first[self.first]
            self.changed = True
