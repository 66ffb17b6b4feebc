"""npz: our reader and writer against numpy, on the same files."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import zipfile
import zlib

import pytest

from convert.errors import ConvertError, FormatError
from convert.files import zip_writer, zips
from convert.files.base import DESCR, Tensor
from convert.files.npz import NpzReader, NpzWriter, write_header
from parity_tests.files.corpus_plain import npy, patched, zipped
from parity_tests.files.samples import NAMES, check, payload, tensors, write

ITEMS = tensors(DESCR)


@pytest.fixture
def np():
    return pytest.importorskip("numpy", reason="numpy is not installed")


def array_of(np, tensor):
    return np.frombuffer(payload(tensor), tensor.dtype).reshape(tensor.shape)


def test_what_is_written_is_read_back(tmp_path):
    with NpzReader(write(tmp_path / "a.npz", NpzWriter, ITEMS)) as reader:
        check(reader, ITEMS)


def test_numpy_and_zipfile_read_what_we_write(tmp_path, np):
    path = write(tmp_path / "a.npz", NpzWriter, ITEMS)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files == [tensor.name for tensor in ITEMS]
        for tensor in ITEMS:
            array = arrays[tensor.name]
            assert (array.shape, array.dtype.name, array.tobytes()) == (
                tensor.shape,
                tensor.dtype,
                payload(tensor),
            )
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("save", ["savez", "savez_compressed"])
def test_we_read_what_numpy_writes(tmp_path, np, save):
    arrays = {tensor.name.replace("\\", ""): array_of(np, tensor) for tensor in ITEMS}
    image = np.arange(60, dtype="f4").reshape(3, 4, 5)
    arrays |= {
        "turned": image.T,
        "fortran": np.asfortranarray(image),
        "strided": image[:, ::2],
        "vector": image[0, 0],
    }
    arrays |= {
        f"fortran/{kind}": np.asfortranarray(np.arange(6).reshape(2, 3).astype(kind))
        for kind in ("i1", "f2", "c16", "?")
    }
    arrays["random"] = np.random.default_rng(0).standard_normal((300, 400))
    path = tmp_path / "a.npz"
    getattr(np, save)(path, **arrays)
    with NpzReader(path) as reader:
        assert list(reader.tensors) == list(arrays)
        for name, array in arrays.items():
            tensor, data = reader.tensors[name], array.tobytes("C")
            assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype.name)
            assert bytes(reader.read(name)) == data
            step = max(1, len(data) // 3)
            assert (
                b"".join(reader.read(name, at, min(at + step, len(data))) for at in range(0, len(data), step)) == data
            )
            assert bytes(reader.read(name, len(data) // 2)) == data[len(data) // 2 :]


def test_two_opaque_bytes_are_bfloat16(tmp_path, np):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: pip install .[flax]")
    np.savez(tmp_path / "a.npz", a=np.arange(6).astype(ml_dtypes.bfloat16), b=np.zeros(2, "V2"))
    with NpzReader(tmp_path / "a.npz") as reader:
        assert {tensor.dtype for tensor in reader.tensors.values()} == {"bfloat16"}
        assert reader.read("a") == np.arange(6).astype(ml_dtypes.bfloat16).tobytes()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_all_versions_of_npy(tmp_path, np, version):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.arange(6.0).reshape(2, 3), version)
    (tmp_path / "a.npz").write_bytes(zipped(("a.npy", content.getvalue())))
    with NpzReader(tmp_path / "a.npz") as reader:
        assert reader.tensors["a"] == Tensor("a", (2, 3), "float64")
        assert reader.read("a") == np.arange(6.0).tobytes()


def test_headers_that_python_2_wrote(tmp_path):
    (tmp_path / "a.npz").write_bytes(zipped(("a.npy", npy(shape="(2L, 3L)")), ("folder/", b"")))
    with NpzReader(tmp_path / "a.npz") as reader:
        assert list(reader.tensors.values()) == [Tensor("a", (2, 3), "float32")]


def test_npy_headers_are_byte_for_byte_those_of_numpy(np):
    shapes = [
        (),
        (0,),
        (3, 4),
        (12345, 1),
        *((1,) * rank for rank in range(1, 65)),
        (10**9, 0),
        *((10**k, 0) for k in range(18)),
    ]
    for shape in shapes:
        for dtype in DESCR:
            content = io.BytesIO()
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(content, header)
            assert write_header(Tensor("a", shape, dtype)) == content.getvalue()


def test_the_same_input_gives_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / str(piece), NpzWriter, ITEMS, piece=piece) for piece in (3, 1000))
    assert first.read_bytes() == second.read_bytes()


def test_beyond_the_32_bit_fields(tmp_path, np, monkeypatch):
    """With the limit lowered in the writer, the zip64 records are really written and really read."""
    monkeypatch.setattr(zip_writer, "FULL", 300)
    items = [Tensor(f"a{index}", (index * 20,), "float32") for index in range(8)]
    path = write(tmp_path / "a.npz", NpzWriter, items)
    assert b"PK\6\6" in path.read_bytes()
    raw = path.read_bytes().replace(struct.pack("<L", 300), b"\xff" * 4)  # what the real limit would have put there
    path.write_bytes(raw)
    with NpzReader(path) as reader:
        check(reader, items)
    with np.load(path) as arrays:
        assert {name: arrays[name].tobytes() for name in arrays.files} == {
            tensor.name: payload(tensor) for tensor in items
        }

    for at in (16, 24):  # the number of this disk, and of its entries
        damaged = bytearray(raw)
        damaged[raw.index(b"PK\6\6") + at] ^= 2
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match="has a damaged zip64 record"), NpzReader(path):
            pass


def test_two_names_of_which_numpy_reads_one_array_are_refused(tmp_path):
    items = [Tensor("a", (2,), "float32"), Tensor("a.npy", (2,), "float32")]
    with pytest.raises(ConvertError, match=r"'a' and 'a\.npy': numpy reads one array by both names"):
        write(tmp_path / "a.npz", NpzWriter, items)
    with NpzReader(write(tmp_path / "b.npz", NpzWriter, items[1:])) as reader:
        check(reader, items[1:])


@pytest.mark.parametrize("limit", [2**32 - 1, 300], ids=["32 bits", "64 bits"])
def test_local_headers_say_what_the_directory_says(tmp_path, monkeypatch, limit):
    """np.load and zipfile go by the directory; tools that stream or repair a zip go by these."""
    monkeypatch.setattr(zip_writer, "FULL", limit)
    items = [Tensor(f"a{index}", (index * 20,), "float32") for index in range(8)]
    path = write(tmp_path / "a.npz", NpzWriter, items)
    raw = path.read_bytes()
    at = 0
    for tensor in items:
        content = write_header(tensor) + payload(tensor)
        signature, version, *_, crc, compressed, size, name, extra = zips.LOCAL.unpack_from(raw, at)
        field = raw[at + 30 + name : at + 30 + name + extra]
        wide = struct.pack("<2H2Q", 1, 16, len(content), len(content)) if len(content) >= limit else b""
        assert (signature, version, crc) == (b"PK\3\4", 45 if wide else 20, zlib.crc32(content))
        assert (compressed, size, field) == (min(len(content), limit),) * 2 + (wide,)
        at += 30 + name + extra
        assert raw[at : at + len(content)] == content
        at += len(content)


def test_a_sparse_member_beyond_four_gigabytes(tmp_path, np):
    """5 GiB of zeros that are never written: a hole stands for the payload, and its CRC is not right."""

    class Holes(io.FileIO):
        def write(self, data):
            if memoryview(data).nbytes >= 1 << 17:
                self.seek(memoryview(data).nbytes, os.SEEK_CUR)
                return memoryview(data).nbytes
            return super().write(data)

    large, small = Tensor("large", (5, 1 << 28), "float32"), Tensor("small", (3,), "float32")
    zeros = memoryview(bytes(1 << 30))
    with Holes(tmp_path / "a.npz", "w") as file:
        writer = NpzWriter(file, [large, small], {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zips.zlib, "crc32", lambda data, value=0: 0)  # 5 GiB of CRC take seconds
            writer.write(large, [zeros] * 5)
        writer.write(small, [payload(small)])
        writer.finish()
    with NpzReader(tmp_path / "a.npz") as reader:
        assert reader.tensors == {"large": large, "small": small}
        assert reader.read("large", large.nbytes - 8) == bytes(8)
        assert reader.read("small") == payload(small)
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["small"].tobytes() == payload(small)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_what_numpy_lacks_is_refused_with_a_way_out(dtype):
    file = io.BytesIO()
    with pytest.raises(ConvertError, match="safetensors"):
        NpzWriter(file, [Tensor("a", (2,), dtype)], {})
    assert file.getvalue() == b""


@pytest.mark.parametrize("name", ["n" * 5000, "a\0b", "\ud800"], ids=ascii)
def test_names_that_a_zip_cannot_hold_are_refused(name):
    with pytest.raises(ConvertError, match=r"npz cannot|not valid Unicode"):
        NpzWriter(io.BytesIO(), [Tensor(name, (), "float32")], {})


def test_a_directory_that_would_not_be_read_is_not_written(monkeypatch):
    items = [Tensor(f"a{index}", (), "uint8") for index in range(20)]
    NpzWriter(io.BytesIO(), items, {})
    for limit, value in {"MAX_DIRECTORY": 1000, "MAX_MEMBERS": 19}.items():
        with monkeypatch.context() as patch:
            patch.setattr(zip_writer, limit, value)
            with pytest.raises(ConvertError, match="split into shards"):
                NpzWriter(io.BytesIO(), items, {})


def test_a_header_with_an_odd_byte_says_which(tmp_path):
    array = npy()
    (tmp_path / "a.npz").write_bytes(zipped(("a.npy", patched(array, array.index(b"}") - 1, b"\xdf"))))
    with pytest.raises(FormatError, match=rf"whose byte {array.index(b'}') - 1 - 10} is 0xdf where numpy writes"):
        NpzReader(tmp_path / "a.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_wrong_crc_is_found_in_one_read_and_in_pieces(tmp_path, method):
    raw = zipped(("a.npy", npy()), method=method)
    (tmp_path / "a.npz").write_bytes(patched(raw, raw.index(b"PK\1\2") + 16, b"\0\0\0\0"))
    with NpzReader(tmp_path / "a.npz") as reader:
        assert len(reader.read("a", 0, 20)) == 20
        with pytest.raises(FormatError, match="CRC"):
            reader.read("a", 20, 24)
        with pytest.raises(FormatError, match="CRC"):
            reader.read("a")


def test_a_file_truncated_after_opening_is_an_error_of_that_file(tmp_path):
    path = write(tmp_path / "a.npz", NpzWriter, [Tensor("a", (100,), "float32")])
    with NpzReader(path) as reader:
        with path.open("r+b") as file:
            file.truncate(300)
        with pytest.raises(FormatError, match="too early"):
            reader.read("a")


def test_numpy_is_imported_for_fortran_order_alone(tmp_path, monkeypatch):
    (tmp_path / "c.npz").write_bytes(zipped(("a.npy", npy())))
    (tmp_path / "f.npz").write_bytes(zipped(("a.npy", npy(order="True"))))
    monkeypatch.setitem(sys.modules, "numpy", None)
    with NpzReader(tmp_path / "c.npz") as reader:
        assert len(reader.read("a")) == 24
    with NpzReader(tmp_path / "f.npz") as reader, pytest.raises(ImportError):
        reader.read("a")


def test_the_largest_directory_has_a_limit_that_is_stated():
    assert f"{zips.MAX_DIRECTORY >> 20} MiB" in (zips.__doc__ or "")
    assert len(NAMES) == len(set(NAMES))


def test_an_array_in_fortran_order_is_in_memory_once(tmp_path, np):
    values = np.asfortranarray(np.arange(16 << 20, dtype="float32").reshape(4096, -1))  # 64 MiB: several windows
    np.savez(tmp_path / "a.npz", w=values)
    with NpzReader(tmp_path / "a.npz") as reader:
        tracemalloc.start()
        data = reader.read("w")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert np.array_equal(np.frombuffer(data, "float32").reshape(values.shape), values)
    assert peak < 1.5 * values.nbytes  # one copy and a window of it, 0.25
