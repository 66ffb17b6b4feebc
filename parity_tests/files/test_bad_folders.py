"""Orbax and DCP folders from strangers: damaged, misleading and hostile ones give one error and have no effect."""

import json
import os
import pickle

import numpy as np
import pytest

from convert.__main__ import main
from convert.errors import FormatError, UsageError
from convert.files import open_checkpoint
from convert.files.folders.tensorstore_process import Process
from convert.files.pickled.emit import dictionary, integers, symbol, text
from convert.records.verification import verify

from ..commands import GOOGLE, listing
from ..conftest import needs
from ..test_distributed import needs_module, script, suffix, translate  # noqa: F401  (suffix is a fixture)
from .harm import soon
from .pickle_parts import pdparams


@pytest.fixture
def dcp_folder(tmp_path):
    needs("torch")
    return translate(GOOGLE, tmp_path / "x.dcp", "torch")


def refused(folder, match, error=FormatError):
    """It is refused, with a message and no effect, when it is opened or read."""
    with pytest.raises(error, match=match), open_checkpoint(folder) as reader:
        for name in reader.tensors:
            reader.read(name)


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_a_hostile_metadata_is_not_run(dcp_folder, run, tmp_path):
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Evil(canary))
    metadata = (dcp_folder / ".metadata").read_bytes()
    inside = metadata[:-1] + b"\x85" + bomb[2 + 9 :]  # in a tuple, before a call, in the same pickle
    for hostile in (bomb, inside):
        (dcp_folder / ".metadata").write_bytes(hostile)
        refused(dcp_folder, "system, which no weights need; nothing was run")
        code, _, err = run("torch2flax", dcp_folder, "-o", tmp_path / "y.msgpack")
        assert code == 1
        assert ".metadata" in err
    assert not canary.exists()
    assert listing(tmp_path) == ["x.dcp"]
    pickle.loads(bomb)  # the canary does sing
    assert canary.exists()


def test_a_hostile_item_is_not_run(dcp_folder, tmp_path):
    canary, bomb = tmp_path / "canary", pickle.dumps(Evil(tmp_path / "canary"))
    (path,) = dcp_folder.glob("__0_0.distcp")
    path.write_bytes(bomb.ljust(path.stat().st_size, b"\0"))
    refused(dcp_folder, "__0_0.distcp")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_a_file_inside_of_a_checkpoint_leads_to_its_folder(name, dcp_folder):
    (path,) = dcp_folder.glob(name)
    refused(path, f"is a part of the dcp checkpoint {dcp_folder} .give the folder.")


def edited(folder, change):
    """Change the metadata as torch would write it."""
    with open(folder / ".metadata", "rb") as file:
        metadata = pickle.load(file)  # our own
    name = "blocks.0.channel_mix.fc1.weight"
    index = next(index for index in metadata.storage_data if index.fqn == name)
    change(metadata.state_dict_metadata[name], metadata.storage_data[index], metadata)
    with open(folder / ".metadata", "wb") as file:
        pickle.dump(metadata, file)


def size(*sizes):
    import torch

    return torch.Size(sizes)


def grow(tensor, info, metadata):
    tensor.size = tensor.chunks[0].sizes = size(1 << 20, 1 << 20)


def halve(tensor, info, metadata):
    tensor.size = tensor.chunks[0].sizes = size(18, 20)


def twice(tensor, info, metadata):
    tensor.chunks = tensor.chunks * 2


def lost(tensor, info, metadata):
    tensor.chunks[0].sizes = size(30, 20)


def other_dtype(tensor, info, metadata):
    import torch

    tensor.properties.dtype = torch.float16


def attribute(name, value):
    return lambda tensor, info, metadata: setattr(info, name, value)


DCP = {
    "outside the folder": attribute("relative_path", "../x.distcp"),
    "'/etc/passwd'": attribute("relative_path", "/etc/passwd"),
    "lacks its file 'none.distcp'": attribute("relative_path", "none.distcp"),
    "ends before byte": attribute("length", 1 << 40),
    "unknown way where": attribute("offset", -1),
    "fewer bytes than it needs": grow,
    "is not the part of": halve,
    "overlap or leave something out": twice,
    "leave something out": lost,
    "should be": other_dtype,
    "through an extension": attribute("transform_descriptors", ["zstd"]),
    "does not say where": lambda tensor, info, metadata: metadata.storage_data.clear(),
    "holds no tensors": lambda tensor, info, metadata: metadata.state_dict_metadata.clear(),
}


@pytest.mark.parametrize("message", DCP)
def test_bad_metadata_is_refused(dcp_folder, message):
    edited(dcp_folder, DCP[message])
    refused(dcp_folder, message)


METADATA = "torch.distributed.checkpoint.metadata"


def record(kind, *fields, module=METADATA):
    """A pickled object of torch's with these attributes."""
    return symbol(module, kind) + b")R" + dictionary((text(name), value) for name, value in fields) + b"b"


def many_attributes():
    """20,000 times the same two objects, one of which has 20,000 attributes before the ones that count."""
    index = record("MetadataIndex", *[("x", b"N")] * 20_000, ("fqn", text("t"))) + b"q\1"
    info = record("_StorageInfo", module="torch.distributed.checkpoint.filesystem") + b"q\2"
    return ("x", index), ("y", info), ("storage_data", b"}(" + b"h\1h\2" * 20_000 + b"u")


def shared_parts():
    """20,000 tensors that share 20,000 parts, each without an element."""
    none = record("ChunkStorageMetadata", ("offsets", integers([0])), ("sizes", integers([0])))
    properties = symbol(METADATA, "TensorProperties") + b")R(" + symbol("torch", "float32") + b"tb"
    tensor = record("TensorStorageMetadata", ("properties", properties), ("size", integers([0])),
                    ("chunks", b"](" + none + b"q\0" + b"h\0" * 20_000 + b"e"))  # fmt: skip
    tensors = b"}(" + text("t") + tensor + b"q\1" + b"".join(text(f"t{k}") + b"h\1" for k in range(20_000)) + b"u"
    return ("storage_data", b"}"), ("state_dict_metadata", tensors)


@pytest.mark.parametrize(("fields", "message"), [
    (many_attributes, "by over 64 attributes"), (shared_parts, "over 200,000 parts"),
], ids=["attributes", "parts"])  # fmt: skip
def test_metadata_that_takes_hours_is_refused_soon(fields, message, tmp_path):
    (tmp_path / ".metadata").write_bytes(pdparams(record("Metadata", *fields()), 2))
    with soon(message):
        refused(tmp_path, message)


def test_a_rank_without_elements_is_no_damage(dcp_folder):
    import torch.distributed.checkpoint.metadata as dcp

    nothing = dcp.ChunkStorageMetadata(size(36, 0), size(0, 20))
    edited(dcp_folder, lambda tensor, info, metadata: tensor.chunks.append(nothing))
    assert verify(str(dcp_folder)).problems == []


def test_intact_is_said_of_arrays_alone(dcp_folder, capsys):
    """A flipped bit in the date of a zip header, which nobody reads, changes none."""
    file = dcp_folder / "__0_0.distcp"
    held = bytearray(file.read_bytes())
    held[held.index(b"PK\x03\x04") + 12] ^= 1
    file.write_bytes(held)
    assert main(["verify", str(dcp_folder)]) == 0
    assert ": intact (names, shapes, dtypes and values of " in capsys.readouterr().out


def test_a_linked_payload_is_refused(dcp_folder, tmp_path):
    (dcp_folder / "__0_0.distcp").rename(tmp_path / "elsewhere")
    (dcp_folder / "__0_0.distcp").symlink_to(tmp_path / "elsewhere")
    refused(dcp_folder, "outside the folder")


def test_damage_to_payloads_is_found(suffix, tmp_path):  # noqa: F811
    folder = translate(GOOGLE, tmp_path / f"x{suffix}", "torch")
    large = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    held = large.read_bytes()
    cut = [held[: len(held) * eighths // 8] for eighths in range(1, 8)]  # where headers lie differs from run to run
    for damaged in (*cut, held[: len(held) // 2] + b"\xff\xaa" + held[len(held) // 2 + 2 :]):
        large.write_bytes(damaged)
        try:
            assert verify(str(folder)).problems
        except FormatError as error:
            assert str(folder) in str(error)
    large.unlink()
    refused(folder, str(folder))


@pytest.mark.parametrize("asked", ["use", "headers", "open"])
def test_a_database_that_ends_before_what_is_read_is_refused(asked, tmp_path, monkeypatch):
    """Orbax writes headers into one or another file of the database: what a cut one lacks differs from run to run."""
    needs_module("tensorstore", "orbax")
    folder = translate(GOOGLE, tmp_path / "x.orbax", "torch")
    call = Process.call

    def cut(self, what, **arguments):
        if what == asked:
            raise ValueError("OUT_OF_RANGE: Requested byte range [16948, 17112) is not valid for value of size 10101")
        return call(self, what, **arguments)

    monkeypatch.setattr(Process, "call", cut)
    refused(folder, "x.orbax: cannot be read: OUT_OF_RANGE")


@pytest.mark.parametrize("step", [1, 7])
def test_truncated_or_flipped_metadata_gives_one_error(dcp_folder, step):
    """At every place: an error of ours, or a folder that still reads (a flag that no one uses)."""
    path = dcp_folder / ".metadata"
    held = path.read_bytes()
    for at in range(0, len(held), len(held) // 150 + step):
        for damaged in (held[:at], held[:at] + bytes([held[at] ^ 1 << at % 8]) + held[at + 1 :]):
            path.write_bytes(damaged)
            try:
                open_checkpoint(dcp_folder).close()
            except FormatError as error:
                assert str(dcp_folder) in str(error)


@pytest.fixture
def orbax_folder(tmp_path):
    """In the layout of a folder an array."""
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    tree = {"a": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)}}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(tmp_path / "x", tree)
    return tmp_path / "x"


def rewrite(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def deep(folder):
    (folder / "_METADATA").write_text("[" * 100_000)


def two_of_one_place(folder):
    """List a leaf whose key is that of two levels of another: Orbax stores both as a.kernel, and one of them stays."""
    about = json.loads((folder / "_METADATA").read_text())
    leaves = about["tree_metadata"]
    nested = next(leaf for leaf in leaves.values() if [key["key"] for key in leaf["key_metadata"]] == ["a", "kernel"])
    leaves["('a.kernel',)"] = {**nested, "key_metadata": [{"key": "a.kernel", "key_type": 2}]}
    (folder / "_METADATA").write_text(json.dumps(about))


def without_metadata(folder):
    (folder / "_METADATA").unlink()
    (folder / "_sharding").write_text("{}")  # which Orbax writes beside the arrays, also without a database


ORBAX = {
    "stores 'a/kernel' and 'a.kernel' at one place, 'a.kernel'": two_of_one_place,
    "holds _sharding, a part of orbax checkpoints, and lacks _METADATA": without_metadata,
    "cannot be read as JSON": deep,
    "lists no tree": rewrite("_METADATA", "tree_metadata", "leaf_metadata"),
    "in an unknown way": rewrite("_METADATA", "value_metadata", "other"),
    "outside itself": rewrite("_METADATA", '"kernel", "key_type"', '"../../y", "key_type"'),
    "cannot be read": rewrite("_METADATA", '"kernel", "key_type"', '"colonel", "key_type"'),
    "'a/kernel' of at least 1,099,": rewrite("a.kernel/.zarray", '"shape":[3,4]', '"shape":[1099511627776,1]'),
    "chunk of 'a/kernel' of at least": rewrite("a.kernel/.zarray", '"chunks":[3,4]', '"chunks":[1099511627776,1]'),
    "'a/kernel' cannot be read": rewrite("a.kernel/.zarray", '"<f4"', '"|O"'),
    "has dtype int4": rewrite("a.kernel/.zarray", '"<f4"', '"int4"'),
    "it has 0 of its 1 chunks": lambda folder: (folder / "a.kernel" / "0.0").unlink(),
    "array 'a/kernel' cannot be": lambda folder: (folder / "a.kernel" / "0.0").write_bytes(b"damage"),
}


@pytest.mark.parametrize("message", ORBAX)
def test_bad_orbax_folders_are_refused(orbax_folder, message):
    ORBAX[message](orbax_folder)
    refused(orbax_folder, message)


def test_an_unfinished_orbax_folder_is_refused(orbax_folder):
    refused(orbax_folder.rename(f"{orbax_folder}.orbax-checkpoint-tmp-7"), "was never finished")


def test_a_missing_package_is_named(monkeypatch, orbax_folder, dcp_folder, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(orbax_folder, r"pip install .*orbax", UsageError)
    for ending, extra in [(".orbax", "orbax"), (".dcp", "torch")]:
        with pytest.raises(UsageError, match=rf"pip install .*{extra}"):
            translate(GOOGLE, tmp_path / f"y{ending}", "flax")
    assert not [name for name in listing(tmp_path) if name.startswith((".", "y"))]


IMPORTS = """
    import sys
    from convert.files import open_checkpoint
    with open_checkpoint(sys.argv[1]) as reader:
        for name in reader.tensors:
            reader.read(name)
    print(sorted(name for name in ("torch", "jax", "orbax", "flax", "tensorstore") if name in sys.modules))
"""


def test_reading_imports_no_framework(suffix, tmp_path):  # noqa: F811
    folder = translate(GOOGLE, tmp_path / f"x{suffix}", "torch")
    assert script(IMPORTS, folder).strip() == "[]"


def test_a_plain_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(FormatError, match="is a folder"):
        open_checkpoint(tmp_path)
