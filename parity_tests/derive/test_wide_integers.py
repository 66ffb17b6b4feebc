"""Integers of more than 32 bits, which JAX has in the proof alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .test_kinds_matching import Net, linear

torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
TOKENS = np.array([[2, 0, 5, 1], [4, 3, 0, 2]])


def models(hashed: Any) -> tuple[Any, Any]:
    """Return a model of torch and one of JAX that read the rows of a table which a hash of tokens tells."""
    left = Net(lambda m, ids: m.b(m.a(hashed(ids) % 9)), a=torch.nn.Embedding(9, 6), b=linear(6, 3))
    tree = {"a": np.ones((9, 6), np.float32), "b": np.ones((6, 3), np.float32), "c": np.ones(3, np.float32)}
    return left, (lambda p, ids: jax.numpy.asarray(p["a"])[hashed(ids) % 9] @ p["b"] + p["c"], tree)


@pytest.mark.parametrize(("factor", "wide"), [(1_000_003, False), (1_000_000_007, True), (-1_000_000_007, True)])
def test_a_hash_that_passes_32_bits_is_no_proof(factor: int, wide: bool):
    def hashed(ids: Any) -> Any:
        return ids * factor

    said = "equal only with integers of 64 bits: JAX has 32, and those of the right model pass them"
    with jax.enable_x64(False):  # whatever other tests have set
        found = parity.derive(*models(hashed), (TOKENS,))
    assert found.proven != wide and found.incomparable == (said if wide else "")
    left, _ = models(hashed)
    assert parity.derive(left, left, (TOKENS,)).proven  # torch has 64
    with jax.enable_x64(True):
        assert parity.derive(*models(hashed), (TOKENS,)).proven


def test_the_largest_integer_of_a_dtype_is_none_of_the_models():
    def run(p: Any, ids: Any) -> Any:
        jnp = jax.numpy
        least = jnp.where(ids > 0, ids, jnp.iinfo(ids.dtype).max).min(-1, keepdims=True)
        return jnp.asarray(p["a"])[jnp.minimum(ids, least)] @ p["b"] + p["c"]

    def left(m: Any, ids: Any) -> Any:
        least = torch.where(ids > 0, ids, torch.iinfo(ids.dtype).max).amin(-1, keepdim=True)
        return m.b(m.a(torch.minimum(ids, least)))

    _, (_, tree) = models(None)
    pair = Net(left, a=torch.nn.Embedding(9, 6), b=linear(6, 3)), (run, tree)
    assert parity.derive(*pair, (TOKENS,)).proven
