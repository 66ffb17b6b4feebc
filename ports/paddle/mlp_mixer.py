"""MLP-Mixer in PaddlePaddle. Images are (b c h w), tokens (b t c)."""

import paddle
from paddle import Tensor, nn

from specs.config import pair
from specs.mlp_mixer import Config, check_images

from .layers import DropPath, LinearOverRows, gelu


class Mlp(nn.Layer):
    """Two linear layers over the channels, or over the tokens by LinearOverRows, which transposes nothing."""

    def __init__(self, width: int, hidden: int, c: Config, linear: type[nn.Linear] = nn.Linear):
        super().__init__()
        self.fc1 = linear(width, hidden)
        self.act = gelu(c.gelu)
        self.fc2 = linear(hidden, width)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (b t c) -> (b t c)
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Block(nn.Layer):
    def __init__(self, c: Config):
        super().__init__()
        self.norm1 = nn.LayerNorm(c.width, epsilon=c.norm_eps)
        self.token_mix = Mlp(c.token_count, c.token_hidden, c, LinearOverRows)
        self.norm2 = nn.LayerNorm(c.width, epsilon=c.norm_eps)
        self.channel_mix = Mlp(c.width, c.channel_hidden, c)
        self.drop_path = DropPath(c.drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (b t c) -> (b t c)
        x = x + self.drop_path(self.token_mix(self.norm1(x)))
        return x + self.drop_path(self.channel_mix(self.norm2(x)))


class MlpMixer(nn.Layer):
    """images (b c h w) -> logits (b classes), or pooled features (b width) with 0 classes."""

    def __init__(self, c: Config):
        super().__init__()
        self.config = c
        self.stem = nn.Conv2D(c.channels, c.width, pair(c.patch), pair(c.patch), padding=c.padding)
        self.blocks = nn.Sequential(*(Block(c) for _ in range(c.depth)))
        self.norm = nn.LayerNorm(c.width, epsilon=c.norm_eps)
        self.head = nn.Linear(c.width, c.classes) if c.classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        check_images(self.config, *images.shape[2:])
        x = self.stem(images).flatten(2).mT  # (b c h w) -> (b (h w) c)
        x = paddle.mean(self.norm(self.blocks(x)), axis=1)
        return self.head(x)
