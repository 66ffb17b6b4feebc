"""Name the place in a model where a parameter is used."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...quoting import quoted

OWN = "the model's own function"  # a place outside of any module


def numberless(name: str) -> str:
    """Return a name with # for each of its numbers: what arrays of alike blocks have in common."""
    return re.sub(r"\d+", "#", name)


def listed(names: Sequence[str]) -> str:
    """Write the parameters of a use in a sentence; those with a space are quoted."""
    return " ".join(map(quoted, names))


def place(site: str, names: Sequence[str]) -> str:
    """Return the path of the module; without one, that of the parameter without its leaf.

    Args:
      site: the path of the module that runs, "" if the framework does not report it.
      names: the parameters that are used there.
    """
    name = names[0] if names else ""
    if site.startswith("["):  # a step of a scan, in a framework that reports no modules
        return place("", names) + site
    return site or (re.split(r"[./](?=[^./]*$)", name)[0] if re.search(r"[./]", name) else OWN)


def module_of(site: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names on the path to the same place; none for the model's own function."""
    path = re.sub(r"\[\d+\]", "", place(site, names))
    return () if path == OWN else tuple(re.findall(r"[^./]+", path))
