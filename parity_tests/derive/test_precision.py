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
