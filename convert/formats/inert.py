"""What pickled objects become: values that do nothing, and the refusals of names that would."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from convert.formats.base import shown
from convert.formats.sources import Refused

# Names that Python 2 and numpy 1 wrote differently.
RENAMED = (("__builtin__.", "builtins."), ("copy_reg.", "copyreg."), ("numpy._core.", "numpy.core."))

Handler = Callable[[tuple[Any, ...]], Any]
Handlers = Mapping[str, Handler | None]


class Symbol:
    """A name the file mentions: never looked up, never called."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Pairs(list[tuple[Any, Any]]):
    """A dict as its (key, value) pairs, in file order."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Attributes set on a dict (torch's `_metadata`) are no entries of it."""


class Attributes(Pairs):
    """An inert object: its attributes are its entries."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        if isinstance(state, Pairs):
            self.extend(state)


class Ignored:
    """A harmless value that holds no tensors: a date, a path, a device."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        pass


def refusal(name: str, unsupported: Mapping[str, tuple[str, str]]) -> Refused:
    """Why a name may not occur."""
    what, remedy = unsupported.get(name, ("", ""))
    if what:
        return Refused(f"holds {what} ({name})", remedy)
    return Refused(
        f"refers to {shown(name)[1:-1]}: not a checkpoint; nothing was run",
        "if you trust its author, load it with the program that wrote it and save only the state_dict",
    )


def looks_like_pickle(head: bytes) -> bool:
    """Whether a file that begins with `head` is a pickle of protocol 2 to 5, or plainly one of 0 or 1."""
    return re.match(rb"\x80[\x02-\x05]|[ci][\w.]+\n\w+\n|\([dlt]p?0?\n?|[\]}]q\x00", head) is not None
