"""Record what one model does, as plain arrays: all that a comparison needs, without any framework."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from convert.errors import ConvertError
from parity.given.own import OWN, Own
from parity.given.quoting import some
from parity.given.views import View
from parity.results.elements import by_feature, double, feature_axis, movement
from ports.port import Port
from ports.runners.inputs import OUTPUT, Inputs
from ports.runners.records import Optimizer, Tap, outputs
from specs.notation.paths import pattern
from specs.numbers import exact
from specs.words import count, hint, in_a_row

from .hub import own_leaves, to_hub
from .training_settings import momenta

OPTIMIZERS = ("sgd", "adam", "adamw")
SEEDS = 64  # of dropout: each call's masks are looked at together
# Shares by which weights are moved to measure how a run amplifies rounding: eight roundoffs, as much as rounding
# gathers over some layers. In float32 once each way: what crosses the kink of a ReLU one way stays put the other.
JITTER = {"float64": (2.0**-50,), "float32": (2.0**-21, -(2.0**-21))}
ACTIVATIONS = ("forward", "layers", "single-step")  # checks of activations: cheap, so that truths are jittered too
TRACED = ("layers", "single-step")  # checks that record each call of a layer
WEIGHTS = 64 << 20  # bytes of weights that a recording may carry along for its guesses


@dataclass
class Recording:
    """One model under one check.

    Args:
      architecture: of a port; OWN for a user's model.
      arrays: what is compared, in the order in which a fault would show first.
      taps: inputs and outputs of each call, for single steps and guesses.
      weights: the model's arrays in the shared names and layout, for guesses.
      kinds: kind of layer at each path.
      truth: the same recorded in float64, where this is in a lower dtype.
      cause: why there is nothing, where there is nothing.
      unable: whether that is the framework's limit, and not a failure.
      masks: beside the arrays of training, which then runs without dropout: what `_masks` measures of each call of it.
      spread: how far each array moves, feature by feature, when every weight moves by JITTER; empty if not measured.
      untrained: shapes of the model's arrays that take no gradient, for `gradients`.
      random: whether its outputs are known to depend on random numbers, other than those of dropout.
      origin: where values that are not finite arise first; "" if all are finite, or if no tap shows it.
      holds: the parameter there that is not finite: "dense.bias holds NaN"; "" if none is known.
      file: the checkpoint that its weights were loaded from; "" for none. part: the part of it that has them.
      spelled: what the model calls the arrays of known layers that have another name here: {"fc.kernel": "weight"}.
      views: how arrays of a user's own model are laid out here, where they are not as it has them.
      tabled: whether a Table pairs its modules: by their arrays, so that what they return may have other shapes.
      momenta: of the model's batch norms, see momentum; read for `train` alone.
      notes: what was computed otherwise than the framework does, not run or not measured, and why.
    """

    label: str
    framework: str
    dtype: str
    device: str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    taps: list[Tap] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    truth: Recording | None = None
    cause: str = ""
    unable: bool = False
    masks: list[list[float]] | None = None
    spread: dict[str, np.ndarray] = field(default_factory=dict)
    untrained: dict[str, tuple[int, ...]] = field(default_factory=dict)
    random: bool = False
    origin: str = ""
    holds: str = ""
    momenta: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    architecture: str = OWN
    file: str = ""
    part: str = ""
    tabled: bool = False
    views: dict[str, View] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)


def record(
    model: Port | Own,
    inputs: Any,
    check: str,
    label: str = "",
    feed: Recording | None = None,
    steps: int = 10,
) -> Recording:
    """Run a check on a model, and on its float64 twin where its dtype is lower.

    Args:
      inputs: images (n, c, h, w), or whatever the model takes.
      feed: for single-step, the reference whose inputs each layer gets.
      steps: of training, each on other inputs.
    """
    training = check not in ACTIVATIONS
    rates = model.dropout_rates() if training else []
    with model.no_dropout() if rates else nullcontext(model) as settled:
        recording = _record(settled, inputs, check, label, feed, steps)
    if rates and check == "train":
        recording.masks = _masks(model, inputs)
    if rates:
        recording.notes.append(_dropout_note(list(dict.fromkeys(rates)), recording.masks))
    for each in filter(None, (recording, recording.truth)):
        each.notes += [*model.switched(training), *model.turned()]
    if check in TRACED:
        recording.notes += _uncalled_maps(model, recording)
    if model.source:
        if model.altered:
            recording.notes.append(f"{os.path.basename(model.source.path)}: {model.altered}")
        for each in filter(None, (recording, recording.truth)):
            each.file, each.part = model.source.path, model.source.part
    return recording


def mark_random(recording: Recording, check: str, is_random: Callable[[bool], bool]) -> None:
    """Mark a recording, and its float64 twin, of a model whose outputs depend on random numbers.

    Args:
      is_random: tells that of the model in training mode (True) or in evaluation mode.
    """
    try:
        recording.random = not recording.cause and is_random(check not in ACTIVATIONS)
    except Exception as error:  # whatever a model raises when it is run or traced again: the verdict stands
        what, why = f"whether {recording.label} draws random numbers is unknown", str(error).partition("\n")[0]
        recording.notes.append(f"{what}: {type(error).__name__}: {why}")
    if recording.truth is not None:
        recording.truth.random = recording.random


def _dropout_note(rates: Sequence[str], masks: Sequence[Any] | None) -> str:
    """Say where dropout is judged; or that no mask is, as a rate of the Config reaches no call of dropout.

    Args:
      rates: what makes training random, see `dropout_rates`. masks: None where the check does not run dropout.
    """
    if masks is not None and not masks:
        return f"no mask of dropout was judged: {in_a_row(rates)} is above 0, but no call of dropout has a rate above 0"
    return f"dropout was off ({', '.join(rates)}): train judges its masks by themselves"


def _uncalled_maps(port: Port | Own, recording: Recording) -> Iterator[str]:
    """Say which feature maps of the page no call and no layer of a small Config has: names that may be misspelt."""
    if port.spec is None:
        return
    called = {pattern(tap.name.partition("#")[0]) for tap in recording.taps}
    every = [port.layers(), *(port.spec.layers(config) for config in port.spec.tiny.values())]
    known = called | {pattern(layer.path) for layers in every for layer in layers}
    for path in port.spec.feature_maps:
        if path not in known and not any(name.startswith(f"{path}.") for name in known):
            yield f"feature_maps lists {path!r}, which this model never calls{hint(path, known)}"


def _record(model: Port | Own, inputs: Any, check: str, label: str, feed: Recording | None, steps: int) -> Recording:
    """Record a model without random drops, its spread and its twin."""
    recording = _run(model, inputs, check, label, feed, steps)
    recording.spread = _spread(recording, model, inputs, check, feed, steps)
    recording.origin, recording.holds = _origin(recording, model, inputs)
    if model.dtype != "float64":
        feed = feed.truth if feed is not None and feed.truth is not None else feed
        with precision_kept():  # the models that are run next compute in their own dtype
            twin = model.with_dtype("float64")
            recording.truth = _run(twin, inputs, check, label, feed, steps)
            if check in ACTIVATIONS:
                recording.truth.spread = _spread(recording.truth, twin, inputs, check, feed, steps)
                recording.truth.origin, recording.truth.holds = _origin(recording.truth, twin, inputs)
    return recording


@contextmanager
def precision_kept() -> Iterator[None]:
    """Restore jax's float64 mode, which the float64 twin of a float32 model turns on, when the block ends."""
    jax = sys.modules.get("jax")
    before = jax.config.jax_enable_x64 if jax else None
    try:
        yield
    finally:
        if jax:
            jax.config.update("jax_enable_x64", before)


def _run(model: Port | Own, inputs: Any, check: str, label: str, feed: Recording | None, steps: int) -> Recording:
    """Record a model once, with what guesses need where its calls are recorded."""
    recorded = _RECORDERS[check](model, inputs, feed, steps)
    traced, output = check in TRACED, recorded.arrays.get(OUTPUT)
    state = model.state() if traced else {}
    unrun = [*model.unreached(recorded.taps), *model.left_out()] if traced else []
    is_lower = model.dtype == "float64" and output is not None and output.dtype in (np.float32, np.float16)
    cause = f"computes in {recorded.arrays[OUTPUT].dtype}, although its weights are float64" if is_lower else ""
    return Recording(
        label or model.framework, model.framework, model.dtype, model.device, recorded.arrays,
        architecture=model.architecture, taps=[*recorded.taps], momenta=[*recorded.momenta],
        weights=_shared(model, state) if 0 < sum(array.nbytes for array in state.values()) <= WEIGHTS else {},
        kinds={model.shared(layer.path): layer.kind for layer in model.layers()} if traced else {},
        cause=cause, unable=bool(cause), notes=[*recorded.notes, *unrun, *model.notes], tabled=model.paired is not None,
        untrained=dict(recorded.untrained), spelled=_spelled(model) if check != "forward" else {},
        views=dict(model.views) if check in ACTIVATIONS else {},
    )  # fmt: skip


def _spread(
    recording: Recording, model: Port | Own, inputs: Any, check: str, feed: Recording | None, steps: int
) -> dict[str, np.ndarray]:
    """Measure how far a recording's arrays move with the weights; {} and a note where the model cannot be copied."""
    spread: dict[str, np.ndarray] = {}
    for share in JITTER.get(model.dtype, ()):
        try:
            moved = _RECORDERS[check](model.jittered(share, seed=0), inputs, feed, steps).arrays
        except Exception as error:  # whatever a model raises when it is copied; the comparison itself does not need it
            recording.notes.append(f"how it amplifies rounding was not measured: {type(error).__name__}: {error}")
            return {}
        for name, array in recording.arrays.items():
            if name in moved and moved[name].shape == array.shape:
                moves = movement(array, moved[name])
                largest = by_feature(moves, feature_axis(check, name, moves))
                spread[name] = np.maximum(spread.get(name, 0.0), largest)
    return spread


def _origin(r: Recording, model: Port | Own, inputs: Any) -> tuple[str, str]:
    """Describe the first tap of inference with NaN, else with infinities, and what brings them in; "" for neither."""
    kinds = (("NaN starts", np.isnan), ("infinities start", np.isinf))
    kind, is_bad = next((k for k in kinds if any(_any(k[1], array) for array in r.arrays.values())), ("", np.isnan))
    if not kind:
        return "", ""
    try:
        taps = r.taps or model.trace(inputs)
    except ConvertError:  # modules that cannot be taps; `layers` reports them
        return "", ""
    before = last = ""
    for tap in taps:
        if any(_any(is_bad, array) for array in tap.outputs):
            if tap.name == OUTPUT and before:  # the model's own code, which is no module that has inputs
                return f"{kind} in the model's own code, behind {last!r}, which returns finite values", ""
            where = f"{kind} in {tap.name!r}"
            if not all(_finite(array) for array in tap.inputs):
                return f"{where}, whose inputs are not finite either{before}", ""
            weights = _shared(model, model.state())
            bad = [name for name, a in weights.items() if name.startswith(f"{tap.name.partition('#')[0]}.")]
            bad = [name for name in bad if not _finite(weights[name])]
            holds = f"{_spelled_name(bad[0], model)} holds {_kind_of(weights[bad[0]])}" if bad else ""
            return f"{where}, whose inputs are finite" + f": {holds}" * bool(holds), holds
        last = tap.name
        before = f", though what {tap.name!r} returned before is finite" if all(map(_finite, tap.outputs)) else ""
    return "", ""


def _spelled_name(name: str, model: Port | Own) -> str:
    """Return the name that a model itself has for an array of a known layer."""
    layer, dot, leaf = name.rpartition(".")
    return f"{layer}{dot}{_spelled(model).get(name, leaf)}" if isinstance(model, Own) else name


def _kind_of(array: np.ndarray) -> str:
    return "NaN" if _any(np.isnan, array) else "infinities"


def _any(test: Callable[[Any], Any], array: np.ndarray) -> bool:
    return bool(test(double(array)).any())


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(double(array)).all())


class Recorded(NamedTuple):
    """What one run of a check shows; see Recording."""

    arrays: dict[str, np.ndarray]
    taps: Sequence[Tap] = ()
    notes: Sequence[str] = ()
    momenta: Sequence[str] = ()
    untrained: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def _forward(model: Port | Own, inputs: Any, *_: Any) -> Recorded:
    return Recorded(model.outputs(inputs))


def _layers(model: Port | Own, inputs: Any, *_: Any) -> Recorded:
    taps = model.trace(inputs)
    return Recorded(dict(outputs(taps)), taps)


def _single_step(model: Port | Own, inputs: Any, feed: Recording | None, *_: Any) -> Recorded:
    """Run each layer on the reference's recorded input, and record the input that it would have had as well.

    The whole model's own inputs are the same on all sides, whatever the order of its arguments is.
    """
    taps = model.trace(inputs, {tap.name: tap.inputs for tap in feed.taps if tap.name != OUTPUT} if feed else None)
    return Recorded({name: array for tap in taps for name, array in tap.arrays()}, taps)


def _shared(model: Port | Own, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays under the names and in the layout that all frameworks share."""
    named = to_hub(model.layers(), model.framework, arrays)
    return {model.shared(own): array for own, array in named.items()}


def _paired(model: Port | Own, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return arrays as the other model has them too: by shared names, or a Table, with what that leaves unjudged."""
    table = model.paired.arrays if model.paired is not None else None
    return (_shared(model, arrays), []) if table is None else (table.named(arrays), table.notes(arrays))


def _spelled(model: Port | Own) -> dict[str, str]:
    if model.paired is not None and model.paired.arrays is not None:
        return {}
    return {model.shared(name): leaf for name, leaf in own_leaves(model.layers(), model.framework).items()}


def _gradients(model: Port | Own, inputs: Any, *_: Any) -> Recorded:
    """Record in the order of the backward pass: a wrong gradient spoils only what comes after it here."""
    gradients = model.gradients(inputs)
    named, unjudged = _paired(model, gradients.parameters)
    arrays = {"loss": np.asarray(gradients.loss), **gradients.outputs}
    arrays |= {name: named[name] for name in reversed(named)} | gradients.inputs
    state, also = _paired(model, model.state()) if isinstance(model, Own) else ({}, [])
    notes = list(dict.fromkeys([*unjudged, *_without_effect(named), *also]))
    untrained = {name: array.shape for name, array in state.items() if name not in named}
    return Recorded(arrays, notes=notes, untrained=untrained)


def _without_effect(gradients: Mapping[str, np.ndarray]) -> list[str]:
    """Name the parameters of which an agreement says nothing, as they may be read nowhere."""
    names = [name for name, gradient in gradients.items() if gradient.size and not gradient.any()]
    whose = f"{count(len(names), 'parameter')} {'has' if len(names) == 1 else 'have'} a gradient of 0 as a whole"
    why = "no code reads it, or it has no effect, as in a softmax over one value"
    return [f"{whose}, which says that {why}: {some(names)}"] if names else []


def _train(model: Port | Own, inputs: Any, _feed: Any, steps: int) -> Recorded:
    arrays, notes = dict[str, np.ndarray](), list[str]()
    for name in OPTIMIZERS:
        trained = model.train(batches(inputs, steps), Optimizer(name=name))
        named, unjudged = _paired(model, {**trained.parameters, **trained.statistics})
        arrays[f"{name}: losses"] = np.asarray(trained.losses)
        arrays |= {f"{name}: {key}": array for key, array in named.items()}
        notes += [*unjudged, *trained.notes]
    shares = momenta(model.runner.model)
    return Recorded(arrays, notes=list(dict.fromkeys(notes)), momenta=shares)


def _masks(model: Port | Own, inputs: Any) -> list[list[float]]:
    """Return [rate, units, units with nonzero input, kept among these, worst deviation of scale] for every call of
    dropout, over all seeds. Which inputs are 0 depends on the masks before, and so differs between frameworks.
    """
    runs = [model.dropout_calls(inputs, seed) for seed in range(SEEDS)]
    calls = zip(*runs, strict=True)
    return [
        [
            call[0].rate,
            sum(d.units for d in call),
            sum(d.kept.size for d in call),
            sum(int(d.kept.sum()) for d in call),
            max(d.scale for d in call),
        ]
        for call in calls
    ]


def training(steps: int) -> str:
    """State how a check trains: its optimizers with their hyperparameters, and what each step takes."""
    o = Optimizer(name=OPTIMIZERS[0])
    rates = f"learning rate {exact(o.rate)}, weight decay {exact(o.decay)}"
    adam = f"beta1={exact(o.beta1)}, beta2={exact(o.beta2)}, epsilon={exact(o.epsilon)}"
    how = f"SGD (momentum={exact(o.momentum)}), and of Adam and AdamW ({adam}): {rates}"
    return f"{count(steps, 'step')} of {how}; each step adds other noise to inputs that are no integers"


def batches(inputs: Any, steps: int) -> Sequence[Inputs]:
    """Return as many batches as steps, each with other noise on what is no integer: the same for all frameworks."""
    rng = np.random.default_rng(1)

    def noisy(array: np.ndarray) -> np.ndarray:
        floating = np.issubdtype(array.dtype, np.floating)
        return array + 0.5 * rng.standard_normal(array.shape) if floating else array

    return [Inputs.of(inputs).map(noisy) for _ in range(steps)]


_RECORDERS: Mapping[str, Callable[..., Recorded]] = {
    "forward": _forward, "layers": _layers, "single-step": _single_step, "gradients": _gradients, "train": _train,
}  # fmt: skip
