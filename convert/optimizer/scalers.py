"""Find the loss scale of a training in mixed precision, and say how another library's scaler goes on from it.

torch's and paddle's GradScaler and flax's DynamicScale multiply the loss by a scale that grows after so many steps with
finite gradients and shrinks after others. flax compares its count before it adds the step, so its interval is one less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

from convert.errors import ConvertError
from convert.files.base import Reader
from convert.folding import listed

from .shared import plain_number, scalar

NAMES = {  # entries of a state: the scale, the count of finite steps, growth, shrinkage, interval, if it stores these
    "torch": ("scale", "_growth_tracker", "growth_factor", "backoff_factor", "growth_interval"),
    "paddle": ("scale", "incr_count", "incr_ratio", "decr_ratio", "incr_every_n_steps"),
    "optax": ("scale", "fin_steps"),
}
OTHERS = ("decr_every_n_nan_or_inf", "decr_count", "use_dynamic_loss_scaling")  # paddle's, beside these
CALLED = {"torch": "torch's GradScaler", "paddle": "paddle's GradScaler", "optax": "flax's DynamicScale"}
CALLS = {
    "torch": 'scaler.load_state_dict({{"scale": {scale}, "growth_factor": {growth}, "backoff_factor": {shrinkage}, '
    '"growth_interval": {interval}, "_growth_tracker": {finite}}})',
    "paddle": 'scaler.load_state_dict({{"scale": [{scale}], "incr_ratio": {growth}, "decr_ratio": {shrinkage}, '
    '"incr_every_n_steps": {interval}, "incr_count": {finite}, "decr_every_n_nan_or_inf": 1, "decr_count": 0, '
    '"use_dynamic_loss_scaling": True}})',
    "optax": "flax.training.dynamic_scale.DynamicScale(growth_factor={growth}, backoff_factor={shrinkage}, "
    "growth_interval={interval}, fin_steps={finite}, scale={scale})",
}


class Scaler(NamedTuple):
    """The state of a loss scaler in a file.

    Args:
      place: of its entries, "" where they lie at the root. used: names of its entries in the file.
      finite: steps with finite gradients since the scale changed last.
      growth, shrinkage: factors of the scale. interval: finite steps until it grows. None where the file has none.
      patience: steps in a row whose gradients overflow, until the scale shrinks.
    """

    library: str
    place: str
    used: frozenset[str]
    scale: float
    finite: int
    growth: float | None = None
    shrinkage: float | None = None
    interval: int | None = None
    patience: int = 1

    def remark(self, library: str, path: str, classes: Collection[str] = ()) -> str:
        """Say that it is set aside, and the call by which a scaler of the target's library goes on from it.

        Args:
          path: of the file. classes: that the file names and torch.load refuses unless it may run what a file contains.
        """
        what = f"set aside: the state of {CALLED[self.library]} ({self.place.rstrip('/')}): "
        if library == self.library != "optax":
            levels = "".join(f"[{level!r}]" for level in self.place.rstrip("/").split("/"))
            trusted = ", weights_only=False" if classes else ""
            call = f"{what}scaler.load_state_dict({library}.load({path!r}{trusted}){levels}) takes it from there"
            why = f"if you trust the file, which names {listed(sorted(classes))}: torch.load refuses it otherwise"
            return f"{call}, {why}" if classes else call
        interval = self.interval if self.interval is None else self.interval - (library == "optax")
        numbers = {"scale": self.scale, "growth": self.growth, "shrinkage": self.shrinkage, "interval": interval}
        known = {name: "?" if number is None else repr(number) for name, number in numbers.items()}
        call = CALLS[library].format(finite=self.finite, **known)
        apart = f"; paddle's scale shrinks after {self.patience} steps in a row that overflow, this one after each"
        return f"{what}{call} goes on from it{apart if self.patience > 1 else ''}"


def find(reader: Reader) -> Iterator[Scaler]:
    """Yield the loss scalers in a file, of which each has a place of its own."""
    for library, names in NAMES.items():
        entries = (*reader.skipped.values, *reader.tensors)
        for place in [name.removesuffix(names[1]) for name in entries if name.endswith(f"/{names[1]}")]:
            with contextlib.suppress(ConvertError, KeyError):  # entries of these names that are something else
                yield _read(reader, library, place)


def _read(reader: Reader, library: str, place: str) -> Scaler:
    """Read a scaler. Raises: ConvertError for an entry that is no number; KeyError for one that is missing."""
    scale, finite, *others = (_number(reader, f"{place}{name}") for name in NAMES[library])
    used = frozenset(f"{place}{name}" for name in (*NAMES[library], *OTHERS))
    growth, shrinkage, interval = others or (None, None, None)
    patience = 1
    if library == "paddle":
        patience = int(_number(reader, f"{place}{OTHERS[0]}"))
        if not reader.skipped.values[f"{place}{OTHERS[2]}"]:
            growth = shrinkage = 1.0
    every = None if interval is None else int(interval)
    return Scaler(library, place, used, scale, int(finite), growth, shrinkage, every, patience)


def _number(reader: Reader, name: str) -> float:
    if name in reader.tensors:
        return scalar(reader, reader.tensors[name])
    return plain_number(reader, name, reader.skipped.values[name])
