"""Several models in one command: a setting goes to those that have it, and files have names that tell them apart."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from convert.config.settings import Settings
from convert.errors import ConvertError, UsageError
from parity.given.several import every_target
from parity.given.targets import Target

GOLDENS = Path(__file__).parent.parent / "goldens"
MIXER, OPEN = (str(GOLDENS / name) for name in ("timm_mixer/model.safetensors", "locuslab_convmixer_gelu/weights.pth"))


def read(*texts: str, **chosen: Any) -> list[Target]:
    return every_target(texts, Settings().above(chosen), {"assume": False})


def copy(folder: Path, *names: str) -> str:
    path = folder.joinpath(*names)
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(shutil.copy(MIXER, path))


def test_files_of_one_basename_are_named_by_the_ends_of_their_paths(tmp_path: Path) -> None:
    a, b, c = (copy(tmp_path, *names) for names in (("x", "one", "m.st"), ("x", "two", "m.st"), ("y", "two", "m.st")))
    assert [t.variant for t in read(a, b, MIXER)] == ["one/m.st", "two/m.st", "model.safetensors"]
    assert [t.variant for t in read(a, b, c)] == ["one/m.st", "x/two/m.st", "y/two/m.st"]
    assert [t.variant for t in read(a, a)] == ["m.st", "m.st"]  # one file is one model


def test_a_setting_goes_to_the_models_that_have_it() -> None:
    convmixer, mixer = read(OPEN, MIXER, act="gelu")
    assert convmixer.settings["act"] == "gelu" and "act" not in mixer.settings
    twins = read("mlp_mixer:tiny S/16", "convmixer", act="relu")
    assert {t.settings.get("act") for t in twins if t.architecture == "convmixer"} == {"relu"}
    assert not twins[0].settings


def test_a_setting_that_no_model_has_is_refused() -> None:
    with pytest.raises(ConvertError, match="unknown name 'akt'"):
        read("mlp_mixer:tiny S/16", "convmixer", akt="relu")
    with pytest.raises(ConvertError, match="unknown name 'act'"):
        read(MIXER, act="relu")


def test_refusals_of_all_files_are_listed_at_once() -> None:
    with pytest.raises(ConvertError) as refused:
        read(OPEN, "nothere.npz", MIXER)
    assert (refused.value.message, refused.value.code) == ("2 refusals", 2)
    assert ["act is open" in line for line in refused.value.problems] == [True, False]
    with pytest.raises(ConvertError) as refused:
        read(OPEN, MIXER, akt="gelu")
    assert ["unknown name 'akt'" in line for line in refused.value.problems] == [False, True]


def test_a_page_of_an_architecture_is_answered_with_its_option(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fault.py").write_text("raise SystemExit('was run')")
    with pytest.raises(
        UsageError, match=r"fault\.py: is Python code, not a checkpoint .*parity fault --spec fault\.py"
    ):
        read("fault.py")


def test_files_are_not_compared_with_each_other_which_a_note_says_at_once(tmp_path: Path, capsys: Any) -> None:
    other = copy(tmp_path, "other.safetensors")
    for text in (f"{tmp_path}/none.pt", other):
        with suppress(ConvertError):
            read(MIXER, text)
        notes = " ".join(capsys.readouterr().err.split())
        said = "note: each file is compared with itself, as several frameworks run it, and not with another file"
        assert notes.startswith(said) == (text == other)
        assert (f"python -m convert diff {MIXER} {other}`" in notes) == (text == other)
        assert ("parity.md, Your own two models, shows how" in notes) == (text == other)
    read(MIXER, MIXER)
    assert "another file" not in capsys.readouterr().err
