"""Find the modules of flax models that take and return images, whose channels stand second in a comparison."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from parity.given.own import Own, is_flax
from parity.results.elements import relative_error
from ports.port import Port
from ports.runners.inputs import OUTPUT, Inputs, is_image
from specs.kinds import IMAGES

ALIKE = 1e-2  # relative error below which two arrays have one order of axes: another order moves values by more

Calls = Mapping[str, Sequence[np.ndarray]]  # the arrays of each call of a tap


def find_images(
    ports: Mapping[str, Port | Own], inputs: Mapping[str, Inputs], check: str, feature_maps: Collection[str] | None
) -> None:
    """Let the flax models that are no ports move the axes of images alone, in every later run.

    An array with four axes is one, and not (b t heads d), if its shape fits so alone that of the first model of another
    framework. Where shapes do not decide, convolutions and norms over channels return images, and so does the model.

    Args:
      feature_maps: the modules that return images, if the user names them.
    """
    flax = {label: port for label, port in ports.items() if isinstance(port, Own) and is_flax(port)}
    others = [label for label in ports if label not in flax]
    if not flax or check == "train":
        return
    for port in flax.values():
        port.images = ()
    try:
        calls = {label: _calls(ports[label], inputs[label], check) for label in [*flax, *others[:1]]}
    except Exception:  # a model is its user's code: its recording reports what it raises
        calls = {}
    reference = calls.get(others[0], {}) if others else {}
    known = {OUTPUT}.union(*map(_layers, flax.values()))
    found = {name for label in flax for name in _found(calls.get(label, {}), reference, known)}
    if any(isinstance(port, Own) and port.output_order for port in ports.values()):
        found.discard(OUTPUT)  # derive found its order of axes
    for port in flax.values():
        port.images = found if feature_maps is None else {*feature_maps, *found & {OUTPUT}}


def _calls(port: Port | Own, inputs: Any, check: str) -> Calls:
    """Return what each call of a tap returns, or what it takes where it returns nothing with four axes."""
    if check in ("forward", "gradients"):
        return {OUTPUT: [*port.outputs(inputs).values()]}
    return {tap.name: tap.outputs if any(map(is_image, tap.outputs)) else tap.inputs for tap in port.trace(inputs)}


def _layers(port: Own) -> set[str]:
    """Return the taps of layers whose kind takes and returns images."""
    return {port.chosen[layer.path] for layer in port.layers() if layer.kind in IMAGES and layer.path in port.chosen}


def _found(calls: Calls, reference: Calls, known: Collection[str]) -> set[str]:
    """Return the taps with images among those of a flax model.

    Args:
      reference: calls of another model; {} for none. known: taps that have images where shapes do not decide.
    """
    named = ((name, name.partition("#")[0]) for name in calls)
    return {base for name, base in named if _are_images(calls[name], reference.get(name, ()), base in known)}


def _are_images(arrays: Sequence[np.ndarray], others: Sequence[np.ndarray], known: bool) -> bool:
    """Tell whether arrays have channels last where those of another model have them second; `known`: see `_found`."""
    pairs = [(x, y) for x, y in zip(arrays, others, strict=False) if is_image(x) and is_image(y)]
    moved = [(np.moveaxis(x, -1, 1), y) for x, y in pairs]
    fits = [all(x.shape == y.shape for x, y in way) for way in (pairs, moved)]
    if fits[0] != fits[1]:
        return fits[1]
    if pairs and fits[0]:
        errors = [max(relative_error(x, y) for x, y in way) for way in (pairs, moved)]
        return errors[1] < errors[0] if min(errors) < ALIKE else known
    equal = [sum(n == m for x, y in way for n, m in zip(x.shape, y.shape, strict=True)) for way in (pairs, moved)]
    return known or equal[1] > equal[0]
