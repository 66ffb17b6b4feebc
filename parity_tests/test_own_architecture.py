"""An architecture from outside: its files alone, named by the user, and loaded for no other reason."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ports
import specs
from convert.__main__ import main as convert
from convert.errors import UsageError
from convert.reading.recognise import spellings
from parity.__main__ import main as parity_main
from ports.__main__ import main as ports_main
from ports.port import Port

from . import test_assumed, test_ports
from .commands import ROOT, python_path
from .conftest import needs, needs_port
from .optimizing import save_one_step

GENERIC = ["test_specs.py", "test_tables.py", "test_ports.py", "test_routes.py", "test_goldens.py"]


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """Write a new architecture; what is added in a test is forgotten after it."""
    monkeypatch.setattr(specs, "_added", {})

    def write(name):
        assert ports_main(["new", name, "--out", str(tmp_path)]) == 0
        capsys.readouterr()
        return tmp_path / f"{name}.py"

    return write


def rewrite(page, changes):
    """Replace texts of a page, each of which it has to contain. Args: changes: pairs of (text, other text)."""
    text = page.read_text()
    for good, bad in changes:
        assert good in text
        text = text.replace(good, bad)
    page.write_text(text)


def run(*words, cwd=ROOT, path=()):
    env = {**os.environ, **python_path(*path)}
    return subprocess.run([sys.executable, "-W", "ignore", *map(str, words)], cwd=cwd, env=env, capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip


def test_a_new_architecture_is_its_files_and_nothing_else(tmp_path):
    """The commands of docs/own-architecture.md write it and run as they stand, and the generic tests find it."""
    for framework in ("flax", "torch", "paddle"):
        needs(framework)
    (commands,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "own-architecture.md").read_text(), re.DOTALL)
    for line in commands.strip().splitlines():
        program, *words = line.split()
        done = run(*words, cwd=tmp_path)
        assert (program, done.returncode) == ("python", 0), (line, done.stdout, done.stderr)
        if "new" in words:
            names = [f"my_network{part}.py" for part in ("", "_flax", "_golden", "_paddle", "_torch")]
            assert sorted(path.name for path in tmp_path.iterdir()) == names
        elif "my_network_golden.py" in words:
            told = [line.partition(":")[0] for line in done.stdout.splitlines()]
            assert told == [f"my_network_small, {framework}" for framework in ("flax", "torch", "paddle")]
    files = [ROOT / "parity_tests" / name for name in GENERIC]
    page, other = tmp_path / "my_network.py", tmp_path / "goldens" / "of_another_page"
    other.mkdir()
    (other / "case.json").write_text('{"architecture": "another"}')
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--spec", page, "-k", "my_network", *files)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout
    assert f"{other}: is a case of another: add --spec PAGE to run it too" in done.stdout


def test_the_generic_tests_ask_nothing_of_a_page_that_it_need_not_have(new, tmp_path):
    """A page may have no open field, no port in some framework, and arrays that begin at a constant."""
    page = new("closed")
    text = page.read_text()
    for line in re.findall(r"    (?:act: |norm_eps: |norms=|activations=).*\n", text):
        text = text.replace(line, "")
    fields = ', act="relu"', ", norm_eps=1e-4", ', {"act": "gelu", "norm_eps": 1e-6}'
    for part in (*fields, ', "torch": "closed_torch.py"'):
        assert part in text
        text = text.replace(part, "")
    page.write_text(text.replace("c.patch, c.patch)", "c.patch, c.patch, init=0.1)"))
    specs.add(str(page))
    test_ports.test_a_seed_gives_the_same_weights_everywhere("closed", "torch")
    for framework in ("flax", "torch", "paddle"):
        test_assumed.test_bare_arrays_of_a_port_are_refused("closed", framework, tmp_path)
    with pytest.raises(pytest.skip.Exception, match="closed declares no port in torch"):
        needs_port("closed", "torch")


def weights(page, path, dialect="original", **record):
    """Write a checkpoint of a page's first twin."""

    from convert.reading.recognise import dialects
    from specs.dialects import shapes

    name = specs.add(str(page))
    spec = specs.get(name)
    config = next(iter(spec.tiny.values()))
    there = shapes(spec.layers(config), dialects(name)[dialect], config)
    arrays = {k: np.random.default_rng(0).standard_normal(shape).astype("f4") for k, shape in there.items()}
    save_file(arrays, path, {"triptych": json.dumps(record)} if record else None)
    return str(path)


def test_every_command_takes_a_page(new, tmp_path, capsys, monkeypatch):
    page = new("eighth")
    source = weights(page, tmp_path / "a.safetensors")
    named = ["--spec", str(page)]
    monkeypatch.setattr(specs, "_added", {})
    assert convert(["inspect", source, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] is None
    assert convert([*named, "inspect", source, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "eighth"
    out = str(tmp_path / "b.msgpack")
    assert convert(["original2flax", source, "-o", out, *named]) == 0
    assert convert(["diff", source, out, *named]) == 0
    capsys.readouterr()
    assert convert(["routes", "--json", *named]) == 0
    assert {"route": "original2flax", "architecture": "eighth"} in json.loads(capsys.readouterr().out)
    assert ports_main(["--json", *named]) == 0
    assert any(row["architecture"] == "eighth" for row in json.loads(capsys.readouterr().out))


def test_a_route_into_a_part_of_an_unknown_model_offers_a_page(tmp_path, capsys):
    """All names of one part may be those of an architecture here, as two numbers and a leaf are."""
    names = [f"stem_layers.{n}.{m}.{leaf}" for n in range(4) for m in range(2) for leaf in ("weight", "bias")]
    arrays = dict.fromkeys([*names, "stem_layers.0.0.fn.0.weight", "stages.0.0.gamma"], np.ones((3, 3), "f4"))
    save_file(arrays, tmp_path / "x.safetensors")
    assert convert(["official2flax", str(tmp_path / "x.safetensors"), "-o", str(tmp_path / "y.msgpack")]) == 1
    err = capsys.readouterr().err
    assert "the nearest is convmixer (official), which has " in err
    assert " names in stem_layers., and does not fit; " in err
    assert "--spec PAGE adds an architecture (docs/own-architecture.md)" in err


def test_inspect_names_the_page_that_a_record_asks_for(new, tmp_path, capsys, monkeypatch):
    """And no nearest architecture, which the file is not; no default is shown as if the file stated it."""
    page = new("eleventh")
    source = weights(page, tmp_path / "a.safetensors", architecture="eleventh", config={})
    assert convert(["inspect", source, "--spec", str(page)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "assumed by default" in line]
    assert line.split(": ")[1] == "image"
    monkeypatch.setattr(specs, "_added", {})
    remedy = "names the architecture 'eleventh', which needs a page of its own: add --spec PAGE"
    assert convert(["inspect", source]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"record:       {remedy}"
    assert not any(line.startswith("nearest") for line in others)
    record = {"triptych": json.dumps({"architecture": "eleventh", "config": {}})}
    for name, about in (("a", record), ("b", None)):
        save_file({f"{name}.x": np.ones(2, "f4")}, tmp_path / name, about)
    assert convert(["diff", str(tmp_path / "b"), str(tmp_path / "a")]) == 1
    assert f"{tmp_path / 'a'}: its record {remedy}" in capsys.readouterr().err


def test_inspect_takes_what_two_dialects_state_differently_for_open(new, tmp_path, capsys):
    """They read a file without a record alike: what both fix is stated of both, and the other values are named."""
    page = new("twofold")
    text, lines = page.read_text(), re.compile('"original": (Dialect.*?")norm_eps": 1e-6}, about=[^)]*\\)', re.DOTALL)
    page.write_text(lines.sub(r'\g<0>, "other": \1norm_eps": 1e-5})', text))
    assert convert(["inspect", weights(page, tmp_path / "a.safetensors"), "--spec", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "assumed as original and other's own code computes: act\n" in printed
    assert "norm_eps depends on the dialect: 1e-6 as original and 1e-5 as other\n" in printed
    assert "norm_eps=" not in printed and "by its record" not in printed


@pytest.mark.parametrize(("yaml", "message"), [
    ("MODL:\n  EPS: 1.0\n", "there is no MODEL in it"),
    ("MODEL:\n  APS: 1.0\n", "there is no EPS in it"),
    ("MODEL: 3\n", "the page's reader of such files fails: TypeError: 'int' object is not subscriptable"),
])  # fmt: skip
def test_a_configuration_file_that_a_page_cannot_read_is_named(yaml, message, new, tmp_path, capsys):
    page, path = new("reading"), tmp_path / "c.yaml"
    path.write_text(yaml)
    reader = '    readers={"original": lambda parsed: {"norm_eps": parsed["MODEL"]["EPS"]}},\n)'
    page.write_text(page.read_text().removesuffix(")\n") + reader)
    words = [weights(page, tmp_path / "a.safetensors"), "-o", str(tmp_path / "x.msgpack")]
    named = ["--spec", str(page), "--config", str(path)]
    assert convert(["original2flax", *words, *named]) == 2
    assert f"reading, --config {path}: {message}\n" in capsys.readouterr().err
    assert parity_main(["reading:S", *named]) == 2
    assert f"reading: --config {path}: {message}\n" in capsys.readouterr().err
    with pytest.raises(UsageError, match=re.escape(f"{path}: {message}")):
        ports.build("reading", str(path), "torch")


def test_parity_takes_a_page_also_in_processes_of_their_own(new):
    needs("torch"), needs("paddle")
    page = new("ninth")
    words = ["ninth:tiny S", "--spec", page, "--frameworks", "torch", "paddle", "--check", "forward", "--isolate"]
    done = run("-m", "parity", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["passed"] for row in json.loads(done.stdout)] == [True]


@pytest.fixture
def installed(new):
    """Install a package whose entry point is a page, which leaves a trace where it is loaded."""
    page = new("tenth")
    page.write_text(page.read_text() + "\nopen(__file__ + '.loaded', 'w').close()\n")
    about = page.parent / "tenth-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tenth\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[triptych.specs]\ntenth = tenth:SPEC\n")
    return page


def test_no_checkpoint_loads_a_page(installed, tmp_path):
    """Though its record names the architecture, and a package that offers it is installed."""
    needs("torch")
    source = weights(installed, tmp_path / "a.safetensors", architecture="tenth", config={})
    trace = Path(f"{installed}.loaded")
    trace.unlink()
    path = [installed.parent]
    for words in (["inspect", source], ["diff", source, source], ["original2torch", source], ["verify", source]):
        done = run("-m", "convert", *words, path=path)
        assert "Traceback" not in done.stderr
        assert not trace.exists(), words
    assert run("-m", "parity", source, path=path).returncode != 0
    assert not trace.exists()
    done = run("-m", "convert", "torch2flax", source, path=path)
    assert "its record names the architecture 'tenth', which needs a page of its own: add --spec PAGE" in done.stderr
    done = run("-m", "convert", "inspect", source, "--spec", "tenth", path=path)
    assert "architecture: tenth" in done.stdout
    assert trace.exists()


def test_an_entry_point_is_a_name_like_any_other(installed):
    needs("torch")
    code = "import ports; port = ports.build('tenth', 'S', 'torch', depth=1, classes=2); print(port.architecture)"
    done = run("-c", code, path=[installed.parent])
    assert done.stdout == "tenth\n", done.stderr


def test_a_page_may_import_its_neighbours_and_shadows_nothing(new, monkeypatch):
    page = new("fifteenth")
    (page.parent / "neighbour.py").write_text("DEPTH = 1\n")
    (page.parent / "torch").mkdir()  # no framework, though a folder has its name
    (page.parent / "json.py").write_text("raise AssertionError\n")
    page.write_text(page.read_text() + "import json\nimport neighbour\n")
    before = list(sys.path)
    assert specs.add(str(page)) == "fifteenth"
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "neighbour")


def test_a_page_without_all_ports_is_compared_and_proven_with_those_that_it_has(new, tmp_path, capsys, monkeypatch):
    """Also where the file's own framework has none; the others are skipped by name."""
    needs("torch"), needs("paddle")
    page = new("sixteenth")
    page.write_text(page.read_text().replace('"flax": "sixteenth_flax.py", ', ""))
    source = weights(page, tmp_path / "a.safetensors")
    out = tmp_path / "b.msgpack"
    words = ["original2flax", source, "-o", out, "--prove", "--set", "image=6", "--spec", page]
    monkeypatch.setattr(specs, "_added", {})
    assert convert(list(map(str, words))) == 0
    ran = "proven: the source, run in torch, and the target, run in paddle, both in float64, differ by at most"
    printed = capsys.readouterr().out
    trusted = "(act=gelu, norm_eps=1e-6); that image changes no output, as the page says (immaterial)\n"
    assert ran in printed and printed.endswith(trusted), printed
    monkeypatch.setattr(specs, "_added", {})
    with mock.patch.dict(os.environ):  # a comparison adds variables that frameworks read
        assert parity_main(["sixteenth:tiny S", "--spec", str(page), "--check", "forward"]) == 0
    assert "sixteenth has no port in flax, so 2 comparisons did not run (flax-torch and flax-paddle)" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(("conventions", "asked"), [
    ('{"act": "gelu"}', ["norm_eps"]), ("{}", ["act", "norm_eps"]), ('{"act": "gelu", "norm_eps": 1e-5}', []),
])  # fmt: skip
def test_a_convention_that_only_another_dialect_states_is_asked_for(conventions, asked, new, tmp_path, capsys):
    """Its default may be wrong: the author forgot the convention, or left it open."""
    page = new("forgetful")
    text = page.read_text()
    other = f'DIALECTS["other"] = DIALECTS["original"]._replace(conventions={conventions})\n\nSPEC = '
    page.write_text(text.replace("SPEC = ", other))
    source = weights(page, tmp_path / "a.safetensors")
    words = ["other2flax", source, "-o", str(tmp_path / "b.msgpack"), "--spec", str(page)]
    assert convert(words) == (2 if asked else 0)
    err = capsys.readouterr().err
    assert [name for name in ("act", "norm_eps") if re.search(rf"\b{name} is open[:,] set it", err)] == asked
    assert convert([*words, "--assume", "--force"]) == 0
    assert ("assumed: " in capsys.readouterr().err) == bool(asked)


def test_a_convention_without_effect_on_a_model_has_nothing_to_do_with_its_images(new, run, tmp_path):
    page = new("idle")
    text = page.read_text().replace('return {"image"}', 'return {"image", "act"} if c.depth > 1 else {"image"}')
    page.write_text(text)
    words = [weights(page, tmp_path / "a.safetensors"), "-o", tmp_path / "b.msgpack", "--spec", page]
    code, _, err = run("original2flax", *words)
    assert code == 0 and "own code computes: norm_eps=1e-6; act=gelu (no effect on this model)\n" in err, err


def test_other_pages_with_the_dialect_are_named(new, tmp_path, capsys):
    """A route names a dialect, and several architectures have one of that name."""
    page = new("twentieth")
    page.write_text(page.read_text().replace('"original": Dialect', '"timm": Dialect'))
    file = weights(page, tmp_path / "a.safetensors", "timm")
    arrays = {name.replace("embed.", "stem."): array for name, array in load_file(file).items()}
    save_file(arrays, tmp_path / "b.safetensors")
    words = ["timm2flax", str(tmp_path / "b.safetensors"), "-o", str(tmp_path / "c.msgpack"), "--spec", str(page)]
    assert convert(words) == 1
    err = capsys.readouterr().err
    assert (
        "no complete timm checkpoint of twentieth" in err and "convmixer and mlp_mixer have a dialect timm too" in err
    )


def test_a_parameter_that_no_port_reads_is_named(new, capsys):
    """The ports agree, and none of them computes what the page says."""
    needs("torch")
    needs("paddle")
    page = new("unread")
    loop = "    for b in range(c.depth):\n"
    text = page.read_text().replace(loop, f'{loop}        yield array(f"blocks.{{b}}.start", d=c.width)\n')
    page.write_text(text.replace("conv, dense", "array, conv, dense"))
    made = {"torch": "nn.Parameter(torch.ones(c.width))", "paddle": "self.create_parameter([c.width])"}
    for framework, start in made.items():
        port = page.with_name(f"unread_{framework}.py")
        begin = "super().__init__()\n"
        code = port.read_text().replace(begin, f"{begin}        self.start = {start}\n", 1)
        port.write_text(f"import torch\n{code}" if framework == "torch" else code)
    words = ["unread:tiny S", "--spec", str(page), "--frameworks", "torch", "paddle", "--check", "gradients"]
    assert parity_main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 parameters have a gradient of 0 as a whole" in said, said
    assert "'blocks.0.start', 'blocks.1.start'" in said


def test_words_name_the_parts_of_an_array_of_ours(new, tmp_path):
    """As of query, key and value; the sizes of a file are read off names and shapes."""
    page = new("worded")
    rewrite(page, (
        ("hidden=11", "hidden=12"), ("hidden=13", "hidden=14"),
        ('dense(f"blocks.{b}.fc1", c.width, c.hidden)',
         'Layer(f"blocks.{b}.fc1", "dense", {"i": c.width, "o": c.hidden, "s": 2, "u": c.hidden // 2})'),
        ("        blocks.{i}.fc1  <-> layers.{i}.1\n", """
        blocks.{i}.fc1.kernel: i (s u) <-> layers.{i}.{s=left|right}.weight: u i  # two arrays there
        blocks.{i}.fc1.bias: (s u) <-> layers.{i}.{s=left|right}.bias: u\n"""),
    ))  # fmt: skip
    source, out, back = (
        weights(page, tmp_path / "a.safetensors"),
        tmp_path / "b.safetensors",
        tmp_path / "c.safetensors",
    )
    for words in (["original2torch", source, "-o", str(out)], ["torch2original", str(out), "-o", str(back)]):
        assert convert([*words, "--spec", str(page)]) == 0
    first, joined, last = (load_file(path) for path in (source, out, back))
    parts = [first[f"layers.1.{side}.weight"] for side in ("left", "right")]
    assert np.array_equal(joined["blocks.1.fc1.weight"], np.concatenate(parts))
    assert first.keys() == last.keys()
    assert all(np.array_equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize("others", ["blocks.{i+1}.fc1 <-> rest.{2*i+1}.fc", "blocks.{i}.fc1 <-> rest.{2*i-1}.fc"])
@pytest.mark.parametrize("depth", [1, 3])  # of the last twin
def test_a_first_block_that_is_special_is_read_as_it_is_written(others, depth, new, tmp_path):
    """Its own line goes before that of all blocks, and is learnt, as is theirs, whichever blocks the last twin has."""
    page = new(f"special_{depth}_{len(others)}")  # what is learnt of a page is kept by its name
    rewrite(
        page,
        (
            ("patch=3, depth=1", f"patch=3, depth={depth}"),
            ('fc1", c.width, c.hidden)', 'fc1", c.width, c.hidden + 4 * (not b))'),
            ('fc2", c.hidden, c.width)', 'fc2", c.hidden + 4 * (not b), c.width)'),
            ('sizes["blocks.0.fc1.kernel", "o"]', 'sizes["blocks.0.fc1.kernel", "o"] - 4'),
            ("        blocks.{i}.fc1  <-> layers.{i}.1\n", f"        {others}\n        blocks.0.fc1 <-> first\n"),
        ),
    )
    source = weights(page, tmp_path / "a.safetensors")
    out, back = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    assert {"first.weight", "rest.#.fc.bias"} <= spellings(page.stem, "original").keys()
    for words in (["original2torch", source, "-o", str(out)], ["torch2original", str(out), "-o", str(back)]):
        assert convert([*words, "--spec", str(page)]) == 0
    first, ours, last = (load_file(path) for path in (source, out, back))
    assert np.array_equal(ours["blocks.0.fc1.weight"], first["first.weight"])
    assert np.array_equal(ours["blocks.1.fc1.weight"], first["rest.1.fc.weight"])
    assert first.keys() == last.keys()
    assert all(np.array_equal(first[name], last[name]) for name in first)


def test_a_page_without_variants_is_listed(new, capsys):
    page = new("unpublished")
    page.write_text(re.sub(r"VARIANTS = .*", "VARIANTS = {}", page.read_text()))
    assert ports_main(["--spec", str(page)]) == 0
    assert re.search(r"^ *unpublished +no variants *$", capsys.readouterr().out, re.MULTILINE)


def test_routes_name_the_ports_of_a_page(new, capsys):
    page = new("routed")
    assert convert(["routes", "--spec", str(page)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "routed_" in line]
    files = [str(page.with_name(f"routed_{framework}.py")) for framework in ("flax", "torch", "paddle")]
    assert [line.split()[-1] for line in lines] == files


def test_the_fields_of_an_architecture_explain_only_the_forms_that_they_have(new, capsys):
    assert ports_main(["plain", "--spec", str(new("plain"))]) == 0
    assert "HxW" not in capsys.readouterr().out
    assert ports_main(["mobile_former"]) == 0
    assert "HxW is a height and a width" in " ".join(capsys.readouterr().out.split())


def test_routes_of_an_architecture_whose_page_is_not_named_say_how(new, monkeypatch, capsys):
    page = new("routed")
    monkeypatch.chdir(page.parent)
    for name, said in (
        ("routed", "if routed.py is its page, add --spec routed.py"),
        ("x", "one of your own: --spec PAGE"),
    ):
        assert convert(["routes", name]) == 2
        error = capsys.readouterr().err
        assert f"unknown name '{name}'" in error and said in error
    assert convert(["routes", "routed", "--spec", "routed.py"]) == 0
    assert capsys.readouterr().out.startswith("routed: any of these into any other")


def test_a_name_beside_its_file_and_an_architecture_as_a_dialect_are_explained(new, monkeypatch, capsys):
    page = new("gated")
    monkeypatch.chdir(page.parent)
    assert convert(["inspect", "x.pt", "--spec", "gated"]) == 2
    assert "gated: no entry point of 'triptych.specs' has this name, did you mean gated.py?" in capsys.readouterr().err
    for words in (["gated2torch", "x.pt", "--spec", "gated.py"], ["flax2gated", "x.pt", "--spec", "gated.py"]):
        assert convert(words) == 2
        assert "gated is an architecture; a route is DIALECT2DIALECT, e.g. flax2torch" in capsys.readouterr().err


def test_a_size_that_the_network_cannot_take_leaves_the_rest_of_the_preprocessing(new, run, tmp_path):
    """A dialect may state the size of its published images; a smaller network keeps mean, std and crop of these."""
    page = new("sized")
    how = "Preprocessing(mean=0.5, std=0.25, range=(0, 1), crop=0.875, interpolation='bicubic', image=224)"
    text = page.read_text().replace('about="the code', f'preprocessing={{"": ({how},)}}, about="the code')
    text = text.replace(
        "from specs.spec import", "from specs.preprocessing import Preprocessing\nfrom specs.spec import"
    )
    refuse = "def check_images(c, height, width):\n    if height != c.image:\n        raise ValueError('no')\n\n\n"
    text = text.replace("DIALECTS = {", f"{refuse}DIALECTS = {{")
    text = text.replace("    immaterial=immaterial,", "    immaterial=immaterial,\n    check_images=check_images,")
    page.write_text(text)
    source, out = weights(page, tmp_path / "a.safetensors"), tmp_path / "b.safetensors"
    code, _, err = run("original2torch", source, "-o", out, "--spec", page, "--set", "image=6")
    assert code == 0 and "preprocessing: this dialect's size of images is not used: no" in err, err
    known = json.loads(run("inspect", out, "--spec", page, "--json")[1])["preprocessing"]
    assert known["crop"] == 0.875 and known.get("image") in (None, 6), known
    code, _, err = run(
        "original2torch", source, "-o", out, "--spec", page, "--set", "image=6", "--image", "8", "--force"
    )
    assert code == 2 and "image=6 is stated, by its record or --set: --set image=8 goes above it" in err, err


def test_a_proof_names_the_port_that_alone_calls_a_module(new, run, tmp_path, monkeypatch):
    for framework in ("flax", "torch"):
        needs(framework)
    page = new("called")
    path, taps = weights(page, tmp_path / "a.safetensors"), Port.taps

    def one_more(port, images):
        return {**taps(port, images), **({"extra": images} if port.framework == "flax" else {})}

    monkeypatch.setattr(Port, "taps", one_more)
    words = [path, "-o", tmp_path / "b.msgpack", "--prove", "--spec", page]
    code, _, err = run("original2flax", *words)
    assert code == 1 and not (tmp_path / "b.msgpack").exists()
    said = "the port in flax alone calls 'extra': python -m parity called --check layers says more; nothing was written"
    assert f"{path}: not proven: {said}" in err


def test_the_order_in_which_torch_counts_parameters_is_asked_for(new, tmp_path, capsys):
    """The code of a port from outside is not known, and moments of equal shapes could be exchanged unseen."""
    needs("torch")
    import torch

    page = new("thirteenth")
    specs.add(str(page))
    model = ports.build("thirteenth", "tiny S", "torch").model
    save_one_step(model, tmp_path / "a.pt")
    torch.save(model.state_dict(), tmp_path / "new.pt")
    words = ["torch2torch", str(tmp_path / "a.pt"), "-o", str(tmp_path / "b.pt"), "--spec", str(page), "--assume"]
    code = convert([*words, "--with-optimizer"])
    err = capsys.readouterr().err
    assert code == 2 and "in the order of the code of the target's model, which is not known here" in err, err
    assert convert([*words, "--with-optimizer", "--like", str(tmp_path / "new.pt")]) == 0
