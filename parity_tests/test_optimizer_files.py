"""Files with the state of an optimizer: formats, what is refused, what has to be stated, models of one's own."""

import json

import numpy as np
import pytest

from convert.files import open_checkpoint
from specs.numbers import exact

from .conftest import needs
from .optimizing import HYPER, Torch, batches, save_config, trained_mixer

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
    torch.save(saved["model"], tmp_path / "bare.pt")  # a new model of timm, whose order and place --like reads
    assert run("torch2timm", tmp_path / "bare.pt", "-o", tmp_path / "new.pt", "--config", trained[1])[0] == 0
    torch.save({"state_dict": torch.load(tmp_path / "new.pt"), "epoch": 0}, tmp_path / "like.pt")
    words = ["-o", tmp_path / "timm.pt", OPTIMIZER, "--config", trained[1], "--like", tmp_path / "like.pt"]
    code, _, err = run("torch2timm", trained[0], *words)
    assert code == 0 and "has its weights under 'state_dict', the target has them under 'model': " in err, err


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


def test_what_goes_along_is_reported_and_recorded(trained, run, tmp_path):
    out = tmp_path / "out.msgpack"
    code, printed, err = run("torch2flax", trained[0], "-o", out, OPTIMIZER, "--config", trained[1], "--json")
    about, aside = (json.loads(printed)[key] for key in ("optimizer", "aside"))
    assert code == 0 and aside == []  # the state goes along
    hyper = HYPER["adamw"]
    assert about == {
        "kind": "adamw", "step": 3, "hyperparameters": hyper, "from": "torch", "to": "optax",
        "moments": about["moments"], "without": [], "assumed": ["order of the parameters"],
    }  # fmt: skip
    assert "assumed, not known: order of the parameters, as in the state_dict" in err
    assert "To be certain, pass model.named_parameters() to the optimizer, which then stores names" in err
    assert about["moments"] == 2 * len([n for n in open_checkpoint(out).tensors if n.startswith("params/")])
    assert json.loads(out.with_name("out.msgpack.json").read_text())["optimizer"] == about
    assert f"optax.adamw(learning_rate={exact(hyper['lr'])}, b1={hyper['beta1']}" in err
    assert run("verify", out)[0] == 0
    words = ["-o", tmp_path / "not.msgpack", OPTIMIZER, "--config", trained[1], "--dry-run"]
    planned, weights = run("torch2flax", trained[0], *words)[1], about["moments"] // 2
    moved = f"{about['moments']} moments of optax.adamw, each moved as its parameter is"
    beside = f"  beside these: {moved}; 2 numbers for counting"
    counted = f"{weights} arrays of the model and {about['moments'] + 2} of its optimizer"
    assert f"{beside} steps\n{counted}; nothing was written\n" in planned and f" parameters, {counted}\n" in planned
    every = json.loads(printed)
    kinds = {"weights": weights, "moments": about["moments"], "numbers": 2}
    assert (every["tensors"], every["tensors_by_kind"]) == (weights, kinds)
    assert sum(kinds.values()) == len(open_checkpoint(out).tensors)


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
    """As trainers save it beside the weights, or beside several optimizers."""
    import torch

    saved = torch.load(trained[0])
    torch.save({**saved, "optimizer_d": saved["optimizer"]}, tmp_path / "both.pt")
    torch.save(saved["optimizer"], tmp_path / "own.pt")
    words = ["torch2flax", tmp_path / "both.pt", "-o", tmp_path / "both.msgpack", OPTIMIZER, "--config", trained[1]]
    code, _, err = run(*words)
    assert code == 1 and "out, or give a file that has one alone: --optimizer FILE" in err, err
    assert run(*words, "--optimizer", tmp_path / "own.pt")[0] == 0
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
    whole = {"model": model.model.state_dict(), "optimizer": model.optimizer.state_dict(), "ema": {"x": 1.0}}
    for name, words_of_route in (("new.pdopt", words), ("again.pdparams", [*words[:2], *words[3:]])):
        paddle.save({**whole, "opt": paddle.load(str(tmp_path / "out.pdopt"))}, str(tmp_path / "whole.pdparams"))
        code, _, err = run(*words_of_route, tmp_path / name, "--like", tmp_path / "whole.pdparams")
        assert code == 0 and "whole.pdparams: read its arrays under 'model' and set aside opt/ (" in err, err
    assert arrays(tmp_path / "new.pdopt") == alone
    model.optimizer.set_state_dict(paddle.load(str(tmp_path / "out.pdopt")))
    model.train(batches("mlp_mixer")[3:4])
    assert model.optimizer.state_dict().keys() == alone.keys()
    power = next(value for name, value in model.optimizer.state_dict().items() if "beta1_pow" in name)
    assert power.item() == pytest.approx(HYPER["adamw"]["beta1"] ** 5)


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
        assert ("set aside step (plain numbers)" in err) != says
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
    said = (
        f"the optimizer's state after 2 steps, as the entry 2 of the file says, goes along: optax.{kind} becomes torch"
    )
    assert code == 0 and said in err, err
    ours, theirs = (torch.load(tmp_path / name)["optimizer"]["state"] for name in ("model.pt", "back.pt"))
    for number, slots in ours.items():
        for slot, tensor in slots.items():
            assert torch.equal(theirs[number][slot], tensor), (number, slot)


@pytest.mark.parametrize(("count", "step"), [(None, 7), (7, 7), (0, 7), (7, np.array(7))])
def test_the_step_of_a_tuple_goes_along_where_its_counts_agree(count, step, run, tmp_path):
    """SGD counts no steps: the tuple does, and a schedule in the chain may. Counts that differ are named."""
    needs("flax")
    from flax.serialization import msgpack_restore, msgpack_serialize

    model = Torch("mlp_mixer", "sgd")
    model.train(batches("mlp_mixer")[:1])
    model.save(tmp_path / "model.pt")
    there, words = tmp_path / "there.msgpack", [OPTIMIZER, "--config", save_config("mlp_mixer", tmp_path / "c.json")]
    assert run("torch2flax", tmp_path / "model.pt", "-o", there, *words)[0] == 0
    state = msgpack_restore(there.read_bytes())
    schedule = {} if count is None else {"1": {"count": np.array(count, "int32")}}
    chain = {"0": {}, "1": {"0": state["opt_state"]["1"]["0"], **schedule}}
    (tmp_path / "tuple").write_bytes(msgpack_serialize({"0": state["params"], "1": chain, "2": step}))
    code, _, err = run("flax2flax", tmp_path / "tuple", "-o", tmp_path / "back.msgpack", *words)
    assert code == 0, err
    differ = "note: counts of steps do not agree (1/1/1/count=0, 2=7), and none goes along: --hyper step=... states one"
    assert (f"{differ}\n" in err) is (count == 0), err
    whose = ", as the entry 2 of the file says," if isinstance(step, int) else " since its count began"
    assert (f"the optimizer's state after 7 steps{whose}" in err) is (count != 0), err
    assert "numbers beside" not in err, err
    assert msgpack_restore((tmp_path / "back.msgpack").read_bytes())["step"] == (7 if count != 0 else 0)


def test_what_else_the_optimizers_file_contains_is_named(trained, run, tmp_path):
    import torch

    saved = torch.load(trained[0])
    torch.save(saved["model"], tmp_path / "model.pt")
    torch.save({**saved["optimizer"], "ema": {"stem.weight": torch.ones(2)}}, tmp_path / "optimizer.pt")
    words = ["--config", trained[1], OPTIMIZER, "--optimizer", tmp_path / "optimizer.pt", "-o", tmp_path / "x.msgpack"]
    code, _, err = run("torch2flax", tmp_path / "model.pt", *words)
    assert code == 0
    assert f"set aside, of {tmp_path / 'optimizer.pt'}: ema/stem.weight\n" in err


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
    saved = torch.load(trained[0])
    torch.save({**saved, "model_ema": saved["model"]}, tmp_path / "averaged.pt")
    code, printed, err = run("torch2flax", tmp_path / "averaged.pt", *words)
    both = "the optimizer's state and the average of the weights, which go along, moved as the weights are"
    assert code == 0 and f"not covered by this proof: {both}\n" in printed, err


def test_a_state_that_is_set_aside_comes_with_the_option_that_takes_it(trained, run, tmp_path):
    import torch

    words = ["--config", trained[1], "-o", tmp_path / "x.msgpack", "--force"]
    option = "note: --with-optimizer takes the optimizer's state along\n"
    code, _, err = run("torch2flax", trained[0], *words)
    assert code == 0 and "(training state)" in err and option in err, err
    assert option not in run("torch2flax", trained[0], *words, OPTIMIZER)[2]
    torch.save(torch.load(trained[0])["model"], tmp_path / "model.pt")
    assert option not in run("torch2flax", tmp_path / "model.pt", *words)[2]
    assert option not in run("torch2flax", trained[0], *words[:2], "-o", tmp_path / "x.npz")[2]  # without room for it
    saved = torch.load(trained[0])
    torch.save({**saved, "model_ema": saved["model"]}, tmp_path / "averaged.pt")
    assert option not in run("torch2flax", tmp_path / "averaged.pt", *words, "--weights", "model_ema")[2]


def test_inspect_names_the_state_beside_weights_unless_its_record_does(trained, run, tmp_path):
    code, printed, err = run("inspect", trained[0])
    said = "note:         optimizer: Adam's two moments, as torch stores them, after 3 steps (--weights optimizer "
    assert code == 0 and said in printed, printed + err
    words = ("--config", trained[1], OPTIMIZER, "-o", tmp_path / "x.pt")
    assert run("torch2torch", trained[0], *words)[0] == 0
    _, printed, _ = run("inspect", tmp_path / "x.pt")
    assert "optimizer:    adamw after 3 steps" in printed and "two moments" not in printed, printed
    import torch

    saved = torch.load(trained[0])
    for entry in saved["optimizer"]["state"].values():
        entry["max_exp_avg_sq"] = entry["exp_avg_sq"]
    torch.save(saved, tmp_path / "amsgrad.pt")
    assert "Adam's two moments and max_exp_avg_sq, as torch stores" in run("inspect", tmp_path / "amsgrad.pt")[1]


def test_inspect_lists_the_state_that_weights_names(trained, run, tmp_path):
    """Its kind, steps, hyperparameters and arrays, and nothing of the model beside it."""
    path, config = trained
    code, printed, err = run("inspect", path, "--weights", "optimizer")
    assert code == 0, err
    assert "\nstate:        Adam's two moments, as torch stores them, after 3 steps\n" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["0.125", "optimizer/param_groups/0/weight_decay"] in lines and "architecture" not in printed
    assert "model/: 18 arrays (outside of this part)" in printed and "model/head" not in printed
    there = tmp_path / "there.msgpack"
    assert run("torch2flax", path, "-o", there, "--with-optimizer", "--config", config)[0] == 0
    about = json.loads(run("inspect", there, "--weights", "opt_state", "--json")[1])
    assert about["state"] == {"keeps": "Adam's two moments, as optax stores them", "steps": [3], "values": {}}
    assert about["part"] == "opt_state" and [entry["name"] for entry in about["aside"]] == ["step", "params/"]
    assert json.loads(run("inspect", path, "--json")[1])["state"] == {}
