"""Walk along a tape with parameters as symbols, and stop wherever one meets an activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from parity.derive.limits import CALL_WORK, LARGE_MATRIX, LARGE_MODEL, WALKED_PRODUCT
from parity.derive.trace.caches import trim
from parity.derive.trace.program import Program, computed
from parity.derive.trace.tape import Array, Node, elements, spread

from . import batches, delayed
from .stepped import stepped
from .symbols import Elements, Part, Pending, Symbol, Use, moved

NUMBERS = (np.ndarray, np.floating)
SYMBOLS = (Symbol, Pending)
Place = tuple[int, dict[int, Any], dict[int, Symbol]]  # of a walk: its operation, values, and known rows


class Walk:
    """A run of a tape; `meet` sees each use of a parameter and has to make its elements' values known.

    It may return other values for a use to go on with, where those of two models part.
    An exception of `meet` leaves the walk before the operation where it occurred; run() then tries that one again.
    """

    def __init__(self, program: Program, elements: Elements, meet: Callable[[Use], Array | None]):
        self.program, self.elements, self._meet = program, elements, meet
        tape = program.tape
        self.at = self.work = 0  # how much was computed: the walk goes on from there after each restore()
        self._joins = 0  # sums and products that were settled at this operation
        self._now: dict[int, Array] = {}  # what operands became at this operation
        self._rows: dict[int, Symbol] = {}  # rows that tokens read and whose values an operation needed, by identity
        self.values: dict[int, Any] = {**tape.constants, **program.inputs}
        self._bare: dict[
            int, Array
        ] = {}  # values -> the numbers of the elements that stand in them as they are, else 0
        self._names = {number: name for name, number in tape.parameters.items()}

    def state(self) -> Place:
        """Return where the walk is, for restore()."""
        return self.at, dict(self.values), dict(self._rows)

    def restore(self, state: Place) -> None:
        self.at, values, rows = state
        self.values, self._rows = dict(values), dict(rows)

    def _operand(self, number: int) -> Any:
        """Return a value; a parameter becomes a symbol where it is first read, which bounds memory."""
        if number not in self.values and number in self._names:
            name, elements = self._names[number], self.elements
            if math.prod(elements.shapes[name]) >= LARGE_MODEL:
                trim(now=True)  # the memory that was freed before would add to that of its numbers
            self.values[number] = Symbol(elements.numbers(name), lambda: elements.value(name))
        return self.values[number]

    def run(self) -> list[Array]:
        """Go on to the end and return the outputs."""
        tape, last, costs = self.program.tape, self.program.last, self.program.costs
        with np.errstate(all="ignore"):
            while self.at < len(tape.nodes):
                node = tape.nodes[self.at]
                self._joins, self._now = 0, {}
                self.work += CALL_WORK + costs[self.at] // WALKED_PRODUCT
                operands = [self._operand(number) for number in node.inputs]
                if (numbers := delayed.bare(self.program, node, operands, self._bare)) is not None:
                    self._bare[node.output] = numbers
                value = self._step(self.at, node, operands)
                if isinstance(value, Pending) and self._forks(node.output):
                    value = self._settled(value)
                value = self._by_steps(node.output, value)
                self.values |= {**self._now, node.output: value}
                for number in node.inputs:
                    if last[number] == self.at and number not in tape.outputs:
                        self.values.pop(number, None)
                self.at += 1
            return [self._forced(-1, self._operand(number)) for number in tape.outputs]

    def _by_steps(self, number: int, value: Any) -> Any:
        """Return a large matrix that one product alone reads with its elements stored by their steps."""
        reader = self.program.only_reader(number) if isinstance(value, Symbol) else None
        if reader is None or value.ids is None or value.ids.size <= LARGE_MATRIX or len(value.ids) > 1:
            return value
        node = self.program.tape.nodes[reader[0]]
        is_matrix = node.kind == "product" and not node.window and reader[1] == 1
        if not is_matrix or node.inputs[0] not in self.program.active:
            return value
        return replace(value, ids=stepped(value.ids))

    def _forks(self, number: int) -> bool:
        """Tell whether several operations read a value, unless each takes another part of it."""
        readers = [self.program.tape.nodes[at] for at in {at for at, _ in self.program.readers(number)}]
        if len(readers) < 2:
            return False
        count = math.prod(self.program.shapes[number])
        if any(node.kind != "layout" for node in readers):
            return True
        if sum(math.prod(self.program.shapes[node.output]) for node in readers) <= count:
            return False
        if not any(len(then.inputs) > 1 for node in readers for then in self._layouts(node)):
            return True
        return sum(len(self._passed_on(node, number)) for node in readers) > count  # else one writes into a part of it

    def _layouts(self, node: Node) -> Iterator[Node]:
        """Yield a layout operation, and those after it as long as one layout alone reads the result.

        One that moves elements to places that parameters choose ends them: these choose others with other values.
        """
        while node.kind == "layout" and not self.program.routes(node):
            yield node
            readers = self.program.readers(node.output)
            if len(readers) != 1 or node.output in self.program.tape.outputs:
                return
            node = self.program.tape.nodes[readers[0][0]]

    def _passed_on(self, node: Node, number: int) -> Array:
        """Return the places of the elements of one operand that layout operations pass on."""
        shapes, others = self.program.shapes, self.program.indices
        found = elements(shapes[number])
        for then in self._layouts(node):
            found = then.run(*(found if n == number else others.get(n, np.zeros(shapes[n])) for n in then.inputs))
            number = then.output
        return np.unique(found[found > 0]).astype(np.int64) - 1

    def _step(self, at: int, node: Node, operands: list[Any]) -> Any:
        """Return the value of an operation: a Symbol, a Pending sum or product, or an array, as its operands are."""
        operands = [delayed.computed(v) if self._is_known(v) else v for v in operands]
        if not self.program.chosen.isdisjoint(node.inputs):
            operands = [self._settled(v) if isinstance(v, Pending) else v for v in operands]
        if any(isinstance(v, Pending) for v in operands):
            if (waiting := self._delayed(at, node, operands)) is not None:
                return waiting
            operands = self._settle_operands(node, operands)
        if not any(isinstance(v, SYMBOLS) for v in operands):
            return computed(node, *operands)
        if node.kind == "mul" and any(isinstance(v, NUMBERS) and _zero(v) for v in operands):
            return np.zeros(self.program.shapes[node.output])  # as initial states are: no evidence
        active = [n for n in node.inputs if n in self.program.active]
        known = [n for n, v in zip(node.inputs, operands, strict=True) if n in active and not isinstance(v, Symbol)]
        if node.kind == "layout" and all(n in self.program.indices for n in known):
            return delayed.layout(self.program, node, operands)
        if node.kind == "product":
            return self._product(at, node, operands)
        if not known and self._stays(node, operands):
            return delayed.combined(self.program, node, operands)
        if node.kind == "mul" and not known:
            operands = [self._shown(at, v) if n in active else v for n, v in zip(node.inputs, operands, strict=True)]
            if not any(isinstance(v, Symbol) for v in operands):
                return computed(node, *operands)
        if node.kind in ("add", "mul"):
            return self._joined(at, node, operands)
        return computed(node, *(self._shown(at, v) for v in operands))

    def _delayed(self, at: int, node: Node, operands: list[Any]) -> Pending | None:
        """Return a pending sum or product, carried past an operation; None where it has to be computed first."""
        if node.kind in ("add", "mul") and self._idle(node, operands):
            return next(v for v in operands if isinstance(v, Pending))
        if node.kind != "layout":
            return None
        indices = [n in self.program.indices for n in node.inputs]
        if sum(indices) != len(operands) - 1:  # else it lays out the pending value alone
            if not delayed.is_sum_beside_symbols(operands, indices):
                return None
            operands = [self._forced(at, v) if isinstance(v, Symbol) else v for v in operands]
        return delayed.pending_layout(self.program, node, operands, self._bare)

    def _settle_operands(self, node: Node, operands: list[Any]) -> list[Any]:
        """Compute the pending operands that an operation needs as values, of a layout only what it passes on."""
        values = list(operands)
        for k, v in enumerate(operands):
            if isinstance(v, Pending) and node.kind == "layout":
                values[k] = self._settled_in_part(v, self._passed_on(node, node.inputs[k]))
            elif isinstance(v, Pending) and v.kind != node.kind:
                values[k] = self._now[node.inputs[k]] = self._settled(v)
        return values

    def _shown(self, at: int, value: Any) -> Array:
        """Return the value of a symbol that is needed as it is; rows that tokens read are numbers from here on."""
        if isinstance(value, Symbol) and value.plain and value.whole is not None:
            self._rows[id(value.whole)] = value.whole
        return self._forced(at, value)

    def _is_known(self, value: Any) -> bool:
        """Tell whether a symbol is of rows whose values an operation needed before."""
        return isinstance(value, Symbol) and value.plain and id(value.whole) in self._rows

    def _idle(self, node: Node, operands: list[Any]) -> bool:
        """Tell whether an operation multiplies by the number 1 or adds the number 0."""
        numbers = [number for number in node.inputs if number in self.program.tape.constants]
        others = [v for v in operands if not isinstance(v, Pending)]
        return len(numbers) == len(others) == 1 and np.size(others[0]) == 1 and delayed.neutral(node, others)

    def _stays(self, node: Node, operands: list[Any]) -> bool:
        """Tell whether the result is a symbol still: rows that tokens read are activations after other operations."""
        symbols = [n for n, v in zip(node.inputs, operands, strict=True) if isinstance(v, Symbol)]
        read = self.program.active.intersection(symbols)
        return not read or node.kind == "add" or (node.kind == "mul" and len(symbols) == 1)

    def _settled(self, pending: Pending) -> Array:
        """Return the value of a product or sum; its parameters meet its activations."""
        shape = np.broadcast_shapes(np.shape(pending.x), *(np.shape(part.symbol.numbers) for part in pending.parts))
        if 0 in shape:  # an empty part, as of a shift by nothing
            return np.zeros(shape)
        x = spread(pending.x, shape)
        bare = None if pending.bare is None else spread(pending.bare, shape)
        operation = np.multiply if pending.kind == "mul" else np.add
        self._joins += 1
        for k, (at, symbol, beside) in enumerate(sorted(pending.parts, key=_order)):
            whole = replace(symbol, ids=np.broadcast_to(symbol.numbers, shape))
            group = (self.at, self._joins, len(pending.parts) - k - 1)
            other = self._meet(Use(pending.kind, at, x, whole, group=group, beside=beside, bare=bare))
            x = x if other is None else other
        out = x
        for part in pending.parts:
            out = operation(out, part.symbol.value())
        return out

    def _settled_in_part(self, pending: Pending, places: Array) -> Array:
        """Return the value at these places; 0 elsewhere, where another value is written."""
        shape = np.broadcast_shapes(np.shape(pending.x), *(np.shape(part.symbol.numbers) for part in pending.parts))
        if len(places) == math.prod(shape):
            return self._settled(pending)

        def take(array: Array) -> Array:
            return np.broadcast_to(array, shape).reshape(-1)[places]

        parts = tuple(part._replace(symbol=part.symbol.moved(take)) for part in pending.parts)
        out = np.zeros(math.prod(shape))
        bare = None if pending.bare is None else take(pending.bare)
        out[places] = self._settled(Pending(pending.kind, take(pending.x), parts, bare))
        return out.reshape(shape)

    def _forced(self, at: int, value: Any) -> Array:
        """Return the value of a symbol that is needed as it is."""
        if isinstance(value, Pending):
            return self._settled(value)
        if not isinstance(value, Symbol):
            return value
        for leaf in value.roots():
            if leaf.ids is not None:
                self._meet(Use("place", at, None, leaf.whole or leaf))
        return delayed.computed(value)

    def _joined(self, at: int, node: Node, operands: list[Any]) -> Any:
        """Return one more factor or term."""
        found: list[Array] = []
        parts: tuple[Part, ...] = ()
        for v, other in zip(operands, operands[::-1], strict=True):
            if isinstance(v, Pending):
                found.append(v.x)
                parts += v.parts
            elif isinstance(v, Symbol):
                split = v.split(node.kind)
                if any(part.ids is None or len(part.roots()) > 1 for part in split):
                    found.append(self._forced(at, v))
                else:
                    parts += tuple(Part(at, part, _size(other)) for part in split)
            else:
                found.append(v)
        x = found[0] if len(found) == 1 else computed(node, *found)
        of = (
            v.bare if isinstance(v, Pending) else self._bare.get(n) for n, v in zip(node.inputs, operands, strict=True)
        )
        bare = next((n for n in of if n is not None), None) if node.kind == "add" and len(found) == 1 else None
        return Pending(node.kind, x, parts, bare) if parts else x

    def _product(self, at: int, node: Node, operands: list[Any]) -> Any:
        x, w = operands
        if isinstance(x, Symbol) and isinstance(w, Symbol) and node.output not in self.program.active:
            return delayed.combined(self.program, node, operands)
        if isinstance(x, Symbol) and isinstance(w, Symbol):  # rows that tokens read meet the other one
            if node.inputs[1] in self.program.active and node.inputs[0] not in self.program.active:
                w = self._forced(at, w)
            else:
                x = self._forced(at, x)
        flipped = isinstance(x, Symbol)
        symbol = x if flipped else w
        if symbol.ids is None or (flipped and node.window):
            return computed(node, self._forced(at, x), self._forced(at, w))
        met = w.swapaxes(1, 2) if flipped else x
        if _zero(met):  # as initial states are: no evidence
            return np.zeros(self.program.shapes[node.output])
        matrices, order, other = batches.summands(symbol), None, None
        for part in matrices:
            ids, here = part.numbers, met
            if node.window:
                groups = node.window.groups
                ids = ids.reshape(groups, ids.shape[0] // groups, -1).swapaxes(1, 2)
            else:
                here, ids, order = batches.shared(met, ids.swapaxes(1, 2) if flipped else ids)
                here, ids = batches.beside(here, ids)
            other = self._meet(Use("product", at, here, replace(part, ids=ids), flipped))
        if other is not None and not flipped and len(matrices) == 1 and (node.window or other.size == x.size):
            same = other if node.window else other.reshape(x.shape)
            x = same if order is None else same[np.argsort(order)]
            self._replace(node.inputs[0], x)
        for leaf in symbol.leaves if len(matrices) == 1 else ():
            if leaf.ids is not None:
                self._meet(Use("place", at, None, leaf))
        value = symbol.value()
        if np.isnan(value.sum()):  # rows that meet zeros alone have no partner yet
            value = np.nan_to_num(value)
        return computed(node, value, w) if flipped else computed(node, x, value)

    def _replace(self, number: int, value: Array) -> None:
        """Replace a value that later operations read, through the layouts from which it was made."""
        fixed = {*self.program.tape.inputs, *self.program.tape.constants}
        while number not in fixed and np.shape(value) == self.program.shapes[number]:
            node = self.program.tape.nodes[self.program.makers[number]]
            if number in self.values:
                self.values[number] = value
            if node.kind != "layout" or len(node.inputs) > 1 or isinstance(self.values.get(node.inputs[0]), SYMBOLS):
                return
            number = node.inputs[0]
            shape = self.program.shapes[number]
            ids = moved(node.run, elements(shape)).astype(np.int64)
            source = np.array(np.broadcast_to(self.values.get(number, np.nan), shape))
            source.flat[ids[ids > 0] - 1] = value[ids > 0]
            if np.isnan(source).any():
                return
            value = source


def _order(part: Part) -> tuple[bool, float]:
    """Return functions of parameters first, then parameters in their order: alike for all parts of a fused one."""
    return part.symbol.plain, float(part.symbol.numbers.min())


def _zero(values: Array) -> bool:
    """Tell whether all values are zero; mostly one of them, in the middle, shows that they are not."""
    middle = tuple(n // 2 for n in np.shape(values))
    return not (np.size(values) and values[middle]) and not values.any()


def _size(v: Any) -> float:
    """Return the mean size of an activation; 0 for a symbol."""
    x = v.x if isinstance(v, Pending) else v
    return 0.0 if isinstance(x, Symbol) else float(np.abs(x).mean())
