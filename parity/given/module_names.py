"""Name the modules of a user's model: modules of one name in two models are compared with each other."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from convert.errors import UsageError
from ports.runners.inputs import OUTPUT
from ports.runners.records import Module
from specs.notation.paths import dotted, pattern

from .paired_arrays import OneSide
from .usage import require_known
from .views import Block

NO_ARRAYS = "it has no arrays of its own, so that no line of the Table names it"
STACKED = "one model stacks arrays that the other has apart, as under nn.scan"  # why modules are not compared


class PairedNames(dict[str, str]):
    """Names that a Table gives: a module of them that is not called is left out, where the user's own are refused.

    Args:
      unlike: paths of modules whose arrays the other model stacks, by the reason.
      blocks: by the name of a pair of modules, the axes of their arrays that the Table composes otherwise on one side.
      order: of the axes of the input that both models get, in which this one takes it; () as they are.
      output_order: of the axes of what this one returns, in which the other one returns it; () as they are.
      arrays: pairs the model's arrays by the Table's lines; None where a length of these is open.
      rows: {path: that of a left module beside which it is listed}. reasons: why modules with arrays are not compared.
      lengths: taken for axes that no shape of both models shows. open: those of them that are not known.
    """

    unlike: Mapping[str, Sequence[str]] = MappingProxyType({})
    blocks: Mapping[str, Sequence[Block]] = MappingProxyType({})
    order: tuple[int, ...] = ()
    output_order: tuple[int, ...] = ()
    arrays: OneSide | None = None
    rows: Mapping[str, str] = MappingProxyType({})
    reasons: Mapping[str, str] = MappingProxyType({})
    lengths: Mapping[str, int] = MappingProxyType({})
    open: tuple[str, ...] = ()

    def reasons_of(self, modules: Mapping[str, Module]) -> dict[str, str]:
        """Say why modules with parameters, their own or those of modules inside, are in no line of the Table."""
        empty = [path for path, module in modules.items() if module.trained and not module.leaves]
        return {**dict.fromkeys(empty, NO_ARRAYS), **self.reasons}


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


def spellings(modules: Mapping[str, Module]) -> dict[str, str]:
    """Return the path of each module by that path and by the model's own spelling of it, "layer_0.fc1"."""
    own = {module.own: path for path, module in modules.items() if module.own}
    return own | {path: path for path in modules if path}


def path_of(name: str, spelled: Mapping[str, str]) -> str:
    """Return the path of the module that is spelled so, "layer.0.fc1" of "layer_0/fc1"; the name where none is.

    Args:
      spelled: see spellings.
    """
    return spelled.get(name) or spelled.get(name.replace("/", "."), name)


def written_out(names: Mapping[str, str], spelled: Mapping[str, str]) -> dict[str, str]:
    """Write out the names by the paths of modules; one with "#", which is any number, for each module that fits.

    Args:
      names: by a path, or by the model's own spelling of it. spelled: see spellings.
    Raises: UsageError for a name that no module fits, or that has more numbers in one path than in the other, and for a
      module that is named twice.
    """
    written, stated = dict[str, str](), dict[str, str]()  # by path: its name, and how `names` spells it
    for spelling, name in names.items():
        if "#" in f"{spelling}{name}":
            for path, numbered in _numbered(spelling, name, spelled):
                written.setdefault(path, numbered)
            continue
        path = path_of(spelling, spelled)
        require_known("module", path, dict.fromkeys(spelled.values()))
        if stated.setdefault(path, spelling) != spelling:
            raise UsageError(f"{stated[path]!r} and {spelling!r} in `names` are one module: leave one of them out")
        written[path] = name
    for path, name in written.items():
        others = sorted(other for other in written if other != path and written[other] == name)
        if others:
            raise UsageError(f"modules {path!r} and {others[0]!r} are both called {name!r} by `names`")
    return written


def _numbered(spelling: str, name: str, spelled: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (path, name) of each module that fits a spelling with "#". Raises: UsageError for one that none fits."""
    if spelling.count("#") != name.count("#"):
        raise UsageError(f"{spelling!r} and {name!r} in `names`: # is a number, and stands in both equally often")
    forms = [re.escape(form).replace(r"\#", r"(\d+)") for form in (spelling, spelling.replace("/", "."))]
    fits = {path: match for form in forms for each, path in spelled.items() if (match := re.fullmatch(form, each))}
    if not fits:
        require_known("module", spelling, dict.fromkeys(map(pattern, spelled.values())))
    first, *texts = name.split("#")
    for path, match in fits.items():
        yield path, first + "".join(number + text for number, text in zip(match.groups(), texts, strict=True))


def possible(paths: Iterable[str], stated: Mapping[str, str]) -> set[str]:
    """Return every name under which a module may be compared: see `chosen`."""
    return {*stated.values(), *(name for path in paths if path not in stated for name in (_within(path, stated), path))}


def chosen(paths: Sequence[str], stated: Mapping[str, str], offered: Collection[str] = ()) -> dict[str, str]:
    """Return the name of each module.

    It is the one that the user states. A module inside of one with such a name follows it, where another model offers
    a module of that name. "layer_0.fc" is "layer.0.fc", where another model offers that. All others have their own
    paths, marked where another module has taken that name.

    Args:
      offered: the possible names of the other models' modules.
    """
    names, taken, own = dict(stated), {OUTPUT, *stated.values()}, {*paths}
    for path in (path for path in paths if path not in stated):
        within = _within(path, stated)
        free = [name for one in (within, path) if (name := dotted(one.split("."))) not in own]
        name = next((name for name in (*free, within) if name in offered and name not in taken), path)
        if name != path:
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
