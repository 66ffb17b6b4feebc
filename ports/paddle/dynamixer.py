"""DynaMixer in PaddlePaddle. Images are (b c h w), tokens (b h w c)."""

import paddle
import paddle.nn.functional as F
from einops import rearrange
from paddle import Tensor, nn

from specs.dynamixer import Config, StageConfig

from .layers import DropPath

# How tokens of a line are gathered, and mixed: h and w place the line, i and o are its inputs and outputs.
ROWS = "b h w (s d) -> b h s (w d)", "bhsoi, bhisk -> bhosk"
COLUMNS = "b h w (s d) -> b w s (h d)", "bwsoi, biwsk -> bowsk"


class DynaMixerOp(nn.Layer):
    """Mixes the tokens of each line by matrices that the line generates, one for each segment of the channels.

    A line is a row or a column. All lines of all images are one batched product.
    """

    def __init__(self, stage: StageConfig, length: int, gather: str, mix: str):
        super().__init__()
        self.segments, self.length, self.gather, self.mix = stage.segments, length, gather, mix
        self.compress = nn.Linear(stage.width, stage.segments * stage.reduced)
        self.generate = nn.Linear(length * stage.reduced, length**2)
        self.out = nn.Linear(stage.width, stage.width)

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h w c)
        y = rearrange(self.compress(x), self.gather, s=self.segments)
        weights = rearrange(self.generate(y), "b n s (i o) -> b n s o i", i=self.length)
        weights = F.softmax(weights)  # each output's weights over its inputs; paddle is slow over any axis but the last
        y = paddle.einsum(self.mix, weights, rearrange(x, "b h w (s k) -> b h w s k", s=self.segments))
        return self.out(rearrange(y, "b h w s k -> b h w (s k)"))


class DynaMixing(nn.Layer):
    """Columns, rows and channels mixed side by side, then weighed against each other, channel by channel."""

    def __init__(self, stage: StageConfig):
        super().__init__()
        rows, columns = stage.grid
        self.columns = DynaMixerOp(stage, rows, *COLUMNS)  # a column is as long as there are rows
        self.rows = DynaMixerOp(stage, columns, *ROWS)
        self.channels = nn.Linear(stage.width, stage.width, bias_attr=None if stage.qkv_bias else False)
        self.reweight = Mlp(stage.width, stage.width // 4, 3 * stage.width)
        self.proj = nn.Linear(stage.width, stage.width)

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h w c)
        h = self.columns(x)
        w = self.rows(x)
        c = self.channels(x)
        weights = self.reweight((h + w + c).mean((1, 2)))
        weights = F.softmax(rearrange(weights, "b (c k) -> k b 1 1 c", k=3), axis=0)
        weights = weights.expand([3, *x.shape])  # paddle's products of unlike shapes are four times as slow
        return self.proj(weights[0] * h + weights[1] * w + weights[2] * c)


class Mlp(nn.Layer):
    def __init__(self, width: int, hidden: int, out: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:  # (... i) -> (... o)
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Layer):
    def __init__(self, stage: StageConfig, drop_path: float, norm_eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(stage.width, epsilon=norm_eps)
        self.mix = DynaMixing(stage)
        self.norm2 = nn.LayerNorm(stage.width, epsilon=norm_eps)
        self.mlp = Mlp(stage.width, stage.hidden, stage.width)
        self.drop_path = DropPath(drop_path)
        self.skip_lam = stage.skip_lam

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h w c)
        x = x + self.drop_path(self.mix(self.norm1(x))) / self.skip_lam
        return x + self.drop_path(self.mlp(self.norm2(x))) / self.skip_lam


class Stage(nn.Layer):
    """Blocks of one width on one grid, then a convolution to the next stage's, where that differs."""

    def __init__(self, stage: StageConfig, norm_eps: float):
        super().__init__()
        self.blocks = nn.Sequential(*(Block(stage, rate, norm_eps) for rate in stage.drop_paths))
        self.downsample = None
        if stage.downsample:
            width, window = stage.downsample
            self.downsample = nn.Conv2D(stage.width, width, *window)

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h' w' c')
        x = self.blocks(x)
        if self.downsample is None:
            return x
        return tokens(self.downsample(rearrange(x, "b h w c -> b c h w")))


class DynaMixer(nn.Layer):
    """images (b c h w) -> logits (b classes), or pooled features (b width) with 0 classes."""

    def __init__(self, c: Config):
        super().__init__()
        kernel, stride, padding = zip(*c.stem, strict=True)
        self.stem = nn.Conv2D(c.channels, c.widths[0], kernel, stride, padding)
        self.stages = nn.Sequential(*(Stage(stage, c.norm_eps) for stage in c.stages))
        self.norm = nn.LayerNorm(c.widths[-1], epsilon=c.norm_eps)
        self.head = nn.Linear(c.widths[-1], c.classes) if c.classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.stages(tokens(self.stem(images)))
        return self.head(self.norm(x).mean((1, 2)))


def tokens(x: Tensor) -> Tensor:  # (b c h w) -> (b h w c)
    return rearrange(x, "b c h w -> b h w c")
