"""OCDBT databases and Zarr 2 arrays: tensorstore's are read, ours it reads, and hostile ones give one error.

What tensorstore makes of a folder is the truth here; the folders that it would not write are put together by hand.
"""

import json
import os
from itertools import product

import numpy as np
import pytest

from convert.errors import ConvertError, FormatError
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from convert.files.folders import ocdbt
from convert.files.folders.ocdbt import MANIFEST, Database
from convert.files.folders.ocdbt_format import MANIFEST_MAGIC, NODE_MAGIC
from convert.files.folders.ocdbt_writer import DatabaseWriter, Node, header, manifest, shared, table, varints
from convert.files.folders.orbax_foreign import ForeignArray
from convert.files.folders.store import length

from ..test_distributed import needs_module, script, stored
from .harm import soon

google_crc32c = pytest.importorskip("google_crc32c", reason="it is not installed: pip install '.[orbax]'")
DATA = f"d/{bytes(16).hex()}"
MAX_VARINT = b"\xff" * 9 + b"\x01"


def contents(folder):
    """{key: value} of a database, through our reader."""
    database = Database(os.fspath(folder))
    keys = [key.decode() for key in database._values]
    found = {key: database.find(key) for key in keys}
    read = {key: database.read(value, 0, length(value)) for key, value in found.items()}
    database.close()
    return read


def tensorstore():
    needs_module("tensorstore", "orbax")
    import tensorstore

    return tensorstore


def kvstore(folder, **config):
    ts = tensorstore()
    spec = {"driver": "ocdbt", "base": f"file://{folder}/", "config": config}
    return ts.KvStore.open(spec).result()


def many(count=300):
    rng = np.random.default_rng(0)
    return {f"params.{n % 7}.{'x' * (n % 5)}{n}/{n % 3}": rng.bytes(n % 90) for n in range(count)}


# Good ones


@pytest.mark.parametrize("compression", [None, {"id": "zstd"}], ids=["plain", "zstd"])
@pytest.mark.parametrize("node", [300, 1 << 20])
@pytest.mark.parametrize("commits", [1, 40])
def test_databases_of_tensorstore_are_read(compression, node, commits, tmp_path):
    """With leaves alone and trees of several levels, values in nodes and beside them, and older versions."""
    ts, values = tensorstore(), many()
    store = kvstore(tmp_path, compression=compression, max_decoded_node_bytes=node, max_inline_value_bytes=40)
    items = list(values.items())
    for part in np.array_split(np.arange(len(items)), commits):
        with ts.Transaction() as transaction:
            for n in part:
                store.with_transaction(transaction).write(*items[n]).result()
    gone = items[7][0]
    store.delete_range(ts.KvStore.KeyRange(gone, gone + "\0")).result()
    del values[gone]
    height = ts.ocdbt.dump(ts.KvStore.open(f"file://{tmp_path}/").result()).result()["versions"][-1]["root_height"]
    assert (height > 0) == (node == 300)
    assert contents(tmp_path) == values


def test_an_empty_database_is_read(tmp_path):
    ts = tensorstore()
    store = kvstore(tmp_path)
    store.write("a", b"b").result()
    store.delete_range(ts.KvStore.KeyRange("a", "b")).result()
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("node", [300, 8 << 20])
def test_tensorstore_reads_ours(node, tmp_path, monkeypatch):
    monkeypatch.setattr("convert.files.folders.ocdbt_writer.MAX_NODE", node)
    ts, values = tensorstore(), many()
    written(tmp_path, values)
    base = ts.KvStore.open(f"file://{tmp_path}/").result()
    (version,) = ts.ocdbt.dump(base).result()["versions"]
    levels = version["root_height"]
    assert levels > 1 if node == 300 else levels == 0
    far = [value for value in values.values() if len(value) > 40]
    assert version["root"]["statistics"]["num_keys"] == len(values)
    assert version["root"]["statistics"]["num_indirect_value_bytes"] == sum(map(len, far))
    (data,) = (tmp_path / "d").iterdir()
    assert version["root"]["statistics"]["num_tree_bytes"] == data.stat().st_size - sum(map(len, far))
    store = kvstore(tmp_path)
    assert {key.decode(): store.read(key).result().value for key in store.list().result()} == values
    assert contents(tmp_path) == values
    store.write("zzz", b"more").result()  # and goes on from them
    assert contents(tmp_path) == {**values, "zzz": b"more"}


def written(folder, values):
    writer, stored = DatabaseWriter(os.fspath(folder)), {}
    for key, value in sorted(values.items()):
        stored[key.encode()] = value if len(value) <= 40 else (writer.append([value]), len(value))
    writer.finish(sorted(stored.items()))


ZARR = {
    "plain": {"compressor": None},
    "zstd": {"compressor": {"id": "zstd", "level": 3}},
    "slashes": {"compressor": None, "dimension_separator": "/"},
    "blosc": {"compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}},
    "gzip": {"compressor": {"id": "gzip", "level": 5}},
    "order": {"compressor": None, "order": "F"},
    "big-endian": {"compressor": None, "dtype": ">f4"},
    "filled": {"compressor": None, "fill_value": 3.0},
}
FOREIGN = {"blosc", "gzip", "order", "big-endian", "filled"}


@pytest.mark.parametrize("database", [True, False], ids=["ocdbt", "folder"])
@pytest.mark.parametrize("kind", ZARR)
def test_every_grid_of_chunks(kind, database, tmp_path):
    """Cut along any axes, ragged at the end, or larger than the array; read as tensorstore reads them."""
    ts, expected = tensorstore(), {}
    shapes = [((5, 7), grid) for grid in product((2, 5, 9), (3, 7, 8))]
    shapes += [((3, 4, 5), (2, 4, 3)), ((3, 4, 5), (2, 4, 5))]
    shapes += [((), ()), ((6,), (4,))] if kind != "order" else []  # both orders are one
    for number, (shape, chunks) in enumerate(shapes):
        base = f"file://{tmp_path}/"
        store = {"driver": "ocdbt", "base": base, "path": f"a{number}/"} if database else f"{base}a{number}/"
        about = {"dtype": "<f4", "shape": shape, "chunks": chunks, **ZARR[kind]}
        array = ts.open({"driver": "zarr", "kvstore": store, "metadata": about}, create=True).result()
        expected[f"a{number}"] = np.random.default_rng(number).standard_normal(shape, np.float32)
        array.with_transaction(None)[...] = expected[f"a{number}"]
    listed(tmp_path, expected, use_ocdbt=database)
    with open_checkpoint(tmp_path) as reader:
        foreign = {isinstance(array, ForeignArray) for array in reader._arrays.values()}
        assert foreign == {kind in FOREIGN}
        for name, array in expected.items():
            assert bytes(reader.read(name)) == array.tobytes()
            for start in range(0, array.nbytes, 12):
                assert bytes(reader.read(name, start, array.nbytes)) == array.tobytes()[start:]


def listed(folder, names, **about):
    """The `_METADATA` of a folder that holds these arrays."""
    entry = {"value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False}}
    tree = {name: {"key_metadata": [{"key": name, "key_type": 2}], **entry} for name in names}
    about = {"use_zarr3": False, "store_array_data_equal_to_fill_value": True, **about}
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": tree, **about}))


@pytest.mark.parametrize("compressor", [None, {"id": "zstd", "level": 1}], ids=["plain", "zstd"])
def test_chunks_of_zeros_may_be_left_out_where_the_folder_says_so(compressor, tmp_path):
    about = {"shape": [4, 6], "chunks": [2, 3], "dtype": "<f4", "compressor": compressor, "fill_value": None}
    array(tmp_path / "a", about, {})
    listed(tmp_path, ["a"], use_ocdbt=False, store_array_data_equal_to_fill_value=False)
    with open_checkpoint(tmp_path) as reader:
        assert bytes(reader.read("a")) == bytes(96)
    listed(tmp_path, ["a"], use_ocdbt=False)
    refused(tmp_path, "it has no chunk 0.0")


def array(folder, about, chunks):
    folder.mkdir(exist_ok=True)
    about = {"zarr_format": 2, "order": "C", "filters": None, "dimension_separator": ".", **about}
    (folder / ".zarray").write_text(json.dumps(about))
    for name, data in chunks.items():
        (folder / name).write_bytes(data)


OPENING = """
    import sys
    from convert.files import open_checkpoint
    with open_checkpoint(sys.argv[1]) as reader:
        assert len(reader.tensors) == 2
        print(sorted(name for name in ("numpy", "jax", "orbax", "tensorstore") if name in sys.modules))
"""


def test_opening_imports_not_even_numpy(official):
    assert script(OPENING, official).strip() == "[]"


WRITING = """
    import sys, convert
    with convert.plan("parity_tests/goldens/flax_mixer/weights.npz", dst="flax") as plan:
        plan.write(sys.argv[1])
    print(sorted(name for name in ("jax", "orbax", "tensorstore") if name in sys.modules))
"""


def test_two_runs_write_the_same_bytes(tmp_path):
    folders = [tmp_path / f"{n}.orbax" for n in range(2)]
    for folder in folders:
        assert script(WRITING, folder).strip() == "[]"
    first, second = map(stored, folders)
    assert first == second
    (data,) = (name for name in first if name.startswith("d/"))
    assert first.keys() == {"manifest.ocdbt", data, "_METADATA", "_CHECKPOINT_METADATA", "triptych.json"}


# Damaged ones


@pytest.fixture
def official(tmp_path):
    """What Orbax writes: two databases, nodes and chunks compressed."""
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", {"a": np.arange(400, dtype=np.float64), "b": np.ones((2, 3), np.float32)})
    return tmp_path / "x"


@pytest.fixture
def ours(tmp_path):
    return small(tmp_path / "y.orbax")


def small(folder, **changed):
    folder.mkdir()
    with open(folder / "triptych.json", "w+b", buffering=0) as file:
        tensors = [Tensor("a", (3,), "float32"), Tensor("b/c", (2, 2), "float16")]
        writer = writer_for(folder)(file, tensors, {})
        for tensor in tensors:
            writer.write(tensor, [changed.get(tensor.name, bytes(range(tensor.nbytes)))])
        writer.finish()
    return folder


def test_other_contents_have_another_name(tmp_path):
    """tensorstore takes nodes and values for the same that have the same file, offset and length."""
    found = [small(tmp_path / "1.orbax"), small(tmp_path / "2.orbax"), small(tmp_path / "3.orbax", a=bytes(12))]
    first, second, other = ({path.name for path in (folder / "d").iterdir()} for folder in found)
    assert first == second
    assert len(first) == len(other) == len(first ^ other) / 2 == 1


def test_a_checkpoint_without_tensors_is_not_written(tmp_path):
    with open(tmp_path / "triptych.json", "w+b", buffering=0) as file, pytest.raises(ConvertError, match="without"):
        writer_for("x.orbax")(file, [], {})


def tensors(folder):
    """{name: (shape, dtype, payload)}, within the time that a bad file may take."""
    with soon(str(folder)), open_checkpoint(folder) as reader:
        return {t.name: (t.shape, t.dtype, bytes(reader.read(t.name))) for t in reader.tensors.values()}


def refused(folder, match=None):
    with pytest.raises(FormatError, match=match) as caught:
        tensors(folder)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.fixture(params=["official", "ours"])
def good(request):
    return request.getfixturevalue(request.param)


def test_every_flipped_byte_is_found(good):
    """In manifests and nodes; in values it gives another value, or none that can be expanded."""
    expected, outcomes = tensors(good), {"found": 0, "other": 0}
    for path in [good / MANIFEST, *sorted((good / "d").iterdir())]:
        held = path.read_bytes()
        nodes = held.find(NODE_MAGIC.to_bytes(4, "big")) if path.name != MANIFEST else 0
        for at in range(len(held)):
            path.write_bytes(held[:at] + bytes([held[at] ^ 1 << at % 8]) + held[at + 1 :])
            if at >= nodes:
                refused(good)
                outcomes["found"] += 1
            else:
                assert tensors(good).keys() == expected.keys()
                outcomes["other"] += 1
            if at >= nodes:
                path.write_bytes(held[:at])
                refused(good)
        path.write_bytes(held)
    assert tensors(good) == expected
    assert outcomes["found"] > 300


def test_damage_under_a_good_checksum_gives_an_error_or_arrays_of_the_right_size(ours):
    outcomes = {"read": 0, "refused": 0}
    for path in (ours / MANIFEST, *(ours / "d").iterdir()):
        held = path.read_bytes()
        start = held.find(NODE_MAGIC.to_bytes(4, "big")) if path.name != MANIFEST else 0
        for at, bit in product(range(start + 12, len(held) - 4), (0, 3, 6, 7)):
            body = held[start:at] + bytes([held[at] ^ 1 << bit]) + held[at + 1 : -4]
            path.write_bytes(held[:start] + body + google_crc32c.value(body).to_bytes(4, "little"))
            try:
                for shape, dtype, payload in tensors(ours).values():
                    assert len(payload) == Tensor("", shape, dtype).nbytes
                outcomes["read"] += 1
            except FormatError as error:
                assert str(ours) in str(error)
                outcomes["refused"] += 1
        path.write_bytes(held)
    assert outcomes["refused"] > 1000, outcomes
    assert outcomes["read"] > 100, outcomes  # statistics, times, sizes and values


# Hostile ones


def packed(magic, body, compress=None):
    if compress:
        body = compress(body)
    whole = magic.to_bytes(4, "big") + (18 + len(body)).to_bytes(8, "little") + bytes([0, bool(compress)]) + body
    return whole + google_crc32c.value(whole).to_bytes(4, "little")


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


def outside(name):
    def change(folder):
        (folder.parent / "secret").write_bytes(b"xy")
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
    pytest.importorskip("backports.zstd", reason="backports.zstd is not installed: pip install '.[orbax]'")
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
        made(folder, bytes(whole) + google_crc32c.value(bytes(whole)).to_bytes(4, "little"))

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


HOSTILE = {
    "shares more of a key": keyed(b"\x07", b"\x01\x01"),
    "shares more of a key than there": keyed(b"\0", b"\x01\x01", shares=b"\0\x02"),
    "shares more of a path": prefixed_path,
    "holds paths that are too": base_beyond,
    "[0-9a-f] goes on after its end|' goes on after its end": lambda folder: made(
        folder, packed(NODE_MAGIC, leaf(GOOD) + b"x")
    ),
    "does not have its checksum": lambda folder: (
        leaf_of()(folder),
        (folder / DATA).write_bytes((folder / DATA).read_bytes()[:-1] + b"x"),
    ),
    "height that it should be": cycle,
    "tree of 17 levels, over 16": tower(18),
    "holds keys out of order": twice,
    "names a file '../secret': outside": outside("../secret"),
    "names a file '/etc/passwd': outside": outside("/etc/passwd"),
    "names a file 'd/../../secret': outside": outside("d/../../secret"),
    "has a link 'link': outside": outside("link"),
    "lacks its file 'none'": lambda folder: made(
        folder, packed(NODE_MAGIC, leaf({**GOOD, "a/0": (0, 0, 2)}, files=paths("none")))
    ),
    "lacks its file 'd'": outside("d"),
    "names a file that it does not list": leaf_of({**GOOD, "a/0": (1, 0, 2)}),
    "ends before byte 1,099,511,627,778": truncated,
    "node at byte 0 of 'd/[0-9a-f]*' expands to more": bombed,
    "manifest.ocdbt: expands to more": bombed_manifest,
    "'a' cannot be read: expands to more": bombed_chunk,
    "'a' cannot be read: a chunk of 2 bytes expands to 1": lambda folder: chunk(zstd(b"x"))(folder),
    "'a' cannot be read: goes on after its end": lambda folder: chunk(zstd(b"xy") + b"z")(folder),
    "'a' cannot be read: ends too early": lambda folder: chunk(zstd(b"xy")[:-1])(folder),
    "'a' cannot be read: its chunk 0 is 3 bytes long": leaf_of({**GOOD, "a/0": b"xyz"}),
    "'a' cannot be read: it has no chunk 0": leaf_of({"a/.zarray": GOOD["a/.zarray"]}),
    "'a' cannot be read: it has no header": leaf_of({"a/0": b"xy"}),
    "'a' cannot be read: it is nested too deeply": leaf_of({**GOOD, "a/.zarray": b"[" * 60_000}),
    "'a' cannot be read: its header is too long": leaf_of({**GOOD, "a/.zarray": b"[" * 70_000}),
    "'a' cannot be read: its header gives no chunks": chunk(b"", chunks=[0]),
    "'a' cannot be read: its header gives no shape": chunk(b"", shape=[-2]),
    "'a' cannot be read: its header contradicts": chunk(b"", shape=[2, 2]),
    "'a' cannot be read: its shape takes over": chunk(b"", shape=[1 << 40, 1 << 40], chunks=[1, 1]),
    "an array 'a' of 1,099,511,627,776 bytes": chunk(b"", shape=[1 << 40]),
    "a chunk of 'a' of 1,099,511,627,776 bytes": chunk(b"", chunks=[1 << 40]),
    "has over 300,000 chunks": chunk(b"", shape=[1 << 20], chunks=[1]),
    "values of an unknown kind": leaf_of(kinds=b"\0\2"),
    "unknown version 1": versioned(1),
    "lists 100,001 files, of which 100,000": lambda folder: made(
        folder, packed(NODE_MAGIC, b"\0" + varints([100_001]) + bytes(400_000))
    ),
    "lists 300,001 entries, of which 300,000": many_keys,
    "lists 0 entries": lambda folder: made(folder, packed(NODE_MAGIC, header(0, 0, DATA))),
    "holds keys that are too long": long_keys,
    "holds paths that are too long": long_paths,
    "manifest.ocdbt: keeps its versions in numbered files": replaced(b"\0\x80\x08\x80\x80\x80\x04\x04\0", b"\1"),
    "manifest.ocdbt: lists 17 versions": replaced(b"\x04\0" + table(DATA) + b"\1", b"\x04\0" + table(DATA) + b"\x11"),
    "over 64 bits": replaced(b"\x80\x80\x80\x04\x04\0", MAX_VARINT[:-1] + b"\x02" + b"\x04\0"),
    "is not as long as it says": lambda folder: (
        leaf_of()(folder),
        (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b"x"),
    ),
    "does not begin as it should": lambda folder: (leaf_of()(folder), (folder / MANIFEST).write_bytes(b"x" * 99)),
    "manifest.ocdbt: ends too early": lambda folder: (leaf_of()(folder), (folder / MANIFEST).write_bytes(b"xy")),
    "manifest.ocdbt: is 2,000,000 bytes long": lambda folder: (
        leaf_of()(folder),
        (folder / MANIFEST).write_bytes(b"x" * 2_000_000),
    ),
    "manifest.ocdbt: there is no such file": lambda folder: None,
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_databases_are_refused(message, tmp_path):
    (tmp_path / "x").mkdir()
    hostile(tmp_path / "x", HOSTILE[message])
    refused(tmp_path / "x", message)


def test_what_is_put_together_by_hand_is_good_but_for_the_fault(tmp_path):
    good = [leaf_of(), tower(16), chunk(zstd(b"xy")), outside(DATA), leaf_of(files=paths("../not used"))]
    for number, change in enumerate(good):
        folder = tmp_path / str(number)
        folder.mkdir()
        hostile(folder, change)
        assert tensors(folder)["a"][:2] == ((2,), "uint8")


def test_seeds_of_the_fuzzer(tmp_path):
    listed(tmp_path, ["a"], use_ocdbt=True)
    outcomes = []
    for body in bodies():
        made_of(tmp_path, body)
        try:
            outcomes.append(tensors(tmp_path)["a"][0])
        except FormatError as error:
            outcomes.append(str(error).partition("cannot be read: ")[2][:18])
    assert outcomes[:3] == [(2,)] * 3
    assert outcomes[3:] == ["cannot be expanded", (2,), "it has no chunk 0."]


def test_an_array_without_elements_takes_no_time(tmp_path):
    """However many chunks its other axes would have."""
    hostile(tmp_path, chunk(b"", shape=[1 << 62, 0], chunks=[1, 1]))
    assert tensors(tmp_path) == {"a": ((1 << 62, 0), "uint8", b"")}


def test_paths_in_a_node_begin_with_its_own(tmp_path):
    """As in what Orbax merges: a root of ours, a node of process 0, and a value that this one names."""
    below = packed(NODE_MAGIC, leaf({**GOOD, "a/0": (0, 3, 2)}, files=paths("d/values")))
    (tmp_path / "p0" / "d").mkdir(parents=True)
    (tmp_path / "p0" / "d" / "nodes").write_bytes(below)
    (tmp_path / "p0" / "d" / "values").write_bytes(b"123xy")
    root, files = interior(1, [(b"a", 0, len(below))]), varints([1, 10, 3]) + b"p0/d/nodes"
    made(tmp_path, packed(NODE_MAGIC, root[:1] + files + root[1 + len(table(DATA)) :]), height=1)
    listed(tmp_path, ["a"], use_ocdbt=True)
    assert tensors(tmp_path)["a"][2] == b"xy"


def test_all_nodes_and_keys_count(tmp_path, monkeypatch):
    hostile(tmp_path, tower(3))
    database, keys = Database(os.fspath(tmp_path)), sum(map(len, GOOD))
    nodes = ocdbt.MAX_TREE - database._tree + 18  # the last one's header and checksum
    assert nodes > len(leaf(GOOD)) + 2 * len(table(DATA))
    for limit, least, message in [
        ("MAX_TREE", nodes, "is too long: all"),
        ("MAX_LONG", keys, "keys that are too long"),
    ]:
        with monkeypatch.context() as context:
            context.setattr(ocdbt, limit, least)
            tensors(tmp_path)
            context.setattr(ocdbt, limit, least - 1)
            refused(tmp_path, message)


def test_much_after_the_end_of_a_chunk_is_refused(tmp_path):
    """It is read in pieces, the second of which has nothing of the frame."""
    data = zstd(bytes(4 << 20)) + bytes(3 << 20)
    hostile(tmp_path, chunk(data, shape=[4 << 20], chunks=[4 << 20]))
    refused(tmp_path, "'a' cannot be read: goes on after its end")


def test_a_missing_chunk_is_found_when_opened(tmp_path):
    hostile(tmp_path, leaf_of({"a/.zarray": GOOD["a/.zarray"]}))
    with pytest.raises(FormatError, match="has no chunk 0"):
        open_checkpoint(tmp_path)


def test_the_last_chunk_is_filled_up_with_zeros(tmp_path, monkeypatch):
    monkeypatch.setattr("convert.files.folders.orbax.CHUNK", 8)
    assert contents(small(tmp_path / "1.orbax"))["a/1"] == bytes([8, 9, 10, 11, 0, 0, 0, 0])


def test_links_out_of_a_folder_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    array(tmp_path / "elsewhere", ABOUT, {"0": b"xy"})
    listed(tmp_path / "x", ["a"], use_ocdbt=False)
    (tmp_path / "x" / "a").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "x", "has a link 'a/.zarray': outside the folder")


MEMORY = r"""
    import re, sys
    from convert.errors import ConvertError, FormatError
    from convert.files import open_checkpoint
    for folder in sys.argv[1:]:
        try:
            with open_checkpoint(folder) as reader:
                for name in reader.tensors:
                    reader.read(name)
        except FormatError:
            pass
    print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) >> 10)
"""


def large_tree(folder):
    """The largest tree that is allowed: the most keys, and as many bytes of values as there is room for."""
    count = ocdbt.MAX_KEYS
    near = (ocdbt.MAX_TREE - 5_000_000) // count
    lengths = varints([*[0] * (count - 1), *[4] * count])
    keys = b"".join(number.to_bytes(4, "big") for number in range(count))
    body = header(0, count, DATA) + lengths + keys + varints([near] * count) + bytes(count) + bytes(near * count)
    made(folder, packed(NODE_MAGIC, body))


def test_no_database_takes_much_memory(tmp_path):
    folders = []
    for change in (bombed, bombed_manifest, bombed_chunk, long_keys, long_paths, large_tree):
        folders.append(tmp_path / change.__name__)
        folders[-1].mkdir()
        hostile(folders[-1], change)
    assert int(script(MEMORY, *folders)) < 200
    assert len(Database(os.fspath(folders[-1]))._values) == ocdbt.MAX_KEYS
