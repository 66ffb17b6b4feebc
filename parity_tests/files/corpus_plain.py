"""Bad safetensors, msgpack, npz and unrelated files, made on the fly: each must give one FormatError."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Iterator

from convert.files.base import MAX_TENSORS
from convert.files.zips import CENTRAL, END, MAX_MEMBERS

PAYLOAD = bytes(range(24))
Files = Iterator[tuple[str, bytes]]


def bad_files() -> Iterator[tuple[str, str, bytes]]:
    """(name, suffix, content) of every bad file."""
    for suffix, files in (
        (".safetensors", safetensors()),
        (".msgpack", msgpack()),
        (".npz", npz()),
        ("", foreign()),
    ):
        for name, content in files:
            yield f"{suffix[1:] or 'foreign'}-{name}", suffix or "." + name.rpartition(".")[2], content


# ------------------------------------------------------------ safetensors


def safetensors_file(header: str | bytes, data: bytes = PAYLOAD, length: int | None = None) -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: str = "F32", shape: str = "[2,3]", offsets: str = "[0,24]") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def safetensors() -> Files:
    good = safetensors_file(f'{{"a":{entry()}}}')
    for cut in (3, 8, 9, 20, len(good) - 25, len(good) - 1):
        yield f"truncated-{cut}", good[:cut]
    yield "trailing", good + b"x"
    for length in (0, 2**32, 2**63, 2**64 - 1):
        yield f"header-length-{length}", safetensors_file(f'{{"a":{entry()}}}', length=length)
    yield "header-too-long", safetensors_file(b"{" + b" " * (17 << 20))
    for name, (shape, offsets) in {
        "overlap": ("[1]", "[0,4]"), "hole": ("[1]", "[28,32]"), "reversed": ("[0]", "[24,20]"),
        "far": ("[1]", "[1000000,1000004]"), "negative": ("[1]", "[-4,0]"),
        "huge": ("[1]", f"[{2**70},{2**70 + 4}]"),
    }.items():  # fmt: skip
        yield (
            name,
            safetensors_file(f'{{"a":{entry()},"b":{entry("F32", shape, offsets)}}}', PAYLOAD + b"1234"),
        )
    for name, shape in {
        "negative": "[-2,-3]", "float": "[2.0,3]", "huge": f"[{2**40},{2**40},{2**40}]", "string": '["2",3]',
        "boolean": "[true,6]", "nested": "[[2],3]", "null": "null", "one-number": "6", "wrong": "[2,4]",
        "unequal": "[7]", "many": "[" + "1," * 200 + "6]", "exponent": "[1e9,3]",
        "big-integer": f"[{'9' * 3000}]", "zero": "[2,3,0]", "comma": "[2,3,]", "leading-zero": "[02,3]",
    }.items():  # fmt: skip
        yield f"shape-{name}", safetensors_file(f'{{"a":{entry(shape=shape)}}}')
    yield (
        "zero-of-huge",
        safetensors_file(f'{{"a":{entry(shape=f"[0,{2**40},{2**40}]", offsets="[0,0]")}}}', b""),
    )
    for dtype in ("F33", "f32", "", "O", "F4", "F8_E8M0", "V2"):
        yield f"dtype-{dtype}", safetensors_file(f'{{"a":{entry(dtype)}}}')
    for name, header in {
        "array": "[]", "number": "1", "empty": "", "spaces": "   ", "leading-space": f' {{"a":{entry()}}}',
        "unclosed": f'{{"a":{entry()}', "two-objects": f'{{"a":{entry()}}}{{}}',
        "garbage": f'{{"a":{entry()}}}x', "no-colon": f'{{"a" {entry()}}}', "no-value": '{"a"}',
        "no-comma": f'{{"a":{entry()} "b":{entry()}}}', "trailing-comma": f'{{"a":{entry()},}}',
        "int-key": f"{{1:{entry()}}}", "null-value": '{"a":null}',
        "duplicate": f'{{"a":{entry()},"a":{entry()}}}',
        "escaped-duplicate": f'{{"a":{entry()},"\\u0061":{entry()}}}',
        "surrogate": f'{{"\\ud800":{entry()}}}', "newline-in-name": f'{{"a\nb":{entry()}}}',
        "long-name": f'{{"{"n" * 5000}":{entry()}}}',
        "missing-dtype": '{"a":{"shape":[6],"data_offsets":[0,24]}}',
        "nested-extra-key": f'{{"a":{entry()[:-1]},"x":{{}}}}}}',
        "many-extra-keys": f'{{"a":{entry()[:-1]},{",".join(f""" "{k}":1""" for k in range(9))}}}}}',
        "duplicate-extra-key": f'{{"a":{entry()[:-1]},"x":1,"x":1}}}}',
        "duplicate-dtype": f'{{"a":{entry()[:-1]},"dtype":"F32"}}}}',
        "dtype-list": '{"a":{"dtype":[6],"shape":[6],"data_offsets":[0,24]}}',
        "metadata-word": f'{{"__metadata__":nil,"a":{entry()}}}',
        "twice-dtype": '{"a":{"dtype":"F32","dtype":"F32","shape":[6]}}',
        "three-offsets": f'{{"a":{entry(offsets="[0,1,24]")}}}',
        "metadata-number": f'{{"__metadata__":{{"a":1}},"a":{entry()}}}',
        "metadata-list": f'{{"__metadata__":[],"a":{entry()}}}',
        "metadata-nested": f'{{"__metadata__":{{"a":{{}}}},"a":{entry()}}}',
        "metadata-twice": f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{entry()}}}',
        "deep": '{"a":' + "[" * 100_000, "deep-objects": '{"a":' * 100_000,
        "nan": f'{{"a":{entry(offsets="[NaN,24]")}}}', "single-quotes": "{'a':1}",
        "terminal-codes": f'{{"\\u001b[2Jx":{entry("F33")}}}',
    }.items():  # fmt: skip
        yield f"header-{name}", safetensors_file(header)
    yield "header-not-utf8", safetensors_file(b'{"\xff\xfe":' + entry().encode() + b"}")
    empty = ",".join(f'"{i}":{entry("U8", "[0]", "[0,0]")}' for i in range(MAX_TENSORS + 1))
    yield "too-many-names", safetensors_file(f"{{{empty}}}", b"")
    yield "dense-lists", safetensors_file('{"a":[' + "[]," * 5_000_000 + "[]]}")


# ------------------------------------------------------------ msgpack


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return b"\xd9" + bytes([len(raw)]) + raw


def extension(inner: bytes, code: int = 1) -> bytes:
    return b"\xc9" + struct.pack(">LB", len(inner), code) + inner


def array(
    shape: bytes = b"\x92\x02\x03", dtype: bytes = b"\xa7float32", payload: bytes = b"\xc4\x18" + PAYLOAD
) -> bytes:
    return extension(b"\x93" + shape + dtype + payload)


def chunked(shape: bytes, chunks: list[bytes], mark: bytes = b"\xc3") -> bytes:
    body = b"".join(string(str(index)) + chunk for index, chunk in enumerate(chunks))
    head = b"\x83" + string("__msgpack_chunked_array__") + mark + string("shape") + shape
    return head + string("chunks") + bytes([0x80 + len(chunks)]) + body


def tree(leaf: bytes, key: bytes = b"\xa1a") -> bytes:
    return b"\x81" + key + leaf


def msgpack() -> Files:
    good = tree(array())
    for cut in (1, 2, 4, 8, 10, 20, len(good) - 1):
        yield f"truncated-{cut}", good[:cut]
    yield "trailing", good + b"\xc0"
    for code, width in ((0xDF, 4), (0xDE, 2), (0xDD, 4), (0xDC, 2), (0xC6, 4), (0xDB, 4)):
        yield f"giant-{code:x}", tree(bytes([code]) + b"\xff" * width)
        yield f"giant-{code:x}-root", bytes([code]) + b"\xff" * width
    yield "giant-extension", tree(b"\xc9\xff\xff\xff\xff\x01" + array()[6:])
    yield "giant-key", b"\x81\xdb\xff\xff\xff\xff" + good
    yield "long-key", tree(array(), b"\xda" + struct.pack(">H", 20000) + b"k" * 20000)
    yield "long-name", b"".join(b"\x81\xda\x03\xe8" + b"k" * 1000 for _ in range(5)) + array()
    yield "deep-maps", b"\x81\xa1a" * 100_000 + b"\xc0"
    yield "deep-lists", b"\x91" * 100_000 + b"\xc0"
    yield "deep-unfinished", b"\x81\xa1a" * 65
    yield "million-scalars", b"\xdd" + struct.pack(">L", 3_000_000) + b"\x01" * 3_000_000
    yield (
        "million-keys",
        b"\xdf" + struct.pack(">L", 600_000) + b"".join(b"\xa5%05x\xc0" % i for i in range(600_000)),
    )
    for name, key in {
        "boolean": b"\xc3", "nil": b"\xc0", "float": b"\xcb" + bytes(8), "bin": b"\xc4\x01a", "map": b"\x80",
        "list": b"\x90", "extension": b"\xd4\x01a", "slash": b"\xa3a/b", "not-utf8": b"\xa1\xff",
        "surrogate": b"\xa3\xed\xa0\x80", "never-used": b"\xc1",
    }.items():  # fmt: skip
        yield f"key-{name}", tree(array(), key)
    yield "duplicate-key", b"\x82" + good[1:] + good[1:]
    yield "duplicate-key-integer", b"\x82" + tree(array(), b"\x01")[1:] + tree(array(), b"\xa11")[1:]
    yield "duplicate-key-negative", b"\x82" + tree(array(), b"\xff")[1:] + tree(array(), b"\xd0\xff")[1:]
    yield (
        "million-integer-keys",
        b"\xdf"
        + struct.pack(">L", 600_000)
        + b"".join(b"\xce" + struct.pack(">L", i) + b"\xc0" for i in range(600_000)),
    )
    yield "deep-integer-keys", b"\x81\x01" * 100_000 + b"\xc0"
    yield "giant-integer-key", tree(array(), b"\xcf" + b"\xff" * 7)
    yield "duplicate-key-other-token", b"\x82" + good[1:] + string("a") + array()
    for name, leaf in {
        "never-used": b"\xc1", "unknown-extension": extension(PAYLOAD, 42), "timestamp": b"\xd6\xff\0\0\0\0",
        "empty-extension": b"\xc7\x00\x01", "not-an-array": extension(b"\xc0"),
        "two-elements": extension(b"\x92\x91\x06\xa7float32"),
        "trailing-inside": extension(array()[6:] + b"\xc0"), "short-inside": extension(array()[6:-1]),
        "bad-scalar": extension(b"\x01", 3),
    }.items():  # fmt: skip
        yield f"leaf-{name}", tree(leaf)
    for name, shape in {
        "negative": b"\x92\xfe\xfd", "negative-64": b"\x91\xd3" + b"\xff" * 8, "float": b"\x91\xca\0\0\0\0",
        "string": b"\x91\xa16", "map": b"\x81\xa10\x06", "wrong": b"\x92\x02\x04",
        "huge": b"\x92\xcf" + b"\xff" * 8 + b"\x02", "wrap": b"\x92\xcf\x80" + bytes(7) + b"\x02",
        "many": b"\xdc\x00\x80" + b"\x01" * 127 + b"\x06", "giant": b"\xdd\xff\xff\xff\xff", "nil": b"\xc0",
        "scalar": b"\x90",
    }.items():  # fmt: skip
        yield f"shape-{name}", tree(array(shape))
    for dtype in (
        "object",
        "object_",
        "str32",
        "bytes8",
        "void64",
        "float128",
        "float3",
        "O",
        "<f4",
        "",
        "datetime64[ns]",
        "[('a','f4')]",
    ):
        yield f"dtype-{dtype}", tree(array(dtype=string(dtype)))
    yield "zero-of-huge", tree(array(b"\x93\x00" + (b"\xcf\x40" + bytes(7)) * 2, payload=b"\xc4\x00"))
    yield "dtype-number", tree(array(dtype=b"\x01"))
    yield "dtype-giant", tree(array(dtype=b"\xdb\x00\xff\xff\xff"))
    for name, payload in {
        "short": b"\xc4\x17" + PAYLOAD[:23], "long": b"\xc4\x19" + PAYLOAD + b"x",
        "lies": b"\xc4\x20" + PAYLOAD, "missing": b"", "string": b"\xb8" + PAYLOAD, "nil": b"\xc0",
        "giant": b"\xc6\xff\xff\xff\xff" + PAYLOAD,
    }.items():  # fmt: skip
        yield f"payload-{name}", tree(array(payload=payload))
    yield "root-array", array()
    yield "root-complex", extension(b"\x01", 99)
    two, flat = b"\x81\xa10\x0c", array(b"\x91\x06")
    good_chunks = chunked(two, [flat, flat])
    yield "chunked-root", good_chunks
    for name, leaf in {
        "count": chunked(b"\x81\xa10\x0d", [flat, flat]), "two-dimensional": chunked(two, [flat, array()]),
        "none": chunked(two, []), "dtypes": chunked(two, [flat, array(b"\x91\x06", b"\xa5int32")]),
        "mark-false": chunked(two, [flat, flat], b"\xc2"), "mark-nil": chunked(two, [flat, flat], b"\xc0"),
        "shape-list": chunked(b"\x91\x0c", [flat, flat]),
        "shape-negative": chunked(b"\x81\xa10\xf4", [flat, flat]),
        "shape-unnumbered": chunked(b"\x81\xa11\x0c", [flat, flat]),
        "shape-giant": chunked(b"\xdf\xff\xff\xff\xff", [flat, flat]),
        "scalar-chunk": chunked(two, [flat, extension(flat[6:], 3)]),
        "number-chunk": chunked(two, [flat, b"\x01"]),
        "duplicate-chunk": good_chunks[: -len(flat) - 1] + b"0" + flat,
        "mark-late": b"\x82\xa1b\x01" + string("__msgpack_chunked_array__") + b"\xc3",
        "mark-alone": b"\x81" + good_chunks[1:29], "swapped": good_chunks.replace(b"\x05shape", b"\x05shapf"),
    }.items():  # fmt: skip
        yield f"chunked-{name}", tree(leaf)


# ------------------------------------------------------------ npz


def npy(
    descr: str = "'<f4'", order: str = "False", shape: str = "(2, 3)", data: bytes = PAYLOAD, version: int = 1
) -> bytes:
    return npy_raw(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode(), data, version)


def npy_raw(header: bytes, data: bytes = PAYLOAD, version: int = 1, length: int | None = None) -> bytes:
    size = struct.pack("<H" if version == 1 else "<L", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def patched(data: bytes, at: int, value: bytes) -> bytes:
    at %= len(data)
    return data[:at] + value + data[at + len(value) :]


def npz() -> Files:
    good, deflated = zipped(("a.npy", npy())), zipped(("a.npy", npy()), method=zipfile.ZIP_DEFLATED)
    for cut in (4, 30, 60, len(good) - 30, len(good) - 1):
        yield f"truncated-{cut}", good[:cut]
    yield "trailing", good + b"x"
    yield "prefix", b"PK\3\4" + good
    for descr in (
        "'|O'",
        "'O'",
        "'<U8'",
        "'|S8'",
        "'>f4'",
        "'<f16'",
        "'<M8[ns]'",
        "'|V8'",
        "'<V1'",
        "'<f1'",
        "''",
        "'f4'",
        "'|f4'",
    ):
        yield f"dtype-{descr[1:-1]}", zipped(("a.npy", npy(descr)))
    yield "dtype-record", zipped(("a.npy", npy("[('a', '<f4'), ('b', '<i4')]")))
    yield "dtype-code", zipped(("a.npy", npy("__import__('os').system('touch canary')")))
    for shape in (
        "(2, 4)", "(-2, -3)", "6", "(6)", "[2, 3]", "(2.0, 3)", "(None,)", "(99999999999999999999, 1)",
        f"({2**62}, {2**62}, 2)", "(,)", "((2,), 3)", "(" + "1, " * 70 + "6)", "(2 3)", "(2, 3", "(True, 6)",
        "('2', 3)",
    ):  # fmt: skip
        yield f"shape-{shape[:20]}", zipped(("a.npy", npy(shape=shape)))
    yield "zero-of-huge", zipped(("a.npy", npy(shape=f"(0, {2**40}, {2**40})", data=b"")))
    for order in ("0", "'False'", "None", "[]"):
        yield f"order-{order}", zipped(("a.npy", npy(order=order)))
    for name, content in {
        "empty": b"", "short": b"\x93NUM", "magic": b"\x93NUMPX" + npy()[6:],
        "version-4": patched(npy(), 6, b"\4"), "version-1.1": patched(npy(), 7, b"\1"),
        "huge-header": npy_raw(b"{}", b"", 2, 2**32 - 1), "long-header": npy_raw(b" " * 20000),
        "header-past-end": npy_raw(b"{}", b"", 1, 5000), "empty-header": npy_raw(b""),
        "no-dict": npy_raw(b"[]"), "missing-shape": npy_raw(b"{'descr': '<f4', 'fortran_order': False}"),
        "extra-key": npy_raw(b"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}"),
        "deep": npy_raw(b"(" * 9000), "twice": npy_raw(b"{'descr': '<f4', 'descr': '<f4', 'shape': (6,)}"),
        "expression": npy_raw(b"{'descr': '<f4', 'fortran_order': 1 < 2, 'shape': (6,)}"),
        "payload-short": npy()[:-1], "payload-long": npy() + b"x", "pickle": b"\x80\x04\x95",
        "text": b"hello",
    }.items():  # fmt: skip
        yield f"member-{name}", zipped(("a.npy", content))
        if len(content) > 20:
            yield f"deflated-{name}", zipped(("a.npy", content), method=zipfile.ZIP_DEFLATED)
    yield "not-npy", zipped(("a.npy", npy()), ("notes.txt", b"hello"))
    yield "bzip2", zipped(("a.npy", npy()), method=zipfile.ZIP_BZIP2)
    yield "lzma", zipped(("a.npy", npy()), method=zipfile.ZIP_LZMA)
    yield "nothing", zipped()
    yield "long-name", zipped(("n" * 5000 + ".npy", npy()))
    yield "duplicate", zipped(("a.npy", npy()), ("b.npy", npy())).replace(b"b.npy", b"a.npy")
    directory, end = good.index(b"PK\1\2"), good.index(b"PK\5\6")
    for name, (at, value) in {
        "encrypted": (directory + 8, b"\1\0"), "method": (directory + 10, b"\x63\0"),
        "crc": (directory + 16, b"\0\0\0\0"), "size": (directory + 24, b"\1\0\0\0"),
        "compressed-size": (directory + 20, b"\1\0\0\0"),
        "both-sizes-huge": (directory + 20, b"\xfe\xff\xff\xff" * 2),
        "zip64-missing": (directory + 20, b"\xff" * 8), "name-length": (directory + 28, b"\xff\xff"),
        "extra-length": (directory + 30, b"\xff\xff"), "disk": (directory + 34, b"\1\0"),
        "offset": (directory + 42, b"\1\0\0\0"), "offset-far": (directory + 42, b"\xf0\xff\xff\xff"),
        "signature": (directory, b"PKxx"), "name": (directory + 46, b"b"), "local-signature": (0, b"PK\3\5"),
        "local-name": (30, b"b"), "local-extra": (28, b"\xff\xff"), "local-name-length": (26, b"\1\0"),
        "end-size": (end + 12, b"\xff\xff\xff\x00"), "end-offset": (end + 16, b"\xff\xff\xff\x00"),
        "end-zip64": (end + 16, b"\xff" * 4), "end-comment": (end + 20, b"\1\0"),
        "end-disk": (end + 4, b"\1\0"), "end-signature": (end, b"PKxx"), "end-small": (end + 12, b"\5\0\0\0"),
        "payload-flip": (directory - 1, b"\xff"),
    }.items():  # fmt: skip
        yield f"zip-{name}", patched(good, at, value)
    body, directory = deflated.index(b"a.npy") + 5, deflated.index(b"PK\1\2")
    yield "deflate-garbage", patched(deflated, body, b"\xff" * 8)
    yield "deflate-cut", patched(deflated, directory + 20, b"\x10\0\0\0")
    yield (
        "deflate-more",
        patched(deflated, directory + 24, struct.pack("<L", len(npy()) - 4)).replace(b"(2, 3)", b"(5, 1)"),
    )
    yield "deflate-less", patched(deflated, directory + 24, struct.pack("<L", len(npy()) + 4))
    yield "deflate-bit-flip", patched(deflated, directory - 12, bytes([deflated[directory - 12] ^ 0x10]))
    bomb = npy(shape=f"({50 << 20},)", data=bytes(200 << 20))
    yield "bomb", zipped(("a.npy", bomb), method=zipfile.ZIP_DEFLATED)
    lies = zipped(("a.npy", npy() + bytes(1 << 20)), method=zipfile.ZIP_DEFLATED)
    yield "bomb-lying-size", patched(lies, lies.index(b"PK\1\2") + 24, struct.pack("<L", len(npy())))
    overlapping = zipped(("a.npy", npy()), ("b.npy", npy()))
    second = overlapping.index(b"PK\1\2", overlapping.index(b"PK\1\2") + 4)
    yield "overlapping", patched(overlapping, second + 42, bytes(4))
    records = b"".join(
        CENTRAL.pack(b"PK\1\2", *[0] * 9, 5, *[0] * 6) + b"%05d" % index for index in range(MAX_MEMBERS + 1)
    )
    yield "too-many-members", good[:directory] + records + END.pack(b"PK\5\6", 0, 0, 1, 1, len(records), directory, 0)
    many = (npy(shape="(0,)", data=b"") for _ in range(MAX_TENSORS + 1))
    yield "too-many-arrays", zipped(*((f"{index}.npy", content) for index, content in enumerate(many)))
    long = npy_raw(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0,), {' ' * 9000}}}".encode(), b"")
    headers = ((f"{index}.npy", long) for index in range(2000))
    yield "long-headers", zipped(*headers, method=zipfile.ZIP_DEFLATED)
    yield (
        "directory-too-long",
        zipped(("a.npy", npy()), ("b.npy", npy()))[:-22]
        + bytes(9 << 20)
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 9 << 20, 0, 0),
    )


# ------------------------------------------------------------ foreign


def foreign() -> Files:
    """Files that are no checkpoint of any kind; the name ends in the suffix they wear."""
    noise = random.Random(0).randbytes(4096)
    page, json_text = b"\n<!DOCTYPE html><html><body>Sign in", json.dumps({"data": {"x": 1}}).encode()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    for suffix in ("safetensors", "msgpack", "npz", "pt", "unknown"):
        yield f"empty.{suffix}", b""
        yield f"html.{suffix}", page
        yield f"lfs.{suffix}", pointer
        yield f"noise.{suffix}", b"\x00" + noise
        yield f"json.{suffix}", json_text
        yield f"zeros.{suffix}", bytes(4096)
    for name, head in {
        "gzip": b"\x1f\x8b\x08\0", "bzip2": b"BZh91AY", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd",
        "hdf5": b"\x89HDF\r\n\x1a\n", "npy": npy(), "png": b"\x89PNG\r\n\x1a\n", "gguf": b"GGUF\3\0\0\0",
        "tar": bytes(257) + b"ustar\x0000", "text": "weights: näh\n".encode() * 99,
        "index-json": b'{"weight_map": {}}', "xml": b"<?xml version='1.0'?>", "one-byte": b"\x01",
        "zip-text": zipped(("a.txt", b"hi")), "zip-cut": zipped(("a.txt", b"hi"))[:40],
    }.items():  # fmt: skip
        yield f"{name}.ckpt", head
