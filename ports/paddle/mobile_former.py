"""Mobile-Former in PaddlePaddle. Images are (b c h w), tokens (b m d)."""

from functools import partial, reduce

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from specs.mobile_former import EPS, MOMENTUM, Config

from .layers import DropPath, HeadLinear, PointwiseConv2D, affine

LayerNorm = partial(nn.LayerNorm, epsilon=EPS)
BatchNorm = partial(nn.BatchNorm2D, epsilon=EPS, momentum=MOMENTUM)


class ConvNormAct(nn.Layer):
    """A convolution, its BatchNorm and an activation: the stem, downsampling, the last 1x1 convolution."""

    def __init__(self, conv: nn.Conv2D, act: nn.Layer):
        super().__init__()
        self.conv = conv
        self.norm = BatchNorm(conv.weight.shape[0])
        self.act = act

    def forward(self, x: Tensor) -> Tensor:  # (b i h w) -> (b o h' w')
        return self.act(self.norm(self.conv(x)))


class Lite(nn.Layer):
    """A bottleneck whose depthwise convolution is 3x1, then 1x3; it has no activation."""

    def __init__(self, c: Config):
        super().__init__()
        width, s = c.lite_hidden, c.lite_stride
        self.expand = PointwiseConv2D(c.stem, width, groups=c.groups)
        self.norm1 = BatchNorm(width)
        self.vertical = nn.Conv2D(width, width, (3, 1), (s, 1), padding=(1, 0), groups=width)
        self.norm2 = BatchNorm(width)
        self.horizontal = nn.Conv2D(width, width, (1, 3), (1, s), padding=(0, 1), groups=width)
        self.norm3 = BatchNorm(width)
        self.project = PointwiseConv2D(width, c.lite_out, groups=c.groups)
        self.norm4 = BatchNorm(c.lite_out)

    def forward(self, f: Tensor) -> Tensor:  # (b i h w) -> (b o h' w')
        f = self.norm1(self.expand(f))
        f = self.norm2(self.vertical(f))
        f = self.norm3(self.horizontal(f))
        return self.norm4(self.project(f))


class ToFormer(nn.Layer):
    """Tokens attend to the image, whose channels are keys and values as they are."""

    def __init__(self, channels: int, c: Config):
        super().__init__()
        self.heads, self.scale = c.heads, (channels // c.heads) ** -0.5
        self.norm = LayerNorm(c.token_width)
        self.query = HeadLinear(c.heads, c.token_width, channels)
        self.output = nn.Linear(channels, c.token_width)
        self.drop_attention = nn.Dropout(c.attention_dropout)
        self.drop = nn.Dropout(c.dropout)
        self.drop_path = DropPath(c.drop_path)

    def forward(self, t: Tensor, f: Tensor) -> Tensor:  # (b m d), (b c h w) -> (b m d)
        q = self.query(self.norm(t)) * self.scale  # (b heads m e)
        f = f.flatten(2).unflatten(1, (self.heads, -1))  # (b heads e hw)
        weights = self.drop_attention(F.softmax(q @ f, -1))  # (b heads m hw)
        x = (weights @ f.mT).transpose([0, 2, 1, 3]).flatten(2)  # (b m c)
        return t + self.drop_path(self.drop(self.output(x)))


class Attention(nn.Layer):
    def __init__(self, c: Config):
        super().__init__()
        self.heads, self.scale = c.heads, (c.token_width // c.heads) ** -0.5
        self.qkv = nn.Linear(c.token_width, 3 * c.token_width)
        self.output = nn.Linear(c.token_width, c.token_width)
        self.drop = nn.Dropout(c.attention_dropout)

    def forward(self, t: Tensor) -> Tensor:  # (b m d) -> (b m d)
        q, k, v = self.qkv(t).unflatten(2, (3, self.heads, -1)).transpose([2, 0, 3, 1, 4])  # each (b heads m e)
        weights = self.drop(F.softmax(q * self.scale @ k.mT, -1))  # (b heads m m)
        return self.drop(self.output((weights @ v).transpose([0, 2, 1, 3]).flatten(2)))


class Mlp(nn.Layer):
    def __init__(self, c: Config):
        super().__init__()
        self.fc1 = nn.Linear(c.token_width, c.mlp_hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(c.mlp_hidden, c.token_width)
        self.drop = nn.Dropout(c.mlp_dropout)

    def forward(self, t: Tensor) -> Tensor:  # (b m d) -> (b m d)
        return self.drop(self.fc2(self.drop(self.act(self.fc1(t)))))


class Former(nn.Layer):
    """A transformer block over the tokens."""

    def __init__(self, c: Config):
        super().__init__()
        self.norm1 = LayerNorm(c.token_width)
        self.attention = Attention(c)
        self.norm2 = LayerNorm(c.token_width)
        self.mlp = Mlp(c)
        self.drop_path = DropPath(c.drop_path)

    def forward(self, t: Tensor) -> Tensor:  # (b m d) -> (b m d)
        t = t + self.drop_path(self.attention(self.norm1(t)))
        return t + self.drop_path(self.mlp(self.norm2(t)))


class Hyper(nn.Layer):
    """DyReLU's hyper function: the first token gives slopes a_1..a_k and offsets b_1..b_k of each channel."""

    def __init__(self, channels: int, c: Config):
        super().__init__()
        self.coefs, self.consts = c.dyrelu
        self.fc1 = nn.Linear(c.token_width, c.dyrelu_hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(c.dyrelu_hidden, 2 * c.dyrelu_k * channels)
        self.norm = LayerNorm(2 * c.dyrelu_k * channels)

    def forward(self, t: Tensor) -> Tensor:  # (b d) -> (b c 2k)
        theta = self.norm(self.fc2(self.act(self.fc1(t)))).unflatten(1, (-1, len(self.coefs)))
        coefs, consts = (paddle.to_tensor(numbers, theta.dtype) for numbers in (self.coefs, self.consts))
        return theta * coefs + consts


class DyReLU(nn.Layer):
    """Dynamic ReLU: the largest of k linear pieces a_i x + b_i, where a and b belong to the channel and the image."""

    def forward(self, x: Tensor, theta: Tensor | None) -> Tensor:  # (b c h w), (b c 2k) -> (b c h w)
        if theta is None:
            return x
        a, b = theta.chunk(2, axis=-1)  # (b c k)
        pieces = [affine(x, a_i, b_i) for a_i, b_i in zip(a.unbind(-1), b.unbind(-1))]  # noqa: B905 (paddle.jit fails)
        return reduce(paddle.maximum, pieces)


class Mobile(nn.Layer):
    """A bottleneck, after downsampling where its stride is 2. The first token shapes its activation, used twice."""

    def __init__(self, channels: int, hidden: int, out: int, stride: int, c: Config):
        super().__init__()
        self.down = None
        if stride == 2:
            self.down = ConvNormAct(nn.Conv2D(channels, channels, 3, 2, padding=1, groups=channels), nn.ReLU())
        self.hyper = Hyper(hidden, c) if c.dyrelu_k else None
        self.expand = PointwiseConv2D(channels, hidden, groups=c.groups)
        self.norm1 = BatchNorm(hidden)
        self.act = DyReLU()
        self.depthwise = nn.Conv2D(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm2 = BatchNorm(hidden)
        self.project = PointwiseConv2D(hidden, out, groups=c.groups)
        self.norm3 = BatchNorm(out)

    def forward(self, f: Tensor, t: Tensor) -> Tensor:  # (b i h w), (b m d) -> (b o h' w')
        f = self.down(f) if self.down is not None else f
        theta = self.hyper(t[:, 0]) if self.hyper is not None else None
        f = self.act(self.norm1(self.expand(f)), theta)
        f = self.act(self.norm2(self.depthwise(f)), theta)
        return self.norm3(self.project(f))


class ToMobile(nn.Layer):
    """The image attends to the tokens, with its channels as queries as they are."""

    def __init__(self, channels: int, c: Config):
        super().__init__()
        self.heads, self.scale = c.heads, (channels // c.heads) ** -0.5
        self.norm = LayerNorm(c.token_width)
        self.key = HeadLinear(c.heads, c.token_width, channels)
        self.value = HeadLinear(c.heads, c.token_width, channels)
        self.drop_attention = nn.Dropout(c.attention_dropout)
        self.drop = nn.Dropout(c.dropout)
        self.drop_path = DropPath(c.drop_path)

    def forward(self, f: Tensor, t: Tensor) -> Tensor:  # (b c h w), (b m d) -> (b c h w)
        t = self.norm(t)
        k, v = self.key(t) * self.scale, self.value(t)  # (b heads m e)
        q = f.flatten(2).unflatten(1, (self.heads, -1))  # (b heads e hw)
        weights = self.drop_attention(F.softmax(k @ q, -2))  # (b heads m hw)
        return f + self.drop_path(self.drop((v.mT @ weights).reshape(f.shape)))


class Block(nn.Layer):
    def __init__(self, channels: int, hidden: int, out: int, stride: int, c: Config):
        super().__init__()
        self.to_former = ToFormer(channels, c)
        self.former = Former(c)
        self.mobile = Mobile(channels, hidden, out, stride, c)
        self.to_mobile = ToMobile(out, c)

    def forward(self, f: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:  # (b i h w), (b m d) -> (b o h' w'), (b m d)
        t = self.former(self.to_former(t, f))
        return self.to_mobile(self.mobile(f, t), t), t


class Head(nn.Layer):
    def __init__(self, c: Config):
        super().__init__()
        self.softmax = c.softmax and c.classes > 0
        self.fc1 = nn.Linear(c.last + c.token_width, c.head_hidden)
        self.act = nn.Hardswish()
        self.drop = nn.Dropout(c.dropout)
        self.fc2 = nn.Linear(c.head_hidden, c.classes) if c.classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (b i) -> (b classes)
        x = self.fc2(self.drop(self.act(self.fc1(x))))
        return F.softmax(x, -1) if self.softmax and not self.training else x


class MobileFormer(nn.Layer):
    """images (b c h w) -> (b classes): probabilities, or logits in training and with softmax=False."""

    def __init__(self, c: Config):
        super().__init__()
        self.tokens = self.create_parameter([c.tokens, c.token_width])
        self.stem = ConvNormAct(nn.Conv2D(c.channels, c.stem, 3, c.stem_stride, padding=1), nn.Hardswish())
        self.lite = Lite(c)
        self.blocks = nn.LayerList(Block(i, *block, c) for i, block in zip(c.inputs, c.blocks, strict=True))
        self.to_former = ToFormer(c.out, c)
        self.last = ConvNormAct(PointwiseConv2D(c.out, c.last, groups=c.groups), nn.ReLU())
        self.head = Head(c)

    def forward(self, images: Tensor) -> Tensor:
        f = self.lite(self.stem(images))
        t = self.tokens.expand([len(images), -1, -1])
        for block in self.blocks:
            f, t = block(f, t)
        t = self.to_former(t, f)
        f = self.last(f)
        return self.head(paddle.concat([f.mean((2, 3)), t[:, 0]], -1))
