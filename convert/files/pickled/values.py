"""Represent pickled objects by values that do nothing, and refuse names that would do something."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from convert.files.base import shown

from .sources import Refused

# Names that Python 2 and numpy 1 wrote differently.
RENAMED = (
    ("__builtin__.xrange", "builtins.range"),
    ("__builtin__.unicode", "builtins.str"),
    ("__builtin__.long", "builtins.int"),
    ("__builtin__.", "builtins."),
    ("copy_reg.", "copyreg."),
    ("numpy._core.", "numpy.core."),
)

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


class Object(Pairs):
    """An object of a class that is not known here, as what its pickle stores: fields, attributes and entries.

    Args:
      name: of the class.
      called: the pickle calls the class with nothing, as dict subclasses do, which then get entries.
    """

    __slots__ = ("called", "name")

    def __init__(self, name: str, fields: tuple[Any, ...] = (), called: bool = False):
        super().__init__(enumerate(fields))
        self.name, self.called = name, called

    def build(self, state: Any) -> None:
        """Add attributes, those in slots too, or whatever else its class stores."""
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        if all(part is None or isinstance(part, Pairs) for part in parts):
            for part in parts:
                self.extend(part or ())
        else:
            self.append(("state", state))


class Ignored:
    """A harmless value without tensors; `what` says which, as in "a date"."""

    __slots__ = ("what",)

    def __init__(self, what: str):
        self.what = what

    def build(self, state: Any) -> None:
        """Ignore the content, which is no tensor either."""


class Unreadable:
    """A tensor that cannot be read. It is refused where its name is known.

    Args:
      refused: why, and what to do.
    """

    __slots__ = ("refused",)

    def __init__(self, refused: Refused):
        self.refused = refused

    def build(self, state: Any) -> None:
        """Ignore the attributes of the tensor object."""


def deferred(handler: Handler) -> Handler:
    """Return the handler of a tensor, which returns an Unreadable where it, or a tensor that it wraps, is refused."""

    def handle(args: tuple[Any, ...]) -> Any:
        try:
            return next((each for each in args if isinstance(each, Unreadable)), None) or handler(args)
        except Refused as refused:
            return Unreadable(refused)

    return handle


def refusal(name: str, unsupported: Mapping[str, tuple[str, str]]) -> Refused:
    """Return why a name may not occur."""
    what, remedy = unsupported.get(name, ("", ""))
    if what:
        return Refused(f"holds {what} ({name})", remedy)
    said = shown(name)[1:-1]
    whose = ", code of the program that wrote it," if is_foreign(name) else ","
    return Refused(
        f"refers to {said}{whose} which no weights need; nothing was run",
        "if you trust its author, load it with that program, and save model.state_dict() alone",
    )


# Modules of Python 2's library; a name in today's or that day's library is never that of a user's class.
_OLD_LIBRARY = {"commands", "popen2", "cPickle", "urllib2", "imp", "os2", "thread", "new", "exceptions", "nt", "posix"}
_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


def is_foreign(name: str) -> bool:
    """Tell whether a name can be that of a class in somebody's code: not in Python's library, and plainly spelled."""
    top, _, rest = name.partition(".")
    if rest.startswith("__") or ".__" in rest:  # a way through an object to what it is made of
        return False
    return top not in sys.stdlib_module_names and top not in _OLD_LIBRARY and _NAME.fullmatch(name) is not None


def called(name: str, arguments: tuple[Any, ...]) -> Object:
    """Return what an unknown class becomes where the pickle calls it: with nothing, or a member's value (an enum).

    Raises: Refused for any other call.
    """
    if arguments and not (_is_class(name) and len(arguments) == 1 and _is_member(arguments[0])):
        raise refusal(name, {})
    return Object(name, arguments, called=not arguments)


def _is_class(name: str) -> bool:
    return name.rpartition(".")[2].lstrip("_")[:1].isupper()


def _is_member(value: Any) -> bool:
    """Tell whether a value is a number, a text, or a tuple of them, as the members of enums have."""
    values = value if type(value) is tuple else (value,)
    return all(type(each) in (bool, int, float, str) for each in values)


def looks_like_pickle(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is a pickle of protocol 2 to 5, or plainly one of 0 or 1."""
    return re.match(rb"\x80[\x02-\x05]|[ci][\w.]+\n\w+\n|\([dlt]p?0?\n?|[\]}]q\x00", head) is not None


NUMBER, BYTES = "plain numbers", "bytes"  # what entries that are no tensors are reported as
MALFORMED = "copy it again, or save it again with the program that wrote it"


def unexpected(name: str) -> Refused:
    return Refused(f"uses {name} in a way no checkpoint does; nothing was run", "do not trust this file")


def _reconstructed(args: tuple[Any, ...]) -> Object:
    """Return an object as protocols before 2 write it: (class, its base, the base's value)."""
    match args:
        case (Symbol(name=name), Symbol(name=base), value) if is_foreign(name) and base in BASES:
            return Object(name, () if value is None else (value,))
    raise unexpected("copyreg._reconstructor")


def _ordered(args: tuple[Any, ...]) -> Pairs:
    """Return a dict type called with nothing, with its default's name, or (Python 2) with a list of [key, value]."""
    match args:
        case () | (None | Symbol(),):
            return Pairs()
        case (Pairs() as pairs,):
            return Pairs(pairs)
        case (list() as pairs,) if all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            return Pairs((key, value) for key, value in pairs)
    raise unexpected("a dict type")


def _members(args: tuple[Any, ...]) -> list[Any]:
    match args:
        case ():
            return []
        case (list() | tuple() as values, *_):
            return list(values)
    raise unexpected("a container type")


def _tuple(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_members(args))


def _attribute(args: tuple[Any, ...]) -> Symbol:
    """Return the name of what a class holds: a class inside it, or (Python 3.11.0 to 3.11.3) a member of an enum.

    Source: CPython Lib/pickle.py, save_global below protocol 4; Lib/enum.py of 3.11.0, Enum.__reduce_ex__.
    """
    match args:
        case (Symbol(name=owner), str() as name) if is_foreign(full := f"{owner}.{name}"):
            return Symbol(full)
    raise unexpected("builtins.getattr")


def ignored(what: str) -> Handler:
    """Return the handler of a type whose values are no tensors."""
    return lambda args: Ignored(what)


BASES = [f"builtins.{name}" for name in ("object", "dict", "list", "tuple")]
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
HARMLESS: Handlers = {
    **dict.fromkeys(["collections.OrderedDict", "collections.defaultdict", "collections.Counter"], _ordered),
    **dict.fromkeys(["argparse.Namespace", "types.SimpleNamespace"], lambda args: Attributes()),
    **dict.fromkeys(["builtins.set", "builtins.frozenset", "builtins.list", "collections.deque"], _members),
    "builtins.tuple": _tuple,
    "builtins.dict": _ordered,
    **dict.fromkeys([f"builtins.{name}" for name in ("int", "float", "bool", "str")], None),
    "builtins.bytearray": ignored(BYTES),
    "builtins.complex": ignored(NUMBER),
    **dict.fromkeys(
        [f"datetime.{name}" for name in ("date", "datetime", "timedelta", "time", "timezone")], ignored("a date")
    ),
    **dict.fromkeys([f"{module}.{n}" for module in ("pathlib", "pathlib._local") for n in _PATHS], ignored("a path")),
    **dict.fromkeys(["decimal.Decimal", "fractions.Fraction"], ignored(NUMBER)),
    **dict.fromkeys(["builtins.range", "builtins.slice"], ignored("a range of numbers")),
    "builtins.Ellipsis": None,
    "uuid.UUID": ignored("an identifier"),
    "functools.partial": ignored("a function"),
    **dict.fromkeys([f"typing.{name}" for name in ("Any", "Union", "Optional", "List", "Dict", "Tuple")], None),
    "builtins.object": None,
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": _reconstructed,
    **dict.fromkeys(["flax.core.frozen_dict.FrozenDict", "flax.core.FrozenDict"], _ordered),
}
