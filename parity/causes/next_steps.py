"""Say what to do next about a divergence, as docs/parity.md advises."""

from __future__ import annotations

import math
import shlex

from convert.errors import called, command_or_call
from parity.given.module_names import STACKED
from parity.given.own import INSIDE, OWN
from parity.given.quoting import INPUT, place, unmarked
from parity.results.guesses import ACTIVATION, EPSILON
from parity.results.result import Divergence, Result
from parity.results.tolerance import WEIGHTS_RTOL
from ports.runners.inputs import OUTPUT
from specs.notation.paths import pattern
from specs.numbers import limit

# What to look for where an array differs in a check that has no finer one.
LOOK = {
    "gradients": "look for a detached tensor, a rounded constant or a custom backward pass",
    "train": "look at epsilon and weight decay of the optimizer, momentum of BatchNorm, layers in evaluation mode",
}
# What names a place inside layers that are not compared one by one.
SMALL_MODELS = "; layers that a note names were not compared: parity.derive on small models of this code looks inside"
# What to do where both models compute with settings that are known, by what these are of.
SAME = {EPSILON: "set the same epsilon in both models", ACTIVATION: "use the same activation in both models"}


def reassurance(result: Result, exact: str) -> str:
    """Say what an error close to its limit means, and how to be sure.

    Args:
      exact: the error of the same comparison in float64, where it agrees; "" if it was not compared.
    """
    if result.dtype != "float64" and exact:
        return f"It agrees, and in float64 as well, with an error of {exact}: this is rounding."
    if result.dtype != "float64":
        return (
            f"It agrees. Equal models stay below about half of their limits in {result.dtype}: compare in float64, "
            "which tells rounding from a difference."
        )
    fewer = command_or_call("--steps 2", "steps=2")
    sure = (
        f"if gradients agree far below theirs, training amplifies rounding, and fewer steps ({fewer}) or a larger "
        "batch bring the error down"
        if result.check == "train"
        else "if it grows from array to array, rounding adds up; if it appears at one array, look at what computes that"
    )
    return f"It agrees, but rounding alone usually stays a hundred times below the limit: {sure}."


def following(result: Result, first: Divergence, exact: bool, inferred: bool) -> str:
    """Return the next step after a divergence.

    Args:
      exact: whether the same comparison agrees in float64.
      inferred: whether what the models return in evaluation mode agrees.
    """
    return _of_cause(result, first, exact) or _of_arrays(first) or _of_place(result, first, inferred)


def _of_cause(result: Result, first: Divergence, exact: bool) -> str:
    """Say what to do about a cause that is known; "" for none."""
    if first.holds and not result.weights:
        return "look where this array gets its values: a checkpoint, a training that diverged, or an initializer"
    if result.weights or (first.of_weights and result.architecture == OWN and not result.files):
        rounded = result.weights.rounded if result.weights else ""
        restore = f"restore {rounded} in float64 (JAX needs jax_enable_x64 before it reads a checkpoint)"
        copy = "parity.transfer copies those of the left model"
        return f"give both models the same weights, and compare again: {restore if rounded else copy}"
    if first.of_weights:
        compare = f"{called('convert diff')} {_checkpoints(result)}"
        return f"its weights differ: compare the checkpoints ({compare}), or how each was loaded"
    if "feature_maps" in first.guess:
        return "list these modules in feature_maps of the page: the models agree"
    if first.guess:
        do = SAME.get(first.guess.what, "make both models the same in this")
        return f"{do}, and compare again"
    if exact:
        return (
            f"the models are the same in float64; look for what computes less exactly in {result.dtype}: TF32, "
            "a fast variance, a sum in half precision"
        )
    return ""


def _of_arrays(first: Divergence) -> str:
    """Say what to do about an array that has none to be compared with; "" where it has one."""
    if first.worst.cause.startswith("shapes differ"):
        return f"look at what computes {first}: its shapes differ"
    if first.worst.cause.startswith("only ") and first.partition(":")[0] == OUTPUT:
        return "let both models return arrays under the same names: a dict or a dataclass on both sides, or on none"
    if first.worst.word in ("not called", "fewer calls", "extra call", "missing"):
        if "where the page has no layer" in first.worst.cause:
            return "leave this module out, as with None in place of an Identity, or let every port call it"
        if "#" in first:
            return "let both models call this module equally often: two modules in one model are two paths in the page"
        listed = ", or take it out of feature_maps" if "feature_maps" in first.worst.cause else ""
        return f"let both models call this module{listed}"
    return ""


def _of_place(result: Result, first: Divergence, inferred: bool) -> str:
    """Say where to look for a cause that is not known, by what differs and what does not."""
    if not math.isfinite(first.error) and first.starts:
        return f"look where it begins: {first.starts}"
    if not math.isfinite(first.error) and not first.place:
        return f"look at {first} and its inputs, on the side that is not finite"
    if result.architecture == OWN and result.check == "layers" and len(first.between) == 2:
        return _named(first)
    if first.place:
        ahead = f"inputs ahead of {unmarked(place(first))}"
        after = ahead if first.previous is None else f"output of {first.previous[0].partition(INPUT)[0]}"
        if first.partition(":")[0] == OUTPUT and first.previous is not None:
            return f"look at what is done to the {after} before it is returned"
        stacked = any(reason in result.cause for reason in (STACKED, INSIDE))
        return f"look at what is done to the {after}{SMALL_MODELS * stacked}"
    if first.momentum:
        return (
            f"set the same momentum of BatchNorm in both models, which keep other shares of the old: {first.momentum}"
        )
    if first.returned and inferred:
        return (
            "what the models return differs in training mode alone: look for layers that stay in evaluation mode, or "
            "whose statistics of a batch differ"
        )
    if first.returned:
        return "what the models return differs already: compare layer by layer first (check layers)"
    if first.pooling:
        return (
            f"look for AvgPool2D or AdaptiveAvgPool2D in {first.pooling}: paddle rounds 1/n to float32 in their "
            f"backward pass (CONVENTIONS.md), and mean is exact; else {LOOK[result.check]}"
        )
    if result.check in LOOK:
        return LOOK[result.check]
    if result.check == "forward":
        return "compare layer by layer (check layers)"
    if result.check == "layers" and first.previous is not None and first.previous[1] == 0:
        return f"look at the code of {first}, and at its weights: the layer before it is equal to the last bit"
    if result.check == "layers":
        return "give each layer the same input (check single-step): if none differs then, the cause is between layers"
    return f"look at the code of {first}: it had the same input on both sides"


def _named(first: Divergence) -> str:
    """Say how to pair modules by other names, where each side has some ahead of what differs that the other lacks."""
    (label, (one, *_)), (_, (other, *_)) = first.between
    both = "these two"
    if pattern(one).count("#") == pattern(other).count("#") > 0:
        one, other, both = pattern(one), pattern(other), "these two of every block"
    pair = f"names={{{label!r}: {{{one!r}: {other!r}}}}}"
    return (
        f"compare the modules in between, too: {pair} pairs {both} if they are one layer, and "
        "names=parity.derive(...) pairs all by their values"
    )


def _checkpoints(result: Result) -> str:
    """Spell the arguments of `convert diff` for the checkpoints of both models: "A B" where they have no two."""
    if len({*zip(result.files, result.parts, strict=False)}) < 2:
        return "A B"
    chosen = [word for part in result.parts for word in ("--weights", part or "/")] if any(result.parts) else []
    return shlex.join([*result.files, *chosen, "--rtol", limit(WEIGHTS_RTOL)])
