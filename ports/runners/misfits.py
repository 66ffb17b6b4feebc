"""Compare the arrays that a page describes with those that a port has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from convert.folding import listed
from specs.notation.paths import normal

Shapes = Mapping[str, tuple[int, ...]]


def misfits(page: Shapes, port: Shapes) -> list[str]:
    """Describe the arrays that the page or the port alone has, and those of other shapes; [] for none."""
    alone = [
        _only("the page", [name for name in page if name not in port], "the port"),
        _only("the port", [name for name in port if name not in page], "the page"),
    ]
    return [*filter(None, alone), *_other_shapes(page, port)]


def _other_shapes(page: Shapes, port: Shapes) -> Iterator[str]:
    """Describe the arrays of other shapes; of those whose names differ in numbers alone the first, and their number."""
    alike: dict[str, list[str]] = {}  # by their names without numbers
    for name, shape in port.items():
        if tuple(page.get(name, shape)) != tuple(shape):
            alike.setdefault(normal(name), []).append(name)
    for first, *others in alike.values():
        more = f", and {len(others):,} more like it" if others else ""
        yield f"{first} is {list(page[first])} by the page and {list(port[first])} in the port{more}"


def _only(one: str, names: Iterable[str], other: str) -> str:
    """Say what one side alone has; "" for nothing."""
    return f"{one} has {names}, {other} does not" if (names := listed(names)) else ""
