"""The ports' networks with their spec hidden: one pair of frameworks each, with scrambled names on the JAX side."""

from __future__ import annotations

import pytest

import specs
from benchmarks.ports import PAIRS, derived, smallest

from ..conftest import needs_port

MANY = 20  # layers
COMPILED = [pair for pair in PAIRS if "flax" in pair]


@pytest.mark.parametrize("architecture", specs.names())
def test_a_port_is_derived_from_another(architecture: str):
    """`python -m benchmarks.ports` tries all pairs of frameworks; here each architecture has one of them.

    Networks of many layers have the pair without linen, whose gradients take seconds to compile.
    """
    spec, config = specs.get(architecture), smallest(architecture)
    many = len(list(spec.layers(config))) > MANY
    pair = ("torch", "paddle") if many else COMPILED[specs.names().index(architecture) % 2]
    for framework in pair:
        needs_port(architecture, framework)
    found = derived(architecture, config, pair)
    assert found.proven and not found.missing, (found.failure, found.reasons, found.divergences)
