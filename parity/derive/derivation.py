"""From two models to a proven Table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from convert.errors import UsageError
from .call import Call
from .complete import complete
from .fold import Facts, fold
from .match import EXACT, Match, match
from .prove import OUTPUT, Proof, prove
from .rows import DerivedTable, Row, constant, dropped
from .sides import Side, draw, fresh, layouts, side
from .walk import Elements, Program

SEED = 7
MAX_LAYOUTS = 8  # axis orders of the input that are tried


class Divergence(NamedTuple):
    """A place where the sides' values part.

    Args:
      left, right: paths of the modules.
      size: the relative difference of what is seen there.
    """

    left: str
    right: str
    size: float
    cause: str = ""


@dataclass(frozen=True)
class Derivation:
    """A Table and what supports it.

    Args:
      proven: outputs and gradients agree in float64 on weights and inputs that were not used to find the table.
      error: the relative error of the outputs there, as the models compute them.
      divergences: where the models part, the first one first.
      unobservable: left parameters on which no output depends: their place follows the pattern of their siblings.
      missing: right parameters for which nothing was found.
      failure: why the matching stopped, "" if it did not.
      seconds: what it took.
      inferred: right parameters of which all or some elements follow a pattern or a name, since nothing reads them.
    """

    table: DerivedTable
    proven: bool
    error: float
    divergences: list[Divergence]
    unobservable: list[str]
    missing: list[str]
    failure: str
    seconds: float
    inferred: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "table": self.table.print(),
            "proven": self.proven,
            "error": self.error if np.isfinite(self.error) else None,
            "divergences": [divergence._asdict() for divergence in self.divergences],
            "unobservable": self.unobservable,
            "inferred": self.inferred,
            "missing": self.missing,
            "failure": self.failure,
            "seconds": self.seconds,
        }


def derive(left: Any, right: Any, inputs: Any, right_inputs: Any = None, seconds: float = 60) -> Derivation:
    """Find the translation of the left model's parameters into the right one's.

    Both models' own code is run, in evaluation mode.

    Args:
      left, right: torch module, paddle layer, nnx module, bound linen module, (linen module, variables), or (function,
        parameters) of JAX.
      inputs: a tuple of positional arguments, a single array, or a Call.
      right_inputs: the same for the right side; without it the left ones, in the axis order that fits.
      seconds: the time for matching; then the deepest attempt is returned.
    Raises: UsageError for what is no model or cannot be called.
    """
    start = time.monotonic()
    a = side(left, _call(inputs))
    weights = draw(a, SEED)
    given = a.call.arrays()
    tape = a.record(weights, given)
    program = Program(tape, weights, list(given.values()))
    lefts = Elements(weights, known=True)
    best: tuple[Match, Side, Any] | None = None
    problems = []
    for call in _calls(a.call, right_inputs):
        b = side(right, call)
        others = fresh(given, call.arrays(), None)[1]
        try:
            other = b.record(b.parameters, others)
            target = Program(other, b.parameters, list(others.values()))
        except Exception as error:  # the user's code may raise anything
            if right_inputs is not None:
                raise
            problems.append(f"{[tuple(v.shape) for v in others.values()]}: {type(error).__name__}: {error}")
            continue
        found = match(program, target, lefts, b.parameters, seconds - (time.monotonic() - start))
        if best is None or (not found.failure, len(found.steps)) > (not best[0].failure, len(best[0].steps)):
            best = (found, b, other)
        if not found.failure:
            break
    if best is None:
        raise UsageError("the right model runs with no axis order of the input", *problems[:1])
    found, b, other = best
    rights = Elements(b.parameters, known=False)
    mapped, inferred = complete(found.map, lefts, rights)
    facts = Facts(lefts, rights, mapped, found.plus, (a.framework, b.framework), (a.ties, b.ties), _shapes(a, b), _extra(a, b))
    table, missing = fold(facts)
    proof = prove(a, b, (tape, other), table, mapped, lefts, rights, found.plus)
    proven = proof.holds and not missing and not found.failure
    table = _commented(table, proof, proven, inferred)
    return Derivation(
        table, proven, proof.error, _divergences(found, proof), proof.unobservable, list(missing), found.failure,
        time.monotonic() - start, inferred,
    )  # fmt: skip


def _commented(table: DerivedTable, proof: Proof, proven: bool, inferred: list[str]) -> DerivedTable:
    """The table with what supports it above its first line."""
    if not table.lines:
        return table
    if proven:
        gradients = (
            f", no gradients ({proof.remark})" if proof.gradient is None else f", gradients to {proof.gradient:.0e}"
        )
        words = f"# derived and proven: outputs agree to {proof.exact:.0e}{gradients}, in float64 on two other draws"
    else:
        words = f"# derived, not proven: outputs differ by {proof.error:.0e}"
    comments = [words]
    if table.sizes:
        sizes = " ".join(f"{name}={length}" for name, length in table.sizes.items())
        comments.append(f"# lengths in the models that it was derived from: {sizes}")
    comments += [f"# inferred, since no value shows all of it: {name}" for name in inferred]
    return replace(table, lines=(replace(table.lines[0], above=tuple(comments)), *table.lines[1:]))


def _call(inputs: Any) -> Call:
    if isinstance(inputs, Call):
        return inputs
    return Call(*inputs) if isinstance(inputs, tuple) else Call(inputs)


def _calls(call: Call, right_inputs: Any) -> Iterator[Call]:
    """How the right side may be called."""
    if right_inputs is not None:
        yield _call(right_inputs)
    elif len(call.args) == 1 and not call.kwargs and hasattr(call.args[0], "shape"):
        for array in list(layouts(np.asarray(call.args[0])))[:MAX_LAYOUTS]:
            yield Call(array, method=call.method, output=call.output)
    else:
        yield call


def _extra(a: Side, b: Side) -> list[Row]:
    """Lines for arrays that are no parameters."""
    rows = [dropped(name, 0) for name in a.others]
    for name, array in b.others.items():
        value = f"{array.flat[0]} {array.dtype}" if _uniform(array) else ""
        rows.append(constant(name, array.ndim, value) if value else dropped(name, 1))
    return rows


def _uniform(array: Any) -> bool:
    return bool(array.dtype.kind in "iu" and array.size and (array == array.flat[0]).all())


def _shapes(a: Side, b: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {name: np.shape(array) for name, array in a.others.items()},
        {name: np.shape(array) for name, array in b.others.items() if _uniform(array)},
    )


def _divergences(found: Match, proof: Proof) -> list[Divergence]:
    """Each place where values part by ten times more than before it."""
    divergences: list[Divergence] = []
    worst = EXACT
    for step in found.steps:
        if step.gap > 10 * worst:
            worst = step.gap
            divergences.append(Divergence(step.left_site, step.right_site, step.gap))
    if proof.exact <= OUTPUT < proof.error:
        divergences.append(Divergence("", "", proof.error, "one side computes partly in float32"))
    elif proof.exact > OUTPUT and not divergences:
        divergences.append(Divergence("output", "output", proof.exact))
    return divergences
