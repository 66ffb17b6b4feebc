"""What pickled objects become: values that do nothing, and the refusals of names that would."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from convert.files.base import shown
from convert.files.pickled.sources import Refused

# Names that Python 2 and numpy 1 wrote differently.
RENAMED = (("__builtin__.", "builtins."), ("copy_reg.", "copyreg."), ("numpy._core.", "numpy.core."))

Handler = Callable[[tuple[Any, ...]], Any]
Handlers = Mapping[str, Handler | None]


class Symbol:
    """A name the file mentions: never looked up, never called."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


VERSIONS = "_metadata"  # the attribute of a state_dict in which torch stores the versions of its modules


class Pairs(list[tuple[Any, Any]]):
    """A dict as its (key, value) pairs, in file order; `attributes` is set where the dict object itself has some."""

    __slots__ = ("attributes",)
    attributes: Any

    def build(self, state: Any) -> None:
        """Store the attributes of the dict object, which are no entries of it."""
        if not isinstance(state, Pairs) or any(key != VERSIONS for key, _ in state):
            self.attributes = state


class Attributes(Pairs):
    """An inert object: its attributes are its entries."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Add the attributes. Raises: Refused where the pickle stores them in another way."""
        if not isinstance(state, Pairs):
            raise Refused("stores the attributes of an object in an unknown way", "save only the state_dict")
        self.extend(state)


class Ignored:
    """A harmless value without tensors; `what` says which, as in "a date"."""

    __slots__ = ("what",)

    def __init__(self, what: str):
        self.what = what

    def build(self, state: Any) -> None:
        """Ignore the content, which is no tensor either."""


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
