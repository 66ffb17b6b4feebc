"""Match tapes whose products are composed otherwise, where the match of the plain ones ends early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from parity.derive.forms.bilinear import bilinears, turned
from parity.derive.forms.cancelled import cancelled
from parity.derive.forms.convolutions import unfolded
from parity.derive.forms.factored import factored
from parity.derive.forms.gathered import gathered
from parity.derive.forms.joined import separated, without_neutral
from parity.derive.forms.mixed import totals
from parity.derive.forms.modulated import modulated
from parity.derive.forms.one_hot import looked_up
from parity.derive.forms.picked import picked_before
from parity.derive.forms.routed import routed
from parity.derive.forms.scales import scaled_before, scaled_behind
from parity.derive.limits import MATCH_WORK
from parity.derive.match.match import Walked, match, walked
from parity.derive.match.regroup import MATRICES
from parity.derive.trace.program import Program, Refused
from parity.derive.trace.tape import Tape

from .candidates import Candidate, Left
from .filled import fill_alike

Form = Callable[[tuple[Program, Program]], tuple[Tape, Tape]]

NEAREST = 3  # bilinear products before the end of a match whose matrices are tried at the other operand


def recomposed(known: Left, uses: Walked, best: Candidate, stop: float) -> Candidate:
    """Return the deepest match of tapes in other forms, where the plain ones end early.

    Masks and maxima that do not show are left out where the match still ends early; then convolutions are taken tap by
    tap, and matrices turned.
    """
    best = _in_forms(known, best, stop)
    if best.found.failure and (plain := _formed(known, best, stop, _cancelling(known, best), always=True)) is not best:
        best = max(best, _in_forms(known, plain, stop), key=lambda candidate: candidate.depth)
    for compose in (_by_taps, _turned):
        best = compose(known, uses, best, stop) if best.found.failure else best
    return best


def _in_forms(known: Left, best: Candidate, stop: float) -> Candidate:
    """Return the deepest match of tapes in other forms, each of which is taken if the match goes further so."""
    for form in FORMS:
        best = _formed(known, best, stop, form) if best.found.failure else best
    return best


def _by_groups(programs: tuple[Program, Program]) -> tuple[Tape, Tape]:
    """Return tapes with a product for each group of convolutions, which the other side may have as other convolutions.

    Those of the right side are products too then, as each is compared with one group of the left side.
    """
    left, right = (unfolded(program, range(2, MATRICES + 1)) for program in programs)
    if left is not programs[0].tape and right is programs[1].tape:
        right = unfolded(programs[1])
    return left, right


def _of_all_experts(program: Program) -> Tape:
    """Return the tape with all rows and all matrices of experts, where it gathers either."""
    tape = routed(program)
    return gathered(program) if tape is program.tape else tape


def _each(form: Callable[[Program], Tape]) -> Form:
    """Return what makes the tapes of both sides in a form that does not depend on the other side."""
    return lambda programs: (form(programs[0]), form(programs[1]))


FORMS = (
    fill_alike, *map(_each, (looked_up, picked_before, factored, separated, totals)), _by_groups,
    *map(_each, (without_neutral, _of_all_experts, modulated, scaled_before, scaled_behind)),
)  # fmt: skip


def _cancelling(known: Left, best: Candidate) -> Form:
    """Return what makes the tapes with all rows for all experts, without the masks and maxima that do not show then."""

    def form(program: Program) -> Tape:
        parameters = known.elements.arrays if program is best.programs[0] else best.side.parameters
        tape = _of_all_experts(program)
        if tape is not program.tape:
            program = Program(tape, parameters, [*program.inputs.values()])
        return cancelled(program, parameters)

    return _each(form)


def _formed(known: Left, best: Candidate, stop: float, form: Form, always: bool = False) -> Candidate:
    """Match tapes of another form, if one of them changes and the match goes further so, or always."""
    try:
        a, b = form(best.programs)
        if a is best.programs[0].tape and b is best.programs[1].tape:
            return best
        own = Program(a, known.elements.arrays, list(known.program.inputs.values()))
        new = _matched(best, walked(own, known.elements), b, stop)
        return new if always or new.depth > best.depth else best
    except Refused:
        return best


def _by_taps(known: Left, uses: Walked, best: Candidate, stop: float) -> Candidate:
    """Match the right tape with convolutions as products over patches, if the left side may multiply each tap."""
    own, program = best.programs
    node = next(iter(program.tape.nodes[best.found.at :]), None)
    if node is None or not node.window:
        return best
    _, channels, *taps = program.shapes[node.inputs[1]]
    single = [seen for seen in uses.seen if seen.use.kind == "product" and not seen.window]
    if sum(seen.use.ids.shape[1] == channels for seen in single) < math.prod(taps) or math.prod(taps) == 1:
        return best
    left = uses if own is uses.program else walked(own, known.elements)
    return max(best, _matched(best, left, unfolded(program), stop), key=lambda candidate: candidate.depth)


def _turned(known: Left, uses: Walked, best: Candidate, stop: float) -> Candidate:
    """Match tapes with matrices of bilinear products at the other operand, as far as the match goes further so."""
    program, work = best.programs[0], MATCH_WORK
    own = uses if program is uses.program else None
    while best.found.failure and work > 0 and time.thread_time() < stop:
        before = [bilinear for bilinear in bilinears(best.programs[1]) if bilinear.first <= best.found.at]
        for bilinear in before[: -NEAREST - 1 : -1]:
            own = own or walked(program, known.elements)
            new = _matched(best, own, turned(best.programs[1], bilinear), stop)
            work -= new.found.work
            if new.depth > best.depth:
                best = new
                break
        else:
            break
    return best


def _matched(best: Candidate, left: Walked, tape: Tape, stop: float) -> Candidate:
    """Match a right tape of another form."""
    target = Program(tape, best.side.parameters, best.inputs)
    matched = match(left, target, best.side.parameters, stop, best.hint and best.hint.map, idle=MATCH_WORK)
    return best._replace(found=matched, programs=(left.program, target))
