"""Files with the state of an optimizer: formats, what is refused, what has to be stated, models of one's own."""

import json

import numpy as np
import pytest

from convert.errors import ConvertError, UsageError
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.optimizer import from_paddle
from convert.optimizer.powers import MOST, power, steps_of
from convert.reading import optimizers
from specs.numerals import exact

from .conftest import needs
from .optimizing import HYPER, Torch, batches, loading, save_config, save_one_step, trained_mixer

OPTIMIZER = "--with-optimizer"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny Mixer after 3 steps of torch's AdamW, and its configuration."""
    needs("torch")
    return trained_mixer(tmp_path_factory.mktemp("mixer"))


@pytest.fixture
def changed(trained, tmp_path):
    """Save the trained checkpoint otherwise; returns the words of a command that converts it."""
    import torch

    def save(change):
        saved = torch.load(trained[0])
        change(saved)
        torch.save(saved, tmp_path / "model.pt")
        return ["torch2flax", tmp_path / "model.pt", "-o", tmp_path / "out.msgpack", OPTIMIZER, "--config", trained[1]]

    return save


def group(**values):
    return lambda saved: saved["optimizer"]["param_groups"][0].update(values)


def state(change):
    """A change of every parameter's state."""

    def apply(saved):
        for entry in saved["optimizer"]["state"].values():
            change(entry)

    return apply


def grouped(**values):
    """Two groups of parameters."""

    def apply(saved):
        (first,) = saved["optimizer"]["param_groups"]
        half = len(first["params"]) // 2
        second = {**first, "params": first["params"][half:], **values}
        first["params"] = first["params"][:half]
        saved["optimizer"]["param_groups"].append(second)

    return apply


def swapped(saved):
    """Number two parameters of unlike shapes the other way round."""
    states = saved["optimizer"]["state"]
    states[0], states[1] = states[1], states[0]


def plain_sgd(saved):
    params = saved["optimizer"]["param_groups"][0]["params"]
    return {"lr": 0.5, "momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": 0, "params": params}


def test_a_part_that_the_target_has_too_is_not_called_lost(trained, run, tmp_path):
    """torch's `model` and a TrainState's `params` come back in a file with an optimizer, and not in one without."""
    there = tmp_path / "there.msgpack"
    assert run("torch2flax", trained[0], "-o", there, OPTIMIZER, "--config", trained[1])[0] == 0
    for route, name, *words in (
        ("flax2torch", "back.pt", OPTIMIZER), ("flax2torch", "alone.pt"), ("flax2flax", "same.msgpack", OPTIMIZER),
    ):  # fmt: skip
        code, _, err = run(route, there, "-o", tmp_path / name, *words)
        assert code == 0 and ("had them under" in err) is not bool(words), err
    import torch

    saved = torch.load(trained[0])
    torch.save({"net": saved["model"], "optimizer": saved["optimizer"]}, tmp_path / "net.pt")
    words = ["-o", tmp_path / "same.pt", OPTIMIZER, "--config", trained[1]]
    code, _, err = run("torch2torch", tmp_path / "net.pt", *words)
    assert code == 0 and "had them under 'net': they are written under 'model'" in err, err


REFUSED = {
    "amsgrad": (group(amsgrad=True), "amsgrad's maximum of second moments is converted to no library"),
    "maximize": (group(maximize=True), "maximize"),
    "its maximum": (state(lambda s: s.update(max_exp_avg_sq=s["exp_avg_sq"])), "max_exp_avg_sq"),
    "RAdam": (lambda saved: saved["optimizer"]["param_groups"][0].pop("amsgrad"), "param_groups have no amsgrad"),
    "RMSprop": (state(lambda s: (s.update(square_avg=s.pop("exp_avg")), s.pop("exp_avg_sq"))), "square_avg"),
    "other steps": (
        lambda saved: saved["optimizer"]["state"][0]["step"].add_(1),
        "updated differently often, and optax",
    ),
    "a group of its own": (grouped(lr=0.5), "2 groups number parameters in an order of their own"),
    "groups in an order of their own": (grouped(), "pass model.named_parameters()"),
    "another model's": (swapped, "the optimizer is another model's, or its parameters are in another order"),
    "fewer parameters": (
        lambda saved: saved["optimizer"]["param_groups"][0]["params"].pop(),
        "its optimizer has 31 parameters",
    ),
    "a state of no parameter": (
        lambda saved: saved["optimizer"]["state"].update({99: saved["optimizer"]["state"][0]}),
        "has a state of 99, which none of its groups lists",
    ),
    "a parameter twice": (
        lambda saved: saved["optimizer"]["param_groups"][0]["params"].__setitem__(1, 0),
        "lists a parameter twice",
    ),
    "too few names": (group(param_names=["stem.weight"]), "not all names"),
    "one moment of two": (
        lambda saved: saved["optimizer"]["state"][0].pop("exp_avg_sq"),
        "has exp_avg of stem.weight and no exp_avg_sq",
    ),
    "three betas": (group(betas=(0.75, 0.75, 0.75)), "no pair of betas"),
    "a text for a rate": (group(lr="fast"), "is 'fast': no number"),
    "no optimizer": (lambda saved: saved.pop("optimizer"), "has no state of an optimizer"),
    "SGD without momentum": (
        lambda saved: saved.update(optimizer={"state": {}, "param_groups": [plain_sgd(saved)]}),
        "its optimizer keeps no arrays: plain SGD keeps no state",
    ),
    "before the first step": (
        lambda saved: saved["optimizer"].update(state={}),
        "has no state yet, as before its first step, so that there is none to convert: leave --with-optimizer out",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_other_library_keeps_is_refused(what, changed, run, tmp_path):
    change, reason = REFUSED[what]
    code, out, err = run(*changed(change))
    assert (code, out) == (1, "")
    assert reason.replace("31", err.partition("has ")[2].partition(" ")[0]) in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_dampening_is_refused(changed, run):
    def sgd(saved):
        for entry in saved["optimizer"]["state"].values():
            entry["momentum_buffer"] = entry.pop("exp_avg")
            del entry["exp_avg_sq"], entry["step"]
        saved["optimizer"]["param_groups"][0].update(momentum=0.9, dampening=0.5, nesterov=False)

    code, _, err = run(*changed(sgd))
    assert code == 1 and "dampening=0.5" in err


def test_names_that_torch_stores_are_followed(changed, run, tmp_path):
    """In two groups alike, numbered in an order that is not the model's."""

    def named(saved):
        names = [name for name in saved["model"] if "num_batches" not in name]
        (first,) = saved["optimizer"]["param_groups"]
        order = [*range(1, len(names)), 0]
        states = saved["optimizer"]["state"]
        saved["optimizer"]["state"] = {number: states[index] for number, index in enumerate(order)}
        first["params"], first["param_names"] = [0, 1], [names[index] for index in order[:2]]
        second = {**first, "params": list(range(2, len(names))), "param_names": [names[index] for index in order[2:]]}
        saved["optimizer"]["param_groups"].append(second)

    assert run(*changed(lambda saved: None))[0] == 0
    with open_checkpoint(tmp_path / "out.msgpack") as reader:
        plain = {name: bytes(reader.read(name)) for name in reader.tensors}
    assert run(*changed(named), "--force")[0] == 0
    with open_checkpoint(tmp_path / "out.msgpack") as reader:
        assert {name: bytes(reader.read(name)) for name in reader.tensors} == plain


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_formats_without_room_are_refused(suffix, trained, run, tmp_path):
    out = tmp_path / f"out{suffix}"
    code, _, err = run("torch2torch", trained[0], "-o", out, OPTIMIZER, "--config", trained[1])
    assert code == 2 and "a state of an optimizer goes into one of" in err
    assert not out.exists()


def test_shards_have_no_room(trained, run, tmp_path):
    words = ["-o", tmp_path / "out.pt", OPTIMIZER, "--config", trained[1], "--shard-size", "2KB"]
    code, _, err = run("torch2torch", trained[0], *words)
    assert code == 2 and "shards hold arrays alone" in err
    assert not list(tmp_path.iterdir())


def test_options_without_the_optimizer_are_wrong(trained, run):
    code, _, err = run("torch2flax", trained[0], "--hyper", "lr=1")
    assert code == 2 and "add --with-optimizer" in err


@pytest.mark.parametrize("word", ["speed=1", "lr=fast", "lr=nan", "kind=lion", "nesterov=maybe", "step=1.5"])
def test_wrong_hyperparameters(word, trained, run):
    code, _, err = run("torch2flax", trained[0], OPTIMIZER, "--hyper", word)
    assert code == 2 and err.startswith(f"python -m convert: --hyper {word}: ")


def test_what_goes_along_is_reported_and_recorded(trained, run, tmp_path):
    out = tmp_path / "out.msgpack"
    code, printed, err = run("torch2flax", trained[0], "-o", out, OPTIMIZER, "--config", trained[1], "--json")
    about = json.loads(printed)["optimizer"]
    assert code == 0
    hyper = HYPER["adamw"]
    assert about == {
        "kind": "adamw", "step": 3, "hyperparameters": hyper, "from": "torch", "to": "optax",
        "moments": about["moments"], "without": [], "assumed": ["order of the parameters"],
    }  # fmt: skip
    assert "assumed, not known: order of the parameters, as in the state_dict" in err
    assert about["moments"] == 2 * len([n for n in open_checkpoint(out).tensors if n.startswith("params/")])
    assert json.loads(out.with_name("out.msgpack.json").read_text())["optimizer"] == about
    assert f"optax.adamw(learning_rate={exact(hyper['lr'])}, b1={hyper['beta1']}" in err
    assert run("verify", out)[0] == 0
    words = ["-o", tmp_path / "not.msgpack", OPTIMIZER, "--config", trained[1], "--dry-run"]
    planned, weights = run("torch2flax", trained[0], *words)[1], about["moments"] // 2
    moved = f"{about['moments']} moments of optax.adamw, each moved as its parameter is"
    beside = f"  beside these: {moved}; 2 numbers for counting"
    counted = f"{weights} tensors of the model and {about['moments'] + 2} of its optimizer"
    assert f"{beside} steps\n{counted}; nothing was written\n" in planned and f" parameters, {counted}\n" in planned
    every = json.loads(printed)
    kinds = {"weights": weights, "moments": about["moments"], "numbers": 2}
    assert (every["tensors"], every["tensors_by_kind"]) == (weights, kinds)
    assert sum(kinds.values()) == len(open_checkpoint(out).tensors)


def test_hyperparameters_that_nobody_stores(trained, run, tmp_path):
    """Back to torch from optax, which stores none: the file states none, and a note says how to load it."""
    import torch

    there, back = tmp_path / "there.msgpack", tmp_path / "back.pt"
    assert run("torch2flax", trained[0], "-o", there, OPTIMIZER, "--config", trained[1])[0] == 0
    there.with_name("there.msgpack.json").unlink()
    code, _, err = run("flax2torch", there, "-o", back, OPTIMIZER, "--config", trained[1], "--hyper", "kind=adamw")
    assert (
        code == 0 and "optax's state does not say lr, beta1, beta2, eps and weight_decay: --hyper lr=... --hyp" in err
    )
    saved, original = torch.load(back), torch.load(trained[0])
    stored = saved["optimizer"]["param_groups"][0]
    assert stored.keys().isdisjoint(["lr", "betas", "eps", "weight_decay"]) and stored["decoupled_weight_decay"] is True
    for number, entry in original["optimizer"]["state"].items():
        assert all(torch.equal(entry[key], saved["optimizer"]["state"][number][key]) for key in entry)
    model = Torch("mlp_mixer", "adamw")
    optimizer = model.optimizer
    load = loading()
    exec(load, {"optimizer": optimizer, "saved": saved})
    assert optimizer.state_dict()["param_groups"][0]["lr"] == HYPER["adamw"]["lr"]
    assert optimizer.state_dict()["state"][0]["step"] == 3
    saved["optimizer"]["param_groups"][0]["params"].append(99)
    with pytest.raises(ValueError, match="doesn't match the size"):  # another number of parameters
        exec(load, {"optimizer": optimizer, "saved": saved})
    again = tmp_path / "again.msgpack"
    assert run("torch2flax", back, "-o", again, OPTIMIZER)[0] == 0  # the record states its kind
    assert {t.name for t in open_checkpoint(again).tensors.values()} == {
        t.name for t in open_checkpoint(there).tensors.values()
    }
    back.with_name("back.pt.json").unlink()
    words = ["torch2flax", back, "-o", tmp_path / "stated.msgpack", OPTIMIZER, "--config", trained[1]]
    code, _, err = run(*words)  # decoupled_weight_decay states the kind
    assert (
        code == 0 and "the optimizer's state after 3 steps goes along: torch.optim.AdamW becomes optax.adamw\n" in err
    ), err


def test_all_that_a_target_needs_is_asked_for_at_once_or_comes_from_a_record(trained, run, tmp_path):
    """To paddle, which counts steps by powers of betas; the learning rate of another file is of another step."""
    needs("paddle")
    import paddle

    import ports

    there, new = tmp_path / "there.msgpack", tmp_path / "new.pdparams"
    assert run("torch2flax", trained[0], "-o", there, OPTIMIZER, "--config", trained[1])[0] == 0
    bare = tmp_path / "bare.msgpack"
    bare.write_bytes(there.read_bytes())
    paddle.save(ports.build("mlp_mixer", str(trained[1]), "paddle").model.state_dict(), str(new))
    words = ["flax2paddle", bare, "-o", tmp_path / "out.pdparams", OPTIMIZER, "--like", new]
    code, _, err = run(*words, "--config", trained[1], "--hyper", "kind=adamw", "--hyper", "lr=1")
    asked = "does not say beta1 and beta2: --hyper beta1=... --hyper beta2=..., as paddle counts steps by their powers"
    nothing = f"(--config {trained[1]} says nothing of an optimizer: the record of a checkpoint of the same training"
    assert code == 2 and f"{asked}; eps and weight_decay may stay open {nothing}" in err, err
    kind, asked = "whether it is Adam's or AdamW's: --hyper kind=adam or kind=adamw; nor ", asked.partition("say ")[2]
    code, _, err = run(*words, "--config", trained[1])
    assert code == 2 and f"does not say {kind}{asked}; lr, eps and weight_decay may stay open" in err, err
    betas = ["--hyper", "kind=adamw", "--hyper", "beta1=0.75", "--hyper", "beta2=0.9375"]
    assert run(*words[:3], tmp_path / "open.pdparams", *words[4:], "--config", trained[1], *betas)[0] == 0
    code, _, err = run(*words, "--config", there)
    assert code == 0 and f"from --config {there}: " in err, err
    assert "learning_rate=?, beta1=0.75, beta2=0.9375, epsilon=1.953125e-3, weight_decay=0.125" in err


def test_what_the_record_says_of_the_optimizer(trained, run, tmp_path):
    """Its kind and hyperparameters come back, what was assumed stays marked, and a statement goes above it."""
    import torch

    there, back = tmp_path / "there.msgpack", tmp_path / "back.pt"
    assert run("torch2flax", trained[0], "-o", there, OPTIMIZER, "--config", trained[1])[0] == 0
    code, _, err = run("flax2torch", there, "-o", back, OPTIMIZER, "--hyper", "lr=0.5")
    assert code == 0 and "from the record: eps=" in err and "beta1=0.75, beta2=0.9375, kind=adamw" in err
    assert "note: lr=0.5 as you state; its record has 9.765625e-4" in err
    assert "assumed when the record was written, not known: order of the parameters in the optimizer's state" in err
    (own,), (group,) = (torch.load(path)["optimizer"]["param_groups"] for path in (trained[0], back))
    assert group == {**own, "lr": 0.5, "param_names": group["param_names"]}
    record = json.loads(back.with_name("back.pt.json").read_text())
    assert record["optimizer"]["assumed"] == ["order of the parameters"]
    assert record["optimizer"]["changed"] == {"lr": own["lr"]}
    there.write_bytes(there.read_bytes()[:-1] + b"\x01")  # the record is of other bytes now
    code, _, err = run("flax2torch", there, "-o", tmp_path / "other.pt", OPTIMIZER, "--config", trained[1])
    assert code == 2 and "optax's state does not say whether it is Adam's or AdamW's" in err


def test_orbax_there_and_back(trained, run, tmp_path):
    """What flax's TrainState restores from an Orbax folder, and what Orbax saved of it."""
    needs("flax")
    import jax
    import orbax.checkpoint as ocp

    from .optimizing import Flax

    out, again = tmp_path / "out.orbax", tmp_path / "again"
    code, _, err = run("torch2flax", trained[0], "-o", out, OPTIMIZER, "--config", trained[1])
    assert code == 0, err
    fresh = Flax("mlp_mixer", "adamw").state
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(out, jax.tree.map(np.asarray, fresh))
        checkpointer.save(again, restored)
    assert restored.opt_state[0].count == 3 == restored.step
    back = tmp_path / "back.pt"
    stated = [word for name, value in HYPER["adamw"].items() for word in ("--hyper", f"{name}={value}")]
    words = [*stated, "--hyper", "kind=adamw", "--config", trained[1]]
    code, _, err = run("flax2torch", again, "-o", back, OPTIMIZER, *words)
    assert code == 0, err
    import torch

    saved, original = torch.load(back)["optimizer"], torch.load(trained[0])["optimizer"]
    for number, entry in original["state"].items():
        assert all(torch.equal(entry[key], saved["state"][number][key]) for key in entry)
    theirs = {key: value for key, value in original["param_groups"][0].items() if key != "param_names"}
    assert {key: saved["param_groups"][0][key] for key in theirs} == theirs


def test_torch_distributed_checkpoints(trained, run, tmp_path):
    """As get_state_dict names the state of an optimizer, nested or flattened; written, torch loads it back."""
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    model = Torch("mlp_mixer", "adamw")
    model.train(batches("mlp_mixer")[:3])
    words = ["torch2flax", trained[0], "-o", tmp_path / "whole.msgpack", OPTIMIZER, "--config", trained[1]]
    assert run(*words)[0] == 0
    for flat in (False, True):
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        weights, state = get_state_dict(model.model, model.optimizer, options=options)
        folder, out = tmp_path / f"saved{flat}", tmp_path / f"{flat}.msgpack"
        dcp.save({"model": weights, "optim": state}, checkpoint_id=folder, no_dist=True)
        code, _, err = run("torch2flax", folder, "-o", out, OPTIMIZER, "--config", trained[1])
        assert code == 0 and "build its optimizer as optax.adamw" in err and "set aside" not in err, err
        assert arrays(out) == arrays(tmp_path / "whole.msgpack")
    words = ["torch2torch", trained[0], "-o", tmp_path / "out.dcp", OPTIMIZER, "--config", trained[1]]
    assert run(*words)[0] == 0
    again = Torch("mlp_mixer", "adamw")
    weights, state = get_state_dict(again.model, again.optimizer)
    dcp.load({"model": weights, "optim": state}, checkpoint_id=tmp_path / "out.dcp", no_dist=True)
    set_state_dict(again.model, again.optimizer, model_state_dict=weights, optim_state_dict=state)
    saved, loaded = torch.load(trained[0]), again.optimizer.state_dict()
    assert all(torch.equal(saved["model"][name], tensor) for name, tensor in again.model.state_dict().items())
    for number, entry in saved["optimizer"]["state"].items():
        assert all(torch.equal(tensor, loaded["state"][number][key]) for key, tensor in entry.items())
    hyper = {key: value for key, value in saved["optimizer"]["param_groups"][0].items() if value is not None}
    assert {key: loaded["param_groups"][0][key] for key in hyper} == hyper


@pytest.mark.parametrize("named", [True, False])
def test_groups_of_parameters_in_a_distributed_checkpoint(trained, run, tmp_path, named):
    """Whether the optimizer that loads it knows the names of its parameters or not."""
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def grouped(named):
        model = Torch("mlp_mixer", "adamw")
        each = list(model.model.named_parameters())
        parts = ([(n, p) for n, p in each if (p.ndim > 1) == wide] for wide in (True, False))
        groups = [
            {"params": part if named else [p for _, p in part], "weight_decay": d}
            for part, d in zip(parts, (0.1, 0.0), strict=True)
        ]
        model.optimizer = torch.optim.AdamW(groups, lr=1e-3)
        return model

    model, again = grouped(True), grouped(named)
    model.train(batches("mlp_mixer")[:3])
    saved = model.optimizer.state_dict()
    torch.save({"model": model.model.state_dict(), "optimizer": saved}, tmp_path / "two.pt")
    words = ["torch2torch", tmp_path / "two.pt", "-o", tmp_path / "out.dcp", OPTIMIZER, "--config", trained[1]]
    assert run(*words)[0] == 0
    weights, state = get_state_dict(again.model, again.optimizer)
    dcp.load({"model": weights, "optim": state}, checkpoint_id=tmp_path / "out.dcp", no_dist=True)
    set_state_dict(again.model, again.optimizer, model_state_dict=weights, optim_state_dict=state)
    loaded = again.optimizer.state_dict()
    assert [group["weight_decay"] for group in loaded["param_groups"]] == [0.1, 0.0]
    for number, entry in saved["state"].items():
        assert all(torch.equal(tensor, loaded["state"][number][key]) for key, tensor in entry.items())


def arrays(path):
    with open_checkpoint(path) as reader:
        return {name: bytes(reader.read(name)) for name in reader.tensors}


def test_an_optimizer_with_a_file_of_its_own(trained, run, tmp_path):
    """As trainers save it beside the weights."""
    import torch

    saved = torch.load(trained[0])
    torch.save(saved["model"], tmp_path / "weights.pt")
    torch.save(saved["optimizer"], tmp_path / "optimizer.pt")
    words = ["-o", tmp_path / "one.msgpack", OPTIMIZER, "--config", trained[1]]
    assert run("torch2flax", trained[0], *words)[0] == 0
    words = ["-o", tmp_path / "two.msgpack", OPTIMIZER, "--config", trained[1], "--json"]
    code, printed, _ = run("torch2flax", tmp_path / "weights.pt", "--optimizer", tmp_path / "optimizer.pt", *words)
    about = json.loads(printed)["optimizer"]
    assert code == 0 and about["file"] == "optimizer.pt" and len(about["sha256"]) == 64
    assert arrays(tmp_path / "one.msgpack") == arrays(tmp_path / "two.msgpack")


def test_paddle_needs_its_own_names(trained, run, tmp_path):
    """paddle would ignore other names, and begin with new moments."""
    needs("paddle")
    import paddle

    from .optimizing import Paddle

    model = Paddle("mlp_mixer", "adamw")
    paddle.save(model.model.state_dict(), str(tmp_path / "new.pdparams"))
    words = ["torch2paddle", trained[0], OPTIMIZER, "--config", trained[1], "-o"]
    code, _, err = run(*words, tmp_path / "out.pdparams")
    assert code == 2 and "--like new.pdparams" in err
    like = ["--like", tmp_path / "new.pdparams"]
    assert run(*words, tmp_path / "out.pdparams", *like)[0] == 0
    assert run(*words, tmp_path / "out.pdopt", *like)[0] == 0
    both, alone = arrays(tmp_path / "out.pdparams"), arrays(tmp_path / "out.pdopt")
    np.savez(tmp_path / "strange.npz", x=np.ones(2))
    code, _, err = run(*words, tmp_path / "y.pdparams", "--like", tmp_path / "strange.npz")
    wanted = "give a new model, an mlp_mixer of the dialect paddle, saved by paddle.save(model.state_dict(), "
    assert code == 1 and f"--like {tmp_path / 'strange.npz'}: is of another model than the target: {wanted}" in err, err
    assert "\n  - it lacks " in err and "\n  - it has x beside\n" in err, err
    code, _, err = run(*words, tmp_path / "y.pdparams", "--like", tmp_path / "out.pdopt")
    assert code == 2 and f"--like {tmp_path / 'out.pdopt'}: is an optimizer's state: give the file of a model" in err
    assert {name.removeprefix("optimizer/"): data for name, data in both.items() if "model/" not in name} == alone
    model.optimizer.set_state_dict(paddle.load(str(tmp_path / "out.pdopt")))
    model.train(batches("mlp_mixer")[3:4])
    assert model.optimizer.state_dict().keys() == alone.keys()
    power = next(value for name, value in model.optimizer.state_dict().items() if "beta1_pow" in name)
    assert power.item() == pytest.approx(HYPER["adamw"]["beta1"] ** 5)


class Powers:
    """A reader of paddle's two powers of betas."""

    path = "m.pdopt"

    def __init__(self, dtype, steps, **betas):
        self.values = {}
        for beta, value in betas.items():
            power = np.array([value], dtype)
            for _ in range(steps):
                power = power * np.array(value, dtype)
            self.values[beta] = power
        self.slots = {f"{b}_pow_acc": {"w": Tensor(b, (1,), dtype)} for b in betas}

    def read(self, name):
        return self.values[name].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [0, 1, 10, 300, 655, 800, 5000, 20000, 80000])
def test_steps_that_paddle_counts_by_powers(steps, dtype):
    """The power of 0.9 is too small for float32 after 829 steps: then that of 0.999 alone tells them, and itself."""
    powers, both = Powers(dtype, steps, beta1=0.9, beta2=0.999), {"beta1": 0.9, "beta2": 0.999}
    shown = {"beta2": 0.999} if (dtype == "float32" and steps > 829) or steps > 6700 else both
    assert from_paddle._paddle_step(powers, powers.slots, {}) == (steps, shown)
    assert from_paddle._paddle_step(powers, powers.slots, both) == (steps, both)
    assert from_paddle._paddle_step(powers, powers.slots, {**both, "step": steps}) == (steps, both)
    with pytest.raises(UsageError, match=rf"step={steps + 10} contradicts .*: {steps:,} steps with"):
        from_paddle._paddle_step(powers, powers.slots, {"step": steps + 10})
    for beta, value in both.items():
        assert power(value, steps, dtype) == powers.values[beta][0]


def test_powers_that_are_too_small_need_the_number_of_steps():
    powers = Powers("float32", 120_000, beta1=0.9, beta2=0.999)
    with pytest.raises(UsageError, match="too small to show a number of steps: state --hyper step="):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 120_000}) == (120_000, {})
    assert power(0.9, 120_000, "float32") == powers.values["beta1"][0]


def test_a_beta_of_another_value_is_no_number_of_steps():
    """One power alone has to be nearly exact: powers of 0.95 are seldom those of 0.999."""
    powers = Powers("float32", 1000, beta1=0.9, beta2=0.95)
    with pytest.raises(UsageError, match=r"no whole number of steps with beta2 0\.999: state --hyper beta1"):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"beta2": 0.95}) == (1000, {"beta2": 0.95})


def test_betas_that_paddle_does_not_state():
    powers = Powers("float32", 7, beta1=0.8, beta2=0.999)
    with pytest.raises(UsageError, match="no whole number of steps with"):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"beta1": 0.8})[0] == 7
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 7}) == (7, {"beta2": 0.999})  # what its power shows


def test_numbers_of_parameters_need_weights_in_their_order(trained, run, tmp_path):
    """safetensors sorts names: their order is not torch's."""
    import torch
    from safetensors.torch import save_file

    saved = torch.load(trained[0])
    save_file(saved["model"], tmp_path / "model.safetensors")
    torch.save(saved["optimizer"], tmp_path / "optimizer.pt")
    words = ["--config", trained[1], OPTIMIZER, "--optimizer", tmp_path / "optimizer.pt", "-o", tmp_path / "x.msgpack"]
    code, out, err = run("torch2flax", tmp_path / "model.safetensors", *words)
    assert (code, out) == (1, "")
    assert "which the weights' file does not keep" in err
    assert not (tmp_path / "x.msgpack").exists()


def test_like_of_torch_needs_its_order_and_its_sizes(trained, run, tmp_path):
    import torch
    from safetensors.torch import save_file

    model = torch.load(trained[0])["model"]
    save_file(model, tmp_path / "new.safetensors")
    words = ["--config", trained[1], OPTIMIZER, "--like", tmp_path / "new.safetensors", "-o", tmp_path / "x.pt"]
    code, _, err = run("torch2torch", trained[0], *words)
    assert code == 2 and "does not keep the order in which torch counts parameters" in err
    torch.save({**model, "head.bias": torch.zeros(99)}, tmp_path / "new.pt")
    words = ["--config", trained[1], OPTIMIZER, "--like", tmp_path / "new.pt", "-o", tmp_path / "x.pt"]
    code, _, err = run("torch2torch", trained[0], *words)
    wanted = (
        "than the target: give a new model, an mlp_mixer of the dialect torch, saved by torch.save(model.state_dict()"
    )
    assert code == 1 and f"is of a model of another size {wanted}" in err and "head.bias has shape [99], and " in err


def test_a_train_state_counts_its_steps_once(trained, run, tmp_path):
    """Flax stores the count beside the optimizer's state too: one of them is reported. optax moves another nesting."""
    needs("flax")
    from flax.serialization import msgpack_restore, msgpack_serialize

    there = tmp_path / "there.msgpack"
    assert run("torch2flax", trained[0], "-o", there, OPTIMIZER, "--config", trained[1])[0] == 0
    state = msgpack_restore(there.read_bytes())
    words = ["--config", trained[1], OPTIMIZER, "--hyper", "kind=adamw", "--force"]
    for step, says in ((3, True), (4, False)):
        (tmp_path / "state.msgpack").write_bytes(msgpack_serialize({**state, "step": step}))
        code, _, err = run("flax2torch", tmp_path / "state.msgpack", "-o", tmp_path / "x.pt", *words)
        assert code == 0, err
        known = (
            "state after 3 steps, as the entry step of the file says, goes along: optax.adamw becomes torch.optim.Ad"
        )
        assert (known in err) == says
        assert ("set aside, plain numbers: step" in err) != says
    chain = {**state, "opt_state": {"0": {}, "1": state["opt_state"]}}
    (tmp_path / "chain.msgpack").write_bytes(msgpack_serialize(chain))
    like = ["--like", tmp_path / "chain.msgpack", "-o", tmp_path / "y.msgpack"]
    code, _, err = run("torch2flax", trained[0], *like, "--config", trained[1], OPTIMIZER)
    assert (
        code == 2
        and "contains an optimizer's state: give a file of its params alone, or no --like. A chain that" in err
    )


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_tuple_of_weights_state_and_step_is_read(kind, run, tmp_path):
    """As vit_jax saves it; its schedule counts steps at another place of the chain."""
    needs("flax")
    import torch
    from flax.serialization import msgpack_restore, msgpack_serialize

    model = Torch("mlp_mixer", kind)
    model.train(batches("mlp_mixer")[:2])
    model.save(tmp_path / "model.pt")
    config = save_config("mlp_mixer", tmp_path / "config.json")
    there, saved = tmp_path / "there.msgpack", tmp_path / "checkpoint_2"
    assert run("torch2flax", tmp_path / "model.pt", "-o", there, OPTIMIZER, "--config", config)[0] == 0
    state = msgpack_restore(there.read_bytes())
    moments = state["opt_state"]["1"]["0"]
    chain = {"0": {}, "1": {"0": moments, "1": {"count": np.array(2, "int32")}}}
    saved.write_bytes(msgpack_serialize({"0": state["params"], "1": chain, "2": 2}))
    counts = "1/1/1/count" if kind == "sgd" else "1/1/{0..1}/count"
    assert f"{counts}: int32 [] (a count of steps of an optimizer)" in run("inspect", saved)[1]
    words = ["--config", config, OPTIMIZER, *(["--hyper", "kind=adam"] if kind == "adam" else [])]
    code, _, err = run("flax2torch", saved, "-o", tmp_path / "back.pt", *words)
    assert code == 0 and f"the optimizer's state after 2 steps goes along: optax.{kind} becomes torch.optim." in err, (
        err
    )
    ours, theirs = (torch.load(tmp_path / name)["optimizer"]["state"] for name in ("model.pt", "back.pt"))
    for number, slots in ours.items():
        for slot, tensor in slots.items():
            assert torch.equal(theirs[number][slot], tensor), (number, slot)


def test_no_file_of_the_command_is_its_target(trained, run, tmp_path):
    import torch

    own = tmp_path / "new.pt"
    torch.save(torch.load(trained[0])["model"], own)
    before = own.read_bytes()
    words = ["--config", trained[1], OPTIMIZER, "--like", own, "-o", own, "--force"]
    code, _, err = run("torch2torch", trained[0], *words)
    assert code == 2 and "is the file of --like: give another -o" in err
    assert own.read_bytes() == before


def test_a_state_of_another_framework_is_refused(run, tmp_path):
    """The shapes of square arrays would fit: paddle's and torch's layouts differ."""
    needs("paddle"), needs("torch")
    import ports

    square = {"patch": 4, "depth": 1, "width": 16, "token_hidden": 16, "channel_hidden": 16, "gelu": "erf"}
    square |= {"norm_eps": 1e-6, "image": 16, "channels": 1, "classes": 16}
    (tmp_path / "c.json").write_text(json.dumps(square))
    model = ports.build("mlp_mixer", str(tmp_path / "c.json"), "torch", init="random").model
    import paddle

    save_one_step(model, tmp_path / "x.pt", "Adam")
    weights = ports.build("mlp_mixer", str(tmp_path / "c.json"), "paddle", init="random").model.state_dict()
    paddle.save(weights, str(tmp_path / "x.pdparams"))
    words = ["--config", tmp_path / "c.json", OPTIMIZER, "--optimizer", tmp_path / "x.pt", "--hyper", "lr=1"]
    for route, out in (("paddle2torch", "y.pt"), ("paddle2flax", "y.msgpack")):
        code, _, err = run(route, tmp_path / "x.pdparams", *words, "-o", tmp_path / out)
        assert code == 1 and f"{tmp_path / 'x.pt'} holds torch's state, {tmp_path / 'x.pdparams'} is paddle's" in err


def test_what_paddle_keeps_beside_adams_moments_is_refused(tmp_path):
    needs("paddle")
    import paddle

    model = paddle.nn.Linear(2, 3)
    adam = paddle.optimizer.Adam(parameters=model.parameters(), amsgrad=True)
    model(paddle.ones([1, 2])).sum().backward()
    adam.step()
    paddle.save(adam.state_dict(), str(tmp_path / "x.pdopt"))
    trained = {name: Tensor(name, tuple(p.shape), "float32") for name, p in model.state_dict().items()}
    own = {name: p.name for name, p in model.state_dict().items()}
    with open_checkpoint(tmp_path / "x.pdopt") as reader:
        with pytest.raises(ConvertError, match=r"keeps moment2_max of bias, weight: this is amsgrad, not converted$"):
            from_paddle.read_paddle(reader, optimizers.find(reader), trained, own, {})
        with pytest.raises(ConvertError, match=r"keeps moment2_max of linear_\d+.b_0, linear_\d+.w_0: this is amsgrad"):
            from_paddle.read_paddle(reader, optimizers.find(reader), {}, {}, {})
        ends = {name: f"pointwise_{own[name]}" for name in own} | {"other": own["weight"]}  # whole names alone count
        trained["other"] = trained["weight"]
        with pytest.raises(ConvertError, match=r"keeps moment2_max of linear_\d+.b_0, other: this"):
            from_paddle.read_paddle(reader, optimizers.find(reader), trained, ends, {})
        del trained["other"]
    plain = paddle.optimizer.Adam(parameters=model.parameters())
    model(paddle.ones([1, 2])).sum().backward()
    plain.step()
    paddle.save(plain.state_dict(), str(tmp_path / "y.pdopt"))
    with open_checkpoint(tmp_path / "y.pdopt") as reader:
        with pytest.raises(ConvertError, match=r"has moments of .*w_0.*no names of paddle's: .*with like="):
            from_paddle.read_paddle(reader, optimizers.find(reader), trained, {}, {})


def test_what_else_the_optimizers_file_contains_is_named(trained, run, tmp_path):
    import torch

    saved = torch.load(trained[0])
    torch.save(saved["model"], tmp_path / "model.pt")
    torch.save({**saved["optimizer"], "ema": {"stem.weight": torch.ones(2)}}, tmp_path / "optimizer.pt")
    words = ["--config", trained[1], OPTIMIZER, "--optimizer", tmp_path / "optimizer.pt", "-o", tmp_path / "x.msgpack"]
    code, _, err = run("torch2flax", tmp_path / "model.pt", *words)
    assert code == 0
    assert f"set aside, of {tmp_path / 'optimizer.pt'}: ema/stem.weight\n" in err


def test_powers_of_other_dtypes_and_after_very_many_steps():
    assert steps_of(0.9**5, 0.9, "bfloat16") == pytest.approx(4, abs=0.01)  # rounded to 16 bits it would be off by more
    assert power(0.9999999, MOST + 5, "float64") == 0.9999999 ** (MOST + 6)


def test_names_that_weights_have_lost_are_not_searched_for(run, tmp_path):
    """paddle calls what astype and clone return eager_tmp_0: its optimizer's names lead nowhere."""
    needs("paddle"), needs("torch")
    import paddle

    import ports

    config = save_config("mlp_mixer", tmp_path / "c.json")
    model = ports.build("mlp_mixer", str(config), "paddle", init="random").model
    adam = paddle.optimizer.Adam(parameters=model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    adam.step()
    paddle.save({name: t.clone() for name, t in model.state_dict().items()}, str(tmp_path / "x.pdparams"))
    paddle.save(model.state_dict(), str(tmp_path / "y.pdparams"))
    for name in "xy":
        paddle.save(adam.state_dict(), str(tmp_path / f"{name}.pdopt"))
    words = ["--config", config, OPTIMIZER, "--hyper", "kind=adam"]
    lost = r"the weights have lost paddle's parameter names (eager_tmp_"
    code, _, err = run("paddle2torch", tmp_path / "x.pdparams", *words, "-o", tmp_path / "x.pt")
    assert code == 1 and "x.pdopt: has moments of " in err and lost in err, err
    code, _, err = run("paddle2torch", tmp_path / "y.pdparams", *words, "-o", tmp_path / "y.pt")
    assert code == 0, err
    words += ["--like", tmp_path / "x.pdparams", "-o", tmp_path / "z.pdparams", "--hyper", "beta1=0.9"]
    code, _, err = run("torch2paddle", tmp_path / "y.pt", *words, "--hyper", "beta2=0.999")
    assert code == 2 and f"x.pdparams: {lost}" in err, err


def test_moments_that_a_dtype_does_not_hold_are_counted(trained, run, tmp_path):
    words = ["--config", trained[1], OPTIMIZER, "--dtype", "float16", "-o", tmp_path / "x.msgpack"]
    code, _, err = run("torch2flax", trained[0], *words)
    problems = [line for line in err.splitlines() if line.startswith("  - ")]
    assert code == 1 and len(problems) == 1, err
    assert "moments of the optimizer have values that float16 does not hold, as opt_state/" in problems[0]


def test_a_proof_speaks_of_what_is_set_aside_only_where_something_is(trained, run, tmp_path):
    needs("flax")
    import torch

    words = ["--config", trained[1], OPTIMIZER, "--prove", "-o", tmp_path / "x.msgpack", "--force"]
    moved = "not covered by this proof: the optimizer's state, which goes along, moved as the weights are"
    code, printed, err = run("torch2flax", trained[0], *words)
    assert code == 0 and f"{moved}\n" in printed, err
    torch.save({**torch.load(trained[0]), "others": torch.ones(2)}, tmp_path / "more.pt")
    code, printed, err = run("torch2flax", tmp_path / "more.pt", *words)
    assert code == 0 and f"{moved}, and what is set aside above\n" in printed, err


def test_a_count_of_averages_without_an_average_is_refused(trained, run, tmp_path):
    words = ["--config", trained[1], OPTIMIZER, "-o", tmp_path / "x.msgpack", "--hyper", "averaged=20"]
    code, _, err = run("torch2flax", trained[0], *words)
    assert code == 2 and "--hyper averaged=20: no average of the weights goes along" in err, err
