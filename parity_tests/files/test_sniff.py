"""What open_checkpoint makes of a file, and what opening and reading one costs."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from convert.errors import ConvertError, FormatError, UsageError
from convert.files import FORMATS, base, foreign, open_checkpoint, writer_for
from convert.files.base import Tensor
from parity_tests.files.samples import SMALL, payload, python, written

PLAIN = ("safetensors", "msgpack", "npz")


@pytest.mark.parametrize("name", PLAIN)
def test_the_format_is_read_off_the_bytes_and_not_the_suffix(tmp_path, name):
    for suffix in ("", ".txt", ".npz", ".pt", ".safetensors", ".msgpack"):
        with open_checkpoint(written(tmp_path / f"model{suffix}", name)) as reader:
            assert reader.format == name
            assert [bytes(reader.read(tensor.name)) for tensor in SMALL] == [payload(tensor) for tensor in SMALL]


def test_a_brace_at_the_ninth_byte_does_not_make_msgpack_safetensors(tmp_path):
    path = written(tmp_path / "model", "msgpack")
    path.write_bytes(b"\x82\xa6params\x7b" + path.read_bytes()[1:])  # {"params": 123, ...}
    with pytest.raises(FormatError):  # three entries where two were announced
        open_checkpoint(path)
    path.write_bytes(b"\x83" + path.read_bytes()[1:])
    with open_checkpoint(path) as reader:
        assert (reader.format, len(reader.tensors)) == ("msgpack", 3)


@pytest.mark.parametrize("length", [0x8B1F, 0xFFD8FF], ids=["gzip", "jpeg"])
def test_the_length_of_a_header_may_look_like_another_file(tmp_path, length):
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(length)
    path = tmp_path / "model"
    path.write_bytes(length.to_bytes(8, "little") + header + b"x")
    with open_checkpoint(path) as reader:
        assert (reader.format, reader.read("a")) == ("safetensors", b"x")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"compressed|picture"):
        open_checkpoint(path)


@pytest.mark.parametrize("member", ["e/archive_format", "serialized_exported_program.json"])
def test_a_program_of_torch_export_is_named(member, tmp_path):
    with zipfile.ZipFile(tmp_path / "e.pt2", "w") as file:
        file.writestr(member, "pt2")
        file.writestr("e/data/weights/weight_0", b"1234")
    with pytest.raises(FormatError, match=r"is a program of torch\.export \(save torch\.export\.load"):
        open_checkpoint(tmp_path / "e.pt2")


PROTOBUF = b"\xb0\xee\x03"  # a size of three bytes


@pytest.mark.parametrize(("data", "problem"), [
    (b"\x08\x0a\x12\x07pytorch\x1a\x062.13.0:\xd1\x01\n", "an ONNX program"),
    (b"\x08\x09:\xd1\x01\n\x1e\n\x05input", "an ONNX program"),
    (b"\x20\0\0\0TFL3\0\0\0\0\x14\0", "a program of TensorFlow Lite"),
    (b"\x08\x04\x12\xc3\x02\n\x2f\n\x05image\x1a\x26", "a program of Core ML"),
    (b"\x08\x01\x12" + PROTOBUF + b"\n\xd4\x1f\x12\xa5\x1f\n", "a SavedModel of TensorFlow"),
    (b"\n\x32\n\x05input\x12\x0bPlaceholder*\x0b", "a graph of TensorFlow"),
    (b"GGUF\x03\0\0\0", "a file of llama.cpp"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    *((pickle.dumps(value, protocol), "a pickle of protocol 0 or 1") for protocol in (0, 1)
      for value in ({"w": 1.5}, {}, [{"w": 1}], ({"w": 1}, 2), OrderedDict(w=1), np.ones(2, "f4"), np.float32(1))),
], ids=str)  # fmt: skip
def test_a_file_of_another_tool_is_named(data, problem, tmp_path):
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(FormatError, match=f"x.bin: is {re.escape(problem)}.* \\(.*(convert the|save|write it again)"):
        open_checkpoint(tmp_path / "x.bin")


def test_a_checkpoint_of_tensorflow_is_named(tmp_path):
    """By its prefix, each of its files, and its folder."""
    for end in ("index", "data-00000-of-00001"):
        (tmp_path / f"ckpt-5.{end}").write_bytes(b"\0")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-5"\n')
    problem = re.escape(
        f"is a checkpoint of TensorFlow (read it by reader = tf.train.load_checkpoint('{tmp_path}/ckpt-5'"
    )
    for path in (tmp_path, *(tmp_path / f"ckpt-5{end}" for end in ("", ".index", ".data-00000-of-00001"))):
        with pytest.raises(FormatError, match=problem):
            open_checkpoint(path)
    (tmp_path / "other.index").write_bytes(b"\0")
    with pytest.raises(FormatError, match="no known format"):
        open_checkpoint(tmp_path / "other.index")


def test_a_folder_and_a_zip_of_another_tool_are_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(FormatError, match=r"is a SavedModel of TensorFlow \(read its variables by tf.train.load"):
        open_checkpoint(tmp_path)
    with zipfile.ZipFile(tmp_path / "k.keras", "w") as file:
        file.writestr("model.weights.h5", b"\x89HDF")
    with pytest.raises(FormatError, match=r"is a \.keras file \(load it with keras\.models\.load_model"):
        open_checkpoint(tmp_path / "k.keras")


FRAMEWORKS = {"jax", "jaxlib", "flax", "torch", "paddle", "numpy", "msgpack", "ml_dtypes", "tensorstore"}
READ = """
import sys
from convert.files import open_checkpoint
with open_checkpoint(sys.argv[1]) as reader:
    for tensor in reader.tensors.values():
        for start in range(0, tensor.nbytes, 1 << 17):
            reader.read(tensor.name, start, min(start + (1 << 17), tensor.nbytes))
"""


@pytest.mark.parametrize("name", PLAIN)
def test_reading_imports_no_framework_and_only_the_module_of_its_format(tmp_path, name):
    _, *modules = python(READ, written(tmp_path / "model", name)).split()
    tops = {module.partition(".")[0] for module in modules}
    assert not tops & FRAMEWORKS
    others = {f"convert.files.{entry.module}" for entry in FORMATS} - {f"convert.files.{name}"}
    assert not others & set(modules)


@pytest.mark.parametrize("name", PLAIN)
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    sizes = {}
    for megabytes in (1, 200):
        tensor = Tensor("a", (megabytes, 1 << 18), "float32")
        path = tmp_path / f"{megabytes}"
        with path.open("wb", buffering=0) as file:
            writer = writer_for(f"x.{name}")(file, [tensor], {})
            writer.write(tensor, (bytes(1 << 17) for _ in range(megabytes * 8)))
            writer.finish()
        sizes[megabytes] = int(python(READ, path).split()[0])
    assert sizes[200] < sizes[1] + 4, sizes
    assert sizes[200] < 40, sizes  # 10 of them Python's own


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("data", [b"", b"\0" * 100, os.urandom(100)], ids=["nothing", "zeros", "noise"])
def test_the_reader_of_a_format_refuses_anything_else_by_itself(tmp_path, name, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    entry = next(entry for entry in FORMATS if entry.name == name)
    with pytest.raises(FormatError, match=re.escape(str(path))):
        entry.load(entry.reader)(path)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, problem in {
        tmp_path / "pipe": "is a pipe, socket or device", tmp_path / "folder": "is a folder",
        "/dev/zero": "is a pipe, socket or device", tmp_path / "missing": "no such file",
        tmp_path / "dangling": "is a link to no file", tmp_path / "loop": "symbolic links",
        tmp_path / "zero\0byte": "null byte", tmp_path / ("n" * 5000): "too long",
        tmp_path / "folder" / "x" / "y": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(FormatError, match=problem):
            open_checkpoint(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_that_may_not_be_read(tmp_path):
    path = written(tmp_path / "model", "npz")
    path.chmod(0)
    with pytest.raises(FormatError, match="may not be read"):
        open_checkpoint(path)


def test_a_permission_error_is_the_users_language(tmp_path, monkeypatch):
    path = written(tmp_path / "model", "npz")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FormatError, match="may not be read by this user"):
        open_checkpoint(path)


def test_no_file_stays_open(tmp_path):
    def opened():
        return len(os.listdir("/proc/self/fd"))

    before = opened()
    for index, name in enumerate(PLAIN):
        good = written(tmp_path / f"{index}", name)
        with open_checkpoint(good) as reader:
            assert opened() == before + 1
        reader.close()
        good.write_bytes(good.read_bytes()[:-1])
        with pytest.raises(FormatError):
            open_checkpoint(good)
    assert opened() == before


@pytest.mark.parametrize("chunks", [[b"123"], [b"1234", b"5"], []], ids=repr)
@pytest.mark.parametrize("name", PLAIN)
def test_a_payload_of_the_wrong_size_is_refused(name, chunks):
    tensor = Tensor("a", (), "float32")
    with pytest.raises(ConvertError, match="'a' has 4 bytes"):
        writer_for(f"x.{name}")(io.BytesIO(), [tensor], {}).write(tensor, chunks)


@pytest.mark.parametrize("name", PLAIN)
def test_order_and_completeness_are_checked(name, monkeypatch):
    items, make = [Tensor("a", (), "uint8"), Tensor("b", (), "uint8")], writer_for(f"x.{name}")
    writer = make(io.BytesIO(), items, {})
    with pytest.raises(ConvertError, match="not announced as the next"):
        writer.write(items[1], [b"x"])
    with pytest.raises(ConvertError, match="not announced as the next"):
        writer.write(Tensor("c", (), "uint8"), [b"x"])
    writer = make(io.BytesIO(), items, {})
    writer.write(items[0], [b"x"])
    with pytest.raises(ConvertError, match="'b' was announced and never written"):
        writer.finish()
    with pytest.raises(ConvertError, match="two tensors of one name"):
        make(io.BytesIO(), [items[0], items[0]], {})
    monkeypatch.setattr(base, "MAX_TENSORS", 1)
    with pytest.raises(ConvertError, match="too many for one file"):
        make(io.BytesIO(), items, {})


def test_the_suffix_picks_the_writer():
    for suffix, writer in {
        ".safetensors": "SafetensorsWriter",
        ".MSGPACK": "MsgpackWriter",
        ".flax": "MsgpackWriter",
        ".npz": "NpzWriter",
    }.items():
        assert writer_for(f"folder.x/model{suffix}").__name__ == writer
    with pytest.raises(UsageError, match=r"'\.h5'.*\.safetensors .*\.msgpack .*\.npz") as caught:
        writer_for("model.h5")
    assert caught.value.code == 2
    with pytest.raises(UsageError):
        writer_for("npz")


def test_every_row_of_the_table_loads():
    suffixes = [suffix for entry in FORMATS for suffix in entry.suffixes]
    assert len(suffixes) == len(set(suffixes))
    for entry in FORMATS:
        sharded = entry.name == "sharded"  # an index: safetensors underneath, and written by convert.execute
        assert entry.load(entry.reader).format == ("safetensors" if sharded else entry.name)
        assert sharded or entry.load(entry.writer).keeps_metadata == (entry.name == "safetensors")


def test_text_cut_within_a_character_is_still_text(tmp_path):
    for shift in range(4):
        path = tmp_path / "notes"
        path.write_bytes(b"x" * shift + "gewählt 😀 ".encode() * 200)
        with pytest.raises(FormatError, match="is text"):
            open_checkpoint(path)
    assert foreign.HEAD > 262
