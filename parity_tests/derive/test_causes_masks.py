"""Causes in what is computed from inputs alone, or at random, and in which positions are taken."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.search import edited
from parity_tests.conftest import needs

from .pairs import images
from .test_kinds_matching import Net, linear

MASK = np.arange(6) < np.array([[6], [4], [3]])


def attention(mask: str, scale: float = 0.5) -> Net:
    """Attention that hides places by a mask which is an input: not at all, by masked_fill, or by a sum."""

    def heads(x: Any) -> Any:
        return x.reshape(3, 6, 2, 4).transpose(1, 2)

    def forward(m: Any, x: Any, keep: Any) -> Any:
        scores = scale * heads(m.q(x)) @ heads(m.k(x)).mT
        if mask == "filled":
            scores = scores.masked_fill(keep[:, None, None] == 0, -1e4)
        if mask == "added":
            scores = scores + (1 - keep[:, None, None].to(x.dtype)) * -1e4
        return m.head(x + m.out((scores.softmax(-1) @ heads(m.v(x))).transpose(1, 2).reshape(3, 6, 8)))

    return Net(forward, **{name: linear(8, 8) for name in ("q", "k", "v", "out")}, head=linear(8, 5))


@pytest.mark.parametrize("kind", ["filled", "added"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_mask_of_an_input_that_one_side_ignores_is_named(kind: str, swapped: bool):
    sides = (attention(kind), attention("none"))[:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(3, 6, 8), MASK.astype(np.int64)))
    (place,) = found.divergences
    has, lacks = ("right", "left") if swapped else ("left", "right")
    assert place.what == f"the {has} applies a mask that hides 5 of 18 places, the {lacks} does not"
    assert found.confirmed and (place.left, place.right) == ("out", "out")


def test_masks_of_integers_are_no_buckets_of_distances():
    """Of two rows, the last places of both are masked, so that each place equals that one step along the diagonal."""

    def net(fill: int) -> Net:
        def run(m: Any, ids: Any) -> Any:
            x = m.words(ids)
            return m.head((m.q(x) @ m.k(x).mT + ((ids == 0) * fill)[:, None]).softmax(-1) @ x)

        return Net(run, words=torch.nn.Embedding(9, 6), q=linear(), k=linear(), head=linear())

    found = parity.derive(net(-5), net(-1000), (np.array([[3, 4, 5, 6, 0, 0], [7, 8, 1, 3, 2, 0]]),))
    (place,) = found.divergences
    assert place.what == "masked places get -5 on the left, -1e3 on the right" and place.kind == "mask"


def test_a_scale_of_attention_is_named_so_before_a_mask():
    found = parity.derive(attention("filled"), attention("filled", 0.25), (images(3, 6, 8), MASK.astype(np.int64)))
    (place,) = found.divergences
    assert place.what == "the scores before the softmax have a factor of 0.5 on the left, 0.25 on the right"
    assert place.kind == "attention scale"


def dropping(rate: float) -> Net:
    keep = np.random.default_rng(0).random((4, 8)) >= rate
    factors = torch.tensor(keep / (1 - rate))
    return Net(lambda m, x: m.out(torch.tanh(m.first(x)) * factors.to(x.dtype)), first=linear(5, 8), out=linear(8, 3))


def test_dropout_that_one_side_applies_is_named():
    plain = Net(lambda m, x: m.out(torch.tanh(m.first(x))), first=linear(5, 8), out=linear(8, 3))
    found = parity.derive(plain, dropping(0.25), (images(4, 5),))
    (place,) = found.divergences
    what = "the right applies a random mask that zeroes 7 of 32 values, as dropout does, the left does not"
    assert place.what == what and found.confirmed


def pooled(pool: Any) -> Net:
    return Net(lambda m, x: m.head(pool(m.norm(x + m.first(x)))), first=linear(8, 8), norm=torch.nn.LayerNorm(8),
               head=linear(8, 5))  # fmt: skip


POOLS = {
    "a mean": (lambda x: x.mean(1), "the mean over 6 positions"),
    "a mean of the rest": (lambda x: x[:, 1:].mean(1), "the mean over the last 5 of 6 positions"),
    "a maximum": (lambda x: x.amax(1), "the maximum over 6 positions"),
}


@pytest.mark.parametrize(("pool", "words"), POOLS.values(), ids=POOLS)
def test_a_token_and_a_mean_over_tokens_behind_a_norm_are_told_apart(pool: Any, words: str):
    found = parity.derive(pooled(lambda x: x[:, 0]), pooled(pool), (images(3, 6, 8),))
    (place,) = found.divergences
    assert place.what == f"position 0 of 6 on the left, {words} on the right"
    assert found.confirmed and not found.missing


def test_a_row_of_padding_that_paddle_reads_as_zeros_is_named():
    needs("paddle")
    import paddle

    def model(of: Any, **padding: int) -> Any:
        class Model(torch.nn.Module if of is torch else paddle.nn.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.words, self.positions = of.nn.Embedding(10, 6, **padding), of.nn.Embedding(7, 6)
                self.norm, self.out = of.nn.LayerNorm(6), of.nn.Linear(6, 5)

            def forward(self, ids: Any) -> Any:
                return self.out(self.norm(self.words(ids) + self.positions(of.arange(ids.shape[1]))))

        return Model()

    ids = np.random.default_rng(0).integers(0, 10, (2, 7))
    assert (ids == 6).sum() == 3 and not (ids == 4).any()
    plain, padded = model(torch), model(paddle, padding_idx=6)
    for pair, sides in (((plain, padded), ("right", "left")), ((padded, plain), ("left", "right"))):
        found = parity.derive(*pair, (ids,))
        assert not found.missing and found.confirmed
        what = "the {} applies a mask of token 6 (padding_idx), the {} does not"
        assert [place.what for place in found.divergences] == [what.format(*sides)]
    assert parity.derive(padded, model(paddle, padding_idx=6), (ids,)).proven
    found = parity.derive(plain, model(paddle, padding_idx=4), (ids,))
    assert found.proven and found.absent.startswith("4, which no input has")


@pytest.mark.parametrize("swapped", [False, True])
def test_rows_of_padding_are_named_where_three_tables_are_added(swapped: bool):
    """Without the mask all three are one sum, so that the use at which the models part is none of its own any more."""

    def model(masked: bool) -> Net:
        def forward(m: Any, ids: Any, kinds: Any) -> Any:
            words = m.words(ids) * (ids != 0)[..., None] if masked else m.words(ids)
            return m.out(m.norm(words + m.positions(torch.arange(ids.shape[1])) + m.kinds(kinds)))

        tables = {name: torch.nn.Embedding(n, 6) for name, n in (("words", 10), ("positions", 7), ("kinds", 3))}
        return Net(forward, **tables, norm=torch.nn.LayerNorm(6), out=linear(6, 5))

    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 10, (2, 7)), rng.integers(0, 3, (2, 7))
    sides, zeros = ("left", "right")[:: -1 if swapped else 1], int((inputs[0] == 0).sum())
    found = parity.derive(model(swapped), model(not swapped), inputs)
    (place,) = found.divergences
    what = f"the {sides[1]} applies a mask that hides {zeros} of 14 places, the {sides[0]} does not"
    assert zeros and not found.missing and found.confirmed and place.what == what


def biased(mask: str, hidden: int = 2, number: float = -100.0, scale: float = 1.0, epsilon: float = 1e-5) -> Net:
    """Attention with a table of biases, and a mask from a diagonal on: "none", or one to "add" or "fill"."""

    def forward(m: Any, x: Any) -> Any:
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        scores, hides = q @ k.mT + m.bias, torch.ones(6, 6).triu(hidden) > 0
        if mask == "fill":
            scores = scores.masked_fill(hides, number)
        if mask == "add":
            scores = scores + number * hides.to(x.dtype)
        y = x + scale * m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return m.head(torch.nn.functional.layer_norm(y, (8,), m.norm.weight, m.norm.bias, epsilon))

    layers = {name: linear(8, 8) for name in ("q", "k", "v", "out")}
    bias = torch.nn.Parameter(torch.randn(2, 6, 6))
    return Net(forward, **layers, bias=bias, norm=torch.nn.LayerNorm(8), head=linear(8, 5))


HIDES = "the right applies a mask that hides {} of 36 places, the left does not"
HIDE = "a mask hides 10 of 36 places on the left, {} on the right; the first that differs is [0, {}]"


@pytest.mark.parametrize(("left", "kind", "settings", "whats"), [
    ("none", "add", ({"hidden": 1}, {"hidden": 5}), (HIDES.format(15), HIDES.format(1))),
    ("add", "fill", ({"hidden": 1},), (HIDE.format(15, 1),)),
    ("add", "fill", ({"number": -3.0}, {"number": -9.0}),
     ("masked places get -100 on the left, -3 on the right", "masked places get -100 on the left, -9 on the right")),
    ("add", "fill", ({"scale": 0.9}, {"scale": 0.999}),
     ("a factor of 1 on the left, 0.9 on the right", "a factor of 1 on the left, 0.999 on the right")),
    ("add", "fill", ({"epsilon": 1e-4},), ("epsilon 1e-5 on the left, 1e-4 on the right",)),
])  # fmt: skip
def test_causes_in_sums_have_the_size_of_what_reads_the_sum(left: str, kind: str, settings: Any, whats: Any):
    """Scores, biases and a mask are one sum where the mask is added; a mask that fills, or a factor, ends a sum."""
    sizes = []
    for setting, what in zip(settings, whats, strict=True):
        torch.manual_seed(0)
        (place,) = parity.derive(biased(left), biased(kind, **setting), (images(3, 6, 8),)).divergences
        assert place.what == what and place.whole
        sizes.append(place.size)
    assert sizes[0] < 1 and all(size < sizes[0] / 1.5 for size in sizes[1:])


def test_other_fills_of_masks_are_named_with_the_scores_for_which_outputs_are_equal():
    torch.manual_seed(0)
    found = parity.derive(biased("add", number=-1e30), biased("fill", number=-np.inf), (images(3, 6, 8),))
    assert found.proven and not found.fills
    found = parity.derive(biased("add"), biased("fill", number=-np.inf), (images(3, 6, 8),))
    which = "masked places get -100 added on the left, -inf on the right: outputs are equal with scores up to "
    assert which in str(found) and which in found.table.print() and found.to_dict()["fills"] == found.fills
    equal, apart, unlike = map(float, re.findall(r"(?:up to|by) ([\d.e-]+)", found.fills))
    assert 5 < equal < unlike and unlike > 100 and 0.01 < apart < 2


def test_a_term_without_a_partner_is_said_to_have_other_terms_beside_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(edited, "EDIT_WORK", 0)  # else what differs is removed, and the matching goes on

    def net(of: Any, *shape: int) -> Net:
        bias = torch.nn.Parameter(torch.randn(*shape))
        return Net(lambda m, x: m.out(torch.tanh(of(m.fc(x)) + m.bias)), fc=linear(), bias=bias, out=linear())

    found = parity.derive(net(torch.sin, 6), net(lambda x: (3 * x).exp().cumsum(-1), 6, 6), (images(4, 6, 6),))
    assert found.stop and found.stop.names == ("bias",)
    assert found.stop.why.startswith("no sum on the left has the same other terms as its sum at ")
    assert found.stop.before.startswith("the other terms of the sum (a mask that one model adds and the other fills), ")


def _in_groups(grouped: bool, diagonal: int) -> Any:
    """Return an attention whose scores are (b h q k), or (b g h q k), with a mask of what lies behind a diagonal."""

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (torch.nn.Linear(8, 8) for _ in range(3))
            self.out = torch.nn.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            q, k, v = (part(x).unflatten(2, (4, 2)).transpose(1, 2) for part in (self.q, self.k, self.v))
            hidden = torch.ones(5, 5, dtype=torch.bool).triu(diagonal)
            scores = q @ k.mT
            if grouped:
                weights = scores.unflatten(1, (2, 2)).masked_fill(hidden, -torch.inf).softmax(-1).flatten(1, 2)
            else:
                weights = (scores + torch.zeros(5, 5).masked_fill(hidden, -torch.inf)).softmax(-1)
            return self.out((weights @ v).transpose(1, 2).flatten(2))

    return Attention()


def test_masks_of_scores_of_other_ranks_are_compared():
    """One cause, and not the mask of each side as what the other side lacks."""
    found = parity.derive(_in_groups(False, 1), _in_groups(True, 2), (images(2, 5, 8),))
    cause = "a mask hides 10 of 25 places on the left, 6 on the right; the first that differs is [0, 1] (recomputed so"
    assert [place.cause.startswith(cause) for place in found.divergences] == [True], str(found)
