"""Represent pickled objects by values that do nothing, and refuse names that would do something."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from convert.files.base import ITEMSIZE, shown
from convert.files.pickled.sources import Inline, Joined, Latin1, Refused, Source, Stored

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


def refusal(name: str, unsupported: Mapping[str, tuple[str, str]]) -> Refused:
    """Return why a name may not occur."""
    what, remedy = unsupported.get(name, ("", ""))
    if what:
        return Refused(f"holds {what} ({name})", remedy)
    return Refused(
        f"refers to {shown(name)[1:-1]}: not a checkpoint; nothing was run",
        "if you trust its author, load it with the program that wrote it and save only the state_dict",
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
    """Return what an unknown class becomes where the pickle calls it: with nothing, or a member's number (an enum).

    Raises: Refused for any other call.
    """
    number = len(arguments) == 1 and type(arguments[0]) is int and name.rpartition(".")[2][:1].isupper()
    if arguments and not number:
        raise refusal(name, {})
    return Object(name, arguments, called=not arguments)


def looks_like_pickle(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is a pickle of protocol 2 to 5, or plainly one of 0 or 1."""
    return re.match(rb"\x80[\x02-\x05]|[ci][\w.]+\n\w+\n|\([dlt]p?0?\n?|[\]}]q\x00", head) is not None


MAX_DIMENSIONS = 64  # numpy's own limit
NUMBER, BYTES = "plain numbers", "bytes"  # what entries that are no tensors are reported as
MALFORMED = "fetch it again, or save it again with the program that wrote it"

# numpy's type codes. Objects (O), texts (S, U), records (V) and dates (M, m) are no tensors.
DTYPES = {
    "b1": "bool", "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32",
    "u8": "uint64", "i8": "int64", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64",
    "c16": "complex128",
}  # fmt: skip


# Those of the package ml_dtypes, by their class.
ML_DTYPES = {f"ml_dtypes.{name}": name for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
PLAIN_DTYPES = DTYPES | ML_DTYPES


class Dtype:
    """numpy.dtype: `name` is set once its state says that it is little-endian and plain.

    Of any code: numpy's scalars may have codes that no array here has; these scalars are skipped.
    """

    __slots__ = ("code", "name")

    def __init__(self, code: str):
        self.code, self.name = code, ""

    def build(self, state: Any) -> None:
        if self.code not in PLAIN_DTYPES:
            return
        match state:
            case (3 | 4, "<" | "|", None, None, None, int(), int(), int(), *_):
                self.name = PLAIN_DTYPES[self.code]
            case (_, ">", *_):
                raise Refused(f"holds a big-endian array (>{self.code})", "save it again as little-endian")
            case _:
                raise Refused(f"holds an array of a structured dtype (based on {self.code})", "save plain arrays")


class Array:
    """numpy.ndarray: `source` holds its bytes, in C order unless `fortran`."""

    __slots__ = ("dtype", "fortran", "shape", "source")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype, self.fortran = "", False
        self.source: Source = Inline(b"")

    def build(self, state: Any) -> None:
        match state:
            case (1, tuple() as shape, Dtype() as dtype, bool() | 0 | 1 as fortran, data):
                self.fill(shape, dtype, bool(fortran), data)
            case _:
                raise Refused("holds a numpy array in an unknown layout", MALFORMED)

    def fill(self, shape: tuple[Any, ...], dtype: Dtype, fortran: bool, data: Any) -> Array:
        if dtype.code not in PLAIN_DTYPES:
            problem = f"holds a numpy array of dtype {shown(dtype.code)}, which is no plain number"
            raise Refused(problem, "save numbers only")
        if not dtype.name:
            raise Refused("holds a numpy array whose dtype is incomplete", MALFORMED)
        self.shape, self.dtype, self.fortran = checked_shape(shape), dtype.name, fortran
        nbytes = math.prod(self.shape) * ITEMSIZE[self.dtype]
        self.source = source_of(data, nbytes)
        if self.source.size != nbytes:
            problem = f"holds an array of shape {self.shape} and dtype {self.dtype} with {self.source.size:,} bytes"
            raise Refused(f"{problem} instead of {nbytes:,}", MALFORMED)
        return self


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape, strides or the like: a few whole numbers, none negative. Raises: Refused."""
    few = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
    if not few or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise Refused("holds an array whose shape is not a tuple of a few whole numbers", MALFORMED)
    return tuple(shape)


def source_of(data: Any, nbytes: int) -> Source:
    """Return array bytes, however a pickler wrote them. Raises: Refused."""
    match data:
        case bytes():
            return Inline(data)
        case str():
            return Inline(latin1(data))
        case Latin1() if nbytes <= data.length <= 2 * nbytes:
            return Latin1(data.offset, data.length, nbytes)
        case Stored() | Inline() | Joined():
            return data
    raise Refused(f"holds an array of {nbytes:,} bytes without as many bytes of data", MALFORMED)


def latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeError:
        raise Refused(f"holds text where bytes should be: {shown(text)}", MALFORMED) from None


def unexpected(name: str) -> Refused:
    return Refused(f"uses {name} in a way no checkpoint does; nothing was run", "do not trust this file")


def _reconstruct(args: tuple[Any, ...]) -> Array:
    match args:
        case (Symbol(name="numpy.ndarray"), tuple(), b"b" | "b"):
            return Array()
    raise unexpected("numpy's array constructor")


def _jax_array(args: tuple[Any, ...]) -> Array:
    """Return a jax array: numpy's constructor, its arguments and the array's state, in one call."""
    match args:
        case (Symbol(name="numpy.core.multiarray._reconstruct"), tuple() as inner, state, *_):
            array = _reconstruct(inner)
            array.build(state)
            return array
    raise unexpected("jax's array constructor")


def _reconstructed(args: tuple[Any, ...]) -> Object:
    """Return an object as protocols before 2 write it: (class, its base, the base's value)."""
    match args:
        case (Symbol(name=name), Symbol(name=base), value) if is_foreign(name) and base in BASES:
            return Object(name, () if value is None else (value,))
    raise unexpected("copyreg._reconstructor")


def _from_buffer(args: tuple[Any, ...]) -> Array:
    match args:
        case (data, Dtype() as dtype, tuple() as shape, "C" | "F" as order):
            return Array().fill(shape, dtype, order == "F", data)
    raise unexpected("numpy's array constructor")


def _dtype(args: tuple[Any, ...]) -> Dtype:
    match args:
        case (str() as code, False | 0, True | 1) if code not in ML_DTYPES:
            return Dtype(code)
        case (Symbol(name=name), False | 0, True | 1) if name in ML_DTYPES:
            return Dtype(name)
    raise unexpected("numpy.dtype")


def _encode(args: tuple[Any, ...]) -> bytes | Latin1:
    match args:
        case (str() as text, "latin1" | "latin-1"):
            return latin1(text)
        case (Latin1() as text, "latin1" | "latin-1"):
            return text
    raise unexpected("_codecs.encode")


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


def _bytes(args: tuple[Any, ...]) -> bytes | Ignored:
    return Ignored(BYTES) if args else b""


def _scalar(args: tuple[Any, ...]) -> Array | Ignored:
    """Return a numpy scalar as an array of shape (): its dtype says exactly what it is."""
    match args:
        case (Dtype() as dtype, data):
            return (
                Array().fill((), dtype, False, data)
                if dtype.code in PLAIN_DTYPES
                else Ignored("a text, date or object")
            )
    raise unexpected("numpy's scalar constructor")


def ignored(what: str) -> Handler:
    """Return the handler of a type whose values are no tensors."""
    return lambda args: Ignored(what)


NUMPY: Handlers = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.dtype": _dtype,
    **dict.fromkeys(ML_DTYPES, None),
    **dict.fromkeys(
        ["jax._src.array._reconstruct_array", "jax._src.device_array.reconstruct_device_array"], _jax_array
    ),
    "numpy.ndarray": None,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
}

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
    **dict.fromkeys(["decimal.Decimal", "fractions.Fraction", "builtins.range", "builtins.slice"], ignored(NUMBER)),
    "uuid.UUID": ignored("an identifier"),
    "functools.partial": ignored("a function"),
    **dict.fromkeys([f"typing.{name}" for name in ("Any", "Union", "Optional", "List", "Dict", "Tuple")], None),
    "builtins.object": None,
    "copyreg._reconstructor": _reconstructed,
    **dict.fromkeys(["flax.core.frozen_dict.FrozenDict", "flax.core.FrozenDict"], _ordered),
}
