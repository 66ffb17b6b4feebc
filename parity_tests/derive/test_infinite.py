"""Infinite outputs, as masked logits, and gradients that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.trace.outputs import difference, incomparable
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear

INFINITE = float("inf")


def masked(value: float = -INFINITE, ahead: int = 0, added: bool = False) -> Net:
    def forward(m: Any, x: Any) -> Any:
        y = m.head(m.up(x).tanh())
        hidden = torch.arange(5) > torch.arange(6)[:, None] + ahead
        return y + torch.where(hidden, value, 0.0) if added else y.masked_fill(hidden, value)

    return Net(forward, up=linear(8, 8), head=linear(8, 5))


def test_equal_infinities_at_equal_places_are_equal():
    found = parity.derive(masked(), masked(added=True), (images(2, 6, 8),))
    assert found.proven and found.error <= 1e-15 and found.gradient is not None and found.gradient <= 1e-12


@pytest.mark.parametrize(("right", "where", "cause"), [
    (masked(INFINITE), "20 of 60 places on the right; the first that differs is [0, 0, 1] with -inf and inf",
     "masked places get -inf on the left, inf on the right"),
    (masked(-1e9), "0 of 60 places on the right; the first that differs is [0, 0, 1] with -inf and -1e9",
     "masked places get -inf on the left, -1e9 on the right"),
    (masked(ahead=1), "12 of 60 places on the right; the first that differs is [0, 0, 1] with -inf and ",
     "a mask hides 10 of 30 places on the left, 6 on the right; the first that differs is [0, 1]"),
])  # fmt: skip
def test_other_infinities_are_a_difference_that_is_said_with_its_cause(right: Net, where: str, cause: str):
    found = parity.derive(masked(), right, (images(2, 6, 8),))
    assert not found.proven and not found.missing
    assert f"infinite in 20 of 60 places on the left, {where}" in found.outputs
    assert [place.cause for place in found.divergences] == [f"{cause} (recomputed so, they are equal)"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (masked(ahead=-9), "infinite everywhere, which shows nothing"),
        (masked(float("nan")), "those on the left have NaN, which is equal to nothing"),
    ],
)
def test_what_shows_nothing_is_not_proven(model: Net, why: str):
    found = parity.derive(model, model, (images(2, 6, 8),))
    assert not found.proven and not np.isfinite(found.error)
    assert found.outputs == f"outputs not comparable, {why}" and found.following


def test_other_elements_are_compared_beside_infinities():
    a = np.array([-INFINITE, INFINITE, 2.0, 1.0])
    b = np.array([-INFINITE, INFINITE, 2.0, 1.001])
    assert difference([a], [a]) == 0 and difference([a], [b]) == pytest.approx(5e-4)
    assert difference([a], [-a]) == INFINITE and "with -inf and inf" in incomparable([a], [-a])


def test_masked_logits_of_jax_and_of_paddle_are_proven():
    needs("flax")
    needs("paddle")
    import jax.numpy as jnp
    import paddle

    hidden = np.arange(5) > np.arange(6)[:, None]
    rng = np.random.default_rng(0)
    params = {"a": {"w": rng.standard_normal((8, 8)), "b": rng.standard_normal(8)},
              "b": {"w": rng.standard_normal((8, 5)), "b": rng.standard_normal(5)}}  # fmt: skip

    def in_jax(params: Any, x: Any) -> Any:
        y = jnp.tanh(x @ params["a"]["w"] + params["a"]["b"]) @ params["b"]["w"] + params["b"]["b"]
        return jnp.where(hidden, -jnp.inf, y)

    class Layer(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = paddle.nn.Linear(8, 8), paddle.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            return paddle.masked_fill(self.b(paddle.tanh(self.a(x))), paddle.to_tensor(hidden), -INFINITE)

    for right in ((in_jax, params), Layer()):
        found = parity.derive(masked(), right, (images(2, 6, 8),))
        assert found.proven and found.gradient is not None and found.gradient <= 1e-12, str(found)


def rooted(safe: bool) -> Net:
    """Square values and take the root: its gradient is NaN where a value is zero."""
    cut = torch.relu if safe else lambda y: ((y * (y > 0)) ** 2).sqrt()
    return Net(lambda m, x: m.head(cut(m.up(x))), up=linear(8, 8), head=linear(8, 5))


@pytest.mark.parametrize("safe", [(True, False), (False, True)], ids=["right", "left"])
def test_gradients_that_one_side_alone_lacks_are_a_difference(safe: tuple[bool, bool]):
    found = parity.derive(*map(rooted, safe), (images(2, 6, 8),))
    assert not found.proven and found.to_dict()["gradient"] is None
    assert found.outputs == (
        "outputs are equal, but gradients differ: those of up.weight and up.bias are NaN or infinite in one model alone"
    )


def test_gradients_that_neither_side_has_are_not_called_equal():
    found = parity.derive(rooted(False), rooted(False), (images(2, 6, 8),))
    assert found.proven and found.gradient is None
    assert str(found).startswith("proven by outputs alone: ")
    assert "not compared: those of up.weight and up.bias are NaN or infinite in both models" in str(found)
