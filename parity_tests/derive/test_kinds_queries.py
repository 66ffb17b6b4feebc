"""Layers that read parameters alone, as those of a decoder do before its queries meet an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.match import biases, roles
from parity.derive.trace.ancestors import made_of
from parity.derive.trace.program import Program
from parity.derive.trace.sides import side

from ..conftest import needs
from .pairs import images
from .test_kinds_matching import Net, linear, numbers
from .test_kinds_products import both_ways, weight


class Layer(torch.nn.Module):
    """Self-attention of queries, then their attention to an input; one projection for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(6), torch.nn.LayerNorm(6)
        self.qkv, self.out, self.read = torch.nn.Linear(6, 18), torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)

    def project(self, y: Any) -> Any:
        return self.qkv(y).chunk(3, -1)

    def forward(self, y: Any, x: Any) -> Any:
        q, k, v = self.project(y)
        y = self.norm1(y + self.out((q @ k.mT).softmax(-1) @ v))
        return self.norm2(y + (self.read(y) @ x.mT).softmax(-1) @ x)


class Split(Layer):
    """The same with three projections."""

    def __init__(self) -> None:
        super().__init__()
        del self.qkv
        self.v, self.k, self.q = (torch.nn.Linear(6, 6) for _ in range(3))

    def project(self, y: Any) -> Any:
        return self.q(y), self.k(y), self.v(y)


class Decoder(torch.nn.Module):
    """Layers that read queries, which are the same for each input of a batch."""

    def __init__(self, layer: type[Layer]) -> None:
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(4, 6))
        self.layers = torch.nn.ModuleList(layer() for _ in range(2))

    def forward(self, x: Any) -> Any:
        y = self.queries.expand(len(x), -1, -1)
        for layer in self.layers:
            y = layer(y, x)
        return y


def test_the_first_layer_of_a_decoder_reads_its_queries_alone():
    for sides in ((Layer, Split), (Split, Layer)):
        found = parity.derive(*map(Decoder, sides), (images(2, 5, 6),))
        assert found.proven and not found.missing and not found.inferred, str(found)
        text = found.table.print()
        assert (
            "queries: o i <-> queries: o i" in text and "layers.{i}.norm1.bias: c <-> layers.{i}.norm1.bias: c" in text
        )


class Normed(torch.nn.Module):
    """Dense layers whose weights are divided by their largest singular value."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.names = first, second
        for name, shape in ((first, (6, 5)), (second, (4, 6))):
            layer = torch.nn.Linear(*shape[::-1])
            setattr(self, name, torch.nn.utils.parametrizations.spectral_norm(layer))

    def forward(self, x: Any) -> Any:
        first, second = (getattr(self, name) for name in self.names)
        return second(first(x).tanh())


def test_a_product_of_weights_that_scales_weights_leaves_them_their_evidence():
    """Spectral normalization: a matrix is divided by a product of it with two buffers."""
    left, right = Normed("a", "b"), Normed("up", "down")
    found = parity.derive(left, right, (images(7, 5),))
    assert found.proven and not found.missing, str(found)
    given = {name: value.numpy() for name, value in left.state_dict().items()}
    moved = found.table.apply(given)
    original = "parametrizations.weight.original"
    assert np.array_equal(moved[f"down.{original}"], given[f"b.{original}"])


class Disentangled(torch.nn.Module):
    """Attention to content and, by the same projections, to relative positions, which a norm may scale first.

    Args:
      names: of queries, keys and values. normed: the class of the norm; None without one.
    """

    def __init__(self, names: str, normed: bool):
        super().__init__()
        self.names, self.normed = names, normed
        for name in names:
            setattr(self, name, torch.nn.Linear(6, 6))
        self.tokens, self.relative = torch.nn.Embedding(9, 6), torch.nn.Parameter(torch.randn(5, 6))
        self.out, self.norm = torch.nn.Linear(6, 6), torch.nn.LayerNorm(6)

    def forward(self, tokens: Any) -> Any:
        q, k, v = (getattr(self, name) for name in self.names)
        x, places = self.tokens(tokens), self.norm(self.relative) if self.normed else self.relative
        steps = torch.arange(tokens.shape[1])
        at = (steps[:, None] - steps + 2).clamp(0, 4).expand(len(x), -1, -1)
        scores = q(x) @ k(x).mT + torch.gather(q(x) @ k(places).mT, -1, at)
        scores = scores + torch.gather(k(x) @ q(places).mT, -1, at).mT
        return self.out((scores / 4).softmax(-1) @ v(x))


@pytest.mark.parametrize("normed", [False, True])
def test_projections_that_read_tokens_and_relative_positions(normed: bool):
    """Each projection is tried for each other one, and each reads the same rows: those are no choices of their own."""
    tokens = np.random.default_rng(0).integers(0, 9, (2, 6))
    found = parity.derive(Disentangled("qkv", normed), Disentangled("kvq", normed), (tokens,))
    assert found.proven and not found.missing, str(found)
    assert "k.weight: o i <-> v.weight: o i" in found.table.print()


class FromZeros(torch.nn.Module):
    """Blocks of attention between queries that begin as zeros, as in DETR: the first kernel of values reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.read, self.head = linear(8, 8), linear(8, 3)
        self.queries = torch.nn.Parameter(torch.randn(5, 8))

    def forward(self, x: Any) -> Any:
        y = torch.zeros(len(x), 5, 8)
        for block in self.blocks:
            q = y + self.queries
            y = y + block(q, q, y, need_weights=False)[0] + torch.tanh(q + self.read(x).mean(1, keepdim=True))
        return self.head(y)


def in_separate_kernels() -> Any:
    """Return the same decoder in JAX, with one kernel each for queries, keys and values."""
    import jax
    import jax.numpy as jnp

    def dense(p: Any, x: Any) -> Any:
        return x @ p["w"] + p["b"]

    def run(p: Any, x: Any) -> Any:
        y = jnp.zeros((len(x), 5, 8))
        for b in p["blocks"]:
            z = y + p["queries"]
            q, k, v = (dense(b[name], of).reshape(-1, 5, 2, 4) for name, of in (("q", z), ("k", z), ("v", y)))
            weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2)
            attended = dense(b["o"], jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(-1, 5, 8))
            y = y + attended + jnp.tanh(z + dense(p["read"], x).mean(1, keepdims=True))
        return dense(p["head"], y)

    rng = np.random.default_rng(0)
    layer = {"w": rng.standard_normal((8, 8)), "b": rng.standard_normal(8)}
    head = {"w": rng.standard_normal((8, 3)), "b": rng.standard_normal(3)}
    blocks = [dict.fromkeys("qkvo", layer) for _ in range(2)]
    return run, {"blocks": blocks, "read": layer, "head": head, "queries": rng.standard_normal((5, 8))}


@pytest.mark.parametrize("first", [False, True])
def test_a_part_of_a_fused_kernel_that_reads_zeros_stands_as_in_other_blocks(first: bool):
    needs("flax")
    left = FromZeros()
    sides = left, in_separate_kernels()
    found = parity.derive(*(sides if first else sides[::-1]), (images(2, 6, 8),))
    assert found.proven and not found.missing, found
    if first:
        own = {name: value.numpy() for name, value in left.state_dict().items()}
        assert np.array_equal(found.table.apply(own)["blocks/0/v/w"], own["blocks.0.in_proj_weight"][16:].T)
        assert "blocks/0/v/w" in found.inferred


def test_attention_whose_result_is_multiplied_with_gates_of_the_same_shape():
    def left_run(m: Any, x: Any) -> Any:
        q, k, v, g = (part(x).view(2, 5, 3, 4).transpose(1, 2) for part in (m.q, m.k, m.v, m.g))
        y = (q / 2 @ k.mT).softmax(-1) @ v * g.sigmoid()
        return m.o(y.transpose(1, 2).flatten(2))

    def right_run(m: Any, x: Any) -> Any:
        q, k, v, g = (torch.einsum("bti,ihd->bthd", x, w) for w in (m.query, m.key, m.value, m.gate))
        y = torch.einsum("bhqk,bkhd->bqhd", torch.einsum("bqhd,bkhd->bhqk", q / 2, k).softmax(-1), v)
        return torch.einsum("bthd,hdo->bto", y * g.sigmoid(), m.out)

    left = Net(left_run, **{name: linear(10, 12, False) for name in "qkvg"}, o=linear(12, 6, False))
    kernels = {name: weight(10, 3, 4) for name in ("query", "key", "value", "gate")}
    found = both_ways(left, Net(right_run, **kernels, out=weight(3, 4, 6)), 2, 5, 10)
    moved = found.table.apply(given := numbers(left, images(2, 5, 10)))
    assert np.array_equal(moved["gate"], given["g.weight"].T.reshape(10, 3, 4))


@pytest.mark.parametrize("crosswise", [False, True])
def test_gated_projections_of_which_one_side_fuses_both_and_sums_over_either(crosswise: bool):
    def left_run(m: Any, x: Any, mask: Any) -> Any:
        a, b = mask * m.ag(x).sigmoid() * m.a(x), mask * m.bg(x).sigmoid() * m.b(x)
        return torch.tanh(x + m.out(torch.einsum("kic,kjc->ijc" if crosswise else "ikc,jkc->ijc", a, b))) @ m.head

    def right_run(m: Any, x: Any, mask: Any) -> Any:
        a, b = (mask * m.both(x) * m.gates(x).sigmoid()).chunk(2, -1)
        return torch.tanh(x + m.out(torch.einsum("kjc,kic->ijc" if crosswise else "ikc,jkc->ijc", a, b))) @ m.head

    parts = {name: linear(8, 6) for name in ("a", "b", "ag", "bg")}
    left = Net(left_run, **parts, out=linear(6, 8), head=weight(8, 3))
    right = Net(right_run, both=linear(8, 12), gates=linear(8, 12), out=linear(6, 8), head=weight(8, 3))
    inputs = images(4, 4, 8), (images(4, 4, 1) > -0.5).astype(np.float32)
    found = parity.derive(left, right, inputs)
    assert found.proven and not found.missing, (found.failure, found.reasons)


def test_both_halves_of_a_projection_meet_values_of_their_own():
    def run(m: Any, x: Any, e: Any) -> Any:
        scale, shift = m.e(e).chunk(2, -1)
        return (torch.nn.functional.group_norm(m.i(x), 2) * (1 + scale) + shift).tanh()

    recorded = side(Net(run, i=linear(4, 6), e=linear(5, 12)), parity.Call(images(7, 4), images(7, 5)))
    inputs = recorded.call.arrays()
    program = Program(recorded.record(recorded.parameters, inputs), recorded.parameters, [*inputs.values()])
    products = {at for at, node in enumerate(program.tape.nodes) if node.kind == "product"}
    of_both, of_inputs = sorted(products)
    scale, shift = roles.groups(program, of_both, False, roles.Depth(gates=True))
    assert made_of(program, scale.beside.value, products) == {of_inputs}
    assert made_of(program, shift.beside.value, products) == products


def test_what_is_added_to_a_sum_of_products_is_the_bias_of_each():
    """As of a layer on joined values, of which the other side has a product for each of these."""

    def run(m: Any, x: Any, y: Any) -> Any:
        return (x @ m.first + y @ m.second + m.bias).tanh() @ m.head

    net = Net(run, first=weight(4, 6), second=weight(5, 6), bias=weight(6), head=weight(6, 3))
    recorded = side(net, parity.Call(images(7, 4), images(7, 5)))
    inputs = recorded.call.arrays()
    program = Program(recorded.record(recorded.parameters, inputs), recorded.parameters, [*inputs.values()])
    at = [k for k, node in enumerate(program.tape.nodes) if node.kind == "product"]
    found = [biases.bias(program, k) for k in at]
    assert found[0] == found[1] and found[2] is None
    assert program.tape.parameters["bias"] in program.tape.nodes[found[0]].inputs
