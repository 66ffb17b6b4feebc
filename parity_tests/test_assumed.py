"""Nothing assumed is passed off as known: what nobody states is refused or marked, and stays marked."""

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import convert
import ports
import specs
from convert.config.conventions import computing
from convert.config.variants import restrictions
from convert.errors import OpenFields, UsageError
from convert.files import open_checkpoint
from convert.records.record import at
from parity.__main__ import main as parity
from parity.comparing.comparison import compare
from ports.images import ImagesError
from specs.config import as_dict
from specs.dialects import PORTS

from .commands import GOOGLE, IDLE, listing
from .conftest import needs
from .parity.plant import rebuilt
from .test_routes import translate, write_numbers

MIXER = specs.get("mlp_mixer")
TWIN = MIXER.tiny["B/16"]
STATED = {"mean": 0.5, "std": 0.5, "range": (0, 1), "crop": 1, "interpolation": "bicubic"}
BESIDE = [".npz", ".pt", ".msgpack", ".pdparams"]  # formats with the record in a .json beside the file
MARKED = "assumed when the record was written, not known: gelu=erf, norm_eps=1e-6"


@pytest.fixture
def bare(tmp_path):
    """A torch state dict of a Mixer, without a record."""
    write_numbers(tmp_path / "bare.safetensors", "mlp_mixer", TWIN, "torch")
    return tmp_path / "bare.safetensors"


@pytest.fixture
def recorded(run, tmp_path):
    """Google's Mixer as a torch checkpoint with its record."""
    assert run("google2torch", GOOGLE, "-o", tmp_path / "mixer.safetensors")[0] == 0
    return tmp_path / "mixer.safetensors"


@pytest.mark.parametrize("dialect", PORTS)
@pytest.mark.parametrize("architecture", specs.names())
def test_bare_arrays_of_a_port_are_refused(architecture, dialect, tmp_path):
    """Every field that changes the outputs, that no array shows and that nobody states is named."""
    spec = specs.get(architecture)
    config = next(iter(spec.tiny.values()))
    write_numbers(tmp_path / "x.safetensors", architecture, config, dialect)
    missing = ()  # also where every field is shown, has no effect, or is a rate of dropout
    try:
        convert.plan(tmp_path / "x.safetensors", dialect).close()
    except OpenFields as error:
        missing = error.fields
        assert missing and all(re.search(rf"{name} is open[:,] set it", str(error)) for name in missing)
    immaterial = spec.immaterial(config)
    stated = {name: as_dict(config)[name] for name in missing}
    with convert.plan(tmp_path / "x.safetensors", dialect, settings=stated) as plan:
        assert plan.assumed == ()
        shown = plan.configuration.shown.keys()  # by the arrays of this twin: other networks may lack them
    assert computing(spec) - immaterial - shown <= set(missing) | {"padding"}


def test_what_is_assumed_stays_marked_through_every_command(run, bare, tmp_path, capsys):
    names = ["a.npz", "b.safetensors", "c.msgpack", "d.pt"]
    routes = ["torch2google", "google2torch", "torch2flax", "flax2torch"]
    code, _, err = run(routes[0], bare, "-o", tmp_path / names[0], "--assume")
    assert (code, "the file does not say, assumed: gelu=erf, norm_eps=1e-6" in err) == (0, True)
    assert "gelu=erf is assumed of these weights" in err and "weights mean" not in err
    for route, source, name in zip(routes[1:], names, names[1:], strict=False):
        code, printed, err = run(route, tmp_path / source, "-o", tmp_path / name, "--json")
        assert (code, json.loads(printed)["assumed"], MARKED in err) == (0, ["gelu", "norm_eps"], True)
    for name in names:
        about = json.loads(run("inspect", tmp_path / name, "--json")[1])
        assert about["assumed"] == ["gelu", "norm_eps"] and MARKED in about["notes"]
        assert MARKED in run("inspect", tmp_path / name)[1]
    code, _, err = run("torch2google", tmp_path / "d.pt", "-o", tmp_path / "e.npz", "--set", "gelu=tanh")
    assert "gelu=tanh was asked for and is used in place of gelu=erf, which its record only assumes" in err
    assert at(str(tmp_path / "e.npz.json")).content["assumed"] == ["norm_eps"]


def test_parity_and_ports_report_what_is_assumed(run, bare, tmp_path, capsys):
    needs("torch"), needs("flax")
    assert parity([str(bare), "--check", "forward", "--frameworks", "torch", "flax"]) == 2
    assert "gelu is open" in capsys.readouterr().err
    run("torch2flax", bare, "-o", tmp_path / "a.msgpack", "--assume")
    for words in ([str(bare), "--assume"], [str(tmp_path / "a.msgpack")]):
        page = tmp_path / f"page{len(words)}.html"
        command = [*words, "--check", "forward", "--frameworks", "torch", "flax", "--report", str(page)]
        assert parity(command) == 0
        out, err = capsys.readouterr()
        assert "assumed" in err
        assert out.startswith("torch and flax agree in the only comparison. Assumed: gelu=erf, norm_eps=1e-6.\n")
        (head,) = re.findall("<h1.*?</h1>", re.sub(' ?<span class="whole">(.*?)</span>', r" \1", page.read_text()))
        assert head.endswith('<span class="look">Assumed:</span> gelu=erf, norm_eps=1e-6.</h1>')
        assert parity([*command[:-2], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["assumed"] == ["gelu=erf", "norm_eps=1e-6"]
    with pytest.raises(OpenFields):
        ports.load(bare, "torch")
    with pytest.warns(UserWarning, match=MARKED):
        port = ports.load(tmp_path / "a.msgpack", "torch")
    compared = compare({"one": port, "other": port}, np.ones((1, *MIXER.input_shape(port.config))))
    assert compared.results[0].assumed == ("gelu=erf", "norm_eps=1e-6")
    assert compared.about["model"].count("(assumed)") == 2
    assert port.with_dtype("float64").save(tmp_path / "d.pt")["assumed"] == ["gelu", "norm_eps"]
    assert port.save(tmp_path / "b.pt")["assumed"] == ["gelu", "norm_eps"]
    assert MARKED in run("torch2flax", tmp_path / "b.pt", "-o", tmp_path / "c.msgpack")[2]


def test_a_guess_in_a_configuration_is_a_guess(run, bare, tmp_path):
    run("torch2google", bare, "-o", tmp_path / "a.npz", "--assume")
    _, _, err = run("torch2flax", bare, "-o", tmp_path / "b.msgpack", "--config", tmp_path / "a.npz")
    assert MARKED in err
    assert at(str(tmp_path / "b.msgpack.json")).content["assumed"] == ["gelu", "norm_eps"]


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A ConvMixer under its authors' names whose sizes are those of a small variant, which stands for 768/32."""
    spec = specs.get("convmixer")
    monkeypatch.setitem(spec.variants, "7/2", replace(spec.tiny["768/32"], image=224))
    write_numbers(tmp_path / "own.pt", "convmixer", spec.tiny["768/32"], "official")
    return tmp_path / "own.pt"


def test_sizes_of_a_variant_are_no_statement(official, run, tmp_path):
    """What they suggest is marked as assumed, with its reason, in the record and by every later command."""
    first, later = tmp_path / "a.safetensors", "assumed as in the official 7/2 when the record was written, not known"
    code, _, err = run("official2torch", official, "-o", first)
    assert (code, "the file does not say, assumed as in the official 7/2: act=relu" in err) == (0, True)
    assert "assumed as in the official 7/2: act, image, dropout" in run("inspect", official)[1]
    code, _, err = run("torch2flax", first, "-o", tmp_path / "b.msgpack")
    assert (code, f"{later}: act=relu" in err) == (0, True)
    for path in (first, tmp_path / "b.msgpack.json"):
        assert at(str(path)).content["assumed"] == ["act"]
        assert at(str(path)).content["origins"]["act"] == "official 7/2"
    assert f"{later}: act=relu" in run("inspect", tmp_path / "b.msgpack")[1]
    with convert.plan(first, settings={"act": "gelu"}) as plan:
        assert plan.assumed == () and "act" not in plan.suggested
    assert run("diff", official, official)[0] == 0  # one guess for one file
    code, printed, _ = run("diff", official, first)
    assert (code, "equal only if act agrees" in printed) == (1, True)
    assert "from the official variant of these sizes" in printed


def test_sizes_of_a_variant_state_nothing_of_our_own_files(official, run, tmp_path):
    """A port's state dict is asked about all that changes its outputs, and no note contradicts that."""
    write_numbers(tmp_path / "bare.safetensors", "convmixer", specs.get("convmixer").tiny["768/32"], "torch")
    code, _, err = run("torch2flax", tmp_path / "bare.safetensors", "-o", tmp_path / "b.msgpack")
    assert (code, "act is open" in err, "act=relu as in the official 7/2" in err) == (2, True, True)
    about = json.loads(run("inspect", tmp_path / "bare.safetensors", "--json")[1])
    assert "act is open" in about["open"] and not any("act" in note for note in about["notes"])
    assert "act" not in about["config"].keys() | about["origins"].keys()
    run("torch2flax", tmp_path / "bare.safetensors", "-o", tmp_path / "b.msgpack", "--assume")
    assert at(str(tmp_path / "b.msgpack.json")).content["assumed"] == ["act", "norm_eps", "norm_momentum"]


def test_defaults_and_conventions_stay_known_as_such(run, tmp_path):
    """Through records, ports and configuration files; what the user states is known."""
    write_numbers(tmp_path / "own.pt", "convmixer", specs.get("convmixer").tiny["1024/20"], "official")
    one, two, three = (tmp_path / name for name in ("one.safetensors", "two.msgpack", "three.safetensors"))
    assert run("official2torch", tmp_path / "own.pt", "-o", one, "--set", "act=gelu")[0] == 0
    assert run("torch2flax", one, "-o", two)[0] == 0
    save_file(load_file(one), tmp_path / "bare.safetensors")
    assert run("torch2torch", tmp_path / "bare.safetensors", "-o", three, "--config", two)[0] == 0
    for path in (one, two, three):
        _, printed, _ = run("inspect", path)
        assert "assumed by default: image, dropout\n" in printed
        assert "assumed as official's own code computes: norm_eps, norm_momentum\n" in printed
        about = json.loads(run("inspect", path, "--json")[1])
        assert (about["assumed"], about["preprocessing"]["image"]) == ([], 224)
        assert "image" in about["preprocessing"]["assumed"]
    assert run("torch2flax", one, "-o", two, "--set", "image=32", "--force")[0] == 0
    about = json.loads(run("inspect", two, "--json")[1])
    assert (about["config"]["image"], "image" in about["preprocessing"]) == (32, False)
    assert about["origins"] == dict.fromkeys(["norm_eps", "norm_momentum"], "dialect official") | {"dropout": "default"}


def test_a_port_warns_of_a_default_size_of_images(run, tmp_path):
    needs("torch")
    write_numbers(tmp_path / "own.pt", "convmixer", specs.get("convmixer").tiny["1024/20"], "official")
    run("official2torch", tmp_path / "own.pt", "-o", tmp_path / "one.safetensors", "--set", "act=gelu")
    port = ports.load(tmp_path / "one.safetensors", "torch")
    for one in (port, rebuilt(port, dtype="float64")):
        with pytest.warns(UserWarning, match="preprocessing is assumed, not known of these weights: .*image=224"):
            one.preprocess(np.zeros((40, 40, 3), np.uint8))
    with warnings.catch_warnings(), pytest.raises(ImagesError, match="uint8"):
        warnings.simplefilter("error")  # a picture that is refused is not warned of
        port.preprocess(np.zeros((40, 40, 3), np.float32))
    assert port.save(tmp_path / "two.npz")["origins"]["image"] == "default"
    assert "image" not in at(str(tmp_path / "two.npz.json")).content["preprocessing"]
    with pytest.warns(UserWarning, match="image=32 was asked for .* of image=224, which its record has by default"):
        known = ports.load(tmp_path / "one.safetensors", "torch", image=32, preprocessing=STATED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known.preprocess(np.zeros((40, 40, 3), np.uint8)).shape == (1, 3, 32, 32)


def test_what_dialects_declare_exists():
    """A misspelt field would restrict nothing."""
    for spec in map(specs.get, specs.names()):
        names = as_dict(next(iter(spec.tiny.values()))).keys()
        for dialect in spec.dialects.values():
            assert dialect.requires.keys() | dialect.conventions.keys() <= names


def source_of_config(kind, run, recorded, tmp_path):
    """A path for --config that has the record of `recorded`."""
    if kind == "checkpoint":
        return recorded
    if kind == "shards":
        run("torch2torch", recorded, "-o", tmp_path / "s.safetensors", "--shard-size", "10KB")
        return tmp_path / "s.safetensors.index.json"
    out = tmp_path / {"beside": "b.npz", ".json": "b.npz", "folder": "f.orbax", "named": "b.npz"}[kind]
    run("torch2flax", recorded, "-o", out)
    if kind == "named":  # as people name checkpoints of torch: no suffix says what it is
        out, old = tmp_path / "b.pth.tar", out
        old.rename(out), Path(f"{old}.json").rename(f"{out}.json")
    return f"{out}.json" if kind == ".json" else out


@pytest.mark.parametrize("kind", ["checkpoint", "beside", ".json", "shards", "folder", "named"])
def test_a_record_is_a_configuration(kind, run, recorded, tmp_path):
    config = source_of_config(kind, run, recorded, tmp_path)
    save_file(load_file(recorded), tmp_path / "bare.safetensors")
    code, _, err = run("torch2google", tmp_path / "bare.safetensors", "-o", tmp_path / "x.npz", "--config", config)
    assert (code, err) == (0, "")
    assert at(str(tmp_path / "x.npz.json")).content["config"]["gelu"] == "tanh"


def test_a_configuration_without_a_record_or_of_another_architecture(run, bare, tmp_path):
    shutil.copy(bare, tmp_path / "bare.pth.tar")
    for config in (bare, tmp_path / "bare.pth.tar"):
        code, _, err = run("torch2google", bare, "--config", config)
        assert (code, "has no record" in err) == (1, True)
    other = specs.get("convmixer").tiny["even"]
    write_numbers(tmp_path / "c.safetensors", "convmixer", other, "torch")
    translate(tmp_path / "c.safetensors", tmp_path / "d.safetensors", "torch", "torch", other)
    code, _, err = run("torch2google", bare, "--config", tmp_path / "d.safetensors")
    config = f"--config {tmp_path / 'd.safetensors'} is of a convmixer: give that of an mlp_mixer, or none"
    assert (code, f"is an mlp_mixer, and {config}" in err) == (2, True), err


def test_errors_suggest_records_that_fit_and_guesses_last(run, bare, recorded, tmp_path):
    """`mixer.safetensors`, of another size, is none."""
    run("torch2google", bare, "-o", tmp_path / "a.npz", "--assume")
    run("torch2google", bare, "-o", tmp_path / "b.npz", "--set", "gelu=tanh", "--set", "norm_eps=1e-6")
    _, _, err = run("torch2google", bare, "-o", tmp_path / "c.npz")
    record = "from a record, if it is of the same model: --config"
    known = f"or take gelu=tanh, norm_eps=1e-6 {record} {tmp_path / 'b.npz.json'}\n"
    guess = f"or take gelu=erf (assumed), norm_eps=1e-6 (assumed) {record}"
    assert f"{known}  - {guess} {tmp_path / 'a.npz.json'}\n" in err
    assert "mixer.safetensors" not in err


def save_again(path, change=lambda arrays: None):
    """Overwrite a checkpoint by its framework's usual writer, with other values."""
    with open_checkpoint(path) as reader:
        arrays = {
            t.name: np.frombuffer(bytes(reader.read(t.name)), t.dtype).reshape(t.shape) + np.float32(0.5)
            for t in reader.tensors.values()
        }
    change(arrays)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    elif path.suffix == ".msgpack":
        flax = pytest.importorskip("flax.traverse_util")
        serialization = pytest.importorskip("flax.serialization")
        path.write_bytes(serialization.msgpack_serialize(flax.unflatten_dict(arrays, sep="/")))
    else:
        import pickle

        path.write_bytes(pickle.dumps(arrays, protocol=2))


ROUTES = {".npz": "google", ".pt": "torch", ".msgpack": "flax", ".pdparams": "paddle"}


@pytest.mark.parametrize("suffix", BESIDE)
def test_a_record_of_other_bytes_is_used_for_its_configuration(suffix, run, tmp_path):
    path, dialect = tmp_path / f"x{suffix}", ROUTES[suffix]
    run(f"google2{dialect}", GOOGLE, "-o", path)
    save_again(path)
    code, _, err = run(f"{dialect}2torch", path, "-o", tmp_path / "y.safetensors")
    assert code == 0, err
    assert f"{path}.json no longer fits the file, " in err and "only its configuration is used" in err
    assert json.loads(run("inspect", tmp_path / "y.safetensors", "--json")[1])["config"]["gelu"] == "tanh"
    code, printed, _ = run("verify", path)
    assert (code, "damaged or changed" in printed, "not copied along" in printed) == (1, True, False)
    assert f"{path}.json no longer fits the file" in printed


def test_a_new_head_keeps_the_conventions_and_another_model_does_not(run, tmp_path):
    path = tmp_path / "x.pt"
    run("google2torch", GOOGLE, "-o", path)

    def change(arrays):
        arrays["head.weight"], arrays["head.bias"] = np.zeros((3, 20), np.float32), np.zeros(3, np.float32)

    save_again(path, change)
    code, printed, err = run("torch2google", path, "-o", tmp_path / "y.npz", "--json")
    assert (code, "only its configuration is used" in err) == (0, True)
    assert [json.loads(printed)["config"][name] for name in ("gelu", "classes")] == ["tanh", 3]
    write_numbers(path, "mlp_mixer", TWIN, "torch")
    code, _, err = run("torch2google", path, "-o", tmp_path / "z.npz")
    assert (code, f"{path}.json is of another model" in err, "gelu is open" in err) == (2, True, True)
    about = json.loads(run("inspect", path, "--json")[1])
    assert about["preprocessing"].keys() <= {"image", "assumed"}  # that record's states mean, std and so on


@pytest.mark.parametrize("suffix", BESIDE)
def test_verify_says_that_a_file_with_its_record_is_damaged(suffix, run, tmp_path):
    path, dialect = tmp_path / f"x{suffix}", ROUTES[suffix]
    run(f"google2{dialect}", GOOGLE, "-o", path)
    whole = path.read_bytes()
    for spoiled in (whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
                    whole[:-100]):  # fmt: skip
        path.write_bytes(spoiled)
        code, printed, err = run("verify", path)
        assert (code, "damaged or changed" in printed, "not copied along" in printed + err) == (1, True, False)
    path.write_bytes(whole)
    assert run("verify", path)[0] == 0
    record = (tmp_path / f"x{suffix}.json").read_text()
    (tmp_path / f"x{suffix}.json").write_text(record[:300])
    code, _, err = run("verify", path)
    assert (code, "cannot be read as a record" in err, "not copied along" in err) == (1, True, False)
    assert (
        "cannot be read as a record" in run(f"{dialect}2torch", path, "-o", tmp_path / "y.safetensors", "--assume")[2]
    )


@pytest.mark.parametrize("kind", ["beside", "inside", "shards", "folder"])
def test_verify_sees_every_flipped_bit_of_a_record(kind, run, recorded, tmp_path):
    """Of a sample of bits, all over the record: also where JSON would read the same value."""
    target = {"beside": "x.pt", "inside": "x.safetensors", "shards": "x.safetensors", "folder": "x.orbax"}[kind]
    words = ["--shard-size", "10KB"] if kind == "shards" else []
    assert run("torch2torch", recorded, "-o", tmp_path / target, *words)[0] == 0
    path = tmp_path / (f"{target}.index.json" if kind == "shards" else target)
    holder = {"beside": tmp_path / "x.pt.json", "folder": path / "triptych.json"}.get(kind, path)
    whole = holder.read_bytes()
    start = whole.index(b"architecture")
    exponent = whole.index(b"1e-06", start)
    stop = whole.index(b"record_sha256") + 40
    assert run("verify", path)[0] == 0
    count = 3 if kind == "folder" else 40  # each verify reads a folder in processes of their own
    bits = [(exponent + 1, 5), *((at, at % 7) for at in range(start, stop, (stop - start) // count))]
    for at_byte, bit in bits:  # the first makes 1E-06 of 1e-06
        spoiled = bytearray(whole)
        spoiled[at_byte] ^= 1 << bit
        holder.write_bytes(spoiled)
        assert run("verify", path)[0] == 1, (at_byte, whole[at_byte - 10 : at_byte + 10])
    holder.write_bytes(whole.replace(b"1e-06", b"1e-16", 1))
    assert run("verify", path)[0] == 1
    assert "is not as it was written" in run("torch2flax", path, "-o", tmp_path / "y.msgpack")[2]


def test_settings_that_contradict_are_noted(run, recorded, tmp_path):
    _, _, err = run("torch2flax", recorded, "-o", tmp_path / "dry.msgpack", "--dry-run", "--set", "gelu=erf")
    assert (
        "gelu=erf was asked for and is used in place of gelu=tanh, which its record has from the dialect google" in err
    )
    _, _, err = run("google2flax", GOOGLE, "-o", tmp_path / "dry.msgpack", "--dry-run", "--set", "gelu=erf")
    assert "gelu=erf was asked for, though google's own code computes gelu=tanh" in err
    _, _, err = run("google2flax", GOOGLE, "-o", tmp_path / "dry.msgpack", "--dry-run", "--set", "gelu=tanh")
    assert err == f"note: the file does not say, assumed as google's own code computes: norm_eps=1e-6{IDLE}\n"
    _, _, err = run(
        "google2flax", GOOGLE, "-o", tmp_path / "dry.msgpack", "--dry-run", "--config", recorded, "--set", "gelu=erf"
    )
    assert "--set gelu=erf is used in place of gelu=tanh of --config" in err
    code, _, err = run("google2flax", GOOGLE, "--set", "gelu=erf", "--set", "gelu=tanh")
    assert (code, "--set gelu: given twice" in err) == (2, True)
    needs("torch")
    with pytest.warns(UserWarning, match="which its record has from the dialect google"):
        ports.load(recorded, "torch", gelu="erf")


def test_unknown_settings_are_refused_with_the_nearest_name(run, recorded, tmp_path, capsys):
    """Wherever settings are taken."""
    needs("torch"), needs("flax")
    (tmp_path / "c.json").write_text('{"glu": "erf"}')
    (tmp_path / "c.yaml").write_text("glu: erf\n")
    told = "unknown name 'glu', did you mean 'gelu'?"
    commands = (["torch2flax", recorded], ["diff", recorded, recorded], ["diff", recorded, GOOGLE])
    for given in (["--set", "glu=erf"], ["--config", tmp_path / "c.json"], ["--config", tmp_path / "c.yaml"]):
        for words in commands:
            code, _, err = run(*words, *given)
            assert (code, told in err) == (2, True), (words, given)
    for name in ("Gelu", "GELU"):
        assert run("diff", recorded, recorded, "--set", f"{name}=erf")[0] == 2
        for target in (recorded, "mlp_mixer", "mlp_mixer:S/16"):
            assert parity([str(word) for word in (target, *given)]) == 2
            assert told in capsys.readouterr().err
    port = ports.build("mlp_mixer", TWIN, "torch")
    for call in (
        lambda: convert.plan(recorded, settings={"glu": "erf"}),
        lambda: ports.load(recorded, "torch", glu="erf"),
        lambda: ports.build("mlp_mixer", "S/16", "torch", glu="erf"),
        lambda: ports.save(port.model, tmp_path / "x.pt", config={"glu": "erf"}),
    ):
        with pytest.raises(UsageError, match="did you mean 'gelu'"):
            call()


@pytest.fixture
def seed(tmp_path):
    """A file of the one dialect whose code hard-codes sizes, with values in the block that it never calls."""
    config = MIXER.config(patch=2, depth=1, width=512, token_hidden=3, channel_hidden=5, tokens=196, classes=2)
    write_numbers(tmp_path / "plain.safetensors", "mlp_mixer", config, "seed")
    with convert.plan(tmp_path / "plain.safetensors", "seed", "seed") as plan:
        plan.write(tmp_path / "zeros.safetensors")
    arrays = load_file(tmp_path / "zeros.safetensors")
    arrays |= {name: a + 1 for name, a in arrays.items() if name.startswith("mixer_block_1.")}
    save_file(arrays, tmp_path / "seed.safetensors")
    return tmp_path / "seed.safetensors"


def test_arrays_that_a_network_never_uses(seed, run, tmp_path):
    """The same dialect keeps them; another leaves them out; coming back writes zeros. Each is reported."""
    code, _, err = run("seed2seed", seed, "-o", tmp_path / "a.safetensors", "--dtype", "float64")
    assert (code, "mixer_block_1" in err) == (0, False)
    held, kept = load_file(seed), load_file(tmp_path / "a.safetensors")
    assert held.keys() == kept.keys()
    assert all(np.array_equal(held[name], kept[name]) for name in held)
    assert kept["mixer_block_1.norm1.weight"].dtype == np.float64
    _, _, err = run("seed2torch", seed, "-o", tmp_path / "b.safetensors")
    reason = "in this dialect's files, and no weight of the model"
    assert "set aside mixer_block_1." in err and err.count(reason) == 1, err
    assert re.search(r" and \d+ more, which inspect lists \(12 arrays of [\d,]+ elements; ", err), err
    _, _, err = run("torch2seed", tmp_path / "b.safetensors", "-o", tmp_path / "c.safetensors")
    assert "zeros, as its page says that the network never uses it, and the source lacks it: mixer_block_1." in err


def test_a_model_that_a_dialects_code_cannot_hold(run, recorded, tmp_path):
    code, _, err = run("torch2seed", recorded, "-o", tmp_path / "x.pth")
    assert (code, "seed's own code cannot hold this model" in err) == (1, True)
    assert "width is 512 in seed's code, and 20 in this model" in err
    assert "tokens is 196 in seed's code, and 24 in this model" in err
    assert listing(tmp_path) == ["mixer.safetensors"]
    ports.build("mlp_mixer", "tiny S/32", "torch").save(tmp_path / "image.pt")  # whose Config states no tokens
    assert "tokens is 196 in seed's code, and 20 in this model" in run("torch2seed", tmp_path / "image.pt")[2]
    assert restrictions("mlp_mixer", MIXER.variants["S/16"], "seed") == {}  # whose tokens its image states
    assert restrictions("mlp_mixer", MIXER.variants["S/32"], "seed").keys() == {"tokens"}
    assert restrictions("mlp_mixer", MIXER.variants["B/16"], "seed").keys() == {"width"}


def test_a_field_in_capitals_is_a_misspelt_one(run, tmp_path):
    """And not a section of some dialect's configuration file."""
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--set", "GELU=tanh")
    assert code == 2 and err.endswith("unknown name 'GELU', did you mean 'gelu'? (mlp_mixer)\n"), err


def test_sizes_are_written_and_taken_as_people_write_them(run, tmp_path):
    """HxW in Python as on the command line, in what inspect and errors print, and in the list of small models."""
    for patch in ("4x8", "4,8"):  # in Python as on the command line
        assert specs.config.build(specs.get("mlp_mixer").config, {**SIZES, "patch": patch}).patch == (4, 8)
    assert specs.config.as_hxw(specs.get("raft_mlp").config, "depths", (1, 2)) == (1, 2)  # no height and width
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--set", "patch=3x8")
    assert code == 2 and "patch=3x8 was asked for, but the file has patch=4" in err
    config = specs.get("mlp_mixer").tiny["headless"]
    write_numbers(tmp_path / "x.safetensors", "mlp_mixer", config, "torch")
    assert "config:       patch=4x2 " in run("inspect", tmp_path / "x.safetensors")[1]


SIZES = {"depth": 1, "width": 4, "token_hidden": 3, "channel_hidden": 5, "image": (8, 16)}


def test_diff_names_a_value_that_the_record_assumes_otherwise(recorded, run, tmp_path):
    needs("torch")
    import torch

    torch.save(ports.load(recorded, "torch").model.state_dict(), tmp_path / "bare.pt")
    assert run("torch2flax", tmp_path / "bare.pt", "-o", tmp_path / "x.msgpack", "--assume")[0] == 0
    code, printed, _ = run("diff", tmp_path / "x.msgpack", recorded)
    line = f"assumed of {tmp_path / 'x.msgpack'}, whose record assumes erf: gelu=tanh, from {recorded}"
    assert code == 1 and line in printed
    (entry, _) = json.loads(run("diff", tmp_path / "x.msgpack", recorded, "--json")[1])["assumed"]
    assert (entry["value"], entry["recorded"]) == ("tanh", "erf")


def test_fields_that_no_config_has_are_one_line(run, tmp_path):
    """The nearest field is named for each name that has one, and all fields once for the others."""
    (tmp_path / "c.json").write_text('{"optimizer": 1, "glu": "erf", "variant": "S/16"}')
    code, _, err = run("google2flax", GOOGLE, "--config", tmp_path / "c.json", "-o", tmp_path / "x.msgpack")
    assert code == 2, err
    assert "unknown name 'glu', did you mean 'gelu'?; unknown names 'optimizer', 'variant': the fields are " in err
    assert err.count("the fields are ") == err.count("; a variant is no field: set those in which it differs") == 1
