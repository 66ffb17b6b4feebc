"""Yield changes of how a side is composed that may make it equal to the other one: norms, sums and parameters."""

from __future__ import annotations

from collections.abc import Iterator

from .activated_sums import moved_activations
from .affine import exchanged, without_chains
from .edit import Edit, Scope
from .gates import behind_products, complemented
from .norms import norm_edits, retaken
from .reduced_norms import behind_reductions
from .sums import beside_terms, earlier_terms, without_terms


def rewirings(scope: Scope) -> Iterator[Edit]:
    """Yield edits of the norms, sums and parameters that follow certain operations."""
    programs, firsts, may = scope.programs, scope.firsts, scope.alone
    for side in (0, 1):
        yield from norm_edits(scope, side)
    yield from without_terms(scope)
    yield from moved_activations(scope)
    for side in (0, 1):
        yield from beside_terms(scope, side)
        yield from earlier_terms(scope, side)
        yield from complemented(scope, side)
        yield from retaken(scope, side)
        yield from behind_reductions(programs[side], firsts[side], side)
        yield from exchanged(scope, side)
        yield from behind_products(programs[side], firsts[side], side)
        yield from without_chains(programs[side], firsts[side], side, may[side])
