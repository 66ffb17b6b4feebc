"""Mobile-Former: a convolutional stream and a few global tokens, bridged both ways in every block.

Sources: arXiv:2108.05895, whose own code was never released; BR-IDL/PaddleViT `image_classification/MobileFormer`, the
network that existing checkpoints hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .config import Size, check_numbers, pair, single
from .layer import Layer, Sizes, array, batch_norm, conv, dense, norm
from .paddlevit_mobile_former import from_yaml
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalised
from .spec import Dialect, Refusal, Spec

EPS = 9.999999747378752e-06  # of every norm: 1e-5, as Paddle keeps it (in float32)
MOMENTUM = 0.8999999761581421  # of running statistics: 0.9 of the old value, likewise


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Mobile-Former.

    `alpha` multiplies all widths but those of tokens and head, once: it is 1 from then on, and
    `replace(config, alpha=...)` multiplies the widths that are multiplied already.
    """

    tokens: int  # how many
    token_width: int
    heads: int
    groups: int  # of every 1x1 convolution
    stem: int  # channels
    lite_hidden: int  # channels inside the lite bottleneck, and after it
    lite_out: int
    lite_stride: int  # 1 or 2
    blocks: tuple[tuple[int, int, int], ...]  # each (channels in its bottleneck, channels after it, stride)
    mlp_hidden: int
    dyrelu_k: int  # linear pieces of DyReLU; 0: no activation in its place
    dyrelu_hidden: int
    dyrelu_coefs: tuple[float, float]  # what DyReLU's slopes and offsets are multiplied by
    dyrelu_consts: tuple[float, float]  # what is added to the first slope, and to all else
    last: int  # channels of the last convolution
    head_hidden: int
    alpha: float = 1.0
    stem_stride: int = 2
    image: Size = 224  # pixels; any size works
    channels: int = 3  # of the image
    classes: int = 1000  # 0: the features that the classifier would see
    softmax: bool = True  # in evaluation, as upstream; False: logits
    dropout: float = 0.0  # after the bridges, and before the classifier
    mlp_dropout: float = 0.0  # after GELU and after the second dense layer
    attention_dropout: float = 0.0  # on attention's weights, and after Former's output layer
    drop_path: float = 0.0  # per sample, on bridges and on both branches of Former

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1e6:
            raise ValueError(f"alpha={self.alpha} must be a positive number")
        alpha, narrow = self.alpha, ("stem", "lite_hidden", "lite_out")
        scaled: dict[str, Any] = {name: int(self.alpha * getattr(self, name)) for name in narrow}
        scaled["blocks"] = tuple((int(self.alpha * h), int(self.alpha * o), s) for h, o, s in self.blocks)
        for name, value in {**scaled, "alpha": 1.0}.items():
            object.__setattr__(self, name, value)
        check_numbers(self, len(self.blocks), "tokens", "heads", "groups", "mlp_hidden", "head_hidden", "stem_stride",
                     "image", "channels")  # fmt: skip
        widths: dict[str, tuple[int, ...]] = {name: (getattr(self, name),) for name in ("token_width", *narrow, "last")}
        widths["blocks"] = tuple(width for *channels, _ in self.blocks for width in channels)
        if small := [f"{name}={getattr(self, name)}" for name, own in widths.items() if min(own) < 1]:
            raise ValueError(f"{', '.join(small)}, with alpha={alpha}: widths are at least 1")
        if self.dyrelu_k < 0 or self.dyrelu_hidden < min(self.dyrelu_k, 1):
            raise ValueError(f"dyrelu_k={self.dyrelu_k}, dyrelu_hidden={self.dyrelu_hidden}: at least 1, or no DyReLU")
        problems = [f"heads={self.heads} does not divide {w}" for w in self._attended if w % self.heads]
        problems += [f"groups={self.groups} does not divide {w}" for w in self._grouped if w % self.groups]
        strides = {"lite_stride": {self.lite_stride}, "blocks": {stride for *_, stride in self.blocks}}
        wrong = [f"{name}={getattr(self, name)}" for name, own in strides.items() if own - {1, 2}]
        problems += [f"{name}: strides are 1 or 2" for name in wrong]
        if problems:
            raise ValueError("; ".join(dict.fromkeys(problems)))

    @property
    def inputs(self) -> tuple[int, ...]:
        """Return the channels that each block takes."""
        return (self.lite_out, *(out for _, out, _ in self.blocks))[:-1]

    @property
    def out(self) -> int:
        """Return the channels after the last block."""
        return self.blocks[-1][1]

    @property
    def dyrelu(self) -> tuple[list[float], list[float]]:
        """Return what scales and shifts DyReLU's k slopes and k offsets, rounded to float32 as upstream does."""
        slope, offset, first, other = map(single, (*self.dyrelu_coefs, *self.dyrelu_consts))
        k = self.dyrelu_k
        return [slope] * k + [offset] * k, [first] + [other] * (2 * k - 1)

    @property
    def _attended(self) -> tuple[int, ...]:
        return self.token_width, *self.inputs, self.out

    @property
    def _grouped(self) -> tuple[int, ...]:
        return self.stem, self.lite_hidden, *self.inputs, *(hidden for hidden, _, _ in self.blocks), self.out, self.last


def _variant(
    *, tokens: tuple[int, int], heads: int, groups: int, lite: tuple[int, int, int, int], reduce: float,
    head: tuple[int, int], rates: tuple[float, float, float], blocks: str,
) -> Config:  # fmt: skip
    """Return a variant.

    Args:
      tokens: number and width. lite: channels of the stem, then inside the bottleneck and after it, and its stride.
      reduce: token_width / dyrelu_hidden. head: channels of the last convolution, then of the first dense layer.
      rates: drop_path, dropout, mlp_dropout. blocks: each hidden>out, with * where it halves the image.
    """
    stem, lite_hidden, lite_out, lite_stride = lite
    drop_path, dropout, mlp_dropout = rates
    widths = [block.rstrip("*").split(">") for block in blocks.split()]
    return Config(
        tokens=tokens[0], token_width=tokens[1], heads=heads, groups=groups, stem=stem, lite_hidden=lite_hidden,
        lite_out=lite_out, lite_stride=lite_stride, mlp_hidden=2 * tokens[1], last=head[0], head_hidden=head[1],
        blocks=tuple((int(h), int(o), 1 + b.endswith("*")) for (h, o), b in zip(widths, blocks.split(), strict=True)),
        dyrelu_k=2, dyrelu_hidden=int(1 / reduce * tokens[1]), dyrelu_coefs=(1.0, 0.5), dyrelu_consts=(1.0, 0.0),
        dropout=dropout, mlp_dropout=mlp_dropout, attention_dropout=0.1, drop_path=drop_path,
    )  # fmt: skip


_26 = "36>12 72>24* 72>24 144>48* 192>48 288>64 384>96* 576>96"
VARIANTS = {
    "26m": _variant(tokens=(3, 128), heads=4, groups=4, lite=(8, 24, 12, 2), reduce=6, head=(576, 1024),
                    rates=(0, 0.1, 0.1), blocks=_26),
    "52m": _variant(tokens=(3, 128), heads=4, groups=1, lite=(8, 24, 12, 1), reduce=4.4, head=(576, 1024),
                    rates=(0, 0.1, 0.1), blocks=_26),
    "96m": _variant(tokens=(4, 128), heads=4, groups=1, lite=(12, 24, 12, 1), reduce=4, head=(768, 1280),
                    rates=(0.1, 0.1, 0.1), blocks="72>16* 96>32* 96>32 192>64* 256>64 384>88 528>128* 768>128"),
    "151m": _variant(tokens=(6, 192), heads=4, groups=1, lite=(12, 24, 12, 1), reduce=5.5, head=(768, 1280),
                     rates=(0.1, 0.2, 0.1),
                     blocks="72>16* 48>16 96>32* 96>32 192>64* 256>64 384>88 528>88 528>128* 768>128 768>128"),
    "214m": _variant(tokens=(6, 192), heads=4, groups=1, lite=(12, 24, 12, 1), reduce=4.65, head=(960, 1600),
                     rates=(0.1, 0.2, 0.2),
                     blocks="72>20* 60>20 120>40* 160>40 240>80* 320>80 480>112 672>112 672>160* 960>160 960>160"),
    "294m": _variant(tokens=(6, 192), heads=8, groups=1, lite=(16, 32, 16, 1), reduce=3.8, head=(1152, 1920),
                     rates=(0.2, 0.2, 0.2),
                     blocks="96>24* 96>24 144>48* 192>48 288>96* 384>96 576>128 768>128 768>192* 1152>192 1152>192"),
    "508m": _variant(tokens=(6, 192), heads=8, groups=1, lite=(24, 48, 24, 1), reduce=3.25, head=(1440, 1920),
                     rates=(0.3, 0.3, 0.3),
                     blocks="144>40* 120>40 240>72* 216>72 432>128* 512>128 768>176 1056>176 1056>240* 1440>240 "
                            "1440>240"),
}  # fmt: skip

_SMALL = Config(
    tokens=3, token_width=10, heads=2, groups=1, stem=6, lite_hidden=7, lite_out=4, lite_stride=2,
    blocks=((11, 6, 1), (13, 8, 2)), mlp_hidden=17, dyrelu_k=2, dyrelu_hidden=5, dyrelu_coefs=(1.0, 0.5),
    dyrelu_consts=(1.0, 0.0), last=19, head_hidden=23, image=(29, 37), classes=7, softmax=False,
)  # fmt: skip
PUBLISHED = {  # trained parameters as the original implementation counts them
    "26m": 3_204_324, "52m": 3_490_860, "96m": 4_564_400, "151m": 7_570_582, "214m": 9_357_167, "294m": 11_320_606,
    "508m": 13_916_561,
}  # fmt: skip

TINY = {  # small twins; sizes as different as heads and groups let them be
    "plain": _SMALL,
    "groups, stride 1, one channel": replace(_SMALL, groups=3, stem=9, lite_hidden=15, lite_out=6, lite_stride=1,
                                             blocks=((21, 12, 2),), last=33, channels=1, image=(13, 11), softmax=True),
    "k=3, other coefficients": replace(_SMALL, dyrelu_k=3, dyrelu_hidden=8, dyrelu_coefs=(0.7, 1.3),
                                       dyrelu_consts=(0.9, -0.2), heads=1, image=(19, 23),
                                       blocks=((11, 5, 2), (7, 3, 1), (13, 5, 2))),
    "without DyReLU, alpha": replace(_SMALL, dyrelu_k=0, dyrelu_hidden=0, alpha=1.5, stem=8, lite_out=8, image=(17, 11),
                                     blocks=((6, 4, 1), (10, 4, 2))),
    "headless, four heads": replace(_SMALL, heads=4, token_width=20, lite_out=8, blocks=((7, 12, 2),), stem_stride=1,
                                    tokens=1, classes=0, image=(7, 9)),
}  # fmt: skip

_conv = partial(conv, init="kaiming_normal")
_dense = partial(dense, init="kaiming_normal")


def layers(c: Config) -> Iterator[Layer]:
    """Yield the layers, in the order they run."""
    yield array("tokens", m=c.tokens, d=c.token_width, init="xavier_uniform")
    yield _conv("stem.conv", c.channels, c.stem, 3, 3)
    yield batch_norm("stem.norm", c.stem)
    yield from _lite(c)
    for b, (channels, (hidden, out, stride)) in enumerate(zip(c.inputs, c.blocks, strict=True)):
        yield from _to_former(f"blocks.{b}.to_former", channels, c)
        yield from _former(f"blocks.{b}.former", c)
        yield from _mobile(f"blocks.{b}.mobile", channels, hidden, out, stride, c)
        yield norm(f"blocks.{b}.to_mobile.norm", c.token_width)
        yield _heads(f"blocks.{b}.to_mobile.key", c.token_width, out, c)
        yield _heads(f"blocks.{b}.to_mobile.value", c.token_width, out, c)
    yield from _to_former("to_former", c.out, c)
    yield _conv("last.conv", c.out, c.last, 1, 1, groups=c.groups)
    yield batch_norm("last.norm", c.last)
    yield _dense("head.fc1", c.last + c.token_width, c.head_hidden)
    if c.classes:
        yield _dense("head.fc2", c.head_hidden, c.classes)


def _lite(c: Config) -> Iterator[Layer]:
    """Yield the layers of a bottleneck whose depthwise convolution is 3x1, then 1x3."""
    yield _conv("lite.expand", c.stem, c.lite_hidden, 1, 1, groups=c.groups)
    yield batch_norm("lite.norm1", c.lite_hidden)
    yield _conv("lite.vertical", c.lite_hidden, c.lite_hidden, 3, 1, groups=c.lite_hidden)
    yield batch_norm("lite.norm2", c.lite_hidden)
    yield _conv("lite.horizontal", c.lite_hidden, c.lite_hidden, 1, 3, groups=c.lite_hidden)
    yield batch_norm("lite.norm3", c.lite_hidden)
    yield _conv("lite.project", c.lite_hidden, c.lite_out, 1, 1, groups=c.groups)
    yield batch_norm("lite.norm4", c.lite_out)


def _to_former(path: str, channels: int, c: Config) -> Iterator[Layer]:
    yield norm(f"{path}.norm", c.token_width)
    yield _heads(f"{path}.query", c.token_width, channels, c)
    yield _dense(f"{path}.output", channels, c.token_width)


def _former(path: str, c: Config) -> Iterator[Layer]:
    yield norm(f"{path}.norm1", c.token_width)
    yield _dense(f"{path}.attention.qkv", c.token_width, 3 * c.token_width)
    yield _dense(f"{path}.attention.output", c.token_width, c.token_width)
    yield norm(f"{path}.norm2", c.token_width)
    yield _dense(f"{path}.mlp.fc1", c.token_width, c.mlp_hidden)
    yield _dense(f"{path}.mlp.fc2", c.mlp_hidden, c.token_width)


def _mobile(path: str, channels: int, hidden: int, out: int, stride: int, c: Config) -> Iterator[Layer]:
    if stride == 2:
        yield _conv(f"{path}.down.conv", channels, channels, 3, 3, groups=channels)
        yield batch_norm(f"{path}.down.norm", channels)
    if c.dyrelu_k:
        yield _dense(f"{path}.hyper.fc1", c.token_width, c.dyrelu_hidden)
        yield _dense(f"{path}.hyper.fc2", c.dyrelu_hidden, 2 * c.dyrelu_k * hidden)
        yield norm(f"{path}.hyper.norm", 2 * c.dyrelu_k * hidden)
    yield _conv(f"{path}.expand", channels, hidden, 1, 1, groups=c.groups)
    yield batch_norm(f"{path}.norm1", hidden)
    yield _conv(f"{path}.depthwise", hidden, hidden, 3, 3, groups=hidden)
    yield batch_norm(f"{path}.norm2", hidden)
    yield _conv(f"{path}.project", hidden, out, 1, 1, groups=c.groups)
    yield batch_norm(f"{path}.norm3", out)


def _heads(path: str, i: int, o: int, c: Config) -> Layer:
    return Layer(path, "heads", {"h": c.heads, "i": i // c.heads, "o": o // c.heads}, init="kaiming_normal")


def infer(sizes: Sizes) -> dict[str, Any]:
    """Read a checkpoint's names and shapes for its Config: not DyReLU's constants, nor strides before the blocks."""
    mobile = [f"blocks.{b}.mobile" for b in range(sizes.count("blocks"))]
    strides = (1 + (f"{path}.down.conv.kernel" in sizes) for path in mobile)
    widths = ([sizes[f"{path}.{layer}.kernel", "o"] for layer in ("expand", "project")] for path in mobile)
    blocks = tuple((hidden, out, stride) for (hidden, out), stride in zip(widths, strides, strict=True))
    return {
        "tokens": sizes["tokens", "m"],
        "token_width": sizes["tokens", "d"],
        "heads": sizes["to_former.query.kernel", "h"],
        "groups": sizes["to_former.output.kernel", "i"] // sizes["last.conv.kernel", "i"],
        "stem": sizes["stem.conv.kernel", "o"],
        "lite_hidden": sizes["lite.expand.kernel", "o"],
        "lite_out": sizes["lite.project.kernel", "o"],
        "blocks": blocks,
        "mlp_hidden": sizes["blocks.0.former.mlp.fc1.kernel", "o"],
        "last": sizes["last.conv.kernel", "o"],
        "head_hidden": sizes["head.fc1.kernel", "o"],
        "alpha": 1.0,  # the widths above are multiplied already
        "channels": sizes["stem.conv.kernel", "i"],
        "classes": sizes["head.fc2.kernel", "o"] if "head.fc2.kernel" in sizes else 0,
        **_infer_dyrelu(sizes, f"{mobile[0]}.hyper", blocks[0][0]),
    }


def _infer_dyrelu(sizes: Sizes, path: str, hidden: int) -> dict[str, Any]:
    if f"{path}.fc1.kernel" not in sizes:
        unused = {"dyrelu_coefs": (1.0, 0.5), "dyrelu_consts": (1.0, 0.0)}
        return {"dyrelu_k": 0, "dyrelu_hidden": 0, **unused}
    return {
        "dyrelu_k": sizes[f"{path}.norm.scale", "c"] // (2 * hidden),
        "dyrelu_hidden": sizes[f"{path}.fc1.kernel", "o"],
    }


def input_shape(c: Config) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image that the network takes."""
    return c.channels, *pair(c.image)


def immaterial(c: Config) -> set[str]:
    """Return fields that change nothing here: `image`, since any size works, and DyReLU's, if there is none."""
    return {"image"} if c.dyrelu_k else {"image", "dyrelu_coefs", "dyrelu_consts"}


FEATURE_MAPS = (  # modules, beside convolutions, that take or return an image (n c h w)
    "stem", "lite", "blocks.#", "blocks.#.to_former", "blocks.#.mobile", "blocks.#.mobile.down", "blocks.#.mobile.act",
    "blocks.#.to_mobile", "to_former", "last",
)  # fmt: skip

_PIXELS = {"": (  # its configurations crop 0.9, its README states 0.875; no weights were published
    normalised(IMAGENET_MEAN, IMAGENET_STD, 0.9), normalised(IMAGENET_MEAN, IMAGENET_STD, 0.875),
)}  # fmt: skip

DIALECTS = {
    "paddlevit": Dialect("paddle", """
        tokens: m d                           <-> tokens: 1 m d
        stem.norm                             <-> stem.bn
        lite.expand                           <-> bneck_lite.in_pw.conv
        lite.norm1                            <-> bneck_lite.in_pw_bn
        lite.vertical                         <-> bneck_lite.dw.conv.0
        lite.norm2                            <-> bneck_lite.dw.conv.1
        lite.horizontal                       <-> bneck_lite.dw.conv.2
        lite.norm3                            <-> bneck_lite.dw_bn
        lite.project                          <-> bneck_lite.out_pw.conv
        lite.norm4                            <-> bneck_lite.out_pw_bn
        blocks.{b}.to_former                  <-> blocks.{b}.toformer_bridge
        blocks.{b}.to_former.norm             <-> blocks.{b}.toformer_bridge.input_norm
        blocks.{b}.to_former.query.kernel: h i o   <-> blocks.{b}.toformer_bridge.heads_q_proj.{h}.weight: i o
        blocks.{b}.to_former.query.bias: h o       <-> blocks.{b}.toformer_bridge.heads_q_proj.{h}.bias: o
        blocks.{b}.former.norm1               <-> blocks.{b}.former.attn_ln
        blocks.{b}.former.attention.qkv       <-> blocks.{b}.former.attn.qkv_proj
        blocks.{b}.former.attention.output    <-> blocks.{b}.former.attn.output
        blocks.{b}.former.norm2               <-> blocks.{b}.former.mlp_ln
        blocks.{b}.mobile.down.conv           <-> blocks.{b}.mobile.downsample_dw.0.conv
        blocks.{b}.mobile.down.norm           <-> blocks.{b}.mobile.downsample_dw.1
        blocks.{b}.mobile.hyper.fc1           <-> blocks.{b}.mobile.bneck.act.project.0.fc1
        blocks.{b}.mobile.hyper.fc2           <-> blocks.{b}.mobile.bneck.act.project.0.fc2
        blocks.{b}.mobile.hyper.norm          <-> blocks.{b}.mobile.bneck.act.project.1
        blocks.{b}.mobile.expand              <-> blocks.{b}.mobile.bneck.in_pw.conv
        blocks.{b}.mobile.norm1               <-> blocks.{b}.mobile.bneck.in_pw_bn
        blocks.{b}.mobile.depthwise           <-> blocks.{b}.mobile.bneck.dw.conv
        blocks.{b}.mobile.norm2               <-> blocks.{b}.mobile.bneck.dw_bn
        blocks.{b}.mobile.project             <-> blocks.{b}.mobile.bneck.out_pw.conv
        blocks.{b}.mobile.norm3               <-> blocks.{b}.mobile.bneck.out_pw_bn
        blocks.{b}.to_mobile.norm             <-> blocks.{b}.tomobile_bridge.input_token_norm
        blocks.{b}.to_mobile.key.kernel: h i o     <-> blocks.{b}.tomobile_bridge.heads_k_proj.{h}.weight: i o
        blocks.{b}.to_mobile.key.bias: h o         <-> blocks.{b}.tomobile_bridge.heads_k_proj.{h}.bias: o
        blocks.{b}.to_mobile.value.kernel: h i o   <-> blocks.{b}.tomobile_bridge.heads_v_proj.{h}.weight: i o
        blocks.{b}.to_mobile.value.bias: h o       <-> blocks.{b}.tomobile_bridge.heads_v_proj.{h}.bias: o
        to_former                             <-> end_toformer_bridge
        to_former.norm                        <-> end_toformer_bridge.input_norm
        to_former.query.kernel: h i o         <-> end_toformer_bridge.heads_q_proj.{h}.weight: i o
        to_former.query.bias: h o             <-> end_toformer_bridge.heads_q_proj.{h}.bias: o
        last.conv                             <-> channel_conv.0.conv
        last.norm                             <-> channel_conv.1
        """, {"softmax": True}, about="BR-IDL/PaddleViT, and the tutorial that it grew out of",
                         preprocessing=_PIXELS),
}  # fmt: skip

_OLD = (
    "weights of PaddleViT's first Mobile-Former (November 2021), which is another network: it normalises tokens after "
    "the bridges, not before, and no Config of this one computes it"
)
REFUSED = tuple(
    Refusal(frozenset({key}), _OLD)
    for key in ("toformer_norm", "tomobile_norm", "former_bridge_norm", "act.project.1._mean")
)

SIGN = r"to_?former"

SPEC = Spec(
    config=Config,
    variants=VARIANTS,
    tiny=TINY,
    published=PUBLISHED,
    layers=layers,
    infer=infer,
    input_shape=input_shape,
    network="MobileFormer",
    feature_maps=FEATURE_MAPS,
    unshown=frozenset({"stem_stride"}),  # upstream's code leaves it open
    immaterial=immaterial,
    meanings={
        "lite_stride": "stride of the bottleneck behind the stem: MODEL.MF.LITE_BNECK.STRIED of PaddleViT's YAML, "
        "2 in 26m, 1 in all other models",
        "dyrelu_coefs": "what DyReLU's slopes and offsets are multiplied by: MODEL.MF.DYRELU.COEFS, usually 1.0,0.5",
        "dyrelu_consts": "what is added to its first slope, and to all else: MODEL.MF.DYRELU.CONSTS, usually 1.0,0.0",
        "stem_stride": "stride of the first convolution: MODEL.MF.STEM.STRIEDS, usually 2",
        "softmax": "whether outputs in evaluation are probabilities, as in PaddleViT's code; False: logits",
    },
    dialects=DIALECTS,
    readers={"paddlevit": from_yaml},
    refused=REFUSED,
    norms={"eps": EPS, "momentum": MOMENTUM},
    activations={"GELU": {}, "ReLU": {}, "Hardswish": {}},
    sign=SIGN,
)
