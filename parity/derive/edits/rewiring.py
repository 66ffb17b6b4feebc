"""Yield changes of how a side is composed that may make it equal to the other one: norms, sums and parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from parity.derive.trace.program import Program

from .activated_sums import moved_activations
from .affine import exchanged, without_chains
from .edit import Edit
from .gates import behind_products
from .norms import norm_edits, retaken
from .reduced_norms import behind_reductions
from .sums import without_terms


def rewirings(
    programs: Sequence[Program], firsts: Sequence[int], alone: Sequence[Collection[str]] | None = None
) -> Iterator[Edit]:
    """Yield edits of the norms, sums and parameters that follow certain operations.

    Args:
      firsts: on each side, the operation from which on the sides may differ.
      alone: of each side, the parameters without a partner, if that is known: no others are left out.
    """
    may = [program.tape.parameters.keys() if alone is None else alone[k] for k, program in enumerate(programs)]
    for side in (0, 1):
        yield from norm_edits(programs[side], firsts[side], side, may[side])
    yield from without_terms(programs, firsts)
    yield from moved_activations(programs, firsts)
    for side in (0, 1):
        yield from retaken(programs[side], firsts[side], side)
        yield from behind_reductions(programs[side], firsts[side], side)
        yield from exchanged(programs[side], firsts[side], side)
        yield from behind_products(programs[side], firsts[side], side)
        yield from without_chains(programs[side], firsts[side], side, may[side])
