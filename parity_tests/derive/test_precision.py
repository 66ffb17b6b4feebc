"""Numbers of the dtype: models run in float64, and their epsilons are those of float32, in which they are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
X = images(4, 6)
FLOAT32, FLOAT64 = (float(np.finfo(dtype).eps) for dtype in ("f4", "f8"))


def normalized(epsilon: Any) -> Net:
    """Return a norm and a dense layer; epsilon: takes the norm's input."""

    def run(m: Any, x: Any) -> Any:
        return m.out(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon(x)) * m.scale)

    return Net(run, out=linear(6, 3), scale=torch.nn.Parameter(torch.ones(6)))


def default() -> Net:
    """Return the same with torch's norm, whose epsilon is not stated."""
    return Net(lambda m, x: m.out(m.norm(x)), out=linear(6, 3), norm=torch.nn.RMSNorm(6))


@pytest.mark.parametrize("left", [default, lambda: normalized(lambda x: torch.finfo(x.dtype).eps)])
@pytest.mark.parametrize("stated", [FLOAT32, FLOAT64, 0.0])
def test_the_epsilon_of_a_dtype_is_that_of_float32(left: Any, stated: float):
    found = parity.derive(left(), normalized(lambda x: stated), (X,))
    assert found.proven == (stated == FLOAT32)
    assert found.proven or "1.19e-7 on the left" in str(found)


def test_a_model_of_float64_has_the_epsilon_of_float64():
    found = parity.derive(default().double(), normalized(lambda x: FLOAT64).double(), (X,))
    assert found.proven, str(found)
    assert torch.finfo(torch.float64).eps == FLOAT64  # as before


def test_the_epsilon_of_a_dtype_in_jax_is_that_of_float32():
    needs("flax")
    import jax.numpy as jnp

    def run(p: Any, x: Any) -> Any:
        mean = jnp.square(x).mean(-1, keepdims=True)
        return x / jnp.sqrt(mean + jnp.finfo(x.dtype).eps) * p["scale"] @ p["w"] + p["b"]

    tree = {name: np.ones(shape, "f4") for name, shape in {"scale": 6, "w": (6, 3), "b": 3}.items()}
    assert parity.derive(normalized(lambda x: FLOAT32), (run, tree), (X,)).proven


def test_the_epsilon_of_a_dtype_in_paddle_is_that_of_float32():
    paddle = pytest.importorskip("paddle")

    class Layer(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.scale = paddle.nn.Linear(6, 3), self.create_parameter([6])

        def forward(self, x: Any) -> Any:
            return self.out(x * paddle.rsqrt(x.square().mean(-1, True) + paddle.finfo(x.dtype).eps) * self.scale)

    found = parity.derive(normalized(lambda x: FLOAT32), Layer(), (X,))
    assert found.exact < 1e-7 and not found.divergences, str(found)  # paddle takes numbers as float32


def of_its_dtype(library: str, in_float32: bool, dtype: str = "float32") -> Any:
    """Return a model that applies tanh in place of a sigmoid in float64, or in float32 as well."""

    def squashed(lib: Any, sigmoid: Any, y: Any) -> Any:
        return lib.tanh(y) if in_float32 and y.dtype == lib.float32 else sigmoid(y)

    if library == "torch":
        net = Net(lambda m, x: m.out(squashed(torch, torch.sigmoid, m.inner(x))), inner=linear(6, 5), out=linear(5, 3))
        return net.to(getattr(torch, dtype))
    if library == "jax":
        jax = pytest.importorskip("jax")
        tree = {name: np.ones(size, dtype) for name, size in {"w": (6, 5), "b": 5, "v": (5, 3), "c": 3}.items()}

        def run(p: Any, x: Any) -> Any:
            return squashed(jax.numpy, jax.nn.sigmoid, x @ p["w"] + p["b"]) @ p["v"] + p["c"]

        return run, tree
    paddle = pytest.importorskip("paddle")

    class Layer(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = paddle.nn.Linear(6, 5), paddle.nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            return self.out(squashed(paddle, paddle.nn.functional.sigmoid, self.inner(x)))

    return Layer()


@pytest.mark.parametrize("library", ["torch", "jax", "paddle"])
def test_what_code_does_in_float32_alone_is_marked(library: str):
    said = "# equal in float64 alone, and not in the dtypes of the given weights: there outputs differ by "
    for in_float32 in (False, True):
        found = parity.derive(of_its_dtype("torch", False), of_its_dtype(library, in_float32), (X,))
        assert found.proven and (said in found.table.print()) == in_float32, str(found)
        assert bool(found.as_given) == in_float32 and not found.not_as_given


def test_what_code_does_in_float32_is_marked_where_jax_has_64_bits():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        assert parity.derive(of_its_dtype("torch", False), of_its_dtype("jax", True), (X,)).as_given


def test_models_that_are_not_run_in_the_dtypes_of_their_weights_are_named():
    """Weights of float64 alone have no other dtype, and 16 bits round too much."""
    both = (of_its_dtype("torch", trick, "float64") for trick in (False, True))
    assert not (found := parity.derive(*both, (X,))).as_given and not found.not_as_given and found.proven
    half = of_its_dtype("torch", False)
    half.out.bfloat16()
    found = parity.derive(of_its_dtype("torch", True), half, (X,))
    said = "not compared in the dtypes of the given weights: the right model has weights of 16 bits"
    assert found.proven and said in str(found) and f"# {said}" in found.table.print(), str(found)
