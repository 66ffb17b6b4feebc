"""Checkpoints and tables that do not fit are refused, with what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convert.__main__ import main
from convert.table import gaps

from .commands import GOOGLE
from .test_table_command import WIDTH, WORDS, files, run, save

__all__ = ["files"]  # a fixture


def test_a_checkpoint_of_another_model_is_called_so(tmp_path, capsys):
    """The message begins with this verdict and says what the file is; it offers each near name once."""
    (tmp_path / "x.table").write_text("table 1\nparams/{s=q|k|v|o}/kernel: i o <-> {s}: o i\n")
    own = save(tmp_path / "own.npz", {f"params/{name}/bias": np.ones(3) for name in ("enc", "mid", "dec")})
    words = ["--table", tmp_path / "x.table", "-o", tmp_path / "y.npz"]
    code, _, error = run(capsys, *words, own)
    assert code == 1 and "\n  - 0 of 3 names are in this Table: another model?\n" in error, error
    assert "\n  - the file's first names are " in error and "\n  - the Table's are " in error, error
    assert error.count("nearest unused") <= 1 and error.count("(nearest: line 2") <= 1
    code, _, error = run(capsys, *words, GOOGLE)
    assert f"names are in this Table: another model? ({GOOGLE} is an mlp_mixer (google))" in error, error
    code, _, error = run(capsys, "google2torch", own)
    remedies = "(docs/own-model.md), --spec PAGE adds an architecture (docs/own-architecture.md)"
    assert code == 1 and f"a Table converts models of one's own {remedies}" in error, error


def test_a_record_without_a_table_is_refused(files, capsys):
    folder, *_ = files
    source = folder / "left.safetensors"
    (folder / "other.json").write_text("{}")
    for path in (folder / "other.json", source):
        code, _, error = run(capsys, "--table", path, source, "-o", folder / "x.npz")
        assert code == 1 and f"{path}: contains no Table, as the record of a conversion by a Table does" in error
    assert run(capsys, "--table", folder / "bert.table", source, "-o", folder / "x.npz", "--set", "h=3")[0] == 0
    record = folder / "x.npz.json"
    record.write_text(record.read_text().replace("attn.qkv", "attn.kqv"))
    code, _, error = run(capsys, "--table", record, source, "-o", folder / "y.npz", "--set", "h=3")
    assert code == 1 and "its record is not as it was written: save its Table as a file of its own" in error


REFUSED = {
    "open axes": ([], 2, "--set h="),
    "no such axis": (["--set", "heads=3"], 2, "no axis is called 'heads': its axes are c, d, h, i, pad, s, w"),
    "no length": (["--set", "h=three"], 2, "write an axis and its length, as in h=12"),
    "a length that does not divide": (["--set", "h=5"], 1, "36 is no multiple of 15, as ("),
    "the other direction": (["--set", "h=3", "--reverse"], 1, "bert.table: leave out --reverse"),
    "no such part": (["--set", "h=3", "--weights", "ema"], 2, "--weights ema: unknown name 'ema'"),
    "no such file to be like": (["--like", "nowhere.npz"], 2, "nowhere.npz: there is no such file"),
    "no dtype": (["--set", "h=3", "--dtype", "int8"], 2, "no dtype 'int8'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(files, capsys, name):
    folder, *_ = files
    words, status, message = REFUSED[name]
    before = sorted(folder.iterdir())
    code, _, error = run(
        capsys, "--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.msgpack", *words
    )
    assert (code, message in error) == (status, True), error
    assert sorted(folder.iterdir()) == before


CHANGES = {
    "an array is missing": (lambda x: x.pop("layer.1.norm.weight"), "missing layer.1.norm.weight"),
    "an array is too many": (
        lambda x: x.update({f"layer.{i}.norm.bias": np.ones(3, "f4") for i in range(3)}),
        "layer.{0..2}.norm.bias: no line speaks of it: if the other side needs none",
    ),
    "a shape": (lambda x: x.update({"layer.1.norm.weight": np.ones(5, "f4")}), "c is 12, not 5"),
    "ties that differ": (
        lambda x: x.update({"head.weight": x["emb.weight"] + np.eye(WORDS + 2, WIDTH, -5, dtype="f4")}),
        "bert.table:3 says that they are equal",
    ),
    "padding that is not zero": (
        lambda x: x.update({"emb.weight": x["emb.weight"] + 1, "head.weight": x["emb.weight"] + 1}),
        "emb.weight holds other values than 0, which",
    ),
    "dtypes that do not agree": (
        lambda x: x.update({"layer.1.norm.weight": np.ones(WIDTH, "f2")}), "convert them to one dtype first"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_that_does_not_fit_is_refused(files, capsys, name):
    folder, left, _ = files
    change, message = CHANGES[name]
    change(left)
    source = save(folder / "changed.npz", left)
    before = sorted(folder.iterdir())
    words = ["--table", folder / "bert.table", source, "-o", folder / "x.msgpack", "--set", "h=3"]
    code, _, error = run(capsys, *words)
    assert (code, message in error) == (1, True), error
    assert "Traceback" not in error
    assert sorted(folder.iterdir()) == before


def test_one_array_more_is_dropped_by_a_line(files, capsys):
    folder, left, _ = files
    table, out = folder / "bert.table", folder / "x.msgpack"
    source = save(folder / "more.npz", {**left, "mlm.weight": np.ones(3, "f4")})
    code, _, error = run(capsys, "--table", table, source, "-o", out, "--set", "h=3")
    line = "mlm.weight -> drop"
    assert code == 1 and f": if the other side needs none, the line {line} leaves it out\n" in error, error
    table.write_text(f"{table.read_text()}\n{line}\n")
    assert run(capsys, "--table", table, source, "-o", out, "--set", "h=3")[0] == 0
    source = save(folder / "renamed.npz", {"mlm.weight" if n == "head.weight" else n: a for n, a in left.items()})
    assert "-> drop" not in run(capsys, "--table", table, source, "-o", out, "--set", "h=3")[2]


def test_a_training_file_of_the_other_side_needs_reverse(files, capsys):
    """Also where its names lie below a part."""
    folder, _, right = files
    source = save(folder / "training.npz", {f"model/{name}": array for name, array in right.items()})
    code, _, error = run(capsys, "--table", folder / "bert.table", source, "-o", folder / "x.npz")
    what = "its arrays under 'model/' are named as on the other side of "
    assert code == 1 and what in error and error.endswith(": add --reverse\n"), error


def test_a_table_of_one_block_names_the_other_blocks_of_a_training_file(tmp_path, capsys):
    """A Table that was derived from models of one block says so of a deeper file, and not `another model`."""
    leaves = ("norm", "up", "down", "out")
    lines = [f"blocks.0.{leaf}.weight: c <-> layers/0/{leaf}: c" for leaf in leaves]
    table = tmp_path / "net.table"
    table.write_text("\n".join(["table 1: torch <-> flax", *lines, "head.weight: c <-> head: c", ""]))
    arrays = {f"blocks.{k}.{leaf}.weight": np.ones(3) for k in range(4) for leaf in leaves} | {
        "head.weight": np.ones(3)
    }
    moments = {f"optimizer/state/{k}/exp_avg": np.ones(3) for k in range(17)}
    source = save(tmp_path / "five.npz", {f"model/{name}": array for name, array in arrays.items()} | moments)
    code, _, error = run(capsys, "--table", table, source, "-o", tmp_path / "x.npz")
    assert code == 1 and error.splitlines()[0].endswith("read from torch to flax, under 'model/'")
    assert [line[4:] for line in error.splitlines()[1:]] == [
        "blocks.{1..3}: no line speaks of these blocks, 12 arrays (the table has blocks.0 alone)",
        "numbers that count blocks: write {i} for them, or derive the table from models with two of everything",
    ]


def test_the_state_of_an_optimizer_alone_is_called_so(files, capsys):
    folder, left, _ = files
    moments = {f"linear_{k}.w_0_{slot}_0": np.ones(3) for k in range(2) for slot in ("moment1", "moment2")}
    state, table = save(folder / "state.npz", moments), folder / "bert.table"
    what = "the state of an optimizer alone, and a Table reads weights"
    code, _, error = run(capsys, "--table", table, state, "-o", folder / "x.npz")
    assert code == 1 and f"state.npz: is {what}: convert the file of the weights, --with-optimizer takes" in error
    code, _, error = run(capsys, "diff", "--table", table, folder / "left.safetensors", state, "--set", "h=3")
    assert code == 1 and f"state.npz: is {what}: to compare states, convert one file by --with-optimizer" in error
    both = {f"{part}/{n}": a for part, arrays in (("model", left), ("opt", moments)) for n, a in arrays.items()}
    words = [save(folder / "both.npz", both), "--table", table, "--set", "h=3", "--weights", "opt"]
    code, _, error = run(capsys, *words, "-o", folder / "x.npz")
    assert code == 1 and f"both.npz: --weights opt takes {what}: take the weights" in error, error
    code, _, error = run(capsys, "diff", *words, "--weights", "/", state)
    assert code == 1 and f"both.npz: --weights opt takes {what}: to compare states" in error, error


def test_like_of_another_model_is_called_so(files, capsys):
    folder, left, _ = files
    other = save(folder / "other.npz", {f"stem.{k}.weight": np.ones(3) for k in range(4)})
    words = ["--table", folder / "bert.table", folder / "left.safetensors", "--like", other, "-o", folder / "x.npz"]
    code, _, error = run(capsys, *words, "--set", "h=3")
    which = f"right side of {folder / 'bert.table'} (flax), whose shapes it is to give"
    assert code == 1 and f"other.npz: 0 of 4 names are on the {which}: another model?\n" in error, error
    assert len(error.splitlines()) == 3, error
    nested = save(folder / "own.npz", {f"model/{name}": array for name, array in left.items()})
    words = ["--table", folder / "bert.table", nested, "--weights", "model", "--like", nested, "-o", folder / "x.npz"]
    code, _, error = run(capsys, *words, "--set", "h=3")
    assert code == 1 and f"own.npz: 0 of {len(left)} names are on the {which}: it is the source: give" in error, error


def test_a_table_that_cannot_be_read_is_one_error(files, capsys):
    folder, *_ = files
    (folder / "bad.table").write_text("table 1\na: o i <-> b: o\nc o <-> d\n")
    code, _, error = run(capsys, "--table", folder / "bad.table", folder / "left.safetensors", "-o", folder / "x.npz")
    assert code == 1
    assert (
        "bad.table: cannot be read as a table" in error and "line 2: a: the two sides" in error and "line 3: " in error
    )


def test_names_below_a_part_are_one_line_that_names_it(files, capsys):
    """Converting by a Table, comparing across it, and comparing by names alone."""
    folder, left, right = files
    nested = {f"model/{name}": array for name, array in left.items()}
    save(folder / "train.npz", nested | {f"net/{name}": array for name, array in left.items()})
    save(folder / "right.npz", right)
    table, train, bare = (str(folder / name) for name in ("bert.table", "train.npz", "left.safetensors"))
    across = ["diff", "--table", table, train, str(folder / "right.npz")]
    for words in (["--table", table, train], across):
        assert main(words) == 1
        err = capsys.readouterr().err
        assert err.endswith("reads lie under 'model/', and all under 'net/': --weights model\n"), err
        assert "missing" not in err
    assert main([*across, "--weights", "model", "--weights", "/"]) == 0
    moments = {f"optimizer/state/{number}/exp_avg": np.ones(2) for number in range(9)}
    save(folder / "train.npz", nested | moments)
    save(folder / "right.npz", right | {f"opt_state/0/mu/{number}": np.ones(2) for number in range(9)})
    assert main(across) == 0
    err = capsys.readouterr().err
    assert "took the arrays under 'model/' and set aside optimizer/ (9 arrays)\n" in err
    assert "right.npz: set aside the training state opt_state/ (9 arrays)" in err
    save(folder / "train.npz", nested)
    assert main(across) == 0
    assert "reads lie under 'model/'\n" in capsys.readouterr().err
    assert main(["diff", bare, train]) == 0
    assert capsys.readouterr().err == f"note: {train}: took the arrays under 'model/'\n"
    save(folder / "train.npz", nested | {f"net/{name}": array for name, array in left.items()})
    assert main(["diff", bare, train]) == 1
    command = f"--weights / --weights model {bare} {train}"
    assert f"python -m convert diff {command} compares these" in capsys.readouterr().err
    assert main(["diff", *command.split()]) == 0
    assert main(["diff", bare, train, "--weights", "/", "--weights", "model"]) == 0


def test_what_is_no_array_is_named(tmp_path, capsys):
    """A number among the arrays is in no target: converting, by a Table, and comparing, in any way, say so."""
    import msgpack

    arrays = {"w": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "f4")}
    save(tmp_path / "a.msgpack", arrays)
    tree = {name: msgpack.ExtType(1, msgpack.packb((a.shape, "float32", a.tobytes()))) for name, a in arrays.items()}
    (tmp_path / "b.msgpack").write_bytes(msgpack.packb({**tree, "temperature": 2.5}))
    (tmp_path / "t.table").write_text("table 1\nw: i o <-> x: o i\nb: o <-> y: o\n")
    a, b, out, table = (str(tmp_path / name) for name in ("a.msgpack", "b.msgpack", "c.npz", "t.table"))
    said = "set aside temperature (plain numbers)"
    for words in (["--table", table, b, "-o", out], ["diff", a, b], ["diff", b, a], ["diff", b, out, "--table", table]):
        assert main(words) == 0
        assert said in capsys.readouterr().err, words


def test_one_common_layer_is_no_other_side(tmp_path, capsys):
    """As the norm behind the stem, which both sides and another model have."""
    lines = [
        "table 1: paddle <-> torch",
        *(f"{name}.w: c <-> {name}: c" for name in ("a", "b", "d")),
        "n.b: c <-> e: c",
    ]
    (tmp_path / "x.table").write_text("\n".join(lines))
    own = save(tmp_path / "own.npz", {name: np.ones(3) for name in ("e", "x", "y", "z")})
    code, _, error = run(capsys, "--table", tmp_path / "x.table", own, "-o", tmp_path / "y.npz")
    assert code == 1 and "0 of 4 names are in this Table: another model?" in error and "--reverse" not in error, error
    other = save(tmp_path / "other.npz", {name: np.ones(3) for name in ("a", "b", "d", "x")})
    code, _, error = run(capsys, "--table", tmp_path / "x.table", other, "-o", tmp_path / "y.npz")
    assert "its arrays are named as on the table's other side: add --reverse" in error, error


def test_the_other_side_is_found_beside_training_state(tmp_path, capsys):
    """As in a TrainState, whose moments have no line: they count neither for a side nor against it."""
    (tmp_path / "x.table").write_text("table 1: torch <-> flax\na.weight: o i <-> params/a/kernel: i o\n")
    state = {"step": np.array(3), **{f"opt_state/0/{slot}/a/kernel": np.ones((2, 3)) for slot in ("mu", "nu")}}
    source = save(tmp_path / "state.npz", {"params/a/kernel": np.ones((2, 3)), **state})
    code, _, error = run(capsys, "--table", tmp_path / "x.table", source, "-o", tmp_path / "y.npz")
    assert code == 1 and f"named as on the other side of {tmp_path / 'x.table'}: add --reverse" in error, error
    moments = save(tmp_path / "moments.npz", state)
    code, _, error = run(capsys, "--table", tmp_path / "x.table", moments, "-o", tmp_path / "y.npz")
    assert code == 1 and "other side" not in error, error


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([1.0] * 8, "a list of 8 numbers"), (["a", 1], "a list of 2 numbers or texts"), (2.5, "the number 2.5"),
        (None, "None"), ("x", "a text"), ([[1, 2], [3, 4]], "a list or dict of other values"),
    ],
)  # fmt: skip
def test_what_a_file_has_in_the_place_of_an_array_is_named(run, tmp_path, value, what):
    source = tmp_path / "a.pt"
    torch.save({"w": torch.ones(2, 3), "b": value}, source)
    (table := tmp_path / "a.table").write_text("table 1\nw: a b <-> w: b a\nb: a <-> b: a\n")
    code, _, error = run("--table", table, source, "-o", tmp_path / "o.npz")
    remedy = "save it as an array, or without it and with a Table that leaves it out"
    assert code == 1 and error.splitlines()[1:] == [f"  - b is {what} in the file, no array: {remedy}"]


def test_a_table_without_lines_is_said_to_have_none(run, tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    (table := tmp_path / "a.table").write_text("table 1\n")
    code, _, error = run("--table", table, tmp_path / "a.npz", "-o", tmp_path / "o.npz")
    assert code == 1
    assert error.splitlines()[2:] == ["  - the Table has no line that needs an array: derive or write it first"]


def test_the_blocks_of_a_file_are_folded_once_for_all_that_are_absent(monkeypatch):
    """A file of thousands of blocks may lack many."""
    folded = []
    monkeypatch.setattr(gaps, "fold", lambda names: folded.append(names) or ["a.{0..99}"])
    absent, single = gaps.gaps([f"a.{n}.w" for n in range(1, 99, 2)], [f"a.{n}.w" for n in range(0, 100, 2)])
    assert (len(absent), single, len(folded)) == (49, [], 1)


def test_a_block_that_is_absent_between_others_is_one_line(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1\na.{i}.{s=q|k|v}: o <-> x.{i}.{s}: o\nb.{i}.c: o <-> y.{i}: o\n")
    names = [f"a.{i}.{name}" for i in (0, 1, 3, 4) for name in "qkv"] + [f"b.{i}.c" for i in range(2)]
    arrays = {name: np.ones(2) for name in names if name != "a.1.k"}
    words = ["--table", tmp_path / "x.table", save(tmp_path / "x.npz", arrays), "-o", tmp_path / "y.npz"]
    code, _, error = run(capsys, *words)
    assert code == 1 and "\n  - missing a.2, with 3 arrays: the file has a.{0,1,3,4}\n" in error, error
    assert error.count("missing ") == 2 and "missing a.1.k" in error, error


def test_an_array_in_other_blocks_is_nearest_to_its_own_name(tmp_path, capsys):
    """Folded numbers and the hole for them are alike: else a mean would be near to a variance."""
    own = {f"Bl.{k}.norm.{leaf}": np.ones(3) for k in range(12) for leaf in ("running_var", "running_mean")}
    own["head"] = np.ones(3)
    lines = "".join(f"bl.{{i}}.norm.{leaf}: o <-> {leaf}.{{i}}: o\n" for leaf in ("running_mean", "running_var"))
    (tmp_path / "x.table").write_text(f"table 1\nhead: o <-> head: o\n{lines}")
    source = save(tmp_path / "own.npz", own)
    code, _, error = run(capsys, "--table", tmp_path / "x.table", source, "-o", tmp_path / "y.npz")
    assert code == 1 and "missing bl.{i}.norm.running_mean (nearest unused: Bl.{0..11}.norm.running_mean)" in error
