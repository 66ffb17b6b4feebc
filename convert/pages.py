"""Load pages of architectures that the user names with --spec."""

from __future__ import annotations

from collections.abc import Iterable

import specs
from specs.raised import line_of
from specs.spec import SpecError, described

from .dialect_faults import check_dialects
from .errors import UsageError


def use(sources: Iterable[str]) -> None:
    """Load pages and check their dialects.

    Args:
      sources: .py files, or names of entry points of the group "triptych.specs".
    Raises: UsageError that lists everything wrong with a page, or with the lines of a dialect's table.
    """
    for source in sources:
        try:
            architecture = specs.add(source)
        except SpecError as error:
            raise UsageError(f"--spec: {error.message}", error.problems) from None
        check_dialects(architecture)


def fault(error: Exception) -> str:
    """Say where the code of a page that was added raised an exception, and what; "" for one of other code."""
    for name in specs.names():
        if specs.folder(name) is None:
            continue
        file = specs.get(name).layers.__code__.co_filename
        if line := line_of(error, [file]):
            what = "code of a page that you added: correct it, or choose other settings"
            return f"{file}, line {line}: {described(error)} ({what})"
    return ""
