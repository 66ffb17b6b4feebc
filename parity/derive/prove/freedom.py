"""List what may be permuted without effect: hidden units, the order inside a head, terms of a sum."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from convert.folding import fold
from parity.derive.limits import FREE_OPERATIONS, FREE_RUNS, LARGE_MODEL
from parity.derive.match.reach import Reach, is_matrix
from parity.derive.match.symbols import Elements, Filled, Use
from parity.derive.match.uses import compact
from parity.derive.match.walk import Walk
from parity.derive.trace.outputs import equal
from parity.derive.trace.program import Program
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array
from specs.notation.paths import normal

AHEAD = 6  # uses of matrices after the first that may undo its permutation
TRIES = 2  # blocks in which an exchange of the nearest names is tried, until one has no effect

UNTRIED = "not tried, as it takes many runs of the model: which units may be permuted"
UNTRIED_OTHERS = "not tried, as it takes many runs of the model: which other units may be permuted"
LETTERS = "ijklmn"  # of numbers that vary
NUMBER = re.compile(r"\d+")
BETWEEN = re.compile(r" (?:with|and) ")  # the names in a text
RIGHT = re.compile(r" \(right: [^()]*\)")  # what the right side calls one

WITHIN = {0: ", within some groups of neighbours on the left", 1: ""}  # by the number of groups, 0: of unequal sizes

Pairs = list[tuple[Array, Array]]  # elements that are exchanged
Units = tuple[list[int], list[int]]  # numbers of units, and of those that they are exchanged for


@dataclass(frozen=True)
class Exchange:
    """A way to exchange units.

    Args:
      width: how many there are; 0 of terms, which are exchanged as a whole.
      of: returns the elements that are exchanged with some units.
    """

    width: int
    of: Callable[[Units], Pairs]

    @cached_property
    def pairs(self) -> Pairs:
        """Return the elements of the first two units and of the last two, as the first may be dead."""
        return self.of(([0, self.width - 2], [1, self.width - 1]) if self.width > 3 else ([0], [1]))

    def within(self, groups: int) -> Pairs:
        """Return the elements of the first and the last unit of each of so many groups of neighbours."""
        size = self.width // groups
        firsts = list(range(0, self.width, size))
        return self.of((firsts, [first + size - 1 for first in firsts]))

    @property
    def divisions(self) -> list[int]:
        """Return into how many equal groups of two units or more they may be divided."""
        return [n for n in range(2, self.width // 2 + 1) if self.width % n == 0]


def freedom(left: Side, program: Program, elements: Filled, inputs: Mapping[str, Array],
            partners: Mapping[str, Sequence[str]], runs: int) -> tuple[list[str], str]:  # fmt: skip
    """Return permutations of the left model's elements that leave its outputs as they are, and what was not tried.

    Args:
      partners: the right parameters that each left one becomes.
      runs: how often the model is run at most.
    """

    def run() -> list[Array]:
        if len(elements) < LARGE_MODEL:
            return left.run(elements.arrays, inputs)
        return Program(program.tape, elements.arrays, list(inputs.values())).outputs  # in less memory

    uses = list[Use]()
    Walk(program, elements, lambda use: uses.append(compact(use))).run()
    kinds: dict[str, dict[Hashable, dict[str, list[Exchange]]]] = {}
    every = _candidates(uses, elements, program, partners)
    for _, template, text, exchange in sorted(every, key=lambda one: one[0]):
        kinds.setdefault(template, {}).setdefault(spacing(text), {}).setdefault(text, []).append(exchange)
    trial = _Trial(run, elements, runs)
    ranked = [(k, alike) for kind in kinds.values() for k, alike in enumerate(kind.values())]
    ranked.sort(key=lambda one: one[0])  # the nearest of each kind first
    texts = [text for k, alike in ranked for text in trial.free(alike, 1 if k else TRIES)]
    left.release()
    return texts, (UNTRIED_OTHERS if texts else UNTRIED) if trial.late else ""


def affordable(program: Program) -> int:
    """Return how often a model may be run, by its arithmetic: the same at each time."""
    return min(FREE_RUNS, FREE_OPERATIONS // max(sum(program.costs), 1))


class _Trial:
    """Runs a model with elements exchanged.

    Args:
      runs: how often at most.
    """

    def __init__(self, run: Callable[[], list[Array]], elements: Filled, runs: int):
        self._run, self.elements, self.before = run, elements, run()
        self.runs, self.late = runs - 1, False

    def free(self, kind: Mapping[str, Sequence[Exchange]], tries: int) -> list[str]:
        """Return in which blocks an exchange has no effect: all are tried at once, or one by one.

        Args:
          kind: texts that differ in the number of their block alone, each with ways to exchange.
          tries: in how many of them an exchange is tried that has an effect.
        """
        for text in itertools.islice(kind, tries):
            for k, way in enumerate(kind[text]):
                if self.runs < 3:  # for two elements, and for all others
                    self.late = True
                    return []
                if not self._same(way.pairs) or not self._matters(way.pairs):
                    continue
                others = {other: ways[k] for other, ways in kind.items() if other != text and k < len(ways)}
                every = [one.pairs for one in others.values()]
                if not _disjoint([way.pairs, *every]) or not self._same([pair for pairs in every for pair in pairs]):
                    others = {other: its for other, its in others.items() if self._same(its.pairs)}
                return self._in_groups({text: way, **others})
        return []

    def _in_groups(self, ways: Mapping[str, Exchange]) -> list[str]:
        """State each exchange of neighbours, and within how many groups it is free, as those of a norm or of heads."""
        stated, rest = list[str](), dict(ways)
        while rest:
            first, *_ = rest
            groups, alike = 1, rest
            if not self._free(rest.values(), 1):
                groups = self._groups(rest[first])
                if groups and not self._free(rest.values(), groups):
                    alike = {text: way for text, way in rest.items() if text == first or self._free([way], groups)}
            within = f", within each of {groups} groups of neighbours on the left"  # the right one may have others
            stated.append(numbered([*alike]) + WITHIN.get(groups, within))
            rest = {text: way for text, way in rest.items() if text not in alike}
        return [] if self.late else stated

    def _groups(self, way: Exchange) -> int:
        """Return the least number of equal groups within which units are free to change places; 0 if there is none."""
        return next((groups for groups in (1, *way.divisions) if self._free([way], groups)), 0)

    def _free(self, ways: Collection[Exchange], groups: int) -> bool:
        """Tell whether the first and the last unit of each of so many groups may change places."""
        some = [way for way in ways if way.width > 2]
        fits = all(way.width % groups == 0 for way in some)
        return fits and (not some or self._same([pair for way in some for pair in way.within(groups)]))

    def _same(self, pairs: Pairs) -> bool:
        """Tell whether an exchange has no effect; one that is not tried any more counts as having one."""
        self.runs, self.late = self.runs - 1, self.late or self.runs < 1
        with exchanged(self.elements, pairs):
            return self.runs >= 0 and equal(self.before, self._run())

    def _matters(self, pairs: Pairs) -> bool:
        """Tell whether a part of an exchange has an effect alone: with units that are dead or alike, all has none."""
        self.runs -= 1
        with exchanged(self.elements, pairs[:1], 1.0 if len(pairs) > 1 else 2.0):
            return not equal(self.before, self._run())


def _disjoint(exchanges: Sequence[Pairs]) -> bool:
    """Tell whether no element is in two exchanges: twice would be none."""
    every = [np.unique(np.concatenate([np.ravel(side) for pair in pairs for side in pair])) for pairs in exchanges]
    return len(np.unique(np.concatenate(every))) == sum(map(len, every))


def numbered(texts: Sequence[str]) -> str:
    """State in one line what holds in several blocks, with numbers written as in a Table.

    "outputs of fc1.0 with inputs of fc2.0" and the same of 1 and 2 are
    "outputs of fc1.{i} with inputs of fc2.{i} for i = 0..2", and numbers 1, 3 and 5 beside 0, 1 and 2 are {2*i+1}.
    Where two numbers vary it ends in "for i.j = {0..1}.{0..1}, 2.{0..5}".
    """
    words = re.split(r"(\d+)", texts[0])
    rows = [[int(number) for number in NUMBER.findall(text)] for text in texts]
    columns = {at: column for at, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1}
    free = list[tuple[int, ...]]()  # of each letter, its numbers
    for at, column in columns.items():
        base = min((other for other in columns.values() if _steps(column, other)), key=lambda one: max(one) - min(one))
        if base not in free:
            free.append(base)
        times, ahead = _steps(column, base) or (1, 0)
        letter = LETTERS[free.index(base)]
        words[2 * at + 1] = f"{{{f'{times}*' if times > 1 else ''}{letter}{f'{ahead:+}' if ahead else ''}}}"
    if not free:
        return texts[0]
    folded = fold(".".join(map(str, numbers)) for numbers in zip(*free, strict=True))
    values = ", ".join(folded) if len(free) > 1 else folded[0].strip("{}")
    return f"{''.join(words)} for {'.'.join(LETTERS[: len(free)])} = {values}"


def _steps(column: Sequence[int], base: Sequence[int]) -> tuple[int, int] | None:
    """Return a and b if each number of a column is a times that of the base, plus b; a is positive."""
    (low, first), (high, last) = min(pairs := set(zip(base, column, strict=True))), max(pairs)
    times, rest = divmod(last - first, high - low)
    fits = times > 0 and not rest and all(number == first + times * (other - low) for other, number in pairs)
    return (times, first - times * low) if fits else None


def spacing(text: str) -> tuple[int, ...] | str:
    """Return how far the numbers of the other left names in a text are ahead of those of the first one.

    Blocks in which it is the same are alike: 0 and 0 are as 1 and 1, and not as 0 and 1. Of names with unequal counts
    of numbers, those are alike that differ in what both begin with: the text without the numbers of that.
    """
    text = RIGHT.sub("", text)
    names = BETWEEN.split(text.partition(": ")[0])  # without what is said of a sum
    numbers = [[int(number) for number in NUMBER.findall(name)] for name in names]
    if len({len(some) for some in numbers}) > 1:
        words = [re.split(r"(?<=[./])", name.split(" ", 2)[-1]) for name in names]  # after "outputs of", "inputs of"
        same = itertools.takewhile(lambda some: len(set(some)) == 1, zip(*words, strict=False))
        path = "".join(word for word, *_ in same)
        return text.replace(path, NUMBER.sub("#", path)) if path else text
    return tuple(b - a for other in numbers[1:] for a, b in zip(numbers[0], other, strict=True))


def both(names: Sequence[str], partners: Mapping[str, Sequence[str]]) -> str:
    """Name left parameters and the right ones that they become, if these are called otherwise."""
    others = list(dict.fromkeys(other for name in names for other in partners.get(name, ())))
    return ", ".join(names) + (f" (right: {', '.join(fold(others))})" if others and others != list(names) else "")


def _candidates(
    uses: list[Use], elements: Elements, program: Program, partners: Mapping[str, Sequence[str]]
) -> Iterator[tuple[int, str, str, Exchange]]:
    """Yield (how many matrices the second one is ahead, template, what it says, the units to exchange)."""
    reach, sites = Reach(program, uses, elements), [node.site for node in program.tape.nodes]
    for k, use in enumerate(uses):
        if not is_matrix(use) or use.ids.shape[2] < 2:
            continue
        width, between, seen = use.ids.shape[2], list[Use](), 0
        for other in uses[k + 1 :]:
            if other.kind in ("add", "mul") or (other.kind == "product" and len(other.ids) == width):
                between.append(other)
            if not is_matrix(other):
                continue
            seen += 1
            if seen > AHEAD:
                break
            names = [both(elements.owners(one.ids), partners) for one in (use, other)]
            if names[0] == names[1]:
                continue
            template = normal(" ".join(names))
            beside = [u for u in uses if u.kind == "add" and sites[u.node] and sites[u.node] == sites[use.node]]
            beside_other = [u for u in uses if u.kind == "add" and sites[u.node] and sites[u.node] == sites[other.node]]
            if other.ids.shape[1] and other.ids.shape[1] % width == 0 and reach.undoes(use, other):
                text = f"outputs of {names[0]} with inputs of {names[1]}"
                for more in (between, []):
                    units = partial(_elements, width, [use], [other], [*more, *beside], beside_other)
                    yield seen, f"{template} in", text, Exchange(width, units)
            if other.ids.shape[2] == width and reach.meet(use, other):
                text, biases = f"outputs of {names[0]} with outputs of {names[1]}", [*beside, *beside_other]
                units = partial(_elements, width, [use, other], [], biases, ())
                yield seen, f"{template} out", text, Exchange(width, units)
                for third, inside in _readers(reach, uses[k + 1 :], use, other):
                    third_name = both(elements.owners(third.ids), partners)
                    text = f"outputs of {names[0]} and {names[1]} with inputs of {third_name}"
                    units = partial(_elements, width, [use, other], [third], [*inside, *biases], ())
                    yield seen, f"{template} gate", text, Exchange(width, units)
    yield from ((0, *term) for term in _terms(uses, elements, reach, partners))


def _readers(reach: Reach, later: Sequence[Use], use: Use, other: Use) -> Iterator[tuple[Use, list[Use]]]:
    """Yield the matrix that alone reads outputs of two others, one of which is a gate, and the sums before it."""
    if not reach.gate(use, other):
        return
    for at, third in enumerate(later):
        fits = is_matrix(third) and third.ids.shape[1] % use.ids.shape[2] == 0
        if fits and reach.undoes(use, third) and reach.undoes(other, third):
            yield third, [one for one in later[:at] if one.kind == "add"]


def _elements(
    width: int, columns: Sequence[Use], channels: Sequence[Use], vectors: Sequence[Use], without: Sequence[Use],
    units: Units,
) -> Pairs:  # fmt: skip
    """Return the elements that are exchanged with units: columns of products, inputs of others, parts of vectors."""
    one, another = units
    own = [(use.ids[0][:, one].ravel(), use.ids[0][:, another].ravel()) for use in columns]
    inputs = [use.ids[0].reshape(width, -1) for use in channels]  # of each channel its taps, one after the other
    into = [(ids[one].ravel(), ids[another].ravel()) for ids in inputs]
    return own + into + _vectors(vectors, width, without, units)


def _vectors(uses: Sequence[Use], width: int, without: Sequence[Use], units: Units) -> Pairs:
    """Return the elements of each vector of this width, and of each kernel of as many channels, that are exchanged."""
    found, (one, another) = dict[int, tuple[Array, Array]](), units
    for use in uses:
        if use.kind == "product":  # of each channel alone
            found[int(use.ids.flat[0])] = (use.ids[one].ravel(), use.ids[another].ravel())
            continue
        _, first = np.unique(use.ids, return_index=True)
        flat = np.ravel(use.ids)[np.sort(first)]
        flat = flat[flat > 0]
        if len(flat) == width and not any(use is other for other in without):
            found[int(flat[0])] = (flat[one], flat[another])
    return list(found.values())


def _terms(
    uses: list[Use], elements: Elements, reach: Reach, partners: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, Exchange]]:
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
            together = use.group[:2] == other.group[:2]
            if name == its or len(one) != len(two):
                continue
            if together or (whole and entire and reach.add_up(use, other)):
                found.setdefault((name, its), []).append((one, two))
    for (name, its), pairs in found.items():
        one, two = np.unique(np.concatenate([np.stack(pair) for pair in pairs], 1), axis=1)
        template = normal(f"{name} {its}")
        if len(np.unique(one)) == len(np.unique(two)) == len(one):
            whole = len(one) == sum(int(np.prod(elements.shapes[owner])) for owner in elements.owners(one))
            effect = "only their sum has an effect" if whole else "of some elements, only the sum has an effect"
            yield f"{template} sum", f"{name} and {its}: {effect}", Exchange(0, partial(_terms_themselves, (one, two)))


def _terms_themselves(terms: tuple[Array, Array], _: Units) -> Pairs:
    return [terms]


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
