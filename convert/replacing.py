"""Decide what --force replaces: the target, and of what lies beside it only what belonged to the target before."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from .errors import ConvertError, UsageError, option
from .files import open_checkpoint
from .files.atomic import temporary_of
from .files.sharded import KEY, PART, Index
from .records import record as records

TEXT = 1 << 16  # bytes of a text that tell what it is: comments may stand above the first line of a Table
Removed = Callable[[str], None]  # is called with the path of each file that was removed


def warn(path: str) -> None:
    """Warn of a file that was removed; the command line prints it."""
    warnings.warn(f"removed {path}", stacklevel=2)


def index_of(out: str) -> str:
    """Return the index of a target that is written in shards."""
    return out + ".index.json"


def check(out: str, names: list[str], record_beside: bool) -> None:
    """Check that what --force would replace is the target's own.

    Args:
      out: target.
      names: files to write: the target, or its shards.
      record_beside: the target's record is a file of its own, OUT.json.
    Raises: ConvertError that names a file that is not: somebody else's shard, index or .json.
    """
    index, not_replaced = index_of(out), f"so {option('force')} does not replace it: move it away"
    if os.path.lexists(index) and not record_beside and (what := _foreign(index)):
        raise ConvertError(f"{index}: {what}, so {option('force')} does not remove it: move it away")
    if record_beside and os.path.lexists(out + ".json") and not records.is_record(out + ".json"):
        raise ConvertError(f"{out}.json: is no record of a conversion, {not_replaced}")
    shards = [os.path.abspath(name) for name in names if name != out and os.path.lexists(name)]
    elsewhere, own = _listed_elsewhere(out), set(_own_shards(out)) if shards else set()
    for name in shards:
        if name in elsewhere:
            raise ConvertError(f"{name}: is a shard of {elsewhere[name]}, {not_replaced}")
        if name not in own:
            raise ConvertError(f"{name}: exists, and {index} does not list it, {not_replaced}")


class Text(NamedTuple):
    """A kind of text that a command writes.

    Args:
      begins: a regular expression for its beginning. name: what messages call it.
    """

    begins: bytes
    name: str

    def check(self, path: str) -> None:
        """Check that a file at a target is of this kind, or empty. Raises: UsageError for others, such as code."""
        if not os.path.isfile(path):
            return
        try:
            with open(path, "rb") as file:
                first = file.read(TEXT)
        except OSError as error:
            raise ConvertError(f"{path}: cannot be read: {error.strerror}") from error
        if first and not re.match(self.begins, first):
            remedy = "give another name, or move it away"
            raise UsageError(f"{path}: is no {self.name}, so {option('force')} does not replace it: {remedy}")


def outdated(out: str, names: list[str]) -> list[str]:
    """List the files of the old checkpoint that the new one does not overwrite; an index comes last.

    These are the shards that its index or that of a killed run lists, or that name this index as theirs, unless another
    index lists them; and the index where one file comes, or the one file where shards do.
    """
    index, elsewhere = index_of(out), _listed_elsewhere(out)
    kept = {*map(os.path.abspath, names), *elsewhere}
    whole, beside = names == [out], f"{out}.json"
    beside = beside if not whole and records.is_record(beside) else out
    old = [*_own_shards(out), *(os.path.abspath(name) for name in (out, beside, index) if os.path.lexists(name))]
    return [name for name in dict.fromkeys(old) if name not in kept and (whole or not _same(name, index))]


def _same(name: str, other: str) -> bool:
    return name == os.path.abspath(other)


def _own_shards(out: str) -> Iterator[str]:
    """Yield shards of a target that exist: its index lists them, or they name that index in their metadata.

    A killed run leaves its unfinished index, which lists the shards that it gave their names or would have replaced.
    """
    index = index_of(out)
    for listing in (index, temporary_of(index)):
        yield from (path for path in _shards(listing) or () if os.path.lexists(path))
    folder, name = os.path.split(os.path.abspath(out))
    stem, suffix = map(re.escape, os.path.splitext(name))
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if re.fullmatch(rf"{stem}-\d{{5}}-of-\d{{5}}{suffix}", entry) and _part_of(path) == os.path.basename(index):
            yield path


def _part_of(path: str) -> str | None:
    """Return the name of the index that a shard was written for, if it says."""
    with suppress(ConvertError), open_checkpoint(path) as reader:
        return reader.metadata.get(PART)
    return None


def _listed_elsewhere(out: str) -> dict[str, str]:
    """Return {shard: index} of every other index in the target's folder."""
    folder = os.path.dirname(os.path.abspath(out))
    indices = [name for name in sorted(os.listdir(folder)) if name.endswith(".index.json")]
    others = [name for name in indices if name != os.path.basename(index_of(out))]
    return {shard: name for name in others for shard in _shards(os.path.join(folder, name)) or ()}


def _foreign(index: str) -> str:
    """Say what an index of shards is that this converter did not write; "" of its own, and of a killed run's."""
    try:
        own = Index(index)
    except ConvertError:
        return "is no index of shards"
    if KEY in own.metadata or own.total_size is None:  # a killed run's lists shards alone
        return ""
    return "is of a checkpoint that this converter did not write"


def _shards(index: str) -> list[str] | None:
    """Return every shard that an index lists; None where it is no index."""
    with suppress(ConvertError):
        return [os.path.abspath(path) for path in Index(index).shards.values()]
    return None
