"""Pieces of .pdparams, .pt and legacy .pt files, good and bad, put together by hand."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator

from convert.files.pickled.emit import call, dictionary, integer, integers, symbol, text

CANARY = "canary"  # the file that an attack would create in the working directory
COMMAND = f"touch {CANARY}"
PAYLOAD = bytes(range(24))

Files = Iterator[tuple[str, bytes, str]]  # name, content, what the message must match


def pdparams(value: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + value + b"."


def zipped(members: dict[str, bytes], compress: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            method = zipfile.ZIP_DEFLATED if name.endswith(compress or "/") else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def torch_members(value: bytes, payload: bytes = PAYLOAD) -> dict[str, bytes]:
    members = {
        "a/data.pkl": pdparams(value, 2),
        "a/byteorder": b"little",
        "a/data/0": payload,
        "a/version": b"3\n",
    }
    return members


def torch_zip(value: bytes) -> bytes:
    return zipped(torch_members(value))


MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
SYSTEM = b"\x80\x02}(" + text("little_endian") + b"\x88" + text("protocol_version") + b"M\xe9\x03u."


def legacy(
    value: bytes, keys: bytes = b"", payload: bytes = PAYLOAD, system: bytes = SYSTEM, version: int = 1001
) -> bytes:
    head = MAGIC + b"\x80\x02" + integer(version) + b"." + system
    keys = keys or b"\x80\x02](" + text("0") + b"e."
    return head + b"\x80\x02" + value + b"." + keys + struct.pack("<q", len(payload) // 4) + payload


def storage(
    size: int = 6, key: str = "0", kind: tuple[str, str] = ("torch", "FloatStorage"), more: bytes = b""
) -> bytes:
    return b"(" + text("storage") + symbol(*kind) + text(key) + text("cpu") + signed(size) + more + b"tQ"


def signed(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tensor(
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    source: bytes = b"",
    more: bytes = b"",
) -> bytes:
    numbers = [b"(" + b"".join(map(signed, values)) + b"t" for values in (shape, strides)]
    hooks = call("collections", "OrderedDict")
    arguments = (source or storage(), signed(offset), *numbers, b"\x89", hooks, more)
    return call("torch._utils", "_rebuild_tensor_v2", *arguments)


def dtype(code: str = "f4", order: str = "<", extra: bytes = b"NNN") -> bytes:
    state = b"(K\x03" + text(order) + extra + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    return call("numpy", "dtype", text(code), b"\x89", b"\x88") + state


def array(
    shape: bytes = integers((2, 3)), kind: bytes = b"", data: bytes = b"C\x18" + PAYLOAD, version: int = 1
) -> bytes:
    empty = call("numpy.core.multiarray", "_reconstruct", symbol("numpy", "ndarray"), integers([0]), b"C\x01b")
    return empty + b"(" + integer(version) + shape + (kind or dtype()) + b"\x89" + data + b"tb"


def one(value: bytes, name: str = "w") -> bytes:
    return dictionary([(text(name), value)])
