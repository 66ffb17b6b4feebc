"""Lay out the state_dict of a paddle.optimizer, with the weights beside it or alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from convert.errors import UsageError, option, saved
from convert.files.base import Tensor
from convert.reading.families import FAMILIES, MOMENTS
from specs.words import in_a_row

from .builder import AVERAGES, ZEROS, Builder, Model, Written, built, from_zero, shared, stateless
from .like import NEW
from .powers import power
from .state import ENTRY, State

ALONE = "a .pdopt has no weights{}: convert once more with {} -o x.pdparams, for them or for both in one file"


def write_paddle(state: State, model: Model, alone: bool) -> Written:
    """Lay out {"model": ..., "optimizer": ...} as paddle.save nests it, or with `alone`, a .pdopt."""
    unnamed = [name for name in model.trained if name not in model.own]
    if unnamed:
        raise UsageError(
            f"{model.path}: paddle finds moments by its own names of parameters (linear_0.w_0): "
            f"save a new model by {saved('paddle', NEW)} and give --like {NEW}.pdparams"
        )
    builder = Builder(model)
    weights: dict[str, Any] = {}
    if not alone:
        for step in model.weights:
            name = step[0].name
            weights[name] = (model.own.get(name, name), builder.weight(step, f"model/{name}"))
    arrays = dict(_paddle_arrays(builder, state, "" if alone else "optimizer/"))
    scheduler = {ENTRY: _scheduler(state)} if state.scheduler else {}
    notes = [built(state, "paddle")]
    notes += stateless(model, ZEROS)
    notes += _later_names(model)
    if alone:
        average = f" and no average ({model.averages.place})" if model.averages else ""
        left = ALONE.format(average, option("like", "new.pdparams"))
        return builder.written({**arrays, **scheduler}, [left, *notes])
    tree: dict[str, Any] = {
        "model": weights,
        "optimizer": {**{key: (key, t) for key, t in arrays.items()}, **scheduler},
    }
    if (averages := model.averages) is None or averages.from_zero:
        return builder.written(tree, [*notes, *from_zero(averages)])
    copy = tree[AVERAGES] = {}
    for step in averages.steps:
        copy[step[0].name] = (step[0].name, builder.average(step, f"{AVERAGES}/{step[0].name}"))
    if averages.count is not None:
        notes.append(
            f"{averages.place}: its count of {averages.count:,} averages goes into the record, as {AVERAGES} has none"
        )
    return builder.written(tree, [*notes, *shared(averages)], AVERAGES)


def _scheduler(state: State) -> dict[str, Any]:
    """Return the entry of paddle's scheduler, with the rate that the user states."""
    rate = {"last_lr": state.hyper["lr"]} if "last_lr" in state.scheduler and "lr" in state.hyper else {}
    return {**state.scheduler, **rate}


def _later_names(model: Model) -> list[str]:
    """Say where paddle's names are not those of the first model that a program builds."""
    first: dict[str, int] = {}
    for weight in model.trained:
        if match := re.fullmatch(r"(\w+?)_(\d+)\.\w+", model.own[weight]):
            first[match[1]] = min(int(match[2]), first.get(match[1], int(match[2])))
    later = [f"{kind}_{number}" for kind, number in first.items() if number]
    if not later:
        return []
    how = "paddle counts the layers of a program: build as many before the model as the program that wrote the file did"
    return [f"{option('like')} names layers from {in_a_row(later)} on, not from 0: {how}"]


def _paddle_arrays(builder: Builder, state: State, folder: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of a paddle.optimizer by their names.

    It asks for those of every parameter that it trains: one without a state in the source is at step 0.
    """
    model = builder.model
    for slot in FAMILIES[state.family]:
        for weight in model.trained:
            key = f"{model.own[weight]}_{MOMENTS[slot].paddle}_0"
            yield key, builder.moment(slot, weight, folder + key)
    betas = ("beta1", "beta2") if state.family == "adam" else ()
    for beta in betas:
        assert state.step is not None
        for weight in model.trained:
            key = f"{model.own[weight]}_{beta}_pow_acc_0"
            dtype = "float64" if model.dtypes["first", weight] == "float64" else "float32"
            steps = model.steps.get(weight, state.step) if model.has_state(weight) else 0
            yield key, builder.number(folder + key, power(float(state.hyper[beta]), steps, dtype), dtype, (1,))
