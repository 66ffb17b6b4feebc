"""Find the products whose results reach an operation, or a value."""

from __future__ import annotations

from collections.abc import Collection

from .program import Program

INPUT = -1  # in place of a product, where an input of the model reaches a value


def sources(program: Program, at: int, products: Collection[int]) -> frozenset[int]:
    """Return the products whose results reach an operation, and INPUT where an input of the model does.

    Args:
      at: the operation. products: those at which the way back ends.
    """
    return way_back(program, at, products)[0]


def made_of(program: Program, number: int, products: Collection[int]) -> frozenset[int]:
    """Return the products whose results a value is made of."""
    maker = program.makers.get(number, INPUT)
    is_end = maker == INPUT or maker in products
    return (frozenset([maker]) if is_end else sources(program, maker, products)) - {INPUT}


def way_back(program: Program, at: int, products: Collection[int]) -> tuple[frozenset[int], set[int]]:
    """Return (the products whose results reach an operation, as `sources` does; the operations that lie between)."""
    found, between, done, waiting = set[int](), set[int](), set[int](), list(program.tape.nodes[at].inputs)
    while waiting:
        number = waiting.pop()
        if number in done or number not in program.active:
            continue
        done.add(number)
        made = program.makers.get(number, INPUT)
        if made == INPUT or made in products:
            found.add(made)
        else:
            between.add(made)
            waiting += program.tape.nodes[made].inputs
    return frozenset(found), between
