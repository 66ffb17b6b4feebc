"""Pairs of convolutions, pooling and norms: as unfolding, grouped, depthwise, transposed; statistics; flattening."""

from __future__ import annotations

from typing import Any

import numpy as np

from .pairs import Pair, images, initial


def torch_torch_patches() -> Pair:
    """Patches by a convolution against unfolding and a dense layer."""
    import torch

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(12, 12)

        def forward(self, x: Any) -> Any:
            n, c, h, w = x.shape
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)
            return self.project(x.flatten(3)).permute(0, 3, 1, 2)

    left = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 2, 2))
    return Pair(left, Right(), (images(2, 3, 4, 6),), """
        0.weight: o c y x <-> project.weight: o (y x c)
        0.bias: o <-> project.bias: o
    """, {"y": 2, "x": 2, "c": 3})  # fmt: skip


def torch_jax_einsum() -> Pair:
    """Patches by a convolution against an einsum over their axes."""
    import jax.numpy as jnp
    import torch

    def right(p: Any, x: Any) -> Any:
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c)
        return jnp.tanh(jnp.einsum("nhywxc,yoxc->nhwo", x, p["kernel"]) + p["bias"])

    left = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 2, 2), torch.nn.Tanh())
    right_inputs = (images(2, 3, 4, 6).transpose(0, 2, 3, 1).copy(),)
    call = _channels_last()
    return Pair(left, (right, {"kernel": jnp.zeros((2, 5, 2, 3)), "bias": jnp.zeros(5)}), call(images(2, 3, 4, 6)), """
        0.weight: o c y x <-> kernel: y o x c
        0.bias: o <-> bias: o
    """, right_inputs=right_inputs)  # fmt: skip


def _channels_last() -> Any:
    """A call whose result is turned to channels last."""
    import parity

    return lambda *args: parity.Call(*args, output=lambda out: out.permute(0, 2, 3, 1))


def torch_paddle_grouped() -> Pair:
    """Grouped and depthwise convolutions, group norm, and a transposed convolution of two groups."""
    import paddle
    import torch

    a, b = torch.nn, paddle.nn
    left = a.Sequential(
        a.Conv2d(4, 8, 3, padding=1, groups=2), a.GroupNorm(2, 8), a.SiLU(), a.Conv2d(8, 8, 3, padding=1, groups=8),
        a.Tanh(), a.ConvTranspose2d(8, 6, 2, 2, groups=2),
    )  # fmt: skip
    right = b.Sequential(
        b.Conv2D(4, 8, 3, padding=1, groups=2), b.GroupNorm(2, 8), b.Silu(), b.Conv2D(8, 8, 3, padding=1, groups=8),
        b.Tanh(), b.Conv2DTranspose(8, 6, 2, 2, groups=2),
    )  # fmt: skip
    return Pair(left, right, (images(2, 4, 4, 5),), """
        {i=0|3|5}.weight: o i1 h w <-> {i=0|3|5}.weight: o i1 h w
        1.weight: o <-> 1.weight: o
        {i=0|1|3|5}.bias: o <-> {i=0|1|3|5}.bias: o
    """)  # fmt: skip


def torch_linen_statistics() -> Pair:
    """Batch norms with their running statistics in a collection of their own, and average pooling."""
    import flax.linen as nn
    import torch

    class Right(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for k in range(2):
                x = nn.Conv(4, (3, 3), use_bias=False, name=f"conv{k}")(x)
                x = nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=f"bn{k}")(x))
            return nn.Dense(3)(nn.avg_pool(x, (2, 2), (2, 2)).mean((1, 2)))

    a = torch.nn
    blocks = [a.Sequential(a.Conv2d(n, 4, 3, padding=1, bias=False), a.BatchNorm2d(4), a.ReLU()) for n in (3, 4)]
    left = a.Sequential(*blocks, a.AvgPool2d(2), a.AdaptiveAvgPool2d(1), a.Flatten(), a.Linear(4, 3))
    module = Right()
    variables = initial(module, np.zeros((1, 4, 6, 3), np.float32))
    return Pair(left, (module, variables), (images(2, 3, 4, 6),), """
        {i}.0.weight: o i1 h w <-> params/conv{i}/kernel: h w i1 o
        {i}.1.{s=weight|bias}: c <-> params/bn{i}/{s=scale|bias}: c
        {i}.1.running_{s=mean|var}: c <-> batch_stats/bn{i}/{s=mean|var}: c
        {i}.1.num_batches_tracked -> drop
        5.weight: o c <-> params/Dense_0/kernel: c o
        5.bias: o <-> params/Dense_0/bias: o
    """)  # fmt: skip


def torch_torch_classes() -> Pair:
    """Flattening with channels first against channels last, and a classifier with its rows in another order."""
    import torch

    order = [3, 0, 4, 1, 2]

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(24, 5)

        def forward(self, x: Any) -> Any:
            return self.head(torch.relu(self.conv(x)).permute(0, 2, 3, 1).flatten(1))[:, order]

    a = torch.nn
    left = a.Sequential(a.Conv2d(3, 4, 1), a.ReLU(), a.Flatten(), a.Linear(24, 5))
    return Pair(left, Right(), (images(7, 3, 2, 3),), """
        0.weight: o i h w <-> conv.weight: o i h w
        0.bias: o <-> conv.bias: o
        3.weight: o[@order] (c y x) <-> head.weight: o (y x c)
        3.bias: o[@order] <-> head.bias: o
    """, {"c": 4, "y": 2, "x": 3}, orders={"order": np.argsort(order).tolist()})  # fmt: skip


def torch_torch_scaled_branches() -> Pair:
    """Layer scale, raw parameters, channels-first norms against permuted ones, parameters that one side lacks."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self, first: bool) -> None:
            super().__init__()
            self.first = first
            self.deep = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4)
            self.one, self.two = torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)
            shape = (4, 1, 1) if first else (4,)
            self.gamma = torch.nn.Parameter(torch.full(shape, 0.1))
            self.weight, self.bias = (torch.nn.Parameter(v) for v in (torch.ones(shape), torch.zeros(shape)))
            if first:
                self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

        def forward(self, x: Any) -> Any:
            y = self.deep(x)
            if self.first:
                y = (y - y.mean(1, True)) / (y.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
                y = (y * self.weight + self.bias).permute(0, 2, 3, 1)
                y = self.two(torch.nn.functional.gelu(self.one(y))).permute(0, 3, 1, 2)
                return x + y * self.gamma
            y = torch.nn.functional.layer_norm(y.permute(0, 2, 3, 1), (4,), self.weight, self.bias, 1e-6)
            return x + (self.two(torch.nn.functional.gelu(self.one(y))) * self.gamma).permute(0, 3, 1, 2)

    left = torch.nn.Sequential(Block(True), Block(True))
    right = torch.nn.Sequential(Block(False), Block(False))
    return Pair(left, right, (images(2, 4, 5, 6),), """
        {i}.deep.weight: o 1 h w <-> {i}.deep.weight: o 1 h w
        {i}.{s=deep|one|two}.bias: o <-> {i}.{s=deep|one|two}.bias: o
        {i}.{s=one|two}.weight: o c <-> {i}.{s=one|two}.weight: o c
        {i}.{s=gamma|weight|bias}: c 1 1 <-> {i}.{s=gamma|weight|bias}: c
        {i}.count -> drop
    """)  # fmt: skip


def torch_paddle_gated() -> Pair:
    """Root-mean-square norms, gate and up fused on one side, branches that run in another order."""
    import paddle
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.gate_up = torch.nn.RMSNorm(6, 1e-6), torch.nn.Linear(6, 12, bias=False)
            self.down = torch.nn.Linear(6, 6, bias=False)

        def forward(self, x: Any) -> Any:
            gate, up = self.gate_up(self.norm(x)).chunk(2, -1)
            return x + self.down(torch.nn.functional.silu(gate) * up)

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.scale = self.create_parameter([6], default_initializer=paddle.nn.initializer.Constant(1.0))
            self.w1, self.w2, self.w3 = (paddle.nn.Linear(6, 6, bias_attr=False) for _ in range(3))

        def forward(self, x: Any) -> Any:
            y = x * paddle.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.scale
            up = self.w3(y)
            return x + self.w2(paddle.nn.functional.silu(self.w1(y)) * up)

    return Pair(Left(), Right(), (images(2, 5, 6),), """
        norm.weight: c <-> scale: c
        gate_up.weight: (s o) i <-> {s=w1|w3}.weight: i o
        down.weight: o i <-> w2.weight: i o
    """)  # fmt: skip


def torch_jax_branches() -> Pair:
    """A depthwise convolution whose way of computing depends on the platform, and a branch that a constant decides."""
    import jax.numpy as jnp
    import torch
    from jax import lax

    def shifted(x: Any, kernel: Any) -> Any:
        h, w = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(x[:, i : i + h, j : j + w] * kernel[i, j, 0] for i in range(3) for j in range(3))

    def convolved(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )

    def right(p: Any, x: Any) -> Any:
        x = jnp.tanh(lax.platform_dependent(x, p["kernel"], cpu=shifted, default=convolved))
        return lax.cond(True, lambda a: a @ p["dense"], lambda a: a, x)

    left = torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), torch.nn.Tanh(), torch.nn.Conv2d(3, 3, 1, bias=False)
    )
    zeros = {"kernel": jnp.zeros((3, 3, 1, 3)), "dense": jnp.zeros((3, 3))}
    call = _channels_last()(images(2, 3, 4, 6))
    return Pair(left, (right, zeros), call, """
        0.weight: o 1 h w <-> kernel: h w 1 o
        2.weight: o i 1 1 <-> dense: i o
    """, right_inputs=(images(2, 3, 4, 6).transpose(0, 2, 3, 1).copy(),))  # fmt: skip


def paddle_jax_summed() -> Pair:
    """A kernel that is the sum of parts of one parameter, padded to the largest; a kernel for each head."""
    import jax.numpy as jnp
    import paddle
    from jax import lax

    class Left(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.weight = self.create_parameter([40, 6])
            self.heads = self.create_parameter([2, 3, 4])

        def forward(self, x: Any) -> Any:
            parts = self.weight[:8].reshape([2, 2, 2, 6]), self.weight[8:].reshape([2, 4, 4, 6])
            pads = [1] * 4, [0] * 4
            kernel = sum(paddle.nn.functional.pad(w.transpose([3, 0, 1, 2]), pad)
                         for w, pad in zip(parts, pads, strict=True))  # fmt: skip
            x = paddle.tanh(paddle.nn.functional.conv2d(x, kernel, stride=2, padding=1))
            return x.flatten(2).reshape([len(x), 2, 3, -1]).transpose([0, 1, 3, 2]) @ self.heads

    def right(p: Any, x: Any) -> Any:
        large, small = p["kernel"][:, 8:].reshape(6, 2, 4, 4), p["kernel"][:, :8].reshape(6, 2, 2, 2)
        kernel = large + jnp.pad(small, ((0, 0), (0, 0), (1, 1), (1, 1)))
        x = jnp.tanh(lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1))))
        return jnp.einsum("nhim,ihd->nhmd", x.reshape(len(x), 2, 3, -1), p["heads"])

    zeros = {"kernel": jnp.zeros((6, 40)), "heads": jnp.zeros((3, 2, 4))}
    return Pair(Left(), (right, zeros), (images(2, 2, 6, 8),), """
        weight: k o <-> kernel: o k
        heads: h i d <-> heads: i h d
    """)  # fmt: skip


PAIRS = {
    f.__name__: f
    for f in (
        torch_torch_patches, torch_jax_einsum, torch_paddle_grouped, torch_linen_statistics, torch_torch_classes,
        torch_torch_scaled_branches, torch_paddle_gated, torch_jax_branches, paddle_jax_summed,
    )
}  # fmt: skip
