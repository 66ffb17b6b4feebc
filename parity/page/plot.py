"""Draw error curves as inline SVG: arrays in execution order across, decades of the error up."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from parity.results.naming import own_name
from parity.results.result import Result
from parity.summaries.findings import merge
from specs.numbers import limit
from specs.words import count, in_a_row

from .markup import Markup, join, tag
from .plot_lines import LIMITS_APART, ROW, STYLES, Plot, first, first_rows, line, unjoined, worst
from .plot_scale import (
    ABOVE,
    CHARACTER,
    LEFT,
    NAMED,
    TITLE,
    TOP,
    WIDTH,
    Scale,
    beyond_numbers,
    first_points,
    joined,
    lowest,
    noise_of,
    px,
    shortened,
)  # fmt: skip

Line = list[tuple[float, float]]  # its corners

BREAK = "M-4 1L4 -3M-4 4L4 0"  # of the axis, around (0, 0)
MARKER = 8.0  # height of a marker
SEEN = 2.0  # height of a band of which something is seen beside its edges
HALF_WORD = 26.0  # half of the width of "limit" on narrow screens, where type is larger, with a gap
LABELS = 14  # arrays that are named below the axis; of more, their blocks are
CLEAR = 12.0  # height of a text, and the room that marks need beside it
FINE = 8  # places of a line between two arrays in which it is looked for
SLANTED = 30  # distance of slanted names


def margin(results: Sequence[Result]) -> float:
    """Return the room that a chart needs on its left, for its decades and a slanted first label."""
    names = merge((name for name, _, _ in r.curve) for r in results)
    labels = _labels([own_name(name, *results) for name in names])
    words = CHARACTER * len(", ".join(beyond_numbers(results))) + 8
    if not _crowded(len(names), labels):
        return max(LEFT, words)
    reach = list[float]()
    for label in labels:  # its end stands at this share of the plot, right of the margin
        share = (label.middle + 0.5) / len(names)
        reach.append((0.82 * CHARACTER * (len(label.text) + 1) - (WIDTH - NAMED) * share) / (1 - share))
    return max(LEFT, words, *reach)


def chart(plot: Plot, left: float = LEFT) -> Markup:
    """Draw one chart: a line for each pair, their limits, and the frameworks' own rounding noise as a band.

    Args:
      left: the margin that this chart has at least, so that charts below each other align.
    """
    results = plot.results
    names = merge((name for name, _, _ in r.curve) for r in results)
    labels = _labels([own_name(name, *results) for name in names])
    slanted = _crowded(len(names), labels)
    reach = max(CHARACTER * len(label.text) for label in labels)
    scale = Scale(results, names, max(left, margin(results)))
    above = first_rows(results)
    bottom = 14 + (0.57 * reach if slanted else 8) + ROW
    firsts = {scale.places[name] for r in results for name, *_ in first_points(r)}
    is_joined = not unjoined(results[0])
    parts = [
        _grid(scale, above),
        _axis(scale, scale.floor + bottom - 6, results),
        _ticks(scale, labels, slanted, firsts),
        _band(scale, results),
        _steps_at(scale, scale.limits, "limit", is_joined),
    ]
    own = own_limits(scale, plot)
    parts += [_steps_at(scale, limits, f"own-bound s{plot.styles[k] % STYLES}", is_joined) for k, limits in own.items()]
    parts += [line(scale, group, n) for n, group in zip(plot.styles, plot.lines, strict=True)]
    parts += [_own_name(scale, plot, k, limits) for k, limits in own.items()]
    parts += [first(scale, results), *(worst(scale, result) for result in results)]
    parts.append(_limit_name(scale) if scale.seen() else _beyond(scale))
    size = f"0 {-above} {WIDTH} {scale.floor + bottom + above:.0f}"
    kind = "chart slanted" if slanted else "chart"
    return tag("svg", *parts, class_=kind, viewBox=size, role="img", aria_label=_described(results))


def _described(results: Sequence[Result]) -> str:
    """Say what a chart shows: "layers, float64: a-b first beyond its limit at norm"."""
    off: dict[str, list[str]] = {}
    for r in results:
        if r.passed is False and r.first_divergence is not None:
            off.setdefault(own_name(r.first_divergence, r), []).append(r.pair)
    places = [f"{in_a_row(pairs)} first beyond {'their limits' if pairs[1:] else 'its limit'} at {name}"
              for name, pairs in off.items()]  # fmt: skip
    agree = "all errors within their limits" if all(r.passed for r in results) else "errors of each array"
    return f"{results[0].check}, {results[0].dtype}: {'; '.join(places) or agree}"


def _grid(scale: Scale, above: float) -> Markup:
    """Draw the decades, and beyond a break of the axis what none of them has.

    Args:
      above: height of the names above the usual one.
    """
    step, top = max(math.ceil((scale.high - scale.low) / 5), 1), math.floor(scale.high)
    # from the top, as the largest errors have a decade beside them
    rows = [(scale.y(10.0**d), f"1e{d}") for d in reversed(range(top, scale.low - 1, -step))]
    beyond: list[tuple[float, str, float]] = [(scale.floor, scale.least, scale.bottom)] if scale.zero else []
    beyond += [(scale.y(math.inf), scale.above, scale.top)] if scale.above else []
    parts = [tag("text", "relative error (log scale)", x=0, y=px(TITLE - above))]
    for lane, _, edge in beyond:
        parts.append(
            tag("path", d=BREAK, transform=f"translate({px(scale.left)} {px((lane + edge) / 2)})", class_="break")
        )
    lanes = {y for y, _, _ in beyond}
    for y, text in [*rows, *((y, text) for y, text, _ in beyond)]:
        kind = "grid lane" if y in lanes else "grid"
        parts.append(tag("line", x1=px(scale.left), x2=px(scale.right), y1=px(y), y2=px(y), class_=kind))
        parts.append(tag("text", text, x=px(scale.left - 6), y=px(y + (0 if y in lanes else 4)), text_anchor="end"))
    return join(*parts)


def _axis(scale: Scale, y: float, results: Sequence[Result]) -> Markup:
    """Name the horizontal axis, below the names of its arrays."""
    order = "of each optimizer, its losses first" if unjoined(results[0]) else "in the order of computation"
    return tag("text", f"arrays, {order}", x=px(scale.left), y=px(y))


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
        text = shortened(name if len(names) <= LABELS else _block(name))
        if labels and labels[-1].text == text:
            labels[-1] = Label(text, labels[-1].first, k)
        else:
            labels.append(Label(text, k, k))
    return labels


def _block(name: str) -> str:
    """Return the block of an array: "blocks.3" of "blocks.3.norm1" and "blocks.3 <- 0", "sgd" of "sgd: losses"."""
    run, _, rest = name.rpartition(": ")
    if run:
        return run
    block = re.match(r"[^.]+?(\.\d+)?(?=[.#:]| <- |$)", rest)
    return block[0] if block else rest


def _crowded(count: int, labels: Sequence[Label]) -> bool:
    """Tell whether labels beside each other would overlap."""
    step = (WIDTH - LEFT - NAMED) / max(count, 1)
    ends = -math.inf
    for label in labels:
        middle, half = step * (label.middle + 0.5), CHARACTER * (len(label.text) + 1) / 2
        if middle - half < ends:
            return True
        ends = middle + half
    return False


def _ticks(scale: Scale, labels: Sequence[Label], slanted: bool, firsts: Collection[int]) -> Markup:
    """Draw labels below the axis; leave out those for which there is no room, first those of the fewest arrays.

    Args:
      firsts: places of the arrays that differ first, whose labels go first.
    """
    parts = []
    y = scale.floor + 14
    named = _apart(scale, labels, firsts) if slanted else labels
    for label in labels:
        x = scale.at(label.middle)
        edge = scale.at(label.first - 0.5)
        parts.append(tag("line", x1=px(edge), x2=px(edge), y1=px(scale.floor), y2=px(scale.floor + 4), class_="grid"))
        if label not in named:
            continue
        turn = {"text_anchor": "end", "transform": f"rotate(-35 {px(x)} {y})"} if slanted else {"text_anchor": "middle"}
        parts.append(tag("text", label.text, x=px(x + 4 * slanted), y=y, **turn))
    return join(*parts)


def _apart(scale: Scale, labels: Sequence[Label], firsts: Collection[int]) -> list[Label]:
    """Choose labels that do not overlap: those of arrays that differ first, then of the most arrays."""
    chosen: list[Label] = []

    def order(label: Label) -> tuple[bool, int]:
        return not any(label.first <= place <= label.last for place in firsts), label.first - label.last

    for label in sorted(labels, key=order):
        if all(abs(scale.at(label.middle) - scale.at(other.middle)) >= SLANTED for other in chosen):
            chosen.append(label)
    return chosen


def _band(scale: Scale, results: Sequence[Result]) -> Markup:
    return join(
        *(tag("polygon", points=joined([*over, *under[::-1]]), class_="noise") for over, under in bands(scale, results))
    )


def bands(scale: Scale, results: Sequence[Result]) -> list[tuple[Line, Line]]:
    """Return the upper and the lower edge of each band that does not lie below the plot.

    It is the range from the least to the largest error that any framework has against its own float64 run.

    Where float64 copies are compared, which have no such error, there is none.
    """
    values: dict[str, list[float]] = {}
    for name, error in (pair for result in results for errors in noise_of(result) for pair in errors):
        values.setdefault(name, []).append(error)
    copies = {name for result in results for name in result.copies}
    runs = itertools.groupby(sorted(values, key=scale.places.__getitem__), copies.__contains__)
    alone = [list(names) for is_copy, names in runs if not is_copy]
    least = 10.0**scale.low * (1 - 1e-9)  # a quotient is a roundoff off
    shown = [names for names in alone if max(max(values[name]) for name in names) >= least]
    edges = ((_edges(scale, results[0], names, values), SEEN if names[1:] else MARKER) for names in shown)
    return [  # a flat band is not seen, and one of a single array lies behind its marker
        (over, under)
        for (over, under), least in edges
        if any(low - high >= least for (_, high), (_, low) in zip(over, under, strict=True))
    ]


def _edges(
    scale: Scale, result: Result, names: Sequence[str], values: Mapping[str, Sequence[float]]
) -> tuple[Line, Line]:
    over = [(scale.x(name), scale.y(max(values[name]))) for name in names]
    under = [(scale.x(name), scale.y(min(values[name]))) for name in names]
    if unjoined(result) or not names[1:]:
        over, under = _steps(scale, over), _steps(scale, under)
    return over, under


def _steps(scale: Scale, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of a line that has a step for each array."""
    half = (scale.at(1) - scale.at(0)) / 2
    return [corner for x, y in points for corner in ((x - half, y), (x + half, y))]


def own_limits(scale: Scale, plot: Plot) -> dict[int, dict[str, float]]:
    """Return the limits of each line of the plot that are not the lowest, where that is seen, by its place there."""
    if not scale.seen():
        return {}
    limits = {n: lowest(group) for n, group in enumerate(plot.lines)}
    return {
        n: own for n, own in limits.items()
        if any(abs(scale.y(bound) - scale.y(scale.limits[name])) > LIMITS_APART for name, bound in own.items())
    }  # fmt: skip


def _steps_at(scale: Scale, limits: Mapping[str, float], kind: str, is_joined: bool) -> Markup:
    """Draw limits as a line with a step for each array.

    Args:
      is_joined: whether the steps are joined; else each level stands by itself.
    """
    seen = {name: scale.y(limits[name]) for name in scale.seen(limits)}
    levels = itertools.groupby(scale.places, lambda name: is_joined or px(seen.get(name, 0)))
    runs = (list(run) for _, level in levels for is_seen, run in itertools.groupby(level, seen.__contains__) if is_seen)
    corners = (_steps(scale, ((scale.x(name), seen[name]) for name in run)) for run in runs)
    return join(*(tag("polyline", points=joined(points), class_=kind) for points in corners))


def _limit_name(scale: Scale) -> Markup:
    """Write "limit" beside the end of the line; above it where the line ends within the plot."""
    name = scale.seen()[-1]
    y = scale.y(scale.limits[name])
    if name == list(scale.places)[-1]:
        return tag("text", "limit", x=px(scale.right + 4), y=px(y + 4), class_="limit-text")
    x = max(scale.x(name), scale.left + HALF_WORD)  # clear of the decades
    return tag("text", "limit", x=px(x), y=px(y - 5), text_anchor="middle", class_="limit-text beyond")


def _own_name(scale: Scale, plot: Plot, k: int, limits: Mapping[str, float]) -> Markup:
    """Write whose limit it is, in the colour of its line, at an end of a line of limits that are not the lowest.

    It stands above or below the line, where it covers the fewest marks and lines.
    """
    seen, pairs = scale.seen(limits), [r.pair for r in plot.lines[k]]
    if not seen:
        return Markup()
    text = f"limit of {in_a_row(pairs) if len(pairs) < 3 else count(len(pairs), 'pair')}"
    half, width = (scale.at(1) - scale.at(0)) / 2, CHARACTER * len(text)
    lines = [*_drawn(scale, plot), list(_steps(scale, ((scale.x(n), scale.y(scale.limits[n])) for n in scale.seen())))]
    ends = [(max(scale.x(seen[-1]) + half, scale.left + width), seen[-1]), (scale.x(seen[0]) - half + width, seen[0])]
    places = [(x, scale.y(limits[name]) + dy) for x, name in ends if x <= scale.right + 1 for dy in (-5, 15)]
    x, y = min(places, key=lambda place: sum(_covered(line, place[0] - width, *place) for line in lines))
    kind = f"limit-text beyond own-name s{plot.styles[k] % STYLES}"
    return tag("text", text, x=px(x), y=px(y), text_anchor="end", class_=kind)


def _drawn(scale: Scale, plot: Plot) -> Iterator[Line]:
    """Yield the points of each line of a plot."""
    for results in plot.lines:
        yield [(scale.x(name), scale.y(error)) for name, error, _ in results[0].curve]


def _covered(line: Line, left: float, right: float, y: float) -> int:
    """Count the places, of one in a few units, in which a line runs through a text from left to right above y."""
    steps = [k / FINE for k in range(FINE + 1)]
    points = [(x + (u - x) * step, v + (w - v) * step) for (x, v), (u, w) in itertools.pairwise(line) for step in steps]
    return sum(left - CLEAR <= x <= right + CLEAR and y - CLEAR <= v <= y + 4 for x, v in points)


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
    y = TOP - ABOVE if side == "above" else scale.bottom - 5
    return tag("text", text, x=px(scale.left), y=px(y), class_="limit-text beyond")  # seen on narrow screens too
