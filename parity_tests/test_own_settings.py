"""What the generic tests say of fields of a page from outside that no array shows: ignored, or falsely immaterial."""

import contextlib

import pytest

import ports
import specs
from convert.errors import UsageError
from specs.spec import SpecError

from . import test_ports, test_routes
from .conftest import needs
from .test_own_architecture import new, rewrite

__all__ = ["new"]  # a fixture

FACTOR = [  # a number that no array shows, of the page, by which a port multiplies what its stem returns
    ("    norm_eps: float = 1e-6\n", "    norm_eps: float = 1e-6\n    factor: int = 1\n"),
    ('"act": "gelu", "norm_eps": 1e-6', '"act": "gelu", "norm_eps": 1e-6, "factor": 1'),
]
VARIED, FLOAT = (", norm_eps=1e-4", ", norm_eps=1e-4, factor=2"), ("factor: int = 1", "factor: float = 1.0")


def in_torch_alone(page, changes, port=()):
    """Change a new page, which then has a port in torch alone, and that port; return the page's name."""
    name = page.stem
    rewrite(page, [*changes, (f'"flax": "{name}_flax.py", ', ""), (f', "paddle": "{name}_paddle.py"', "")])
    rewrite(page.with_name(f"{name}_torch.py"), port)
    return specs.add(str(page))


@pytest.mark.parametrize(("name", "change", "ported", "result"), [
    ("varied", VARIED, "c.factor", None),
    ("ignored", VARIED, "1", (AssertionError, "'factor'.: no output of the torch port depends on it")),
    ("fixed", FLOAT, "c.factor", (pytest.skip.Exception, "^factor of fixed: the page accepts no other")),
    ("unvaried", FACTOR[0], "1", (SpecError, "tiny: every Config has factor=1, as a port has that ignores it: give ")),
])  # fmt: skip
def test_a_number_that_no_array_shows_is_varied(name, change, ported, result, new):
    """One that a port ignores fails, and one that cannot be varied is named: a port may ignore it."""
    needs("torch")
    check = "        check_numbers("
    refuse = (check, f"        if {change == FLOAT} and self.factor != 1:\n            raise ValueError('no')\n{check}")
    port = [
        ("        self.stem =", f"        self.factor = {ported}\n        self.stem ="),
        ("x = self.stem(images)", "x = self.factor * self.stem(images)"),
    ]
    with pytest.raises(result[0], match=result[1]) if result else contextlib.nullcontext():
        in_torch_alone(new(name), [*FACTOR, *([] if change in FACTOR else [change]), refuse], port)
        test_ports.test_a_setting_that_no_array_shows_changes_the_outputs(name, "torch")


def test_a_field_that_is_immaterial_by_mistake_is_named(new):
    """For one Config alone, which the check of the page itself cannot see."""
    needs("torch")
    wrong = ('return {"image"}', 'return {"image", "act"} if c.classes else {"image"}')
    name = in_torch_alone(new("immaterial"), [wrong])
    said = "fields that change outputs of the torch port: act=relu for tiny 'S', which has gelu\\n"
    with pytest.raises(AssertionError, match=said):
        test_ports.test_an_immaterial_field_changes_no_output(name)


EXCHANGED = ('"GELU": {"act": "gelu"}, "ReLU": {"act": "relu"}', '"GELU": {"act": "relu"}, "ReLU": {"act": "gelu"}')
FUNCTIONS = [("nn.GELU, ", "nn.functional.gelu, "), ("nn.ReLU}", "nn.functional.relu}"), ("[c.act]()", "[c.act]")]


@pytest.mark.filterwarnings("ignore:.*the file has no head")
@pytest.mark.parametrize(("changes", "port", "error", "said"), [
    ([EXCHANGED], [], UsageError, "act=gelu was asked for; the modules state act=relu"),
    ([], FUNCTIONS, pytest.skip.Exception, "no module of the torch port of stating_3 states act, which ports.save"),
])  # fmt: skip
def test_what_modules_state_of_a_port_is_compared_with_its_config(changes, port, error, said, new, tmp_path):
    needs("torch")
    name = in_torch_alone(new(f"stating_{len(port)}"), changes, port)  # ports are cached by the page's name
    with pytest.raises(error, match=said):
        test_ports.test_modules_state_the_settings_of_their_port(name, "torch", tmp_path)


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_a_new_port_with_another_activation_is_not_saved_as_its_config(framework, new, tmp_path):
    nn = pytest.importorskip(f"{framework}.nn")
    port = ports.build(str(new("activated")), "tiny S", framework)
    port.model.blocks[0].act = port.model.blocks[1].act = nn.ReLU()
    saves = (port.save, lambda path: ports.save(port.model, path, config=port.config))
    for save, said in zip(saves, ("blocks.0.act: class was GELU", "the modules state act=relu"), strict=True):
        with pytest.raises(UsageError, match=said):
            save(tmp_path / "x.safetensors")


@pytest.mark.parametrize("way", [("original", "flax"), ("flax", "original")], ids="-".join)
def test_the_generic_test_of_routes_takes_ties_and_what_a_dialect_requires(way, new, tmp_path):
    """Tied arrays are equal in its files, and small Configs that cannot have what the dialect requires are left out."""
    page = new(f"tied_to_{way[1]}")
    tied = "head.kernel: i o <-> classifier.weight: o i = out.weight: o i\n        head.bias: o <-> classifier.bias: o"
    refuse = '        if self.hidden == 13 and self.act == "gelu":\n            raise ValueError("13 needs relu")'
    last = '"patch", "width", "hidden", "image", "channels")'
    rewrite(page, [
        ("head            <-> classifier", tied), (last, f"{last}\n{refuse}"),
        ('{"act": "gelu", "norm_eps": 1e-6}, about', '{"norm_eps": 1e-6}, requires={"act": "gelu"}, about'),
        ("    dialects=DIALECTS,", '    dialects=DIALECTS,\n    unshown=frozenset({"act"}),'),
    ])  # fmt: skip
    test_routes.test_there_and_back((specs.add(str(page)), *way), tmp_path)
