"""Apply operations to symbols: functions of parameters alone are delayed until these meet an activation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, spread

from .symbols import Pending, Symbol, moved


def layout(program: Program, node: Node, operands: list[Any]) -> Symbol:
    """Return a layout of symbols, and of constants beside them."""

    def numbers(number: int, v: Any) -> Array:
        if isinstance(v, Symbol):
            return v.ids
        return v if number in program.indices else np.zeros(np.shape(v), dtype)

    symbols = [v for v in operands if isinstance(v, Symbol)]
    dtype = next((s.ids.dtype for s in symbols if s.ids is not None), np.dtype(float))
    ids = None
    if all(s.ids is not None for s in symbols):
        ids = moved(node.run, *(numbers(n, v) for n, v in zip(node.inputs, operands, strict=True)))
    parts: tuple[Symbol, ...] = ()
    if len(symbols) == 1 and symbols[0].parts:

        def run(array: Array) -> Array:
            return node.run(*(array if isinstance(v, Symbol) else v for v in operands))

        parts = tuple(part.moved(run) for part in symbols[0].parts)
    plain = all(s.plain for s in symbols)
    leaves = () if plain and ids is not None else tuple(r for s in symbols for r in s.roots())
    values = [v.value if isinstance(v, Symbol) else v for v in operands]  # not the symbols, which have large numbers
    out = Symbol(
        ids, lambda: node.run(*(v() if callable(v) else v for v in values)), plain, symbols[0].join, parts, leaves
    )
    reads = node.output in program.active and not program.active.intersection(
        n for n, v in zip(node.inputs, operands, strict=True) if isinstance(v, Symbol)
    )
    whole = out if reads and plain else symbols[0].whole if len(symbols) == 1 else None
    return replace(out, whole=whole)


def is_sum_beside_symbols(operands: list[Any], indices: list[bool]) -> bool:
    """Tell whether one operand is a sum and the others are parameters, as class tokens beside patches.

    Args:
      indices: which operands are indices.
    """
    sums = [v for v in operands if isinstance(v, Pending)]
    others = [v for v, index in zip(operands, indices, strict=True) if not index and not isinstance(v, Pending)]
    return len(sums) == 1 and sums[0].kind == "add" and all(map(_is_plain, others))


def pending_layout(program: Program, node: Node, operands: list[Any], bare: Mapping[int, Array]) -> Pending:
    """Return a product or sum after a layout operation, which may read indices, and other values, beside it.

    Args:
      bare: see bare().
    """
    pending = next(v for v in operands if isinstance(v, Pending))
    shape = np.broadcast_shapes(np.shape(pending.x), *(np.shape(part.symbol.numbers) for part in pending.parts))

    def run(array: Array, others: bool = False) -> Array:
        """Run the operation, with zeros for other values unless these are wanted."""
        values = list[Array]()
        for number, v in zip(node.inputs, operands, strict=True):
            known = others or number in program.indices
            values.append(spread(array, shape) if v is pending else v if known else np.zeros(np.shape(v)))
        return node.run(*values)

    parts = tuple(part._replace(symbol=part.symbol.moved(run)) for part in pending.parts)
    numbers = bare.get(node.output) if pending.bare is None else run(pending.bare)
    return Pending(pending.kind, run(pending.x, True), parts, numbers)


def bare(program: Program, node: Node, operands: list[Any], known: Mapping[int, Array]) -> Array | None:
    """Return the numbers of the elements that a layout puts beside other values, unchanged; None if there are none.

    An example is a class token that is put before patches: a position that is added to it is added to a parameter.

    Args:
      known: the same of other values.
    """
    plain = [_is_plain(v) for v in operands]
    active = [  # an index says where others stand, and stands nowhere itself
        n in program.active and n not in program.indices and not own for n, own in zip(node.inputs, plain, strict=True)
    ]
    if node.kind != "layout" or not ((any(plain) and any(active)) or any(n in known for n in node.inputs)):
        return None
    numbers = [
        v.ids if own else known.get(n, program.indices.get(n, np.zeros(program.shapes[n])))
        for n, v, own in zip(node.inputs, operands, plain, strict=True)
    ]
    return moved(node.run, *numbers)


def _is_plain(v: Any) -> bool:
    return isinstance(v, Symbol) and v.plain and v.ids is not None


def combined(program: Program, node: Node, operands: list[Any]) -> Symbol:
    """Return a function of symbols and constants."""
    symbols = [v for v in operands if isinstance(v, Symbol)]
    shape = program.shapes[node.output]
    if len(symbols) == 1 and node.kind in ("add", "mul") and neutral(node, operands):
        return symbols[0].moved(lambda array: np.broadcast_to(array, shape))
    leaves = _distinct(r for s in symbols for r in s.roots())

    def spread(symbol: Symbol) -> Symbol:
        if symbol.ids is None or np.shape(symbol.ids) == shape:
            return symbol
        return symbol.moved(lambda array: np.broadcast_to(array, shape))

    def value() -> Array:
        return node.run(*(computed(v) if isinstance(v, Symbol) else v for v in operands))

    if node.kind in ("add", "mul"):
        parts = tuple(spread(part) for s in symbols for part in s.split(node.kind))
        ids = spread(max(symbols, key=_extent)).ids
        if len(parts) > 1:
            return Symbol(ids, value, False, node.kind, parts, leaves)
        return Symbol(ids, value, False, leaves=leaves)
    ids = next((s.ids for s in symbols if s.ids is not None and np.shape(s.ids) == shape), None)
    return Symbol(ids, value, False, leaves=leaves)


def _distinct(symbols: Iterable[Symbol]) -> tuple[Symbol, ...]:
    """Return symbols, each once: two that have the same elements in the same places are one, however laid out before.

    So a function that reads one parameter several times, as logaddexp(p, 0) does, depends on one symbol.
    """
    found = list[Symbol]()
    for symbol in symbols:
        if not any(symbol is other or _equal(symbol, other) for other in found):
            found.append(symbol)
    return tuple(found)


def _equal(one: Symbol, other: Symbol) -> bool:
    """Tell whether two symbols are the same elements in the same places."""
    return (
        _is_plain(one) and _is_plain(other) and one.whole is other.whole and np.array_equal(one.numbers, other.numbers)
    )


def _extent(symbol: Symbol) -> int:
    """Return how many elements a symbol has: the others are repeated along axes of the largest one."""
    return 0 if symbol.ids is None else symbol.ids.size


def neutral(node: Node, operands: list[Any]) -> bool:
    """Tell whether the operands that are no symbols are zeros of a sum or ones of a product."""
    identity = 0 if node.kind == "add" else 1
    return all((np.asarray(v) == identity).all() for v in operands if not isinstance(v, Symbol))


def computed(symbol: Symbol) -> Array:
    """Return the value of a symbol: numbers in float64; comparisons and indices as they are."""
    value = np.asarray(symbol.value())
    return value if value.dtype.kind in "biuc" else value.astype(np.float64, copy=False)
