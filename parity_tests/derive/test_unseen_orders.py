"""Axes of length 1 in flattened ones: no run shows where larger models have them, which is said."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch

import parity
from convert.table import by_table
from specs.table import Table

from .pairs import images
from .test_axis_roles import attention
from .test_kinds_matching import Net, linear


def patches(order: str) -> Net:
    """Return a layer that reads patches of 2 x 3, with their channels, rows and columns in an order."""

    def run(m: Any, x: Any) -> Any:
        x = x.unflatten(3, (-1, 3)).unflatten(2, (-1, 2))
        return m.f(x.permute(0, 2, 4, *({"c": 1, "p": 3, "q": 5}[axis] for axis in order)).flatten(3))

    return Net(run, f=linear(6, 3))


def convolutional(m: Any, x: Any) -> Any:
    return m.f(m.c(x).relu().flatten(1))


def in_jax(pool: bool, picks: bool = False) -> Any:
    def run(p: Any, x: Any) -> Any:
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, p["k"], (2, 2), "VALID", dimension_numbers=dims) + p["b"])
        x = x.mean((1, 2), keepdims=True) if pool else x
        each = [x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])]
        return (jax.numpy.concatenate(each, -1) if picks else x.reshape(len(x), -1)) @ p["w"] + p["v"]

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


def each_place(y: Any) -> list[Any]:
    return [y[:, :, i, j] for i in range(y.shape[2]) for j in range(y.shape[3])]


FLATTENED = {"chw": lambda y: y.flatten(1), "chw in turn": lambda y: y.flatten(2).flatten(1),
             "cwh": lambda y: y.mT.flatten(1), "hwc": lambda y: y.flatten(2).mT.flatten(1),
             "one by one": lambda y: torch.cat(each_place(y), 1),
             "stacked": lambda y: torch.stack(each_place(y), 2).flatten(1),
             "by index": lambda y: y.flatten(1)[:, torch.arange(y[0].numel()).view(-1, y[0, 0].numel()).T.ravel()],
             "channels": lambda y: torch.cat([y[:, k].flatten(1) for k in range(y.shape[1])], 1)}  # fmt: skip


@pytest.mark.parametrize(
    ("own", "other"),
    [("chw", "cwh"), ("cwh", "chw in turn"), ("hwc", "cwh"), ("chw", "chw in turn"), ("chw", "one by one"),
     ("one by one", "hwc"), ("chw", "stacked"), ("one by one", "stacked"), ("chw", "by index"), ("chw", "channels"),
     ("channels", "one by one")],
)  # fmt: skip
def test_one_position_does_not_show_which_of_its_axes_comes_first(own: str, other: str):
    def flattened(order: str) -> Net:
        parts = {"c": torch.nn.Conv2d(3, 4, 2, 2), "f": linear(4, 3)}
        return Net(lambda m, x: m.f(FLATTENED[order](m.c(x).relu())), **parts)

    found = parity.derive(flattened(own), flattened(other), (images(2, 3, 2, 2),))
    alike = own == other[:3] or (own, other) == ("chw", "channels")
    assert found.proven and found.unseen_orders == ([] if alike else ["f.weight"]), str(found)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2, 2)])
def test_places_of_one_row_that_code_picks_in_turn_do_not_show_the_order_of_a_map(shape: tuple[int, int]):
    """Columns first, and rows of which every second one runs backwards, are rows in turn there."""

    def picked(places: Any) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = m.c(x).tanh()
            return m.f(torch.cat([y[:, :, i, j] for i, j in places], 1))

        return Net(run, c=torch.nn.Conv2d(3, 4, 2, 2), f=linear(4 * len(places), 3))

    rows = [(i, j) for i in range(shape[0]) for j in range(shape[1])]
    columns = sorted(rows, key=lambda at: at[::-1])
    found = parity.derive(picked(rows), picked(columns), (images(2, 3, 2 * shape[0], 2 * shape[1]),))
    assert found.proven and found.unseen_orders == ["f.weight"] * (1 in shape), str(found)


def test_one_place_that_jax_picks_by_its_index_does_not_show_the_order():
    """JAX records neither the index nor a concatenation of one array, but for an axis that is left out."""
    for function in (FLATTENED["chw"], FLATTENED["one by one"]):
        left = Net(lambda m, x, f=function: m.f(f(m.c(x).relu())), c=torch.nn.Conv2d(3, 4, 2, 2), f=linear(4, 3))
        found = parity.derive(left, in_jax(False, True), (images(2, 3, 2, 2),))
        assert found.proven and found.unseen_orders == ["w"], str(found)
    assert not parity.derive(in_jax(False, True), in_jax(False, True), (images(2, 2, 2, 3),)).unseen_orders


def of_one_head(order: str) -> Net:
    """Attention whose code takes one head after the other, by its index or as a chunk."""

    def run(m: Any, x: Any) -> Any:
        y, heads, sizes = m.qkv(x), 1, {"s": 3, "h": 1, "d": -1}
        if "chunks" in order:
            each = [part.chunk(sizes[order[1]], -1) for part in y.chunk(sizes[order[0]], -1)]
            each = list(zip(*each, strict=True)) if order[0] == "s" else each
        else:
            y = y.unflatten(-1, [sizes[axis] for axis in order[:3]])
            each = [y.select(2 + order.index("h"), h).unbind(2) for h in range(heads)]
        return m.out(torch.cat([(q @ k.mT / 2).softmax(-1) @ v for q, k, v in each], -1))

    return Net(run, qkv=linear(4, 12), out=linear(4, 4))


@pytest.mark.parametrize("own", ["shd", "hsd"])
@pytest.mark.parametrize("other", ["shd by index", "hsd by index", "shd in chunks", "hsd in chunks"])
def test_one_head_of_a_loop_does_not_show_where_heads_stand(own: str, other: str):
    found = parity.derive(attention(1, own, size=4), of_one_head(other), (images(2, 5, 4),))
    assert found.proven and found.unseen_orders == ["qkv.weight", "qkv.bias"] * (own != other[:3]), str(found)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("picks", [False, True])
def test_a_pool_over_all_positions_leaves_one_in_any_model(size: int, picks: bool):
    left = Net(pooled, c=torch.nn.Conv2d(3, 4, 2, 2), f=linear(4, 3))
    found = parity.derive(left, in_jax(True, picks), (images(2, 3, size, size),))
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


REPEATED = {"interleaved": lambda z, r: z.repeat_interleave(r, 1), "tiled": lambda z, r: z.repeat(1, r, 1, 1),
            "expanded": lambda z, r: z[:, :, None].expand(-1, -1, r, -1, -1).flatten(1, 2),
            "expanded first": lambda z, r: z[:, None].expand(-1, r, -1, -1, -1).flatten(1, 2),
            "by index": lambda z, r: z[:, torch.arange(r * z.shape[1]) // r]}  # fmt: skip


def of_one_group(repeats: str) -> Net:
    """Attention of four heads of queries, for which the code repeats one head of keys and values."""

    def run(m: Any, x: Any) -> Any:
        q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (m.q(x), m.k(x), m.v(x)))
        k, v = (REPEATED[repeats](y, q.shape[1] // y.shape[1]) for y in (k, v))
        return m.out(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))

    return Net(run, q=linear(6, 16), k=linear(6, 4), v=linear(6, 4), out=linear(16, 6))


@pytest.mark.parametrize(
    ("own", "other", "alike"),
    [("interleaved", "tiled", False), ("interleaved", "expanded", True), ("expanded first", "tiled", True),
     ("expanded", "expanded first", False), ("by index", "interleaved", False)],
)  # fmt: skip
def test_one_head_of_keys_that_is_repeated_does_not_show_which_queries_share_one(own: str, other: str, alike: bool):
    found = parity.derive(of_one_group(own), of_one_group(other), (images(2, 5, 6),))
    assert found.proven and found.unseen_orders == ([] if alike else ["q.weight", "q.bias", "out.weight"]), str(found)
