"""Read a Mobile-Former from configuration files of PaddleViT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import paddlevit

# What PaddleViT's YAML files may say under MODEL: (our field, "" where this key alone makes none; its type).
_KEYS: paddlevit.Keys = {
    "NUM_CLASSES": ("classes", int), "DROPOUT": ("dropout", float), "DROPPATH": ("drop_path", float),
    "ATTENTION_DROPOUT": ("attention_dropout", float), "MLP_DROPOUT": ("mlp_dropout", float),
    "MF.IN_CHANNELS": ("channels", int), "MF.TOKENS": ("", tuple[int, int]), "MF.NUM_HEAD": ("heads", int),
    "MF.MLP_RATIO": ("", float), "MF.ALPHA": ("", float), "MF.POINTWISECONV_GROUPS": ("groups", int),
    "MF.QKV_BIAS": ("", bool),  # never reaches a layer: biases are always there
    "MF.STEM.OUT_CHANNELS": ("stem", int), "MF.STEM.KERNELS": ("", int), "MF.STEM.STRIEDS": ("stem_stride", int),
    "MF.STEM.PADDINGS": ("", int), "MF.LITE_BNECK.IN_CHANNEL": ("", int),
    "MF.LITE_BNECK.HIDDEN_CHANNEL": ("lite_hidden", int), "MF.LITE_BNECK.OUT_CHANNEL": ("lite_out", int),
    "MF.LITE_BNECK.KERNEL": ("", int), "MF.LITE_BNECK.STRIED": ("lite_stride", int), "MF.LITE_BNECK.PADDING": ("", int),
    "MF.BLOCK.IN_CHANNELS": ("", tuple[int, ...]), "MF.BLOCK.HIDDEN_CHANNELS": ("", tuple[int, ...]),
    "MF.BLOCK.OUT_CHANNELS": ("", tuple[int, ...]), "MF.BLOCK.KERNELS": ("", tuple[int, ...]),
    "MF.BLOCK.STRIEDS": ("", tuple[int, ...]), "MF.BLOCK.PADDINGS": ("", tuple[int, ...]),
    "MF.CHANNEL_CONV.IN_CHANNEL": ("", int), "MF.CHANNEL_CONV.OUT_CHANNEL": ("last", int),
    "MF.HEAD.IN_CHANNEL": ("", int), "MF.HEAD.HIDDEN_FEATURE": ("head_hidden", int),
    "MF.DYRELU.USE_DYRELU": ("", bool), "MF.DYRELU.REDUCE": ("", float), "MF.DYRELU.DYRELU_K": ("dyrelu_k", int),
    "MF.DYRELU.COEFS": ("dyrelu_coefs", tuple[float, float]),
    "MF.DYRELU.CONSTS": ("dyrelu_consts", tuple[float, float]),
}  # fmt: skip


def from_yaml(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return Config fields that a YAML file of PaddleViT states; what it leaves out is the checkpoint's.

    Args:
      mapping: the file as parsed, e.g. {"MODEL": {"NUM_CLASSES": 10, "MF": {"TOKENS": [3, 128], ...}}}.
    Raises: ValueError that lists every unknown key (with the nearest), and every value that does not fit.
    """
    stated = paddlevit.stated(mapping, _KEYS)
    if problems := list(_contradictions(stated)):
        raise ValueError("; ".join(problems))
    return paddlevit.fields(stated, _KEYS) | _combined(stated)


def _blocks(v: Mapping[str, Any]) -> list[tuple[int, ...]]:
    return [v.get(f"MF.BLOCK.{key}", ()) for key in ("HIDDEN_CHANNELS", "OUT_CHANNELS", "STRIEDS")]


def _contradictions(v: Mapping[str, Any]) -> Iterator[str]:
    """Yield what upstream's code repeats, and what it fixes, stated otherwise."""
    lengths = {len(numbers) for numbers in _blocks(v)}
    if len(lengths) > 1:
        yield "MODEL.MF.BLOCK: HIDDEN_CHANNELS, OUT_CHANNELS and STRIEDS are as long as there are blocks"
    _, outs, _ = _blocks(v)
    lite_out = v.get("MF.LITE_BNECK.OUT_CHANNEL")
    fixed = {
        "TYPE": "MobileFormer",
        **{f"MF.{key}": 3 for key in ("STEM.KERNELS", "LITE_BNECK.KERNEL")},
        **{f"MF.{key}": 1 for key in ("STEM.PADDINGS", "LITE_BNECK.PADDING")},
        "MF.BLOCK.KERNELS": (3,) * len(outs) or None,
        "MF.BLOCK.PADDINGS": (1,) * len(outs) or None,
        "MF.LITE_BNECK.IN_CHANNEL": v.get("MF.STEM.OUT_CHANNELS"),
        "MF.BLOCK.IN_CHANNELS": (lite_out, *outs[:-1]) if lite_out and outs else None,
        "MF.CHANNEL_CONV.IN_CHANNEL": outs[-1] if outs else None,
        "MF.HEAD.IN_CHANNEL": v.get("MF.CHANNEL_CONV.OUT_CHANNEL"),
    }
    for key, value in fixed.items():
        if value is not None and v.get(key, value) != value:
            yield f"MODEL.{key}={v[key]!r}: by this network, or by the rest of the file, it is {value!r}"
    for key in ("MF.ALPHA", "MF.MLP_RATIO", "MF.DYRELU.REDUCE"):
        if not 1e-6 < v.get(key, 1) < 1e6:
            yield f"MODEL.{key}={v[key]!r} must be a positive number"


def _combined(v: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields that take several keys."""
    alpha, (tokens, width) = v.get("MF.ALPHA", 1), v.get("MF.TOKENS", (None, None))
    widths = {"MF.STEM.OUT_CHANNELS", "MF.LITE_BNECK.HIDDEN_CHANNEL", "MF.LITE_BNECK.OUT_CHANNEL"} & v.keys()
    fields: dict[str, Any] = {_KEYS[key][0]: int(alpha * v[key]) for key in widths}
    if all(_blocks(v)):
        fields["blocks"] = tuple((int(alpha * h), int(alpha * o), s) for h, o, s in zip(*_blocks(v), strict=True))
    if width:
        fields |= {"tokens": tokens, "token_width": width}
        if "MF.MLP_RATIO" in v:
            fields["mlp_hidden"] = int(v["MF.MLP_RATIO"] * width)
        if "MF.DYRELU.REDUCE" in v:
            fields["dyrelu_hidden"] = int(1 / v["MF.DYRELU.REDUCE"] * width)
    return fields | ({} if v.get("MF.DYRELU.USE_DYRELU", True) else {"dyrelu_k": 0, "dyrelu_hidden": 0})
