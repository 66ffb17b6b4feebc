"""Gradients in a proof: compared element by element, of large matrices, and where they have lost digits."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.conclude import conclusion, writing
from parity.derive.limits import FAINT_GRADIENTS, ROUNDED_GRADIENTS
from parity.derive.match import choices, symbols, walk
from parity.derive.match.symbols import Elements, Packed
from parity.derive.prove import freedom, gradients
from parity.derive.prove.gradients import Gradients
from parity.derive.prove.translated import TranslatedWeights
from parity.derive.search import candidates
from parity.derive.trace.call import call_of
from parity.derive.trace.draws import Drawn
from parity.derive.trace.outer import Outer
from parity.derive.trace.sides import side
from specs.table import Table

from ..conftest import needs
from .test_proof import models


def test_a_large_model_is_proven_in_pieces(monkeypatch: pytest.MonkeyPatch):
    """Its values are of float32, its map is packed, its elements are stored by steps, and its gradients in a file."""
    needs("torch")
    left, right, x = models()
    small = parity.derive(left, right, (x,))
    for room in (symbols, conclusion, writing, candidates, freedom):
        monkeypatch.setattr(room, "LARGE_MODEL", 1)
    monkeypatch.setattr(gradients, "LARGE_MODEL", 1)
    monkeypatch.setattr(symbols, "MANY", 1)
    monkeypatch.setattr(choices, "LISTED", 1)
    monkeypatch.setattr(walk, "LARGE_MATRIX", 1)
    large = parity.derive(left, right, (x,))
    assert large.proven and large.gradient is not None
    assert str(large.table).partition("\n# ")[0] == str(small.table).partition("\n# ")[0]
    assert large.unobservable == small.unobservable and large.freedom == small.freedom


@pytest.mark.parametrize("many", [1, 1000])
def test_gradients_are_compared_element_by_element(many: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gradients, "LARGE_MODEL", many)
    left = {"moved": np.arange(1.0, 7).reshape(2, 3), "split": np.arange(4.0), "twice": np.array([3.0, 5.0])}
    right = {"a": left["moved"].T, "b": left["split"][2:], "c": left["split"][:2], "d": left["twice"] / 2}
    right["e"] = right["d"]
    lefts, rights = Elements(left, known=False), Elements(right, known=False)
    numbers = {name: lefts.numbers(name) for name in left}
    parts = [numbers["moved"].T, numbers["split"][2:], numbers["split"][:2], numbers["twice"], numbers["twice"]]
    found = np.concatenate([[0], *map(np.ravel, parts)]).astype(np.int32)
    for name in (None, *right):
        grads = Gradients((found,), lefts, rights)
        for key, array in right.items():
            grads.keep(key, np.array([0.0, *np.ravel(array)[1:]]) if key == name else array)
        for key, array in left.items():
            grads.compare(key, array)
        assert (grads.error < 1e-12) == (name in (None, "c"))  # the first element of c is 0
        assert grads.used == left.keys()


def test_the_gradient_of_a_bias_of_keys_is_zero_up_to_rounding():
    """With a softmax in float32 it is a few 1e-6 of the others of its module; a real one that small still counts."""
    left = {
        "head.weight": np.array([7.4, 1.0]),
        "key.weight": np.array([0.06, 0.01]),
        "key.bias": np.array([1.2e-7, 0]),
    }
    lefts = Elements(left, known=False)
    found = np.concatenate([[0], *(lefts.numbers(name) for name in left)]).astype(np.int32)

    def error(bias: list[float]) -> float:
        grads = Gradients((found,), lefts, Elements(left, known=False))
        for name, array in (left | {"key.bias": np.array(bias)}).items():
            grads.keep(name, array)
        for name, array in left.items():
            grads.compare(name, array)
        return grads.error

    assert error([0.0, 0.0]) < ROUNDED_GRADIENTS and error([0.0, 6e-6]) > 0.05


def test_the_gradient_of_a_large_matrix_is_compared_with_that_of_its_transpose():
    shape, gradient = (300, 400), np.random.default_rng(0).standard_normal((300, 400))
    lefts, rights = (Elements({"w": np.zeros(s)}, known=False) for s in (shape, shape[::-1]))
    found = np.concatenate([[0], lefts.numbers("w").T.ravel()]).astype(np.int32)
    for change, maps in itertools.product((0.0, 1.0), (found, Packed(found, rights))):
        grads, other = Gradients((maps,), lefts, rights), gradient.T.copy()
        other[399, 299] += change
        grads.keep("w", other)
        grads.compare("w", gradient)
        assert (grads.error > 0.1) == bool(change)


LARGE = Outer(np.random.default_rng(0).standard_normal((1, 300)), np.random.default_rng(1).standard_normal((1, 400)))


TURNS = {  # how a right matrix has the elements of a left one
    "turned": lambda a: a.T,
    "permuted": lambda a: a[::-1],
    "reshaped": lambda a: a.reshape(150, 800),  # no product of matrices any more
    "mixed": lambda a: a.reshape(2, 150, 400).swapaxes(0, 1).reshape(300, 400)[:, np.arange(400) ^ 1],
}


@pytest.mark.parametrize("turn", TURNS)
def test_the_gradient_of_a_large_matrix_is_compared_as_a_product_of_small_ones(turn):
    every = np.asarray(LARGE)
    other = TURNS[turn](every)
    lefts, rights = (Elements({"w": np.zeros(a.shape)}, known=False) for a in (every, other))
    found = np.concatenate([[0], TURNS[turn](lefts.numbers("w")).ravel()]).astype(np.int32)
    for change, maps in itertools.product((0.0, 1.0), (found, Packed(found, rights))):
        grads, changed = Gradients((maps,), lefts, rights), other.copy()
        changed[-1, -1] += change
        grads.keep("w", changed)
        grads.compare("w", LARGE)
        assert (grads.error > 0.1) == bool(change)
    if turn == "turned":
        for change in (0.0, 1.0):
            columns = LARGE.columns + change * (np.arange(400) == 399)
            grads = Gradients((found,), lefts, rights)
            grads.keep("w", Outer(columns, LARGE.rows))
            grads.compare("w", LARGE)
            assert (grads.error > 0.1) == bool(change)


def test_large_weights_are_drawn_in_float32_and_added_in_float64(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    import torch

    monkeypatch.setattr("parity.derive.trace.draws.LARGE_DRAW", 12)
    left = side(torch.nn.LSTM(3, 3), call_of(np.zeros((1, 3))))
    right = side(torch.nn.Linear(3, 12), call_of(np.zeros((1, 3))))
    weights = Drawn(left, 0)
    biases = weights["bias_ih_l0"], weights["bias_hh_l0"]
    assert biases[0].dtype == np.float32
    table = Table.parse(
        "table 1\nbias_ih_l0: o + bias_hh_l0: o -> bias: o\nweight_ih_l0: o i + weight_hh_l0: o i -> weight: o i"
    )
    total = TranslatedWeights(table, left, right, weights)["bias"]
    np.testing.assert_array_equal(total, np.sum(biases, 0, float))


def test_gradients_that_have_lost_digits_are_not_compared(monkeypatch: pytest.MonkeyPatch):
    """Behind a softmax of large values they are a part of 1e-11 of the outputs: smaller weights are drawn."""
    needs("torch")
    import torch

    from parity.derive.prove import prove

    class Sharp(torch.nn.Sequential):
        def forward(self, x: Any) -> Any:
            return (270 * super().forward(x)).softmax(-1)

    drawn, draw = [], prove._draw

    def spy(*args: Any) -> Any:
        result = draw(*args)
        drawn.append((args[-1], result.grads.largest > FAINT_GRADIENTS))
        return result

    monkeypatch.setattr(prove, "_draw", spy)
    layers = [lambda: torch.nn.Linear(6, 6, bias=False), torch.nn.Tanh, lambda: torch.nn.Linear(6, 4, bias=False)]
    left, right = (Sharp(*(layer() for layer in layers)) for _ in range(2))
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((1, 6)),))
    assert found.proven and drawn == [(1.0, False), (0.5, True), (0.5, True)]


def test_gradients_that_one_model_clips_are_a_difference():
    needs("torch")
    import torch

    from .test_kinds_matching import Net, linear

    class Clipped(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            return x.clone()

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            return gradient.clamp(-100, 100)

    def net(function: Any) -> Net:
        return Net(lambda m, x: m.b(function(m.a(x)).tanh()), a=linear(), b=linear())

    found = parity.derive(net(lambda x: x), net(Clipped.apply), (np.random.default_rng(0).standard_normal((3, 6)),))
    assert not found.proven and found.error < 1e-12 and {*found.other_gradients} == {"a.weight", "a.bias"}


def pooled(library: Any, change: Callable[[Any, Any], Any]) -> Any:
    """Return a model of paddle or torch that adds the difference of a pooled norm, of which a bias has no effect."""
    paddle = library.__name__ == "paddle"
    nn, norm = library.nn, "epsilon" if paddle else "eps"
    pool = {"exclusive": True} if paddle else {"count_include_pad": False}
    base = nn.Layer if paddle else nn.Module

    class Pooled(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.stem = (nn.Conv2D if paddle else nn.Conv2d)(3, 8, 3)
            self.norm = nn.GroupNorm(1, 8, **{norm: 1e-5})
            self.pool = (nn.AvgPool2D if paddle else nn.AvgPool2d)(3, 1, 1, **pool)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            y = self.norm(x)
            x = library.tanh(change(x + self.pool(y) - y, self.norm))
            return self.head(x.mean([2, 3]))

    return Pooled()


def same(x: Any, norm: Any) -> Any:
    return x


@pytest.mark.parametrize("first", [True, False])
def test_paddles_rounding_of_gradients_of_average_pooling_is_no_difference(first: bool):
    paddle, torch = (pytest.importorskip(name) for name in ("paddle", "torch"))
    pair = pooled(paddle, same), pooled(torch, same)
    x = np.random.default_rng(0).standard_normal((2, 3, 14, 14))
    found = parity.derive(*(pair if first else pair[::-1]), (x,))
    assert found.proven and found.unobservable == ["norm.bias"], str(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, norm: x + 1e-3 * (norm.bias - norm.bias.detach()).sum(),  # no output depends on it
        lambda x, norm: x + 1e-3 * (norm.weight - norm.weight.detach()).sum(),
        lambda x, norm: x.detach(),
    ],
    ids=["idle bias", "weight", "cut"],
)
@pytest.mark.parametrize("left", ["paddle", "torch"])
def test_gradients_that_rounding_does_not_explain_are_a_difference(change: Any, left: str):
    paddle, torch = (pytest.importorskip(name) for name in ("paddle", "torch"))
    pair = pooled(paddle, same), pooled(torch, change)
    x = np.random.default_rng(0).standard_normal((2, 3, 14, 14))
    found = parity.derive(*(pair if left == "paddle" else pair[::-1]), (x,))
    assert not found.proven and "gradients differ" in str(found), str(found)


def test_small_gradients_of_what_no_output_depends_on_are_rounding():
    sizes = {"norm.weight": np.array([1.0]), "norm.bias": np.array([1e-8])}
    lefts = Elements(sizes, known=False)
    grads = Gradients((np.arange(3),), lefts, Elements(sizes, known=False))
    for name, array in sizes.items():
        grads.keep(name, array if name == "norm.weight" else 0 * array)
    for name, array in sizes.items():
        grads.compare(name, array)
    assert grads.noise == ["norm.bias"] and grads.error > 1e-6 and grads.shows("norm.bias")
    grads.leave_out(["norm.bias"])
    assert not grads.error and not grads.shows("norm.bias") and grads.shows("norm.weight")


@pytest.mark.parametrize(("library", "cast"), [("torch", False), ("torch", True), ("paddle", False), ("paddle", True)])
def test_a_detached_share_shows_beside_a_cast_that_can_be_left_out(library: str, cast: bool):
    """One model cuts a share of 1e-5: beside a cast to float32 that stays, in both, rounding may be as large."""
    needs(library)
    lib = importlib.import_module(library)
    layer = lib.nn.Module if library == "torch" else lib.nn.Layer

    class Cut(layer):
        def __init__(self, share: float):
            super().__init__()
            self.share, self.up, self.down = share, lib.nn.Linear(8, 8), lib.nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            y = lib.tanh(self.up(x))
            y = y.detach() * self.share + y * (1 - self.share)
            low = y.float().to(x.dtype) if library == "torch" else y.astype("float32").astype(x.dtype)
            return self.down(lib.tanh(low if cast else y))

    found = parity.derive(Cut(0.0), Cut(1e-5), (np.random.default_rng(0).standard_normal((3, 8)),))
    rounds = cast and library == "paddle"  # whose casts no run leaves out
    assert found.proven == rounds and found.gradient is not None and 1e-6 < found.gradient < ROUNDED_GRADIENTS
    said = ", as the models compute, partly in lower precision"
    assert (said in str(found.table)) == rounds and (said in str(found).splitlines()[0]) == rounds
