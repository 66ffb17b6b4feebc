"""Conclude a match: write its Table, prove it, and explain what differs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from convert.folding import fold as folded
from parity.derive.findings.comments import commented
from parity.derive.findings.derivation import Derivation
from parity.derive.fold.followed import behind_lists
from parity.derive.fold.lone import lone
from parity.derive.fold.this_depth import this_depth
from parity.derive.limits import EQUAL_OUTPUTS, LARGE_MODEL, PARTNER
from parity.derive.match.choices import Step
from parity.derive.match.hints import to_check
from parity.derive.missing.depths import DEPTHS, differing
from parity.derive.missing.strides import same_shapes, unlike_strides
from parity.derive.missing.unmatched import Unmatched, unmatched
from parity.derive.missing.weight_norms import one_sided
from parity.derive.missing.widths import Resized, sentence, usual, without
from parity.derive.prove.divergence import Divergence, confirmed
from parity.derive.prove.freedom import UNTRIED, affordable, freedom
from parity.derive.prove.heads import HEADS, built_unlike, head_counts
from parity.derive.prove.prove import RANDOM, Proof
from parity.derive.prove.unreached import without_places
from parity.derive.search.candidates import Candidate, Left
from parity.derive.trace.draws import draw
from parity.derive.trace.inputs import misordered
from parity.derive.trace.program import Refused
from parity.derive.trace.sides import Side
from parity.derive.trace.sites import shown
from parity.derive.trace.tape import Tape
from specs.words import in_a_row

from .chosen import chosen
from .partings import divergences, partings
from .verdict import Verdict, judged
from .writing import Written, unseen, without_drops, written

MIN_RUNS = 8  # of a model, below which nothing is told of what may be permuted


class Explained(NamedTuple):
    """What differs.

    Args:
      places: where the models part. steps: the uses of parameters, with the differences that they have there.
      resized: parameters of other sizes than those whose values they read.
      depths: how the numbers of blocks differ; "" where they do not.
    """

    places: list[Divergence]
    steps: list[Step]
    resized: Sequence[Resized] = ()
    depths: str = ""


def concluded(left: Left, best: Candidate, began: float, unlike: Sequence[Resized] = ()) -> Derivation:
    """Write the Table of a match, prove it, and explain what differs.

    Args:
      began: the process's CPU time before all of it.
      unlike: parameters that have another size than those whose values they read, and no partner therefore.
    """
    of = written(left, best)
    verdict = judged(left, best, of)
    explained = _explained(left, best, of, verdict, unlike)
    if not unlike and any(pair.part for pair in explained.resized):
        # A line would be of a part of a parameter: none may have one.
        whole = without(best.found, explained.resized, of.rights)
        return concluded(left, best._replace(found=whole), began, explained.resized)
    of, rows = _with_reasons(left, best, of, explained)
    free, untried = _free(left, of) if verdict.proven else ([], "")
    derivation = replace(
        _derivation(left, best, of, verdict, explained),
        unmatched=rows, freedom=free, untried=untried, seconds=time.process_time() - began,
    )  # fmt: skip
    notes = [*of.notes, *verdict.notes, *(_unseen_notes(of) if verdict.proven else [])]
    return replace(derivation, table=commented(derivation, derivation.why, notes))


def _explained(left: Left, best: Candidate, of: Written, verdict: Verdict, unlike: Sequence[Resized]) -> Explained:
    """Say where the models part, and which sizes differ; nothing of models that the tapes do not show."""
    steps = best.found.steps
    depths = "" if verdict.proven else differing(left.side.parameters, best.side.parameters)
    if verdict.reads_numbers or verdict.proof.incomparable == RANDOM:
        return Explained([], steps, unlike, depths)
    lows = {"left": shown(left.tape.low_site), "right": shown(best.tape.low_site)}
    equal = verdict.proven or (bool(of.reasons) and _equal(verdict.proof, of))
    places = divergences(best.found, verdict.proof, equal, lows)
    if equal:
        return Explained(places, steps, unlike, depths)
    unequal = bool(of.reasons or verdict.proof.incomparable)
    alike = same_shapes(left.program, best.programs[1])
    sized = not (unlike or depths or alike) and len(of.rights) <= LARGE_MODEL and unequal
    places, others, steps = partings(left, best, of, places, sized)
    return Explained(places, steps, unlike or others, depths)


def _equal(proof: Proof, of: Written) -> bool:
    """Tell whether outputs are equal in float64, and depend on no parameter that lacks a line."""
    return proof.exact <= EQUAL_OUTPUTS and not (of.reasons and proof.incomparable)


def _with_reasons(left: Left, best: Candidate, of: Written, explained: Explained) -> tuple[Written, list[Unmatched]]:
    """Return what is written, with the reasons that other depths and sizes are, and what has no partner."""
    if not of.reasons:
        return of, []
    sizes = {pair.right: pair.why for pair in explained.resized if pair.right in of.reasons}
    reasons = dict.fromkeys(of.reasons, DEPTHS) if explained.depths else {**of.reasons, **sizes}
    rows = unmatched(left, best, of.map, reasons)
    return of._replace(reasons=reasons, table=without_drops(of.table, best.hint, rows)), rows


def _of_complex_numbers(left: Side, right: Side) -> str:
    """Say which trained arrays of both sides have complex numbers; "" if none."""
    sides = (("left", left.complex), ("right", right.complex))
    return " and ".join(f"{in_a_row(folded(names))} on the {side}" for side, names in sides if names)


def _derivation(left: Left, best: Candidate, of: Written, verdict: Verdict, explained: Explained) -> Derivation:
    """Return all that is known, but for what may be permuted, and what has no partner."""
    found, lefts, rights = best.found, left.elements, of.rights
    tapes, proven, steps = (left.tape, best.tape), verdict.proven, explained.steps
    sure = proven or confirmed(explained.places)  # without the causes that were found the models are equal
    certain = sure or _equal(verdict.proof, of)  # equal outputs confirm each choice
    doubtful = [] if certain else [name for name in _doubtful(found.steps) if name not in of.reasons]
    inferred = [name for name in dict.fromkeys([*of.inferred, *doubtful]) if name not in of.reasons]
    several = [] if certain else [name for name in chosen(best.programs[1], steps) if name not in of.reasons]
    return Derivation(
        **vars(_reported(verdict.proof, of, explained)),
        **({} if proven else _built_otherwise(left, best, of, explained)),
        table=of.table,
        proven=proven,
        divergences=explained.places,
        unshown=verdict.unshown,
        reads_numbers=verdict.reads_numbers,
        branches=[side for side, tape in zip(("left", "right"), tapes, strict=True) if tape.reads_numbers],
        doubtful=doubtful,
        chosen=several,
        tested=[*(array.shape for array in left.side.call.arrays().values()), *verdict.shapes],
        absent=verdict.absent,
        over_one=verdict.over_one,
        lower=_lower(verdict.proof, tapes),
        voided=[name for name, side in (("left", left.side), ("right", best.side)) if side.voided],
        correspondence=best.correspondence,
        input_order=best.input_order,
        filled=of.filled,
        drawn=left.drawn,
        reasons=of.reasons,
        stop=None if sure else found.failure,
        inferred=inferred,
        in_rows=[name for name in of.in_rows if name in inferred],
        check_given="" if sure else _given_to_check(best, explained),
        given_open=best.hint.open if best.hint else (),
        uses=steps,
        fixed=lone(of.table, of.table.known, of.table.like),
        this_depth=this_depth(of.table),
        behind_lists=behind_lists(of.table),
        strides=unlike_strides(left.program, best.programs[1]) if found.failure and not sure else "",
        heads="" if sure else _heads(left, best, of, explained),
        arrays=(len(lefts.names), len(rights.names)),
        elements=(len(lefts) - 1, len(rights) - 1),
    )


def _built_otherwise(left: Left, best: Candidate, of: Written, explained: Explained) -> dict[str, Any]:
    """Say how models that are not proven equal are built: of other depths or sizes, with other kinds of arrays."""
    lefts, rights = left.elements, of.rights
    sizes = sentence(explained.resized, lefts, rights) or (usual(lefts, rights) if best.found.failure else "")
    return {
        "depths": explained.depths,
        "sizes": "" if explained.depths else sizes,
        "weight_norms": one_sided(lefts.names, rights.names),
        "complex_arrays": _of_complex_numbers(left.side, best.side),
        "misordered": _misordered(left, best),
    }


def _given_to_check(best: Candidate, explained: Explained) -> str:
    """Say which given line may be why models part; "" if none."""
    if not (best.hint and best.hint.right):
        return ""
    site, stop = explained.places[0].right if explained.places else "", best.found.failure
    return to_check(best.hint, explained.steps, best.programs[1], site, stop.names if stop else ())


def _heads(left: Left, best: Candidate, of: Written, explained: Explained) -> str:
    """Say how the numbers of heads differ, of models of one depth whose differences are not all known."""
    places, whole = explained.places, not (of.reasons or best.found.failure)
    known = any(place.kind == HEADS for place in places) or (whole and all(place.cause for place in places))
    if known or explained.depths or len(of.rights) > LARGE_MODEL:
        return ""
    sides = (left.side, left.tape, left.inputs), (best.side, best.tape, best.side.call.arrays())
    try:
        counts = [head_counts(tape, draw(of, left.seed), [*given.values()]) for of, tape, given in sides]
    except Refused:
        return ""
    return built_unlike(*counts)


def _reported(proof: Proof, of: Written, explained: Explained) -> Proof:
    """Return a proof without what the causes explain, and without errors that missing parameters make void."""
    void = bool(of.reasons) and not _equal(proof, of)
    if confirmed(explained.places):
        proof = replace(proof, incomparable=without_places(proof.incomparable))
    return replace(proof, exact=math.nan, gradient=None) if void else proof


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
