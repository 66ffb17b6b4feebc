"""Define what a port and a user's own model have in common: a Runner, and names for the taps of its modules."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .runners.base import Runner
from .runners.records import Tap

if TYPE_CHECKING:
    from .source import Source


class Model:
    """A model behind its framework's Runner."""

    runner: Runner
    source: Source | None = None  # the checkpoint that a port was loaded from
    altered: str = ""  # why the checkpoint is not what its record describes
    paired: Any = None  # the names that a Table gives to the modules of a user's own model
    views: Mapping[str, Any] = MappingProxyType({})  # arrays that are compared in another order of axes

    @property
    def dtype(self) -> str:
        self.runner.follow()
        return self.runner.dtype

    @property
    def device(self) -> str:
        self.runner.follow()
        return self.runner.device

    @property
    def notes(self) -> list[str]:
        """Tell what runs so far computed otherwise than the framework does, and why: a sentence each."""
        return self.runner.notes

    def state(self) -> dict[str, np.ndarray]:
        """Return every array of the model, named and laid out as in this framework's checkpoint."""
        return self.runner.state()

    def switched(self, training: bool) -> list[str]:
        """Return a sentence where modules are in another mode than a run in training or evaluation mode needs."""
        return []

    def turned(self) -> list[str]:
        """Return sentences that say in which order of axes the model takes its input and returns its output."""
        return []

    def is_random(self, inputs: Any, training: bool) -> bool:
        """Tell whether the outputs depend on random numbers, in training other than those of dropout."""
        return False

    def unreached(self, taps: Iterable[Tap]) -> list[str]:
        """Return a sentence where modules with parameters were not called in a run that recorded these taps."""
        return []

    def left_out(self) -> list[str]:
        """Return a sentence where the names that were given leave modules with parameters out."""
        return []

    @contextmanager
    def no_dropout(self) -> Iterator[Self]:
        """Yield the same model, whose dropout passes its input on."""
        with self.runner.no_dropout():
            yield self

    def jittered(self, share: float, seed: int) -> Self:
        """Return a copy each of whose parameters is multiplied by 1 + share or 1 - share, at random."""
        return self._with(self.runner.jittered(share, seed))

    def _with(self, runner: Runner) -> Self:
        """Return a copy behind another Runner."""
        other = copy.copy(self)
        other.runner = runner
        return other
