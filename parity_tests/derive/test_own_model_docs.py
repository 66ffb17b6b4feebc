"""docs/own-model.md does what it says: its files and commands are run as they stand there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specs.table import Table

from ..conftest import needs

PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"
FIELDS = PAGE.with_name("derive.md")


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def _commands() -> list[list[str]]:
    lines = re.findall(r"^    python -m convert (.*)$", PAGE.read_text(), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def _contains(text: str, block: str) -> bool:
    return all(line in text for line in block.strip().splitlines())


def _nnx_loads_targets(run: Any) -> None:
    """Convert a torch checkpoint into a file and a folder of Orbax, and load both as the page says."""
    import flax.serialization
    import jax
    import orbax.checkpoint
    import torch
    from flax import nnx

    names = {"nnx": nnx, "Path": Path, "flax": flax, "orbax": orbax, "jax": jax}
    model = _module("mlp.py").build()[0]
    torch.save(model.state_dict(), "mlp.pt")
    reading = re.findall(r"^    (arrays = (?:flax|orbax).*)$", PAGE.read_text(), re.MULTILINE)
    (replacing,) = re.findall(r"^    (nnx\.replace_by_pure_dict.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(reading) == 2
    for suffix, line in zip(("msgpack", "orbax"), reading, strict=True):
        code, out, err = run("--table", "mlp.table", "mlp.pt", "-o", f"converted.{suffix}")
        assert code == 0, out + err
        ours = _module("nnx_mlp.py").build()
        state = nnx.state(ours, nnx.Not(nnx.RngState))
        exec(f"{line}\n{replacing}", {**names, "state": state})
        nnx.update(ours, state)
        assert all(isinstance(array, jax.Array) for array in jax.tree.leaves(nnx.state(ours)))  # NumPy's are read-only
        assert np.array_equal(ours.up.kernel[...], model[0].weight.detach().numpy().T)


def _a_tree_goes_there_and_back(run: Any, commands: Iterator[list[str]]) -> None:
    """Derive a JAX function's Table, convert a torch checkpoint into its tree, load that, and convert back."""
    import jax
    import torch

    tree, save_tree = _module("tree_mlp.py"), _module("save_tree.py")
    model, (x,) = _module("mlp.py").build()
    torch.save(model.state_dict(), "mlp.pt")
    for _ in range(3):
        command = next(commands)
        code, out, err = run(*command)
        assert code == 0, (command, out, err)
    params = save_tree.load("tree.npz", tree.init(jax.random.key(1)))
    ours = model(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    assert np.allclose(ours, tree.forward(params, x.astype(np.float32)), atol=1e-6)  # float32, other order of sums
    save_tree.save("saved.npz", params)
    assert dict(np.load("saved.npz")).keys() == dict(np.load("tree.npz")).keys()
    again = torch.load("again.pt")
    assert all(torch.equal(again[name], array) for name, array in model.state_dict().items())


def test_the_page_leads_from_two_files_to_a_converted_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any
):
    needs("torch")
    needs("flax")
    import torch

    monkeypatch.chdir(tmp_path)
    for source in _blocks("python"):
        Path(source.split("\n", 1)[0].removeprefix("# ")).write_text(source)
    commands, outputs = iter(_commands()), iter(_blocks("output"))
    derive = next(commands)
    code, out, err = run(*derive)
    assert code == 1 and _contains(out, next(outputs)), out + err
    right = Path("right.py")
    right.write_text(right.read_text().replace("approximate=True", "approximate=False"))
    code, out, err = run(*derive, "--force")
    assert code == 0 and _contains(out, next(outputs)), out + err
    written = "".join(line for line in Path("vit.table").read_text().splitlines(True) if not line.startswith("#"))
    assert Table.parse(written).lines == Table.parse(_blocks("table")[0]).lines

    large = _module("left.py").ViT
    from safetensors.torch import save_file

    model = large(width=32, depth=3, heads=8)
    save_file(model.state_dict(), "large.safetensors")
    code, out, err = run(*next(commands))
    assert code == 2 and _contains(err, next(outputs)), out + err
    for _ in range(4):
        command = next(commands)
        code, out, err = run(*command)
        assert code == 0, (command, out, err)
    module = _module("right.py").ViT(width=32, depth=3, heads=8)
    from flax.serialization import msgpack_restore

    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    theirs = module.apply(msgpack_restore(Path("large.msgpack").read_bytes()), x.transpose(0, 2, 3, 1))
    assert np.allclose(model(torch.from_numpy(x)).detach().numpy(), theirs, atol=1e-5)  # float32, other order of sums

    code, out, err = run(*next(commands))
    assert code == 0 and Table.load("mlp.table").print().count("<->") == 4 + 1, out + err
    monkeypatch.syspath_prepend(tmp_path)
    trained = _module("load_torch.py").model.state_dict()
    assert all(torch.equal(trained[name], array) for name, array in model.state_dict().items())
    _module("run_both.py")
    _nnx_loads_targets(run)
    _module("compare_mlp.py")
    _a_tree_goes_there_and_back(run, commands)
    code, out, err = run(*next(commands))
    assert code == 0 and Table.load("same.table").print().count("<->") == 4 + 1, out + err

    Path("start.table").write_text("table 1\n2.weight: out in <-> down/kernel: in out\n")
    code, out, err = run(*next(commands))
    assert code == 0, out + err
    assert "2.weight: out in <-> down/kernel: in out" in Path("mlp.table").read_text()


def _module(path: str) -> Any:
    """A file as a module; linen's dataclasses look theirs up by name."""
    name = f"own_model_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fields_of_a_derivation_are_those_of_the_page() -> None:
    from parity.derive.findings.derivation import Derivation

    rows = re.findall(r"^\| (`d\..*?) \|", FIELDS.read_text(), re.MULTILINE)
    names = re.findall(r"`d\.(\w+)`", " ".join(rows))
    known = {*Derivation.__dataclass_fields__, *(name for kind in Derivation.__mro__ for name in vars(kind))}
    assert len(names) > 15 and not set(names) - known
