"""RaftMLP in PaddlePaddle. Images are (b c h w), maps of tokens (b h w c), their channels g groups of o: c = (g o)."""

import paddle.nn.functional as F
from einops import rearrange
from paddle import Tensor, nn

from specs.raft_mlp import Config, LevelConfig

from .layers import DropPath, LinearOverRows, rearrange_rows, resize

# How each token mixing sees a map: what it mixes, and what rides along.
RAFTS = {"vertical": "b (g h) (w o)", "horizontal": "b (g w) (h o)", "token_mix": "b (g h w) (1 o)"}


class MultiScalePatchEmbedding(nn.Linear):
    """Embeds each patch from windows of several sizes around it, by one dense layer over all their pixels.

    That is a convolution: all windows move alike and lie within the largest, so its kernel is the sum of the dense
    layer's slices, each padded to the largest. Nothing is unfolded.
    """

    def __init__(self, level: LevelConfig):
        super().__init__(level.features, level.width)
        self.level = level

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h/s w/s o)
        kernel = sum(
            F.pad(rearrange(self.weight[features], "(c h w) o -> o c h w", h=k, w=k), [margin] * 4)
            for features, k, margin in self.level.windows
        )
        x = rearrange(x, "b h w c -> b c h w")
        x = F.conv2d(x, kernel, self.bias, stride=self.level.patch, padding=self.level.padding)
        return rearrange(x, "b o h w -> b h w o")


class TokenMixing(nn.Layer):
    """Mixes the tokens of each column (vertical) or row (horizontal) over a raft of g groups of channels at a time.

    As "token_mix" it mixes all tokens of a map; g is 1.
    """

    def __init__(self, name: str, level: LevelConfig, c: Config):
        super().__init__()
        self.rafts, self.axes, length = RAFTS[name], level.axes, level.mixings[name]
        self.norm = nn.LayerNorm(level.width, epsilon=c.norm_eps)
        self.fc1 = LinearOverRows(level.groups * length, c.token_expansion * level.groups * length)
        self.act = nn.GELU()
        self.fc2 = LinearOverRows(c.token_expansion * level.groups * length, level.groups * length)
        self.drop = nn.Dropout(c.dropout)
        self.drop_path = DropPath(c.drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h w c)
        y = rearrange_rows(self.norm(x), f"b h w (g o) -> {self.rafts}", **self.axes)
        y = self.drop(self.fc2(self.drop(self.act(self.fc1(y)))))
        return x + self.drop_path(rearrange_rows(y, f"{self.rafts} -> b h w (g o)", **self.axes))


class ChannelMixing(nn.Layer):
    def __init__(self, level: LevelConfig, c: Config):
        super().__init__()
        self.norm = nn.LayerNorm(level.width, epsilon=c.norm_eps)
        self.fc1 = nn.Linear(level.width, c.channel_expansion * level.width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(c.channel_expansion * level.width, level.width)
        self.drop = nn.Dropout(c.dropout)
        self.drop_path = DropPath(c.drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h w c)
        y = self.drop(self.fc2(self.drop(self.act(self.fc1(self.norm(x))))))
        return x + self.drop_path(y)


class Block(nn.Layer):
    """Raft-token mixing on the grid that it was made for, to which other maps are resized, then channel mixing."""

    def __init__(self, level: LevelConfig, c: Config):
        super().__init__()
        self.grid = level.grid
        self.vertical = TokenMixing("vertical", level, c)
        self.horizontal = TokenMixing("horizontal", level, c)
        self.channel = ChannelMixing(level, c)

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h w c)
        y = self.horizontal(self.vertical(resize(x, self.grid)))
        return self.channel(resize(y, x.shape[1:3]))


class MixerBlock(nn.Layer):
    """Mixing of all tokens on the grid that it was made for, to which other maps are resized, then channel mixing."""

    def __init__(self, level: LevelConfig, c: Config):
        super().__init__()
        self.grid = level.grid
        self.token_mix = TokenMixing("token_mix", level, c)
        self.channel_mix = ChannelMixing(level, c)

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h w c)
        y = self.token_mix(resize(x, self.grid))
        return self.channel_mix(resize(y, x.shape[1:3]))


class Level(nn.Layer):
    """Patches of the map below, embedded, then blocks. Ragged edges are resized away."""

    def __init__(self, level: LevelConfig, c: Config):
        super().__init__()
        self.level = level
        if level.kernels:
            self.multi_scale_embed = MultiScalePatchEmbedding(level)
        else:
            self.patch_embed = nn.Linear(level.features, level.width)
        block = Block if level.raft else MixerBlock
        self.blocks = nn.Sequential(*(block(level, c) for _ in range(level.depth)))

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b h/p w/p o)
        level = self.level
        x = resize(x, level.whole_patches(*x.shape[1:3]))
        if level.kernels:
            x = self.multi_scale_embed(x)
        else:
            x = self.patch_embed(rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=level.patch, q=level.patch))
        return self.blocks(x)


class Head(nn.Layer):
    """A level's map, pooled; for a shortcut, as scale and shift of what the level above it pools."""

    def __init__(self, width: int, shortcut: int, c: Config):
        super().__init__()
        self.norm = nn.LayerNorm(width, epsilon=c.norm_eps)
        self.fc = nn.Linear(width, shortcut) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:  # (b h w c) -> (b c), or (b shortcut)
        x = self.norm(x).mean([1, 2])
        return self.fc(x) if self.fc is not None else x


class RaftMlp(nn.Layer):
    """images (b c h w) -> logits (b classes), or pooled features (b width) with 0 classes."""

    def __init__(self, c: Config):
        super().__init__()
        *below, last = c.widths
        self.levels = nn.LayerList([Level(level, c) for level in c.levels])
        heads = [Head(width, 2 * last, c) for width in below] if c.shortcut else []
        self.heads = nn.LayerList([*heads, Head(last, 0, c)])
        self.classifier = nn.Linear(last, c.classes) if c.classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        maps = [rearrange(images, "b c h w -> b h w c")]
        for level in self.levels:
            maps.append(level(maps[-1]))
        *shortcuts, x = [head(x) for head, x in zip(self.heads, maps[-len(self.heads) :])]  # noqa: B905 (paddle.jit fails)
        for scale_and_shift in reversed(shortcuts):
            scale, shift = scale_and_shift.chunk(2, axis=1)
            x = scale * x + shift
        return self.classifier(x)
