"""Causes in what is normalized together, and in which rows of a table are read: groups, axes, relative positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.edits.buckets import unlike_buckets
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images, initial
from parity_tests.derive.test_kinds_matching import Net, linear

ONE = "a norm over 1 group of channels on the left, the channels of each position on the right"


def grouped(groups: int) -> Net:
    """A convolution and a norm over groups of its channels; 0 for each position by itself."""
    norm = torch.nn.GroupNorm(groups, 8) if groups else torch.nn.LayerNorm(8)

    def run(m: Any, x: Any) -> Any:
        y = m.conv(x)
        y = m.norm(y) if groups else m.norm(y.movedim(1, -1)).movedim(-1, 1)
        return m.head(torch.relu(y).mean((2, 3)))

    return Net(run, conv=torch.nn.Conv2d(3, 8, 3), norm=norm, head=linear(8, 3))


def of_jax(framework: str, groups: int) -> Any:
    """Return the same in linen or nnx, whose norms multiply deviations with scales first."""
    import flax.linen as nn
    from flax import nnx

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            y = nn.GroupNorm(groups, epsilon=1e-5, name="norm")(nn.Conv(8, (3, 3), padding="VALID", name="conv")(x))
            return nn.Dense(3, name="head")(nn.relu(y).mean((1, 2)))

    class Nnx(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(3, 8, (3, 3), padding="VALID", rngs=rngs)
            self.norm = nnx.GroupNorm(8, num_groups=groups, epsilon=1e-5, rngs=rngs)
            self.head = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))

    if framework == "nnx":
        return Nnx()
    module = Linen()
    return module, initial(module, np.zeros((2, 8, 8, 3), np.float32))


@pytest.mark.parametrize(("framework", "groups", "text"), [
    ("torch", (4, 2), "a norm over 4 groups of channels on the left, 2 on the right"),
    ("torch", (1, 8), "a norm over 1 group of channels on the left, 8 on the right"),
    ("torch", (1, 0), ONE),
    ("linen", (4, 2), "a norm over 4 groups of channels on the left, 2 on the right"),
    ("nnx", (8, 1), "a norm over 8 groups of channels on the left, 1 on the right"),
])  # fmt: skip
def test_the_numbers_of_groups_of_a_norm_are_named(framework: str, groups: tuple[int, int], text: str):
    needs("flax")
    right = grouped(groups[1]) if framework == "torch" else of_jax(framework, groups[1])
    found = parity.derive(grouped(groups[0]), right, (images(2, 3, 8, 8),))
    (place,) = found.divergences
    assert place.cause.startswith(f"{text} (recomputed so") and place.left == "norm", found
    assert len(place.places) == 1, place  # whichever operations compute it
    assert found.confirmed and found.explained == "one norm" and not found.missing and not found.doubtful, found


@pytest.mark.parametrize(("groups", "affine", "text"), [
    ((6, 2), True, "the positions of each channel on the left, 2 groups of channels on the right"),
    ((6, 2), False, "axis -1 on the left, 2 groups of channels on the right"),  # nothing tells the axis of channels
    ((0, 2), True, "the channels of each position on the left, 2 groups of channels on the right"),
    ((0, 6), True, "the channels of each position on the left, the positions of each channel on the right"),
])  # fmt: skip
def test_a_norm_over_the_last_of_three_axes_is_named_by_the_axis_of_its_parameters(
    groups: Any, affine: bool, text: str
):
    def net(groups: int) -> Net:
        norm = torch.nn.GroupNorm(groups, 6, affine=affine) if groups else torch.nn.LayerNorm(6)

        def run(m: Any, x: Any) -> Any:
            y = m.conv(x)
            return m.head(torch.tanh(m.norm(y) if groups else m.norm(y.mT).mT).mT)

        return Net(run, conv=torch.nn.Conv1d(3, 6, 3), norm=norm, head=linear(6, 3))

    (place,) = parity.derive(net(groups[0]), net(groups[1]), (images(2, 3, 12),)).divergences
    assert place.cause.startswith(f"a norm over {text} (recomputed so"), place


def test_other_groups_of_several_norms_are_one_cause():
    def net(groups: int) -> Net:
        norms = {f"norm{k}": torch.nn.GroupNorm(groups, 8) for k in range(3)}
        convolutions = {f"conv{k}": torch.nn.Conv2d(8 if k else 3, 8, 3) for k in range(3)}

        def run(m: Any, x: Any) -> Any:
            for k in range(3):
                x = torch.relu(getattr(m, f"norm{k}")(getattr(m, f"conv{k}")(x)))
            return m.head(x.mean((2, 3)))

        return Net(run, head=linear(8, 3), **norms, **convolutions)

    found = parity.derive(net(4), net(2), (images(2, 3, 9, 9),))
    (place,) = found.divergences
    text = "4 groups of channels on the left, 2 on the right, and so in 2 more places (recomputed so"
    assert text in place.cause and found.explained == "three norms" and found.confirmed, found
    assert place.places == ("norm0", "norm1", "norm2")


def attention(axis: int) -> Net:
    def run(m: Any, x: Any) -> Any:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        return m.o(((q @ k.mT * 0.5).softmax(axis) @ v).transpose(1, 2).flatten(2))

    return Net(run, **{name: linear(8, 8) for name in "qkvo"})


def attention_of_jax(axis: int, scores: str = "bhqk") -> Any:
    """Return the same as a function; the axes of the scores may stand in another order."""
    import jax
    import jax.numpy as jnp

    def run(params: Any, x: Any) -> Any:
        projected = (x @ params[name]["weight"] + params[name]["bias"] for name in "qkv")
        q, k, v = (y.reshape(*x.shape[:2], 2, 4) for y in projected)
        weights = jax.nn.softmax(jnp.einsum(f"bqhd,bkhd->{scores}", q, k) * 0.5, axis)
        mixed = jnp.einsum(f"{scores},bkhd->bqhd", weights, v).reshape(x.shape)
        return mixed @ params["o"]["weight"] + params["o"]["bias"]

    return run, {name: {"weight": np.ones((8, 8)), "bias": np.ones(8)} for name in "qkvo"}


@pytest.mark.parametrize(("left", "right", "text"), [
    (-2, ("torch", -1), "softmax over axis -2 on the left, -1 on the right"),
    (1, ("torch", -1), "softmax over axis -3 on the left, -1 on the right"),
    (-2, ("jax", -1), "softmax over axis -2 on the left, -1 on the right"),
    (-1, ("jax", -2), "softmax over axis -1 on the left, -2 on the right"),
    (-1, ("jax", 1, "bqhk"), "softmax over axis -1 on the left, -3 on the right"),
])  # fmt: skip
def test_a_softmax_over_another_axis_of_scores_is_named(left: int, right: Any, text: str):
    needs("flax")
    framework, *options = right
    other = attention(*options) if framework == "torch" else attention_of_jax(*options)
    found = parity.derive(attention(left), other, (images(2, 5, 8),))
    (place,) = found.divergences
    assert place.cause.startswith(f"{text} (recomputed so") and found.explained == "one softmax", found
    assert found.confirmed and not found.chosen and not found.doubtful, found
    own = {name: value.numpy() for name, value in attention(left).state_dict().items()}
    for name, array in found.table.apply(own).items():
        expected = own[name.replace("/", ".")]
        assert np.array_equal(array, expected if framework == "torch" else expected.T), name


def test_a_softmax_outside_of_attention_is_named_as_one():
    needs("flax")
    import jax

    def run(params: Any, x: Any) -> Any:
        return jax.nn.softmax(x @ params["a"], 1) @ params["b"]

    left = Net(lambda m, x: m.b(m.a(x).softmax(-1)), a=linear(8, 8, False), b=linear(8, 8, False))
    found = parity.derive(left, (run, {name: np.ones((8, 8)) for name in "ab"}), (images(2, 5, 8),))
    (place,) = found.divergences
    assert place.cause.startswith("softmax over axis -1 on the left, -2 on the right (recomputed so"), found


def buckets(lib: Any, count: int, largest: int) -> Any:
    """Return the buckets of T5 for the relative positions of 24 tokens."""
    position = lib.arange(24)
    relative = position[None] - position[:, None]
    half, exact = count // 2, count // 4
    distance = abs(relative)
    far = exact + lib.log(lib.clip(distance, 1, None) / exact) / math.log(largest / exact) * (half - exact)
    rows = lib.where(distance < exact, distance, lib.clip(lib.floor(far), None, half - 1))
    return rows.astype(int) + half * (relative > 0) if lib is np else (rows + half * (relative > 0)).long()


def relative(count: int = 8, largest: int = 20) -> Net:
    def run(m: Any, x: Any) -> Any:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        y = (q @ k.mT + m.bias(buckets(torch, count, largest)).permute(2, 0, 1)).softmax(-1) @ v
        return m.o(y.transpose(1, 2).flatten(2))

    return Net(run, **{name: linear(8, 8, False) for name in "qkvo"}, bias=torch.nn.Embedding(8, 2))


def relative_of_jax(count: int = 8, largest: int = 20) -> Any:
    import jax
    import jax.numpy as jnp

    def run(params: Any, x: Any) -> Any:
        q, k, v = ((x @ params[name]).reshape(*x.shape[:2], 2, 4) for name in "qkv")
        bias = params["bias"][buckets(np, count, largest)].transpose(2, 0, 1)
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) + bias)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ params["o"]

    return run, {"bias": np.ones((8, 2)), **{name: np.ones((8, 8)) for name in "qkvo"}}


def relative_of_paddle(count: int = 8, largest: int = 20) -> Any:
    """Return the model whose code reads the number of positions by `paddle.shape`, as a tensor."""
    import paddle

    table = buckets(np, count, largest)

    class Model(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (paddle.nn.Linear(8, 8, bias_attr=False) for _ in "qkvo")
            self.bias = paddle.nn.Embedding(8, 2)

        def forward(self, x: Any) -> Any:
            q, k, v = (
                layer(x).reshape([*x.shape[:2], 2, 4]).transpose([0, 2, 1, 3]) for layer in (self.q, self.k, self.v)
            )
            position = paddle.arange(paddle.shape(x)[1])
            distance = position[None] - position[:, None] + len(table) - 1
            rows = paddle.to_tensor(np.concatenate([table[:0:-1, 0], table[0]]))[distance]
            weights = paddle.nn.functional.softmax(q @ k.mT + self.bias(rows).transpose([2, 0, 1]))
            return self.o((weights @ v).transpose([0, 2, 1, 3]).reshape(x.shape))

    return Model()


RELATIVE = {"torch": relative, "jax": relative_of_jax, "paddle": relative_of_paddle}


@pytest.mark.parametrize("framework", RELATIVE)
@pytest.mark.parametrize(("options", "text"), [
    ({"largest": 12}, "the farthest bucket begins at distance 7 on the left, 5 on the right"),
    ({"count": 6}, "8 buckets on the left, 6 on the right; the farthest bucket begins at distance 7 on the left, "),
])  # fmt: skip
def test_other_buckets_of_relative_positions_are_named(framework: str, options: Any, text: str):
    needs("flax" if framework == "jax" else framework)
    found = parity.derive(relative(), RELATIVE[framework](**options), (images(2, 24, 8),))
    (place,) = found.divergences
    assert place.cause.startswith(f"relative positions: {text}") and found.explained == "one table", found
    assert found.confirmed and not found.missing and not found.doubtful, found


@pytest.mark.parametrize(
    ("later", "text"),
    [
        ((6, 5), "the farthest bucket of later keys begins at distance 6 on the left, 5 on the right"),
        ((4, 3), "the farthest bucket of later keys begins at distance 4 on the left, 3 on the right"),
    ],
)
def test_buckets_that_differ_in_one_direction_name_it(later: tuple[int, int], text: str):
    """Those of earlier keys begin at distance 6 on both sides."""
    distances = np.arange(9) - np.arange(9)[:, None]
    tables = [np.where(distances < 0, np.minimum(-distances, 6), 7 + np.minimum(distances, last)) for last in later]
    tables = [np.where(table == table.max(), 20, table) for table in tables]
    assert unlike_buckets(*tables) == f"relative positions: {text}"


@pytest.mark.parametrize("later", [True, False])
def test_buckets_that_the_positions_do_not_reach_are_not_counted(later: bool):
    """Those of T5 for 9 tokens, with distances of 6 and 128: of the latter, the farthest begins at distance 16."""
    tables = [buckets(np, 8, largest)[:9, :9] for largest in (6, 128)]
    if not later:
        tables = [np.where(np.arange(9) > np.arange(9)[:, None], 0, table) for table in tables]
    assert [table.max() for table in tables] == ([7, 6] if later else [3, 2])  # both have 8 buckets, or 4
    assert unlike_buckets(*tables) == "relative positions: other buckets of distances, from distance 4 on"


def normalized(norm: Any) -> Net:
    """Two residual layers, each behind a norm."""

    def run(m: Any, x: Any) -> Any:
        x = m.a(x)
        for one, layer in zip(m.norms, m.layers, strict=True):
            x = x + torch.tanh(layer(one(x)))
        return m.o(x)

    lists = {"norms": [norm() for _ in range(2)], "layers": [linear(8, 8) for _ in range(2)]}
    return Net(run, a=linear(6, 8), o=linear(8, 3), **{name: torch.nn.ModuleList(some) for name, some in lists.items()})


def normalized_of_jax(norm: str) -> Any:
    import flax.linen as nn
    import jax

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Dense(8)(x)
            for _ in range(2):
                made = nn.RMSNorm(epsilon=1e-5) if norm == "rms" else nn.LayerNorm(epsilon=1e-5, use_bias=False)
                x = x + jax.numpy.tanh(nn.Dense(8)(made(x)))
            return nn.Dense(3)(x)

    return Linen(), initial(Linen(), images(3, 5, 6))


@pytest.mark.parametrize("framework", ["torch", "linen"])
@pytest.mark.parametrize("rms_left", [True, False])
def test_an_rms_norm_in_place_of_a_layer_norm_is_named(framework: str, rms_left: bool):
    needs("flax")
    rms, layer = (lambda: torch.nn.RMSNorm(8, eps=1e-5)), (lambda: torch.nn.LayerNorm(8, bias=False))
    norms = (rms, layer) if rms_left else (layer, rms)
    right = normalized(norms[1]) if framework == "torch" else normalized_of_jax("layer" if rms_left else "rms")
    found = parity.derive(normalized(norms[0]), right, (images(3, 5, 6),))
    (place,) = found.divergences
    words = "an RMSNorm", "a norm that subtracts the mean"
    assert place.both == (words if rms_left else words[::-1]), found
    assert found.explained == "two norms" and found.confirmed and not found.missing, found


def rotated(x: Any, exchanged: bool = False) -> Any:
    """Rotate halves of the channels of heads (..., positions, channels) by positions."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * 100.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    cosines, sines = (angles.sin(), angles.cos()) if exchanged else (angles.cos(), angles.sin())
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cosines - other * sines, other * cosines + one * sines], -1)


def rotary(queries: Callable[[Any], Any], keys: Callable[[Any], Any]) -> Net:
    """Two blocks of attention whose queries and keys are rotated by these functions."""

    def forward(m: Any, x: Any) -> Any:
        for k in range(2):
            q, key, v = (getattr(m, f"{name}{k}")(x).unflatten(-1, (3, 4)).transpose(1, 2) for name in ("q", "k", "v"))
            scores = (queries(q) @ keys(key).mT / 2).softmax(-1)
            x = x + getattr(m, f"out{k}")((scores @ v).transpose(1, 2).flatten(2))
        return m.head(x)

    layers = {f"{name}{k}": torch.nn.Linear(12, 12, bias=False) for k in range(2) for name in ("q", "k", "v", "out")}
    return Net(forward, **layers, head=torch.nn.Linear(12, 5))


SINES = "sines and cosines of positions of base 100"


@pytest.mark.parametrize(("queries", "keys", "what"), [
    (rotated, lambda x: x, f"the left applies {SINES} to the output of k0, the right does not"),
    (*[lambda x: rotated(x, True)] * 2, f"{SINES} stand in one another's place on the right"),
])  # fmt: skip
def test_keys_that_are_rotated_otherwise_are_named_and_keep_their_lines(queries: Any, keys: Any, what: str):
    found = parity.derive(rotary(rotated, rotated), rotary(queries, keys), (images(2, 5, 12),))
    assert not found.missing and found.confirmed and {place.what for place in found.divergences} == {what}
    assert "k1.weight: o i <-> k1.weight: o i" in found.table.print()


def test_heads_of_keys_repeated_in_another_order_are_named_by_the_biases_that_they_meet():
    """Queries can stand in another order of heads in the Table; biases by heads (ALiBi) cannot."""

    def net(repeat: Callable[[Any], Any]) -> Net:
        def forward(m: Any, x: Any) -> Any:
            q, k, v = (layer(x).unflatten(-1, (-1, 3)).transpose(1, 2) for layer in (m.q, m.k, m.v))
            places = torch.arange(x.shape[1])
            biases = -(places[:, None] - places).abs() * torch.tensor([0.5, 0.25, 0.125, 0.0625])[:, None, None]
            scores = (q @ repeat(k).mT / 3**0.5 + biases).softmax(-1)
            return m.head(x + m.out((scores @ repeat(v)).transpose(1, 2).flatten(2)))

        keys = {name: torch.nn.Linear(12, 6) for name in ("k", "v")}
        return Net(forward, q=linear(12, 12), **keys, out=linear(12, 12), head=linear(12, 5))

    def tiled(x: Any) -> Any:
        return x.repeat(1, 2, 1, 1)

    found = parity.derive(net(tiled), net(lambda x: x.repeat_interleave(2, 1)), (images(2, 5, 12),))
    (place,) = found.divergences
    assert not found.missing and found.confirmed
    assert "table of 4 x 5 x 5 of the right with its rows along axis 0 in the order 0, 2, 1, 3" in place.what


@pytest.mark.parametrize("own", [(3, 4), (4, 4)])
def test_means_over_other_axes_of_groups_end_in_a_verdict(own: tuple[int, int]):
    """A line between them would order the rows of one projection, which the mean over its groups does not show."""

    def net(sizes: tuple[int, int], axis: int) -> Net:
        def run(m: Any, x: Any) -> Any:
            return m.head(m.fc(x).unflatten(-1, sizes).tanh().mean(axis))

        return Net(run, head=linear(own[1], 3), fc=linear(5, own[0] * own[1]))

    found = parity.derive(net(own, -2), net(own[::-1], -1), (images(4, 5),))
    assert not found.failure and not found.missing, str(found)


@pytest.mark.parametrize("framework", ["jax", "paddle"])
def test_the_axes_of_a_transform_are_named_across_frameworks(framework: str):
    """A transform over all axes, the batch too, is one over fewer in another framework, under another name."""
    left = Net(lambda m, x: m.b(torch.fft.fftn(m.a(x), dim=(1, 2)).real), a=linear(), b=linear())
    if framework == "jax":
        import jax.numpy as jnp

        shapes = {"a": (6, 6), "b": (6,), "c": (6, 6), "d": (6,)}
        right: Any = (
            lambda p, x: jnp.fft.fftn(x @ p["a"] + p["b"]).real @ p["c"] + p["d"],
            {name: np.zeros(shape) for name, shape in shapes.items()},
        )
    else:
        needs("paddle")
        import paddle

        class Transformed(paddle.nn.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = paddle.nn.Linear(6, 6), paddle.nn.Linear(6, 6)

            def forward(self, x: Any) -> Any:
                return self.b(paddle.fft.fftn(self.a(x)).real())

        right = Transformed()
    (place,) = parity.derive(left, right, (images(2, 4, 6),)).divergences
    assert "over axes 1, 2 on the left, " in place.what and "over axes 0, 1, 2 on the right" in place.what, place.what
