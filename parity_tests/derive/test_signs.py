"""Test parameters that are positive in both models: what is equal only as long as they are so is not proven."""

from __future__ import annotations

from typing import Any

import pytest

import parity

from .pairs import images

torch = pytest.importorskip("torch")


def plain(value: Any) -> Any:
    return value


class Net(torch.nn.Module):
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
    sides = Net(), Net(scaled=torch.abs)
    found = parity.derive(*(sides[::-1] if turned else sides), (images(5, 4),))
    assert not found.proven and not found.missing
    assert str(found).startswith("complete, but not proven: outputs are equal only for positive values of scale")
    assert "# derived, not proven: outputs are equal only for positive values of scale" in found.table.print()


@pytest.mark.parametrize("taken", [torch.sqrt, torch.relu, lambda scale: scale * 1.0], ids=["root", "cut", "plain"])
def test_scales_that_both_take_alike_are_proven(taken: Any):
    assert parity.derive(Net(scaled=taken), Net(scaled=taken), (images(5, 4),)).proven


@pytest.mark.parametrize("taken", [torch.abs, torch.relu, lambda x: (x * x).sqrt()], ids=["absolute", "cut", "root"])
def test_inputs_that_are_positive_as_given_are_negated(taken: Any):
    power = 20 + images(5, 4)  # so that a draw of this spread is positive, too
    found = parity.derive(Net(), Net(read=taken), (power,))
    assert not found.proven and not found.missing and found.error < 1e-12
    assert "outputs are equal only for positive values of input 1" in str(found)


@pytest.mark.parametrize("taken", [torch.log, lambda x: x.clamp(min=1e-7).log()], ids=["plain", "guarded"])
def test_inputs_that_a_model_takes_if_positive_alone_keep_their_sign(taken: Any):
    power = 20 + images(5, 4)
    found = parity.derive(Net(read=torch.log), Net(read=taken), (power,))
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
