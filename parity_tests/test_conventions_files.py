"""CONVENTIONS.md, demonstrated for files: a probe for each row, as in test_conventions.py."""

from __future__ import annotations

import os
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest

from .test_conventions import fresh

np = pytest.importorskip("numpy", reason="numpy is not installed")

MAPS = Path("/proc/self/maps")


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed: pip install .[torch]")


@pytest.fixture
def paddle() -> Any:
    return pytest.importorskip("paddle", reason="paddle is not installed: pip install .[paddle]")


class Canary:
    """Makes the folder `path` when unpickled: visible, and harmless."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def strings(pickled: Any) -> list[str]:
    return [held for _, held, _ in pickletools.genops(pickled) if isinstance(held, str)]


def test_safetensors_layout(torch, tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    for_torch = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    array = np.arange(6, dtype="float32").reshape(2, 3)
    library.save_file({"w": array.T}, tmp_path / "w")
    assert library.load_file(tmp_path / "w")["w"].tolist() == array.reshape(3, 2).tolist() != array.T.tolist()
    library.save_file({"w": np.ascontiguousarray(array.T)}, tmp_path / "w")
    assert library.load_file(tmp_path / "w")["w"].tolist() == array.T.tolist()
    with pytest.raises(ValueError, match="non contiguous"):
        for_torch.save_file({"w": torch.from_numpy(array).T}, tmp_path / "w")


def test_safetensors_bfloat16(torch, tmp_path):
    for_torch = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    for_torch.save_file({"w": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "w")
    load = f"""
from safetensors.numpy import load, load_file
for name, read in {{"load": lambda: load(open({str(tmp_path / "w")!r}, "rb").read()),
                   "load_file": lambda: load_file({str(tmp_path / "w")!r})}}.items():
    try: out[name] = str(read()["w"].dtype)
    except (KeyError, TypeError) as problem: out[name] = type(problem).__name__
"""
    assert fresh(load) == {"load": "KeyError", "load_file": "TypeError"}
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: it comes with jax")
    assert fresh("import ml_dtypes" + load) == {"load": "KeyError", "load_file": "bfloat16"}


def test_pickles_run(torch, paddle, tmp_path):
    (tmp_path / "c.pdparams").write_bytes(pickle.dumps({"w": Canary(tmp_path / "paddle")}))
    paddle.load(str(tmp_path / "c.pdparams"))
    assert (tmp_path / "paddle").is_dir()
    torch.save({"w": Canary(tmp_path / "torch")}, tmp_path / "c.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        torch.load(tmp_path / "c.pt")
    assert not (tmp_path / "torch").exists()
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert (tmp_path / "torch").is_dir()


def test_pdparams_layout(paddle, tmp_path):
    path = str(tmp_path / "w.pdparams")
    paddle.save(paddle.nn.Linear(2, 3).state_dict(), path)
    held = Path(path).read_bytes()
    operations = [operation.name for operation, _, _ in pickletools.genops(held)]
    named = {"numpy._core.multiarray", "_reconstruct", "numpy", "ndarray", "dtype", "f4", "<"}
    assert named | {"weight", "bias", "StructuredToParameterName@@"} <= set(strings(held))
    assert (operations.count("STACK_GLOBAL"), operations.count("GLOBAL")) == (3, 0)  # those of numpy's reconstruction
    for protocol in (2, 3, 4):
        paddle.save({"w": paddle.ones([2])}, path, protocol=protocol)
        assert Path(path).read_bytes()[:2] == bytes((0x80, protocol))
    with pytest.raises(ValueError, match="protocol"):
        paddle.save({"w": paddle.ones([2])}, path, protocol=5)


def test_pdparams_bfloat16(paddle, tmp_path):
    path = str(tmp_path / "w.pdparams")
    paddle.save({"w": paddle.ones([2]).astype("bfloat16")}, path)
    held = Path(path).read_bytes()
    assert "u2" in strings(held)
    assert b"bfloat" not in held
    paddle.save({"w": np.arange(3, dtype="uint16")}, path)  # integers, which paddle takes for bfloat16
    assert paddle.load(path)["w"].dtype == paddle.bfloat16


def test_npy_objects(tmp_path):
    np.save(tmp_path / "o.npy", np.array([Canary(tmp_path / "numpy")], dtype=object))
    with open(tmp_path / "o.npy", "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        assert {"mkdir", str(tmp_path / "numpy")} <= set(strings(file))  # behind the header, a pickle
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "o.npy")
    assert not (tmp_path / "numpy").exists()


def test_msgpack_layout(monkeypatch):
    flax = pytest.importorskip("flax.serialization", reason="flax is not installed: pip install .[flax]")
    msgpack = pytest.importorskip("msgpack", reason="msgpack is not installed: pip install .[flax]")
    read = {"strict_map_key": False}

    def leaf(code, shape, data):
        return msgpack.ExtType(code, msgpack.packb((shape, "float32", data)))

    array = np.arange(6, dtype="<f4").reshape(2, 3)
    held = msgpack.unpackb(flax.to_bytes({"a": {"w": array.T, "list": [array[0, 1]]}}), **read)
    assert held == {"a": {"w": leaf(1, (3, 2), array.T.tobytes()), "list": {"0": leaf(3, (), array[0, 1].tobytes())}}}
    swapped = msgpack.unpackb(flax.to_bytes({"w": array.astype(">f4")}))  # the name does not say that it is
    assert swapped == {"w": leaf(1, (2, 3), array.astype(">f4").tobytes())}
    assert flax.MAX_CHUNK_SIZE == 2**30
    monkeypatch.setattr(flax, "MAX_CHUNK_SIZE", 16)
    assert msgpack.unpackb(flax.to_bytes({"w": array}), **read)["w"] == {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 2, "1": 3},
        "chunks": {"0": leaf(1, (4,), array.tobytes()[:16]), "1": leaf(1, (2,), array.tobytes()[16:])},
    }


def test_torch_zip_layout(torch, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.ones(3, 5), "b": torch.ones(7)}, path)
    held, members = path.read_bytes(), zipfile.ZipFile(path).infolist()
    assert {"w/data.pkl", "w/data/0", "w/data/1"} <= {member.filename for member in members}
    for member in members:
        name, extra = (int.from_bytes(held[member.header_offset + at :][:2], "little") for at in (26, 28))
        assert (member.header_offset + 30 + name + extra) % 64 == 0, member.filename
        assert member.compress_type == zipfile.ZIP_STORED


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not list a process's mappings in /proc")
def test_torch_zip_mapping(torch, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.ones(3, 5)}, path)
    read = torch.load(path, weights_only=True)
    assert str(path) not in MAPS.read_text()
    mapped = torch.load(path, mmap=True, weights_only=True)
    assert str(path) in MAPS.read_text()
    assert torch.equal(read["w"], mapped["w"])
