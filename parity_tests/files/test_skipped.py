"""No reader drops an entry in silence: it records what is no tensor with name and reason, or refuses the file."""

from __future__ import annotations

import collections
import datetime
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.errors import FormatError
from convert.files import bounded_json, open_checkpoint
from convert.files.npz import NpzWriter
from convert.files.safetensors import SafetensorsWriter
from convert.files.skipped import MAX_SKIPPED, Skipped
from convert.folding import skipped
from parity_tests.commands import GOOGLE
from parity_tests.conftest import needs
from parity_tests.files import samples
from parity_tests.files.corpus_plain import PAYLOAD, array, string, tree
from parity_tests.test_distributed import needs_module, translate

NUMBER = "plain numbers"


def found(path: Path) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The arrays of a checkpoint, and the names of what its reader skipped by reason."""
    with open_checkpoint(path) as reader:
        arrays = {
            t.name: np.frombuffer(bytes(reader.read(t.name)), t.dtype).reshape(t.shape) for t in reader.tensors.values()
        }
        return arrays, reader.skipped.names


def test_safetensors(tmp_path: Path) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "triptych": "{}", "license": "mit"}}
    header["a"] = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1], "scale": 2}
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    assert found(tmp_path / "a.safetensors")[1] == {
        "a field of the header that the format does not define": ["a: scale"],
        "a text in the metadata": ["license"],
    }


def test_shards(tmp_path: Path) -> None:
    """Shards of an older conversion, and another model's file, lie beside those that the index lists."""
    names = [f"m-0000{k}-of-00002.safetensors" for k in (1, 2)]
    for name in [*names, "m-00003-of-00003.safetensors", "other.safetensors"]:
        samples.write(tmp_path / name, SafetensorsWriter, samples.SMALL[:1] if name == names[0] else samples.SMALL[1:])
    where = {t.name: names[k > 0] for k, t in enumerate(samples.SMALL)}
    index = {"metadata": {"total_size": 1, "by": "me"}, "weight_map": where, "aliases": {"x": "y"}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    arrays, others = found(tmp_path / "m.safetensors.index.json")
    assert list(arrays) == [t.name for t in samples.SMALL]
    assert others == {
        "a shard that the index does not list": ["m-00003-of-00003.safetensors"],
        "an entry of the index that is neither a tensor nor a size": ["aliases", "metadata: by"],
    }


def test_msgpack(tmp_path: Path) -> None:
    flax = pytest.importorskip("flax.serialization", reason="flax is not installed: pip install .[flax]")
    value = {
        "w": np.ones(2), "scale": 3.0, "flag": True, "minus": -1, "z": 1j, "name": "x", "raw": b"x", "none": None,
        "empty": {}, "exact": np.float32(2.5), "gda": "//GDAPlaceholder:w",
    }  # fmt: skip
    (tmp_path / "a.msgpack").write_bytes(flax.msgpack_serialize(value))
    arrays, others = found(tmp_path / "a.msgpack")
    assert sorted(arrays) == ["exact", "w"]
    assert (arrays["exact"].shape, arrays["exact"].dtype, arrays["exact"]) == ((), np.float32, 2.5)
    assert {reason: sorted(names) for reason, names in others.items()} == {
        NUMBER: ["flag", "minus", "scale", "z"], "a text": ["name"], "bytes": ["raw"],
        "a placeholder of an array that lies outside this file": ["gda"],
    }  # fmt: skip
    with open_checkpoint(tmp_path / "a.msgpack") as reader:
        assert reader.skipped.described("none") == "None"


def test_npz(tmp_path: Path) -> None:
    """A numpy scalar is an array of shape (); a text is set aside; a member that is no array refuses the file."""
    np.savez(tmp_path / "a.npz", w=np.ones(2), scale=np.float32(2.5))
    arrays, others = found(tmp_path / "a.npz")
    assert (arrays["scale"].shape, arrays["scale"], others) == ((), 2.5, {})
    np.savez(tmp_path / "t.npz", w=np.ones(2), note="hello", tags=np.array([b"a", b"bc"]))
    with open_checkpoint(tmp_path / "t.npz") as reader:
        assert (set(reader.tensors), reader.skipped.names) == ({"w"}, {"a text": ["note", "tags"]})
    np.savez(tmp_path / "only.npz", note="hello")
    with pytest.raises(FormatError, match="holds texts, and no array of numbers"):
        open_checkpoint(tmp_path / "only.npz")
    samples.write(tmp_path / "b.npz", NpzWriter, samples.SMALL)
    with zipfile.ZipFile(tmp_path / "b.npz", "a") as file:
        file.writestr("scale.txt", "3.0")
    with pytest.raises(FormatError, match=r"'scale\.txt' that is no \.npy"):
        open_checkpoint(tmp_path / "b.npz")


def test_arrays_without_names_are_counted(tmp_path: Path) -> None:
    """equinox writes a .npy array for each leaf, behind each other: the first is not taken for the model."""
    for count, problem in ((1, "is one .npy array without a name"), (3, "is a series of 3 .npy arrays without names")):
        with open(tmp_path / "m.eqx", "wb") as file:
            for k in range(count):
                np.save(file, np.ones(k))
        (tmp_path / "line.eqx").write_bytes(b'{"width": 3}\n' + (tmp_path / "m.eqx").read_bytes())  # as its guide does
        for name in ("m.eqx", "line.eqx"):
            with pytest.raises(FormatError, match=problem):
                open_checkpoint(tmp_path / name)
    with open(tmp_path / "texts.npy", "wb") as file:
        np.save(file, np.ones(3))
        np.save(file, np.array(["a text"]))
    with pytest.raises(FormatError, match=r"is a series of 2 \.npy arrays without names"):
        open_checkpoint(tmp_path / "texts.npy")


PLAIN: dict[Any, Any] = {
    "logit_scale": 3.0, "epoch": 7, "arch": "x", "day": datetime.date(2020, 1, 1), "lr": [0.1, 0.2], "none": None,
    "empty": {}, "z": 1j, (1, 2): 5,
}  # fmt: skip
SKIPPED = {
    NUMBER: ["logit_scale", "epoch", "tuple", "z"], "a text": ["arch"], "a date": ["day"],
    "a list of numbers or texts": ["lr"],
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch(zipped: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install .[torch]")
    model = collections.OrderedDict(w=torch.ones(2), exact=np.float32(2.5), kind=torch.float32)
    model._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    attributed = torch.nn.Parameter(torch.ones(2))
    attributed.mask = torch.zeros(3)
    value = {**PLAIN, "model": model, "p": attributed, "storage": torch.zeros(5).untyped_storage()}
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    arrays, others = found(tmp_path / "a.pt")
    assert list(arrays) == ["model/w", "model/exact", "p"]
    assert (arrays["model/exact"].shape, arrays["model/exact"].dtype, arrays["model/exact"]) == ((), np.float32, 2.5)
    unused = others.pop("a member of the zip that no tensor uses" if zipped else "a storage that no tensor uses")
    assert len(unused) == 2  # of the mask, and the bare one
    assert others == {
        **SKIPPED, "a name of Python code": ["model/kind"], "attributes of a tensor object": ["p"],
        "a storage without a tensor": ["storage"],
    }  # fmt: skip


def test_an_attribute_of_a_state_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install .[torch]")
    model = collections.OrderedDict(w=torch.ones(2))
    model.ema = torch.zeros(2)  # type: ignore[attr-defined]
    torch.save({"model": model}, tmp_path / "a.pt")
    assert found(tmp_path / "a.pt")[1]["attributes of a dict object"] == ["model"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_pdparams(protocol: int, tmp_path: Path) -> None:
    value = {**PLAIN, "w": np.ones(2), "exact": np.float32(2.5), "StructuredToParameterName@@": {"w": "linear_0.w_0"}}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(value, protocol))
    arrays, others = found(tmp_path / "a.pdparams")
    assert list(arrays) == ["w", "exact"]
    assert (arrays["exact"].shape, arrays["exact"].dtype, arrays["exact"]) == ((), np.float32, 2.5)
    assert others == SKIPPED


def test_dcp(tmp_path: Path) -> None:
    needs("torch")
    import torch
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": {"w": torch.ones(2), "scale": 3.0}, "step": 3}, checkpoint_id=tmp_path / "x", no_dist=True)
    (tmp_path / "x" / "__1_0.distcp").write_bytes(b"another host's")
    arrays, others = found(tmp_path / "x")
    assert list(arrays) == ["model/w"]
    assert others == {
        "a pickled value that is no tensor": ["model/scale", "step"], "a file that nothing refers to": ["__1_0.distcp"],
    }  # fmt: skip


TREE: dict[str, Any] = {
    "params": {"a": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.ones(3, np.float32)}},
    "step": 7,
    "no": None,
}
NAMES = ["params/a/bias", "params/a/kernel", "step"]


def saved(folder: Path, ocdbt: bool = True, value: Any = TREE) -> Path:
    """A tree, stored by Orbax."""
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)) as checkpointer:
        checkpointer.save(folder, value)
    return folder


def aggregate(folder: Path, entries: bytes, names: tuple[str, ...] = ()) -> None:
    """Write a file `checkpoint`, and mark these leaves as the older Orbax did that wrote such files."""
    (folder / "checkpoint").write_bytes(entries)
    about = json.loads((folder / "_METADATA").read_text())
    for leaf in about["tree_metadata"].values():
        if "/".join(key["key"] for key in leaf["key_metadata"]) in names:
            leaf["value_metadata"]["skip_deserialize"] = True
    (folder / "_METADATA").write_text(json.dumps(about))


def stored(folder: Path, name: str, ocdbt: bool) -> str:
    """Delete a stored array, if a folder has one for it, and return the placeholder of its name."""
    if not ocdbt:
        shutil.rmtree(folder / name)
    return f"PLACEHOLDER://{name}"


@pytest.mark.parametrize("ocdbt", [True, False], ids=["ocdbt", "zarr"])
def test_what_an_orbax_folder_does_not_list(ocdbt: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", ocdbt)
    assert found(folder)[1] == {}
    about = json.loads((folder / "_METADATA").read_text())
    listed = {key: leaf for key, leaf in about["tree_metadata"].items() if "bias" not in key}
    (key,) = [key for key in listed if "step" in key]
    listed[key]["value_metadata"]["value_type"] = "my.Type"
    (folder / "_METADATA").write_text(json.dumps({**about, "tree_metadata": listed, "custom_metadata": {"a": 1}}))
    (folder / "notes.txt").write_text("x")
    arrays, others = found(folder)
    assert list(arrays) == ["params/a/kernel"]
    where = "an array that the tree does not list" if ocdbt else "a folder that nothing refers to"
    assert others == {
        "a leaf of a kind that is not known": ["step"],
        "an entry that describes no array": ["_METADATA: custom_metadata"],
        "a file that nothing refers to": ["notes.txt"], where: ["params.a.bias", "step"],
    }  # fmt: skip


def test_what_a_host_of_orbax_stored_and_the_main_database_lacks(tmp_path: Path) -> None:
    folder, other = saved(tmp_path / "x"), saved(tmp_path / "y", value={**TREE, "more": np.ones(2)})
    shutil.copytree(other / "ocdbt.process_0", folder / "ocdbt.process_1")
    (folder / "ocdbt.process_2").mkdir()
    arrays, others = found(folder)
    assert sorted(arrays) == NAMES
    assert others == {
        "an array of a host that the main database lacks": ["ocdbt.process_1/more"],
        "the database of a host, which cannot be read": ["ocdbt.process_2"],
    }


def test_an_item_of_a_step_beside_the_tree(tmp_path: Path) -> None:
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path / "x") as manager:
        manager.save(3, args=ocp.args.StandardSave(TREE))
    (tmp_path / "x" / "3" / "dataset").mkdir()
    arrays, others = found(tmp_path / "x" / "3")
    assert sorted(arrays) == NAMES
    assert others == {"a folder that nothing refers to": ["dataset"]}


@pytest.mark.parametrize("ocdbt", [True, False], ids=["ocdbt", "zarr"])
@pytest.mark.parametrize("metadata", [True, False], ids=["metadata", "without"])
def test_arrays_aggregated_by_orbax(ocdbt: bool, metadata: bool, tmp_path: Path) -> None:
    """One array lies in the file `checkpoint`, another one by itself; also where that file alone lists them."""
    flax = pytest.importorskip("flax.serialization", reason="flax is not installed: pip install .[flax]")
    folder = saved(tmp_path / "x", ocdbt)
    bias = np.full(3, 5, np.float32)  # others than the stored ones, so that it shows which are read
    inner = {"kernel": stored(folder, "params.a.kernel", True), "bias": bias}
    value = {"params": {"a": inner}, "step": 7, "no": None, "extra": np.ones(1)}
    aggregate(folder, flax.msgpack_serialize(value), ("params/a/bias", "step"))
    if not ocdbt:
        shutil.rmtree(folder / "params.a.bias")
        shutil.rmtree(folder / "step")
    if not metadata:
        (folder / "_METADATA").unlink()
    arrays, others = found(folder)
    assert sorted(arrays) == ["extra", "params/a/bias", "params/a/kernel"]
    np.testing.assert_array_equal(arrays["params/a/bias"], bias, strict=True)
    np.testing.assert_array_equal(arrays["params/a/kernel"], TREE["params"]["a"]["kernel"], strict=True)
    assert others.pop(NUMBER) == ["step"]
    shadowed = "an array that 'checkpoint' has as well, which Orbax reads instead"
    assert others == ({shadowed: ["params.a.bias"], "an array that the tree does not list": ["step"]} if ocdbt else {})


@pytest.mark.parametrize("metadata", [True, False], ids=["metadata", "alone"])
@pytest.mark.parametrize("inner", ["", "default"])
def test_a_folder_of_aggregated_arrays_alone(metadata: bool, inner: str, tmp_path: Path) -> None:
    """What flax.training.checkpoints wrote, and flax's guide of the time; read in any range."""
    folder = tmp_path / "checkpoint_3" / inner
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_bytes(tree(array()))
    if metadata:
        leaf = {"key_metadata": [{"key": "a", "key_type": 2}]}
        leaf["value_metadata"] = {"value_type": "jax.Array", "skip_deserialize": True}  # type: ignore[assignment]
        (folder / "_METADATA").write_text(json.dumps({"tree_metadata": {"('a',)": leaf}}))
    with open_checkpoint(tmp_path / "checkpoint_3") as reader:
        assert reader.format == "orbax"
        assert {name: t.shape for name, t in reader.tensors.items()} == {"a": (2, 3)}
        assert bytes(reader.read("a", 3, 20)) == PAYLOAD[3:20]


def test_aggregated_arrays_that_are_missing_or_elsewhere(tmp_path: Path) -> None:
    leaf = {"key_metadata": [{"key": "a"}], "value_metadata": {"value_type": "jax.Array", "skip_deserialize": True}}
    (tmp_path / "_METADATA").write_text(json.dumps({"tree_metadata": {"('a',)": leaf}}))
    with pytest.raises(FormatError, match="lacks the array 'a', which should be in its file 'checkpoint'"):
        open_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_bytes(tree(array(), b"\xa1b"))
    with pytest.raises(FormatError, match="lacks the array 'a'"):
        open_checkpoint(tmp_path)
    (tmp_path / "_METADATA").unlink()
    (tmp_path / "checkpoint").write_bytes(tree(string("PLACEHOLDER://../../b")))
    with pytest.raises(FormatError, match="has a placeholder"):
        open_checkpoint(tmp_path)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoint").symlink_to(tmp_path / "checkpoint")
    with pytest.raises(FormatError, match="has a link 'checkpoint': outside"):
        open_checkpoint(tmp_path / "linked")


def test_a_leaf_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(tree(array()))
    leaf = {"key_metadata": [{"key": "a"}], "value_metadata": {"value_type": "jax.Array"}}
    (tmp_path / "_METADATA").write_text(json.dumps({"tree_metadata": {"1": leaf, "2": leaf}}))
    with pytest.raises(FormatError, match="two tensors 'a'"):
        open_checkpoint(tmp_path)
    (tmp_path / "_METADATA").write_text('{"tree_metadata": {"1": 1, "1": 1}}')
    with pytest.raises(FormatError, match="the key '1' twice"):
        open_checkpoint(tmp_path)


def test_a_folder_of_tensorflow_is_no_orbax(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"\n')
    with pytest.raises(FormatError, match="is a folder"):
        open_checkpoint(tmp_path)


def test_commands_name_what_was_skipped(run: Any, tmp_path: Path) -> None:
    """The model lies in an aggregated file alone, with a number among its weights."""
    needs("torch")
    needs("flax")
    import flax.serialization

    translate(GOOGLE, tmp_path / "x.msgpack", "flax")
    weights = flax.serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    (tmp_path / "x").mkdir()
    state = {"epoch": 3, "params": {**weights.get("params", weights), "logit_scale": 3.0}}
    (tmp_path / "x" / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(state))
    line = f"set aside epoch, params/logit_scale ({NUMBER})"
    code, printed, _ = run("inspect", tmp_path / "x")
    assert (code, line.replace("aside ", "aside:    ") in printed) == (0, True)
    code, printed, notes = run("flax2torch", tmp_path / "x", "-o", tmp_path / "y.safetensors", "--assume", "--prove")
    proof = f"not covered by this proof, as no arrays of the model: {line.removeprefix('set aside ')}"
    assert (code, f"note: {line}" in notes, proof in printed) == (0, True, True)
    code, printed, _ = run("flax2torch", tmp_path / "x", "--assume", "--dry-run", "--json")
    assert json.loads(printed)["skipped"] == [f"epoch, params/logit_scale ({NUMBER})"]
    assert json.loads(printed)["config"]["classes"] == 7


def test_names_are_bounded_and_counted() -> None:
    entries = Skipped()
    for k in range(3 * MAX_SKIPPED):
        entries.add(f"blocks.{k}.scale", NUMBER)
    assert len(entries.names[NUMBER]) == MAX_SKIPPED
    both = Skipped()
    both.update(entries)
    both.update(entries)
    assert both.counts[NUMBER] == 6 * MAX_SKIPPED
    (line,) = skipped(entries)
    assert line == f"blocks.{{0..{MAX_SKIPPED - 1}}}.scale and {2 * MAX_SKIPPED:,} more ({NUMBER})"


def test_the_model_s_own_entries_come_first() -> None:
    entries = Skipped()
    for name in [*(f"opt/{letter}/lr" for letter in "abcdefg"), "epoch", "model/scale"]:
        entries.add(name, NUMBER)
    assert skipped(entries, "model") == [f"model/scale, opt/... (7), epoch ({NUMBER})"]


def test_json_repeats_no_key() -> None:
    with pytest.raises(ValueError, match="the key 'b' twice"):
        bounded_json.loads('{"a": 1, "b": [], "c": {}, "b": []}')
