"""Test gradients of large paddle matrices, which are found as products of two small ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity import Call
from parity.derive.trace.draws import draw
from parity.derive.trace.outer import Outer
from parity.derive.trace.sides import side

paddle = pytest.importorskip("paddle")
nn = paddle.nn

X = np.random.default_rng(0).standard_normal((2, 3, 4))


class Plain(nn.Layer):
    """Two linear layers, the first without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias_attr=False), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return nn.functional.gelu(self.second(paddle.tanh(self.first(x))))


class Shared(Plain):
    """A weight that two layers read."""

    def forward(self, x: Any) -> Any:
        return self.second(paddle.tanh(self.first(x))) + self.first(x)


class Read(Plain):
    """A weight that is read by itself as well."""

    def forward(self, x: Any) -> Any:
        return self.second(paddle.tanh(self.first(x))) * self.first.weight.sum()


class Cut(Plain):
    """A layer whose input has no gradient."""

    def forward(self, x: Any) -> Any:
        return self.second(paddle.tanh(self.first(x.detach())))


class Unread(Plain):
    """A weight that is read without an effect on the outputs."""

    def forward(self, x: Any) -> Any:
        return self.second(x) + 0 * paddle.floor(self.first(x)).detach()


PRODUCTS = {
    Plain: {"first.weight", "second.weight"},
    Shared: {"second.weight"},
    Read: {"second.weight"},
    Cut: {"second.weight"},
    Unread: {"second.weight"},
}


@pytest.mark.parametrize("model", PRODUCTS)
def test_the_gradient_of_a_weight_that_one_layer_reads_is_a_product(model, monkeypatch):
    of = side(model(), Call(X[:1, :1]))  # one row: a product takes less memory than the matrix
    weights, found = draw(of, 0), []
    for large in (1 << 20, 1):
        monkeypatch.setattr("parity.derive.trace.paddle_tape.LARGE_GRADIENT", large)
        found.append({})
        of.gradients(weights, of.call.arrays(), found[-1].__setitem__)
    one, other = found
    assert {name for name, gradient in other.items() if isinstance(gradient, Outer)} == PRODUCTS[model]
    assert one.keys() == other.keys() == weights.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-13, atol=1e-15)  # sums in another order
        assert np.any(one[name]) == (model is not Unread or name != "first.weight")


def test_the_gradient_of_a_weight_is_no_product_where_that_takes_more_memory(monkeypatch):
    monkeypatch.setattr("parity.derive.trace.paddle_tape.LARGE_GRADIENT", 1)
    of, found = side(Plain(), Call(X)), {}
    of.gradients(draw(of, 0), of.call.arrays(), found.__setitem__)
    assert not any(isinstance(gradient, Outer) for gradient in found.values())
