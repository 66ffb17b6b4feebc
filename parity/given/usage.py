"""Check what a user passes to `parity.compare`: a name must match something, or the nearest one is suggested."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from convert.errors import UsageError
from ports.runners.inputs import Inputs
from specs.words import FAR, hint, with_article

EACH_ITS_OWN = "give inputs that every model takes, or each model its own, as {label: parity.Inputs(...)}"


def require_known(kind: str, name: Any, known: Iterable[str]) -> None:
    """Raise UsageError that suggests the nearest name, unless `known` contains `name`."""
    known = list(known)
    if isinstance(name, str) and name in known:
        return
    among = f": one of {', '.join(known)}" if known else ": there is none"
    if isinstance(name, list | tuple | set | frozenset):
        raise UsageError(f"{kind}={name!r}: give one name, and call once for each{among}")
    raise UsageError(f"no {kind} {name!r}{hint(str(name), known, FAR) or among}")


def require_arguments(function: Callable[..., Any], own: Mapping[str, Any], inputs: Inputs) -> None:
    """Raise UsageError unless a model's call takes the inputs: their number, and the names of keyword arguments.

    Args:
      own: further arguments, passed by name.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a compiled function
        return
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in inputs.kwargs:
            require_known("argument", name, signature.parameters)
    try:
        signature.bind(*inputs.args, **{**own, **inputs.kwargs})
    except TypeError as error:
        given = [*map(_shown, inputs.args), *(f"{name}={_shown(value)}" for name, value in inputs.kwargs.items())]
        what = f"the model takes {signature}, which does not fit the inputs ({', '.join(given)}): {error}"
        raise UsageError(f"{what}; {EACH_ITS_OWN}") from error


def _shown(value: Any) -> str:
    """Return an argument as the shape of its array, or as its kind."""
    return f"an array {list(value.shape)}" if hasattr(value, "shape") else with_article(type(value).__name__)


def require_mapping(training: Any) -> None:
    """Raise UsageError for a `training` of `parity.compare` that is no mapping."""
    if training is not None and not isinstance(training, Mapping):
        raise UsageError(f"training must map names to values, such as {{'inference': False}}, not be {training!r}")


def require_training(training: Mapping[str, Any] | None, switches: Mapping[str, Collection[str]]) -> None:
    """Check `training` of `parity.compare`.

    Args:
      switches: by the label of each flax model that is no port, what it can set.
    Raises: UsageError for a name that no flax model has, and where there is no such model.
    """
    if training is None:
        return
    if not switches:
        raise UsageError("training is for flax models that are no ports, and there is none: leave it out")
    for name in training:
        try:
            require_known("argument or attribute", name, [known for names in switches.values() for known in names])
        except UsageError as error:
            raise UsageError(f"training: {', '.join(switches)}: {error.message}") from None


def require_count(name: str, value: Any) -> None:
    """Raise UsageError unless `value` is a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} must be a whole number from 1 on, not {value!r}")


def require_models(models: Any) -> None:
    """Raise UsageError unless `models` maps at least two labels to models."""
    if not isinstance(models, Mapping):
        raise UsageError(
            f"models must map labels to models, not be {with_article(type(models).__name__)}: {{'torch': a, 'flax': b}}"
        )
    if len(models) < 2:
        raise UsageError(
            f"a comparison needs two models, not {len(models)}: compare({{'torch': a, 'flax': b}}, images)"
        )


def require_names(names: Any, own: Collection[str], ports: Collection[str], reserved: str) -> None:
    """Check `names` of `parity.compare`.

    Args:
      own: labels of models that are no ports.
      ports: labels of ports, whose taps have names already.
      reserved: the name of the network's own tap.
    Raises: UsageError for an unknown label, a port, an empty map, and two modules under one name.
    """
    if not isinstance(names, Mapping):
        raise UsageError(f"names must map labels to {{path of a module: name to compare it under}}, not be {names!r}")
    for label, mapping in names.items():
        require_known("model", label, [*own, *ports])
        if label in ports:
            raise UsageError(f"names for {label!r}, which is a port: its modules have the names of its architecture")
        if not isinstance(mapping, Mapping) or not all(isinstance(n, str) for pair in mapping.items() for n in pair):
            raise UsageError(f"names for {label!r} must map paths of modules to names, not be {mapping!r}")
        if not mapping:
            raise UsageError(
                f"names for {label!r} are empty, which compares none of its modules: leave {label!r} out of names to "
                "compare every module under its own path"
            )
        _require_distinct(label, mapping, reserved)


def _require_distinct(label: str, mapping: Mapping[str, str], reserved: str) -> None:
    if reserved in mapping.values():
        raise UsageError(f"names for {label!r}: {reserved!r} is the name of the whole model's output: choose another")
    name, times = Counter(mapping.values()).most_common(1)[0]
    if times > 1:
        paths = [path for path, other in mapping.items() if other == name]
        raise UsageError(f"names for {label!r}: modules {', '.join(map(repr, paths))} are all called {name!r}")


def require_feature_maps(feature_maps: Any, taps: Collection[str]) -> None:
    """Raise UsageError unless every name of `feature_maps` is a tap of a model that is no port."""
    if isinstance(feature_maps, str) or not isinstance(feature_maps, Collection):
        raise UsageError(
            f"feature_maps must be a collection of names that modules are compared under, not {feature_maps!r}"
        )
    for name in feature_maps:
        require_known("module", name, taps)


def of_shapes(error: Exception) -> bool:
    """Tell whether a framework's error is about shapes, as of images whose axes stand in another order."""
    text = f"{type(error).__name__} {error}".lower()
    return any(word in text for word in ("shape", "dimension size", "channels"))
