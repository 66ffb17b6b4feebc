"""`python -m parity`: rows, exit codes, causes, and nothing on a pipe that belongs on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import ports
from parity.__main__ import main
from parity.given.targets import Target, targets
from parity.judging.judge import Subject, judge
from parity.page.cards import WIDE
from parity.report import Report
from parity.running.archive import load, save
from parity.running.job import Job, run_here
from parity.running.processes import Processes
from parity.running.recording import Recording

from ..golden import Case

KEYS = {
    "architecture", "variant", "check", "dtype", "device", "pair", "error", "tolerance", "passed", "status", "reason",
    "first_divergence", "note", "assumed", "suggested",
}  # fmt: skip
TWIN = "mlp_mixer:tiny headless"
PAIR = ("--frameworks", "torch", "paddle")


def parity(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which has imported the frameworks already."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ), warnings.catch_warnings(action="ignore"):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(list(arguments))
            except SystemExit as stop:  # argparse's way out
                code = int(stop.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def process(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "parity", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **env})


def need(*frameworks: str) -> None:
    missing = [f for f in frameworks if f not in ports.available()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


def test_rows_have_the_keys_that_tools_rely_on() -> None:
    need("torch", "paddle")
    done = parity(TWIN, *PAIR, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["check"] for row in rows] == ["forward", "layers", "gradients", "train"]
    for row in rows:
        assert row.keys() == KEYS
        assert (row["architecture"], row["variant"], row["pair"]) == ("mlp_mixer", "tiny headless", "torch-paddle")
        assert row["passed"] is True
        assert 0 <= row["error"] <= row["tolerance"] <= 1e-9
        assert (row["status"], row["reason"], row["first_divergence"]) == ("agrees", None, None)
    assert "tiny headless" not in done.stderr  # no progress on a pipe


def test_progress_is_shown_on_a_terminal() -> None:
    need("torch", "paddle")
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, contextlib.redirect_stderr(terminal):
        assert main([TWIN, *PAIR, "--check", "forward"]) == 0
    assert b"1/2 mlp_mixer:tiny headless float64 torch" in os.read(ours, 4096)
    os.close(ours)


def test_what_a_framework_cannot_do_is_said_and_skipped() -> None:
    need("torch", "paddle")
    done = parity(TWIN, *PAIR, "--json", "--check", "forward", "--dtype", "float32", "float16")
    single, half = json.loads(done.stdout)
    assert single["passed"] is True
    assert half["passed"] is None
    assert (half["status"], half["first_divergence"], half["note"]) == ("not run", None, None)
    assert re.fullmatch(r"paddle has no \w+ in float16 on cpu", half["reason"])
    assert done.returncode == 0


@pytest.mark.parametrize(("there", "which"), [(["torch"], "only torch"), ([], "none")])
def test_fewer_than_two_frameworks_are_refused_before_a_model_runs(
    monkeypatch: pytest.MonkeyPatch, there: list[str], which: str
) -> None:
    monkeypatch.setattr("parity.comparing.suite.available", lambda: there)
    monkeypatch.setattr("parity.comparing.suite.run_here", lambda *_: pytest.fail("a model was run"))
    done = parity(TWIN)
    assert (done.returncode, done.stdout) == (1, "")
    told = f"a comparison needs two frameworks; of flax, torch and paddle, {which} is installed: pip install "
    assert told in " ".join(done.stderr.split())
    assert "`convert ROUTE FILE --prove` and `convert diff A B` work with one framework" in done.stderr
    assert "`parity.compare` compares two models of one framework" in done.stderr


@pytest.mark.parametrize(("there", "remedy"), [(["flax", "torch"], "them\n"), (["torch"], "them: pip install ")])
def test_one_framework_is_refused_with_what_works_in_one(
    monkeypatch: pytest.MonkeyPatch, there: list[str], remedy: str
) -> None:
    monkeypatch.setattr("parity.comparing.suite.available", lambda: there)
    done = parity(TWIN, "--frameworks", "torch")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--frameworks: a comparison needs two of {remedy}" in done.stderr and "`parity.compare`" in done.stderr


def test_a_page_with_one_port_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    need("torch", "paddle")
    monkeypatch.setattr("parity.comparing.suite.declared", lambda _, framework: framework == "torch")
    monkeypatch.setattr("parity.comparing.suite.run_here", lambda *_: pytest.fail("a model was run"))
    done = parity(TWIN, *PAIR)
    told = "a comparison needs ports in two frameworks; of torch and paddle, the page of mlp_mixer has torch"
    assert done.returncode == 1 and told in done.stderr


def test_a_missing_gpu_is_said_and_proves_nothing() -> None:
    need("torch", "flax")
    done = process(
        TWIN, "--frameworks", "flax", "torch", "--check", "forward", "--device", "gpu", CUDA_VISIBLE_DEVICES=""
    )
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert words.startswith("Nothing was compared.")
    assert "flax and torch not run: no GPU found here: use --device cpu (3 comparisons: " in words
    assert "flax-torch, flax@cpu-flax and torch@cpu-torch" in words
    assert "Traceback" not in done.stderr


def test_a_checkpoint_is_compared_and_its_hash_reported(tmp_path: object) -> None:
    need("torch", "paddle")
    golden = os.path.join(os.path.dirname(__file__), "..", "goldens", "timm_mixer", "model.safetensors")
    page = f"{tmp_path}/out.html"
    done = parity(golden, *PAIR, "--check", "layers", "--report", page)
    assert done.returncode == 0, done.stderr
    with open(page, encoding="utf-8") as file:
        html = file.read()
    from convert.files.hashing import sha256

    assert sha256(golden) in html
    run = html.partition('class="provenance"')[2].partition("</details>")[0]
    facts = dict(re.findall("<th.*?>(.*?)</th><td>(.*?)</td>", re.sub("</?(?:span|code)[^>]*>|<wbr>", "", run)))
    first = ["command", "seed", "batch", "date", "triptych", "python", "device"]  # those that are long come last
    assert [label for label in facts if label in first] == sorted(first, key=lambda label: len(facts[label]) > WIDE)
    assert facts["command"].startswith("python -m parity ")
    assert facts["command"].endswith(f"--check layers --report {page}")
    name = re.fullmatch(r"mlp_mixer:(model[.]safetensors.*)", facts["models"])[1]
    assert facts["settings"].startswith(f"mlp_mixer:{name}: ") and "patch=" in facts["settings"]
    assert "None" not in facts["settings"]
    size = r"\[2, 3(, \d+){2}\] \(assumed, as no size is stated\)"  # the file shows the number of patches alone
    assert re.fullmatch(rf"mlp_mixer:{re.escape(name)}: {size}", facts["images"])
    assert (facts["seed"], facts["batch"]) == ("0 (images)", "2 images")
    assert "random" not in html
    assert done.stdout.startswith(
        "torch and paddle agree in the only comparison.\n\nmlp_mixer, float64 on cpu: error nearest to its limit\n"
    )
    assert " ".join(done.stdout.split()).endswith(f"report: {page}")  # on a line of its own, where the path is long


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("mlp_mixr",), 2, "did you mean 'mlp_mixer'"),
        (("mlp_mixer:S/17",), 2, "did you mean 'S/16'"),
        (("mlp_mixer:S/17",), 2, "'tiny tanh, ragged', 'tiny headless')"),
        (("no/such/file.npz",), 2, "no/such/file.npz: there is no such file (check the path)"),
        (("nothere.npz",), 2, "there is no such file"),
        (("nothere",), 2, "'nothere' is neither an architecture"),
        (("mlp_mixr",), 2, "nor a file, did you mean 'mlp_mixer'?"),
        (("mlp_mixer", "--frameworks", "torch"), 2, "needs two"),
        (("mlp_mixer", "--check", "speed"), 2, "invalid choice"),
        (("mlp_mixer", "--check", "layer"), 2, "did you mean 'layers'"),
        (("mlp_mixer", "--dtype", "float46"), 2, "did you mean 'float64'"),
        (("mlp_mixer", "--frameworks", "torch,flax"), 2, "'torch,flax': separate them by spaces, as in torch flax"),
        (("mlp_mixer", "--frameworks", "torch", "jax"), 2, "invalid choice: 'jax'"),
        (("mlp_mixer", "--steps", "0"), 2, "1 or more"),
        (("mlp_mixer", "--seed", "-1"), 2, "parity: --seed is 0 or more, not -1"),
        ((), 2, "required"),
        ((TWIN, *PAIR, "--check", "forward", "--report", "."), 2, "is a folder"),
    ],
)
def test_wrong_usage_is_told_without_a_traceback(arguments: tuple[str, ...], code: int, message: str) -> None:
    need("torch", "paddle")
    done = parity(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_no_framework() -> None:
    code = "import sys, parity, parity.__main__ as m; m.parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "jax", "flax", "paddle", "ports", "convert.plans.planning"} & set(loaded)
    assert process("--help").returncode == 0


def test_a_process_of_its_own_gives_the_same_numbers() -> None:
    need("torch")
    (target,) = targets(TWIN)
    job = Job(target, "torch", "float64", "cpu", ("layers", "gradients"))
    here = run_here(job, {})
    with Processes() as processes:
        for there in (processes(job, {}), processes(job, {})):  # the second in the same process
            for check in job.checks:
                assert list(here[check].arrays) == list(there[check].arrays)
                for name, array in here[check].arrays.items():
                    np.testing.assert_array_equal(array, there[check].arrays[name])


def test_a_process_that_died_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    need("torch")
    (target,) = targets(TWIN)
    job = Job(target, "torch", "float64", "cpu", ("forward",))
    with Processes() as processes:
        processes(job, {})
        processes.alive["torch"].process.kill()
        assert "SIGKILL" in processes(job, {})["forward"].cause
        assert not processes(job, {})["forward"].cause
        monkeypatch.setattr("parity.running.processes.TIMEOUT", 0)
        assert "was still running after 0 s" in processes(job, {})["forward"].cause


def test_a_recording_from_another_process_names_its_checkpoint(tmp_path: Path) -> None:
    save(Recording("torch", "torch", "float64", "cpu", file="mixer.npz"), f"{tmp_path}/r.npz")
    assert load(f"{tmp_path}/r.npz").file == "mixer.npz"


def test_a_crash_leaves_a_cause_and_takes_nothing_along(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework that kills its process (here: a paddle that aborts when imported) costs its own pairs alone."""
    need("torch", "flax")
    os.mkdir(f"{tmp_path}/paddle")
    with open(f"{tmp_path}/paddle/__init__.py", "w", encoding="utf-8") as file:
        file.write("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    done = process(TWIN, "--isolate", "--json", "--check", "forward")
    rows = {row["pair"]: row for row in json.loads(done.stdout)}
    assert rows["flax-torch"]["passed"] is True
    assert rows["torch-paddle"]["passed"] is False
    assert rows["torch-paddle"]["status"] == "failed"
    assert "SIGABRT" in rows["torch-paddle"]["reason"]
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_drop_rates_add_a_test_of_the_masks_to_training() -> None:
    need("torch", "flax", "paddle")
    import dataclasses

    import specs
    from parity.running.recording import OPTIMIZERS, record

    spec = specs.get("mlp_mixer")
    config = dataclasses.replace(spec.tiny["headless"], dropout=0.25, drop_path=0.5)
    images = np.random.default_rng(0).standard_normal((16, *spec.input_shape(config)))
    made = []
    for framework in ("torch", "flax", "paddle"):
        port = ports.build("mlp_mixer", config, framework, init="random", dtype="float64")
        made.append(record(port, images, "train"))
    results = judge(Subject("mlp_mixer", "headless", "train", "float64", "cpu"), made)
    assert all(r.passed for r in results), [(r.cause, r.curve) for r in results]
    assert {row[0] for recording in made for row in recording.masks or []} == {0.25, 0.5}
    assert {int(row[1]) for row in made[0].masks or [] if row[0] == 0.5} == {64 * 16}  # whole samples
    assert [name for name, *_ in results[0].curve if "losses" in name] == [f"{o}: losses" for o in OPTIMIZERS]
    made[1].masks = [[*row[:3], kept * 0.97, off] for *row, kept, off in made[1].masks or []]
    assert judge(Subject("", "", "train", "float64", "cpu"), made)[0].passed is False


def test_a_rate_that_reaches_no_call_of_dropout_is_a_note() -> None:
    """A rate that grows from 0 over the blocks is 0 where there is one block."""
    need("torch", "paddle")
    import specs
    from parity.running.recording import record

    config = specs.get("dynamixer").config(
        depths=(1,), widths=(6,), hidden=(7,), segments=(3,), reduced=(2,), transitions=(), grid=(3, 5), patch=2,
        classes=3, drop_path=0.1,
    )  # fmt: skip
    images = np.random.default_rng(0).standard_normal((2, *specs.get("dynamixer").input_shape(config)))
    twins = [
        ports.build("dynamixer", config, framework, init="random", dtype="float64") for framework in ("torch", "paddle")
    ]
    made = [record(twin, images, "train") for twin in twins]
    (result,) = judge(Subject("dynamixer", "one", "train", "float64", "cpu"), made)
    assert result.passed
    said = "no mask of dropout was judged: drop_path is above 0, but no call of dropout has a rate above 0"
    assert result.cause.partition("; ")[0] == said


def test_what_a_checkpoint_leaves_open_is_set() -> None:
    need("torch", "paddle")
    path = str(Case("raft_native").folder / "weights.pth")
    left = parity(path, *PAIR, "--check", "forward")
    assert (left.returncode, "patches is open: set it" in left.stderr) == (2, True)
    told = "patches=4,2,2,2", "rafts=2,2,4,3", "image=64", "kernels=[[4,8],[2,4],[2,4],[2]]"
    words = [word for setting in told for word in ("--set", setting)]
    done = parity(path, *PAIR, "--check", "forward", "--src", "official", "--isolate", *words)
    assert done.returncode == 0, done.stderr
    assert "torch-paddle" in done.stdout


def test_a_twin_is_changed_by_what_is_set(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"kernel": 3, "classes": 9}')
    need("torch", "paddle")
    words = "convmixer:tiny even", "--check", "forward", "--json"
    done = parity(*words, *PAIR, "--config", str(tmp_path / "c.json"), "--set", "classes=7", "--isolate")
    assert [row["passed"] for row in json.loads(done.stdout)] == [True]
    (target,) = targets(words[0], settings={"kernel": 3, "classes": 7})
    assert target.port("torch", "float64", "cpu")(target.images(target.config(), 1)).shape == (1, 7)
    done = parity(*words, "--set", "clases=7")
    assert (done.returncode, "did you mean 'classes'" in done.stderr) == (2, True)


@pytest.mark.parametrize("passed", [True, False])
def test_quiet_prints_what_differs_alone(passed: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from parity.comparing import suite

    monkeypatch.setattr(suite.Report, "passed", passed)
    arguments = argparse.Namespace(report=None, json=False, quiet=True)
    assert suite.finish(suite.Report(), arguments) == (0 if passed else 1)
    assert bool(capsys.readouterr().out) is not passed


def test_a_report_that_cannot_be_is_told_first(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("")
    done = parity("mlp_mixer", "--report", str(page))
    assert done.stderr == f"python -m parity: {page}: exists already (--force replaces it)\n"
    assert (done.returncode, done.stdout, page.read_text()) == (2, "", "")
    done = parity("mlp_mixer", "--report", "/nowhere/x.html")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/nowhere/x.html: there is no folder /nowhere: create it first" in done.stderr
    done = parity("mlp_mixer", "--report", ".")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python -m parity: .: is a folder: name a file in it\n"
    page.write_text("mine")
    done = parity("mlp_mixer", "--report", str(page), "--force")
    assert (done.returncode, page.read_text()) == (2, "mine")
    assert f"{page}: is no page (HTML), so --force does not replace it: give another name" in done.stderr


@pytest.mark.parametrize("arguments", [("ports",), ("ports", "--json")])
def test_a_reader_that_goes_away_is_no_traceback(arguments: tuple[str, ...]) -> None:
    """A comparison is among the commands of `test_output_that_cannot_be_written`."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-W", "ignore", "-m", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # of more, paddle's library warns
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=300, env=env, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")  # as of a command that SIGPIPE ended


def test_checkpoints_of_one_variant_have_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convert.plans.plan.variant_of", lambda *_: "S/16")
    golden = Path(__file__).parent.parent / "goldens" / "timm_mixer" / "model.safetensors"
    (tmp_path / "other.safetensors").write_bytes(golden.read_bytes())
    names = [t.variant for path in (golden, tmp_path / "other.safetensors") for t in targets(str(path))]
    assert names == ["model.safetensors S/16", "other.safetensors S/16"]


def test_an_architecture_alone_means_all_its_twins() -> None:
    assert len(list(targets("mlp_mixer"))) > 3
    assert all(t.small for t in targets("mlp_mixer"))
    assert list(targets("mlp_mixer:S/16")) == [Target("mlp_mixer", "S/16")]
    assert list(targets("mlp_mixer:tiny S/16")) == [Target("mlp_mixer", "tiny S/16")]


def test_settings_that_most_models_share_are_stated_once() -> None:
    from parity.comparing.suite import _models

    about = _models([*targets("mlp_mixer"), Target("convmixer", "768/32")], 2)
    first, *each = about["settings"].split("; ")
    assert first.startswith("mlp_mixer, where a model states no other: patch=2, ") and "width" in first
    stated = dict(text.split(": ") for text in each)
    assert stated["mlp_mixer:tiny L/32"] == "depth=2, width=19, token_hidden=8"
    assert stated["mlp_mixer:tiny headless"].endswith("norm_eps=1e-5, image=None")
    assert "mlp_mixer:tiny S/32" not in stated and "width=768" in stated["convmixer:768/32"]
    assumed = [text for text in about["images"].split("; ") if "no size is stated" in text]
    assert assumed == ["mlp_mixer:tiny headless: [2, 1, 8, 6] (assumed, as no size is stated)"]
    page = re.sub("<wbr>", "", Report([], about).to_html())
    assert page.count("<div>mlp_mixer:") == 9  # a line each
    assert page.count("<dt>mlp_mixer:") == 9 + 8  # images and settings


def test_settings_that_nobody_states_are_marked_as_assumed() -> None:
    from parity.comparing.suite import _models
    from parity.given.targets import Target

    about = _models([Target("mlp_mixer", "S/16", assumed=("gelu",))], 2)
    assert about["settings"].count("(assumed)") == 1
    assert re.search(r"gelu=\w+ \(assumed\)", about["settings"])
    assert about["images"] == "mlp_mixer:S/16: [2, 3, 224, 224] (assumed, as no size is stated)"


def test_settings_that_neither_arrays_nor_a_record_show_are_marked_by_what_states_or_suggests_them(
    tmp_path: Path,
) -> None:
    from convert.config.settings import read_config

    path = str(Case("locuslab_convmixer_gelu").folder / "weights.pth")
    (tmp_path / "c.json").write_text('{"act": "gelu", "kernel": 9}')
    for stated, by in (({"act": "gelu"}, "--set"), (read_config(str(tmp_path / "c.json")), "--config")):
        (target,) = targets(path, settings=stated)
        texts = target.settings_with_origins()
        assert texts["act"] == f"act=gelu ({by})" and texts["image"].endswith(" (default)")
        assert texts["norm_eps"] == "norm_eps=1e-5 (assumed: official's own code)" and "(" not in texts["kernel"]
        assert "norm_eps=1e-5 (official's own code)" in target.suggestions() and not target.assumptions()
    (twin, *_) = targets(TWIN, settings={"gelu": "erf"})
    assert [text for text in twin.settings_with_origins().values() if "(" in text] == ["gelu=erf (--set)"]
