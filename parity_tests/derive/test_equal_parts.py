"""Parts of one projection in other orders: gates have one width in any model, other parts may be of unequal widths."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.fold.equal_parts import axes_met
from parity.derive.fold.letters import own_letters
from parity.derive.fold.parts import Origin, Part
from parity.derive.fold.permuted import orders
from parity.derive.fold.rows import Row
from parity.derive.fold.sources import first_met, fitted
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Tape, elements
from specs.notation.lines import TableError
from specs.table import Table

from ..conftest import needs
from .pairs import images
from .test_joined_orders import F64, converted

torch = pytest.importorskip("torch", reason="both sides are torch modules, but for one")


class Cell(torch.nn.Module):
    """A recurrent layer with the gates of each step in some order.

    Args:
      order: a letter for each gate. step: (gates of the input, gates of the state, states) -> states.
    """

    def __init__(self, width: int, order: str, step: Callable[..., tuple[Any, ...]]) -> None:
        super().__init__()
        self.order, self.step, self.width = order, step, width
        self.x, self.h = torch.nn.Linear(6, len(order) * width), torch.nn.Linear(width, len(order) * width)
        self.out = torch.nn.Linear(width, 3)

    def forward(self, x: Any) -> Any:
        states = (x.new_zeros(len(x), self.width),) * 2
        for one in x.unbind(1):
            gates = [
                layer(y).split([self.width] * len(self.order), -1) for layer, y in ((self.x, one), (self.h, states[0]))
            ]
            states = self.step(*(dict(zip(self.order, some, strict=True)) for some in gates), *states)
        return self.out(states[0])


def lstm(x: dict[str, Any], y: dict[str, Any], h: Any, c: Any) -> tuple[Any, ...]:
    i, f, g, o = (x[gate] + y[gate] for gate in "ifgo")
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru(x: dict[str, Any], y: dict[str, Any], h: Any, _: Any) -> tuple[Any, ...]:
    r, z = ((x[gate] + y[gate]).sigmoid() for gate in "rz")
    return (1 - z) * (x["n"] + r * y["n"]).tanh() + z * h, _


@pytest.mark.parametrize(
    ("step", "orders", "line"),
    [
        (lstm, ("ifgo", "igfo"), "(a=1+b=1+e=1+f=1 o) i <-> x.weight: (a+e+b+f o) i"),
        (lstm, ("ifgo", "ifog"), "(a=1+b=1+e=1+f=1 o) i <-> x.weight: (a+b+f+e o) i"),
        (lstm, ("ifgo", "ogfi"), "(-p=4 o) i <-> x.weight: (p o) i"),
        (gru, ("rzn", "zrn"), "(a=1+b=1+e=1 o) i <-> x.weight: (b+a+e o) i"),
    ],
)
def test_gates_in_another_order_need_no_lengths(step: Any, orders: Sequence[str], line: str):
    """The code takes them apart by sizes, which are equal here: that they meet one by one tells."""
    x = images(4, 3, 6)
    found = parity.derive(*(Cell(8, order, step) for order in orders), (x,))
    assert found.proven and not found.unchecked and f"x.weight: {line}" in found.table.print(), found.table.print()
    assert converted(found, *(Cell(5, order, step) for order in orders), x) < F64


class Fed(torch.nn.Module):
    """A recurrent layer behind a product with three inputs, which are joined, or have a matrix each."""

    def __init__(self, order: str, widths: Sequence[int]) -> None:
        super().__init__()
        self.first, self.cell = torch.nn.Linear(3, 5, bias=False), Cell(8, order, gru)
        self.net = torch.nn.ModuleList(torch.nn.Linear(width, 6, bias=False) for width in widths)

    def forward(self, x: Any, y: Any) -> Any:
        parts = [self.first(x), self.first(x).sin(), y]
        parts = parts if len(self.net) > 1 else [torch.cat(parts, -1)]
        return self.cell(sum(layer(part) for layer, part in zip(self.net, parts, strict=True)).tanh())


def test_numbers_of_parts_have_letters_that_no_length_of_another_line_has():
    """Else the order of gates would take e for the width that another line has as (O+O+e)."""
    models, inputs = (Fed("rzn", [14]), Fed("zrn", [5, 5, 4])), (images(4, 3, 3), images(4, 3, 4))
    found = parity.derive(*models, inputs)
    line = "cell.x.weight: (a=1+b=1+e=1 o) i <-> cell.x.weight: (b+a+e o) i"
    assert found.proven and line in str(found.table).splitlines(), str(found)
    gates = [text for text in str(found.table).splitlines() if text.startswith("cell.") and "a=1" in text]
    again = parity.derive(*models, inputs, table=Table.parse("\n".join(["table 1", *gates, ""])))
    assert again.proven and line in str(again.table).splitlines(), str(again)
    assert not any("net.0.weight: o (O+O+e)" in str(table) for table in (found.table, again.table))
    row = Row((("one", "(e+u) i"),), (("two", "(u+e) i"),), parts=(Part("e", 2, Origin()), Part("u", 3, Origin())))
    order = Row((("cell", "(a=1+b=1+e=1 o)"),), (("wide", "(b+a+e o)"),))
    lengths = dict[str, int]()
    assert [*map(str, own_letters([row, order], lengths))] == ["one: (e2+u) i <-> two: (u+e2) i", str(order)]
    assert lengths == {"e2": 2, "u": 3}


class Halves(torch.nn.Module):
    """Parts of one projection, which are cut by sizes, and read as `read` says.

    Args:
      sizes: of the parts. last: whether they stand the other way round. read: (layers that read each part, parts) -> y.
    """

    def __init__(self, sizes: Sequence[int], last: bool, read: Callable[..., Any]) -> None:
        super().__init__()
        self.read, self.last = read, last
        self.sizes = list(sizes[::-1] if last else sizes)
        self.wide = torch.nn.Linear(5, sum(sizes))
        self.layers = torch.nn.ModuleList(torch.nn.Linear(size, 3) for size in sizes)

    def forward(self, x: Any) -> Any:
        parts = self.wide(x).split(self.sizes, -1)
        return self.read(self.layers, *(parts[::-1] if self.last else parts))


def halves(read: Callable[..., Any], sizes: Sequence[int]) -> tuple[Any, Any]:
    return Halves(sizes, False, read), Halves(sizes, True, read)


@pytest.mark.parametrize(
    "read",
    [
        lambda layers, a, b: layers[0](torch.nn.functional.silu(a) * b) + layers[1](b.tanh()),
        lambda layers, a, b: layers[0](a + b.relu()) + layers[1](a.sin()),
        lambda layers, a, b: layers[0]((a @ b.mT).softmax(-1) @ b.tanh()) + layers[1](a.sin()),
    ],
    ids=["a gate", "a sum", "queries and keys"],
)
def test_parts_that_meet_one_by_one_are_equal_at_any_width(read: Any):
    x = images(2, 4, 5)
    found = parity.derive(*halves(read, (8, 8)), (x,))
    text = found.table.print()
    assert found.proven and "wide.weight: (-p=2 o) i <-> wide.weight: (p o) i" in text, text
    assert converted(found, *halves(read, (6, 6)), x) < F64


class Times(torch.nn.Module):
    """Times by sines and cosines, which are joined in either order. Args: waves: (times, width) -> both."""

    def __init__(self, width: int, last: bool, waves: Callable[..., Any]) -> None:
        super().__init__()
        self.width, self.last, self.waves = width, last, waves
        self.a, self.b = torch.nn.Linear(2 * width, 6), torch.nn.Linear(6, 3)

    def forward(self, t: Any) -> Any:
        sin, cos = self.waves(t[:, None], self.width)
        return self.b(self.a(torch.cat([cos, sin] if self.last else [sin, cos], -1)).relu())


def of_one_constant(t: Any, width: int) -> tuple[Any, Any]:
    rates = torch.exp(-torch.arange(width, dtype=t.dtype) / width)
    return (t * rates).sin(), (t * rates).cos()


def of_two_constants(t: Any, width: int) -> tuple[Any, Any]:
    return tuple((t * rate ** torch.arange(1, 1 + width, dtype=t.dtype)).sin() for rate in (0.5, 0.7))


def test_sines_and_cosines_of_one_constant_are_equally_wide():
    """The frequencies are those of the code: no parameter has them."""
    t = (np.random.default_rng(0).uniform(0, 9, 6),)
    found = parity.derive(*(Times(4, last, of_one_constant) for last in (False, True)), t)
    assert found.proven and not found.unchecked and "a.weight: o (-p=2 i) <-> a.weight: o (p i)" in str(found.table)
    found = parity.derive(*(Times(4, last, of_two_constants) for last in (False, True)), t)
    assert found.proven and found.unchecked == ["a", "b"], found.table.print()


def shortcut(layers: Any, a: Any, b: Any) -> Any:
    """Return a model's output that adds the channels of one part to as many of the other one, which may have more."""
    return layers[0](a.tanh() + torch.nn.functional.pad(b, (0, a.shape[-1] - b.shape[-1])))


def test_a_part_that_is_padded_to_the_length_of_another_one_may_be_shorter():
    found = parity.derive(*halves(shortcut, (8, 8)), (images(2, 4, 5),))
    text = found.table.print()
    assert found.proven and found.unchecked == ["a", "b"], text
    assert "wide.weight: (a+b) i <-> wide.weight: (b+a) i" in text and "one length" not in str(found)
    assert converted(found, *halves(shortcut, (6, 2)), images(2, 4, 5), a=6) < F64


class Fused(torch.nn.Module):
    """Attention, of whose keys and values there may be fewer heads, by one projection that is cut, or by three.

    Args:
      cut: (what the projection gives, lengths) -> queries, keys and values; None for three projections.
    """

    def __init__(self, cut: Any = None) -> None:
        super().__init__()
        self.cut, self.out = cut, torch.nn.Linear(6, 6)
        rows = {"qkv": 18} if cut else {"q": 6, "k": 6, "v": 6}
        self.of = torch.nn.ModuleDict({name: torch.nn.Linear(6, n) for name, n in rows.items()})

    def forward(self, x: Any) -> Any:
        every = [layer(x) for layer in self.of.values()]
        q, k, v = self.cut(every[0], [6, 6, 6]) if self.cut else every
        return self.out((q @ k.mT / 2).softmax(-1) @ v)


@pytest.mark.parametrize(
    ("cut", "shown"),
    [
        (lambda y, sizes: y.split(sizes, -1), False),
        (lambda y, sizes: y.split(sizes[0], -1), True),
        (lambda y, sizes: y.chunk(3, -1), True),
        (lambda y, sizes: y.unflatten(-1, (3, -1)).unbind(-2), True),
    ],
)
def test_parts_in_one_order_are_said_to_be_taken_for_equal_where_no_run_shows_it(cut: Any, shown: bool):
    for left, right in ((Fused(cut), Fused()), (Fused(), Fused(cut))):
        found = parity.derive(left, right, (images(2, 5, 6),))
        names = ["of.qkv.weight", "of.qkv.bias"] * (not shown)
        assert found.proven and found.assumed == found.to_dict()["assumed"] == names, str(found)
        said = "# taken for equally long: of.qkv.weight, of.qkv.bias: "
        assert (said in found.table.print()) is (said[2:] in str(found)) is not shown


def outer(layers: Any, a: Any, b: Any) -> Any:
    """Return a model's output that adds each channel of one part to each of the other one."""
    table = a[..., None, :] + b.tanh()[..., None]
    return layers[0](table.sin().mean(-2)) + layers[1](b)


@pytest.mark.parametrize(
    "read",
    [lambda layers, a, b: layers[0](a.tanh()) + layers[1](b.sigmoid()), outer],
    ids=["apart", "each with each"],
)
def test_parts_that_need_not_be_equal_ask_for_their_lengths(read: Any):
    x = images(2, 4, 5)
    found = parity.derive(*halves(read, (8, 8)), (x,))
    assert found.proven and "wide.weight: (a+b) i <-> wide.weight: (b+a) i" in found.table.print(), found.table.print()
    with pytest.raises(TableError, match=r"lengths \(a=\.\.\., from which b follows\)"):
        converted(found, *halves(read, (6, 10)), x)
    assert converted(found, *halves(read, (6, 10)), x, a=6) < F64


def test_parts_of_one_projection_that_are_joined_again_may_be_of_unequal_widths():
    """Both are of one value, which its own sizes cut."""

    class Net(torch.nn.Module):
        def __init__(self, sizes: Sequence[int], last: bool) -> None:
            super().__init__()
            self.sizes, self.last = list(sizes), last
            self.wide, self.out = torch.nn.Linear(5, sum(sizes)), torch.nn.Linear(sum(sizes), 3)

        def forward(self, x: Any) -> Any:
            a, b = self.wide(x).split(self.sizes, -1)
            return self.out(torch.cat([b.tanh(), a.sin()] if self.last else [a.sin(), b.tanh()], -1))

    x = images(4, 5)
    found = parity.derive(Net((8, 8), False), Net((8, 8), True), (x,))
    assert found.proven and "out.weight: o (a+b) <-> out.weight: o (b+a)" in found.table.print(), found.table.print()
    assert converted(found, Net((6, 9), False), Net((6, 9), True), x, a=6) < F64


@pytest.mark.parametrize("cut", ["chunk", "an axis"])
@pytest.mark.parametrize("order", ["kqv", "vkq"])
def test_queries_keys_and_values_that_the_code_cuts_evenly(cut: str, order: str):
    class Net(torch.nn.Module):
        def __init__(self, width: int, order: str) -> None:
            super().__init__()
            self.qkv, self.out, self.order = torch.nn.Linear(5, 3 * width), torch.nn.Linear(width, 4), order

        def forward(self, x: Any) -> Any:
            y = self.qkv(x)
            parts = y.chunk(3, -1) if cut == "chunk" else y.unflatten(-1, (3, -1)).unbind(-2)
            q, k, v = (dict(zip(self.order, parts, strict=True))[name] for name in "qkv")
            return self.out((q @ k.mT).softmax(-1) @ v)

    x = images(2, 4, 5)
    found = parity.derive(Net(8, "qkv"), Net(8, order), (x,))
    assert found.proven and not found.unchecked, found.table.print()
    assert converted(found, Net(6, "qkv"), Net(6, order), x) < F64


def test_the_gates_of_layers_under_scan():
    """The stacked array of one side has the gates of all layers, in another order than each layer of the other one."""
    needs("flax")
    import jax
    import jax.numpy as jnp

    class Net(torch.nn.Module):
        def __init__(self, depth: int, width: int) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(width, 3 * width) for _ in range(depth))

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                a, b, c = layer(x).split([x.shape[-1]] * 3, -1)
                x = x + a.sigmoid() * b + a.tanh() * c.sin()
            return x

    def run(p: Any, x: Any) -> Any:
        def layer(x: Any, p: Any) -> Any:
            b, a, c = jnp.split(x @ p["w"] + p["b"], 3, -1)
            return x + jax.nn.sigmoid(a) * b + jnp.tanh(a) * jnp.sin(c), None

        return jax.lax.scan(layer, x, p)[0]

    x = images(4, 8)
    found = parity.derive(Net(2, 8), (run, {"w": np.ones((2, 8, 24)), "b": np.ones((2, 24))}), (x,))
    assert found.proven and not found.unchecked, found.table.print()
    left, x = Net(3, 6).double(), images(4, 6)
    with jax.enable_x64():
        right = run(found.table.apply({name: array.numpy() for name, array in left.state_dict().items()}), x)
    assert np.abs(left(torch.from_numpy(x)).detach().numpy() - np.asarray(right)).max() < F64


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("piece", [1, 7, 1 << 22])
def test_an_order_is_that_of_every_row_however_many_are_compared_at_once(axis: int, piece: int, monkeypatch: Any):
    monkeypatch.setattr("parity.derive.fold.permuted.LARGE_PIECE", piece)
    shape, order = (6, 5), np.random.default_rng(0).permutation((6, 5)[axis])
    numbers = np.take(np.arange(30).reshape(shape), order, axis)
    found = [(at, own, places.tolist()) for at, own, places in orders(numbers, shape) if at == axis]
    assert found == [(axis, axis, order.tolist())]
    numbers[-1, [0, -1]] = numbers[-1, [-1, 0]]
    numbers[[0, -1], -1] = numbers[[-1, 0], -1]
    assert not [at for at, *_ in orders(numbers, shape)]


def test_a_large_array_is_not_copied_where_its_order_is_compared():
    numbers = np.arange(1 << 24).reshape(1 << 12, 1 << 12)[:, ::-1]
    tracemalloc.start()
    assert len(list(orders(numbers, numbers.shape))) == 2
    assert tracemalloc.get_traced_memory()[1] < numbers.nbytes  # four pieces of 32 MB, of 134 MB
    tracemalloc.stop()


def test_numbering_an_axis_of_a_large_kernel_takes_no_memory():
    """What meets is not looked up in large models, but that shows only once their axes have been numbered."""
    tape = SimpleNamespace(parameters={"kernel": 0, "other": 1}, nodes=[])
    program: Any = SimpleNamespace(tape=tape, shapes={0: (2000, 2000), 1: (2000, 2000)}, last={})
    tracemalloc.start()
    met = axes_met(program, {"kernel": (0, np.arange(1, 2001)), "other": (1, np.arange(1, 2001))})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert met == [] and peak < 4e6  # bytes: one number for each element of one kernel would be 32e6


@pytest.mark.parametrize(("run", "axis"), [
    (lambda x: x.max(1), 1), (lambda x: x.sum(2), 2), (lambda x: x[:, 0] + x.sum(1) + x.sum(2), None),
])  # fmt: skip
def test_values_tell_which_of_two_equally_long_axes_an_operation_drops(run: Any, axis: int | None):
    tape, x = Tape(), np.ones((2, 4, 4))
    tape.inputs.append(tape.number())
    tape.outputs.append(tape.record("other", tape.inputs, run))
    program = Program(tape, {}, [x])
    for kept in (1, 2):
        numbers = np.broadcast_to(elements([4, 1] if kept == 1 else [4]), x.shape)
        passed = fitted(program, program.tape.nodes[0], tape.inputs[0], numbers)
        assert (passed == ([0.0] * 4 if axis in (kept, None) else [1.0, 2, 3, 4])).all(), (kept, passed)


def test_a_parameter_that_nothing_reads_meets_nothing():
    """The last block of a WaveNet has a residual that no output depends on: a tape has no shape of it."""
    tape = SimpleNamespace(parameters={"kernel": 0, "bias": 1, "unread": 2}, nodes=[])
    program: Any = SimpleNamespace(tape=tape, shapes={0: (3, 5), 1: (5,)}, last={})
    axes = {"kernel": (1, np.arange(1, 6)), "bias": (0, np.arange(1, 6)), "unread": (0, np.arange(1, 6))}
    assert axes_met(program, axes) == [] and first_met(program, "unread", 0) is None


class Vectors(torch.nn.Module):
    """A layer that returns vectors, stored one after the other or element by element, and as many further numbers."""

    def __init__(self, count: int, size: int, turned: bool) -> None:
        super().__init__()
        self.f, self.shape, self.turned = torch.nn.Linear(5, 2 * count * size), (count, size), turned

    def forward(self, x: Any) -> Any:
        vectors, others = self.f(x).chunk(2, -1)
        rows = vectors.unflatten(-1, self.shape[::-1]).mT if self.turned else vectors.unflatten(-1, self.shape)
        return rows, others.tanh()


class Cut(torch.nn.Module):
    """A layer whose results are cut by sizes, in an order."""

    def __init__(self, order: str, **sizes: int) -> None:
        super().__init__()
        self.order, self.sizes, self.f = order, sizes, torch.nn.Linear(5, sum(sizes.values()))

    def forward(self, x: Any) -> Any:
        parts = dict(zip(self.order, self.f(x).split([self.sizes[part] for part in self.order], -1), strict=True))
        return parts["p"].tanh(), parts["q"].sigmoid(), parts["r"] ** 2, parts["s"]


@pytest.mark.parametrize("turned", [False, True])
def test_ranges_that_follow_from_numbers_of_heads_have_their_lengths_in_the_line(turned: bool):
    found = parity.derive(Vectors(3, 2, turned), Vectors(3, 2, not turned), (images(4, 5),))
    lines = found.table.print()
    assert found.proven and "f.weight: (a=1+b=1+e=1+f=1+g=1+j=7) i <-> " in lines and not found.unchecked, lines
    assert "# for these lengths alone: (a=1+b=1+e=1+f=1+g=1+j=7): derive again" in lines and "width" not in lines
    assert "whose parts have these lengths alone: derive again" in str(found)
    arrays = {name: array.numpy() for name, array in Vectors(4, 2, turned).state_dict().items()}
    with pytest.raises(TableError, match="is 12, not 16"):
        found.table.apply(arrays)


def test_parts_that_the_code_cuts_keep_open_lengths():
    small, large = {"p": 2, "q": 3, "r": 1, "s": 5}, {"p": 3, "q": 1, "r": 4, "s": 2}
    found = parity.derive(Cut("pqrs", **small), Cut("qspr", **small), (images(4, 5),))
    assert found.proven and "f.weight: (a+b+e+f) i <-> f.weight: (b+f+a+e) i" in found.table.print()
    left, right = Cut("pqrs", **large), Cut("qspr", **large)
    arrays = {name: array.numpy() for name, array in left.state_dict().items()}
    moved = found.table.apply(arrays, a=3, b=1, e=4)
    right.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in moved.items()})
    x = torch.from_numpy(images(4, 5)).float()
    assert all(torch.allclose(one, other) for one, other in zip(left(x), right(x), strict=True))


@pytest.mark.parametrize("equal", [False, True])
def test_parts_are_said_to_be_taken_for_equal_where_the_other_side_stacks_blocks(equal: bool):
    """A split into sizes shows no number of parts, and a cut into three does."""
    jax = pytest.importorskip("jax", reason="one side is a scan")
    cut = (lambda y, _: y.chunk(3, -1)) if equal else (lambda y, sizes: y.split(sizes, -1))

    def stacked(p: Any, x: Any) -> Any:
        def block(x: Any, own: Any) -> Any:
            q, k, v = (x @ own[name] + own[name + "b"] for name in "qkv")
            return jax.nn.softmax(q @ k.mT / 2) @ v @ own["o"] + own["ob"], None

        return jax.lax.scan(block, x, p)[0]

    parameters = {name: jax.numpy.ones((2, 6, 6)) for name in "qkvo"}
    parameters |= {f"{name}b": jax.numpy.ones((2, 6)) for name in "qkvo"}
    models = torch.nn.Sequential(Fused(cut), Fused(cut)), (stacked, parameters)
    for left, right in (models, models[::-1]):
        found = parity.derive(left, right, (images(2, 5, 6),))
        names = [f"{k}.of.qkv.{kind}" for k in range(2) for kind in ("weight", "bias")]
        assert found.proven and sorted(found.assumed) == sorted(names) * (not equal), str(found)


def test_an_encoding_as_long_as_hidden_units_is_said_to_be_taken_for_equally_long():
    """The other side has the encoding in another order, so that it and the hidden units have lines of their own."""
    jax = pytest.importorskip("jax", reason="one side is a function of JAX")

    class Beside(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(8, 2)

        def forward(self, x: Any) -> Any:
            e = torch.cat([x.sin(), x.cos()], -1)
            return self.b(torch.cat([self.a(e).tanh(), e], -1))

    def apart(p: Any, x: Any) -> Any:
        e = jax.numpy.concatenate([jax.numpy.cos(x), jax.numpy.sin(x)], -1)
        return jax.numpy.tanh(e @ p["a"] + p["ab"]) @ p["bh"] + e @ p["be"] + p["bb"]

    shapes = {"a": (4, 4), "ab": (4,), "bh": (4, 2), "be": (4, 2), "bb": (2,)}
    right = apart, {name: jax.numpy.ones(shape) for name, shape in shapes.items()}
    found = parity.derive(Beside(), right, (images(6, 2),))
    assert found.proven and found.assumed == ["b.weight"], str(found)
