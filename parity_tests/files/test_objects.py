"""Arrays beside objects of classes that are not here: read, and everything else named and not run."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convert
from convert.__main__ import main
from convert.errors import FormatError
from convert.files import open_checkpoint
from convert.files.pickled.tree import NO_STATE
from convert.files.skipped import NAMELESS
from convert.reading.spelling import out_of_modules
from parity_tests.commands import GOOGLE, TIMM
from parity_tests.conftest import needs
from parity_tests.files.pickle_parts import (
    PAYLOAD,
    call,
    dictionary,
    integer,
    pdparams,
    symbol,
    tensor,
    text,
    torch_zip,
)
from parity_tests.test_parts import arrays

PACKAGE = "somebodys_package"  # which is gone when the files are read
SOURCE = """
import collections
import enum
from collections import OrderedDict
class Ordered(OrderedDict): pass
class Config(dict): pass
class Values(list): pass
class Slots:
    __slots__ = ("a", "b")
class Ring:
    def __init__(self): self.parent, self.n = self, 3
class Mode(enum.Enum):
    TRAIN = 1
    def __reduce_ex__(self, protocol): return Mode, (1,)
class Format(str, enum.Enum):  # as timm's
    NCHW = "NCHW"
    def __reduce_ex__(self, protocol): return Format, ("NCHW",)
class Size(enum.Enum):
    SMALL = (16, 0.5)
    def __reduce_ex__(self, protocol): return Size, ((16, 0.5),)
class EarlyMode(enum.Enum):  # as Python 3.11.0 to 3.11.3 pickle every enum
    TRAIN = 1
    def __reduce_ex__(self, protocol): return getattr, (EarlyMode, "TRAIN")
class Plain:
    class Inner: pass  # which protocols 2 and 3 pickle as an attribute of Plain
State = collections.namedtuple("State", "count mu nu", module="somebodys_package")
"""


@pytest.fixture
def package() -> Any:
    module = types.ModuleType(PACKAGE)
    module.__dict__["__name__"] = PACKAGE
    sys.modules[PACKAGE] = module
    exec(SOURCE, module.__dict__)
    yield module
    del sys.modules[PACKAGE]


def objects(package: Any) -> dict[str, Any]:
    slots, plain = package.Slots(), package.Plain()
    slots.a, slots.b = 1, "x"
    plain.path, plain.inner, plain.items = pathlib.PurePosixPath("/x"), package.Config(a=1), [1, "a"]
    return {
        "config": package.Config(a=1, b=[1, 2]), "slots": slots, "ring": package.Ring(), "mode": package.Mode.TRAIN,
        "format": package.Format.NCHW, "size": package.Size.SMALL,
        "args": argparse.Namespace(lr=0.1, mode=package.Mode.TRAIN), "plain": plain, "values": package.Values([1, 2]),
        "kind": package.Plain, "number": np.float32(3), "inner": package.Plain.Inner(),
        "early": package.EarlyMode.TRAIN,
    }  # fmt: skip


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("wrap", ["Ordered", "Config", "Plain"])
def test_arrays_in_and_beside_objects(package: Any, protocol: int, wrap: str, tmp_path: Path) -> None:
    model = {"w": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "f4")}
    holder = getattr(package, wrap)()
    holder.update(model) if wrap != "Plain" else holder.__dict__.update(model)
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps({"model": holder, **objects(package)}, protocol))
    with open_checkpoint(path) as reader:
        assert set(reader.tensors) == {"model/w", "model/b", "number"}
        for name, array in model.items():
            assert bytes(reader.read(f"model/{name}")) == array.tobytes()
        named = {name: reason for reason, names in reader.skipped.names.items() for name in names}
    for name, kind in {"config": "Config", "slots": "Slots", "ring": "Ring", "mode": "Mode", "plain": "Plain",
                       "values": "Values", "args/mode": "Mode", "format": "Format",
                       "size": "Size", "inner": "Plain.Inner"}.items():  # fmt: skip
        assert named[name] == f"an object of {PACKAGE}.{kind}"
    assert named["kind"] == named["early"] == "a name of Python code" and named["args/lr"] == "plain numbers"


def test_a_named_tuple_has_no_names_for_its_fields_and_its_state_is_asked_for_by_name(
    package: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = package.State(np.int32(3), {"w": np.ones(2, "f4")}, {"w": np.ones(2, "f4")})
    with open_checkpoint(GOOGLE) as reader:
        weights = {name: np.ones(t.shape, "f4") for name, t in reader.tensors.items()}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"params": weights, "opt_state": (state,)}))
    with open_checkpoint(path) as reader:
        assert reader.skipped.names[NAMELESS] == ["opt_state/0"] and "opt_state/0/1/w" in reader.tensors
    words = [str(path), "--with-optimizer", "--hyper", "kind=adam", "--weights", "params", "-o", str(tmp_path / "x.pt")]
    assert main(["google2torch", *words]) == 1
    error = capsys.readouterr().err
    assert "the names of the fields of opt_state/0" in error and "save it by flax.serialization.to_bytes" in error


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_modules_that_were_pickled_whole(legacy: bool, tmp_path: Path) -> None:
    needs("torch")
    import torch

    state = torch.load(TIMM, weights_only=True)
    root = torch.nn.Module()
    for name, value in state.items():
        *levels, leaf = name.split(".")
        at = root
        for level in levels:
            if level not in at._modules:
                at.add_module(level, torch.nn.Module())
            at = at._modules[level]
        at.register_parameter(leaf, torch.nn.Parameter(value))
    for content in (root, {"model": root, "epoch": 3}):
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        with convert.plan(tmp_path / "x.pth", src="timm", dst="timm") as plan:
            for name, array in plan.arrays():
                np.testing.assert_array_equal(array, state[name].numpy())
            assert any("pickled modules" in note for note in plan.notes())
    with open_checkpoint(tmp_path / "x.pth") as reader:  # one line for all that torch's own modules say of themselves
        assert set(reader.skipped.names) == {"settings of pickled modules", "plain numbers"}
        assert reader.skipped.names["plain numbers"] == ["epoch"]


def test_tensors_of_a_pickled_module_that_its_state_dict_lacks(tmp_path: Path) -> None:
    needs("torch")
    import torch

    model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(2, 3), "fc": torch.nn.Linear(3, 2)})
    model.register_buffer("kept", torch.ones(2))
    model.register_buffer("mask", torch.ones(3, 3), persistent=False)
    model.strides, model.cache = [torch.ones(2)], {"a": {"b": torch.ones(1)}}
    torch.save({"model": model}, tmp_path / "x.pt")
    with open_checkpoint(tmp_path / "x.pt") as reader:
        names = {name.rpartition("/")[2] for name in reader.skipped.names[NO_STATE]}
        assert set(out_of_modules(reader).tensors) == {f"model/{name}" for name in model.state_dict()}
    assert names == {"mask", "strides", "cache", "_flat_weights"}


def test_jax_arrays_and_frozen_dicts(tmp_path: Path) -> None:
    needs("flax")
    import jax
    import jax.numpy as jnp
    from flax.core import FrozenDict
    from flax.traverse_util import unflatten_dict

    flat = arrays(GOOGLE)
    tree = unflatten_dict(flat, sep="/")
    path = tmp_path / "x.pkl"
    for protocol in (2, 4):
        for made in (
            {"params": jax.tree.map(jnp.asarray, tree)},
            FrozenDict({"params": jax.tree.map(jnp.asarray, tree)}),
        ):
            path.write_bytes(pickle.dumps(made, protocol))
            with convert.plan(path, src="google", dst="google") as plan:
                for name, array in plan.arrays():
                    np.testing.assert_array_equal(array, flat[name])
    path.write_bytes(pickle.dumps({"a": jnp.ones((2, 3), jnp.bfloat16), "b": np.ones(2, jnp.float8_e5m2)}))
    with open_checkpoint(path) as reader:
        assert [tensor.dtype for tensor in reader.tensors.values()] == ["bfloat16", "float8_e5m2"]
        assert bytes(reader.read("a")) == b"\x80\x3f" * 6


def _device(function: str, data: bytes, dtype: str, module: str = "torch._utils") -> bytes:
    return call(module, function, data, symbol("torch", dtype), text("xla:0"), b"\x89")


@pytest.mark.parametrize("function", ["_rebuild_xla_tensor", "_rebuild_device_tensor_from_numpy"])
def test_tensors_of_devices_without_storages(function: str, tmp_path: Path) -> None:
    from parity_tests.files.pickle_parts import array

    path = tmp_path / "x.pt"
    parameter = call("torch._utils", "_rebuild_parameter", _device(function, array(), "bfloat16"), b"\x88", b"}")
    values = {"w": _device(function, array(), "float32"), "p": parameter}
    values["c"] = _device("_rebuild_device_tensor_from_cpu_tensor", tensor(), "float32")
    path.write_bytes(torch_zip(dictionary([(text(name), value) for name, value in values.items()])))
    with open_checkpoint(path) as reader:
        assert {name: bytes(reader.read(name)) for name in reader.tensors} == dict.fromkeys("wpc", PAYLOAD)
    for bad in (
        _device(function, array(), "int8"),
        _device(function, text("w"), "float32"),
        _device(function, array(), "load"),
    ):
        path.write_bytes(torch_zip(dictionary([(text("w"), bad)])))
        with pytest.raises(FormatError, match="nothing was run"):
            open_checkpoint(path)


def test_tensors_of_an_npu(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    arguments = tensor()
    npu = arguments.replace(b"torch._utils", b"torch_npu.utils.storage").replace(
        b"_rebuild_tensor_v2", b"_rebuild_npu_tensor"
    )
    path.write_bytes(torch_zip(dictionary([(text("w"), npu)])))
    with open_checkpoint(path) as reader:
        assert bytes(reader.read("w")) == PAYLOAD


@pytest.mark.parametrize("protocol", (2, 4))  # protocol 2 has Python 2's names of range and str
def test_dates_paths_and_numbers_beside_arrays(protocol: int, tmp_path: Path) -> None:
    import datetime
    import decimal
    import uuid

    beside = {
        "zone": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), "id": uuid.UUID(int=5), "n": decimal.Decimal("1"),
        "range": range(3), "path": pathlib.PurePosixPath("/a"), "slice": slice(1), "type": str,
        "classes": np.array(["cat", "dog"]), "days": np.array(["2020-01-01"], "M8[D]"),
        "random": np.random.default_rng(0), "dots": ...,
    }  # fmt: skip
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps({"w": np.ones(2), **beside}, protocol))
    with open_checkpoint(path) as reader:
        assert list(reader.tensors) == ["w"]
        assert sum(reader.skipped.counts.values()) == len(beside)
        assert reader.skipped.names["an array of texts"] == ["classes"]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_arrays_of_numpy_s_subclasses_are_arrays(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "x.bin", "f4", "w+", shape=(2, 3))
    mapped[:] = np.arange(6).reshape(2, 3)
    arrays = {"matrix": np.matrix([[1.0, 2.0]]), "mapped": mapped}
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(arrays, 4))
    with open_checkpoint(tmp_path / "x.pdparams") as reader:
        for name, array in arrays.items():
            assert (reader.tensors[name].shape, bytes(reader.read(name))) == (array.shape, array.tobytes())


def test_objects_in_a_distributed_checkpoint_are_refused() -> None:
    """Only weights files: the directory of a folder has no use for objects of other classes."""
    import tempfile

    from convert.files.base import File
    from convert.files.pickled.interpreter import Unpickler
    from convert.files.pickled.sources import Cursor, Refused

    with tempfile.NamedTemporaryFile() as file:
        file.write(pdparams(symbol("my.config", "Config") + b")\x81" + integer(1) + b"b"))
        file.flush()
        opened = File(file.name)
        with pytest.raises(Refused, match=r"refers to my\.config\.Config"):
            Unpickler(Cursor(opened, 0, opened.size), {}).load()
        opened.close()
