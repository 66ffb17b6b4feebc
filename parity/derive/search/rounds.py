"""Number the matches of a derivation in what is reported of its progress."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from parity.derive.match.match import Say


@dataclass
class Rounds:
    """Number the matches in the line of progress, as the count of operations begins again in each.

    Args:
      say: is called with what is done at present. number: of the present match.
    """

    say: Say
    number: int = 0

    def next(self) -> Say:
        """Begin another match; return what reports its progress."""
        self.number += 1
        return functools.partial(self._report, self.number)

    def _report(self, number: int, text: str) -> None:
        self.say(f"matching, round {number}: {text}")
