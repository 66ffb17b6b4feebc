"""Tars of torch 0.1 against torch's own loader of them, and what is refused in them."""

from __future__ import annotations

import argparse
import collections
import io
import math
import os
import pickle
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.errors import FormatError
from convert.formats import open_checkpoint, torch_tar
from convert.formats.base import Tensor
from convert.formats.torchfile import TorchReader, sniff
from parity_tests.formats import corpus_tar as parts
from parity_tests.formats import samples
from parity_tests.formats.harm import damaged, soon
from parity_tests.formats.pickle_parts import CANARY, PAYLOAD, call, dictionary, signed, text
from parity_tests.formats.test_bad_plain import CHECK_MEMORY

torch = pytest.importorskip("torch", reason="the official loader of these files is not installed")

KINDS = {  # those of torch 0.1, by today's names
    "float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long", "int32": "Int", "int16": "Short",
    "int8": "Char", "uint8": "Byte",
}  # fmt: skip
ROOT = Path(__file__).parents[2]


def numbers(dtype: str, *shape: int) -> Any:
    """Random bits as a tensor."""
    data = samples.payload(Tensor(f"{dtype}{shape}", shape, dtype))
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype)).reshape(shape)


def saved(value: Any, cuda: bool = False) -> bytes:
    """What torch 0.1 made of nested values: tensors become keys, and storages are written once."""
    tensors: dict[int, Any] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> str | None:
            if type(obj) is not torch.Tensor:
                return None
            tensors[id(obj)] = obj
            return str(id(obj))

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(value)
    described, stored = [], dict[int, bytes]()
    for key, tensor in tensors.items():
        storage, kind = tensor.untyped_storage(), KINDS[str(tensor.dtype).removeprefix("torch.")]
        root, data = 2**40 + storage.data_ptr(), bytes(storage)
        where = text("cuda:0") if cuda else text("cpu")
        place = signed(root), ("torch", f"{kind}Storage"), len(data) // tensor.element_size(), where
        stored[root] = parts.storage(data, *place)
        layout = tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), signed(key), signed(root)
        described.append(parts.tensor(*layout, ("torch.cuda" if cuda else "torch", f"{kind}Tensor")))
    members = {"tensors": parts.tensors(*described), "storages": parts.storages(*stored.values())}
    return parts.checkpoint(pickle=out.getvalue(), **members)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """("/"-joined name, tensor) of nested values, the file's order."""
    items = vars(value) if isinstance(value, argparse.Namespace) else value
    if isinstance(items, torch.Tensor):
        yield name or "tensor", items
    elif isinstance(items, (dict, list, tuple)):
        for key, item in items.items() if isinstance(items, dict) else enumerate(items):
            yield from flat(item, f"{name}/{key}" if name else str(key))


def bits(value: Any) -> bytes:
    data: bytes = value.detach().numpy().tobytes()
    return data


def same(path: Path) -> dict[str, Any]:
    """Our reader finds what torch's own does, whole and by ranges: the tensors."""
    official = dict(flat(torch.load(path, map_location="cpu", weights_only=False)))
    with open_checkpoint(path) as reader:
        assert reader.format == "torch"
        assert list(reader.tensors) == list(official)
        for name, value in official.items():
            found, data = reader.tensors[name], bits(value)
            assert (found.shape, f"torch.{found.dtype}") == (tuple(value.shape), str(value.dtype))
            assert bytes(reader.read(name)) == data
            assert b"".join(reader.read(name, at, min(at + 5, len(data))) for at in range(0, len(data), 5)) == data
    return official


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "old.pth"
        path.write_bytes(data)
        return path

    return write


# -------------------------------------------------------------------------------- what torch's own loader makes of it


@pytest.mark.parametrize("cuda", [False, True])
def test_every_type(write, cuda):
    state = {
        f"{dtype}.{len(shape)}": numbers(dtype, *shape) for dtype in KINDS for shape in ((3,), (2, 5), (2, 1, 3, 4))
    }
    found = same(write(saved(state, cuda)))
    assert {name: bits(value) for name, value in found.items()} == {name: bits(value) for name, value in state.items()}


def test_views_of_shared_storages(write):
    whole = numbers("float32", 6, 8, 5)
    state = {
        "whole": whole, "again": whole, "transposed": whole.mT, "permuted": whole.permute(2, 0, 1), "row": whole[2],
        "column": whole[:, 3], "steps": whole[1::2, ::3, 4], "number": whole[5, 7, 4], "flat": whole.view(-1),
        "diagonal": whole[0].diagonal(), "end": whole[5, 7, 4:], "other": numbers("int8", 4)[::3], "none": whole[6:],
    }  # fmt: skip
    path = write(saved(state))
    found = same(path)
    assert {name: bits(value) for name, value in found.items()} == {name: bits(value) for name, value in state.items()}
    assert path.stat().st_size < 3 * whole.nbytes + 20_000  # storages are shared, or this tests nothing


def test_nested_values(write):
    rows = [numbers("float32", 3, 2), numbers("float64", 4), numbers("int16", 1)]
    state = collections.OrderedDict([("conv.weight", rows[0]), ("conv.bias", rows[1])])
    value = {
        "state_dict": state, "epoch": 3, "best": 0.5, "arch": "alexnet", "none": None, "big": 2**70,
        "optimizer": {"state": {94_000: {"momentum_buffer": rows[2]}}, "param_groups": [{"lr": 0.1, "betas": (1, 2)}]},
        "args": argparse.Namespace(rate=0.1, mean=rows[1]), "list": [rows[2], (rows[0], "x")], "size": torch.Size([2]),
    }  # fmt: skip
    assert list(same(write(saved(value)))) == [
        "state_dict/conv.weight", "state_dict/conv.bias", "optimizer/state/94000/momentum_buffer", "args/mean",
        "list/0", "list/1/0",
    ]  # fmt: skip


def test_a_tensor_alone(write):
    assert list(same(write(saved(numbers("int8", 7))))) == ["tensor"]


def test_parameters_and_variables(write):
    """Both ways that Variables were pickled: called with the tensor, and made of nothing and told all they know."""
    hooks, kind = call("collections", "OrderedDict"), ("torch.nn.parameter", "Parameter")
    state = {
        "plain": parts.refer(),
        "called": call(*kind, parts.refer()) + parts.row(b"\x88\x89", hooks) + b"b",
        "variable": call("torch.autograd.variable", "Variable", parts.refer()) + parts.row(b"\x89\x88", b"N") + b"b",
        "told": parts.symbol(*kind) + b")\x81" + parts.row(parts.refer(), b"N", hooks, b"\x88\x89") + b"b",
    }
    pickled = parts.dump(dictionary((text(name), value) for name, value in state.items()))
    found = same(write(parts.checkpoint(pickle=pickled)))
    assert {name: bits(value) for name, value in found.items()} == dict.fromkeys(state, PAYLOAD)


def test_storages_that_are_parts_of_others(write):
    part, inner = parts.VIEW, parts.VIEW + 1
    views = b"](" + parts.row(signed(part), signed(parts.ROOT), b"K\1", b"K\5")
    views += parts.row(signed(inner), signed(part), b"K\1", b"K\4") + b"e"
    layouts = [((2, 2), (2, 1), 1, signed(1), signed(part)), ((2, 2), (1, 2), 0, signed(2), signed(inner))]
    members = {
        "storages": parts.storages(parts.storage(), parts=views),
        "tensors": parts.tensors(parts.tensor(), *(parts.tensor(*layout) for layout in layouts)),
        "pickle": parts.dump(dictionary((text(f"w{key}"), parts.refer(key)) for key in (parts.WEIGHT, 1, 2))),
    }
    found = same(write(parts.checkpoint(**members)))
    assert bits(found["w1"]) == PAYLOAD[8:] and found["w2"].tolist() != found["w1"].tolist()


def test_texts_of_python_2(write):
    """They are bytes of no stated encoding."""

    def short(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    pickled = parts.dump(b"}" + short("w") + short(str(parts.WEIGHT)) + b"Qs")
    system = b"\x80\x02}(" + short("little_endian") + b"\x88" + short("protocol_version") + b"M\xe8\x03u."
    members = {"storages": parts.storages(parts.storage(location=short("cpu")))}
    assert list(same(write(parts.checkpoint(pickle=pickled, sys_info=system, **members)))) == ["w"]


def test_without_axes(write):
    """A number to the torch of today; to torch 0.1 an empty tensor, which had no storage."""
    number = parts.checkpoint(tensors=parts.tensors(parts.tensor((), (), 2)))
    assert bits(same(write(number))["w"]) == PAYLOAD[8:12]
    for root, storages in ((b"N", parts.storages()), (signed(parts.ROOT), parts.storages(parts.storage(b"")))):
        path = write(parts.checkpoint(tensors=parts.tensors(parts.tensor((), (), root=root)), storages=storages))
        with open_checkpoint(path) as reader:
            assert reader.tensors == {"w": Tensor("w", (0,), "float32")}
            assert reader.read("w") == b""


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_tars_that_python_wrote(write, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=kind) as archive:
        for name, data in parts.MEMBERS.items():
            about = tarfile.TarInfo(name)
            about.size, about.mtime, about.uname = len(data), 1484000000.25, "jürgen"  # type: ignore[assignment]
            archive.addfile(about, io.BytesIO(data))
    assert bits(same(write(out.getvalue()))["w"]) == PAYLOAD


def test_the_tars_of_the_corpus_are_those_of_python(write):
    path = write(parts.checkpoint())
    with tarfile.open(path) as archive:
        assert [(item.name, item.mtime) for item in archive] == [(name, 1484000000.25) for name in parts.MEMBERS]
        for name, data in parts.MEMBERS.items():
            member = archive.extractfile(name)
            assert member is not None and member.read() == data
    assert path.stat().st_size % tarfile.RECORDSIZE == 0
    assert bits(same(path)["w"]) == PAYLOAD


def test_a_size_in_an_extended_header_has_the_last_word(write):
    last = parts.MEMBERS["storages"]
    body = parts.extended("size", str(len(last))) + parts.header("storages", 0) + last + bytes(-len(last) % 512)
    others = [parts.member(name, data) for name, data in parts.MEMBERS.items() if name != "storages"]
    assert bits(same(write(parts.tar(*others, body)))["w"]) == PAYLOAD


def test_the_older_mark_of_a_plain_file(write):
    assert bits(same(write(parts.tar(*(parts.member(*item, b"\0") for item in parts.MEMBERS.items()))))["w"]) == PAYLOAD


SMALL = st.integers(0, 4)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(axes=st.lists(st.tuples(SMALL, SMALL), max_size=4), offset=SMALL)
def test_any_layout(axes: list[tuple[int, int]], offset: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What lies within the storage reads as torch's own loader has it; the rest is refused."""
    shape, strides = tuple(size for size, _ in axes), tuple(stride for _, stride in axes)
    path = tmp_path_factory.getbasetemp() / "layout.pt"
    data = parts.storage(samples.payload(Tensor("w", (100,), "float32")))
    item = parts.tensor(shape, strides, offset)
    path.write_bytes(parts.checkpoint(storages=parts.storages(data), tensors=parts.tensors(item)))
    reach = offset + sum((size - 1) * stride for size, stride in axes)
    if 0 in shape or (reach < 100 and math.prod(shape) <= 100):
        same(path)
    else:
        with pytest.raises(FormatError, match=r"its storage|a storage of only"):
            TorchReader(path)


def test_thousands_of_tensors(write):
    state = {str(index): torch.full((1,), index, dtype=torch.int32) for index in range(5000)}
    assert len(same(write(saved(state)))) == 5000


def test_over_eight_gigabytes(tmp_path):
    """More than 11 octal digits can say."""
    path, size = tmp_path / "large.pth", 2**31 + 5
    start = parts.dump(signed(1)) + parts.storage(b"", size=size)
    end = parts.dump(b"]")
    total = len(start) + 4 * size + len(end)
    described = parts.tensors(parts.tensor((size,), (1,)))
    head = [parts.member(n, d) for n, d in (parts.MEMBERS | {"tensors": described}).items() if n != "storages"]
    before = b"".join([*head, parts.extended("size", str(total)), parts.header("storages", 0), start])
    with path.open("wb") as file:
        file.write(before)
        file.seek(4 * size - 4, io.SEEK_CUR)
        file.write(b"last" + end + bytes(-total % 512) + bytes(1024))
    with open_checkpoint(path) as reader:
        assert reader.tensors["w"].shape == (size,)
        assert reader.read("w", 4 * size - 8) == b"\0\0\0\0last"


# --------------------------------------------------------------------------------------------------- what opening costs


def test_opening_reads_no_payload(write, monkeypatch):
    path = write(saved({f"w{index}": numbers("float32", 100, 1000) for index in range(3)}))
    sizes = samples.reads(monkeypatch)
    with TorchReader(path) as reader:
        assert sum(sizes) < 100_000
        reader.read("w1", 0, 10)
    assert sizes[-1] == 10


def test_opening_imports_little_and_other_files_nothing_of_this(write, tmp_path):
    code = """
import sys
from convert.formats import open_checkpoint
open_checkpoint(sys.argv[1]).close()
print([name for name in ("numpy", "torch", "tarfile", "pickle", "convert.formats.torch_tar") if name in sys.modules])
"""
    torch.save({"w": torch.zeros(3)}, tmp_path / "new.pt")
    for path, modules in {write(parts.checkpoint()): ["convert.formats.torch_tar"], tmp_path / "new.pt": []}.items():
        done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == f"{modules}\n"


# ------------------------------------------------------------------------------------------------------ which tars are


def test_the_format_is_read_off_the_bytes(write, tmp_path):
    for name in ("model", "model.txt", "model.npz", "model.tar", "model.pth.tar"):
        path = tmp_path / name
        path.write_bytes(parts.checkpoint())
        with open_checkpoint(path) as reader:
            assert reader.format == "torch"


def test_inspect(write):
    path = write(parts.checkpoint())
    command = [sys.executable, "-m", "convert", "inspect", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "torch" in done.stdout and re.search(r"\bw\b.*float32", done.stdout)


@pytest.mark.parametrize("suffix", [".tar", ".pth", ".npz", ""])
def test_other_tars_are_told_from_these(tmp_path, suffix):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("weights", "weights/model.bin"):
            archive.addfile(tarfile.TarInfo(name))
    path = tmp_path / f"other{suffix}"
    path.write_bytes(out.getvalue())
    assert not sniff(out.getvalue()[:512], str(path))
    with pytest.raises(FormatError, match=r"is a tar archive \(unpack it first"):
        open_checkpoint(path)
    with pytest.raises(FormatError, match=r"with a member 'weights', which torch 0\.1 does not write"):
        TorchReader(path)


# --------------------------------------------------------------------------------------------------------- bad files

CORPUS = list(parts.bad_files())


def check(name: str, data: bytes, reason: str, path: Path) -> None:
    path.write_bytes(data)
    with soon(name), pytest.raises(FormatError) as caught, TorchReader(path) as reader:
        for tensor in reader.tensors:
            reader.read(tensor)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(reason, message), message
    assert message.isprintable() and len(message) < 600


@pytest.mark.parametrize(("name", "data", "reason"), CORPUS, ids=[name for name, _, _ in CORPUS])
def test_bad_file(name, data, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(name, data, reason, tmp_path / "bad.pt")
    assert os.listdir(tmp_path) == ["bad.pt"]  # no canary, nothing unpacked


def test_there_are_many_bad_files():
    assert len({name for name, _, _ in CORPUS}) == len(CORPUS) >= 200


def test_the_canary_is_real(tmp_path, monkeypatch):
    """The official loader runs what these files say."""
    monkeypatch.chdir(tmp_path)
    (attack,) = (data for name, data, _ in CORPUS if name == "pickle-os.system")
    Path("bad.pt").write_bytes(attack)
    torch.load("bad.pt", weights_only=False)
    assert Path(CANARY).exists()


def test_bad_files_fit_into_little_memory(tmp_path):
    paths = [tmp_path / f"{name}.pt" for name, _, _ in CORPUS]
    for path, (_, data, _) in zip(paths, CORPUS, strict=True):
        path.write_bytes(data)
    assert int(samples.python(CHECK_MEMORY, *paths).split()[0]) < 100


def read_all(path: Path) -> None:
    with TorchReader(path) as reader:
        for name in reader.tensors:
            assert len(reader.read(name)) == reader.tensors[name].nbytes


@pytest.mark.parametrize("kind", ["tar", *parts.MEMBERS])
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_fuzz(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any damage, to the tar or to a member in a tar that is whole, gives FormatError or a file that reads."""
    good = parts.checkpoint().rstrip(b"\0") + bytes(1536) if kind == "tar" else parts.MEMBERS[kind]
    bad = damaged(data, good)
    path = tmp_path_factory.getbasetemp() / f"fuzz-{kind}.pt"
    path.write_bytes(bad if kind == "tar" else parts.checkpoint(**{kind: bad}))
    try:
        read_all(path)
    except FormatError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_fuzz_of_headers(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Headers damaged under a checksum that holds."""
    good = parts.checkpoint()
    at = good.index(data.draw(st.sampled_from(["././@Pax", *parts.MEMBERS])).encode())
    block = damaged(data, good[at : at + 512])[:512].ljust(512, b"\0")
    path = tmp_path_factory.getbasetemp() / "fuzz-header.pt"
    path.write_bytes(good[:at] + parts.summed(block) + good[at + 512 :])
    try:
        read_all(path)
    except FormatError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()


def test_what_stays_whole_under_the_fuzz_is_good(write):
    for data in (parts.checkpoint(), parts.checkpoint().rstrip(b"\0") + bytes(1536)):
        read_all(write(data))
    assert tuple(parts.MEMBERS) == torch_tar.MEMBERS
