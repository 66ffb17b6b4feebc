"""A derivation runs both models dozens of times: what it does for all these runs at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import parity
from parity.derive.prove import trial
from parity.derive.prove.translated import TranslatedWeights
from parity.derive.trace import caches
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


def test_freed_memory_is_given_back_once_the_process_has_grown(monkeypatch: pytest.MonkeyPatch):
    """Not after each run: to walk the heap of a large process takes milliseconds."""
    trimmed = []
    monkeypatch.setattr(caches.ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))
    monkeypatch.setattr(caches, "_least", float("inf"))
    large = caches.GROWN + 1
    for resident, times in ((5, 0), (large, 0), (3, 0), (3 + large, 1), (3 + large, 1), (2, 1), (2 + large, 2)):
        monkeypatch.setattr(caches, "_resident", lambda resident=resident: resident)
        caches.trim()
        assert len(trimmed) == times, resident


def test_the_memory_of_a_process_is_read():
    block = bytearray(b"x") * (1 << 24)
    assert caches._resident() > len(block) or caches._resident() == 0  # where the system does not say
