"""Build the original implementation of an architecture, with random weights, to be timed beside our port of it.

timm is used as it is installed. The others have no package: FOLDER holds clones of their repositories,

    git clone https://github.com/google-research/vision_transformer
    git clone https://github.com/okojoalg/raft-mlp
    git clone https://github.com/ziyuwwang/DynaMixer
    git clone https://github.com/BR-IDL/PaddleViT

    make bench ORIGINALS=FOLDER

Nothing is downloaded: whatever is missing is reported, and our port is timed alone.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from specs.config import pair

Call = Callable[[np.ndarray], np.ndarray]  # images (n c h w) -> logits, as a port is called


class Missing(Exception):
    """An original that cannot be timed here; the message says why."""


class Original(NamedTuple):
    """The original of a port in one framework.

    Args:
      model: our Config -> the original's own model.
      place: where in FOLDER its code lies; "" for an installed package.
      settings: Config fields that the original fixes and our variants do not.
    """

    model: Callable[[Any], Any]
    place: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})


def find(architecture: str, framework: str, folder: Path | None) -> Original:
    """Find the original of a port in its framework. Raises: Missing."""
    original = ORIGINALS.get((architecture, framework))
    if original is None:
        raise Missing("there is no original implementation in this framework")
    if original.place and folder is None:
        raise Missing(f"{original.place} is needed: set ORIGINALS to the folder that holds it")
    if original.place and folder is not None and not (folder / original.place).is_dir():
        raise Missing(f"{folder} has no {original.place}")
    return original


def build(original: Original, framework: str, config: Any, images: np.ndarray, folder: Path | None) -> Call:
    """Build an original with random weights for images (n c h w), to be called as a port is. Raises: Missing."""
    if folder is not None and original.place:
        sys.path.insert(0, str(folder / original.place))
    try:
        return CALLS[framework](original.model(config), images)
    except ImportError as error:
        raise Missing(str(error)) from error


def _side(c: Any) -> int:
    """Return the side of a Mixer's square images, in pixels."""
    return math.isqrt(c.token_count) * c.patch


def _timm_mixer(c: Any) -> Any:
    timm = importlib.import_module("timm.models.mlp_mixer")
    return timm.MlpMixer(patch_size=c.patch, num_blocks=c.depth, embed_dim=c.width, img_size=_side(c))


def _timm_convmixer(c: Any) -> Any:
    nn, timm = importlib.import_module("torch.nn"), importlib.import_module("timm.models.convmixer")
    act = {"gelu": nn.GELU, "relu": nn.ReLU}[c.act]
    return timm.ConvMixer(dim=c.width, depth=c.depth, kernel_size=c.kernel, patch_size=c.patch, act_layer=act)


def _google_mixer(c: Any) -> Any:
    mixer = importlib.import_module("models_mixer").MlpMixer
    patches = SimpleNamespace(size=pair(c.patch))
    return mixer(patches, c.classes, c.depth, c.width, c.token_hidden, c.channel_hidden)


def _raft_mlp(c: Any) -> Any:
    layers = [
        {"depth": level.depth, "dim": level.width, "patch_size": level.patch, "raft_size": level.raft}
        | {"embedding_kernels": list(level.kernels)}
        for level in c.levels
    ]
    model = importlib.import_module("libs.models").RaftMLP
    return model(layers, c.channels, c.image, c.classes, embedding_type="emb_cross_mlp", shortcut=c.shortcut)


def _dynamixer(c: Any) -> Any:
    return importlib.import_module("models.vision_model").VisionModel(
        list(c.depths), patch_size=c.patch, embed_dims=list(c.widths), transitions=[*c.transitions, False],
        resolutions=[stage.grid[0] for stage in c.stages], num_heads=list(c.segments), reduced_dims=list(c.reduced),
        mlp_ratios=[hidden / width for hidden, width in zip(c.hidden, c.widths, strict=True)],
    )  # fmt: skip


def _paddlevit_mixer(c: Any) -> Any:
    model = importlib.import_module("mlp_mixer").MlpMixer
    ratios = c.token_hidden / c.width, c.channel_hidden / c.width
    return model(c.classes, _side(c), c.channels, c.patch, c.depth, c.width, ratios)


def _paddlevit_convmixer(c: Any) -> Any:
    act = {"gelu": "GELU", "relu": "ReLU"}[c.act]
    return importlib.import_module("convmixer").ConvMixer(c.width, c.depth, c.kernel, c.patch, c.classes, act)


def _paddlevit_mobile_former(c: Any) -> Any:
    hidden, out, strides = (list(column) for column in zip(*c.blocks, strict=True))
    block = {"IN_CHANNELS": list(c.inputs), "HIDDEN_CHANNELS": hidden, "OUT_CHANNELS": out, "STRIEDS": strides}
    block |= {"KERNELS": [3] * len(hidden), "PADDINGS": [1] * len(hidden)}
    lite = {"IN_CHANNEL": c.stem, "HIDDEN_CHANNEL": c.lite_hidden, "OUT_CHANNEL": c.lite_out, "STRIED": c.lite_stride}
    parts = {
        "STEM": {"OUT_CHANNELS": c.stem, "KERNELS": 3, "STRIEDS": c.stem_stride, "PADDINGS": 1},
        "LITE_BNECK": lite | {"KERNEL": 3, "PADDING": 1},
        "BLOCK": block,
        "CHANNEL_CONV": {"IN_CHANNEL": c.out, "OUT_CHANNEL": c.last},
        "HEAD": {"IN_CHANNEL": c.last, "HIDDEN_FEATURE": c.head_hidden},
    }
    settings = {name: SimpleNamespace(**part) for name, part in parts.items()}
    settings |= {"POINTWISECONV_GROUPS": c.groups}
    return importlib.import_module("mobileformer").MobileFormer(
        c.classes, c.channels, [c.tokens, c.token_width], c.heads, c.mlp_hidden / c.token_width,
        k=c.dyrelu_k, reduce=c.token_width / c.dyrelu_hidden,
        config=SimpleNamespace(MODEL=SimpleNamespace(MF=SimpleNamespace(**settings))),
    )  # fmt: skip


_PADDLEVIT = "PaddleViT/image_classification"
ORIGINALS = {
    ("mlp_mixer", "flax"): Original(_google_mixer, "vision_transformer/vit_jax", {"gelu": "tanh"}),
    ("mlp_mixer", "torch"): Original(_timm_mixer),
    ("mlp_mixer", "paddle"): Original(_paddlevit_mixer, f"{_PADDLEVIT}/MLP-Mixer"),
    ("convmixer", "torch"): Original(_timm_convmixer),
    ("convmixer", "paddle"): Original(_paddlevit_convmixer, f"{_PADDLEVIT}/ConvMixer"),
    ("raft_mlp", "torch"): Original(_raft_mlp, "raft-mlp"),
    ("dynamixer", "torch"): Original(_dynamixer, "DynaMixer"),
    ("mobile_former", "paddle"): Original(_paddlevit_mobile_former, f"{_PADDLEVIT}/MobileFormer"),
}


def _torch(model: Any, images: np.ndarray) -> Call:
    import torch

    return _evaluated(model, torch.from_numpy, torch.no_grad())


def _paddle(model: Any, images: np.ndarray) -> Call:
    import paddle

    return _evaluated(model, paddle.to_tensor, paddle.no_grad())


def _evaluated(model: Any, tensor: Callable[[np.ndarray], Any], without_gradients: Any) -> Call:
    """Put a model into evaluation mode; `without_gradients` is a decorator."""
    model.eval()
    call: Call = without_gradients(lambda images: model(tensor(images)).numpy())
    return call


def _flax(model: Any, images: np.ndarray) -> Call:
    import jax

    variables = jax.jit(lambda key: model.init(key, images.transpose(0, 2, 3, 1), train=False))(jax.random.key(0))
    apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    return lambda images: np.asarray(apply(variables, images.transpose(0, 2, 3, 1)))


CALLS: dict[str, Callable[[Any, np.ndarray], Call]] = {"flax": _flax, "torch": _torch, "paddle": _paddle}
