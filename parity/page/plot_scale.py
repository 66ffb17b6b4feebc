"""Place errors in a plot: arrays in execution order across, decades of the error up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from parity.results.elements import OTHER_SHAPE
from parity.results.result import Result
from parity.results.tolerance import ROUNDOFF
from parity.summaries.findings import merge, worst_array

WIDTH, PLOT, TOP = 640, 190, 50  # user units of the SVG; marks of the highest errors reach above the frame
NAMED = 48.0  # margin on the right, for the name of the limit
FLAT = 90  # height of a plot without an error above 0
TITLE = 13  # of the name of the axis
ABOVE = 15  # of texts above the frame, clear of marks at its top
LEFT = 54.0  # margin for the decades
LABEL = 22  # characters of an array's name below the axis
CHARACTER = 9.4  # width of a character of a label on narrow screens, where type is larger
LANE = 28  # height of the lines for errors that are too small, infinite, or no numbers
DECADES = 18  # that are drawn: smaller errors stand on a line below them
REACH = 3  # decades beside errors that all agree within which the limit is drawn; beyond, a sentence states it


class Scale:
    """The mapping of an array's name and error to a point of the picture."""

    def __init__(self, results: Sequence[Result], names: Sequence[str], left: float):
        self.places = {name: k for k, name in enumerate(names)}
        self.left = left
        errors = [error for r in results for name, error, _ in r.curve if not r.word(name)]
        noise = [v for r in results for errors_of in noise_of(r) for name, v in errors_of if name not in r.copies]
        drawn = [v for v in (*errors, *noise) if math.isfinite(v) and v > 0]
        self.limits = lowest(results)
        top = max(drawn, default=min(self.limits.values(), default=1e-16))
        reach = DECADES if any(r.passed is False for r in results) else REACH  # what differs is seen beside its limit
        near = [v for v in self.limits.values() if 0 < v <= top * 10.0**reach]
        bounds = {bound for r in results for name, _, bound in r.curve if not r.word(name)}
        near = [v for v in bounds if near and 0 < v <= max(near) * 10.0**REACH]  # the lines have few gaps
        self.high: float = math.ceil(math.log10(max([top, *near])) - 1e-9)
        least = min(drawn, default=top)
        reached = [v for v in self.limits.values() if least / 10.0**reach <= v < least]
        # errors below a roundoff tell nothing from each other, but for those of float64 copies that differ
        off = [r for r in results if r.passed is False]
        marked = [error for r in off for _, error, _ in (*first_points(r), *worst_points(r)) if error > 0]
        marked += [bound for r in off for name, _, bound in r.curve if bound > 0 and not r.word(name)]
        rounding = math.floor(math.log10(min([ROUNDOFF[results[0].dtype], *marked])))
        told = [v for v in (*drawn, *reached) if v >= 10.0**rounding] or [10.0**rounding if drawn else top]
        self.low = max(math.floor(math.log10(min(told)) + 1e-9), math.ceil(self.high) - DECADES)
        self.high = max(self.high, rounding + 1)
        self.low = min(self.low, math.ceil(self.high) - 1)
        half = math.ceil(2 * math.log10(max([top, *near])) - 1e-9) / 2  # no decade of which a half is empty
        self.high = half if half >= self.low + 2 else self.high
        low = [v for v in errors if v < 10.0**self.low]
        self.zero = bool(low)  # a line below the lowest decade
        self.least = "less" if any(low) else "0"
        self.above = ", ".join(beyond_numbers(results))  # names a line above the highest decade
        self.floor = TOP + (PLOT if drawn else FLAT)
        self.right = WIDTH - NAMED  # the same in all plots, which stand below each other
        self.bottom, self.top = self.floor - LANE * self.zero, TOP + LANE * bool(self.above)

    @classmethod
    def of(cls, results: Sequence[Result]) -> Scale:
        """Return the scale of a plot of results, without room for the names of its arrays."""
        return cls(results, merge((name for name, _, _ in r.curve) for r in results), LEFT)

    def x(self, name: str) -> float:
        return self.at(self.places[name])

    def at(self, place: float) -> float:
        return self.left + (self.right - self.left) * (place + 0.5) / len(self.places)

    def seen(self, limits: Mapping[str, float] | None = None) -> list[str]:
        """List the arrays whose limits lie within the plot: the lowest ones, or those that are given."""
        limits = self.limits if limits is None else limits
        low, high = 10.0**self.low * (1 - 1e-9), 10.0**self.high * (1 + 1e-9)  # a quotient is a roundoff off
        return [name for name in self.places if low <= limits.get(name, math.inf) <= high]

    def y(self, value: float) -> float:
        if not math.isfinite(value):
            return float(TOP)
        decade = math.log10(value) if value > 0 else -math.inf
        if decade < self.low:
            return float(self.floor)
        share = (self.high - decade) / (self.high - self.low)
        return self.top + (self.bottom - self.top) * max(share, 0.0)


def beyond_numbers(results: Iterable[Result]) -> list[str]:
    """List what errors are that no number states: NaN, another shape, infinite."""
    results = list(results)
    plain = [e for r in results for name, e, _ in r.curve if not r.word(name)]
    words = {
        "NaN": any(r.nans for r in results),
        OTHER_SHAPE: any(r.shapes for r in results),
        "∞": any(not math.isfinite(error) for error in plain),
    }
    return [word for word, is_there in words.items() if is_there]


def lowest(results: Iterable[Result]) -> dict[str, float]:
    """Return the lowest limit that any pair has, by array; arrays without a number, as of other shapes, have none."""
    lowest: dict[str, float] = {}
    for result in results:
        for name, _, value in result.curve:
            if not result.word(name):
                lowest[name] = min(value, lowest.get(name, math.inf))
    return lowest


Point = tuple[str, float, float]  # array, error, limit


def first_points(result: Result) -> list[Point]:
    """Return the point of the first array that differs; none where it is no array of the plot."""
    first = result.first_divergence
    return [point for point in result.curve if first is not None and point[0] == first]


def worst_points(result: Result) -> list[Point]:
    """Return the point of the worst error of a pair; none where that is no finite number, or all errors are 0."""
    points = (point for point in result.curve if point[0] == worst_array(result) and point[0] not in result.nans)
    return [point for point in points if 0 < point[1] < math.inf][:1]


def noise_of(result: Result) -> Iterator[list[tuple[str, float]]]:
    """Yield (array, error against its own float64 run) of each framework, without arrays that have NaN."""
    for errors in result.noise.values():
        pairs = zip((name for name, _, _ in result.curve), errors, strict=False)
        yield [(name, error) for name, error in pairs if not result.word(name)]


def shortened(name: str, most: int = LABEL) -> str:
    """Shorten a name to whole parts of its path, or to whole words of its last part: "…token_mix.fc1"."""
    if len(name) <= most:
        return name
    end = name[1 - most :]
    return "…" + (end.partition(".")[2] or end.partition("_")[2] or end)


def joined(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{px(x)},{px(y)}" for x, y in points)


def px(value: float) -> str:
    return f"{value:.1f}"
