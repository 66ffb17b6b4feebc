"""Find the order of axes in which arrays of own models are compared: images of flax, and modules that a Table pairs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parity.given.own import Own, is_flax
from parity.given.quoting import some
from parity.given.views import Shape, View, merges
from parity.results.elements import double, relative_error
from ports.port import Port
from ports.runners.inputs import OUTPUT, Inputs, is_image
from ports.runners.records import Tap
from specs.kinds import IMAGES, image_axes

ALIKE = 1e-2  # relative error below which two arrays have one order of axes: another order moves values by more
AXES = 5  # of arrays of which all orders are tried: 24 of them, as the first is that of the batch

Calls = Mapping[str, Tap]


def find_layouts(
    ports: Mapping[str, Port | Own], inputs: Mapping[str, Inputs], check: str, feature_maps: Collection[str] | None
) -> None:
    """Give the models that are no ports their views: of images of flax, and of what a Table pairs.

    Each model runs once, and keeps its taps for the check. An array of flax with four axes, or with as many as images
    of its model's convolutions, is an image, and not (b t heads d), if its shape fits so alone that of the first model
    of another framework. Where shapes do not decide, convolutions and norms over channels return images, and so does
    the model.

    Args:
      feature_maps: the modules that return images, if the user names them.
    """
    flax = {label: port for label, port in ports.items() if isinstance(port, Own) and is_flax(port)}
    own = [port for port in ports.values() if isinstance(port, Own)]
    is_tabled = any(port.paired is not None for port in own)
    others = [label for label in ports if label not in flax]
    if check == "train" or not (flax or is_tabled):
        return
    run = ports if is_tabled else [*flax, *others[:1]]
    try:
        calls = {label: _calls(ports[label], inputs[label], check) for label in run}
    except Exception:  # a model is its user's code: its recording reports what it raises
        return
    reference = calls[others[0]] if others else {}
    layers = {label: _layers(port) for label, port in flax.items()}
    known = {OUTPUT: 4} | {tap: axes for taps, _ in layers.values() for tap, axes in taps.items()}
    usual = {label: axes for label, (_, axes) in layers.items()}
    image_taps = {name for label in flax for name in _found(calls[label], reference, known, usual[label])}
    if any(port.paired is not None and port.paired.output_order for port in own):
        image_taps.discard(OUTPUT)  # derive found its order of axes
    image_taps = image_taps if feature_maps is None else {*feature_maps, *image_taps & {OUTPUT}}
    for label, port in flax.items():
        port.views = _views_of_images(calls[label], {tap: known.get(tap, usual[label]) for tap in image_taps})
    if is_tabled:
        (one, left), (other, right) = zip(ports, own, strict=True)
        _lay_out_alike(one, left, right, calls[one], calls[other])


def _calls(port: Port | Own, inputs: Any, check: str) -> Calls:
    """Run a model, and return its calls of taps with their arrays as they are; an own model keeps this run."""
    if check in ("forward", "gradients"):
        named = port.outputs(inputs)
        calls = {OUTPUT: Tap(OUTPUT, (), tuple(named.values()), tuple(name.partition(":")[2] for name in named))}
    else:
        taps = port.trace(inputs)
        calls = {tap.name: tap for tap in taps}
    if isinstance(port, Own) and check != "gradients":
        port.keep(inputs, named if check == "forward" else taps)
    return calls


def _layers(port: Own) -> tuple[dict[str, int], int]:
    """Return the taps of layers whose kind has images, with the number of axes of these, and that of other modules."""
    layers = port.layers()
    kinds = {layer.kind for layer in layers}
    known = [layer for layer in layers if layer.kind in IMAGES and layer.path in port.chosen]
    return {port.chosen[layer.path]: image_axes(layer.kind, kinds) for layer in known}, image_axes("", kinds)


def _found(calls: Calls, reference: Calls, known: Mapping[str, int], usual: int) -> set[str]:
    """Return the taps with images among those of a flax model.

    Args:
      reference: calls of another model; {} for none. known: taps that have images where shapes do not decide, with the
        number of axes of these. usual: number of axes of images of other taps.
    """
    sides = ((name.partition("#")[0], tap, reference.get(name)) for name, tap in calls.items())
    return {base for base, tap, other in sides if _has_images(tap, other, known.get(base, usual), base in known)}


def _has_images(tap: Tap, other: Tap | None, axes: int, known: bool) -> bool:
    """Tell whether a call's arrays have channels last where those of another model have them second.

    Those that it takes are looked at if it returns none with so many axes.
    """
    sides = [
        call.outputs if any(is_image(x, axes) for x in call.outputs) else call.inputs for call in (tap, other) if call
    ]
    pairs = [(x, y) for x, y in zip(*sides, strict=False) if is_image(x, axes) and is_image(y, axes)] if other else []
    moved = [(np.moveaxis(x, -1, 1), y) for x, y in pairs]
    fits = [all(x.shape == y.shape for x, y in way) for way in (pairs, moved)]
    if fits[0] != fits[1]:
        return fits[1]
    if pairs and fits[0]:
        errors = [max(relative_error(x, y) for x, y in way) for way in (pairs, moved)]
        return errors[1] < errors[0] if min(errors) < ALIKE else known
    equal = [sum(n == m for x, y in way for n, m in zip(x.shape, y.shape, strict=True)) for way in (pairs, moved)]
    return known or equal[1] > equal[0]


def _views_of_images(calls: Calls, images: Mapping[str, int]) -> dict[str, View]:
    """Return the views of a flax model that put channels second in the images that some taps take and return.

    Args:
      images: {tap: number of axes of its images}.
    """
    taps = [(tap, images.get(name.partition("#")[0], 0)) for name, tap in calls.items()]
    named = ((name, array) for tap, axes in taps for name, array in tap.arrays() if is_image(array, axes))
    return {name: View.turned(array.shape, _moves(array.ndim)[1]) for name, array in named}


def _lay_out_alike(label: str, left: Own, right: Own, calls: Calls, others: Calls) -> None:
    """Give the right model of a Table the views that lay its arrays out as those of the left one, and say which.

    The shapes of some modules show an order of axes of others, whose shapes fit in any order.
    """
    seen = left.seen({name: array for tap in calls.values() for name, array in tap.arrays()})
    pairs = {name: (seen[name], y) for tap in others.values() for name, y in tap.arrays() if name in seen}
    usual, shown = dict(right.views), set[tuple[int, ...]]()
    for _ in range(2):
        for name, (x, y) in pairs.items():
            if view := _view(name, x, y, usual.get(name), right, shown):
                right.views[name] = view
                if x.ndim == y.ndim and x.shape != y.shape:
                    shown.add(view.order)
        if not shown:
            break
    changed = [name for name, view in right.views.items() if view != usual.get(name) and not view.is_plain]
    modules = [name for name in changed if " <- " not in name and not _is_whole(name)]
    right.said = [f"compared with {label}'s order of axes: {some(modules)}"] if modules else []
    if not right.output_order:
        said = [_on_output(*pairs[name], right.views[name]) for name in changed if _is_whole(name)]
        right.said += dict.fromkeys(said)


def _is_whole(name: str) -> bool:
    """Tell whether an array is what the whole model returns."""
    return name.partition(":")[0] == OUTPUT


def _on_output(x: np.ndarray, y: np.ndarray, view: View) -> str:
    """Say in which order of axes an output is compared that no Table states, and what shows it."""
    what = "the values show" if relative_error(x, view.seen(y)) < ALIKE else "the shapes alone show"
    is_turned = view.own == view.split and len(view.own) == len(view.shape)
    how = (
        f"with its axes in the order {view.order}" if is_turned else f"as {list(view.shape)}, which is {list(view.own)}"
    )
    return f"its output is compared {how}: {what} it, and no Table states it"


def _view(
    name: str, x: np.ndarray, y: np.ndarray, usual: View | None, right: Own, shown: Collection[tuple[int, ...]]
) -> View | None:
    """Return how an array of the right model of a Table is compared with the left one's; None as it is.

    In the order of axes that derive found or the Table states for all features of a module; else in that of all which
    fit in which the values are alike. If they are in none, the models differ there: see `_unlike`.

    Args:
      x: as it is compared. y: as the model has it. usual: of images. shown: orders in which other arrays are compared.
    """
    if _is_whole(name) and y.ndim == len(right.output_order):
        return View.turned(y.shape, right.output_order)
    of_features, others = _stated(name, x.shape, y.shape, right)
    if of_features and " <- " not in name:
        return of_features[0]
    usual = usual or View.turned(y.shape, range(y.ndim))
    if usual.shape == x.shape and relative_error(x, usual.seen(y)) < ALIKE:
        return usual
    stated, shaped, turned = [*of_features, *others], [*_by_shape(x.shape, y.shape)], _turned(x.shape, y.shape)
    views = [view for view in (usual, *stated, *shaped, *turned) if view.shape == x.shape]
    errors = {view: relative_error(x, view.seen(y)) for view in views}
    best = min(errors, key=errors.__getitem__, default=None)
    if best is None or errors[best] < ALIKE:
        return best
    if usual in errors:
        known = [usual, *(view for view in turned if view.order in shown)]
        return min(known, key=errors.__getitem__)
    return _unlike(x, y, stated, [*shaped, *(turned if len(turned) == 1 else ())])


def _stated(name: str, left: Shape, right: Shape, model: Own) -> tuple[list[View], list[View]]:
    """Return the views by axes that a Table composes: those of all features of a module, and others."""
    blocks = model.paired.blocks.get(re.split(" <- |[#:]", name)[0], ()) if model.paired is not None else ()
    views = [(block.is_output, view) for block in blocks for view in block.views(left, right)]
    return [view for is_output, view in views if is_output], [view for is_output, view in views if not is_output]


def _by_shape(left: Shape, right: Shape) -> Iterator[View]:
    """Yield views with channels second for last or last for second, with axes side by side as one, or with both."""
    for order in _moves(len(right)):
        moved = tuple(right[axis] for axis in order)
        if moved == left or merges(moved, left):
            yield View(right, right, order, left)
    for order in _moves(len(left)):
        split = tuple(left[axis] for axis in np.argsort(order))
        if merges(right, split):
            yield View(right, split, order, left)


def _moves(length: int) -> list[tuple[int, ...]]:
    """Return the orders of so many axes as they are, with the last one second, and with the second one last."""
    axes = [*range(length)]
    last, second = (0, length - 1, *axes[1:-1]), (0, *axes[2:], 1)
    return [tuple(axes), *((last, second) if length > 2 else ())]


def _unlike(x: np.ndarray, y: np.ndarray, stated: Sequence[View], fitting: Sequence[View]) -> View | None:
    """Return how arrays of other shapes are compared whose values are alike in no order of axes; None not at all.

    As the Table states, or else as the shapes show: not if axes are joined, and the same values may stand in another
    order, as those of windows.
    """
    view = next(iter((*stated, *fitting)), None)
    if view is None or view in stated or len(view.own) == len(view.shape):
        return view
    is_same = relative_error(np.sort(double(x), None), np.sort(double(y), None)) < ALIKE
    return None if is_same else view


def _turned(left: Shape, right: Shape) -> list[View]:
    """Return the views of an array with its axes but the first in any order that fits."""
    if sorted(left) != sorted(right) or not 2 < len(right) <= AXES:
        return []
    views = (View.turned(right, (0, *order)) for order in itertools.permutations(range(1, len(right))))
    return [view for view in views if view.shape == left]
