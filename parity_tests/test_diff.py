"""diff: whether two files are shown to be the same model, and how they differ."""

import json
import pickle
import re
import shlex
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import specs
from convert import terminal
from convert.config.settings import setting
from convert.diff import text
from convert.diff.array_differences import EXACT, entry, own_position
from convert.diff.arrays import by_names
from convert.diff.compare import COMMON
from convert.diff.text import assumptions
from convert.files import open_checkpoint
from convert.files.base import Tensor
from specs.arrays import take
from specs.config import tuples
from specs.kinds import KINDS
from specs.moves import Move
from specs.numerals import apart

from .commands import GOOGLE, TIMM, metadata
from .conftest import needs
from .golden import Case
from .optimizing import trained_mixer
from .test_routes import write_numbers


def test_a_setting_of_a_config_that_changes_nothing_is_no_contradiction(run, tmp_path):
    """Where no padding is left over, VALID is SAME: Google's files have the one, a bare file of ours the other."""
    whole, bare, other = (tmp_path / name for name in ("a.safetensors", "a.pt", "b.pth"))
    assert run("google2torch", GOOGLE, "-o", whole)[0] == run("google2torch", GOOGLE, "-o", bare)[0] == 0
    (tmp_path / "a.pt.json").unlink()
    assert run("torch2timm", bare, "-o", other, "--set", "gelu=tanh", "--set", "norm_eps=1e-6")[0] == 0
    assert json.loads((tmp_path / "b.pth.json").read_text())["config"]["padding"] == "VALID"
    code, printed, err = run("diff", bare, other, "--config", whole)
    assert (code, printed.splitlines()[0]) == (0, "the same model"), err
    code, _, err = run("diff", bare, other, "--config", whole, "--set", "padding=SAME")
    assert code == 2 and "padding=SAME was asked for" in err, err


def test_what_a_dialects_code_computes_otherwise_is_said_of_the_written_file_too(run, tmp_path):
    assert run("google2timm", GOOGLE, "-o", tmp_path / "x.pth")[0] == 0
    said = "timm's own code computes gelu=erf; these weights mean gelu=tanh: its outputs will differ"
    assert f"note:         {said}\n" in run("inspect", tmp_path / "x.pth")[1]
    assert f"note: {tmp_path / 'x.pth'}: {said}\n" in run("diff", GOOGLE, tmp_path / "x.pth")[2]
    assert "own code computes" not in run("inspect", GOOGLE)[1] + run("diff", GOOGLE, GOOGLE)[2]


def test_diff_takes_what_one_file_leaves_open_from_the_other(run, tmp_path):
    """And names it: a wrong --set act of the conversion is not confirmed by the file that does not state it."""
    case = Case("locuslab_convmixer_gelu")
    bare, out = case.folder / "weights.pth", tmp_path / "x.safetensors"
    code, _, err = run("official2torch", bare, "-o", out)
    assert code == 2
    assert "act is open, set it (gelu or relu)" in err
    assert run("official2torch", bare, "-o", out, "--set", "act=relu")[0] == 0  # which is wrong
    for words in ((bare, out), (out, bare)):
        code, printed, _ = run("diff", *words)
        assert code == 1
        verdict, _, _, assumed, last = printed.splitlines()
        assert verdict == "the same arrays; equal only if act agrees"
        assert assumed == f"assumed: act=relu of {bare}, which does not state it: from {out} (--set act=relu states it)"
        assert re.fullmatch(r"\d+ arrays compared, every element equal", last)
        code, printed, _ = run("diff", *words, "--json")
        assumed = [{"field": "act", "value": "relu", "file": str(bare), "from": str(out)}]
        verdict = "the same arrays; equal only if act agrees"
        assert (code, json.loads(printed)) == (
            1, {"same": None, "verdict": verdict, "assumed": assumed, "differences": [], "notes": []}
        )  # fmt: skip
    code, printed, _ = run("diff", bare, out, "--assume")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays; accepted: that act agrees")
    code, printed, _ = run("diff", bare, out, "--set", "act=gelu")
    assert code == 1
    assert re.search("act +gelu +relu", printed) and printed.startswith("different: 1 setting\n")
    (setting,) = json.loads(run("diff", bare, out, "--set", "act=gelu", "--json")[1])["differences"]
    assert (setting["setting"], setting["a"], setting["b"], "tensor" in setting) == ("act", "gelu", "relu", False)
    code, printed, _ = run("diff", bare, out, "--set", "act=relu")
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    assert "from --set, not stated in" in printed and ": act=relu" in printed
    other = case.folder / "checkpoint.pth.tar"
    code, printed, _ = run("diff", bare, other)  # open on both sides
    assert (code, printed.splitlines()[0]) == (1, "the same arrays; equal only if act agrees")
    assert printed.splitlines()[3].startswith("open: act, which neither file states")
    assert run("diff", bare, other, "--assume")[0] == 0
    port = tmp_path / "port.safetensors"  # of a dialect whose numbers are open as well
    save_file(load_file(out), port)
    code, printed, _ = run("diff", port, port)
    assert (code, printed.startswith("the same arrays; equal only if act")) == (1, True)
    code, printed, _ = run("diff", bare, other, "--set", "act=gelu")
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    assert run("diff", bare, bare, "--set", "depth=1")[0] == 2
    smaller = tmp_path / "smaller.safetensors"
    write_numbers(smaller, "convmixer", specs.get("convmixer").tiny["even"], "official")
    assert run("diff", out, smaller)[0] == run("diff", smaller, out)[0] == 1  # sizes are each file's own


def test_a_file_without_parts_is_taken_whole_beside_one_with_parts(run, tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    np.savez(tmp_path / "b.npz", **{"optimizer/w": np.ones(3), "model/v": np.ones(2)})
    words = ("diff", tmp_path / "a.npz", tmp_path / "b.npz", "--weights")
    code, _, err = run(*words, "optimizer")
    assert (
        code == 2 and "its arrays are in no part, and --weights / is all of it, where another file needs a part" in err
    )
    assert run(*words, "/", "--weights", "optimizer")[0] == 0


def test_two_architectures_need_no_settings(run, tmp_path):
    """Whatever their files leave open, of which nothing has a default."""
    for name, architecture, twin in (("a", "convmixer", "even"), ("b", "mobile_former", "plain")):
        config = specs.get(architecture).tiny[twin]
        write_numbers(tmp_path / f"{name}.pdparams", architecture, config, "paddle")
    words = ("diff", tmp_path / "a.pdparams", tmp_path / "b.pdparams")
    for more in ((), ("--set", "act=relu"), ("--assume",)):
        code, printed, _ = run(*words, *more)
        assert (code, printed.splitlines()[0]) == (1, "different: two architectures"), printed
    assert "  architecture  convmixer  mobile_former\n" in printed


def test_diff_takes_a_setting_in_place_of_what_only_the_dialect_says(run, tmp_path):
    """A bare file of timm's does not state its GELU: the value is called assumed, and --set states another."""
    save_file(load_file(as_timm(run, tmp_path)), bare := tmp_path / "bare.safetensors")
    code, printed, err = run("diff", GOOGLE, bare)
    assert code == 1 and re.search(r"gelu +tanh \(assumed: google\) +erf \(assumed: timm\)", printed)
    assumed = f"{bare}: the file does not say, assumed as timm's own code computes: gelu=erf (--set gelu=... states"
    assert assumed in err
    for words in (("--set", "gelu=tanh"), ("--config", tmp_path / "ours.safetensors")):
        code, printed, err = run("diff", GOOGLE, bare, *words)
        assert (code, printed.splitlines()[0]) == (0, "the same model"), err
        assert "though timm's own code computes gelu=erf" in err
        assert "padding=SAME was asked for" not in err  # it changes nothing, and nobody asked for it by itself
    code, printed, err = run("diff", tmp_path / "ours.safetensors", bare, "--set", "gelu=erf")
    assert (code, printed) == (2, "")
    assert "ours.safetensors: gelu=erf was asked for, and its record says gelu=tanh" in err


def as_timm(run, folder):
    """Convert Google's file into ours and timm's dialects; return the latter."""
    assert run("google2torch", GOOGLE, "-o", folder / "ours.safetensors")[0] == 0
    assert run("google2timm", GOOGLE, "-o", folder / "timm.safetensors")[0] == 0
    return folder / "timm.safetensors"


def test_diff_names_a_setting_that_differs_without_effect(run, tmp_path):
    """Google pads the stem as "SAME", timm as "VALID": one function of images that patches tile."""
    timm = as_timm(run, tmp_path)
    save_file(load_file(timm), bare := tmp_path / "bare.safetensors")
    code, printed, err = run("diff", GOOGLE, bare, "--set", "gelu=tanh")
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    assert "note: padding=SAME in A, VALID in B: no effect at the model's own image size\n" in err
    assert "padding" not in run("diff", GOOGLE, tmp_path / "ours.safetensors")[2]


def test_diff_shows_shapes_as_the_first_file_stores_them(run, tmp_path):
    """Whatever the layout of the second file: positions are in the first one's, too."""
    timm = load_file(as_timm(run, tmp_path))
    kernel = timm["stem.proj.weight"]
    o, i, h, w = kernel.shape
    save_file({**timm, "stem.proj.weight": np.ascontiguousarray(kernel[..., 1:])}, cut := tmp_path / "cut.safetensors")
    for a, b, one, two in (
        (GOOGLE, cut, [h, w, i, o], [h, w - 1, i, o]), (cut, GOOGLE, [o, i, h, w - 1], [o, i, h, w])
    ):  # fmt: skip
        code, printed, _ = run("diff", a, b, "--weights", "/")
        assert code == 1 and f"  {one}  {two}  stem" in re.sub(" {3,}", "  ", printed), printed
        assert "\nshapes: in the layout of A's file (B's shapes are brought into it)\n" in printed


def test_positions_in_two_files_of_one_layout_are_in_no_other(run, tmp_path):
    arrays = load_file(as_timm(run, tmp_path))
    save_file({**arrays, "head.bias": arrays["head.bias"] + 1}, other := tmp_path / "other.safetensors")
    code, printed, _ = run("diff", tmp_path / "timm.safetensors", other)
    assert code == 1 and " at [" in printed and "layout" not in printed
    kernel = {**arrays, "stem.proj.weight": arrays["stem.proj.weight"] + 1}
    save_file(kernel, other)
    printed = run("diff", GOOGLE, other)[1]
    assert "\npositions: in the layout of A's file\n" in printed


def test_the_verdict_comes_before_the_notes(run, tmp_path):
    """On one terminal, too, where both streams go."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    model = {name: torch.from_numpy(array) for name, array in load_file(as_timm(run, tmp_path)).items()}
    for name, epoch in (("a", 3), ("b", 4)):
        state = {"model": model, "epoch": epoch, "best": 0.5, "run": "first"}
        torch.save(state, tmp_path / f"{name}.pt")
    words = [sys.executable, "-m", "convert", "diff", tmp_path / "a.pt", tmp_path / "b.pt"]
    lines = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("note: "))
    assert lines[0] == "the same model" and lines[first - 1].endswith("every element equal")
    assert lines[first:][-2:] == [
        "note: plain values that agree: best=0.5; run=first", "note: plain values that differ: epoch is 3 in A, 4 in B"
    ]  # fmt: skip
    assert not any("plain numbers" in line for line in lines)


def test_diff_explains_the_error_of_a_row_of_nan(run, tmp_path):
    save_file({"a": np.ones(2, "float32")}, one := tmp_path / "one.safetensors")
    save_file({"a": np.full(2, np.nan, "float32")}, two := tmp_path / "two.safetensors")
    code, printed, _ = run("diff", one, two)
    assert code == 1 and "\nerror: the largest difference, relative to the largest finite element" in printed


def test_diff_says_the_same_model_but_for_a_head_set_aside(run, tmp_path):
    """A head beside a headless model is not compared, and the verdict says so."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    arrays = torch.load(TIMM, weights_only=True)
    body = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    torch.save(body, tmp_path / "a.pt")
    torch.save({"state_dict": body, "head.weight": arrays["head.weight"]}, tmp_path / "b.pt")
    code, printed, err = run("diff", tmp_path / "a.pt", tmp_path / "b.pt")
    assert (code, printed.splitlines()[0]) == (0, "the same model, except what is set aside")
    assert "head.weight" in err


def test_diff_tells_the_tensor_and_the_error(run, tmp_path):
    for name in "ab":
        assert run("google2torch", GOOGLE, "-o", tmp_path / f"{name}.safetensors")[0] == 0
    told = json.loads(run("diff", GOOGLE, tmp_path / "a.safetensors", "--json")[1])
    assert told == {"same": True, "verdict": "the same model", "assumed": [], "differences": [], "notes": []}
    arrays = load_file(tmp_path / "b.safetensors")
    arrays["norm.bias"][3] += 0.5
    save_file(arrays, tmp_path / "b.safetensors", metadata=metadata(tmp_path / "a.safetensors"))
    code, printed, _ = run("diff", GOOGLE, tmp_path / "b.safetensors", "--json")
    told = json.loads(printed)
    assert code == 1
    assert not told["same"]
    [difference] = told["differences"]
    assert (difference["tensor"], difference["kind"]) == ("norm.bias", "value")
    assert (difference["a"], difference["b"]) == (["pre_head_layer_norm/bias"], ["norm.bias"])
    assert (difference["differing"], difference["elements"]) == (1, 20)
    both = [load_file(tmp_path / f"{name}.safetensors")["norm.bias"] for name in "ab"]
    assert difference["error"] == pytest.approx(0.5 / np.abs(both).max())
    legend = [line.partition(":")[0] for line in run("diff", GOOGLE, tmp_path / "b.safetensors")[1].splitlines()[7:-1]]
    assert legend == ["error", "names", "positions"]  # one row needs no order
    assert run("verify", tmp_path / "b.safetensors")[0] == 1
    code, printed, _ = run("diff", GOOGLE, TIMM)
    assert code == 1
    verdict, a, b, _, head, *rows, last = printed.splitlines()
    assert (a, b) == (f"A: {GOOGLE}", f"B: {TIMM}")
    assert re.split(" {2,}", head)[1:] == ["setting", "in A", "in B"]
    assert re.split(" {2,}", rows[0])[1:] == ["gelu", "tanh (assumed: google)", "erf (assumed: timm)"]
    assert "  [20]           [25]           MixerBlock_{0..2}/LayerNorm_{0..1}/scale" in rows  # folded, by A's own name
    (bias,) = (row.split() for row in rows if "  head/bias:" in row)
    assert bias[1:5] == ["7", "of", "7", "head/bias:"] and [word[:2] for word in bias[5:]] == ["A=", "B=", "at", "[5"]
    assert verdict == "different: 1 setting, the shape of 29 arrays and the values of 13 arrays"
    assert last == "42 arrays compared, all 42 differ"
    assert "\norder: largest error first\n" in printed  # no array there is rounding alone


def test_an_error_does_not_depend_on_the_order_of_the_files(run, tmp_path):
    """Also where one array is 0: relative to that alone, any difference would be infinite, or be absolute."""
    zeros, others = {"x": np.zeros(4, "f4")}, {"x": np.array([0, 1e-3, 0, 8e-3], "f4")}
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(zeros, a)
    save_file(others, b)
    for pair in ((a, b), (b, a)):
        (found,) = json.loads(run("diff", *pair, "--json")[1])["differences"]
        assert (found["error"], found["largest"]) == (1, pytest.approx(8e-3))
        assert [run("diff", *pair, "--rtol", rtol)[0] for rtol in ("0.5", "1")] == [1, 0]


def test_a_part_of_a_file_is_compared_by_its_names(run, tmp_path):
    """Names such as those of any nn.Sequential are no evidence of convmixer, whose official ones are."""
    arrays = {name: np.ones(2, "f4") for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    save_file(arrays, tmp_path / "a.safetensors")
    save_file({"0.weight": arrays["0.weight"]}, tmp_path / "b.safetensors")
    code, printed, _ = run("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (code, printed.splitlines()[0]) == (1, "different: 3 arrays only in A")
    code, printed, _ = run("inspect", tmp_path / "a.safetensors")
    assert code == 0 and "convmixer" not in printed and "docs/own-model.md" in printed


def test_nans_and_infinities_that_both_hold_are_the_same(run, tmp_path):
    """And a number against one of them differs by no number: JSON has none for it."""
    arrays = dict(np.load(GOOGLE))
    arrays["head/bias"][:3] = np.nan, np.inf, 1.0
    np.savez(tmp_path / "a.npz", **arrays)
    arrays["head/bias"][2] += 1e-6
    np.savez(tmp_path / "b.npz", **arrays)
    arrays["head/bias"][0] = 2.0
    np.savez(tmp_path / "c.npz", **arrays)
    a, b, c = (tmp_path / f"{name}.npz" for name in "abc")
    code, printed, err = run("diff", a, a)
    assert (code, printed) == (0, f"the same model\nA: {a}\nB: {a}\n42 arrays compared, every element equal\n")
    assert err == "note: both have NaN at the same place, which counts as equal: head/bias\n"
    code, printed, _ = run("diff", a, b, "--rtol", "1e-5")
    assert (code, printed.splitlines()) == (
        0, ["the same model, within a relative difference of 1e-5", f"A: {a}", f"B: {b}",
            "42 arrays compared, 1 differs by at most 9.5e-7, within 1e-5 (head/bias)"],
    )  # fmt: skip
    printed = run("diff", a, a, "--rtol", "1e-5")[1]
    assert printed.endswith("\n42 arrays compared, every element equal\n")
    (entry,) = json.loads(run("diff", a, b, "--json")[1])["differences"]
    assert entry["error"] == pytest.approx(1e-6, rel=0.1)  # of 1, the largest number there
    printed = run("diff", a, c, "--json")[1]
    (entry,) = json.loads(printed, parse_constant=pytest.fail)["differences"]  # strict: no bare NaN or Infinity
    assert (entry["error"], entry["detail"]) == (None, "at [0]: NaN and 2")
    assert "    NaN  " in run("diff", a, c)[1] and "A=NaN, B=2 at [0]" in run("diff", a, c)[1]
    assert [run("diff", a, a, "--rtol", rtol)[0] for rtol in ("-1", "nan", "inf")] == [2, 2, 2]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_large_integers_are_compared_exactly(run, tmp_path, dtype):
    """As float64, 2**60 and 2**60 + 1 are one number."""
    a, b = (np.array([5, 2**60 + step], dtype) for step in (0, 1))
    save_file({"steps": a}, tmp_path / "a.safetensors")
    save_file({"steps": b}, tmp_path / "b.safetensors")
    code, printed, _ = run("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--json")
    (found,) = json.loads(printed)["differences"]
    assert code == 1 and found["differing"] == 1
    assert found["detail"] == f"at [1]: {2**60} and {2**60 + 1}"


def test_dtypes_that_differ_are_noted(tmp_path):
    """Their values are compared, equal or not; one note for each pair of dtypes."""
    one, other = (str(tmp_path / f"{name}.safetensors") for name in ("one", "other"))
    arrays = {name: np.ones(2, "float32") for name in ("same", "halved", "wide", "wider")}
    save_file(arrays, one)
    save_file(
        {name: x.astype({"h": "float16", "w": "float64"}.get(name[0], x.dtype)) for name, x in arrays.items()}, other
    )
    same, notes = by_names(one, other, EXACT)
    assert same.entries == []
    assert notes == [
        "dtypes differ, float32 in A and float16 in B (values were compared): halved",
        "dtypes differ, float32 in A and float64 in B (values were compared): wide and 1 more",
    ]
    assert by_names(one, one, EXACT)[1] == []


def test_arrays_of_the_same_sizes_and_other_names_lead_to_a_table(tmp_path):
    one, turned, other = (str(tmp_path / f"{name}.safetensors") for name in ("one", "turned", "other"))
    for path, name, shape in ((one, "weight", (2, 3)), (turned, "kernel", (3, 2)), (other, "kernel", (6,))):
        save_file({f"fc.{name}": np.zeros(shape), **{f"block.{k}": np.zeros(2) for k in range(3)}}, path)
    said = [by_names(one, path, EXACT)[1] for path in (turned, other)]
    assert ["compares them by a Table of both names" in note for note in said[0]] == [True]
    assert said[1] == []


def test_arrays_are_compared_block_by_block(tmp_path):
    """What differs is the same wherever blocks end, and memory does not grow with the arrays."""
    one = np.arange(1 << 21, dtype="float32").reshape(2, -1)
    one[0, 5] = np.nan
    other = one.copy()
    save_file({"x": one}, tmp_path / "one.safetensors")
    save_file({"x": other}, tmp_path / "same.safetensors")
    other[1, 70_000] += 4
    other[1, 70_001] -= 2
    save_file({"x": other}, tmp_path / "other.safetensors")
    tracemalloc.start()
    both = "both have NaN at the same place, which counts as equal: x"
    same, notes = by_names(str(tmp_path / "one.safetensors"), str(tmp_path / "same.safetensors"), EXACT)
    assert (same.entries, notes, same.compared) == ([], [both], 1)
    ((found,), *_), _ = by_names(str(tmp_path / "one.safetensors"), str(tmp_path / "other.safetensors"), EXACT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = float(one[1, -1])
    assert found["detail"] == f"at [1, 70000]: {' and '.join(apart(one[1, 70_000], other[1, 70_000]))}"
    assert found["error"] == (other[1, 70_000] - one[1, 70_000]) / largest
    assert (found["differing"], found["elements"]) == (2, one.size)
    assert peak < one.nbytes


def test_training_state_is_compared_only_where_both_name_it_alike(tmp_path):
    """As of two TrainStates whose optimizers are chained otherwise."""
    weights, state = {"params/a": np.ones(3), "params/b": np.ones(2)}, np.ones(3)
    one, same, other = (str(tmp_path / f"{name}.npz") for name in ("one", "same", "other"))
    np.savez(one, **weights, **{"opt_state/1/0/mu/a": state, "step": np.array(4)})
    np.savez(same, **weights, **{"opt_state/1/0/mu/a": state + 1, "step": np.array(4)})
    np.savez(other, **weights, **{f"opt_state/0/mu/{number}": state + 1 for number in range(9)})
    found, notes = by_names(one, same, EXACT)
    assert [entry["tensor"] for entry in found.entries] == ["opt_state/1/0/mu/a"] and not notes
    found, notes = by_names(one, other, EXACT)
    assert not found.entries and found.compared == 2
    assert found.but == ("training state, which is not compared",)
    what = "set aside, training state, of which not all names are in both files"
    assert notes == [f"{one}: {what}: opt_state/ (1 array), step", f"{other}: {what}: opt_state/ (9 arrays)"]


def test_numbers_beside_the_arrays_are_compared_where_both_files_name_them(run, tmp_path):
    """Two states of one training: its arrays are the same, its learning rate and its epoch are not."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    weight = torch.arange(4.0)
    for name, rate, epoch in (("a", 1e-3, 3), ("b", 1e-4, 4)):
        groups = [{"lr": rate, "betas": (0.9, 0.999), "params": [0]}]
        state = {"model": {"weight": weight}, "optimizer": {"state": {}, "param_groups": groups}, "epoch": epoch}
        torch.save({**state, "arch": "mine", "only_in": {name: 1}}, tmp_path / f"{name}.pt")
    code, printed, err = run("diff", tmp_path / "a.pt", tmp_path / "b.pt")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except 2 plain values that differ")
    rate = "optimizer/param_groups/0/lr is 1e-3 in A, 1e-4 in B"
    assert f"note: plain values that differ: epoch is 3 in A, 4 in B; {rate}\n" in err
    agree = "arch=mine; optimizer/param_groups/0/betas=[0.9, 0.999]; optimizer/param_groups/0/params=[0]"
    assert f"note: plain values that agree: {agree}\n" in err
    assert "a.pt: set aside, plain numbers: only_in/a\n" in err, err
    code, printed, err = run("diff", tmp_path / "a.pt", tmp_path / "a.pt")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays") and "set aside" not in err


def test_settings_that_a_comparison_by_names_does_not_use_are_named(run, tmp_path):
    extra = tmp_path / "extra.npz"
    np.savez(extra, **np.load(GOOGLE), **{"Other_0/x": np.ones(3)})
    code, printed, err = run("diff", extra, extra, "--set", "gelu=tanh")
    assert code == 0 and "compared by names: --set is not used\n" in err, (printed, err)
    assert "compared by names" not in run("diff", extra, extra)[2]


def test_states_that_are_chained_otherwise_are_compared(run, tmp_path):
    """optax.chain numbers its parts: a gradient clip ahead of Adam moves them. Under another wrapper that is said."""
    weights = {"params/a": np.ones(3), "params/b": np.ones(2), "step": np.array(4)}
    state = {"count": np.array(4), "mu/a": np.ones(3), "mu/b": np.ones(2), "nu/a": np.ones(3), "nu/b": np.ones(2)}

    def saved(name, place, **changed):
        path = str(tmp_path / f"{name}.npz")
        np.savez(path, **weights, **{place + slot: array for slot, array in {**state, **changed}.items()})
        return path

    one, other = saved("one", "opt_state/1/0/"), saved("other", "opt_state/0/")
    wrapped, trained = (
        saved("wrapped", "opt_state/inner_state/"),
        saved("trained", "opt_state/0/", **{"mu/a": -np.ones(3)}),
    )
    nested = "nest the optimizer's state otherwise"
    for words, arrays in (([], 8), (["--weights", "opt_state"], 5), (["--weights", "opt_state"] * 2, 5)):
        code, printed, err = run("diff", one, other, *words)
        assert (code, printed.splitlines()[0]) == (0, "the same arrays") and f"{arrays} arrays compared" in printed
        assert f"{nested}, and it is compared: opt_state/1/0/count in A is opt_state/0/count in B" in err
        code, printed, _ = run("diff", one, trained, *words)
        assert code == 1 and "opt_state/1/0/mu/a: A=1, B=-1" in printed
    code, _, err = run("diff", one, wrapped, "--weights", "opt_state")
    assert code == 1 and f"{nested}, or it is of other optimizers\n  - A: opt_state/1/0/count, opt_state" in err
    code, printed, err = run("diff", one, wrapped)
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except training state, which is not compared")
    assert run("diff", one, one, "--weights", "opt_state")[2].count("note: ") == 1  # what holds of both files, once


def test_states_of_other_optimizers_are_called_that(run, tmp_path):
    """No Table relates them: one is Adam's and the other SGD's, or they are of two models."""
    ones = np.ones(2, "f4")
    for name, keys in {
        "adam": [f"linear_0.w_0_{slot}_0" for slot in ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")],
        "sgd": ["linear_0.w_0_velocity_0"],
        "later": ["linear_1.w_0_velocity_0"],
    }.items():
        (tmp_path / f"{name}.pdopt").write_bytes(pickle.dumps(dict.fromkeys(keys, ones)))
    for one, other, said in (
        ("adam", "sgd", "adam.pdopt has Adam's two moments, {}/sgd.pdopt has Momentum's arrays\n"),
        (
            "sgd",
            "later",
            "sgd.pdopt has Momentum's arrays, {}/later.pdopt has the same of other parameters, as of",
        ),
    ):
        code, _, err = run("diff", tmp_path / f"{one}.pdopt", tmp_path / f"{other}.pdopt")
        assert code == 1 and said.format(tmp_path) in err, err


@pytest.mark.parametrize("columns", [60, 80])
def test_a_table_fits_a_narrow_terminal(monkeypatch, columns):
    """The columns stay aligned below a long name, and what does not fit is wrapped within the last column."""
    monkeypatch.setattr(terminal, "columns", lambda _: columns)
    names = ["encoder.layers.0.attention.self.query.weight_and_more", "head.bias"]
    entries = [
        entry(
            name,
            "value",
            1.5,
            "at [1, 2]: -0.792424738 and 1.41620862, float32 and float64",
            differing=1000,
            elements=1728,
            a=[name],
        )
        for name in names
    ]
    lines = text.rows(entries)
    assert all(len(line) <= columns for line in lines)
    if columns == 80:  # which the long name fits
        start = lines[0].index("array")
        assert {line[:start].strip() for line in lines[1:]} == {"", "1.5  1,000 of 1,728"}
    rest = "A=-0.792424738, B=1.41620862, float32 and float64 at [1, 2]"
    numbers = "1.5 1,000 of 1,728"
    assert " ".join(lines[1:]).split() == f"{numbers} {names[0]}: {rest} {numbers} {names[1]}: {rest}".split()


def test_the_worst_row_comes_first_and_rounding_of_zeros_last():
    """A bias ahead of a norm is 1e-11 in theory 0: its error of 0.2 says nothing; a weight that became 0 does."""
    cells = [
        ("bias", 0.2, 1e-11),
        ("small", 1e-12, 0.5),
        ("grown", 1.0, 0.5),
        ("odd", None, 1.0),
        ("big", 1e-3, 4.0),
    ]
    entries = [
        entry(name, "value", error, "", differing=1, elements=2, largest=size, a=[name]) for name, error, size in cells
    ]
    names = [re.search(r"(\w+):", line)[1] for line in text.rows(entries)[1:]]
    assert names == ["odd", "grown", "big", "small", "bias"]
    assert [line.split()[4] for line in text.rows(entries[:1])[1:]] == ["bias:"]
    assert text.order(entries).startswith("order: largest error first, but arrays of tiny values last")
    assert text.order(entries[1:]) == "order: largest error first"


def test_moments_of_rounding_are_named_and_accepted_by_an_absolute_difference(run, tmp_path):
    """Moments of a bias without a gradient differ by their own size; second moments are measured by second moments."""
    first, second = np.linspace(-1e-2, 1e-2, 32), np.linspace(1e-9, 1e-7, 32)
    arrays = {"0/exp_avg": first, "0/exp_avg_sq": second, "1/exp_avg": first * 1e-17, "1/exp_avg_sq": second * 1e-30}
    other = {name: array * (1 + 1e-12) for name, array in arrays.items()} | {"1/exp_avg": -arrays["1/exp_avg"]}
    a, b = ({f"optimizer/state/{name}": array for name, array in of.items()} for of in (arrays, other))
    np.savez(tmp_path / "a.npz", **a)
    np.savez(tmp_path / "b.npz", **b)
    pair = ["diff", tmp_path / "a.npz", tmp_path / "b.npz", "--rtol", "1e-9"]
    code, printed, _ = run(*pair)
    assert code == 1
    assert "\n1 array of tiny values, below 1e-8 of the largest in arrays of their kind that differ" in printed
    assert "--atol 3e-19 accepts it\n" in printed  # twice 1e-19, rounded up
    code, printed, _ = run(*pair, "--atol", "3e-19")
    assert code == 0, printed
    verdict, *_, last = printed.splitlines()
    assert verdict == "the same arrays, within a relative difference of 1e-9 or an absolute one of 3e-19"
    assert last.endswith(", 1 more differs by at most 2.0e-19, within --atol 3e-19 (optimizer/state/1/exp_avg)")
    assert run(*pair, "--atol", "1.9e-19")[0] == 1
    larger = {**b, "optimizer/state/0/exp_avg_sq": second * 2}  # small beside the first moments, and no rounding
    np.savez(tmp_path / "b.npz", **larger)
    assert "\n1 array of tiny values" in run(*pair)[1]
    assert run(*pair, "--atol", "3e-19")[0] == 1
    assert [run(*pair[:3], "--atol", atol)[0] for atol in ("-1", "nan", "inf")] == [2, 2, 2]


def test_the_one_part_with_the_other_files_names_is_taken(run, tmp_path):
    """Of a file of training state; two such parts leave the choice open."""
    weights = {f"enc.{k}.w": np.full(3, k) for k in range(4)}
    nested = {f"model/{name}": array for name, array in weights.items()}
    state = {f"optimizer/{name}/mu": array for name, array in weights.items()}
    for name, arrays in (("plain", weights), ("full", nested | state), ("alone", nested)):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    plain, full, alone = (tmp_path / f"{name}.npz" for name in ("plain", "full", "alone"))
    for pair in ((plain, full), (full, plain)):
        code, printed, err = run("diff", *pair)
        assert code == 0 and "4 arrays compared, every element equal" in printed, printed + err
        assert "took the arrays under 'model/'; set aside: optimizer/ (4 arrays)" in err
    code, _, err = run("diff", plain, alone)
    assert code == 0 and err == f"note: {alone}: took the arrays under 'model/'\n"
    copy = {f"ema/{name}": array for name, array in weights.items()}
    np.savez(full, **nested, **copy)
    code, _, err = run("diff", plain, full)
    assert code == 1 and "the names of one lie in a part of the other" in err, err


def test_a_file_that_lacks_an_array_of_its_architecture_is_compared_by_names(run, tmp_path):
    arrays = dict(np.load(GOOGLE))
    arrays.pop("head/bias")
    np.savez(tmp_path / "less.npz", **arrays)
    code, printed, err = run("diff", GOOGLE, tmp_path / "less.npz")
    assert code == 1 and printed.startswith("different: 1 array only in A\n"), printed
    assert printed.endswith("41 arrays compared, every element equal, 1 more only in A\n")
    assert f"note: compared by names alone: {tmp_path / 'less.npz'}: does not hold the google arrays of this" in err
    code, _, err = run("diff", TIMM, tmp_path / "less.npz")  # no names in common
    assert code == 1 and err.startswith("python -m convert: ") and "missing head/bias" in err, err


def test_positions_are_those_of_the_first_file(run):
    """The axes of its own arrays are in another order than the hub's: flax's convolutions, torch's dense layers."""
    for a, b in ((TIMM, GOOGLE), (GOOGLE, TIMM)):
        code, printed, _ = run("diff", a, b, "--json")
        found = [one for one in json.loads(printed)["differences"] if one["kind"] == "value" and len(one["a"]) == 1]
        assert code == 1 and len(found) > 10
        with open_checkpoint(a) as reader:
            for one in found:
                tensor = reader.tensors[one["a"][0]]
                array = np.frombuffer(bytes(reader.read(tensor.name)), tensor.dtype).reshape(tensor.shape)
                index, value = re.match(r"at (\[.*?\]): (\S+) and", one["detail"]).groups()
                assert float(value) == pytest.approx(float(array[tuple(json.loads(index))]), rel=1e-2), one
        assert (
            "\nshapes and positions: in the layout of A's file (B's shapes are brought into it)\n"
            in run("diff", a, b)[1]
        )


def test_every_position_is_found_behind_a_move():
    """A window read backwards, single indices, listed ones, and a cycle of three axes, which is not its own inverse."""
    x = np.arange(2 * 3 * 4 * 5).reshape(6, 20)
    whole = slice(None)
    moves = [
        Move("x", (2, 3, 4, 5), (1, whole, whole, slice(4, 0, -1)), (2, 0, 1), (2, 4, 3, 4), (0, *[whole] * 3)),
        Move("x", (2, 3, 4, 5), (0, (2, 0, 1), whole, slice(1, 5)), (1, 2, 0), (2, 4, 4, 3), (1, *[whole] * 3)),
    ]
    for move in moves:
        side = SimpleNamespace(sources={"x": Tensor("x", x.shape, "int64")})
        target = np.full(move.target_atoms, -1)
        target[move.place] = take(x.reshape(move.source_atoms), move.select).transpose(move.order)
        for at, value in enumerate(target.ravel()):
            found = own_position(side, (Tensor("y", target.shape, "int64"), [move]), at)
            assert found is None if value < 0 else x[tuple(found)] == value


def test_axes_of_the_common_layout_are_said_as_they_are():
    layout = "(outputs, inputs, height, width) of convolutions, (inputs, outputs) of dense layers"
    assert f"one for both files, {layout}" == COMMON
    assert [KINDS[kind].axes["kernel"] for kind in ("conv", "dense")] == ["o i h w", "i o"]


def test_a_remedy_can_be_pasted():
    """A setting of several numbers is spelled as the command line takes it."""
    values = {"act": "gelu", "coefs": [1.0, 0.5], "blocks": [[11, 6, 1], [13, 8, 2]], "depths": [3]}
    rows = [{"field": name, "value": value, "file": "b", "from": "a"} for name, value in values.items()]
    (line,) = assumptions(rows)
    command = line.partition("(")[2].rpartition(" state them)")[0]
    words = shlex.split(command)
    assert words[::2] == ["--set"] * len(values)
    assert dict(map(setting, words[1::2])) == {name: tuples(value) for name, value in values.items()}
    assert "--set coefs=1.0,0.5 " in line


def grouped(names, groups, path, named=True, rate=1e-3):
    """Save a model of torch with an optimizer whose groups list its parameters in this order, as torch stores it."""
    import torch

    order, count = [name for group, _ in groups for name in group], iter(range(99))
    numbered = [{"params": [next(count) for _ in group], "lr": rate, "weight_decay": decay} for group, decay in groups]
    if named:
        numbered = [{**one, "param_names": list(group)} for one, (group, _) in zip(numbered, groups, strict=True)]
    state = {k: {"exp_avg": torch.full((names.index(n) + 1,), 0.5)} for k, n in enumerate(order)}
    model = {name: torch.ones(k + 1) for k, name in enumerate(names)}
    torch.save({"model": model, "optimizer": {"state": state, "param_groups": numbered}}, path)


def test_optimizers_of_torch_are_matched_by_the_names_of_their_parameters(run, tmp_path):
    """A conversion there and back may leave one group where there were two, of weights with decay and of others."""
    pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, two, other = (tmp_path / f"{name}.pt" for name in ("one", "two", "other"))
    grouped(names, [(names, 0.5)], one)
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], two)
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], other, named=False)
    for weights in ((), ("--weights", "optimizer")):
        code, printed, err = run("diff", one, two, *weights)
        assert (code, printed.splitlines()[0]) == (0, "the same arrays, except 1 plain value that differs")
        what = "the two optimizers number their parameters differently, and are matched by param_names"
        assert f"note: {what}: 1 in A is 2 in B, a.bias\n" in err
        assert "note: plain values that differ: weight_decay of a.bias, b.bias is 0.5 in A, 0.0 in B\n" in err
        assert "param_groups" not in err, err
        _, _, err = run("diff", one, two, "--weights", "model")
        assert "the two optimizers" not in err  # of arrays that are not compared
        code, printed, err = run("diff", two, other, *weights)
        assert code == 0 and "param_names\n" in err and "matched" not in err, (
            err
        )  # set aside, and the order is the same
        code, printed, err = run("diff", one, other, *weights)
        why = "group their parameters differently (4 and 2+2), and are compared by number, as B stores no param_names"
        assert code == 1 and f"note: the two optimizers {why}: one number may be of two parameters\n" in err, err
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], other, rate=9.0)
    code, printed, err = run("diff", two, other, "--weights", "optimizer")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except 2 plain values that differ")
    assert "note: plain values that differ: optimizer/param_groups/0/lr is 1e-3 in A, 9.0 in B; " in err


def by_name(path, named):
    """Number the parameters of a saved optimizer by their order in the model, as conversions do."""
    import torch

    saved = torch.load(path)
    groups, state = saved["optimizer"]["param_groups"], saved["optimizer"]["state"]
    order = {name: number for number, name in enumerate(saved["model"])}
    numbers = {number: order[n] for g in groups for number, n in zip(g["params"], g["param_names"], strict=True)}
    groups = [{**group, "params": [numbers[number] for number in group["params"]]} for group in groups]
    groups = groups if named else [{k: v for k, v in group.items() if k != "param_names"} for group in groups]
    state = {numbers[number]: entry for number, entry in state.items()}
    torch.save({**saved, "optimizer": {"state": state, "param_groups": groups}}, path)


@pytest.mark.parametrize("named", [True, False])
def test_optimizers_of_torch_without_names_are_matched_within_groups_of_the_same_sizes(named, run, tmp_path):
    """A conversion numbers parameters in the order of the model, and keeps the groups and the order in each."""
    pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], one, named=False)
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.25)], two)
    by_name(two, named)
    for weights in ((), ("--weights", "optimizer")):
        code, printed, err = run("diff", one, two, *weights)
        assert (code, printed.splitlines()[0]) == (0, "the same arrays, except 1 plain value that differs"), err
        silent = "A stores" if named else "A and B store"
        how = "groups of 2 and 2 parameters are matched by the places within each, as a conversion orders them"
        assert f"and {silent} no param_names: {how}: assumed, not known\n" in err
        which = "a.bias, b.bias" if named else "{2..3}"
        assert f"plain values that differ: weight_decay of {which} is 0.0 in A, 0.25 in B\n" in err


def test_averages_of_other_names_are_no_hindrance(run, tmp_path):
    """As of a checkpoint and its way back, where an average lies in `model_ema`: weights and optimizer are compared."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias"]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    for path, place, wrapper in ((one, "ema", ""), (two, "model_ema", "module.")):
        grouped(names, [(names, 0.5)], path)
        saved = torch.load(path)
        average = {f"{wrapper}{name}": tensor + 1 for name, tensor in saved["model"].items()}
        torch.save({**saved, place: {"n_averaged": torch.tensor(3), **average}}, path)
    code, printed, err = run("diff", one, two)
    assert code == 0 and printed.startswith("the same arrays, except a copy of the weights, which is not compared\n"), (
        err
    )
    assert printed.endswith("4 arrays compared, every element equal\n")
    assert f"{one}: set aside, a copy of the weights, of which not all names are in both files: ema/" in err
    grouped(names, [(names, 0.5)], two)
    saved = torch.load(two)
    saved["model"]["a.bias"] += 1
    torch.save({**saved, "model_ema": {f"module.{name}": tensor for name, tensor in saved["model"].items()}}, two)
    code, printed, _ = run("diff", one, two)
    assert code == 1 and "a.bias" in printed


def test_the_comparison_of_two_models_says_that_their_optimizers_are_not_compared(run, tmp_path):
    needs("torch")
    path, config = trained_mixer(tmp_path)
    code, _, err = run("diff", path, path, "--config", config)
    said = (
        "note: the states and hyperparameters of the optimizers are not compared: --weights optimizer compares them\n"
    )
    assert code == 0 and said in err, err
    there = tmp_path / "there.msgpack"
    assert run("torch2flax", path, "-o", there, "--with-optimizer", "--config", config)[0] == 0
    code, _, err = run("diff", path, there, "--config", config)
    assert code == 0 and "of the optimizers" not in err, err  # of two libraries, which no --weights compares
    code, _, err = run("diff", path, there, "--weights", "optimizer", "--weights", "opt_state")
    what = "the optimizer's state is torch's in one file, optax's in the other: convert one by --with-optimizer"
    assert code == 1 and f"{path} and {there}: {what} to the other's framework, and compare two files of one" in err


def test_a_size_that_is_stated_is_of_the_file_whose_arrays_show_it(run, tmp_path):
    """The record of one file states the other's settings, and --set its number of classes."""
    whole, bare = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert run("google2torch", GOOGLE, "-o", whole)[0] == 0
    arrays = load_file(whole)
    save_file(arrays | {name: arrays[name][:5].copy() for name in ("head.weight", "head.bias")}, bare)
    for pair in ((whole, bare), (bare, whole)):
        code, printed, err = run("diff", *pair, "--config", whole, "--set", "classes=5")
        assert code == 1 and printed.startswith("different: the shape of 2 arrays\n"), printed + err
    code, _, err = run("diff", whole, bare, "--config", whole, "--set", "classes=6")
    assert code == 2 and "classes=6 was asked for" in err, err
