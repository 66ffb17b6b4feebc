"""Define an edit: a change of one side's tape by which it may become equal to the other side's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from .tape import Tape

SIDES = ("left", "right")


def and_so(more: int) -> str:
    """Say that an edit has other places too; "" if it has none."""
    return f", and so in {more} more place{'s' if more > 1 else ''}" if more else ""


@dataclass(frozen=True)
class Edit(ABC):
    """A change of one side.

    Args:
      side: 0 for the left.
      kind: what differs, as a noun: "epsilon", "residual".
      text: how both sides differ.
      times: how many of that kind differ.
      wider: the same in all blocks that are alike, if there are such, and in all modules.
    """

    side: int
    kind: str
    text: str
    times: int = field(default=1, kw_only=True)
    wider: tuple[Edit, ...] = field(default=(), kw_only=True)

    @abstractmethod
    def tape(self, tape: Tape) -> Tape:
        """Return the side's tape with the change."""

    def tapes(self, left: Tape, right: Tape) -> tuple[Tape, Tape]:
        """Return both tapes, one of them with the change."""
        return (self.tape(left), right) if self.side == 0 else (left, self.tape(right))
