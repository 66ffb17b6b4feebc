"""Batch counters: carried from and to the frameworks that store none."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import specs

from .test_routes import write_numbers


def test_counts_that_are_not_there(run, tmp_path):
    """As torch's own strict load takes them; in their place stand zeros."""
    config = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "a.safetensors", "convmixer", config, "official")
    arrays = {n: a for n, a in load_file(tmp_path / "a.safetensors").items() if "num_batches" not in n}
    save_file(arrays, tmp_path / "b.safetensors")
    words = "--set", f"act={config.act}"
    assert run("official2torch", tmp_path / "b.safetensors", "-o", tmp_path / "c.safetensors", *words)[0] == 0
    written = load_file(tmp_path / "c.safetensors")
    assert sum(name.endswith("num_batches_tracked") and a == 0 for name, a in written.items()) == 2 * config.depth + 1
    assert run("official2paddle", tmp_path / "b.safetensors", "-o", tmp_path / "d.pdparams", *words)[0] == 0
    assert run("diff", tmp_path / "c.safetensors", tmp_path / "d.pdparams")[0] == 0


def test_counts_that_were_cast_with_the_rest(run, tmp_path):
    """To bfloat16, as scripts do: they stay what they are, and no record holds a number that they do not."""
    config = next(iter(specs.get("convmixer").tiny.values()))
    write_numbers(tmp_path / "a.safetensors", "convmixer", config, "torch")
    arrays = {n: a.astype("float16") for n, a in load_file(tmp_path / "a.safetensors").items()}
    save_file(arrays, tmp_path / "b.safetensors")
    words = "--set", f"act={config.act}", "--assume", "-o"
    assert run("torch2torch", tmp_path / "b.safetensors", *words, tmp_path / "c.safetensors")[0] == 0
    assert load_file(tmp_path / "c.safetensors")["norm.num_batches_tracked"].dtype == "float16"
    code, _, err = run("torch2flax", tmp_path / "b.safetensors", *words, tmp_path / "d.msgpack")
    noted = "batch counters stay in the record alone, which a conversion back reads, as flax stores none: "
    assert (code, noted in err) == (0, True), err
    code, _, err = run("flax2paddle", tmp_path / "d.msgpack", "-o", tmp_path / "e.pdparams")
    assert (code, "batch counter" in err) == (0, False), err  # the record of the source has them, and the target's too
    carried = json.loads((tmp_path / "d.msgpack.json").read_text())["carried"]
    assert carried == {
        name.replace("num_batches_tracked", "count"): int(array)
        for name, array in arrays.items()
        if name.endswith("num_batches_tracked")
    }


def test_a_counter_of_uint16_is_no_bfloat16(run, tmp_path):
    """As weights of Paddle would be."""
    write_numbers(tmp_path / "a.safetensors", "convmixer", specs.get("convmixer").tiny["even"], "torch")
    name = "norm.num_batches_tracked"
    save_file({**load_file(tmp_path / "a.safetensors"), name: np.array(300, "u2")}, tmp_path / "b.safetensors")
    words = "--set", "act=gelu", "--assume", "-o", tmp_path / "c.safetensors"
    assert run("torch2torch", tmp_path / "b.safetensors", *words)[0] == 0
    written = load_file(tmp_path / "c.safetensors")[name]
    assert (written.dtype, int(written)) == (np.uint16, 300)


@pytest.mark.parametrize(("value", "dtype", "carried", "remark"), [
    (1234, "float16", 1234, ""), (7, "uint8", 7, ""), (300, "uint16", 300, ""), (2**24 - 1, "float32", 2**24 - 1, ""),
    (4096, "float16", 4096, "is float16, which rounds so large a count: 4,096 is carried"),
    (2.5, "float32", None, "is 2.5 in float32, no count: left out"),
    (np.inf, "float16", None, "is inf in float16, no count: "), (-3, "int64", None, "is -3 in int64, no count: "),
    (np.nan, "float32", None, "is nan in float32, no count: "),
])  # fmt: skip
def test_counters_of_any_dtype_are_carried(value, dtype, carried, remark, run, tmp_path):
    """As after `{k: v.half() for k, v in state_dict.items()}`, and through formats that keep none."""
    config = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "a.safetensors", "convmixer", config, "torch")
    name = "norm.num_batches_tracked"
    arrays = {**load_file(tmp_path / "a.safetensors"), name: np.array(value, dtype)}
    save_file(arrays, tmp_path / "b.safetensors")
    code, _, err = run("torch2flax", tmp_path / "b.safetensors", "--set", f"act={config.act}", "--assume")
    assert code == 0
    assert (f"note: {name} {remark}" in err) == bool(remark)
    assert json.loads((tmp_path / "b.msgpack.json").read_text())["carried"].get("norm.count") == carried
    assert run("flax2paddle", tmp_path / "b.msgpack")[0] == run("paddle2torch", tmp_path / "b.pdparams", "-o",
                                                                tmp_path / "c.safetensors")[0] == 0  # fmt: skip
    assert load_file(tmp_path / "c.safetensors")[name] == (carried or 0)


@pytest.mark.parametrize(("value", "dtype", "doubt"), [
    (3.5, "float32", "is 3.5 in float32, no count"), (np.nan, "float16", "is nan in float16, no count"),
    (-3, "int64", "is -3 in int64, no count"), (4096, "float16", "is float16, which rounds so large a count"),
    (7, "int64", ""),
])  # fmt: skip
def test_counters_that_are_copied_are_looked_at_as_well(value, dtype, doubt, run, tmp_path):
    """From torch to torch, and into a port, they stay as they are, and a doubtful one is reported."""
    config = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "a.safetensors", "convmixer", config, "torch")
    name = "norm.num_batches_tracked"
    save_file({**load_file(tmp_path / "a.safetensors"), name: np.array(value, dtype)}, tmp_path / "b.safetensors")
    words = "torch2torch", tmp_path / "b.safetensors", "-o", tmp_path / "c.pt", "--assume"
    code, printed, err = run(*words, "--set", f"act={config.act}", "--json")
    assert code == 0
    assert (f"note: {name} {doubt}: copied as it is" in err) == bool(doubt)
    assert any(name in note for note in json.loads(printed)["notes"]) == bool(doubt)


@pytest.mark.parametrize("count", [2**70, -1, 3.5, float("nan"), True, None, "7", [1]])
def test_counters_of_a_record_that_are_no_counts_are_left_out(count, run, tmp_path):
    """They are not passed on to another record either."""
    config = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "a.safetensors", "convmixer", config, "torch")
    words = "--set", f"act={config.act}", "--assume", "--force", "-o"
    assert run("torch2flax", tmp_path / "a.safetensors", *words, tmp_path / "b.msgpack")[0] == 0
    record = json.loads((tmp_path / "b.msgpack.json").read_text())
    record["carried"] = {"norm.count": count, "blocks.0.norm1.count": 5}
    (tmp_path / "b.msgpack.json").write_text(json.dumps(record, indent=1))
    for route, out in (("flax2paddle", "c.pdparams"), ("flax2torch", "c.safetensors")):
        code, _, err = run(route, tmp_path / "b.msgpack", "-o", tmp_path / out)
        assert (code, "b.msgpack.json: the batch counter norm.count is" in err) == (0, True)
    assert json.loads((tmp_path / "c.pdparams.json").read_text())["carried"] == {"blocks.0.norm1.count": 5}
    assert load_file(tmp_path / "c.safetensors")["norm.num_batches_tracked"] == 0


@pytest.mark.parametrize(("count", "changed"), [(2**62 + 1, False), (77, True)])
def test_counters_that_a_table_drops_come_back_from_the_record(count, changed, run, tmp_path):
    """Exactly, in place of the new model's; not where another program wrote the file since."""
    (tmp_path / "t.table").write_text(
        "table 1: torch <-> flax\nn.weight: c <-> n.scale: c\nn.num_batches_tracked -> drop\n"
    )
    a, b, new, back = (tmp_path / name for name in ("a.safetensors", "b.msgpack", "new.safetensors", "c.safetensors"))
    weight, name = np.arange(4, dtype="f4"), "n.num_batches_tracked"
    save_file({"n.weight": weight, name: np.array(count)}, a)
    save_file({"n.weight": weight * 0, name: np.array(0)}, new)
    code, _, err = run("--table", tmp_path / "t.table", a, "-o", b)
    assert (
        code,
        f"a record stores these batch counters, from which a way back with --like restores them: {name}\n" in err,
    ) == (0, True), err
    assert json.loads((tmp_path / "b.msgpack.json").read_text())["carried"] == {name: count}
    if changed:
        b.write_bytes(b.read_bytes().replace(weight.tobytes(), (weight + 1).tobytes()))
    code, _, err = run("--table", tmp_path / "t.table", b, "--reverse", "-o", back, "--like", new)
    whence = f"copied from {new}, as the table drops them" if changed else "batch counters, restored from the record"
    assert code == 0 and f"note: {whence}" in err, err
    assert load_file(back)[name] == (0 if changed else count)
    code, printed, _ = run("inspect", back, "--json")
    assert code == 0 and any("supplied" in note for note in json.loads(printed)["notes"]) == changed
    assert (run("diff", a, back)[0] == 0) != changed


@pytest.mark.parametrize(
    ("value", "dtype", "counters"), [(2.5, "f4", {}), ([3, 4], "i8", {}), (4096, "f2", {"n.num_batches_tracked": 4096})]
)
def test_doubtful_counters_that_a_table_drops(value, dtype, counters, run, tmp_path):
    """What is no count is dropped as everything else, and a rounded one is reported."""
    (tmp_path / "t.table").write_text(
        "table 1: torch <-> flax\nn.weight: c <-> n.scale: c\nn.num_batches_tracked -> drop\n"
    )
    save_file(
        {"n.weight": np.ones(4, "f4"), "n.num_batches_tracked": np.array(value, dtype)}, tmp_path / "a.safetensors"
    )
    code, _, err = run("--table", tmp_path / "t.table", tmp_path / "a.safetensors", "-o", tmp_path / "b.msgpack")
    assert code == 0 and ("dropped, as the table says: n.num_batches_tracked" in err) != bool(counters), err
    assert ("no count: left out" in err, "rounds so large a count" in err) == (value == 2.5, bool(counters)), err
    assert json.loads((tmp_path / "b.msgpack.json").read_text()).get("carried", {}) == counters


def test_counters_in_a_record_outlast_a_table_between_two_others(run, tmp_path):
    """From torch to flax, to paddle, and back to torch, each by a Table of its own."""
    tables = {
        "torch.table": "table 1: torch <-> flax\nn.weight: c <-> n.scale: c\nn.num_batches_tracked -> drop\n",
        "flax.table": "table 1: flax <-> paddle\nn.scale: c <-> norm.w: c\n",
        "paddle.table": "table 1: paddle <-> torch\nnorm.w: c <-> n.weight: c\ndrop <- n.num_batches_tracked\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    name, weight = "n.num_batches_tracked", np.arange(4, dtype="f4")
    save_file({"n.weight": weight, name: np.array(7)}, tmp_path / "a.safetensors")
    save_file({"n.weight": weight, name: np.array(0)}, tmp_path / "new.safetensors")
    files = ["a.safetensors", "b.msgpack", "c.pdparams", "d.safetensors"]
    for table, source, target in zip(tables, files, files[1:], strict=False):
        like = ["--like", tmp_path / "new.safetensors"] if target == files[-1] else []
        code, _, err = run("--table", tmp_path / table, tmp_path / source, "-o", tmp_path / target, *like)
        assert code == 0, err
    assert load_file(tmp_path / files[-1])[name] == 7
