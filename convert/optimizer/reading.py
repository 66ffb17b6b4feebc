"""Read the state of an optimizer from the names of a checkpoint: optax's, torch's or paddle's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from convert import folding
from convert.counters import read as read_counter
from convert.errors import ConvertError, UsageError
from convert.files.base import Reader, Tensor
from convert.readings import TRAINING

from .families import FAMILIES, HYPERPARAMETERS, MOMENTS, NEEDED, kinds_of
from .state import State

PARAMS = "param_groups/0/params"
PADDLE = re.compile(r"(?P<own>.+)_(?P<slot>moment1|moment2|velocity|beta1_pow_acc|beta2_pow_acc)_\d+")
VALUE = "/value"  # what nnx stores below each variable
USUAL_BETAS = {"beta1": 0.9, "beta2": 0.999}
NEAR = 0.1  # steps: how far a power of beta may be from a whole number of them


class Found(NamedTuple):
    """Where a file has the state of an optimizer.

    Args:
      root: prefix of the names of its arrays. top: of all that belongs to it.
    """

    library: str
    root: str
    top: str


def find(reader: Reader) -> Found | None:
    """Find the state of an optimizer by its names. Raises: ConvertError where there are several."""
    found = {*_torch(reader), *_paddle(reader), *_optax(reader)}
    if len(found) > 1:
        where = ", ".join(sorted(repr(one.root) for one in found))
        raise ConvertError(
            f"{reader.path}: has the states of several optimizers ({where}): one alone is converted, as no other "
            "library's optimizer has parts of its own for parts of a model in the same way"
        )
    return next(iter(found), None)


def _torch(reader: Reader) -> Iterable[Found]:
    for name in reader.skipped.values:
        if name == PARAMS or name.endswith(f"/{PARAMS}"):
            root = name.removesuffix(PARAMS)
            yield Found("torch", root, root)


def _paddle(reader: Reader) -> Iterable[Found]:
    for name in reader.tensors:
        folder, slash, last = name.rpartition("/")
        if PADDLE.fullmatch(last):
            yield Found("paddle", folder + slash, folder + slash)


def _optax(reader: Reader) -> Iterable[Found]:
    momentum = MOMENTS["momentum"].optax
    adams = {name[: at.start()] for name in reader.tensors for at in re.finditer(r"(?:^|(?<=/))mu/", name)}
    for name in reader.tensors:
        base = name.removesuffix(VALUE)
        if base == "count" or base.endswith("/count"):
            root = base.removesuffix("count")
            if root in adams:
                yield Found("optax", root, _top(root))
        elif f"/{momentum}/" in f"/{name}":
            head = f"/{name}".partition(f"/{momentum}/")[0]
            root = f"{head[1:]}/" if head else ""
            if TRAINING & set(root.split("/")) or not root:
                yield Found("optax", root, _top(root))


def _top(root: str) -> str:
    """Return the outermost container of training state in which a state lies."""
    segments = root.split("/")
    at = next((k for k, segment in enumerate(segments) if segment in TRAINING), None)
    return root if at is None else "/".join(segments[: at + 1]) + "/"


def apart(reader: Reader, found: Found | None = None) -> frozenset[str]:
    """Name the arrays and plain entries of a file that are the state of an optimizer, and the count beside it.

    Args:
      found: where the state is; None finds it.
    """
    found = found or find(reader)
    if found is None:
        return frozenset()
    if found.top:
        outer = found.top[:-1].rpartition("/")[0]
        step = {f"{outer}/step" if outer else "step"}
        inside = {name for name in reader.tensors if name.startswith(found.top) or name in step}
    else:
        inside = {name for name in reader.tensors if _is_state(found, name)}
    return frozenset(inside | {name for name in reader.skipped.values if found.top and name.startswith(found.top)})


def _is_state(found: Found, name: str) -> bool:
    if found.library == "paddle":
        return PADDLE.fullmatch(name) is not None
    tops = ("state/", "param_groups/") if found.library == "torch" else ("count", "mu/", "nu/", "trace/")
    return name.startswith(tops)


def replicated(reader: Reader, found: Found, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the arrays of a state that pmap has stored once for each device, all of them; [] where it has not.

    A count shows that, which has no axis of its own; a state without counts has the shapes of its parameters.
    """
    arrays = [reader.tensors[name] for name in apart(reader, found) if name in reader.tensors]
    lengths = {tensor.shape[:1] for tensor in arrays}
    if found.library != "optax" or len(lengths) != 1 or () in lengths or (0,) in lengths:
        return []
    counts = [t for t in arrays if t.name.removesuffix(VALUE).rpartition("/")[2] in ("count", "step")]
    shapes = [tensor.shape[1:] for tensor in arrays]
    same = sorted(shapes) == sorted(tensor.shape for tensor in parameters.values())
    return arrays if (all(len(t.shape) == 1 for t in counts) if counts else same) else []


def read(
    reader: Reader, found: Found, parameters: Mapping[str, Tensor], own: Mapping[str, str], stated: Any, ordered: bool
) -> State:
    """Read a state.

    Args:
      parameters: the trained arrays of the source by name, in its order.
      ordered: whether that is the order in which torch counts parameters, as in a file that torch.save wrote.
      own: parameter -> paddle's own name of it.
      stated: what the user states of the optimizer, above all that the file says.
    Raises: ConvertError for what no other library keeps alike; UsageError for what has to be stated.
    """
    if found.library == "torch":
        state = read_torch(reader, found, parameters, stated, ordered)
    else:
        state = {"paddle": read_paddle, "optax": read_optax}[found.library](reader, found, parameters, own, stated)
    some = {name for arrays in state.moments.values() for name in arrays}
    for slot, arrays in state.moments.items():
        if lacking := sorted(some - arrays.keys()):
            what = f"has no {slot} moment of {', '.join(folding.fold(lacking)[:6])}, and another moment of it"
            raise ConvertError(f"{reader.path}: {what}: its optimizer is damaged")
        for name, moment in arrays.items():
            if moment.shape != parameters[name].shape:
                what = f"has shape {list(moment.shape)}, and {name}, whose {slot} moment it is, "
                raise ConvertError(
                    f"{reader.path}: {moment.name} {what}{list(parameters[name].shape)}: the optimizer is another "
                    "model's, or its parameters are in another order"
                )
    return state


def read_torch(
    reader: Reader, found: Found, parameters: Mapping[str, Tensor], stated: Mapping[str, Any], ordered: bool
) -> State:
    """Read the state_dict of a torch.optim optimizer."""
    groups = _groups(reader, found.root)
    numbers = [number for group in groups for number in group["params"]]
    names, notes = _names(reader, groups, numbers, list(parameters), ordered)
    slots: dict[str, dict[str, Tensor]] = {}
    steps: set[float] = set()
    used = set[str]()
    states = f"{found.root}state/"
    for name, tensor in reader.tensors.items():
        if name.startswith(states):
            key, _, slot = name.removeprefix(states).rpartition("/")
            used.add(name)
            if slot == "step":
                steps.add(scalar(reader, tensor))
            else:
                slots.setdefault(slot, {})[key] = tensor
    for name, value in reader.skipped.values.items():
        if name.startswith(found.root):
            used.add(name)
            if name.startswith(states) and name.endswith("/step"):
                steps.add(_number(reader, name, value))
    used |= {name for name in reader.tensors if name.startswith(f"{found.root}param_groups/")}
    family = _family(reader, {slot: arrays for slot, arrays in slots.items() if arrays}, "torch", groups[0])
    by_key = {str(number): name for number, name in zip(numbers, names, strict=True)}
    keys = [key for arrays in slots.values() for key in arrays]
    if strangers := [key for key in dict.fromkeys(keys) if key not in by_key]:
        problem = f"its optimizer has a state of {', '.join(strangers[:6])}, which none of its groups lists"
        raise ConvertError(f"{reader.path}: {problem}: it is damaged")
    moments = {s: {by_key[k]: t for k, t in slots[MOMENTS[s].torch].items()} for s in FAMILIES[family]}
    hyper = {**_torch_hyper(reader, family, groups[0]), **stated}
    others = sorted(
        name for name in reader.skipped.values if name.startswith(f"{found.root}param_groups/") and "initial_lr" in name
    )
    if others:
        notes.append(f"set aside, of torch's learning-rate scheduler: {', '.join(folding.fold(others))}")
    step = _one_step(reader, steps, stated) if family == "adam" else None
    return State("torch", family, step, hyper, moments, frozenset(used), tuple(notes))


def _groups(reader: Reader, root: str) -> list[dict[str, Any]]:
    """Read torch's groups of parameters. Raises: ConvertError where they have different hyperparameters."""
    groups: dict[str, dict[str, Any]] = {}
    base = f"{root}param_groups/"
    for name, value in reader.skipped.values.items():
        if name.startswith(base):
            number, _, key = name.removeprefix(base).partition("/")
            groups.setdefault(number, {})[key] = value
    for name, tensor in reader.tensors.items():
        if name.startswith(base):
            number, _, key = name.removeprefix(base).partition("/")
            groups.setdefault(number, {})[key] = scalar(reader, tensor)
    ordered = list(groups.values())
    for number, group in groups.items():
        if not isinstance(group.get("params"), list):
            raise ConvertError(f"{reader.path}: {base}{number} lists no parameters: its optimizer is damaged")
    for group in ordered:
        if group.get("amsgrad"):
            raise ConvertError(f"{reader.path}: amsgrad: its maximum of second moments has no place in optax's Adam")
        if group.get("maximize"):
            raise ConvertError(f"{reader.path}: maximize: neither optax nor paddle has such an optimizer")
    keys = {key for group in ordered for key in group} - {"params", "param_names"}
    differing = sorted(key for key in keys if any(group.get(key) != ordered[0].get(key) for group in ordered))
    if differing:
        what = f"its {len(ordered)} groups of parameters differ in {', '.join(differing)}"
        raise ConvertError(f"{reader.path}: {what}: optax and paddle keep one of each: nothing to write them to")
    return ordered


def _names(
    reader: Reader, groups: Sequence[Mapping[str, Any]], numbers: Sequence[Any], parameters: list[str], ordered: bool
) -> tuple[list[str], list[str]]:
    """Name torch's numbered parameters: by the names that it stores, or by the order of the state_dict."""
    given = [name for group in groups for name in group.get("param_names", ())]
    if all(isinstance(number, str) for number in numbers):
        given = list(numbers)
    if len(set(numbers)) != len(numbers) or (given and len(set(given)) != len(numbers)):
        raise ConvertError(f"{reader.path}: its optimizer lists a parameter twice, or not all names: it is damaged")
    if given:
        if strangers := [name for name in given if name not in parameters]:
            problem = f"its optimizer names parameters that the model has not: {', '.join(folding.fold(strangers)[:6])}"
            raise ConvertError(f"{reader.path}: {problem}")
        return given, []
    remedy = "pass model.named_parameters() to the optimizer: it then stores names"
    if len(groups) > 1:
        raise ConvertError(f"{reader.path}: {len(groups)} groups number parameters in an order of their own: {remedy}")
    if len(numbers) != len(parameters):
        raise ConvertError(
            f"{reader.path}: its optimizer has {len(numbers)} parameters, its state_dict {len(parameters)}: {remedy}"
        )
    if not ordered:
        what = (
            "its optimizer numbers parameters in the order of the model's code, which the weights' file does not keep"
        )
        raise ConvertError(f"{reader.path}: {what}: give the weights as torch.save wrote them, or {remedy}")
    return parameters, ["torch numbers parameters: taken in the order of the state_dict, in which all shapes fit"]


def _torch_hyper(reader: Reader, family: str, group: Mapping[str, Any]) -> dict[str, Any]:
    place = "param_groups/0"
    hyper = {name: _number(reader, f"{place}/{name}", group[name]) for name in NEEDED[family] if name in group}
    if family == "sgd":
        if group.get("dampening"):
            what = f"dampening={group['dampening']}: optax and paddle add whole gradients to the momentum"
            raise ConvertError(f"{reader.path}: {what}")
        return {**hyper, "nesterov": bool(group.get("nesterov")), "kind": "sgd"}
    betas = group.get("betas")
    if not isinstance(betas, list) or len(betas) != 2:
        raise ConvertError(f"{reader.path}: {place} has no pair of betas: its optimizer is damaged")
    first, second = (_number(reader, f"{place}/betas", beta) for beta in betas)
    known: dict[str, Any] = {**hyper, "beta1": first, "beta2": second}
    if "decoupled_weight_decay" in group or not group.get("weight_decay"):
        known["kind"] = "adamw" if group.get("decoupled_weight_decay") else "adam"
    return known


def _family(reader: Reader, slots: Iterable[str], library: str, group: Mapping[str, Any]) -> str:
    """Return the family that keeps exactly these arrays. Raises: ConvertError for another optimizer."""
    kept = set(slots)
    for family, moments in FAMILIES.items():
        if kept == {MOMENTS[slot].of(library) for slot in moments}:
            signs = {"adam": "amsgrad", "sgd": "dampening"}[family]
            if library != "torch" or signs in group:
                return family
    arrays = f"it keeps {', '.join(sorted(kept))}" if kept else "it keeps no arrays: leave --with-optimizer out"
    raise ConvertError(f"{reader.path}: its optimizer is none of SGD with momentum, Adam and AdamW: {arrays}")


def read_paddle(
    reader: Reader, found: Found, parameters: Mapping[str, Tensor], own: Mapping[str, str], stated: Mapping[str, Any]
) -> State:
    """Read the state_dict of a paddle.optimizer."""
    slots: dict[str, dict[str, Tensor]] = {}
    strangers: list[str] = []
    used = set[str]()
    for name, tensor in reader.tensors.items():
        if name.startswith(found.root):
            rest = name.removeprefix(found.root)
            if match := PADDLE.fullmatch(rest):
                if match["own"] in slots.setdefault(match["slot"], {}):
                    raise ConvertError(f"{reader.path}: {name}: its optimizer has two of these: it is damaged")
                slots[match["slot"]][match["own"]] = tensor
                used.add(name)
            elif found.root or "/" in rest:
                strangers.append(name)
    names = {name for arrays in slots.values() for name in arrays}
    for name in reader.tensors.keys() - used:  # linear_0.w_0_moment2_max_0: what else is kept of a parameter
        cuts = [at.start() for at in re.finditer(r"_(?=[a-z]\w*_\d+$)", name)]
        strangers += [name] if any(name[:cut].removeprefix(found.root) in names for cut in cuts) else []
    if strangers:
        problem = f"its optimizer keeps {', '.join(folding.fold(strangers)[:6])}"
        raise ConvertError(
            f"{reader.path}: {problem}: neither SGD with momentum, nor Adam, nor AdamW, in full precision"
        )
    family = _family(reader, (slot for slot in slots if "pow" not in slot), "paddle", {})
    ours = {own.get(name, name): name for name in parameters}
    arrays = [key for slot in FAMILIES[family] for key in slots[MOMENTS[slot].paddle]]
    if unknown := [key for key in dict.fromkeys(arrays) if key not in ours]:
        remedy = (
            "convert the .pdparams that paddle.save(model.state_dict(), ...) wrote in the same process: it names them"
        )
        what = f"which parameters are {', '.join(folding.fold(unknown)[:6])}?"
        raise ConvertError(f"{reader.path}: {what} ({remedy})")
    moments = {s: {ours[k]: t for k, t in slots[MOMENTS[s].paddle].items()} for s in FAMILIES[family]}
    hyper: dict[str, Any] = {"kind": "sgd"} if family == "sgd" else {}
    scheduler = {name: value for name, value in reader.skipped.values.items() if "LR_Scheduler/" in f"{name}/"}
    last = next((value for name, value in scheduler.items() if name.endswith("last_lr")), None)
    hyper |= {"lr": _number(reader, "LR_Scheduler/last_lr", last)} if last is not None else {}
    used |= scheduler.keys()
    notes = ["set aside, paddle's learning-rate scheduler, but for its rate: LR_Scheduler"] if scheduler else []
    hyper |= stated
    if family == "sgd":
        return State("paddle", family, None, hyper, moments, frozenset(used), tuple(notes))
    step, betas = _paddle_step(reader, slots, hyper)
    return State("paddle", family, step, {**hyper, **betas}, moments, frozenset(used), tuple(notes))


def _paddle_step(
    reader: Reader, slots: Mapping[str, Mapping[str, Tensor]], hyper: Mapping[str, Any]
) -> tuple[int, dict[str, float]]:
    """Find the number of steps: paddle stores beta^(steps + 1) for both betas."""
    powers: dict[str, float] = {}
    for beta in USUAL_BETAS:
        values = {scalar(reader, tensor) for tensor in slots.get(f"{beta}_pow_acc", {}).values()}
        if len(values) > 1:
            raise ConvertError(f"{reader.path}: its parameters were updated differently often: {beta}_pow_acc differs")
        powers[beta] = next(iter(values), math.nan)
    betas = {beta: float(hyper.get(beta, usual)) for beta, usual in USUAL_BETAS.items()}
    if "step" in hyper:
        step = int(hyper["step"])
        shown = {beta for beta in betas if beta in hyper or _is_power(powers[beta], betas[beta], step + 1)}
        return step, {beta: value for beta, value in betas.items() if beta in shown}
    counts = {
        beta: math.log(power) / math.log(betas[beta]) - 1
        for beta, power in powers.items()
        if 0 < betas[beta] < 1 and 1e-30 < power < 1
    }
    whole = {round(count) for count in counts.values()}
    exact = all(abs(count - round(count)) < NEAR for count in counts.values())
    known = len(counts) == 2 or set(USUAL_BETAS) <= set(hyper)
    if len(whole) != 1 or not exact or not known or min(whole) < 0:
        stored = ", ".join(f"{beta}_pow_acc = {power:.9g}" for beta, power in powers.items())
        raise UsageError(
            f"{reader.path}: {stored}: no whole number of steps with {betas}: state --hyper beta1=... and beta2=..., "
            "or --hyper step=..."
        )
    return whole.pop(), betas


def _is_power(power: float, beta: float, exponent: int) -> bool:
    """Tell whether a stored power shows a beta: not where it is too small, or of another beta."""
    return 1e-30 < power < 1 and 0 < beta < 1 and abs(math.log(power) / math.log(beta) - exponent) < NEAR


def read_optax(
    reader: Reader, found: Found, parameters: Mapping[str, Tensor], own: Mapping[str, str], stated: Mapping[str, Any]
) -> State:
    """Read the state of an optax optimizer, nested as chains nest it, also within nnx.Optimizer."""
    slots: dict[str, dict[str, Tensor]] = {}
    steps: set[float] = set()
    hyper: dict[str, Any] = {}
    strangers: list[str] = []
    used = apart(reader, found)
    for name, tensor in reader.tensors.items():
        if name not in used:
            continue
        slot, _, tail = name.removeprefix(found.root).partition("/")
        base = name.removesuffix(VALUE)
        last = base.rpartition("/")[2]
        if name.startswith(found.root) and tail and slot != "count":
            slots.setdefault(slot, {})[tail] = tensor
        elif "/hyperparams/" in f"/{base}":
            hyper[last] = scalar(reader, tensor)
        elif last in ("count", "step") and tensor.size == 1 and "int" in tensor.dtype:
            steps.add(scalar(reader, tensor))
        else:
            strangers.append(name)
    if strangers:
        what = f"its optimizer also keeps {', '.join(folding.fold(strangers)[:6])}"
        raise ConvertError(f"{reader.path}: {what}: neither SGD with momentum, nor Adam, nor AdamW alone")
    family = _family(reader, slots, "optax", {})
    if hyper.pop("eps_root", 0):
        raise ConvertError(f"{reader.path}: eps_root: neither torch nor paddle adds epsilon within the square root")
    named = {s: _matched(reader, slots[MOMENTS[s].optax], parameters) for s in FAMILIES[family]}
    known = {name: hyper[names] for name in NEEDED[family] if (names := HYPERPARAMETERS[name].optax) in hyper}
    notes = [f"optax's state does not name its optimizer: read as that of {kinds_of(family)}"]
    known |= {"kind": "sgd"} if family == "sgd" else {}
    step = None if family == "sgd" else _one_step(reader, steps, stated)
    return State("optax", family, step, {**known, **stated}, named, used, tuple(notes))


def _matched(reader: Reader, arrays: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return moments by the names of their parameters, which are longer or shorter at their front by one prefix.

    Raises: ConvertError where a moment belongs to none, or to several.
    """
    for tails in (dict(arrays), {tail.removesuffix(VALUE): tensor for tail, tensor in arrays.items()}):
        first = max(tails, key=len)
        longer = [name.removesuffix(first) for name in parameters if f"/{name}".endswith(f"/{first}")]
        shorter = [first.removesuffix(name) for name in parameters if f"/{first}".endswith(f"/{name}")]
        fitting = [{p + t: tensor for t, tensor in tails.items()} for p in longer]
        fitting += [{t.removeprefix(p): tensor for t, tensor in tails.items()} for p in shorter if p]
        fitting = [named for named in fitting if named.keys() <= parameters.keys()]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise ConvertError(f"{reader.path}: moments fit several parts of the model: {first}")
    strange = ", ".join(folding.fold(arrays)[:6])
    raise ConvertError(f"{reader.path}: its optimizer keeps moments of other parameters than the model's: {strange}")


def _one_step(reader: Reader, steps: set[float], stated: Mapping[str, Any]) -> int:
    """Return the number of steps that all counts agree on. Raises: ConvertError where they do not."""
    if "step" in stated:
        return int(stated["step"])
    if len(steps) != 1 or (count := next(iter(steps))) != int(count) or count < 0:
        counts = ", ".join(f"{step:g}" for step in sorted(steps)) or "none"
        raise ConvertError(f"{reader.path}: its counts of steps do not agree ({counts}): --hyper step=... states one")
    return int(count)


def _number(reader: Reader, name: str, value: Any) -> float:
    """Return a plain number of a file. Raises: ConvertError where it is none, or not finite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ConvertError(f"{reader.path}: {name} is {value!r:.40}: no number")
    return float(value)


def scalar(reader: Reader, tensor: Tensor) -> float:
    """Return the value of an array of one element. Raises: ConvertError where it is not one number."""
    if tensor.size == 1 and tensor.dtype in ("float32", "float64"):
        import numpy as np

        return float(np.frombuffer(bytes(reader.read(tensor.name)), tensor.dtype)[0])
    value = read_counter(reader, tensor).value if tensor.size == 1 else None
    if value is None:
        raise ConvertError(f"{reader.path}: {tensor.name} {tensor.dtype} {list(tensor.shape)}: no number")
    return float(value)
