"""What a user's function may return, and what is said of everything else before a model is run."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import ConvertError, UsageError
from parity.derive.command import _started, _with_names, run
from parity.derive.fold.rows import DerivedTable
from parity.derive.missing.built import differing
from parity.derive.user_code import build, divided, side_names
from parity.derive.user_modules import Imports

from ..conftest import needs
from .pairs import images
from .test_contract import linen_model, torch_model

X = images(3, 4)
WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (lambda: None, "returns None: return"),
    "inputs first": (lambda: ((X,), torch_model()), "returns the inputs first: return"),
    "inputs before linen": (lambda: ((X,), linen_model()), "returns the inputs first: return"),
    "three values": (lambda: (*linen_model(), (X,)), "returns 3 values: return"),
    "one value": (lambda: ((X,),), "returns 1 value: return"),
    "a linen module alone": (lambda: linen_model()[0], "the linen module Net without its variables"),
    "a linen module and inputs": (lambda: (linen_model()[0], (X,)), "the linen module Net without its variables"),
    "an array": (lambda: X, "ndarray is no model"),
    "a list": (lambda: [torch_model(), (X,)], r"returns a list of 2: return \(model, inputs\), which is a tuple"),
}


def test_a_file_of_the_user_that_a_package_of_ours_hides_is_named(tmp_path: Path):
    (tmp_path / "ports.py").write_text("def helper(): pass\n")
    (tmp_path / "left.py").write_text("from ports import helper\n\n\ndef build(): pass\n")
    said = f"Triptych has a package of that name, which is imported first: give {tmp_path}/ports.py another name"
    with Imports() as imports, pytest.raises(ConvertError, match=re.escape(said)):
        build(f"{tmp_path}/left.py:build", "left", imports)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from .model import Net\n\n\ndef f(): pass", "no known parent package (the file runs by itself: write `from"),
        ("import sys\n\n\ndef f(): sys.exit(3)", "SystemExit: 3 (the code ends the program: let it return"),
    ],
)
def test_code_that_is_no_file_of_its_own_or_ends_the_program_is_one_error(code: str, said: str, tmp_path: Path):
    (tmp_path / "left.py").write_text(f"{code}\n")
    with Imports() as imports, pytest.raises(ConvertError, match=re.escape(said)):
        build(f"{tmp_path}/left.py:f", "left", imports)


def test_code_that_leaves_the_folder_changes_no_path_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    code = "import os\n\nimport torch\n\nos.chdir(os.sep)\n\n\ndef f():\n    return torch.nn.Linear(2, 2)\n"
    monkeypatch.chdir(tmp_path)
    Path("left.py").write_text(code)
    with Imports() as imports:
        for which in ("left", "right"):
            build("left.py:f", which, imports)
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_model_with_inputs_is_diagnosed(name: str):
    needs("torch")
    needs("flax")
    result, message = WRONG[name]
    with pytest.raises(UsageError, match=f"the left side, a.py:f: .*{message}"):
        divided(result(), "the left side, a.py:f")


def test_models_alone_and_with_inputs_are_told_apart():
    needs("torch")
    needs("flax")
    for model in (torch_model(), linen_model(), (lambda p, x: x, {"w": X})):
        assert divided(model, "f") == (model, None)
        assert divided((model, X), "f")[1] == (X,) and divided((model, (X, X)), "f")[1] == (X, X)


def test_sides_are_named_without_folders_where_their_names_differ_so():
    assert side_names("a/left.py:build", "b/right.py:build") == ("left.py:build", "right.py:build")
    assert side_names("a/net.py:build", "b/net.py:build") == ("a/net.py:build", "b/net.py:build")


def test_a_header_names_the_files_of_sides_of_one_framework_alone():
    alike, unlike = (DerivedTable((), sides) for sides in (("torch", "torch"), ("torch", "linen")))
    assert _with_names(alike, "a b/my net.py:f", "c/net.py:f").sides == ("my_net.py:f", "net.py:f")  # no white space
    assert _with_names(alike, "net.py:f", "net.py:f") is alike and _with_names(unlike, "a.py:f", "b.py:f") is unlike


def test_a_table_to_begin_with_that_is_missing_is_named_once():
    with pytest.raises(ConvertError) as caught:
        _started("no.table")
    assert (str(caught.value), caught.value.code) == ("no.table: there is no such file (check the path)", 2)


def test_wrong_paths_and_functions_come_first(tmp_path: Path):
    (tmp_path / "a.py").write_text("def build():\n    raise ValueError\n")
    out = tmp_path / "my.table"
    out.write_text("mine")
    with pytest.raises(ConvertError, match=r"b\.py: there is no such file"):
        run(f"{tmp_path}/a.py:build", f"{tmp_path}/b.py:build", str(out), False)
    module = f"{tmp_path}/a"
    with pytest.raises(UsageError, match=rf"{module} is no file: write file\.py:function, .*: {module}\.py:build$"):
        run(f"{module}:build", f"{tmp_path}/b.py:build", str(out), False)
    with Imports() as imports, pytest.raises(UsageError, match="has no function 'bild', did you mean 'build'"):
        build(f"{tmp_path}/a.py:bild", "left", imports)


MISTAKES = {
    "a function that requires arguments": (
        "def build(width, *, depth, classes=3): ...",
        r"two\.py:2: build requires width and depth, but is called without",
    ),
    "a list": (
        "def build():\n    return [torch.nn.Linear(4, 2), (X,)]",
        r"the left side, .*two\.py:2 in build: returns a list of 2: return \(model, inputs\)",
    ),
    "inputs of a wrong shape": (
        "class Net(torch.nn.Linear):\n    def forward(self, x):\n        return super().forward(x)\n"
        "def build():\n    return Net(3, 2), (X,)",
        r"the left model cannot be run with inputs of shape \[3, 4\] float64: .*two\.py:4: RuntimeError: mat1 and mat2",
    ),
    "a model that ends the program": (
        "class Net(torch.nn.Linear):\n    def forward(self, x):\n        raise SystemExit(0)\n"
        "def build():\n    return Net(4, 2), (X,)",
        r"the left model cannot be run .*two\.py:4: SystemExit: 0 \(the code ends the program: let it return",
    ),
    "a model that raises what is no Exception": (
        "def f(p, x): raise GeneratorExit('end')\n"
        "def build():\n    return (f, {'w': X}), (X,)",
        r"the left model cannot be run .*two\.py:2: GeneratorExit: end$",
    ),
    "inputs in a list": (
        "def build():\n    return torch.nn.Linear(4, 2), [X]",
        r"float64: .*; a list of inputs is one argument: several are a tuple, as in return model, \(x,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_users_code_is_one_error_with_its_line(name: str, tmp_path: Path):
    needs("torch")
    code, message = MISTAKES[name]
    (tmp_path / "two.py").write_text(f"import torch; from parity_tests.derive.test_user_code import X\n{code}\n")
    with pytest.raises(UsageError, match=message):
        run(f"{tmp_path}/two.py:build", f"{tmp_path}/two.py:build", None, False)


def test_several_inputs_of_the_left_alone_ask_for_those_of_the_right():
    torch = pytest.importorskip("torch", reason="both sides are torch modules")

    class Pair(torch.nn.Module):
        def __init__(self, axis: int):
            super().__init__()
            self.axis, self.fc = axis, torch.nn.Linear(4, 2)

        def forward(self, x: Any, y: Any) -> Any:
            return self.fc(x + y.movedim(self.axis, -1))

    with pytest.raises(UsageError) as raised:
        parity.derive(Pair(-1), Pair(0), (X, X))
    assert any("give right_inputs, the same values in its own order of axes" in one for one in raised.value.problems)


def test_a_reason_for_which_no_order_of_axes_can_be_run_is_stated_once():
    torch = pytest.importorskip("torch", reason="both sides are torch modules")

    class Tokens(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            raise TypeError("tokens are no numbers")

    with pytest.raises(UsageError) as raised:
        parity.derive(torch.nn.Linear(4, 2), Tokens(4, 2), (np.stack([X, X + 1]),))
    (problem,) = raised.value.problems
    assert problem.startswith("with inputs of shape [2, 3, 4] float64, and in 5 more ways: "), problem
    assert problem.endswith("TypeError: tokens are no numbers")


def test_right_inputs_that_do_not_fit_are_named_with_the_remedy():
    torch = pytest.importorskip("torch", reason="both sides are torch modules")
    with pytest.raises(UsageError, match="the right model cannot be run") as raised:
        parity.derive(torch.nn.Linear(4, 2), torch.nn.Linear(4, 2), (X,), (X, X[0]))
    problem, remedy = raised.value.problems
    assert problem.startswith("with inputs of shape [3, 4] float64 (input 1), [4] float64 (input 2): TypeError: ")
    assert remedy.startswith("these are right_inputs: give the arguments that the right model takes, in its own order")
    assert isinstance(raised.value.__cause__, TypeError)  # the framework's own


def test_lists_of_blocks_of_different_lengths_are_named():
    def shapes(**arrays: tuple[int, ...]) -> dict[str, Any]:
        return {name: SimpleNamespace(shape=shape) for name, shape in arrays.items()}

    stacked = {"layers/fc/kernel": (3, 4, 5), "layers/fc/bias": (3, 5), "layers/norm": (3, 4), "head/kernel": (9, 5)}
    blocks = {f"encoder.{i}.{leaf}": (4, 5) for i in range(2) for leaf in ("weight", "bias")}
    text = differing(shapes(**stacked), shapes(**blocks))
    assert text.startswith("the left model has 3 blocks in layers, the right one 2 in encoder")
    decoder = {f"decoder.{i}.{leaf}": (4, 5) for i in range(3) for leaf in ("weight", "bias")}
    both = {**stacked, "decoder/fc/kernel": (3, 4, 5), "decoder/fc/bias": (3, 5), "decoder/norm": (3, 4)}
    assert differing(shapes(**both), shapes(**blocks, **decoder)) == (
        "the left model has 3 blocks in layers and 3 in decoder, the right one 2 in encoder and 3 in decoder: "
        "build both with lists of the same lengths"
    )
    assert not differing(shapes(**both), shapes(**decoder))
    third = {f"encoder.2.{leaf}": (4, 5) for leaf in ("weight", "bias")}
    assert not differing(shapes(**stacked), shapes(**blocks, **third))
    assert not differing(shapes(**{"a/kernel": (5, 5), "a/bias": (5,)}), shapes(**blocks))


def test_layers_of_a_block_and_modules_with_numbers_are_no_lists_of_blocks():
    """As linen numbers them: two norms in one stacked block, and a list of blocks in the one encoder."""
    leaves = ("weight", "bias", "scale")
    three = {f"blocks.{i}.{leaf}": np.zeros(4) for i in range(3) for leaf in leaves}
    stacked = {f"encoder/LayerNorm_{k}/{leaf}": np.zeros((3, 4)) for k in range(2) for leaf in ("scale", "bias")}
    stacked["encoder/Dense_0/kernel"] = np.zeros((3, 4, 4))

    def inside(module: str, count: int) -> dict[str, np.ndarray]:
        return {f"{module}/block_{i}/{leaf}": np.zeros(4) for i in range(count) for leaf in leaves}

    for module in ("Encoder_0", "Encoder_0/Stack_0"):
        assert not differing(three, inside(module, 3)) and not differing(three, stacked)
        text = differing(three, inside(module, 2))
        assert (
            text == f"the left model has 3 blocks in blocks, the right one 2 in {module}/block: build both of one depth"
        )
    head = {f"Head_0/Mlp_0/Dense_{k}/{leaf}": np.zeros(4) for k in range(2) for leaf in ("kernel", "bias")}
    assert not differing(three, inside("Encoder_0", 3) | head)
    stem = {f"stem.{leaf}": np.zeros(4) for leaf in leaves}  # a block that the other model counts in its list
    assert not differing(three, inside("Encoder_0", 2) | stem | {"extra.bias": np.zeros(4)})


def test_a_forward_that_reads_another_copy_of_its_module_is_explained():
    """Each run has a copy of the model; a function that was set as forward still reads the first one."""
    needs("torch")
    import torch
    from torch.nn import functional as f

    def build() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 3)).eval()

    right = build()
    norm = right[1]
    norm.forward = lambda x: f.layer_norm(x, (6,), norm.weight, norm.bias)
    with pytest.raises(UsageError, match=r"torch model cannot be run .*: does its code read a module that is none"):
        parity.derive(build(), right, (X,))


def test_a_model_that_returns_nothing_is_refused():
    needs("torch")
    import torch

    class Nothing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> None:
            self.up(x)

    with pytest.raises(UsageError, match="the left model returns no arrays of numbers"):
        parity.derive(Nothing(), Nothing(), (X,))


def test_a_parameter_without_elements_is_refused():
    needs("torch")
    import torch

    model = torch.nn.Linear(4, 4)
    model.register_parameter("none", torch.nn.Parameter(torch.zeros(0, 4)))
    with pytest.raises(UsageError, match="none: no elements: build the torch model with lengths above 0"):
        parity.derive(model, model, (X,))


def test_a_model_without_values_is_refused():
    needs("torch")
    import torch

    with torch.device("meta"):
        model = torch.nn.Linear(4, 4)
    with pytest.raises(
        UsageError, match=r"the torch model Linear: weight is on device meta, .*: build it without that device"
    ):
        parity.derive(torch.nn.Linear(4, 4), model, (X,))


def pruned(model: Any) -> Any:
    from torch.nn.utils import prune

    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def normed(model: Any) -> Any:
    import torch

    torch.nn.utils.weight_norm(model[0])
    return model


def with_buffer(convert: Any) -> Any:
    import torch

    def change(model: Any) -> Any:
        model.register_buffer("more", convert(torch.eye(4)))
        return model

    return change


def with_attribute(value: Any) -> Any:
    def change(model: Any) -> Any:
        model.attribute = value(model)
        return model

    return change


def dense() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))


READABLE = {
    "pruned": pruned,
    "weight_norm": normed,
    "float8": with_buffer(lambda array: array.to(__import__("torch").float8_e4m3fn)),
    "cached": with_attribute(lambda model: model[0].weight * 2),
}


@pytest.mark.parametrize("change", READABLE.values(), ids=READABLE)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torch_modules_with_computed_weights_and_short_floats_are_read(change: Any):
    needs("torch")
    found = parity.derive(change(dense()), change(dense()), (X,))
    assert found.proven and not found.reads_numbers


REFUSED = {
    "lock": (with_attribute(lambda _: threading.Lock()), "the torch model Sequential cannot be copied: .*deepcopy"),
    "sparse": (with_buffer(lambda a: a.to_sparse()), r"more has the layout sparse_coo, .* as by to_dense\(\)"),
    "lazy": (lambda model: lazy(), "0.weight has no values before the first call: call the model once"),
    "quantized": (lambda model: quantized(model), "0._packed_params.* is no tensor, .*before it was quantized"),
}


def lazy() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.LazyLinear(5))


def quantized(model: Any) -> Any:
    import torch

    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_torch_modules_that_cannot_be_read_are_refused_with_the_remedy(change: Any, said: str):
    needs("torch")
    with pytest.raises(UsageError, match=said):
        parity.derive(dense(), change(dense()), (X,))


def test_a_compiled_model_runs_as_it_is_written():
    """Each of many runs would be compiled anew, and torch logs a warning of that."""
    needs("torch")
    import torch

    compiled = list[Any]()

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    left, right = torch.nn.Linear(4, 3), torch.compile(torch.nn.Linear(4, 3), backend=backend)
    assert parity.derive(left, right, (X,)).proven
    assert compiled == []
    right(torch.ones(2, 4))
    assert len(compiled) == 1


def test_a_paddle_layer_that_cannot_be_copied_is_refused():
    needs("paddle")
    import paddle

    layer = with_attribute(lambda _: threading.Lock())(paddle.nn.Linear(4, 3))
    with pytest.raises(UsageError, match=r"the paddle model Linear cannot be copied: .*deepcopy"):
        parity.derive(layer, layer, (X,))


def test_an_extra_state_is_kept_and_named():
    needs("torch")
    import torch

    class Scaled(torch.nn.Linear):
        factor = 3.0

        def get_extra_state(self) -> Any:
            return {"factor": self.factor}

        def set_extra_state(self, state: Any) -> None:
            self.factor = state["factor"]

        def forward(self, x: Any) -> Any:
            return super().forward(x) * self.factor

    found = parity.derive(Scaled(4, 3), Scaled(4, 3), (X,))
    assert found.proven
    assert "# kept at the left model's own state, as no array: _extra_state\n" in found.table.print()
    other = Scaled(4, 3)
    other.factor = 2.0
    assert not parity.derive(Scaled(4, 3), other, (X,)).proven


SIDE = "{}def build(): return (lambda p, x: {}(x) @ p['w'], {{'w': __import__('numpy').eye(4)}}), (1,)\n"


def sides(folder: Path, first: str, call: str) -> list[str]:
    """Write two folders with a side each, and a module `helper` of its own; return both sides."""
    for k, name in enumerate("ab"):
        (folder / name).mkdir()
        (folder / name / "helper.py").write_text(f"def f(x): return x * {k + 2}\n")
        (folder / name / f"{name}.py").write_text(SIDE.format(first, call))
    return [f"{folder}/{name}/{name}.py:build" for name in "ab"]


def test_both_sides_import_their_own_modules_of_one_name(tmp_path: Path):
    before, known = list(sys.path), set(sys.modules)
    with Imports() as imports:
        models = [build(text, "left", imports)[0] for text in sides(tmp_path, "from helper import f\n", "f")]
    x = np.ones((1, 4))
    assert [function(parameters, x)[0, 0] for function, parameters in models] == [2, 3]
    assert imports.files == [f"{tmp_path}/{name}/helper.py" for name in "ab"]
    assert sys.path == before and "helper" not in set(sys.modules) - known


def test_a_module_that_code_imports_while_it_runs_is_found_unless_both_sides_have_one(tmp_path: Path):
    texts = sides(tmp_path, "def f(x):\n    import helper\n    return helper.f(x)\n", "f")
    x = np.ones((1, 4))
    with Imports() as imports:
        (function, parameters), (other, _) = (build(text, "left", imports)[0] for text in texts)
        for one in (function, other):
            with pytest.raises(ImportError, match=r"a/helper.py and .*b/helper.py are both 'helper'"):
                one(parameters, x)
    (tmp_path / "b" / "helper.py").unlink()
    with Imports() as imports:
        (function, parameters), _ = (build(text, "left", imports)[0] for text in texts)
        assert function(parameters, x)[0, 0] == 2
    sys.modules.pop("helper")


def test_a_module_that_the_other_sides_stands_in_for_is_refused(tmp_path: Path):
    """A folder that code adds to sys.path itself is not known before it runs."""
    left, _ = sides(tmp_path, "from helper import f\n", "f")
    begin = f"import sys; sys.path.insert(0, {str(tmp_path / 'b')!r})\nfrom helper import f\n"
    (tmp_path / "c.py").write_text(SIDE.format(begin, "f"))
    said = "b/helper.py was not imported, as the other side's .*a/helper.py is 'helper' already"
    with Imports() as imports:
        build(left, "left", imports)
        with pytest.raises(UsageError, match=said):
            build(f"{tmp_path}/c.py:build", "right", imports)
    sys.modules.pop("helper")


def test_a_file_that_cannot_be_run_is_named_without_the_function(tmp_path: Path):
    """The error is in no function, and Python says its line once more in the words of a SyntaxError."""
    (tmp_path / "two.py").write_text("def build(:\n    pass\n")
    with Imports() as imports, pytest.raises(ConvertError, match=r"two\.py:1: SyntaxError: [^(]*$"):
        build(f"{tmp_path}/two.py:build", "left", imports)
    (tmp_path / "two.py").write_text("1 / 0\n\n\ndef build():\n    pass\n")
    with Imports() as imports, pytest.raises(ConvertError, match=r"two\.py:1: ZeroDivisionError: "):
        build(f"{tmp_path}/two.py:build", "left", imports)
