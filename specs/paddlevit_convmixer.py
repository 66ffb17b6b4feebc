"""Read a ConvMixer from configuration files of PaddleViT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from . import paddlevit

# What PaddleViT's YAML files may say under MODEL: (our field, its type).
_KEYS: paddlevit.Keys = {
    "NUM_CLASSES": ("classes", int), "CNN.DIM": ("width", int), "CNN.DEPTH": ("depth", int),
    "CNN.KERNEL_SIZE": ("kernel", int), "CNN.PATCH_SIZE": ("patch", int),
    "CNN.ACTIVATION": ("act", Literal["GELU", "ReLU"]),
}  # fmt: skip


def from_yaml(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return Config fields that a YAML file of PaddleViT states. Raises: ValueError, see paddlevit.stated."""
    fields = paddlevit.fields(paddlevit.stated(mapping, _KEYS), _KEYS)
    return fields | ({"act": fields["act"].lower()} if "act" in fields else {})
