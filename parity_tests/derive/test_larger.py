"""Models that differ with larger weights alone, though no operation is a limit by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear
from .test_unreached import net

torch = pytest.importorskip("torch")
X = images(4, 6)
SAID = "equal only with the weights of the proof: with others, 4 times as large, they differ by"


def plain(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - (x - 9).relu(),
        lambda x: torch.where(x - 9 > 0, 0 * x, x),
        lambda x: torch.where(x > torch.arange(9.0, 15.0), 0 * x, x),
        lambda x: torch.fmod(x, 20.0),
        lambda x: torch.logit(torch.sigmoid(x), eps=1e-5),
        lambda x: 2 * x if x.norm() > 60 else x,
        lambda x: 2 * x if (x > 9).any() else x,
    ],
    ids=["sum", "shifted", "several", "remainder", "logit", "branch", "any"],
)
def test_a_limit_without_a_name_is_found(function: Any):
    for pair in ((function, plain), (plain, function)):
        found = parity.derive(*map(net, pair), (X,))
        assert not found.proven and found.error < 1e-12 and found.incomparable.startswith(SAID), found
        assert found.following.startswith("run both models on converted weights")


def test_a_limit_of_paddle_without_a_name_is_found():
    needs("paddle")
    import paddle

    class Model(paddle.nn.Layer):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = paddle.nn.Linear(6, 6), paddle.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            x = self.a(x)
            return self.b(paddle.where(x - 9 > 0, 0 * x, x))

    assert parity.derive(net(plain), Model(), (X,)).incomparable.startswith(SAID)


def attention(low: float) -> Any:
    def attend(x: Any) -> Any:
        mask = torch.ones(4, 4).tril() > 0
        return (-x @ x.mT).masked_fill(~mask, low).softmax(-1) @ x

    return attend


def waves(function: Any) -> Net:
    """Return a model of layers that magnify rounding by their weights."""
    layers = {name: linear() for name in "abcdef"}

    def run(m: Any, x: Any) -> Any:
        x = x.tanh()
        for name in layers:
            x = function(10 * getattr(m, name)(x))
        return x

    return Net(run, **layers)


def saturated(x: Any) -> Any:
    """Add a rounded tanh, which frameworks compute as 1 or as the number before it where x is large."""
    return x + (3.5 * x.tanh()).round()


def quotient(x: Any) -> Any:
    """Return tanh(x), but the number before 1 in place of 1."""
    return x.tanh().clamp(max=1 - 2**-53)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (net(lambda x: 30 * x), net(lambda x: (30 * x).clamp(-2e4, 2e4))),
        (net(attention(-1e9)), net(attention(-1e4))),
        (net(attention(-torch.inf)), net(attention(-1e9))),
        (net(lambda x: (1 + x.exp()).log()), net(lambda x: torch.logaddexp(x, 0 * x))),
        (waves(torch.sin), waves(lambda x: 2 * (x / 2).sin() * (x / 2).cos())),
        (net(saturated), net(lambda x: x + (3.5 * quotient(x)).round())),
        (net(lambda x: x + (3.5 + 3.5 * x.tanh()).floor()), net(lambda x: x + (3.5 + 3.5 * quotient(x)).floor())),
        (net(lambda x: x * (x.tanh() >= 1)), net(lambda x: x * (quotient(x) >= 1))),
    ],
    ids=["guard", "masks", "infinite mask", "overflow", "rounding", "rounded", "floor", "compared"],
)
def test_guards_and_rounding_that_weights_magnify_are_no_difference(left: Net, right: Net):
    found = parity.derive(left, right, (X,))
    assert found.proven, found


@pytest.mark.parametrize(
    "other",
    [
        lambda x: saturated(x - (x - 9).relu()),
        lambda x: saturated(x) * (x < 9.5),
        lambda x: x + (3.5 * quotient(x) - 1e-6).round(),
        lambda x: x + (3.5 * x.tanh()).round() if x.max() < 9 else x,
    ],
    ids=["limit", "comparison", "another jump", "branch"],
)
def test_what_differs_beside_a_rounded_value_is_found(other: Any):
    found = parity.derive(net(saturated), net(other), (X,))
    assert not found.proven and "equal only" in found.incomparable, found


def test_models_that_choose_by_values_are_not_run_with_larger_weights():
    """Saturated values are all alike, and frameworks choose others of them."""

    def first(last: bool) -> Any:
        def gated(x: Any) -> Any:
            x = x / 8
            gates = torch.sigmoid(x)
            best = (gates.flip(-1) if last else gates).argmax(-1, keepdim=True)
            return x * torch.nn.functional.one_hot(5 - best if last else best, 6).squeeze(-2)

        return gated

    assert parity.derive(net(first(True)), net(first(False)), (np.abs(X),)).proven
