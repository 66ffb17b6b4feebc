"""Test gradients of large torch matrices, which are found as products of two small ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity import Call
from parity.derive.trace.draws import draw
from parity.derive.trace.outer import Outer
from parity.derive.trace.sides import side

torch = pytest.importorskip("torch")
nn = torch.nn
pytest.importorskip("torch.utils.checkpoint")

X = np.random.default_rng(0).standard_normal((2, 3, 4))


class Plain(nn.Module):
    """A linear layer, whose result is overwritten as classifiers of torchvision do."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return nn.functional.gelu(self.second(nn.functional.relu(self.first(x), inplace=True)))


class Shared(Plain):
    """A weight that two layers read."""

    def forward(self, x: Any) -> Any:
        return self.second(torch.tanh(self.first(x))) + self.first(x)


class Read(Plain):
    """A weight that is read by itself as well."""

    def forward(self, x: Any) -> Any:
        return self.second(torch.tanh(self.first(x))) * self.first.weight.sum()


class Checkpointed(Plain):
    """A layer that is run again for its gradients."""

    def forward(self, x: Any) -> Any:
        x = x.detach().requires_grad_()  # nothing is run again for what has no gradient
        inner = torch.utils.checkpoint.checkpoint(lambda x: torch.tanh(self.first(x)), x, use_reentrant=False)
        return self.second(inner)


FOUND = {
    "checkpointed": (Checkpointed(), {"second.weight"}),
    "plain": (Plain(), {"first.weight", "second.weight"}),
    "without bias": (Plain(bias=False), {"first.weight", "second.weight"}),
    "shared": (Shared(), {"second.weight"}),
    "read": (Read(), {"second.weight"}),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_gradient_of_a_weight_that_one_layer_reads_is_a_product(case, monkeypatch):
    model, products = FOUND[case]
    of = side(model, Call(X[:1, :1]))  # one row: a product takes less memory than the matrix
    weights, found = draw(of, 0), []
    for large in (1 << 20, 1):
        monkeypatch.setattr("parity.derive.trace.torch_tape.LARGE_GRADIENT", large)
        found.append({})
        before = {name: tensor.data_ptr() for name, tensor in of.model.named_parameters()}
        of.gradients(weights, of.call.arrays(), found[-1].__setitem__)
    dropped = {name for name, tensor in of.model.named_parameters() if tensor.data_ptr() != before[name]}
    assert dropped == products  # their memory is free for what comes before them
    one, other = found
    assert {name for name, gradient in other.items() if isinstance(gradient, Outer)} == products
    assert one.keys() == other.keys() == weights.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-13, atol=1e-15)  # sums in another order
        assert np.abs(one[name]).max() > 0


def test_the_gradient_of_a_weight_is_no_product_where_that_takes_more_memory(monkeypatch):
    monkeypatch.setattr("parity.derive.trace.torch_tape.LARGE_GRADIENT", 1)
    of, found = side(Plain(), Call(X)), {}
    of.gradients(draw(of, 0), of.call.arrays(), found.__setitem__)
    assert not any(isinstance(gradient, Outer) for gradient in found.values())


PRODUCT = Outer(np.arange(6.0).reshape(2, 3), np.arange(1.0, 11).reshape(2, 5) ** 2)


def test_parts_of_a_product_are_those_of_the_matrix():
    every = np.asarray(PRODUCT).ravel()
    for count in (1, 4, 5, 7, 20):
        np.testing.assert_array_equal(np.concatenate(list(PRODUCT.parts(count))), every)


ORDERS = {
    "as it is": ([0, 1, 2], [0, 1, 2, 3, 4], False),
    "transposed": ([0, 1, 2], [0, 1, 2, 3, 4], True),
    "permuted": ([2, 0, 1], [4, 1, 0, 3, 2], False),
    "both": ([2, 0, 1], [4, 1, 0, 3, 2], True),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_product_is_taken_in_other_orders(order):
    rows, columns, turned = ORDERS[order]
    numbers = np.arange(15).reshape(3, 5)[np.ix_(rows, columns)]
    numbers = numbers.T if turned else numbers
    first = int(numbers[0, 0])
    taken = PRODUCT.taken(first, (numbers[:, 0] - first, numbers[0] - first))
    np.testing.assert_array_equal(np.asarray(taken), np.asarray(PRODUCT).ravel()[numbers])


def test_a_product_is_not_taken_where_rows_are_split():
    assert PRODUCT.taken(0, (np.arange(5) * 3, np.arange(3))) is None  # reshaped to (5, 3)
    assert PRODUCT.taken(0, (np.arange(3) * 5, np.arange(5), np.zeros(1, int))) is None
