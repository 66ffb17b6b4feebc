"""Reasons that are named: active dropout, inputs of one value, scripted modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError

torch = pytest.importorskip("torch", reason="both sides are torch modules")
from .pairs import images  # noqa: E402
from .test_kinds_matching import Net, linear  # noqa: E402


def net(rate: float = 0.0) -> Any:
    def forward(m: Any, x: Any) -> Any:
        return m.b(torch.nn.functional.dropout(torch.tanh(m.a(x)), rate, training=True))

    return Net(forward, a=linear(4, 8), b=linear(8, 2))


def test_outputs_that_are_others_each_time_are_no_branch():
    found = parity.derive(net(), net(0.5), images(3, 4))
    assert not found.proven and "outputs are others each time: set dropout" in str(found), str(found)


def test_an_input_of_one_value_is_named():
    left = Net(lambda m, x: m.b(m.a(x)), a=linear(4, 8, False), b=linear(8, 2))
    right = Net(lambda m, x: m.b(x @ m.one), one=torch.nn.Parameter(torch.randn(4, 8)), b=linear(8, 2))
    found = parity.derive(left, right, np.zeros((3, 4)))
    assert "input 1 has one value, which shows nothing: give random numbers" in found.reasons["one"], str(found)
    assert "input 1" not in str(parity.derive(left, right, images(3, 4)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("side", [0, 1])
def test_a_scripted_module_is_refused_with_the_remedy(side: int):
    models = [torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)]
    models[side] = torch.jit.script(models[side])
    with pytest.raises(UsageError, match="give it before scripting"):
        parity.derive(*models, images(3, 4))
