"""CONVENTIONS.md, demonstrated: a probe for each row, which fails once a framework changes its mind.

A probe asserts both sides of a gap, so an upgrade that closes one is noticed as surely as one that opens one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="numpy is not installed")

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "CONVENTIONS.md").read_text()
ROUNDED = float(np.float32(1e-5))  # what paddle makes of an epsilon of 1e-5
EXACT = 2e-15  # a few roundings of float64
SINGLE = 1e-6  # a few roundings of float32

# each of paddle's BatchNorm layers says so when it is trained
pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")


@pytest.fixture
def jax() -> Iterator[Any]:
    """JAX on the CPU without x64, whatever the tests before have set."""
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install .[flax]")
    with jax.enable_x64(False), jax.default_device(jax.devices("cpu")[0]):
        yield jax


@pytest.fixture
def linen(jax: Any) -> Any:
    return pytest.importorskip("flax.linen", reason="flax is not installed: pip install .[flax]")


@pytest.fixture
def torch() -> Iterator[Any]:
    """Torch with float32 by default; what the tests before have set is put back."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install .[torch]")
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield torch
    torch.set_default_dtype(dtype)


@pytest.fixture
def paddle() -> Iterator[Any]:
    """Paddle on the CPU with float32 by default; what the tests before have set is put back."""
    paddle = pytest.importorskip("paddle", reason="paddle is not installed: pip install .[paddle]")
    device, dtype = paddle.get_device(), paddle.get_default_dtype()
    paddle.set_device("cpu")
    paddle.set_default_dtype("float32")
    yield paddle
    paddle.set_default_dtype(dtype)
    paddle.set_device(device)


def fresh(code: str, **variables: str) -> dict[str, Any]:
    """What `code` leaves in `out`, in a new process that no environment variable but `variables` steers."""
    steering = ("FLAGS_", "JAX_", "KMP_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "TORCH_", "XLA_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    code = f"import json\nout = {{}}\n{code}\nprint(json.dumps(out))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    env |= {"JAX_PLATFORMS": "cpu"} | variables
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


THREADS = """
from pathlib import Path
def threads():  # their names, where the system lists them
    return [file.read_text() for file in Path("/proc/self/task").glob("*/comm")]
"""
JAX = f"""{THREADS}
import jax, numpy as np
out["jax_precision"] = jax.config.jax_default_matmul_precision
early = jax.numpy.asarray(np.ones(2))
out["jax_threads"] = sum("XLAEigen" in name for name in threads())
jax.config.update("jax_enable_x64", True)
out["jax_floats"] = [str(x.dtype) for x in (early, early + 1, jax.numpy.asarray(np.ones(2)))]
"""
TORCH = """
import torch
out["torch_tf32"] = [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]
out["torch_threads"] = torch.get_num_threads()
"""
PADDLE = f"""{THREADS}
import os, paddle
out["paddle_tf32"] = [paddle.base.core.get_cublas_switch(), paddle.base.core.get_cudnn_switch()]
ones = paddle.ones([1000, 1000])
before = len(threads())
ones @ ones
out["paddle_threads"] = 1 + len(threads()) - before
out["variable"] = os.environ.get("OMP_NUM_THREADS")
"""


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """Settings of the three frameworks as they are imported."""
    for name in ("jax", "torch", "paddle"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install .[all]")
    return fresh(JAX) | fresh(TORCH + PADDLE)  # torch first, since paddle changes the environment


def normalised(x: Any, epsilon: float, axis: int = -1) -> Any:
    """`x` less its mean, over its deviation along `axis`: in float64, by two passes."""
    centred = x.astype("float64") - x.astype("float64").mean(axis, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis, keepdims=True) + epsilon)


def error(a: Any, b: Any) -> float:
    """Largest difference, relative to the largest value of `b`."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    return float(np.abs(a - b).max() / np.abs(b).max())


def shapes(jax: Any, layer: Any, *size: int) -> Any:
    """The shapes of a flax layer's variables for an input of `size`."""
    variables = layer.init(jax.random.key(0), np.ones(size, "float32"))
    return jax.tree.map(lambda leaf: leaf.shape, variables, is_leaf=lambda leaf: hasattr(leaf, "shape"))


def images(*size: int) -> Any:
    return np.random.default_rng(0).normal(size=size)


# ---- layouts and names


def test_image_layout(jax, linen, torch, paddle):
    image = np.ones((1, 3, 5, 7), "float32")
    flat, _ = linen.Conv(2, (1, 1)).init_with_output(jax.random.key(0), image.transpose(0, 2, 3, 1))
    assert flat.shape == (1, 5, 7, 2)
    assert torch.nn.Conv2d(3, 2, 1)(torch.from_numpy(image)).shape == (1, 2, 5, 7)
    assert paddle.nn.Conv2D(3, 2, 1)(paddle.to_tensor(image)).shape == [1, 2, 5, 7]


def test_dense_layout(jax, linen, torch, paddle):
    assert shapes(jax, linen.Dense(3), 1, 2)["params"] == {"kernel": (2, 3), "bias": (3,)}
    assert torch.nn.Linear(2, 3).weight.shape == (3, 2)
    assert paddle.nn.Linear(2, 3).weight.shape == [2, 3]
    assert paddle.compat.nn.Linear(2, 3).weight.shape == [3, 2]


def test_conv_layout(jax, linen, torch, paddle):
    kernel = shapes(jax, linen.Conv(6, (3, 5), feature_group_count=2), 1, 9, 9, 4)["params"]["kernel"]
    assert kernel == (3, 5, 2, 6)
    assert torch.nn.Conv2d(4, 6, (3, 5), groups=2).weight.shape == (6, 2, 3, 5)
    assert paddle.nn.Conv2D(4, 6, (3, 5), groups=2).weight.shape == [6, 2, 3, 5]


def test_norm_names(jax, linen, torch, paddle):
    assert set(shapes(jax, linen.LayerNorm(), 1, 2)["params"]) == {"scale", "bias"}
    for layer in (torch.nn.LayerNorm(2), paddle.nn.LayerNorm(2)):
        assert set(layer.state_dict()) == {"weight", "bias"}


def test_batch_norm_statistics(jax, linen, torch, paddle):
    flax_side = shapes(jax, linen.BatchNorm(use_running_average=False), 2, 3)
    assert {name: set(held) for name, held in flax_side.items()} == {
        "params": {"scale", "bias"},
        "batch_stats": {"mean", "var"},
    }
    layer = torch.nn.BatchNorm2d(3)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}
    assert {name for name, _ in layer.named_buffers()} == {"running_mean", "running_var", "num_batches_tracked"}
    stopped = {name: held.stop_gradient for name, held in paddle.nn.BatchNorm2D(3).named_parameters()}
    assert stopped == {"weight": False, "bias": False, "_mean": True, "_variance": True}


def test_batch_norm_step_count(jax, linen, torch, paddle):
    layer = torch.nn.BatchNorm1d(3)
    assert layer.num_batches_tracked.dtype == torch.int64
    for step in (1, 2):
        layer(torch.ones(2, 3))
        assert layer.num_batches_tracked.item() == step
    assert set(shapes(jax, linen.BatchNorm(False), 2, 3)["batch_stats"].values()) == {(3,)}  # channels, no count
    assert {tuple(held.shape) for held in paddle.nn.BatchNorm1D(3).state_dict().values()} == {(3,)}


# ---- arithmetic


def trained_once(jax: Any, linen: Any, torch: Any, paddle: Any) -> dict[str, tuple[float, float]]:
    """Running (mean, variance), 0 and 1 before, after a batch of 0 and 2: mean 1, variance 1, unbiased 2."""
    batch = np.array([[0.0], [2.0]], "float32")
    _, flax_side = linen.BatchNorm(False).init_with_output(jax.random.key(0), batch)
    flax_side = linen.BatchNorm(False).apply(flax_side, batch, mutable=["batch_stats"])[1]["batch_stats"]
    torch_side, paddle_side = torch.nn.BatchNorm1d(1), paddle.nn.BatchNorm1D(1)
    torch_side(torch.from_numpy(batch)), paddle_side(paddle.to_tensor(batch))
    return {
        "flax": (flax_side["mean"].item(), flax_side["var"].item()),
        "torch": (torch_side.running_mean.item(), torch_side.running_var.item()),
        "paddle": (paddle_side._mean.item(), paddle_side._variance.item()),
    }


def test_batch_norm_momentum(jax, linen, torch, paddle):
    assert linen.BatchNorm().momentum == 0.99
    assert torch.nn.BatchNorm2d(1).momentum == 0.1
    assert paddle.nn.BatchNorm2D(1)._momentum == 0.9
    means = {name: mean for name, (mean, _) in trained_once(jax, linen, torch, paddle).items()}
    assert means == pytest.approx({"flax": 0.01, "torch": 0.1, "paddle": 0.1}, rel=SINGLE)


def test_batch_norm_variance(jax, linen, torch, paddle):
    variances = {name: variance for name, (_, variance) in trained_once(jax, linen, torch, paddle).items()}
    biased, unbiased = 1.0, 2.0
    assert variances == pytest.approx(
        {"flax": 0.99 + 0.01 * biased, "torch": 0.9 + 0.1 * unbiased, "paddle": 0.9 + 0.1 * biased}, rel=SINGLE
    )


def test_batch_norm_epsilon(jax, linen, torch, paddle):
    x = np.array([[-1e-3], [1e-3]], "float32")  # a variance that epsilon outweighs
    flax_side, _ = linen.BatchNorm(use_running_average=False).init_with_output(jax.random.key(0), x)
    torch_side = torch.nn.BatchNorm1d(1)(torch.from_numpy(x)).detach()
    paddle_side = paddle.nn.BatchNorm1D(1)(paddle.to_tensor(x)).numpy()
    for y in (flax_side, torch_side, paddle_side):
        assert error(y, normalised(x, 1e-5, axis=0)) < SINGLE < error(y, normalised(x, 1e-6, axis=0))


def test_layer_norm_epsilon(jax, linen, torch, paddle):
    """Of GroupNorm too, whose paddle's layer takes images alone."""
    x = np.array([[-1e-3, 1e-3]], "float32")  # a variance that either epsilon outweighs or equals
    for layer in (linen.LayerNorm(), linen.GroupNorm(num_groups=1)):
        assert error(layer.init_with_output(jax.random.key(0), x)[0], normalised(x, 1e-6)) < SINGLE
    for layer in (torch.nn.LayerNorm(2), torch.nn.GroupNorm(1, 2)):
        assert error(layer(torch.from_numpy(x)).detach(), normalised(x, 1e-5)) < SINGLE
    for layer, image in ((paddle.nn.LayerNorm(2), x), (paddle.nn.GroupNorm(1, 2), x[:, :, None, None])):
        assert error(layer(paddle.to_tensor(image)).numpy().reshape(x.shape), normalised(x, 1e-5)) < SINGLE


def test_norm_variance(jax, linen, torch, paddle):
    x = (10 + 0.1 * images(512, 512)).astype("float32")
    batch_norm = partial(linen.BatchNorm, use_running_average=False)

    def by_flax(layer):
        return layer.init_with_output(jax.random.key(0), x)[0]

    def wrong(y, axis=-1):
        return np.abs(np.asarray(y) - normalised(x, 1e-5, axis)).max()

    assert wrong(by_flax(linen.LayerNorm(epsilon=1e-5))) > 1e-3
    assert wrong(by_flax(batch_norm()), axis=0) > 1e-3
    two_pass = {  # (layer norm over rows, batch norm over columns)
        "flax": [by_flax(layer(epsilon=1e-5, use_fast_variance=False)) for layer in (linen.LayerNorm, batch_norm)],
        "torch": [layer(512)(torch.from_numpy(x)).detach() for layer in (torch.nn.LayerNorm, torch.nn.BatchNorm1d)],
        "paddle": [layer(512)(paddle.to_tensor(x)).numpy() for layer in (paddle.nn.LayerNorm, paddle.nn.BatchNorm1D)],
    }
    for name, (rows, columns) in two_pass.items():  # a mean of 10, summed in float32, is 1e-5 wrong: 1e-4 deviations
        assert wrong(rows) < 3e-4, name
        assert wrong(columns, axis=0) < 3e-4, name


def test_group_norm_variance(jax, linen, torch, paddle):
    x = (10 + 0.1 * images(4, 8, 16, 16)).astype("float32")
    rows, channels_last = x.reshape(4, -1), x.transpose(0, 2, 3, 1)

    def wrong(y):
        return np.abs(np.asarray(y).reshape(4, -1) - normalised(rows, 1e-5)).max()

    def by_flax(**options):
        layer = linen.GroupNorm(num_groups=1, epsilon=1e-5, **options)
        return layer.init_with_output(jax.random.key(0), channels_last)[0].transpose(0, 3, 1, 2)

    by_rows = paddle.nn.functional.layer_norm(paddle.to_tensor(rows), rows.shape[1], epsilon=1e-5)
    assert wrong(by_flax()) > 5e-4
    assert wrong(paddle.nn.GroupNorm(1, 8)(paddle.to_tensor(x)).numpy()) > 1e-3
    torch_side = torch.nn.GroupNorm(1, 8)(torch.from_numpy(x)).detach()
    for y in (by_flax(use_fast_variance=False), torch_side, by_rows.numpy()):
        assert wrong(y) < 1e-4  # a mean of 10, summed in float32, is 1e-6 wrong: 1e-5 deviations


def test_gelu_default(linen, torch, paddle):
    erf, tanh = 0.8413447, 0.8411920  # GELU(1) by the error function, and by its approximation
    one = np.ones(1, "float32")
    assert linen.gelu(one).item() == pytest.approx(tanh, abs=SINGLE)
    assert torch.nn.GELU()(torch.from_numpy(one)).item() == pytest.approx(erf, abs=SINGLE)
    assert paddle.nn.GELU()(paddle.to_tensor(one)).item() == pytest.approx(erf, abs=SINGLE)


def test_conv_padding_default(jax, linen, torch, paddle):
    image = np.ones((1, 1, 4, 4), "float32")
    same, _ = linen.Conv(1, (3, 3)).init_with_output(jax.random.key(0), image.transpose(0, 2, 3, 1))
    assert same.shape[1:3] == (4, 4)
    assert tuple(torch.nn.Conv2d(1, 1, 3)(torch.from_numpy(image)).shape[2:]) == (2, 2)
    assert tuple(paddle.nn.Conv2D(1, 1, 3)(paddle.to_tensor(image)).shape[2:]) == (2, 2)


def layer_norms(jax: Any, linen: Any, torch: Any, paddle: Any, x: Any, epsilon: float) -> dict[str, Any]:
    with jax.enable_x64(True):
        flax_side = linen.LayerNorm(epsilon, use_bias=False, use_scale=False, use_fast_variance=False).apply({}, x)
    return {
        "flax": np.asarray(flax_side),
        "torch": torch.nn.functional.layer_norm(torch.from_numpy(x), x.shape[-1:], eps=epsilon).numpy(),
        "paddle": paddle.nn.functional.layer_norm(paddle.to_tensor(x), x.shape[-1], epsilon=epsilon).numpy(),
    }


def test_epsilon_storage(jax, linen, torch, paddle):
    x = 1e-3 * images(4, 16)  # small, so that epsilon shows
    given = layer_norms(jax, linen, torch, paddle, x, 1e-5)
    assert error(given["flax"], normalised(x, 1e-5)) < EXACT
    assert error(given["torch"], normalised(x, 1e-5)) < EXACT
    assert error(given["paddle"], normalised(x, 1e-5)) > 1e-9
    assert error(given["paddle"], normalised(x, ROUNDED)) < EXACT
    for name, y in layer_norms(jax, linen, torch, paddle, x, ROUNDED).items():
        assert error(y, normalised(x, ROUNDED)) < EXACT, name


def test_momentum_storage(jax, linen, torch, paddle):
    batch = np.array([[0.0], [2.0]])
    layer = torch.nn.BatchNorm1d(1, dtype=torch.float64)
    layer(torch.from_numpy(batch))
    assert layer.running_mean.item() == pytest.approx(0.1, rel=EXACT)
    with jax.enable_x64(True):
        stats = {"mean": np.zeros(1), "var": np.ones(1)}
        norm = linen.BatchNorm(False, momentum=0.9, use_bias=False, use_scale=False)
        _, held = norm.apply({"batch_stats": stats}, batch, mutable=["batch_stats"])
    assert held["batch_stats"]["mean"].item() == pytest.approx(0.1, rel=EXACT)
    layer = paddle.nn.BatchNorm1D(1).to(dtype="float64")
    layer(paddle.to_tensor(batch))
    assert layer._mean.item() == pytest.approx(1 - float(np.float32(0.9)), rel=EXACT)
    assert abs(layer._mean.item() - 0.1) > 1e-8


def test_average_pool_backward(jax, linen, torch, paddle):
    image = images(1, 1, 7, 7)
    x = torch.from_numpy(image).requires_grad_()
    torch.nn.AdaptiveAvgPool2d(1)(x).sum().backward()
    assert error(x.grad, np.full_like(image, 1 / 49)) < EXACT
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: linen.avg_pool(x, (7, 7)).sum())(image.reshape(1, 7, 7, 1))
    assert error(slope, np.full((1, 7, 7, 1), 1 / 49)) < EXACT
    x = paddle.to_tensor(image, stop_gradient=False)
    (pooled,) = paddle.grad(paddle.nn.AdaptiveAvgPool2D(1)(x).sum(), x)
    (mean,) = paddle.grad(x.mean((2, 3)).sum(), x)
    assert error(pooled.numpy(), np.full_like(image, float(np.float32(1 / 49)))) < EXACT
    assert error(pooled.numpy(), mean.numpy()) > 1e-8
    assert error(mean.numpy(), np.full_like(image, 1 / 49)) < EXACT
    ones, functional = paddle.ones([1, 1, 3, 3], "float64"), paddle.nn.functional
    number = functional.conv2d(paddle.ones_like(x), ones, padding=1)
    (pooled,) = paddle.grad(paddle.nn.AvgPool2D(3, 1, 1)(x).sum(), x)
    (divided,) = paddle.grad((functional.conv2d(x, ones, padding=1) / number).sum(), x)
    x = torch.from_numpy(image).requires_grad_()
    torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)(x).sum().backward()
    assert error(pooled.numpy(), x.grad) > 1e-9 and error(divided.numpy(), x.grad) < EXACT


def test_gates(jax, linen, torch, paddle):
    """The same arrays give the same steps in torch and paddle; flax names a layer for each gate in their order."""
    draw = np.random.default_rng(0)
    x, h, c = (draw.normal(size=(2, 3)).astype("f4") for _ in range(3))
    for name, gates in (("LSTMCell", "ifgo"), ("GRUCell", "rzn")):
        n = 3 * len(gates)
        wi, wh = (draw.normal(size=(n, 3)).astype("f4") for _ in range(2))
        bi, bh = np.zeros(n, "f4"), draw.normal(size=n).astype("f4")
        if name == "GRUCell":
            bi[:6], bh[:6] = bh[:6], 0  # of r and z only the sum counts, and flax stores it on the input's side
            bi[6:] = draw.normal(size=3)
        cell, other = getattr(torch.nn, name)(3, 3), getattr(paddle.nn, name)(3, 3)
        stored = {"weight_ih": wi, "weight_hh": wh, "bias_ih": bi, "bias_hh": bh}
        cell.load_state_dict({key: torch.from_numpy(array) for key, array in stored.items()})
        other.set_state_dict(stored)
        state = (h, c) if name == "LSTMCell" else (h,)
        theirs = cell(
            torch.from_numpy(x),
            *([tuple(map(torch.from_numpy, state))] if len(state) > 1 else map(torch.from_numpy, state)),
        )
        theirs = (theirs[0] if name == "LSTMCell" else theirs).detach().numpy()
        pd = tuple(map(paddle.to_tensor, state))
        assert np.abs(other(paddle.to_tensor(x), pd if len(pd) > 1 else pd[0])[0].numpy() - theirs).max() < SINGLE
        parameters = {}
        for k, gate in enumerate(gates):
            rows = slice(3 * k, 3 * k + 3)
            parameters[f"i{gate}"], parameters[f"h{gate}"] = {"kernel": wi[rows].T}, {"kernel": wh[rows].T}
            if name == "LSTMCell":
                parameters[f"h{gate}"]["bias"] = bh[rows]
            else:
                parameters[f"i{gate}"]["bias"] = bi[rows]
        if name == "GRUCell":
            parameters["hn"]["bias"] = bh[6:]
        carry = (c, h) if name == "LSTMCell" else h
        ours = getattr(linen, name)(3).apply({"params": parameters}, carry, x)[1]
        assert np.abs(np.asarray(ours) - theirs).max() < SINGLE


def test_norm_over_two_axes(jax, torch, paddle):
    """Over (1, 2), the Frobenius norm of each channel of an image, or the spectral norm of its (h, w) matrix."""
    x = images(2, 3, 4, 5)
    frobenius, spectral = np.sqrt((x * x).sum((1, 2))), np.linalg.norm(x, 2, axis=(1, 2))
    assert error(frobenius, spectral) > 0.1
    a, b, c = jax.numpy.asarray(x), torch.from_numpy(x), paddle.to_tensor(x)
    found = {
        "frobenius": [jax.numpy.linalg.norm(a, axis=(1, 2)), b.norm(dim=(1, 2)), b.norm(p=2, dim=(1, 2)),
                      torch.linalg.norm(b, dim=(1, 2)), c.norm(p="fro", axis=(1, 2)), (c * c).sum((1, 2)).sqrt()],
        "spectral": [jax.numpy.linalg.norm(a, 2, axis=(1, 2)), torch.linalg.norm(b, 2, dim=(1, 2)),
                     c.norm(axis=(1, 2)), c.norm(p=2, axis=(1, 2)), paddle.linalg.norm(c, axis=(1, 2))],
    }  # fmt: skip
    for name, truth in (("frobenius", frobenius), ("spectral", spectral)):
        assert all(error(truth, one) < 1e-6 for one in found[name])  # jax rounds to float32: 1e-7


def test_bicubic(jax, torch, paddle):
    image = images(1, 1, 7, 7)
    own, other = (one.nn.functional.interpolate for one in (torch, paddle))

    def by_torch(size, **options):
        return own(torch.from_numpy(image), size=(size, size), mode="bicubic", **options).numpy()

    def by_paddle(size):
        return other(paddle.to_tensor(image), size=[size, size], mode="bicubic").numpy()

    for size in (4, 11):
        with jax.enable_x64(True):
            resized = np.asarray(jax.image.resize(image, (1, 1, size, size), "bicubic"))
        assert error(resized, by_torch(size)) > 0.05
        assert error(resized, by_torch(size, antialias=True)) < EXACT
    assert error(by_paddle(14), by_torch(14)) < EXACT  # 7 to 14: a scale that float32 holds
    assert 1e-8 < error(by_paddle(11), by_torch(11)) < 1e-5  # 7 to 11: one that it rounds
    linear = {"size": (11, 11), "mode": "bilinear", "align_corners": True}
    assert 1e-8 < error(other(paddle.to_tensor(image), **linear), own(torch.from_numpy(image), **linear).numpy()) < 1e-5


# ---- settings


def test_float64(defaults, torch, paddle):
    assert defaults["jax_floats"] == ["float32", "float32", "float64"]  # before x64; of it; after
    assert torch.nn.Linear(2, 2, dtype=torch.float64).weight.dtype == torch.from_numpy(np.ones(2)).dtype
    paddle.set_default_dtype("float64")
    layer = paddle.nn.Linear(2, 2)
    layer.register_buffer("literal", paddle.full([2], 0.1, "float32"))
    assert [layer.weight.dtype, layer.literal.dtype] == [paddle.float64, paddle.float32]
    layer.to(dtype="float64")
    assert {held.dtype for held in layer.state_dict().values()} == {paddle.float64}


def test_matmul_precision(defaults):
    assert defaults["jax_precision"] is None  # left to the device
    assert defaults["torch_tf32"] == [False, True]  # products, convolutions
    assert defaults["paddle_tf32"] == [False, True]


def cores() -> int:
    """Physical cores this process may use: torch starts a thread on each, not on each of its hardware threads."""
    if not hasattr(os, "sched_getaffinity"):
        return 1
    files = [Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in os.sched_getaffinity(0)]
    return len({file.read_text() for file in files if file.exists()})


@pytest.mark.skipif(cores() < 2, reason="one core: all cores and one thread are the same here")
def test_cpu_threads(defaults):
    assert defaults["jax_threads"] >= cores()
    assert defaults["torch_threads"] >= cores()
    assert defaults["paddle_threads"] == 1
    assert fresh(PADDLE, OMP_NUM_THREADS="2")["paddle_threads"] == 2


def test_paddle_sets_threads_for_others(defaults):
    assert defaults["variable"] == "1"  # it was unset before the import


# ---- the table itself


def test_table_names_every_probe():
    rows = [line for line in TABLE.splitlines() if line.startswith("|") and not line.startswith(("| |", "|--"))]
    named = [re.findall(r"`(test_\w+)`", row.rstrip("| ").rpartition("|")[2]) for row in rows]
    assert [row for row, probes in zip(rows, named, strict=True) if not probes] == []
    from . import test_conventions_files as of_files

    probes = {
        name
        for name in (*globals(), *vars(of_files))
        if name.startswith("test_") and not name.startswith("test_table_")
    }
    assert {name for row in named for name in row} == probes


def test_table_names_the_tested_versions():
    (line,) = [line for line in TABLE.splitlines() if line.startswith("Measured with ")]
    stated = re.findall(r"(\w+) (\d[\d.]*\d)", line)
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name for name, _ in stated} >= {"flax", "jax", "torch", "paddlepaddle", "numpy", "safetensors", "msgpack"}
    assert {name: pinned[name] for name, _ in stated} == dict(stated)
