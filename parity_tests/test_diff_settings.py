"""Config fields in a comparison of two files: stated, open, assumed and without effect."""

import json
import re

import numpy as np
from safetensors.numpy import load_file, save_file

import specs

from .commands import GOOGLE, TIMM
from .golden import Case
from .test_diff import as_timm
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
    said = "timm's own code computes gelu=erf; these weights mean gelu=tanh, so its outputs will differ"
    assert f"note:         {said}\n" in run("inspect", tmp_path / "x.pth")[1]
    assert f"note: {tmp_path / 'x.pth'}: {said}\n" in run("diff", GOOGLE, tmp_path / "x.pth")[2]
    assert "own code computes gelu" not in run("inspect", GOOGLE)[1] + run("diff", GOOGLE, GOOGLE)[2]


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
        assert assumed == f"assumed of {bare}, which does not state it: act=relu, from {out} (--set act=relu states it)"
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
    code, accepted, _ = run("diff", bare, other, "--assume")
    assert code == 0 and "--assume accepts" in printed and "--assume accepts" not in accepted
    port, copy = (tmp_path / f"{name}.safetensors" for name in ("port", "copy"))  # whose numbers are open as well
    save_file(load_file(out), port), save_file(load_file(out), copy)
    code, printed, _ = run("diff", port, copy)
    assert (code, printed.startswith("the same arrays; equal only if act")) == (1, True)
    code, printed, _ = run("diff", bare, other, "--set", "act=gelu")
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    assert run("diff", bare, bare, "--set", "depth=1")[0] == 2
    smaller = tmp_path / "smaller.safetensors"
    write_numbers(smaller, "convmixer", specs.get("convmixer").tiny["even"], "official")
    assert run("diff", out, smaller)[0] == run("diff", smaller, out)[0] == 1  # sizes are each file's own


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
    assert code == 1 and re.search(
        r"gelu +tanh \(assumed: google's own code\) +erf \(assumed: timm's own code\)", printed
    )
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


def test_diff_names_a_setting_that_differs_without_effect(run, tmp_path):
    """Google pads the stem as "SAME", timm as "VALID": one function of images that patches tile."""
    timm = as_timm(run, tmp_path)
    save_file(load_file(timm), bare := tmp_path / "bare.safetensors")
    code, printed, err = run("diff", GOOGLE, bare, "--set", "gelu=tanh")
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    assert "note: padding=SAME in A, VALID in B: no effect at the model's own image size\n" in err
    assert "padding" not in run("diff", GOOGLE, tmp_path / "ours.safetensors")[2]


def test_diff_names_another_size_of_images(run, tmp_path):
    """A recorded --image and a Config's own: equal arrays do not take each other's images."""
    paths = {size: tmp_path / f"{size}.safetensors" for size in ("24x16", "16x24")}
    for size, path in paths.items():
        assert run("google2torch", GOOGLE, "-o", path, "--image", size)[0] == 0
    code, printed, err = run("diff", *paths.values())
    assert (code, printed.splitlines()[0]) == (0, "the same model")
    assert "image=24x16 in A, 16x24 in B: A does not take those of B (images of 16x24 make 4x6 tokens" in err
    assert "size of images" not in run("diff", GOOGLE, paths["24x16"])[2]
    assert "size of images" not in run("diff", paths["24x16"], paths["24x16"])[2]


def test_settings_that_a_comparison_by_names_does_not_use_are_named(run, tmp_path):
    extra = tmp_path / "extra.npz"
    np.savez(extra, **np.load(GOOGLE), **{"Other_0/x": np.ones(3)})
    code, printed, err = run("diff", extra, extra, "--set", "gelu=tanh")
    assert code == 0 and "compared by names: --set is not used\n" in err, (printed, err)
    assert "compared by names" not in run("diff", extra, extra)[2]


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


def test_a_configuration_of_one_size_serves_two_files_of_another(run, tmp_path):
    """A size that it states is not asked of each file: how the shapes differ is what diff is to say."""
    whole = tmp_path / "whole.safetensors"
    assert run("google2torch", GOOGLE, "-o", whole)[0] == 0
    arrays = load_file(whole)
    save_file(arrays, tmp_path / "a.safetensors")
    save_file({n: a[:5] if n.startswith("head") else a for n, a in arrays.items()}, tmp_path / "five.safetensors")
    save_file({n: a for n, a in arrays.items() if not n.startswith("blocks.2.")}, tmp_path / "two.safetensors")
    a, five, two = (tmp_path / f"{name}.safetensors" for name in ("a", "five", "two"))
    for words in ((), ("--set", "classes=5")):
        for files in ((a, five), (five, a)):
            code, printed, err = run("diff", *files, "--config", whole, *words)
            assert (code, printed.splitlines()[0]) == (1, "different: the shape of 2 arrays"), err
    code, printed, err = run("diff", five, five, "--config", whole)
    assert (code, printed.splitlines()[0]) == (0, "the same model"), err
    code, printed, err = run("diff", a, two, "--config", whole)
    assert (code, printed.splitlines()[0]) == (1, "different: 12 arrays only in A"), err
    code, _, err = run("diff", a, five, "--config", whole, "--set", "classes=9")
    assert code == 2 and "classes=9 was asked for, and its arrays show classes=7" in err, err


def test_a_file_is_the_same_model_as_itself(run, tmp_path):
    """Whatever it leaves open; a copy of it may be of another model."""
    whole, bare, copy = (tmp_path / f"{name}.safetensors" for name in ("whole", "bare", "copy"))
    assert run("google2torch", GOOGLE, "-o", whole)[0] == 0
    for path in (bare, copy):
        save_file(load_file(whole), path)
    assert run("diff", bare, bare)[:2] == (0, run("diff", whole, whole)[1].replace(str(whole), str(bare)))
    assert run("diff", bare, copy)[1].startswith("the same arrays; equal only if gelu and norm_eps agree\n")


def test_a_setting_that_a_record_takes_from_its_dialects_code_is_marked(run, tmp_path):
    assert run("timm2torch", TIMM, "-o", tmp_path / "x.safetensors")[0] == 0
    _, printed, _ = run("diff", GOOGLE, tmp_path / "x.safetensors")
    assert re.search(r"gelu +tanh \(assumed: google's own code\) +erf \(assumed: timm's own code\)\n", printed), printed
