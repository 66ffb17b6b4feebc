"""Pieces of axes are named by what the models use them for: parts that code takes apart, heads, the size of a head."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn

import parity
from convert.table import by_table
from specs.notation.lines import TableError
from specs.table import Table

from .pairs import images
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
    assert ("# not checked: s=3: nothing shows that the code has this number" in lines) == by_range
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
    said = "not checked: 1 in (1+k d a): nothing shows that the code has this number"
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
        return every, every.init(jax.random.key(0), x)

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


def patches(order: str) -> Net:
    """Return a layer that reads patches of 2 x 3, with their channels, rows and columns in an order."""

    def run(m: Any, x: Any) -> Any:
        x = x.unflatten(3, (-1, 3)).unflatten(2, (-1, 2))
        return m.f(x.permute(0, 2, 4, *({"c": 1, "p": 3, "q": 5}[axis] for axis in order)).flatten(3))

    return Net(run, f=linear(6, 3))


def convolutional(m: Any, x: Any) -> Any:
    return m.f(m.c(x).relu().flatten(1))


def in_jax(pool: bool) -> Any:
    def run(p: Any, x: Any) -> Any:
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, p["k"], (2, 2), "VALID", dimension_numbers=dims) + p["b"])
        return (x.mean((1, 2), keepdims=True) if pool else x).reshape(len(x), -1) @ p["w"] + p["v"]

    shapes = {"k": (2, 2, 3, 4), "b": (4,), "w": (4, 3), "v": (3,)}
    return run, {name: jax.random.normal(jax.random.key(0), shape) for name, shape in shapes.items()}


def pooled(m: Any, x: Any) -> Any:
    return m.f(torch.nn.functional.adaptive_avg_pool2d(m.c(x).relu(), 1).flatten(1))


@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize(
    ("own", "other"), [("shd", "hsd"), ("hsd", "shd"), ("sdh", "hds"), ("sdh", "dhs"), ("shd", "hds")]
)
def test_one_head_does_not_show_where_heads_stand(own: str, other: str, examples: int):
    found = parity.derive(attention(1, own, size=4), attention(1, other, size=4), (images(examples, 5, 4),))
    sure = (own, other) in {("sdh", "dhs"), ("shd", "hds")}  # (s d) <-> (d s) is right for more heads
    assert found.proven and found.unseen_orders == ([] if sure else ["qkv.weight", "qkv.bias"]), str(found)
    same = parity.derive(attention(1, own, size=4), attention(1, own, size=4), (images(examples, 5, 4),))
    assert same.proven and not same.unseen_orders


def of_pairs(heads: int, whole: bool) -> Net:
    """Attention with keys and values in one projection, side by side or head by head, which the code flattens again."""

    def run(m: Any, x: Any) -> Any:
        kv, shape = m.kv(x), (*x.shape[:2], -1)
        k, v = kv.chunk(2, -1) if whole else (y.reshape(shape) for y in kv.view(*shape[:2], heads, 2, 4).unbind(-2))
        q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (m.q(x), k, v))
        k, v = (y.repeat_interleave(2 // heads, 1) for y in (k, v))
        return m.out(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))

    return Net(run, q=linear(6, 8), kv=linear(6, 8 * heads), out=linear(8, 6))


@pytest.mark.parametrize("heads", [1, 2])
def test_one_head_of_keys_does_not_show_its_place_where_the_code_flattens_it_again(heads: int):
    whole, each, x = of_pairs(heads, True), of_pairs(heads, False), images(2, 5, 6)
    for left, right in ((whole, each), (each, whole)):
        found = parity.derive(left, right, (x,))
        assert found.proven and found.unseen_orders == ["kv.weight", "kv.bias"] * (heads == 1), str(found)
    assert not any(parity.derive(one, one, (x,)).unseen_orders for one in (whole, each))


def test_one_position_before_a_flatten_is_said_to_hide_the_order_and_a_conversion_repeats_it(tmp_path: Any):
    left = Net(convolutional, c=torch.nn.Conv2d(3, 4, 2, 2), f=linear(4, 3))
    found = parity.derive(left, in_jax(False), (images(2, 3, 2, 2),))
    said = "order not seen, outside any proof: w: "
    assert found.proven and found.unseen_orders == found.to_dict()["unseen_orders"] == ["w"]
    assert said in str(found) and f"# {said}" in found.table.print()
    found.table.save(tmp_path / "my.table")
    larger = {"c.weight": (6, 3, 2, 2), "c.bias": (6,), "f.weight": (3, 24), "f.bias": (3,)}
    with pytest.warns(UserWarning, match="order not seen, outside any proof: w: "):
        Table.load(tmp_path / "my.table").apply({name: np.zeros(shape) for name, shape in larger.items()})
    np.savez(tmp_path / "left.npz", **{name: np.zeros(shape) for name, shape in larger.items()})
    plan = by_table.plan(str(tmp_path / "left.npz"), str(tmp_path / "my.table"))
    assert any(said in note for note in plan.notes()), plan.notes()


FLATTENED = {"chw": lambda y: y.flatten(1), "chw in turn": lambda y: y.flatten(2).flatten(1),
             "cwh": lambda y: y.mT.flatten(1), "hwc": lambda y: y.flatten(2).mT.flatten(1)}  # fmt: skip


@pytest.mark.parametrize(
    ("own", "other"), [("chw", "cwh"), ("cwh", "chw in turn"), ("hwc", "cwh"), ("chw", "chw in turn")]
)
def test_one_position_does_not_show_which_of_its_axes_comes_first(own: str, other: str):
    def flattened(order: str) -> Net:
        parts = {"c": torch.nn.Conv2d(3, 4, 2, 2), "f": linear(4, 3)}
        return Net(lambda m, x: m.f(FLATTENED[order](m.c(x).relu())), **parts)

    found = parity.derive(flattened(own), flattened(other), (images(2, 3, 2, 2),))
    assert found.proven and found.unseen_orders == ([] if own == other[:3] else ["f.weight"]), str(found)


@pytest.mark.parametrize("size", [2, 4])
def test_a_pool_over_all_positions_leaves_one_in_any_model(size: int):
    left = Net(pooled, c=torch.nn.Conv2d(3, 4, 2, 2), f=linear(4, 3))
    found = parity.derive(left, in_jax(True), (images(2, 3, size, size),))
    assert found.proven and not found.unseen_orders, str(found)


@pytest.mark.parametrize(("order", "unseen"), [("cpq", False), ("pqc", True), ("pcq", True)])
def test_one_channel_in_patches_does_not_show_where_channels_stand(order: str, unseen: bool):
    found = parity.derive(patches("cpq"), patches(order), (images(2, 1, 4, 6),))
    assert found.proven and found.unseen_orders == ["f.weight"] * unseen, str(found)


def thirds(m: Any, x: Any) -> Any:
    y = m.f(x)
    return y[:, ::3].softmax(-1) * y[:, 1::3].tanh() + y[:, 2::3].sigmoid()


def shuffled(m: Any, x: Any) -> Any:
    y = m.f(x).tanh()
    z = torch.zeros(2, 2 * y.shape[1], y.shape[2] // 2, dtype=y.dtype)
    for k in range(2):
        z[:, k::2] = y[..., k::2]
    return z


def shifted(p: Any, x: Any) -> Any:
    h, w = x.shape[2] - 1, x.shape[3] - 1
    x = jax.numpy.moveaxis(x, 1, -1)
    y = jax.numpy.concatenate([x[:, i : h + i, j : w + j] for i in range(2) for j in range(2)], -1)
    return jax.numpy.tanh(y.reshape(len(x), -1, y.shape[-1]) @ p["w"] + p["b"])


def split(p: Any, x: Any) -> Any:
    one, two, three = jax.numpy.split(x @ p["w"] + p["b"], 3, -1)
    return jax.nn.softmax(one, -1) * jax.numpy.tanh(two) + jax.nn.sigmoid(three)


def upsampled(p: Any, x: Any) -> Any:
    y = jax.numpy.tanh(x @ p["w"] + p["b"])
    return y.reshape(2, 2 * y.shape[1], -1)


def encoded(p: Any, x: Any) -> Any:
    y = jax.numpy.concatenate([jax.numpy.sin(x), jax.numpy.cos(x)], -1)
    return jax.numpy.tanh(y @ p["w"] + p["b"])


def encode(m: Any, x: Any) -> Any:
    return m.f(torch.stack([x.sin(), x.cos()], -1).flatten(-2)).tanh()


def unfold(m: Any, x: Any) -> Any:
    return m.f(torch.nn.functional.unfold(x, 2).mT).tanh()


@pytest.mark.parametrize(
    ("left", "right", "sizes", "shape", "names"),
    [
        (unfold, shifted, (4, 3), (2, 1, 4, 5), ["w"]),
        (encode, encoded, (2, 3), (5, 1), ["w"]),
        (thirds, split, (4, 3), (5, 4), ["b", "w"]),
        (shuffled, upsampled, (4, 2), (2, 3, 4), ["b", "w"]),
    ],
)
def test_one_channel_that_is_cut_or_joined_does_not_show_the_order(
    left: Any, right: Any, sizes: tuple[int, int], shape: tuple[int, ...], names: list[str]
):
    parameters = {"w": jax.numpy.ones(sizes), "b": jax.numpy.ones(sizes[1])}
    found = parity.derive(Net(left, f=linear(*sizes)), (right, parameters), (images(*shape),))
    assert found.proven and found.unseen_orders == names, str(found)
    back = parity.derive((right, parameters), Net(left, f=linear(*sizes)), (images(*shape),))
    assert back.proven and len(back.unseen_orders) == len(names), str(back)
    assert not parity.derive((right, parameters), (right, parameters), (images(*shape),)).unseen_orders


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
    """Orders i, g, f, o and i, f, g, o exchange the axes of two by two gates: no length of these is open."""

    def run(m: Any, x: Any) -> Any:
        if m.w.ndim == 3:
            i, g, f, o = torch.einsum("bi,igd->gbd", x, m.w).unbind()
        else:
            i, f, g, o = (x @ m.w.mT).chunk(4, -1)
        return m.out((i.sigmoid() * g.tanh() + f.sigmoid() * x[:, :1]).tanh() * o.sigmoid())

    shapes = [(5, 4, 6), (24, 5)] if stacked_left else [(24, 5), (5, 4, 6)]
    models = (Net(run, w=torch.nn.Parameter(torch.randn(shape)), out=linear(6, 3)) for shape in shapes)
    found = parity.derive(*models, (images(7, 5),))
    line = "w: i (s=2 s2=2) o <-> w: (s2 s o) i" if stacked_left else "w: (s=2 s2=2 o) i <-> w: i (s2 s) o"
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
