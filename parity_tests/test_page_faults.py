"""Mistakes of a page's author: each is one message with the field, the line and the nearest name."""

from types import SimpleNamespace

import pytest

import specs
from convert.__main__ import main as convert
from convert.dialect_lines import lines_of, sizes_of
from ports.__main__ import main as ports_main
from specs.dialects import PORTS, shapes
from specs.layer import lstm_cell
from specs.spec import SpecError

FC1 = 'sizes["blocks.0.fc1.kernel", "o"]'
HEAD = ' if "head.kernel" in sizes else 0'
CONVENTIONS = '{"act": "gelu", "norm_eps": 1e-6}'
EVERY = "(one of patch, depth, width, hidden, act, image, channels, classes, norm_eps)"
# what stands in the page, what its author writes instead, and what is said of it; LINE is the line of the mistake
MISTAKES = {
    "the leaf of another framework": (
        FC1, 'sizes["blocks.0.fc1.weight", "o"]',
        "infer, line LINE: layers yields no array 'blocks.0.fc1.weight', but 'blocks.0.fc1.kernel' and "
        "'blocks.0.fc1.bias'",
    ),
    "a misspelt path": (
        FC1, 'sizes["blocks.0.fc_1.kernel", "o"]',
        "infer, line LINE: layers yields no array 'blocks.0.fc_1.kernel', did you mean 'blocks.0.fc1.kernel'?",
    ),
    "an axis that the kind does not have": (
        FC1, 'sizes["blocks.0.fc1.kernel", "out"]',
        "infer, line LINE: 'blocks.0.fc1.kernel' has no axis 'out' (its axes: i, o)",
    ),
    "no axis": (
        FC1, 'sizes["blocks.0.fc1.kernel"]',
        "infer, line LINE: sizes['blocks.0.fc1.kernel']: an array and one of its axes are asked for, as in",
    ),
    "a misspelt list": (
        'sizes.count("blocks")', 'sizes.count("block")',
        "infer, line LINE: sizes.count('block'): layers yields nothing below this path, did you mean 'blocks'?",
    ),
    "an array that only some Configs have": (
        HEAD, "",
        "infer, line LINE: layers yields no array 'head.kernel' for this Config: ask `'head.kernel' in sizes` first",
    ),
    "nothing returned": ('    return {\n        "patch"', '    {\n        "patch"', "infer: returned None, not a"),
    "sizes that no Config has": (
        'sizes.count("blocks")', "0",
        "infer returned depth=0, the Config has 2: a network has at least 1 block and at most 10,000, not 0",
    ),
    "a field of the Config in layers": (
        'dense("head", c.width', 'dense("head", c.widht', "layers, line LINE: Config: unknown name 'widht', did",
    ),
    "an argument of a short form": (
        'dense("head", c.width, c.classes)', 'dense("head", c.width, c.classes, biass=False)',
        "layers, line LINE: dense: unknown name 'biass', did you mean 'bias'?",
    ),
    "a generator as one layer": (
        'yield dense("head", c.width, c.classes)', 'yield iter([dense("head", c.width, c.classes)])',
        "layers: yields a list_iterator, not a Layer: write `yield from` where a function returns several",
    ),
    "no layer": ('    yield conv("stem"', '    return\n    yield conv("stem"', "layers: yields no layer"),
    "an argument of the Config": (
        "S\": Config(patch=16, depth", "S\": Config(patch=16, depht",
        "line LINE: Config: unknown name 'depht', did you mean 'depth'?",
    ),
    "an argument of Dialect": (', about="', ', abuot="', "Dialect: unknown name 'abuot', did you mean 'about'?"),
    "a convention that is no field": (
        CONVENTIONS, '{"act": "gelu", "norm_eps": 1e-6, "erf": 1}', f"conventions: unknown name 'erf' {EVERY}",
    ),
    "a convention that arrays show": (
        CONVENTIONS, '{"act": "gelu", "norm_eps": 1e-6, "width": 384}',
        "dialect 'original', conventions: width=384 has no effect, as infer returns width; leave it out, or state it "
        "in `requires` if",
    ),
    "a convention that changes nothing": (
        'return {"image"}', 'return {"image", "act"}',
        "immaterial: returns act for every Config in tiny, as if it changed no output, and it stands in `conventions` "
        "of 'original' and `activations`, as if it changed some: leave it out of one of both",
    ),
    "an epsilon that every port has": (
        ", norm_eps=1e-4", "",
        "tiny: every Config has norm_eps=1e-6, a framework's default, as a port has that forgets it: give one Config",
    ),
    "lengths that are equal in small Configs alone": (
        'hidden=11, image=6, classes=5),\n    "relu, headless": Config(\n        patch=3, depth=1, width=5, hidden=13',
        'hidden=7, image=6, classes=5),\n    "relu, headless": Config(\n        patch=3, depth=1, width=5, hidden=5',
        "tiny: i and o of blocks.#.fc1.kernel, i and o of blocks.#.fc2.kernel are of one length in every Config, and",
    ),
    "a default that nobody states": (
        CONVENTIONS, '{"act": "gelu"}',
        "norm_eps: infer does not return it, dialect 'original' does not fix it, and it is not in unshown, nor "
        "immaterial: state it in `conventions` if the dialect's code has one value alone, list it in `unshown` if it "
        "changes the outputs, else let `immaterial` return it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_page_is_one_message(mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(specs, "_added", {})
    good, bad, message = MISTAKES[mistake]
    assert ports_main(["new", "mistaken", "--out", str(tmp_path)]) == 0
    page = tmp_path / "mistaken.py"
    text = page.read_text()
    assert text.count(good) == 1
    page.write_text(text.replace(good, bad))
    with pytest.raises(SpecError) as refused:
        specs.add(str(page))
    line = 1 + text[: text.index(good)].count("\n")
    said = str(refused.value)
    assert said.count(message.replace("LINE", str(line))) == 1 and str(page) in said, said
    assert len(refused.value.problems) <= 1, said


def test_a_length_that_no_file_shows_is_refused_with_the_page(tmp_path, monkeypatch, capsys):
    """The kernel of torch is (o s u), of which the page asks for u alone."""
    monkeypatch.setattr(specs, "_added", {})
    assert ports_main(["new", "hidden", "--out", str(tmp_path)]) == 0
    page = tmp_path / "hidden.py"
    layer = 'Layer(f"blocks.{b}.fc1", "dense", {"i": c.width, "o": c.hidden, "s": 1, "u": c.hidden})'
    text = page.read_text().replace('dense(f"blocks.{b}.fc1", c.width, c.hidden)', layer)
    page.write_text(text.replace(FC1, FC1.replace('"o"', '"u"')))
    assert convert(["inspect", "x.pt", "--spec", str(page)]) == 2
    assert f"{page}: `infer` reads what no file shows\n  - axis u of blocks.0.fc1.kernel" in capsys.readouterr().err


def test_gates_tell_the_length_beside_them():
    """In torch weight_ih is (g h) i, and an LSTM has four gates."""
    spec = SimpleNamespace(tiny={"one": 6}, layers=lambda width: [lstm_cell("cell", 5, width)])
    for dialect in PORTS.values():
        sizes = sizes_of(lines_of(spec, dialect), shapes(spec.layers(6), dialect, 6))
        assert [sizes["cell.input_kernel", axis] for axis in "ghi"] == [4, 6, 5]


def test_a_wrong_line_of_a_dialect_is_reported_with_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(specs, "_added", {})
    assert ports_main(["new", "misread", "--out", str(tmp_path)]) == 0
    page = tmp_path / "misread.py"
    page.write_text(page.read_text().replace("{i}.fc1  <->", "{i}.fc_1 <->"))
    assert convert(["inspect", "x.pt", "--spec", str(page)]) == 2
    error = capsys.readouterr().err
    assert f"{page}: dialect 'original' is not well defined\n  - line 3 of the table, " in error
    assert "layers yields no 'blocks.{i}.fc_1', did you mean 'blocks.{i}.fc1'?" in error


def test_all_faults_of_all_dialects_are_reported_at_once(tmp_path, monkeypatch, capsys):
    """Also where a line cannot be parsed, and of one line what is wrong with its numbers and with its axes."""
    monkeypatch.setattr(specs, "_added", {})
    assert ports_main(["new", "misread", "--out", str(tmp_path)]) == 0
    page = tmp_path / "misread.py"
    lines = ("head <-> a <->", "blocks.{i}.fc7 <-> c.{i}", "blocks.{i}.fc1.kernel: o k <-> d.{j}: k o",
             "blocks.{i}.norm <-> b.{i}", "blocks.{i}.fc2 <-> b.{i}")  # fmt: skip
    other = f'"other": Dialect("torch", """\n{chr(10).join(lines)}\n""", {{"act": "gelu", "norm_eps": 1e-6}}),\n'
    text = page.read_text().replace("{i}.fc1  <->", "{i}.fc_1 <->")
    page.write_text(text.replace("DIALECTS = {\n", "DIALECTS = {\n" + other))
    assert convert(["inspect", "x.pt", "--spec", str(page)]) == 2
    error = capsys.readouterr().err
    assert "dialects 'other' and 'original' are not well defined\n  - 'other': line 1 of the table, " in error, error
    assert "'other': line 2 of the table, 'blocks.{i}.fc7 <-> c.{i}': layers yields no 'blocks.{i}.fc7'" in error
    assert "would share one name; axes: unknown name 'k' (axes of blocks.0.fc1.kernel: i, o)" in error, error
    assert "'other': 'b.0.weight' would be two arrays: blocks.0.norm.scale (line 4 of the table" in error, error
    assert "'original': line 3 of the table, " in error


@pytest.mark.parametrize(("lines", "said"), [
    ("blocks.{b}.fc1 <-> a.{b}\n        blocks.{i}.fc1 <-> layers.{i}.1",
     "'blocks.{i}.fc1 <-> layers.{i}.1': has no effect: line 3 names the same on its left side"),
    ("blocks.0.fc1 <-> layers.0.1\n        blocks.1.fc1 <-> layers.1.1\n        blocks.{i}.fc1 <-> layers.{i}.1",
     "has no effect: lines of more specific names place all that it names"),
    ("blocks.0.fc_1 <-> layers.0.1", "layers yields no 'blocks.0.fc_1', did you mean 'blocks.0.fc1'?"),
    ("blocks.{i=1..9}.fc1 <-> layers.{i}.1",
     "words name parts of our axis (write {i} for all numbers; a line for a single number goes before it)"),
])  # fmt: skip
def test_a_line_without_effect_is_told_what_is_true_of_its_numbers(lines, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(specs, "_added", {})
    assert ports_main(["new", "misread", "--out", str(tmp_path)]) == 0
    page = tmp_path / "misread.py"
    page.write_text(page.read_text().replace("blocks.{i}.fc1  <-> layers.{i}.1", lines))
    assert convert(["inspect", "x.pt", "--spec", str(page)]) == 2
    assert said in capsys.readouterr().err
