"""State what goes along of an optimizer and what does not: for the record, and for the user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convert import folding
from convert.documents import document
from convert.reading.families import CLASSES
from convert.reading.optimizers import step_beside
from specs.numbers import exact
from specs.words import count, in_a_row

from . import scalers
from .averages import Averages
from .builder import Written
from .holding import Held
from .plain_numbers import PlainNumbers
from .state import ENTRY, NO_INITIAL, UNLISTED, State, is_plain

SCHEDULER = "scheduler"  # in the record: what schedulers of the training that were set aside count, as far as known
LAST = "last_epoch"  # what schedulers of torch and paddle count: steps, or epochs
STATIC_EMA = re.compile(r"\.ema_tmp_\d+$")  # in the names of paddle.static.ExponentialMovingAverage
REACHED = "the learning rate of the source is the one that its schedule had reached, not the one that it began with"
IN_RECORD = ", except in the record, from which a conversion back restores it, unless the file is trained further"
STATED = "the learning rate is the one that you state, not the one that its schedule had reached"
MAYBE = "if the training has a schedule of learning rates, "
SCHEDULED = (
    "paddle's learning-rate scheduler needs an entry in the state: call step() on a new scheduler {}, and load by "
    'optimizer.set_state_dict({{{}, "LR_Scheduler": scheduler.state_dict()}})'
)
FROM_ZERO = "they begin at 0, and have to be divided by 1 - decay^count: a place of weights would hold others"
NOT_SHOWN = {  # by its library: what a training may state of some parameters, and its file never does
    "optax": ("mask of its weight decay", "there was one"),
    "paddle": ("groups of parameters", "there were any"),
}
OF_ADAMW = " nor apply_decay_param_fun"  # what paddle's AdamW alone takes


@dataclass(frozen=True)
class Moves:
    """The state of an optimizer that goes along.

    Args:
      out: the target. library: whose state it holds.
      without: weights without a state in the source. unlisted: those that were in no group of torch's optimizer.
      average: the copy of the weights that goes along.
      numbers: those of the training, as its epoch.
      earlier: what the source's record says of the state.
    """

    held: Held
    state: State
    out: str
    library: str
    without: tuple[str, ...]
    unlisted: tuple[str, ...]
    average: Averages | None
    written: Written
    numbers: PlainNumbers
    earlier: Mapping[str, Any]

    def about(self) -> dict[str, Any]:
        """Return what the record says of the state."""
        state, path = self.state, self.held.path
        return {
            "kind": state.kind,
            "step": state.step,
            **({"steps": sorted(set(state.steps.values()))} if state.steps else {}),
            "hyperparameters": {name: value for name, value in state.hyper.items() if name != "kind"},
            **({"changed": dict(state.changed)} if state.changed else {}),
            "from": state.library,
            "to": self.library,
            "moments": len({tensor.name for arrays in state.moments.values() for tensor in arrays.values()}),
            "without": list(self.without),
            **({UNLISTED: list(self.unlisted)} if self.unlisted else {}),
            **({"assumed": list(state.assumed)} if state.assumed else {}),
            **self.numbers.about(),
            **({SCHEDULER: sorted(counts)} if (counts := self._scheduler_counts()) is not None else {}),
            **({ENTRY: dict(state.scheduler)} if self._records_entry() else {}),
            **({"file": os.path.basename(path), "sha256": _sha256(path)} if path else {}),
        }

    def to_do(self) -> list[str]:
        """Return what the user should do where the new optimizer is built: its scheduler's entry, its groups."""
        lines = [*self._scheduler_wanted()]
        whole = self.earlier.get("from") == "torch" == self.library  # torch's groups show it, and the record is of them
        if self.state.library in NOT_SHOWN and self.library != self.state.library and not whole:
            section = "Groups of parameters in torch" if self.library == "torch" else "What each library keeps"
            where = f"{document('training')}, {section}"
            what, present = NOT_SHOWN[self.state.library]
            what += OF_ADAMW * ((self.state.library, self.state.kind) == ("paddle", "adamw"))
            lines.append(f"{self.state.library}'s state shows no {what}: if {present}, see {where}")
        return lines

    def remarks(self) -> list[str]:
        """Return what the user should know: what goes along, and what is set aside."""
        lines = [*self.held.remarks, self._goes_along(), *self._schedules_aside()]
        path, classes = self.held.reader.path, self.held.reader.skipped.classes
        lines += [scaler.remark(self.library, path, classes) for scaler in self._scalers()]
        lines += [*self._others_aside(), *self.numbers.remarks()]
        if self.average:
            names = self.average.uncounted
            counters = count(len(names), "batch counter")
            left = f", without its {counters}, for which the target has no place" if names else ""
            lines.append(
                f"the average of the weights goes along: {self.average.place} -> {self.written.averages}{left}"
            )
        return lines

    def _goes_along(self) -> str:
        """Say what state goes along, and how many steps it has counted."""
        state = self.state
        counted = f" after {count(state.step, 'step')}" if state.step is not None else ""
        if state.family == "sgd" and not state.step:
            counted = ", without a count of its steps,"
        elif state.family == "sgd" and not self._step():  # torch and paddle count none, so it began anew behind them
            counted += " since its count began"
        if fewer := [steps for steps in state.steps.values() if steps < max(state.steps.values())]:
            counted += f" (fewer for {len(fewer):,} of {count(len(state.steps), 'parameter')}, from {min(fewer):,})"
        counted += f", as the entry {step} of the file says," if (step := self._step()) else ""
        return f"the optimizer's state{counted} goes along: {self._ends()}"

    def _schedules_aside(self) -> Iterator[str]:
        """Say which learning-rate schedulers, or rates that they began at, are set aside, and which is restored."""
        state = self.state
        rate = STATED if "lr" in state.changed else REACHED
        if state.scheduler:
            last = state.scheduler.get(LAST)
            at = f", which counts {last:,}" if type(last) is int else ""
            what = f"paddle's learning-rate scheduler{at} ({ENTRY})"
            if self.library != "paddle":
                yield f"set aside: {what}{IN_RECORD * self._records_entry()}; {rate}"
            elif state.library != "paddle":
                yield f"from the record: {what}"
            return
        began = in_a_row(dict.fromkeys(exact(rate) for rate in state.initial if rate is not None))
        if places := self._schedulers():
            first = f", which began at {began} (initial_lr)" if began and self.library != "torch" else ""
            counts = in_a_row(dict.fromkeys(f"{last:,}" for last in places.values()))
            where = ", ".join(place.rstrip("/") for place in places)
            what = f"set aside: torch's learning-rate scheduler, which counts {counts} ({where})"
            yield f"{what}{first}; {rate}"
        elif state.initial and self.library != "torch":
            yield f"{NO_INITIAL}, {began}; {rate}"
        elif state.library == "torch" != self.library and "lr" in state.hyper and "lr" not in state.changed:
            yield f"{MAYBE}which the file does not show, {REACHED}"
            if self._lacks_entry() and self._scheduler_counts() is None:
                yield f"{MAYBE}{self._entry_wanted()}"

    def _scalers(self) -> list[scalers.Scaler]:
        """Return the loss scalers beside the optimizer's state."""
        return [] if self.held.path else [*scalers.find(self.held.reader)]

    def _records_entry(self) -> bool:
        """Tell whether the record has the entry of paddle's scheduler, for which the target has no place."""
        return self.library != "paddle" and bool(self.state.scheduler) and is_plain(self.state.scheduler)

    def _scheduler_wanted(self) -> Iterator[str]:
        """Say how paddle's scheduler goes on where there was one, or maybe a schedule of optax."""
        is_known = self._scheduler_counts() is not None
        if self._lacks_entry() and (is_known or self.state.counted):
            yield ("" if is_known else MAYBE) + self._entry_wanted()

    def _lacks_entry(self) -> bool:
        """Tell whether the target is a state of paddle without the entry of a scheduler."""
        return self.library == "paddle" and not self.state.scheduler

    def _entry_wanted(self) -> str:
        """Say how the entry is written that paddle asks for where the optimizer has a scheduler."""
        counts = self._scheduler_counts() or set()
        taken = f" (the optimizer took {count(self.state.step, 'step')})" if self.state.step is not None else ""
        times = count(min(counts), "time") if len(counts) == 1 else f"as many times as in the source run{taken}"
        return SCHEDULED.format(times, '**saved["optimizer"]' if "model" in self.written.tree else "**saved")

    def _scheduler_counts(self) -> set[int] | None:
        """Return what schedulers of the training count, as far as file or record say; None if neither has one."""
        if self.state.scheduler:
            last = self.state.scheduler.get(LAST)
            return {last} if type(last) is int else set()
        if (counts := set(self._schedulers().values())) or self.state.initial:
            return counts
        recorded = self.earlier.get(SCHEDULER) if self.earlier.get("to") == self.state.library else None
        return {last for last in recorded if type(last) is int} if isinstance(recorded, list) else None

    def _others_aside(self) -> Iterator[str]:
        """Say which entries of the optimizer's own file are set aside."""
        path = self.held.path
        others = [name for name in self.held.reader.tensors if name not in self.state.used] if path else []
        if others:
            yield f"set aside, of {path}: {', '.join(folding.fold(others))}"
        for entries in folding.skipped(self.held.reader.skipped.without(self.state.used)) if path else ():
            yield f"set aside, of {path}: {entries}"
        if any(STATIC_EMA.search(name) for name in others):
            yield f"sums of paddle.static's ExponentialMovingAverage stay behind, of {path}: {FROM_ZERO}"

    def _ends(self) -> str:
        """Name the optimizers of both sides, or the files where both are of one library."""
        ours, theirs = (CLASSES[self.state.kind].of(library) for library in (self.state.library, self.library))
        path = self.held.reader.path
        if ours == theirs:
            return f"{ours}, from {path} to {self.out}"
        return f"{ours}{f' of {self.held.path}' if self.held.path else ''} becomes {theirs}"

    def _schedulers(self) -> dict[str, int]:
        """Return {place of a scheduler of torch beside the state: what it counts}."""
        values = {} if self.held.path else self.held.reader.skipped.values
        lasts = {name.removesuffix(LAST): value for name, value in values.items() if name.endswith(f"/{LAST}")}
        return {
            place: last
            for place, last in lasts.items()
            if type(last) is int and f"{place}_step_count" in values and self.state.library == "torch"
        }

    def _step(self) -> str:
        """Name the plain number beside the state that is the state's own count of steps; "" where there is none."""
        name = step_beside(self.held.location)
        values = {} if self.held.path else self.held.reader.skipped.values
        return name if self.state.step is not None and values.get(name) == self.state.step else ""

    def accounted(self) -> frozenset[str]:
        """Return the arrays of the weights' file that are no weights and of which something is said."""
        held = self.held
        of_state = held.state_names if held.path else held.state_names | self.state.used
        of_state |= {*filter(None, [self._step()]), *self.numbers.stored}
        of_state |= {name for name in held.reader.skipped.values if name.startswith((*self._schedulers(),))}
        of_state |= {name for scaler in self._scalers() for name in scaler.used}
        plain = held.reader.skipped.values.keys() if self.average is None else set[str]()  # its count stays behind
        return of_state | {
            name for copy in held.averages for name in (*copy.used, *copy.strangers) if name not in plain
        }


def _sha256(path: str) -> str:
    from convert.files.hashing import sha256

    return sha256(path)
