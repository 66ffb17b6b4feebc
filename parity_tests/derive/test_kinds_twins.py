"""Gates whose biases are interchangeable in part, and initial states of zeros."""

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
        "of some elements, only the sum has an effect for i = 0..1 (tried on block 0)"
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


@pytest.mark.parametrize("names", [("bias_ih", "bias_hh"), ("bias_hh", "bias_ih")], ids="-".join)
def test_biases_of_which_only_the_sum_has_an_effect_follow_their_matrices(names: tuple[str, str]):
    """Whatever their names are."""

    def stepped(m: Any, x: Any) -> Any:
        def step(x: Any, state: Any) -> Any:
            y = x @ m.weight_ih + getattr(m, names[0]) + (state[0] @ m.weight_hh + getattr(m, names[1]))
            i, f, g, o = y.chunk(4, -1)
            c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c

        return torch.stack([h for h, _ in run(step, x.unbind(1), (x.new_zeros(len(x), 3),) * 2)], 1)

    parameters = {name: torch.nn.Parameter(torch.randn(12)) for name in names}
    matrices = {f"weight_{k}": torch.nn.Parameter(torch.randn(n, 12)) for k, n in (("ih", 4), ("hh", 3))}
    left = Net(lambda m, x: m.rnn(x)[0], rnn=torch.nn.LSTM(4, 3, batch_first=True))
    found = parity.derive(left, Net(stepped, **parameters, **matrices), images(3, 3, 4))
    assert found.proven, found.failure
    lines = list(map(str, found.table.lines))
    assert {f"rnn.bias_ih_l0: c <-> {names[0]}: c", f"rnn.bias_hh_l0: c <-> {names[1]}: c"} <= set(lines)
    ours, theirs = "rnn.bias_ih_l0", "rnn.bias_hh_l0"
    assert f"{ours} (right: {names[0]}) and {theirs} (right: {names[1]}): only their sum has an effect" in found.freedom


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
    assert "# unobservable: no output depends on what this drops: qkv.bias: (1[1:-1] c) = 0 -> drop" in text
    bias = left.qkv.bias.detach().numpy()
    moved = found.table.apply({name: array.detach().numpy() for name, array in left.state_dict().items()})
    assert np.array_equal(moved["q.bias"], bias[:4]) and np.array_equal(moved["v.bias"], bias[8:])
    assert np.array_equal(found.table.reverse().apply(moved)["qkv.bias"], [*bias[:4], *[0] * 4, *bias[8:]])
