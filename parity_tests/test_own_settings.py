"""What the generic tests say of fields of a page from outside that no array shows: ignored, or falsely immaterial."""

import contextlib

import pytest

import specs

from . import test_ports
from .conftest import needs
from .test_own_architecture import new, rewrite

__all__ = ["new"]  # a fixture

FACTOR = [  # an integer that no array shows, by which a port multiplies what its stem returns
    ("    norm_eps: float = 1e-6\n", "    norm_eps: float = 1e-6\n    factor: int = 1\n"),
    ('"act": "gelu", "norm_eps": 1e-6', '"act": "gelu", "norm_eps": 1e-6, "factor": 1'),
]


def in_torch_alone(page, changes, port=()):
    """Change a new page, which then has a port in torch alone, and that port; return the page's name."""
    name = page.stem
    rewrite(page, [*changes, (f'"flax": "{name}_flax.py", ', ""), (f', "paddle": "{name}_paddle.py"', "")])
    rewrite(page.with_name(f"{name}_torch.py"), port)
    return specs.add(str(page))


@pytest.mark.parametrize(("refused", "ported", "result"), [
    ("False", "c.factor", None), ("False", "1", (AssertionError, "'factor'.: no output of the torch port depends on")),
    ("self.factor != 1", "c.factor", (pytest.skip.Exception, "^factor of counted: the page accepts no other value")),
])  # fmt: skip
def test_an_integer_that_no_array_shows_is_varied(refused, ported, result, new):
    """One that a port ignores fails, and one that cannot be varied is named: a port may ignore it."""
    needs("torch")
    check = "        check_numbers("
    refuse = (check, f"        if {refused}:\n            raise ValueError('no')\n{check}")
    port = [
        ("        self.stem =", f"        self.factor = {ported}\n        self.stem ="),
        ("x = self.stem(images)", "x = self.factor * self.stem(images)"),
    ]
    name = in_torch_alone(new("counted"), [*FACTOR, refuse], port)
    with pytest.raises(result[0], match=result[1]) if result else contextlib.nullcontext():
        test_ports.test_a_setting_that_no_array_shows_changes_the_outputs(name, "torch")


def test_a_field_that_is_immaterial_by_mistake_is_named(new):
    """For one Config alone, which the check of the page itself cannot see."""
    needs("torch")
    wrong = ('return {"image"}', 'return {"image", "act"} if c.classes else {"image"}')
    name = in_torch_alone(new("mistaken"), [wrong])
    said = "fields that change outputs of the torch port: act=relu for tiny 'S', which has gelu\\n"
    with pytest.raises(AssertionError, match=said):
        test_ports.test_an_immaterial_field_changes_no_output(name)
