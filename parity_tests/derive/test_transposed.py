"""A square matrix that one model uses transposed is a valid line, and is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import parity
from parity.derive.findings.remarks import remarks

from ..conftest import needs
from .pairs import images


class Net(torch.nn.Module):
    """Layers around a square matrix, which is used as it lies or transposed; the last layer may be square too."""

    def __init__(self, turned: bool, out: int = 5) -> None:
        super().__init__()
        self.first, self.q, self.up = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, out)
        self.turned = turned

    def forward(self, x: Any) -> Any:
        x = torch.tanh(self.first(x))
        return self.up(torch.tanh(x @ self.q.weight + self.q.bias if self.turned else self.q(x)))


@pytest.mark.parametrize("out", [5, 6])
@pytest.mark.parametrize(("left", "right"), [(False, True), (True, False), (True, True), (False, False)])
def test_a_square_matrix_that_one_side_uses_transposed_is_named(left: bool, right: bool, out: int):
    found = parity.derive(Net(left, out), Net(right, out), (images(4, 6),))
    assert found.proven and found.transposed == ["q.weight"] * (left != right)
    remark = "axes in an unusual order: q.weight: the matrices are square, so that weights in the usual order would fit"
    assert (remark in str(found)) == (f"# {remark}" in found.table.print()) == (left != right)


@pytest.mark.parametrize("turned", [False, True])
def test_between_frameworks_that_store_the_axes_otherwise_the_exchange_is_usual(turned: bool):
    needs("flax")
    import jax
    import jax.numpy as jnp

    def forward(params: Any, x: Any) -> Any:
        for w, b in params:
            x = jnp.tanh(x @ w + b)
        return x

    class Tanh(Net):
        def forward(self, x: Any) -> Any:
            return torch.tanh(super().forward(x))

    params = [(jax.random.normal(jax.random.key(k), (6, 6)), jnp.zeros(6)) for k in range(3)]
    found = parity.derive(Tanh(turned, 6), (forward, params), (images(4, 6),))
    assert found.proven and found.transposed == ["1/0"] * turned, found


def test_a_matrix_in_an_unusual_order_is_named_ahead_of_all_other_remarks():
    """Ahead of what a proof does not cover, as the bias of a key."""
    found = parity.derive(Net(False, 5), Net(True, 5), (images(4, 6),))
    first, *others = remarks(replace(found, unobservable=["q.bias"]))
    assert first.text.startswith("axes in an unusual order: q.weight")
    assert any(one.text.startswith("unobservable") for one in others)
