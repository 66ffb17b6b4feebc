"""Walk along a tape with parameters as symbols, and stop wherever one meets an activation."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .tape import Array, Node, Tape


class Elements:
    """The elements of all parameters of one side, numbered from 1 in the order of `arrays`.

    `values` has the value of each; those of a side that is not yet translated are NaN. Number 0 is no parameter's.
    """

    def __init__(self, arrays: Mapping[str, Array], known: bool):
        self.names = list(arrays)
        self.shapes = {name: np.shape(array) for name, array in arrays.items()}
        self.starts = np.cumsum([1, *(np.size(array) for array in arrays.values())])
        flat = [np.ravel(array) for array in arrays.values()]
        self.values = np.concatenate([np.zeros(1), *flat]) if known else np.full(self.starts[-1], np.nan)
        self.values[0] = 0

    def numbers(self, name: str) -> Array:
        k = self.names.index(name)
        return np.arange(self.starts[k], self.starts[k + 1], dtype=float).reshape(self.shapes[name])

    def owners(self, numbers: Array) -> list[str]:
        """The parameters that elements belong to, in order."""
        numbers = np.ravel(numbers)
        numbers = numbers[numbers > 0]
        if not numbers.size:
            return []
        first, last = np.searchsorted(self.starts, [numbers.min(), numbers.max()], "right") - 1
        if first == last:
            return [self.names[first]]
        found = np.unique(np.searchsorted(self.starts, np.unique(numbers), "right") - 1)
        return [self.names[k] for k in found]


@dataclass(frozen=True)
class Symbol:
    """A function of parameters alone that no activation has met.

    Args:
      ids: the numbers of the elements that it depends on, place by place; None where no such relation exists.
      value: computes it.
      plain: whether its values are those elements.
      parts: symbols whose product ("mul") or sum ("add") it is.
      leaves: the symbols from which it is computed.
      whole: of rows that tokens read: all of them, before other operations took some.
    """

    ids: Array  # or None
    value: Callable[[], Array]
    plain: bool = True
    join: str = ""
    parts: tuple[Symbol, ...] = ()
    leaves: tuple[Symbol, ...] = ()
    whole: Symbol | None = None

    def moved(self, run: Callable[[Array], Array]) -> Symbol:
        """The symbol after an operation that moves elements."""
        value = self.value
        return replace(self, ids=None if self.ids is None else run(self.ids), value=lambda: run(value()))

    def split(self, join: str) -> tuple[Symbol, ...]:
        return self.parts if self.join == join else (self,)

    def roots(self) -> tuple[Symbol, ...]:
        return self.leaves or (self,)


class Part(NamedTuple):
    """A parameter in a product or sum.

    Args:
      at: the index of its operation.
      beside: the size of the values that it was multiplied with or added to there; tells terms of one sum apart.
    """

    at: int
    symbol: Symbol
    beside: float


@dataclass(frozen=True)
class Pending:
    """A product or sum of activations and parameters that nothing but more factors or terms has read yet.

    Frameworks multiply and add in different orders: all factors meet the product of all activations.

    Args:
      join: "mul" or "add".
      x: the product or sum of the activations.
      parts: the parameters.
    """

    join: str
    x: Array
    parts: tuple[Part, ...]


class Use(NamedTuple):
    """A place where a parameter meets an activation.

    Args:
      kind: "product", "add", "mul", or "place" where its value is needed as it is.
      node: its operation's index on the tape; -1 for an output.
      x: the values that it meets; None for "place".
      symbol: the parameter. In a product, x[b, rows, k] and ids[b, k, o].
      flipped: whether the operation is w @ x, so that the columns of its result are its second axis.
      join: the sum or product whose term or factor it is, as (operation, number), and how many others follow.
      beside: see Part.
    """

    kind: str
    node: int
    x: Array
    symbol: Symbol
    flipped: bool = False
    join: tuple[int, int, int] = (0, 0, 0)
    beside: float = 0.0

    @property
    def ids(self) -> Array:
        return self.symbol.ids


class Program:
    """A tape with what one run of it tells: shapes, what depends on the inputs, who reads a value, indices.

    Args:
      parameters: any values of the parameters.
    """

    def __init__(self, tape: Tape, parameters: Mapping[str, Array], inputs: Sequence[Array]):
        self.tape = tape = tape.live()
        self.active = set(tape.inputs)
        self.consumers: dict[int, list[tuple[int, int]]] = {}
        self.last: dict[int, int] = {}
        self.inputs = dict(zip(tape.inputs, inputs, strict=True))
        values: dict[int, Array] = {**tape.constants, **self.inputs}
        values.update({number: parameters[name] for name, number in tape.parameters.items()})
        for at, node in enumerate(tape.nodes):
            if self.active.intersection(node.inputs):
                self.active.add(node.output)
            for slot, number in enumerate(node.inputs):
                self.consumers.setdefault(number, []).append((at, slot))
                self.last[number] = at
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.indices: dict[int, Array] = {}
        for number in values:
            self._note(number, values[number])
        with np.errstate(all="ignore"):
            for at, node in enumerate(tape.nodes):
                values[node.output] = node.run(*(values[number] for number in node.inputs))
                self._note(node.output, values[node.output])
                for number in node.inputs:
                    if self.last[number] == at and number not in tape.outputs:
                        values.pop(number, None)
        self.outputs = [values[number] for number in tape.outputs]

    def _note(self, number: int, value: Array) -> None:
        self.shapes[number] = np.shape(value)
        if getattr(getattr(value, "dtype", None), "kind", "") in tuple("iub"):  # keys of random numbers have no kind
            self.indices[number] = value


class Walk:
    """A run of a tape; `meet` sees each use of a parameter and has to make its elements' values known.

    An exception of `meet` leaves the walk before the operation where it occurred; run() then tries that one again.
    """

    def __init__(self, program: Program, elements: Elements, meet: Callable[[Use], None]):
        self.program, self.elements, self._meet = program, elements, meet
        tape = program.tape
        self.at = 0
        self._joins = 0  # sums and products that were settled at this operation
        self._now: dict[int, Array] = {}  # what operands became at this operation
        self.values: dict[int, Any] = {**tape.constants, **program.inputs}
        for name, number in tape.parameters.items():
            self.values[number] = self._leaf(elements.numbers(name))

    def state(self) -> tuple[int, dict[int, Any]]:
        """Where the walk is: to be given to restore()."""
        return self.at, dict(self.values)

    def restore(self, state: tuple[int, dict[int, Any]]) -> None:
        self.at, values = state
        self.values = dict(values)

    def _leaf(self, ids: Array) -> Symbol:
        return Symbol(ids, lambda: self.elements.values[ids.astype(np.int64)])

    def run(self) -> list[Array]:
        """Go on to the end and return the outputs."""
        tape, last = self.program.tape, self.program.last
        with np.errstate(all="ignore"):
            while self.at < len(tape.nodes):
                node = tape.nodes[self.at]
                self._joins, self._now = 0, {}
                value = self._step(self.at, node, [self.values[number] for number in node.inputs])
                if isinstance(value, Pending) and self._forks(node.output):
                    value = self._settled(value)
                self.values |= {**self._now, node.output: value}
                for number in node.inputs:
                    if last[number] == self.at and number not in tape.outputs:
                        self.values.pop(number, None)
                self.at += 1
            return [self._forced(-1, self.values[number]) for number in tape.outputs]

    def _forks(self, number: int) -> bool:
        """Whether several operations read a value, and not all of them take parts of it."""
        readers = {at for at, _ in self.program.consumers.get(number, ())}
        return len(readers) > 1 and any(self.program.tape.nodes[at].kind != "layout" for at in readers)

    def _step(self, at: int, node: Node, operands: list[Any]) -> Any:
        if any(isinstance(v, Pending) for v in operands):
            if node.kind == "layout" and len(operands) == 1:
                return self._moved_pending(node, operands[0])
            for k, v in enumerate(operands):
                if isinstance(v, Pending) and v.join != node.kind:
                    operands[k] = self._now[node.inputs[k]] = self._settled(v)
        if not any(isinstance(v, (Symbol, Pending)) for v in operands):
            return node.run(*operands)
        active = [n for n in node.inputs if n in self.program.active]
        known = [n for n, v in zip(node.inputs, operands, strict=True) if n in active and not isinstance(v, Symbol)]
        if node.kind == "layout" and all(n in self.program.indices for n in known):
            return self._moved(node, operands)
        if node.kind == "product":
            return self._product(at, node, operands)
        if not known and self._stays(node, operands):
            return self._combined(at, node, operands)
        if node.kind == "mul" and not known:
            operands = [self._forced(at, v) if n in active else v for n, v in zip(node.inputs, operands, strict=True)]
            if not any(isinstance(v, Symbol) for v in operands):
                return node.run(*operands)
        if node.kind in ("add", "mul"):
            return self._joined(at, node, operands)
        return node.run(*(self._forced(at, v) for v in operands))

    def _stays(self, node: Node, operands: list[Any]) -> bool:
        """Whether the result is a symbol still: rows that tokens read are activations after other operations."""
        symbols = [n for n, v in zip(node.inputs, operands, strict=True) if isinstance(v, Symbol)]
        read = self.program.active.intersection(symbols)
        return not read or node.kind == "add" or (node.kind == "mul" and len(symbols) == 1)

    def _moved_pending(self, node: Node, pending: Pending) -> Pending:
        shape = np.broadcast_shapes(np.shape(pending.x), *(np.shape(part.symbol.ids) for part in pending.parts))
        parts = []
        for part in pending.parts:
            moved = part.symbol.moved(lambda array: node.run(np.broadcast_to(array, shape)))
            parts.append(part._replace(symbol=moved))
        return Pending(pending.join, node.run(np.broadcast_to(pending.x, shape)), tuple(parts))

    def _settled(self, pending: Pending) -> Array:
        """The value of a product or sum; its parameters meet its activations."""
        shape = np.broadcast_shapes(np.shape(pending.x), *(np.shape(part.symbol.ids) for part in pending.parts))
        x = np.broadcast_to(pending.x, shape)
        operation = np.multiply if pending.join == "mul" else np.add
        self._joins += 1
        for k, (at, symbol, beside) in enumerate(sorted(pending.parts, key=lambda part: part.symbol.plain)):
            spread = replace(symbol, ids=np.broadcast_to(symbol.ids, shape))
            join = (self.at, self._joins, len(pending.parts) - k - 1)
            self._meet(Use(pending.join, at, x, spread, join=join, beside=beside))
        out = x
        for part in pending.parts:
            out = operation(out, part.symbol.value())
        return out

    def _forced(self, at: int, value: Any) -> Array:
        """The value of a symbol that is needed as it is."""
        if isinstance(value, Pending):
            return self._settled(value)
        if not isinstance(value, Symbol):
            return value
        for leaf in value.roots():
            if leaf.ids is not None:
                self._meet(Use("place", at, None, leaf.whole or leaf))
        return value.value()

    def _moved(self, node: Node, operands: list[Any]) -> Symbol:
        """A layout of symbols, and of constants beside them."""

        def numbers(number: int, v: Any) -> Array:
            if isinstance(v, Symbol):
                return v.ids
            return v if number in self.program.indices else np.zeros(np.shape(v))

        symbols = [v for v in operands if isinstance(v, Symbol)]
        ids = None
        if all(s.ids is not None for s in symbols):
            ids = node.run(*(numbers(n, v) for n, v in zip(node.inputs, operands, strict=True)))
        parts: tuple[Symbol, ...] = ()
        if len(symbols) == 1 and symbols[0].parts:

            def run(array: Array) -> Array:
                return node.run(*(array if isinstance(v, Symbol) else v for v in operands))

            parts = tuple(part.moved(run) for part in symbols[0].parts)
        plain = all(s.plain for s in symbols)
        leaves = () if plain and ids is not None else tuple(r for s in symbols for r in s.roots())
        out = Symbol(ids, lambda: node.run(*map(_value, operands)), plain, symbols[0].join, parts, leaves)
        reads = node.output in self.program.active and not self.program.active.intersection(
            n for n, v in zip(node.inputs, operands, strict=True) if isinstance(v, Symbol)
        )
        whole = out if reads and plain else symbols[0].whole if len(symbols) == 1 else None
        return replace(out, whole=whole)

    def _combined(self, at: int, node: Node, operands: list[Any]) -> Symbol:
        """A function of symbols and constants."""
        symbols = [v for v in operands if isinstance(v, Symbol)]
        shape = self.program.shapes[node.output]
        leaves = tuple({id(r): r for s in symbols for r in s.roots()}.values())

        def spread(symbol: Symbol) -> Symbol:
            if symbol.ids is None or np.shape(symbol.ids) == shape:
                return symbol
            return symbol.moved(lambda array: np.broadcast_to(array, shape))

        def value() -> Array:
            return node.run(*map(_value, operands))

        if node.kind in ("add", "mul"):
            parts = tuple(spread(part) for s in symbols for part in s.split(node.kind))
            ids = spread(symbols[0]).ids
            if len(parts) > 1:
                return Symbol(ids, value, False, node.kind, parts, leaves)
            return Symbol(ids, value, False, leaves=leaves)
        ids = next((s.ids for s in symbols if s.ids is not None and np.shape(s.ids) == shape), None)
        return Symbol(ids, value, False, leaves=leaves)

    def _joined(self, at: int, node: Node, operands: list[Any]) -> Any:
        """One more factor or term."""
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
        x = found[0] if len(found) == 1 else node.run(*found)
        return Pending(node.kind, x, parts) if parts else x

    def _product(self, at: int, node: Node, operands: list[Any]) -> Array:
        x, w = operands
        if isinstance(x, Symbol) and isinstance(w, Symbol):
            x = self._forced(at, x)
        flipped = isinstance(x, Symbol)
        symbol = x if flipped else w
        if symbol.ids is None or (flipped and node.window):
            return node.run(self._forced(at, x), self._forced(at, w))
        met = w.swapaxes(1, 2) if flipped else x
        if not met.any():  # as initial states are: no evidence
            return np.zeros(self.program.shapes[node.output])
        ids = symbol.ids
        if node.window:
            groups = node.window.groups
            ids = ids.reshape(groups, ids.shape[0] // groups, -1).swapaxes(1, 2)
        elif flipped:
            ids = ids.swapaxes(1, 2)
        if not node.window and len(ids) > 1 and (ids == ids[:1]).all():  # one matrix for the whole batch
            met, ids = met.reshape(1, -1, met.shape[2]), ids[:1]
        self._meet(Use("product", at, met, replace(symbol, ids=ids), flipped))
        for leaf in symbol.leaves:
            if leaf.ids is not None:
                self._meet(Use("place", at, None, leaf))
        value = symbol.value()
        return node.run(value, w) if flipped else node.run(x, value)


def _size(v: Any) -> float:
    """The mean size of an activation; 0 for a symbol."""
    x = v.x if isinstance(v, Pending) else v
    return 0.0 if isinstance(x, Symbol) else float(np.abs(x).mean())


def _value(v: Any) -> Array:
    return v.value() if isinstance(v, Symbol) else v


class Similarity:
    """How alike two names are, from 0 to 1: only ever decides between partners of equal evidence."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def __call__(self, left: str, right: str) -> float:
        if (left, right) not in self._seen:
            words = difflib.SequenceMatcher(None, _words(left), _words(right), autojunk=False).ratio()
            letters = difflib.SequenceMatcher(None, left.lower(), right.lower(), autojunk=False).ratio()
            self._seen[left, right] = 0.75 * words + 0.25 * letters
        return self._seen[left, right]


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)", "_", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
