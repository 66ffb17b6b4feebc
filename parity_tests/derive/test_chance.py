"""Models that draw random numbers in evaluation, and other reasons that are named: inputs of one value, scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity.derive.fold.names import Names
from parity.derive.fold.related import Atom

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch", reason="both sides are torch modules")
SAID = "equal for the random numbers of two runs alone: the left model draws new ones in each call"


def net(function: Any) -> Net:
    return Net(lambda m, x: m.b(function(m.a(x)).tanh()), a=linear(), b=linear(6, 3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * (torch.rand(len(x), 1) > 1e-9),
        lambda x: x * x.new_empty(len(x), 1).bernoulli_(1 - 1e-9),
        lambda x: torch.nn.functional.dropout(x, 1e-9, True),
        lambda x: x + 1e-15 * torch.randn_like(x),
        lambda x: x + (torch.rand(x.shape) > 1) * torch.randn_like(x),  # times zeros that are drawn
    ],
    ids=["compared", "in place", "dropout", "noise", "times drawn zeros"],
)
def test_random_numbers_that_do_not_show_prove_nothing(function: Any):
    found = parity.derive(net(function), net(lambda x: x), (images(3, 6),))
    assert not found.proven and found.error < 1e-8 and found.incomparable == SAID
    assert "is active in evaluation" in found.following
    again = parity.derive(net(lambda x: x), net(function), (images(3, 6),))
    assert again.incomparable == SAID.replace("left", "right")


def unread(x: Any) -> Any:
    torch.rand(3)
    return x


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.nn.functional.dropout(x, 0.0, True),
        lambda x: x * x.new_empty(len(x), 1).bernoulli_(1.0),
        unread,
        lambda x: x + 0.0 * torch.randn_like(x),
        lambda x: x + torch.zeros(()) * torch.randn(x.shape),
    ],
    ids=["dropout of 0", "a chance of 1", "unread", "times 0", "times zeros"],
)
def test_random_numbers_that_no_output_reads_and_sure_ones_are_no_difference(function: Any):
    assert parity.derive(net(function), net(lambda x: x), (images(3, 6),)).proven


@pytest.mark.parametrize("share", [0.0, 1e-9])
def test_random_numbers_of_paddle_are_found(share: float):
    paddle = pytest.importorskip("paddle")

    class Dropping(paddle.nn.Layer):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = paddle.nn.Linear(6, 6), paddle.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            x = self.a(x)
            x = x * (paddle.rand([len(x), 1]) > share).astype(x.dtype) if share else x
            return self.b(paddle.tanh(x))

    found = parity.derive(net(lambda x: x), Dropping(), (images(3, 6),))
    assert found.proven == (not share)
    assert found.incomparable == (SAID.replace("left", "right") if share else "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_numbers_of_jax_are_those_of_their_dtype(dtype: str):
    jax = pytest.importorskip("jax")

    def model(seed: int, share: float = 1.0) -> Any:
        def run(p: Any, x: Any) -> Any:
            drawn = jax.random.truncated_normal(jax.random.key(seed), -2, 2, (len(x), 6), dtype)
            return (x @ p["a"] + share * drawn.astype(x.dtype)) @ p["b"]

        return run, {"a": np.ones((6, 6)), "b": np.ones((6, 3))}

    plain = Net(lambda m, x: m.b(m.a(x)), a=linear(bias=False), b=linear(6, 3, bias=False))
    assert parity.derive(plain, model(0, share=0.0), (images(3, 6),)).proven
    assert parity.derive(model(0), model(0), (images(3, 6),)).proven
    assert not parity.derive(model(0), model(1), (images(3, 6),)).proven


def dropped(rate: float = 0.0) -> Any:
    def forward(m: Any, x: Any) -> Any:
        return m.b(torch.nn.functional.dropout(torch.tanh(m.a(x)), rate, training=True))

    return Net(forward, a=linear(4, 8), b=linear(8, 2))


def test_outputs_that_are_others_each_time_are_no_branch():
    found = parity.derive(dropped(), dropped(0.5), images(3, 4))
    assert not found.proven and "outputs are others each time: set dropout" in str(found), str(found)


@pytest.mark.parametrize("rate", [1e-6, 1e-3])
def test_dropout_that_drops_nothing_in_a_run_is_said_to_draw_random_numbers(rate: float):
    """Its scale is a factor of that run alone."""
    torch.manual_seed(0)
    found = parity.derive(dropped(rate), dropped(), images(3, 4))
    why = "outputs are those of random numbers, of which the left model draws new ones in each call"
    assert not found.proven and why in str(found) and "next: set dropout" in str(found), str(found)


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
