"""Check the images that a port is called with, in every framework alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.errors import UsageError
from specs.spec import Spec
from specs.words import with_article

from .runners.inputs import Inputs, to_numpy


class ImagesError(UsageError, ValueError):
    """Images that a network cannot take."""


def checked(images: Any, spec: Spec, config: Any) -> Inputs:
    """Return images (n, c, height, width) as the inputs of a port.

    Args:
      images: an array or tensor of any framework, nested lists, or Inputs of these alone.
    Raises: ImagesError that states shape, dtype and remedy.
    """
    if isinstance(images, Inputs):
        if len(images.args) != 1 or images.kwargs:
            raise ImagesError("a port takes images and nothing else: pass one array (n, c, height, width)")
        (images,) = images.args
    try:
        array = to_numpy(images)
    except UsageError as error:
        raise ImagesError(f"images are (n, {config.channels}, height, width), not {_kind(images)}: {error}") from None
    if remedies := list(_remedies(array, config.channels)):
        what = f"images are floating-point numbers (n, {config.channels}, height, width)"
        raise ImagesError(f"{what}, not {array.dtype} of shape {list(array.shape)}: {', and '.join(remedies)}")
    try:
        spec.check_images(config, array.shape[2], array.shape[3])
    except ValueError as error:
        raise ImagesError(str(error)) from None
    return Inputs(array)


def _kind(value: Any) -> str:
    return with_article(type(value).__name__)


def _remedies(array: np.ndarray, channels: int) -> list[str]:
    """List what to do to images of the wrong shape or dtype."""
    remedies = []
    shape = array.shape
    if array.ndim == 4 and shape[1] != channels:
        last = shape[3] == channels
        remedies.append("use images.transpose(0, 3, 1, 2)" if last else f"the network takes {channels} channels")
    elif array.ndim == 3 and channels in (shape[0], shape[2]):
        remedies.append("use images[None]" if shape[0] == channels else "use images.transpose(2, 0, 1)[None]")
    elif array.ndim != 4:
        remedies.append("stack them along a first axis, as in numpy.stack")
    elif not array.size:
        remedies.append("pass at least one")
    if array.dtype.kind in "iub":
        remedies.append("scale them as in training, such as images.astype('float32') / 255")
    elif array.dtype.kind != "f":
        remedies.append("convert them with astype('float32')")
    return remedies
