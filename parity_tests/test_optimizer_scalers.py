"""The loss scale of mixed precision goes on in another library by the call that a note prints."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pytest

from convert.files import open_checkpoint
from convert.optimizer import scalers

from .conftest import needs

FINITE = [True] * 7 + [False, True, False] + [True] * 11
STATE = {"scale": 64.0, "growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 5, "_growth_tracker": 3}


def of_torch(state):
    import torch

    scale, count = torch.tensor(state["scale"]), torch.tensor(state["_growth_tracker"], dtype=torch.int32)
    for finite in FINITE:
        factors = state["growth_factor"], state["backoff_factor"], state["growth_interval"]
        torch._amp_update_scale_(scale, count, torch.tensor(float(not finite)), *factors)
        yield scale.item()


def of_paddle(state):
    import paddle

    scaler = paddle.amp.GradScaler()
    scaler._enable = True  # which it is on a GPU alone
    scaler.load_state_dict(state)
    scaler._scale = scaler._scale.squeeze()  # paddle prints it as one number, which NumPy 2 refuses of an axis
    for finite in FINITE:
        scaler._cache_found_inf = not finite
        scaler._update()
        yield scaler._scale.item()


def of_flax(scaler):
    for finite in FINITE:
        scaler = scaler.value_and_grad(lambda x, finite=finite: x if finite else x * np.inf)(
            np.float32(1)
        ).dynamic_scale
        yield float(scaler.scale)


@pytest.fixture
def torch_file(tmp_path):
    needs("torch")
    import torch

    torch.save({"model": {"w": torch.ones(2)}, "optimizer": {}, "amp": STATE}, tmp_path / "t.pt")
    return tmp_path / "t.pt"


def argument(scaler, library):
    """Return what the call that a note prints loads, or for flax what it builds."""
    needs("flax" if library == "optax" else library)
    text = scaler.remark(library, "x").partition("): ")[2].partition(" goes on from it")[0]
    if library == "optax":
        import flax.training.dynamic_scale

        return eval(text, {"flax": flax})
    return eval(text.removeprefix("scaler.load_state_dict"))


def found(path):
    with open_checkpoint(str(path)) as reader:
        (scaler,) = scalers.find(reader)
    return scaler


@pytest.mark.filterwarnings("ignore::UserWarning")  # paddle's, of a CPU
def test_the_scale_of_torch_goes_on_alike_elsewhere(torch_file):
    """The scale grows and shrinks after the same steps: flax counts one step less."""
    scaler, expected = found(torch_file), list(of_torch(STATE))
    assert set(expected) == {64.0, 256.0, 1024.0} and expected[7] < expected[6]
    for library, scales in (("paddle", of_paddle), ("optax", of_flax)):
        assert list(scales(argument(scaler, library))) == expected, library


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_scale_of_paddle_goes_on_alike_in_torch(tmp_path, torch_file):
    needs("paddle")
    import paddle

    state = argument(found(torch_file), "paddle")
    saved = {**state, "scale": np.array(state["scale"], "float32")}
    paddle.save({"model": {"w": paddle.ones([2])}, "scaler": saved}, str(tmp_path / "p.pdparams"))
    scaler = found(tmp_path / "p.pdparams")
    assert argument(scaler, "torch") == STATE and "this one after each" not in scaler.remark("torch", "x")
    paddle.save({"scaler": {**saved, "use_dynamic_loss_scaling": False}}, str(tmp_path / "q.pdparams"))
    assert set(of_torch(argument(found(tmp_path / "q.pdparams"), "torch"))) == {64.0}
    assert "after 2 steps in a row" in scaler._replace(patience=2).remark("torch", "x")


@pytest.mark.parametrize("args", ["a dict", "a Namespace"])
def test_the_printed_call_loads_a_file_that_torch_refuses_by_default(args, tmp_path, monkeypatch):
    """As timm's checkpoints, whose `args` are a Namespace."""
    monkeypatch.chdir(tmp_path)
    needs("torch")
    import torch

    settings = {"lr": 1e-3}
    saved = {"args": settings if args == "a dict" else argparse.Namespace(**settings), "amp_scaler": STATE}
    torch.save({**saved, "w": torch.ones(2, dtype=torch.bfloat16), "p": torch.nn.Parameter(torch.ones(2))}, "x.pt")
    with open_checkpoint("x.pt") as reader:
        (scaler,) = scalers.find(reader)
        remark = scaler.remark("torch", "x.pt", reader.skipped.classes)
    call = remark.partition("scaler.load_state_dict(")[2].partition(") takes it from there")[0]
    assert eval(call, {"torch": torch}) == STATE
    assert ("if you trust the file, which names argparse.Namespace" in remark) == (args == "a Namespace")


def test_what_flax_does_not_store_is_open(tmp_path):
    needs("flax")
    import flax
    from flax.training.dynamic_scale import DynamicScale

    saved = {"params": {"w": np.ones(2)}, "dynamic_scale": flax.serialization.to_state_dict(DynamicScale(fin_steps=3))}
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.msgpack_serialize(saved))
    remark = found(tmp_path / "x.msgpack").remark("torch", "x")
    assert '(dynamic_scale): scaler.load_state_dict({"scale": 65536.0, "growth_factor": ?, ' in remark
    assert '"growth_interval": ?, "_growth_tracker": 3}) goes on from it' in remark


def test_the_page_names_the_entries_of_each_library():
    section = (Path(__file__).parent.parent / "docs" / "training.md").read_text().partition("\n## The loss scale of")[2]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)`", section.partition("\n## ")[0], re.MULTILINE)
    torch, paddle, flax = zip(*rows, strict=True)
    assert (torch, paddle, flax[:2]) == tuple(scalers.NAMES[name] for name in ("torch", "paddle", "optax"))
    assert all(f"{name}={{" in scalers.CALLS["optax"] for name in flax)


def test_entries_of_these_names_that_are_no_numbers_are_no_scaler(tmp_path):
    np.savez(tmp_path / "x.npz", **{f"scaler/{name}": np.ones(3) for name in scalers.NAMES["torch"]})
    with open_checkpoint(str(tmp_path / "x.npz")) as reader:
        assert list(scalers.find(reader)) == []
