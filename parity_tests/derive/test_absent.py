"""Tokens that no input has, as that of padding, which one model alone asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity

from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")

TOKENS = np.array([[2, 0, 5, 1], [4, 3, 0, 2]])


def words(hidden: Callable[[Any], Any], offset: int = 0) -> Net:
    """Return an embedding of 9 tokens and a dense layer; hidden tells which tokens count as zeros."""

    def run(m: Any, ids: Any) -> Any:
        return m.b(torch.where(hidden(ids).unsqueeze(-1), 0.0, m.a(ids - offset)))

    return Net(run, a=torch.nn.Embedding(9, 6), b=linear(6, 3))


def none(ids: Any) -> Any:
    return ids < 0


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (lambda ids: ids == 7, none, "7, for which the left model asks"),
        (none, lambda ids: (ids[:, None] != 7).logical_not().squeeze(1), "7, for which the right model asks"),
        (lambda ids: (ids == 6) | (ids == 7), lambda ids: ids == 6, "7, for which the left model asks"),
    ],
)
def test_a_token_that_no_input_has_is_tried(left: Any, right: Any, said: str):
    found = parity.derive(words(left), words(right), (TOKENS,))
    assert found.proven and found.absent == found.to_dict()["absent"]
    assert f"not equal for inputs with {said}: with it outputs differ by" in str(found)
    assert f"# not equal for inputs with {said}" in str(found.table)


@pytest.mark.parametrize("least", [0.0, 1e-30])
def test_a_token_that_makes_outputs_of_one_model_alone_infinite_is_said(least: float):
    """The logarithm of how many tokens are no padding, which is that of 0 where all are."""

    def counted(least: float) -> Net:
        def run(m: Any, ids: Any) -> Any:
            return m.b(m.a(ids).mean(1)) + ((ids != 7).all(1, True).double() + least).log()

        return Net(run, a=torch.nn.Embedding(9, 6), b=linear(6, 3))

    found = parity.derive(counted(0.0), counted(least), (TOKENS,))
    said = "inputs with 7, which no input has: with it outputs of one model alone are infinite or NaN"
    assert found.proven and (said in str(found)) == (least > 0), str(found)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda ids: ids == 7, lambda ids: (ids - 7) == 0),
        (lambda ids: ids == 7, lambda ids: ids.eq(7)),
        (lambda ids: ids == 99, none),  # no embedding of it: both models refuse it
    ],
)
def test_tokens_that_both_take_alike_or_refuse_are_no_difference(left: Any, right: Any):
    found = parity.derive(words(left), words(right), (TOKENS,))
    assert found.proven and not found.absent


def test_tokens_that_are_counted_from_another_number_are_not_exchanged():
    left, right = words(lambda ids: ids == 7), words(lambda ids: ids == 8, offset=1)
    found = parity.derive(left, right, (TOKENS,), (TOKENS + 1,))
    assert found.proven and not found.absent


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (lambda ids: ids > 6, "7"),
        (lambda ids: torch.isin(ids, torch.tensor([6, 8])), "6"),
        (lambda ids: (ids % 8) != ids, "8"),
        (lambda ids: ids.clamp(max=7) != ids, "8"),
    ],
    ids=["more", "several", "divided", "limited"],
)
def test_tokens_are_tried_for_which_tables_have_rows(left: Any, said: str):
    pair = words(left), words(none)
    for found in (parity.derive(*pair, (TOKENS,)), parity.derive(*pair[::-1], (TOKENS,))):
        text = f"not equal for inputs with {said}, which no input has: with it outputs differ by"
        assert found.proven and text in str(found) and f"# {text}" in str(found.table)


def test_tokens_that_are_not_true_are_tried_in_jax():
    pytest.importorskip("jax")
    import jax.numpy as jnp

    def run(p: Any, ids: Any) -> Any:
        return jnp.where((ids > 0)[..., None], jnp.take(p["a"], ids, axis=0), 0) @ p["b"]["w"] + p["b"]["b"]

    tree = {"a": np.ones((9, 6)), "b": {"w": np.ones((6, 3)), "b": np.ones(3)}}
    assert "inputs with 0, which no input has" in str(parity.derive(words(none), (run, tree), (TOKENS + 1,)))
    assert not parity.derive(words(lambda ids: ids == 0), (run, tree), (TOKENS + 1,)).absent


def test_a_token_that_code_of_jax_asks_for_is_tried():
    pytest.importorskip("jax")
    import jax.numpy as jnp

    def run(p: Any, ids: Any) -> Any:
        return jnp.where((ids == 0)[..., None], 0, jnp.take(p["a"], ids, axis=0)) @ p["b"]["w"] + p["b"]["b"]

    tree = {"a": np.ones((9, 6)), "b": {"w": np.ones((6, 3)), "b": np.ones(3)}}
    found = parity.derive(words(none), (run, tree), (TOKENS + 1,))
    assert "inputs with 0, for which the right model asks" in str(found)
    assert not parity.derive(words(lambda ids: ids == 0), (run, tree), (TOKENS + 1,)).absent


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda ids: ids == 8, "7 in place of 8: with it"),
        (lambda ids: torch.where(((ids == 8) | (ids == 0)).any(), ids, 0), "2 and 7 in place of 0 and 8: with these"),
    ],
    ids=["one", "two"],
)
def test_tokens_are_named_that_others_take_the_place_of(end: Any, said: str):
    def read_at(of: Callable[[Any], Any]) -> Net:
        def run(m: Any, ids: Any) -> Any:
            return m.b(m.a(ids)[torch.arange(len(ids)), of(ids).int().argmax(-1)])

        return Net(run, a=torch.nn.Embedding(9, 6), b=linear(6, 3))

    tokens = np.array([[0, 8, 8, 1, 1, 8], [8, 1, 0, 8, 1, 8], [1, 0, 8, 8, 0, 1]])
    found = parity.derive(read_at(lambda ids: ids), read_at(end), (tokens,))
    assert found.proven, str(found)
    assert f"\n# not equal for inputs with {said} outputs differ by " in str(found.table), str(found)


def picking(place: Callable[[Any], Any]) -> Net:
    """Return a model of 40 tokens that reads the vector at one place of each text."""

    def run(m: Any, ids: Any) -> Any:
        x = m.a(ids) + m.p[: ids.shape[1]]
        return m.b((x + m.q(x).softmax(-1))[torch.arange(len(ids)), place(ids)])

    parts = {"a": torch.nn.Embedding(40, 6), "p": torch.nn.Parameter(torch.randn(6, 6))}
    return Net(run, **parts, q=linear(), b=linear(6, 3))


def largest(ids: Any) -> Any:
    return ids.argmax(-1)


def end(ids: Any) -> Any:
    return (ids == 39).int().argmax(-1)


def texts(rows: int) -> np.ndarray:
    """Return texts that end on token 39, at various places, with zeros behind it."""
    ids = np.random.default_rng(0).integers(1, 39, (rows, 6))
    for k, row in enumerate(ids):
        row[2 + k % 4 :] = [39, *[0] * (3 - k % 4)]
    return ids


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
def test_the_place_of_the_largest_token_is_that_of_the_end_in_every_text(rows: int):
    found = parity.derive(picking(largest), picking(end), (texts(rows),))
    assert found.proven and found.kept == [], str(found)
    assert not found.absent or "in place of 39: with it" in found.absent


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
def test_other_places_than_that_of_the_end_are_a_difference(rows: int):
    found = parity.derive(picking(largest), picking(lambda ids: end(ids) - 1), (texts(rows),))
    assert not found.proven


def test_the_token_that_is_missing_is_named_and_not_the_one_in_its_place():
    """The rarest token may be the end of a text: with any other one in its place outputs differ."""
    ids = np.array([[1, 2, 1, 2, 39], [2, 1, 2, 1, 39], [2, 2, 1, 1, 39]])
    pair = picking(largest), picking(lambda ids: torch.where((ids == 5).any(-1), end(ids), end(ids)))
    for found in (parity.derive(*pair, (ids,)), parity.derive(*pair[::-1], (ids,))):
        assert found.proven and "5 in place of 39: with it outputs differ by" in found.absent, found.absent


def test_tokens_that_equal_those_before_them_are_tried():
    """A decoder of CTC drops repeated tokens; no token of the given ones stands beside itself."""

    def dropped(m: Any, ids: Any) -> Any:
        again = torch.cat([torch.zeros_like(ids[:, :1]), (ids[:, 1:] == ids[:, :-1]).to(ids)], 1)
        return m.head((m.embed(ids) * (1 - again[..., None])).tanh())

    runs = dropped, lambda m, ids: m.head(m.embed(ids).tanh())
    models = [Net(run, embed=torch.nn.Embedding(20, 6), head=linear(6, 3)) for run in runs]
    ids = np.random.default_rng(0).permutation(20).reshape(4, 5)
    found = parity.derive(*models, (ids,))
    assert found.proven and "inputs with tokens that equal those before them: with these, outputs differ" in str(found)


def test_larger_integers_are_tried_where_models_have_no_table():
    """Times of 1000 and more count otherwise in one model."""
    runs = lambda m, x, t: m.head(x) * (t // 1000 + 1)[:, None], lambda m, x, t: m.head(x) + 0 * t[:, None]
    models = [Net(run, head=linear(6, 3)) for run in runs]
    x = np.random.default_rng(0).standard_normal((4, 6))
    found = parity.derive(*models, (x, np.array([5, 100, 7, 3])))
    assert found.proven and "which input 2, of shape [4], does not have: with it outputs differ" in str(found)


def test_the_input_of_integers_is_named_beside_others():
    """Values of other inputs are no lengths, though near 0."""

    def masked(least: float) -> Net:
        def run(m: Any, x: Any, lengths: Any) -> Any:
            hidden = torch.arange(x.shape[1]) >= lengths[:, None]
            return m.b((x.masked_fill(hidden[..., None], 0).sum(1) / (lengths[:, None] + least)).tanh())

        return Net(run, b=linear(3, 2))

    x = np.random.default_rng(0).standard_normal((3, 4, 3))
    found = parity.derive(masked(0.0), masked(1e-30), (x, np.array([4, 2, 3])))
    said = "inputs with 0, which input 2, of shape [3], does not have: with it outputs of one model alone are infinite"
    assert found.proven and said in str(found), str(found)


def test_tokens_that_one_side_alone_is_given_stay_those_of_the_others():
    """A decoder reads the tokens after a first one; Flax is given these, torch makes them: no repeated one is tried."""

    def moved(ids: Any) -> Any:
        return torch.cat([torch.full_like(ids[:, :1], 19), ids[:, :-1]], 1)

    def run(m: Any, ids: Any, others: Any = None) -> Any:
        return m.head((m.embed(ids) * m.embed(moved(ids) if others is None else others)).tanh())

    models = [Net(run, embed=torch.nn.Embedding(20, 6), head=linear(6, 3)) for _ in range(2)]
    ids = np.random.default_rng(0).permutation(20).reshape(4, 5)
    found = parity.derive(*models, (ids,), (ids, moved(torch.as_tensor(ids)).numpy()))
    assert found.proven and not found.absent, found.absent
