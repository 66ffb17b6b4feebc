"""Join what a file stores of an optimizer with what its user states by --hyper.

One rule for all hyperparameters: what the state shows (its kind, its steps, paddle's betas) cannot be stated otherwise,
as its moments would be another optimizer's. What every run sets anew (a rate, a decay) can, which is reported and
recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from convert.config.conventions import same
from convert.errors import UsageError
from convert.reading.families import FAMILIES, HYPERPARAMETERS, KEEPS, KINDS, MOMENTS, NEEDED, PADDLE, Names, kinds_of
from specs.numbers import exact
from specs.words import in_a_row

from .state import KIND, Group, State, range_of

WHOSE_RECORD = "the record of a checkpoint of the same training does"
RECORD = "--config FILE takes all but lr from the record of a checkpoint of the same training"
ALIKE = {  # others whose arrays have the same names, by family and library
    "adam": Names("LAMB, NAdam, RAdam, AdaBelief, Yogi or Adamax", "", "Lamb"),
    "sgd": Names("LARS", "LARS", "LarsMomentum"),
}
KINDS_OF = {"adam": ("Adam", "AdamW"), "sgd": ("SGD",)}  # as users call those that are converted, by family
# What a target cannot be written without, by its suffix, and why.
NEEDS = {
    **dict.fromkeys(PADDLE, (("beta1", "beta2"), "paddle counts steps by their powers")),
    ".dcp": (tuple(HYPERPARAMETERS), "dcp.load asks a .dcp for all of them"),
}


def settled(path: str, state: State, stated: Mapping[str, Any], suffix: str, remedy: str = RECORD) -> State:
    """Return a state with the hyperparameters that the user states beside those that its file stores.

    Args:
      path: of the state's file, for messages. suffix: of the target. remedy: what else would state hyperparameters.
    Raises: UsageError for what contradicts the state, and for what the target needs and nobody states.
    """
    _check_family(path, state, stated)
    kind = state.hyper.get("kind")
    if kind is not None and stated.get("kind", kind) != kind:
        raise UsageError(f"{path}: the file says that its optimizer is {kind}: kind={stated['kind']} contradicts it")
    changed = contradicted(state.hyper, stated)
    groups, values = _regrouped(state, stated)
    changed |= values
    notes = [
        f"{name}={exact(stated[name])} as you state; the file has {spelt(value)}" for name, value in changed.items()
    ]
    if "kind" in stated and (kind is None or KIND in state.assumed):
        others = ALIKE[state.family].of(state.library)
        named = in_a_row([*KINDS_OF[state.family], *filter(None, others.replace(" or ", ", ").split(", "))])
        notes.append(f"kind={stated['kind']} as you state, not checkable: {named} keep arrays of the same names")
        state = replace(state, assumed=tuple(dict.fromkeys([*state.assumed, KIND])))
    hyper = {**state.hyper, **{name: value for name, value in stated.items() if name != "step"}}
    _check_range(path, hyper)
    if open_ := _open(state, hyper, suffix, remedy):
        raise UsageError(f"{path}: {state.library}'s state does not say {open_}")
    return replace(
        state, hyper=hyper, changed={**state.changed, **changed}, groups=groups, notes=(*notes, *state.notes)
    )


def _open(state: State, hyper: Mapping[str, Any], suffix: str, remedy: str) -> str:
    """Say what the target needs and nobody states, with the options that do; "" where there is nothing."""
    names, why = NEEDS.get(suffix, ((), ""))
    missing = [name for name in NEEDED[state.family] if name not in hyper]
    needed = [name for name in missing if name in names]
    parts = []
    if "kind" not in hyper:
        parts.append(open_kind(state.library))
    if needed:
        parts.append(f"{in_a_row(needed)}: {options(needed)}, as {why}")
    if not parts:
        return ""
    others = [name for name in missing if name not in needed]
    return "; nor ".join(parts) + (f"; {in_a_row(others)} may stay open" if others else "") + f" ({remedy})"


def _check_range(path: str, hyper: Mapping[str, Any]) -> None:
    """Check that hyperparameters are such as an optimizer takes. Raises: UsageError."""
    for name, value in hyper.items():
        limits, end = range_of(name)
        if name in HYPERPARAMETERS and not 0 <= value < end:
            remedy = f"a file that has it is damaged, and {options([name])} states another"
            raise UsageError(f"{path}: {name}={exact(value)}, and {name} is {limits}: {remedy}")


def open_kind(library: str) -> str:
    """Say what else the arrays of Adam's family may be, as what follows "the state does not say"."""
    other = ALIKE["adam"].of(library)
    alike = f" (that of {other}, whose arrays have the same names, is not converted)" if other else ""
    return f"whether it is Adam's or AdamW's: --hyper kind=adam or kind=adamw{alike}"


def options(names: Sequence[str]) -> str:
    """Spell the options that state hyperparameters."""
    return " ".join(f"--hyper {name}=..." for name in names)


def unstated(state: State) -> list[str]:
    """Return in what torch's groups still differ."""
    return sorted({key for group in state.groups for key in group.values})


def _regrouped(state: State, stated: Mapping[str, Any]) -> tuple[tuple[Group, ...], dict[str, Any]]:
    """Return groups without what the user states for all, and what they have of it."""
    names = {HYPERPARAMETERS[name].torch: name for name in stated if name in HYPERPARAMETERS and "beta" not in name}
    keys = [key for key in unstated(state) if key in names]
    groups = tuple(
        group._replace(values={key: value for key, value in group.values.items() if key not in keys})
        for group in state.groups
    )
    every = {names[key]: [group.values.get(key) for group in state.groups] for key in keys}
    return groups if any(group.values for group in groups) else (), every


def contradicted(known: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known values of those hyperparameters that the user states otherwise."""
    return {name: known[name] for name, value in stated.items() if name in known and not same(known[name], value)}


def spelt(value: Any) -> str:
    """Spell a value, or the values of several groups: "0.05 and 0"."""
    return " and ".join(map(exact, value)) if isinstance(value, list) else exact(value)


def _check_family(path: str, state: State, stated: Mapping[str, Any]) -> None:
    """Check that all that is stated is of the family that keeps the file's arrays. Raises: UsageError."""
    arrays = ", ".join(MOMENTS[slot].of(state.library) for slot in FAMILIES[state.family])
    holds = f"{path}: the state holds {KEEPS[state.family].of(state.library)} ({arrays})"
    kind = stated.get("kind")
    if kind is not None and KINDS[kind] != state.family:
        raise UsageError(f"{holds}: kind={kind} contradicts it")
    for name in stated.keys() - {"kind", "step", *NEEDED[state.family]}:
        raise UsageError(f"{holds}: {name} is no hyperparameter of {kinds_of(state.family)}")
