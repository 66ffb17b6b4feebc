"""Configurations that lie: in the record of a stranger's file, in a configuration file, on the command line."""

import json
import random
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
import yaml

import ports
import specs
from convert.__main__ import main
from convert.config.settings import read_config
from convert.files import open_checkpoint
from convert.files.hashing import identity
from convert.records.record import sealed
from parity.__main__ import main as parity
from specs import config as configs

from .commands import GOOGLE, ROOT
from .conftest import needs
from .files.harm import soon
from .files.samples import PEAK, store
from .test_routes import translate, write_numbers

WEIRD = [None, True, 0, -1, 1, 2, 10**9, 10**30, -(10**30), 2**63, 1e308, float("nan"), float("inf"), "", "x",
         "\x1b[31m", "paddle", "raft_mlp", "relu", [], [1], [10**9], [[1]], [[[]]], [None], ["a"], {}, {"a": 1},
         "1" * 5000, list(range(1, 9))]  # fmt: skip
COMMANDS = ("inspect {}", "torch2flax {} -o {}.msgpack --force", "verify {}", "diff {} {}")


def recorded(folder, architecture, dialect="torch"):
    """A small checkpoint with its record: (path, record)."""
    config = next(iter(specs.get(architecture).tiny.values()))
    write_numbers(folder / "start.safetensors", architecture, config, "flax")
    path = translate(folder / "start.safetensors", folder / "x.safetensors", "flax", dialect, config)
    with open_checkpoint(path) as reader:
        return path, json.loads(reader.metadata["triptych"])


def rewrite(path, target, record):
    """The same tensors with another record."""
    with open_checkpoint(path) as reader:
        contents = [(tensor, [reader.read(tensor.name)]) for tensor in reader.tensors.values()]
        store(target, contents, metadata={"format": "pt", "triptych": json.dumps(record)})


def places(value, path=()):
    """Where every value in a record stands, but for most lines of its many tensors."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(inner)[: 3 if path == ("tensors",) else None]:
        yield from places(one, (*path, key))


@pytest.mark.parametrize("architecture", specs.names())
def test_any_value_anywhere_in_a_record(architecture, tmp_path, capsys):
    """Each is answered, by an error or by a result: nothing else is raised."""
    path, record = recorded(tmp_path, architecture)
    rng = random.Random(0)
    where = [place for place in places(record) if place]
    for place in rng.sample(where, 16):
        spoiled = json.loads(json.dumps(record))
        node = spoiled
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = rng.choice(WEIRD)
        rewrite(path, tmp_path / "y.safetensors", spoiled)
        for words in COMMANDS:
            assert main(words.format(*[tmp_path / "y.safetensors"] * 2).split()) in (0, 1, 2), (place, words)
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_array_that_shows_an_impossible_size_is_named(run, tmp_path):
    """The record decides then: torch and paddle name arrays of RaftMLP alike, and shapes of the one have no network."""
    path, bad = recorded(tmp_path, "raft_mlp")[0], tmp_path / "bad.npz"
    assert run("torch2torch", path, "-o", bad)[0] == 0
    arrays = dict(np.load(bad))
    fc1 = "levels.0.blocks.0.channel.fc1.weight"
    has = arrays[fc1].shape

    def refused(changed, *words):
        np.savez(bad, **changed)
        code, _, err = run("torch2flax", bad, *words)
        assert code == 1 and "does not hold the torch arrays of this raft_mlp\n" in err and "=0" not in err, err
        return err

    turned = {**arrays, fc1: arrays[fc1].T.copy()}
    for words in ([], ["--config", path]):
        assert f"{fc1} has shape {list(has[::-1])}: once it is transposed, to {list(has)}" in refused(turned, *words)
        others = {name: array for name, array in arrays.items() if name != "classifier.weight"}
        err = refused({**others, "classifier.weightx": arrays["classifier.weight"]}, *words)
        assert "missing classifier.weight (nearest" in err and "unexpected classifier.bias" not in err, err
    assert "unexpected extra" in refused({**arrays, "extra": np.zeros(3, "f4")})
    assert run("diff", path, bad)[0] == 1  # and not 2, which a configuration that cannot be would give


@pytest.mark.parametrize("architecture", ["mlp_mixer", "convmixer", "dynamixer", "raft_mlp"])
def test_a_record_of_a_billion_blocks(architecture, tmp_path):
    """In a process of its own, which may take a gigabyte and ten seconds."""
    path, record = recorded(tmp_path, architecture)
    config = record["config"]
    config.update({"depth": 10**9} if "depth" in config else {"depths": [10**9, *config["depths"][1:]]})
    rewrite(path, tmp_path / "y.safetensors", record)
    done = subprocess.run(
        [sys.executable, "-m", "convert", "torch2flax", str(tmp_path / "y.safetensors")],
        cwd=ROOT, capture_output=True, text=True, timeout=10,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )  # fmt: skip
    assert done.returncode == 2
    assert "at least 1 block and at most 10,000, not 1,000,000,00" in done.stderr
    assert "which can be removed" in done.stderr


@pytest.mark.parametrize(("architecture", "name", "value"), [
    ("mlp_mixer", "gelu", "tanh"), ("mlp_mixer", "norm_eps", 1e-3), ("convmixer", "act", "relu"),
    ("dynamixer", "norm_eps", 1e-3), ("raft_mlp", "image", [43, 28]), ("mobile_former", "lite_stride", 1),
    ("mobile_former", "stem_stride", 1), ("mobile_former", "dyrelu_coefs", [1.0, 0.25]),
    ("mobile_former", "dyrelu_consts", [0.0, 1.0]), ("mobile_former", "softmax", True),
])  # fmt: skip
def test_models_that_only_their_records_tell_apart(architecture, name, value, tmp_path, capsys):
    path, record = recorded(tmp_path, architecture)
    assert record["config"][name] != value
    record["config"][name] = value
    rewrite(path, tmp_path / "y.safetensors", record)
    assert main(["diff", str(path), str(path)]) == 0
    assert main(["diff", str(path), str(tmp_path / "y.safetensors")]) == 1
    assert re.search(rf"\n  setting +in A +in B\n  {name} +", capsys.readouterr().out)


def test_what_does_not_matter_is_no_difference(tmp_path):
    """DyReLU's constants, where there is none."""
    config = specs.get("mobile_former").tiny["without DyReLU, alpha"]
    write_numbers(tmp_path / "start.safetensors", "mobile_former", config, "flax")
    path = translate(tmp_path / "start.safetensors", tmp_path / "x.safetensors", "flax", "torch", config)
    with open_checkpoint(path) as reader:
        record = json.loads(reader.metadata["triptych"])
    record["config"]["dyrelu_consts"] = [0.5, 0.5]
    rewrite(path, tmp_path / "y.safetensors", record)
    assert main(["diff", str(path), str(tmp_path / "y.safetensors")]) == 0


def test_a_width_that_is_no_number(tmp_path, capsys):
    path, record = recorded(tmp_path, "mobile_former")
    record["config"]["lite_out"] = float("inf")
    rewrite(path, tmp_path / "y.safetensors", record)
    assert main(["torch2flax", str(tmp_path / "y.safetensors")]) == 2
    assert "lite_out=inf does not fit: lite_out is int" in capsys.readouterr().err


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_images_that_no_memory_holds(side, tmp_path, capsys):
    """Networks that take any size are proven on images of the size that their record names."""
    needs("torch"), needs("flax")
    path, record = recorded(tmp_path, "convmixer")
    record["config"]["image"] = side
    rewrite(path, tmp_path / "y.safetensors", record)
    assert main(["torch2flax", str(tmp_path / "y.safetensors"), "-o", str(tmp_path / "z.msgpack"), "--prove"]) == 2
    assert parity([str(tmp_path / "y.safetensors")]) == 2
    assert capsys.readouterr().err.count(f"images of 2 x 3 x {side} x {side} numbers take over 256 MB") == 2
    assert not (tmp_path / "z.msgpack").exists()


def test_counts_that_no_array_holds_are_not_believed(tmp_path):
    """Of batches, which only torch's files hold and records carry along."""
    path, record = recorded(tmp_path, "convmixer", "paddle")
    record["carried"] = {"norm.count": 2**70, "blocks.0.norm1.count": -1, "blocks.0.norm2.count": 5}
    rewrite(path, tmp_path / "y.safetensors", record)
    assert main(["paddle2torch", str(tmp_path / "y.safetensors"), "-o", str(tmp_path / "z.safetensors")]) == 0
    with open_checkpoint(tmp_path / "z.safetensors") as reader:
        names = ("norm.num_batches_tracked", "blocks.0.norm1.num_batches_tracked", "blocks.0.norm2.num_batches_tracked")
        assert [int.from_bytes(reader.read(name), "little") for name in names] == [0, 0, 5]


def test_a_record_of_other_arrays_is_told(tmp_path, capsys):
    path, record = recorded(tmp_path, "mlp_mixer")
    record["config"]["classes"] += 1
    rewrite(path, tmp_path / "y.safetensors", record)
    assert main(["torch2flax", str(tmp_path / "y.safetensors")]) == 1
    err = capsys.readouterr().err
    assert "y.safetensors: its record is of other arrays: remove the record" in err
    assert f"classes={record['config']['classes']} is recorded, but the file has classes=" in err


@pytest.mark.parametrize("architecture", specs.names())
def test_no_config_holds_numbers_that_cannot_be(architecture):
    spec = specs.get(architecture)
    fields = configs.as_dict(next(iter(spec.tiny.values())))
    for name, value in fields.items():
        first = value[0] if isinstance(value, list) else value
        if isinstance(first, str | bool | None):
            continue
        for wrong in (float("nan"), float("inf")) if isinstance(first, float) else (-1, 2**31):
            spoiled = {**fields, name: [wrong, *value[1:]] if isinstance(value, list) else wrong}
            with pytest.raises(ValueError, match=name if wrong != -1 else "."):
                configs.build(spec.config, spoiled)
                pytest.fail(f"{name}={spoiled[name]} was taken")


@pytest.mark.parametrize("text", ["a: &a [{}]\nb: &b [{}]\nc: &c [{}]\nd: [{}]", "a: &a\n  b: *a\n"])
def test_a_configuration_file_of_billions_or_of_a_ring(text, tmp_path, capsys):
    """YAML's references can make either of a few bytes."""
    path, _ = recorded(tmp_path, "mlp_mixer")
    (tmp_path / "c.yaml").write_text(text.format(*(", ".join([name] * 100) for name in ("x", "*a", "*b", "*c"))))
    assert main(["torch2flax", str(path), "--config", str(tmp_path / "c.yaml")]) == 1
    assert "c.yaml: holds over 100,000 values" in capsys.readouterr().err


MERGES = "\n".join(
    ["a0: &a0 {x: 1, y: 2}", *(f"a{k}: &a{k}\n  <<: [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9))]
)
WIDE = f"a: &a {{{', '.join(f'k{k}: 1' for k in range(3000))}}}\nb: {{<<: [{', '.join(['*a'] * 7000)}]}}"


@pytest.mark.parametrize(("text", "message"), [
    (MERGES, "merges over 100,000 values"), (WIDE, "merges over 100,000 values"),
    ("a: 2001-13-45", "month"), ("a: !!int foo", "invalid"), ("a: !!float x", "convert"), ("a: " + "9" * 5000, "limit"),
    ("a: 0x" + "f" * 5000, "1024 bits"), ("a: !!timestamp x", "type"), ("a: !!bool x", "type"), ("a: !!int ''", "type"),
    ("a: " + "[" * 5000, "too deeply"), ("a: [", "expected"),
], ids=lambda text: text[:12])  # fmt: skip
def test_yaml_that_explodes_or_is_none(text, message, tmp_path, capsys):
    """Each is one line, soon."""
    if text == MERGES and tuple(map(int, yaml.__version__.split(".")[:3])) >= (6, 0, 4):
        pytest.skip("PyYAML merges each reference once, from 6.0.4 on: this text does not explode")
    path, _ = recorded(tmp_path, "mlp_mixer")
    (tmp_path / "c.yaml").write_text(text)
    with soon(message):
        assert main(["torch2flax", str(path), "--config", str(tmp_path / "c.yaml")]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"python -m convert: {tmp_path / 'c.yaml'}: cannot be read as YAML: ")
    assert message in err and err.count("\n") == 1 and "\\n" not in err


def test_a_table_in_place_of_a_configuration_is_named_as_such(tmp_path, capsys):
    path, _ = recorded(tmp_path, "mlp_mixer")
    table = tmp_path / "my.table"
    table.write_text("\n# derived\ntable 1: torch <-> flax\na: o i <-> b: i o\n")
    assert main(["torch2flax", str(path), "--config", str(table)]) == 1
    assert f"{table}: is a Table, which --table {table} takes, and states no settings\n" in capsys.readouterr().err


def test_yaml_that_merges_as_people_do(tmp_path):
    (tmp_path / "c.yaml").write_text("base: &base {x: 1, y: 2}\nmore:\n  <<: *base\n  y: 3\n")
    assert read_config(str(tmp_path / "c.yaml")).values["more"] == {"x": 1, "y": 3}


def test_a_configuration_file_of_lists_within_lists(tmp_path, capsys):
    path, _ = recorded(tmp_path, "mlp_mixer")
    (tmp_path / "c.json").write_text(json.dumps({"depth": json.loads("[" * 700 + "]" * 700)}))
    assert main(["torch2flax", str(path), "--config", str(tmp_path / "c.json")]) == 1
    assert "c.json: is nested too deeply" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{[1]:2}", "9" * 5000 + "x1", "[" * 50_000, "{" * 50_000], ids=lambda text: text[:7])
def test_a_setting_that_is_no_value_is_a_text(text):
    assert configs.parse(text) == text


@pytest.mark.parametrize("text", ["1e-6", "1.e-6", "10E-7", "1.0e-6", ".1e-5"])
def test_a_number_with_an_exponent_is_one_in_yaml(text, tmp_path):
    (tmp_path / "c.yaml").write_text(f"norm_eps: {text}\nname: '{text}'\n")
    values = read_config(str(tmp_path / "c.yaml")).values
    assert (values["norm_eps"], values["name"]) == (1e-6, text)


def test_a_long_configuration_file(tmp_path, capsys):
    """YAML takes a second for 60 KB."""
    path, _ = recorded(tmp_path, "mlp_mixer")
    (tmp_path / "c.yaml").write_text("gelu: erf\n" + "# comment\n" * 7000)
    assert main(["torch2flax", str(path), "--config", str(tmp_path / "c.yaml")]) == 1
    assert "c.yaml: is too long" in capsys.readouterr().err


SMALL = '{"":0},'  # seven characters, two hundred bytes of objects
RUN = """
import contextlib, sys
from convert.__main__ import main
with contextlib.redirect_stdout(sys.stderr):
    code = main(sys.argv[1:])
print(code)
"""


def explosive(kind, folder):
    """A command on JSON that would take gigabytes: many small objects, or a long text of wide characters."""
    many, wide = '{"x": [' + SMALL * 2_000_000 + "0]}", json.dumps({"x": "a" * 15_000_000 + "😀"}, ensure_ascii=False)
    path, _ = recorded(folder, "mlp_mixer")
    words = ["torch2flax", str(path), "-o", str(folder / "z.msgpack"), "--assume"]
    if kind in ("record of many values", "long record"):
        with open_checkpoint(path) as reader:
            contents = [(tensor, [reader.read(tensor.name)]) for tensor in reader.tensors.values()]
        text = many[: len(many) * 2 // 3] if kind == "record of many values" else wide
        store(folder / "x.safetensors", contents, metadata={"triptych": text})
    elif kind == "record beside":
        assert main([*words[:3], str(folder / "y.msgpack")]) == 0
        (folder / "y.msgpack.json").write_text(many)
        words = ["flax2torch", str(folder / "y.msgpack"), "-o", str(folder / "z.safetensors"), "--assume"]
    elif kind == "configuration":
        (folder / "config.json").write_text(many)
        words += ["--config", str(folder / "config.json")]
    elif kind == "index":
        (folder / "x.safetensors.index.json").write_text(many)
        words[1] = str(folder / "x.safetensors.index.json")
    elif kind == "orbax":
        (folder / "o").mkdir()
        (folder / "o" / "_METADATA").write_text(many[: 12 << 20])
        words = ["flax2torch", str(folder / "o")]
    return words


@pytest.mark.parametrize(("kind", "code"), [
    ("record of many values", 0), ("long record", 0), ("record beside", 0), ("configuration", 1), ("index", 1),
    ("orbax", 1),
])  # fmt: skip
def test_json_that_explodes(kind, code, tmp_path):
    """Records that nobody wrote are taken for none; what a command needs is refused in one line."""
    words = explosive(kind, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUN + PEAK, *words], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    found, megabytes, *_ = done.stdout.split()
    assert int(found) == code, done.stderr
    assert code == 0 or done.stderr.startswith("python -m convert: ")
    assert "Traceback" not in done.stderr
    assert int(megabytes) < 200


@pytest.mark.parametrize("target", ["x.safetensors", "x.safetensors.index.json"])
def test_a_record_inside_a_file_of_other_values(target, tmp_path, capsys):
    """As of weights that were tuned and saved with the metadata that they were loaded with: the record is noted as
    another's, and its configuration is used, by every command."""
    path, record = recorded(tmp_path, "mlp_mixer")
    with open_checkpoint(path) as reader:
        contents = [(tensor, [reader.read(tensor.name)]) for tensor in reader.tensors.values()]
    contents = [(t, [bytes(parts[0][:-4]) + b"\0\0\x80?"]) for t, parts in contents]
    if target.endswith(".json"):
        store(tmp_path / "x-00001-of-00001.safetensors", contents)
        where = {tensor.name: "x-00001-of-00001.safetensors" for tensor, _ in contents}
        about = {"metadata": {"triptych": json.dumps(record)}, "weight_map": where}
        (tmp_path / target).write_text(json.dumps(about))
    else:
        store(tmp_path / target, contents, metadata={"triptych": json.dumps(record)})
    note = "its record no longer fits the file, whose "
    for words in (["inspect"], ["torch2flax", "-o", str(tmp_path / "y.npz"), "--force"], ["verify"]):
        code = main([words[0], str(tmp_path / target), *words[1:]])
        out, err = capsys.readouterr()
        assert code == (words == ["verify"]) and note in out + err, words
        assert ("warning: " in out + err) == (words != ["verify"]) and "note: " not in out + err
    main(["diff", str(tmp_path / target), str(tmp_path / "y.npz")])  # its notes name the file
    err = " ".join(capsys.readouterr().err.split())
    assert f"warning: {tmp_path / target}: {note}" in err and "note: " not in err
    words = ["flax2torch", str(tmp_path / "y.npz"), "-o", str(tmp_path / "z.pt")]
    warning = f"says of {target}, whose "
    for again in (["inspect", words[1]], ["verify", words[1]], words, ["inspect", words[-1]]):
        assert main(again) == 0 and warning in "".join(capsys.readouterr()), again
    needs("torch")
    with pytest.warns(UserWarning, match=f"{target}: {note}"):
        ports.load(str(tmp_path / target), "torch")


@pytest.mark.parametrize("suffix", ["safetensors", "msgpack"])
def test_one_large_array_that_was_changed_in_place(suffix, tmp_path, capsys, monkeypatch):
    """As by merged adapters: a conversion compares every value with the record before it believes it."""
    path, _ = recorded(tmp_path, "convmixer", "flax")
    target = tmp_path / f"y.{suffix}"
    assert main(["flax2flax", str(path), "-o", str(target)]) == 0
    data = bytearray(target.read_bytes())
    with open_checkpoint(target) as reader:
        last = sorted(reader.tensors.values(), key=lambda tensor: tensor.nbytes)[-1]
        at = data.index(bytes(reader.read(last.name)))
    data[at + last.nbytes // 2] ^= 64
    target.write_bytes(data)
    monkeypatch.setattr("convert.records.other_file.SAMPLED", sum(t.nbytes for t in about_tensors(target).values()) - 1)
    monkeypatch.setattr("convert.files.hashing.SAMPLES", 2)  # of the file that has its record beside it
    if suffix == "msgpack":
        about = json.loads((tmp_path / "y.msgpack.json").read_text())
        about = sealed({**about, "samples": identity(target)["samples"]})
        (tmp_path / "y.msgpack.json").write_text(json.dumps(about, indent=1))
    capsys.readouterr()
    words = ["flax2paddle", str(target), "-o", str(tmp_path / "z.pdparams"), "--force"]
    note = f"no longer fits the file, whose {last.name} has other values than were written: the file was damaged, or"
    for more in ([], ["--json"], ["--dry-run"]):
        assert main([*words, *more]) == 0
        assert note in capsys.readouterr().err
    assert main(["diff", str(path), str(target)]) == 1
    arrays = len(about_tensors(target))
    sampled = f"was compared with the {arrays - 1} smallest of {arrays} arrays of the file, which is quick"
    for command in (["inspect", str(target)], [*words, "--no-verify"]):
        capsys.readouterr()
        assert main(command) == 0
        said = "".join(capsys.readouterr())
        assert sampled in said and note not in said
    assert main(["inspect", str(path)]) == 0 and main(["verify", str(path)]) == 0
    assert "was compared with" in capsys.readouterr().out


def about_tensors(path):
    with open_checkpoint(path) as reader:
        return dict(reader.tensors)


@pytest.mark.parametrize("shards", [[], ["--shard-size", "4KB"]], ids=["one file", "shards"])
def test_a_flipped_bit_of_the_metadata_is_seen(shards, tmp_path, capsys):
    """The key "format", and of shards the name of their index, and of an index the size of all."""
    path, _ = recorded(tmp_path, "convmixer")
    out = tmp_path / "y.safetensors"
    assert main(["torch2torch", str(path), "-o", str(out), *shards]) == 0
    target = out if out.exists() else tmp_path / "y.safetensors.index.json"
    assert main(["verify", str(target)]) == 0
    spots = [(target, b'"format"')] if not shards else []
    for shard in sorted(tmp_path.glob("y-*"))[:2]:
        spots += [(shard, b'"format"'), (shard, b'"pt"'), (shard, b'"triptych_part"'), (shard, b"y.safetensors.index")]
    spots += [(target, b'"total_size": ')] if shards else []
    for file, text in spots:
        data = file.read_bytes()
        at = data.index(text) + len(text) - (-1 if text.endswith(b" ") else 2)
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        capsys.readouterr()
        assert main(["verify", str(target)]) == 1, (file, text)
        assert "metadata" in (said := capsys.readouterr().out) or "total_size" in said
        file.write_bytes(data)
    assert main(["verify", str(target)]) == 0


def test_a_record_without_hashes_says_so(tmp_path, capsys):
    """Written with --no-verify: whether the values are those that it is about, nobody knows."""
    path, _ = recorded(tmp_path, "mlp_mixer")
    out = str(tmp_path / "y.safetensors")
    assert main(["torch2torch", str(path), "-o", out, "--no-verify"]) == 0
    for words in (["torch2flax", out], ["inspect", out]):
        capsys.readouterr()
        assert main(words) == 0
        assert "its record has no hashes to check the file's values by" in "".join(capsys.readouterr())


def test_what_a_damaged_record_states_is_not_passed_on_as_known(tmp_path, capsys):
    """Its configuration is used with a note; the target's record marks it, and diff says so as well."""
    path, record = recorded(tmp_path, "mlp_mixer")
    record["config"]["gelu"] = "tanh" if record["config"]["gelu"] == "erf" else "erf"
    rewrite(path, tmp_path / "y.safetensors", record)
    assert main(["torch2flax", str(tmp_path / "y.safetensors"), "-o", str(tmp_path / "z.msgpack")]) == 0
    assert set(json.loads((tmp_path / "z.msgpack.json").read_text())["assumed"]) == {"gelu", "norm_eps"}
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "z.msgpack")]) == 0
    assert f"not known: gelu={record['config']['gelu']}" in capsys.readouterr().out
    assert main(["diff", str(path), str(tmp_path / "y.safetensors")]) == 1
    assert "y.safetensors: its record is not as it was written: its configuration is used" in capsys.readouterr().err


def test_inspect_names_the_record_that_it_used(run, tmp_path):
    """Beside the file or inside it; a file without one has no such line."""
    for name, place in (("x.npz", "x.npz.json"), ("x.safetensors", "in the file")):
        assert run("google2google", GOOGLE, "-o", tmp_path / name)[0] == 0
        printed = run("inspect", tmp_path / name)[1]
        assert printed.startswith(f"record:       {place}, written from weights.npz\n")
        assert "by its record, assumed as google's own code computes: gelu, norm_eps, padding\n" in printed
    printed = run("inspect", GOOGLE)[1]
    assert "record" not in printed and "assumed as google's own code computes" in printed
