"""Changes of dtype: float8, bfloat16, rounding, and values that a dtype cannot hold."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ports
import specs
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.files.hashing import count_not_finite
from specs.numbers import measured

from .commands import GOOGLE, listing, metadata, spoiled
from .conftest import needs
from .files.samples import store
from .test_routes import write_numbers


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_dtypes(run, tmp_path, dtype):
    out = tmp_path / "x.safetensors"
    assert run("google2torch", GOOGLE, "-o", out, "--dtype", dtype)[0] == 0
    assert {t["dtype"] for t in json.loads(run("inspect", out, "--json")[1])["tensors"].values()} == {dtype}
    unit = {"float64": 0, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]  # half a unit in the last place
    code, printed, _ = run("diff", GOOGLE, out, "--rtol", unit)
    assert code == 0, printed


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_what_torch_says_it_is(dtype):
    needs("torch")
    import torch

    from convert.arrays.casting import NARROW, count_negative

    every = torch.arange(256, dtype=torch.uint8)
    ours = NARROW[dtype](every.numpy().tobytes())
    theirs = every.view(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert count_not_finite(every.numpy().tobytes(), dtype) == np.sum(~np.isfinite(theirs)) > 0
    assert count_negative(every.numpy().tobytes(), dtype) == np.sum(theirs < 0) > 100


def test_float8_weights_travel_as_bits_and_are_proven_as_numbers(run, tmp_path):
    needs("torch"), needs("flax")
    config = next(iter(specs.get("mlp_mixer").tiny.values()))
    write_numbers(tmp_path / "a.safetensors", "mlp_mixer", config, "torch")
    with open_checkpoint(tmp_path / "a.safetensors") as reader:
        tensors = [Tensor(t.name, t.shape, "float8_e4m3fn") for t in reader.tensors.values()]
    rng = np.random.default_rng(0)
    store(tmp_path / "b.safetensors", [(t, [rng.integers(0, 60, t.nbytes, np.uint8).tobytes()]) for t in tensors])
    words = "-o", tmp_path / "c.safetensors", "--prove", "--assume"
    code, printed, _ = run("torch2flax", tmp_path / "b.safetensors", *words)
    assert (code, "proven" in printed) == (0, True)
    wide = tmp_path / "d.safetensors"
    assert run("torch2torch", tmp_path / "b.safetensors", "-o", wide, "--dtype", "float32", "--assume")[0] == 0
    code, printed, _ = run("diff", tmp_path / "c.safetensors", wide, "--assume")
    assert (code, printed.splitlines()[0].partition(";")[0]) == (0, "the same arrays")
    assert load_file(wide)["norm.bias"].dtype == "float32"
    assert ports.load(str(tmp_path / "b.safetensors"), framework="torch", assume=True).dtype == "float32"


def test_bfloat16_rounds_as_torch_does():
    needs("torch")
    import torch

    from convert.arrays.casting import to_bfloat16

    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([values, np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1.00390625, 1.01171875])])
    theirs = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    ours = to_bfloat16(values)
    nan = np.isnan(values)
    assert np.array_equal(ours[~nan], theirs[~nan])
    assert ((ours[nan] & 0x7FFF) > 0x7F80).all()
    double = np.float64(1 + 2**-8) + np.array([-(2.0**-40), 0, 2.0**-40])  # a tie and its neighbours below float32
    assert to_bfloat16(double).tolist() == [0x3F80, 0x3F80, 0x3F81]


def test_values_too_large_for_a_dtype_are_refused(run, tmp_path):
    run("google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")
    arrays = load_file(tmp_path / "x.safetensors")
    arrays["norm.bias"][0] = 1e30
    save_file(arrays, tmp_path / "x.safetensors", metadata=metadata(tmp_path / "x.safetensors"))
    words = "torch2flax", tmp_path / "x.safetensors", "-o", tmp_path / "y.msgpack", "--dtype", "float16"
    code, _, err = run(*words)
    assert code == 1
    assert "params/norm/bias has 1e30, too large for float16 (1 of 20 values)" in err
    assert listing(tmp_path) == ["x.safetensors"]
    code, printed, err = run(*words, "--lossy", "--json")
    about = json.loads(printed)
    assert (code, about["lossy"]["params/norm/bias"]["infinities"], about["not_finite"]) == (0, 1, {})
    assert "note: 1 value became infinite in float16: params/norm/bias" in err


SMALL = {"float16": 1e-9, "float32": 1e-50, "bfloat16": 1e-50}  # zero in each


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt"])
def test_values_lost_to_zero_are_counted_and_refused_where_they_are_many(dtype, suffix, run, tmp_path):
    """From 1 in 20 of a tensor on; fewer are accepted and reported, more with --lossy; the record says so for good."""
    if (suffix, dtype) == ("npz", "bfloat16"):
        suffix = "msgpack"  # numpy has no bfloat16
    arrays = {name: array.astype(np.float64) for name, array in np.load(GOOGLE).items()}
    arrays["stem/kernel"][0, 0, 0, 0] = SMALL[dtype]
    np.savez(tmp_path / "few.npz", **arrays)
    arrays["stem/kernel"][:] = SMALL[dtype]
    np.savez(tmp_path / "all.npz", **arrays)
    out = tmp_path / f"x.{suffix}"
    code, printed, err = run("google2torch", tmp_path / "few.npz", "-o", out, "--dtype", dtype, "--json")
    zeros = {name: lost["zeros"] for name, lost in json.loads(printed)["lossy"].items() if "zeros" in lost}
    assert (code, zeros) == (0, {"stem.weight": 1})
    assert f"note: 1 value became zero in {dtype}: stem.weight\n" in err
    words = "google2torch", tmp_path / "all.npz", "-o", out, "--dtype", dtype, "--force"
    code, printed, err = run(*words)
    total = arrays["stem/kernel"].size
    assert (code, printed) == (1, "")
    assert f"stem.weight loses {total:,} of its {total:,} values that are not zero: they are zero in {dtype}" in err
    assert "keep the source's dtype, or accept it by --lossy" in err
    code, printed, _ = run(*words, "--lossy", "--json")
    assert (code, json.loads(printed)["lossy"]["stem.weight"]) == (0, {"zeros": total})
    lost = f" lost values in 1 array: {total:,} became zero\n"
    assert lost in run("torch2flax", out, "-o", tmp_path / "y.msgpack")[2]
    assert lost in run("flax2torch", tmp_path / "y.msgpack", "-o", tmp_path / "z.pt")[2]  # also of what came from it
    assert lost in run("inspect", tmp_path / "z.pt")[1]


def test_nothing_is_proven_of_values_that_were_lost(run, tmp_path):
    """Paddle spells bfloat16 as uint16: to float16 is a change of dtype all the same."""
    needs("paddle"), needs("flax")
    from convert.arrays.casting import to_bfloat16

    write_numbers(tmp_path / "a.safetensors", "mlp_mixer", next(iter(specs.get("mlp_mixer").tiny.values())), "paddle")
    arrays = {n: to_bfloat16(a * np.float32(1e-12)) for n, a in load_file(tmp_path / "a.safetensors").items()}
    save_file(arrays, tmp_path / "b.safetensors")
    words = "paddle2torch", tmp_path / "b.safetensors", "-o", tmp_path / "c.pt", "--assume", "--prove"
    code, printed, err = run(*words, "--dtype", "float16")
    assert (code, printed) == (1, "")
    assert "values that are not zero: they are zero in float16" in err
    code, printed, _ = run(*words, "--dtype", "float16", "--lossy")
    assert code == 0
    assert "\nmeasured, not proven, as the dtype changed, and values were lost: the source, run in paddle, " in printed
    code, printed, err = run(*words, "--dtype", "float32", "--force")  # which holds every bfloat16
    assert f"uint16, read as the bfloat16 that paddle stores so: all {len(arrays)} arrays\n" in err
    assert (code, "\nproven: the source, run in paddle, and the target, run in torch" in printed) == (0, True)


def test_a_wider_dtype_loses_nothing():
    """Every value of each narrow dtype is one of the wider dtypes, subnormal ones and infinities too."""
    from convert.arrays.casting import NARROW, from_bfloat16, to_bfloat16
    from convert.arrays.dtypes import WIDER, is_exact

    every = {name: widen(np.arange(2**16 if name == "bfloat16" else 256, dtype="u2" if name == "bfloat16" else "u1"))
             for name, widen in NARROW.items()}  # fmt: skip
    every["float16"] = np.arange(2**16, dtype="u2").view("f2")
    for held, values in every.items():
        for dtype in ("float16", "bfloat16", "float32", "float64"):
            with np.errstate(over="ignore", invalid="ignore"):
                cast = from_bfloat16(to_bfloat16(values)) if dtype == "bfloat16" else values.astype(dtype)
                same = np.array_equal(cast.astype("f8"), values.astype("f8"), equal_nan=True)
            assert same == is_exact(held, dtype)
    assert is_exact("float32", "float64") and not is_exact("float64", "float32") and "float64" not in WIDER


def test_mixed_dtypes_compute_in_the_widest(run, tmp_path):
    needs("torch")
    assert run("google2torch", GOOGLE, "-o", tmp_path / "a.safetensors")[0] == 0
    arrays = load_file(tmp_path / "a.safetensors")
    arrays["norm.bias"] = arrays["norm.bias"].astype(np.float64)
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="holds arrays of float32, float64: computed in float64"):
        assert ports.load(str(tmp_path / "a.safetensors"), "torch", gelu="tanh", norm_eps=1e-6, assume=True).dtype == (
            "float64"
        )
    assert [ports.widest(set(held)) for held in (
        ["float16"], ["bfloat16", "float16"], ["float8_e5m2"], ["float8_e5m2", "bfloat16"], ["bfloat16"]
    )] == ["float16", "float32", "float32", "float32", "bfloat16"]  # fmt: skip


def test_a_port_says_what_its_dtype_loses(run, tmp_path):
    needs("torch")
    source = spoiled(tmp_path, lambda arrays: arrays["stem/kernel"].fill(1e-9))
    with pytest.warns(UserWarning, match=r"stem.weight loses .* not zero: they are zero in float16"):
        ports.load(str(source), "torch", dtype="float16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_values_that_lose_precision_below_the_normal_numbers(dtype, run, tmp_path):
    """They are counted and reported; where over 1 in 20 of a tensor is off by over 1/16, it is refused."""
    from convert.arrays.casting import SMALLEST

    step = SMALLEST[dtype] / {"float16": 2**10, "bfloat16": 2**7, "float32": 2**23}[dtype]  # of the subnormal numbers
    arrays = {name: array.astype(np.float64) for name, array in np.load(GOOGLE).items()}
    kernel = arrays["stem/kernel"]
    kernel[:] = SMALLEST[dtype]
    kernel[0, 0, 0, :3] = 3 * step, SMALLEST[dtype] / 2, 64.4 * step  # two exact ones, and one that is off a little
    np.savez(tmp_path / "few.npz", **arrays)
    kernel[:] = 1.4 * step
    np.savez(tmp_path / "all.npz", **arrays)
    out = tmp_path / "x.msgpack"
    words = "google2flax", tmp_path / "few.npz", "-o", out, "--dtype", dtype
    code, printed, err = run(*words, "--json")
    assert (code, json.loads(printed)["lossy"]) == (0, {"params/stem/kernel": {"imprecise": 1}})
    assert f"note: 1 value lost precision (below the smallest normal number) in {dtype}: params/stem/kernel" in err
    words = "google2flax", tmp_path / "all.npz", "-o", out, "--dtype", dtype, "--force"
    code, _, err = run(*words)
    assert (code, f"{kernel.size:,} of its {kernel.size:,} values that are not zero are off by over 1/16" in err) == (
        1,
        True,
    )
    assert f"{measured(1.4 * step)} becomes {measured(step)}" in err
    assert run(*words, "--lossy")[0] == 0
    assert f"{kernel.size:,} lost precision" in run("inspect", out)[1]


def test_a_usual_tensor_in_float16_is_not_refused():
    """One of standard deviation 0.02 has about 1 subnormal value in 400, and hardly a crude one."""
    from convert.arrays.casting import tally

    rng = np.random.default_rng(0)
    usual, small = (tally(rng.normal(0, scale, 10_000).astype("f4"), "float16") for scale in (0.02, 1e-6))
    assert 0 < usual.imprecise < 50 and usual.crude < 10 and not usual.problem("float16")
    assert "is too small" in small.problem("float16")
    assert tally(rng.normal(0, 1, (3, 4)).astype("f4"), "bfloat16").lost() == {}


def test_a_port_says_which_values_lose_precision(tmp_path):
    needs("torch")
    source = spoiled(tmp_path, lambda arrays: arrays["stem/kernel"].fill(8.8e-8))
    with pytest.warns(UserWarning, match=r"stem.weight is too small: .* off by over 1/16 in float16"):
        ports.load(str(source), "torch", dtype="float16")


def test_a_port_counts_a_few_values_that_are_lost_in_one_line(tmp_path):
    """Not one warning an array, whose number of such values is another one each time."""
    needs("torch")

    def spoil(arrays):
        for k, name in enumerate(name for name in arrays if name.endswith("kernel")):
            arrays[name].flat[: k + 1] = 8.8e-8

    with pytest.warns(UserWarning) as warned:
        ports.load(str(spoiled(tmp_path, spoil)), "torch", dtype="float16")
    lines = [str(one.message) for one in warned if "lost precision" in str(one.message)]
    assert len(lines) == 1
    assert re.search(r"\n  - [\d,]+ values lost precision \(below .*\) in float16: .* and \d+ more$", lines[0])


def test_what_a_format_cannot_hold_is_said_of_the_target(run, tmp_path):
    words = ["google2torch", GOOGLE, "-o", tmp_path / "x.npz", "--dtype", "bfloat16"]
    code, _, err = run(*words)
    assert code == 1 and f"{tmp_path / 'x.npz'}: npz cannot hold bfloat16 (" in err, err
    assert not (tmp_path / "x.npz").exists()


def test_what_a_conversion_lost_is_said_after_another_one_by_a_table(run, tmp_path):
    np.savez(tmp_path / "a.npz", w=np.array([[1e5, 1.0]], "f4"))
    (tmp_path / "x.table").write_text("table 1: torch <-> flax\nw: o i <-> kernel: i o\n")
    words = ["--table", tmp_path / "x.table"]
    assert run(*words, tmp_path / "a.npz", "-o", tmp_path / "b.npz", "--dtype", "float16", "--lossy")[0] == 0
    said = "says that a conversion to float16 lost values in 1 array: 1 became infinite\n"
    code, _, err = run(*words, "--reverse", tmp_path / "b.npz", "-o", tmp_path / "c.npz", "--dtype", "float32")
    assert code == 0 and f"note: {tmp_path / 'b.npz.json'} {said}" in err, err
    assert f"note:         {tmp_path / 'c.npz.json'} {said}" in run("inspect", tmp_path / "c.npz")[1]
