"""The command line: what it prints, how it fails and what it leaves behind."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import convert
import ports
import specs
from convert import installed
from convert.command_line.outcome import Notes
from convert.config.open_fields import _without_default, open_error
from convert.documents import document
from convert.errors import UsageError
from convert.running import dumps
from parity.given.targets import targets
from specs.config import parse

from .commands import GOOGLE, GOOGLE_NOTE, ROOT, listing, python, spoiled
from .conftest import needs
from .golden import Case
from .test_routes import write_numbers


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


def test_one_setting_that_is_asked_for_is_singular():
    error = open_error("m.npz", "mlp_mixer", specs.get("mlp_mixer"), ["patch"], {}, {}, [])
    assert "does not help: patch has no default, and models with the same arrays differ in it" in str(error)


def test_what_is_asked_for_says_how_it_is_written(run, tmp_path):
    """And following it works; what is assumed beside it is told, wherever the file is used."""
    config = specs.get("mobile_former").tiny["plain"]
    write_numbers(tmp_path / "m.pdparams", "mobile_former", config, "paddlevit")
    words = ["paddlevit2torch", tmp_path / "m.pdparams", "-o", tmp_path / "x.safetensors"]
    code, _, err = run(*words)
    assert code == 2
    for asked in (
        "lite_stride is open: set it (int)",
        "dyrelu_coefs is open: set it (as in --set dyrelu_coefs=1.0,0.5)",
    ):
        assert asked in err
    fields = "lite_stride, dyrelu_coefs and dyrelu_consts"  # stem_stride, which is asked for too, has one
    lacking = f"{fields} have no default, and models with the same arrays differ in them"
    assert "with --set lite_stride=... and so on, or" in err and f"--assume does not help: {lacking}" in err
    assert "\n  - what they are, and their usual values: python -m ports mobile_former\n" in err, err
    (tmp_path / "pv.yaml").write_text("FOO: 1\nBAR: 2\nMODEL:\n  TYPE: MobileFormer\n  NUM_CLASSES: 7\n")
    err = run(*words, "--config", tmp_path / "pv.yaml")[2]
    assert err.count(str(tmp_path / "pv.yaml")) == 1, err
    assert f"--config {tmp_path / 'pv.yaml'} states classes=7; its other keys state no field of this model" in err, err
    words += ["--set", "lite_stride=2", "--set", "dyrelu_coefs=1,.5", "--set", "dyrelu_consts=(1.0, 0.0)"]
    code, _, err = run(*words)
    assert (
        code == 2
        and "stem_stride is open, set it (int)" in err
        and "by --assume the default, which is then marked as assumed: stem_stride=2" in err
    )
    code, _, err = run(*words, "--assume")
    counters = (
        "note: 13 batch counters set to 0, as the source stores none: stem.norm.num_batches_tracked and 12 more; "
        "a training that began in torch has its counts so far in its file there; only momentum=None uses them\n"
    )
    fixed = "note: the file does not say, assumed as paddlevit's own code computes: softmax=True\n"
    assert (code, err) == (0, f"note: the file does not say, assumed: stem_stride=2\n{fixed}{counters}")
    written = tmp_path / "x.safetensors"
    marked = "note: assumed when the record was written, not known: stem_stride=2\n"
    earlier = "note: supplied by an earlier conversion, and not read from its source (13): "
    _, _, err = run("torch2paddlevit", written, "-o", tmp_path / "y.pdparams")
    assert err == f"{marked}{earlier}stem.norm.num_batches_tracked and 12 more\n"
    _, _, err = run("torch2paddlevit", written, "-o", tmp_path / "z.pdparams", "--set", "softmax=false")
    assert "paddlevit's own code computes softmax=True; softmax=False is stated of these weights" in err


def test_inspect_lists_each_setting_that_a_conversion_asks_for(run, tmp_path):
    config = specs.get("mobile_former").tiny["plain"]
    write_numbers(tmp_path / "m.pdparams", "mobile_former", config, "paddlevit")
    printed = run("inspect", tmp_path / "m.pdparams")[1]
    assert "- dyrelu_consts: set it (as in --set dyrelu_consts=1.0,0.0)\n" in printed
    assert "- stem_stride: set it (int)\n" in printed
    assert "assumed by default: image, dropout, " in printed and " image=224 " in printed


def test_what_is_assumed_is_told_wherever_a_file_is_used(run, tmp_path, capsys):
    needs("torch")
    spec, path = specs.get("mlp_mixer"), tmp_path / "bare.safetensors"
    write_numbers(path, "mlp_mixer", next(iter(spec.tiny.values())), "torch")
    told = "the file does not say, assumed: gelu=erf, norm_eps=1e-6"
    about = json.loads(run("inspect", path, "--json")[1])
    assert not {"gelu", "norm_eps"} & about["config"].keys()
    assert "2 fields are open: neither" in about["open"]
    assert "\n  - gelu is open: set it (erf or tanh)\n  - norm_eps is open: set it (float)\n" in about["open"]
    with pytest.warns(UserWarning, match=told):
        ports.load(path, "torch", assume=True)
    (target,) = targets(str(path), assume=True)
    assert capsys.readouterr().err == f"note: {path}: {told}\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target.port("torch", "float32", "cpu")  # told once


def test_the_remedy_for_a_target_that_exists_names_another_place_where_none_was_given(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"mine")
    shutil.copy(GOOGLE, "weights.npz")
    said = "weights.safetensors: exists already (--force replaces it"
    assert run("google2torch", "weights.npz")[2].endswith(f"{said}, or give another -o)\n")
    assert run("google2torch", "weights.npz", "-o", "weights.safetensors")[2].endswith(f"{said})\n")


def test_a_setting_goes_above_a_configuration_of_another_size(run, tmp_path):
    (tmp_path / "config.json").write_text('{"depth": 4, "gelu": "tanh"}')
    words = ["google2torch", GOOGLE, "-o", tmp_path / "x.pt", "--config", tmp_path / "config.json"]
    code, _, err = run(*words)
    assert code == 2 and "the file has depth=3: if the model was built so, add --set depth=3, which goes above" in err
    assert run(*words, "--set", "depth=3")[0] == 0
    (tmp_path / "config.json").write_text('{"depth": 4, "width": 99, "classes": 5, "gelu": "tanh"}')
    code, _, err = run(*words)
    assert code == 2 and "  - this configuration is of another model\n" in err and "goes above" not in err, err


def test_a_file_of_the_users_own_is_kept(run, tmp_path):
    """Where a record would lie, also the configuration that was read."""
    own = tmp_path / "m.msgpack.json"
    own.write_text('{"gelu": "tanh"}')
    code, _, err = run("google2flax", GOOGLE, "-o", tmp_path / "m.msgpack", "--config", own)
    assert code == 1
    assert "m.msgpack.json: is no record of a conversion, so --force does not" in err and "note:" not in err
    assert (own.read_text(), listing(tmp_path)) == ('{"gelu": "tanh"}', ["m.msgpack.json"])


@pytest.mark.parametrize(("names", "without", "sentence"), [
    ("a", "a", "a has no default, and models with the same arrays differ in it"),
    ("ab", "ab", "a and b have no default, and models with the same arrays differ in them"),
    ("ab", "b", "b has no default, and models with the same arrays differ in it"),
])  # fmt: skip
def test_fields_without_a_default_are_named_in_the_number_that_they_have(names, without, sentence):
    assert _without_default([*names], {*without}) == sentence


def test_dry_run_writes_nothing(run, tmp_path):
    code, printed, _ = run("google2timm", GOOGLE, "-o", tmp_path / "x.pth", "--dry-run")
    assert code == 0
    row = "  blocks.{0..2}.mlp_tokens.fc1.weight    [12, 24]       axes [1, 0]"
    assert f"{row}        <- MixerBlock_{{0..2}}/token_mixing/Dense_0/kernel\n" in printed
    for number in (1, 2):  # each norm of a block has a row, which names both sides
        row = rf"  blocks\.{{0\.\.2}}\.norm{number}\.weight .* <- MixerBlock_{{0\.\.2}}/LayerNorm_{number - 1}/scale\n"
        assert re.search(row, printed), printed
    assert listing(tmp_path) == []


def test_dry_run_notes_a_target_that_exists(run, tmp_path):
    (tmp_path / "x.pth").write_text("mine")
    code, printed, err = run("google2timm", GOOGLE, "-o", tmp_path / "x.pth", "--dry-run")
    assert code == 0 and printed.endswith("; nothing was written\n")
    assert f"note: {tmp_path / 'x.pth'}: exists already (--force replaces it)\n" in err
    assert (tmp_path / "x.pth").read_text() == "mine"


def test_conventions_of_dialects_are_reported(run, tmp_path):
    """Those that a target does not share, and those that stand in the code of the source alone, not in its file."""
    _, _, err = run("google2timm", GOOGLE, "-o", tmp_path / "x.pth")
    assert "timm's own code computes gelu=erf; these weights mean gelu=tanh" in err
    _, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")
    assert err == GOOGLE_NOTE
    assert run("torch2google", tmp_path / "x.safetensors", "-o", tmp_path / "x.npz")[2] == ""  # its record says


def test_the_path_of_a_page_is_written_once_in_a_commands_notes():
    notes = Notes(later=True)
    for section in ("Groups of parameters", "BatchNorm"):
        notes.add(f"see it ({document('training')}, {section}) and {document('table')}")
    one, other = document("training"), document("table")
    assert notes.waiting == [
        f"see it ({one}, Groups of parameters) and {other}",
        "see it (training.md, BatchNorm) and table.md",
    ]


def test_a_framework_that_is_not_installed_is_no_more_than_that_in_the_versions(monkeypatch):
    monkeypatch.setattr(installed, "LIBRARIES", {"torch": ("torch-of-nobody",)})
    assert list(installed.lines())[1:] == ["torch   not installed"]


def test_routes_of_one_architecture(run):
    _, printed, _ = run("routes", "mlp_mixer", "--json")
    assert {row["architecture"] for row in json.loads(printed)} == {"mlp_mixer"}
    assert run("routes", "mlp_mixer")[1].startswith("mlp_mixer: any of these into any other, as in flax2torch\n")
    assert {row["architecture"] for row in json.loads(run("routes", "--json")[1])} == set(specs.names())


def test_a_number_of_tokens_follows_from_the_weights_whatever_a_record_leaves_open(run, tmp_path):
    """Neither the size of images nor the number of tokens is stated: images have 224 pixels, 7x7 patches of 32."""
    needs("torch")
    port = ports.build("mlp_mixer", "S/32", "torch", depth=1, width=4, token_hidden=3, channel_hidden=5, classes=2)
    port.save(tmp_path / "x.safetensors")
    assert port.config.tokens is None
    printed = run("inspect", tmp_path / "x.safetensors")[1]
    assert " tokens=49 " in printed and "None" not in printed and "\n              not stated: image\n" in printed
    assert json.loads(run("inspect", tmp_path / "x.safetensors", "--json")[1])["config"]["tokens"] == 49


def test_a_plan_without_a_target_is_not_written(tmp_path):
    with convert.plan(GOOGLE) as plan, pytest.raises(UsageError, match="make it with dst="):
        plan.write(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("words", "code", "message"), [
    (["gogle2torch", GOOGLE], 2, "did you mean 'google'"),
    (["google2tensorflow", GOOGLE], 2, "unknown name 'tensorflow'"),
    (["inspekt", GOOGLE], 2, "'inspekt' is neither a command nor a route, did you mean 'inspect'? ("),
    (["plan", GOOGLE], 2, "did you mean the option --dry-run, as in google2torch CKPT --dry-run?"),
    (["routes", "mlp_mixr"], 2, "unknown name 'mlp_mixr', did you mean 'mlp_mixer'?"),
    (["google2torch", GOOGLE, "--plan"], 2, "unrecognized arguments: --plan, did you mean '--dry-run'? (see "),
    (["google2torch", GOOGLE, "--dry"], 2, "unrecognized arguments: --dry, did you mean '--dry-run'? (see "),
    (["google2torch", GOOGLE, "--quite"], 2, "unrecognized arguments: --quite, did you mean '--quiet'? (see "),
    (["google2torch", GOOGLE, "--overwrite"], 2, "unrecognized arguments: --overwrite, did you mean '--force'? (see "),
    (["google2torch", GOOGLE, "--output", "b.pt"], 2, "--output b.pt, did you mean '--out'? (see "),
    (["google2torch", GOOGLE, "--verify"], 2, "unrecognized arguments: --verify (see "),  # not --no-verify
    (["google2torch", GOOGLE, "--replicate"], 2, "unrecognized arguments: --replicate (see "),  # not --unreplicate
    (["google2torch", GOOGLE, "--source"], 2, "unrecognized arguments: --source (see "),  # not --force
    (["diff", GOOGLE, GOOGLE, "--xyzzy"], 2, "unrecognized arguments: --xyzzy (see "),
    (["diff", GOOGLE, GOOGLE, "--atol=1", "--atol=0"], 2, "argument --atol: given twice, as 0.0 too"),
    (["torchtotimm", GOOGLE], 2, "did you mean 'torch2timm'?"),
    (["timm-torch", GOOGLE], 2, "did you mean 'timm2torch'?"),
    (["convrt", GOOGLE], 2, "'convrt' is neither a command nor a route (python -m convert --help lists"),
    (["parity", GOOGLE], 2, "'parity' is no command of convert, but a program of its own: python -m parity"),
    (["compare", GOOGLE, GOOGLE], 2, "did you mean python -m convert diff, which compares two files?"),
    (["derive", GOOGLE, GOOGLE], 2, "is no code: write file.py:function, where the function returns (model, inputs); "
     "python -m convert diff compares two checkpoints"),
    (["derive", "{}", "x.py:f"], 2, "is no code: write file.py:function"),
    (["--reverse", GOOGLE], 2, "--reverse reads a Table from right to left: give it too, by --table FILE"),
    (["--reverse", "{}/run2/x.npz"], 2, "--reverse reads a Table from right to left: give it too, by --table FILE"),
    (["{}/run2/x.npz", "google2torch"], 2, "/run2/x.npz' is neither a command nor a route"),
    (["x2y.npz"], 2, "x2y.npz' is neither a command nor a route"),
    (["diff", GOOGLE, GOOGLE, "--reverse"], 2, "give it too, by --table FILE"),
    (["google2torch", GOOGLE, "--prove", "--dry-run"], 2, "--dry-run writes nothing: leave one of them out"),
    (["--table", "x.table", "x.pt", "--prove"], 2, "parity.compare runs two models of yours on both files"),
    (["--table", "x.table", "x.pt", "--layout", "nnx"], 2, "--layout is not for --table: a Table's lines state"),
    (["derive", "{}/no.py:f", "{}/no.py:f"], 2, "no.py: there is no such file (check the path)"),
    (["google2torch", "nowhere.npz"], 2, "nowhere.npz: there is no such file"),
    (["flax2torch", GOOGLE, "{}/x.pt"], 2, "x.pt: there is no such file: if it is the target, write -o /"),
    (["timm2torch", GOOGLE], 1, "every array fits as google: use google2torch"),
    (["timm2google", GOOGLE], 1, "it is google already, as every array fits; google2google changes its format or dtype "
     "alone, and google2timm converts it to timm"),
    (["google2torch", GOOGLE, "--set", "depth=4"], 2, "depth=4 was asked for, but the file has depth=3"),
    (["google2torch", GOOGLE, "--set", "dept=3"], 2, "did you mean 'depth'"),
    (["google2torch", GOOGLE, "--set", "gelu=relu"], 2, "gelu is erf or tanh"),
    (["google2torch", GOOGLE, "--set", "gelu"], 2, "write KEY=VALUE"),
    (["google2torch", GOOGLE, "--dtype", "int8"], 2, "no dtype 'int8' (one of float64, "),
    (["google2torch", GOOGLE, "--dtype", "bf16"], 2, "no dtype 'bf16', did you mean 'bfloat16'?"),
    (["google2torch", GOOGLE, "-o", "{}/x.bin5"], 2, "no format has the suffix"),
    (["google2torch", GOOGLE, "-o", "{}/x.safetensors.index.json"], 2, "give their size, as in --shard-size 5GB"),
    (["google2torch", GOOGLE, "-o", "{}/no/where.pth"], 2, "there is no folder"),
    (["google2torch", GOOGLE, "--weights", "ema"], 1, "nothing known lies under 'ema'"),
    (["google2torch"], 2, "required: CKPT"),
    (["inspect", "{}"], 1, "is a folder"),
    (["verify", GOOGLE], 1, "has no record"),
    ([GOOGLE, "google2torch"], 2, "the command comes first, as in google2torch "),
    (["google2torch", GOOGLE, "-o", "nowhere/"], 2, "-o nowhere/: there is no such folder"),
    (["google2torch", GOOGLE, "-o", "nowhere/x.pt"], 2, "nowhere: create it first"),
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
    assert (code, out.read_text()) == (2, "precious")
    assert "--force" in err
    assert run("google2torch", GOOGLE, "-o", out, "--force")[0] == 0
    source = shutil.copy(GOOGLE, tmp_path / "s.npz")
    before = Path(source).read_bytes()
    (tmp_path / "link.npz").symlink_to(source)
    for same in (source, tmp_path / "link.npz"):
        code, _, err = run("google2flax", source, "-o", same, "--force")
        assert code == 2
        assert "is read itself" in err
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


def test_config_files(run, tmp_path):
    (tmp_path / "c.yaml").write_text("gelu: erf\ntokens: [6, 4]\n")
    (tmp_path / "c.json").write_text('{"gelu": "erf", "depht": 3}')
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "x.pt", "--config", tmp_path / "c.yaml", "--json")
    assert code == 0
    assert json.loads(printed)["config"]["gelu"] == "erf"
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "y.pt", "--config", tmp_path / "c.json")
    assert code == 2
    assert "did you mean 'depth'" in err


@pytest.mark.parametrize("words", [
    ["--set", "gelu=tanh", "diff", GOOGLE, GOOGLE], ["--rtol", "1e-3", "diff", GOOGLE, GOOGLE],
    ["--json", "inspect", GOOGLE],
    ["--config", "nothing.json", "google2torch", GOOGLE, "--dry-run"],
])  # fmt: skip
def test_options_may_come_first(words, run):
    assert run(*words)[0] == (2 if "--config" in words else 0)  # there is no such configuration


WRITING = [
    f"convert inspect {GOOGLE}", "convert routes --json", "convert --help", f"convert diff {GOOGLE} {GOOGLE}",
    "ports", "ports --json", "ports --help", "parity --help",
]  # fmt: skip
COMPARING = "parity mlp_mixer:tiny\\ headless --frameworks torch paddle --check forward"  # seconds of imports
OUTPUTS = ("/dev/full", "a closed pipe", "nothing")


@pytest.mark.parametrize(
    ("output", "words"), [*itertools.product(OUTPUTS, WRITING), *((output, COMPARING) for output in OUTPUTS[:2])]
)
def test_output_that_cannot_be_written(output, words):
    """A full disk is told, a reader that went away is not; neither is a traceback."""
    if words.startswith("parity mlp"):
        needs("torch"), needs("paddle")
    status = {"/dev/full": 1, "a closed pipe": 141, "nothing": 0}[output]
    reading, writing = os.pipe()
    os.close(reading)
    where = {"/dev/full": "> /dev/full", "a closed pipe": f">&{writing}", "nothing": ">&-"}[output]
    command = f"({sys.executable} -W ignore -m {words}; echo $? >&2) {where}"
    for unbuffered in ("", "1") if "tiny" not in words else ("",):
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "OMP_NUM_THREADS": "1"}  # paddle warns on stderr of more
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, env=env, check=False,
                              pass_fds=[writing])  # fmt: skip
        told = (
            f"python -m {words.split()[0]}: standard output: No space left on device\n" if output == "/dev/full" else ""
        )
        assert done.stderr == f"{told}{status}\n"
    os.close(writing)


@pytest.mark.parametrize("words", [
    ["google2torch", "nowhere.npz"], ["inspect", "nowhere.npz"], ["diff", GOOGLE, "nowhere.npz"], ["inspect"],
    ["diff", GOOGLE], ["verify", GOOGLE], ["google2torch", GOOGLE, "--set", "gelu=relu"], ["gogle2torch", GOOGLE],
    ["timm2torch", GOOGLE], ["torch2flax", Case("locuslab_convmixer_gelu").files[0]],
])  # fmt: skip
def test_an_error_is_one_line_where_json_is_asked_for(words, run, tmp_path):
    code, printed, err = run(*words, "--json", *(["-o", tmp_path / "x.pt"] if "2" in words[0] else []))
    assert code in (1, 2)
    assert (printed, err.count("\n")) == ("", 1)
    assert err.startswith("python -m convert")


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
    assert (done.returncode, done.stderr) == (0, GOOGLE_NOTE)
    assert "mod\\xe8le.npz" in done.stdout


def test_ports_table():
    table = json.loads(python("-m", "ports", "--json").stdout)
    assert {"architecture": "mlp_mixer", "variant": "B/16", "parameters": 59_880_472} in table
    assert "59,880,472" in python("-m", "ports").stdout
    small = "  tiny S/16\n    patch=2 depth=1 width=11 token_hidden=6 channel_hidden=13 image=4x10\n    classes=11\n"
    assert small in python("-m", "ports", "mlp_mixer").stdout
    lines = python("-m", "ports", "mobile_former").stdout.splitlines()
    settings = [line for line in lines if line.startswith("    ")]
    assert (
        settings and max(map(len, settings)) <= 80 and any("'blocks=((11, 6, 1), (13, 8, 2))'" in s for s in settings)
    )


def test_the_help_of_parity_says_that_two_frameworks_are_needed():
    from parity.__main__ import parser

    said = "This needs two frameworks; `convert ROUTE FILE --prove` runs with one"
    assert said in " ".join(parser().format_help().split())


def test_a_file_whose_name_begins_with_a_dash_is_recognised(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.pth").write_bytes(b"")
    code, _, error = run("inspect", "-x.pth")
    assert code == 2 and "the file '-x.pth' is given as './-x.pth'" in error
    assert "is given as" not in run("inspect", "-y.pth")[2]


def test_a_current_folder_that_was_deleted_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, error = run("inspect", "a.pth")
    assert code != 0 and "the current folder was deleted: change to another one" in error


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "no.npz"),
        ("google2torch", "no.npz"),
        ("diff", "no.npz", "no.npz"),
        ("verify", "no.npz"),
        ("--table", "no.table", GOOGLE, "-o", "x.npz"),
        ("google2torch", GOOGLE, "-o", "no/x.npz"),
        ("google2torch", GOOGLE, "-o", "no/"),
        ("google2torch", GOOGLE, "-o", "there.npz"),
        ("derive", "no.py:build", "no.py:build", "-o", "x.table"),
        ("derive", "no.py:build", "no.py:build", "-o", "there.npz"),
    ],
    ids=lambda words: " ".join(str(word) for word in words[:2]),
)
@pytest.mark.parametrize("json", [False, True])
def test_a_path_that_is_missing_or_taken_is_wrong_usage(words, json, run, tmp_path, monkeypatch):
    """It says nothing of any model, of which 1 is the answer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").touch()
    code, out, err = run(*words, *["--json"] * json)
    assert (code, out) == (2, "") and err.count("\n") == 1, err
