"""List where two models part, with causes that recomputing confirms, and give uses there the size of their place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from parity.derive.edits.texts import named, without_copies
from parity.derive.explain.divergence import Divergence, confirmed
from parity.derive.explain.explanation import CAUSES, explain
from parity.derive.fold.rows import DerivedTable
from parity.derive.limits import EQUAL_OUTPUTS, EXACT, LARGE_MODEL, PARTED_MATCH, PARTED_USES
from parity.derive.match.advice import feeds
from parity.derive.match.choices import Step
from parity.derive.match.match import Match
from parity.derive.missing.widths import Resized, resized
from parity.derive.prove.pairs import Mapped, Run, pairs, run
from parity.derive.prove.prove import INPUTS, WEIGHTS, Proof
from parity.derive.prove.translated import TranslatedWeights
from parity.derive.search.candidates import Candidate, Left
from parity.derive.trace.draws import Drawn, draw
from parity.derive.trace.inputs import fresh
from parity.derive.trace.outputs import difference
from parity.derive.trace.precomputed import RoundedTable
from parity.derive.trace.program import Refused
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sites import OUTPUT, OWN, is_inside, place
from parity.derive.trace.tape import Array
from specs.numbers import apart

from .writing import Written, written

NO_SITES: Mapping[str, str] = MappingProxyType({})
NO_CONSTANTS: Mapping[str, Array] = MappingProxyType({})
MEAN = 10  # times a use's own difference, which is a mean, up to which that of a place may be the worst of the same


def divergences(match: Match, proof: Proof, proven: bool, lows: Mapping[str, str] = NO_SITES) -> list[Divergence]:
    """List each place where values part by ten times more than before it.

    Where the outputs are proven equal, uses of quite other values are no such places: one side computes in other steps.

    Args:
      lows: of a side, the first module that computes in lower precision, where that is known.
    """
    parted: list[Divergence] = []
    worst, most = EXACT, PARTED_MATCH if proven else np.inf
    for step in match.steps:
        if 10 * worst < step.gap <= most and step.kind != "add":  # see judged: such a gap depends on the order of terms
            worst = step.gap
            parted.append(Divergence(*step.modules, step.gap, advice=feeds(step.kind), use=(step.kind, step.right)))
    if proof.exact <= EQUAL_OUTPUTS < proof.error:
        parted += _rounded(proof.tables)
        alone = proof.rounding[0] if len(proof.rounding) == 1 else ""
        who = f"the {alone} model computes" if alone else "both models compute"
        who = _with_low_tables(proof.tables) if proof.tables else who
        first = f", first in {lows[alone]}" if lows.get(alone) and not proof.tables else ""
        parted.append(Divergence(OWN, OWN, proof.error, f"{who} partly in lower precision{first}"))
    elif proof.exact > EQUAL_OUTPUTS and not parted and not np.isnan(proof.error):
        parted.append(Divergence(OUTPUT, OUTPUT, proof.exact, advice=feeds("")))
    return parted


def _with_low_tables(tables: Sequence[RoundedTable]) -> str:
    """Return "the left model computes", or the right one, if that model alone has tables in float32, or both models."""
    arrays = [table for table in tables if table.numbers is None]
    sides = {table.side for table in arrays}
    if any(all(table.low) for table in arrays) or {"left", "right"} <= sides:
        return "both models compute"
    return f"the {sides.pop()} model computes" if len(sides) == 1 and "" not in sides else "one side computes"


def _rounded(tables: Sequence[RoundedTable]) -> list[Divergence]:
    """Return a place for each cause of rounded tables: where the most unlike of them is read, with all places."""
    groups: dict[str, list[RoundedTable]] = {}
    for table in tables:
        groups.setdefault(_rounding(table), []).append(table)
    parted = list[Divergence]()
    for cause, some in groups.items():
        worst, places = max(some, key=lambda table: table.size), tuple(place(table.right, ()) for table in some)
        sites, number = (place(worst.left, ()), place(worst.right, ())), len(some)
        parted.append(
            Divergence(*sites, worst.size, cause, times=number, more=number - 1, changed="right", places=places)
        )
    return parted


def _rounding(table: RoundedTable) -> str:
    """Say how the sides differ in a table."""
    if table.numbers is None:
        (core,) = without_copies(table.value.real)
        if all(table.low):
            return f"both compute {named(core)} in float32, in other ways"
        side = f"the {table.side}" if table.side else "one side"
        return f"{side} computes {named(core)} in float32"
    left, right = apart(*table.numbers, least=6)
    return f"one number is rounded: {left} on the left, {right} on the right"


def sizes_differ(left: Left, best: Candidate) -> bool:
    """Tell whether parameters that read the same values have other sizes, of a match that is not complete."""
    lines = written(left, best)
    if not lines.reasons or len(lines.rights) > LARGE_MODEL:
        return False
    try:
        sides, mapped = _runs(left, best, lines.table), _known(lines)
    except Refused:
        return False
    finally:
        left.fill()
    others = resized(*sides, mapped, _single(lines.partners(left.elements)), lines.reasons)
    return any(not pair.joined for pair in others)


def partings(
    left: Left, best: Candidate, lines: Written, known: list[Divergence], sized: bool
) -> tuple[list[Divergence], list[Resized], list[Step]]:
    """Return the places where models with the same weights part, what has another size, and the uses of parameters.

    Args:
      known: the places that the matching saw. sized: whether sizes are compared.
    """
    try:
        sides, mapped = _runs(left, best, lines.table), _known(lines)
    except Refused:
        return known, [], list(best.found.steps)
    places, without = explain(*sides, mapped)  # an earlier difference hides that two parameters read the same values
    others = resized(*without, mapped, _single(lines.partners(left.elements)), lines.reasons) if sized else []
    constants = NO_CONSTANTS
    if not (places and all(place.cause for place in places)) and (neutral := _neutral(lines)):
        known_all, runs = mapped._replace(whole=True), _runs(left, best, lines.table, neutral)
        further = explain(*runs, known_all)
        if further[0]:
            (places, without), sides, mapped, constants = further, runs, known_all, neutral
    steps = remeasured(best.found.steps, sides, mapped)
    if not places and mapped.whole:  # few values show the difference, as those that one side cuts off: none did here
        places, _ = explain(*_runs(left, best, lines.table, constants, proof=True), mapped)
    elif (
        confirmed(places)
        and len(lines.rights) <= LARGE_MODEL
        and not _equal(without, _runs(left, best, lines.table, constants, proof=True))
    ):  # these inputs do not show all
        places[-1] = places[-1]._replace(whole=False)
    return _with_known(places, mapped, known, best.found.failure is None), others, steps


def remeasured(steps: Sequence[Step], sides: tuple[Run, Run], mapped: Mapped) -> list[Step]:
    """Return uses with the differences that they have on the same weights, up to the first where the models part.

    The matching compares a term of a sum where the sum is read, such as behind the token that is taken of it.
    """
    gaps = dict[tuple[str, tuple[str, ...]], float]()
    for pair in pairs(*sides, mapped):
        if pair.right is None or math.isinf(pair.gap):
            break
        gaps.setdefault((pair.right.kind, tuple(sides[1].elements.owners(pair.right.ids))), pair.gap)
        if pair.parts:
            break
    parted = [gap for gap in gaps.values() if gap > PARTED_USES]
    early = any(step.gap > PARTED_USES >= gaps.get((step.kind, step.right), np.inf) for step in steps)
    if not parted or not early:
        return list(steps)
    return [step._replace(gap=gaps.get((step.kind, step.right), step.gap)) for step in steps]


def _equal(sides: tuple[Run, Run], drawn: tuple[Run, Run]) -> bool:
    """Tell whether both sides have equal outputs with other weights and inputs."""
    try:
        ran = [run(side.tape, other.weights, other.inputs, side.side) for side, other in zip(sides, drawn, strict=True)]
    except Exception:  # an edit that holds for the first inputs alone
        return False
    return difference(ran[0].program.outputs, ran[1].program.outputs) <= PARTED_USES


def _with_known(places: list[Divergence], mapped: Mapped, known: list[Divergence], matched: bool) -> list[Divergence]:
    """Return the places where models with the same weights part, with causes; without any, those of the matching.

    Args:
      known: the places that the matching saw. matched: whether all uses have partners, also those without a line.
    """
    explained = 0 < len(places) < CAUSES and all(place.cause for place in places)
    if not explained and not mapped.whole and matched:
        return places or known[:1]
    if explained or not mapped.whole:  # nothing else differs, or it follows a use without a partner
        return places
    seen = {parting.right for parting in places}
    return [*places, *(place for place in known if place.right not in {*seen, OUTPUT})] or known


def _runs(
    left: Left, best: Candidate, table: DerivedTable, constants: Mapping[str, Array] = NO_CONSTANTS, proof: bool = False
) -> tuple[Run, Run]:
    """Run both models on the same weights: those of the matching, or of the proof.

    Args:
      constants: weights of the right model in place of its own.
    """
    a, b = left.side, best.side
    left.elements.release()
    weights: Mapping[str, Array] = dict(Drawn(a, WEIGHTS)) if proof else draw(a, left.seed)
    inputs = fresh(a.call.arrays() if proof else left.inputs, b.call.arrays(), INPUTS if proof else None)
    return (
        run(left.program.tape, weights, list(inputs[0].values()), 0),
        run(best.exact, {**TranslatedWeights(table, a, b, weights), **constants}, list(inputs[1].values()), 1),
    )


def _neutral(lines: Written) -> dict[str, Array]:
    """Return constants for the right parameters without a line that have the effect of leaving them out.

    None are returned where one of them has no such constant.
    """
    alone = {name: why for name, why in lines.reasons.items() if isinstance(why, OneSided) and why.neutral}
    every = len(alone) == len(lines.reasons)
    return {name: np.full(lines.rights.shapes[name], float(why.neutral)) for name, why in alone.items() if every}


def _known(lines: Written) -> Mapped:
    """Return the map without the elements of parameters that have no line."""
    mapped = lines.rights.without(lines.map, lines.reasons) if lines.reasons else np.asarray(lines.map)
    return Mapped(mapped, not lines.reasons, lines.plus if lines.plus.any() else None)


def _single(partners: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Map each right parameter to its left one, where these two share elements with no other parameter."""
    counts = Counter(name for names in partners.values() for name in names)
    return {names[0]: left for left, names in partners.items() if len(names) == 1 and counts[names[0]] == 1}


def marked(steps: Sequence[Step], places: Sequence[Divergence]) -> list[Step]:
    """Return the uses of parameters, each at which the models part with a difference.

    The matching compares uses with what differs removed, as a factor that all values have, or goes on with the left
    model's values on the right: such a use agrees by construction, or has the difference of another cause alone.
    """
    out = list(steps)
    for card in places:
        for numbers in uses_at(out, card) if math.isfinite(card.size) else ():
            own = out[numbers[0]].gap
            if own <= PARTED_USES or own * MEAN < card.size:
                for k in numbers:
                    by_place = out[k].by_place or own <= PARTED_USES
                    out[k] = out[k]._replace(gap=max(out[k].gap, card.size), by_place=by_place)
    return out


def uses_at(steps: Sequence[Step], card: Divergence) -> Iterator[list[int]]:
    """Yield the number of the use that parts the models at each place of a card; without a cause, also those behind it.

    These are in its module, and read what differs.
    """
    if not card.use:
        return
    sites = [step.modules for step in steps]
    kind, names = card.use
    here = [k for k, (_, right) in enumerate(sites) if right == card.right]
    alike = (k for k in here if steps[k].right == names)
    same = sorted(alike, key=lambda k: (steps[k].gap != card.size, steps[k].kind != kind))  # stable
    if same:
        yield same[:1] if card.cause else [k for k in here if k >= same[0]]
        kind = steps[same[0]].kind  # a table is read as it is, and added where the sum is read
    side = ("left", "right").index(card.changed) if card.changed else 0
    first, own = card.places[0] if card.places else "", (card.left, card.right)[side]
    for path in card.places[1:]:
        there = path + own[len(first) :] if is_inside(own, first) else path
        inside = (k for k, site in enumerate(sites) if is_inside(site[side], there))
        first_there = sorted(inside, key=lambda k: steps[k].kind != kind)[:1]  # stable: of this kind, or of any
        yield from ([k] for k in first_there)
