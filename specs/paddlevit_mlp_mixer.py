"""Read an MLP-Mixer from configuration files of PaddleViT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import paddlevit

# What PaddleViT's YAML files may say under MODEL: (our field, its type). Older ones call width and depth otherwise.
_KEYS: paddlevit.Keys = {
    "NUM_CLASSES": ("classes", int), "DROPOUT": ("dropout", float), "DROPPATH": ("drop_path", float),
    "DROP_PATH": ("drop_path", float), "ATTENTION_DROPOUT": ("", float),  # the network has no attention
    "MIXER.PATCH_SIZE": ("patch", int), "MIXER.EMBED_DIM": ("width", int), "MIXER.HIDDEN_SIZE": ("width", int),
    "MIXER.DEPTH": ("depth", int), "MIXER.NUM_LAYERS": ("depth", int),
}  # fmt: skip
USUAL = 224  # pixels, the default of the network and of PaddleViT's files


def from_yaml(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return Config fields that a YAML file of PaddleViT states. Raises: ValueError, see paddlevit.stated."""
    fields = paddlevit.fields(paddlevit.stated(mapping, _KEYS), _KEYS)
    data = mapping.get("DATA")
    image = data.get("IMAGE_SIZE", USUAL) if isinstance(data, Mapping) else USUAL
    if type(image) is not int:
        raise ValueError(f"DATA.IMAGE_SIZE={image!r} does not fit: it is int")
    return fields if image == USUAL else {**fields, "image": image}
