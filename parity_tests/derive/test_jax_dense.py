"""Test gradients of large JAX kernels, which are formed outside of the program that computes the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity import Call
from parity.derive.trace.draws import draw
from parity.derive.trace.sides import side

jax = pytest.importorskip("jax")
jnp = jax.numpy

X = np.random.default_rng(0).standard_normal((2, 3, 4))


def plain(p: Any, x: Any) -> Any:
    return jnp.tanh(x @ p["w"] + p["b"])


def turned(p: Any, x: Any) -> Any:  # the kernel's second axis is contracted, and the input's middle one
    return jnp.einsum("nki,ok->nio", x, p["w"]) + p["b"]


def rounded(p: Any, x: Any) -> Any:
    return (x.astype("float32") @ p["w"].astype("float32")).astype("float64") * p["b"]


def shared(p: Any, x: Any) -> Any:
    return x @ p["w"] + jnp.tanh(x) @ p["w"] + p["b"]


def inner(p: Any, x: Any) -> Any:
    return jax.jit(lambda w: x @ w)(p["w"]) + p["b"]


FORMED = {plain: ["w"], turned: ["w"], rounded: ["w"], shared: [], inner: []}
SHAPES = {turned: (5, 3)}


@pytest.mark.parametrize("function", FORMED, ids=lambda function: function.__name__)
def test_the_gradient_of_a_kernel_is_the_same_formed_from_that_of_its_product(function, monkeypatch):
    outputs, gradients = [], []
    shape = SHAPES.get(function, (4, 5))
    for large in (1 << 20, 1):
        monkeypatch.setattr("parity.derive.trace.jax_dense.LARGE_GRADIENT", large)
        of = side((function, {"w": np.ones(shape, "f4"), "b": np.zeros(5, "f4")}), Call(X))
        weights, found = draw(of, 0), {}
        of.record(weights, of.call.arrays())
        outputs.append(of.gradients(weights, of.call.arrays(), found.__setitem__).exact[0])
        gradients.append(found)
        assert list(of._kernels) == (FORMED[function] if large == 1 else [])
    one, other = gradients
    assert one.keys() == other.keys() == {"w", "b"}
    np.testing.assert_allclose(*outputs, rtol=1e-13)  # sums in another order
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-13, atol=1e-13)
        assert np.abs(one[name]).min() > 0
