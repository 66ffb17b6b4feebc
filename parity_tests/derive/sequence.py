"""Pairs of recurrent, position and token models, in one framework or two, and of stacked layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .pairs import Pair, images, initial

TOKENS = np.array([[1, 5, 2, 8, 0, 3], [4, 10, 9, 6, 7, 6]])


def torch_paddle_lstm() -> Pair:
    """Two biases that only act as a sum, on both sides; two layers."""
    import paddle
    import torch

    import parity

    call = parity.Call(images(3, 4, 5), output=lambda out: out[0])
    left, right = torch.nn.LSTM(5, 4, 2, batch_first=True), paddle.nn.LSTM(5, 4, 2)
    return Pair(left, right, call, """
        weight_{t=ih|hh}_l{i}: o c <-> {i}.cell.weight_{t=ih|hh}: o c = weight_{t=ih|hh}_l{i}: o c
        bias_{t=ih|hh}_l{i}: o <-> {i}.cell.bias_{t=ih|hh}: o = bias_{t=ih|hh}_l{i}: o
    """, right_inputs=call)  # fmt: skip


def torch_torch_offset_positions() -> Pair:
    """Positions that begin in row 2 on one side, and a padding row of the tokens that one side lacks."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self, offset: int) -> None:
            super().__init__()
            self.offset = offset
            self.words, self.positions = torch.nn.Embedding(11, 4), torch.nn.Embedding(6 + offset, 4)
            self.head = torch.nn.Linear(4, 4)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.words(tokens) + self.positions(torch.arange(tokens.shape[1]) + self.offset))

    return Pair(Model(2), Model(0), (TOKENS,), """
        words.weight: v c <-> words.weight: v c
        positions.weight: p[2:] c <-> positions.weight: p c
        positions.weight: x[:2] c -> drop
        head.weight: o i <-> head.weight: o i
        head.bias: o <-> head.bias: o
    """)  # fmt: skip


def jax_jax_stacked() -> Pair:
    """Layers stacked in one array and run by jax.lax.scan, against a list of them."""
    import jax
    import jax.numpy as jnp

    def left(p: Any, x: Any) -> Any:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w["kernel"] + w["bias"]), None), x, p["layers"])[0]

    def right(p: Any, x: Any) -> Any:
        for layer in p["blocks"]:
            x = jnp.tanh(x @ layer[0] + layer[1])
        return x

    stacked = {"layers": {"kernel": jnp.zeros((3, 4, 4)), "bias": jnp.zeros((3, 4))}}
    listed = {"blocks": [(jnp.zeros((4, 4)), jnp.zeros(4))] * 3}
    return Pair((left, stacked), (right, listed), (images(5, 4),), """
        layers/kernel: l i o <-> blocks/{l}/0: i o
        layers/bias: l o <-> blocks/{l}/1: o
    """)  # fmt: skip


def linen_nnx_nested() -> Pair:
    """Linen's automatic names against nnx's attributes, in another order."""
    import flax.linen as nn
    from flax import nnx

    class Left(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(2):
                x = x + nn.Dense(4)(nn.tanh(nn.Dense(4)(nn.LayerNorm()(x))))
            return x

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.norm = nnx.LayerNorm(4, rngs=rngs)
            self.a_second, self.b_first = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return x + self.a_second(nnx.tanh(self.b_first(self.norm(x))))

    module = Left()
    variables = initial(module, np.zeros((1, 4), np.float32))
    return Pair((module, variables), nnx.Sequential(Block(nnx.Rngs(0)), Block(nnx.Rngs(1))), (images(5, 4),), """
        params/LayerNorm_{i}/{s=scale|bias}: c <-> layers/{i}/norm/{s=scale|bias}: c
        params/Dense_{2*i}/{s=kernel}: a b <-> layers/{i}/a_second/{s=kernel}: a b
        params/Dense_{2*i+1}/{s=kernel}: a b <-> layers/{i}/b_first/{s=kernel}: a b
        params/Dense_{2*i}/bias: a <-> layers/{i}/a_second/bias: a
        params/Dense_{2*i+1}/bias: a <-> layers/{i}/b_first/bias: a
    """)  # fmt: skip


def nnx_paddle_positions() -> Pair:
    """Tokens, learned positions as a raw parameter and a class token."""
    import jax
    import jax.numpy as jnp
    import paddle
    from flax import nnx

    class Left(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.embed = nnx.Embed(11, 4, rngs=rngs)
            self.position = nnx.Param(jax.random.normal(rngs.params(), (7, 4)))
            self.cls = nnx.Param(jax.random.normal(rngs.params(), (4,)))
            self.out = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, tokens: Any) -> Any:
            x = self.embed(tokens)
            x = jnp.concatenate([jnp.broadcast_to(self.cls[...], (len(x), 1, 4)), x], 1)
            return self.out(jnp.tanh(x + self.position[...]))

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.cls, self.pos = self.create_parameter([1, 1, 4]), self.create_parameter([1, 7, 4])
            self.head, self.words = paddle.nn.Linear(4, 4), paddle.nn.Embedding(11, 4)

        def forward(self, tokens: Any) -> Any:
            x = self.words(tokens)
            x = paddle.concat([self.cls.expand([x.shape[0], -1, -1]), x], 1)
            return self.head(paddle.tanh(x + self.pos))

    return Pair(Left(nnx.Rngs(0)), Right(), (TOKENS,), """
        embed/embedding: v c <-> words.weight: v c
        position: p c <-> pos: 1 p c
        cls: c <-> cls: 1 1 c
        out/kernel: i o <-> head.weight: i o
        out/bias: o <-> head.bias: o
    """)  # fmt: skip


def paddle_paddle_other_layers() -> Pair:
    """Within paddle: a dense layer against a convolution of one tap, and a norm by hand."""
    import paddle

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.shift = self.create_parameter([4]), self.create_parameter([4])
            self.conv = paddle.nn.Conv1D(4, 4, 1)

        def forward(self, x: Any) -> Any:
            y = (x - x.mean(-1, keepdim=True)) / paddle.sqrt(x.var(-1, False, True) + 1e-5)
            return self.conv((y * self.gain + self.shift).transpose([0, 2, 1])).transpose([0, 2, 1])

    left = paddle.nn.Sequential(paddle.nn.LayerNorm(4), paddle.nn.Linear(4, 4))
    return Pair(left, Right(), (images(3, 5, 4),), """
        0.weight: c <-> gain: c
        0.bias: c <-> shift: c
        1.weight: i o <-> conv.weight: o i 1
        1.bias: o <-> conv.bias: o
    """)  # fmt: skip


PAIRS = {
    f.__name__: f
    for f in (
        torch_paddle_lstm, torch_torch_offset_positions, jax_jax_stacked,
        linen_nnx_nested, nnx_paddle_positions, paddle_paddle_other_layers,
    )
}  # fmt: skip
