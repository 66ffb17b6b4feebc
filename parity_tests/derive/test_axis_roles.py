"""Pieces of axes are named by what the models use them for: parts that code takes apart, heads, the size of a head."""

from __future__ import annotations

from typing import Any

import jax
import pytest
import torch
from flax import linen as nn

import parity
from specs.notation.lines import TableError

from .pairs import images, initial
from .test_joined_orders import F64, converted
from .test_kinds_matching import Net, linear


def attention(heads: int, rows: str = "shd", joined: str = "hd", size: int = 2) -> Net:
    """Attention of heads of some size: the order of rows of queries, keys and values, and of its output."""
    order, sizes = ["b", "t", *rows], {"s": 3, "h": heads, "d": size}
    width = size * heads

    def run(m: Any, x: Any) -> Any:
        y = m.qkv(x).unflatten(-1, [sizes[axis] for axis in rows])
        q, k, v = y.permute([order.index(axis) for axis in "sbhtd"])
        y = ((q @ k.mT / 2).softmax(-1) @ v).permute([0, 2, *((1, 3) if joined == "hd" else (3, 1))])
        return m.out(y.flatten(2))

    return Net(run, qkv=linear(width, 3 * width), out=linear(width, width))


@pytest.mark.parametrize("heads", [4, 3])
@pytest.mark.parametrize("rows", ["hsd", "dhs"])
def test_the_number_of_parts_is_stated_and_that_of_heads_is_asked_for(heads: int, rows: str):
    found = parity.derive(attention(heads), attention(heads, rows), (images(2, 5, 2 * heads),))
    assert found.proven
    assert f"qkv.weight: (s=3 h d) i <-> qkv.weight: ({' '.join(rows)}) i" in found.table.print(), found.table.print()
    assert found.table.lengths() == found.table.reverse().lengths() == ("h",)
    assert found.reordered == ["qkv.weight", "qkv.bias"] and "in another order: qkv.weight, qkv.bias: " in str(found)
    with pytest.raises(TableError, match=r"s=8 was given, but .* has s=3"):
        found.table.layout(found.table.known, None, {"h": heads, "s": 8})


def of_groups(queries: int, whole: bool, by_range: bool) -> Net:
    """Attention of two heads of keys, as many of queries for each: projections side by side, or group by group."""

    def run(m: Any, x: Any) -> Any:
        y, heads = m.qkv(x), 2 * queries
        if whole:
            q, k, v = (part.unflatten(-1, (-1, 4)) for part in y.split([4 * heads, 8, 8], -1))
        else:
            y = y.unflatten(-1, (2, queries + 2, 4))
            q = y[..., :queries, :].flatten(2, 3) if by_range else y[..., 0, :]
            k, v = y[..., queries, :], y[..., queries + 1, :]
        q, k, v = (
            part.transpose(1, 2) for part in (q, k.repeat_interleave(queries, 2), v.repeat_interleave(queries, 2))
        )
        return m.out(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))

    return Net(run, qkv=linear(4, 8 * (queries + 2)), out=linear(8 * queries, 4))


@pytest.mark.parametrize("by_range", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_number_of_parts_that_no_code_has_is_not_checked(by_range: bool, first: bool):
    """Each head of keys has one query, so that its group has three parts; with more queries, it has more."""
    found = parity.derive(of_groups(1, first, by_range), of_groups(1, not first, by_range), (images(2, 5, 4),))
    lines = found.table.print()
    orders = ("(s=3 h d)", "(h s d)") if first else ("(h s=3 d)", "(s h d)")
    assert found.proven and "qkv.weight: {} i <-> qkv.weight: {} i".format(*orders) in lines, lines
    assert ("# not checked in code: s=3: nothing shows that the code has this number" in lines) == by_range
    assert ("s=3: stated, as the models' code has this number" in lines) != by_range
    assert found.to_dict()["by_chance"] == ["s=3"] * by_range


def in_one(heads: int, groups: int, size: int, whole: bool, last: bool = False, attends: bool = True) -> Net:
    """Attention whose queries, keys and values are one projection, or whose keys and values are one, head by head.

    Args:
      last: whether heads are neighbours, and not the channels of a head.
      attends: whether it attends at all, or mixes the channels of each head.
    """

    def run(m: Any, x: Any) -> Any:
        if whole:
            q, k, v = m.qkv(x).split([heads * size, groups * size, groups * size], -1)
        else:
            pairs = m.kv(x).unflatten(-1, (size, 2, groups) if last else (groups, 2, size))
            q, (k, v) = m.q(x), (y.flatten(2) for y in pairs.unbind(-2))
        q, k, v = (y.unflatten(-1, (size, -1)).mT if last else y.unflatten(-1, (-1, size)) for y in (q, k, v))
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        k, v = (y.repeat_interleave(heads // groups, 1) for y in (k, v))
        y = (q @ k.mT / 2).softmax(-1) @ v if attends else q.tanh() * k + v.sigmoid()
        return m.out(y.transpose(1, 2).flatten(2))

    own = {"qkv": heads + 2 * groups} if whole else {"q": heads, "kv": 2 * groups}
    return Net(run, **{name: linear(6, n * size) for name, n in own.items()}, out=linear(heads * size, 6))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("last", "attends"), [(False, True), (True, True), (False, False)])
def test_two_heads_of_keys_are_no_number_of_the_code(last: bool, attends: bool, whole: bool):
    """Pieces of length 2 are pairs of channels in rotary positions, but heads here: other models have more of them."""
    x = images(2, 5, 6)
    found = parity.derive(*(in_one(6, 2, 3, order, last, attends) for order in (whole, not whole)), (x,))
    text = found.table.print()
    assert found.proven and "=2: stated" not in text and "(q+k d a) i" in text and not found.by_chance, text
    larger = (in_one(6, 3, 4, order, last, attends) for order in (whole, not whole))
    assert converted(found, *larger, x, q=2, k=2, d=4 if last else 3, a=3 if last else 4) < F64


@pytest.mark.parametrize("whole", [False, True])
def test_as_many_heads_of_queries_as_of_keys_are_not_checked(whole: bool):
    found = parity.derive(in_one(2, 2, 3, whole), in_one(2, 2, 3, not whole), (images(2, 5, 6),))
    assert found.proven and found.by_chance == ["1 in (1+k d a)"], str(found)
    said = "not checked in code: 1 in (1+k d a): nothing shows that the code has this number"
    assert said in str(found) and f"# {said}" in found.table.print()


def test_a_keys_bias_inside_a_fused_projection_is_unobservable_by_its_name_on_the_right():
    """The projection has an effect as a whole: no proof covers where the third of it that has none belongs."""

    def apart(m: Any, x: Any) -> Any:
        q, k, v = (part(x).unflatten(-1, (2, 2)).transpose(1, 2) for part in (m.q, m.k, m.v))
        return m.out(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))

    parts = Net(apart, **{name: linear(4, 4) for name in ("q", "k", "v", "out")})
    found = parity.derive(attention(2), parts, (images(2, 5, 4),))
    assert found.proven and not found.unobservable and found.idle_parts == {"k.bias": "qkv.bias"}, str(found)
    said = "unobservable, outside any proof, as no output depends on it with these inputs: k.bias (part of qkv.bias)"
    assert said in str(found) and f"# {said}" in found.table.print()
    assert found.to_dict()["idle_parts"] == {"k.bias": "qkv.bias"}
    back = parity.derive(parts, attention(2), (images(2, 5, 4),))
    assert back.proven and back.unobservable == ["k.bias"] and not back.idle_parts


def test_joined_heads_are_named_so_in_both_directions():
    found = parity.derive(attention(4, joined="dh"), attention(4), (images(2, 5, 8),))
    assert found.proven and "out.weight: o (d h) <-> out.weight: o (h d)" in found.table.print(), found.table.print()
    assert found.table.lengths() == found.table.reverse().lengths() == ("h",) and found.reordered == ["out.weight"]


def test_another_number_of_heads_is_named_at_each_layer():
    def two(heads: int) -> Net:
        return Net(lambda m, x: m.b(m.a(x)), a=attention(heads, size=8 // heads), b=attention(heads, size=8 // heads))

    found = parity.derive(two(2), two(4), (images(3, 5, 8),), seconds=5)
    assert found.first.startswith("parts at a.out") and found.explained == "at least the number of heads", str(found)
    assert found.divergences[0].cause == "2 heads on the left, 4 on the right, and so in 1 more place"
    assert found.divergences[0].places == ("a.out", "b.out") and {"a.out.weight", "b.out.weight"} <= {*found.doubtful}


def test_another_number_of_heads_is_named_where_layers_are_stacked_and_scanned():
    class Layer(nn.Module):
        heads: int

        @nn.compact
        def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
            return nn.MultiHeadDotProductAttention(self.heads, name="attention")(x, x), None

    def scanned(heads: int) -> Any:
        every = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)(heads)
        return every, initial(every, x)

    x = images(3, 5, 8)
    found = parity.derive(scanned(2), scanned(4), (x,), seconds=5)
    assert found.divergences[0].cause == "2 heads on the left, 4 on the right, and so in 1 more place", str(found)


def test_another_number_of_heads_is_said_where_no_line_of_a_table_writes_the_order():
    def interleaved(heads: int) -> Net:
        def run(m: Any, x: Any) -> Any:
            q, k, v = m.qkv(x).unflatten(-1, (heads, 3, -1)).permute(3, 0, 2, 1, 4)
            return m.head(
                x + m.out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            )

        return Net(run, qkv=linear(16, 48, False), out=linear(16, 16, False), head=linear(16, 3))

    def separate(p: Any, x: Any) -> Any:
        q, k, v = (jax.numpy.einsum("btc,chd->bhtd", x, p[name]) for name in "qkv")
        y = jax.nn.softmax(q @ k.mT * 8**-0.5) @ v
        return (x + jax.numpy.einsum("bhtd,hdc->btc", y, p["out"])) @ p["head"] + p["bias"]

    parameters = {name: jax.numpy.ones((16, 2, 8)) for name in "qkv"} | {"out": jax.numpy.ones((2, 8, 16))}
    parameters |= {"head": jax.numpy.ones((16, 3)), "bias": jax.numpy.ones(3)}
    found = parity.derive(interleaved(4), (separate, parameters), (images(2, 6, 16),))
    assert not found.proven and found.heads == "the left model has 4 heads where the right one has 2", str(found)
    assert "heads differ: the left model has 4 heads" in str(found) and "same numbers of heads" in found.following


def test_another_number_of_heads_is_named_where_rows_are_tokens_first():
    """Torch's own attention computes with tokens before examples: two rows side by side are of two examples."""

    def module(heads: int) -> Net:
        attention = torch.nn.MultiheadAttention(16, heads, batch_first=True)
        return Net(lambda m, x: m.head(x + m.a(x, x, x, need_weights=False)[0]), a=attention, head=linear(16, 3))

    found = parity.derive(module(4), module(2), (images(2, 6, 16),))
    assert found.divergences[0].cause == "4 heads on the left, 2 on the right", str(found)


@pytest.mark.parametrize("repeated", [False, True])
def test_another_number_of_heads_of_keys_is_said(repeated: bool):
    """Repeated keys are as many products as there are queries; one row of them has equal values."""

    def keys(heads: int) -> Net:
        def run(m: Any, x: Any) -> Any:
            q, k, v = (part(x).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (m.q, m.k, m.v))
            if repeated:
                k, v = (some.repeat_interleave(4 // heads, 1) for some in (k, v))
            else:
                q = q.unflatten(1, (heads, -1)).flatten(2, 3)
            y = ((q @ k.mT / 2).softmax(-1) @ v).reshape(2, 4, 6, 4)
            return m.head(x + m.out(y.transpose(1, 2).flatten(2)))

        few = linear(16, 4 * heads, False), linear(16, 4 * heads, False)
        parts = {"q": linear(16, 16, False), "k": few[0], "v": few[1], "out": linear(16, 16, False)}
        return Net(run, **parts, head=linear(16, 3))

    found = parity.derive(keys(2), keys(1), (images(2, 6, 16),))
    assert found.heads == "the left model has 2 heads of keys and values where the right one has 1", str(found)
    assert parity.derive(keys(2), keys(2), (images(2, 6, 16),)).heads == ""


def grouped(in_groups: bool, tau: float = 1.0, turned: bool = False) -> Net:
    """Four heads of queries that share two of keys: in two groups of two rows each, or with keys repeated."""

    def run(m: Any, x: Any) -> Any:
        heads = [part(x).unflatten(-1, (-1, 3)).transpose(1, 2) for part in (m.q, m.k, m.v)]
        q, k, v = heads if in_groups else (heads[0], *(some.repeat_interleave(2, 1) for some in heads[1:]))
        rows = q.reshape(len(x), 2, -1, 3) if in_groups else q  # (b, groups, heads in it and tokens, channels)
        weights = (rows @ k.mT / tau).softmax(-1)
        y = (v.mT @ weights.mT).mT if turned else weights @ v
        return m.out(y.reshape(q.shape).transpose(1, 2).flatten(2))

    return Net(run, q=linear(8, 12), k=linear(8, 6), v=linear(8, 6), out=linear(12, 8))


@pytest.mark.parametrize("turned", [False, True])
def test_heads_in_groups_are_as_many_as_heads_with_repeated_keys(turned: bool):
    """What differs is another cause, which is found behind the comparison of heads."""
    for left, right in ((True, False), (False, True)):
        models = grouped(left, turned=turned), grouped(right, 2.0)
        found = parity.derive(*models, (images(3, 5, 8),), seconds=5)
        cause = found.divergences[0].cause
        assert not found.missing and "heads" not in str(found.explained) and "1 on the left, " in cause, str(found)


def test_parts_of_a_gate_are_stated():
    def gate(turned: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = m.wide(x).unflatten(-1, (4, 2) if turned else (2, 4))
            a, b = y.unbind(-1 if turned else -2)
            return m.out(a * torch.sigmoid(b))

        return Net(run, wide=linear(6, 8), out=linear(4, 3))

    found = parity.derive(gate(False), gate(True), (images(5, 6),))
    assert found.proven and "wide.weight: (s=2 o) i <-> wide.weight: (o s) i" in found.table.print()
    assert found.table.lengths() == ()


@pytest.mark.parametrize("heads", [2, 3])
def test_heads_of_a_loop_are_no_number_of_the_code(heads: int):
    """A cut into as many chunks as there are heads reads each by itself, as it reads queries, keys and values."""

    def loop(m: Any, x: Any) -> Any:
        parts = zip(*(layer(x).chunk(heads, -1) for layer in (m.q, m.k, m.v)), strict=True)
        return m.out(torch.cat([(q @ k.mT / 2).softmax(-1) @ v for q, k, v in parts], -1))

    def along_an_axis(p: Any, x: Any) -> Any:
        q, k, v = (jax.numpy.einsum("btc,hcd->bhtd", x, p[name]) for name in "qkv")
        y = jax.numpy.moveaxis(jax.nn.softmax(q @ k.mT / 2) @ v, 1, 2)
        return y.reshape(*x.shape[:2], -1) @ p["out"]

    width = 4 * heads
    parameters = {name: jax.numpy.ones((heads, width, 4)) for name in "qkv"}
    parameters["out"] = jax.numpy.ones((width, width))
    left = Net(loop, **{name: linear(width, width, False) for name in ("q", "k", "v", "out")})
    found = parity.derive(left, (along_an_axis, parameters), (images(2, 5, width),))
    assert found.proven and "q.weight: (h d) i <-> q: h i d" in found.table.print(), found.table.print()
    assert found.table.lengths() == ("h",)


@pytest.mark.parametrize("stacked_left", [True, False])
def test_gates_that_code_picks_by_index_are_four_in_every_model(stacked_left: bool):
    """Orders i, g, f, o and i, f, g, o could also exchange the axes of two by two gates: no length is open."""

    def run(m: Any, x: Any) -> Any:
        if m.w.ndim == 3:
            i, g, f, o = torch.einsum("bi,igd->gbd", x, m.w).unbind()
        else:
            i, f, g, o = (x @ m.w.mT).chunk(4, -1)
        return m.out((i.sigmoid() * g.tanh() + f.sigmoid() * x[:, :1]).tanh() * o.sigmoid())

    shapes = [(5, 4, 6), (24, 5)] if stacked_left else [(24, 5), (5, 4, 6)]
    models = (Net(run, w=torch.nn.Parameter(torch.randn(shape)), out=linear(6, 3)) for shape in shapes)
    found = parity.derive(*models, (images(7, 5),))
    gates = "a=1+b=1+e=1+f=1", "a+e+b+f"
    stacked, fused = "w: i ({}) d <-> w: ({} d) i", "w: ({} o) i <-> w: i ({}) o"
    line = (stacked if stacked_left else fused).format(*gates)
    assert found.proven and line in found.table.print().splitlines()
    assert not found.unchecked and not found.by_chance and "rotary" not in str(found)


def test_an_axis_of_an_outer_product_is_shown_by_the_halves_that_make_it():
    """One half of a fused projection is as long as the axes of the outer product of both: nothing has to be given."""

    def fused(m: Any, x: Any) -> Any:
        a, b = m.both(x).chunk(2, -1)
        return m.out(torch.einsum("sic,sjd->ijdc", a, b).flatten(-2))

    def apart(m: Any, x: Any) -> Any:
        return torch.einsum("ijcd,cdo->ijo", torch.einsum("sic,sjd->ijcd", m.left(x), m.right(x)), m.out)

    def sides(width: int) -> tuple[Net, Net]:
        halves = {name: linear(5, width) for name in ("left", "right")}
        out = torch.nn.Parameter(torch.randn(width, width, 7))
        left = Net(fused, both=linear(5, 2 * width), out=linear(width * width, 7, False))
        return left, Net(apart, out=out, **halves)

    found = parity.derive(*sides(6), (images(3, 4, 5),))
    assert found.proven and not found.unchecked
    moved = found.table.apply({name: array.detach().numpy() for name, array in sides(8)[0].named_parameters()})
    assert moved["out"].shape == (8, 8, 7)
