"""Determine the preprocessing of a model from its dialect, timm's config.json beside it, its record, the user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from convert.errors import FormatError, UsageError
from convert.files import bounded_json
from convert.files.base import record_at
from convert.records.record import DIALECT, Record
from specs import preprocessing
from specs.config import pair
from specs.numbers import exact
from specs.preprocessing import Known, Preprocessing, each, fits
from specs.spec import Dialect, Spec

# Files beside which a config.json is of the same model: Hugging Face's names for them.
HUGGING_FACE = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)


ROUNDING = 1e-6  # relative: what computing a pixel in float32 in another order may change
SCALING = frozenset(("mean", "std", "range"))  # fields that decide which number a pixel becomes


def known(
    path: str, spec: Spec, dialect: Dialect, variant: str | None, config: Any, record: Record, asked: Known, shown: bool
) -> tuple[Known, list[str]]:
    """Return what is known of a file's preprocessing, each source above the one before it, and remarks on it.

    Args:
      shown: whether the file's arrays show the size of the images.
    Raises: UsageError for what the user states and the network cannot take.
    """
    if problem := misfit(spec, config, asked):
        own = getattr(config, "image", None)
        remedy = _another_size(own, asked.values["image"], shown) if own and "image" in asked.values else ""
        raise UsageError(f"{path}: preprocessing: {problem}", [remedy] if remedy else [])
    remarks: list[str] = []
    values = published(spec, dialect, variant, config).all_assumed()  # nothing shows that the file is one of these
    if "image" in values.values and (problem := misfit(spec, config, values)):
        remarks.append(f"preprocessing: this dialect's size of images is not used: {problem}")
        values = values.only(values.values.keys() - {"image"})
    for place, (stated, doubts) in {"config.json": _beside(path, config), record.place: _recorded(record)}.items():
        remarks += [f"{place}: preprocessing: {doubt}" for doubt in doubts]
        stated = stated.only(stated.values.keys() - asked.values.keys())
        if problem := misfit(spec, config, stated):
            remarks.append(f"{place}: preprocessing: it is of another model ({problem}) and not used")
        else:
            values = stated.above(values)
    return asked.above(values), remarks


def _another_size(own: Any, asked: Any, shown: bool) -> str:
    """Say how a network gets another size of images, if it can."""
    if shown:
        return f"the file's arrays show image={exact(own)}: a network of another size has other weights"
    sides = pair(asked)
    size = sides[0] if isinstance(own, int) and len({*sides}) == 1 else "x".join(map(str, sides))
    return f"image={own} is stated, by its record or --set: --set image={size} goes above it"


def published(spec: Spec, dialect: Dialect, variant: str | None, config: Any) -> Known:
    """Return what a dialect's published checkpoints were evaluated with.

    It is assumed of a Config that none of them has: of no official variant, or with another head.
    """
    pixels = agreed(dialect.preprocessing.get(variant or "", dialect.preprocessing.get("", ())), config.channels)
    official = variant is not None and spec.variants[variant].classes == config.classes
    return pixels if official else pixels.all_assumed()


def agreed(published: tuple[Preprocessing, ...], channels: int) -> Known:
    """Return what several published checkpoints were evaluated with: the first's; fields that differ are assumed.

    What is stated for another number of channels is left out.
    """
    every = [{f.name: getattr(one, f.name) for f in fields(one)} for one in published if fits(one, channels)]
    values = {name: value for name, value in every[0].items() if value is not None} if every else {}
    return Known(values, frozenset(n for n, value in values.items() if any(one[n] != value for one in every)))


def sized(known: Known, config: Any, suggested: Mapping[str, str]) -> Known:
    """Add the Config's size of images, as assumed, where nothing states it of the file: pictures are resized to it.

    Args:
      suggested: Config fields that nothing states; see record.SUGGESTED.
    """
    size = getattr(config, "image", None)
    if size is None or suggested.get("image", DIALECT).startswith(DIALECT):
        return known
    return known.above(Known({"image": size}, frozenset({"image"})))


def with_size(config: Any, known: Known) -> Any:
    """Return a Config that leaves its size of images open, with the size that the preprocessing states."""
    is_open = getattr(config, "image", known) is None and "image" in known.values and "image" not in known.assumed
    return replace(config, image=known.values["image"]) if is_open else config


def conflict(source: Known, target: Known, channels: int) -> bool:
    """Tell whether a target's own code scales pixels otherwise than a model needs; only of what is not assumed."""
    certain = all(side.values.keys() >= SCALING and not SCALING & side.assumed for side in (source, target))
    return certain and not same_scaling(source, target, channels)


def same_scaling(one: Known, other: Known, channels: int) -> bool:
    """Tell whether two scale pixels alike: [-1, 1] is what mean 0.5 and std 0.5 make of [0, 1]."""

    def line(known: Known) -> list[float]:
        (low, high), mean, std = (known.values[name] for name in ("range", "mean", "std"))
        means, stds = (each(part) * (channels if len(each(part)) == 1 else 1) for part in (mean, std))
        pairs = list(zip(means, stds, strict=True))
        return [(low - m) / s for m, s in pairs] + [(high - m) / s for m, s in pairs]

    return all(abs(a - b) <= ROUNDING * max(1, abs(a), abs(b)) for a, b in zip(line(one), line(other), strict=True))


def misfit(spec: Spec, config: Any, stated: Known) -> str:
    """Say why a network cannot take what is stated; "" if it can."""
    if not fits(stated, config.channels):
        return f"mean and std are one number, or {config.channels}, one for each channel of the image"
    if "image" in stated.values:
        try:
            spec.check_images(config, *pair(stated.values["image"]))
        except ValueError as error:
            return str(error)
    return ""


def _beside(path: str, config: Any) -> tuple[Known, list[str]]:
    """Read the config.json of timm's beside a file that has a name of Hugging Face's."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, "config.json")
    if name not in HUGGING_FACE or not os.path.isfile(beside):
        return Known(), []
    try:
        about = bounded_json.loads(record_at(beside) or "{}")
        about = about if isinstance(about, dict) else {}
        pixels, remarks = from_timm(about)
    except (ValueError, FormatError) as error:
        return Known(), [f"cannot be used: {error}"]
    if pixels.values and about.get("num_classes", config.classes) != config.classes:
        return Known(), [f"is of a model with {about['num_classes']} classes: it is not used"]
    return pixels, remarks


def _recorded(record: Record) -> tuple[Known, list[str]]:
    """Read a record's preprocessing; of a damaged record it is assumed."""
    pixels, remarks = record.preprocessing
    return (pixels.all_assumed() if record.damage else pixels), remarks


def from_timm(mapping: Mapping[str, Any]) -> tuple[Known, list[str]]:
    """Read the preprocessing in a config.json of timm's, and list what of it is left open, with the reason.

    Source: timm `data/config.py`, `data/transforms_factory.py` (transforms_imagenet_eval).
    Raises: ValueError for values that cannot be.
    """
    theirs = mapping.get("pretrained_cfg")
    if not isinstance(theirs, Mapping):
        return Known(), []
    names = {"mean": "mean", "std": "std", "crop_pct": "crop", "interpolation": "interpolation"}
    values = {ours: _single(theirs[name]) for name, ours in names.items() if theirs.get(name) is not None}
    values |= {"range": (0.0, 1.0)} if values else {}
    size = theirs.get("input_size")
    if isinstance(size, list) and len(size) == 3:
        values["image"] = size[1] if size[1] == size[2] else size[1:]
    remarks = []
    if theirs.get("crop_mode", "center") not in (None, "center"):
        remarks.append(f"crop_mode={theirs['crop_mode']!r} is no centre crop: crop is left open")
        values.pop("crop", None)
    if values.get("interpolation", "bicubic") not in ("bicubic", "bilinear"):
        remarks.append(f"interpolation={values.pop('interpolation')!r} is not implemented: it is left open")
    return preprocessing.stated(values), remarks


def _single(value: Any) -> Any:
    """Return one number for all channels where those of all channels are equal."""
    return value[0] if isinstance(value, list) and value and all(part == value[0] for part in value) else value
