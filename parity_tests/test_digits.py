"""examples/digits.py: reading MNIST's files, the same pixels and classes in every framework, the page."""

import gzip
import re
import struct

import digits
import digits_data
import numpy as np
import pytest
from digits_result import Result

from specs.mlp_mixer import Config

from .conftest import needs
from .parity.pages import unbound

IMAGES, LABELS = 0x803, 0x801


def idx(magic, *shape, data=None):
    """Return a file of MNIST's format."""
    data = np.arange(np.prod(shape)) % 7 if data is None else np.asarray(data)
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + data.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    """A folder with four files: 64 images to train and 20 to test, each of 6x6 pixels, in which the labels show."""
    for part, count in (("train", 64), ("t10k", 20)):
        labels = np.arange(count) % 10
        images = np.random.default_rng(count).integers(0, 60, (count, 6, 6))
        images[np.arange(count), labels // 6, labels % 6] = 255
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(IMAGES, count, 6, 6, data=images))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS, count, data=labels)))
    return tmp_path


def test_mnist_is_read_plain_and_compressed(folder):
    data = digits_data.from_folder(str(folder))
    assert data.train_images.shape == (64, 6, 6) and data.test_images.shape == (20, 6, 6)
    assert data.test_labels.tolist() == [*range(10), *range(10)]
    assert data.train_images[7].ravel()[7] == 255
    assert data.test(slice(0, 20)).shape == (20, 1, digits_data.SIZE, digits_data.SIZE)


TRAIN = "train-images-idx3-ubyte"


@pytest.mark.parametrize(("name", "content", "message"), [
    (TRAIN, None, "has neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"),
    (TRAIN, b"", f"{TRAIN}: begins with nothing, and a file of images with 00000803: it is another file"),
    (TRAIN, idx(LABELS, 64), f"{TRAIN}: begins with 00000801, and a file of images with 00000803"),
    (TRAIN, idx(IMAGES, 64, 6, 6)[:9], f"{TRAIN}: ends within its header"),
    (TRAIN, idx(IMAGES, 64, 6, 6)[:-1], f"{TRAIN}: its header states 64 x 6 x 6 = 2,304 bytes, and 2,303 follow"),
    (TRAIN, idx(IMAGES, 64, 6, 6) + b"x", "= 2,304 bytes, and more follow"),
    (TRAIN, idx(IMAGES, 0, 6, 6), "its header states 0 x 6 x 6 bytes, and 1 to 1,073,741,824 are read"),
    (TRAIN, struct.pack(">4I", IMAGES, *[2**32 - 1] * 3), "bytes, and 1 to 1,073,741,824 are read"),
    (TRAIN, idx(IMAGES, 63, 6, 6), "the train files have 63 images and 64 labels"),
    (f"{TRAIN}.gz", idx(IMAGES, 64, 6, 6), f"{TRAIN}.gz: cannot be read: Not a gzipped file"),
    (f"{TRAIN}.gz", gzip.compress(idx(IMAGES, 64, 6, 6))[:-9], f"{TRAIN}.gz: cannot be read: Compressed file ended"),
    ("t10k-labels-idx1-ubyte", idx(LABELS, 20, data=[3] * 19 + [10]), "label 19 is 10, and there are ten classes"),
], ids=lambda value: "" if isinstance(value, bytes) else None)  # fmt: skip
def test_a_bad_file_gives_one_clear_error(name, content, message, folder, capsys, monkeypatch):
    monkeypatch.setattr(digits.ports, "require", lambda framework: None)
    (folder / TRAIN).unlink(missing_ok="train" in name)
    if content is not None:
        (folder / name).write_bytes(content)
    if "train" not in name:
        (folder / TRAIN).write_bytes(idx(IMAGES, 64, 6, 6))
    assert digits.main(["--data", str(folder), "--out", str(folder / "out")]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"digits: {folder}") and message in printed.err and printed.err.count("\n") == 1
    assert not (folder / "out").exists()


def test_images_are_resized_as_torch_does():
    needs("torch")
    import torch

    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8))
    size = (digits_data.SIZE, digits_data.SIZE)
    expected = torch.nn.functional.interpolate(torch.from_numpy(images[:, None] / 8 - 1), size, mode="bilinear")
    assert np.abs(digits_data.prepare(images, 16) - expected.numpy()).max() <= 1e-6  # float32's rounding of [-1, 1]


def test_scikit_learns_digits_are_split_without_overlap():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    data = digits_data.from_sklearn(seed=3)
    assert (len(data.train_labels), len(data.test_labels)) == (1347, 450)
    assert data.train_images.max() == data.white == 16
    again, other = digits_data.from_sklearn(seed=3), digits_data.from_sklearn(seed=4)
    assert np.array_equal(data.test_images, again.test_images)
    assert not np.array_equal(data.test_images, other.test_images)


def test_the_example(folder, monkeypatch, capsys):
    """A tiny Mixer: the same classes everywhere, torch takes Flax's steps, the page shows it; a second run is equal."""
    for framework in digits.FRAMEWORKS:
        needs(framework)
    tiny = Config(patch=24, depth=1, width=16, token_hidden=8, channel_hidden=16, **digits.COMMON)
    monkeypatch.setattr(digits, "MODELS", {"mlp_mixer": digits.Recipe(tiny, epochs=1, peak=2e-3)})
    words = ["--data", str(folder), "--epochs", "5", "--out", str(folder / "out")]
    assert digits.main(words) == 0
    printed = capsys.readouterr().out
    accuracies = re.findall(r"^  (?:Flax|PyTorch|PaddlePaddle) +accuracy (\S+)$", printed, re.MULTILINE)
    assert len(accuracies) == 3 and len(set(accuracies)) == 1
    assert "confusion matrices: equal in all three" in printed
    carried, fresh = (float(error) for error in re.search(r"by (\S+) at most, .* by (\S+)$", printed, re.M).groups())
    assert carried <= 1e-5  # five steps in float32
    assert fresh >= 1e-4

    text = (folder / "out" / "digits.html").read_text()
    assert text.count('class="confusion"') == 3 and text.count(accuracies[0]) >= 6
    assert text.count('class="digit"') == 10 + 12 and text.count("<svg") == 3
    assert "Three frameworks put all 20 images into the same classes" in unbound(text)
    assert not re.search(r"https?://|<script|\bsrc=\"(?!data:)", text)

    before = (folder / "out" / "mlp_mixer.msgpack").read_bytes()
    training = digits.Training(digits_data.from_folder(str(folder)), epochs=5, seed=0, peak=2e-3)
    port = digits.ports.build("mlp_mixer", tiny, "flax", seed=0)
    digits.train_in_flax("mlp_mixer", port, training, str(folder / "out"))
    assert (folder / "out" / "mlp_mixer.msgpack").read_bytes() == before


def test_a_mobile_former_starts_from_zeros():
    """Each part of the pattern names parameters; no others change; with a zero classifier all classes are as likely."""
    needs("flax")
    from flax.traverse_util import flatten_dict

    recipe = digits.MODELS["mobile_former"]
    port = digits.ports.build("mobile_former", recipe.config, "flax", seed=0)
    before = flatten_dict(port.model[1]["params"], sep="/")
    after = flatten_dict(digits.with_zeros(port.model, recipe.zeros)[1]["params"], sep="/")
    zeroed = {path for path in after if np.any(before[path]) and not np.any(after[path])}
    assert {re.sub(r"blocks_\d/", "", path) for path in zeroed} == {
        "former/attention/output/kernel", "former/mlp/fc2/kernel", "head/fc2/kernel", "mobile/hyper/norm/scale",
        "to_former/output/kernel", "to_mobile/value/kernel",
    }  # fmt: skip
    assert all(np.array_equal(before[path], after[path]) for path in after.keys() - zeroed)
    assert not np.any(after["head/fc2/bias"])


def test_a_difference_is_seen():
    logits = np.random.default_rng(0).standard_normal((20, 10)).astype(np.float32)
    other = logits.copy()
    other[3] = other[3, ::-1]
    same = {"flax": logits, "torch": logits + np.float32(1e-6), "paddle": logits}
    labels = logits.argmax(1)
    result = Result("mlp_mixer", 1, 1.0, [1.0], [1.0], 0, labels=labels, logits=same)
    assert result.agrees and result.accuracy("torch") == 1.0 and 0 < result.difference <= 2e-6
    assert np.array_equal(result.confusion("flax"), np.diag(np.bincount(labels, minlength=10)))
    result.logits["paddle"] = other
    assert not result.agrees and result.accuracy("paddle") == 0.95
    assert "confusion matrices: NOT equal" in result.table()
