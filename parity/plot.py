"""Draw error curves as inline SVG: arrays in execution order across, decades of the error up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from specs.numerals import limit
from specs.words import in_a_row

from .findings import merge
from .markup import Markup, join, tag
from .plot_lines import first, line, unjoined, worst
from .plot_scale import RIGHT, TOP, WIDTH, Scale, joined, noise_of, px, shortened
from .result import Result

CHARACTER = 6.4  # width of a character of a label
LABELS = 14  # arrays that are named below the axis; of more, their blocks are
SLANTED = 22  # distance of slanted names
LEFT = 54.0  # margin for the decades


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
    parts += [line(scale, result, n) for n, result in enumerate(results)]
    parts += [first(scale, results), *(worst(scale, result) for result in results)]
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


def _grid(scale: Scale) -> Markup:
    step = max(math.ceil((scale.high - scale.low) / 5), 1)
    rows = [(scale.y(10.0**d), f"1e{d}") for d in range(scale.low, scale.high + 1, step)]
    rows += [(scale.floor, scale.least)] if scale.zero else []
    rows += [(scale.y(math.inf), scale.above)] if scale.above else []
    parts = [tag("text", "error", x=px(scale.left - 6), y=px(TOP - 15), text_anchor="end")]
    for y, text in rows:
        parts.append(tag("line", x1=px(scale.left), x2=WIDTH - RIGHT, y1=px(y), y2=px(y), class_="grid"))
        parts.append(tag("text", text, x=px(scale.left - 6), y=px(y + 4), text_anchor="end"))
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
        text = shortened(name if len(names) <= LABELS else _block(name))
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
        parts.append(tag("line", x1=px(edge), x2=px(edge), y1=px(scale.floor), y2=px(scale.floor + 4), class_="grid"))
        if x - before < SLANTED * slanted:
            continue
        before, shown = x, shown + 1
        kind = "alternate" if slanted and shown % 2 == 0 else None
        turn = {"text_anchor": "end", "transform": f"rotate(-35 {px(x)} {y})"} if slanted else {"text_anchor": "middle"}
        parts.append(tag("text", label.text, x=px(x + 4 * slanted), y=y, class_=kind, **turn))
    return join(*parts)


def _band(scale: Scale, results: Sequence[Result]) -> Markup:
    """Fill the range from the least to the largest error that any framework has against its own float64 run."""
    values: dict[str, list[float]] = {}
    for name, error in (pair for result in results for errors in noise_of(result) for pair in errors):
        values.setdefault(name, []).append(error)
    if not values:
        return Markup()
    names = sorted(values, key=scale.places.__getitem__)
    over = [(scale.x(name), scale.y(max(values[name]))) for name in names]
    under = [(scale.x(name), scale.y(min(values[name]))) for name in names]
    if unjoined(next(iter(results))):
        bars = (f"M{px(x - 3)} {px(y)}h6V{px(low)}h-6z" for (x, y), (_, low) in zip(over, under, strict=True))
        return tag("path", d="".join(bars), class_="noise bars")
    return tag("polygon", points=joined([*over, *under[::-1]]), class_="noise")


def _limit(scale: Scale, steps: bool) -> Markup:
    """Draw the lowest limit as a line where it lies near the errors, or as a step for each array."""
    if not _seen(scale):
        return Markup()
    points = [(scale.x(name), scale.y(scale.limits[name])) for name in scale.places if name in scale.limits]
    points = [(scale.left, points[0][1]), *points, (WIDTH - RIGHT, points[-1][1])]
    half = (scale.at(1) - scale.at(0)) / 2
    if steps:
        path = "".join(f"M{px(x - half)} {px(y)}H{px(x + half)}" for x, y in points[1:-1])
        return tag("path", d=path, class_="limit")
    return tag("polyline", points=joined(points), class_="limit")


def _limit_name(scale: Scale) -> Markup:
    """Write "limit" above the last limit that is drawn, over all lines."""
    name = _seen(scale)[-1]
    last = name == list(scale.places)[-1]
    x, y = (WIDTH - RIGHT if last else scale.x(name)), scale.y(scale.limits[name])
    y += 18 * (bool(scale.above) and y < scale.top + 12)  # below the line where what is no number stands above it
    kind = "limit-text beyond"
    return tag("text", "limit", x=px(x), y=px(y - 5), text_anchor="end" if last else "middle", class_=kind)


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
    return tag("text", text, x=px(WIDTH - RIGHT), y=px(y), text_anchor="end", class_="limit-text beyond")
