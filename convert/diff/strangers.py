"""Say why two files cannot be compared: neither an architecture nor common names relate their arrays."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from convert.errors import ConvertError, called, option
from convert.files import open_checkpoint
from convert.reading.nesting import training
from convert.reading.optimizers import state_of
from convert.reading.recognise import nearest, unknown_page
from convert.reading.spelling import respelled
from convert.records.record import read as read_record
from specs.words import with_article

KNOWN = 0.5  # share of a file's names that an architecture has, from which on it explains best what does not fit


class Described(NamedTuple):
    """What is known of a file of whatever architecture.

    Args:
      share: of its names, those that the nearest architecture has. nearest: this one, with its dialect.
      page: what its record says of an architecture that is not here, with the remedy, else "".
      table: where its record lies, if that has the Table that wrote it, else "".
      names: of its arrays. state: the library of an optimizer whose state they all are, else "".
    """

    share: float
    nearest: str
    page: str
    table: str
    names: list[str]
    state: str = ""


def unrelated(a: str, b: str) -> ConvertError | None:
    """Build the error for two files with different names, of which no known architecture has most.

    None where an architecture has most names of both files: what does not fit it is the better explanation.
    """
    files = {path: _described(path) for path in (a, b)}
    strangers = [path for path, file in files.items() if file.share < KNOWN]
    if not strangers:
        return None
    if pages := [f"{path}: its record {files[path].page}" for path in strangers if files[path].page]:
        return ConvertError(pages[0])
    states = [path for path, file in files.items() if file.state]
    if len(states) == 1:  # else both are states of one library, or none
        what = f"{states[0]} is the state of an optimizer alone, and {b if a in states else a} is not"
        return ConvertError(f"{a} and {b}: {what}: give two files of weights, or two states")
    kept = [_moments(file.names) for file in files.values()]
    if all(kept):
        others = "the same of other parameters, as of another model or process" if kept[0] == kept[1] else kept[1]
        return ConvertError(f"{a} and {b}: states of optimizers of paddle: {a} has {kept[0]}, {b} has {others}")
    if weights := _weights(*(file.names for file in files.values())):
        command = f"{called('convert diff')} {weights} {shlex.quote(a)} {shlex.quote(b)}"
        return ConvertError(f"{a} and {b}: parts of them have the same names: {command} compares these")
    what = "names of no known architecture, and the two files have different names"
    records = [
        f"the record of {path} has the Table that wrote it: {option('table', file.table)}"
        for path, file in files.items()
        if file.table
    ]
    if known := [f"{path} is {file.nearest}" for path, file in files.items() if path not in strangers]:
        other = f"and {strangers[0]} has names of no known architecture"
        remedy = f"unless a Table relates them: {option('table', 'FILE')}"
        return ConvertError(f"{known[0]}, {other}; they are two different models, {remedy}", records)
    return ConvertError(f"{' and '.join(strangers)}: {what}: give {option('table', 'FILE')}", records)


def _described(path: str) -> Described:
    with open_checkpoint(path) as reader:
        record, renamed = read_record(reader), respelled(reader)
        reading = nearest(renamed)
        known = reading.score * len(reading.tensors) if reading else 0.0
        table = not record.change and isinstance(record.content.get("table"), dict)
        page, share = unknown_page(record.hints), known / max(len(renamed.tensors), 1)
        place = record.place if record.place.endswith(".json") else path
        model = f"{with_article(reading.architecture)} ({reading.dialect})" if reading else ""
        return Described(share, model, page, place if table else "", list(reader.tensors), state_of(reader))


def _moments(names: list[str]) -> str:
    """Return what an optimizer of paddle keeps, if the names are those of its state alone: "Adam's two moments"."""
    from convert.reading.families import FAMILIES, KEEPS, MOMENTS
    from convert.reading.masters import PADDLE as MASTERS
    from convert.reading.optimizers import PADDLE

    matches = [PADDLE.fullmatch(name) for name in names if not name.startswith(f"{MASTERS}/")]
    slots = {match["slot"] for match in matches if match}
    kept = [KEEPS[family].paddle for family, its in FAMILIES.items() if {MOMENTS[slot].paddle for slot in its} <= slots]
    return kept[0] if kept and all(matches) else ""


def _weights(a: list[str], b: list[str]) -> str:
    """Return the options that compare parts with most names in common, or one with the other file, or ""."""
    whole = [(place, "/") for place in places(a, b)] + [("/", place) for place in places(b, a)]
    for parts in whole or _alike(_inside(a), _inside(b)):
        return " ".join(option("weights", part) for part in parts)
    return ""


def _inside(names: list[str]) -> dict[str, set[str]]:
    """Return {container of a file's top level, but for training state: the names below it}."""
    below: dict[str, set[str]] = {}
    for name in names:
        top, slash, rest = name.partition("/")
        if slash and not training(name):
            below.setdefault(top, set()).add(rest)
    return below


def _alike(a: Mapping[str, set[str]], b: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Yield containers of two files with over half of their names in common."""
    for (one, its), (other, others) in itertools.product(a.items(), b.items()):
        if 2 * len(its & others) > len(its | others):
            yield one, other


def places(names: Collection[str], inner: Collection[str]) -> list[str]:
    """Return the places, without a separator, under which over half of the inner names lie among the others."""
    if not inner:
        return []
    listed, known = set(names), next(iter(inner))
    prefixes = (name.removesuffix(known) for name in names if name.endswith((f"/{known}", f".{known}")))
    return [place[:-1] for place in prefixes if 2 * sum(place + name in listed for name in inner) > len(inner)]
