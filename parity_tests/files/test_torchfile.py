"""torch checkpoints against torch itself, and the claims of the zip and legacy readers."""

from __future__ import annotations

import argparse
import collections
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.errors import ConvertError, FormatError
from convert.files import base, open_checkpoint, strided
from convert.files.base import Tensor
from convert.files.pickled.torch import TorchReader, TorchWriter, sniff
from parity_tests.files import pickle_parts as parts
from parity_tests.files import samples
from parity_tests.files.harm import damaged, write_large

torch = pytest.importorskip("torch", reason="the official loader of .pt files is not installed")
np = pytest.importorskip("numpy", reason="numpy arrays inside .pt files need numpy")

DTYPES = [dtype for dtype in base.ITEMSIZE if hasattr(torch, dtype)]
KINDS = {"zip": True, "legacy": False}


def bits(value: Any) -> bytes:
    """A torch tensor's bytes in C order."""
    flat = value.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def tensor(name: str, dtype: str, *shape: int) -> Any:
    """Random bits as a torch tensor."""
    item = Tensor(name, shape, dtype)
    data = bytearray(samples.payload(item))
    return torch.frombuffer(data, dtype=getattr(torch, dtype)).reshape(shape) if data else torch.empty(shape)


@pytest.fixture(params=KINDS)
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Path]:
    def save(value: Any) -> Path:
        path = tmp_path / f"{request.param}.pt"
        torch.save(value, path, _use_new_zipfile_serialization=KINDS[request.param])
        return path

    return save


def same(path: Path, expected: dict[str, Any]) -> None:
    """The reader finds these tensors, whole and by ranges."""
    with open_checkpoint(path) as reader:
        assert reader.format == "torch"
        assert list(reader.tensors) == list(expected)
        for name, value in expected.items():
            found = reader.tensors[name]
            assert (found.shape, f"torch.{found.dtype}") == (tuple(value.shape), str(value.dtype))
            data = bits(value)
            assert bytes(reader.read(name)) == data
            assert b"".join(reader.read(name, at, min(at + 5, len(data))) for at in range(0, len(data), 5)) == data


# -------------------------------------------------------------------------------------- files written by torch.save


def test_every_dtype_and_shape(save: Callable[[Any], Path]) -> None:
    state = {
        f"{dtype}.{name}": tensor(dtype + name, dtype, *shape).to(getattr(torch, dtype))
        for dtype in DTYPES
        for name, shape in samples.SHAPES.items()
    }
    same(save(state), state)


def test_nested_state(save: Callable[[Any], Path]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    arguments = argparse.Namespace(rate=0.1, inner=argparse.Namespace(mean=torch.ones(3)))
    path = save(
        {
            "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "args": arguments,
            "size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.bfloat16, "best": np.float32(1),
            "ema": torch.nn.Parameter(torch.ones(2)), "list": [torch.zeros(1), (torch.ones(1), "x")],
            "counts": collections.Counter("aab"), "default": collections.defaultdict(list, a=[torch.ones(1)]),
            "where": Path("here"), "set": {1, 2}, "complex": 1j, "bytes": b"123", "big": 2**70, "float": 1.5,
        }
    )  # fmt: skip
    expected = {f"state_dict/{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        expected |= {f"optimizer/state/{index}/{name}": value for name, value in state.items()}
    expected |= {
        "args/inner/mean": torch.ones(3),
        "best": torch.tensor(1.0),
        "ema": torch.ones(2),
        "list/0": torch.zeros(1),
    }
    same(path, expected | {"list/1/0": torch.ones(1), "default/a/0": torch.ones(1)})


@pytest.mark.parametrize("window", [strided.WINDOW, 16])
def test_views(save: Callable[[Any], Path], window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strided, "WINDOW", window)
    whole = torch.randn(6, 8, 5)
    state = {
        "whole": whole, "again": whole, "transposed": whole.mT, "permuted": whole.permute(2, 0, 1), "row": whole[2],
        "column": whole[:, 3], "steps": whole[1::2, ::3, 4], "number": whole[5, 7, 4], "empty": whole[6:],
        "diagonal": whole[0].diagonal(), "flat": whole.view(-1), "half": whole.permute(1, 2, 0).to(torch.float16),
        "channels": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "complex": torch.randn(3, 4, dtype=torch.complex128).T,
    }  # fmt: skip
    same(save(state), state)


def test_elements_in_order_are_not_gathered() -> None:
    for shape, strides in (
        ((2, 3), (3, 1)),
        ((1, 3), (7, 1)),
        ((), ()),
        ((3, 0, 2), (5, 2, 1)),
        ((2, 1, 2), (2, 9, 1)),
    ):
        assert strided.is_contiguous(shape, strides)
    for shape, strides in (((2, 3), (1, 2)), ((2, 3), (4, 1)), ((2,), (0,))):
        assert not strided.is_contiguous(shape, strides)


def test_scattered_elements_are_fetched_a_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strided, "WINDOW", 1000)
    data, sizes = bytes(range(256)) * 400, list[int]()

    def fetch(start: int, stop: int) -> bytes:
        sizes.append(stop - start)
        return data[start:stop]

    column = strided.gather(fetch, (100, 2), (256, 1), 4)
    assert bytes(column) == np.frombuffer(data, "<u4").reshape(100, 256)[:, :2].tobytes()
    assert max(sizes) <= 1000


@pytest.mark.parametrize(("limit", "count"), [(10, 0xFFFF), (1 << 31, 2), (10, 2)])
def test_zip64_records(limit: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file of over 4 GiB or 65,535 members: sizes and offsets, the directory, or both have 64 bits."""
    weight = torch.arange(12.0).reshape(3, 4)
    torch.save({"w": weight, "t": weight.T}, tmp_path / "w.pt")
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", count)
    with zipfile.ZipFile(tmp_path / "w.pt") as source, zipfile.ZipFile(tmp_path / "64.pt", "w") as archive:
        for member in source.namelist():
            with archive.open(zipfile.ZipInfo(member), "w", force_zip64=True) as file:
                file.write(source.read(member))
    assert b"PK\6\6" in (tmp_path / "64.pt").read_bytes()[-98:]
    same(tmp_path / "64.pt", {"w": weight, "t": weight.T})


def test_folders_of_a_zip_are_no_content(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as source, zipfile.ZipFile(tmp_path / "again.pt", "w") as archive:
        for member in ("w/", "w/data/", *source.namelist()):
            archive.writestr(member, b"" if member.endswith("/") else source.read(member))
    with TorchReader(tmp_path / "again.pt") as reader:
        assert not reader.skipped.names


def test_a_tensor_alone(save: Callable[[Any], Path]) -> None:
    same(save(torch.ones(2, 3)), {"tensor": torch.ones(2, 3)})


def test_numpy_arrays(save: Callable[[Any], Path]) -> None:
    arrays = {
        "c": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "0": np.array(7),
    }
    with TorchReader(save(arrays)) as reader:
        assert {name: bytes(reader.read(name)) for name in arrays} == {k: v.tobytes() for k, v in arrays.items()}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")  # deprecated, but such files exist
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: torch.ones(1).expand(10), "on a storage of only 1"),
        (lambda: torch.ones(2, dtype=torch.complex64).conj(), "conjugated"),
        (lambda: torch.ones(2).to_sparse(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.nn.Parameter(torch.empty(2, device="meta")), "without data"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged), "of a subclass"),
        (lambda: np.array([None]), "no plain number"),
        (lambda: np.ones(2, ">f4"), "big-endian"),
    ],
)
def test_what_other_formats_cannot_hold(save: Callable[[Any], Path], value: Callable[[], Any], reason: str) -> None:
    with pytest.raises(FormatError, match=f"tensor 'model/w': .*{reason}"):
        TorchReader(save({"model": {"v": torch.ones(2), "w": value()}}))


def test_a_tensor_that_is_spread_over_devices_is_named(save: Callable[[Any], Path], tmp_path: Path) -> None:
    """As a masked tensor, which torch stores in the same way as a DTensor."""
    from torch.masked import masked_tensor

    value = masked_tensor(torch.ones(2), torch.ones(2, dtype=torch.bool))
    remedy = r"spread over devices .*value\.full_tensor\(\)"
    with pytest.raises(FormatError, match=rf"tensor 'model/w': is of a subclass: {remedy}"):
        TorchReader(save({"model": {"v": torch.ones(2), "w": value}}))


def test_a_file_that_torch_did_not_finish_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError):
        torch.save({"w": torch.ones(2).to_mkldnn()}, tmp_path / "x.pt")
    with pytest.raises(FormatError, match=r"torch\.save began and did not finish"):
        open_checkpoint(tmp_path / "x.pt")


def test_an_optimizer_that_was_pickled_whole_is_named(save: Callable[[Any], Path]) -> None:
    optimizer = torch.optim.SGD([weight := torch.nn.Parameter(torch.ones(2))], lr=1.0, momentum=0.5)
    weight.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(
        FormatError, match=r"in 'optimizer/state' by something .*of an optimizer, .*save state_dict\(\)"
    ):
        TorchReader(save({"w": weight, "optimizer": optimizer}))


def test_a_compiled_module_that_was_pickled_whole_is_named(save: Callable[[Any], Path]) -> None:
    with pytest.raises(FormatError, match=r"a module of torch\.compile"):
        TorchReader(save({"model": torch.compile(torch.nn.Linear(2, 3))}))


def test_old_storage_views(tmp_path: Path) -> None:
    """Legacy files of torch < 0.4: a tensor's storage is a part of another."""
    part = parts.storage(more=b"(" + parts.text("v") + b"K\2K\4t")
    path = tmp_path / "old.pt"
    path.write_bytes(parts.legacy(parts.one(parts.tensor((2, 2), (2, 1), source=part))))
    with TorchReader(path) as reader:
        assert reader.read("w") == parts.PAYLOAD[8:]
    assert bits(torch.load(path)["w"]) == parts.PAYLOAD[8:]


# ------------------------------------------------------------------------------------------------------- integrity


def test_damage_is_found_in_any_order_of_reading(tmp_path: Path) -> None:
    whole = torch.arange(400_000, dtype=torch.int32)
    path = tmp_path / "w.pt"
    torch.save({"whole": whole, "end": whole[-8:], "start": whole[:8], "alone": torch.ones(9)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(bits(whole)[:100]) + 700_000] ^= 1
    path.write_bytes(data)
    for name, start, stop in (("start", 0, 32), ("end", 0, 8), ("whole", 0, 1_600_000), ("whole", 8, 16)):
        with TorchReader(path) as reader:
            assert reader.read("alone", 4, 12) == bits(torch.ones(2))
            with pytest.raises(FormatError, match=f"'{name}'.*CRC32"):
                reader.read(name, start, stop)


def test_damage_is_found_by_reading_in_pieces(tmp_path: Path) -> None:
    path = samples.write(tmp_path / "w.pt", TorchWriter, [Tensor("w", (100,), "float32")])
    data = bytearray(path.read_bytes())
    data[data.index(samples.payload(Tensor("w", (100,), "float32"))) + 5] ^= 1
    path.write_bytes(data)
    with TorchReader(path) as reader:
        assert [reader.read("w", at, at + 100) for at in (0, 100, 200)]
        with pytest.raises(FormatError, match="CRC32"):
            reader.read("w", 300, 400)


def test_a_whole_file_is_read_in_any_order(tmp_path: Path) -> None:
    item = Tensor("w", (100,), "float32")
    path, data = samples.write(tmp_path / "w.pt", TorchWriter, [item]), samples.payload(item)
    with TorchReader(path) as reader:
        for start, stop in ((8, 16), (16, 400), (0, 100), (200, 400), (0, 400)):
            assert reader.read("w", start, stop) == data[start:stop]


def test_a_file_cut_while_it_is_read(tmp_path: Path) -> None:
    path = samples.write(tmp_path / "w.pt", TorchWriter, [Tensor("w", (100_000,), "float32")])
    with TorchReader(path) as reader:
        path.write_bytes(path.read_bytes()[:200_000])
        with pytest.raises(FormatError, match="truncated"):
            reader.read("w", 0, 400_000)


def test_ranges_are_checked(tmp_path: Path) -> None:
    path = samples.write(tmp_path / "w.pt", TorchWriter, [Tensor("w", (3,), "float32")])
    with TorchReader(path) as reader, pytest.raises(ValueError, match="of 12"):
        reader.read("w", 4, 13)


def test_opening_reads_no_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pt"
    torch.save({f"w{i}": torch.zeros(1000, 1000) for i in range(3)}, path)
    sizes = samples.reads(monkeypatch)
    with TorchReader(path) as reader:
        assert sum(sizes) < 100_000
        reader.read("w0", 0, 10)
    assert sizes[-1] == 10


def test_opening_imports_little(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(3)}, path)
    code = """
import sys
from convert.files.pickled.torch import TorchReader
assert TorchReader(sys.argv[1]).read("w") == bytes(12)
print([name for name in ("numpy", "torch", "pickle", "pickletools") if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --------------------------------------------------------------------------------------------------------- writing


def test_written_files_are_read_by_torch_and_by_us(tmp_path: Path) -> None:
    items = samples.tensors(DTYPES, ".")
    path = samples.write(tmp_path / "w.pt", TorchWriter, items)
    with TorchReader(path) as reader:
        samples.check(reader, items)
    for mapped in (False, True):
        state = torch.load(path, weights_only=True, mmap=mapped)
        assert list(state) == [item.name for item in items]
        for item in items:
            value = state[item.name]
            assert (tuple(value.shape), str(value.dtype)) == (item.shape, f"torch.{item.dtype}")
            assert value.stride() == torch.empty(item.shape).stride()
            assert bits(value) == samples.payload(item)


def test_written_files_are_deterministic_aligned_and_whole(tmp_path: Path) -> None:
    items = samples.tensors(DTYPES, ".")
    data = samples.write(tmp_path / "one.pt", TorchWriter, items).read_bytes()
    assert samples.write(tmp_path / "two.pt", TorchWriter, items, piece=1000).read_bytes() == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            lengths = data[member.header_offset + 26 : member.header_offset + 30]
            start = (
                member.header_offset
                + 30
                + int.from_bytes(lengths[:2], "little")
                + int.from_bytes(lengths[2:], "little")
            )
            assert start % 64 == 0, member.filename


def test_a_module_loads_what_we_write(tmp_path: Path) -> None:
    path = samples.write(
        tmp_path / "w.pt", TorchWriter, [Tensor("weight", (2, 3), "float32"), Tensor("bias", (2,), "float32")]
    )
    keys = torch.nn.Linear(3, 2).load_state_dict(torch.load(path, weights_only=True))
    assert not keys.missing_keys and not keys.unexpected_keys


def test_a_file_without_tensors_that_is_an_optimizers_state(save: Callable[[object], Path]) -> None:
    state = torch.optim.SGD(torch.nn.Linear(2, 3).parameters(), lr=0.1).state_dict()
    with pytest.raises(
        FormatError, match="the state of an optimizer that stores no arrays: the weights are in another"
    ):
        TorchReader(save(state))


def test_nothing_to_write(tmp_path: Path) -> None:
    path = samples.write(tmp_path / "w.pt", TorchWriter, [])
    assert torch.load(path) == {}


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    with (
        (tmp_path / "w.pt").open("wb", buffering=0) as file,
        pytest.raises(ConvertError, match="not valid Unicode"),
    ):
        TorchWriter(file, [Tensor("\ud800", (), "float32")], {})


def test_over_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    items = write_large(path, TorchWriter)
    state = torch.load(path, weights_only=True, mmap=True)
    assert bits(state["large"][-1]) == b"last" and bits(state["after"]) == b"behind the 4"
    with TorchReader(path) as reader:
        assert list(reader.tensors.values()) == items
        assert reader.read("after") == b"behind the 4"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_legacy_files_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    value = {"a": tensor("a", "float32", 2, 3), "b": tensor("b", "int64", 3)}
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    same(tmp_path / "a.pt", value)


# -------------------------------------------------------------------------------------------------- sniffing, fuzzing


def test_sniffing(tmp_path: Path) -> None:
    def is_torch(data: bytes, suffix: str = ".pt") -> bool:
        path = tmp_path / f"sniffed{suffix}"
        path.write_bytes(data)
        return sniff(data[:512], str(path))

    good = parts.torch_zip(parts.one(parts.tensor()))
    assert is_torch(good, ".npz") and is_torch(parts.legacy(b"}"))
    assert is_torch(good[:-30]) and not is_torch(good[:-30], ".npz")
    assert not is_torch(parts.zipped({"w.npy": b""})) and not is_torch(parts.pdparams(b"}"))


def test_a_tar_of_torch_is_refused_by_name(tmp_path: Path) -> None:
    """torch 0.1 wrote these four members."""
    for member in ("sys_info", "pickle", "tensors", "storages"):
        (tmp_path / "a.pt").write_bytes(member.encode().ljust(257, b"\0") + b"ustar\x0000" + bytes(1000))
        with pytest.raises(FormatError, match=r"a tar file of torch 0\.1.*torch\.save it again"):
            open_checkpoint(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"thesis.tex".ljust(257, b"\0") + b"ustar\x0000" + bytes(1000))
    with pytest.raises(FormatError, match="is a tar archive"):
        open_checkpoint(tmp_path / "a.pt")


VALUE = parts.one(parts.tensor())
GOOD = {
    "zip": parts.torch_zip(VALUE),
    "legacy": parts.legacy(parts.dictionary([(b"K\1", parts.tensor()), (parts.text("a"), parts.array())])),
    "pickle": parts.pdparams(VALUE, 2),
}


def read_all(path: Path) -> None:
    with TorchReader(path) as reader:
        for name in reader.tensors:
            assert len(reader.read(name)) == reader.tensors[name].nbytes


@pytest.mark.parametrize("kind", GOOD)
def test_good_files_of_the_corpus(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "good.pt"
    path.write_bytes(parts.torch_zip(GOOD[kind][2:-1]) if kind == "pickle" else GOOD[kind])
    read_all(path)


@pytest.mark.parametrize("kind", GOOD)
@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_fuzz(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any damage gives FormatError, or a file that reads; the pickle in a zip is damaged under a valid CRC32."""
    bad = damaged(data, GOOD[kind])
    path = tmp_path_factory.getbasetemp() / f"fuzz-{kind}.pt"
    path.write_bytes(parts.zipped({**parts.torch_members(VALUE), "a/data.pkl": bad}) if kind == "pickle" else bad)
    try:
        read_all(path)
    except FormatError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
