"""`convert --table`: checkpoints of no known architecture, streamed through files of every format."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from convert.__main__ import main
from convert.arrays import payload
from convert.errors import ConvertError
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from convert.table import by_table
from specs.table import Table

from .commands import GOOGLE

LAYERS, WIDTH, HEADS, WORDS = 3, 12, 3, 11

TABLE = """\
table 1: torch <-> flax
# two rows of padding, and a tied head
emb.weight: w[2:] c = head.weight: w[2:] c <-> params/emb/embedding: w c
emb.weight: pad[:2] c = 0 <->
head.weight: pad[:2] c = 0 <->
layer.{i}.attn.qkv.weight: (s h d) c <-> params/layers/attn/{s=query|key|value}/kernel: i c h d
layer.{i}.attn.qkv.bias: (s h d) <-> params/layers/attn/{s=query|key|value}/bias: i h d
layer.{i}.norm.weight: c <-> params/layers/norm/scale: i c
layer.{i}.mask -> drop
"""


def save(path, arrays):
    """Write arrays into a file of the suffix's format."""
    tensors = [Tensor(name, array.shape, str(array.dtype)) for name, array in arrays.items()]
    with open(path, "w+b", buffering=0) as file:
        writer = writer_for(path)(file, tensors, {})
        for tensor in tensors:
            writer.write(tensor, [arrays[tensor.name].tobytes()])
        writer.finish()
    return path


def load(path):
    with open_checkpoint(path) as reader:
        return {
            name: np.frombuffer(bytes(reader.read(name)), tensor.dtype).reshape(tensor.shape)
            for name, tensor in reader.tensors.items()
        }


@pytest.fixture
def files(tmp_path):
    """A folder with a table and a checkpoint of its left side, and what its right side has to be."""
    random = np.random.default_rng(0)
    emb = random.normal(size=(WORDS + 2, WIDTH)).astype("f4")
    emb[:2] = 0
    left = {"emb.weight": emb, "head.weight": emb}
    for i in range(LAYERS):
        left[f"layer.{i}.attn.qkv.weight"] = random.normal(size=(3 * WIDTH, WIDTH)).astype("f4")
        left[f"layer.{i}.attn.qkv.bias"] = random.normal(size=(3 * WIDTH,)).astype("f4")
        left[f"layer.{i}.norm.weight"] = random.normal(size=(WIDTH,)).astype("f4")
        left[f"layer.{i}.mask"] = np.ones((4, 4), "f4")
    qkv = np.stack([left[f"layer.{i}.attn.qkv.weight"] for i in range(LAYERS)])
    bias = np.stack([left[f"layer.{i}.attn.qkv.bias"] for i in range(LAYERS)])
    right = {"params/emb/embedding": emb[2:]}
    for k, s in enumerate(("query", "key", "value")):
        right[f"params/layers/attn/{s}/kernel"] = kernel_of(qkv, k)
        right[f"params/layers/attn/{s}/bias"] = bias.reshape(LAYERS, 3, HEADS, -1)[:, k]
    right["params/layers/norm/scale"] = np.stack([left[f"layer.{i}.norm.weight"] for i in range(LAYERS)])
    (tmp_path / "bert.table").write_text(TABLE)
    save(tmp_path / "left.safetensors", left)
    return tmp_path, left, right


def kernel_of(qkv, k):
    """One of query, key and value out of all layers' fused kernels: (layer, input, head, feature)."""
    return qkv.reshape(LAYERS, 3, HEADS, WIDTH // HEADS, WIDTH)[:, k].transpose(0, 3, 1, 2)


def run(capsys, *words):
    code = main(list(map(str, words)))
    out, error = capsys.readouterr()
    return code, out, error


@pytest.mark.parametrize("suffix", ["msgpack", "npz", "pt", "safetensors", "pdparams"])
def test_a_checkpoint_goes_there_and_back(files, capsys, suffix):
    folder, left, right = files
    table, source, there, back = (
        folder / name for name in ("bert.table", "left.safetensors", f"x.{suffix}", "back.pt")
    )
    code, out, error = run(capsys, "--table", table, source, "-o", there, "--set", "h=3")
    assert code == 0, error
    assert out.startswith(f"wrote {there} (format ") and f"from {source} (side torch): " in out and "8 tensors" in out
    assert "note: dropped, as the table says: layer.{0..2}.mask" in error
    found = load(there)
    assert set(found) == set(right)
    assert all(np.array_equal(found[name], array) for name, array in right.items())
    assert run(capsys, "verify", there)[0] == 0
    code, _, error = run(capsys, "--table", table, there, "-o", back, "--reverse")
    assert code == 0, error
    found = load(back)
    assert set(found) == {name for name in left if "mask" not in name}
    assert all(np.array_equal(array, left[name]) for name, array in found.items())


def test_inspect_says_which_line_of_a_table_reads_which_arrays(files, capsys):
    folder, _, _ = files
    words = ("inspect", folder / "left.safetensors", "--table", folder / "bert.table")
    code, printed, error = run(capsys, *words)
    assert code == 0 and not error, error
    lines = printed.splitlines()
    assert lines[0] == f"{folder / 'left.safetensors'}: read as the left side of {folder / 'bert.table'}, torch"
    assert lines[1].split() == ["line", "arrays", "shape", "lengths", "reads"]
    number = 1 + next(k for k, line in enumerate(TABLE.splitlines()) if "qkv.weight" in line)
    row = next(line for line in lines if line.endswith("  layer.{0..2}.attn.qkv.weight"))
    assert row.split()[:2] == [str(number), "3"] and "[36, 12]" in row and "h=? d=?" in row, row
    assert any("mask (dropped)" in line for line in lines)
    assert lines[-1].startswith("open: ") and "--set h=... states what is needed" in lines[-1]
    about = json.loads(run(capsys, *words, "--set", "h=3", "--json")[1])
    qkv = next(one for one in about["lines"] if one["line"] == number)
    assert (about["side"], about["open"], qkv["lengths"]["h"], qkv["lengths"]["d"]) == ("torch", "", 3, 4)
    with open_checkpoint(folder / "left.safetensors") as reader:
        assert {name for one in about["lines"] for name in one["arrays"]} == set(reader.tensors)
        assert f"\n{len(reader.tensors)} arrays read by 7 lines\n" in printed
    assert run(capsys, "inspect", folder / "left.safetensors", "--reverse")[0] == 2
    code, _, error = run(capsys, *words, "--reverse")
    assert code == 1 and "named as on the other side" in error


def test_lengths_that_differ_from_block_to_block_are_left_out(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1\na.{i}: o <-> b.{i}: o\nc: o i <-> d: i o\n")
    arrays = {"a.0": np.ones(2), "a.1": np.ones(3), "c": np.ones((4, 5))}
    words = ("--table", tmp_path / "x.table", "--json")
    lines = json.loads(run(capsys, "inspect", save(tmp_path / "x.npz", arrays), *words)[1])["lines"]
    assert [(one["shapes"], one["lengths"]) for one in lines] == [([[2], [3]], {}), ([[4, 5]], {"o": 4, "i": 5})]
    back = {"b.0": np.ones(2), "b.1": np.ones(2), "d": np.ones((5, 4))}
    lines = json.loads(run(capsys, "inspect", save(tmp_path / "y.npz", back), *words, "--reverse")[1])["lines"]
    assert [(one["text"], one["arrays"]) for one in lines] == [
        ("a.{i}: o <-> b.{i}: o", ["b.0", "b.1"]), ("c: o i <-> d: i o", ["d"])
    ]  # fmt: skip


def test_two_sides_of_one_framework_are_called_left_and_right(tmp_path, capsys):
    table, a, b = (tmp_path / name for name in ("x.table", "a.npz", "b.npz"))
    table.write_text("table 1: torch <-> torch\nx: o <-> y: o\n")
    np.savez(a, x=np.ones(3))
    assert f"wrote {b} (format npz, side right) from {a} (side left): " in run(capsys, "--table", table, a, "-o", b)[1]
    back = tmp_path / "c.npz"
    assert (
        f"wrote {back} (format npz, side left) from {b} (side right): "
        in run(capsys, "--table", table, b, "-o", back, "--reverse")[1]
    )


@pytest.mark.parametrize("suffix", ["msgpack", "safetensors"])
def test_a_record_serves_as_the_table(files, capsys, suffix):
    """Beside a file or inside it: of the file that a Table made, and what `derive --json` prints."""
    folder, *_ = files
    table, source, there = folder / "bert.table", folder / "left.safetensors", folder / f"x.{suffix}"
    assert run(capsys, "--table", table, source, "-o", there, "--set", "h=3")[0] == 0
    record = there if suffix == "safetensors" else folder / "x.msgpack.json"
    table.unlink()
    (folder / "derived.json").write_text(json.dumps({"table": TABLE, "proven": True}))
    for number, own in enumerate((record, folder / "derived.json")):
        again, back = folder / f"{number}.npz", folder / f"{number}.pt"
        code, _, error = run(capsys, "--table", own, source, "-o", again, "--set", "h=3")
        assert code == 0, error
        assert run(capsys, "diff", there, again)[0] == 0
        assert run(capsys, "--table", own, there, "-o", back, "--reverse")[0] == 0
        assert run(capsys, "diff", "--table", own, source, there, "--set", "h=3")[0] == 0


FLAT = """\
table 1: flax <-> torch
pos: (h w) c <-> pos: c h w
{s=q|k}: i h d <-> qk.weight: (s h d) i
head: (h w c) o <-> head.weight: o (c h w)
"""


@pytest.mark.parametrize("flat", [True, False])
def test_a_record_has_the_lengths_that_were_stated(tmp_path, capsys, flat):
    """Convert with --set, then convert back and compare without it: the record states those lengths."""
    random = np.random.default_rng(0)
    shapes = {"pos": (12, 5), "q": (6, 2, 3), "k": (6, 2, 3), "head": (60, 7)}
    left = {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    (tmp_path / "x.table").write_text(FLAT if flat else FLAT.replace("(h w c)", "h w c"))
    left |= {} if flat else {"head": left["head"].reshape(4, 3, 5, 7)}
    source, there, back = save(tmp_path / "a.npz", left), tmp_path / "b.safetensors", tmp_path / "c.npz"
    words = ["--table", tmp_path / "x.table", source, "-o", there, "--set", "w=3", *["--set", "h=4"] * flat]
    assert run(capsys, *words)[0] == 0
    assert run(capsys, "diff", "--table", there, source, there)[0] == 0
    for table in (there, f"{back}.json"):
        code, _, error = run(capsys, "--table", table, "--reverse", there, "-o", back, "--force")
        assert code == 0, error
        assert all(np.array_equal(array, left[name]) for name, array in load(back).items())
    assert "{s=q|k}: i h=2 d=3 <-> qk.weight: (s h d) i" in by_table.load(str(there)).print()
    other = save(tmp_path / "other.npz", {**left, "q": left["q"].repeat(2, 1), "k": left["k"].repeat(2, 1)})
    code, _, error = run(capsys, "--table", there, other, "-o", tmp_path / "d.npz")
    assert code == 1 and "has shape [6, 4, 3], and h=2 is 2, not 4" in error, error


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
        "the same arrays, except batch counters, which one file does not store",
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


def test_a_route_beside_a_table_is_refused(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1\na: i o <-> b: o i\n")
    code, _, error = run(capsys, "google2torch", GOOGLE, "--table", tmp_path / "x.table", "-o", tmp_path / "y.npz")
    assert code == 2 and "google2torch is a route, and --table states the lines itself: leave one of them" in error


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


def test_no_framework_is_imported(files):
    folder, *_ = files
    code = (
        "import sys; from convert.__main__ import main; assert main(sys.argv[1:]) == 0; "
        "print([m for m in ('torch', 'jax', 'paddle', 'flax') if m in sys.modules])"
    )
    words = ["--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.msgpack", "--set", "h=3"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_like_settles_sizes_and_dtype_casts(files, capsys):
    folder, _, right = files
    like = save(folder / "like.npz", right)
    words = ["--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.safetensors"]
    code, out, error = run(capsys, *words, "--like", like, "--dtype", "float16", "--json")
    assert code == 0, error
    assert json.loads(out)["tensors"] == 8
    found = load(folder / "x.safetensors")
    assert all(np.array_equal(found[name], array.astype("f2")) for name, array in right.items())


def test_the_record_holds_the_table(files, capsys):
    folder, *_ = files
    run(capsys, "--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.npz", "--set", "h=3")
    record = json.loads((folder / "x.npz.json").read_text())
    assert record["table"]["text"] == TABLE.replace("(s h d)", "(s h=3 d=4)")
    assert (record["table"]["from"], record["table"]["to"], record["table"]["reversed"]) == ("torch", "flax", False)
    assert record["source"]["file"] == "left.safetensors" and len(record["source"]["sha256"]) == 64


def test_the_record_holds_the_orders_of_the_table(tmp_path, capsys):
    """The file that the Table names may change: what was written is read back all the same."""
    head, table, order = np.arange(12.0).reshape(3, 4), tmp_path / "t.table", tmp_path / "classes.txt"
    table.write_text("table 1\nhead: o[@classes.txt] c <-> head/kernel: c o\n")
    order.write_text("2\n0\n1\n")
    file = save(tmp_path / "a.npz", {"head": head})
    assert run(capsys, "--table", table, file, "-o", tmp_path / "b.npz")[0] == 0
    order.write_text("0\n2\n1\n")
    record = tmp_path / "b.npz.json"
    code, _, error = run(capsys, "--table", record, tmp_path / "b.npz", "-o", tmp_path / "c.npz", "--reverse")
    assert code == 0, error
    assert np.array_equal(load(tmp_path / "c.npz")["head"], head)


def test_inspect_states_the_table_that_wrote_a_file(files, capsys):
    folder, *_ = files
    run(capsys, "--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.npz", "--set", "h=3")
    first, *others = run(capsys, "inspect", folder / "x.npz")[1].splitlines()
    assert first == "record:       written by a Table (torch to flax, bert.table), from left.safetensors"
    assert not any("unknown" in line for line in others)
    assert not any(line.startswith("nearest") for line in others)


def test_inspect_folds_only_modules_with_the_same_arrays(tmp_path, capsys):
    """A norm and a dense layer have biases of one shape, and other weights."""
    shapes = {"weight": (3,), "bias": (3,)}, {"weight": (3, 2), "bias": (3,)}
    arrays = {
        f"m.{b}.{k}.{leaf}": np.zeros(shapes[k][leaf], "f4") for b in (0, 1) for k in (0, 1) for leaf in shapes[k]
    }
    listed = run(capsys, "inspect", save(tmp_path / "x.npz", arrays))[1].partition("tensors:")[2].splitlines()[1:]
    assert listed == [
        "  dtype    shape   name",
        "  float32  [3]     m.{0..1}.0.weight", "  float32  [3]     m.{0..1}.0.bias",
        "  float32  [3, 2]  m.{0..1}.1.weight", "  float32  [3]     m.{0..1}.1.bias",
    ]  # fmt: skip


def test_a_dry_run_writes_nothing(files, capsys):
    folder, *_ = files
    before = sorted(folder.iterdir())
    words = ["--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.npz", "--set", "h=3"]
    code, out, _ = run(capsys, *words, "--dry-run")
    assert code == 0 and "8 tensors; nothing was written" in out
    for name, how in (("query/kernel", "3 joined, sliced, axes [2, 0, 1]"), ("query/bias", "3 joined, sliced"),
                      ("norm/scale", "3 joined")):  # fmt: skip
        assert re.search(rf"{name} +\[[\d, ]+\] +{re.escape(how)} +<- ", out), (name, out)
    assert sorted(folder.iterdir()) == before


REFUSED = {
    "open axes": ([], 2, "--set h="),
    "no such axis": (["--set", "heads=3"], 2, "no axis is called 'heads': its axes are c, d, h, i, pad, s, w"),
    "no length": (["--set", "h=three"], 2, "write an axis and its length, as in h=12"),
    "a length that does not divide": (["--set", "h=5"], 1, "36 is no multiple of 15"),
    "the other direction": (["--set", "h=3", "--reverse"], 1, "bert.table: leave out --reverse"),
    "no such part": (["--set", "h=3", "--weights", "ema"], 2, "--weights ema: unknown name 'ema'"),
    "no such file to be like": (["--like", "nowhere.npz"], 1, "nowhere.npz: there is no such file"),
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
    folder, *_ = files
    other = save(folder / "other.npz", {f"stem.{k}.weight": np.ones(3) for k in range(4)})
    words = ["--table", folder / "bert.table", folder / "left.safetensors", "--like", other, "-o", folder / "x.npz"]
    code, _, error = run(capsys, *words, "--set", "h=3")
    assert code == 1 and "other.npz: 0 of 4 names are on that side of " in error, error
    assert len(error.splitlines()) == 3 and "another model?" in error, error


def test_a_table_that_cannot_be_read_is_one_error(files, capsys):
    folder, *_ = files
    (folder / "bad.table").write_text("table 1\na: o i <-> b: o\nc o <-> d\n")
    code, _, error = run(capsys, "--table", folder / "bad.table", folder / "left.safetensors", "-o", folder / "x.npz")
    assert code == 1
    assert (
        "bad.table: cannot be read as a table" in error and "line 2: a: the two sides" in error and "line 3: " in error
    )


@pytest.mark.parametrize("stated", [(), ("--weights", "state_dict")])
def test_the_one_part_of_the_weights_is_taken_and_the_rest_is_set_aside(stated, files, capsys):
    """Also beside a copy of the weights, which is no other candidate."""
    folder, left, right = files
    nested = {f"state_dict/{name}": array for name, array in left.items()} | {"step": np.array(3)}
    nested |= {f"model_ema/{name}": array + 1 for name, array in left.items()}
    source = save(folder / "nested.npz", nested)
    words = ["--table", folder / "bert.table", source, "-o", folder / "x.msgpack", "--set", "h=3"]
    code, _, error = run(capsys, *words, *stated)
    assert code == 0 and "took the arrays under 'state_dict/'; set aside: step, model_ema/" in error, error
    assert np.array_equal(load(folder / "x.msgpack")["params/emb/embedding"], right["params/emb/embedding"])


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
    assert "took the arrays under 'model/'; set aside: optimizer/ (9 arrays)\n" in err
    assert "right.npz: set aside, training state: opt_state/ (9 arrays)" in err
    save(folder / "train.npz", nested)
    assert main(across) == 0
    assert "reads lie under 'model/'\n" in capsys.readouterr().err
    assert main(["diff", bare, train]) == 0
    assert capsys.readouterr().err == f"note: {train}: took the arrays under 'model/'\n"
    save(folder / "train.npz", nested | {f"net/{name}": array for name, array in left.items()})
    assert main(["diff", bare, train]) == 1
    command = f"--weights / --weights model {bare} {train}"
    assert f"python -m convert diff {command} compares them" in capsys.readouterr().err
    assert main(["diff", *command.split()]) == 0
    assert main(["diff", bare, train, "--weights", "/", "--weights", "model"]) == 0


def test_a_pickled_module_has_the_names_of_its_state_dict(tmp_path, capsys):
    """Of a Table, in inspect's list, and where two files are compared."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2))
    torch.save({"model": module}, tmp_path / "module.pt")
    torch.save(module.state_dict(), tmp_path / "state.pt")
    module_pt, state_pt, table = (str(tmp_path / name) for name in ("module.pt", "state.pt", "a.table"))
    (tmp_path / "a.table").write_text("table 1: a <-> b\n0.weight: o i <-> w: i o\n0.bias: o <-> b: o\n")
    for source, words in ((module_pt, ["--weights", "model"]), (state_pt, [])):
        assert main(["--table", table, source, "-o", f"{source}.npz", *words]) == 0
    assert main(["diff", f"{module_pt}.npz", f"{state_pt}.npz"]) == 0
    assert main(["diff", module_pt, state_pt, "--weights", "model", "--weights", "/"]) == 0
    capsys.readouterr()
    assert main(["inspect", module_pt]) == 0
    assert "  float32  [2, 3]  model/0.weight\n" in capsys.readouterr().out


def test_a_sum_is_added_in_float64_and_rounded_once(tmp_path, capsys):
    (tmp_path / "t").write_text("table 1\n{g=i|f}.bias: o <- ih: (g o) + hh: (g o)\n")
    ih, hh = np.array([1, 2**-12, 3, 4], "f2"), np.array([2**-11, 1, 5, -4], "f2")
    source = save(tmp_path / "right.npz", {"ih": ih, "hh": hh})
    code, _, error = run(capsys, "--table", tmp_path / "t", source, "-o", tmp_path / "x.safetensors", "--reverse")
    assert code == 0 and "which cannot be separated again: ih, hh" in error
    found = load(tmp_path / "x.safetensors")
    assert np.array_equal(np.concatenate([found["i.bias"], found["f.bias"]]), (ih.astype("f8") + hh).astype("f2"))
    code, _, error = run(capsys, "--table", tmp_path / "t", tmp_path / "x.safetensors", "-o", tmp_path / "y.npz")
    assert code == 0 and "zeros, as a sum's other term: hh" in error
    assert not load(tmp_path / "y.npz")["hh"].any()


def test_what_a_table_drops_of_its_target_is_copied_from_like(files, capsys):
    """Without --like a note names it; with it the target has every name and shape, and its record names the file."""
    folder, left, right = files
    words = ["--table", folder / "bert.table", save(folder / "right.npz", right), "--reverse", "-o", folder / "x.npz"]
    code, _, error = run(capsys, *words)
    assert code == 0 and "note: not written, as the table drops them: layer.{i}.mask: --like FILE" in error
    assert "layer.0.mask" not in load(folder / "x.npz")
    new = save(folder / "new.npz", {n: np.full_like(a, 7) for n, a in left.items()})
    code, _, error = run(capsys, *words, "--like", new, "--force")
    masks = [f"layer.{i}.mask" for i in range(LAYERS)]
    assert code == 0 and f"note: copied from {new}, as the table drops them: layer.{{0..2}}.mask" in error
    written, record = load(folder / "x.npz"), json.loads((folder / "x.npz.json").read_text())
    assert written.keys() == left.keys()
    assert all(np.array_equal(written[n], np.full((4, 4), 7) if n in masks else left[n]) for n in left)
    digest = hashlib.sha256(new.read_bytes()).hexdigest()
    assert record["copied"] == {"file": "new.npz", "sha256": digest, "tensors": masks}
    assert record["supplied"][-LAYERS:] == masks
    noted = json.loads(run(capsys, "inspect", folder / "x.npz", "--json")[1])["notes"]
    assert noted[-2].startswith("supplied by an earlier conversion, and not read from its source (")
    assert noted[-1].startswith("supplied in part by an earlier conversion, and read from its source otherwise (2): ")
    words = [
        "diff",
        "--table",
        folder / "bert.table",
        folder / "left.safetensors",
        folder / "right.npz",
        "--set",
        "h=3",
    ]
    assert run(capsys, *words)[0] == 0  # compares nothing that the table drops


def test_a_dropped_window_is_reported_in_both_directions(tmp_path, capsys):
    (tmp_path / "t").write_text("table 1\na: p[2:] <-> b: p\na: x[:2] -> drop\n")
    source = save(tmp_path / "left.npz", {"a": np.arange(5.0)})
    code, _, error = run(capsys, "--table", tmp_path / "t", source, "-o", tmp_path / "x.npz")
    assert code == 0 and "dropped in part, as the table says: a" in error
    code, _, error = run(capsys, "--table", tmp_path / "t", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--reverse")
    assert code == 0 and "zeros in the part that the table drops: a" in error
    assert load(tmp_path / "y.npz")["a"].tolist() == [0, 0, 2, 3, 4]


# diff.


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
    assert last.startswith(f"{len(left) - 1} arrays compared, 1 differs, 1 more differs by at most 0.25, within 0.3 (")


def test_diff_of_other_names_asks_for_a_table(files, capsys):
    folder, left, _ = files
    strange = {**left, "norm.weight": np.ones(3, "f4"), "2.0.weight": np.ones((3, 2), "f4")}  # names of known ones
    a, b = save(folder / "a.npz", strange), folder / "x.npz"
    run(capsys, "--table", folder / "bert.table", folder / "left.safetensors", "-o", b, "--set", "h=3")
    code, _, error = run(capsys, "diff", a, b)
    what = "names of no known architecture, and the two files have different names: give --table FILE"
    assert code == 1 and f"{a} and {b}: {what}" in error
    assert f"the record of {b} has the Table that wrote it" in error


@pytest.mark.parametrize(("depth", "width"), [(5, 3), (2, 3), (3, 4), (2, 4)])
def test_a_model_to_be_like_of_another_size_takes_a_line_for_all_blocks(tmp_path, capsys, depth, width):
    """Also where lengths of axes are open in the blocks that it lacks."""
    table, like = tmp_path / "x.table", tmp_path / "b.npz"
    lines = [f"b.{{i}}.{name}: o <-> l{{i}}.0/{name}: o" for name in "wvut"]
    table.write_text("\n".join(["table 1", "b.{i}.q: (h d) <-> l{i}.0/q: h d", *lines, ""]))

    def left(blocks, size):
        return {f"b.{i}.{name}": np.zeros(2 * size, "f4") for i in range(blocks) for name in "qwvut"}

    a, other = save(tmp_path / "a.npz", left(3, 3)), save(tmp_path / "c.npz", left(depth, width))
    assert run(capsys, "--table", table, other, "-o", like, "--set", "h=2")[0] == 0
    code, _, error = run(capsys, "--table", table, a, "--like", like, "-o", tmp_path / "d.npz")
    what = f"{a}: {table} makes other arrays of it than {like} has: give a file of a model as deep and as wide as the"
    assert code == 1 and what in error
    found = error.splitlines()[1:]
    if width == 3:
        names = "l{3..4}.0 (5 arrays each, as q)" if depth > 3 else "l2.0 (5 arrays, as q)"
        rest = f"is in {like}, and is not made here" if depth > 3 else f"is made here, and is not in {like}"
        assert found == [f"  - {names}: each {rest}"]
    else:
        assert sum("has shape [8]" in line and "(and 3 more arrays of each block)" in line for line in found) == 1
        assert len(found) == 1 + (depth < 3)


def test_diff_states_the_shape_that_a_line_makes(tmp_path, capsys):
    """And the file that has another, where a table exchanges two axes."""
    (tmp_path / "x.table").write_text("table 1: torch <-> flax\nhead.weight: o i <-> head/kernel: o i\n")
    weight = np.zeros((5, 3), "f4")
    a, b = save(tmp_path / "a.npz", {"head.weight": weight}), save(tmp_path / "b.npz", {"head/kernel": weight.T})
    code, _, error = run(capsys, "diff", "--table", tmp_path / "x.table", a, b)
    problem = f"head/kernel has shape [3, 5] in {b}, line 2 makes [5, 3] of head.weight"
    assert code == 1 and error.count("  - ") == 1 and problem in error


def test_two_sides_of_one_framework_are_named_by_their_place(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1: torch <-> torch\na.{i}: o <-> b.{i}: o\nc.{i}: o <-> d.{i}: o\n")
    for names, words, ends in (("aac", [], "left to right"), ("bbd", ["--reverse"], "right to left")):
        arrays = {f"{name}.{k}": np.ones(2) for k, name in enumerate(names)}
        path = save(tmp_path / "x.npz", arrays)
        code, _, error = run(capsys, "--table", tmp_path / "x.table", path, "-o", tmp_path / "y.npz", *words)
        assert code == 1 and error.splitlines()[0].endswith(f"read from {ends}"), error


# Payloads: strips that cut through windows, reversals, orders and constants.

LINES = {
    "windows": "a: p[:3] d <-> x: p d\na: q[3:-2] d <-> y: d q\na: r[-2:] d <-> z: r d",
    "parts": "a: (p+q+1) d <-> x: d p, y: q d, z: d",
    "reversal": "a: -p d <-> x: d p",
    "reversal of the target": "a: p d <-> x: -d p",
    "order": "a: p[@f] d <-> x: d p",
    "constants around": "a: p d <-> x: p[3:] d\n<-> x: q[:2] d = 0\n<-> x: q[2:3] d = 1.5",
}


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
    from specs.moves import Move
    from specs.table import Table

    array = np.arange(6, dtype="f4")
    path = save(tmp_path / "a.npz", {"a": array})
    table = Table.parse("table 1\na: -p <-> x: p")
    with by_table.plan(str(path), table) as plan:
        assert np.array_equal(dict(payload.arrays(plan))["x"], array[::-1])
        any_slice = property(lambda move: all(isinstance(s, slice) for s in (*move.select, *move.place)))
        monkeypatch.setattr(Move, "copies", any_slice)
        assert np.array_equal(dict(payload.arrays(plan))["x"], array)  # so the assertion above sees the fault


def test_a_constant_has_to_fit_its_dtype(tmp_path):
    from specs.table import Table

    path = save(tmp_path / "a.npz", {"a": np.ones(3, "f2")})
    with by_table.plan(str(path), Table.parse("table 1\na: o <-> b: o\n<-> n: = 7e4")) as plan:
        with pytest.raises(ConvertError, match=r"n: the constant 70000.0: .*too large"):
            dict(payload.arrays(plan))


def test_what_is_no_array_is_named(tmp_path, capsys):
    """A number among the arrays is in no target: converting, by a Table, and comparing, in any way, say so."""
    import msgpack

    arrays = {"w": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "f4")}
    save(tmp_path / "a.msgpack", arrays)
    tree = {name: msgpack.ExtType(1, msgpack.packb((a.shape, "float32", a.tobytes()))) for name, a in arrays.items()}
    (tmp_path / "b.msgpack").write_bytes(msgpack.packb({**tree, "temperature": 2.5}))
    (tmp_path / "t.table").write_text("table 1\nw: i o <-> x: o i\nb: o <-> y: o\n")
    a, b, out, table = (str(tmp_path / name) for name in ("a.msgpack", "b.msgpack", "c.npz", "t.table"))
    said = "set aside, plain numbers: temperature"
    for words in (["--table", table, b, "-o", out], ["diff", a, b], ["diff", b, a], ["diff", b, out, "--table", table]):
        assert main(words) == 0
        assert said in capsys.readouterr().err, words


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


def test_tied_arrays_are_counted_once(tmp_path):
    table = Table.parse("table 1\nemb: v d = head: v d <-> e: d v = h: v d\nb: v <-> b: v\nc: v <-> c: v\n")
    ones = np.ones((3, 2), "float32")
    save(tmp_path / "a.safetensors", {"emb": ones, "head": ones, "b": ones[:, 0], "c": ones[:, 0]})
    with by_table.plan(str(tmp_path / "a.safetensors"), table) as plan:
        assert (len(plan.steps), plan.parameters) == (4, 12)


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
    assert "tied in the source, and written apart, " in run(capsys, *words)[2]
    words = ["--table", tmp_path / "apart.table", tmp_path / "c.npz", "-o", tmp_path / "e.npz"]  # no ties in npz
    assert "tied" not in run(capsys, *words)[2]


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
    assert code == 0 and "5 tensors, 6 parameters" in printed
    code, printed, _ = run(capsys, "inspect", out, "--json")
    assert json.loads(printed)["parameters"] == 6


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_what_a_table_drops_a_part_of_is_not_copied_from_like(tmp_path, capsys, suffix):
    """Rows of padding have no source: the others keep what the file has, whatever the new model holds."""
    table = tmp_path / "pad.table"
    table.write_text("table 1: torch <-> torch\np: v[2:] c <-> e: v c\np: x[:2] c -> drop\n")
    source = save(tmp_path / "source.safetensors", {"e": np.full((3, 2), 5, np.float32)})
    new = save(tmp_path / "new.safetensors", {"p": np.full((5, 2), -1, np.float32)})
    out = tmp_path / f"out.{suffix}"
    words = ["--table", str(table), source, "-o", str(out), "--reverse", "--like", new]
    code, _, error = run(capsys, *words)
    assert code == 0 and "zeros in the part that the table drops: p" in error and "copied from" not in error
    assert load(out)["p"].tolist() == [[0, 0], [0, 0], [5, 5], [5, 5], [5, 5]]
