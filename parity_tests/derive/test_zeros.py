"""Rows of zeros, as padding of frames has, and other signs of what is positive in both models: they may differ then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
BEFORE = "not equal for inputs with "
SAID = f"{BEFORE}rows of zeros in input 1: with one, outputs"


def net(function: Any) -> Net:
    return Net(lambda m, x: m.b(m.a(function(x)).tanh()), a=linear(), b=linear(6, 3))


def hidden(m: Any, x: Any) -> Any:
    return (m.b(m.a(x).tanh()) * (x != 0).any(-1, keepdim=True)).sum(1)


def summed(m: Any, x: Any) -> Any:
    return m.b(m.a(x).tanh()).sum(1)


@pytest.mark.parametrize("examples", [1, 3])
def test_rows_that_one_model_hides_are_said(examples: int):
    models = [Net(run, a=linear(), b=linear(6, 3)) for run in (hidden, summed)]
    for pair in (models, models[::-1]):
        found = parity.derive(*pair, (images(examples, 4, 6),))
        assert found.proven and f"{SAID} differ by" in str(found) and f"# {SAID} differ by" in str(found.table)
        assert found.to_dict()["absent"] == found.absent


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (
            lambda x: torch.nn.functional.normalize(x, dim=-1),
            lambda x: x / x.norm(dim=-1, keepdim=True),
            "right model alone are NaN",
        ),
        (
            lambda x: x / x.norm(dim=-1, keepdim=True),
            lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-30),
            "left model alone are NaN",
        ),
        (lambda x: x / x.norm(dim=-1, keepdim=True), lambda x: x * x.norm(dim=-1, keepdim=True) ** -1, ""),
        (torch.tanh, lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()), ""),
    ],
    ids=["normalize", "epsilon", "both", "neither"],
)
def test_zeros_for_which_outputs_of_one_model_alone_are_not_finite_are_said(left: Any, right: Any, said: str):
    found = parity.derive(net(left), net(right), (images(3, 6),))
    text = f"{SAID} of the {said}".removeprefix(BEFORE)
    assert found.proven and found.absent == (text if said else "")


def test_zeros_that_make_outputs_of_one_model_alone_infinite_are_said():
    def model(least: float) -> Net:
        return Net(lambda m, x: m.a(x) + (x.abs().sum(-1, True) + least).log(), a=linear())

    found = parity.derive(model(0.0), model(1e-30), (images(3, 6),))
    assert found.proven and f"{SAID} of the left model alone are infinite" in str(found)
    assert not parity.derive(model(1e-30), model(1e-30), (images(3, 6),)).absent


def test_zeros_go_to_the_right_input_with_other_axes():
    left = Net(hidden, a=linear(), b=linear(6, 3))
    right = Net(lambda m, x: hidden(m, x.mT), a=linear(), b=linear(6, 3))
    x = images(3, 4, 6)
    found = parity.derive(left, right, (x,), (np.swapaxes(x, 1, 2),))
    assert found.proven and not found.absent


def experts(route: Any, hides: bool = False) -> Net:
    """Return two of four experts for each row; route makes gates of scores."""

    def run(m: Any, x: Any) -> Any:
        gates = route(m.router(x).softmax(-1))
        y = m.b(torch.einsum("ne,neh->nh", gates, m.own(x).unflatten(-1, (4, 6))).tanh())
        return y * (x != 0).any(-1, keepdim=True) if hides else y

    return Net(run, router=linear(6, 4, False), own=linear(6, 24), b=linear(6, 3))


def first_two(gates: Any) -> Any:
    values, places = gates.topk(2, -1)
    return torch.zeros_like(gates).scatter(-1, places, values)


def all_above(gates: Any) -> Any:
    return gates * (gates >= gates.sort(-1).values[..., -2:-1])


@pytest.mark.parametrize(
    ("right", "hides", "ties"), [(all_above, False, True), (all_above, True, False), (first_two, True, False)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_experts_that_tie_for_zeros_are_told_from_zeros_that_one_model_hides(
    right: Any, hides: bool, ties: bool, turned: bool
):
    pair = experts(first_two), experts(right, hides)
    found = parity.derive(*(pair[::-1] if turned else pair), (images(7, 6),))
    reason = ", where models choose among equal values" * ties
    assert found.proven and found.absent.startswith(f"rows of zeros in input 1{reason}: with one"), str(found)


def test_experts_that_tie_alike_are_no_difference():
    found = parity.derive(experts(first_two), experts(first_two), (images(7, 6),))
    assert found.proven and not found.absent


@pytest.mark.parametrize("examples", [1, 3])
def test_single_zeros_that_one_model_hides_a_row_for_are_said(examples: int):
    def whole(m: Any, x: Any) -> Any:
        return (m.b(m.a(x).tanh()) * (x != 0).all(-1, keepdim=True)).sum(1)

    models = [Net(run, a=linear(), b=linear(6, 3)) for run in (hidden, whole)]
    for pair in (models, models[::-1]):
        found = parity.derive(*pair, (images(examples, 4, 6),))
        assert found.proven and f"{BEFORE}single zeros in input 1: with these, outputs differ by" in str(found)


def plain(value: Any) -> Any:
    return value


class Scaled(torch.nn.Module):
    """Two dense layers with a scale between them.

    Args:
      scaled, read: what the model makes of its scale, and of its input.
    """

    def __init__(self, scaled: Any = plain, read: Any = plain):
        super().__init__()
        self.up, self.down, self.scaled, self.read = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3), scaled, read
        self.scale, self.gain = torch.nn.Parameter(torch.ones(6)), torch.nn.Parameter(torch.ones(6))

    def forward(self, x: Any) -> Any:
        return self.down(torch.tanh(self.up(self.read(x)) * self.scaled(self.scale)) * self.gain)


@pytest.mark.parametrize("turned", [False, True], ids=["right", "left"])
def test_an_absolute_value_of_a_scale_is_seen(turned: bool):
    sides = Scaled(), Scaled(scaled=torch.abs)
    found = parity.derive(*(sides[::-1] if turned else sides), (images(5, 4),))
    assert not found.proven and not found.missing
    assert str(found).startswith("complete, but not proven: outputs are equal only for positive values of scale")
    assert "# derived, not proven: outputs are equal only for positive values of scale" in found.table.print()


@pytest.mark.parametrize("taken", [torch.sqrt, torch.relu, lambda scale: scale * 1.0], ids=["root", "cut", "plain"])
def test_scales_that_both_take_alike_are_proven(taken: Any):
    assert parity.derive(Scaled(scaled=taken), Scaled(scaled=taken), (images(5, 4),)).proven


@pytest.mark.parametrize("taken", [torch.abs, torch.relu, lambda x: (x * x).sqrt()], ids=["absolute", "cut", "root"])
def test_inputs_that_are_positive_as_given_are_negated(taken: Any):
    power = 20 + images(5, 4)  # so that a draw of this spread is positive, too
    found = parity.derive(Scaled(), Scaled(read=taken), (power,))
    assert not found.proven and not found.missing and found.error < 1e-12
    assert "outputs are equal only for positive values of input 1" in str(found)


@pytest.mark.parametrize("taken", [torch.log, lambda x: x.clamp(min=1e-7).log()], ids=["plain", "guarded"])
def test_inputs_that_a_model_takes_if_positive_alone_keep_their_sign(taken: Any):
    power = 20 + images(5, 4)
    found = parity.derive(Scaled(read=torch.log), Scaled(read=taken), (power,))
    said = "inputs with negative values of input 1: with these, outputs of one model alone are infinite or NaN"
    assert found.proven and (said in str(found)) == (taken is not torch.log)


class Gated(torch.nn.Module):
    """A dense layer and two single numbers, of which the code asks the sign of one.

    Args:
      names: of both, in the order in which the code reads them.
    """

    def __init__(self, names: str):
        super().__init__()
        self.names, self.lin = names, torch.nn.Linear(4, 3)
        self.p, self.q = torch.nn.Parameter(torch.ones(())), torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Any) -> Any:
        first, second = (getattr(self, name) for name in self.names)
        y = self.lin(x)
        return torch.where(first > 0, torch.tanh(y), y) + torch.where(second > 0, y, y.relu())


def test_signs_of_single_numbers_tell_which_is_which():
    assert parity.derive(Gated("pq"), Gated("pq"), (images(5, 4),)).proven
    found = parity.derive(Gated("pq"), Gated("qp"), (images(5, 4),))
    assert not found.proven or "p: <-> q:" in found.table.print()


def joined(zeros: Any, at: int) -> Net:
    """Return layers of which the second one reads, beside the first one's results, what is made of these at a place."""

    def run(m: Any, x: Any) -> Any:
        y = m.a(x).tanh()
        return m.b(torch.cat([y[..., :at], zeros(y), y[..., at:]], -1))

    return Net(run, a=linear(), b=linear(12, 3))


@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize("zeros", [torch.zeros_like, lambda y: (-y.abs()).relu()], ids=["zeros", "relu"])
def test_columns_that_zeros_alone_reach_are_marked(zeros: Any, at: int):
    for pair in ((joined(zeros, 6), joined(zeros, at)), (joined(zeros, at), joined(torch.zeros_like, 6))):
        found = parity.derive(*pair, (images(2, 5, 6),))
        assert found.proven and found.inferred == ["b.weight"], str(found)
        assert "\n# inferred, as no matched use reads all of it: b.weight\n" in str(found.table)


def half_cut(m: Any, x: Any) -> Any:
    """Read all columns of a matrix, and cut the gradient of half of them."""
    weight = torch.cat([m.b.weight[:, :3], m.b.weight[:, 3:].detach()], 1)
    return torch.nn.functional.linear(m.a(x).tanh(), weight, m.b.bias)


def test_columns_that_a_relu_reaches_at_times_or_whose_gradient_is_cut_are_not_marked():
    cut = Net(half_cut, a=linear(), b=linear(6, 3))
    rare = Net(lambda m, x: m.b((m.a(x) - 0.5).relu()), a=linear(6, 32), b=linear(32, 3))  # some units stay zero long
    for model in (joined(lambda y: (y - 0.5).relu(), 6), cut, rare):
        found = parity.derive(model, model, (images(2, 6),))
        assert found.proven and not found.inferred, str(found)
