"""Lay out the state_dict of a torch.optim optimizer, with the weights beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convert import folding
from convert.arrays.counters import COUNTER
from convert.documents import document
from convert.errors import ConvertError
from convert.files.base import Tensor
from convert.reading.families import BUFFER, FAMILIES, MOMENTS, NEEDED, call
from specs.numbers import exact
from specs.words import in_a_row

from .averages import Averages
from .builder import (
    AT_FIRST,
    AVERAGES,
    ZEROS,
    Builder,
    Model,
    Written,
    from_zero,
    missing_of,
    shared,
    stateless,
)
from .settling import options
from .state import NO_INITIAL, State

NAMED = 2  # folded names of a group that a note lists: the file has all of them, as param_names
# Torch stores betas as a pair, and takes a missing nesterov for False: no step would fail.
BESIDE = {"beta1": "beta2", "beta2": "beta1", "momentum": "nesterov"}
MAX_FLOAT32 = 2**24  # the first count that torch's float32 would round
AVERAGED = "the average is the state of a torch.optim.swa_utils.AveragedModel: {}"
UNCOUNTED = (
    "the source does not count its averages: load the average into an AveragedModel by {} and "
    "averaged.n_averaged.fill_(N), or state --hyper averaged=N, as at a count of 0 the next update copies the weights: "
    "N=1 serves a decay (EMA); an equal average (SWA) needs the number of models in it"
)
BUFFERED = (
    "the average has running statistics, as {}: if the training averages them, as one over state_dict() does, build "
    "AveragedModel(..., use_buffers=True), which else copies the model's own at each update"
)
LISTED = (
    "the target's group lists these, too, as the source does not say whether its optimizer trains them: an optimizer "
    "over the others alone is loaded as {} shows, Groups of parameters in torch"
)
LACKING = "Hyperparameters that a file lacks"  # a heading of docs/training.md
DISTRIBUTED = "optim"  # where torch's own examples of distributed checkpoints keep the state
DCP_LOAD = (
    "model_state, state = get_state_dict(model, optimizer), dcp.load({'model': model_state, 'optim': state}, "
    "checkpoint_id=...) and set_state_dict, of torch.distributed.checkpoint.state_dict"
)


def write_torch(state: State, model: Model, distributed: bool = False) -> Written:
    """Lay out {"model": state_dict, "optimizer": state_dict}, as torch.save writes training checkpoints.

    Args:
      distributed: lay out {"model": ..., "optim": ...} of torch.distributed.checkpoint.state_dict.get_state_dict, which
        names parameters and does not number them.
    """
    if state.step is not None and state.step >= MAX_FLOAT32:
        raise ConvertError(f"{model.path}: {state.step:,} steps: torch counts them in float32, which would round that")
    builder, root = Builder(model), DISTRIBUTED if distributed else "optimizer"
    weights = {step[0].name: builder.weight(step, f"model/{step[0].name}") for step in model.weights}
    keys: list[int | str] = [*model.trained] if distributed else list(range(len(model.trained)))
    states = _states(builder, state, keys, root)
    key_of = dict(zip(model.trained, keys, strict=True))
    groups = [
        {**_group(state, values), "params": [key_of[weight] for weight in weights], "param_names": list(weights)}
        for weights, values in model.groups or [(model.trained, {})]
    ]
    rates = state.initial if model.groups else state.initial[:1] if len(set(state.initial)) == 1 else ()
    notes = [f"load it by {DCP_LOAD}"] if distributed else []
    notes += stateless(model, ZEROS if distributed else AT_FIRST)
    if model.without and state.library != "torch" and not distributed:
        notes.append(LISTED.format(document("training")))
    if rates:
        own: list[dict[str, Any]] = [{} if rate is None else {"initial_lr": rate} for rate in rates]
        groups = [{**group, **rate} for group, rate in zip(groups, own, strict=True)]
    elif state.initial:
        notes.append(NO_INITIAL)
    if left := missing_of(state):
        notes += _lacking(state, left)
    else:
        unlike = {key for _, values in model.groups for key in values}
        notes.append(f"the state is that of {call(state.kind, 'torch', state.hyper, unlike)}")
        notes += _about_groups(model.groups)
    if state.switches:
        switches = " ".join(f"{name}=True" for name in state.switches)
        notes.append(f"set aside, how torch computed its steps: {switches}: set it in param_groups after loading")
    tree: dict[str, Any] = {"model": weights, root: {"state": states, "param_groups": groups}}
    if (averages := model.averages) is None or averages.from_zero:
        return builder.written(tree, [*notes, *from_zero(averages)])
    tree[AVERAGES] = _averages(builder, averages)
    return builder.written(tree, [*notes, *_about_average(averages, distributed), *shared(averages)], AVERAGES)


def _lacking(state: State, names: Sequence[str]) -> list[str]:
    """Say which hyperparameters nobody states, what states them, and how the file is loaded without them."""
    what = f"{state.library}'s state does not say {in_a_row(names)}: {options(names)}"
    why = f"torch's first step fails without {'it' if len(names) == 1 else 'them'}"
    alone = [
        f"{name}={exact(state.hyper[name])} is in the record alone, "
        f"as a file of torch has {name} only together with {other}"
        for name, other in _unpaired(state).items()
    ]
    return [f"{what}, or load the file as {document('training')} shows, {LACKING}: {why}", *alone]


def _unpaired(state: State) -> dict[str, str]:
    """Return {hyperparameter that torch's group cannot have: the missing one that it needs beside it}."""
    return {name: other for name, other in BESIDE.items() if name in state.hyper and other not in state.hyper}


def _states(builder: Builder, state: State, keys: Sequence[int | str], root: str) -> dict[int | str, dict[str, Tensor]]:
    """Lay out the state of each parameter that has one; of all of them for torch.distributed.checkpoint."""
    model = builder.model
    states: dict[int | str, dict[str, Tensor]] = {}
    for number, weight in zip(keys, model.trained, strict=True):
        stored = model.has_state(weight)
        if not stored and root != DISTRIBUTED:
            continue
        base = f"{root}/state/{number}"
        states[number] = {}
        if state.family == "adam":
            assert state.step is not None
            count = model.steps.get(weight, state.step)
            states[number]["step"] = builder.number(f"{base}/step", count if stored else 0, "float32")
        for slot in FAMILIES[state.family]:
            key = MOMENTS[slot].torch
            states[number][key] = builder.moment(slot, weight, f"{base}/{key}")
    return states


def _about_average(averages: Averages, distributed: bool) -> list[str]:
    """Say how torch loads an average of the weights, and goes on with it: dcp.load fills tensors that are there."""
    how, into = (UNCOUNTED, "averaged.module") if averages.count is None else (AVERAGED, "averaged")
    load = f'{into}.load_state_dict(saved["{AVERAGES}"])'
    filled = f'saved = {{"{AVERAGES}": {into}.state_dict()}}; dcp.load(saved, checkpoint_id=...); {load}'
    own = [tensor.name for tensor, filling in averages.steps if tensor.name not in averages.shared]
    statistics = [name for name in own if BUFFER.search(name) and not name.endswith(COUNTER)]
    return [how.format(filled if distributed else load), *[BUFFERED.format(name) for name in statistics[:1]]]


def _averages(builder: Builder, averages: Averages) -> dict[str, Tensor]:
    """Lay out an average of the weights, with its count as an AveragedModel has it where that is known."""
    copy: dict[str, Tensor] = {}
    wrapper = "module." if averages.count is not None else ""
    if averages.count is not None:
        copy["n_averaged"] = builder.number(f"{AVERAGES}/n_averaged", averages.count, "int64", kind="averages")
    for step in averages.steps:
        name = f"{wrapper}{step[0].name}"
        copy[name] = builder.average(step, f"{AVERAGES}/{name}")
    return copy


def _about_groups(groups: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> list[str]:
    """Report the groups of parameters in their order: how many each has, which, and with what."""
    if not groups:
        return []
    each = [
        f"{len(weights):,} with {' '.join(f'{key}={exact(value)}' for key, value in values.items())}"
        + (f": {folding.summarised(weights, NAMED)}" if weights else "")
        for weights, values in groups
    ]
    return [f"{len(groups)} groups of parameters go along, to be built in this order: {'; then '.join(each)}"]


def _group(state: State, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return torch's group of parameters, without what nobody states: a step then raises KeyError.

    Args:
      values: what this group has otherwise than others.
    """
    plain = {"maximize": False, "foreach": None, "differentiable": False, "fused": None}
    unpaired = _unpaired(state)
    hyper = {name: state.hyper[name] for name in NEEDED[state.family] if name in state.hyper and name not in unpaired}
    if state.family == "sgd":
        return {**hyper, **plain, "dampening": 0.0, **values}
    betas = [hyper.pop(beta) for beta in ("beta1", "beta2") if beta in hyper]
    hyper |= {"betas": tuple(betas)} if betas else {}
    adam = {"amsgrad": False, "capturable": False, "decoupled_weight_decay": state.kind == "adamw"}
    own = {key: tuple(value) if key == "betas" else value for key, value in values.items()}
    return {**hyper, **plain, **adam, **own}
