"""Masks that are given as inputs: of floats and of truth values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
X = images(2, 4, 6)
MASK = np.array([[1, 1, 0, 1], [1, 0, 1, 1]])
CAUSAL = np.tril(np.ones((4, 4), bool))
ADDITIVE = {str(low): np.where(CAUSAL, 0, low).astype(np.float32) for low in (-np.inf, -1e9, np.finfo("f").min)}


def net(function: Any) -> Net:
    """Return two layers with a function of (values, mask) between them."""
    return Net(lambda m, x, mask: m.b(function(m.a(x).tanh(), mask)), a=linear(), b=linear(6, 3))


def multiplied(x: Any, mask: Any) -> Any:
    return x * mask[..., None]


def chosen(x: Any, mask: Any) -> Any:
    return torch.where(mask[..., None] > 0, x, 0.0)


def attended(x: Any, mask: Any) -> Any:
    return (x @ x.mT + mask).softmax(-1) @ x


@pytest.mark.parametrize("kind", ["float32", "bool", "int64"])
def test_a_mask_of_any_kind_keeps_its_values(kind: str):
    found = parity.derive(net(multiplied), net(chosen), (X, MASK.astype(kind)))
    assert found.proven
    assert found.kept == [
        "the given values of input 2 on the left and the right, as its two values are taken for a mask"
    ]


def test_a_mask_that_hides_places_anywhere_is_moved():
    """No row of the mask hides the first place, which one model never does."""

    def scores(x: Any, mask: Any) -> Any:
        return (x @ x.mT).masked_fill(mask[:, None] == 0, -1e9).softmax(-1) @ x

    def first_is_shown(x: Any, mask: Any) -> Any:
        return scores(x, torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], 1))

    found = parity.derive(net(first_is_shown), net(scores), (X, MASK))
    assert not found.proven and found.incomparable.startswith("equal only for the given values of input 2: with ")
    assert parity.derive(net(scores), net(scores), (X, MASK)).proven


@pytest.mark.parametrize("low", ADDITIVE)
def test_a_mask_that_is_added_keeps_its_values(low: str):
    found = parity.derive(net(attended), net(attended), (X, ADDITIVE[low]))
    assert found.proven and len(found.kept) == 1


def test_a_mask_that_is_added_goes_to_the_right_input_with_other_axes():
    def turned(x: Any, mask: Any) -> Any:
        return (x @ x.mT + mask.mT).softmax(-1) @ x

    mask = ADDITIVE["-inf"]
    assert parity.derive(net(attended), net(turned), (X, mask), (X, mask.T)).proven


def test_two_numbers_that_hide_nothing_are_drawn():
    found = parity.derive(net(multiplied), net(chosen), (X, np.where(MASK, 1.0, 2.0)))
    assert not found.proven and not found.kept


def ignored(x: Any, mask: Any) -> Any:
    return x


def of_the_first(x: Any, mask: Any) -> Any:
    return x * mask[:1, :, None]


def by_length(x: Any, mask: Any) -> Any:
    return x * (torch.arange(x.shape[1]) < mask.sum(1, keepdim=True))[..., None]


ONES = np.ones((2, 4))
ALIKE = np.array([[1, 1, 0, 1], [1, 1, 0, 1]])
PADDED = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.mark.parametrize("kind", ["float32", "bool", "int64"])
@pytest.mark.parametrize(("mask", "other"), [(ONES, ignored), (ALIKE, of_the_first)], ids=["ones", "alike"])
def test_a_mask_with_another_edge_tells_models_apart(mask: Any, other: Any, kind: str):
    for pair in ((multiplied, other), (other, multiplied)):
        found = parity.derive(*map(net, pair), (X, mask.astype(kind)))
        assert not found.proven and found.error < 1e-12
        assert found.incomparable.startswith("equal only for the given values of input 2: with another one there they")
        assert found.following.startswith("give inputs whose rows differ there")


def test_kinds_of_tokens_that_one_model_ignores_tell_them_apart():
    def typed(read: bool) -> Net:
        def run(m: Any, x: Any, kinds: Any) -> Any:
            return m.b(m.a(x) + m.c(kinds if read else torch.zeros_like(kinds)))

        return Net(run, a=linear(), b=linear(6, 3), c=torch.nn.Embedding(2, 6))

    kinds = np.zeros((2, 4), int)
    assert "given values of input 2" in parity.derive(typed(True), typed(False), (X, kinds)).incomparable
    assert parity.derive(typed(True), typed(True), (X, kinds)).proven


@pytest.mark.parametrize("mask", [ONES, PADDED], ids=["ones", "padded"])
def test_a_mask_for_padding_stays_one(mask: Any):
    """Lengths and masks of truth values agree on all that hide the end."""
    assert parity.derive(net(multiplied), net(by_length), (X, mask.astype(int))).proven


class OfTwo(Net):
    """A model that hides keys by one input, and values by another one; -1: it does not hide these."""

    def __init__(self, keys: int, values: int) -> None:
        super().__init__(None, a=linear(), b=linear(6, 3))
        self.picked = keys, values

    def forward(self, x: Any, *masks: Any, **named: Any) -> Any:
        masks = (*masks, *named.values())
        keys, values = (masks[k][..., None] if k >= 0 else 1 for k in self.picked)
        return self.b((self.a(x).tanh() * keys).cumsum(1) * values)


@pytest.mark.parametrize("turned", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("names", [("", ""), ("mask", "other"), ("hidden", "mask")])
def test_masks_of_equal_values_go_together_by_name_and_else_in_any_way(names: tuple[str, str], turned: bool):
    """A second mask of one side alone is none of the other's, or the same: Flax asks for both of an encoder-decoder."""
    ones = np.ones((2, 4), int)
    own, two = [(X, ones), (X, ones, ones)] if not names[0] else [
        parity.Call(X, mask=ones), parity.Call(X, **dict.fromkeys(names, ones))]  # fmt: skip
    place = names.index("mask") if names[0] else 0

    def found(first: int, second: int, keys: int, values: int) -> Any:
        models, inputs = (OfTwo(first, second), OfTwo(keys, values)), (own, two)
        models, inputs = (models[::-1], inputs[::-1]) if turned else (models, inputs)
        return parity.derive(*models, *inputs)

    assert found(0, -1, place, 1 - place).proven, "the second one hides nothing"
    assert found(0, 0, place, 1 - place).proven, "the second one is the same"
    differing = found(0, -1, 1 - place, 1 - place)
    assert not differing.proven and "equal only for the given values of" in differing.incomparable


COUNTED = {"zero": lambda mask: mask.cumsum(-1) * mask, "the one before": lambda mask: mask.cumsum(-1)}


@pytest.mark.parametrize("hidden", COUNTED)
@pytest.mark.parametrize("mask", [ONES, PADDED], ids=["ones", "padded"])
def test_positions_of_one_side_alone_follow_a_mask_with_another_edge(mask: Any, hidden: str):
    """OPT counts what its mask shows in torch, and is given these positions in Flax."""
    mask, count = mask.astype(int), COUNTED[hidden]

    def model(function: Any) -> Net:
        return Net(function, a=linear(), b=linear(6, 3), c=torch.nn.Embedding(6, 6))

    counting = model(lambda m, x, mask: m.b(m.a(x).tanh() + m.c(count(mask))))
    given = model(lambda m, x, mask, at: m.b(m.a(x).tanh() + m.c(at)))
    masked = model(lambda m, x, mask, at: m.b((m.a(x) * mask[..., None]).tanh() + m.c(at)))
    inputs = (X, mask), (X, mask, count(mask))
    assert parity.derive(counting, given, *inputs).proven
    assert not parity.derive(counting, masked, *inputs).proven


def filled(low: float) -> Any:
    """Return attention in which masked places get a number."""

    def attend(x: Any, mask: Any) -> Any:
        return (9 * x @ x.flip(-1).mT).masked_fill(mask[:, None] == 0, low).softmax(-1) @ x

    return attend


SHORTER = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize("low", [-1e4, -1e9, -np.inf])
def test_a_fill_that_scores_may_pass_is_a_difference(low: float):
    for pair in ((filled(-30.0), filled(low)), (filled(low), filled(-30.0))):
        found = parity.derive(*map(net, pair), (X, SHORTER))
        assert not found.proven and "4 times as large" in found.incomparable, str(found)


def test_fills_that_no_score_passes_are_no_difference():
    found = parity.derive(net(filled(-1e4)), net(filled(-1e9)), (X, SHORTER))
    assert found.proven and not found.absent, str(found)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (filled(-np.inf), "outputs of the {} model alone are NaN"),
        (lambda x, mask: (9 * x @ x.flip(-1).mT - 1e9 * (1 - mask[:, None])).softmax(-1) @ x, "outputs differ by "),
        (filled(-1e5), ""),
    ],
    ids=["infinite", "added", "filled"],
)
@pytest.mark.parametrize("turned", [False, True], ids=["right", "left"])
def test_rows_that_a_mask_hides_whole_are_tried(other: Any, said: str, turned: bool):
    pair = filled(-1e9), other
    found = parity.derive(*map(net, pair[::-1] if turned else pair), (X, SHORTER))
    text = (
        f"rows of one value in input 2, as where it hides all: with one, {said.format('left' if turned else 'right')}"
    )
    assert found.proven and found.absent.startswith(text if said else "") and bool(found.absent) == bool(said), str(
        found
    )
