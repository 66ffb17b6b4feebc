"""Causes in functions that read no parameters: masks, rotations, tables of positions, poolings, resizes, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive.edits.texts import difference
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images, initial
from parity_tests.derive.test_kinds_matching import Net, linear

Scores = Callable[[torch.Tensor], torch.Tensor]


def causal(fill: float = -1e9, window: int = 9) -> Scores:
    def hide(scores: torch.Tensor) -> torch.Tensor:
        ahead = torch.arange(6) - torch.arange(6)[:, None]
        return scores.masked_fill((ahead > 0) | (ahead <= -window), fill)

    return hide


def added(fill: float, ahead: int = 0) -> Scores:
    return lambda scores: scores + torch.where(torch.arange(6) > torch.arange(6)[:, None] + ahead, fill, 0.0)


def by_distance(slope: float) -> Scores:
    return lambda scores: scores - slope * (torch.arange(6) - torch.arange(6)[:, None]).abs()


def capped(limit: float) -> Scores:
    return lambda scores: limit * (scores / limit).tanh()


def turned(base: float, step: float = 1.0) -> Scores:
    """Rotate the halves of heads by their positions, as rotary embeddings do."""

    def turn(x: torch.Tensor) -> torch.Tensor:
        angles = step * torch.arange(6).to(x.dtype)[:, None] * base ** -torch.tensor([0.0, 0.5], dtype=x.dtype)
        one, other = x.chunk(2, -1)
        return torch.cat([one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()], -1)

    return turn


def attention(scores: Scores = lambda x: x, turn: Scores = lambda x: x) -> Net:
    def heads(x: Any) -> Any:
        return x.reshape(2, 6, 2, 4).transpose(1, 2)

    def forward(m: Any, x: Any) -> Any:
        q, k, v = turn(heads(m.q(x))), turn(heads(m.k(x))), heads(m.v(x))
        mixed = scores(0.5 * q @ k.mT).softmax(-1) @ v
        return m.head(m.norm(x + m.out(mixed.transpose(1, 2).reshape(2, 6, 8))))

    layers = {name: linear(8, 8) for name in ("q", "k", "v", "out")}
    return Net(forward, **layers, norm=torch.nn.LayerNorm(8), head=linear(8, 5))


ATTENTIONS = {
    "masked fill values": (
        attention(causal()), attention(causal(-5.0)), "masked places get -1e9 on the left, -5 on the right"),
    "masked fill values, added": (
        attention(added(-1e9)), attention(added(-5.0)), "masked places get -1e9 on the left, -5 on the right"),
    "a mask that is added and weak": (
        attention(causal()), attention(added(-5.0)),
        "masked_fill on the left and the model's own function on the right"),
    "a mask on the left alone": (
        attention(causal()), attention(),
        "the left applies a mask that hides 15 of 36 places, the right does not"),
    "a mask on the right alone": (
        attention(), attention(added(-1e9)), "the right applies a mask that hides 15 of 36 places, the left does not"),
    "a window that is off by one": (
        attention(causal(window=3)), attention(causal(window=2)),
        "a mask hides 21 of 36 places on the left, 25 on the right; the first that differs is [2, 0]"),
    "a mask that is filled in, and another one that is added": (
        attention(causal()), attention(added(float("-inf"), ahead=1)),
        "a mask hides 15 of 36 places on the left, 10 on the right; the first that differs is [0, 1]"),
    "a base of rotations": (
        attention(turn=turned(1e4)), attention(turn=turned(1e6)),
        "sines and cosines of positions of base 1e4 on the left, 1e6 on the right"),
    "a base of rotations, and scaled positions": (
        attention(turn=turned(1e4)), attention(turn=turned(1e6, 0.5)),
        "sines and cosines of positions of base 1e4 on the left, 1e6 on the right, which are 0.5 times as large on the "
        "right"),
    "scaled positions": (
        attention(turn=turned(1e4)), attention(turn=turned(1e4, 0.25)),
        "sines and cosines of positions, which are 0.25 times as large on the right"),
    "rotations on the left alone": (
        attention(turn=turned(1e4)), attention(),
        "the left applies sines and cosines of positions of base 1e4, the right does not"),
    "slopes of biases": (
        attention(by_distance(0.5)), attention(by_distance(0.25)), "a table that is 0.5 times as large on the right"),
    "biases on the left alone": (
        attention(by_distance(0.5)), attention(), "the left applies a table of 6 x 6, the right does not"),
    "limits of scores": (
        attention(capped(0.3)), attention(capped(0.7)),
        "a factor of 3.33 on the left, 1.43 on the right and a factor of 0.3 on the left, 0.7 on the right"),
}  # fmt: skip


@pytest.mark.parametrize(("left", "right", "cause"), ATTENTIONS.values(), ids=ATTENTIONS)
def test_what_differs_within_attention_is_named_and_the_table_is_complete(left: Net, right: Net, cause: str):
    found = parity.derive(left, right, (images(2, 6, 8),))
    assert not found.proven and not found.missing
    (place,) = found.divergences
    assert place.cause.startswith(f"{cause} (recomputed so") or place.cause.startswith(f"{cause} compute other"), place
    assert found.confirmed and (place.left, place.right) == ("out", "out")
    assert place.kind == "mask" if cause.startswith(("masked places", "a mask")) else True, place
    state = {name: value.numpy() for name, value in left.state_dict().items()}
    for name, array in found.table.apply(state).items():
        assert np.array_equal(array, state[name]), name


def test_a_difference_in_every_block_is_one_cause():
    def blocks(base: float) -> Net:
        some = [attention(turn=turned(base)) for _ in range(2)]
        return Net(lambda m, x: m.head(m.second(f.pad(m.first(x), (0, 3)))), first=some[0], second=some[1],
                   head=linear(5, 3))  # fmt: skip

    found = parity.derive(blocks(1e4), blocks(1e6), (images(2, 6, 8),))
    assert not found.missing and found.confirmed and len(found.divergences) == 1, found.divergences


def positions(base: float = 1e4, first: int = 0, order: Any = slice(None)) -> Net:
    def forward(m: Any, tokens: Any) -> Any:
        x = m.embed(tokens)
        angles = (torch.arange(6) + first).to(x.dtype)[:, None] * base ** (-torch.arange(4).to(x.dtype) / 4)
        return m.head(m.norm(x + torch.cat([angles.sin(), angles.cos()], -1)[:, order]))

    return Net(forward, embed=torch.nn.Embedding(11, 8), norm=torch.nn.LayerNorm(8), head=linear(8, 5))


@pytest.mark.parametrize(("right", "cause"), [
    (positions(1e3), "sines and cosines of positions of base 1e4 on the left, 1e3 on the right (recomputed so"),
    (positions(first=2), "a table of positions begins 2 rows later on the right (recomputed so"),
    (positions(order=[4, 5, 6, 7, 0, 1, 2, 3]),
     "sines and cosines of positions: sines first on the left, cosines first on the right (recomputed so"),
    (positions(order=[0, 4, 1, 5, 2, 6, 3, 7]),
     "sines and cosines of positions: sines first on the left, sine and cosine in turn on the right (recomputed so"),
    (positions(order=[1, 0, 2, 3, 4, 5, 6, 7]),
     "a table of 6 x 8 whose columns stand in another order on the right (recomputed so"),
])  # fmt: skip
def test_tables_of_positions_are_compared(right: Net, cause: str):
    found = parity.derive(positions(), right, (np.random.default_rng(0).integers(0, 11, (4, 6)),))
    assert not found.missing and found.divergences[0].cause.startswith(cause), found.divergences


def test_tables_that_agree_in_a_few_rows_by_chance_are_no_later_rows():
    """The weights of two linear resizes begin and end with zero."""
    text = difference(np.array([0, 0.75, 0.25, 0.75, 0.25, 0])[:, None], np.array([0, 0.6, 0.2, 0.8, 0.4, 0])[:, None])
    assert text == "4 of 6 values of a table of 6 x 1, first at [1, 0]: 0.75 on the left, 0.6 on the right"


def test_columns_that_rounding_alone_changes_stand_in_no_other_order():
    """Sorted by their first row, columns that are equal but for rounding change places."""
    table = np.array([[1.0, 1 + 1e-9, 0.3], [0.5, 0.5, 0.2]])
    text = difference(table, table[:, [1, 0, 2]])
    assert text.startswith("2 of 6 values of a table of 2 x 3, first at [0, 0]: 1 on the left"), text


def test_a_difference_from_zeros_is_relative_to_the_other_side():
    layers = {"first": torch.nn.Linear(5, 6), "head": linear(6, 5)}
    left, right = (Net(lambda m, x, k=k: m.head(m.first(x).tanh() * k), **layers) for k in (0.0, 1.0))
    found = parity.derive(left, right, (np.random.default_rng(0).random((3, 5)),))
    assert found.divergences and all(1 <= place.size < 10 for place in found.divergences), str(found)


def between(function: Scores, **options: Any) -> Net:
    layers = {"first": torch.nn.Conv2d(3, 6, 3), "second": torch.nn.Conv2d(6, 4, 3, padding=1, **options)}
    return Net(lambda m, x: m.head(m.second(function(m.first(x))).relu().mean((2, 3))), **layers, head=linear(4, 5))


def resized(mode: str, **options: Any) -> Scores:
    return lambda x: f.interpolate(x, scale_factor=2, mode=mode, **options)


def same(x: torch.Tensor) -> torch.Tensor:
    return x


IMAGES = {
    "count_include_pad": (
        between(lambda x: f.avg_pool2d(x, 3, 2, 1)),
        between(lambda x: f.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
        "avg_pool2d: count_include_pad True on the left, False on the right (recomputed so"),
    "ceil_mode": (
        between(lambda x: f.max_pool2d(x, 2)), between(lambda x: f.max_pool2d(x, 2, ceil_mode=True)),
        "max_pool2d_with_indices: ceil_mode False on the left, True on the right (recomputed so"),
    "align_corners": (
        between(resized("bilinear", align_corners=True)), between(resized("bilinear")),
        "upsample_bilinear2d: align_corners True on the left, False on the right (recomputed so"),
    "a resize by the nearest": (
        between(resized("nearest")), between(resized("bilinear")),
        "upsample_nearest2d on the left, upsample_bilinear2d on the right (recomputed so"),
    "padding of another mode": (
        between(same), between(same, padding_mode="reflect"),
        "zero padding on the left (in second), reflection_pad2d on the right (in second) (recomputed so"),
}  # fmt: skip


@pytest.mark.parametrize(("left", "right", "cause"), IMAGES.values(), ids=IMAGES)
def test_the_setting_of_an_operation_on_images_is_named(left: Net, right: Net, cause: str):
    found = parity.derive(left, right, (images(2, 3, 9, 9),))
    assert not found.missing and found.divergences[0].cause.startswith(cause), found.divergences


def test_a_mask_that_is_a_factor_is_compared_by_its_zeros():
    """Its rows are those of the other one, one later, as those of a table of positions are."""

    def net(first: int) -> Net:
        shown = (torch.arange(6) >= first).double()[:, None]
        return Net(lambda m, x: m.head((m.fc(x) * shown.to(x.dtype)).cumsum(1)), fc=linear(8, 8), head=linear(8, 5))

    found = parity.derive(net(1), net(2), (images(2, 6, 8),))
    (place,) = found.divergences
    zeros = "a table of zeros and ones has zeros at 1 of 6 places on the left, 2 on the right"
    assert place.what == f"{zeros}; the first that differs is [1]" and found.confirmed


def test_the_mask_and_the_divisor_of_a_mean_are_two_causes():
    """Some of the edits that are tried change how many inputs a product has, and are compared all the same."""

    def net(length: int) -> Net:
        def run(m: Any, x: Any) -> Any:
            shown = (torch.arange(6) < length).to(x.dtype)[None, :, None]
            return m.head((m.fc(x) * shown).sum(1) / shown.sum(1))

        return Net(run, fc=linear(8, 8), head=linear(8, 4))

    found = parity.derive(net(4), net(5), (images(2, 6, 8),))
    assert [place.kind for place in found.divergences] == ["table", "factor"] and found.confirmed, found


def of_a_parameter(function: Scores) -> Net:
    """A sum with a function of a parameter, which is a table of 3 x 3 positions."""

    def run(m: Any, x: Any) -> Any:
        y = m.patch(x) + function(m.grid)
        return m.head((y + m.mix(y.tanh()).tanh()).mean((2, 3)))

    parts = {"patch": torch.nn.Conv2d(3, 6, 2, 2), "mix": torch.nn.Conv2d(6, 6, 1), "head": linear(6, 2)}
    return Net(run, grid=torch.nn.Parameter(torch.randn(1, 6, 3, 3)), **parts)


@pytest.mark.parametrize(
    ("left", "right", "cause"),
    [
        (
            resized("bicubic"),
            resized("bilinear"),
            "upsample_bicubic2d on the left, upsample_bilinear2d on the right",
        ),
        (resized("bicubic"), resized("bicubic", antialias=True), "upsample_bicubic2d on the left"),
        (lambda a: resized("nearest")(a.exp()), lambda a: resized("nearest")(f.softplus(a)), "exp on the left"),
    ],
)
def test_functions_of_a_parameter_alone_are_compared(left: Scores, right: Scores, cause: str):
    found = parity.derive(of_a_parameter(left), of_a_parameter(right), (images(2, 3, 12, 12),))
    assert not found.missing and not found.proven
    (parted,) = found.divergences
    assert cause in parted.cause and "recomputed so, they are equal" in parted.cause


def test_masks_of_jax_and_of_paddle_are_compared_with_those_of_torch():
    needs("flax")
    needs("paddle")
    import jax.numpy as jnp
    import paddle
    from paddle.nn import functional as g

    def weights(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {name: rng.standard_normal((8, 8)) for name in ("q", "k", "out")}

    def in_jax(params: Any, x: Any) -> Any:
        scores = (x @ params["q"]) @ (x @ params["k"]).swapaxes(-1, -2)
        hidden = jnp.arange(6) > jnp.arange(6)[:, None]
        return (jnp.exp(jnp.where(hidden, -5.0, scores)) @ x) @ params["out"]

    class Layer(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.out = (paddle.nn.Linear(8, 8, bias_attr=False) for _ in range(3))

        def forward(self, x: Any) -> Any:
            scores = paddle.matmul(self.q(x), self.k(x), transpose_y=True)
            return self.out(paddle.matmul(g.softmax(scores + paddle.tril(paddle.ones([6, 6])).astype(x.dtype)), x))

    def soft(scores: Any) -> Any:
        return (scores + 2 * torch.ones(6, 6).tril()).softmax(-1)

    def net(mix: Scores) -> Net:
        layers = {name: torch.nn.Linear(8, 8, bias=False) for name in ("q", "k", "out")}
        return Net(lambda m, x: m.out(mix(m.q(x) @ m.k(x).mT) @ x), **layers)

    x = images(2, 6, 8) / 3
    found = parity.derive(net(lambda scores: causal(-9.0)(scores).exp()), (in_jax, weights(0)), (x,))
    assert not found.missing and found.divergences[0].cause.startswith(
        "masked places get -9 on the left, -5 on the right (recomputed so"
    ), found.divergences
    found = parity.derive(net(soft), Layer(), (x,))
    assert not found.missing, found.failure
    assert found.divergences[0].cause.startswith("a table that is 0.5 times as large on the right (recomputed")


def test_several_operations_of_one_framework_are_one_of_another():
    """What torch computes at once, JAX writes as several operations; and so do two calls of JAX."""
    needs("flax")
    import flax.linen as nn
    import jax.numpy as jnp

    class Pooled(nn.Module):
        function: Any

        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = self.function(nn.Conv(6, (3, 3), padding="VALID", name="first")(x))
            return nn.Dense(5, name="head")(jnp.tanh(x).mean((1, 2)))

    def net(function: Scores) -> Net:
        return Net(lambda m, x: m.head(function(m.first(x)).tanh().mean((2, 3))), first=torch.nn.Conv2d(3, 6, 3),
                   head=linear(6, 5))  # fmt: skip

    x = images(2, 3, 9, 9)
    last = x.transpose(0, 2, 3, 1)

    def linen(function: Any) -> Any:
        return Pooled(function), initial(Pooled(function), last)

    def largest(padding: str) -> Any:
        return linen(lambda x: nn.max_pool(x, (3, 3), (2, 2), padding))

    means = (
        net(lambda x: f.avg_pool2d(x, 3, 2, 1)),
        linen(lambda x: nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False)),
    )
    slopes = net(lambda x: f.leaky_relu(x, 0.1)), linen(lambda x: nn.leaky_relu(x, 0.2))
    for (left, right), inputs, cause in (
        (means, x, "average pooling with padding counted on the left, padding not counted on the right (recomputed so"),
        (slopes, x, "leaky_relu on the left, ge and where on the right (in Pooled) (recomputed so"),
        ((largest("SAME"), largest("VALID")), last,
         "Pooled (reduce_window_max, tanh and reduce_sum): padding ((0, 0), (1, 1), (1, 1), (0, 0)) on the left, "),
    ):  # fmt: skip
        found = parity.derive(left, right, (inputs,), (last,))
        assert not found.missing and found.confirmed, found.divergences
        assert found.divergences[0].cause.startswith(cause), found.divergences


def test_tables_with_copies_are_compared_by_what_they_hold():
    """Rotations by two halves of one table, or by one table for each image that has each value twice."""

    def doubled(base: float, of: int) -> Scores:
        def turn(x: torch.Tensor) -> torch.Tensor:
            angles = torch.arange(6).to(x.dtype)[:, None] * base ** -torch.tensor([0.0, 0.5], dtype=x.dtype)
            angles = torch.cat([angles, angles], -1).expand(of, 1, 6, 4)
            one, other = x.chunk(2, -1)
            return x * angles.cos() + torch.cat([-other, one], -1) * angles.sin()

        return turn

    left, right = attention(turn=turned(1e4)), attention(turn=doubled(1e6, 2))
    found = parity.derive(left, right, (images(2, 6, 8),))
    cause = "sines and cosines of positions of base 1e4 on the left, 1e6 on the right (recomputed so"
    assert found.confirmed and found.divergences[0].cause.startswith(cause), found.divergences
    assert found.explained == "one table" and "make both models equal there" in found.following
    assert len(found.divergences[0].places) == 1


def test_a_constant_without_elements_is_no_table():
    """As of an empty cache of keys, to which those of this call are appended."""

    def cached(scores: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros(0).to(scores.dtype), scores])

    found = parity.derive(attention(cached), attention(added(-1e9)), (images(2, 6, 8),))
    assert found.confirmed and "applies a mask that hides 15 of 36 places" in found.divergences[0].cause
    assert found.explained == "one mask"


def test_settings_of_paddle_are_named():
    """Its primitive operations take their arguments by place, and have no signatures that Python can read."""
    needs("paddle")
    import paddle
    from paddle.nn import functional as g

    class Layer(paddle.nn.Layer):
        def __init__(self, function: Any):
            super().__init__()
            self.first, self.head, self.function = paddle.nn.Conv2D(3, 6, 3), paddle.nn.Linear(6, 5), function

        def forward(self, x: Any) -> Any:
            return self.head(self.function(self.first(x)).tanh().mean([2, 3]))

    def pooled(exclusive: bool) -> Layer:
        return Layer(lambda x: g.avg_pool2d(x, 3, 2, 1, exclusive=exclusive))

    def resized(align: bool) -> Layer:
        return Layer(lambda x: g.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align))

    for left, right, cause in (
        (pooled(False), pooled(True), "pool2d: exclusive False on the left, True on the right (recomputed so"),
        (resized(True), resized(False), "bilinear_interp: align_corners True on the left, False on the right ("),
        (Layer(lambda x: g.elu(x, 1.5)), Layer(lambda x: g.elu(x, 0.5)), "elu: alpha 1.5 on the left, 0.5 on the"),
        (Layer(lambda x: x.abs() ** 2), Layer(lambda x: x.abs() ** 3), "pow: y 2 on the left, 3 on the right ("),
    ):
        found = parity.derive(left, right, (images(2, 3, 9, 9),))
        assert not found.missing and found.divergences[0].cause.startswith(cause), found.divergences


def test_arguments_of_paddle_without_known_names_are_named_by_their_place():
    needs("paddle")
    from paddle import _C_ops, _legacy_C_ops

    from parity.derive.trace.paddle_recorder import LEGACY, settings

    assert settings("pool2d", _C_ops.pool2d, range(12), {}) == {f"argument {k + 1}": k for k in range(12)}  # too many
    assert settings("unknown", len, [3], {"axis": 1}) == {"obj": 3, "axis": 1}
    assert settings("unknown", dict, [3], {"axis": 1}) == {"argument 1": 3, "axis": 1}
    given = settings(f"{LEGACY}pool2d", _legacy_C_ops.pool2d, [None, "ksize", 3, "ceil_mode", True], {})
    assert given == {"ksize": 3, "ceil_mode": True}


class PooledHead(torch.nn.Module):
    """Pool images by a function before a head, which is a 1x1 convolution where the pooled axes remain."""

    def __init__(self, pool: Callable[..., torch.Tensor], convolves: bool = False) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3)
        self.head = torch.nn.Conv2d(8, 5, 1) if convolves else torch.nn.Linear(8, 5)
        self.pool, self.convolves = pool, convolves

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.stem(x).relu(), (2, 3), keepdim=self.convolves)).flatten(1)


@pytest.mark.parametrize("left_convolves", [False, True])
def test_another_pooling_is_named_where_one_side_alone_keeps_the_pooled_axes(left_convolves: bool) -> None:
    left, right = PooledHead(torch.mean, left_convolves), PooledHead(torch.amax, not left_convolves)
    found = parity.derive(left, right, images(2, 3, 8, 8))
    assert "mean on the left, amax on the right" in str(found)
    assert "inferred, as values differ before it or" in str(found) and "inferred, as no" not in str(found)


def test_operations_of_torch_and_of_jax_have_the_names_that_code_calls_them_by() -> None:
    """Torch records _fft_r2c, of rfft and of fft of real numbers, and JAX `fft` with a type."""
    needs("flax")
    import jax.numpy as jnp

    torch.manual_seed(0)

    def pair(forward: Scores) -> Net:
        return Net(lambda m, x: m.b(forward(m.a(x))), a=linear(), b=linear())

    def tree(p: Any, x: Any) -> Any:
        return jnp.fft.irfft(jnp.fft.rfft(x @ p["a"] + p["b"]) * 2, n=6) @ p["c"] + p["d"]

    shapes = {"a": (6, 6), "b": (6,), "c": (6, 6), "d": (6,)}
    one, other = pair(lambda x: torch.fft.fft2(x).real), pair(lambda x: torch.fft.irfft(2 * torch.fft.rfft(x), n=6))
    in_jax = tree, {name: jnp.zeros(shape) for name, shape in shapes.items()}
    for left, right in ((one, other), (one, in_jax)):
        (found,) = parity.derive(left, right, (images(2, 4, 6),)).divergences
        assert found.cause.startswith("fft on the left, rfft and irfft on the right"), found.cause


@pytest.mark.parametrize("swapped", [False, True])
def test_a_tanh_of_each_step_that_one_side_lacks_is_one_cause(swapped: bool):
    """An LSTM has two in each step, of which one alone differs; its states have eight elements."""

    def net(of_state: Callable[[Any], Any]) -> Net:
        def run(m: Any, x: Any) -> Any:
            h = c = torch.zeros(len(x), 4)
            outs = []
            for t in range(x.shape[1]):
                i, forget, g, o = (m.ih(x[:, t]) + m.hh(h)).chunk(4, 1)
                c = forget.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * of_state(c)
                outs.append(h)
            return m.out(torch.stack(outs, 1))

        return Net(run, ih=linear(3, 16), hh=linear(4, 16, False), out=linear(4, 2))

    functions = (torch.Tensor.clone, torch.tanh) if swapped else (torch.tanh, torch.Tensor.clone)
    found = parity.derive(*map(net, functions), (images(2, 5, 3),))
    (place,) = found.divergences
    both = ("no activation", "tanh") if swapped else ("tanh", "no activation")
    assert place.what == "{} on the left, {} on the right".format(*both) and place.times == 5
    assert found.confirmed and not found.missing
