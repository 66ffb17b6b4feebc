"""A derivation runs both models dozens of times: what it does for all these runs at once."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import parity
from parity import Call
from parity.derive.match.operations import SINGLE, mixing
from parity.derive.prove import trial
from parity.derive.prove.translated import TranslatedWeights
from parity.derive.trace import caches, draws
from parity.derive.trace.program import Program, Refused
from parity.derive.trace.sides import side
from parity.derive.trace.tape import Node, Tape
from specs.covering import proof

from ..conftest import needs
from .pairs import images


def test_a_table_is_laid_out_once_for_the_shapes_that_it_was_derived_from(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    import torch

    translated, laid_out, lay_out = [], [], proof.lay_out

    def weights(table: Any, *arguments: Any) -> TranslatedWeights:
        translated.append(table)
        return TranslatedWeights(table, *arguments)

    def layout(table: Any, shapes: Any, like: Any, sizes: Any) -> Any:
        laid_out.append((table, like))
        return lay_out(table, shapes, like, sizes)

    monkeypatch.setattr(trial, "TranslatedWeights", weights)
    monkeypatch.setattr(proof, "lay_out", layout)
    assert parity.derive(torch.nn.Linear(6, 5), torch.nn.Linear(6, 5), (images(3, 6),)).proven
    assert len(translated) > 5 and all(table is translated[0] for table in translated)
    assert sum(table is translated[0] and like is not None for table, like in laid_out) == 1


def test_weights_are_drawn_once_for_both_models_and_all_runs_of_a_check(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    import torch

    drawn, draw = Counter[int](), draws.Drawn.__init__
    monkeypatch.setattr(
        draws.Drawn, "__init__", lambda of, a, seed, factor=1.0: (drawn.update([seed]), draw(of, a, seed, factor))[1]
    )
    monkeypatch.setattr(trial, "draw", None)  # not called where no arrays are asked for
    assert parity.derive(torch.nn.Linear(6, 5), torch.nn.Linear(6, 5), (images(3, 6),)).proven
    assert len(drawn) > 3 and set(drawn.values()) == {1, 2}, drawn  # two checks share a seed, with others between them


def test_weights_that_are_stored_cannot_be_changed_and_those_of_large_models_are_not(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    import torch

    model = side(torch.nn.Linear(6, 5), Call(images(3, 6)))
    weights = draws.drawn(model, 1)
    assert not any(array.flags.writeable for array in weights.values())
    monkeypatch.setattr(draws, "STORED_DRAWS", 35 * 8)
    again = draws.drawn(model, 1)
    assert again["weight"] is not again["weight"] and weights["weight"] is weights["weight"]
    assert np.array_equal(again["weight"], weights["weight"])


def test_inputs_of_other_shapes_run_on_a_tape_but_16_bits_are_compiled(monkeypatch: pytest.MonkeyPatch):
    needs("flax")
    import jax.numpy as jnp

    from parity.derive.trace import jax_tape

    def dense(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["w"]).mean(0)

    def rounded(dtype: str) -> Any:
        return lambda p, x: dense(p, x.astype(dtype))

    compiled = list[Any]()
    monkeypatch.setattr(jax_tape.JaxSide, "_compiled", lambda *arguments: compiled.append(arguments) or [])

    def run(function: Any, *shape: int) -> tuple[list[Any], int]:
        """Run a function that was recorded with shape (3, 4); tell how often a program was compiled, too."""
        of = side((function, weights), Call(images(3, 4)))
        of.record(weights, of.call.arrays())
        compiled.clear()
        return of.run(weights, dict.fromkeys(of.call.arrays(), images(*shape))), len(compiled)

    weights = {"w": images(4, 2)}
    for function in (dense, rounded("float32")):
        (outputs,), count = run(function, 5, 4)
        assert count == 0 and np.allclose(outputs, np.tanh(images(5, 4) @ weights["w"]).mean(0), rtol=1e-14, atol=0)
    assert run(dense, 3, 4) == run(rounded("bfloat16"), 5, 4) == ([], 1)

    def refuses(*_: Any) -> None:
        raise Refused

    monkeypatch.setattr(jax_tape, "Program", refuses)
    assert run(dense, 5, 4) == ([], 1)


def test_what_an_operation_mixes_is_computed_once_for_all_tapes_with_the_same_constants():
    runs = []

    def run(x: Any, weight: Any) -> Any:
        runs.append(weight)
        return x * weight + x.sum(-1, keepdims=True) * (weight == 0)

    def mixed(weight: Any) -> tuple[int | None, bool]:
        node = Node("other", (0, 1), 2, run, "")
        program = Program(Tape([node], inputs=[0], constants={1: weight}, outputs=[2], size=3), {}, [images(2, 3)])
        before = len(runs)
        return mixing(program, node, 0), len(runs) > before

    zero, one = np.zeros(1), np.ones(1)
    expected = [(1, True), (SINGLE, True), (1, False), (SINGLE, False)]
    assert [mixed(weight) for weight in (zero, one, zero, one)] == expected


def test_the_heap_is_trimmed_for_a_fiftieth_of_the_time_or_when_asked(monkeypatch: pytest.MonkeyPatch):
    """Not after each run: to walk the heap of a large process takes milliseconds."""
    now, trimmed = [1.0], list[float]()

    def trim(_: int) -> None:
        now[0] += 1  # it takes a second
        trimmed.append(now[0])

    monkeypatch.setattr(caches.ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trim))
    monkeypatch.setattr(caches, "_next", 0.0)
    monkeypatch.setattr(caches.time, "process_time", lambda: now[0])
    for after, asked, times in (
        (0, False, 1),
        (1, False, 1),
        (0, True, 2),
        (caches.SPACED - 2, False, 2),
        (1, False, 3),
    ):
        now[0] += after
        caches.trim(asked)
        assert len(trimmed) == times, (after, asked)
