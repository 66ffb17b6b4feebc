"""Tell which parameters and inputs the parts of a joined axis come from: parts of one of them are equally wide."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.limits import LARGE_ORIGINS
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, along, elements, tried

Sources = frozenset[str]


def part_sources(program: Program, name: str, axis: int, parts: Array) -> list[Sources] | None:
    """Return what each part of an axis of a parameter meets is made of; None where that cannot be told.

    Parts of what the parameter's own product returns are all of that one product.

    Args:
      parts: the number of the part of each index of the axis, from 0.
    """
    met = first_met(program, name, axis)
    count = int(parts.max()) + 1
    if met is None:
        return None
    if met.own:
        return [frozenset([name])] * count
    finder = _Finder(program)
    found = finder.of(met.value)
    if found is None:
        return None
    of = np.append(-1, parts)[met.places.astype(int)]
    sources = [finder.union(np.unique(found[of == k])) for k in range(count)]
    return sources if any(sources) else None


def first_met(program: Program, name: str, axis: int) -> Met | None:
    """Return what an axis of a parameter meets first; None where that cannot be told."""
    value = program.tape.parameters.get(name, -1)
    shape = program.shapes.get(value)
    if shape is None or math.prod(shape) > LARGE_ORIGINS:  # None where nothing reads it
        return None
    return _met(program, value, np.broadcast_to(along(elements([shape[axis]]), axis, len(shape)), shape))


def origins_of(program: Program, number: int) -> tuple[list[int], list[int]]:
    """Return of which values another one is made: inputs, parameters and what products return, and constants."""
    finder = _Finder(program)
    return (list(finder.origins), finder.constants) if finder.of(number) is not None else ([], [])


def outputs_of(program: Program, name: str, length: int) -> int | None:
    """Return the axis of this length along which a parameter's product with an activation has its results, if any."""
    value, weights = program.tape.parameters.get(name), program.weights
    products = (set(node.inputs) for node in program.tape.nodes if node.kind == "product")
    own = {number for number, names in weights.items() if names == (name,)}
    if value is None or not any(inputs & own and inputs & program.active for inputs in products):
        return None
    shape = program.shapes[value]
    for axis in (axis for axis, n in enumerate(shape) if n == length > 1):
        met = _met(program, value, np.broadcast_to(along(elements([length]), axis, len(shape)), shape))
        if met is not None and met.own:
            return axis
    return None


class Met(NamedTuple):
    """The first activation that an axis of a parameter meets.

    Args:
      places: the index of the axis, from 1, at each of its elements.
      own: whether it is what a product with the parameter returns.
      fixed: whether this product sums the axis with constants, as sines and cosines of positions.
    """

    value: int
    places: Array
    own: bool = False
    fixed: bool = False


def _met(program: Program, value: int, labels: Array) -> Met | None:
    """Return what an axis of a parameter meets first. Args: labels: of the parameter's elements."""
    weights = program.weights
    for at, slot in program.readers(value):
        node = program.tape.nodes[at]
        others = [number for k, number in enumerate(node.inputs) if k != slot]
        if node.kind == "product" and not {*program.active, *weights}.intersection(others):
            met = _own(program, node, slot, labels)
            return met and met._replace(fixed=_summed(labels, slot, node))
        if node.kind != "product" and not program.active.intersection(others):
            passed = program.labelled(node, slot, labels)
            if passed.shape == program.shapes[node.output] and (found := _met(program, node.output, passed)):
                return found
        elif node.kind == "product":
            return _in_product(program, node, slot, labels)
        elif node.kind in ("add", "mul"):
            shape = program.shapes[others[0]]
            fits = np.broadcast_shapes(labels.shape, shape) == shape
            return Met(others[0], np.broadcast_to(labels, shape)) if fits else None
    return None


def _in_product(program: Program, node: Node, slot: int, labels: Array) -> Met | None:
    other = node.inputs[1 - slot]
    if node.window is None:
        summed = labels if slot else labels.swapaxes(1, 2)  # (b, summed, kept)
        if not _constant_along(summed, 2):
            return _own(program, node, slot, labels)
        first = summed[:, :, :1].swapaxes(1, 2) if slot else summed[:, :, :1]
        return Met(other, np.broadcast_to(first, program.shapes[other]))
    if slot == 0:
        return None
    groups, channels = node.window.groups, program.shapes[other][1]
    if groups == 1 and _constant_along(labels, 0):
        channelled = labels[0]
    elif groups == channels:  # each channel by itself
        channelled = labels[:: len(labels) // groups, 0]
    else:
        return _own(program, node, slot, labels) if groups == 1 else None
    return Met(other, _by_channel(channelled.reshape(channels, -1)[:, 0], program.shapes[other]))


def _own(program: Program, node: Node, slot: int, labels: Array) -> Met | None:
    """Return what a parameter's product returns, of which the axis is one."""
    shape = program.shapes[node.output]
    if node.window is None:
        return Met(node.output, np.broadcast_to(labels[:, :1] if slot else labels[:, :, :1], shape), own=True)
    if slot == 0:
        return None
    return Met(node.output, _by_channel(labels.reshape(len(labels), -1)[:, 0], shape), own=True)


def _summed(labels: Array, slot: int, node: Node) -> bool:
    """Tell whether labels differ along an axis that a product sums."""
    return not _constant_along(labels, 1 if slot or node.window else 2)


def _by_channel(labels: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(along(labels, 1, len(shape)), shape)


def _constant_along(labels: Array, axis: int) -> bool:
    return bool((labels == np.take(labels, [0], axis)).all())


class _Finder:
    """Finds the sources of each element of values, as numbers of sets: 0 is the empty one.

    It stands for constants, and for what is made of parts that differ, as the mean of all channels.
    """

    def __init__(self, program: Program):
        self.program, self.sets = program, [frozenset[str]()]
        self.weights = program.weights
        self.variable = program.active.union(self.weights)  # values that no constants alone make
        self.names = {number: name for name, number in program.tape.parameters.items()}
        self.left = LARGE_ORIGINS
        self.found = dict[int, Array]()
        self.origins = dict[int, None]()  # values that have one source
        self.constants = list[int]()

    def union(self, numbers: Array) -> Sources:
        return frozenset[str]().union(*(self.sets[int(n)] for n in np.ravel(numbers)))

    def of(self, number: int) -> Array | None:
        """Return the sources of a value; None where there are too many elements on the way."""
        waiting = [number]
        while waiting and self.left > 0:
            last = waiting[-1]
            open_ = [other for other in self._read(last) if other not in self.found]
            if open_:
                waiting += open_
            else:
                waiting.pop()
                if last not in self.found:
                    self.left -= math.prod(self.program.shapes[last])
                    self.found[last] = self._made(last)
        return self.found.get(number)

    def _read(self, number: int) -> list[int]:
        """Return the values whose sources those of a value are."""
        made = self.program.makers.get(number)
        if made is None or number not in self.variable or self._weight(node := self.program.tape.nodes[made]):
            return []
        return [other for other in node.inputs if other not in self.program.indices]

    def _weight(self, node: Node) -> str:
        """Return the parameter of which a product with an activation is; "" for other operations."""
        names = [self.weights[n][0] for n in node.inputs if n in self.weights and n not in self.program.active]
        apart = node.window is not None and node.window.groups > 1
        return names[0] if node.kind == "product" and names and not apart else ""

    def _made(self, number: int) -> Array:
        shape, made = self.program.shapes[number], self.program.makers.get(number)
        if number in self.program.tape.inputs:
            return self._full(f"input {self.program.tape.inputs.index(number) + 1}", number)
        if number in self.names:
            return self._full(self.names[number], number)
        if made is None or number not in self.variable:
            self.constants.append(number)
            return np.zeros(shape)
        node = self.program.tape.nodes[made]
        if name := self._weight(node):
            return self._full(name, number)
        if node.kind == "layout":
            moved = self.program.laid_out(node, self.found)
            return np.zeros(shape) if moved is None else moved
        known = {other: self.found[other] for other in node.inputs if other in self.found}
        if node.kind == "product" and not node.window:  # of two activations, or with a constant
            if self.program.active.issuperset(node.inputs):
                every = frozenset[str]().union(*(self.union(np.unique(found)) for found in known.values()))
                return self._full(f"{' '.join(sorted(every))} @", number)
            own = [(n, axis) for n, axis in zip(node.inputs, (2, 1), strict=True) if n in known and n in self.variable]
            return np.broadcast_to(_along(known[own[0][0]], own[0][1]), shape) if own else np.zeros(shape)
        if node.kind == "product":
            known = {n: known[n] for n in node.inputs[:1] if n in known}
        of = {n: found for n, found in known.items() if n in self.program.active} or known
        whole = {n: found for n, found in of.items() if found.shape == shape} or of
        several = [fitted(self.program, node, n, found) for n, found in whole.items()]
        return self._joined(several) if several else np.zeros(shape)

    def _full(self, name: str, number: int) -> Array:
        self.sets.append(frozenset([name]))
        self.origins[number] = None
        return np.full(self.program.shapes[number], len(self.sets) - 1.0)

    def _joined(self, several: Sequence[Array]) -> Array:
        """Return the unions of sets, element by element."""
        total = several[0]
        for other in several[1:]:
            pairs, places = np.unique(np.stack([total.ravel(), other.ravel()]), axis=1, return_inverse=True)
            numbers = []
            for pair in pairs.T:
                both = self.union(pair)
                if both not in self.sets:
                    self.sets.append(both)
                numbers.append(self.sets.index(both))
            total = np.array(numbers, float)[places.ravel()].reshape(total.shape)
        return total


def _along(numbers: Array, axis: int) -> Array:
    """Return numbers along one place of an axis; 0 where they differ along it, as for the mean of all channels."""
    return np.where((numbers == np.take(numbers, [0], axis)).all(axis, keepdims=True), np.take(numbers, [0], axis), 0)


def fitted(program: Program, node: Node, value: int, numbers: Array) -> Array:
    """Return numbers of an operand's elements in the shape of an operation's result, which may pool or drop axes.

    Args:
      value: the operand. Returns: 0 for all where nothing tells which axes the operation drops.
    """
    shape = program.shapes[node.output]
    dropped = program.once(_dropped, node.output, value) if numbers.ndim > len(shape) else ()
    if dropped is None:
        return np.zeros(shape)
    for axis in dropped:
        numbers = _along(numbers, axis).squeeze(axis)
    ahead = len(shape) - numbers.ndim
    for axis in (axis for axis, n in enumerate(numbers.shape) if n not in (1, shape[axis + ahead])):
        numbers = _along(numbers, axis)
    return np.broadcast_to(numbers, shape)


def _dropped(program: Program, output: int, value: int) -> Sequence[int] | None:
    """Return the axes of an operand that its operation drops, the last one first; None where nothing tells which.

    Shapes tell it unless axes are equally long. Then the operation's results do: new numbers at the first index of an
    axis that remains change the results at its first index alone.
    """
    node, before, after = program.tape.nodes[program.makers[output]], program.shapes[value], program.shapes[output]
    options = []
    for dropped in itertools.combinations(range(len(before))[::-1], len(before) - len(after)):
        kept = [axis for axis in range(len(before)) if axis not in dropped]
        if all(before[axis] in (1, n) for axis, n in zip(kept, after, strict=True)):
            options.append((dropped, [(axis, at) for at, axis in enumerate(kept) if before[axis] > 1]))
    if len(options) < 2:
        return options[0][0] if options else None
    numbers = np.random.default_rng(0)
    operands = [
        program.indices[n] if n in program.indices else numbers.uniform(0.5, 1.5, program.shapes[n])
        for n in node.inputs
    ]
    changed = {axis: _changed(node, operands, value, axis, numbers) for axis in {a for _, k in options for a, _ in k}}
    return next((dropped for dropped, kept in options if all(_is_first(changed[a], at) for a, at in kept)), None)


def _changed(
    node: Node, operands: Sequence[Array], value: int, axis: int, numbers: np.random.Generator
) -> Array | None:
    """Tell which results change with an operand at the first index of an axis; None if the operation refuses them."""
    others = [*operands]
    for slot in (slot for slot, number in enumerate(node.inputs) if number == value):
        new = numbers.uniform(0.5, 1.5, others[slot].shape)
        others[slot] = np.where(along(np.arange(new.shape[axis]), axis, new.ndim) == 0, new, others[slot])
    one, other = tried(node.run, *operands), tried(node.run, *others)
    return None if one is None or other is None else one != other


def _is_first(changed: Array | None, axis: int) -> bool:
    """Tell whether results change at the first index of an axis alone."""
    return changed is not None and {*np.nonzero(changed)[axis].tolist()} == {0}
