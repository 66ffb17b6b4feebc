"""List what may be permuted without effect: hidden units, the order inside a head, terms of a sum."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from convert.folding import fold

from ..match.symbols import LARGE, Elements, Filled, Use
from ..match.uses import compact
from ..match.walk import Walk
from ..trace.outputs import equal
from ..trace.program import Program
from ..trace.sides import Side
from ..trace.tape import Array

AHEAD = 6  # uses of matrices after the first that may undo its permutation
TRIES = 2  # exchanges that are tried for each kind of pair

NUMBER = re.compile(r"\d+")
BETWEEN = re.compile(r" (?:with|and) ")  # the two names in a text

Pairs = list[tuple[Array, Array]]  # elements that are exchanged


def freedom(left: Side, program: Program, elements: Filled, inputs: Mapping[str, Array],
            partners: Mapping[str, Sequence[str]], seconds: float = 3) -> list[str]:  # fmt: skip
    """List permutations of the left model's elements that leave its outputs as they are.

    Each is confirmed by a run with two elements exchanged. Of blocks that differ in their numbers alone, the first is
    tried, and the others are named as alike. An order that no line of a Table can choose wrongly is not listed: a
    permutation that any one side fixes.

    Args:
      partners: the right parameters that each left one becomes.
    """

    def run() -> list[Array]:
        if len(elements) < LARGE:
            return left.run(elements.arrays, inputs)
        return Program(program.tape, elements.arrays, list(inputs.values())).outputs  # in less memory

    stop, uses = time.thread_time() + seconds, list[Use]()
    Walk(program, elements, lambda use: uses.append(compact(use))).run()
    before = run()
    found: dict[str, list[str]] = {}
    alike: dict[str, list[str]] = {}
    for template, text, pairs in _candidates(uses, elements, [node.site for node in program.tape.nodes], partners):
        alike.setdefault(template, []).append(text)
        if time.thread_time() > stop:
            continue
        tried = found.setdefault(template, [])
        if len(tried) < TRIES and not any(tried):
            with exchanged(elements, pairs):
                same = equal(before, run())
            tried.append(text if same and _matters(run, elements, pairs, before) else "")
    left.release()
    return [every(text, alike[key]) for key, tried in found.items() for text in tried if text]


def every(text: str, others: Iterable[str]) -> str:
    """State of all blocks what was tried in one.

    "outputs of fc1.0 with inputs of fc2.0" and the same of 1 and 2 are
    "outputs of fc1.{i} with inputs of fc2.{i} for i = 0..2 (tried on block 0)";
    where numbers vary otherwise, all are listed.

    Args:
      others: texts that differ from it in their numbers alone. Those count in which both names are as far ahead.
    """
    alike = [other for other in dict.fromkeys([text, *others]) if _as_far(text, other)]
    if len(alike) < 2:  # none where the two names have unequal counts of numbers
        return text
    rows, own = [re.split(r"(\d+)", one) for one in alike], re.split(r"(\d+)", text)
    varying = [k for k in range(1, len(own), 2) if len({row[k] for row in rows}) > 1]
    ahead = {k: {int(row[k]) - int(row[varying[0]]) for row in rows} for k in varying}
    if any(len(steps) > 1 for steps in ahead.values()):
        return f"{text}; alike, and not tried: {'; '.join(one for one in alike if one != text)}"
    holes = {k: f"{{i{step:+}}}" if step else "{i}" for k, (step,) in ahead.items()}
    words = "".join(holes.get(k, word) for k, word in enumerate(own))
    numbers = fold(row[varying[0]] for row in rows)[0].strip("{}")
    return f"{words} for i = {numbers} (tried on block {own[varying[0]]})"


def _as_far(text: str, other: str) -> bool:
    """Tell whether both names in a text have moved by the same numbers: from blocks 0 and 0 to 1 and 1, not 0 and 1."""
    steps = []
    for half, its in zip(BETWEEN.split(text), BETWEEN.split(other), strict=True):
        pairs = zip(NUMBER.findall(half), NUMBER.findall(its), strict=True)
        steps.append([int(b) - int(a) for a, b in pairs])
    return all(step == steps[0] for step in steps)


def _matters(run: Callable[[], list[Array]], elements: Filled, pairs: Pairs, before: list[Array]) -> bool:
    """Tell whether the elements have an effect at all: those of one exchange are changed alone."""
    with exchanged(elements, pairs[:1], 2.0):
        return not equal(before, run())


def both(names: Sequence[str], partners: Mapping[str, Sequence[str]]) -> str:
    """Name left parameters and the right ones that they become, if these are called otherwise."""
    others = list(dict.fromkeys(other for name in names for other in partners.get(name, ())))
    return ", ".join(names) + (f" (right: {', '.join(others)})" if others and others != list(names) else "")


def _candidates(
    uses: list[Use], elements: Elements, sites: list[str], partners: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, Pairs]]:
    """Yield (template, what it says, the elements to exchange)."""
    for k, use in enumerate(uses):
        if use.kind != "product" or len(use.ids) > 1 or use.ids.shape[2] < 2:
            continue
        width, between, seen = use.ids.shape[2], list[Use](), 0
        for other in uses[k + 1 :]:
            if other.kind in ("add", "mul"):
                between.append(other)
            if other.kind != "product" or len(other.ids) > 1:
                continue
            seen += 1
            if seen > AHEAD:
                break
            names = [both(elements.owners(one.ids), partners) for one in (use, other)]
            if names[0] == names[1]:
                continue
            template = re.sub(r"\d+", "#", " ".join(names))
            beside = [u for u in uses if u.kind == "add" and sites[u.node] and sites[u.node] == sites[use.node]]
            theirs = [u for u in uses if u.kind == "add" and sites[u.node] and sites[u.node] == sites[other.node]]
            own = [(use.ids[0, :, 0], use.ids[0, :, 1])]
            if other.ids.shape[1] == width:
                into = [(other.ids[0, 0], other.ids[0, 1])]
                text = f"outputs of {names[0]} with inputs of {names[1]}"
                for more in (between, []):
                    yield f"{template} in", text, own + into + _vectors([*more, *beside], width, theirs)
            if other.ids.shape[2] == width:
                into = [(other.ids[0, :, 0], other.ids[0, :, 1])]
                text = f"outputs of {names[0]} with outputs of {names[1]}"
                yield f"{template} out", text, own + into + _vectors([*beside, *theirs], width)
    yield from _terms(uses, elements, partners)


def _vectors(uses: list[Use], width: int, without: Sequence[Use] = ()) -> Pairs:
    """Return the first two elements of each vector of this width."""
    found = {}
    for use in uses:
        _, first = np.unique(use.ids, return_index=True)
        flat = np.ravel(use.ids)[np.sort(first)]
        flat = flat[flat > 0]
        if len(flat) == width and not any(use is other for other in without):
            found[int(flat[0])] = (flat[:1], flat[1:2])
    return list(found.values())


def _terms(
    uses: list[Use], elements: Elements, partners: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, Pairs]]:
    """Yield vectors that are added at one place: only their sum counts.

    Gates are added one by one: what all sums have of two parameters is one candidate.
    """
    vectors, found = [], dict[tuple[str, str], Pairs]()
    for use in (use for use in uses if use.kind == "add"):
        numbers = np.unique(use.ids[use.ids > 0])
        names = elements.owners(numbers)
        whole = len(numbers) == sum(int(np.prod(elements.shapes[name])) for name in names)
        vectors.append((use, numbers, both(names, partners), whole))
    for k, (use, one, name, whole) in enumerate(vectors):
        for other, two, its, entire in vectors[k + 1 :]:
            together = use.join[:2] == other.join[:2]
            near = together or other.node == use.node or np.shape(use.x) == np.shape(other.x)
            if near and (together or (whole and entire)) and name != its and len(one) == len(two):
                found.setdefault((name, its), []).append((one, two))
    for (name, its), pairs in found.items():
        one, two = np.unique(np.concatenate([np.stack(pair) for pair in pairs], 1), axis=1)
        template = re.sub(r"\d+", "#", f"{name} {its}")
        if len(np.unique(one)) == len(np.unique(two)) == len(one):
            whole = len(one) == sum(int(np.prod(elements.shapes[owner])) for owner in elements.owners(one))
            effect = "only their sum has an effect" if whole else "of some elements, only the sum has an effect"
            yield f"{template} sum", f"{name} and {its}: {effect}", [(one, two)]


@contextlib.contextmanager
def exchanged(elements: Filled, pairs: Pairs, factor: float = 1.0) -> Iterator[None]:
    """Exchange elements, the first of each pair times a factor, and restore them at the end."""
    values = elements.values
    places = [(a.astype(np.int64), b.astype(np.int64)) for a, b in pairs]
    before = [(values[a], values[b]) for a, b in places]
    for a, b in places:
        values[a], values[b] = factor * values[b], values[a]
    try:
        yield
    finally:
        for (a, b), (first, second) in zip(places, before, strict=True):
            values[a], values[b] = first, second
