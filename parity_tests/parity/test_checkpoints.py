"""Two checkpoints of one architecture: which files were compared, whose arrays differ, and what to do next."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import parity
import ports
from convert.files.hashing import sha256
from parity.report import Report
from parity.results.elements import Worst
from parity.results.result import Divergence, Result
from parity.summaries import findings

from .plant import rebuilt

CHANGED = "blocks.0.token_mix.fc1.weight"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two checkpoints that differ in one element of one array."""
    pytest.importorskip("torch", reason="torch is not installed")
    import specs

    folder = tmp_path_factory.mktemp("checkpoints")
    one = ports.build("mlp_mixer", specs.get("mlp_mixer").tiny["S/16"], "torch", init="random")
    state = one.state()
    state[CHANGED] = np.array(state[CHANGED])
    state[CHANGED][1, 2] += 0.1
    paths = str(folder / "one.safetensors"), str(folder / "two.safetensors")
    for port, path in zip((one, rebuilt(one, tensors=state.items())), paths, strict=True):
        port.save(path)
    return paths


@pytest.fixture(scope="module")
def report(files: tuple[str, str]) -> Report:
    one, two = (ports.load(path, "torch") for path in files)
    images = np.random.default_rng(0).standard_normal((1, *one.spec.input_shape(one.config)), np.float32)
    built = ports.build("mlp_mixer", one.config, "torch")
    return parity.compare({"one": one, "two": two, "built": built}, images, "layers")


def test_the_files_of_ports_are_listed_with_their_hashes(files: tuple[str, str], report: Report) -> None:
    one, two = files
    assert report.about["one weights"] == f"{one}, sha256 {sha256(one)}"
    assert report.about["two weights"] == f"{two}, sha256 {sha256(two)}"
    assert report.about["built weights"].startswith("from no file, 18 arrays, sha256 ")


def test_a_record_that_does_not_fit_its_file_is_said_on_the_page(files: tuple[str, str], tmp_path: Path) -> None:
    path = str(tmp_path / "altered.safetensors")
    with safe_open(files[0], "np") as file:
        record = file.metadata()
    save_file({**load_file(files[0]), CHANGED: load_file(files[1])[CHANGED]}, path, metadata=record)
    with pytest.warns(ports.FileWarning, match="no longer fits"):
        port = ports.load(path, "torch")
    images = np.random.default_rng(0).standard_normal((1, *port.spec.input_shape(port.config)), np.float32)
    report = parity.compare({"one": ports.load(files[0], "torch"), "two": port}, images)
    said = f"altered.safetensors: its record no longer fits the file, whose {CHANGED} has other values"
    assert said in report.results[0].cause and "its record no longer fits the file" in report.to_html()
    assert "one.safetensors: its record" not in report.results[0].cause


def test_a_file_that_has_changed_is_not_hashed_as_the_one_that_was_loaded(files: tuple[str, str]) -> None:
    port = ports.load(files[0], "torch")
    assert port.source is not None and port.with_dtype("float64").source == port.source
    Path(files[0]).touch()
    assert port.source.digest() == "has changed since it was loaded"


def test_ports_of_no_known_variant_are_named_by_their_files(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    import specs

    config = replace(specs.get("mlp_mixer").tiny["S/16"], classes=3)
    for name in ("a.safetensors", "b.safetensors"):
        ports.build("mlp_mixer", config, "torch").save(str(tmp_path / name))
    models = {name: ports.load(str(tmp_path / f"{name}.safetensors"), "torch") for name in "ab"}
    images = np.ones((1, *models["a"].spec.input_shape(models["a"].config)), np.float32)
    report = parity.compare(models, images)
    assert {r.variant for r in report} == {"a.safetensors / b.safetensors"} and ":own" not in report.about["model"]
    page = re.sub("</?(span|code).*?>|<wbr>", "", report.to_html())
    assert ".safetensors" not in page.partition("</title>")[0] and "<dt>b</dt><dd>b.safetensors; torch " in page


def test_the_weights_that_differ_are_named_with_the_next_step(files: tuple[str, str], report: Report) -> None:
    finding = next(f for f in findings.find(report.results) if f.pairs == ("one-two",))
    facts = dict(findings.facts(finding))
    assert facts["layer"] == "blocks.0.token_mix.fc1"
    assert re.fullmatch(
        r"blocks\.0\.token_mix\.fc1\.kernel \(weight in torch\): 1 of \d+ elements differs, by up to \S+ of the larg.*",
        facts["weights"],
    )
    assert list(facts)[-1] == "next" and f"convert diff {files[0]} {files[1]} --rtol 1e-9)" in facts["next"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # which part was taken, and what was assumed
def test_the_next_step_names_the_parts_of_files_that_differ(files: tuple[str, str], tmp_path: Path) -> None:
    """Without them, diff takes the live weights of a file, and says that the arrays are the same."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    live, average = ({name: torch.tensor(a) for name, a in load_file(file).items()} for file in files)
    run = str(tmp_path / "run.pt")
    torch.save({"model": live, "model_ema": average}, run)

    def compare(*ports_: Any) -> tuple[str, Report]:
        images = np.ones((1, *ports_[0].spec.input_shape(ports_[0].config)), np.float32)
        report = parity.compare(dict(zip("ab", ports_, strict=True)), images, "layers", dtype="float64")
        return dict(findings.facts(findings.find(report.results)[0]))["next"], report

    plain = ports.load(files[0], "torch")
    parts = [ports.load(run, "torch", weights=part, assume=True) for part in ("model", "model_ema")]
    assert f"convert diff {files[0]} {run} --weights / --weights model_ema --rtol 1e-9)" in compare(plain, parts[1])[0]
    step, report = compare(*parts)
    assert f"convert diff {run} {run} --weights model --weights model_ema --rtol 1e-9)" in step
    assert report.about["b weights"].startswith(f"{run} under 'model_ema', sha256 ")


@pytest.mark.parametrize(
    ("check", "dtype", "words"),
    [("forward", "float64", "check layers"), ("layers", "float64", "check single-step"),
     ("train", "float64", "epsilon"), ("single-step", "float64", "same input"),
     ("gradients", "float64", "detached"), ("layers", "float32", "TF32")],
)  # fmt: skip
def test_every_divergence_has_a_next_step(check: str, dtype: str, words: str) -> None:
    first = Divergence.at("a", Worst(1e-3, (0,), 1.0, 1.001), 1e-10)
    off = Result("x", "v", check, dtype, "cpu", "a-b", 1e-3, 1e-10, False, first)
    exact = replace(off, dtype="float64", error=0.0, passed=True, first_divergence=None)
    (finding,) = findings.find([off] if dtype == "float64" else [exact, off])
    assert words in dict(findings.facts(finding))["next"]
