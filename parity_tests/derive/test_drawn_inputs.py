"""Inputs that a proof draws anew, and those that it keeps and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear
from .test_proof_inputs import Picked

torch = pytest.importorskip("torch")


TOKENS = np.array([[2, 0, 5, 1], [4, 3, 0, 2]])


class Words(torch.nn.Module):
    """An embedding and a dense layer.

    Args:
      last: whether each row has to end on its largest token. offset: what is taken from each token.
    """

    def __init__(self, last: bool = False, offset: int = 0):
        super().__init__()
        self.last, self.offset = last, offset
        self.words, self.down = torch.nn.Embedding(8, 5), torch.nn.Linear(5, 3)

    def forward(self, ids: Any) -> Any:
        if self.last and not bool((ids[:, -1] == ids.max(1).values).all()):
            raise ValueError("a row has no end")
        return self.down(self.words(ids - self.offset)).sum(1)


def test_tokens_that_a_model_refuses_otherwise_are_named():
    ends = np.concatenate([TOKENS, [[6], [6]]], 1)
    found = parity.derive(Words(), Words(last=True), (ends,))
    assert found.proven
    assert (
        "kept in the proof: the given values of input 1 on the left and the right, as other tokens are refused: "
        in str(found)
    )
    assert "a row has no end" in str(found) and found.to_dict()["kept"] == list(found.kept)
    assert "# kept in the proof: the given values of input 1" in found.table.print()


def test_tokens_that_are_made_from_the_other_sides_are_named():
    found = parity.derive(Words(), Words(offset=1), parity.Call(ids=TOKENS), (TOKENS + 1,))
    assert found.proven
    assert found.kept == [
        "the given values of ids on the left, input 1 on the right, as no order of axes makes one side's of the other's"
    ]


class Moded(torch.nn.Linear):
    def forward(self, x: Any, mode: Any = None, causal: bool = False) -> Any:
        return super().forward(x)


class Masked(torch.nn.Linear):
    def forward(self, x: Any, fill_mode: Any = None, mask: Any = None, unmode: Any = None) -> Any:
        return super().forward(x)


def test_plain_numbers_and_settings_are_named():
    class Scaled(torch.nn.Linear):
        def forward(self, x: Any, scale: float = 1.0, causal: bool = False, step: int = 0) -> Any:
            return super().forward(x) * scale + step

    x = np.random.default_rng(0).standard_normal((4, 6))
    found = parity.derive(Scaled(6, 5), Scaled(6, 5), parity.Call(x, scale=0.5, causal=True, step=3))
    said = "as plain numbers are not drawn: give arrays of one element to vary them"
    both = "on the left and the right"
    assert found.proven and found.kept == [f"the given values of scale {both}, step {both}, {said}"]
    assert "# proven for causal=True alone: flags, texts and None are never varied\n" in found.table.print()
    given = parity.Call(x, mode="plain"), (x, None, False)
    found = parity.derive(Moded(6, 5), Moded(6, 5), *given)
    assert found.settings == "mode=plain on the left, input 2=None and input 3=False on the right", str(found)
    assert not parity.derive(Moded(6, 5), Moded(6, 5), (x,), given[1]).settings  # one side has no choice
    neither = [parity.derive(Moded(6, 5), right, (x,)).settings for right in (Moded(6, 5), Masked(6, 5))]
    assert neither == ["mode=None", "mode=None (fill_mode on the right)"]  # which no call gives
    assert parity.derive(Masked(6, 5), Masked(6, 5), (x,)).settings == "fill_mode=None, mask=None and unmode=None"


def test_tokens_that_are_drawn_are_not_named():
    found = parity.derive(Words(), Words(), (TOKENS,))
    assert found.proven and not found.kept and "kept" not in found.table.print()


@pytest.mark.parametrize("stored", [(True, False), (False, True)], ids=["left", "right"])
def test_integers_of_one_side_are_named_as_kept(stored: tuple[bool, bool]):
    found = parity.derive(*map(Picked, stored), (np.random.default_rng(0).standard_normal((5, 4)),))
    assert found.proven
    comment = "# kept at the model's own values, since the other side has no array for it: order\n"
    assert comment in found.table.print()


def test_integers_with_a_partner_are_not_named_as_kept():
    found = parity.derive(Picked(True), Picked(True), (np.random.default_rng(0).standard_normal((5, 4)),))
    assert found.proven and "order: a <-> order: a" in found.table.print() and "kept" not in found.table.print()


@pytest.mark.parametrize("first", [True, False], ids=["hidden", "shown"])
def test_a_mask_is_one_whichever_place_comes_first(first: bool):
    from parity.derive.trace.precomputed import masks

    mask = np.triu(np.full((3, 3), -1e9), 1)
    assert masks({"mask": mask[:, ::-1] if first else mask}) == ["mask"]


@pytest.mark.parametrize(("low", "hides"), [(-1e9, True), (-100.0, True), (-99.0, False)])
def test_stored_masks_and_given_ones_hide_places_by_the_same_numbers(low: float, hides: bool):
    from parity.derive.trace.inputs import of_mask
    from parity.derive.trace.precomputed import masks

    mask = np.triu(np.full((3, 3), low), 1)
    assert of_mask(mask) == hides and masks({"mask": mask}) == ["mask"] * hides


class Timed(torch.nn.Module):
    """A dense layer and a table of waves of a time, each slower than the one before by a factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor, self.up = factor, torch.nn.Linear(4, 3)

    def forward(self, x: Any, t: Any) -> Any:
        return torch.tanh(self.up(x)) + torch.sin(t[:, None] * self.factor ** torch.arange(3.0, dtype=x.dtype))


@pytest.mark.parametrize(
    ("times", "why"),
    [
        (np.zeros(4), "each has one value alone, so that no other one was tested: give random numbers"),
        (np.zeros(4, int), "each has one value alone, so that neither other tokens and their order were tested, nor"),
        (np.array([0, 0, 0, 7]), "its two values are taken for a mask"),
    ],
    ids=["zeros", "whole", "two"],
)
def test_inputs_that_the_proof_does_not_draw_are_named(times: Any, why: str):
    found = parity.derive(Timed(0.1), Timed(0.1), (np.random.default_rng(0).standard_normal((4, 4)), times))
    assert found.proven
    (said,) = found.kept
    assert said.startswith(f"the given values of input 2 on the left and the right, as {why}")
    assert said in str(found) and said in found.table.print() and found.to_dict()["kept"] == [said]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_raw_key_of_jax_is_named_as_a_key(seed: int):
    needs("flax")
    import jax

    def net(p: Any, x: Any, key: Any) -> Any:
        return jax.numpy.tanh(x @ p["w"]) + jax.random.normal(key, (3,)) * p["b"]

    p = {"w": images(4, 3), "b": images(3)}
    found = parity.derive((net, p), (net, p), (images(5, 4), jax.random.PRNGKey(seed)))
    assert found.proven
    (said,) = found.kept
    assert "its integers of 32 bits are taken for a key of random numbers" in said, said


class Embedded(torch.nn.Module):
    """Tokens with a mask, or types of tokens, by which their vectors are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(9, 4)

    def forward(self, ids: Any, mask: Any) -> Any:
        return self.embed(ids) * mask[..., None]


@pytest.mark.parametrize("mask", [np.ones((2, 5), int), np.ones((2, 5), bool)], ids=["int", "bool"])
def test_a_mask_of_ones_is_not_said_to_leave_tokens_untested(mask: Any):
    """Tokens of several values stand beside it."""
    found = parity.derive(Embedded(), Embedded(), (np.random.default_rng(0).integers(0, 9, (2, 5)), mask))
    (said,) = found.kept
    assert "no other one was tested, such as a place that a mask hides" in said and "neither other tokens" not in said


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_right_gets_inputs_of_one_value_in_its_order_of_axes(value: float):
    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv1d(3, 4, 3)

        def forward(self, x: Any) -> Any:
            return self.conv(x.transpose(1, 2)).transpose(1, 2)

    found = parity.derive(torch.nn.Conv1d(3, 4, 3), Last(), (np.full((2, 3, 9), value),))
    assert found.proven, str(found)


def test_a_lone_number_is_drawn():
    x = np.random.default_rng(0).standard_normal((1, 4))
    assert parity.derive(Timed(0.1), Timed(0.1), (x, np.ones(1))).kept == []
    found = parity.derive(Lone(1), Lone(2), (x, np.ones(1)))
    assert not found.proven and found.error > 1e-3


def test_a_lone_number_is_kept_where_a_model_refuses_others():
    found = parity.derive(Lone(1), Lone(1, True), (np.random.default_rng(0).standard_normal((1, 4)), np.ones(1)))
    assert found.proven and len(found.kept) == 1 and "each has one value alone" in found.kept[0]


class Lone(torch.nn.Module):
    """A dense layer and a power of a time, which is 1 at the time 1.

    Args:
      whole: whether the time has to be a whole number.
    """

    def __init__(self, power: int, whole: bool = False):
        super().__init__()
        self.power, self.whole, self.up = power, whole, torch.nn.Linear(4, 3)

    def forward(self, x: Any, t: Any) -> Any:
        if self.whole and float(t[0]) % 1:
            raise ValueError("no whole number")
        return torch.tanh(self.up(x)) + t[:, None] ** self.power


def test_complex_inputs_are_drawn():
    from parity.derive.trace.inputs import fresh, undrawn

    waves = {"0/0": np.exp(1j * np.arange(3.0))}
    new, other = fresh(waves, waves, 1)
    assert not undrawn(waves, new) and np.array_equal(new["0/0"], other["0/0"]) and new["0/0"].imag.any()


class Attended(torch.nn.Module):
    """Tokens that attend to one another, with scores times a factor: of tokens that are alike, none shows it."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor, self.table = factor, torch.nn.Embedding(5, 4)
        self.q, self.k, self.out = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, tokens: Any) -> Any:
        x = self.table(tokens)
        return self.out((self.factor * self.q(x) @ self.k(x).mT).softmax(-1) @ x)


@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_inputs_of_one_value_alone_prove_nothing(factor: float):
    found = parity.derive(Attended(0.5), Attended(factor), (np.zeros((2, 5), int),))
    assert not found.proven and "equal only with inputs of one value each, by which a wrong" in str(found)
    assert "next: give inputs of several values, such as random tokens; then derive again" in " ".join(
        str(found).split()
    )
    tokens = np.random.default_rng(0).integers(0, 5, (2, 5))
    assert parity.derive(Attended(0.5), Attended(factor), (tokens,)).proven is (factor == 0.5)


def test_a_lone_input_of_ones_is_drawn():
    """As people give to models whose parameters they want alone."""
    found = parity.derive(Timed(0.1).up, Timed(0.1).up, (np.ones((2, 4)),))
    assert found.proven and found.kept == []


def test_one_array_that_is_given_for_several_inputs_is_drawn_for_each():
    """As queries, keys and values of self-attention: each input has that of its own name on the other side."""
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    x = np.random.default_rng(0).standard_normal((2, 5, 8))
    assert parity.derive(attention, attention, parity.Call(x, x, x, output=lambda out: out[0])).proven
    lone = parity.derive(Timed(0.1).up, Twice(), (x[..., :4],), (x[..., :4], x[..., :4]))
    assert lone.proven, str(lone)


class Twice(torch.nn.Module):
    """A dense layer of the mean of two inputs, of which the other side is given one."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(4, 3)

    def forward(self, x: Any, y: Any) -> Any:
        return self.up((x + y) / 2)


def test_rows_of_tokens_that_are_all_alike_are_told_apart_in_the_proof():
    class Batch(torch.nn.Module):
        def __init__(self, change: Any):
            super().__init__()
            self.words, self.down, self.change = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3), change

        def forward(self, ids: Any) -> Any:
            return self.change(torch.tanh(self.down(self.words(ids))))

    ids = np.array([[5, 3, 1, 7]] * 4)
    assert parity.derive(Batch(torch.tanh), Batch(torch.tanh), (ids,)).proven
    for change in (lambda x: x.flip(0), lambda x: x.mean(0, keepdim=True).expand(4, -1, -1)):
        assert not parity.derive(Batch(lambda x: x), Batch(change), (ids,)).proven


def test_a_number_beside_another_input_may_have_no_axis():
    model = [Net(lambda m, x, t: m.head(x * t.sin()), head=linear(6, 3)) for _ in "ab"]
    assert parity.derive(*model, (images(4, 6), np.array(3.0))).proven
