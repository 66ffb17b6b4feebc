"""Name the place in a model where a parameter is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from parity.given.quoting import quoted

OWN = "the model's own function"  # a place outside of any module
OUTPUT = "output"  # that behind all modules
_STEP = re.compile(r"\[(\d+)\]")  # a step of a scan, behind the path of the module that has it


def listed(names: Sequence[str]) -> str:
    """Write the parameters of a use in a sentence; those with a space are quoted."""
    return " ".join(map(quoted, names))


def shown(site: str) -> str:
    """Return the path of a module as its checkpoint has it: "encoder/norm" for "encoder[0]/norm", in a step of a scan.

    A step behind the first one is named, as the steps before it agreed: "encoder/norm (step 1)".
    """
    path, steps = _STEP.sub("", site), _STEP.findall(site)
    return f"{path} (step {', '.join(steps)})" if path and any(map(int, steps)) else path


def shown_once(sites: Iterable[str]) -> list[str]:
    """Return what `shown` does of several sites, of the steps of a scan the first one alone."""
    firsts = dict[str, str]()
    for site in sites:
        firsts.setdefault(_STEP.sub("", site), site)
    return [*map(shown, firsts.values())]


def class_at(place: str, classes: Mapping[str, str]) -> str:
    """Return the class of the module at a place, as `shown` returns it; "" where that is not known."""
    return classes.get(place.partition(" (step ")[0], "")


def is_inside(place: str, module: str) -> bool:
    """Tell whether a place is a module or in it, in the same step; both as `shown` returns them."""
    (path, _, step), (outer, _, its) = place.partition(" (step "), module.partition(" (step ")
    return step == its and bool(re.match(rf"{re.escape(outer)}(?![^./])", path))


def place(site: str, names: Sequence[str]) -> str:
    """Return the path of the module, as `shown` does; without one, that of the parameter without its leaf.

    Args:
      site: the path of the module that runs, "" if the framework does not report it.
      names: the parameters that are used there.
    """
    name = names[0] if names else ""
    if not site or site.startswith("["):  # a step of a scan, in a framework that reports no modules
        site = (re.split(r"[./](?=[^./]*$)", name)[0] if re.search(r"[./]", name) else OWN) + site
    return shown(site)


def module_of(site: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names on the path to the same place; none for the model's own function."""
    path = place(_STEP.sub("", site), names)
    return () if path == OWN else tuple(re.findall(r"[^./]+", path))
