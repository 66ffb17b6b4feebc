"""Draw the errors of each pair in a plot, with the worst, what differs first and what is no number; explain these."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from specs.numerals import limit, short

from .findings import key, worst_array
from .markup import Markup, join, prose, tag
from .plot_scale import TOP, WIDTH, Scale, joined, px, shortened
from .result import Result

MARKERS = 40  # of a line
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


def plot_legend(results: Iterable[Result]) -> Markup:
    """Explain what the plots of these results have beside their lines."""
    drawn = list(results)
    keys = (
        ("limit", "M-12 0H12", "the limit" + ", the lowest of several" * _several(drawn), bool(drawn)),
        ("noise", "M-12 -5H12V5H-12z", "each framework's own rounding: its error against its float64 run",
         any(r.noise for r in drawn)),
        ("ring", RING, "what differs first", any(r.first_divergence in [tap for tap, _, _ in r.curve] for r in drawn)),
        ("worst", DIAMOND, "the worst error of a pair", any(map(_worst_point, drawn))),
        ("cross", CROSS, "NaN: a side has it in this array", any(r.nans for r in drawn)),
    )  # fmt: skip
    shown = [tag("span", _key(kind, shape), prose(text)) for kind, shape, text, is_drawn in keys if is_drawn]
    return tag("p", *shown, class_="legend soft") if shown else Markup()


def _several(results: Iterable[Result]) -> bool:
    """Tell whether an array has several limits in one plot, of which the lowest is drawn."""
    limits: dict[tuple[str, ...], set[str]] = {}
    for r in results:
        for name, _, bound in r.curve:
            limits.setdefault((*key(r), name), set()).add(limit(bound))
    return any(len(bounds) > 1 for bounds in limits.values())


def _key(kind: str, shape: str) -> Markup:
    picture = tag("path", d=shape, class_=kind)
    return tag("svg", picture, class_=f"sample {kind}-key", viewBox="-13 -13 26 26", aria_hidden="true")


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    title: str
    is_number: bool = True


def line(scale: Scale, result: Result, n: int) -> Markup:
    """Draw a pair's errors, joined where the check has an order; a cross at the top where there is NaN.

    Each point that no line joins has its marker; on a line, as many as leave it legible.
    """
    points = [_point(scale, result, *point) for point in result.curve]
    numbers = [p for p in points if p.is_number]
    if unjoined(result):
        line, marked = Markup(), iter(numbers)
    else:
        runs = (list(run) for is_number, run in itertools.groupby(points, lambda p: p.is_number) if is_number)
        line = join(*(tag("polyline", points=joined((p.x, p.y) for p in run), class_="line",
                          stroke_dasharray=DASHES[n % STYLES]) for run in runs))  # fmt: skip
        marked = _spaced(numbers, n)
    marks = [_mark(p, SHAPES[n % STYLES], "marker") for p in marked]
    marks += [_mark(p, CROSS, "cross") for p in points if not p.is_number]
    return tag("g", line, *marks, class_=f"s{n % STYLES}")


def _point(scale: Scale, result: Result, name: str, error: float, bound: float) -> _Point:
    if name in result.nans:
        return _Point(scale.x(name), scale.y(math.nan), f"{name}: NaN, {result.pair}", False)
    return _Point(scale.x(name), scale.y(error), f"{name}: {short(error)} of {limit(bound)}, {result.pair}")


def _mark(point: _Point, shape: str, kind: str) -> Markup:
    at = f"translate({px(point.x)} {px(point.y)})"
    return tag("g", tag("title", point.title), tag("path", d=shape, class_=kind), transform=at)


def _spaced(points: Sequence[_Point], n: int) -> Iterator[_Point]:
    """Choose at most MARKERS points, other ones for each line, so that lines that coincide both show."""
    every = math.ceil(len(points) / MARKERS) or 1
    yield from points[(n % every) :: every]


def first(scale: Scale, results: Iterable[Result]) -> Markup:
    """Draw a line at each array that is the first to differ in some pair, rings around its errors, and its name."""
    rings: dict[str, list[Markup]] = {}
    for result in results:
        for name, error, bound in result.curve:
            if result.first_divergence is not None and name == result.first_divergence:
                rings.setdefault(name, []).append(_mark(_point(scale, result, name, error, bound), RING, "ring"))
    if not rings:
        return Markup()
    names = sorted(rings, key=scale.places.__getitem__)
    at = [px(scale.x(name)) for name in names]
    lines = [tag("line", x1=x, x2=x, y1=TOP, y2=scale.floor, class_="first") for x in at]
    x, more = scale.x(names[0]), f" and {len(names) - 1} more" if names[1:] else ""
    side = {"x": px(x - 4), "text_anchor": "start"} if x < WIDTH / 2 else {"x": px(x + 4), "text_anchor": "end"}
    text = tag("text", f"first: {shortened(names[0])}{more}", y=px(TOP - 9), class_="first-text beyond", **side)
    return join(*lines, *(ring for name in names for ring in rings[name]), text)


def _worst_point(result: Result) -> tuple[str, float, float] | None:
    """Return the point of the worst error of a pair; None where that is no finite number, or all errors are 0."""
    point = next((point for point in result.curve if point[0] == worst_array(result)), None)
    if point is None or point[0] in result.nans or not 0 < point[1] < math.inf:
        return None
    return point


def worst(scale: Scale, result: Result) -> Markup:
    """Draw a diamond around the error that is nearest to its limit, or furthest beyond it."""
    point = _worst_point(result)
    return _mark(_point(scale, result, *point), DIAMOND, "worst") if point else Markup()
