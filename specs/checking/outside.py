"""Load pages from outside this package: a Python file, or an entry point of an installed package.

A page is code. It is loaded only when the user names it, never because a checkpoint does.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import NamedTuple

from specs.raised import line_of
from specs.spec import Spec, SpecError, described
from specs.words import hint, in_a_row, unknown

GROUP = "triptych.specs"  # of entry points: NAME = "package.module", which ends with SPEC = Spec(...)


class Page(NamedTuple):
    """A page that the user named.

    Args:
      name: of the architecture: the file's, or the entry point's.
      source: as the user named it, with an absolute path.
      folder: where the page's file is; files of ports are relative to it.
    """

    name: str
    source: str
    folder: str
    spec: Spec


def load(source: str) -> Page:
    """Load a page. Raises: SpecError that lists everything wrong with it."""
    if source.endswith(".py") or os.sep in source:
        path = os.path.abspath(source)
        name = os.path.basename(path).removesuffix(".py")
        if not name.isidentifier():
            raise SpecError(f"{source}: {name!r} is no name of an architecture: use letters, digits and _")
        return _page(name, path, import_file(path))
    if entry_point(source) is None:
        if os.path.isfile(f"{source}.py"):
            raise SpecError(f"{source}: no entry point of {GROUP!r} has this name, did you mean {source}.py?")
        raise SpecError(
            f"{source!r} is neither a .py file nor an entry point of {GROUP!r}{hint(source, _entry_points())}"
        )
    return _installed(source)


def import_file(path: str) -> ModuleType:
    """Import a Python file that is in no package, once. Raises: SpecError that names the file and the line."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("__file__") == path and module.__name__ != "__main__":
            return module
    if not os.path.isfile(path):
        raise SpecError(f"{path}: there is no such file")
    name = f"_triptych_{zlib.crc32(path.encode()):08x}_{os.path.basename(path).removesuffix('.py')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module of their annotations
    folder = os.path.dirname(path)
    is_new = folder not in sys.path
    if is_new:
        sys.path.append(folder)  # for imports of its neighbours; last, so that none shadows another module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise _failed(path, error) from None
    finally:
        if is_new:
            sys.path.remove(folder)
    return module


def _failed(path: str, error: Exception) -> SpecError:
    """Describe an exception that a page raised: what, and in which line of the page."""
    if isinstance(error, SpecError):
        return SpecError(f"{path}: {error.message}", error.problems)
    line = line_of(error, [path]) or (error.lineno if isinstance(error, SyntaxError) else None)
    where = f"{path}, line {line}" if line else path
    return SpecError(f"{where}: {described(error)}")


def _page(name: str, source: str, module: ModuleType) -> Page:
    from .checks import faults

    spec = getattr(module, "SPEC", None)
    path = os.path.abspath(module.__file__ or source)
    if not isinstance(spec, Spec):
        raise SpecError(f"{path}: is no page: it has to end with SPEC = Spec(...)")
    if problems := [*faults(spec), *_faults_of_ports(spec, os.path.dirname(path))]:
        raise SpecError(f"{path}: Spec(...) is not well defined", problems)
    return Page(name, source, os.path.dirname(path), spec)


def _faults_of_ports(spec: Spec, folder: str) -> Iterator[str]:
    """Describe the ports that do not exist or lack the class; none is imported, nor a package around one."""
    unfit: dict[str, dict[str, str]] = {}  # what is wrong with the text of a port -> {framework: file}
    for framework, port in spec.ports.items():
        file: str | None = os.path.join(folder, port)
        if not port.endswith(".py"):
            module = _module(port)
            if module is None and port not in sys.modules:
                yield f"ports: {framework!r}: {port}: there is no such module"
            file = module.origin if module is not None else None
        elif not os.path.isfile(os.path.join(folder, port)):
            yield f"ports: {framework!r}: {file}: there is no such file"
            file = None
        if file and file.endswith(".py"):
            for fault in _without_class(file, spec.network):
                unfit.setdefault(fault, {})[framework] = file
    for fault, files in unfit.items():
        fault = fault.replace(": has no", ": have no", 1) if len(files) > 1 else fault
        yield f"ports: {in_a_row(map(repr, files))}: {in_a_row(files.values())}{fault}"


def _without_class(file: str, name: str) -> Iterator[str]:
    """Describe a port that binds no such name, by its text; what follows its file."""
    import ast

    try:
        with open(file, "rb") as opened:
            nodes = list(ast.walk(ast.parse(opened.read())))
    except (OSError, ValueError):
        return  # importing it says more
    except SyntaxError as error:
        yield f", line {error.lineno}: {described(error)}"
        return
    if not bound(nodes) & {name, "*", "__getattr__"}:  # else it may have the class
        classes = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
        yield f": has no class {name!r}, the `network` of this page: {unknown(name, classes, listed=bool(classes))}"


def bound(nodes: Iterable[object]) -> set[str]:
    """Return the names of classes, functions, variables and imports among the nodes of Python files."""
    names = {getattr(node, field, None) for node in nodes for field in ("id", "name", "asname")}
    return {name for name in names if isinstance(name, str)}


def _module(dotted: str) -> ModuleSpec | None:
    """Find a module without importing the packages around it; None if there is none."""
    top, *rest = dotted.split(".")
    try:
        place = importlib.util.find_spec(top)
    except ValueError:  # an empty name, or a module that no file is behind
        return None
    for n in range(len(rest)):
        if place is None or place.submodule_search_locations is None:
            return None
        place = PathFinder.find_spec(".".join([top, *rest[: n + 1]]), place.submodule_search_locations)
    return place


def _entry_points() -> list[str]:
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=GROUP)})


def entry_point(name: str) -> str | None:
    """Return the module that installed packages offer under a name; nothing is imported."""
    from importlib.metadata import entry_points

    return next((point.module for point in entry_points(group=GROUP, name=name)), None)


def _installed(name: str) -> Page:
    module = entry_point(name)
    assert module is not None
    try:
        return _page(name, name, importlib.import_module(module))
    except SpecError as error:
        raise SpecError(f"entry point {name!r}: {error.message}", error.problems) from None
    except Exception as error:
        raise _failed(f"entry point {name!r} ({module})", error) from None
