"""Run a tape once, and store all values with what they tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .products import Window
from .tape import Array, Node, Tape, elements, spread, tried

T = TypeVar("T")
INTEGERS = frozenset("iub")  # kinds of dtypes, with truth values


class Stretch(NamedTuple):
    """Operations from one value (`entry`) to another one, which depends on nothing else but what is known."""

    entry: int
    nodes: Sequence[Node]

    @property
    def result(self) -> int:
        return self.nodes[-1].output


class Reading(NamedTuple):
    """The only operation that reads a value, past layouts.

    Args:
      at: the operation. slot: which of its operands the value is. labels: of that operand's elements.
      layouts: the operations that are passed.
    """

    at: int
    slot: int
    labels: Array
    layouts: tuple[int, ...]


class Refused(Exception):
    """An operation refuses the values that reach it, as those of other rows than the code of an expert states."""


def computed(node: Node, *operands: Array) -> Array:
    """Return the result of an operation. Raises: Refused."""
    try:
        return node.run(*operands)
    except Exception as error:  # an operation of the user's model may raise anything for values of a wrong partner
        raise Refused(node.site) from error


def replayed(tape: Tape, parameters: Mapping[str, Array], inputs: Sequence[Array]) -> list[Array]:
    """Return the outputs of a tape with other values; NaN if an operation refuses them."""
    try:
        return Program(tape, parameters, inputs).outputs
    except Refused:
        return [np.array(np.nan) for _ in tape.outputs]


Fate = tuple[Any, ...]  # an operation that reads a value, and what becomes of its result


class Program:
    """A tape with what one run of it tells: shapes, which values are activations, who reads a value, indices.

    Activations (`active`) depend on the inputs, or on a product of two parameters: a decoder's first layer may read its
    queries alone, and its values are evidence as any others are. An inner product of two parameters is none, as in the
    lambda of differential attention: other models write it as a sum of products.

    Args:
      parameters: any values of the parameters.
    Raises: Refused.
    """

    def __init__(self, tape: Tape, parameters: Mapping[str, Array], inputs: Sequence[Array]):
        self.tape = tape = tape.live()
        self.active = set(tape.inputs)
        self.consumers: dict[int, list[tuple[int, int]]] = {}
        self.last: dict[int, int] = {}
        self.inputs = dict(zip(tape.inputs, inputs, strict=True))
        values: dict[int, Array] = {**tape.constants, **self.inputs}
        names = {number: name for name, number in tape.parameters.items()}
        self.makers = {node.output: at for at, node in enumerate(tape.nodes)}  # of each value, the operation
        own = {*names}  # computed from parameters alone, without a product of two
        for at, node in enumerate(tape.nodes):
            for slot, number in enumerate(node.inputs):
                self.consumers.setdefault(number, []).append((at, slot))
                self.last[number] = at
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.indices: dict[int, Array] = {}
        self.given: dict[int, Array] = {}  # computed from inputs alone, and read beside what depends on parameters
        self.plain = {*tape.inputs}  # of inputs alone
        self._known: dict[tuple[Any, ...], Any] = {}  # results of functions, see once
        whole = {*tape.inputs}  # inputs, laid out otherwise or not
        for number, value in values.items():
            self._note(number, value)

        def read(number: int) -> Array:
            if number in names and number not in values:
                values[number] = self.as_read(number, parameters[names[number]])
                self._note(number, values[number])
            return values[number]

        with np.errstate(all="ignore"):
            for at, node in enumerate(tape.nodes):
                values[node.output] = computed(node, *map(read, node.inputs))
                self._note(node.output, values[node.output])
                if self.active.intersection(node.inputs) or (own.issuperset(node.inputs) and self._is_matrix(node)):
                    self.active.add(node.output)
                elif own.intersection(node.inputs):
                    own.add(node.output)
                self._sort(node, whole, values)
                for number in node.inputs:
                    if self.last[number] == at and number not in tape.outputs:
                        values.pop(number, None)
        self.outputs = [read(number) for number in tape.outputs]

    def as_read(self, number: int, parameter: Array) -> Array:
        """Return a parameter in float64, but for one that products read: they cast it by parts, which bounds memory."""
        return parameter if self._multiplied(number) else np.asarray(parameter, np.float64)

    def once(self, function: Callable[..., T], *arguments: Hashable) -> T:
        """Return what a function computes of this program, once for each list of its further arguments."""
        key = (function, *arguments)
        if key not in self._known:
            self._known[key] = function(self, *arguments)
        return self._known[key]

    def routes(self, node: Node) -> bool:
        """Tell whether an operation moves elements to places that parameters choose, as a router does."""
        return node.kind == "layout" and not self.chosen.isdisjoint(node.inputs)

    @cached_property
    def chosen(self) -> set[int]:
        """Return the indices that parameters choose, as those of a router do."""
        return {number for number in self.indices if number in self.active and number not in self.plain}

    @cached_property
    def depths(self) -> dict[int, int]:
        """Count for each result the products through which it went."""
        depths = dict[int, int]()
        for node in self.tape.nodes:
            depths[node.output] = max((depths.get(n, 0) for n in node.inputs), default=0) + (node.kind == "product")
        return depths

    @cached_property
    def fates(self) -> list[list[Fate]]:
        """Return for each operation what becomes of its operands, alike for operands that are used alike.

        Places in what a layout joins do not count, so that heads of a loop are used alike. Parameters do.
        """
        numbers, weights = dict[object, int](), self.weights
        uses: dict[int, list[Fate]] = {value: [("output", k)] for k, value in enumerate(self.tape.outputs)}
        every = list[list[Fate]]()
        for node in reversed(self.tape.nodes):
            joins = node.kind == "layout" and len(node.inputs) > 1
            met = tuple(number for number in node.inputs if number in weights)
            own = (node.kind, node.name, self.shapes[node.output], met)
            result = numbers.setdefault(tuple(sorted(uses.get(node.output, ()))), len(numbers))
            every.append([(*own, 0 if joins else slot, result) for slot in range(len(node.inputs))])
            for number, fate in zip(node.inputs, every[-1], strict=True):
                uses.setdefault(number, []).append(fate)
        return every[::-1]

    @cached_property
    def costs(self) -> list[int]:
        """Count for each operation the multiplications of a product, or the results of anything else."""
        costs = []
        for node in self.tape.nodes:
            size = math.prod(self.shapes[node.output])
            if node.kind == "product":
                w = self.shapes[node.inputs[1]]
                size *= math.prod(w[1:]) if node.window else w[-2]
            costs.append(size)
        return costs

    def known(self, number: int) -> Array | None:
        """Return a value that is a constant, of integers or truth values, or a mask of inputs; None for others."""
        value = self.tape.constants.get(number)
        value = self.indices.get(number) if value is None else value
        return self.given.get(number) if value is None else value

    def readers(self, value: int) -> list[tuple[int, int]]:
        """Return (operation, which of its operands) of everything that reads a value."""
        return self.consumers.get(value, [])

    def reading(self, value: int) -> list[Node]:
        """Return the operations that read a value, each once for each operand that it is."""
        return [self.tape.nodes[at] for at, _ in self.readers(value)]

    def only_reader(self, value: int) -> tuple[int, int] | None:
        """Return (operation, which of its operands) of what alone reads a value; None where more does, or an output."""
        readers = self.readers(value)
        return readers[0] if len(readers) == 1 and value not in self.tape.outputs else None

    def maker(self, value: int) -> Node | None:
        """Return the operation that computes a value; None for an input, a parameter or a constant."""
        return self.tape.nodes[self.makers[value]] if value in self.makers else None

    def use(self, name: str) -> str:
        """Return the kind of the first operation that reads a parameter, past layouts of it; "" if there is none."""
        values = {self.tape.parameters.get(name)}
        for node in self.tape.nodes:
            if not values.isdisjoint(node.inputs):
                if node.kind != "layout":
                    return node.kind
                values.add(node.output)
        return ""

    def before_layouts(self, value: int) -> tuple[int, list[Node]]:
        """Return the value of which another one is a layout, itself if it is none, and the layouts in their order."""
        layouts = list[Node]()
        while (node := self.maker(value)) is not None and node.kind == "layout" and len(node.inputs) == 1:
            layouts.append(node)
            value = node.inputs[0]
        return value, layouts[::-1]

    def origin(self, value: int) -> tuple[int, Array]:
        """Return the value of which another one is a layout, and its element at each place, from 1; 0 for zeros."""
        value, layouts = self.before_layouts(value)
        places = elements(self.shapes[value])
        for node in layouts:
            places = node.run(places)
        return value, places

    def padded(self, value: int) -> bool:
        """Tell whether a value is another one with zeros around it, or between its elements."""
        return not self.origin(value)[1].all()

    def past_layouts(self, value: int, labels: Array) -> Reading | None:
        """Return the only operation that reads a value, past layouts of it alone; None where there is none.

        Args:
          labels: numbers for the value's elements.
        """
        layouts = list[int]()
        while (reader := self.only_reader(value)) is not None:
            at, slot = reader
            node = self.tape.nodes[at]
            if node.kind != "layout" or len(node.inputs) > 1:
                return Reading(at, slot, labels, tuple(layouts))
            layouts.append(at)
            labels, value = node.run(labels), node.output
        return None

    def labelled(self, node: Node, slot: int, labels: Array) -> Array:
        """Return labels of an operand's elements after an operation: moved by a layout, spread by a sum or product.

        Elements of other operands have the label 0. Functions keep the labels, and convolutions of single channels.
        """
        if self.by_channel(node, slot):
            return np.broadcast_to(labels.max(tuple(range(2, labels.ndim)), keepdims=True), self.shapes[node.output])
        if node.kind != "layout":
            return spread(labels, self.shapes[node.output]) if node.kind in ("add", "mul") else labels

        def operand(k: int, number: int) -> Array:
            return labels if k == slot else self.indices.get(number, np.zeros(self.shapes[number]))

        return node.run(*(operand(k, number) for k, number in enumerate(node.inputs)))

    def by_channel(self, node: Node, slot: int) -> bool:
        """Tell whether an operation is a convolution that makes each channel of one channel of this operand alone."""
        if slot or node.window is None:
            return False
        return self.shapes[node.inputs[0]][1] == self.shapes[node.output][1] == node.window.groups

    def laid_out(self, node: Node, numbers: Mapping[int, Array]) -> Array | None:
        """Return what a layout makes of numbers for its operands, 0 for those without; None if it takes no numbers."""
        known = (numbers.get(n, self.indices.get(n)) for n in node.inputs)
        shapes = (self.shapes[n] for n in node.inputs)
        return tried(node.run, *(np.zeros(s) if v is None else v for v, s in zip(known, shapes, strict=True)))

    def patches(self, node: Node) -> Window | None:
        """Return the window of a convolution that reads patches; None where it multiplies each position by itself."""
        if node.window and max((*self.shapes[node.inputs[1]][2:], *node.window.stride), default=1) == 1:
            return None
        return node.window

    def function(self, stretch: Stretch) -> Callable[[Array], Array]:
        """Return what a stretch computes of other values."""

        def run(x: Array) -> Array:
            values = {stretch.entry: x}
            for node in stretch.nodes:
                operands = (values[n] if n in values else self.known(n) for n in node.inputs)
                values[node.output] = node.run(*operands)
            return values[stretch.result]

        return run

    def regions(
        self, result: int, depth: int, reached: Container[int] | None = None, products: bool = False
    ) -> Iterator[Stretch]:
        """Yield the operations to a result from each one value that all of the result depends on.

        Args:
          depth: operations at most.
          reached: the values on which the result depends; None for activations.
          products: whether the way back goes on past products; else past those with a constant matrix alone.
        """
        reached = self.active if reached is None else reached
        known = self.plain.intersection([*self.indices, *self.given])
        frontier, nodes = {result}, list[Node]()
        while frontier and len(nodes) < depth:
            at = max(self.makers.get(number, -1) for number in frontier)
            node = self.tape.nodes[at]
            if at < 0:
                return
            if node.kind == "product" and not products and all(self.known(number) is None for number in node.inputs):
                return
            nodes.append(node)
            frontier.remove(node.output)
            inputs = {number for number in node.inputs if number in reached}
            frontier |= inputs - known or inputs  # a mask that depends on inputs is known
            if len(frontier) == 1:
                yield Stretch(next(iter(frontier)), nodes[::-1])

    @cached_property
    def weights(self) -> dict[int, tuple[str, ...]]:
        """Return for each value that is computed from parameters alone their names."""
        weights: dict[int, tuple[str, ...]] = {number: (name,) for name, number in self.tape.parameters.items()}
        for node in self.tape.nodes:
            names = dict.fromkeys(name for number in node.inputs for name in weights.get(number, ()))
            if names and node.output not in self.active:
                weights[node.output] = tuple(names)
        return weights

    def _is_matrix(self, node: Node) -> bool:
        """Tell whether an operation is a product that is more than an inner product of two vectors."""
        return node.kind == "product" and max(self.shapes[node.output][1:], default=1) > 1

    def _multiplied(self, number: int) -> bool:
        """Tell whether products of matrices alone read a value, laid out otherwise or not: they take float32."""
        return number not in self.tape.outputs and all(
            node.window is None
            and (
                node.kind == "product"
                or (node.kind == "layout" and len(node.inputs) == 1 and self._multiplied(node.output))
            )
            for node in self.reading(number)
        )

    def _sort(self, node: Node, whole: set[int], values: Mapping[int, Array]) -> None:
        """Add a result to what is computed from inputs alone, and note such values that meet others.

        Args:
          whole: numbers of the inputs, laid out otherwise or not.
        """
        plain = self.plain
        if all(number in plain or number in self.tape.constants for number in node.inputs):
            plain.add(node.output)
            if node.kind == "layout" and whole.issuperset(node.inputs):
                whole.add(node.output)
        elif node.kind in ("add", "mul", "other") and any(n in self.active and n not in plain for n in node.inputs):
            self.given |= {n: values[n] for n in node.inputs if n in plain and n not in whole}

    def _note(self, number: int, value: Array) -> None:
        self.shapes[number] = np.shape(value)
        if getattr(getattr(value, "dtype", None), "kind", None) in INTEGERS:  # keys of random numbers have no kind
            self.indices[number] = value
