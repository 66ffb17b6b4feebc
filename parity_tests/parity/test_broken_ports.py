"""A declared port that does not import, does not fit its page or raises is a failure, in one line; none is skipped."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import specs
from parity.__main__ import main
from parity.given.targets import targets
from parity.running import archive
from parity.running.job import Job, run_here
from ports.new import write
from ports.runners.misfits import misfits

from ..conftest import needs


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write an architecture and its ports; what is added in a test is forgotten after it."""
    monkeypatch.setattr(specs, "_added", {})
    list(write("fragile", str(tmp_path)))
    return tmp_path / "fragile.py"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


FAULTS = {
    "missing": ("torch", None, None, "there is no such file"),
    "import": ("torch", "from torch import", "from torhc import", "No module named 'torhc'"),
    "class": ("torch", "class Fragile(", "class Frgile(", "has no class 'Fragile'"),
    "names": ("torch", "self.head = ", "self.haed = ", "the page has head.weight, head.bias, the port does not"),
    "syntax": ("torch", "class Fragile(", "class Fragile((", "SyntaxError"),
    "raises": (
        "torch",
        "x = self.stem(images)",
        "x = 1 / 0 * self.stem(images)",
        "ZeroDivisionError: ",
    ),
    "paddle names": (
        "paddle",
        "self.head = ",
        "self.haed = ",
        "the port has haed.weight, haed.bias, the page does not",
    ),
    "flax names": (
        "flax",
        'name="head"',
        'name="haed"',
        "; the port has params/haed/bias, params/haed/kernel, ",
    ),
    "flax unused": (
        "flax",
        'nn.Dense(c.classes, name="head")(x) if c.classes else x',
        "x",
        "the page has params/head/kernel, params/head/bias, the port does not",
    ),
    "flax raises": ("flax", "x = x.mean(1)", "x = {}[0]", "KeyError: 0"),
}


def test_arrays_of_one_side_are_folded_and_other_shapes_named() -> None:
    page = {"a.0.b": (2, 3), "a.1.b": (2, 3), "c": (4,), "d": (5,)}
    assert misfits(page, page) == []
    assert misfits(page, {"c": (5,), "d": (5,), "e": (1,)}) == [
        "the page has a.{0..1}.b, the port does not",
        "the port has e, the page does not",
        "c is [4] by the page and [5] in the port",
    ]
    assert misfits(page, {**page, "a.0.b": (2, 4), "a.1.b": (3, 4)}) == [
        "a.0.b is [2, 3] by the page and [2, 4] in the port, and 1 more like it",
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_port_with_a_fault_is_a_failure_in_one_line(fault: str, page: Path) -> None:
    framework, old, new, message = FAULTS[fault]
    needs(framework)
    target = next(iter(targets(specs.add(str(page)))))
    path = page.with_name(f"fragile_{framework}.py")
    if old is None or new is None:
        path.unlink()
    else:
        change(path, old, new)
    recording = run_here(Job(target, framework, "float64", "cpu", ("forward",)), {})["forward"]
    assert message in recording.cause
    assert "\n" not in recording.cause
    assert not recording.unable


def test_the_line_of_a_port_that_raises_is_named(page: Path) -> None:
    needs("torch")
    path = page.with_name("fragile_torch.py")
    change(path, "class Fragile(", "def fail(x):\n    raise LookupError('of mine')\n\n\nclass Fragile(")
    change(path, "x = self.stem(images)", "x = fail(images) or self.stem(images)")
    target = next(iter(targets(specs.add(str(page)))))
    recording = run_here(Job(target, "torch", "float64", "cpu", ("forward",)), {})["forward"]
    raised = path.read_text().splitlines().index("    raise LookupError('of mine')") + 1
    assert recording.cause == f"LookupError: of mine ({path}, line {raised})"


def test_a_page_whose_port_is_missing_is_refused(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fragile:tiny S", "--spec", str(page), "--check", "forward", "--frameworks", "torch", "paddle"]
    page.with_name("fragile_paddle.py").rename(page.with_name("elsewhere.py"))
    assert main(words) == 2
    assert "fragile_paddle.py: there is no such file" in capsys.readouterr().err


def test_a_framework_that_is_not_installed_is_one_line(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for framework in ("torch", "paddle"):
        needs(framework)
    monkeypatch.setattr("ports.available", lambda: ["torch", "paddle"])
    words = ["fragile:tiny S", "--spec", str(page), "--check", "forward", "layers"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("not installed") == 1
    said = "flax is not installed, so 4 comparisons did not run (flax-torch and flax-paddle): pip install '.[flax]'"
    assert said in " ".join(printed.split())


def test_nan_in_a_checkpoint_is_one_verdict(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for framework in ("torch", "paddle"):
        needs(framework)
    import ports

    name = specs.add(str(page))
    port = ports.build(name, next(iter(specs.get(name).tiny.values())), "torch")
    port.model.blocks[0].fc1.weight.data[0, 0] = np.nan
    with pytest.warns(UserWarning, match="NaN"):
        port.save(tmp_path / "spoiled.safetensors")
    words = [str(tmp_path / "spoiled.safetensors"), "--spec", str(page), "--check", "forward"]
    assert main([*words, "--frameworks", "torch", "paddle", "--report", str(tmp_path / "a.html")]) == 1
    said = (tmp_path / "a.html").read_text().partition("<h2>What this does not show</h2>")[2]
    assert "The inputs were 2 images of seed 0: code that they do not reach" in re.sub("<[^>]*>", "", said)
    printed = capsys.readouterr()
    text = " ".join(printed.out.split())
    assert "NaN starts in 'blocks.0.fc1', whose inputs are finite: blocks.0.fc1.kernel holds NaN" in text
    assert text.startswith("Nothing is proven: blocks.0.fc1.kernel holds NaN. One comparison could not be judged.")
    assert "nothing was compared" not in printed.err


def test_a_port_that_draws_random_numbers_is_not_judged(page: Path, tmp_path: Path) -> None:
    needs("torch")
    path = page.with_name("fragile_torch.py")
    change(path, "x = self.stem(images)", "x = nn.functional.dropout(self.stem(images), 0.5, True)")
    target = next(iter(targets(specs.add(str(page)))))
    made = run_here(Job(target, "torch", "float32", "cpu", ("layers", "gradients")), {})
    assert made["layers"].truth is not None
    assert [made["layers"].random, made["layers"].truth.random, made["gradients"].random] == [True, True, False]
    archive.save(made["layers"], str(tmp_path / "a.npz"))
    assert archive.load(str(tmp_path / "a.npz")).random
    needs("paddle")
    assert not run_here(Job(target, "paddle", "float64", "cpu", ("forward",)), {})["forward"].random


def test_an_architecture_beside_its_page_says_how_the_page_is_named(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(page.parent)
    for name in ("fragile", "fragile:S"):
        assert main([name]) == 2
        assert "nor a file: if fragile.py is its page, add --spec fragile.py\n" in capsys.readouterr().err


def test_a_feature_map_that_no_port_calls_is_noted(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a layer, where modules without arrays may lie: the page itself shows no mistake."""
    for framework in ("torch", "paddle"):
        needs(framework)
    change(
        page, "    immaterial=immaterial,", '    immaterial=immaterial,\n    feature_maps=("blocks.#.nrom", "head"),'
    )
    for twin in ("S", "relu, headless"):  # another twin has the head
        words = [f"fragile:tiny {twin}", "--spec", str(page), "--check", "layers", "--frameworks", "torch", "paddle"]
        assert main(words) == 0
        printed = " ".join(capsys.readouterr().out.split())
        said = "feature_maps lists 'blocks.#.nrom', which this model never calls, did you mean 'blocks.#.norm'?"
        assert printed.count(said) == printed.count("feature_maps lists") == 1
