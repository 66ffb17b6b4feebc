"""safetensors: our reader and writer against the official library, on the same files."""

from __future__ import annotations

import io
import json
import struct

import pytest

from convert.errors import ConvertError, FormatError
from convert.files.base import ITEMSIZE, MAX_TENSORS, Tensor
from convert.files.safetensors import DTYPES, MAX_HEADER, SafetensorsReader, SafetensorsWriter
from parity_tests.files.samples import check, payload, tensors, write

ITEMS = tensors(DTYPES.values())


def test_what_is_written_is_read_back(tmp_path):
    path = write(tmp_path / "a.safetensors", SafetensorsWriter, ITEMS, {"b": "2", "a": "ü\n"})
    with SafetensorsReader(path) as reader:
        check(reader, ITEMS)
        assert reader.metadata == {"a": "ü\n", "b": "2"}


def test_official_numpy_library_reads_what_we_write(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    items = [
        tensor for tensor in ITEMS if tensor.dtype != "bfloat16" and "float8" not in tensor.dtype
    ]  # numpy lacks them
    arrays = numpy.load_file(write(tmp_path / "a.safetensors", SafetensorsWriter, items))
    assert arrays.keys() == {tensor.name for tensor in items}
    for tensor in items:
        array = arrays[tensor.name]
        assert (array.shape, array.dtype.name, array.tobytes()) == (
            tensor.shape,
            tensor.dtype,
            payload(tensor),
        )


def test_official_torch_library_reads_what_we_write(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    loaded = library.load_file(write(tmp_path / "a.safetensors", SafetensorsWriter, ITEMS))
    for tensor in ITEMS:
        array = loaded[tensor.name]
        assert (tuple(array.shape), str(array.dtype)) == (tensor.shape, f"torch.{tensor.dtype}")
        assert array.reshape(-1).view(torch.uint8).numpy().tobytes() == payload(tensor)


@pytest.mark.parametrize("header", [
    '{"__metadata__":null,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    '{"a":{"x":1.5e3,"dtype":"F32","note":"two, three","shape":[2],"list":[1],"data_offsets":[0,8],"none":null}}',
], ids=["no metadata", "fields"])  # fmt: skip
def test_what_the_official_reader_ignores_is_ignored(tmp_path, header):
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + struct.pack("<2f", 3, 4))
    assert library.load_file(path)["a"].tolist() == [3, 4]
    with SafetensorsReader(path) as reader:
        assert (list(reader.tensors), reader.metadata) == (["a"], {})
        assert reader.read("a") == struct.pack("<2f", 3, 4)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_we_read_what_the_official_library_writes(tmp_path, library):
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    module = pytest.importorskip(f"safetensors.{library}", reason="safetensors is not installed")
    kinds = ["bool", "uint8", "int8", "uint16", "int64", "float16", "float32", "float64"]
    source = {f"{kind}.ä": np.arange(6).reshape(2, 3).astype(kind) for kind in kinds} | {"scalar": np.array(7, "f4")}
    arrays = source
    if library == "torch":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        arrays = {name: torch.from_numpy(array) for name, array in source.items()}
        arrays["bf16"] = torch.arange(6, dtype=torch.bfloat16)
        arrays["f8"] = torch.arange(6, dtype=torch.float32).to(torch.float8_e4m3fn)
    module.save_file(arrays, tmp_path / "a.safetensors", {"format": "pt"})
    with SafetensorsReader(tmp_path / "a.safetensors") as reader:
        assert (reader.metadata, reader.tensors.keys()) == ({"format": "pt"}, arrays.keys())
        for name, array in source.items():
            assert (reader.tensors[name].dtype, reader.read(name)) == (array.dtype.name, array.tobytes())
        if library == "torch":
            assert reader.tensors["bf16"].dtype == "bfloat16"
            assert reader.tensors["f8"].dtype == "float8_e4m3fn"
            assert bytes(reader.read("bf16")) == arrays["bf16"].view(torch.uint8).numpy().tobytes()


def test_one_dtype_in_name_order_is_byte_for_byte_the_official_file(tmp_path):
    """The official writer sorts by element size, then by name: in that order the files are the same."""
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    items = [Tensor(f"n{index}ö", (index, 3), "float32") for index in range(5)]
    arrays = {tensor.name: np.frombuffer(payload(tensor), "f4").reshape(tensor.shape) for tensor in items}
    path = write(tmp_path / "a.safetensors", SafetensorsWriter, items, {"format": "np"})
    assert path.read_bytes() == library.save(arrays, {"format": "np"})


def test_header_is_padded_sorted_and_every_payload_aligned_to_its_element(tmp_path):
    items = [Tensor("odd", (3,), "uint8"), Tensor("f", (3,), "float32"), Tensor("n", (), "int64")]
    raw = write(tmp_path / "a.safetensors", SafetensorsWriter, items, {"z": "1", "a": "2"}).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    assert list(header) == ["__metadata__", "odd", "f", "n"]
    assert list(header["__metadata__"]) == ["a", "z"]
    for tensor in items:
        assert header[tensor.name]["data_offsets"][0] % ITEMSIZE[tensor.dtype] == 0
    with SafetensorsReader(tmp_path / "a.safetensors") as reader:
        check(reader, items)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    first = write(tmp_path / "a", SafetensorsWriter, ITEMS, {"a": "1", "b": "2"}, piece=1000)
    second = write(tmp_path / "b", SafetensorsWriter, ITEMS, {"b": "2", "a": "1"}, piece=3)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "tensor",
    [Tensor("a", (), "complex128"), Tensor("__metadata__", (), "float32"), Tensor("\ud800", (), "float32")],
    ids=repr,
)
def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(tensor):
    file = io.BytesIO()
    with pytest.raises(ConvertError, match=r"safetensors cannot|not valid Unicode"):
        SafetensorsWriter(file, [tensor], {})
    assert file.getvalue() == b""


def test_a_header_that_would_not_be_read_is_not_written():
    items = [Tensor(f"{index:05}" + "n" * 4000, (), "uint8") for index in range(MAX_HEADER // 4000 + 1)]
    with pytest.raises(ConvertError, match="split into shards"):
        SafetensorsWriter(io.BytesIO(), items, {})


def test_a_file_truncated_after_opening_is_an_error_of_that_file(tmp_path):
    path = write(tmp_path / "a.safetensors", SafetensorsWriter, [Tensor("a", (100,), "float32")])
    with SafetensorsReader(path) as reader:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 10)
        assert len(reader.read("a", 0, 100)) == 100
        with pytest.raises(FormatError, match="10 bytes too early"):
            reader.read("a")


def test_a_header_of_a_million_names_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    header = ("{" + ",".join(f'"{number}":0' for number in range(1_000_000)) + "}").encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(FormatError, match="over 750,000 values"):
        SafetensorsReader(tmp_path / "a.safetensors")


def test_the_most_tensors_of_four_dimensions_are_read(tmp_path):
    entry = '"%d":{"dtype":"U8","shape":[1,1,1,0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % number for number in range(MAX_TENSORS)) + "}").encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with SafetensorsReader(tmp_path / "a.safetensors") as reader:
        assert len(reader.tensors) == MAX_TENSORS
