"""Heads that are as many as each is wide, grouped queries, stacked blocks, and gates: their lines fit other sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from parity.derive.fold.facts import Facts
from parity.derive.fold.fold import fold
from parity.derive.fold.summed import sums
from parity.derive.match.symbols import Elements
from specs.table import Table, TableError

from .pairs import images
from .test_kinds_matching import Net, linear

HEADS, GROUPS, WIDTH = 4, 2, 16  # so that a head is as wide as heads are many


def stacked(p: Any, x: Any) -> Any:
    """Grouped-query attention of JAX, its blocks stacked; key and value in one array, or in two."""
    for block in range(2):
        b = jax.tree.map(lambda a, block=block: a[block], p)
        q = jnp.einsum("bti,ihd->bthd", x, b["q"])
        k, v = (jnp.einsum("bti,igd->btgd", x, w) for w in (b["kv"].swapaxes(0, 1) if "kv" in b else (b["k"], b["v"])))
        q = q.reshape(*q.shape[:2], GROUPS, -1, q.shape[3])
        y = jax.nn.softmax(jnp.einsum("bqgrk,bsgk->bgrqs", q, k) / 2, -1)
        y = jnp.einsum("bgrqs,bsgk->bqgrk", y, v).reshape(*x.shape[:2], HEADS, -1)
        x = x + jnp.einsum("bthd,hdo->bto", y, b["o"])
    return x


def parameters(joined: bool) -> dict[str, Any]:
    d = WIDTH // HEADS
    pair = {"kv": (WIDTH, 2, GROUPS, d)} if joined else {"k": (WIDTH, GROUPS, d), "v": (WIDTH, GROUPS, d)}
    shapes = {"q": (WIDTH, HEADS, d), **pair, "o": (HEADS, d, WIDTH)}
    return {name: jnp.zeros((2, *shape)) for name, shape in shapes.items()}


def grouped(fused: bool) -> Net:
    """The same of torch, with heads of keys and values repeated; all projections in one, by group, or three."""
    d = WIDTH // HEADS
    names = {"qkv": (HEADS + 2 * GROUPS) * d} if fused else {"q": HEADS * d, "k": GROUPS * d, "v": GROUPS * d}

    def attend(m: Any, x: Any) -> Any:
        n, t, _ = x.shape
        if fused:
            y = m.qkv(x).view(n, t, GROUPS, HEADS // GROUPS + 2, d)
            q, k, v = y.split([HEADS // GROUPS, 1, 1], 3)
        else:
            q, k, v = m.q(x), m.k(x).view(n, t, GROUPS, 1, d), m.v(x).view(n, t, GROUPS, 1, d)
        k, v = (y.expand(n, t, GROUPS, HEADS // GROUPS, d) for y in (k, v))
        q, k, v = (y.reshape(n, t, HEADS, d).transpose(1, 2) for y in (q, k, v))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return x + m.o(y.transpose(1, 2).reshape(n, t, WIDTH))

    blocks = [
        Net(attend, o=linear(WIDTH, WIDTH, False), **{name: linear(WIDTH, o, False) for name, o in names.items()})
        for _ in range(2)
    ]
    return Net(lambda m, x: m.blocks[1](m.blocks[0](x)), blocks=torch.nn.ModuleList(blocks))


@pytest.mark.parametrize("fused", [False, True])
def test_grouped_queries_where_heads_are_as_many_as_they_are_wide(fused: bool):
    found = parity.derive((stacked, parameters(fused)), grouped(fused), (images(2, 5, WIDTH),))
    assert found.proven and not found.missing, (found.failure, found.reasons, found.divergences)
    numbers = np.arange(2 * WIDTH * WIDTH).reshape(2, WIDTH, HEADS, WIDTH // HEADS)
    given = {name: np.zeros(array.shape) for name, array in parameters(fused).items()} | {"q": numbers}
    made = found.table.apply(given)
    there = made["blocks.1.qkv.weight"] if fused else made["blocks.1.q.weight"]
    if fused:
        there = there.reshape(GROUPS, -1, 4, WIDTH)[:, :2].reshape(-1, WIDTH)
    assert np.array_equal(there, numbers[1].reshape(WIDTH, -1).T)


def gated(p: Any, x: Any) -> Any:
    """A recurrent network of JAX whose reset and update gates have one bias, where torch adds two."""
    h, outs = jnp.zeros((len(x), 4)), []
    for t in range(x.shape[1]):
        r, z, n = (x[:, t] @ p[f"i{gate}"]["kernel"] + p[f"i{gate}"]["bias"] for gate in "rzn")
        r, z = jax.nn.sigmoid(r + h @ p["hr"]["kernel"]), jax.nn.sigmoid(z + h @ p["hz"]["kernel"])
        n = jnp.tanh(n + r * (h @ p["hn"]["kernel"] + p["hn"]["bias"]))
        h = (1 - z) * n + z * h
        outs.append(h)
    return jnp.stack(outs, 1)


def test_thirds_of_a_bias_are_translated_at_other_widths():
    tree = {f"i{gate}": {"kernel": jnp.zeros((5, 4)), "bias": jnp.zeros(4)} for gate in "rzn"}
    tree |= {"hr": {"kernel": jnp.zeros((4, 4))}, "hz": {"kernel": jnp.zeros((4, 4))}}
    tree["hn"] = {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros(4)}
    right = Net(lambda m, x: m.rnn(x)[0], rnn=torch.nn.GRU(5, 4, batch_first=True))
    found = parity.derive((gated, tree), right, (images(2, 2, 5),))
    assert found.proven, (found.failure, found.reasons)
    table = Table.parse(found.table.print()).reverse()
    wide = torch.nn.GRU(5, 6, batch_first=True).state_dict()
    moved = table.apply(arrays := {f"rnn.{name}": tensor.numpy() for name, tensor in wide.items()})
    ih, hh = arrays["rnn.bias_ih_l0"], arrays["rnn.bias_hh_l0"]
    assert np.array_equal(moved["iz/bias"], (ih + hh)[6:12]) and np.array_equal(moved["hn/bias"], hh[12:])


def test_parts_of_unequal_lengths_state_them_and_refuse_others():
    table = Table.parse("table 1\na: c=2 <-> b: c=2[:2]\nc: c=4 <-> b: c=4[2:]\n")
    assert table.print().count("c=2[:2]") == 1
    with pytest.raises(TableError, match="c=4"):
        table.reverse().apply({"b": np.zeros(12)})
    with pytest.raises(TableError, match="c=2"):
        table.apply({"a": np.zeros(3), "c": np.zeros(4)})


def written(left: Any, right: Any, moved: Any, sides: tuple[str, str] = ("linen", "torch")) -> tuple[str, ...]:
    """Return the lines of a Table of two sides of these shapes, by what happens to the numbers of the left elements."""
    lefts, rights = (Elements({name: np.zeros(shape) for name, shape in side.items()}, False) for side in (left, right))
    made = moved({name: lefts.numbers(name).astype(int) for name in left})
    found = np.concatenate([[0], *(made[name].ravel() for name in right)])
    table, missing = fold(Facts(lefts, rights, found, np.zeros(len(found), int), sides))
    assert not missing
    return tuple(map(str, table.lines))


def test_lines_of_stacked_blocks_against_fused_projections():
    fused = {f"b.{k}.w": (32, 16) for k in range(2)}
    apart = {"q": (2, 16, 4, 4), "kv": (2, 16, 2, 2, 4)}

    def joined(a: Any) -> Any:
        parts = (a["q"].reshape(2, 16, 2, 2, 4).transpose(0, 2, 3, 4, 1), a["kv"].transpose(0, 3, 2, 4, 1))
        return dict(zip(fused, np.concatenate(parts, 2).reshape(2, 32, 16), strict=True))

    assert written(apart, fused, joined) == ("q: l i (g r) d, kv: l i s g d <-> b.{l}.w: (g r+s d) i",)

    def split(a: Any) -> Any:
        w = np.stack([*a.values()]).reshape(2, 2, 4, 4, 16)
        return {
            "q": w[:, :, :2].reshape(2, 16, 16).swapaxes(1, 2).reshape(2, 16, 4, 4),
            "kv": w[:, :, 2:].transpose(0, 4, 2, 1, 3),
        }

    assert written(fused, apart, split, ("torch", "linen")) == (
        "b.{l}.w: (g r+s d) i <-> q: l i (g r) d, kv: l i s g d",
    )
    three = {f"a/{name}": (2, 16, 4, 4) for name in ("key", "query", "value")}
    one = {f"b.{k}.qkv": (16, 48) for k in range(2)}

    def listed(a: Any) -> Any:
        parts = [a[f"a/{name}"].reshape(2, 16, 16) for name in ("query", "key", "value")]
        return dict(zip(one, np.concatenate(parts, 2), strict=True))

    assert written(three, one, listed, ("nnx", "paddle")) == (
        "a/{s=query|key|value}: l i h d <-> b.{l}.qkv: i (s h d)",
    )


def test_the_width_of_a_head_has_one_letter_in_a_fused_projection_and_behind_the_attention():
    """So that it is given once: the lengths of all lines follow from that of a head and the number of groups."""
    left = {"wqkv": (40, 16), "wo": (16, 24)}
    right = {"q": (16, 6, 4), "k": (16, 2, 4), "v": (16, 2, 4), "o": (6, 4, 16)}

    def split(a: Any) -> Any:
        w = a["wqkv"].reshape(2, 5, 4, 16)
        parts = {"q": w[:, :3].reshape(6, 4, 16), "k": w[:, 3], "v": w[:, 4]}
        return {**{name: part.transpose(2, 0, 1) for name, part in parts.items()}, "o": a["wo"].T.reshape(6, 4, 16)}

    assert written(left, right, split, ("torch", "linen")) == (
        "wqkv: (g r+1+1 d) i <-> q: i (g r) d, k: i g d, v: i g d",
        "wo: o (h d) <-> o: h d o",
    )


def test_zeros_that_are_added_to_rows_of_a_matrix_have_no_line():
    lefts, rights = (
        Elements(arrays, False) for arrays in ({"a": np.zeros((2, 3))}, {"x": np.zeros(6), "y": np.zeros(6)})
    )
    found = np.array([0, *range(1, 7), *range(-1, -7, -1)])
    assert sums(found, np.zeros(13, int), lefts, rights, ["x", "y"]) is None


def test_stacked_variances_stay_positive():
    def normed(p: Any, x: Any) -> Any:
        for w, mean, var in zip(p["w"], p["mean"], p["var"], strict=True):
            x = x + (jnp.tanh(x) @ w - mean) / jnp.sqrt(var + 1e-5)
        return x

    tree = {"w": jnp.zeros((2, 6, 6)), "mean": jnp.zeros((2, 6)), "var": jnp.ones((2, 6))}
    parts = {f"{name}{k}": of for k in range(2)
             for name, of in (("w", linear(6, 6, False)), ("n", torch.nn.BatchNorm1d(6, affine=False)))}  # fmt: skip
    right = Net(lambda m, x: (lambda y: y + m.n1(m.w1(y.tanh())))(x + m.n0(m.w0(x.tanh()))), **parts)
    found = parity.derive((normed, tree), right.eval(), (images(9, 6),))
    assert found.proven and not found.missing, (found.failure, found.reasons)


def test_values_that_are_not_finite_are_no_evidence():
    def forward(m: Any, x: Any) -> Any:
        return m.b(m.a(x) * torch.log(-x.pow(2))) * m.s

    models = [Net(forward, a=linear(), b=linear(), s=torch.nn.Parameter(torch.randn(6))) for _ in range(2)]
    found = parity.derive(*models, (images(9, 6),))
    assert not found.proven and "nothing but NaN" in found.failure
    assert {"b.weight", "b.bias", "s"} <= set(found.missing)


def test_a_mask_that_one_side_stores_is_set_aside():
    def left(p: Any, x: Any) -> Any:
        q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
        scores = jnp.where(jnp.tril(jnp.ones((5, 5), bool)), q @ k.swapaxes(1, 2), -1e9)
        return jax.nn.softmax(scores, -1) @ v

    def masked(m: Any, x: Any) -> Any:
        return (m.q(x) @ m.k(x).mT + m.causal).softmax(-1) @ m.v(x)

    right = Net(masked, **{name: linear(6, 6, False) for name in "qkv"})
    right.register_buffer("causal", torch.full((5, 5), float("-inf")).triu(1))
    found = parity.derive((left, {name: jnp.zeros((6, 6)) for name in "qkv"}), right, (images(3, 5, 6),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    assert "drop <- causal" in found.table.print()


def rotated(x: Any, cat: Any) -> Any:
    """Turn halves of the head width of (n, t, heads, 4) by angles that grow with the position."""
    angles = np.arange(x.shape[1])[:, None] * np.array([1.0, 0.1])
    cos, sin = (f(angles)[None, :, None] for f in (np.cos, np.sin))
    cos, sin = (cos, sin) if isinstance(x, jax.Array) else map(torch.tensor, (cos, sin))
    a, b = x[..., :2], x[..., 2:]
    return cat((a * cos - b * sin, b * cos + a * sin), -1)


def rotary(p: Any, x: Any) -> Any:
    """Grouped-query attention of JAX, whose einsums exchange the operands of products."""
    q, k, v = (jnp.einsum("btc,chd->bthd", x, p[name]) for name in "qkv")
    q, k = (rotated(y, jnp.concatenate) for y in (q, k))
    q = q.reshape(*q.shape[:2], GROUPS, -1, 4)
    y = jnp.einsum("bgrts,bsgd->btgrd", jax.nn.softmax(jnp.einsum("btgrd,bsgd->bgrts", q, k) / 2), v)
    return jnp.einsum("bthd,hdc->btc", y.reshape(*x.shape[:2], HEADS, 4), p["o"])


def rotary_fused(m: Any, x: Any) -> Any:
    q, k, v = (y.unflatten(-1, (-1, 4)) for y in m.qkv(x).split([HEADS * 4, GROUPS * 4, GROUPS * 4], -1))
    q, k, v = (y.transpose(1, 2) for y in (rotated(q, torch.cat), rotated(k, torch.cat), v))
    k, v = (y.repeat_interleave(HEADS // GROUPS, 1) for y in (k, v))
    return m.o(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_half_of_each_query_is_not_taken_for_values_of_as_many_rows():
    """A half of each of four heads has as many columns as the values of two groups, and the same side of a product."""
    shapes = {"q": (WIDTH, HEADS, 4), "k": (WIDTH, GROUPS, 4), "v": (WIDTH, GROUPS, 4), "o": (HEADS, 4, WIDTH)}
    bare = {"qkv": torch.nn.Linear(WIDTH, (HEADS + 2 * GROUPS) * 4, False), "o": torch.nn.Linear(WIDTH, WIDTH, False)}
    right = Net(rotary_fused, **bare)
    found = parity.derive((rotary, {name: jnp.zeros(shape) for name, shape in shapes.items()}), right, images(2, 7, 16))
    assert found.proven, found


class Ordered(torch.nn.Module):
    """Grouped-query attention whose heads stand group by group, or by their place in a group."""

    def __init__(self, groups: int, each: int, width: int, by_group: bool) -> None:
        super().__init__()
        self.sizes, self.by_group = (groups, each, width), by_group
        self.q, self.k = torch.nn.Linear(10, groups * each * width), torch.nn.Linear(10, groups * width)
        self.v, self.out = torch.nn.Linear(10, groups * width), torch.nn.Linear(groups * each * width, 10)

    def forward(self, x: Any) -> Any:
        groups, each, width = self.sizes
        order = (groups, each) if self.by_group else (each, groups)
        q = self.q(x).unflatten(-1, (*order, width)).movedim(1, 3)
        q = q if self.by_group else q.swapaxes(1, 2)
        k, v = (layer(x).unflatten(-1, (groups, 1, width)).movedim(1, 3) for layer in (self.k, self.v))
        y = (q @ k.mT / 2).softmax(-1) @ v
        return self.out((y if self.by_group else y.swapaxes(1, 2)).movedim(3, 1).flatten(2))


def test_heads_in_groups_have_one_pair_of_letters_in_queries_and_output():
    """Two lengths are asked for, and the lines fit other numbers: six heads are no six parts of the code."""
    x = np.random.default_rng(0).standard_normal((2, 5, 10))
    found = parity.derive(*(Ordered(2, 3, 4, by_group) for by_group in (True, False)), (x,))
    lines = [line for line in str(found.table).splitlines() if line.startswith(("q.weight", "out.weight"))]
    assert lines == ["q.weight: (h s d) i <-> q.weight: (s h d) i", "out.weight: o (h s d) <-> out.weight: o (s h d)"]
    assert found.proven and found.unchecked == ["h", "s"] and "nor d, which follows from them" in str(found)
    left, right = (Ordered(4, 2, 6, by_group).double() for by_group in (True, False))
    arrays = found.table.apply({name: array.numpy() for name, array in left.state_dict().items()}, h=4, s=2)
    right.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    with torch.no_grad():
        assert (left(torch.from_numpy(x)) - right(torch.from_numpy(x))).abs().max() < 1e-14  # rounding of float64
