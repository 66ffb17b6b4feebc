"""The files that `python -m convert derive` reads and writes, and what goes to standard output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import convert
from convert.errors import ConvertError, UsageError
from parity.derive.command import run
from parity.running.ended import Ended, without_end

torch = pytest.importorskip("torch")

CODE = """
import os
import torch
from parity_tests.derive.test_user_code import X

class Loud(torch.nn.Linear):
    def forward(self, x):
        os.write(1, b"written")
        os.system("echo said")
        print("printed")
        return super().forward(x)

def build():
    return Loud(4, 2), (X,)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with code of a model, a checkpoint of it, and lines of its Table."""
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(CODE)
    np.savez("trained.npz", weight=np.ones((2, 4)), bias=np.ones(2))
    Path("known.table").write_text("table 1\n# by hand\nweight: o i <-> weight: o i\n")
    return tmp_path


SIDES = "m.py:build", "m.py:build"


@pytest.mark.parametrize("option", ["out", "report"])
@pytest.mark.parametrize("name", ["m.py", "trained.npz", "known.table"])
def test_what_is_read_is_not_written(folder: Path, option: str, name: str):
    before, files = Path(name).read_bytes(), {"start": "known.table", "left_weights": "trained.npz"}
    with pytest.raises(UsageError, match=f"{name}: is read itself"):
        run(*SIDES, **{"out": None, "as_json": False, "force": True, **files, option: name})
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("option", ["out", "report"])
def test_only_a_file_of_the_kind_that_is_written_is_replaced(folder: Path, option: str, force: bool):
    Path("m.py").write_text("raise AssertionError\n")
    Path("helper.py").write_text("# table 1\nWIDTH = 6\n")
    what = {"out": "Table", "report": r"page \(HTML\)"}[option]
    with pytest.raises(UsageError, match=rf"^helper\.py: is no {what}, so force=True does not replace it: give "):
        run(*SIDES, **{"out": None, "as_json": False, "force": force, option: "helper.py"})
    assert Path("helper.py").read_text() == "# table 1\nWIDTH = 6\n"


def test_a_table_a_page_and_an_empty_file_are_replaced(folder: Path):
    Path("m.table").touch()
    for text in ("", "# mine\n\n\t# of 2025\r\n", "table 1\nwrong"):
        Path("m.table").write_text(f"{text}{Path('m.table').read_text()}" if text.startswith("#") else text)
        assert run(*SIDES, "m.table", False, report="m.html", force=True) == 0
        assert Path("m.table").read_text().startswith("table 1") and Path("m.html").stat().st_size > 9999


@pytest.mark.parametrize("report", ["x", "./x", "link"])
def test_the_table_and_the_page_are_two_files(folder: Path, report: str):
    Path("link").symlink_to("x")
    with pytest.raises(UsageError, match="is the file of -o and of --report: give two names"):
        run(*SIDES, "x", False, report=report, force=True)


@pytest.mark.parametrize("out", ["dangling", "/proc/x"])
def test_places_that_take_no_file_are_refused_before_code_is_run(folder: Path, out: str):
    Path("m.py").write_text("raise AssertionError\n")
    Path("dangling").symlink_to("nowhere/x")
    with pytest.raises(UsageError, match=f"^{out}: cannot be written: No such file or directory: give another place"):
        run(*SIDES, out, False, force=True)


def test_a_table_that_cannot_be_written_to_the_end_is_named(folder: Path):
    with pytest.raises(ConvertError, match=r"^/dev/full: No space left on device$"):
        run(*SIDES, "/dev/full", False, force=True)


def test_what_a_model_prints_in_any_way_goes_to_standard_error(folder: Path, capfd: pytest.CaptureFixture[str]):
    assert run(*SIDES, None, as_json=True) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["verdict"] == "proven"
    assert all(text in err for text in ("written", "said", "printed"))


def test_a_request_to_end_goes_through_code_of_the_user():
    handler = compile("raise SystemExit(143)", convert.__file__.replace("__init__", "__main__"), "exec")
    with pytest.raises(SystemExit), without_end():
        exec(handler)
    with pytest.raises(KeyboardInterrupt), without_end():
        raise KeyboardInterrupt
    with pytest.raises(Ended, match="SystemExit: 143"), without_end():
        raise SystemExit(143)


def test_an_order_of_another_table_is_not_replaced(folder: Path):
    """The order of rows stands in a file beside a Table."""
    Path("order.txt").write_text("1\n0\n2\n")
    Path("m.py").write_text("""
import torch
from parity_tests.derive.test_user_code import X

class Picked(torch.nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order, self.fc, self.head = order, torch.nn.Linear(4, 7), torch.nn.Linear(7, 2)

    def forward(self, x):
        return self.head(self.fc(x)[:, self.order].tanh())

left = lambda: (Picked([0, 1, 2, 3, 4, 5, 6]), (X,))
right = lambda: (Picked([3, 0, 6, 1, 5, 2, 4]), (X,))
""")
    with pytest.raises(ConvertError, match=r"order\.txt: exists with other numbers: save the table into another"):
        run("m.py:left", "m.py:right", "x.table", as_json=False, force=True)
    assert not Path("x.table").exists() and Path("order.txt").read_text() == "1\n0\n2\n"
