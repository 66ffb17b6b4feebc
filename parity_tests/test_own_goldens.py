"""Golden cases and proofs of pages from outside: what runs there, and what is said where nothing can."""

import contextlib
import dataclasses
import hashlib
import json
import re
import runpy
import sys

import numpy as np
import pytest

import convert
import parity
import ports
import specs
import specs.dialects
from convert.errors import UsageError
from parity import goldens
from ports import new

from . import documents, test_goldens
from .conftest import needs
from .golden import Case


@pytest.fixture
def golden(tmp_path, monkeypatch):
    """A page, and a function that writes a golden case of it: its arguments change what `goldens.write` is called with.

    What the original computed is what our port in torch does.
    """
    needs("torch")
    monkeypatch.setattr(specs, "_added", {})
    list(new.write("golden", str(tmp_path)))
    page = tmp_path / "golden.py"

    def write(**changes):
        specs.add(str(page))
        config = specs.get("golden").tiny["S"]
        ports.build("golden", config, "torch", init="random").save(tmp_path / "port.pt", force=True)
        with convert.plan(tmp_path / "port.pt", dst="original") as plan:
            plan.write(tmp_path / "weights.pth", force=True)
        images = np.random.default_rng(0).standard_normal((2, 3, 6, 6))
        logits = ports.build("golden", config, "torch", init="random", dtype="float64")(images)
        about = {"checkpoint": "weights.pth", "architecture": "golden", "images": images, "logits": logits,
                 "settings": {"image": 6}, "param_count": 503,
                 "upstream": {"repo": "owner/name", "commit": "1"}}  # fmt: skip
        goldens.write(tmp_path, **{**about, **{name: change(about[name]) for name, change in changes.items()}})
        return tmp_path

    return page, write


def in_frameworks(monkeypatch, **factors):
    """Let these frameworks compute what torch does, times a factor each."""
    load = ports.load
    monkeypatch.setattr(ports, "ported", lambda architecture: list(factors))

    def scaled(path, framework, **options):
        port = load(path, "torch", **options)
        return lambda images: port(images) * factors[framework]

    monkeypatch.setattr(ports, "load", scaled)


def test_a_golden_case_that_a_port_misses_is_an_error_with_the_next_command(golden, monkeypatch, capsys):
    page, write = golden
    case = write()
    in_frameworks(monkeypatch, torch=1.0, flax=1 + 1.5e-4)
    assert goldens.check(case, str(page)) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{case.name}, torch: error relative to the largest logit: 0",
        f"{case.name}, flax: error relative to the largest logit: 1.5e-4, more than 1e-10",
        f"to find where the ports part: python -m parity {goldens.read(case).weights} --spec {page} "
        "--set image=6 --check layers",
    ]
    in_frameworks(monkeypatch, torch=1.0, flax=np.nan)
    assert goldens.check(case, str(page)) == 1
    assert " in the case, NaN in flax at [0, 0]\n" in capsys.readouterr().out
    assert "sys.exit(goldens.run(main))" in page.with_name("golden_golden.py").read_text()


def test_ports_that_miss_a_golden_case_by_the_same_are_not_sent_to_compare_each_other(golden, monkeypatch, capsys):
    page, write = golden
    case = write(logits=lambda logits: logits * 1.5)
    in_frameworks(monkeypatch, torch=1.0, flax=1.0)
    assert goldens.check(case, str(page)) == 1
    printed = capsys.readouterr().out
    assert "python -m parity" not in printed and "the ports agree with each other: what they share is" in printed
    assert "  - the case: logits of other weights or images, or of training mode\n" in printed
    assert "  - the network, as the page and all ports have it\n" in printed
    assert (
        "the settings of the case and the conventions of dialect 'original': act=gelu, norm_eps=1e-6, image=6"
        in printed
    )


WRONG_CASES = {
    "logits of fewer images": ({"logits": lambda a: a[:1]}, "logits: are of 1 images, and there are 2"),
    "a third axis": ({"logits": lambda a: a[:, :, None]}, "logits: have shape [2, 5, 1], not (n, classes)"),
    "float32": ({"logits": np.float32}, "logits: are float32: run the model in float64"),
    "one image": ({"images": lambda a: a[0]}, "images: have shape [3, 6, 6], not (n, c, h, w)"),
    "NaN": ({"images": lambda a: a * np.nan}, "images: have NaNs or infinities"),
    "no file": ({"checkpoint": lambda name: "other.pth"}, "checkpoint: there is no file "),
    "unknown settings": (
        {"settings": lambda settings: {"imge": 6}},
        "settings: unknown name 'imge', did you mean 'image'?",
    ),
    "settings of a wrong type": ({"settings": lambda settings: {"image": "6"}}, "settings: image='6' does not fit: "),
    "no origin": ({"upstream": lambda upstream: {"repo": "owner/name"}}, "upstream: lacks commit: where the original"),
    "a folder": ({"checkpoint": lambda name: ""}, " is a folder: save the model as one file"),
}


@pytest.mark.parametrize("wrong", WRONG_CASES)
def test_what_is_no_golden_case_is_not_written(wrong, golden):
    page, write = golden
    changes, message = WRONG_CASES[wrong]
    with pytest.raises(UsageError, match="this is no golden case") as caught:
        write(**changes)
    assert message in str(caught.value)
    assert not (page.parent / "case.json").exists()


def test_the_script_says_in_one_error_what_is_no_golden_case(golden, capsys):
    page, write = golden
    assert goldens.run(lambda: write(settings=lambda settings: {"imge": 6}) and 0) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.splitlines() == [
        f"{page.parent}: this is no golden case",
        "  - settings: unknown name 'imge', did you mean 'image'?",
    ]
    page.write_text(page.read_text().replace('"depth": sizes', '"dept": sizes'))
    page.rename(page.with_name("other.py"))
    assert goldens.run(lambda: specs.add(str(page.with_name("other.py"))) and 0) == 2
    assert "infer: unknown name 'dept'" in capsys.readouterr().err
    assert goldens.run(lambda: 1) == 1


def test_the_page_of_a_case_need_not_be_added_before(golden):
    page, _ = golden
    (page.parent / "w.pth").touch()
    about = {"checkpoint": "w.pth", "architecture": "golden", "settings": {"imge": 6}, "param_count": 1, "upstream": {}}
    arrays = {"images": np.zeros((1, 3, 6, 6)), "logits": np.zeros((1, 5))}
    with pytest.raises(UsageError, match="unknown name 'imge'"):
        goldens.write(page.parent, **about, **arrays, page=str(page))


@pytest.mark.parametrize(("changes", "message"), [
    ({"logits": lambda a: a[:, :2]}, "logits: are of 2 classes, the model has 5"),
    ({"param_count": lambda count: 7}, "param_count: the case says 7, the page's layers have 503"),
    ({"architecture": lambda name: "convmixer"}, "is a case of 'convmixer', and the page is 'golden'"),
])  # fmt: skip
def test_a_golden_case_that_does_not_fit_is_one_error(changes, message, golden, capsys):
    page, write = golden
    assert goldens.check(write(**changes), str(page)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("entry", "changed", "message"), [
    ("files", {"io.safetensors": None}, "files: name no checkpoint, with its SHA-256, beside io.safetensors"),
    ("files", {"weights.pth": "0" * 64}, "files: weights.pth has the SHA-256 "),
    ("files", {"other.pth": "0" * 64}, "other.pth\n"), ("upstream", {}, "upstream: lacks repo and commit: where"),
    ("architecture", None, "architecture: is missing: the name of the page"),
])  # fmt: skip
def test_an_entry_of_a_golden_case_that_is_not_right_is_one_error(entry, changed, message, golden, capsys):
    page, write = golden
    path = write() / "case.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), entry: changed}))
    assert goldens.check(path.parent, str(page)) == 1
    first, *problems = capsys.readouterr().err.splitlines(keepends=True)
    assert first == f"{path}: is not that of a complete golden case\n" and message in "".join(problems)


def of_another_page(golden, name, old, new):
    """Write a page of another name with some text replaced, and a case of it; return (page, folder of the case)."""
    page, write = golden
    other, case = page.with_name(f"{name}.py"), write()
    other.write_text(page.read_text().replace(old, new))
    about = json.loads((case / "case.json").read_text())
    (case / "case.json").write_text(json.dumps({**about, "architecture": name}))
    return str(other), case


def test_a_golden_case_is_compared_with_the_names_of_its_own_page_alone(golden, capsys):
    """A page with a wrong line may have fewer of its names than another, which is here `golden`."""
    page, case = of_another_page(golden, "wrong", "layers.{i}.1", "layers.{i+1}.1")
    assert goldens.check(case, page) == 1
    err = capsys.readouterr().err
    assert "does not hold the original arrays of this wrong\n  - missing layers.2.1.weight\n" in err, err
    assert "\n  - unexpected layers.0.1.weight\n" in err


def test_a_fault_of_a_page_is_printed_once_for_all_of_its_cases(golden, capsys):
    page, case = of_another_page(golden, "faulty", "{i}.fc1  <->", "{i}.fc_1 <->")
    assert [goldens.check(case, page) for _ in range(2)] == [1, 1]
    err = capsys.readouterr().err
    assert err.count("dialect 'original' is not well defined") == 1
    assert err.endswith(f"\n{case}: was not run, for the same reason\n")


def test_a_golden_case_of_a_page_with_a_fault_or_without_a_port_is_one_error(golden, capsys, monkeypatch):
    page, write = golden
    case, text = write(), page.read_text()
    monkeypatch.setattr(specs, "_added", {})
    for bad, message in (("depth", "infer: unknown name 'dept'"), ("ports", "declares no port")):
        other = page.with_name(f"without_{bad}.py")
        other.write_text(text.replace('"depth": sizes', '"dept": sizes') if bad == "depth"
                         else re.sub("    ports=.*", "    ports={},", text))  # fmt: skip
        about = json.loads((case / "case.json").read_text())
        (case / "case.json").write_text(json.dumps({**about, "architecture": other.stem}))
        assert goldens.check(case, str(other)) == 1
        assert message in capsys.readouterr().err
    assert goldens.check(case / "nothing", str(page)) == 1
    assert "there is no such file: is " in capsys.readouterr().err


@pytest.mark.parametrize(("declared", "said"), [
    ("", " arrays compared, tolerance 1e-10); nothing was run, as the page of unported declares no port"),
    ('"torch": "golden_torch.py"', "proven in torch alone (the page of unported declares no second port): source and"),
])  # fmt: skip
def test_a_proof_says_which_ports_a_page_lacks(declared, said, golden, run, monkeypatch):
    """Though all frameworks are installed."""
    page, write = golden
    write()
    monkeypatch.setattr(specs, "_added", {})
    text = re.sub("    ports=.*", f"    ports={{{declared}}},", page.read_text())
    page.with_name("unported.py").write_text(text)
    words = ["original2torch", page.with_name("weights.pth"), "-o", page.with_name("out.pt"), "--prove"]
    code, out, err = run(*words, "--spec", page.with_name("unported.py"))
    assert code == 0
    assert said in out + err


def test_a_golden_case_of_this_repository_needs_no_page(monkeypatch, capsys):
    needs("torch")
    monkeypatch.setattr(ports, "ported", lambda architecture: ["torch"])
    for page in ("", "mlp_mixer"):
        assert goldens.check(Case("timm_mixer").folder, page) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("timm_mixer, torch: error relative to the largest logit: ")
    assert printed.err.startswith("note: ") and "UserWarning" not in printed.err and "as timm's own code" in printed.err


def test_a_dialect_without_a_golden_case_is_skipped_with_the_cause():
    test_goldens.test_a_dialect_has_cases_of_all_its_lines("convmixer", "official")
    with pytest.raises(
        pytest.skip.Exception, match="no golden case that can be read holds dialect seed of mlp_mixer: "
    ):
        test_goldens.test_a_dialect_has_cases_of_all_its_lines("mlp_mixer", "seed")


@pytest.mark.parametrize(("requires", "skipped"), [
    ({}, "no golden case of dialect original holds head.kernel and head.bias of golden: nothing compares line 5 "),
    ({"classes": 0}, None),  # its files never have a head
])  # fmt: skip
def test_a_line_of_a_dialect_that_no_golden_case_uses_is_skipped_with_the_cause(requires, skipped, golden, monkeypatch):
    page, _ = golden
    spec = specs.get(specs.add(str(page)))
    monkeypatch.setitem(spec.dialects, "original", spec.dialects["original"]._replace(requires=requires))
    headless = spec.tiny["relu, headless"]
    cases = {("golden", "original"): [dataclasses.replace(headless, act="gelu", norm_eps=1e-6)]}
    monkeypatch.setattr(test_goldens, "configs_of_cases", lambda: cases)
    with pytest.raises(pytest.skip.Exception, match=skipped) if skipped else contextlib.nullcontext():
        test_goldens.test_a_dialect_has_cases_of_all_its_lines("golden", "original")


@pytest.mark.parametrize(("stated", "twins", "message"), [
    ({"requires": {"classes": 0}}, ["S"], "requires: classes=0, and a case has 5"),
    ({"conventions": {"norm_eps": 1e-5}}, ["S", "relu, headless"], "conventions: norm_eps=1e-05, and no case has"),
    ({"conventions": {"act": "relu"}}, ["S", "relu, headless"], None),  # of a case by its settings, and not of all
])  # fmt: skip
def test_a_dialect_that_its_golden_cases_contradict_fails(stated, twins, message, golden, monkeypatch):
    page, _ = golden
    spec = specs.get(specs.add(str(page)))
    dialect = spec.dialects["original"]._replace(**{"conventions": {}, **stated})
    monkeypatch.setitem(spec.dialects, "original", dialect)
    cases = {("golden", "original"): [spec.tiny[name] for name in twins]}
    monkeypatch.setattr(test_goldens, "configs_of_cases", lambda: cases)
    with pytest.raises(AssertionError, match=message) if message else contextlib.nullcontext():
        test_goldens.test_a_dialect_has_cases_of_all_its_lines("golden", "original")


def test_an_option_that_no_golden_case_uses_is_skipped_with_the_cause(golden, monkeypatch):
    page, _ = golden
    spec = specs.get(specs.add(str(page)))
    cases = {("golden", "original"): [spec.tiny["S"]]}
    monkeypatch.setattr(test_goldens, "configs_of_cases", lambda: cases)
    test_goldens.test_the_cases_use_every_option("golden")  # relu is none of an original: all dialects state gelu
    monkeypatch.setitem(spec.dialects, "original", spec.dialects["original"]._replace(conventions={}))
    with pytest.raises(pytest.skip.Exception, match="no golden case of golden has act=relu: nothing compares that"):
        test_goldens.test_the_cases_use_every_option("golden")


def test_options_that_no_golden_case_has_together_are_skipped_with_the_cause(monkeypatch):
    mixer = specs.get("mlp_mixer")
    variants = {"A": dataclasses.replace(mixer.variants["H/14"], gelu="tanh", image=225)}
    spec = dataclasses.replace(mixer, variants=variants, published={})
    cases = {("mlp_mixer", "timm"): [mixer.tiny["H/14"], mixer.tiny["tanh, ragged"]]}
    monkeypatch.setattr(specs, "get", lambda name: spec)
    monkeypatch.setattr(test_goldens, "configs_of_cases", lambda: cases)
    with pytest.raises(pytest.skip.Exception, match=r"has gelu=tanh and padding=VALID \(as A\): nothing compares that"):
        test_goldens.test_the_cases_use_every_option("mlp_mixer")


def test_a_size_of_images_that_is_no_more_than_a_default_is_described_once(golden, run):
    page, write = golden
    case = write()
    (case / "weights.pth.json").unlink()
    out = run("inspect", case / "weights.pth", "--spec", page)[1]
    assert "image=224" in out and "assumed by default: image\n" in out and "pixels:" not in out


def test_a_config_is_described_in_one_way_also_while_fields_are_open(run):
    out = run("inspect", Case("mobileformer_a_base").files[0])[1]
    assert " blocks=[[16, 8, 1], [24, 16, 2], [32, 16, 1]] mlp_hidden=32 dyrelu_k=2 " in out and "open: " in out


def test_a_checkpoint_from_before_is_no_part_of_a_case(golden):
    _, write = golden
    (write() / "z.pth").touch()
    write()
    assert goldens.read(write()).weights.endswith("weights.pth")


def test_the_comparison_with_the_original_finds_the_layer(tmp_path, monkeypatch, capsys):
    """As docs/own-architecture.md and the script show it, where the dialect states another epsilon."""
    needs("torch")
    monkeypatch.setattr(specs, "_added", {})
    monkeypatch.chdir(tmp_path)
    list(new.write("my_network", "."))
    page = tmp_path / "my_network.py"
    page.write_text(page.read_text().replace('"norm_eps": 1e-6', '"norm_eps": 1e-5'))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_network_golden", raising=False)
    (code,) = re.findall(
        "```text\n(import parity, ports, specs.dialects\n.*?)```", documents.read("docs/own-architecture.md"), re.DOTALL
    )
    monkeypatch.setattr(ports, "ported", lambda architecture: ["torch"])
    assert runpy.run_path("my_network_golden.py")["main"]() == 1
    printed = capsys.readouterr().out
    assert "one port ran: what the port in torch computes is wrong, or one of these\n" in printed
    assert "  - the network, as the page and the port have it\n" in printed and "the ports agree" not in printed
    for lines in (code, printed[printed.index("import parity") :]):
        exec(lines, {})
        assert "first at blocks.0.norm" in capsys.readouterr().out
    monkeypatch.setattr(specs, "_added", {})
    assert ports.load("goldens/my_network_small/weights.pth", "torch", spec=str(page), image=12).config.width == 10


def test_sizes_that_the_dialect_says_its_code_never_has_fail_in_a_golden_case(golden, capsys):
    """Its code wrote the case, so that the page is wrong. Of any other file, a note says that one of them is."""
    page, write = golden
    page.write_text(page.read_text().replace('about="the code', 'requires={"hidden": 11}, about="the code'))
    case = write()
    specs.get("golden").dialects["original"].requires["patch"] = 3  # with which the case could not be written
    assert goldens.check(case, str(page)) == 1
    wrong = "own code wrote the case with patch=2, and `requires` of the dialect says that it has patch=3 alone"
    assert wrong in capsys.readouterr().err
    said = "the file has patch=2, and the page of golden says that original's own code has patch=3 alone (requires)"
    with convert.plan(case / "weights.pth", dst="torch") as plan:
        assert f"{said}: one of them is wrong" in plan.notes()


def test_the_original_is_compared_at_norms_that_a_page_writes_as_arrays(golden, monkeypatch):
    """A module of the original has a counterpart, though the page lists no layer at its path."""
    needs("torch")
    page, _ = golden
    text = page.read_text().replace('norm(f"blocks.{b}.norm", c.width)', 'array(f"blocks.{b}.norm.alpha", d=c.width)')
    page.with_name("affine.py").write_text(
        re.sub("    ports=.*", '    ports={"torch": "affine_torch.py"},', text)
        .replace("conv, dense, norm", "array, conv, dense")
        .replace("        blocks.{i}.norm <-> layers.{i}.0\n", "")
    )
    affine = "class Affine(nn.Module):\n    def __init__(self, d):\n        super().__init__()\n"
    affine += (
        "        self.alpha = nn.Parameter(torch.ones(d))\n\n    def forward(self, x):\n        return self.alpha * x\n"
    )
    port = (
        page.with_name("golden_torch.py")
        .read_text()
        .replace("class Block", f"import torch\n\n\n{affine}\n\nclass Block")
    )
    port = port.replace("nn.LayerNorm(c.width, eps=c.norm_eps)", "Affine(c.width)")
    page.with_name("affine_torch.py").write_text(port)
    port = ports.build(str(page.with_name("affine.py")), "tiny S", "torch", init="random", dtype="float64")
    names = {"original": {"stem": "stem"}}
    models = {"original": port.model, "port": port}
    (result,) = parity.compare(models, np.ones((2, 3, 6, 6)), check="layers", names=names).results
    assert result.passed and {"blocks.0.norm", "blocks.0"} <= {name for name, *_ in result.curve}


@pytest.mark.parametrize("framework", ["torch", "flax", "paddle"])
@pytest.mark.parametrize("check", ["layers", "gradients"])
def test_a_port_is_compared_by_the_table_of_a_dialect(framework, check, golden):
    needs(framework)
    page, _ = golden
    port = ports.build(str(page), "tiny S", framework, init="random", dtype="float64")
    other = ports.build(str(page), "tiny S", "torch", init="random", dtype="float64")
    models, images = {"torch": other, framework + "'s": port}, np.ones((2, 3, 6, 6))
    table = specs.dialects.table(port.spec, "torch", framework, port.config)
    (result,) = parity.compare(models, images, check=check, names=table).results
    assert result.passed and any("head" in name for name, *_ in result.curve)
    with pytest.raises(UsageError, match="the Table does not fit torch and"):
        parity.compare(models, images, names=specs.dialects.table(port.spec, "original", framework, port.config))


def test_a_setting_that_a_golden_case_lacks_is_to_be_stated_in_its_settings(golden, capsys):
    page, write = golden
    page.write_text(
        page.read_text()
        .replace(', "norm_eps": 1e-6', "")
        .replace("    ports=", '    unshown={"norm_eps"},\n    ports=')
    )
    case = write()
    (case / "weights.pth.json").unlink()  # our record, which states it
    assert goldens.check(case, str(page)) == 1
    err = capsys.readouterr().err
    assert "the case leaves norm_eps open" in err and "in the `settings` of goldens.write" in err


def test_blocks_that_a_port_calls_alike_are_compared_beside_a_named_module():
    """A block is no layer of the page: it is compared all the same, as where the port's own module is given."""
    needs("torch")
    port = ports.build("mlp_mixer", "tiny S/16", "torch", dtype="float64")
    images = np.random.default_rng(0).standard_normal((1, *port.spec.input_shape(port.config)))
    for other in (port, port.model):
        models = {"original": port.model, "port": other}
        names = {"original": {"head": "head", "blocks.#": "blocks.#"}}
        (result,) = parity.compare(models, images, "layers", names=names).results
        assert {"stem", "blocks.0.norm1", "blocks.0", "head"} <= {name for name, *_ in result.curve}


def test_arrays_of_a_golden_case_that_hold_one_number_are_noted(golden, capsys):
    """As the running statistics of a new batch norm do, which are no parameters."""
    import torch

    page, write = golden
    case = write()
    weights = torch.load(case / "weights.pth")
    for name in ("layers.0.0.weight", "layers.1.0.bias"):
        weights[name] = torch.full_like(weights[name], 0.25)
    torch.save(weights, case / "weights.pth")
    about = json.loads((case / "case.json").read_text())
    about["files"]["weights.pth"] = hashlib.sha256((case / "weights.pth").read_bytes()).hexdigest()
    (case / "case.json").write_text(json.dumps(about))
    goldens.check(case, str(page))
    noted = " ".join(capsys.readouterr().err.split())
    assert "'layers.0.0.weight', 'layers.1.0.bias'" in noted and "hold one number each throughout: a fault" in noted
