"""Conclude a match: write its Table, prove it, and explain what differs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from convert.folding import fold as folded
from specs.words import count, in_a_row

from .candidates import Candidate, Left
from .chosen import chosen
from .comments import commented
from .depths import DEPTHS, differing
from .derivation import Derivation
from .fold.followed import behind_lists
from .fold.lone import lone
from .fold.this_depth import this_depth
from .limits import EQUAL_OUTPUTS, LARGE_MODEL, PARTED_MATCH, PARTED_USES, PARTNER, ROUNDING_OUTPUTS
from .match.choices import Step
from .match.hints import to_check
from .partings import divergences, partings
from .prove.constants import unlike_number
from .prove.divergence import confirmed
from .prove.examples import Examples, two_examples
from .prove.freedom import UNTRIED, affordable, freedom
from .prove.longer import Longer, longer_inputs
from .prove.orders import stored_orders
from .prove.prove import RANDOM, UNLIKE, Proof, prove, reads_numbers
from .prove.signs import only_positive
from .prove.unproven import unproven
from .prove.unreached import unreached, without_places
from .strides import same_shapes, unlike_strides
from .trace.inputs import ALIKE, ONE_STEP, SEVERAL_STEPS, misordered, only_one_step, only_one_value
from .trace.reason import Reason
from .trace.tape import Tape
from .unmatched import Unmatched, unmatched
from .weight_norms import one_sided
from .widths import Resized, sentence, usual, without
from .writing import Written, unseen, without_drops, written

EXAMPLE_RUNS = 4  # that a model allows for by its arithmetic, below which it is not run on two examples for one
MIN_RUNS = 8  # of a model, below which nothing is told of what may be permuted
ORDERED = "whose order the Table has taken over: it fits no checkpoint that has other ones"


class Verdict(NamedTuple):
    """Whether the models are equal with the weights that a Table translates.

    Args:
      proof: with the reason why nothing is proven. unshown, reads_numbers: see Derivation.
      shapes: of the left inputs of a run with two examples, if there was one. over_one: see Derivation.
    """

    proof: Proof
    proven: bool
    unshown: list[str]
    reads_numbers: bool
    shapes: Sequence[tuple[int, ...]] = ()
    over_one: str = ""


def concluded(left: Left, best: Candidate, began: float, unlike: Sequence[Resized] = ()) -> Derivation:
    """Write the Table of a match, prove it, and explain what differs.

    Args:
      began: the process's CPU time before all of it.
      unlike: parameters that have another size than those whose values they read, and no partner therefore.
    """
    found, lefts, of = best.found, left.elements, written(left, best)
    verdict, tapes = judged(left, best, of), (left.tape, best.tape)
    proof, proven = verdict.proof, verdict.proven
    places, free, untried, rows = divergences(found, proof, proven), list[str](), "", list[Unmatched]()
    steps = found.steps
    untraced = verdict.reads_numbers or proof.incomparable == RANDOM
    depths = "" if proven else differing(left.side.parameters, best.side.parameters)
    if untraced:  # what the tapes compute are not these models
        places = []
    if proven:
        free, untried = _free(left, of)
    elif not untraced:
        alike = same_shapes(left.program, best.programs[1])
        sized = (
            not (unlike or depths or alike) and len(of.rights) <= LARGE_MODEL and bool(of.reasons or proof.incomparable)
        )
        places, others, steps = partings(left, best, of, places, sized)
        is_resized = any(pair.part for pair in others)
        if is_resized:  # a line would be of a part of a parameter: none may have one
            return concluded(left, best._replace(found=without(found, others, of.rights)), began, others)
        unlike = unlike or others
        of.reasons.update((pair.right, pair.why) for pair in unlike if pair.right in of.reasons)
    if of.reasons:
        of.reasons.update(dict.fromkeys(of.reasons, DEPTHS) if depths else {})
        rows = unmatched(left, best, of.reasons)
        of = of._replace(table=without_drops(of.table, best.hint, rows))
    sure = proven or confirmed(places)  # without the causes that were found the models are equal
    proof = replace(proof, incomparable=without_places(proof.incomparable)) if confirmed(places) else proof
    doubtful = [] if sure else [name for name in _doubtful(found.steps) if name not in of.reasons]
    inferred = [name for name in dict.fromkeys([*of.inferred, *doubtful]) if name not in of.reasons]
    several = [] if sure else [name for name in chosen(best.programs[1], steps) if name not in of.reasons]
    sizes = sentence(unlike, lefts, of.rights) or (usual(lefts, of.rights) if found.failure and not proven else "")
    sizes = "" if depths else sizes
    if of.reasons:
        proof = replace(proof, exact=math.nan, gradient=None)
    derivation = Derivation(
        **vars(proof),
        table=of.table,
        proven=proven,
        divergences=places,
        unshown=verdict.unshown,
        reads_numbers=verdict.reads_numbers,
        branches=[side for side, tape in zip(("left", "right"), tapes, strict=True) if tape.reads_numbers],
        doubtful=doubtful,
        chosen=several,
        weight_norms="" if proven else one_sided(lefts.names, of.rights.names),
        tested=[*(array.shape for array in left.side.call.arrays().values()), *verdict.shapes],
        over_one=verdict.over_one,
        lower=_lower(proof, tapes),
        correspondence=best.correspondence,
        input_order=best.input_order,
        filled=of.filled,
        drawn=left.drawn,
        reasons=of.reasons,
        unmatched=rows,
        stop=None if sure else found.failure,
        inferred=inferred,
        in_rows=[name for name in of.in_rows if name in inferred],
        freedom=free,
        untried=untried,
        misordered="" if proven else _misordered(left, best),
        check_given=to_check(best.hint, steps, best.exact) if best.hint and best.hint.right and not sure else "",
        given_open=best.hint.open if best.hint else (),
        uses=steps,
        fixed=lone(of.table, of.table.known, of.table.like),
        this_depth=this_depth(of.table),
        behind_lists=behind_lists(of.table),
        depths=depths,
        sizes=sizes,
        strides=unlike_strides(left.program, best.programs[1]) if found.failure and not sure else "",
        arrays=(len(lefts.names), len(of.rights.names)),
        elements=(len(lefts) - 1, len(of.rights) - 1),
        seconds=time.process_time() - began,
    )
    notes = [*of.notes, *(_unseen_notes(of) if proven else [])]
    return replace(derivation, table=commented(derivation, notes))


def _misordered(left: Left, best: Candidate) -> str:
    """Say why the right model seems to take the inputs in another order; see misordered."""
    shapes = [[np.shape(array) for array in program.outputs] for program in (left.program, best.programs[1])]
    return misordered(left.side.call.arrays(), *shapes)


def _lower(proof: Proof, tapes: Sequence[Tape]) -> list[str]:
    """List the dtypes in which the sides compute whose outputs differ by lower precision alone."""
    sides = zip(("left", "right"), tapes, strict=True)
    tables = {"float32"} if proof.tables else set[str]()  # see RoundedTable
    return sorted(tables | {dtype for side, tape in sides if side in proof.rounding for dtype in tape.lowers})


def _free(left: Left, of: Written) -> tuple[list[str], str]:
    """Return what may be permuted without effect, and what was not tried: large models are run fewer times."""
    if (runs := affordable(left.program)) < MIN_RUNS:
        return [], UNTRIED
    left.fill()
    return freedom(left.side, left.program, left.elements, left.inputs, of.partners(left.elements), runs)


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
    quick = affordable(left.program) >= EXAMPLE_RUNS
    examples = two_examples(a, b, of.table, proof.error) if holds and quick else Examples()
    objection, unshown = _objection(left, best, of, proof) if holds else ("", [])
    objection = objection or examples.reason
    programs = left.program, best.programs[1]
    longer = longer_inputs(a, b, programs, of.table, proof.error) if holds and not objection else Longer()
    objection = objection or longer.reason
    reason, error = objection or proof.incomparable, proof.error
    if best.clash:
        reason, error = best.clash, math.nan
    if set(of.reasons) - set(best.tape.unread()):  # without these parameters, outputs say nothing
        number = len(of.reasons)
        lacking = f"{count(number, 'parameter')} {'is' if number == 1 else 'are'} missing"
        reason, error = reason or lacking, math.nan
    proof = replace(proof, incomparable=reason, error=error)
    proven = holds and not unshown and not objection
    return Verdict(proof, proven, unshown, numbers or reason == UNLIKE, examples.shapes, longer.over_one)


def _objection(left: Left, best: Candidate, of: Written, proof: Proof) -> tuple[str, list[str]]:
    """Return why models whose outputs are equal are not proven so, and the arrays that no proof exchanges."""
    a, b = left.side, best.side
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
    a, b = left.side, best.side
    if names := only_positive(a, b, of.table, proof.error):
        return f"equal only for positive values of {in_a_row(folded(names))}"
    if names := stored_orders(a, b, of.map, left.elements, of.rights):
        return f"equal only with these values of {in_a_row(names)}, {ORDERED}"
    tapes = left.tape, best.tape
    return unreached(a, b, tapes, of.table) or unlike_number(a, b, tapes, of.table, proof.exact)


def _unseen_notes(of: Written) -> list[str]:
    return [
        f"unobservable: with these inputs no output depends on what this drops: {line}" for line in unseen(of.table)
    ]


def _doubtful(steps: Sequence[Step]) -> list[str]:
    """List right parameters whose partners were taken on values that differ, or that share one left parameter."""
    doubted = [*(step for step in steps if step.gap >= PARTNER), *_placed_twice(steps)]
    return list(dict.fromkeys(name for step in doubted for name in step.right))


def _placed_twice(steps: Sequence[Step]) -> list[Step]:
    """Return the steps by which several right parameters, whose values nothing shows, became one left parameter."""
    placed = [step for step in steps if step.kind == "place"]
    rights: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for step in placed:
        rights.setdefault(step.left, set()).add(step.right)
    return [step for step in placed if len(rights[step.left]) > 1]
