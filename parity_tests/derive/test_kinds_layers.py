"""Layers that frameworks compute by other operations, or that lack a bias on one side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.trace.paddle_forms import read_einsum
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
    assert "pair.weight: o H d <-> pair.weight: o (H d)" in found.table.print()  # H: the table shows its length


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
    zeros = [line for line in fused.table.print().splitlines() if line.endswith("= 0")]
    assert fused.proven and len(zeros) == 1 and zeros[0].startswith("<-> qkv.bias: "), fused.table.print()


class Zeroed(torch.nn.Module):
    """Self-attention as in BEiT, whose fused projection has a bias of queries, zeros for keys, and one of values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(6, 18, bias=False), torch.nn.Linear(6, 6)
        self.q_bias, self.v_bias = (torch.nn.Parameter(torch.randn(6)) for _ in range(2))

    def forward(self, x: Any) -> Any:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        parts = torch.nn.functional.linear(x, self.qkv.weight, bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in parts)
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)).tanh()


def test_zeros_between_the_biases_of_a_fused_projection_fill_the_bias_of_its_keys():
    found = parity.derive(Zeroed(), Attention("", fused=True), (images(2, 5, 6),))
    text = found.table.print()
    assert found.proven and "<-> qkv.bias: (1[1:-1] c) = 0" in text, str(found)
    assert "q_bias: c <-> qkv.bias: (1[:-2] c)" in text and "v_bias: c <-> qkv.bias: (1[2:] c)" in text
    assert parity.derive(Attention("", fused=True), Zeroed(), (images(2, 5, 6),)).proven


def test_a_bias_is_not_zero_because_its_partner_cannot_be_recognised():
    class Other(Attention):
        def forward(self, x: Any) -> Any:
            return super().forward(1.3 * x.abs())

    found = parity.derive(Attention("qkv"), Other("qkv"), (images(2, 5, 6),))
    assert not found.proven and "= 0" not in found.table.print()


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


def test_a_table_that_a_model_computes_once_and_keeps_is_computed_again():
    class Frozen(dict[str, Any]):  # as the configurations of libraries
        def update(self, *_: Any, **__: Any) -> None:
            raise TypeError("frozen")

        clear = update

    class Kept(torch.nn.Module):
        def __init__(self, keeps: bool):
            super().__init__()
            self.keeps, self.kept, self.config = keeps, dict[str, Any](), Frozen(width=4)
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


class Steps(torch.nn.Module):
    """A simple recurrent network of rectified inputs, all of which are multiplied at once, or step by step."""

    def __init__(self, at_once: bool):
        super().__init__()
        self.at_once, self.up = at_once, torch.nn.Linear(6, 6)
        self.input, self.state = torch.nn.Linear(6, 5), torch.nn.Linear(5, 5, bias=False)

    def forward(self, x: Any) -> Any:
        x = (self.up(x) - 0.3).relu()
        state, read = torch.zeros(len(x), 5), self.input(x) if self.at_once else None
        for k in range(x.shape[1]):
            state = ((self.input(x[:, k]) if read is None else read[:, k]) + self.state(state)).tanh()
        return state


def test_steps_of_rectified_inputs():
    inputs = (images(5, 4, 6),)
    found = parity.derive(Steps(True), Steps(False), inputs, inputs)
    assert found.proven, (found.failure, found.missing)


@pytest.mark.parametrize(
    ("left", "right", "shapes"),
    [
        (lambda x, b, w: torch.addmm(b, x, w), lambda p, x, b, w: p.addmm(b, x, w), [(6,), (6, 6)]),
        (lambda x, a, b: x @ a @ b, lambda p, x, a, b: p.linalg.multi_dot([x, a, b]), [(6, 4), (4, 6)]),
        (lambda x, a: torch.lerp(x, a, 0.3), lambda p, x, a: p.lerp(x, a, 0.3), [(6,)]),
        (lambda x, a, w: (x @ a)[:, None] * w, lambda p, x, a, w: p.mv(x, a)[:, None] * w, [(6,), (6,)]),
        (lambda x, a, w: (a @ x) * w, lambda p, x, a, w: p.matmul(a, x) * w, [(9,), (6,)]),
    ],
    ids=["addmm", "multi_dot", "lerp", "mv", "vector first"],
)
def test_products_of_paddle_meet_their_parameters(left: Any, right: Any, shapes: list[tuple[int, ...]]):
    needs("paddle")
    import paddle

    class Left(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.own = torch.nn.ParameterList([torch.nn.Parameter(torch.rand(*shape)) for shape in shapes])

        def forward(self, x):
            return torch.tanh(left(x, *self.own))

    class Right(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.own = paddle.nn.ParameterList([self.create_parameter(list(shape)) for shape in shapes])

        def forward(self, x):
            return paddle.tanh(right(paddle, x, *self.own))

    found = parity.derive(Left(), Right(), (images(9, 6),))
    assert found.proven and not found.missing, (found.failure, found.error)


def test_a_bilinear_layer_of_paddle_behind_an_embedding():
    needs("paddle")
    import paddle

    def model(nn, base):
        class Model(base):
            def __init__(self):
                super().__init__()
                self.rows, self.pair, self.out = nn.Embedding(11, 5), nn.Bilinear(5, 6, 7), nn.Linear(7, 7)

            def forward(self, tokens, x):
                return self.out(self.pair(self.rows(tokens), x))

        return Model()

    inputs = np.random.default_rng(0).integers(0, 11, (9,)), images(9, 6)
    found = parity.derive(model(torch.nn, torch.nn.Module), model(paddle.nn, paddle.nn.Layer), inputs, inputs)
    assert found.proven and not found.missing, (found.failure, found.error)


def test_simple_recurrent_layers_of_paddle():
    needs("paddle")
    import paddle

    left, inputs = torch.nn.RNN(4, 5, batch_first=True), (images(2, 3, 4),)
    found = parity.derive(left, paddle.nn.SimpleRNN(4, 5), inputs, inputs)
    assert not found.missing and found.error < 1e-9, (found.failure, found.error)


def test_a_matrix_in_front_of_rows_that_tokens_read():
    class Front(torch.nn.Module):
        def __init__(self, front: bool):
            super().__init__()
            self.front, self.table, self.up = front, torch.nn.Embedding(9, 4), torch.nn.Linear(4, 5)

        def forward(self, tokens: Any) -> Any:
            rows = self.table(tokens)
            if not self.front:
                return self.up(rows).tanh()
            return (torch.mm(self.up.weight, rows.reshape(-1, 4).mT).mT.reshape(2, 6, 5) + self.up.bias).tanh()

    tokens = np.random.default_rng(0).integers(0, 9, (2, 6))
    for front in (True, False):
        assert parity.derive(Front(front), Front(not front), (tokens,)).proven


class Shared(torch.nn.Module):
    """Read one table of tokens by two names; the head has it as well, or a kernel of its own."""

    def __init__(self, tied: bool):
        super().__init__()
        self.head = torch.nn.Linear(8, 9, bias=False)
        self.shared, self.up = torch.nn.Embedding(9, 8), torch.nn.Linear(8, 8)
        self.encoder = self.shared
        if tied:
            self.head.weight = self.shared.weight

    def forward(self, ids: Any) -> Any:
        return self.head(self.up(self.encoder(ids)).tanh())


def test_names_that_share_the_second_of_two_copies_are_in_the_line():
    ids = np.random.default_rng(0).integers(0, 9, (4, 9))
    found = parity.derive(Shared(True), Shared(False), (ids,))
    assert found.proven, (found.failure, found.missing)
    assert "head.weight: o i = shared.weight: o i = encoder.weight: o i" in found.table.print()


def test_a_paddle_activation_with_a_parameter_that_reads_the_input_itself():
    """Without a gradient of its input, paddle's gradient of PReLU ends the process."""
    needs("paddle")
    import paddle

    def net() -> Any:
        return paddle.nn.Sequential(paddle.nn.PReLU(4), paddle.nn.Linear(4, 3))

    found = parity.derive(net(), net(), (images(5, 4),))
    assert found.proven, (found.failure, found.reasons)


class FirstUnread(torch.nn.Module):
    """Three blocks of two layers, of which the first block reads its second layer alone, as in the neck of DPT.

    Args:
      path: how a layer is named, by the numbers of its block and of its own.
      numbers: the number of each block, in the order in which they are read.
    """

    def __init__(self, path: str, numbers: tuple[int, ...]):
        super().__init__()
        self.path, self.numbers = path, numbers
        for at in sorted((n, k) for n in numbers for k in (1, 2)):
            self.add_module(path.format(*at), torch.nn.Linear(4, 4))
        for n in numbers:
            self.add_module(f"scale{n}", torch.nn.Linear(4, 4))

    def forward(self, x: Any) -> Any:
        for at, n in enumerate(self.numbers):
            first, second = (getattr(self, self.path.format(n, k)) for k in (1, 2))
            x = getattr(self, f"scale{n}")(second(first(x).tanh() if at else x).sin()) + x
        return x


@pytest.mark.parametrize(
    ("path", "numbers"),
    [
        ("layer{}_unit{}", (0, 1, 2)),
        ("part{}_c{}", (0, 1, 2)),
        ("layer{}_unit{}", (1, 2, 3)),
        ("refine{}_conf{}", (4, 3, 2)),
        ("unit{1}_{0}", (2, 1, 0)),
    ],
    ids=["same names", "other names", "counted from 1", "counted down", "blocks counted last"],
)
def test_a_layer_that_one_block_does_not_read_comes_from_its_counterpart(path: str, numbers: tuple[int, ...]):
    left, right = FirstUnread(path, numbers), FirstUnread("layer{}_unit{}", (0, 1, 2))
    found = parity.derive(left, right, (images(3, 4),))
    assert found.proven and not found.left_over, str(found)
    own = {name: value.numpy() for name, value in left.state_dict().items()}
    table = found.table.apply(own)
    for leaf in ("weight", "bias"):
        assert np.array_equal(table[f"layer0_unit1.{leaf}"], own[f"{path.format(numbers[0], 1)}.{leaf}"])
    assert found.inferred == ["layer0_unit1.weight", "layer0_unit1.bias"]


class LastRead(torch.nn.Module):
    """Three layers of which the last one alone is read, in blocks that have nothing else."""

    def __init__(self, start: int):
        super().__init__()
        self.last = f"layer{start + 2}"
        for n in range(start, start + 3):
            self.add_module(f"layer{n}", torch.nn.Linear(4, 4, bias=False))

    def forward(self, x: Any) -> Any:
        return getattr(self, self.last)(x).tanh()


def test_layers_that_nothing_reads_go_to_those_at_the_same_distance_from_a_sibling():
    found = parity.derive(LastRead(1), LastRead(0), (images(3, 4),))
    assert found.proven and not found.left_over, str(found)
    for n in range(3):
        assert f"layer{n + 1}.weight: o i <-> layer{n}.weight: o i" in found.table.print(), found.table.print()
