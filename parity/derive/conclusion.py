"""Conclude a match: write its Table, prove it, and explain what differs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convert.folding import fold as folded
from specs.lines import Line
from specs.paths import escaped
from specs.words import in_a_row

from ..summary import count
from .candidates import SEED, Candidate, Left
from .comments import commented, untranslated
from .depths import differing
from .derivation import Derivation
from .fold.buffers import Partner, lines_of, partners_of, shapes_of
from .fold.facts import Facts
from .fold.fold import UNMATCHED, fold
from .fold.lone import lone
from .fold.rows import DerivedTable, dropped
from .match.advice import feeds
from .match.choices import EXACT, LIMIT, Step
from .match.complete import complete
from .match.hints import Hint, check_lines
from .match.match import Match
from .match.symbols import LARGE, Elements, Packed
from .prove.causes import CAUSES, Divergence, explain
from .prove.freedom import freedom
from .prove.pairs import Mapped, Run, run
from .prove.prove import INPUTS, WEIGHTS, Proof, Translated, prove
from .prove.signs import only_positive
from .prove.unproven import unproven
from .summands import straightened
from .trace.call import label
from .trace.draws import Drawn, draw, of_one_value
from .trace.inputs import fresh
from .trace.outputs import OUTPUT
from .trace.places import OWN, place
from .trace.sides import Side
from .trace.tape import Array
from .unmatched import Unmatched, unmatched
from .widths import Resized, resized, sentence, usual, without

PARTED = 1e-6  # difference of values in the matching beyond which models are not proven equal
MAX_TABLES = 4  # tables of lower precision that are listed


def concluded(left: Left, best: Candidate, began: float, unlike: Sequence[Resized] = ()) -> Derivation:
    """Write the Table of a match, prove it, and explain what differs.

    Args:
      began: the process's CPU time before all of it.
      unlike: parameters that have another size than those whose values they read, and no partner therefore.
    """
    found, a, b, lefts = best.found, left.side, best.side, left.elements
    rights = Elements(b.parameters, known=False)
    mapped, inferred = complete(found.map, lefts, rights, not found.failure)
    mapped = straightened(left, mapped, found.plus, rights, best.hint.right if best.hint else ())
    blank, dead = ({}, []) if found.outputs is None else _unread(a, best, mapped, rights, lefts)
    partners = partners_of(a, b, mapped, lefts, rights)
    table, reasons = _folded(left, best, mapped, rights, partners, (blank, dead))
    if len(rights) > LARGE:
        found.map = mapped = Packed(mapped, rights)
        lefts.release()
    # what a term of a sum was added to depends on the order of the terms, which frameworks choose
    parted = any(step.gap > PARTED and step.kind != "add" for step in found.steps)
    whole = not found.failure and not parted
    proof = prove(a, b, (left.program.tape, best.tape), table, mapped, lefts, rights, found.plus, whole)
    proven = proof.holds and whole and not reasons
    unshown = unproven(a, b, table) if proven else []
    proven = proven and not unshown
    if proven and (names := only_positive(a, b, table, proof.error)):
        proof = proof._replace(incomparable=f"equal only for positive values of {in_a_row(folded(names))}")
        proven = False
    # without these parameters, outputs say nothing
    lacking = set(reasons) - set(best.tape.unread())
    if lacking:
        remark = (
            proof.incomparable or f"{count(len(reasons), 'parameter')} {'is' if len(reasons) == 1 else 'are'} missing"
        )
        proof = proof._replace(error=float("nan"), incomparable=remark)
    differences = divergences(found, proof)
    free: list[str] = []
    if proven:
        left.fill()
        free = freedom(a, left.program, lefts, left.inputs, _partners(mapped, lefts, rights))
    else:
        sized = not unlike and len(rights) <= LARGE and bool(reasons or proof.incomparable)
        differences, others = _parting(left, best, table, (mapped, rights, reasons), differences, sized)
        if any(pair.part for pair in others):
            return concluded(left, best._replace(found=without(found, others, rights)), began, others)
        unlike = unlike or others
        reasons |= {pair.right: pair.why for pair in unlike if pair.right in reasons}
    rows = unmatched(left, best, reasons) if reasons else []
    if reasons:
        table = _without_drops(table, best.hint, rows)
    steps = [] if proven else [step for step in found.steps if step.gap >= LIMIT] + _placed_twice(found.steps)
    doubtful = [name for step in steps for name in step.right.split(" ")]
    inferred = list(dict.fromkeys([*inferred, *blank, *doubtful]))
    notes = [*untranslated(a, b, partners), *(f"only on the right, where nothing reads it: {name}" for name in dead)]
    notes += [f"unobservable: no output depends on what this drops: {line}" for line in _unseen(table) if proven]
    table = commented(table, proof, proven, inferred, reasons, [*notes, *(f"free: {text}" for text in free)])
    sizes = sentence(unlike, lefts, rights) or (usual(lefts, rights) if found.failure and not proven else "")
    return Derivation(
        table=table,
        proven=proven,
        error=proof.error,
        gradient=None if reasons else proof.gradient,
        divergences=differences,
        incomparable=proof.incomparable,
        unobservable=proof.unobservable,
        unshown=unshown,
        kept=proof.kept,
        drawn=left.drawn,
        reasons=reasons,
        unmatched=rows,
        failure=found.failure,
        inferred=inferred,
        freedom=free,
        uses=found.steps,
        fixed=lone(table, lefts.names, rights.names),
        depths="" if proven else differing(a.parameters, b.parameters),
        sizes=sizes,
        arrays=(len(lefts.names), len(rights.names)),
        elements=(len(lefts) - 1, len(rights) - 1),
        seconds=time.process_time() - began,
    )


def _folded(
    left: Left, best: Candidate, mapped: Array, rights: Elements, partners: Mapping[str, Partner],
    unread: tuple[dict[str, float], list[str]],
) -> tuple[DerivedTable, dict[str, str]]:  # fmt: skip
    """Return (table, {right parameter that no line describes: why}).

    Args:
      partners: see partners_of. unread: see _unread.
    """
    a, b, lefts, (blank, dead) = left.side, best.side, left.elements, unread
    extra = [*lines_of(a, b, partners), *(dropped(name, 1) for name in dead)]
    made = {name for name in b.others if any(dict(row.right).get(escaped(name)) is not None for row in extra)}
    frameworks, others = (a.framework, b.framework), shapes_of(a, b, made)
    values = {**blank, **dict.fromkeys(_zeros(mapped, rights), 0.0)}
    facts = Facts(lefts, rights, mapped, best.found.plus, frameworks, (a.ties, b.ties), others, extra, values)
    table, reasons = fold(facts, best.hint)
    if best.hint:
        check_lines(best.hint, table, table.known)
    if plain := [label(path) for path, array in a.call.arrays().items() if _shows_nothing(array)]:
        why = f"{UNMATCHED}: {', '.join(plain)} has one value, which shows nothing: give random numbers"
        reasons = {name: why if text == UNMATCHED else text for name, text in reasons.items()}
    counted = {name: partner.name for name, partner in partners.items() if b.others[name].size == 1}
    counters = {name: a.others[name] for name in counted.values()}, {name: b.others[name] for name in counted}
    return replace(table, unread=counters), {name: why for name, why in reasons.items() if name not in dead}


def _shows_nothing(array: Array) -> bool:
    """Tell whether an input of real numbers has one value, as zeros that stand for an image."""
    return array.dtype.kind == "f" and array.size > 1 and of_one_value(array)


def _unseen(table: DerivedTable) -> list[Line]:
    """Return lines that drop parts of left arrays and put zeros there in reverse: biases of keys, which nothing shows.

    They stand beside lines that read the rest.
    """
    return [line for line in table.lines if line.arrow == "->" and line.left.constant]


def _zeros(mapped: Array, rights: Elements) -> list[str]:
    """Return right parameters that are zero: biases of layers that have none on the left."""
    parts = {name: rights.part(mapped, name) for name in rights.names}
    negative = {name: part for name, part in parts.items() if part.size and part.flat[0] < 0}
    return [name for name, part in negative.items() if np.array_equal(part, -rights.numbers(name))]


def _unread(
    a: Side, best: Candidate, mapped: Array, rights: Elements, lefts: Elements
) -> tuple[dict[str, float], list[str]]:
    """Divide right parameters that no output reads, and that correspond to nothing: (those of one value, the others).

    One that has the size of a free left parameter is in neither: it may correspond to that.
    """
    used = set(lefts.owners(mapped))
    free = {array.size for name, array in a.parameters.items() if name not in used}
    blank, dead = dict[str, float](), list[str]()
    for name in best.exact.unread():
        array = best.side.parameters[name]
        if rights.part(mapped, name).any() or array.size in free:
            continue
        if of_one_value(array):
            blank[name] = float(array.flat[0])
        else:
            dead.append(name)
    return blank, dead


def _partners(mapped: Any, lefts: Elements, rights: Elements) -> dict[str, list[str]]:
    """Return the right parameters that each left one becomes."""
    partners: dict[str, list[str]] = {}
    for name in rights.names:
        for owner in lefts.owners(rights.part(mapped, name)):
            partners.setdefault(owner, []).append(name)
    return partners


def _known(mapped: Any, rights: Elements, reasons: Mapping[str, str]) -> Mapped:
    """Return the map without the elements of parameters that have no line."""
    found = np.array(mapped) if reasons else np.asarray(mapped)
    for name in reasons:
        rights.part(found, name)[...] = 0
    return Mapped(found, not reasons)


def _single(partners: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the left parameter of each right one that has elements of that one alone, if no other has such."""
    counts = Counter(name for names in partners.values() for name in names)
    return {names[0]: left for left, names in partners.items() if len(names) == 1 and counts[names[0]] == 1}


def _runs(left: Left, best: Candidate, table: DerivedTable, proof: bool = False) -> tuple[Run, Run]:
    """Run both models on the same weights: those of the matching, or of the proof."""
    a, b = left.side, best.side
    left.elements.release()
    weights: Mapping[str, Array] = dict(Drawn(a, WEIGHTS)) if proof else draw(a, SEED)
    inputs = fresh(a.call.arrays() if proof else left.inputs, b.call.arrays(), INPUTS if proof else None)
    return (
        run(left.program.tape, weights, list(inputs[0].values()), 0),
        run(best.exact, dict(Translated(table, a, b, weights)), list(inputs[1].values()), 1),
    )


def _parting(
    left: Left, best: Candidate, table: DerivedTable, of: tuple[Any, Elements, Mapping[str, str]],
    known: list[Divergence], sized: bool,
) -> tuple[list[Divergence], list[Resized]]:  # fmt: skip
    """Return (the places where models with the same weights part, what has another size than what it corresponds to).

    Args:
      of: the map, the right elements, and the right parameters without a line.
      known: the places that the matching saw. sized: whether sizes are compared.
    """
    mapped, rights, reasons = of
    sides, found = _runs(left, best, table), _known(mapped, rights, reasons)
    others = list[Resized]()
    if sized:
        others = resized(*sides, found, _single(_partners(mapped, left.elements, rights)), reasons)
    places = explain(*sides, found)
    if not places and found.whole:  # few values show the difference, as those that one side cuts off: none did here
        places = explain(*_runs(left, best, table, proof=True), found)
    return _with_known(places, found, known), others


def _with_known(places: list[Divergence], mapped: Mapped, known: list[Divergence]) -> list[Divergence]:
    """Return the places where models with the same weights part, with causes; without any, those of the matching."""
    explained = 0 < len(places) < CAUSES and all(place.cause for place in places)
    if explained or not mapped.whole:  # nothing else differs, or it follows a use without a partner
        return places
    seen = {place.right for place in places}
    return [*places, *(place for place in known if place.right not in {*seen, "output"})] or known


def _placed_twice(steps: Sequence[Step]) -> list[Step]:
    """Return the steps by which several right parameters, whose values nothing shows, became one left parameter."""
    placed = [step for step in steps if step.kind == "place"]
    rights: dict[str, set[str]] = {}
    for step in placed:
        rights.setdefault(step.left, set()).add(step.right)
    return [step for step in placed if len(rights[step.left]) > 1]


def divergences(found: Match, proof: Proof) -> list[Divergence]:
    """List each place where values part by ten times more than before it."""
    parted: list[Divergence] = []
    worst = EXACT
    for step in found.steps:
        if step.gap > 10 * worst and step.kind != "add":  # see concluded: such a gap depends on the order of terms
            worst = step.gap
            sites = place(step.left_site, step.left), place(step.right_site, step.right)
            parted.append(Divergence(*sites, step.gap, advice=feeds(step.kind)))
    if proof.exact <= OUTPUT < proof.error:
        parted += [
            Divergence(place(table.left, ""), place(table.right, ""), table.size, table.cause)
            for table in proof.rounded[:MAX_TABLES]
        ]
        parted.append(Divergence(OWN, OWN, proof.error, "one side computes partly in lower precision"))
    elif proof.exact > OUTPUT and not parted and not np.isnan(proof.error):
        parted.append(Divergence("output", "output", proof.exact, advice=feeds("")))
    return parted


def _without_drops(table: DerivedTable, given: Hint | None, rows: Sequence[Unmatched]) -> DerivedTable:
    """Leave out lines that drop left arrays, but for those that the user gave: what has no partner yet may need one.

    Parts of arrays are left out if the left model reads them, as those of blocks that were not matched.

    Args:
      rows: what has no partner.
    """
    kept = {str(line) for line in given.table.lines} if given else set[str]()
    read = {name for row in rows if row.side == "left" and row.kind for name in row.names.split(" ")}
    drops = [line for line in table.lines if line.kind == "drop" and line.left.arrays and str(line) not in kept]
    out = [
        line
        for line in drops
        if not any(array.windowed and "".join(map(str, array.path)) not in read for array in line.left.arrays)
    ]
    return replace(table, lines=tuple(line for line in table.lines if line not in out), whole=table)
