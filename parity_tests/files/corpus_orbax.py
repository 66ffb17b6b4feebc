"""Orbax folders that orbax would not write: OCDBT databases put together by hand, hostile ones among them.

Source: tensorstore/kvstore/ocdbt/index.rst, "Storage format".
"""

import json
import os
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import pytest

MANIFEST, MANIFEST_MAGIC, NODE_MAGIC = "manifest.ocdbt", 0x0CDB3A2A, 0x0CDB20DE
MAX_NODE, MAX_INLINE = 8 << 20, 1024  # bytes: what the manifests say
DATA = f"d/{bytes(16).hex()}"
MAX_VARINT = b"\xff" * 9 + b"\x01"


class Node(NamedTuple):
    """One that was written, as its parent lists it."""

    key: bytes  # its first
    offset: int
    length: int
    keys: int  # below it
    tree: int  # bytes of it and the nodes below it
    values: int  # bytes of the values below it that are in the data file


def manifest(root: Node, height: int, name: str, uuid: bytes) -> bytes:
    """One version, the first, of no time."""
    place = varints([0, root.offset, root.length, root.keys, root.tree, root.values])
    config = uuid + b"\0" + varints([MAX_INLINE, MAX_NODE]) + b"\x04\0"  # one manifest; 16 versions in it; uncompressed
    return config + table(name) + b"\1\1" + bytes([height]) + place + bytes(8) + b"\0"


def header(height: int, count: int, name: str) -> bytes:
    return bytes([height]) + table(name) + varints([count])


def table(name: str) -> bytes:
    """Of one data file."""
    return b"\1" + varints([len(name), 0]) + name.encode()


def varints(numbers: Iterable[int]) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that there is more."""
    out = bytearray()
    for number in numbers:
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def shared(keys: list[bytes]) -> tuple[bytes, bytes, bytes]:
    """The columns of how many bytes each key shares with the one before it, how many it adds, and these."""
    prefixes = [agreement(*pair) for pair in pairwise(keys)]
    suffixes = [key[size:] for key, size in zip(keys, [0, *prefixes], strict=True)]
    return varints(prefixes), varints(map(len, suffixes)), b"".join(suffixes)


def agreement(one: bytes, other: bytes) -> int:
    """Bytes that two keys begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def listed(folder, names, **about):
    """The `_METADATA` of a folder that holds these arrays."""
    entry = {"value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False}}
    tree = {name: {"key_metadata": [{"key": name, "key_type": 2}], **entry} for name in names}
    about = {"use_zarr3": False, "store_array_data_equal_to_fill_value": True, **about}
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": tree, **about}))


def crc32c(data):
    google_crc32c = pytest.importorskip("google_crc32c", reason="it is not installed: pip install '.[dev]'")
    return google_crc32c.value(data)


def packed(magic, body, compress=None):
    if compress:
        body = compress(body)
    whole = magic.to_bytes(4, "big") + (18 + len(body)).to_bytes(8, "little") + bytes([0, bool(compress)]) + body
    return whole + crc32c(whole).to_bytes(4, "little")


def leaf(values, files=None, kinds=None):
    """The body of a leaf of {key: value, or (file, offset, length)}."""
    far = [value for value in values.values() if isinstance(value, tuple)]
    lengths = [value[2] if isinstance(value, tuple) else len(value) for value in values.values()]
    kinds = kinds or bytes(isinstance(value, tuple) for value in values.values())
    places = varints(file for file, _, _ in far) + varints(offset for _, offset, _ in far)
    near = b"".join(value for value in values.values() if isinstance(value, bytes))
    head = b"\0" + (files or table(DATA)) + varints([len(values)])
    return head + b"".join(shared([key.encode() for key in values])) + varints(lengths) + kinds + places + near


def interior(height, children):
    """The body of a node of (key, offset, length)."""
    prefixes, suffixes, rest = shared([key for key, _, _ in children])
    nothing = bytes(len(children))
    places = varints(offset for _, offset, _ in children) + varints(size for _, _, size in children)
    return header(height, len(children), DATA) + prefixes + suffixes + nothing + rest + nothing + places + nothing * 3


def paths(*names):
    return varints([len(names), *[0] * (len(names) - 1), *map(len, names), *[0] * len(names)]) + "".join(names).encode()


def made(folder, data, root=None, height=0):
    """A database of these bytes, the last or the `root` of which is a node."""
    (folder / "d").mkdir(exist_ok=True)
    (folder / DATA).write_bytes(data)
    offset, size = root or (0, len(data))
    (folder / MANIFEST).write_bytes(
        packed(MANIFEST_MAGIC, manifest(Node(b"", offset, size, 1, 1, 1), height, DATA, bytes(16)))
    )
    return folder


def made_of(folder, body):
    """A database whose root has this body, under a good checksum; the leaf of it all comes first."""
    first = packed(NODE_MAGIC, leaf(GOOD))
    root = packed(NODE_MAGIC, body)
    made(folder, first + root, (len(first), len(root)), body[0] if body else 0)


def bodies():
    """Of good roots, for `made_of`: values in the node and beside it, one level and two."""
    yield leaf(GOOD)
    yield leaf({**GOOD, "a/0": (0, 5, 2)}, files=paths(DATA, "none"))
    yield interior(1, [(b"a", 0, len(packed(NODE_MAGIC, leaf(GOOD))))])
    for about in ({"compressor": {"id": "zstd", "level": 1}}, {"chunks": [1]}, {"shape": [2, 1], "chunks": [1, 2]}):
        yield leaf({"a/.zarray": json.dumps({**ABOUT, **about}).encode(), "a/0": b"x", "a/1": b"y"})


ABOUT = {"shape": [2], "chunks": [2], "dtype": "|u1", "compressor": None, "fill_value": None, "zarr_format": 2}
ABOUT |= {"order": "C", "filters": None}
GOOD = {"a/.zarray": json.dumps(ABOUT).encode(), "a/0": b"xy"}


def hostile(folder, change):
    listed(folder, ["a"], use_ocdbt=True)
    change(folder)


def leaf_of(values=GOOD, **how):
    return lambda folder: made(folder, packed(NODE_MAGIC, leaf(values, **how)))


def outside(name, linked=False):
    def change(folder):
        (folder.parent / "secret").write_bytes(b"xy")
        if linked:
            (folder / "link").symlink_to(folder.parent / "secret")
        made(folder, packed(NODE_MAGIC, leaf({**GOOD, "a/0": (0, 0, 2)}, files=paths(name))))

    return change


def cycle(folder):
    """A node that says that it is below itself."""
    size = len(packed(NODE_MAGIC, interior(1, [(b"a", 0, 99)])))
    assert size < 128
    made(folder, packed(NODE_MAGIC, interior(1, [(b"a", 0, size)])), height=1)


def tower(levels):
    """Each node has one below it; all are as they should be."""

    def change(folder):
        data = packed(NODE_MAGIC, leaf(GOOD))
        offset, size = 0, len(data)
        for height in range(1, levels):
            node = packed(NODE_MAGIC, interior(height, [(b"a", offset, size)]))
            offset, size = len(data), len(node)
            data += node
        made(folder, data, (offset, size), levels - 1)

    return change


def twice(folder):
    """Nodes that are below two others, which doubles the keys at every level."""
    data = packed(NODE_MAGIC, leaf(GOOD))
    offset, size = 0, len(data)
    for height in range(1, 12):
        node = packed(NODE_MAGIC, interior(height, [(b"a", offset, size), (b"b", offset, size)]))
        offset, size = len(data), len(node)
        data += node
    made(folder, data, (offset, size), 11)


def zstd(data):
    pytest.importorskip("backports.zstd", reason="backports.zstd is not installed: pip install '.[dev]'")
    from backports.zstd import compress

    return compress(data)


def bombed(folder):
    made(folder, packed(NODE_MAGIC, leaf(GOOD) + bytes(400 << 20), zstd))


def bombed_manifest(folder):
    made(folder, packed(NODE_MAGIC, leaf(GOOD)))
    (folder / MANIFEST).write_bytes(packed(MANIFEST_MAGIC, bytes(400 << 20), zstd))


def chunk(data, **about):
    about = {**ABOUT, "compressor": {"id": "zstd", "level": 1}, **about}
    return leaf_of({"a/.zarray": json.dumps(about).encode(), "a/0": data})


def bombed_chunk(folder):
    chunk(zstd(bytes(400 << 20)), shape=[1 << 20], chunks=[1 << 20])(folder)


def much_after_a_chunk(folder):
    """It is read in pieces, the second of which has nothing of the frame."""
    chunk(zstd(bytes(4 << 20)) + bytes(3 << 20), shape=[4 << 20], chunks=[4 << 20])(folder)


def replaced(old, new):
    """In the manifest, before it is packed."""

    def change(folder):
        body = (made(folder, packed(NODE_MAGIC, leaf(GOOD))) / MANIFEST).read_bytes()[14:-4]
        assert body.count(old) == 1
        (folder / MANIFEST).write_bytes(packed(MANIFEST_MAGIC, body.replace(old, new)))

    return change


def versioned(version):
    def change(folder):
        whole = bytearray(packed(NODE_MAGIC, leaf(GOOD))[:-4])
        whole[12] = version
        made(folder, bytes(whole) + crc32c(bytes(whole)).to_bytes(4, "little"))

    return change


def truncated(folder):
    made(folder, packed(NODE_MAGIC, leaf({**GOOD, "a/0": (0, 1 << 40, 2)})))


def long_keys(folder):
    """A megabyte of leaf that stands for 3 GB of keys, each of which adds a byte to the one before it."""
    count = 60_000
    lengths = varints([*range(count - 1), *[1] * count])
    made(folder, packed(NODE_MAGIC, header(0, count, DATA) + lengths + b"b" * count + bytes(2 * count)))


def long_paths(folder):
    count = 60_000
    files = varints([count, *range(count - 1), *[1] * count, *[0] * count]) + b"b" * count
    made(folder, packed(NODE_MAGIC, b"\0" + files + leaf(GOOD)[1 + len(table(DATA)) :]))


def many_keys(folder):
    made(folder, packed(NODE_MAGIC, header(0, 300_001, DATA) + bytes(2_000_000)))


def keyed(prefixes, suffixes, shares=None):
    """A leaf, or a node above leaves, of two keys with these columns."""
    height, columns = (0, b"") if shares is None else (1, shares)
    return lambda folder: made(
        folder,
        packed(NODE_MAGIC, header(height, 2, DATA) + prefixes + suffixes + columns + b"abcdef" + bytes(20)),
        height=height,
    )


def prefixed_path(folder):
    files = varints([2, 7, 1, 1, 0, 0]) + b"ab"  # the second shares 7 bytes with the first, which has one
    made(folder, packed(NODE_MAGIC, b"\0" + files + leaf(GOOD)[1 + len(table(DATA)) :]))


def base_beyond(folder):
    files = varints([1, 1, 2]) + b"a"
    made(folder, packed(NODE_MAGIC, b"\0" + files + leaf(GOOD)[1 + len(table(DATA)) :]))


def large_tree(folder):
    """A tree of 300,000 keys and 50 MB of values in one node."""
    count, near = 300_000, 150
    lengths = varints([*[0] * (count - 1), *[4] * count])
    keys = b"".join(number.to_bytes(4, "big") for number in range(count))
    body = header(0, count, DATA) + lengths + keys + varints([near] * count) + bytes(count) + bytes(near * count)
    made(folder, packed(NODE_MAGIC, body))


def not_packed(name, change):
    """A good database, of which one file is changed afterwards: the manifest or the data."""

    def changed(folder):
        leaf_of()(folder)
        path = folder / (MANIFEST if name == MANIFEST else DATA)
        path.write_bytes(change(path.read_bytes()))

    return changed


UNREAD = "cannot be read: "  # tensorstore's own words follow, which change from release to release
ARRAY = "the array 'a' cannot be read: "
HOSTILE = {
    "a key shares more than there is": (keyed(b"\x07", b"\x01\x01"), UNREAD),
    "a subtree's key shares more than there is": (keyed(b"\0", b"\x01\x01", shares=b"\0\x02"), UNREAD),
    "a path shares more than there is": (prefixed_path, UNREAD),
    "a base beyond its path": (base_beyond, UNREAD),
    "a node goes on": (lambda folder: made(folder, packed(NODE_MAGIC, leaf(GOOD) + b"x")), UNREAD),
    "a wrong checksum": (not_packed(DATA, lambda data: data[:-1] + b"x"), UNREAD),
    "a node below itself": (cycle, UNREAD),
    "nodes below two others": (twice, UNREAD),
    "a file above the folder": (outside("../secret"), ARRAY),
    "a file of an absolute path": (outside("/etc/passwd"), ARRAY),
    "a file above the folder, through one in it": (outside("d/../../secret"), ARRAY),
    "a link out of the folder": (outside("link", linked=True), "has a link 'link': outside"),
    "a missing file": (leaf_of({**GOOD, "a/0": (0, 0, 2)}, files=paths("none")), ARRAY),
    "a folder for a file": (outside("d"), ARRAY),
    "a file that is not listed": (leaf_of({**GOOD, "a/0": (1, 0, 2)}), UNREAD),
    "a value beyond its file": (truncated, ARRAY),
    "a node that expands": (bombed, UNREAD),
    "a manifest that expands": (bombed_manifest, UNREAD),
    "a chunk that expands": (bombed_chunk, ARRAY),
    "a chunk that expands to less": (lambda folder: chunk(zstd(b"x"))(folder), ARRAY),
    "a chunk with more after it": (lambda folder: chunk(zstd(b"xy") + b"z")(folder), ARRAY),
    "megabytes after a chunk": (much_after_a_chunk, UNREAD),
    "a chunk cut short": (lambda folder: chunk(zstd(b"xy")[:-1])(folder), ARRAY),
    "a chunk too long": (leaf_of({**GOOD, "a/0": b"xyz"}), ARRAY),
    "no chunk": (leaf_of({"a/.zarray": GOOD["a/.zarray"]}), ARRAY + "it has 0 of its 1 chunks"),
    "no header": (leaf_of({"a/0": b"xy"}), ARRAY + "it has no header"),
    "an empty header": (leaf_of({**GOOD, "a/.zarray": b""}), ARRAY + "it has no header, or an empty one"),
    "a pipe": (lambda folder: os.mkfifo(folder / "pipe"), "has a pipe, socket or device 'pipe'"),
    "a deep header": (leaf_of({**GOOD, "a/.zarray": b"[" * 60_000}), ARRAY + "it is nested too deeply"),
    "a long header": (leaf_of({**GOOD, "a/.zarray": b"[" * 70_000}), ARRAY + "its header is too long"),
    "chunks without a row": (chunk(b"", chunks=[0]), ARRAY + "its header gives a size below 1"),
    "a negative shape": (chunk(b"", shape=[-2]), ARRAY + "its header gives a size below 0"),
    "other axes of chunks": (chunk(b"", shape=[2, 2]), ARRAY + "its header contradicts itself"),
    "a shape of 2^80": (chunk(b"", shape=[1 << 40, 1 << 40], chunks=[1, 1]), ARRAY + r"its shape takes over 2\^63"),
    "a shape of 2^40": (chunk(b"", shape=[1 << 40]), "an array 'a' of at least 1,099,511,627,776 bytes"),
    "a chunk of 2^40": (chunk(b"", chunks=[1 << 40]), "a chunk of 'a' of at least 1,099,511,627,776 bytes"),
    "a million chunks": (chunk(b"", shape=[1 << 20], chunks=[1]), "has over 300,000 chunks"),
    "values of an unknown kind": (leaf_of(kinds=b"\0\2"), UNREAD),
    "an unknown version": (versioned(1), UNREAD),
    "100,001 files": (
        lambda folder: made(folder, packed(NODE_MAGIC, b"\0" + varints([100_001]) + bytes(400_000))), UNREAD,
    ),
    "300,001 keys that are one": (many_keys, UNREAD),
    "a node without keys": (lambda folder: made(folder, packed(NODE_MAGIC, header(0, 0, DATA))), UNREAD),
    "keys of 3 GB": (long_keys, UNREAD),
    "paths of 3 GB": (long_paths, "ended the process that reads it through tensorstore"),
    "versions in numbered files": (replaced(b"\0\x80\x08\x80\x80\x80\x04\x04\0", b"\1"), UNREAD),
    "17 versions": (replaced(b"\x04\0" + table(DATA) + b"\1", b"\x04\0" + table(DATA) + b"\x11"), UNREAD),
    "a number over 64 bits": (replaced(b"\x80\x80\x80\x04\x04\0", MAX_VARINT[:-1] + b"\x02" + b"\x04\0"), UNREAD),
    "a manifest that goes on": (not_packed(MANIFEST, lambda data: data + b"x"), UNREAD),
    "another file's bytes": (not_packed(MANIFEST, lambda data: b"x" * 99), UNREAD),
    "a manifest cut short": (not_packed(MANIFEST, lambda data: b"xy"), UNREAD),
    "a long manifest": (not_packed(MANIFEST, lambda data: b"x" * 2_000_000), UNREAD),
    "no manifest": (lambda folder: None, "lacks its file 'manifest.ocdbt'"),
}  # fmt: skip
