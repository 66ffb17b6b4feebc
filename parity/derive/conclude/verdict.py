"""Judge whether a Table is proven: run both models with weights that it translates, and try all that could object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from convert.folding import fold as folded
from parity.derive.edits.edit import SIDES
from parity.derive.findings.records import Judgement
from parity.derive.limits import EQUAL_OUTPUTS, FREE_RUNS, PARTED_MATCH, PARTED_USES, ROUNDING_OUTPUTS
from parity.derive.prove.absent import absent_token
from parity.derive.prove.as_given import AsGiven, as_given
from parity.derive.prove.freedom import UNTRIED, affordable, freedom
from parity.derive.prove.larger import larger_weights
from parity.derive.prove.longer import Examples, Longer, longer_inputs, more_examples, one_example, other_lengths
from parity.derive.prove.masks import other_masks, rows_of_one_value
from parity.derive.prove.numbers import unlike_fills, unlike_number
from parity.derive.prove.other_inputs import negative_inputs, only_positive, only_positive_inputs, rows_of_zeros
from parity.derive.prove.prove import UNLIKE, Proof, prove, reads_numbers
from parity.derive.prove.stored import Stored, stored_alone, trained_tables
from parity.derive.prove.trial import Trial
from parity.derive.prove.unproven import stored_orders, unproven, wide_integers
from parity.derive.prove.unreached import Limited, unreached
from parity.derive.search.candidates import Candidate, Left
from parity.derive.trace.inputs import ALIKE, ONE_STEP, SEVERAL_STEPS, only_one_step, only_one_value
from parity.derive.trace.reason import Reason
from parity.derive.trace.tape import Tape
from specs.words import count, in_a_row

from .writing import Written

MIN_RUNS = 8  # of a model, below which nothing is told of what may be permuted
FURTHER_RUNS = 4  # that a model allows for by its arithmetic, below which it is not run on other weights and inputs
LARGE = "models are not run on further weights from 8 billion multiplications on"
DRAWN = "equal for the random numbers of two runs alone: the {} model draws new ones in each call"
OF_CHANCE = "those of random numbers, of which the {} model draws new ones in each call"
NOT_DRAWN = "set dropout that is active in evaluation, or what else is random, to zero; then derive again"
ORDERED = "whose order the Table has taken over: it fits no checkpoint that has other ones"


def judged(left: Left, best: Candidate, lines: Written) -> Judgement:
    """Run both models with weights that the Table translates, and say whether that proves it, or why it does not."""
    match, programs = best.found, (left.program, best.programs[1])
    tapes, elements = (left.tape, best.tape), (left.elements, lines.rights)
    trial = Trial(left.side, best.side, lines.table, tapes, programs, lines.maps, elements)
    # what a term of a sum was added to depends on the order of the terms, which frameworks choose
    gaps = [step.gap for step in match.steps if step.kind != "add"]
    whole = not match.failure and not any(gap > PARTED_MATCH for gap in gaps)
    proof = prove(trial, whole, lines.inferred)
    edited = best.programs[0].tape is not left.program.tape or best.programs[1].tape is not best.exact
    doubted = (not whole or edited or not proof.holds) and proof.exact <= EQUAL_OUTPUTS and not lines.reasons
    numbers = doubted and reads_numbers(trial)
    if doubted and not whole and proof.exact <= ROUNDING_OUTPUTS:  # equal, whatever the matching took for partners
        whole, proof = True, prove(trial, True, lines.inferred)
    apart = any(gap > PARTED_USES for gap in gaps)
    nearly = apart and ROUNDING_OUTPUTS < proof.error <= EQUAL_OUTPUTS  # not by rounding: the models run in float64
    holds = proof.holds and whole and not nearly and not lines.reasons and not best.clash
    trial = replace(trial, error=max(proof.error, proof.own_rounding), exact=proof.exact)  # two sides may round alike
    quick = affordable(left.program) >= FURTHER_RUNS
    examples = more_examples(trial) if holds and quick else Examples()
    objection, unshown = _objection(trial, proof, quick) if holds else ("", [])
    if whole and not apart and not lines.reasons and not proof.incomparable and proof.exact > EQUAL_OUTPUTS:
        limited = unreached(trial)  # by the values of the proof, and not by those of the matching
        objection = limited if isinstance(limited, Limited) else ""
    objection = _of_chance(trial, proof) or objection
    stored = stored_alone(trial) if holds and not (objection or unshown) else Stored()
    objection = objection or examples.reason or stored.reason
    longer = longer_inputs(trial) if holds and not objection else Longer()
    objection = objection or longer.reason
    proof = _compared(proof, objection, best, lines)
    proven = holds and not unshown and not objection
    absent = absent_token(trial) if proven else ""
    if proven and quick and not absent:
        absent = negative_inputs(trial) or rows_of_zeros(trial)
        absent = absent or rows_of_one_value(trial) or one_example(trial) or other_lengths(trial)
    given = as_given(trial) if proven and quick else AsGiven(skipped=LARGE * proven)
    fills = unlike_fills(trial) if holds and quick and not unshown else ""
    free, untried = _free(left, lines) if proven else ([], "")
    return Judgement(
        **vars(proof), proven=proven, unshown=unshown, reads_numbers=numbers or proof.incomparable == UNLIKE,
        tested=[*(array.shape for array in trial.given[0].values()), *examples.shapes], absent=absent,
        over_one=longer.over_one, as_given=given.apart, not_as_given=given.skipped, fills=fills,
        lower=_lower(proof, trial.tapes), freedom=free, untried=untried, notes=stored.notes,
        trained_tables=trained_tables(trial) if proven else [],
    )  # fmt: skip


def _of_chance(trial: Trial, proof: Proof) -> str:
    """Return that outputs which differ are those of random numbers; "" where no side draws any."""
    differ = not proof.incomparable and proof.exact > EQUAL_OUTPUTS
    return Reason(OF_CHANCE.format(drawing), NOT_DRAWN) if differ and (drawing := _drawing(trial)) else ""


def _drawing(trial: Trial) -> str:
    """Return the first side that draws random numbers; "" if none does."""
    return next((side for side, tape in zip(SIDES, trial.tapes, strict=True) if tape.draws()), "")


def _lower(proof: Proof, tapes: Sequence[Tape]) -> list[str]:
    """List the dtypes in which the sides compute whose outputs differ by lower precision alone."""
    tables = {"float32"} if proof.tables else set[str]()  # see RoundedTable
    sides = zip(SIDES, tapes, strict=True)
    return sorted(tables | {dtype for side, tape in sides if side in proof.rounding for dtype in tape.lowers})


def _free(left: Left, lines: Written) -> tuple[list[str], str]:
    """Return what may be permuted without effect, and what was not tried: large models are run fewer times."""
    if (runs := affordable(left.program)) < MIN_RUNS:
        return [], UNTRIED
    runs = runs if runs == FREE_RUNS else max(MIN_RUNS, runs // 2)  # the proof has taken the time of large models
    left.fill()
    return freedom(left.side, left.program, left.elements, left.inputs, lines.partners(left.elements), runs)


def _compared(proof: Proof, objection: str, best: Candidate, lines: Written) -> Proof:
    """Return a proof with the reason why it proves nothing, and without an error where outputs say nothing."""
    reason, error = objection or proof.incomparable, proof.error
    if best.clash:
        reason, error = best.clash, math.nan
    if set(lines.reasons) - set(best.tape.unread()):  # without these parameters, outputs say nothing
        number = len(lines.reasons)
        lacking = f"{count(number, 'array')} {'is' if number == 1 else 'are'} missing"
        reason, error = reason or lacking, math.nan
    return replace(proof, incomparable=reason, error=error)


def _objection(trial: Trial, proof: Proof, quick: bool) -> tuple[str, list[str]]:
    """Return why models whose outputs are equal are not proven so, and the arrays that no proof exchanges.

    Args:
      quick: whether the models are run on other weights and inputs.
    """
    if drawing := _drawing(trial):
        return Reason(DRAWN.format(drawing), NOT_DRAWN), []
    if wide := wide_integers(trial):
        return wide, []
    if proof.kept and only_one_value([array for arrays in trial.given for array in arrays.values()]):
        return ALIKE, []
    idle = [name for name in proof.unobservable if len(trial.elements[0].shapes[name]) > 1]
    if idle and only_one_step(*trial.programs):
        return Reason(f"{ONE_STEP} {in_a_row(folded(idle))}", SEVERAL_STEPS), []
    only, unshown = unproven(trial)
    if only or unshown:
        return only, unshown
    return _only_with(trial, quick), []


def _only_with(trial: Trial, quick: bool) -> str:
    """Say with which values alone the outputs are equal; "" where others were tried, or are not needed."""
    if reason := unreached(trial):  # first, as other signs may lead beyond a limit too
        return reason
    if names := only_positive(trial) or only_positive_inputs(trial):
        return f"equal only for positive values of {in_a_row(folded(names))}"
    if names := stored_orders(trial):
        return f"equal only with these values of {in_a_row(names)}, {ORDERED}"
    other = (other_masks(trial) or larger_weights(trial)) if quick else ""
    return other or unlike_number(trial)
