"""Compute golden cases by the original implementations' own code: weights, outputs and gradients of tiny networks.

    git clone https://github.com/okojoalg/raft-mlp
    python -m parity_tests.upstream raft_mlp raft-mlp
    git clone https://github.com/ziyuwwang/DynaMixer
    python -m parity_tests.upstream dynamixer DynaMixer
    git clone https://github.com/google-research/big_vision
    python -m parity_tests.upstream big_vision big_vision
    git clone https://github.com/huggingface/pytorch-image-models
    python -m parity_tests.upstream convmixer pytorch-image-models
    python -m parity_tests.upstream mlp_mixer pytorch-image-models

imports the model's modules from that folder, builds each network of NETWORKS with random weights (seed 0), stores
its state dict in float32, casts the network to float64, and records in `io.safetensors` the images, the logits, the
loss mean(logits ** 2), and its gradients by the images and by every parameter; a network with running statistics has
no gradients in evaluation mode worth recording. Upstream's code is no part of this repository; of timm, which
DynaMixer imports for its training alone, five names are stood in for. timm itself needs what it depends on:
torchvision, huggingface_hub and PyYAML. The case of big_vision is a file under its legacy names, which its own `load`
translates; of the modules around it, which need TensorFlow, its reading of .npz files is stood in for.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import re
import subprocess
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "goldens"


class Network(NamedTuple):
    """One golden case.

    Args:
      options: of upstream's constructor.
      settings: our Config fields that the state dict leaves open.
      images: (channels, height, width).
      note: what it is a twin of.
    """

    options: dict[str, Any]
    settings: dict[str, Any]
    images: tuple[int, int, int]
    note: str


def _raft(
    levels: Iterable[tuple[int, int, int, int | None, tuple[int, ...]]],
    note: str,
    *,
    image: int = 24,
    size: tuple[int, int] | None = None,
    original: bool = False,
    **options: Any,
) -> Network:
    """A RaftMLP of levels (depth, width, patch, raft, kernels), mixing all tokens if `original`."""
    levels = list(levels)
    cross = any(kernels for *_, kernels in levels)
    layers = [
        {"depth": d, "dim": w, "patch_size": p}
        | ({} if original else {"raft_size": r})
        | ({"embedding_kernels": list(k)} if k else {})
        for d, w, p, r, k in levels
    ]
    kinds = {
        "token_mixing_type": "original_tm" if original else "ser_pm",
        "embedding_type": "emb_cross_mlp" if cross else "emb_mixer",
    }
    given = {"shortcut": False, "num_classes": 5, **options}
    settings: dict[str, Any] = {"image": image, "patches": [p for _, _, p, _, _ in levels]}
    settings |= {} if original else {"rafts": [r for _, _, _, r, _ in levels]}
    settings |= {"kernels": [list(k) for *_, k in levels]} if cross else {}
    return Network({"layers": layers, "pretrained_image_size": image, **kinds, **given}, settings,
                   (3, *(size or (image, image))), note)  # fmt: skip


RAFT = {
    "raft_cifar10_mixer": _raft([(2, 10, 4, None, ())], "cifar10-org-mixer", original=True),
    "raft_mixer": _raft([(3, 14, 8, None, ())], "imagenet-org-mixer", original=True),
    "raft_mixer_cross": _raft(
        [(1, 6, 4, None, (4, 8)), (2, 10, 2, None, (2, 4))], "original_tm with emb_cross_mlp, shortcut, off its grid",
        original=True, size=(26, 17), shortcut=True, token_expansion_factor=3, channel_expansion_factor=2),
    "raft_cifar10": _raft([(1, 8, 2, 4, (2, 4, 8)), (1, 12, 2, 4, (2, 4))], "cifar10-raft-mlp", image=16),
    "raft_r4": _raft([(2, 12, 8, 4, ())], "imagenet-raft-mlp, default"),
    "raft_r2": _raft([(2, 10, 8, 2, ())], "imagenet-raft-mlp-r-2"),
    "raft_r2_cross": _raft([(2, 10, 8, 2, (8, 16))], "imagenet-raft-mlp-r-2-cross-mlp-emb"),
    "raft_r1": _raft([(2, 10, 8, 1, ())], "imagenet-raft-mlp-r-1"),
    "raft_deep": _raft([(6, 6, 8, 2, ())], "imagenet-raft-mlp-deep"),
    "raft_hierarchy": _raft([(1, 6, 4, 2, ()), (1, 8, 2, 2, ()), (2, 10, 2, 2, ()), (1, 12, 2, 2, ())],
                            "imagenet-raft-mlp-hierarchy-m", image=32),
    "raft_cross": _raft([(1, 6, 4, 2, (4, 8)), (1, 8, 2, 2, (2, 4)), (2, 10, 2, 2, (2, 4)), (1, 12, 2, 2, (2,))],
                        "imagenet-raft-mlp-cross-mlp-emb-{s,m,l}", image=32),
}  # fmt: skip

_DYNA = {"layers": [1, 1, 1], "embed_dims": [8, 12, 12], "transitions": [True, False], "num_heads": [2, 4, 4],
         "reduced_dims": [2, 3, 2], "mlp_ratios": [3, 2.5, 3], "num_classes": 5, "patch_size": 7}  # fmt: skip
DYNA = {
    "dyna_bias": Network(
        {**_DYNA, "resolutions": [4, 2, 2], "qkv_bias": True}, {}, (3, 28, 28), "qkv_bias=True"),
    "dyna_overlap": Network(
        {**_DYNA, "resolutions": [5, 3, 3], "qkv_bias": True, "overlap": True, "skip_lam": 1.5}, {"skip_lam": 1.5},
        (3, 20, 20), "overlap=True, skip_lam=1.5, qkv_bias=True"),
}  # fmt: skip
CONV = {
    "timm_convmixer_relu": Network(
        {"dim": 10, "depth": 2, "kernel_size": 5, "patch_size": 3, "num_classes": 7, "act_layer": "ReLU"},
        {"act": "relu"}, (3, 15, 18), "ReLU, as in the published 768/32"),
}  # fmt: skip
MIXER = {
    "timm_mixer_ragged": Network(
        {"img_size": (14, 23), "patch_size": 4, "num_blocks": 2, "embed_dim": 10, "num_classes": 7},
        {"image": [14, 23]}, (3, 14, 23), "patches that do not tile the image: the rest is dropped"),
}  # fmt: skip
NETWORKS = {"raft_mlp": RAFT, "dynamixer": DYNA, "convmixer": CONV, "mlp_mixer": MIXER}
MODELS = {"raft_mlp": ("libs.models", "RaftMLP"), "dynamixer": ("models.vision_model", "VisionModel"),
          "convmixer": ("timm.models.convmixer", "ConvMixer"),
          "mlp_mixer": ("timm.models.mlp_mixer", "MlpMixer")}  # fmt: skip
REPOSITORIES = {"raft_mlp": "okojoalg/raft-mlp", "dynamixer": "ziyuwwang/DynaMixer",
                "big_vision": "google-research/big_vision",
                **dict.fromkeys(["convmixer", "mlp_mixer"], "huggingface/pytorch-image-models")}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Write the golden cases of one architecture, or big_vision's."""
    parser = argparse.ArgumentParser(prog="python -m parity_tests.upstream", description=__doc__, allow_abbrev=False)
    parser.add_argument("architecture", choices=REPOSITORIES)
    parser.add_argument("checkout", type=Path, help="a clone of upstream's repository")
    parser.add_argument("--out", type=Path, default=FOLDER)
    asked = parser.parse_args(arguments)
    sys.path.insert(0, str(asked.checkout))
    revision = ["git", "-C", str(asked.checkout), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, capture_output=True, text=True, check=True).stdout.strip()
    if asked.architecture == "big_vision":
        upstream = {"repo": REPOSITORIES["big_vision"], "commit": commit}
        write_legacy(asked.out / "big_vision_legacy", upstream)
        return
    if asked.architecture == "dynamixer":
        _stand_in_for_timm()
    module, name = MODELS[asked.architecture]
    model = getattr(importlib.import_module(module), name)
    for case, network in NETWORKS[asked.architecture].items():
        about = {"case": case, "architecture": asked.architecture, "framework": "torch"}
        about["upstream"] = {"repo": REPOSITORIES[asked.architecture], "commit": commit}
        write(asked.out / case, model, network, about)


def _stand_in_for_timm() -> None:
    """Provide the names that DynaMixer imports of timm: drop path, an initialiser, two constants, a decorator."""
    from torch import nn

    layers, data = types.ModuleType("timm.models.layers"), types.ModuleType("timm.data")
    vars(layers).update(DropPath=nn.Identity, trunc_normal_=nn.init.trunc_normal_)
    vars(data).update(IMAGENET_DEFAULT_MEAN=None, IMAGENET_DEFAULT_STD=None)
    registry = types.ModuleType("timm.models.registry")
    vars(registry).update(register_model=lambda factory: factory)
    package, models = types.ModuleType("timm"), types.ModuleType("timm.models")
    sys.modules |= {"timm": package, "timm.models": models, "timm.data": data}
    sys.modules |= {"timm.models.layers": layers, "timm.models.registry": registry}


def write(folder: Path, model: Any, network: Network, about: dict[str, Any]) -> None:
    """Write one case: case.json, weights.pth and io.safetensors."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    options = {name: getattr(torch.nn, value) if name == "act_layer" else value
               for name, value in network.options.items()}  # fmt: skip
    net = model(**options).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # no zeros or ones, and outputs of moderate size
            spread = math.prod(parameter.shape[1:]) ** -0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn_like(parameter) * spread + (parameter.ndim == 1) * 0.5)
        running = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
        for statistics in running:
            statistics.copy_(torch.rand_like(statistics) + 0.5)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), folder / "weights.pth")
    net = net.double()
    images = torch.randn(2, *network.images, dtype=torch.float32).double().requires_grad_()
    logits = net(images)
    loss = (logits**2).mean()
    loss.backward()
    arrays = {"input_nchw": images.detach(), "eval/logits.f64": logits.detach()}
    if not running:
        arrays |= {"train/loss.f64": loss.detach()[None], "train/grad_input.f64": images.grad}
        arrays |= {f"train/grad/{name}.f64": p.grad for name, p in net.named_parameters()}
    save_file({name: array.contiguous() for name, array in arrays.items()}, folder / "io.safetensors")
    size = {name: float(p.grad.abs().max()) for name, p in net.named_parameters()}
    about |= {
        "versions": {"torch": torch.__version__},
        "note": network.note,
        "config": network.options,
        "settings": network.settings,
        "loss": "mean(logits**2)",
        "input_layout": "NCHW",
        "param_count": sum(p.numel() for p in net.parameters()),
        "zero_grads": [name for name in size if size[name] < 1e-12 * max(size.values())],  # but for rounding
    }
    _describe(folder, about)


def _describe(folder: Path, about: dict[str, Any]) -> None:
    """Write case.json, with the hashes of the case's files."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "case.json")
    about["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "case.json").write_text(json.dumps(about, indent=1) + "\n")


def write_legacy(folder: Path, upstream: dict[str, str]) -> None:
    """Write a file under big_vision's legacy names, and what its network computes once its `load` has read it."""
    import jax
    import numpy as np
    from flax.traverse_util import flatten_dict, unflatten_dict
    from safetensors.numpy import save_file

    jax.config.update("jax_enable_x64", True)
    utils, common = types.ModuleType("big_vision.utils"), types.ModuleType("big_vision.models.common")
    vars(utils).update(load_params=lambda path: unflatten_dict(dict(np.load(path)), sep="/"))
    vars(common).update(merge_params=lambda loaded, initial, dont_load: loaded)
    sys.modules |= {"big_vision.utils": utils, "big_vision.models.common": common}
    import big_vision  # type: ignore[import-not-found]
    import big_vision.models

    big_vision.utils, big_vision.models.common = utils, common
    mlp_mixer = importlib.import_module("big_vision.models.mlp_mixer")
    options = {"patch_size": (4, 4), "num_blocks": 2, "hidden_dim": 10, "tokens_mlp_dim": 7, "channels_mlp_dim": 13}
    model, rng = mlp_mixer.Model(5, **options), np.random.default_rng(0)
    images = rng.standard_normal((2, 11, 18, 3)).astype(np.float32)
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), images)["params"], sep="/")
    weights = {
        name: (rng.standard_normal(a.shape) * math.prod(a.shape[:-1]) ** -0.5 + (a.ndim == 1) * 0.5).astype(np.float32)
        for name, a in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "weights.npz", **{_legacy(name): _unsqueezed(name, a) for name, a in weights.items()})
    loaded = mlp_mixer.load(None, str(folder / "weights.npz"), None)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), loaded)
    assert flatten_dict(params, sep="/").keys() == shapes.keys()

    def loss(params: Any, images: Any) -> tuple[Any, Any]:
        logits, _ = model.apply({"params": params}, images)
        return (logits**2).mean(), logits

    exact = images.astype(np.float64)
    (value, logits), (by_params, by_images) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, exact)
    arrays = {"input_nchw": exact.transpose(0, 3, 1, 2), "eval/logits.f64": logits, "train/loss.f64": value[None]}
    arrays |= {"train/grad_input.f64": by_images}
    gradients = {_legacy(name): _unsqueezed(name, a) for name, a in flatten_dict(by_params, sep="/").items()}
    arrays |= {f"train/grad/{name}.f64": a for name, a in gradients.items()}
    save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / "io.safetensors")
    size = {name: float(abs(a).max()) for name, a in gradients.items()}
    about = {"case": folder.name, "architecture": "mlp_mixer", "framework": "flax", "upstream": upstream}
    about |= {
        "versions": {"jax": jax.__version__},
        "note": "legacy names; kernel1, bias1, kernel2, bias2 have a leading axis of 1; padded patches",
        "config": options,
        "settings": {"image": [11, 18]},
        "loss": "mean(logits**2)",
        "input_layout": "NHWC",
        "param_count": sum(a.size for a in weights.values()),
        "zero_grads": [name for name in size if size[name] < 1e-12 * max(size.values())],  # but for rounding
    }
    _describe(folder, about)


LEGACY = (
    (r"^stem/", "embedding/"),
    (r"^pre_head_layer_norm/", "Mixer/encoder_norm/"),
    (r"^MixerBlock_(\d+)/", r"Mixer/encoderblock_\1/"),
    (r"_mixing/Dense_0/(kernel|bias)", r"_mixing_phase_0/\g<1>1"),
    (r"_mixing/Dense_1/(kernel|bias)", r"_mixing_phase_0/\g<1>2"),
)


def _legacy(name: str) -> str:
    for pattern, replacement in LEGACY:
        name = re.sub(pattern, replacement, name)
    return name


def _unsqueezed(name: str, array: Any) -> Any:
    """Add the leading axis that the legacy files' MLPs have."""
    return array[None] if "_mixing/" in name else array


if __name__ == "__main__":
    main()
