"""Read all models that a command line names: settings go to those that have them, files have names of their own."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convert.config.settings import Settings
from convert.documents import document
from convert.errors import ConvertError, called, printable
from convert.terminal import say_note

from .targets import Target, targets


def every_target(texts: Sequence[str], settings: Settings, options: Mapping[str, Any]) -> list[Target]:
    """Return what the arguments name; of several models, a setting is applied to those that have it.

    Args:
      options: of `targets`.
    Raises: ConvertError: that of the only argument that is refused, or one that lists all.
    """
    files = [text for text in texts if os.path.exists(text)]
    if len(set(map(os.path.realpath, files))) > 1:
        say_note(_not_with_each_other(files))
    chosen, errors = list[Target](), list[ConvertError]()
    unused = set(settings.chosen) if len(texts) > 1 else set()
    refused_names: dict[str, ConvertError] = {}  # the first error that says that no field has this name
    for text in texts:
        unknown: dict[str, ConvertError] = {}
        try:
            chosen += _read(text, settings, options, unknown if texts[1:] else None)
        except ConvertError as error:
            errors.append(error)
        unused &= unknown.keys()
        refused_names |= {**unknown, **refused_names}
    errors += dict.fromkeys(refused_names[name] for name in settings.chosen if name in unused)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        worst = ConvertError(f"{len(errors)} refusals", [error.line() for error in errors])
        worst.code = max(error.code for error in errors)
        raise worst
    return _distinct(chosen)


def _not_with_each_other(files: Sequence[str]) -> str:
    """Say that files are not compared with each other, and which command does that."""
    command = f"{called('convert')} {shlex.join(['diff', *files[:2]])}"
    return (
        "each file is compared with itself, as several frameworks run it, and not with another file; "
        f"`{command}` compares the arrays of two files, and {document('parity')}, Your own two models, shows how to "
        "compare these as models"
    )


def _read(
    text: str, settings: Settings, options: Mapping[str, Any], unknown: dict[str, ConvertError] | None
) -> list[Target]:
    """Read an argument.

    Args:
      unknown: gets each name of `--set` that its models do not have, with the error for it; None: the error is raised.
    """
    while True:
        try:
            return list(targets(text, settings=settings, **options))
        except ConvertError as error:
            names = settings.chosen & set(error.unknown)
            if unknown is None or not names:
                raise
            unknown |= dict.fromkeys(names, error)
            values = {name: value for name, value in settings.values.items() if name not in names}
            settings = settings._replace(values=values, chosen=settings.chosen - names)


def _distinct(chosen: Sequence[Target]) -> list[Target]:
    """Name checkpoints of one basename by the ends of their paths, as short as tells them apart."""
    paths = [os.path.abspath(target.path) for target in chosen if target.path]
    return [_renamed(target, set(paths)) if target.path else target for target in chosen]


def _renamed(target: Target, paths: set[str]) -> Target:
    path = os.path.abspath(target.path or "")
    others = [other for other in paths if other != path]
    name = next(end for end in _ends(path) if not any(other.endswith(os.sep + end) for other in others))
    return replace(target, variant=printable(name) + target.variant.removeprefix(printable(os.path.basename(path))))


def _ends(path: str) -> Iterator[str]:
    """Yield "c", "b/c", "a/b/c" of a path, and the path."""
    parts = path.strip(os.sep).split(os.sep)
    yield from (os.sep.join(parts[-count:]) for count in range(1, len(parts) + 1))
    yield path
