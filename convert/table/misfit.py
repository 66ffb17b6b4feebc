"""Say why a Table does not fit a file, and what may be meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from convert import folding
from convert.errors import ConvertError, OpenFields, option
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.reading.nesting import WRAPPERS, training, unwrapped
from convert.reading.own_names import own_names
from convert.reading.parametrized import parametrized
from convert.reading.replicas import leading, replication
from specs.notation.lines import Lines, Misfit
from specs.solving.matching import Matcher
from specs.solving.sizes import LIKE, NO_LINE, SizeError
from specs.table import Table, TableError
from specs.words import with_article

from .gaps import gaps
from .part import FEW, part, places
from .unread import of_other_blocks, unread

TWICE = "stored without this wrapper too, and a model has one of both: save that one alone"
FIRST = 4  # names of a file that are listed where none is in the Table


class StateAlone(ConvertError):
    """A file, or the part of it that is taken, that is the state of an optimizer and has no weights."""

    def __init__(self, path: str, part: str | None):
        taken = part and option("weights", part.rstrip("/"))
        self.what = f"{path}: {taken} takes" if taken else f"{path}: is"
        self.what += " the state of an optimizer alone, and a Table reads weights"
        whose = "take" if taken else "convert the file of"
        super().__init__(f"{self.what}: {whose} the weights, --with-optimizer takes the state along")

    def compared(self) -> ConvertError:
        """Return the error for who compares two files."""
        remedy = "convert one file by --with-optimizer, and compare the states of two files of one side"
        return ConvertError(f"{self.what}: to compare states, {remedy}")


def replicas(table: Table, sources: Mapping[str, Tensor]) -> int:
    """Return the length of a leading axis of all arrays without which they fit a Table; 0 where there is none."""
    number = leading(sources.values())
    if not number or fits(table, {name: tensor.shape for name, tensor in sources.items()}):
        return 0
    return number if fits(table, {name: tensor.shape[1:] for name, tensor in sources.items()}) else 0


def fits(
    table: Table, shapes: Mapping[str, tuple[int, ...]], like: Mapping[str, tuple[int, ...]] | None = None
) -> bool:
    """Tell whether arrays of these shapes fit a Table, for some lengths of the axes that they leave open.

    Args:
      like: the shapes of the arrays on the right, if these have to fit too.
    """
    try:
        table.layout(shapes, like)
    except SizeError:
        return True
    except TableError:
        return False
    return True


@dataclass(frozen=True)
class Case:
    """A file that a Table does not fit.

    Args:
      table: as it is read here, from left to right. backwards: whether its file has it the other way round.
      path, sources: the file, and its arrays under the Table's names. prefix: where in it they lie.
      like, like_shapes: a checkpoint of the other side, and its names and shapes. like_weights: the part of it.
      error: what does not fit. described: says what the file has under a name that is no array, "" if nothing.
    """

    table: Table
    path: str
    sources: Mapping[str, Tensor]
    like: str | None
    like_shapes: Mapping[str, tuple[int, ...]] | None
    like_weights: str | None
    backwards: bool
    prefix: str
    error: Misfit
    described: Callable[[str], str]

    @cached_property
    def other(self) -> Table:
        """Return the table read the other way."""
        return self.table.reverse()

    @cached_property
    def turned(self) -> int:
        """Count the names of the file that are strange to the other side of the table, but for training state."""
        strange = Matcher(self.other, self.sources).match().unexpected
        return len(strange) if len(strange) == len(self.sources) else sum(not training(name) for name in strange)

    @property
    def all_unread(self) -> bool:
        return len(self.error.unexpected) == len(self.sources)

    @property
    def remedy(self) -> str:
        """Say how the table is read the other way."""
        return f"leave out {option('reverse')}" if self.backwards else f"add {option('reverse')}"


def explained(case: Case) -> ConvertError:
    """Return the error that says why a Table does not fit: one likely cause, or else all problems."""
    return (
        _replicated(case)
        or _elsewhere(case)
        or _other_side(case)
        or _other_side_elsewhere(case)
        or _state_alone(case)
        or _like_of_one_side(case)
        or _like_of_copies(case)
        or _like_of_no_side(case)
        or _like_of_other_arrays(case)
        or _problems(case)
    )


def _replicated(case: Case) -> ConvertError | None:
    number = replicas(case.table, case.sources)
    return ConvertError(f"{case.path}: {replication(number, f'fit {case.table.name}')}") if number else None


def _elsewhere(case: Case) -> ConvertError | None:
    """Find the names that the table reads in other places of the file."""
    roots = places(case.table, case.error.missing, case.sources) if case.all_unread else []
    return ConvertError(f"{case.path}: {_nested(case.table, roots)}") if roots else None


def _other_side(case: Case) -> ConvertError | None:
    if case.turned or not case.error.unexpected:
        return None
    what = f"its arrays are named as on the other side of {called(case.table, case.path)}: {case.remedy}"
    return ConvertError(f"{case.path}: {what}")


def _other_side_elsewhere(case: Case) -> ConvertError | None:
    """Find the names of the table's other side in other places of the file."""
    if not case.all_unread:
        return None
    roots = places(case.other, Matcher(case.other, case.sources).match().missing, case.sources)
    if not roots:
        return None
    what = f"its arrays under {roots[0]!r} are named as on the other side of {called(case.table, case.path)}"
    return ConvertError(f"{case.path}: {what}: {case.remedy}")


def _state_alone(case: Case) -> ConvertError | None:
    alone = case.all_unread and _are_state(case.path, case.prefix or None)
    return StateAlone(case.path, case.prefix) if alone else None


def _like_of_one_side(case: Case) -> ConvertError | None:
    """Return the error for a --like file of the source's side; None for others."""
    if not case.like_shapes or strange(case.table, case.like_shapes) >= strange(case.other, case.like_shapes):
        return None
    what = f"its arrays are named as those of {case.path}: give a file of the other side of {case.table.name}"
    return ConvertError(f"{case.like}: {what}")


def _like_of_copies(case: Case) -> ConvertError | None:
    """Return the error for a --like file that has all that the table makes at several places; None for others."""
    if not case.like_shapes or case.like_weights or case.error.unexpected:
        return None
    roots = places(case.other, _made(case.table)[:1], case.like_shapes)
    if not Matcher(case.other, case.like_shapes).match().missing:
        roots.insert(0, "")
    if len(roots) < 2:
        return None
    where = " and ".join(f"under {place!r}" if place else "at its root" for place in roots)
    what = f"all names that {case.table.name} makes lie {where}: give a file with one of these copies alone"
    return ConvertError(f"{case.like}: {what}")


def _like_of_no_side(case: Case) -> ConvertError | None:
    """Return the error for a --like file of another model; None for others."""
    if not case.like or not case.like_shapes or case.error.unexpected:
        return None
    shared = len(case.like_shapes) - strange(case.other, case.like_shapes)
    if shared >= FEW * len(case.like_shapes):
        return None
    if _are_state(case.like, case.like_weights):
        return StateAlone(case.like, case.like_weights)
    side = f"{'left' if case.backwards else 'right'} side of {case.table.name} ({case.table.sides[1]})"
    why = "it is the source: give a file of the target's model" if case.like == case.path else "another model?"
    what = f"{shared} of {len(case.like_shapes)} names are on the {side}, whose shapes it is to give: {why}"
    return ConvertError(f"{case.like}: {what}", [] if shared else _first_names(case.like_shapes, _made(case.table)))


def _like_of_other_arrays(case: Case) -> ConvertError | None:
    """Return the error for a table that fits the source, but not the file given by --like; None for others."""
    if not case.like or case.error.missing or case.error.unexpected:
        return None
    table = called(case.table, case.path)
    if any(LIKE in problem for _, problem in case.error.misfits):
        what = f"{table} makes other arrays of it than {case.like} has"
        alike = all(problem.startswith(NO_LINE) for _, problem in case.error.misfits)
    elif fits(case.table, {name: tensor.shape for name, tensor in case.sources.items()}):
        what, alike = f"fits {table}, but not with the lengths that {case.like} has", False
    else:
        return None
    what += "" if alike else ": give a file of a model as deep and as wide as the source's"
    return ConvertError(f"{case.path}: {what}", _each(case))


def _problems(case: Case) -> ConvertError:
    """List everything that does not fit; of another model, only that it is one."""
    table, error = case.table, case.error
    own = own_names(error.unexpected)
    known = list(filter(None, [parametrized(error.unexpected), own]))
    fit, fit_turned = (len(case.sources) - strangers for strangers in (len(error.unexpected), case.turned))
    few = FEW * len(case.sources)
    problems = [*known, *_each(case)]
    if fit_turned > fit and fit_turned >= few:
        problems.insert(0, f"its arrays are named as on the table's other side: {case.remedy}")
    elif max(fit + of_other_blocks(error.unexpected, table), fit_turned) < few:
        what = f"{fit} of {len(case.sources)} names are in this Table"
        what += "" if own else f": another model?{_architecture(case.path)}"
        problems = [what, *(problems if fit else [*known, *_first_names(case.sources, error.missing)])]
    where = f", under {case.prefix!r}" if case.prefix else ""
    direction = " to ".join(sides_of(table, case.backwards))
    what = f"does not fit {called(table, case.path)}, read from {direction}{where}"
    return ConvertError(f"{case.path}: {what}", problems)


def _each(case: Case) -> list[str]:
    """List missing arrays, those of other shapes, and those that no line speaks of."""
    no_arrays = _no_arrays(case)
    missing, wrapped = [name for name in case.error.missing if name not in no_arrays], _wrapped_twice(case)
    unexpected = [name for name in case.error.unexpected if name not in wrapped]
    misfits = [line.replace(LIKE, case.like or LIKE) for line in folding.misfits(case.error.misfits)]
    drop = "" if case.error.missing or misfits else "drop <- {}" if case.backwards else "{} -> drop"
    others = folding.capped(list(no_arrays.values()), "that are no arrays")
    absent, single = gaps(missing, case.sources)
    lines = [*folding.capped(absent, "missing"), *folding.missing(single, unexpected)]
    twice = [f"{', '.join(folding.fold(wrapped))}: {TWICE}{_taken_by(case, wrapped)}"] if wrapped else []
    return [*others, *lines, *misfits, *twice, *unread(unexpected, missing, case.table, drop)]


def _wrapped_twice(case: Case) -> list[str]:
    """Return names that no line speaks of, and that without wrappers are those of other arrays."""
    bare = {name: unwrapped(name) for name in case.error.unexpected}
    return [name for name, plain in bare.items() if plain != name and plain in case.sources]


def _taken_by(case: Case, names: list[str]) -> str:
    """Name the option that takes the arrays under one wrapper; "" where it would not take as many as lie outside."""
    if 2 * len(names) != len(case.sources):
        return ""
    starts = {match[0] if (match := re.match(WRAPPERS, name)) else "" for name in names}
    return f" ({option('weights', start)} takes these)" if len(starts) == 1 and (start := starts.pop()) else ""


def _no_arrays(case: Case) -> dict[str, str]:
    """Return {name that lines need: what the file has under it, which is no array, and the remedy}."""
    remedy = "save it as an array, or without it and with a Table that leaves it out"
    return folding.no_arrays(case.error.missing, lambda name: case.described(f"{case.prefix}{name}"), remedy)


def _first_names(sources: Iterable[str], missing: Iterable[str]) -> list[str]:
    """List the first names of a file and of a Table that have nothing in common: each name would be a problem."""
    if not missing:
        return ["the Table has no line that needs an array: derive or write it first"]
    sides = {"the file's first names are": sources, "the Table's are": missing}
    return [f"{what} {', '.join(folding.fold(names)[:FIRST])}" for what, names in sides.items()]


def _made(table: Table) -> list[str]:
    """Return the names of a Table's right side, with its holes."""
    return [array.label for line in table.lines for array in line.right.arrays]


def strange(table: Table, names: Iterable[str]) -> int:
    """Count the names that no line of a Table speaks of on its left side."""
    return len(Matcher(table, names).match().unexpected)


def _are_state(path: str, weights: str | None) -> bool:
    """Tell whether a part of a file is the state of an optimizer."""
    from convert.reading import optimizers

    with suppress(ConvertError), open_checkpoint(path) as reader:  # there may be the states of several optimizers
        own = part(reader, weights).sources.values()
        return bool(own) and optimizers.state_names(reader).issuperset(tensor.name for tensor in own)
    return False


def _architecture(path: str) -> str:
    """Say of which known architecture a file is; "" where it is of none."""
    from convert.plans.planning import plan

    try:
        with plan(path, sampled=True) as known:
            return f" ({path} is {with_article(known.architecture)} ({known.src}))"
    except OpenFields as error:
        return f" ({path} is {with_article(error.architecture)})"
    except ConvertError:
        return ""


def called(table: Table, path: str) -> str:
    """Name a Table in a message on a file, which may hold the Table itself."""
    own = os.path.abspath(table.name) == os.path.abspath(path)
    return "the Table in its own record" if own else table.name


def _nested(table: Table, places: list[str]) -> str:
    """Say under which places of a file all names lie that a Table reads, and the option that takes one."""
    where = ", and all under ".join(map(repr, places))
    return f"all names that {table.name} reads lie under {where}: {option('weights', places[0].rstrip('/'))}"


def sides_of(table: Lines, backwards: bool) -> tuple[str, str]:
    """Name the side that is read and the one that is made; of one framework, by where the Table's file has them."""
    if table.sides[0] != table.sides[1]:
        return table.sides
    return ("right", "left") if backwards else ("left", "right")
