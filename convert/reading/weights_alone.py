"""Find the weights in a checkpoint that is given for the names and sizes of a model alone (--like)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from convert.errors import option
from convert.files.base import Reader

from . import optimizers
from .nesting import by_container, has_word, label, rank, training


def place_of(reader: Reader, names: Collection[str]) -> str | None:
    """Return the place in which a file has arrays of these names, and beside them nothing but training state.

    Of weights and an average of them, it is that of the weights. None where there is no such place.
    """
    one = next(iter(names), "")
    places = {name.removesuffix(one) for name in reader.tensors if f"/{name}".endswith(f"/{one}")}
    for place in sorted(places, key=rank):
        inside = {name.removeprefix(place) for name in reader.tensors if name.startswith(place)}
        if inside >= set(names) and all(_is_beside(name) for name in inside - set(names)):
            return place
    return None


def _is_beside(name: str) -> bool:
    """Tell whether an array is training state, or lies in a copy of the weights."""
    top, slash, _ = name.partition("/")
    return bool(training(name)) or bool(slash and has_word(top))


def partly_read(reader: Reader, place: str, used: Iterable[str]) -> list[str]:
    """Say which arrays of the file of --like are read, where it has others.

    Args:
      place: where the ones that are read lie; "" for the root of the file. used: their names in the file.
    """
    others = by_container(sorted(reader.tensors.keys() - set(used)))
    if not others:
        return []
    which = f"its arrays under {label(place)!r}" if place else "its weights"
    nested = ""
    if (found := optimizers.find_any(reader)) and found.library == "optax":
        nested = f"; its optimizer's state shapes nothing. {optimizers.CHAIN}"
    return [f"{option('like', reader.path)}: read {which} and set aside {', '.join(others)}{nested}"]
