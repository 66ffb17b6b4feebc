"""Read a Table's file, and check what it says against itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from convert.documents import document
from convert.errors import ConvertError, MissingFile
from convert.files import is_named_as_checkpoint
from convert.records import altered, record
from specs.notation.claims import MISSING, UNFINISHED, claim
from specs.table import Table, TableError
from specs.words import in_a_row

UNSHOWN = "no shape shows them, so that wrong ones do not show either"


def load(path: str) -> Table:
    """Read a Table: its own file, the record of a conversion by one, or what `derive --json` prints.

    Raises: ConvertError.
    """
    if not os.path.lexists(path):
        raise MissingFile(path)
    try:
        return Table.load(path, *_recorded(path))
    except TableError as error:
        raise ConvertError(error.message, error.problems) from None


def _recorded(path: str) -> tuple[str | None, dict[str, tuple[int, ...]] | None]:
    """Return the text and the orders of the Table in a record, the .json beside a checkpoint or inside it.

    The text is None for other files, and the orders where files beside the Table contain them.

    Raises: ConvertError for a record without a Table, or one that was changed.
    """
    if (not path.endswith(".json") and not is_named_as_checkpoint(path)) or not os.path.exists(path):
        return None, None
    text, orders = _text_and_orders(path, record.at(path))
    if text is None:
        raise ConvertError(
            f"{path}: contains no Table, as the record of a conversion by a Table does ({document('table')})"
        )
    return text, orders


def _text_and_orders(path: str, stored: record.Record) -> tuple[str | None, dict[str, tuple[int, ...]] | None]:
    """Return what `_recorded` does, of a record that was read; the text is None where it has no Table.

    Args:
      path: of its file, for messages.
    Raises: ConvertError for a record that was changed.
    """
    table = stored.content.get("table")
    if isinstance(table, str):  # of `derive --json`, which has no hash of itself
        return table, None
    text, orders = (table.get("text"), table.get("orders")) if isinstance(table, dict) else (None, None)
    if not isinstance(text, str):
        return None, None
    if stored.damage:
        raise ConvertError(f"{path}: its record {stored.damage}: save its Table as a file of its own, and look at it")
    if not isinstance(orders, dict):
        return text, None  # one that names none, or an earlier record, which lacks their numbers
    whole = all(isinstance(order, list) and all(type(n) is int for n in order) for order in orders.values())
    if not whole:
        raise ConvertError(f"{path}: the orders of the Table in its record are no lists of numbers")
    return text, {str(name): tuple(order) for name, order in orders.items()}


def recorded_table(stored: record.Record) -> Table | None:
    """Return the Table in the record of a conversion, which states all lengths; None where there is none to be read."""
    try:
        text, orders = _text_and_orders(stored.place, stored)
        return None if text is None else Table.parse(text, orders)
    except (ConvertError, TableError):  # of another version, or edited
        return None


def check_complete(table: Table) -> None:
    """Check that a Table does not say that it was derived in part. Raises: ConvertError."""
    if why := claim(table, UNFINISHED):
        missing = [comment.removeprefix("# ") for comment in table.lines[0].above if comment.startswith(MISSING)]
        raise ConvertError(f"{table.name} is incomplete, as its comment says: {why}", missing)


def doubts(content: Mapping[str, Any]) -> list[str]:
    """Return what the record of a conversion by a Table says against the file: no proof, lengths that a user gave."""
    table = content.get("table")
    difference = table.get("difference") if isinstance(table, dict) and table.get("proven") is False else ""
    unproven = [f"its Table was derived and not proven: {str(difference)[:200]}"] if difference else []
    return [*unproven, *given_lengths(content)]


def given_lengths(content: Mapping[str, Any]) -> list[str]:
    """Return a note on the lengths of axes that a record states as given; [] where it states none."""
    table = content.get("table")
    given = table.get("given") if isinstance(table, dict) else None
    lengths = in_a_row(f"{name}={length}" for name, length in given.items()) if isinstance(given, dict) else ""
    return [f"its axes have the lengths that its conversion was given: {lengths[:200]}; {UNSHOWN}"] if lengths else []


def record_problems(stored: record.Record) -> list[str]:
    """Return what is wrong with the record of a Table's source, which is not used for anything else."""
    damage = [f"{stored.place} {stored.damage}: it is ignored"] if stored.damage else []
    change = [f"{stored.changed}; it is ignored"] if stored.change else []
    sample = [f"{stored.place} {stored.sample}"] if stored.sample and not stored.change else []
    losses = [] if stored.damage or stored.change else stored.losses()
    given = [] if stored.damage or stored.change else [f"{stored.place}: {n}" for n in given_lengths(stored.content)]
    return [*damage, *change, *sample, *altered.notes(stored.place, stored.content), *losses, *given]
