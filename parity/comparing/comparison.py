"""Implement parity.compare: two or three models on the same input."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from convert.errors import ConvertError, UsageError
from convert.records.record import marked_by
from parity.given.own import OWN, Own, is_flax, recognise, wrap
from parity.given.targets import suggestions
from parity.given.usage import (
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
from parity.judging.judge import Subject, judge
from parity.report import Report, Result
from parity.results.tolerance import CHECKS
from parity.results.unequal_weights import UnequalWeights, unequal
from parity.running.ended import without_end
from parity.running.job import cause_of, raised
from parity.running.recording import Recording, mark_random, precision_kept, record
from ports.port import Port
from ports.runners.inputs import OUTPUT, Inputs, is_numpy
from specs.config import written
from specs.kinds import DTYPES
from specs.table import Table
from specs.words import in_a_row

from .about import describe, variant
from .inputs import every_input, listed
from .layouts import find_layouts
from .paired_names import is_paired, paired

if TYPE_CHECKING:
    from parity.derive import Derivation

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
      feature_maps: names of modules (of models that are no ports) whose four-dimensional arrays are images (three- or
        five-dimensional, of a model with 1D or 3D convolutions alone); by default `find_layouts` decides.
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
    inputs = every_input(images, models, check)
    models, names = _named(models, names, check)
    with precision_kept():
        ports = _ports(models, inputs, names, feature_maps, training)
        _require_modules(ports, check)
        if dtype is not None:
            ports = {label: port if port.dtype == dtype else port.with_dtype(dtype) for label, port in ports.items()}
        find_layouts(ports, inputs, check, feature_maps)
        results = _results(ports, inputs, check, steps, first_float64=dtype is None)
    modules = {label: port.tree() for label, port in ports.items() if isinstance(port, Own)}
    return Report(results, describe(ports, inputs, check, steps, results), modules)


def _named(
    models: Mapping[str, Any], names: Mapping[str, Mapping[str, str]] | Table | Derivation | None, check: str
) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, str]]]:
    """Return the models as they are wrapped, and the names of their modules; arguments and errors as in `compare`."""
    if is_paired(names):
        models = {label: model.model if isinstance(model, Port) else model for label, model in models.items()}
        names = paired(names, models, check)
    else:
        ports = [label for label, model in models.items() if isinstance(model, Port)]
        require_names(names or {}, [label for label in models if label not in ports], ports, OUTPUT)
    return models, cast(Mapping[str, Mapping[str, str]], names or {})


def _results(
    ports: Mapping[str, Port | Own], inputs: Mapping[str, Inputs], check: str, steps: int, first_float64: bool
) -> list[Result]:
    """Record all models, and judge each pair; `layers` also of copies in float64, whose results come first."""
    subject = _subject(ports, check)
    weights = _unequal_weights(ports)
    recordings: list[Recording] = []
    for label, port in ports.items():
        reference = recordings[0] if recordings and check == "single-step" else None
        recordings.append(_recorded(port, inputs[label], check, label, reference, steps))
    for port, recording in zip(ports.values(), recordings, strict=True):
        mark_random(recording, check, partial(port.is_random, inputs[recording.label]))
    for each in filter(None, (recordings[0], recordings[0].truth)):
        each.notes += _weights_notes(ports)
    results = judge(subject, recordings)
    twins = [recording.truth for recording in recordings if recording.truth is not None]
    if check == "layers" and first_float64 and len(twins) == len(recordings):
        results = judge(replace(subject, dtype="float64"), twins) + results
    return [replace(result, weights=weights) for result in results]


def _recorded(
    port: Port | Own, inputs: Inputs, check: str, label: str, reference: Recording | None, steps: int
) -> Recording:
    """Record a model; what it raises becomes the recording's cause."""
    try:
        with without_end():
            return record(port, inputs, check, label, reference, steps)
    except UsageError as error:
        raise UsageError(f"{label}: {error.message}") from None
    except Exception as error:  # a model is its user's code: anything may be wrong with it
        cause, unable = cause_of(error, port)
        cause += _called_with(error, is_flax(port), inputs)
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
    ports = {label: _port(label, model, inputs[label], names.get(label), training) for label, model in models.items()}
    require_training(training, {label: port.runner.switches() for label, port in ports.items() if is_flax(port)})
    own = {label: port for label, port in ports.items() if isinstance(port, Own)}
    spelled = {label: port.spellings() for label, port in own.items()}
    for label, port in own.items():
        port.take({name: path for other in own if other != label for name, path in spelled[other].items()})
    for label, port in own.items():
        port.want({name for other in own if other != label for name in own[other].stated_names()})
    names_of = {label: p.possible_names() if isinstance(p, Own) else p.tap_names() for label, p in ports.items()}
    for label, port in own.items():
        port.match({name for other, taps in names_of.items() if other != label for name in taps})
    if feature_maps is not None:
        require_feature_maps(feature_maps, {tap for port in own.values() for tap in port.tap_names()})
    return ports


def _require_modules(ports: Mapping[str, Port | Own], check: str) -> None:
    """Raise UsageError for a check of modules where a model is a function of JAX, which has none."""
    for label, port in ports.items():
        if check in ("layers", "single-step") and port.runner.library == "jax":
            raise UsageError(
                f"{label}: a JAX function has no modules to compare: check='forward' compares its outputs, "
                "'gradients' and 'train' its arrays, paired by names=TABLE"
            )


def _unequal_weights(ports: Mapping[str, Port | Own]) -> UnequalWeights | None:
    """Compare the weights of two models that a Table pairs; None where these are equal, or there is no Table."""
    arrays = {
        label: port.paired.arrays.named(port.state())
        for label, port in ports.items()
        if port.paired is not None and port.paired.arrays is not None
    }
    return unequal(arrays) if arrays else None


def _weights_notes(ports: Mapping[str, Port | Own]) -> list[str]:
    """Say by which lengths the weights of models that a Table pairs were compared, or why they were not."""
    paired = next(iter(ports.values())).paired
    if paired is None or not paired.lengths:
        return []
    if paired.open:
        why = f"as the Table leaves lengths open: {', '.join(paired.open)}"
        return [f"whether the weights are equal was not compared, {why}"]
    lengths = in_a_row(f"{name}={length}" for name, length in paired.lengths.items())
    return [f"arrays are laid out with {lengths}, as in the models that the Table was derived from: no shape shows it"]


def _port(
    label: str,
    model: Any,
    inputs: Inputs,
    names: Mapping[str, str] | None,
    training: Mapping[str, Any] | None,
) -> Port | Own:
    if isinstance(model, Port):
        return model
    try:
        return wrap(model, inputs, names, training)
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
        given = listed(inputs).removeprefix("images ")  # what a lone array is called, whatever it is
        return f"; it was called with {given}: if this does not fit, {EACH_ITS_OWN}"
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
    files = dict.fromkeys(os.path.basename(p.source.path.rstrip("/")) for p in ports.values() if p.source)
    name = " / ".join(files) if name == OWN and files else name
    models = [port for port in ports.values() if isinstance(port, Port)]
    assumed = (text for port in models for name, text in written(port.config).items() if name in port.assumed)
    origins = ({field: marked_by(by) for field, by in port.suggested.items()} for port in models)
    suggested = (text for port, own in zip(models, origins, strict=True) for text in suggestions(port.config, own))
    about = first.architecture, name, check, first.dtype, first.device
    return Subject(*about, tuple(dict.fromkeys(assumed)), tuple(dict.fromkeys(suggested)))
