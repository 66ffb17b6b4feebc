"""What a Table is applied to: parts of training checkpoints, replicas, other spellings; and what it says of itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from convert.__main__ import main
from convert.table import by_table
from specs.table import Table, TableError

from .test_table_command import load, run, save

TABLE = """table 1: linen <-> torch
params/fc/{i}/kernel: i o <-> fc.{i}.weight: o i
batch_stats/mean: c <-> mean: c
"""
DOUBT = "# derived, not proven: outputs differ by 2e-02"
MEAN = {"batch_stats/mean": np.arange(3.0)}
KERNELS = {f"fc/{i}/kernel": np.arange(6.0).reshape(2, 3) + i for i in range(2)}
MODEL = MEAN | {f"params/{name}": array for name, array in KERNELS.items()}
STATE = {
    "step": np.array(3),
    "opt_state/0/count": np.array(3),
    **{f"opt_state/0/{slot}/{name}": array * 0 for slot in ("mu", "nu") for name, array in KERNELS.items()},
    **{f"ema_params/{name}": array + 7 for name, array in KERNELS.items()},
}


@pytest.fixture
def convert(tmp_path, capsys):
    """Return what writes arrays into a file and converts it: (exit status, the target's arrays, standard error)."""

    def run(arrays, *words, text=TABLE):
        (tmp_path / "my.table").write_text(text)
        save(tmp_path / "in.npz", arrays)
        out = tmp_path / "out.npz"
        command = ["--table", str(tmp_path / "my.table"), str(tmp_path / "in.npz"), "-o", str(out), "--force", *words]
        out.unlink(missing_ok=True)
        code = main(command)
        return code, load(out) if out.exists() else {}, capsys.readouterr().err

    return run


def test_a_table_that_is_not_proven_is_named_wherever_it_is_used(convert, tmp_path, capsys):
    text = TABLE.replace("\n", f"\n{DOUBT}\n", 1)
    code, _, err = convert(MODEL, text=text)
    assert code == 0 and "note: " in err and "the Table was derived and not proven: outputs differ by 2e-02" in err
    record = json.loads((tmp_path / "out.npz.json").read_text())
    assert record["table"]["proven"] is False and record["table"]["difference"] == "outputs differ by 2e-02"
    source, table, target = (str(tmp_path / name) for name in ("in.npz", "my.table", "out.npz"))
    for words in (["verify", target], ["inspect", target], ["diff", "--table", table, source, target]):
        assert main(words) == 0
        printed = capsys.readouterr()
        assert "derived and not proven: outputs differ by 2e-02" in printed.out + printed.err, words
        assert words[0] != "inspect" or ", from in.npz; its Table was derived and not proven: " in printed.out
    loaded = Table.parse(text)
    for one in (loaded, loaded.compose(Table.parse("table 1\nfc.{i}.weight: a b <-> {i}: a b\nmean: c <-> m: c\n"))):
        with pytest.warns(UserWarning, match="not proven: outputs differ by 2e-02"):
            one.apply(MODEL)
    assert "proven" not in convert(MODEL)[2]


def test_training_state_beside_a_model_is_set_aside_and_named(convert, tmp_path, capsys):
    code, arrays, err = convert(MODEL | STATE)
    assert code == 0 and arrays["fc.1.weight"].tolist() == KERNELS["fc/1/kernel"].T.tolist()
    assert "the training state step, opt_state/ (5 arrays); a conversion with --with-optimizer takes" in err
    assert err.count("--with-optimizer") == 1
    assert "set aside ema_params/ (2 arrays), a copy of the weights, which --weights ema_params takes" in err
    assert any("opt_state/" in note for note in json.loads((tmp_path / "out.npz.json").read_text())["notes"])
    names = ("in.npz", "my.table", "out.npz")
    source, table, target = (str(tmp_path / name) for name in names)
    code = main(["diff", "--table", table, target, source, "--reverse"])
    assert code == 0, capsys.readouterr().err
    code, _, err = convert(MODEL | STATE | {"other": np.ones(2), "params/extra/kernel": np.ones(2)})
    assert code == 1 and "other: no line speaks of it" in err and "params/extra/kernel: no line" in err
    assert "opt_state/0" not in err


def test_the_loss_scale_of_flax_is_training_state_by_any_name(convert, tmp_path, capsys):
    scale = {"ds/fin_steps": np.array(3), "ds/scale": np.array(65536.0)}
    code, arrays, err = convert(MODEL | STATE | scale)
    assert code == 0 and arrays and "set aside the training state step, opt_state/ (5 arrays), ds/ (2 arrays)" in err
    save(tmp_path / "in.npz", MODEL | scale)
    assert main(["inspect", str(tmp_path / "in.npz")]) == 0
    assert f"parameters:   {sum(array.size for array in KERNELS.values())}\n" in capsys.readouterr().out
    for other in ({"ds/kernel": np.ones(2)}, {"ds/scale/0": np.array(1.0)}):  # another module that has such names
        code, _, err = convert(MODEL | scale | other)
        assert code == 1 and "ds/fin_steps: no line speaks of it" in err


def test_a_trainstate_under_the_name_of_training_state_has_the_weights(convert):
    """What lies in train_state by itself, as torchtitan's step, is training state."""
    code, arrays, err = convert({f"train_state/{name}": array for name, array in (MODEL | STATE).items()})
    assert code == 0 and arrays["fc.1.weight"].tolist() == KERNELS["fc/1/kernel"].T.tolist()
    assert "took the arrays under 'train_state/'" in err or "lie under 'train_state/'" in err
    code, arrays, err = convert(MODEL | {"train_state/step": np.array(3), "train_state/seen": np.array([3])})
    assert code == 0 and "training state train_state/ (2 arrays)" in err


def test_a_copy_whose_names_have_no_separators_is_set_aside(convert):
    """As latent diffusion's LitEma writes them; an array that no weight is named as is refused as ever."""
    copy = {f"model_ema.{name.replace('/', '')}": array for name, array in KERNELS.items()}
    copy |= {"model_ema.decay": np.array(0.5), "model_ema.num_updates": np.array(3)}
    code, _, err = convert(MODEL | copy)
    assert (
        code == 0 and "set aside model_ema. (4 arrays), a copy of the weights, which --weights model_ema. takes" in err
    )
    code, _, err = convert(MODEL | copy | {"model_ema.other": np.ones(2)})
    assert code == 1 and "model_ema.other: no line speaks of it" in err and "fc0kernel" not in err


@pytest.mark.parametrize("top", ["ema_0.999", "model.ema", "v1.5-ema.d"])
def test_a_container_may_have_a_dot_in_its_name(convert, top):
    """A level before a slash is one container, whatever dots are in its name."""
    names = {"fc.0.weight": KERNELS["fc/0/kernel"].T, "fc.1.weight": KERNELS["fc/1/kernel"].T, "mean": np.arange(3.0)}
    text = "table 1\nfc.{i}.weight: o i <-> fc.{i}.w: o i\nmean: c <-> mean: c\n"
    arrays = {f"model/{name}": array for name, array in names.items()}
    arrays |= {f"{top}/{name}": array + 7 for name, array in names.items()}
    code, target, err = convert(arrays, text=text)
    assert code == 0 and target["mean"].tolist() == [0, 1, 2] and f"set aside {top}/ (3 arrays)" in err, err
    code, target, err = convert(arrays, "--weights", top, text=text)
    assert code == 0 and target["mean"].tolist() == [7, 8, 9] and f"took the arrays under '{top}/'" in err, err


@pytest.mark.parametrize(("weights", "added"), [("ema_params", 7), ("params", 0)])
def test_a_part_takes_the_place_that_the_tables_names_have(convert, weights, added):
    code, arrays, err = convert(MODEL | STATE, "--weights", weights)
    assert code == 0 and arrays["fc.0.weight"].tolist() == (KERNELS["fc/0/kernel"].T + added).tolist(), err
    assert arrays["mean"].tolist() == [0, 1, 2] and "took beside them, as they are: batch_stats/mean" in err
    assert ("set aside params/ (2 arrays), whose place they take" in err) == bool(added)


def test_one_of_equal_replicas_is_taken_where_that_is_asked_for(convert):
    both = {name: np.stack([array, array]) for name, array in (MODEL | STATE).items()}
    code, _, err = convert(both)
    assert code == 1 and "leading axis of 2, as pmap adds" in err and "--unreplicate" in err
    code, arrays, err = convert(both, "--unreplicate")
    assert code == 0 and "the first of 2 replicas" in err and arrays["fc.1.weight"].shape == (3, 2)
    both["params/fc/0/kernel"][1] += 1
    code, _, err = convert(both, "--unreplicate")
    assert code == 1 and "the replicas of params/fc/0/kernel differ" in err
    code, _, err = convert(MODEL, "--unreplicate")
    assert code == 2 and "leave out --" in err


def test_the_state_of_random_numbers_within_layers_is_set_aside(convert):
    """As nnx.state(model) has it; a parameter of another name in such a place is not."""
    random = {f"params/fc/1/rngs/{name}": np.zeros((), "u4") for name in ("count", "key", "dropout/count")}
    code, arrays, err = convert(MODEL | random)
    note = "set aside params/fc/1/rngs/count and 2 more (nnx's state of random numbers)"
    assert code == 0 and note in err and arrays.keys() == {"fc.0.weight", "fc.1.weight", "mean"}, err
    code, _, err = convert(MODEL | {"params/fc/1/rngs/weight": np.zeros((), "f4")})
    assert code == 1 and "params/fc/1/rngs/weight: no line speaks of it" in err


SPELT = {
    "wrappers of all": (
        lambda name: name.replace("params/", "params/_orig_mod."),
        "wrappers in its names: _orig_mod.\n",
    ),
    "of some": (lambda name: name.replace("fc/1/", "fc/1/module."), "without the wrappers in its names: module.\n"),
    "dots": (lambda name: name.replace("/", "."), "read '.' in its names as /"),
    "keystr": (lambda name: "".join(f"['{part}']" for part in name.split("/")), "joined by /"),
    "no collection": (lambda name: name.removeprefix("params/"), "read its names below 'params/', which they all lack"),
}


@pytest.mark.parametrize("name", SPELT)
def test_names_that_are_spelt_otherwise_are_read_with_a_note(convert, name):
    spell, note = SPELT[name]
    only = TABLE.replace("batch_stats/mean: c <-> mean: c\n", "")
    code, arrays, err = convert({spell(f"params/{name}"): array for name, array in KERNELS.items()}, text=only)
    assert code == 0 and note in err and set(arrays) == {"fc.0.weight", "fc.1.weight"}, err


def test_apply_takes_nested_trees_and_names_what_is_no_array():
    table = Table.parse("table 1\na/b/0: c <-> x: c\na/k: <-> y:\n")
    assert table.apply({"a": {"b": [np.ones(2)], "k": 3.0}})["x"].tolist() == [1, 1]
    with pytest.raises(TableError, match=r"give a mapping of names to arrays, as state_dict\(\) returns: not Module"):
        table.apply(type("Module", (), {})())
    with pytest.raises(TableError, match="a/k: is no array of numbers, but str"):
        table.apply({"a": {"b": (np.ones(2),), "k": "three"}})


def test_like_sets_training_state_aside_as_well(tmp_path):
    left = save(tmp_path / "left.npz", {"mean": MEAN["batch_stats/mean"]} | {
        f"fc.{i}.weight": KERNELS[f"fc/{i}/kernel"].T for i in range(2)
    })  # fmt: skip
    like = save(tmp_path / "like.npz", MODEL | STATE)
    with by_table.plan(str(left), Table.parse(TABLE), backwards=True, like=str(like)) as plan:
        assert {tensor.name for tensor, _ in plan.steps} == set(MODEL)


def test_a_name_is_told_from_a_line_only_by_numbers_that_are_levels(convert):
    """ln2 is no other number of ln1: the advice on blocks comes last, and a line names the line of the same leaf."""
    text = "table 1\nlayers/0/ln1/g: c <-> 0.ln1: c\n"
    code, _, err = convert({f"layers/{i}/ln{k}/g": np.ones(2) for i in range(2) for k in (1, 2)}, text=text)
    lines = [line.strip() for line in err.splitlines() if line.startswith("  - ")]
    assert code == 1 and lines[-1].startswith("- numbers that count blocks: write {i}"), err
    assert "- layers/1/ln1/g: no line speaks of it (line 2, layers/0/ln1/g, has other numbers)" in lines
    assert not any("ln2" in line and "has other numbers" in line for line in lines)


def test_one_wrong_name_in_the_place_of_the_weights_is_all_that_is_reported(convert):
    """Of the arrays below the place with most of a Table's names; a second such place leaves the choice open."""
    more = {f"model/params/fc/{i}/kernel": np.ones((2, 3)) for i in range(6)}
    nested = {f"model/{name}": array for name, array in MODEL.items()} | more | {"step": np.array(3)}
    for lacking in ("model/batch_stats/mean", "model/params/fc/0/kernel"):
        code, _, err = convert({name: array for name, array in nested.items() if name != lacking})
        assert code == 1 and err.splitlines()[0].endswith("read from linen to torch, under 'model/'"), err
        assert err.splitlines()[1:] == [f"  - missing {lacking.removeprefix('model/')}"], err
    code, _, err = convert(nested | {"model/params/other": np.ones(2)})
    assert code == 1 and "- params/other: no line speaks of it" in err and err.count("  - ") == 1, err
    two = nested | {name.replace("model/", "net/"): array for name, array in nested.items()}
    del two["model/batch_stats/mean"], two["net/batch_stats/mean"]
    code, _, err = convert(two)
    assert code == 1 and "under 'model/'" not in err, err


def test_weights_in_parts_are_named_with_the_call_that_merges_them(convert):
    """By an error of a Table, which has no line for such names."""
    parts = {f"params/fc/{i}/kernel_{leaf}": np.ones((2, 3)) for i in range(2) for leaf in ("orig", "mask")}
    parts = {name.replace("kernel", "weight"): array for name, array in parts.items()}
    code, _, err = convert(MEAN | parts)
    assert code == 1 and "params.fc.{0..1} are stored in parts, by pruning: merge them first: for each" in err, err


def test_moments_of_an_optimizer_are_no_place_of_the_weights(convert, tmp_path, capsys):
    """The names of both are alike, and a Table of nnx has no params/ before them: so is what a conversion writes."""
    text = "table 1: nnx <-> torch\nfc/{i}/kernel: i o <-> fc.{i}.weight: o i"
    state = {name: array for name, array in (MODEL | STATE).items() if "batch" not in name and "ema" not in name}
    code, arrays, err = convert(state, text=text)
    assert code == 0 and np.array_equal(arrays["fc.1.weight"], KERNELS["fc/1/kernel"].T), err
    assert "took the arrays under 'params/' and set aside step, opt_state/ (5 arrays)" in err
    words = ["diff", "--table", str(tmp_path / "my.table"), "--reverse"]
    assert main([*words, str(tmp_path / "out.npz"), str(tmp_path / "in.npz")]) == 0, capsys.readouterr()


def test_the_place_of_the_weights_is_found_below_names_that_are_read_otherwise(convert):
    """As of {"model": nnx.state(model), "optimizer": nnx.state(optimizer)} in Orbax, with /value below every name."""
    text = "table 1: nnx <-> torch\nfc/{i}/kernel: i o <-> fc.{i}.weight: o i"
    state = {f"model/{name}/value": array for name, array in KERNELS.items()}
    state |= {f"optimizer/opt_state/0/mu/{name}/value": array * 0 for name, array in KERNELS.items()}
    code, arrays, err = convert(state, text=text)
    assert code == 0 and np.array_equal(arrays["fc.1.weight"], KERNELS["fc/1/kernel"].T), err
    assert "read its names without /value at the end, which nnx and linen's boxes add to the name of each" in err
    assert "took the arrays under 'model/' and set aside optimizer/ (2 arrays)" in err
    other = {f"other/{name}/value": array for name, array in KERNELS.items()}
    code, _, err = convert(state | other, text=text)
    assert code == 1 and "0 of 6 names are in this Table" in err


def test_lengths_that_contradict_each_other_need_one_name_or_like(convert, tmp_path):
    """As where one array of a layer was pruned: each line has names of its own, but for those with a capital."""
    pruned, whole = ({"fc.w": np.ones((n, 3)), "fc.b": np.ones(5)} for n in (4, 5))
    alone = "table 1\nfc.w: o i <-> w: i o\nfc.b: o <-> b: o"
    assert convert(pruned, text=alone)[0] == 0
    save(tmp_path / "like.npz", {"w": np.ones((3, 5)), "b": np.ones(5)})
    code, _, err = convert(pruned, "--like", str(tmp_path / "like.npz"), text=alone)
    assert code == 1 and "w has shape [3, 5] in " in err and "line 2 makes [3, 4] of fc.w" in err, err
    assert convert(whole, text=alone.replace(" o", " Out"))[0] == 0
    code, _, err = convert(pruned, text=alone.replace(" o", " Out"))
    assert code == 1 and "Out" in err, err


def test_a_file_of_the_wrong_side_is_one_line(convert, tmp_path, capsys):
    """The source, which --reverse reads; or the file of --like, or the second one of `diff`, which is then blamed."""
    code, arrays, _ = convert(MODEL)
    assert code == 0
    code, _, err = convert(MODEL, "--reverse")
    assert code == 1 and err.endswith(
        "named as on the other side of " + f"{tmp_path / 'my.table'}: leave out --reverse\n"
    )
    save(tmp_path / "like.npz", MODEL)
    code, _, err = convert(MODEL, "--like", str(tmp_path / "like.npz"))
    blamed = (
        f"{tmp_path / 'like.npz'}: its arrays are named as those of {tmp_path / 'in.npz'}: give a file of the other"
    )
    assert code == 1 and blamed in err and len(err.splitlines()) == 1, err
    save(tmp_path / "right.npz", arrays)
    words = ["diff", "--table", str(tmp_path / "my.table"), "--reverse"]
    assert main([*words, str(tmp_path / "like.npz"), str(tmp_path / "right.npz")]) == 1
    assert "like.npz: its arrays are named as on the other side" in capsys.readouterr().err


def test_notes_of_a_comparison_name_their_file_and_fold_what_is_set_aside(convert, tmp_path, capsys):
    """A copy of the weights outside of the part that is taken is one entry, as training state is."""
    left = {f"outer/net/{name}": array for name, array in MODEL.items()}
    left |= {f"outer/model_ema/{name}": array for name, array in MODEL.items()}
    code, arrays, err = convert(left)
    aside = "took the arrays under 'outer/net/' and set aside outer/model_ema/ (3 arrays)\n"
    assert code == 0 and aside in err, err
    save(tmp_path / "right.npz", arrays)
    assert (
        main(["diff", "--table", str(tmp_path / "my.table"), str(tmp_path / "in.npz"), str(tmp_path / "right.npz")])
        == 0
    )
    assert f"note: {tmp_path / 'in.npz'}: {aside}" in capsys.readouterr().err


def test_remedies_for_parts_are_true(convert):
    """The count of an average is no optimizer's, weights are proposed before their copies, and parts are named."""
    copy = {f"model_ema/{name}": array for name, array in MODEL.items()} | {"model_ema/n_averaged": np.array(2)}
    live = {f"model/{name}": array for name, array in MODEL.items()}
    code, _, err = convert(copy | live, "--weights", "model_ema")
    assert code == 0 and "note: set aside the training state n_averaged\n" in err, err
    code, _, err = convert(MODEL | STATE)
    assert code == 0 and "with --with-optimizer takes the optimizer's along" in err, err
    nested = {f"outer/{name}": array for name, array in (copy | live).items()}
    code, _, err = convert(nested, "--weights", "outer")
    assert code == 1 and err.endswith("lie under 'model/', and all under 'model_ema/': --weights model\n"), err
    code, _, err = convert(copy | live, "--weights", "elsewhere")
    assert code == 2 and "unknown name 'elsewhere' (it holds model, model_ema)" in err, err


def test_names_that_differ_by_a_wrapper_alone_are_refused_with_what_takes_either(tmp_path, capsys):
    """As where weights were loaded into a compiled model by strict=False and saved: neither is taken in silence."""
    table = tmp_path / "t.table"
    table.write_text("table 1\na.weight: o i <-> k: i o\na.bias: o <-> b: o\n")
    plain = {"a.weight": np.ones((2, 3)), "a.bias": np.ones(2)}
    wrapped = {f"_orig_mod.{name}": 2 * array for name, array in plain.items()}
    source = save(tmp_path / "both.npz", plain | wrapped)
    code, _, err = run(capsys, "--table", table, source, "-o", tmp_path / "x.npz")
    assert code == 1 and "save that one alone (--weights _orig_mod. takes these)\n" in err and "drop" not in err
    words = ["--table", table, source, "-o", tmp_path / "x.npz", "--weights", "_orig_mod."]
    assert run(capsys, *words)[0] == 0 and load(tmp_path / "x.npz")["b"].tolist() == [2, 2]
    source = save(tmp_path / "some.npz", plain | {"a._orig_mod.bias": np.ones(2)})
    err = run(capsys, "--table", table, source, "-o", tmp_path / "y.npz")[2]
    assert "a._orig_mod.bias: stored without this wrapper too" in err and "--weights" not in err


def test_a_line_that_drops_an_array_is_spelled_as_a_table_reads_it(tmp_path, capsys):
    table = tmp_path / "t.table"
    table.write_text("table 1\na: o <-> b: o\n")
    source = save(tmp_path / "x.npz", {"a": np.ones(2), "my array": np.ones(3)})
    err = run(capsys, "--table", table, source, "-o", tmp_path / "y.npz")[2]
    line = r"my\u0020array -> drop"
    assert f"the line {line} leaves it out\n" in err
    table.write_text(f"table 1\na: o <-> b: o\n{line}\n")
    assert run(capsys, "--table", table, source, "-o", tmp_path / "y.npz")[0] == 0


def test_a_file_without_arrays_is_no_state_of_an_optimizer(tmp_path, capsys):
    (tmp_path / "t.table").write_text("table 1\na: o <-> b: o\n")
    source = save(tmp_path / "x.safetensors", {})
    code, _, err = run(capsys, "--table", tmp_path / "t.table", source, "-o", tmp_path / "y.npz")
    assert code == 1 and "missing a\n" in err and "optimizer" not in err


@pytest.mark.parametrize("rows", [12, 1200])
def test_parts_that_divide_an_axis_differently_are_converted_there_and_back(convert, rows):
    text = "table 1\nf: (1[:-1] h d) i <-> w: i (1[:-1] d h)\nf: (1[1:] o) i <-> w: i (1[1:] o)\n"
    kernel = {"f": np.arange(rows * 300.0).reshape(rows, 300)}
    code, arrays, err = convert(kernel, "--set", "h=3", text=text)
    assert code == 0, err
    first, second = kernel["f"].reshape(2, -1, 300)
    first = first.reshape(3, -1, 300).swapaxes(0, 1).reshape(second.shape)
    assert np.array_equal(arrays["w"], np.concatenate([first, second]).T)
    code, back, err = convert(arrays, "--set", "h=3", "--reverse", text=text)
    assert code == 0 and np.array_equal(back["f"], kernel["f"]), err


def test_blocks_inside_of_blocks_are_converted_there_and_back():
    """The queries of three parts, of whose heads a quarter has its channels in another order."""
    lines = [
        "qkv: (1[:-2] h 1[:-3] r=2 p) <-> q: (h 1[:-3] p r)",
        "qkv: (1[:-2] h a=3[1:] e) <-> q: (h a[1:] e)",
        "qkv: (s[1:] h d) <-> {s=k|v}: (h d)",
    ]
    table, fused = Table.parse("\n".join(["table 1", *lines])), np.arange(3 * 2 * 16.0)
    order = [0, 2, 1, 3, *range(4, 16)]
    split = dict(zip("qkv", fused.reshape(3, 2, 16), strict=True))
    made = table.apply({"qkv": fused}, h=2)
    assert np.array_equal(made["q"], split["q"][:, order].ravel())
    assert all(np.array_equal(made[name], split[name].ravel()) for name in "kv")
    assert np.array_equal(table.reverse().apply(made, h=2)["qkv"], fused)
    overlapping = Table.parse("\n".join(["table 1", *lines, "qkv: (1[:-2] h 1[:-3] c) -> drop"]))
    with pytest.raises(TableError, match="qkv is used twice in places"):
        overlapping.apply({"qkv": fused}, h=2)
