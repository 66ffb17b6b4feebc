"""One page an architecture, free of any framework. A page is a module that ends with `SPEC = Spec(...)`.

A page is code: those here may be imported whenever a checkpoint seems to need one; any other is loaded only when the
user names it, never because a checkpoint does.

`likely`, here, tells by the pages' signs which is tried first. What a page imports stands beside the pages:

    a page's contract   spec; layer has a network's layers, and kinds what arrays each kind has; config; init (draws a
                        port's weights), preprocessing; paddlevit
    its Tables          table, a Table as users hold it; dialects has those of a page
    for people          words ("did you mean"), numbers; raised finds the line of a page that failed

The rooms have the language of Tables, in an order in which each imports only those before it:

    notation   parses and prints a Table, and joins two
    applied    moves elements of arrays as a Table says
    solving    matches a Table with names and shapes of arrays, and solves the lengths of axes
    covering   proves that no element is left over
    checking   loads pages from outside, and checks each page as a whole
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
    from .checking.outside import Page
    from .spec import Spec

GLANCE = 500  # names of arrays that `likely` looks at


@cache
def _pages() -> dict[str, str]:
    """Return {architecture: its sign}, read off the text of the pages: importing all of them would take too long."""
    signs = {}
    for entry in sorted(os.listdir(__path__[0])):
        if entry.endswith(".py"):
            with open(os.path.join(__path__[0], entry), "rb") as file:
                text = file.read()
            if b"\nSPEC = " in text:
                _, _, rest = text.partition(b'\nSIGN = r"')
                signs[entry.removesuffix(".py")] = rest.partition(b'"\n')[0].decode()
    return signs


_added: dict[str, Page] = {}  # pages from outside that the user named, by architecture


def names() -> list[str]:
    """Return every architecture: of the pages here, and of those that were added."""
    return [*_pages(), *_added]


def likely(names: Iterable[str]) -> str | None:
    """Guess the architecture of these names of arrays: the one whose sign most of them bear; None if there is none.

    Recognition tries it first, so that most files need no other page; nothing else depends on the guess. Pages that the
    user added go before those here.
    """
    some = list(islice(names, GLANCE))
    for signs in ({name: page.spec.sign for name, page in _added.items()}, _pages()):
        patterns = {name: re.compile(sign) for name, sign in signs.items() if sign}
        hits = Counter({name: sum(map(bool, map(sign.search, some))) for name, sign in patterns.items()})
        (name, most), (_, next_most) = [*hits.most_common(), ("", 0), ("", 0)][:2]
        if most > next_most:
            return name
    return None


def get(name: str) -> Spec:
    """Return the Spec of an architecture in `names()`. Raises: ValueError with the nearest name."""
    if name in _added:
        return _added[name].spec
    if name not in _pages():
        from .words import unknown

        raise ValueError(f"{unknown(name, names())} (architectures: {', '.join(names())})")
    return _of_page(name)


@cache
def _of_page(name: str) -> Spec:
    spec: Spec = importlib.import_module(f"{__name__}.{name}").SPEC
    return spec


def add(source: str) -> str:
    """Load a page from outside, as the user names it: a .py file, or an entry point of the group "triptych.specs".

    The name of a page here is taken as it is, and loads nothing.

    Returns: the name of its architecture. Raises: SpecError, a ValueError, that lists everything wrong with the page.
    """
    from .checking.outside import entry_point, load
    from .spec import SpecError

    if source in _pages() and entry_point(source) is None:
        return source
    here = os.path.basename(source).removesuffix(".py")
    if here in _pages() and not os.path.exists(source) and source.endswith(".py"):
        raise SpecError(f"{source}: there is no such file: {here!r} is an architecture already, and needs no page")
    from .checking.checks import of_other_signs

    page = load(source)
    if page.name in _pages() or _added.get(page.name, page).source != page.source:
        raise SpecError(f"{source}: there is another architecture {page.name!r} already: rename the file")
    if page.spec.sign and (problems := list(of_other_signs(page.spec, {name: _of_page(name) for name in _pages()}))):
        raise SpecError(
            f"{source}: `sign` does not tell it from other architectures: leave it out, or mend it", problems
        )
    _added[page.name] = page
    return page.name


def added() -> list[str]:
    """Return sources of the pages that were added, for another process to add."""
    return [page.source for page in _added.values()]


def folder(name: str) -> str | None:
    """Return the folder of a page that was added; None for the pages here."""
    return _added[name].folder if name in _added else None


def resolve(name: str) -> str:
    """Return the architecture that the user names: one in `names()`, a page's .py file, or an entry point.

    Raises: ValueError with the nearest name; SpecError, one of them, for a page with a fault.
    """
    if name not in names():
        from .checking.outside import entry_point

        if name.endswith(".py") or entry_point(name):
            return add(name)
        get(name)  # raises
    return name
