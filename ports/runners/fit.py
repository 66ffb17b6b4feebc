"""Compare the arrays that a page describes with those that a port has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from convert.folding import listed

Shapes = Mapping[str, tuple[int, ...]]


def misfits(page: Shapes, port: Shapes) -> list[str]:
    """Describe the arrays that the page or the port alone has, and those of other shapes; [] for none."""
    alone = [
        _only("the page", [name for name in page if name not in port], "the port"),
        _only("the port", [name for name in port if name not in page], "the page"),
    ]
    other = [
        f"{name} is {tuple(page[name])} by the page and {tuple(shape)} in the port"
        for name, shape in port.items()
        if tuple(page.get(name, shape)) != tuple(shape)
    ]
    return [*filter(None, alone), *other]


def _only(one: str, names: Iterable[str], other: str) -> str:
    """Say what one side alone has; "" for nothing."""
    return f"{one} has {names}, {other} does not" if (names := listed(names)) else ""
