"""A port that is saved keeps its configuration, or is refused."""

import shutil
import warnings

import numpy as np
import pytest

import convert
import ports
import specs
from convert.errors import ConvertError, OpenFields, UsageError
from convert.files import open_checkpoint
from convert.records.record import at
from specs.config import as_dict
from specs.dialects import PORTS

from .commands import TIMM, listing
from .conftest import needs
from .test_assumed import MIXER, recorded

__all__ = ["recorded"]  # a fixture

FORMATS = [".safetensors", ".npz", ".pt", ".msgpack", ".pdparams", ".orbax", ".dcp"]


@pytest.mark.parametrize("framework", PORTS)
def test_a_saved_port_keeps_its_configuration(framework, run, tmp_path):
    needs(framework)
    port = ports.build("mlp_mixer", MIXER.tiny["tanh, ragged"], framework, seed=1, init="random", dtype="float64")
    images = np.random.default_rng(0).standard_normal((2, *MIXER.input_shape(port.config)))
    for suffix in FORMATS:
        path = tmp_path / f"x{suffix}"
        record = port.save(path)
        assert (record["config"], record["assumed"]) == (as_dict(port.config), [])
        assert run("verify", path)[0] == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = ports.load(path, framework, dtype="float64")
        assert again.config == port.config
        assert np.array_equal(again(images), port(images))


@pytest.mark.parametrize("framework", PORTS)
def test_a_bare_module_is_saved_with_a_configuration(framework, recorded, tmp_path):
    needs(framework)
    port = ports.load(recorded, framework, dtype="bfloat16")
    for config in (recorded, str(recorded), port.config, {"gelu": "tanh", "norm_eps": 1e-6}):
        ports.save(port.model, tmp_path / "x.msgpack", config=config, architecture="mlp_mixer", force=True)
        with open_checkpoint(tmp_path / "x.msgpack") as reader, open_checkpoint(recorded) as before:
            assert {tensor.size for tensor in reader.tensors.values()} == {t.size for t in before.tensors.values()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = ports.save(port.model, tmp_path / "y.safetensors")  # its modules state the rest
    assert (saved["config"]["gelu"], saved["config"]["norm_eps"], saved["assumed"]) == ("tanh", 1e-6, [])
    with open_checkpoint(tmp_path / "y.safetensors") as reader:
        assert {tensor.dtype for tensor in reader.tensors.values()} == {"bfloat16"}
    for wrong, message in (
        ({"architecture": "mlp_mixr"}, "did you mean 'mlp_mixer'"),
        ({"architecture": "convmixer", "config": port.config}, "the configuration is of an mlp_mixer"),
        ({"config": 3}, "neither a Config"),
        ({"config": {"gelu": "erf"}}, "gelu=erf was asked for; the modules? "),
    ):
        with pytest.raises(UsageError, match=message):
            ports.save(port.model, tmp_path / "z.pt", **wrong)
    assert not (tmp_path / "z.pt").exists()


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_module_that_was_changed_is_never_recorded_as_it_was(framework, recorded, tmp_path):
    """Its arrays are the same; the activation and the epsilons are not."""
    needs(framework)
    nn = pytest.importorskip(f"{framework}.nn")
    for change, message in (
        (lambda mlp, norm: setattr(mlp, "act", nn.ReLU()), "another network than mlp_mixer\n  - ReLU where"),
        (lambda mlp, norm: setattr(mlp, "act", nn.GELU()), r"gelu=tanh .* and gelu=erf \(blocks.0.channel_mix.act\)"),
        (lambda mlp, norm: vars(norm).update(eps=0.5, _epsilon=0.5), "norm_eps=0.5 "),
    ):
        port = ports.load(recorded, framework)
        change(port.model.blocks[0].channel_mix, port.model.norm)
        with pytest.raises(ConvertError, match=message):
            ports.save(port.model, tmp_path / "x.safetensors", config=recorded)
    assert not (tmp_path / "x.safetensors").exists()


def test_what_no_module_states_is_open(recorded, tmp_path):
    linen = pytest.importorskip("flax.linen")
    model = linen.Dense(1), ports.load(recorded, "flax").model[1]
    with pytest.raises(OpenFields, match="gelu is open"):
        ports.save(model, tmp_path / "x.msgpack")
    assert ports.save(model, tmp_path / "x.msgpack", assume=True)["assumed"] == ["gelu", "norm_eps"]


def test_saving_is_whole_or_not_at_all(recorded, tmp_path):
    needs("torch")
    port = ports.load(recorded, "torch")
    shutil.copy(recorded, tmp_path / "there.safetensors")
    before = (tmp_path / "there.safetensors").read_bytes()
    with pytest.raises(convert.errors.ConvertError, match=r"exists already \(force=True replaces it\)"):
        port.save(tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == before
    with pytest.raises(UsageError, match="no format has the suffix"):
        port.save(tmp_path / "x.h5")
    with pytest.raises(UsageError, match="is no model"):
        ports.save({"a": 1}, tmp_path / "x.pt")
    assert listing(tmp_path) == ["mixer.safetensors", "there.safetensors"]
    port.save(tmp_path / "there.safetensors", force=True)
    assert at(str(tmp_path / "there.safetensors")).content["source"]["format"] == "memory"


def test_a_model_without_values_is_not_saved(tmp_path):
    needs("torch")
    port = ports.build("mlp_mixer", "tiny S/16", "torch")
    with pytest.raises(ConvertError, match=r"\w+ is on the device meta, without values"):
        ports.save(port.model.to("meta"), tmp_path / "x.pt", config=port.config, architecture="mlp_mixer")
    assert not list(tmp_path.iterdir())


def test_a_port_with_another_head_is_saved_as_it_is(recorded, tmp_path):
    needs("torch")
    import torch

    port = ports.load(recorded, "torch")
    port.model.head = torch.nn.Linear(20, 3)
    assert port.save(tmp_path / "x.pt")["config"]["classes"] == 3


def test_what_a_model_has_beside_its_layers_is_named_when_it_is_saved(recorded, tmp_path):
    needs("torch")
    needs("flax")
    import torch

    port = ports.load(recorded, "torch")
    port.model.register_buffer("step", torch.ones(3))
    port.model.head.bias.data[1] = float("nan")
    with pytest.warns(UserWarning) as warned:
        port.save(tmp_path / "x.pt")
    said = [str(warning.message) for warning in warned]
    assert any(r"set aside step float32 [3]" in line for line in said)
    assert any("NaNs or infinities (1) in head.bias" in line for line in said)
    module, variables = ports.load(recorded, "flax").model
    with pytest.warns(UserWarning, match="set aside opt_state/"):
        ports.save((module, {**variables, "opt_state": variables["params"]}), tmp_path / "x.msgpack", config=recorded)


def test_a_model_with_the_names_of_another_code_base_is_not_saved(recorded, tmp_path):
    """The remedy is a call that exists: its own framework writes it, and that file is loaded and converted."""
    needs("torch")
    import torch

    model = torch.nn.Module()
    for name, array in torch.load(TIMM).items():
        at, (*above, last) = model, name.split(".")
        for level in above:
            if level not in dict(at.named_children()):
                at.add_module(level, torch.nn.Module())
            at = at.get_submodule(level)
        at.register_parameter(last, torch.nn.Parameter(array))
    with pytest.raises(convert.errors.ConvertError) as refused:
        ports.save(model, tmp_path / "x.pt", config=recorded)
    said = str(refused.value)
    assert "every array fits as timm, and ports.save knows the names of our ports alone" in said and "src=" not in said
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert 'torch.save(model.state_dict(), "model.pt"), which ports.load and python -m convert timm2torch read' in said
    with pytest.warns(UserWarning, match="as timm's own code computes"):
        assert ports.load(tmp_path / "model.pt", "torch", assume=True).architecture == "mlp_mixer"


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_port_whose_modules_were_changed_is_not_recorded_as_it_was(framework, tmp_path):
    """Its configuration says another epsilon than it computes with; another head, dtype or mode is no such change."""
    needs(framework)
    port = ports.build("mlp_mixer", next(iter(specs.get("mlp_mixer").tiny.values())), framework=framework, seed=0)
    port.model.train()
    port.with_dtype("float64").save(tmp_path / "same.safetensors")
    norm = port.model.blocks[0].norm1
    setattr(norm, "eps" if framework == "torch" else "_epsilon", 0.5)
    with pytest.raises(UsageError, match=r"those of its configuration: blocks.0.norm1.*0\.5.*, or undo"):
        port.save(tmp_path / "changed.safetensors")
    assert not (tmp_path / "changed.safetensors").exists()
