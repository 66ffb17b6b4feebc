"""The command line: what it prints, how it fails, what it leaves behind and what it imports."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import convert
import ports
import specs
from convert.__main__ import main
from convert.commands import target
from convert.errors import UsageError
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.files.hashing import count_not_finite
from convert.program import dumps
from convert.recognise import dialects, spellings
from parity.targets import targets
from specs.config import as_dict, parse

from .conftest import needs
from .files.samples import store
from .golden import Case
from .test_routes import SQUARE, write_numbers

ROOT = Path(__file__).parent.parent
GOOGLE = Case("flax_mixer").folder / "weights.npz"
TIMM = Case("timm_mixer").folder / "weights.pth"


@pytest.fixture
def run(capsys):
    """Run a command; (exit code, stdout, stderr)."""

    def call(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's way out
            code = stop.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_conversion_and_its_record(run, tmp_path):
    out = tmp_path / "mixer.safetensors"
    code, printed, _ = run("google2torch", GOOGLE, "-o", out)
    assert code == 0
    assert "7,731 parameters" in printed
    assert listing(tmp_path) == ["mixer.safetensors"]  # the record lies inside
    assert load_file(out)["head.weight"].shape == (7, 20)
    code, printed, _ = run("torch2paddle", out, "-o", tmp_path / "mixer.pdparams", "--json")
    about = json.loads(printed)
    assert about["config"]["gelu"] == "tanh"  # the configuration travelled with the file
    record = json.loads((tmp_path / "mixer.pdparams.json").read_text())
    assert record["config"] == about["config"]
    assert record["source"]["file"] == "mixer.safetensors"
    assert run("verify", out)[0] == run("verify", tmp_path / "mixer.pdparams")[0] == 0


def test_the_default_target_is_what_its_users_load(run, tmp_path):
    source = shutil.copy(GOOGLE, tmp_path / "Mixer.npz")
    for route, name in (("google2torch", "Mixer.safetensors"), ("google2flax", "Mixer.msgpack"),
                        ("google2paddle", "Mixer.pdparams")):  # fmt: skip
        assert run(route, source)[0] == 0
        assert name in listing(tmp_path)
    assert run("torch2google", tmp_path / "Mixer.safetensors", "-o", tmp_path / "again.npz")[0] == 0
    assert run("diff", source, tmp_path / "again.npz")[0] == 0


def test_inspect(run):
    code, printed, _ = run("inspect", GOOGLE, "--json")
    about = json.loads(printed)
    assert code == 0
    assert {"format", "dialect", "architecture", "variant", "config", "parameters", "tensors"} <= about.keys()
    assert (about["format"], about["dialect"], about["architecture"]) == ("npz", "google", "mlp_mixer")
    assert about["variant"] is None
    assert about["config"]["gelu"] == "tanh"
    assert about["parameters"] == 7731
    assert about["tensors"]["head/kernel"] == {"shape": [20, 7], "dtype": "float32"}
    code, printed, _ = run("inspect", Case("passl_mixer").folder / "epoch_1.pd", "--hash")
    assert code == 0
    assert "passl" in printed
    assert "sha256" in printed


@pytest.mark.parametrize(("text", "value"), [
    ("3", 3), ("1,.5", (1, 0.5)), ("1,0.5", (1, 0.5)), ("(1.0, 0.5)", (1.0, 0.5)), ("[1, 0.5]", (1, 0.5)), ("3,", (3,)),
    ("224x196", (224, 196)), ("[2,4],[2]", ((2, 4), (2,))), ("((20, 24, 2),)", ((20, 24, 2),)), ("true", True),
    ("False", False), ("None", None), ("null", None), ("gelu", "gelu"), ("__import__('os')", "__import__('os')"),
    ("(" * 1000, "(" * 1000), ("9" * 5000, "9" * 5000),
])  # fmt: skip
def test_settings_are_read_as_they_are_told(text, value):
    """As notes and inspect print them, as JSON, and as messages ask for them."""
    assert parse(text) == value


def test_what_is_asked_for_says_how_it_is_written(run, tmp_path):
    """And following it works; what is assumed beside it is told, wherever the file is used."""
    config = specs.get("mobile_former").tiny["plain"]
    write_numbers(tmp_path / "m.pdparams", "mobile_former", config, "paddlevit")
    words = ["paddlevit2torch", tmp_path / "m.pdparams", "-o", tmp_path / "x.safetensors"]
    code, _, err = run(*words)
    assert code == 2
    for asked in ("lite_stride is open: set it (int)", "dyrelu_coefs is open: set it (float,float)"):
        assert asked in err
    words += ["--set", "lite_stride=2", "--set", "dyrelu_coefs=1,.5", "--set", "dyrelu_consts=(1.0, 0.0)"]
    code, _, err = run(*words)
    assert (code, err) == (0, "note: the file does not say, assumed: stem_stride=2\n")
    written = tmp_path / "x.safetensors"
    marked = "note: assumed when the record was written, not known: stem_stride=2\n"
    assert run("torch2paddlevit", written, "-o", tmp_path / "y.pdparams")[2] == marked
    _, _, err = run("torch2paddlevit", written, "-o", tmp_path / "z.pdparams", "--set", "softmax=false")
    assert "paddlevit's own code computes softmax=True; these weights mean softmax=False" in err


def test_what_is_assumed_is_told_wherever_a_file_is_used(run, tmp_path, capsys):
    needs("torch")
    spec, path = specs.get("mlp_mixer"), tmp_path / "bare.safetensors"
    write_numbers(path, "mlp_mixer", next(iter(spec.tiny.values())), "torch")
    told = "the file does not say, assumed: gelu=erf, norm_eps=1e-06"
    about = json.loads(run("inspect", path, "--json")[1])
    assert not {"gelu", "norm_eps"} & about["config"].keys()
    assert "gelu is open: set it (erf or tanh); norm_eps is open: set it (float)" in about["open"]
    with pytest.warns(UserWarning, match=told):
        ports.load(path, "torch", assume=True)
    (target,) = targets(str(path), assume=True)
    assert capsys.readouterr().err == f"note: {told}\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target.port("torch", "float32", "cpu")  # told once


def test_an_official_variant_is_recognised(run, tmp_path):
    from specs.mlp_mixer import VARIANTS

    small = tmp_path / "s32.safetensors"
    write_shapes(small, replace(VARIANTS["S/32"], classes=10))
    about = json.loads(run("inspect", small, "--json")[1])
    assert about["variant"] == "S/32"
    assert about["config"]["classes"] == 10
    code, _, err = run("torch2flax", small, "--dry-run")  # files of S/32 exist with either GELU, and one epsilon
    assert (code, "gelu is open" in err, "norm_eps is open" in err) == (2, True, False)
    _, _, err = run("torch2flax", small, "--dry-run", "--set", "gelu=erf")
    assert "as in the official S/32: norm_eps=1e-06" in err  # what only the variant tells is told


def test_diff_takes_what_one_file_leaves_open_from_the_other(run, tmp_path):
    """And names it: a wrong --set act of the conversion is not confirmed by the file that does not state it."""
    case = Case("locuslab_convmixer_gelu")
    bare, out = case.folder / "weights.pth", tmp_path / "x.safetensors"
    code, _, err = run("official2torch", bare, "-o", out)
    assert code == 2
    assert "act is open: set it (gelu or relu)" in err
    assert run("official2torch", bare, "-o", out, "--set", "act=relu")[0] == 0  # which is wrong
    for words in ((bare, out), (out, bare)):
        code, printed, _ = run("diff", *words)
        assert code == 1
        assert printed == (
            f"assumed: act=relu of {bare}, which does not state it: from {out}\n"
            "the same arrays; equal only if act agrees\n"
        )
        code, printed, _ = run("diff", *words, "--json")
        assumed = [{"field": "act", "value": "relu", "file": str(bare), "from": str(out)}]
        verdict = "the same arrays; equal only if act agrees"
        assert (code, json.loads(printed)) == (
            1, {"same": None, "verdict": verdict, "assumed": assumed, "differences": []}
        )  # fmt: skip
    assert run("diff", bare, out, "--assume")[:1] == (0,)
    code, printed, _ = run("diff", bare, out, "--set", "act=gelu")
    assert code == 1
    assert "act: config (gelu and relu)" in printed and printed.endswith("different\n")
    code, printed, _ = run("diff", bare, out, "--set", "act=relu")
    assert (code, printed.splitlines()[-1]) == (0, "the same model")
    assert "assumed: act=relu" in printed and "from --set" in printed
    other = case.folder / "checkpoint.pth.tar"
    assert "act is open" in run("diff", bare, other)[2]  # on both sides
    code, printed, _ = run("diff", bare, other, "--set", "act=gelu")
    assert (code, printed.splitlines()[-1]) == (0, "the same model")
    assert run("diff", bare, bare, "--set", "depth=1")[0] == 2
    smaller = tmp_path / "smaller.safetensors"
    write_numbers(smaller, "convmixer", specs.get("convmixer").tiny["even"], "official")
    assert run("diff", out, smaller)[0] == run("diff", smaller, out)[0] == 1  # sizes are each file's own


def test_diff_refuses_a_setting_that_both_files_contradict(run):
    code, printed, err = run("diff", GOOGLE, GOOGLE, "--set", "gelu=erf")
    assert (code, printed) == (2, "")
    assert "gelu='erf' was asked for, and the file says gelu='tanh'" in err


def write_shapes(path, config):
    from convert.files import writer_for
    from convert.files.base import Tensor
    from convert.kinds import PORTS, place
    from specs.layer import parameters
    from specs.mlp_mixer import layers

    views = [place(p, PORTS["torch"], config, port=True) for p in parameters(list(layers(config)))]
    tensors = [Tensor(v.names[()], v.shape, "float16") for v in views if v is not None]
    with open(path, "w+b", buffering=0) as file:
        writer = writer_for(path)(file, tensors, {})
        for tensor in tensors:
            writer.write(tensor, [bytes(tensor.nbytes)])
        writer.finish()


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
    assert difference["error"] == pytest.approx(0.5 / np.abs(load_file(tmp_path / "a.safetensors")["norm.bias"]).max())
    assert run("verify", tmp_path / "b.safetensors")[0] == 1
    code, printed, _ = run("diff", GOOGLE, TIMM)
    assert code == 1
    assert "gelu: config (tanh and erf)" in printed


def metadata(path):
    from convert.files import open_checkpoint

    with open_checkpoint(path) as reader:
        return reader.metadata


def test_a_file_of_the_users_own_is_kept(run, tmp_path):
    """Where a record would lie, also the configuration that was read."""
    own = tmp_path / "m.msgpack.json"
    own.write_text('{"gelu": "tanh"}')
    code, _, err = run("google2flax", GOOGLE, "-o", tmp_path / "m.msgpack", "--config", own)
    assert code == 1
    assert "m.msgpack.json: exists: --force replaces it" in err
    assert (own.read_text(), listing(tmp_path)) == ('{"gelu": "tanh"}', ["m.msgpack.json"])


def test_a_target_is_named_plainly(run, tmp_path):
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "nowhere" / ".." / "x.pt", "--json")
    assert (code, json.loads(printed)["out"]) == (0, str(tmp_path / "x.pt"))
    assert listing(tmp_path) == ["x.pt", "x.pt.json"]


def test_dry_run_writes_nothing(run, tmp_path):
    code, printed, _ = run("google2timm", GOOGLE, "-o", tmp_path / "x.pth", "--dry-run")
    assert code == 0
    assert (
        "blocks.0.mlp_tokens.fc1.weight <- MixerBlock_0/token_mixing/Dense_0/kernel  [12, 24]  axes 1 0  x3" in printed
    )
    assert listing(tmp_path) == []


def test_conventions_that_a_target_does_not_share_are_told(run, tmp_path):
    _, _, err = run("google2timm", GOOGLE, "-o", tmp_path / "x.pth")
    assert "timm's own code computes gelu=erf; these weights mean gelu=tanh" in err
    _, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")
    assert err == ""


def test_prove(run, tmp_path):
    needs("flax"), needs("torch")
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--prove", "--json")
    proof = json.loads(printed)["proof"]
    assert code == 0
    assert proof["error"] <= 1e-12  # measured 1e-15
    assert proof["taps"] > 25


def test_what_is_proven(run, tmp_path):
    """Between two frameworks, and nothing where the dtype was given up."""
    needs("flax"), needs("torch")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    _, printed, _ = run("torch2timm", tmp_path / "x.safetensors", "-o", tmp_path / "y.pth", "--prove")
    assert "proven: torch and flax in float64 differ by at most" in printed
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "z.pt", "--prove", "--dtype", "float16")
    assert code == 0
    assert "measured, not proven, as the dtype changed: flax and torch in float64 differ by at most" in printed


def test_nothing_is_proven_of_nans(run, tmp_path):
    needs("flax"), needs("torch")
    source = spoiled(tmp_path, lambda arrays: arrays["head/kernel"].__setitem__((0, 0), np.nan))
    code, _, err = run("google2torch", source, "-o", tmp_path / "x.safetensors", "--prove")
    assert code == 1
    assert "not proven: head comes out as NaN or infinity, of which nothing can be proven: convert without" in err
    assert not (tmp_path / "x.safetensors").exists()


def test_headless_and_other_class_counts(run, tmp_path):
    run("google2torch", GOOGLE, "-o", tmp_path / "full.safetensors")
    arrays = {n: a for n, a in load_file(tmp_path / "full.safetensors").items() if not n.startswith("head")}
    save_file(arrays, tmp_path / "headless.safetensors")
    code, printed, _ = run("torch2flax", tmp_path / "headless.safetensors", "--json", "--assume")
    assert code == 0
    assert json.loads(printed)["config"]["classes"] == 0
    arrays["head.weight"], arrays["head.bias"] = np.zeros((3, 20), np.float32), np.zeros(3, np.float32)
    save_file(arrays, tmp_path / "three.safetensors")
    assert (
        json.loads(run("torch2flax", tmp_path / "three.safetensors", "--json", "--assume", "--force")[1])["config"][
            "classes"
        ]
        == 3
    )


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_dtypes(run, tmp_path, dtype):
    out = tmp_path / "x.safetensors"
    assert run("google2torch", GOOGLE, "-o", out, "--dtype", dtype)[0] == 0
    assert {t["dtype"] for t in json.loads(run("inspect", out, "--json")[1])["tensors"].values()} == {dtype}
    unit = {"float64": 0, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]  # half a unit in the last place
    code, printed, _ = run("diff", GOOGLE, out, "--rtol", unit)
    assert code == 0, printed


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
    assert run("diff", a, a)[0] == run("diff", a, b, "--rtol", "1e-5")[0] == 0
    (entry,) = json.loads(run("diff", a, b, "--json")[1])["differences"]
    assert entry["error"] == pytest.approx(1e-6, rel=0.1)  # of 1, the largest number there
    printed = run("diff", a, c, "--json")[1]
    assert "Infinity" not in printed and "NaN" not in printed
    (entry,) = json.loads(printed)["differences"]
    assert (entry["error"], entry["detail"]) == (None, "at [0]: nan and 2")
    assert [run("diff", a, a, "--rtol", rtol)[0] for rtol in ("-1", "nan", "inf")] == [2, 2, 2]


def test_a_plan_without_a_target_is_not_written(tmp_path):
    with convert.plan(GOOGLE) as plan, pytest.raises(UsageError, match="make it with dst="):
        plan.write(tmp_path / "x.safetensors")


def test_folders_and_patterns_take_each_checkpoint_once(run, tmp_path):
    """Whatever the case of its suffix, torch's old .pth.tar too; shards through their index."""
    (tmp_path / "in").mkdir()
    shutil.copy(GOOGLE, tmp_path / "in" / "UPPER.NPZ")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "in" / "s.SAFETENSORS", "--shard-size", "9kB")[0] == 0
    assert "s-00001-of-00004.SAFETENSORS" in listing(tmp_path / "in")
    shutil.rmtree(tmp_path / "in"), (tmp_path / "in").mkdir()
    shutil.copy(GOOGLE, tmp_path / "in" / "UPPER.NPZ")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "in" / "s.safetensors", "--shard-size", "9kB")[0] == 0
    for number, source in enumerate((tmp_path / "in", tmp_path / "in" / "*")):
        out = tmp_path / f"out{number}"
        out.mkdir()
        printed = run("torch2flax", source, "-o", out)[1]
        assert "1 of 2 converted" in printed  # the other is Google's
    (tmp_path / "tar").mkdir()
    shutil.copy(Case("locuslab_convmixer_gelu").folder / "checkpoint.pth.tar", tmp_path / "tar")
    assert run("official2torch", tmp_path / "tar", "-o", tmp_path / "x.pt", "--set", "act=gelu")[0] == 0


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_what_torch_says_it_is(dtype):
    needs("torch")
    import torch

    from convert.casting import NARROW

    every = torch.arange(256, dtype=torch.uint8)
    ours = NARROW[dtype](every.numpy().tobytes())
    theirs = every.view(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert count_not_finite(every.numpy().tobytes(), dtype) == np.sum(~np.isfinite(theirs)) > 0


def test_float8_weights_travel_as_bits_and_are_proven_as_numbers(run, tmp_path):
    needs("torch"), needs("flax")
    config = next(iter(specs.get("mlp_mixer").tiny.values()))
    write_numbers(tmp_path / "a.safetensors", "mlp_mixer", config, "torch")
    with open_checkpoint(tmp_path / "a.safetensors") as reader:
        tensors = [Tensor(t.name, t.shape, "float8_e4m3fn") for t in reader.tensors.values()]
    rng = np.random.default_rng(0)
    store(tmp_path / "b.safetensors", [(t, [rng.integers(0, 60, t.nbytes, np.uint8).tobytes()]) for t in tensors])
    words = "-o", tmp_path / "c.safetensors", "--prove", "--assume"
    code, printed, _ = run("torch2flax", tmp_path / "b.safetensors", *words)
    assert (code, "proven" in printed) == (0, True)
    wide = tmp_path / "d.safetensors"
    assert run("torch2torch", tmp_path / "b.safetensors", "-o", wide, "--dtype", "float32", "--assume")[0] == 0
    code, printed, _ = run("diff", tmp_path / "c.safetensors", wide, "--assume")
    assert (code, printed.splitlines()[-1].partition(";")[0]) == (0, "the same arrays")
    assert load_file(wide)["norm.bias"].dtype == "float32"
    assert ports.load(str(tmp_path / "b.safetensors"), framework="torch", assume=True).dtype == "float32"


def test_bfloat16_rounds_as_torch_does():
    needs("torch")
    import torch

    from convert.casting import to_bfloat16

    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([values, np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1.00390625, 1.01171875])])
    theirs = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    ours = to_bfloat16(values)
    nan = np.isnan(values)
    assert np.array_equal(ours[~nan], theirs[~nan])
    assert ((ours[nan] & 0x7FFF) > 0x7F80).all()
    double = np.float64(1 + 2**-8) + np.array([-(2.0**-40), 0, 2.0**-40])  # a tie and its neighbours below float32
    assert to_bfloat16(double).tolist() == [0x3F80, 0x3F80, 0x3F81]


def test_values_too_large_for_a_dtype_are_refused(run, tmp_path):
    run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")
    arrays = load_file(tmp_path / "x.safetensors")
    arrays["norm.bias"][0] = 1e30
    save_file(arrays, tmp_path / "x.safetensors", metadata=metadata(tmp_path / "x.safetensors"))
    words = "torch2flax", tmp_path / "x.safetensors", "-o", tmp_path / "y.msgpack", "--dtype", "float16"
    code, _, err = run(*words)
    assert code == 1
    assert "params/norm/bias holds 1e+30, too large for float16 (1 of 20 values)" in err
    assert listing(tmp_path) == ["x.safetensors"]
    code, printed, err = run(*words, "--lossy", "--json")
    about = json.loads(printed)
    assert (code, about["lossy"], about["not_finite"]) == (0, {"params/norm/bias": {"infinities": 1}}, {})
    assert "note: 1 values became infinite in float16: params/norm/bias" in err


SMALL = {"float16": 1e-9, "float32": 1e-50, "bfloat16": 1e-50}  # zero in each


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt"])
def test_values_lost_to_zero_are_counted_and_refused_where_they_are_many(dtype, suffix, run, tmp_path):
    """From 1 in 20 of a tensor on; fewer are accepted and reported, more with --lossy; the record says so for good."""
    if (suffix, dtype) == ("npz", "bfloat16"):
        suffix = "msgpack"  # numpy has no bfloat16
    arrays = {name: array.astype(np.float64) for name, array in np.load(GOOGLE).items()}
    arrays["stem/kernel"][0, 0, 0, 0] = SMALL[dtype]
    np.savez(tmp_path / "few.npz", **arrays)
    arrays["stem/kernel"][:] = SMALL[dtype]
    np.savez(tmp_path / "all.npz", **arrays)
    out = tmp_path / f"x.{suffix}"
    code, printed, err = run("google2torch", tmp_path / "few.npz", "-o", out, "--dtype", dtype, "--json")
    assert (code, json.loads(printed)["lossy"]) == (0, {"stem.weight": {"zeros": 1}})
    assert f"note: 1 values became zero in {dtype}: stem.weight\n" in err
    words = "google2torch", tmp_path / "all.npz", "-o", out, "--dtype", dtype, "--force"
    code, printed, err = run(*words)
    total = arrays["stem/kernel"].size
    assert (code, printed) == (1, "")
    assert f"stem.weight loses {total:,} of its {total:,} values that are not zero: they are zero in {dtype}" in err
    assert "keep the source's dtype, or accept it with --lossy" in err
    code, printed, _ = run(*words, "--lossy", "--json")
    assert (code, json.loads(printed)["lossy"]) == (0, {"stem.weight": {"zeros": total}})
    lost = f"a conversion to {dtype} lost values in 1 tensors: {total:,} became zero, 0 infinite"
    assert lost in run("torch2flax", out, "-o", tmp_path / "y.msgpack")[2]
    assert lost in run("flax2torch", tmp_path / "y.msgpack", "-o", tmp_path / "z.pt")[2]  # also of what came from it
    assert lost in run("inspect", tmp_path / "z.pt")[1]


def test_nothing_is_proven_of_values_that_were_lost(run, tmp_path):
    """Paddle spells bfloat16 as uint16: to float16 is a change of dtype all the same."""
    needs("paddle"), needs("flax")
    from convert.casting import to_bfloat16

    write_numbers(tmp_path / "a.safetensors", "mlp_mixer", next(iter(specs.get("mlp_mixer").tiny.values())), "paddle")
    arrays = {n: to_bfloat16(a * np.float32(1e-12)) for n, a in load_file(tmp_path / "a.safetensors").items()}
    save_file(arrays, tmp_path / "b.safetensors")
    words = "paddle2torch", tmp_path / "b.safetensors", "-o", tmp_path / "c.pt", "--assume", "--prove"
    code, printed, err = run(*words, "--dtype", "float16")
    assert (code, printed) == (1, "")
    assert "values that are not zero: they are zero in float16" in err
    code, printed, _ = run(*words, "--dtype", "float16", "--lossy")
    assert code == 0
    assert "\nmeasured, not proven, as the dtype changed, and values were lost: paddle and torch" in printed
    code, printed, _ = run(*words, "--dtype", "float32", "--force")  # which holds every bfloat16
    assert (code, "\nproven: paddle and torch" in printed) == (0, True)


def test_a_wider_dtype_loses_nothing():
    """Every value of each narrow dtype is one of the wider dtypes, subnormal ones and infinities too."""
    from convert.casting import NARROW, WIDER, from_bfloat16, is_exact, to_bfloat16

    every = {name: widen(np.arange(2**16 if name == "bfloat16" else 256, dtype="u2" if name == "bfloat16" else "u1"))
             for name, widen in NARROW.items()}  # fmt: skip
    every["float16"] = np.arange(2**16, dtype="u2").view("f2")
    for held, values in every.items():
        for dtype in ("float16", "bfloat16", "float32", "float64"):
            with np.errstate(over="ignore", invalid="ignore"):
                cast = from_bfloat16(to_bfloat16(values)) if dtype == "bfloat16" else values.astype(dtype)
                same = np.array_equal(cast.astype("f8"), values.astype("f8"), equal_nan=True)
            assert same == is_exact(held, dtype)
    assert is_exact("float32", "float64") and not is_exact("float64", "float32") and "float64" not in WIDER


def spoiled(tmp_path, change):
    """The Google checkpoint with its arrays changed, as .npz."""
    arrays = dict(np.load(GOOGLE))
    change(arrays)
    np.savez(tmp_path / "spoiled.npz", **arrays)
    return tmp_path / "spoiled.npz"


def test_all_problems_at_once_with_the_nearest_names(run, tmp_path):
    def change(arrays):
        arrays["MixerBlock_1/LayerNorm_0/skale"] = arrays.pop("MixerBlock_1/LayerNorm_0/scale")
        arrays["head/bias"] = arrays["head/bias"][:3]
        for block in range(3):
            del arrays[f"MixerBlock_{block}/channel_mixing/Dense_1/bias"]

    code, _, err = run("google2torch", spoiled(tmp_path, change), "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert "missing MixerBlock_1/LayerNorm_0/scale (nearest unused: MixerBlock_1/LayerNorm_0/skale)" in err
    assert "unexpected MixerBlock_1/LayerNorm_0/skale" in err
    assert "missing MixerBlock_{0..2}/channel_mixing/Dense_1/bias" in err
    assert "head/bias has shape [3], expected [7]" in err
    assert listing(tmp_path) == ["spoiled.npz"]


def test_misfits_of_like_blocks_are_one_line(run, tmp_path):
    def change(arrays):
        for block in range(3):
            name = f"MixerBlock_{block}/channel_mixing/Dense_0/bias"
            arrays[name] = arrays[name][:5]

    code, _, err = run("google2torch", spoiled(tmp_path, change), "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert err.count("has shape") == 1
    assert "MixerBlock_{0..2}/channel_mixing/Dense_0/bias has shape [5], expected [" in err


CHANNEL = ["--set", "channels=1"]


def test_sizes_that_were_assumed_are_told_where_shapes_do_not_fit(run, tmp_path):
    """Of one channel: a RaftMLP's shapes hold products alone. Its image changes no array of a ConvMixer."""
    config = replace(specs.get("raft_mlp").tiny["M"], channels=1)
    write_numbers(tmp_path / "raft.pt", "raft_mlp", config, "official")
    told = {k: v for k, v in as_dict(config).items() if k in ("patches", "rafts", "kernels", "image")}
    words = [word for k, v in told.items() for word in ("--set", f"{k}={json.dumps(v)}")]
    code, _, err = run("official2torch", tmp_path / "raft.pt", "-o", tmp_path / "x.safetensors", *words)
    assert code == 1
    assert "  - assumed: channels=3: --set channels=... if it is another" in err
    wrong = [word if word != f"image={json.dumps(told['image'])}" else "image=64" for word in words]
    code, _, err = run("official2torch", tmp_path / "raft.pt", "-o", tmp_path / "x.safetensors", *wrong, *CHANNEL)
    assert code == 1
    assert "assumed:" not in err  # all of it depends on the image
    words += CHANNEL
    assert run("official2torch", tmp_path / "raft.pt", "-o", tmp_path / "x.safetensors", *words)[0] == 0
    write_numbers(tmp_path / "a.safetensors", "convmixer", specs.get("convmixer").tiny["headless"], "torch")
    arrays = load_file(tmp_path / "a.safetensors")
    save_file({**arrays, "norm.bias": arrays["norm.bias"][:-1]}, tmp_path / "b.safetensors")
    code, _, err = run("torch2flax", tmp_path / "b.safetensors", "-o", tmp_path / "x.msgpack", "--set", "act=gelu")
    assert code == 1
    assert "norm.bias has shape" in err
    assert "assumed:" not in err


@pytest.mark.parametrize(("name", "dtype", "message"), [
    ("blocks.0.toformer_bridge.heads_q_proj.1.weight", "float64", "has dtype float64, and float32 is"),
    ("blocks.0.toformer_bridge.heads_q_proj.1.weight", "float16", "has dtype float16, and float32 is"),
    ("stem.conv.weight", "int32", "has dtype int32: weights are floating-point"),
])  # fmt: skip
def test_weights_that_are_no_numbers_of_one_kind(name, dtype, message, run, tmp_path):
    """Joined as they are, or taken for numbers that they are not, they would be other weights without a word."""
    config = next(iter(specs.get("mobile_former").tiny.values()))
    write_numbers(tmp_path / "a.safetensors", "mobile_former", config, "paddlevit")
    arrays = load_file(tmp_path / "a.safetensors")
    save_file({**arrays, name: arrays[name].astype(dtype)}, tmp_path / "b.safetensors")
    (tmp_path / "c.json").write_text(json.dumps(as_dict(config)))
    words = "-o", tmp_path / "x.safetensors", "--config", tmp_path / "c.json"
    assert run("paddlevit2torch", tmp_path / "a.safetensors", *words)[0] == 0
    code, _, err = run("paddlevit2torch", tmp_path / "b.safetensors", *words, "--force")
    assert code == 1
    assert f"{name} {message}" in err


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


def test_timm_names_in_paddles_layout(run, tmp_path):
    """PASSL's backbone saved alone: its format tells, and where none does, its shapes; a wrong source is told."""
    spec = specs.get("mlp_mixer")
    for suffix in ("pdparams", "safetensors"):
        path = tmp_path / f"a.{suffix}"
        write_numbers(path, "mlp_mixer", next(iter(spec.tiny.values())), "passl_backbone")
        assert json.loads(run("inspect", path, "--json")[1])["dialect"] == "passl_backbone"
        code, _, err = run("timm2torch", path, "-o", tmp_path / "x.safetensors")
        assert code == 1
        assert "every array fits as passl_backbone: passl_backbone2..." in err
    write_numbers(tmp_path / "square.pdparams", "mlp_mixer", spec.config(**SQUARE["mlp_mixer"]), "passl_backbone")
    assert "reads alike as passl_backbone, timm: say which" in run("inspect", tmp_path / "square.pdparams")[1]


def test_counts_that_were_cast_with_the_rest(run, tmp_path):
    """To bfloat16, as scripts do: they stay what they are, and no record holds a number that they do not."""
    config = next(iter(specs.get("convmixer").tiny.values()))
    write_numbers(tmp_path / "a.safetensors", "convmixer", config, "torch")
    arrays = {n: a.astype("float16") for n, a in load_file(tmp_path / "a.safetensors").items()}
    save_file(arrays, tmp_path / "b.safetensors")
    words = "--set", f"act={config.act}", "--assume", "-o"
    assert run("torch2torch", tmp_path / "b.safetensors", *words, tmp_path / "c.safetensors")[0] == 0
    assert load_file(tmp_path / "c.safetensors")["norm.num_batches_tracked"].dtype == "float16"
    assert run("torch2flax", tmp_path / "b.safetensors", *words, tmp_path / "d.msgpack")[0] == 0
    carried = json.loads((tmp_path / "d.msgpack.json").read_text())["carried"]
    assert carried == {
        name.replace("num_batches_tracked", "count"): int(array)
        for name, array in arrays.items()
        if name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(("value", "dtype", "carried", "remark"), [
    (1234, "float16", 1234, ""), (7, "uint8", 7, ""), (2**24 - 1, "float32", 2**24 - 1, ""),
    (4096, "float16", 4096, "is float16, which rounds so large a count: 4,096 is carried"),
    (2.5, "float32", None, "is 2.5 in float32: no count, so it is left out"),
    (np.inf, "float16", None, "is inf in float16: no count"), (-3, "int64", None, "is -3 in int64: no count"),
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


def test_mixed_dtypes_compute_in_the_widest(run, tmp_path):
    needs("torch")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "a.safetensors")[0] == 0
    arrays = load_file(tmp_path / "a.safetensors")
    arrays["norm.bias"] = arrays["norm.bias"].astype(np.float64)
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="holds arrays of float32, float64: computed in float64"):
        assert ports.load(str(tmp_path / "a.safetensors"), "torch", gelu="tanh", norm_eps=1e-6, assume=True).dtype == (
            "float64"
        )
    assert [ports.widest(set(held)) for held in (
        ["float16"], ["bfloat16", "float16"], ["float8_e5m2"], ["float8_e5m2", "bfloat16"], ["bfloat16"]
    )] == ["float16", "float32", "float32", "float32", "bfloat16"]  # fmt: skip


def test_a_port_says_what_its_dtype_loses(run, tmp_path):
    needs("torch")
    source = spoiled(tmp_path, lambda arrays: arrays["stem/kernel"].fill(1e-9))
    with pytest.warns(UserWarning, match=r"stem.weight has .* values that are not zero, of which .* become zero in fl"):
        ports.load(str(source), "torch", dtype="float16")


@pytest.fixture
def alike(run, tmp_path):
    """A paddle checkpoint in a file that others use for torch, whose names are the same, without its record."""
    run("google2paddle", GOOGLE, "-o", tmp_path / "recorded.safetensors")
    save_file(load_file(tmp_path / "recorded.safetensors"), tmp_path / "bare.safetensors")
    return tmp_path / "bare.safetensors"


def test_shapes_tell_frameworks_apart_whose_names_are_alike(run, alike, tmp_path):
    _, printed, _ = run("inspect", alike, "--json")
    about = json.loads(printed)
    assert (about["dialect"], "gelu is open" in about["open"]) == ("paddle", True)
    code, _, err = run("torch2flax", alike, "-o", tmp_path / "x.msgpack")
    assert code == 1
    assert "head.weight has shape [20, 7]" in err
    assert "every array fits as paddle: paddle2..." in err


def test_a_record_is_not_overruled(run, alike, tmp_path):
    """Square arrays would be transposed wrongly, unseen."""
    code, _, err = run("torch2flax", tmp_path / "recorded.safetensors", "-o", tmp_path / "x.msgpack")
    assert code == 1
    assert "its record says that it holds 'paddle' arrays, not torch ones" in err
    assert not (tmp_path / "x.msgpack").exists()


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt", "pdparams"])
def test_what_reads_alike_is_asked_for(suffix, run, tmp_path):
    """Square arrays without a record fit torch and paddle alike, and no format is a framework's own for certain."""
    square = tmp_path / f"square.{suffix}"
    write_numbers(square, "mlp_mixer", specs.get("mlp_mixer").config(**SQUARE["mlp_mixer"]), "torch")
    _, printed, _ = run("inspect", square)
    assert "reads alike as paddle, torch: say which it is, as in " in printed
    assert run("paddle2torch", square, "-o", tmp_path / "x.safetensors", "--assume")[0] == 0


def test_what_cannot_be_inferred_is_named(run, tmp_path):
    source = spoiled(tmp_path, lambda arrays: arrays.pop("stem/kernel"))
    code, _, err = run("google2torch", source)
    assert code == 1
    assert "missing stem/kernel, from which the configuration would follow" in err
    about = json.loads(run("inspect", source, "--json")[1])
    assert (about["dialect"], about["architecture"]) == (None, None)
    assert (about["nearest"]["dialect"], about["nearest"]["architecture"]) == ("google", "mlp_mixer")
    assert any("missing stem/kernel" in reason for reason in about["nearest"]["reasons"])


def test_everything_that_is_missing_is_told_at_once(run, tmp_path):
    """Also where it is of the block that the configuration is read off: another stands in for it."""
    gone = ["MixerBlock_0/token_mixing/Dense_0/kernel", "MixerBlock_0/LayerNorm_0/scale", "head/bias"]

    def change(arrays):
        for name in gone:
            arrays.pop(name)
        arrays["MixerBlock_2/LayerNorm_1/bias"] = np.zeros(13, np.float32)
        arrays["head/more"] = np.zeros(13, np.float32)

    code, _, err = run("google2torch", spoiled(tmp_path, change))
    assert code == 1
    assert all(f"missing {name}" in err for name in gone)
    assert "MixerBlock_2/LayerNorm_1/bias has shape [13], expected [20]" in err
    assert "unexpected head/more" in err


def test_a_route_is_suggested_only_if_it_works(run, tmp_path):
    """All four names of this file are known in convmixer's dialect official, whose network it does not hold."""
    names = {"0.weight": [4, 3], "0.bias": [4], "2.weight": [2, 4], "2.bias": [2]}
    save_file({name: np.ones(shape, "f4") for name, shape in names.items()}, tmp_path / "x.safetensors")
    code, _, err = run("timm2torch", tmp_path / "x.safetensors")
    assert code == 1 and "4 of 4 are known in official (convmixer)" in err and "official2" not in err


@pytest.mark.parametrize(("words", "code", "message"), [
    (["gogle2torch", GOOGLE], 2, "did you mean 'google'"),
    (["google2tensorflow", GOOGLE], 2, "unknown name 'tensorflow'"),
    (["inspekt", GOOGLE], 2, "did you mean 'inspect'"),
    (["google2torch", "nowhere.npz"], 1, "nowhere.npz: there is no such file"),
    (["timm2torch", GOOGLE], 1, "every array fits as google: google2..."),
    (["google2torch", GOOGLE, "--set", "depth=4"], 2, "depth=4 was asked for, the file holds depth=3"),
    (["google2torch", GOOGLE, "--set", "dept=3"], 2, "did you mean 'depth'"),
    (["google2torch", GOOGLE, "--set", "gelu=relu"], 2, "gelu is erf or tanh"),
    (["google2torch", GOOGLE, "--set", "gelu"], 2, "write KEY=VALUE"),
    (["google2torch", GOOGLE, "--dtype", "int8"], 2, "no dtype 'int8'"),
    (["google2torch", GOOGLE, "-o", "{}/x.bin5"], 2, "no format has the suffix"),
    (["google2torch", GOOGLE, "-o", "{}/x.safetensors.index.json"], 2, ".msgpack .flax .orbax .dcp"),
    (["google2torch", GOOGLE, "-o", "{}/no/where.pth"], 1, "there is no folder"),
    (["google2torch", GOOGLE, "--weights", "ema"], 1, "nothing known lies under 'ema'"),
    (["google2torch"], 2, "required: CKPT"),
    (["inspect", "{}"], 1, "is a folder"),
    (["verify", GOOGLE], 1, "has no record"),
    ([GOOGLE, "google2torch"], 2, "the command comes first, as in google2torch "),
    (["google2torch", GOOGLE, "-o", "nowhere/"], 1, "-o nowhere/: there is no such folder"),
    (["google2torch", GOOGLE, "-o", "nowhere/x.pt"], 1, "nowhere: create it first"),
])  # fmt: skip
def test_clear_errors(run, tmp_path, words, code, message):
    words = [str(word).replace("{}", str(tmp_path)) for word in words]
    if not any(word == "-o" for word in words) and words[0].startswith("google2"):
        words += ["-o", tmp_path / "x.safetensors"]
    told, out, err = run(*words)
    assert (told, out) == (code, "")
    assert message in err
    assert listing(tmp_path) == []


def test_existing_targets_are_kept(run, tmp_path):
    out = tmp_path / "x.safetensors"
    out.write_text("precious")
    code, _, err = run("google2torch", GOOGLE, "-o", out)
    assert (code, out.read_text()) == (1, "precious")
    assert "--force" in err
    assert run("google2torch", GOOGLE, "-o", out, "--force")[0] == 0
    source = shutil.copy(GOOGLE, tmp_path / "s.npz")
    before = Path(source).read_bytes()
    (tmp_path / "link.npz").symlink_to(source)
    for same in (source, tmp_path / "link.npz"):
        code, _, err = run("google2flax", source, "-o", same, "--force")
        assert code == 2
        assert "is the source itself" in err
    assert Path(source).read_bytes() == before


def test_truncated_and_foreign_files(run, tmp_path):
    data = GOOGLE.read_bytes()
    for name, content in {"cut.npz": data[: len(data) // 2], "empty.npz": b"", "page.npz": b"<!DOCTYPE html><html>",
                          "pointer.npz": b"version https://git-lfs.github.com/spec/v1\n"}.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
        code, _, err = run("google2torch", tmp_path / name)
        assert code == 1
        assert name in err
    assert len(listing(tmp_path)) == 4


def test_several_sources_and_folders(run, tmp_path):
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    for name in ("a.npz", "b.npz"):
        shutil.copy(GOOGLE, tmp_path / "in" / name)
    (tmp_path / "in" / "broken.npz").write_bytes(b"PK\x03\x04")
    code, printed, err = run("google2torch", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1
    assert "2 of 3 converted" in printed
    assert "broken.npz" in err
    assert listing(tmp_path / "out") == ["a.safetensors", "b.safetensors"]


def test_what_a_folder_holds_beside_checkpoints_is_named(run, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True), (tmp_path / "out").mkdir()
    for name in ("a.npz", "b.npz", ".hidden.npz", "c.bin5"):
        shutil.copy(GOOGLE, tmp_path / "in" / name)
    (tmp_path / "in" / "broken.npz").symlink_to("nowhere")
    code, printed, err = run("google2torch", tmp_path / "in", "-o", tmp_path / "out")
    assert (code, "2 of 2 converted" in printed) == (0, True)
    for name, reason in (
        (".hidden.npz", "hidden"), ("broken.npz", "a broken link"), ("c.bin5", "no suffix of a checkpoint"),
        ("sub", "a folder that is no checkpoint"),
    ):  # fmt: skip
        assert f"note: passed over, {reason}: {tmp_path / 'in' / name}\n" in err
    results = json.loads(run("google2torch", tmp_path / "in", "-o", tmp_path / "out", "--force", "--json")[1])
    assert [entry["passed_over"] for entry in results if "passed_over" in entry] == [
        "hidden", "a broken link", "no suffix of a checkpoint", "a folder that is no checkpoint"
    ]  # fmt: skip
    assert run("google2flax", tmp_path / "in", "-o", tmp_path / "in")[0] == 0
    assert "a.msgpack.json" not in run("flax2torch", tmp_path / "in", "-o", tmp_path / "out", "--force")[2]


@pytest.mark.parametrize("pattern", ["in", "in/*", "in/*.safetensors"])
def test_shards_without_their_index_are_not_skipped(pattern, run, tmp_path):
    """As after a download that broke off: each is refused by name, and what to get."""
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    for name in ("m", "n"):
        out = tmp_path / "in" / f"{name}.safetensors"
        assert run("google2torch", GOOGLE, "-o", out, *(["--shard-size", "9kB"] if name == "m" else []))[0] == 0
    if pattern != "in/*.safetensors":
        code, printed, _ = run("torch2flax", tmp_path / pattern, "-o", tmp_path / "out")
        assert (code, "2 of 2 converted" in printed) == (0, True)
    shards = sorted((tmp_path / "in").glob("m-*"))
    (tmp_path / "in" / "m.safetensors.index.json").unlink()
    code, printed, err = run("torch2flax", tmp_path / pattern, "-o", tmp_path / "out", "--force")
    assert (code, f"1 of {1 + len(shards)} converted" in printed) == (1, True)
    for number, path in enumerate(shards):
        assert str(path) in err
        assert f"it is shard {number + 1} of {len(shards)}, which are read through m.safetensors.index.json" in err
    assert "which is not beside it: download it too" in err


def test_a_shard_that_its_index_does_not_list(run, tmp_path):
    """It is not sent to the index, which does not read it."""
    assert run("google2torch", GOOGLE, "-o", tmp_path / "m.safetensors", "--shard-size", "9kB")[0] == 0
    stray = tmp_path / "m-00009-of-00009.safetensors"
    save_file({"head2.weight": np.ones(3, "f4")}, stray)
    code, _, err = run("torch2flax", stray)
    assert code == 1 and "m.safetensors.index.json, which does not list it: take the index and all" in err


def test_sources_by_a_pattern(run, tmp_path):
    """As a program or a quoting user gives them: no shell has expanded them."""
    for name in ("a.npz", "b.npz", "c[1].npz"):
        shutil.copy(GOOGLE, tmp_path / name)
    (tmp_path / "out").mkdir()
    code, printed, _ = run("google2torch", tmp_path / "[ab].n*", "-o", tmp_path / "out")
    assert code == 0
    assert "2 of 2 converted" in printed
    assert run("google2torch", tmp_path / "c[1].npz", "-o", tmp_path / "out")[0] == 0  # a file of that very name
    assert listing(tmp_path / "out") == ["a.safetensors", "b.safetensors", "c[1].safetensors"]
    code, _, err = run("google2torch", tmp_path / "*.msgpack", "-o", tmp_path / "out")
    assert code == 1
    assert "no file has such a name" in err


def test_two_sources_of_one_call_do_not_share_a_target(run, tmp_path):
    (tmp_path / "more").mkdir(), (tmp_path / "out").mkdir()
    for name in ("a.npz", "more/a.npz"):
        shutil.copy(GOOGLE, tmp_path / name)
    sources = tmp_path / "a.npz", tmp_path / "more" / "a.npz"
    code, printed, err = run("google2torch", *sources, "-o", tmp_path / "out", "--force")
    assert code == 1
    assert "1 of 2 converted" in printed
    assert f"was made of {sources[0]} a moment ago" in err


@pytest.mark.parametrize(("source", "expected"), [
    ("m.npz", "m"), ("m.pth.tar", "m"), ("m.tar", "m"), ("m.safetensors.index.json", "m"), ("m.v1.2", "m.v1.2"),
    ("m.orbax/", "m"), ("epoch_1", "epoch_1"), ("M.NPZ", "M"),
])  # fmt: skip
def test_a_target_is_named_after_its_source(source, expected):
    assert target(f"somewhere/{source}", ".msgpack", None) == f"somewhere/{expected}.msgpack"


def test_config_files(run, tmp_path):
    (tmp_path / "c.yaml").write_text("gelu: erf\ntokens: [6, 4]\n")
    (tmp_path / "c.json").write_text('{"gelu": "erf", "depht": 3}')
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "x.pt", "--config", tmp_path / "c.yaml", "--json")
    assert code == 0
    assert json.loads(printed)["config"]["gelu"] == "erf"
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "y.pt", "--config", tmp_path / "c.json")
    assert code == 2
    assert "did you mean 'depth'" in err


def nested(path, places, prefix=""):
    """A torch file with the golden's names, all zeros, at each of these places."""
    import torch

    weights = {f"{prefix}{name}": torch.zeros(shape) for name, shape in shapes_of(TIMM).items()}
    tree = {"epoch": 3, "n_averaged": torch.tensor(1)}
    for place in places:
        *outer, last = ["top", *place.split("/")] if place else ["top"]
        node = {"top": tree}
        for key in outer:
            node = node.setdefault(key, {})
        node.update({last: dict(weights)}) if place else node["top"].update(weights)
    torch.save(tree, path)


@pytest.mark.parametrize("place", ["", "weights", "model_state", "student", "state/params", "a/b/c"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "module._orig_mod.", "_orig_mod.module.", "net.", "module.model.net."]
)
def test_a_model_is_found_wherever_it_lies(place, prefix, run, tmp_path):
    needs("torch")
    nested(tmp_path / "a.pth", [place], prefix)
    code, _, err = run("timm2torch", tmp_path / "a.pth", "-o", tmp_path / "x.safetensors")
    assert code == 0, err
    told = "/".join(filter(None, [place, prefix]))
    assert (f"took the weights under {told!r}" in err) == bool(told)


def test_what_an_optimizer_keeps_is_no_model(run, tmp_path):
    """Momentum has the model's names; and a model with a stray array is told so, not passed over for another."""
    needs("torch")
    nested(tmp_path / "a.pth", ["opt_state/trace"])
    code, _, err = run("timm2torch", tmp_path / "a.pth", "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert "a torch file, but its names are not those of dialect timm" in err
    import torch

    nested(tmp_path / "b.pth", ["state_dict", "student"])
    tree = torch.load(tmp_path / "b.pth")
    tree["state_dict"]["stray.weight"] = torch.zeros(3)
    torch.save(tree, tmp_path / "b.pth")
    code, _, err = run("timm2torch", tmp_path / "b.pth", "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert "unexpected stray.weight" in err


def test_of_two_models_in_strange_places_none_is_guessed(run, tmp_path):
    needs("torch")
    nested(tmp_path / "a.pth", ["student", "teacher", "more/params"])
    words = "timm2torch", tmp_path / "a.pth", "-o", tmp_path / "x.safetensors"
    code, _, err = run(*words)
    assert code == 2
    assert "a model under each of 'student', 'teacher', 'more/params': say which, as in --weights student" in err
    assert "a model under each of" in run("inspect", tmp_path / "a.pth")[1]
    for place, found in (("teacher", "teacher"), ("more", "more/params")):
        code, _, err = run(*words, "--weights", place, "--force")
        assert code == 0, err
        assert f"took the weights under {found!r}" in err
    assert "nothing known lies under 'pupil' (it holds more, student, teacher)" in run(*words, "--weights", "pupil")[2]


def test_training_checkpoints(run, tmp_path):
    needs("torch")
    import torch

    weights = {f"module.{name}": torch.zeros(shape) for name, shape in shapes_of(TIMM).items()}
    ema = {name: torch.ones(shape) for name, shape in shapes_of(TIMM).items()}
    torch.save({"epoch": 3, "state_dict": weights, "state_dict_ema": ema}, tmp_path / "train.pth")
    code, _, err = run("timm2torch", tmp_path / "train.pth", "-o", tmp_path / "a.safetensors")
    assert code == 0
    assert "took the weights under 'state_dict/module.'" in err
    assert "state_dict_ema" in err
    assert not load_file(tmp_path / "a.safetensors")["norm.weight"].any()
    run("timm2torch", tmp_path / "train.pth", "-o", tmp_path / "b.safetensors", "--weights", "state_dict_ema")
    assert load_file(tmp_path / "b.safetensors")["norm.weight"].all()


def shapes_of(path):
    from convert.files import open_checkpoint

    with open_checkpoint(path) as reader:
        return {t.name: t.shape for t in reader.tensors.values()}


def python(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


LOADED = "import sys; print([m for m in ('jax', 'flax', 'torch', 'paddle', 'numpy') if m in sys.modules])"


@pytest.mark.parametrize(("code", "loaded"), [
    ("import specs; [specs.get(n) for n in specs.names()]; ", []),
    ("import ports; ", []),
    ("from convert.__main__ import main; main(['inspect', r'{google}', '--json']); ", []),
    ("from convert.__main__ import main; main(['routes']); ", []),
    ("from convert.__main__ import main; main(['google2flax', r'{google}', '-o', r'{out}/x.msgpack']); ", ["numpy"]),
    ("from convert.__main__ import main; main(['timm2torch', r'{timm}', '-o', r'{out}/x.pt']); ", ["numpy"]),
    ("from convert.__main__ import main; main(['passl2paddle', r'{passl}', '-o', r'{out}/x.pdparams']); ", ["numpy"]),
])  # fmt: skip
def test_no_framework_is_imported_that_the_task_does_not_need(code, loaded, tmp_path):
    code = code.format(google=GOOGLE, timm=TIMM, passl=Case("passl_mixer").folder / "weights.pdparams", out=tmp_path)
    done = python("-c", code + LOADED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(loaded)


@pytest.mark.parametrize(("architecture", "dialect"), [(a, d) for a in specs.names() for d in dialects(a)])
def test_an_architecture_is_told_at_a_glance(architecture, dialect):
    """So that no other's spec is imported; nothing else depends on it."""
    assert specs.likely(name.replace("#", "3") for name in spellings(architecture, dialect)) == architecture


def test_only_one_spec_is_imported_and_which_does_not_matter(monkeypatch, run):
    told = "import sys; print([m for m in sys.modules if m in {'specs.' + n for n in __import__('specs').names()}])"
    code = f"from convert.__main__ import main; main(['inspect', r'{GOOGLE}', '--json']); {told}"
    *printed, loaded = python("-c", code).stdout.splitlines()
    assert loaded == "['specs.mlp_mixer']"
    for guess in ("raft_mlp", None):
        monkeypatch.setattr("specs.likely", lambda _, guess=guess: guess)
        assert run("inspect", GOOGLE, "--json")[1].splitlines() == printed


@pytest.mark.parametrize("words", [
    ["--set", "gelu=tanh", "diff", GOOGLE, GOOGLE], ["--rtol", "1e-3", "diff", GOOGLE, GOOGLE],
    ["--json", "inspect", GOOGLE],
    ["--conf", "nothing.json", "google2torch", GOOGLE, "--dry-run"],
])  # fmt: skip
def test_options_may_come_first(words, run):
    assert run(*words)[0] == (1 if "--conf" in words else 0)  # there is no such configuration


@pytest.mark.parametrize("words", [
    f"convert inspect {GOOGLE}", "convert routes --json", "convert --help", f"convert diff {GOOGLE} {GOOGLE}",
    "ports", "ports --json", "ports --help", "parity --help",
    "parity mlp_mixer:tiny\\ headless --frameworks torch paddle --check forward",
])  # fmt: skip
@pytest.mark.parametrize("output", ["/dev/full", "a closed pipe", "nothing"])
def test_output_that_cannot_be_written(output, words):
    """A full disk is told, a reader that went away is not; neither is a traceback."""
    if words.startswith("parity mlp"):
        needs("torch"), needs("paddle")
    where = {"/dev/full": "> /dev/full", "a closed pipe": "| true", "nothing": ">&-"}[output]
    command = f"(sleep .3; {sys.executable} -W ignore -m {words}; echo $? >&2) {where}"
    for unbuffered in ("", "1") if "tiny" not in words else ("",):
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, env=env, check=False)
        told = f"{words.split()[0]}: [Errno 28] No space left on device\n" if output == "/dev/full" else ""
        assert done.stderr == f"{told}{0 if output == 'nothing' else 1}\n"


@pytest.mark.parametrize("words", [
    ["google2torch", "nowhere.npz"], ["inspect", "nowhere.npz"], ["diff", GOOGLE, "nowhere.npz"], ["inspect"],
    ["diff", GOOGLE], ["verify", GOOGLE], ["google2torch", GOOGLE, "--set", "gelu=relu"], ["gogle2torch", GOOGLE],
    ["timm2torch", GOOGLE], ["torch2flax", Case("locuslab_convmixer_gelu").files[0]],
])  # fmt: skip
def test_an_error_is_one_line_where_json_is_asked_for(words, run, tmp_path):
    code, printed, err = run(*words, "--json", *(["-o", tmp_path / "x.pt"] if "2" in words[0] else []))
    assert code in (1, 2)
    assert (printed, err.count("\n")) == ("", 1)
    assert err.startswith("convert: ")


def test_json_is_strict(run, tmp_path, monkeypatch):
    """A number that is not finite is null: JSON has no word for it."""
    needs("flax"), needs("torch")

    def refuse(text):
        raise AssertionError(text)

    source = spoiled(tmp_path, lambda arrays: arrays["head/kernel"].__setitem__((0, 0), np.nan))
    words = "google2torch", source, "-o", tmp_path / "x.safetensors", "--prove", "--dtype", "float16", "--json"
    code, printed, _ = run(*words)
    about = json.loads(printed, parse_constant=refuse)
    assert (code, about["proof"]["error"], about["proof"]["exact"]) == (0, None, False)
    assert json.loads(dumps({"a": [np.inf, (-np.inf, {"b": np.nan})], "c": 1.5}), parse_constant=refuse) == (
        {"a": [None, [None, {"b": None}]], "c": 1.5}
    )


def test_names_that_the_output_cannot_spell(tmp_path):
    shutil.copy(GOOGLE, tmp_path / "mod\u00e8le.npz")
    words = ["google2torch", str(tmp_path / "mod\u00e8le.npz"), "-o", str(tmp_path / "x.safetensors")]
    command, env = [sys.executable, "-m", "convert", *words], {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mod\\xe8le.npz" in done.stdout


def test_help_imports_next_to_nothing():
    """40 ms of start-up are argparse and little else: what would cost more is not there."""
    heavy = ("numpy", "dataclasses", "json", "zipfile", "specs")
    code = "import sys\nfrom convert.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    done = python("-c", f"{code}print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "google2torch" in done.stdout
    assert python("-m", "convert", "--help").returncode == 0


def test_ports_table():
    table = json.loads(python("-m", "ports", "--json").stdout)
    assert {"architecture": "mlp_mixer", "variant": "B/16", "parameters": 59_880_472} in table
    assert "59,880,472" in python("-m", "ports").stdout


def test_a_missing_framework_is_named_with_its_extra(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ports.available", lambda: [])
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--prove")
    assert code == 2
    assert "pip install 'triptych-ports[flax]'" in err
    assert listing(tmp_path) == []


def test_progress_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    from convert.progress import Progress

    monkeypatch.setattr("convert.progress.EVERY", -1)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        progress = Progress(2_000_000, "x.npz")
        assert list(progress.of([b"0" * 1_000_000] * 2)) == [b"0" * 1_000_000] * 2
        progress.close()
        err = capsys.readouterr().err
        assert ("x.npz: 50% of 2 MB" in err) == terminal
        assert bool(err) == terminal
