"""Read the state of an optax optimizer, nested as chains nest it, also within nnx.Optimizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from convert import folding
from convert.errors import ConvertError
from convert.files.base import Reader, Tensor
from convert.reading.families import CONVERTED, FAMILIES, HYPERPARAMETERS, MOMENTS, NEEDED
from convert.reading.optimizers import PARTITION, VALUE, Found, state_names, step_beside
from specs.numbers import exact, measured
from specs.words import in_a_row

from .shared import ALONE, family_of, one_step, scalar
from .state import KIND, State

SCHEDULES = "/hyperparams_states/"  # where inject_hyperparams counts the steps of those that follow a schedule
MASKED = "/inner_state/"  # where optax.masked keeps its optimizer, without moments of what it does not train
AROUND = {
    "mini_step": "optax.MultiSteps wraps the state of an optimizer: save {params, step: opt_state.gradient_step, "
    "opt_state: opt_state.inner_opt_state} after the last of the steps that it accumulates",
    "notfinite_count": "optax.apply_if_finite wraps the state of an optimizer: save {params, step, "
    "opt_state: opt_state.inner_state}",
}  # array of a state that has an optimizer's own within it -> how to save that


def read_optax(reader: Reader, location: Found, parameters: Mapping[str, Tensor], stated: Mapping[str, Any]) -> State:
    """Read the state of an optax optimizer, nested as chains nest it, also within nnx.Optimizer."""
    used = state_names(reader, location)
    entries = _sorted(reader, location, used)
    family = family_of(reader, entries.slots, "optax", {})
    if entries.hyper.get("eps_root"):
        raise ConvertError(f"{reader.path}: eps_root: neither torch nor paddle adds epsilon within the square root")
    named = {s: _matched(reader, entries.slots[MOMENTS[s].optax], parameters) for s in FAMILIES[family]}
    without = _without_moments(reader, location, parameters, named[FAMILIES[family][0]])
    buffers = frozenset() if MASKED in f"/{location.root}" else without
    spelt = {name: HYPERPARAMETERS[name].optax for name in NEEDED[family]}
    known = {name: entries.hyper[theirs] for name, theirs in spelt.items() if theirs in entries.hyper}
    notes = _scheduled(used, entries.hyper, stated)
    if location.others:
        labels = in_a_row(dict.fromkeys(root.partition(PARTITION)[2].partition("/")[0] for root in location.roots))
        what = f"the states of the labels {labels} of optax.multi_transform go along as that of one optimizer"
        notes = (*notes, f"{what}, with one kind and one value of each hyperparameter: the file does not show theirs")
    step: int | None = None
    assumed = (KIND,) if family == "sgd" else ()
    if family == "sgd":
        unnamed = () if "kind" in stated else ("optax's state does not name its optimizer: read as that of sgd",)
        notes = (*notes, *unnamed)
        known["kind"] = "sgd"
    steps, plain = dict(entries.steps), reader.skipped.load().get(step_beside(location))
    if family == "sgd" and type(plain) is int:  # Adam itself counts
        steps[step_beside(location)] = plain
    counts = set(steps.values())
    if family != "sgd" or "step" in stated or len(counts) == 1:
        step = one_step(reader, counts, stated)
    elif counts:
        each = ", ".join(f"{name}={measured(count, 9)}" for name, count in steps.items())
        notes = (*notes, f"counts of steps do not agree ({each}), and none goes along: --hyper step=... states one")
    return State("optax", family, step, known, named, used, notes, assumed, buffers=buffers, counted=entries.counted)


class Entries(NamedTuple):
    """What a state stores.

    Args:
      slots: {slot: {name: moment}}. steps: {name: its count of steps}. hyper: hyperparameters, as optax spells them.
      counted: whether a count lies beside that of the moments, as schedules have one.
    """

    slots: dict[str, dict[str, Tensor]]
    steps: dict[str, float]
    hyper: dict[str, Any]
    counted: bool


def _sorted(reader: Reader, location: Found, used: Collection[str]) -> Entries:
    """Sort the arrays of a state by what they are. Raises: ConvertError for any that no known optimizer keeps."""
    slots: dict[str, dict[str, Tensor]] = {}
    beside = step_beside(location)
    steps, hyper, strangers, counted = dict[str, float](), dict[str, Any](), list[str](), False
    for name, tensor in reader.tensors.items():
        if name not in used:
            continue
        root = next(filter(name.startswith, location.roots), location.root)
        slot, _, tail = name.removeprefix(root).partition("/")
        base = name.removesuffix(VALUE)
        last = base.rpartition("/")[2]
        if name.startswith(root) and tail and slot != "count":
            if tail in slots.get(slot, ()):
                raise ConvertError(f"{reader.path}: several labels of optax.multi_transform keep {slot} of {tail}")
            slots.setdefault(slot, {})[tail] = tensor
        elif "/hyperparams/" in f"/{base}":
            value = scalar(reader, tensor)
            if hyper.setdefault(last, value) != value:
                what = f"its labels have several values of {last}, {exact(hyper[last])} and {exact(value)}"
                raise ConvertError(f"{reader.path}: {what}, and one optimizer has one: leave --with-optimizer out")
        elif (last in ("count", "step") or name == beside) and tensor.size == 1 and "int" in tensor.dtype:
            steps[name] = scalar(reader, tensor)
            counted = counted or (last == "count" and base != f"{root}count")
        else:
            strangers.append(name)
    if strangers:
        what = f"its optimizer also keeps {folding.listed(strangers)}"
        last_names = {name.removesuffix(VALUE).rpartition("/")[2] for name in strangers}
        advice = next((f"{how}, or " for field, how in AROUND.items() if field in last_names), "")
        raise ConvertError(f"{reader.path}: {what}: it is none of {CONVERTED.optax} alone: {advice}{ALONE}")
    return Entries(slots, steps, hyper, counted)


def _scheduled(names: Collection[str], hyper: Mapping[str, Any], stated: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a note on values that inject_hyperparams stores as its schedules gave them at the last step."""
    scheduled = {name.partition(SCHEDULES)[2].partition("/")[0] for name in names if SCHEDULES in f"/{name}"}
    old = [
        f"{ours}={exact(hyper[spelt.optax])}"
        for ours, spelt in HYPERPARAMETERS.items()
        if spelt.optax in scheduled & hyper.keys() and ours not in stated
    ]
    what = f"inject_hyperparams stores {in_a_row(old)} of the last step, and the next one takes what its schedule gives"
    return (f"{what}: state that by --hyper",) if old else ()


def _without_moments(
    reader: Reader, location: Found, parameters: Mapping[str, Tensor], moments: Collection[str]
) -> frozenset[str]:
    """Return the parameters without moments. Raises: ConvertError where another optimizer of optax may train these."""
    others = frozenset(name for name in parameters if name not in moments)
    if PARTITION in f"/{location.root}" and others:
        weights = folding.listed([name for name in parameters if name in others])
        what = f"optax.multi_transform keeps no moments of {weights}, as several optimizers train or freeze parts"
        raise ConvertError(f"{reader.path}: {what}, of which this file shows one: leave --with-optimizer out")
    return others


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
    strange = folding.listed(arrays)
    raise ConvertError(f"{reader.path}: its optimizer keeps moments of other parameters than the model's: {strange}")
