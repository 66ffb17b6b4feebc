"""Judge whether a Table is proven: run both models with weights that it translates, and try all that could object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from convert.folding import fold as folded
from parity.derive.edits.edit import SIDES
from parity.derive.limits import EQUAL_OUTPUTS, PARTED_MATCH, PARTED_USES, ROUNDING_OUTPUTS
from parity.derive.prove.absent import absent_token
from parity.derive.prove.constants import unlike_number
from parity.derive.prove.examples import Examples, more_examples
from parity.derive.prove.freedom import affordable
from parity.derive.prove.integers import wide_integers
from parity.derive.prove.larger import larger_weights
from parity.derive.prove.longer import Longer, longer_inputs, other_lengths
from parity.derive.prove.masks import other_masks, rows_of_one_value
from parity.derive.prove.orders import stored_orders
from parity.derive.prove.prove import UNLIKE, Proof, prove, reads_numbers
from parity.derive.prove.signs import negative_inputs, only_positive, only_positive_inputs
from parity.derive.prove.stored import Stored, stored_alone
from parity.derive.prove.trial import Trial
from parity.derive.prove.unproven import unproven
from parity.derive.prove.unreached import Limited, unreached
from parity.derive.prove.zeros import rows_of_zeros
from parity.derive.search.candidates import Candidate, Left
from parity.derive.trace.inputs import ALIKE, ONE_STEP, SEVERAL_STEPS, only_one_step, only_one_value
from parity.derive.trace.reason import Reason
from specs.words import count, in_a_row

from .writing import Written

FURTHER_RUNS = 4  # that a model allows for by its arithmetic, below which it is not run on other weights and inputs
DRAWN = "equal for the random numbers of two runs alone: the {} model draws new ones in each call"
NOT_DRAWN = "set dropout that is active in evaluation, or what else is random, to zero; then derive again"
ORDERED = "whose order the Table has taken over: it fits no checkpoint that has other ones"


class Verdict(NamedTuple):
    """Whether the models are equal with the weights that a Table translates.

    Args:
      proof: with the reason why nothing is proven. unshown, reads_numbers: see Derivation.
      shapes: of the left inputs of a run with two examples, if there was one. absent, over_one: see Derivation.
      notes: on numbers that one model alone stores.
    """

    proof: Proof
    proven: bool
    unshown: list[str]
    reads_numbers: bool
    shapes: Sequence[tuple[int, ...]] = ()
    absent: str = ""
    over_one: str = ""
    notes: Sequence[str] = ()


def judged(left: Left, best: Candidate, of: Written) -> Verdict:
    """Run both models with weights that the Table translates, and say whether that proves it, or why it does not."""
    a, b, found, tapes = left.side, best.side, best.found, (left.tape, best.tape)
    # what a term of a sum was added to depends on the order of the terms, which frameworks choose
    gaps = [step.gap for step in found.steps if step.kind != "add"]
    whole = not found.failure and not any(gap > PARTED_MATCH for gap in gaps)

    def run(whole: bool) -> Proof:
        return prove(a, b, tapes, of.table, of.map, left.elements, of.rights, found.plus, whole)

    proof = run(whole)
    edited = best.programs[0].tape is not left.program.tape or best.programs[1].tape is not best.exact
    doubted = (not whole or edited or not proof.holds) and proof.exact <= EQUAL_OUTPUTS and not of.reasons
    numbers = doubted and reads_numbers(a, b, tapes, of.table)
    if doubted and not whole and proof.exact <= ROUNDING_OUTPUTS:  # equal, whatever the matching took for partners
        whole, proof = True, run(True)
    apart = any(gap > PARTED_USES for gap in gaps)
    nearly = apart and ROUNDING_OUTPUTS < proof.error <= EQUAL_OUTPUTS  # not by rounding: the models run in float64
    holds = proof.holds and whole and not nearly and not of.reasons and not best.clash
    trial = Trial(a, b, of.table, proof.error)
    quick = affordable(left.program) >= FURTHER_RUNS
    examples = more_examples(trial) if holds and quick else Examples()
    objection, unshown = _objection(left, best, of, proof) if holds else ("", [])
    if whole and not apart and not of.reasons and not proof.incomparable and proof.exact > EQUAL_OUTPUTS:
        limited = unreached(a, b, tapes, of.table)  # by the values of the proof, and not by those of the matching
        objection = limited if isinstance(limited, Limited) else ""
    stored = stored_alone(a, b, tapes, of.table) if holds and not (objection or unshown) else Stored()
    objection = objection or examples.reason or stored.reason
    programs = left.program, best.programs[1]
    longer = longer_inputs(trial, programs) if holds and not objection else Longer()
    objection = objection or longer.reason
    proof = _compared(proof, objection, best, of)
    proven = holds and not unshown and not objection
    absent = absent_token(trial, tapes, programs) if proven else ""
    if proven and quick and not absent:
        absent = negative_inputs(trial) or rows_of_zeros(trial, tapes)
        absent = absent or rows_of_one_value(trial) or other_lengths(trial)
    return Verdict(
        proof, proven, unshown, numbers or proof.incomparable == UNLIKE, examples.shapes, absent, longer.over_one,
        stored.notes,
    )  # fmt: skip


def _compared(proof: Proof, objection: str, best: Candidate, of: Written) -> Proof:
    """Return a proof with the reason why it proves nothing, and without an error where outputs say nothing."""
    reason, error = objection or proof.incomparable, proof.error
    if best.clash:
        reason, error = best.clash, math.nan
    if set(of.reasons) - set(best.tape.unread()):  # without these parameters, outputs say nothing
        number = len(of.reasons)
        lacking = f"{count(number, 'parameter')} {'is' if number == 1 else 'are'} missing"
        reason, error = reason or lacking, math.nan
    return replace(proof, incomparable=reason, error=error)


def _objection(left: Left, best: Candidate, of: Written, proof: Proof) -> tuple[str, list[str]]:
    """Return why models whose outputs are equal are not proven so, and the arrays that no proof exchanges."""
    a, b = left.side, best.side
    if drawing := [side for side, tape in zip(SIDES, (left.tape, best.tape), strict=True) if tape.draws()]:
        return Reason(DRAWN.format(drawing[0]), NOT_DRAWN), []
    if wide := wide_integers((a, b), (left.program, best.programs[1])):
        return wide, []
    if proof.kept and only_one_value([*a.call.arrays().values(), *b.call.arrays().values()]):
        return ALIKE, []
    idle = [name for name in proof.unobservable if len(left.elements.shapes[name]) > 1]
    if idle and only_one_step(left.program, best.programs[1]):
        return Reason(f"{ONE_STEP} {in_a_row(folded(idle))}", SEVERAL_STEPS), []
    if unshown := unproven(a, b, of.table):
        return "", unshown
    return _only_with(left, best, of, proof), []


def _only_with(left: Left, best: Candidate, of: Written, proof: Proof) -> str:
    """Say with which values alone the outputs are equal; "" where others were tried, or are not needed."""
    a, b, tapes = left.side, best.side, (left.tape, best.tape)
    trial = Trial(a, b, of.table, proof.error)
    if reason := unreached(a, b, tapes, of.table):  # first, as other signs may lead beyond a limit too
        return reason
    if names := only_positive(trial) or only_positive_inputs(trial):
        return f"equal only for positive values of {in_a_row(folded(names))}"
    if names := stored_orders(a, b, of.map, left.elements, of.rights):
        return f"equal only with these values of {in_a_row(names)}, {ORDERED}"
    if affordable(left.program) >= FURTHER_RUNS:
        programs = left.program, best.programs[1]
        if other := other_masks(trial) or larger_weights(trial, programs, tapes):
            return other
    return unlike_number(a, b, tapes, of.table, proof.exact)
