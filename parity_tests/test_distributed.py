"""Orbax and torch DCP folders: what the official tools write is read here, what is written here they restore."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import convert
import ports
import specs
from convert.errors import ConvertError, UsageError
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor

from .commands import GOOGLE, ROOT, python_path
from .conftest import needs, tiny
from .golden import Case
from .test_routes import contents

FOLDERS = (".orbax", ".dcp")


def needs_module(name: str, extra: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[{extra}]'")


@pytest.fixture(params=FOLDERS)
def suffix(request):
    """A folder format that can be written here."""
    needs_module("tensorstore", "orbax") if request.param == ".orbax" else needs("torch")
    return request.param


def translate(source, target, dst, src=None, **how):
    with convert.plan(source, src=src, dst=dst) as plan:
        plan.write(target, **how)
    return target


def script(code, *arguments, processes=1, cwd=ROOT, **environment):
    """Run code in fresh interpreters, at once; what the first one printed."""
    environment = {**os.environ, **python_path(), "OMP_NUM_THREADS": "1", **environment}
    words = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    started = [
        subprocess.Popen(words, cwd=cwd, env={**environment, "RANK": str(rank)}, stdout=-1, stderr=-1, text=True)
        for rank in range(processes)
    ]
    try:
        printed = [process.communicate(timeout=100) for process in started]
    finally:
        for process in started:
            process.kill()  # one that waits for another that failed
    for process, (_, err) in zip(started, printed, strict=True):
        assert process.returncode == 0, err
    return printed[0][0]


# There and back


@pytest.mark.parametrize(
    ("route", "through"),
    [("torch", ".dcp"), ("flax", ".orbax"), ("flax", ".dcp"), ("torch", ".orbax"), ("paddle", ".orbax")],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ports_go_there_and_back_bit_exactly(route, through, dtype, tmp_path):
    needs_module("tensorstore", "orbax") if through == ".orbax" else needs("torch")
    with convert.plan(GOOGLE, dst=route, dtype=dtype) as plan:
        plan.write(tmp_path / "start.safetensors")
    there = translate(tmp_path / "start.safetensors", tmp_path / f"there{through}", route)
    back = translate(there, tmp_path / "back.safetensors", route)
    assert contents(there) == contents(back) == contents(tmp_path / "start.safetensors")


def test_across_formats_and_frameworks(run, suffix, tmp_path):
    there = tmp_path / f"m{suffix}"
    assert run("google2torch" if suffix == ".dcp" else "google2flax", GOOGLE, "-o", there)[0] == 0
    code, printed, _ = run("flax2torch" if suffix == ".orbax" else "torch2flax", f"{there}/", "--json")  # beside it
    assert code == 0
    about = json.loads(printed)
    assert about["config"]["gelu"] == "tanh"  # the record travelled inside the folder
    assert Path(about["out"]).parent == tmp_path
    assert run("diff", GOOGLE, about["out"])[0] == run("diff", GOOGLE, there)[0] == 0


def test_a_running_port_out_of_a_folder(suffix, tmp_path):
    needs("torch")
    case = Case("flax_mixer")
    there = translate(GOOGLE, tmp_path / f"m{suffix}", "flax")
    logits = ports.load(there, framework="torch", dtype="float64")(case.images)
    assert np.abs(logits - case.logits).max() < 1e-12  # measured 1e-15


VALUES = [
    Tensor("a/scalar", (), "int64"), Tensor("a/half", (3, 5), "float16"), Tensor("b.brain", (7,), "bfloat16"),
    Tensor("a/eight", (4, 2), "float8_e4m3fn"), Tensor("double", (2, 3, 5), "float64"), Tensor("flag", (9,), "bool"),
    Tensor("complex", (2, 2), "complex64"), Tensor("a/bytes", (1, 1), "uint8"),
]  # fmt: skip


def test_every_dtype_and_shape(suffix, tmp_path, monkeypatch):
    if suffix == ".orbax":  # several chunks an array, the last one ragged, and several commits
        monkeypatch.setattr("convert.files.folders.orbax_writer.CHUNK", 8)
        monkeypatch.setattr("convert.files.folders.orbax_writer.BATCH", 40)
    folder = tmp_path / f"x{suffix}"
    payloads = write(folder, VALUES)
    with open_checkpoint(folder) as reader:
        assert {t.name: (t.shape, t.dtype) for t in reader.tensors.values()} == {
            t.name: (t.shape, t.dtype) for t in VALUES
        }
        for name, payload in payloads.items():
            assert bytes(reader.read(name)) == payload
            for start in range(len(payload)):
                assert bytes(reader.read(name, start, len(payload))) == payload[start:]
                assert bytes(reader.read(name, 0, start)) == payload[:start]


def write(folder, tensors, seed=0):
    """A folder of random bits; {name: payload}."""
    rng, payloads = np.random.default_rng(seed), {}
    folder.mkdir()
    with open(folder / "triptych.json", "w+b", buffering=0) as file:
        writer = writer_for(folder)(file, tensors, {})
        for tensor in tensors:
            payloads[tensor.name] = rng.integers(0, 2, tensor.nbytes, np.uint8).tobytes()  # a bool is 0 or 1
            writer.write(tensor, [payloads[tensor.name][:3], payloads[tensor.name][3:]])
        writer.finish()
    return payloads


def test_the_same_dcp_files_from_run_to_run(tmp_path):
    needs("torch")
    for name in "ab":
        write(tmp_path / f"{name}.dcp", VALUES)
    a, b = (stored(tmp_path / f"{name}.dcp") for name in "ab")
    assert a == b
    assert sum(map(len, a.values())) > sum(tensor.nbytes for tensor in VALUES)


def stored(folder):
    """{name: bytes} of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_orbax_refuses_what_it_cannot_hold(tmp_path):
    needs_module("tensorstore", "orbax")
    for number, names in enumerate([["a/b", "a.b"], ["a//b"], ["/a"]]):
        with pytest.raises(ConvertError, match="Orbax cannot hold"):
            write(tmp_path / f"{number}.orbax", [Tensor(name, (2,), "float32") for name in names])
    with pytest.raises(ConvertError, match="Orbax cannot hold"):
        write(tmp_path / "empty.orbax", [Tensor("a", (0, 3), "float32")])
    for number, names in enumerate([["a/b", "a/b/c"], ["a/b/c/d", "a/b"]]):  # orbax would restore one of the two
        with pytest.raises(ConvertError, match="is a tensor and holds"):
            write(tmp_path / f"within{number}.orbax", [Tensor(name, (2,), "float32") for name in names])
    with pytest.raises(UsageError, match="a folder is not written in shards"):
        translate(GOOGLE, tmp_path / "m.orbax", "flax", shard_size=100)


# What the official tools write


TREE = {
    "params": {"a": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)}, "list": [np.zeros(2), np.ones(3)]},
    "zeros": np.zeros((4, 4), np.float32),
    "step": 7,
    "nothing": None,
    "empty": {},
}


@pytest.mark.parametrize("layout", ["standard", "file a chunk", "zarr3", "zarr3 and ocdbt", "manager"])
def test_orbax_folders_are_read(layout, tmp_path):
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    folder, tree = tmp_path / "x", TREE
    if layout == "standard":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder, tree)
    elif layout == "manager":
        with ocp.CheckpointManager(folder) as manager:
            manager.save(3, args=ocp.args.StandardSave(tree))
        folder = folder / "3"
    else:
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt="ocdbt" in layout, use_zarr3="zarr3" in layout)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(folder, tree)
    with open_checkpoint(folder) as reader:
        found = {t.name: np.frombuffer(reader.read(t.name), t.dtype).reshape(t.shape) for t in reader.tensors.values()}
    expected = {
        "params/a/kernel": TREE["params"]["a"]["kernel"], "params/list/0": np.zeros(2), "params/list/1": np.ones(3),
        "zeros": TREE["zeros"], "step": np.array(7),
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=name != "step")


def test_standard_checkpointer_restores_ours(tmp_path):
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    payloads = write(tmp_path / "x.orbax", VALUES)
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(tmp_path / "x.orbax")
    for tensor in VALUES:
        leaf = tree
        for key in tensor.name.split("/"):
            leaf = leaf[key]
        leaf = np.asarray(leaf)
        assert (leaf.shape, leaf.dtype.name, leaf.tobytes()) == (tensor.shape, tensor.dtype, payloads[tensor.name])


def test_dcp_load_restores_ours(tmp_path):
    needs("torch")
    import torch
    import torch.distributed.checkpoint as dcp

    tensors = [*VALUES, Tensor("empty", (0, 3), "float32")]
    payloads = write(tmp_path / "x.dcp", tensors)
    state = {t.name: torch.empty(t.shape, dtype=getattr(torch, t.dtype)) for t in tensors}
    dcp.load(state, checkpoint_id=tmp_path / "x.dcp", no_dist=True)
    for tensor in tensors:
        assert bytes(state[tensor.name].reshape(-1).view(torch.uint8).numpy()) == payloads[tensor.name]


def test_dcp_folders_are_read(tmp_path):
    needs("torch")
    import torch
    import torch.distributed.checkpoint as dcp

    whole = torch.arange(12.0).reshape(3, 4)
    model = {"w.x": whole, "turned": whole.t(), "cut": torch.arange(100)[10:20], "b": whole.bfloat16()}
    rest = {"step": 3, "empty": torch.zeros(0, 3), "scalar": torch.tensor(5)}
    state = {"model": model, "optimizer": [torch.ones(2), "text"], **rest}
    dcp.save(state, checkpoint_id=tmp_path / "x", no_dist=True)
    found = contents(tmp_path / "x")
    assert {name: value[:2] for name, value in found.items()} == {
        "model/w.x": ((3, 4), "float32"), "model/turned": ((4, 3), "float32"), "model/cut": ((10,), "int64"),
        "model/b": ((3, 4), "bfloat16"), "optimizer/0": ((2,), "float32"), "empty": ((0, 3), "float32"),
        "scalar": ((), "int64"),
    }  # fmt: skip
    assert found["model/turned"][2] == whole.t().contiguous().numpy().tobytes()
    assert found["model/cut"][2] == np.arange(10, 20).tobytes()


def test_dcp_folders_of_early_python_3_11_are_read(tmp_path, monkeypatch):
    """Its pickles store a member of an enum, here the memory format, as `getattr(class, name)`."""
    needs("torch")
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING as FORMATS

    monkeypatch.setattr(FORMATS, "__reduce_ex__", lambda self, protocol: (getattr, (FORMATS, self.name)))
    dcp.save({"w": torch.ones(2, 3)}, checkpoint_id=tmp_path / "x", no_dist=True)
    assert b"getattr" in (tmp_path / "x" / ".metadata").read_bytes()
    assert contents(tmp_path / "x")["w"][:2] == ((2, 3), "float32")


@pytest.mark.parametrize("nesting", ["", "model", "app/model"])
def test_a_model_that_torch_saved_is_recognised(nesting, tmp_path):
    """It has no record, and the paddle port's arrays have the same names."""
    needs("torch")
    import torch.distributed.checkpoint as dcp

    state = dict(tiny("mlp_mixer", "B/16", "torch").model.state_dict())
    for key in reversed(nesting.split("/") if nesting else []):
        state = {key: state}
    dcp.save(state, checkpoint_id=tmp_path / "x", no_dist=True)
    assert_same_model(tmp_path / "x", "torch")


def test_a_model_that_orbax_saved_is_recognised(tmp_path):
    needs("flax")
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", tiny("mlp_mixer", "B/16", "flax").model.variables)
    assert_same_model(tmp_path / "x", "flax")


def assert_same_model(folder, dialect):
    """The folder holds the tiny twin, in whose own framework's layout its arrays are drawn alike for all."""
    expected = dict(ports.initial("mlp_mixer", specs.get("mlp_mixer").tiny["B/16"], "paddle", seed=1, init="random"))
    with convert.plan(folder, dst="paddle", assume=True) as plan:
        assert (plan.src, plan.architecture) == (dialect, "mlp_mixer")
        found = dict(plan.arrays())
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


# Engines restore it sharded

MESH = """
    import sys, numpy as np, jax, orbax.checkpoint as ocp
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    import ports
    plain, folder, images, out = sys.argv[1:]
    port = ports.load(plain, framework="flax", dtype="float64")
    assert jax.device_count() == 8
    mesh, sizes = Mesh(np.array(jax.devices()).reshape(4, 2), ("four", "two")), {"four": 4, "two": 2}
    def sharded(x):
        axes, free = [], dict(sizes)
        for n in x.shape:
            axes.append(next((name for name in free if n % free[name] == 0), None))
            free.pop(axes[-1], None)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))
    with ocp.StandardCheckpointer() as checkpointer:
        variables = checkpointer.restore(folder, jax.tree.map(sharded, port.model.variables))
    leaves = jax.tree.leaves(variables)
    assert all(len(x.sharding.device_set) == 8 for x in leaves)
    parts = [x.size // x.addressable_shards[0].data.size for x in leaves]
    assert parts.count(8) > 5 and parts.count(4) > 5, parts  # matrices lie on all devices, an eighth on each
    batch = NamedSharding(mesh, PartitionSpec(("four", "two")))  # an image a device, as engines split a batch
    x = jax.device_put(np.load(images).transpose(0, 2, 3, 1), batch)
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(port.model.module.apply)(variables, x)
    np.save(out, logits)
"""


def test_orbax_restores_into_a_sharded_mesh(tmp_path):
    needs("flax")
    needs_module("orbax.checkpoint", "dev")
    case, plain = Case("flax_mixer"), tmp_path / "m.safetensors"
    with convert.plan(GOOGLE, dst="flax", dtype="float64") as plan:
        plan.write(plain)
    translate(plain, tmp_path / "m.orbax", "flax")
    np.save(tmp_path / "images.npy", np.resize(case.images, (8, *case.images.shape[1:])).astype("f8"))
    script(MESH, plain, tmp_path / "m.orbax", tmp_path / "images.npy", tmp_path / "out.npy",
           XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")  # fmt: skip
    logits = np.load(tmp_path / "out.npy")
    assert logits.shape[0] == 8
    assert_same_logits(logits[: len(case.images)], ports.load(plain, framework="flax", dtype="float64"), case)


TWO = """
    import os, sys, numpy as np, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
    import ports
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", "file://" + os.path.abspath("store"), rank=rank, world_size=2)
    mesh, grid = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))

    full = torch.arange(35.0).reshape(5, 7)
    placed = {"rows": (full, mesh, [Shard(0)]), "columns": (full, mesh, [Shard(1)]),
              "both": (full, grid, [Shard(1), Shard(0)]), "copied": (full, mesh, [Replicate()]),
              "one": (full[:1], mesh, [Shard(0)])}
    dcp.save({name: distribute_tensor(*how) for name, how in placed.items()}, checkpoint_id="sharded")

    model = ports.load("m.safetensors", framework="torch", dtype="float64").model
    for parameter in model.parameters():
        parameter.data.zero_()  # every value has to come out of the folder
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    state = get_model_state_dict(model)
    assert all(isinstance(value, DTensor) for value in state.values())
    dcp.load(state, checkpoint_id="m.dcp")
    set_model_state_dict(model, state)
    with torch.no_grad():
        logits = model(torch.from_numpy(np.load("images.npy")))
    if rank == 0:
        np.save("out.npy", logits.numpy())
    dist.barrier()
    os._exit(0)  # threads of gloo's abort an ordinary exit now and then
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Let two processes save sharded tensors and restore a model; starting them takes 5 s. Return their folder."""
    needs("torch")
    folder = tmp_path_factory.mktemp("two")
    with convert.plan(GOOGLE, dst="torch", dtype="float64") as plan:
        plan.write(folder / "m.safetensors")
    translate(folder / "m.safetensors", folder / "m.dcp", "torch")
    np.save(folder / "images.npy", Case("flax_mixer").images.astype("f8"))
    script(TWO, processes=2, cwd=folder)
    return folder


def test_tensors_sharded_over_two_processes_are_read(two_processes):
    folder = two_processes / "sharded"
    assert len(list(folder.glob("*.distcp"))) == 2
    full = np.arange(35, dtype=np.float32).reshape(5, 7)
    with open_checkpoint(folder) as reader:
        assert reader.tensors.keys() == {"rows", "columns", "both", "one", "copied"}
        for name in reader.tensors:
            expected = full[:1].tobytes() if name == "one" else full.tobytes()
            assert bytes(reader.read(name)) == expected
            assert b"".join(bytes(reader.read(name, k, k + 4)) for k in range(0, len(expected), 4)) == expected


def test_dcp_restores_into_two_processes(two_processes):
    port = ports.load(two_processes / "m.safetensors", framework="torch", dtype="float64")
    assert_same_logits(np.load(two_processes / "out.npy"), port, Case("flax_mixer"))


def assert_same_logits(found, port, case):
    assert found.dtype == np.float64
    single = port(case.images.astype("f8"))
    assert np.abs(single).max() > 0.1
    assert np.abs(found - single).max() < 1e-12  # float64; other sums in another order, measured 1e-15
    assert np.abs(found - case.logits).max() < 1e-12
