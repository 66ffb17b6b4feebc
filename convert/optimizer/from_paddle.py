"""Read the state_dict of a paddle.optimizer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convert import folding
from convert.documents import document
from convert.errors import ConvertError, UsageError, option
from convert.files.base import Reader, Tensor
from convert.reading.families import CONVERTED, FAMILIES, MOMENTS, TENSOR, lost_names
from convert.reading.optimizers import PADDLE, Found
from specs.numerals import exact, measured
from specs.words import count, in_a_row

from .powers import NEAR, SURE, steps_of
from .shared import family_of, one_step, plain_number, put, scalar
from .state import State

USUAL_BETAS = {"beta1": 0.9, "beta2": 0.999}
MIXED = (
    "it was trained in mixed precision, and paddle's float32 master_weights here are not converted: "
    f"save them as the model's weights and the state without them, as {document('training')} shows"
)
OTHERS = {"moment2_max": "amsgrad", "mu_product": "NAdam", "inf_norm": "Adamax", "rho": "RAdam"}  # by what they keep
NAMED = 2  # of the parameters without moments that a message names
SAME_PROCESS = "convert the .pdparams that paddle.save(model.state_dict(), ...) wrote in the same process"
SCHEDULER = "LR_Scheduler/"


def read_paddle(
    reader: Reader, found: Found, parameters: Mapping[str, Tensor], own: Mapping[str, str], stated: Mapping[str, Any]
) -> State:
    """Read the state_dict of a paddle.optimizer."""
    slots, strangers, used = _stored(reader, found)
    called = {key: key for arrays in slots.values() for key in arrays} | {key: name for name, key in own.items()}
    others = {name for name in reader.tensors.keys() - used if any(key in called for key, _ in _split(name, found))}
    _check_others(reader, found, sorted({*strangers, *others}), called)
    family = family_of(reader, (slot for slot in slots if "pow" not in slot), "paddle", {})
    ours: dict[str, list[str]] = {}  # a parameter may have several names in a state_dict, as those of GRU and LSTM
    for name in parameters:
        ours.setdefault(own.get(name, name), []).append(name)
    arrays = [key for slot in FAMILIES[family] for key in slots[MOMENTS[slot].paddle]]
    if unknown := [key for key in dict.fromkeys(arrays) if key not in ours]:
        left = [name for name in parameters if own.get(name, name) not in arrays]
        raise ConvertError(f"{reader.path}: {_unexplained(unknown, left, own)}")
    moments = {
        slot: {name: tensor for key, tensor in slots[MOMENTS[slot].paddle].items() for name in ours[key]}
        for slot in FAMILIES[family]
    }
    hyper: dict[str, Any] = {"kind": "sgd"} if family == "sgd" else {}
    entries = {name: value for name, value in reader.skipped.values.items() if SCHEDULER in f"{name}/"}
    scheduler = _nested({name.partition(SCHEDULER)[2]: value for name, value in entries.items()})
    last = scheduler.get("last_lr")
    hyper |= {"lr": plain_number(reader, "LR_Scheduler/last_lr", last)} if last is not None else {}
    used |= entries.keys()
    step, betas, counts = stated.get("step"), dict[str, float](), dict[str, int]()
    if family == "adam":
        step, betas, counts = _paddle_steps(reader, slots, stated)
    steps = {name: count for key, count in counts.items() for name in ours.get(key, ())}
    stateless = [name for name in parameters if name not in moments[FAMILIES[family][0]]]
    return State(
        "paddle", family, step, {**hyper, **betas}, moments, frozenset(used), scheduler=scheduler, steps=steps,
        buffers=frozenset(name for name in stateless if TENSOR.fullmatch(own.get(name, ""))),
        unclear=tuple(name for name in stateless if own.get(name, name) == name),
    )  # fmt: skip


def _stored(reader: Reader, found: Found) -> tuple[dict[str, dict[str, Tensor]], list[str], set[str]]:
    """Return paddle's arrays as {slot: {parameter's own name: array}}, those that are no such, and the former's names.

    Raises: ConvertError where there are two of one.
    """
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
    return slots, strangers, used


def _nested(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheduler's entries as paddle nests them: LinearWarmup contains those of the scheduler that it wraps."""
    tree: dict[str, Any] = {}
    for name, value in entries.items():
        put(tree, name, value)
    return tree


def _split(name: str, found: Found) -> Iterator[tuple[str, str]]:
    """Yield what may be paddle's name of a parameter in a name, and what is kept of it: linear_0.w_0, moment2_max."""
    name = name.removeprefix(found.root)
    return ((name[: at.start()], at[1]) for at in re.finditer(r"_(?=([a-z]\w*)_\d+$)", name))


def _check_others(reader: Reader, found: Found, names: Sequence[str], called: Mapping[str, str]) -> None:
    """Check that an optimizer keeps nothing but what is converted.

    Args:
      names: of what else it keeps. called: paddle's name of a parameter -> the model's, where it is known.
    Raises: ConvertError that says which optimizer it is.
    """
    if any("master_weights/" in name for name in names):
        raise ConvertError(f"{reader.path}: {MIXED}")
    kept: dict[str, list[str]] = {}  # slot -> parameters
    unknown = []
    for name in names:
        if split := next(((called[key], slot) for key, slot in _split(name, found) if key in called), None):
            kept.setdefault(split[1], []).append(split[0])
        else:
            unknown.append(name)
    alike: dict[tuple[str, ...], list[str]] = {}  # parameters -> slots
    for slot, some in kept.items():
        alike.setdefault(tuple(some), []).append(slot)
    lines = [f"{', '.join(slots)} of {folding.listed(some)}" for some, slots in alike.items()]
    lines += [folding.listed(unknown)] if unknown else []
    kind = next((OTHERS[slot] for slot in kept if slot in OTHERS), "")
    what = f"this is {kind}, not converted" if kind else f"none of {CONVERTED.paddle}"
    if lines:
        raise ConvertError(f"{reader.path}: its optimizer keeps {'; '.join(lines)}: {what}")


def _unexplained(unknown: Sequence[str], left: Sequence[str], own: Mapping[str, str]) -> str:
    """Say that an optimizer keeps moments of parameters that the weights do not name, and what to do.

    Args:
      unknown: paddle's names of them. left: parameters without moments.
    """
    which = f"has moments of {folding.listed(unknown)}"
    if lost := lost_names(own):
        return f"{which}: {lost}"
    if not own:
        like = option("like", "new.pdparams")
        return f"{which}, and the weights have no names of paddle's: {SAME_PROCESS}, or convert them with {like}"
    which += ", which the weights lack"
    named = ", ".join(f"{own.get(name, 'without a name')} ({name})" for name in left[:NAMED])
    more = f" and {len(left) - NAMED:,} more" if left[NAMED:] else ""
    others = f"the weights without moments are {named}{more}" if left else "all weights have moments"
    return f"{which}; {others}: the optimizer is another model's, or of another process: {SAME_PROCESS}"


def _paddle_steps(
    reader: Reader, slots: Mapping[str, Mapping[str, Tensor]], stated: Mapping[str, Any]
) -> tuple[int, dict[str, float], dict[str, int]]:
    """Return the number of steps, the most of all parameters, the betas, and the steps of each where they differ.

    Raises: UsageError as _paddle_step; ConvertError where a parameter lacks a power.
    """
    tensors = [slots.get(f"{beta}_pow_acc", {}) for beta in USUAL_BETAS]
    powers = [{key: scalar(reader, tensor) for key, tensor in its.items()} for its in tensors]
    groups: dict[tuple[float | None, ...], list[str]] = {}
    for key in dict.fromkeys(key for its in powers for key in its):
        groups.setdefault(tuple(its.get(key) for its in powers), []).append(key)
    if len(groups) < 2:
        return *_paddle_step(reader, slots, stated), {}
    if lacking := [key for group, keys in groups.items() if None in group for key in keys]:
        raise ConvertError(f"{reader.path}: {folding.listed(lacking)} lacks a power of a beta: it is incomplete")
    others = {name: value for name, value in stated.items() if name != "step"}
    steps, betas = dict[str, int](), dict[str, float]()
    for keys in groups.values():
        one = {slot: {key: tensor for key, tensor in its.items() if key == keys[0]} for slot, its in slots.items()}
        step, betas = _paddle_step(reader, one, others)
        steps |= dict.fromkeys(keys, step)
    if "step" not in stated:
        return max(steps.values()), betas, steps
    return one_step(reader, set(map(float, steps.values())), stated), betas, {}


def _paddle_step(
    reader: Reader, slots: Mapping[str, Mapping[str, Tensor]], stated: Mapping[str, Any]
) -> tuple[int, dict[str, float]]:
    """Find the number of steps of parameters that were updated alike: paddle stores beta^(steps + 1) for both betas.

    Raises: UsageError where the powers show no number of steps, or another one than is stated.
    """
    found: dict[str, tuple[float, str]] = {}
    for beta in USUAL_BETAS:
        first = next(iter(slots.get(f"{beta}_pow_acc", {}).values()), None)
        found[beta] = (math.nan, "float32") if first is None else (scalar(reader, first), first.dtype)
    counts, agreed = _counted(found, stated)
    betas = {beta: float(stated.get(beta, usual)) for beta, usual in USUAL_BETAS.items()}
    stored = ", ".join(f"{beta}_pow_acc = {measured(power, 9)}" for beta, (power, _) in found.items())
    shown = {beta: value for beta, value in betas.items() if beta in counts or beta in stated}
    written = " and ".join(f"{beta} {exact(value)}" for beta, value in betas.items() if beta in counts)
    if "step" in stated:
        step = int(stated["step"])
        if agreed not in (None, step):
            raise UsageError(f"{reader.path}: step={step} contradicts {stored}: {agreed:,} steps with {written}")
        alike = {beta for beta, each in counts.items() if abs(each - step) < NEAR}
        if unlike := [beta for beta in counts if beta in stated and beta not in alike]:
            raise UsageError(f"{reader.path}: {stored}: not {step:,} steps with {in_a_row(unlike)} as stated")
        return step, {beta: value for beta, value in shown.items() if beta in alike or beta in stated}
    if agreed is None:
        raise UsageError(f"{reader.path}: {stored}: {_uncounted(found, stated, counts, written)}")
    return agreed, shown


def _counted(found: Mapping[str, tuple[float, str]], stated: Mapping[str, Any]) -> tuple[dict[str, float], int | None]:
    """Return the steps that each power shows with the betas that are stated, else usual; and the number if they agree.

    Args:
      found: beta -> its power, and the dtype of that.
    """
    betas = {beta: float(stated.get(beta, usual)) for beta, usual in USUAL_BETAS.items()}
    counts = {beta: each for beta, of in found.items() if (each := steps_of(of[0], betas[beta], of[1])) is not None}
    sure = {beta: NEAR if beta in stated or len(counts) == 2 else SURE for beta in counts}
    whole = {round(each) for each in counts.values()}
    fitting = all(abs(each - round(each)) < sure[beta] for beta, each in counts.items())
    return counts, next(iter(whole)) if len(whole) == 1 and fitting and min(whole) >= 0 else None


def _uncounted(
    found: Mapping[str, tuple[float, str]], stated: Mapping[str, Any], counts: Mapping[str, float], written: str
) -> str:
    """Say why powers show no number of steps, and with which other betas than the stated ones they would."""
    if not counts:
        return "too small to show a number of steps: state --hyper step=..."
    what = f"no whole number of steps with {written}"
    betas = [beta for beta in USUAL_BETAS if beta in stated]
    for some in dict.fromkeys([*((beta,) for beta in betas), tuple(betas)]):
        _, steps = _counted(found, {beta: stated[beta] for beta in betas if beta not in some})
        if some and steps is not None:
            usual = in_a_row([f"{beta}={exact(USUAL_BETAS[beta])}" for beta in some])
            return f"{what}; with {usual} it is {count(steps, 'step')}"
    others = [f"--hyper {beta}=..." for beta in USUAL_BETAS if beta not in stated]
    return f"{what}: state {in_a_row(others)}, or --hyper step=..." if others else f"{what}: state other betas"
