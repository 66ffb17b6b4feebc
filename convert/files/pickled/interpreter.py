"""Read pickles without running them: an interpreter of the opcodes that checkpoint writers emit.

It calls nothing a file names. A name must be in the table the format hands over; the table's value is our own function,
which turns arguments into values of values.py, or None where the name may only be mentioned (dtypes, classes).
Payloads stay in the file as `Stored` and `Latin1`. Dicts are lists of pairs, so no value is ever hashed or compared.

Replaces pickle, which runs what a file names, and torch's weights-only unpickler, which needs torch, reads payloads
into memory as a whole, and does not know paddle's files.
Source: CPython Lib/pickletools.py (opcodes); Lib/pickle.py (what picklers emit).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from convert.files.base import MAX_NAME

from .sources import Cursor, Latin1, Refused, Stored
from .values import RENAMED, Handlers, Object, Pairs, Symbol, called, is_foreign, refusal

MAX_OPCODES = 3_000_000  # a second; torch and paddle write about 30 a tensor
MAX_COPIES = 3_000_000  # values in what is handed to names and objects, which may copy them: some 20 a tensor
MAX_STACK = 100_000  # live values: picklers put at most 2,000 down at a time
MAX_MARKS = 1_000  # open brackets
MAX_MEMO = 2_000_000  # remembered values; a pickler counts them from 0
MAX_TEXT = 64 * 1024 * 1024  # bytes of text kept in memory, in total
MAX_INLINE = 255  # bytes strings up to here are kept in memory
MAX_INTEGER = 255  # bytes in one integer


class Unpickler:
    """Interprets one pickle.

    Args:
      cursor: where the pickle begins; left behind its last byte by `load`.
      handlers: allowed names -> our function from arguments to an inert value; None: allowed as a value only.
      unsupported: names known not to be attacks -> what they stand for and what to do, for the message.
      persistent: our function for a persistent id; without it such ids are refused.
      objects: read objects of classes that are not known as what the pickle stores of them; else they are refused.
    """

    def __init__(
        self,
        cursor: Cursor,
        handlers: Handlers,
        unsupported: Mapping[str, tuple[str, str]] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        objects: bool = False,
    ):
        self.cursor, self.handlers, self.unsupported = cursor, handlers, unsupported or {}
        self.persistent, self.objects = persistent, objects
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.symbols: set[str] = set()  # full names of all classes and functions that the pickle names
        self.text = self.copies = 0

    def load(self) -> Any:
        """Return the pickled value, inert. Raises: Refused."""
        for _ in range(MAX_OPCODES):
            at = self.cursor.position
            code = self.cursor.byte()
            if code == STOP:
                return self._result()
            operation = OPERATIONS[code]
            if operation is None:
                problem = f"byte {at} ({code:#04x}) is no pickle opcode that a checkpoint needs"
                raise Refused(f"{problem}: damaged or no checkpoint")
            try:
                operation(self)
            except (IndexError, UnicodeError):  # too few values, values of another kind, text that is no UTF-8
                raise Refused(f"the pickle is malformed at byte {at}", "copy or save it again") from None
            if len(self.stack) > MAX_STACK or len(self.marks) > MAX_MARKS:
                raise Refused(f"the pickle nests too much at byte {at}: no checkpoint needs that")
        raise Refused(f"holds more than {MAX_OPCODES:,} pickle opcodes", "save only the model's tensors")

    def _result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise Refused(f"the pickle that ends at byte {self.cursor.position} is malformed", "copy or save it again")
        return self.stack.pop()

    # What the opcodes share.

    def number(self, size: int) -> int:
        return int.from_bytes(self.cursor.take(size), "little")

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self, kind: type[Any]) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise IndexError
        return value

    def push_text(self, size: int, encoding: str = "utf-8") -> None:
        if size > MAX_NAME:
            start = self.cursor.skip(size)
            self.stack.append(Latin1(start, size) if encoding == "utf-8" else Stored(start, size))
            return
        self.text += size
        if self.text > MAX_TEXT:
            raise Refused(f"holds more than {MAX_TEXT:,} bytes of short texts", "save only the model's tensors")
        self.stack.append(self.cursor.take(size).decode(encoding))

    def push_bytes(self, size: int) -> None:
        kept = size <= MAX_INLINE
        self.stack.append(self.cursor.take(size) if kept else Stored(self.cursor.skip(size), size))

    def push_symbol(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise IndexError
        full = f"{module}.{name}"
        for old, new in RENAMED:
            if full.startswith(old):
                full = new + full[len(old) :]
        if full not in self.handlers and (full in self.unsupported or not (self.objects and is_foreign(full))):
            raise refusal(full, self.unsupported)
        self.symbols.add(full)
        self.stack.append(Symbol(full))

    def remember(self, index: int) -> None:
        if index >= MAX_MEMO:
            raise Refused(
                f"memo index {index:,} at byte {self.cursor.position}: no checkpoint remembers that many values"
            )
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Refused(f"memo index {index:,} at byte {self.cursor.position} was never stored: damaged")
        self.stack.append(self.memo[index])

    def push_tuple(self, size: int) -> None:
        if len(self.stack) < size:
            raise IndexError
        values = tuple(self.stack[-size:])
        del self.stack[-size:]
        self.stack.append(values)

    def push_integer(self, size: int) -> None:
        if size > MAX_INTEGER:
            raise Refused(f"an integer of {size:,} bytes at byte {self.cursor.position}")
        self.stack.append(int.from_bytes(self.cursor.take(size), "little", signed=True))

    # Opcodes that need more than a line.

    def set_items(self) -> None:
        items = self.since_mark()
        if len(items) % 2:
            raise IndexError
        self.top(Pairs).extend(zip(items[::2], items[1::2], strict=True))

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.top(Pairs).append((key, value))

    def append(self) -> None:
        self._extend([self.stack.pop()])

    def extend(self) -> None:
        self._extend(self.since_mark())

    def _extend(self, values: list[Any]) -> None:
        sequence: list[Any] = self.top(list)
        if isinstance(sequence, Object):  # of a subclass of list
            sequence.extend(enumerate(values, len(sequence)))
        elif isinstance(sequence, Pairs):
            raise IndexError
        else:
            sequence.extend(values)

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise Refused("refers to data outside itself (a persistent id)", "is it a torch file cut in two?")
        self.stack.append(self.persistent(self.stack.pop()))

    def reduce(self) -> None:
        """Record a call without making it: the handler says what it means."""
        self._apply(called)

    def new_object(self) -> None:
        """Record an object whose state follows."""
        self._apply(Object)

    def _apply(self, otherwise: Callable[[str, tuple[Any, ...]], Any]) -> None:
        """Replace a name and its arguments by what the handler makes of them, or `otherwise` of a foreign name."""
        arguments, symbol = self.stack.pop(), self.stack.pop()
        if not isinstance(symbol, Symbol) or not isinstance(arguments, tuple):
            raise IndexError
        name = symbol.name
        handler = self.handlers.get(name)
        if handler is None and name in self.handlers:
            raise refusal(name, self.unsupported)
        self._count_copies(arguments)
        self.stack.append(handler(arguments) if handler else otherwise(name, arguments))

    def build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if not hasattr(value, "build"):
            raise IndexError
        self._count_copies((state,))
        value.build(state)

    def _count_copies(self, arguments: tuple[Any, ...]) -> None:
        """Count the size of each argument: one opcode can pass on a large value of the memo again and again."""
        self.copies += len(arguments)
        if self.copies <= MAX_COPIES:
            self.copies += sum(_size(argument) for argument in arguments)
        if self.copies > MAX_COPIES:
            raise Refused(f"copies more than {MAX_COPIES:,} of its values", "do not trust this file")


def _size(value: Any) -> int:
    """Return what a copy of it costs, in values. Of a list of pairs, each becomes a tuple."""
    if isinstance(value, str):
        return len(value) // 16
    return len(value) * (8 if type(value) is list else 1) if isinstance(value, (list, tuple)) else 0


def _line(u: Unpickler) -> str:
    return u.cursor.line().decode("utf-8")


def _stack_global(u: Unpickler) -> None:
    name, module = u.stack.pop(), u.stack.pop()
    u.push_symbol(module, name)


def _frame(u: Unpickler) -> None:
    size = u.number(8)
    if size > u.cursor.end - u.cursor.position:
        raise Refused(
            f"ends at byte {u.cursor.end}, in the middle of a pickle frame: truncated", "copy or save it again"
        )


def _protocol(u: Unpickler) -> None:
    version = u.number(1)
    if not 2 <= version <= 5:
        raise Refused(f"pickle protocol {version}: only 2 to 5 are known")


STOP = ord(".")

_TABLE: dict[bytes, Callable[[Unpickler], None]] = {
    b"\x80": _protocol,
    b"\x95": _frame,
    # values
    b"N": lambda u: u.stack.append(None),
    b"\x88": lambda u: u.stack.append(True),
    b"\x89": lambda u: u.stack.append(False),
    b"J": lambda u: u.push_integer(4),
    b"K": lambda u: u.stack.append(u.number(1)),
    b"M": lambda u: u.stack.append(u.number(2)),
    b"\x8a": lambda u: u.push_integer(u.number(1)),
    b"\x8b": lambda u: u.push_integer(u.number(4)),
    b"G": lambda u: u.stack.append(struct.unpack(">d", u.cursor.take(8))[0]),
    # texts; a Python 2 string is bytes or text, as its user likes
    b"X": lambda u: u.push_text(u.number(4)),
    b"\x8c": lambda u: u.push_text(u.number(1)),
    b"\x8d": lambda u: u.push_text(u.number(8)),
    b"U": lambda u: u.push_text(u.number(1), "latin-1"),
    b"T": lambda u: u.push_text(u.number(4), "latin-1"),
    # bytes
    b"C": lambda u: u.push_bytes(u.number(1)),
    b"B": lambda u: u.push_bytes(u.number(4)),
    b"\x8e": lambda u: u.push_bytes(u.number(8)),
    b"\x96": lambda u: u.push_bytes(u.number(8)),
    # containers
    b"(": lambda u: u.marks.append(len(u.stack)),
    b")": lambda u: u.stack.append(()),
    b"]": lambda u: u.stack.append([]),
    b"}": lambda u: u.stack.append(Pairs()),
    b"\x8f": lambda u: u.stack.append([]),  # a set: its members, in file order
    b"t": lambda u: u.stack.append(tuple(u.since_mark())),
    b"\x91": lambda u: u.stack.append(u.since_mark()),  # a frozenset
    b"\x85": lambda u: u.push_tuple(1),
    b"\x86": lambda u: u.push_tuple(2),
    b"\x87": lambda u: u.push_tuple(3),
    b"a": Unpickler.append,
    b"e": Unpickler.extend,
    b"\x90": Unpickler.extend,
    b"s": Unpickler.set_item,
    b"u": Unpickler.set_items,
    # memo
    b"q": lambda u: u.remember(u.number(1)),
    b"r": lambda u: u.remember(u.number(4)),
    b"\x94": lambda u: u.remember(len(u.memo)),
    b"h": lambda u: u.recall(u.number(1)),
    b"j": lambda u: u.recall(u.number(4)),
    # names and what to do with them
    b"c": lambda u: u.push_symbol(_line(u), _line(u)),
    b"\x93": _stack_global,
    b"R": Unpickler.reduce,
    b"\x81": Unpickler.new_object,
    b"b": Unpickler.build,
    b"Q": Unpickler.persistent_id,
}

OPERATIONS: list[Callable[[Unpickler], None] | None] = [_TABLE.get(bytes([code])) for code in range(256)]
