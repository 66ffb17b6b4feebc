"""What the author of a page forgets or mistakes is one clear error."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ports
import specs
from convert import dialect_faults
from convert.__main__ import main as convert
from convert.errors import ConvertError, UsageError
from ports.__main__ import main as ports_main
from ports.frameworks import PortError
from specs.layer import count
from specs.spec import SpecError

from .conftest import needs
from .test_own_architecture import new, rewrite, weights

__all__ = ["new"]  # a fixture


BROKEN = {
    "x = 1": "is no page: it has to end with SPEC = Spec(...)",
    "x = (": "line 1: SyntaxError: '(' was never closed",
    "\nimport nowhere": "line 2: ModuleNotFoundError: No module named 'nowhere'",
    "from specs.spec import Spec\nSPEC = Spec(layer=1)": "Spec(...) is not well defined",
}


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("command", [["inspect", "x.pt"], ["routes"]], ids=" ".join)
def test_a_page_with_a_fault_is_one_error(text, command, tmp_path, capsys):
    page = tmp_path / "broken.py"
    page.write_text(text)
    assert convert([*command, "--spec", str(page)]) == 2
    err = capsys.readouterr().err
    assert str(page) in err and BROKEN[text] in err and "Traceback" not in err


FAULTS = {
    'yield dense("head", c.width, c.classes)': 'yield dense("stem", c.width, c.classes)',
    '"hidden": sizes["blocks.0.fc1.kernel", "o"]': '"hidden": sizes["blocks.0.fc1.kernel", "i"]',
    "return c.channels, c.image, c.image": "return 9, c.image, c.image",
}


def test_faults_of_a_pages_functions_are_reported_at_once(new):
    page = new("eleventh")
    rewrite(page, [*FAULTS.items(), ("tiny=TINY,", 'tiny=TINY,\n    published={"S": 1},')])
    with pytest.raises(ValueError, match="not well defined") as caught:
        specs.add(str(page))
    for part in (
        "tiny 'S' (and 1 more Config): layers: 'stem' is the path of 2 layers",
        "tiny 'S' (and 2 more Configs): infer returned hidden=7, the Config has 11",
        "tiny 'S' (and 2 more Configs): input_shape: has 9 channels, the Config 3",
        "published: variant 'S' has 2,",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(("good", "bad", "message"), [
    ('"torch": "thirteenth_torch.py", ', "", "has no port in torch: its page lists flax, paddle"),
    ("thirteenth_torch.py", "nowhere.py", "nowhere.py: there is no such file"),
    ("thirteenth_torch.py", "thirteenth.py", "has no class 'Thirteenth'"),
])  # fmt: skip
def test_ports_that_are_not_there(good, bad, message, new, tmp_path):
    needs("torch")
    page = new("thirteenth")
    page.write_text(page.read_text().replace(good, bad))
    with pytest.raises(UsageError, match=message):
        ports.build(str(page), "S", "torch")


@pytest.mark.parametrize("place", ["layers", "Config"])
def test_code_of_a_page_that_raises_is_one_line_with_its_place(place, new, tmp_path, capsys):
    """For values that the checks of a page did not try: a division by a setting, a name that is not there."""
    page = new("seventeenth")
    text = page.read_text()
    before = {"layers": "    for b in range(c.depth):", "Config": "        check_numbers("}[place]
    wrong = {"layers": "    if c.image == 8:\n        norms(3)", "Config": "        1 // (self.image - 8)"}[place]
    assert text.count(before) == 1
    text = text.replace(before, f"{wrong}\n{before}")
    page.write_text(text)
    file = weights(page, tmp_path / "a.safetensors")
    target = str(tmp_path / "b.msgpack")
    assert convert(["original2flax", str(file), "-o", target, "--spec", str(page), "--set", "image=8"]) == 1
    err = capsys.readouterr().err
    raised = {"layers": "NameError: name 'norms' is not defined", "Config": "ZeroDivisionError: "}[place]
    number = text.splitlines().index(wrong.split("\n")[-1]) + 1
    assert f"{page}, line {number}: {raised}" in err and "Traceback" not in err
    if place == "Config":
        with pytest.raises(UsageError, match=r"no Config has these values: ZeroDivisionError: .*line"):
            ports.build("seventeenth", "S", "torch", image=8)


@pytest.mark.parametrize("error", ["ValueError('width is odd')", "ZeroDivisionError('by 0')", "RuntimeError('x')"])
def test_an_infer_that_raises_is_one_clear_error(error, new, tmp_path, capsys):
    """It names the page and the cause, in every command that reads a file."""
    page = new("raising")
    file = weights(page, tmp_path / "a.safetensors")
    line = '    return {\n        "patch"'
    text = page.read_text()
    assert line in text
    other = tmp_path / "raises.py"
    other.write_text(
        text.replace(
            line, f"    if 'head.kernel' in sizes and sizes['head.kernel', 'o'] == 1:\n        raise {error}\n{line}"
        )
    )
    specs._added.clear()
    arrays = load_file(file)
    for name in [name for name in arrays if name.startswith("classifier.")]:
        arrays[name] = arrays[name][:1].copy()
    save_file(arrays, tmp_path / "b.safetensors")
    for words in (["original2flax", "-o", str(tmp_path / "c.msgpack")], ["inspect"]):
        code = convert([words[0], str(tmp_path / "b.safetensors"), *words[1:], "--spec", str(other)])
        said = "".join(capsys.readouterr())
        kind, _, message = error[:-2].partition("('")
        assert code == (words != ["inspect"])
        assert f"raises.py: `infer` of raises cannot read these arrays: {kind}: {message}" in said
    assert not (tmp_path / "c.msgpack").exists()


def test_an_error_of_a_page_names_it_once(new, capsys):
    page = new("named")
    page.write_text(page.read_text().replace('network="Named"', "network=3"))
    assert convert(["routes", "--spec", str(page)]) == 2
    err = capsys.readouterr().err
    assert err.count(str(page)) == 1 and "network is 3, not the name of a class" in err


HEADS = {
    "flax": ('nn.Dense(c.classes, name="head")(x) if c.classes else x', "x[:, : c.classes]"),
    "torch": ("nn.Linear(c.width, c.classes) if c.classes else None", "nn.Identity()"),
    "paddle": ("nn.Linear(c.width, c.classes) if c.classes else None", "nn.Identity()"),
}


@pytest.mark.parametrize("framework", HEADS)
def test_a_port_that_does_not_use_all_arrays_is_refused(framework, new, tmp_path):
    """linen itself ignores what no module asks for."""
    needs(framework)
    page = new(f"ignoring_{framework}")
    port = page.with_name(f"{page.stem}_{framework}.py")
    text = port.read_text()
    assert HEADS[framework][0] in text
    file = weights(page, tmp_path / "a.safetensors")
    assert ports.load(file, framework).framework == framework
    other = new(f"headless_{framework}")
    changed = other.with_name(f"{other.stem}_{framework}.py")
    changed.write_text(text.replace(*HEADS[framework]).replace("Ignoring", "Headless"))
    specs._added.clear()
    specs.add(str(other))
    with pytest.raises(
        ConvertError, match=r"(?s)(does not use all of its arrays|does not fit|has no array).*head"
    ) as caught:
        ports.load(file, framework)
    assert "::" not in caught.value.line()


def test_a_flax_port_that_does_not_fit_its_page_is_refused_when_it_is_built(new):
    """linen itself ignores what no module asks for, and draws nothing until a call."""
    needs("flax")
    for name, old, to, said in (
        ("normless", *HEADS["flax"], "the page has params/head/kernel, params/head/bias, the port does not"),
        ("misnamed", 'name="head"', 'name="haed"', "the port has params/haed/bias, params/haed/kernel, the page does"),
        ("misshapen", "nn.Dense(c.classes,", "nn.Dense(c.classes + 1,", "head/bias is [5] by the page and [6] in"),
    ):
        page = new(name)
        port = page.with_name(f"{name}_flax.py")
        text = port.read_text()
        assert old in text
        assert ports.build(str(page), "tiny S", "flax").framework == "flax"
        other = new(f"{name}2")
        other.with_name(f"{name}2_flax.py").write_text(text.replace(old, to).replace(name.title(), f"{name.title()}2"))
        file = other.with_name(f"{name}2_flax.py")
        with pytest.raises(PortError, match=rf"flax's {name.title()}2 \({file}\) does not fit the page") as caught:
            ports.build(str(other), "tiny S", "flax")
        assert said in str(caught.value)


MISTAKES = {  # part of the page: what a user writes in its place, and what is said of it
    ', "norm_eps": 1e-6': (
        "", "norm_eps: infer does not return it, dialect 'original' does not fix it, and it is not in unshown, nor imm",
    ),
    "    immaterial=immaterial,\n": ("", "image: infer does not return it, dialect 'original' does not fix it"),
    '"classes": sizes["head.kernel", "o"] if "head.kernel" in sizes else 0,': (
        "", "infer returns no classes, which arrays show, as 'head.kernel'",
    ),
    '        "depth": sizes.count("blocks"),\n': (
        "", "infer returns no depth, which arrays show, as 'blocks.1.norm.scale'",
    ),
    '"hidden": sizes["blocks.0.fc1.kernel", "o"]': ('"hidden": 384', "infer returned hidden=384, the Config has 11"),
    "    network=": (
        '    sign="classifier",\n    network=',
        "sign: 'classifier' matches no name of dialect 'paddle', as 'stem.weight' of tiny 'S'",
    ),
    "    tiny=TINY,": (
        '    tiny=TINY,\n    sign=r"(blocks|layers)[._]\\d",',
        r"sign: '(blocks|layers)[._]\\d' matches no name of dialect 'flax', in nnx as 'stem/kernel' of tiny 'S'",
    ),
    'network="Mistaken"': (
        'network="Mistakne"',
        "mistaken_paddle.py: have no class 'Mistakne', the `network` of this page: unknown name 'Mistakne', ",
    ),
    'dense("head", c.width, c.classes)': (
        'Layer("head", "dense", {"i": c.width, "out": c.classes})', "'head': sizes lack o, and have out",
    ),
    "mistaken_torch.py": ("mistaken_toch.py", "mistaken_toch.py: there is no such file"),
    '"mistaken_torch.py"': ('"no_package.torch"', "ports: 'torch': no_package.torch: there is no such module"),
    '"mistaken_flax.py"': ('"ports.flax.nowhere"', "ports: 'flax': ports.flax.nowhere: there is no such module"),
}  # fmt: skip


@pytest.mark.parametrize("part", MISTAKES)
def test_what_the_author_of_a_page_forgets_or_mistakes_is_reported(part, new):
    page = new("mistaken")
    wrong, message = MISTAKES[part]
    text = page.read_text()
    assert part in text
    page.write_text(text.replace(part, wrong))
    with pytest.raises(ValueError, match="not well defined") as caught:
        specs.add(str(page))
    assert str(caught.value).count(message) == 1


def test_matrices_that_no_config_has_transposed_are_not_called_so(new, tmp_path, capsys):
    page = new("unturned")
    begin = "__post_init__(self) -> None:\n"
    least = "        if self.hidden < 10:\n            raise ValueError('hidden is at least 10')\n"
    page.write_text(page.read_text().replace(begin, begin + least))
    path = weights(page, tmp_path / "a.safetensors")
    arrays = load_file(path)
    save_file({**arrays, **{f"layers.{i}.1.weight": np.zeros((11, 8), "f4") for i in range(2)}}, path)
    assert convert(["original2torch", path, "--dry-run", "--spec", str(page)]) == 1
    (problem,) = capsys.readouterr().err.splitlines()[1:]
    assert problem == "  - layers.{0..1}.1.weight has shape [11, 8], expected [11, 7]"


def test_a_misspelt_name_of_a_dialect_is_missing_beside_the_nearest(new, tmp_path, capsys):
    """Another array may have the form of its name, numbers aside; the page was named, and is not asked for."""
    page = new("nearest")
    path = weights(page, tmp_path / "a.safetensors")
    save_file({f"model/{name.replace('.1.', '.fc1.')}": a for name, a in load_file(path).items()}, path)
    specs._added.clear()
    other = new("nearer")
    other.write_text(other.read_text().replace("layers.{i}.1\n", "layers.{i}.fc\n").replace("i}.3", "i}.fc2"))
    assert convert(["original2torch", path, "--spec", str(other)]) == 1
    err = capsys.readouterr().err
    assert "missing layers.0.fc.weight (nearest unused: layers.0.fc1.weight), from which the configuration would" in err
    assert "unexpected layers.{0..1}.fc1.weight" in err or "unexpected layers.0.fc1.weight" in err
    assert "in model\n" in err and "adds an architecture" not in err


def test_a_field_that_every_config_needs_or_that_is_misspelt_is_named(new):
    page = new("fieldless")
    text = page.read_text()
    for good, bad, message in (
        (
            "    channels: int = 3  # of the image\n",
            "",
            "lacks the field 'channels' (every Config has channels and classes)",
        ),
        ('"patch", "width"', '"patch", "widht"', "unknown name 'widht', did you mean 'width'?"),
    ):
        assert good in text
        page.write_text(text.replace(good, bad))
        with pytest.raises(ValueError, match=r"fieldless.py, line \d+: Config: ") as caught:
            specs.add(str(page))
        assert message in str(caught.value)
    page.write_text(text.replace("c.width, c.classes)", "c.width, c.clases)"))
    with pytest.raises(ValueError, match="not well defined") as caught:
        specs.add(str(page))
    line = 1 + text[: text.index("c.width, c.classes)")].count("\n")
    named = f"tiny 'S' (and 1 more Config): layers, line {line}: Config: unknown name 'clases', did you mean 'classes'?"
    assert caught.value.problems[0] == named


@pytest.mark.parametrize(("port", "message"), [
    ("class Another: pass\nclass Netwrk: pass", ": has no class 'Network', the `network` of this page: unknown name "
     "'Network', did you mean 'Netwrk'? (one of Another, Netwrk)"),
    ("Network = ((", ", line 1: SyntaxError: '(' was never closed"), ("", "unknown name 'Network'\n"),
    ("from elsewhere import *", ""), ("from elsewhere import Other as Network", ""), ("if True:\n    Network = 3", ""),
    ("def __getattr__(name): ...", ""), ("raise AssertionError('imported')\nclass Network: ...", ""),
])  # fmt: skip
def test_a_port_without_the_class_is_reported_before_any_framework_is_imported(port, message, new, capsys):
    page = new("network")
    page.with_name("network_torch.py").write_text(port)
    assert ports_main(["--spec", str(page)]) == (2 if message else 0)
    err = capsys.readouterr().err
    assert message in err and (not message or f"ports: 'torch': {page.with_name('network_torch.py')}" in err)


def test_an_unknown_kind_is_reported_once_with_the_kind_that_is_meant(new):
    page = new("linear")
    page.write_text(page.read_text().replace("yield dense(", 'yield Layer(kind="linear", sizes={}, path=')
                    .replace(", c.width, c.hidden)", ")").replace(", c.hidden, c.width)", ")")
                    .replace(", c.width, c.classes)", ")"))  # fmt: skip
    with pytest.raises(ValueError) as caught:
        specs.add(str(page))
    (problem,) = caught.value.problems
    assert problem.startswith(
        "tiny 'S' (and 2 more Configs): layers: 'blocks.0.fc1' and 'head' (and 15 more): kind: unknown"
    )
    assert "unknown name 'linear', did you mean 'dense'? (the kinds are dense, " in problem


@pytest.mark.parametrize(
    ("old", "other", "said"),
    [
        ('"patch": sizes', '"image": 6, "patch": sizes', "check_images: infer reads image off the arrays"),
        ('act="relu", image', "image", "tiny: no Config has act=relu"),
        ("= 1e-6\n", "= 1e-6\n    scaled: bool = True\n", "tiny: no Config has scaled=False"),
    ],
    ids=["a page whose arrays fix the image takes any", "a choice of a field is in no twin", "a flag never changes"],
)
def test_a_page_is_refused_that_leaves_out_what_its_own_parts_show(old, other, said, new):
    page = new("half")
    assert old in page.read_text()
    page.write_text(page.read_text().replace(old, other))
    with pytest.raises(SpecError) as refused:
        specs.add(str(page))
    assert said in str(refused.value)


def test_names_that_cannot_be(new, tmp_path):
    (tmp_path / "mlp_mixer.py").write_text(new("twelfth").read_text())
    for name, message in (
        ("mlp_mixer.py", "there is another architecture 'mlp_mixer' already"), ("no-name.py", "is no name of an"),
        ("nothing.py", "there is no such file"),
        ("convmixer.py", "there is no such file: 'convmixer' is an architecture already, and needs no page"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            specs.add(str(tmp_path / name))
    with pytest.raises(ValueError, match=r"neither a .py file nor an entry point of 'triptych.specs'"):
        specs.add("nothing")
    assert specs.add("convmixer") == "convmixer" and "convmixer" not in specs._added


def test_a_sign_that_takes_names_of_another_architecture_is_refused(new):
    page = new("greedy")
    rewrite(page, [("    tiny=TINY,\n", '    tiny=TINY,\n    sign="blocks|layers",\n')])
    with pytest.raises(SpecError, match="does not tell it from other architectures: leave it out") as refused:
        specs.add(str(page))
    took = "sign: 'blocks|layers' matches 24 of 32 names of convmixer, as "
    assert any(problem.startswith(took) for problem in refused.value.problems), refused.value


FIRST = [  # of the template: the first dense layer of block 0 has a path of its own
    ("    norm_eps: float = 1e-6\n", "    norm_eps: float = 1e-6\n    special: bool = True\n"),
    ("norm_eps=1e-4\n", "norm_eps=1e-4, special=False\n"),
    ('f"blocks.{b}.fc1"', '"blocks.0.first" if c.special and not b else f"blocks.{b}.fc1"'),
    ('"hidden": sizes["blocks.0.fc1.kernel", "o"]', '"hidden": sizes["blocks.0.fc2.kernel", "i"], "special": SPECIAL'),
]
BY_FIRST, BY_FC1 = '"blocks.0.first.kernel" in sizes', '"blocks.0.fc1.kernel" not in sizes'


@pytest.mark.parametrize("special", [BY_FIRST, BY_FC1])
def test_a_name_of_theirs_that_two_lines_may_have_placed_is_an_error_with_both(special, new):
    page = new("either")
    line = "blocks.{i}.fc1  <-> layers.{i}.1"
    rewrite(page, [*FIRST, ("SPECIAL", special), (line, f"blocks.{{i}}.first <-> layers.{{i}}.1\n        {line}")])
    specs.add(str(page))
    with pytest.raises(ConvertError, match="dialect 'original' is not well defined") as refused:
        dialect_faults.check_dialects("either")
    (problem,) = refused.value.problems
    value, twin = ("True", "relu, headless") if special == BY_FIRST else ("False", "S")
    assert problem.startswith(f"tiny '{twin}': of its names in this dialect, infer returns special={value}, the Config")
    lines = [f"(line {n} of the table, 'blocks.{{i}}.{ours}" for n, ours in ((3, "first"), (4, "fc1"))]
    assert "'layers.0.1.weight' may be " in problem and all(one in problem for one in lines)


def test_a_name_of_theirs_that_a_line_with_its_number_places_is_no_array_of_others(new, tmp_path, capsys):
    page = new("numbered")
    line = "blocks.{i}.fc1  <-> layers.{i}.1"
    always = [(FIRST[2][0], 'f"blocks.{b}.fc1" if b else "blocks.0.first"')]
    infer = (FIRST[3][0], '"hidden": 0 if "blocks.0.fc1.kernel" in sizes else sizes["blocks.0.first.kernel", "o"]')
    twin = ("\nSPEC = ", '\nDIALECTS["twin"] = DIALECTS["original"]\nSPEC = ')
    rewrite(page, [*always, infer, twin, (line, f"blocks.0.first <-> layers.0.1\n        {line}")])
    source = weights(page, tmp_path / "a.safetensors")
    specs.add(str(page))
    config = specs.get("numbered").tiny["S"]
    assert convert(["inspect", source, "--spec", str(page)]) == 0
    said = capsys.readouterr().out
    assert f"hidden={config.hidden} " in said and "open:         reads alike as original, twin" in said
    assert f"parameters:   {count(list(specs.get('numbered').layers(config))):,}\n" in said
