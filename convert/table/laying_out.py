"""Lay out a Table for a file, and name the file in what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from convert.errors import ConvertError, OpenLengths, option
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.reading.spelling import out_of_modules
from convert.reading.weights_alone import partly_read
from convert.records import record
from specs.applied.layout import Layout
from specs.notation.lines import Misfit
from specs.solving.sizes import LIKE, SizeError
from specs.table import Table, TableError

from .misfit import Case, called, explained
from .part import matching, without_training


class Like(NamedTuple):
    """What a checkpoint of a Table's right side has.

    Args:
      shapes: of its arrays by name; None where there is no such checkpoint.
      notes: on which part of it was read.
      ties: pairs of names of one array, as a pickle stores those of tied weights.
    """

    shapes: dict[str, tuple[int, ...]] | None = None
    notes: tuple[str, ...] = ()
    ties: tuple[tuple[str, str], ...] = ()


def read_like(table: Table, path: str | None, weights: str | None = None) -> Like:
    """Read a checkpoint of a Table's right side.

    Args:
      weights: the part of it; None finds it.
    """
    if path is None:
        return Like()
    with open_checkpoint(path) as reader:
        back = table.reverse()
        own = without_training(matching(out_of_modules(reader), weights, back), back)
        used = [tensor.name for tensor in own.sources.values()]
        notes = partly_read(reader, own.prefix, used) if weights is None else []
        shapes = {name: tensor.shape for name, tensor in own.sources.items()}
        ties = tuple((first, later) for later, first in own.reader.ties(own.sources))
        return Like(shapes, tuple(notes), ties)


def lay_out(
    table: Table,
    path: str,
    sources: Mapping[str, Tensor],
    like: str | None,
    sizes: Mapping[str, int],
    like_shapes: Mapping[str, tuple[int, ...]] | None = None,
    like_weights: str | None = None,
    backwards: bool = False,
    prefix: str = "",
    described: Callable[[str], str] = lambda _: "",
) -> Layout:
    """Lay out a Table for a file: errors name the file, fold names and offer the nearest ones.

    Args:
      table: as it is read here, from left to right. backwards: whether the file has it the other way round.
      like, like_shapes: a checkpoint of the other side, and the shapes of its arrays. like_weights: the part of it.
      prefix: where in the file the arrays lie. described: says what the file has under a name that is no array.
    """
    try:
        return table.layout({name: tensor.shape for name, tensor in sources.items()}, like_shapes, sizes)
    except Misfit as error:
        case = Case(table, path, sources, like, like_shapes, like_weights, backwards, prefix, error, described)
        raise explained(case) from None
    except SizeError as error:
        what = _said(error.what, table, path).replace(LIKE, like or LIKE)
        recorded = [*_its_own(path), *(_its_own(like) if like else ())]
        problems = [*error.problems, *recorded]
        raise OpenLengths(f"{path}: {what}", problems, error.remedy, error.axes, error.shown) from None
    except TableError as error:
        raise ConvertError(f"{path}: {_said(error.message, table, path)}", error.problems) from None


def _its_own(path: str) -> Iterator[str]:
    """Name the record of a file that a Table made: the Table in it states the lengths of this very file."""
    with suppress(ConvertError):
        stored = record.at(path)
        if isinstance(stored.content.get("table"), dict) and not stored.change:
            yield f"the record of {path} has its Table, with these lengths: {option('table', stored.file(path))}"


def _said(message: str, table: Table, path: str) -> str:
    """Return an error's message, which begins with the Table's name, for the user of a file."""
    return message.replace(table.name, called(table, path), 1)
