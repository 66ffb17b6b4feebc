"""Draw error curves as inline SVG: arrays in execution order across, decades of the error up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from specs.numerals import limit, short
from specs.words import in_a_row

from .findings import merge
from .markup import Markup, join, tag
from .result import Result
from .tolerance import ROUNDOFF

WIDTH, PLOT, TOP, RIGHT = 640, 190, 22, 14  # user units of the SVG
CHARACTER = 6.4  # width of a character of a label
LABEL = 22  # characters of an array's name below the axis
LABELS = 14  # arrays that are named below the axis; of more, their blocks are
SLANTED = 22  # distance of slanted names
LANE = 18  # height of the lines for errors that are too small, or infinite
LEFT = 54.0  # margin for the decades
MARKERS = 40  # of a line
DECADES = 18  # that are drawn: smaller errors stand on a line below them
REACH = 3  # decades beside errors that all agree within which the limit is drawn; beyond, a sentence states it
STYLES = 6  # of lines: colours in page.css, dashes and markers here; a seventh line begins again
DASHES = (None, "8 4", "2 3", "10 3 2 3", "5 2", "1 4")
SHAPES = (  # markers around (0, 0)
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "M-3.2 -3.2h6.4v6.4h-6.4z",
    "M0 -4.2L4 3.2H-4z",
    "M0 -4.4L4.4 0L0 4.4L-4.4 0z",
    "M0 4.2L4 -3.2H-4z",
    "M-3.4 -3.4L3.4 3.4M-3.4 3.4L3.4 -3.4",
)


def unjoined(result: Result) -> bool:
    """Tell whether no line joins the errors: trained parameters do not follow on each other as layers do."""
    return result.check == "train"


def swatch(n: int, result: Result) -> Markup:
    """Draw the line and marker of the nth pair, for a legend."""
    line = tag("line", x1=1, x2=37, y1=7, y2=7, class_="line", stroke_dasharray=DASHES[n % STYLES])
    line = Markup() if unjoined(result) else line
    marker = tag("path", d=SHAPES[n % STYLES], transform="translate(19 7)", class_="marker")
    return tag("svg", line, marker, class_=f"swatch s{n % STYLES}", viewBox="0 0 38 14", aria_hidden="true")


def chart(results: Sequence[Result]) -> Markup:
    """Draw one chart: a line for each pair, their lowest limit, and the frameworks' own rounding noise as a band.

    Args:
      results: of one model, check, dtype and device.
    """
    names = merge((name for name, _, _ in r.curve) for r in results)
    labels = _labels(names)
    slanted = _crowded(len(names), labels)
    reach = max(CHARACTER * len(label.text) for label in labels)
    scale = Scale(results, names, max(LEFT, 0.82 * CHARACTER * len(labels[0].text) - 6) if slanted else LEFT)
    bottom = 14 + (0.57 * reach if slanted else 8)
    parts = [_grid(scale), _ticks(scale, labels, slanted), _band(scale, results), _limit(scale, unjoined(results[0]))]
    parts += [_line(scale, result, n) for n, result in enumerate(results)]
    parts.append(_first(scale, results))
    parts.append(_limit_name(scale) if _seen(scale) else _beyond(scale))
    size = f"0 0 {WIDTH} {scale.floor + bottom:.0f}"
    kind = "chart slanted" if slanted else "chart"
    return tag("svg", *parts, class_=kind, viewBox=size, role="img", aria_label=_described(results))


def _described(results: Sequence[Result]) -> str:
    """Say what a chart shows: "layers, float64: a-b first beyond its limit at norm"."""
    off: dict[str, list[str]] = {}
    for r in results:
        if r.passed is False and r.first_divergence is not None:
            off.setdefault(str(r.first_divergence), []).append(r.pair)
    places = [f"{in_a_row(pairs)} first beyond {'their limits' if pairs[1:] else 'its limit'} at {name}"
              for name, pairs in off.items()]  # fmt: skip
    agree = "all errors within their limits" if all(r.passed for r in results) else "errors of each array"
    return f"{results[0].check}, {results[0].dtype}: {'; '.join(places) or agree}"


class Scale:
    """The mapping of an array's name and error to a point of the picture."""

    def __init__(self, results: Sequence[Result], names: Sequence[str], left: float):
        self.places = {name: k for k, name in enumerate(names)}
        self.left = left
        errors = [error for r in results for _, error, _ in r.curve]
        noise = [v for r in results for values in r.noise.values() for v in values]
        drawn = [v for v in (*errors, *noise) if math.isfinite(v) and v > 0]
        self.limits = _lowest(results)
        top = max(drawn, default=min(self.limits.values(), default=1e-16))
        reach = DECADES if any(r.passed is False for r in results) else REACH  # what differs is seen beside its limit
        near = [v for v in self.limits.values() if 0 < v <= top * 10.0**reach]
        self.high = math.ceil(math.log10(max([top, *near])) - 1e-9)
        least = min(drawn, default=top)
        reached = [v for v in self.limits.values() if least / 10.0**reach <= v < least]
        rounding = math.floor(math.log10(ROUNDOFF[results[0].dtype]))  # smaller errors tell nothing from each other
        self.low = max(math.floor(math.log10(min([least, *reached]))), self.high - DECADES, rounding)
        self.high = max(self.high, rounding + 1)
        self.low = min(self.low, self.high - 1)
        low = [v for v in errors if v < 10.0**self.low]
        self.zero = bool(low)  # a line below the lowest decade
        self.least = "less" if any(low) else "0"
        self.endless = any(not math.isfinite(v) for v in errors)  # a line above the highest
        self.floor = TOP + PLOT
        self.bottom, self.top = self.floor - LANE * self.zero, TOP + LANE * self.endless

    def x(self, name: str) -> float:
        return self.at(self.places[name])

    def at(self, place: float) -> float:
        return self.left + (WIDTH - self.left - RIGHT) * (place + 0.5) / len(self.places)

    def y(self, value: float) -> float:
        if not math.isfinite(value):
            return float(TOP)
        decade = math.log10(value) if value > 0 else -math.inf
        if decade < self.low:
            return float(self.floor)
        share = (self.high - decade) / (self.high - self.low)
        return self.top + (self.bottom - self.top) * max(share, 0.0)


def _lowest(results: Iterable[Result]) -> dict[str, float]:
    """Return the lowest limit that any pair has, by array."""
    lowest: dict[str, float] = {}
    for result in results:
        for name, _, value in result.curve:
            lowest[name] = min(value, lowest.get(name, math.inf))
    return lowest


def _grid(scale: Scale) -> Markup:
    step = max(math.ceil((scale.high - scale.low) / 5), 1)
    rows = [(scale.y(10.0**d), f"1e{d}") for d in range(scale.low, scale.high + 1, step)]
    rows += [(scale.floor, scale.least)] if scale.zero else []
    rows += [(scale.y(math.inf), "∞")] if scale.endless else []
    parts = [tag("text", "error", x=_n(scale.left - 6), y=_n(TOP - 11), text_anchor="end")]
    for y, text in rows:
        parts.append(tag("line", x1=_n(scale.left), x2=WIDTH - RIGHT, y1=_n(y), y2=_n(y), class_="grid"))
        parts.append(tag("text", text, x=_n(scale.left - 6), y=_n(y + 4), text_anchor="end"))
    return join(*parts)


@dataclass(frozen=True)
class Label:
    """The name of the arrays from the place `first` to `last`, below the axis."""

    text: str
    first: int
    last: int

    @property
    def middle(self) -> float:
        return (self.first + self.last) / 2


def _labels(names: Sequence[str]) -> list[Label]:
    """Label each array where there are few, else the blocks that they belong to."""
    labels: list[Label] = []
    for k, name in enumerate(names):
        text = _short(name if len(names) <= LABELS else _block(name))
        if labels and labels[-1].text == text:
            labels[-1] = Label(text, labels[-1].first, k)
        else:
            labels.append(Label(text, k, k))
    return labels


def _block(name: str) -> str:
    """Return the block that an array belongs to: "blocks.3" of "blocks.3.norm1", "sgd" of "sgd: losses"."""
    run, _, rest = name.rpartition(": ")
    if run:
        return run
    parts = rest.split(".")
    return ".".join(parts[: 2 if parts[1:] and parts[1].isdigit() else 1])


def _short(name: str) -> str:
    """Shorten a name to whole parts of its path: "…token_mix.fc1" of a longer one."""
    if len(name) <= LABEL:
        return name
    end = name[1 - LABEL :]
    return "…" + (end.partition(".")[2] or end)


def _crowded(count: int, labels: Sequence[Label]) -> bool:
    """Tell whether labels beside each other would overlap."""
    step = (WIDTH - LEFT - RIGHT) / max(count, 1)
    ends = -math.inf
    for label in labels:
        middle, half = step * (label.middle + 0.5), CHARACTER * (len(label.text) + 1) / 2
        if middle - half < ends:
            return True
        ends = middle + half
    return False


def _ticks(scale: Scale, labels: Sequence[Label], slanted: bool) -> Markup:
    """Draw labels below the axis; leave out those that would overlap the one before."""
    parts = []
    y, before, shown = scale.floor + 14, -math.inf, 0
    for label in labels:
        x = scale.at(label.middle)
        edge = scale.at(label.first - 0.5)
        parts.append(tag("line", x1=_n(edge), x2=_n(edge), y1=_n(scale.floor), y2=_n(scale.floor + 4), class_="grid"))
        if x - before < SLANTED * slanted:
            continue
        before, shown = x, shown + 1
        kind = "alternate" if slanted and shown % 2 == 0 else None
        turn = {"text_anchor": "end", "transform": f"rotate(-35 {_n(x)} {y})"} if slanted else {"text_anchor": "middle"}
        parts.append(tag("text", label.text, x=_n(x + 4 * slanted), y=y, class_=kind, **turn))
    return join(*parts)


def _band(scale: Scale, results: Sequence[Result]) -> Markup:
    """Fill the range from the least to the largest error that any framework has against its own float64 run."""
    values: dict[str, list[float]] = {}
    for result in results:
        for errors in result.noise.values():
            for (name, _, _), error in zip(result.curve, errors, strict=False):
                values.setdefault(name, []).append(error)
    if not values:
        return Markup()
    names = sorted(values, key=scale.places.__getitem__)
    over = [(scale.x(name), scale.y(max(values[name]))) for name in names]
    under = [(scale.x(name), scale.y(min(values[name]))) for name in names]
    if unjoined(next(iter(results))):
        bars = (f"M{_n(x)} {_n(y)}V{_n(low)}" for (x, y), (_, low) in zip(over, under, strict=True))
        return tag("path", d="".join(bars), class_="noise bars")
    return tag("polygon", points=_points([*over, *under[::-1]]), class_="noise")


def _limit(scale: Scale, steps: bool) -> Markup:
    """Draw the lowest limit as a line where it lies near the errors, or as a step for each array."""
    if not _seen(scale):
        return Markup()
    points = [(scale.x(name), scale.y(scale.limits[name])) for name in scale.places if name in scale.limits]
    points = [(scale.left, points[0][1]), *points, (WIDTH - RIGHT, points[-1][1])]
    half = (scale.at(1) - scale.at(0)) / 2
    if steps:
        path = "".join(f"M{_n(x - half)} {_n(y)}H{_n(x + half)}" for x, y in points[1:-1])
        return tag("path", d=path, class_="limit")
    return tag("polyline", points=_points(points), class_="limit")


def _limit_name(scale: Scale) -> Markup:
    """Write "limit" above the last limit that is drawn, over all lines."""
    name = _seen(scale)[-1]
    last = name == list(scale.places)[-1]
    x, y = (WIDTH - RIGHT if last else scale.x(name)), scale.y(scale.limits[name])
    kind = "limit-text beyond"
    return tag("text", "limit", x=_n(x), y=_n(y - 5), text_anchor="end" if last else "middle", class_=kind)


def _seen(scale: Scale) -> list[str]:
    """List the arrays whose limits lie within the plot."""
    low, high = 10.0**scale.low, 10.0**scale.high
    return [name for name in scale.places if low * (1 - 1e-9) <= scale.limits.get(name, math.inf) <= high]


def _beyond(scale: Scale) -> Markup:
    """State the limits that lie above or below the plot, at the edge that they lie beyond."""
    values = sorted(v for v in scale.limits.values() if v > 0)
    if not values:
        return Markup()
    above, below = math.log10(values[0]) - scale.high, scale.low - math.log10(values[-1])
    away = math.floor(max(above, below)) or "less than 1"
    ends = dict.fromkeys([limit(values[0]), limit(values[-1])])
    side = "above" if above > below else "below"
    text = f"limit {' to '.join(ends)}: {away} decade{'s' * (away != 1)} {side} this plot"
    y = TOP - 9 if side == "above" else scale.bottom - 5
    return tag("text", text, x=_n(WIDTH - RIGHT), y=_n(y), text_anchor="end", class_="limit-text beyond")


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    title: str


def _line(scale: Scale, result: Result, n: int) -> Markup:
    points = [
        _Point(scale.x(name), scale.y(error), f"{name}: {short(error)} of {limit(value)}, {result.pair}")
        for name, error, value in result.curve
    ]
    line = tag("polyline", points=_points((p.x, p.y) for p in points), class_="line",
               stroke_dasharray=DASHES[n % STYLES])  # fmt: skip
    if unjoined(result):
        line = tag("path", d="".join(f"M{_n(p.x)} {_n(p.y)}h0" for p in points), class_="dots")
    marks = [
        tag("g", tag("title", p.title), tag("path", d=SHAPES[n % STYLES], class_="marker"),
            transform=f"translate({_n(p.x)} {_n(p.y)})")
        for p in _spaced(points, n)
    ]  # fmt: skip
    return tag("g", line, *marks, class_=f"s{n % STYLES}")


def _spaced(points: Sequence[_Point], n: int) -> Iterator[_Point]:
    """Choose at most MARKERS points, other ones for each line, so that lines that coincide both show."""
    every = math.ceil(len(points) / MARKERS) or 1
    yield from points[(n % every) :: every]


def _first(scale: Scale, results: Iterable[Result]) -> Markup:
    """Draw a line at the first array that differs, and rings around its errors."""
    parts: list[Markup] = []
    for result in results:
        for name, error, _ in result.curve:
            if result.first_divergence is not None and name == result.first_divergence:
                x = _n(scale.x(name))
                if not parts:
                    parts.append(tag("line", x1=x, x2=x, y1=TOP, y2=scale.floor, class_="first"))
                ring = tag("path", d="M-7 0a7 7 0 1 0 14 0a7 7 0 1 0 -14 0z", class_="ring",
                           transform=f"translate({x} {_n(scale.y(error))})")  # fmt: skip
                parts.append(ring)
    return join(*parts)


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.1f}"
