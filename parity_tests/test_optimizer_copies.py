"""What beside the weights is a copy of them, as an average is, and what only looks like one."""

import json

import numpy as np
import pytest

from convert.files.base import Tensor
from convert.plans.planning import plan
from specs import config as configs

from .conftest import needs
from .optimizing import config_of
from .test_optimizer_averages import SHAPES, TABLE, arrays
from .test_parts import arrays as numpy_arrays
from .test_parts import save
from .test_routes import write_numbers


def test_weights_with_a_word_of_averages_in_their_names_are_weights(run, tmp_path):
    needs("torch")
    import torch

    model = torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 2), "avg_0": torch.nn.Linear(2, 2)})
    sgd = torch.optim.SGD(model.named_parameters(), lr=0.5, momentum=0.5)
    model["avg_0"](model["fc"](torch.ones(1, 2))).sum().backward()
    sgd.step()
    saved = {"model": model.state_dict(), "optimizer": sgd.state_dict(), "ema": model.state_dict()}
    torch.save(saved, tmp_path / "m.pt")
    lines = (
        f"{name}.weight: o i <-> params/{name}/w: o i\n{name}.bias: o <-> params/{name}/b: o\n"
        for name in ("fc", "avg_{i}")
    )
    (tmp_path / "x.table").write_text("table 1\n" + "".join(lines))
    words = ["--table", tmp_path / "x.table", tmp_path / "m.pt", "--weights", "model", "--with-optimizer"]
    code, _, err = run(*words, "-o", tmp_path / "o.msgpack")
    assert code == 0, err
    assert (
        "ema -> ema_params" in err and {"params/avg_0/w", "ema_params/avg_0/w"} <= arrays(tmp_path / "o.msgpack").keys()
    )


def test_sums_of_paddle_static_are_named(run, tmp_path):
    """In the .pdopt, with the names that paddle.static.ExponentialMovingAverage gives them."""
    needs("paddle")
    import paddle

    (tmp_path / "net.table").write_text("table 1\nw: o <-> params/w: o\n")
    model = paddle.nn.ParameterDict({"w": paddle.create_parameter([2], "float32", name="p_0")})
    momentum = {f"p_0{end}": paddle.ones([2]) for end in ("_velocity_0", ".ema_tmp_0")}
    paddle.save(model.state_dict(), str(tmp_path / "m.pdparams"))
    paddle.save(momentum, str(tmp_path / "m.pdopt"))
    words = ["--table", tmp_path / "net.table", tmp_path / "m.pdparams", "-o", tmp_path / "o.msgpack"]
    code, _, err = run(*words, "--with-optimizer")
    assert code == 0, err
    assert "sums of paddle.static's ExponentialMovingAverage stay behind" in err and "p_0.ema_tmp_0" in err


def test_a_folder_above_a_copy_is_no_part_of_what_its_collections_share():
    """ema_params/ and ema_batch_stats/ are one copy, whatever the folder is called."""
    from convert.optimizer.copies import Copy, _family

    families = set()
    for collection in ("params", "batch_stats"):
        arrays = {f"{collection}/w": Tensor("w", (1,), "float32")}
        place = f"hyperparams_run/ema_{collection}/"
        families.add(_family(place, Copy(place, arrays, (), None, False, frozenset())))
    assert families == {"hyperparams_run/ema_/"}


@pytest.mark.parametrize("copied", ["model_ema/module._orig_mod.{}", "model_ema/{}", "LitEma"])
def test_commands_agree_on_what_is_a_copy(copied, run, tmp_path):
    """AveragedModel of a compiled model with few layers, and latent diffusion's LitEma, whose names have no dots."""
    needs("torch")
    import torch

    model = torch.nn.ModuleDict({name: torch.nn.Linear(*size) for name, size in SHAPES.items()})
    sgd = torch.optim.SGD(model.named_parameters(), lr=0.5, momentum=0.5)
    model["last"](model["first"](torch.ones(1, 3))).sum().backward()
    sgd.step()
    weights, average, place = model.state_dict(), {name: t + 1 for name, t in model.state_dict().items()}, "model_ema/"
    if copied == "LitEma":
        weights = {f"model.{name}": tensor for name, tensor in weights.items()}
        weights |= {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in average.items()}
        weights |= {"model_ema.decay": torch.tensor(0.5), "model_ema.num_updates": torch.tensor(3, dtype=torch.int32)}
        saved, part, place = {"state_dict": weights}, "state_dict/model.", "state_dict/model_ema."
    else:
        inside = {copied.partition("/")[2].format(name): tensor for name, tensor in average.items()}
        saved, part = {"model": weights, "model_ema": inside}, "model"
    torch.save({**saved, "optimizer": sgd.state_dict()}, tmp_path / "m.pt")
    about = json.loads(run("inspect", tmp_path / "m.pt", "--json")[1])
    assert {entry["name"] for entry in about["aside"]} == {"optimizer/", place}
    assert about["parameters"] == sum(tensor.numel() for tensor in average.values())
    (tmp_path / "net.table").write_text(TABLE)
    words = ["--table", tmp_path / "net.table", tmp_path / "m.pt", "--weights", part, "-o"]
    code, _, err = run(*words, tmp_path / "o.msgpack", "--with-optimizer")
    assert code == 0 and f"the average of the weights goes along: {place[:-1]}" in err, err
    assert "set aside" not in err
    got = numpy_arrays(tmp_path / "o.msgpack")
    np.testing.assert_array_equal(got["ema_params/last/kernel"], average["last.weight"].T)


def test_a_copy_of_few_running_statistics_is_one(tmp_path):
    """A Mobile-Former has ten times as many parameters as statistics: its average is read back all the same."""
    config = config_of("mobile_former")
    write_numbers(tmp_path / "w.msgpack", "mobile_former", config, "flax")
    weights = numpy_arrays(tmp_path / "w.msgpack")
    save(tmp_path / "m.msgpack", {**weights, **{f"ema_{name}": array for name, array in weights.items()}})
    with plan(tmp_path / "m.msgpack", settings=configs.as_dict(config)) as found:
        assert found.architecture == "mobile_former"
        assert {entry.name for entry in found.aside} == {"ema_params/", "ema_batch_stats/"}


EXCHANGED = {  # entries of a file of a tool that saves the average as state_dict, where it has the trained weights
    "mmengine": ({"meta": {"mmengine_version": "0.10.4"}}, "ema_state_dict", "module.", {"steps": 7}),
    "lightning": ({"averaging_state": {"n_averaged": 7}, "callbacks": {}}, "current_model_state", "", {}),
}


@pytest.mark.parametrize("tool", EXCHANGED)
def test_trained_weights_and_average_that_a_tool_exchanges(tool, run, tmp_path):
    """The average alone is converted with a note; a training goes on from the trained weights alone."""
    needs("torch")
    import torch

    entries, place, prefix, counts = EXCHANGED[tool]
    model = torch.nn.ModuleDict({name: torch.nn.Linear(*size) for name, size in SHAPES.items()})
    sgd = torch.optim.SGD(model.named_parameters(), lr=0.5, momentum=0.5)
    model["last"](model["first"](torch.ones(1, 3))).sum().backward()
    sgd.step()
    trained = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    as_tensors = {
        name: {n: torch.tensor(v) if n == "n_averaged" else v for n, v in x.items()} for name, x in entries.items()
    }
    trained |= {name: torch.tensor(value) for name, value in counts.items()}
    average = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    torch.save({**as_tensors, "state_dict": average, place: trained, "optimizer": sgd.state_dict()}, tmp_path / "m.pt")
    (tmp_path / "net.table").write_text(TABLE)
    words = ["--table", tmp_path / "net.table", tmp_path / "m.pt", "-o"]
    code, _, err = run(*words, tmp_path / "a.msgpack", "--weights", "state_dict")
    assert code == 0 and f"took the average (--weights {place} takes the others)" in err, err
    code, _, err = run(*words, tmp_path / "o.msgpack", "--weights", "state_dict", "--with-optimizer")
    assert code == 2 and f"--weights {place} takes these, and the average goes along" in err, err
    chosen = place if not prefix else f"{place}/{prefix}"
    code, _, err = run(*words, tmp_path / "o.msgpack", "--weights", chosen, "--with-optimizer")
    assert code == 0 and "the average of the weights goes along: state_dict -> ema_params" in err, err
    assert "its count of 7 averages" in err
    got, weights = numpy_arrays(tmp_path / "o.msgpack"), model.state_dict()
    np.testing.assert_array_equal(got["params/last/kernel"], weights["last.weight"].T)
    np.testing.assert_array_equal(got["ema_params/last/kernel"], average["last.weight"].T)


def test_of_models_in_a_list_none_is_taken_before_the_others(run, tmp_path):
    """As an ensemble is saved. In a tuple of weights and settings, the weights are meant."""
    from .test_recognition import nested

    for places, expected in ((["0"], 0), (["0", "1"], 2)):
        nested(tmp_path / "a.pth", places)
        code, _, err = run("timm2torch", tmp_path / "a.pth", "-o", tmp_path / "x.safetensors")
        assert code == expected, err
    assert "a model's names under each of '0', '1': say which, as in --weights 0" in err


@pytest.mark.parametrize("around", ["MultiSteps", "apply_if_finite"])
def test_the_state_within_one_of_optax_converts_as_the_refusal_says(around, run, tmp_path):
    needs("flax")
    import optax
    from flax.serialization import to_bytes

    params = {"w": np.ones((2, 3), "f4")}
    optimizer = getattr(optax, around)(optax.adam(0.1), 2)
    _, state = optimizer.update(params, optimizer.init(params), params)
    if around == "MultiSteps":
        _, state = optimizer.update(params, state, params)
        within = {"step": state.gradient_step, "opt_state": state.inner_opt_state}
        advice = "opt_state: opt_state.inner_opt_state} after the last of the steps that it accumulates"
    else:
        within = {"step": np.int32(1), "opt_state": state.inner_state}
        advice = "optax.apply_if_finite wraps the state of an optimizer: save {params, step, "
        advice += "opt_state: opt_state.inner_state}"
    (tmp_path / "x.table").write_text("table 1: flax <-> flax\nparams/w: i o <-> params/w: i o\n")
    (tmp_path / "whole.msgpack").write_bytes(to_bytes({"params": params, "step": 2, "opt_state": state}))
    (tmp_path / "within.msgpack").write_bytes(to_bytes({"params": params, **within}))
    words = ["--table", tmp_path / "x.table", "--with-optimizer", "--hyper", "kind=adam"]
    words += ["-o", tmp_path / "y.msgpack", "--dry-run"]
    code, _, err = run(*words, tmp_path / "whole.msgpack")
    assert code == 1 and f"{advice}, or leave --with-optimizer out" in err, err
    code, _, err = run(*words, tmp_path / "within.msgpack")
    assert code == 0 and "the optimizer's state after 1 step goes along" in err, err
