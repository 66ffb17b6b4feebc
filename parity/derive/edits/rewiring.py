"""Yield changes of how a side is composed that may make it equal to the other one: norms, sums and parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .activated_sums import moved_activations
from .affine import exchanged, without_chains
from .edit import Edit, Scope
from .gates import behind_products, combined, complemented, without_gates
from .layers import without_layers
from .norms import norm_edits, retaken, without_repeated_norms
from .positions import without_positions
from .reduced_norms import behind_reductions
from .shortcuts import without_shortcuts
from .sums import beside_terms, earlier_terms, without_terms


def rewirings(scope: Scope, near_alone: bool = False) -> Iterator[Edit]:
    """Yield edits of the norms, sums and parameters that follow certain operations. Args: near_alone: of sums."""
    for side in (0, 1):
        yield from without_positions(scope, side)
    for side in (0, 1):
        yield from without_shortcuts(scope, side)
    for side in (0, 1):
        yield from without_layers(scope, side)
    for side in (0, 1):
        yield from norm_edits(scope, side)
    yield from without_terms(scope, near_alone)
    yield from moved_activations(scope)
    yield from combined(scope)
    of_one_side = (
        beside_terms, earlier_terms, complemented, retaken, behind_reductions, exchanged, behind_products,
        without_chains, without_repeated_norms, without_gates,
    )  # fmt: skip  # in the order in which they are tried
    for side, edits in itertools.product((0, 1), of_one_side):
        yield from edits(scope, side)
