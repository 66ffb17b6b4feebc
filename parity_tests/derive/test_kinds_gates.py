"""Hard gates, which the frameworks compute with other numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.conclude.chosen import chosen
from parity.derive.match.choices import Step
from parity.derive.match.roles import difference
from parity.derive.trace.program import Program
from parity.derive.trace.sides import side

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch", reason="the left side is a torch module")
paddle = pytest.importorskip("paddle", reason="the right side is a paddle layer")
jax = pytest.importorskip("jax", reason="the right side is a JAX function")


class Gated(torch.nn.Module):
    """A convolution whose channels a hard sigmoid scales by what a squeeze of them gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(4, 8, 1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x).tanh()
        gate = torch.nn.functional.hardsigmoid(self.up(self.down(x.mean((2, 3), keepdim=True)).relu()))
        return self.head((x * gate).mean((2, 3)).tanh())


class PaddleGated(paddle.nn.Layer):
    """The same in paddle, with the slope of its hard sigmoid."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.a, self.b, self.c = paddle.nn.Conv2D(3, 8, 3), paddle.nn.Conv2D(8, 4, 1), paddle.nn.Conv2D(4, 8, 1)
        self.d = paddle.nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.a(x).tanh()
        squeezed = paddle.nn.functional.relu(self.b(x.mean([2, 3], keepdim=True)))
        gate = paddle.nn.functional.hardsigmoid(self.c(squeezed), slope=self.slope)
        return self.d((x * gate).mean([2, 3]).tanh())


def test_a_rounded_slope_is_named_and_the_rest_is_proven():
    """Paddle's default is 1/6 in seven digits."""
    found = parity.derive(Gated(), PaddleGated(0.1666667), (images(2, 3, 8, 8),))
    assert found.proven, str(found)
    assert found.divergences[0].cause == "one number is rounded: 0.1666666667 on the left, 0.1666667 on the right"


class Twins(torch.nn.Module):
    """Layers one after the other, each a kernel of 1x1 or a dense layer; nothing that the last reads is above zero."""

    def __init__(self, dense: bool) -> None:
        super().__init__()
        names, layer = ("fc", torch.nn.Linear) if dense else ("mix", lambda i, o: torch.nn.Conv2d(i, o, 1))
        self.names = [f"{names}{k}" for k in range(3)]
        for name in self.names:
            setattr(self, name, layer(4, 4))

    def forward(self, x: Any) -> Any:
        first, second, last = (getattr(self, name) for name in self.names)
        x = second(first(x if self.names[0] == "fc0" else x[:, :, None, None]).tanh())
        return last((-x.abs()).relu()).flatten(1) + x.flatten(1)


def test_a_kernel_that_meets_zeros_alone_follows_its_bias_and_its_siblings():
    found = parity.derive(Twins(False), Twins(True), (images(2, 4),))
    assert found.proven and found.inferred == ["fc2.weight"], str(found)
    assert "mix2.weight: o i 1 1 <-> fc2.weight: o i" in found.table.print()


def test_another_slope_is_named():
    found = parity.derive(Gated(), PaddleGated(0.2), (images(2, 3, 8, 8),))
    assert not found.proven and not found.missing, str(found)
    assert found.divergences[0].cause.startswith("hard sigmoid on the left, clip(x / 5 + 0.5, min=0.0, max=1.0) on the")


def test_the_halves_of_torchs_gated_unit_are_told_apart():
    """One operation of torch against a product of halves, which the other side has in the other order."""

    def gated(m: Any, x: Any) -> Any:
        return m.out(torch.nn.functional.glu(m.wide(x)))

    def written(m: Any, x: Any) -> Any:
        gate, value = m.wide(x).chunk(2, -1)
        return m.out(gate.sigmoid() * value)

    left, right = (Net(run, wide=linear(6, 10), out=linear(5, 3)) for run in (gated, written))
    found = parity.derive(left, right, (images(3, 6),))
    assert found.proven and "wide.bias: (-p=2 c) <-> wide.bias: (p c)" in found.table.print(), found.table.print()


def test_the_square_kernels_of_eight_gates_are_those_of_an_lstm():
    """All of them have one shape, and the four that read the input, or the state, read the same values."""

    def cells(m: Any, x: Any) -> Any:
        x, h, outs = m.first(x), torch.zeros(len(x), 6, dtype=x.dtype), list[Any]()
        c = h
        for step in x.unbind(1):
            i, f, g, o = (m.get_submodule(f"x{k}")(step) + m.get_submodule(f"h{k}")(h) for k in "ifgo")
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        return m.head(torch.stack(outs, 1))

    ends = {"first": linear(), "head": linear()}
    gates = {f"{of}{k}": linear(bias=of == "h") for of in "xh" for k in "ifgo"}
    fused = Net(lambda m, x: m.head(m.lstm(m.first(x))[0]), lstm=torch.nn.LSTM(6, 6, batch_first=True), **ends)
    found = parity.derive(Net(cells, **gates, **ends), fused, images(2, 5, 6), seconds=8)
    assert found.proven, (found.verdict, found.missing)


class TwoGated(torch.nn.Module):
    """Two blocks, each with a value and its gate in one projection, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.ModuleList(torch.nn.LayerNorm(6) for _ in range(2))
        self.wide = torch.nn.ModuleList(linear(6, 20, bias=False) for _ in range(2))
        self.down = torch.nn.ModuleList(linear(10, 6, bias=False) for _ in range(2))

    def forward(self, x: Any) -> Any:
        for norm, wide, down in zip(self.norm, self.wide, self.down, strict=True):
            up, gate = wide(norm(x)).chunk(2, -1)
            x = x + down(up * torch.nn.functional.silu(gate))
        return x


GATED = {"scale": (2, 6), "bias": (2, 6), "gate": (2, 6, 10), "up": (2, 6, 10), "down": (2, 10, 6)}


def two_gated(activation: Any) -> tuple[Any, Any]:
    """Return the same blocks stacked in one array each, with another activation of the gate."""

    def block(x: Any, p: Any) -> Any:
        y = jax.nn.standardize(x, epsilon=1e-5) * p["scale"] + p["bias"]
        return x + (activation(y @ p["gate"]) * (y @ p["up"])) @ p["down"], None

    return (lambda p, x: jax.lax.scan(block, x, p)[0]), {name: np.zeros(shape) for name, shape in GATED.items()}


def test_another_activation_leaves_a_gate_and_its_value_in_their_places():
    """Without their activations both may be exchanged, so that a wrong pair would confirm itself."""
    found = parity.derive(TwoGated(), two_gated(jax.nn.gelu), (images(4, 6),))
    assert "wide.{l}.weight: (s a) i <-> {s=up|gate}: l i a" in found.table.print(), found.table.print()
    (place,) = found.divergences
    assert place.cause.startswith("SiLU on the left, GELU by tanh on the right, and so in 1 more place"), str(found)
    assert "8 of 10 uses of parameters agree to 1e-8; the other 2 are where the models part, and agree with" in str(
        found
    )


def test_functions_of_single_values_are_nearer_to_each_other_than_to_other_readers():
    """The argument of an activation that is no known one, too, is its partner's, whatever the names are."""
    roles = "other [1.0, 2.0]", "other [3.0, 4.0]", "mul"
    assert difference(*roles[:2]) < difference(*roles[1:])


def test_a_stacked_layer_behind_where_the_models_part_confirms_no_choice():
    recorded = side(two_gated(jax.nn.gelu), parity.Call(images(4, 6)))
    inputs = recorded.call.arrays()
    program = Program(recorded.record(recorded.parameters, inputs), recorded.parameters, [*inputs.values()])
    nodes = [at for at, node in enumerate(program.tape.nodes) if node.kind == "product"][:3]
    for gap, names in ((0.0, []), (0.5, ["gate", "up"])):
        uses = zip(nodes, ("gate", "up", "down"), (0.0, 0.0, gap), (2, 2, 1), strict=True)
        steps = [Step("product", (name,), (name,), "", "", gap, 0, many, at) for at, name, gap, many in uses]
        assert chosen(program, steps) == names


def test_the_gates_behind_one_norm_stand_in_any_order():
    """All gates have the statistics of the norm in common: these do not tell one from another."""

    def cell(order: str) -> Net:
        def run(m: Any, x: Any) -> Any:
            gates = dict(zip(order, m.norm(m.w(x)).chunk(4, -1), strict=True))
            state = gates["f"].sigmoid() * x + gates["i"].sigmoid() * gates["g"].tanh()
            return m.head(gates["o"].sigmoid() * state.tanh())

        return Net(run, w=linear(6, 24), norm=torch.nn.LayerNorm(24), head=linear(6, 4))

    found = parity.derive(cell("ifgo"), cell("fiog"), images(2, 4, 6))
    assert found.proven, str(found)
    assert "norm.weight: (a=1+b=1+e=1+f=1 c) <-> norm.weight: (b+a+f+e c)" in found.table.print()


def test_the_scale_of_a_norm_in_jax_multiplies_its_statistics():
    def normed(p: Any, x: Any) -> Any:
        y = x - x.mean(-1, keepdims=True)
        return y * (jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-5) * p["scale"]) + p["bias"]

    def cell(order: str) -> Any:
        def run(p: Any, x: Any) -> Any:
            gates = dict(zip(order, jax.numpy.split(normed(p, x @ p["w"]), 3, -1), strict=True))
            return (jax.nn.sigmoid(gates["i"]) * jax.numpy.tanh(gates["g"]) + gates["o"]) @ p["head"]

        shapes = {"w": (6, 18), "scale": (18,), "bias": (18,), "head": (6, 4)}
        return run, {name: np.ones(shape, np.float32) for name, shape in shapes.items()}

    found = parity.derive(cell("igo"), cell("goi"), images(2, 4, 6))
    assert found.proven, str(found)


def recurrent(order: str, stacked: bool) -> Net:
    """A GRU whose gates have an axis of their own, or share one."""

    def gates(x: Any, w: Any) -> dict[str, Any]:
        parts = torch.einsum("ni,gio->gno", x, w) if stacked else (x @ w.mT).chunk(3, -1)
        return dict(zip(order, parts, strict=True))

    def run(m: Any, x: Any) -> Any:
        state = torch.zeros_like(x[:, 0])
        for now in x.unbind(1):
            a, b = gates(now, m.w), gates(state, m.u)
            z = (a["z"] + b["z"]).sigmoid()
            state = (1 - z) * (a["n"] + (a["r"] + b["r"]).sigmoid() * b["n"]).tanh() + z * state
        return m.head(state)

    shape = (3, 6, 6) if stacked else (18, 6)
    kernels = {name: torch.nn.Parameter(torch.randn(shape) / 2) for name in "wu"}
    return Net(run, head=linear(6, 4), **kernels)


@pytest.mark.parametrize(
    ("stacked", "line"),
    [
        (False, "w: (a=1+b=1+e=1 o) i <-> w: (b+e+a) i o"),
        (True, "w: (a=1+b=1+e=1) i d <-> w: (b+e+a d) i"),
    ],
)
def test_stacked_gates_stand_in_any_order_beside_gates_of_one_axis(stacked: bool, line: str):
    found = parity.derive(recurrent("rzn", stacked), recurrent("znr", not stacked), images(2, 3, 6))
    assert found.proven and line in found.table.print(), str(found)
    assert "whose parts have one length in every model" in str(found) and "these lengths alone" not in str(found)


@pytest.mark.parametrize("conv", [True, False])
def test_pieces_of_one_projection_come_apart_behind_a_convolution_of_single_channels_and_an_activation(conv: bool):
    """As x, B and C of Mamba2, which a depthwise convolution and SiLU read together."""
    widths = {"z": 6, "x": 6, "b": 4, "c": 4}

    def block(order: str) -> Net:
        fused = [name for name in order if name != "z"]

        def run(m: Any, u: Any) -> Any:
            parts = dict(zip(order, m.all(u).split([widths[name] for name in order], -1), strict=True))
            y = torch.cat([parts[name] for name in fused], -1)
            y = m.conv(y.mT)[..., : u.shape[1]].mT if conv else y
            y = torch.nn.functional.silu(y).split([widths[name] for name in fused], -1)
            x, b, c = (y[fused.index(name)] for name in "xbc")
            return m.out((c @ b.mT @ x).tanh() * torch.nn.functional.silu(parts["z"]))

        layers = {"conv": torch.nn.Conv1d(14, 14, 3, padding=2, groups=14)} if conv else {}
        return Net(run, all=linear(6, 20, False), out=linear(6, 5), **layers)

    found = parity.derive(block("zxbc"), block("czbx"), images(2, 5, 6))
    assert found.proven, str(found)
