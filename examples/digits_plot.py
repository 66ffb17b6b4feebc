"""Draw lines over numbers as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from parity.page.markup import Markup, tag


class Line(NamedTuple):
    """A line of a plot.

    Args:
      style: number of its colour in page.css.
      faint: as a background. points: with a marker at each value. joined: by a line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int
    faint: bool = False
    points: bool = False
    joined: bool = True


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 220, 44, 10, 10, 22  # of a plot and its margins, in units of the SVG


def plot(title: str, lines: Sequence[Line], log: bool = False, mark: float | None = None) -> Markup:
    """Draw lines over numbers.

    Args:
      log: whether the vertical axis is logarithmic.
      mark: where a vertical line is drawn.
    """
    xs = [x for line in lines for x in line.x]
    ys = [_height(y, log) for line in lines for y in line.y if not log or y > 0]
    low, high = min(ys), max(ys)
    pad = 0.05 * (high - low) or 0.5
    low, high = low - pad, high + pad
    left, right = min(xs), max(max(xs), min(xs) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + (WIDTH - LEFT - RIGHT) * (x - left) / (right - left), 1),
            round(TOP + (HEIGHT - TOP - BOTTOM) * (high - max(_height(y, log), low)) / (high - low), 1),
        )

    parts = []
    for value in _ticks(low, high, log):
        _, y = place(left, value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{value:.6g}", x=LEFT - 6, y=y + 4, text_anchor="end"))
    for value in _ticks(left, right, False, whole=True):
        x, _ = place(value, 1)
        parts.append(tag("text", f"{value:.0f}", x=x, y=HEIGHT - 5, text_anchor="middle"))
    if mark is not None:
        x, _ = place(mark, 1)
        parts.append(tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark"))
    for line in lines:
        points = [place(x, y) for x, y in zip(line.x, line.y, strict=True)]
        path = tag("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_="line") if line.joined else ""
        dots = [tag("path", d="M-2.4 0a2.4 2.4 0 1 0 4.8 0a2.4 2.4 0 1 0 -4.8 0z", transform=f"translate({x} {y})")
                for x, y in points] if line.points else []  # fmt: skip
        parts.append(tag("g", path, *dots, class_=f"s{line.style}{' faint' if line.faint else ''}"))
    legend = [tag("span", tag("i", "", class_=f"key k{line.style}{' faint' if line.faint else ''}"), line.name)
              for line in lines]  # fmt: skip
    picture = tag("svg", *parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    caption = tag("figcaption", tag("b", title), tag("span", *legend, class_="keys") if len(lines) > 1 else "")
    return tag("figure", caption, picture)


def _height(value: float, log: bool) -> float:
    return math.log10(max(value, 1e-9)) if log else value


def _ticks(low: float, high: float, log: bool, whole: bool = False) -> list[float]:
    """Return about five round numbers from `low` to `high`, which are logarithms if `log`."""
    if log:
        steps = (1, 2, 5) if high - low < 1.5 else (1, 3) if high - low < 2.5 else (1,)
        every = [step * 10.0**decade for decade in range(math.floor(low), math.ceil(high) + 1) for step in steps]
        shown = [value for value in every if low <= math.log10(value) <= high]
        return shown if len(shown) > 2 else _ticks(10**low, 10**high, log=False)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    step = max(step, 1.0) if whole else step
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
