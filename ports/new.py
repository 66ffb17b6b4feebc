"""Write the files of a new architecture: the template's, under another name."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from shlex import quote

import specs
from convert.documents import document
from convert.errors import ConvertError, UsageError, called
from specs.checking.outside import bound

FILES = ("{}.py", "{}_flax.py", "{}_torch.py", "{}_paddle.py", "{}_golden.py")
NAME, NETWORK = "my_network", "MyNetwork"  # of the template


def write(name: str, folder: str, network: str = "") -> Iterator[str]:
    """Write a page, three ports and a script for goldens; yield lines that say what was written and what to do next.

    Args:
      network: the class of the network; by default the architecture's name in capitals, MyNetwork for my_network.
    Raises: UsageError for a name that cannot be, a folder that is missing, and files that exist; ConvertError where
      none can be written.
    """
    stated, network = network, network or "".join(part.capitalize() for part in name.split("_"))
    texts = {
        template: (files("ports.template") / template.format(NAME)).read_text(encoding="utf-8") for template in FILES
    }
    paths = {template: os.path.join(folder, template.format(name)) for template in FILES}
    _check_names(name, network, stated, texts)
    _check_places(folder, paths.values())
    names = {NAME: name, NETWORK: network}  # replaced at once: one may contain the template's other
    for template, path in paths.items():
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(re.sub(f"{NAME}|{NETWORK}", lambda match: names[match[0]], texts[template]))
        except OSError as error:
            raise ConvertError(f"{path}: {error.strerror}") from error
        yield path
    page, golden = (quote(os.path.join(folder, f"{name}{suffix}.py")) for suffix in ("", "_golden"))
    yield ""
    yield f"{called('parity')} {name} --spec {page}    compares the three ports"
    yield f"python {golden}    writes a golden case and runs the ports on it"
    yield f"{document('own-architecture')} says what each part means"


def _check_names(name: str, network: str, stated: str, texts: Mapping[str, str]) -> None:
    """Check that an architecture and the class of its network can have these names. Raises: UsageError.

    Args:
      stated: the class as the user states it; "" for none. texts: of the files that use both.
    """
    if not _is_name(name) or not network.isidentifier():
        if stated and _is_name(name):
            raise UsageError(f"--class {network!r} is no name of a class: use letters, digits and _, as in {NETWORK}")
        what = "use letters, digits and _, and no keyword of Python's"
        raise UsageError(f"{name!r} is no name of an architecture: {what}, as in {NAME}")
    if name in specs.names():
        raise UsageError(f"there is an architecture {name!r} already ({called('ports')} lists all)")
    if keyword.iskeyword(network) or network in _bound(texts):
        remedy = "choose another" if stated else "state another with --class"
        raise UsageError(f"the class of the network cannot be {network!r}, a name that the files use: {remedy}")
    if home := _shadowed(name):
        raise UsageError(
            f"{name!r} is the name of a Python module already ({home}), which {name}.py would hide from the scripts "
            "beside it: choose another"
        )


def _check_places(folder: str, paths: Iterable[str]) -> None:
    """Check that a folder exists, and none of the files. Raises: UsageError."""
    if not os.path.isdir(folder):
        raise UsageError(f"--out {folder}: there is no such folder: create it first")
    if there := [path for path in paths if os.path.lexists(path)]:
        exist = "exist" if there[1:] else "exists"
        raise UsageError(f"{', '.join(there)}: {exist} already: choose another name or folder")


def _is_name(name: str) -> bool:
    """Tell whether a Python module can have this name."""
    return name.isidentifier() and not keyword.iskeyword(name)


def _shadowed(name: str) -> str:
    """Return where Python finds a module of that name, without importing it; "" for none, or a file of the user's.

    A file in the current folder is the user's, and so is a package there, unless it is one of ours.
    """
    if name in sys.stdlib_module_names or name == "__main__":
        return "the standard library"
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # a folder without __init__.py hides nothing
        return ""
    place = os.path.dirname(os.path.realpath(spec.origin))
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    here = os.path.realpath(os.curdir)
    if spec.submodule_search_locations is not None:
        return "" if os.path.dirname(place) == here != ours else spec.origin
    return "" if place == here else spec.origin


def _bound(texts: Mapping[str, str]) -> set[str]:
    """Return the names that Python files bind or read, other than the network."""
    return bound(node for text in texts.values() for node in ast.walk(ast.parse(text))) - {NETWORK}
