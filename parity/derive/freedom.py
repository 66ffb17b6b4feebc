"""What may be permuted without effect: hidden units, the order inside a head, terms of a sum."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping

import numpy as np

from .sides import Side
from .tape import Array
from .walk import Elements, Program, Use, Walk

AHEAD = 6  # uses of matrices after the first that may undo its permutation
SAME = 1e-9  # relative difference of outputs that rounding explains


def freedom(left: Side, program: Program, weights: Mapping[str, Array], inputs: Mapping[str, Array],
            seconds: float = 3) -> list[str]:  # fmt: skip
    """List permutations of the left model's elements that leave its outputs as they are.

    Each is confirmed by a run with two elements exchanged. Of blocks that differ in their numbers alone, the first is
    tried. An order that no line of a Table can choose wrongly is not listed: a permutation that any one side fixes.
    """
    stop, uses = time.monotonic() + seconds, list[Use]()
    elements = Elements(weights, known=True)
    Walk(program, elements, uses.append).run()
    before = left.run(weights, inputs)
    found: dict[str, str] = {}
    for template, text, pairs in _candidates(uses, elements):
        if time.monotonic() > stop:
            break
        if template in found:
            continue
        after = left.run(_exchanged(elements, pairs), inputs)
        found[template] = text if _equal(before, after) else ""
    return [text for text in found.values() if text]


def _candidates(uses: list[Use], elements: Elements) -> Iterator[tuple[str, str, list[tuple[Array, Array]]]]:
    """(template, what it says, the elements to exchange)."""
    for k, use in enumerate(uses):
        if use.kind != "product" or len(use.ids) > 1 or use.ids.shape[2] < 2:
            continue
        between, seen = list[Use](), 0
        for other in uses[k + 1 :]:
            if other.kind in ("add", "mul"):
                between.append(other)
            if other.kind != "product" or len(other.ids) > 1:
                continue
            seen += 1
            if seen > AHEAD:
                break
            width = use.ids.shape[2]
            own = [(use.ids[0, :, 0], use.ids[0, :, 1]), *_vectors(between, width)]
            names = " ".join(elements.owners(use.ids)), " ".join(elements.owners(other.ids))
            if names[0] == names[1]:
                continue
            template = re.sub(r"\d+", "#", " ".join(names))
            if other.ids.shape[1] == width:
                into = [(other.ids[0, 0], other.ids[0, 1])]
                yield f"{template} in", f"outputs of {names[0]} with inputs of {names[1]}", own + into
            if other.ids.shape[2] == width:
                beside = [(other.ids[0, :, 0], other.ids[0, :, 1])]
                text = f"outputs of {names[0]} with outputs of {names[1]}"
                yield f"{template} out", text, own + beside
    yield from _terms(uses, elements)


def _vectors(uses: list[Use], width: int) -> Iterator[tuple[Array, Array]]:
    for use in uses:
        _, first = np.unique(use.ids, return_index=True)
        flat = np.ravel(use.ids)[np.sort(first)]
        flat = flat[flat > 0]
        if len(flat) == width:
            yield flat[:1], flat[1:2]


def _terms(uses: list[Use], elements: Elements) -> Iterator[tuple[str, str, list[tuple[Array, Array]]]]:
    """Vectors that are added at one place: only their sum counts."""
    vectors = [(use, np.unique(use.ids[use.ids > 0])) for use in uses if use.kind == "add"]
    for k, (use, one) in enumerate(vectors):
        for other, two in vectors[k + 1 :]:
            if other.node != use.node and not np.array_equal(np.shape(use.x), np.shape(other.x)):
                continue
            names = " ".join(elements.owners(one)), " ".join(elements.owners(two))
            if names[0] != names[1] and len(one) == len(two):
                template = re.sub(r"\d+", "#", " ".join(names))
                yield f"{template} sum", f"{names[0]} and {names[1]}: only their sum has an effect", [(one, two)]


def _exchanged(elements: Elements, pairs: list[tuple[Array, Array]]) -> dict[str, Array]:
    values = elements.values.copy()
    for a, b in pairs:
        a, b = a.astype(np.int64), b.astype(np.int64)
        values[a], values[b] = values[b].copy(), values[a].copy()
    return {name: values[elements.numbers(name).astype(np.int64)] for name in elements.names}


def _equal(a: list[Array], b: list[Array]) -> bool:
    return all(
        np.abs(x - y).max(initial=0) <= SAME * max(np.abs(x).max(initial=0), 1e-300)
        for x, y in zip(a, b, strict=True)
        if x.dtype.kind == "f"
    )
