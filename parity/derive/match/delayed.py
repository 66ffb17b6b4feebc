"""Apply operations to symbols: functions of parameters alone are delayed until these meet an activation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..trace.program import Program
from ..trace.tape import Array, Node
from .symbols import Symbol, moved


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
    out = Symbol(ids, lambda: node.run(*map(value_of, operands)), plain, symbols[0].join, parts, leaves)
    reads = node.output in program.active and not program.active.intersection(
        n for n, v in zip(node.inputs, operands, strict=True) if isinstance(v, Symbol)
    )
    whole = out if reads and plain else symbols[0].whole if len(symbols) == 1 else None
    return replace(out, whole=whole)


def combined(program: Program, node: Node, operands: list[Any]) -> Symbol:
    """Return a function of symbols and constants."""
    symbols = [v for v in operands if isinstance(v, Symbol)]
    shape = program.shapes[node.output]
    if len(symbols) == 1 and node.kind in ("add", "mul") and neutral(node, operands):
        return symbols[0].moved(lambda array: np.broadcast_to(array, shape))
    leaves = tuple({id(r): r for s in symbols for r in s.roots()}.values())

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


def value_of(v: Any) -> Array:
    return v.value() if isinstance(v, Symbol) else v
