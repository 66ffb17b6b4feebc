"""Values that a conversion supplies, and does not read: they are reported, marked in the record, and not compared."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ports
import specs
from convert.files import open_checkpoint
from convert.records.record import read as read_record

from .commands import metadata
from .conftest import needs
from .test_parts import arrays, save
from .test_routes import write_numbers

CONFIG = specs.get("convmixer").tiny["even"]
FIELDS = ("act", "norm_eps", "norm_momentum")
SETTINGS = [word for name in FIELDS for word in ("--set", f"{name}={getattr(CONFIG, name)}")]
VERDICT = "the same model, except batch counters, which are not in both files"
COUNTER = "norm.num_batches_tracked"


def record(path):
    with open_checkpoint(path) as reader:
        return read_record(reader).content


def test_diff_compares_batch_counters(run, tmp_path):
    """Of both files, also where a record carries them."""
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_numbers(one, "convmixer", CONFIG, "torch")
    arrays = load_file(one)
    save_file({**arrays, COUNTER: np.asarray(arrays[COUNTER] + 1)}, other)
    assert run("torch2flax", one, "-o", tmp_path / "c.msgpack", *SETTINGS)[0] == 0
    for a, b in ((one, other), (tmp_path / "c.msgpack", other)):
        code, printed, _ = run("diff", a, b, *SETTINGS, "--json")
        assert (code, [entry["tensor"] for entry in json.loads(printed)["differences"]]) == (1, ["norm.count"])
    assert run("diff", one, tmp_path / "c.msgpack", *SETTINGS)[1].startswith("the same model\n")


def test_counters_that_the_source_lacks_are_reported_and_marked(run, tmp_path):
    source, written, flax = (tmp_path / name for name in ("a.pdparams", "b.safetensors", "c.msgpack"))
    write_numbers(source, "convmixer", CONFIG, "paddle")
    code, printed, _ = run("paddle2torch", source, "-o", written, *SETTINGS, "--json")
    counters = [name for name in load_file(written) if name.endswith("num_batches_tracked")]
    assert code == 0 and record(written)["supplied"] == counters
    assert any(
        "5 batch counters set to 0, as the source stores none: " in note for note in json.loads(printed)["notes"]
    )
    assert "supplied by an earlier conversion, and not read from its source (5): " in run("inspect", written)[1]
    code, _, err = run("torch2flax", written, "-o", flax)
    assert (code, record(flax)["carried"]) == (0, {})
    assert "supplied by an earlier conversion" in err
    code, printed, err = run("diff", source, written, *SETTINGS)
    assert (code, printed.splitlines()[0]) == (0, VERDICT)
    trained = load_file(written)
    save_file(
        {name: np.asarray(array + 1) for name, array in trained.items()}, tmp_path / "d.safetensors", metadata(written)
    )
    assert run("torch2flax", tmp_path / "d.safetensors", "-o", flax, "--force")[0] == 0
    assert set(record(flax)["carried"].values()) == {1}  # the mark is of other bytes


def test_diff_reports_counters_that_one_file_alone_stores(run, tmp_path):
    one, other = tmp_path / "a.safetensors", tmp_path / "b.pdparams"
    write_numbers(one, "convmixer", CONFIG, "torch")
    assert run("torch2paddle", one, "-o", other, *SETTINGS)[0] == 0
    (tmp_path / "b.pdparams.json").unlink()
    code, printed, err = run("diff", one, other, *SETTINGS)
    assert (code, printed.splitlines()[0]) == (0, VERDICT)
    assert f"note: {other}: it stores no batch counters of 5 norms, which are not compared: norm and 4 more" in err
    about = json.loads(run("diff", one, other, *SETTINGS, "--json")[1])
    assert about["verdict"] == VERDICT and any("not compared" in note for note in about["notes"])


def test_counters_beside_the_state_of_an_optimizer(run, tmp_path):
    """Marked by the names that they have in that file."""
    source, written = tmp_path / "a.msgpack", tmp_path / "b.pt"
    write_numbers(source, "convmixer", CONFIG, "flax")
    model = arrays(source)
    moments = {
        f"opt_state/0/trace/{name.removeprefix('params/')}": array
        for name, array in model.items()
        if name.startswith("params/")
    }
    save(source, {**model, **moments, "step": np.array(7, "i4")})
    assert run("flax2torch", source, "-o", written, "--with-optimizer", *SETTINGS)[0] == 0
    marked = json.loads((tmp_path / "b.pt.json").read_text())["supplied"]
    assert set(marked) == {name for name in arrays(written) if name.endswith("num_batches_tracked")}
    assert marked[0].startswith("model/")


@pytest.mark.filterwarnings("ignore:.*(batch counter|supplied by)")
def test_a_port_marks_the_counters_that_it_began_with(run, tmp_path):
    needs("torch")
    source, kept, trained = (tmp_path / name for name in ("a.pdparams", "b.safetensors", "c.safetensors"))
    write_numbers(source, "convmixer", CONFIG, "paddle")
    port = ports.load(source, "torch", settings={name: getattr(CONFIG, name) for name in FIELDS})
    port.save(kept)
    counters = [name for name in load_file(kept) if name.endswith("num_batches_tracked")]
    assert record(kept)["supplied"] == counters and len(counters) == 5
    dict(port.model.named_buffers())[COUNTER].add_(1)
    port.save(trained)
    assert record(trained)["supplied"] == [name for name in counters if name != COUNTER]


def test_moments_of_zeros_stay_marked(run, tmp_path):
    """A parameter without moments gets zeros, which no later conversion takes for a source's."""
    source, table = tmp_path / "a.msgpack", tmp_path / "x.table"
    table.write_text("table 1\nparams/a: o <-> params/a: o\nparams/b: o <-> params/b: o\n")
    moments = {f"opt_state/0/{slot}/a": np.ones(2, "f4") for slot in ("mu", "nu")}
    weights = {f"params/{name}": np.ones(2, "f4") for name in "ab"}
    save(source, {**weights, **moments, "opt_state/0/count": np.array(1, "i4"), "step": np.array(1, "i4")})
    words = ["--table", table, "--with-optimizer", "--hyper", "kind=adam"]
    supplied = ["opt_state/0/mu/b", "opt_state/0/nu/b"]
    for step in ("b", "c"):
        target = tmp_path / f"{step}.msgpack"
        code, _, err = run(*words, source, "-o", target)
        assert code == 0, err
        assert json.loads(target.with_name(f"{step}.msgpack.json").read_text())["supplied"] == supplied
        source = target
    assert "supplied by an earlier conversion, and not read from its source: opt_state/0/mu/b, opt_state/0/nu/b" in err


def test_constants_of_a_table_are_marked(run, tmp_path):
    """Also those that fill a part of an array, and copies of what was supplied before."""
    table, source = tmp_path / "x.table", save(tmp_path / "x.npz", {"w": np.ones((2, 3), "f4")})
    table.write_text("table 1\nw: o[1:] i <-> w: o i\nw: pad[:1] i = 0 <->\nn: = 2 int64 <->\n")
    written, again = tmp_path / "y.safetensors", tmp_path / "z.safetensors"
    code, _, err = run("--table", table, "--reverse", source, "-o", written)
    assert code == 0 and "note: constants of the table, = 2: n\n" in err, err
    assert (record(written)["supplied"], record(written)["supplied_in_part"]) == (["w", "n"], ["w"])
    table.write_text("table 1\nw: o i <-> v: i o\nn: <-> m:\n")
    code, _, err = run("--table", table, written, "-o", again)
    assert (code, record(again)["supplied"], record(again)["supplied_in_part"]) == (0, ["v", "m"], ["v"])
    assert "note: supplied by an earlier conversion, and not read from its source: n\n" in err
    partly = "note: supplied in part by an earlier conversion, and read from its source otherwise"
    assert f"{partly}: w\n" in err and f"{partly[6:]} (1): w" in run("inspect", written)[1]
    table.write_text("table 1\nw: o i <-> v: o i\nn: -> drop\n")
    err = run("--table", table, written, "-o", again, "--force")[2]
    assert "dropped, as the table says: n\n" in err and "and not read from its source" not in err  # said once
