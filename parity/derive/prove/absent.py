"""Run both models on tokens that the given inputs do not have: those that one side alone asks for, as for padding.

Others are tried too, as far as tables have rows for them: code may limit tokens, divide them, or compare with several.
So are tokens that stand beside themselves, as code may compare them with one another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from parity.derive.edits.edit import SIDES
from parity.derive.trace.inputs import fresh, lone_tokens, token_ids
from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array, Node, Tape
from specs.words import in_a_row

from .trial import Trial, differing

SEED = 9000
LARGER = 32  # times the largest integer that inputs have: those of times, say, of which models have no table
EQUALITIES = {"eq", "ne", "equal", "not_equal"}  # by what frameworks call them, without underscores around


def absent_token(trial: Trial) -> str:
    """Say which token makes outputs differ, of those that no input has, or which ones do in place of which.

    Where none does, say it of tokens that stand beside themselves.
    """
    asked = [set(_asked(tape, [*arrays.values()])) for tape, arrays in zip(trial.tapes, trial.given, strict=True)]
    own = [[array for array in arrays.values() if token_ids(array)] for arrays in trial.given]
    rare = [{_rarest(array) for array in arrays} for arrays in own]
    if not own[0] or rare[0] != rare[1]:  # tokens of one side are counted from another number
        return ""
    for number in sorted(asked[0] ^ asked[1]):
        if apart := _difference(trial, dict.fromkeys(rare[0], number)):
            asks = f"for which the {SIDES[number in asked[1]]} model asks"
            return _named(trial, number, rare[0], asks, apart)
    return _other_tokens(trial, own[0], rare[0]) or _repeated(trial)


def _other_tokens(trial: Trial, own: Sequence[Array], rare: Collection[int]) -> str:
    """Say which tokens make outputs differ, of those that tables have rows for, or of larger ones without a table."""
    values = np.unique(np.concatenate([array.ravel() for array in own]))
    lengths = [n for program in trial.programs for n in _lengths(program, values)]
    length = min(lengths, default=LARGER * int(values.max()))
    if not (others := [number for number in range(length) if number not in values]):
        return ""
    some = [others[k] for k in np.linspace(0, len(others) - 1, len(values[::2])).astype(int)]  # the first, the last
    together = dict(zip(map(int, values[::2]), some, strict=True))
    if not (apart := _difference(trial, together)):
        return ""
    for number in dict.fromkeys(some):
        if one := _difference(trial, dict.fromkeys(rare, number)):
            return _named(trial, number, rare, _without(trial), one)
    exchanged, apart = _fewer(trial, together, apart)  # what makes the difference may be the tokens that are gone
    new, old = in_a_row(dict.fromkeys(exchanged.values())), in_a_row(exchanged)
    return f"{new} in place of {old}: with {'it' if len(exchanged) == 1 else 'these'} {differing(apart)}"


def _without(trial: Trial) -> str:
    """Say that no input has a number, of several inputs the one of integers: others have numbers of another kind."""
    integers = [(k, array) for k, array in enumerate(trial.given[0].values(), 1) if token_ids(array)]
    if len(integers) > 1 or len(trial.given[0]) == 1:
        return "which no input has"
    (k, array), *_ = integers
    return f"which input {k}, of shape {list(array.shape)}, does not have"


def _repeated(trial: Trial) -> str:
    """Say that outputs differ where tokens equal those before them; "" if inputs have such ones, or outputs agree.

    Where one side alone is given some tokens, these may be others at other places: nothing is tried then.
    """
    if lone_tokens(*trial.given) or any(
        (array[..., 1:] == array[..., :-1]).any() for array in trial.given[0].values() if token_ids(array)
    ):
        return ""
    apart = _apart(trial, lambda tokens: tokens[..., np.arange(tokens.shape[-1]) // 2 * 2])
    return f"tokens that equal those before them: with these, {differing(apart)}" if apart else ""


def _named(trial: Trial, number: int, rare: Collection[int], what: str, apart: float) -> str:
    """Say that outputs differ with a token in place of the rarest ones; say so of these if others do the same there."""
    tokens = np.concatenate([array.ravel() for array in trial.given[0].values() if token_ids(array)])
    each, counts = np.unique(tokens[~np.isin(tokens, [*rare])], return_counts=True)
    known = int(each[counts.argmax()])
    if not _difference(trial, dict.fromkeys(rare, known)):
        return f"{number}, {what}: with it {differing(apart)}"
    return f"{number} in place of {in_a_row(sorted(rare))}: with it {differing(apart)}"


def _fewer(trial: Trial, instead: Mapping[int, int], apart: float) -> tuple[Mapping[int, int], float]:
    """Halve the exchanges of tokens while those of one half alone make outputs differ; return how far they then do."""
    pairs, middle = [*instead.items()], len(instead) // 2
    for half in (dict(pairs[:middle]), dict(pairs[middle:])) if middle else ():
        if one := _difference(trial, half):
            return _fewer(trial, half, one)
    return instead, apart


def _difference(trial: Trial, instead: Mapping[int, int]) -> float:
    """Return how far outputs differ with other tokens in place of some; 0 where rounding may explain it."""
    return _apart(trial, lambda tokens: _exchanged(tokens, instead))


def _apart(trial: Trial, change: Callable[[Array], Array]) -> float:
    """Return how far outputs differ with changed tokens; 0 where rounding may explain it."""
    inputs = [
        {name: change(array) if token_ids(given[name]) else array for name, array in drawn.items()}
        for drawn, given in zip(fresh(*trial.given, SEED), trial.given, strict=True)
    ]
    return trial.apart(inputs, SEED)


def _exchanged(tokens: Array, instead: Mapping[int, int]) -> Array:
    return np.select([tokens == number for number in instead], [*instead.values()], tokens).astype(tokens.dtype)


def _lengths(program: Program, tokens: Array) -> Iterator[int]:
    """Yield the lengths of tables of which tokens, these values, pick rows."""
    weights = program.weights
    for node in program.tape.nodes:
        if node.kind != "layout" or len(node.inputs) != 2 or node.inputs[0] not in weights:
            continue
        index, shape = program.indices.get(node.inputs[1]), program.shapes[node.inputs[0]]
        if index is None or not shape or not np.array_equal(np.unique(index), tokens):
            continue
        rows = np.arange(float(shape[0])).reshape(-1, *[1] * (len(shape) - 1))
        if np.array_equal(np.unique(node.run(np.broadcast_to(rows, shape), index)), tokens):
            yield shape[0]


def _asked(tape: Tape, inputs: Sequence[Array]) -> Iterator[int]:
    """Yield the numbers for which code asks in tokens, be these moved or cast, and which they do not have."""
    known = {number: array for number, array in zip(tape.inputs, inputs, strict=True) if token_ids(array)}
    for node in tape.live().nodes if known else ():
        slots = [slot for slot, number in enumerate(node.inputs) if number in known]
        if len(slots) != 1:
            continue
        values = known[node.inputs[slots[0]]]
        if node.name.strip("_") in EQUALITIES:
            yield from (number for number in compared_numbers(tape, node) if number not in values)
        elif len(node.inputs) == 1:
            moved = np.asarray(node.run(values))
            if moved.dtype.kind in "iu" and np.isin(moved, values).all():
                known[node.output] = moved


def compared_numbers(tape: Tape, node: Node) -> Iterator[int]:
    """Yield the whole number with which an operation compares, be it a setting or an operand."""
    numbers = [*(node.call.settings.values() if node.call else ()), *map(tape.constants.get, node.inputs)]
    for number in numbers:
        if number is not None and np.size(number) == 1 and np.asarray(number).dtype.kind in "iu":
            yield int(np.asarray(number).item())


def _rarest(tokens: Array) -> int:
    """Return the token that an input has least often, the smallest of these."""
    each, counts = np.unique(tokens, return_counts=True)
    return int(each[counts.argmin()])
