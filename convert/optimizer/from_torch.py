"""Read the state_dict of a torch.optim optimizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from convert import folding
from convert.documents import document
from convert.errors import ConvertError
from convert.files.base import Reader, Tensor
from convert.reading.families import FAMILIES, MOMENTS, NEEDED
from convert.reading.nesting import cuts, unwrapped
from convert.reading.optimizers import Found
from specs.numbers import exact
from specs.words import count

from .groups import SWITCHES, other_options
from .shared import family_of, plain_number, scalar, steps_of
from .state import KIND, ORDER, Group, State

LEFT = "is converted to no library: leave --with-optimizer out"


def read_torch(
    reader: Reader,
    location: Found,
    parameters: Mapping[str, Tensor],
    stated: Mapping[str, Any],
    order: str,
    dropped: Collection[str] = (),
    repeated: Collection[str] = (),
) -> State:
    """Read the state_dict of a torch.optim optimizer; see `reading.read`."""
    groups = _groups(reader, location.root)
    first = next((group for group in groups if group["params"]), groups[0])
    numbers = [number for group in groups for number in group["params"]]
    if given := _stored_names(reader, groups, numbers):
        names, notes, assumed = _named(reader, given, parameters)
    else:
        root = location.root
        names, notes, assumed = _numbered(reader, root, groups, numbers, parameters, order, dropped, repeated)
    slots, counts, others, used = _stored(reader, location.root)
    counts = counts or _grouped_counts(reader, groups)
    family = family_of(reader, [*slots, *others], "torch", first)
    by_key = {str(number): name for number, name in zip(numbers, names, strict=True)}
    keys = [*(key for arrays in slots.values() for key in arrays), *counts]
    if strangers := [key for key in dict.fromkeys(keys) if key not in by_key]:
        problem = f"its optimizer has a state of {folding.listed(strangers)}, which none of its groups lists"
        raise ConvertError(f"{reader.path}: {problem}: it is damaged")
    buffers = frozenset() if assumed else frozenset(parameters.keys() - set(names))
    moments = {s: {by_key[k]: t for k, t in slots[MOMENTS[s].torch].items()} for s in FAMILIES[family]}
    hyper = _torch_hyper(reader, family, first, stated)
    options, is_stated = other_options(reader.path, family, groups, stated)
    initial = tuple(group.get("initial_lr") for group in groups)
    step, steps = stated.get("step"), dict[str, int]()
    if family == "adam":
        step, steps = steps_of(reader, {by_key[key]: n for key, n in counts.items()}, moments["first"], stated)
    return State(
        "torch", family, step, hyper, moments, frozenset(used), (*notes, *options),
        assumed=(*assumed, KIND) if is_stated else assumed, groups=_unlike(groups, by_key),
        initial=() if set(initial) == {None} else initial, buffers=buffers, steps=steps,
        switches=tuple(name for name in SWITCHES if first.get(name) is True),
    )  # fmt: skip


def _stored(reader: Reader, root: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, float], set[str], set[str]]:
    """Return torch's arrays as {slot: {parameter's key: array}}, its counts of steps, other slots, and all names.

    Slots of plain numbers and texts, other than steps, are those of another optimizer.
    """
    slots: dict[str, dict[str, Tensor]] = {}
    counts: dict[str, float] = {}
    others, used = set[str](), set[str]()
    states, groups = f"{root}state/", f"{root}param_groups/"
    for name, tensor in reader.tensors.items():
        if name.startswith(states):
            key, _, slot = name.removeprefix(states).rpartition("/")
            used.add(name)
            if slot == "step":
                counts[key] = scalar(reader, tensor)
            else:
                slots.setdefault(slot, {})[key] = tensor
    for name, value in reader.skipped.values.items():
        if name.startswith((states, groups)):
            used.add(name)
            key, _, slot = name.removeprefix(states).rpartition("/")
            if name.startswith(states) and slot == "step":
                counts[key] = plain_number(reader, name, value)
            elif name.startswith(states):
                others.add(slot)
    used |= {name for name in reader.tensors if name.startswith(groups)}
    return slots, counts, others, used


def _grouped_counts(reader: Reader, groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the count of steps of each parameter's group, where apex stores it, by the parameter's key."""
    counted = [(group, plain_number(reader, "param_groups/step", group["step"])) for group in groups if "step" in group]
    return {str(number): step for group, step in counted for number in group["params"]}


def _groups(reader: Reader, root: str) -> list[dict[str, Any]]:
    """Read torch's groups of parameters. Raises: ConvertError for options that no other library has."""
    groups: dict[str, dict[str, Any]] = {}
    base = f"{root}param_groups/"
    for name, value in reader.skipped.values.items():
        if name.startswith(base):
            number, _, key = name.removeprefix(base).partition("/")
            groups.setdefault(number, {})[key] = value
    for name, tensor in reader.tensors.items():
        if name.startswith(base):
            number, _, key = name.removeprefix(base).partition("/")
            option, several, _ = key.partition("/")
            if several:  # as betas of a capturable optimizer, one by one
                groups.setdefault(number, {}).setdefault(option, []).append(scalar(reader, tensor))
            else:
                groups.setdefault(number, {})[key] = scalar(reader, tensor)
    ordered = list(groups.values())
    for number, group in groups.items():
        if not number.isdigit():  # torch's flatten_optimizer_state_dict: a group a parameter, by its name
            group.setdefault("params", [number])
        if not isinstance(group.setdefault("params", []), list):  # an empty list has no entry
            raise ConvertError(f"{reader.path}: {base}{number} lists no parameters: its optimizer is damaged")
    for group in ordered:
        if group.get("amsgrad"):
            raise ConvertError(f"{reader.path}: amsgrad's maximum of second moments {LEFT}")
        if group.get("maximize"):
            raise ConvertError(f"{reader.path}: an optimizer with maximize {LEFT}")
        if False in (group.get("bias_correction"), group.get("correct_bias")):  # of apex, of transformers
            raise ConvertError(f"{reader.path}: an optimizer that does not correct the bias of its moments {LEFT}")
    return ordered


def _unlike(groups: Sequence[Mapping[str, Any]], by_key: Mapping[str, str]) -> tuple[Group, ...]:
    """Return groups with the values in which they differ; () where they are alike."""
    keys = sorted({key for group in groups for key in group} - {"params", "param_names", "initial_lr"})
    unlike = [key for key in keys if any(group.get(key) != groups[0].get(key) for group in groups)]
    each = (
        Group(
            tuple(by_key[str(number)] for number in group["params"]),
            {key: group[key] for key in unlike if key in group},
        )
        for group in groups
    )
    return tuple(each) if unlike else ()


def _stored_names(reader: Reader, groups: Sequence[Mapping[str, Any]], numbers: Sequence[Any]) -> list[str]:
    """Return the names of parameters that torch's groups store; [] where they number parameters alone."""
    given = [name for group in groups for name in group.get("param_names", ())]
    if all(isinstance(number, str) for number in numbers):
        given = list(numbers)
    if len(set(numbers)) != len(numbers) or (given and len(set(given)) != len(numbers)):
        raise ConvertError(f"{reader.path}: its optimizer lists a parameter twice, or not all names: it is damaged")
    return given


def _named(
    reader: Reader, given: list[str], parameters: Mapping[str, Tensor]
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Name torch's parameters by the names that it stores: the names, notes, and what is assumed."""
    if strangers := [name for name in given if name not in parameters]:
        if plain := _without_wrappers(given, parameters):
            example = f"{strangers[0]} as {plain[given.index(strangers[0])]}"
            return plain, [f"read the names in its optimizer without what stands before them: {example}"], ()
        problem = f"its optimizer names parameters that the model has not: {folding.listed(strangers)}"
        raise ConvertError(f"{reader.path}: {problem}")
    return given, [], ()


def _numbered(
    reader: Reader,
    root: str,
    groups: Sequence[Mapping[str, Any]],
    numbers: Sequence[Any],
    parameters: Mapping[str, Tensor],
    order: str,
    dropped: Collection[str],
    repeated: Collection[str],
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Name torch's numbered parameters by the order of the state_dict: the names, notes, and what is assumed."""
    remedy = (
        "pass model.named_parameters() to the optimizer, which then stores names; "
        f"{document('training')} shows how to add them to this file (param_names)"
    )
    parameters = {name: tensor for name, tensor in parameters.items() if tensor.name not in reader.shared}  # tied: once
    once = {name: tensor for name, tensor in parameters.items() if name not in repeated}
    kept = [{name: tensor for name, tensor in some.items() if name not in dropped} for some in (once, parameters)]
    counted = [some for some in (*kept, once, parameters) if len(some) == len(numbers)]
    every, parameters = parameters, counted[0] if counted else once
    buffers = [name for name in every if name not in parameters and name in dropped]
    names = by_rank(reader, root, groups, parameters) if len(groups) > 1 else list(parameters)
    if not names:
        raise ConvertError(f"{reader.path}: {len(groups)} groups number parameters in an order of their own: {remedy}")
    if len(groups) > 1 and (open_ := _open_order(groups, names, parameters)):
        what = f"shapes do not show in which order its groups list {folding.listed(open_)}"
        by_kind = "by place in the model, or weights, biases and norms one after the other"
        raise ConvertError(f"{reader.path}: {what} ({by_kind}): {remedy}")
    if len(numbers) != len(parameters):
        has = f"its optimizer has {count(len(numbers), 'parameter')}, its state_dict {len(parameters)}"
        raise ConvertError(f"{reader.path}: {has}: {remedy}")
    if not order:
        what = (
            "its optimizer numbers parameters in the order of the model's code, which the weights' file does not keep"
        )
        raise ConvertError(f"{reader.path}: {what}: give the weights as torch.save wrote them, or {remedy}")
    within = " within each group" if len(groups) > 1 else ""
    note = f"the source's optimizer names no parameters; assumed, not known: {ORDER}, as in {order}{within}, "
    note += "since all shapes fit"
    note += f"; and that what is dropped is no parameter: {folding.listed(buffers)}" if buffers else ""
    note += f". To be certain, {remedy}"
    return names, [note], (ORDER,)


def _open_order(
    groups: Sequence[Mapping[str, Any]], names: Sequence[str], parameters: Mapping[str, Tensor]
) -> list[str]:
    """Return the parameters of the first group whose shapes fit as well where it lists its kinds one after the other.

    The kinds are weights and biases, or norms (modules of which the group has both) and others, as of code that
    concatenates such lists. A group of one kind is taken to be in the order of the model.

    Args:
      names: of the parameters of all groups, each group in the order of the model.
    """
    rest = iter(names)
    for group in groups:
        own = [next(rest) for _ in group["params"]]
        modules = Counter(name.rpartition(".")[0] for name in own)
        kinds: list[dict[str, Any]] = [
            {name: name.rpartition(".")[2] for name in own},
            {name: modules[name.rpartition(".")[0]] > 1 for name in own},
        ]
        for kind in kinds:
            for reverse in (False, True):
                others = sorted(own, key=kind.__getitem__, reverse=reverse)
                pairs = [pair for pair in zip(own, others, strict=True) if pair[0] != pair[1]]
                if pairs and all(parameters[one].shape == parameters[other].shape for one, other in pairs):
                    return [one for one, _ in pairs]
    return []


def _without_wrappers(given: Sequence[str], parameters: Mapping[str, Tensor]) -> list[str]:
    """Return the parameters that an optimizer names with what the modules around and inside of a model add.

    torch.compile, DataParallel and Lightning put one beginning before all names; wrappers inside add levels to some.
    Returns: [] unless one beginning alone leaves the name of a parameter in each.
    """
    own = {unwrapped(name): name for name in parameters}
    bare = [unwrapped(name) for name in given]
    starts = {bare[0][:cut] for cut in cuts(bare[0])}
    fitting = [s for s in starts if all(name.startswith(s) and name.removeprefix(s) in own for name in bare)]
    if len(fitting) != 1 or len(set(bare)) < len(bare) or len(own) < len(parameters):
        return []
    return [own[name.removeprefix(fitting[0])] for name in bare]


def by_rank(
    reader: Reader, root: str, groups: Sequence[Mapping[str, Any]], parameters: Mapping[str, Tensor]
) -> list[str]:
    """Name the parameters of groups that divide them by their number of axes, as weights with decay and others.

    Returns: names in the order of the groups, and within a group in that of the parameters; [] for other groups.
    """
    names: list[str] = []
    for group in groups:
        moments = [f"{root}state/{number}/{slot.torch}" for number in group["params"] for slot in MOMENTS.values()]
        ranks = {len(reader.tensors[moment].shape) for moment in moments if moment in reader.tensors}
        own = [name for name, tensor in parameters.items() if len(tensor.shape) in ranks]
        if len(own) != len(group["params"]):
            return []
        names += own
    return names if len(set(names)) == len(names) else []


def _torch_hyper(reader: Reader, family: str, group: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Read a group's hyperparameters; without weight decay, Adam and AdamW are the same."""
    place = "param_groups/0"
    hyper = {name: plain_number(reader, f"{place}/{name}", group[name]) for name in NEEDED[family] if name in group}
    if family == "sgd":
        if group.get("dampening"):
            what = f"an optimizer with dampening={exact(group['dampening'])} {LEFT}"
            raise ConvertError(f"{reader.path}: {what}")
        nesterov = {"nesterov": bool(group.get("nesterov"))} if "momentum" in group else {}
        return {**hyper, **nesterov, "kind": "sgd"}
    known: dict[str, Any] = dict(hyper)
    if "betas" in group:
        betas = group["betas"]
        if not isinstance(betas, list) or len(betas) != 2:
            raise ConvertError(f"{reader.path}: {place} has no pair of betas: its optimizer is damaged")
        known["beta1"], known["beta2"] = (plain_number(reader, f"{place}/betas", beta) for beta in betas)
    if "decoupled_weight_decay" in group:
        known["kind"] = "adamw" if group["decoupled_weight_decay"] else "adam"
    elif "kind" not in stated and not stated.get("weight_decay", group.get("weight_decay")):
        known["kind"] = "adam"
    return known
