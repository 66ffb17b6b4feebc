"""Layers that frameworks compute by other operations, or that lack a bias on one side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.trace.einsum import read_einsum
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Tape

from ..conftest import needs
from .pairs import images

torch = pytest.importorskip("torch", reason="left sides are torch modules")


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ibnd,jbnd->bnij", [(3, 2, 4, 5), (6, 2, 4, 5)]),
        ("ibnd,snd->ibns", [(3, 2, 4, 5), (2, 4, 5)]),
        ("b...d, ed -> b...e", [(2, 3, 4, 5), (6, 5)]),
        ("...ij,...jk", [(2, 3, 4), (2, 4, 5)]),
        ("i,d->id", [(3,), (4,)]),
        ("bi,bi->bi", [(2, 3), (2, 3)]),
    ],
)
def test_an_einsum_is_one_product(equation: str, shapes: list[tuple[int, ...]]):
    tape = Tape()
    tape.inputs = [tape.number(), tape.number()]
    contraction = read_einsum(equation, shapes)
    assert contraction is not None
    tape.outputs = [contraction.record(tape, tape.inputs, "")]
    arrays = [images(*shape) for shape in shapes]
    np.testing.assert_allclose(Program(tape, {}, arrays).outputs[0], np.einsum(equation, *arrays), atol=1e-14)
    assert {node.kind for node in tape.nodes} <= {"layout", "product", "mul"}


@pytest.mark.parametrize("equation", ["ii,ij->j", "ij,jk->k", "ij,jk,kl->il"])
def test_an_einsum_that_is_no_product_of_two_is_left_alone(equation: str):
    assert read_einsum(equation, [(3, 3)] * (equation.count(",") + 1)) is None


def test_an_einsum_of_paddle_meets_its_parameters():
    needs("paddle")
    import paddle

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.out = self.create_parameter([8, 12], dtype="float64")

        def forward(self, x: Any) -> Any:
            return paddle.tanh(paddle.einsum("ibm,hm->ibh", x, self.out))

    left = torch.nn.Sequential(torch.nn.Linear(12, 8, bias=False), torch.nn.Tanh())
    found = parity.derive(left, Right(), (images(3, 4, 12),))
    assert found.proven and "0.weight: o i <-> out: o i" in found.table.print()


class Bags(torch.nn.Module):
    """Bags of tokens and a product of two vectors, as layers of their own or written out."""

    def __init__(self, own: bool, sizes: list[int]):
        super().__init__()
        self.own, self.sizes = own, sizes
        self.table = torch.nn.EmbeddingBag(12, 6, mode="mean") if own else torch.nn.Embedding(12, 6)
        self.pair = torch.nn.Bilinear(6, 3, 4) if own else torch.nn.Linear(18, 4)

    def forward(self, tokens: Any, x: Any) -> Any:
        starts = np.cumsum([0, *self.sizes[:-1]])
        if self.own:
            return self.pair(self.table(tokens, torch.tensor(starts)), x).tanh()
        rows = torch.stack([part.mean(0) for part in self.table(tokens).split(self.sizes)])
        return self.pair((rows[:, :, None] * x[:, None]).flatten(1)).tanh()


@pytest.mark.parametrize("sizes", [[4] * 6, [3, 5, 4, 2, 4, 6]])
def test_bags_of_tokens_and_bilinear_layers(sizes: list[int]):
    tokens = np.random.default_rng(1).permutation(np.arange(24) % 12)
    found = parity.derive(Bags(True, sizes), Bags(False, sizes), (tokens, images(6, 3)))
    assert found.proven, (found.failure, found.missing)
    assert "pair.weight: o h d <-> pair.weight: o (h d)" in found.table.print()


class Attention(torch.nn.Module):
    """Self-attention with projections that may lack a bias, or fused."""

    def __init__(self, biases: str, fused: bool = False):
        super().__init__()
        self.fused = fused
        for name in ("qkv",) if fused else "qkv":
            setattr(self, name, torch.nn.Linear(6, 6 * len(name), bias=name in biases or fused))
        self.out = torch.nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        parts = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k, v = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in parts)
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)).tanh()


def test_a_bias_of_a_layer_that_has_none_on_the_left_is_zero():
    found = parity.derive(Attention("q"), Attention("qkv"), (images(2, 5, 6),))
    text = found.table.print()
    assert found.proven and not found.inferred
    assert "<-> k.bias: a = 0" in text and "<-> v.bias: a = 0" in text and "q.bias: c <-> q.bias: c" in text
    fused = parity.derive(Attention("qv"), Attention("", fused=True), (images(2, 5, 6),))
    assert fused.proven and "<-> qkv.bias: c[6:12] = 0" in fused.table.print()


def test_a_bias_is_not_zero_because_its_partner_cannot_be_recognised():
    class Other(Attention):
        def forward(self, x: Any) -> Any:
            return super().forward(1.3 * x.abs())

    found = parity.derive(Attention("qkv"), Other("qkv"), (images(2, 5, 6),))
    assert not found.proven and "= 0" not in found.table.print()


def test_a_convolution_is_cropped_behind_an_exchange_of_axes():
    class Cropped(torch.nn.Module):
        def __init__(self, last: bool):
            super().__init__()
            self.last, self.conv = last, torch.nn.Conv1d(4, 4, 4, padding=2)

        def forward(self, x: Any) -> Any:
            y = self.conv(x)
            return (y.mT[:, :-1].mT if self.last else y[:, :, :-1]).tanh()

    for last in (False, True):
        found = parity.derive(Cropped(last), Cropped(not last), (images(2, 4, 9),))
        assert found.proven, found.divergences


class Untied(torch.nn.Module):
    """Blocks with parameters that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        for k in range(2):
            block = torch.nn.Linear(4, 4)
            block.register_parameter("segment", torch.nn.Parameter(torch.randn(2, 3)))
            setattr(self, f"block{k}", block)

    def forward(self, x: Any) -> Any:
        return self.block1(self.block0(x).tanh()).tanh()


def test_parameters_that_nothing_reads_go_to_those_of_the_most_similar_names():
    found = parity.derive(Untied(), Untied(), (images(3, 4),))
    assert not found.missing and sorted(found.inferred) == ["block0.segment", "block1.segment"]
    assert "block1.segment: o i <-> block1.segment: o i" in found.table.print()


class Swapped(torch.nn.Module):
    """Rows in the order batch, time or time, batch, and a table of positions, rounded a little."""

    def __init__(self, time: bool):
        super().__init__()
        self.time = time
        self.layers = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: Any) -> Any:
        x = torch.full_like(x, 2.0) + x * (0.05 if self.time else 0.05 + 1e-7)
        for layer in self.layers:
            y = layer((x.transpose(0, 1) if self.time else x).contiguous()).tanh()
            x = x + (y.transpose(0, 1) if self.time else y)
        return x


def test_rows_in_another_order_are_not_mixed_up_where_values_part_a_little():
    found = parity.derive(Swapped(True), Swapped(False), (images(2, 5, 6),))
    assert not found.missing
    assert max(step.gap for step in found.uses) < 1e-6


def test_grouped_convolutions_of_jax_are_computed_group_by_group():
    needs("flax")
    import jax

    from parity.derive.trace.jax_groups import by_groups

    form = ("NHWC", "HWIO", "NHWC")

    def model(weights: Any, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            x, weights[0], (2, 1), "SAME", rhs_dilation=(1, 2), dimension_numbers=form, feature_group_count=8
        )
        inner = jax.jit(lambda y: jax.lax.conv_general_dilated(
            y, weights[1], (1, 1), "VALID", dimension_numbers=form, feature_group_count=400
        ))  # fmt: skip
        return jax.nn.silu(inner(y)).mean()

    with jax.enable_x64(True):
        arrays = (images(3, 5, 2, 400) / 10, images(3, 3, 1, 400)), images(1, 9, 8, 16)
        compiled = [jax.jit(jax.value_and_grad(f)).lower(*arrays).compile() for f in (by_groups(model), model)]
        jax.tree.map(np.testing.assert_allclose, *(run(*arrays) for run in compiled))
    sizes = [run.memory_analysis().temp_size_in_bytes for run in compiled]
    assert 10 * sizes[0] < sizes[1]  # else a dense kernel of 400 x 400 channels is there


def test_arrays_that_are_no_variables_of_an_nnx_module_are_constants():
    needs("flax")
    import jax.numpy as jnp
    from flax import nnx

    class Right(nnx.Module):
        def __init__(self) -> None:
            self.factor = nnx.data(jnp.full((4,), 2.0))
            self.dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return jnp.tanh(self.dense(x * self.factor))

    class Left(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x * 2).tanh()

    found = parity.derive(Left(4, 4), Right(), (images(3, 4),))
    assert found.proven and not found.missing and "factor" not in found.table.print()


def test_variables_of_linen_in_boxes_of_metadata():
    needs("flax")
    import flax.linen as nn
    import jax

    start = nn.with_partitioning(nn.initializers.normal(), ("in", "out"))
    dense = nn.Dense(4, kernel_init=start)
    variables = dense.init(jax.random.key(0), images(3, 4))
    assert parity.derive(torch.nn.Linear(4, 4), (dense, variables), (images(3, 4),)).proven


def test_integers_of_jax_keep_their_width():
    needs("flax")
    import jax
    import jax.numpy as jnp

    def right(parameters: Any, tokens: Any) -> Any:
        last = jax.lax.div(jnp.cumsum((tokens > 0).astype(jnp.int32), -1)[:, -1], jnp.int32(2))
        half = jnp.arange(tokens.shape[1])[None] < last[:, None]
        return jnp.tanh((parameters["table"][tokens] * half[..., None]).sum(1))

    class Left(torch.nn.Embedding):
        def forward(self, tokens: Any) -> Any:
            half = torch.arange(tokens.shape[1])[None] < ((tokens > 0).sum(1) // 2)[:, None]
            return (super().forward(tokens) * half[..., None]).sum(1).tanh()

    tokens = np.random.default_rng(0).integers(1, 9, (8, 12)).astype(np.int32)
    found = parity.derive(Left(9, 4), (right, {"table": np.zeros((9, 4))}), (tokens,))
    assert found.proven, (found.failure, found.error)


def test_a_table_that_a_model_computes_once_and_keeps_is_computed_again():
    class Kept(torch.nn.Module):
        def __init__(self, keeps: bool):
            super().__init__()
            self.keeps, self.kept = keeps, dict[str, Any]()
            self.weight, self.row = torch.nn.Linear(4, 4), torch.nn.Parameter(torch.randn(4))

        def forward(self, x: Any) -> Any:
            if not self.keeps or "row" not in self.kept:
                self.kept["row"] = self.row.exp()
            return (self.weight(x) * self.kept["row"]).tanh()

    for keeps in (False, True):
        assert parity.derive(Kept(keeps), Kept(not keeps), (images(3, 4),)).proven


def test_strides_of_a_part_of_a_storage():
    class Windows(torch.nn.Linear):
        def __init__(self, strides: bool):
            super().__init__(6, 4)
            self.strides = strides

        def forward(self, x: Any) -> Any:
            last = x[1]
            if self.strides:
                parts = last.as_strided((3, 6), (4, 1), last.storage_offset())
            else:
                parts = torch.stack([last.flatten()[4 * k : 4 * k + 6] for k in range(3)])
            mask = torch.zeros(2, 3, 3)
            mask[1].fill_diagonal_(2.0)
            return (mask[1] @ super().forward(parts)).tanh()

    for strides in (False, True):
        assert parity.derive(Windows(strides), Windows(not strides), (images(2, 7, 2),)).proven


class Padded(torch.nn.Module):
    """Strided convolutions that pad on both sides, or behind the image alone, and a gate of means."""

    def __init__(self, behind: bool):
        super().__init__()
        self.behind, n = behind, torch.nn
        self.downs = n.ModuleList(n.Conv2d(6, 6, 3, stride=2, padding=0 if behind else 1) for _ in range(3))
        self.norms = n.ModuleList(n.BatchNorm2d(6) for _ in range(3))
        self.gates = n.ModuleList(n.Linear(6, 6) for _ in range(3))

    def forward(self, x: Any) -> Any:
        for down, norm, gate in zip(self.downs, self.norms, self.gates, strict=True):
            y = torch.nn.functional.pad(x, (0, 1, 0, 1)) if self.behind else x
            y = norm(down(y)).relu()
            x = y * gate(y.mean((2, 3))).sigmoid()[:, :, None, None]
        return x


def test_convolutions_that_pad_elsewhere_give_a_complete_table_and_the_cause():
    found = parity.derive(Padded(False), Padded(True), (images(2, 6, 16, 16),))
    assert not found.proven and not found.missing and not found.failure
    table = found.table.print()
    assert "downs.{i}.weight: o i h w <-> downs.{i}.weight: o i h w" in table
    assert "gates.{i}.weight: o i <-> gates.{i}.weight: o i" in table
    assert any("padding" in place.cause for place in found.divergences), found.divergences


class Cell(torch.nn.Module):
    """A recurrent network of convolutions with fused gates, one kernel for input and state or two, in any order."""

    def __init__(self, order: str, joined: bool):
        super().__init__()
        self.order, self.joined = order, joined
        self.input = torch.nn.Conv1d(5 if joined else 2, 12, 3, padding=1)
        if not joined:
            self.state = torch.nn.Conv1d(3, 12, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        state = memory = torch.zeros(len(x), 3, x.shape[-1])
        for step in x.unbind(1):
            y = self.input(torch.cat([step, state], 1)) if self.joined else self.input(step) + self.state(state)
            gates = dict(zip(self.order, y.chunk(4, 1), strict=True))
            memory = gates["f"].sigmoid() * memory + gates["i"].sigmoid() * gates["g"].tanh()
            state = gates["o"].sigmoid() * memory.tanh()
        return state


def test_gates_of_convolutions_in_another_order():
    found = parity.derive(Cell("ifog", True), Cell("figo", False), (images(2, 2, 2, 5),))
    assert found.proven, (found.failure, found.missing, found.error)
