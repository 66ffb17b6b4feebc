"""Test what a proof says of parameters, branches and states that its inputs do not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.prove.gradients import Gradients
from parity.derive.report import page

from ..conftest import needs

torch = pytest.importorskip("torch")


class Picked(torch.nn.Module):
    """A dense layer of features in another order, which the model stores or knows."""

    def __init__(self, stored: bool):
        super().__init__()
        self.order = torch.tensor([2, 0, 3, 1])
        if stored:
            order = self.order
            del self.order
            self.register_buffer("order", order)
        self.down = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.down(x[:, self.order])


class Silent(torch.autograd.Function):
    """A product with 2 that has no derivative, and an error without a text."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        raise NotImplementedError


class Doubled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return Silent.apply(self.up(x))


def test_a_missing_derivative_whose_error_has_no_text_is_named():
    found = parity.derive(Doubled(), Doubled(), (np.random.default_rng(0).standard_normal((5, 4)),))
    assert found.proven and found.gradient is None
    assert "no gradients (NotImplementedError)" in found.table.print()


class Frozen(torch.nn.Module):
    """A frozen layer below one that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            x = torch.tanh(self.body(x))
        return self.head(x)


def test_a_frozen_part_is_observable_though_it_has_no_gradient():
    found = parity.derive(Frozen(), Frozen(), (np.random.default_rng(0).standard_normal((5, 4)),))
    assert found.proven and not found.unobservable and "unobservable" not in found.table.print()


class Tempered(torch.nn.Module):
    """A dense layer whose values a parameter scales.

    Args:
      number: whether the code reads it as a number.
    """

    def __init__(self, number: bool, scale: float = 0.5):
        super().__init__()
        self.number, self.up, self.down = number, torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x: Any) -> Any:
        return self.down(torch.tanh(self.up(x) * (self.scale.item() if self.number else self.scale)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.3])
def test_a_number_read_from_a_parameter_is_no_difference(scale: float):
    x = np.random.default_rng(0).standard_normal((4, 6))
    found = parity.derive(Tempered(True), Tempered(True, scale), (x,))
    assert found.proven and found.reads_numbers and not found.divergences
    assert "code of a model reads numbers (.item(), a branch)" in str(found)


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_branch_that_no_input_of_the_proof_takes_is_named(framework: str):
    needs(framework)
    library: Any = pytest.importorskip(framework)

    def net(branches: bool) -> Any:
        class Net(getattr(library.nn, "Module", None) or library.nn.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.up, self.down = library.nn.Linear(6, 5), library.nn.Linear(5, 3)

            def forward(self, x: Any, lengths: Any) -> Any:
                if branches and x.max() < -9:
                    x = -x
                return self.down(library.tanh(self.up(x)) * (2 if lengths.max() > 3 else 1))

        return Net()

    inputs = np.random.default_rng(0).uniform(0, 1, (4, 6)), np.arange(4)
    found = parity.derive(net(True), net(False), inputs)
    assert found.proven and found.branches == ["left"] and found.to_dict()["branches"] == ["left"]
    assert "code of the left model reads numbers of values" in str(found)
    assert not parity.derive(net(False), net(False), inputs).branches


def test_models_of_which_one_reads_a_number_are_not_proven_and_no_place_is_named():
    x = np.random.default_rng(0).standard_normal((4, 6))
    found = parity.derive(Tempered(False), Tempered(True), (x,))  # the right one has no gradient of its scale
    assert not found.proven and not found.divergences
    assert "gradients differ" in str(found) and "without .item()" in found.following


def test_gradients_of_paddles_recurrent_layers_are_compared():
    paddle = pytest.importorskip("paddle")
    x = np.random.default_rng(0).standard_normal((2, 4, 5))
    found = parity.derive(torch.nn.GRU(5, 4, batch_first=True), paddle.nn.GRU(5, 4), (x,))
    assert found.proven and found.gradient is not None and not found.remark


class Constant(torch.nn.Linear):
    def forward(self, input: Any) -> Any:
        with torch.no_grad():
            return super().forward(input)


def test_a_proof_without_gradients_says_so():
    found = parity.derive(Constant(4, 3), torch.nn.Linear(4, 3), (np.random.default_rng(0).standard_normal((2, 4)),))
    assert found.proven and found.gradient is None
    assert str(found).startswith("proven by outputs alone: ")
    assert f"gradients were not compared: {found.remark}" in str(found) and found.remark
    assert "Proven by outputs alone" in page(found, {}) and "not compared" in page(found, {})


def test_a_term_of_a_sum_in_another_order_is_no_difference_of_proven_models():
    """What the second bias is added to depends on the order of the terms."""

    class Sum(torch.nn.Module):
        def __init__(self, turned: bool):
            super().__init__()
            self.turned = turned
            self.a, self.b, self.c = (torch.nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Any) -> Any:
            terms = [self.a(x), torch.tanh(self.b(x)), self.c(x)]
            first, second, third = terms[::-1] if self.turned else terms
            return (first + second) + third

    found = parity.derive(Sum(False), Sum(True), (np.random.default_rng(0).standard_normal((3, 4)),))
    assert found.proven and found.agreeing == len(found.compared)
    assert f"{found.agreeing} of {found.agreeing} uses of parameters agree" in str(found)


def test_keys_biases_are_told_from_frozen_parameters():
    """Neither has a gradient; only the biases of keys have no effect on the outputs."""

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Linear(4, 4)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 12) for _ in range(3))
            for layer in self.layers:
                layer.key = torch.nn.Parameter(torch.randn(4))

        def forward(self, x: Any) -> Any:
            with torch.no_grad():
                x = self.stem(x)
            for layer in self.layers:
                q, k, v = layer(x).chunk(3, -1)
                x = x + (q @ (k + layer.key).mT).softmax(-1) @ v
            return x

    found = parity.derive(Attention(), Attention(), (np.random.default_rng(0).standard_normal((2, 5, 4)),))
    assert found.proven and found.unobservable == [f"layers.{k}.key" for k in range(3)]


@pytest.mark.parametrize("left", [True, False])
def test_the_model_that_computes_in_lower_precision_is_named(left: bool):
    class Half(torch.nn.Linear):
        def forward(self, input: Any) -> Any:
            return super().forward(input).float().to(input.dtype)

    models = [Half(4, 3), torch.nn.Linear(4, 3)][:: 1 if left else -1]
    found = parity.derive(*models, (np.random.default_rng(0).standard_normal((5, 4)),))
    assert found.proven and found.error > 1e-9
    assert f": the {'left' if left else 'right'} model computes partly in lower precision" in str(found)


class Cut(torch.nn.Module):
    """Two dense layers; the gradient of the first may be cut."""

    def __init__(self, cut: bool):
        super().__init__()
        self.cut, self.up, self.down = cut, torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        y = torch.tanh(self.up(x))
        return self.down(y.detach() if self.cut else y)


@pytest.mark.parametrize("left", [True, False])
def test_a_gradient_that_one_side_cuts_is_a_difference(left: bool):
    found = parity.derive(Cut(left), Cut(not left), (np.random.default_rng(0).standard_normal((5, 4)),))
    assert not found.proven and "gradients differ by 1.0 of their largest" in str(found)


@pytest.mark.parametrize("limit", [torch.sign, lambda g: g.round(), lambda g: (g.abs() < 1).double()])
def test_a_parameter_of_which_code_takes_a_step_is_observable(limit: Any):
    class Stepped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.g = torch.nn.Linear(4, 3), torch.nn.Parameter(torch.tensor([1.2, 2.3, 3.4]))

        def forward(self, x: Any) -> Any:
            return self.lin(x) * (limit(self.g) + 0.5)

    found = parity.derive(Stepped(), Stepped(), (np.random.default_rng(0).standard_normal((5, 4)),))
    assert found.proven and not found.unobservable


def test_indices_that_a_jax_model_stores_stay_integers_in_the_proof():
    needs("flax")
    import jax.numpy as jnp

    def net(p: Any, x: Any) -> Any:
        return jnp.tanh(x)[:, p["order"]] @ p["w"]

    random = np.random.default_rng(0)
    order, other = np.array([2, 0, 3, 1]), np.array([1, 2, 3, 0])
    p = {"w": random.standard_normal((4, 3)), "order": order, "unread": other}
    x = random.standard_normal((5, 4))
    found = parity.derive((net, p), (net, p | {"unread": order}), (x,))
    assert found.proven and not found.unshown
    found = parity.derive((net, p), (net, p | {"order": other}), (x,))
    assert not found.proven
    assert parity.derive(
        Picked(True), (lambda p, x: x[:, p["order"]] @ p["w"] + p["b"], p | {"b": np.ones(3)}), (x,)
    ).proven


class Long(torch.nn.Module):
    """Dense layers, of which two are for long inputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.long, self.longer = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Any) -> Any:
        y = self.up(x)
        return y if len(x) < 9 else self.longer(torch.relu(self.long(y)))


def test_a_branch_that_the_inputs_do_not_take_is_unobservable_with_these_inputs():
    found = parity.derive(Long(), Long(), (np.random.default_rng(0).standard_normal((5, 4)),))
    assert found.proven and found.unobservable == ["long.weight", "long.bias", "longer.weight", "longer.bias"]
    for text in (str(found), found.table.print(), page(found, {})):
        assert "depends on" in text and "with these inputs: " in text


class Counting(torch.nn.Module):
    """A dense layer whose second call in one run computes another number.

    Args:
      factor: of the second call's values. calls: how many the model makes itself.
    """

    def __init__(self, factor: int, calls: int):
        super().__init__()
        self.factor, self.calls, self.count = factor, calls, 0
        self.up = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return [self.step(x) for _ in range(self.calls)]

    def step(self, x: Any) -> Any:
        self.count += 1
        return self.up(x) * (self.factor if self.count > 1 else 1)


@pytest.mark.parametrize("calls", [1, 2])
def test_state_between_calls_is_compared_where_a_model_makes_several(calls: int):
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    left, right = Counting(2, calls), Counting(3, calls)
    right.load_state_dict(left.state_dict())
    assert parity.derive(left, right, (x,)).proven == (calls == 1)
    assert parity.compare({"a": left, "b": right}, x).passed == (calls == 1)


class Normalized(torch.nn.Module):
    """Rows of a table over their root mean square, times a scale: before or after the division."""

    def __init__(self, first: bool):
        super().__init__()
        self.first, self.table, self.out = first, torch.nn.Embedding(11, 8), torch.nn.Linear(8, 5)
        self.scale = torch.nn.Parameter(torch.randn(8))

    def forward(self, tokens: Any) -> Any:
        x = self.table(tokens)
        size = ((x**2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return self.out(x * self.scale / size if self.first else x / size * self.scale)


def test_a_scale_of_normalized_rows_may_come_before_the_division():
    found = parity.derive(Normalized(True), Normalized(False), (np.random.default_rng(0).integers(0, 11, (2, 5)),))
    assert found.proven and found.agreeing == len(found.compared) == 4


class Scaled(torch.nn.Module):
    """A table whose rows are scaled, and two normalized branches, which one side computes from a cast of the rows."""

    def __init__(self, cast: bool):
        super().__init__()
        self.cast, self.table, self.out = cast, torch.nn.Embedding(11, 8), torch.nn.Linear(8, 5)
        self.norms = torch.nn.ParameterList(torch.randn(8) for _ in range(2))
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(2))

    def forward(self, tokens: Any) -> Any:
        x = self.table(tokens) * 8**0.5
        for norm, layer in zip(self.norms, self.layers, strict=True):
            if self.cast:
                y = x.to(torch.float32)
                y = (y * torch.rsqrt((y**2).mean(-1, keepdim=True) + 1e-6) * (1 + norm)).to(x.dtype)
            else:
                y = (1 + norm) * (x / ((x**2).mean(-1, keepdim=True) + 1e-6).sqrt())
            x = x + layer(y).tanh()
        return self.out(x)


def test_scaled_rows_are_matched_whether_or_not_a_norm_casts_them():
    found = parity.derive(Scaled(True), Scaled(False), (np.random.default_rng(0).integers(0, 11, (2, 5)),))
    assert found.proven, str(found)


def test_a_branch_is_no_lower_precision():
    """Outputs that differ by little from those of the recorded operations are rounding only where a model rounds."""

    class Branching(torch.nn.Module):
        def __init__(self, branches: bool):
            super().__init__()
            self.up, self.down, self.branches = torch.nn.Linear(4, 8), torch.nn.Linear(8, 5), branches

        def forward(self, x: Any) -> Any:
            out = torch.tanh(self.down(torch.tanh(self.up(x))))
            return out * (1 + 5e-6) if self.branches and float(x[0, 1]) < 0 else out

    x = np.random.default_rng(0).standard_normal((6, 4))
    x[0] = abs(x[0])
    assert not parity.derive(Branching(False), Branching(True), (x,)).proven


class Loss(torch.nn.Module):
    """A model whose output is one number."""

    def __init__(self, cut: bool):
        super().__init__()
        self.cut, self.a, self.b = cut, torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        h = torch.tanh(self.a(x))
        return (self.b(h.detach() if self.cut else h) ** 2).mean()


@pytest.mark.parametrize("cut", [False, True])
def test_gradients_of_one_number_are_compared(cut: bool):
    found = parity.derive(Loss(False), Loss(cut), (np.random.default_rng(0).standard_normal((4, 4)),))
    assert found.gradient is not None and found.proven != cut and bool(found.other_gradients) == cut


def test_an_error_of_the_comparison_is_not_taken_for_a_model_without_gradients(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise TypeError("of the comparison")

    monkeypatch.setattr(Gradients, "compare", fail)
    with pytest.raises(TypeError, match="of the comparison"):
        parity.derive(Loss(False), Loss(False), (np.random.default_rng(0).standard_normal((4, 4)),))
