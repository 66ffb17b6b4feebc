"""Two checkpoints are compared across a Table."""

from __future__ import annotations

import json
import re

import numpy as np

import ports

from .conftest import needs
from .test_table_command import files, run, save

__all__ = ["files"]  # a fixture


def test_counters_that_a_table_states_are_no_difference(tmp_path, capsys):
    """And running variances alone are what training in torch leaves otherwise; a single number has no position."""
    lines = ["_mean: c <-> running_mean: c", "_variance: c <-> running_var: c", "t: <-> t:"]
    (tmp_path / "x.table").write_text("\n".join(["table 1", *lines, "<-> num_batches_tracked: = 0", "<-> k: = 1"]))
    ours = {"_mean": np.ones(3), "_variance": np.ones(3), "t": np.float64(2)}
    theirs = {"running_mean": np.ones(3), "running_var": np.ones(3), "t": np.float64(2), "k": np.float64(1)}
    a = save(tmp_path / "a.npz", ours)
    words = ["diff", "--table", tmp_path / "x.table", a, tmp_path / "b.npz"]
    save(tmp_path / "b.npz", {**theirs, "num_batches_tracked": np.array(0)})
    code, printed, _ = run(capsys, *words)
    assert (code, printed.splitlines()[0]) == (0, "the same arrays"), printed
    save(tmp_path / "b.npz", {**theirs, "num_batches_tracked": np.array(3)})
    code, printed, error = run(capsys, *words)
    assert (code, printed.splitlines()[0]) == (
        0,
        "the same arrays, except batch counters, which are not in both files",
    )
    assert f"{a}: it stores no batch counters of 1 norm, which are not compared: " in error
    assert printed.splitlines()[-1] == "4 arrays of B compared, every element equal"
    save(tmp_path / "b.npz", {**theirs, "running_var": 2 * np.ones(3), "num_batches_tracked": np.array(3)})
    code, _, error = run(capsys, *words)
    assert code == 1 and "running variances alone differ, as training leaves them: torch updates running" in error, (
        error
    )
    assert "training.md, BatchNorm)" in error
    save(tmp_path / "b.npz", {**theirs, "k": np.float64(5), "t": np.float64(3), "num_batches_tracked": np.array(0)})
    code, printed, error = run(capsys, *words)
    assert code == 1 and "t: A=2, B=3\n" in printed and "k: A=1, B=5\n" in printed and "variances alone" not in error
    found = json.loads(run(capsys, *words, "--json")[1])["differences"]
    assert {entry["tensor"]: entry["a"] for entry in found} == {"t": ["t"], "k": []}  # no array of A


def test_open_axes_of_two_files_name_both(tmp_path, capsys):
    """The shapes of both files are known: no --like is offered. A Table in the file's record is named as such."""
    (tmp_path / "x.table").write_text("table 1\na: (h w) <-> b: (w h)\n")
    a, b = save(tmp_path / "a.npz", {"a": np.arange(6.0)}), save(tmp_path / "b.npz", {"b": np.arange(6.0)})
    for words in (["diff", a, b], [a, "--like", b]):
        code, _, error = run(capsys, *words, "--table", tmp_path / "x.table")
        assert code == 2 and f"nor those of {b} show h and w on line 2, as both sides flatten them" in error, error
        assert "give lengths (--set h=..., from which w follows)" in error and "--like" not in error
    own = tmp_path / "own.safetensors"
    assert run(capsys, a, "--table", tmp_path / "x.table", "--set", "h=2", "-o", own)[0] == 0
    _, _, error = run(capsys, "--table", own, own)
    assert f"{own}: its arrays are named as on the other side of the Table in its own record" in error
    assert "AXIS=LENGTH" in run(capsys, "diff", "--help")[1]


def test_diff_compares_across_a_table(files, capsys):
    folder, left, right = files
    table, a, b = folder / "bert.table", folder / "left.safetensors", save(folder / "right.npz", right)
    code, out, error = run(capsys, "diff", "--table", table, a, b)
    assert (code, out.splitlines()[0]) == (0, "the same arrays, except what the Table drops"), error
    assert out.endswith(f"\n{len(right)} arrays of B compared, every element equal\n")
    assert "dropped, as the table says" in error
    code, out, error = run(capsys, "diff", "--table", table, b, a, "--reverse")
    assert (code, out.splitlines()[0]) == (0, "the same arrays, except what the Table drops"), error
    assert f"{a}: not compared, as the table drops them: layer.{{0..2}}.mask" in error
    kept = save(folder / "kept.npz", {name: array for name, array in left.items() if "mask" not in name})
    assert run(capsys, "diff", b, kept, "--table", table, "--reverse")[0] == 0
    changed = {**right, "params/layers/norm/scale": right["params/layers/norm/scale"] * 2}
    code, out, _ = run(capsys, "diff", "--table", table, a, save(folder / "changed.npz", changed))
    assert code == 1 and re.search(r"0[.]50 +36 of 36 +layer[.]\{0..2\}[.]norm[.]weight: ", out), out
    short = {name: array for name, array in right.items() if "norm" not in name}
    code, _, error = run(capsys, "diff", "--table", table, a, save(folder / "short.npz", short))
    assert code == 1 and "params/layers/norm/scale" in error


def test_diff_of_one_layout_needs_no_architecture(files, capsys):
    folder, left, _ = files
    left["step"] = np.array(3)
    a = save(folder / "a.npz", left)
    b = save(folder / "b.pt", left)
    code, out, _ = run(capsys, "diff", a, b)
    assert (code, out) == (0, f"the same arrays\nA: {a}\nB: {b}\n{len(left)} arrays compared, every element equal\n")
    changed = {**left, "step": np.array(4), "layer.0.norm.weight": left["layer.0.norm.weight"] + 1}
    changed.pop("layer.1.norm.weight")
    code, out, _ = run(capsys, "diff", a, save(folder / "c.npz", changed))
    assert code == 1
    verdict, _, _, _, *rows, _, _, _, last = out.splitlines()
    assert [row.split(": ")[0] for row in rows[:3]] == ["  arrays only in A", "    layer.1.norm.weight", ""]
    assert [row.split(": ")[0].split()[-1] for row in rows[3:]] == ["array", "layer.0.norm.weight", "step"]
    assert verdict == "different: 1 array only in A and the values of 2 arrays"
    assert last == f"{len(left) - 1} arrays compared, 2 differ, 1 more only in A"
    last = run(capsys, "diff", a, save(folder / "c.npz", changed), "--rtol", "0.3")[1].splitlines()[-1]
    both = "1 differs by more than 0.3, 1 more differs by at most 0.25, within 0.3 ("
    assert last.startswith(f"{len(left) - 1} arrays compared, {both}")


def test_diff_of_other_names_asks_for_a_table(files, capsys):
    folder, left, _ = files
    strange = {**left, "norm.weight": np.ones(3, "f4"), "2.0.weight": np.ones((3, 2), "f4")}  # names of known ones
    a, b = save(folder / "a.npz", strange), folder / "x.npz"
    run(capsys, "--table", folder / "bert.table", folder / "left.safetensors", "-o", b, "--set", "h=3")
    code, _, error = run(capsys, "diff", a, b)
    what = "names of no known architecture, and the two files have different names: give --table FILE"
    assert code == 1 and f"{a} and {b}: {what}" in error
    assert f"the record of {b} has the Table that wrote it" in error


def test_diff_says_that_a_known_model_and_another_are_two(tmp_path, capsys):
    needs("torch")
    port = ports.build("mlp_mixer", "tiny S/16", "torch")
    port.save(a := tmp_path / "a.safetensors")
    b = save(tmp_path / "b.npz", {"enc.w": np.ones((3, 2), "f4"), "enc.b": np.ones(3, "f4")})
    code, _, error = run(capsys, "diff", b, a)
    said = f"{a} is an mlp_mixer (torch), and {b} has names of no known architecture; they are two different models, "
    assert code == 1 and f"{said}unless a Table relates them: --table FILE" in error, error


def test_diff_states_the_shape_that_a_line_makes(tmp_path, capsys):
    """And the file that has another, where a table exchanges two axes."""
    (tmp_path / "x.table").write_text("table 1: torch <-> flax\nhead.weight: o i <-> head/kernel: o i\n")
    weight = np.zeros((5, 3), "f4")
    a, b = save(tmp_path / "a.npz", {"head.weight": weight}), save(tmp_path / "b.npz", {"head/kernel": weight.T})
    code, _, error = run(capsys, "diff", "--table", tmp_path / "x.table", a, b)
    problem = f"head/kernel has shape [3, 5] in {b}, line 2 makes [5, 3] of head.weight"
    assert code == 1 and error.count("  - ") == 1 and problem in error


def test_diff_compares_sums_in_either_order_of_the_files(tmp_path, capsys):
    """One bias against two, as of an LSTM. Another array that a term is a part of is compared, too."""
    table = tmp_path / "x.table"
    table.write_text("table 1\nb: c <- ih: c[:3] + hh: c\nn: k <-> ih: k[3:]\n")
    a = save(tmp_path / "a.npz", {"b": np.arange(3.0) + 2, "n": np.ones(2)})
    same, changed = 2 * np.ones(3), np.ones(3)
    for hh, rest, differing in ((same, 1, ""), (changed, 1, "b: A=2, B=1"), (same, 4, "n: A=1, B=4")):
        b = save(tmp_path / "b.npz", {"ih": np.array([0.0, 1, 2, rest, rest]), "hh": hh})
        code, printed, error = run(capsys, "diff", "--table", table, a, b)
        assert code == bool(differing) and differing in printed and "2 arrays of B compared" in printed, printed
        assert f"{b}: added, as the table says, and their sums are compared: hh" in error, error
        assert run(capsys, "diff", "--table", table, b, a, "--reverse")[0] == bool(differing)


def test_a_round_trip_through_a_sum_has_equal_sums(tmp_path, capsys):
    """Names alone show other terms, and a note says how sums are compared: by the Table, of two files of one side."""
    (tmp_path / "x.table").write_text("table 1\nb: c <- ih: c + hh: c\nw: o i <-> w: i o\n")
    first = save(tmp_path / "a.npz", {"ih": np.arange(3.0), "hh": 2 * np.ones(3), "w": np.ones((2, 3))})
    there, back = tmp_path / "b.npz", tmp_path / "c.safetensors"
    assert run(capsys, "--table", tmp_path / "x.table", "--reverse", first, "-o", there)[0] == 0
    assert run(capsys, "--table", tmp_path / "x.table", there, "-o", back)[0] == 0
    code, printed, error = run(capsys, "diff", first, back)
    option = f"--table {back} --reverse"
    assert code == 1 and f"the Table in the record of {back} adds ih, hh: {option} compares the sums" in error, error
    code, printed, _ = run(capsys, "diff", first, back, *option.split())
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except how sums are divided among their terms")
    assert printed.endswith("\n2 arrays that the Table makes of each file compared, every element equal\n")
    save(there, {"ih": np.arange(3.0), "hh": 3 * np.ones(3), "w": np.ones((2, 3))})
    code, printed, _ = run(capsys, "diff", first, there, *option.split())
    assert code == 1 and "A=2, B=3 at [0]" in printed and "positions: in what the Table makes" in printed, printed
    (tmp_path / "open.table").write_text("table 1\nw: i o <-> w: o i\n<-> z: k = 0\nih: c <-> x: c\nhh: c <-> y: c\n")
    code, _, error = run(capsys, "diff", first, back, "--table", tmp_path / "open.table")
    assert code == 2 and "give lengths (--set k=...)" in error and "--like" not in error, error


def test_diff_says_nothing_of_an_option_that_it_lacks(tmp_path, capsys):
    """B gives the lengths, as the file of --like does, and what is set aside of it is said of B."""
    (tmp_path / "x.table").write_text("table 1\na: o i <-> params/a: i o\n")
    a = save(tmp_path / "a.npz", {"a": np.ones((2, 3))})
    state = {"step": np.array(3), **{f"opt_state/0/{slot}/a": np.ones((3, 2)) for slot in ("mu", "nu")}}
    b = save(tmp_path / "b.npz", {"params/a": np.ones((3, 2)), **state})
    code, _, error = run(capsys, "diff", "--table", tmp_path / "x.table", a, b)
    assert code == 0 and f"{b}: set aside the training state step, opt_state/ (2 arrays)" in error, error
    assert "--like" not in error
