"""Read the state_dict of a paddle.optimizer."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from convert import folding
from convert.documents import document
from convert.errors import ConvertError, UsageError, command_or_call, option
from convert.files.base import PADDLE_BFLOAT16, Reader, Tensor, meant
from convert.reading.families import CONVERTED, FAMILIES, MOMENTS, TENSOR, lost_names
from convert.reading.masters import MIXED, suffixed
from convert.reading.optimizers import PADDLE, Found
from specs.numbers import exact, measured
from specs.words import count, first_few, in_a_row

from .powers import agrees, beta_of, fits, steps_of
from .settling import open_kind, options
from .shared import family_of, one_step, plain_number, put, scalar
from .state import BETAS, KIND, State

PLACES_OF_OTHERS = 6  # decimals of betas that are noted beside the usual ones: 0.998001 is 0.999 squared
EXACT = 1e-12  # far below the last of these decimals, far above the rounding of float64
USUAL_BETAS = {"beta1": 0.9, "beta2": 0.999}
OTHERS = {"moment2_max": "amsgrad", "mu_product": "NAdam", "inf_norm": "Adamax", "rho": "RAdam"}  # by what they keep
NAMED = 2  # of the parameters without moments that a message names
SAME_PROCESS = "convert the .pdparams that paddle.save(model.state_dict(), ...) wrote in the same process"
SCHEDULER = "LR_Scheduler/"
Powers = dict[str, tuple[float, str]]  # beta -> its power, and the dtype of that
NO_POWERS = "has neither beta1_pow_acc nor beta2_pow_acc: nothing shows the number of steps: state --hyper step=..."


def read_paddle(
    reader: Reader, location: Found, parameters: Mapping[str, Tensor], own: Mapping[str, str], stated: Mapping[str, Any]
) -> State:
    """Read the state_dict of a paddle.optimizer."""
    slots, strangers, used = _stored(reader, location)
    called = {key: key for arrays in slots.values() for key in arrays} | {key: name for name, key in own.items()}
    others = {name for name in reader.tensors.keys() - used if any(key in called for key, _ in _split(name, location))}
    _check_others(reader, location, sorted({*strangers, *others}), called)
    family = family_of(reader, (slot for slot in slots if "pow" not in slot), "paddle", {})
    ours: dict[str, list[str]] = {}  # a parameter may have several names in a state_dict, as those of GRU and LSTM
    for name in parameters:
        ours.setdefault(own.get(name, name), []).append(name)
    arrays = [key for slot in FAMILIES[family] for key in slots[MOMENTS[slot].paddle]]
    if unknown := [key for key in dict.fromkeys(arrays) if key not in ours]:
        kinds = [(kind, slots[kind].keys()) for kind in (MOMENTS[slot].paddle for slot in FAMILIES[family])]
        strange = {key: f"{key}, which the weights lack" for key in unknown}
        _check_pairs(reader.path, kinds, strange, {key: f"{some[0]} ({key})" for key, some in ours.items()})
        left = [name for name in parameters if own.get(name, name) not in arrays]
        each = [(key, t) for slot in FAMILIES[family] for key, t in slots[MOMENTS[slot].paddle].items()]
        fit = [t.shape == parameters[name].shape for key, t in each for name in ours.get(key, ())]
        raise ConvertError(f"{reader.path}: {_unexplained(reader.path, unknown, left, own, any(fit) and all(fit))}")
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
    step, betas, counts, other = stated.get("step"), dict[str, float](), dict[str, int](), ""
    if family == "adam":
        step, betas, counts = _paddle_steps(reader, slots, stated)
        if not stated.keys() & {"step", *USUAL_BETAS}:
            other = _other_reading(reader, slots, betas, step, counts)
    steps = {name: steps_taken for key, steps_taken in counts.items() for name in ours.get(key, ())}
    stateless = [name for name in parameters if name not in moments[FAMILIES[family][0]]]
    stored = {slot: {reader.tensors[tensor.name].dtype for tensor in its.values()} for slot, its in slots.items()}
    bits = [slot for slot, dtypes in stored.items() if PADDLE_BFLOAT16 in dtypes]
    return State(
        "paddle", family, step, {**hyper, **betas}, moments, frozenset(used), scheduler=scheduler, steps=steps,
        buffers=frozenset(name for name in stateless if TENSOR.fullmatch(own.get(name, ""))),
        assumed=(KIND,) if family == "sgd" else (BETAS,) if other else (),
        notes=(*folding.bfloat16(bits, 1), *filter(None, (other,))),
        unclear=tuple(name for name in stateless if own.get(name, name) == name),
    )  # fmt: skip


def _stored(reader: Reader, location: Found) -> tuple[dict[str, dict[str, Tensor]], list[str], set[str]]:
    """Return paddle's arrays as {slot: {parameter's own name: array}}, those that are no such, and the former's names.

    Raises: ConvertError where there are two of one.
    """
    slots: dict[str, dict[str, Tensor]] = {}
    strangers: list[str] = []
    used = set[str]()
    for name, tensor in reader.tensors.items():
        if name.startswith(location.root):
            rest = name.removeprefix(location.root)
            if match := PADDLE.fullmatch(rest):
                if match["own"] in slots.setdefault(match["slot"], {}):
                    raise ConvertError(f"{reader.path}: {name}: its optimizer has two of these: it is damaged")
                slots[match["slot"]][match["own"]] = tensor._replace(dtype=meant(tensor.dtype))
                used.add(name)
            elif location.root or "/" in rest:
                strangers.append(name)
    return slots, strangers, used


def _nested(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheduler's entries as paddle nests them: LinearWarmup contains those of the scheduler that it wraps."""
    tree: dict[str, Any] = {}
    for name, value in entries.items():
        put(tree, name, value)
    return tree


def _split(name: str, location: Found) -> Iterator[tuple[str, str]]:
    """Yield what may be paddle's name of a parameter in a name, and what is kept of it: linear_0.w_0, moment2_max."""
    name = name.removeprefix(location.root)
    return ((name[: at.start()], at[1]) for at in re.finditer(r"_(?=([a-z]\w*)_\d+$)", name))


def _check_others(reader: Reader, location: Found, names: Sequence[str], called: Mapping[str, str]) -> None:
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
        if split := next(((called[key], slot) for key, slot in _split(name, location) if key in called), None):
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


def _check_pairs(path: str, slots: Sequence[tuple[str, Collection[str]]], *names: Mapping[str, str]) -> None:
    """Check that no weight has a part of its moments alone, beside moments of parameters that are no weights.

    Args:
      slots: the kinds of moments, each with paddle's names of the parameters that have it.
      names: paddle's names of these parameters, and of the weights -> how to name them.
    Raises: ConvertError that names both: a key of one may be a changed key of the other.
    """
    halves: list[list[str]] = [[], []]
    for texts, some in zip(halves, names, strict=True):
        for key, name in some.items():
            has, lacks = ([kind for kind, keys in slots if (key in keys) == which] for which in (True, False))
            if has and lacks:
                texts.append(f"{in_a_row(has)} and no {in_a_row(lacks)} of {name}")
    if halves[1]:
        both = "; ".join(first_few(texts, NAMED) for texts in halves if texts)
        raise ConvertError(f"{path}: has {both}: its optimizer is incomplete, or keys of it were renamed")


def _unexplained(path: str, unknown: Sequence[str], left: Sequence[str], own: Mapping[str, str], fit: bool) -> str:
    """Say that an optimizer keeps moments of parameters that the weights do not name, and what to do.

    Args:
      path: of the optimizer's file. unknown: paddle's names of them. left: parameters without moments.
      fit: whether there are moments of weights, all in their weight's shape.
    """
    which = f"has moments of {folding.listed(unknown)}"
    added = {key.removeprefix(name) for key in unknown for name in own.values() if key.startswith(f"{name}_")}
    if len(added) == 1 and {key.removesuffix(*added) for key in unknown} <= {*own.values()}:
        return f"{which}: {suffixed(*added)}"
    if lost := lost_names(own):
        return f"{which}: {lost}"
    if not own:
        like = option("like", "new.pdparams")
        optimizer = command_or_call(f"--optimizer {path}", f"optimizer={path!r}")
        first = f"first convert the weights alone to a .pdparams with {like}, a model with these names"
        lacks = "the weights have no names of paddle's"
        return f"{which}, and {lacks}: {SAME_PROCESS}, or {first}, and then that file with {optimizer}"
    which += ", which the weights lack"
    named = first_few([f"{own.get(name, 'without a name')} ({name})" for name in left], NAMED)
    others = f"the weights without moments are {named}" if left else "all weights have moments"
    other = f"another model's, or of another process: {SAME_PROCESS}"
    if not fit:
        return f"{which}; {others}: the optimizer is {other}"
    shapes = f"{f'{others}, and the others' if left else 'all weights'} have moments of their own shape"
    remedy = f"{document('training')}, To paddle and from it, saves its state without them"
    outside = f"also trains parameters outside of these weights, as of a loss or a second network ({remedy})"
    return f"{which}; {shapes}: the optimizer {outside}, or is {other}"


def _paddle_steps(
    reader: Reader, slots: Mapping[str, Mapping[str, Tensor]], stated: Mapping[str, Any]
) -> tuple[int, dict[str, float], dict[str, int]]:
    """Return the number of steps, the most of all parameters, the betas, and the steps of each where they differ.

    Raises: UsageError as _paddle_step; ConvertError where a parameter lacks a power, or has one that none can be.
    """
    tensors = [slots.get(f"{beta}_pow_acc", {}) for beta in USUAL_BETAS]
    powers = [{key: scalar(reader, tensor) for key, tensor in its.items()} for its in tensors]
    for beta, its in zip(USUAL_BETAS, powers, strict=True):
        if odd := [key for key, power in its.items() if not 0 <= power < 1]:
            what = f"{beta}_pow_acc of {folding.listed(odd)} is {measured(its[odd[0]], 9)}, and no power of a beta"
            raise ConvertError(f"{reader.path}: {what}: the file is damaged")
    if not any(powers):
        return *_paddle_step(reader, slots, stated), {}
    every = dict.fromkeys(key for its in slots.values() for key in its)
    if lacking := [key for key in every if any(key not in its for its in powers)]:
        raise ConvertError(f"{reader.path}: {folding.listed(lacking)} lacks a power of a beta: it is incomplete")
    groups: dict[tuple[float, ...], list[str]] = {}
    for key in every:
        groups.setdefault(tuple(its[key] for its in powers), []).append(key)
    if len(groups) < 2:
        return *_paddle_step(reader, slots, stated), {}
    largest_first = [keys for _, keys in sorted(groups.items(), reverse=True)]
    steps, betas = _each_step(reader, slots, largest_first, {n: value for n, value in stated.items() if n != "step"})
    if "step" not in stated:
        return max(steps.values()), betas, steps
    return one_step(reader, set(map(float, steps.values())), stated), betas, {}


def _each_step(
    reader: Reader,
    slots: Mapping[str, Mapping[str, Tensor]],
    groups: Sequence[Sequence[str]],
    known: Mapping[str, Any],
) -> tuple[dict[str, int], dict[str, float]]:
    """Return the steps of each parameter, and the betas of all.

    Args:
      groups: parameters of equal powers, largest first: few steps leave both powers, which show the betas of all.
      known: what the user states, without the steps.
    Raises: UsageError as _paddle_step; ConvertError for powers that contradict those of most parameters.
    """
    steps, betas = dict[str, int](), dict[str, float]()
    failed: list[tuple[Sequence[str], Powers, UsageError]] = []
    for keys in groups:
        one = {slot: {key: tensor for key, tensor in its.items() if key == keys[0]} for slot, its in slots.items()}
        try:
            step, betas = _paddle_step(reader, one, {**betas, **known})
            steps |= dict.fromkeys(keys, step)
        except UsageError as error:
            failed.append((keys, _stored_powers(reader, one), error))
    if failed:
        odd, stored, problem = [key for keys, *_ in failed for key in keys], *failed[0][1:]
        if _large(stored) and betas.keys() == USUAL_BETAS.keys() and len(odd) < len(steps):
            raise ConvertError(f"{reader.path}: {_contradicting(stored, odd, betas, len(steps))}")
        raise problem
    return steps, betas


def _paddle_step(
    reader: Reader, slots: Mapping[str, Mapping[str, Tensor]], stated: Mapping[str, Any]
) -> tuple[int, dict[str, float]]:
    """Find the number of steps of parameters that were updated alike: paddle stores beta^(steps + 1) for both betas.

    Returns: the steps, and the betas that are stated or that the powers determine.
    Raises: UsageError where the powers show no number of steps, or another one than is stated.
    """
    kept = _stored_powers(reader, slots)
    betas = {beta: float(stated[beta]) for beta in USUAL_BETAS if beta in stated}
    stored = _spelt(kept)
    readings = _readings(kept, betas)
    if "step" not in stated:
        if len(readings) != 1 or (len(_large(kept)) == 1 and not betas.keys() & _large(kept)):
            kind = "" if "kind" in stated else f"paddle's state does not say {open_kind('paddle')}; and "
            is_without = all(math.isnan(power) for power, _ in kept.values())
            problem = NO_POWERS if is_without else f"{stored}: {_uncounted(kept, betas)}"
            raise UsageError(f"{reader.path}: {kind}{problem}")
        return next(iter(readings.items()))
    step = int(stated["step"])
    shown = _betas(kept, betas, step)
    if (shown is None or _large(kept) - shown.keys()) and readings and step not in readings:
        other, its = next(iter(readings.items()))
        written = " and ".join(f"{beta} {exact(value)}" for beta, value in its.items() if beta in _large(kept))
        raise UsageError(f"{reader.path}: step={step} contradicts {stored}: {other:,} steps with {written}")
    if shown is None:
        unlike = [beta for beta, value in betas.items() if not agrees(kept[beta], value, step)]
        raise UsageError(f"{reader.path}: {stored}: not {step:,} steps with {in_a_row(unlike)} as stated")
    return step, shown


def _stored_powers(reader: Reader, slots: Mapping[str, Mapping[str, Tensor]]) -> Powers:
    """Return the powers of the first parameter that has them."""
    kept: Powers = {}
    for beta in USUAL_BETAS:
        first = next(iter(slots.get(f"{beta}_pow_acc", {}).values()), None)
        kept[beta] = (math.nan, "float32") if first is None else (scalar(reader, first), first.dtype)
    return kept


def _other_reading(
    reader: Reader,
    slots: Mapping[str, Mapping[str, Tensor]],
    betas: Mapping[str, float],
    step: int,
    counts: Mapping[str, int],
) -> str:
    """Return a note on other betas that explain all powers, after fewer steps; "" without any.

    Rounding tells them apart after some steps, with 0.9 and 0.999 after 5 in float32 and after 11 in float64.

    Args:
      betas, step, counts: as `_paddle_steps` reads them: usual betas.
    """
    keys = {taken: key for key, taken in counts.items()} or {step: next(iter(slots["beta1_pow_acc"]))}
    each = [(beta, slots[f"{beta}_pow_acc"][key], taken) for beta in betas for taken, key in keys.items()]
    powers = [(beta, scalar(reader, tensor), tensor.dtype, taken + 1) for beta, tensor, taken in each]
    for root in range(2, PLACES_OF_OTHERS + 1):
        others = {beta: round(value**root, PLACES_OF_OTHERS) for beta, value in betas.items()}
        if any(abs(others[beta] - value**root) > EXACT for beta, value in betas.items()):
            continue
        if all(uses % root == 0 < uses // root - 1 and fits(power, others[beta], uses // root - 1, dtype)
               for beta, power, dtype, uses in powers):  # fmt: skip
            usual, unusual = (in_a_row([exact(value) for value in its.values()]) for its in (betas, others))
            fewer = count((step + 1) // root - 1, "step")
            same = f"betas {unusual} after {fewer} fit as well: if these are its, state them by --hyper"
            return f"assumed, not known: betas {usual} after {count(step, 'step')}, as usual; {same}"
    return ""


def _spelt(stored: Powers) -> str:
    return ", ".join(f"{beta}_pow_acc = {measured(power, 9)}" for beta, (power, _) in stored.items())


def _contradicting(stored: Powers, odd: Sequence[str], betas: Mapping[str, float], others: int) -> str:
    """Say which parameters have powers that the betas of the others do not explain.

    Args:
      stored: of the first of them. odd: paddle's names of them. others: the number of parameters that show the betas.
    """
    written = " and ".join(f"{beta} {exact(value)}" for beta, value in betas.items())
    unfit = f"fit no number of steps with {written}, which {count(others, 'other parameter')} show"
    causes = "the file is damaged, or has a group of parameters with betas of its own, which a conversion cannot have"
    return f"the powers of {folding.listed(odd)} ({_spelt(stored)}) {unfit}: {causes}"


def _large(stored: Powers) -> set[str]:
    """Name the betas whose powers are large enough to count steps by."""
    return {beta for beta, (power, dtype) in stored.items() if steps_of(power, USUAL_BETAS[beta], dtype) is not None}


def _readings(stored: Powers, betas: Mapping[str, float]) -> dict[int, dict[str, float]]:
    """Return {steps: betas} that explain all powers: by the stated betas, else by one that is usual, to the last bit.

    One power alone has a usual beta in 1 of some thousand cases by chance.
    """
    known = {beta: betas[beta] for beta in betas if beta in _large(stored)}
    readings = {}
    for beta, value in (known or {beta: USUAL_BETAS[beta] for beta in sorted(_large(stored))}).items():
        steps = round(steps_of(stored[beta][0], value, stored[beta][1]) or 0)
        shown = _betas(stored, betas, steps)
        if shown is not None and shown.keys() >= _large(stored) and (beta in betas or shown[beta] == value):
            readings[steps] = shown
    return readings


def _betas(stored: Powers, betas: Mapping[str, float], steps: int) -> dict[str, float] | None:
    """Return the stated betas and those that powers determine after some steps; None if a stated one does not agree."""
    if steps < 0 or not all(agrees(stored[beta], value, steps) for beta, value in betas.items()):
        return None
    large = _large(stored)
    each = {beta: betas.get(beta) or (beta_of(power, steps, dtype) if beta in large else None)
            for beta, (power, dtype) in stored.items()}  # fmt: skip
    return {beta: value for beta, value in each.items() if value is not None}


def _uncounted(stored: Powers, betas: Mapping[str, float]) -> str:
    """Say why powers show no number of steps, and with which other betas than the stated ones they would."""
    large = _large(stored)
    asked = [beta for beta in USUAL_BETAS if beta in large - betas.keys()]
    vanished = [beta for beta in USUAL_BETAS if beta not in large | betas.keys()]
    whose, them = ("power is", "it") if len(vanished) == 1 else ("powers are", "them")
    beside = f", and {options(vanished)}, whose {whose} too small to show {them}" if vanished else ""
    others = f"state {in_a_row([f'--hyper {beta}=...' for beta in asked])}, or --hyper step=...{beside}"
    if not large:
        return f"too small to show a number of steps: state --hyper step=...{beside}"
    if len(large) == len(asked) == 1:
        steps = "".join(f"; with {asked[0]}={exact(its[asked[0]])} it is {count(n, 'step')}"
                        for n, its in _readings(stored, betas).items())  # fmt: skip
        return f"one power does not show both {asked[0]} and the steps{steps}: {others}"
    written = " and ".join(f"{beta} {exact(betas.get(beta, USUAL_BETAS[beta]))}" for beta in stored if beta in large)
    what = f"no whole number of steps with {written}"
    for some in dict.fromkeys([*((beta,) for beta in betas), tuple(betas)]):
        usual = {beta: USUAL_BETAS[beta] for beta in some}
        if some and (readings := _readings(stored, {**betas, **usual})):
            each = in_a_row([f"{beta}={exact(value)}" for beta, value in usual.items()])
            return f"{what}; with {each} it is {count(next(iter(readings)), 'step')}"
    if rounded := _readings({beta: (power, "float32") for beta, (power, _) in stored.items()}, betas):
        number, its = next(iter(rounded.items()))
        way = " ".join([f"--hyper step={number}", *(f"--hyper {b}={exact(v)}" for b, v in its.items() if b in asked)])
        lamb = "as Lamb, which is not converted, rounds them: if it is another optimizer's"
        return f"{what}, but {count(number, 'step')} with these rounded to float32, {lamb}, state {way}"
    return f"{what}: {others if asked else 'state other betas'}"
