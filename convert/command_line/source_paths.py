"""List the sources that a command line means: files, folders of checkpoints, and patterns that no shell expanded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from convert import folding
from convert.errors import ConvertError
from convert.files import FORMATS, INDEX, files_of, folder_format, foreign, is_named_as_checkpoint, lacking, suffixes
from convert.files.base import INCOMPLETE
from convert.files.entry_names import OPTIMIZER_FILES
from convert.files.inside import PATTERN, Several, look, matching
from convert.records import record

OF_WEIGHTS = "the optimizer's state of the .pdparams with its name"
NO_CHECKPOINT = "a folder that is no checkpoint"


@dataclass(frozen=True)
class Sources:
    """What is converted, and what of the folders given is not.

    Args:
      passed_over: path -> why: {"in/README.md": "no suffix of a checkpoint"}.
      notes: which checkpoint of a folder was taken, and what lies beside it.
      found: those of the files that were found in a folder with others, and not named.
    """

    files: list[str]
    passed_over: dict[str, str]
    notes: tuple[str, ...] = ()
    found: frozenset[str] = frozenset()

    def lines(self) -> list[str]:
        return [*self.notes, *over(self.passed_over)]


def over(reasons: Mapping[str, str]) -> list[str]:
    """Return what is passed over, {path: why}, for people: a line a reason, names folded."""
    return [
        f"passed over, {why}: {', '.join(folding.fold(paths))}" for why, paths in folding.by_reason(reasons).items()
    ]


Made = Callable[[Mapping[str, Any]], bool]  # whether a checkpoint with this record is what the same command writes


def sources(given: Iterable[str], step: int | None = None, made: Made | None = None) -> Sources:
    """Find the checkpoints that are meant. Shards are read through an index that lies beside them; a shard without
    one is a source of its own, and refused unless it is a whole model.

    Args:
      step: of a training run's folder; None takes the newest.
      made: tells which checkpoints in a folder the same command wrote before: these are no sources.
    Raises: ConvertError where a pattern matches nothing, or a folder holds no checkpoint.
    """
    files: list[str] = []
    passed_over: dict[str, str] = {}
    notes: list[str] = []
    inner, named = set[str](), set[str]()
    for path in given:
        for match in [path] if os.path.lexists(path) or not PATTERN.search(path) else matching(path):
            inside = _inside(match, step)
            if made and len(inside.files) > 1:
                inside = _without_targets(inside, made)
            files += inside.files
            passed_over |= inside.passed_over
            notes += inside.notes
            inner |= inside.found
            named |= set(inside.files) - inside.found
    files = list(dict.fromkeys(files))
    read = _read_through(files)
    return Sources([path for path in files if path not in read], passed_over, tuple(notes), frozenset(inner - named))


def _without_targets(inside: Sources, made: Made) -> Sources:
    """Pass over those of a folder's checkpoints that the same command made of others there."""
    names = {os.path.basename(path) for path in inside.files}
    targets = []
    for path in inside.files:
        with suppress(ConvertError):  # one that cannot be read is refused where it is converted
            stored = record.at(path)
            source, altered = stored.content.get("source", {}).get("file"), stored.damage or stored.change
            if not altered and source in names - {os.path.basename(path)} and made(stored.content):
                targets.append(path)
    over = dict.fromkeys(targets, "which the same conversion of another file there wrote")
    return replace(
        inside, files=[path for path in inside.files if path not in over], passed_over={**inside.passed_over, **over}
    )


def _inside(path: str, step: int | None) -> Sources:
    """Return a file, or a folder that is one checkpoint, as it is.

    Of any other folder, return the checkpoint that is meant, or else every checkpoint inside, and why each of its other
    entries is none. The .json beside a checkpoint is its record.
    """
    if what := lacking(path) if not folder_format(path) else "":
        raise ConvertError(f"{path}: {what} ({INCOMPLETE})")
    try:
        location = look(path, step)
    except Several as error:
        if error.folder != path or not os.path.isdir(path):  # the user has to name a folder inside, or a suffix
            raise
        return _all_inside(path, error)
    if location.path == path and os.path.isdir(path) and not folder_format(path):
        return _all_inside(path)
    return Sources([location.path], {}, location.notes)


def _reasons(path: str) -> dict[str, str]:
    """Return {entry of a folder: why it is no source, or ""}. Raises: ConvertError where it cannot be read."""
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read: {error.strerror}") from None
    return {entry.path: _reason(entry) for entry in entries}


def _all_inside(path: str, several: Several | None = None) -> Sources:
    """Return every checkpoint in a folder. Raises: ConvertError where there is none.

    Args:
      several: raised where the folder has folders with checkpoints, of which one has to be given.
    """
    reasons = _reasons(path)
    checkpoints = [name for name, reason in reasons.items() if not reason]
    if not checkpoints:
        foreign.check_folder(path)
        raise several or ConvertError(f"{path}: is a folder that holds no checkpoint ({' '.join(suffixes(FORMATS))})")
    shards = _read_through(checkpoints)
    checkpoints = [name for name in checkpoints if name not in shards]
    records = {f"{name}.json" for name in checkpoints}
    others = {name: reason for name, reason in reasons.items() if reason and name not in records}
    return Sources(checkpoints, others, found=frozenset(checkpoints))


def _reason(entry: os.DirEntry[str]) -> str:
    """Return why an entry of a folder is no source; "" if it is one."""
    if entry.name.startswith("."):
        return "hidden"
    if folder_format(entry.path):
        return ""
    if entry.is_dir():
        return f"a folder that is no checkpoint: it {what}" if (what := lacking(entry.path)) else NO_CHECKPOINT
    if not is_named_as_checkpoint(entry.name):
        return "no suffix of a checkpoint"
    if not entry.is_file():
        return "a broken link" if entry.is_symlink() else "no regular file"
    if entry.name.endswith(OPTIMIZER_FILES):
        weights = f"{os.path.splitext(entry.path)[0]}.pdparams"
        return OF_WEIGHTS if os.path.exists(weights) else "the state of an optimizer alone"
    return ""


def _read_through(paths: list[str]) -> set[str]:
    """Return those of these files that are shards of an index among them; an index is none, whatever lists it."""
    by_name = {os.path.abspath(path): path for path in paths if not INDEX.search(path)}
    read: set[str] = set()
    for index in paths:
        with suppress(ConvertError):  # one that is damaged lists nothing, and is refused where it is read
            shards = files_of(index)[1:] if INDEX.search(index) else []
            read.update(by_name[path] for path in map(os.path.abspath, shards) if path in by_name)
    return read
