"""Write a map of elements as the lines of a Table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from parity.derive.match.hints import Hint
from parity.derive.trace.tape import Array
from specs.notation.axes import Dim
from specs.notation.lines import Line, Misfit
from specs.notation.paths import escaped, match, normal
from specs.numbers import exact
from specs.table import Table, TableError
from specs.words import in_a_row

from .blocks import folded
from .equal_parts import picked_parts
from .facts import Facts, Group, components
from .followed import stated
from .letters import apart_from_set, own_letters, with_met_letters
from .lists import with_letters_of_lists
from .names import Names
from .rows import DerivedTable, Row, constant, dropped, moved, table_of
from .shared import lines
from .shown import with_shown_lengths
from .terms import parts_of_sums, parts_of_vector, with_terms

UNMATCHED = "no use of it was matched"
NO_LINE = "no line was found, though all its values were matched, to"
PARTLY = "only a part of it was matched, to"
BESIDE_PARTS = "beside parameters of which only a part was matched, it was matched to"
ROUNDS = 6  # times that rows which do not fit are taken apart


def fold(facts: Facts, given: Hint | None = None) -> tuple[DerivedTable, dict[str, str]]:
    """Return (table, {right parameter that no line describes: why}).

    Args:
      given: lines that are taken as they are, with the arrays that they speak of.
    """
    names = Names(facts.sides, facts.programs)
    if given is not None:
        names.orders.update(given.table.orders)
    missing: dict[str, str] = {}
    groups = _groups(facts, names, missing, given)
    table = _fitting(facts, groups, names, missing, given)
    if table is None:
        _leave_out_misfits(facts, groups, names, missing, given)
        table = _table(facts, groups, list, names, missing, given)
    spoken = {*given.left, *given.right} if given else set[str]()
    every = dict.fromkeys([*facts.lefts.names, *facts.rights.names])
    assumed = [name for name in every if names.assumed(name) and name not in spoken]
    by_chance = (*_by_chance(table, facts, names.counted), *sorted(names.shares))
    table = replace(table, assumed=assumed, by_chance=by_chance)
    return table, {name: why for name, why in missing.items() if not (given and name in given.right)}


def _by_chance(table: DerivedTable, facts: Facts, counted: Collection[str]) -> dict[str, None]:
    """Return which of some numbers of parts that lines state no model's code shows: they may be others in another."""
    stated = ((line, part) for line in table.lines for array in line.arrays for part in array.parts())
    numbers = {
        str(part): None
        for line, part in stated
        if str(part) in counted and not any(_shows(line, part.name, table, facts, side) for side in (0, 1))
    }
    ones = (_single(line, table, facts, side) for line in table.lines for side in range(len(facts.programs)))
    return numbers | dict.fromkeys(itertools.chain(*ones))


def _single(line: Line, table: DerivedTable, facts: Facts, side: int) -> Iterator[str]:
    """Yield "1 in (g 1+s d)" for a part that alone has one piece, unless this side's code picks it by its index.

    With several heads of queries for each head of keys it has several. In (g r+1+1 d) two parts have one piece, as
    there are as many groups as heads of keys.
    """
    for name, axis, dim in _dimensions(line, table, side):
        lengths = [[line.lengths.get(one.name) or table.sizes.get(one.name, 1) for one in own] for own in dim.factors]
        for at, factor in enumerate(dim.factors if len(dim.factors) > 1 else ()):
            ones = [k for k, part in enumerate(factor) if not part.name]
            if len(ones) == 1 < len(factor):
                inner = math.prod(map(sum, lengths[at + 1 :]))
                picked = picked_parts(facts.programs[side], name, axis, sum(lengths[at]), inner)
                yield from [] if sum(lengths[at][: ones[0]]) in picked else [f"1 in {dim}"]


def _dimensions(line: Line, table: DerivedTable, side: int) -> Iterator[tuple[str, int, Dim]]:
    """Yield (a parameter, an axis, how it is composed) of each array of one side: of blocks that of the first one."""
    shapes = (table.known, table.like)[side]
    for array in (line.left, line.right)[side].arrays:
        name = next((name for name in shapes if match(array.path, name)), "")
        yield from ((name, axis, dim) for axis, dim in enumerate(array.axes or () if name else ()))


def _shows(line: Line, letter: str, table: DerivedTable, facts: Facts, side: int) -> bool:
    """Tell whether the code of one side shows how many parts an axis has."""
    shapes = (table.known, table.like)[side]
    for name, axis, dim in _dimensions(line, table, side):
        names = [factor[0].name for factor in dim.factors if len(factor) == 1]
        if letter not in names or len(names) == 1:
            continue
        lengths = [line.lengths.get(one) or table.sizes.get(one, 0) for one in names]
        at = names.index(letter)
        if len(names) < len(dim.factors) or math.prod(lengths) != shapes[name][axis]:
            return True  # several terms, or a window
        if letter == names[-1]:  # elements in turn: the code takes every second one, as rotary positions do
            return True
        picked = picked_parts(facts.programs[side], name, axis, lengths[at], math.prod(lengths[at + 1 :]))
        return picked == set(range(lengths[at]))
    return False


def _groups(facts: Facts, names: Names, missing: dict[str, str], given: Hint | None) -> list[Group]:
    """Return the rows of each group of arrays that go together, in the left side's order; note what no row says."""
    groups: list[Group] = []
    zeros = facts.zeros()
    lone = {path for row in facts.extra for path, _ in row.right}
    written = {
        *zeros,
        *facts.blank,
        *(given.right if given else ()),
        *(n for n in facts.rights.names if escaped(n) in lone),
    }
    for left_names, right_names in components(facts):
        if written.issuperset(right_names):
            continue
        rows = lines(facts, left_names, right_names, names) if left_names else None
        if rows is None and left_names:
            rows = parts_of_vector(facts, left_names, right_names)
        if rows is None:
            missing.update(_unwritten(facts, left_names, right_names))
        else:
            groups.append((left_names, right_names, rows))
    groups = [
        (left_names, right_names, [_with_ties(row, facts.ties) for row in rows])
        for left_names, right_names, rows in with_terms(facts, groups, zeros, names)
    ]
    others = given.table.lines if given else ()
    own = [name for name in given.right if name in facts.rights.shapes] if given else []  # the names of ties are none
    moved = [name for name in own if given and facts.rights.part(given.map[0], name).any()]
    groups = with_met_letters(parts_of_sums(facts, groups, missing, moved), facts, names.lengths, others)
    groups = apart_from_set(with_shown_lengths(groups, facts, names.lengths, others), names.lengths, others)
    places = {name: k for k, name in enumerate(facts.lefts.names)}
    return sorted(groups, key=lambda group: min(places[name] for name in group[0]))


def _unwritten(facts: Facts, left_names: Sequence[str], right_names: Sequence[str]) -> dict[str, str]:
    """Return {right parameter: why no line says of which left ones it is made}."""
    parts = {name: np.unique(facts.rights.part(facts.found, name)) for name in right_names}
    partly = {name for name, part in parts.items() if (part == 0).any()}
    others, of = BESIDE_PARTS if partly else NO_LINE, " and ".join(left_names)
    twice = [name for name, part in parts.items() if np.isin(part, _of_others(parts, name)).any()]
    if not partly and len(twice) > 1:
        others = f"no line was found: {in_a_row(twice)} were matched to the same values, of"
    return {name: f"{PARTLY if name in partly else others} {of}" if of else UNMATCHED for name in right_names}


def _of_others(parts: Mapping[str, Array], name: str) -> Array:
    """Return the left elements of all right parameters but one."""
    return np.concatenate([np.zeros(0, np.int64), *(part for other, part in parts.items() if other != name)])


def _fitting(
    facts: Facts, groups: Sequence[Group], names: Names, missing: Mapping[str, str], given: Hint | None
) -> DerivedTable | None:
    """Return the most folded Table that says what the map does: of folded blocks, else of single ones, else None."""
    apart, flat = set[str](), set[str]()  # blocks of which some lack an array: first their lists stay apart, then all
    closed = set[str]()  # blocks that stand in one list with others on the right: first they state their range
    for _ in range(ROUNDS):
        attempt = partial(folded, apart=frozenset(apart), flat=frozenset(flat), closed=frozenset(closed))
        table = _table(facts, groups, attempt, names, missing, given)
        if says(table, facts):
            more = set() if missing else _unfit_backwards(table, facts)
            table, uneven = stated(table, [str(line) for line in given.table.lines] if given else ())
            more |= uneven - closed
            if more <= apart:
                return table
            apart |= more & closed
            closed |= more
            continue
        if (more := _unfit(table, facts)) <= apart:
            break
        apart |= more & flat
        flat |= more
    table = _table(facts, groups, list, names, missing, given)
    return table if says(table, facts) else None


def _leave_out_misfits(
    facts: Facts, groups: list[Group], names: Names, missing: dict[str, str], given: Hint | None
) -> None:
    """Move the groups whose lines do not say what was found, or contradict other lines, to what is missing."""
    for group in list(groups):
        if not _says_alone(group, facts, names):
            groups.remove(group)
            tried = "; ".join(map(str, group[2]))
            missing.update(dict.fromkeys(group[1], f"no line was found: {tried} was tried, and does not describe it"))
    # lines contradict each other where they count the same blocks, or count blocks that have no partner
    for side, why in enumerate(("contradicts other lines", "does not fit the right model's arrays")):
        unfit = _unfit(_table(facts, groups, list, names, missing, given), facts)
        spoken = {normal(escaped(name)) for name in (*given.left, *given.right)} if given else set()
        if not unfit.isdisjoint(spoken):  # `check_lines` quotes what contradicts given lines
            return
        for group in list(groups):
            if not unfit.isdisjoint(normal(escaped(name)) for name in group[:2][side]):
                groups.remove(group)
                missing.update(dict.fromkeys(group[1], f"{'; '.join(map(str, group[2]))} {why}"))


def _table(
    facts: Facts,
    groups: Sequence[Group],
    attempt: Callable[[Sequence[Row]], list[Row]],
    names: Names,
    missing: Mapping[str, str],
    given: Hint | None = None,
) -> DerivedTable:
    """Return the Table of the groups' rows and of those for arrays that only one side has."""
    used = {name for left_names, _, _ in groups for name in left_names} | set(given.left if given else ())
    made = {name for _, right_names, _ in groups for name in right_names} | set(given.right if given else ())
    unused = [name for name in (*facts.lefts.names, *facts.ties[0]) if facts.ties[0].get(name, name) not in used]
    extra = [*(dropped(name, 0) for name in unused if name not in used)]
    lefts, rights = {*map(escaped, used)}, {*map(escaped, made)}  # that other lines speak of
    extra += [row for row in facts.extra if lefts.isdisjoint(dict(row.left)) and rights.isdisjoint(dict(row.right))]
    extra += [
        constant(name, len(facts.rights.shapes[name]), exact(value), "<->" if facts.zeroed(name) else "<-")
        for name, value in facts.blank.items() if name not in made
    ]  # fmt: skip
    own = (given.left, given.right) if given else ((), ())
    extra += _tied([row for _, _, rows in groups for row in rows], (used, made), facts.ties, own)
    rows, lengths = [row for _, _, rows in groups for row in rows], dict(names.lengths)
    absent = {name: "" for name in facts.rights.names if name not in {*made, *facts.blank}}
    absent |= {name: why for name, why in missing.items() if name not in (given.right if given else ())}
    every: list[Row | Line] = [
        *(given.table.lines if given else ()),
        *with_letters_of_lists(own_letters(attempt(rows), lengths), lengths),
        *attempt(extra),
    ]
    return table_of(every, facts.sides, names.orders, facts.known, facts.like(absent), lengths)


def _arrays(facts: Facts) -> dict[str, Array]:
    """Return the left side's arrays with element numbers in place of values."""
    arrays = {name: np.zeros(shape) for name, shape in facts.others[0].items()}
    return arrays | _numbers(facts, facts.lefts.names)


def _numbers(facts: Facts, names: Collection[str]) -> dict[str, Array]:
    """Return the element numbers of left parameters, under their own names and those that share them."""
    every = {name: name for name in names} | {tied: first for tied, first in facts.ties[0].items() if first in names}
    return {name: facts.lefts.numbers(first) for name, first in every.items()}


def _says_alone(group: Group, facts: Facts, names: Names) -> bool:
    """Tell whether a group's lines, without all others, move its elements as the map does."""
    left_names, right_names, rows = group
    arrays = _numbers(facts, left_names)
    known = {name: np.shape(array) for name, array in arrays.items()}
    tied = (name for name, first in facts.ties[1].items() if first in right_names)
    like = {name: facts.rights.shapes[facts.ties[1].get(name, name)] for name in (*right_names, *tied)}
    lengths = dict(names.lengths)
    every = [*own_letters(rows, lengths), *_tied(rows, (left_names, right_names), facts.ties)]
    table = table_of(every, facts.sides, names.orders, known, like, lengths)
    return _moves(table, arrays, facts, right_names)


def _unfit(table: Table, facts: Facts) -> set[str]:
    """Return the names, without their numbers, of arrays that do not fit the table."""
    return _misfits(lambda: moved(table, _arrays(facts)))


def _unfit_backwards(table: Table, facts: Facts) -> set[str]:
    """Return the names, without their numbers, of right arrays that do not fit the reversed table."""
    return _misfits(lambda: table.reverse().layout(facts.like({}), facts.known))


def _misfits(read: Callable[[], object]) -> set[str]:
    """Return the names, without their numbers, of which reading arrays by a table complains."""
    try:
        read()
    except Misfit as error:
        names = [*error.missing, *error.unexpected, *(name for name, _ in error.misfits)]
        return {normal(escaped(name)) for name in names}
    except TableError:
        pass
    return set()


def says(table: Table, facts: Facts) -> bool:
    """Tell whether the table moves element numbers as the map does."""
    return _moves(table, _arrays(facts), facts)


def _moves(table: Table, arrays: Mapping[str, Array], facts: Facts, only: Sequence[str] | None = None) -> bool:
    """Tell whether the table moves these element numbers as the map does, to all right arrays or to some."""
    try:
        made = moved(table, arrays)
    except TableError:
        return False

    summed = bool(facts.plus.any())

    def wanted(name: str) -> Array:
        return facts.part(name) + facts.rights.part(facts.plus, name) if summed else facts.part(name)

    return all(
        np.array_equal(array, wanted(name))
        for name, array in made.items()
        if name in facts.rights.shapes and name not in facts.blank and (only is None or name in only)
    )


def _with_ties(row: Row, ties: tuple[Mapping[str, str], Mapping[str, str]]) -> Row:
    """Return the row with the names that share its array on a side that has one array."""
    if row.arrow != "<->" or row.constant or " + " in row.joins:
        return row
    for side in (0, 1):
        arrays = (row.left, row.right)[side]
        axes, tied = dict(arrays), ties[side].items()
        shared = [(escaped(name), axes[escaped(first)]) for name, first in tied if escaped(first) in axes]
        if shared and (len(arrays) == 1 or row.joins[side] == " = "):
            more = (*arrays, *shared)
            if side == 0:
                row = replace(row, left=more, joins=(" = ", row.joins[1]))
            else:
                row = replace(row, right=more, joins=(row.joins[0], " = "))
    return row


def _tied(
    rows: Sequence[Row], spoken: Sequence[Collection[str]], ties: Sequence[Mapping[str, str]],
    given: Sequence[Collection[str]] = ((), ()),
) -> list[Row]:  # fmt: skip
    """Return lines that tie names which no row has, as those of a term of a sum, or of an array with several lines.

    Args:
      spoken: parameters of each side of which lines speak. given: names in the user's lines.
    """
    tied = list[Row]()
    for side, names in enumerate(spoken):
        said = {path for row in rows for path, _ in (row.left, row.right)[side]} | {*map(escaped, given[side])}
        more = {name: first for name, first in ties[side].items() if first in names and escaped(name) not in said}
        for first in dict.fromkeys(more.values()):
            arrays = [(escaped(name), None) for name in (first, *(name for name in more if more[name] == first))]
            row = Row(left=tuple(arrays), joins=(" = ", ", "))
            tied.append(row.reverse() if side else row)
    return tied
