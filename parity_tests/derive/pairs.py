"""One architecture written twice, in two frameworks: what derive() has to see through, with the Table it should find.

Each pair is a function that returns Pair(left, right, inputs, table). Frameworks are imported inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Pair(NamedTuple):
    """Two models, the left one's inputs, the lines that translate them, and lengths that both sides compose."""

    left: Any
    right: Any
    inputs: Any
    table: str
    sizes: dict[str, int] = {}  # noqa: RUF012  # never changed
    right_inputs: Any = None
    orders: dict[str, list[int]] = {}  # noqa: RUF012


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


def initial(module: Any, *inputs: Any) -> Any:
    """Return variables of a linen module, drawn by numpy: JAX takes seconds to compile each draw and layer."""
    import jax

    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    random = np.random.default_rng(0)

    def drawn(path: Any, leaf: Any) -> Any:
        is_statistic = path[0].key != "params"  # a variance is positive
        values = random.uniform(0.5, 1.5, leaf.shape) if is_statistic else random.normal(0, 0.3, leaf.shape)
        return jax.numpy.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def torch_linen() -> Pair:
    """A vision transformer: fused against split projections, heads as axes, square kernels, other nesting."""
    import flax.linen as nn
    import jax.numpy as jnp
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = torch.nn.Conv2d(3, 16, 4, 4)
            self.token = torch.nn.Parameter(torch.randn(1, 1, 16))
            self.position = torch.nn.Parameter(torch.randn(1, 5, 16))
            self.blocks = torch.nn.ModuleList(
                torch.nn.TransformerEncoderLayer(16, 4, 16, activation="gelu", norm_first=True, batch_first=True)
                for _ in range(2)
            )
            self.head = torch.nn.Linear(16, 16)

        def forward(self, x: Any) -> Any:
            x = self.patch(x).flatten(2).mT
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
            for block in self.blocks:
                x = block(x)
            return self.head(x[:, 0])

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            y = nn.LayerNorm(epsilon=1e-5)(x)
            x = x + nn.MultiHeadDotProductAttention(4, name="attention")(y, y)
            y = nn.LayerNorm(epsilon=1e-5)(x)
            return x + nn.Dense(16)(nn.gelu(nn.Dense(16)(y), approximate=False))

    class Right(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Conv(16, (4, 4), strides=4)(x)
            x = x.reshape(len(x), -1, 16)
            token = self.param("token", nn.initializers.normal(1), (1, 1, 16))
            x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], 1)
            x = x + self.param("position", nn.initializers.normal(1), (1, 5, 16))
            for i in range(2):
                x = Block(name=f"block_{i}")(x)
            return nn.Dense(16, name="head")(x[:, 0])

    module = Right()
    x = images(2, 3, 8, 8)
    variables = initial(module, jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32))
    return Pair(Left(), (module, variables), (x,), """
        patch.weight: o i h w <-> params/Conv_0/kernel: h w i o
        patch.bias: c <-> params/Conv_0/bias: c
        token: 1 1 c <-> params/token: 1 1 c
        position: 1 t c <-> params/position: 1 t c
        blocks.{i}.norm1.weight: c <-> params/block_{i}/LayerNorm_0/scale: c
        blocks.{i}.norm1.bias: c <-> params/block_{i}/LayerNorm_0/bias: c
        blocks.{i}.self_attn.in_proj_weight: (s h d) i <-> params/block_{i}/attention/{s=query|key|value}/kernel: i h d
        blocks.{i}.self_attn.in_proj_bias: (s h d) <-> params/block_{i}/attention/{s=query|key|value}/bias: h d
        blocks.{i}.self_attn.out_proj.weight: o (h d) <-> params/block_{i}/attention/out/kernel: h d o
        blocks.{i}.self_attn.out_proj.bias: c <-> params/block_{i}/attention/out/bias: c
        blocks.{i}.norm2.weight: c <-> params/block_{i}/LayerNorm_1/scale: c
        blocks.{i}.norm2.bias: c <-> params/block_{i}/LayerNorm_1/bias: c
        blocks.{i}.linear1.weight: o i <-> params/block_{i}/Dense_1/kernel: i o
        blocks.{i}.linear1.bias: c <-> params/block_{i}/Dense_1/bias: c
        blocks.{i}.linear2.weight: o i <-> params/block_{i}/Dense_0/kernel: i o
        blocks.{i}.linear2.bias: c <-> params/block_{i}/Dense_0/bias: c
        head.weight: o i <-> params/head/kernel: i o
        head.bias: c <-> params/head/bias: c
    """)  # fmt: skip


def torch_nnx() -> Pair:
    """A residual network: batch norms, transposed convolution, flattening before a dense layer."""
    import torch
    from flax import nnx

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
            self.norm = torch.nn.BatchNorm2d(8)
            self.deep = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.up = torch.nn.ConvTranspose2d(8, 8, 2, stride=2)
            self.head = torch.nn.Linear(8 * 8 * 6, 5)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.norm(self.stem(x)))
            x = x + torch.sigmoid(self.deep(x))
            return self.head(torch.tanh(self.up(x)).flatten(1))

    class Right(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.head = nnx.Linear(8 * 8 * 6, 5, rngs=rngs)
            self.up = nnx.ConvTranspose(8, 8, (2, 2), (2, 2), rngs=rngs)
            self.deep = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
            self.stem = nnx.Conv(3, 8, (3, 3), 2, padding=((1, 1), (1, 1)), use_bias=False, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.relu(self.norm(self.stem(x)))
            x = x + nnx.sigmoid(self.deep(x))
            return self.head(nnx.tanh(self.up(x)).reshape(len(x), -1))

    return Pair(Left(), Right(nnx.Rngs(0)), (images(2, 3, 8, 6),), """
        stem.weight: o i h w <-> stem/kernel: h w i o
        norm.{s=weight|bias|running_mean|running_var}: c <-> norm/{s=scale|bias|mean|var}: c
        deep.weight: o i h w <-> deep/kernel: h w i o
        deep.bias: c <-> deep/bias: c
        up.weight: i o -h -w <-> up/kernel: h w i o
        up.bias: c <-> up/bias: c
        head.weight: o (k y x) <-> head/kernel: (y x k) o
        head.bias: c <-> head/bias: c
        norm.num_batches_tracked -> drop
    """, {"k": 8, "y": 8, "x": 6})  # fmt: skip


def torch_paddle() -> Pair:
    """A text encoder: embeddings of tokens and positions, fused queries and keys in another order, a tied head."""
    import paddle
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(12, 8)
            self.positions = torch.nn.Embedding(6, 8)
            self.norm = torch.nn.LayerNorm(8)
            self.qkv = torch.nn.Linear(8, 24)
            self.out = torch.nn.Linear(8, 8)
            self.head = torch.nn.Linear(8, 12, bias=False)
            self.head.weight = self.words.weight

        def forward(self, tokens: Any) -> Any:
            x = self.norm(self.words(tokens) + self.positions(torch.arange(tokens.shape[1])))
            n, t, c = x.shape
            q, k, v = self.qkv(x).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
            return self.head(x)

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.wpe = paddle.nn.Embedding(6, 8)
            self.wte = paddle.nn.Embedding(12, 8)
            self.proj = paddle.nn.Linear(8, 8)
            self.attn = paddle.nn.Linear(8, 24)
            self.ln = paddle.nn.LayerNorm(8)

        def forward(self, tokens: Any) -> Any:
            x = self.ln(self.wte(tokens) + self.wpe(paddle.arange(tokens.shape[1])))
            n, t, c = x.shape
            y = self.attn(x).reshape([n, t, 2, 3, 4]).transpose([3, 0, 2, 1, 4])  # q, k, v of each head together
            scores = paddle.nn.functional.softmax(y[0].matmul(y[1], transpose_y=True) / 2, -1)
            x = x + self.proj(scores.matmul(y[2]).transpose([0, 2, 1, 3]).reshape([n, t, c]))
            return x.matmul(self.wte.weight, transpose_y=True)

    tokens = np.array([[1, 5, 2, 5, 0, 3], [4, 4, 9, 11, 7, 6]])
    return Pair(Left(), Right(), (tokens,), """
        words.weight: v c = head.weight: v c <-> wte.weight: v c
        positions.weight: t c <-> wpe.weight: t c
        norm.weight: c <-> ln.weight: c
        norm.bias: c <-> ln.bias: c
        qkv.weight: (s h d) i <-> attn.weight: i (h s d)
        qkv.bias: (s h d) <-> attn.bias: (h s d)
        out.weight: o i <-> proj.weight: i o
        out.bias: c <-> proj.bias: c
    """, {"s": 3, "h": 2})  # fmt: skip


def linen_nnx() -> Pair:
    """Layers under nn.scan against a list, a kernel as einsum against a dense layer."""
    import flax.linen as nn
    import jax.numpy as jnp
    from flax import nnx

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: Any) -> Any:
            y = nn.RMSNorm(epsilon=1e-6)(x)
            kernel = self.param("gate_up", nn.initializers.lecun_normal(), (2, 6, 6))
            gate, up = jnp.einsum("btc,scd->sbtd", y, kernel)
            return x + nn.Dense(6, use_bias=False)(nn.silu(gate) * up), None

    class Left(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            x, _ = scanned(name="blocks")(x, None)
            return nn.LayerNorm()(x)

    class Layer(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.down = nnx.Linear(6, 6, use_bias=False, rngs=rngs)
            self.gate = nnx.Linear(6, 6, use_bias=False, rngs=rngs)
            self.up = nnx.Linear(6, 6, use_bias=False, rngs=rngs)
            self.norm = nnx.RMSNorm(6, epsilon=1e-6, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            y = self.norm(x)
            return x + self.down(nnx.silu(self.gate(y)) * self.up(y))

    class Right(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([Layer(rngs) for _ in range(3)])
            self.final = nnx.LayerNorm(6, epsilon=1e-6, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return self.final(x)

    module, x = Left(), images(2, 5, 6)
    variables = initial(module, jnp.asarray(x))  # float64 where x64 is on
    return Pair((module, variables), Right(nnx.Rngs(0)), (x,), """
        params/blocks/RMSNorm_0/scale: l c <-> layers/{l}/norm/scale: c
        params/blocks/gate_up: l s i o <-> layers/{l}/{s=gate|up}/kernel: i o
        params/blocks/Dense_0/kernel: l i o <-> layers/{l}/down/kernel: i o
        params/LayerNorm_0/scale: c <-> final/scale: c
        params/LayerNorm_0/bias: c <-> final/bias: c
    """)  # fmt: skip


def torch_torch() -> Pair:
    """Grouped-query attention and gated units: fused in one, split in the other, everything square."""
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = torch.nn.Linear(8, 16, bias=False)
            self.out = torch.nn.Linear(8, 8, bias=False)
            self.gate_up = torch.nn.Linear(8, 16)
            self.down = torch.nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            n, t, c = x.shape
            q, k, v = self.qkv(x).split([8, 4, 4], -1)
            q = q.reshape(n, t, 4, 2).transpose(1, 2)
            k, v = (y.reshape(n, t, 2, 2).transpose(1, 2).repeat_interleave(2, 1) for y in (k, v))
            y = ((q @ k.mT) / 2**0.5).softmax(-1) @ v
            x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
            gate, up = self.gate_up(x).chunk(2, -1)
            return x + self.down(torch.nn.functional.silu(gate) * up)

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("a_value", "b_up", "c_query", "d_key", "e_gate", "f_out", "g_down"):
                narrow = name in ("a_value", "d_key")
                setattr(self, name, torch.nn.Linear(8, 4 if narrow else 8, bias=name in ("b_up", "e_gate", "g_down")))

        def forward(self, x: Any) -> Any:
            q = self.c_query(x).unflatten(-1, (2, 2, 2))
            k, v = (layer(x).unflatten(-1, (2, 2)) for layer in (self.d_key, self.a_value))
            scores = torch.einsum("btgrd,bsgd->bgrts", q, k) * 2**-0.5
            y = torch.einsum("bgrts,bsgd->btgrd", scores.softmax(-1), v)
            x = x + self.f_out(y.flatten(2))
            return x + self.g_down(self.b_up(x) * torch.nn.functional.silu(self.e_gate(x)))

    return Pair(Left(), Right(), (images(2, 5, 8),), """
        qkv.weight: (q+k+v) i <-> c_query.weight: q i, d_key.weight: k i, a_value.weight: v i
        out.weight: o i <-> f_out.weight: o i
        gate_up.weight: (s o) i <-> {s=e_gate|b_up}.weight: o i
        gate_up.bias: (s o) <-> {s=e_gate|b_up}.bias: o
        down.weight: o i <-> g_down.weight: o i
        down.bias: c <-> g_down.bias: c
    """)  # fmt: skip


PAIRS: dict[str, Callable[[], Pair]] = {
    f.__name__: f for f in (torch_linen, torch_nnx, torch_paddle, linen_nnx, torch_torch)
}
