"""Plain numbers of a training beside its weights and its optimizer, as an epoch, go along or into the record."""

import json

import numpy as np
import pytest

from parity_tests.conftest import needs

NUMBERS = {"epoch": 3, "best": 0.5, "offset": -7, "step": 1, "many": 2**40}
OTHERS = {"arch": "net", "losses": [1.0, 2.0], "args": {"lr": 1}, "never": float("nan")}


@pytest.fixture
def saved(tmp_path):
    """Save a training after a step with other entries, and new models of both sides."""
    needs("torch")
    import torch

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    training = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**training, **NUMBERS, **OTHERS}, tmp_path / "own.pt")
    torch.save({"run": {**training, **NUMBERS}, "version": 2}, tmp_path / "nested.pt")
    torch.save(model.state_dict(), tmp_path / "new.pt")
    (tmp_path / "torch.table").write_text(
        "table 1: torch <-> torch\nweight: o i <-> weight: o i\nbias: o <-> bias: o\n"
    )
    lines = "weight: o i <-> params/kernel: i o\nbias: o <-> params/bias: o\n"
    (tmp_path / "flax.table").write_text(f"table 1: torch <-> flax\n{lines}")


@pytest.fixture
def convert(run, tmp_path):
    def convert(table, source, out, *words):
        like = ["--like", tmp_path / "new.pt"] if out.endswith(".pt") else []
        base = ["--table", tmp_path / f"{table}.table", tmp_path / source, "--with-optimizer", *like]
        code, _, err = run(*base, "-o", tmp_path / out, *words)
        assert code == 0, err
        return err

    return convert


def numbers(path):
    import torch

    return {name: value for name, value in torch.load(path).items() if name not in ("model", "optimizer")}


def test_numbers_beside_a_state_go_along_to_torch(saved, convert, tmp_path):
    err = convert("torch", "own.pt", "out.pt")
    assert numbers(tmp_path / "out.pt") == NUMBERS
    assert "note: numbers beside the state go along: epoch=3, best=0.5, offset=-7, step=1, many=1099511627776\n" in err
    assert "set aside arch (a text)\n" in err and "set aside never, args/lr (plain numbers)\n" in err
    err = convert("torch", "nested.pt", "of_part.pt")
    assert numbers(tmp_path / "of_part.pt") == NUMBERS and "set aside version (plain numbers)\n" in err


def test_the_state_of_a_grad_scaler_is_named_with_how_to_take_it(saved, convert, tmp_path):
    import torch

    training = torch.load(tmp_path / "own.pt")
    state = {"scale": 64.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3}
    torch.save({**training, "amp_scaler": state}, tmp_path / "scaled.pt")
    for table, out in (("torch", "out.pt"), ("flax", "out.msgpack")):
        err = convert(table, "scaled.pt", out)
        (line,) = [line for line in err.splitlines() if "amp_scaler" in line]
        assert "set aside: the state of torch's GradScaler (amp_scaler): " in line
        if table == "torch":
            call = line.partition("scaler.load_state_dict(")[2].partition(") takes it")[0]
            assert eval(call, {"torch": torch}) == state
        else:
            assert "DynamicScale(growth_factor=2.0, backoff_factor=0.5, growth_interval=1999, fin_steps=3, " in line


def test_numbers_come_back_from_the_record_of_a_train_state(saved, convert, tmp_path):
    """A TrainState has its own step, and from_bytes refuses a file that has fields beside it."""
    err = convert("flax", "own.pt", "out.msgpack")
    kept = {name: value for name, value in NUMBERS.items() if name != "step"}
    restored = "a conversion back restores them, unless the file is trained further: epoch=3, "
    assert f"go into the record alone, from which {restored}" in err
    record = json.loads((tmp_path / "out.msgpack.json").read_text())
    assert record["optimizer"]["beside"] == kept
    err = convert("flax", "out.msgpack", "back.pt", "--reverse")
    assert numbers(tmp_path / "back.pt") == kept
    assert "go along, from the record: epoch=3" in err


def test_numbers_of_earlier_steps_are_named_and_not_restored(saved, convert, tmp_path):
    """A training that went on has another epoch than the record of its earlier steps."""
    needs("flax")
    from flax.serialization import msgpack_restore, msgpack_serialize

    convert("flax", "own.pt", "first.msgpack")
    state = msgpack_restore((tmp_path / "first.msgpack").read_bytes())
    state["params"] = {name: array + 1 for name, array in state["params"].items()}
    trained = msgpack_serialize(state)
    (tmp_path / "later.msgpack").write_bytes(trained)
    said = "note: numbers beside the state are not restored, as {}: epoch=3, best=0.5, "
    first = ["--config", tmp_path / "first.msgpack"]
    err = convert("flax", "later.msgpack", "later.pt", "--reverse", *first)
    assert numbers(tmp_path / "later.pt") == {} and said.format("the file has no record of its own") in err, err
    err = convert("torch", "own.pt", "own_numbers.pt", *first)
    assert numbers(tmp_path / "own_numbers.pt") == NUMBERS and "not restored" not in err, err
    (tmp_path / "first.msgpack").write_bytes(trained)
    err = convert("flax", "first.msgpack", "over.pt", "--reverse", "--hyper", "kind=adamw")
    assert numbers(tmp_path / "over.pt") == {} and said.format("the training went on") in err, err


@pytest.mark.parametrize("table", [True, False])
def test_an_epoch_that_is_an_array_goes_along_as_the_number_does(saved, run, tmp_path, table):
    import torch

    import ports

    if table:
        training = torch.load(tmp_path / "own.pt")
        words = ["--table", tmp_path / "torch.table", tmp_path / "array.pt", "--like", tmp_path / "new.pt"]
    else:
        port = ports.build("mlp_mixer", "tiny S/16", "torch")
        optimizer = torch.optim.AdamW(port.model.parameters())
        for parameter in port.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        training = {"model": port.model.state_dict(), "optimizer": optimizer.state_dict()}
        port.save(tmp_path / "settings.safetensors")
        words = ["torch2torch", tmp_path / "array.pt", "--config", tmp_path / "settings.safetensors"]
    training = {name: value for name, value in training.items() if name in ("model", "optimizer")}
    torch.save({**training, "epoch": torch.tensor(-3), "step": torch.tensor([7])}, tmp_path / "array.pt")
    code, _, err = run(*words, "--with-optimizer", "-o", tmp_path / "out.pt")
    assert code == 0 and "set aside" not in err, err
    assert "note: numbers beside the state go along: epoch=-3, step=7\n" in err
    assert numbers(tmp_path / "out.pt") == {"epoch": -3, "step": 7}
    if table:  # a TrainState has its own step
        code, _, err = run(
            "--table", tmp_path / "flax.table", *words[2:3], "--with-optimizer", "-o", tmp_path / "o.msgpack"
        )
        assert code == 0 and "note: set aside step=7, as the target's own count has this name\n" in err, err
        assert json.loads((tmp_path / "o.msgpack.json").read_text())["optimizer"]["beside"] == {"epoch": -3}


@pytest.mark.parametrize("part", [True, False])
def test_numbers_beside_the_weights_go_along_where_the_state_has_a_file(saved, convert, tmp_path, part):
    import torch

    training = torch.load(tmp_path / "own.pt")
    weights = {"model": training["model"]} if part else training["model"]
    torch.save({**weights, "epoch": 3}, tmp_path / "weights.pt")
    torch.save(training["optimizer"], tmp_path / "state.pt")
    err = convert("torch", "weights.pt", "out.pt", "--optimizer", tmp_path / "state.pt")
    assert numbers(tmp_path / "out.pt") == {"epoch": 3}
    assert "note: numbers beside the state go along: epoch=3\n" in err and "set aside epoch" not in err


def test_other_entries_of_the_state_s_own_file_are_named(saved, convert, tmp_path):
    import torch

    training = torch.load(tmp_path / "own.pt")
    torch.save(training["model"], tmp_path / "weights.pt")
    torch.save({**training["optimizer"], "epoch": 3.5, "arch": "net"}, tmp_path / "state.pt")
    err = convert("torch", "weights.pt", "out.pt", "--optimizer", tmp_path / "state.pt")
    assert f"note: set aside, of {tmp_path / 'state.pt'}: epoch (plain numbers)\n" in err, err
    assert f"note: set aside, of {tmp_path / 'state.pt'}: arch (a text)\n" in err, err


@pytest.mark.parametrize("epoch", [3.5, float("nan")])
def test_an_epoch_may_be_an_array_of_floats(saved, convert, tmp_path, epoch):
    import torch

    training = {
        name: value for name, value in torch.load(tmp_path / "own.pt").items() if name in ("model", "optimizer")
    }
    torch.save({**training, "epoch": torch.tensor(epoch)}, tmp_path / "own.pt")
    err = convert("torch", "own.pt", "out.pt")
    assert numbers(tmp_path / "out.pt") == ({"epoch": epoch} if epoch == epoch else {})
    said = (
        "numbers beside the state go along: epoch=3.5\n"
        if epoch == epoch
        else "set aside epoch=nan, which is no number of a count"
    )
    assert said in err, err


@pytest.mark.parametrize("moments", [("mu", "nu"), ("trace",)], ids=["adam", "sgd"])
def test_steps_that_the_file_does_not_show_come_from_its_record(moments, run, tmp_path):
    """Paddle's powers of betas vanish after many steps, and its Momentum counts none."""
    needs("paddle")
    import paddle

    state = {f"opt_state/0/{slot}/w": np.ones((2, 3), "f4") for slot in moments}
    state |= {"opt_state/0/count": np.int32(200_000)} if moments[1:] else {}
    np.savez(tmp_path / "x.npz", **{"params/w": np.ones((2, 3), "f4"), "step": np.int32(200_000)}, **state)
    layer = paddle.nn.Layer()
    layer.w = layer.create_parameter([2, 3])
    paddle.save(layer.state_dict(), str(tmp_path / "new.pdparams"))
    (tmp_path / "x.table").write_text("table 1: flax <-> paddle\nparams/w: i o <-> w: i o\n")
    words = ["--table", tmp_path / "x.table", "--with-optimizer"]
    kind = ["--hyper", "kind=adam", "--hyper", "beta1=0.9", "--hyper", "beta2=0.999"] if moments[1:] else []
    there = [*words, tmp_path / "x.npz", "--like", tmp_path / "new.pdparams", "-o", tmp_path / "y.pdparams", *kind]
    code, _, err = run(*there)
    assert code == 0, err
    code, _, err = run(*words, "--reverse", tmp_path / "y.pdparams", "-o", tmp_path / "z.msgpack")
    assert code == 0 and "note: from the record: step=200000\n" in err, err
    assert json.loads((tmp_path / "z.msgpack.json").read_text())["optimizer"]["step"] == 200_000


def test_a_step_of_sgd_that_nobody_counted_stays_unknown(saved, convert, tmp_path):
    """A TrainState needs a step, so that 0 is written: the next conversion takes it for no count."""
    import torch

    training = torch.load(tmp_path / "own.pt")
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.named_parameters(), lr=0.5, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": training["model"], "optimizer": optimizer.state_dict()}, tmp_path / "sgd.pt")

    def step(name):
        return json.loads((tmp_path / f"{name}.json").read_text())["optimizer"]["step"]

    uncounted = "torch.optim.SGD does not count its steps: the TrainState's step is 0 (--hyper step=...)"
    assert uncounted in convert("flax", "sgd.pt", "one.msgpack")
    convert("flax", "one.msgpack", "two.pt", "--reverse")
    assert uncounted in convert("flax", "two.pt", "three.msgpack")
    assert [step(name) for name in ("one.msgpack", "two.pt", "three.msgpack")] == [None] * 3
    convert("flax", "one.msgpack", "four.pt", "--reverse", "--hyper", "step=3")
    assert step("four.pt") == 3 and "from the record: step=3" in convert("flax", "four.pt", "five.msgpack")
