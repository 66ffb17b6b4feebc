"""flax msgpack: our reader and writer against flax.serialization, on the same files."""

from __future__ import annotations

import io
import mmap

import pytest

from convert.errors import ConvertError, FormatError
from convert.files import msgpack, open_checkpoint
from convert.files.base import MAX_DEPTH, Tensor
from convert.files.msgpack import MsgpackReader, MsgpackWriter
from parity_tests.files.corpus_plain import array, chunked, string, tree
from parity_tests.files.harm import Sparse, zeros
from parity_tests.files.samples import check, payload, tensors, write

ITEMS = tensors()


@pytest.fixture
def flax():
    return pytest.importorskip("flax.serialization", reason="flax is not installed: pip install .[flax]")


@pytest.fixture
def np():
    return pytest.importorskip("numpy", reason="numpy is not installed")


def as_array(tensor):
    import ml_dtypes
    import numpy

    dtype = getattr(ml_dtypes, tensor.dtype) if "bfloat" in tensor.dtype or "float8" in tensor.dtype else tensor.dtype
    return numpy.frombuffer(payload(tensor), dtype).reshape(tensor.shape)


def nested(items):
    """The tree of these names, maps in order of first mention."""
    tree = {}
    for tensor in items:
        node = tree
        *parents, leaf = tensor.name.split("/")
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = as_array(tensor)
    return tree


def chunk_by(monkeypatch, size, flax=None):
    monkeypatch.setattr(msgpack, "CHUNK", size)
    if flax:
        monkeypatch.setattr(flax, "MAX_CHUNK_SIZE", size)


@pytest.mark.parametrize("chunk", [2**30, 100, 17], ids="chunks of {}".format)
def test_what_is_written_is_read_back(tmp_path, monkeypatch, chunk):
    chunk_by(monkeypatch, chunk)
    with MsgpackReader(write(tmp_path / "a.msgpack", MsgpackWriter, ITEMS)) as reader:
        check(reader, ITEMS)


TREES = {
    "all": ITEMS,
    "nothing": [],
    "one": [Tensor("a", (2,), "float32")],
    "interleaved": [Tensor(name, (3,), "float32") for name in ("b/x", "a/y/z", "b/a", "c", "a/y/0", "b/c/d")],
    "wide": [Tensor(f"w/{index:03}", (index,), "int32") for index in range(70_000 // 100)],
    "sizes": [
        Tensor(f"s{size}", (size,), "uint8") for size in (0, 1, 2, 3, 5, 200, 255, 256, 65_500, 65_535, 65_536, 70_000)
    ],
    "dimensions": [
        Tensor("d", (1,) * 20, "uint8"),
        *(Tensor(f"e{size}", (0, size), "uint8") for size in (127, 128, 255, 256, 65_535, 65_536, 2**32)),
    ],
    "keys": [Tensor("k" * length, (), "float64") for length in (0, 1, 31, 32, 255, 256, 4000)],
    "empty keys": [Tensor(name, (1,), "uint8") for name in ("a//b", "a/c/", "/x")],
}


@pytest.mark.parametrize("chunk", [2**30, 100, 16, 7], ids="chunks of {}".format)
@pytest.mark.parametrize("name", TREES)
def test_bytes_are_those_of_flax(tmp_path, monkeypatch, flax, name, chunk):
    chunk_by(monkeypatch, chunk, flax)
    items = [tensor for tensor in TREES[name] if chunk > 16 or tensor.nbytes < 1000]
    path = write(tmp_path / "a.msgpack", MsgpackWriter, items, piece=1000)
    assert path.read_bytes() == flax.to_bytes(nested(items))


def test_more_than_65535_entries(tmp_path):
    packer = pytest.importorskip("msgpack", reason="msgpack is not installed: pip install .[flax]").Packer()
    for count in (0, 15, 16, 65_535, 65_536, 2**32 - 1):
        assert msgpack._head("map", count) == packer.pack_map_header(count)
    (tmp_path / "a").write_bytes(msgpack._head("map", 66_000) + b"".join(b"\xa5%05d\xc0" % i for i in range(66_000)))
    with MsgpackReader(tmp_path / "a") as reader:
        assert reader.tensors == {}


def test_flax_restores_what_we_write(tmp_path, flax, np):
    restored = flax.msgpack_restore(write(tmp_path / "a.msgpack", MsgpackWriter, ITEMS).read_bytes())
    for tensor in ITEMS:
        node = restored
        for key in tensor.name.split("/"):
            node = node[key]
        assert (node.shape, node.dtype.name, node.tobytes()) == (tensor.shape, tensor.dtype, payload(tensor))


def test_we_read_what_flax_writes(tmp_path, flax, np, monkeypatch):
    monkeypatch.setattr(flax, "MAX_CHUNK_SIZE", 64)
    image = np.arange(60, dtype="f4").reshape(3, 4, 5)
    tree = {
        "params": {"kernel": image, "turned": image.T, "strided": image[:, ::2], "none": image[:0]},
        "opt": [{"count": np.int64(3), "lr": np.float32(0.5)}, (np.ones((), "i4"), {})], "step": 7,
        "big": 2**63, "negative": -5, "rate": 0.1, "note": "größe", "raw": b"123", "flag": True,
        "nothing": None, "z": 1 + 2j,
    }  # fmt: skip
    path = tmp_path / "a.msgpack"
    path.write_bytes(flax.to_bytes(tree))
    expected = {f"params/{name}": array for name, array in tree["params"].items()}
    expected |= {
        "opt/0/count": tree["opt"][0]["count"],
        "opt/0/lr": tree["opt"][0]["lr"],
        "opt/1/0": tree["opt"][1][0],
    }
    with MsgpackReader(path) as reader:
        assert list(reader.tensors) == list(expected)
        for name, array in expected.items():
            tensor = reader.tensors[name]
            assert (tensor.shape, tensor.dtype, bytes(reader.read(name))) == (
                array.shape,
                array.dtype.name,
                array.tobytes("C"),
            )


def test_lists_of_a_raw_tree_and_jax_arrays(tmp_path, flax, np):
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed: pip install .[flax]")
    path = tmp_path / "a.msgpack"
    content = {"w": [jnp.ones((2, 3), "bfloat16"), [jnp.arange(3, dtype="int32")]], "0": {}}
    path.write_bytes(flax.msgpack_serialize(content))
    with MsgpackReader(path) as reader:
        assert [(t.name, t.shape, t.dtype) for t in reader.tensors.values()] == [
            ("w/0", (2, 3), "bfloat16"),
            ("w/1/0", (3,), "int32"),
        ]
        assert bytes(reader.read("w/0")) == b"\x80\x3f" * 6


def test_chunks_are_joined_by_number_whatever_their_order(tmp_path):
    key = {index: string(str(index)) for index in range(11)}
    shape = b"\x82" + key[1] + b"\x03" + key[0] + b"\x0b"
    chunks = b"".join(
        key[index] + array(b"\x91\x03", b"\xa5uint8", b"\xc4\x03" + bytes([index] * 3))
        for index in sorted(key, key=str)
    )
    (tmp_path / "a.msgpack").write_bytes(tree(chunked(shape, []).removesuffix(b"\x80") + b"\x8b" + chunks))
    with MsgpackReader(tmp_path / "a.msgpack") as reader:
        assert reader.tensors["a"] == Tensor("a", (11, 3), "uint8")
        assert reader.read("a") == bytes(index for index in range(11) for _ in range(3))


def test_keys_of_chunks_that_are_not_numbered_from_0_are_refused(tmp_path):
    one = array(b"\x91\x03", b"\xa5uint8", b"\xc4\x03abc")
    shape, chunks = b"\x81" + string("0") + b"\x03", b"\x81" + string("1") + one
    (tmp_path / "a.msgpack").write_bytes(tree(chunked(shape, []).removesuffix(b"\x80") + chunks))
    with pytest.raises(FormatError, match="the keys of the chunks of a chunked array are not numbered from 0"):
        MsgpackReader(tmp_path / "a.msgpack")


def test_ranges_across_chunks(tmp_path, monkeypatch):
    chunk_by(monkeypatch, 10)
    tensor = Tensor("a", (5, 9), "uint8")
    data = payload(tensor)
    with MsgpackReader(write(tmp_path / "a.msgpack", MsgpackWriter, [tensor])) as reader:
        for start in range(46):
            for stop in range(start, 46):
                assert bytes(reader.read("a", start, stop)) == data[start:stop]


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a/b"),
        ("/".join("a" * (MAX_DEPTH + 1)),),
        ("x/__msgpack_chunked_array__",),
        ("n" * 5000,),
        ("\ud800",),
    ],
    ids=lambda names: names[0][:20],
)
def test_names_that_make_no_tree_are_refused_before_anything_is_written(names):
    file = io.BytesIO()
    with pytest.raises(ConvertError, match="rename"):
        MsgpackWriter(file, [Tensor(name, (), "float32") for name in names], {})
    assert file.getvalue() == b""


def test_trees_that_would_not_be_read_are_not_written(monkeypatch):
    items = [Tensor(f"layer{index}/kernel", (), "uint8") for index in range(25)]
    MsgpackWriter(io.BytesIO(), items, {})
    for limit, value in {
        "MAX_ITEMS": 100,
        "MAX_NAMES": 500,
    }.items():  # 100 keys and values and the tree; 622 characters
        with monkeypatch.context() as patch:
            patch.setattr(msgpack, limit, value)
            with pytest.raises(ConvertError, match="split it"):
                MsgpackWriter(io.BytesIO(), items, {})


def test_the_deepest_tree_we_write_is_read(tmp_path):
    items = [Tensor("/".join("a" * MAX_DEPTH), (2,), "float32")]
    with MsgpackReader(write(tmp_path / "a.msgpack", MsgpackWriter, items)) as reader:
        check(reader, items)


def test_a_file_truncated_after_opening_is_an_error_of_that_file(tmp_path):
    path = write(tmp_path / "a.msgpack", MsgpackWriter, [Tensor("a", (100,), "float32")])
    with MsgpackReader(path) as reader:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 10)
        with pytest.raises(FormatError, match="10 bytes too early"):
            reader.read("a")


def test_an_array_of_a_dtype_that_is_not_read_is_named(tmp_path):
    (tmp_path / "a.msgpack").write_bytes(tree(tree(array(dtype=string("int4"))), b"\xa1b"))
    with pytest.raises(FormatError, match=r"'b/a' has dtype 'int4', which is not read \(save it as another one"):
        open_checkpoint(tmp_path / "a.msgpack")


def test_arrays_beyond_a_gigabyte_are_split_where_flax_splits_them():
    """Offsets only: payloads of zeros are never made."""
    size = 2**28 + 5  # float32, 20 bytes over the limit
    writer = MsgpackWriter(io.BytesIO(), [Tensor("a", (size,), "float32"), Tensor("b", (2**28,), "float32")], {})
    assert [part[2] for part in writer._parts["a"]] == [2**30, 20]
    assert [part[2] for part in writer._parts["b"]] == [2**30]


def test_flax_restores_an_array_beyond_a_gigabyte(tmp_path, flax):
    item, path = Tensor("a/w", (2, 2**29 + 3), "uint8"), tmp_path / "large.msgpack"
    with Sparse(path, "w") as file:
        writer = MsgpackWriter(file, [item], {})
        writer.write(item, zeros(item.nbytes))
        writer.finish()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        array = flax.msgpack_restore(data)["a"]["w"]
    assert (array.shape, str(array.dtype), array.sum()) == (item.shape, item.dtype, sum(b"last"))
    assert array[-1, -4:].tobytes() == b"last"
    with MsgpackReader(path) as reader:
        assert reader.tensors == {"a/w": item}
        assert reader.read("a/w", 2**30 - 2) == b"\0\0\0\0last"  # out of both chunks


def test_the_remedy_for_keys_with_a_slash_works(tmp_path, flax, np):
    """It is followed as it is written, on a tree whose upper level is nested already."""
    from flax.traverse_util import flatten_dict, unflatten_dict

    tree = {"params": {"head/kernel": np.ones((2, 3), "f4"), "head/bias": np.ones(3, "f4")}}
    (tmp_path / "x.msgpack").write_bytes(flax.msgpack_serialize(tree))
    with pytest.raises(FormatError) as caught:
        MsgpackReader(tmp_path / "x.msgpack")
    names = {"unflatten_dict": unflatten_dict, "flatten_dict": flatten_dict, "tree": tree}
    nested = eval(str(caught.value).partition("traverse_util: ")[2].removesuffix(")"), names)
    (tmp_path / "y.msgpack").write_bytes(flax.msgpack_serialize(nested))
    assert set(MsgpackReader(tmp_path / "y.msgpack").tensors) == {"params/head/kernel", "params/head/bias"}


def test_a_file_of_one_byte_is_refused(tmp_path):
    """0x80 begins a pickle, and is a msgpack of nothing."""
    (tmp_path / "x.pt").write_bytes(b"\x80")
    with pytest.raises(FormatError, match=r"x\.pt: has one byte only"):
        open_checkpoint(tmp_path / "x.pt")
