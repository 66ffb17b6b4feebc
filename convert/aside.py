"""Name what a file holds beside the model that is read from it, so that nothing is left out in silence."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .formats.base import Tensor
from .parts import TRAINING, cuts, normal
from .recognise import Match, spellings
from .report import fold

COPY = "a model with the same names: --weights {} takes it"
STATE = "training state"
PART = "named like a part of this model"
UNUSED = "in this dialect's files, and no part of the model"
OTHER = "no part of this model"
LINES = 8  # that a note lists; `inspect` lists all


class Aside(NamedTuple):
    """Arrays of a file that are set aside.

    Args:
      name: of one array, with numbers folded of several like it, or the container of all of them.
      arrays: how many.
      elements: of all of them together.
      detail: dtype and shape, where all have the same.
      reason: why they are set aside.
    """

    name: str
    arrays: int
    elements: int
    detail: str
    reason: str

    def __str__(self) -> str:
        size = f"{self.arrays:,} arrays of {self.elements:,} elements" if self.arrays > 1 or not self.detail else ""
        return f"{self.name} {' '.join(filter(None, (self.detail, size)))} ({self.reason})"


def set_aside(tensors: Mapping[str, Tensor], used: Iterable[str], match: Match) -> list[Aside]:
    """Every array of a file that is not in `used`, folded."""
    names = set(used)
    groups: dict[tuple[str, str, str], list[Tensor]] = {}
    for name, tensor in tensors.items():
        if name not in names:
            container, reason = _explain(name, match)
            key = (container, "", reason) if container else (normal(name), _detail(tensor), reason)
            groups.setdefault(key, []).append(tensor)
    return [entry for (name, detail, reason), group in groups.items() for entry in _fold(name, detail, reason, group)]


def _fold(name: str, detail: str, reason: str, group: list[Tensor]) -> Iterator[Aside]:
    """One entry for a container; for arrays that are alike, one for each name that folding leaves."""
    lines = fold(t.name for t in group) if detail else [name]
    if len(lines) > 1:  # each stands for one array: their numbers differ in more than one place
        yield from (Aside(t.name, 1, t.size, detail, reason) for t in group)
    else:
        yield Aside(lines[0], len(group), sum(t.size for t in group), detail, reason)


def _detail(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _explain(name: str, match: Match) -> tuple[str, str]:
    """(the container that is named in its place or "", the reason)."""
    if inside(name, match.prefix):
        rest = name[len(match.prefix) :].lstrip("/")
        if normal(rest) in spellings(*match.which):
            return "", UNUSED
    for other in match.others:
        if inside(name, other):
            return other if other.endswith(".") else f"{other}/", COPY.format(shlex.quote(other or "/"))
    segments = name.split("/")
    for depth, segment in enumerate(segments):
        if segment in TRAINING:
            nested = depth + 1 < len(segments)
            return ("/".join(segments[: depth + 1]) + "/" if nested else ""), STATE
    spelled = spellings(*match.which)
    form = normal(name)
    return "", PART if any(form[cut:] in spelled for cut in cuts(form)) else OTHER


def inside(name: str, part: str) -> bool:
    """Whether an array lies in a part of a file, as `label` writes it; "" is the root."""
    return not part or name.startswith(part if part.endswith(".") else f"{part}/")


def summary(entries: list[Aside]) -> str:
    """One line for a note."""
    shown = [str(entry) for entry in entries[:LINES]]
    return "; ".join(shown) + (f"; and {len(entries) - LINES} more (inspect lists them)" if entries[LINES:] else "")


def as_json(entries: list[Aside]) -> list[dict[str, Any]]:
    return [entry._asdict() for entry in entries]
