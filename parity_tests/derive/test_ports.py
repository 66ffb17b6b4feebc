"""The ports' networks with their spec hidden: one pair of frameworks each, with scrambled names on the JAX side."""

from __future__ import annotations

import pytest

import specs
from benchmarks.ports import PAIRS, derived, smallest

from ..conftest import needs


@pytest.mark.parametrize("architecture", specs.names())
def test_a_port_is_derived_from_another(architecture: str):
    """`python -m benchmarks.ports` tries all pairs of frameworks; here each architecture has one of them in turn."""
    pair = PAIRS[specs.names().index(architecture) % len(PAIRS)]
    for framework in pair:
        needs(framework)
    found = derived(architecture, smallest(architecture), pair)
    assert found.proven and not found.missing, (found.failure, found.reasons, found.divergences)
