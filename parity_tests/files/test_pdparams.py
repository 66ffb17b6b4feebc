"""paddle checkpoints against paddle itself, and pickles of numpy arrays against numpy."""

from __future__ import annotations

import collections
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.errors import ConvertError, FormatError
from convert.files import open_checkpoint, strided
from convert.files.base import ITEMSIZE, Tensor
from convert.files.pickled import interpreter as pickles
from convert.files.pickled.paddle import CODES, SPLIT_TABLE, PdparamsReader, PdparamsWriter, sniff
from parity_tests.files import pickle_parts as parts
from parity_tests.files import samples
from parity_tests.files.harm import damaged, write_large

np = pytest.importorskip("numpy", reason="a .pdparams is a pickle of numpy arrays")

PROTOCOLS = (2, 3, 4)
PADDLE_DTYPES = sorted(set(CODES) - {"bfloat16"})


@pytest.fixture(scope="module")
def paddle() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # paddle warns that ccache is missing
        return pytest.importorskip("paddle", reason="the official loader of .pdparams is not installed")


def dump(path: Path, value: Any, protocol: int = 4) -> Path:
    with path.open("wb") as file:
        pickle.dump(value, file, protocol)
    return path


def random_array(dtype: str, *shape: int) -> Any:
    data = samples.payload(Tensor("", shape, dtype))
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)


def same(path: Path, expected: dict[str, Any]) -> None:
    """The reader finds these arrays, whole, by ranges, and out of order."""
    with open_checkpoint(path) as reader:
        assert reader.format == "pdparams"
        assert list(reader.tensors) == list(expected)
        for name, value in expected.items():
            data, step = value.tobytes(), max(value.nbytes // 3, 7)
            assert reader.tensors[name] == Tensor(name, value.shape, str(value.dtype))
            assert bytes(reader.read(name)) == data
            pieces = [reader.read(name, at, min(at + step, len(data))) for at in range(0, len(data), step)]
            assert b"".join(pieces) == data
            assert bytes(reader.read(name, len(data) // 2, len(data))) == data[len(data) // 2 :]


# ------------------------------------------------------------------------------------ files written by paddle, numpy


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_state_dict(paddle: Any, tmp_path: Path, protocol: int) -> None:
    arrays = {
        f"{dtype}.{name}": random_array(dtype, *shape)
        for dtype in PADDLE_DTYPES
        for name, shape in {**samples.SHAPES, "large": (50, 400)}.items()
    }
    path = tmp_path / "w.pdparams"
    paddle.save({name: paddle.to_tensor(value) for name, value in arrays.items()}, str(path), protocol=protocol)
    same(path, arrays)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bfloat16_comes_as_uint16(paddle: Any, tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "w.pdparams"
    paddle.save({"w": paddle.to_tensor([1.0, -2.0]).astype("bfloat16")}, str(path), protocol=protocol)
    same(path, {"w": np.array([0x3F80, 0xC000], np.uint16)})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nested_and_optimizer(paddle: Any, tmp_path: Path, protocol: int) -> None:
    layer = paddle.nn.Linear(3, 2)
    schedule = paddle.optimizer.lr.NoamDecay(d_model=4, warmup_steps=3)
    optimizer = paddle.optimizer.Adam(schedule, parameters=layer.parameters())
    layer(paddle.ones([1, 3])).sum().backward()
    optimizer.step()
    path = tmp_path / "w.pdopt"
    paddle.save({"model": layer.state_dict(), "opt": optimizer.state_dict(), "epoch": 1}, str(path), protocol=protocol)
    expected = {f"model/{name}": value.numpy() for name, value in layer.state_dict().items()}
    for name, value in optimizer.state_dict().items():
        if name != "LR_Scheduler":
            expected[f"opt/{name}"] = value.numpy()
    same(path, expected)
    paddle.save(optimizer.state_dict(), str(path), protocol=protocol)
    same(path, {name[4:]: value for name, value in expected.items() if name.startswith("opt/")})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_static_graph_tensor(paddle: Any, tmp_path: Path, protocol: int) -> None:
    """Pickled as eval("data", {"data": array})."""
    path, kept = tmp_path / "w.pdparams", paddle.to_tensor([[1.0, 2.0]])
    paddle.save([kept.value().get_tensor()], str(path), protocol=protocol)
    assert b"eval" in path.read_bytes()
    same(path, {"0": np.array([[1.0, 2.0]], np.float32)})


@pytest.mark.parametrize("protocol", (2, 3))
def test_split_arrays(paddle: Any, tmp_path: Path, protocol: int) -> None:
    """What protocols 2 and 3 do to arrays over 2^30 bytes, on small ones; paddle puts them together alike."""
    big, slices = random_array("float32", 40, 300), ["w@@.0", "w@@.1"]
    flat = big.reshape(-1)
    value = {
        "b": np.ones(2), slices[0]: flat[:7000], slices[1]: flat[7000:],
        SPLIT_TABLE: {"w": {"OriginShape": big.shape, "slices": slices}},
    }  # fmt: skip
    path = dump(tmp_path / "w.pdparams", value, protocol)
    assert paddle.load(str(path), return_numpy=True)["w"].tobytes() == big.tobytes()
    same(path, {"w": big, "b": np.ones(2)})


@pytest.mark.parametrize(
    ("slices", "problem"), [({"w@@.0": 2}, "lacks 'w@@.1'"), ({"w@@.0": 2, "w@@.1": 3}, "do not make it up")]
)
def test_slices_that_are_no_array(slices: dict[str, int], problem: str, tmp_path: Path) -> None:
    table = {"w": {"OriginShape": (2, 2), "slices": ["w@@.0", "w@@.1"]}}
    value = {name: np.ones(length) for name, length in slices.items()}
    with pytest.raises(FormatError, match=f"tensor 'w': .*{problem}"):
        PdparamsReader(dump(tmp_path / "w.pdparams", {**value, SPLIT_TABLE: table}, 2))


def test_tensors_of_torch_in_a_plain_pickle(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install .[torch]")
    with pytest.raises(FormatError, match="tensors of torch in a plain pickle"):
        PdparamsReader(dump(tmp_path / "w.pkl", {"w": torch.ones(2)}))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_pickles_of_numpy(tmp_path: Path, protocol: int) -> None:
    shared = random_array("int64", 3)
    value = collections.OrderedDict(
        c=random_array("float64", 2, 3),
        f=np.asfortranarray(random_array("int16", 30, 40)), scalar=np.array(3, np.uint64),
        pair=("name", shared), tuple=(shared, [shared]), step=np.float32(3), note=np.str_("ü"),
        raw=np.bytes_(b"x"), day=np.datetime64("2020-01-01"), long=np.longdouble(1), empty=np.zeros((0, 3), np.uint32),
    )  # fmt: skip
    path = dump(tmp_path / "w.pd", value, protocol)
    same(
        path,
        {
            "c": value["c"], "f": np.ascontiguousarray(value["f"]), "scalar": value["scalar"], "pair": shared,
            "tuple/0": shared, "tuple/1/0": shared, "step": value["step"], "empty": value["empty"],
        },
    )  # fmt: skip


def test_numpy_1_and_python_2_names(tmp_path: Path) -> None:
    value = {"w": random_array("float32", 3)}
    new = pickle.dumps(value, 2)
    old = new.replace(b"numpy._core.", b"numpy.core.").replace(b"X\1\0\0\0w", b"U\1w")
    assert old != new
    path = tmp_path / "w.pdparams"
    path.write_bytes(old)
    same(path, value)


def test_fortran_order_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strided, "WINDOW", 64)
    value = np.asfortranarray(random_array("float32", 9, 5, 7))
    for protocol in PROTOCOLS:
        same(dump(tmp_path / "w.pd", {"w": value}, protocol), {"w": np.ascontiguousarray(value)})


# --------------------------------------------------------------------------------------------------------- writing


def test_written_files_are_read_by_paddle_and_by_us(paddle: Any, tmp_path: Path) -> None:
    items = samples.tensors(PADDLE_DTYPES, ".")
    path = samples.write(tmp_path / "w.pdparams", PdparamsWriter, items)
    with PdparamsReader(path) as reader:
        samples.check(reader, items)
    state = paddle.load(str(path), return_numpy=True)
    assert list(state) == [item.name for item in items]
    for item in items:
        assert (state[item.name].shape, str(state[item.name].dtype)) == (item.shape, item.dtype)
        assert state[item.name].tobytes() == samples.payload(item)
    assert all(isinstance(value, paddle.Tensor) for value in paddle.load(str(path)).values())


def test_bfloat16_is_bfloat16_to_paddle(paddle: Any, tmp_path: Path) -> None:
    item = Tensor("w", (4, 5), "bfloat16")
    path = samples.write(tmp_path / "w.pdparams", PdparamsWriter, [item])
    value = paddle.load(str(path))["w"]
    assert value.dtype == paddle.bfloat16
    assert np.asarray(value.cpu()).tobytes() == samples.payload(item)


def test_a_layer_loads_what_we_write(paddle: Any, tmp_path: Path) -> None:
    items = [Tensor("weight", (3, 2), "float32"), Tensor("bias", (2,), "float32")]
    path = samples.write(tmp_path / "w.pdparams", PdparamsWriter, items)
    assert paddle.nn.Linear(3, 2).set_state_dict(paddle.load(str(path))) == ([], [])


def test_pickle_loads_without_warnings_and_bytes_are_deterministic(tmp_path: Path) -> None:
    items = samples.tensors(CODES, ".")
    data = samples.write(tmp_path / "one.pdparams", PdparamsWriter, items).read_bytes()
    assert samples.write(tmp_path / "two.pdparams", PdparamsWriter, items, piece=1000).read_bytes() == data
    code = "import pickle, sys; print(len(pickle.load(sys.stdin.buffer)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], input=data, capture_output=True, check=True)
    assert (int(done.stdout), done.stderr) == (len(items), b"")


@pytest.mark.parametrize("dtype", sorted(set(ITEMSIZE) - set(CODES)))
def test_dtypes_paddle_cannot_load(tmp_path: Path, dtype: str) -> None:
    with (
        (tmp_path / "w").open("wb", buffering=0) as file,
        pytest.raises(ConvertError, match=f"'w' is {dtype}"),
    ):
        PdparamsWriter(file, [Tensor("w", (), dtype)], {})


@pytest.mark.parametrize(("name", "reason"), [(SPLIT_TABLE, "keeps for itself"), ("\ud800", "not valid Unicode")])
def test_names_that_cannot_be_written(tmp_path: Path, name: str, reason: str) -> None:
    with (tmp_path / "w").open("wb", buffering=0) as file, pytest.raises(ConvertError, match=reason):
        PdparamsWriter(file, [Tensor(name, (), "float32")], {})


def test_over_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.pdparams"
    items = write_large(path, PdparamsWriter)
    with PdparamsReader(path) as reader:
        assert list(reader.tensors.values()) == items
        assert reader.read("large", items[0].nbytes - 8, items[0].nbytes) == b"\0\0\0\0last"
        assert reader.read("after") == b"behind the 4"


# --------------------------------------------------------------------------------------------------- opening, fuzzing


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_opening_reads_no_payload(tmp_path: Path, protocol: int) -> None:
    path = dump(tmp_path / "w.pdparams", {f"w{i}": np.zeros(5_000_000, np.float32) for i in range(3)}, protocol)
    tracemalloc.start()
    try:
        with PdparamsReader(path) as reader:
            assert len(reader.tensors) == 3
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
            assert reader.read("w2", 0, 4) == bytes(4)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_opening_imports_little(tmp_path: Path) -> None:
    path = dump(tmp_path / "w.pdparams", {"w": np.zeros(3, np.float32)})
    code = """
import sys
from convert.files.pickled.paddle import PdparamsReader
assert PdparamsReader(sys.argv[1]).read("w") == bytes(12)
print([name for name in ("numpy", "paddle", "pickle", "pickletools") if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_limit_on_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_TEXT", 1000)
    path = dump(tmp_path / "w.pdparams", {"a" * 400: np.zeros(1), "b" * 700: 1})
    with pytest.raises(FormatError, match="short texts"):
        PdparamsReader(path)


def test_long_texts_are_stepped_over(tmp_path: Path) -> None:
    same(dump(tmp_path / "w.pdparams", {"log": "x" * 10**6, "w": np.ones(3)}), {"w": np.ones(3)})


def test_sniffing() -> None:
    assert sniff(parts.pdparams(b"}"), "w") and sniff(pickle.dumps({}, 5), "w")
    assert not sniff(parts.legacy(b"}"), "w") and not sniff(parts.torch_zip(b"}"), "w")


GOOD = {
    protocol: pickle.dumps({"a": np.arange(6), "b": [np.ones((2, 2), order="F")]}, protocol) for protocol in PROTOCOLS
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_fuzz(protocol: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any damage gives FormatError, or a file that reads."""
    path = tmp_path_factory.getbasetemp() / f"fuzz-{protocol}.pdparams"
    path.write_bytes(damaged(data, GOOD[protocol]))
    try:
        with PdparamsReader(path) as reader:
            for name in reader.tensors:
                assert len(reader.read(name)) == reader.tensors[name].nbytes
    except FormatError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
