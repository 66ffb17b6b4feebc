"""The result of one check of one pair, and where it first differs: a row for people and for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .numbers import Worst


class Divergence(str):
    """The name of the first tap that differs, with what is known of it.

    error, tolerance: of this tap.  worst: its worst element.  previous: (name, error) of the tap before, None if it is
    the first.  guess: what it looks like, with the evidence; "" where nothing known explains it.
    """

    error: float
    tolerance: float
    worst: Worst
    previous: tuple[str, float] | None
    guess: str

    @classmethod
    def at(
        cls, name: str, worst: Worst, tolerance: float, previous: tuple[str, float] | None = None, guess: str = ""
    ) -> Divergence:
        divergence = cls(name)
        divergence.error, divergence.tolerance, divergence.worst = worst.error, tolerance, worst
        divergence.previous, divergence.guess = previous, guess
        return divergence

    def sentence(self) -> str:
        """Everything in one line."""
        before = f"; before it {self.previous[0]} differs by {self.previous[1]:.1e}" if self.previous else ""
        guess = f"; looks like {self.guess}" if self.guess else ""
        if self.worst.cause:
            return f"{self}: {self.worst.cause}{before}{guess}"
        return f"{self} differs: {self.worst}, tolerance {self.tolerance:.0e}{before}{guess}"


@dataclass(frozen=True)
class Result:
    """One check of one pair.

    Args:
      error: of the array that comes closest to its tolerance, or exceeds it most; None if nothing ran.
      passed: None where the check could not be run at all, for `cause`.
      curve: (name, error, tolerance) of every array that was compared, in order.
      noise: each framework's own error against its float64 truth, array by array, in a dtype below float64.
    """

    architecture: str
    variant: str
    check: str
    dtype: str
    device: str
    pair: str
    error: float | None
    tolerance: float | None
    passed: bool | None
    first_divergence: Divergence | None = None
    cause: str = ""
    curve: tuple[tuple[str, float, float], ...] = ()
    noise: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The row of `--json`. Where something differs or nothing ran, first_divergence says what or why.

        An infinite error is null. note: what was not compared, was computed otherwise, or passes by a hair.
        """
        error = self.error if self.error is not None and math.isfinite(self.error) else None
        what = str(self.first_divergence) if self.first_divergence is not None else (self.cause or None)
        first = None if self.passed else what
        return {
            "architecture": self.architecture, "variant": self.variant, "check": self.check, "dtype": self.dtype,
            "device": self.device, "pair": self.pair, "error": error, "tolerance": self.tolerance,
            "passed": self.passed, "first_divergence": first, "note": self.cause or None,
        }  # fmt: skip

    @property
    def state(self) -> str:
        """ "ok", "OFF" or "skipped"."""
        return {True: "ok", False: "OFF", None: "skipped"}[self.passed]

    def line(self) -> str:
        """A line of a terminal."""
        error = "-" if self.error is None else f"{self.error:.1e}"
        tolerance = "-" if self.tolerance is None else f"{self.tolerance:.0e}"
        name = f"{self.architecture}:{self.variant}"
        head = f"{name:30} {self.check:11} {self.dtype:8} {self.device:3} {self.pair:20} {error:>8} {tolerance:>6}"
        return f"{head}  {self.state}"
