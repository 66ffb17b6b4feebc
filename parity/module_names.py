"""Name the modules of a user's model: modules of one name in two models are compared with each other."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from convert.errors import UsageError
from ports.runners.inputs import OUTPUT
from specs.paths import pattern

from .usage import require_known


class Listed(NamedTuple):
    """A module in the list of those of a model.

    Args:
      name: what it is compared under, or listed beside another model's. kind: the name of its class.
      path: in its own model, as that spells it; "" where that is the name.
      reason: why it is not compared though it has arrays; "" where nothing is known.
    """

    name: str
    kind: str
    path: str = ""
    reason: str = ""


def written_out(names: Mapping[str, str], paths: Sequence[str]) -> dict[str, str]:
    """Write out the names with "#", which is any number: one for each module with such a path.

    Raises: UsageError for a name that no module fits, or that has more numbers in one path than in the other.
    """
    written: dict[str, str] = {}
    for path, name in names.items():
        if "#" not in f"{path}{name}":
            require_known("module", path, paths)
            written[path] = name
            continue
        if path.count("#") != name.count("#"):
            raise UsageError(f"{path!r} and {name!r} in `names`: # is a number, and stands in both equally often")
        fits = [found for each in paths if (found := re.fullmatch(re.escape(path).replace(r"\#", r"(\d+)"), each))]
        if not fits:
            require_known("module", path, dict.fromkeys(map(pattern, paths)))
        for found in fits:
            rest = zip(found.groups(), name.split("#")[1:], strict=True)
            written.setdefault(found[0], name.partition("#")[0] + "".join(number + text for number, text in rest))
    for path, name in written.items():
        others = sorted(other for other in written if other != path and written[other] == name)
        if others:
            raise UsageError(f"modules {path!r} and {others[0]!r} are both called {name!r} by `names`")
    return written


def possible(paths: Iterable[str], stated: Mapping[str, str]) -> set[str]:
    """Return every name under which a module may be compared: see `chosen`."""
    return {*stated.values(), *(name for path in paths if path not in stated for name in (_within(path, stated), path))}


def chosen(paths: Sequence[str], stated: Mapping[str, str], offered: Collection[str] = ()) -> dict[str, str]:
    """Return the name of each module.

    It is the one that the user states. A module inside of one with such a name follows it, where another model offers
    a module of that name. All others have their own paths, marked where another module has taken that name.

    Args:
      offered: the possible names of the other models' modules.
    """
    names, taken = dict(stated), {OUTPUT, *stated.values()}
    for path in paths:
        name = _within(path, stated)
        if path not in stated and name != path and name in offered and name not in taken:
            names[path] = name
            taken.add(name)
    return {path: names.get(path) or (f"{path} (module)" if path in taken else path) for path in paths}


def _within(path: str, stated: Mapping[str, str]) -> str:
    """Return the path with the name of the innermost module around it that the user names; the path without one."""
    around = [other for other in stated if path.startswith(f"{other}.")]
    if not around:
        return path
    nearest = max(around, key=len)
    return stated[nearest] + path[len(nearest) :]
