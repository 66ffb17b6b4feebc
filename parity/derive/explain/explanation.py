"""Locate where two models part, and why: a cause is named only if recomputing with it makes their values agree.

Both models run on weights that the Table translates. Each use of a parameter on the right meets the values that the
same elements meet on the left; the first use that meets others is where the models part. These causes are tried:
parameters that the right side lacks, another activation, sums (a term that one side lacks, a norm on the other side of
a sum), functions that one side lacks (a mask, rotations), and what one side has in place of the other's: a number (an
epsilon, a scale, a limit), a table (positions), an operation (a pooling). Of convolutions of the same image, the
padding, strides and dilations in which they differ are named, of attention the numbers of heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from parity.derive.edits.activations import others
from parity.derive.edits.affine import without_elements, without_parameters
from parity.derive.edits.axes import reaxed
from parity.derive.edits.chosen import chosen_otherwise
from parity.derive.edits.edit import SIDES, Edit, Fault, Scope
from parity.derive.edits.functions import without_functions, without_turns
from parity.derive.edits.numbers import changes
from parity.derive.edits.outputs import earlier_values, rearranged
from parity.derive.edits.picked_rows import repicked
from parity.derive.edits.rewiring import rewirings
from parity.derive.edits.roots import moved
from parity.derive.edits.scores import rescaled
from parity.derive.edits.stretches import restretched
from parity.derive.edits.swaps import swaps
from parity.derive.edits.tables import retabled
from parity.derive.edits.texts import MASK
from parity.derive.edits.weights import plain_weights, shared
from parity.derive.edits.windows import other_window
from parity.derive.limits import CAUSE_WORK, CAUSES_WORK, RECOMPUTED
from parity.derive.match.advice import SUMMED, feeds
from parity.derive.prove.pairs import Mapped, Pair, Run, parting
from parity.derive.prove.pairs import pairs as pairs_of
from parity.derive.trace.tape import Array

from .divergence import Divergence
from .heads import HEADS, unlike_heads
from .recomputation import BEHIND, SPAN, Recomputation, Sides, marked

BESIDE = 8  # pairs of values of parameters in which causes are looked for
FIRSTS = 3  # causes with each of which a second one is looked for
CAUSES = 8  # causes that are looked for one after the other

Explained = tuple[list[Divergence], Sides | None]  # causes, and both sides without them if they can be run on so


def explain(left: Run, right: Run, mapped: Mapped) -> tuple[list[Divergence], tuple[Run, Run]]:
    """Return where the models part, each with its cause, until a difference has none; and both without these causes."""
    places: list[Divergence] = []
    is_reshaped = False
    work = CAUSES_WORK
    while len(places) < CAUSES:
        pairs = list(pairs_of(left, right, mapped))
        if (at := parting(pairs, right)) is None:
            break
        if is_reshaped:  # what follows has numbers that were recorded of other lengths, as of a mean
            places[-1] = places[-1]._replace(whole=False)
            break
        trial = Recomputation((left, right), mapped, pairs, at, min(work, CAUSE_WORK))
        pair = pairs[at]
        sites, use = (left.site(pair.left), right.site(pair.right)), right.kind_and_names(pair.right)
        heads, layers = unlike_heads(left, right, pairs, at)
        if heads:
            alike = Divergence(*sites, trial.size, heads.what, kind=HEADS, both=heads.both, use=use, changed=SIDES[1])
            places.append(alike._replace(times=len(layers), more=len(layers) - 1, places=tuple(layers)))
            break
        causes, sides_without = _causes(trial, {place.same for place in places})
        work -= trial.spent
        if not causes:
            late = trial.work <= 0
            behind = _is_behind(pairs, at, right)
            advice = SUMMED if behind else _advice(pair, right)
            places.append(Divergence(*sites, trial.size, advice=advice, late=late, behind=behind, use=use))
        for cause in causes:
            _add(places, cause)
        if sides_without is None:
            break
        is_reshaped = any(_reshaped(*runs) for runs in zip((left, right), sides_without, strict=True))
        left, right = sides_without
    if len(places) >= CAUSES and parting(list(pairs_of(left, right, mapped)), right) is not None:
        places[-1] = places[-1]._replace(whole=False)  # there are more
    return places, (left, right)


def _reshaped(before: Run, after: Run) -> bool:
    """Tell whether an edit has changed the shape of a value."""
    old, new = before.program.shapes, after.program.shapes
    return any(shape != new[number] for number, shape in old.items() if number in new)


def _add(places: list[Divergence], place: Divergence) -> None:
    """Add a place; one with the same cause as an earlier place joins that."""
    at = next((k for k, other in enumerate(places) if other.is_like(place)), None)
    if at is None:
        places.append(place)
    else:
        places[at] = places[at].joined(place)


def _is_behind(pairs: Sequence[Pair], at: int, right: Run) -> bool:
    """Tell whether sides part at a term whose module has a product that agrees, as of a Linear and its bias."""
    term = pairs[at].right
    if term is None or term.kind != "add":
        return False
    products = (pair.right for pair in pairs[:at] if pair.right and pair.right.kind == "product" and not pair.parts)
    return any(right.site(product) == right.site(term) for product in products)


def _advice(pair: Pair, right: Run) -> str:
    """List what to compare of the values that reach an operation, or the outputs."""
    if pair.right is None:
        return feeds("")
    return feeds(pair.right.kind, right.program.patches(right.tape.nodes[pair.right.node]))


def _causes(trial: Recomputation, known: Collection[Fault]) -> Explained:
    """Return the cause of a difference, or two that act at once, and both sides without them.

    Args:
      known: the faults of earlier places.
    """
    (left, right), pair = trial.both, trial.pairs[trial.at]
    if pair.left is not None and pair.right is not None:
        nodes = left.tape.nodes[pair.left.node], right.tape.nodes[pair.right.node]
        if edit := other_window(nodes, (pair.left.x, pair.right.x)):
            cause, sides = trial.best([edit])
            sites = left.site(pair.left), right.site(pair.right)
            use = right.kind_and_names(pair.right)
            return [cause or Divergence(*sites, trial.size, edit.what, kind=edit.kind, both=edit.both, use=use)], sides
    cause, sides = _tried(trial, known)
    if trial.reader and (cause is None or cause.kind == MASK):  # one side may fill what the other adds to the sum
        trial.by_reader = True
        other, without = _tried(trial, known)
        if other and without and (sides is None or trial.reach(without) > trial.reach(sides)):
            cause, sides = other, without
    if cause is None and (two := _two(trial))[0]:
        return two
    if cause is None:
        cause, sides = trial.best(_stretches(trial))
    return ([cause] if cause else []), sides


def _tried(trial: Recomputation, known: Collection[Fault] = ()) -> tuple[Divergence | None, Sides | None]:
    """Return the cause that one edit confirms, and the sides without it; (None, None) where none does.

    Args:
      known: the faults of earlier places, which are tried first: code that is used often repeats them.
    """
    scope = _scope(trial, BEHIND)
    near = _within(trial, scope, SPAN)
    every = itertools.chain(_simple(trial, scope), _edits(trial, near)) if known else ()
    best = trial.best(edit for edit in every if edit.same in known)
    best = best if best[0] else trial.best(_simple(trial, scope))
    return best if best[0] else trial.best(_edits(trial, near))


def _scope(trial: Recomputation, uses: int) -> Scope:
    """Return both sides, with the operations from the last `uses` that agree to where they part."""
    one, other = trial.both
    near = [_unseen(trial, side) for side in (0, 1)]
    return _within(trial, Scope((one.program, other.program), (), (), near, trial.observable), uses)


def _within(trial: Recomputation, scope: Scope, uses: int) -> Scope:
    """Return a scope with the operations from the last `uses` that agree."""
    spans = _spans(trial, uses)
    return scope._replace(firsts=[first for first, _ in spans], spans=spans)


def _two(trial: Recomputation) -> Explained:
    """Return two causes that make the sides equal together: one of the edits that leave the least, and another."""
    work = trial.work // 2  # the other half is left for several operations in a row
    for left_over, edit in sorted(trial.nearest.values(), key=lambda one: one[0])[:FIRSTS]:
        if (sides := trial.replaced(edit)) is None:
            continue
        pairs = list(pairs_of(*sides, trial.mapped))
        at = parting(pairs, sides[1])
        if at is None or at != trial.at:
            continue
        other = Recomputation(sides, trial.mapped, pairs, at, work)
        other.limit = RECOMPUTED  # a difference that two edits make small by chance is none that they explain
        cause, without = _tried(other)
        work, trial.work = other.work, trial.work - other.spent
        if cause:
            return [trial.cause(edit, left_over)._replace(partial=True), cause], without
    return [], None


def _spans(trial: Recomputation, uses: int) -> list[tuple[int, int]]:
    """Return of each side the operations between the last `uses` that agree and the first that does not."""
    firsts, pair = trial.firsts(uses), trial.behind_sums
    return [(firsts[side], _end(run, pair, side)) for side, run in enumerate(trial.both)]


def _unseen(trial: Recomputation, side: int) -> set[int]:
    """Return the operations of a side that lead to where the sides part, from the uses before it that agree.

    A bias is compared where it is added, so that operations up to the next use, to what reads its sum, or to the
    outputs are among them. So are functions of a parameter alone, whose result a use that agrees has added, or has
    multiplied with.
    """
    run = trial.both[side]
    uses = [(pair.left, pair.right)[side] for pair in trial.pairs]
    agreeing = {use.node for use in uses[: trial.at] if use is not None}
    behind = [(pair.left, pair.right)[side] for pair in (*trial.pairs[trial.at : trial.at + 2], trial.behind_sums)]
    parted = [use.node for use in behind if use is not None]
    unseen, waiting = set(parted), [number for at in parted for number in run.tape.nodes[at].inputs]
    waiting += run.tape.outputs if None in behind else []
    while waiting:
        at = run.program.makers.get(waiting.pop())
        if at is None or at in unseen:
            continue
        inputs = run.tape.nodes[at].inputs
        if at in agreeing:
            waiting.extend(n for n in inputs if n not in run.program.active)
        else:
            unseen.add(at)
            waiting.extend(inputs)
    return unseen


def _simple(trial: Recomputation, scope: Scope) -> Iterator[Edit]:
    """Yield what is told by one look: outputs in another order, parameters that one side lacks, other activations."""
    if trial.pairs[trial.at].right is None:
        yield from rearranged(scope)
    for side, names in enumerate(scope.alone):
        # where not all have been matched, those behind this place may have partners yet
        span = None if trial.mapped.whole else scope.spans[side]
        yield from without_parameters(scope.programs[side], names, side, span)
    for side, parts in enumerate(_in_part(*trial.both, trial.mapped)):
        yield from without_elements(scope.programs[side], parts, side)
    if scope.alone[0]:
        yield from shared(scope.programs[0], scope.alone[0], _partners(*trial.both, trial.mapped))
    yield from others(scope)


def _partners(left: Run, right: Run, mapped: Mapped) -> dict[str, str]:
    """Return the first right parameter of each left one whose elements it has alone."""
    owners = ((left.elements.owners(right.elements.part(mapped.numbers, name)), name) for name in right.elements.names)
    return {owned[0]: name for owned, name in reversed([*owners]) if len(owned) == 1}


def _in_part(left: Run, right: Run, mapped: Mapped) -> list[dict[str, Array]]:
    """Return the parameters of each side of which some elements have a partner, and which ones; none of a part."""
    known = marked(left, right, mapped) if mapped.whole else []
    parts = [{name: np.asarray(elements.part(marks, name)) for name in elements.names} for elements, marks in known]
    return [{name: marks for name, marks in elements.items() if marks.any() and not marks.all()} for elements in parts]


def _edits(trial: Recomputation, scope: Scope) -> Iterator[Edit]:
    """Yield what may make the sides equal, behind the last use that agrees.

    In turn: other numbers, sums, tables, operations and functions; then values on the way.
    """
    left, right = trial.both
    read = trial.read()
    every = changes(left.tape, right.tape, read)
    numbers = (edit for edit in every if not read[edit.side].isdisjoint(edit.values))
    functions = itertools.chain(without_turns(scope), without_functions(scope))
    kinds = (
        reaxed(scope), rescaled(scope), numbers, moved(scope), rewirings(scope, near_alone=True), retabled(scope),
        swaps(scope), functions, plain_weights(scope), repicked(scope), chosen_otherwise(scope),
    )  # fmt: skip
    for few in itertools.zip_longest(*kinds):
        yield from filter(None, few)
    for met in _met(trial):
        yield from earlier_values(scope, met)


def _stretches(trial: Recomputation) -> Iterator[Edit]:
    """Yield several operations in a row for several: the last resort, which explains two other causes at once too."""
    scope = _scope(trial, SPAN)
    for met in itertools.chain(_met(trial), _beside(trial, scope.near)):
        yield from restretched(scope, met)


def _met(trial: Recomputation) -> Iterator[tuple[int, int]]:
    """Yield the values of both sides that are compared where these part: what a use meets, or each of the outputs.

    A term is compared behind its sum, so that those of what reads it are among them.
    """
    pair = trial.pairs[trial.at]
    yield from _compared(trial, pair)
    if trial.behind_sums is not pair:
        yield from _compared(trial, trial.behind_sums)


def _compared(trial: Recomputation, pair: Pair) -> Iterator[tuple[int, int]]:
    """Yield the values of both sides that two uses meet, or each of the outputs."""
    left, right = trial.both
    if pair.left is None or pair.right is None:
        yield from zip(left.tape.outputs, right.tape.outputs, strict=False)
        return
    inputs = left.tape.nodes[pair.left.node].inputs, right.tape.nodes[pair.right.node].inputs
    active = [[n for n in numbers if n in run.program.active] for run, numbers in zip(trial.both, inputs, strict=True)]
    if all(active):
        yield active[0][0], active[1][0]


def _beside(trial: Recomputation, near: Sequence[Collection[int]]) -> Iterator[tuple[int, int]]:
    """Yield values of both sides that one parameter alone has been made into, and that meet activations near there."""
    some = [list[int](), list[int]()]
    for side, run in enumerate(trial.both):
        weights = run.program.weights
        for node in (run.tape.nodes[at] for at in sorted(near[side])):
            if node.kind in ("add", "mul") and not run.program.active.isdisjoint(node.inputs):
                some[side] += [number for number in node.inputs if len(weights.get(number, ())) == 1]
    yield from itertools.islice(itertools.product(*some), BESIDE)


def _end(run: Run, pair: Pair, side: int) -> int:
    """Return the number of the operation after the one at which a pair meets its values."""
    use = (pair.left, pair.right)[side]
    return len(run.tape.nodes) if use is None else use.node + 1
