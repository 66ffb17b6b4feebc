"""Write the files of a new architecture: the template's, under another name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files

import specs
from convert.documents import document
from convert.errors import ConvertError, UsageError, called

FILES = ("{}.py", "{}_flax.py", "{}_torch.py", "{}_paddle.py", "{}_golden.py")
NAME, NETWORK = "my_network", "MyNetwork"  # of the template


def write(name: str, folder: str) -> Iterator[str]:
    """Write a page, three ports and a script for goldens; yield lines that say what was written and what to do next.

    Raises: UsageError for a name that cannot be; ConvertError for a folder or files that are in the way.
    """
    network = "".join(part.capitalize() for part in name.split("_"))
    if not name.isidentifier() or not network.isidentifier():
        raise UsageError(f"{name!r} is no name of an architecture: use letters, digits and _, as in {NAME}")
    if name in specs.names():
        raise UsageError(f"there is an architecture {name!r} already ({called('ports')} lists all)")
    if not os.path.isdir(folder):
        raise ConvertError(f"--out {folder}: there is no such folder: create it first")
    paths = {template.format(NAME): os.path.join(folder, template.format(name)) for template in FILES}
    if there := [path for path in paths.values() if os.path.lexists(path)]:
        raise ConvertError(f"{', '.join(there)}: exists already: choose another name or folder")
    for source, path in paths.items():
        text = (files("ports.template") / source).read_text(encoding="utf-8")
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(text.replace(NAME, name).replace(NETWORK, network))
        except OSError as error:
            raise ConvertError(f"{path}: {error.strerror}") from error
        yield path
    page, golden = (os.path.join(folder, f"{name}{suffix}.py") for suffix in ("", "_golden"))
    yield ""
    yield f"{called('parity')} {name} --spec {page}    compares the three ports"
    yield f"python {golden}    writes a golden case and runs the ports on it"
    yield f"{document('own-architecture')} says what each part means"
