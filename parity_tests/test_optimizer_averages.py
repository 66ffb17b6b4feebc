"""Averages of the weights (EMA) move with the state of the optimizer, come back bit for bit, and go on elsewhere."""

import json
import pickle
import re

import numpy as np
import pytest

from convert.files import open_checkpoint
from convert.plans.planning import plan

from .conftest import needs
from .optimizing import Torch, batches, config_of, save_config
from .test_parts import arrays as numpy_arrays
from .test_parts import save
from .test_routes import write_numbers

TABLE = """table 1: torch <-> other
first.weight: o i  <->  params/first/kernel: i o
first.bias: o      <->  params/first/bias: o
last.weight: o i   <->  params/last/kernel: i o
last.bias: o       <->  params/last/bias: o
"""
DECAY = 0.875
HYPER = ["lr=0.015625", "beta1=0.75", "beta2=0.9375", "eps=0.001953125", "weight_decay=0.125", "kind=adamw"]
STATED = [word for text in HYPER for word in ("--hyper", text)]
RNG = np.random.default_rng(0)
BATCHES = [(RNG.standard_normal((4, 3)), RNG.standard_normal((4, 2))) for _ in range(10)]


class InTorch:
    """Two layers, AdamW, and torch's own average of the weights."""

    def __init__(self):
        import torch
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = torch.nn.Linear(3, 5), torch.nn.Linear(5, 2)

            def forward(self, x):
                return self.last(torch.tanh(self.first(x)))

        torch.manual_seed(0)
        self.model = Net().double()
        adamw = {"lr": 0.015625, "betas": (0.75, 0.9375), "eps": 0.001953125, "weight_decay": 0.125}
        self.optimizer = torch.optim.AdamW(self.model.named_parameters(), **adamw)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))

    def train(self, some):
        import torch

        for x, y in some:
            self.optimizer.zero_grad()
            ((self.model(torch.from_numpy(x)) - torch.from_numpy(y)) ** 2).mean().backward()
            self.optimizer.step()
            self.average.update_parameters(self.model)

    def saved(self):
        parts = {"model": self.model, "optimizer": self.optimizer, "model_ema": self.average}
        return {name: part.state_dict() for name, part in parts.items()}


def arrays(path):
    with open_checkpoint(path) as reader:
        return {name: (t.dtype, t.shape, bytes(reader.read(name))) for name, t in reader.tensors.items()}


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """The files of five steps in torch, and the training itself, to go on."""
    needs("torch")
    import torch

    folder, run = tmp_path_factory.mktemp("five"), InTorch()
    torch.save(run.model.state_dict(), folder / "new.pt")
    run.train(BATCHES[:5])
    torch.save(run.saved(), folder / "five.pt")
    (folder / "net.table").write_text(TABLE)
    run.train(BATCHES[5:])
    return folder, run


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_note_says_how_dcp_loads_an_average(five, run, tmp_path):
    import torch
    import torch.distributed.checkpoint as dcp

    folder, _ = five
    words = ["--table", folder / "net.table", "--with-optimizer", "--like", folder / "new.pt"]
    there, back = tmp_path / "there.msgpack", tmp_path / "back.dcp"
    assert run(*words[:3], folder / "five.pt", "--weights", "model", "-o", there)[0] == 0
    code, _, err = run(*words, "--reverse", there, "-o", back, *STATED)
    assert code == 0, err
    (call,) = re.findall(r"(saved = .*; dcp\.load\(.*\); averaged.*)\n", err)
    averaged = InTorch().average
    exec(call.replace("...", "back, no_dist=True"), {"averaged": averaged, "dcp": dcp, "back": back})
    expected = torch.load(folder / "five.pt")["model_ema"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in averaged.state_dict().items())


def test_an_average_goes_to_flax_goes_on_there_and_comes_back(five, run, tmp_path):
    needs("flax")
    import jax
    import jax.numpy as jnp
    import optax
    from flax import serialization
    from flax.training.train_state import TrainState

    folder, ten = five
    words = ["--table", folder / "net.table", "--with-optimizer"]
    there, back = tmp_path / "there.msgpack", tmp_path / "back.pt"
    code, _, err = run(*words, folder / "five.pt", "--weights", "model", "-o", there)
    assert code == 0, err
    assert "the average of the weights goes along: model_ema -> ema_params" in err
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert "build its optimizer as" in notes[0] and "goes along" in notes[-1], notes  # what to do comes first
    assert "its count of 5 averages goes into the record, as " in err and "set aside" not in err
    record = json.loads(there.with_name("there.msgpack.json").read_text())
    assert record["optimizer"]["averages"] == [{"from": "model_ema", "to": "ema_params", "averaged": 5}]
    words += ["--reverse", there, "-o", back, "--like", folder / "new.pt", *STATED]
    code, printed, err = run(*words)
    assert code == 0, err
    assert "4 arrays of the model, 5 of its average and 12 of its optimizer" in printed, printed
    assert "averaged.load_state_dict" in err and "note: from the record: averaged=5\n" in err
    assert {n: a for n, a in arrays(back).items() if "param_groups" not in n} == arrays(folder / "five.pt")

    class State(TrainState):
        ema_params: dict

    with jax.enable_x64(True):
        tx = optax.adamw(0.015625, b1=0.75, b2=0.9375, eps=0.001953125, weight_decay=0.125)
        params = serialization.msgpack_restore(there.read_bytes())["params"]
        state = State.create(apply_fn=None, params=params, ema_params=params, tx=tx)
        state = jax.tree.map(jnp.asarray, serialization.from_bytes(state, there.read_bytes()))

        @jax.jit
        def step(state, x, y):
            def loss(params):
                hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
                return ((hidden @ params["last"]["kernel"] + params["last"]["bias"] - y) ** 2).mean()

            state = state.apply_gradients(grads=jax.grad(loss)(state.params))
            return state.replace(ema_params=optax.incremental_update(state.params, state.ema_params, 1 - DECAY))

        for x, y in BATCHES[5:]:
            state = step(state, x, y)
    for name, tensor in ten.average.module.state_dict().items():
        layer, leaf = name.split(".")
        got = np.asarray(state.ema_params[layer]["kernel" if leaf == "weight" else leaf])
        np.testing.assert_allclose(got.T if leaf == "weight" else got, tensor.numpy(), rtol=1e-9)


def test_an_average_goes_to_paddle_goes_on_there_and_comes_back(five, run, tmp_path):
    needs("paddle")
    import paddle

    folder, ten = five

    class Net(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.last = paddle.nn.Linear(3, 5), paddle.nn.Linear(5, 2)

        def forward(self, x):
            return self.last(paddle.tanh(self.first(x)))

    model = Net().to(dtype="float64")
    paddle.save(model.state_dict(), str(tmp_path / "new.pdparams"))
    table = tmp_path / "net.table"
    table.write_text(TABLE.replace("params/", "").replace("/kernel", ".weight").replace("/bias", ".bias"))
    words = ["--table", table, "--weights", "model", "--with-optimizer"]
    there, back = tmp_path / "there.pdparams", tmp_path / "back.pt"
    code, _, err = run(*words, folder / "five.pt", "--like", tmp_path / "new.pdparams", "-o", there)
    assert code == 0, err
    assert "the average of the weights goes along: model_ema -> model_ema" in err
    code, _, err = run(
        *words, there, "--reverse", "--like", folder / "new.pt", "-o", back, *STATED, "--hyper", "averaged=5"
    )
    assert code == 0 and "from the record: averaged" not in err, err
    assert {n: a for n, a in arrays(back).items() if "param_groups" not in n} == arrays(folder / "five.pt")

    saved = paddle.load(str(there))
    model.set_state_dict(saved["model"])
    parameters = {"parameters": model.parameters(), "learning_rate": 0.015625, "weight_decay": 0.125}
    adamw = paddle.optimizer.AdamW(beta1=0.75, beta2=0.9375, epsilon=0.001953125, **parameters)
    adamw.set_state_dict(saved["optimizer"])
    average = {name: tensor.numpy() for name, tensor in saved["model_ema"].items()}
    for x, y in BATCHES[5:]:
        ((model(paddle.to_tensor(x)) - paddle.to_tensor(y)) ** 2).mean().backward()
        adamw.step(), adamw.clear_grad()
        average = {n: DECAY * a + (1 - DECAY) * model.state_dict()[n].numpy() for n, a in average.items()}
    for name, tensor in ten.average.module.state_dict().items():
        got = average[name].T if name.endswith("weight") else average[name]
        np.testing.assert_allclose(got, tensor.numpy(), rtol=1e-9)


@pytest.fixture(scope="module")
def normed(tmp_path_factory):
    """A checkpoint of a network with batch norms, its configuration, and an average as timm stores it."""
    needs("torch")
    import torch

    folder, model = tmp_path_factory.mktemp("normed"), Torch("convmixer", "adamw")
    model.train(batches("convmixer")[:1])
    state = model.model.state_dict()
    average = {name: tensor / 2 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    saved = {"state_dict": state, "optimizer": model.optimizer.state_dict(), "state_dict_ema": average}
    torch.save(saved, folder / "m.pt")
    return folder / "m.pt", save_config("convmixer", folder / "config.json"), saved


def test_the_record_counts_averages_until_its_file_is_changed(five, run, tmp_path):
    """What the user states goes above it; a count of 0 is warned of, as torch's next average copies the weights."""
    folder, _ = five
    words, there = ["--table", folder / "net.table", "--with-optimizer"], tmp_path / "there.msgpack"
    code, _, err = run(*words, folder / "five.pt", "--weights", "model", "-o", there)
    assert code == 0, err
    words += ["--reverse", "--like", folder / "new.pt", *STATED]
    for stated, count in (((), 5), (("--hyper", "averaged=7"), 7), (("--hyper", "averaged=0"), 0)):
        code, _, err = run(*words, there, "-o", tmp_path / f"{count}.pt", *stated)
        assert code == 0, err
        assert int.from_bytes(arrays(tmp_path / f"{count}.pt")["model_ema/n_averaged"][2], "little") == count
        assert (f"note: averaged={count} as you state; the record has 5\n" in err) is bool(stated)
        assert ("warning: --hyper averaged=0: at a count of 0, the next update of an" in err) is (count == 0)
    record = there.with_name("there.msgpack.json")
    record.write_text(record.read_text().replace('"averaged": 5', '"averaged": 6'))
    code, _, err = run(*words, there, "-o", tmp_path / "damaged.pt")
    assert code == 0 and "averaged=6" not in err and "the source does not count its averages" in err, err
    assert "an equal average (SWA) needs the number of models in it" in err and "use_buffers" not in err


def test_an_average_of_running_statistics_goes_along(normed, run, tmp_path):
    """By a route: the average is what the same route makes of it alone."""
    path, config, _ = normed
    out, alone = tmp_path / "out.msgpack", tmp_path / "alone.msgpack"
    words = ["torch2flax", path, "--config", config, "-o"]
    code, _, err = run(*words, out, "--with-optimizer")
    assert code == 0, err
    assert "state_dict_ema -> ema_params, ema_batch_stats" in err and "set aside" not in err
    assert run(*words, alone, "--weights", "state_dict_ema")[0] == 0
    got = {name[4:]: array for name, array in arrays(out).items() if name.startswith("ema_")}
    assert got == arrays(alone)
    assert run(*words, tmp_path / "x.msgpack", "--with-optimizer", "--weights", "state_dict_ema")[0] == 2
    back = ["flax2torch", out, "--config", config, "-o", tmp_path / "back.pt", "--with-optimizer"]
    code, _, err = run(*back, "--hyper", "lr=0.5")
    assert code == 0 and "the average of the weights goes along: ema_params, ema_batch_stats -> model_ema" in err, err
    assert "the average has running statistics, as norm.running_mean: " in err and "use_buffers=True" in err
    code, _, err = run(*back, "--weights", "ema_params")
    assert code == 2 and f"{out}: --weights ema_params takes an average of the weights" in err, err
    with plan(out) as again:
        assert {entry.name for entry in again.aside} >= {"ema_params/", "ema_batch_stats/"}


def resaved(normed, path, **changes):
    import torch

    torch.save({**normed[2], **changes}, path)
    return ["torch2flax", path, "--config", normed[1], "-o", path.with_suffix(".msgpack"), "--with-optimizer"]


def test_an_average_that_does_not_fit_stays_behind(normed, run, tmp_path):
    average = dict(normed[2]["state_dict_ema"])
    name = next(iter(average))
    for number, (change, reason) in enumerate(
        (
            ({name: average[name][:1]}, f"{name} has shape"),
            ({name + "_extra": average[name]}, f"also contains state_dict_ema/{name}_extra"),
        )
    ):
        words = resaved(normed, tmp_path / f"{number}.pt", state_dict_ema={**average, **change})
        code, _, err = run(*words)
        assert code == 0 and "the average of the weights under state_dict_ema stays behind: " in err and reason in err
    lacking = {other: tensor for other, tensor in average.items() if other != name}
    code, _, err = run(*resaved(normed, tmp_path / "l.pt", state_dict_ema=lacking))
    assert code == 0 and f"the average of the weights under state_dict_ema stays behind: it lacks {name}" in err
    numbered = {"shadow_params": list(average.values()), "num_updates": 5}
    code, _, err = run(*resaved(normed, tmp_path / "n.pt", state_dict_ema=numbered))
    assert code == 0 and "state_dict_ema stays behind: its arrays have numbers, and no names of weights" in err
    assert "set aside state_dict_ema/num_updates (plain numbers)\n" in err, err
    code, _, err = run(*resaved(normed, tmp_path / "two.pt", swa=average))
    assert code == 0 and "as no training state has room for several: state_dict_ema, swa" in err
    assert "(--weights state_dict_ema converts one alone, " in err
    _, _, listed = run(*resaved(normed, tmp_path / "list.pt", swa=average, state_dict_ema=numbered))
    assert "(--weights swa converts one alone, " in listed  # the other has numbers, and no names of weights
    record = json.loads((tmp_path / "two.msgpack.json").read_text())
    assert [line["to"] for line in record["optimizer"]["averages"]] == [None, None]


def test_a_copy_that_stays_behind_is_named_once(normed, run, tmp_path):
    """Of a .pdopt because it has no weights, which is all that its counters and its arrays come to."""
    path, config, saved = normed
    assert run("torch2paddle", path, "--config", config, "-o", tmp_path / "m.pdparams")[0] == 0
    tensors = open_checkpoint(tmp_path / "m.pdparams").tensors.values()
    names = {tensor.name: f"layer_{k}.w_0" for k, tensor in enumerate(tensors)}
    new = {tensor.name: np.zeros(tensor.shape) for tensor in tensors}
    (tmp_path / "new.pdparams").write_bytes(pickle.dumps({**new, "StructuredToParameterName@@": names}))
    words = ["--config", config, "--with-optimizer", "--like", tmp_path / "new.pdparams"]
    code, _, err = run("torch2paddle", path, *words, "-o", tmp_path / "m.pdopt")
    assert code == 0, err
    assert "a .pdopt has no weights and no average (state_dict_ema): convert once more with --like new.pdparams" in err
    assert err.count("state_dict_ema") == 1 and "average stay" not in err, err
    several = resaved(normed, tmp_path / "two.pt", swa=saved["state_dict_ema"])
    assert "set aside" not in run(*several)[2]


def test_sums_of_optax_are_no_weights(run, tmp_path):
    """optax.ema begins at 0: a place of weights would hold other numbers. Another TrainState holds it as it is."""
    needs("flax")
    import optax
    from flax import serialization
    from flax.training.train_state import TrainState

    params = {n: {"kernel": np.ones(s, "float32"), "bias": np.ones(s[1:], "float32")} for n, s in SHAPES.items()}
    ema = optax.ema(DECAY)
    _, average = ema.update(params, ema.init(params))
    state = TrainState.create(apply_fn=None, params=params, tx=optax.adam(0.1))
    saved = {**serialization.to_state_dict(state), "ema_state": serialization.to_state_dict(average)}
    (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(saved))
    (tmp_path / "net.table").write_text(TABLE)
    (tmp_path / "same.table").write_text("table 1: a <-> b\n" + "".join(SAME))
    with_optimizer = ["--with-optimizer", *STATED]
    code, _, err = run(
        "--table", tmp_path / "same.table", tmp_path / "m.msgpack", "-o", tmp_path / "s.msgpack", *with_optimizer
    )
    assert code == 0, err
    same = serialization.msgpack_restore((tmp_path / "s.msgpack").read_bytes())["ema_state"]
    assert same["count"] == 1 and np.array_equal(same["ema"]["first"]["bias"], average.ema["first"]["bias"])
    needs("torch")
    import torch

    torch.save({n: torch.zeros(s) for n, s in TORCH.items()}, tmp_path / "new.pt")
    words = ["--reverse", tmp_path / "m.msgpack", "-o", tmp_path / "o.pt", "--like", tmp_path / "new.pt"]
    code, _, err = run("--table", tmp_path / "net.table", *words, *with_optimizer)
    assert code == 0, err
    assert "the average of the weights under ema_state stays behind: optax.ema begins at 0" in err
    assert not [name for name in arrays(tmp_path / "o.pt") if "ema" in name]


@pytest.mark.parametrize("labels", ["one", "two"])
def test_optimizers_by_labels_are_one_only_where_one_has_every_parameter(labels, run, tmp_path):
    """SGD without momentum keeps no arrays, so that optax.multi_transform's state shows Adam's alone."""
    needs("flax")
    import optax
    from flax import serialization
    from flax.training.train_state import TrainState

    params = {n: {"kernel": np.ones(s, "float32"), "bias": np.ones(s[1:], "float32")} for n, s in SHAPES.items()}
    names = {n: {"kernel": "a", "bias": "b" if labels == "two" else "a"} for n in SHAPES}
    both = optax.multi_transform({"a": optax.adam(0.1), "b": optax.sgd(0.1)}, names)
    state = TrainState.create(apply_fn=None, params=params, tx=both)
    (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(state))
    (tmp_path / "same.table").write_text("table 1: a <-> b\n" + "".join(SAME))
    words = ["--table", tmp_path / "same.table", tmp_path / "m.msgpack", "-o", tmp_path / "s.msgpack"]
    code, _, err = run(*words, "--with-optimizer", *STATED)
    if labels == "one":
        assert code == 0, err
    else:
        assert code == 1 and not (tmp_path / "s.msgpack").exists()
        assert (
            "optax.multi_transform keeps no moments of params/first/bias, params/last/bias, as several optimizers"
            in err
        )


SHAPES = {"first": (3, 5), "last": (5, 2)}
SAME = [
    f"params/{n}/{leaf}: {axes} <-> params/{n}/{leaf}: {axes}\n"
    for n in SHAPES
    for leaf, axes in (("kernel", "i o"), ("bias", "o"))
]
TORCH = {"first.weight": (5, 3), "first.bias": (5,), "last.weight": (2, 5), "last.bias": (2,)}


def test_replicas(run, tmp_path):
    """Of the weights, the state and the average: one of each is taken; of hosts and devices, none."""
    config = config_of("mlp_mixer")
    write_numbers(tmp_path / "w.msgpack", "mlp_mixer", config, "flax")
    weights = numpy_arrays(tmp_path / "w.msgpack")
    state = {n: np.array(3, "i4") for n in ("step", "opt_state/0/count")}
    for name, array in weights.items():
        rest = name.removeprefix("params/")
        state |= {f"opt_state/0/{slot}/{rest}": array for slot in ("mu", "nu")} | {f"ema_params/{rest}": array}
    words = ["flax2torch", tmp_path / "m.msgpack", "-o", tmp_path / "o.pt", "--with-optimizer", "--force"]
    words += ["--config", save_config("mlp_mixer", tmp_path / "config.json"), *STATED]
    made = []
    for axes in ((), (4,)):
        save(tmp_path / "m.msgpack", {n: stacked(a, *axes) for n, a in {**weights, **state}.items()})
        code, _, err = run(*words, *(["--unreplicate"] if axes else []))
        assert code == 0 and "ema_params -> model_ema" in err, err
        made.append(arrays(tmp_path / "o.pt"))
    assert "took the first of 4 replicas of the average of the weights, which are equal" in err
    assert made[0] == made[1]
    save(tmp_path / "m.msgpack", {**weights, **{n: stacked(a, 4) for n, a in state.items() if "ema" not in n}})
    code, _, err = run(*words)
    assert code == 1 and "and the weights have none: a conversion with --unreplicate takes one" in err
    assert run(*words, "--unreplicate")[0] == 0
    assert arrays(tmp_path / "o.pt").items() <= made[0].items()
    save(tmp_path / "m.msgpack", {**weights, **state})
    code, _, err = run(*words, "--unreplicate")
    assert code == 2 and "--unreplicate: its arrays fit as they are: leave out --unreplicate" in err
    for twice, what in (({**weights, **state}, "every array has"), (state, "every array of its optimizer's state has")):
        save(tmp_path / "m.msgpack", {**weights, **{n: stacked(a, 2, 4) for n, a in twice.items()}})
        code, _, err = run(*words)
        assert code == 1 and f"{what} two leading axes, of 2 and 4, as " in err and "array[0, 0]" in err


def stacked(array, *axes):
    return np.broadcast_to(array, (*axes, *np.shape(array))).copy()


def test_batch_counters_of_an_average_are_not_passed_off_as_its_own(run, tmp_path):
    """flax stores none: the model's come back in their place, with a note and marked in the record."""
    needs("torch")
    import torch
    from torch.optim.swa_utils import AveragedModel

    from .test_pickled_modules import convmixer

    model = convmixer(depth=2).double()
    model(torch.ones(2, 3, 8, 8, dtype=torch.double)).sum().backward()
    optimizer, average = torch.optim.SGD(model.parameters(), 0.5, momentum=0.5), AveragedModel(model)
    optimizer.step()
    average.update_parameters(model)
    for _ in range(3):
        model(torch.ones(2, 3, 8, 8, dtype=torch.double))
    parts = {"model": model, "optimizer": optimizer, "model_ema": average}
    torch.save({name: part.state_dict() for name, part in parts.items()}, tmp_path / "m.pt")
    words = ["--with-optimizer", "--set", "act=gelu"]
    code, _, err = run("official2flax", tmp_path / "m.pt", *words, "-o", tmp_path / "there.msgpack")
    assert code == 0, err
    assert "ema_params, ema_batch_stats, without its 5 batch counters, for which the target has no place\n" in err
    assert (
        "5 batch counters stay in the record alone, which a conversion back reads, as flax stores none: model/" in err
    )
    order = ["--like", tmp_path / "new.pt", "--hyper", "averaged=1"]
    torch.save(model.state_dict(), tmp_path / "new.pt")
    code, _, err = run("flax2official", tmp_path / "there.msgpack", *words, *order, "-o", tmp_path / "back.pt")
    assert code == 0, err
    assert (
        "ema_params, ema_batch_stats lacks arrays that the target's average has: the model's own stand for them: "
        in err
    )
    assert "num_batches_tracked" in err
    back = torch.load(tmp_path / "back.pt")
    assert (back["model"]["2.num_batches_tracked"], back["model_ema"]["module.2.num_batches_tracked"]) == (4, 4)
    record = json.loads((tmp_path / "back.pt.json").read_text())
    counters = [f"model_ema/module.{name}" for name in model.state_dict() if name.endswith("num_batches_tracked")]
    assert record["supplied"] == counters
    code, _, err = run("official2torch", tmp_path / "m.pt", *words, "-o", tmp_path / "same.pt")
    assert code == 0 and "batch counter" not in err and "none of its own" not in err
    assert torch.load(tmp_path / "same.pt")["model_ema"]["module.norm.num_batches_tracked"] == 1
