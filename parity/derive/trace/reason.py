"""Define why something is not proven or has no line, with what to do about it."""

from __future__ import annotations


class Reason(str):
    """A reason in words that knows its remedy.

    Args:
      remedy: what to do next, as an imperative.
    """

    remedy: str

    def __new__(cls, text: str, remedy: str) -> Reason:
        reason = super().__new__(cls, text)
        reason.remedy = remedy
        return reason


def remedy(reason: str) -> str:
    """Return what to do next about a reason; "" where it does not say so."""
    return reason.remedy if isinstance(reason, Reason) else ""
