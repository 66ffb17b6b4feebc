"""Causes in resizes, of tables of positions and of images: kernels, antialiasing, align_corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear


def positions(grid: int, **options: Any) -> Net:
    """Patches with a table of positions, which is resized to 6 x 6."""

    def run(m: Any, x: Any) -> Any:
        table = f.interpolate(m.table.reshape(1, grid, grid, 6).permute(0, 3, 1, 2), size=(6, 6), **options)
        return m.head(m.fc((m.patch(x) + table).flatten(2).mT).tanh().mean(1))

    table = torch.nn.Parameter(torch.randn(1, grid * grid, 6))
    return Net(run, patch=torch.nn.Conv2d(3, 6, 2, 2), table=table, fc=linear(), head=linear(6, 2))


def positions_of_jax(grid: int, **options: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def run(params: Any, x: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, params["patch"]["w"], (2, 2), "VALID", dimension_numbers=layout)
        table = jax.image.resize(params["table"].reshape(1, grid, grid, 6), (1, 6, 6, 6), **options)
        y = (y + params["patch"]["b"] + table).reshape(len(x), -1, 6)
        y = jnp.tanh(y @ params["fc"]["w"] + params["fc"]["b"]).mean(1)
        return y @ params["head"]["w"] + params["head"]["b"]

    shapes = {"patch": (2, 2, 3, 6), "fc": (6, 6), "head": (6, 2)}
    layers = {name: {"w": np.ones(shape), "b": np.ones(shape[-1])} for name, shape in shapes.items()}
    return run, {"table": np.ones((1, grid * grid, 6)), **layers}


PAIRS: list[Any] = [
    (4, {"mode": "bilinear"}, {"method": "bilinear"}, None),
    (4, {"mode": "bicubic", "antialias": True}, {"method": "bicubic"}, None),
    (9, {"mode": "bilinear"}, {"method": "bilinear", "antialias": False}, None),
    (9, {"mode": "bilinear", "antialias": True}, {"method": "bilinear"}, None),
    (4, {"mode": "bicubic"}, {"method": "bicubic"},
     "a cubic (a = -0.75) resize on the left, a cubic (a = -0.5) resize on the right"),
    (9, {"mode": "bicubic"}, {"method": "bicubic"},
     "a cubic (a = -0.75) resize on the left, a cubic (a = -0.5) resize with antialiasing on the right"),
    (4, {"mode": "bilinear", "align_corners": True}, {"method": "bilinear"},
     "a linear resize with align_corners on the left, a linear resize on the right"),
    (4, {"mode": "bilinear"}, {"method": "lanczos3"},
     "a linear resize on the left, a Lanczos resize on the right"),
    (9, {"mode": "bilinear"}, {"method": "bilinear"},
     "a linear resize on the left, a linear resize with antialiasing on the right"),
]  # fmt: skip


@pytest.mark.parametrize(("grid", "left", "right", "cause"), PAIRS)
def test_resizes_of_a_table_of_positions_are_compared(grid: int, left: Any, right: Any, cause: str | None):
    needs("flax")
    model = positions(grid, **left)
    found = parity.derive(model, positions_of_jax(grid, **right), (images(2, 3, 12, 12),))
    assert not found.missing and found.proven == (cause is None), found
    if cause:
        (place,) = found.divergences
        assert place.cause.startswith(f"{cause} (recomputed so") and found.confirmed, found
        assert "stopped at" not in str(found)
    own = {name: array.numpy() for name, array in model.state_dict().items()}
    assert np.array_equal(found.table.apply(own)["table"], own["table"])


def test_resizes_of_images_are_compared():
    needs("flax")
    import jax

    def run(params: Any, x: Any) -> Any:
        y = jax.image.resize(x @ params["a"], (2, 12, 10, 4), "bicubic")
        return jax.nn.relu(y @ params["b"]).mean((1, 2))

    def net(m: Any, x: Any) -> Any:
        y = f.interpolate(m.a(x).permute(0, 3, 1, 2), size=(12, 10), mode="bicubic")
        return torch.relu(m.b(y.permute(0, 2, 3, 1))).mean((1, 2))

    left = Net(net, a=linear(3, 4, False), b=linear(4, 5, False))
    found = parity.derive(left, (run, {"a": np.ones((3, 4)), "b": np.ones((4, 5))}), (images(2, 6, 5, 3),))
    (place,) = found.divergences
    text = "a cubic (a = -0.75) resize on the left, a cubic (a = -0.5) resize on the right (recomputed so"
    assert place.cause.startswith(text) and found.confirmed, found


RESIZES = [
    {"size": (7, 11), "align_corners": True}, {"size": (7, 11)}, {"scale_factor": 1.5}, {"scale_factor": 2},
    {"size": (4, 5), "mode": "bicubic"}, {"scale_factor": 1.5, "mode": "bicubic", "align_corners": True},
]  # fmt: skip


@pytest.mark.parametrize("options", RESIZES, ids=str)
def test_resizes_of_paddle_are_proven_in_float64(options: dict[str, Any]):
    """Its kernels round the places that they read to float32, which is no difference of the models."""
    needs("paddle")
    import paddle

    class Resized(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = paddle.nn.Conv2D(3, 4, 1), paddle.nn.Conv2D(4, 4, 1)

        def forward(self, x: Any) -> Any:
            return self.b(paddle.nn.functional.interpolate(self.a(x), **options))

    options = {"mode": "bilinear", **options}
    left = Net(
        lambda m, x: m.b(f.interpolate(m.a(x), **options)), a=torch.nn.Conv2d(3, 4, 1), b=torch.nn.Conv2d(4, 4, 1)
    )
    found = parity.derive(left, Resized(), (images(2, 3, 5, 6),))
    assert found.proven and not found.missing, str(found)
    rounds = options.get("scale_factor") != 2
    assert ("the right model computes partly in lower precision" in str(found)) == rounds, str(found)


def test_copies_of_each_value_are_told_from_a_resize_that_a_model_computes_by_itself():
    """Values between two places are computed of both by weights."""

    def linear_resize(x: Any) -> Any:
        places = ((torch.arange(12).to(x.dtype) + 0.5) / 2 - 0.5).clamp(0, 5)
        low = places.floor().long()
        share = places - low
        return x[..., low] * (1 - share) + x[..., (low + 1).clamp(max=5)] * share

    left, right = (
        Net(lambda m, x, resize=resize: m.b(resize(m.a(x)).mT).tanh().mean(1), a=linear(6, 6), b=linear(4, 5))
        for resize in (lambda x: x.repeat_interleave(2, -1), linear_resize)
    )
    found = parity.derive(left, right, (images(3, 4, 6),))
    (place,) = found.divergences
    text = "each value repeated 2 times (nearest) on the left, a linear resize on the right (recomputed so"
    assert place.cause.startswith(text) and found.confirmed, found


def test_an_activation_and_the_edges_of_a_pooling_are_two_causes():
    """A map that is not pooled has all values of the pooled one: that is no reason for the difference."""

    def net(relu: bool, edges: tuple[int, int]) -> Net:
        def run(m: Any, x: Any) -> Any:
            x = m.norm(m.conv(x))
            x = f.pad(torch.relu(x) if relu else x, edges * 2, value=-np.inf)
            x = f.max_pool2d(x, 3, 2)
            x = torch.cat([x, m.inner(torch.relu(m.first(x)))], 1)
            return m.head(torch.relu(m.second(x)))

        norms = {name: torch.nn.BatchNorm2d(n) for name, n in (("norm", 6), ("first", 6), ("second", 10))}
        convs = {"conv": torch.nn.Conv2d(3, 6, 3, padding=1, bias=False), "inner": torch.nn.Conv2d(6, 4, 1)}
        return Net(run, **convs, **norms, head=torch.nn.Conv2d(10, 5, 1))

    found = parity.derive(net(True, (1, 0)), net(False, (0, 1)), (images(2, 3, 12, 12),))
    assert [place.what for place in found.divergences] == [
        "constant_pad_nd: pad [1, 0, 1, 0] on the left, [0, 1, 0, 1] on the right",
        "ReLU on the left, no activation on the right",
    ]
