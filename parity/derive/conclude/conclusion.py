"""Conclude a match: write its Table, prove it, and explain what differs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from convert.folding import fold as folded
from parity.derive.edits.edit import SIDES
from parity.derive.explain.divergence import Divergence, confirmed
from parity.derive.explain.heads import HEADS, built_unlike, head_counts
from parity.derive.findings.comments import commented
from parity.derive.findings.derivation import Derivation
from parity.derive.findings.evidence import Differences, Given, Judgement, Matching
from parity.derive.limits import EQUAL_OUTPUTS, LARGE_MODEL, PARTNER
from parity.derive.match.choices import Step
from parity.derive.match.hints import to_check
from parity.derive.missing.depths import DEPTHS, differing
from parity.derive.missing.layers import one_sided_weight_norms, same_shapes, unlike_strides
from parity.derive.missing.unmatched import Unmatched, unmatched
from parity.derive.missing.widths import Resized, sentence, usual, without
from parity.derive.prove.prove import RANDOM
from parity.derive.prove.unreached import without_places
from parity.derive.search.candidates import Candidate, Left
from parity.derive.trace.draws import draw
from parity.derive.trace.inputs import misordered
from parity.derive.trace.program import Refused
from parity.derive.trace.sides import Side
from parity.derive.trace.sites import shown
from specs.words import in_a_row

from .chosen import chosen
from .partings import divergences, partings
from .unit_lengths import unseen_orders
from .verdict import judged
from .writing import Written, of_one_number, unseen, without_unknown, written


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
    judgement = judged(left, best, of)
    if of.inferred and not judgement.proven and of_one_number(left.side):
        of = written(left, best, infer=False)
        judgement = judged(left, best, of)
    explained = _explained(left, best, of, judgement, unlike)
    if not unlike and any(pair.part for pair in explained.resized):
        # A line would be of a part of a parameter: none may have one.
        whole = without(best.found, explained.resized, of.rights)
        return concluded(left, best._replace(found=whole), began, explained.resized)
    of, rows = _with_reasons(left, best, of, explained)
    sure = judgement.proven or confirmed(explained.places)  # without the causes that were found the models are equal
    derivation = Derivation.of(
        _given(left, best, of),
        _matching(left, best, of, judgement, explained, rows, sure),
        _reported(judgement, of, explained),
        _differences(left, best, of, explained, judgement.proven, sure),
    )
    derivation = replace(derivation, seconds=time.process_time() - began)
    notes = [*of.notes, *judgement.notes, *(_unseen_notes(of) if judgement.proven else [])]
    return replace(derivation, table=commented(derivation, derivation.why, notes))


def _explained(left: Left, best: Candidate, of: Written, judgement: Judgement, unlike: Sequence[Resized]) -> Explained:
    """Say where the models part, and which sizes differ; nothing of models that the tapes do not show."""
    steps = best.found.steps
    depths = "" if judgement.proven else differing(left.side.parameters, best.side.parameters)
    if judgement.reads_numbers or judgement.incomparable == RANDOM:
        return Explained([], steps, unlike, depths)
    lows = {"left": shown(left.tape.low_site), "right": shown(best.tape.low_site)}
    equal = judgement.proven or (bool(of.reasons) and _equal(judgement, of))
    places = divergences(best.found, judgement, equal, lows)
    if equal:
        return Explained(places, steps, unlike, depths)
    unequal = bool(of.reasons or judgement.incomparable)
    alike = same_shapes(left.program, best.programs[1])
    sized = not (unlike or depths or alike) and len(of.rights) <= LARGE_MODEL and unequal
    places, others, steps = partings(left, best, of, places, sized)
    return Explained(places, steps, unlike or others, depths)


def _equal(judgement: Judgement, of: Written) -> bool:
    """Tell whether outputs are equal in float64, and depend on no parameter that lacks a line."""
    return judgement.exact <= EQUAL_OUTPUTS and not (of.reasons and judgement.incomparable)


def _with_reasons(left: Left, best: Candidate, of: Written, explained: Explained) -> tuple[Written, list[Unmatched]]:
    """Return what is written, with the reasons that other depths and sizes are, and what has no partner."""
    if not of.reasons:
        return of, []
    sizes = {pair.right: pair.why for pair in explained.resized if pair.right in of.reasons}
    reasons = dict.fromkeys(of.reasons, DEPTHS) if explained.depths else {**of.reasons, **sizes}
    rows = unmatched(left, best, of.map, reasons)
    order = dict.fromkeys(name for row in rows if row.side == "right" for name in row.names if name in reasons)
    reasons = {name: reasons[name] for name in (*order, *reasons)}
    return of._replace(reasons=reasons, table=without_unknown(of, left.elements, best.hint, rows)), rows


def _of_complex_numbers(left: Side, right: Side) -> str:
    """Say which trained arrays of both sides have complex numbers; "" if none."""
    sides = (("left", left.complex), ("right", right.complex))
    return " and ".join(f"{in_a_row(folded(names))} on the {side}" for side, names in sides if names)


def _given(left: Left, best: Candidate, of: Written) -> Given:
    """Return what the models are, and how they are called."""
    lefts, tapes, sides = left.elements, (left.tape, best.tape), (left.side, best.side)
    return Given(
        arrays=(len(lefts.names), len(of.rights.names)),
        elements=(len(lefts) - 1, len(of.rights) - 1),
        correspondence=best.correspondence,
        input_order=best.input_order,
        output_order=best.output_order,
        drawn=left.drawn,
        given_open=best.hint.open if best.hint else (),
        branches=[side for side, tape in zip(SIDES, tapes, strict=True) if tape.reads_numbers],
        voided=[name for name, side in zip(SIDES, sides, strict=True) if side.voided],
    )


def _matching(
    left: Left, best: Candidate, of: Written, judgement: Judgement, explained: Explained, rows: Sequence[Unmatched],
    sure: bool,
) -> Matching:  # fmt: skip
    """Return the Table, and which of its lines are not sure.

    Args:
      rows: what has no partner. sure: whether the models are equal, without the causes that were found.
    """
    certain = sure or _equal(judgement, of)  # equal outputs confirm each choice

    def of_table(names: Iterable[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if name not in of.reasons]

    doubtful = [] if certain else of_table(_doubtful(best.found.steps))
    inferred = of_table([*of.inferred, *doubtful])
    return Matching(
        table=of.table,
        uses=explained.steps,
        reasons=of.reasons,
        stop=None if sure else best.found.failure,
        unmatched=rows,
        inferred=inferred,
        in_rows=[name for name in of.in_rows if name in inferred],
        doubtful=doubtful,
        chosen=[] if certain else of_table(chosen(best.programs[1], explained.steps)),
        filled=of.filled,
        unseen_orders=of_table(unseen_orders(best.programs, of.map, left.elements, of.rights)),
        search_limit=best.limit,
    )


def _differences(
    left: Left, best: Candidate, of: Written, explained: Explained, proven: bool, sure: bool
) -> Differences:
    """Say where models part, and how they are built: of other depths or sizes, with other kinds of arrays."""
    known = Differences(divergences=explained.places)
    if not sure:
        stopped = best.found.failure is not None
        known = replace(
            known,
            strides=unlike_strides(left.program, best.programs[1]) if stopped else "",
            heads=_heads(left, best, of, explained),
            check_given=_given_to_check(best, explained),
        )
    if proven:
        return known
    lefts, rights = left.elements, of.rights
    sizes = sentence(explained.resized, lefts, rights) or (usual(lefts, rights) if best.found.failure else "")
    return replace(
        known,
        depths=explained.depths,
        sizes="" if explained.depths else sizes,
        weight_norms=one_sided_weight_norms(lefts.names, rights.names),
        complex_arrays=_of_complex_numbers(left.side, best.side),
        misordered=_misordered(left, best),
    )


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


def _reported(judgement: Judgement, of: Written, explained: Explained) -> Judgement:
    """Return a judgement without what the causes explain, and without errors that missing parameters make void."""
    void = bool(of.reasons) and not _equal(judgement, of)
    if confirmed(explained.places):
        judgement = replace(judgement, incomparable=without_places(judgement.incomparable))
    return replace(judgement, exact=math.nan, gradient=None) if void else judgement


def _misordered(left: Left, best: Candidate) -> str:
    """Say why the right model seems to take the inputs in another order; see misordered."""
    shapes = [[np.shape(array) for array in program.outputs] for program in (left.program, best.programs[1])]
    return misordered(left.side.call.arrays(), *shapes)


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
