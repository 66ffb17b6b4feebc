"""Define why something is not proven or has no line, with what to do about it."""

from __future__ import annotations

from typing import Self

NEUTRAL = {"mul": "1", "add": "0"}  # by the kind of an operation: what changes nothing
LINE = "`<-> NAME: c = 1` (or `= 0` for a term)"
ONE_SIDED = "remove from the right model what the left one lacks, or add it to the left one, and derive again"
SET = (
    f"; or pass by --table FILE a Table with {LINE}, which is proven if outputs are equal then: it refuses to convert "
    "back a checkpoint with other values"
)


class Reason(str):
    """A reason in words that knows its remedy.

    Args:
      remedy: what to do next, as an imperative.
    """

    remedy: str

    def __new__(cls, text: str, remedy: str = "") -> Self:
        reason = super().__new__(cls, text)
        reason.remedy = remedy
        return reason


class OneSided(Reason):
    """That the right side alone has a parameter.

    Args:
      use: the kind of the operation by which it uses the parameter, see tape.
      rank: the number of the parameter's axes, where a constant in its place has the same effect as leaving it out.
      is_zero: whether that constant is 0, as of a branch that is added, for all of its parameters; else `use` tells.
    """

    use: str
    rank: int | None
    is_zero: bool

    def __new__(cls, text: str, use: str = "", rank: int | None = None, is_zero: bool = False) -> Self:
        reason = super().__new__(cls, text, ONE_SIDED)
        reason.use, reason.rank, reason.is_zero = use, rank, is_zero
        reason.remedy += SET if reason.neutral else ""
        return reason

    @property
    def neutral(self) -> str:
        """Return the constant that has the same effect as leaving the parameter out; "" where none is known."""
        return "" if self.rank is None else "0" if self.is_zero else NEUTRAL.get(self.use, "")


def remedy(reason: str) -> str:
    """Return what to do next about a reason; "" where it does not say so."""
    return reason.remedy if isinstance(reason, Reason) else ""
