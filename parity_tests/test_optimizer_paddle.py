"""paddle's own names of parameters, by which its optimizer's moments are found: in two files, and on the way back."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from convert.files import open_checkpoint
from convert.optimizer.account import REACHED

from .conftest import needs
from .optimizing import trained_mixer
from .test_optimizer_hyper import SHAPES, TABLE

OPTIMIZER = "--with-optimizer"
NAMES = "StructuredToParameterName@@"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny Mixer after 3 steps of torch's AdamW, and its configuration."""
    needs("torch")
    return trained_mixer(tmp_path_factory.mktemp("mixer"))


@pytest.fixture
def new(trained, run, tmp_path):
    """A new model as paddle saves it: paddle calls the parameters of `names` by their numbers."""
    file, config = trained
    assert run("torch2paddle", file, "--config", config, "-o", tmp_path / "arrays.pdparams")[0] == 0

    def save(name, first=0, names=True):
        with open_checkpoint(tmp_path / "arrays.pdparams") as reader:
            weights = {t.name: np.zeros(t.shape, t.dtype) for t in reader.tensors.values()}
        own = {NAMES: {weight: f"layer_{first + k}.w_0" for k, weight in enumerate(weights)}} if names else {}
        (tmp_path / name).write_bytes(pickle.dumps({**weights, **own}))
        return tmp_path / name

    return save


def test_weights_and_optimizer_in_two_files_come_back(trained, new, run, tmp_path):
    """No paddle process writes either; the record of the .pdopt says what paddle's files do not."""
    file, config = trained
    like = ["--like", new("new.pdparams")]
    assert run("torch2paddle", file, "--config", config, *like, "-o", tmp_path / "x.pdparams")[0] == 0
    code, printed, _ = run("torch2paddle", file, "--config", config, *like, OPTIMIZER, "-o", tmp_path / "x.pdopt")
    assert code == 0 and "x.pdopt (format pdopt, " in printed
    first = f"record:       x.pdopt.json, written from {file.name}\nformat:       pdopt\n"
    inspected = run("inspect", tmp_path / "x.pdopt")[1]
    model = "dialect:      paddle\narchitecture: mlp_mixer\nvariant:      no official variant\nelements:"
    assert inspected.startswith(first + model) and "unknown" not in inspected
    assert "optimizer:    adamw after 3 steps lr=9.765625e-4 " in inspected, inspected
    with open_checkpoint(tmp_path / "x.pdparams") as reader:
        assert set(reader.parameter_names.values()) == {f"layer_{k}.w_0" for k in range(len(reader.tensors))}
    code, _, err = run("paddle2torch", tmp_path / "x.pdparams", OPTIMIZER, "-o", tmp_path / "x.pt")
    assert code == 0 and "from the record: lr=9.765625e-4, eps=1.953125e-3, weight_decay=0.125, kind=adamw" in err, err
    for part in ("model", "optimizer"):
        code, printed, _ = run(
            "diff", file, tmp_path / "x.pt", "--weights", part, "--weights", part, "--config", config
        )
        assert (code, "every element equal" in printed) == (0, True), printed


def test_plain_sgd_of_torch_keeps_no_state(trained, run, tmp_path):
    import torch

    file, config = trained
    saved = torch.load(file, weights_only=True)
    optimizer = torch.optim.SGD(map(torch.nn.Parameter, saved["model"].values()), lr=0.1)
    torch.save({"model": saved["model"], "optimizer": optimizer.state_dict()}, tmp_path / "plain.pt")
    words = ["torch2flax", tmp_path / "plain.pt", "--config", config, OPTIMIZER, "-o", tmp_path / "x.msgpack"]
    code, _, err = run(*words)
    assert code == 1 and "its optimizer keeps no arrays: plain SGD keeps no state, nor does" in err, err
    assert "none of SGD" not in err


def test_names_for_weights_alone_are_paddles(trained, new, run, tmp_path):
    file, config = trained
    words = ["--config", config, "--like", new("new.pdparams")]
    code, _, err = run("torch2flax", file, *words, "-o", tmp_path / "x.msgpack")
    assert code == 2 and "or is of the state of an optimizer: add --with-optimizer" in err, err
    code, _, err = run("torch2paddle", file, *words, "-o", tmp_path / "x.safetensors")
    assert code == 2 and "nor paddle's own names of them" in err, err
    words = ["--config", config, "--like", new("numpy.pdparams", names=False)]
    for more in ([], [OPTIMIZER]):
        code, _, err = run("torch2paddle", file, *words, *more, "-o", tmp_path / "x.pdparams")
        assert code == 2 and "numpy.pdparams: has no names of paddle's own (linear_0.w_0)" in err, err


def test_weights_alone_go_into_no_pdopt(trained, new, run, tmp_path):
    file, config = trained
    words = ["--config", config, "--like", new("new.pdparams"), "-o", tmp_path / "x.pdopt"]
    code, _, err = run("torch2paddle", file, *words)
    assert code == 2 and "a .pdopt holds the state of an optimizer alone: add --with-optimizer, or give a .pdpar" in err
    assert not (tmp_path / "x.pdopt").exists()


def test_a_pdopt_has_no_part_of_weights_and_numbers_stay_in_its_record(trained, new, run, tmp_path):
    import torch

    file, config = trained
    torch.save({**torch.load(file), "epoch": 1}, tmp_path / "own.pt")
    like = [OPTIMIZER, "--like", new("new.pdparams")]
    words = ["--config", config, "-o", tmp_path / "both.pdparams"]
    assert run("torch2paddle", tmp_path / "own.pt", *like, *words)[0] == 0
    words = [OPTIMIZER, "-o", tmp_path / "x.msgpack"]
    code, _, err = run("paddle2flax", tmp_path / "both.pdparams", *words)
    assert code == 0 and "go into the record alone, from which" in err, err
    code, _, err = run("flax2paddle", tmp_path / "x.msgpack", *like, "-o", tmp_path / "x.pdopt")
    assert code == 0 and "had them under" not in err, err
    assert "beside the state stay in the record alone, from which" in err and err.count("the record alone") == 1, err
    code, _, err = run("flax2paddle", tmp_path / "x.msgpack", "-o", tmp_path / "x.pdparams")
    assert code == 0 and "had them under 'model': they are written without it" in err, err


def test_moments_of_other_names_are_another_models(trained, new, run, tmp_path):
    file, config = trained
    words = ["--config", config, "--like", new("new.pdparams")]
    assert run("torch2paddle", file, *words, OPTIMIZER, "-o", tmp_path / "x.pdopt")[0] == 0
    words = [OPTIMIZER, "--optimizer", tmp_path / "x.pdopt", "--config", config, "-o", tmp_path / "x.pt"]
    code, _, err = run("paddle2torch", new("later.pdparams", first=1), *words)
    assert code == 1, err
    assert "has moments of layer_0.w_0, which the weights lack; the weights without moments are layer_" in err, err
    assert "the optimizer is another model's, or of another process: convert the .pdparams that paddle.save(" in err
    nameless, named = new("nameless.pdparams", names=False), tmp_path / "named.pdparams"
    code, _, err = run("paddle2torch", nameless, *words)
    assert code == 1 and "the weights have no names of paddle's: " in err, err
    assert "or first convert the weights alone to a .pdparams with --like new.pdparams, a model with these names" in err
    assert err.endswith(f", and then that file with --optimizer {tmp_path / 'x.pdopt'}\n"), err
    code, _, err = run("paddle2paddle", nameless, "--config", config, "--like", tmp_path / "new.pdparams", "-o", named)
    assert code == 0, err
    code, _, err = run("paddle2torch", named, *words, "--hyper", "kind=adamw")
    assert code == 0, err


def test_from_paddle_to_paddle_names_stay(trained, new, run, tmp_path):
    """As where only the dtype changes: no new model is asked for, as the source has the names."""
    file, config = trained
    words = ["--config", config, "--like", new("new.pdparams")]
    assert run("torch2paddle", file, *words, OPTIMIZER, "-o", tmp_path / "x.pdparams")[0] == 0
    words = [OPTIMIZER, "--dtype", "float32", "-o", tmp_path / "y.pdparams"]
    code, _, err = run("paddle2paddle", tmp_path / "x.pdparams", *words)
    assert code == 0, err
    with open_checkpoint(tmp_path / "x.pdparams") as one, open_checkpoint(tmp_path / "y.pdparams") as other:
        assert one.parameter_names == other.parameter_names != {}
        assert one.tensors.keys() == other.tensors.keys()


def test_moments_of_bfloat16_are_read_as_such(trained, new, run, tmp_path):
    """paddle stores them as uint16: torch and paddle itself get the numbers, by a route as by a Table."""
    import torch

    file, config = trained
    words = ["--config", config, OPTIMIZER, "--like", new("new.pdparams")]
    assert run("torch2paddle", file, *words, "--dtype", "bfloat16", "-o", tmp_path / "b.pdparams")[0] == 0
    expected = torch.load(file, weights_only=True)["optimizer"]["state"]
    weights = torch.load(file, weights_only=True)["model"]
    lines = [f"{name}: {' '.join('abcd'[: array.ndim])}" for name, array in weights.items()]
    assert run("paddle2paddle", tmp_path / "b.pdparams", OPTIMIZER, "-o", tmp_path / "c.pdparams")[0] == 0
    for name in ("b.pdparams", "c.pdparams"):
        code, _, err = run("paddle2torch", tmp_path / name, OPTIMIZER, "-o", tmp_path / "x.pt", "--force")
        assert code == 0 and "uint16, read as the bfloat16 that paddle stores so: moment{1..2}\n" in err, err
        state = torch.load(tmp_path / "x.pt", weights_only=True)["optimizer"]["state"]
        for number, arrays in expected.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(state[number][moment], arrays[moment].bfloat16())
    (tmp_path / "same.table").write_text("table 1\n" + "".join(f"{line} <-> {line}\n" for line in lines))
    table = ["--table", tmp_path / "same.table", tmp_path / "b.pdparams", "--weights", "model", OPTIMIZER]
    assert run(*table, "-o", tmp_path / "y.msgpack")[0] == 0
    with open_checkpoint(tmp_path / "y.msgpack") as reader:
        dtypes = {t.dtype for t in reader.tensors.values() if t.name.startswith("opt_state/0/mu")}
        assert dtypes == {"bfloat16"}


def test_a_record_of_earlier_steps_states_hyperparameters_where_it_is_named(trained, run, tmp_path):
    """A file that was trained further lies beside the record of its earlier steps."""
    file, config = trained
    path = tmp_path / "x.msgpack"
    words = [OPTIMIZER, "--config", config]
    assert run("torch2flax", file, *words, "--dtype", "float32", "-o", tmp_path / "other.msgpack")[0] == 0
    assert run("torch2flax", file, *words, "-o", path)[0] == 0
    (tmp_path / "other.msgpack").replace(path)
    back = ["flax2torch", path, OPTIMIZER, "-o", tmp_path / "x.pt", "--force", "--config"]
    used = "only its configuration and what it says of the optimizer are used"
    for named in (path, f"{path}.json"):
        code, _, err = run(*back, named)
        assert code == 0 and f"note: from --config {named}: eps=1.953125e-3, weight_decay=0.125" in err, err
        assert err.count("no longer fits the file") == 1 == err.count(used), err
    code, _, err = run(*back[:-1])
    remedy = f"(--config {path}.json takes all but lr from the record of its earlier steps)"
    assert code == 2 and "whether it is Adam's or AdamW's" in err and remedy in err, err
    code, _, err = run(*back[:-1], "--hyper", "kind=adamw")
    assert code == 0 and f"is used; --config {path}.json also uses what it says of the optimizer" in err, err
    code, _, err = run(*back, config)
    assert code == 2 and f"(--config {config} says nothing of an optimizer: the record of a checkpoint of " in err, err


def test_the_entry_of_a_scheduler_is_asked_for_where_the_file_has_one(trained, new, run, tmp_path):
    """A scheduler of torch leaves initial_lr in the optimizer's groups, and a schedule of optax a count of its own."""
    from flax.serialization import msgpack_restore, msgpack_serialize

    needs("flax")
    import torch

    file, config = trained
    saved = torch.load(file)
    scheduler = {"last_epoch": 3, "_step_count": 4}
    torch.save({**saved, "scheduler": scheduler}, tmp_path / "beside.pt")
    saved["optimizer"]["param_groups"][0]["initial_lr"] = 0.5
    torch.save(saved, tmp_path / "scheduled.pt")
    assert run("torch2flax", file, "--config", config, OPTIMIZER, "-o", tmp_path / "plain.msgpack")[0] == 0
    state = msgpack_restore((tmp_path / "plain.msgpack").read_bytes())
    state["opt_state"]["2"] = {"count": state["opt_state"]["0"]["count"]}
    (tmp_path / "scheduled.msgpack").write_bytes(msgpack_serialize(state))
    words = ["--like", new("new.pdparams"), OPTIMIZER, "--force", "-o", tmp_path / "x.pdopt"]
    need = "paddle's learning-rate scheduler needs an entry"
    maybe = "if the training has a schedule of learning rates, "
    sources = (
        (file, f"{maybe}which the file does not show, {REACHED}\nnote: {maybe}{need}"),
        (tmp_path / "scheduled.pt", f"note: {need}"),
        (tmp_path / "beside.pt", "on a new scheduler 3 times,"),
    )
    for source, said in sources:
        code, _, err = run("torch2paddle", source, "--config", config, *words)
        assert (code, err.count(need)) == (0, 1) and said in err, err
        assert ("which the file does not show" in err) == (source == file), err
        assert ("as in the source run (the optimizer took 3 steps), and" in err) == (source.name != "beside.pt"), err
        assert (need in err.partition("goes along")[0]) == (source != file), err  # what to do comes first
    assert "schedule of" not in run("torch2paddle", file, "--config", config, *words, "--hyper", "lr=0.5")[2]
    assert "schedule of" not in run("torch2torch", file, "--config", config, OPTIMIZER, "-o", tmp_path / "x.pt")[2]
    record = ["--config", tmp_path / "plain.msgpack", "--hyper", "lr=0.5"]
    for source, said in ((tmp_path / "plain.msgpack", ""), (tmp_path / "scheduled.msgpack", f"note: {maybe}{need}")):
        code, _, err = run("flax2paddle", source, *record, *words)
        assert (code, need in err) == (0, bool(said)) and said in err, err


def test_a_scheduler_that_a_conversion_set_aside_is_remembered_by_the_record(trained, new, run, tmp_path):
    """Until the file is trained further."""
    import torch

    file, config = trained
    scheduler = {"last_epoch": 3, "_step_count": 4}
    torch.save({**torch.load(file), "scheduler": scheduler}, tmp_path / "x.pt")
    there, again = tmp_path / "x.msgpack", tmp_path / "again.msgpack"
    assert run("torch2flax", tmp_path / "x.pt", "--config", config, OPTIMIZER, "-o", there)[0] == 0
    assert run("flax2flax", there, OPTIMIZER, "-o", again)[0] == 0
    words = ["--like", new("new.pdparams"), OPTIMIZER, "--force", "-o", tmp_path / "x.pdparams"]
    for source in (there, again):
        code, _, err = run("flax2paddle", source, *words)
        entry = "note: paddle's learning-rate scheduler needs an entry in the state: call step() on a new scheduler"
        assert code == 0 and f"{entry} 3 times, " in err, err
    assert run("torch2flax", file, "--config", config, OPTIMIZER, "--force", "-o", there)[0] == 0
    assert "learning-rate scheduler" not in run("flax2paddle", there, *words)[2]


def test_inspect_states_the_dtypes_of_the_weights_alone(trained, run, tmp_path):
    """torch counts the steps of an optimizer in float32, whatever the model's dtype is."""
    import torch

    saved = torch.load(trained[0])
    saved["model"] = {name: tensor.half() for name, tensor in saved["model"].items()}
    torch.save(saved, tmp_path / "half.pt")
    words = ["inspect", tmp_path / "half.pt", "--config", trained[1]]
    code, printed, err = run(*words)
    assert code == 0 and "\ndtype:        float16\n" in printed, (printed, err)
    described = json.loads(run(*words, "--json")[1])
    assert described["dtype"] == "float16"
    assert "float32" in {tensor["dtype"] for tensor in described["tensors"].values()}


def test_a_scheduler_of_torch_is_one_note(trained, run, tmp_path):
    import torch

    file, config = trained
    saved = torch.load(file)
    model = torch.nn.Linear(2, 2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD(model.parameters(), lr=0.1), T_max=20)
    torch.save({**saved, "scheduler": scheduler.state_dict()}, tmp_path / "scheduled.pt")
    words = ["--config", config, OPTIMIZER, "-o", tmp_path / "x.msgpack"]
    code, _, err = run("torch2flax", tmp_path / "scheduled.pt", *words)
    assert code == 0 and "T_max" not in err, err
    assert (
        "set aside: torch's learning-rate scheduler, which counts 0 (scheduler); the learning rate of the source is"
        in err
    )


def test_a_layer_with_a_state_of_one_array_alone_is_doubted(trained, run, tmp_path):
    """A frozen layer has none at all."""
    import torch

    file, config = trained
    saved = torch.load(file)
    names = saved["optimizer"]["param_groups"][0].get("param_names") or list(saved["model"])
    last = {names.index("head.weight"), names.index("head.bias")}
    words = ["--config", config, OPTIMIZER, "--force", "-o", tmp_path / "y.pt"]
    for gone, doubted in ((last, False), ({names.index("head.bias")}, True)):
        state = {number: one for number, one in saved["optimizer"]["state"].items() if number not in gone}
        torch.save({**saved, "optimizer": {**saved["optimizer"], "state": state}}, tmp_path / "x.pt")
        code, _, err = run("torch2torch", tmp_path / "x.pt", *words)
        assert code == 0 and "without a state in the source" in err, err
        assert ("; the other arrays of head have one: is the file complete?" in err) == doubted, err


def test_a_note_on_the_rate_alone_asks_for_it(trained, run, tmp_path):
    file, config = trained
    words = ["--config", config, OPTIMIZER]
    assert run("torch2flax", file, *words, "-o", tmp_path / "x.msgpack")[0] == 0
    (tmp_path / "x.msgpack.json").unlink()
    for text in ("kind=adamw", "beta1=0.75", "beta2=0.9375", "eps=1e-8", "weight_decay=0.1"):
        words += ["--hyper", text]
    code, _, err = run("flax2torch", tmp_path / "x.msgpack", *words, "-o", tmp_path / "x.pt")
    assert code == 0 and "optax's state does not say lr: --hyper lr=..., or load the file as " in err, err
    assert "torch's first step fails without it\n" in err, err


@pytest.mark.parametrize("known, missing", [("beta2=0.9375", "beta1"), ("beta1=0.75", "beta2")])
def test_a_beta_alone_is_in_the_record_of_a_file_of_torch(trained, run, tmp_path, known, missing):
    import torch

    file, config = trained
    words = ["--config", config, OPTIMIZER]
    assert run("torch2flax", file, *words, "-o", tmp_path / "x.msgpack")[0] == 0
    (tmp_path / "x.msgpack.json").unlink()
    words += ["--hyper", "kind=adamw", "--hyper", known, "-o", tmp_path / "x.pt"]
    code, _, err = run("flax2torch", tmp_path / "x.msgpack", *words)
    name = known.partition("=")[0]
    said = f"note: {known} is in the record alone, as a file of torch has {name} only together with {missing}\n"
    assert code == 0 and said in err, err
    assert "betas" not in torch.load(tmp_path / "x.pt")["optimizer"]["param_groups"][0]
    assert json.loads((tmp_path / "x.pt.json").read_text())["optimizer"]["hyperparameters"] == {
        name: float(known.partition("=")[2])
    }


def test_arrays_under_paddles_own_names_are_called_that(run, tmp_path):
    """As of an average that a script keeps as {p.name: p}."""
    own = {f"linear_{n}.{letter}_0": np.ones(2, "f4") for n in range(2) for letter in "wb"}
    ema, table, out = tmp_path / "ema.pdparams", tmp_path / "own.table", ["-o", tmp_path / "x.npz"]
    ema.write_bytes(pickle.dumps(own))
    table.write_text("table 1: paddle <-> torch\nfc.weight: o <-> fc.weight: o\n")
    said = "linear_0.w_0 is paddle's own name of a parameter (.name), as 4 of 4 names are: save the arrays, also those"
    for words in (["--table", table, ema], ["paddle2torch", ema]):
        code, _, err = run(*words, *out)
        assert code == 1 and said in err and "another model" not in err, err
    ema.write_bytes(pickle.dumps({**own, **{f"a.{n}": np.ones(2, "f4") for n in range(4)}}))
    assert "paddle's own" not in run("paddle2torch", ema, *out)[2]


def test_an_average_under_paddles_own_names_is_set_aside_with_the_reason(trained, run, tmp_path):
    file, config = trained
    path = tmp_path / "x.pdparams"
    assert run("torch2paddle", file, "--config", config, "-o", path)[0] == 0
    model = {name: array for name, array in pickle.loads(path.read_bytes()).items() if "@@" not in name}
    average = {f"linear_{n}.w_0": array for n, array in enumerate(model.values())}
    path.write_bytes(pickle.dumps({"model": model, "model_ema": average}))
    code, _, err = run("paddle2torch", path, "--config", config, "-o", tmp_path / "y.npz")
    assert code == 0, err
    assert "under paddle's own names of parameters: save it under those of model.state_dict()" in err, err


def test_numbers_of_the_training_beside_weights_are_named(trained, run, tmp_path):
    """As PaddleClas saves the epoch and metrics."""
    file, config = trained
    path = tmp_path / "x.pdparams"
    assert run("torch2paddle", file, "--config", config, "-o", path)[0] == 0
    (tmp_path / "x.pdstates").write_bytes(pickle.dumps({"epoch": 3}))
    code, _, err = run("paddle2torch", path, "--config", config, "-o", tmp_path / "y.npz")
    assert code == 0 and f"note: {tmp_path / 'x.pdstates'} lies beside it, by its name the epoch and metrics" in err, (
        err
    )


@pytest.mark.parametrize("mixed", [False, True])
def test_the_state_of_a_unified_checkpoint_of_paddlenlp_is_read(mixed, run, tmp_path):
    """Its arrays have the names of model.state_dict(), and slots behind them: PARAM/moment1_0."""
    rng = np.random.default_rng(0)
    weights = {name: rng.random(shape, "float32") for name, shape in SHAPES.items()}
    state = {f"{name}/moment{k}_0": rng.random(shape, "float32") for name, shape in SHAPES.items() for k in (1, 2)}
    powers = {"beta1": 0.9**5, "beta2": 0.999**5}
    state |= {f"{name}/{beta}_pow_acc_0": np.array([p], "f4") for name in SHAPES for beta, p in powers.items()}
    save_file(
        {n: w.astype("float16") for n, w in weights.items()} if mixed else weights, tmp_path / "model.safetensors"
    )
    save_file(state, tmp_path / "optimizer.safetensors")
    (tmp_path / "net.table").write_text(TABLE)
    words = [OPTIMIZER, "--optimizer", tmp_path / "optimizer.safetensors", "--hyper", "kind=adamw"]
    words = ["--table", tmp_path / "net.table", *words, "-o", tmp_path / "x.msgpack"]
    if mixed:
        save_file(weights, tmp_path / "master_weights.safetensors")
        code, _, err = run(*words, tmp_path / "model.safetensors")
        said = (
            f"the float32 master weights in {tmp_path / 'master_weights.safetensors'} are the ones that the optimizer"
        )
        assert code == 1 and f"{said} trains: convert that file, with --optimizer" in err, err
    code, _, err = run(*words, tmp_path / ("master_weights.safetensors" if mixed else "model.safetensors"))
    assert code == 0 and "after 4 steps goes along" in err, err
    with open_checkpoint(tmp_path / "x.msgpack") as reader:
        moments = {name: np.frombuffer(bytes(reader.read(name)), "f4") for name in reader.tensors}
    for slot, k in (("mu", 1), ("nu", 2)):
        expected = state[f"last.weight/moment{k}_0"].T.ravel()
        (got,) = (a for name, a in moments.items() if f"/{slot}/" in name and "weight" in name)
        assert (got == expected).all(), slot
