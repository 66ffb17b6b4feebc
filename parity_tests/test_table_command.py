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
from convert.errors import UsageError
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from convert.table import by_table
from convert.table.file import UNSHOWN

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
    assert out.startswith(f"wrote {there} (format ") and f"from {source} (side torch): " in out and "8 arrays" in out
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


def test_a_route_beside_a_table_is_refused(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1\na: i o <-> b: o i\n")
    code, _, error = run(capsys, "google2torch", GOOGLE, "--table", tmp_path / "x.table", "-o", tmp_path / "y.npz")
    assert code == 2 and "google2torch is a route, and --table states the lines itself: leave one of them" in error


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


def test_force_replaces_no_shard_of_like(files, capsys):
    """Nor its index, which --force would else remove beside a target in one file."""
    folder, _, right = files
    words = ["--table", folder / "bert.table", folder / "left.safetensors"]
    whole, like = save(folder / "like.npz", right), folder / "new.safetensors.index.json"
    out = folder / "new.safetensors"
    assert run(capsys, *words, "--like", whole, "-o", out, "--shard-size", "1kB")[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, error = run(capsys, *words, "--like", like, "-o", out, "--force")
    assert code == 2 and f"{like}: is read itself, or as a part of what is read: give another -o" in error, error
    with by_table.plan(str(folder / "left.safetensors"), str(folder / "bert.table"), like=str(like)) as plan:
        for target in (out, sorted(folder.glob("new-*"))[0]):
            with pytest.raises(UsageError, match="is read itself, or as a part of what is read"):
                plan.write(target, force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_like_takes_the_weights_of_a_training_checkpoint(files, capsys):
    folder, _, right = files
    state = {"step": np.array(3), **{f"opt_state/0/mu/{name}": array for name, array in right.items()}}
    averaged = {f"ema_params/{name.removeprefix('params/')}": array for name, array in right.items()}
    like = save(folder / "like.npz", {**right, **averaged, **state})
    words = ["--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.safetensors"]
    code, _, error = run(capsys, *words, "--like", like)
    assert code == 0 and "like.npz: read its weights and set aside " in error, error
    assert "ema_params/ (8 arrays), opt_state/ (8 arrays), step" in error
    found = load(folder / "x.safetensors")
    assert found.keys() == right.keys() and all(np.array_equal(found[name], array) for name, array in right.items())


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


def test_a_large_array_that_was_changed_since_is_reported(tmp_path, capsys, monkeypatch):
    """By a conversion, which compares every value with the record; with --no-verify a note says that it did not."""
    monkeypatch.setattr("convert.records.other_file.SAMPLED", 16)
    (tmp_path / "t.table").write_text("table 1\nfc.weight: o i <-> kernel: i o\nfc.bias: o <-> bias: o\n")
    source = save(tmp_path / "a.npz", {"fc.weight": np.ones((4, 3), "f4"), "fc.bias": np.ones(4, "f4")})
    written, words = tmp_path / "b.safetensors", ["--table", tmp_path / "t.table"]
    assert run(capsys, *words, source, "-o", written)[0] == 0
    data = bytearray(written.read_bytes())
    with open_checkpoint(written) as reader:
        data[data.index(bytes(reader.read("kernel")), -64)] ^= 1
    written.write_bytes(data)
    back = [*words, written, "--reverse", "-o", tmp_path / "c.npz", "--force"]
    changed = "warning: its record no longer fits the file, whose kernel has other values than were written"
    for more in ([], ["--dry-run"]):
        code, _, error = run(capsys, *back, *more)
        assert (code, changed in error) == (0, True)
    assert json.loads((tmp_path / "c.npz.json").read_text())["altered"]
    code, _, error = run(capsys, *back, "--no-verify")
    assert (code, changed in error) == (0, False)
    assert "note: its record was compared with the 1 smallest of 2 arrays of the file" in error


def test_inspect_states_the_table_that_wrote_a_file(files, capsys):
    folder, *_ = files
    run(capsys, "--table", folder / "bert.table", folder / "left.safetensors", "-o", folder / "x.npz", "--set", "h=3")
    first, *others = run(capsys, "inspect", folder / "x.npz")[1].splitlines()
    written = "record:       written by a Table (torch to flax, bert.table), from left.safetensors"
    assert first == f"{written}; its axes have the lengths that its conversion was given: h=3; {UNSHOWN}"
    assert not any("unknown" in line for line in others)
    assert not any(line.startswith("nearest") for line in others)


def test_inspect_folds_only_modules_with_the_same_arrays(tmp_path, capsys):
    """A norm and a dense layer have biases of one shape, and other weights."""
    shapes = {"weight": (3,), "bias": (3,)}, {"weight": (3, 2), "bias": (3,)}
    arrays = {
        f"m.{b}.{k}.{leaf}": np.zeros(shapes[k][leaf], "f4") for b in (0, 1) for k in (0, 1) for leaf in shapes[k]
    }
    listed = run(capsys, "inspect", save(tmp_path / "x.npz", arrays))[1].partition("arrays:")[2].splitlines()[1:]
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
    assert code == 0 and "8 arrays; nothing was written" in out
    for name, how in (("query/kernel", "3 joined, sliced, axes [2, 0, 1]"), ("query/bias", "3 joined, sliced"),
                      ("norm/scale", "3 joined")):  # fmt: skip
        assert re.search(rf"{name} +\[[\d, ]+\] +{re.escape(how)} +<- ", out), (name, out)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("stated", [(), ("--weights", "state_dict")])
def test_the_one_part_of_the_weights_is_taken_and_the_rest_is_set_aside(stated, files, capsys):
    """Also beside a copy of the weights, which is no other candidate."""
    folder, left, right = files
    nested = {f"state_dict/{name}": array for name, array in left.items()} | {"step": np.array(3)}
    nested |= {f"model_ema/{name}": array + 1 for name, array in left.items()}
    source = save(folder / "nested.npz", nested)
    words = ["--table", folder / "bert.table", source, "-o", folder / "x.msgpack", "--set", "h=3"]
    code, _, error = run(capsys, *words, *stated)
    assert code == 0 and "took the arrays under 'state_dict/' and set aside step, model_ema/" in error, error
    assert np.array_equal(load(folder / "x.msgpack")["params/emb/embedding"], right["params/emb/embedding"])


def test_an_array_that_lies_under_one_wrapper_and_under_two_is_not_chosen(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1\nw: c <-> x: c\n")
    source = save(tmp_path / "a.npz", {"model.w": np.zeros(3), "model.model.w": np.ones(3)})
    code, _, error = run(capsys, "--table", tmp_path / "x.table", source, "-o", tmp_path / "b.npz")
    assert code == 1 and "--weights model.model." in error and not (tmp_path / "b.npz").exists(), error


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


# diff.


def test_two_sides_of_one_framework_are_named_by_their_place(tmp_path, capsys):
    (tmp_path / "x.table").write_text("table 1: torch <-> torch\na.{i}: o <-> b.{i}: o\nc.{i}: o <-> d.{i}: o\n")
    for names, words, ends in (("aac", [], "left to right"), ("bbd", ["--reverse"], "right to left")):
        arrays = {f"{name}.{k}": np.ones(2) for k, name in enumerate(names)}
        path = save(tmp_path / "x.npz", arrays)
        code, _, error = run(capsys, "--table", tmp_path / "x.table", path, "-o", tmp_path / "y.npz", *words)
        assert code == 1 and error.splitlines()[0].endswith(f"read from {ends}"), error


# Payloads: strips that cut through windows, reversals, orders and constants.


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


def test_a_dry_run_folds_sources_that_differ_in_one_level(tmp_path, capsys):
    """As the three projections of attention, in each of the blocks."""
    own = {f"a.{i}.{name}.weight": np.ones((2, 2), "f4") for i in range(3) for name in "qkv"}
    save(tmp_path / "x.npz", {**own, **{f"b.{i}.weight": np.ones(2, "f4") for i in range(2)}, "c": np.ones(2, "f4")})
    lines = [
        "table 1",
        "a.{i}.{s=q|k|v}.weight: o i <-> x.{i}: (s o) i",
        "b.0.weight: o=2, b.1.weight: p=2, c: q=2 <-> y: (o+p+q)",
    ]
    (tmp_path / "x.table").write_text("\n".join(lines) + "\n")
    words = ["--table", tmp_path / "x.table", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--dry-run"]
    code, out, error = run(capsys, *words)
    assert code == 0, error
    assert re.search(r"x\.\{0\.\.2\} .* 3 joined +<- a\.\{0\.\.2\}\.\{q,k,v\}\.weight\n", out), out
    assert re.search(r"y .* <- b\.\{0\.\.1\}\.weight and 1 more\n", out), out
