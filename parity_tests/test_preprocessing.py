"""Preprocessing: torchvision's pixels to the last bit, the same in every framework, and known or marked as assumed."""

import itertools
import json
import shutil
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import ports
import specs
from convert.config.pixels import agreed, same_scaling
from convert.errors import UsageError
from convert.plans.planning import plan
from ports.images import ImagesError
from ports.preprocess import centre, normalise, preprocess, resized
from ports.resampling import resize
from specs.dialects import PORTS
from specs.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Known, fits, stated
from specs.spec import SpecError

from . import documents
from . import torchvision_golden as golden
from .commands import GOOGLE, TIMM, listing
from .conftest import needs, tiny
from .golden import Case
from .parity.plant import rebuilt

RAFT = Case("raft_interp").folder / "weights.pth"  # a network for images of 32 pixels
RAFT_SETTINGS = {"image": 32, "patches": (4, 2, 2), "rafts": (4, 2, 5), "kernels": ((4, 8, 16), (2, 4), (2,))}
ALL = {"mean": 0.5, "std": (0.5, 0.25, 0.125), "range": (0, 1), "crop": 0.875, "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def computed():
    with np.load(golden.PATH) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", golden.CASES)
def test_pixels_are_those_of_torchvision(name, computed):
    """Equal to the last bit, resized and cropped, and normalised."""
    shape, size, how = golden.CASES[name]
    picture = golden.picture(shape)
    height, width = resized(shape[:2], size, how.crop)
    cropped = centre(resize(picture[None], height, width, how.interpolation), size)
    assert np.array_equal(cropped[0], computed[f"{name}/pixels"])
    values = preprocess(picture, how, size, shape[2])
    assert values.dtype == np.float32 and np.array_equal(values[0], computed[f"{name}/values"])


def test_goldens_would_show_another_kernel(computed):
    """The cases tell bilinear from bicubic, and one order of the two passes from the other."""
    shape, size, how = golden.CASES["landscape"]
    other = preprocess(golden.picture(shape), stated({**vars(how), "interpolation": "bilinear"}).complete(), size, 3)
    assert np.abs(other[0] - computed["landscape/values"]).max() > 0.1
    shape, size, how = golden.CASES["tall"]
    height, width = resized(shape[:2], size, how.crop)
    rows_first = resize(resize(golden.picture(shape)[None], height, shape[1], "bicubic"), height, width, "bicubic")
    assert not np.array_equal(centre(rows_first, size)[0], computed["tall/pixels"])


def test_value_range():
    """0 and 255 become the ends of the range before mean and std are applied."""
    pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    how = stated({**ALL, "mean": 1, "std": 2, "range": (-1, 1)}).complete()
    assert normalise(pixels, how).ravel() == pytest.approx([-1, -0.8, 0], abs=1e-7)  # float32


def test_every_framework_gets_the_same_pixels():
    """Each in its own layout on request, and all as the ports take them."""
    picture = golden.picture((30, 41, 3))
    images = {}
    for framework in ports.available():
        port = tiny("convmixer", "1536/20", framework)
        images[framework] = port.preprocess(picture, **ALL)
        native = port.preprocess(picture, native=True, **ALL)
        assert images[framework].dtype == native.dtype == np.float32 and native.flags.c_contiguous
        assert native.shape == ((1, 15, 21, 3) if framework == "flax" else (1, 3, 15, 21))
        as_ports = native.transpose(0, 3, 1, 2) if framework == "flax" else native
        assert np.array_equal(as_ports, images[framework])
    first, *others = images.values()
    assert all(np.array_equal(first, other) for other in others)


def test_pictures_of_every_kind():
    """Arrays, batches, lists and PIL images of one picture give the same pixels."""
    how, one, grey = stated({**ALL, "std": 0.5}).complete(), golden.picture((20, 30, 3)), golden.picture((20, 30, 1))
    expected = preprocess(one, how, (8, 8), 3)
    assert np.array_equal(preprocess(np.stack([one, one]), how, (8, 8), 3), np.concatenate([expected] * 2))
    wide = golden.picture((20, 50, 3))
    assert np.array_equal(preprocess([wide, one], how, (8, 8), 3)[1:], expected)
    assert np.array_equal(preprocess(grey[..., 0], how, (8, 8), 1), preprocess(grey, how, (8, 8), 1))
    assert preprocess(np.stack([grey[..., 0]] * 2), how, (8, 8), 1).shape == (2, 8, 8, 1)
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install pillow")
    assert np.array_equal(preprocess(image.fromarray(one), how, (8, 8), 3), expected)
    with pytest.raises(ImagesError, match=r"mode RGB, .* 1 channels: use image.convert\('L'\)"):
        preprocess(image.fromarray(one), how, (8, 8), 1)


@pytest.mark.parametrize(("picture", "says"), [
    (np.zeros((3, 20, 30), np.uint8), r"use array.transpose\(1, 2, 0\)"),
    (np.zeros((2, 3, 20, 30), np.uint8), r"use array.transpose\(0, 2, 3, 1\)"),
    (np.zeros((20, 30), np.uint8), "takes 3 channels"),
    (np.zeros((20, 30, 4), np.uint8), "takes 3 channels"),
    (np.zeros((20, 30, 3), np.float32), "0 to 255, as uint8"),
    (np.zeros((0, 30, 3), np.uint8), "at least one pixel"),
    ([], "at least one"),
    (["cat.jpg"], r"'cat.jpg' is a path, and no picture: .* PIL.Image.open\('cat.jpg'\).convert\('RGB'\)"),
    (Path("cat.jpg"), "'cat.jpg' is a path"),
])  # fmt: skip
def test_what_is_no_picture_is_refused(picture, says):
    with pytest.raises(ImagesError, match=says):
        preprocess(picture, stated(ALL).complete(), (8, 8), 3)


def test_dialects_state_what_fits_their_networks():
    """All of it, for every variant, or nothing, as of a tutorial and of the ports' own files."""
    unknown = set()
    for name in specs._pages():
        for key, dialect in specs.get(name).dialects.items():
            assert "" in dialect.preprocessing or not dialect.preprocessing
            unknown |= set() if dialect.preprocessing else {key}
            for published in dialect.preprocessing.values():
                assert agreed(published, 3).open == [] and all(fits(one, 3) for one in published)
    assert "seed" in unknown
    assert not any(dialect.preprocessing for dialect in PORTS.values())


def test_a_page_with_wrong_preprocessing_is_refused():
    """Of a variant that it does not have, or without the tuple."""
    spec = specs.get("convmixer")
    given = {f.name: getattr(spec, f.name) for f in fields(spec)}
    how = spec.dialects["timm"].preprocessing[""]
    wrong = {"a": {"768/23": how}, "b": {"": how[0]}}
    dialects = {key: spec.dialects["timm"]._replace(preprocessing=value) for key, value in wrong.items()}
    with pytest.raises(SpecError) as caught:
        type(spec)(**{**given, "dialects": dialects})
    kind, unknown = (problem for problem in caught.value.problems if "preprocessing" in problem)
    assert "'a'" in unknown and "did you mean '768/32'" in unknown
    assert "'b'" in kind and "not a mapping of variants to tuples of Preprocessing" in kind


def test_two_ways_to_write_one_scaling():
    """Google's [-1, 1] is timm's mean and std of 0.5, and not miil's."""
    google = Known({"range": (-1, 1), "mean": 0, "std": 1})
    assert same_scaling(google, Known({"range": (0, 1), "mean": 0.5, "std": (0.5, 0.5, 0.5)}), 3)
    assert not same_scaling(google, Known({"range": (0, 1), "mean": 0, "std": 1}), 3)


def about(path):
    with plan(path) as made:
        return made.preprocessing


def test_published_weights_are_known_and_others_assumed():
    """Of an official variant with its own head, only what its published checkpoints disagree on is assumed.

    Of a file everything is: its sizes do not show that it is one of them.
    """
    from convert.config.pixels import known, published
    from convert.records.record import Record

    spec = specs.get("mlp_mixer")
    official = published(spec, spec.dialects["timm"], "B/16", spec.variants["B/16"])
    assert official.assumed == {"mean", "std", "interpolation"}  # Google's and miil's differ
    assert official.values["crop"] == 0.875 and official.values["mean"] == 0.5
    config = spec.variants["B/16"]
    found, _ = known("x.pth", spec, spec.dialects["timm"], "B/16", config, Record(), Known(), False)
    assert found == official.all_assumed()
    small = about(TIMM)
    assert small.values == official.values and small.assumed == official.values.keys()


def test_google_to_every_framework_and_to_timm(tmp_path, run):
    """The record carries preprocessing; what was assumed stays marked; what the user states is known."""
    one, two, three = tmp_path / "one.safetensors", tmp_path / "two.msgpack", tmp_path / "three.pth"
    assert run("google2torch", GOOGLE, "-o", one, "--set", "preprocessing.crop=0.9")[0] == 0
    assert run("torch2flax", one, "-o", two)[0] == 0
    assert run("flax2timm", two, "-o", three)[0] == 0
    values = {"mean": 0.0, "std": 1.0, "range": [-1.0, 1.0], "crop": 0.9, "interpolation": "bicubic"}
    for path in (one, two, three):
        described = json.loads(run("inspect", path, "--json")[1])
        assert described["preprocessing"] == {**values, "assumed": ["mean", "std", "range", "interpolation"]}
    printed = run("inspect", three)[1]
    assert "pixels:       mean=0.0 std=1.0 range=[-1.0, 1.0] crop=0.9 interpolation=bicubic" in printed
    assert "assumed, not stated: mean, std, range, interpolation" in printed
    assert "assumed, not stated: all of these" in run("inspect", GOOGLE)[1]
    assert run("verify", two)[0] == 0


@pytest.mark.parametrize(("value", "says"), [
    ("preprocessing.crap=1", "did you mean 'crop'"),
    ("preprocessing.crop=1.5", "above 0, at most 1"),
    ("preprocessing.std=0", "above 0"),
    ("preprocessing.mean=0.5,0.5", "one number, or 3"),
    ("preprocessing.interpolation=nearest", "bicubic or bilinear"),
    ("preprocessing=bicubic", "a mapping of its fields"),
])  # fmt: skip
def test_what_cannot_be_is_refused(value, says, tmp_path, run):
    code, out, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--set", value)
    assert code == 2 and says in err and not out and listing(tmp_path) == []


CONFIG = {"architecture": "mixer_b16_224", "num_classes": 7, "pretrained_cfg": {
    "input_size": [3, 24, 16], "crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0], "crop_mode": "center"}}  # fmt: skip
STATED = {"mean": 0.0, "std": 1.0, "range": (0.0, 1.0), "crop": 0.9, "interpolation": "bilinear", "image": (24, 16)}


def test_the_config_of_timm_beside_its_file(tmp_path):
    """It states the preprocessing of a file under Hugging Face's name, and of no other."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for name in ("pytorch_model.bin", "other.pth"):
        shutil.copy(TIMM, tmp_path / name)
    found = about(tmp_path / "pytorch_model.bin")
    assert found.values == STATED and not found.assumed
    assert about(tmp_path / "other.pth") == about(TIMM)


@pytest.mark.parametrize(("change", "says"), [
    ({"num_classes": 1000}, "1000 classes: it is not used"),
    ({"pretrained_cfg": {**CONFIG["pretrained_cfg"], "input_size": [3, 32, 32]}}, "make 64 tokens"),
    ({"pretrained_cfg": {**CONFIG["pretrained_cfg"], "crop_mode": "squash"}}, "crop is left open"),
    ({"pretrained_cfg": {**CONFIG["pretrained_cfg"], "interpolation": "lanczos"}}, "'lanczos' is not implemented"),
    ({"pretrained_cfg": {**CONFIG["pretrained_cfg"], "std": "small"}}, "cannot be used"),
])  # fmt: skip
def test_a_config_that_does_not_fit_is_reported(change, says, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **change}))
    shutil.copy(TIMM, tmp_path / "pytorch_model.bin")
    with plan(tmp_path / "pytorch_model.bin") as made:
        assert any(note.startswith("config.json: preprocessing: ") and says in note for note in made.notes())
        assert made.preprocessing.values.get("image") != (32, 32)


def test_the_config_of_timm_as_config(tmp_path, run):
    (tmp_path / "timm.json").write_text(json.dumps(CONFIG))
    code, _, err = run("timm2torch", TIMM, "-o", tmp_path / "x.safetensors", "--config", tmp_path / "timm.json")
    assert code == 0 and "ignored: architecture, num_classes" in err
    assert about(tmp_path / "x.safetensors") == Known(STATED)


def test_a_bare_file_is_not_guessed(tmp_path):
    """Weights without a record: a port refuses to preprocess, and names what to state."""
    needs("torch")
    import torch

    port = ports.load(str(GOOGLE), "torch")
    torch.save(port.model.state_dict(), tmp_path / "bare.pt")
    bare = ports.load(str(tmp_path / "bare.pt"), "torch", gelu="tanh", norm_eps=1e-6)
    picture = golden.picture((40, 30, 3))
    with pytest.raises(UsageError, match="mean, std, range, crop, interpolation not known"):
        bare.preprocess(picture)
    with pytest.raises(UsageError, match="did you mean 'crop'"):
        bare.preprocess(picture, crap=1)
    with pytest.raises(UsageError, match="image not known"):
        port.preprocess(picture)  # 24 tokens may be 6 rows of 4, or 4 rows of 6
    with pytest.warns(UserWarning, match=r"assumed, not known .*: mean=0.0 std=1.0"):
        expected = port.preprocess(picture, image=(24, 16))
    assert expected.shape == (1, 3, 24, 16)
    port.preprocessing = port.preprocessing.above(stated({"image": (24, 16)}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(bare.preprocess(picture, **port.preprocessing.values), expected)
        known = ports.load(
            str(tmp_path / "bare.pt"),
            "torch",
            gelu="tanh",
            norm_eps=1e-6,
            preprocessing=dict(port.preprocessing.values),
        )
        assert np.array_equal(known.preprocess(picture), expected)
    known.save(tmp_path / "saved.npz")
    ports.save(known.model, tmp_path / "again.npz", config=tmp_path / "saved.npz")
    assert about(tmp_path / "saved.npz") == about(tmp_path / "again.npz") == Known(port.preprocessing.values)
    port.save(tmp_path / "assumed.npz")
    assert about(tmp_path / "assumed.npz") == port.preprocessing
    assert port.preprocessing.assumed == {"mean", "std", "range", "crop", "interpolation"}


def test_a_new_port_states_its_preprocessing(tmp_path):
    needs("torch")
    new = ports.build("convmixer", specs.get("convmixer").tiny["768/32"], "torch", preprocessing=ALL)
    with pytest.raises(UsageError, match="did you mean 'crop'"):
        new.preprocessing = {"crap": 1}
    new.save(tmp_path / "new.safetensors")
    assert about(tmp_path / "new.safetensors") == stated(ALL) == rebuilt(new, dtype="float64").preprocessing


def test_a_record_that_was_changed_is_assumed(tmp_path, run):
    """And one that says what cannot be is reported."""
    path = tmp_path / "x.npz"
    assert run("google2flax", GOOGLE, "-o", path, *options(ALL))[0] == 0
    assert not about(path).assumed
    record = json.loads((tmp_path / "x.npz.json").read_text())
    (tmp_path / "x.npz.json").write_text(
        json.dumps({**record, "preprocessing": {**record["preprocessing"], "crop": 1}})
    )
    assert about(path).assumed == ALL.keys() and about(path).values["crop"] == 1
    (tmp_path / "x.npz.json").write_text(json.dumps({**record, "preprocessing": {"crop": 7}}))
    with plan(path) as made:
        assert not made.preprocessing.values
        assert any("it is not used: crop=7" in note for note in made.notes())


def options(values):
    return [f"--set=preprocessing.{name}={str(value).strip('()')}" for name, value in values.items()]


def test_a_target_that_scales_otherwise_is_reported(monkeypatch):
    """Where both are known; the published weights of a dialect are large, so they are stood in for."""
    google = specs.get("mlp_mixer").dialects["google"].preprocessing[""]
    with plan(TIMM, dst="google", settings={"preprocessing": ALL}) as made:
        assert not any("scales pixels" in note for note in made.notes())  # Google's are assumed of so small a network
        monkeypatch.setattr("convert.plans.plan.published", lambda *_: agreed(google, 3))
        (note,) = [note for note in made.notes() if "scales pixels" in note]
        assert note.startswith(
            "google's own code scales pixels by mean=0.0 std=1.0 range=[-1.0, 1.0]; these weights need"
        )
    with plan(TIMM, dst="google", settings={"preprocessing": {**ALL, "std": 0.5}}) as made:
        assert not any("scales pixels" in note for note in made.notes())


def test_diff_reports_another_scale(tmp_path, run):
    one, two, three = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "three"))
    for path, std in ((one, 0.5), (two, 1)):
        assert run("google2torch", GOOGLE, "-o", path, *options({**ALL, "std": std}))[0] == 0
    assert run("google2torch", GOOGLE, "-o", three)[0] == 0
    code, _, err = run("diff", one, two)
    assert code == 0 and "pixels on different scales" in err and "std=1" in err
    assert "(assumed: mean, std, range)" in run("diff", two, three)[2]  # nobody states the scale of the third
    four = three.with_name("four.safetensors")
    assert run("google2timm", GOOGLE, "-o", four)[0] == 0
    assert "scales" not in run("diff", three, four)[2]


def test_a_mixer_takes_no_other_image(tmp_path, run):
    """Its token mixing has weights for one number of tokens; another size with as many is recorded."""
    needs("torch")
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--image", "48")
    assert code == 2 and "make 144 tokens of 4x4, the network has 24: its token-mixing layers have weights" in err
    assert listing(tmp_path) == []
    code, _, err = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--image", "16x24")
    assert code == 0 and "--image 16x24 is recorded: every array stays as it is" in err
    assert about(tmp_path / "x.safetensors").values["image"] == (16, 24)
    port = ports.load(tmp_path / "x.safetensors", "torch")
    assert port.config.image == (16, 24) and "image" not in port.suggested
    with pytest.raises(UsageError, match="images of 24x16 make 6x4 tokens of 4x4, the network's grid is 4x6"):
        port(np.zeros((1, 3, 24, 16), np.float32))
    again = ("torch2flax", tmp_path / "x.safetensors", "-o", tmp_path / "y.msgpack", "--image", "24x16")
    code, _, err = run(*again)
    assert code == 2 and "image=(16, 24) is stated, by its record or --set: --set image=24x16 goes above it" in err
    assert run(*again, "--set", "image=24x16")[0] == 0
    values = about(tmp_path / "y.msgpack").values
    assert values["image"] == (24, 16) and values["mean"] == 0.0
    code, _, err = run("google2torch", GOOGLE, "--image", "16x24", "--set", "preprocessing.image=24x16")
    assert code == 2 and "another size" in err
    code, _, err = run("google2torch", GOOGLE, "--image", "16by24")
    assert code == 2 and err.endswith("image='16by24' does not fit: image is int or HxW or none\n")


def test_a_raft_takes_every_image_as_upstream_does(tmp_path, run):
    """Upstream resizes activations to the grid that was trained, and no weights: arrays and grid stay as they are."""
    needs("torch")
    settings = [f"--set={name}={json.dumps(value)}" for name, value in RAFT_SETTINGS.items()]
    plain, larger = tmp_path / "plain.safetensors", tmp_path / "larger.safetensors"
    assert run("official2torch", RAFT, "-o", plain, *settings)[0] == 0
    assert run("official2torch", RAFT, "-o", larger, *settings, "--image", "44")[0] == 0
    assert run("diff", plain, larger)[0] == 0 and run("verify", larger)[0] == 0
    port = ports.load(str(larger), "torch", dtype="float64")
    assert port.config.image == 32
    with pytest.warns(UserWarning, match="assumed"):
        images = port.preprocess(golden.picture((60, 70, port.config.channels)), image=None)
        assert images.shape[2:] == (44, 44)
    assert np.array_equal(port(images), ports.load(str(plain), "torch", dtype="float64")(images))


def test_the_table_of_the_quick_start():
    """Each row states what the dialects state; a star marks what differs between published checkpoints."""
    text = documents.section(documents.read("docs/quick-start.md"), "Preprocess images")
    names = {IMAGENET_MEAN: "ImageNet", IMAGENET_STD: "ImageNet"}
    names |= dict.fromkeys([(0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)], "CIFAR-10")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line][2:]
    seen = set()
    for architecture, keys, variants, *cells in rows:
        for key, variant in itertools.product(keys.split(", "), variants.split(", ")):
            variant = "" if variant in ("all", "others") else variant
            known = agreed(specs.get(architecture).dialects[key].preprocessing[variant], 3)
            for cell, field in zip(cells, ("mean", "std", "range", "crop", "interpolation"), strict=True):
                value = known.values[field]
                value = names.get(value) or (", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value)
                shown = value if isinstance(value, str) else f"{value:g}"
                assert cell == shown + (" *" if field in known.assumed else ""), (architecture, key, field)
            seen.add((architecture, key, variant))
    every = {
        (name, key, variant)
        for name in specs._pages()
        for key, dialect in specs.get(name).dialects.items()
        for variant in dialect.preprocessing
    }
    table = "docs/quick-start.md, Preprocess images: its table"
    assert every - seen == set(), f"{table} lacks rows: (architecture, dialect, variant)"
    assert seen - every == set(), f"{table} has rows that no page states: (architecture, dialect, variant)"


def test_the_snippets_of_the_quick_start(tmp_path, monkeypatch, run):
    needs("torch")
    shutil.copy(GOOGLE, tmp_path / "mixer.npz")
    monkeypatch.chdir(tmp_path)
    text = documents.section(documents.read("docs/quick-start.md"), "Preprocess images")
    commands = documents.commands(text)
    assert len(commands) == 2
    for words in commands:
        name, arguments = documents.module(words)
        code, out, _ = run(*arguments)
        assert name == "convert" and code == 0
    assert "pixels: " in out and out.count("image=24x16") == 2, out
    space = {}
    with pytest.warns(UserWarning, match="assumed"):
        exec(compile(documents.python(text), "quick-start.md", "exec", dont_inherit=True), space)
    assert space["images"].shape == (1, 3, 24, 16) and space["logits"].shape == (1, 7)
    assert np.array_equal(space["native"], space["images"])
