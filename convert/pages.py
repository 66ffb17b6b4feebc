"""Load pages of architectures that the user names with --spec."""

from __future__ import annotations

from collections.abc import Iterable

import specs
from specs.spec import SpecError

from .dialect_faults import check
from .errors import UsageError


def use(sources: Iterable[str]) -> None:
    """Load pages and check their dialects.

    Args:
      sources: .py files, or names of entry points of the group "triptych.specs".
    Raises: UsageError that lists everything wrong with a page; ConvertError for lines of a dialect's table.
    """
    for source in sources:
        try:
            architecture = specs.add(source)
        except SpecError as error:
            raise UsageError(f"--spec: {error.message}", error.problems) from None
        check(architecture)
