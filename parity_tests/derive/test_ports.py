"""The ports' networks with their spec hidden: each pair of frameworks, with scrambled names on the JAX side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
import specs

from ..conftest import needs, tiny

PAIRS = [("torch", "flax"), ("torch", "paddle"), ("paddle", "flax")]
ARCHITECTURES = ["mlp_mixer"]


def scrambled(module: Any, variables: Any) -> Any:
    """The network as a function of arrays that are called w0, w1, ... in an order of their own."""
    from flax.traverse_util import flatten_dict, unflatten_dict

    flat = flatten_dict(variables, sep="/")
    order = np.random.default_rng(0).permutation(len(flat))
    names = {f"w{k}": name for k, name in zip(order, flat, strict=True)}

    def network(arrays: Any, x: Any) -> Any:
        return module.apply(unflatten_dict({names[key]: a for key, a in arrays.items()}, sep="/"), x)

    return network, {key: flat[names[key]] for key in sorted(names)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_port_is_derived_from_another(architecture: str, pair: tuple[str, str]):
    for framework in pair:
        needs(framework)
    spec = specs.get(architecture)
    name = next(iter(spec.tiny))
    left, right = (tiny(architecture, name, framework).model for framework in pair)
    right = scrambled(*right) if pair[1] == "flax" else right
    x = np.random.default_rng(0).standard_normal((2, *spec.input_shape(spec.tiny[name])))
    found = parity.derive(left, right, (x,))
    assert found.proven and not found.missing, (found.failure, found.reasons, found.divergences)
