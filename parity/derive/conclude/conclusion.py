"""Conclude a match: write its Table, prove it, and explain what differs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from convert.folding import fold as folded
from parity.derive.edits.edit import SIDES
from parity.derive.explain.divergence import Divergence, confirmed
from parity.derive.explain.heads import HEADS, built_unlike, head_counts
from parity.derive.findings.comments import commented
from parity.derive.findings.derivation import Derivation
from parity.derive.findings.ranges import dropped_arrays, dropped_read, filled_ranges, names_of
from parity.derive.findings.records import Differences, Given, Judgement, Matching
from parity.derive.fold.fold import UNMATCHED
from parity.derive.limits import EQUAL_OUTPUTS, LARGE_MODEL, PARTNER
from parity.derive.match.choices import Step
from parity.derive.match.hints import Hint, accusation, in_causes, left_out_with, lengths_found, to_check
from parity.derive.missing.built import (
    DEPTHS,
    differing,
    one_sided_weight_norms,
    same_shapes,
    unlike_strides,
)
from parity.derive.missing.unmatched import Unmatched, unmatched
from parity.derive.missing.widths import Resized, sentence, usual
from parity.derive.prove.prove import GRADED, RANDOM
from parity.derive.prove.unreached import without_places
from parity.derive.search.candidates import Candidate, Left
from parity.derive.trace.draws import draw
from parity.derive.trace.inputs import misordered
from parity.derive.trace.program import Refused
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sides import Side, by_every_name
from parity.derive.trace.sites import shown
from specs.words import in_a_row

from .chosen import chosen, repeated
from .one_sided import one_sided_tables
from .partings import divergences, marked, partings, uses_at
from .two_places import two_places
from .unit_lengths import unseen_orders
from .verdict import judged
from .writing import Written, of_one_number, unseen, without_unknown, written

BETTER = 0.1  # share of a difference of outputs that is left without a given line that is wrong: no chance gives it
MOST_UNSET = 3  # arguments that no call gives and that one line names
Without = Callable[[Collection[int]], float]  # numbers of given lines -> how far outputs differ without them, or NaN


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


def concluded(
    left: Left, best: Candidate, began: float, without: Without | None = None, unlike: Sequence[Resized] = ()
) -> Derivation:
    """Write the Table of a match, prove it, and explain what differs.

    Args:
      began: the process's CPU time before all of it.
      without: derives without some given lines; else none of these is said to be wrong.
      unlike: parameters that have another size than those whose values they read, and no partner therefore.
    """
    lines = written(left, best)
    judgement = judged(left, best, lines)
    if lines.inferred and not judgement.proven and of_one_number(left.side):
        lines = written(left, best, infer=False)
        judgement = judged(left, best, lines)
    explained = _explained(left, best, lines, judgement, unlike)
    if not unlike and any(pair.part for pair in explained.resized):
        # A line would be of a part of a parameter: none may have one.
        mapped = lines.rights.without(best.found.map, [pair.right for pair in explained.resized])
        return concluded(left, best._replace(found=replace(best.found, map=mapped)), began, without, explained.resized)
    sure = judgement.proven or confirmed(explained.places)  # without the causes that were found the models are equal
    partners = lines.partners(left.elements)
    alone = {} if judgement.proven else _one_sided(left, best, lines, partners)
    names = {*alone} if sure else {*alone, *repeated(best.found.steps, partners, left.elements, lines.rights)}
    if names:
        steps = [step for step in best.found.steps if names.isdisjoint(step.right)]
        single = replace(best.found, map=lines.rights.without(best.found.map, names), steps=steps)
        left_out = {**best.left_out, **alone}
        return concluded(left, best._replace(found=single, left_out=left_out), began, without, unlike)
    lines, rows = _with_reasons(left, best, lines, explained)
    derivation = Derivation.of(
        _given(left, best, lines),
        _matching(left, best, lines, judgement, explained, rows, sure),
        _reported(judgement, lines, explained),
        _differences(left, best, lines, explained, judgement, sure),
    )
    unequal = not (judgement.proven or _equal(judgement, lines))
    if without and best.hint and unequal and len(lines.rights) <= LARGE_MODEL:
        check = _given_to_check(best.hint, best, explained, sure, derivation.exact, without)
        derivation = replace(derivation, check_given=check)
    derivation = replace(derivation, seconds=time.process_time() - began)
    notes = [*lines.notes, *judgement.notes, *(_unseen_notes(lines) if judgement.proven else [])]
    return replace(derivation, table=commented(derivation, derivation.why, notes))


def _one_sided(
    left: Left, best: Candidate, lines: Written, partners: Mapping[str, Sequence[str]]
) -> dict[str, OneSided]:
    """Return the tables that the right side alone adds, and that are not known to be such."""
    missing = [name for name, why in lines.reasons.items() if why == UNMATCHED]
    free = [shape for name, shape in left.elements.shapes.items() if name not in partners]
    tables = one_sided_tables(best.found.steps, best.programs[1], missing, free)
    return {name: why for name, why in tables.items() if name not in best.left_out}


def _explained(
    left: Left, best: Candidate, lines: Written, judgement: Judgement, unlike: Sequence[Resized]
) -> Explained:
    """Say where the models part, and which sizes differ; nothing of models that the tapes do not show."""
    steps = best.found.steps
    depths = "" if judgement.proven else differing(*map(by_every_name, (left.side, best.side)))
    if judgement.reads_numbers or judgement.incomparable in (RANDOM, GRADED):
        return Explained([], steps, unlike, depths)
    lows = {"left": shown(left.tape.low_site), "right": shown(best.tape.low_site)}
    equal = judgement.proven or (bool(lines.reasons) and _equal(judgement, lines))
    places = divergences(best.found, judgement, equal, lows)
    if equal:
        return Explained(places, steps, unlike, depths)
    unequal = bool(lines.reasons or judgement.incomparable)
    alike = same_shapes(left.program, best.programs[1])
    sized = not (unlike or depths or alike) and len(lines.rights) <= LARGE_MODEL and unequal
    places, others, steps = partings(left, best, lines, places, sized)
    if len(left.elements) == len(lines.rights):  # of one size, where one side fuses what nothing reads with the rest
        others = [pair for pair in others if pair.joined]
    return Explained(places, steps, unlike or others, depths)


def _equal(judgement: Judgement, lines: Written) -> bool:
    """Tell whether outputs are equal in float64, and depend on no parameter that lacks a line."""
    return judgement.exact <= EQUAL_OUTPUTS and not (lines.reasons and judgement.incomparable)


def _with_reasons(left: Left, best: Candidate, lines: Written, explained: Explained) -> tuple[Written, list[Unmatched]]:
    """Return what is written, with the reasons that other depths and sizes are, and what has no partner."""
    if not lines.reasons:
        return lines, []
    sizes = {pair.right: pair.why for pair in explained.resized if pair.right in lines.reasons}
    reasons = dict.fromkeys(lines.reasons, DEPTHS) if explained.depths else {**lines.reasons, **sizes}
    rows = unmatched(left, best, lines.map, reasons)
    order = dict.fromkeys(name for row in rows if row.side == "right" for name in row.names if name in reasons)
    reasons = {name: reasons[name] for name in (*order, *reasons)}
    return lines._replace(reasons=reasons, table=without_unknown(lines, left.elements, best.hint, rows)), rows


def _of_complex_numbers(left: Side, right: Side) -> str:
    """Say which trained arrays of both sides have complex numbers; "" if none."""
    sides = (("left", left.complex), ("right", right.complex))
    return " and ".join(f"{in_a_row(folded(names))} on the {side}" for side, names in sides if names)


def _given(left: Left, best: Candidate, lines: Written) -> Given:
    """Return what the models are, and how they are called."""
    lefts, tapes, sides = left.elements, (left.tape, best.tape), (left.side, best.side)
    hint = best.hint if best.hint and len(lines.rights) <= LARGE_MODEL else None
    lengths = lengths_found(hint, *sides, lefts, lines.rights, lines.map) if hint else {}
    return Given(
        arrays=(len(lefts.names), len(lines.rights.names)),
        elements=(len(lefts) - 1, len(lines.rights) - 1),
        correspondence=best.correspondence,
        input_order=best.input_order,
        output_order=best.output_order,
        drawn=left.drawn,
        constants=_constants(best, lines),
        given_open=tuple(line for line in best.hint.open if line not in lengths) if best.hint else (),
        given_lengths=lengths,
        branches=[side for side, tape in zip(SIDES, tapes, strict=True) if tape.reads_numbers],
        voided=[name for name, side in zip(SIDES, sides, strict=True) if side.voided],
        settings=_settings(*sides),
    )


def _settings(left: Side, right: Side) -> str:
    """Name the arguments of both sides that are never varied: "causal=True"; "" if one side has none.

    An argument of one name that neither call gives counts as one that is None, also attention_mask beside mask.
    """
    both = in_a_row(left.call.settings()), in_a_row(right.call.settings())
    given = [both[0] if both[0] == both[1] else f"{both[0]} on the left, {both[1]} on the right"] if all(both) else []
    unset = list[str]()
    for name in left.unset:
        others = [other for other in right.unset if _is_like(name, other)]
        if others:
            unset.append(f"{name}=None{f' ({others[0]} on the right)' * (name not in others)}")
    more = len(unset) - MOST_UNSET
    return in_a_row([*given, *unset[:MOST_UNSET], *([f"{more} more"] if more > 0 else [])])


def _is_like(name: str, other: str) -> bool:
    """Tell whether names of arguments are one, or one ends with the other as its last words."""
    return name == other or name.endswith(f"_{other}") or other.endswith(f"_{name}")


def _constants(best: Candidate, lines: Written) -> dict[str, float]:
    """Return the right parameters that given lines set to one value, and on which outputs depend."""
    values, unread = best.hint.constants if best.hint else {}, best.exact.unread()
    return {name: value for name, value in values.items() if name in lines.rights.shapes and name not in unread}


def _matching(
    left: Left, best: Candidate, lines: Written, judgement: Judgement, explained: Explained, rows: Sequence[Unmatched],
    sure: bool,
) -> Matching:  # fmt: skip
    """Return the Table, and which of its lines are not sure.

    Args:
      rows: what has no partner. sure: whether the models are equal, without the causes that were found.
    """
    certain = sure or _equal(judgement, lines)  # equal outputs confirm each choice

    def of_table(names: Iterable[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if name not in lines.reasons]

    doubtful = [] if certain else of_table(_doubtful(best.found.steps, explained))
    read = [tape.parameters.keys() - tape.unread() for tape in (left.tape, best.exact)]
    inferred = of_table([*lines.inferred, *(judgement.idle_elements if judgement.proven else ()), *doubtful])
    return Matching(
        table=lines.table,
        uses=marked(explained.steps, explained.places),
        reasons=lines.reasons,
        stop=None if sure else best.found.failure,
        unmatched=rows,
        inferred=inferred,
        in_rows=[name for name in lines.in_rows if name in inferred],
        doubtful=doubtful,
        chosen=[] if certain else of_table(chosen(best.programs[1], explained.steps)),
        filled=list(dict.fromkeys([*lines.filled, *names_of(filled_ranges(lines.table), lines.rights.names)])),
        dropped=dropped_arrays(lines.table, lines.rights.names),
        dropped_read=((), ()) if judgement.proven else dropped_read(lines.table, read),
        unseen_orders=of_table(unseen_orders(best.programs, lines.map, left.elements, lines.rights)),
        two_places=of_table(two_places(lines.table, best.programs)),
        search_limit=best.limit,
    )


def _differences(
    left: Left, best: Candidate, lines: Written, explained: Explained, judgement: Judgement, sure: bool
) -> Differences:
    """Say where models part, and how they are built: of other depths or sizes, with other kinds of arrays."""
    known = Differences(divergences=explained.places)
    if not sure:
        stopped = best.found.failure is not None
        known = replace(
            known,
            strides=unlike_strides(left.program, best.programs[1]) if stopped else "",
            heads=_heads(left, best, lines, explained),
        )
    if judgement.proven:
        return known
    lefts, rights = left.elements, lines.rights
    sizes = sentence(explained.resized, lefts, rights) or (usual(lefts, rights) if best.found.failure else "")
    return replace(
        known,
        depths=explained.depths,
        sizes="" if explained.depths else sizes,
        weight_norms=one_sided_weight_norms(lefts.shapes, rights.shapes),
        complex_arrays=_of_complex_numbers(left.side, best.side),
        misordered=_misordered(left, best),
    )


def _given_to_check(
    hint: Hint, best: Candidate, explained: Explained, sure: bool, error: float, without: Without
) -> str:
    """Say which given line is why models part, as outputs agree better without it; "" if none.

    Args:
      sure: whether the models are equal without the causes that were found.
      error: how far outputs differ; NaN where they cannot be compared.
    """
    site, stop = explained.places[0].right if explained.places else "", best.found.failure
    if sure:
        line = in_causes(hint, [at.cause for at in explained.places])
    else:
        line = to_check(hint, explained.steps, best.programs[1], site, stop.names if stop else ())
    if line is None:
        return ""
    limit = math.inf if math.isnan(error) else BETTER * error
    return accusation(hint, line) if without(left_out_with(hint, line)) < limit else ""


def _heads(left: Left, best: Candidate, lines: Written, explained: Explained) -> str:
    """Say how the numbers of heads differ, of models of one depth whose differences are not all known."""
    places, whole = explained.places, not (lines.reasons or best.found.failure)
    known = any(place.kind == HEADS for place in places) or (whole and all(place.cause for place in places))
    if known or explained.depths or len(lines.rights) > LARGE_MODEL:
        return ""
    sides = (left.side, left.tape, left.inputs), (best.side, best.tape, best.side.call.arrays())
    try:
        counts = [head_counts(tape, draw(side, left.seed), [*given.values()]) for side, tape, given in sides]
    except Refused:
        return ""
    return built_unlike(*counts)


def _reported(judgement: Judgement, lines: Written, explained: Explained) -> Judgement:
    """Return a judgement without what the causes explain, and without errors that missing parameters make void."""
    void = bool(lines.reasons) and not _equal(judgement, lines)
    if confirmed(explained.places):
        judgement = replace(judgement, incomparable=without_places(judgement.incomparable))
    return replace(judgement, exact=math.nan, gradient=None) if void else judgement


def _misordered(left: Left, best: Candidate) -> str:
    """Say why the right model seems to take the inputs in another order; see misordered."""
    shapes = [[np.shape(array) for array in program.outputs] for program in (left.program, best.programs[1])]
    return misordered(left.side.call.arrays(), *shapes)


def _unseen_notes(lines: Written) -> list[str]:
    return [
        f"unobservable: with these inputs no output depends on what this drops: {line}" for line in unseen(lines.table)
    ]


def _doubtful(steps: Sequence[Step], explained: Explained) -> list[str]:
    """List right parameters whose partners were taken on values that differ, or that share one left parameter.

    Where the matching compared uses with the left model's values on the right, the place has the difference.
    """
    unsure = [at for at in explained.places if at.size >= PARTNER and (not at.cause or at.kind == HEADS)]
    parted = [explained.steps[k] for at in unsure for numbers in uses_at(explained.steps, at) for k in numbers]
    doubted = [*(step for step in steps if step.gap >= PARTNER), *parted, *_placed_twice(steps)]
    return list(dict.fromkeys(name for step in doubted for name in step.right))


def _placed_twice(steps: Sequence[Step]) -> list[Step]:
    """Return the steps by which several right parameters, whose values nothing shows, became one left parameter."""
    placed = [step for step in steps if step.kind == "place"]
    rights: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for step in placed:
        rights.setdefault(step.left, set()).add(step.right)
    return [step for step in placed if len(rights[step.left]) > 1]
