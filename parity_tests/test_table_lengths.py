"""Lengths of axes that a Table's user gives, and those that records and derived Tables state."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from specs.solving.stating import stated
from specs.table import Table, TableError

from .test_table_command import files, load, run, save

__all__ = ["files"]  # a fixture


def test_lengths_that_stay_open_lead_to_the_record_of_the_file(tmp_path, capsys):
    """Where both sides compose an axis, the way back needs its length too, which the file's record has."""
    table, a, b, back = (tmp_path / name for name in ("x.table", "a.npz", "b.bin", "c.npz"))
    table.write_text("table 1: torch <-> torch\nqkv: (s h d) i <-> qkv: (h s d) i\n")
    np.savez(a, qkv=np.arange(48.0).reshape(24, 2))
    code, out, _ = run(capsys, "--table", table, a, "-o", b, "--set", "h=2", "--set", "s=3")
    assert code == 0 and out.startswith(f"wrote {b} (format torch, side right) ")  # which its suffix does not tell
    code, _, error = run(capsys, "--table", table, b, "-o", back, "--reverse")
    assert code == 2 and f"the record of {b} has its Table, with these lengths: --table {b}.json" in error
    assert run(capsys, "--table", f"{b}.json", b, "-o", back, "--reverse")[0] == 0
    code, _, error = run(capsys, "diff", "--table", table, a, b)
    assert code == 2 and f"the record of {b} has its Table, with these lengths: --table {b}.json" in error
    assert run(capsys, "diff", "--table", f"{b}.json", a, b)[0] == 0
    assert "has its Table" not in run(capsys, "--table", table, a, "-o", tmp_path / "d.npz")[2]


def test_a_length_that_other_lines_contradict_is_reported(tmp_path, capsys):
    """A name may stand for two lengths, so it is no error; the record keeps the note."""
    (tmp_path / "x.table").write_text("table 1\npos: p c <-> pos: c p\nhead: (p c) o <-> head: o (c p)\n")
    source = save(tmp_path / "a.npz", {"pos": np.ones((4, 6), "f4"), "head": np.ones((24, 3), "f4")})
    words = ["--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz", "--force", "--set"]
    said = "p=3 was given, and the shapes show p=4 on line 2: if p is one length there, give p=4; P in the table"
    assert said in run(capsys, *words, "p=3")[2]
    assert any(note.startswith(said) for note in json.loads((tmp_path / "b.npz.json").read_text())["notes"])
    assert "was given" not in run(capsys, *words, "p=4")[2]


def test_a_length_that_only_the_user_states_is_printed_and_recorded(tmp_path, capsys):
    """Any number that divides the axis fits: a wrong number of heads shows in no shape."""
    (tmp_path / "x.table").write_text("table 1\nproj: o (h d) <-> proj: h d o\n")
    source = save(tmp_path / "a.npz", {"proj": np.ones((48, 48), "f4")})
    words = ["--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz"]
    code, _, error = run(capsys, *words, "--set", "h=3")
    said = "given, as no shape shows it: --set h=3, so that d=16 in (h d) of proj"
    assert code == 0 and f"note: {said}" in error
    kept = json.loads((tmp_path / "b.npz.json").read_text())
    assert kept["table"]["given"] == {"h": 3} and said in kept["notes"]
    back = ["--table", tmp_path / "x.table", tmp_path / "b.npz", "-o", tmp_path / "c.npz", "--reverse"]
    code, _, error = run(capsys, *back, "--set", "h=3")  # which the shape of (h d o) shows
    assert code == 0 and "no shape shows it" not in error
    assert "given" not in json.loads((tmp_path / "c.npz.json").read_text())["table"]


def test_a_length_of_blocks_of_several_widths_is_named_for_each_width(tmp_path, capsys):
    """One h for the stages of a Swin gives heads of several sizes, where their size d is what they share."""
    (tmp_path / "x.table").write_text("table 1\n{i}.{j}.q: (h d) c <-> {i}_{j}/q: c h d\n")
    arrays = {f"{i}.{j}.q": np.ones((12 * (i + 1), 5), "f4") for i in range(2) for j in range(2)}
    words = ["--table", tmp_path / "x.table", save(tmp_path / "a.npz", arrays), "-o", tmp_path / "b.npz", "--force"]
    code, _, error = run(capsys, *words)
    advice = "(h d) of {i}.{j}.q is 12 and 24 long in several blocks, and what you give holds for all"
    assert code == 2 and f"  - {advice}: give one of d and h that is alike in them" in error, error
    error = run(capsys, *words, "--set", "h=3")[2]
    assert "--set h=3, so that d=4 in (h d) of {i}.{j}.q (0.0) and d=8 in (h d) of {i}.{j}.q (1.0)\n" in error, error
    error = run(capsys, *words, "--set", "d=4")[2]
    assert "so that h=3 in (h d) of {i}.{j}.q (0.0) and h=6 in (h d) of {i}.{j}.q (1.0)\n" in error, error
    save(tmp_path / "a.npz", {name: array[:12] for name, array in arrays.items()})
    assert "several blocks" not in run(capsys, *words)[2]
    assert "so that d=4 in (h d) of {i}.{j}.q\n" in run(capsys, *words, "--set", "h=3")[2]


def test_parts_that_a_table_takes_for_equally_long_are_named_unless_a_file_shows_them(tmp_path, capsys):
    """A rank and a state of one length in the small models, as in Mamba: a larger projection is cut at wrong places."""
    said = "taken for equally long: x: no run shows it"
    (tmp_path / "x.table").write_text(f"table 1\n# {said}\nx: (s o) i <-> {{s=rank|state}}: i o\n")
    arrays = {"x": np.ones((12, 5), "f4")}
    words = ["--table", tmp_path / "x.table", save(tmp_path / "a.npz", arrays), "-o", tmp_path / "b.npz", "--force"]
    code, _, error = run(capsys, *words)
    assert code == 0 and f"x.table: {said}\n" in error, error
    like = save(tmp_path / "like.npz", {"rank": np.ones((5, 6), "f4"), "state": np.ones((5, 6), "f4")})
    code, _, error = run(capsys, *words, "--like", like)
    assert code == 0 and said not in error, error
    with pytest.warns(UserWarning, match=said):
        Table.load(tmp_path / "x.table").apply(arrays)
    (tmp_path / "x.table").write_text(
        "table 1\n# not checked in code: s=2: nothing shows it\nx: (s=2 o) i <-> x: s o i\n"
    )
    _, _, error = run(capsys, *words)
    assert "x.table: not checked in code: s=2: nothing shows it\n" in error, error


def test_a_note_states_the_lengths_of_the_models_that_a_table_was_derived_from(tmp_path, capsys):
    """A length that a line states, as r=2, follows from nothing."""
    lengths = "# lengths in the models that it was derived from: h=2 r=2 d=4 (q)"
    (tmp_path / "x.table").write_text(f"table 1\n{lengths}\nq: (h d r=2) i <-> q: i h (r d)\n")
    source = save(tmp_path / "a.npz", {"q": np.ones((60, 7), "f4")})
    _, _, error = run(capsys, "--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz", "--set", "h=5")
    said = "--set h=5, so that d=6 in (h d r=2) of q; the Table was derived from models with h=2 and d=4"
    assert f"note: given, as no shape shows it: {said}\n" in error, error


def test_another_split_than_in_the_models_of_the_derivation_is_noted_and_stays_in_view(tmp_path, capsys):
    """A grid of 4 x 4 that is read as 2 x 8 fits all shapes: its axis is as long as in the models of the Table."""
    table, a, b, back = (tmp_path / name for name in ("x.table", "a.npz", "b.npz", "c.npz"))
    lengths = "# lengths in the models that it was derived from: c=4 y=4 (head)"
    table.write_text(f"table 1: torch <-> torch\n{lengths}\nhead: o (c y I) <-> head: o (y c I)\nx: I <-> x: I\n")
    save(a, {"head": np.arange(96.0).reshape(2, 48), "x": np.ones(3)})
    words = ["--table", table, a, "-o", b, "--force", "--set"]
    otherwise = "where (c y I) of head was as long, but divided otherwise: check"
    assert otherwise in run(capsys, *words, "c=2", "--set", "y=8")[2] and otherwise in run(capsys, *words, "c=8")[2]
    assert "was as long" not in run(capsys, *words, "c=4")[2]
    arrays = dict(np.load(a))
    with pytest.warns(UserWarning, match="was as long in .* but divided otherwise: check what was given"):
        Table.load(table).apply(arrays, c=2)
    with warnings.catch_warnings(action="error"):
        Table.load(table).apply(arrays, c=4)
    run(capsys, *words, "c=2", "--set", "y=8")
    said = "its axes have the lengths that its conversion was given: c=2 and y=8; no shape shows them"
    assert f"note: {said}" in run(capsys, "verify", b)[2] and said in run(capsys, "inspect", b)[1]
    for lines in ([table, "--set", "c=2"], [f"{b}.json"]):
        code, _, error = run(capsys, "diff", "--table", lines[0], a, b, *lines[1:])
        assert code == 0 and f"note: {b}: {said}" in error, error
    assert f"{b}.json: {said}" in run(capsys, "--table", f"{b}.json", b, "-o", back, "--reverse")[2]
    assert any(said in note for note in json.loads((tmp_path / "c.npz.json").read_text())["notes"])


def test_a_kernels_height_does_not_contradict_a_number_of_heads(tmp_path, capsys):
    """They are two axes of one letter, as nothing composes both with the same other axis."""
    lines = "kernel: o i h w <-> kernel: h w i o\nqkv: (s h d) i <-> qkv: (h s d) i\nproj: o (h d) <-> proj: h d o\n"
    (tmp_path / "x.table").write_text("table 1\n" + lines)
    kernel, qkv = np.ones((5, 3, 4, 4), "f4"), np.ones((48, 16), "f4")
    words = ["--table", tmp_path / "x.table", "-o", tmp_path / "b.npz", "--force"]
    source = save(tmp_path / "a.npz", {"kernel": kernel, "qkv": qkv, "proj": np.ones((16, 16), "f4")})
    code, _, error = run(capsys, *words, source, "--set", "s=3", "--set", "h=8")
    assert code == 0 and "was given" not in error
    turned = save(tmp_path / "c.npz", {"kernel": kernel.T, "qkv": qkv, "proj": np.ones((2, 8, 16), "f4")})
    code, _, error = run(capsys, *words, turned, "--reverse", "--set", "s=3", "--set", "h=4")
    assert "h=4 was given, and the shapes show h=2 on line 4: if h is one length there, give h=2" in error, error


def test_blocks_of_different_lengths_state_none():
    """One line cannot state the heads of every block."""
    table = Table.parse("table 1\nq.{i}: h d <-> q.{i}: (h d)")
    left, right = {"q.0": (2, 6), "q.1": (3, 4)}, {"q.0": (12,), "q.1": (12,)}
    assert stated(table, left, right, table.layout(left).sizes) is table
    assert stated(table, {"q.0": (2, 6)}, {"q.0": (12,)}, {2: {"h": 2, "d": 6}}).lines[0].lengths == {"h": 2, "d": 6}


def test_a_length_is_given_once(files, capsys):
    folder, *_ = files
    words = ["--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.npz"]
    code, _, error = run(capsys, *words, "--set", "h=2", "--set", "h=3")
    assert code == 2 and "--set h: given twice, as 2 and as 3" in error


def test_a_given_length_that_fits_no_array_of_its_module_is_noted(tmp_path, capsys):
    """A bias of a constant has an axis of its own, which takes whatever is given: nothing else contradicts it."""
    (tmp_path / "t").write_text("table 1\nw: o i <-> head.w: o i\n<-> head.b: a = 0\n")
    source = save(tmp_path / "a.npz", {"w": np.zeros((6, 3), "f4")})
    for length, notes in ((7, 1), (6, 0), (3, 0)):
        out = tmp_path / f"{length}.npz"
        code, _, error = run(capsys, "--table", tmp_path / "t", source, "-o", out, "--set", f"a={length}")
        assert code == 0 and load(out)["head.b"].shape == (length,)
        assert f"given, as no shape shows it: --set a={length}" in error
        assert error.count(f"head.b gets the shape [{length}], as a={length} was given, and head.w has [6, 3]") == notes


def test_a_length_that_the_record_of_a_file_contradicts_is_refused(tmp_path, capsys):
    """No shape shows it, and a wrong one makes a file that loads and computes something else."""
    table, a, b, back = (tmp_path / name for name in ("x.table", "a.npz", "b.npz", "c.npz"))
    table.write_text("table 1: torch <-> torch\nqkv: (s h d) i <-> qkv: (h s=3 d) i\n")
    np.savez(a, qkv=np.arange(96.0).reshape(48, 2))
    assert run(capsys, "--table", table, a, "-o", b, "--set", "h=2")[0] == 0
    words = ["--table", table, b, "-o", back, "--reverse", "--set"]
    code, _, error = run(capsys, *words, "h=4")
    said = f"{b}: it was made with h=2 in qkv, as its record says; here it is 4: --table {b}.json takes the lengths"
    assert code == 2 and said in error and not back.exists(), error
    assert run(capsys, *words, "h=2")[0] == 0 and np.array_equal(load(back)["qkv"], load(a)["qkv"])
    for first, second, more in ((a, b, []), (b, a, ["--reverse"])):  # the record of either file counts
        code, _, error = run(capsys, "diff", "--table", table, first, second, "--set", "h=4", *more)
        assert code == 2 and said in error, error
        assert run(capsys, "diff", "--table", table, first, second, "--set", "h=2", *more)[0] == 0
    another = tmp_path / "y.table"  # of other lines: the record says nothing of its axes
    another.write_text("table 1: torch <-> torch\nqkv: (h d) i <-> qkv: (d h) i\n")
    assert run(capsys, "--table", another, b, "-o", back, "--force", "--set", "h=4")[0] == 0
    np.savez(b, qkv=np.ones((48, 2)))  # a record of other bytes says nothing of these
    code, _, error = run(capsys, *words, "h=4", "--force")
    assert code == 0 and "it is ignored" in error, error


GROUPED = "q.weight: (h2 d) i <-> q: i h2 d\nk.weight: (h d) i <-> k: i h d\nv.weight: (h d) i <-> v: i h d\n"


def _grouped(tmp_path, rows=24):
    (tmp_path / "x.table").write_text(f"table 1: torch <-> linen\n{GROUPED}")
    shapes = {"q.weight": (48, 5), "k.weight": (24, 5), "v.weight": (rows, 5)}
    source = save(tmp_path / "a.npz", {name: np.ones(shape, "f4") for name, shape in shapes.items()})
    return ["--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz", "--force"]


def test_the_size_of_a_head_is_asked_for_where_two_numbers_of_heads_follow_from_it(tmp_path, capsys):
    words = _grouped(tmp_path)
    assert "lengths (--set d=..., from which h2 and h follow)" in run(capsys, *words)[2]
    said = "given, as no shape shows it: --set d=6, so that h2=8 in (h2 d) of q.weight and h=4 in (h d) of k.weight"
    assert said in run(capsys, *words, "--set", "d=6")[2]


def test_given_lengths_that_contradict_each_other_are_refused(tmp_path, capsys):
    words = _grouped(tmp_path)
    code, _, error = run(capsys, *words, "--set", "h2=8", "--set", "h=3")
    said = "lengths contradict each other, as h2=8 makes d=6 on line 2 and h=3 makes d=8 on line 3: give lengths"
    assert code == 2 and said in error, error
    assert not (tmp_path / "b.npz").exists() and run(capsys, *words, "--set", "h2=8", "--set", "h=4")[0] == 0
    table, arrays = Table.load(tmp_path / "x.table"), dict(np.load(words[2]))
    with pytest.raises(TableError, match=said):
        table.apply(arrays, h2=8, h=3)
    assert len(table.apply(arrays, h2=8, h=4)) == len(arrays)


def test_a_hole_with_the_letter_of_a_given_length_follows_from_nothing(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1\nq: (s d) i <-> q: s d i\nw: (s a) i <-> {s=up|gate}: i a\n")
    source = save(tmp_path / "a.npz", {"q": np.ones((12, 5)), "w": np.ones((14, 5))})
    code, _, error = run(capsys, "--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz", "--set", "s=4")
    assert code == 0 and "--set s=4, so that d=3 in (s d) of q\n" in error, error


@pytest.mark.parametrize(
    "fused, rows, given, said",
    [
        ("(s h d) i <-> {s=q|k|v}: i h d", 192, ["h=8"], "h=8 makes d=8 on line 2 and h=8 makes d=16 on line 3"),
        ("(g r+1+1 d) i <-> q: i g r d, k: i g d, v: i g d", 192, ["g=4", "r=2"], "g=4 and r=2 make d=12 on line 2"),
        (
            "(g r+1+1 d2) i <-> q: i g r d2, k: i g d2, v: i g d2",
            192,
            ["g=4", "r=2"],
            "g=4 and r=2 make d2=12 on line 2",
        ),
        ("(h+k+k d) i <-> q: i h d, k: i k d, v: i k d", 192, ["h=4", "k=2"], "h=4 and k=2 make d=24 on line 2"),
    ],
)
def test_a_fused_projection_and_the_output_have_one_size_of_a_head(tmp_path, capsys, fused, rows, given, said):
    """A file of grouped queries does not convert by the Table of an attention without groups."""
    heads = "g r" if "g r" in fused else "h"
    size = "d2" if "d2" in fused else "d"
    (tmp_path / "x.table").write_text(f"table 1\nqkv: {fused}\nout: o ({heads} {size}) <-> o: {heads} {size} o\n")
    source = save(tmp_path / "a.npz", {"qkv": np.ones((rows, 5), "f4"), "out": np.ones((5, 128), "f4")})
    words = ["--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz"]
    code, _, error = run(capsys, *words, *(word for text in given for word in ("--set", text)))
    assert code == 2 and f"lengths contradict each other, as {said}" in error, error
    assert not (tmp_path / "b.npz").exists()


def test_heads_of_values_may_have_another_size_but_no_other_number(tmp_path, capsys):
    words = _grouped(tmp_path, rows=36)
    code, _, error = run(capsys, *words, "--set", "d=6")
    assert code == 2 and "as d=6 makes h=4 on line 3 and d=6 makes h=6 on line 4" in error, error
    code, out, error = run(capsys, "inspect", words[2], "--table", words[1])
    assert code == 0 and "open: " in out and not error  # a length that is not known contradicts nothing
    assert run(capsys, *words, "--set", "h2=8", "--set", "h=4")[0] == 0


def test_the_scale_of_a_norm_shows_the_size_of_a_head(tmp_path, capsys):
    words = _grouped(tmp_path)
    table = words[1]
    table.write_text(table.read_text() + "norm.scale: d <-> norm: d\n")
    arrays = {"q.weight": (48, 5), "k.weight": (24, 5), "v.weight": (24, 5), "norm.scale": (6,)}
    save(words[2], {name: np.ones(shape, "f4") for name, shape in arrays.items()})
    code, _, error = run(capsys, *words, "--set", "d=3")
    said = "lengths contradict each other, as d=3 was given for line 2, and the shapes show d=6 on line 5: give lengths"
    assert code == 2 and said in error and not (tmp_path / "b.npz").exists(), error
    code, _, error = run(capsys, *words, "--set", "h2=16", "--set", "h=8")
    assert code == 2 and "h2=16 makes d=3 for line 2, and the shapes show d=6 on line 5" in error, error
    assert run(capsys, *words, "--set", "d=6")[0] == 0


def test_an_array_of_the_module_shows_the_number_of_heads(tmp_path, capsys):
    """A slope of each head and a table of positions lie beside the projections; a kernel's h is its height."""
    lines = "qkv.bias: (s h d) <-> {s=q|k|v}.bias: h d", "out.weight: o (h d) <-> out.kernel: h d o"
    shown = "slope: h <-> slope: h", "pos.table: h -p <-> pos.table: p h"
    kernel = "0.attn.conv.weight: o i h w <-> 0.attn.conv.kernel: h w i o"
    shapes = {"qkv.bias": (72,), "out.weight": (24, 24), "slope": (6,), "pos.table": (6, 5)}
    shapes["conv.weight"] = (4, 4, 3, 3)
    for line in shown:
        prefixed = (" <-> ".join(f"0.attn.{side}" for side in one.split(" <-> ")) for one in (*lines, line))
        (tmp_path / "x.table").write_text("\n".join(["table 1", *prefixed, kernel]))
        names = ("qkv.bias", "out.weight", line.partition(":")[0], "conv.weight")
        source = save(tmp_path / "a.npz", {f"0.attn.{name}": np.ones(shapes[name], "f4") for name in names})
        words = ["--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz", "--force"]
        code, _, error = run(capsys, *words, "--set", "h=4")
        assert code == 2 and "as h=4 was given for line 2, and the shapes show h=6 on line 4" in error, error
        code, _, error = run(capsys, *words, "--set", "d=6")
        assert code == 2 and "as d=6 makes h=4 for line 2, and the shapes show h=6 on line 4" in error, error
        assert not (tmp_path / "b.npz").exists() and run(capsys, *words, "--set", "h=6")[0] == 0
        (tmp_path / "b.npz").unlink()


def test_heads_are_compared_in_each_block(tmp_path, capsys):
    """Arrays of one block are compared, on whichever lines: blocks have their own numbers of heads, and one size."""
    table, qkv = "s.{i}.{j}.table: p h <-> s.{i}.{j}.table: p h", "s.{i}.{j}.qkv: (a=3 h d) <-> s.{i}.{j}.qkv: (h a d)"
    stages = [qkv.replace("{i}", str(k)).replace("{j}", "{i}") for k in (0, 1)]
    stages[1] = stages[1].replace("h", "h2")
    flat = [line.replace("s.{i}.{j}.", "s{i}_{j}_") for line in (table, qkv)]
    for lines, shown in (([table, *stages], "h=2 on line 2"), ([table, qkv], "h on line 2"), (flat, "h on line 2")):
        (tmp_path / "x.table").write_text("\n".join(["table 1", *lines]))

        def words(*heads: int, stem: str = "s{}_{}_" if lines is flat else "s.{}.{}.") -> list[object]:
            arrays = {}
            for at, own, rows in zip(((0, 0), (0, 1), (1, 0)), heads, (48, 48, 96), strict=True):
                arrays |= {stem.format(*at) + "table": np.ones((5, own)), stem.format(*at) + "qkv": np.ones(rows)}
            return ["--table", tmp_path / "x.table", save(tmp_path / "a.npz", arrays)]

        out = ["-o", tmp_path / "b.npz", "--force"]
        code, _, error = run(capsys, *words(2, 2, 4), *out, "--set", "d=4")
        assert code == 2 and "as d=4 makes h=4 for line 3, and the shapes show h=2 on line 2" in error, error
        code, _, error = run(capsys, *words(3, 2, 4), *out, "--set", "d=8")
        assert code == 2 and "as d=8 makes h=2 for line 3, and the shapes show h=3 on line 2" in error, error
        assert not (tmp_path / "b.npz").exists()
        code, _, error = run(capsys, *words(2, 2, 4), *out, "--set", "d=8")
        assert code == 0 and not error, error
        (tmp_path / "b.npz").unlink()
        code, _, error = run(capsys, *words(2, 2, 4), *out)
        said = f"shapes of the same modules show {shown}: lengths that contradict them are refused"
        assert code == 2 and said in error, error
        _, text, _ = run(capsys, "inspect", *words(2, 2, 4))
        assert f"others of their modules show {shown}; --set " in text and "no shape shows" not in text


def test_rows_of_a_grid_are_no_heads(tmp_path, capsys):
    """A table of heights beside one of widths, and a depth beside both; a slope beside a grid is one of each head."""
    heads = "at.qkv.bias: (s h d) <-> at.{s=q|k|v}.bias: h d\n"
    rows = "at.rel_h: h c <-> at.rel_h: c h\nat.rel_w: w c <-> at.rel_w: c w\n"
    grid = "at.pos: (d h w) c <-> at.pos: d h w c\nat.conv: o i d h w <-> at.conv: d h w i o\n"
    grid += "at.out: (h d) <-> at.out: h d\n"
    slope = "at.slope: h <-> at.slope: h\nat.rel_w: w c <-> at.rel_w: c w\n"
    shapes = {"qkv.bias": (72,), "rel_h": (7, 5), "rel_w": (9, 5), "pos": (48, 5), "conv": (3, 3, 2, 2, 2)}
    shapes |= {"out": (12,), "slope": (6,)}
    for lines, given, code in ((heads + rows, ["h=4"], 0), (grid, ["h=4", "w=4"], 0), (heads + slope, ["h=4"], 2)):
        (tmp_path / "x.table").write_text("table 1\n" + lines)
        own = {f"at.{name}": np.ones(shape, "f4") for name, shape in shapes.items() if f"at.{name}: " in lines}
        words = ["--table", tmp_path / "x.table", save(tmp_path / "a.npz", own), "-o", tmp_path / "b.npz", "--force"]
        found, _, error = run(capsys, *words, *(word for one in given for word in ("--set", one)))
        assert found == code and ("lengths contradict each other" in error) == (code == 2), error


def test_a_kernel_does_not_contradict_the_grid_that_is_given(tmp_path, capsys):
    """Another array of as many places shows another height; a kernel of patches, and another grid, have their own."""
    lines = "pos: (h w) c <-> pos: c h w\nother: h w c <-> other: c h w\n"
    (tmp_path / "x.table").write_text("table 1\n" + lines)
    words = ["--table", tmp_path / "x.table", "-o", tmp_path / "b.npz", "--force", "--set", "h=4"]
    for shape, noted in (((8, 2, 5), True), ((2, 2, 5), False), ((8, 8, 5), False)):
        source = save(tmp_path / "a.npz", {"pos": np.ones((16, 5), "f4"), "other": np.ones(shape, "f4")})
        code, _, error = run(capsys, *words, source)
        assert code == 0 and ("h=4 was given, and the shapes show h=8 on line 3" in error) is noted, error
        assert ("was given, and" in error) is noted


def test_letters_of_other_axes_may_have_two_lengths(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1\na.w: (p c) <-> a: (c p)\nb.w: (q c) <-> b: (c q)\n")
    source = save(tmp_path / "a.npz", {"a.w": np.ones(12, "f4"), "b.w": np.ones(40, "f4")})
    words = ["--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz"]
    assert run(capsys, *words, "--set", "p=4", "--set", "q=8")[0] == 0
