"""What a report says of where its numbers come from: the code of Triptych, the user's script, weights and inputs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.running import provenance


def test_code_that_was_edited_is_told_from_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = provenance.code.__wrapped__  # without its cache
    monkeypatch.setattr(provenance, "ROOT", str(tmp_path))
    for part in provenance.PACKAGES:
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.py").write_text("x = 1")
    before = code()
    assert re.fullmatch("files [0-9a-f]{12}", before)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    clean = code()
    assert re.fullmatch("commit [0-9a-f]{12}", clean)
    (tmp_path / "parity" / "a.py").write_text("x = 2")
    edited = re.fullmatch(f"{clean}, modified: (files [0-9a-f]{{12}})", code())
    assert edited and edited[1] != before


def test_a_machine_without_a_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.glob, "glob", lambda pattern: [])
    assert provenance.graphics() == "none found"
    monkeypatch.setattr(provenance.glob, "glob", lambda pattern: ["/dev/nvidia0"] * pattern.startswith("/dev/nvidia"))
    assert provenance.graphics() == "of unknown name"


def test_a_hash_of_arrays_sees_values_names_and_shapes_and_not_their_order() -> None:
    a, b = np.arange(4.0), np.ones(2)
    first = provenance.fingerprint({"a": a, "b": b})
    assert first == provenance.fingerprint({"b": b, "a": a}) and re.fullmatch("sha256 [0-9a-f]{16}", first)
    others = [{"a": a + 1e-16 * (a == 0), "b": b}, {"a": b, "b": a}, {"a": a.reshape(2, 2), "b": b}, {"a": a}]
    assert first not in map(provenance.fingerprint, others)


def test_a_comparison_of_own_models_can_be_reproduced_from_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import parity

    (tmp_path / "mine.py").write_text("x = 1")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "mine.py"), raising=False)
    torch.manual_seed(0)
    a, b, c = (torch.nn.Linear(4, 3) for _ in range(3))
    b.load_state_dict(a.state_dict())
    about = parity.compare({"a": a, "b": b, "c": c}, np.ones((2, 4), "float32"), "layers").about
    assert re.fullmatch(r".*mine\.py, sha256 [0-9a-f]{64}", about["script"])
    assert about["models"] == "Linear (a), Linear (b) and Linear (c)"
    assert ", float64 and float32, cpu, evaluation mode" in about["a"]
    assert about["hash of inputs"] == provenance.fingerprint({"images": np.ones((2, 4), "float32")})
    assert re.fullmatch("from no file, 2 arrays, sha256 [0-9a-f]{16}", about["a weights"])
    assert about["a weights"] == about["b weights"] != about["c weights"]
    trained = parity.compare({"a": a, "b": b}, np.ones((2, 4)), "train", dtype="float64", steps=2).about
    assert "training" not in about and trained["training"] == (
        "2 steps of SGD (momentum=0.875), and of Adam and AdamW (beta1=0.875, beta2=0.984375, epsilon=2.44140625e-4): "
        "learning rate 9.765625e-4, weight decay 0.03125; each step adds other noise to inputs that are no integers"
    )
