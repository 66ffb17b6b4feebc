"""Models that draw random numbers in evaluation, though hardly ever with an effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
SAID = "equal for the random numbers of two runs alone: the left model draws new ones in each call"


def net(function: Any) -> Net:
    return Net(lambda m, x: m.b(function(m.a(x)).tanh()), a=linear(), b=linear(6, 3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * (torch.rand(len(x), 1) > 1e-9),
        lambda x: x * x.new_empty(len(x), 1).bernoulli_(1 - 1e-9),
        lambda x: torch.nn.functional.dropout(x, 1e-9, True),
        lambda x: x + 1e-15 * torch.randn_like(x),
        lambda x: x + (torch.rand(x.shape) > 1) * torch.randn_like(x),  # times zeros that are drawn
    ],
    ids=["compared", "in place", "dropout", "noise", "times drawn zeros"],
)
def test_random_numbers_that_do_not_show_prove_nothing(function: Any):
    found = parity.derive(net(function), net(lambda x: x), (images(3, 6),))
    assert not found.proven and found.error < 1e-8 and found.incomparable == SAID
    assert "is active in evaluation" in found.following
    again = parity.derive(net(lambda x: x), net(function), (images(3, 6),))
    assert again.incomparable == SAID.replace("left", "right")


def unread(x: Any) -> Any:
    torch.rand(3)
    return x


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.nn.functional.dropout(x, 0.0, True),
        lambda x: x * x.new_empty(len(x), 1).bernoulli_(1.0),
        unread,
        lambda x: x + 0.0 * torch.randn_like(x),
        lambda x: x + torch.zeros(()) * torch.randn(x.shape),
    ],
    ids=["dropout of 0", "a chance of 1", "unread", "times 0", "times zeros"],
)
def test_random_numbers_that_no_output_reads_and_sure_ones_are_no_difference(function: Any):
    assert parity.derive(net(function), net(lambda x: x), (images(3, 6),)).proven


@pytest.mark.parametrize("share", [0.0, 1e-9])
def test_random_numbers_of_paddle_are_found(share: float):
    paddle = pytest.importorskip("paddle")

    class Dropping(paddle.nn.Layer):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = paddle.nn.Linear(6, 6), paddle.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            x = self.a(x)
            x = x * (paddle.rand([len(x), 1]) > share).astype(x.dtype) if share else x
            return self.b(paddle.tanh(x))

    found = parity.derive(net(lambda x: x), Dropping(), (images(3, 6),))
    assert found.proven == (not share)
    assert found.incomparable == (SAID.replace("left", "right") if share else "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_numbers_of_jax_are_those_of_their_dtype(dtype: str):
    jax = pytest.importorskip("jax")

    def model(seed: int, share: float = 1.0) -> Any:
        def run(p: Any, x: Any) -> Any:
            drawn = jax.random.truncated_normal(jax.random.key(seed), -2, 2, (len(x), 6), dtype)
            return (x @ p["a"] + share * drawn.astype(x.dtype)) @ p["b"]

        return run, {"a": np.ones((6, 6)), "b": np.ones((6, 3))}

    plain = Net(lambda m, x: m.b(m.a(x)), a=linear(bias=False), b=linear(6, 3, bias=False))
    assert parity.derive(plain, model(0, share=0.0), (images(3, 6),)).proven
    assert parity.derive(model(0), model(0), (images(3, 6),)).proven
    assert not parity.derive(model(0), model(1), (images(3, 6),)).proven
