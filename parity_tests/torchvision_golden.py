"""Compute what torchvision makes of pictures, for test_preprocessing.py: parity_tests/goldens/torchvision.npz.

    pip install torch torchvision timm 'pillow<13'
    python -m parity_tests.torchvision_golden

Each case's picture is computed, not stored: see `picture`. Stored are the pixels after resizing and cropping (uint8),
and the normalised values (float32). From version 13 on, Pillow shrinks pictures that are over twice as tall as wide in
the other order, and so rounds otherwise: the case "tall" differs there. All other cases are equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specs.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

PATH = Path(__file__).parent / "goldens" / "torchvision.npz"


class Picture(NamedTuple):
    """One case.

    Args:
      shape: of the picture: (height, width, channels). size: of the result: (height, width).
    """

    shape: tuple[int, int, int]
    size: tuple[int, int]
    how: Preprocessing


def _how(crop: float, interpolation: Any, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD) -> Preprocessing:
    return Preprocessing(mean=mean, std=std, range=(0.0, 1.0), crop=crop, interpolation=interpolation)


CASES = {
    "landscape": Picture((61, 97, 3), (16, 16), _how(0.875, "bicubic")),
    "portrait": Picture((90, 53, 3), (16, 16), _how(0.875, "bilinear")),
    "odd margins": Picture((40, 47, 3), (17, 17), _how(0.72, "bicubic")),
    "larger": Picture((9, 13, 3), (21, 21), _how(0.96, "bicubic", 0.5, 0.5)),
    "larger, bilinear": Picture((7, 5, 3), (15, 15), _how(0.9, "bilinear", 0.0, 1.0)),
    "grey": Picture((28, 28, 1), (24, 24), _how(1.0, "bicubic", 0.1307, 0.3081)),
    "not resized": Picture((19, 16, 3), (16, 16), _how(1.0, "bicubic")),
    "not square": Picture((50, 64, 3), (24, 16), _how(0.875, "bicubic")),
    "tall": Picture((130, 21, 3), (14, 14), _how(0.875, "bicubic")),
}


def picture(shape: tuple[int, int, int]) -> np.ndarray:
    """Return a picture: uint8 (h, w, c), slopes beside black and white noise, which a bicubic kernel overshoots."""
    h, w, c = shape
    row, column, channel = np.ogrid[:h, :w, :c]
    slope = (row * 7 + column * 5 + channel * 40) % 256
    noise = (row * row * 31 + column * column * 17 + row * column * 13 + channel * 5) % 7 < 3
    return np.where((row // 9 + column // 11) % 2 == 0, slope, 255 * noise).astype(np.uint8)


def compute() -> dict[str, np.ndarray]:
    """Run every case through torchvision; through timm where the result is not square."""
    import PIL
    import timm
    import torchvision
    from PIL import Image
    from timm.data.transforms import ResizeKeepRatio
    from torchvision import transforms

    arrays = {}
    for name, (shape, size, how) in CASES.items():
        pixels = picture(shape)
        image = Image.fromarray(pixels if shape[2] > 1 else pixels[..., 0])
        scaled = [int(side / how.crop) for side in size]
        mode = transforms.InterpolationMode(how.interpolation)
        square = size[0] == size[1]
        resize = (
            transforms.Resize(scaled[0], mode) if square else ResizeKeepRatio(scaled, interpolation=how.interpolation)
        )
        cropped = transforms.CenterCrop(size)(resize(image))
        mean, std = (part if isinstance(part, tuple) else (part,) * shape[2] for part in (how.mean, how.std))
        arrays[f"{name}/pixels"] = np.asarray(cropped).reshape(*size, shape[2])
        values = transforms.Normalize(mean, std)(transforms.ToTensor()(cropped))
        arrays[f"{name}/values"] = values.numpy().transpose(1, 2, 0)
    versions = {"torchvision": torchvision.__version__, "pillow": PIL.__version__, "timm": timm.__version__}
    return {"versions": np.array(json.dumps(versions)), **arrays}


if __name__ == "__main__":
    np.savez_compressed(PATH, **compute())
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")
