"""Define a tape: the primitive operations of one run, as functions of numpy arrays, alike for every framework.

Values have numbers. Each operation (Node) makes one value from others; its kind says what can be known about it:

    layout    moves elements: reshape, transpose, slice, concatenate, pad with zeros, index. Its `run` also works on an
              array of element numbers, which tells where each element goes.
    product   x[b, rows, k] @ w[b, k, o], or a convolution, whose x are patches. Tracers bring matrix products and
              einsums into this form by layout operations before and after.
    add, mul  of two broadcast arrays. Tracers write x - y as x + (-y), and x / y as x * (1 / y).
    other     everything else: needs all its operands' values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from .products import Window, convolution, multiply_matrices, padded, spread_out

Array = Any  # numpy.ndarray; a tuple for the value of an operation with several results

SHORT = frozenset(["float16", "bfloat16"])  # dtypes whose rounding is as large as differences of models


FOURIER = {  # a setting of torch's own operation, and what models call where it is false, and where it is true
    "_fft_c2c": ("forward", ("ifft", "fft")),
    "_fft_r2c": ("onesided", ("fft", "rfft")),
    "_fft_c2r": ("", ("irfft", "irfft")),
}
CALLED = {"select_n": "where"}  # primitives of JAX, and the functions that models call for them


class Operation(NamedTuple):
    """What a framework was asked to compute: a name, and settings that are no arrays."""

    name: str
    settings: Mapping[str, Any] = {}

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any]) -> Operation:
        """Take as settings those arguments that are numbers, words, or lists of these."""
        return cls(name, {key: value for key, value in given.items() if _is_plain(value)})

    @property
    def title(self) -> str:
        """Name the operation as code of a model calls it: "rfft" for _fft_r2c of torch."""
        switch, names = FOURIER.get(self.name, ("", ()))
        if names:
            return names[bool(self.settings.get(switch))]
        kind = self.settings.get("fft_type")  # of JAX, where all of them are called fft
        return getattr(kind, "name", "").lower() or CALLED.get(self.name) or self.name.strip("_") or self.name


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else isinstance(value, (int, float, str))


class Node(NamedTuple):
    """One operation.

    Args:
      inputs, output: numbers of values.
      site: the path of the module that called it.
      window: of a convolution; None for other kinds.
      call: as the framework names it, for texts; None where the kind says all.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    run: Callable[..., Array]
    site: str
    window: Window | None = None
    call: Operation | None = None

    @property
    def name(self) -> str:
        """Return what the framework calls it; "" where the kind says all."""
        return self.call.name if self.call else ""

    @property
    def title(self) -> str:
        """Return what code of a model calls it, or else its kind."""
        return self.call.title if self.call else self.kind


class Replacement:
    """Operations in the place of one, in the order in which they are recorded: the last one computes its value.

    Args:
      node: the operation. number: returns a number for a new value.
    """

    def __init__(self, node: Node, number: Callable[[], int]):
        self.number, self._node, self._nodes = number, node, list[Node]()

    @property
    def nodes(self) -> list[Node]:
        """Return the operations."""
        return [*self._nodes[:-1], self._nodes[-1]._replace(output=self._node.output)]

    def record(self, kind: str, inputs: tuple[int, ...], run: Callable[..., Array]) -> int:
        """Append an operation of a kind, and return the number of its result."""
        return self.again(Node(kind, inputs, -1, run, self._node.site), inputs)

    def layout(self, value: int, run: Callable[[Array], Array]) -> int:
        """Append a layout."""
        return self.record("layout", (value,), run)

    def sum(self, values: Sequence[int]) -> int:
        """Append the sums of several values, from the first one on."""
        total = values[0]
        for value in values[1:]:
            total = self.record("add", (total, value), np.add)
        return total

    def again(self, node: Node, inputs: tuple[int, ...]) -> int:
        """Append an operation of the tape, on other values."""
        self._nodes.append(node._replace(inputs=inputs, output=self.number()))
        return self._nodes[-1].output


@dataclass
class Tape:
    """The operations of one run, in order.

    Args:
      parameters: numbers of the parameters' values, by name.
      inputs: numbers of the inputs' values, in order.
      constants: arrays that depend on neither, by number.
      outputs: numbers of the results.
      reads_numbers: whether the model's code took numbers out of values, by `.item()` or to choose a branch.
      complex: whether some of its values are complex numbers.
      lowers: the dtypes of lower precision than float64 in which it computes some of its values. low_site: the module
        where the first of these appears, "" where that is not known.
      low_gradients: whether the framework computes gradients of some operation in lower precision than its result.
      random: numbers of values that are drawn anew in each run, and of constants that are computed from them.
    """

    nodes: list[Node] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    constants: dict[int, Array] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    reads_numbers: bool = False
    lowers: frozenset[str] = frozenset()
    low_site: str = ""
    complex: bool = False
    low_gradients: bool = False
    random: set[int] = field(default_factory=set)
    size: int = 0
    parts: dict[int, Node] = field(default_factory=dict, repr=False)  # layouts of one value, by their output

    def lower(self, dtypes: frozenset[str], site: str) -> None:
        """Note dtypes of lower precision that values have at a site, if any."""
        if dtypes and not self.lowers:
            self.low_site = site
        self.lowers |= dtypes

    def live(self) -> Tape:
        """Return the same without operations on which no output depends."""
        wanted, nodes = set(self.outputs), []
        for node in reversed(self.nodes):
            if node.output in wanted:
                wanted.update(node.inputs)
                nodes.append(node)
        constants = {number: value for number, value in self.constants.items() if number in wanted}
        return replace(self, nodes=nodes[::-1], constants=constants, parts={})

    def until(self, output: int) -> Tape | None:
        """Return the same up to the operation that computes a value, if one does; its outputs are what others read."""
        end = next((k for k, node in enumerate(self.nodes, 1) if node.output == output), None)
        if end is None:
            return None
        behind = {number for node in self.nodes[end:] for number in node.inputs} | {*self.outputs, output}
        made = [node.output for node in self.nodes[:end] if node.output in behind]
        return replace(self, nodes=self.nodes[:end], outputs=made, parts={})

    def rewritten(self, instead: Callable[[int, Node, Replacement], Sequence[Node]]) -> Tape:
        """Return the tape with other operations in the place of some; this one itself where nothing changes.

        Args:
          instead: takes an operation's place, the operation, and what records others; returns what stands in its
            place. A change has at least one new value.
        """
        new = replace(self, parts={})
        new.nodes = [
            other for at, node in enumerate(self.nodes) for other in instead(at, node, Replacement(node, new.number))
        ]
        return self if new.size == self.size else new.live()

    def running(self, instead: Callable[[Node], Callable[..., Array] | None]) -> Tape:
        """Return the tape with other functions in place of those of some operations; this one itself if of none.

        Args:
          instead: takes an operation, and returns its other function; None to leave it as it is.
        """
        others = {node.output: run for node in self.nodes if (run := instead(node)) is not None}
        if not others:
            return self
        return replace(self, nodes=[node._replace(run=others.get(node.output, node.run)) for node in self.nodes])

    def unread(self) -> list[str]:
        """Return the parameters on which no output depends."""
        read = {number for node in self.live().nodes for number in node.inputs} | set(self.outputs)
        return [name for name, number in self.parameters.items() if number not in read]

    def draws(self) -> bool:
        """Tell whether outputs are computed from random numbers, be it without a visible effect, but not times zero."""
        if not self.random:
            return False
        nodes = [node for node in self.nodes if not self._is_zero(node.kind, node.inputs)]
        return replace(self, nodes=nodes).depends(self.outputs, self.random)

    def _is_zero(self, kind: str, inputs: Sequence[int]) -> bool:
        """Tell whether an operation multiplies by a constant of zeros, which is no random one."""
        known = (number for number in inputs if number in self.constants and number not in self.random)
        return kind == "mul" and any(not np.any(self.constants[number]) for number in known)

    def behind(self, values: Collection[int]) -> set[int]:
        """Return some values with all from which they are computed."""
        wanted = set(values)
        for node in reversed(self.nodes):
            if node.output in wanted:
                wanted.update(node.inputs)
        return wanted

    def depends(self, values: Collection[int], on: Collection[int]) -> bool:
        """Tell whether some values are computed from others."""
        return not self.behind(values).isdisjoint(on)

    def is_chained(self, nodes: Collection[Node]) -> bool:
        """Tell whether one of some operations is computed from the result of another one."""
        return self.depends({number for node in nodes for number in node.inputs}, {node.output for node in nodes})

    def number(self) -> int:
        """Return a number for a new value."""
        self.size += 1
        return self.size - 1

    def constant(self, array: Array) -> int:
        number = self.number()
        self.constants[number] = array
        return number

    def record(
        self,
        kind: str,
        inputs: Sequence[int],
        run: Callable[..., Array],
        site: str = "",
        window: Window | None = None,
        call: Operation | None = None,
    ) -> int:
        """Append an operation and return its value's number; one of constants alone is a constant."""
        if all(number in self.constants for number in inputs):
            with np.errstate(all="ignore"):
                result = self.constant(run(*(self.constants[number] for number in inputs)))
            if not self.random.isdisjoint(inputs) and not self._is_zero(kind, inputs):
                self.random.add(result)
            return result
        if kind == "layout" and len(inputs) > 1 and all(number in self.parts for number in inputs):
            parts = [self.parts[number] for number in inputs]
            if len({part.inputs for part in parts}) == 1:  # parts of one value in another order, as of a shift
                return self.record(kind, parts[0].inputs, _rejoined(run, parts), site)
        node = Node(kind, tuple(inputs), self.number(), run, site, window, call)
        if kind == "layout" and len(inputs) == 1:
            self.parts[node.output] = node
        self.nodes.append(node)
        return node.output

    def layout(self, value: int, run: Callable[[Array], Array], site: str = "") -> int:
        return self.record("layout", [value], run, site)

    def product(self, x: int, w: int, site: str = "") -> int:
        """Multiply x[b, rows, k] @ w[b, k, o]."""
        return self.record("product", [x, w], multiply_matrices, site)

    def add(self, x: int, y: int, site: str = "") -> int:
        return self.record("add", [x, y], np.add, site)

    def subtract(self, x: int, y: int, site: str = "") -> int:
        return self.add(x, self.record("other", [y], negative, site), site)

    def multiply(self, x: int, y: int, site: str = "") -> int:
        return self.record("mul", [x, y], np.multiply, site)

    def divide(self, x: int, y: int, site: str = "") -> int:
        return self.multiply(x, self.record("other", [y], _reciprocal, site), site)

    def convolve(
        self,
        x: int,
        w: int,
        stride: Sequence[int],
        padding: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        groups: int,
        spread: Sequence[int] = (),
        site: str = "",
    ) -> int:
        """Convolve x (n, c, *space) with w (o, c / groups, *taps).

        Args:
          spread: distance of the elements of x after zeros were put between them (transposed convolutions).
        """
        spread = tuple(spread) or (1,) * len(tuple(stride))
        if any(p != (0, 0) for p in padding) or any(s != 1 for s in spread):
            call = Operation("zero padding", {"edges": [tuple(edges) for edges in padding]})
            x = self.record("layout", [x], lambda a: padded(spread_out(a, spread), padding), site, call=call)
        window = Window(tuple(stride), tuple(dilation), groups)
        return self.record("product", [x, w], convolution(window), site, window)

    def convolve_transposed(
        self,
        x: int,
        w: int,
        taps: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[tuple[int, int]],
        extra: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        site: str = "",
    ) -> int:
        """Convolve x, spread by its stride, with w (c, o / groups, *taps), whose taps are reversed."""

        def turned(a: Array) -> Array:
            c, o = a.shape[:2]
            a = a.reshape(groups, c // groups, o, *taps).swapaxes(1, 2).reshape(groups * o, c // groups, *taps)
            return np.flip(a, tuple(range(2, a.ndim)))

        reach = [d * (t - 1) for d, t in zip(dilation, taps, strict=True)]
        edges = [(r - a, r - b + e) for r, (a, b), e in zip(reach, padding, extra, strict=True)]
        ones = (1,) * len(reach)
        return self.convolve(x, self.layout(w, turned, site), ones, edges, dilation, groups, stride, site)


def _rejoined(run: Callable[..., Array], parts: Sequence[Node]) -> Callable[[Array], Array]:
    return lambda a: run(*(part.run(a) for part in parts))


def negative(x: Array) -> Array:
    """Return -x; of integers without a sign too, whose numpy.negative is a large one."""
    return np.negative(x.astype(np.float64) if x.dtype.kind == "u" else x)


def _reciprocal(x: Array) -> Array:
    """Return 1 / x; of integers too, whose numpy.reciprocal is an integer."""
    return np.divide(1.0, x)


def identity(value: Array) -> Array:
    """Return a value as it is: the layout that moves nothing."""
    return value


def picked(places: Array) -> Callable[[Array], Array]:
    """Return the layout that takes these elements of a flat array."""
    return lambda a: np.reshape(a, -1)[places]


def elements(shape: Sequence[int]) -> Array:
    """Number the elements of an array, from 1: layouts move the numbers, and put 0 where they put zeros."""
    return np.arange(1.0, math.prod(shape) + 1).reshape(shape)


def spread(array: Array, shape: tuple[int, ...]) -> Array:
    """Return an array broadcast to a shape: itself if it has it, as the view of numpy takes time and is read-only."""
    same = isinstance(array, np.ndarray) and array.shape == shape
    return array if same else np.broadcast_to(array, shape)


def along(values: Array, axis: int, rank: int) -> Array:
    """Return a list of values as an array of a rank that has them along an axis."""
    return np.reshape(values, [-1 if d == axis else 1 for d in range(rank)])


def tried(run: Callable[..., Array], *operands: Array) -> Array | None:
    """Return what a function makes of arrays; None if it refuses them, for which a framework may raise anything."""
    try:
        return np.asarray(run(*operands))
    except Exception:
        return None
