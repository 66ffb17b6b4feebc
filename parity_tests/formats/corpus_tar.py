"""Tar files as torch 0.1 wrote them, put together byte by byte; and bad ones: (name, content, what the message matches).

Source: torch/serialization.py, `legacy_load`, which reads them.
"""

from __future__ import annotations

import struct

from convert.formats.base import MAX_TENSORS
from parity_tests.formats.corpus_pickles import attacks, damage
from parity_tests.formats.pickle_parts import (
    COMMAND,
    PAYLOAD,
    SYSTEM,
    Files,
    call,
    dictionary,
    one,
    signed,
    symbol,
    text,
)

ROOT, VIEW, WEIGHT = 94_000_000_000_016, 94_000_000_000_032, 94_000_000_000_048  # addresses, which serve as keys
FLOAT = ("torch", "FloatStorage")

# ------------------------------------------------------------------------------------------------------------ the tar


def header(name: str, size: int, kind: bytes = b"0", magic: bytes = b"ustar\x0000", prefix: bytes = b"") -> bytes:
    """A header of 512 bytes; its checksum counts itself as blanks."""
    fields = struct.pack("100s8s8s8s", name.encode(), b"0000600\0", b"0001750\0", b"0001750\0")
    fields += b"%011o\0%011o\0" % (size, 0) + b" " * 8 + kind + bytes(100) + magic
    return summed((fields.ljust(345, b"\0") + prefix).ljust(512, b"\0"))


def summed(block: bytes) -> bytes:
    blanked = block[:148] + b" " * 8 + block[156:]
    return blanked[:148] + b"%06o\0 " % sum(blanked) + blanked[156:]


def member(name: str, data: bytes, kind: bytes = b"0", size: int = -1) -> bytes:
    return header(name, len(data) if size < 0 else size, kind) + data + bytes(-len(data) % 512)


def extended(key: str = "mtime", value: str = "1484000000.25") -> bytes:
    """The header that Python writes before a member whose time is a fraction of a second, as most times are."""
    item = f" {key}={value}\n"
    length = next(length for length in range(99) if len(f"{length}{item}") == length)
    return member("././@PaxHeader", f"{length}{item}".encode(), b"x")


def tar(*members: bytes, end: bool = True) -> bytes:
    data = b"".join(members)
    return data + (bytes(1024) + bytes(-(len(data) + 1024) % 10240) if end else b"")


# --------------------------------------------------------------------------------------------------- torch's members


def dump(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def row(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def storage(
    payload: bytes = PAYLOAD,
    key: bytes = signed(ROOT),
    kind: tuple[str, str] = FLOAT,
    size: int | None = None,
    location: bytes = text("cpu"),
) -> bytes:
    elements = len(payload) // 4 if size is None else size
    return dump(row(key, location, symbol(*kind))) + struct.pack("<q", elements) + payload


def storages(*items: bytes, parts: bytes = b"]", count: int = -1) -> bytes:
    return dump(signed(count) if count >= 0 else signed(len(items))) + b"".join(items) + dump(parts)


def tensor(
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    key: bytes = signed(WEIGHT),
    root: bytes = signed(ROOT),
    kind: tuple[str, str] = ("torch", "FloatTensor"),
    axes: int | None = None,
) -> bytes:
    numbers = (*shape, *strides, offset)
    axes = len(shape) if axes is None else axes
    junk = b"\x7f\0\0\1"  # what lay behind the number in memory
    head = dump(row(key, root, symbol(*kind))) + struct.pack("<i", axes) + junk
    return head + struct.pack(f"<{len(numbers)}q", *numbers)


def tensors(*items: bytes, count: bytes = b"") -> bytes:
    return dump(count or signed(len(items))) + b"".join(items)


def refer(key: int = WEIGHT) -> bytes:
    return text(str(key)) + b"Q"


SYSTEM_INFO = SYSTEM.replace(b"M\xe9\x03", b"M\xe8\x03")  # protocol version 1000
MEMBERS = {
    "sys_info": SYSTEM_INFO,
    "pickle": dump(one(refer())),
    "tensors": tensors(tensor()),
    "storages": storages(storage()),
}


def checkpoint(**changed: bytes) -> bytes:
    """A tar of torch 0.1, of one tensor "w", with some of its members changed."""
    return tar(*(extended() + member(name, data) for name, data in (MEMBERS | changed).items()))


# ---------------------------------------------------------------------------------------------------------- bad files


def bad_files() -> Files:
    for name, value, reason in (*attacks(), *damage()):
        yield f"pickle-{name}", checkpoint(pickle=dump(value)), f"{reason}|does not hold"
    yield from bad_tars()
    yield from bad_storages()
    yield from bad_tensors()
    yield from bad_objects()
    yield from bombs()


def bad_tars() -> Files:
    good = checkpoint()
    first, pax = member("sys_info", SYSTEM_INFO), extended()
    for cut in (513, 1000, 1536, 2100, good.index(b"storages") + 520, len(good.rstrip(b"\0"))):
        yield f"tar-cut-{cut}", good[:cut], "truncated"
    end = len(tar(*(extended() + member(*item) for item in MEMBERS.items()), end=False))
    yield "tar-no-end", good[:end], "truncated"
    yield "tar-half-an-end", good[: end + 512], "without the mark of its end"
    yield "tar-trailing", good[:-1] + b"x", "not just zeros"
    yield "tar-trailing-megabyte", good + bytes(1 << 20), "not just zeros"
    yield "tar-behind-its-end", good + good, "not just zeros"
    at = good.index(b"sys_info")
    yield "tar-checksum", good[: at + 120] + b"1" + good[at + 121 :], "fails its check"
    yield "tar-checksum-no-number", good[: at + 148] + b"garbage!" + good[at + 156 :], "fails its check"
    yield "tar-name-flipped", good[:at] + b"Sys_info" + good[at + 8 :], "fails its check"
    for name, size in {
        "letters": b"size of file", "negative": b"-0000000777\0", "base-256": b"\x80" + bytes(11), "none": bytes(12),
    }.items():  # fmt: skip
        yield f"tar-size-{name}", _sized(good, at, size), "no octal number"
    yield "tar-size-huge", _sized(good, at, b"777777777777"), "in the middle of its member 'sys_info'"
    rest = [member(name, data) for name, data in MEMBERS.items() if name != "sys_info"]
    for name, kind in {
        "hard-link": b"1", "symbolic-link": b"2", "device": b"3", "folder": b"5", "pipe": b"6", "contiguous": b"7",
        "sparse": b"S", "long-name": b"L", "global": b"g",
    }.items():  # fmt: skip
        yield f"tar-{name}", tar(header("sys_info", 0, kind), *rest), "no plain file"
    link = header("storages", 0, b"2")[:157] + b"/etc/passwd"
    yield "tar-link-outside", tar(first, *rest[:2], summed(link.ljust(257, b"\0") + first[257:512])), "no plain file"
    for name in MEMBERS:
        others = [member(*item) for item in MEMBERS.items() if item[0] != name]
        yield f"tar-without-{name}", tar(*others), f"lacks its member '{name}'"
        yield f"tar-two-{name}", tar(first, *rest, member(name, MEMBERS[name])), f"two members '{name}'"
    yield "tar-more", tar(first, *rest, member("extra", b"")), "'extra', which torch 0.1 does not write"
    yield "tar-outside", tar(first, *rest, member("../../evil", b"")), r"'\.\./\.\./evil'"
    yield "tar-terminal-codes", tar(first, *rest, member("\x1b[2J", b"")), r"'\\x1b\[2J'"
    yield "tar-prefix", tar(header("sys_info", 0, prefix=b"a"), *rest), "'a/sys_info'"
    for name, body in {
        "path": b"11 path=a\n\n", "sparse": b"22 GNU.sparse.major=1\n", "length": b"99 size=3\n", "zero": b"0 size=3\n",
        "no-number": b"size=3\n", "size": b"11 size=-3\n", "size-text": b"13 size=0x10\n", "size-empty": b"8 size=\n",
        "cut": b"10 size=34", "digits": b"9" * 5000,
    }.items():  # fmt: skip
        yield f"tar-extended-{name}", tar(member("x", body, b"x"), first, *rest), "extended tar header"
    yield "tar-extended-size-huge", tar(extended("size", "9" * 18), first, *rest), "in the middle of its member"
    yield "tar-extended-twice", tar(pax, pax, first, *rest), "bad extended"
    yield "tar-extended-long", tar(member("x", bytes(70_000), b"x"), first, *rest), "bad extended"
    yield "tar-extended-last", tar(first, *rest, pax), "belongs to nothing"


def _sized(good: bytes, at: int, size: bytes) -> bytes:
    """With other bytes for a size in the header at `at`, and the checksum of that."""
    return good[:at] + summed(good[at : at + 124] + size + good[at + 136 : at + 512]) + good[at + 512 :]


def bad_storages() -> Files:
    part = row(signed(VIEW), signed(ROOT), b"K\2", b"K\4")
    for name, data, reason in (
        ("payload-short", storages(storage(PAYLOAD[:20], size=6)), "truncated"),
        ("payload-long", storages(storage(PAYLOAD + b"1234", size=6)), "no pickle opcode|malformed"),
        ("size-2^40", storages(storage(size=2**40)), "truncated"),
        ("size-2^62", storages(storage(size=2**62)), "truncated"),
        ("size-negative", storages(storage(size=-1)), "storage of -1 elements"),
        ("count-2^40", storages(storage(), count=2**40), "no number of storages"),
        ("count-more", storages(storage(), count=2), "storage in an unknown way"),
        ("count-many", storages(storage(), count=MAX_TENSORS), "storage in an unknown way"),
        ("count-less", storages(storage(), count=0), "after the last value in its member 'storages'"),
        ("count-text", dump(text("1")) + storages(storage())[6:], "no number of storages"),
        ("count-bool", dump(b"\x88") + storages(storage())[6:], "no number of storages"),
        ("trailing", storages(storage()) + b"x", "1 bytes after the last value in its member 'storages'"),
        ("empty", b"", "truncated"),
        ("twice", storages(storage(), storage()), "twice"),
        ("key-text", storages(storage(key=text("1"))), "unknown way"),
        ("kind", storages(storage(kind=("torch", "Size"))), "unknown way"),
        ("kind-unknown", storages(storage(kind=("torch", "StringStorage"))), "nothing was run"),
        ("kind-dtype", storages(storage(kind=("torch", "DoubleStorage"), size=3)), "without a storage of its type"),
        ("kind-quantized", storages(storage(kind=("torch", "QInt8Storage"))), "quantized"),
        ("two-values", storages(dump(row(signed(ROOT), symbol(*FLOAT))) + bytes(8)), "unknown way"),
        ("attack", storages(storage(location=call("os", "system", text(COMMAND)))), "refers to os.system"),
        ("attack-as-count", dump(call("os", "system", text(COMMAND))), "refers to os.system"),
        ("attack-in-parts", storages(storage(), parts=call("os", "system", text(COMMAND))), "refers to os.system"),
        ("parts-number", storages(storage(), parts=b"K\0"), "part of a storage in an unknown way"),
        ("parts-none", storages(storage())[:-4], "truncated"),
        ("parts-short", storages(storage(), parts=b"](" + part[:-5] + b"te"), "part of a storage in an unknown way"),
        ("parts-twice", storages(storage(), parts=b"](" + part * 2 + b"e"), "twice"),
    ):
        yield f"storages-{name}", checkpoint(storages=data), reason
    for name, values in {
        "offset": (ROOT, 5, 2), "offset-negative": (ROOT, -1, 2), "size": (ROOT, 0, 7), "size-negative": (ROOT, 6, -1),
        "root": (VIEW, 0, 1), "huge": (ROOT, 2**40, 2**40), "overflow": (ROOT, -(2**70), 2**70),
    }.items():  # fmt: skip
        parts = b"](" + row(signed(VIEW), *map(signed, values)) + b"e"
        yield f"storages-part-{name}", checkpoint(storages=storages(storage(), parts=parts)), "reaches outside"


def bad_tensors() -> Files:
    outside = "outside its storage"
    for name, item, reason in (
        ("offset", tensor(offset=1), outside),
        ("offset-huge", tensor(offset=2**62), outside),
        ("offset-negative", tensor(offset=-1), outside),
        ("size", tensor((3, 3)), outside),
        ("size-2^40", tensor((2**40, 3)), outside),
        ("size-negative", tensor((-2, -3)), "whole numbers"),
        ("stride", tensor(strides=(4, 1)), outside),
        ("stride-huge", tensor(strides=(2**62, 1)), outside),
        ("stride-negative", tensor(strides=(-3, 1)), "whole numbers"),
        ("stride-0", tensor((2**20, 2**20), (0, 0)), "on a storage of only 6"),
        ("expanded", tensor((4, 3), (0, 1)), "on a storage of only 6"),
        ("axes", tensor((1,) * 65, (1,) * 65), "65 dimensions"),
        ("axes-2^31", tensor(axes=2**31 - 1), "dimensions"),
        ("axes-negative", tensor(axes=-1), "-1 dimensions"),
        ("axes-more", tensor(axes=3), "truncated"),
        ("axes-less", tensor(axes=1), outside),
        ("cut", tensor()[:-1], "truncated"),
        ("trailing", tensor() + b"x", "1 bytes after the last value in its member 'tensors'"),
        ("root-unknown", tensor(root=signed(VIEW)), "without a storage"),
        ("root-text", tensor(root=text("1")), "tensor in an unknown way"),
        ("root-none", tensor(root=b"N"), outside),
        ("key-is-a-storage", tensor(key=signed(ROOT)), "twice"),
        ("key-text", tensor(key=text(str(WEIGHT))), "tensor in an unknown way"),
        ("kind", tensor(kind=("torch", "LongTensor")), "without a storage of its type"),
        ("kind-is-a-storage", tensor(kind=FLOAT), "tensor in an unknown way"),
        ("kind-sparse", tensor(kind=("torch.sparse", "FloatTensor")), "nothing was run"),
        ("attack", tensor(root=call("os", "system", text(COMMAND))), "refers to os.system"),
        ("attack-as-kind", tensor(kind=("os", "system")), "refers to os.system"),
    ):  # fmt: skip
        yield f"tensors-{name}", checkpoint(tensors=tensors(item)), reason
    yield "tensors-twice", checkpoint(tensors=tensors(tensor(), tensor())), "twice"
    yield "tensors-of-a-tensor", checkpoint(tensors=tensors(tensor(), tensor(key=signed(1), root=signed(WEIGHT)))), "without a storage"  # fmt: skip
    for count in (0, 2, 2**40):
        reason = {0: "after the last value", 2: "truncated", 2**40: "no number of tensors"}[count]
        yield f"tensors-count-{count}", checkpoint(tensors=tensors(tensor(), count=signed(count))), reason
    yield "tensors-empty", checkpoint(tensors=b""), "truncated"


def variable(state: bytes, data: bytes = b"") -> bytes:
    return call("torch.nn.parameter", "Parameter", data or refer()) + state + b"b"


def bad_objects() -> Files:
    hooks = call("collections", "OrderedDict")
    for name, value, reason in (
        ("key-unknown", refer(VIEW), "refers to a tensor that it does not hold"),
        ("key-negative", text(f"-{WEIGHT}") + b"Q", "does not hold"),
        ("key-expression", text("0x10") + b"Q", "does not hold"),
        ("key-blanks", text(f" {WEIGHT}") + b"Q", "does not hold"),
        ("key-digits", text("9" * 4000) + b"Q", "does not hold"),
        ("key-number", signed(WEIGHT) + b"Q", "does not hold"),
        ("key-tuple", row(text("storage"), symbol(*FLOAT), text("0"), text("cpu"), b"K\6") + b"Q", "does not hold"),
        ("container", row(symbol("torch.nn.modules.container", "Sequential"), b"N", b"N") + b"Q", "not a checkpoint"),
        ("container-attack", row(call("os", "system", text(COMMAND)), b"N", b"N") + b"Q", "refers to os.system"),
        ("variable-empty", call("torch.nn.parameter", "Parameter"), "variable without data"),
        ("variable-number", call("torch.nn.parameter", "Parameter", b"K\1"), "nothing was run"),
        ("variable-state", variable(row(b"K\1")), "nothing was run"),
        ("variable-set", variable(row(refer(), b"K\0", row(), row())), "nothing was run"),
        ("variable-attack", variable(row(b"\x88\x89", call("os", "system", text(COMMAND)))), "refers to os.system"),
        ("variable-old-number", variable(row(b"K\1", b"N", hooks, b"\x88\x89")), "nothing was run"),
        ("rebuilt", call("torch._utils", "_rebuild_tensor", refer(ROOT), b"K\x07", row(b"K\1"), row(b"K\1")), "outside"),
    ):  # fmt: skip
        yield f"object-{name}", checkpoint(pickle=dump(one(value))), reason
    yield "object-trailing", checkpoint(pickle=dump(one(refer())) + b"x"), "after the last value in its member 'pickle'"
    yield "object-storage-alone", checkpoint(pickle=dump(one(refer(ROOT)))), "no tensors"
    yield "object-names-twice", checkpoint(pickle=dump(dictionary([(text("w"), refer())] * 2))), "two tensors"
    yield "system-empty", checkpoint(sys_info=b""), "truncated"
    yield "system-list", checkpoint(sys_info=dump(b"]")), "unknown version"
    yield "system-version", checkpoint(sys_info=SYSTEM), "unknown version"
    yield "system-big-endian", checkpoint(sys_info=SYSTEM_INFO.replace(b"\x88", b"\x89")), "big-endian"
    yield "system-trailing", checkpoint(sys_info=SYSTEM_INFO + b"x"), "in its member 'sys_info'"
    yield "system-attack", checkpoint(sys_info=dump(call("os", "system", text(COMMAND)))), "refers to os.system"
    yield "system-refers", checkpoint(sys_info=dump(refer())), "data outside itself"


def bombs() -> Files:
    """Each pickle is small enough for itself."""
    slow = (storage(b"", signed(index), location=b"(" + b"N" * 40_000 + b"t") for index in range(80))
    yield "bomb-opcodes", checkpoint(storages=storages(*slow)), "too many values"
    empty = (storage(b"", signed(index)) for index in range(MAX_TENSORS))
    yield "bomb-storages", checkpoint(storages=storages(*empty)), "too many values"
    same = (tensor(key=signed(index)) for index in range(MAX_TENSORS))
    yield "bomb-tensors", checkpoint(tensors=tensors(*same)), "too many values"
    long, often = tensor((1 << 14,), (1,)), dictionary((text(str(index)), refer()) for index in range(4000))
    sharing = {"storages": storages(storage(bytes(1 << 16))), "tensors": tensors(long), "pickle": dump(often)}
    yield "bomb-sharing", checkpoint(**sharing), "64 times its size"
