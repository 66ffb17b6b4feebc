"""Folders as targets: they appear whole, replace only checkpoints, and leave nothing behind."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from safetensors.numpy import save_file

import convert
from convert.errors import ConvertError
from convert.files import atomic_folder as folders
from convert.files import open_checkpoint

from .commands import GOOGLE, ROOT, listing, python_path
from .test_distributed import needs_module, suffix, translate  # noqa: F401  (suffix is a fixture)


def test_an_existing_target_is_kept_unless_forced(run, suffix, tmp_path, monkeypatch):  # noqa: F811
    out = tmp_path / f"m{suffix}"
    translate(GOOGLE, out, "torch")
    code, _, err = run("google2torch", GOOGLE, "-o", out)
    assert code == 2
    assert "--force replaces it" in err
    for flag in (folders.EXCHANGE, 1 << 20):  # a file system that knows no exchange answers as to an unknown flag
        monkeypatch.setattr(folders, "EXCHANGE", flag)
        before = (out / "triptych.json").stat().st_ino
        assert run("google2torch", GOOGLE, "-o", f"{out}/", "--force")[0] == 0
        assert (out / "triptych.json").stat().st_ino != before
        assert listing(tmp_path) == [out.name]
    assert run("verify", out)[0] == 0


def test_force_replaces_our_own_folders_only(run, suffix, tmp_path):  # noqa: F811
    """Not a folder of something else, nor a checkpoint that others wrote, nor one that holds a file of the user's."""
    out = tmp_path / f"m{suffix}"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    code, _, err = run("google2torch", GOOGLE, "-o", out, "--force")
    assert code == 1
    assert (
        "thesis.tex, which this converter does not write, and is no checkpoint folder that this converter wrote" in err
    )
    assert listing(out) == ["thesis.tex"]
    shutil.rmtree(out)
    translate(GOOGLE, out, "torch")
    (out / "logs").mkdir()
    (out / "logs" / "events").write_text("precious")
    code, _, err = run("google2torch", GOOGLE, "-o", out, "--force")
    assert (code, (out / "logs" / "events").exists()) == (1, True)
    assert "holds logs/events, which this converter does not write, so --force" in err
    shutil.rmtree(out / "logs")
    (out / "triptych.json").unlink()  # as in one that the framework wrote
    before = listing(out)
    code, _, err = run("google2torch", GOOGLE, "-o", out, "--force")
    assert (code, listing(out)) == (1, before)
    assert "so --force does not replace it: move it away" in err


def test_a_temporary_of_another_program_is_kept(run, suffix, tmp_path):  # noqa: F811
    """Only what has our own name is swept, and that is named."""
    other, ours = tmp_path / f".m{suffix}.part", tmp_path / f".m{suffix}.triptych.part"
    for folder in (other, ours):
        folder.mkdir()
        (folder / "half").write_text("half")
    _, _, err = run("google2torch", GOOGLE, "-o", tmp_path / f"m{suffix}")
    assert f"note: removed {ours}\n" in err
    assert listing(tmp_path) == [other.name, f"m{suffix}"]


def test_a_target_is_not_its_source(run, suffix, tmp_path):  # noqa: F811
    there = translate(GOOGLE, tmp_path / f"m{suffix}", "flax")
    inner = shutil.copy(GOOGLE, there / "inner.npz")
    before = listing(there)
    (tmp_path / f"link{suffix}").symlink_to(there)
    link, deeper = tmp_path / f"link{suffix}", there / f"x{suffix}"
    for source, out in [(there, there), (there, link), (inner, there), (there, deeper)]:
        code, _, err = run("flax2torch" if source == there else "google2torch", source, "-o", out, "--force")
        assert code == 2
        assert "source" in err
        assert listing(there) == before


def failing(monkeypatch, error):
    """The next record that is hashed fails; nothing is finished then."""

    def fail(*_):
        raise error

    monkeypatch.setattr("convert.files.hashing.Digest.line", fail)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_nothing_is_left_of_a_failure(suffix, tmp_path, monkeypatch, error):  # noqa: F811
    old = translate(GOOGLE, tmp_path / f"old{suffix}", "torch")
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    failing(monkeypatch, error)
    for out, force in [(old, True), (tmp_path / f"new{suffix}", False)]:
        with pytest.raises((ConvertError, KeyboardInterrupt)):
            translate(GOOGLE, out, "torch", force=force)
        assert listing(tmp_path) == [old.name]
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()} == before


def test_one_of_two_conversions_wins(run, suffix, tmp_path):  # noqa: F811
    out, part = tmp_path / f"m{suffix}", tmp_path / f".m{suffix}.triptych.part"
    part.mkdir()
    (part / "half").touch()
    lock = os.open(part, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)  # the weakest lock keeps an exclusive one out
    code, _, err = run("google2torch", GOOGLE, "-o", out)
    assert code == 1
    assert "another conversion is writing it" in err
    assert listing(part) == ["half"]
    os.close(lock)  # its owner was killed: what it left is taken over
    assert run("google2torch", GOOGLE, "-o", out)[0] == 0
    assert listing(tmp_path) == [out.name]
    assert "half" not in listing(out)


KILLED = """
    import os, signal, sys, convert, convert.files.atomic_folder as folders
    where, source, out = sys.argv[1:]
    original = getattr(folders, where)
    def kill(*arguments):
        if where == "_remove":
            original(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(folders, where, kill)
    with convert.plan(source, dst="torch") as plan:
        plan.write(out, force=True)
"""


@pytest.mark.parametrize("where", ["publish", "_swap", "_remove"])
def test_killed_while_publishing(where, tmp_path):
    needs_module("tensorstore", "orbax")
    out = translate(GOOGLE, tmp_path / "m.orbax", "flax")
    with open_checkpoint(out) as reader:  # as messages call it
        assert reader.called == "orbax folder"
    words = [sys.executable, "-c", textwrap.dedent(KILLED), where, str(GOOGLE), str(out)]
    environment = {**os.environ, **python_path()}
    killed = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with convert.plan(out) as plan:  # the old one or the new one, whole
        assert plan.src == ("torch" if where == "_remove" else "flax")
    translate(GOOGLE, out, "torch", force=True)
    assert listing(tmp_path) == [out.name]


def test_folders_of_checkpoints_convert_in_one_call(run, suffix, tmp_path):  # noqa: F811
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    translate(GOOGLE, tmp_path / "in" / f"a{suffix}", "torch")
    translate(GOOGLE, tmp_path / "in" / "b.safetensors", "torch")
    (tmp_path / "in" / "notes").mkdir()
    code, printed, _ = run("torch2flax", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 0
    assert "2 of 2 converted" in printed
    assert {"a.msgpack", "b.msgpack"} <= set(listing(tmp_path / "out"))


def test_a_folder_is_no_place_for_a_target_made_of_it(run, suffix, tmp_path):  # noqa: F811
    source = tmp_path / f"m{suffix}"
    translate(GOOGLE, source, "torch")
    before = listing(source)
    code, _, err = run("torch2flax", source, "-o", source / "x.msgpack")
    assert (code, listing(source)) == (2, before)
    assert ": give another -o" in err and " the source " in err


def test_a_folder_without_the_list_of_its_arrays(run, suffix, tmp_path):  # noqa: F811
    """It is named for what it lacks, alone, inside another folder and by inspect."""
    marker = {".orbax": "_METADATA", ".dcp": ".metadata"}[suffix]
    source = tmp_path / "in" / f"m{suffix}"
    source.parent.mkdir()
    translate(GOOGLE, source, "torch")
    (source / marker).unlink()
    for words in (["torch2flax", source], ["inspect", source]):
        code, _, err = run(*words)
        assert code == 1 and f"lacks {marker} (copy the whole folder again)" in err
    save_file({"w": np.ones(3, "f4")}, tmp_path / "in" / "x.safetensors")
    assert f"lacks {marker}" in run("torch2flax", tmp_path / "in")[2]


def test_a_checkpoint_in_a_folder_of_steps_is_taken(run, suffix, tmp_path):  # noqa: F811
    """A step of CheckpointManager has a file beside its items, and lacks none."""
    step = tmp_path / "run" / "10"
    step.mkdir(parents=True)
    (step / "_CHECKPOINT_METADATA").write_text("{}")
    translate(GOOGLE, step / f"state{suffix}", "torch")
    code, out, err = run("torch2flax", tmp_path / "run", "-o", tmp_path / "x.msgpack")
    assert code == 0 and f"took 10 of {tmp_path / 'run'}" in err and f"{step}/state{suffix}" in out
    assert run("torch2flax", step)[0] == 0
