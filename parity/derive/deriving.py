"""Derive a proven Table from two models.

Both models run on known weights, and the right one's uses of parameters are matched to the left one's by the values
that they meet (as_called). Buffers without a partner, such as masks and tables, then keep the models' own values, as
random ones would hide what they are for, and all is matched again (alone). What has no complete match yet is matched in
another form (recomposed), with edits (edited), and for longer. What comes out is written as a Table, proven with other
weights and inputs, and explained where the models differ (conclusion).
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from convert.errors import UsageError
from parity.running.training_settings import dropouts, momenta, unlike, unlike_dropouts
from specs.notation.claims import without_claims
from specs.table import Table

from .conclude.conclusion import Without, concluded
from .conclude.partings import sizes_differ
from .findings.derivation import Derivation
from .limits import PARTNER
from .match.match import Say, match, silent, walked
from .missing.built import differing
from .search.alone import Alone, alone, success
from .search.as_called import Matched, matched_as_called
from .search.candidates import Candidate, Left, Weights, read
from .search.edited import edited
from .search.recomposed import recomposed
from .search.rounds import Rounds
from .trace.caches import trim
from .trace.call import call_of
from .trace.inputs import check_inputs
from .trace.sides import by_every_name, class_of, side

UNTRIED = "not all changes to either model were tried, as these take many runs"
LATE = "the time for matching was up: seconds=N of parity.derive gives it more"


@np.errstate(all="ignore")  # values of models that differ overflow, and masks are infinite
def derive(
    left: Any,
    right: Any,
    inputs: Any,
    right_inputs: Any = None,
    seconds: float = 60,
    table: Table | None = None,
    left_weights: Weights = None,
    say: Say = silent,
) -> Derivation:
    """Find the translation of the left model's parameters into the right one's.

    Both models' own code is run, in evaluation mode.

    Args:
      left, right: torch module, paddle layer, nnx module, bound linen module, (linen module, variables), or (function,
        parameters) of JAX.
      inputs: a tuple of positional arguments, a single array, or a Call.
      right_inputs: the same for the right side; without it the left ones, in the axis order that fits.
      seconds: the CPU time for matching; then the deepest attempt is returned.
      table: lines that are known: they are taken as given, completed, and proven with the rest.
      left_weights: a checkpoint of the left model, or its arrays by name or in a tree, for models that random weights
        do not tell apart.
      say: is called with what is done at present.
    Returns: the Table with what is known of it: whether it is proven, what is missing, and where the models part.
    Raises: UsageError for what is no model or cannot be called, for inputs that differ, and for lines that do not fit
      the models.
    """
    start = None if table is None else replace(table, lines=without_claims(table))
    _wait_for_arrays(left, right)
    run = partial(_derived, left, right, inputs, right_inputs, left_weights, time.thread_time() + seconds, say)

    def without(numbers: Collection[int]) -> float:
        """Return how far outputs differ without some given lines; NaN where they cannot be compared."""
        say("checking given lines")
        rest = () if start is None else tuple(line for line in start.lines if line.number not in numbers)
        try:
            return run(replace(start, lines=rest) if start and rest else None, None).exact
        except UsageError:  # the remaining lines contradict what was found in place of the others
            return math.nan

    derivation = run(start, without if start else None)
    return _with_training_settings(derivation, left, right)


def _derived(
    left: Any, right: Any, inputs: Any, right_inputs: Any, left_weights: Weights, stop: float, say: Say,
    start: Table | None, without: Without | None,
) -> Derivation:  # fmt: skip
    """Match two models and conclude. Args: start: lines that are known. without: see concluded."""
    began, rounds = time.process_time(), Rounds(say)

    def matched(fixed: Alone) -> Matched:
        """Match both models, with buffers of either side at the model's own values."""
        say("recording left")
        a = side(left, call_of(inputs))
        if right_inputs is not None:
            check_inputs(a.call.arrays(), call_of(right_inputs).arrays())
        a.fix(fixed.left)
        return matched_as_called(read(a, left_weights), right, right_inputs, start, stop, rounds, fixed.right)

    best = _with_buffers(matched)
    matched_left, candidate = best.left, best.candidate
    if candidate.found.failure and not _unlike(matched_left, candidate):
        candidate = _completed(best, stop, rounds)
    del best  # which has the values that the left uses meet
    trim()
    say("proving")
    derivation = concluded(matched_left, candidate, began, without)
    classes = {"": class_of(left), **matched_left.side.classes}, {"": class_of(right), **candidate.side.classes}
    return replace(derivation, classes=classes)


def _wait_for_arrays(*models: Any) -> None:
    """Wait until JAX has computed the arrays of models: what it takes for that adds to the memory of matching."""
    if jax := sys.modules.get("jax"):
        with contextlib.suppress(Exception):  # which the sides raise, with what to do, where they read the arrays
            jax.block_until_ready(models)


def _with_buffers(matched: Callable[[Alone], Matched]) -> Matched:
    """Match, and match again with the buffers of one side alone at their own values: take what is better."""
    best = matched(Alone([], []))
    if not any(buffers := alone(best.left, best.candidate)):
        return best
    again = matched(buffers)
    better, before = success(again.candidate), success(best.candidate)
    return again if better > before or (better == before and best.candidate.found.failure) else best


def _with_training_settings(derivation: Derivation, left: Any, right: Any) -> Derivation:
    """Add in what the models differ in training alone."""
    momentum = unlike(momenta(left), momenta(right))
    return replace(derivation, momentum=momentum, dropout=unlike_dropouts(dropouts(left), dropouts(right)))


def _unlike(left: Left, best: Candidate) -> bool:
    """Tell whether the models have other depths, or outputs of other lengths: more time would find no Table."""
    sides = left.side.parameters, best.side.parameters
    elements = [sum(array.size for array in arrays.values()) for arrays in sides]
    if elements[0] != elements[1] and differing(*map(by_every_name, (left.side, best.side))):
        return True
    left_sizes, right_sizes = (sorted(map(np.size, program.outputs)) for program in (left.program, best.programs[1]))
    return left_sizes != right_sizes and sizes_differ(left, best)


def _completed(matched: Matched, stop: float, rounds: Rounds) -> Candidate:
    """Match further what has no complete match: with other numbers and sums, and for longer, also by parts of rows."""
    left, uses, _ = matched
    plain = recomposed(*matched, stop)
    rounds.say("trying other numbers and sums")
    best, cut = edited(matched._replace(candidate=plain), stop)
    edited_programs, hints = best.programs, best.hint and best.hint.map
    for programs in dict.fromkeys((edited_programs, plain.programs)):
        is_last_try = programs is edited_programs and best.found.gap <= PARTNER  # made even when the time is up
        if not best.found.failure or (time.thread_time() >= stop and not is_last_try):
            break
        left_uses = uses if programs[0] is uses.program else walked(programs[0], left.elements)
        longer = match(left_uses, programs[1], best.side.parameters, stop, hints, rounds.next(), True)
        best = max(best, best._replace(found=longer), key=lambda attempt: attempt.depth)
    return best._replace(limit=LATE if time.thread_time() >= stop else UNTRIED if cut else "")
