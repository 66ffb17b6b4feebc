"""The documents: every command and snippet runs as it stands there, every number and every link is right.

docs/quick-start.md has tests in test_journey.py, docs/own-architecture.md in test_own_docs.py and
test_own_architecture.py, docs/table.md in test_table_docs.py.
"""

import os
import re
import shutil
import subprocess
import tomllib
import warnings

import numpy as np
import pytest

import convert.__main__
import convert.files.base as base
import parity.__main__
import ports
import specs
from convert import files
from convert.errors import PACKAGES
from convert.files import npz, safetensors, sharded
from convert.files.folders import orbax
from convert.files.pickled import interpreter
from parity.results import tolerance

from . import documents
from .conftest import needs
from .golden import Case
from .optimizing import trained_mixer

FILES = {  # name in the documents: golden case, its file
    "mixer.npz": ("flax_mixer", "weights.npz"),
    "mixer.pth": ("timm_mixer", "weights.pth"),
    "convmixer.pth.tar": ("locuslab_convmixer_gelu", "checkpoint.pth.tar"),
}
MAINS = {"convert": convert.__main__.main, "parity": parity.__main__.main}
MIB = 1 << 20


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, the current one, with the files that the documents speak of."""
    for name, (case, golden) in FILES.items():
        shutil.copy(Case(case).folder / golden, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words, capsys):
    """Run a command of a document, in this process if it is ours; return what it prints."""
    name, arguments = documents.module(words)
    capsys.readouterr()
    if name:
        assert MAINS[name](arguments) == 0, words
    else:
        subprocess.run(words, check=True)
    printed = capsys.readouterr()
    return printed.out + printed.err


def plain(text):
    """Return text with all white space as single spaces."""
    return " ".join(text.split())


def test_file_formats(folder, capsys):
    """Every command runs, in order; a block of output shows lines that the command before it prints."""
    (folder / "evil.pth").write_bytes(b"\x80\x02cposix\nsystem\nX\x02\0\0\0lsq\0\x85R.")
    assert convert.__main__.main(["inspect", "evil.pth"]) == 1
    printed = {"evil.pth": capsys.readouterr().err}
    last, shown = "evil.pth", 0
    for language, block in documents.blocks(documents.read("docs/file-formats.md")):
        if language == "sh":
            for words in documents.commands(f"```sh\n{block}```"):
                last = " ".join(words)
                printed[last] = run(words, capsys)
        elif language == "text":
            source = "evil.pth" if "evil.pth" in block else last
            for line in block.splitlines():
                assert plain(line) in plain(printed[source]), line
                shown += 1
    assert shown == 4
    assert sorted(path.name for path in (folder / "converted").iterdir()) == ["a.msgpack", "a.msgpack.json"]


@pytest.mark.filterwarnings("ignore:When training, we now always track global mean")
def test_a_model_takes_the_parameters_of_an_inference_program(tmp_path, monkeypatch):
    """Also running statistics, which paddle numbers like weights."""
    needs("paddle")
    import paddle

    def model():
        with paddle.utils.unique_name.guard():  # names as in a fresh process
            return paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))

    monkeypatch.chdir(tmp_path)
    old, new = model(), model()
    old(paddle.ones([2, 2]) * paddle.to_tensor([[1.0], [3.0]]))
    old.eval()
    paddle.jit.save(old, "net", input_spec=[paddle.static.InputSpec([None, 2], "float32")])
    exec(documents.python(documents.read("docs/file-formats.md")), {"paddle": paddle, "model": new})
    saved = paddle.load("net.pdparams")
    assert all((saved[name].numpy() == tensor.numpy()).all() for name, tensor in old.state_dict().items())
    assert (old.state_dict()["1._mean"].numpy() != 0).any()


def test_parity(folder, capsys):
    """Every command of docs/parity.md agrees in all frameworks that are installed."""
    if len(ports.available()) < 2:
        pytest.skip("a comparison needs two frameworks")
    for words in documents.commands(documents.read("docs/parity.md")):
        assert "agree" in run(words, capsys)
    assert "</html>" in (folder / "parity.html").read_text()


def test_the_snippet_on_own_models(capsys):
    """The snippet of docs/parity.md ends as its comments say."""
    needs("torch")
    needs("flax")
    text = documents.python(documents.read("docs/parity.md"))
    space = {}
    exec(compile(text, "parity.md", "exec", dont_inherit=True), space)
    report = space["report"]
    results = dict(re.findall(r"^report\.([\w.]+) +# (.*)$", text, re.MULTILINE))
    assert results.keys() == {"passed", "first_divergence", "first_divergence.guess"}
    assert str(report.passed) == results["passed"]
    assert report.first_divergence == results["first_divergence"].strip('"')
    for part in results["first_divergence.guess"].strip('"').split(" ... "):
        assert part in report.first_divergence.guess
    assert "looks like" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "number"), [
    ("arrays in one file", f"{base.MAX_TENSORS:,}"),
    ("axes of an array", f"{base.MAX_DIMS}"),
    ("levels of nesting", f"{base.MAX_DEPTH}"),
    ("characters in a name", f"{base.MAX_NAME:,}"),
    ("header of a safetensors file", f"{safetensors.MAX_HEADER // MIB} MiB"),
    ("instructions of a pickle", f"{interpreter.MAX_OPCODES:,}"),
    ("growth of a compressed `.npz`", f"{npz.MAX_EXPANSION} times the file, or {npz.FREE_EXPANSION // MIB} MiB"),
    ("growth of an Orbax folder", f"{orbax.MAX_GROWTH} times the folder, or {orbax.FREE // MIB} MiB"),
    ("shards of an index", f"{sharded.MAX_SHARDS:,}"),
    ("a record", f"{base.MAX_RECORD // MIB} MiB"),
])  # fmt: skip
def test_limits_of_files(text, number):
    assert f"| {text} | {number} |" in documents.read("docs/file-formats.md")


def test_limits_of_comparisons():
    text = plain(documents.read("docs/parity.md"))
    limits = {tolerance.FLOAT64[check] for check in ("forward", "layers", "gradients")}
    assert limits == {1e-10} and tolerance.FLOAT64["train"] == 1e-9
    assert "The limit is 1e-10, and 1e-9 in training." in text
    factors = tolerance.NOISE_FACTOR
    assert f"up to {factors['float32']:.0f} times in float32, and {factors['float16']:.0f} times in bfloat16" in text
    spread = tolerance.SPREAD_FACTOR
    assert f"to {spread['float64']:.0f} times that movement in float64, to {spread['float32']:.0f} times" in text
    assert f"1/{1 / tolerance.GRADIENT_FLOOR:.0f} of the largest of all gradients" in text
    assert tolerance.WIDE == 1e-7 and "beyond 1e-7 in float64" in text
    assert tolerance.DROWNED == 1 and "If a limit would exceed 1" in text


def test_checks_and_causes():
    """The table of checks has every check, the list of causes every activation."""
    from parity.causes.hypotheses import ACTIVATIONS, NONE

    text = documents.read("docs/parity.md")
    assert re.findall(r"^\| `([a-z-]+)` \| (?:what|the output|every|the gradient|losses)", text, re.MULTILINE) == [
        *parity.__main__.CHECKS
    ]
    words = " ".join(text.split()).lower()
    named = [name.removesuffix(" by the error function").removesuffix(" by a sigmoid").removesuffix(" by tanh")
             for name in ACTIVATIONS if name != NONE]  # fmt: skip
    assert [name for name in named if name.lower() not in words] == []
    assert len(named) == 14, "name the new activation in docs/parity.md"


def test_the_small_checkpoints_of_the_quick_start():
    """The files that a newcomer copies are those that the tests of the documents use."""
    section = documents.section(documents.read("docs/quick-start.md"), "Before you start")
    copies = {target: source for _, source, target in documents.commands(section)}
    assert copies == {name: f"parity_tests/goldens/{case}/{golden}" for name, (case, golden) in FILES.items()}
    assert Case("flax_mixer").images.shape[1:] == Case("timm_mixer").images.shape[1:] == (3, 24, 16)


def test_a_conversion_in_python(folder, capsys):
    """By a route, by a Table and with an optimizer, with the notes that the command prints."""
    needs("torch")
    model, config = trained_mixer(folder)
    model.rename(folder / "five.pt"), config.replace(folder / "config.json")
    (folder / "my.table").write_text("table 1\nq: (h d) c <-> q: h d c\n")
    np.savez(folder / "large.npz", q=np.ones((6, 3)))
    code = documents.python(documents.section(documents.read("docs/quick-start.md"), "Convert in Python"))
    exec(code.replace("large.pt", "large.npz"), {})
    assert capsys.readouterr().out.split()[0].isdigit()
    assert convert.plan(str(folder / "mixer.safetensors")).config.gelu == "tanh"
    assert (folder / "theirs.safetensors").exists() and (folder / "five.msgpack").exists()


def test_torch_is_installed_in_the_tested_version():
    lines = (documents.ROOT / "constraints.txt").read_text().splitlines()
    assert {package for packages in PACKAGES.values() for package in packages.split()} <= set(lines)
    assert f"pip install {PACKAGES['torch']} --index-url" in (documents.ROOT / "docs" / "quick-start.md").read_text()


def test_every_format_has_a_row():
    rows = [line for line in documents.read("docs/file-formats.md").splitlines() if line.startswith("|")]
    named = {suffix for row in rows for suffix in re.findall(r"`(\.[\w.]+)`", row.split("|")[2])}
    known = set(files.suffixes()) - {".index.json"}
    assert known <= named and ".safetensors.index.json" in named


@pytest.mark.parametrize(("suffix", "refused"), [
    (".safetensors", {"complex128"}),
    (".npz", {"bfloat16", "float8_e4m3fn", "float8_e5m2"}),
    (".pdparams", {"uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"}),
    (".pt", set()),
    (".msgpack", set()),
])  # fmt: skip
def test_dtypes_that_a_format_cannot_hold(suffix, refused, tmp_path):
    """As docs/file-formats.md says, of one-file formats."""
    found = set()
    for dtype in base.ITEMSIZE:
        with open(tmp_path / dtype, "w+b", buffering=0) as file:
            try:
                files.writer_for(f"x{suffix}")(file, [base.Tensor("a", (2,), dtype)], {})
            except convert.errors.ConvertError:
                found.add(dtype)
    assert found == refused


def test_both_ways_to_keep_the_record(folder, capsys):
    """docs/quick-start.md, "Keep the record": no --config is needed on the way back."""
    needs("torch")
    assert convert.__main__.main(["google2torch", "mixer.npz"]) == 0
    port = ports.load("mixer.safetensors", framework="torch")
    port.save("one.safetensors")
    ports.save(port.model, "two.safetensors", config="mixer.safetensors")
    for name in ("one", "two"):
        assert convert.__main__.main(["torch2google", f"{name}.safetensors"]) == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            back = ports.load(f"{name}.npz", framework="torch")
        assert np.array_equal(back(Case("flax_mixer").images), port(Case("flax_mixer").images))
    capsys.readouterr()


def two_implementations(folder):
    """Write the two models in torch that docs/own-model.md shows, and a checkpoint of the first."""
    needs("torch")
    import torch

    sides = [block for _, block in documents.blocks(documents.read("docs/own-model.md")) if "torch" in block]
    for name, start in (("mine.py", "# mlp.py"), ("theirs.py", "# torch_mlp.py")):
        (folder / name).write_text(next(block for block in sides if block.startswith(start)))
    layers = torch.nn.Linear(3, 80), torch.nn.Tanh(), torch.nn.Linear(80, 2)
    torch.save(torch.nn.Sequential(*layers).state_dict(), folder / "large.pt")


def test_commands_of_the_readme(folder, capsys):
    """Every `python -m convert` of README runs, and every `make` has its target."""
    text = documents.read("README.md")
    targets = re.findall(r"^(\w+):", documents.read("Makefile"), re.MULTILINE)
    lines = documents.commands(text)
    assert {words[1] for words in lines if words[0] == "make"} <= set(targets)
    quick = [words for words in lines if documents.module(words)[0] in MAINS]
    assert len(quick) >= 6
    two_implementations(folder)
    for words in quick:
        run(words, capsys)


def test_processes_of_make_store_what_python_compiled():
    """Also where the environment says otherwise: pip leaves it to them, and torch takes 2 s of CPU to compile."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    words = ["make", "--no-print-directory", "--eval", "show: ; @echo [$$PYTHONDONTWRITEBYTECODE]", "show"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    assert subprocess.run(words, cwd=documents.ROOT, env=env, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("document", ["README.md", "CONVENTIONS.md", "docs/quick-start.md", "docs/file-formats.md",
                                      "docs/parity.md", "docs/own-architecture.md"])  # fmt: skip
def test_links_lead_somewhere(document):
    """Files exist, and headings of this document."""
    text = documents.read(document)
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in text.splitlines() if line.startswith("#")}  # fmt: skip
    home = (documents.ROOT / document).parent
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, heading = target.partition("#")
        assert not heading or path or heading in headings, target
        assert not path or path.startswith("https:") or (home / path).exists(), target


def test_a_wheel_contains_what_its_documents_link_to():
    """They lie in convert/docs there."""
    project = tomllib.loads((documents.ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    pages = (documents.ROOT / "docs").glob("*.md")
    above = {link for page in pages for link in re.findall(r"\]\(\.\./([^)#]*)", page.read_text())}
    assert above and {link: included.get(link) for link in above} == {link: f"convert/{link}" for link in above}


def test_the_readme_is_short_and_names_every_document():
    text = documents.read("README.md")
    assert len(text.splitlines()) <= 145 + len(specs._pages())  # each has a row
    rows = [f"| `{name}` | flax, torch, paddle" for name in specs._pages()]  # what each row of the table begins with
    lacking = [row for row in rows if f"\n{row}" not in text]
    assert lacking == [], "README.md: its table of architectures has no row that begins like this: add it"
    for path in (documents.ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in text


def test_the_error_of_a_table_is_the_one_that_the_quick_start_names():
    from convert.errors import ConvertError
    from specs.table import Table, TableError

    assert "`specs.table.TableError`, a `ValueError`" in documents.read("docs/quick-start.md")
    with pytest.raises(TableError) as caught:
        Table.parse("table 1: a <-> b\nx: o i <-> y: i o\n").apply({})
    assert isinstance(caught.value, ValueError) and not isinstance(caught.value, ConvertError) and caught.value.problems
