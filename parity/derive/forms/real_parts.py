"""Write complex numbers of a tape as pairs of real ones, whichever way a model writes them.

One model reads a complex filter from two real arrays, another one from the last axis of one array; one multiplies by it
as a complex number, another one part by part. Written as pairs, all of these are products and sums of real arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.derive.trace.tape import Array, Node, Tape, identity, negative

JOINED = frozenset(["complex"])  # of two real arrays
PAIRED = frozenset(["view_as_complex", "as_complex"])  # of the last axis of one
SPLIT = frozenset(["view_as_real", "as_real"])
PART = {"real": 0, "imag": 1}
CAST = frozenset(["convert_element_type", "_to_copy", "cast"])
CONJUGATE = frozenset(["conj", "_conj", "_conj_physical", "conj_physical"])
BY_PART = frozenset(["neg", "negative", "sum", "reduce_sum", "mean", "cumsum"])  # alike on both parts


class Parts(NamedTuple):
    """The numbers of the values of the real and the imaginary part; None for one that is zero."""

    real: int | None
    imaginary: int | None


def in_real_parts(tape: Tape, parameters: Mapping[str, Array], inputs: Sequence[Array]) -> Tape:
    """Return the tape with pairs of real numbers in place of complex ones; itself where it has none.

    Args:
      parameters, inputs: values to run the tape with, which shows which values are complex.
    """
    return _Writer(tape, parameters, inputs).tape if tape.complex else tape


class _Writer:
    def __init__(self, tape: Tape, parameters: Mapping[str, Array], inputs: Sequence[Array]):
        tape = tape.live()
        self.tape = replace(tape, nodes=[], constants=dict(tape.constants), parts={})
        self.parts: dict[int, Parts] = {}
        self.values = {**tape.constants, **dict(zip(tape.inputs, inputs, strict=True))}
        self.values |= {number: parameters[name] for name, number in tape.parameters.items()}
        for number, value in tape.constants.items():
            if _is_complex(value):
                self.parts[number] = self._of_constant(value)
        for number in tape.inputs:
            if _is_complex(self.values[number]):
                self.parts[number] = Parts(*(self.tape.record("other", [number], part) for part in (np.real, np.imag)))
        with np.errstate(all="ignore"):
            for node in tape.nodes:
                self._write(node)
        self.tape.outputs = [self._whole(number) for number in tape.outputs]
        self.tape = self.tape.live()

    def _write(self, node: Node) -> None:
        value = self.values[node.output] = node.run(*(self.values[number] for number in node.inputs))
        self.node, self.shape = node, np.shape(value) if not isinstance(value, tuple) else ()
        complex_inputs = any(number in self.parts for number in node.inputs)
        if _is_complex(value):
            self.parts[node.output] = self._complex()
        elif complex_inputs:
            self._alias(self._real(), node)
        else:
            self.tape.nodes.append(node)

    def _complex(self) -> Parts:
        """Return the parts of an operation's complex result."""
        node, name = self.node, self.node.name
        if node.kind == "layout":
            return Parts(*(self._moved(part) for part in (0, 1)))
        if node.kind == "add":
            return Parts(*(self._sum(*self._operands(part)) for part in (0, 1)))
        if node.kind in ("mul", "product"):
            (a, b), (c, d) = (self._pair(number) for number in node.inputs)
            real = self._sum(self._product(a, c), self._negative(self._product(b, d)))
            return Parts(real, self._sum(self._product(a, d), self._product(b, c)))
        if name in JOINED:
            return Parts(*map(self._spread, node.inputs))
        if name in PAIRED:
            return Parts(*(self._layout(node.inputs, lambda a, k=k: a[..., k]) for k in (0, 1)))
        if name in CAST:
            return self._pair(node.inputs[0])
        if name in CONJUGATE:
            real, imaginary = self._pair(node.inputs[0])
            return Parts(real, self._negative(imaginary))
        if name == "exp":
            return self._exponential()
        if (name in BY_PART or node.run in (negative, np.negative)) and len(node.inputs) == 1:
            parts = self._pair(node.inputs[0])
            return Parts(*(part if part is None else self._record("other", [part], node.run) for part in parts))
        return Parts(self._joined(lambda z: z.real), self._joined(lambda z: z.imag))

    def _real(self) -> int:
        """Return the real result of an operation on complex numbers."""
        node, name = self.node, self.node.name
        if name in PART:
            part = self._pair(node.inputs[0])[PART[name]]
            return self._zeros(self.shape) if part is None else part
        if name in SPLIT:
            zeros = self._zeros(self.shape[:-1])
            both = [zeros if part is None else part for part in self._pair(node.inputs[0])]
            return self._record("layout", both, lambda *parts: np.stack(parts, -1))
        return self._joined(lambda value: value)

    def _exponential(self) -> Parts:
        real, angle = self._pair(self.node.inputs[0])
        scale = None if real is None else self._other([real], np.exp)
        if angle is None:
            return Parts(scale, None)
        turns = (self._other([angle], function) for function in (np.cos, np.sin))
        return Parts(*(turn if scale is None else self._record("mul", [scale, turn], np.multiply) for turn in turns))

    def _pair(self, number: int) -> Parts:
        return self.parts.get(number, Parts(number, None))

    def _operands(self, part: int) -> Iterator[int | None]:
        return (self._pair(number)[part] for number in self.node.inputs)

    def _moved(self, part: int) -> int | None:
        """Return one part of a layout's result; where some operands have none, zeros stand for these."""
        floats = [np.asarray(self.values[number]).dtype.kind in "fc" for number in self.node.inputs]
        own = [self._pair(n)[part] if is_float else n for n, is_float in zip(self.node.inputs, floats, strict=True)]
        if all(number is None for number, is_float in zip(own, floats, strict=True) if is_float):
            return None
        shapes = (np.shape(self.values[number]) for number in self.node.inputs)
        given = [self._zeros(s) if n is None else n for n, s in zip(own, shapes, strict=True)]
        return self.tape.record("layout", given, self.node.run, self.node.site, call=self.node.call)

    def _sum(self, x: int | None, y: int | None) -> int | None:
        if x is None or y is None:
            one = y if x is None else x
            return None if one is None else self._spread(one)
        return self._record("add", [x, y], np.add)

    def _product(self, x: int | None, y: int | None) -> int | None:
        if x is None or y is None:
            return None
        node = self.node
        return self.tape.record(node.kind, [x, y], node.run, node.site, node.window, node.call)

    def _negative(self, x: int | None) -> int | None:
        return None if x is None else self._other([x], np.negative)

    def _joined(self, function: Callable[[Array], Array]) -> int:
        """Record the operation itself on complex numbers joined from their parts, and what is taken of its result."""
        node, pairs = self.node, [self.parts.get(number) for number in self.node.inputs]
        given = [
            part
            for number, pair in zip(node.inputs, pairs, strict=True)
            for part in pair or (number,)
            if part is not None
        ]

        def run(*arrays: Array) -> Array:
            rest = iter(arrays)
            operands = [
                next(rest) if pair is None else _complex(*(None if part is None else next(rest) for part in pair))
                for pair in pairs
            ]
            return function(node.run(*operands))

        return self.tape.record("other", given, run, node.site, call=node.call)

    def _whole(self, number: int) -> int:
        """Return the number of a value as the model returns it."""
        parts = self.parts.get(number)
        if parts is None:
            return number
        given = [part for part in parts if part is not None]
        at = [None if part is None else given.index(part) for part in parts]
        return self.tape.record("other", given, lambda *a: _complex(*(None if k is None else a[k] for k in at)))

    def _of_constant(self, value: Array) -> Parts:
        real, imaginary = (np.array(part) for part in (value.real, value.imag))
        turned = not real.any() and imaginary.any()
        return Parts(
            None if turned else self.tape.constant(real), self.tape.constant(imaginary) if imaginary.any() else None
        )

    def _zeros(self, shape: Sequence[int]) -> int:
        return self.tape.constant(np.zeros(shape))

    def _spread(self, number: int) -> int:
        shape = self.shape
        return self._layout([number], lambda a: np.broadcast_to(a, shape))

    def _layout(self, inputs: Sequence[int], run: Callable[..., Array]) -> int:
        return self._record("layout", inputs, run)

    def _other(self, inputs: Sequence[int], run: Callable[..., Array]) -> int:
        return self._record("other", inputs, run)

    def _record(self, kind: str, inputs: Sequence[int], run: Callable[..., Array]) -> int:
        return self.tape.record(kind, inputs, run, self.node.site)

    def _alias(self, number: int, node: Node) -> None:
        """Give an operation's result the number that later ones read."""
        self.tape.nodes.append(Node("layout", (number,), node.output, identity, node.site))


def _is_complex(value: Array) -> bool:
    return not isinstance(value, tuple) and np.asarray(value).dtype.kind == "c"


def _complex(real: Array | None, imaginary: Array | None) -> Array:
    """Return complex numbers of two parts; 1j * infinity would be no number in its real part."""
    parts = [np.zeros(()) if part is None else part for part in (real, imaginary)]
    out = np.zeros(np.broadcast_shapes(*map(np.shape, parts)), np.complex128)
    out.real, out.imag = parts
    return out
