"""diff --weights /: all that two files of one layout store."""

import copy
import json
import pickle
import re
import shlex

import numpy as np
import pytest

from .conftest import needs
from .optimizing import trained_mixer

ALL = "the same in all parts"


@pytest.fixture
def training(tmp_path):
    """Return a training checkpoint of a known architecture, its configuration, and what saves it with a change."""
    needs("torch")
    import torch

    path, config = trained_mixer(tmp_path)
    saved = torch.load(path)
    average = {f"module.{name}": tensor + 1 for name, tensor in saved["model"].items()}
    saved |= {"model_ema": {"n_averaged": torch.tensor(5), **average}, "epoch": 3}
    torch.save(saved, path)

    def changed(change):
        other = copy.deepcopy(saved)
        change(other)
        torch.save(other, tmp_path / "other.pt")
        return tmp_path / "other.pt"

    return path, config, changed


CHANGES = {
    "the model": lambda saved: saved["model"]["head.bias"].add_(1),
    "the average": lambda saved: saved["model_ema"]["module.head.bias"].add_(1),
    "the count of the average": lambda saved: saved["model_ema"]["n_averaged"].add_(1),
    "no count": lambda saved: saved["model_ema"].pop("n_averaged"),
    "no average": lambda saved: saved.pop("model_ema"),
    "a moment": lambda saved: saved["optimizer"]["state"][0]["exp_avg"].add_(1),
    "a step": lambda saved: saved["optimizer"]["state"][0]["step"].add_(1),
    "the decay": lambda saved: saved["optimizer"]["param_groups"][0].update(weight_decay=0.5),
    "no rate": lambda saved: saved["optimizer"]["param_groups"][0].pop("lr"),
    "no optimizer": lambda saved: saved.pop("optimizer"),
    "the epoch": lambda saved: saved.update(epoch=4),
    "a text": lambda saved: saved.update(arch="mine"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_in_any_part_is_a_difference(what, training, run):
    path, config, changed = training
    other = changed(CHANGES[what])
    for pair in ((path, other), (other, path)):
        code, printed, err = run("diff", *pair, "--weights", "/", "--config", config)
        assert code == 1 and printed.startswith("different: "), err


def test_all_parts_are_the_same_after_a_conversion_there_and_back(training, run, tmp_path):
    path, config, changed = training
    there, back = tmp_path / "there.msgpack", tmp_path / "back.pt"
    assert run("torch2flax", path, "-o", there, "--with-optimizer", "--config", config)[0] == 0
    words = "flax2torch", there, "-o", back, "--with-optimizer", "--hyper", "lr=0.0009765625"
    assert run(*words)[0] == 0
    code, printed, err = run("diff", path, back, "--weights", "/", "--config", config)
    assert (code, printed.splitlines()[0]) == (0, ALL), err
    code, printed, _ = run("diff", path, back, "--weights", "/", "--config", config, "--set", "gelu=tanh")
    assert code == 1 and printed.startswith("different: 1 setting\n")  # the record of one says otherwise
    assert "shows no mask" not in run(*words, "--force")[2]  # torch's groups would have shown it
    code, printed, err = run("diff", path, changed(lambda saved: None), "--weights", "/")
    assert code == 1 and printed.startswith("the same arrays; equal only if "), err
    opaque = changed(lambda saved: saved.update(made=complex(1, 2)))
    code, printed, err = run("diff", opaque, opaque, "--weights", "/", "--config", config)
    assert (code, printed.splitlines()[0]) == (0, f"{ALL}, except what is set aside"), err


def renamed(saved):
    saved["state_dict"] = {f"module.{name}": tensor for name, tensor in saved.pop("model").items()}
    average = {name.removeprefix("module."): tensor for name, tensor in saved.pop("model_ema").items()}
    saved["state_dict_ema"] = average


CHANGED = {
    "nothing": (lambda weights: None, ALL),
    "a value": (lambda weights: weights["module.head.bias"].add_(1), "different: the values of 1 array"),
    "a name": (
        lambda weights: weights.update({"module.classifier.bias": weights.pop("module.head.bias")}),
        "different: 1 array only in A and 1 array only in B",
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_weights_in_places_of_other_names_are_compared(what, training, run):
    path, config, changed = training
    change, verdict = CHANGED[what]
    saved = changed(lambda saved: saved.pop("model_ema")).rename(path.with_name("own.pt"))
    other = changed(lambda saved: (renamed(saved), saved.pop("state_dict_ema"), change(saved["state_dict"])))
    for pair in ((saved, other), (other, saved)):
        code, printed, err = run("diff", *pair, "--weights", "/", "--config", config)
        assert (code, printed.splitlines()[0]) == (verdict != ALL, verdict), err
        assert "the two files name the place of the weights otherwise" in err


def test_weights_and_their_average_in_places_of_other_names_are_compared(training, run):
    path, config, changed = training
    code, printed, err = run("diff", path, changed(renamed), "--weights", "/", "--config", config)
    assert (code, printed.splitlines()[0]) == (0, ALL), err
    assert "the place of the weights" in err and "the place of an average of the weights" in err


def test_the_state_of_an_optimizer_is_named_where_it_is_taken_for_weights(training, run, tmp_path):
    path, config, _ = training
    code, _, err = run("torch2flax", path, "--weights", "optimizer", "--config", config, "-o", tmp_path / "x.msgpack")
    remedy = "leave out --weights optimizer; --with-optimizer takes it along with the weights"
    assert code == 1 and f"{path}: 'optimizer/' is the state of an optimizer alone: {remedy}\n" in err
    code, _, err = run("diff", path, path, "--weights", "optimizer", "--config", config)
    assert (
        code == 0
        and f"{path}, its part optimizer, fits no architecture here, so arrays are compared by names: --config" in err
    )


def test_parts_of_two_layouts_are_refused(training, run, tmp_path):
    path, config, _ = training
    there = tmp_path / "there.msgpack"
    assert run("torch2flax", path, "-o", there, "--with-optimizer", "--config", config)[0] == 0
    code, printed, err = run("diff", path, there, "--weights", "/", "--config", config)
    what = (
        "--weights / compares all parts of files that are laid out alike, and most of their names differ: leave it out"
    )
    assert code == 2 and not printed and what in err


def test_all_parts_of_files_of_no_known_architecture_are_compared(run, tmp_path):
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    weights = {"net/w": np.ones(3), "net/b": np.ones(2), "other/w": np.ones(3)}
    np.savez(a, **weights, step=np.array(4))
    np.savez(b, **weights)
    assert run("diff", a, b)[0] == 0
    code, printed, _ = run("diff", a, b, "--weights", "/", "--json")
    (entry,) = json.loads(printed)["differences"]
    assert code == 1 and (entry["kind"], entry["tensor"]) == ("missing", "step")
    assert run("diff", a, a, "--weights", "/", "--weights", "/")[1].startswith(f"{ALL}\n")


def test_an_optimizer_beside_the_weights_is_compared_with_one_inside_the_other_file(run, tmp_path):
    """As paddle saves two files, and a conversion writes one: a note states the command."""
    weights = {"a.weight": np.ones((2, 3), "f4"), "a.bias": np.ones(3, "f4")}
    state = {f"linear_0.{name}_moment{k}_0": np.ones(2, "f4") for name in ("w_0", "b_0") for k in (1, 2)}
    one, two = tmp_path / "one.pdparams", tmp_path / "two.pdparams"
    one.write_bytes(pickle.dumps({"model": weights}, protocol=4))
    one.with_suffix(".pdopt").write_bytes(pickle.dumps(state, protocol=4))
    two.write_bytes(pickle.dumps({"model": weights, "optimizer": state}, protocol=4))
    for pair in ((one, two), (two, one)):
        code, _, err = run("diff", *pair, "--weights", "/")
        found = re.search(r"one.pdopt lies beside .*: python -m convert (diff .*) compares it\n", err)
        assert code == 1 and found, err
        code, printed, err = run(*shlex.split(found[1]))
        assert (code, printed.splitlines()[0]) == (0, "the same arrays"), err
    assert "lies beside" not in run("diff", one, one, "--weights", "/")[2]
