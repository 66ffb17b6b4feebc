"""Pairs of attention: projections fused or split in any order, heads as axes or flat, grouped, relative, tied."""

from __future__ import annotations

from typing import Any

import numpy as np

from .pairs import Pair, images


def _attend(q: Any, k: Any, v: Any, bias: Any = 0) -> Any:
    """Attention of torch tensors (n, h, t, d)."""
    return ((q @ k.mT) * q.shape[-1] ** -0.5 + bias).softmax(-1) @ v


def _torch_attention(order: str, heads: int = 2, width: int = 8, bias: bool = True) -> Any:
    """A torch module with one projection whose outputs come in this order of s (three), h (heads) and d."""
    import torch

    class Fused(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(width, 3 * width, bias=bias), torch.nn.Linear(width, width)

        def forward(self, x: Any) -> Any:
            n, t, c = x.shape
            lengths = {"s": 3, "h": heads, "d": width // heads}
            y = self.qkv(x).reshape(n, t, *(lengths[axis] for axis in order))
            q, k, v = y.permute(2 + order.index("s"), 0, 2 + order.index("h"), 1, 2 + order.index("d"))
            return x + self.out(_attend(q, k, v).transpose(1, 2).reshape(n, t, c))

    return Fused()


def _split_attention(heads: int = 2, width: int = 8, key_bias: bool = True) -> Any:
    """The same with three projections, defined in another order than they run."""
    import torch

    class Split(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Linear(width, width)
            self.value, self.query = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
            self.key = torch.nn.Linear(width, width, bias=key_bias)

        def forward(self, x: Any) -> Any:
            split = [f(x).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value)]
            return x + self.proj(_attend(*split).transpose(1, 2).flatten(2))

    return Split()


def torch_torch_fused_by_head() -> Pair:
    """Query, key and value of each head together in one projection, against three."""
    return Pair(_torch_attention("hsd"), _split_attention(), (images(2, 5, 8),), """
        qkv.weight: (h s d) i <-> {s=query|key|value}.weight: (h d) i
        qkv.bias: (h s d) <-> {s=query|key|value}.bias: (h d)
        out.weight: o i <-> proj.weight: o i
        out.bias: o <-> proj.bias: o
    """, {"h": 2})  # fmt: skip


def torch_torch_fused_by_width() -> Pair:
    """Two fused projections, one with heads in front, one with the width of a head in front."""
    return Pair(_torch_attention("shd"), _torch_attention("dsh"), (images(2, 5, 8),), """
        qkv.weight: (s h d) i <-> qkv.weight: (d s h) i
        qkv.bias: (s h d) <-> qkv.bias: (d s h)
        out.weight: o i <-> out.weight: o i
        out.bias: o <-> out.bias: o
    """, {"h": 2, "s": 3})  # fmt: skip


def torch_torch_no_key_bias() -> Pair:
    """A key's bias, on which nothing depends, on the left only."""
    left, right = _split_attention(), _split_attention(key_bias=False)
    return Pair(left, right, (images(2, 5, 8),), """
        {s=proj|value|query|key}.weight: o i <-> {s=proj|value|query|key}.weight: o i
        {s=proj|value|query}.bias: o <-> {s=proj|value|query}.bias: o
        key.bias -> drop
    """)  # fmt: skip


def torch_jax_heads() -> Pair:
    """A torch module against a function of a tree with an axis for heads, and all projections in one array."""
    import jax
    import jax.numpy as jnp

    def right(p: Any, x: Any) -> Any:
        q, k, v = jnp.einsum("btc,chds->sbhtd", x, p["attention"]["kernel"]) + p["attention"]["bias"][:, None, :, None]
        y = jax.nn.softmax(jnp.einsum("bhtd,bhsd->bhts", q, k) / 2, -1)
        return x + jnp.einsum("bhts,bhsd,hdo->bto", y, v, p["out"][0]) + p["out"][1]

    tree = {
        "attention": {"kernel": jnp.zeros((8, 2, 4, 3)), "bias": jnp.zeros((3, 2, 4))},
        "out": [jnp.zeros((2, 4, 8)), jnp.zeros(8)],
    }
    return Pair(_torch_attention("shd"), (right, tree), (images(2, 5, 8),), """
        qkv.weight: (s h d) i <-> attention/kernel: i h d s
        qkv.bias: (s h d) <-> attention/bias: s h d
        out.weight: o (h d) <-> out/0: h d o
        out.bias: o <-> out/1: o
    """)  # fmt: skip


def torch_torch_grouped() -> Pair:
    """Grouped queries with a key and a value: queries, then keys, then values; against three."""
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(8, 16, bias=False), torch.nn.Linear(8, 8, bias=False)

        def forward(self, x: Any) -> Any:
            n, t, c = x.shape
            q, k, v = self.qkv(x).reshape(n, t, 2, 4, 2).split([2, 1, 1], 3)  # two groups of two queries
            q, k, v = (y.permute(0, 2, 3, 1, 4) for y in (q, k, v))
            return x + self.out(_attend(q, k, v).permute(0, 3, 1, 2, 4).reshape(n, t, c))

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, width in (("q", 8), ("k", 4), ("v", 4), ("o", 8)):
                setattr(self, f"{name}_proj", torch.nn.Linear(8, width, bias=False))

        def forward(self, x: Any) -> Any:
            n, t, c = x.shape
            q = self.q_proj(x).reshape(n, t, 4, 2).transpose(1, 2)
            k, v = (
                f(x).reshape(n, t, 2, 2).transpose(1, 2).repeat_interleave(2, 1) for f in (self.k_proj, self.v_proj)
            )
            return x + self.o_proj(_attend(q, k, v).transpose(1, 2).reshape(n, t, c))

    return Pair(Left(), Right(), (images(2, 5, 8),), """
        qkv.weight: (g r+1+1 d) i <-> q_proj.weight: (g r d) i, k_proj.weight: (g d) i, v_proj.weight: (g d) i
        out.weight: o i <-> o_proj.weight: o i
    """, {"g": 2, "d": 2})  # fmt: skip


def torch_torch_relative() -> Pair:
    """A table of relative positions, indexed by a buffer on one side and flattened in another order on the other."""
    import torch

    places = (torch.arange(5)[:, None] - torch.arange(5)[None]) + 4

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.table = _torch_attention("shd"), torch.nn.Parameter(torch.randn(9, 2))
            self.register_buffer("places", places)

        def forward(self, x: Any) -> Any:
            n, t, c = x.shape
            q, k, v = self.core.qkv(x).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
            y = _attend(q, k, v, self.table[self.places].permute(2, 0, 1))
            return self.core.out(y.transpose(1, 2).reshape(n, t, c))

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.bias = _split_attention(), torch.nn.Parameter(torch.randn(2, 9))

        def forward(self, x: Any) -> Any:
            core = self.core
            split = [f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (core.query, core.key, core.value)]
            return core.proj(_attend(*split, self.bias.flip(1)[:, 8 - places]).transpose(1, 2).flatten(2))

    return Pair(Left(), Right(), (images(2, 5, 8),), """
        core.qkv.weight: (s h d) i <-> core.{s=query|key|value}.weight: (h d) i
        core.qkv.bias: (s h d) <-> core.{s=query|key|value}.bias: (h d)
        core.out.weight: o i <-> core.proj.weight: o i
        core.out.bias: o <-> core.proj.bias: o
        table: p h <-> bias: h p
        places -> drop
    """, {"h": 2})  # fmt: skip


def torch_paddle_shared_layers() -> Pair:
    """One layer that runs three times (as in ALBERT), and an embedding that is the head's kernel too."""
    import paddle
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.up = torch.nn.Embedding(11, 4), torch.nn.Linear(4, 6)
            self.layer, self.norm = torch.nn.Linear(6, 6), torch.nn.LayerNorm(6)
            self.down, self.head = torch.nn.Linear(6, 4), torch.nn.Linear(4, 11)
            self.head.weight = self.words.weight

        def forward(self, tokens: Any) -> Any:
            x = self.up(self.words(tokens))
            for _ in range(3):
                x = self.norm(x + torch.tanh(self.layer(x)))
            return self.head(self.down(x))

    class Right(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.narrow = paddle.nn.Embedding(11, 4), paddle.nn.Linear(6, 4)
            self.wide, self.bias = paddle.nn.Linear(4, 6), self.create_parameter([11], is_bias=True)
            self.shared, self.ln = paddle.nn.Linear(6, 6), paddle.nn.LayerNorm(6)

        def forward(self, tokens: Any) -> Any:
            x = self.wide(self.embed(tokens))
            for _ in range(3):
                x = self.ln(x + paddle.tanh(self.shared(x)))
            return paddle.matmul(self.narrow(x), self.embed.weight, transpose_y=True) + self.bias

    tokens = np.array([[1, 5, 2, 8, 0, 3], [4, 10, 9, 6, 7, 6]])
    return Pair(Left(), Right(), (tokens,), """
        words.weight: v c = head.weight: v c <-> embed.weight: v c
        {s=up|layer|down}.weight: o i <-> {s=wide|shared|narrow}.weight: i o
        {s=up|layer|down}.bias: o <-> {s=wide|shared|narrow}.bias: o
        norm.{s=weight|bias}: c <-> ln.{s=weight|bias}: c
        head.bias: v <-> bias: v
    """)  # fmt: skip


def torch_torch_encoder_decoder() -> Pair:
    """An encoder and a decoder that reads it; keyword arguments; defined in another order and nested otherwise."""
    import torch

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (torch.nn.Linear(6, 6, bias=False) for _ in range(3))

        def forward(self, x: Any, y: Any) -> Any:
            return x + _attend(self.q(x), self.k(y), self.v(y))

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.encoder, self.own, self.cross = torch.nn.Embedding(9, 6), *(Attention() for _ in range(3))
            self.head = torch.nn.Linear(6, 9)

        def forward(self, source: Any, target: Any) -> Any:
            x, y = self.shared(source), self.shared(target)
            x = self.encoder(x, x)
            return self.head(self.cross(self.own(y, y), x))

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cross, self.own = Attention(), Attention()
            self.lm_head = torch.nn.Linear(6, 9)

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.encoder = Decoder(), Attention()
            self.embed = torch.nn.Embedding(9, 6)

        def forward(self, source: Any, target: Any) -> Any:
            y = self.embed(target)
            y = self.decoder.own(y, y)
            x = self.embed(source)
            return self.decoder.lm_head(self.decoder.cross(y, self.encoder(x, x)))

    tokens = np.array([[1, 5, 2, 8, 0], [4, 3, 6, 7, 6]])
    return Pair(Left(), Right(), (tokens, tokens[:, ::-1].copy()), """
        shared.weight: v c <-> embed.weight: v c
        encoder.{s=q|k|v}.weight: o i <-> encoder.{s=q|k|v}.weight: o i
        {t=own|cross}.{s=q|k|v}.weight: o i <-> decoder.{t=own|cross}.{s=q|k|v}.weight: o i
        head.weight: o i <-> decoder.lm_head.weight: o i
        head.bias: o <-> decoder.lm_head.bias: o
    """)  # fmt: skip


PAIRS = {
    f.__name__: f
    for f in (
        torch_torch_fused_by_head, torch_torch_fused_by_width, torch_torch_no_key_bias, torch_jax_heads,
        torch_torch_grouped, torch_torch_relative, torch_paddle_shared_layers, torch_torch_encoder_decoder,
    )
}  # fmt: skip
