"""Lay out a Table for a file, and name the file in what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from convert.errors import ConvertError, OpenLengths, option
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor
from convert.reading.spelling import out_of_modules
from convert.reading.weights_alone import partly_read
from convert.records import record
from specs.layout import Layout
from specs.lines import Misfit
from specs.sizes import LIKE, SizeError
from specs.table import Table, TableError

from .misfit import Case, called, explained
from .part import TablePart, matching, without_training


def like_shapes(table: Table, path: str | None, weights: str | None = None) -> dict[str, tuple[int, ...]] | None:
    """Return names and shapes of a checkpoint of a Table's right side, or of a part of it."""
    if path is None:
        return None
    with open_checkpoint(path) as reader:
        return {name: tensor.shape for name, tensor in _like(table, reader, weights).sources.items()}


def like_notes(table: Table, path: str | None, weights: str | None = None) -> list[str]:
    """Say which part of a checkpoint `like_shapes` reads, where it has others."""
    if path is None or weights is not None:
        return []
    with open_checkpoint(path) as reader:
        own = _like(table, reader, weights)
        return partly_read(reader, own.prefix, [tensor.name for tensor in own.sources.values()])


def _like(table: Table, reader: Reader, weights: str | None) -> TablePart:
    """Return what a Table's right side finds in a checkpoint."""
    back = table.reverse()
    return without_training(matching(out_of_modules(reader), weights, back), back)


def lay_out(
    table: Table,
    path: str,
    sources: Mapping[str, Tensor],
    like: str | None,
    sizes: Mapping[str, int],
    like_weights: str | None = None,
    backwards: bool = False,
    prefix: str = "",
    described: Callable[[str], str] = lambda _: "",
) -> Layout:
    """Lay out a Table for a file: errors name the file, fold names and offer the nearest ones.

    Args:
      table: as it is read here, from left to right. backwards: whether the file has it the other way round.
      prefix: where in the file the arrays lie. described: says what the file has under a name that is no array.
    """
    its = like_shapes(table, like, like_weights)
    try:
        return table.layout({name: tensor.shape for name, tensor in sources.items()}, its, sizes)
    except Misfit as error:
        case = Case(table, path, sources, like, its, like_weights, backwards, prefix, error, described)
        raise explained(case) from None
    except SizeError as error:
        message = _said(error, table, path).replace(LIKE, like or LIKE)
        recorded = [*_its_own(path), *(_its_own(like) if like else ())]
        raise OpenLengths(f"{path}: {message}", [*error.problems, *recorded], error.enough, error.axes) from None
    except TableError as error:
        raise ConvertError(f"{path}: {_said(error, table, path)}", error.problems) from None


def _its_own(path: str) -> Iterator[str]:
    """Name the record of a file that a Table made: the Table in it states the lengths of this very file."""
    with suppress(ConvertError):
        its = record.at(path)
        if isinstance(its.content.get("table"), dict) and not its.change:
            yield f"the record of {path} has its Table, with these lengths: {option('table', its.file(path))}"


def _said(error: TableError, table: Table, path: str) -> str:
    """Return an error's message, which begins with the Table's name, for the user of a file."""
    return error.message.replace(table.name, called(table, path), 1)
