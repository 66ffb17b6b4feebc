"""Remedies in errors and warnings: options for who typed a command, arguments for who called a function."""

import dataclasses
import json
import re
import tomllib
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import convert
import ports
import specs
from convert import documents
from convert.config.settings import read_config
from convert.errors import ConvertError, command, option
from convert.inspection import text as inspection_text
from convert.plans.nnx import as_nnx
from convert.records.verification import verify
from convert.table import by_table

from .commands import GOOGLE, ROOT, TIMM, spoiled
from .conftest import needs
from .test_routes import write_numbers

OPTION = re.compile(r"(?<![\w-])--[a-z]|\w+2torch|\w+2\.\.\.")


@pytest.fixture
def bare(tmp_path):
    """A checkpoint of a port whose file leaves its activation open, and no record beside it."""
    write_numbers(tmp_path / "bare.safetensors", "convmixer", specs.get("convmixer").tiny["even"], "torch")
    return str(tmp_path / "bare.safetensors")


def refusal(call, *arguments, **options):
    with pytest.raises(ConvertError) as caught:
        call(*arguments, **options)
    assert not OPTION.search(str(caught.value)), str(caught.value)
    return str(caught.value)


def test_an_option_is_spelled_for_its_user():
    assert option("weights", "ema") == "weights='ema'" and option("force") == "force=True"
    with command():
        assert option("weights", "ema") == "--weights ema" and option("force") == "--force"
    assert option("set", "act=...") == "act=..."


def test_a_record_that_was_written_from_the_file_itself_is_named_last(run, tmp_path):
    """Its settings were stated then, by another record."""
    assert run("google2torch", GOOGLE, "-o", tmp_path / "mixer.safetensors")[0] == 0
    assert run("torch2torch", tmp_path / "mixer.safetensors", "-o", tmp_path / "tuned.pt")[0] == 0
    (tmp_path / "tuned.pt.json").unlink()
    assert run("torch2google", tmp_path / "tuned.pt", "--config", tmp_path / "mixer.safetensors")[0] == 0
    first, last = (f"--config {tmp_path / name}" for name in ("mixer.safetensors", "tuned.npz.json"))
    assert (
        f" from a record, if it is of the same model: {first} or {last}\n"
        in run("torch2flax", tmp_path / "tuned.pt")[2]
    )


def test_a_record_that_states_no_open_field_is_not_named(run, tmp_path):
    assert run("google2torch", GOOGLE, "-o", tmp_path / "mixer.pt")[0] == 0
    file = tmp_path / "mixer.pt.json"
    content = json.loads(file.read_text())
    for name in ("gelu", "norm_eps"):
        del content["config"][name]
    file.write_text(json.dumps(content))
    code, _, err = run("torch2flax", tmp_path / "mixer.pt")
    assert code == 2 and "gelu is open" in err and "from a record" not in err


def test_what_is_open(bare, run, tmp_path):
    """Each remedy that the message names works."""
    needs("torch")
    said = [
        refusal(convert.plan, bare, dst="flax"), refusal(ports.load, bare, "torch"),
        refusal(convert.plan, bare, dst="paddle", settings={"norm_eps": 1e-5}),
    ]  # fmt: skip
    assert all("with act=..." in text for text in said)
    assert "--set act=..." in run("torch2flax", bare)[2]
    assert ports.load(bare, "torch", act="relu", assume=True).config.act == "relu"
    with convert.plan(bare, dst="torch", settings={"act": "relu"}, assume=True) as plan:
        plan.write(tmp_path / "known.safetensors")
    known = repr(str(tmp_path / "known.safetensors"))
    assert f"config={known}" in refusal(ports.load, bare, "torch")
    assert f"settings={known}" in refusal(convert.plan, bare, dst="torch")
    for other in ("aaa", "bare2"):  # of another value, the second named more like the file
        with convert.plan(bare, dst="torch", settings={"act": "gelu"}, assume=True) as plan:
            plan.write(tmp_path / f"{other}.safetensors")
    taken = [line for line in run("torch2flax", bare)[2].splitlines() if "from a record" in line]
    files = [f"--config {tmp_path / name}.safetensors" for name in ("bare2", "aaa", "known")]
    assert taken[0].endswith(f" from a record, if it is of the same model: {files[0]} or {files[1]}")
    assert "or take act=gelu, norm_eps=1e-5 (assumed), " in taken[0]
    assert "act=relu" in taken[1] and taken[1].endswith(f": {files[2]}") and not taken[2:]
    for name in ("settings", "config"):
        assert ports.load(bare, "torch", **{name: tmp_path / "known.safetensors"}).config.act == "relu"
    with convert.plan(bare, dst="flax", settings=str(tmp_path / "known.safetensors")) as plan:
        assert plan.config.act == "relu"
    with pytest.warns(UserWarning, match="assumed when the record was written"):
        assert ports.load(bare, "torch", settings=tmp_path / "known.safetensors", act="gelu").config.act == "gelu"


def test_a_record_of_other_classes_is_suggested_with_those_of_the_file(bare, run, tmp_path):
    with convert.plan(bare, dst="torch", settings={"act": "relu"}, assume=True) as plan:
        plan.write(tmp_path / "known.safetensors")
    own = dataclasses.replace(specs.get("convmixer").tiny["even"], classes=9)
    write_numbers(tmp_path / "own.safetensors", "convmixer", own, "torch")
    err = run("torch2flax", tmp_path / "own.safetensors")[2]
    stated = "--config", str(tmp_path / "known.safetensors"), "--set", "classes=9"
    assert f"same model: {' '.join(stated)}\n" in err
    assert run("torch2flax", tmp_path / "own.safetensors", "-o", tmp_path / "own.msgpack", *stated)[0] == 0
    assert "--set" not in refusal(convert.plan, tmp_path / "own.safetensors", dst="flax")


def test_what_is_there_already_or_lost_or_cannot_be_held(tmp_path):
    def write(source, target, dtype=None, **options):
        with convert.plan(source, dst="torch", dtype=dtype) as plan:
            plan.write(tmp_path / target, **options)

    write(GOOGLE, "a.safetensors")
    assert "force=True replaces it" in refusal(write, GOOGLE, "a.safetensors")
    assert "force=True does not replace it" in refusal(replaced_record, write, tmp_path)
    assert "dtype='float32'" in refusal(write, GOOGLE, "c.npz", "bfloat16")
    source = spoiled(tmp_path, lambda arrays: arrays["stem/kernel"].fill(1e30))
    assert "lossy=True" in refusal(write, source, "d.safetensors", "float16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(source, "d.safetensors", "float16", lossy=True, verify=False)
    assert "verify=False" in refusal(verify, str(tmp_path / "d.safetensors"))


def replaced_record(write, folder):
    (folder / "b.npz").touch()
    (folder / "b.npz.json").write_text("{}")
    write(GOOGLE, "b.npz", force=True)


def test_which_part_and_which_dialect(bare, tmp_path):
    model = load_file(bare)
    two = {f"{part}/{name}": array for part in ("one", "two") for name, array in model.items()}
    save_file(two, tmp_path / "two.safetensors")
    assert "as in weights='one'" in refusal(convert.plan, tmp_path / "two.safetensors", dst="flax")
    assert "src='torch'" in refusal(convert.plan, bare, src="official", dst="flax", settings={"act": "gelu"})
    save_file({**model, **{f"ema/{name}": array for name, array in model.items()}}, tmp_path / "ema.safetensors")
    with convert.plan(tmp_path / "ema.safetensors", dst="flax", settings={"act": "gelu"}, assume=True) as plan:
        assert any("weights='ema' takes it" in note for note in plan.notes())


def test_a_configuration_without_a_record(bare):
    assert "settings=" in refusal(read_config, bare)
    framework = next(iter(ports.available()), None) or pytest.skip("no framework is installed")
    for call in (
        lambda: ports.load(bare, framework, config=bare),
        lambda: ports.save(None, "model.npz", config=bare),
    ):
        said = refusal(call)
        assert f"config={bare!r}: " in said and "settings=" not in said


def test_replicas_steps_shards_and_layouts(tmp_path):
    (tmp_path / "run" / "1").mkdir(parents=True)
    with convert.plan(GOOGLE, dst="torch") as plan:
        plan.write(tmp_path / "run" / "1" / "m.safetensors")
        assert "shard_size=5_000_000_000" in refusal(plan.write, tmp_path / "m.bin.index.json")
        assert "as_nnx(plan): torch is not a dialect of flax" in refusal(as_nnx, plan)
    assert "step=2: " in refusal(convert.plan, tmp_path / "run", step=2)
    assert "unreplicate=True: its arrays fit as they are: leave out unreplicate=True" in refusal(
        convert.plan, GOOGLE, unreplicate=True
    )
    both = {name: np.stack([array] * 2) for name, array in np.load(GOOGLE).items()}
    np.savez(tmp_path / "both.npz", **both)
    assert "unreplicate=True takes one" in refusal(convert.plan, tmp_path / "both.npz")


def test_tables(tmp_path):
    (tmp_path / "my.table").write_text("table 1\na.weight: o i <-> b.kernel: i o\n")
    save_file({"b.kernel": np.ones((2, 3))}, tmp_path / "b.safetensors")
    source, table = str(tmp_path / "b.safetensors"), str(tmp_path / "my.table")
    assert "add backwards=True" in refusal(by_table.plan, source, table)
    assert "weights='ema': " in refusal(by_table.plan, source, table, weights="ema")


def test_a_model_in_memory_is_no_file_and_has_no_settings(tmp_path, monkeypatch):
    """ports.save takes config=; a record that is not its own file's is no remedy."""
    linen = pytest.importorskip("flax.linen")
    monkeypatch.chdir(tmp_path)
    port = ports.build("convmixer", "tiny even", "flax")
    model = linen.Dense(1), port.model[1]  # a module that states nothing
    port.save("own.safetensors")
    port.save("other.pt")
    assert "config='other.pt.json' or config='own.safetensors'" in refusal(ports.save, model, "x.safetensors")
    (tmp_path / "other.pt").write_bytes(b"of another program")
    said = refusal(ports.save, model, "x.safetensors")
    assert "with config=dict(act=..." in said and said.endswith("of the same model: config='own.safetensors'")
    assert "the model's arrays do not show them" in said and not re.search("settings|file", said)
    said = refusal(ports.save, model, "x.safetensors", config={"width": 99, "act": "gelu"}, assume=True)
    assert "width=99 was asked for, but the model has width=" in said
    said = refusal(ports.save, (model[0], {"params": {"other": model[1]["params"]["head"]}}), "x.safetensors")
    assert said.startswith("the flax model: a model in memory, but its names are not those of dialect flax"), said


def test_a_page_of_the_documentation_is_named_where_it_is(tmp_path, monkeypatch):
    """In a wheel the package contains the pages; in a clone they lie beside it."""
    monkeypatch.chdir(ROOT)
    assert documents.document("table") == "docs/table.md" and (ROOT / "docs" / "table.md").exists()
    monkeypatch.chdir(tmp_path)
    assert documents.document("table") == str(ROOT / "docs" / "table.md")
    monkeypatch.setattr(documents, "INSTALLED", str(tmp_path))
    assert documents.document("table") == str(tmp_path / "table.md")


def test_a_document_is_named_where_the_current_folder_was_removed(tmp_path, monkeypatch):
    """Messages are composed when a module is imported: any command would end in a traceback there."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert documents.document("table") == str(ROOT / "docs" / "table.md")
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert included["force-include"]["docs"] == "convert/docs"
    for path in (ROOT / "convert").rglob("*.py"):
        for page in re.findall(r"document\('([\w-]+)'\)", path.read_text()):
            assert (ROOT / "docs" / f"{page}.md").exists(), (path, page)


def test_short_lists_of_names_are_given_whole():
    needs("torch")
    for options, names in (
        ({"device": "cuda"}, "cpu, gpu"),
        ({"dtype": "int4"}, "float64, float32, bfloat16, float16"),
    ):
        assert f"(one of {names})" in refusal(ports.build, "convmixer", "tiny even", "torch", **options)


def test_the_names_of_a_pickled_module_are_its_state_dicts(run, tmp_path):
    needs("torch")
    import torch

    torch.save(torch.nn.Linear(3, 3), tmp_path / "module.pt")
    assert "its first names are weight, bias;" in run("timm2torch", tmp_path / "module.pt")[2]
    torch.save(torch.zeros(2), tmp_path / "one.pt")
    assert "its one array is tensor;" in run("timm2torch", tmp_path / "one.pt")[2]


def test_inspect_names_the_record_where_another_dialect_set_a_field():
    assert list(inspection_text._suggested({"gelu": "dialect google"}, "timm", [])) == [
        "by its record, assumed as google's own code computes: gelu"
    ]


def test_a_list_of_arrays_is_to_be_saved_by_name(run, tmp_path):
    needs("torch")
    import torch

    torch.save([torch.zeros(3), torch.ones(2, 2)], tmp_path / "list.pt")
    code, _, err = run("torch2flax", tmp_path / "list.pt")
    assert code == 1 and "save them by name, as in torch.save(model.state_dict())" in err


@pytest.mark.parametrize("name", ["stem.weight", "blocks.0.norm1.weight", "head.weight"])
def test_an_array_that_is_none_in_the_file_is_not_called_missing(name, run, tmp_path):
    """Also where the configuration follows from the array, or where a model without it would be another one."""
    needs("torch")
    import torch

    state = dict(ports.build("mlp_mixer", "tiny S/16", "torch").model.state_dict())
    torch.save({"model": state | {name: None}}, tmp_path / "x.pt")
    code, _, err = run("torch2flax", tmp_path / "x.pt")
    assert code == 1 and f"  - {name} is None in the file, no array: save it as an array\n" in err, err
    assert "missing" not in err and "all arrays of the model are there" not in err, err


def test_a_head_that_is_none_in_the_file_is_named(run, tmp_path):
    """A model without a head is another one: classes=0 does not follow from None in silence."""
    needs("torch")
    import torch

    state = torch.load(TIMM, weights_only=True)
    torch.save(state | {"head.weight": None, "head.bias": None}, tmp_path / "x.pth")
    code, _, err = run("timm2flax", tmp_path / "x.pth", "-o", tmp_path / "x.msgpack")
    assert code == 0 and "has no head, as head.weight and head.bias are None in it: read as classes=0, " in err, err


def test_what_a_file_lacks_is_named_before_a_smaller_model_is_offered(run, tmp_path):
    """A renamed head and a lost block are no reason to drop them: a smaller model may be the right one all the same."""
    assert run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    arrays = load_file(tmp_path / "x.safetensors")
    head = ["head.weight", "head.bias"]
    words = ["torch2google", tmp_path / "y.safetensors", "--config", tmp_path / "x.safetensors", "-o", "y.npz"]
    save_file({name.replace("head", "classifier"): array for name, array in arrays.items()}, words[1])
    code, _, err = run(*words)
    listed = [line.removeprefix("  - ") for line in err.splitlines()[1:]]
    assert code == 2 and listed[:2] == [f"missing {name}" for name in head], err
    assert listed[2:4] == ["unexpected classifier.bias", "unexpected classifier.weight"], err
    assert "rename it" in listed[-1] and "--set" not in err, err
    code, _, err = run(*words, "--set", "classes=0")
    assert code == 1 and "no array has the name of one of the head: head.weight and head.bias" in err, err

    save_file({name: array for name, array in arrays.items() if name != head[0]}, words[1])
    code, _, err = run(*words, "--set", "classes=0")
    assert code == 1 and "missing head.weight\n" in err and "all arrays of the model are there" not in err, err

    save_file({name: array for name, array in arrays.items() if name not in head}, words[1])
    code, _, err = run(*words)
    assert code == 2 and "missing head.weight" in err and "if the model was built so, add --set classes=0" in err, err
    code, _, err = run(*words, "--set", "classes=0", "--dry-run")
    assert code == 0 and "the file has no head: read as classes=0" in err, err

    save_file({name: array for name, array in arrays.items() if not name.startswith("blocks.2.")}, words[1])
    code, _, err = run(*words)
    assert code == 2 and err.index("missing blocks.2.norm{1..2}.weight") < err.index("add --set depth=2"), err


def test_python_takes_sizes_from_a_configuration_as_the_command_does(run, tmp_path):
    needs("torch")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    arrays = load_file(tmp_path / "x.safetensors")
    other = {name: array[:5] if name.startswith("head") else array for name, array in arrays.items()}
    save_file(other, tmp_path / "five.safetensors")
    for known in (tmp_path / "x.safetensors", ports.load(tmp_path / "x.safetensors", "torch").config):
        said = refusal(ports.load, tmp_path / "five.safetensors", "torch", config=known)
        assert "the file has classes=5" in said, said
        port = ports.load(tmp_path / "five.safetensors", "torch", config=known, classes=5)
        assert port.config.classes == 5
    said = refusal(ports.load, tmp_path / "five.safetensors", "torch", config=tmp_path / "x.safetensors")
    assert said.endswith("add classes=5 to ports.load"), said


def test_an_original_with_the_same_classes_is_the_first_record_to_take(run, tmp_path):
    """Names of derived files may be more like that of the file, which may be another model's."""
    assert run("google2torch", GOOGLE, "-o", tmp_path / "mixer.safetensors")[0] == 0
    arrays = load_file(tmp_path / "mixer.safetensors")
    config = ("--config", tmp_path / "mixer.safetensors")
    assert run("torch2flax", tmp_path / "mixer.safetensors", "-o", tmp_path / "tuned2.npz")[0] == 0
    save_file({name: array for name, array in arrays.items() if "head" not in name}, tmp_path / "a.safetensors")
    words = ("torch2flax", tmp_path / "a.safetensors", "-o", tmp_path / "tuned.npz", *config, "--set", "classes=0")
    assert run(*words)[0] == 0
    save_file(arrays, tmp_path / "tuned.safetensors")
    _, _, err = run("torch2flax", tmp_path / "tuned.safetensors")
    (line,) = (line for line in err.splitlines() if "from a record" in line)
    names = ("mixer.safetensors", "tuned2.npz.json", "tuned.npz.json --set classes=7")
    assert line.endswith(" or ".join(f"--config {tmp_path / name}" for name in names)), line
