"""Mobile-Former in flax linen. Images are (b h w c), tokens (b m d)."""

from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from specs.mobile_former import EPS, MOMENTUM, Config

from .depthwise import depthwise_conv
from .layers import DropPath, HeadDense, pointwise_conv

LayerNorm = partial(nn.LayerNorm, epsilon=EPS, use_fast_variance=False)
DepthwiseConv = partial(nn.Conv, conv_general_dilated=depthwise_conv)
PointwiseConv = partial(nn.Conv, kernel_size=(1, 1), conv_general_dilated=pointwise_conv)
BatchNorm = partial(nn.BatchNorm, epsilon=EPS, momentum=MOMENTUM, use_fast_variance=False)


class ConvNormAct(nn.Module):
    """A convolution, its BatchNorm and an activation: the stem, downsampling, the last 1x1 convolution."""

    conv: Any  # the convolution, but for its name
    act: Any

    @nn.compact
    def __call__(self, x, train=False):  # (b h w i) -> (b h' w' o)
        return self.act(BatchNorm(not train, name="norm")(self.conv(name="conv")(x)))


class Lite(nn.Module):
    """A bottleneck whose depthwise convolution is 3x1, then 1x3; it has no activation."""

    config: Config

    @nn.compact
    def __call__(self, f, train=False):  # (b h w i) -> (b h' w' o)
        c = self.config
        width, s = c.lite_hidden, c.lite_stride
        f = PointwiseConv(width, feature_group_count=c.groups, name="expand")(f)
        f = BatchNorm(not train, name="norm1")(f)
        f = DepthwiseConv(width, (3, 1), (s, 1), ((1, 1), (0, 0)), feature_group_count=width, name="vertical")(f)
        f = BatchNorm(not train, name="norm2")(f)
        f = DepthwiseConv(width, (1, 3), (1, s), ((0, 0), (1, 1)), feature_group_count=width, name="horizontal")(f)
        f = BatchNorm(not train, name="norm3")(f)
        f = PointwiseConv(c.lite_out, feature_group_count=c.groups, name="project")(f)
        return BatchNorm(not train, name="norm4")(f)


class ToFormer(nn.Module):
    """Tokens attend to the image, whose channels are keys and values as they are."""

    config: Config

    @nn.compact
    def __call__(self, t, f, train=False):  # (b m d), (b h w c) -> (b m d)
        c, channels = self.config, f.shape[-1]
        e = channels // c.heads
        q = HeadDense(c.heads, channels, name="query")(LayerNorm(name="norm")(t)) * e**-0.5  # (b heads m e)
        f = f.reshape(len(f), -1, c.heads, e)  # (b hw heads e)
        weights = nn.softmax(jnp.einsum("bnme,bsne->bnms", q, f))
        weights = nn.Dropout(c.attention_dropout, deterministic=not train)(weights)
        x = jnp.einsum("bnms,bsne->bmne", weights, f).reshape(*t.shape[:2], channels)
        x = nn.Dropout(c.dropout, deterministic=not train)(nn.Dense(c.token_width, name="output")(x))
        return t + DropPath(c.drop_path, deterministic=not train)(x)


class Attention(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, t, train=False):  # (b m d) -> (b m d)
        c = self.config
        drop = nn.Dropout(c.attention_dropout, deterministic=not train)
        qkv = nn.Dense(3 * c.token_width, name="qkv")(t).reshape(*t.shape[:2], 3, c.heads, -1)
        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))  # each (b heads m e)
        weights = drop(nn.softmax(q * q.shape[-1] ** -0.5 @ k.mT))  # (b heads m m)
        return drop(nn.Dense(c.token_width, name="output")((weights @ v).swapaxes(1, 2).reshape(t.shape)))


class Mlp(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, t, train=False):  # (b m d) -> (b m d)
        c = self.config
        drop = nn.Dropout(c.mlp_dropout, deterministic=not train)
        y = drop(nn.gelu(nn.Dense(c.mlp_hidden, name="fc1")(t), approximate=False))
        return drop(nn.Dense(c.token_width, name="fc2")(y))


class Former(nn.Module):
    """A transformer block over the tokens."""

    config: Config

    @nn.compact
    def __call__(self, t, train=False):  # (b m d) -> (b m d)
        c = self.config
        drop_path = DropPath(c.drop_path, deterministic=not train)
        t = t + drop_path(Attention(c, name="attention")(LayerNorm(name="norm1")(t), train))
        return t + drop_path(Mlp(c, name="mlp")(LayerNorm(name="norm2")(t), train))


class Hyper(nn.Module):
    """DyReLU's hyper function: the first token gives slopes a_1..a_k and offsets b_1..b_k of each channel."""

    channels: int
    config: Config

    @nn.compact
    def __call__(self, t):  # (b d) -> (b c 2k)
        c = self.config
        coefs, consts = c.dyrelu
        y = nn.gelu(nn.Dense(c.dyrelu_hidden, name="fc1")(t), approximate=False)
        theta = LayerNorm(name="norm")(nn.Dense(len(coefs) * self.channels, name="fc2")(y))
        theta = theta.reshape(len(t), -1, len(coefs))
        return theta * jnp.array(coefs, t.dtype) + jnp.array(consts, t.dtype)


class DyReLU(nn.Module):
    """Dynamic ReLU: the largest of k linear pieces a_i x + b_i, where a and b belong to the channel and the image."""

    @nn.compact
    def __call__(self, x, theta):  # (b h w c), (b c 2k) -> (b h w c)
        if theta is None:
            return x
        a, b = jnp.split(jnp.moveaxis(theta, 2, 0)[:, :, None, None], 2)  # (k b 1 1 c)
        pieces = [a_i * x + b_i for a_i, b_i in zip(a, b, strict=True)]
        return reduce(jnp.maximum, pieces)


class Mobile(nn.Module):
    """A bottleneck, after downsampling where its stride is 2. The first token shapes its activation, used twice."""

    hidden: int
    out: int
    stride: int
    config: Config

    @nn.compact
    def __call__(self, f, t, train=False):  # (b h w i), (b m d) -> (b h' w' o)
        c, act = self.config, DyReLU(name="act")
        if self.stride == 2:
            conv = partial(DepthwiseConv, f.shape[-1], (3, 3), 2, padding=1, feature_group_count=f.shape[-1])
            f = ConvNormAct(conv, nn.relu, name="down")(f, train)
        theta = Hyper(self.hidden, c, name="hyper")(t[:, 0]) if c.dyrelu_k else None
        f = PointwiseConv(self.hidden, feature_group_count=c.groups, name="expand")(f)
        f = act(BatchNorm(not train, name="norm1")(f), theta)
        f = DepthwiseConv(self.hidden, (3, 3), padding=1, feature_group_count=self.hidden, name="depthwise")(f)
        f = act(BatchNorm(not train, name="norm2")(f), theta)
        f = PointwiseConv(self.out, feature_group_count=c.groups, name="project")(f)
        return BatchNorm(not train, name="norm3")(f)


class ToMobile(nn.Module):
    """The image attends to the tokens, with its channels as queries as they are."""

    config: Config

    @nn.compact
    def __call__(self, f, t, train=False):  # (b h w c), (b m d) -> (b h w c)
        c, channels = self.config, f.shape[-1]
        e = channels // c.heads
        t = LayerNorm(name="norm")(t)
        k = HeadDense(c.heads, channels, name="key")(t) * e**-0.5  # (b heads m e)
        v = HeadDense(c.heads, channels, name="value")(t)
        q = f.reshape(len(f), -1, c.heads, e)  # (b hw heads e)
        weights = nn.softmax(jnp.einsum("bnme,bsne->bnms", k, q), axis=2)
        weights = nn.Dropout(c.attention_dropout, deterministic=not train)(weights)
        x = jnp.einsum("bnms,bnme->bsne", weights, v).reshape(f.shape)
        x = nn.Dropout(c.dropout, deterministic=not train)(x)
        return f + DropPath(c.drop_path, deterministic=not train)(x)


class Block(nn.Module):
    hidden: int
    out: int
    stride: int
    config: Config

    @nn.compact
    def __call__(self, f, t, train=False):  # (b h w i), (b m d) -> (b h' w' o), (b m d)
        c = self.config
        t = ToFormer(c, name="to_former")(t, f, train)
        t = Former(c, name="former")(t, train)
        f = Mobile(self.hidden, self.out, self.stride, c, name="mobile")(f, t, train)
        return ToMobile(c, name="to_mobile")(f, t, train), t


class Head(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x, train=False):  # (b i) -> (b classes)
        c = self.config
        x = nn.hard_swish(nn.Dense(c.head_hidden, name="fc1")(x))
        x = nn.Dropout(c.dropout, deterministic=not train)(x)
        x = nn.Dense(c.classes, name="fc2")(x) if c.classes else x
        return nn.softmax(x) if c.softmax and c.classes and not train else x


class MobileFormer(nn.Module):
    """images (b h w c) -> (b classes): probabilities, or logits in training and with softmax=False."""

    config: Config

    @nn.compact
    def __call__(self, images, train=False):
        c = self.config
        tokens = self.param("tokens", nn.initializers.xavier_uniform(), (c.tokens, c.token_width))
        conv = partial(nn.Conv, c.stem, (3, 3), c.stem_stride, padding=1)
        f = ConvNormAct(conv, nn.hard_swish, name="stem")(images, train)
        f = Lite(c, name="lite")(f, train)
        t = jnp.broadcast_to(tokens, (len(images), *tokens.shape))
        for i, block in enumerate(c.blocks):
            f, t = Block(*block, c, name=f"blocks_{i}")(f, t, train)
        t = ToFormer(c, name="to_former")(t, f, train)
        conv = partial(PointwiseConv, c.last, feature_group_count=c.groups)
        f = ConvNormAct(conv, nn.relu, name="last")(f, train)
        return Head(c, name="head")(jnp.concatenate([f.mean((1, 2)), t[:, 0]], -1), train)
