"""Sharded safetensors: written as the official tools lay them out, read back with every reference checked."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import convert
from convert.errors import ConvertError, FormatError
from convert.files import open_checkpoint
from convert.files.hashing import Source

from .commands import GOOGLE, GOOGLE_NOTE, TIMM, listing


@pytest.fixture
def sharded(tmp_path):
    with convert.plan(GOOGLE, dst="torch") as plan:
        plan.write(tmp_path / "m.safetensors", shard_size=8000)
    return tmp_path / "m.safetensors.index.json"


def test_shards_hold_the_same_tensors(sharded, tmp_path):
    with convert.plan(GOOGLE, dst="torch") as plan:
        whole = dict(plan.arrays())
    index = json.loads(sharded.read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 3
    assert shards == [f"m-{k + 1:05}-of-{len(shards):05}.safetensors" for k in range(len(shards))]
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in whole.values())
    for name in shards:
        arrays = load_file(tmp_path / name)
        assert sum(a.nbytes for a in arrays.values()) <= 8000
        assert all(
            index["weight_map"][tensor] == name and np.array_equal(a, whole[tensor]) for tensor, a in arrays.items()
        )


def test_an_index_of_a_variant(sharded, tmp_path, run):
    """model.safetensors.index.fp16.json, as diffusers names it, beside model.fp16-00001-of-00002.safetensors."""
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    for shard in tmp_path.glob("m-*.safetensors"):
        shard.rename(tmp_path / "in" / shard.name.replace("m-", "m.fp16-"))
    text = sharded.read_text().replace("m-0", "m.fp16-0")
    (tmp_path / "in" / "m.safetensors.index.fp16.json").write_text(text)
    assert run("torch2flax", tmp_path / "in", "-o", tmp_path / "out")[0] == 0
    assert listing(tmp_path / "out") == ["m.msgpack", "m.msgpack.json"]


def test_shards_convert_verify_and_prove(run, sharded, tmp_path):
    code, printed, _ = run("torch2google", sharded, "-o", tmp_path / "back.npz", "--json")
    assert code == 0
    assert json.loads(printed)["config"]["gelu"] == "tanh"  # the record travels in the index
    assert run("diff", GOOGLE, tmp_path / "back.npz")[0] == 0
    assert run("verify", sharded)[0] == 0
    out = tmp_path / "again.safetensors"
    code, printed, err = run("google2torch", GOOGLE, "-o", out, "--shard-size", "9kB", "--prove", "--json")
    assert code == 0, err
    assert json.loads(printed)["proof"]["error"] < 1e-12  # measured 1e-15
    assert not [name for name in listing(tmp_path) if "unproven" in name or name.endswith(".part")]


def test_a_sharded_source_is_hashed_and_watched_whole(run, sharded, tmp_path):
    shards = sorted(tmp_path.glob("m-*"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n" for path in (sharded, *shards)]
    assert run("torch2flax", sharded, "-o", tmp_path / "x.msgpack")[0] == 0
    record = json.loads((tmp_path / "x.msgpack.json").read_text())
    assert record["source"]["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    with Source(str(sharded)) as source:
        os.utime(shards[-1], ns=(1, 1))
        with pytest.raises(ConvertError, match="changed while it was read"):
            source.sha256()


def test_verify_has_every_shard_read_from_the_disk(run, sharded, tmp_path, monkeypatch):
    let_go = []

    def advise(fd, start, length, advice):
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        let_go.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    assert run("verify", sharded)[0] == 0
    assert sorted(let_go) == sorted(str(path) for path in (sharded, *tmp_path.glob("m-*")))


def test_a_large_shard_size_makes_one_file(run, tmp_path):
    assert run("google2torch", GOOGLE, "-o", tmp_path / "m.safetensors", "--shard-size", "5GB")[0] == 0
    assert listing(tmp_path) == ["m.safetensors"]
    for size in ("big", "0", "-1", "9" * 400):
        code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "n.safetensors", f"--shard-size={size}")
        assert code == 2
        assert "5GB" in err


def test_an_existing_shard_is_kept(tmp_path):
    (tmp_path / "m.safetensors.index.json").write_text("precious")
    with convert.plan(GOOGLE, dst="torch") as plan, pytest.raises(ConvertError, match="is no index of shards"):
        plan.write(tmp_path / "m.safetensors", shard_size=8000)
    assert listing(tmp_path) == ["m.safetensors.index.json"]


def change(index, **fields):
    content = json.loads(index.read_text())
    content.update(fields)
    index.write_text(json.dumps(content))


def first(index):
    return next(iter(json.loads(index.read_text())["weight_map"].items()))


def outside(index, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    name = first(index)[1]
    os.rename(tmp_path / name, tmp_path / "elsewhere" / name)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere" / name)


def twice(index, tmp_path):
    """A tensor in a second shard too, with other values: which is it?"""
    name = first(index)[0]
    other = sorted(tmp_path.glob("m-*"))[-1]
    arrays = load_file(other)
    save_file({**arrays, name: np.zeros(3, np.float32)}, other)


def test_the_cache_of_hugging_face_links_every_file(run, sharded, tmp_path):
    """To blobs beside each other; a shard that is linked elsewhere is refused there too."""
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "r1").mkdir(parents=True)
    for number, path in enumerate([sharded, *sorted(tmp_path.glob("m-*"))]):
        os.rename(path, cache / "blobs" / str(number))
        (cache / "snapshots" / "r1" / path.name).symlink_to(f"../../blobs/{number}")
    for given in (cache, cache / "snapshots" / "r1", cache / "snapshots" / "r1" / sharded.name):
        code, _, err = run("torch2flax", given, "-o", tmp_path / "x.msgpack", "--force")
        assert code == 0, err
    os.rename(cache / "blobs" / "1", tmp_path / "1")
    (cache / "blobs" / "1").symlink_to("../../1")
    with pytest.raises(FormatError, match="link out of its folder"):
        open_checkpoint(cache / "snapshots" / "r1" / sharded.name)


DAMAGE = {
    "not a plain file name": lambda i, t: change(i, weight_map={"a": "../x.safetensors"}),
    "shard '/etc/passwd'": lambda i, t: change(i, weight_map={"a": "/etc/passwd"}),
    "link out of its folder": outside,
    "which is not there": lambda i, t: (t / first(i)[1]).unlink(),
    "does not list": lambda i, t: change(i, weight_map=dict([first(i)])),
    "does not list there": lambda i, t: twice(i, t),
    "where the index has it": lambda i, t: change(i, weight_map={"nothing": first(i)[1]}),
    "no weight_map": lambda i, t: change(i, weight_map=[1]),
    "cannot be read as JSON": lambda i, t: i.write_text('{"weight_map": '),
    "twice": lambda i, t: i.write_text('{"weight_map": {}, "weight_map": {}}'),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_bad_indices_are_refused(sharded, tmp_path, message):
    DAMAGE[message](sharded, tmp_path)
    with pytest.raises(FormatError, match=message):
        open_checkpoint(sharded)


def test_a_shard_of_another_version_shows_in_the_size(run, sharded, tmp_path):
    """As in float16, from an earlier download."""
    shard = tmp_path / first(sharded)[1]
    save_file({name: array.astype(np.float16) for name, array in load_file(shard).items()}, shard)
    for words in (["inspect", sharded], ["torch2flax", sharded, "-o", tmp_path / "x.msgpack"]):
        code, out, err = run(*words)
        assert code == 0 and "the index states a total_size of " in out + err


def test_an_index_that_lists_itself_is_refused(run, sharded, tmp_path):
    change(sharded, weight_map={"a": sharded.name})
    code, _, err = run("torch2flax", sharded, "-o", tmp_path / "x.msgpack")
    assert code == 1 and f"{sharded.name}: names the shard {sharded.name!r}: an index or a folder" in err


@pytest.mark.parametrize("linked", [False, True])
def test_a_shard_that_is_not_there_is_told(run, sharded, tmp_path, linked):
    """As after a download that broke off, and where the cache lost what a link leads to: a fault of the checkpoint."""
    shard = sorted(tmp_path.glob("m-*"))[1]
    shard.unlink()
    if linked:
        shard.symlink_to("nowhere")
    code, _, err = run("torch2flax", sharded, "-o", tmp_path / "x.msgpack")
    assert code == 1
    assert "m-00002-of-0000" in err and ("which is a link to no file" if linked else "which is not there") in err


def test_inspect_names_the_index_of_a_shard_and_no_nearest_architecture(run, sharded, tmp_path):
    first = sorted(tmp_path.glob("m-*"))[0]
    printed = run("inspect", first)[1]
    assert "note:         it is shard 1 of " in printed and "nearest" not in printed


SUFFIXES = (".bin", ".msgpack", ".npz", ".pdparams", ".safetensors")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shards_of_every_format_that_is_one_file(run, suffix, tmp_path):
    """Written, verified, read, replaced by other shards and by one file, with nothing left of the old ones."""
    out = tmp_path / f"m{suffix}"
    index = f"{out}.index.json"
    assert run("timm2timm", TIMM, "-o", out, "--shard-size", "30kB")[0] == 0
    shards = [name for name in listing(tmp_path) if "-of-" in name]
    assert len(shards) > 1 and listing(tmp_path) == sorted([*shards, f"m{suffix}.index.json"])
    assert run("verify", index)[0] == 0 and run("diff", index, TIMM)[0] == 0
    assert run("timm2timm", TIMM, "-o", index, "--shard-size", "1GB")[0] == 2  # without --force
    assert run("timm2timm", TIMM, "-o", index, "--shard-size", "1GB", "--force")[0] == 0
    assert listing(tmp_path) == [f"m-00001-of-00001{suffix}", f"m{suffix}.index.json"]
    assert run("timm2timm", TIMM, "-o", out, "--force")[0] == 0
    beside = [] if suffix == ".safetensors" else [f"m{suffix}.json"]
    assert listing(tmp_path) == [f"m{suffix}", *beside]
    assert run("timm2timm", TIMM, "-o", out, "--shard-size", "30kB", "--force")[0] == 0
    assert listing(tmp_path) == sorted([*shards, f"m{suffix}.index.json"])
    with open(tmp_path / shards[0], "r+b") as file:  # a bit of the last payload
        file.seek(-300 if suffix in (".npz", ".bin") else -9, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert run("verify", index)[0] == 1


def test_an_index_as_target_needs_a_size(run, tmp_path):
    code, _, err = run("timm2timm", TIMM, "-o", tmp_path / "m.bin.index.json")
    assert code == 2 and "--shard-size" in err and listing(tmp_path) == []
    code, _, err = run("google2flax", GOOGLE, "-o", tmp_path / "m.orbax", "--shard-size", "10kB")
    assert code == 2 and "a folder is not written in shards" in err and listing(tmp_path) == []


def rename_index(folder, old, new):
    os.rename(folder / f"{old}.safetensors.index.json", folder / f"{new}.safetensors.index.json")


@pytest.mark.parametrize("more", [[], ["--shard-size", "9kB"]], ids=["one shard's name", "its shards' names"])
def test_no_part_of_a_source_is_overwritten(more, run, sharded, tmp_path):
    """Also where its index has another name than its shards."""
    rename_index(tmp_path, "m", "other")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    source, shard = tmp_path / "other.safetensors.index.json", sorted(tmp_path.glob("m-*"))[0]
    out = tmp_path / "m.safetensors" if more else shard
    code, _, err = run("torch2torch", source, "-o", out, "--force", *more)
    if more:  # nothing of it has those names
        assert code == 0
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    else:
        assert code == 2
        assert "is read itself, or as a part of what is read" in err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run("inspect", source)[0] == 0


def test_force_keeps_shards_that_somebody_else_wrote(run, tmp_path):
    """As of a downloaded model, of which no file has the target's name."""
    save_file({"precious": np.ones(3, np.float32)}, tmp_path / "m-00001-of-00001.safetensors")
    index = {"metadata": {"total_size": 12}, "weight_map": {"precious": "m-00001-of-00001.safetensors"}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    before = listing(tmp_path)
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "m.safetensors", "--force")
    assert code == 1 and "m.safetensors.index.json: is of a checkpoint that this converter did not write" in err, err
    assert listing(tmp_path) == before


def test_force_removes_only_shards_of_the_target(run, tmp_path):
    """Not a downloaded model whose index is missing, which has the same names; what is removed is named."""
    out, index = tmp_path / "m.safetensors", tmp_path / "m.safetensors.index.json"
    foreign = [tmp_path / f"m-0000{k}-of-00002.safetensors" for k in (1, 2)]
    for path in foreign:
        save_file({"precious": np.ones(3, np.float32)}, path)
    words = "google2torch", GOOGLE, "-o", out, "--force"
    assert run(*words)[0] == 0
    assert run(*words, "--shard-size", "9kB")[0] == 0
    assert all(list(load_file(path)) == ["precious"] for path in foreign)
    ours = sorted({str(tmp_path / name) for name in json.loads(index.read_text())["weight_map"].values()})
    code, printed, err = run(*words, "--json")
    assert code == 0
    assert sorted(json.loads(printed)["removed"]) == sorted([*ours, str(index)])
    assert err == f"{GOOGLE_NOTE}note: removed {index}, {', '.join(reversed(ours))}\n"
    assert listing(tmp_path) == sorted([out.name, *(path.name for path in foreign)])
    with convert.plan(GOOGLE, dst="torch") as plan:
        size = sum(tensor.nbytes for tensor, _ in plan.steps) * 2 // 3  # two shards, as the foreign ones are
    code, _, err = run(*words, "--shard-size", f"{size}B")
    assert code == 1
    assert f"{foreign[0]}: exists, and {index} does not list it, so --force does not replace it" in err
    assert all(list(load_file(path)) == ["precious"] for path in foreign)


def test_shards_that_a_killed_run_left_without_an_index_are_swept(run, sharded, tmp_path):
    sharded.unlink()
    left = sorted(str(path) for path in tmp_path.glob("m-*"))
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "m.safetensors", "--force")
    assert (code, err) == (0, f"{GOOGLE_NOTE}note: removed {', '.join(reversed(left))}\n")
    assert listing(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize(("name", "route"), [("m.safetensors.index.json", "torch"), ("m.msgpack.json", "flax")])
@pytest.mark.parametrize("content", ['{"learning_rate": 0.1}', "not JSON", ""])
def test_force_keeps_a_file_of_the_users_own_beside_the_target(name, route, content, run, tmp_path):
    (tmp_path / name).write_text(content)
    out = tmp_path / name.removesuffix(".index.json").removesuffix(".json")
    code, _, err = run(f"google2{route}", GOOGLE, "-o", out, "--force")
    assert code == 1
    assert f"{tmp_path / name}: is no " in err and "move it away" in err
    assert run(f"google2{route}", GOOGLE, "-o", out)[2] == err  # where --force is no remedy, it is not offered
    assert (listing(tmp_path), (tmp_path / name).read_text()) == ([name], content)


def test_shards_of_another_index_are_none_of_this_one(run, tmp_path):
    """Names that differ in a number alone; what no index lists is named."""
    for name in ("m1", "m9"):
        words = ["google2torch", GOOGLE, "-o", tmp_path / f"{name}.safetensors", "--shard-size", "9kB"]
        assert run(*words)[0] == 0
    stray = "m2-00001-of-00002.safetensors"
    shutil.copy(next(tmp_path.glob("m1-00001-*")), tmp_path / stray)
    (tmp_path / "m2.safetensors.index.json").write_text("{}")
    with open_checkpoint(tmp_path / "m9.safetensors.index.json") as reader:
        assert reader.skipped.names == {"a shard that the index does not list": [stray]}


def test_one_name_means_one_model(run, sharded, tmp_path):
    """A file and an index of shards beside it would be two."""
    whole = tmp_path / "m.safetensors"
    code, _, err = run("google2torch", GOOGLE, "-o", whole)
    assert code == 2
    assert "m.safetensors.index.json: exists already (--force replaces it)" in err
    assert run("google2torch", GOOGLE, "-o", whole, "--force")[0] == 0
    assert listing(tmp_path) == ["m.safetensors"]
    code, _, err = run("google2torch", GOOGLE, "-o", whole, "--shard-size", "9kB")
    assert code == 2
    assert "m.safetensors: exists already (--force replaces it)" in err
    code, printed, _ = run("google2torch", GOOGLE, "-o", whole, "--shard-size", "9kB", "--force", "--json")
    assert code == 0
    assert "m.safetensors" not in listing(tmp_path)
    assert run("verify", json.loads(printed)["out"])[0] == 0
