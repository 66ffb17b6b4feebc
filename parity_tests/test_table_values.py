"""Values and dtypes that a conversion by a Table writes: sums, strips, windows, constants, ties and counters."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest

from convert.__main__ import main
from convert.arrays import payload
from convert.errors import ConvertError
from convert.files import open_checkpoint
from convert.table import by_table
from specs.notation.lines import Misfit, TableError
from specs.table import Table

from .test_table import same
from .test_table_command import load, run, save


def test_a_sum_is_added_in_float64_and_rounded_once(tmp_path, capsys):
    (tmp_path / "t").write_text("table 1\n{g=i|f}.bias: o <- ih: (g o) + hh: (g o)\n")
    ih, hh = np.array([1, 2**-12, 3, 4], "f2"), np.array([2**-11, 1, 5, -4], "f2")
    source = save(tmp_path / "right.npz", {"ih": ih, "hh": hh})
    code, _, error = run(capsys, "--table", tmp_path / "t", source, "-o", tmp_path / "x.safetensors", "--reverse")
    assert code == 0 and "added into one array and rounded to float16, which cannot be separated again: ih, hh" in error
    found = load(tmp_path / "x.safetensors")
    assert np.array_equal(np.concatenate([found["i.bias"], found["f.bias"]]), (ih.astype("f8") + hh).astype("f2"))
    code, _, error = run(capsys, "--table", tmp_path / "t", tmp_path / "x.safetensors", "-o", tmp_path / "y.npz")
    assert code == 0 and "zeros, as a sum's other term: hh" in error
    assert not load(tmp_path / "y.npz")["hh"].any()


SUMS = {
    "integers": ("u1", "u1", "b: a sum of uint8 arrays: only floating-point ones are added"),
    "truth values": ("?", "?", "b: a sum of bool arrays: only floating-point ones are added"),
    "complex": ("c8", "c8", "b: a sum of complex64 arrays: only floating-point ones are added"),
    "mixed": ("i8", "f8", "b: a sum of int64 and float64: convert the terms to one dtype first"),
    "too large": ("f2", "f2", "b: 1 sum beyond the largest float16: convert the terms to a wider dtype"),
}


@pytest.mark.parametrize("name", SUMS)
def test_apply_refuses_a_sum_that_its_dtype_does_not_have(name):
    one, other, problem = SUMS[name]
    a, c = (np.array([1, 200, 6e4 if dtype == "f2" else 1]).astype(dtype) for dtype in (one, other))
    with pytest.raises(TableError) as caught:
        Table.parse("table 1\na: i + c: i -> b: i").apply({"a": a, "c": c})
    assert str(caught.value) == problem


def test_apply_adds_infinite_values():
    added = Table.parse("table 1\na: i + c: i -> b: i").apply(dict.fromkeys("ac", np.array([1, np.inf], "f4")))
    assert added["b"].dtype == np.float32 and added["b"].tolist() == [2, np.inf]


def test_a_dropped_window_is_reported_in_both_directions(tmp_path, capsys):
    (tmp_path / "t").write_text("table 1\na: p[2:] <-> b: p\na: x[:2] -> drop\n")
    source = save(tmp_path / "left.npz", {"a": np.arange(5.0)})
    code, _, error = run(capsys, "--table", tmp_path / "t", source, "-o", tmp_path / "x.npz")
    assert code == 0 and "dropped in part, as the table says: a" in error
    code, _, error = run(capsys, "--table", tmp_path / "t", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--reverse")
    assert code == 0 and "zeros in the part that the table drops: a" in error
    assert load(tmp_path / "y.npz")["a"].tolist() == [0, 0, 2, 3, 4]


LINES = {
    "windows": "a: p[:3] d <-> x: p d\na: q[3:-2] d <-> y: d q\na: r[-2:] d <-> z: r d",
    "parts": "a: (p+q+1) d <-> x: d p, y: q d, z: d",
    "reversal": "a: -p d <-> x: d p",
    "reversal of the target": "a: p d <-> x: -d p",
    "order": "a: p[@f] d <-> x: d p",
    "constants around": "a: p d <-> x: p[3:] d\n<-> x: q[:2] d = 0\n<-> x: q[2:3] d = 1.5",
}


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_an_array_in_another_order_is_in_memory_once(tmp_path, monkeypatch, suffix):
    """In Fortran order or with transposed strides, and permuted, in parts; also in a shard, and under another name."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    array = np.random.default_rng(0).standard_normal((600, 900)).astype("f4")
    if suffix == "npz":
        np.savez(tmp_path / "x.npz", w=np.asfortranarray(array))
    else:
        torch.save({"m._orig_mod.w": torch.from_numpy(array.T.copy()).T}, tmp_path / "m-1.pt")
        index = {"metadata": {}, "weight_map": {"m._orig_mod.w": "m-1.pt"}}
        (tmp_path / "x.pt.index.json").write_text(json.dumps(index))
    monkeypatch.setattr(payload, "STRIP", 1 << 16)
    monkeypatch.setattr("convert.files.strided.WINDOW", 1 << 16)
    source, name = (tmp_path / "x.npz", "w") if suffix == "npz" else (tmp_path / "x.pt.index.json", "m.w")
    table = Table.parse(f"table 1\n{name}: p[:400] b <-> x: b p\n{name}: q[400:] b <-> y: q b\n")
    written = {"x": bytearray(), "y": bytearray()}
    with by_table.plan(str(source), table) as plan:
        for step in plan.steps:
            written[step[0].name] = bytearray(step[0].nbytes)
        tracemalloc.start()
        for step in plan.steps:
            at = 0
            for piece in payload.chunks(plan, step):
                written[step[0].name][at : at + len(piece)] = piece
                at += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert written == {"x": array[:400].T.tobytes(), "y": array[400:].tobytes()}
    assert peak < 1.5 * array.nbytes  # one copy, and a strip and a window of 64 KiB each


@pytest.mark.parametrize("strip", [8, 64, 1 << 20])
@pytest.mark.parametrize("name", LINES)
def test_strips_are_what_apply_does(tmp_path, monkeypatch, name, strip):
    from specs.table import Table

    monkeypatch.setattr(payload, "STRIP", strip)
    monkeypatch.setattr(payload, "BLOCK", 3)
    array = np.arange(70, dtype="f4").reshape(10, 7)
    table = Table.parse(f"table 1\n{LINES[name]}", {"f": np.random.default_rng(0).permutation(10).tolist()})
    sizes = {"p": 4} if "+q" in LINES[name] else {}
    sizes |= {"q": 5} if sizes else {}
    path = save(tmp_path / "a.npz", {"a": array})
    with by_table.plan(str(path), table, sizes=sizes) as plan:
        found = dict(payload.arrays(plan))
    wanted = table.apply({"a": array}, **sizes)
    assert set(found) == set(wanted)
    assert all(np.array_equal(found[key], wanted[key]) for key in wanted)
    there = save(tmp_path / "b.npz", found)
    with by_table.plan(str(there), table, backwards=True, sizes=sizes) as plan:
        back = dict(payload.arrays(plan))
    assert np.array_equal(back["a"], array)


def test_a_window_taken_for_a_whole_tensor_is_noticed(tmp_path, monkeypatch):
    """What `Move.copies` once took for whole, any slice, would write the wrong bytes of a window of equal size."""
    from specs.applied.moves import Move
    from specs.table import Table

    array = np.arange(6, dtype="f4")
    path = save(tmp_path / "a.npz", {"a": array})
    table = Table.parse("table 1\na: -p <-> x: p")
    with by_table.plan(str(path), table) as plan:
        assert np.array_equal(dict(payload.arrays(plan))["x"], array[::-1])
        any_slice = property(lambda move: all(isinstance(s, slice) for s in (*move.select, *move.place)))
        monkeypatch.setattr(Move, "copies", any_slice)
        assert np.array_equal(dict(payload.arrays(plan))["x"], array)  # so the assertion above sees the fault


GATES = "table 1\na: c <-> b: c\ndrop <- h.{i}.gate: c = 0.1\ndrop <- h.{i}.num_batches_tracked: = 0 int64\n"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_dropped_constant_that_holds_other_values_is_counted(tmp_path, dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    state = {"b": torch.ones(2), **{f"h.{i}.gate": torch.full((3,), 0.1, dtype=torch.float64) for i in range(2)}}
    counts = {f"h.{i}.num_batches_tracked": torch.tensor(7) for i in range(2)}  # a record keeps these

    def lost() -> tuple[list[str], list[str]]:
        typed = {name: array.to(getattr(torch, dtype)) for name, array in state.items()} | counts
        torch.save(typed, tmp_path / "x.pt")
        table = Table.parse(GATES, name="g.table")
        with by_table.plan(str(tmp_path / "x.pt"), table, backwards=True) as plan:
            record = plan.write(tmp_path / "y.safetensors", force=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table.reverse().apply(typed if dtype != "bfloat16" else state | counts)
        return [note for note in record["notes"] if "though" in note], [str(each.message) for each in caught]

    assert lost() == ([], [])
    state["h.1.gate"][1:] = 0.5
    [note], [warning] = lost()
    assert note == warning
    assert note == (
        "dropped, though line 3 states 0.1 for h.{i}.gate: 2 elements have other values (largest difference "
        "0.40), and the target computes as with 0.1: <-> in place of drop refuses them"
    )
    state["h.0.gate"][0] = np.nan
    assert all("3 elements have other values (largest difference infinite)" in text for [text] in lost())


def test_a_constant_is_compared_as_its_dtype_rounds_it(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save({"b": torch.ones(2), "k": torch.full((3,), 0.1).bfloat16()}, tmp_path / "x.pt")
    table = Table.parse("table 1\na: c <-> b: c\n<-> k: c = 0.1\n")
    with by_table.plan(str(tmp_path / "x.pt"), table, backwards=True) as plan:
        plan.write(tmp_path / "y.safetensors")
    assert load(tmp_path / "y.safetensors").keys() == {"a"}


def test_a_constant_has_to_fit_its_dtype(tmp_path):
    from specs.table import Table

    path = save(tmp_path / "a.npz", {"a": np.ones(3, "f2")})
    with by_table.plan(str(path), Table.parse("table 1\na: o <-> b: o\n<-> n: = 7e4")) as plan:
        with pytest.raises(ConvertError, match=r"n: the constant 70000.0: .*too large"):
            dict(payload.arrays(plan))


@pytest.mark.parametrize("constant", ["16777217 float32", "257 bfloat16", "-2049 float16"])
def test_a_whole_constant_that_its_dtype_rounds_is_refused(constant):
    from specs.table import Table, TableError

    with pytest.raises(TableError, match=rf"rounds {constant.split()[0]}: write {constant.split()[0]}\.0 if it may be"):
        Table.parse(f"table 1\n<-> n: = {constant}")
    number, dtype = constant.split()
    for other in (f"{number}.0 {dtype}", f"{number[:-1]}6 {dtype}", "-1000000000 float32", number):
        Table.parse(f"table 1\n<-> n: = {other}")


def test_uint16_of_paddle_is_read_as_bfloat16_with_a_note(tmp_path, capsys):
    """paddle stores bfloat16 so and does not say so: integers of that dtype would be read as weights."""
    import pickle

    path, table = tmp_path / "x.pdparams", tmp_path / "x.table"
    path.write_bytes(pickle.dumps({"idx": np.arange(3, dtype=np.uint16), "w": np.ones(2, np.float32)}, protocol=2))
    table.write_text("table 1\nidx: a <-> idx: a\nw: b <-> w: b\n")
    assert main(["--table", str(table), str(path), "-o", str(tmp_path / "x.safetensors")]) == 0
    assert "note: uint16, read as the bfloat16 that paddle stores so: idx\n" in capsys.readouterr().err
    path.write_bytes(pickle.dumps({"idx": np.arange(3, dtype=np.uint16), "w": np.ones(2, np.uint16)}, protocol=2))
    assert main(["--table", str(table), str(path), "-o", str(tmp_path / "x.safetensors"), "--force"]) == 0
    assert "note: uint16, read as the bfloat16 that paddle stores so: all 2 arrays\n" in capsys.readouterr().err


def test_lines_that_add_to_parts_of_one_array_are_one_sum_of_two_terms():
    lines = (
        f"a: (1[{part}] c) + b: (1[{part}] c) -> t: (1[{other}] c)" for part, other in ((":-1", "1:"), ("1:", ":-1"))
    )
    table = Table.parse("\n".join(["table 1", *lines]))
    assert [len(entry.filling.terms) for entry in table.layout({"a": (4,), "b": (4,)}).entries] == [2]
    same(table.apply({"a": np.arange(4.0), "b": np.arange(4.0) * 10}), {"t": np.array([22.0, 33, 0, 11])})


def test_int8_of_paddle_may_be_float8(tmp_path, capsys):
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"a": np.ones(3, "i1"), "b": np.ones(3, "f4")}))
    (tmp_path / "x.table").write_text("table 1\na: o <-> a: o\nb: o <-> b: o\n")
    words = ["--table", str(tmp_path / "x.table"), str(tmp_path / "a.pdparams"), "-o", str(tmp_path / "x.npz")]
    assert main(words) == 0
    said = "note: int8, as which paddle stores float8_e4m3fn, too: read as integers: a\n"
    assert said in capsys.readouterr().err


def test_tied_arrays_are_counted_once(tmp_path):
    table = Table.parse("table 1\nemb: v d = head: v d <-> e: d v = h: v d\nb: v <-> b: v\nc: v <-> c: v\n")
    ones = np.ones((3, 2), "float32")
    save(tmp_path / "a.safetensors", {"emb": ones, "head": ones, "b": ones[:, 0], "c": ones[:, 0]})
    with by_table.plan(str(tmp_path / "a.safetensors"), table) as plan:
        assert (len(plan.steps), plan.parameters) == (4, 12)


def test_a_tie_of_one_side_stands_beside_what_other_lines_say_of_its_first_array():
    lines = "a: (s[:-1] c) + b: (s[:-1] c) -> {s=r|z}: c\na: (1[2:] c) <-> n: c\nb: (1[2:] c) <-> h: c\n"
    table = Table.parse(f"table 1\n{lines}{{x=a|b}} = cell.{{x}} <->")
    assert Table.parse(table.print()) == table
    a, b = np.arange(6.0), np.arange(6.0) * 10
    left = {"a": a, "b": b, "cell.a": a, "cell.b": b}
    right = table.apply(left)
    same(right, {"r": a[:2] + b[:2], "z": a[2:4] + b[2:4], "n": a[4:], "h": b[4:]})
    first, second = np.concatenate([right["r"], right["z"], a[4:]]), np.where(np.arange(6) < 4, 0, b)
    same(table.reverse().apply(right), {"a": first, "b": second, "cell.a": first, "cell.b": second})
    same(table.apply({"a": a, "b": b}), right)
    assert table.layout({"a": (6,), "b": (6,)}).absent == ("cell.a", "cell.b")
    assert set(table.prove({name: array.shape for name, array in left.items()}).zeroed) == set()
    assert table.reverse().layout({name: array.shape for name, array in right.items()}).zeroed == ("b", "cell.b")
    with pytest.raises(TableError, match=r"line 5: b and cell.b are not equal"):
        table.apply({**left, "cell.b": a})
    with pytest.raises(Misfit, match=r"cell.b has shape \[2, 3\], and b, to which line 5 ties it, \[6\]"):
        table.apply({**left, "cell.b": b.reshape(2, 3)})
    with pytest.raises(Misfit, match=r"missing a"):
        table.apply({name: array for name, array in left.items() if name != "a"})


TIES = {
    "alone": ("a = b <->", "ab", "b is tied to a, of which no other line speaks"),
    "said twice": ("a = b <->\na: c <-> d: c\nb: c <-> e: c", "ab", "b is used twice, by line 2 and line 4"),
    "made of nothing": ("<-> a = b", "", "b is tied to a by line 2, which no line fills"),
    "made twice": ("<-> a = b\nd: c <-> a: c\ne: c <-> b: c", "de", "by line 2, and is filled by another line too"),
    "of more blocks": ("a: c <-> d: c\n<-> e.{i} = f.{i}", "a", "counts what no other line counts"),
    "with axes": ("a: c = b: c <->", "", "has no axes: write first = second <->"),
    "of other blocks": ("a.{i} = b <->", "", "not every array of the line has i"),
}


@pytest.mark.parametrize("name", TIES)
def test_a_tie_without_meaning_is_refused(name):
    text, names, message = TIES[name]
    with pytest.raises(TableError) as caught:
        Table.parse(f"table 1\n{text}").apply({one: np.ones(2) for one in names})
    assert message in str(caught.value)


def test_ties_of_like_are_noted(tmp_path, capsys):
    """Where two arrays fill what is one in a new model, whose strict load keeps the last; not where one fills both."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    weight = torch.ones(3, 2)
    torch.save({"e": weight, "h": weight}, tmp_path / "new.pt")
    save(tmp_path / "a.safetensors", {"emb": np.ones((3, 2), "f4"), "head": np.zeros((3, 2), "f4")})
    save(tmp_path / "b.safetensors", {"emb": np.ones((3, 2), "f4")})
    (tmp_path / "apart.table").write_text("table 1\nemb: v d <-> e: v d\nhead: v d <-> h: v d\n")
    (tmp_path / "tie.table").write_text("table 1\nemb: v d <-> e: v d = h: v d\n")
    for name, source, noted in (("apart", "a", True), ("tie", "b", False)):
        words = ["--table", tmp_path / f"{name}.table", tmp_path / f"{source}.safetensors"]
        code, _, err = run(capsys, *words, "-o", tmp_path / f"{name}.pt", "--like", tmp_path / "new.pt")
        kept = "are not compared: a model that ties them keeps one: e = h\n"
        assert code == 0 and (f"tied in the file of --like, and filled from arrays that {kept}" in err) == noted, err


def test_ties_are_noted(tmp_path, capsys):
    """Those of the table in both directions, and those that a torch file has and the table takes apart."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    weight = torch.ones(3, 2)
    torch.save({"emb": weight, "head": weight}, tmp_path / "a.pt")
    (tmp_path / "tie.table").write_text("table 1\nemb: v d = head: v d <-> e: v d\n")
    (tmp_path / "apart.table").write_text("table 1\nemb: v d <-> e: v d\nhead: v d <-> h: d v\n")
    words = ["--table", tmp_path / "tie.table", tmp_path / "a.pt", "-o", tmp_path / "b.npz"]
    assert "tied, as the table says, and compared before anything is written: emb = head\n" in run(capsys, *words)[2]
    words = ["--table", tmp_path / "tie.table", tmp_path / "b.npz", "-o", tmp_path / "c.npz", "--reverse"]
    assert "tied, as the table says, and written from one array: emb = head\n" in run(capsys, *words)[2]
    words = ["--table", tmp_path / "apart.table", tmp_path / "a.pt", "-o", tmp_path / "d.npz"]
    assert "tied in the source, and an array each in the target, " in run(capsys, *words)[2]
    words = ["--table", tmp_path / "apart.table", tmp_path / "c.npz", "-o", tmp_path / "e.npz"]  # no ties in npz
    assert "tied" not in run(capsys, *words)[2]


def test_tied_arrays_share_a_storage_in_torch(tmp_path, capsys):
    """As torch.save stores them: tied by the table or in the source, in a shard too; not where they are equal alone."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    weight = torch.arange(6.0).reshape(3, 2)
    torch.save({"emb": weight, "head": weight}, tmp_path / "tied.pt")
    torch.save({"emb": weight, "head": weight.clone()}, tmp_path / "equal.pt")
    save(tmp_path / "one.npz", {"emb": weight.numpy()})
    (tmp_path / "tie.table").write_text("table 1\nemb: v d <-> e: v d = h: v d\n")
    (tmp_path / "apart.table").write_text("table 1\nemb: v d <-> e: d v\nhead: v d <-> h: d v\n")
    (tmp_path / "axes.table").write_text("table 1\nemb: v d <-> e: v d\nhead: v d <-> h: d v\n")
    for table, source, tied in (
        ("tie", "one.npz", True), ("apart", "tied.pt", True), ("apart", "equal.pt", False), ("axes", "tied.pt", False)
    ):  # fmt: skip
        out = tmp_path / f"{table}_{source[:-3]}.pt"
        assert run(capsys, "--table", tmp_path / f"{table}.table", tmp_path / source, "-o", out)[0] == 0
        found = torch.load(out)
        assert (found["e"].data_ptr() == found["h"].data_ptr()) == tied
        assert found["h"].equal(weight if table == "tie" else weight.T)
        assert run(capsys, "verify", out)[0] == 0
        code, _, err = run(
            capsys, "--table", tmp_path / f"{table}.table", out, "-o", tmp_path / "x.npz", "--reverse", "--force"
        )
        assert code == 0 and ("tied in the source" in err) == (tied and table == "apart")
    words = [
        "--table",
        tmp_path / "apart.table",
        tmp_path / "tied.pt",
        "-o",
        tmp_path / "s.pt.index.json",
        "--shard-size",
        "100",
    ]
    assert run(capsys, *words)[0] == 0
    with open_checkpoint(str(tmp_path / "s.pt.index.json")) as reader:
        assert reader.aliases == {"h": "e"} and reader.shared == {"h"}
    (tmp_path / "wrapped.table").write_text("table 1\nm.emb: v d <-> e: v d\nm.head: v d <-> h: v d\n")
    torch.save({"m._orig_mod.emb": weight, "m._orig_mod.head": weight}, tmp_path / "w.pt")
    words = ["--table", tmp_path / "wrapped.table", tmp_path / "w.pt", "-o", tmp_path / "w.npz"]
    assert "tied in the source" in run(capsys, *words)[2]  # under other names than the file's own


def test_running_statistics_and_counters_are_not_counted_as_parameters(tmp_path, capsys):
    """By the names of either side, as `inspect` counts them; of a converted file it states what its record says."""
    lines = [
        "m: c <-> n.running_mean: c",
        "n.running_var: c <-> v: c",
        "count: <-> count:",
        "e: v d = h: v d <-> e: d v = h: v d",
    ]
    (tmp_path / "n.table").write_text("\n".join(["table 1", *lines]))
    tied = np.ones((3, 2), "float32")
    own = {"m": tied[:, 0], "n.running_var": tied[:, 0], "count": np.array(3), "e": tied, "h": tied}
    save(tmp_path / "a.safetensors", own)
    out = str(tmp_path / "b.safetensors")
    code, printed, _ = run(capsys, "--table", tmp_path / "n.table", tmp_path / "a.safetensors", "-o", out)
    assert code == 0 and "5 arrays, 6 parameters" in printed
    code, printed, _ = run(capsys, "inspect", out, "--json")
    assert json.loads(printed)["parameters"] == 6
