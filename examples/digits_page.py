"""Show what `digits.py` did as one HTML page with pictures, confusion matrices and curves."""

from __future__ import annotations

import base64
import platform
import struct
import zlib
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from digits_plot import Line, plot
from digits_result import FRAMEWORKS, Result

from parity.page.markup import Markup, join, prose, tag
from specs.numbers import limit, short

if TYPE_CHECKING:
    from digits_data import Digits

WORST = 12  # images in the gallery
SUMMARY = ("same classes", "logits differ by", "closest decision")  # columns after the accuracies


def page(results: Sequence[Result], digits: Digits, seed: int) -> str:
    """Build the page: no network, no script, light and dark, wide and narrow."""
    agree = all(result.agrees for result in results)
    count = len(digits.test_labels)
    verdict = (
        f"Three frameworks put all {count:,} images into the same classes"
        if agree
        else "The three frameworks do not put all images into the same classes"
    )
    names = " and ".join(result.title for result in results)
    shared = resources.files("parity.page").joinpath("assets", "page.css").read_text("utf-8")
    own = Path(__file__).with_name("digits.css").read_text("utf-8")
    head = join(
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        tag("title", "Digits in three frameworks"),
        tag("style", Markup(f"\n{shared}{own}")),
    )
    body = join(
        tag("header", tag("p", "Triptych example", class_="kicker"),
            tag("h1", prose(verdict), class_="good" if agree else "bad"),
            tag("p", prose(f"{names}, trained in Flax, converted to PyTorch and PaddlePaddle."), class_="totals")),
        _samples(digits),
        _summary(results),
        *(_model(result, digits) for result in results),
        _provenance(digits, seed),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def _samples(digits: Digits) -> Markup:
    """Show the first test image of each class, as the models see it."""
    chosen = [int(np.flatnonzero(digits.test_labels == label)[0]) for label in np.unique(digits.test_labels)]
    rows, columns = digits.test_images.shape[1:]
    what = (
        f"{digits.name}: {len(digits.train_labels):,} images to train and {len(digits.test_labels):,} to test, of "
        f"{rows} x {columns} pixels, resized to 48 x 48. One test image of each class:"
    )
    return tag("section", tag("p", what, class_="soft"),
               tag("div", *(_picture(digits, number) for number in chosen), class_="strip"))  # fmt: skip


def _summary(results: Sequence[Result]) -> Markup:
    heads = ["model", "parameters", "seconds", *FRAMEWORKS.values(), *SUMMARY]
    rows = []
    for result in results:
        cells = [f"{result.parameters:,}", f"{result.seconds:.0f}"]
        cells += [f"{result.accuracy(framework):.2%}" for framework in FRAMEWORKS]
        cells += ["yes" if result.agrees else "no", limit(result.difference), limit(result.margin)]
        named = zip(heads[1:], cells, strict=True)
        rows.append(tag("tr", tag("th", result.title, scope="row"), *(
            tag("td", cell, data_label=head, class_="failed" if cell == "no" else None) for head, cell in named
        )))  # fmt: skip
    note = (
        "Seconds are those of the training in Flax, and percentages are accuracies on the test images. "
        "A class would change only where frameworks differ by more than a decision is close: the difference of an "
        "image's two largest logits."
    )
    table = tag("table", tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
                tag("tbody", *rows), class_="matrix")  # fmt: skip
    return tag("section", tag("h2", "The same accuracy in all three"), tag("div", table, class_="scroll"),
               tag("p", note, class_="soft after"))  # fmt: skip


def _model(result: Result, digits: Digits) -> Markup:
    wrong = int((result.logits["flax"].argmax(1) != result.labels).sum())
    return tag(
        "section",
        tag("h2", result.title),
        tag("p", f"{result.parameters:,} parameters; {len(result.labels) - wrong:,} of {len(result.labels):,} test "
                 f"images right, {wrong:,} wrong.", class_="soft"),
        tag("div", _curve_of_loss(result), _curve_of_accuracy(result), class_="panels"),
        tag("h3", "Confusion matrices"),
        tag("p", "Rows are labels, columns are predictions. Errors are red.", class_="soft"),
        tag("div", *(_matrix(result, framework) for framework in FRAMEWORKS), class_="matrices"),
        tag("h3", f"The {WORST} worst-classified images"),
        tag("p", "Their label has the least probability, which each framework computes on its own.", class_="soft"),
        tag("div", *_gallery(result, digits), class_="gallery"),
        tag("h3", "PyTorch goes on where Flax stands halfway"),
        _continuation(result),
    )  # fmt: skip


def _matrix(result: Result, framework: str) -> Markup:
    counts = result.confusion(framework)
    rows = [tag("tr", tag("th", ""), *(tag("th", str(n), scope="col") for n in range(10)))]
    for label, row in enumerate(counts):
        cells = []
        for predicted, count in enumerate(row):
            share = 100 * count / max(row.sum(), 1)
            right = label == predicted
            shade = f"--share: {share if right else 50 + 0.5 * share:.0f}%" if count else None
            kind = ("right" if right else "wrong") if count else "zero"
            name = f"label {label}, predicted {predicted}: {count}"
            cells.append(tag("td", str(count) if count else "·", class_=kind, style=shade, title=name))
        rows.append(tag("tr", tag("th", str(label), scope="row"), *cells))
    caption = tag("caption", tag("b", FRAMEWORKS[framework]), f" {result.accuracy(framework):.2%}")
    return tag("table", caption, tag("tbody", *rows), class_="confusion")


def _gallery(result: Result, digits: Digits) -> list[Markup]:
    """Show the images whose label has the least probability, with the probabilities of label and prediction."""
    each = {framework: result.probabilities(framework) for framework in FRAMEWORKS}
    labels = result.labels
    order = np.argsort(each["flax"][np.arange(len(labels)), labels], kind="stable")[:WORST]
    items = []
    for number in order.tolist():
        label, predicted = int(labels[number]), int(each["flax"][number].argmax())
        right = predicted == label
        said = f"{label}, predicted {predicted}"
        rows = [
            join(tag("dt", FRAMEWORKS[framework]), tag("dd", _bar(float(values[number, label]), right)))
            for framework, values in each.items()
        ]
        items.append(tag("figure", _picture(digits, number),
                         tag("figcaption", tag("b", said, class_=None if right else "wrong-text"),
                             tag("dl", *rows)), class_="digit-card"))  # fmt: skip
    return items


def _bar(share: float, right: bool) -> Markup:
    width = max(100 * share, 1)
    bar = tag("span", "", class_="bar right-bar" if right else "bar wrong-bar", style=f"width: {width:.1f}%")
    return join(tag("span", bar, class_="track"), tag("span", f"{share:.3%}", class_="share"))


def _continuation(result: Result) -> Markup:
    carried, fresh = result.continued["carried"], result.continued["fresh"]
    steps = list(range(result.halfway, result.halfway + len(carried)))
    before = range(max(result.halfway - len(carried) // 2, 0), result.halfway + len(carried))
    lines = [
        Line("Flax", list(before), result.losses[before[0] : before[-1] + 1], 0),
        Line("PyTorch with the optimizer's state", steps, carried, 1, points=True, joined=False),
        Line("PyTorch without it", steps, fresh, 3),
    ]
    errors = {name: short(result.deviation(name)) for name in ("carried", "fresh")}
    text = (
        f"The TrainState of step {result.halfway} was converted with --with-optimizer. PyTorch then took {len(steps)} "
        f"steps on the same batches, in float32. Its losses differ from Flax's by {errors['carried']} of "
        f"their value at most. With the same weights and a new AdamW they differ by {errors['fresh']}."
    )
    return tag("div", plot("Loss of each step", lines, log=True, mark=result.halfway),
               tag("p", prose(text), class_="beside"), class_="panels")  # fmt: skip


def _curve_of_loss(result: Result) -> Markup:
    size = max(len(result.losses) // max(len(result.accuracies), 1), 1)
    means = [float(np.mean(result.losses[k : k + size])) for k in range(0, len(result.losses), size)]
    middles = [k * size + size / 2 for k in range(len(means))]
    lines = [Line("of each step", list(range(len(result.losses))), result.losses, 0, faint=True),
             Line("mean of an epoch", middles, means, 0)]  # fmt: skip
    return plot("Training loss, by step", lines, log=True)


def _curve_of_accuracy(result: Result) -> Markup:
    epochs = list(range(1, len(result.accuracies) + 1))
    errors = [100 * accuracy for accuracy in result.accuracies]
    return plot("Accuracy on the test images in percent, by epoch", [Line("accuracy", epochs, errors, 2, points=True)])


def _picture(digits: Digits, number: int) -> Markup:
    """Show a test image as the models see it: ink on transparent ground, which the style inverts if it is dark."""
    pixels = (digits.test(slice(number, number + 1))[0, 0] + 1) / 2
    address = "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()
    label = f"test image {number}, labelled {digits.test_labels[number]}"
    return Markup(f'<img class="digit" src="{address}" alt="{label}" title="{label}" width="48" height="48">')


def _png(ink: np.ndarray) -> bytes:
    """Encode how much ink, from 0 to 1, each pixel has, as a PNG of black with that opacity."""
    opacity = np.clip(ink * 255 + 0.5, 0, 255).astype(np.uint8)
    rows = np.stack([np.zeros_like(opacity), opacity], -1).reshape(len(opacity), -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # each after the number of its filter: none
    header = struct.pack(">IIBBBBB", opacity.shape[1], opacity.shape[0], 8, 4, 0, 0, 0)  # 8 bits, grey and opacity
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _provenance(digits: Digits, seed: int) -> Markup:
    packages = ("triptych-ports", "flax", "jax", "optax", "torch", "paddlepaddle", "numpy")
    facts = {
        "data": digits.name,
        "seed": str(seed),
        "optimizer": "AdamW, with the learning rate as a cosine after a rise",
        "Python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }
    rows = [join(tag("dt", label), tag("dd", prose(value))) for label, value in facts.items()]
    return tag("section", tag("h2", "What was run"), tag("div", tag("dl", *rows), class_="provenance"))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
