"""A comparison leaves no trace: images, modes, gradients, random numbers and settings are as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
import ports
import specs
from parity.given.own import wrap
from ports.runners.records import Optimizer

torch = pytest.importorskip("torch", reason="torch is not installed")

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 7, 6))
CHECKS = ["forward", "layers", "gradients", "train"]


class InPlace(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        return self.head(x.mul_(0.5).sub_(1.0) if not x.requires_grad else x)


class Torch(torch.nn.Module):
    """One BatchNorm, called twice, once by keyword, then dropout."""

    def __init__(self, momentum: float | None = 0.1) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm = torch.nn.BatchNorm2d(3, momentum=momentum)
        self.drop = torch.nn.Dropout(0.25)
        self.head = torch.nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.drop(self.norm(input=self.norm(x) * 2 + 1)))


class Cached(Torch):
    """Keeps what the first call made."""

    held: Any = None

    def forward(self, x: Any) -> Any:
        self.held = torch.linspace(1, 2, 6, dtype=x.dtype) if self.held is None else self.held
        return self.head(x * self.held)


@pytest.mark.parametrize("check", CHECKS)
def test_a_model_that_works_in_place_leaves_the_images_alone(check: str) -> None:
    model, images = InPlace().double(), IMAGES.copy()
    assert parity.compare({"a": model, "b": model}, images, check, steps=2).passed
    np.testing.assert_array_equal(images, IMAGES)


@pytest.mark.parametrize("check", CHECKS)
def test_a_torch_model_keeps_its_modes_gradients_and_random_numbers(check: str) -> None:
    model = Torch().double().train()
    model.norm.eval()
    model(torch.from_numpy(IMAGES)).sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state()
    parity.compare({"a": model, "b": model}, IMAGES, check, steps=2)
    assert [m.training for m in (model, model.norm, model.head)] == [True, False, True]
    assert all(torch.equal(p.grad, grads[name]) for name, p in model.named_parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_torch_model_may_keep_tensors_and_frozen_parameters() -> None:
    model = Cached().double()
    model.head.bias.requires_grad_(False)
    for check in CHECKS:
        assert parity.compare({"a": model, "b": model}, IMAGES, check, steps=2).passed
    model(torch.from_numpy(IMAGES)).sum().backward()
    assert model.head.weight.grad is not None


@pytest.mark.parametrize("check", CHECKS)
def test_a_paddle_model_keeps_its_modes_gradients_and_random_numbers(check: str) -> None:
    paddle = pytest.importorskip("paddle", reason="paddle is not installed")
    model = paddle.nn.Sequential(paddle.nn.Linear(6, 4), paddle.nn.Dropout(0.25), paddle.nn.Linear(4, 2))
    model.to(dtype="float64")
    model.train()
    model[1].eval()
    model[0](paddle.to_tensor(IMAGES)).sum().backward()  # the last layer has no gradients
    grads = [None if p.grad is None else p.grad.numpy() for p in model.parameters()]
    paddle.seed(7)
    drawn = paddle.rand([3]).numpy()
    paddle.seed(7)
    parity.compare({"a": model, "b": model}, IMAGES, check, steps=2)
    assert [layer.training for layer in model.sublayers(include_self=True)] == [True, True, False, True]
    assert (
        [p.grad is None for p in model.parameters()] == [grad is None for grad in grads] == [False, False, True, True]
    )
    assert all(
        grad is None or (p.grad.numpy() == grad).all() for p, grad in zip(model.parameters(), grads, strict=True)
    )
    np.testing.assert_array_equal(paddle.rand([3]).numpy(), drawn)


def test_building_a_paddle_port_draws_nothing() -> None:
    paddle = pytest.importorskip("paddle", reason="paddle is not installed")
    paddle.seed(7)
    drawn = paddle.rand([3]).numpy()
    paddle.seed(7)
    ports.build("convmixer", specs.get("convmixer").tiny["even"], "paddle", init="random")
    np.testing.assert_array_equal(paddle.rand([3]).numpy(), drawn)


def test_float64_of_jax_is_off_again() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        module = nn.Dense(4)
        model = (module, module.init(jax.random.key(0), IMAGES[:1, 0]))
        assert parity.compare({"a": model, "b": model}, IMAGES[:, 0]).passed
        assert not jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("momentum", [0.25, None])
def test_running_variances_are_biased_call_by_call(momentum: float | None) -> None:
    """A BatchNorm that runs twice a step, at a rate of learning of 0, against numpy."""
    model = Torch(momentum).double()
    model.drop.p = 0.0
    batches, variance, calls = [IMAGES, 2 * IMAGES], np.ones(3), 0
    made = wrap(model, IMAGES).train(batches, Optimizer(name="sgd", rate=0.0, decay=0.0))
    for x in batches:
        normed = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        for seen in (x, 2 * normed + 1):
            calls += 1
            share = momentum or 1 / calls
            variance = (1 - share) * variance + share * seen.var((0, 2, 3))
    np.testing.assert_allclose(made.statistics["norm.running_var"], variance, rtol=1e-13)  # rounding of four calls
