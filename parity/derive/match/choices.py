"""Record the choices of partners that an attempt takes, and step back to them."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.derive.limits import EXACT, LARGE_PIECE, MARGIN
from parity.derive.trace.names import Similarity
from parity.derive.trace.program import Program
from parity.derive.trace.sites import place
from parity.derive.trace.tape import Array

from . import uses
from .advice import Stop, compare, in_norm, operation
from .analogy import Analogy
from .stepped import Stepped, stepped
from .symbols import Elements, Partnered, Use, placed
from .walk import Place, Walk

LISTED = 1 << 16  # elements of a choice that are listed, to undo it

Places = Any  # indices: an array or a slice


class Option(NamedTuple):
    """A left use that may be the partner of a right one.

    Args:
      order: less for likelier ones. gap: the distance of what both meet.
      detail: what a kind of use needs to assign it, as the order of its columns.
    """

    order: Any
    gap: float
    partner: uses.Seen
    detail: Any


class Step(NamedTuple):
    """A use on the right and its partner.

    Args:
      left, right: the parameters that are used.
      gap: the distance of what they meet.
      choice, choices: which of the possible partners was taken.
      node: the operation on the right. order: how likely the partner was, less for likelier ones.
      partner: the left operation; -1 where several stand beside the right one.
      by_place: whether the gap is that of the place where the models part there, as this use was compared without it.
      order_unknown: whether no value shows the order of its columns, which are a part of those of a longer use, or
        those of several uses in a row.
    """

    kind: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    left_site: str
    right_site: str
    gap: float
    choice: int
    choices: int
    node: int = -1
    order: Any = None
    partner: int = -1
    by_place: bool = False
    order_unknown: bool = False

    @property
    def modules(self) -> tuple[str, str]:
        """Return the paths of the modules in which both sides use it."""
        return place(self.left_site, self.left), place(self.right_site, self.right)


class DeadEnd(Exception):
    """No partner fits a use.

    Args:
      stop: the use, and why it has none.
      gap: the distance of the nearest one.
      known: the operation, if all its elements have partners already and only the values differ; else -1.
    """

    def __init__(self, stop: Stop, gap: float = np.inf, known: int = -1):
        super().__init__(stop)
        self.stop, self.gap, self.known = stop, gap, known


class Term(NamedTuple):
    """A term of a sum on the right: its partner, its elements, and the statistics of what they meet."""

    partner: uses.Seen
    numbers: Array
    statistics: Array


class State(NamedTuple):
    walk: Place
    steps: int
    entries: int


class Point(NamedTuple):
    """A step at which there was a choice, with the state of everything before its operation.

    Args:
      likely, choices: the numbers of likely and of all choices.
    """

    step: int
    choice: int
    likely: int
    choices: int
    state: State


class Change(NamedTuple):
    """Choices of which the last one is another than in an attempt before.

    Args:
      before: the steps of that attempt: the partners of later ones stay the same where they are as likely.
    """

    choices: list[int]
    before: tuple[Step, ...]


class Choices:
    """The choices of an attempt, and the elements that it has mapped by them.

    Args:
      limit: distance of columns, relative to their scale, beyond which nothing is a partner.
      excused: operations of which all elements are known, and whose values need not be found on the left.
      rough: operations at which a use is a partner if some rows meet the same values.
      passed: operations whose uses are passed over if they have no partner; lost: those of them where one had none, and
        how many steps there were before; beyond: the same, of uses whose partners are past other products on the left.
      confirmed: products with parameters that read values that the left has seen as well.
      patient: whether unlikely choices are tried too: partners that others have, columns of other roles.
      scaling: whether a factor between the columns of two products is taken as one that the right side applies later.
      owned: left elements that have a partner.
      followed: the steps of another attempt, whose partners come first where they are as likely as others.
    """

    def __init__(
        self, seen: list[uses.Seen], program: Program, lefts: Elements, rights: Partnered, say: Callable[[str], None]
    ):
        self.seen, self.program, self.lefts, self.rights, self.alike = seen, program, lefts, rights, Similarity()
        self.analogous = Analogy()
        self._say, self.limit = say, EXACT
        self._attempt, self._reached = 1, 0  # goes up with each step back; the furthest operation so far
        self.patient, self.scaling = False, True
        self._scaled: State | None = None  # before the first product that was taken so
        self.excused, self.rough, self.passed = set[int](), set[int](), set[int]()
        self.lost, self.beyond = dict[int, int](), dict[int, int]()
        self.confirmed = set[int]()
        self.map, self.plus = rights.map, rights.plus
        self.owned = np.zeros(len(lefts), bool)
        self.steps: list[Step] = []
        self.walk = Walk(program, rights, self.meet)
        self._choices: list[int] = []
        self._before: tuple[Step, ...] = ()  # see Change
        self.followed: Sequence[Step] = ()
        self._points: list[Point] = []
        # (right elements, left ones owned for the first time; None for many that are no range)
        self._entries: list[tuple[Places, Places | None]] = []
        self._terms: dict[tuple[int, int], list[Term]] = {}  # sum on the right -> its terms that have partners
        self._partners: dict[int, list[tuple[uses.Seen, int]]] = {}  # right product -> (left one, columns)
        self._begun = (-1, 0, 0)  # operation, steps and entries before it

    @abstractmethod
    def meet(self, use: Use) -> Array | None:
        """Find the elements of a use, and their values."""

    def take(self, given: Array) -> None:
        """Take elements as known that the user states. Args: given: see Hint.map."""
        known = np.flatnonzero(given[0])
        self.map[known], self.plus[known] = given[0, known], given[1, known]
        self.owned[given[given > 0]] = True

    def step_back(self) -> bool:
        """Return to the last choice that has another option; False if there is none."""
        for point in reversed(self._points):
            if point.choice + 1 < (point.choices if self.patient else point.likely):
                self._restore(point.state, [*self._taken(point.step), point.choice + 1])
                return True
        return False

    def changes(self) -> list[Change]:
        """Return the choices taken with one of them changed, likelier ones first.

        A choice stays open until a product behind it reads values that the left has seen: open ones are changed first.
        Next options come before later ones, and the last choices before earlier ones.
        """
        read, nodes, steps = set[int](), self.program.tape.nodes, tuple(self.steps)
        for at in range(self.walk.at - 1, -1, -1):
            if at in self.confirmed or nodes[at].output in read:
                read.update(nodes[at].inputs)
        found = list[tuple[Any, Change]]()
        for k, step in enumerate(steps):
            for later in range(1, step.choices):
                changed = [*self._taken(k), (step.choice + later) % step.choices]
                found.append(((nodes[step.node].output in read, later, -k), Change(changed, steps)))
        return [change for _, change in sorted(found, key=lambda one: one[0])]

    def unscale(self) -> bool:
        """Return to the first product whose columns are alike but for a factor, which is then taken as a difference."""
        if self._scaled is None:
            return False
        self.scaling = False
        self._restore(self._scaled, self._taken(self._scaled.steps))
        return True

    def replay(self, choices: list[int], before: tuple[Step, ...] = ()) -> None:
        """Go back to the point from which these choices differ from those taken, or to the present operation.

        Args:
          before: see Change.
        """
        for point in self._points:
            if point.step >= len(choices) or point.choice != choices[point.step]:
                self._restore(point.state, choices)
                self._before = before
                return
        same = self._begun[0] == self.walk.at
        steps, entries = self._begun[1:] if same else (len(self.steps), len(self._entries))
        self._restore(State(self.walk.state(), steps, entries), choices)

    @property
    def unproven(self) -> int:
        """Count the uses that were passed over, on either side, since values were last found on the left."""
        known = [k for k, step in enumerate(self.steps) if step.kind == "product" and step.gap <= EXACT]
        return sum(before > max(known, default=-1) for before in (*self.lost.values(), *self.beyond.values()))

    def _taken(self, count: int) -> list[int]:
        return [step.choice for step in self.steps[:count]]

    def _restore(self, state: State, choices: list[int]) -> None:
        self.walk.restore(state.walk)
        self._attempt += 1
        self._choices, self._before = choices, ()
        undone = self._entries[state.entries :]
        for right, left in undone:
            right = np.asarray(right) if isinstance(right, Stepped) else right
            self.map[right], self.plus[right] = 0, 0
            if left is not None:
                self.owned[left] = False
        if any(left is None for _, left in undone):
            self.owned[:] = False
            for numbers, at in itertools.product((self.map, self.plus), range(0, len(self.map), LARGE_PIECE)):
                if (some := numbers[at : at + LARGE_PIECE]).any():
                    self.owned[np.maximum(some, 0)] = True
            self.owned[0] = False
        del self._entries[state.entries :], self.steps[state.steps :]
        self.analogous = Analogy((step.left, step.right) for step in self.steps)
        self._points = [point for point in self._points if point.step < state.steps]
        self._terms = {group: terms for group, terms in self._terms.items() if group[0] < self.walk.at}
        self._partners = {at: seen for at, seen in self._partners.items() if at < self.walk.at}
        self.lost = {at: steps for at, steps in self.lost.items() if at < self.walk.at}
        self.beyond = {at: steps for at, steps in self.beyond.items() if at < self.walk.at}
        self.confirmed = {at for at in self.confirmed if at < self.walk.at}
        self._begun = (-1, 0, 0)
        if self._scaled is not None and self._scaled.walk[0] >= self.walk.at:
            self._scaled = None

    def _begin(self) -> None:
        """Note how far the attempt is before the operation at which the walk stands.

        The furthest operation is reported: its number does not fall where the attempt steps back.
        """
        if self._begun[0] != self.walk.at:
            self._reached = max(self._reached, self.walk.at)
            operations = f"operation {self._reached} of {len(self.program.tape.nodes)}"
            self._say(f"{operations} reached, choice {self._attempt} of partners")
            self._begun = (self.walk.at, len(self.steps), len(self._entries))

    def _now(self) -> State:
        """Return the state before the present operation."""
        return State(self.walk.state(), *self._begun[1:])

    def _assign(self, right: Array, left: Array) -> None:
        """Map right elements that have no partner yet."""
        right, left = (np.asarray(numbers, np.int32) for numbers in (right, left))
        if right.size > LISTED and right.all() and left.all():
            there = placed(self.map, steps := stepped(right))
            if there is not None and not there.any():
                self._enter(steps, left)
                there[...] = left
                return
        right, left = right.ravel(), left.ravel()
        new = (right > 0) & (left > 0)
        right, left = right[new], left[new]
        new = self.map[right] == 0
        self._enter(right[new], left[new])
        self.map[right[new]] = left[new]

    def _enter(self, right: Array, left: Array) -> None:
        view = placed(self.owned, stepped(left)) if left.size > LISTED else None
        marks, at = (self.owned, left) if view is None else (view, ...)
        new = _places(left[~marks[at]])
        many = isinstance(new, np.ndarray) and new.size > LISTED  # bounds memory: they follow from the map
        self._entries.append((right if isinstance(right, Stepped) else _places(np.ravel(right)), None if many else new))
        marks[at] = True

    def _choose(self, use: Use, options: list[Option], limit: float | None = None) -> tuple[uses.Seen, Any]:
        """Take the likeliest option, or the next after a dead end."""
        site = self.program.tape.nodes[use.node].site
        names = tuple(self.rights.owners(use.ids))
        closest = min((option.gap for option in options), default=np.inf)
        if closest > (self.limit if limit is None else limit) or not options:
            raise DeadEnd(self._unlike(use, names, place(site, names)), closest)
        options = [option for option in options if option.gap <= max(MARGIN * closest, EXACT)]
        at = len(self.steps)
        step = next((step for step in self.followed[at : at + 1] if step.right == names), None)
        options.sort(key=lambda option: (option.order[0], not _is_partner(option, step), option.order))
        choice = self._choices[at] if at < len(self._choices) else self._chosen_before(names, options)
        if len(options) > 1:
            likely = sum(option.order[0] == options[0].order[0] for option in options)
            self._points.append(Point(at, choice, likely, len(options), self._now()))
        option = options[min(choice, len(options) - 1)]
        _, gap, seen, detail = option
        step = Step(use.kind, seen.names, names, _site(option), site, gap, choice, len(options))
        self.steps.append(step._replace(node=use.node, order=option.order[0], partner=seen.use.node))
        self.analogous.learn(seen.names, names)
        return seen, detail

    def _chosen_before(self, names: tuple[str, ...], options: Sequence[Option]) -> int:
        """Return which option has the partner of before, if it is as likely; else the likeliest one."""
        step = next(iter(self._before[len(self.steps) :]), None)
        if step is None or step.right != names:
            return 0
        same = [k for k, option in enumerate(options) if _is_partner(option, step) and option.order[0] <= step.order]
        return step.choice if step.choice in same else min(same, default=0)

    def _unlike(self, use: Use, names: Sequence[str], where: str) -> Stop:
        """Say which operation has no partner on the left, and what to look at."""
        shapes = ", ".join(str(list(self.rights.shapes[name])) for name in self.rights.owners(use.ids))
        window = self.program.patches(self.program.tape.nodes[use.node])
        of = "" if use.x is None else f", of shape {self._read_shape(use)}"
        what = f"{'the patches of ' if window else ''}the input of its {operation(use.kind, window)} at {where}{of}"
        padded = ", padding included" if window else ""
        lacks = f"no operation on the left reads {what}{padded}"
        if use.kind == "add":  # sums are compared whole: one that reads the same values may have a mask beside them
            lacks = f"no sum on the left has the same other terms as its sum at {where}{of}"
        why = f"{lacks} (parameter of shape {shapes})"
        if use.kind == "mul" and len(names) == 1 and not in_norm(self.program, use):
            return Stop(tuple(names), why, compare("factor"), len(self.rights.shapes[names[0]]))
        return Stop(tuple(names), why, compare(use.kind, window))

    def _read_shape(self, use: Use) -> list[int]:
        """Return the shape of the values that a use reads, with the most axes that layouts before it give them."""
        program, nodes = self.program, self.program.tape.nodes
        active = (number for number in nodes[use.node].inputs if number in program.active)
        before = (program.before_layouts(number) for number in active)
        values = [value for first, layouts in before for value in (first, *(node.output for node in layouts))]
        shapes = [[n for n in shape if n != 1] for shape in (np.shape(use.x), *map(program.shapes.__getitem__, values))]
        return max((shape for shape in shapes if math.prod(shape) == math.prod(shapes[0])), key=len)

    def _free(self, ids: Array) -> bool:
        return not every(self.owned, ids)

    def _order(self, use: Use, seen: uses.Seen, *first: Any) -> tuple[Any, ...]:
        names = tuple(self.rights.owners(use.ids))
        unlike = not self.analogous(seen.names, names), -self.alike(" ".join(seen.names), " ".join(names))
        return (*first, seen.use.symbol.plain != use.symbol.plain, *unlike)

    def _of_kind(self, kind: str) -> Iterator[uses.Seen]:
        return (seen for seen in self.seen if seen.use.kind == kind)


def _site(option: Option) -> str:
    """Return where the left model has the use of an option."""
    return option.partner.program.tape.nodes[option.partner.use.node].site


def _is_partner(option: Option, step: Step | None) -> bool:
    """Tell whether an option is the partner that a step has taken."""
    return step is not None and (option.partner.names, _site(option)) == (step.left, step.left_site)


def every(marks: Array, ids: Array) -> bool:
    """Tell whether all of these elements are marked; 0 is no element."""
    if isinstance(ids, Stepped) and ids.whole:
        return bool(marks[ids.min() : ids.max() + 1].all())
    ids = np.asarray(ids)
    first = int(ids[(0,) * ids.ndim]) if ids.size else 0
    if first > 0 and not marks[first]:
        return False
    if ids.size <= LARGE_PIECE:
        return bool(marks[ids[ids > 0].astype(np.int64)].all())
    chunks = np.nditer(ids, ["external_loop", "buffered"], buffersize=LARGE_PIECE)  # bounds memory
    return all(every(marks, chunk) for chunk in chunks)


def _places(numbers: Array) -> Places:
    """Return indices as a slice where they are a range in order."""
    if not len(numbers) or numbers[-1] - numbers[0] != len(numbers) - 1 or (np.diff(numbers) != 1).any():
        return numbers
    return slice(int(numbers[0]), int(numbers[-1]) + 1)
