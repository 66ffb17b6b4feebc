"""Products that one side joins, reads at once, writes as another function, or multiplies at the other operand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.trace.program import Program
from parity.derive.trace.sides import side

from .pairs import images
from .test_kinds_matching import Net, linear, numbers
from .test_kinds_products import both_ways, weight


def test_joined_inputs_that_other_products_read_too():
    def joined(m: Any, x: Any) -> Any:
        return m.down(torch.tanh(m.all(torch.cat([x, torch.tanh(m.up(x))], 1))))

    def apart(m: Any, x: Any) -> Any:
        return m.down(torch.tanh(m.inputs(x) + m.rest(torch.tanh(m.up(x)))))

    left = Net(joined, up=linear(6, 8), all=linear(14, 8), down=linear(8))
    right = Net(apart, up=linear(6, 8), inputs=linear(6, 8), rest=linear(8, 8, False), down=linear(8))
    found = both_ways(left, right, 9, 6)
    moved = found.table.apply(given := numbers(left, images(9, 6)))
    assert np.array_equal(moved["rest.weight"], given["all.weight"][:, 6:])


@pytest.mark.parametrize(("heads", "einsum"), [(1, True), (3, True), (1, False), (3, False)])
def test_nodes_of_a_graph_that_one_side_joins_in_pairs_and_the_other_multiplies_by_two_vectors(
    heads: int, einsum: bool
):
    """As in graph attention, whose vector has a part for the source and one for the destination."""

    def attend(m: Any, x: Any, joined: bool) -> Any:
        h = m.nodes(x).unflatten(-1, (heads, -1))
        one, other = h[:, :, None], h[:, None]
        if joined:
            pairs = torch.cat(torch.broadcast_tensors(one, other), -1)
            scores = torch.einsum("bijhd,hd->bijh", pairs, m.both) if einsum else (pairs * m.both).sum(-1)
        else:
            scores = (one * m.source).sum(-1) + (other * m.destination).sum(-1)
        mixed = torch.einsum("bijh,bjhd->bihd", torch.nn.functional.leaky_relu(scores, 0.2).softmax(2), h)
        return m.out(mixed.flatten(2))

    layers = [{"nodes": linear(5, heads * 4, False), "out": linear(heads * 4)} for _ in range(2)]
    left = Net(lambda m, x: attend(m, x, True), both=weight(heads, 8), **layers[0])
    right = Net(lambda m, x: attend(m, x, False), source=weight(heads, 4), destination=weight(heads, 4), **layers[1])
    for models in ((left, right), (right, left)):
        found = parity.derive(*models, (images(2, 6, 5),))
        assert found.proven, str(found)


@pytest.mark.parametrize("bias", [True, False])
def test_a_vector_that_one_side_joins_to_all_positions_and_the_other_adds_as_a_product(bias: bool):
    """As in additive attention, whose decoder state meets all states of the encoder."""

    def joined(m: Any, x: Any, y: Any) -> Any:
        rows = torch.cat([m.state(y)[:, None].expand(-1, x.shape[1], -1), x], -1)
        return (m.v(m.both(rows).tanh()).softmax(1) * x).sum(1)

    def apart(m: Any, x: Any, y: Any) -> Any:
        return (m.v((m.keys(x) + m.query(m.state(y))[:, None]).tanh()).softmax(1) * x).sum(1)

    left = Net(joined, state=linear(3, 5), both=linear(9, 6), v=linear(6, 1, False))
    right = Net(apart, state=linear(3, 5), keys=linear(4, 6), query=linear(5, 6, bias), v=linear(6, 1, False))
    for sides in ((left, right), (right, left)):
        found = parity.derive(*sides, (images(2, 7, 4), images(2, 3)))
        assert found.proven and not found.missing, str(found)
        lines = "both.weight: o (O+k)", "query.weight: o O, keys.weight: o k"
        assert all(line in found.table.print() for line in lines), found.table.print()


def stepped(m: Any, x: Any) -> Any:
    """Run a GRU step by step, each gate by kernels of its own."""
    state, states = torch.zeros(len(x), 6), []
    for t in range(x.shape[1]):
        reset = torch.sigmoid(m.ir(x[:, t]) + m.hr(state))
        update = torch.sigmoid(m.iz(x[:, t]) + m.hz(state))
        new = torch.tanh(m.new(x[:, t]) + reset * m.hn(state))
        state = (1 - update) * new + update * state
        states.append(state)
    return torch.stack(states, 1)


@pytest.mark.parametrize("joined", [False, True])
def test_kernels_of_states_step_by_step_beside_one_that_reads_all_steps(joined: bool):
    def left_run(m: Any, x: Any) -> Any:
        states = m.rnn(x)[0]
        return m.out(torch.tanh(m.mix(torch.cat([x, states], -1) if joined else states)))

    def right_run(m: Any, x: Any) -> Any:
        states = stepped(m, x)
        return m.out(torch.tanh(m.mix(states) + m.of_x(x) if joined else m.mix(states)))

    gates = {name: linear(4, 6) for name in ("ir", "iz", "new")}
    gates |= {name: linear(6, 6, name == "hn") for name in ("hr", "hz", "hn")}
    rest = {"of_x": linear(4, 6, False)} if joined else {}
    left = Net(left_run, rnn=torch.nn.GRU(4, 6, batch_first=True), mix=linear(10 if joined else 6, 6), out=linear(6))
    right = Net(right_run, **gates, mix=linear(6, 6), out=linear(6), **rest)
    found = parity.derive(left, right, (images(2, 4, 4),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    moved = found.table.apply(given := numbers(left, images(2, 4, 4)))
    assert np.array_equal(moved["hz.weight"], given["rnn.weight_hh_l0"][6:12])
    assert np.array_equal(moved["mix.weight"], given["mix.weight"][:, -6:])


@pytest.mark.parametrize("keys_first", [False, True])
def test_a_bilinear_product_whose_matrix_stands_at_the_other_operand(keys_first: bool):
    def run(m: Any, x: Any, at_keys: bool) -> Any:
        keys, queries = (m.a(x), torch.tanh(m.b(x))) if keys_first else (torch.tanh(m.a(x)), m.b(x))
        for w in m.between:
            scores = queries @ w(keys).mT if at_keys else w(queries) @ keys.mT
            keys, queries = torch.softmax(scores, -1) @ keys, torch.tanh(queries)
        return m.out(keys)

    def model(at_keys: bool) -> Net:
        between = torch.nn.ModuleList([linear(6, 6, False), linear(6, 6, False)])
        return Net(lambda m, x: run(m, x, at_keys), a=linear(5, 6), b=linear(5, 6), between=between, out=linear(6))

    left = model(True)
    found = both_ways(left, model(False), 2, 7, 5)
    moved = found.table.apply(given := numbers(left, images(2, 7, 5)))
    assert np.array_equal(moved["between.1.weight"], given["between.1.weight"].T)


def delayed(m: Any, x: Any) -> Any:
    """Return the values of a causal convolution of two taps as two products."""
    x, skips = x.mT @ m.start, 0
    for k, out in zip(m.taps, m.out, strict=True):
        a, b = (torch.nn.functional.pad(x, (0, 0, 2, 0))[:, :-2] @ k[0] + x @ k[1]).chunk(2, -1)
        step, skip = out(a.tanh() * b.sigmoid()).chunk(2, -1)
        x, skips = x + step, skips + skip
    return skips.mT


def convolved(m: Any, x: Any) -> Any:
    x, skips = m.start(x), 0
    for a, b, out, skip in zip(m.a, m.b, m.out, m.skip, strict=True):
        gates = (gate(torch.nn.functional.pad(x, (2, 0))) for gate in (a, b))
        y = next(gates).tanh() * next(gates).sigmoid()
        x, skips = x + out(y), skips + skip(y)
    return skips


def test_a_convolution_of_two_taps_as_two_products_and_a_sound_of_one_channel():
    def convolutions(taps: int) -> Any:
        return torch.nn.ModuleList([torch.nn.Conv1d(6, 6, taps, dilation=taps, bias=taps == 1) for _ in range(2)])

    left = Net(convolved, start=torch.nn.Conv1d(1, 6, 1, bias=False),
               a=convolutions(2), b=convolutions(2), out=convolutions(1), skip=convolutions(1))  # fmt: skip
    right = Net(delayed, start=weight(1, 6), taps=torch.nn.ParameterList([weight(2, 6, 12) for _ in range(2)]),
                out=torch.nn.ModuleList([linear(6, 12), linear(6, 12)]))  # fmt: skip
    found = parity.derive(left, right, (images(2, 1, 16),))
    assert found.proven and found.unobservable == ["out.1.weight", "out.1.bias"], (found.failure, found.reasons)
    moved = found.table.apply(given := numbers(left, images(2, 1, 16)))
    wanted = np.concatenate([given["a.1.weight"], given["b.1.weight"]])
    assert np.array_equal(moved["taps.1"], wanted.transpose(2, 1, 0))
    back = parity.derive(right, left, (images(2, 1, 16),))
    assert back.proven, (back.failure, back.reasons)


@pytest.mark.parametrize("rows", [20, 30])  # torch computes distances of many rows by a product
def test_the_nearest_code_by_distances_or_by_squares_and_a_product(rows: int):
    def nearest(m: Any, x: Any, codes: Any, distances: bool) -> Any:
        x = m.up(x)
        squares = (x**2).sum(-1, keepdim=True) - 2 * x @ codes.T + (codes**2).sum(-1)
        return m.down(codes[(torch.cdist(x, codes) if distances else squares).argmin(-1)])

    layers = {"up": linear(8, 6), "down": linear(6, 4)}
    left = Net(lambda m, x: nearest(m, x, m.codes, True), codes=weight(7, 6), **layers)
    right = Net(lambda m, x: nearest(m, x, m.columns.T, False), columns=weight(6, 7), **layers)
    found = both_ways(left, right, 2, rows, 8)
    moved = found.table.apply(given := numbers(left, images(2, rows, 8)))
    assert np.array_equal(moved["columns"], given["codes"].T)


def test_distances_of_equal_points_are_zero_on_the_tape():
    model = side(Net(lambda m, x: torch.cdist(m.up(x), m.up(x)), up=linear(8, 6)), parity.Call(x := images(9, 8)))
    program = Program(model.record(model.parameters, model.call.arrays()), model.parameters, [x])
    assert not program.outputs[0].diagonal().any()


@pytest.mark.parametrize("stacked", [False, True])
def test_weighted_means_as_two_products_or_as_one_of_the_difference(stacked: bool):
    def shifted(x: Any) -> Any:
        return torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]

    def two(m: Any, x: Any) -> Any:
        key, gate = (x * w + shifted(x) * (1 - w) for w in (m.first, m.second))
        return torch.relu(m.key(key)) * torch.sigmoid(m.gate(gate))

    def one(m: Any, x: Any) -> Any:
        last = shifted(x)
        if stacked:
            key, gate = last + (x - last) * m.both[:, None, None]
        else:
            key, gate = (last + (x - last) * w for w in m.both)
        return torch.relu(m.key(key)) * torch.sigmoid(m.gate(gate))

    layers = {"key": linear(), "gate": linear()}
    left = Net(two, first=weight(6), second=weight(6), **layers)
    found = parity.derive(left, Net(one, both=weight(2, 6), **layers), (images(2, 5, 6),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    assert all(use.gap <= 1e-8 for use in found.uses)  # rounding: the same values meet each parameter
    moved = found.table.apply(given := numbers(left, images(2, 5, 6)))
    assert np.array_equal(moved["both"], np.stack([given["first"], given["second"]]))


def test_keys_and_values_of_stacked_layers_that_read_one_memory():
    """Keys of both layers are one parameter and meet the same values; a key goes with the value of its layer."""

    def layers(project: Any) -> Any:
        def run(m: Any, x: Any) -> Any:
            memory = m.memory(x).tanh()
            for k in range(2):
                key, value = project(m, memory, k)
                x = x + (m.query[k](x) @ key.mT).softmax(-1) @ value
            return m.out(x)

        return run

    def stacked(m: Any, memory: Any, k: int) -> Any:
        return memory @ m.key[k], memory @ m.value[k]

    def fused(m: Any, memory: Any, k: int) -> Any:
        return m.both[k](memory).chunk(2, -1)

    def common() -> dict[str, Any]:
        query = torch.nn.ModuleList(linear(6, 6) for _ in range(2))
        return {"memory": linear(6, 6), "query": query, "out": linear(6, 3)}

    left, right = Net(layers(stacked), **common()), Net(layers(fused), **common())
    left.key, left.value = (torch.nn.Parameter(torch.zeros(2, 6, 6)) for _ in range(2))
    right.both = torch.nn.ModuleList(linear(6, 12, False) for _ in range(2))
    found = parity.derive(left, right, (images(3, 5, 6),), seconds=5)
    assert found.proven and "{s=key|value}: l i a <-> both.{l}.weight: (s a) i" in found.table.print(), str(found)


def silent_keys(joined: bool) -> torch.nn.Module:
    """Two blocks of attention by cosine, as in Swin V2: keys have no bias, or one that each call sets to zero."""

    def attend(m: Any, x: Any) -> Any:
        bias = m.bias.clone() if joined else torch.cat([m.q_bias, torch.zeros(12), m.v_bias])
        bias[12:24] = 0
        q, k, v = (m.qkv(x) + bias).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        q, k = (torch.nn.functional.normalize(y, dim=-1) for y in (q, k))
        return x + m.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))

    def block() -> Net:
        net = Net(attend, qkv=torch.nn.Linear(12, 36, bias=False), out=linear(12, 12))
        for name, size in {"bias": 36}.items() if joined else {"q_bias": 12, "v_bias": 12}.items():
            net.register_parameter(name, torch.nn.Parameter(torch.randn(size)))
        return net

    return torch.nn.Sequential(block(), block())


def test_a_part_of_a_bias_that_no_call_reads_gets_zeros():
    x = (images(2, 5, 12),)
    found = parity.derive(silent_keys(False), silent_keys(True), x)
    assert found.proven and "<-> {i}.bias: (1[1:-1] c) = 0" in found.table.print()
    assert parity.derive(silent_keys(True), silent_keys(False), x).proven


def test_a_part_of_a_table_that_these_tokens_do_not_read_gets_no_zeros():
    def model(joined: bool) -> Net:
        def run(m: Any, x: Any, kinds: Any) -> Any:
            rows = m.rows.reshape(3, 6) if joined else torch.stack([m.row0, m.row1, m.row2])
            return m.b(m.a(x).tanh() + rows[kinds])

        net = Net(run, a=linear(5, 6), b=linear(6, 3))
        for name, size in {"rows": 18}.items() if joined else {f"row{k}": 6 for k in range(3)}.items():
            net.register_parameter(name, torch.nn.Parameter(torch.randn(size)))
        return net

    found = parity.derive(model(False), model(True), (images(2, 5), np.array([0, 2])))
    assert "= 0" not in found.table.print()
    assert not found.missing or "only a part of it was matched" in found.reasons["rows"]


def test_a_convolution_joins_inputs_and_states_whose_gates_stand_in_another_order():
    """Of a recurrent network on images; the gates of two convolutions come apart behind their sum."""

    def run(order: str, joined: bool) -> Any:
        def forward(m: Any, x: Any) -> Any:
            h = c = torch.zeros(len(x), 3, 5, 5)
            for t in range(x.shape[1]):
                every = m.both(torch.cat([x[:, t], h], 1)) if joined else m.ih(x[:, t]) + m.hh(h)
                gates = dict(zip(order, every.chunk(4, 1), strict=True))
                c = gates["f"].sigmoid() * c + gates["i"].sigmoid() * gates["g"].tanh()
                h = gates["o"].sigmoid() * c.tanh()
            return h

        return forward

    def conv(inputs: int, bias: bool = True) -> torch.nn.Conv2d:
        return torch.nn.Conv2d(inputs, 12, 3, padding=1, bias=bias)

    left = Net(run("igfo", False), ih=conv(2), hh=conv(3, False))
    found = both_ways(left, Net(run("ifog", True), both=conv(5)), 2, 4, 2, 5, 5)
    given = numbers(left, images(2, 4, 2, 5, 5))
    moved = found.table.apply(given)["both.weight"].reshape(4, 3, 5, 3, 3)
    apart = np.concatenate([given["ih.weight"], given["hh.weight"]], 1).reshape(moved.shape)
    assert np.array_equal(moved, apart[[0, 2, 3, 1]])


def test_values_are_joined_with_the_same_ones_in_reverse():
    """Both have the same statistics: the order of their rows tells the columns of one from those of the other."""

    class Block(torch.nn.Module):
        def __init__(self, widths: list[int]) -> None:
            super().__init__()
            self.net = torch.nn.ModuleList(torch.nn.Linear(width, 5, bias=False) for width in widths)
            self.out = torch.nn.Linear(5, 5)

        def forward(self, x: Any, y: Any) -> Any:
            parts = [x, x.flip(0), y]
            parts = parts if len(self.net) > 1 else [torch.cat(parts, -1)]
            y = sum(layer(part) for layer, part in zip(self.net, parts, strict=True)).tanh()
            return x + self.out(y), y

    class Net(torch.nn.Module):
        def __init__(self, widths: list[int]) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(Block(widths) for _ in range(2))

        def forward(self, x: Any, y: Any) -> Any:
            for layer in self.layers:
                x, y = layer(x, y)
            return x

    found = parity.derive(Net([15]), Net([5, 5, 5]), (images(7, 5), np.sin(3 * images(7, 5))))
    assert found.proven and len(found.table.lines) == 3, found.table.print()
