"""Find out where arrays lie that a Table reads, if a dict or a wrapper of a module stands around them."""

from __future__ import annotations

import re
from collections.abc import Collection

from specs.notation.lines import Lines

from .matching import Matcher

MODULE = r"((_orig_mod|module)\.)*"  # what torch.compile and DataParallel put before the names of a whole module
PLACE = re.compile(rf"(?P<levels>([^/]+/)*)(?P<module>{MODULE})")
MOST = 8  # places that are tried


def wrapped(table: Lines, names: Collection[str]) -> str:
    """Say how to give a Table its arrays, which all lie in one place of a tree; "" where they do in none.

    Args:
      names: of all arrays, with the levels of the tree joined by "/".
    """
    places = dict.fromkeys(at for name in names if (at := PLACE.match(name)) and at[0])
    tried = dict[str, str]()
    for at in places:
        tried.setdefault(at[0], f"state{''.join(f'[{level!r}]' for level in at['levels'].split('/')[:-1])}")
    for place, state in list(tried.items())[:MOST]:
        match = Matcher(table, [name.removeprefix(place) for name in names if name.startswith(place)]).match()
        if match.missing or match.unexpected or match.problems:
            continue
        if module := "".join(place.rpartition("/")[2:]):
            bare = f"{{name.removeprefix({module!r}): array for name, array in {state}.items()}}"
            return f"the arrays that it reads have {place!r} before their names: give {bare}"
        return f"the arrays that it reads lie under {place!r}: give {state}"
    return ""
