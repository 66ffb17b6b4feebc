"""Solve the lengths of axes from names and shapes: each dimension of each array is an equation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import NamedTuple, SupportsIndex

from specs.applied.moves import Shape
from specs.notation.axes import Dim, full, solve
from specs.notation.lines import Line, Lines, TableError
from specs.notation.signature import Signature
from specs.words import in_a_row

from .env import Env
from .ranges import Key

LIKE = "the file to be like"  # the checkpoint of the right side that the target has to match
ABSENT = f"is made here, and is not in {LIKE}"  # of an array
NO_LINE = f"is in {LIKE}, and no line makes it"


class Remedy(NamedTuple):
    """What states lengths that stay open.

    Args:
      enough: few of the open axes, from whose lengths all others follow. follow: these others.
      or_like: whether a checkpoint of the other side may show the lengths, too.
    """

    enough: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    or_like: bool = False

    def options(self) -> str:
        """Say what to give as options of the command; "" where no length is open."""
        return self._text(" ".join(f"--set {name}=..." for name in self.enough), "--like FILE")

    def arguments(self) -> str:
        """Say what to give as arguments of Table.apply; "" where no length is open."""
        return self._text(", ".join(f"{name}=..." for name in self.enough), "like=ARRAYS")

    def _text(self, lengths: str, like: str) -> str:
        follow = f", from which {in_a_row(self.follow)} follow{'s' * (len(self.follow) == 1)}" * bool(self.follow)
        other = f"a file of the other side ({like}) or " * self.or_like
        return f": give {other}lengths ({lengths}{follow})" * bool(self.enough)


NOTHING_OPEN = Remedy()


class SizeError(TableError):
    """Lengths that stay open, or are given for an axis that is not there.

    Args:
      what: the message without its remedy.
      dims: (line number, open dimension). axes: all open axes by line number.
      shown: see heads.shown_heads; of axes that are compared with it.
    """

    def __init__(
        self, what: str, problems: Iterable[str] = (), remedy: Remedy = NOTHING_OPEN,
        dims: Iterable[tuple[int, Dim]] = (), axes: Mapping[int, frozenset[str]] = MappingProxyType({}),
        shown: Mapping[tuple[int, str], str] = MappingProxyType({}),
    ):  # fmt: skip
        super().__init__(what + remedy.options(), problems)
        self.what, self.remedy, self.dims, self.axes, self.shown = what, remedy, tuple(dims), axes, shown

    def of_call(self) -> SizeError:
        """Return the same with arguments of Table.apply in place of options of the command."""
        error = SizeError(self.what, self.problems, self.remedy, self.dims, self.axes, self.shown)
        error.message = self.what + self.remedy.arguments()
        return error


class View(NamedTuple):
    """An array of an Env whose dimensions are equations: its shape, where that is known."""

    side: int
    name: str
    array: Signature
    shape: Shape | None


class Solver:
    """Solves the lengths of the axes of many Envs together.

    Lengths pass between lines where they write the same dimension of the same array alike, and everywhere for names
    that begin with a capital letter.
    """

    def __init__(
        self, table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, given: Mapping[str, int]
    ):
        self.table, self.shapes, self.like, self.given = table, shapes, like or {}, given
        self.misfits: list[tuple[str, str]] = []  # names of arrays, and what contradicts the lengths of their axes
        self.taken: dict[str, dict[int, set[str]]] = {}  # given lengths that lines took; see open_axes.contradicted
        self.wrong: set[int] = set()  # numbers of lines whose lengths contradict each other
        self._dims: dict[tuple[int, str, int, str], dict[str, int]] = {}
        self._lengths: dict[tuple[int, str, int], int] = {}  # of whole dimensions that some line determines
        self._table_wide: dict[str, int] = {}  # of names that all lines share
        self._used: set[str] = set()  # names of the given lengths that some line takes
        self._unlike: dict[str, list[Env]] = {}  # of given lengths: those whose shapes state another one
        self._views: dict[Env, list[View]] = {}
        self._settled: set[Env] = set()  # those whose axes are all known, and were checked with every equation
        self._learned = 0  # how many lengths were entered, of an Env or for all
        known = {p.name for line in table.lines for a in (*line.left.arrays, *line.right.arrays) for p in a.parts()}
        for name, size in given.items():
            if name not in known:
                raise SizeError(
                    f"{table.name}: no axis is called {name!r}: its axes are {', '.join(sorted(known)[:40])}"
                )
            if isinstance(size, bool) or not isinstance(size, SupportsIndex) or size.__index__() < 1:
                raise SizeError(f"{table.name}: {name}={size!r}: a length is a whole number from 1 on")

    def env(self, line: Line, key: Key, arrays: list[dict[Key, str]]) -> Env:
        env = Env(line, key, arrays, {})
        for variable, length in line.lengths.items():
            self._enter(env, variable, length, f"{variable}={length}", "the line says so")
        for array, named in zip(line.left.arrays, arrays, strict=False):
            self.learn_counts(env, array, named)
        self._views[env] = list(self._viewed(env))
        return env

    def learn_counts(self, env: Env, array: Signature, named: dict[Key, str]) -> None:
        """Enter the lengths of axes that stand in names; a contradiction becomes a misfit."""
        stacked = dict.fromkeys(name for key in named for name, _ in key)
        for variable in stacked:
            length = 1 + max(dict(key)[variable] for key in named)
            self._enter(env, variable, length, array.label, f"counts to {length}")
        if stacked and len(named) != math.prod(env.sizes[variable] for variable in stacked):
            self.misfits.append((array.label, f"is not there for all {' and '.join(stacked)} (line {env.line.number})"))

    def _enter(self, env: Env, name: str, size: int, where: str, what: str) -> None:
        if name not in env.sizes:
            env.sizes[name] = size
            self._learned += 1
        elif env.sizes[name] != size:
            self.wrong.add(env.line.number)
            self.misfits.append((where, f"{what}, and {name} is {env.sizes[name]} (line {env.line.number})"))

    def _viewed(self, env: Env) -> Iterator[View]:
        for array, named in zip(env.line.left.arrays, env.arrays, strict=False):
            if array.axes is None or not named:
                continue
            shapes: dict[Shape, str] = {}
            for name in named.values():
                shapes.setdefault(self.shapes[name], name)
            for shape, name in shapes.items():
                if len(shape) != len(array.axes):
                    problem = f"has shape {list(shape)}, line {env.line.number} gives it {_ranks(array)}"
                    self.misfits.append((name, problem))
                else:
                    yield View(0, name, array, shape)
        for array in map(env.line.resolved, env.line.right.arrays):
            name = env.first(array)
            like = self.like.get(name)
            if array.axes is not None and like is not None and len(like) != len(array.axes):
                where = f"has shape {list(like)} in {LIKE}"
                self.misfits.append((name, f"{where}, line {env.line.number} gives it {_ranks(array)}"))
            elif array.axes is not None:
                yield View(1, name, array, like)

    def solve(self, envs: Iterable[Env]) -> None:
        """Fill in the sizes of all Envs, until nothing more follows; contradictions become misfits.

        A length that the user gives is taken where shapes leave an axis of its name open.
        """
        waiting = list(envs)
        self._spread(waiting)
        for env in waiting if self.given else ():
            for name in self.given.keys() & env.line.axes:
                if name not in env.sizes:
                    self.taken.setdefault(name, {})[env.line.number] = _beside(env.line, name)
                if env.sizes.setdefault(name, self.given[name]) == self.given[name]:
                    self._used.add(name)
                else:
                    self._unlike.setdefault(name, []).append(env)
        self._spread(waiting)

    def unused(self) -> list[str]:
        """Describe lengths given by the user that contradict the shapes wherever an axis has their name."""
        return [
            f"{name}={size} was given, but {self._evidence(self._unlike.get(name, []), name)}"
            for name, size in self.given.items()
            if name not in self._used
        ]

    def views(self, env: Env) -> list[View]:
        """Return the arrays of a line whose shapes were looked for."""
        return self._views[env]

    def _evidence(self, envs: Sequence[Env], name: str) -> str:
        """State the length that the names and shapes of arrays give an axis, with the array that shows it best."""
        if not envs:
            return "no array that is there has this axis"
        shown = [
            (len(names), view, f"{name}={env.sizes[name]} (line {env.line.number})")
            for env in envs for view in self._views[env] if view.shape is not None
            for _, _, names in dims(view.array) if name in names
        ]  # fmt: skip
        if not shown:
            return f"the names of arrays give {name}={envs[0].sizes[name]} (line {envs[0].line.number})"
        _, view, length = min(shown, key=lambda one: one[0])  # alone in its dimension, if anywhere
        return f"{view.name} of shape {list(view.shape or ())}{f' in {LIKE}' if view.side else ''} has {length}"

    def _spread(self, envs: list[Env]) -> None:
        """Pass over the Envs until a pass teaches nothing; one is settled once all is known and was checked."""
        before = -1
        while not self.misfits and self._learned != before:
            before = self._learned
            for env in [env for env in envs if env not in self._settled]:
                known = len(env.sizes)
                for view in self._views[env]:
                    self._equations(env, view)
                if len(env.sizes) == known and env.line.axes <= env.sizes.keys():
                    self._settled.add(env)

    def _equations(self, env: Env, view: View) -> None:
        for d, (dim, text, names) in enumerate(dims(view.array)):
            same_dim = self._dims.setdefault((view.side, view.name, d, text), {})
            for name in names:
                self._share(env, view, name, same_dim)
            try:
                solved = solve(dim, self._length(env, view, d, dim, names), env.sizes)
                env.sizes.update(solved)
                self._learned += len(solved)
            except ValueError as error:
                self.wrong.add(env.line.number)
                if made := _other_shape(env, view):
                    self.misfits.append((view.name, made))
                    return
                like = f" in {LIKE}" if view.side else ""
                where = f"has shape {list(view.shape)}{like}, and " if view.shape is not None else ""
                self.misfits.append((view.name, f"{where}{error} (line {env.line.number})"))

    def _share(self, env: Env, view: View, name: str, same_dim: dict[str, int]) -> None:
        """Exchange the length of an axis with the other lines of its array, or of the Table if all lines share it."""
        for pool in (same_dim, self._table_wide) if self.table.shared(name) else (same_dim,):
            if name in pool:
                self._enter(env, name, pool[name], view.name, f"has {name}={pool[name]} in other lines")
            elif name in env.sizes:
                pool[name] = env.sizes[name]
                self._learned += 1

    def _length(self, env: Env, view: View, d: int, dim: Dim, names: Sequence[str]) -> int | None:
        """Return the length of one dimension, by the shape of the array, or else by lines that know all its axes."""
        place = view.side, view.name, d
        if all(name in env.sizes for name in names):
            if place not in self._lengths and (whole := full(dim, env.sizes)) is not None:
                self._lengths[place] = whole
                self._learned += 1
            return None if view.shape is None else view.shape[d]
        return self._lengths.get(place) if view.shape is None else view.shape[d]


def _beside(line: Line, name: str) -> set[str]:
    """Return the axes with which a line composes one axis."""
    composed = (names for array in line.arrays for _, _, names in dims(array) if name in names)
    return {other for names in composed for other in names} - {name}


def _other_shape(env: Env, view: View) -> str:
    """State the shape that a line makes and that of the right array; "" if axes are open, or both are alike."""
    if not view.side or view.shape is None or not env.line.axes <= env.sizes.keys():
        return ""
    made = [full(dim, env.sizes) for dim in view.array.axes or ()]
    if None in made or made == list(view.shape):
        return ""
    return unlike_shape(env.line, made, view.shape)


def unlike_shape(line: Line, made: Sequence[object], shape: Shape) -> str:
    """State the shape that a line makes of an array, and the one that the array has in the file to be like."""
    of = in_a_row(array.label for array in line.left.arrays)  # "" of a constant
    return f"has shape {list(shape)} in {LIKE}, line {line.number} makes {list(made)}{of and f' of {of}'}"


@cache
def dims(array: Signature) -> list[tuple[Dim, str, list[str]]]:
    """Return each dimension of an array, its text, and its axes."""
    return [
        (dim, str(dim), [part.name for factor in dim.factors for part in factor if part.name])
        for dim in array.axes or ()
    ]


def _ranks(array: Signature) -> str:
    axes = " ".join(map(str, array.axes or ()))
    return f"axes {axes}" if axes else "no axes"
