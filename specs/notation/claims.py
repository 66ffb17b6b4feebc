"""Read what a derived Table says against itself, in the comments above its first line."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

from .axes import Dim
from .lines import Line, Lines
from .signature import Signature

UNFINISHED = "# incomplete:"  # begins the comment of a derived Table that lacks lines
MISSING = "# missing:"  # begins a comment for each right parameter that it lacks
UNPROVEN = "# derived, not proven:"  # begins that of one whose models were not proven equal
REASON = "# why:"  # begins the one that says why
UNSEEN = "# order not seen, outside any proof:"  # names axes that larger models may flatten in another order
TWO_PLACES = "# order seen on two places alone, outside any proof:"  # names axes that larger models may not reverse
TRAINED = "# trained and dropped, outside any proof:"  # names parameters that one model computes
ASSUMED = "# taken for equally long:"  # names arrays that are cut into equal parts, which larger models may not be
IN_CODE = "# not checked in code:"  # names numbers of parts that larger models may not have
DOUBTS = TRAINED, UNSEEN, TWO_PLACES, IN_CODE, ASSUMED  # what a conversion repeats
PROVEN = "# derived and proven:"
RANGES = "# dropped, outside any proof, as the right model has no place for it:"  # lists ranges of left arrays
LENGTHS = "# lengths in the models that it was derived from:"
_LENGTH = re.compile(r"(?<!\S)(\w+)=(\d+)(?!\S)")  # behind which the lines may stand that it is of, in parentheses


def claim(table: Lines, mark: str) -> str:
    """Return what follows a mark above the first line; "" where the Table does not have it."""
    above = table.lines[0].above if table.lines else ()
    return next((comment.removeprefix(mark).strip() for comment in above if comment.startswith(mark)), "")


def derived_lengths(table: Lines) -> dict[str, str]:
    """Return the lengths of axes in the models that a Table was derived from; {} where it does not say so."""
    return dict(_LENGTH.findall(claim(table, LENGTHS)))


def last_range(array: Signature) -> tuple[int, Dim] | None:
    """Return the axis of which a derived line drops or fills a range, and its dimension: no later one has a range."""
    return next(((k, dim) for k, dim in reversed([*enumerate(array.axes or ())]) if dim.window), None)


def derived_whole(table: Lines) -> dict[str, int]:
    """Return, of arrays of which a derived Table drops a range, how long the axis was: {"pos: x[7:] i": 9}."""
    text = claim(table, RANGES)
    arrays = [str(array) for line in table.lines for array in line.arrays if array.windowed] if text else []
    found = {name: re.search(rf"(?<!\S){re.escape(name)} \([\d,]+ of ([\d,]+)", text) for name in arrays}
    return {name: int(match[1].replace(",", "")) for name, match in found.items() if match}


def unproven(table: Lines) -> str:
    """Say that a Table was not proven, and by how much its models differ; "" where it does not say so."""
    difference = claim(table, UNPROVEN)
    return difference and f"the Table was derived and not proven: {difference}"


def not_covered(table: Lines, like: bool) -> list[str]:
    """Say which trained arrays are dropped, and which axes larger models may order or cut otherwise; [] if none.

    Args:
      like: whether a file of the other side shows the lengths of parts.
    """
    marks = (mark for mark in DOUBTS if not (like and mark == ASSUMED))
    return [f"{mark.removeprefix('# ')} {names}" for mark in marks if (names := claim(table, mark))]


def warn(table: Lines, like: bool) -> None:
    """Warn who applies a Table that is incomplete, was not proven, drops trained arrays, or may reorder or cut axes."""
    if missing := claim(table, UNFINISHED):
        warnings.warn(f"{table.name} is incomplete: {missing}", stacklevel=3)
    for doubt in filter(None, (unproven(table), *not_covered(table, like))):
        warnings.warn(f"{table.name}: {doubt}", stacklevel=3)


def carried(composed: Lines, *parts: Lines) -> tuple[Line, ...]:
    """Return a composed Table's lines with what its parts say against themselves above the first one."""
    marks = tuple(
        f"{mark} {text}"
        for part in parts
        for mark in (UNFINISHED, UNPROVEN, *DOUBTS, RANGES)
        if (text := claim(part, mark))
    )
    if not marks or not composed.lines:
        return composed.lines
    first, *others = composed.lines
    return replace(first, above=(*marks, *first.above)), *others


def without_claims(table: Lines) -> tuple[Line, ...]:
    """Return the lines of a Table that is derived anew, without what an earlier derivation wrote above the first."""
    if not table.lines:
        return ()
    first, *others = table.lines
    own = (UNFINISHED, UNPROVEN, *DOUBTS, RANGES, REASON, MISSING, PROVEN)
    return replace(first, above=tuple(comment for comment in first.above if not comment.startswith(own))), *others
