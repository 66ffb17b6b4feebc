"""One page an architecture, free of any framework. A page is a module that ends with `SPEC = Spec(...)`.

A page is code: those here may be imported whenever a checkpoint seems to need one; any other is loaded only when the
user names it, never because a checkpoint does.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spec import Spec

GLANCE = 500  # names of arrays that `likely` looks at
_SPEC = re.compile(r"^SPEC\b", re.MULTILINE)
_SIGN = re.compile(r'^SIGN = r"(.*)"$', re.MULTILINE)


@cache
def _pages() -> dict[str, str]:
    """{architecture: its sign}, read off the text of the pages here: importing all of them would take too long."""
    found = {}
    for entry in sorted(os.listdir(__path__[0])):
        if entry.endswith(".py"):
            with open(os.path.join(__path__[0], entry), encoding="utf-8") as file:
                text = file.read()
            if _SPEC.search(text):
                sign = _SIGN.search(text)
                found[entry.removesuffix(".py")] = sign[1] if sign else ""
    return found


def names() -> list[str]:
    """Every architecture."""
    return list(_pages())


def likely(names: Iterable[str]) -> str | None:
    """Guess the architecture of these names of arrays: the one whose sign most of them bear; None if none does.

    Recognition tries it first, so that most files need no other page; nothing else depends on the guess.
    """
    some = list(islice(names, GLANCE))
    signs = {name: re.compile(sign) for name, sign in _pages().items() if sign}
    hits = Counter({name: sum(map(bool, map(sign.search, some))) for name, sign in signs.items()})
    (name, most), *_ = hits.most_common(1) or [("", 0)]
    return name if most else None


def get(name: str) -> Spec:
    """Return the Spec of an architecture. Raises: ValueError with the nearest name."""
    if name not in names():
        from .config import unknown

        raise ValueError(f"{unknown(name, names())} (architectures: {', '.join(names())})")
    spec: Spec = importlib.import_module(f"{__name__}.{name}").SPEC
    return spec
