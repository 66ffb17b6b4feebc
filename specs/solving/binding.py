"""Bind a Table to arrays: which names stand for which indices of each line, and how long its axes are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from specs.applied.moves import Shape
from specs.notation.lines import Line, Lines, Misfit
from specs.notation.signature import Signature

from . import heads, open_axes
from .env import Env
from .matching import Matcher
from .ranges import Key, Ranges, fill
from .sizes import ABSENT, SizeError, Solver


def bind(
    table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
) -> tuple[list[Env], list[str]]:
    """Bind a Table; arguments and errors as in Table.layout.

    Returns: its lines at each value of their numbers, with every length; names of tied arrays that are not there.
    """
    return _Binding(table, shapes, like, sizes).run()


class _Binding:
    def __init__(
        self, table: Lines, shapes: Mapping[str, Shape], like: Mapping[str, Shape] | None, sizes: Mapping[str, int]
    ):
        self.table, self.shapes, self.like = table, shapes, like
        self.solver = Solver(table, shapes, like, sizes)
        self.misfits: list[tuple[str, str]] = []
        self.absent: list[tuple[str, str]] = []  # right arrays that are not in the file to be like
        self.theirs = None if like is None else Matcher(table.reverse(), like).match()

    def run(self) -> tuple[list[Env], list[str]]:
        table = self.table
        matched = Matcher(table, self.shapes).match()
        if matched.problems or matched.missing or matched.unexpected:
            raise Misfit(f"{table.name}: does not fit", matched.missing, matched.unexpected, matched.problems)
        envs = [self.solver.env(line, key, arrays) for line in table.lines for key, arrays in matched.groups(line)]
        if self.like is not None and self.theirs is not None:
            for env in envs:
                for array, named in zip(env.line.right.arrays, self.theirs.of(env.line, env.key), strict=False):
                    self.solver.learn_counts(env, array, named)
            self.absent = [(name, ABSENT) for env in envs for name in self._absent(env, self.like)]
        self.solver.solve(envs)
        self._raise_misfits()
        if dims := self._open(envs):
            self._raise_open(dims, envs)
        ranges, names = self._right_names(envs)
        made = self._all_constants(ranges)
        self.solver.solve(envs + made)
        self._raise_misfits()
        if dims := self._open(made):
            self._raise_open(dims, [])
        if unused := self.solver.unused():
            raise SizeError(f"{table.name}: {'; '.join(unused)}: leave it out, or correct it")
        self._check_ranges(ranges, names)
        self._raise_misfits()
        return envs + made, matched.absent

    def _raise_misfits(self, others: Sequence[tuple[str, str]] = ()) -> None:
        """Raise a Misfit of what is known not to fit, and of arrays that the file to be like lacks, if there is any.

        Args:
          others: what does not fit beside what is known. Arrays that are absent alone are left to the proof.
        """
        solver = self.solver
        if misfits := [*solver.misfits, *self.misfits, *others]:
            given = open_axes.contradicted(solver.given, solver.taken, solver.wrong)
            raise Misfit(f"{self.table.name}: does not fit", [], [], [*dict.fromkeys([*misfits, *self.absent]), *given])

    def _open(self, envs: list[Env]) -> list[open_axes.Open]:
        """Return the dimensions whose lengths stay open; those of arrays that are dropped whole are not needed."""
        needed = [env for env in envs if env.line.kind != "drop" or any(a.windowed for a in env.line.arrays)]
        return [one for env in needed for one in open_axes.open_dims(env, self.solver.views(env))]

    def _open_constants(self, envs: list[Env]) -> list[open_axes.Open]:
        """Return open dimensions of constants as well, as far as names count them, to ask for all at once."""
        counted = [env for env in envs if all(self._are_counted(env, a) for a in env.line.right.arrays)]
        made = self._all_constants(self._right_names(counted)[0]) if envs else []
        self.solver.solve(envs + made)
        return self._open(made)

    def _raise_open(self, dims: list[open_axes.Open], envs: list[Env]) -> NoReturn:
        self._raise_misfits(self.absent)
        shown = heads.shown_heads([env.bound() for env in envs])
        open_ = {(one.env.line.number, name) for one in dims for name in one.names}
        of_open = {at: where for at, where in shown.items() if at in open_}
        dims = [*dims, *self._open_constants(envs)]
        raise open_axes.error(self.table, dims, self.like is not None, of_open)

    def _absent(self, env: Env, like: Mapping[str, Shape]) -> Iterator[str]:
        """Yield right arrays of a line that the file to be like lacks, as blocks: their lengths cannot be solved."""
        for array in map(env.line.resolved, env.line.right.arrays) if env.line.kind in ("move", "sum") else ():
            if self._are_counted(env, array):
                yield from (name for i in env.indices(array) if (name := fill(env.line, array, i)) not in like)

    @staticmethod
    def _are_counted(env: Env, array: Signature) -> bool:
        """Tell whether it is known how far the numbers in an array's names count."""
        return {env.line.variable(hole) for hole in array.holes} <= {*dict(env.key), *env.sizes}

    def _right_names(self, envs: list[Env]) -> tuple[Ranges, list[tuple[Line, Signature, str]]]:
        """Tell what the right side's arrays are called, and how far their numbers count."""
        ranges, names = Ranges(), []
        for env in envs:
            if env.line.kind not in ("move", "sum"):
                continue
            for array in map(env.line.resolved, env.line.right.arrays):
                for index in env.indices(array):
                    names.append((env.line, array, ranges.add(env.line, array, index)))
        return ranges, names

    def _check_ranges(self, ranges: Ranges, names: list[tuple[Line, Signature, str]]) -> None:
        """Report right arrays that the block count of other lines requires and that no line makes."""
        lines: dict[int, tuple[Line, set[str]]] = {}
        for line, _, name in names:
            lines.setdefault(line.number, (line, set()))[1].add(name)
        for line, made in lines.values():
            for array in map(line.resolved, line.right.arrays):
                for _, name in ranges.expected(line, array):
                    if name not in made:
                        problem = f"would be missing: other lines count on (line {line.number}: {array.label})"
                        self.misfits.append((name, problem))

    def _all_constants(self, ranges: Ranges) -> list[Env]:
        return [env for line in self.table.lines if line.fills for env in self._constants(line, ranges)]

    def _constants(self, line: Line, ranges: Ranges) -> Iterator[Env]:
        """Yield the right arrays of one value, or that are tied, as many as the numbers in other lines' names count.

        If no other line counts them, there are as many as in the file to be like.
        """
        arrays = [line.resolved(array) for array in line.right.arrays]
        arrays = arrays[:1] if line.kind == "tie" else arrays  # other lines speak of the first alone
        keys: dict[Key, None] = {}
        for array in arrays:
            expected = list(ranges.expected(line, array))
            theirs = self.theirs.groups(line) if self.theirs and not expected else ()
            entries = [*(tuple(sorted(index.items())) for index, _ in expected), *(key for key, _ in theirs)]
            if not entries:
                self.misfits.append((array.label, f"counts what no other line counts (line {line.number})"))
            keys.update(dict.fromkeys(entries))
        yield from (self.solver.env(line, key, []) for key in keys)
