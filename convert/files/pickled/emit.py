"""Emit pieces of pickles, protocol 2, without a memo: what the writers put together.

Source: CPython Lib/pickletools.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from convert.errors import ConvertError
from convert.files.base import shown


def text(value: str) -> bytes:
    """Pickle a text as BINUNICODE. Raises: ConvertError where it is no Unicode."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise ConvertError(f"{shown(value)} is not valid Unicode: rename it") from None
    return b"X" + len(data).to_bytes(4, "little") + data


def integer(value: int) -> bytes:
    """Pickle an integer as BININT1 or LONG1, for -2**63 <= value < 2**63."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def integers(values: Iterable[int]) -> bytes:
    """Pickle a tuple of integers."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def symbol(module: str, name: str) -> bytes:
    """Pickle a name that Python looks up, as GLOBAL."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Pickle a call of the named function, as REDUCE."""
    return symbol(module, name) + b"(" + b"".join(arguments) + b"tR"


def dictionary(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Pickle a dict of pickled keys and values."""
    return b"}(" + b"".join(key + value for key, value in items) + b"u"


def plain(value: Any) -> bytes:
    """Return a plain value: None, a bool, a number or a text."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return integer(value)
        case float():
            return b"G" + struct.pack(">d", value)
    return text(value)


def nested(tree: Any, leaf: Callable[[Any], bytes | None]) -> bytes:
    """Pickle nested dicts, lists and tuples; `leaf` pickles a leaf of the caller's, and returns None for the rest."""
    if (own := leaf(tree)) is not None:
        return own
    match tree:
        case dict():
            return dictionary((plain(key), nested(value, leaf)) for key, value in tree.items())
        case list():
            return b"](" + b"".join(nested(value, leaf) for value in tree) + b"e"
        case tuple():
            return b"(" + b"".join(nested(value, leaf) for value in tree) + b"t"
    return plain(tree)
