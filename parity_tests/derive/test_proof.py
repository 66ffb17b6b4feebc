"""A wrong Table is never called proven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import ConvertError
from parity.derive.fold.facts import Facts
from parity.derive.fold.fold import fold
from parity.derive.match.symbols import Elements, Filled
from parity.derive.prove.prove import Proof, prove
from parity.derive.prove.trial import Trial
from parity.derive.trace.call import call_of
from parity.derive.trace.draws import draw
from parity.derive.trace.program import Program
from parity.derive.trace.sides import Side, side

from ..conftest import needs
from .pairs import initial

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
            self.position = torch.nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Any) -> Any:
            y = self.first(x + self.position)
            q, k, v = (layer(y).unflatten(-1, (2, 2)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            y = (q @ k.mT).softmax(-1) @ v
            return self.second(x + self.o(y.transpose(1, 2).flatten(2)))

    return Model(), Model(), np.random.default_rng(0).standard_normal((2, 3, 4))


def weak(factor: float) -> tuple[Any, Any, np.ndarray]:
    """Two equal modules whose first layer has next to no effect on the outputs, as in a deep network."""
    import torch

    class Weak(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.o = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.o(x + factor * self.q(x).tanh())

    return Weak(), Weak(), np.random.default_rng(0).standard_normal((2, 3, 4))


def proof(change: Change, make: Callable[[], tuple[Any, Any, np.ndarray]] = models) -> Proof:
    """The proof of a Table that is right but for a change of its map of elements."""
    left, right, x = make()
    a, b = side(left, call_of(x)), side(right, call_of(x))
    lefts, rights = Filled(a.parameters), Elements(b.parameters, known=False)
    numbers = {name: lefts.numbers(name) for name in lefts.names}
    change(numbers)
    found = np.concatenate([[0], *(numbers[name].ravel() for name in rights.names)]).astype(np.int64)
    table, missing = fold(Facts(lefts, rights, found, np.zeros_like(found), ("torch", "torch")))
    assert not missing
    tapes = _tapes(a, b)
    one, other = (
        Program(tape, draw(of, 1), [*of.call.arrays().values()]) for of, tape in zip((a, b), tapes, strict=True)
    )
    return prove(Trial(a, b, table, tapes, (one, other), [found], (lefts, rights)))


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


def _exchange_heads(numbers: dict[str, np.ndarray]) -> None:
    for name in ("q.weight", "q.bias"):
        numbers[name] = numbers[name][[2, 3, 0, 1]]


def _shift(numbers: dict[str, np.ndarray]) -> None:
    numbers["position"] = np.roll(numbers["position"], 1, 0)


def _exchange_inside_a_head(numbers: dict[str, np.ndarray]) -> None:
    for name in ("v.weight", "v.bias"):
        numbers[name] = numbers[name][[1, 0, 2, 3]]


WRONG = {
    "permuted heads": _exchange_heads,
    "order inside a head of one side": _exchange_inside_a_head,
    "shifted positions": _shift,
    "swapped siblings": _swap("q.weight", "v.weight"),
    "swapped norms": _swap("first.weight", "second.weight"),
    "query for key": _swap("q.weight", "k.weight"),
    "swapped biases": _swap("o.bias", "second.bias"),
    "transposed square": _transpose,
    "reversed bias": _reverse,
}


def test_the_right_table_is_proven_and_the_keys_bias_unobservable():
    needs("torch")
    found = proof(lambda numbers: None)
    assert found.holds and found.error < 1e-12 and found.gradient is not None and found.gradient < 1e-9
    assert found.unobservable == ["k.bias"]


def test_parameters_whose_effect_was_not_told_in_time_are_named(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    monkeypatch.setattr("parity.derive.prove.trial.EFFECT_SECONDS", 0)
    found = proof(lambda numbers: None)
    assert found.untold == ["k.bias"] and not found.unobservable


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_not_proven(name: str):
    needs("torch")
    assert not proof(WRONG[name]).holds


def _transpose_first(numbers: dict[str, np.ndarray]) -> None:
    numbers["q.weight"] = numbers["q.weight"].T


@pytest.mark.parametrize("factor", [1e-11, 1e-14])
def test_a_layer_far_from_the_outputs_is_part_of_the_proof(factor: float):
    """A wrong one does not show in the outputs: its gradients tell, which are small and differ by their own size."""
    needs("torch")
    right = proof(lambda numbers: None, lambda: weak(factor))
    assert right.holds and not right.unobservable
    wrong = proof(_transpose_first, lambda: weak(factor))
    assert wrong.exact < 1e-9
    assert not wrong.holds if factor == 1e-11 else "q.weight" in wrong.unobservable


def test_models_that_only_differ_where_the_proof_does_not_go_are_not_proven():
    """A limit that one value of the matching exceeds, and hardly another."""
    needs("torch")
    import torch

    class Limited(torch.nn.Module):
        def __init__(self, limit: float) -> None:
            super().__init__()
            self.limit, self.fc, self.out = limit, torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            return self.out(self.fc(x).clamp(max=self.limit))

    x = np.random.default_rng(0).standard_normal((40, 6))
    found = parity.derive(Limited(9.0), Limited(1.5), (x,))
    assert not found.proven and found.divergences[0].right == "out"


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


@pytest.mark.parametrize("returned", ["classes", "both"])
def test_outputs_of_whole_numbers_are_compared_and_prove_nothing_alone(returned: str) -> None:
    import torch

    class Model(torch.nn.Module):
        def __init__(self, limit: float) -> None:
            super().__init__()
            self.up, self.down, self.limit = torch.nn.Linear(3, 5), torch.nn.Linear(5, 4), limit

        def forward(self, x: Any) -> Any:
            y = self.down(torch.tanh(self.up(x)))
            return y.argmax(-1) if returned == "classes" else (y, y > self.limit)

    x = np.random.default_rng(0).standard_normal((8, 3))
    assert parity.derive(Model(0), Model(0), (x,)).proven == (returned == "both")
    found = parity.derive(Model(0), Model(0.5), (x,))
    assert not found.proven and not found.missing
    assert found.incomparable.startswith("whole numbers") if returned == "classes" else found.error == 1


@pytest.mark.parametrize(("scale", "proven"), [(3e3, True), (1e9, False)])
def test_outputs_that_no_parameter_has_an_effect_on_prove_nothing(scale: float, proven: bool):
    """A softmax of large values is 0 or 1 whatever the weights are; smaller ones are tried."""
    needs("torch")
    import torch

    class Saturated(torch.nn.Sequential):
        def forward(self, x: Any) -> Any:
            return (scale * super().forward(x)).softmax(-1)

    left, right = (Saturated(*(torch.nn.Linear(6, 6, bias=False) for _ in range(4))) for _ in range(2))
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((3, 6)),))
    assert not found.missing and found.proven == proven, found.incomparable
    assert proven == (not found.incomparable)


def quantized(turned: bool, values: Any) -> tuple[Any, np.ndarray]:
    """A module with a matrix of int8 behind its weights, as it is or transposed."""
    import torch

    class Quantized(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.Linear(4, 4)
            self.register_buffer("q", torch.tensor(values.T if turned else values, dtype=torch.int8))

        def forward(self, x: Any) -> Any:
            return self.up(x).tanh() @ (self.q.T if turned else self.q).to(x.dtype)

    return Quantized(), np.random.default_rng(0).standard_normal((2, 3, 4))


def test_integers_that_both_models_read_are_translated_by_their_values():
    needs("torch")
    (left, x), (right, _) = (quantized(turned, np.arange(16).reshape(4, 4)) for turned in (False, True))
    found = parity.derive(left, right, (x,))
    assert found.proven and "q: a b <-> q: b a" in found.table.print()


@pytest.mark.parametrize("values", [np.ones((4, 4)), np.eye(4)], ids=["ones", "symmetric"])
def test_integers_whose_values_show_no_order_are_not_proven(values: np.ndarray):
    needs("torch")
    (left, x), (right, _) = (quantized(turned, values) for turned in (False, True))
    found = parity.derive(left, right, (x,))
    assert not found.proven and found.unshown == ["q"]
    assert "# derived, not proven: outputs are equal, but not shown, as both models read it" in found.table.print()
    assert "not shown: both models read arrays that keep their own values, which no proof exchanges: q" in str(found)
    with pytest.raises(ConvertError, match="not shown, as both models read it and no proof exchanges it: q"):
        parity.transfer(left, right, (x,))


@pytest.mark.parametrize("hidden", [-1e9, np.finfo("f4").min], ids=["-1e9", "lowest"])
def test_what_a_mask_hides_hides_no_difference_of_the_outputs(hidden: float):
    needs("torch")
    import torch

    class Masked(torch.nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.up, self.shift = torch.nn.Linear(4, 6), shift

        def forward(self, x: Any) -> Any:
            return (self.up(x) + self.shift).masked_fill(torch.arange(6) > 3, float(hidden))

    x = np.random.default_rng(0).standard_normal((3, 4))
    assert parity.derive(Masked(0.5), Masked(0.5), (x,)).proven
    found = parity.derive(Masked(0.5), Masked(0.0), (x,))
    assert not found.proven and found.error > 1e-2


def test_outputs_are_compared_in_the_order_of_axes_that_fits_and_it_is_named():
    needs("torch")
    import torch

    class Turned(torch.nn.Module):
        def __init__(self, turned: bool, shift: float = 0) -> None:
            super().__init__()
            self.up, self.turned, self.shift = torch.nn.Linear(4, 6), turned, shift

        def forward(self, x: Any) -> Any:
            x, y = torch.tanh(self.up(x)) + self.shift, x.sum((1, 2))
            return y, (x.mT if self.turned else x)

    x = (np.random.default_rng(0).standard_normal((2, 3, 4)),)
    found = parity.derive(Turned(False), Turned(True), x)
    said = "output 2 of the right model is compared with its axes in the order (0, 2, 1)"
    assert found.proven and found.correspondence == (said,)
    assert said in str(found) and f"# {said}" in found.table.print()
    assert found.to_dict()["correspondence"] == [said]
    assert not parity.derive(Turned(False), Turned(True, 1), x).proven
    assert not parity.derive(Turned(False), Turned(False), x).correspondence


def test_the_order_of_axes_of_the_right_input_is_named():
    needs("torch")
    needs("flax")
    import flax.linen as nn
    import jax
    import torch

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return jax.numpy.tanh(nn.Conv(4, (3, 3))(x))

    left = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh())
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    right = Net()
    found = parity.derive(left, (right, initial(right, x.transpose(0, 2, 3, 1))), x)
    assert found.proven and found.correspondence == (
        "the right input is the left one with its axes in the order (0, 2, 3, 1): [2, 3, 8, 8] on the left is "
        "[2, 8, 8, 3] on the right",
        "the output of the right model is compared with its axes in the order (0, 3, 1, 2)",
    )


def net(forward: Callable[[Any, Any], Any], **arrays: Any) -> Any:
    """A module with a dense layer, other arrays, and a forward of (module, x)."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.Linear(4, 4)
            for name, value in arrays.items():
                if isinstance(value, torch.nn.Parameter):
                    self.register_parameter(name, value)
                else:
                    self.register_buffer(name, value)

        def forward(self, x: Any) -> Any:
            return forward(self, x)

    return Module()


def hidden(name: str) -> tuple[Any, Any]:
    """Models that are equal on the values at hand, and are not one function or have no line for what both read."""
    import torch

    def affine(m: Any, x: Any) -> Any:
        a = getattr(m, "affine", None) if hasattr(m, "affine") else m.aff
        return m.up(x) * a[0] + a[1]

    def count(m: Any, x: Any) -> Any:
        return m.up(x).tanh() * (m.count if hasattr(m, "count") else m.steps)

    def chosen(y: Any) -> Any:
        return torch.nn.functional.one_hot(y.argmax(-1), 4).to(y.dtype)

    start = torch.stack([torch.ones(4), torch.zeros(4)])
    return {
        "a number read by code": (net(lambda m, x: m.up(x) + x[0, 0, 0].item()), net(lambda m, x: m.up(x) + 0.12573)),
        "a trained array that begins as zeros and ones": (
            net(affine, affine=torch.nn.Parameter(start)), net(affine, aff=torch.nn.Parameter(start.clone()))),
        "a counter that both read": (
            net(count, steps=torch.tensor(3), more=torch.tensor(1)), net(count, count=torch.tensor(3))),
        "choices as floats": (
            net(lambda m, x: chosen(m.up(x))), net(lambda m, x: chosen(m.up(x) + 1e-6 * torch.arange(4)))),
        "a prior behind a mask": (
            net(lambda m, x: m.up(x).detach() + torch.tensor([0.0, 1, 2, -1e9])),
            net(lambda m, x: m.up(x).detach() + torch.tensor([0.0, 1.2, 2.4, -1e9]))),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", [
    "a number read by code", "a trained array that begins as zeros and ones", "a counter that both read",
    "choices as floats", "a prior behind a mask",
])  # fmt: skip
def test_what_hides_a_difference_is_not_proven(name: str):
    needs("torch")
    left, right = hidden(name)
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((2, 3, 4)),))
    assert not found.proven, found.table.print()


@pytest.mark.parametrize("length", [4, 12])  # a few parts, or an order in a file
@pytest.mark.parametrize("back", [False, True])
def test_an_order_that_a_model_stores_makes_a_table_of_its_values_alone(length: int, back: bool):
    needs("torch")
    import torch

    class Flow(torch.nn.Module):
        def __init__(self, stores: bool) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(length, length), torch.nn.Linear(length, 3)
            if stores:
                self.register_buffer("perm", torch.tensor([*range(1, length - 1), 0, length - 1]))

        def forward(self, x: Any) -> Any:
            x = self.a(x).tanh()
            return self.b(x[:, self.perm] if hasattr(self, "perm") else x)

    found = parity.derive(Flow(not back), Flow(back), (np.random.default_rng(0).standard_normal((4, length)),))
    assert not found.proven and not found.missing
    assert "outputs are equal only with these values of perm, whose order the Table has taken over" in str(found)
