"""Read configuration files of BR-IDL/PaddleViT: YAML whose section MODEL describes a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import config as configs
from .words import unknown

COMMON = {"TYPE": str, "NAME": str, "RESUME": object, "PRETRAINED": object}  # of every network
TRAINING = (  # sections and keys beside MODEL: they say nothing of the network
    "DATA", "TRAIN", "VAL", "TEST", "AUG", "AMP", "SAVE", "TAG", "SAVE_FREQ", "REPORT_FREQ", "VALIDATE_FREQ", "SEED",
    "EVAL", "THROUGHPUT_MODE", "LOCAL_RANK", "NGPUS",
)  # fmt: skip

SECTIONS = ("MODEL", *TRAINING)  # of a file

Keys = Mapping[str, tuple[str, Any]]  # {key under MODEL: (Config field, "" where this key alone makes none; its type)}


def stated(mapping: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """Return what a file says under MODEL: {"MF.TOKENS": (3, 128), ...}.

    Args:
      mapping: the file as parsed, e.g. {"MODEL": {"NUM_CLASSES": 10, "MF": {"TOKENS": [3, 128], ...}}}.
      keys: all that the network has, beside COMMON.
    Raises: ValueError that lists every unknown key (with the nearest), and every value that does not fit.
    """
    given = {key: value for key, value in _flat(mapping) if key.partition(".")[0] not in TRAINING}
    bases = given.pop("BASE", None)  # of a file; those that it names were merged by who read it
    hints = {f"MODEL.{key}": hint for key, hint in (*COMMON.items(), *((key, hint) for key, (_, hint) in keys.items()))}
    problems = (
        [f"BASE={bases!r}: copy what those files say into this one"] if bases not in (None, "", (), ("",)) else []
    )
    problems += [unknown(key, [*hints, *TRAINING]) for key in given if key not in hints]
    problems += [
        f"{key}={value!r} does not fit: it is {configs.describe(hints[key])}"
        for key, value in given.items()
        if key in hints and not configs.fits(value, hints[key])
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return {key.removeprefix("MODEL."): value for key, value in given.items()}


def fields(values: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """Return the Config fields that one key makes, of what `stated` returns."""
    return {keys[key][0]: value for key, value in values.items() if key in keys and keys[key][0]}


def preprocessing(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Preprocessing that a file states under DATA; {} if it states none.

    Scaling to 0..1 and the kernel stand in the code that reads such files, each network's datasets.py.
    """
    names = {"CROP_PCT": "crop", "IMAGENET_MEAN": "mean", "IMAGENET_STD": "std", "IMAGE_SIZE": "image"}
    data = mapping.get("DATA")
    own = {ours: data[key] for key, ours in names.items() if key in data} if isinstance(data, Mapping) else {}
    return {**own, "range": (0.0, 1.0), "interpolation": "bicubic"} if own else {}


def _flat(mapping: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("MODEL.MF.TOKENS", (3, 128)) and so on."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", configs.tuples(value)
