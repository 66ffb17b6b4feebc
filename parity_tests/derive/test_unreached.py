"""Limits that no value of the proof reaches are not called equal, unless larger values show that they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from specs.numbers import short

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
Function = Callable[[Any], Any]
relu, relu6 = torch.nn.functional.relu, torch.nn.functional.relu6
gelu, softplus = torch.nn.functional.gelu, torch.nn.functional.softplus


def net(function: Function) -> Net:
    return Net(lambda m, x: m.b(function(m.a(x))), a=linear(), b=linear(6, 3))


def hard(x: Any) -> Any:
    return torch.nn.functional.hardswish(x)


def length(x: Any) -> Any:
    return x.norm(dim=-1, keepdim=True)


def cosine(x: Any) -> Any:
    return x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (relu6, relu, "6 on the left"),
        (relu, lambda x: relu(x).clamp(max=20), "20 on the right"),
        (lambda x: x.clamp(-5, 5), lambda x: x, "5 and -5 on the left"),
        (relu, lambda x: torch.where(x > 7, 0 * x + 7, relu(x)), "7 on the right"),
        (lambda x: torch.where(x <= -12, x, gelu(x)), gelu, "-12 on the left"),
        (torch.tanh, lambda x: torch.where(x.abs() < 30, x.tanh(), 0 * x), "30 on the right"),
        (softplus, lambda x: softplus(x, threshold=5), "5 on the right"),
        (relu, lambda x: torch.minimum(relu(x), torch.arange(20.0, 26.0)), "20 to 25 on the right"),
        (relu, lambda x: relu(x) * (50 / length(x)).clamp(max=1), "1 on the right"),
        (relu, lambda x: relu(x) / (length(x) / 50).clamp(min=1), "1 on the right"),
        (relu, lambda x: torch.where(50 / length(x) > 1, relu(x), 0 * x), "1 on the right"),
    ],
)
def test_a_limit_of_one_side_is_named_though_no_value_reaches_it(left: Function, right: Function, said: str):
    found = parity.derive(net(left), net(right), (images(4, 6),))
    assert not found.proven and not found.missing and found.error < 1e-12, found
    assert f"until values pass a limit that one side alone has: {said}, at the model's own" in str(found), found
    assert found.following == "give both models the same limits; then derive again"


def test_all_modules_with_a_limit_are_listed():
    """Which of them larger values pass is chance, so that they are not counted as places that differ are."""

    def blocks(function: type[torch.nn.Module]) -> torch.nn.Module:
        return torch.nn.Sequential(*(torch.nn.Sequential(linear(6), function()) for _ in range(3)))

    found = parity.derive(blocks(torch.nn.ReLU6), blocks(torch.nn.ReLU), (images(4, 6),))
    assert found.incomparable.endswith("a limit that one side alone has: 6 on the left, at {0..2}.1"), found


def test_outputs_that_differ_are_said_to_differ_beside_their_limits():
    jax = pytest.importorskip("jax")

    def clipped(low: float, high: float) -> tuple[Any, Any]:
        def forward(params: Any, x: Any) -> Any:
            for w in params[:-1]:
                x = jax.numpy.clip(x @ w, low, high)
            return x @ params[-1]

        return forward, [*images(3, 6, 6), images(6, 2)]

    found = parity.derive(clipped(-0.5, 0.3), clipped(-1, 0.6), (images(4, 6),))
    differ = f"outputs differ by {short(found.error)} of their largest element, and are equal only until values pass"
    assert found.error > 0.01 and differ in str(found), found


@pytest.mark.parametrize("limit", [20.0, 50.0, -20.0, -50.0])
def test_a_limit_is_found_on_either_side_of_zero_though_the_draw_lies_on_one(limit: float):
    """Two examples have two sums, which may both be negative: larger ones then never come near a limit above zero."""

    def left(m: Any, x: Any) -> Any:
        total = x.sum(-1, keepdim=True)
        passed = total > limit if limit > 0 else total < limit
        return m.b(torch.where(passed, 0.0, m.a(x)))

    found = parity.derive(
        Net(left, a=linear(8), b=linear()), Net(lambda m, x: m.b(m.a(x)), a=linear(8), b=linear()), (images(2, 8),)
    )
    assert not found.proven and f"alone has: {limit:.0f} on the left" in str(found), found


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (relu6, relu6),
        (relu6, lambda x: torch.where(x > 6, 6.0, relu(x))),
        (relu, lambda x: relu(x).clamp(max=1e30)),
        (cosine, lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)),
        (cosine, lambda x: cosine(x).clamp(-1.5, 1.5)),
        (hard, lambda x: x * relu6(x + 3) / 6),
        (torch.nn.functional.hardsigmoid, lambda x: relu6(x + 3) / 6),
        (softplus, lambda x: torch.logaddexp(x, 0 * x)),
        (softplus, lambda x: torch.where(x > 30, x, (1 + x.exp()).log())),
        (torch.tanh, lambda x: torch.where(x.abs() > 40, x.sign(), x.tanh())),
    ],
)
def test_limits_that_both_sides_have_or_that_no_value_can_pass_are_no_difference(left: Function, right: Function):
    assert parity.derive(net(left), net(right), (images(4, 6),)).proven


def chained(function: Function) -> Net:
    """Return a model of four layers, with the function between them."""
    layers = {"a": linear(6, 8), "b": linear(8, 8), "c": linear(8, 8), "d": linear(8, 3)}
    return Net(lambda m, x: m.d(function(m.c(function(m.b(function(m.a(x))))))), **layers)


@pytest.mark.parametrize(("seed", "limit"), [(1, 2.25), (1, 3.25), (2, 3.25)])
def test_limits_behind_one_another_are_named_together(seed: int, limit: float):
    """Values pass one limit only where those before it are taken away: all of them are why outputs differ."""
    inputs = np.random.default_rng(seed).normal(size=(4, 6))
    found = parity.derive(chained(relu), chained(lambda x: x.clamp(0, limit)), (inputs,))
    assert not found.proven and not found.missing, found
    assert f"a limit that one side alone has: {limit} on the right" in str(found), found


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_limit_that_a_cause_names_is_named_once(framework: str):
    """The matching's weights may reach it, where those of the proof do not: then recomputing shows it as well."""
    needs(framework)
    right = net(lambda x: x * relu(x + 3) / 6)
    left = net(hard) if framework == "torch" else of_paddle()
    found = parity.derive(left, right, (images(4, 6),))
    assert not found.proven and not found.missing and found.error < 1e-12, found
    assert found.following == "give both models the same limits; then derive again"
    limit = "equal only until values pass a limit that one side alone has"
    if found.divergences:
        assert found.incomparable == limit and "ReLU6 on the left, ReLU on the right (recomputed" in str(found), found
    else:
        assert found.incomparable == f"{limit}: 6 on the left, at the model's own function", found


def of_paddle() -> Any:
    import paddle

    class Layer(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = paddle.nn.Linear(6, 6), paddle.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            return self.b(paddle.nn.functional.hardswish(self.a(x)))

    return Layer()


def test_hardswish_of_paddle_is_that_of_torch():
    needs("paddle")
    assert parity.derive(net(hard), of_paddle(), (3 * images(4, 6),)).proven
    assert parity.derive(of_paddle(), net(lambda x: x * relu6(x + 3) / 6), (3 * images(4, 6),)).proven


def test_a_limit_of_jax_is_named():
    needs("flax")
    import jax

    def run(p: Any, x: Any) -> Any:
        return jax.nn.relu6(x @ p["a"]["w"] + p["a"]["b"]) @ p["b"]["w"] + p["b"]["b"]

    shapes = {"a": {"w": (6, 6), "b": (6,)}, "b": {"w": (6, 3), "b": (3,)}}
    tree = jax.tree.map(np.ones, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    assert "6 on the right" in parity.derive(net(relu), (run, tree), (images(4, 6),)).incomparable
    assert parity.derive(net(relu6), (run, tree), (images(4, 6),)).proven
