"""Bad pickles, .pt and .pdparams files, made on the fly: each must give one FormatError, for the reason beside it.

Torch's own dangers are in corpus_torch.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from convert.files.base import MAX_TENSORS
from parity_tests.files.corpus_torch import legacies, torch_values, zips
from parity_tests.files.pickle_parts import (
    COMMAND,
    PAYLOAD,
    Files,
    array,
    call,
    dictionary,
    dtype,
    integer,
    integers,
    legacy,
    one,
    pdparams,
    signed,
    symbol,
    text,
    torch_zip,
)


class BadFile(NamedTuple):
    name: str
    suffix: str
    data: bytes
    reason: str  # a regular expression that the message matches


def bad_files() -> Iterator[BadFile]:
    for wrap, suffix in ((pdparams, ".pdparams"), (torch_zip, ".pt"), (legacy, ".pth")):
        for name, value, reason in attacks():
            yield BadFile(f"attack-{name}", suffix, wrap(value), reason)
        for name, value, reason in damage():
            yield BadFile(f"damage-{name}", suffix, wrap(value), reason)
    for suffix, files in (
        (".pdparams", [*bombs(), *arrays(), *paddle_files()]),
        (".pt", [*torch_values(), *zips(), *legacies()]),
    ):
        for name, data, reason in files:
            yield BadFile(name, suffix, data, reason)
    for name, data in FOREIGN.items():
        yield BadFile(f"foreign-{name}", ".pdparams", data, "no pickle")
        yield BadFile(f"foreign-{name}", ".pt", data, "neither a torch zip nor")


FOREIGN = {
    "empty": b"",
    "byte": b"\0",
    "html": b"<!DOCTYPE html><html>404</html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "json": b'{"a": 1}',
    "zeros": bytes(4096),
    "protocol-0": f"(S'{COMMAND}'\nios\nsystem\n.".encode(),
}

# -------------------------------------------------------------------------------------------------------- attacks


def attacks() -> Files:
    """Values whose loading would run something, or that name what no checkpoint names."""
    run = "nothing was run"
    for module, name in (
        ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("builtins", "exec"),
        ("__builtin__", "exec"), ("builtins", "getattr"), ("builtins", "__import__"), ("importlib", "import_module"),
        ("runpy", "run_path"), ("shutil", "rmtree"), ("pickle", "loads"), ("torch", "load"), ("numpy", "load"),
        ("torch.hub", "load"), ("numpy.testing._private.utils", "runstring"), ("__main__", "build"),
        ("builtins", "eval.__call__"), ("collections", "OrderedDict.__init__.__globals__"), ("operator", "attrgetter"),
    ):  # fmt: skip
        yield f"{module}.{name}", one(call(module, name, text(COMMAND))), run
    for name, value in lookalikes().items():
        yield (
            f"lookalike-{name}",
            dictionary([(text("w"), array()), (text("config"), value)]),
            f"{run}|list of storages",
        )
    stacked = text("os") + text("system") + b"\x93" + text(COMMAND) + b"\x85R"
    yield "stack-global", one(stacked), "refers to os.system"
    yield "as-key", dictionary([(call("os", "system", text(COMMAND)), b"N")]), "refers to os.system"
    yield "in-arguments", one(call("collections", "OrderedDict", call("os", "system", text(COMMAND)))), run
    yield "new-object", one(symbol("os", "system") + text(COMMAND) + b"\x85\x81"), run
    yield "terminal-codes", one(symbol("os\x1b[2J", "system")), run
    yield "eval-code", one(call("builtins", "eval", text(f"__import__('os').system('{COMMAND}')"), b"}")), run
    yield (
        "eval-other-name",
        one(call("builtins", "eval", text("open"), dictionary([(text("data"), array())]))),
        run,
    )
    more = dictionary([(text("data"), array()), (text("__builtins__"), b"}")])
    yield "eval-more-names", one(call("builtins", "eval", text("data"), more)), run
    yield "eval-no-array", one(call("builtins", "eval", text("data"), one(b"N", "data"))), run
    yield "codec", one(call("_codecs", "encode", text("cannel"), text("rot13"))), run
    yield "dtype-called", one(symbol("numpy", "ndarray") + b")R"), run
    yield (
        "other-array-class",
        one(call("numpy.core.multiarray", "_reconstruct", symbol("builtins", "int"), b")", b"C\1b")),
        run,
    )
    opcodes = {
        "inst": b"(" + text(COMMAND) + b"ios\nsystem\n", "obj": b"(" + b"No", "ext1": b"\x82\x01", "ext2": b"\x83\1\0",
        "ext4": b"\x84\1\0\0\0", "persid": b"Pos\n", "newobj-ex": b")}\x92", "buffer": b"\x97", "dup": b"N2",
    }  # fmt: skip
    for name, value in opcodes.items():
        yield f"opcode-{name}", one(value), "no pickle opcode that a checkpoint needs"


def lookalikes() -> dict[str, bytes]:
    """Values beside an array that look like inert objects and, if loaded, are calls."""
    foreign = symbol("omegaconf.dictconfig", "DictConfig")
    return {
        "call": call("omegaconf", "load", text("a")), "call-of-class": call("my.config", "Config", b"]"),
        "call-two": call("my.config", "Config", integer(1), integer(2)), "call-number": call("my.config", "run", integer(1)),
        "called-and-empty": call("my.config", "Config"), "called-in-list": b"](" + call("my.config", "Config") + b"e",
        "object-of-library": symbol("subprocess", "Popen") + b")\x81}b", "object-of-python-2": symbol("commands", "Popen") + b")\x81",
        "state-that-calls": foreign + b")\x81}" + text("a") + call("os", "system", text(COMMAND)) + b"sb",
        "state-names-library": foreign + b")\x81}" + text("a") + symbol("os", "system") + b"sb",
        "base-of-library": call("copyreg", "_reconstructor", symbol("os", "system"), symbol("builtins", "object"), b"N"),
        "base-unknown": call("copyreg", "_reconstructor", symbol("a.b", "C"), symbol("my", "base"), b"N"),
        "partial-of-library": call("functools", "partial", symbol("os", "system"), text(COMMAND)),
        "jax-of-other-call": call("jax._src.array", "_reconstruct_array", symbol("my", "run"), b")", b")", b"}"),
        "jax-of-no-array": call("jax._src.array", "_reconstruct_array", symbol("numpy.core.multiarray", "_reconstruct"), b")", b")", b"}"),
        "frozen-of-text": call("flax.core.frozen_dict", "FrozenDict", text("a")),
        "attribute-of-library": call("builtins", "getattr", symbol("builtins", "dict"), text("fromkeys")),
        "attribute-that-calls": call("builtins", "getattr", symbol("my.config", "Config"), call("os", "system", text(COMMAND))),
        "attribute-inside": call("builtins", "getattr", symbol("my.config", "Config"), text("__globals__")),
        "attribute-called": call("builtins", "getattr", symbol("my.config", "Config"), text("load")) + text(COMMAND) + b"\x85R",
        "dotted-name": symbol("my.config", "Config.__init__.__globals__"),
        "name-with-codes": symbol("my\x1b[2J", "Config") + b")\x81", "name-with-spaces": symbol("my config", "A b") + b")\x81",
        "dtype-of-class": call("numpy", "dtype", symbol("my", "bfloat16"), b"\x89", b"\x88"),
    }  # fmt: skip


def damage() -> Files:
    """Values that no pickler writes."""
    malformed = "malformed"
    yield "underflow", b"R", malformed
    yield "underflow-append", b"a", malformed
    yield "underflow-tuple", b"N\x87", malformed
    yield "no-mark", b"t", malformed
    yield "two-values", b"NN", malformed
    yield "open-mark", b"N(", malformed
    yield "tuple-over-mark", b"N(\x85", malformed
    yield "odd-items", b"}(Nu", malformed
    yield "append-to-dict", b"}Na", malformed
    yield "items-of-list", b"]NNs", malformed
    yield "build-on-text", text("a") + b"}b", malformed
    yield "call-text", text("a") + b")R", malformed
    yield "call-a-result", call("collections", "OrderedDict") + b")R", malformed
    yield "arguments-no-tuple", symbol("collections", "OrderedDict") + b"]R", malformed
    yield "names-no-text", b"K\1K\1\x93", malformed
    yield "memo-missing", b"h\x05", "never stored"
    yield "memo-far", b"Nr\xff\xff\xff\x7f", "memo index"
    yield "not-utf8", b"X\x02\0\0\0\xff\xfe", malformed
    yield "symbol-without-end", b"c" + b"a" * 5000, "has no end|truncated"
    yield "integer-giant", b"\x8b\xff\xff\xff\x7f" + bytes(100), "integer of"
    for name, head in {"bytes": b"B", "text": b"X", "string": b"T"}.items():
        yield f"{name}-giant", head + b"\xff\xff\xff\x7f", "truncated"
    for name, head in {"bytes8": b"\x8e", "text8": b"\x8d", "bytearray8": b"\x96", "frame": b"\x95"}.items():
        yield f"{name}-giant", head + b"\xff" * 7 + b"\x7f", "truncated"
        yield f"{name}-negative", head + b"\xff" * 8, "truncated"
    yield "protocol", b"\x80\x63N", "protocol 99"
    yield "persistent-id", one(text("file") + b"Q"), "persistent id"
    yield "no-tensors", one(b"K\1"), "no tensors|list of storages"
    yield "number", b"K\1", "no tensors|list of storages"
    yield "empty-dict", b"}", "no tensors|list of storages"


# ---------------------------------------------------------------------------------------------------------- bombs


def doubled() -> bytes:
    """A tuple of 2^30 values in a few bytes: each level holds the one below twice. Never hash, compare or print it."""
    return b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(30))


def bombs() -> Files:
    """Small files that cost a stock unpickler minutes or gigabytes."""
    nest = "nests more than 64"
    yield "bomb-deep-tuple", pdparams(b")" + b"\x85" * 1_000_000), nest
    yield "bomb-deep-list", pdparams(b"]" * 60_000 + b"a" * 59_999), nest
    yield "bomb-deep-dict", pdparams(b"}" + b"(X\1\0\0\0a}" * 900 + b"u" * 900), nest
    yield "bomb-doubled-tuple", pdparams(doubled()), "too many values"
    yield "bomb-doubled-key", pdparams(b"}" + doubled() + b"Ns"), "no tensors"
    yield "bomb-own-member", pdparams(b"]q\0h\0a"), nest
    yield "bomb-own-value", pdparams(b"}q\0" + text("a") + b"h\0s"), nest
    wide = b"](]q\0(" + b"N" * 90_000 + b"e" + b"h\0" * 9_000 + b"e"
    yield "bomb-wide", pdparams(wide), "too many values"
    yield "bomb-stack", pdparams(b"N" * 200_000), "nests too much"
    yield "bomb-marks", pdparams(b"(" * 200_000), "nests too much"
    yield "bomb-opcodes", pdparams(b"](" + b"NN\x86" * 2000 + b"e" + b"Na" * 1_600_000), "more than 3,000,000"
    yield "bomb-memo", pdparams(b"]" + b"r" + struct.pack("<I", 3_000_000)), "memo index"
    kind = symbol("my.config", "Node") + b")\x81"
    yield (
        "bomb-ring-of-objects-with-arrays",
        pdparams(kind + b"q\0}" + text("a") + b"h\0s" + text("w") + array() + b"sb"),
        nest,
    )
    yield (
        "bomb-doubled-objects-with-arrays",
        pdparams(
            b"]("
            + kind
            + b"q\0}"
            + text("w")
            + array()
            + b"sb"
            + b"".join(
                kind + b"q%c}(" % i + text("a") + b"h%c" % (i - 1) + text("b") + b"h%cub" % (i - 1)
                for i in range(1, 40)
            )
            + b"e"
        ),
        "names two|too many|grow|more than",
    )
    yield (
        "bomb-many-objects",
        pdparams(b"](" + (kind + b"}(" + text("a") + b"Nub") * 120_000 + b"e"),
        "nests too much|no tensors|opcodes",
    )
    wider = kind + b"q\0](" + b"N" * 90_000 + b"eb" + b"](" + b"h\0" * 9_000 + b"e\x86"
    yield "bomb-wide-objects", pdparams(wider), "no tensors|too many values|malformed"
    copies = "copies more than 3,000,000"
    own = call("argparse", "Namespace") + b"q\0}" + text("a") + b"K\1sb"
    yield "bomb-doubled-object", pdparams(own + b"h\0b" * 26), copies
    many = b"](]q\0(" + b"N" * 90_000 + b"e"
    for name in ("list", "tuple", "frozenset"):
        copy = symbol("builtins", name) + b"h\0\x85R"
        yield f"bomb-copied-{name}", pdparams(many + copy * 1000 + b"e"), copies
    copy = symbol("collections", "OrderedDict") + b"h\0\x85R"
    pairs = b"](]q\0(" + b"NN\x86" * 20_000 + b"e" + copy * 1000 + b"e"
    yield "bomb-copied-pairs", pdparams(pairs), copies
    copy = symbol("_codecs", "encode") + b"h\0" + text("latin1") + b"\x86R"
    yield "bomb-copied-text", pdparams(b"](" + text("x" * 4000) + b"q\0" + copy * 20_000 + b"e"), copies
    few = array(integers((1,)), data=b"C\4abcd") + b"q\1"
    names = b"".join(text(f"{i:06}") + b"h\1s" for i in range(MAX_TENSORS + 1))
    yield "bomb-names", pdparams(b"}" + text("a") + few + b"s" + names), f"more than {MAX_TENSORS:,} tensors"
    big = array(integers((1000,)), data=b"B" + struct.pack("<I", 4000) + bytes(4000)) + b"q\1"
    shared = b"](" + big + b"h\1" * 9_000 + b"e"
    yield "bomb-shared", pdparams(shared), "64 times its size"
    yield (
        "bomb-shape",
        pdparams(one(array(b"(" + signed(2**40) * 3 + b"t"))),
        "without as many bytes|instead of",
    )


def arrays() -> Files:
    """numpy arrays that are no plain numbers or do not fit their bytes."""
    for code in ("O8", "V8", "a5", "f16", "c32", "b4", "<f4", "", "f2\n"):
        yield f"array-dtype-{code!a}", pdparams(one(array(kind=dtype(code)))), "no plain number"
    for code in ("U3", "S3", "M8", "m8"):
        yield f"array-dtype-{code!a}", pdparams(one(array(kind=dtype(code)))), "holds no tensors"
    yield "array-big-endian", pdparams(one(array(kind=dtype(order=">")))), "big-endian"
    yield "array-native-order", pdparams(one(array(kind=dtype(order="=")))), "structured"
    names = b"N" + integers([1]) + b"}"
    yield "array-structured", pdparams(one(array(kind=dtype(extra=names)))), "structured"
    yield "array-subarray", pdparams(one(array(kind=dtype(extra=b"\x89NN")))), "structured"
    yield (
        "array-dtype-unbuilt",
        pdparams(one(array(kind=call("numpy", "dtype", text("f4"), b"\x89", b"\x88")))),
        "incomplete",
    )
    yield "array-dtype-is-text", pdparams(one(array(kind=text("f4")))), "unknown layout"
    yield "array-version", pdparams(one(array(version=2))), "unknown layout"
    yield (
        "array-unfilled",
        pdparams(one(call("numpy.core.multiarray", "_reconstruct", symbol("numpy", "ndarray"), b")", b"C\1b"))),
        "without contents",
    )
    whole = "whole numbers"
    for name, shape in {
        "negative": signed(-2) + signed(-3), "float": b"G" + struct.pack(">d", 6.0), "true": b"\x88" + integer(6),
        "text": text("6"), "none": b"N", "nested": integers((6,)), "over-64": integer(1) * 65, "huge": signed(2**64),
    }.items():  # fmt: skip
        yield f"array-shape-{name}", pdparams(one(array(b"(" + shape + b"t"))), whole
    yield "array-shape-list", pdparams(one(array(b"](K\2K\3e"))), "unknown layout"
    for name, axes in {"more": (2, 4), "less": (2, 2), "empty": (0,)}.items():
        yield f"array-bytes-{name}", pdparams(one(array(integers(axes)))), "instead of"
    yield "array-bytes-none", pdparams(one(array(data=b"N"))), "has not the 24 bytes"
    yield "array-bytes-number", pdparams(one(array(data=b"K\5"))), "has not the 24 bytes"
    latin = call("_codecs", "encode", text("a" * 23), text("latin1"))
    yield "array-text-short", pdparams(one(array(data=latin)), 2), "instead of"
    greek = call("_codecs", "encode", text("\u03b1" * 24), text("latin1"))
    yield "array-text-greek", pdparams(one(array(data=greek)), 2), "text where bytes"
    for name, filler in {
        "greek": "\u03b1" * 3000,
        "three-byte": "\u20ac" * 2000,
        "long": "a" * 5999 + "\xe9" * 2,
    }.items():
        data = call("_codecs", "encode", text(filler), text("latin1"))
        yield (
            f"array-long-text-{name}",
            pdparams(one(array(integers((1500,)), data=data)), 2),
            "not bytes|holds more|fewer",
        )
    data = call("_codecs", "encode", b"X" + struct.pack("<I", 6000) + b"a" * 5999 + b"\xc3", text("latin1"))
    yield "array-long-text-cut", pdparams(one(array(integers((1500,)), data=data)), 2), "not bytes"
    buffer = call("numpy.core.numeric", "_frombuffer", b"C\x18" + PAYLOAD, dtype(), integers((2, 4)), text("C"))
    yield "array-buffer-short", pdparams(one(buffer), 5), "instead of"


def paddle_files() -> Files:
    """Damaged .pdparams."""
    good = pdparams(one(array()))
    for cut in (1, 2, 5, 20, 60, 100, len(good) - 30, len(good) - 1):
        yield f"paddle-cut-{cut}", good[:cut], "truncated|no pickle"
    yield "paddle-trailing", good + b"x", "1 bytes after the end"
    yield "paddle-twice", good + good, "bytes after the end"
    both = dictionary([(text("w"), array()), (text("w"), array())])
    yield "paddle-duplicate", pdparams(both), "two tensors 'w'"
    nested = dictionary([(text("a"), one(array(), "b")), (text("a/b"), array())])
    yield "paddle-duplicate-nested", pdparams(nested), "two tensors 'a/b'"
    key = integers([1]) + b"\x85"  # a tuple within a tuple: names are joined from one alone
    yield (
        "paddle-name-tuple",
        pdparams(dictionary([(key, array())])),
        "neither a text of up to 4,096 bytes nor a number",
    )
    yield "paddle-name-long", pdparams(one(one(array(), "b" * 3000), "a" * 3000)), "6,001 characters"
    yield "paddle-name-surrogate", pdparams(b"}X\3\0\0\0\xed\xa0\x80" + array() + b"s"), "malformed"
    entry = dictionary(
        [(text("OriginShape"), integers((4, 3))), (text("slices"), b"](" + text("a") + text("b") + b"e")]
    )
    table = "UnpackBigParamInfor@@"
    parts = [(text("a"), array(integers((6,)))), (text("b"), array(integers((6,))))]
    for name, pairs, reason in (
        ("table-bomb", [*parts, (text(table), one(dictionary([(doubled(), b"N")])))], "damaged table"),
        ("table-name", [*parts, (text(table), dictionary([(doubled(), entry)]))], "damaged table"),
        ("table", [*parts, (text(table), b"K\1")], "damaged table"),
        ("entry", [*parts, (text(table), one(b"N"))], "damaged table"),
        ("part", [parts[0], (text(table), one(entry))], "lacks 'b'"),
        (
            "few",
            [
                parts[0],
                (text("b"), array(integers((3,)), data=b"C\x0c" + PAYLOAD[:12])),
                (text(table), one(entry)),
            ],
            "do not make it up",
        ),
        ("matrix", [parts[0], (text("b"), array()), (text(table), one(entry))], "do not make it up"),
        (
            "dtypes",
            [parts[0], (text("b"), array(integers((6,)), dtype("i4"))), (text(table), one(entry))],
            "do not make it up",
        ),
        (
            "short",
            [parts[0], (text("b"), array(integers((3,)), dtype("f8"))), (text(table), one(entry))],
            "do not make it up",
        ),
        (
            "unreadable",
            [parts[0], (text("b"), array(integers((6,)), dtype(order=">"))), (text(table), one(entry))],
            "'b': is big-endian",
        ),
        ("twice", [*parts, (text("w"), array()), (text(table), one(entry))], "two tensors 'w'"),
    ):
        yield f"paddle-split-{name}", pdparams(dictionary(pairs), 2), reason
