"""Run both models on the same weights, and pair the uses of the same elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.derive.limits import EQUAL_OUTPUTS, PARTED_USES
from parity.derive.match import columns
from parity.derive.match.choices import every
from parity.derive.match.stepped import Stepped
from parity.derive.match.symbols import Elements, Use
from parity.derive.match.uses import compact, statistics
from parity.derive.match.walk import Walk
from parity.derive.trace.outputs import parted, size_of
from parity.derive.trace.precomputed import nearest
from parity.derive.trace.program import Program
from parity.derive.trace.sites import OUTPUT, place
from parity.derive.trace.tape import Array, Tape


class Run(NamedTuple):
    """A side (0 for the left) with weights: its tape, what runs it, and each use of a parameter in order."""

    side: int
    tape: Tape
    weights: Mapping[str, Array]
    inputs: Sequence[Array]
    elements: Elements
    program: Program
    uses: list[Use]

    def site(self, use: Use | None) -> str:
        if use is None:
            return OUTPUT
        return place(self.tape.nodes[use.node].site, self.elements.owners(use.ids))

    def kind_and_names(self, use: Use | None) -> tuple[str, tuple[str, ...]] | tuple[()]:
        """Return the kind of a use and its parameters; () for the outputs."""
        return () if use is None else (use.kind, tuple(self.elements.owners(use.ids)))


class Mapped(NamedTuple):
    """The left element of each right one.

    Args:
      whole: whether each has one that needs one; else uses after the first of others tell nothing.
      plus: a second left element that is added to the first one, or 0; None where there are none.
    """

    numbers: Array
    whole: bool = True
    plus: Array | None = None

    def owned(self, lefts: Elements) -> Array:
        """Tell of each left element whether a right one has it, alone or as a term."""
        marks = np.zeros(len(lefts), bool)
        for numbers in (self.numbers,) if self.plus is None else (self.numbers, self.plus):
            marks[np.maximum(numbers, 0)] = True
        return marks


class Pair(NamedTuple):
    """Uses of the same elements; None for the outputs.

    Args:
      gap: the relative difference of what they meet; infinite where that cannot be compared, as of a fused use.
    """

    left: Use | None
    right: Use | None
    gap: float

    @property
    def parts(self) -> bool:
        """Tell whether the sides are seen to meet other values; of outputs, all that is not proven equal parts."""
        return (EQUAL_OUTPUTS if self.right is None else PARTED_USES) < self.gap < math.inf


def run(tape: Tape, weights: Mapping[str, Array], inputs: Sequence[Array], side: int) -> Run:
    """Run a tape, and list its uses of parameters."""
    program, elements, uses = Program(tape, weights, inputs), Elements(weights, known=True), list[Use]()
    Walk(program, elements, lambda use: uses.append(compact(use))).run()
    return Run(side, program.tape, weights, inputs, elements, program, uses)


def pairs(left: Run, right: Run, mapped: Mapped) -> Iterator[Pair]:
    """Yield each use on the right beside the left one of the same elements, at the same turn; last, the outputs.

    Where a use has elements without a partner, it is the end: what follows depends on them.
    """
    numbers, whole = mapped.numbers, mapped.whole
    known = np.zeros(0, bool) if whole else numbers != 0
    by_kind: dict[str, list[tuple[Use, int, int]]] = {}
    for use in left.uses:
        if use.kind != "place" and use.ids.size:
            by_kind.setdefault(use.kind, []).append((use, int(use.ids.min()), int(use.ids.max())))
    turns: dict[tuple[str, int], int] = {}
    for use in right.uses:
        element = int(numbers[first(use.ids)])
        if not whole and not every(known, use.ids):
            return
        if use.kind == "place" or not element:
            continue
        for element in _heads(use, left, right, numbers):
            turn = turns[use.kind, element] = turns.get((use.kind, element), -1) + 1
            left_uses = [
                other
                for other, low, high in by_kind.get(use.kind, [])
                if low <= element <= high and _holds(other.ids, element)
            ]
            if turn < len(left_uses):
                yield _nearest([left_uses[turn], *left_uses[:turn], *left_uses[turn + 1 :]], use, left, right, numbers)
    yield Pair(None, None, parted(left.program.outputs, right.program.outputs))


def agreeing(every: Iterable[Pair], right: Run) -> list[Pair]:
    """Return the pairs before the first that parts; those behind are computed only where a term is looked at.

    A term of a sum meets its other terms, which sides may group in other ways, as where one of them adds a mask and the
    other fills places: it parts only if what reads the sum does.
    """
    found, rest = list[Pair](), iter(every)
    while (pair := next(rest, None)) is not None:
        if pair.parts:
            rest, following = itertools.tee(rest)
            if (reader := reading(pair, following, right)) is None or reader.parts:
                break
        found.append(pair)
    return found


def parting(every: Sequence[Pair], right: Run) -> int | None:
    """Return the number of the first pair that parts; None where none does."""
    at = len(agreeing(every, right))
    return at if at < len(every) else None


def reading(pair: Pair, following: Iterable[Pair], right: Run) -> Pair | None:
    """Return the first of some pairs that reads the sum of a term and can be compared; None of a pair that is no term.

    Args:
      following: the pairs behind it.
    """
    if pair.right is None or pair.right.kind != "add":
        return None
    made = {right.tape.nodes[pair.right.node].output}
    for other in following:
        if math.isinf(other.gap) or (other.right and other.right.kind == "add"):
            continue
        read = right.tape.nodes[other.right.node].inputs if other.right else right.tape.outputs
        if right.tape.depends(read, made):
            return other
    return None


def _heads(use: Use, left: Run, right: Run, mapped: Array) -> list[int]:
    """Return the left element of the first one of a use; of inputs that it joins, one for each left parameter.

    An LSTM may multiply its input and its state by one matrix, or each by its own. A state of zeros is no evidence.
    """
    alone = [int(mapped[first(use.ids)])]
    if use.kind != "product" or use.x.ndim != 3 or len(use.ids) > 1 or len(use.x) > 1:
        return alone
    if use.ids.shape[1] != use.x.shape[2]:
        return alone
    own = use.ids[:1, use.x[0].any(0), :1].reshape(-1).astype(np.int64)
    numbers = np.asarray(mapped[own]) if len(own) else np.zeros(0, np.int64)
    numbers = numbers[numbers > 0]
    owners = np.searchsorted(left.elements.starts, numbers, "right")
    at = np.sort(np.unique(owners, return_index=True)[1])
    return numbers[at].tolist() if len(at) > 1 else alone


def _nearest(left_uses: Sequence[Use], use: Use, left: Run, right: Run, numbers: Array) -> Pair:
    """Pair a use with the first left one, or with another that meets the same values, as in another order of calls."""
    pair = first_pair = Pair(left_uses[0], use, _gap(left_uses[0], use, left, right, numbers))
    for other in left_uses[1:]:
        if not pair.parts:
            return pair
        pair = Pair(other, use, _gap(other, use, left, right, numbers))
    return first_pair if pair.parts else pair


def _holds(ids: Array, element: int) -> bool:
    """Tell whether an element between the smallest and the largest is one of these."""
    return (isinstance(ids, Stepped) and ids.whole) or bool((np.asarray(ids) == element).any())


def first(ids: Array) -> int:
    """Return the first element of a use; 0, which is none, where there is no other."""
    corner = int(ids[(0,) * ids.ndim]) if ids.size else 0
    return corner or int(next(iter(np.asarray(ids)[np.asarray(ids) > 0]), 0))


def _gap(a: Use, b: Use, left: Run, right: Run, numbers: Array) -> float:
    """Return the relative difference of what two uses meet."""
    if a.kind != "product":
        right_numbers, right_columns = columns.of_elements(b.x, b.ids)
        left_numbers, left_columns = columns.of_elements(a.x, a.ids)
        position = {int(n): k for k, n in enumerate(left_numbers)}
        index = [position.get(int(numbers[int(n)])) for n in right_numbers]
        if None in index:
            return math.inf
        if len(left_numbers) == len(right_numbers) and np.size(a.x) != np.size(b.x):
            return _of_some(a.x, b.x)
        left_columns = left_columns[index]
        size = columns.size_of(left_columns) or columns.size_of(right_columns) or 1
        gap = float(np.abs(right_columns - left_columns).max(initial=0) / size)
        return min(gap, _before_selection(a, b, left, right)) if gap > PARTED_USES else gap
    windows = left.tape.nodes[a.node].window, right.tape.nodes[b.node].window
    if windows == (None, None) and a.x.shape[-1] == b.x.shape[-1] and a.x.size != b.x.size:
        return _of_some(a.x, b.x)
    if windows == (None, None) and len(a.x) == len(b.x) == 1 and a.x.shape[-1] != b.x.shape[-1]:
        return _of_joined(a, b, numbers)
    statistics = [of_product(use, side) for use, side in ((a, left), (b, right))]
    scale = max(map(columns.size_of, statistics))
    if columns.equal(*statistics):  # in one order, as most are: none is nearer
        return float(np.abs(statistics[0] - statistics[1]).max(initial=0) / scale) if scale else 0.0
    apart = max(columns.nearest(statistics[1], statistics[0])[1].max(initial=0),
                columns.nearest(statistics[0], statistics[1])[1].max(initial=0))  # fmt: skip
    return float(apart / scale) if scale else 0.0


def _before_selection(a: Use, b: Use, left: Run, right: Run) -> float:
    """Return the relative difference of what both uses compute, before a part of it is taken, as one token is.

    A term meets values only where its sum is read: behind the selection. Infinite where nothing is selected.
    """
    sides = (a, left), (b, right)
    outputs = [execution.tape.nodes[use.node].output for use, execution in sides]
    shapes = [execution.program.shapes[output] for (_, execution), output in zip(sides, outputs, strict=True)]
    sizes = [math.prod(shape) for shape in shapes]
    if sizes[0] != sizes[1] or any(np.size(use.x) >= size for (use, _), size in zip(sides, sizes, strict=True)):
        return math.inf
    whole = []
    for (_, run), output in zip(sides, outputs, strict=True):
        part = run.tape.until(output)
        if part is None:
            return math.inf
        *_, last = Program(part, run.weights, run.inputs).outputs
        whole.append(np.sort(np.ravel(last)))
    return float(np.abs(whole[0] - whole[1]).max(initial=0)) / size_of(*whole)


def _of_joined(a: Use, b: Use, numbers: Array) -> float:
    """Return the relative difference of the inputs that two products multiply by the same elements; others are joined.

    Infinite where there are none, or an edit has changed how many there are.
    """
    if any(use.ids.shape[1] != use.x.shape[2] for use in (a, b)):
        return math.inf
    left, right = (np.asarray(use.ids)[0].astype(np.int64) for use in (a, b))
    right = np.asarray(numbers[right])
    row_of = np.full(max(left.max(initial=0), right.max(initial=0)) + 1, -1)
    row_of[left] = np.arange(len(left))[:, None]
    rows = np.where(right > 0, row_of[np.maximum(right, 0)], -1).max(1, initial=-1)
    x, y = a.x[0][:, rows[rows >= 0]], b.x[0][:, rows >= 0]
    if x.size != y.size or not x.size:
        return _of_some(x, y) if x.size and y.size else math.inf
    return float(np.abs(np.sort(x, 0) - np.sort(y, 0)).max()) / size_of(x, y)


def _of_some(x: Array, y: Array) -> float:
    """Return the relative difference of fewer values from the nearest of more: one side selects tokens earlier."""
    if np.isnan(x).any() != np.isnan(y).any():
        return 1.0
    few, many = sorted((np.ravel(side[np.abs(side) < columns.HUGE]) for side in (x, y)), key=len)
    if not len(few):
        return math.inf
    return float(np.abs(nearest(np.sort(many), few) - few).max()) / size_of(few, many)


def of_product(use: Use, side: Run) -> Array:
    """Return statistics of the columns of a product."""
    return statistics(use, side.program)[1]
