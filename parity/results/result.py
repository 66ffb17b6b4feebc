"""Define the result of one check of one pair, and where it first differs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from specs.numbers import limit, short

from .elements import OTHER_SHAPE, Worst
from .guesses import Guess
from .tolerance import CLOSE_CALL, CLOSE_CALL_FLOAT64, FLOAT64
from .unequal_weights import UnequalWeights

# Words of why a side cannot run on this machine at all, whatever the dtype and the device.
NOT_INSTALLED, NO_PORT = ABSENT = "is not installed", "has no port in"


class Divergence(str):
    """The first tap that differs, by its name, with what is known of it.

    error, tolerance: of this tap.  basis: the reason for this tolerance.  worst: its worst element.  previous:
    (name, error) of the tap before, None if it is the first.  between: (label, what that side alone calls after
    that tap) of each side that does.  holds: what brings in NaN: "dense.bias holds NaN in flax".  starts: where
    values that are not finite arise first in each model; "" where that is not known.  guess: the cause that gives
    the recorded values when it is recomputed, with the evidence; "" where nothing known does.  place: between which
    taps the cause lies, where it is not known; "" where that is no news.  weights: which arrays of this layer
    differ between two ports of one architecture; "" where none does.  momentum: of BatchNorm in each model, where
    running statistics alone differ after training.  returned: whether a check of training differs before any
    gradient is used: in an output, in the loss, or in the loss of the first step.  pooling: the label of a paddle
    model whose rounding in average pooling explains a difference of this size; "" for none.
    """

    error: float
    tolerance: float
    worst: Worst
    previous: tuple[str, float] | None
    guess: Guess
    place: str
    weights: str
    basis: str
    returned: bool
    between: tuple[tuple[str, tuple[str, ...]], ...]
    holds: str
    momentum: str
    pooling: str
    starts: str

    @classmethod
    def at(
        cls,
        name: str,
        worst: Worst,
        tolerance: float,
        previous: tuple[str, float] | None = None,
        guess: str = "",  # or a Guess
        place: str = "",
        weights: str = "",
        basis: str = "",
        returned: bool = False,
        between: tuple[tuple[str, tuple[str, ...]], ...] = (),
        holds: str = "",
        momentum: str = "",
        pooling: str = "",
        starts: str = "",
    ) -> Divergence:
        divergence = cls(name)
        divergence.error, divergence.tolerance, divergence.worst = worst.error, tolerance, worst
        divergence.previous, divergence.place = previous, place
        divergence.guess = guess if isinstance(guess, Guess) else Guess(guess)
        divergence.weights, divergence.basis, divergence.returned = weights, basis, returned
        divergence.between, divergence.holds, divergence.momentum = between, holds, momentum
        divergence.pooling, divergence.starts = pooling, starts
        return divergence

    @property
    def of_weights(self) -> str:
        """Say which of its weights differ; "" where the cause is an activation, which comes ahead of its layer."""
        return "" if self.guess.after else self.weights

    def sentence(self, sides: tuple[str, ...] = ()) -> str:
        """State everything in one line.

        Args:
          sides: labels of both models.
        """
        before = f"; before it {self.previous[0]} differs by {short(self.previous[1])}" if self.previous else ""
        guess = f"; looks like {self.guess}" if self.guess else ""
        guess += f"; its cause lies {self.place}" if self.place else ""
        guess += f"; its weights differ: {self.weights}" if self.weights else ""
        if self.worst.cause:
            return f"{self}: {self.worst.cause}{before}{guess}"
        return f"{self} differs: {self.worst.text(sides)}, tolerance {limit(self.tolerance)}{before}{guess}"


@dataclass(frozen=True)
class Result:
    """The outcome of one check of one pair.

    Args:
      error: the worst: that of the array whose error has the largest share of its tolerance; None if nothing ran.
      basis: the reason for the tolerance of the worst.
      passed: None where the check could not be run at all, for `cause`.
      curve: (name, error, tolerance) of every array that was compared, in order.
      reasons: the reason for the tolerance of each array of the curve.
      sides: the labels of both models; files: the checkpoints of their weights, if both have one;
        parts: the parts of these that have them.
      assumed: the settings that both compute with and that nobody states of these weights: "gelu=erf".
      suggested: settings that no file states and that the code of the file's dialect computes with, so that all do.
      holds: of a pair that is not judged, what brings in NaN: "dense.bias holds NaN".
      missing: (label, why) of each side that did not run, or failed.
      noise: each framework's own error against its float64 truth, array by array, in a dtype below float64.
      nans: the arrays that have NaN on either side. shapes: those whose shapes differ.
      copies: below float64, the arrays that differ between the float64 copies of both models, whose errors these are.
      unjudged: the arrays of which rounding leaves nothing to judge, where others are judged.
      spelled: what each side, by its label, calls the arrays of known layers that have another name in `curve`.
      weights: the arrays of two models, paired by a Table, that differ before anything runs; None where none does.
      remarks: the sentences of `cause` on a pair that was judged: each is a note of all pairs that share it.
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
    sides: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    files: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    basis: str = ""
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    nans: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    weights: UnequalWeights | None = None
    suggested: tuple[str, ...] = ()
    holds: str = ""
    spelled: dict[str, dict[str, str]] = field(default_factory=dict)

    def word(self, name: str) -> str:
        """Return what stands in place of an array's error: "NaN" or "other shape"; "" where it is a number."""
        return "NaN" if name in self.nans else OTHER_SHAPE if name in self.shapes else ""

    @property
    def limits(self) -> list[tuple[str, float]]:
        """List (reason, limit) of every number that a report states: of the worst array, and of each of the curve."""
        worst = [(self.basis, self.tolerance)] if self.is_number and self.tolerance is not None else []
        curve = zip(self.reasons, self.curve, strict=True) if self.reasons else ()
        return worst + [(reason, bound) for reason, (name, _, bound) in curve if not self.word(name)]

    def as_dict(self) -> dict[str, Any]:
        """Return the row of `--json`.

        error: the worst, see above; an infinite one is null. status: see `grade`. reason: why the row is no agreement.
        first_divergence: the first array that differs. note: of a pair that was judged, what was not compared or was
        computed otherwise. assumed: settings that nobody states of these weights. suggested: see above.
        """
        error = self.error if self.error is not None and math.isfinite(self.error) else None
        differs = self.grade == "differs" and self.first_divergence is not None
        first = str(self.first_divergence) if differs else None
        return {
            "architecture": self.architecture, "variant": self.variant, "check": self.check, "dtype": self.dtype,
            "device": self.device, "pair": self.pair, "error": error, "tolerance": self.tolerance,
            "passed": self.passed, "status": self.grade, "reason": self.reason, "first_divergence": first,
            "note": (self.cause or None) if self.passed or differs else None, "assumed": list(self.assumed),
            "suggested": list(self.suggested),
        }  # fmt: skip

    @property
    def reason(self) -> str | None:
        """Say why this is no agreement: what differs first, why a side did not run, or why nothing is proven."""
        if self.passed:
            return None
        if self.first_divergence is not None and not self.missing:
            return self.first_divergence.sentence(self.sides)
        return self.cause

    @property
    def shown(self) -> str:
        """Write the error as tables show it; a word where there are no two numbers to compare."""
        if self.error != math.inf:
            return short(self.error)
        word = self.first_divergence.worst.word if self.first_divergence is not None else ""
        is_nan = any(name in self.nans for name, error, _ in self.curve if error == math.inf)
        return word or ("NaN" if is_nan else short(self.error))

    @property
    def is_number(self) -> bool:
        """Tell whether the error is a number, and no word for what cannot be compared."""
        return self.error is not None and math.isfinite(self.error)

    @property
    def ratio(self) -> float:
        """Divide error by tolerance: above 1 the pair differs; infinite if a side failed to run, 0 if none ran."""
        if self.error is None:
            return 0.0
        return self.error / self.tolerance if self.tolerance else math.inf

    @property
    def grade(self) -> str:
        """Name the outcome: agrees, close (agrees, but look at it), differs, failed, not run or not judged."""
        if self.passed is None:
            return "not run" if self.missing else "not judged"
        if not self.passed:
            return "failed" if self.missing else "differs"
        exact = (
            self.dtype == "float64" and (self.tolerance or 0.0) <= FLOAT64[self.check.replace("single-step", "layers")]
        )
        return "close" if self.ratio > (CLOSE_CALL_FLOAT64 if exact else CLOSE_CALL) else "agrees"
