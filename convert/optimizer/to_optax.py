"""Lay out the state of an optax optimizer, with the weights in it."""

from __future__ import annotations

from typing import Any

from convert import folding
from convert.errors import ConvertError
from convert.reading.families import CLASSES, FAMILIES, MOMENTS, STATE, nest
from specs.words import count

from .builder import Builder, Model, Written, built, stateless
from .shared import put
from .state import State


def check_steps(path: str, state: State) -> None:
    """Check that all parameters were updated equally often. Raises: ConvertError with the names and a way on."""
    if not state.steps:
        return
    groups: dict[int, list[str]] = {}
    for name, steps in state.steps.items():
        groups.setdefault(steps, []).append(name)
    each = [f"{count(steps, 'time')} {folding.listed(names)}" for steps, names in sorted(groups.items())]
    what = "its parameters were updated differently often, and optax has one count of steps for all"
    remedy = f"--hyper step={max(groups)} counts all alike, which changes the next updates of the others"
    raise ConvertError(f"{path}: {what}: {remedy}; torch and paddle count each parameter's", each)


def write_optax(state: State, model: Model) -> Written:
    """Lay out what flax's TrainState is restored from: step, params, opt_state, and linen's other collections."""
    kind = state.kind
    if state.step is not None and state.step >= 2**31:
        raise ConvertError(f"{model.path}: {state.step:,} steps: optax counts them in int32")
    builder = Builder(model)
    inside = any(tensor.name.startswith("params/") for tensor, _ in model.weights)
    tree: dict[str, Any] = {}
    tree["step"] = builder.number("step", state.step or 0, "int32")
    for step in model.weights:
        name = step[0].name if inside else f"params/{step[0].name}"
        put(tree, name, builder.weight(step, name))
    chain = nest(kind, state.hyper)
    path = _path(chain)
    for slot in FAMILIES[state.family]:
        for weight in model.trained:
            name = f"opt_state/{path}/{MOMENTS[slot].optax}/{weight.removeprefix('params/')}"
            put(tree, name, builder.moment(slot, weight, name))
    if state.family == "adam":
        name = f"opt_state/{path}/count"
        put(tree, name, builder.number(name, state.step or 0, "int32"))
    tree["opt_state"] = _with_empty(chain, tree["opt_state"])
    nested = "weight_decay" not in state.hyper and kind != "adamw"
    notes = [built(state, "optax") + ("; the state is nested as without weight decay" if nested else "")]
    notes += stateless(model, _zeros(state))
    if state.step is None:
        last = state.scheduler.get("last_epoch")
        value = f"{last}, if its scheduler counted steps" if type(last) is int and last > 0 else "..."
        uncounted = f"{CLASSES[kind].of(state.library)} does not count its steps"
        notes.append(f"{uncounted}: the TrainState's step is 0 (--hyper step={value})")
    place, more = _optax_averages(builder, tree, inside) if model.averages else ("", [])
    return builder.written(tree, [*notes, *more], place)


def _zeros(state: State) -> str:
    """Say what zeros of weights without a state come to, where optax has one count of steps for all."""
    if state.family == "sgd" or not state.step:
        return "so zeros, as of a new optimizer"
    counted = count(state.step, "step")
    return f"so zeros, counted as after {counted} like all others: their first updates are not a new optimizer's"


def _optax_averages(builder: Builder, tree: dict[str, Any], inside: bool) -> tuple[str, list[str]]:
    """Add the averages as fields of the TrainState: ema_params, and ema_batch_stats of those that the source averages.

    Sums of optax.ema stay what they are. Returns: the place, and what the user should know of it.
    """
    averages = builder.model.averages
    assert averages is not None
    steps = [step for step in averages.steps if step[0].name not in averages.shared]
    if averages.from_zero:
        for step in steps:
            name = f"ema_state/ema/{step[0].name.removeprefix('params/')}"
            put(tree, name, builder.average(step, name))
        put(tree, "ema_state/count", builder.number("ema_state/count", averages.count or 0, "int32"))
        return "ema_state", ["the TrainState needs a field ema_state, as optax.ema(decay).init(params) returns it"]
    for step in steps:
        name = f"ema_{'' if inside else 'params/'}{step[0].name}"
        put(tree, name, builder.average(step, name))
    fields = [key for key in tree if key.startswith("ema_")]
    notes = [f"the TrainState needs {'a field' if len(fields) == 1 else 'fields'} {' and '.join(fields)}"]
    if averages.count is not None:
        notes.append(
            f"{averages.place}: its count of {averages.count:,} averages goes into the record, as ema_params has none"
        )
    return ", ".join(fields), notes


def _path(chain: Any) -> str:
    """Tell where in a chain the state lies that holds arrays."""
    key, inner = next((key, inner) for key, inner in chain.items() if inner)
    return str(key) if inner == STATE else f"{key}/{_path(inner)}"


def _with_empty(chain: Any, tree: Any) -> Any:
    """Return the state of a chain, a tuple, with its parts that hold nothing."""
    return tuple(
        tree[key] if inner == STATE else _with_empty(inner, tree[key]) if inner else {} for key, inner in chain.items()
    )
