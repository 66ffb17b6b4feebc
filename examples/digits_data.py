"""Load images of handwritten digits, and turn them into what the models take."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass

import numpy as np

from convert.errors import install

SIZE = 48  # pixels of an image as the models see it, as in the article on Mobile-Former
SHIFT = 2  # pixels by which an image is moved at random in training, at most
TEST = 450  # of scikit-learn's 1,797 images, a quarter
LIMIT = 1 << 30  # bytes of the largest file that is read: MNIST's has 47 MB

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
KINDS = {3: "images", 1: "labels"}  # axes of an array -> what it contains


class DataError(Exception):
    """A file that cannot be used: the message names it, and says why."""


@dataclass(frozen=True)
class Digits:
    """Images (n, rows, columns) of one channel with values from 0 to `white`, and labels (n,) from 0 to 9."""

    name: str
    white: int
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def train(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return training images by their numbers, as the models take them, and their labels."""
        return prepare(self.train_images[chosen], self.white), self.train_labels[chosen]

    def test(self, chosen: slice) -> np.ndarray:
        """Return test images as the models take them."""
        return prepare(self.test_images[chosen], self.white)


def from_sklearn(seed: int) -> Digits:
    """Return the 1,797 images of 8x8 pixels that scikit-learn contains, split at random."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(f"scikit-learn is not installed: {install('examples')}") from None
    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[TEST:], order[:TEST]
    return Digits("scikit-learn's digits", 16, images[train], labels[train], images[test], labels[test])


def from_folder(folder: str) -> Digits:
    """Return MNIST, or another data set in its format, from its four files, each plain or as .gz.

    Raises: DataError.
    """
    train_images, train_labels, test_images, test_labels = (read_idx(_find(folder, name)) for name in FILES)
    for part, images, labels in (("train", train_images, train_labels), ("t10k", test_images, test_labels)):
        if len(images) != len(labels):
            raise DataError(f"{folder}: the {part} files have {len(images):,} images and {len(labels):,} labels")
        if wrong := np.flatnonzero(labels > 9).tolist():
            what = f"label {wrong[0]:,} is {labels[wrong[0]]}, and there are ten classes, 0 to 9"
            raise DataError(f"{folder}: {part}-labels-idx1-ubyte: {what}")
    name = os.path.basename(os.path.abspath(folder))
    return Digits(name, 255, train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32))


def _find(folder: str, name: str) -> str:
    """Return the path of a file that is there as it is or compressed."""
    for path in (os.path.join(folder, name), os.path.join(folder, f"{name}.gz")):
        if os.path.isfile(path):
            return path
    raise DataError(f"{folder}: has neither {name} nor {name}.gz")


def read_idx(path: str) -> np.ndarray:
    """Read a file of bytes in the IDX format: images (n, rows, columns) or labels (n,), as its name says.

    The header is two zeros, 8 for bytes, the number of axes, and their lengths as big-endian numbers of four bytes.
    Raises: DataError.
    """
    axes = 3 if "idx3" in os.path.basename(path) else 1
    magic = bytes((0, 0, 8, axes))
    opened = gzip.open if path.endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            header = file.read(4 + 4 * axes)
            if header[:4] != magic:
                what = f"{header[:4].hex() or 'nothing'}, and a file of {KINDS[axes]} with {magic.hex()}"
                raise DataError(f"{path}: begins with {what}: it is another file")
            if len(header) < 4 + 4 * axes:
                raise DataError(f"{path}: ends within its header")
            shape = tuple(int(length) for length in np.frombuffer(header, ">u4", offset=4))
            size = math.prod(shape)
            if not 0 < size <= LIMIT:
                raise DataError(f"{path}: its header states {_times(shape)} bytes, and 1 to {LIMIT:,} are read")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if len(data) != size:
        more = f"{len(data):,}" if len(data) < size else "more"
        raise DataError(f"{path}: its header states {_times(shape)} = {size:,} bytes, and {more} follow")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{length:,}" for length in shape)


def prepare(images: np.ndarray, white: int) -> np.ndarray:
    """Resize images to SIZE pixels and their values to [-1, 1]: (n, rows, columns) -> float32 (n, 1, SIZE, SIZE).

    It is written in NumPy, so that all frameworks get the same pixels.
    """
    rows, columns = _bilinear(images.shape[1]), _bilinear(images.shape[2])
    scaled = images.astype(np.float32) * np.float32(2 / white) - 1
    return (rows @ scaled @ columns.T)[:, None]


def _bilinear(pixels: int) -> np.ndarray:
    """Return the weights of `pixels` old pixels in each of SIZE new ones: a matrix (SIZE, pixels)."""
    centers = (np.arange(SIZE) + 0.5) * pixels / SIZE - 0.5  # of the new pixels, in old pixels
    distance = np.abs(np.clip(centers, 0, pixels - 1)[:, None] - np.arange(pixels))
    return np.maximum(0, 1 - distance).astype(np.float32)


def shift(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each image (n, 1, SIZE, SIZE) by up to SHIFT pixels at random, over a black background."""
    padded = np.pad(images, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), constant_values=-1)
    offsets = rng.integers(0, 2 * SHIFT + 1, (len(images), 2))
    return np.stack([
        image[:, y : y + SIZE, x : x + SIZE] for image, (y, x) in zip(padded, offsets, strict=True)
    ])  # fmt: skip
