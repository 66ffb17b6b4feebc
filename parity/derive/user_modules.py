"""Keep the modules apart that the files of two sides import from their own folders: `model.py` in both, say."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

from convert.errors import UsageError
from convert.version import PACKAGES

INSTALLED = tuple(os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib"))


class Loaded(NamedTuple):
    """What a side's file loaded.

    Args:
      paths: its folder, and what its code added to sys.path.
      modules: those from there, by name.
    """

    paths: list[str]
    modules: dict[str, ModuleType]

    @property
    def tops(self) -> list[str]:
        return list(dict.fromkeys(name.partition(".")[0] for name in self.modules))

    def origin(self, name: str) -> str:
        """Return the file of a module of this side; "" if it has none of that name."""
        return _origin(name, self.paths)

    def remove(self, tops: Sequence[str]) -> None:
        """Let an import of these modules, or of some inside them, look for a file again."""
        for name, module in self.modules.items():
            if name.partition(".")[0] in tops and sys.modules.get(name) is module:
                del sys.modules[name]


class Imports:
    """The imports of both sides, each of which finds its own modules; sys.path is as before at the end.

    Modules of one name that are not one file are removed after both files ran: an import of them while a model runs
    could not tell which is meant, and is refused.
    """

    def __init__(self) -> None:
        self.sides: list[Loaded] = []

    def __enter__(self) -> Imports:
        self._before = list(sys.path)
        return self

    def __exit__(self, *_: object) -> None:
        sys.path[:] = self._before
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    @property
    def files(self) -> list[str]:
        """List the files of the modules that were loaded."""
        modules = [module for side in self.sides for module in side.modules.values()]
        return list(dict.fromkeys(file for module in modules if (file := getattr(module, "__file__", None))))

    @contextmanager
    def of(self, path: str) -> Iterator[None]:
        """Let a file's code find the modules beside it; those of the other side are not in its way.

        Raises: UsageError where its code reads a module of another folder that has the name of one of the other side.
        """
        folder = os.path.dirname(os.path.abspath(path))
        for side in self.sides:
            side.remove([top for top in side.tops if _origin(top, [folder]) not in ("", side.origin(top))])
        known = set(sys.modules)
        sys.path[:] = [folder, *self._before]
        try:
            yield
        finally:
            paths = [folder, *(entry for entry in sys.path if entry not in (folder, *self._before))]
            sys.path[:] = self._before
        new = {name: module for name, module in list(sys.modules.items()) if name not in known}
        loaded = Loaded(paths, {name: module for name, module in new.items() if _is_own(name, module, paths)})
        self._check(loaded, path)
        self.sides.append(loaded)
        every = dict.fromkeys(entry for side in self.sides for entry in side.paths)
        sys.path += [entry for entry in every if entry not in sys.path]  # for imports while a model runs
        if len(self.sides) == 2:
            for side in self.sides:
                side.remove([top for top in side.tops if self._several(top)])
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Refuse what both sides have under one name. Raises: ImportError."""
        several = self._several(name) if path is None else []
        if several and not _origin(name, self._before).startswith(INSTALLED):
            raise ImportError(
                f"{' and '.join(several)} are both {name!r}, which is imported while a model runs: give one of them "
                f"another name, or import it at the top of a file"
            )
        return None

    def _several(self, name: str) -> list[str]:
        """Return the files of a module, if the sides have different ones."""
        origins = list(dict.fromkeys(filter(None, (side.origin(name) for side in self.sides))))
        return origins if len(origins) > 1 else []

    def _check(self, new: Loaded, path: str) -> None:
        for side in self.sides:
            for top in side.tops:
                if top in sys.modules and top not in new.modules and new.origin(top) not in ("", side.origin(top)):
                    raise UsageError(
                        f"{path}: {new.origin(top)} was not imported, as the other side's {side.origin(top)} is "
                        f"{top!r} already: give one of them another name"
                    )


def _origin(name: str, paths: Sequence[str]) -> str:
    """Return the file of a top module in these folders, or the folder of a package without one; "" if there is none."""
    spec = PathFinder.find_spec(name, list(paths))
    if spec is None:
        return ""
    place = spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), None)
    return os.path.realpath(place) if place else ""


def _is_own(name: str, module: ModuleType, folders: Sequence[str]) -> bool:
    """Tell whether a module lies in these folders, and is neither installed nor Triptych's."""
    place = os.path.realpath(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), ""))
    below = any(place.startswith(os.path.realpath(folder).rstrip(os.sep) + os.sep) for folder in folders)
    return below and not place.startswith(INSTALLED) and name.partition(".")[0] not in PACKAGES
