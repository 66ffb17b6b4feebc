"""Searches for partners with an edit of one model: what they refuse, and the limits that end them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.match import columns, match, roles
from parity.derive.match.choices import Step
from parity.derive.match.match import Match
from parity.derive.search import edited

from ..conftest import needs
from .pairs import images


def test_an_edit_that_hides_uses_is_refused(monkeypatch: pytest.MonkeyPatch):
    steps = [Step("product", (name,), (name,), "", "", 0.0, 0, 1) for name in "ab"]
    zero = np.zeros(1)
    best = SimpleNamespace(found=Match(zero, zero, steps, "c: no partner"), side=SimpleNamespace(parameters={}),
                           inputs=[], hint=None, left_out={})  # fmt: skip
    best._replace = lambda **new: SimpleNamespace(**new)
    known = SimpleNamespace(elements=None, program=SimpleNamespace(inputs={}), side=best.side)
    tape = SimpleNamespace(unread=list, nodes=[])
    given = edited.Tried(best, (tape, tape), SimpleNamespace(program=None))
    edit = SimpleNamespace(side=0, kind="", text="", tapes=lambda *tapes: tapes)
    budget = edited.Budget(1, np.inf)
    monkeypatch.setattr(edited, "Program", lambda *_: None)
    for count, taken in ((1, False), (2, True)):
        monkeypatch.setattr(edited, "match", lambda *_, n=count, **__: Match(zero, zero, steps[:n]))
        assert (edited._tried(edit, given, known, budget) is not None) == taken


def gated(gate: bool) -> Any:
    """Two blocks in torch, each with a factor behind it if `gate`."""
    import torch

    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(2))
            self.gate = torch.nn.ParameterList(torch.ones(6) for _ in range(2 * gate))

        def forward(self, x: Any) -> Any:
            for k, fc in enumerate(self.fc):
                x = x + (fc(x).tanh() * self.gate[k] if gate else fc(x).tanh())
            return x

    return Gated()


def test_what_is_found_does_not_depend_on_how_fast_a_machine_is(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    clock = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: 1e6 * clock())
    found = parity.derive(gated(False), gated(True), (images(3, 6),), seconds=np.inf)
    line = "missing: gate.{0..1}: the right multiplies by it, the left does not\n"  # a reason for each block
    assert line in str(found) and not found.search_limit, str(found)


def test_the_limit_that_ended_a_search_is_named(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    monkeypatch.setattr(edited, "EDIT_WORK", 0)
    for seconds, limit in ((60, "not all changes to either model were tried"), (0, "the time for matching was up")):
        found = parity.derive(gated(False), gated(True), (images(3, 6),), seconds=seconds)
        assert found.missing and f"not found within a limit: {limit}" in str(found), str(found)


def test_activations_that_both_sides_compute_equally_often_are_exchanged_last(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    kinds, edits, others = list[list[str]](), edited._edits, edited.others

    def listed(given: Any) -> Any:
        kinds.append([edit.kind for edit in edits(given)])
        assert not [*others(scopes[-1], even=False)]
        return iter(())

    scopes = list[Any]()
    monkeypatch.setattr(edited, "others", lambda scope, even: scopes.append(scope) or others(scope, even))
    monkeypatch.setattr(edited, "_edits", listed)
    parity.derive(gated(False), gated(True), (images(3, 6),))
    ((first, *between, last),) = kinds
    assert last == "activation" != first and "missing parameter" in between


def attending(factors: tuple[float, ...]) -> Any:
    """Attention with factors of its scores, whose queries and keys are told apart behind the softmax alone."""
    import torch

    class Attending(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.ModuleDict({name: torch.nn.Linear(8, 8) for name in "qkvo"})

        def forward(self, x: Any) -> Any:
            q, k, v = (self.fc[name](x).unflatten(-1, (2, 4)).transpose(1, 2) for name in "qkv")
            scores = q @ k.mT
            for factor in factors:
                scores = scores * factor
            return self.fc["o"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    return Attending()


def test_a_match_with_an_edit_begins_with_the_partners_found_without_it(monkeypatch: pytest.MonkeyPatch):
    """It tries few others, and none where it does not come as far."""
    needs("torch")
    attempts, tried, try_edit, counts = [0], match._tried, edited._tried, []

    def counted(attempt: Any) -> Match:
        attempts[0] += 1
        return tried(attempt)

    def with_edit(*arguments: Any) -> Any:
        attempts[0] = 0
        new = try_edit(*arguments)
        counts.append(attempts[0])
        return new

    monkeypatch.setattr(match, "_tried", counted)
    monkeypatch.setattr(edited, "_tried", with_edit)
    found = parity.derive(attending((0.25,)), attending((0.9, 0.8, 0.6)), (images(2, 5, 8),))
    assert found.confirmed and found.explained == "one attention scale", str(found)
    assert 1 < max(counts) <= 1 + match.FEW, counts
    short, plain = (Match(np.zeros(1), np.zeros(1), [None] * n) for n in (1, 2))
    assert match._choices_to_try(short, plain) == 0 < match._choices_to_try(plain, plain) == match.FEW


def test_columns_are_grouped_once_however_often_a_search_returns_to_them(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    asked, group = [], roles.groups

    def counted(program: Any, *arguments: Any) -> Any:
        asked.append((program, *arguments))
        return group(program, *arguments)

    monkeypatch.setattr(roles, "groups", counted)
    assert parity.derive(gated(False), gated(True), (images(3, 6),)).missing
    assert len(asked) == len(set(asked)) > 0


def test_a_limit_ends_only_comparisons_beyond_it():
    rng = np.random.default_rng(0)
    a, b = rng.random((300, columns.STATISTICS)), rng.random((400, columns.STATISTICS))
    scale = max(columns.size_of(a), columns.size_of(b))
    wanted = np.abs(a[:, None] - b).max(2).min(1).mean() / scale
    assert np.isclose(columns.distance_within(a, b), wanted)
    assert np.isclose(columns.distance_within(a, b, 1.01 * wanted), wanted)
    assert columns.distance_within(a, b, 0.99 * wanted) == np.inf
