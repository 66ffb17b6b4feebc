"""States of optimizers that do not go along are refused, and what is lacking is asked for."""

import json

import numpy as np
import pytest

import convert
from convert.errors import ConvertError, UsageError
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.optimizer import from_paddle
from convert.optimizer.state import KIND
from convert.reading import optimizers

from .conftest import needs
from .optimizing import HYPER, Torch, loading, save_config, save_one_step
from .test_optimizer_files import OPTIMIZER, changed, group, grouped, state, trained

__all__ = ["changed", "trained"]  # fixtures


def swapped(saved):
    """Number two parameters of unlike shapes the other way round."""
    states = saved["optimizer"]["state"]
    states[0], states[1] = states[1], states[0]


def plain_sgd(saved):
    params = saved["optimizer"]["param_groups"][0]["params"]
    return {"lr": 0.5, "momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": 0, "params": params}


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


def of_apex(saved, **options):
    """Store the state as FusedAdam does: groups have no amsgrad, and count the steps. Returns: this count."""
    group = saved["optimizer"]["param_groups"][0]
    for option in ("amsgrad", "decoupled_weight_decay", "maximize", "foreach", "capturable", "differentiable", "fused"):
        group.pop(option, None)
    group |= {"bias_correction": True, "step": int(saved["optimizer"]["state"][0]["step"]), **options}
    for entry in saved["optimizer"]["state"].values():
        del entry["step"]
    return group["step"]


def test_an_adam_whose_groups_are_not_torchs_goes_along_where_its_kind_is_stated(changed, run):
    counted = []
    words = changed(lambda saved: counted.append(of_apex(saved)))
    (steps,) = counted
    code, _, err = run(*words)
    assert code == 2 and "have bias_correction, which" in err and "have no amsgrad, which torch.optim.Adam or" in err
    assert "state --hyper kind=adam or kind=adamw" in err
    code, _, err = run(*words, "--hyper", "kind=adamw")
    assert (
        code == 0 and "kind=adamw as you state, not checkable" in err and f"state after {steps} steps goes along" in err
    )
    code, _, err = run(*words, "--hyper", "kind=adamw", "--hyper", f"step={steps + 1}", "--force")
    assert code == 2 and f"its state counts {steps} steps: step={steps + 1} contradicts it" in err
    for options, reason in (({"bias_correction": False}, "does not correct the bias"), ({"step": "x"}, "no number")):
        code, _, err = run(*changed(lambda saved, options=options: of_apex(saved, **options)), "--hyper", "kind=adamw")
        assert code == 1 and reason in err


def test_dampening_is_refused(changed, run):
    def sgd(saved):
        for entry in saved["optimizer"]["state"].values():
            entry["momentum_buffer"] = entry.pop("exp_avg")
            del entry["exp_avg_sq"], entry["step"]
        group = saved["optimizer"]["param_groups"][0]
        for option in ("betas", "eps", "amsgrad", "decoupled_weight_decay"):
            group.pop(option, None)
        group.update(momentum=0.9, dampening=0.5, nesterov=False)

    code, _, err = run(*changed(sgd))
    assert code == 1 and "dampening=0.5" in err


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


def test_hyperparameters_that_nobody_stores(trained, run, tmp_path):
    """Back to torch from optax, which stores none: the file states none, and a note says how to load it."""
    import torch

    there, back = tmp_path / "there.msgpack", tmp_path / "back.pt"
    assert run("torch2flax", trained[0], "-o", there, OPTIMIZER, "--config", trained[1])[0] == 0
    stated = ["flax2torch", there, "-o", back, OPTIMIZER, "--config", trained[1], "--hyper", "kind=adamw"]
    code, _, err = run(*stated)
    assert code == 0 and "not checkable" not in err  # the record knows
    there.with_name("there.msgpack.json").unlink()
    code, _, err = run(*stated, "--force")
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
    kind, asked = (
        "whether it is Adam's or AdamW's: --hyper kind=adam or kind=adamw (that of LAMB, ",
        asked.partition("say ")[2],
    )
    code, _, err = run(*words, "--config", trained[1])
    assert code == 2 and f"does not say {kind}" in err and f"; nor {asked}; lr, eps and weight_decay may stay" in err, (
        err
    )
    betas = ["--hyper", "kind=adamw", "--hyper", "beta1=0.75", "--hyper", "beta2=0.9375"]
    assert run(*words[:3], tmp_path / "open.pdparams", *words[4:], "--config", trained[1], *betas)[0] == 0
    code, _, err = run(*words, "--config", there)
    assert code == 0 and f"from --config {there}: " in err, err
    assert "learning_rate=?, beta1=0.75, beta2=0.9375, epsilon=1.953125e-3, weight_decay=0.125" in err


def test_numbers_of_parameters_need_weights_in_their_order(trained, run, tmp_path):
    """safetensors sorts names: that is not torch's order. The order of our ports is known, that of timm is not."""
    import torch
    from safetensors.torch import save_file

    saved = torch.load(trained[0])
    ours, theirs = tmp_path / "model.safetensors", tmp_path / "timm.safetensors"
    save_file(saved["model"], ours)
    swapped(saved)
    torch.save(saved["optimizer"], tmp_path / "optimizer.pt")
    words = ["--config", trained[1], OPTIMIZER, "--optimizer", tmp_path / "optimizer.pt", "-o", tmp_path / "x.msgpack"]
    code, out, err = run("torch2flax", ours, *words)
    assert (code, out) == (1, "") and "or its parameters are in another order" in err
    assert run("torch2timm", ours, "--config", trained[1], "-o", theirs)[0] == 0
    code, out, err = run("timm2flax", theirs, *words)
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
    words = ["--config", trained[1], OPTIMIZER, "--like", tmp_path / "new.safetensors", "-o", tmp_path / "x.pdparams"]
    code, _, err = run("torch2paddle", trained[0], *words)
    assert code == 1 and "new.safetensors: has arrays of the target transposed, as another framework stores" in err


def test_no_file_of_the_command_is_its_target(trained, run, tmp_path):
    """Nor of a plan in Python, which also knows the file of its optimizer."""
    import torch

    saved, own, weights, state = torch.load(trained[0]), *(tmp_path / name for name in ("new.pt", "w.pt", "state.pt"))
    torch.save(saved["model"], own), torch.save(saved["model"], weights), torch.save(saved["optimizer"], state)
    before = own.read_bytes()
    words = ["--config", trained[1], OPTIMIZER, "--like", own, "-o", own, "--force"]
    code, _, err = run("torch2torch", trained[0], *words)
    assert code == 2 and "is the file of --like: give another -o" in err
    for out in (own, state):
        with (
            convert.plan(weights, "torch", "torch", settings=str(trained[1])) as plan,
            convert.with_optimizer(plan, out, like=str(own), optimizer=str(state)) as whole,
            pytest.raises(UsageError, match=f"{out.name}: is read itself"),
        ):
            whole.write(force=True)
    assert own.read_bytes() == before and torch.load(state).keys() == saved["optimizer"].keys()


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
        with pytest.raises(
            ConvertError, match=r"has moments of .*w_0.*no names of paddle's: .*with like=.*with optimizer="
        ):
            from_paddle.read_paddle(reader, optimizers.find(reader), trained, {}, {})


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


def test_a_count_of_averages_without_an_average_is_refused(trained, run, tmp_path):
    words = ["--config", trained[1], OPTIMIZER, "-o", tmp_path / "x.msgpack", "--hyper", "averaged=20"]
    code, _, err = run("torch2flax", trained[0], *words)
    assert code == 2 and "--hyper averaged=20: no average of the weights goes along" in err, err


def test_a_file_of_an_optimizer_alone_is_named_as_such(run, tmp_path):
    """As torch.save(optimizer.state_dict()) writes it: `inspect` lists its arrays once."""
    needs("torch")
    import torch

    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "opt.pt")
    code, _, err = run("torch2flax", tmp_path / "opt.pt", "--with-optimizer", "-o", tmp_path / "x.msgpack")
    said = "this is the state of an optimizer alone; the weights are in another file: give that file to convert, with"
    assert code == 1 and f"{said} --with-optimizer --optimizer {tmp_path / 'opt.pt'} for both" in err, err
    code, printed, _ = run("inspect", tmp_path / "opt.pt")
    assert code == 0 and "the state of an optimizer alone" in printed and printed.count("exp_avg\n") == 1, printed
    torch.save({"model": {"weight": weight}, "optimizer": optimizer.state_dict()}, tmp_path / "both.pt")
    code, _, err = run("diff", tmp_path / "both.pt", tmp_path / "both.pt", "--weights", "optimzer")
    assert code == 2 and "did you mean 'optimizer'?" in err, err


def test_a_format_of_another_library_is_refused_with_those_that_fit(run, tmp_path):
    needs("torch")
    import torch

    import ports

    port = ports.build("mlp_mixer", "tiny S/16", "torch")
    port.save(tmp_path / "settings.safetensors")
    torch.save(port.model.state_dict(), tmp_path / "x.pt")
    words = ["--with-optimizer", "--config", tmp_path / "settings.safetensors", "-o", tmp_path / "x.dcp"]
    code, _, err = run("torch2flax", tmp_path / "x.pt", *words)
    assert code == 2 and "goes into such a file, and flax is of flax: use one of .msgpack .flax .orbax\n" in err, err


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"0/v_row/w": [2], "0/v_col/w": [3]},
            "is none of SGD with momentum, Adam and AdamW: it keeps opt_state/0/v_row/w, opt_state/0/v_col/w: "
            "leave --with-optimizer out",
        ),
        ({"0/mu/w": [2, 3]}, "has no state of an optimizer"),
        ({"1/count": []}, "keeps opt_state/1/count alone: plain SGD keeps no state"),
    ],
    ids=["adafactor", "no state", "plain SGD on a schedule"],
)
def test_another_optimizer_than_those_converted_is_named(arrays, said, run, tmp_path):
    """As optax.adafactor; without the container, the arrays are those of no optimizer."""
    place = "" if "has no" in said else "opt_state/"
    state = {place + name: np.ones(shape, "i4" if not shape else "f4") for name, shape in arrays.items()}
    np.savez(tmp_path / "x.npz", **{"params/w": np.ones((2, 3), "f4"), **state})
    (tmp_path / "x.table").write_text("table 1: flax <-> torch\nparams/w: i o <-> w: o i\n")
    words = ["--table", tmp_path / "x.table", tmp_path / "x.npz", OPTIMIZER]
    code, _, err = run(*words, "-o", tmp_path / "x.pt")
    assert code == 1 and said in err, err


def test_a_file_beside_the_weights_that_may_be_the_optimizers_is_named(run, tmp_path):
    """As HuggingFace's trainer writes them."""
    np.savez(tmp_path / "x.npz", w=np.ones(2))
    (tmp_path / "x.table").write_text("table 1: torch <-> torch\nw: i <-> w: i\n")
    words = ["--table", tmp_path / "x.table", tmp_path / "x.npz", OPTIMIZER, "-o", tmp_path / "y.pt"]
    code, _, err = run(*words)
    assert code == 1 and err.endswith("give the state's file by --optimizer FILE\n"), err
    (tmp_path / "optimizer.pt").write_bytes(b"")
    code, _, err = run(*words)
    assert code == 1 and err.endswith(f"by --optimizer {tmp_path / 'optimizer.pt'}, as its name suggests\n"), err


def test_a_kind_that_the_user_alone_states_stays_marked(run, tmp_path):
    """The arrays of LAMB have the names of Adam's."""
    state = {f"opt_state/0/{name}/w": np.ones((2, 3), "f4") for name in ("mu", "nu")} | {
        "opt_state/0/count": np.int32(3)
    }
    np.savez(tmp_path / "x.npz", **{"params/w": np.ones((2, 3), "f4")}, **state)
    (tmp_path / "x.table").write_text("table 1: flax <-> flax\nparams/w: i o <-> params/w: i o\n")

    def convert(source, target, *words):
        words = ["--table", tmp_path / "x.table", tmp_path / source, OPTIMIZER, "-o", tmp_path / target, *words]
        code, _, err = run(*words)
        assert code == 0, err
        return err, json.loads((tmp_path / f"{target}.json").read_text())["optimizer"].get("assumed")

    err, assumed = convert("x.npz", "y.msgpack", "--hyper", "kind=adamw")
    assert "note: kind=adamw as you state, not checkable: Adam, AdamW, LAMB, NAdam, " in err and assumed == [KIND]
    err, assumed = convert("y.msgpack", "z.msgpack")
    kept = "note: kind=adamw, stated by --hyper at an earlier conversion: no state shows it"
    assert f"{kept}\n" in err and assumed == [KIND]
    printed = run("inspect", tmp_path / "z.msgpack")[1]
    assert "adamw after 3 steps, as its record says (its kind was stated by --hyper: no state shows it)\n" in printed
    _, assumed = convert("x.npz", "config.msgpack", "--config", tmp_path / "z.msgpack")
    assert assumed == [KIND]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": {"rms": 0.5}}, "is none of SGD with momentum, Adam and AdamW: it keeps exp_avg, exp_avg_sq, rms: "),
        ({"group": {"betas": (0.9, 1.5)}}, "beta2=1.5, and beta2 is from 0 to below 1: a file that has it is damaged"),
        ({"group": {"lr": -0.5}}, "lr=-0.5, and lr is from 0 on: a file that has it is damaged, and --hyper lr=..."),
        ({"dtype": "complex64"}, "w: complex parameters: torch squares real and imaginary parts of a gradient each"),
    ],
    ids=["a plain number", "a beta", "a rate", "complex"],
)
def test_a_state_that_means_something_else_is_refused(changes, said, run, tmp_path):
    needs("torch")
    import torch

    weight = torch.nn.Parameter(torch.ones(2, 3, dtype=getattr(torch, changes.get("dtype", "float32"))))
    optimizer = torch.optim.AdamW([("w", weight)], lr=0.5)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0].update(changes.get("state", {}))
    saved["param_groups"][0].update(changes.get("group", {}))
    torch.save({"model": {"w": weight.detach()}, "optimizer": saved}, tmp_path / "x.pt")
    (tmp_path / "x.table").write_text("table 1: torch <-> flax\nw: o i <-> params/w: i o\n")
    words = ["--table", tmp_path / "x.table", tmp_path / "x.pt", "--weights", "model", OPTIMIZER]
    code, _, err = run(*words, "-o", tmp_path / "x.msgpack")
    assert code in (1, 2) and f"x.pt: {said}" in err.replace("its optimizer is", "is"), err
    assert not (tmp_path / "x.msgpack").exists()
