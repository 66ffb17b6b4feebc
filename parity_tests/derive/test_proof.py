"""A wrong Table is never called proven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.derivation import _call
from parity.derive.fold import Facts, fold
from parity.derive.prove import Proof, prove
from parity.derive.sides import Side, draw, side
from parity.derive.walk import Elements

from ..conftest import needs

Change = Callable[[dict[str, np.ndarray]], None]


def models() -> tuple[Any, Any, np.ndarray]:
    """Two equal modules with square kernels and siblings that read the same values."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("q", "k", "v", "o"):
                setattr(self, name, torch.nn.Linear(4, 4))
            self.first, self.second = torch.nn.LayerNorm(4), torch.nn.LayerNorm(4)

        def forward(self, x: Any) -> Any:
            y = self.first(x)
            scores = (self.q(y) @ self.k(y).mT).softmax(-1)
            return self.second(x + self.o(scores @ self.v(y)))

    return Model(), Model(), np.random.default_rng(0).standard_normal((2, 3, 4))


def proof(change: Change) -> Proof:
    """The proof of a Table that is right but for a change of its map of elements."""
    left, right, x = models()
    a, b = side(left, _call(x)), side(right, _call(x))
    lefts, rights = Elements(draw(a, 1), known=True), Elements(b.parameters, known=False)
    numbers = {name: lefts.numbers(name) for name in lefts.names}
    change(numbers)
    found = np.concatenate([[0], *(numbers[name].ravel() for name in rights.names)]).astype(np.int64)
    table, missing = fold(Facts(lefts, rights, found, np.zeros_like(found), ("torch", "torch")))
    assert not missing
    return prove(a, b, _tapes(a, b), table, found, lefts, rights)


def _tapes(a: Side, b: Side) -> tuple[Any, Any]:
    return tuple(s.record(draw(s, 1), s.call.arrays()) for s in (a, b))  # type: ignore[return-value]


def _swap(first: str, second: str) -> Change:
    def change(numbers: dict[str, np.ndarray]) -> None:
        numbers[first], numbers[second] = numbers[second], numbers[first]

    return change


def _transpose(numbers: dict[str, np.ndarray]) -> None:
    numbers["v.weight"] = numbers["v.weight"].T


def _reverse(numbers: dict[str, np.ndarray]) -> None:
    numbers["second.bias"] = numbers["second.bias"][::-1]


WRONG = {
    "swapped siblings": _swap("q.weight", "v.weight"),
    "swapped norms": _swap("first.weight", "second.weight"),
    "swapped biases": _swap("o.bias", "second.bias"),
    "transposed square": _transpose,
    "reversed bias": _reverse,
}


def test_the_right_table_is_proven_and_the_keys_bias_unobservable():
    needs("torch")
    found = proof(lambda numbers: None)
    assert found.holds and found.error < 1e-12 and found.gradient is not None and found.gradient < 1e-9
    assert found.unobservable == ["k.bias"]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_not_proven(name: str):
    needs("torch")
    assert not proof(WRONG[name]).holds


def test_models_that_differ_are_not_proven_and_the_place_is_named():
    needs("torch")
    import torch

    left = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.GELU(), torch.nn.Linear(6, 6))
    right = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.GELU(approximate="tanh"), torch.nn.Linear(6, 6))
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((5, 6)),))
    assert not found.proven and 1e-6 < found.error < 1e-2
    assert not found.missing and len(found.table.lines) == 2
    assert found.divergences[0].left == found.divergences[0].right == "2"


def test_a_model_that_cannot_correspond_is_reported_as_missing():
    needs("torch")
    import torch

    left = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
    right = torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.Tanh(), torch.nn.Linear(7, 4))
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((5, 6)),))
    assert not found.proven and "0.weight" in found.missing and "0.weight" in found.failure
