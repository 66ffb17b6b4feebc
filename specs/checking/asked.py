"""Answer what a page's `infer` asks of a Config's own arrays, so that a wrong name there is one clear message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from specs.layer import Layer, Sizes, parameters
from specs.notation.paths import normal
from specs.spec import Spec
from specs.words import hint, in_a_row


class Unanswered(KeyError):
    """What `infer` asks for and no array answers; its text is for the author of the page."""

    def __str__(self) -> str:
        return str(self.args[0])


class Asked(Sizes):
    """Sizes of the arrays of one Config of a page.

    Args:
      axes: {array: {axis: length}} of the Config.
      known: names of the arrays of every Config in `tiny`.
    """

    def __init__(self, axes: Mapping[str, Mapping[str, int]], known: Iterable[str]):
        super().__init__(axes)
        self._known = list(known)

    def __getitem__(self, key: tuple[str, str]) -> int:
        if not isinstance(key, tuple) or len(key) != 2:
            raise Unanswered(f"sizes[{key!r}]: an array and one of its axes are asked for, as in sizes[{key!r}, 'o']")
        name, axis = key
        try:
            axes = self.axes(name)
        except KeyError:
            raise Unanswered(self._without(name)) from None
        if axis not in axes:
            raise Unanswered(f"{name!r} has no axis {axis!r}{hint(axis, axes)} (its axes: {', '.join(axes)})")
        return axes[axis]

    def _without(self, name: str) -> str:
        if name in self._known:
            return f"layers yields no array {name!r} for this Config: ask `{name!r} in sizes` first"
        path = name.rpartition(".")[0]
        leaves = [other for other in self._known if other.rpartition(".")[0] == path]
        if leaves and path:
            return f"layers yields no array {name!r}, but {in_a_row(map(repr, leaves))}"
        return f"layers yields no array {name!r}{hint(name, self._known)}"

    def count(self, prefix: str) -> int:
        """Return how many numbered children a path has. Raises: Unanswered for a path that no Config in tiny has."""
        paths = {name.rpartition(".")[0] for name in self._known}
        above = {path[:k] for path in paths for k in range(len(path) + 1) if path[k : k + 1] in ("", ".")}
        if normal(prefix) not in map(normal, above):
            raise Unanswered(f"sizes.count({prefix!r}): layers yields nothing below this path{hint(prefix, above)}")
        return super().count(prefix)


def fields_shown(spec: Spec, layers: list[Layer]) -> dict[str, Any]:
    """Return what `infer` reads off the arrays of these layers."""
    sizes = {p.name: dict(zip(p.axes, p.shape, strict=True)) for p in parameters(layers)}
    for layer in layers:  # and factors of axes, as dialects state them
        for parameter in layer.parameters():
            sizes[parameter.name].update(layer.sizes)
    known = dict.fromkeys(name for twin in spec.tiny.values() for name in _names(spec, twin))
    return spec.infer(Asked(sizes, known or sizes))


def _names(spec: Spec, config: Any) -> list[str]:
    """Name the arrays of a Config; [] if its layers are at fault, which is reported of this Config."""
    try:
        return list(arrays_of(spec, config))
    except Exception:
        return []


def arrays_of(spec: Spec, config: Any) -> dict[str, tuple[int, ...]]:
    """Return {array: shape} of a Config."""
    return {p.name: p.shape for p in parameters(list(spec.layers(config)))}
