"""Draw the errors of each pair in a plot, with the worst, what differs first and what is no number; explain these."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parity.results.naming import own_name
from parity.results.result import Result

from .markup import Markup, join, tag
from .plot_scale import ABOVE, CHARACTER, LABEL, TOP, WIDTH, Scale, first_points, joined, px, shortened, worst_points

APART = 3.0  # user units from which two points are told apart: a marker has a radius of 3.5
LIMITS_APART = 12.0  # user units from which limits are told apart, below half a decade
MARKERS = 40  # of a line in full size; more of them are smaller
STYLES = 6  # of lines: colours in page.css, dashes and markers here; a seventh line begins again
DASHES = (None, "8 4", "2 3", "10 3 2 3", "5 2", "1 4")
SHAPES = (  # markers around (0, 0)
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "M-3.2 -3.2h6.4v6.4h-6.4z",
    "M0 -4.2L4 3.2H-4z",
    "M0 -4.4L4.4 0L0 4.4L-4.4 0z",
    "M0 4.2L4 -3.2H-4z",
    "M-4.6 -1.2h9.2v2.4h-9.2z",
)
CROSS = "M-4.5 -4.5L4.5 4.5M-4.5 4.5L4.5 -4.5"  # NaN
RING = "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0 -14 0z"  # around an error of what differs first
SEEN = 0.65 * WIDTH  # what narrow screens show of a plot before they are scrolled
FIRST = "first: "  # ahead of the name of an array that differs first
ROW = 20  # height of the name of an array that differs first: the type of narrow screens is 17 px
DIAMOND = "M0 -10.5L10.5 0L0 10.5L-10.5 0z"  # around the worst error of a pair


def unjoined(result: Result) -> bool:
    """Tell whether no line joins the errors: trained parameters do not follow on each other as layers do."""
    return result.check == "train"


def swatch(n: int, result: Result) -> Markup:
    """Draw the line and marker of the nth pair, for a legend."""
    line = tag("line", x1=1, x2=37, y1=7, y2=7, class_="line", stroke_dasharray=DASHES[n % STYLES])
    line = Markup() if unjoined(result) else line
    marker = tag("path", d=SHAPES[n % STYLES], transform="translate(19 7)", class_="marker")
    return tag("svg", line, marker, class_=f"swatch s{n % STYLES}", viewBox="0 0 38 14", aria_hidden="true")


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    is_number: bool = True
    is_copy: bool = False


@dataclass(frozen=True)
class Plot:
    """What a plot draws.

    Args:
      results: of one model, check, dtype and device.
      lines: the same by line: pairs whose errors and limits the eye cannot tell apart share one.
      styles: the number of each line's colour, dashes and marker: that of its first pair on the whole page.
    """

    results: Sequence[Result]
    lines: Sequence[Sequence[Result]]
    styles: Sequence[int]

    @classmethod
    def of(cls, results: Sequence[Result], pairs: Sequence[str]) -> Plot:
        """Group the results by line.

        Args:
          pairs: all of the page.
        """
        scale, lines = Scale.of(results), list[list[Result]]()
        for result in results:
            line = next((line for line in lines if _is_alike(scale, result, line[0])), None)
            if line is None:
                lines.append(line := [])
            line.append(result)
        return cls(results, lines, [pairs.index(points[0].pair) for points in lines])


def _is_alike(scale: Scale, result: Result, other: Result) -> bool:
    facts = [(each.nans, each.shapes, each.copies, len(each.curve)) for each in (result, other)]
    if facts[0] != facts[1]:
        return False
    return all(
        a == b and abs(scale.y(e) - scale.y(f)) <= APART and abs(scale.y(bound) - scale.y(limit)) <= LIMITS_APART
        for (a, e, bound), (b, f, limit) in zip(result.curve, other.curve, strict=True)
    )


def line(scale: Scale, results: Sequence[Result], n: int) -> Markup:
    """Draw the errors of pairs that share a line, joined where the check has an order.

    What is no number is a cross at the top. Each point has its marker, a hollow one where float64 copies are
    compared: no line joins hollow and filled ones.
    """
    result = results[0]
    points = [_point(scale, result, *point) for point in result.curve]
    numbers = [p for p in points if p.is_number]
    if unjoined(result):
        line = Markup()
    else:
        drawn = itertools.groupby(points, lambda p: (p.is_number, p.is_copy))  # filled and hollow: two measures
        runs = (list(run) for (is_number, _), run in drawn if is_number)
        line = join(*(tag("polyline", points=joined((p.x, p.y) for p in run), class_="line",
                          stroke_dasharray=DASHES[n % STYLES]) for run in runs))  # fmt: skip
    size = 1.0 if len(points) <= MARKERS else 0.7
    marks = [_mark(p, SHAPES[n % STYLES], "marker copy" if p.is_copy else "marker", size) for p in numbers]
    marks += [_mark(p, CROSS, "cross") for p in points if not p.is_number]
    return tag("g", line, *marks, class_=f"s{n % STYLES}")


def _point(scale: Scale, result: Result, name: str, error: float, _: float) -> _Point:
    if result.word(name):
        return _Point(scale.x(name), scale.y(math.nan), False)
    return _Point(scale.x(name), scale.y(error), is_copy=name in result.copies)


def _mark(point: _Point, shape: str, kind: str, size: float = 1.0) -> Markup:
    at = f"translate({px(point.x)} {px(point.y)})" + f" scale({size})" * (size != 1.0)
    return tag("path", d=shape, class_=kind, transform=at)


def first_rows(results: Iterable[Result]) -> int:
    """Return the height that the names of the arrays that differ first need above the usual one."""
    return ROW * max(len({name for r in results for name, *_ in first_points(r)}) - 1, 0)


def first(scale: Scale, results: Iterable[Result]) -> Markup:
    """Draw a line at each array that is the first to differ in some pair, rings around its errors, and its name.

    Each name has a row of its own above the plot, the first of them the highest, so that none covers another. It begins
    at its line, and goes to the right where there is room: no line of a later array crosses it. A single one goes to
    the left where narrow screens would cut it before they are scrolled.
    """
    results = list(results)
    rings: dict[str, list[Markup]] = {}
    for result in results:
        for point in first_points(result):
            rings.setdefault(point[0], []).append(_mark(_point(scale, result, *point), RING, "ring"))
    if not rings:
        return Markup()
    names = sorted(rings, key=scale.places.__getitem__)
    lines, texts = list[Markup](), list[Markup]()
    for row, name in enumerate(reversed(names)):
        x, y = scale.x(name), TOP - ABOVE - ROW * row
        top = y + 4 if row else TOP
        lines.append(tag("line", x1=px(x), x2=px(x), y1=px(top), y2=scale.floor, class_="first"))
        text = FIRST + shortened(own_name(name, *results), max(int(max(x, WIDTH - x) / CHARACTER) - len(FIRST), LABEL))
        width = CHARACTER * len(text)
        has_room = x + width <= (SEEN if len(names) == 1 and width <= x else WIDTH)
        side = {"x": px(x - 4), "text_anchor": "start"} if has_room else {"x": px(x + 4), "text_anchor": "end"}
        texts.append(tag("text", text, y=px(y), class_="first-text", **side))
    return join(*lines, *(ring for name in names for ring in rings[name]), *texts)


def worst(scale: Scale, result: Result) -> Markup:
    """Draw a diamond around the error that is the largest share of its limit."""
    return join(*(_mark(_point(scale, result, *point), DIAMOND, "worst") for point in worst_points(result)))
