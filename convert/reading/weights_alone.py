"""Find the weights in a checkpoint that is given for the names and sizes of a model alone (--like)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from convert.errors import option
from convert.files.base import Reader

from . import optimizers
from .nesting import by_container, copied_place, has_word, label, rank, training, unwrapped


class Weights(NamedTuple):
    """The weights in a file.

    Args:
      place: where they lie, as "state_dict/model."; "" for the root. names: {name of the model: name in the file}.
    """

    place: str
    names: dict[str, str]


def weights_of(reader: Reader, names: Collection[str]) -> Weights | None:
    """Return where a file has arrays of these names, and beside them nothing but training state.

    Of weights and an average of them, it is the weights. Wrappers in names, as module., are left out where needed.
    None where there is no such place.
    """
    return _below(reader, {name: name for name in reader.tensors}, names) or _below(
        reader, {unwrapped(name): name for name in reader.tensors}, names
    )


def _below(reader: Reader, files: Mapping[str, str], names: Collection[str]) -> Weights | None:
    """Return what `weights_of` does, of names as they are or without wrappers.

    Args:
      files: {name that is read: name in the file}.
    """
    one = next(iter(names), "")
    if len(files) < len(reader.tensors):  # two names became one
        return None
    places = {name.removesuffix(one) for name in files if name.endswith(one) and name[: -len(one)][-1:] in ("", *"/.")}
    for place in sorted(places, key=rank):
        inside = {name.removeprefix(place): own for name, own in files.items() if name.startswith(place)}
        whole = inside.keys() >= set(names) and all(_is_beside(name) for name in inside.keys() - set(names))
        if whole and (place[-1:] != "." or _is_most(files, names)):
            return Weights(place, {name: own for name, own in inside.items() if name in names})
    return None


def _is_most(files: Iterable[str], names: Collection[str]) -> bool:
    """Tell whether a model is most of a file, so that it is no part of a larger one."""
    return 2 * len(names) > sum(1 for name in files if not (training(name) or copied_place(name)))


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
    if (location := optimizers.find_any(reader)) and location.library == "optax":
        nested = f"; its optimizer's state shapes nothing. {optimizers.CHAIN}"
    return [f"{option('like', reader.path)}: read {which} and set aside {', '.join(others)}{nested}"]
