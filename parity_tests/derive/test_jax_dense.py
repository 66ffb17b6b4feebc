"""Test gradients of large JAX kernels, which are formed outside of the program that computes the others."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from parity import Call
from parity.derive.trace import jax_tape
from parity.derive.trace.draws import draw
from parity.derive.trace.jax_values import all_wide
from parity.derive.trace.sides import side

from ..conftest import needs

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
    """Such a kernel stays float32: pieces of it are widened."""
    outputs, gradients, widened = [], [], []
    shape = SHAPES.get(function, (4, 5))
    monkeypatch.setattr("parity.derive.trace.jax_dense.LARGE_MATRIX", 3 * shape[1])  # of the last piece less is left
    monkeypatch.setattr("parity.derive.trace.jax_values.LARGE_DRAW", 2)
    monkeypatch.setattr(jax_tape, "all_wide", lambda copies: widened.append([*copies]) or all_wide(copies))
    for large in (1 << 20, 1):
        monkeypatch.setattr("parity.derive.trace.jax_dense.LARGE_GRADIENT", large)
        of = side((function, {"w": np.ones(shape, "f4"), "b": np.zeros(5, "f4")}), Call(X))
        weights, found = {name: array.astype("f4") for name, array in draw(of, 0).items()}, {}
        of.record(weights, of.call.arrays())
        outputs.append(of.gradients(weights, of.call.arrays(), found.__setitem__).exact[0])
        gradients.append(found)
        assert list(of._kernels) == (FORMED[function] if large == 1 else [])
        assert sorted([*widened[-1], *of._kernels]) == ["b", "w"]
    one, other = gradients
    assert one.keys() == other.keys() == {"w", "b"}
    np.testing.assert_allclose(*outputs, rtol=1e-13)  # sums in another order
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-13, atol=1e-13)
        assert np.abs(one[name]).min() > 0


KINDS = ("w", "b", "mean", "var", "scale", "bias")


def normed(p: Any, x: Any, name: str) -> Any:
    y = (x @ p[f"{name}.w"] + p[f"{name}.b"] - p[f"{name}.mean"]) * jax.lax.rsqrt(p[f"{name}.var"] + 1e-5)
    return jax.nn.relu(y * p[f"{name}.scale"] + p[f"{name}.bias"])


def largest(p: Any, x: Any) -> Any:
    return normed(p, normed(p, x, "a"), "b").max(1) @ p["o"]


def test_gradients_of_a_maximum_over_points_are_those_of_a_program_that_is_optimised(monkeypatch):
    """At XLA's level 0 they are not: the largest value is compared with values that were rounded otherwise."""
    params = {"o": np.ones((10, 4), "f4")}
    for name, (i, o) in {"a": (3, 6), "b": (6, 10)}.items():
        params |= {f"{name}.{kind}": np.ones((i, o) if kind == "w" else o, "f4") for kind in KINDS}
    x, found = np.random.default_rng(0).standard_normal((2, 9, 3)), []
    for options in (jax_tape.QUICK_GRADIENTS, {"xla_backend_optimization_level": 3}):
        monkeypatch.setattr(jax_tape, "QUICK_GRADIENTS", options)
        of = side((largest, params), Call(x))
        weights, gradients = draw(of, 0), {}
        of.record(weights, of.call.arrays())
        of.gradients(weights, of.call.arrays(), gradients.__setitem__)
        found.append(gradients)
    for name in params:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-10, atol=1e-12)  # sums in another order


LSTM = """
import jax, numpy as np
from flax import nnx
from parity import Call
from parity.derive.trace import jax_tape
from parity.derive.trace.draws import draw
from parity.derive.trace.sides import side

def cell():
    return nnx.RNN(nnx.OptimizedLSTMCell(6, 6, param_dtype=np.float64, rngs=nnx.Rngs(0)))

class Model(nnx.Module):
    def __init__(self):
        self.r, self.o = nnx.Bidirectional(cell(), cell()), nnx.Linear(12, 5, rngs=nnx.Rngs(0))
    def __call__(self, x):
        return self.o(self.r(x))

found = []
for jax_tape.QUICK_GRADIENTS in (jax_tape.QUICK_GRADIENTS, {"xla_backend_optimization_level": 3}):
    with jax.enable_x64(True):
        of = side(Model(), Call(np.random.default_rng(0).standard_normal((2, 9, 6))))
    weights, gradients = draw(of, 0), {}
    of.record(weights, of.call.arrays())
    of.gradients(weights, of.call.arrays(), gradients.__setitem__)
    found.append(gradients)
print(max(np.abs(found[0][name] - found[1][name]).max() for name in weights))
"""


def test_gradients_of_an_lstm_in_both_directions_are_those_of_a_program_that_is_optimised():
    """At XLA's level 1 they are not; in a process of its own, since the tests' XLA_FLAGS hide it."""
    needs("flax")
    plain = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run([sys.executable, "-c", LSTM], env=plain, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 1e-12  # rounding of sums in another order
