"""Tell parts of an axis that have one width in every model from parts of different parameters, which need not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.derive.trace.program import Program
from parity.derive.trace.tape import Array

from .equal_parts import equal_parts
from .names import Names
from .sources import Sources, part_sources

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Origin:
    """The parameter or input of which a part is made.

    Args:
      text: its name, with # for the numbers of the blocks that both are in. name: as it is.
      side: of the model that has it, 0 for the left one.
    """

    text: str = ""
    name: str = field(default="", compare=False)
    side: int = 0


@dataclass(frozen=True)
class Part:
    """A part of a sum, (a+b)."""

    letter: str
    length: int
    origin: Origin


def origins(names: Names, side: int, name: str, axis: int, parts: Array) -> tuple[Origin, ...] | None:
    """Return the origin of each part of an axis of a parameter; None where all have one width in every model.

    Args:
      side: of the parameter.
      parts: the number of the part of each index of the axis, from 0.
    """
    if not names.programs:
        return None
    program, lengths = names.programs[side], np.bincount(parts)
    if len(set(lengths.tolist())) == 1 and equal_parts(program, name, axis, len(lengths)):
        return None
    found = part_sources(program, name, axis, parts)
    if found is None or len(set(found)) < len(found):  # of one value, that may be cut at any place
        return (Origin(UNKNOWN),) * len(lengths)
    return tuple(_origin(program, some, name, side) for some in found)


def _origin(program: Program, sources: Sources, name: str, side: int) -> Origin:
    """Return the source that the model reads first, as the others have its width; as a block's own where it is one."""
    read = {other: program.readers(number)[:1] for other, number in program.tape.parameters.items()}
    first = min(sources, key=lambda source: (read.get(source, [(-1, 0)]), source), default="")
    blocks = [name[: match.end() + 1] for match in re.finditer(r"\d+(?=[./])", name)]
    block = next((block for block in blocks[::-1] if first.startswith(block)), "")
    return Origin(first.replace(block, re.sub(r"\d", "#", block)) if block else first, first, side)


def summed(letters: Sequence[str]) -> str:
    """Write a sum of parts."""
    return f"({'+'.join(letters)})" if len(letters) > 1 else letters[0]
