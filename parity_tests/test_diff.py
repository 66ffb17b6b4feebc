"""diff: whether two files are shown to be the same model, and how they differ."""

import json
import re
import shlex
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import terminal
from convert.config.settings import setting
from convert.diff import text
from convert.diff.array_differences import EXACT, entry, own_position
from convert.diff.arrays import by_names
from convert.diff.compare import COMMON
from convert.diff.text import assumptions
from convert.files import open_checkpoint
from convert.files.base import Tensor
from specs.applied.arrays import take
from specs.applied.moves import Move
from specs.config import tuples
from specs.kinds import KINDS
from specs.numbers import apart

from .commands import GOOGLE, TIMM, metadata


def test_a_file_without_parts_is_taken_whole_beside_one_with_parts(run, tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    np.savez(tmp_path / "b.npz", **{"optimizer/w": np.ones(3), "model/v": np.ones(2)})
    words = ("diff", tmp_path / "a.npz", tmp_path / "b.npz", "--weights")
    code, _, err = run(*words, "optimizer")
    assert (
        code == 2 and "its arrays are in no part, and --weights / is all of it, where another file needs a part" in err
    )
    assert run(*words, "/", "--weights", "optimizer")[0] == 0


def as_timm(run, folder):
    """Convert Google's file into ours and timm's dialects; return the latter."""
    assert run("google2torch", GOOGLE, "-o", folder / "ours.safetensors")[0] == 0
    assert run("google2timm", GOOGLE, "-o", folder / "timm.safetensors")[0] == 0
    return folder / "timm.safetensors"


def test_diff_shows_shapes_as_the_first_file_stores_them(run, tmp_path):
    """Whatever the layout of the second file: positions are in the first one's, too."""
    timm = load_file(as_timm(run, tmp_path))
    kernel = timm["stem.proj.weight"]
    o, i, h, w = kernel.shape
    save_file({**timm, "stem.proj.weight": np.ascontiguousarray(kernel[..., 1:])}, cut := tmp_path / "cut.safetensors")
    for a, b, one, two in (
        (GOOGLE, cut, [h, w, i, o], [h, w - 1, i, o]), (cut, GOOGLE, [o, i, h, w - 1], [o, i, h, w])
    ):  # fmt: skip
        code, printed, _ = run("diff", a, b, "--weights", "/")
        assert code == 1 and f"  {one}  {two}  stem" in re.sub(" {3,}", "  ", printed), printed
        assert "\nshapes: in the layout of A's file (B's shapes are brought into it)\n" in printed


def test_positions_in_two_files_of_one_layout_are_in_no_other(run, tmp_path):
    arrays = load_file(as_timm(run, tmp_path))
    save_file({**arrays, "head.bias": arrays["head.bias"] + 1}, other := tmp_path / "other.safetensors")
    code, printed, _ = run("diff", tmp_path / "timm.safetensors", other)
    assert code == 1 and " at [" in printed and "layout" not in printed
    kernel = {**arrays, "stem.proj.weight": arrays["stem.proj.weight"] + 1}
    save_file(kernel, other)
    printed = run("diff", GOOGLE, other)[1]
    assert "\npositions: in the layout of A's file\n" in printed


def test_the_verdict_comes_before_the_notes(run, tmp_path):
    """On one terminal, too, where both streams go."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    model = {name: torch.from_numpy(array) for name, array in load_file(as_timm(run, tmp_path)).items()}
    for name, epoch in (("a", 3), ("b", 4)):
        state = {"model": model, "epoch": epoch, "best": 0.5, "run": "first"}
        torch.save(state, tmp_path / f"{name}.pt")
    words = [sys.executable, "-m", "convert", "diff", tmp_path / "a.pt", tmp_path / "b.pt"]
    lines = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("note: "))
    assert lines[0] == "the same model" and lines[first - 1].endswith("every element equal")
    assert lines[first:][-2:] == [
        "note: plain values that agree: best=0.5; run=first", "note: plain values that differ: epoch is 3 in A, 4 in B"
    ]  # fmt: skip
    assert not any("plain numbers" in line for line in lines)


def test_diff_explains_the_error_of_a_row_of_nan(run, tmp_path):
    save_file({"a": np.ones(2, "float32")}, one := tmp_path / "one.safetensors")
    save_file({"a": np.full(2, np.nan, "float32")}, two := tmp_path / "two.safetensors")
    code, printed, _ = run("diff", one, two)
    assert code == 1 and "\nerror: the largest difference, relative to the largest finite element" in printed


def test_diff_says_the_same_model_but_for_a_head_set_aside(run, tmp_path):
    """A head beside a headless model is not compared, and the verdict says so."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    arrays = torch.load(TIMM, weights_only=True)
    body = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    torch.save(body, tmp_path / "a.pt")
    torch.save({"state_dict": body, "head.weight": arrays["head.weight"]}, tmp_path / "b.pt")
    code, printed, err = run("diff", tmp_path / "a.pt", tmp_path / "b.pt")
    assert (code, printed.splitlines()[0]) == (0, "the same model, except what is set aside")
    assert "head.weight" in err


def test_diff_tells_the_tensor_and_the_error(run, tmp_path):
    for name in "ab":
        assert run("google2torch", GOOGLE, "-o", tmp_path / f"{name}.safetensors")[0] == 0
    told = json.loads(run("diff", GOOGLE, tmp_path / "a.safetensors", "--json")[1])
    assert told == {"same": True, "verdict": "the same model", "assumed": [], "differences": [], "notes": []}
    arrays = load_file(tmp_path / "b.safetensors")
    arrays["norm.bias"][3] += 0.5
    save_file(arrays, tmp_path / "b.safetensors", metadata=metadata(tmp_path / "a.safetensors"))
    code, printed, _ = run("diff", GOOGLE, tmp_path / "b.safetensors", "--json")
    told = json.loads(printed)
    assert code == 1
    assert not told["same"]
    [difference] = told["differences"]
    assert (difference["tensor"], difference["kind"]) == ("norm.bias", "value")
    assert (difference["a"], difference["b"]) == (["pre_head_layer_norm/bias"], ["norm.bias"])
    assert (difference["differing"], difference["elements"]) == (1, 20)
    both = [load_file(tmp_path / f"{name}.safetensors")["norm.bias"] for name in "ab"]
    assert difference["error"] == pytest.approx(0.5 / np.abs(both).max())
    legend = [line.partition(":")[0] for line in run("diff", GOOGLE, tmp_path / "b.safetensors")[1].splitlines()[7:-1]]
    assert legend == ["error", "names", "positions"]  # one row needs no order
    assert run("verify", tmp_path / "b.safetensors")[0] == 1
    code, printed, _ = run("diff", GOOGLE, TIMM)
    assert code == 1
    verdict, a, b, _, head, *rows, last = printed.splitlines()
    assert (a, b) == (f"A: {GOOGLE}", f"B: {TIMM}")
    assert re.split(" {2,}", head)[1:] == ["setting", "in A", "in B"]
    assert re.split(" {2,}", rows[0])[1:] == [
        "gelu",
        "tanh (assumed: google's own code)",
        "erf (assumed: timm's own code)",
    ]
    assert "  [20]           [25]           MixerBlock_{0..2}/LayerNorm_{0..1}/scale" in rows  # folded, by A's own name
    (bias,) = (row.split() for row in rows if "  head/bias:" in row)
    assert bias[1:5] == ["7", "of", "7", "head/bias:"] and [word[:2] for word in bias[5:]] == ["A=", "B=", "at", "[5"]
    assert verdict == "different: 1 setting, the shape of 29 arrays and the values of 13 arrays"
    assert last == "42 arrays compared, all 42 differ"
    assert "\norder: largest error first\n" in printed  # no array there is rounding alone


def test_an_error_does_not_depend_on_the_order_of_the_files(run, tmp_path):
    """Also where one array is 0: relative to that alone, any difference would be infinite, or be absolute."""
    zeros, others = {"x": np.zeros(4, "f4")}, {"x": np.array([0, 1e-3, 0, 8e-3], "f4")}
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(zeros, a)
    save_file(others, b)
    for pair in ((a, b), (b, a)):
        (found,) = json.loads(run("diff", *pair, "--json")[1])["differences"]
        assert (found["error"], found["largest"]) == (1, pytest.approx(8e-3))
        assert [run("diff", *pair, "--rtol", rtol)[0] for rtol in ("0.5", "1")] == [1, 0]
    for path, value in ((a, 1e308), (b, -1e308)):  # the difference and its limit are both beyond float64
        save_file({"x": np.array([value])}, path)
    code, printed, err = run("diff", a, b, "--rtol", "1.9")
    assert (code, err) == (1, "") and "  not finite    1 of 1  x: A=1e308, B=-1e308 at [0]" in printed


def test_a_part_of_a_file_is_compared_by_its_names(run, tmp_path):
    """Names such as those of any nn.Sequential are no evidence of convmixer, whose official ones are."""
    arrays = {name: np.ones(2, "f4") for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    save_file(arrays, tmp_path / "a.safetensors")
    save_file({"0.weight": arrays["0.weight"]}, tmp_path / "b.safetensors")
    code, printed, _ = run("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (code, printed.splitlines()[0]) == (1, "different: 3 arrays only in A")
    code, printed, _ = run("inspect", tmp_path / "a.safetensors")
    assert code == 0 and "convmixer" not in printed and "docs/own-model.md" in printed


def test_nans_and_infinities_that_both_hold_are_the_same(run, tmp_path):
    """And a number against one of them differs by no number: JSON has none for it."""
    arrays = dict(np.load(GOOGLE))
    arrays["head/bias"][:3] = np.nan, np.inf, 1.0
    np.savez(tmp_path / "a.npz", **arrays)
    arrays["head/bias"][2] += 1e-6
    np.savez(tmp_path / "b.npz", **arrays)
    arrays["head/bias"][0] = 2.0
    np.savez(tmp_path / "c.npz", **arrays)
    a, b, c = (tmp_path / f"{name}.npz" for name in "abc")
    code, printed, err = run("diff", a, a)
    assert (code, printed) == (0, f"the same model\nA: {a}\nB: {a}\n42 arrays compared, every element equal\n")
    assert err == "note: both have NaN at the same place, which counts as equal: head/bias\n"
    code, printed, _ = run("diff", a, b, "--rtol", "1e-5")
    assert (code, printed.splitlines()) == (
        0, ["the same model, within a relative difference of 1e-5", f"A: {a}", f"B: {b}",
            "42 arrays compared, 1 differs by at most 9.5e-7, within 1e-5 (head/bias)"],
    )  # fmt: skip
    printed = run("diff", a, a, "--rtol", "1e-5")[1]
    assert printed.endswith("\n42 arrays compared, every element equal\n")
    lasts = [
        run("diff", *pair, *options)[1].splitlines()[-1].removeprefix("42 arrays compared, 1 differs")
        for pair in ((a, b), (a, c))
        for options in ((), ("--rtol", "1e-9"), ("--rtol", "1e-9", "--atol", "1e-9"))
    ]
    assert lasts == ["", " by more than 1e-9", " by more than 1e-9 and --atol 1e-9", "", "", ""]  # NaN has no number
    (entry,) = json.loads(run("diff", a, b, "--json")[1])["differences"]
    assert entry["error"] == pytest.approx(1e-6, rel=0.1)  # of 1, the largest number there
    printed = run("diff", a, c, "--json")[1]
    (entry,) = json.loads(printed, parse_constant=pytest.fail)["differences"]  # strict: no bare NaN or Infinity
    assert (entry["error"], entry["detail"]) == (None, "at [0]: NaN and 2")
    assert "    NaN  " in run("diff", a, c)[1] and "A=NaN, B=2 at [0]" in run("diff", a, c)[1]
    assert [run("diff", a, a, "--rtol", rtol)[0] for rtol in ("-1", "nan", "inf")] == [2, 2, 2]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_large_integers_are_compared_exactly(run, tmp_path, dtype):
    """As float64, 2**60 and 2**60 + 1 are one number."""
    a, b = (np.array([5, 2**60 + step], dtype) for step in (0, 1))
    save_file({"steps": a}, tmp_path / "a.safetensors")
    save_file({"steps": b}, tmp_path / "b.safetensors")
    code, printed, _ = run("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--json")
    (found,) = json.loads(printed)["differences"]
    assert code == 1 and found["differing"] == 1
    assert found["detail"] == f"at [1]: {2**60} and {2**60 + 1}"


BIG = 1 << 53  # the next integer is no float64


@pytest.mark.parametrize(
    ("a", "b", "shown"),
    [
        (np.int64(BIG + 1), np.float64(BIG), f"{BIG + 1} and {BIG}"),
        (np.float64(BIG), np.uint64(BIG + 1), f"{BIG} and {BIG + 1}"),
        (np.int64(-BIG - 1), np.float64(-BIG), f"{-BIG - 1} and {-BIG}"),
        (np.int64(2**63 - 1), np.float64(2.0**63), f"{2**63 - 1} and {2**63}"),
        (np.uint64(2**64 - 1), np.float64(2.0**64), f"{2**64 - 1} and {2**64}"),
        (np.int64(BIG + 1), np.uint64(BIG), f"{BIG + 1} and {BIG}"),
        (np.int64(2**24 + 1), np.float32(2**24), f"{2**24 + 1} and {2**24}"),
        (np.int64(-1), np.float64(-1 + 2**-53), "-1 and -0.9999999999999999"),
        (np.int64(-1), np.uint64(2**64 - 1), f"-1 and {2**64 - 1}"),
        (np.int64(3), np.float64(np.nan), "3 and NaN"),
        (np.int64(-(2**63)), np.int64(2**63 - 1), f"{-(2**63)} and {2**63 - 1}"),
        (np.int64(BIG + 1), np.complex128(BIG), ""),
    ],
)
def test_integers_are_compared_exactly_with_numbers_of_other_dtypes(run, tmp_path, a, b, shown):
    """Also by --rtol 0; a number equals itself in every dtype that holds it."""
    one, other, same = (tmp_path / f"{name}.npz" for name in ("one", "other", "same"))
    np.savez(one, w=np.array([1, a], a.dtype))
    np.savez(other, w=np.array([1, b], b.dtype))
    code, printed, _ = run("diff", one, other, "--json")
    (found,) = json.loads(printed)["differences"]
    assert (code, found["differing"], found["elements"]) == (1, 1, 2)
    assert found["detail"].startswith(f"at [1]: {shown}")
    wide = np.longdouble(int(a))
    for dtype in ("int64", "uint64", "float64", "float32"):
        with np.errstate(invalid="ignore"):
            held = np.array(int(a) if int(a) >= 0 or dtype != "uint64" else 0).astype(dtype)
        if np.longdouble(held) == wide:
            np.savez(same, w=np.array([1, held], dtype))
            assert run("diff", one, same)[0] == 0


def test_dtypes_that_differ_are_noted(tmp_path):
    """Their values are compared, equal or not; one note for each pair of dtypes."""
    one, other = (str(tmp_path / f"{name}.safetensors") for name in ("one", "other"))
    arrays = {name: np.ones(2, "float32") for name in ("same", "halved", "wide", "wider")}
    save_file(arrays, one)
    save_file(
        {name: x.astype({"h": "float16", "w": "float64"}.get(name[0], x.dtype)) for name, x in arrays.items()}, other
    )
    same, notes = by_names(one, other, EXACT)
    assert same.entries == []
    assert notes == [
        "dtypes differ, float32 in A and float16 in B (values were compared): halved",
        "dtypes differ, float32 in A and float64 in B (values were compared): wide and 1 more",
    ]
    assert by_names(one, one, EXACT)[1] == []


def test_arrays_of_the_same_sizes_and_other_names_lead_to_a_table(tmp_path):
    one, turned, other = (str(tmp_path / f"{name}.safetensors") for name in ("one", "turned", "other"))
    for path, name, shape in ((one, "weight", (2, 3)), (turned, "kernel", (3, 2)), (other, "kernel", (6,))):
        save_file({f"fc.{name}": np.zeros(shape), **{f"block.{k}": np.zeros(2) for k in range(3)}}, path)
    said = [by_names(one, path, EXACT)[1] for path in (turned, other)]
    assert ["compares them by a Table of both names" in note for note in said[0]] == [True]
    assert said[1] == []


def test_arrays_are_compared_block_by_block(tmp_path):
    """What differs is the same wherever blocks end, and memory does not grow with the arrays."""
    one = np.arange(1 << 21, dtype="float32").reshape(2, -1)
    one[0, 5] = np.nan
    other = one.copy()
    save_file({"x": one}, tmp_path / "one.safetensors")
    save_file({"x": other}, tmp_path / "same.safetensors")
    other[1, 70_000] += 4
    other[1, 70_001] -= 2
    save_file({"x": other}, tmp_path / "other.safetensors")
    tracemalloc.start()
    both = "both have NaN at the same place, which counts as equal: x"
    same, notes = by_names(str(tmp_path / "one.safetensors"), str(tmp_path / "same.safetensors"), EXACT)
    assert (same.entries, notes, same.compared) == ([], [both], 1)
    ((found,), *_), _ = by_names(str(tmp_path / "one.safetensors"), str(tmp_path / "other.safetensors"), EXACT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = float(one[1, -1])
    assert found["detail"] == f"at [1, 70000]: {' and '.join(apart(one[1, 70_000], other[1, 70_000]))}"
    assert found["error"] == (other[1, 70_000] - one[1, 70_000]) / largest
    assert (found["differing"], found["elements"]) == (2, one.size)
    assert peak < one.nbytes


@pytest.mark.parametrize("columns", [60, 80])
def test_a_table_fits_a_narrow_terminal(monkeypatch, columns):
    """The columns stay aligned below a long name, and what does not fit is wrapped within the last column."""
    monkeypatch.setattr(terminal, "columns", lambda _: columns)
    names = ["encoder.layers.0.attention.self.query.weight_and_more", "head.bias"]
    entries = [
        entry(
            name,
            "value",
            1.5,
            "at [1, 2]: -0.792424738 and 1.41620862, float32 and float64",
            differing=1000,
            elements=1728,
            a=[name],
        )
        for name in names
    ]
    lines = text.rows(entries)
    assert all(len(line) <= columns for line in lines)
    if columns == 80:  # which the long name fits
        start = lines[0].index("array")
        assert {line[:start].strip() for line in lines[1:]} == {"", "1.5  1,000 of 1,728"}
    rest = "A=-0.792424738, B=1.41620862, float32 and float64 at [1, 2]"
    numbers = "1.5 1,000 of 1,728"
    assert " ".join(lines[1:]).split() == f"{numbers} {names[0]}: {rest} {numbers} {names[1]}: {rest}".split()


def test_the_worst_row_comes_first_and_rounding_of_zeros_last():
    """A bias ahead of a norm is 1e-11 in theory 0: its error of 0.2 says nothing; a weight that became 0 does.

    Nor does it share a row with a bias of usual values, whose name differs from its own in the number alone.
    """
    cells = [
        ("bias1", 0.2, 1e-11),
        ("bias2", 1e-12, 0.5),
        ("grown", 1.0, 0.5),
        ("odd", None, 1.0),
        ("big", 1e-3, 4.0),
    ]
    entries = [
        entry(name, "value", error, "", differing=1, elements=2, largest=size, a=[name]) for name, error, size in cells
    ]
    names = [re.search(r"(\w+):", line)[1] for line in text.rows(entries)[1:]]
    assert names == ["odd", "grown", "big", "bias2", "bias1"]
    assert [line.split()[4] for line in text.rows(entries[:1])[1:]] == ["bias1:"]
    assert text.order(entries).startswith("order: largest error first, but arrays of tiny values last")
    assert text.order(entries[1:]) == "order: largest error first"


def test_weights_beside_integers_that_differ_are_not_called_tiny(run, tmp_path):
    """The key of a random generator of jax is larger than any weight."""
    weights = np.linspace(-0.1, 0.1, 64, dtype="f4")
    np.savez(tmp_path / "a.npz", w=weights, rng=np.array([0, 42], "u4"))
    np.savez(tmp_path / "b.npz", w=weights + np.float32(0.05), rng=np.array([0, 3131901031], "u4"))
    code, printed, _ = run("diff", tmp_path / "a.npz", tmp_path / "b.npz")
    assert code == 1 and "2 arrays compared, all 2 differ" in printed and "tiny" not in printed, printed


def test_the_one_part_with_the_other_files_names_is_taken(run, tmp_path):
    """Of a file of training state; two such parts leave the choice open."""
    weights = {f"enc.{k}.w": np.full(3, k) for k in range(4)}
    nested = {f"model/{name}": array for name, array in weights.items()}
    state = {f"optimizer/{name}/mu": array for name, array in weights.items()}
    for name, arrays in (("plain", weights), ("full", nested | state), ("alone", nested)):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    plain, full, alone = (tmp_path / f"{name}.npz" for name in ("plain", "full", "alone"))
    for pair in ((plain, full), (full, plain)):
        code, printed, err = run("diff", *pair)
        assert code == 0 and "4 arrays compared, every element equal" in printed, printed + err
        assert "took the arrays under 'model/' and set aside optimizer/ (4 arrays)" in err
    code, _, err = run("diff", plain, alone)
    assert code == 0 and err == f"note: {alone}: took the arrays under 'model/'\n"
    copy = {f"ema/{name}": array for name, array in weights.items()}
    np.savez(full, **nested, **copy)
    code, _, err = run("diff", plain, full)
    assert code == 1 and "parts of them have the same names" in err, err
    np.savez(
        plain,
        **{f"params/{name}": array for name, array in weights.items()},
        **{f"mu/{n}": a for n, a in weights.items()},
    )
    code, _, err = run("diff", plain, full)
    assert code == 1 and f"diff --weights params --weights model {plain} {full} compares these" in err, err


def test_a_file_that_lacks_an_array_of_its_architecture_is_compared_by_names(run, tmp_path):
    arrays = dict(np.load(GOOGLE))
    arrays.pop("head/bias")
    np.savez(tmp_path / "less.npz", **arrays)
    code, printed, err = run("diff", GOOGLE, tmp_path / "less.npz")
    assert code == 1 and printed.startswith("different: 1 array only in A\n"), printed
    assert printed.endswith("41 arrays compared, every element equal, 1 more only in A\n")
    assert f"note: compared by names alone: {tmp_path / 'less.npz'}: does not hold the google arrays of this" in err
    code, _, err = run("diff", TIMM, tmp_path / "less.npz")  # no names in common
    assert code == 1 and err.startswith("python -m convert: ") and "missing head/bias" in err, err


def test_positions_are_those_of_the_first_file(run):
    """The axes of its own arrays are in another order than the hub's: flax's convolutions, torch's dense layers."""
    for a, b in ((TIMM, GOOGLE), (GOOGLE, TIMM)):
        code, printed, _ = run("diff", a, b, "--json")
        found = [one for one in json.loads(printed)["differences"] if one["kind"] == "value" and len(one["a"]) == 1]
        assert code == 1 and len(found) > 10
        with open_checkpoint(a) as reader:
            for one in found:
                tensor = reader.tensors[one["a"][0]]
                array = np.frombuffer(bytes(reader.read(tensor.name)), tensor.dtype).reshape(tensor.shape)
                index, value = re.match(r"at (\[.*?\]): (\S+) and", one["detail"]).groups()
                assert float(value) == pytest.approx(float(array[tuple(json.loads(index))]), rel=1e-2), one
        assert (
            "\nshapes and positions: in the layout of A's file (B's shapes are brought into it)\n"
            in run("diff", a, b)[1]
        )


def test_every_position_is_found_behind_a_move():
    """A window read backwards, single indices, listed ones, and a cycle of three axes, which is not its own inverse."""
    x = np.arange(2 * 3 * 4 * 5).reshape(6, 20)
    whole = slice(None)
    moves = [
        Move("x", (2, 3, 4, 5), (1, whole, whole, slice(4, 0, -1)), (2, 0, 1), (2, 4, 3, 4), (0, *[whole] * 3)),
        Move("x", (2, 3, 4, 5), (0, (2, 0, 1), whole, slice(1, 5)), (1, 2, 0), (2, 4, 4, 3), (1, *[whole] * 3)),
    ]
    for move in moves:
        side = SimpleNamespace(sources={"x": Tensor("x", x.shape, "int64")})
        target = np.full(move.target_atoms, -1)
        target[move.place] = take(x.reshape(move.source_atoms), move.select).transpose(move.order)
        for at, value in enumerate(target.ravel()):
            found = own_position(side, (Tensor("y", target.shape, "int64"), [move]), at)
            assert found is None if value < 0 else x[tuple(found)] == value


def test_axes_of_the_common_layout_are_said_as_they_are():
    layout = "(outputs, inputs, height, width) of convolutions, (inputs, outputs) of dense layers"
    assert f"a common layout: {layout}" == COMMON
    assert [KINDS[kind].axes["kernel"] for kind in ("conv", "dense")] == ["o i h w", "i o"]


def test_a_remedy_can_be_pasted():
    """A setting of several numbers is spelled as the command line takes it."""
    values = {"act": "gelu", "coefs": [1.0, 0.5], "blocks": [[11, 6, 1], [13, 8, 2]], "depths": [3]}
    rows = [{"field": name, "value": value, "file": "b", "from": "a"} for name, value in values.items()]
    (line,) = assumptions(rows)
    command = line.partition("(")[2].rpartition(" state them)")[0]
    words = shlex.split(command)
    assert words[::2] == ["--set"] * len(values)
    assert dict(map(setting, words[1::2])) == {name: tuples(value) for name, value in values.items()}
    assert "--set coefs=1.0,0.5 " in line
