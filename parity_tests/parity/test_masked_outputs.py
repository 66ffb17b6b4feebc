"""What a mask fills in is no measure of the other values, and integers have to be equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.judging.judge import Subject, judge
from parity.report import Report
from parity.running.recording import Recording

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((4, 6))


class Masked(torch.nn.Module):
    """Returns logits with minus infinity where a mask forbids them, as language models do, or with another fill."""

    def __init__(self, shift: float = 0.0, fill: float = -torch.inf) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.shift, self.fill = torch.nn.Linear(6, 3), shift, fill

    def forward(self, x: Any) -> Any:
        mask = torch.tensor([[0.0, 0.0, self.fill or torch.finfo(x.dtype).min]], dtype=x.dtype)
        return self.fc(x) + mask + self.shift


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal_infinities_are_reported_and_hide_no_difference(dtype: str) -> None:
    same = parity.compare({"a": Masked(), "b": Masked()}, X, dtype=dtype)
    assert same.passed, str(same)
    assert "'output' have infinities in both" in same.results[0].cause
    assert not parity.compare({"a": Masked(), "b": Masked(1e-3)}, X, dtype=dtype).passed


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", ["forward", "layers"])
@pytest.mark.parametrize("fill", [-1e6, -1e9, -1e20, float(np.finfo("f4").min), 0.0], ids=str)  # 0: of the dtype itself
def test_the_fill_of_a_mask_is_no_measure_of_the_other_values(fill: float, check: str, dtype: str) -> None:
    same = parity.compare({"a": Masked(0, fill), "b": Masked(0, fill)}, X, check, dtype=dtype)
    assert same.passed and same.results[0].tolerance is not None and same.results[0].tolerance < 1e-4, str(same)
    assert "'output' have " in same.results[0].cause and "in both, as of a mask: errors are" in same.results[0].cause
    assert "amplify" not in same.results[0].cause
    assert not parity.compare({"a": Masked(0, fill), "b": Masked(1e-3, fill)}, X, check, dtype=dtype).passed
    assert not parity.compare({"a": Masked(0, fill), "b": Masked(0, -1e12)}, X, check, dtype=dtype).passed


class Counted(torch.nn.Module):
    """Returns integers: what is computed, rounded, and a number."""

    def __init__(self, number: int = 0, kind: str = "int64") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.number, self.kind = torch.nn.Linear(6, 3), number, getattr(torch, kind)

    def forward(self, x: Any) -> Any:
        return self.number + (self.fc(x) * 90).round().abs().to(self.kind)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(("number", "kind"), [(0, "uint8"), (2**24, "int32"), (2**61, "int64")])
def test_integers_have_to_be_equal(number: int, kind: str, dtype: str) -> None:
    same = parity.compare({"a": Counted(number, kind), "b": Counted(number, kind)}, X, dtype=dtype)
    assert same.passed, str(same)
    off = parity.compare({"a": Counted(number, kind), "b": Counted(number + 1, kind)}, X, dtype=dtype)
    assert off.results[0].passed is False, str(off)


def test_large_values_that_differ_from_one_another_are_no_fill() -> None:
    large = 1e7 * np.arange(1, 5)
    a, b = (
        Recording(label, "torch", "float64", "cpu", {"output": np.append(large, 1 + k)})
        for k, label in ((0, "a"), (1e-6, "b"))
    )
    (result,) = judge(Subject("own", "own", "forward", "float64", "cpu"), [a, b])
    assert result.passed and "mask" not in result.cause  # 1e-6 is rounding beside 4e7
    b.arrays["output"][:4] = a.arrays["output"][:4] = 1e7
    assert not judge(Subject("own", "own", "forward", "float64", "cpu"), [a, b])[0].passed


def test_an_array_of_infinities_alone_proves_nothing() -> None:
    arrays = [Recording(label, "torch", "float64", "cpu", {"output": np.full(3, np.inf)}) for label in "ab"]
    assert not Report(judge(Subject("own", "own", "forward", "float64", "cpu"), arrays)).passed


@pytest.mark.parametrize("check", ["forward", "layers"])
def test_complex_numbers_that_torch_has_not_conjugated_yet_are_compared(check: str) -> None:
    class Spectrum(torch.nn.Module):
        def __init__(self, conjugated: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.conjugated = torch.nn.Linear(6, 3), conjugated

        def forward(self, x: Any) -> Any:
            y = torch.fft.fft(self.fc(x))
            return y.conj() if self.conjugated else y

    assert parity.compare({"a": Spectrum(True), "b": Spectrum(True)}, X, check).passed
    assert parity.compare({"a": Spectrum(True), "b": Spectrum(False)}, X, check).passed is False
