"""Reasons that are named: active dropout, inputs of one value, scripted modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity.derive.fold.names import Names
from parity.derive.fold.related import Atom

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


def test_a_square_matrix_that_meets_zeros_alone_gets_a_line_only_if_that_is_proven():
    def turned(m: Any, x: Any) -> Any:
        return torch.tanh(x @ m.a) @ m.b

    def plain(m: Any, x: Any) -> Any:
        return torch.tanh(x @ m.a.T) @ m.b.T

    left, alike, right = (
        Net(run, a=torch.nn.Parameter(torch.randn(4, 4)), b=torch.nn.Parameter(torch.randn(4, 4)))
        for run in (plain, plain, turned)
    )
    zeros = np.zeros((3, 4))
    found = parity.derive(left, right, zeros)
    assert sorted(found.missing) == ["a", "b"] and not found.table.lines, found
    assert "none has a partner: input 1 has one value, which shows nothing: give random numbers" in str(found)
    assert parity.derive(left, alike, zeros).proven


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("side", [0, 1])
def test_a_scripted_module_is_refused_with_the_remedy(side: int):
    models = [torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)]
    models[side] = torch.jit.script(models[side])
    with pytest.raises(UsageError, match="give it before scripting"):
        parity.derive(*models, images(3, 4))


def test_pieces_of_one_length_have_one_name_where_compositions_are_alike():
    """Heads of pairs are no heads and their width, though all lengths may be equal in a small model."""
    names = Names(("torch", "nnx"))
    heads, pairs, again = ([Atom(2, 0, 1) for _ in range(2)] for _ in range(3))
    for atoms, count in ((heads, 2), (pairs, 3), (again, 2)):
        for atom, wanted in zip(atoms, "hd", strict=True):
            names.give(atom, wanted, set(), count)
    assert [[atom.name for atom in atoms] for atoms in (heads, pairs, again)] == [["h", "d"], ["h2", "d2"], ["h", "d"]]
