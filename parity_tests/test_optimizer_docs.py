"""docs/training.md, run as it stands."""

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import ports
from convert.__main__ import main
from specs import config as configs

from .conftest import needs
from .optimizing import config_of

TEXT = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_journey_is_as_long_a_training(tmp_path, monkeypatch, capsys):
    """Five steps in torch and five in flax compute what ten steps in torch do."""
    needs("torch")
    needs("flax")
    monkeypatch.chdir(tmp_path)
    config, rng = config_of("mlp_mixer"), np.random.default_rng(0)
    port = ports.build("mlp_mixer", config, "torch", init="random", dtype="float64")
    shape = (10, 2, *port.spec.input_shape(config))
    batches = list(zip(rng.standard_normal(shape), rng.integers(0, 5, (10, 2)), strict=True))
    Path("config.json").write_text(json.dumps(configs.as_dict(config)))
    there, here = {"config": config, "batches": batches}, {"config": config, "batches": batches}
    exec(BLOCKS[0], there)
    (command,) = re.findall(r"^    (python -m convert torch2flax five.pt.*)$", TEXT, re.MULTILINE)
    assert main(shlex.split(command)[3:]) == 0
    (note,) = re.findall(r"^    (note: .*)$", TEXT, re.MULTILINE)
    assert note in capsys.readouterr().err
    again = ["flax2torch", "five.msgpack", "--with-optimizer", "--config", "five.msgpack", "-o", "back.pt"]
    assert main([*again, "--hyper", "lr=0.001"]) == 0
    checks = re.findall(r"^    (python -m convert diff five.pt back.pt.*)$", TEXT, re.MULTILINE)
    for check, verdict in zip(checks, ("the same in all parts", "the same arrays"), strict=True):
        assert main(shlex.split(check)[3:]) == 0 and verdict in capsys.readouterr().out
    exec(BLOCKS[1], here)
    exec(BLOCKS[0].replace("batches[:5]", "batches"), there)
    images = batches[0][0]
    expected = there["model"](there["torch"].from_numpy(images)).detach().numpy()
    got = np.asarray(here["module"].apply({"params": here["state"].params}, images.transpose(0, 2, 3, 1)))
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()
    exec(BLOCKS[2], here)
    _, inner = here["state"].opt_state
    step, update = inner[0].count, inner[2].count
    assert step == update == 10


def test_a_step_of_flax_trains_running_statistics():
    """By hand: momentum 0.75 of the old mean, 0, and 0.25 of the batch's; nothing else is normalised so."""
    needs("flax")
    import jax
    import optax
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=not train, momentum=0.75, name="norm")(x))

    (block,) = (block for block in BLOCKS if "mutable=" in block)
    images = np.array([[1.0, 8.0], [3.0, 0.0]], np.float32)
    module = Net()
    there = {"module": module, "variables": module.init(jax.random.key(0), images), "tx": optax.adamw(0.5)}
    exec(block, there)
    state = there["step"](there["state"], images, np.array([0, 2]))
    assert state.batch_stats["norm"]["mean"].tolist() == [0.5, 1.0]
    assert not np.array_equal(state.params["Dense_0"]["kernel"], there["state"].params["Dense_0"]["kernel"])


def test_the_hook_trains_biased_variances():
    needs("torch")
    import torch

    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1)).double()
    (block,) = (block for block in BLOCKS if "def biased" in block)
    exec(block, {"model": model})
    batch = torch.tensor([[0.0], [2.0]], dtype=torch.float64)  # biased variance 1, unbiased 2
    model(batch).square().mean().backward(), model(3 * batch).square().mean().backward()
    assert abs(model[0].running_var.item() - (0.9 * 1.0 + 0.1 * 9)) <= 1e-15
    model.eval()(batch)
    assert abs(model[0].running_var.item() - (0.9 * 1.0 + 0.1 * 9)) <= 1e-15


def test_batch_counters_are_taken_from_an_earlier_file(tmp_path, monkeypatch):
    needs("torch")
    import torch

    monkeypatch.chdir(tmp_path)
    for name, steps in (("five.pt", 5), ("ten.pt", 0)):
        state = torch.nn.BatchNorm1d(2).state_dict() | {"num_batches_tracked": torch.tensor(steps)}
        torch.save({"model": state | {"weight": torch.full((2,), steps)}}, name)
    (block,) = (block for block in BLOCKS if "num_batches_tracked" in block)
    exec(block, {"torch": torch})
    saved = torch.load("ten.pt")["model"]
    assert saved["num_batches_tracked"] == 5 and not saved["weight"].any()


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_schedule_of_paddle_goes_on_in_torch(tmp_path, monkeypatch):
    needs("torch")
    import torch

    monkeypatch.chdir(tmp_path)
    rates = [0.001 * (1 + math.cos(math.pi * step / 20)) for step in range(10)]  # as paddle's CosineAnnealingDecay
    model = torch.nn.Linear(2, 1)
    state = torch.optim.AdamW(model.parameters(), lr=rates[5]).state_dict()
    torch.save({"model": model.state_dict(), "optimizer": state}, "five.pt")
    there = {"model": model}
    (block,) = (block for block in BLOCKS if "lr_scheduler" in block)
    exec(block, there)
    for rate in rates[5:]:
        assert there["optimizer"].param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12)
        there["optimizer"].step(), there["scheduler"].step()


def test_a_schedule_of_torch_goes_on_after_five_steps():
    """By the scheduler's own state, and by the constructor that the text shows, which has `initial_lr` alone."""
    needs("torch")
    import torch
    from torch.optim.lr_scheduler import CosineAnnealingLR

    def rates(optimizer, scheduler):
        for _ in range(5):
            yield optimizer.param_groups[0]["lr"]
            optimizer.step(), scheduler.step()

    model = torch.nn.Linear(2, 1)
    first = torch.optim.AdamW(model.parameters(), lr=0.001)
    schedule = CosineAnnealingLR(first, T_max=20)
    list(rates(first, schedule))
    state, own = json.dumps(first.state_dict()), json.dumps(schedule.state_dict())
    expected = list(rates(first, schedule))
    (constructor,) = re.findall(r"`(CosineAnnealingLR\(optimizer, .*?\))`", TEXT)
    optimizer, other = (torch.optim.AdamW(model.parameters(), lr=0.001) for _ in range(2))
    optimizer.load_state_dict(json.loads(state))
    assert list(rates(optimizer, eval(constructor))) == expected
    restored = CosineAnnealingLR(other, T_max=20)
    other.load_state_dict(json.loads(state)), restored.load_state_dict(json.loads(own))
    assert list(rates(other, restored)) == expected


def test_the_configuration_that_it_shows_builds_a_port(tmp_path):
    needs("torch")
    (text,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "config.json").write_text(text)
    port = ports.build("mlp_mixer", str(tmp_path / "config.json"), "torch")
    assert {**configs.as_dict(port.config), **json.loads(text)} == configs.as_dict(port.config)


def test_names_are_added_to_a_file_of_groups(tmp_path, monkeypatch):
    """Two groups whose numbers do not follow model.parameters()."""
    needs("torch")
    import torch

    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    first, second = model[1].parameters(), model[0].parameters()
    optimizer = torch.optim.AdamW([{"params": list(first)}, {"params": list(second), "weight_decay": 0.0}])
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "training.pt")
    (block,) = (block for block in BLOCKS if "param_names" in block)
    exec(block, {"model": model, "optimizer": optimizer})
    groups = torch.load("named.pt")["optimizer"]["param_groups"]
    assert [group["param_names"] for group in groups] == [["1.weight", "1.bias"], ["0.weight", "0.bias"]]


@pytest.mark.parametrize("counted", [True, False])
def test_a_target_gets_the_keys_of_timm(counted, tmp_path, monkeypatch):
    needs("torch")
    import torch

    monkeypatch.chdir(tmp_path)
    weight, other = torch.ones(2), torch.zeros(2)
    average = {"n_averaged": torch.tensor(3), "module.weight": other} if counted else {"weight": other}
    torch.save({"model": {"weight": weight}, "optimizer": {}, "model_ema": average, "epoch": 4}, "out.pt")
    (block,) = (block for block in BLOCKS if "state_dict_ema" in block)
    exec(block, {})
    saved = torch.load("checkpoint-5.pth.tar")
    assert saved.keys() == {"state_dict", "state_dict_ema", "optimizer", "epoch"} and saved["epoch"] == 4
    assert torch.equal(saved["state_dict"]["weight"], weight) and saved["state_dict_ema"].keys() == {"weight"}


def test_the_state_of_one_group_is_given_to_several(tmp_path, monkeypatch):
    """Its moments and its count go on; the rate and the decay are the groups'."""
    needs("torch")
    import torch

    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(2, 1)
    trained = torch.optim.AdamW(model.named_parameters(), lr=0.001)
    model(torch.ones(1, 2)).sum().backward()
    trained.step()
    saved = {"model": model.state_dict(), "optimizer": trained.state_dict()}
    torch.save(saved, "five.pt")
    (block,) = (block for block in BLOCKS if "state.update" in block)
    there = {"model": torch.nn.Linear(2, 1)}
    exec(block, there)
    numbered = {name: saved["optimizer"]["state"][number] for number, name in enumerate(("weight", "bias"))}
    for name, parameter in there["model"].named_parameters():
        entry = there["optimizer"].state[parameter]
        assert entry["step"] == 1 and torch.equal(entry["exp_avg"], numbered[name]["exp_avg"])
    assert [(g["weight_decay"], g["lr"]) for g in there["optimizer"].param_groups] == [(0.05, 0.001), (0.0, 0.0001)]


def test_every_snippet_is_run():
    assert len(BLOCKS) == 18  # also in test_optimizer_hyper.py (paddle), test_optimizer_masters.py, and `loading`


def test_folders_of_accelerate_and_of_the_trainer_go_along(tmp_path, monkeypatch, capsys):
    """safetensors sorts names, and the optimizer numbers parameters: moments go where those of named ones go."""
    needs("torch")
    import torch
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    config = config_of("mlp_mixer")
    Path("config.json").write_text(json.dumps(configs.as_dict(config)))
    model = ports.build("mlp_mixer", config, "torch", init="random").model
    for number, parameter in enumerate(model.parameters(), 1):
        parameter.grad = torch.full_like(parameter, number)
    weights, others = ([p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    trainer = [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    section = TEXT.partition("## A folder of Accelerate or of the Hugging Face Trainer")[2].partition("\n## ")[0]
    commands = re.findall(r"^    (python -m .*)$", section, re.MULTILINE)
    files = ("checkpoint_0/optimizer.bin", "checkpoint-5/optimizer.pt")
    for file, groups, command in zip(files, (model.parameters(), trainer), commands, strict=True):
        optimizer = torch.optim.AdamW(groups, lr=0.001)
        optimizer.step()
        Path(file).parent.mkdir()
        save_file(model.state_dict(), Path(file).parent / "model.safetensors")
        torch.save(optimizer.state_dict(), file)
        assert main([*shlex.split(command)[3:], "--force"]) == 0
        assert "assumed, not known: order of the parameters, as in the code of our port" in capsys.readouterr().err
        again = ["flax2torch", "five.msgpack", "--with-optimizer", "--config", "five.msgpack", "-o", "back.pt"]
        assert main([*again, "--hyper", "lr=0.001", "--force"]) == 0
        back = torch.load("back.pt")["optimizer"]["state"]
        for number, parameter in enumerate(model.parameters()):
            assert torch.equal(back[number]["exp_avg"], optimizer.state[parameter]["exp_avg"]), number


def test_the_momentum_of_sgd_moves_into_a_schedule():
    """The expressions that stand in the text: where the trace is, and what sets the count of the schedule."""
    needs("flax")
    import jax
    import optax
    from flax.training.train_state import TrainState

    moved, trace = re.search(r"`(tree_set\(tx.init\(.*trace=(state.opt_state\[0\].trace)\))`", TEXT).groups()
    (chained,) = re.findall(r"the momentum is\s+`(state.opt_state.*?)`", TEXT)
    decay = optax.add_decayed_weights(0.125)
    tx = optax.sgd(optax.linear_schedule(1.0, 0.0, 10), momentum=0.75)
    for first, place in ((optax.identity(), None), (decay, chained)):
        sgd = optax.sgd(0.5, momentum=0.75)
        start = TrainState.create(apply_fn=None, params={"w": np.ones(2)}, tx=optax.chain(first, sgd) if place else sgd)
        state = start.apply_gradients(grads={"w": np.array([1.0, 3.0])})
        there = {"tree_set": optax.tree_utils.tree_set, "tx": tx, "state": state}
        opt_state = eval(moved.replace(trace, place or trace), there)
        assert np.array_equal(opt_state[0].trace["w"], state.opt_state[1][0].trace["w"] if place else [1.0, 3.0])
        assert [int(count) for count in jax.tree.leaves(opt_state) if np.ndim(count) == 0] == [5]


def test_the_journey_from_paddle_comes_back(tmp_path, monkeypatch, capsys):
    """The average, the moments, the epoch and, until torch goes on, the schedule go to torch and back."""
    needs("torch")
    needs("paddle")
    import paddle
    import torch

    monkeypatch.chdir(tmp_path)
    config, rng = config_of("mlp_mixer"), np.random.default_rng(0)
    shape = (5, 2, *ports.build("mlp_mixer", config, "torch").spec.input_shape(config))
    batches = list(zip(rng.standard_normal(shape), rng.integers(0, 5, (5, 2)), strict=True))
    Path("config.json").write_text(json.dumps(configs.as_dict(config)))
    section = TEXT.partition("## A journey that starts in paddle")[2].partition("\n## ")[0]
    train, commands, load, checks = ("\n".join(re.findall(r"^    (.*)$|^$", block, re.MULTILINE)) for block in
                             re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE))  # fmt: skip
    values = {"config": config, "batches": batches}
    exec(train, values)
    assert all(average.stop_gradient for average in values["ema"].values())  # no graph is kept
    before = paddle.load("pd.pdparams"), paddle.load("pd.pdopt")
    for command in commands.split("\n"):
        assert main(shlex.split(command)[3:]) == 0 if command else True
    exec(load, values)
    after = values["saved"]
    assert after["epoch"] == before[0]["epoch"] == 1
    for place in ("model", "model_ema"):
        assert all((value == after[place][name]).all() for name, value in before[0][place].items())
    assert after["optimizer"]["LR_Scheduler"] == before[1].pop("LR_Scheduler")
    assert before[1] and all((value == after["optimizer"][name]).all() for name, value in before[1].items())
    assert [main(shlex.split(check)[3:]) for check in checks.strip().split("\n")] == [0, 0]
    trained = torch.load("pd.pt")
    trained["model"]["head.bias"] += 1
    torch.save(trained, "pd.pt")
    assert main([*shlex.split(commands.strip().split("\n")[-1])[3:], "--force"]) == 0
    assert "LR_Scheduler" not in paddle.load("back.pdparams")["optimizer"]
    assert "paddle's learning-rate scheduler needs an entry in the state: " in capsys.readouterr().err


def test_an_optimizer_that_also_trains_a_loss_of_paddle_is_saved_without_it(tmp_path, monkeypatch, capsys):
    needs("paddle")
    import paddle

    monkeypatch.chdir(tmp_path)
    Path("net.table").write_text("table 1: paddle <-> torch\nweight: i o <-> weight: o i\nbias: o <-> bias: o\n")
    model, loss = paddle.nn.Linear(3, 2), paddle.nn.Linear(2, 2)
    optimizer = paddle.optimizer.AdamW(
        paddle.optimizer.lr.StepDecay(0.5, 10), parameters=model.parameters() + loss.parameters()
    )
    loss(model(paddle.ones([1, 3]))).sum().backward()
    optimizer.step()
    paddle.save(model.state_dict(), "five.pdparams"), paddle.save(optimizer.state_dict(), "five.pdopt")
    words = ["--table", "net.table", "five.pdparams", "--with-optimizer", "-o", "x.msgpack", "--hyper", "kind=adamw"]
    assert main(words) == 1
    which = f"has moments of {loss.weight.name}, {loss.bias.name}, which the weights lack; all weights have moments of"
    cause = (
        "their own shape: the optimizer also trains parameters outside of these weights, as of a loss or a second ne"
    )
    assert f"{which} {cause}" in capsys.readouterr().err
    state, key = optimizer.state_dict(), f"{model.bias.name}_moment2_0"
    paddle.save({f"{'renamed_' * (name == key)}{name}": value for name, value in state.items()}, "renamed.pdopt")
    assert main([*words, "--optimizer", "renamed.pdopt"]) == 1
    halves = f"moment2 and no moment1 of renamed_{model.bias.name}, which the weights lack; moment1 and no moment2 of"
    assert f"has {halves} bias ({model.bias.name}): its optimizer is incomplete, or keys" in capsys.readouterr().err
    (block,) = (block for block in BLOCKS if '"own.pdopt"' in block)
    exec(block, {"paddle": paddle})
    assert main([*words, "--optimizer", "own.pdopt"]) == 0
    assert "set aside: paddle's learning-rate scheduler" in capsys.readouterr().err
