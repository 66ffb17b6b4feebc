"""Operations of each framework against the same written out in simpler ones: both sides need one form on the tapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import parity

from ..conftest import needs
from .pairs import images

torch = pytest.importorskip("torch", reason="one side of each pair is a torch module")


class Heads(torch.nn.Module):
    """Self-attention by a function of (q, k, v), each (b h t d)."""

    def __init__(self, attend: Callable[..., Any], shared: int):
        super().__init__()
        self.attend, self.shared = attend, shared
        self.q, self.kv = torch.nn.Linear(12, 12), torch.nn.Linear(12, 24 // shared)
        self.out = torch.nn.Linear(12, 12)

    def forward(self, x: Any) -> Any:
        k, v = self.kv(x).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (-1, 3)).transpose(1, 2) for part in (self.q(x), k, v))
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))


def written(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores + mask).softmax(-1) @ v


def fused(q: Any, k: Any, v: Any, **options: Any) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)


LOWER = torch.ones(5, 5, dtype=torch.bool).tril()
ADDED = torch.zeros(5, 5).masked_fill(~LOWER, -math.inf)
BIAS = torch.arange(25.0).reshape(5, 5).sin()


@pytest.mark.parametrize(
    ("options", "attend", "shared"),
    [
        ({"is_causal": True}, lambda q, k, v: written(q, k, v, ADDED), 1),
        ({"attn_mask": LOWER}, lambda q, k, v: written(q, k, v, ADDED), 1),
        ({"attn_mask": BIAS}, lambda q, k, v: written(q, k, v, BIAS), 1),
        ({"enable_gqa": True}, lambda q, k, v: written(q, *(x.repeat_interleave(2, 1) for x in (k, v))), 2),
    ],
    ids=["causal", "boolean mask", "added mask", "grouped queries"],
)
def test_attention_of_torch(options: dict[str, Any], attend: Callable[..., Any], shared: int):
    left = Heads(lambda q, k, v: fused(q, k, v, **options), shared)
    found = parity.derive(left, Heads(attend, shared), (images(2, 5, 12),))
    assert found.proven and not found.missing, str(found)


class Between(torch.nn.Module):
    """Two dense layers and a function between them."""

    def __init__(self, function: Callable[..., Any], **parameters: Any):
        super().__init__()
        self.function = function
        self.first, self.second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        self.own = torch.nn.Parameter(torch.randn(6))

    def forward(self, x: Any) -> Any:
        return self.second(self.function(self.first(x), self.own).tanh())


@pytest.mark.parametrize(
    ("function", "other"),
    [
        (
            lambda x, w: torch.nn.functional.rms_norm(x, (6,), w, 1e-6),
            lambda x, w: x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w,
        ),
        (lambda x, w: torch.add(x, w, alpha=0.5), lambda x, w: x + w / 2),
        (lambda x, w: torch.sub(x, w, alpha=2), lambda x, w: x - 2 * w),
        (lambda x, w: torch.addcmul(x, x, w, value=0.5), lambda x, w: x + x * w * 0.5),
        (lambda x, w: torch.rsub(x, w), lambda x, w: w - x),
        (lambda x, w: torch.rsub(x, w, alpha=2), lambda x, w: w - 2 * x),
        (lambda x, w: 1 / (2 + x.square()) * w, lambda x, w: w / (x * x + 2)),
    ],
    ids=["rms_norm", "add", "sub", "addcmul", "rsub", "scaled rsub", "reciprocal"],
)
def test_functions_of_torch(function: Callable[..., Any], other: Callable[..., Any]):
    found = parity.derive(Between(function), Between(other), (images(4, 6),))
    assert found.proven and not found.missing, str(found)
    assert not found.reads_numbers  # which is said, too, where a tape computes something else than the model


@pytest.mark.parametrize(
    "name", ["scale", "scale after", "rsub", "rdiv", "keywords", "set rows", "softplus", "hardswish"]
)
def test_functions_of_paddle(name: str):
    needs("paddle")
    import paddle

    def rows(x: Any, w: Any) -> Any:
        y = paddle.zeros_like(x)
        y[:, 1:] = x[:, 1:]
        return y * w

    def torch_rows(x: Any, w: Any) -> Any:
        return torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], 1) * w

    functions = {
        "scale": (lambda x, w: paddle.scale(x, 2.0, 1.0) * w, lambda x, w: (2 * x + 1) * w),
        "scale after": (lambda x, w: paddle.scale(x, 2.0, 1.0, False) * w, lambda x, w: 2 * (x + 1) * w),
        "rsub": (lambda x, w: (1 - x) * w, lambda x, w: (1 - x) * w),
        "rdiv": (lambda x, w: 1 / (2 + x * x) * w, lambda x, w: w / (2 + x.square())),
        "keywords": (lambda x, w: paddle.multiply(x=paddle.add(x=x, y=w), y=w), lambda x, w: (x + w) * w),
        "set rows": (rows, torch_rows),
        "softplus": (
            lambda x, w: paddle.nn.functional.softplus(x, 2, 15) * w,
            lambda x, w: torch.nn.functional.softplus(x, 2, 15) * w,
        ),
        "hardswish": (
            lambda x, w: paddle.nn.functional.hardswish(x) * w,
            lambda x, w: torch.nn.functional.hardswish(x) * w,
        ),
    }
    own, other = functions[name]

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = paddle.nn.Linear(6, 6), paddle.nn.Linear(6, 6)
            self.own = self.create_parameter([6], default_initializer=paddle.nn.initializer.Normal())

        def forward(self, x: Any) -> Any:
            return paddle.tanh(self.second(paddle.tanh(own(self.first(x), self.own))))

    class Left(Between):
        def forward(self, x: Any) -> Any:
            return super().forward(x).tanh()

    found = parity.derive(Left(other), Right(), (images(4, 6),))
    assert found.proven and not found.missing, str(found)


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
def test_convolutions_and_norms_of_paddle(last: bool):
    needs("paddle")
    import paddle

    form = "NHWC" if last else "NCHW"

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.conv = paddle.nn.Conv2D(3, 8, 3, stride=2, padding="SAME", data_format=form)
            self.group = paddle.nn.GroupNorm(4, 8, data_format=form)
            self.down = paddle.nn.Conv2D(8, 8, 2, stride=2, padding="VALID", data_format=form)
            self.one = paddle.nn.InstanceNorm2D(8) if not last else paddle.nn.Identity()
            self.head = paddle.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = self.one(self.down(paddle.tanh(self.group(self.conv(x)))))
            return self.head(paddle.tanh(x).mean([1, 2] if last else [2, 3]))

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.group = torch.nn.Conv2d(3, 8, 3, 2), torch.nn.GroupNorm(4, 8)
            self.down = torch.nn.Conv2d(8, 8, 2, 2)
            self.one = torch.nn.Identity() if last else torch.nn.InstanceNorm2d(8, affine=True)
            self.head = torch.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.pad(x, (0, 1, 0, 1))  # what "SAME" adds to 10 x 10 at stride 2
            return self.head(self.one(self.down(self.group(self.conv(x)).tanh())).tanh().mean((2, 3)))

    x = images(2, 3, 10, 10)
    found = parity.derive(Left(), Right(), (x,), (x.transpose(0, 2, 3, 1) if last else x,))
    assert found.proven and not found.missing, str(found)


@pytest.mark.parametrize("way", ["scanned", "flipped"])
def test_a_recurrence_that_runs_backwards(way: str):
    needs("flax")
    import jax
    import jax.numpy as jnp

    def run(weights: Any, x: Any) -> Any:  # x (b t c)
        def step(h: Any, at: Any) -> tuple[Any, Any]:
            h = jnp.tanh(at @ weights["in"] + h @ weights["rec"] + weights["bias"])
            return h, h

        steps, start = jnp.swapaxes(x, 0, 1), jnp.zeros((len(x), 5), x.dtype)
        if way == "scanned":
            return jnp.swapaxes(jax.lax.scan(step, start, steps, reverse=True)[1], 0, 1)
        return jnp.swapaxes(jnp.flip(jax.lax.scan(step, start, jnp.flip(steps, 0))[1], 0), 0, 1)

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.RNNCell(4, 5)

        def forward(self, x: Any) -> Any:
            h, rows = torch.zeros(len(x), 5, dtype=x.dtype), []
            for t in reversed(range(x.shape[1])):
                h = self.cell(x[:, t], h)
                rows.append(h)
            return torch.stack(rows[::-1], 1)

    keys = jax.random.split(jax.random.key(0), 3)
    weights = {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, {"in": (4, 5), "rec": (5, 5), "bias": (5,)}.items(), strict=True)
    }
    found = parity.derive(Left(), (run, weights), (images(2, 6, 4),))
    assert found.proven and not found.missing, str(found)
