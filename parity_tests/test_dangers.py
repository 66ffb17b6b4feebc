"""Dangerous files through the command line: one error that names the file, no traceback, nothing run, nothing left."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from convert.reading import named_copies
from convert.reading.recognise import candidates
from convert.records import verification

from .commands import GOOGLE, TIMM, listing
from .files import corpus_pickles, corpus_plain
from .files.harm import SECONDS, pace, soon
from .files.samples import python, store
from .golden import Case

MEGABYTES = 120  # measured 85

# The directory of these says nothing wrong; `inspect` reads no payloads.
ONLY_WHEN_READ = {
    "npz-zip-crc", "npz-zip-payload-flip", "npz-deflate-bit-flip", "array-long-text-greek", "zip-payload-flipped",
    "array-long-text-three-byte", "array-long-text-long", "array-long-text-cut",
}  # fmt: skip


def every_bad_file():
    """(name, suffix, content) of all corpora."""
    yield from corpus_plain.bad_files()
    yield from ((bad.name, bad.suffix, bad.data) for bad in corpus_pickles.bad_files())


# What the commands make of every file in a folder, one by one: {file: [[exit status, stdout, stderr, seconds], ...]},
# and what lies in the current folder afterwards. A file that takes long to refuse meets the first command alone: the
# others refuse it in the same place.
RUN_ALL = """
import contextlib, io, json, os, sys, time
from convert.__main__ import main
source, out, commands = sys.argv[1:4]
os.chdir(out)
answers = {}
for name in os.listdir(source):
    answers[name] = []
    for words in json.loads(commands):
        printed, start = (io.StringIO(), io.StringIO()), time.process_time()
        with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
            status = main([word.format(os.path.join(source, name)) for word in words])
        answers[name].append([status, *(text.getvalue() for text in printed), time.process_time() - start])
        if status == 1 and answers[name][-1][-1] > 0.2:
            break
    if os.listdir():
        break
with open(sys.argv[4], "w") as file:
    json.dump([answers, os.listdir()], file)
"""


def run_all(tmp_path, *commands):
    """Run commands on every file in tmp_path/in, in one process: (answers as RUN_ALL says, files left, megabytes)."""
    (tmp_path / "out").mkdir()
    words = json.dumps([command.split() for command in commands])
    peak = python(RUN_ALL, tmp_path / "in", tmp_path / "out", words, tmp_path / "answers.json", timeout=600)
    answers, left = json.loads((tmp_path / "answers.json").read_text())
    slowest = max(seconds for given in answers.values() for *_, seconds in given)
    assert slowest < SECONDS or slowest < SECONDS * pace()
    return answers, left, int(peak.split()[0])


def test_every_bad_file_gives_one_error_soon_in_little_memory_and_leaves_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    names = {}
    for number, (name, suffix, data) in enumerate(every_bad_file()):
        names[f"{number}{suffix}"] = name
        (tmp_path / "in" / f"{number}{suffix}").write_bytes(data)
    answers, left, megabytes = run_all(tmp_path, "inspect {}", "torch2flax {} -o out.msgpack")
    assert left == [], list(answers)[-1]  # no canary either
    assert len(names) == len(answers) > 600
    accepted = set()
    for file, given in answers.items():
        if given[0][0] == 0:
            accepted.add(names[file])
        for code, out, err, _ in given[1:] if given[0][0] == 0 else given:
            assert (code, out) == (1, ""), f"{names[file]}: {code} {out}"
            assert err.startswith(f"python -m convert: {tmp_path / 'in' / file}: "), f"{names[file]}: {err}"
            assert err.count("\n") == 1 and err[:-1].isprintable(), f"{names[file]}: {err}"
    assert accepted == ONLY_WHEN_READ
    assert megabytes < MEGABYTES


@pytest.mark.parametrize(("count", "names", "message"), [
    (15_000, "layer.{0}.x{0}", "holds 15,000 arrays: no model known here has over 10,000"),
    (15_000, "state_dict/module.blocks.{0}.norm1.weight", "holds 15,000 arrays"),
    (9_900, "blocks.{0}.norm1.weight", "missing stem.weight"),
    (9_900, "params/Block_{0}/{0}/x", "; its first names are params/Block_0/0/x"),
    (2_000, "0.1.2.3." * 475 + "{0}", "; its first names are 0.1.2.3."),
    (1_500, "net." * 900 + "x{0}", "; its first names are net.net."),
], ids=["unknown", "nested", "half known", "strange", "numbers", "prefixes"])  # fmt: skip
def test_very_many_names_are_answered_soon_and_in_little_memory(count, names, message, tmp_path):
    """Of files that are as they should be, but for what they hold."""
    (tmp_path / "in").mkdir()
    tensors = [Tensor(names.format(k * 7919 % count), (k % 5 + 1,), "float32") for k in range(count)]
    store(tmp_path / "in" / "many.safetensors", [(tensor, [bytes(tensor.nbytes)]) for tensor in tensors])
    answers, left, megabytes = run_all(tmp_path, "inspect {}", "torch2flax {}")
    inspected, converted = answers["many.safetensors"]
    assert (inspected[0], message in inspected[1]) == (0, True)
    assert (converted[0], message in converted[2]) == (1, True)
    assert left == [] and listing(tmp_path / "in") == ["many.safetensors"]
    assert megabytes < MEGABYTES


def test_very_many_containers_are_looked_into_soon(run, tmp_path):
    """None of which holds a model, as far as names tell."""
    tensors = [Tensor(f"c{k % 100}/d/{k}", (0,), "float32") for k in range(15_000)]
    path = store(tmp_path / "many.safetensors", [(tensor, []) for tensor in tensors])
    with open_checkpoint(path) as reader, soon(path.name, 1.5):
        (problem,) = candidates(reader, None, {})
    assert "holds 15,000 arrays" in str(problem)


def flipped(source, path):
    """A copy with one bit of a payload flipped."""
    data = bytearray(source.read_bytes())
    with open_checkpoint(source) as reader:
        largest = max(reader.tensors.values(), key=lambda tensor: tensor.nbytes)
        at = bytes(data).index(bytes(reader.read(largest.name)))
    data[at + 5] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("source", "route"), [(GOOGLE, "google2torch"), (TIMM, "timm2torch")], ids=["npz", "pth"])
def test_a_flipped_bit_is_found_while_converting(run, tmp_path, source, route):
    path = flipped(source, tmp_path / f"bad{source.suffix}")
    code, out, err = run(route, path, "-o", tmp_path / "x.safetensors")
    assert (code, out) == (1, "")
    assert path.name in err and "CRC" in err and "damaged" in err and "bit flipped" not in err
    assert listing(tmp_path) == [path.name]


@pytest.mark.parametrize("large", [0, verification.TWO_READERS])
def test_verify_finds_a_flipped_bit_with_one_reader_and_with_two(large, run, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "TWO_READERS", large)
    assert run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    assert run("verify", tmp_path / "x.safetensors")[0] == 0
    path = flipped(tmp_path / "x.safetensors", tmp_path / "bad.safetensors")
    code, out, _ = run("verify", path)
    assert code == 1 and out.count("has other values than were written") == 1, out


def test_verify_counts_arrays_of_a_file_that_was_trained_on(run, tmp_path):
    path = tmp_path / "x.safetensors"
    assert run("google2torch", GOOGLE, "-o", path)[0] == 0
    with safe_open(path, "np") as file:
        arrays, metadata = {name: file.get_tensor(name) + 1 for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(arrays, path, metadata)
    code, out, _ = run("verify", path)
    assert code == 1 and f"  - {len(arrays)} of {len(arrays)} arrays have other values than were written: " in out, out
    assert out.count("other values") <= 2  # the record names the first one


def test_verify_of_several_files_says_of_each_what_it_is(run, tmp_path):
    """A file that was saved again has the same arrays in another order or other metadata: it is not called damaged."""
    other, whole, more = (tmp_path / name for name in ("other.npz", "whole.npz", "more.safetensors"))
    for path in (other, whole, more):
        assert run("google2google", GOOGLE, "-o", path)[0] == 0
    np.savez(other, **dict(reversed([*np.load(other).items()])))
    with safe_open(more, "np") as file:
        save_file(load_file(more), more, {**file.metadata(), "author": "me"})
    code, out, err = run("verify", other, whole, tmp_path / "none.npz", more)
    same = "has the same 42 arrays as were written, in another layout or with other metadata\n"
    assert code == 1 and f"{other}: {same}" in out and f"{more}: {same}" in out and "damaged" not in out, out
    assert f"{whole}: intact (names, shapes, dtypes and values of 42 arrays)\n" in out and "\n1 of 4 intact\n" in out
    assert err == f"python -m convert: {tmp_path / 'none.npz'}: there is no such file (check the path)\n"
    entries = json.loads(run("verify", other, whole, "--json")[1])
    assert [(entry["intact"], entry["same_arrays"]) for entry in entries] == [(False, True), (True, True)]
    np.savez(other, **{name: array + 1 for name, array in np.load(other).items()})
    assert f"{other}: damaged or changed" in run("verify", other, whole)[1] and run("verify", whole, whole)[0] == 0


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "..", "link.safetensors"])
def test_an_index_cannot_lead_elsewhere(run, tmp_path, shard):
    folder = tmp_path / "in"
    folder.mkdir()
    assert run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    (folder / "link.safetensors").symlink_to(tmp_path / "x.safetensors")
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(load_file(tmp_path / "x.safetensors"), shard)}))
    for words in (["inspect", index], ["torch2flax", index, "-o", folder / "out.msgpack"]):
        code, out, err = run(*words)
        assert (code, out) == (1, "")
        assert f"{index}: " in err and err.count("\n") == 1
    assert listing(folder) == ["link.safetensors", index.name]


def test_nans_and_infinities_are_counted_told_and_kept(run, tmp_path):
    assert run("google2torch", GOOGLE, "-o", tmp_path / "a.safetensors")[0] == 0
    arrays = load_file(tmp_path / "a.safetensors")
    odd = np.array([0x7FC12345, 0xFF800001, 0x7F800000], np.uint32).view(np.float32)  # NaNs of two kinds, infinity
    arrays["head.weight"][0, :3] = odd
    save_file(arrays, tmp_path / "a.safetensors")
    words = "torch2flax", tmp_path / "a.safetensors", "-o", tmp_path / "b.msgpack", "--assume"
    code, printed, err = run(*words, "--json")
    assert code == 0
    assert json.loads(printed)["not_finite"] == {"params/head/kernel": 3}
    assert "NaNs or infinities (3) in params/head/kernel: copied as they are" in err
    assert json.loads((tmp_path / "b.msgpack.json").read_text())["tensors"]["params/head/kernel"]["not_finite"] == 3
    assert run("flax2torch", tmp_path / "b.msgpack", "-o", tmp_path / "c.safetensors")[0] == 0
    kept = load_file(tmp_path / "c.safetensors")["head.weight"][0, :3]
    assert kept.view(np.uint32).tolist() == odd.view(np.uint32).tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_dtypes_travel_as_bits(run, tmp_path, dtype):
    """There and back through permuted layouts, every bit pattern, NaNs included."""
    source = tmp_path / "a.safetensors"
    assert run("google2torch", GOOGLE, "-o", tmp_path / "wide.safetensors")[0] == 0
    with open_checkpoint(tmp_path / "wide.safetensors") as reader:
        tensors = [Tensor(t.name, t.shape, dtype) for t in reader.tensors.values()]
    payloads = {t.name: np.random.default_rng(t.nbytes).bytes(t.nbytes) for t in tensors}
    with open(source, "wb", buffering=0) as file:
        writer = writer_for(source)(file, tensors, {})
        for tensor in tensors:
            writer.write(tensor, [payloads[tensor.name]])
        writer.finish()
    assert run("torch2flax", source, "-o", tmp_path / "b.msgpack", "--assume")[0] == 0
    assert run("flax2torch", tmp_path / "b.msgpack", "-o", tmp_path / "c.safetensors")[0] == 0
    with open_checkpoint(tmp_path / "c.safetensors") as reader:
        assert {name: bytes(reader.read(name)) for name in reader.tensors} == payloads
        assert {tensor.dtype for tensor in reader.tensors.values()} == {dtype}


@pytest.mark.parametrize("name", ["a\0.npz", "\ud800.npz"])
def test_what_can_be_no_name_of_a_file_is_refused(run, name, tmp_path):
    code, _, err = run("google2torch", GOOGLE, "-o", f"{tmp_path}/{name}")
    assert code == 2 and "is no name that a file can have" in err
    assert listing(tmp_path) == []


def test_an_output_that_is_a_link(run, tmp_path):
    """Without --force it is kept; with it the link is replaced, and what it led to is not touched."""
    out, precious = tmp_path / "x.safetensors", tmp_path / "precious"
    precious.write_text("precious")
    out.symlink_to(precious)
    code, _, err = run("google2torch", GOOGLE, "-o", out)
    assert code == 2 and "--force" in err
    assert out.is_symlink()
    assert run("google2torch", GOOGLE, "-o", out, "--force")[0] == 0
    assert not out.is_symlink()
    assert precious.read_text() == "precious"
    (tmp_path / "y.safetensors").symlink_to(tmp_path / "nowhere")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "y.safetensors")[0] == 2  # nor is a dangling one followed
    assert not (tmp_path / "nowhere").exists()


def test_a_temporary_that_is_a_link_is_not_followed(run, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / ".x.safetensors.triptych.part").symlink_to(precious)
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")
    assert code == 1
    assert "x.safetensors: cannot be written" in err
    assert precious.read_text() == "precious"


def test_a_wrong_suffix_does_not_mislead(run, tmp_path):
    shutil.copy(GOOGLE, tmp_path / "a.pt")
    assert json.loads(run("inspect", tmp_path / "a.pt", "--json")[1])["format"] == "npz"
    shutil.copy(Case("passl_mixer").folder / "weights.pdparams", tmp_path / "b.safetensors")
    code, printed, _ = run("passl2torch", tmp_path / "b.safetensors", "-o", tmp_path / "c.safetensors")
    assert code == 0 and "(format pdparams, dialect passl)" in printed


def test_names_with_terminal_codes_are_shown_as_text(run, tmp_path):
    evil = "\x1b[2J\x1b]0;owned\x07\u202e"
    arrays = dict(np.load(GOOGLE))
    np.savez(tmp_path / "a.npz", **arrays, **{evil: np.zeros(3, np.float32)})
    for words in (["inspect", tmp_path / "a.npz"], ["google2torch", tmp_path / "a.npz", "-o", tmp_path / "x.pt"]):
        _, out, err = run(*words)
        assert "owned" in out + err
        assert all(character.isprintable() or character == "\n" for character in out + err)
    assert listing(tmp_path) == ["a.npz"]


def test_a_named_pipe_does_not_hang(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for words in (["inspect", tmp_path / "pipe.safetensors"], ["torch2flax", tmp_path / "pipe.safetensors"]):
        code, _, err = run(*words)
        assert code == 1
        assert "is a pipe" in err


def test_a_copys_names_are_compared_with_few_names_that_end_alike():
    """Names that are one without their separators, x.xxx, xx.xx and xxx.x say: each pair of them would take seconds."""
    word = "x" * 200
    names = [f"{word[:k]}.{word[k:]}" for k in range(1, 200)]
    ends = named_copies._Ends(names)._ends
    assert max(map(len, ends.values())) == named_copies.ALIKE
    assert named_copies.likely_places([*names, *(f"ema.{name}" for name in names)]) == {"ema."}
