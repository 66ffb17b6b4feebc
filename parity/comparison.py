"""Implement parity.compare: two or three models on the same input."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from convert.errors import ConvertError, UsageError
from convert.versions import version
from ports.port import DTYPES, Port
from ports.runners.inputs import OUTPUT, Inputs, is_numpy
from specs.config import written
from specs.table import Table
from specs.words import count, in_a_row

from .job import cause_of, raised
from .judge import Subject, judge
from .own import OWN, Own, recognise, wrap
from .paired_names import is_paired, paired
from .provenance import fingerprint, script, surroundings
from .recording import ACTIVATIONS, CHECKS, Recording, precision_kept, record
from .report import Report, Result
from .unequal_weights import UnequalWeights, unequal
from .usage import (
    EACH_ITS_OWN,
    of_shapes,
    require_count,
    require_feature_maps,
    require_known,
    require_mapping,
    require_models,
    require_names,
    require_training,
)

if TYPE_CHECKING:
    from .derive import Derivation

FLAX = ("linen", "nnx", "function")  # see recognise


def compare(
    models: Mapping[str, Any],
    images: Any,
    check: str = "forward",
    *,
    names: Mapping[str, Mapping[str, str]] | Table | Derivation | None = None,
    feature_maps: Collection[str] | None = None,
    steps: int = 10,
    dtype: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> Report:
    """Compare models, the first of which is the reference.

        report = parity.compare({"torch": a, "flax": b}, images, check="layers")

    Args:
      models: ports, torch modules, (linen module, variables), bound linen modules, nnx modules, paddle layers or (JAX
        function of parameters and inputs, parameters), by a label each. A function has no modules, so that `layers`
        and `single-step` refuse it.
      images: (n, c, h, w) for all of them, or whatever their models take: an array, a tuple of positional or a dict of
        named arguments, or `parity.Inputs(ids, mask=mask)`. Flax models get arrays with four axes, but for masks of
        bools, as NHWC. Where models take other arguments, {label: parity.Inputs(...)} gives each its own, of the same
        values.
      check: forward, layers, single-step, gradients or train.
      names: for models that are no ports, {label: {path of a module: name to compare it under}}. All other modules
        that hold parameters are compared as without `names`: docs/parity.md says how. What parity.derive returned, or
        a Table, names the modules of two models, of which the first is its left side; of a port, it names the arrays of
        the port's own model, as `specs.dialects.table` does.
      feature_maps: names of modules (of models that are no ports) whose four-dimensional arrays are images; default:
        all of them.
      steps: of training.
      dtype: what to compute in: cast copies of the models run in it. By default the models' own dtype; `layers` then
        compares float64 copies first, and the models' own dtype in rows of its own.
      training: what puts flax models (that are no ports) into training mode, as arguments of their call or attributes
        of their modules: {"inference": False}. By default those of the usual names; {} compares the models as they run.

    Nothing of the models, the images or the frameworks' settings and random numbers is other afterwards.
    Raises: UsageError for fewer than two models, an empty batch, an object that is no model, and a name (of a check,
      a label, a module) that matches nothing.
    """
    require_models(models)
    require_known("check", check, CHECKS)
    require_count("steps", steps)
    if dtype is not None:
        require_known("dtype", dtype, DTYPES)
    require_mapping(training)
    inputs = _every_input(images, models, check)
    own = [label for label, model in models.items() if not isinstance(model, Port)]
    if is_paired(names):
        models = {label: model.model if isinstance(model, Port) else model for label, model in models.items()}
        names = paired(names, models, check)
    else:
        require_names(names or {}, own, [label for label in models if label not in own], OUTPUT)
    names = cast(Mapping[str, Mapping[str, str]], names or {})
    with precision_kept():
        ports = _ports(models, inputs, names, feature_maps, training)
        _require_modules(ports, check)
        if dtype is not None:
            ports = {label: port if port.dtype == dtype else port.with_dtype(dtype) for label, port in ports.items()}
        subject = _subject(ports, check)
        weights = _unequal_weights(ports)
        recordings: list[Recording] = []
        for label, port in ports.items():
            reference = recordings[0] if recordings and check == "single-step" else None
            recordings.append(_recorded(port, inputs[label], check, label, reference, steps))
        _draws(ports, inputs, check, recordings)
        recordings[0].notes += _uncompared_weights(ports)
        results = [replace(result, weights=weights) for result in _results(subject, recordings, dtype is None)]
    modules = {label: port.tree() for label, port in ports.items() if isinstance(port, Own)}
    return Report(results, _about(ports, inputs, check, steps, results), modules)


def _recorded(
    port: Port | Own, inputs: Inputs, check: str, label: str, reference: Recording | None, steps: int
) -> Recording:
    """Record a model; what it raises becomes the recording's cause."""
    try:
        return record(port, inputs, check, label, reference, steps)
    except UsageError as error:
        raise UsageError(f"{label}: {error.message}") from None
    except Exception as error:  # a model is its user's code: anything may be wrong with it
        cause, unable = cause_of(error, port)
        cause += _called_with(error, isinstance(port, Own) and port.framework in ("flax", "jax"), inputs)
        architecture = port.architecture
        return Recording(
            label, port.framework, port.dtype, port.device, cause=cause, unable=unable, architecture=architecture
        )


def _ports(
    models: Mapping[str, Any],
    inputs: Mapping[str, Inputs],
    names: Mapping[str, Mapping[str, str]],
    feature_maps: Collection[str] | None,
    training: Mapping[str, Any] | None,
) -> dict[str, Port | Own]:
    """Wrap each model that is no port; the arguments are those of `compare`. Raises: UsageError."""
    ports = {
        label: _port(label, model, inputs[label], names.get(label), feature_maps, training)
        for label, model in models.items()
    }
    require_training(training, {label: port.runner.switches() for label, port in ports.items() if _is_own_flax(port)})
    own = {label: port for label, port in ports.items() if isinstance(port, Own)}
    spelled = {label: port.spellings() for label, port in own.items()}
    for label, port in own.items():
        port.take({name: path for other in own if other != label for name, path in spelled[other].items()})
    for label, port in own.items():
        port.want({name for other in own if other != label for name in own[other].stated_names()})
    names_of = {label: p.possible_names() if isinstance(p, Own) else p.tap_names() for label, p in ports.items()}
    for label, port in own.items():
        port.match({name for other, found in names_of.items() if other != label for name in found})
    if feature_maps is not None:
        require_feature_maps(feature_maps, {tap for port in own.values() for tap in port.tap_names()})
    return ports


def _require_modules(ports: Mapping[str, Port | Own], check: str) -> None:
    """Raise UsageError for a check of modules where a model is a function of JAX, which has none."""
    for label, port in ports.items():
        if check in ("layers", "single-step") and isinstance(port, Own) and port.runner.library == "jax":
            raise UsageError(
                f"{label}: a JAX function has no modules to compare: check='forward' compares its outputs, "
                "'gradients' and 'train' its arrays, paired by names=TABLE"
            )


def _unequal_weights(ports: Mapping[str, Port | Own]) -> UnequalWeights | None:
    """Compare the weights of two models that a Table pairs; None where these are equal, or there is no Table."""
    arrays = {
        label: port.paired.arrays.named(port.state())
        for label, port in ports.items()
        if isinstance(port, Own) and port.paired is not None and port.paired.arrays is not None
    }
    return unequal(arrays) if arrays else None


def _uncompared_weights(ports: Mapping[str, Port | Own]) -> list[str]:
    """Say why the weights of models that a Table pairs were not compared."""
    first = next(iter(ports.values()))
    lengths = first.paired.open if isinstance(first, Own) and first.paired is not None else ()
    why = f"as the Table leaves lengths open: {', '.join(lengths)}"
    return [f"whether the weights are equal was not compared, {why}"] * bool(lengths)


def _is_own_flax(port: Port | Own) -> bool:
    return isinstance(port, Own) and port.framework == "flax"


def _results(subject: Subject, recordings: list[Recording], first_float64: bool) -> list[Result]:
    results = judge(subject, recordings)
    twins = [recording.truth for recording in recordings if recording.truth is not None]
    if subject.check == "layers" and first_float64 and len(twins) == len(recordings):
        results = judge(replace(subject, dtype="float64"), twins) + results
    return results


def _draws(
    ports: Mapping[str, Port | Own], inputs: Mapping[str, Inputs], check: str, recordings: list[Recording]
) -> None:
    """Mark the recordings of models whose outputs depend on random numbers."""
    for port, recording in zip(ports.values(), recordings, strict=True):
        try:
            recording.random = (
                isinstance(port, Own)
                and not recording.cause
                and port.is_random(inputs[recording.label], check not in ACTIVATIONS)
            )
        except Exception as error:  # whatever a model raises when it is run or traced again: the verdict stands
            what, why = f"whether {recording.label} draws random numbers is unknown", str(error).partition("\n")[0]
            recording.notes.append(f"{what}: {type(error).__name__}: {why}")
        if recording.truth is not None:
            recording.truth.random = recording.random


def _call_class() -> Any:
    """Return the class `parity.Call`; None where nobody has imported it, so that there is no such object."""
    return getattr(sys.modules.get("parity.derive.trace.call"), "Call", None)


def _of_call(images: Any) -> Any:
    """Return the arguments of a `parity.Call`, which `derive` takes; anything else as it is. Raises: UsageError."""
    call = _call_class()
    if call is None or not isinstance(images, call):
        return images
    plain = call()
    if (images.method, images.output) != (plain.method, plain.output):
        raise UsageError("compare runs a model as a whole: it takes a parity.Call without method and output")
    return Inputs(*images.args, **images.kwargs)


def _every_input(images: Any, models: Mapping[str, Any], check: str) -> dict[str, Inputs]:
    """Return the inputs of each model: its own if they are given by label, else the same. Raises: UsageError."""
    if not _by_label(images, models):
        return dict.fromkeys(models, _inputs(images))
    from .derive.trace.inputs import check_inputs

    every = {}
    for label in models:
        try:
            every[label] = _inputs(images[label])
        except UsageError as error:
            raise UsageError(f"{label}: {error.message}") from None
    first, *others = every
    for label in others:
        try:
            check_inputs(every[first].named(is_numpy), every[label].named(is_numpy))
        except UsageError:
            shapes = " and ".join(f"{_listed(every[one])} for {one}" for one in (first, label))
            raise UsageError(f"models are compared on the same values: {shapes} have other ones") from None
        if check not in ACTIVATIONS:
            _require_pairs(every[first], every[label], f"{first} and {label}", check)
    return every


def _require_pairs(one: Inputs, other: Inputs, models: str, check: str) -> None:
    """Raise UsageError where the n-th arrays of two models are not the same."""
    named, others = one.named(is_numpy), [*other.named(is_numpy).values()]
    pairs = ((name, a, b) for (name, a), b in zip(named.items(), others, strict=False))
    unlike = [(name, a, b) for name, a, b in pairs if not np.array_equal(a, b)]
    if len(named) != len(others) or any(a.size != b.size or a.shape == b.shape for _, a, b in unlike):
        raise UsageError(f"{check} pairs the arrays of inputs by their order, which differs for {models}")
    for name, a, b in unlike[:1]:
        what = f"{check} takes arrays with one order of axes: {name} has another one for {models}"
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        raise UsageError(f"{what}, {shapes}: wrap one of them in a model that exchanges these axes")


def _by_label(images: Any, models: Mapping[str, Any]) -> bool:
    """Tell whether inputs are given by the labels of models. Raises: UsageError where a model has none."""
    kinds = (Inputs, _call_class() or Inputs)
    if not isinstance(images, Mapping) or not any(isinstance(one, kinds) for one in images.values()):
        return False
    if images.keys() != models.keys() or not all(isinstance(one, kinds) for one in images.values()):
        raise UsageError(f"inputs by label: give a parity.Inputs for each of {in_a_row(models)}")
    return True


def _listed(inputs: Inputs) -> str:
    """List arrays: "images [2, 3, 8, 8] float32, images:mask [2, 5] bool"."""
    return ", ".join(f"{name} {list(a.shape)} {a.dtype}" for name, a in inputs.named(is_numpy).items())


def _inputs(images: Any) -> Inputs:
    """Convert the inputs to arrays. Raises: UsageError for an empty batch and for what is no array of numbers."""
    inputs = Inputs.of(_of_call(images)).arrays()
    named = inputs.named(is_numpy)
    if not named:
        raise UsageError("the inputs hold no array: there is nothing to run the models on")
    for name, array in named.items():
        if array.dtype.kind not in "fiub":
            other = "" if array.dtype.kind != "O" else ": pass an array, a tuple of them, a dict or parity.Inputs(...)"
            raise UsageError(f"{name} must be an array of numbers, not of {array.dtype}{other}")
        if not array.size:
            raise UsageError(f"{name} of shape {list(array.shape)} are empty: nothing would be compared")
    return inputs


def _port(
    label: str,
    model: Any,
    inputs: Inputs,
    names: Mapping[str, str] | None,
    feature_maps: Collection[str] | None,
    training: Mapping[str, Any] | None,
) -> Port | Own:
    if isinstance(model, Port):
        return model
    try:
        return wrap(model, inputs, names, feature_maps, training)
    except ConvertError as error:
        raise UsageError(f"{label}: {error.message}") from None
    except Exception as error:  # a flax model is run to list its modules
        hint = _called_with(error, recognise(model)[0] in FLAX, inputs)
        raise UsageError(f"{label}: {raised(error)}{hint}") from error


def _called_with(error: Exception, is_flax: bool, inputs: Inputs) -> str:
    """Say what a model that raises an error about a shape was called with, and how images are laid out for flax."""
    if not of_shapes(error):
        return ""
    images = [a.shape for a in inputs.named(is_numpy).values() if a.ndim == 4 and a.dtype.kind != "b"]
    if not (is_flax and images):
        return f"; it was called with {_listed(inputs)}: {EACH_ITS_OWN}"
    shape = images[0]
    last = [shape[0], *shape[2:], shape[1]]
    return (
        f"; images are given channels first to all models, (n, c, h, w): flax gets the input of shape {list(shape)} as "
        f"{last}; if these are channels last, give x.transpose(0, 3, 1, 2)"
    )


def _subject(ports: Mapping[str, Port | Own], check: str) -> Subject:
    first = next(iter(ports.values()))
    kinds = {p.dtype for p in ports.values()}
    if len(kinds) > 1:
        dtypes = ", ".join(f"{label} {p.dtype}" for label, p in ports.items())
        raise UsageError(
            f"the models compute in different dtypes ({dtypes}): bring them to one, or pass dtype='float64'"
        )
    name = variant(first)
    files = dict.fromkeys(
        os.path.basename(p.source.path.rstrip("/")) for p in ports.values() if isinstance(p, Port) and p.source
    )
    name = " / ".join(files) if name == OWN and files else name
    models = [port for port in ports.values() if isinstance(port, Port)]
    assumed = (text for port in models for name, text in written(port.config).items() if name in port.assumed)
    return Subject(first.architecture, name, check, first.dtype, first.device, tuple(dict.fromkeys(assumed)))


def variant(port: Port | Own) -> str:
    """Return the name of the official variant or tiny twin that a port is, or "own"."""
    if isinstance(port, Own):
        return OWN
    return next((name for name, config in port.spec.named.items() if config == port.config), OWN)


def _about(
    ports: Mapping[str, Port | Own], inputs: Mapping[str, Inputs], check: str, steps: int, results: Sequence[Result]
) -> dict[str, str]:
    """Return what was run on what, by label."""
    about = {"check": check + (f", {count(steps, 'step')}" if check == "train" else "")}
    arrays = {label: of.named(is_numpy) for label, of in inputs.items()}
    listed = {label: _listed(of) for label, of in inputs.items()}
    one = len(set(map(id, inputs.values()))) == 1  # the same for all
    first = next(iter(listed))
    about["inputs"] = listed[first] if one else "; ".join(f"{label}: {text}" for label, text in listed.items())
    own = {label: port for label, port in ports.items() if isinstance(port, Own)}
    if len(own) == len(ports):
        about["inputs"] = about["inputs"].removeprefix("images ")  # what a lone array is called, whatever it holds
        about["models"] = in_a_row(f"{port.modules[''].kind} ({label})" for label, port in own.items())
    devices = {port.device for port in ports.values()}
    known = {label: _known(port) for label, port in ports.items() if isinstance(port, Port)}
    about |= {"model": next(iter(known.values()))} if len({*known.values()}) == 1 else {}
    alone = {label: "" if "model" in about else f"{text}; " for label, text in known.items()}
    alone |= {label: f"{port.modules[''].kind}{f' in {port.file}' * bool(port.file)}; " for label, port in own.items()}
    sides, weights = _states(ports, check, results)
    return {
        **about,
        **script(),
        **surroundings("gpu" if "gpu" in devices else "cpu"),
        **{label: alone.get(label, "") + text for label, text in sides.items()},
        "hash of inputs": fingerprint(arrays[first])
        if one
        else "; ".join(f"{label}: {fingerprint(of)}" for label, of in arrays.items()),
        **weights,
    }


def _states(
    ports: Mapping[str, Port | Own], check: str, results: Sequence[Result]
) -> tuple[dict[str, str], dict[str, str]]:
    """State of each model, by its label, what it is; and by "LABEL weights" its file with a hash, or its own hash."""
    known = {label: port.source for label, port in ports.items() if isinstance(port, Port)}
    digests = {source: source.digest() for source in known.values() if source}  # each file is read once
    sides, weights = dict[str, str](), dict[str, str]()
    for label, port in ports.items():
        state, source = port.state(), known.get(label)
        sides[label] = _side(port, state, check, results)
        part = f" under {source.part!r}" if source and source.part else ""
        own = f"from no file, {count(len(state), 'array')}"
        weights[f"{label} weights"] = (
            f"{source.path}{part}, {digests[source]}" if source else f"{own}, {fingerprint(state)}"
        )
    return sides, weights


def _known(port: Port) -> str:
    """State the architecture, the variant and every setting of a port."""
    settings = ", ".join(text + " (assumed)" * (name in port.assumed) for name, text in written(port.config).items())
    name = variant(port)
    return f"{port.architecture}{'' if name == OWN else f':{name}'} ({settings})"


def _side(port: Port | Own, state: Mapping[str, Any], check: str, results: Sequence[Result]) -> str:
    """State the framework, version, dtypes, device and mode of a model."""
    mode = "evaluation" if check in ACTIVATIONS else "training"
    others = {array.dtype.name for array in state.values() if array.dtype.kind == "f"} - {port.dtype}
    mixed = f", arrays in {', '.join(sorted(others))} as well" if others and port.dtype != "bfloat16" else ""
    dtypes = in_a_row(dict.fromkeys([*(r.dtype for r in results), port.dtype]))
    return f"{port.framework} {version(port.framework)}, {dtypes}{mixed}, {port.device}, {mode} mode"
