"""Preprocess pictures as torchvision does: resize, crop the centre, scale to float32, normalise. In numpy alone."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from convert.config.pixels import misfit
from convert.config.settings import preprocessing
from convert.errors import UsageError
from specs.config import pair
from specs.preprocessing import Known, Preprocessing
from specs.spec import Spec

from .images import ImagesError
from .resampling import resize
from .runners.inputs import to_numpy

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of PIL images, by their channels


def preprocess(pictures: Any, how: Preprocessing, size: tuple[int, int], channels: int) -> np.ndarray:
    """Turn pictures into the input of a network.

    Args:
      pictures: a PIL image; a uint8 array (h, w, channels), or (h, w) for one channel; a batch of equal ones
        (n, h, w, channels), or (n, h, w) for one channel; or a sequence of any of these, whose sizes may differ.
      size: (height, width) of the result.
    Returns: float32, (n, height, width, channels), n = 1 for a single picture.
    Raises: ImagesError that states what was given and the remedy.
    """
    if isinstance(pictures, list | tuple):
        if not pictures:
            raise ImagesError("pictures: pass at least one")
        return np.concatenate([preprocess(picture, how, size, channels) for picture in pictures])
    pixels = _pixels(pictures, channels)
    height, width = resized(pixels.shape[1:3], size, how.crop)
    return normalise(centre(resize(pixels, height, width, how.interpolation), size), how)


def resized(shape: Sequence[int], size: tuple[int, int], crop: float) -> tuple[int, int]:
    """Return the size to which a picture is resized before its centre is cropped: the shape is kept.

    Source: timm `transforms_imagenet_eval`; for squares torchvision's `Resize`, which rounds the longer side down, else
    timm's `ResizeKeepRatio`, which rounds to the nearest.
    """
    h, w = shape
    height, width = (math.floor(side / crop) for side in size)
    if height == width:
        long = int(height * max(h, w) / min(h, w))
        return (long, width) if w <= h else (height, long)
    ratio = min(h / height, w / width)
    return round(h / ratio), round(w / ratio)


def centre(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop the centre of images (n, h, w, c), as torchvision's `CenterCrop` places it: halves go to the even side."""
    top, left = (round((side - wanted) / 2) for side, wanted in zip(images.shape[1:3], size, strict=True))
    return images[:, top : top + size[0], left : left + size[1]]


def normalise(images: np.ndarray, how: Preprocessing) -> np.ndarray:
    """Scale uint8 images (n, h, w, c) and normalise them, in the order and in the float32 of torchvision."""
    low, high = map(np.float32, how.range)
    values = images.astype(np.float32) / np.float32(255)
    if (low, high) != (0, 1):
        values = low + values * (high - low)
    return (values - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)


def _pixels(picture: Any, channels: int) -> np.ndarray:
    """Return the pixels of a picture, or of a batch, as uint8 (n, h, w, channels)."""
    if isinstance(picture, str | os.PathLike):
        convert = f".convert({MODES[channels]!r})" if channels in MODES else ""
        path = os.fspath(picture)
        raise ImagesError(f"{path!r} is a path, and no picture: open it, as by PIL.Image.open({path!r}){convert}")
    mode = picture.mode if type(picture).__module__.startswith("PIL.") else None  # PIL itself is not needed
    if mode is not None and mode != MODES.get(channels):
        wanted = MODES.get(channels)
        remedy = f"use image.convert({wanted!r})" if wanted else "pass an array"
        raise ImagesError(f"a PIL image of mode {mode}, and the network takes {channels} channels: {remedy}")
    try:
        array = to_numpy(picture)
    except UsageError as error:
        raise ImagesError(f"pictures are PIL images or uint8 arrays, not {type(picture).__name__}: {error}") from None
    if remedies := list(_remedies(array, channels)):
        what = f"pictures are uint8, (h, w, {channels}) or (n, h, w, {channels})"
        raise ImagesError(f"{what}, not {array.dtype} of shape {list(array.shape)}: {', and '.join(remedies)}")
    if channels == 1 and array.shape[-1] != 1:
        array = array[..., None]
    return array if array.ndim == 4 else array[None]


def _remedies(array: np.ndarray, channels: int) -> Iterator[str]:
    """Yield what to do to an array of the wrong shape or dtype."""
    shape = array.shape
    grey = channels == 1 and array.ndim in (2, 3) and shape[-1] != 1
    if not grey and not (array.ndim in (3, 4) and shape[-1] == channels):
        first = array.ndim in (3, 4) and shape[-3] == channels
        axes = (1, 2, 0) if array.ndim == 3 else (0, 2, 3, 1)
        yield f"use array.transpose{axes}" if first else f"the network takes {channels} channels, as the last axis"
    elif not array.size:
        yield "pass at least one pixel"
    if array.dtype != np.uint8:
        yield "pass the pixels as they are in the file, 0 to 255, as uint8: this scales them"


def for_network(pictures: Any, known: Known, stated: Mapping[str, Any], spec: Spec, config: Any) -> np.ndarray:
    """Turn pictures into the input of a network, (n, h, w, c), by what is known of its preprocessing.

    Args:
      stated: fields of Preprocessing that go above those known.
    Warns of fields that are assumed. Raises: UsageError for fields that are open, or do not fit.
    """
    chosen = preprocessing(stated).above(known)
    if chosen.open:
        call = ", ".join(f"{name}=..." for name in chosen.open)
        problem = f"preprocessing: {', '.join(chosen.open)} not known: neither the weights' file nor its record says so"
        raise UsageError(
            problem, [f"state it: port.preprocess(image, {call}), or in ports.load: preprocessing=dict({call})"]
        )
    if problem := misfit(spec, config, chosen):
        raise UsageError(f"preprocessing: {problem}")
    how = chosen.complete()
    channels, height, width = spec.input_shape(config)
    if how.image is not None:
        height, width = pair(how.image)
    elif getattr(config, "image", height) is None and height != width:
        problem = "preprocessing: image not known: the weights fix how many tokens an image makes, and not its shape"
        raise UsageError(problem, ["state it: port.preprocess(image, image=(height, width)), or in ports.load"])
    images = preprocess(pictures, how, (height, width), channels)
    if chosen.assumed:  # said of pictures that are taken
        shown = chosen.only(f.name for f in fields(Preprocessing) if f.name in chosen.assumed)
        warnings.warn(f"preprocessing is assumed, not known of these weights: {Known(shown.values)}", stacklevel=3)
    return images
