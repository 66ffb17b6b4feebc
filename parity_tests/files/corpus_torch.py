"""Bad torch files, made on the fly: (name, content, what the message must match)."""

from __future__ import annotations

import struct

from parity_tests.files.pickle_parts import (
    COMMAND,
    PAYLOAD,
    SYSTEM,
    Files,
    call,
    integer,
    integers,
    legacy,
    one,
    storage,
    symbol,
    tensor,
    text,
    torch_members,
    torch_zip,
    zipped,
)


def torch_values() -> Files:
    """Tensors outside their storages, and kinds of tensors that no other format holds."""
    outside = "outside its storage"
    for name, value, reason in (
        ("stride-0", tensor((10**6, 10**6), (0, 0)), "on a storage of only 6"),
        ("stride-0-four-terabytes", tensor((2**40,), (0,), source=storage(1)), "on a storage of only 1"),
        ("expanded", tensor((4, 3), (0, 1)), "on a storage of only 6"),
        ("size", tensor((3, 3)), outside),
        ("stride", tensor((2, 3), (4, 1)), outside),
        ("stride-huge", tensor((2, 3), (2**62, 1)), outside),
        ("offset", tensor(offset=1), outside),
        ("offset-huge", tensor(offset=2**62), outside),
        ("offset-negative", tensor(offset=-1), outside),
        ("stride-negative", tensor((2, 3), (-3, 1)), "whole numbers"),
        ("size-negative", tensor((-2, -3)), "whole numbers"),
        ("size-2^64", tensor((2**64, 3)), "whole numbers"),
        ("strides-missing", tensor((2, 3), (1,)), "outside|argument"),
        ("dimensions", tensor((1,) * 65, (1,) * 65), "whole numbers"),
        ("numel", tensor(source=storage(7)), "that should have 28"),
        ("numel-huge", tensor(source=storage(2**60)), "that should have"),
        ("numel-negative", tensor(source=storage(-1)), "unknown way"),
        ("dtype", tensor(source=storage(kind=("torch", "DoubleStorage"))), "that should have 48"),
        ("key-missing", tensor(source=storage(key="1")), "lacks|list of storages"),
        ("key-elsewhere", tensor(source=storage(key="../data.pkl")), "lacks"),
        ("untyped-outside", untyped(13), outside),
        ("view-outside", tensor(source=storage(more=b"(" + text("v") + b"K\1K\6t")), "reaches outside"),
        ("no-storage", tensor(source=text("storage")), "nothing was run"),
        ("persistent-module", tensor(source=b"(" + text("module") + b"NNNtQ"), "no storage"),
        ("persistent-number", tensor(source=b"K\1Q"), "no storage"),
        ("persistent-class", tensor(source=storage(kind=("torch", "Size"))), "no storage"),
        ("conjugate", tensor(more=one(b"\x88", "conj")), "conjugated"),
        ("quantized", call("torch._utils", "_rebuild_qtensor", storage()), "quantized"),
        ("quantized-storage", tensor(source=storage(kind=("torch", "QInt8Storage"))), "quantized"),
        ("sparse", call("torch._utils", "_rebuild_sparse_tensor"), "sparse"),
        ("nested", call("torch._utils", "_rebuild_nested_tensor"), "nested"),
        ("meta", call("torch._utils", "_rebuild_meta_tensor_no_storage"), "without data"),
        ("dtensor", call("torch.distributed.tensor", "DTensor"), "spread over devices"),
        ("dtype-unknown", call("torch._utils", "_rebuild_tensor_v3", storage(), b"K\0", integers([6]), integers([1]), b"\x89N", symbol("torch", "float8_e8m0fnu")), "float8_e8m0fnu"),
        ("subclass", call("torch._tensor", "_rebuild_from_type_v2", symbol("torch._utils", "_rebuild_tensor"), symbol("torch", "Size"), b"(" + storage() + integer(0) + integers((2, 3)) + integers((3, 1)) + b"t", b"}"), "nothing was run"),
        ("subclass-call", call("torch._tensor", "_rebuild_from_type_v2", symbol("collections", "OrderedDict"), symbol("torch", "Tensor"), b")", b"}"), "nothing was run"),
        ("parameter", call("torch._utils", "_rebuild_parameter", text("w"), b"\x88", b"N"), "nothing was run"),
    ):  # fmt: skip
        yield f"torch-{name}", torch_zip(one(value)), reason
        if name not in ("key-elsewhere", "dtype", "numel", "numel-huge"):
            yield f"torch-legacy-{name}", legacy(one(value)), reason


def untyped(count: int) -> bytes:
    """`count` numbers of 2 bytes on a storage of 24."""
    source = storage(24, kind=("torch.storage", "UntypedStorage"))
    layout = (integer(0), integers((count,)), integers((1,)), b"\x89N", symbol("torch", "uint16"))
    return call("torch._utils", "_rebuild_tensor_v3", source, *layout)


def zips() -> Files:
    """Damaged or deceiving zips."""
    good = torch_zip(one(tensor()))
    members = torch_members(one(tensor()))
    for cut in (5, 40, 200, len(good) // 2, len(good) - 40, len(good) - 1):
        yield f"zip-cut-{cut}", good[:cut], "zip|truncated|ends"
    yield "zip-trailing", good + b"x", "after its zip directory"
    yield "zip-deflated-pickle", zipped(members, "data.pkl"), "compressed member"
    yield "zip-deflated-payload", zipped({**members, "a/data/0": bytes(24)}, "data/0"), "compressed member"
    bomb = {**torch_members(one(tensor((10**6,), (1,), source=storage(10**6)))), "a/data/0": bytes(4 * 10**6)}
    yield "zip-deflated-bomb", zipped(bomb, "data/0"), "compressed member"
    yield "zip-payload-short", zipped({**members, "a/data/0": PAYLOAD[:20]}), "20 bytes that should have 24"
    yield (
        "zip-payload-long",
        zipped({**members, "a/data/0": PAYLOAD + b"1234"}),
        "28 bytes that should have 24",
    )
    yield (
        "zip-payload-missing",
        zipped({k: v for k, v in members.items() if k != "a/data/0"}),
        "lacks its member",
    )
    yield "zip-big-endian", zipped({**members, "a/byteorder": b"big"}), "big-endian"
    yield "zip-byteorder-long", zipped({**members, "a/byteorder": b"little" * 100}), "big-endian"
    yield "zip-no-pickle", zipped({"a/data/0": PAYLOAD}), "without exactly one"
    yield "zip-two-pickles", zipped({**members, "b/data.pkl": members["a/data.pkl"]}), "without exactly one"
    yield "zip-npz", zipped({"w.npy": PAYLOAD}), "without exactly one"
    yield "zip-torchscript", zipped({**members, "a/constants.pkl": b"\x80\x02)."}), "TorchScript"
    yield (
        "zip-pickle-trailing",
        zipped({**members, "a/data.pkl": members["a/data.pkl"] + b"x"}),
        "bytes after",
    )
    yield "zip-pickle-empty", zipped({**members, "a/data.pkl": b""}), "truncated"
    yield "zip-empty", zipped({}), "without exactly one"
    at = good.index(PAYLOAD)
    yield "zip-payload-flipped", good[:at] + b"\x80" + good[at + 1 :], "CRC32"
    at = good.index(b"_rebuild_tensor_v2")
    yield "zip-pickle-flipped", good[: at + 17] + b"3" + good[at + 18 :], "CRC32"
    yield "zip-method", _patched(good, b"PK\1\2", 10, b"\x0c"), "compressed member"
    yield "zip-encrypted", _patched(good, b"PK\1\2", 8, b"\1"), "encrypted"
    yield "zip-local-name", _patched(good, b"PK\3\4", 30, b"b"), "does not belong"
    yield "zip-local-signature", _patched(good, b"PK\3\4a/data/0"[:4], 0, b"XX"), "is neither|does not belong"
    yield "zip-directory-size", _patched(good, b"PK\5\6", 12, b"\xff\xff\xff\x7f"), "zip directory"
    yield "zip-directory-offset", _patched(good, b"PK\5\6", 16, b"\xff\xff\xff\x7f"), "zip directory"
    yield (
        "zip-member-size",
        _patched(good, b"PK\1\2", 20, b"\xff\xff\xff\x7f\xff\xff\xff\x7f"),
        "reach|overlap",
    )
    directory = good.index(b"PK\1\2")
    yield "zip-overlap", _patched(good[:directory], b"", 0, b"") + good[directory:].replace(
        struct.pack("<I", good.index(b"PK\3\4", 1)), bytes(4)
    ), "overlaps|does not belong"  # fmt: skip


def _patched(data: bytes, signature: bytes, offset: int, new: bytes) -> bytes:
    at = data.index(signature) + offset
    return data[:at] + new + data[at + len(new) :]


def legacies() -> Files:
    """Damaged legacy files."""
    value = one(tensor())
    good = legacy(value)
    for cut in (16, 20, 60, 150, len(good) - 30, len(good) - 10, len(good) - 1):
        yield f"legacy-cut-{cut}", good[:cut], "truncated"
    yield "legacy-trailing", good + b"x", "bytes after"
    yield "legacy-version", legacy(value, version=1000), "unknown version"
    yield "legacy-big-endian", legacy(value, system=SYSTEM.replace(b"\x88", b"\x89")), "big-endian"
    yield "legacy-system", legacy(value, system=b"\x80\x02N."), "unknown version"
    yield "legacy-keys", legacy(value, keys=b"\x80\x02](" + text("9") + b"e."), "list of storages"
    yield "legacy-keys-number", legacy(value, keys=b"\x80\x02K\1."), "list of storages"
    yield "legacy-keys-list", legacy(value, keys=b"\x80\x02](]e."), "list of storages"
    yield "legacy-no-keys", legacy(value, keys=b"\x80\x02]."), "bytes after"
    yield "legacy-payload-short", legacy(value, payload=PAYLOAD[:20]), "20 bytes that should have 24"
    huge = legacy(value)[: -len(PAYLOAD) - 8] + b"\xff" * 7 + b"\x7f"
    yield "legacy-payload-huge", huge, "truncated"
    yield (
        "legacy-attack-in-keys",
        legacy(value, keys=b"\x80\x02" + call("os", "system", text(COMMAND)) + b"."),
        "nothing was run",
    )
    yield (
        "legacy-attack-in-system",
        legacy(value, system=b"\x80\x02" + call("os", "system", text(COMMAND)) + b"."),
        "nothing was run",
    )
