"""Models that draw random numbers otherwise than through dropout: what differs by chance is no divergence."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import parity
from parity.running.recording import precision_kept

torch = pytest.importorskip("torch", reason="torch is not installed")
X = np.random.default_rng(0).standard_normal((64, 6))  # rows enough that no two masks are equal by chance


class Torch(torch.nn.Module):
    """A dense layer, and a stochastic depth that calls no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(6, 6, dtype=torch.float64)

    def forward(self, x: Any) -> Any:
        y = self.dense(x)
        return y * torch.bernoulli(torch.full((len(y), 1), 0.5, dtype=y.dtype)) if self.training else y


def paddle_twin(model: Any) -> Any:
    paddle = pytest.importorskip("paddle", reason="paddle is not installed")

    class Paddle(paddle.nn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = paddle.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            y = self.dense(x)
            return y * paddle.bernoulli(paddle.full((len(y), 1), 0.5, dtype=y.dtype)) if self.training else y

    made = Paddle().to(dtype="float64")
    made.dense.weight.set_value(model.dense.weight.detach().numpy().T)
    made.dense.bias.set_value(model.dense.bias.detach().numpy())
    return made


def flax_twin(model: Any) -> Any:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    import jax

    class Linen(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            y = nn.Dense(6, name="dense", param_dtype="float64")(x)
            return y * jax.random.bernoulli(self.make_rng("dropout"), 0.5, (len(y), 1)) if train else y

    kernel, bias = model.dense.weight.detach().numpy().T, model.dense.bias.detach().numpy()
    with jax.enable_x64(True):
        return Linen(), {"params": {"dense": {"kernel": jax.numpy.asarray(kernel), "bias": jax.numpy.asarray(bias)}}}


@pytest.mark.parametrize("twin", [paddle_twin, flax_twin])
def test_chance_is_no_divergence(twin: Any) -> None:
    model = Torch()
    pair = {"a": model, "b": twin(model)}
    (row,) = parity.compare(pair, X, "gradients")
    assert (row.passed, row.first_divergence) == (None, None)
    assert row.cause.startswith("the outputs of a and b depend on random numbers in training, beside dropout")
    assert parity.compare(pair, X, "layers").passed
    with torch.no_grad():
        model.dense.bias[0] += 1e-6
    assert parity.compare(pair, X, "layers").first_divergence == "dense"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("noise", [torch.randn_like, lambda y: torch.nn.functional.dropout(y, 0.5, True)])
def test_agreement_by_the_same_random_numbers_is_none(dtype: str, noise: Any) -> None:
    """Each run begins with the same random numbers: a model agrees with its copy."""

    class Noisy(Torch):
        def forward(self, x: Any) -> Any:
            y = self.dense(x)
            return y + noise(y)

    model, plain = Noisy(), Torch()
    plain.load_state_dict(model.state_dict())
    for other in (model, plain):
        (row,) = parity.compare({"a": model, "b": other}, X, dtype=dtype)
        assert row.passed is None
        assert "depend on random numbers in evaluation mode" in row.cause


def test_a_linen_model_that_draws_agrees_with_nothing() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    import jax

    class Linen(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(6, name="dense")(x) + jax.random.normal(jax.random.key(0), x.shape)

    model = Linen(), {"params": {"dense": {"kernel": jax.numpy.ones((6, 6)), "bias": jax.numpy.ones(6)}}}
    (row,) = parity.compare({"a": model, "b": model}, X, dtype="float64")
    assert row.passed is None and row.cause.endswith("what agrees may be chance")


def test_dropout_is_not_judged_by_its_masks_alone() -> None:
    """Masks that fit do not stand for steps that were not judged."""
    made = torch.nn.Sequential(torch.nn.Dropout(0.5), Torch())
    other = torch.nn.Sequential(torch.nn.Dropout(0.5), Torch())
    (row,) = parity.compare({"a": made, "b": other}, np.ones((64, 6)), "train", steps=1)
    assert row.passed is None


@pytest.mark.parametrize("draws", [False, True])
def test_jax_draws_random_numbers_by_its_primitives_and_not_by_names(draws: bool) -> None:
    """A function called random_bits draws nothing; a branch that draws is found inside an equation."""
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    import jax

    @jax.jit
    def random_bits(y: Any) -> Any:
        return y + 1

    class Linen(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            y = nn.Dense(6, use_bias=False, name="dense", param_dtype="float64")(x)
            if not draws:
                return random_bits(y)
            return jax.lax.cond(y[0, 0] > -1e9, lambda: jax.random.normal(jax.random.key(0), y.shape), lambda: y)

    model = torch.nn.Linear(6, 6, bias=False, dtype=torch.float64)
    with jax.enable_x64(True):
        kernel = jax.numpy.asarray(model.weight.detach().numpy().T)
    pair = {"a": model, "b": (Linen(), {"params": {"dense": {"kernel": kernel}}})}
    (row,) = parity.compare(pair, X, "gradients")
    assert row.passed is (None if draws else False)


def scanned(kernels: Any) -> Any:
    """Build a linen module of two dense layers in a scan, whose constants take jax's default dtype."""
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    import jax.numpy as jnp

    class Body(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(4, use_bias=False, name="d")(x) * jnp.cos(jnp.arange(4) / 7), None

    class Linen(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.scan(Body, variable_axes={"params": 0}, length=2)(name="b")(x)[0]

    return Linen(), {"params": {"b": {"d": {"kernel": jnp.asarray(kernels)}}}}


def test_float32_scans_that_differ_are_compared_in_their_own_dtype() -> None:
    """The float64 twin of the first model turns jax's float64 mode on, in which this scan cannot be traced."""
    kernels = np.random.default_rng(0).standard_normal((2, 4, 4)).astype("float32")
    models = {"a": scanned(kernels), "b": scanned(1.1 * kernels)}
    import jax

    with precision_kept():
        jax.config.update("jax_enable_x64", False)  # which other tests turn on
        (row,) = parity.compare(models, X[:3, :4].astype("float32"))
    assert (row.passed, row.cause) == (False, "")


def test_a_model_that_cannot_run_again_differs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> bool:
        raise TypeError("no")

    models = {name: torch.nn.Linear(6, 6, dtype=torch.float64) for name in "ab"}
    monkeypatch.setattr(importlib.import_module("ports.runners.torch").Runner, "is_random", fail)
    (row,) = parity.compare(models, X)
    assert row.passed is False
    assert "whether a draws random numbers is unknown: TypeError: no" in row.cause
