"""Define why something is not proven or has no line, with what to do about it."""

from __future__ import annotations

from typing import Self

ONE_SIDED = (
    "remove from the right model what the left one lacks, or add it to the left one, and derive again; or pass a line "
    "by --table FILE: `drop <- NAME: c = 1` sets a factor to 1 (`= 0` a term to 0), and is proven if outputs are equal "
    "then; `drop <- NAME` leaves NAME to the right model, and is not proven"
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
    """

    use: str

    def __new__(cls, text: str, use: str = "") -> Self:
        reason = super().__new__(cls, text, ONE_SIDED)
        reason.use = use
        return reason


def remedy(reason: str) -> str:
    """Return what to do next about a reason; "" where it does not say so."""
    return reason.remedy if isinstance(reason, Reason) else ""
