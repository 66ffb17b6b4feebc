"""Recurrent and conditional models: steps that one side takes at once, and functions of several parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.match import columns
from specs.table import Table

from ..conftest import needs
from .pairs import images

torch = pytest.importorskip("torch", reason="both sides are torch modules")
from .test_kinds_matching import Net, linear, numbers  # noqa: E402
from .test_kinds_products import both_ways, weight  # noqa: E402


def derived(left: Any, right: Any, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Derive a Table that is proven, and return the left element number of each right one."""
    found = parity.derive(left, right, inputs)
    assert found.proven, found.failure
    return found.table.apply(numbers(left, *inputs))


def test_a_function_of_one_number_is_followed():
    def energy(m: Any, x: Any) -> Any:
        return (m.weight @ torch.tanh(m.hidden(x))).sigmoid() * 2

    def parts() -> dict[str, Any]:
        return {"weight": torch.nn.Parameter(torch.randn(6)), "hidden": linear()}

    derived(Net(energy, **parts()), Net(energy, **parts()), images(6))


def test_columns_of_tokens_stay_within_their_tables():
    def towers(m: Any, x: Any) -> Any:
        return m.out(torch.cat([table(x[:, k]) for k, table in enumerate(m.tables)], 1))

    def parts() -> dict[str, Any]:
        return {"tables": torch.nn.ModuleList([torch.nn.Embedding(n, 4) for n in (9, 3, 2)]), "out": linear(12)}

    rows = np.stack([np.random.default_rng(0).permutation(18) % n for n in (9, 3, 2)], 1)
    derived(Net(towers, **parts()), Net(towers, **parts()), rows)


def test_columns_come_apart_behind_an_activation_that_is_applied_to_all():
    def apart(m: Any, x: Any) -> Any:
        return m.value(m.v(x).relu()) + m.policy(m.p(x).relu()).tanh()

    def fused(m: Any, x: Any) -> Any:
        v, p = m.hidden(x).relu().chunk(2, -1)
        return m.value(v) + m.policy(p).tanh()

    left = Net(apart, p=linear(6, 8), v=linear(6, 8), policy=linear(8), value=linear(8))
    right = Net(fused, hidden=linear(6, 16), policy=linear(8), value=linear(8))
    moved, given = derived(left, right, images(5, 6)), numbers(left, images(5, 6))
    assert np.array_equal(moved["hidden.weight"], np.concatenate([given["v.weight"], given["p.weight"]]))
    derived(right, left, images(5, 6))


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_a_table_is_read_at_once_or_row_by_row(behind: bool, repeated: bool):
    """Decoders embed their target so. Args: behind: whether a product reads all rows. repeated: a token, in time."""

    def stepped(m: Any, x: Any, at_once: bool) -> Any:
        h, read = torch.zeros(len(x), 6), lambda x: m.inner(m.table(x)) if behind else m.table(x)
        rows = read(x) if at_once else None
        for t in range(x.shape[1]):
            h = m.turn(torch.cat([rows[:, t] if at_once else read(x[:, t]), h.tanh()], 1))
        return h

    def side(at_once: bool) -> Any:
        layers = {"inner": linear(6)} if behind else {}
        return Net(lambda m, x: stepped(m, x, at_once), table=torch.nn.Embedding(9, 6), turn=linear(12), **layers)

    tokens = np.random.default_rng(0).integers(0, 9, (3, 4))
    if repeated:
        tokens[:, 2] = tokens[[1, 2, 0], 0]
    derived(side(True), side(False), tokens)
    derived(side(False), side(True), tokens)


def test_layers_of_a_recurrent_network_that_one_side_runs_step_by_step():
    def stepped(m: Any, x: Any) -> Any:
        states, outs = [torch.zeros(len(x), 4)] * 2, []
        for t in range(x.shape[1]):
            y = x[:, t]
            for k, (read, turn) in enumerate(zip(m.read, m.turn, strict=True)):
                states[k] = y = torch.tanh(turn(states[k]) + read(y))
            outs.append(y)
        return torch.stack(outs, 1)

    left = Net(lambda m, x: m.rnn(x)[0], rnn=torch.nn.RNN(4, 4, 2, batch_first=True))
    lists = {name: torch.nn.ModuleList([linear(4, 4), linear(4, 4)]) for name in ("turn", "read")}
    moved, given = derived(left, Net(stepped, **lists), images(3, 4, 4)), numbers(left, images(3, 4, 4))
    for layer in (0, 1):
        assert np.array_equal(moved[f"read.{layer}.weight"], given[f"rnn.weight_ih_l{layer}"])


def test_inputs_and_states_are_joined_where_the_other_side_reads_all_inputs_at_once():
    def stepped(m: Any, x: Any) -> Any:
        h, outs = torch.zeros(len(x), 4), []
        for t in range(x.shape[1]):
            h = torch.tanh(m.cell(torch.cat([h, x[:, t]], 1)))
            outs.append(h)
        return torch.stack(outs, 1)

    left = Net(lambda m, x: m.rnn(x)[0], rnn=torch.nn.RNN(5, 4, batch_first=True, bias=False))
    moved = derived(left, Net(stepped, cell=linear(9, 4, False)), images(3, 4, 5))
    given = numbers(left, images(3, 4, 5))
    assert np.array_equal(
        moved["cell.weight"], np.concatenate([given["rnn.weight_hh_l0"], given["rnn.weight_ih_l0"]], 1)
    )


def test_a_matrix_is_a_function_of_several_parameters():
    def run(m: Any, x: Any, direction_first: bool) -> Any:
        for v, g in ((m.v0, m.g0), (m.v1, m.g1)):
            length = v.square().sum(1, keepdim=True).sqrt()
            x = torch.tanh(x @ (v * (g / length) if direction_first else g * v / length).T)
        return x

    def side(direction_first: bool) -> Any:
        parts = {"v1": (6, 6), "v0": (6, 6), "g1": (6, 1), "g0": (6, 1)}
        parameters = {name: torch.nn.Parameter(torch.rand(shape) + 0.5) for name, shape in parts.items()}
        return Net(lambda m, x: run(m, x, direction_first), **parameters)

    left = side(True)
    moved, given = derived(left, side(False), images(5, 6)), numbers(left, images(5, 6))
    assert all(np.array_equal(moved[name], given[name]) for name in given)


def test_channels_that_are_zeros_keep_their_place_where_axes_are_flattened_in_another_order():
    rows = np.abs(images(4, 6, 5)) * np.array([1, 0, 1, 0])[:, None, None]
    exchanged = np.arange(24).reshape(4, 6).T.ravel()
    flat = rows.reshape(24, 5)
    assert np.array_equal(columns.matched(flat[exchanged], flat), exchanged)


def test_tables_are_joined_although_no_token_reads_some_of_their_rows():
    def towers(m: Any, x: Any) -> Any:
        return m.out(torch.cat([table(x[:, k]) for k, table in enumerate(m.tables)], 1))

    def joint(m: Any, x: Any) -> Any:
        return m.out(m.table(x + torch.tensor([0, 9])).flatten(1))

    left = Net(towers, tables=torch.nn.ModuleList([torch.nn.Embedding(9, 4), torch.nn.Embedding(5, 4)]), out=linear(8))
    tokens = np.array([[0, 1], [2, 4], [8, 0], [5, 2], [4, 1]])
    moved, given = (
        derived(left, Net(joint, table=torch.nn.Embedding(14, 4), out=linear(8)), tokens),
        numbers(left, tokens),
    )
    assert np.array_equal(moved["table.weight"], np.concatenate([given["tables.0.weight"], given["tables.1.weight"]]))


def test_a_buffer_of_ones_that_hides_later_tokens_keeps_its_values():
    def attention(m: Any, x: Any, mask: Any) -> Any:
        q, k, v = m.q(x), m.k(x), m.v(x)
        return (q @ k.mT).masked_fill(mask, float("-inf")).softmax(-1) @ v

    def parts() -> dict[str, Any]:
        return {name: linear() for name in "qkv"}

    left = Net(lambda m, x: attention(m, x, m.tril[:4, :4] == 0), **parts())
    left.register_buffer("tril", torch.tril(torch.ones(5, 5)))
    right = Net(lambda m, x: attention(m, x, torch.ones(4, 4, dtype=torch.bool).triu(1)), **parts())
    assert set(derived(left, right, images(2, 4, 6))) == set(numbers(right, images(2, 4, 6)))
    masked = Net(lambda m, x: attention(m, x, m.tril[:4, :4] == 0), **parts())
    masked.register_buffer("tril", torch.tril(torch.ones(5, 5)))
    derived(left, masked, images(2, 4, 6))  # both have such a buffer


def test_numbers_may_be_imaginary():
    def run(m: Any, x: Any) -> Any:
        return m.out((m.read(x) * 1j).imag.tanh())

    derived(*(Net(run, read=linear(), out=linear()) for _ in range(2)), images(5, 6))


def test_a_part_of_a_vector_is_read_before_all_of_it():
    def apart(m: Any, x: Any) -> Any:
        outs = torch.cat([m.heads[k](x) for k in range(4)], 1)
        return outs[:, :2].amin(1), outs

    def stacked(m: Any, x: Any) -> Any:
        outs = x @ m.weight + m.bias
        return torch.minimum(outs[:, 0], outs[:, 1]), outs

    left = Net(apart, heads=torch.nn.ModuleList([linear(6, 1) for _ in range(4)]))
    right = Net(stacked, weight=torch.nn.Parameter(torch.randn(6, 4)), bias=torch.nn.Parameter(torch.randn(4)))
    derived(left, right, images(5, 6))


def test_ranges_of_one_array_stand_between_those_of_another():
    def apart(m: Any, x: Any) -> Any:
        v, g = m.both(x).chunk(2, -1)
        return m.out(v.tanh() * g.sigmoid()) + m.side(m.more(x).sin())

    def fused(m: Any, x: Any) -> Any:
        g, z, v = m.every(x).split([8, 5, 8], -1)
        return m.out(v.tanh() * g.sigmoid()) + m.side(z.sin())

    left = Net(apart, both=linear(6, 16), more=linear(6, 5), out=linear(8), side=linear(5))
    right = Net(fused, every=linear(6, 21), out=linear(8), side=linear(5))
    moved, given = derived(left, right, images(5, 6)), numbers(left, images(5, 6))
    v, g = np.split(given["both.weight"], 2)
    assert np.array_equal(moved["every.weight"], np.concatenate([g, given["more.weight"], v]))
    derived(right, left, images(5, 6))


def test_a_source_that_runs_backwards_as_a_whole_is_one_range():
    def left(m: Any, x: Any) -> Any:
        v, g = m.vg(x).split([3, 5], -1)
        return v.tanh(), g.sigmoid(), m.z(x).flip(-1).cumsum(-1)

    def right(m: Any, x: Any) -> Any:
        g, v, z = m.gvz(x).split([5, 3, 4], -1)
        return v.tanh(), g.sigmoid(), z.cumsum(-1)

    found = parity.derive(Net(left, vg=linear(6, 8), z=linear(6, 4)), Net(right, gvz=linear(6, 12)), (images(4, 6),))
    lines = found.table.print().splitlines()
    assert found.proven and "vg.weight: (b+a) i, z.weight: -e i <-> gvz.weight: (a+b+e) i" in lines, found.table.print()


@pytest.mark.parametrize("sizes", [(1, 4, 3), (1, 2, 3)])
def test_a_range_of_one_row_stands_between_others(sizes: tuple[int, int, int]):
    def models(g: int, v: int, z: int) -> tuple[Net, Net]:
        def apart(m: Any, x: Any) -> Any:
            values, gates = m.vg(x).split([v, g], -1)
            return m.out(values.tanh()) * gates.sigmoid().mean(-1, keepdim=True) + m.side(m.z(x).sin())

        def fused(m: Any, x: Any) -> Any:
            gates, values, more = m.gvz(x).split([g, v, z], -1)
            return m.out(values.tanh()) * gates.sigmoid().mean(-1, keepdim=True) + m.side(more.sin())

        left = Net(apart, vg=linear(6, v + g), z=linear(6, z), out=linear(v, 3), side=linear(z, 3))
        return left, Net(fused, gvz=linear(6, g + v + z), out=linear(v, 3), side=linear(z, 3))

    left, right = models(*sizes)
    found = both_ways(left, right, 5, 6)
    lines = found.table.print().splitlines()
    assert "vg.weight: (b+a) i, z.weight: e i <-> gvz.weight: (a+b+e) i" in lines
    g = sizes[0]
    larger, like = models(g, 7, 5)
    given = numbers(larger, images(5, 6))
    moved = Table.parse(found.table.print()).apply(given, numbers(like, images(5, 6)), a=g)
    v, one = np.split(given["vg.weight"], [7])
    assert np.array_equal(moved["gvz.weight"], np.concatenate([one, v, given["z.weight"]]))
    back = Table.parse(found.table.print()).reverse().apply(moved, given, a=g)
    assert np.array_equal(back["vg.weight"], given["vg.weight"])


def test_an_interpolation_of_paddle_to_the_size_at_hand_moves_nothing():
    needs("paddle")
    import paddle

    class Table(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.table = self.create_parameter([1, 2, 3, 4])

        def forward(self, x: Any) -> Any:
            return (x + paddle.nn.functional.interpolate(self.table, (3, 4), mode="bilinear")).tanh()

    left = Net(lambda m, x: torch.tanh(x + m.table), table=torch.nn.Parameter(torch.randn(2, 3, 4)))
    derived(left, Table(), images(5, 2, 3, 4))


def test_a_parameter_that_is_placed_on_one_that_another_has_is_marked():
    def left(m: Any, x: Any) -> Any:
        return x * (m.a.exp() + m.c.prod(2).exp())

    def right(m: Any, x: Any) -> Any:
        return x * (m.a.exp() + (m.first * m.second).exp())

    def parameters(**shapes: tuple[int, ...]) -> dict[str, Any]:
        return {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}

    other = Net(right, **parameters(a=(6, 4), first=(6, 4), second=(6, 4)))
    found = parity.derive(Net(left, **parameters(a=(6, 4), c=(6, 4, 2))), other, (images(6, 4),))
    assert not found.proven
    assert {"first", "second"} <= {*found.inferred, *found.missing}, found.table.print()


@pytest.mark.parametrize(("given", "taken"), [([5, 5], None), ([5, 5], [5, 5]), ([4, 2], [4, 2])])
def test_sequences_of_paddle_end_at_their_lengths(given: list[int], taken: list[int] | None):
    """Both directions, and the last states."""
    needs("paddle")
    import paddle

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True)

        def forward(self, x: Any) -> Any:
            if taken is None:
                return self.rnn(x)
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(taken), True, False)
            out, states = self.rnn(packed)
            return torch.nn.utils.rnn.pad_packed_sequence(out, True, total_length=x.shape[1])[0], states

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = paddle.nn.LSTM(3, 4, direction="bidirect")

        def forward(self, x: Any) -> Any:
            return self.rnn(x, sequence_length=paddle.to_tensor(given))

    found = parity.derive(Left(), Right(), (images(2, 5, 3),))
    assert found.proven, found


def test_gates_in_another_order_over_inputs_and_states_that_one_side_joins():
    """An LSTM as haiku has it: its line holds at any width, and no length of it is asked for."""
    needs("flax")
    import jax
    import jax.numpy as jnp

    def run(p: Any, x: Any) -> Any:
        h = c = jnp.zeros((len(x), 4))
        for t in range(x.shape[1]):
            i, g, f, o = jnp.split(jnp.concatenate([x[:, t], h], 1) @ p["w"], 4, 1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h

    left = Net(lambda m, x: m.rnn(x)[0][:, -1], rnn=torch.nn.LSTM(3, 4, bias=False, batch_first=True))
    found = parity.derive(left, (run, {"w": np.ones((7, 16))}), (images(2, 3, 3),))
    assert found.proven and not found.unchecked, f"{found}\n{found.table.print()}"
    own = {f"rnn.weight_{part}_l0": images(5 * 4, width) for part, width in (("ih", 2), ("hh", 5))}
    whole = np.concatenate([*own.values()], 1).reshape(4, 5, 7)[[0, 2, 1, 3]].reshape(20, 7)
    assert np.array_equal(found.table.apply(own)["w"], whole.T)


def joined_lstm(forget: float) -> Any:
    """An LSTM as haiku has it: one kernel for inputs and states, gates in the order i g f o, and a layer behind it."""
    import jax
    import jax.numpy as jnp

    def run(p: Any, x: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            h, c = state
            i, g, f, o = jnp.split(jnp.concatenate([x, h], 1) @ p["w"] + p["b"], 4, 1)
            c = jax.nn.sigmoid(f + forget) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = jnp.zeros((len(x), 4))
        return jax.lax.scan(step, (start, start), x.swapaxes(0, 1))[1].swapaxes(0, 1) @ p["out"]

    return run, {"w": np.ones((7, 16)), "b": np.ones(16), "out": np.ones((4, 2))}


def gates_of(given: np.ndarray) -> np.ndarray:
    """Return rows of gates in the order i f g o in the order i g f o."""
    return given.reshape(4, 4, -1)[[0, 2, 1, 3]].reshape(given.shape)


def test_equal_gates_are_told_apart_by_the_columns_that_they_are_added_to():
    """In both directions: nothing that a gate of the state meets tells it from the other two sigmoids."""
    needs("flax")

    def run(m: Any, x: Any) -> Any:
        h = c = torch.zeros(len(x), 4)
        outs = []
        for t in range(x.shape[1]):
            i, f, g, o = (m.ih(x[:, t]) + m.hh(h)).chunk(4, 1)
            c = (f + 1).sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        return m.out(torch.stack(outs, 1))

    left = Net(run, ih=linear(3, 16), hh=linear(4, 16, False), out=linear(4, 2, False))
    given, inputs = numbers(left, images(2, 5, 3)), images(2, 5, 3)
    found = parity.derive(left, joined_lstm(1), (inputs,))
    assert found.proven, found
    moved = found.table.apply(given)
    rows = np.concatenate([given["ih.weight"], given["hh.weight"]], 1)
    assert np.array_equal(moved["w"], gates_of(rows).T)
    assert np.array_equal(moved["b"], gates_of(given["ih.bias"]))
    back = parity.derive(joined_lstm(1), left, (inputs,))
    assert back.proven, back
    again = back.table.apply(moved)
    assert all(np.array_equal(again[name], given[name]) for name in given)


def test_inputs_and_states_that_one_side_joins_are_read_at_once_by_the_other():
    needs("flax")
    right = Net(lambda m, x: m.out(m.rnn(x)[0]), rnn=torch.nn.LSTM(3, 4, batch_first=True), out=linear(4, 2, False))
    found = parity.derive(joined_lstm(0), right, (images(2, 5, 3),))
    assert found.proven, found
    given = {"w": np.arange(7 * 16).reshape(7, 16), "b": np.arange(16), "out": np.zeros((4, 2))}
    moved = found.table.apply(given)
    rows = np.concatenate([moved["rnn.weight_ih_l0"], moved["rnn.weight_hh_l0"]], 1)
    assert np.array_equal(rows, gates_of(given["w"].T))
    assert np.array_equal(moved["rnn.bias_ih_l0"] + moved["rnn.bias_hh_l0"], gates_of(given["b"]))


def test_a_bias_inside_a_gate_is_zero_if_the_other_side_has_none():
    """Two layers, whose cells of nnx read the same state: one for its next step, the other one as its input."""
    needs("flax")
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Left(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.below, self.above = nnx.GRUCell(3, 4, rngs=rngs), nnx.GRUCell(4, 4, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            def step(states: Any, x: Any) -> Any:
                below, y = self.below(states[0], x)
                above, y = self.above(states[1], y)
                return (below, above), y

            start = (jnp.zeros((len(x), 4)),) * 2
            return jax.lax.scan(step, start, x.swapaxes(0, 1))[1].swapaxes(0, 1)

    left = Left(nnx.Rngs(0))
    found = parity.derive(left, Net(lambda m, x: m.gru(x)[0], gru=torch.nn.GRU(3, 4, 2, batch_first=True)),
                          (images(2, 5, 3),))  # fmt: skip
    assert found.proven, found
    given = numbers(left, images(2, 5, 3))
    moved = found.table.apply(given)
    for k, cell in enumerate(("below", "above")):
        assert np.array_equal(moved[f"gru.weight_ih_l{k}"], given[f"{cell}/dense_i/kernel"].T)
        assert np.array_equal(moved[f"gru.weight_hh_l{k}"], given[f"{cell}/dense_h/kernel"].T)
        assert np.array_equal(moved[f"gru.bias_ih_l{k}"] + moved[f"gru.bias_hh_l{k}"], given[f"{cell}/dense_i/bias"])
        assert not moved[f"gru.bias_hh_l{k}"][8:].any()


@pytest.mark.parametrize("width", [4, 6], ids=["narrower", "as wide as a gate"])
def test_a_dense_layer_reads_all_steps_that_an_unrolled_cell_reads_one_by_one(width: int):
    needs("flax")
    import jax.numpy as jnp
    from flax import nnx

    class Left(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.cell, self.out, self.beside = (
                nnx.GRUCell(6, 6, rngs=rngs), nnx.Linear(6, width, rngs=rngs), nnx.Linear(6, width, rngs=rngs)
            )  # fmt: skip

        def __call__(self, x: Any) -> Any:
            h = jnp.zeros_like(x[:, 0])
            for t in range(x.shape[1]):
                h, _ = self.cell(h, x[:, t])
            return self.out(h)[:, None] + jnp.tanh(self.beside(x))

    parts = {"gru": torch.nn.GRU(6, 6, batch_first=True), "out": linear(6, width), "beside": linear(6, width)}
    right = Net(lambda m, x: m.out(m.gru(x)[1][0])[:, None] + m.beside(x).tanh(), **parts)
    left = Left(nnx.Rngs(0))
    given, moved = numbers(left, images(2, 5, 6)), derived(left, right, images(2, 5, 6))
    for kernel, name in (("dense_i", "weight_ih_l0"), ("dense_h", "weight_hh_l0")):
        assert np.array_equal(moved[f"gru.{name}"], given[f"cell/{kernel}/kernel"].T)


@pytest.mark.parametrize("width", [3, 4])
def test_gates_with_kernels_of_their_own_are_parts_of_one_kernel_for_inputs_and_states(width: int):
    """Of an LSTM whose gates see its cell's state, with inputs of another width than its states, and of the same."""

    def run(gates: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def forward(m: Any, x: Any) -> Any:
            h = c = torch.zeros(len(x), 4)
            outs = []
            for t in range(x.shape[1]):
                i, f, g, o = gates(m, torch.cat([x[:, t], h], 1))
                c = (f + m.peep[1] * c).sigmoid() * c + (i + m.peep[0] * c).sigmoid() * g.tanh()
                h = (o + m.peep[2] * c).sigmoid() * c.tanh()
                outs.append(h)
            return torch.stack(outs, 1)

        return forward

    def apart(m: Any, both: Any) -> Any:
        x, h = both[:, :width], both[:, width:]
        return [m.x[gate](x) + m.h[gate](h) for gate in "ifgo"]

    def kernels(inputs: int, bias: bool) -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({gate: linear(inputs, 4, bias) for gate in "gofi"})

    left = Net(run(lambda m, both: m.w(both).chunk(4, 1)), w=linear(width + 4, 16), peep=weight(3, 4))
    right = Net(run(apart), x=kernels(width, True), h=kernels(4, False), peep=weight(3, 4))
    found = both_ways(left, right, 2, 5, width)
    given = numbers(left, images(2, 5, width))
    moved = found.table.apply(given)
    for k, gate in enumerate("ifgo"):
        rows = slice(4 * k, 4 * k + 4)
        assert np.array_equal(moved[f"x.{gate}.weight"], given["w.weight"][rows, :width])
        assert np.array_equal(moved[f"h.{gate}.weight"], given["w.weight"][rows, width:])
        assert np.array_equal(moved[f"x.{gate}.bias"], given["w.bias"][rows])
