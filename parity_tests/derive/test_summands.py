"""Test terms of which only the sum counts: each goes where its name says, and not where it has an effect of its own."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity.derive.limits import LARGE_USE
from parity.derive.match.added import Added
from specs.table import Table

from .pairs import images, initial

torch = pytest.importorskip("torch")
from .test_kinds_matching import Net, linear  # noqa: E402

X = images(5, 4)


class Layer(torch.nn.Module):
    """A recurrent layer of torch."""

    def __init__(self, kind: str):
        super().__init__()
        self.layer = getattr(torch.nn, kind)(4, 6, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


class Cell(torch.nn.Module):
    """A cell of torch, step by step from zeros of the input's dtype."""

    def __init__(self, kind: str):
        super().__init__()
        self.cell, self.many = getattr(torch.nn, f"{kind}Cell")(4, 6), kind == "LSTM"

    def forward(self, x: Any) -> Any:
        zeros = x.new_zeros(len(x), 6)
        state, outputs = (zeros, zeros) if self.many else zeros, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0] if self.many else state)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("turned", [False, True], ids=["layer first", "cell first"])
def test_both_biases_of_a_cell_go_to_those_of_their_names(kind: str, turned: bool):
    sides = Layer(kind), Cell(kind)
    found = parity.derive(*(sides[::-1] if turned else sides), (images(3, 5, 4),))
    assert found.proven, str(found)
    names = [("layer.bias_ih_l0", "cell.bias_ih"), ("layer.bias_hh_l0", "cell.bias_hh")]
    for pair in names:
        left, right = pair[::-1] if turned else pair
        assert f"{left}: c <-> {right}: c\n" in found.table.print()


class Scaled(torch.nn.Module):
    """Two vectors that are added, one of them behind a factor if it counts by itself.

    Args:
      names: of both vectors.
    """

    def __init__(self, names: tuple[str, str], factor: float):
        super().__init__()
        self.up, self.names, self.factor = torch.nn.Linear(4, 5, bias=False), names, factor
        for k, name in enumerate(names):
            self.register_parameter(name, torch.nn.Parameter(torch.full((5,), 1.0 + k)))

    def forward(self, x: Any) -> Any:
        first, second = (getattr(self, name) for name in self.names)
        return (self.up(x) + first) * self.factor + second


def test_a_sum_is_said_to_leave_the_state_of_an_optimizer_behind():
    """In the Table and in the terminal: a conversion of such a state is refused later."""
    single = torch.nn.Linear(4, 5)
    found = parity.derive(single, Scaled(("one", "two"), 1.0), (images(3, 4),))
    said = "sums of several arrays: bias: their weights convert in both directions, the state of an optimizer does not"
    assert found.proven and f"# {said}" in found.table.print() and said in str(found), found.table.print()


def test_what_counts_by_itself_stays_where_values_show_it():
    found = parity.derive(Scaled(("one", "two"), 2.0), Scaled(("two", "one"), 2.0), (images(3, 4),))
    assert found.proven and "one: c <-> two: c\n" in found.table.print()
    assert "two: c <-> one: c\n" in found.table.print()


def test_terms_of_a_sum_go_to_those_of_their_names():
    found = parity.derive(Scaled(("one", "two"), 1.0), Scaled(("two", "one"), 1.0), (images(3, 4),))
    assert found.proven and "one: c <-> one: c\n" in found.table.print()
    assert any(text.endswith("only their sum has an effect") for text in found.freedom)


def test_lines_of_the_user_stay_as_they_are():
    crossed = Table.parse("table 1\nlayer.bias_ih_l0: c <-> cell.bias_hh: c\nlayer.bias_hh_l0: c <-> cell.bias_ih: c\n")
    found = parity.derive(Layer("LSTM"), Cell("LSTM"), (images(3, 5, 4),), table=crossed)
    assert found.proven and "layer.bias_ih_l0: c <-> cell.bias_hh: c\n" in found.table.print()


@pytest.mark.parametrize(("kind", "turned"), [("GRU", False), ("GRU", True), ("LSTM", False)])
def test_terms_of_a_sum_keep_both_names_that_paddle_has_of_them(kind: str, turned: bool):
    """A checkpoint of another width comes back: a name that paddle reads first would have stale values otherwise."""
    nn, paddle = (pytest.importorskip(name) for name in ("flax.linen", "paddle"))
    x = images(2, 4, 3).astype(np.float32)

    def layer(size: int) -> Any:
        class Recurrent(paddle.nn.Layer):
            def __init__(self):
                super().__init__()
                self.r = getattr(paddle.nn, kind)(3, size)

            def forward(self, x: Any) -> Any:
                return self.r(x)[0]

        return Recurrent()

    cells = nn.RNN(getattr(nn, {"LSTM": "OptimizedLSTMCell"}.get(kind, "GRUCell"))(5))
    sides = layer(5), (cells, initial(cells, x))
    found = parity.derive(*(sides[::-1] if turned else sides), (x,))
    assert found.proven, str(found)
    text = found.table.print()
    for name in ("ih", "hh"):
        tie = f"r.bias_{name}_l0 = r.0.cell.bias_{name}"
        assert (f"<-> {tie}\n" if turned else f"{tie} <->\n") in text, text
    assert parity.derive(*(sides[::-1] if turned else sides), (x,), table=Table.parse(text)).proven
    table = Table.parse(text).reverse() if turned else Table.parse(text)
    names = {name: array.numpy() for name, array in layer(7).state_dict().items()}
    there = table.apply(names)
    back = table.reverse().apply(there)
    assert {name: array.shape for name, array in back.items()} == {name: a.shape for name, a in names.items()}
    for name in ("bias_ih", "bias_hh", "weight_ih", "weight_hh"):
        assert np.array_equal(back[f"r.{name}_l0"], back[f"r.0.cell.{name}"])
    again = table.apply(back)
    assert all(np.array_equal(again[name], array) for name, array in there.items())


class Stack(torch.nn.Module):
    """Recurrent cells on top of each other, whose states are functions of their inputs."""

    def __init__(self, kind: str):
        super().__init__()
        self.u = torch.nn.ModuleList(getattr(torch.nn, kind)(4, 4) for _ in range(2))

    def forward(self, x: Any) -> Any:
        for u in self.u:
            x = u(x, (torch.tanh(x), x))[0] if isinstance(u, torch.nn.LSTMCell) else u(torch.tanh(x), x)
        return x


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_terms_of_a_sum_stand_in_one_order_in_all_layers_of_a_stack():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def cell(x: Any, q: Any) -> Any:
        i, forget, g, o = jnp.split(x @ q["wx"] + jnp.tanh(x) @ q["wh"] + q["b"], 4, -1)
        c = jax.nn.sigmoid(forget) * x + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), None

    params = {"wx": weights(2, 4, 16), "wh": weights(2, 4, 16), "b": weights(2, 16)}
    found = parity.derive(Stack("LSTMCell"), (lambda p, x: jax.lax.scan(cell, x, p)[0], params), (images(4, 4),))
    assert found.proven and "u.{l}.bias_ih: c + u.{l}.bias_hh: c -> b: l c\n" in found.table.print()


def test_zeros_of_the_shape_of_an_input_are_constants():
    from parity.derive.trace.sides import side

    class Zeros(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            filled = torch.empty_like(x)
            filled.zero_()
            return x + x.new_zeros(4) + torch.ones_like(x) + filled.fill_(2.0)

    of = side(Zeros(), parity.Call(images(3, 4)))
    tape = of.record({}, of.call.arrays()).live()
    assert all(node.kind == "add" for node in tape.nodes)
    assert np.allclose(of.run({}, of.call.arrays())[0], images(3, 4) + 3)


def test_numbers_of_a_large_matrix_are_freed_behind_its_product():
    """Those of all matrices would take as much memory as weights of float32."""
    numbers = np.arange(1, 1 + LARGE_USE * 2, dtype=np.int32)
    alive, sums = weakref.ref(numbers), Added([], None, 1)  # type: ignore[arg-type]
    sums.note(0, numbers.reshape(1, -1, 512).swapaxes(1, 2))
    del numbers
    assert alive() is None


class Cells(torch.nn.Module):
    """LSTM cells one behind the other, each with two biases, or all with one stack of their sums."""

    def __init__(self, count: int, stacked: bool):
        super().__init__()
        self.cells = None if stacked else torch.nn.ModuleList(torch.nn.LSTMCell(4, 4) for _ in range(count))
        for name, shape in (("x", (4, 16)), ("h", (4, 16)), ("b", (16,))) if stacked else ():
            self.register_parameter(name, torch.nn.Parameter(torch.randn(count, *shape)))

    def forward(self, x: Any) -> Any:
        if self.cells is not None:
            for cell in self.cells:
                x = cell(x, (x.tanh(), x))[0]
            return x
        for of_x, of_h, bias in zip(self.x, self.h, self.b, strict=True):
            i, f, g, o = (x @ of_x + x.tanh() @ of_h + bias).chunk(4, -1)
            x = o.sigmoid() * (f.sigmoid() * x + i.sigmoid() * g.tanh()).tanh()
        return x


@pytest.mark.parametrize("count", [2, 3])
def test_sums_in_a_stack_have_their_terms_in_one_order_for_all_layers(count: int):
    """Every second layer adds the terms in another order as it is matched."""
    found = parity.derive(Cells(count, False), Cells(count, True), (images(4, 4),))
    assert found.proven, str(found)
    assert "cells.{l}.bias_ih: c + cells.{l}.bias_hh: c -> b: l c" in found.table.print(), found.table.print()


def gru_stack() -> Any:
    """Return a stack of GRU cells in JAX, which adds both biases of two gates, and keeps those of the third apart."""
    jax = pytest.importorskip("jax")
    sigmoid, tanh = jax.nn.sigmoid, jax.numpy.tanh

    def stack(p: Any, x: Any) -> Any:
        for k in range(2):
            q, a = {name: array[k] for name, array in p.items()}, tanh(x)
            z, r = (sigmoid(a @ q[f"w{gate}"] + x @ q[f"u{gate}"] + q[f"b{gate}"]) for gate in "zr")
            x = (1 - z) * tanh(a @ q["wh"] + q["bh"] + r * (x @ q["uh"] + q["ch"])) + z * x
        return x

    kernels = {kind + gate: weights(2, 4, 4) for kind in "wu" for gate in "zrh"}
    return stack, kernels | {name: weights(2, 4) for name in ("bz", "br", "bh", "ch")}


BIASES = """table 1
u.{l}.bias_ih: (1[2:] c) <-> bh: l c
u.{l}.bias_hh: (1[2:] c) <-> ch: l c
u.{l}.bias_ih: (1[:-2] c) + u.{l}.bias_hh: (1[:-2] c) -> br: l c
u.{l}.bias_ih: (1[1:-1] c) + u.{l}.bias_hh: (1[1:-1] c) -> bz: l c
"""


@pytest.mark.parametrize("turned", [False, True], ids=["cells first", "stacks first"])
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
def test_biases_of_gates_that_are_sums_stand_in_stacks(turned: bool, given: bool):
    sides, lines = (Stack("GRUCell"), gru_stack()), Table.parse(BIASES)
    table = (lines.reverse() if turned else lines) if given else None
    found = parity.derive(*(sides[::-1] if turned else sides), (images(4, 4),), table=table)
    assert found.proven, str(found)
    printed = (found.table.reverse() if turned else found.table).print().splitlines()
    assert {*BIASES.splitlines()[1:]} <= {*printed}, printed


def test_a_sum_that_the_user_states_wrongly_is_not_proven():
    def net(bias: bool) -> Net:
        parts = {"a": linear(4, 5), "b": linear(4, 5, bias), "c": linear(4, 5), "d": linear(4, 5, bias)}
        return Net(lambda m, x: (m.a(x) + m.b(x)).tanh() * (m.c(x) + m.d(x)).sigmoid(), **parts)

    right = "table 1\na.bias: c + b.bias: c -> a.bias: c\nc.bias: c + d.bias: c -> c.bias: c\n"
    crossed = right.replace("> a", "> ?").replace("> c", "> a").replace("> ?", "> c")
    proven = [parity.derive(net(True), net(False), (X,), table=Table.parse(text)).proven for text in (right, crossed)]
    assert proven == [True, False]


def test_a_sum_of_three_arrays_cannot_be_given():
    names = ("one", "two", "three")
    parts = {name: torch.nn.Parameter(torch.ones(5)) for name in names}
    three = Net(lambda m, x: x + m.one + m.two + m.three, **parts)
    one = Net(lambda m, x: x + m.bias, bias=torch.nn.Parameter(torch.ones(5)))
    with pytest.raises(UsageError, match="a sum of more than two arrays cannot be given"):
        parity.derive(
            three, one, (images(3, 5),), table=Table.parse("table 1\none: c + two: c + three: c -> bias: c\n")
        )


def _added(bias: bool) -> Any:
    class Added(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, bias=bias)
            self.out = torch.nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.out((self.one(x) + self.other(x.tanh())).tanh())

    return Added()


def test_weights_go_back_by_what_was_derived_also_where_the_table_adds():
    found = parity.derive(_added(False), _added(True), (X,))
    trained, x = _added(True), torch.from_numpy(X.astype(np.float32))
    back = parity.transfer(trained, _added(False), table=found)
    torch.testing.assert_close(back(x), trained(x))
    again = parity.transfer({name: array.numpy() for name, array in back.state_dict().items()}, trained, table=found)
    torch.testing.assert_close(again(x), trained(x))


def test_a_given_line_that_adds_left_arrays_is_taken():
    found = parity.derive(_added(False), _added(True), (X,))
    back = parity.derive(_added(True), _added(False), (X,), table=found.table.reverse())
    assert back.proven and "one.bias: c + other.bias: c -> one.bias: c\n" in back.table.print()
    assert not back.given_open
    typo = Table.parse("table 1\none.bias: c + other.bia: c -> one.bias: c")
    with pytest.raises(UsageError, match="the left model has no such arrays"):
        parity.derive(_added(True), _added(False), (X,), table=typo)


class Skips(torch.nn.Module):
    """Blocks whose second results are added up, with one projection for both results, or one for each."""

    def __init__(self, depth: int, fused: bool) -> None:
        super().__init__()
        names = ("both",) if fused else ("stay", "skip")
        parts = ({name: torch.nn.Linear(4, 8 if fused else 4) for name in names} for _ in range(depth))
        self.blocks = torch.nn.ModuleList(map(torch.nn.ModuleDict, parts))

    def forward(self, x: Any) -> Any:
        total = 0
        for block in self.blocks:
            y = x.tanh()
            skip, stay = block["both"](y).chunk(2, -1) if "both" in block else (block["skip"](y), block["stay"](y))
            x, total = x + stay, total + skip
        return total.tanh()


def test_biases_of_one_sum_stay_with_their_products_where_one_side_fuses_them():
    """The mean sizes of what they are added to differ by the other half: the nearest one is that of any block."""
    found = parity.derive(Skips(4, fused=False), Skips(4, fused=True), (X,))
    assert found.proven and not found.this_depth, str(found)
    written = found.table.print()
    assert "blocks.{i}.{s=skip|stay}.bias: c <-> blocks.{i}.both.bias: (s c)" in written, written
    assert all(line.kind == "move" for line in found.table.lines)


def gated(names: Sequence[str]) -> Net:
    """An LSTM with a layer for each gate (input, forget, cell, output) that reads input and state joined."""

    def forward(m: Any, x: Any) -> Any:
        h, outs = torch.zeros(len(x), 6, dtype=x.dtype), list[Any]()
        c = h
        for step in x.unbind(1):
            i, f, g, o = (m.get_submodule(name)(torch.cat([step, h], 1)) for name in names)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        return torch.stack(outs, 1)

    return Net(forward, **{name: linear(10, 6) for name in sorted(names)})


@pytest.mark.parametrize("turned", [False, True], ids=["cell first", "gates first"])
def test_gates_with_layers_of_their_own_in_another_order_are_those_of_a_cell(turned: bool):
    """The code of torch has the order i f g o, that of the other model, which states its layers, another one."""
    sides = Cell("LSTM"), gated(["w_i", "w_f", "w_g", "w_c"])
    found = parity.derive(*(sides[::-1] if turned else sides), (images(3, 5, 4),))
    assert found.proven and "w_{s=i|f|g|c}.weight" in found.table.print(), found
    sides = Cell("LSTM"), gated(["w_0", "w_1", "w_3", "w_2"])  # a number is none of a list: the biases alone have lines
    found = parity.derive(*(sides[::-1] if turned else sides), (images(3, 5, 4),))
    assert len(found.missing) == (2 if turned else 4) and all("weight" in name for name in found.missing), found
