"""Messages name true causes and true origins: replicas, other dialects, parts of one name, what states a setting."""

import json
import shutil

import numpy as np
import pytest

import specs
from convert.config.settings import read_config
from convert.errors import UsageError, command
from parity.given.targets import targets
from specs.config import as_dict
from specs.table import Table, TableError

from .commands import GOOGLE, TIMM
from .golden import Case
from .test_parts import arrays, save, under
from .test_routes import contents, write_numbers
from .test_spelling import replicas


def state(model, count=None):
    """A flax TrainState of Adam; `count` replicas of all that is not the weights."""
    adam = {
        f"opt_state/0/{slot}/{name}": array * 0 + k
        for k, slot in enumerate(("mu", "nu"))
        for name, array in model.items()
    }
    adam |= {"opt_state/0/count": np.array(7, "i4"), "step": np.array(7, "i4")}
    return {**under("params/", model), **(replicas(adam, count) if count else adam)}


def test_replicas_in_another_dialect(run, tmp_path):
    path = save(tmp_path / "x.msgpack", replicas(arrays(GOOGLE)))
    code, _, err = run("flax2torch", path, "--unreplicate")
    assert code == 1 and "every array fits as google, replicated: use google2torch with --unreplicate" in err
    code, _, err = run("flax2torch", GOOGLE, "--unreplicate")
    assert code == 1 and "every array fits as google: use google2torch" in err and "axis" not in err
    assert run("google2torch", path, "--unreplicate")[0] == 0


def test_a_replicated_state_of_an_optimizer(run, tmp_path):
    """One replica is taken with that of the weights; beside weights without replicas it is named."""
    path, out, plain = (tmp_path / name for name in ("x.msgpack", "y.pt", "z.pt"))
    model = arrays(GOOGLE)
    save(path, state(model))
    words = ["--with-optimizer", "--hyper", "kind=adam", "-o"]
    assert run("google2torch", path, *words, plain)[0] == 0
    save(path, replicas(state(model), 4))
    code, _, err = run("google2torch", path, "--unreplicate", *words, out)
    assert code == 0 and "took the first of 4 replicas of the optimizer's state, which are equal" in err
    assert contents(out) == contents(plain)
    changed = replicas(state(model), 4)
    changed["opt_state/0/nu/head/bias"][3] += 1
    save(path, changed)
    code, _, err = run("google2torch", path, "--unreplicate", *words, out, "--force")
    assert code == 1 and "the replicas of opt_state/0/nu/head/bias differ" in err
    save(path, state(model, count=4))
    code, _, err = run("google2torch", path, *words, out, "--force")
    assert code == 1 and "optimizer's state has a leading axis of 4, as pmap adds" in err and "SGD" not in err


def test_a_part_that_several_share(run, tmp_path):
    """The end of a place, where several end so."""
    weights = arrays(TIMM)
    path = save(tmp_path / "x.safetensors", {**under("student.body.", weights), **under("teacher.body.", weights)})
    code, _, err = run("timm2flax", path, "--weights", "body")
    assert code == 2
    assert "--weights body may mean each of 'student.body.', 'teacher.body.': give one of them whole" in err
    assert "as in --weights student.body." in err
    assert run("timm2flax", path, "--weights", "student.body", "-o", tmp_path / "y.msgpack")[0] == 0
    assert run("inspect", path, "--weights", "body")[0] == 0
    table = tmp_path / "x.table"
    table.write_text("table 1\nhead.bias: c <-> bias: c\n")
    assert "may mean each of" in run("--table", table, path, "--weights", "body")[2]


def test_the_origin_of_a_setting_is_named(run, tmp_path, capsys):
    """A file of settings, or the other file of a comparison, is not what the user types."""
    bare, out, settings = Case("locuslab_convmixer_gelu").folder / "weights.pth", tmp_path / "x.pt", tmp_path / "c.json"
    settings.write_text('{"act": "gelu"}')
    assert run("official2torch", bare, "-o", out, "--set", "act=gelu")[0] == 0
    code, printed, _ = run("diff", bare, out, "--config", settings)
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    assert f"from --config {settings}, not stated in {bare}: act=gelu\n" in printed
    (entry,) = json.loads(run("diff", bare, out, "--config", settings, "--json")[1])["assumed"]
    assert (entry["from"], entry["stated"]) == (f"--config {settings}", True)
    (entry,) = json.loads(run("diff", bare, out, "--config", settings, "--set", "act=gelu", "--json")[1])["assumed"]
    assert entry["from"] == "--set"
    settings.write_text('{"act": "relu"}')
    code, _, err = run("diff", out, out, "--config", settings)
    assert code == 2 and f"act=relu was asked for by --config {settings}, and its record says act=gelu" in err
    code, _, err = run("torch2flax", out, "--config", settings)
    assert code == 0 and f"act=relu was asked for by --config {settings} and is used in place of act=gelu" in err
    with command():
        list(targets(str(out), settings=read_config(str(settings))))  # of parity
    assert f"act=relu was asked for by --config {settings} and is used" in capsys.readouterr().err


def test_what_a_record_assumes_is_no_statement(run, tmp_path):
    """Neither of the file that bears it, nor of another that takes its configuration."""
    config = specs.get("convmixer").tiny["even"]
    bare, guess, known = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors"))
    write_numbers(bare, "convmixer", config, "torch")
    assert run("torch2torch", bare, "-o", guess, "--assume", "--set", "act=gelu")[0] == 0
    code, printed, _ = run("diff", bare, shutil.copy(bare, tmp_path / "copy.safetensors"), "--config", guess)
    assert "from --config " + str(guess) + ", whose record assumes it" in printed
    assert (code, printed.splitlines()[0]) == (1, "the same arrays; equal only if norm_eps and norm_momentum agree")
    words = [word for pair in ("act=gelu", "norm_eps=0.001", "norm_momentum=0.1") for word in ("--set", pair)]
    assert run("torch2torch", bare, "-o", known, *words)[0] == 0
    _, printed, err = run("diff", guess, known)
    assert f"note: {guess}: norm_eps=1e-3 is of {known} and is used in place of norm_eps=1e-5" in err
    assert "asked for" not in err


def test_one_name_for_one_array(run, tmp_path):
    """Of a torch module that was pickled whole, beside the weights of a known model."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    head = torch.nn.Sequential(torch.nn.Linear(3, 2))
    torch.save({"model": torch.load(TIMM, weights_only=True), "teacher": head}, tmp_path / "x.pt")
    about = json.loads(run("inspect", tmp_path / "x.pt", "--json")[1])
    assert {"teacher/0.weight", "teacher/0.bias"} < about["tensors"].keys()
    assert [entry["name"] for entry in about["aside"]] == ["teacher/0.weight", "teacher/0.bias"]
    assert any("under the names that their state_dict has" in note for note in about["notes"])
    torch.save(head, tmp_path / "y.pt")  # of no known architecture: as a Table names them
    about = json.loads(run("inspect", tmp_path / "y.pt", "--json")[1])
    assert "0.weight" in about["tensors"]
    assert any("under the names that their state_dict has" in note for note in about["notes"])


def test_shards_of_ours_hold_nothing_aside(run, tmp_path):
    out = tmp_path / "x.safetensors"
    assert run("google2torch", GOOGLE, "-o", out, "--shard-size", "9KB")[0] == 0
    assert json.loads(run("inspect", f"{out}.index.json", "--json")[1])["skipped"] == []
    assert "set aside" not in run("torch2flax", f"{out}.index.json", "-o", tmp_path / "y.msgpack")[2]


def test_advice_for_an_open_field_is_given_once(run):
    bare = Case("locuslab_convmixer_gelu").folder / "weights.pth"
    err = run("official2torch", bare)[2]
    assert err.count("set it") == err.count("--set") == err.count("--config") == 1


CONSTANTS = {  # array on the side that is read: what the table says of it, and what is reported
    "other kind": ("n: = 0 int64", np.zeros((), "f4"), "n has dtype float32, and {table}:3 says that it is int64"),
    "other shape": ("n: = 0 int64", np.zeros(1, "i8"), "n has shape [1], line 3 gives it no axes"),
    "other values": (
        "n: c = 0",
        np.float32([0, 1]),
        "n holds other values than 0, which {table}:3 says it holds: "
        "the target has no place for them: add an array for them to the target's model, or train with "
        "them frozen at 0",
    ),
    "other width": ("n: = 0 int64", np.zeros((), "i4"), "note: of another dtype than int64, which the table states: n"),
    "as stated": ("n: c = 0", np.zeros(2, "f4"), "stores, and compared before anything is written: n"),
}


@pytest.mark.parametrize("case", CONSTANTS)
def test_constants_of_a_table_are_compared_where_they_are_read(case, run, tmp_path):
    line, array, message = CONSTANTS[case]
    table, source = tmp_path / "x.table", save(tmp_path / "x.safetensors", {"w": np.ones((2, 2), "f4"), "n": array})
    table.write_text(f"table 1\nw: o i <-> w: i o\n{line} <->\n")
    code, _, err = run("--table", table, source, "-o", tmp_path / "y.npz")
    assert code == (0 if "stores" in message or "note" in message else 1)
    assert message.format(table=table) in err
    if case == "other kind":
        with pytest.raises(TableError, match="line 3: n has dtype float32"):
            Table.load(str(table)).apply({"w": np.ones((2, 2), "f4"), "n": array})


def test_a_whole_configuration_states_sizes_in_its_own_way(run, tmp_path):
    """An image's size says what a token count says: neither file contradicts it."""
    settings = tmp_path / "c.json"
    settings.write_text('{"image": [11, 13], "gelu": "tanh", "norm_eps": 1e-6, "padding": "SAME"}')
    config = specs.get("mlp_mixer").tiny["tanh, ragged"]
    write_numbers(tmp_path / "a.npz", "mlp_mixer", config, "google")
    code, printed, _ = run("diff", tmp_path / "a.npz", tmp_path / "a.npz", "--config", settings)
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    settings.write_text('{"image": [99, 13]}')
    assert run("diff", tmp_path / "a.npz", tmp_path / "a.npz", "--config", settings)[0] == 2


def test_a_file_of_settings_that_do_not_fit_is_named(run, tmp_path):
    """And the record is not, which states none of them."""
    settings, out = tmp_path / "c.json", tmp_path / "x.pt"
    settings.write_text('{"gelu": "relu"}')
    assert run("google2torch", GOOGLE, "-o", out)[0] == 0
    err = run("torch2flax", out, "--config", settings)[2]
    assert f"gelu='relu' does not fit: gelu is erf or tanh; stated by --config {settings}" in err
    with command(), pytest.raises(UsageError, match=r"gelu='relu' does not fit.*; stated by --config"):
        list(targets("mlp_mixer", settings=read_config(str(settings))))  # of parity
    assert "can be removed" not in err and "--config" not in run("torch2flax", out, "--set", "gelu=relu")[2]


def test_a_configuration_of_another_architecture_is_named_as_such(run, tmp_path):
    settings = tmp_path / "c.json"
    settings.write_text(json.dumps(as_dict(specs.get("mobile_former").tiny["plain"])))
    code, _, err = run("google2torch", GOOGLE, "--config", settings, "-o", tmp_path / "x.safetensors")
    assert code == 2 and err.endswith(f"--config {settings} has fields of mobile_former; the file is mlp_mixer\n"), err
