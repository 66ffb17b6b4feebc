"""Check that a line of a Table means something."""

from __future__ import annotations

from specs.words import count

from .lines import Line


def check_line(line: Line) -> None:
    """Check a line. Raises: ValueError for one without meaning."""
    for array in line.arrays:
        factors = (factor for dim in array.axes or () for factor in dim.factors)
        names = [name for factor in factors for name in {part.name for part in factor if part.name}]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{array}: {repeated[0]} stands in it twice")
        if any(dim.window and len(dim.factors) > 1 for dim in array.axes or ()):
            raise ValueError(f"{array}: a window stands at a single axis or sum, or inside a composition: (h[2:] d)")
        if array.axes is None and line.kind not in ("drop", "tie"):
            raise ValueError(f"{array.label}: write its axes, as in {array.label}: o i")
    _check_arrow(line)
    for part in (part for array in line.arrays for part in array.parts() if part.length):
        if part.length != line.lengths[part.name] or line.length(part.name) not in (None, part.length):
            raise ValueError(f"{part.name} has two lengths")
    for hole in (hole for array in line.arrays for hole in array.holes):
        if "[" in hole.name:
            raise ValueError(f"{hole} reads a list of a Config, which a table does not have")
        if hole.values is not None and len(hole.values) != line.length(line.variable(hole)):
            raise ValueError(f"{{{hole.name}}} lists {count(len(hole.values), 'value')} here and others elsewhere")
        if hole.values is None and line.listed.get(line.variable(hole)) == () and (hole.scale, hole.shift) == (1, 0):
            raise ValueError(f"{{{hole.name}}}: the line lists two sets of values for it: write the one meant here")
    counted = [{line.variable(hole) for hole in array.holes} - line.axes for array in line.arrays]
    if line.kind != "drop" and any(counts != counted[0] for counts in counted):
        one, other = counted[0], next(counts for counts in counted if counts != counted[0])
        raise ValueError(f"not every array of the line has {' and '.join(sorted(one ^ other))}")
    if line.kind in ("move", "sum"):
        for row in line.pairs:
            if not all(row):
                raise ValueError("nothing on the left corresponds to anything on the right")


def _check_arrow(line: Line) -> None:
    if line.kind == "constant":
        away = "->" if line.left.arrays else "<-"  # written in one direction, dropped in the other
        if line.arrow not in ("<->", away) or (line.left.arrays and line.right.arrays):
            raise ValueError(
                "a constant has no array on the other side, as in `<-> bias: o = 0` or `drop <- bias: o = 0`"
            )
    elif line.kind == "tie":
        if any(array.axes is not None for array in line.arrays):
            raise ValueError("what ties arrays of one side alone has no axes: write first = second <->")
    elif line.kind == "drop":
        kept, arrow = (line.left, "->") if line.left.arrays else (line.right, "<-")
        if line.arrow != arrow or not kept.arrays or kept.join != ",":
            raise ValueError("write path -> drop, or drop <- path")
    elif line.arrow == "<->":
        if "+" in (line.left.join, line.right.join):
            raise ValueError("a sum has one direction: write total: o <- first: o + second: o")
    else:
        total, terms = (line.left, line.right) if line.arrow == "<-" else (line.right, line.left)
        if terms.join != "+" or len(total.arrays) != 1:
            raise ValueError("an arrow in one direction is for sums, total: o <- first: o + second: o, and for drop")
        if len(set(map(len, line.pairs[0]))) > 1 or any(len(a.parts_of_sums()) for a in total.arrays):
            raise ValueError("the total of a sum is one whole array")
