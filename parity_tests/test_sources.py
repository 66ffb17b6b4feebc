"""Which files a command line means, and what the targets made of them are called."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from convert.targets import target_name

from .commands import GOOGLE, listing
from .conftest import needs
from .golden import Case


def test_the_default_target_is_what_its_users_load(run, tmp_path):
    source = shutil.copy(GOOGLE, tmp_path / "Mixer.npz")
    for route, name in (("google2torch", "Mixer.safetensors"), ("google2flax", "Mixer.msgpack"),
                        ("google2paddle", "Mixer.pdparams")):  # fmt: skip
        assert run(route, source)[0] == 0
        assert name in listing(tmp_path)
    assert run("torch2google", tmp_path / "Mixer.safetensors", "-o", tmp_path / "again.npz")[0] == 0
    assert run("diff", source, tmp_path / "again.npz")[0] == 0


def test_inspect_takes_a_pattern_that_means_one_file(run, tmp_path):
    shutil.copy(GOOGLE, tmp_path / "Mixer.npz")
    code, printed, _ = run("inspect", tmp_path / "Mi*.npz")
    assert code == 0 and f"{tmp_path}/Mi*.npz means {tmp_path}/Mixer.npz" in printed
    shutil.copy(GOOGLE, tmp_path / "Mixer2.npz")
    code, _, err = run("inspect", tmp_path / "Mi*.npz")
    assert code == 1 and "means several checkpoints" in err


def test_a_dry_run_refuses_what_the_run_refuses(run, tmp_path):
    source = shutil.copy(GOOGLE, tmp_path / "mixer.npz")
    for words in ([], ["--dry-run"]):
        code, _, err = run("google2big_vision", source, "-o", source, "--force", *words)
        assert code == 2 and "is read itself" in err


def test_a_target_is_named_plainly(run, tmp_path):
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "nowhere" / ".." / "x.pt", "--json")
    assert (code, json.loads(printed)["out"]) == (0, str(tmp_path / "x.pt"))
    assert listing(tmp_path) == ["x.pt", "x.pt.json"]


def test_notes_on_one_of_several_files_name_it(run, tmp_path):
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    for name in ("a.npz", "b.npz"):
        shutil.copy(GOOGLE, tmp_path / "in" / name)
    notes = run("google2torch", tmp_path / "in", "-o", tmp_path / "out")[2].splitlines()
    said = "the file does not say, assumed as google's own code computes: gelu=tanh"
    for name in ("a.npz", "b.npz"):
        assert any(note.startswith(f"note: {tmp_path / 'in' / name}: {said}") for note in notes), notes
    notes = run("google2torch", tmp_path / "in" / "a.npz", "-o", tmp_path / "x.pt")[2].splitlines()
    assert any(note.startswith(f"note: {said}") for note in notes), notes


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
        assert f"1 of {1 + number} converted" in printed  # the other is Google's: passed over only in a folder
    (tmp_path / "tar").mkdir()
    shutil.copy(Case("locuslab_convmixer_gelu").folder / "checkpoint.pth.tar", tmp_path / "tar")
    assert run("official2torch", tmp_path / "tar", "-o", tmp_path / "x.pt", "--set", "act=gelu")[0] == 0


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


def test_checkpoints_of_a_folder_in_another_dialect_are_passed_over_by_name(run, tmp_path):
    """No failure, even where settings are open; a file that is named is one. Shards belong to their index."""
    folder = tmp_path / "in"
    folder.mkdir(), (tmp_path / "out").mkdir()
    shutil.copy(GOOGLE, folder / "a.npz"), shutil.copy(GOOGLE, folder / "b.npz")
    assert run("google2timm", GOOGLE, "-o", folder / "t.safetensors")[0] == 0
    assert run("google2torch", folder / "a.npz", "-o", folder / "s.safetensors", "--shard-size", "9kB")[0] == 0
    assert run("torch2torch", folder / "s.safetensors.index.json", "-o", tmp_path / "bare.pt")[0] == 0
    shutil.copy(tmp_path / "bare.pt", folder / "bare.pt")  # without its record
    code, printed, err = run("google2torch", folder, "-o", tmp_path / "out")
    assert (code, printed.splitlines()[-1]) == (0, "2 of 2 converted")
    for reason, name in (("dialect timm", "t.safetensors"), ("dialect torch", "bare.pt")):
        assert f"note: passed over, {reason}: {folder / name}\n" in err
    assert (
        f"note: passed over, which the same conversion of another file there wrote: {folder}/s.safetensors.index.json\n"
        in err
    )
    assert "s-0000" not in err and listing(tmp_path / "out") == ["a.safetensors", "b.safetensors"]
    found = json.loads(run("google2torch", folder, "-o", tmp_path / "out", "--force", "--json")[1])
    assert [one["passed_over"] for one in found if one["source"].endswith("bare.pt")] == ["dialect torch"]
    code, _, err = run("google2torch", folder / "a.npz", folder / "t.safetensors", "-o", tmp_path / "out", "--force")
    assert code == 1 and "every array fits as timm: use timm2torch" in err
    code, printed, err = run("paddle2torch", folder, "-o", tmp_path / "out", "--force")
    assert (code, printed) == (
        2,
        "",
    ) and f"{folder}: no checkpoint there has the dialect paddle\n  - passed over" in err


def test_what_of_a_folder_is_no_source_is_no_failure(run, tmp_path):
    """Paddle's optimizers by their names; a file of another architecture also where --config is of its neighbours."""
    folder = tmp_path / "in"
    folder.mkdir(), (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        assert run("google2paddle", GOOGLE, "-o", folder / f"{name}.pdparams")[0] == 0
    for name in ("a", "alone"):
        (folder / f"{name}.pdopt").write_bytes(b"")
    shutil.copy(Case("paddlevit_convmixer_gelu").folder / "weights.pdparams", folder / "c.pdparams")
    words = ("paddle2torch", folder, "-o", tmp_path / "out", "--config", folder / "a.pdparams")
    code, printed, err = run(*words)
    assert (code, printed.splitlines()[-1]) == (0, "2 of 2 converted"), err
    for reason, name in (
        ("the optimizer's state of the .pdparams with its name", "a.pdopt"),
        ("the state of an optimizer alone", "alone.pdopt"), ("dialect paddlevit", "c.pdparams"),
    ):  # fmt: skip
        assert f"note: passed over, {reason}: {folder / name}\n" in err


def test_several_sources_need_a_folder_which_is_to_be_created_first(run, tmp_path):
    shutil.copy(GOOGLE, tmp_path / "a.npz"), shutil.copy(GOOGLE, tmp_path / "b.npz")
    code, _, err = run("google2torch", tmp_path / "a.npz", tmp_path / "b.npz", "-o", tmp_path / "out")
    files = f"{tmp_path / 'a.npz'}, {tmp_path / 'b.npz'}"
    missing = "there is none of this name: create it, or give one of the files\n"
    assert code == 2 and err.endswith(f": the targets of 2 files ({files}) need a folder, and {missing}"), err
    assert not (tmp_path / "out").exists()
    code, _, err = run("google2torch", tmp_path / "a.npz", tmp_path / "b.npz", "-o", tmp_path / "a.npz")
    assert code == 2 and ") need a folder, and it is no folder, or give one of the files\n" in err, err


def test_a_folder_is_converted_a_second_time_without_what_the_first_time_made(run, tmp_path):
    """By a route, and by a Table; another route takes them. What is named by itself is a source."""
    shutil.copy(GOOGLE, tmp_path / "a.npz"), shutil.copy(GOOGLE, tmp_path / "b.npz")
    assert run("google2torch", tmp_path)[0] == 0
    code, printed, err = run("google2torch", tmp_path, "--force")
    assert code == 0 and "2 of 2 converted" in printed
    over = "note: passed over, which the same conversion of another file there wrote: "
    assert over + f"{tmp_path / 'a.safetensors'}, {tmp_path / 'b.safetensors'}" in err, err
    assert run("google2torch", tmp_path / "a.npz", tmp_path / "a.safetensors", "--force")[0] == 1
    (tmp_path / "out").mkdir()
    assert "2 of 2 converted" in run("torch2flax", tmp_path, "-o", tmp_path / "out")[1]
    both = tmp_path / "tables"
    both.mkdir(), (tmp_path / "x.table").write_text("table 1\na: i o <-> b: o i\n")
    for name in ("one", "two"):
        np.savez(both / f"{name}.npz", a=np.ones((2, 3)))
    words = ["--table", tmp_path / "x.table", both]
    assert run(*words)[0] == 0
    code, printed, err = run(*words, "--force")
    assert code == 0 and "2 of 2 converted" in printed and f"{over}{both}/" in err
    assert "2 of 4 converted" in run(*words, "--reverse", "-o", tmp_path / "out")[1]


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
    assert code == 2  # as for the name of one file that is not there
    assert "no file has such a name" in err


def test_two_sources_of_one_call_do_not_share_a_target(run, tmp_path):
    (tmp_path / "more").mkdir(), (tmp_path / "out").mkdir()
    for name in ("a.npz", "more/a.npz"):
        shutil.copy(GOOGLE, tmp_path / name)
    sources = tmp_path / "a.npz", tmp_path / "more" / "a.npz"
    code, printed, err = run("google2torch", *sources, "-o", tmp_path / "out", "--force")
    assert code == 1
    assert "1 of 2 converted" in printed
    assert f"from {sources[0]}: convert one of them to another -o" in err


def test_a_source_of_a_call_is_no_target_of_another_source(run, tmp_path):
    """In either order, one by one and in their folder."""
    arrays = {"w": np.ones((2, 3), np.float32)}
    np.savez(tmp_path / "m.npz", **arrays), save_file({"w": arrays["w"] + 1}, tmp_path / "m.safetensors")
    (tmp_path / "x.table").write_text("table 1\nw: i o <-> w: i o\n")
    words = ["--table", tmp_path / "x.table", "--force"]
    both = [tmp_path / "m.npz", tmp_path / "m.safetensors"]
    kept = [file.read_bytes() for file in both]
    for files in (both, both[::-1], [tmp_path / "nothing.npz", *both], [tmp_path, "-o", tmp_path]):
        code, _, err = run(*words, *files)
        assert code == 1 and err.count("m.safetensors: is read itself, or as a part of what is read: ") == 2, err
        assert [file.read_bytes() for file in both] == kept


def test_shards_of_a_source_of_a_call_are_not_replaced_by_another_target(run, tmp_path):
    np.savez(tmp_path / "n.npz", w=np.ones((2, 3), np.float32), v=np.ones((2, 3), np.float32))
    (tmp_path / "x.table").write_text("table 1\nw: i o <-> w: i o\nv: i o <-> v: i o\n")
    words, index = ["--table", tmp_path / "x.table", tmp_path / "n.npz"], tmp_path / "n.safetensors.index.json"
    assert run(*words, "-o", tmp_path / "n.safetensors", "--shard-size", "24B")[0] == 0
    before = listing(tmp_path)
    code, _, err = run(*words, index, "--force")
    assert code == 1 and f"{index}: is read itself, or as a part of what is read" in err, err
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("source", "expected"), [
    ("m.npz", "m"), ("m.pth.tar", "m"), ("m.tar", "m"), ("m.safetensors.index.json", "m"), ("m.v1.2", "m.v1.2"),
    ("m.orbax/", "m"), ("epoch_1", "epoch_1"), ("M.NPZ", "M"),
])  # fmt: skip
def test_a_target_is_named_after_its_source(source, expected):
    assert target_name(f"somewhere/{source}", ".msgpack", None) == f"somewhere/{expected}.msgpack"


def test_tied_arrays_of_the_source_that_become_two_are_noted(run, tmp_path):
    """Which a Table notes too: training parts them."""
    needs("torch")
    import torch

    import ports

    port = ports.build("mlp_mixer", "tiny S/16", "torch", depth=2)
    port.save(tmp_path / "settings.safetensors")
    blocks = port.model.blocks
    blocks[1].norm1.weight = blocks[0].norm1.weight
    torch.save(port.model.state_dict(), tmp_path / "tied.pt")
    said = "note: tied in the source, and an array each in the target (a .pt stores equal ones once): "
    words = ["--config", tmp_path / "settings.safetensors", "--force"]
    code, _, err = run("torch2flax", tmp_path / "tied.pt", *words, "-o", tmp_path / "two.msgpack")
    assert code == 0 and f"{said}blocks.1.norm1.weight = blocks.0.norm1.weight\n" in err, err
    code, _, err = run("flax2torch", tmp_path / "two.msgpack", "-o", tmp_path / "back.pt")
    assert code == 0 and "tied" not in err, err
