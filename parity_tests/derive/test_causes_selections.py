"""Causes in what is taken of values: another token, a mean of all, another resize, other rows of a table."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive.conclude.chosen import chosen
from parity.derive.edits.numbers import Change
from parity.derive.edits.stretches import restretched
from parity.derive.match.choices import Step
from parity.derive.report import page
from parity.derive.search import edited
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Operation, Tape
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear


def pooled(take: Callable[[Any], Any]) -> Net:
    """A layer, a norm, and what is taken of its tokens."""
    return Net(
        lambda m, x: m.head(torch.tanh(m.pool(take(m.norm(x + m.fc(x)))))),
        fc=linear(), norm=torch.nn.LayerNorm(6), pool=linear(), head=linear(6, 3),
    )  # fmt: skip


@pytest.mark.parametrize(("right", "text"), [
    (lambda x: x[:, -1], "position 0 of 5 on the left, position 4 of 5 on the right"),
    (lambda x: x.mean(1), "position 0 of 5 on the left, the mean over 5 positions on the right"),
], ids=["last", "mean"])  # fmt: skip
def test_another_token_behind_a_norm_is_named_where_it_is_taken(right: Any, text: str):
    found = parity.derive(pooled(lambda x: x[:, 0]), pooled(right), (images(3, 5, 6),))
    (place,) = found.divergences
    assert (place.left, place.right) == ("pool", "pool") and found.explained == "which positions are taken"
    assert place.cause.startswith(f"{text} (recomputed so, ")
    assert not found.doubtful and not found.chosen
    norm = page(found, {}).split(">norm<")[-1].split("pool")[0]
    assert 'class="mark"' not in norm and "follows" not in norm


def test_a_nearest_and_a_bilinear_resize_are_told_apart():
    """JAX writes a nearest resize as copies of each value, as repeat_interleave does."""

    def net(resize: Callable[[Any], Any]) -> Net:
        parts = dict(stem=torch.nn.Conv2d(3, 4, 3, padding=1), up=torch.nn.Conv2d(4, 4, 3, padding=1))
        return Net(lambda m, x: m.up(resize(m.stem(x))), **parts)

    left = net(lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    found = parity.derive(left, net(lambda x: f.interpolate(x, scale_factor=2, mode="bilinear")), (images(2, 3, 6, 5),))
    (place,) = found.divergences
    text = "each value repeated 2 x 2 times (nearest) on the left, upsample_bilinear2d on the right (recomputed so"
    assert found.confirmed and place.right == "up" and place.cause.startswith(text)


def test_positions_that_begin_at_another_row_are_named():
    class Words(torch.nn.Module):
        def __init__(self, start: int) -> None:
            super().__init__()
            self.start, self.words, self.out = start, torch.nn.Embedding(20, 6), linear(6, 4)
            self.positions = torch.nn.Parameter(torch.randn(1, 9, 6))

        def forward(self, x: Any) -> Any:
            x = self.words(x) + self.positions[:, self.start : self.start + x.shape[1]]
            return self.out(x.tanh())

    tokens = np.random.default_rng(0).integers(0, 20, (4, 7))
    found = parity.derive(Words(0), Words(1), (tokens,))
    why = "the right model reads its rows 1..7 where the left one reads rows 0..6 of positions, and no line shifts rows"
    assert list(found.missing) == ["positions"] and found.reasons["positions"].startswith(why)
    assert found.following == "let both models read the same rows of these tables, and derive again"
    assert "positions" not in [*found.inferred, *found.doubtful, *found.chosen]


def attention(scale: float, convolution: bool, by_sums: bool = False) -> Net:
    """Attention over the positions of an image; the last layer may be a convolution of single positions.

    Args:
      by_sums: whether means are written as sums times a number, so that the model reads numbers of its own.
    """

    def run(m: Any, x: Any) -> Any:
        for axes in ((1,), (2,), (3,), (1, 2), (1, 3), (2, 3)):
            n = int(np.prod([x.shape[axis] for axis in axes]))
            x = x - (x.sum(axes, keepdim=True) * (1 / n) if by_sums else x.mean(axes, keepdim=True)) * 0.7
        y = x.flatten(2).mT
        q, k, v = m.q(y), m.k(y), m.v(y)
        y = ((q * scale if scale != 1 else q) @ k.mT).softmax(-1) @ v
        return x + (m.out(y.mT.reshape(x.shape)) if convolution else m.out(y).mT.reshape(x.shape))

    torch.manual_seed(0)
    out = torch.nn.Conv2d(8, 8, 1) if convolution else linear(8, 8)
    return Net(run, **{name: linear(8, 8) for name in "qkv"}, out=out)


def test_a_scale_of_queries_is_named_as_one_of_the_scores():
    found = parity.derive(attention(0.3, False), attention(1, False), (images(2, 8, 3, 4),))
    (place,) = found.divergences
    assert place.cause.startswith("the scores before the softmax have a factor of 0.3 on the left, which the ri")
    assert place.kind == "attention scale" and found.explained == "one attention scale"


def test_numbers_near_the_place_where_a_match_ends_are_tried_first(monkeypatch: Any):
    """Else the time ends with those of norms, and the scale of an attention behind them is not found."""
    tried, real = list[Any](), edited._tried
    monkeypatch.setattr(edited, "_tried", lambda edit, *rest: tried.append(edit) or real(edit, *rest))
    found = parity.derive(attention(0.3, False, by_sums=True), attention(1, True), (images(2, 8, 3, 4),))
    numbers = [edit.text for edit in tried if isinstance(edit, Change)]
    assert found.confirmed and numbers[0].startswith("a factor of 0.3 on the left")


def test_upsampling_is_named_where_its_result_is_added_to_another_value():
    """As in a pyramid of features: the convolution of the finer image is where the models part."""

    def repeated(x: Any) -> Any:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    class Pyramid(torch.nn.Module):
        def __init__(self, mode: str):
            super().__init__()
            self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear") if mode == "bilinear" else repeated
            self.stem, self.down = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 6, 2, 2)
            self.coarse, self.fine = torch.nn.Conv2d(6, 5, 1, bias=False), torch.nn.Conv2d(4, 5, 1)
            self.out = torch.nn.Conv2d(5, 3, 3)

        def forward(self, x: Any) -> Any:
            x = self.stem(x).relu()
            coarse = self.coarse(self.down(x).relu())
            return self.out(self.fine(x) + self.up(coarse))

    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    found = parity.derive(Pyramid("nearest"), Pyramid("bilinear"), (x,))
    cause = (
        "each value repeated 2 x 2 times (nearest) on the left, up (upsample_bilinear2d) on the right (recomputed so"
    )
    assert not found.proven and cause in str(found), str(found)
    assert parity.derive(Pyramid("bilinear"), Pyramid("bilinear"), (x,)).proven


@pytest.mark.parametrize("swapped", [False, True])
def test_the_cell_state_in_place_of_the_output_of_an_lstm_is_named(swapped: bool):
    """The output is a product of a gate and of a function of the cell state: neither alone leads to it."""

    def net(which: int) -> Net:
        return Net(lambda m, x: m.head(m.rnn(x)[1][which][-1]), rnn=torch.nn.LSTM(3, 2, batch_first=True),
                   head=linear(2, 3))  # fmt: skip

    found = parity.derive(*(net(which) for which in ((1, 0) if swapped else (0, 1))), (images(3, 2, 3),))
    (place,) = found.divergences
    sides = ("right", "left") if swapped else ("left", "right")
    assert place.what == f"the {sides[0]} computes tanh and a product of a value that the {sides[1]} takes as it is"
    assert (place.left, place.right) == ("head", "head") and found.confirmed and not found.missing
    assert found.explained == "one value"


@pytest.mark.parametrize("swapped", [False, True])
def test_the_last_step_in_place_of_a_mean_is_named_where_one_side_reads_all_inputs_at_once(swapped: bool):
    """Of torch and nnx: the products that lead to the head are as many as there are steps on one side alone."""
    needs("flax")
    from flax import nnx

    class Stepped(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.rnn = nnx.RNN(nnx.SimpleCell(3, 4, rngs=rngs))
            self.head = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(self.rnn(x)[:, -1] if swapped else self.rnn(x).mean(1))

    at_once = Net(lambda m, x: m.head(m.rnn(x)[0].mean(1) if swapped else m.rnn(x)[0][:, -1]),
                  rnn=torch.nn.RNN(3, 4, batch_first=True), head=linear(4, 2))  # fmt: skip
    sides = (Stepped(nnx.Rngs(0)), at_once) if swapped else (at_once, Stepped(nnx.Rngs(0)))
    found = parity.derive(*sides, (images(2, 5, 3),))
    (place,) = found.divergences
    assert "mean" in place.what or "reduce_sum" in place.what, place  # JAX writes a mean as a sum and a factor
    assert place.right in ("head", "head/kernel") and found.confirmed and not found.missing, found


@pytest.mark.parametrize(("at", "count"), [(0, 0), (1, 1)])
def test_one_position_in_another_order_is_no_cause(at: int, count: int):
    """Channels (h p) and (p h) of one step are what the lines of the Table have to say."""
    programs, values = [], []
    for run in (lambda x: x[:, 0].reshape(2, 2, 4), lambda x: x[:, at].reshape(2, 4, 2).swapaxes(1, 2)):
        tape = Tape()
        tape.inputs.append(tape.number())
        values.append(tape.layout(tape.inputs[0], run))
        tape.outputs.append(tape.record("other", values[-1:], np.tanh))
        programs.append(Program(tape, {}, [images(2, 6, 8)]))
    scope: Any = SimpleNamespace(programs=programs)
    assert len(list(restretched(scope, (values[0], values[1])))) == count


def test_one_function_whose_results_are_split_otherwise_is_not_called_another_one():
    """Both sides compute SiLU, in one operation or in two, and split its results as (h p) or as (p h)."""
    programs, values = [], []
    for fused in (True, False):
        tape = Tape()
        tape.inputs.append(x := tape.number())
        if fused:
            made = tape.record("other", [x], lambda x: x / (1 + np.exp(-x)), call=Operation("silu"))
            y = tape.layout(made, lambda x: x.reshape(2, 4, 3))
        else:
            gate = tape.record("other", [x], lambda x: 1 / (1 + np.exp(-x)), call=Operation("logistic"))
            y = tape.layout(tape.record("mul", [x, gate], np.multiply), lambda x: x.reshape(2, 3, 4).swapaxes(1, 2))
        values.append(y)
        tape.outputs.append(tape.record("other", [y], np.tanh))
        programs.append(Program(tape, {}, [images(2, 12)]))
    scope: Any = SimpleNamespace(programs=programs)
    texts = {edit.what for edit in restretched(scope, (values[0], values[1]))}
    assert texts == {"the same values of silu in another order"}


@pytest.mark.parametrize("compared", [False, True])
def test_a_parameter_placed_by_repetition_alone_is_marked_where_the_search_ends_before_what_reads_it(compared: bool):
    tape = Tape()
    x, scale, table = (tape.number() for _ in range(3))
    tape.inputs.append(x)
    tape.parameters.update(scale=scale, table=table)
    scaled = tape.record("mul", [x, scale], np.multiply)
    summed = tape.record("add", [scaled, tape.record("other", [table], np.sin)], np.add)
    tape.outputs.append(tape.record("mul", [summed, scale], np.multiply))
    program = Program(tape, dict(scale=images(4), table=images(4)), [images(2, 4)])
    uses = [("mul", "scale", 0), ("place", "table", 1), *([("mul", "scale", 3)] if compared else [])]
    steps = [Step(kind, (name,), (name,), "", "", 0.0, 0, 1, node=node) for kind, name, node in uses]
    assert chosen(program, steps) == ([] if compared else ["table"])


def routed(m: Any, x: Any) -> Any:
    """Four experts, of which each token has the largest two, weighted by a softmax of these two."""
    weights, places = m.gate(x).topk(2, -1)
    weights = (f.one_hot(places, 4) * weights.softmax(-1)[..., None]).sum(-2)
    return m.head(x + (m.experts(x).tanh().unflatten(-1, (4, 6)) * weights[..., None]).sum(-2))


def of_experts(chosen: int, first: bool) -> Callable[[Any, Any], Any]:
    """Return the same in JAX with other numbers of experts. Args: first: whether the softmax is that of all four."""
    import jax

    def run(p: Any, x: Any) -> Any:
        scores = x @ p["gate"]
        weights, places = jax.lax.top_k(jax.nn.softmax(scores) if first else scores, chosen)
        weights = weights if first else jax.nn.softmax(weights)
        weights = (jax.nn.one_hot(places, 4) * weights[..., None]).sum(-2)
        experts = jax.numpy.tanh(x @ p["experts"]).reshape(*x.shape[:-1], 4, 6)
        return (x + (experts * weights[..., None]).sum(-2)) @ p["head"]

    return run


@pytest.mark.parametrize(("chosen", "first", "text"), [
    (3, False, "the largest 2 of 4 on the left, the largest 3 of 4 on the right"),
    (1, False, "the largest 2 of 4 on the left, the largest 1 of 4 on the right"),
    (2, True, "the largest 2 of 4 add up to 1 on the left alone"),
])  # fmt: skip
def test_other_weights_of_experts_are_named(chosen: int, first: bool, text: str):
    needs("flax")
    left = Net(routed, gate=linear(6, 4, False), experts=linear(6, 24, False), head=linear(6, 3, False))
    right = {name: images(6, n) for name, n in (("gate", 4), ("experts", 24), ("head", 3))}
    found = parity.derive(left, (of_experts(chosen, first), right), (images(3, 5, 6),))
    (place,) = found.divergences
    assert place.cause.startswith(f"{text} (recomputed so, ") and not found.doubtful, str(found)


def test_another_number_of_experts_is_named_where_their_places_alone_are_chosen():
    needs("flax")
    import jax

    def left(m: Any, x: Any) -> Any:
        scores = m.gate(x).sigmoid()
        weights = torch.zeros_like(scores).scatter(-1, places := scores.topk(2, -1)[1], scores.gather(-1, places))
        return m.head(x * (m.experts(x).tanh() * weights).sum(-1, keepdim=True))

    def right(p: Any, x: Any) -> Any:
        scores = jax.nn.sigmoid(x @ p["gate"])
        places = jax.lax.top_k(scores, 3)[1]
        weights = (jax.nn.one_hot(places, 4) * jax.numpy.take_along_axis(scores, places, -1)[..., None]).sum(-2)
        return x * (jax.numpy.tanh(x @ p["experts"]) * weights).sum(-1, keepdims=True) @ p["head"]

    arrays = {name: images(6, n) for name, n in (("gate", 4), ("experts", 4), ("head", 3))}
    net = Net(left, gate=linear(6, 4, False), experts=linear(6, 4, False), head=linear(6, 3, False))
    found = parity.derive(net, (right, arrays), (images(3, 5, 6),))
    (place,) = found.divergences
    assert place.cause.startswith("the largest 2 of 4 on the left, the largest 3 of 4 on the right"), str(found)
