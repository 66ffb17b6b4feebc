"""Lay out a state as another library stores it: the tree of a checkpoint, with the weights in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convert.errors import ConvertError, UsageError
from convert.files.base import Tensor
from convert.steps import Constant, Filling, Step

from .families import BUFFER, CLASSES, FAMILIES, KINDS, MOMENTS, NEEDED, STATE, call, nest
from .state import State

MAX_FLOAT32 = 2**24  # the first count that torch's float32 would round
LOAD = 'optimizer.load_state_dict({**saved["optimizer"], "param_groups": optimizer.state_dict()["param_groups"]})'


@dataclass(frozen=True)
class Model:
    """The target's weights, and the moments of those that are trained.

    Args:
      path: of the source, for messages.
      weights: steps, by the names that the target's framework has for them.
      moments: "first", ... -> what fills that moment of each trained weight, in the order of the weights.
      dtypes: of the moments, by slot and weight.
      own: weight -> paddle's own name of it.
    """

    path: str
    weights: Sequence[Step]
    moments: Mapping[str, Mapping[str, Filling]]
    dtypes: Mapping[tuple[str, str], str]
    own: Mapping[str, str]

    @property
    def trained(self) -> list[str]:
        return list(next(iter(self.moments.values())))


@dataclass(frozen=True)
class Written:
    """A target with its optimizer.

    Args:
      steps: in the order of the tree. tree: for the file's writer.
      notes: how the target's optimizer is to be built and loaded.
    """

    steps: tuple[Step, ...]
    tree: Any
    notes: tuple[str, ...]


class Builder:
    """Collects steps while a tree is built."""

    def __init__(self, model: Model):
        self.model, self.steps = model, list[Step]()
        self._shapes = {tensor.name: tensor.shape for tensor, _ in model.weights}

    def weight(self, step: Step, name: str) -> Tensor:
        return self._add(step[0]._replace(name=name), step[1])

    def moment(self, slot: str, weight: str, name: str) -> Tensor:
        tensor = Tensor(name, self._shapes[weight], self.model.dtypes[slot, weight])
        return self._add(tensor, self.model.moments[slot][weight])

    def number(self, name: str, value: float, dtype: str, shape: tuple[int, ...] = ()) -> Tensor:
        return self._add(Tensor(name, shape, dtype), Constant(value))

    def _add(self, tensor: Tensor, filling: Filling) -> Tensor:
        self.steps.append((tensor, filling))
        return tensor


def write(library: str, state: State, model: Model, suffix: str) -> Written:
    """Lay out a target. Raises: UsageError for what has to be stated, ConvertError for what it cannot hold."""
    if library == "optax":
        return write_optax(state, model)
    if library == "torch":
        return write_torch(state, model)
    return write_paddle(state, model, alone=suffix == ".pdopt")


def write_optax(state: State, model: Model) -> Written:
    """Lay out what flax's TrainState is restored from: step, params, opt_state, and linen's other collections."""
    kind = state.kind
    if kind is None:
        raise UsageError(
            f"{model.path}: Adam or AdamW? optax nests their states differently, and {state.library}'s does not say: "
            "--hyper kind=adam or kind=adamw"
        )
    if state.step is not None and state.step >= 2**31:
        raise ConvertError(f"{model.path}: {state.step:,} steps: optax counts them in int32")
    builder = Builder(model)
    inside = any(tensor.name.startswith("params/") for tensor, _ in model.weights)
    tree: dict[str, Any] = {}
    tree["step"] = builder.number("step", state.step or 0, "int32")
    for step in model.weights:
        name = step[0].name if inside else f"params/{step[0].name}"
        _put(tree, name, builder.weight(step, name))
    chain = nest(kind, state.hyper)
    path = _path(chain)
    for slot in FAMILIES[state.family]:
        for weight in model.trained:
            name = f"opt_state/{path}/{MOMENTS[slot].optax}/{weight.removeprefix('params/')}"
            _put(tree, name, builder.moment(slot, weight, name))
    if state.step is not None:
        name = f"opt_state/{path}/count"
        _put(tree, name, builder.number(name, state.step, "int32"))
    tree["opt_state"] = _with_empty(chain, tree["opt_state"])
    notes = [f"optax stores no hyperparameters: build its optimizer as {call(kind, 'optax', state.hyper)}"]
    if missing := _missing(state):
        notes.append(_unknown(state, missing))
    if state.step is None:
        notes.append("no library counts the steps of SGD: the TrainState's step is 0")
    return Written(tuple(builder.steps), tree, tuple(notes))


def _put(tree: dict[str, Any], name: str, leaf: Tensor) -> None:
    *above, last = name.split("/")
    for key in above:
        tree = tree.setdefault(key, {})
    tree[last] = leaf


def _path(chain: Any) -> str:
    """Tell where in a chain the state lies that holds arrays."""
    key, inner = next((key, inner) for key, inner in chain.items() if inner)
    return str(key) if inner == STATE else f"{key}/{_path(inner)}"


def _with_empty(chain: Any, tree: Any) -> Any:
    """Return the state of a chain, a tuple, with its parts that hold nothing."""
    return tuple(
        tree[key] if inner == STATE else _with_empty(inner, tree[key]) if inner else {} for key, inner in chain.items()
    )


def write_torch(state: State, model: Model) -> Written:
    """Lay out {"model": state_dict, "optimizer": state_dict}, as torch.save writes training checkpoints."""
    if state.step is not None and state.step >= MAX_FLOAT32:
        raise ConvertError(f"{model.path}: {state.step:,} steps: torch counts them in float32, which would round that")
    builder = Builder(model)
    weights = {step[0].name: builder.weight(step, f"model/{step[0].name}") for step in model.weights}
    states: dict[int, dict[str, Tensor]] = {}
    for number, weight in enumerate(model.trained):
        base = f"optimizer/state/{number}"
        states[number] = {}
        if state.step is not None:
            states[number]["step"] = builder.number(f"{base}/step", state.step, "float32")
        for slot in FAMILIES[state.family]:
            key = MOMENTS[slot].torch
            states[number][key] = builder.moment(slot, weight, f"{base}/{key}")
    group = {**_group(state), "params": list(range(len(states))), "param_names": model.trained}
    notes = ["torch counts parameters in the order of model.parameters(): the file lists their names, param_names"]
    kind = state.kind or next(kind for kind, family in KINDS.items() if family == state.family)
    if missing := _missing(state):
        how = f"build {CLASSES[kind].torch} with the hyperparameters of the training so far, and load it by {LOAD}"
        notes.append(f"{_unknown(state, missing)}: {how}")
    else:
        notes.append(f"the state is that of {call(kind, 'torch', state.hyper)}")
    return Written(
        tuple(builder.steps), {"model": weights, "optimizer": {"state": states, "param_groups": [group]}}, tuple(notes)
    )


def _group(state: State) -> dict[str, Any]:
    """Return torch's group of parameters; {} where not all hyperparameters are known, so that none counts as stated."""
    if _missing(state):
        return {}
    hyper, plain = state.hyper, {"maximize": False, "foreach": None, "differentiable": False, "fused": None}
    common = {"lr": hyper["lr"], "weight_decay": hyper["weight_decay"], **plain}
    if state.family == "sgd":
        return {**common, "momentum": hyper["momentum"], "dampening": 0.0, "nesterov": hyper["nesterov"]}
    adam = {"betas": (hyper["beta1"], hyper["beta2"]), "eps": hyper["eps"], "amsgrad": False, "capturable": False}
    return {**common, **adam, "decoupled_weight_decay": state.kind == "adamw"}


def _missing(state: State) -> list[str]:
    """Return hyperparameters that nobody states."""
    needed = ("kind", *NEEDED[state.family])
    return [name for name in needed if name not in state.hyper]


def _unknown(state: State, missing: Sequence[str]) -> str:
    return f"{state.library}'s state does not say {', '.join(missing)} (--hyper states them)"


def write_paddle(state: State, model: Model, alone: bool) -> Written:
    """Lay out {"model": ..., "optimizer": ...} as paddle.save nests it, or with `alone`, a .pdopt."""
    unnamed = [name for name in model.trained if name not in model.own]
    if unnamed:
        raise UsageError(
            f"{model.path}: paddle finds moments by its own names of parameters (linear_0.w_0) and ignores others: "
            'save a new model by paddle.save(model.state_dict(), "new.pdparams") and give it: --like new.pdparams'
        )
    if state.kind is None:
        raise UsageError(
            f"{model.path}: {state.library}'s state does not say whether it is Adam's or AdamW's: "
            "--hyper kind=adam or kind=adamw"
        )
    builder = Builder(model)
    weights: dict[str, Any] = {}
    if not alone:
        for step in model.weights:
            name = step[0].name
            weights[name] = (model.own.get(name, name), builder.weight(step, f"model/{name}"))
    arrays = dict(_paddle_arrays(builder, state, "" if alone else "optimizer/"))
    notes = []
    notes.append(f"paddle stores no hyperparameters: build its optimizer as {call(state.kind, 'paddle', state.hyper)}")
    if missing := _missing(state):
        notes.append(_unknown(state, missing))
    tree: Any = arrays if alone else {"model": weights, "optimizer": {key: (key, t) for key, t in arrays.items()}}
    return Written(tuple(builder.steps), tree, tuple(notes))


def _paddle_arrays(builder: Builder, state: State, folder: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of a paddle.optimizer by their names."""
    model = builder.model
    for slot in FAMILIES[state.family]:
        for weight in model.trained:
            key = f"{model.own[weight]}_{MOMENTS[slot].paddle}_0"
            yield key, builder.moment(slot, weight, folder + key)
    for beta in ("beta1", "beta2") if state.step is not None else ():
        if beta not in state.hyper:
            raise UsageError(
                f"{model.path}: paddle counts steps by powers of its betas, and {state.library}'s state does not say "
                f"{beta}: --hyper {beta}=..."
            )
        assert state.step is not None
        for weight in model.trained:
            key = f"{model.own[weight]}_{beta}_pow_acc_0"
            dtype = "float64" if model.dtypes["first", weight] == "float64" else "float32"
            power = float(state.hyper[beta]) ** (state.step + 1)
            if dtype == "float32" and power < 1e-37:
                power = 0.0
            yield key, builder.number(folder + key, power, dtype, (1,))


def is_buffer(name: str) -> bool:
    """Tell whether an array of a module is no parameter, by its name in torch or paddle."""
    return BUFFER.search(name) is not None
