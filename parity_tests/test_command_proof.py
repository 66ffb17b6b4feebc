"""What `--prove` says, and what is not proven."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import convert
import specs
from convert.errors import ConvertError
from parity.conversion_proof import prove

from .commands import GOOGLE, ROOT, TIMM, listing, spoiled
from .conftest import needs
from .test_routes import write_numbers


def test_a_proof_lists_each_setting_that_it_does_not_test(run, tmp_path):
    """Also those without a default, which the user set."""
    needs("torch")
    config = specs.get("mobile_former").tiny["plain"]
    write_numbers(tmp_path / "m.pdparams", "mobile_former", config, "paddlevit")
    values = ("lite_stride=1", "dyrelu_coefs=3,7", "dyrelu_consts=1,0", "stem_stride=2")
    words = [word for value in values for word in ("--set", value)]
    code, printed, _ = run("paddlevit2torch", tmp_path / "m.pdparams", "-o", tmp_path / "m.pt", *words, "--prove")
    listed = "(lite_stride=1, dyrelu_coefs=(3, 7), dyrelu_consts=(1, 0), stem_stride=2, softmax=True)"
    assert code == 0 and f"settings that no array shows {listed}\n" in printed


def test_prove(run, tmp_path):
    needs("flax"), needs("torch")
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--prove", "--json")
    proof = json.loads(printed)["proof"]
    assert code == 0
    assert proof["error"] <= 1e-12  # measured 1e-15
    assert proof["taps"] > 25


def test_a_proof_that_was_asked_for_is_printed_with_quiet_too(run, tmp_path):
    needs("flax"), needs("torch")
    words = ("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--force", "--quiet")
    assert run(*words)[1] == ""
    assert run(*words, "--prove")[1].startswith(
        "proven: the source, run in flax, and the target, run in torch, both in float64, differ by at most "
    )


def test_what_is_proven(run, tmp_path):
    """Between two frameworks, and nothing where the dtype was given up."""
    needs("flax"), needs("torch")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")[0] == 0
    _, printed, _ = run("torch2timm", tmp_path / "x.safetensors", "-o", tmp_path / "y.pth", "--prove")
    assert (
        "proven: the source, run in torch, and the target, run in flax, both in float64, differ by at most" in printed
    )
    condition = "this holds for both sides with gelu=tanh; timm's own code, which was not run, computes gelu=erf\n"
    assert condition in printed
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "z.pt", "--prove", "--dtype", "float16")
    assert code == 0
    assert (
        "measured, not proven, as the dtype changed, and values were lost: "
        "the source, run in flax, and the target, run in torch, both in float64, differ by at most" in printed
    )


def test_nothing_is_proven_of_nans(run, tmp_path):
    needs("flax"), needs("torch")
    source = spoiled(tmp_path, lambda arrays: arrays["head/kernel"].__setitem__((0, 0), np.nan))
    code, _, err = run("google2torch", source, "-o", tmp_path / "x.safetensors", "--prove")
    assert code == 1
    nothing = "not proven: head comes out as NaN or infinity, of which nothing can be proven"
    assert f"{nothing} (NaNs or infinities of the source: 1 in head/kernel): convert without" in err
    assert not (tmp_path / "x.safetensors").exists()
    code, printed, _ = run("google2torch", source, "-o", tmp_path / "x.safetensors", "--prove", "--dtype", "float16")
    assert code == 0 and "both in float64, differ by NaN or infinity (at head, " in printed


def test_a_proof_says_which_modules_return_zeros_alone(run, tmp_path):
    """As those of a head that starts at zero: whatever it reads, both sides agree."""
    needs("torch")

    def empty(arrays):
        arrays["head/kernel"][:], arrays["head/bias"][:] = 0, 0

    code, printed, _ = run("google2torch", spoiled(tmp_path, empty), "-o", tmp_path / "x.safetensors", "--prove")
    zeros = "not tested by this proof: head, output return zeros alone, whatever arrays they read\n"
    assert code == 0 and zeros in printed, printed
    assert "zeros" not in run("google2torch", GOOGLE, "-o", tmp_path / "y.safetensors", "--prove")[1]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (RuntimeError("out of memory\nat 0x12"), 1, "not proven: the source in torch fails at blocks.0.token_mix: "
         "RuntimeError: out of memory; nothing was written"),
        (KeyboardInterrupt(), 130, "convert: interrupted; no partial file was left behind"),
    ],
    ids=["failure", "interrupt"],
)  # fmt: skip
def test_a_proof_that_stops_names_the_layer_and_leaves_nothing(run, tmp_path, monkeypatch, raised, code, said):
    needs("torch")
    from ports.torch.mlp_mixer import Mlp

    def forward(*_):
        raise raised

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(Mlp, "forward", forward)
    status, printed, err = run("timm2torch", TIMM, "-o", tmp_path / "x.safetensors", "--prove")
    assert (status, printed, err.count("\n")) == (code, "", 2), err  # a note on timm's code, and this
    assert said in err
    assert listing(tmp_path) == []
    assert os.environ["JAX_PLATFORMS"] == "cpu"  # jax looks for no GPU, of which it would log a line


def test_without_a_framework_the_arrays_are_proven(run, tmp_path, monkeypatch):
    """And an array that was written wrong is refused."""
    monkeypatch.setattr("ports.frameworks.available", lambda: [])
    code, printed, _ = run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors", "--prove")
    assert code == 0
    assert (
        "proven of the arrays alone: source and target, read in one layout, are equal (42 arrays compared, " in printed
    )
    assert "pip install '.[torch]'" in printed
    about = json.loads(run("google2torch", GOOGLE, "-o", tmp_path / "y.pt", "--prove", "--json")[1])
    assert (about["proof"]["source"], about["proof"]["error"]) == (None, 0.0)
    other = spoiled(tmp_path, lambda arrays: arrays["head/bias"].__iadd__(1))
    assert run("google2torch", other, "-o", tmp_path / "other.pt")[0] == 0
    with convert.plan(GOOGLE, dst="torch") as plan:
        with pytest.raises(ConvertError, match=r"not proven: head.bias differs by .* between source and target"):
            prove(plan, str(tmp_path / "other.pt"))


def test_one_framework_proves_what_it_can(run, tmp_path, monkeypatch):
    needs("torch")
    monkeypatch.setattr("ports.frameworks.available", lambda: ["torch"])
    code, printed, _ = run("google2flax", GOOGLE, "-o", tmp_path / "x.msgpack", "--prove")
    assert code == 0
    why = "no second framework with a port of it is installed: pip install '.[flax]'"
    assert f"proven in torch alone ({why}): source and target" in printed
    assert (
        "each read into torch's port in float64, give the same outputs, exactly (" in printed and "(at" not in printed
    )
    shared = "the lines that read and write google; settings that no array shows (gelu=tanh, norm_eps=1e-6)"
    assert f"not tested by this proof, as both sides share them: {shared}\n" in printed


def test_a_proof_of_narrow_weights_says_what_ran_in_float64(run, tmp_path):
    """The weights are exact there; what a framework computes in their own dtype is not compared."""
    needs("flax"), needs("torch")
    narrow = tmp_path / "narrow.safetensors"
    assert run("google2torch", GOOGLE, "-o", narrow, "--dtype", "bfloat16")[0] == 0
    said = (
        "not tested by this proof: how two frameworks round when they compute in bfloat16, as the weights are stored\n"
    )
    code, printed, _ = run("torch2flax", narrow, "-o", tmp_path / "x.msgpack", "--prove")
    assert code == 0 and printed.splitlines()[1].startswith("proven: the source, run in torch, and the target, run in ")
    assert said in printed
    assert said not in run("google2torch", GOOGLE, "-o", tmp_path / "y.safetensors", "--prove")[1]


def test_outputs_of_other_shapes_are_named_by_their_shapes(run, tmp_path, monkeypatch):
    needs("flax"), needs("torch")
    outputs = iter(({"stem": np.ones((2, 3, 8, 8))}, {"stem": np.ones((2, 3, 16, 16))}))
    monkeypatch.setattr("parity.conversion_proof._outputs", lambda *_: next(outputs))
    code, _, error = run("google2torch", GOOGLE, "-o", tmp_path / "x.pt", "--prove")
    assert code == 1 and listing(tmp_path) == []
    assert "not proven: stem: shapes differ: [2, 3, 8, 8] in flax, [2, 3, 16, 16] in torch; nothing" in error


def test_a_proof_says_that_its_source_is_not_what_was_written(run, tmp_path):
    """Damage and training look alike, and source and target agree in either."""
    needs("torch")
    path = tmp_path / "x.safetensors"
    assert run("google2torch", GOOGLE, "-o", path)[0] == 0
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    code, printed, err = run("torch2google", path, "-o", tmp_path / "x.npz", "--prove", "--image", "24x16")
    assert code == 0 and err.splitlines()[-1].startswith("warning: its record no longer fits the file, whose "), err
    assert "\nthis holds for the source as it is, whose " in printed and " was damaged, or changed as by" in printed


def test_an_interrupted_command_ends_before_a_framework_is_taken_down():
    """Threads of JAX that still compile abort there, and the exit status would be that of SIGABRT."""
    code = (
        "import atexit, os, sys\nfrom convert import __main__ as command\natexit.register(os.abort)\n"
        "command.main = lambda _: print('out') or 130\nsys.exit(command.program([]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "out\n")
