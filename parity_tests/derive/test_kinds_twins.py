"""Gates whose biases are interchangeable in part, biases that one side lacks, and weights of one value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity

torch = pytest.importorskip("torch", reason="both sides are torch modules")
from .pairs import images  # noqa: E402
from .test_kinds_matching import Net, linear  # noqa: E402

SEEDS = range(4)  # of which crossed gates came out with half


def run(cell: Any, steps: Any, zeros: Any) -> list[Any]:
    state, outs = zeros, []
    for x in steps:
        state = cell(x, state)
        outs.append(state)
    return outs


def layers(m: Any, x: Any) -> Any:
    for cell in m.cells:
        x = torch.stack(run(cell, x.unbind(1), x.new_zeros(len(x), 3)), 1)
    return x


def both_ways(m: Any, x: Any) -> Any:
    there = run(m.fw, x.unbind(1), x.new_zeros(len(x), 3))
    back = run(m.bw, x.unbind(1)[::-1], x.new_zeros(len(x), 3))[::-1]
    return torch.cat([torch.stack(there, 1), torch.stack(back, 1)], -1)


def own_equations(m: Any, x: Any) -> Any:
    def step(x: Any, h: Any) -> Any:
        (r, u, n), (own_r, own_u, own_n) = m.one(x).chunk(3, -1), m.two(h).chunk(3, -1)
        u, n = torch.sigmoid(u + own_u), torch.tanh(n + torch.sigmoid(r + own_r) * own_n)
        return (1 - u) * n + u * h

    return torch.stack(run(step, x.unbind(1), torch.zeros_like(x[:, 0, :3])), 1)


def gru(**options: Any) -> Any:
    return Net(lambda m, x: m.rnn(x)[0], rnn=torch.nn.GRU(4, 3, batch_first=True, **options))


def cell(width: int = 4) -> Any:
    return torch.nn.GRUCell(width, 3)


def words(pattern: str, partners: dict[str, str]) -> list[str]:
    return [f"rnn.{t}_{pattern.format(k=k)}: {axes} <-> {partners[k].format(t=t, k=k)}: {axes}"
            for t, axes in (("weight", "o i"), ("bias", "c")) for k in partners]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_which_some_biases_are_added_alone_follow_those(seed: int):
    torch.manual_seed(seed)
    x = np.random.default_rng(seed).standard_normal((3, 3, 4))
    found = parity.derive(gru(), Net(own_equations, one=linear(4, 9), two=linear(3, 9)), x)
    assert found.proven, found.failure
    assert sorted(map(str, found.table.lines)) == sorted(words("{k}_l0", {"ih": "one.{t}", "hh": "two.{t}"}))


def test_layers_of_gates_begin_with_zeros():
    found = parity.derive(gru(num_layers=2), Net(layers, cells=torch.nn.ModuleList([cell(), cell(3)])), images(3, 3, 4))
    assert found.proven, found.failure
    assert found.freedom == [
        "rnn.bias_ih_l{i} (right: cells.{i}.bias_ih) and rnn.bias_hh_l{i} (right: cells.{i}.bias_hh): "
        "of some elements, only the sum has an effect for i = 0..1"
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_of_both_directions_are_not_exchanged(seed: int):
    torch.manual_seed(seed)
    x = np.random.default_rng(seed).standard_normal((3, 3, 4))
    found = parity.derive(gru(bidirectional=True), Net(both_ways, fw=cell(), bw=cell()), x)
    assert found.proven, found.failure
    wanted = words("{k}_l0", {"ih": "fw.{t}_{k}", "hh": "fw.{t}_{k}"})
    wanted += words("{k}_l0_reverse", {"ih": "bw.{t}_{k}", "hh": "bw.{t}_{k}"})
    assert sorted(map(str, found.table.lines)) == sorted(wanted)


def test_elements_of_which_only_the_sum_has_an_effect_follow_the_others_of_their_parameter():
    """Whatever the parameters' names are."""

    def forward(one: Any, two: Any, x: Any) -> Any:
        return torch.tanh(x + one[:2] + two[:2]) * torch.sigmoid(x + one[2:]) + torch.cos(x * two[2:])

    def model(forward: Any) -> Any:
        return Net(forward, **{name: torch.nn.Parameter(torch.randn(4)) for name in "ab"})

    left, right = model(lambda m, x: forward(m.a, m.b, x)), model(lambda m, x: forward(m.b, m.a, x))
    found = parity.derive(left, right, images(5, 2))
    assert found.proven, found.failure
    assert sorted(map(str, found.table.lines)) == ["a: c <-> b: c", "b: c <-> a: c"]


def test_the_bias_of_keys_that_one_side_lacks_is_dropped_and_zero_in_reverse():
    def fused(m: Any, x: Any) -> Any:
        q, k, v = m.qkv(x).chunk(3, -1)
        return (q @ k.mT).softmax(-1) @ v

    def apart(m: Any, x: Any) -> Any:
        return (m.q(x) @ m.k(x).mT).softmax(-1) @ m.v(x)

    left = Net(fused, qkv=linear(4, 12))
    right = Net(apart, q=linear(4, 4), k=linear(4, 4, False), v=linear(4, 4))
    found = parity.derive(left, right, images(2, 3, 4))
    assert found.proven, found.failure
    text = found.table.print()
    assert "qkv.bias: (1[1:-1] c) = 0 -> drop" in text.splitlines()
    said = "# unobservable: with these inputs no output depends on what this drops: qkv.bias: (1[1:-1] c) = 0 -> drop"
    assert said in text
    bias = left.qkv.bias.detach().numpy()
    moved = found.table.apply({name: array.detach().numpy() for name, array in left.state_dict().items()})
    assert np.array_equal(moved["q.bias"], bias[:4]) and np.array_equal(moved["v.bias"], bias[8:])
    assert np.array_equal(found.table.reverse().apply(moved)["qkv.bias"], [*bias[:4], *[0] * 4, *bias[8:]])


def test_weights_of_one_value_are_drawn_and_named():
    """New norms have weights of 1 and biases of 0: several of them could not be told apart."""

    def model() -> Any:
        norms = {f"norm{k}": torch.nn.LayerNorm(4) for k in range(3)}
        return Net(lambda m, x: m.norm2(m.one(m.norm1(x)) * m.norm0(x)), one=linear(4, 4), **norms)

    left = model()
    given = {name: array.detach().numpy() for name, array in left.state_dict().items()}
    found = parity.derive(left, model(), images(5, 4), left_weights=given)
    assert found.proven, found.failure
    norms = [f"norm{k}.{leaf}" for k in range(3) for leaf in ("weight", "bias")]
    assert sorted(found.drawn) == sorted(norms)
    line = "random instead of given weights, which are of one value and show nothing: norm{0..2}.weight"
    assert line in str(found)


def test_models_that_call_modules_in_another_order_do_not_part():
    """Only parameters that nothing reads are missing there."""

    def left(m: Any, x: Any) -> Any:
        return m.a(x) * m.b(2 + x), m.a(2 + x) + m.b(x)

    def right(m: Any, x: Any) -> Any:
        first, second = m.b(x), m.b(2 + x)
        return m.a(x) * second, m.a(2 + x) + first

    layers = [{name: linear(4, 4) for name in "ab"} for _ in range(2)]
    unread = [{name: torch.nn.Parameter(torch.randn(3))} for name in ("left", "other")]
    found = parity.derive(*(Net(*of, **a, **b) for *of, a, b in zip((left, right), layers, unread, strict=True)),
                          images(5, 4))  # fmt: skip
    assert found.missing == ["other"] and not found.divergences
    assert found.following.startswith("both models compute the same: write a line for each missing parameter")
